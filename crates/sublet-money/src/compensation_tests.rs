use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::from_seconds(1_000_000);
/// 3.6 of the currency for a unit and hour: a nano-unit for a nanosecond, so a millisecond is a million nano-units.
const PRICE: Nanos = Nanos::new(3_600_000_000);

fn after(seconds: i64) -> Timestamp {
    START.plus(DurationMs::from_seconds(seconds))
}

/// A lease of two units that ran for 90 minutes and was told so many seconds before its end.
fn told(class: NoticeClass, seconds: i64) -> Interruption {
    Interruption {
        class,
        units: 2,
        price: PRICE,
        started_at: START,
        window_ends_at: None,
        told_at: after(5_400 - seconds),
        ended_at: after(5_400),
    }
}

fn owed(interruption: &Interruption, free: i64) -> Option<i64> {
    let rule = CompensationRules::default().of(interruption.class);
    compensation(interruption, rule, Nanos::new(free)).unwrap().map(|owed| owed.amount.get())
}

#[test]
fn each_class_is_owed_what_the_ladder_says() {
    let day = 86_400;
    let firm = Interruption { window_ends_at: Some(after(5_400 + 7 * day)), ..told(NoticeClass::Firm, 3_600) };
    // Per second, two units cost 2,000,000 nano-units.
    let table = [
        // What was lost is not charged, with or without notice.
        (told(NoticeClass::N0, 0), Some(77)),
        (told(NoticeClass::N0, 60), Some(77)),
        // The last hour is free if the notice was short.
        (told(NoticeClass::N2m, 120), None),
        (told(NoticeClass::N2m, 119), Some(77)),
        // Twice what was left of the hour: half an hour.
        (told(NoticeClass::N15m, 900), None),
        (told(NoticeClass::N15m, 899), Some(77 + 2 * 1_800 * 2_000_000)),
        // The missing notice and a quarter.
        (told(NoticeClass::N1h, 3_600), None),
        (told(NoticeClass::N1h, 3_000), Some(77 + 600 * 2_500_000)),
        (told(NoticeClass::N24h, 0), Some(77 + day * 2_500_000)),
        // A quarter of the rest of the window, however long before it was told.
        (firm, Some(77 + 7 * day * 500_000)),
        (Interruption { window_ends_at: Some(after(5_400)), ..firm }, None),
    ];
    for (interruption, expected) in table {
        assert_eq!(owed(&interruption, 77), expected, "{interruption:?}");
    }
}

#[test]
fn nothing_is_owed_for_what_lies_beyond_the_window() {
    let ends_soon = Interruption { window_ends_at: Some(after(5_410)), ..told(NoticeClass::N24h, 0) };
    assert_eq!(ends_soon.missing(), DurationMs::from_seconds(10));
    assert_eq!(owed(&ends_soon, 0), Some(10 * 2_500_000));
    let over = Interruption { window_ends_at: Some(after(5_400)), ..told(NoticeClass::N0, 0) };
    assert_eq!(owed(&over, 77), None);
}

#[test]
fn the_last_time_is_taken_from_the_newest_charges() {
    let charges = [(10, 100), (10, 50), (10, 31)]
        .map(|(quantity, amount)| Metered { quantity: Quantity::new(quantity).unwrap(), amount: Nanos::new(amount) });
    let table = [(0, 0), (5, 50), (10, 100), (15, 125), (25, 166), (30, 181), (99, 181)];
    for (time, expected) in table {
        let time = Quantity::new(time).unwrap();
        assert_eq!(charged_for_last(time, &charges).unwrap(), Nanos::new(expected), "{time:?}");
    }
    // A volume price that fell: what came back in the same time is not given twice.
    let fallen = [Metered { quantity: Quantity::new(10).unwrap(), amount: Nanos::new(-5) }];
    assert_eq!(charged_for_last(Quantity::new(10).unwrap(), &fallen).unwrap(), Nanos::ZERO);
}

#[test]
fn rules_have_bounds_and_name_what_is_wrong() {
    let all = || CompensationRules::default().iter().collect::<BTreeMap<_, _>>();
    assert_eq!(CompensationRules::new(all()).unwrap(), CompensationRules::default());
    let broken = |change: &dyn Fn(&mut BTreeMap<NoticeClass, CompensationRule>)| {
        let mut rules = all();
        change(&mut rules);
        CompensationRules::new(rules).unwrap_err().param_name().map(str::to_owned)
    };
    let n1h = |rules: &mut BTreeMap<NoticeClass, CompensationRule>, change: &dyn Fn(&mut CompensationRule)| {
        change(rules.get_mut(&NoticeClass::N1h).unwrap());
    };
    assert_eq!(broken(&|rules| rules.retain(|class, _| *class != NoticeClass::Firm)).as_deref(), Some("rules.firm"));
    assert_eq!(
        broken(&|rules| n1h(rules, &|rule| rule.free_ms = DurationMs::from_millis(-1))).as_deref(),
        Some("rules.n1h.free_ms")
    );
    assert_eq!(broken(&|rules| n1h(rules, &|rule| rule.hour_ppm = 10_000_001)).as_deref(), Some("rules.n1h.hour_ppm"));
    assert_eq!(broken(&|rules| n1h(rules, &|rule| rule.missing_ppm = u32::MAX)).as_deref(), Some("rules.n1h.missing_ppm"));
    for share in [0, 1_000_001] {
        assert!(service_credit(Nanos::new(100), share).is_err(), "{share}");
    }
    assert_eq!(service_credit(Nanos::new(25), 100_000).unwrap(), Nanos::new(2), "half to even");
}

/// A lease of two units that was told two minutes before its deadline and left so many seconds before it.
fn left(class: NoticeClass, seconds: i64) -> EarlyLeave {
    let (told_at, deadline) = (after(5_280), after(5_400));
    EarlyLeave { class, units: 2, price: PRICE, window_ends_at: None, told_at, left_at: after(5_400 - seconds), deadline }
}

fn early(leave: &EarlyLeave) -> i64 {
    leave.credit(CompensationRules::default().of(leave.class)).unwrap().get()
}

#[test]
fn who_leaves_early_gets_a_quarter_of_what_is_left_of_the_notice_that_was_sold() {
    // Per second, two units cost 2,000,000 nano-units.
    let soon = EarlyLeave { window_ends_at: Some(after(5_340)), ..left(NoticeClass::N2m, 100) };
    let long = EarlyLeave { told_at: after(0), ..left(NoticeClass::N2m, 5_000) };
    let table = [
        (left(NoticeClass::N2m, 100), 100 * 500_000),
        (left(NoticeClass::N15m, 120), 120 * 500_000),
        (left(NoticeClass::N24h, 1), 500_000),
        // Who goes at the deadline, or is killed after it, or had left before anybody asked.
        (left(NoticeClass::N2m, 0), 0),
        (left(NoticeClass::N2m, -5), 0),
        (left(NoticeClass::N1h, 500), 120 * 500_000),
        // Told an hour and a half before: of two minutes, two minutes.
        (long, 120 * 500_000),
        (soon, 40 * 500_000),
        // No notice is no time to leave early of; a firm window is not taken back.
        (left(NoticeClass::N0, 100), 0),
        (left(NoticeClass::Firm, 100), 0),
    ];
    for (leave, expected) in table {
        assert_eq!(early(&leave), expected, "{leave:?}");
    }
    let odd = EarlyLeave { price: Nanos::new(7_199), units: 1, ..left(NoticeClass::N2m, 1) };
    let whole = CompensationRule { early_ppm: 1_000_000, ..CompensationRules::default().of(NoticeClass::N2m) };
    assert_eq!(odd.credit(whole).unwrap(), Nanos::new(1), "1.99… is rounded down: never more than the owner gains");
    let off = CompensationRule { early_ppm: 0, ..whole };
    assert_eq!(left(NoticeClass::N2m, 100).credit(off).unwrap(), Nanos::ZERO);
}

#[test]
fn a_share_for_leaving_early_is_at_most_the_whole_and_of_a_notice() {
    let rules = |class: NoticeClass, early_ppm| {
        let mut rules = CompensationRules::default().iter().collect::<BTreeMap<_, _>>();
        rules.get_mut(&class).unwrap().early_ppm = early_ppm;
        CompensationRules::new(rules).map_err(|error| error.param_name().map(str::to_owned))
    };
    assert_eq!(rules(NoticeClass::N1h, 1_000_000).unwrap().of(NoticeClass::N1h).early_ppm, 1_000_000);
    assert_eq!(rules(NoticeClass::N1h, 1_000_001), Err(Some("rules.n1h.early_ppm".to_owned())));
    assert_eq!(rules(NoticeClass::N0, 1), Err(Some("rules.n0.early_ppm".to_owned())));
    assert_eq!(rules(NoticeClass::Firm, 1), Err(Some("rules.firm.early_ppm".to_owned())));
    let old = r#"{"free_ms": 0, "hour_ppm": 0, "missing_ppm": 1250000}"#;
    assert_eq!(serde_json::from_str::<CompensationRule>(old).unwrap().early_ppm, 0, "what was sold before promised none");
}

proptest! {
    #[test]
    fn more_notice_is_never_owed_more(
        class in proptest::sample::select(NoticeClass::ALL.to_vec()), seconds in 0_i64..200_000, more in 0_i64..10_000,
        lasts in proptest::option::of(0_i64..1_000_000),
    ) {
        let window_ends_at = lasts.map(|lasts| after(5_400 + lasts));
        let short = Interruption { window_ends_at, ..told(class, seconds) };
        let long = Interruption { window_ends_at, ..told(class, seconds + more) };
        prop_assert!(owed(&long, 5).unwrap_or(0) <= owed(&short, 5).unwrap_or(0));
    }

    #[test]
    fn k_times_the_units_are_owed_k_times_as_much(
        class in proptest::sample::select(NoticeClass::ALL.to_vec()), seconds in 0_i64..90_000, units in 1_u32..100,
        ran in 0_i64..100_000,
    ) {
        // Per millisecond a unit costs whole nano-units and shares are quarters, so nothing is rounded.
        let one = Interruption { units: 4, ended_at: after(ran), told_at: after(ran - seconds), ..told(class, 0) };
        let many = Interruption { units: 4 * units, ..one };
        prop_assert_eq!(owed(&many, 0), owed(&one, 0).map(|owed| owed * i64::from(units)));
    }

    #[test]
    fn what_is_free_is_never_more_than_was_charged(
        time in 0_i64..1_000, charges in proptest::collection::vec((1_i64..100, 0_i64..1_000), 0..20),
    ) {
        let charges: Vec<Metered> = charges
            .into_iter()
            .map(|(quantity, amount)| Metered { quantity: Quantity::new(quantity).unwrap(), amount: Nanos::new(amount) })
            .collect();
        let all = Nanos::checked_sum(charges.iter().map(|charge| charge.amount)).unwrap();
        let free = charged_for_last(Quantity::new(time).unwrap(), &charges).unwrap();
        prop_assert!(free <= all && !free.is_negative());
        let metered: i64 = charges.iter().map(|charge| charge.quantity.get()).sum();
        if time >= metered {
            prop_assert_eq!(free, all);
        }
    }

    #[test]
    fn leaving_early_and_being_compensated_are_together_never_worth_more_than_the_notice(
        class in proptest::sample::select(NoticeClass::ALL.to_vec()), units in 1_u32..10, price in 0_i64..10_000_000_000,
        given in 0_i64..100_000_000, stayed in 0_i64..100_000_000, early_ppm in 0_u32..=1_000_000, missing_ppm in 0_u32..=10_000_000,
    ) {
        let millis = |millis: i64| START.plus(DurationMs::from_millis(millis));
        let (told_at, deadline, left_at) = (millis(0), millis(given), millis(stayed));
        let price = Nanos::new(price);
        let leave = EarlyLeave { class, units, price, window_ends_at: None, told_at, left_at, deadline };
        let interruption =
            Interruption { class, units, price, started_at: START, window_ends_at: None, told_at, ended_at: deadline };
        let rule = CompensationRule { free_ms: DurationMs::ZERO, hour_ppm: 0, missing_ppm, early_ppm };
        let credit = leave.credit(rule).unwrap();
        let of_time = |millis: i64| i128::from(price.get()) * i128::from(units) * i128::from(millis) / 3_600_000;
        let gained = of_time((given - stayed).max(0));
        prop_assert!(i128::from(credit.get()) <= gained, "{credit:?} of {gained}");
        let later = EarlyLeave { left_at: millis(stayed + 1_000), ..leave };
        prop_assert!(later.credit(rule).unwrap() <= credit);
        let sold = class.notice().map_or(0, DurationMs::millis);
        let owed = compensation(&interruption, rule, Nanos::ZERO).unwrap().map_or(Nanos::ZERO, |owed| owed.amount);
        let share = i128::from(early_ppm.max(missing_ppm));
        let most = i128::from(price.get()) * i128::from(units) * i128::from(sold) * share / (3_600_000 * 1_000_000) + 1;
        prop_assert!(i128::from(credit.get() + owed.get()) <= most, "{credit:?} and {owed:?} of {most}");
    }
}
