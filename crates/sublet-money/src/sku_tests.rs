use super::*;
use sublet_core::{Nanos, Rate};

#[test]
fn sku_names_parse_back() {
    for text in [
        "tokens/output/sublet-mini",
        "tokens/flex/input/org/m",
        "tokens/priority/output/m",
        "tokens/input/flex/output/m",
        "tokens/cached_input/meta/Llama:8b",
        "requests/default/m",
        "starts/cpu",
        "starts/n2m/cpu",
        "requests/flex/org/m",
        "requests/priority/flex/m",
        "device/n2m/cpu",
        "device/firm/h100-sxm",
        "device/n2m/site_berlin/h100",
        "device/n2m/sandbox/h100",
        "device/site_berlin/n2m/h100",
        "device/sandbox/n2m/h100",
        "device/site_berlin/process/n2m/n0/h100?site=x",
        "project/month",
        "fee/set-up",
        "fee/support/hour",
        "storage/files",
        "egress/files",
    ] {
        assert_eq!(text.parse::<SkuName>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "tokens",
        "tokens/input",
        "tokens/input/",
        "tokens/default/input/m",
        "tokens/flex/m",
        "tokens/flex/input",
        "tokens/gold/input/m",
        "tokens/thought/m",
        "requests",
        "requests/default",
        "requests/default/",
        "starts",
        "starts/",
        "starts/a b",
        "requests/m",
        "requests/gold/m",
        "project",
        "project/year",
        "project/month/m",
        "fee",
        "fee/",
        "fee/set up",
        "device/n3/cpu",
        "storage",
        "device/vm/n0/cpu",
        "device/site_a/cpu",
        "device/site_A/n0/cpu",
        "device/sandbox/site_a/n0/cpu",
        "device/site_a/site_b/n0/cpu",
        "device/sandbox/process/n0/cpu",
        "device/site_a/sandbox/n0",
        "storage/gb/x",
        "storage/files/x",
        "egress/",
        "device/n0/a b",
    ] {
        assert!(text.parse::<SkuName>().is_err(), "{text}");
    }
}

#[test]
fn operators_prices_are_exact_fractions() {
    for (text, nanos, per) in [
        ("0.15 EUR per 1M tokens", 150_000_000, 1_000_000),
        ("1.2 EUR per device-hour", 1_200_000_000, 3_600_000),
        ("0.002 EUR per request", 2_000_000, 1),
        ("0.25 EUR per start", 250_000_000, 1),
        ("5 EUR per project-month", 5_000_000_000, 1),
        ("0.02 EUR per GiB-month", 20_000_000, 783_831_531_520),
        ("0.09 EUR per GiB", 90_000_000, 1_073_741_824),
        ("0.000000001 USD per device-hour", 1, 3_600_000),
    ] {
        let price: UnitPrice = text.parse().unwrap();
        assert_eq!(price.to_string(), text);
        assert_eq!(price.rate().unwrap(), Rate::new(Nanos::new(nanos), per).unwrap());
    }
}

#[test]
fn prices_that_mean_nothing_are_refused_with_a_reason() {
    for (text, reason) in [
        ("0.15 EUR", "not a price"),
        ("-1 EUR per device-hour", "negative"),
        ("1 EUR per fortnight", "not a unit"),
        ("1 XXX per device-hour", "not a currency"),
        ("1e3 EUR per device-hour", "not an amount"),
    ] {
        let error = text.parse::<UnitPrice>().unwrap_err();
        assert!(error.to_string().contains(reason), "{text}: {error}");
    }
}
