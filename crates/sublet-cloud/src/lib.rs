//! sublet-cloud
