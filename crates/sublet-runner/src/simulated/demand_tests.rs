//! The rhythm of the owner's simulated work, its bounds, and that it follows from its seed.

use super::demand::{DEMAND_STEP_S, Demand, OwnDemand, Rhythm};

/// Monday, 5 January 2026, 00:00 UTC.
const MONDAY_S: i64 = 1_767_571_200;
const DAY_S: i64 = 86_400;
const WEEKS: i64 = 8;
const MIXED: Rhythm = Rhythm { serving_percent: 30, jobs_percent: 55, jobs_per_day: 45, gang_max: 8 };

fn series(seed: u64, units: u32, rhythm: Rhythm) -> Vec<Demand> {
    let mut demand = OwnDemand::new(seed, "h200 at site_north", (units, rhythm), MONDAY_S);
    demand.until(MONDAY_S + WEEKS * 7 * DAY_S - 1)
}

fn mean(steps: &[Demand], which: impl Fn(i64, i64) -> bool) -> u64 {
    let chosen = steps.iter().filter(|step| {
        let into = step.at_s - MONDAY_S;
        which(into / DAY_S % 7, into % DAY_S / 3_600)
    });
    let (sum, count) = chosen.fold((0, 0), |(sum, count), step| (sum + u64::from(step.in_use), count + 1));
    // In thousandths of a unit.
    sum * 1_000 / count
}

#[test]
fn the_same_seed_gives_the_same_series_however_it_is_asked() {
    let whole = series(7, 48, MIXED);
    let mut stepwise = OwnDemand::new(7, "h200 at site_north", (48, MIXED), MONDAY_S);
    let mut asked = Vec::new();
    for minute in 0..WEEKS * 7 * 1_440 {
        asked.extend(stepwise.until(MONDAY_S + minute * 60));
    }
    assert_eq!(asked, whole);
    assert_ne!(series(8, 48, MIXED), whole);
    let mut elsewhere = OwnDemand::new(7, "h200 at site_south", (48, MIXED), MONDAY_S);
    assert_ne!(elsewhere.until(MONDAY_S + WEEKS * 7 * DAY_S - 1), whole);
}

#[test]
fn steps_are_even_and_nothing_exceeds_the_pool() {
    for seed in 0..20 {
        for units in [1, 8, 16, 48] {
            let steps = series(seed, units, MIXED);
            assert!(steps.windows(2).all(|pair| pair[1].at_s == pair[0].at_s + DEMAND_STEP_S));
            assert!(steps.iter().all(|step| step.in_use <= units && step.queued <= 64 * 8), "seed {seed}, {units} units");
        }
    }
}

#[test]
fn days_are_busier_than_nights_and_weeks_than_their_ends() {
    for seed in 0..10 {
        let steps = series(seed, 48, MIXED);
        let (day, night) = (mean(&steps, |_, hour| (10..17).contains(&hour)), mean(&steps, |_, hour| (1..5).contains(&hour)));
        assert!(day > night + 4_000, "seed {seed}: {day} by day, {night} by night");
        let (week, end) = (mean(&steps, |day, _| day < 5), mean(&steps, |day, _| day >= 5));
        assert!(week > end + 2_000, "seed {seed}: {week} in the week, {end} at its end");
        let all = mean(&steps, |_, _| true);
        assert!((15_000..40_000).contains(&all), "seed {seed}: {all} of 48,000 in the mean");
    }
}

#[test]
fn jobs_wait_sometimes_launches_come_and_the_monitor_fails() {
    let (mut waits, mut outages) = (0, 0);
    for seed in 0..10 {
        let steps = series(seed, 48, MIXED);
        waits += steps.iter().filter(|step| step.queued > 0).count();
        outages += steps.windows(2).filter(|pair| pair[0].valid && !pair[1].valid).count();
        let invalid = steps.iter().filter(|step| !step.valid).count();
        assert!(invalid * 100 < steps.len(), "seed {seed}: nothing is known in {invalid} of {} steps", steps.len());
    }
    assert!(waits > 200, "{waits} steps with a queue");
    assert!((10..80).contains(&outages), "{outages} outages in 80 weeks");
    // What serving alone has, to see launches: they lift its busiest hour above the usual one.
    let serving = Rhythm { jobs_per_day: 0, serving_percent: 50, ..MIXED };
    let peaks: Vec<u32> = series(3, 100, serving).chunks(288).filter_map(|day| day.iter().map(|step| step.in_use).max()).collect();
    let usual = peaks.iter().filter(|peak| **peak <= 51).count();
    assert!(usual > 20 && peaks.iter().any(|peak| *peak >= 55), "{peaks:?}");
}

#[test]
fn durations_are_heavy_tailed_and_gangs_start_whole() {
    let training = Rhythm { serving_percent: 0, jobs_percent: 100, jobs_per_day: 20, gang_max: 8 };
    let steps = series(5, 64, training);
    let rises: Vec<u32> = steps.windows(2).filter_map(|pair| pair[1].in_use.checked_sub(pair[0].in_use)).collect();
    assert!(rises.iter().filter(|rise| **rise >= 8).count() > 10, "gangs of eight come at once");
    // Hardly anything begins at night; what runs then is long.
    let mut busy_nights = 0;
    for night in 0..WEEKS * 7 {
        let at = usize::try_from((night * DAY_S + 4 * 3_600) / DEMAND_STEP_S).unwrap();
        busy_nights += usize::from(steps[at].in_use >= 4);
    }
    assert!(busy_nights > 20, "{busy_nights} nights with long jobs");
}
