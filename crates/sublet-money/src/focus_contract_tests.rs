use proptest::prelude::*;
use sublet_core::Currency;

use super::*;
use crate::advance::FeeTerms;
use crate::committed_quantity::{QuantityStep, QuantityTerms};
use crate::contract::{Commitment, ExitTerms, Notice, RenewalTerms};
use crate::contract_price::{Discount, PriceTerms};
use crate::encoder::{Encoder, Format};
use crate::focus_contract_columns::contract_commitment_columns;
use crate::price_book::PriceEntry;
use crate::table::Cell;

fn month(text: &str) -> PeriodKey {
    text.parse().unwrap()
}
fn euros(amount: i64) -> Nanos {
    Nanos::new(amount * 1_000_000_000)
}
fn account() -> InvoiceAccount {
    InvoiceAccount {
        organization: "org_1".parse().unwrap(),
        name: "Acme".to_owned(),
        currency: Currency::EUR,
        zone: "Europe/Berlin".to_owned(),
    }
}
fn instant(of: &str) -> Timestamp {
    BillingCalendar::new("Europe/Berlin").unwrap().period(month(of)).unwrap().interval.starts_at
}

/// Three periods of two months: 10, 10 and 20 euros.
fn terms() -> ContractTerms {
    let step = |from_period, amount| Commitment { from_period, amount: euros(amount) };
    ContractTerms {
        billed: None,
        commitments: vec![step(1, 10), step(3, 20)],
        covers: [SkuFamily::ModelTokens, SkuFamily::DeviceTime].into(),
        currency: Currency::EUR,
        exit: Some(ExitTerms { after_periods: 1, fee_ppm: 500_000, notice_months: 1 }),
        fee: Some(FeeTerms { amount: euros(3) }),
        months: 6,
        payment: None,
        period_months: 2,
        pricing: None,
        quantities: None,
        renewal: None,
        roll_over_periods: 2,
        starts: month("2026-03"),
    }
}

/// Ten device-hours a month.
fn of_quantities() -> ContractTerms {
    let sku: SkuName = "device/n2m/cpu".parse().unwrap();
    let steps = vec![QuantityStep { from_period: 1, quantity: Quantity::new(36_000_000).unwrap() }];
    let fixed = vec![PriceEntry::per_unit(sku.clone(), euros(2))];
    ContractTerms {
        commitments: Vec::new(),
        covers: [].into(),
        fee: None,
        payment: None,
        period_months: 1,
        pricing: Some(PriceTerms { fixed, ..PriceTerms::default() }),
        quantities: Some(QuantityTerms { overage: None, sku, steps }),
        ..terms()
    }
}

fn agreement(terms: ContractTerms, notice: Option<Notice>) -> Agreement {
    Agreement::new(vec![TermsVersion::new(terms.starts, terms).unwrap()], notice).unwrap()
}

fn rows(agreement: &Agreement, uses: &[CommitmentUse], as_of: Timestamp) -> Vec<ContractCommitment> {
    rows_agreed((agreement, &[instant("2026-02")]), uses, as_of)
}

/// Of versions that were agreed at these times.
fn rows_agreed(
    (agreement, agreed_at): (&Agreement, &[Timestamp]),
    uses: &[CommitmentUse],
    as_of: Timestamp,
) -> Vec<ContractCommitment> {
    contract_commitments(&ContractAsOf {
        account: &account(),
        seller: "Idle Works",
        id: &"ctr_1".parse().unwrap(),
        name: "2026",
        agreement,
        agreed_at,
        notice_at: agreement.notice().map(|_| instant("2026-03")),
        uses,
        as_of,
    })
    .unwrap()
}

fn statuses(rows: &[ContractCommitment]) -> Vec<&'static str> {
    rows.iter().map(|row| row.status.as_str()).collect()
}

fn cell(row: &ContractCommitment, name: &str) -> String {
    let columns = contract_commitment_columns();
    let column = columns.iter().find(|column| column.name == name).unwrap();
    match (column.cell)(row) {
        Cell::Absent => "-".to_owned(),
        Cell::Text(text) => text.into_owned(),
        Cell::Decimal(number) => number.to_string(),
        Cell::Instant(at) => at.to_string(),
        Cell::Count(count) => count.to_string(),
    }
}

#[test]
fn a_contract_is_all_of_its_periods_with_their_ramp() {
    let uses = [
        CommitmentUse { number: 1, counted: euros(4), shortfall: euros(6), is_settled: true, ..CommitmentUse::default() },
        CommitmentUse { number: 2, counted: euros(11), ..CommitmentUse::default() },
    ];
    let spend = rows(&agreement(terms(), None), &uses, instant("2026-06"));
    let units = CommitmentUse {
        number: 1,
        quantity: Quantity::new(1_500).unwrap(),
        counted: Nanos::new(833_333),
        ..CommitmentUse::default()
    };
    let quantities = rows(&agreement(of_quantities(), None), &[units], instant("2026-03"));
    let columns = contract_commitment_columns();
    assert!(columns.is_sorted_by_key(|column| column.name));
    let mut encoder = Encoder::new(columns, Format::Csv);
    let mut text = encoder.begin();
    text.extend(encoder.add(&spend).unwrap());
    text.extend(encoder.add(&quantities[..2]).unwrap());
    insta::assert_snapshot!(String::from_utf8(text).unwrap());
}

#[test]
fn a_period_is_pending_active_exhausted_and_expired() {
    let agreement = agreement(terms(), None);
    let none: &[CommitmentUse] = &[];
    let used = [CommitmentUse { number: 1, counted: euros(10), ..CommitmentUse::default() }];
    for (as_of, uses, expected) in [
        (instant("2026-02"), none, ["Pending", "Pending", "Pending"]),
        (instant("2026-03"), none, ["Active", "Pending", "Pending"]),
        (instant("2026-04"), &used, ["Exhausted", "Pending", "Pending"]),
        (instant("2026-05"), &used, ["Expired", "Active", "Pending"]),
        (instant("2027-05"), none, ["Expired", "Expired", "Expired"]),
    ] {
        assert_eq!(statuses(&rows(&agreement, uses, as_of)), expected, "{as_of}");
    }
}

#[test]
fn what_a_notice_cuts_off_is_canceled() {
    let notice = Notice { last_month: month("2026-04"), fee: euros(15) };
    let found = rows(&agreement(terms(), Some(notice)), &[], instant("2026-04"));
    assert_eq!(statuses(&found), ["Active", "Canceled", "Canceled"]);
    assert!(found.iter().all(|row| row.contract.ends_at == instant("2026-05")));
    assert_eq!((found[0].updated_at, found[1].updated_at), (instant("2026-04"), instant("2026-03")));
    assert_eq!(found[2].committed, euros(20), "what it would have been");
    let fees: Vec<_> = found.iter().map(|row| row.fee).collect();
    assert_eq!(fees, [Some(euros(3)), None, None], "nothing is billed of what is canceled");
}

#[test]
fn a_notice_for_a_later_term_says_how_long_the_contract_is() {
    let renewed = ContractTerms { renewal: Some(RenewalTerms { months: 6, notice_months: 1 }), ..terms() };
    for (last_month, ends_at, expected) in [
        ("2026-08", "2026-09", vec!["Expired", "Active", "Pending"]),
        ("2026-12", "2027-01", vec!["Expired", "Active", "Pending", "Pending", "Pending", "Canceled"]),
        ("2027-02", "2027-03", vec!["Expired", "Active", "Pending", "Pending", "Pending", "Pending"]),
    ] {
        let notice = Notice { last_month: month(last_month), fee: Nanos::ZERO };
        let agreement = agreement(renewed.clone(), Some(notice));
        let found = rows(&agreement, &[], instant("2026-05"));
        assert_eq!(statuses(&found), expected, "{last_month}");
        assert!(found.iter().all(|row| row.contract.ends_at == instant(ends_at)), "{last_month}");
        assert_eq!(rows(&agreement, &[], instant("2027-05")).len(), expected.len(), "{last_month}: afterwards, too");
    }
}

fn amended(first: ContractTerms, (from, then): (&str, ContractTerms)) -> Agreement {
    let versions = vec![TermsVersion::new(first.starts, first).unwrap(), TermsVersion::new(month(from), then).unwrap()];
    Agreement::new(versions, None).unwrap()
}

#[test]
fn what_a_shorter_term_cuts_off_is_canceled_and_stays() {
    let shorter = amended(ContractTerms { months: 12, ..terms() }, ("2026-05", terms()));
    let agreed_at = [instant("2026-02"), instant("2026-04")];
    let found = rows_agreed((&shorter, &agreed_at), &[], instant("2026-04"));
    assert_eq!(statuses(&found), ["Active", "Pending", "Pending", "Canceled", "Canceled", "Canceled"]);
    let terms_of: Vec<bool> = found.iter().map(|row| row.terms == shorter.versions()[0].hash).collect();
    assert_eq!(terms_of, [true, false, false, true, true, true], "the last terms that had it");
    assert!(found.iter().all(|row| row.contract.ends_at == instant("2026-09")));
    assert!(found[3..].iter().all(|row| row.updated_at == agreed_at[1] && row.fee.is_none() && row.committed == euros(20)));
    let later = rows_agreed((&shorter, &agreed_at), &[], instant("2027-05"));
    assert_eq!(statuses(&later)[2..], ["Expired", "Canceled", "Canceled", "Canceled"]);
    // A term that was renewed, and then is to end within.
    let first = ContractTerms { renewal: Some(RenewalTerms { months: 6, notice_months: 1 }), ..terms() };
    let ending = amended(first, ("2026-11", ContractTerms { months: 10, ..terms() }));
    for (agreed, expected) in [("2026-08", 5), ("2026-10", 6)] {
        let found = rows_agreed((&ending, &[instant("2026-02"), instant(agreed)]), &[], instant("2027-05"));
        assert_eq!(found.len(), expected, "{agreed}: only what was announced");
        assert_eq!(found.iter().filter(|row| row.status == CommitmentStatus::Canceled).count(), expected - 5, "{agreed}");
    }
}

#[test]
fn a_row_was_updated_when_anything_of_it_changed() {
    let renewal = Some(RenewalTerms { months: 6, notice_months: 1 });
    let agreement = amended(ContractTerms { renewal, ..terms() }, ("2026-07", ContractTerms { renewal, months: 8, ..terms() }));
    let agreed_at = [instant("2026-02"), instant("2026-05").plus(sublet_core::DurationMs::from_hours(5))];
    let updated = |as_of: Timestamp| -> Vec<Timestamp> {
        rows_agreed((&agreement, &agreed_at), &[], as_of).iter().map(|row| row.updated_at).take(4).collect()
    };
    let [march, may] = [instant("2026-03"), agreed_at[1]];
    let june = instant("2026-06");
    // Use counts until then, and an amendment may change every row.
    assert_eq!(updated(june), [may, june, may, may]);
    let ends = |of: [&str; 4]| of.map(instant).to_vec();
    assert_eq!(updated(instant("2026-08")), [may, instant("2026-07"), instant("2026-08"), may]);
    // The next term begins, so the contract ends later.
    assert_eq!(updated(instant("2026-11")), ends(["2026-11"; 4]));
    assert_eq!(updated(instant("2027-01")), ends(["2026-11"; 4]));
    let before = rows(&self::agreement(terms(), None), &[], march);
    assert_eq!(
        before.iter().map(|row| row.updated_at).collect::<Vec<_>>(),
        ends(["2026-03", "2026-02", "2026-02", "2026-02"])[..3]
    );
    // Notice had fixed the end before.
    let notice = Notice { last_month: month("2027-02"), fee: Nanos::ZERO };
    let left = rows(&self::agreement(ContractTerms { renewal, ..terms() }, Some(notice)), &[], instant("2026-10"));
    assert_eq!(left.last().unwrap().updated_at, march);
}

#[test]
fn a_renewed_term_is_there_when_it_runs() {
    let renewed = ContractTerms { renewal: Some(RenewalTerms { months: 4, notice_months: 1 }), ..terms() };
    let agreement = agreement(renewed, None);
    let lengths: Vec<usize> =
        ["2026-03", "2026-08", "2026-09", "2027-01"].iter().map(|of| rows(&agreement, &[], instant(of)).len()).collect();
    assert_eq!(lengths, [3, 3, 5, 7]);
}

#[test]
fn what_covers_one_discount_is_one() {
    let discounts = |found: &[(SkuFamily, u32)]| {
        let discounts = found.iter().map(|(family, off_ppm)| Discount { off_ppm: *off_ppm, on: Discounted::Family(*family) });
        ContractTerms { pricing: Some(PriceTerms { discounts: discounts.collect(), ..PriceTerms::default() }), ..terms() }
    };
    let (tokens, time) = (SkuFamily::ModelTokens, SkuFamily::DeviceTime);
    for (terms, expected) in [
        (terms(), ["Other", "-"]),
        (discounts(&[(tokens, 125_000), (time, 125_000)]), ["Discount", "0.125"]),
        (discounts(&[(tokens, 125_000), (time, 125_001)]), ["Other", "-"]),
        (discounts(&[(tokens, 125_000)]), ["Other", "-"]),
        (of_quantities(), ["Entitlement", "-"]),
    ] {
        let found = rows(&agreement(terms, None), &[], instant("2026-03")).remove(0);
        let names = ["ContractCommitmentBenefitCategory", "ContractCommitmentDiscountPercentage"];
        assert_eq!(names.map(|name| cell(&found, name)), expected);
    }
}

#[test]
fn use_says_what_it_counts() {
    let contract = "ctr_1".parse().unwrap();
    let spend = AppliedUse::at(&contract, &agreement(terms(), None), month("2026-05")).unwrap().unwrap();
    let device: SkuName = "device/n2m/cpu".parse().unwrap();
    let quantity = Decimal::ratio(1_500, 1_000).unwrap();
    assert_eq!(
        spend.applied(&device, (Nanos::new(-5), quantity)).unwrap(),
        r#"{"Elements":[{"ContractCommitmentAppliedCost":-0.000000005,"ContractCommitmentId":"ctr_1/2","ContractId":"ctr_1"}]}"#
    );
    assert_eq!(spend.applied(&SkuName::ProjectMonth, (euros(1), quantity)), None);
    let units = AppliedUse::at(&contract, &agreement(of_quantities(), None), month("2026-05")).unwrap().unwrap();
    let said = units.applied(&device, (euros(1), quantity)).unwrap();
    let parsed: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(parsed["Elements"][0]["ContractCommitmentAppliedUnit"], "Device-Seconds");
    assert!(said.contains(r#""ContractCommitmentAppliedQuantity":1.5,"#), "{said}");
    assert_eq!(AppliedUse::at(&contract, &agreement(terms(), None), month("2026-09")).unwrap(), None);
}

proptest! {
    /// Quantities of parts add up to that of the whole: metered units are finite decimals.
    #[test]
    fn metered_parts_add_up(parts in prop::collection::vec(0_i64..100_000_000, 1..50)) {
        for sku in ["device/n2m/cpu", "tokens/output/m"] {
            let unit = sku.parse::<SkuName>().unwrap().pricing_unit();
            let metered = |count: i64| Decimal::ratio(count, consumed_base(unit)).unwrap().unscaled();
            prop_assert_eq!(parts.iter().map(|part| metered(*part)).sum::<i128>(), metered(parts.iter().sum()));
        }
    }
}
