use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sku::SkuName;

const UNIT: PricingUnit = PricingUnit::DeviceHour;

fn per_unit(price: i64) -> PriceModel {
    PriceModel::PerUnit { price: Nanos::new(price) }
}
fn quantity(count: i64) -> Quantity {
    Quantity::new(count).unwrap()
}
fn tiers(bounds: &[i64], prices: &[i64]) -> Vec<Tier> {
    let ends = bounds.iter().map(|bound| Some(quantity(*bound))).chain([None]);
    ends.zip(prices).map(|(up_to, price)| Tier { up_to, price: Nanos::new(*price) }).collect()
}
fn graduated(bounds: &[i64], prices: &[i64]) -> PriceModel {
    PriceModel::Graduated { tiers: tiers(bounds, prices) }
}
fn volume(bounds: &[i64], prices: &[i64]) -> PriceModel {
    PriceModel::Volume { tiers: tiers(bounds, prices) }
}
fn package(size: i64, price: i64) -> PriceModel {
    PriceModel::Package { size: quantity(size), price: Nanos::new(price) }
}
fn at_least(least: i64, of: PriceModel) -> PriceModel {
    PriceModel::Minimum { least: Nanos::new(least), of: Box::new(of) }
}

#[test]
fn what_is_proven_to_be_no_dearer() {
    for (new, other, expected) in [
        (per_unit(5), per_unit(5), true),
        (per_unit(6), per_unit(5), false),
        // Dearer at first and cheaper in the end, or the other way round.
        (graduated(&[10], &[9, 1]), per_unit(5), false),
        (graduated(&[10], &[1, 9]), per_unit(5), false),
        (graduated(&[10], &[5, 4]), per_unit(5), true),
        (graduated(&[10], &[4, 5]), graduated(&[20], &[5, 6]), true),
        // All units fall to 1 beyond ten: eleven of them cost less than ten did.
        (per_unit(5), volume(&[10], &[9, 1]), false),
        (volume(&[10], &[9, 1]), graduated(&[10], &[9, 1]), true),
        (graduated(&[10], &[9, 1]), volume(&[10], &[9, 1]), false),
        (package(20, 5), package(10, 5), true),
        (package(10, 5), package(20, 5), false),
        (package(20, 6), package(10, 5), false),
        (per_unit(0), package(10, 5), true),
        (package(10, 5), per_unit(9), false),
        (at_least(3, per_unit(5)), at_least(4, per_unit(5)), true),
        (at_least(5, per_unit(4)), at_least(4, per_unit(5)), false),
        (per_unit(5), at_least(4, per_unit(5)), true),
        (at_least(4, per_unit(1)), per_unit(5), false),
        (at_least(0, per_unit(1)), per_unit(5), true),
    ] {
        assert_eq!(is_no_dearer(&new, &other), expected, "{new:?} and {other:?}");
    }
}

fn model() -> impl Strategy<Value = PriceModel> {
    let bounds = proptest::collection::btree_set(1_i64..60, 0..4);
    let tiered = (bounds, proptest::collection::vec(0_i64..9, 4)).prop_map(|(bounds, prices)| {
        let bounds: Vec<i64> = bounds.into_iter().collect();
        (bounds.clone(), prices.into_iter().take(bounds.len() + 1).collect::<Vec<i64>>())
    });
    let plain = prop_oneof![
        (0_i64..9).prop_map(per_unit),
        tiered
            .clone()
            .prop_filter("whole", |(bounds, prices)| prices.len() == bounds.len() + 1)
            .prop_map(|(b, p)| graduated(&b, &p)),
        tiered.prop_filter("whole", |(bounds, prices)| prices.len() == bounds.len() + 1).prop_map(|(b, mut p)| {
            p.sort_unstable_by(|one, other| other.cmp(one));
            volume(&b, &p)
        }),
        (1_i64..30, 0_i64..9).prop_map(|(size, price)| package(size, price)),
    ];
    (plain, proptest::option::of(0_i64..40)).prop_map(|(model, least)| match least {
        Some(least) => at_least(least, model),
        None => model,
    })
}

/// As a fraction of nano-units over those of an hour, to compare packages with units.
fn cost(model: &PriceModel, count: i64) -> i128 {
    let cost = model.exact_cost(UNIT, quantity(count)).unwrap();
    cost.numerator * i128::from(UNIT.base_units() / cost.per)
}

proptest! {
    #[test]
    fn what_is_proven_holds_at_every_quantity(new in model(), other in model()) {
        prop_assert!(is_no_dearer(&new, &new));
        if is_no_dearer(&new, &other) {
            for count in 0..130 {
                prop_assert!(cost(&new, count) <= cost(&other, count), "{count}");
            }
        }
    }

    /// Plain prices are never refused for want of a proof.
    #[test]
    fn straight_lines_are_always_compared(new in 0_i64..9, other in 0_i64..9) {
        prop_assert_eq!(is_no_dearer(&per_unit(new), &per_unit(other)), new <= other);
    }
}

fn entry(model: PriceModel, bands: &[(&str, &str, PriceModel)]) -> PriceEntry {
    let band = |(name, from, model): &(&str, &str, PriceModel)| {
        let windows = json!([{ "days": ["mon"], "from": from, "until": "24:00" }]);
        json!({ "name": name, "windows": windows, "model": model })
    };
    let bands: Vec<_> = bands.iter().map(band).collect();
    let time_of_use = (!bands.is_empty()).then(|| serde_json::from_value(json!({ "zone": "UTC", "bands": bands })).unwrap());
    let sku: SkuName = "device/n0/cpu".parse().unwrap();
    PriceEntry { time_of_use, ..PriceEntry::new(sku, model) }
}

#[test]
fn bands_are_decided_one_by_one_where_they_are_the_same() {
    let protected = entry(per_unit(5), &[("late", "20:00", per_unit(3))]);
    for (new, expected) in [
        (entry(per_unit(4), &[("late", "20:00", per_unit(4))]), entry(per_unit(4), &[("late", "20:00", per_unit(3))])),
        (entry(per_unit(6), &[("late", "20:00", per_unit(1))]), entry(per_unit(5), &[("late", "20:00", per_unit(1))])),
        // Other bands: the entry as a whole, and the new one only where its dearest price is no dearer than the least.
        (entry(per_unit(4), &[("late", "21:00", per_unit(1))]), protected.clone()),
        (entry(per_unit(4), &[]), protected.clone()),
        (entry(per_unit(3), &[]), entry(per_unit(3), &[])),
        (entry(per_unit(2), &[("noon", "12:00", per_unit(3))]), entry(per_unit(2), &[("noon", "12:00", per_unit(3))])),
        (entry(package(1, 1), &[]), protected.clone()),
        (entry(per_unit(0), &[]), entry(per_unit(0), &[])),
    ] {
        assert_eq!(lesser(&new, &protected), expected, "{new:?}");
    }
    let plain = entry(package(9, 1), &[]);
    assert_eq!(lesser(&entry(per_unit(1), &[("late", "20:00", per_unit(1))]), &plain), plain, "packages have no least unit");
}
