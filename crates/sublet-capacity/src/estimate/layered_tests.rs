//! What the default policy keeps on made-up demand: limits under bursts, and how promises grow with what was seen.

use sublet_core::notice::NoticeClass;

use super::demand::{Demand, Pool, Step};
use super::layered::{Layered, Part};
use super::leases::{EndKind, Leases};
use super::replay::{SellingPolicy, Tally};
use super::score::{Named, run};
use super::shadow::{LEASE, Record};
use super::terms::{PPM, Terms, index};
use crate::curve::LevelReason;

const DAY_MIN: usize = 1_440;

const CAPACITY: u32 = 400;

/// A step a minute.
fn demand(values: &[u32]) -> Demand {
    let step = |(minute, in_use): (usize, &u32)| Step {
        at_s: i64::try_from(minute).unwrap() * 60,
        capacity: CAPACITY,
        in_use: (*in_use).min(CAPACITY),
        queued: 0,
        valid: true,
    };
    Demand::new(vec![Pool { name: String::new(), steps: values.iter().enumerate().map(step).collect() }])
}

fn tally(values: &[u32], terms: &Terms, policy: Named) -> Tally {
    run(&demand(values), terms, policy, &mut |_, _| {})
}

/// Jobs that begin at random and last from minutes to two days, on a part of the pool; a wave of days.
fn jobs(days: usize, sizes: &[u32], seed: u64) -> Vec<u32> {
    let mut state = seed;
    let mut draw = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let mut running: Vec<(usize, u32)> = Vec::new();
    let mut values = Vec::new();
    for minute in 0..days * DAY_MIN {
        running.retain(|job| job.0 > minute);
        let used: u32 = running.iter().map(|job| job.1).sum();
        let is_day = minute % DAY_MIN > 600;
        if draw(if is_day { 3 } else { 6 }) == 0 {
            let size = sizes[usize::try_from(draw(u64::try_from(sizes.len()).unwrap())).unwrap()];
            let minutes = 60_000 / (20 + draw(980));
            if used + size <= 380 {
                running.push((minute + usize::try_from(minutes).unwrap(), size));
            }
        }
        values.push(running.iter().map(|job| job.1).sum());
    }
    values
}

fn long(tally: &Tally) -> (u64, u64) {
    let counts = [tally.counts[index(NoticeClass::N1h)], tally.counts[index(NoticeClass::N24h)]];
    (counts.iter().map(|counts| counts.sold).sum(), counts.iter().map(|counts| counts.broken).sum())
}

#[test]
fn limits_are_kept_under_bursts_of_jobs() {
    let (mut collision_s, mut internal_s, mut evictions, mut usual, mut sold, mut broken) = (0, 0, 0, 0, 0, 0);
    for (seed, sizes) in [(1, vec![1, 1, 2, 4]), (2, vec![1, 2, 2, 8]), (3, vec![2, 4])] {
        let values = jobs(10, &sizes, seed);
        let ours = tally(&values, &Terms::default(), Named::Default);
        let long = long(&ours);
        assert!(ours.sold_s * 2 > ours.idle_s, "sizes {sizes:?}: {ours:?}");
        assert_eq!(ours.counts[index(NoticeClass::Firm)].broken, 0);
        collision_s += ours.collision_s;
        internal_s += ours.internal_s;
        evictions += ours.evictions();
        usual += tally(&values, &Terms::default(), Named::chosen("static-10").unwrap()[0].1).evictions();
        sold += long.0;
        broken += long.1;
    }
    assert!(collision_s * u128::from(PPM) <= 10 * internal_s, "{} ppm", collision_s * u128::from(PPM) / internal_s);
    assert!(sold > 500 && 100 * broken <= sold, "{broken} of {sold} long leases broken");
    assert!(evictions <= usual, "{evictions} evictions, {usual} behind a static buffer");
}

/// Levels of a class at the end of each day of a pool of which so many units are always idle.
fn levels(policy: &mut Layered, class: NoticeClass, days: usize) -> Vec<u32> {
    let steps = demand(&vec![80; days * DAY_MIN]).pools.remove(0).steps;
    let levels: Vec<u32> = steps.iter().map(|step| policy.levels(step).0[index(class)]).collect();
    levels.chunks(DAY_MIN).filter_map(|day| day.last().copied()).collect()
}

#[test]
fn long_promises_grow_with_the_terms_seen() {
    let found = levels(&mut Layered::new(&Terms::default()), NoticeClass::N24h, 20);
    assert_eq!(found[0], 0, "a day shows nothing of a day's notice");
    assert!(found.is_sorted() && found[19] > found[4], "{found:?}");
    for (day, units) in (1..).zip(&found) {
        assert!(*units <= 320 * day / (day + 12), "{found:?}");
    }
}

#[test]
fn firm_waits_for_two_terms_and_takes_a_small_part() {
    let found = levels(&mut Layered::new(&Terms::default()), NoticeClass::Firm, 22);
    assert!(found[..13].iter().all(|units| *units == 0), "{found:?}");
    assert!(found[14] > 0 && found.iter().all(|units| *units <= 320 * 2 / 5), "{found:?}");
    let without = levels(&mut Layered::without(&Terms::default(), Part::Firm), NoticeClass::Firm, 16);
    assert!(without.iter().all(|units| *units == 0));
}

#[test]
fn firm_is_never_sold_beyond_what_was_once_left() {
    // 320 units are idle but for an hour of the third day.
    for left in [10, 40, 100, 250] {
        let mut values = vec![CAPACITY - 320; 20 * DAY_MIN];
        values[3 * DAY_MIN..3 * DAY_MIN + 60].fill(CAPACITY - left);
        let mut policy = Layered::new(&Terms::default());
        let steps = demand(&values).pools.remove(0).steps;
        let firm: Vec<u32> = steps.iter().map(|step| policy.levels(step).0[index(NoticeClass::Firm)]).collect();
        let most = firm.iter().copied().max().unwrap();
        assert!(most <= left, "{most} firm units, {left} were left once");
        assert_eq!(most > 0, left >= 100, "{most} firm units, {left} were left once");
    }
}

#[test]
fn a_level_that_broke_is_not_promised_again() {
    // Most units are idle for six days, then few on each evening.
    let mut values = vec![80; 12 * DAY_MIN];
    for evening in 6..12 {
        values[evening * DAY_MIN + 1_000..evening * DAY_MIN + 1_200].fill(390);
    }
    let mut ends = Vec::new();
    let tally = run(&demand(&values), &Terms::default(), Named::Default, &mut |_, moment| ends.extend(moment.ends.to_vec()));
    let is_long = |class| class == NoticeClass::N1h || class == NoticeClass::N24h;
    let first = i64::try_from(6 * DAY_MIN + 1_200).unwrap() * 60;
    let later: u32 =
        ends.iter().filter(|end| end.kind == EndKind::Broken && is_long(end.class) && end.at_s > first).map(|end| end.units).sum();
    assert!(long(&tally).1 > 0, "the first evening cannot be foreseen");
    assert_eq!(later, 0, "the others can");
}

#[test]
fn slow_cleaning_sells_less_rather_than_colliding_more() {
    let values = jobs(10, &[1, 2, 2, 8], 2);
    let quick = tally(&values, &Terms::default(), Named::Default);
    let slow = tally(&values, &Terms { reclaim_s: 120, ..Terms::default() }, Named::Default);
    assert!(slow.sold_s < quick.sold_s, "{} {}", slow.sold_s, quick.sold_s);
    assert!(slow.collision_s < 25 * quick.collision_s / 2, "{} {}", slow.collision_s, quick.collision_s);
}

#[test]
fn few_leases_fade_as_slowly_as_many() {
    let mut record = Record::default();
    record.follow(1_000, 1_000, 60, true);
    record.follow(1_000, 990, 60, true);
    assert_eq!((record.sold, record.broken), (1_000 * LEASE, 10 * LEASE));
    (0..22).for_each(|_| record.fade());
    assert!((490..=510).contains(&(record.sold / LEASE)) && (4..=5).contains(&(record.broken / LEASE)), "{record:?}");
}

#[test]
fn firm_counts_until_its_window_is_over() {
    let mut leases = Leases::default();
    leases.sell(NoticeClass::Firm, 3, 0);
    leases.sell(NoticeClass::N1h, 2, 0);
    let almost = 7 * 86_400 - 60;
    assert_eq!([NoticeClass::N0, NoticeClass::N1h, NoticeClass::N24h].map(|class| leases.committed(class, almost)), [5, 5, 3]);
    leases.advance(almost + 60, &Terms::default());
    assert_eq!(leases.committed(NoticeClass::N24h, almost + 60), 0);
}

/// A pool that is full every other forty minutes.
fn square_wave(hours: i64) -> (Layered, Step) {
    let mut policy = Layered::new(&Terms::default());
    let mut last = Step { at_s: 0, capacity: 10, in_use: 0, queued: 0, valid: true };
    for minute in 0..hours * 60 {
        last = Step { at_s: minute * 60, in_use: if minute / 40 % 2 == 0 { 10 } else { 0 }, ..last };
        policy.levels(&last);
    }
    (policy, last)
}

#[test]
fn a_class_is_withdrawn_once_enough_was_seen_and_unproven_before() {
    let (policy, last) = square_wave(20);
    assert_eq!(policy.reasons(&last)[0], LevelReason::Unproven, "one unit that was missed would be too many yet");
    let (policy, last) = square_wave(80);
    assert_eq!(policy.reasons(&last)[..2], [LevelReason::Withdrawn, LevelReason::ShorterNotSold]);
    // A quiet pool has shown nothing about an hour's notice within a day, for or against it.
    let mut policy = Layered::new(&Terms::default());
    let mut last = Step { at_s: 0, capacity: 12, in_use: 0, queued: 0, valid: true };
    for minute in 0..DAY_MIN {
        let in_use = [1, 2, 1, 3, 2, 1][minute / 15 % 6];
        last = Step { at_s: i64::try_from(minute).unwrap() * 60, in_use, ..last };
        policy.levels(&last);
    }
    let reasons = policy.reasons(&last);
    assert!(matches!(reasons[2], LevelReason::OfCapacity { .. } | LevelReason::OfLeast { .. }), "{reasons:?}");
    assert_eq!(reasons[3], LevelReason::Unproven);
}
