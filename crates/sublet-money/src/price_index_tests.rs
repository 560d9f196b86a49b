use proptest::prelude::*;
use serde_json::json;
use sublet_core::Currency;

use super::*;
use crate::period::{BillingCalendar, Interval};
use crate::price_book::{PriceEntry, PriceListDraft, PriceListVersion};
use crate::price_comparison::lesser;
use crate::price_model::Tier;
use crate::rating::{LineState, rate};
use crate::sku::{PricingUnit, Quantity};
use crate::stretch::{StretchEnd, Stretches};

const LEAD: DurationMs = DurationMs::from_seconds(1_200);

fn level(text: &str) -> Level {
    text.parse().unwrap()
}
fn at(minute: i64) -> Timestamp {
    Timestamp::from_seconds(minute * 60)
}
fn name() -> IndexName {
    "gpu-spot".parse().unwrap()
}
fn point(minute: i64, text: &str) -> IndexPoint {
    IndexPoint { from_micros: at(minute), level: level(text), published_at_micros: at(minute - 30) }
}
/// 1 from the beginning, 0.5 from minute 100, 4 from minute 200.
fn excerpt() -> IndexExcerpt {
    let points = vec![IndexPoint::first(level("1"), at(0)), point(100, "0.5"), point(200, "4")];
    IndexExcerpt { index: name(), lead_ms: LEAD, points, previous: None }
}
fn market(floor: &str, ceiling: &str) -> MarketPrice {
    MarketPrice { ceiling: level(ceiling), floor: level(floor), index: name() }
}
fn entry(model: PriceModel, market: MarketPrice) -> PriceEntry {
    PriceEntry { market: Some(market), ..PriceEntry::new("device/n2m/h100".parse().unwrap(), model) }
}
fn per_unit(nanos: i64) -> PriceModel {
    PriceModel::PerUnit { price: Nanos::new(nanos) }
}

#[test]
fn levels_are_decimals_in_thousandths_with_one_text() {
    for (text, thousandths, shown) in
        [("1", 1_000, "1"), ("0.85", 850, "0.85"), ("1.250", 1_250, "1.25"), ("100.000", 100_000, "100"), ("0.001", 1, "0.001")]
    {
        assert_eq!((level(text).thousandths(), level(text).to_string()), (thousandths, shown.to_owned()), "{text}");
    }
    for text in ["", "0", "0.000", "-1", "1.", ".5", "1e2", "0.0001", "100.001", "99999999999", "1,5", " 1"] {
        assert!(text.parse::<Level>().is_err(), "{text}");
    }
}

#[test]
fn a_band_is_of_one_level_within_the_bounds() {
    let market = market("0.5", "2");
    for (band, found) in [
        ("level-500", Some("0.5")),
        ("level-2000", Some("2")),
        ("level-499", None),
        ("level-2001", None),
        ("level-0850", None),
        ("level-", None),
        ("night", None),
    ] {
        assert_eq!(market.level_of(&band.parse().unwrap()), found.map(level), "{band}");
    }
    assert_eq!(level("0.85").band().as_str(), "level-850");
}

#[test]
fn the_level_at_an_instant_is_that_of_the_last_point_before_it_and_unknown_beyond_what_is_published() {
    let index = PriceIndex::known_at(excerpt(), at(190)).unwrap();
    let found = [-5, 0, 99, 100, 199, 200, 209].map(|minute| index.level_at(at(minute)).unwrap().0.map(|level| level.to_string()));
    assert_eq!(found.map(Option::unwrap), ["1", "1", "1", "0.5", "0.5", "4", "4"]);
    // Twenty minutes ahead no point can be published any more.
    assert_eq!(index.level_at(at(210)).unwrap().0, None);
    assert_eq!(PriceIndex::known_at(excerpt(), at(150)).unwrap().known_until(), at(200));
    assert_eq!(index.level_at(at(100)).unwrap(), (Some(level("0.5")), at(200)));
    // What is before an excerpt that does not begin with the first point is not known from it.
    let later = IndexExcerpt { points: vec![point(100, "0.5")], previous: Some("ab".to_owned()), ..excerpt() };
    let error = PriceIndex::past(later, at(300)).unwrap().level_at(at(99)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownPrice);
}

#[test]
fn device_time_is_cut_where_the_level_changes_and_held_at_the_ceiling_where_it_is_not_known() {
    let entry = entry(per_unit(3_600_000_000), market("0.8", "3"));
    let index = PriceIndex::known_at(excerpt(), at(195)).unwrap();
    let calendar = BillingCalendar::new("UTC").unwrap();
    let interval = Interval { starts_at: at(90), ends_at: at(230) };
    let price = entry.over_time(Some(&index)).unwrap();
    let parts: Vec<_> = Stretches::new(&calendar, price, interval).map(Result::unwrap).collect();
    let shown: Vec<_> = parts
        .iter()
        .map(|part| (part.interval.ends_at.seconds() / 60, part.band.as_ref().unwrap().to_string(), part.end))
        .collect();
    // 0.5 is below the floor, 4 and what is not known are above the ceiling: one band, so no cut between them.
    let expected =
        [(100, "level-1000", StretchEnd::Band), (200, "level-800", StretchEnd::Band), (230, "level-3000", StretchEnd::Asked)];
    assert_eq!(shown, expected.map(|(minute, band, end)| (minute, band.to_owned(), end)));
    let cost = |band: &str, millis| {
        let price = entry.price_in(Some(&band.parse().unwrap())).unwrap();
        rate(LineState::default(), price, Quantity::new(millis).unwrap()).unwrap().0
    };
    assert_eq!(
        [cost("level-1000", 1_000), cost("level-800", 1_000), cost("level-3000", 1_000)].map(Nanos::get),
        [1_000_000, 800_000, 3_000_000]
    );
    for wrong in [None, Some("night"), Some("level-799"), Some("level-3001")] {
        let band = wrong.map(|name| name.parse().unwrap());
        assert_eq!(entry.price_in(band.as_ref()).unwrap_err().code(), ErrorCode::UnknownPrice, "{wrong:?}");
    }
    // Without its index nobody can say what holds when.
    assert_eq!(entry.price_at(at(90)).unwrap_err().code(), ErrorCode::UnknownPrice);
    let other = IndexExcerpt { index: "other".parse().unwrap(), ..excerpt() };
    let other = PriceIndex::known_at(other, at(195)).unwrap();
    assert_eq!(entry.over_time(Some(&other)).unwrap_err().code(), ErrorCode::UnknownPrice);
}

#[test]
fn points_are_published_ahead_and_in_order() {
    let last = point(100, "0.5");
    let next = |from, now| IndexPoint::next(&last, LEAD, (at(from), level("2")), at(now)).map(|point| point.from_micros);
    assert_eq!(next(120, 100).unwrap(), at(120));
    assert_eq!(next(105, 20).unwrap(), at(105));
    assert_eq!(next(20 + 31 * 24 * 60, 20).unwrap(), at(20 + 31 * 24 * 60));
    for (from, now, reason) in [
        (119, 100, "1200 seconds after it is published"),
        (90, 100, "1200 seconds after it is published"),
        (104, 20, "by at least 300 seconds"),
        (80, 20, "by at least 300 seconds"),
        (100, 20, "by at least 300 seconds"),
        (21 + 31 * 24 * 60, 20, "more than 31 days ahead"),
    ] {
        let error = next(from, now).unwrap_err();
        assert!(error.to_string().contains(reason), "{from} at {now}: {error}");
    }
}

#[test]
fn all_that_can_be_published_ahead_can_be_read_together() {
    let (now, mut last, mut points) = (at(0), IndexPoint::first(level("1"), at(0)), 1);
    while let Ok(next) = IndexPoint::next(&last, LEAD_MIN, (last.from_micros.plus(SPACING_MIN), level("2")), now) {
        (last, points) = (next, points + 1);
        assert!(points <= POINTS_MAX / 100, "and a past of years with it");
    }
    assert_eq!((points, last.from_micros), (8_929, now.plus(AHEAD_MAX)));
}

#[test]
fn the_hash_of_the_last_point_names_all_before_it() {
    let whole = excerpt();
    let hash = whole.verify().unwrap();
    // The end of an excerpt has the same name, from whichever point it begins.
    let first = whole.points[0].hash((&name(), LEAD), None).unwrap();
    let rest = IndexExcerpt { points: whole.points[1..].to_vec(), previous: Some(first), ..whole.clone() };
    assert_eq!(rest.verify().unwrap(), hash);
    let mut changes: Vec<IndexExcerpt> = (0..whole.points.len())
        .flat_map(|place| {
            let change = |edit: &dyn Fn(&mut IndexPoint)| {
                let mut changed = whole.clone();
                edit(&mut changed.points[place]);
                changed
            };
            [change(&|point| point.level = level("0.501")), change(&|point| point.published_at_micros = at(-60))]
        })
        .collect();
    changes.push(IndexExcerpt { index: "gpu-spot2".parse().unwrap(), ..whole.clone() });
    changes.push(IndexExcerpt { lead_ms: DurationMs::from_seconds(60), ..whole.clone() });
    changes.push(IndexExcerpt { previous: Some("ab".to_owned()), ..whole.clone() });
    changes.push(IndexExcerpt { points: whole.points[..2].to_vec(), ..whole.clone() });
    for changed in changes {
        assert_ne!(changed.verify().unwrap(), hash, "{changed:?}");
    }
    let mut late = whole.clone();
    late.points[2].published_at_micros = at(190);
    assert!(late.verify().unwrap_err().to_string().contains("after it is published"));
    let mut swapped = whole.clone();
    swapped.points.swap(1, 2);
    assert!(swapped.verify().is_err());
    assert!(IndexExcerpt { points: Vec::new(), ..whole }.verify().is_err());
}

#[test]
fn a_market_price_that_means_nothing_is_refused() {
    let tokens =
        PriceEntry { market: Some(market("1", "2")), ..PriceEntry::per_unit("tokens/output/m".parse().unwrap(), Nanos::new(1)) };
    let package = PriceModel::Package { size: Quantity::new(5).unwrap(), price: Nanos::new(7) };
    let minimum = PriceModel::Minimum { least: Nanos::new(7), of: Box::new(per_unit(1)) };
    let night = json!({ "zone": "UTC", "bands": [{ "name": "night", "windows": [{ "days": ["mon"], "from": "22:00", "until": "06:00" }],
        "model": { "type": "per_unit", "price": "1" } }] });
    let both = PriceEntry { time_of_use: serde_json::from_value(night).unwrap(), ..entry(per_unit(1), market("1", "2")) };
    for (entry, reason) in [
        (tokens, "follows no index"),
        (both, "not both"),
        (entry(package, market("1", "2")), "begin anew"),
        (entry(minimum, market("1", "2")), "begin anew"),
        (entry(per_unit(1), market("2", "1")), "above its ceiling"),
        (entry(per_unit(i64::MAX), market("1", "1.001")), "too much"),
    ] {
        let error = entry.validate().unwrap_err();
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
    entry(per_unit(i64::MAX), market("0.5", "1")).validate().unwrap();
}

#[test]
fn a_list_without_market_prices_has_the_text_that_it_always_had() {
    let list = |entry: PriceEntry| {
        let (list, currency) = ("plist_1".parse().unwrap(), Currency::EUR);
        PriceListVersion::new(PriceListDraft { list, currency, effective_at: Timestamp::EPOCH, entries: vec![entry] }).unwrap()
    };
    let plain = list(PriceEntry::new("device/n2m/h100".parse().unwrap(), per_unit(1_000_000_000)));
    assert_eq!(
        plain.canonical(),
        r#"{"currency":"EUR","effective_at_micros":0,"entries":[{"model":{"price":"1","type":"per_unit"},"sku":"device/n2m/h100","unit":"device-hour"}],"list":"plist_1","schema":"sublet-price-list/1"}"#
    );
    let follows = list(entry(per_unit(1_000_000_000), market("0.8", "3")));
    assert!(
        follows.canonical().contains(r#"[{"market":{"ceiling":"3","floor":"0.8","index":"gpu-spot"},"model":"#),
        "{}",
        follows.canonical()
    );
    assert_eq!(PriceListVersion::from_canonical(follows.canonical(), follows.version()).unwrap(), follows);
    assert_eq!(
        follows.entries().next().unwrap().price_text(Currency::EUR),
        "1 EUR per device-hour times the index gpu-spot from 0.8 to 3"
    );
}

#[test]
fn a_protected_price_is_kept_unless_the_new_one_can_be_no_dearer_whatever_the_index_does() {
    let plain = |price| PriceEntry::new("device/n2m/h100".parse().unwrap(), per_unit(price));
    let follows = |price, floor: &str, ceiling: &str| entry(per_unit(price), market(floor, ceiling));
    let elsewhere = PriceEntry { market: Some(MarketPrice { index: "other".parse().unwrap(), ..market("0.5", "2") }), ..plain(10) };
    for (new, kept, is_new) in [
        (follows(90, "0.5", "2"), follows(100, "0.5", "2"), true),
        (follows(101, "0.5", "2"), follows(100, "0.5", "2"), false),
        // Other bounds: its ceiling is compared with the floor.
        (follows(100, "0.5", "1"), follows(200, "0.5", "2"), true),
        (follows(100, "0.5", "1.001"), follows(200, "0.5", "2"), true),
        (follows(1_000, "0.5", "1.001"), follows(2_000, "0.5", "2"), false),
        (follows(50, "0.5", "2"), plain(100), true),
        (follows(51, "0.5", "2"), plain(100), false),
        (plain(50), follows(100, "0.5", "2"), true),
        (plain(51), follows(100, "0.5", "2"), false),
        (elsewhere, follows(100, "0.5", "2"), true),
    ] {
        let expected = if is_new { &new } else { &kept };
        assert_eq!(lesser(&new, &kept), *expected, "{new:?} {kept:?}");
    }
}

fn any_model() -> impl Strategy<Value = PriceModel> {
    let tiers = |first: i64, then: i64| {
        vec![
            Tier { up_to: Some(Quantity::new(1_000).unwrap()), price: Nanos::new(first.max(then)) },
            Tier { up_to: None, price: Nanos::new(first.min(then)) },
        ]
    };
    let price = 0_i64..10_000_000_000;
    prop_oneof![
        price.clone().prop_map(per_unit),
        (price.clone(), price.clone()).prop_map(move |(first, then)| PriceModel::Graduated { tiers: tiers(first, then) }),
        (price.clone(), price).prop_map(move |(first, then)| PriceModel::Volume { tiers: tiers(first, then) }),
    ]
}

proptest! {
    /// So that a hold at the ceiling covers whatever the index does.
    #[test]
    fn a_higher_level_never_costs_less(model in any_model(), low in 1_u32..5_000, more in 0_u32..5_000, quantity in 0_i64..5_000_000) {
        let [low, high] = [low, low + more].map(|thousandths| Level::from_thousandths(thousandths).unwrap());
        let quantity = Quantity::new(quantity).unwrap();
        let hold = |level: Level| level.of_model(&model).hold(PricingUnit::DeviceHour, Quantity::ZERO, quantity).unwrap();
        prop_assert!(hold(low) <= hold(high));
        let model = high.of_model(&model);
        prop_assert!(model.validate().is_ok());
        let charged = model.exact_cost(PricingUnit::DeviceHour, quantity).unwrap().half_even().unwrap();
        prop_assert!(charged <= hold(high));
    }

    #[test]
    fn the_highest_level_that_is_wanted_is_the_last_one(floor in 1_u32..2_000, more in 0_u32..2_000, limit in 0_u32..5_000) {
        let [floor, ceiling] = [floor, floor + more].map(|thousandths| Level::from_thousandths(thousandths).unwrap());
        let market = MarketPrice { ceiling, floor, index: name() };
        let found = market.highest(|level| level.thousandths() <= limit).map(Level::thousandths);
        let expected = (floor.thousandths()..=ceiling.thousandths()).rev().find(|thousandths| *thousandths <= limit);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn every_level_reads_back_from_its_text_and_its_band(thousandths in 1..=LEVEL_MAX) {
        let level = Level::from_thousandths(thousandths).unwrap();
        prop_assert_eq!(level.to_string().parse::<Level>().unwrap(), level);
        prop_assert_eq!(Level::of_band(&level.band()), Some(level));
    }
}
