use proptest::prelude::*;
use serde_json::json;
use sublet_core::Currency;

use super::*;
use crate::period::{BillingCalendar, PeriodKey};
use crate::price_book::{PriceEntry, PriceListDraft};
use crate::price_model::{PriceModel, Tier};
use crate::rating::{LineState, rate_line, verify_line};
use crate::sku::SkuName;

const SKUS: [&str; 2] = ["device/n0/cpu", "device/n2m/h100"];
const MILLION: i64 = 1_000_000_000;

fn quantity(count: i64) -> Quantity {
    Quantity::new(count).unwrap()
}

/// An instant of January 1970, which began on a Thursday.
fn hour(hours: i64) -> Timestamp {
    Timestamp::from_seconds(hours * 3_600)
}

fn list(entries: Vec<PriceEntry>) -> Arc<PriceListVersion> {
    let (list, effective_at) = ("plist_1".parse().unwrap(), Timestamp::EPOCH);
    Arc::new(PriceListVersion::new(PriceListDraft { list, currency: Currency::EUR, effective_at, entries }).unwrap())
}

fn tiers(first: i64, rest: i64) -> Vec<Tier> {
    vec![Tier { up_to: Some(quantity(10_000)), price: Nanos::new(first) }, Tier { up_to: None, price: Nanos::new(rest) }]
}

/// Lists whose prices differ in kind, one with bands, one that sells less.
fn lists() -> [Arc<PriceListVersion>; 4] {
    let all = |model: PriceModel| SKUS.map(|sku| PriceEntry::new(sku.parse().unwrap(), model.clone())).to_vec();
    let night = json!({ "zone": "UTC", "bands": [{ "name": "night",
        "windows": [{ "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "22:00", "until": "06:00" }],
        "model": { "type": "per_unit", "price": "0.7" } }] });
    let mut by_time = all(PriceModel::PerUnit { price: Nanos::new(1_700_000_001) });
    by_time[0].time_of_use = serde_json::from_value(night).unwrap();
    let package = PriceModel::Package { size: quantity(3_333), price: Nanos::new(77) };
    [
        list(all(PriceModel::Graduated { tiers: tiers(3 * MILLION + 1, MILLION) })),
        list(by_time),
        list(vec![PriceEntry::new(SKUS[0].parse().unwrap(), package)]),
        list(all(PriceModel::Volume { tiers: tiers(2 * MILLION, 1_999_999_999) })),
    ]
}

type Books = BTreeMap<LineKey, LineState>;

fn version<'l>(lists: &'l [Arc<PriceListVersion>], key: &LineKey) -> &'l PriceListVersion {
    lists.iter().find(|list| *list.version() == key.price_version).unwrap()
}

/// Charges a line, and says how much.
fn charge(books: &mut Books, lists: &[Arc<PriceListVersion>], key: LineKey, change: impl Into<QuantityChange>) -> i64 {
    let state = books.get(&key).copied().unwrap_or_default();
    let price_list = version(lists, &key);
    let rated = rate_line(key, state, price_list, change).unwrap();
    books.insert(rated.key, rated.after);
    rated.amount.get()
}

/// A use, as it was admitted under a list.
fn used(of: &PriceListVersion, (sku, at, count): (usize, i64, i64)) -> MeteredUse {
    let (sku, at): (SkuName, Timestamp) = (SKUS[sku].parse().unwrap(), hour(at));
    let period: PeriodKey = BillingCalendar::new("UTC").unwrap().period_at(at).unwrap().key;
    let band = of.get(&sku).unwrap().band_at(at).unwrap().cloned();
    let (organization, project) = ("org_1".parse().unwrap(), "proj_1".parse().unwrap());
    let key = LineKey { organization, project, period, price_version: of.version().clone(), sku, band };
    MeteredUse { key, quantity: quantity(count), used: UsedAt::instant(at) }
}

fn rerate(of: &PriceListVersion, to: &Arc<PriceListVersion>, from: i64, until: i64) -> Rerate {
    let interval = Interval { starts_at: hour(from), ends_at: hour(until) };
    Rerate { id: "rer_1".parse().unwrap(), of: of.version().clone(), to: to.clone(), indexes: PriceIndexes::new(), interval }
}

/// Rates everything anew, and says what it comes to.
fn apply(books: &mut Books, lists: &[Arc<PriceListVersion>], uses: &[MeteredUse], applied: &mut Vec<Rerate>, new: Rerate) -> i64 {
    let mut moves = Moves::default();
    for one in uses {
        moves.add(one.clone(), applied, &new).unwrap();
    }
    applied.push(new);
    moves.into_lines().map(|(key, line)| charge(books, lists, key, line.quantity)).sum()
}

/// The lines on which there is anything.
fn filled(books: &Books) -> Vec<(LineKey, LineState)> {
    books.iter().filter(|(_, state)| !state.quantity.is_zero()).map(|(key, state)| (key.clone(), *state)).collect()
}

fn sum(books: &Books) -> i64 {
    books.values().map(|state| state.charged.get()).sum()
}

/// Of two skus, within two months.
fn any_uses() -> impl Strategy<Value = Vec<(usize, i64, i64)>> {
    prop::collection::vec((0..SKUS.len(), 0_i64..1_400, 0_i64..9_000), 0..40)
}

/// The books after every use was charged as it was admitted.
fn charged(lists: &[Arc<PriceListVersion>], uses: &[MeteredUse]) -> Books {
    let mut books = Books::new();
    for one in uses {
        charge(&mut books, lists, one.key.clone(), one.quantity);
    }
    books
}

#[test]
fn device_time_goes_to_the_price_of_its_place_and_back() {
    let prices = |entries: &[(&str, i64)]| {
        list(entries.iter().map(|(sku, price)| PriceEntry::per_unit(sku.parse().unwrap(), Nanos::new(*price))).collect())
    };
    let general = prices(&[("device/n0/cpu", MILLION)]);
    let by_site = prices(&[("device/n0/cpu", MILLION), ("device/site_a/n0/cpu", 2 * MILLION)]);
    let elsewhere = prices(&[("device/site_b/n0/cpu", MILLION)]);
    let key = used(&general, (0, 1, 100)).key;
    let at = |site: &str| UsedAt {
        placed: Some(key.sku.placed(&site.parse().unwrap(), sublet_core::runner::IsolationLevel::Sandbox)),
        ..UsedAt::instant(hour(1))
    };
    let there = [rerate(&general, &by_site, 0, 2)];
    let moved = |site: &str| line_after(key.clone(), &at(site), &there).unwrap();
    assert_eq!(moved("site_a").sku.to_string(), "device/site_a/n0/cpu");
    assert_eq!((moved("site_b").sku, moved("site_b").price_version), (key.sku.clone(), by_site.version().clone()));
    for site in ["site_a", "site_b"] {
        let back = [rerate(&general, &by_site, 0, 2), rerate(&by_site, &general, 0, 2)];
        assert_eq!(line_after(key.clone(), &at(site), &back).unwrap(), key, "{site}");
    }
    let stays = line_after(key.clone(), &at("site_a"), &[rerate(&general, &elsewhere, 0, 2)]).unwrap();
    assert_eq!(stays, key, "the other list does not sell it there");
}

proptest! {
    #[test]
    fn the_lines_are_those_of_use_that_was_on_the_right_list_from_the_beginning(
        uses in any_uses(), (from, until) in (0_i64..1_000, 200_i64..1_400),
    ) {
        let lists = lists();
        let facts: Vec<_> = uses.iter().map(|one| used(&lists[0], *one)).collect();
        let mut books = charged(&lists, &facts);
        let before = sum(&books);
        let new = rerate(&lists[0], &lists[1], from, until);
        let difference = apply(&mut books, &lists, &facts, &mut Vec::new(), new);
        let right: Vec<_> =
            uses.iter().map(|one| used(&lists[usize::from((from..until).contains(&one.1))], *one)).collect();
        let wanted = charged(&lists, &right);
        prop_assert_eq!(filled(&books), filled(&wanted));
        prop_assert_eq!(before + difference, sum(&wanted));
    }

    #[test]
    fn there_and_back_is_nothing_and_in_the_same_list_too(uses in any_uses(), other in 0_usize..4) {
        let lists = lists();
        let facts: Vec<_> = uses.iter().map(|one| used(&lists[0], *one)).collect();
        let first = charged(&lists, &facts);
        let (mut books, mut applied) = (first.clone(), Vec::new());
        let there = apply(&mut books, &lists, &facts, &mut applied, rerate(&lists[0], &lists[other], 0, 1_400));
        prop_assert!(other != 0 || (there == 0 && books == first));
        let back = apply(&mut books, &lists, &facts, &mut applied, rerate(&lists[other], &lists[0], 0, 1_400));
        prop_assert_eq!(there + back, 0);
        prop_assert_eq!(filled(&books), filled(&first));
    }

    #[test]
    fn order_does_not_matter_and_what_comes_late_finds_its_line(
        (uses, shuffled) in any_uses().prop_flat_map(|uses| (Just(uses.clone()), Just(uses).prop_shuffle())), known in 0_usize..40,
    ) {
        let lists = lists();
        let chain = || [rerate(&lists[0], &lists[3], 100, 900), rerate(&lists[3], &lists[1], 300, 1_400), rerate(&lists[0], &lists[2], 0, 700)];
        let of = |uses: &[(usize, i64, i64)]| uses.iter().map(|one| used(&lists[0], *one)).collect::<Vec<_>>();
        let (all, mut applied) = (of(&uses), Vec::new());
        let mut at_once = charged(&lists, &all);
        for new in chain() {
            apply(&mut at_once, &lists, &all, &mut applied, new);
        }
        // The same in another order, where the last of it is known only between what is rated anew.
        let shuffled = of(&shuffled);
        let (early, late) = shuffled.split_at(known.min(shuffled.len()));
        let mut books = charged(&lists, early);
        let (mut seen, mut applied) = (early.to_vec(), Vec::new());
        let mut late = late.chunks(7);
        for new in chain() {
            apply(&mut books, &lists, &seen, &mut applied, new);
            for one in late.next().unwrap_or_default() {
                let key = line_after(one.key.clone(), &one.used, &applied).unwrap();
                charge(&mut books, &lists, key, one.quantity);
                seen.push(one.clone());
            }
        }
        for one in late.flatten() {
            charge(&mut books, &lists, line_after(one.key.clone(), &one.used, &applied).unwrap(), one.quantity);
        }
        prop_assert_eq!(filled(&books), filled(&at_once));
        for (key, state) in &books {
            let price_list = version(&lists, key);
            verify_line(*state, price_list.get(&key.sku).unwrap().price_in(key.band.as_ref()).unwrap()).unwrap();
        }
    }
}

#[test]
fn a_difference_between_two_charges_for_the_same_use_is_not_what_its_line_costs() {
    // What a naive program does: each use at the other price by itself, from the first tier on.
    let lists = lists();
    let facts: Vec<_> = [8_000, 8_000].map(|count| used(&lists[1], (1, 10, count))).to_vec();
    let mut books = charged(&lists, &facts);
    let before = sum(&books);
    let naive: i64 = facts
        .iter()
        .map(|one| charge(&mut Books::new(), &lists, used(&lists[0], (1, 10, one.quantity.get())).key, one.quantity))
        .sum();
    let difference = apply(&mut books, &lists, &facts, &mut Vec::new(), rerate(&lists[1], &lists[0], 0, 100));
    assert_ne!(naive - before, difference);
    let whole = charge(&mut Books::new(), &lists, used(&lists[0], (1, 10, 16_000)).key, quantity(16_000));
    assert_eq!(difference, whole - before);
}

#[test]
fn what_the_other_list_does_not_sell_stays_where_it_is() {
    let lists = lists();
    let facts = [used(&lists[0], (0, 1, 5_000)), used(&lists[0], (1, 1, 5_000))];
    let mut books = charged(&lists, &facts);
    apply(&mut books, &lists, &facts, &mut Vec::new(), rerate(&lists[0], &lists[2], 0, 10));
    let lines: Vec<_> =
        filled(&books).into_iter().map(|(key, state)| (key.sku.to_string(), key.price_version, state.charged.get())).collect();
    let (package, tiers) = (lists[2].version().clone(), lists[0].version().clone());
    // Two packages, and 5,000 device-milliseconds of the first tier.
    let mut wanted = [(SKUS[0].to_owned(), package, 2 * 77), (SKUS[1].to_owned(), tiers, 4_166_667)];
    let mut lines = lines;
    lines.sort();
    wanted.sort();
    assert_eq!(lines, wanted);
}

#[test]
fn what_cannot_be_rated_anew_is_refused() {
    let [one, other, ..] = lists();
    let draft = PriceListDraft {
        list: "plist_2".parse().unwrap(),
        currency: Currency::USD,
        effective_at: Timestamp::EPOCH,
        entries: vec![PriceEntry::per_unit(SKUS[0].parse().unwrap(), Nanos::new(1))],
    };
    let dollars = Arc::new(PriceListVersion::new(draft).unwrap());
    for (wrong, code) in [
        (rerate(&one, &other, 5, 5), ErrorCode::InvalidRequest),
        (rerate(&one, &other, 5, 4), ErrorCode::InvalidRequest),
        (rerate(&one, &dollars, 0, 1), ErrorCode::CurrencyMismatch),
    ] {
        assert_eq!(Rerate::validate(&one, &wrong.to, wrong.interval).unwrap_err().code(), code);
    }
    Rerate::validate(&one, &one, rerate(&one, &one, 0, 1).interval).unwrap();
}

#[test]
fn what_was_spent_last_comes_back_first() {
    for (amount, paid_for_use, promotional, paid) in [(5, 9, 0, 5), (5, 3, 2, 3), (5, 0, 5, 0), (5, -2, 5, 0)] {
        let split = give_back(Nanos::new(amount), Nanos::new(paid_for_use)).unwrap();
        assert_eq!(split, CreditSplit { committed: Nanos::ZERO, promotional: Nanos::new(promotional), paid: Nanos::new(paid) });
    }
}

#[test]
fn a_request_follows_its_tokens_and_time_stays_below_its_maximum() {
    let tokens = ["tokens/input/m", "tokens/cached_input/m", "tokens/output/m"]
        .map(|sku| PriceEntry::per_unit(sku.parse().unwrap(), Nanos::new(MILLION)));
    let request = PriceEntry::per_unit("requests/default/m".parse().unwrap(), Nanos::new(5));
    let [flat, plain, other] = [
        list(tokens.iter().cloned().chain([request]).collect()),
        list(tokens.to_vec()),
        list(vec![PriceEntry::per_unit(SKUS[0].parse().unwrap(), Nanos::new(1))]),
    ];
    let key = |sku: &str, of: &PriceListVersion| LineKey {
        sku: sku.parse().unwrap(),
        price_version: of.version().clone(),
        ..used(&lists()[0], (0, 1, 1)).key
    };
    let of_request = key("requests/default/m", &flat);
    let moved =
        |to: &Arc<PriceListVersion>| line_after(of_request.clone(), &UsedAt::instant(hour(1)), [&rerate(&flat, to, 0, 2)]).unwrap();
    let on_plain = moved(&plain);
    assert_eq!(on_plain.price_version, *plain.version());
    assert!(of_request.is_asked_for(&flat) && !on_plain.is_asked_for(&plain));
    assert_eq!(moved(&other), of_request, "its tokens stay, too");
    let there_and_back = [rerate(&flat, &plain, 0, 2), rerate(&plain, &flat, 0, 2)];
    assert_eq!(line_after(of_request.clone(), &UsedAt::instant(hour(1)), &there_and_back).unwrap(), of_request);

    let [_, dear, _, cheap] = lists();
    let time = LineKey { band: None, ..key(SKUS[1], &cheap) };
    let to_dear = |max_price: i64| {
        let used = UsedAt { max_price: Some(Nanos::new(max_price)), ..UsedAt::instant(hour(12)) };
        let moved = line_after(time.clone(), &used, [&rerate(&cheap, &dear, 0, 24)]).unwrap();
        moved.price_version == *dear.version()
    };
    assert!(to_dear(1_700_000_001) && !to_dear(1_700_000_000));
}

#[test]
fn a_start_follows_its_time() {
    let time = |kind: &str| PriceEntry::per_unit(format!("device/n0/{kind}").parse().unwrap(), Nanos::new(MILLION));
    let start = PriceEntry::per_unit("starts/cpu".parse().unwrap(), Nanos::new(5));
    let [flat, plain, other] = [list(vec![time("cpu"), start]), list(vec![time("cpu")]), list(vec![time("a100")])];
    let of_start = LineKey {
        sku: "starts/cpu".parse().unwrap(),
        price_version: flat.version().clone(),
        band: None,
        ..used(&lists()[0], (0, 1, 1)).key
    };
    let moved = |rerates: &[Rerate]| line_after(of_start.clone(), &UsedAt::instant(hour(1)), rerates).unwrap();
    let on_plain = moved(&[rerate(&flat, &plain, 0, 2)]);
    assert_eq!(on_plain.price_version, *plain.version());
    assert!(of_start.is_asked_for(&flat) && !on_plain.is_asked_for(&plain));
    assert_eq!(moved(&[rerate(&flat, &other, 0, 2)]), of_start, "its time stays, too");
    assert_eq!(moved(&[rerate(&flat, &plain, 0, 2), rerate(&plain, &flat, 0, 2)]), of_start);
}
