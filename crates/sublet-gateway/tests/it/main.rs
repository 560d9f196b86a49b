//! The gateway over fakes: money, streams, journal, input.

mod cloud;
mod disk;
mod engine;
mod input;
mod journal;
mod life;
mod limits;
mod money;
mod race;
mod stream;
mod world;
