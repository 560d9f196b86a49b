//! sublet-http
