use proptest::prelude::*;

use super::*;
use crate::invoice_text::{WIDTH_COLUMNS, render, render_draft};
use crate::period::BillingCalendar;
use crate::price_book::{PriceEntry, PriceListDraft};
use crate::price_model::{PriceModel, Tier};
use crate::rating::rate;

fn account(currency: &str) -> InvoiceAccount {
    InvoiceAccount {
        organization: "org_1".parse().unwrap(),
        name: "Zahnräder & Söhne GmbH".to_owned(),
        currency: currency.parse().unwrap(),
        zone: "Europe/Berlin".to_owned(),
    }
}
fn period() -> Period {
    BillingCalendar::new("Europe/Berlin").unwrap().period("2026-03".parse().unwrap()).unwrap()
}
fn number() -> DocumentNumber {
    "INV-2026-000001".parse().unwrap()
}
fn nanos(amount: i64) -> Nanos {
    Nanos::new(amount)
}
fn quantity(count: i64) -> Quantity {
    Quantity::new(count).unwrap()
}

fn price_list(currency: &str) -> PriceListVersion {
    let mut entries: Vec<PriceEntry> = [("input", 150_000_000), ("cached_input", 75_000_000), ("output", 600_000_000)]
        .into_iter()
        .map(|(kind, price)| PriceEntry::per_unit(format!("tokens/{kind}/sublet-mini").parse().unwrap(), nanos(price)))
        .collect();
    entries.push(PriceEntry::per_unit("device/n0/cpu".parse().unwrap(), nanos(15_000_000)));
    let tiers = vec![
        Tier { up_to: Some(quantity(360_000_000)), price: nanos(2_000_000_000) },
        Tier { up_to: None, price: nanos(1_500_000_000) },
    ];
    let sku: SkuName = "device/n2m/h100-sxm".parse().unwrap();
    entries.push(PriceEntry::new(sku, PriceModel::Graduated { tiers }));
    PriceListVersion::new(PriceListDraft {
        list: "plist_1".parse().unwrap(),
        currency: currency.parse().unwrap(),
        effective_at: Timestamp::EPOCH,
        entries,
    })
    .unwrap()
}

fn line(version: &PriceListVersion, project: &str, sku: &str, count: i64) -> ChargedLine {
    let key = LineKey {
        organization: "org_1".parse().unwrap(),
        project: project.parse().unwrap(),
        period: "2026-03".parse().unwrap(),
        price_version: version.version().clone(),
        sku: sku.parse().unwrap(),
        band: None,
    };
    let price = version.get(&key.sku).unwrap().price_in(None).unwrap();
    let (amount, state) = rate(LineState::default(), price, quantity(count)).unwrap();
    ChargedLine { key, before: LineState::default(), state, charges: ChargeSum { count: 1, amount } }
}

fn busy_month(version: &PriceListVersion) -> Vec<ChargedLine> {
    vec![
        line(version, "proj_2", "device/n2m/h100-sxm", 400_000_000),
        line(version, "proj_1", "tokens/output/sublet-mini", 1_234_567),
        line(version, "proj_1", "tokens/input/sublet-mini", 7_654_321),
        line(version, "proj_1", "device/n0/cpu", 5_025_250),
        line(version, "proj_2", "tokens/cached_input/sublet-mini", 0),
    ]
}

fn drafted(lines: &[ChargedLine], version: &PriceListVersion, carry_before: i64) -> InvoiceContent {
    draft(account(version.currency().as_str()), period(), nanos(carry_before), lines, &[version]).unwrap()
}

#[test]
fn an_invoice_reads_well() {
    let version = price_list("EUR");
    let lines: Vec<ChargedLine> = busy_month(&version)
        .into_iter()
        .map(|line| if line.state.quantity.is_zero() { ChargedLine { charges: ChargeSum::default(), ..line } } else { line })
        .collect();
    let content = drafted(&lines, &version, -3_500_000);
    let invoice = Invoice::draft("inv_1".parse().unwrap(), content).issue(number(), period().interval.ends_at).unwrap();
    insta::assert_snapshot!(render(&invoice));
}

#[test]
fn an_empty_month_is_an_invoice_of_nothing() {
    let version = price_list("EUR");
    let content = drafted(&[], &version, 0);
    assert_eq!((content.total, content.carry_after), (Nanos::ZERO, Nanos::ZERO));
    assert!(render_draft(&content).contains("Nothing was used"));
}

#[test]
fn totals_are_in_the_minor_units_of_the_currency() {
    // 7,654,321 tokens at 0.15 per million are 1.14814815.
    for (currency, total, carry) in [("EUR", "1.15", "0.00185185"), ("JPY", "1", "-0.14814815"), ("BHD", "1.148", "-0.00014815")] {
        let version = price_list(currency);
        let content = drafted(&[line(&version, "proj_1", "tokens/input/sublet-mini", 7_654_321)], &version, 0);
        assert_eq!(
            (content.subtotal.to_string().as_str(), content.total.to_string().as_str()),
            ("1.14814815", total),
            "{currency}"
        );
        assert_eq!(content.carry_after.to_string(), carry);
        let shown = render_draft(&content);
        assert!(shown.lines().any(|row| row.starts_with("TOTAL") && row.ends_with(&format!(" {total} {currency}"))), "{shown}");
    }
}

proptest! {
    #[test]
    fn drafting_again_gives_the_same_draft_in_any_order(turn in 0_usize..5, carry in -5_000_000_i64..5_000_000) {
        let version = price_list("EUR");
        let mut lines = busy_month(&version);
        let first = drafted(&lines, &version, carry);
        lines.rotate_left(turn);
        let again = drafted(&lines, &version, carry);
        prop_assert_eq!(again.content_hash().unwrap(), first.content_hash().unwrap());
        prop_assert_eq!(again, first);
    }

    /// Known failure: every invoice is patched by a cent until it fits, and the patches add up.
    #[test]
    fn rounding_is_carried_and_never_patched(months in prop::collection::vec(0_i64..40_000, 1..60)) {
        let version = price_list("EUR");
        let (mut carry, mut invoiced, mut exact) = (0, 0, 0);
        for count in months {
            let content = drafted(&[line(&version, "proj_1", "tokens/output/sublet-mini", count)], &version, carry);
            content.verify().unwrap();
            carry = content.carry_after.get();
            invoiced += content.total.get();
            exact += content.subtotal.get();
            prop_assert_eq!(invoiced - exact, carry);
            prop_assert!(carry.abs() <= 5_000_000, "the carry {} is above half a cent", carry);
        }
    }

    /// Known failures: what came late begins its tiers anew, or is never invoiced.
    #[test]
    fn a_month_in_two_invoices_is_what_it_is_in_one(parts in prop::collection::vec(0_i64..200_000_000, 1..8), closed in 0_usize..8) {
        let version = price_list("EUR");
        let sku = "device/n2m/h100-sxm";
        let closed = closed.min(parts.len());
        let (known, late): (i64, i64) = (parts[..closed].iter().sum(), parts[closed..].iter().sum());
        let march = line(&version, "proj_1", sku, known);
        let all = line(&version, "proj_1", sku, known + late);
        let after = ChargedLine {
            before: march.state,
            charges: ChargeSum { count: 1, amount: nanos(all.state.charged.get() - march.state.charged.get()) },
            ..all.clone()
        };
        let april = BillingCalendar::new("Europe/Berlin").unwrap().period("2026-04".parse().unwrap()).unwrap();
        let first = drafted(&[march], &version, 0);
        let second = draft(account("EUR"), april, first.carry_after, &[after], &[&version]).unwrap();
        let one = drafted(&[all], &version, 0);
        prop_assert_eq!(first.subtotal.get() + second.subtotal.get(), one.subtotal.get());
        prop_assert_eq!(first.total.get() + second.total.get() - second.carry_after.get(), one.total.get() - one.carry_after.get());
        let shown = second.lines[0].late.unwrap();
        prop_assert_eq!((shown.period.to_string(), shown.quantity_before.get()), ("2026-03".to_owned(), known));
        let naive = line(&version, "proj_1", sku, known).state.charged.get() + line(&version, "proj_1", sku, second.lines[0].quantity.get()).state.charged.get();
        // As if tiers began anew: dearer where the tiers fall, but for its own rounding.
        prop_assert!(naive + 1 >= one.subtotal.get());
        let crosses = known + late > 360_001_000 && known.min(late) > 1_000;
        prop_assert!(naive > one.subtotal.get() || !crosses);
    }

    #[test]
    fn no_row_is_wider_than_the_page(name in "\\PC{0,200}", model in "[a-zA-Z0-9/._:-]{1,128}", count in 0_i64..i64::MAX / 2_000_000_000) {
        let entries = ["input", "cached_input", "output"]
            .into_iter()
            .map(|kind| PriceEntry::per_unit(format!("tokens/{kind}/{model}").parse().unwrap(), nanos(1_234_567_891)))
            .collect();
        let version = PriceListVersion::new(PriceListDraft {
            list: "plist_1".parse().unwrap(), currency: Currency::EUR, effective_at: Timestamp::EPOCH, entries,
        }).unwrap();
        let lines = [line(&version, &format!("proj_{}", "p".repeat(64)), &format!("tokens/output/{model}"), count)];
        let content = draft(InvoiceAccount { name, ..account("EUR") }, period(), Nanos::ZERO, &lines, &[&version]).unwrap();
        for row in render_draft(&content).lines() {
            prop_assert!(row.chars().count() <= WIDTH_COLUMNS, "{row}");
        }
    }
}

#[test]
fn patching_each_month_alone_drifts_where_the_carry_does_not() {
    let version = price_list("EUR");
    // 0.0042 each month: rounded alone, it is never invoiced at all.
    let monthly = line(&version, "proj_1", "tokens/output/sublet-mini", 7_000);
    let (mut carry, mut naive, mut invoiced) = (0, 0, 0);
    for _ in 0..1_000 {
        let content = drafted(std::slice::from_ref(&monthly), &version, carry);
        naive += content.subtotal.round_half_even(Currency::EUR.minor_unit().get()).unwrap().get();
        invoiced += content.total.get();
        carry = content.carry_after.get();
    }
    assert_eq!((naive, invoiced), (0, 4_200_000_000));
}

#[test]
fn what_came_late_says_so() {
    let version = price_list("EUR");
    let sku = "device/n2m/h100-sxm";
    let (march, all) = (line(&version, "proj_1", sku, 350_000_000), line(&version, "proj_1", sku, 400_000_000));
    let charges = ChargeSum { count: 1, amount: nanos(all.state.charged.get() - march.state.charged.get()) };
    let late = ChargedLine { before: march.state, charges, ..all };
    let april = BillingCalendar::new("Europe/Berlin").unwrap().period("2026-04".parse().unwrap()).unwrap();
    let of_april = line(&version, "proj_2", "device/n0/cpu", 5_025_250);
    let of_april = ChargedLine { key: LineKey { period: april.key, ..of_april.key }, ..of_april };
    let content = draft(account("EUR"), april, Nanos::ZERO, &[late, of_april], &[&version]).unwrap();
    insta::assert_snapshot!(render_draft(&content));
}

#[test]
fn broken_books_give_no_invoice() {
    let version = price_list("EUR");
    let good = line(&version, "proj_1", "tokens/output/sublet-mini", 1_000);
    let attempt = |lines: &[ChargedLine]| draft(account("EUR"), period(), Nanos::ZERO, lines, &[&version]).unwrap_err();
    let mut lost_charge = good.clone();
    lost_charge.charges.amount = nanos(1);
    let mut patched = good.clone();
    patched.state.charged = nanos(1);
    patched.charges.amount = nanos(1);
    let mut foreign = good.clone();
    foreign.key.organization = "org_2".parse().unwrap();
    let mut future = good.clone();
    future.key.period = "2026-04".parse().unwrap();
    let mut begun = good.clone();
    begun.before = begun.state;
    let mut unpriced = good.clone();
    unpriced.key.price_version = PriceVersion("0".into());
    for (lines, reason) in [
        (vec![lost_charge], "charges of a line"),
        (vec![patched], "was charged 0.000000001 but costs"),
        (vec![foreign], "is not of org_1"),
        (vec![future], "is not of org_1 in 2026-03"),
        (vec![begun], "before its month was over"),
        (vec![unpriced], "was not given"),
        (vec![good.clone(), good], "there twice"),
    ] {
        let error = attempt(&lines);
        assert!(error.to_string().contains(reason), "wanted '{reason}', got '{error}'");
    }
    let dollars = draft(account("USD"), period(), Nanos::ZERO, &busy_month(&version), &[&version]).unwrap_err();
    assert_eq!(dollars.code(), ErrorCode::CurrencyMismatch);
}

#[test]
fn an_issued_invoice_only_moves_forward() {
    let version = price_list("EUR");
    let ends_at = period().interval.ends_at;
    let invoice = Invoice::draft("inv_1".parse().unwrap(), drafted(&busy_month(&version), &version, 0));
    let early = Timestamp::from_micros(ends_at.micros() - 1);
    assert_eq!(invoice.clone().issue(number(), early).unwrap_err().code(), ErrorCode::Conflict, "the period still runs");
    assert!(invoice.clone().pay(ends_at).is_err() && invoice.clone().void(ends_at).is_err());
    let issued = invoice.issue(number(), ends_at).unwrap();
    assert!(issued.clone().issue(number(), ends_at).is_err());
    let paid = issued.clone().pay(ends_at).unwrap();
    assert!(paid.clone().pay(ends_at).is_err());
    assert_eq!(paid.void(ends_at).unwrap().state.as_str(), "void");
    assert_eq!(issued.void(ends_at).unwrap().state.as_str(), "void");
}

#[test]
fn a_changed_invoice_is_noticed() {
    let version = price_list("EUR");
    let content = drafted(&busy_month(&version), &version, 1_000);
    content.verify().unwrap();
    for field in 0..3 {
        let mut changed = content.clone();
        let amount = [&mut changed.total, &mut changed.carry_after, &mut changed.subtotal].into_iter().nth(field).unwrap();
        *amount = amount.checked_add(nanos(1)).unwrap();
        assert!(changed.verify().is_err(), "field {field}");
    }
}
