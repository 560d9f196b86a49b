//! Flat prices of projects: what a project is charged for each month in which it was used.

use sublet_cloud::idempotency::Call;
use sublet_cloud::invoice::Bill;
use sublet_cloud::key::NewKey;
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::ModelAccess;
use sublet_core::id::OrganizationId;
use sublet_core::rate::RateLimits;
use sublet_core::usage::UsageSink;
use sublet_core::{DurationMs, Nanos};
use sublet_money::price_book::{PriceEntry, PriceListDraft};
use sublet_money::sku::{SkuFamily, SkuName};
use sublet_testkit::session::Session;
use sublet_testkit::tenant::{created, pay_in};
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;
use crate::contracts::admin_of;
use crate::months::{close, customer, issued, month, used};

const HOUR: DurationMs = DurationMs::from_seconds(3_600);

/// The newest version with this price of a project's month, or with none.
fn with_project_price(cloud: &Cloud, price: Option<i64>) -> PriceListDraft {
    let lists = cloud.prices().snapshot();
    let list = lists.values().next().expect("a list");
    let newest = list.versions().last().expect("a version").entries();
    let mut entries: Vec<PriceEntry> = newest.filter(|entry| entry.sku != SkuName::ProjectMonth).cloned().collect();
    entries.extend(price.map(|price| PriceEntry::per_unit(SkuName::ProjectMonth, Nanos::new(price))));
    PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at: cloud.clock().now(), entries }
}

pub async fn publish_project_price(cloud: &TestCloud, price: Option<i64>) {
    cloud.clock.advance(DurationMs::from_seconds(1));
    let draft = with_project_price(&cloud.cloud, price);
    let name = cloud.cloud.prices().snapshot().values().next().expect("a list").name.clone();
    let (call, at) = (Call::once(Actor::system()), draft.effective_at);
    cloud.cloud.publish_prices(&call, &name, draft, at).await.expect("the list is published");
}

/// What projects are charged by an account's invoices, by month, with how many there were.
async fn fees(cloud: &TestCloud, organization: &OrganizationId) -> Vec<(String, usize, i64)> {
    let fees = |bill: &Bill| {
        let content = &bill.invoice.content;
        let lines: Vec<_> = content.lines.iter().filter(|line| line.sku == SkuName::ProjectMonth).collect();
        assert!(lines.iter().all(|line| line.quantity.get() == 1 && line.charges.count == 1), "{lines:?}");
        (content.period.key.to_string(), lines.len(), lines.iter().map(|line| line.charges.amount.get()).sum())
    };
    issued(cloud, organization).await.iter().map(fees).collect()
}

/// Another project of an account, with a session of a key of it.
async fn another_project(cloud: &TestCloud, of: &Session, gateway: &str) -> Session {
    let admin = admin_of(of);
    let made = cloud.cloud.create_project(&Call::once(admin.clone()), gateway, &|_| Ok(String::new())).await;
    let project = created(made);
    let key = NewKey { name: "work".to_owned(), models: ModelAccess::All, rates: RateLimits::default(), expires_at: None };
    let key = created(cloud.cloud.create_project_key(&Call::once(admin), &project.id, &key).await);
    Session::start(&cloud.cloud, &key.secret, gateway).await
}

on_both_databases! {
    async fn each_project_that_was_used_is_charged_once_at_the_price_of_the_month_s_begin(cloud: &TestCloud) {
        publish_project_price(cloud, Some(5 * UNIT)).await;
        cloud.clock.set(month("UTC", "2026-04"));
        let one = customer(cloud, "c1", "UTC", 100 * UNIT).await;
        let organization = one.access.organization.clone();
        let two = another_project(cloud, &one, "gw_two").await;
        let idle = another_project(cloud, &one, "gw_idle").await;
        used(&one, 1_000).await;
        used(&two, 1_000).await;
        // A dearer list holds from the next month on.
        publish_project_price(cloud, Some(7 * UNIT)).await;
        used(&one, 1_000).await;
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        let other = cloud.another(7).await;
        let (here, there) = tokio::join!(close(&cloud.cloud), close(&other));
        assert_eq!(here.1 + there.1, 1, "one invoice, whoever issues it");
        used(&two, 1_000).await;
        cloud.clock.set(month("UTC", "2026-06").plus(HOUR));
        close(&cloud.cloud).await;
        // A month without any use has no invoice, and a list without the price no fee.
        publish_project_price(cloud, None).await;
        cloud.clock.set(month("UTC", "2026-07").plus(HOUR));
        close(&cloud.cloud).await;
        used(&one, 1_000).await;
        cloud.clock.set(month("UTC", "2026-08").plus(HOUR));
        close(&cloud.cloud).await;
        let april_may_july = [("2026-04", 2, 10 * UNIT), ("2026-05", 1, 7 * UNIT), ("2026-07", 0, 0)];
        assert_eq!(fees(cloud, &organization).await, april_may_july.map(|(month, count, sum)| (month.to_owned(), count, sum)));
        let path = format!("income:usage:{}:{organization}", SkuFamily::ProjectFees);
        let accounts = cloud.cloud.list_ledger_accounts(&Actor::system(), "").await.expect("accounts");
        let income = accounts.iter().find(|account| account.account.to_string() == path).expect("an account");
        assert_eq!(income.totals.credits, Nanos::new(17 * UNIT));
        drop(idle);
        cloud.assert_books_balance().await;
    }

    async fn a_use_that_is_known_late_brings_no_fee_for_a_closed_month(cloud: &TestCloud) {
        publish_project_price(cloud, Some(5 * UNIT)).await;
        cloud.clock.set(month("UTC", "2026-04"));
        let session = customer(cloud, "c1", "UTC", 100 * UNIT).await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let late = session.record(&grant.slice, 0, 1_000);
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        session.cloud.settle(&[late]).await.expect("settled");
        cloud.clock.set(month("UTC", "2026-06").plus(HOUR));
        close(&cloud.cloud).await;
        let organization = session.access.organization.clone();
        assert_eq!(fees(cloud, &organization).await, [("2026-05".to_owned(), 0, 0)]);
        cloud.assert_books_balance().await;
    }

    async fn what_credit_does_not_pay_is_owed_and_paid_by_the_next(cloud: &TestCloud) {
        publish_project_price(cloud, Some(5 * UNIT)).await;
        cloud.clock.set(month("UTC", "2026-04"));
        let session = customer(cloud, "c1", "UTC", 0).await;
        let organization = session.access.organization.clone();
        pay_in(&cloud.cloud, &organization, Nanos::new(10 * UNIT)).await;
        // Nine of ten are used.
        used(&session, 15_000_000).await;
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        let admin = admin_of(&session);
        let funds = async || cloud.cloud.credit_balance(&admin, &organization).await.expect("a balance").funds;
        let after = funds().await;
        assert_eq!((after.available, after.owed, after.captured), (Nanos::ZERO, Nanos::new(4 * UNIT), Nanos::new(14 * UNIT)));
        let bills = issued(cloud, &organization).await;
        assert_eq!((bills[0].invoice.content.total, bills[0].due), (Nanos::new(14 * UNIT), Nanos::new(4 * UNIT)));
        pay_in(&cloud.cloud, &organization, Nanos::new(6 * UNIT)).await;
        let after = funds().await;
        assert_eq!((after.available, after.owed), (Nanos::new(2 * UNIT), Nanos::ZERO));
        assert_eq!(issued(cloud, &organization).await[0].due, Nanos::ZERO);
        cloud.assert_books_balance().await;
    }

    async fn a_month_is_seen_with_a_price_that_projects_did_not_have(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let two = another_project(cloud, &session, "gw_two").await;
        used(&session, 1_000).await;
        used(&two, 1_000).await;
        for (price, would_be) in [(Some(5 * UNIT), 1_200_000 + 10 * UNIT), (None, 1_200_000)] {
            let draft = with_project_price(&cloud.cloud, price);
            let simulated = cloud.cloud.simulate_prices(&Actor::system(), draft, Some("2026-03".parse().expect("a period"))).await;
            let total = simulated.expect("a simulation").total;
            assert_eq!((total.charged.get(), total.would_be.get()), (1_200_000, would_be));
        }
    }
}
