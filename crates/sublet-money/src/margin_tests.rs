use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::supply_cost::{Load, SupplyCostDraft};

fn costs() -> SupplyCost {
    let draft: SupplyCostDraft = serde_json::from_value(json!({ "currency": "EUR", "month": "2026-10",
        "devices": [{ "kind": "cpu", "per_hour": "0.6" }],
        "models": [{ "model": "own", "input": "1", "cached_input": "0", "output": "3" }] }))
    .unwrap();
    SupplyCost::new(draft).unwrap()
}

fn sku(name: &str) -> SkuName {
    name.parse().unwrap()
}
fn used(quantity: i64, charged: i64) -> LineState {
    LineState { quantity: Quantity::new(quantity).unwrap(), charged: Nanos::new(charged) }
}
fn organization(name: &str) -> OrganizationId {
    format!("org_{name}").parse().unwrap()
}
fn site(name: &str) -> SiteId {
    format!("site_{name}").parse().unwrap()
}

#[test]
fn each_line_has_the_cost_of_what_it_used() {
    let costs = costs();
    let mut book = MarginBook::new(Some(&costs));
    let (a, team) = (organization("a"), organization("t"));
    book.used(&a, false, &sku("device/n0/cpu"), used(3_600_000, 1_000_000_000)).unwrap();
    book.ran(&a, false, (&sku("device/n0/cpu"), &site("a")), BandTime { band: None, load: Load::Busy, micros: 3_600_000_000 });
    book.ran(&a, false, (&sku("device/n0/cpu"), &site("a")), BandTime { band: None, load: Load::Busy, micros: 1_800_000_000 });
    book.used(&a, false, &sku("device/n0/gpu"), used(10, 7)).unwrap();
    // A third of the output was bought; half of all of it is the team's.
    book.used(&a, false, &sku("tokens/output/own"), used(1_000_000, 50_000_000_000)).unwrap();
    book.used(&a, false, &sku("tokens/flex/output/own"), used(500_000, 10_000_000_000)).unwrap();
    book.used(&team, true, &sku("tokens/output/own"), used(1_500_000, 70_000_000_000)).unwrap();
    book.bought(&"own".parse().unwrap(), TokenKind::Output, used(1_000_000, 9_000_000_000)).unwrap();
    book.bought(&"own".parse().unwrap(), TokenKind::Input, used(5, 11)).unwrap();
    book.used(&a, false, &sku("tokens/output/far"), used(10, 90)).unwrap();
    book.bought(&"far".parse().unwrap(), TokenKind::Output, used(10, 40)).unwrap();
    book.used(&a, false, &sku("tokens/input/other"), used(10, 90)).unwrap();
    let made = book.finish().unwrap();
    let shown: Vec<String> = made
        .lines
        .iter()
        .map(|line| {
            let costs = line.costs.map(|costs| (costs.device.device_time.get(), costs.models.get(), costs.upstream.get()));
            format!("{} {} {costs:?}", line.organization, line.sku)
        })
        .collect();
    let mut shown_sorted = shown.clone();
    shown_sorted.sort();
    assert_eq!(
        shown_sorted,
        [
            "org_a device/n0/cpu Some((900000000, 0, 0))",
            "org_a device/n0/gpu None",
            "org_a tokens/flex/output/own Some((0, 1000000000, 1500000000))",
            "org_a tokens/input/other None",
            "org_a tokens/output/far Some((0, 0, 40))",
            "org_a tokens/output/own Some((0, 2000000000, 3000000000))",
            "org_t tokens/output/own Some((0, 3000000000, 4500000000))",
        ]
    );
    assert_eq!(made.bought_for_nobody, Nanos::new(11));
    let sums = Figures::of(made.lines.iter().filter(|line| !line.internal)).unwrap();
    assert_eq!((sums.revenue.get(), sums.without_cost.get()), (61_000_000_187, 97));
    assert_eq!(sums.margin().unwrap().get(), 61_000_000_187 - 97 - 900_000_000 - 3_000_000_000 - 4_500_000_040);
}

#[test]
fn what_time_cost_is_spread_over_the_places_of_a_kind_though_use_was_moved_between_them() {
    let costs = costs();
    let mut book = MarginBook::new(Some(&costs));
    let a = organization("a");
    let ran = BandTime { band: None, load: Load::Busy, micros: 3_600_000_000 };
    // Leased at the price of the kind, and rated anew at that of the site since.
    book.ran(&a, false, (&sku("device/n0/cpu"), &site("a")), ran.clone());
    book.used(&a, false, &sku("device/n0/cpu"), used(1_200_000, 1)).unwrap();
    book.used(&a, false, &sku("device/site_a/n0/cpu"), used(2_400_000, 2)).unwrap();
    let made = book.finish().unwrap();
    let mut alone = MarginBook::new(Some(&costs));
    alone.ran(&a, false, (&sku("device/n0/cpu"), &site("a")), ran);
    let whole = alone.finish().unwrap().lines[0].costs.unwrap().total().unwrap().get();
    let shares: Vec<i64> = made.lines.iter().map(|line| line.costs.unwrap().total().unwrap().get()).collect();
    assert!(whole > 0 && shares.iter().sum::<i64>() == whole);
    assert!((shares[0] * 3 - whole).abs() <= 9, "{shares:?} of {whole}");
}

#[test]
fn sites_add_up_to_the_whole_and_what_has_none_is_apart() {
    let costs = costs();
    let mut book = MarginBook::new(Some(&costs));
    let (a, team) = (organization("a"), organization("t"));
    let time = |micros| BandTime { band: None, load: Load::Busy, micros };
    book.used(&a, false, &sku("device/n0/cpu"), used(3_000, 1_000)).unwrap();
    book.earned(&a, (&sku("device/n0/cpu"), &site("x")), Nanos::new(300)).unwrap();
    book.earned(&a, (&sku("device/n0/cpu"), &site("y")), Nanos::new(600)).unwrap();
    // Each alone would be rounded up from 5 and a half: together they are 11.
    for place in ["x", "y"] {
        book.ran(&a, false, (&sku("device/n0/cpu"), &site(place)), time(33));
    }
    book.used(&a, false, &sku("device/n0/gpu"), used(10, 7)).unwrap();
    book.earned(&a, (&sku("device/n0/gpu"), &site("y")), Nanos::new(7)).unwrap();
    book.used(&a, false, &sku("tokens/output/own"), used(1_000_000, 50)).unwrap();
    book.used(&team, true, &sku("device/n0/cpu"), used(5, 9_000)).unwrap();
    book.earned(&team, (&sku("device/n0/cpu"), &site("x")), Nanos::new(9_000)).unwrap();
    book.ran(&team, true, (&sku("device/n0/cpu"), &site("x")), time(1_000_000));
    let made = book.finish().unwrap();
    let of = |figures: &Figures| (figures.revenue.get(), figures.costs.total().unwrap().get(), figures.without_cost.get());
    let shown: Vec<_> = made.sites.iter().map(|(site, figures)| (site.as_ref().map(SiteId::as_str), of(figures))).collect();
    assert_eq!(shown, [(None, (150, 3_000_000_000, 0)), (Some("site_x"), (300, 6, 0)), (Some("site_y"), (607, 5, 7))]);
    let whole = Figures::of(made.lines.iter().filter(|line| !line.internal)).unwrap();
    assert_eq!(of(&whole), (1_057, 3_000_000_011, 7));
}

#[test]
fn nothing_is_free_where_no_costs_are_declared() {
    let mut book = MarginBook::new(None);
    book.used(&organization("a"), false, &sku("device/n0/cpu"), used(1, 5)).unwrap();
    let made = book.finish().unwrap();
    let sums = Figures::of(&made.lines).unwrap();
    assert_eq!((made.lines[0].costs, sums.without_cost, sums.margin().unwrap()), (None, Nanos::new(5), Nanos::ZERO));
}

proptest! {
    #[test]
    fn shares_add_up_to_the_whole_and_follow_their_weights(
        amount in -1_000_000_000_000_i64..1_000_000_000_000, weights in prop::collection::vec(0_i64..1_000_000_000, 1..20),
    ) {
        let quantities: Vec<Quantity> = weights.iter().map(|weight| Quantity::new(*weight).unwrap()).collect();
        let shares = apportion(Nanos::new(amount), &quantities).unwrap();
        prop_assert_eq!(Nanos::checked_sum(shares.iter().copied()).unwrap().get(), amount);
        let whole: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
        for (share, weight) in shares.iter().zip(&weights) {
            if whole > 0 {
                let scaled = i128::from(share.get()) * whole - i128::from(amount) * i128::from(*weight);
                prop_assert!(scaled.abs() <= whole, "{} of {}", share, amount);
            }
        }
    }
}

#[test]
fn requests_cost_nothing_more_than_tokens_whose_cost_is_known() {
    let costs = costs();
    let mut book = MarginBook::new(Some(&costs));
    for model in ["own", "other"] {
        book.used(&organization("a"), false, &sku(&format!("tokens/output/{model}")), used(1_000_000, 5_000_000_000)).unwrap();
        book.used(&organization("a"), false, &sku(&format!("requests/default/{model}")), used(3, 600)).unwrap();
    }
    let made = book.finish().unwrap();
    let of = |name: &str| made.lines.iter().find(|line| line.sku == sku(name)).unwrap();
    assert_eq!(of("requests/default/own").costs, Some(Costs::default()));
    assert_eq!(of("requests/default/other").costs, None);
    let sums = Figures::of(&made.lines).unwrap();
    assert_eq!((sums.without_cost.get(), sums.margin().unwrap().get()), (5_000_000_600, 5_000_000_600 - 3_000_000_000));
}

#[test]
fn starts_cost_nothing_more_than_time_whose_cost_is_known() {
    let costs = costs();
    let mut book = MarginBook::new(Some(&costs));
    for kind in ["cpu", "unknown"] {
        book.used(&organization("a"), false, &sku(&format!("device/n0/{kind}")), used(3_600_000, 5_000_000_000)).unwrap();
        book.used(&organization("a"), false, &sku(&format!("starts/{kind}")), used(3, 600)).unwrap();
        let time = BandTime { band: None, load: Load::Busy, micros: 3_600_000_000 };
        book.ran(&organization("a"), false, (&sku(&format!("device/n0/{kind}")), &site("a")), time);
    }
    let made = book.finish().unwrap();
    let of = |name: &str| made.lines.iter().find(|line| line.sku == sku(name)).unwrap();
    assert_eq!(of("starts/unknown").costs, None);
    assert_eq!(of("starts/cpu").costs, Some(Costs::default()));
}
