use sublet_core::notice::NoticeClass;

use super::*;
use crate::price_model::{PriceModel, Tier};
use crate::sku::PricingUnit;
use crate::starter::{StarterDevice, starter_price_list};

fn sku(text: &str) -> SkuName {
    text.parse().unwrap()
}
fn list_id() -> PriceListId {
    "plist_0".parse().unwrap()
}
fn entry(name: &str, price: i64) -> PriceEntry {
    PriceEntry::per_unit(sku(name), Nanos::new(price))
}
fn whole_model(model: &str) -> Vec<PriceEntry> {
    TokenKind::ALL.into_iter().map(|kind| entry(&format!("tokens/{kind}/{model}"), 150_000_000)).collect()
}
fn draft(entries: Vec<PriceEntry>, effective_at_seconds: i64) -> PriceListDraft {
    PriceListDraft {
        list: list_id(),
        currency: Currency::EUR,
        effective_at: Timestamp::from_seconds(effective_at_seconds),
        entries,
    }
}
fn version(effective_at_seconds: i64) -> Arc<PriceListVersion> {
    Arc::new(PriceListVersion::new(draft(whole_model("m"), effective_at_seconds)).unwrap())
}

/// Customers hash this text themselves, so no change of it may go unnoticed.
#[test]
fn the_canonical_form_is_as_published() {
    let mut entries = whole_model("m");
    let tiers = vec![
        Tier { up_to: Some(Quantity::new(3_600_000).unwrap()), price: Nanos::new(2_000_000_000) },
        Tier { up_to: None, price: Nanos::new(1) },
    ];
    entries.push(PriceEntry::new(sku("device/n0/cpu"), PriceModel::Graduated { tiers }));
    let version = PriceListVersion::new(draft(entries, 1)).unwrap();
    assert_eq!(
        version.canonical(),
        concat!(
            r#"{"currency":"EUR","effective_at_micros":1000000,"entries":["#,
            r#"{"model":{"tiers":[{"price":"2","up_to":3600000},{"price":"0.000000001"}],"type":"graduated"},"sku":"device/n0/cpu","unit":"device-hour"},"#,
            r#"{"model":{"price":"0.15","type":"per_unit"},"sku":"tokens/cached_input/m","unit":"1M tokens"},"#,
            r#"{"model":{"price":"0.15","type":"per_unit"},"sku":"tokens/input/m","unit":"1M tokens"},"#,
            r#"{"model":{"price":"0.15","type":"per_unit"},"sku":"tokens/output/m","unit":"1M tokens"}"#,
            r#"],"list":"plist_0","schema":"sublet-price-list/1"}"#
        )
    );
}

#[test]
fn the_order_of_a_draft_does_not_matter_and_any_change_does() {
    let mut reversed = whole_model("m");
    reversed.reverse();
    let plain = version(0);
    assert_eq!(PriceListVersion::new(draft(reversed, 0)).unwrap().version(), plain.version());
    let mut dearer = whole_model("m");
    dearer[0].model = PriceModel::PerUnit { price: Nanos::new(150_000_001) };
    assert_ne!(PriceListVersion::new(draft(dearer, 0)).unwrap().version(), plain.version());
    assert_ne!(version(1).version(), plain.version());
}

#[test]
fn a_stored_version_proves_itself() {
    let version = version(0);
    assert_eq!(PriceListVersion::from_canonical(version.canonical(), version.version()).unwrap(), *version);
    let forged = version.canonical().replacen("0.15", "0.14", 1);
    assert_eq!(PriceListVersion::from_canonical(&forged, version.version()).unwrap_err().code(), ErrorCode::LedgerMismatch);
}

#[test]
fn bad_price_lists_are_refused_with_the_reason() {
    let with = |extra: PriceEntry| {
        let mut entries = whole_model("m");
        entries.push(extra);
        entries
    };
    let tiered = |tiers: &[(Option<i64>, i64)], volume: bool| {
        let tiers = tiers
            .iter()
            .map(|(up_to, price)| Tier { up_to: up_to.map(|q| Quantity::new(q).unwrap()), price: Nanos::new(*price) })
            .collect();
        let model = if volume { PriceModel::Volume { tiers } } else { PriceModel::Graduated { tiers } };
        with(PriceEntry::new(sku("device/n0/cpu"), model))
    };
    let package = PriceModel::Package { size: Quantity::new(1_000).unwrap(), price: Nanos::new(5) };
    let empty_package = PriceModel::Package { size: Quantity::ZERO, price: Nanos::new(5) };
    let cases = [
        (vec![], "1 to 20000 prices"),
        (with(entry("tokens/input/m", 1)), "priced twice"),
        (with(entry("device/n0/cpu", -1)), "negative"),
        (with(PriceEntry { unit: PricingUnit::MillionTokens, ..entry("device/n0/cpu", 1) }), "priced per device-hour"),
        (with(entry("tokens/input/other", 1)), "has none"),
        (with(entry("starts/a100", 1)), "no time on devices of the kind"),
        (with(PriceEntry { model: package.clone(), ..entry("starts/cpu", 1) }), "no price in packages"),
        (with(entry("tokens/flex/input/m", 1)), "tokens/flex/cached_input/m has none"),
        (tiered(&[], false), "at least one tier"),
        (tiered(&[(Some(10), 1)], false), "no upper bound"),
        (tiered(&[(Some(10), 1), (Some(10), 1), (None, 1)], false), "not above 10"),
        (tiered(&[(None, 1), (None, 1)], false), "only the last"),
        (tiered(&[(Some(10), 1), (None, 2)], true), "rises"),
        (tiered(&[(Some(i64::MAX), 1), (None, 1)], false), "at most"),
        (vec![PriceEntry { model: package, ..entry("tokens/input/m", 1) }], "no price in packages and no minimum"),
        (with(PriceEntry { model: empty_package, ..entry("device/n0/cpu", 1) }), "at least one unit"),
    ];
    for (entries, reason) in cases {
        let error = PriceListVersion::new(draft(entries, 0)).unwrap_err();
        assert!(error.to_string().contains(reason), "wanted '{reason}', got '{error}'");
        assert_eq!(error.code(), ErrorCode::InvalidPrice);
    }
}

#[test]
fn unknown_units_and_fields_are_refused_when_read() {
    let version = version(0);
    for (from, to) in
        [("1M tokens", "parsec"), ("per_unit", "free_lunch"), ("\"list\"", "\"lists\""), ("0.15", "-0.15"), ("list/1", "list/2")]
    {
        let text = version.canonical().replacen(from, to, 1);
        assert_ne!(text, version.canonical());
        let refused = parse_canonical(&text).and_then(PriceListVersion::new);
        assert!(refused.is_err(), "{to}");
    }
}

#[test]
fn a_version_is_in_force_from_its_instant_until_the_next() {
    let mut list = PriceList::new(list_id(), "standard".into(), Currency::EUR);
    let (first, second) = (version(10), version(20));
    list.publish(Arc::clone(&first), Timestamp::from_seconds(10)).unwrap();
    list.publish(Arc::clone(&second), Timestamp::from_seconds(11)).unwrap();
    let second_starts = Timestamp::from_seconds(20);
    assert!(list.find_at(Timestamp::from_micros(9_999_999)).is_none());
    assert_eq!(list.at(Timestamp::from_seconds(10)).unwrap(), &first);
    assert_eq!(list.at(Timestamp::from_micros(second_starts.micros() - 1)).unwrap(), &first);
    assert_eq!(list.at(second_starts).unwrap(), &second);
    assert_eq!(list.at(Timestamp::EPOCH).unwrap_err().code(), ErrorCode::UnknownPrice);
    let again = PriceList::restore(list_id(), "standard".into(), Currency::EUR, vec![second, first]).unwrap();
    assert_eq!(again, list);
}

#[test]
fn overlapping_and_backdated_versions_are_refused() {
    let mut list = PriceList::new(list_id(), "standard".into(), Currency::EUR);
    list.publish(version(20), Timestamp::EPOCH).unwrap();
    for effective_at_seconds in [5, 20] {
        let error = list.publish(version(effective_at_seconds), Timestamp::EPOCH).unwrap_err();
        assert!(error.to_string().contains("overlap"), "{error}");
    }
    let error = list.publish(version(30), Timestamp::from_seconds(31)).unwrap_err();
    assert!(error.to_string().contains("has passed"), "{error}");
    let mut dollars = draft(whole_model("m"), 40);
    dollars.currency = Currency::USD;
    let error = list.publish(Arc::new(PriceListVersion::new(dollars).unwrap()), Timestamp::EPOCH).unwrap_err();
    assert_eq!(error.code(), ErrorCode::CurrencyMismatch);
}

#[test]
fn the_starter_list_prices_every_model_and_every_notice() {
    let models = ["sublet-mini".parse().unwrap()];
    let devices = [StarterDevice { kind: "cpu".parse().unwrap(), list_price_per_hour: "1.20".parse().unwrap() }];
    let draft = starter_price_list(list_id(), Currency::EUR, Timestamp::EPOCH, &models, &devices).unwrap();
    let version = PriceListVersion::new(draft).unwrap();
    let prices = version.token_prices(&models[0], ServiceTier::Default, Timestamp::EPOCH).unwrap();
    assert!(prices.cached_input.nanos() < prices.input.nanos() && prices.input.nanos() < prices.output.nanos());
    let outputs =
        ServiceTier::ALL.map(|tier| version.token_prices(&models[0], tier, Timestamp::EPOCH).unwrap().output.nanos().to_string());
    assert_eq!(outputs, ["0.3", "0.6", "1.05"]);
    let hourly: Vec<String> = NoticeClass::ALL
        .iter()
        .map(|notice| sku(&format!("device/{notice}/cpu")))
        .map(|sku| version.get(&sku).unwrap().model.prices()[0].to_string())
        .collect();
    assert_eq!(hourly, ["0.3", "0.48", "0.66", "0.84", "1.02", "1.2"]);
    assert_eq!(
        version.token_prices(&"other".parse().unwrap(), ServiceTier::Flex, Timestamp::EPOCH).unwrap_err().code(),
        ErrorCode::UnknownPrice
    );
}

#[test]
fn a_tier_without_a_price_is_refused_and_names_those_that_have_one() {
    let refused = version(0).token_prices(&"m".parse().unwrap(), ServiceTier::Flex, Timestamp::EPOCH).unwrap_err();
    assert_eq!((refused.code(), refused.alternatives()), (ErrorCode::PolicyRefused, ["default".to_owned()].as_slice()));
    let flex_only: Vec<_> = TokenKind::ALL.into_iter().map(|kind| entry(&format!("tokens/flex/{kind}/m"), 1)).collect();
    let error = PriceListVersion::new(draft(flex_only, 0)).unwrap_err();
    assert!(error.to_string().contains("tokens/input/m has none"), "{error}");
}

#[test]
fn tiered_prices_admit_at_the_dearest_tier() {
    let mut entries = whole_model("m");
    let tiers = vec![
        Tier { up_to: Some(Quantity::new(1_000).unwrap()), price: Nanos::new(500) },
        Tier { up_to: None, price: Nanos::new(900) },
    ];
    entries[2].model = PriceModel::Graduated { tiers };
    let version = PriceListVersion::new(draft(entries, 0)).unwrap();
    let prices = version.token_prices(&"m".parse().unwrap(), ServiceTier::Default, Timestamp::EPOCH).unwrap();
    assert_eq!(prices.output, Rate::new(Nanos::new(900), 1_000_000).unwrap());
}

#[test]
fn a_price_of_files_is_one_that_can_be_held_or_needs_no_hold() {
    let per_unit = PriceModel::PerUnit { price: Nanos::new(3) };
    let volume = PriceModel::Volume { tiers: vec![Tier { up_to: None, price: Nanos::new(1) }] };
    let package = PriceModel::Package { size: Quantity::new(1_000).unwrap(), price: Nanos::new(5) };
    let minimum = |of: &PriceModel| PriceModel::Minimum { least: Nanos::new(5), of: Box::new(of.clone()) };
    let market = serde_json::json!({ "index": "spot", "floor": "0.5", "ceiling": "2" });
    for (name, model, refusal) in [
        ("storage/files", per_unit.clone(), None),
        ("storage/files", package.clone(), None),
        ("storage/files", minimum(&per_unit), None),
        ("storage/files", volume.clone(), Some("no volume price")),
        ("storage/files", minimum(&volume), Some("no volume price")),
        ("egress/files", volume.clone(), None),
        ("egress/files", package, Some("no price in packages")),
        ("egress/files", minimum(&per_unit), Some("no price in packages")),
    ] {
        let found = PriceEntry::new(sku(name), model).validate().map_err(|error| error.to_string());
        match refusal {
            None => assert_eq!(found, Ok(()), "{name}"),
            Some(reason) => assert!(found.as_ref().is_err_and(|found| found.contains(reason)), "{name}: {found:?}"),
        }
    }
    for name in ["storage/files", "egress/files"] {
        let market = Some(serde_json::from_value(market.clone()).unwrap());
        let refused = PriceEntry { market, ..PriceEntry::new(sku(name), per_unit.clone()) }.validate().unwrap_err();
        assert!(refused.to_string().contains("follows no index"), "{refused}");
    }
}

#[test]
fn a_flat_price_of_requests_is_one_that_a_hold_can_cover() {
    let requests = |model| PriceEntry::new(sku("requests/flex/m"), model);
    let with = |entry: PriceEntry, more: Vec<PriceEntry>| PriceListVersion::new(draft([vec![entry], more].concat(), 0));
    let per_unit = || PriceModel::PerUnit { price: Nanos::new(3) };
    let flex = || TokenKind::ALL.map(|kind| entry(&format!("tokens/flex/{kind}/m"), 1)).to_vec();
    let whole = || [whole_model("m"), flex()].concat();
    let bands = serde_json::json!({ "zone": "UTC", "bands": [{ "name": "night", "windows": [{ "days": ["mon"], "from": "22:00",
        "until": "06:00" }], "model": { "type": "per_unit", "price": "1" } }] });
    let by_time = PriceEntry { time_of_use: serde_json::from_value(bands).unwrap(), ..requests(per_unit()) };
    let package = PriceModel::Package { size: Quantity::new(1_000).unwrap(), price: Nanos::new(5) };
    let minimum = PriceModel::Minimum { least: Nanos::new(5), of: Box::new(per_unit()) };
    for (refused, reason) in [
        (with(requests(package), whole()), "no price in packages"),
        (with(requests(minimum), whole()), "no price in packages"),
        (with(by_time, whole()), "the same all week"),
        (with(requests(per_unit()), whole_model("m")), "tokens/flex/input/m has none"),
        (with(requests(per_unit()), flex()), "has none"),
    ] {
        let error = refused.unwrap_err();
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
    let list = with(requests(per_unit()), whole()).unwrap();
    let request = |tier| list.token_prices(&"m".parse().unwrap(), tier, Timestamp::EPOCH).unwrap().request;
    assert_eq!((request(ServiceTier::Flex), request(ServiceTier::Default)), (Nanos::new(3), Nanos::ZERO));
    assert_eq!(list.models().len(), 1);
}
