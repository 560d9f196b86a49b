//! sublet-engine
