//! One-time fees: what an operator charges an account once, by name and at its price.

use sublet_cloud::fee::NewFee;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::{Actor, Cloud};
use sublet_core::{DurationMs, ErrorCode, Nanos, Result};
use sublet_money::price_book::{PriceEntry, PriceListDraft};
use sublet_money::sku::{Quantity, SkuFamily, SkuName};
use sublet_store::PageRequest;
use sublet_store::fee::StoredFee;
use sublet_testkit::session::Session;
use sublet_testkit::tenant::{created, pay_in};
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;
use crate::contracts::admin_of;
use crate::months::{close, customer, issued, month};

const HOUR: DurationMs = DurationMs::from_seconds(3_600);
const NAME: &str = "set-up";

/// A version a second from now in which the fee costs so much.
async fn publish_fee(cloud: &TestCloud, price: i64) {
    cloud.clock.advance(DurationMs::from_seconds(1));
    let lists = cloud.cloud.prices().snapshot();
    let list = lists.values().next().expect("a list");
    let sku = SkuName::Fee { fee: NAME.parse().expect("a name") };
    let newest = list.versions().last().expect("a version").entries();
    let mut entries: Vec<PriceEntry> = newest.filter(|entry| entry.sku != sku).cloned().collect();
    entries.push(PriceEntry::per_unit(sku, Nanos::new(price)));
    let (at, name) = (cloud.now(), list.name.clone());
    let draft = PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at: at, entries };
    cloud.cloud.publish_prices(&Call::once(Actor::system()), &name, draft, at).await.expect("the list is published");
}

fn fee(of: &Session, quantity: i64) -> NewFee {
    NewFee {
        organization: of.access.organization.clone(),
        project: of.access.project.clone(),
        name: NAME.parse().expect("a name"),
        quantity: Quantity::new(quantity).expect("a quantity"),
        note: "two racks".to_owned(),
    }
}

async fn charged(cloud: &Cloud, call: &Call, new: &NewFee) -> Result<Answer<StoredFee>> {
    cloud.charge_fee(call, new, &|fee| Ok(fee.id.to_string())).await
}

on_both_databases! {
    async fn a_fee_is_charged_once_however_often_its_call_is_repeated(cloud: &TestCloud) {
        publish_fee(cloud, 3 * UNIT).await;
        cloud.clock.set(month("UTC", "2026-04"));
        let session = customer(cloud, "c1", "UTC", 0).await;
        let organization = session.access.organization.clone();
        pay_in(&cloud.cloud, &organization, Nanos::new(10 * UNIT)).await;
        let call = Call::under_key(Actor::system(), "CreateFee", "set-up of c1", "{}").expect("a call");
        let first = created(charged(&cloud.cloud, &call, &fee(&session, 2)).await);
        let again = charged(&cloud.another(7).await, &call, &fee(&session, 2)).await.expect("a repeat");
        assert!(matches!(again, Answer::Replayed(ref id) if *id == first.id.to_string()));
        assert_eq!(first.amount, Nanos::new(6 * UNIT));
        let admin = admin_of(&session);
        let funds = cloud.cloud.credit_balance(&admin, &organization).await.expect("a balance").funds;
        assert_eq!((funds.available, funds.captured), (Nanos::new(4 * UNIT), Nanos::new(6 * UNIT)));
        let path = format!("income:usage:{}:{organization}", SkuFamily::OneTimeFees);
        let accounts = cloud.cloud.list_ledger_accounts(&Actor::system(), "").await.expect("accounts");
        let income = accounts.iter().find(|account| account.account.to_string() == path).expect("an account");
        assert_eq!(income.totals.credits, Nanos::new(6 * UNIT));
        // Another is another one, at the price that holds then; the line of the old price stays.
        publish_fee(cloud, 4 * UNIT).await;
        created(charged(&cloud.cloud, &Call::once(Actor::system()), &fee(&session, 1)).await);
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        assert_eq!(close(&cloud.cloud).await.1, 1);
        let content = &issued(cloud, &organization).await[0].invoice.content;
        let mut lines: Vec<_> = content.lines.iter().map(|line| (line.quantity.get(), line.charges.amount.get(), line.price.clone())).collect();
        lines.sort();
        assert_eq!(lines, [(1, 4 * UNIT, "4 EUR per fee".to_owned()), (2, 6 * UNIT, "3 EUR per fee".to_owned())]);
        let fees = cloud.cloud.list_fees(&admin, None, &PageRequest::default()).await.expect("fees").items;
        assert_eq!((fees.len(), fees.contains(&first)), (2, true));
        cloud.assert_books_balance().await;
    }

    async fn a_fee_beyond_the_credit_limit_is_refused_whole(cloud: &TestCloud) {
        publish_fee(cloud, 3 * UNIT).await;
        let session = customer(cloud, "c1", "UTC", 5 * UNIT).await;
        let refused = charged(&cloud.cloud, &Call::once(Actor::system()), &fee(&session, 2)).await.expect_err("too much");
        assert_eq!(refused.code(), ErrorCode::InsufficientQuota);
        assert!(refused.to_string().contains('5') && refused.to_string().contains('6'), "{refused}");
        // Postpaid down to the limit.
        created(charged(&cloud.cloud, &Call::once(Actor::system()), &fee(&session, 1)).await);
        let funds = cloud.cloud.credit_balance(&admin_of(&session), &session.access.organization).await.expect("a balance").funds;
        assert_eq!((funds.available, funds.captured), (Nanos::new(2 * UNIT), Nanos::new(3 * UNIT)));
        cloud.assert_books_balance().await;
    }

    async fn what_cannot_be_charged_is_refused_with_its_member(cloud: &TestCloud) {
        publish_fee(cloud, 3 * UNIT).await;
        let session = customer(cloud, "c1", "UTC", 100 * UNIT).await;
        let other = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let good = fee(&session, 1);
        for (new, code, param) in [
            (NewFee { name: "support".parse().expect("a name"), ..good.clone() }, ErrorCode::UnknownPrice, "fee"),
            (NewFee { quantity: Quantity::ZERO, ..good.clone() }, ErrorCode::InvalidRequest, "quantity"),
            (NewFee { quantity: Quantity::new(1_000_001).expect("many"), ..good.clone() }, ErrorCode::InvalidRequest, "quantity"),
            (NewFee { note: String::new(), ..good.clone() }, ErrorCode::InvalidRequest, "note"),
            (NewFee { project: other.access.project.clone(), ..good.clone() }, ErrorCode::NotFound, "project"),
            (NewFee { organization: "org_none".parse().expect("an id"), ..good.clone() }, ErrorCode::NotFound, "organization"),
        ] {
            let refused = charged(&cloud.cloud, &Call::once(Actor::system()), &new).await.expect_err("it cannot be charged");
            assert_eq!((refused.code(), refused.param_name()), (code, Some(param)), "{refused}");
        }
        let admin = admin_of(&session);
        let refused = charged(&cloud.cloud, &Call::once(admin.clone()), &good).await.expect_err("the operator's alone");
        assert_eq!(refused.code(), ErrorCode::WrongKeyPlane);
        assert!(cloud.cloud.list_fees(&admin, None, &PageRequest::default()).await.expect("none").items.is_empty());
    }

    async fn no_tenant_sees_the_fees_of_another(cloud: &TestCloud) {
        publish_fee(cloud, 3 * UNIT).await;
        let (one, two) = (customer(cloud, "c1", "UTC", 100 * UNIT).await, customer(cloud, "c2", "UTC", 100 * UNIT).await);
        let charged = created(charged(&cloud.cloud, &Call::once(Actor::system()), &fee(&one, 1)).await);
        let seen = async |by: &Actor, of: Option<&Session>| {
            let of = of.map(|session| &session.access.organization);
            let page = PageRequest::default();
            cloud.cloud.list_fees(by, of, &page).await.expect("fees").items.into_iter().map(|fee| fee.id).collect::<Vec<_>>()
        };
        assert_eq!(seen(&admin_of(&one), None).await, std::slice::from_ref(&charged.id));
        assert!(seen(&admin_of(&two), Some(&one)).await.is_empty());
        assert_eq!(seen(&Actor::system(), Some(&one)).await, [charged.id]);
        assert!(seen(&Actor::system(), Some(&two)).await.is_empty());
    }
}
