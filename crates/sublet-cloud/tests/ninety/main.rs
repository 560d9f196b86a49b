//! Ninety days of a fleet that is sold while its owner does not need it, with surges, faults, orders and restarts: every
//! promise is checked over the whole of it by a checker that is the test's own ([`check`], [`owed`], [`books`]).
//!
//! A failure prints its seed and the command that replays it alone:
//! `SUBLET_SEED=… SUBLET_DAYS=… cargo test -p sublet-cloud --test ninety -- --nocapture`.

mod books;
mod check;
mod customers;
mod days;
mod mutations;
mod owed;
mod owner;
mod record;
mod report;
mod site;

use sublet_testkit::{Database, database};

use crate::days::{Plan, live};

/// Days and seeds on SQLite, and days on PostgreSQL; reduced and in a full run.
const DAYS: i64 = 5;
const DAYS_FULL: i64 = 90;
/// In five days not everything that is asked for happens in every run; in this one it does.
const SEEDS: &[u64] = &[2];
const SEEDS_FULL: &[u64] = &[1, 2, 3];
const DAYS_ON_POSTGRESQL: i64 = 3;
const DAYS_ON_POSTGRESQL_FULL: i64 = 10;
/// Of the owner's demand before the first day: enough for a day's notice, and for `firm`.
const HISTORY_DAYS: i64 = 3;
const HISTORY_DAYS_FULL: i64 = 20;

/// The extent, from the environment of the build: cargo builds this test anew when it changes.
fn plans() -> Vec<Plan> {
    let full = option_env!("SUBLET_FULL").is_some();
    let given = option_env!("SUBLET_DAYS").map(|days| days.parse().expect("SUBLET_DAYS is a number"));
    let days = given.unwrap_or(if full { DAYS_FULL } else { DAYS });
    let history_days = if days > DAYS { HISTORY_DAYS_FULL } else { HISTORY_DAYS };
    let seeds = match option_env!("SUBLET_SEED") {
        Some(seed) => vec![seed.parse().expect("SUBLET_SEED is a number")],
        None => if full { SEEDS_FULL } else { SEEDS }.to_vec(),
    };
    seeds.into_iter().map(|seed| Plan { seed, days, history_days }).collect()
}

fn run(database: Database, plan: Plan, name: &'static str) {
    database::run(database, move |cloud| {
        Box::pin(async move {
            let (record, figures) = live(cloud, plan).await;
            let (findings, sums) = check::check(&record);
            report::show((name, plan), &record, (&figures, &sums)).expect("the log can be written");
            assert!(
                findings.is_empty(),
                "{} findings, of which the first: {:#?}",
                findings.len(),
                &findings[..findings.len().min(20)]
            );
            report::assert_something_happened(plan, &figures, &sums);
        })
    });
}

#[test]
fn every_promise_is_kept_or_paid_on_sqlite() {
    for plan in plans() {
        run(Database::sqlite_in_memory(), plan, "SQLite");
    }
}

#[test]
fn every_promise_is_kept_or_paid_on_postgresql() {
    let full = option_env!("SUBLET_FULL").is_some();
    let days = if full { DAYS_ON_POSTGRESQL_FULL } else { DAYS_ON_POSTGRESQL };
    run(Database::postgresql(), Plan { seed: 7, days, history_days: HISTORY_DAYS }, "PostgreSQL");
}
