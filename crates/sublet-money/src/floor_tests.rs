use serde_json::json;
use sublet_core::Currency;

use super::*;
use crate::price_book::{PriceEntry, PriceListDraft};
use crate::price_model::Tier;
use crate::supply_cost::SupplyCostDraft;

fn costs(currency: &str, content: serde_json::Value) -> SupplyCost {
    let mut whole = json!({ "currency": currency, "month": "2026-10", "devices": [], "models": [] });
    for (name, value) in content.as_object().unwrap() {
        whole[name] = value.clone();
    }
    let draft: SupplyCostDraft = serde_json::from_value(whole).unwrap();
    SupplyCost::new(draft).unwrap()
}

fn list(entries: Vec<PriceEntry>) -> PriceListVersion {
    let draft =
        PriceListDraft { list: "plist_1".parse().unwrap(), currency: Currency::EUR, effective_at: Timestamp::EPOCH, entries };
    PriceListVersion::new(draft).unwrap()
}

fn entry(sku: &str, model: PriceModel) -> PriceEntry {
    PriceEntry::new(sku.parse().unwrap(), model)
}
fn quantity(count: i64) -> crate::sku::Quantity {
    crate::sku::Quantity::new(count).unwrap()
}
fn each(price: i64) -> PriceModel {
    PriceModel::PerUnit { price: Nanos::new(price) }
}

fn found(entries: Vec<PriceEntry>, costs: &SupplyCost) -> Vec<String> {
    let shown = |below: &BelowCost| {
        let band = below.band.as_ref().map_or("-", |band| band.as_str());
        format!("{} {band} {} < {} by {}", below.sku, below.price, below.cost, below.short)
    };
    below_cost(&list(entries), costs, Timestamp::EPOCH).unwrap().iter().map(shown).collect()
}

#[test]
fn the_cheapest_tier_has_to_cover_the_cost() {
    let costs = costs("EUR", json!({ "devices": [{ "kind": "cpu", "per_hour": "1" }] }));
    let tier = |up_to: Option<i64>, price| Tier { up_to: up_to.map(quantity), price: Nanos::new(price) };
    let tiers = vec![tier(Some(10), 2_000_000_000), tier(None, 400_000_000)];
    let package = PriceModel::Package { size: quantity(900_000), price: Nanos::new(200_000_000) };
    for (model, expected) in [
        (each(1_000_000_000), None),
        (each(999_999_999), Some("0.999999999 < 1 by 0.000000001")),
        (PriceModel::Graduated { tiers }, Some("0.4 < 1 by 0.6")),
        (package.clone(), Some("0.8 < 1 by 0.2")),
        (PriceModel::Minimum { least: Nanos::new(5_000_000_000), of: Box::new(package) }, Some("0.8 < 1 by 0.2")),
    ] {
        let expected: Vec<String> = expected.iter().map(|text| format!("device/n0/cpu - {text}")).collect();
        assert_eq!(found(vec![entry("device/n0/cpu", model), entry("device/n0/gpu", each(0))], &costs), expected);
    }
}

#[test]
fn a_price_is_compared_with_the_cost_of_the_same_hour() {
    let window = |from: &str, until: &str| json!([{ "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": from, "until": until }]);
    let bands = |name: &str, from: &str, until: &str, price: &str| {
        json!({ "zone": "UTC", "bands": [{ "name": name, "windows": window(from, until),
            "model": { "type": "per_unit", "price": price } }] })
    };
    // A kilowatt: 0.50 an hour, 0.20 by night.
    let costs = costs(
        "EUR",
        json!({ "energy": { "per_kwh": "0.5", "time_of_use": bands("night", "22:00", "06:00", "0.2") },
        "devices": [{ "kind": "cpu", "power": { "busy_watts": 1_000, "idle_watts": 0 } }] }),
    );
    let timed = |from: &str, until: &str| {
        let time_of_use = Some(serde_json::from_value(bands("cheap", from, until, "0.3")).unwrap());
        PriceEntry { time_of_use, ..entry("device/n0/cpu", each(600_000_000)) }
    };
    assert_eq!(found(vec![timed("22:00", "06:00")], &costs), Vec::<String>::new());
    assert_eq!(found(vec![timed("21:00", "06:00")], &costs), ["device/n0/cpu cheap 0.3 < 0.5 by 0.2"]);
    assert_eq!(found(vec![entry("device/n0/cpu", each(450_000_000))], &costs), ["device/n0/cpu - 0.45 < 0.5 by 0.05"]);
}

#[test]
fn tokens_have_the_cost_of_their_kind_and_currencies_are_not_converted() {
    let content = json!({ "models": [{ "model": "m", "input": "1", "cached_input": "0", "output": "4" }] });
    let entries = || {
        let prices = [("input", 500_000_000), ("cached_input", 0), ("output", 5_000_000_000)];
        prices.map(|(kind, price)| entry(&format!("tokens/{kind}/m"), each(price))).to_vec()
    };
    assert_eq!(found(entries(), &costs("EUR", content.clone())), ["tokens/input/m - 0.5 < 1 by 0.5"]);
    assert_eq!(found(entries(), &costs("USD", content)), Vec::<String>::new());
}

#[test]
fn rates_and_shares_round_as_they_say() {
    let hour = PricingUnit::DeviceHour;
    assert_eq!(per_unit(Nanos::new(10), 7_200_000, hour), Some(Nanos::new(5)));
    assert_eq!(per_unit(Nanos::new(10), 0, hour), None);
    for (part, of, expected) in [(1, 3, Some(333)), (-1, 3, Some(-334)), (3, 3, Some(1_000)), (1, 0, None), (1, -1, None)] {
        assert_eq!(per_mille(Nanos::new(part), Nanos::new(of)), expected, "{part} of {of}");
    }
}
