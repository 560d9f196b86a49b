//! The life of leases and jobs on both databases, with workloads that do what the test says.

mod bad_input;
mod bill;
mod calendars;
mod clock;
mod compensations;
mod early;
mod fleet;
mod holes;
mod idle;
mod life;
mod market;
mod notices;
mod offerings;
mod owner;
mod places;
mod prices;
mod reclaims;
mod recovery;
mod restarts;
mod returns;
mod simulation;
mod starts;
mod world;
