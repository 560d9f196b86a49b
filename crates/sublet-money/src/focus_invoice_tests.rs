use proptest::prelude::*;
use sublet_core::Currency;
use sublet_core::admission::PriceVersion;

use super::*;
use crate::encoder::{Encoder, Format};
use crate::focus_invoice_columns::invoice_detail_columns;
use crate::invoice::{ChargeSum, InvoiceAccount, Late, Parties, draft};
use crate::period::Period;
use crate::sku::Quantity;
use crate::tax::{TaxCategory, TaxRate, TaxTreatment};

fn nanos(amount: i64) -> Nanos {
    Nanos::new(amount)
}
fn month(text: &str) -> PeriodKey {
    text.parse().unwrap()
}
fn period() -> Period {
    BillingCalendar::new("Europe/Berlin").unwrap().period(month("2026-03")).unwrap()
}
fn account() -> InvoiceAccount {
    InvoiceAccount {
        organization: "org_1".parse().unwrap(),
        name: "Zahnräder & Söhne GmbH".to_owned(),
        currency: Currency::EUR,
        zone: "Europe/Berlin".to_owned(),
    }
}
fn statement() -> Statement {
    Statement {
        account: account(),
        seller: "Idle Works".to_owned(),
        period: period(),
        invoice: Some(number()),
        places: LinePlaces::default(),
        counts: None,
    }
}
fn number() -> DocumentNumber {
    "INV-2026-000007".parse().unwrap()
}

fn line(index: usize, amount: i64, late: Option<&str>) -> InvoiceLine {
    let late = late.map(|period| Late { period: month(period), quantity_before: Quantity::ZERO, charged_before: Nanos::ZERO });
    InvoiceLine {
        project: format!("proj_{index}").parse().unwrap(),
        sku: "tokens/output/m".parse().unwrap(),
        band: None,
        price_version: PriceVersion("v".into()),
        price: "0.6 EUR per 1M tokens".to_owned(),
        quantity: QuantityChange::new(amount / 600),
        unit: PricingUnit::MillionTokens,
        charges: ChargeSum { count: 1, amount: nanos(amount) },
        late,
    }
}

/// With so many lines, each part that a contract can add, and two taxes.
fn content(amounts: &[i64], carry: i64) -> InvoiceContent {
    let mut content = draft(account(), period(), nanos(carry), &[], &[]).unwrap();
    content.lines = (1..).zip(amounts).map(|(index, amount)| line(index, *amount, (index == 2).then_some("2026-02"))).collect();
    let commitment = CommitmentLine {
        drawdown: None,
        contract: "ctr_1".parse().unwrap(),
        terms: "t".to_owned(),
        number: 3,
        first: month("2026-02"),
        last: month("2026-03"),
        committed: nanos(7_000_000_000),
        counted_before: Nanos::ZERO,
        counted: Nanos::ZERO,
        roll_over: Nanos::ZERO,
        shortfall: nanos(2_000_000_001),
        roll_over_used: nanos(300_000_000),
        exit_fee: nanos(40_000_000),
        fee_terms: None,
        quantity: None,
    };
    let advance = AdvanceLine {
        commitment: Nanos::ZERO,
        contract: "ctr_1".parse().unwrap(),
        terms: "t".to_owned(),
        number: 4,
        first: month("2026-04"),
        last: month("2026-05"),
        fee: nanos(10_000_000_000),
    };
    let content = content.with_commitment(commitment).unwrap().with_advance(advance).unwrap();
    let tax = |name: &str, ppm| TaxTreatment {
        category: TaxCategory::Standard,
        jurisdiction: "CA-QC".parse().unwrap(),
        name: name.to_owned(),
        rate_ppm: TaxRate::from_ppm(ppm).unwrap(),
        reason: None,
        reason_code: None,
    };
    let party =
        serde_json::json!({ "legal_name": "Idle Works", "address": { "lines": ["1 Quay"], "city": "Montréal", "country": "CA" } });
    let parties = Parties {
        seller: serde_json::from_value(json!({ "party": party })).unwrap(),
        buyer: Some(serde_json::from_value(json!({ "party": party, "purchase_order": "PO-4711" })).unwrap()),
        terms: serde_json::from_value(json!({ "net_days": 14 })).unwrap(),
    };
    content.with_parties(parties, vec![tax("GST", 50_000), tax("QST", 99_750)], Nanos::ZERO).unwrap()
}

fn issued(content: InvoiceContent) -> Invoice {
    Invoice::draft("inv_1".parse().unwrap(), content).issue(number(), period().interval.ends_at).unwrap()
}

fn sum(rows: &[InvoiceDetail]) -> Nanos {
    Nanos::checked_sum(rows.iter().map(|row| row.billed)).unwrap()
}

#[test]
fn a_document_is_all_of_its_lines() {
    let invoice = issued(content(&[900_000_002, 33_333], 1_000_000));
    let gross = invoice.content.gross().unwrap();
    let details = InvoiceDetails::new(&statement(), invoice).unwrap();
    let mut rows = details.rows(0, 1_000).unwrap();
    assert_eq!(sum(&rows), gross);
    let note = Credited {
        number: "CN-2026-000002".parse().unwrap(),
        invoice: "INV-2026-000006".parse().unwrap(),
        amount: nanos(50_000_000),
        tax: nanos(10_000_000),
        reason: "slow".to_owned(),
        issued_at: period().interval.starts_at,
    };
    let credit = credit_details(&statement(), &note).unwrap();
    assert_eq!(sum(&credit), nanos(-60_000_000));
    rows.extend(credit);
    let columns = invoice_detail_columns();
    assert!(columns.is_sorted_by_key(|column| column.name));
    let mut encoder = Encoder::new(columns, Format::Csv);
    let mut text = encoder.begin();
    text.extend(encoder.add(&rows).unwrap());
    insta::assert_snapshot!(String::from_utf8(text).unwrap());
}

#[test]
fn what_does_not_add_up_is_no_document() {
    for change in [
        |content: &mut InvoiceContent| content.lines[0].charges.amount = nanos(1),
        |content: &mut InvoiceContent| content.total = nanos(20_000_000_000),
        |content: &mut InvoiceContent| content.tax.as_mut().unwrap().lines[0].amount = Nanos::ZERO,
        |content: &mut InvoiceContent| content.commitment.as_mut().unwrap().shortfall = Nanos::ZERO,
    ] {
        let mut invoice = issued(content(&[900_000_002, 33_333], 0));
        change(&mut invoice.content);
        let refused = InvoiceDetails::new(&statement(), invoice).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::LedgerMismatch);
    }
}

#[test]
fn use_names_the_line_that_it_is_in() {
    let content = content(&[900_000_002, 33_333], 0);
    let places = LinePlaces::of(&content).unwrap();
    let hour = |project: &str| ChargedHour {
        project: project.parse().unwrap(),
        sku: "tokens/output/m".parse().unwrap(),
        price_version: PriceVersion("v".into()),
        band: None,
        resource: None,
        site: None,
        isolation: None,
        starts_at: period().interval.starts_at,
        quantity: QuantityChange::new(1),
        amount: nanos(1),
        charges: 1,
    };
    let found = |project: &str, used: &str| places.find(&hour(project), month(used));
    assert_eq!([found("proj_1", "2026-03"), found("proj_2", "2026-02"), found("proj_2", "2026-03")], [Some(1), Some(2), None]);
    let versions: Vec<_> = places.0.values().flat_map(BTreeMap::keys).map(|(_, version, _, _)| &version.0).collect();
    assert!(versions.len() == 2 && std::sync::Arc::ptr_eq(versions[0], versions[1]), "one text for all lines");
}

proptest! {
    /// However a document is cut into pages, its lines are all there, each once, in their order, and add up to it.
    #[test]
    fn pages_of_any_size_are_the_document(
        amounts in prop::collection::vec(0_i64..3_000_000_000, 0..30),
        carry in -4_999_999_i64..5_000_000,
        page in 1_usize..12,
    ) {
        let invoice = issued(content(&amounts, carry));
        let gross = invoice.content.gross().unwrap();
        let details = InvoiceDetails::new(&statement(), invoice).unwrap();
        let mut rows: Vec<InvoiceDetail> = Vec::new();
        loop {
            let next = details.rows(rows.len(), page).unwrap();
            prop_assert!(next.len() <= page);
            let is_end = next.len() < page;
            rows.extend(next);
            if is_end {
                break;
            }
        }
        prop_assert_eq!(sum(&rows), gross);
        let places: Vec<u32> = rows.iter().map(|row| row.place).collect();
        let expected: Vec<u32> = (1..).take(rows.len()).collect();
        prop_assert_eq!(places, expected);
    }
}
