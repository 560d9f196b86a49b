use proptest::prelude::*;
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Nanos, Timestamp};

use super::*;
use crate::price_book::{PriceEntry, PriceListDraft, PriceListVersion};
use crate::sku::TokenKind;

fn sku(name: &str) -> SkuName {
    name.parse().unwrap()
}

fn list(names: &[SkuName]) -> Result<PriceListVersion> {
    let price = |(index, name): (usize, &SkuName)| PriceEntry::per_unit(name.clone(), Nanos::new(i64::try_from(index).unwrap()));
    let entries = names.iter().enumerate().map(price).collect();
    let draft =
        PriceListDraft { list: "plist_1".parse().unwrap(), currency: Currency::EUR, effective_at: Timestamp::EPOCH, entries };
    PriceListVersion::new(draft)
}

/// Names of models and kinds, among them those that look like the parts before them.
fn free_name() -> impl Strategy<Value = String> {
    let words = ["h100", "n2m", "site_a", "sandbox", "flex", "input", "default", "?site=x", "a=b&c", "%2F", "month"];
    let word = prop_oneof![proptest::sample::select(words.to_vec()).prop_map(str::to_owned), "[!-~]{1,12}"];
    proptest::collection::vec(word, 1..4).prop_map(|words| words.join("/"))
}

fn site() -> impl Strategy<Value = Option<SiteId>> {
    proptest::option::of("site_[a-z0-9]{1,8}".prop_map(|name| name.parse().unwrap()))
}

fn any_name() -> impl Strategy<Value = SkuName> {
    let (tier, kind) = (proptest::sample::select(&ServiceTier::ALL[..]), proptest::sample::select(&TokenKind::ALL[..]));
    let notice = proptest::sample::select(&NoticeClass::ALL[..]);
    let isolation = proptest::option::of(proptest::sample::select(&IsolationLevel::ALL[..]));
    prop_oneof![
        (tier.clone(), kind, free_name()).prop_map(|(tier, kind, model)| SkuName::Tokens {
            tier,
            kind,
            model: model.parse().unwrap()
        }),
        (tier, free_name()).prop_map(|(tier, model)| SkuName::Requests { tier, model: model.parse().unwrap() }),
        (notice, free_name(), site(), isolation).prop_map(|(notice, device, site, isolation)| SkuName::Device {
            notice,
            device: device.parse().unwrap(),
            site,
            isolation
        }),
        Just(SkuName::ProjectMonth),
        free_name().prop_map(|fee| SkuName::Fee { fee: fee.parse().unwrap() }),
    ]
}

/// Names of one kind at three sites and all levels, so that many of them cover another.
fn near_name() -> impl Strategy<Value = SkuName> {
    let sites = [None, Some("site_a"), Some("site_b"), Some("site_c")];
    let levels = [None, Some(IsolationLevel::Process), Some(IsolationLevel::Sandbox)];
    let kinds = ["h100", "site_a/n2m/h100"];
    (proptest::sample::select(sites.to_vec()), proptest::sample::select(levels.to_vec()), proptest::sample::select(kinds.to_vec()))
        .prop_map(|(site, isolation, kind)| SkuName::Device {
            notice: NoticeClass::N2m,
            device: kind.parse().unwrap(),
            site: site.map(|site| site.parse().unwrap()),
            isolation,
        })
}

proptest! {
    #[test]
    fn every_name_has_one_text_and_the_text_is_its_own(name in any_name(), other in any_name()) {
        let text = name.to_string();
        prop_assert_eq!(&text.parse::<SkuName>().unwrap(), &name);
        prop_assert_eq!(name == other, text == other.to_string());
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
        let json = serde_json::to_string(&name).unwrap();
        prop_assert_eq!(serde_json::from_str::<SkuName>(&json).unwrap(), name);
    }

    #[test]
    fn covering_is_an_order_and_what_two_have_in_common_is_the_most_that_both_cover(
        one in near_name(), other in near_name(), third in near_name(),
    ) {
        prop_assert!(one.covers(&one));
        prop_assert!(!(one.covers(&other) && other.covers(&one)) || one == other);
        prop_assert!(!(one.covers(&other) && other.covers(&third)) || one.covers(&third));
        prop_assert_eq!(one.common(&other), other.common(&one));
        let covered = one.covers(&third) && other.covers(&third);
        prop_assert_eq!(covered, one.common(&other).is_some_and(|common| common.covers(&third)));
        prop_assert_eq!(one.covers(&other), other.covering().contains(&one));
        prop_assert!(!one.covers(&other) || one == other || one.exactness() < other.exactness());
    }

    #[test]
    fn a_list_that_is_taken_gives_every_place_the_one_price_that_says_most(
        names in proptest::collection::btree_set(near_name(), 1..10), place in near_name(), level in 0_usize..2, turn in 0_usize..10,
    ) {
        let mut names: Vec<SkuName> = names.into_iter().collect();
        let whole = closed(&names.iter().cloned().collect());
        prop_assert_eq!(list(&names).is_ok(), whole.len() == names.len());
        let place = place.placed(&"site_b".parse().unwrap(), IsolationLevel::ALL[level]);
        names = whole.into_iter().collect();
        let found = list(&names).unwrap().resolve(&place).map(|entry| entry.sku.clone());
        // Tried one by one: of all that cover the place there is one that all others cover.
        let fits: Vec<&SkuName> = names.iter().filter(|name| name.covers(&place)).collect();
        let most: Vec<&SkuName> = fits.iter().copied().filter(|one| fits.iter().all(|other| other.covers(one))).collect();
        prop_assert_eq!(most.len(), usize::from(!fits.is_empty()));
        prop_assert_eq!(found.as_ref(), most.first().copied());
        let turned = turn % names.len();
        names.rotate_left(turned);
        prop_assert_eq!(list(&names).unwrap().resolve(&place).map(|entry| entry.sku.clone()), found);
    }
}

#[test]
fn a_general_price_is_that_of_every_place() {
    let general = list(&[sku("device/n2m/h100")]).unwrap();
    for name in ["device/n2m/h100", "device/site_a/n2m/h100", "device/process/n2m/h100", "device/site_a/sandbox/n2m/h100"] {
        assert_eq!(general.resolve(&sku(name)).map(|entry| entry.sku.to_string()).as_deref(), Some("device/n2m/h100"), "{name}");
    }
    for name in ["device/n0/h100", "device/n2m/b200", "device/n2m/site_a/h100"] {
        assert_eq!(general.resolve(&sku(name)), None, "{name}");
    }
}

#[test]
fn a_site_and_an_isolation_that_meet_need_a_price_together() {
    let (at_site, apart, both) = ("device/site_a/n2m/h100", "device/sandbox/n2m/h100", "device/site_a/sandbox/n2m/h100");
    let error = list(&[sku(at_site), sku(apart)]).unwrap_err();
    assert_eq!(error.to_string(), format!("{at_site} and {apart} would both be the price of {both}"));
    assert_eq!(error.alternatives(), [format!("price {both} too")]);
    let whole = list(&[sku(at_site), sku(apart), sku(both)]).unwrap();
    assert_eq!(whole.resolve(&sku(both)).map(|entry| entry.sku.to_string()).as_deref(), Some(both));
    // What is said of another kind, notice or site meets nothing.
    list(&[sku(at_site), sku("device/sandbox/n2m/b200"), sku("device/sandbox/n0/h100"), sku("device/site_b/n2m/h100")]).unwrap();
}
