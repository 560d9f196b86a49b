//! The whole, simulated from seeds: requests, jobs, payments, limits, prices, crashes, clock jumps.
//!
//! A failure prints its seed and the command that replays it alone:
//! `SUBLET_SEED=… SUBLET_STEPS=… cargo test -p sublet-cloud --test simulation -- --nocapture`.

use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sublet_testkit::simulation::{Plan, Summary, simulate};

/// Seeds and steps of one run in every test of the workspace, and in a full one.
const SEEDS: u64 = 28;
const SEEDS_FULL: u64 = 100;
const STEPS: u64 = 400;
const STEPS_FULL: u64 = 1_000;
/// Runs at once.
const THREADS: usize = 2;

/// The extent, from the environment of the build: cargo builds this test anew when it changes.
fn plan() -> (Vec<u64>, u64) {
    let full = option_env!("SUBLET_FULL").is_some();
    let given = option_env!("SUBLET_STEPS").map(|steps| steps.parse().expect("SUBLET_STEPS is a number"));
    let steps = given.unwrap_or(if full { STEPS_FULL } else { STEPS });
    match option_env!("SUBLET_SEED") {
        Some(seed) => (vec![seed.parse().expect("SUBLET_SEED is a number")], steps),
        None => ((1..=if full { SEEDS_FULL } else { SEEDS }).collect(), steps),
    }
}

fn run(plan: Plan, exports: Option<&Path>) -> Summary {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(simulate(plan, exports))
}

/// How far a run went, for whoever reads its log.
fn report(total: &Summary) -> std::io::Result<()> {
    let mut log = std::io::stdout().lock();
    writeln!(log, "count: simulation steps = {}", total.steps)?;
    for (effect, count) in &total.effects {
        writeln!(log, "  {effect}: {count}")?;
    }
    writeln!(log, "  refusals: {:?}", total.refusals)
}

#[test]
fn whatever_happens_the_books_balance_and_nothing_is_lost_or_doubled() {
    let (seeds, steps) = plan();
    let exports = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (next, total, failed) = (AtomicU64::new(0), Mutex::new(Summary::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let index = usize::try_from(next.fetch_add(1, Ordering::SeqCst)).expect("a small count");
                    let Some(seed) = seeds.get(index) else { return };
                    let one = || run(Plan { seed: *seed, steps }, (index == 0).then_some(exports));
                    match std::panic::catch_unwind(one) {
                        Ok(summary) => total.lock().expect("no panic").add(&summary),
                        Err(_) => failed.lock().expect("no panic").push(*seed),
                    }
                }
            });
        }
    });
    let total = total.into_inner().expect("no panic");
    report(&total).expect("the log can be written");
    let failed: Vec<u64> = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "these seeds failed, each with its way back above: {failed:?}");
    if seeds.len() > 1 {
        assert!(total.steps >= 10_000, "a run in CI has 10,000 steps");
    }
}

#[test]
fn one_seed_is_one_exact_run() {
    let plan = Plan { seed: 4, steps: 150 };
    let first = run(plan, None);
    assert_eq!(first, run(plan, None), "the same seed leaves the same books to the last character");
    assert_ne!(first.fingerprint, run(Plan { seed: 5, ..plan }, None).fingerprint);
}
