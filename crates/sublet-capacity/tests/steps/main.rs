//! Decisions about a small fleet, one step after the other, with every step checked.
//!
//! A failure prints its seed and the shortest trace that still fails. `SUBLET_FULL=1`, set when the test is built, makes it
//! a million steps; the steps that were taken are printed as `count: …`.

use std::collections::BTreeMap;
use std::io::Write;

use check::{Broken, Rule};
use decider::{Decider, Real};
use run::{Counts, run};
use trace::{Step, draw, shrink};

#[cfg(test)]
mod check;
#[cfg(test)]
mod decider;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod run;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod world;

/// Steps of each seed.
const STEPS: usize = 250;
const SEEDS: u64 = 48;
const SEEDS_FULL: u64 = 4_000;
/// Runs at once.
const THREADS: u64 = 2;

/// The first seed that fails among so many, with the shortest trace that breaks the same rule.
fn first_failure(decider: &dyn Decider, seeds: impl Iterator<Item = u64>) -> (Counts, Option<(u64, Vec<Step>, Broken)>) {
    let mut total = Counts::new();
    for seed in seeds {
        let steps = draw(seed, STEPS);
        let (counts, broken) = run(seed, &steps, decider);
        counts.into_iter().for_each(|(what, count)| *total.entry(what).or_default() += count);
        let Some((place, broken)) = broken else { continue };
        let breaks = |steps: &[Step]| run(seed, steps, decider).1.is_some_and(|(_, again)| again.rule == broken.rule);
        let shrunk = shrink(steps[..=place].to_vec(), breaks);
        let detail = run(seed, &shrunk, decider).1.map_or(broken, |(_, broken)| broken);
        return (total, Some((seed, shrunk, detail)));
    }
    (total, None)
}

fn listed(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step:?}\n")).collect()
}

#[test]
fn whatever_happens_every_decision_holds() {
    let seeds = if option_env!("SUBLET_FULL").is_some() { SEEDS_FULL } else { SEEDS };
    let parts = std::thread::scope(|scope| {
        let begin = |part| scope.spawn(move || first_failure(&Real, (0..seeds).filter(|seed| seed % THREADS == part)));
        let runs: Vec<_> = (0..THREADS).map(begin).collect();
        runs.into_iter().map(|run| run.join().expect("a run does not panic")).collect::<Vec<_>>()
    });
    let mut total: BTreeMap<&str, u64> = BTreeMap::new();
    for (counts, failure) in parts {
        if let Some((seed, steps, broken)) = failure {
            panic!("seed {seed} breaks {:?}: {}\nafter\n{}", broken.rule, broken.detail, listed(&steps));
        }
        counts.into_iter().for_each(|(what, count)| *total.entry(what).or_default() += count);
    }
    let mut log = std::io::stdout().lock();
    writeln!(log, "count: steps of decisions = {}", seeds * u64::try_from(STEPS).unwrap()).unwrap();
    for what in DONE {
        let count = total.get(what).copied().unwrap_or_default();
        writeln!(log, "  {what}: {count}").unwrap();
        assert!(count >= DONE_MIN, "{what} happens hardly ever, so it is not tested: {count}");
    }
}

const DONE_MIN: u64 = 5;
/// What a run has to have done that often.
const DONE: [&str; 15] = [
    "sold",
    "displaced by a team",
    "waiting for a team",
    "placed for a team",
    "within the reserve",
    "beyond the reserve",
    "orders without victims",
    "orders with victims",
    "orders in time",
    "orders that broke",
    "activated",
    "taken back",
    "told otherwise",
    "stopped",
    "released",
];

#[test]
fn each_rule_is_broken_by_a_naive_variant_and_its_trace_is_short() {
    for (name, decider, rules) in naive::variants() {
        let (_, failure) = first_failure(decider.as_ref(), 0..SEEDS);
        let (_, steps, broken) = failure.unwrap_or_else(|| panic!("{name} is not found out"));
        assert!(rules.contains(&broken.rule), "{name}: {broken:?}");
        assert!(steps.len() <= 12, "{name} takes {} steps:\n{}", steps.len(), listed(&steps));
    }
    let mut found: Vec<Rule> = naive::variants().into_iter().flat_map(|(.., rules)| rules.to_vec()).collect();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 12, "every rule: {found:?}");
}
