//! Behaviour of the engine as a whole, through its port.

mod batching;
mod constraints;
mod embeddings;
mod formats;
mod generation;
mod harness;
mod hostile;
mod prefixes;
mod reference;
mod tiers;
mod validate;
