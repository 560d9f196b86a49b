//! sublet-gateway
