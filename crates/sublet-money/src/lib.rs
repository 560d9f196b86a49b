//! sublet-money
