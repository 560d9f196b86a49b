//! sublet-cli
