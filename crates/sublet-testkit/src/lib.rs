//! What tests share: a clock that stands still, seeded randomness, real databases, a cloud on them.
//!
//! A real PostgreSQL is started by the tests themselves; where its programs are missing, tests fail.
#![allow(clippy::expect_used, reason = "test code fails loudly")]

mod asked;
pub mod blob;
pub mod bundle;
pub mod clock;
pub mod database;
pub mod fleet;
pub mod postgres;
pub mod prices;
pub mod runner;
pub mod s3;
mod secret;
pub mod session;
pub mod simulation;
pub mod smtp;
pub mod stripe;
pub mod tenant;
pub mod webhook;

pub use blob::MemoryBlobs;
pub use clock::{ManualClock, SeededRng, mint};
pub use database::{Database, TestCloud};

/// Declares a test that runs on SQLite and on PostgreSQL, each time on a fresh database, and
/// verifies the ledger afterwards.
#[macro_export]
macro_rules! on_both_databases {
    ($($(#[$attribute:meta])* async fn $name:ident($cloud:ident: &TestCloud) $body:block)+) => {
        $(
            mod $name {
                use super::*;
                async fn scenario($cloud: &$crate::TestCloud) $body

                $(#[$attribute])*
                #[test]
                fn sqlite() {
                    $crate::database::run($crate::Database::sqlite(), |cloud| Box::pin(scenario(cloud)));
                }
                $(#[$attribute])*
                #[test]
                fn postgresql() {
                    $crate::database::run($crate::Database::postgresql(), |cloud| Box::pin(scenario(cloud)));
                }
            }
        )+
    };
}
