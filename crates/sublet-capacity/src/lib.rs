//! sublet-capacity
