//! The gateway over fakes: money, streams, journal, input.

mod cloud;
mod disk;
mod engine;
mod input;
mod money;
mod stream;
mod world;
