//! The gateway over fakes: money, streams, journal, input.

#[cfg(test)]
mod cards;
#[cfg(test)]
mod cloud;
#[cfg(test)]
mod dialects;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod embeddings;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod input;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod known_failures;
#[cfg(test)]
mod kv_events;
#[cfg(test)]
mod life;
#[cfg(test)]
mod limits;
mod lines;
#[cfg(test)]
mod money;
#[cfg(test)]
mod offerings;
#[cfg(test)]
mod race;
#[cfg(test)]
mod responses;
#[cfg(test)]
mod shared_limits;
#[cfg(test)]
mod shelf;
#[cfg(test)]
mod stream;
#[cfg(test)]
mod suppliers;
#[cfg(test)]
mod supply;
#[cfg(test)]
mod supply_counts;
#[cfg(test)]
mod supply_money;
#[cfg(test)]
mod tiers;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod translate;
#[cfg(test)]
mod upstream;
#[cfg(test)]
mod world;
