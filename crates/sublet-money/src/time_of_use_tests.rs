use jiff::civil::Weekday as CivilWeekday;
use sublet_core::{Currency, DurationMs, Nanos};

use super::*;
use crate::period::{BillingCalendar, Interval};
use crate::price_book::PriceEntry;
use crate::stretch::{STRETCHES_MAX, Stretch, StretchEnd, Stretches};
use crate::zone::ZONES;

/// Years looked at in every zone in a usual run; a full run looks at every one from 1970 on. The counts are printed.
const YEARS: [i16; 4] = [1986, 2011, 2026, 2037];

fn years() -> Vec<i16> {
    if option_env!("SUBLET_FULL").is_some() { (1970..=2037).collect() } else { YEARS.to_vec() }
}

fn instant(text: &str) -> Timestamp {
    let parsed: jiff::Timestamp = text.parse().unwrap();
    Timestamp::from_micros(parsed.as_microsecond())
}
fn shifted(at: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(at.micros() + micros)
}
fn per_unit(price: i64) -> PriceModel {
    PriceModel::PerUnit { price: Nanos::new(price) }
}

/// Windows as `mon,tue 22:00-06:00`, or without days for all of them.
fn window(text: &str) -> Window {
    let (days, times) = text.split_once(' ').unwrap_or(("mon,tue,wed,thu,fri,sat,sun", text));
    let (from, until) = times.split_once('-').unwrap();
    let day = |name| Weekday::ALL.into_iter().find(|day| day.as_str() == name).unwrap();
    Window { days: days.split(',').map(day).collect(), from: from.parse().unwrap(), until: until.parse().unwrap() }
}
fn bands(zone: &str, bands: &[(&str, &[&str])]) -> TimeOfUse {
    let band = |(name, windows): &(&str, &[&str])| Band {
        name: name.parse().unwrap(),
        windows: windows.iter().map(|text| window(text)).collect(),
        model: per_unit(800_000_000),
    };
    TimeOfUse { zone: Zone::new(zone).unwrap(), bands: bands.iter().map(band).collect() }
}
fn nights_and_weekends(zone: &str) -> TimeOfUse {
    let nights = ["mon,tue,wed,thu 22:00-06:00", "fri 22:00-24:00", "mon 00:00-06:00"];
    bands(zone, &[("night", &nights), ("weekend", &["sat,sun 00:00-24:00"])])
}

/// The same bands, told from the reading of the clock alone.
fn band_by_the_clock(zone: &Zone, at: Timestamp) -> Option<&'static str> {
    let local = zone.clock().to_datetime(jiff::Timestamp::from_microsecond(at.micros()).unwrap());
    match (local.date().weekday(), local.hour()) {
        (CivilWeekday::Saturday | CivilWeekday::Sunday, _) => Some("weekend"),
        (_, 0..6 | 22..) => Some("night"),
        _ => None,
    }
}

fn name_at(bands: &TimeOfUse, at: Timestamp) -> Option<&str> {
    bands.stretch_at(at).unwrap().band.map(|band| band.name.as_str())
}

/// Follows the bands through an interval: each instant that is looked at is in the band that the clock says.
fn follow(bands: &TimeOfUse, interval: Interval) -> u64 {
    let (mut at, mut stretches) = (interval.starts_at, 0);
    while at < interval.ends_at {
        let stretch = bands.stretch_at(at).unwrap();
        assert!(stretch.until > at, "{} {at}: no time passes", bands.zone);
        let length = stretch.until.micros() - at.micros();
        for inside in [0, length / 3, length / 2, length - 1] {
            let inside = shifted(at, inside);
            let expected = band_by_the_clock(&bands.zone, inside);
            assert_eq!(stretch.band.map(|band| band.name.as_str()), expected, "{} {inside}", bands.zone);
            assert_eq!(name_at(bands, inside), expected, "{} {inside}", bands.zone);
        }
        (at, stretches) = (stretch.until, stretches + 1);
    }
    stretches
}

#[test]
fn every_instant_is_in_the_band_that_the_clocks_of_its_zone_say() {
    let week = |around: Timestamp| {
        let days = DurationMs::from_seconds(8 * 86_400);
        Interval { starts_at: around.minus(days), ends_at: around.plus(days) }
    };
    let (mut zones, mut stretches) = (0, 0);
    for name in ZONES.available() {
        let bands = nights_and_weekends(name.as_str());
        zones += 1;
        for year in years() {
            let starts_at = instant(&format!("{year}-01-01T00:00:00Z"));
            stretches += follow(&bands, week(starts_at));
            let from = jiff::Timestamp::from_microsecond(starts_at.micros()).unwrap();
            let of_year = bands.zone.clock().following(from).take(4).map(|change| change.timestamp());
            for change in of_year.filter(|change| change.to_string().starts_with(&year.to_string())) {
                stretches += follow(&bands, week(Timestamp::from_micros(change.as_microsecond())));
            }
        }
    }
    eprintln!("{zones} zones, {} years of each, {stretches} stretches", years().len());
    assert!(zones > 500 && stretches > 50_000);
}

/// How long a band holds on one day, in minutes.
fn minutes_of(bands: &TimeOfUse, name: &str, from: &str, hours: i64) -> i64 {
    let (mut at, end) = (instant(from), instant(from).plus(DurationMs::from_seconds(hours * 3_600)));
    let mut minutes = 0;
    while at < end {
        let stretch = bands.stretch_at(at).unwrap();
        let until = stretch.until.min(end);
        if stretch.band.is_some_and(|band| band.name.as_str() == name) {
            minutes += until.since(at).millis() / 60_000;
        }
        at = until;
    }
    minutes
}

#[test]
fn an_hour_that_comes_twice_is_in_its_band_twice_and_one_left_out_never() {
    let small_hours = bands("Europe/Berlin", &[("small-hours", &["02:00-03:00"])]);
    for (midnight, hours, minutes) in [
        ("2026-03-28T23:00:00Z", 23, 0),
        ("2026-03-29T22:00:00Z", 24, 60),
        ("2026-10-24T22:00:00Z", 25, 120),
        ("2026-10-25T23:00:00Z", 24, 60),
    ] {
        assert_eq!(minutes_of(&small_hours, "small-hours", midnight, hours), minutes, "{midnight}");
    }
    // Lord Howe Island changes its clocks by half an hour.
    let island = bands("Australia/Lord_Howe", &[("small-hours", &["01:00-03:00"])]);
    assert_eq!(minutes_of(&island, "small-hours", "2026-04-04T13:00:00Z", 25), 150);
    assert_eq!(minutes_of(&island, "small-hours", "2026-10-03T13:30:00Z", 24), 90);
}

#[test]
fn a_window_goes_over_midnight_and_over_the_end_of_the_week() {
    let bands = bands("UTC", &[("shift", &["sun 22:00-06:00"]), ("always-tuesday", &["tue 00:00-00:00"])]);
    for (text, expected) in [
        ("2026-03-01T21:59:59Z", None),
        ("2026-03-01T22:00:00Z", Some("shift")),
        ("2026-03-02T05:59:59.999999Z", Some("shift")),
        ("2026-03-02T06:00:00Z", None),
        ("2026-03-02T23:59:59Z", None),
        ("2026-03-03T00:00:00Z", Some("always-tuesday")),
        ("2026-03-03T23:59:59Z", Some("always-tuesday")),
        ("2026-03-04T00:00:00Z", None),
    ] {
        assert_eq!(name_at(&bands, instant(text)), expected, "{text}");
    }
}

#[test]
fn bands_that_say_nothing_or_two_things_are_refused() {
    let (full, empty): (&[&str], &[&str]) = (&["00:00-24:00"], &[]);
    let nine: Vec<String> = (0..9).map(|n| format!("band-{n}")).collect();
    let nine: Vec<(&str, &[&str])> = nine.iter().map(|name| (name.as_str(), full)).collect();
    for (list, reason) in [
        (vec![], "has 1 to 8 bands, not 0"),
        (nine, "has 1 to 8 bands, not 9"),
        (vec![("night", full), ("night", full)], "'night' is there twice"),
        (vec![("night", empty)], "'night' has 1 to 32 windows, not 0"),
        (vec![("late", &["mon 24:00-06:00"])], "begins on some day, before 24:00"),
        (
            vec![("night", &["22:00-06:00"]), ("early", &["wed 05:00-08:00"])],
            "hold wed 05:00, one of the band 'night' and one of 'early'",
        ),
        (vec![("night", &["sun 22:00-06:00", "mon 05:59-06:00"])], "hold mon 05:59, one of the band 'night' and one of 'night'"),
    ] {
        let error = bands("UTC", &list).validate().unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidPrice);
        assert!(error.to_string().contains(reason), "{error}");
    }
    let mut negative = bands("UTC", &[("night", &["22:00-06:00"])]);
    negative.bands[0].model = per_unit(-1);
    assert!(negative.validate().unwrap_err().to_string().contains("cannot be negative"));
    nights_and_weekends("UTC").validate().unwrap();
    for text in ["", "6:00", "06:60", "24:01", "+6:00", "06:00:00", "noon"] {
        assert!(text.parse::<TimeOfDay>().is_err(), "{text}");
    }
    for text in ["", "Night", "night time", "a-name-that-is-longer-than-32-bytes"] {
        assert!(text.parse::<BandName>().is_err(), "{text}");
    }
}

#[test]
fn people_read_when_a_band_holds_and_what_it_costs() {
    let sku = "device/n2m/cpu".parse().unwrap();
    let entry = PriceEntry {
        time_of_use: Some(nights_and_weekends("europe/berlin")),
        ..PriceEntry::per_unit(sku, Nanos::new(1_200_000_000))
    };
    assert_eq!(
        entry.price_text(Currency::EUR),
        "1.2 EUR per device-hour; night (mon,tue,wed,thu 22:00-06:00 and fri 22:00-24:00 and mon 00:00-06:00, Europe/Berlin) \
         0.8 EUR per device-hour; weekend (sat,sun 00:00-24:00, Europe/Berlin) 0.8 EUR per device-hour"
    );
}

/// All stretches of an interval; they tile it.
fn stretches(calendar: &BillingCalendar, entry: &PriceEntry, interval: Interval) -> Vec<Stretch> {
    let parts: Vec<Stretch> = Stretches::new(calendar, entry.over_time(None).unwrap(), interval).collect::<Result<_>>().unwrap();
    let mut at = interval.starts_at;
    for part in &parts {
        assert_eq!(part.interval.starts_at, at);
        assert!(!part.interval.is_empty());
        at = part.interval.ends_at;
    }
    assert_eq!(at, interval.ends_at.max(interval.starts_at));
    parts
}

#[test]
fn an_interval_is_cut_where_a_period_or_a_band_ends() {
    let sku: crate::sku::SkuName = "device/n2m/cpu".parse().unwrap();
    let flat = PriceEntry::per_unit(sku, Nanos::new(1));
    let banded = PriceEntry { time_of_use: Some(bands("Europe/Berlin", &[("night", &["22:00-06:00"])])), ..flat.clone() };
    // The account's months are those of New York, the windows are Berlin's.
    let calendar = BillingCalendar::new("America/New_York").unwrap();
    let interval = Interval { starts_at: instant("2026-01-31T20:00:00Z"), ends_at: instant("2026-02-01T05:30:00Z") };
    let shown = |entry: &PriceEntry| -> Vec<String> {
        let part = |part: &Stretch| {
            let band = part.band.as_ref().map_or("-", BandName::as_str);
            let ends_at = part.interval.ends_at.to_string().replace(".000000", "");
            format!("{ends_at} {} {band} {:?}", part.period, part.end)
        };
        stretches(&calendar, entry, interval).iter().map(part).collect()
    };
    assert_eq!(shown(&flat), ["2026-02-01T05:00:00Z 2026-01 - Period", "2026-02-01T05:30:00Z 2026-02 - Asked"]);
    assert_eq!(
        shown(&banded),
        [
            "2026-01-31T21:00:00Z 2026-01 - Band",
            "2026-02-01T05:00:00Z 2026-01 night Period",
            // At five in New York's February it is six in Berlin.
            "2026-02-01T05:30:00Z 2026-02 - Asked",
        ]
    );
    let whole = stretches(&calendar, &flat, Interval { ends_at: instant("2026-02-01T05:00:00Z"), ..interval });
    assert_eq!(whole.iter().map(|part| part.end).collect::<Vec<_>>(), [StretchEnd::Asked]);
    assert!(stretches(&calendar, &banded, Interval { ends_at: interval.starts_at, ..interval }).is_empty());
    // Two bands a day for thirty years are more than one settlement takes on.
    let long = Interval { ends_at: instant("2056-01-01T00:00:00Z"), ..interval };
    let mut parts = Stretches::new(&calendar, banded.over_time(None).unwrap(), long).skip(STRETCHES_MAX);
    assert!(parts.next().unwrap().is_err() && parts.next().is_none());
}
