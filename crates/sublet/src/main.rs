//! The binary: configuration, roles, wiring, life cycle.
fn main() {}
