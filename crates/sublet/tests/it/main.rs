//! The whole over real HTTP: the real binary, started by each test on a free port of the loopback
//! address with a data directory of its own, on SQLite and on PostgreSQL.
//!
//! `SUBLET_FULL=1` runs the whole counts; the counts that were run are printed as `count: what = n`.
#![cfg(test)]

mod bad_input;
mod batch_kill;
mod batches;
mod cards;
mod chat;
mod demonstration;
mod embeddings;
mod files;
mod fleet;
mod http;
mod jobs;
mod keys;
mod kill;
mod lifecycle;
mod months;
mod offerings;
mod payments;
mod prices;
mod privacy;
mod rate_limits;
mod remote;
mod responses;
mod resume;
mod routes;
mod server;
mod streams;
mod suppliers;
mod two;
mod two_storm;

/// A scenario on both databases, each time with a fresh cloud.
#[macro_export]
macro_rules! on_both {
    ($($name:ident: $scenario:ident;)+) => {
        $(
            mod $name {
                #[test]
                fn sqlite() {
                    super::$scenario($crate::server::Database::Sqlite);
                }
                #[test]
                fn postgresql() {
                    super::$scenario($crate::server::Database::Postgresql);
                }
            }
        )+
    };
}
