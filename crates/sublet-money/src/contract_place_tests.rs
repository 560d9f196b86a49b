//! Prices by contract of device time that is priced by its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use sublet_core::Currency;
use sublet_core::id::SiteId;
use sublet_core::runner::IsolationLevel;

use super::*;
use crate::contract::{Commitment, ContractTerms};
use crate::price_model::PriceModel;

const GENERAL: &str = "device/n2m/h100";
const AT_A: &str = "device/site_a/n2m/h100";
const APART: &str = "device/sandbox/n2m/h100";
const BOTH: &str = "device/site_a/sandbox/n2m/h100";

fn sku(text: &str) -> SkuName {
    text.parse().unwrap()
}
fn priced(prices: &BTreeMap<SkuName, i64>) -> Vec<PriceEntry> {
    prices.iter().map(|(name, price)| PriceEntry::new(name.clone(), PriceModel::PerUnit { price: Nanos::new(*price) })).collect()
}
fn by_name(prices: &[(&str, i64)]) -> BTreeMap<SkuName, i64> {
    prices.iter().map(|(name, price)| (sku(name), *price)).collect()
}
fn list(prices: &BTreeMap<SkuName, i64>, from: i64) -> Arc<PriceListVersion> {
    let (list, currency) = ("plist_public".parse().unwrap(), Currency::EUR);
    let effective_at = Timestamp::from_seconds(from);
    Arc::new(PriceListVersion::new(PriceListDraft { list, currency, effective_at, entries: priced(prices) }).unwrap())
}

fn terms(pricing: PriceTerms) -> Result<TermsVersion> {
    let terms = ContractTerms {
        billed: None,
        commitments: vec![Commitment { amount: Nanos::ZERO, from_period: 1 }],
        covers: [SkuFamily::ModelTokens].into(),
        currency: Currency::EUR,
        exit: None,
        fee: None,
        months: 12,
        payment: None,
        period_months: 1,
        pricing: Some(pricing),
        quantities: None,
        renewal: None,
        roll_over_periods: 0,
        starts: "2027-01".parse().unwrap(),
    };
    TermsVersion::new(terms.starts, terms)
}
fn pricing(fixed: &BTreeMap<SkuName, i64>, discounts: &BTreeMap<SkuName, u32>) -> PriceTerms {
    let discounts = discounts.iter().map(|(name, off_ppm)| Discount { off_ppm: *off_ppm, on: Discounted::Sku(name.clone()) });
    PriceTerms { fixed: priced(fixed), discounts: discounts.collect(), protection: None }
}
fn made(public: &PriceListVersion, protected: Option<&PriceListVersion>, pricing: PriceTerms) -> PriceListVersion {
    let terms = terms(pricing).unwrap();
    contract_prices(
        "plist_own".parse().unwrap(),
        Timestamp::from_seconds(2_000_000_000),
        Sources { public, protected, terms: &terms },
    )
    .unwrap()
}
fn shown(version: &PriceListVersion) -> Vec<(String, i64)> {
    version.entries().map(|entry| (entry.sku.to_string(), entry.model.prices()[0].get())).collect()
}
fn pairs(pairs: &[(&str, i64)]) -> Vec<(String, i64)> {
    pairs.iter().map(|(name, price)| ((*name).to_owned(), *price)).collect()
}

#[test]
fn what_is_agreed_of_a_kind_is_agreed_of_all_its_places() {
    let public = list(&by_name(&[(GENERAL, 1_000), (AT_A, 2_000)]), 0);
    let off = |on: Discounted| PriceTerms { discounts: vec![Discount { off_ppm: 100_000, on }], ..PriceTerms::default() };
    let all = pairs(&[(GENERAL, 900), (AT_A, 1_800)]);
    for on in [
        Discounted::Sku(sku(GENERAL)),
        Discounted::Device("h100".parse().unwrap()),
        Discounted::Notice(NoticeClass::N2m),
        Discounted::Family(SkuFamily::DeviceTime),
    ] {
        assert_eq!(shown(&made(&public, None, off(on.clone()))), all, "{on}");
    }
    let here = shown(&made(&public, None, off(Discounted::Sku(sku(AT_A)))));
    assert_eq!(here, pairs(&[(GENERAL, 1_000), (AT_A, 1_800)]));
    // A fixed price of the kind is that of its places, on one line.
    let fixed = made(&public, None, pricing(&by_name(&[(GENERAL, 700)]), &BTreeMap::new()));
    assert_eq!(shown(&fixed), pairs(&[(GENERAL, 700)]));
    let there = made(&public, None, pricing(&by_name(&[("device/site_b/n2m/h100", 700)]), &BTreeMap::new()));
    assert_eq!(shown(&there), pairs(&[(GENERAL, 1_000), (AT_A, 2_000), ("device/site_b/n2m/h100", 700)]));
    // What the list does not sell is not sold by contract.
    let only_a = list(&by_name(&[(AT_A, 2_000)]), 0);
    let fixed = made(&only_a, None, pricing(&by_name(&[(GENERAL, 700)]), &BTreeMap::new()));
    assert_eq!(shown(&fixed), pairs(&[(AT_A, 700)]));
}

#[test]
fn a_fixed_price_holds_where_another_price_meets_it() {
    let public = list(&by_name(&[(GENERAL, 1_000), (AT_A, 2_000)]), 0);
    let own = made(&public, None, pricing(&by_name(&[(APART, 700)]), &BTreeMap::new()));
    assert_eq!(shown(&own), pairs(&[(GENERAL, 1_000), (APART, 700), (AT_A, 2_000), (BOTH, 700)]));
    let own = made(&public, None, pricing(&by_name(&[(GENERAL, 500), (APART, 700)]), &BTreeMap::new()));
    assert_eq!(shown(&own), pairs(&[(GENERAL, 500), (APART, 700)]));
}

#[test]
fn a_new_price_of_a_place_is_not_above_the_protected_one_that_was_its_price() {
    let (before, now) = (by_name(&[(GENERAL, 1_000)]), by_name(&[(GENERAL, 900), (AT_A, 2_000)]));
    let protection = |list: &PriceListVersion| PriceTerms {
        protection: Some(PriceProtection { list: list.version().clone(), until: None }),
        ..PriceTerms::default()
    };
    let (old, new) = (list(&before, 0), list(&now, 1));
    assert_eq!(shown(&made(&new, Some(&old), protection(&old))), pairs(&[(GENERAL, 900), (AT_A, 1_000)]));
    // A place that was cheaper stays so, though the list does not name it any more.
    let (old, new) = (list(&by_name(&[(GENERAL, 1_000), (AT_A, 600)]), 0), list(&before, 1));
    assert_eq!(shown(&made(&new, Some(&old), protection(&old))), pairs(&[(GENERAL, 1_000), (AT_A, 600)]));
}

fn per_package(name: &str, price: i64) -> PriceEntry {
    let size = crate::sku::Quantity::new(3_600_000).unwrap();
    PriceEntry::new(sku(name), PriceModel::Package { size, price: Nanos::new(price) })
}
fn listed(entries: Vec<PriceEntry>, from: i64) -> PriceListVersion {
    let (list, currency) = ("plist_public".parse().unwrap(), Currency::EUR);
    PriceListVersion::new(PriceListDraft { list, currency, effective_at: Timestamp::from_seconds(from), entries }).unwrap()
}

#[test]
fn a_fixed_price_by_quantity_is_on_one_line_or_refused() {
    let packages = |name: &str| PriceTerms { fixed: vec![per_package(name, 700)], ..PriceTerms::default() };
    let places = list(&by_name(&[(AT_A, 1), ("device/site_b/n2m/h100", 2)]), 0);
    let made_of = |public: &PriceListVersion, pricing| {
        let terms = terms(pricing).unwrap();
        let from = Sources { public, protected: None, terms: &terms };
        contract_prices("plist_own".parse().unwrap(), Timestamp::from_seconds(2_000_000_000), from)
    };
    let error = made_of(&places, packages(GENERAL)).unwrap_err();
    assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some("pricing.fixed")), "{error}");
    assert_eq!(error.alternatives()[1], format!("price {GENERAL} in the list too"));
    let with_general = list(&by_name(&[(GENERAL, 3), (AT_A, 1)]), 0);
    assert_eq!(shown(&made_of(&with_general, packages(GENERAL)).unwrap()), pairs(&[(GENERAL, 700)]));
    let only_a = list(&by_name(&[(AT_A, 1)]), 0);
    assert_eq!(shown(&made_of(&only_a, packages(GENERAL)).unwrap()), pairs(&[(AT_A, 700)]));
    // Where a price of a site meets that of an isolation they would be two lines.
    let error = made_of(&with_general, packages(APART)).unwrap_err();
    assert_eq!(error.alternatives(), ["agree on a price per unit, or on a fixed price for each of them"]);
    let each = PriceTerms { fixed: vec![per_package(APART, 700), per_package(BOTH, 800)], ..PriceTerms::default() };
    let own = made_of(&with_general, each).unwrap();
    assert_eq!(shown(&own), pairs(&[(GENERAL, 3), (APART, 700), (AT_A, 1), (BOTH, 800)]));
}

#[test]
fn a_new_price_of_a_place_splits_no_protected_price_by_quantity() {
    let old = listed(vec![per_package(GENERAL, 1_000)], 0);
    let new = listed([(GENERAL, 1_000), (AT_A, 900)].map(|(name, price)| per_package(name, price)).into(), 1);
    let protection = Some(PriceProtection { list: old.version().clone(), until: None });
    let protected = |off: Option<(&str, u32)>| {
        let discounts = off.into_iter().map(|(name, off_ppm)| Discount { off_ppm, on: Discounted::Sku(sku(name)) });
        PriceTerms { protection: protection.clone(), discounts: discounts.collect(), ..PriceTerms::default() }
    };
    // An hour in all is a package, wherever its halves were used.
    assert_eq!(shown(&made(&new, Some(&old), protected(None))), pairs(&[(GENERAL, 1_000)]));
    assert_eq!(shown(&made(&new, Some(&old), protected(Some((GENERAL, 100_000))))), pairs(&[(GENERAL, 900)]));
    // What is agreed of the place alone is a line of its own.
    let apart = made(&new, Some(&old), protected(Some((AT_A, 100_000))));
    assert_eq!(shown(&apart), pairs(&[(GENERAL, 1_000), (AT_A, 810)]));
    // Where prices of a site and of an isolation meet there is a line for both.
    let old = listed([(GENERAL, 5), (AT_A, 1_000)].map(|(name, price)| per_package(name, price)).into(), 0);
    let fixed = PriceTerms {
        fixed: vec![PriceEntry::per_unit(sku(APART), Nanos::new(1))],
        protection: Some(PriceProtection { list: old.version().clone(), until: None }),
        ..PriceTerms::default()
    };
    assert_eq!(shown(&made(&old, Some(&old), fixed)), pairs(&[(GENERAL, 5), (APART, 1), (AT_A, 1_000), (BOTH, 1)]));
}

#[test]
fn a_list_by_contract_may_name_more_places_than_a_public_one_has_prices() {
    use crate::price_book::{CONTRACT_ENTRIES_MAX, ENTRIES_MAX};
    let sites = (0..ENTRIES_MAX - 1).map(|site| (sku(&format!("device/site_{site}/n2m/h100")), 2));
    let public = list(&sites.chain([(sku(GENERAL), 1)]).collect(), 0);
    let own = made(&public, None, pricing(&by_name(&[(APART, 700)]), &BTreeMap::new()));
    // Each site has a price for what is kept apart, too.
    assert_eq!(own.entries().count(), 2 * ENTRIES_MAX);
    assert!(own.entries().count() <= CONTRACT_ENTRIES_MAX);
    let again = PriceListVersion::from_canonical(own.canonical(), own.version()).unwrap();
    assert_eq!(again, own);
}

#[test]
fn terms_that_leave_open_which_price_holds_are_refused() {
    let none = BTreeMap::new();
    let error = terms(pricing(&by_name(&[(AT_A, 1), (APART, 2)]), &BTreeMap::new())).unwrap_err();
    assert_eq!((error.param_name(), error.alternatives()[0].as_str()), (Some("pricing.fixed"), &*format!("price {BOTH} too")));
    let discounts: BTreeMap<SkuName, u32> = [(sku(AT_A), 1), (sku(APART), 2)].into();
    let error = terms(pricing(&none, &discounts)).unwrap_err();
    assert_eq!(error.param_name(), Some("pricing.discounts"), "{error}");
    assert_eq!(error.alternatives(), [format!("add a discount on {BOTH} itself")]);
    let named = discounts.iter().map(|(name, off)| (name.clone(), *off)).chain([(sku(BOTH), 3)]).collect();
    terms(pricing(&none, &named)).unwrap();
    terms(pricing(&by_name(&[(BOTH, 1)]), &discounts)).unwrap();
    // A discount on what has a fixed price would do nothing.
    let error = terms(pricing(&by_name(&[(GENERAL, 1)]), &[(sku(AT_A), 1)].into())).unwrap_err();
    assert_eq!(error.param_name(), Some("pricing.discounts[0]"), "{error}");
}

fn names() -> impl Strategy<Value = Vec<SkuName>> {
    let all: Vec<SkuName> = [None, Some("site_a"), Some("site_b")]
        .into_iter()
        .flat_map(|site| [None, Some(IsolationLevel::Process), Some(IsolationLevel::Sandbox)].map(|level| (site, level)))
        .map(|(site, isolation)| SkuName::Device {
            notice: NoticeClass::N2m,
            device: "h100".parse().unwrap(),
            site: site.map(|site| site.parse().unwrap()),
            isolation,
        })
        .collect();
    proptest::sample::subsequence(all, 0..=9)
}

/// Prices of names that leave nothing open.
fn prices(least: usize) -> impl Strategy<Value = BTreeMap<SkuName, i64>> {
    (names(), proptest::collection::vec(1_i64..100, 9)).prop_filter_map("too few", move |(names, prices)| {
        let closed = closed(&names.into_iter().collect());
        (closed.len() >= least).then(|| closed.into_iter().zip(prices).collect())
    })
}

fn most_exact<'a, T>(said: &'a BTreeMap<SkuName, T>, place: &SkuName) -> Option<&'a T> {
    said.iter().filter(|(name, _)| name.covers(place)).max_by_key(|(name, _)| name.exactness()).map(|(_, said)| said)
}

proptest! {
    #[test]
    fn every_place_has_the_price_that_its_rules_say(
        public in prices(1), protected in proptest::option::of(prices(1)), fixed in prices(0), off in prices(0),
    ) {
        let discounts: BTreeMap<SkuName, u32> = off.iter()
            .filter(|(name, _)| most_exact(&fixed, name).is_none())
            .map(|(name, off)| (name.clone(), u32::try_from(*off).unwrap() * 10_000)).collect();
        let mut pricing = pricing(&fixed, &discounts);
        let (now, before) = (list(&public, 1), protected.as_ref().map(|protected| list(protected, 0)));
        pricing.protection = before.as_ref().map(|list| PriceProtection { list: list.version().clone(), until: None });
        prop_assume!(pricing != PriceTerms::default());
        // Discounts that a fixed price took away may leave others open.
        prop_assume!(terms(pricing.clone()).is_ok());
        let own = made(&now, before.as_deref(), pricing);
        for (site, level) in ["site_a", "site_b", "site_c"].iter().flat_map(|site| IsolationLevel::ALL.map(|level| (*site, level))) {
            let place = sku(GENERAL).placed(&site.parse::<SiteId>().unwrap(), level);
            let sold = most_exact(&public, &place);
            let kept = protected.as_ref().and_then(|protected| most_exact(protected, &place));
            let off = most_exact(&discounts, &place).copied().unwrap_or(0);
            let expected = sold.map(|sold| match most_exact(&fixed, &place) {
                Some(fixed) => *fixed,
                None => reduced(Nanos::new(kept.map_or(*sold, |kept| *kept.min(sold))), off).unwrap().get(),
            });
            let found = own.resolve(&place).map(|entry| entry.model.prices()[0].get());
            prop_assert_eq!(found, expected, "{}", place);
        }
    }
}
