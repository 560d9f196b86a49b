//! The life of leases and jobs on both databases, with workloads that do what the test says.

mod bill;
mod clock;
mod compensations;
mod fleet;
mod idle;
mod life;
mod market;
mod offerings;
mod owner;
mod places;
mod prices;
mod reclaims;
mod recovery;
mod restarts;
mod simulation;
mod starts;
mod world;
