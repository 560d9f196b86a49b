//! The worked example of docs/operation/estimate.md, brute force beside the bound, and properties.

use proptest::prelude::*;
use sublet_core::notice::NoticeClass;

use super::baseline::Baseline;
use super::bound::bound;
use super::csv::parse;
use super::demand::{Demand, Pool, Step};
use super::layered::{Layered, Limits};
use super::leases::EndKind;
use super::replay::{DECISION_S, Levels, Manner, SellingPolicy, Tally, replay};
use super::score::{Named, bound_of, run, score};
use super::terms::{Terms, index, term_s};

const EXAMPLE: &str = include_str!("example.csv");

/// Sells the same levels always.
struct Fixed(Levels, Manner);

impl SellingPolicy for Fixed {
    fn levels(&mut self, _: &Step) -> Levels {
        self.0
    }
    fn manner(&self) -> Manner {
        self.1
    }
}

pub(super) fn pool(capacity: u32, demand: &[u32]) -> Pool {
    let step = |(minute, in_use): (usize, &u32)| Step {
        at_s: i64::try_from(minute).unwrap() * 60,
        capacity,
        in_use: (*in_use).min(capacity),
        queued: 0,
        valid: *in_use < u32::MAX,
    };
    Pool { name: String::new(), steps: demand.iter().enumerate().map(step).collect() }
}

fn demand(capacity: u32, values: &[u32]) -> Demand {
    Demand::new(vec![pool(capacity, values)])
}

fn tally(demand: &Demand, terms: &Terms, policy: Named) -> Tally {
    run(demand, terms, policy, &mut |_, _| {})
}

#[test]
fn the_worked_example_has_these_figures() {
    let demand = parse(EXAMPLE).unwrap();
    let terms = Terms { reclaim_s: 30, ..Terms::default() };
    let bound = bound_of(&demand, &terms);
    let tally = tally(&demand, &terms, Named::Baseline(Baseline::Static { ppm: 100_000 }));
    let score = score(&tally, &bound);
    // 20 minutes of 10 units, two of them an outage; one unit of ten is kept free.
    assert_eq!((tally.valid_s, tally.idle_s, tally.internal_s), (1_080, 4_680, 6_120));
    assert_eq!((bound.open_s[1], bound.open_s[2], bound.open_s[3]), (4_680, 0, 0));
    assert_eq!(bound.value, 4_680 * 400_000);
    // The same figures as in docs/operation/estimate.md, computed by tests/outside/estimate.py.
    let text = format!(
        "sold {} value {} collisions {} evictions {} h/eviction {:?} revenue {} bound {}",
        score.sold_share,
        score.value_share_of_bound,
        tally.collision_s,
        tally.evictions(),
        score.sold_hours_per_eviction.map(|hours| hours.to_string()),
        score.revenue,
        score.bound_hours,
    );
    assert_eq!(
        text,
        "sold 0.794872 value 0.846154 collisions 240 evictions 4 h/eviction Some(\"0.258333\") revenue 0.440000 bound 0.520000"
    );
}

#[test]
fn a_lease_gets_its_notice_and_is_cleaned_before_its_unit_is_free() {
    // Ten units; demand takes two of the last three free ones at minute 5.
    let demand = demand(10, &[2, 2, 2, 2, 2, 9, 9, 9, 9, 9]);
    let terms = Terms { reclaim_s: 45, ..Terms::default() };
    let mut plain = Fixed(Levels([3, 3, 0, 0, 0, 0]), Manner::PLAIN);
    // Eight are free until minute 5 and three are sold, then one is: two are evicted only if the levels say so.
    let result = replay(&demand.pools[0], demand.end_s, &terms, &mut plain, &mut |_| {});
    assert_eq!((result.evictions(), result.collision_s), (0, 2 * 300), "levels that never fall collide");
    let mut breaking = Fixed(Levels([3, 3, 0, 0, 0, 0]), Manner::FULL);
    let mut ends = Vec::new();
    let result = replay(&demand.pools[0], demand.end_s, &terms, &mut breaking, &mut |moment| ends.extend(moment.ends.to_vec()));
    assert_eq!((result.counts[1].broken, result.collision_s), (2, 2 * 50), "killed in 5 seconds, cleaned in 45");
    assert_eq!(ends.iter().map(|end| (end.kind, end.at_s, end.promised_s)).collect::<Vec<_>>(), [(EndKind::Broken, 300, 420)]);
    // The last hour is free: they ran for 300 seconds at 0.40.
    assert_eq!(result.compensation, 2 * 300 * 400_000);
}

#[test]
fn what_was_promised_decides_what_is_owed() {
    let terms = Terms::default();
    for (class, age_s, missing_s, owed) in [
        (NoticeClass::N0, 100, 0, 0),
        (NoticeClass::N2m, 100, 120, 100 * 400_000),
        (NoticeClass::N2m, 9_000, 120, 3_600 * 400_000),
        (NoticeClass::N15m, 600, 900, 2 * 3_000 * 550_000),
        (NoticeClass::N15m, 7_200, 900, 0),
        (NoticeClass::N1h, 600, 3_600, 3_600 * 875_000),
        (NoticeClass::N24h, 600, 1_000, 1_000 * 1_062_500),
    ] {
        assert_eq!(terms.compensation(class, age_s, missing_s), owed, "{class} {age_s}");
    }
}

#[test]
fn firm_is_never_evicted_and_ends_with_its_window() {
    let mut values = vec![0; 8 * 24 * 60];
    values[60..].fill(10);
    let demand = demand(10, &values);
    let mut firm = Fixed(Levels([4; 6]), Manner::FULL);
    let mut ends = Vec::new();
    let result =
        replay(&demand.pools[0], demand.end_s, &Terms::default(), &mut firm, &mut |moment| ends.extend(moment.ends.to_vec()));
    assert_eq!(result.evictions(), 0);
    assert_eq!(ends.iter().map(|end| (end.kind, end.at_s, end.units)).collect::<Vec<_>>(), [(EndKind::Over, 7 * 86_400, 4)]);
    assert_eq!(result.collision_s, 4 * (7 * 86_400 - 3_600));
}

#[test]
fn a_pool_that_is_always_full_sells_nothing() {
    let demand = demand(16, &vec![16; 3 * 1_440]);
    for (name, policy) in Named::chosen("all").unwrap() {
        let tally = tally(&demand, &Terms::default(), policy);
        assert_eq!((tally.sold_s, tally.collision_s), (0, 0), "{name}");
    }
}

#[test]
fn behind_an_outage_nothing_is_sold_for_an_hour() {
    let mut values = vec![4; 2 * 1_440];
    values[1_440..1_500].fill(u32::MAX);
    let demand = demand(16, &values);
    let mut sold_at = Vec::new();
    run(&demand, &Terms::default(), Named::Default, &mut |_, moment| {
        if moment.running.iter().sum::<u32>() > 0 {
            sold_at.push(moment.at_s / 60);
        }
    });
    let around: Vec<i64> = sold_at.into_iter().filter(|minute| (1_400..=1_570).contains(minute)).collect();
    assert_eq!((around.first(), around.iter().find(|minute| **minute >= 1_440)), (Some(&1_400), Some(&1_560)));
}

#[test]
fn a_burst_ten_times_what_was_seen_is_survived() {
    let mut values: Vec<u32> = (0..4 * 1_440).map(|minute| 20 + minute % 7).collect();
    values[5_000..5_100].fill(300);
    let demand = demand(300, &values);
    let tally = tally(&demand, &Terms::default(), Named::Default);
    assert_eq!(tally.counts[index(NoticeClass::Firm)].sold, 0);
    // All that runs is killed within five seconds of the only jump.
    assert!(tally.collision_s <= 300 * 5 + 10 * 5 && tally.episodes <= 2, "{tally:?}");
}

#[test]
fn merged_pools_are_their_sum() {
    let text = "t_s,pool,capacity_gpus,in_use_gpus,queued_gpus,valid\n0,a,4,1,0,1\n0,b,8,2,3,1\n60,b,8,8,0,1\n120,a,4,4,1,0\n";
    let merged = parse(text).unwrap().merged();
    let rows: Vec<_> = merged.pools[0].steps.iter().map(|s| (s.at_s, s.capacity, s.in_use, s.queued, s.valid)).collect();
    assert_eq!(rows, [(0, 12, 3, 3, true), (60, 12, 9, 0, true), (120, 12, 12, 1, false)]);
    assert_eq!(merged.end_s, 180);
}

/// The bound's definition, by brute force over minutes: `k` units can be sold at `t` in leases of `term`
/// if some window of that length around `t` always has `k` idle units.
fn brute_open(idle: &[u32], term: usize) -> u128 {
    let term = term.max(1);
    let windows: Vec<u32> = idle.windows(term).map(|window| window.iter().copied().min().unwrap()).collect();
    (0..idle.len())
        .map(|at| {
            let starts = at.saturating_sub(term - 1)..=at.min(idle.len().saturating_sub(term));
            starts.filter_map(|start| windows.get(start)).copied().max().map_or(0, u128::from)
        })
        .sum()
}

fn values() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec((0_u32..=12, 1_usize..90), 1..16)
        .prop_map(|runs| runs.into_iter().flat_map(|(value, length)| std::iter::repeat_n(value, length)).collect())
}

fn every_policy() -> impl Strategy<Value = Named> {
    prop::sample::select(Named::all().into_iter().map(|(_, policy)| policy).collect::<Vec<_>>())
}

/// Learns from the first minute on, so that short histories exercise it.
struct Eager(Layered);

impl SellingPolicy for Eager {
    fn levels(&mut self, step: &Step) -> Levels {
        self.0.levels(step)
    }
    fn manner(&self) -> Manner {
        self.0.manner()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_bound_is_what_brute_force_finds(values in values()) {
        let pool = pool(12, &values);
        let end_s = i64::try_from(values.len()).unwrap() * 60;
        let found = bound(&pool, end_s, &Terms::default());
        let idle: Vec<u32> = values.iter().map(|value| 12 - value).collect();
        for class in [NoticeClass::N0, NoticeClass::N2m, NoticeClass::N15m, NoticeClass::N1h] {
            let term = usize::try_from(term_s(class)).unwrap() / 60;
            prop_assert_eq!(found.open_s[index(class)], 60 * brute_open(&idle, term), "{}", class);
        }
    }

    #[test]
    fn no_policy_beats_the_bound_sells_what_is_not_idle_or_evicts_firm(values in values(), policy in every_policy()) {
        let demand = demand(12, &values);
        let terms = Terms::default();
        let mut ends = Vec::new();
        let tally = run(&demand, &terms, policy, &mut |_, moment| ends.extend(moment.ends.to_vec()));
        prop_assert!(tally.sold_s <= tally.idle_s);
        prop_assert!(ends.iter().all(|end| end.class != NoticeClass::Firm || end.kind == EndKind::Over));
        prop_assert!(ends.iter().all(|end| (end.kind == EndKind::Broken) == (end.at_s < end.promised_s)));
        prop_assert!(tally.value() <= bound_of(&demand, &terms).value);
        prop_assert_eq!(tally, run(&demand, &terms, policy, &mut |_, _| {}), "deterministic");
    }

    #[test]
    fn levels_stay_within_what_is_idle(values in values(), capacity in 1_u32..40) {
        let mut policy = Eager(Layered::with_limits(&Terms::default(), Limits { caution_s: 0, ..Limits::default() }));
        for step in &pool(capacity, &values).steps {
            let levels = policy.levels(step).0;
            prop_assert!(levels[0] <= step.idle() && levels.is_sorted_by(|left, right| left >= right), "{levels:?}");
        }
    }

    #[test]
    fn the_future_changes_no_earlier_decision(values in values(), cut in 0_usize..2_000, policy in every_policy()) {
        let cut = cut % values.len();
        let mut other = values.clone();
        other[cut..].reverse();
        other.extend([3; 30]);
        let moments = |values: &[u32]| {
            let mut seen = Vec::new();
            run(&demand(12, values), &Terms::default(), policy, &mut |_, moment| seen.push((moment.at_s, moment.running)));
            let until = i64::try_from(cut).unwrap() * DECISION_S;
            seen.into_iter().filter(|(at_s, _)| *at_s < until).collect::<Vec<_>>()
        };
        prop_assert_eq!(moments(&values), moments(&other));
    }

    #[test]
    fn parsing_never_panics(text in "(t_s,capacity_gpus,in_use_gpus,queued_gpus,valid\n)?[-0-9a-z,.\n]{0,80}") {
        let _ = parse(&text);
    }
}

#[test]
fn errors_name_the_line_and_what_would_work() {
    let head = "t_s,capacity_gpus,in_use_gpus,queued_gpus,valid\n";
    for (text, line, word) in [
        (String::new(), 1, "empty"),
        ("time,gpus\n0,1\n".to_owned(), 1, "'time'"),
        ("t_s,in_use_gpus\n".to_owned(), 1, "capacity_gpus is missing"),
        ("t_s,t_s\n".to_owned(), 1, "twice"),
        (head.to_owned(), 2, "no rows"),
        (format!("{head}0,8,1,0,1\n0,8,2,0,1\n"), 3, "twice"),
        (format!("{head}60,8,1,0,1\n0,8,2,0,1\n"), 3, "goes back"),
        (format!("{head}0,8,-1,0,1\n"), 2, "below zero"),
        (format!("{head}0,8,1,0,2\n"), 2, "valid is '2'"),
        (format!("{head}0.5,8,1,0,1\n"), 2, "t_s is '0.5'"),
        (format!("{head}0,8,1,0\n"), 2, "4 fields"),
        (format!("{head}0,8,1,0,1\n\n60,8,1,0,1\n"), 3, "empty"),
        (format!("{head}0,99999999,1,0,1\n"), 2, "more than any pool"),
    ] {
        let error = parse(&text).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&format!("line {line}:")) && message.contains(word), "{message}");
        assert!(!error.alternatives().is_empty(), "{message}");
    }
}
