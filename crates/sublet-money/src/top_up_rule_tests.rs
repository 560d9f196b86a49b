use proptest::prelude::*;

use super::*;
use crate::zone::ZONES;

const UNIT: i64 = 1_000_000_000;
const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn units(amount: i64) -> Nanos {
    Nanos::new(amount * UNIT)
}

fn rule() -> TopUpRule {
    TopUpRule {
        below: Some(BelowThreshold { threshold: units(10), amount: units(50) }),
        on: Some(OnDay { day: TopUpDay::Monthly(1), amount: units(20) }),
        most_per_day: Some(units(100)),
        most_per_month: units(200),
    }
}

fn quiet() -> TopUpStanding {
    TopUpStanding {
        available: units(10),
        is_under_way: false,
        this_day: Nanos::ZERO,
        this_month: Nanos::ZERO,
        retry_at: None,
        day_at: Some(NOW.plus(DurationMs::from_hours(1))),
    }
}

fn at(text: &str) -> Timestamp {
    Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

#[test]
fn a_rule_charges_for_its_reasons_and_within_its_bounds() {
    let soon = Some(NOW.plus(DurationMs::from_millis(1)));
    let low = TopUpStanding { available: Nanos::new(10 * UNIT - 1), ..quiet() };
    let due = TopUpStanding { day_at: Some(NOW), ..quiet() };
    let (threshold, period) = (TopUpCause::Threshold, TopUpCause::Period);
    for (name, standing, expected) in [
        ("enough", quiet(), TopUpPlan::Wait),
        ("a nano too little", low, TopUpPlan::Charge(threshold, units(50))),
        ("debts", TopUpStanding { available: units(-5), ..quiet() }, TopUpPlan::Charge(threshold, units(50))),
        ("the day", due, TopUpPlan::Charge(period, units(20))),
        ("both: the day first", TopUpStanding { available: Nanos::ZERO, ..due }, TopUpPlan::Charge(period, units(20))),
        ("a charge under way", TopUpStanding { is_under_way: true, ..low }, TopUpPlan::Wait),
        ("declined a while ago", TopUpStanding { retry_at: Some(NOW), ..low }, TopUpPlan::Charge(threshold, units(50))),
        ("declined just now", TopUpStanding { retry_at: soon, ..low }, TopUpPlan::Wait),
        ("the day's last", TopUpStanding { this_day: units(50), ..low }, TopUpPlan::Charge(threshold, units(50))),
        ("the day's bound", TopUpStanding { this_day: units(51), ..low }, TopUpPlan::Capped(threshold, PeriodLength::Day)),
        ("the month's last", TopUpStanding { this_month: units(150), ..low }, TopUpPlan::Charge(threshold, units(50))),
        ("the month's bound", TopUpStanding { this_month: units(181), ..due }, TopUpPlan::Capped(period, PeriodLength::Month)),
    ] {
        assert_eq!(plan_top_up(&rule(), &standing, NOW).unwrap(), expected, "{name}");
    }
}

#[test]
fn what_contradicts_itself_is_no_rule() {
    let euro = Currency::EUR;
    assert!(rule().validate(euro).is_ok());
    let below = |threshold, amount| Some(BelowThreshold { threshold, amount });
    for (wrong, param) in [
        (TopUpRule { below: None, on: None, ..rule() }, "below"),
        (TopUpRule { below: below(units(-1), units(5)), ..rule() }, "below.threshold"),
        (TopUpRule { below: below(units(1), Nanos::ZERO), ..rule() }, "below.amount"),
        (TopUpRule { below: below(units(1), Nanos::new(1)), ..rule() }, "below.amount"),
        (TopUpRule { on: Some(OnDay { day: TopUpDay::Monthly(1), amount: units(-1) }), ..rule() }, "on.amount"),
        (TopUpRule { most_per_day: Some(Nanos::ZERO), ..rule() }, "most_per_day"),
        (TopUpRule { most_per_day: Some(units(49)), ..rule() }, "most_per_month"),
        (TopUpRule { most_per_month: units(49), ..rule() }, "most_per_month"),
        (TopUpRule { most_per_month: Nanos::ZERO, ..rule() }, "most_per_month"),
    ] {
        assert_eq!(wrong.validate(euro).unwrap_err().param_name(), Some(param), "{wrong:?}");
    }
}

#[test]
fn days_are_written_in_one_way() {
    for text in ["mon", "sun", "1", "31"] {
        assert_eq!(text.parse::<TopUpDay>().unwrap().to_string(), text);
    }
    for text in ["", "0", "32", "01", "+1", "Mon", "monday", "-1", "1.5"] {
        assert!(text.parse::<TopUpDay>().is_err(), "{text}");
    }
}

#[test]
fn the_next_day_begins_at_midnight_in_the_accounts_zone() {
    for (zone, day, after, expected) in [
        ("Europe/Berlin", "1", "2026-03-01T00:00:00Z", "2026-03-31T22:00:00Z"),
        ("Europe/Berlin", "1", "2026-02-28T22:59:59Z", "2026-02-28T23:00:00Z"),
        ("Europe/Berlin", "1", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"),
        ("UTC", "31", "2026-01-31T12:00:00Z", "2026-02-28T00:00:00Z"),
        ("UTC", "29", "2024-02-01T00:00:00Z", "2024-02-29T00:00:00Z"),
        ("UTC", "30", "2026-02-28T00:00:00Z", "2026-03-30T00:00:00Z"),
        ("America/New_York", "mon", "2026-03-08T12:00:00Z", "2026-03-09T04:00:00Z"),
        // Samoa left out the 30th of December 2011.
        ("Pacific/Apia", "30", "2011-12-20T00:00:00Z", "2011-12-30T10:00:00Z"),
    ] {
        let calendar = BillingCalendar::new(zone).unwrap();
        let next = day.parse::<TopUpDay>().unwrap().next_after(&calendar, at(after)).unwrap();
        assert_eq!(next, at(expected), "{zone} {day} after {after}");
    }
}

#[test]
fn charges_that_come_to_nothing_are_tried_later_each_time_and_then_not() {
    assert_eq!(retry_after(1, NOW), Some(NOW.plus(DurationMs::from_hours(1))));
    assert_eq!(retry_after(2, NOW), Some(NOW.plus(DurationMs::from_hours(24))));
    for declines in [i64::MIN, -1, 0, DECLINES_MAX, DECLINES_MAX + 1, i64::MAX] {
        assert_eq!(retry_after(declines, NOW), None, "{declines}");
    }
}

proptest! {
    /// In each calendar month a monthly day comes once, in each zone.
    #[test]
    fn every_month_has_its_day_once(
        zone in prop::sample::select(ZONES.available().map(|name| name.to_string()).collect::<Vec<_>>()),
        day in 1_u8..=31,
        start in 0_i64..1_900_000_000,
    ) {
        let Ok(calendar) = BillingCalendar::new(&zone) else { return Ok(()) };
        let mut after = Timestamp::from_millis(start * 1_000);
        let mut months = Vec::new();
        for _ in 0..14 {
            after = TopUpDay::Monthly(day).next_after(&calendar, after).unwrap();
            prop_assert_eq!(calendar.interval_at(PeriodLength::Day, after).unwrap().starts_at, after);
            months.push(calendar.period_at(after).unwrap().key);
        }
        prop_assert!(months.windows(2).all(|pair| pair[0].next().unwrap() == pair[1]), "{} {} {:?}", zone, day, months);
    }

    /// Whatever the standing, nothing is charged that breaks a bound.
    #[test]
    fn no_plan_goes_beyond_a_bound(
        available in -100_i64..100, this_day in 0_i64..250, this_month in 0_i64..250, under_way: bool, due: bool,
    ) {
        let standing = TopUpStanding {
            available: units(available),
            is_under_way: under_way,
            this_day: units(this_day),
            this_month: units(this_month),
            retry_at: None,
            day_at: due.then_some(NOW),
        };
        if let TopUpPlan::Charge(_, amount) = plan_top_up(&rule(), &standing, NOW).unwrap() {
            prop_assert!(!under_way && (due || available < 10));
            prop_assert!(units(this_day).checked_add(amount).unwrap() <= units(100));
            prop_assert!(units(this_month).checked_add(amount).unwrap() <= units(200));
        }
    }
}
