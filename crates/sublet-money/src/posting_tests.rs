use std::fmt::Write as _;

use super::*;

fn organization() -> OrganizationId {
    "org_1".parse().unwrap()
}
fn head() -> EntryHead {
    EntryHead { id: "jnl_1".parse().unwrap(), at: Timestamp::EPOCH, currency: Currency::EUR, memo: "why".to_owned() }
}
fn entry(fact: &Fact) -> JournalEntry {
    let entry = post(head(), &organization(), fact).unwrap();
    entry.verify().unwrap();
    entry
}
fn split(promotional: i64, paid: i64) -> CreditSplit {
    CreditSplit { committed: Nanos::ZERO, promotional: Nanos::new(promotional), paid: Nanos::new(paid) }
}
fn nanos(amount: i64) -> Nanos {
    Nanos::new(amount)
}
fn taxes(country: i64, part: i64) -> Vec<JurisdictionTax> {
    let tax = |place: &str, amount| JurisdictionTax { jurisdiction: place.parse().unwrap(), amount: nanos(amount) };
    vec![tax("CA", country), tax("CA-QC", part)]
}

/// The whole rule book of postings, one row for each fact.
#[test]
fn every_fact_has_its_postings() {
    let paid = CreditKind::Paid;
    let promotional = CreditKind::Promotional;
    let (tokens, devices) = (SkuFamily::ModelTokens, SkuFamily::DeviceTime);
    let facts = [
        Fact::CreditGranted { credit: paid, amount: nanos(9) },
        Fact::CreditGranted { credit: promotional, amount: nanos(9) },
        Fact::CreditExpired { credit: paid, amount: nanos(9) },
        Fact::CreditExpired { credit: promotional, amount: nanos(9) },
        Fact::SliceGranted { from: split(4, 5) },
        Fact::SliceReturned { to: split(0, 5) },
        Fact::UsageCaptured { family: tokens, amount: nanos(9) },
        Fact::UsageCaptured { family: tokens, amount: nanos(-9) },
        Fact::HoldPlaced { from: split(0, 9) },
        Fact::HoldCaptured { family: devices, amount: nanos(9) },
        Fact::HoldReleased { to: split(4, 5) },
        Fact::SliceLost { amount: nanos(9) },
        Fact::SuspenseCaptured { family: tokens, amount: nanos(9) },
        Fact::SuspenseReleased { to: split(0, 9) },
        Fact::InvoiceIssued { carry_before: nanos(-2), carry_after: nanos(7) },
        Fact::InvoiceIssued { carry_before: nanos(7), carry_after: nanos(-2) },
        Fact::Tax(TaxFact::Bought { net: nanos(8), tax: nanos(1) }),
        Fact::Tax(TaxFact::Invoiced { taxes: taxes(5, 4), prepaid: nanos(7) }),
        Fact::Tax(TaxFact::Invoiced { taxes: taxes(-5, -4), prepaid: nanos(7) }),
        Fact::Tax(TaxFact::GivenBack { taxes: taxes(5, 4) }),
        Fact::Tax(TaxFact::Settled { prepaid: nanos(2), paid: nanos(7) }),
        Fact::Tax(TaxFact::Released { amount: nanos(9) }),
        Fact::ChargeRaised { family: tokens, from: split(4, 5) },
        Fact::ChargeLowered { family: tokens, to: split(4, 5) },
        Fact::ChargeRefunded { credit: paid, amount: nanos(9) },
        Fact::RefundRequested { net: nanos(8), tax: nanos(1) },
        Fact::RefundPaid { amount: nanos(9) },
        Fact::RefundCalledOff { net: nanos(8), tax: nanos(1) },
        Fact::ProcessorFeeKept { amount: nanos(9) },
        Fact::SupplyBought { amount: nanos(9) },
        Fact::FeeCharged { family: SkuFamily::ProjectFees, from: split(2, 3), owed: nanos(4) },
        Fact::UsageCaptured { family: tokens, amount: nanos(0) },
    ];
    let mut table = String::new();
    for fact in &facts {
        let entry = entry(fact);
        writeln!(table, "{}", entry.kind).unwrap();
        for transfer in &entry.transfers {
            writeln!(table, "    {} → {}  {}", transfer.debit, transfer.credit, transfer.amount.get()).unwrap();
        }
    }
    let cost = post_cost(head(), CostKind::Power, nanos(9)).unwrap();
    writeln!(table, "{}\n    {} → {}  {}", cost.kind, cost.transfers[0].debit, cost.transfers[0].credit, 9).unwrap();
    insta::assert_snapshot!(table);
}

#[test]
fn negative_amounts_are_refused_except_where_a_price_can_fall() {
    for fact in [
        Fact::CreditGranted { credit: CreditKind::Paid, amount: nanos(-1) },
        Fact::SliceGranted { from: split(-1, 2) },
        Fact::HoldReleased { to: split(0, -1) },
        Fact::RefundPaid { amount: nanos(-1) },
    ] {
        assert_eq!(post(head(), &organization(), &fact).unwrap_err().code(), ErrorCode::InvalidAmount, "{fact:?}");
    }
}

#[test]
fn money_comes_and_goes_through_the_processor_that_is_named() {
    let paths = |fact: &Fact| {
        let entry = entry(fact).through(Processor::Stripe);
        entry.transfers.iter().map(|transfer| format!("{} → {}", transfer.debit, transfer.credit)).collect::<Vec<_>>()
    };
    let available = "liabilities:customers:org_1:available";
    for (fact, expected) in [
        (
            Fact::CreditGranted { credit: CreditKind::Paid, amount: nanos(9) },
            format!("assets:cash:stripe:org_1 → {available}:paid"),
        ),
        (
            Fact::CreditGranted { credit: CreditKind::Promotional, amount: nanos(9) },
            format!("income:promotions:org_1 → {available}:promotional"),
        ),
        (
            Fact::RefundPaid { amount: nanos(9) },
            "liabilities:customers:org_1:refunds-payable → assets:cash:stripe:org_1".to_owned(),
        ),
    ] {
        assert_eq!(paths(&fact), [expected]);
    }
}

#[test]
fn a_payout_moves_between_the_owners_own_accounts_and_back() {
    let posted = |fact, amount| {
        let entry = post_payout(head(), (Processor::Stripe, fact), nanos(amount))?;
        Ok::<_, Error>((
            entry.kind,
            entry.transfers.iter().map(|transfer| format!("{} → {}", transfer.debit, transfer.credit)).collect(),
        ))
    };
    let (bank, stripe) = ("assets:payouts:bank:eur", "assets:payouts:stripe:eur");
    for (fact, kind, expected) in [
        (PayoutFact::Made, EntryKind::PayoutMade, format!("{bank} → {stripe}")),
        (PayoutFact::Returned, EntryKind::PayoutReturned, format!("{stripe} → {bank}")),
    ] {
        assert_eq!(posted(fact, 9).unwrap(), (kind, vec![expected]));
        assert_eq!(posted(fact, -1).unwrap_err().code(), ErrorCode::InvalidAmount);
    }
}

#[test]
fn a_memo_is_one_bounded_line() {
    for memo in ["two\nlines".to_owned(), "x".repeat(MEMO_MAX_BYTES + 1)] {
        let head = EntryHead { memo, ..head() };
        assert!(post(head, &organization(), &Fact::RefundPaid { amount: nanos(1) }).is_err());
    }
}
