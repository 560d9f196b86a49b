use proptest::prelude::*;
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Nanos};

use super::*;
use crate::period::BillingCalendar;

const UNIT: i64 = 1_000_000_000;
const HOUR_MILLIS: i64 = 3_600_000;

fn march() -> Interval {
    BillingCalendar::new("UTC").unwrap().period("2026-03".parse().unwrap()).unwrap().interval
}

fn utc() -> Zone {
    Zone::new("UTC").unwrap()
}

/// A request of a project in an hour of March: units, hours and the price in tenths.
fn ask(project: &str, hour: i64, (units, hours, tenths): (u32, i64, i64)) -> Ask {
    Ask {
        project: format!("proj_{project}").parse().unwrap(),
        hour: march().starts_at.plus(DurationMs::from_hours(hour)),
        asked_at: march().starts_at.plus(DurationMs::from_hours(hour)),
        notice: NoticeClass::N1h,
        reason: UnfilledReason::NotEnough,
        units,
        wanted: DurationMs::from_hours(hours),
        price: Some(Nanos::new(tenths * UNIT / 10)),
    }
}

/// Of projects that leased nothing.
fn unfilled(asks: &[Ask], month: Interval, zone: &Zone) -> Result<Unfilled> {
    super::unfilled(Wants { asks, leased: &BTreeMap::new() }, month, zone)
}

fn hours(found: &Unfilled) -> i64 {
    assert_eq!(found.device_millis % HOUR_MILLIS, 0);
    found.device_millis / HOUR_MILLIS
}

#[test]
fn who_asks_again_wants_it_once_and_of_each_hour_the_largest_request_counts() {
    // Eight for a day, asked for each hour of a night; then sixteen for two hours in the midst of it.
    let mut asks: Vec<Ask> = (0..8).map(|hour| ask("a", hour, (8, 24, 24))).collect();
    assert_eq!(hours(&unfilled(&asks, march(), &utc()).unwrap()), 8 * 31);
    asks.push(ask("a", 4, (16, 2, 20)));
    assert_eq!(hours(&unfilled(&asks, march(), &utc()).unwrap()), 8 * 31 + 8 * 2);
    // Another project is another customer's need.
    asks.push(ask("b", 4, (1, 2, 20)));
    assert_eq!(hours(&unfilled(&asks, march(), &utc()).unwrap()), 8 * 31 + 8 * 2 + 2);
}

#[test]
fn what_was_leased_afterwards_is_taken_off_for_as_long_as_it_lasted() {
    let minutes = |minutes: i64| march().starts_at.plus(DurationMs::from_seconds(60 * minutes));
    // Eight for a day, refused a minute before the hour is over.
    let asked = Ask { asked_at: minutes(59), ..ask("a", 0, (8, 24, 24)) };
    let lost = |project: &str, leased: &[(u32, i64, Option<i64>)]| {
        let leased =
            leased.iter().map(|(units, from, until)| Leased { units: *units, from: minutes(*from), until: until.map(minutes) });
        let leased = BTreeMap::from([(format!("proj_{project}").parse().unwrap(), leased.collect())]);
        let wants = Wants { asks: std::slice::from_ref(&asked), leased: &leased };
        super::unfilled(wants, march(), &utc()).unwrap().device_millis / 60_000
    };
    let whole = 8 * 24 * 60;
    assert_eq!(lost("a", &[]), whole);
    assert_eq!(lost("a", &[(8, 64, None)]), 8 * 5, "met five minutes later, in the next hour");
    assert_eq!(lost("a", &[(8, 60, Some(65))]), whole - 8 * 5, "five minutes are five minutes");
    assert_eq!(lost("a", &[(3, 64, None), (5, 64, Some(124))]), whole - 3 * (24 * 60 - 5) - 5 * 60);
    assert_eq!(lost("a", &[(8, 0, None)]), whole, "what it had already was not for this");
    assert_eq!(lost("b", &[(8, 64, None)]), whole, "another project's lease");
    let half = Interval { ends_at: minutes(90), ..march() };
    assert_eq!(unfilled(std::slice::from_ref(&asked), half, &utc()).unwrap().device_millis, 8 * 31 * 60_000, "no time to come");
}

#[test]
fn time_is_in_the_month_that_it_is_in() {
    let last = ask("a", 31 * 24 - 2, (3, 24, 24));
    let april = BillingCalendar::new("UTC").unwrap().period("2026-04".parse().unwrap()).unwrap().interval;
    let of = |month| hours(&unfilled(std::slice::from_ref(&last), month, &utc()).unwrap());
    assert_eq!((of(march()), of(april)), (3 * 2, 3 * 22));
    let minutes = Ask { wanted: DurationMs::from_seconds(5_400), ..ask("a", 0, (2, 1, 24)) };
    assert_eq!(unfilled(&[minutes], march(), &utc()).unwrap().device_millis, 2 * 5_400_000);
}

#[test]
fn the_best_price_is_the_one_that_brings_most() {
    // 10 hours at 5.0, 100 at 2.4, 110 at 0.5: all at 0.5 would bring 110, those at 2.4 or more 264, those at 5.0 only 50.
    let asks = [ask("a", 0, (10, 1, 50)), ask("b", 0, (100, 1, 24)), ask("c", 0, (110, 1, 5))];
    let best = unfilled(&asks, march(), &utc()).unwrap().best.unwrap();
    assert_eq!((best.price.get(), best.device_millis / HOUR_MILLIS, best.worth.get()), (24 * UNIT / 10, 110, 264 * UNIT));
    let free = Ask { price: None, ..ask("a", 0, (1, 1, 0)) };
    let found = unfilled(&[free], march(), &utc()).unwrap();
    assert_eq!((hours(&found), found.best), (1, None));
}

#[test]
fn the_densest_part_of_the_week_is_on_the_clocks_of_the_zone() {
    // 2026-03-02 is a Monday: from 20:00 to 23:00, and on Saturday at noon.
    let asks = [ask("a", 24 + 20, (4, 3, 24)), ask("a", 6 * 24 + 12, (4, 1, 24))];
    let found = unfilled(&asks, march(), &utc()).unwrap();
    assert_eq!(found.densest, Some((WeekPart::WeekdayNights, 750)));
    assert_eq!((found.by_hour[20], found.by_hour[23], found.by_hour[12]), (4 * HOUR_MILLIS, 0, 4 * HOUR_MILLIS));
    let tokyo = unfilled(&asks, march(), &Zone::new("Asia/Tokyo").unwrap()).unwrap();
    assert_eq!((tokyo.by_hour[5], tokyo.by_hour[21]), (4 * HOUR_MILLIS, 4 * HOUR_MILLIS));
    assert_eq!(unfilled(&[], march(), &utc()).unwrap(), Unfilled::default());
}

#[test]
fn what_is_evenly_asked_for_is_densest_nowhere_but_first() {
    let whole = unfilled(&[ask("a", 0, (1, 31 * 24, 24))], march(), &utc()).unwrap();
    assert_eq!(whole.densest.map(|(part, _)| part), Some(WeekPart::WeekdayDays));
    assert_eq!(hours(&whole), 31 * 24);
}

#[test]
fn what_a_customer_would_pay_is_its_maximum_or_the_list_price() {
    let (one, two) = (Some(Nanos::new(UNIT)), Some(Nanos::new(2 * UNIT)));
    let of = (4, DurationMs::from_hours(2));
    assert_eq!(would_pay((one, two), None, of), one);
    assert_eq!(would_pay((None, two), None, of), two);
    // Four units for two hours with twelve in all.
    assert_eq!(would_pay((None, two), Some(Nanos::new(12 * UNIT)), of), Some(Nanos::new(3 * UNIT / 2)));
    assert_eq!(would_pay((None, None), None, of), None);
    assert_eq!(wanted(None, NoticeClass::N0), DurationMs::from_hours(1));
    assert_eq!(wanted(None, NoticeClass::N24h), DurationMs::from_hours(24));
    assert_eq!(wanted(Some(DurationMs::from_hours(24 * 365)), NoticeClass::Firm), WANTED_MAX);
}

#[test]
fn reasons_parse_back() {
    for reason in UnfilledReason::ALL {
        assert_eq!(reason.as_str().parse::<UnfilledReason>().unwrap(), reason);
    }
}

proptest! {
    #[test]
    fn repeating_requests_adds_nothing_and_parts_add_up(
        rows in prop::collection::vec((0_u8..3, 0_i64..800, 1_u32..20, 1_i64..800, 1_i64..50, 0_usize..6), 0..30)
    ) {
        let asks: Vec<Ask> = rows
            .into_iter()
            .map(|(project, hour, units, hours, price, reason)| Ask {
                reason: UnfilledReason::ALL[reason],
                ..ask(["a", "b", "c"][usize::from(project)], hour, (units, hours, price))
            })
            .collect();
        let once = unfilled(&asks, march(), &utc()).unwrap();
        let twice: Vec<Ask> = asks.iter().chain(&asks).cloned().collect();
        prop_assert_eq!(&unfilled(&twice, march(), &utc()).unwrap(), &once);
        prop_assert_eq!(once.by_reason.values().sum::<i64>(), once.device_millis);
        prop_assert_eq!(once.by_notice.values().sum::<i64>(), once.device_millis);
        prop_assert_eq!(once.by_hour.iter().sum::<i64>(), once.device_millis);
        let most: i64 = asks.iter().map(|ask| i64::from(ask.units)).max().unwrap_or(0);
        prop_assert!(once.device_millis <= 3 * most * 31 * 24 * HOUR_MILLIS);
        if let Some(best) = once.best {
            prop_assert!(best.device_millis <= once.device_millis);
        }
    }
}
