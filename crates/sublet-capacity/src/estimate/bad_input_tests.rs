//! Histories that go wrong: gaps, clocks that step, capacity that shrinks under what is sold, forecasts that are wrong.

use proptest::prelude::*;
use sublet_core::notice::NoticeClass;

use super::csv::parse;
use super::demand::Step;
use super::layered::Layered;
use super::leases::{End, EndKind};
use super::replay::{Levels, Manner, SellingPolicy, Tally, replay};
use super::score::{Named, run};
use super::terms::Terms;

const HEAD: &str = "t_s,capacity_gpus,in_use_gpus\n";

/// The default policy, whose forecast is wrong by a factor.
struct Wrong {
    policy: Layered,
    times: u32,
    divided_by: u32,
}

impl SellingPolicy for Wrong {
    fn levels(&mut self, step: &Step) -> Levels {
        let mut levels = self.policy.levels(step).0.map(|level| level * self.times / self.divided_by);
        // What cannot be taken back is not the forecast's to give.
        levels[5] = 0;
        Levels(levels)
    }
    fn manner(&self) -> Manner {
        self.policy.manner()
    }
}

/// Offers what it likes, whatever is idle.
struct Reckless(Levels);

impl SellingPolicy for Reckless {
    fn levels(&mut self, _: &Step) -> Levels {
        self.0
    }
    fn manner(&self) -> Manner {
        Manner::FULL
    }
}

fn replayed(text: &str, policy: &mut dyn SellingPolicy) -> (Tally, Vec<End>) {
    let demand = parse(text).unwrap();
    let mut ends = Vec::new();
    let tally = replay(&demand.pools[0], demand.end_s, &Terms::default(), policy, &mut |moment| ends.extend(moment.ends.to_vec()));
    (tally, ends)
}

/// Units by which what is idle falls, all falls added up.
fn falls(text: &str) -> u128 {
    let steps = &parse(text).unwrap().pools[0].steps;
    steps.windows(2).map(|pair| u128::from(pair[0].idle().saturating_sub(pair[1].idle()))).sum()
}

#[test]
fn a_row_holds_through_a_gap_and_a_gap_that_is_marked_is_skipped() {
    let held =
        replayed(&format!("{HEAD}0,8,2\n60,8,2\n120,8,2\n36000,8,4\n36060,8,4\n"), &mut Reckless(Levels([6, 0, 0, 0, 0, 0])));
    assert_eq!((held.0.valid_s, held.0.sold_s), (36_120, 6 * 36_000 + 4 * 120));
    let text = "t_s,capacity_gpus,in_use_gpus,valid\n0,8,2,1\n60,8,2,1\n120,8,2,0\n36000,8,4,1\n36060,8,4,1\n";
    let skipped = replayed(text, &mut Reckless(Levels([6, 0, 0, 0, 0, 0])));
    assert_eq!((skipped.0.valid_s, skipped.0.sold_s), (240, 6 * 120 + 4 * 120));
    assert!(skipped.1.is_empty(), "an outage ends leases, and nobody evicted them");
}

#[test]
fn an_outage_that_the_owner_names_is_skipped_to_the_second() {
    let demand = parse(&format!("{HEAD}0,8,2\n60,8,3\n120,8,4\n180,8,4\n")).unwrap();
    let told = |from_s: i64, until_s: i64| -> Vec<(i64, u32, bool)> {
        let steps = demand.clone().with_outage(from_s, until_s).pools.remove(0).steps;
        steps.iter().map(|step| (step.at_s, step.in_use, step.valid)).collect()
    };
    assert_eq!(told(30, 130), [(0, 2, true), (30, 2, false), (60, 3, false), (120, 4, false), (130, 4, true), (180, 4, true)]);
    assert_eq!(told(60, 120), [(0, 2, true), (60, 3, false), (120, 4, true), (180, 4, true)]);
    assert_eq!(told(-50, 10), [(0, 2, false), (10, 2, true), (60, 3, true), (120, 4, true), (180, 4, true)]);
    assert_eq!(told(200, 900), [(0, 2, true), (60, 3, true), (120, 4, true), (180, 4, true), (200, 4, false)]);
    assert_eq!(told(900, 999), [(0, 2, true), (60, 3, true), (120, 4, true), (180, 4, true)], "behind the history");
}

#[test]
fn a_clock_that_steps_is_refused_where_it_steps() {
    for (rows, said) in [
        ("0,8,1\n60,8,1\n30,8,1\n", "line 4: the clock goes back from 60 to 30"),
        ("0,8,1\n60,8,1\n1767225600,8,1\n", "line 4: t_s is 1767225600, more than ten years behind the first row"),
        ("1767225600000000000,8,1\n", "line 2: t_s is beyond all calendars"),
    ] {
        let error = parse(&format!("{HEAD}{rows}")).unwrap_err();
        assert!(error.to_string().contains(said) && !error.alternatives().is_empty(), "{error}");
    }
}

#[test]
fn capacity_that_shrinks_under_what_is_sold_is_taken_back_shortest_notice_first() {
    // Ten units, two in use, eight sold: two to each class. Then three units are gone, and four more.
    let rows = "0,10,2\n60,10,2\n120,10,2\n180,7,2\n240,3,2\n300,3,2\n";
    let (tally, ends) = replayed(&format!("{HEAD}{rows}"), &mut Reckless(Levels([8, 6, 4, 2, 0, 0])));
    let told: Vec<_> = ends.iter().map(|end| (end.at_s, end.class, end.units, end.kind)).collect();
    assert_eq!(
        told,
        [
            (180, NoticeClass::N0, 2, EndKind::Evicted),
            (180, NoticeClass::N2m, 1, EndKind::Broken),
            (240, NoticeClass::N2m, 1, EndKind::Broken),
            (240, NoticeClass::N15m, 2, EndKind::Broken),
            (240, NoticeClass::N1h, 1, EndKind::Broken),
        ]
    );
    // Both internal units wait while what is killed ends, as there is not even room for them.
    assert_eq!(tally.collision_s, 2 * 5 + 2 * 5);
    let firm = replayed(&format!("{HEAD}{rows}"), &mut Reckless(Levels([8; 6])));
    assert_eq!((firm.0.evictions(), firm.0.collision_s), (0, 2 * 60 + 2 * 120), "firm stays, and internal demand waits");
}

#[test]
fn less_than_nothing_is_refused_and_more_than_there_is_leaves_nothing_idle() {
    for row in ["0,-8,1", "0,8,-1", "-x,8,1", "0,8,1.5", "0,8,", "0,8,+", "0,8,1e3"] {
        let error = parse(&format!("{HEAD}{row}\n")).unwrap_err();
        assert!(error.to_string().starts_with("line 2: ") && !error.alternatives().is_empty(), "{row}: {error}");
    }
    let (tally, _) = replayed(&format!("{HEAD}0,8,12\n60,8,12\n"), &mut Reckless(Levels([8; 6])));
    assert_eq!((tally.idle_s, tally.sold_s, tally.internal_s), (0, 0, 12 * 120));
}

/// Three days of a wave with bursts.
fn wave() -> String {
    let minute = |minute: u32| {
        let wave = (minute % 1_440).abs_diff(720) / 16;
        format!("{},100,{}\n", minute * 60, 20 + wave + if minute % 211 < 4 { 20 } else { 0 })
    };
    (0..3 * 1_440).map(minute).fold(HEAD.to_owned(), |text, row| text + &row)
}

#[test]
fn a_forecast_that_is_wrong_by_ten_times_costs_the_seller_and_not_the_owner() {
    let text = wave();
    let right = run(&parse(&text).unwrap(), &Terms::default(), Named::Default, &mut |_, _| {});
    let wrong =
        |times: u32, divided_by: u32| replayed(&text, &mut Wrong { policy: Layered::new(&Terms::default()), times, divided_by }).0;
    let (much, little) = (wrong(10, 1), wrong(1, 10));
    // Whatever was promised, internal demand waits for the five seconds in which it is killed.
    assert!(much.collision_s <= 5 * falls(&text), "{much:?}");
    assert!(
        much.counts.iter().map(|counts| counts.broken).sum::<u64>() > 100 && much.compensation > right.compensation,
        "{much:?}"
    );
    assert!(little.sold_s < right.sold_s / 4 && little.collision_s <= right.collision_s, "{little:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn internal_demand_waits_for_a_kill_and_no_longer_whatever_is_promised(
        rows in prop::collection::vec((1_i64..4_000, 0_u32..40, 0_u32..40), 2..40),
        levels in prop::array::uniform5(0_u32..400),
    ) {
        let mut levels = levels;
        levels.sort_unstable_by(|left, right| right.cmp(left));
        let [n0, n2m, n15m, n1h, n24h] = levels;
        let mut now_s = 0;
        let text = rows.iter().fold(HEAD.to_owned(), |text, (gap_s, capacity, in_use)| {
            now_s += gap_s;
            format!("{text}{now_s},{capacity},{in_use}\n")
        });
        let (tally, ends) = replayed(&text, &mut Reckless(Levels([n0, n2m, n15m, n1h, n24h, 0])));
        prop_assert!(tally.collision_s <= 5 * falls(&text), "{:?}", tally);
        prop_assert!(tally.sold_s <= tally.idle_s);
        prop_assert!(ends.iter().all(|end| end.kind != EndKind::Broken || end.at_s < end.promised_s));
    }
}
