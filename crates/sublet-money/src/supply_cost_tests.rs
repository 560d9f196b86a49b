use proptest::prelude::*;
use serde_json::json;

use super::*;

fn draft(content: serde_json::Value) -> SupplyCostDraft {
    let mut whole = json!({ "currency": "EUR", "month": "2026-10", "devices": [], "models": [] });
    for (name, value) in content.as_object().unwrap() {
        whole[name] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn power(busy: u32, idle: u32) -> serde_json::Value {
    json!({ "busy_watts": busy, "idle_watts": idle })
}

/// 0.30 a kilowatt-hour, 0.20 by night.
fn energy() -> serde_json::Value {
    let night = json!({ "name": "night", "windows": [{ "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
        "from": "22:00", "until": "06:00" }], "model": { "type": "per_unit", "price": "0.2" } });
    json!({ "per_kwh": "0.3", "time_of_use": { "zone": "Europe/Berlin", "bands": [night] } })
}

fn hours(load: Load, band: Option<&str>, hours: i64) -> BandTime {
    BandTime { band: band.map(|name| name.parse().unwrap()), load, micros: hours * 3_600_000_000 }
}

#[test]
fn energy_and_depreciation_follow_their_formulas() {
    let costs = SupplyCost::new(draft(json!({ "energy": energy(), "devices": [
        { "kind": "h100", "power": power(700, 100), "depreciation": { "price": "36500", "residual": "1460", "months": 48 } },
        { "kind": "rented", "per_hour": "1.25" },
        { "kind": "team", "power": power(1_000, 0), "transfer_price": "0.5" },
        { "kind": "drawn", "power": power(1_000, 0) },
    ] })))
    .unwrap();
    let cost = |kind: &str, times: &[BandTime]| {
        let cost = costs.device_time(&kind.parse().unwrap(), times).unwrap().unwrap();
        [cost.power, cost.depreciation, cost.device_time, cost.transfer_price].map(|amount| amount.to_string()).join(" ")
    };
    // 35,040 over 35,040 hours is 1 an hour; 0.7 kW cost 0.21 by day and 0.14 by night.
    for (kind, times, expected) in [
        ("h100", vec![hours(Load::Busy, None, 1)], "0.21 1 0 0"),
        ("h100", vec![hours(Load::Busy, Some("night"), 10), hours(Load::Idle, None, 2)], "1.46 12 0 0"),
        ("rented", vec![hours(Load::Busy, None, 4)], "0 0 5 0"),
        ("team", vec![hours(Load::Busy, None, 3), hours(Load::Idle, None, 1)], "0.9 0 0 2"),
        ("drawn", vec![hours(Load::Busy, None, 1), hours(Load::Idle, None, 1_000)], "0.3 0 0 0"),
        ("drawn", vec![], "0 0 0 0"),
    ] {
        assert_eq!(cost(kind, &times), expected, "{kind} {times:?}");
    }
    assert_eq!(costs.device_time(&"unknown".parse().unwrap(), &[]).unwrap(), None);
}

#[test]
fn a_year_takes_a_year_s_depreciation() {
    let costs = SupplyCost::new(draft(json!({ "devices": [
        { "kind": "x", "depreciation": { "price": "1000.000000007", "residual": "0", "months": 12 } }] })))
    .unwrap();
    let year = costs.device_time(&"x".parse().unwrap(), &[hours(Load::Idle, None, 8_760)]).unwrap().unwrap();
    assert_eq!(year.depreciation.to_string(), "1000.000000007");
}

#[test]
fn costs_that_contradict_themselves_are_refused_with_their_place() {
    let device = |rest: serde_json::Value| {
        let mut device = json!({ "kind": "x" });
        for (name, value) in rest.as_object().unwrap() {
            device[name] = value.clone();
        }
        json!({ "devices": [device] })
    };
    let bought = |price: &str, residual: &str, months: u16| {
        device(json!({ "depreciation": { "price": price, "residual": residual, "months": months } }))
    };
    let model = |amount: &str| json!({ "model": "m", "input": amount, "cached_input": "0", "output": "0" });
    let banded = json!({ "per_kwh": "0.3", "time_of_use": { "zone": "UTC", "bands": [{ "name": "night",
        "windows": [{ "days": ["mon"], "from": "22:00", "until": "06:00" }],
        "model": { "type": "package", "size": 10, "price": "1" } }] } });
    for (content, place, reason) in [
        (json!({}), "devices", "at least one"),
        (device(json!({})), "devices[0]", "no cost"),
        (device(json!({ "power": power(1, 1) })), "energy", "energy has no price"),
        (json!({ "energy": { "per_kwh": "-0.1" }, "models": [model("1")] }), "energy.per_kwh", "not negative"),
        (json!({ "energy": banded, "models": [model("1")] }), "energy.time_of_use", "one amount"),
        (
            json!({ "energy": { "per_kwh": "1" }, "devices": [{ "kind": "x", "power": power(1_000_001, 0) }] }),
            "devices[0].power",
            "watts",
        ),
        (bought("-1", "0", 12), "devices[0].depreciation", "not negative"),
        (bought("1", "2", 12), "devices[0].depreciation", "worth 2 at its end"),
        (bought("1", "0", 0), "devices[0].depreciation", "1 to 600 months"),
        (bought("1", "0", 601), "devices[0].depreciation", "1 to 600 months"),
        (bought("1000000.000000001", "0", 12), "devices[0].depreciation", "at most 1000000"),
        (device(json!({ "per_hour": "-0.5" })), "devices[0].per_hour", "not negative"),
        (
            device(json!({ "per_hour": "1", "depreciation": { "price": "1", "residual": "0", "months": 1 } })),
            "devices[0]",
            "and a cost for an hour",
        ),
        (device(json!({ "transfer_price": "-0.5" })), "devices[0].transfer_price", "not negative"),
        (device(json!({ "per_hour": "1", "transfer_price": "1" })), "devices[0]", "a cost for an hour and a transfer price"),
        (json!({ "models": [model("1"), model("2")] }), "models[1]", "twice"),
        (json!({ "models": [model("-1")] }), "models[0].input", "not negative"),
        (json!({ "devices": [{ "kind": "x", "per_hour": "1" }, { "kind": "x", "per_hour": "2" }] }), "devices[1]", "twice"),
    ] {
        let error = SupplyCost::new(draft(content.clone())).unwrap_err();
        assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidPrice, Some(place)), "{content}: {error}");
        assert!(error.to_string().contains(reason), "{content}: {error}");
    }
}

#[test]
fn costs_hold_from_the_first_instant_of_a_month() {
    let first = month_starts_at("2026-10".parse().unwrap()).unwrap();
    assert_eq!(month_from(first).unwrap().to_string(), "2026-10");
    let error = month_from(Timestamp::from_micros(first.micros() + 1)).unwrap_err();
    assert_eq!(error.alternatives(), ["2026-10-01T00:00:00.000000Z", "2026-11-01T00:00:00.000000Z"]);
}

#[test]
fn a_version_is_named_by_its_content_and_proves_it() {
    let content = |replaces: Option<&str>| {
        let mut draft = draft(
            json!({ "energy": energy(), "devices": [{ "kind": "b", "per_hour": "1" }, { "kind": "a", "power": power(2, 1) }] }),
        );
        draft.replaces = replaces.map(str::to_owned);
        draft
    };
    let version = SupplyCost::new(content(None)).unwrap();
    let mut other_order = content(None);
    other_order.devices.reverse();
    assert_eq!(SupplyCost::new(other_order).unwrap(), version);
    assert_ne!(SupplyCost::new(content(Some("f00d"))).unwrap().version(), version.version());
    assert_eq!(SupplyCost::from_canonical(version.canonical(), version.version()).unwrap(), version);
    let changed = version.canonical().replace("\"busy_watts\":2", "\"busy_watts\":3");
    let error = SupplyCost::from_canonical(&changed, version.version()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::LedgerMismatch);
}

proptest! {
    /// However long and however dear: an amount or a refusal, and at most one unit of rounding for each part.
    #[test]
    fn time_in_pieces_costs_what_it_costs_in_one(
        watts in 0..=WATTS_MAX, per_kwh in 0..=AMOUNT_MAX.get(), price in 0..=AMOUNT_MAX.get(), months in 1..=LIFE_MONTHS_MAX,
        one in 0..=10_000_000_000_000_i64, other in 0..=10_000_000_000_000_i64,
    ) {
        let (per_kwh, price) = (Nanos::new(per_kwh).to_string(), Nanos::new(price).to_string());
        let costs = SupplyCost::new(draft(json!({ "energy": { "per_kwh": per_kwh }, "devices": [{ "kind": "x",
            "power": power(watts, 0), "depreciation": { "price": price, "residual": "0", "months": months } }] }))).unwrap();
        let cost = |micros: i64| {
            let time = BandTime { band: None, load: Load::Busy, micros };
            costs.device_time(&"x".parse().unwrap(), &[time]).map(|cost| cost.unwrap().total().unwrap().get())
        };
        match (cost(one), cost(other), cost(one + other)) {
            (Ok(one), Ok(other), Ok(whole)) => prop_assert!(whole.abs_diff(one + other) <= 4),
            (_, _, whole) => prop_assert_eq!(whole.unwrap_err().code(), ErrorCode::AmountOverflow),
        }
    }
}
