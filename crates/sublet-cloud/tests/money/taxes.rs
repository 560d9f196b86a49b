//! Taxes: payments that are gross, invoices with parties and taxes, what is owed of them, and credit notes.

use serde_json::{Value, json};
use sublet_cloud::credit::NewCredit;
use sublet_cloud::export::Dataset;
use sublet_cloud::idempotency::Call;
use sublet_cloud::tax::AccountTax;
use sublet_cloud::{Actor, Cloud};
use sublet_core::id::OrganizationId;
use sublet_core::{DurationMs, ErrorCode, Nanos, Result};
use sublet_money::account::CreditKind;
use sublet_money::balance::CustomerFunds;
use sublet_money::credit_lot::CreditTerms;
use sublet_money::invoice::InvoiceState;
use sublet_money::tax::{BillingProfile, SellerProfile, TaxTable};
use sublet_store::PageRequest;
use sublet_testkit::session::Session;
use sublet_testkit::tenant::created;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;
use crate::contracts::admin_of;
use crate::exports::{by_document, file, rows, wanted};
use crate::months::{close, credit, customer, issued, month, used};

const HOUR: DurationMs = DurationMs::from_seconds(3_600);
const ZONE: &str = "Europe/Berlin";
const CENT: i64 = UNIT / 100;
/// Output tokens at 0.6 for a thousand thousand: of one euro.
const EURO_OF_TOKENS: i64 = 1_666_667;

pub fn buyer(country: &str, part: Option<&str>, tax_id: Option<&str>) -> BillingProfile {
    let mut address = json!({ "lines": ["Street 1"], "city": "City", "country": country });
    let mut party = json!({ "legal_name": "Buyer" });
    if let Some(part) = part {
        address["subdivision"] = json!(part);
    }
    if let Some(id) = tax_id {
        party["tax_id"] = json!(id);
    }
    party["address"] = address;
    serde_json::from_value(json!({ "buyer": { "party": party } })).expect("a profile")
}

fn row(place: &str, name: &str, ppm: u32, from: &str) -> Value {
    json!({ "jurisdiction": place, "name": name, "rate_ppm": ppm, "from": from })
}

/// A German seller that collects German tax, from April 2026 on at another rate, and that of Quebec.
pub async fn sells(cloud: &Cloud) {
    let address = json!({ "lines": ["Street 2"], "city": "Berlin", "postal_code": "10115", "country": "DE" });
    let party = json!({ "legal_name": "Seller GmbH", "address": address, "tax_id": "DE123456789" });
    let bank = json!({ "iban": "DE89370400440532013000" });
    let profile = json!({ "seller": { "party": party, "bank": bank }, "terms": { "net_days": 14 } });
    let profile: SellerProfile = serde_json::from_value(profile).expect("a profile");
    cloud.set_seller(&Actor::system(), &profile).await.expect("it is set");
    let rows = json!({ "rows": [
        row("DE", "VAT", 190_000, "2007-01-01"),
        row("DE", "VAT", 160_000, "2026-04-01"),
        row("CA-QC", "GST", 50_000, "2008-01-01"),
        row("CA-QC", "QST", 99_750, "2013-01-01"),
    ] });
    let table: TaxTable = serde_json::from_value(rows).expect("a table");
    cloud.set_tax_table(&Actor::system(), &table).await.expect("it is set");
}

pub async fn bills_to(cloud: &Cloud, organization: &OrganizationId, profile: BillingProfile) -> Result<AccountTax> {
    cloud.set_billing_profile(&Actor::system(), organization, profile).await
}

async fn granted(cloud: &Cloud, session: &Session, kind: CreditKind, amount: i64) {
    let (organization, reference) = (session.access.organization.clone(), "test".to_owned());
    let new =
        NewCredit { organization, kind, amount: Nanos::new(amount), currency: None, reference, terms: CreditTerms::default() };
    created(cloud.grant_credit(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
}

async fn funds(cloud: &Cloud, session: &Session) -> CustomerFunds {
    cloud.credit_balance(&Actor::system(), &session.access.organization).await.expect("a balance").funds
}

/// What is available, kept for tax, owed and taxed, in cents; parts of cents left out.
async fn cents(cloud: &Cloud, session: &Session) -> [i64; 4] {
    let funds = funds(cloud, session).await;
    [funds.available, funds.tax_prepaid, funds.owed, funds.taxed].map(|amount| amount.get().div_euclid(CENT))
}

/// Ten euros, and a part of a cent.
async fn ten_used(session: &Session) {
    for _ in 0..2 {
        used(session, 5 * EURO_OF_TOKENS).await;
    }
}

async fn to_end_of(cloud: &TestCloud, next: &str) {
    cloud.clock.set(month(ZONE, next).plus(HOUR));
    close(&cloud.cloud).await;
}

/// `total + tax, due, state` of each issued invoice, in cents, and its treatments.
async fn invoices(cloud: &TestCloud, session: &Session) -> Vec<String> {
    let text = |bill: &sublet_cloud::invoice::Bill| {
        let content = &bill.invoice.content;
        let tax = content.tax.as_ref().map_or_else(
            || "none".to_owned(),
            |tax| {
                let line = |line: &sublet_money::tax::TaxLine| {
                    let tax = &line.treatment;
                    format!(
                        "{} {} {}% of {} {}",
                        tax.category,
                        tax.name,
                        tax.rate_ppm,
                        line.base.get() / CENT,
                        line.amount.get() / CENT
                    )
                };
                tax.lines.iter().map(line).collect::<Vec<_>>().join(", ")
            },
        );
        let (total, gross) = (content.total.get() / CENT, content.gross().expect("an amount").get() / CENT);
        format!("{total} {gross} due {} {}: {tax}", bill.due.get() / CENT, bill.invoice.state.as_str())
    };
    issued(cloud, &session.access.organization).await.iter().map(text).collect()
}

pub async fn adds_up(cloud: &Cloud) {
    let verified = cloud.verify_ledger(&Actor::system()).await.expect("a verification");
    assert_eq!(verified.findings, Vec::<String>::new());
}

on_both_databases! {
    async fn what_is_prepaid_has_its_tax_and_a_rate_changes_at_the_months_edge(cloud: &TestCloud) {
        sells(&cloud.cloud).await;
        let session = customer(cloud, "acme", ZONE, 0).await;
        let organization = session.access.organization.clone();
        let view = bills_to(&cloud.cloud, &organization, buyer("DE", None, None)).await.expect("it is set");
        assert_eq!(view.treatments[0].rate_ppm.to_string(), "19");
        granted(&cloud.cloud, &session, CreditKind::Paid, 119 * UNIT).await;
        assert_eq!(cents(&cloud.cloud, &session).await, [10_000, 1_900, 0, 0]);
        ten_used(&session).await;
        to_end_of(cloud, "2026-04").await;
        assert_eq!(invoices(cloud, &session).await, ["1000 1190 due 0 paid: S VAT 19% of 1000 190"]);
        assert_eq!(cents(&cloud.cloud, &session).await, [8_999, 1_710, 0, 190]);
        // The last instant of April in Berlin is in April, at the rate of April.
        ten_used(&session).await;
        to_end_of(cloud, "2026-05").await;
        assert_eq!(invoices(cloud, &session).await[1], "1000 1160 due 0 paid: S VAT 16% of 1000 160");
        let bill = issued(cloud, &organization).await.pop().expect("an invoice");
        let terms = bill.invoice.content.terms.as_ref().expect("terms");
        assert_eq!(terms.net_days, 14);
        assert_eq!(bill.invoice.content.buyer.as_ref().expect("a buyer").party.legal_name, "Buyer");
        adds_up(&cloud.cloud).await;
    }

    async fn what_is_postpaid_is_owed_gross(cloud: &TestCloud) {
        sells(&cloud.cloud).await;
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        bills_to(&cloud.cloud, &session.access.organization, buyer("DE", None, Some("DE987654321"))).await.expect("it is set");
        ten_used(&session).await;
        to_end_of(cloud, "2026-04").await;
        assert_eq!(invoices(cloud, &session).await, ["1000 1190 due 1190 issued: S VAT 19% of 1000 190"]);
        assert_eq!(cents(&cloud.cloud, &session).await, [8_999, 0, 190, 190], "tax takes nothing of the credit limit");
        adds_up(&cloud.cloud).await;
        // 5.95 at 16 percent, the rate of the day it came: 5.12 and 0.83, which pays tax that is owed.
        granted(&cloud.cloud, &session, CreditKind::Paid, 595 * CENT).await;
        assert_eq!(cents(&cloud.cloud, &session).await, [9_511, 0, 107, 190]);
        assert_eq!(invoices(cloud, &session).await, ["1000 1190 due 595 issued: S VAT 19% of 1000 190"]);
        granted(&cloud.cloud, &session, CreditKind::Paid, 595 * CENT).await;
        assert_eq!(invoices(cloud, &session).await, ["1000 1190 due 0 paid: S VAT 19% of 1000 190"]);
        // 0.23 of paid credit are above zero and pay what tax is missing; less than a cent is left to pay.
        assert_eq!(cents(&cloud.cloud, &session).await, [10_000, 0, 0, 190]);
        assert!(funds(&cloud.cloud, &session).await.owed > Nanos::ZERO);
        granted(&cloud.cloud, &session, CreditKind::Paid, UNIT).await;
        assert_eq!(funds(&cloud.cloud, &session).await.owed, Nanos::ZERO);
        adds_up(&cloud.cloud).await;
    }

    async fn the_buyer_owes_the_tax_once_its_number_is_known(cloud: &TestCloud) {
        sells(&cloud.cloud).await;
        let session = customer(cloud, "acme", ZONE, 0).await;
        let organization = session.access.organization.clone();
        // Nobody knows who buys: taxed as at home.
        granted(&cloud.cloud, &session, CreditKind::Paid, 119 * UNIT).await;
        assert_eq!(cents(&cloud.cloud, &session).await, [10_000, 1_900, 0, 0]);
        let refused = bills_to(&cloud.cloud, &organization, buyer("AT", None, None)).await.expect_err("no rate");
        assert_eq!(refused.param_name(), Some("party"));
        assert!(refused.alternatives()[0].contains("VAT number"), "{:?}", refused.alternatives());
        let admin = admin_of(&session);
        let own = buyer("AT", None, Some("ATU12345678"));
        let view = cloud.cloud.set_billing_profile(&admin, &organization, own).await.expect("it is set");
        assert_eq!(view.treatments[0].reason_code.as_deref(), Some("VATEX-EU-AE"));
        // What is kept for tax is kept until it is known that the month needs none.
        assert_eq!(cents(&cloud.cloud, &session).await, [10_000, 1_900, 0, 0]);
        ten_used(&session).await;
        to_end_of(cloud, "2026-04").await;
        assert_eq!(cents(&cloud.cloud, &session).await, [10_899, 0, 0, 0]);
        assert_eq!(invoices(cloud, &session).await, ["1000 1000 due 0 paid: AE VAT 0% of 1000 0"]);
        // Exempting itself is not for the customer.
        let mut exempt = buyer("DE", None, None);
        exempt.exemption = serde_json::from_value(json!({ "certificate": "17", "reason": "Armed forces" })).expect("one");
        let refused = cloud.cloud.set_billing_profile(&admin, &organization, exempt.clone()).await.expect_err("not its own");
        assert_eq!((refused.code(), refused.param_name()), (ErrorCode::PolicyRefused, Some("exemption")));
        bills_to(&cloud.cloud, &organization, exempt).await.expect("by the operator");
        ten_used(&session).await;
        to_end_of(cloud, "2026-05").await;
        assert_eq!(invoices(cloud, &session).await[1], "1000 1000 due 0 paid: E VAT 0% of 1000 0");
        let moved = cloud.cloud.set_billing_profile(&admin, &organization, buyer("DE", None, None)).await.expect("it is set");
        assert!(moved.profile.expect("a profile").exemption.is_some(), "it stays");
        adds_up(&cloud.cloud).await;
    }

    async fn gifts_lower_the_base_of_the_next_invoices(cloud: &TestCloud) {
        sells(&cloud.cloud).await;
        let session = customer(cloud, "acme", ZONE, 0).await;
        bills_to(&cloud.cloud, &session.access.organization, buyer("CA", Some("QC"), None)).await.expect("it is set");
        granted(&cloud.cloud, &session, CreditKind::Promotional, 14 * UNIT).await;
        granted(&cloud.cloud, &session, CreditKind::Paid, 100 * UNIT).await;
        for next in ["2026-04", "2026-05", "2026-06"] {
            ten_used(&session).await;
            to_end_of(cloud, next).await;
        }
        assert_eq!(invoices(cloud, &session).await, [
            "1000 1000 due 0 paid: S GST 5% of 0 0, S QST 9.975% of 0 0",
            "1000 1090 due 0 paid: S GST 5% of 600 30, S QST 9.975% of 600 60",
            "1000 1150 due 0 paid: S GST 5% of 1000 50, S QST 9.975% of 1000 100",
        ]);
        adds_up(&cloud.cloud).await;
    }

    async fn credit_notes_give_back_all_of_the_tax_and_no_more(cloud: &TestCloud) {
        sells(&cloud.cloud).await;
        let session = customer(cloud, "acme", ZONE, 0).await;
        bills_to(&cloud.cloud, &session.access.organization, buyer("DE", None, None)).await.expect("it is set");
        granted(&cloud.cloud, &session, CreditKind::Paid, 119 * UNIT).await;
        ten_used(&session).await;
        to_end_of(cloud, "2026-04").await;
        let bill = issued(cloud, &session.access.organization).await.remove(0);
        let mut taxes = Vec::new();
        for amount in [333, 333, 334] {
            taxes.push(credit(cloud, &bill.invoice.id, amount * CENT).await.expect("a note").tax.get() / CENT);
            adds_up(&cloud.cloud).await;
        }
        assert_eq!(taxes, [63, 64, 63], "63.27, 126.54 and 190 in all");
        let exported = |period: &'static str| async move {
            by_document(&rows(file(&cloud.cloud, &Actor::system(), &wanted(Dataset::Focus, period)).await.expect("a file")))
        };
        let number = bill.invoice.number.expect("it is issued").to_string();
        assert_eq!(exported("2026-03").await.get(&number), Some(&Nanos::new(1_190 * CENT)), "with its tax");
        let notes: i64 = exported("2026-04").await.iter().filter(|(name, _)| name.starts_with("CN")).map(|(_, sum)| sum.get()).sum();
        assert_eq!(notes, -1_190 * CENT);
        assert_eq!(cents(&cloud.cloud, &session).await, [9_999, 1_900, 0, 0]);
        let bill = cloud.cloud.get_invoice(&Actor::system(), &bill.invoice.id).await.expect("it is there");
        assert!(matches!(bill.invoice.state, InvoiceState::Void { .. }));
        assert_eq!(bill.credited_tax, Nanos::new(190 * CENT));
        let more = credit(cloud, &bill.invoice.id, CENT).await.expect_err("all of it was credited");
        assert_eq!(more.code(), ErrorCode::InvalidAmount);
    }

    async fn without_a_seller_nothing_is_said_of_taxes(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 0).await;
        let organization = session.access.organization.clone();
        let view = bills_to(&cloud.cloud, &organization, buyer("AT", None, None)).await.expect("it is kept for later");
        assert_eq!((view.treatments.len(), view.terms), (0, None));
        granted(&cloud.cloud, &session, CreditKind::Paid, 119 * UNIT).await;
        ten_used(&session).await;
        to_end_of(cloud, "2026-04").await;
        assert_eq!(invoices(cloud, &session).await, ["1000 1000 due 0 paid: none"]);
        let bill = issued(cloud, &organization).await.remove(0);
        let text = serde_json::to_string(&bill.invoice.content).expect("JSON");
        for member in ["seller", "buyer", "terms", "tax"] {
            assert!(!text.contains(&format!("\"{member}\":")), "{member}");
        }
        // Somebody sells, and the table lacks what this account needs: its month waits, and is closed once it is there.
        used(&session, EURO_OF_TOKENS).await;
        sells(&cloud.cloud).await;
        granted(&cloud.cloud, &session, CreditKind::Paid, 10 * UNIT).await;
        cloud.clock.set(month(ZONE, "2026-05").plus(HOUR));
        assert_eq!(cloud.cloud.close_months().await.expect("a look").failed, 1);
        assert_eq!(invoices(cloud, &session).await.len(), 1);
        bills_to(&cloud.cloud, &organization, buyer("AT", None, Some("ATU12345678"))).await.expect("it is set");
        assert_eq!(close(&cloud.cloud).await.1, 1);
        assert_eq!(invoices(cloud, &session).await[1], "100 100 due 0 paid: AE VAT 0% of 100 0");
        adds_up(&cloud.cloud).await;
    }

    async fn only_the_operator_says_who_sells_and_only_what_can_be(cloud: &TestCloud) {
        sells(&cloud.cloud).await;
        let session = customer(cloud, "acme", ZONE, 0).await;
        let admin = admin_of(&session);
        let seller = cloud.cloud.seller(&Actor::system()).await.expect("a profile").expect("one");
        let refused = cloud.cloud.set_seller(&admin, &seller).await.expect_err("not the customer");
        assert_eq!(refused.code(), ErrorCode::WrongKeyPlane);
        let mut changed = seller.clone();
        changed.seller.logo = Some("0".repeat(64));
        let refused = cloud.cloud.set_seller(&Actor::system(), &changed).await.expect_err("there is no such image");
        assert_eq!(refused.param_name(), Some("seller.logo"));
        let png = |width: u32| {
            let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
            bytes.extend(width.to_be_bytes());
            bytes.extend(7_u32.to_be_bytes());
            bytes
        };
        for wrong in [b"GIF89a".to_vec(), png(0), png(4_097), vec![0; 200_000]] {
            let refused = cloud.cloud.add_logo(&Actor::system(), &wrong).await.expect_err("no image");
            assert_eq!(refused.param_name(), Some("png"));
        }
        let name = cloud.cloud.add_logo(&Actor::system(), &png(9)).await.expect("an image");
        assert_eq!(cloud.cloud.add_logo(&Actor::system(), &png(9)).await.expect("the same"), name);
        assert_eq!(cloud.cloud.get_logo(&name).await.expect("it is there"), png(9));
        changed.seller.logo = Some(name);
        cloud.cloud.set_seller(&Actor::system(), &changed).await.expect("it is there now");
        let deeds = cloud.cloud.list_audit(&Actor::system(), &PageRequest { limit: Some(100), ..PageRequest::default() }).await;
        let deeds: Vec<_> = deeds.expect("a log").items.into_iter().map(|entry| entry.action).collect();
        for action in ["seller.set", "tax_table.set", "logo.add"] {
            assert!(deeds.iter().any(|deed| deed == action), "{action}");
        }
    }
}
