//! sublet-runner
