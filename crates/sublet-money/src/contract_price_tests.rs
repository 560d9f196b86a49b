use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use sublet_core::Currency;

use super::*;
use crate::contract::{Commitment, ContractTerms, Notice};
use crate::price_model::{PriceModel, Tier};
use crate::sku::Quantity;

fn month(text: &str) -> PeriodKey {
    text.parse().unwrap()
}
fn sku(text: &str) -> SkuName {
    text.parse().unwrap()
}
fn per_unit(price: i64) -> PriceModel {
    PriceModel::PerUnit { price: Nanos::new(price) }
}

const SKUS: [&str; 8] = [
    "tokens/input/m",
    "tokens/cached_input/m",
    "tokens/output/m",
    "tokens/flex/input/m",
    "tokens/flex/cached_input/m",
    "tokens/flex/output/m",
    "device/n0/cpu",
    "device/n2m/h100",
];

fn entries(prices: &[i64; 8]) -> Vec<PriceEntry> {
    SKUS.iter().zip(prices).map(|(name, price)| PriceEntry::new(sku(name), per_unit(*price))).collect()
}
fn list(entries: Vec<PriceEntry>, from: i64) -> Arc<PriceListVersion> {
    let (list, currency) = ("plist_public".parse().unwrap(), Currency::EUR);
    let draft = PriceListDraft { list, currency, effective_at: Timestamp::from_seconds(from), entries };
    Arc::new(PriceListVersion::new(draft).unwrap())
}
fn public(prices: &[i64; 8]) -> Arc<PriceListVersion> {
    list(entries(prices), 0)
}

fn terms(pricing: Option<PriceTerms>) -> ContractTerms {
    ContractTerms {
        billed: None,
        commitments: vec![Commitment { amount: Nanos::ZERO, from_period: 1 }],
        covers: [SkuFamily::ModelTokens].into(),
        currency: Currency::EUR,
        exit: None,
        fee: None,
        months: 12,
        payment: None,
        period_months: 1,
        pricing,
        quantities: None,
        renewal: None,
        roll_over_periods: 0,
        starts: month("2027-01"),
    }
}
fn agreed(pricing: PriceTerms) -> TermsVersion {
    TermsVersion::new(month("2027-01"), terms(Some(pricing))).unwrap()
}
fn off(on: Discounted, off_ppm: u32) -> Discount {
    Discount { off_ppm, on }
}
fn discounts(discounts: Vec<Discount>) -> PriceTerms {
    PriceTerms { discounts, ..PriceTerms::default() }
}
fn made(public: &PriceListVersion, protected: Option<&PriceListVersion>, terms: &TermsVersion) -> PriceListVersion {
    let from = Sources { public, protected, terms };
    contract_prices("plist_own".parse().unwrap(), Timestamp::from_seconds(2_000_000_000), from).unwrap()
}
fn price(version: &PriceListVersion, name: &str) -> i64 {
    version.get(&sku(name)).unwrap().model.prices()[0].get()
}

/// Terms that were agreed before there were prices in them.
#[test]
fn terms_without_prices_have_the_hash_that_they_always_had() {
    let text = concat!(
        r#"{"from":"2027-01","schema":"sublet-contract/1","terms":{"commitments":[{"amount":"0","from_period":1}],"#,
        r#""covers":["model_tokens"],"currency":"EUR","months":12,"period_months":1,"roll_over_periods":0,"starts":"2027-01"}}"#,
    );
    let version = TermsVersion::new(month("2027-01"), terms(None)).unwrap();
    assert_eq!(version.canonical().unwrap(), text);
    assert_eq!(version.hash, crate::canonical::sha256_hex(text));
    assert_eq!(TermsVersion::from_canonical(text, &version.hash).unwrap(), version);
}

#[test]
fn the_most_exact_discount_wins() {
    let terms = agreed(discounts(vec![
        off(Discounted::Family(SkuFamily::DeviceTime), 100_000),
        off(Discounted::Sku(sku("tokens/flex/output/m")), 0),
        off(Discounted::Family(SkuFamily::ModelTokens), 100_000),
        off(Discounted::Model("m".parse().unwrap()), 200_000),
        off(Discounted::Notice(NoticeClass::N0), 300_000),
        off(Discounted::Device("gpu".parse().unwrap()), 500_000),
        off(Discounted::Sku(sku("device/n0/gpu")), 600_000),
    ]));
    let own = made(&public(&[1_000; 8]), None, &terms);
    let found: Vec<_> = SKUS.iter().map(|name| price(&own, name)).collect();
    assert_eq!(found, [800, 800, 800, 800, 800, 1_000, 700, 900]);
    assert_eq!(own.currency(), Currency::EUR);
    assert_eq!(own.source().unwrap().terms, terms.hash);
}

#[test]
fn prices_that_contradict_themselves_are_refused_with_the_member() {
    let device = |kind: &str| Discounted::Device(kind.parse().unwrap());
    let fixed = |name: &str, price| PriceEntry::new(sku(name), per_unit(price));
    let refused = |pricing: PriceTerms, param: &str| {
        let error = terms(Some(pricing)).validate().expect_err(param);
        assert_eq!(error.param_name(), Some(param), "{error}");
    };
    refused(PriceTerms::default(), "pricing");
    refused(discounts(vec![off(device("cpu"), 1_000_001)]), "pricing.discounts[0]");
    refused(discounts(vec![off(device("cpu"), 1), off(device("cpu"), 2)]), "pricing.discounts[1]");
    // Of device/n0/cpu both say something, and neither is more exact.
    let notice = off(Discounted::Notice(NoticeClass::N0), 1);
    refused(discounts(vec![notice.clone(), off(device("cpu"), 2)]), "pricing.discounts[1]");
    let exact = off(Discounted::Sku(sku("device/n0/cpu")), 3);
    terms(Some(discounts(vec![notice.clone(), off(device("cpu"), 2), exact.clone()]))).validate().unwrap();
    let named = PriceTerms { fixed: vec![fixed("device/n0/cpu", 1)], ..discounts(vec![notice, off(device("cpu"), 2)]) };
    terms(Some(named)).validate().unwrap();
    refused(PriceTerms { fixed: vec![fixed("device/n0/cpu", 1)], ..discounts(vec![exact]) }, "pricing.discounts[0]");
    let twice = vec![fixed("device/n0/cpu", 1), fixed("device/n0/cpu", 2)];
    refused(PriceTerms { fixed: twice, ..PriceTerms::default() }, "pricing.fixed[1]");
    refused(PriceTerms { fixed: vec![fixed("device/n0/cpu", -1)], ..PriceTerms::default() }, "pricing.fixed[0]");
    let many = (0..=DISCOUNTS_MAX).map(|index| off(device(&format!("k{index}")), 1)).collect();
    refused(discounts(many), "pricing.discounts");
    let protection = PriceProtection { list: public(&[1; 8]).version().clone(), until: Some(month("2026-12")) };
    refused(PriceTerms { protection: Some(protection), ..PriceTerms::default() }, "pricing.protection.until");
}

#[test]
fn a_fixed_price_is_the_price_of_what_is_sold_and_of_nothing_else() {
    let pricing = PriceTerms {
        fixed: vec![
            PriceEntry::new(sku("tokens/output/m"), per_unit(7)),
            PriceEntry::new(sku("tokens/output/unsold"), per_unit(7)),
            PriceEntry::new(sku("device/firm/cpu"), per_unit(7)),
        ],
        ..discounts(vec![off(Discounted::Family(SkuFamily::ModelTokens), 500_000)])
    };
    let own = made(&public(&[100; 8]), Some(&public(&[1; 8])), &agreed(pricing));
    assert_eq!((price(&own, "tokens/output/m"), price(&own, "tokens/input/m")), (7, 0));
    assert_eq!(own.entries().count(), SKUS.len());
}

#[test]
fn every_amount_of_a_price_is_reduced() {
    let bands = json!({ "zone": "UTC", "bands": [{ "name": "night",
        "windows": [{ "days": ["mon"], "from": "00:00", "until": "06:00" }], "model": { "type": "package", "size": 10, "price": "1" } }] });
    let tiers = [(Some(10), 500_000_001), (None, 3)]
        .map(|(up_to, price)| Tier { up_to: up_to.map(|bound| Quantity::new(bound).unwrap()), price: Nanos::new(price) });
    let model = PriceModel::Minimum { least: Nanos::new(9), of: Box::new(PriceModel::Volume { tiers: tiers.to_vec() }) };
    let dear = PriceEntry { time_of_use: serde_json::from_value(bands).unwrap(), ..PriceEntry::new(sku("device/n0/cpu"), model) };
    let mut all = entries(&[1; 8]);
    all[6] = dear;
    let half = discounts(vec![off(Discounted::Family(SkuFamily::DeviceTime), 500_000)]);
    let own = made(&list(all, 0), None, &agreed(half));
    let found = serde_json::to_value(own.get(&sku("device/n0/cpu")).unwrap()).unwrap();
    // 250,000,000.5 and 1.5 and 4.5 go to the even one of two.
    assert_eq!(
        found["model"],
        json!({ "type": "minimum", "least": "0.000000004", "of": { "type": "volume", "tiers": [
        { "up_to": 10, "price": "0.25" }, { "price": "0.000000002" }] } })
    );
    assert_eq!(found["time_of_use"]["bands"][0]["model"]["price"], json!("0.5"));
}

#[test]
fn a_version_says_what_it_was_made_from_and_is_made_again_from_it() {
    let (public, old) = (public(&[100; 8]), list(entries(&[90; 8]), -5));
    let mut pricing = discounts(vec![off(Discounted::Model("m".parse().unwrap()), 200_000)]);
    pricing.protection = Some(PriceProtection { list: old.version().clone(), until: Some(month("2034-01")) });
    let terms = agreed(pricing);
    let own = made(&public, Some(&old), &terms);
    assert_eq!((price(&own, "tokens/output/m"), price(&own, "device/n0/cpu")), (72, 90));
    let read = PriceListVersion::from_canonical(own.canonical(), own.version()).unwrap();
    assert_eq!((&read, read.source()), (&own, own.source()));
    let from = Sources { public: &public, protected: Some(&old), terms: &terms };
    let verified = |own: &PriceListVersion, at: &str, from| verify_contract_prices(own, month(at), from);
    verified(&own, "2033-05", from).unwrap();
    // Other sources, another month, or another price.
    assert!(verified(&own, "2033-05", Sources { protected: None, ..from }).is_err());
    assert!(verified(&own, "2034-02", from).is_err(), "it is not protected any more");
    assert!(verified(&own, "2026-12", from).is_err(), "it is before the terms");
    let later = list(entries(&[100; 8]), 2_000_000_001);
    assert!(verified(&own, "2033-05", Sources { public: &later, ..from }).is_err());
    let dearer: Vec<_> =
        own.entries().map(|entry| entry.with_amounts(&|amount| amount.checked_add(Nanos::new(1))).unwrap()).collect();
    let (id, currency, effective_at) = (own.list().clone(), own.currency(), own.effective_at());
    let draft = PriceListDraft { list: id, currency, effective_at, entries: dearer };
    let forged = PriceListVersion::of_contract(draft, own.source().unwrap().clone()).unwrap();
    assert!(verified(&forged, "2033-05", from).is_err());
    // Prices by contract are made from public ones only.
    assert!(contract_prices(own.list().clone(), own.effective_at(), Sources { public: &own, ..from }).is_err());
}

/// The tempting way: what an event costs by the list, reduced, each event or all of them together.
fn naive(public: i64, off_ppm: u32, events: &[i64]) -> (i64, i64) {
    let version = list(entries(&[1, 1, public, 1, 1, 1, 1, 1]), 0);
    let model = &version.get(&sku("tokens/output/m")).unwrap().model;
    let cost = |count: i64| {
        let quantity = Quantity::new(count).unwrap();
        model.exact_cost(crate::sku::PricingUnit::MillionTokens, quantity).unwrap().half_even().unwrap()
    };
    let each = events.iter().map(|count| reduced(cost(*count), off_ppm).unwrap().get()).sum();
    (each, reduced(cost(events.iter().sum()), off_ppm).unwrap().get())
}

#[test]
fn discounts_on_events_or_on_the_total_are_another_bill() {
    let terms = agreed(discounts(vec![off(Discounted::Model("m".parse().unwrap()), 150_000)]));
    let own = made(&list(entries(&[1, 1, 333_333, 1, 1, 1, 1, 1]), 0), None, &terms);
    // 0.85 of 333,333 for a million, as a price: 283,333 exactly 283,333.05.
    assert_eq!(price(&own, "tokens/output/m"), 283_333);
    let events: Vec<i64> = vec![7; 1_000];
    let unit = crate::sku::PricingUnit::MillionTokens;
    let right = own.get(&sku("tokens/output/m")).unwrap().model.exact_cost(unit, Quantity::new(7_000).unwrap()).unwrap();
    assert_eq!(right.half_even().unwrap().get(), 1_983);
    assert_eq!(naive(333_333, 150_000, &events), (2_000, 1_983), "17 nano-units too many in a thousand events");
    // On the total it differs as soon as the price of a unit is what people read: 20,000 million tokens.
    let many = own.get(&sku("tokens/output/m")).unwrap().model.exact_cost(unit, Quantity::new(20_000_000_000).unwrap()).unwrap();
    assert_eq!(many.half_even().unwrap().get(), 20_000 * 283_333);
    assert_eq!(naive(333_333, 150_000, &[20_000_000_000]).1, 20_000 * 283_333 + 1_000);
}

fn plan(agreement: &Agreement, list: &PriceList, now: Timestamp) -> Vec<(String, Option<PriceSource>)> {
    let calendar = BillingCalendar::new("Europe/Berlin").unwrap();
    let planned = plan_prices(agreement, list, &calendar, now).unwrap();
    planned.into_iter().map(|planned| (planned.starts_at.to_string().replace(".000000", ""), planned.source)).collect()
}

#[test]
fn prices_change_with_months_and_with_versions_of_the_list() {
    let instant = |text: &str| BillingCalendar::new("UTC").unwrap().period(month(text)).unwrap().interval.starts_at;
    let first = list(entries(&[100; 8]), 0);
    let second = list(entries(&[120; 8]), instant("2027-05").micros() / 1_000_000);
    let mut book = PriceList::new("plist_public".parse().unwrap(), "list".to_owned(), Currency::EUR);
    book.publish(first.clone(), Timestamp::EPOCH).unwrap();
    let mut pricing = discounts(vec![off(Discounted::Model("m".parse().unwrap()), 200_000)]);
    pricing.protection = Some(PriceProtection { list: first.version().clone(), until: Some(month("2027-08")) });
    let (one, other) = (agreed(pricing), TermsVersion::new(month("2027-07"), terms(None)).unwrap());
    let source = |list: &PriceListVersion, protected: bool| {
        let protected = protected.then(|| first.version().clone());
        Some(PriceSource { list: list.version().clone(), protected, terms: one.hash.clone() })
    };
    let alone = Agreement::new(vec![one.clone()], None).unwrap();
    let begin = ("2026-12-31T23:00:00Z", source(&first, true));
    let end = ("2027-12-31T23:00:00Z", None);
    let expect = |found: Vec<(String, Option<PriceSource>)>, expected: &[(&str, Option<PriceSource>)]| {
        let found: Vec<_> = found.iter().map(|(at, source)| (at.as_str(), source.clone())).collect();
        assert_eq!(found, expected);
    };
    let now = instant("2026-11");
    let before = ("2026-11-01T00:00:00Z", None);
    expect(
        plan(&alone, &book, now),
        &[before.clone(), begin.clone(), ("2027-08-31T22:00:00Z", source(&first, false)), end.clone()],
    );
    book.publish(second.clone(), Timestamp::EPOCH).unwrap();
    let may = ("2027-05-01T00:00:00Z", source(&second, true));
    let unprotected = ("2027-08-31T22:00:00Z", source(&second, false));
    expect(plan(&alone, &book, now), &[before.clone(), begin.clone(), may.clone(), unprotected.clone(), end.clone()]);
    // From the middle of a month on.
    let june = instant("2027-06");
    expect(plan(&alone, &book, june), &[("2027-06-01T00:00:00Z", source(&second, true)), unprotected, end]);
    // An amendment without prices ends them, and so does leaving.
    let amended = Agreement::new(vec![one.clone(), other], None).unwrap();
    expect(plan(&amended, &book, now), &[before.clone(), begin.clone(), may.clone(), ("2027-06-30T22:00:00Z", None)]);
    let left = Notice { last_month: month("2027-06"), fee: Nanos::ZERO };
    let left = Agreement::new(vec![one], Some(left)).unwrap();
    expect(plan(&left, &book, now), &[before, begin, may, ("2027-06-30T22:00:00Z", None)]);
    assert_eq!(plan(&left, &book, instant("2027-08")), [("2027-08-01T00:00:00Z".to_owned(), None)]);
}

#[test]
fn a_contract_s_list_has_the_contract_s_name() {
    assert_eq!(list_of(&"ctr_01abc".parse().unwrap()).unwrap().as_str(), "plist_01abc");
}

proptest! {
    #[test]
    fn a_discount_never_makes_dearer_and_more_of_it_never_less_cheap(
        amount in 0_i64..=i64::MAX, less in 0_u32..=WHOLE_PPM, more in 0_u32..=WHOLE_PPM,
    ) {
        let (less, more) = (less.min(more), less.max(more));
        let (dear, cheap) = (reduced(Nanos::new(amount), less).unwrap(), reduced(Nanos::new(amount), more).unwrap());
        prop_assert!(Nanos::ZERO <= cheap && cheap <= dear && dear <= Nanos::new(amount));
        // What is exact is exact.
        let exact = i128::from(amount) * i128::from(WHOLE_PPM - less);
        prop_assert!((i128::from(dear.get()) * i128::from(WHOLE_PPM) - exact).abs() * 2 <= i128::from(WHOLE_PPM));
    }

    #[test]
    fn so_many_times_the_list_is_so_many_times_the_contract(
        prices in proptest::array::uniform8(0_i64..1_000_000), times in 1_i64..1_000, percent in 0_u32..=100,
    ) {
        // Prices in hundreds, so that each percentage is exact.
        let scaled = |times: i64| public(&prices.map(|price| price * 100 * times));
        let terms = agreed(discounts(vec![
            off(Discounted::Family(SkuFamily::ModelTokens), percent * 10_000),
            off(Discounted::Device("cpu".parse().unwrap()), 250_000),
        ]));
        let (one, many) = (made(&scaled(1), None, &terms), made(&scaled(times), None, &terms));
        for name in SKUS {
            prop_assert_eq!(price(&one, name) * times, price(&many, name), "{}", name);
        }
    }

    #[test]
    fn protected_prices_are_at_most_both(
        now in proptest::array::uniform8(0_i64..1_000), then in proptest::array::uniform8(0_i64..1_000), off_ppm in 0_u32..=WHOLE_PPM,
    ) {
        let (now, then) = (public(&now), list(entries(&then), -1));
        let mut pricing = discounts(vec![off(Discounted::Family(SkuFamily::ModelTokens), off_ppm)]);
        pricing.protection = Some(PriceProtection { list: then.version().clone(), until: None });
        let terms = agreed(pricing);
        let own = made(&now, Some(&then), &terms);
        for name in SKUS {
            let least = price(&now, name).min(price(&then, name));
            prop_assert!(price(&own, name) <= least);
            if name.starts_with("device") {
                prop_assert_eq!(price(&own, name), least);
            }
        }
        // The same from prices in another order, hash and all.
        let mut reversed: Vec<_> = now.entries().cloned().collect();
        reversed.reverse();
        prop_assert_eq!(made(&list(reversed, 0), Some(&then), &terms), own);
    }
}

#[test]
fn a_flat_price_is_by_contract_what_the_terms_make_of_it() {
    let flat = |price| {
        let mut all = entries(&[10, 10, 10, 10, 10, 10, 10, 10]);
        all.push(PriceEntry::new(sku("requests/default/m"), per_unit(price)));
        list(all, 0)
    };
    let (with, without) = (flat(100), public(&[10, 10, 10, 10, 10, 10, 10, 10]));
    let protected = |list: &PriceListVersion| PriceTerms {
        protection: Some(PriceProtection { list: list.version().clone(), until: None }),
        ..PriceTerms::default()
    };
    let fixed = |terms| PriceTerms { fixed: vec![PriceEntry::new(sku("requests/default/m"), per_unit(70))], ..terms };
    let asked = |terms: PriceTerms, public: &PriceListVersion, protected: Option<&PriceListVersion>| {
        let made = made(public, protected, &agreed(terms));
        made.find(&sku("requests/default/m")).map(|entry| entry.model.clone())
    };
    let model = Discounted::Model("m".parse().unwrap());
    assert_eq!(asked(discounts(vec![off(model, 250_000)]), &with, None), Some(per_unit(75)));
    assert_eq!(asked(discounts(vec![off(Discounted::Family(SkuFamily::ModelRequests), 500_000)]), &with, None), Some(per_unit(50)));
    assert_eq!(asked(discounts(vec![off(Discounted::Family(SkuFamily::ModelTokens), 500_000)]), &with, None), Some(per_unit(100)));
    // It came later than the prices that are protected: they had none.
    assert_eq!(asked(protected(&without), &with, Some(&without)), None);
    assert_eq!(asked(fixed(protected(&without)), &with, Some(&without)), Some(per_unit(70)));
    assert_eq!(asked(protected(&flat(60)), &with, Some(&flat(60))), Some(per_unit(60)));
    // What was not sold then has no price to protect.
    let devices = list(vec![PriceEntry::new(sku("device/n0/cpu"), per_unit(10))], 0);
    assert_eq!(asked(protected(&devices), &with, Some(&devices)), Some(per_unit(100)));
}

#[test]
fn files_are_asked_for_by_contract_unless_their_prices_came_later_than_protected_ones() {
    let device = || PriceEntry::new(sku("device/n0/cpu"), per_unit(10));
    let files = |price| ["storage/files", "egress/files"].map(|name| PriceEntry::new(sku(name), per_unit(price)));
    let with = |price| list([vec![device()], files(price).to_vec()].concat(), 0);
    let without = list(vec![device()], 0);
    let protected = |list: &PriceListVersion| PriceTerms {
        protection: Some(PriceProtection { list: list.version().clone(), until: None }),
        ..PriceTerms::default()
    };
    let on = |family| discounts(vec![off(Discounted::Family(family), 500_000)]);
    for (name, family) in [("storage/files", SkuFamily::FileStorage), ("egress/files", SkuFamily::FileEgress)] {
        let asked = |terms, protected: Option<&PriceListVersion>| {
            let own = made(&with(100), protected, &agreed(terms));
            own.find(&sku(name)).map(|entry| entry.model.clone())
        };
        assert_eq!(asked(on(family), None), Some(per_unit(50)));
        assert_eq!(asked(on(SkuFamily::ModelTokens), None), Some(per_unit(100)));
        assert_eq!(asked(protected(&without), Some(&without)), None);
        assert_eq!(asked(protected(&with(60)), Some(&with(60))), Some(per_unit(60)));
    }
}

#[test]
fn a_start_is_asked_for_as_its_time_is_unless_it_came_later_than_protected_prices() {
    let device = |name| PriceEntry::new(sku(name), per_unit(10));
    let start = |price| PriceEntry::new(sku("starts/cpu"), per_unit(price));
    let with = |price| list(vec![device("device/n0/cpu"), start(price)], 0);
    let (without, other) = (list(vec![device("device/n0/cpu")], 0), list(vec![device("device/n0/a100")], 0));
    let asked = |terms, protected: Option<&PriceListVersion>| {
        let own = made(&with(100), protected, &agreed(terms));
        own.find(&sku("starts/cpu")).map(|entry| entry.model.clone())
    };
    let on = |on| discounts(vec![off(on, 500_000)]);
    let device = |name: &str| Discounted::Device(name.parse().unwrap());
    assert_eq!(asked(on(Discounted::Family(SkuFamily::JobStarts)), None), Some(per_unit(50)));
    assert_eq!(asked(on(device("cpu")), None), Some(per_unit(50)));
    assert_eq!(asked(on(Discounted::Sku(sku("starts/cpu"))), None), Some(per_unit(50)));
    for others in [device("a100"), Discounted::Notice(NoticeClass::N0), Discounted::Family(SkuFamily::DeviceTime)] {
        assert_eq!(asked(on(others), None), Some(per_unit(100)));
    }
    let protected = |list: &PriceListVersion| PriceTerms {
        protection: Some(PriceProtection { list: list.version().clone(), until: None }),
        ..PriceTerms::default()
    };
    assert_eq!(asked(protected(&without), Some(&without)), None);
    assert_eq!(asked(protected(&with(60)), Some(&with(60))), Some(per_unit(60)));
    assert_eq!(asked(protected(&other), Some(&other)), Some(per_unit(100)), "its time was not sold then");
}
