//! Behaviour of the engine as a whole, through its port.

mod generation;
mod harness;
mod reference;
