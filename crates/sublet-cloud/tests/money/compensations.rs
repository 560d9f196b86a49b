//! Credit for a level of service that was missed: a share of an issued invoice, never more than was charged.

use serde_json::{Map, Value, json};
use sublet_cloud::Actor;
use sublet_cloud::compensation::NewServiceCredit;
use sublet_cloud::data::{SkuFamily, StoredCompensation};
use sublet_cloud::idempotency::{Answer, Call};
use sublet_core::id::InvoiceId;
use sublet_core::{DurationMs, ErrorCode, Nanos, Result};
use sublet_store::PageRequest;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;
use crate::contracts::admin_of;
use crate::months::{close, credit, customer, issued, month, used};

const ZONE: &str = "Europe/Berlin";

fn measured(members: Value) -> Map<String, Value> {
    match members {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}

fn asked(invoice: &InvoiceId, share_ppm: u32) -> NewServiceCredit {
    NewServiceCredit {
        invoice: invoice.clone(),
        family: None,
        share_ppm,
        evidence: measured(json!({ "availability_ppm": 994_000, "target_ppm": 999_000 })),
        note: "availability in March was 99.4 %".to_owned(),
    }
}

async fn give(cloud: &TestCloud, new: &NewServiceCredit) -> Result<StoredCompensation> {
    match cloud.cloud.grant_service_credit(&Call::once(Actor::system()), new, &|_| Ok(String::new())).await? {
        Answer::New(given) => Ok(given),
        Answer::Replayed(text) => panic!("a repeat: {text}"),
    }
}

on_both_databases! {
    async fn a_share_of_an_invoice_becomes_credit_with_its_evidence_once(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        used(&session, 5_000_000).await;
        let admin = admin_of(&session);
        let draft = cloud.cloud.draft_invoice(&admin, &session.access.organization, None).await.expect("a draft").invoice.id;
        let early = give(cloud, &asked(&draft, 100_000)).await.expect_err("its charges are not final");
        assert!([ErrorCode::NotFound, ErrorCode::Conflict].contains(&early.code()), "{early}");
        cloud.clock.set(month(ZONE, "2026-04").plus(DurationMs::from_seconds(3_600)));
        close(&cloud.cloud).await;
        let bill = issued(cloud, &session.access.organization).await.pop().expect("an invoice");
        let charged = bill.invoice.content.lines.iter().map(|line| line.charges.amount.get()).sum::<i64>();
        let before = cloud.cloud.credit_balance(&admin, &session.access.organization).await.expect("a balance").funds;
        // A repeat of the same call gives nothing twice.
        let call = Call::under_key(Actor::system(), "create_compensation", "k-1", "body").expect("a call");
        let render = |given: &StoredCompensation| Ok(given.id.to_string());
        let new = asked(&bill.invoice.id, 100_000);
        let Answer::New(given) = cloud.cloud.grant_service_credit(&call, &new, &render).await.expect("given") else { panic!("new") };
        let again = cloud.cloud.grant_service_credit(&call, &new, &render).await.expect("the same");
        assert_eq!(again, Answer::Replayed(given.id.to_string()));
        assert_eq!(given.amount, Nanos::new(charged / 10));
        assert_eq!(given.evidence["measured"]["availability_ppm"], 994_000);
        let after = cloud.cloud.credit_balance(&admin, &session.access.organization).await.expect("a balance").funds;
        assert_eq!(after.deposited, before.deposited.checked_add(given.amount).expect("a sum"));
        assert_eq!(after.available, before.available.checked_add(given.amount).expect("a sum"));
        let listed = cloud.cloud.list_compensations(&admin, None, &PageRequest::default()).await.expect("a list").items;
        assert_eq!(listed, std::slice::from_ref(&given));
        assert_eq!(cloud.cloud.get_compensation(&admin, &given.id).await.expect("one"), given);
        // The invoice stays as it was issued.
        let invoice = issued(cloud, &session.access.organization).await.pop().expect("an invoice").invoice;
        assert_eq!(invoice.content, bill.invoice.content);
        cloud.assert_books_balance().await;
    }

    async fn never_more_is_given_back_than_was_charged(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        used(&session, 5_000_000).await;
        cloud.clock.set(month(ZONE, "2026-04").plus(DurationMs::from_seconds(3_600)));
        close(&cloud.cloud).await;
        let id = issued(cloud, &session.access.organization).await.pop().expect("an invoice").invoice.id;
        let refused = async |new: NewServiceCredit, param: &str| {
            let error = give(cloud, &new).await.expect_err("refused");
            assert_eq!(error.param_name(), Some(param), "{error}");
        };
        for share in [0, 1_000_001] {
            refused(asked(&id, share), "share_ppm").await;
        }
        refused(NewServiceCredit { evidence: measured(json!({})), ..asked(&id, 1) }, "evidence").await;
        refused(NewServiceCredit { evidence: measured(json!({ "x": "y".repeat(20_000) })), ..asked(&id, 1) }, "evidence").await;
        refused(NewServiceCredit { note: String::new(), ..asked(&id, 1) }, "note").await;
        refused(NewServiceCredit { family: Some(SkuFamily::DeviceTime), ..asked(&id, 500_000) }, "share_ppm").await;
        let tokens = NewServiceCredit { family: Some(SkuFamily::ModelTokens), ..asked(&id, 600_000) };
        give(cloud, &tokens).await.expect("most of it");
        refused(tokens, "share_ppm").await;
        refused(asked(&id, 500_000), "share_ppm").await;
        let smallest = sublet_core::Currency::EUR.minor_unit().get();
        credit(cloud, &id, smallest).await.expect("a cent of it is taken back");
        refused(asked(&id, 400_000), "share_ppm").await;
        give(cloud, &asked(&id, 300_000)).await.expect("what is left");
        cloud.assert_books_balance().await;
    }

    async fn what_was_given_back_is_not_credited_again(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        used(&session, 5_000_000).await;
        cloud.clock.set(month(ZONE, "2026-04").plus(DurationMs::from_seconds(3_600)));
        close(&cloud.cloud).await;
        let bill = issued(cloud, &session.access.organization).await.pop().expect("an invoice");
        let (id, total) = (bill.invoice.id, bill.invoice.content.total.get());
        give(cloud, &asked(&id, 500_000)).await.expect("half of it");
        credit(cloud, &id, total).await.expect_err("half of it was given back");
        credit(cloud, &id, total / 2).await.expect("the other half");
        cloud.assert_books_balance().await;
    }
}
