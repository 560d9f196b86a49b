//! Invoices and credit notes as files: whose they are, what they say, and what is refused.

use serde_json::json;
use sublet_cloud::document::DocumentFormat::{Pdf, Ubl};
use sublet_cloud::invoice::Bill;
use sublet_cloud::{Actor, Cloud};
use sublet_core::{DurationMs, ErrorCode};
use sublet_testkit::session::Session;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;
use crate::contracts::admin_of;
use crate::months::{close, credit, customer, issued, month, used};

const ZONE: &str = "Europe/Berlin";

/// A seller in Germany with its tax, and how the customer is invoiced.
async fn with_parties(cloud: &Cloud, session: &Session) {
    let address = |city: &str| json!({ "lines": ["Werftstraße 1"], "city": city, "postal_code": "24143", "country": "DE" });
    let seller = json!({
        "seller": {
            "party": { "legal_name": "Rechenzentrum Nord GmbH", "address": address("Kiel"), "tax_id": "DE123456788" },
            "bank": { "iban": "DE89370400440532013000" }
        },
        "terms": { "net_days": 14 }
    });
    let table = json!({ "rows": [{ "jurisdiction": "DE", "name": "VAT", "rate_ppm": 190_000, "from": "2020-01-01" }] });
    let party = json!({ "legal_name": "Zahnräder & Söhne GmbH", "address": address("Magdeburg") });
    let profile = json!({ "buyer": { "party": party, "reference": "4711" } });
    let operator = Actor::system();
    cloud.set_seller(&operator, &serde_json::from_value(seller).expect("a seller")).await.expect("set");
    cloud.set_tax_table(&operator, &serde_json::from_value(table).expect("a table")).await.expect("set");
    let profile = serde_json::from_value(profile).expect("a profile");
    cloud.set_billing_profile(&admin_of(session), &session.access.organization, profile).await.expect("set");
}

/// The only invoice of a month in which something was used.
async fn billed(cloud: &TestCloud, session: &Session) -> Bill {
    used(session, 5_000_000).await;
    cloud.clock.set(month(ZONE, "2026-04").plus(DurationMs::from_seconds(3_600)));
    close(&cloud.cloud).await;
    issued(cloud, &session.access.organization).await.pop().expect("an invoice")
}

async fn credited(cloud: &TestCloud, bill: &Bill) -> String {
    credit(cloud, &bill.invoice.id, UNIT).await.expect("a credit note").number.to_string()
}

on_both_databases! {
    async fn an_invoice_without_a_seller_is_a_statement_and_no_ubl(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let bill = billed(cloud, &session).await;
        let (admin, id) = (admin_of(&session), &bill.invoice.id);
        let pdf = cloud.cloud.invoice_document(&admin, id, Pdf).await.expect("a statement");
        assert_eq!(pdf.name, format!("{}.pdf", bill.invoice.number.expect("a number")));
        assert!(pdf.content.starts_with(b"%PDF-1.7"));
        assert_eq!(cloud.cloud.invoice_document(&Actor::system(), id, Pdf).await.expect("the same"), pdf);
        let refused = cloud.cloud.invoice_document(&admin, id, Ubl).await.expect_err("nobody sells");
        assert_eq!(refused.code(), ErrorCode::Conflict);
        assert!(refused.message().contains("who sells"), "{refused}");
    }

    async fn a_taxed_invoice_and_its_credit_notes_are_files_for_programs(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        with_parties(&cloud.cloud, &session).await;
        let bill = billed(cloud, &session).await;
        let (admin, id) = (admin_of(&session), &bill.invoice.id);
        let number = bill.invoice.number.expect("a number");
        let ubl = cloud.cloud.invoice_document(&admin, id, Ubl).await.expect("an invoice");
        let text = String::from_utf8(ubl.content).expect("text");
        assert_eq!(ubl.name, format!("{number}.xml"));
        let gross = bill.invoice.content.gross().expect("a sum");
        for part in [
            format!("<cbc:ID>{number}</cbc:ID>"),
            "Zahnräder &amp; Söhne GmbH".to_owned(),
            format!("<cbc:TaxInclusiveAmount currencyID=\"EUR\">{gross}<"),
        ] {
            assert!(text.contains(&part), "{part} in {text}");
        }
        let note = credited(cloud, &bill).await;
        let xml = cloud.cloud.credit_note_document(&admin, (id, &note), Ubl).await.expect("a credit note");
        let xml = String::from_utf8(xml.content).expect("text");
        assert!(xml.contains("<CreditNote ") && xml.contains(&number.to_string()), "{xml}");
        let second = credited(cloud, &bill).await;
        let second = cloud.cloud.credit_note_document(&admin, (id, &second), Pdf).await.expect("a credit note");
        assert!(second.content.starts_with(b"%PDF-1.7"));
    }

    async fn nobody_gets_anothers_documents_and_drafts_are_for_people(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        with_parties(&cloud.cloud, &session).await;
        let bill = billed(cloud, &session).await;
        let note = credited(cloud, &bill).await;
        let stranger = customer(cloud, "stranger", ZONE, UNIT).await;
        let (id, other) = (&bill.invoice.id, admin_of(&stranger));
        for format in [Pdf, Ubl] {
            let refused = cloud.cloud.invoice_document(&other, id, format).await.expect_err("not theirs");
            assert_eq!(refused.code(), ErrorCode::NotFound);
            let refused = cloud.cloud.credit_note_document(&other, (id, &note), format).await.expect_err("not theirs");
            assert_eq!(refused.code(), ErrorCode::NotFound);
            let refused = cloud.cloud.credit_note_document(&admin_of(&session), (id, "CN-2026-000099"), format).await;
            assert_eq!(refused.expect_err("there is none").code(), ErrorCode::NotFound);
        }
        let draft = cloud.cloud.draft_invoice(&admin_of(&session), &session.access.organization, None).await.expect("a draft");
        let drafted = cloud.cloud.invoice_document(&admin_of(&session), &draft.invoice.id, Pdf).await.expect("a draft");
        assert_eq!(drafted.name, format!("{}.pdf", draft.invoice.id));
        let refused = cloud.cloud.invoice_document(&admin_of(&session), &draft.invoice.id, Ubl).await.expect_err("a draft");
        assert_eq!(refused.code(), ErrorCode::Conflict);
    }
}
