//! sublet-store
