//! The fuzz targets of this crate: functions of bytes that panic when something is wrong.
//!
//! There only for tests and fuzzers (`docs/fuzzing.md`).

use std::collections::BTreeMap;

use sublet_core::error::Error;

use crate::estimate::demand::{Demand, SPAN_MAX_S, Step};
use crate::estimate::jobs;
use crate::estimate::sacct::{self, Clock, PoolBy, Reading, Unit};
use crate::estimate::{csv, demand, prometheus};
use crate::kubernetes;

/// Longest message of a refusal, in bytes.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Rows of demand: what is read is a history that can be replayed, and a refusal says what would work.
pub fn demand_rows(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match csv::parse(text) {
        Ok(demand) => {
            assert_history(&demand);
            assert_history(&demand.merged());
        }
        Err(error) => {
            assert!(error.to_string().contains("line "), "{error}");
            assert_helps(&error);
        }
    }
}

/// An accounting of Slurm, as each unit and by each pool.
pub fn demand_accounting(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if !sacct::is_sacct(text) {
        return;
    }
    for (unit, pool_by, zone) in [
        (Unit::Gpu, PoolBy::Partition, "UTC"),
        (Unit::Node, PoolBy::Nothing, "Europe/Berlin"),
        (Unit::Cpu, PoolBy::Account, "America/New_York"),
    ] {
        let clock = Clock::new(zone).expect("the zone is in the database");
        let reading = Reading { unit, pool_by, clock, from_s: None, until_s: None, capacity: None, capacities: BTreeMap::new() };
        match sacct::parse(text, &reading) {
            Ok(accounting) => {
                assert_history(&accounting.demand);
                // Capacity is the highest use, so that something is in use and never more than there is.
                for pool in &accounting.demand.pools {
                    assert!(pool.steps.iter().all(|step| step.in_use <= step.capacity));
                    assert!(pool.steps.iter().any(|step| step.in_use > 0));
                }
                assert!(accounting.remarks.iter().all(|remark| remark.len() <= MESSAGE_BYTES_MAX));
            }
            Err(error) => assert_helps(&error),
        }
    }
}

/// What Prometheus answered.
pub fn demand_recording(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match prometheus::parse(text) {
        Ok(recorded) => {
            assert!(recorded.step_s > 0);
            assert_history(&recorded.demand);
            // Where nothing is known, nothing is idle, and no step says what the one before it said.
            for pool in &recorded.demand.pools {
                assert!(pool.steps.iter().all(|step| step.valid || step.in_use == 0 && step.idle() == 0));
                let same = |pair: &[Step]| Step { at_s: pair[1].at_s, ..pair[0] } == pair[1];
                assert!(!pool.steps.windows(2).any(same));
            }
        }
        Err(error) => assert_helps(&error),
    }
}

/// A listing of a Kubernetes cluster, whichever resource is counted.
pub fn demand_listing(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for resource in [None, Some("nvidia.com/gpu"), Some("cpu")] {
        match kubernetes::observe(text, resource) {
            Ok(seen) => {
                assert!(seen.capacity > 0 && seen.in_use <= seen.capacity);
                assert!(seen.remarks.iter().all(|remark| remark.len() <= MESSAGE_BYTES_MAX));
            }
            Err(error) => assert_helps(&error),
        }
    }
}

/// The jobs of customers.
pub fn demand_jobs(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match jobs::parse(text) {
        Ok(found) => {
            assert!(found.jobs.is_sorted_by_key(|job| job.arrival_s));
            assert!(found.jobs.iter().all(|job| job.units > 0 && job.units <= csv::UNITS_MAX && job.duration_s > 0));
        }
        Err(error) => assert_helps(&error),
    }
}

fn assert_history(demand: &Demand) {
    assert!(!demand.pools.is_empty() && (1..=2 * demand::SPAN_MAX_S).contains(&demand.span_s()), "{}", demand.span_s());
    for pool in &demand.pools {
        assert!(pool.steps.is_sorted_by(|before, after| before.at_s < after.at_s));
        assert!(pool.steps.last().is_some_and(|last| last.at_s < demand.end_s));
        let within = pool.steps.first().zip(pool.steps.last()).map_or(0, |(first, last)| last.at_s - first.at_s);
        assert!(within <= SPAN_MAX_S);
    }
}

fn assert_helps(error: &Error) {
    assert!(!error.alternatives().is_empty() && error.to_string().len() <= MESSAGE_BYTES_MAX, "{error}");
}

#[cfg(test)]
mod tests {
    sublet_fuzz::tests!(Quick: demand_accounting, demand_jobs, demand_listing, demand_recording, demand_rows);
}
