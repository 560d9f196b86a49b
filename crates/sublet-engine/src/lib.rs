//! The in-process model engine: Llama-family models on the processor, many sequences at once.
//!
//! [`Engine`] implements the port [`sublet_core::engine::ModelEngine`]. A model's files become a
//! decoder, a tokenizer and a chat template (`load`); one thread per model (`scheduler`)
//! computes a ragged batch of prompt chunks and single tokens per step (`decoder`), chooses
//! tokens (`sample`) that a rule may limit (`constraint`), and delivers whole text (`detokenize`) over bounded streams (`sequence`).
//! Requests for vectors (`pooling`) go through the same queue and the same steps.
//!
//! Invariants: the same prompt, settings and seed give the same tokens whatever else is in the
//! batch; no token is produced beyond the allowance; every queue, buffer and cache is bounded;
//! no file makes it panic.
//!
//! Deliberately absent: HTTP, money, downloading, GPUs (big models run on servers made for
//! that, behind the same port), training.
// Kernels and file formats are arithmetic on floats and conversions between widths; sizes are
// checked against file lengths and named bounds before they are converted.
#![allow(clippy::as_conversions, clippy::float_arithmetic)]

mod apart;
mod architecture;
mod config;
mod constraint;
mod counter;
mod decoder;
mod detokenize;
mod elementwise;
mod engine;
mod inbox;
mod kernel;
mod kv;
mod load;
mod matrix;
mod pooling;
mod prefix;
mod quant;
mod sample;
mod scheduler;
mod sequence;
mod share;
mod template;
mod tokenizer;
mod tools;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(any(test, fuzzing))]
mod test_model;
#[cfg(test)]
mod tests;

pub use config::EngineConfig;
pub use counter::ChatTokenizer;
pub use engine::Engine;
pub use load::{EmbeddedFiles, ModelSource};
