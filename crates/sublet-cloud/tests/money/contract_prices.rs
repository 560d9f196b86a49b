//! Prices by contract: from its first month to its last, while public prices change, in invoices, proofs and exports.

use sublet_cloud::contract::NewContract;
use sublet_cloud::export::Dataset;
use sublet_cloud::idempotency::Call;
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::{Admission, PriceVersion};
use sublet_core::tier::ServiceTier;
use sublet_core::usage::UsageSink;
use sublet_core::{Currency, DurationMs, Nanos, Timestamp};
use sublet_money::contract::{Commitment, ContractTerms, ExitTerms};
use sublet_money::contract_price::{Discount, Discounted, PriceProtection, PriceTerms};
use sublet_money::price_book::{PriceEntry, PriceListDraft};
use sublet_money::sku::SkuFamily;
use sublet_proof::bundle::Place;
use sublet_testkit::bundle::{bundle, verify};
use sublet_testkit::database::MODEL;
use sublet_testkit::on_both_databases;
use sublet_testkit::prices::{per_unit, republish};
use sublet_testkit::session::Session;

use crate::UNIT;
use crate::contracts::{admin_of, agreed, amended, hash};
use crate::exports::{file, rows, wanted};
use crate::months::{close, customer, issued, month, used};
use crate::prices::publish_at_double_price;

const HOUR: DurationMs = DurationMs::from_seconds(3_600);
const ZONE: &str = "Europe/Berlin";
const MILLION: i64 = 1_000_000;

/// Prices only: nothing is committed to.
pub fn pricing(starts: &str, months: u32, pricing: PriceTerms) -> ContractTerms {
    ContractTerms {
        billed: None,
        commitments: vec![Commitment { from_period: 1, amount: Nanos::ZERO }],
        covers: [SkuFamily::ModelTokens].into(),
        currency: Currency::EUR,
        exit: (months > 1).then_some(ExitTerms { after_periods: 1, fee_ppm: 0, notice_months: 0 }),
        fee: None,
        months,
        payment: None,
        period_months: 1,
        pricing: Some(pricing),
        quantities: None,
        renewal: None,
        roll_over_periods: 0,
        starts: starts.parse().expect("a month"),
    }
}

/// So many per cent off all tokens.
pub fn percent_off(percent: u32) -> PriceTerms {
    let discount = Discount { off_ppm: percent * 10_000, on: Discounted::Family(SkuFamily::ModelTokens) };
    PriceTerms { discounts: vec![discount], ..PriceTerms::default() }
}

fn protecting(list: PriceVersion, until: Option<&str>, terms: PriceTerms) -> PriceTerms {
    let until = until.map(|until| until.parse().expect("a month"));
    PriceTerms { protection: Some(PriceProtection { list, until }), ..terms }
}

/// What a million output tokens cost now, and by which version.
fn priced(session: &Session) -> (i64, PriceVersion) {
    let prices = session.port.prices(&session.access, (MODEL, ServiceTier::Default), session.cloud.clock().now()).expect("a price");
    (prices.output.nanos().get(), prices.version.clone())
}

fn before(instant: Timestamp) -> Timestamp {
    Timestamp::from_micros(instant.micros() - 1)
}

async fn bills(cloud: &sublet_testkit::TestCloud, session: &Session) -> Vec<(String, i64)> {
    let bills = issued(cloud, &session.access.organization).await;
    let line = |bill: &sublet_cloud::invoice::Bill| (bill.invoice.content.period.key.to_string(), bill.invoice.content.total.get());
    bills.iter().map(line).collect()
}

on_both_databases! {
    async fn a_contract_s_prices_hold_from_its_first_month_to_its_last(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let stranger = customer(cloud, "other", ZONE, 100 * UNIT).await;
        let (list, public) = priced(&session);
        assert_eq!(list, 600_000_000);
        let terms = pricing("2026-04", 2, protecting(public.clone(), Some("2026-04"), percent_off(20)));
        agreed(&cloud.cloud, &session, terms).await;
        let april = month(ZONE, "2026-04");
        cloud.clock.set(before(april));
        assert_eq!(priced(&session), (list, public.clone()));
        used(&session, 5 * MILLION).await;
        // From the first instant of its month on, in the account's zone; with a holder of money that was granted before.
        cloud.clock.set(april);
        let (own, version) = priced(&session);
        assert_eq!(own, 480_000_000);
        assert_ne!(version, public);
        assert_eq!(priced(&stranger).0, list, "nobody else has them");
        used(&session, 5 * MILLION).await;
        // The public list rises while they are protected: the same price by another version, in every process.
        let dear = publish_at_double_price(&cloud.cloud, &cloud.clock).await;
        assert_eq!(priced(&stranger), (2 * list, dear));
        let (still, later) = priced(&session);
        assert_eq!(still, own);
        assert_ne!(later, version);
        let other = cloud.another(5).await;
        assert_eq!(other.prices().in_force_for((&session.access.organization, Currency::EUR), cloud.now()).expect("a list").version(), &later);
        used(&session, 5 * MILLION).await;
        // From May on nothing is protected, and from June on nothing is agreed.
        let may = month(ZONE, "2026-05");
        cloud.clock.set(before(may));
        assert_eq!(priced(&session), (own, later));
        cloud.clock.set(may);
        assert_eq!(priced(&session).0, 960_000_000);
        cloud.clock.set(may.plus(HOUR));
        close(&cloud.cloud).await;
        used(&session, 5 * MILLION).await;
        cloud.clock.set(month(ZONE, "2026-06"));
        assert_eq!(priced(&session).0, 2 * list);
        cloud.clock.set(month(ZONE, "2026-06").plus(HOUR));
        close(&cloud.another(7).await).await;
        used(&session, 5 * MILLION).await;
        cloud.clock.set(month(ZONE, "2026-07").plus(HOUR));
        // A process that never saw these prices in force.
        close(&cloud.another(8).await).await;
        let expected = [("2026-03", 3_000), ("2026-04", 4_800), ("2026-05", 4_800), ("2026-06", 6_000)];
        let expected = expected.map(|(month, thousandths)| (month.to_owned(), thousandths * UNIT / 1_000));
        assert_eq!(bills(cloud, &session).await, expected);
        let admin = admin_of(&session);
        for bill in issued(cloud, &session.access.organization).await {
            let text = bundle(&cloud.cloud, &admin, &bill.invoice.id).await.expect("a bundle");
            let verified = verify(&text, None).expect("it is right");
            assert_eq!(verified.content, bill.invoice.content);
            let month = bill.invoice.content.period.key.to_string();
            assert_eq!(text.contains("\"price_sources\""), matches!(month.as_str(), "2026-04" | "2026-05"), "{month}");
            // Who leaves out what they are made from, or says that it was something else, is not believed.
            let dearer = text.replacen("\\\"off_ppm\\\":200000", "\\\"off_ppm\\\":100000", 1);
            assert_eq!(dearer != text, text.contains("\"price_sources\""), "{month}");
            if dearer != text {
                assert_eq!(verify(&dearer, None).expect_err("other terms").place, Place::Header);
            }
        }
        let verified = cloud.cloud.verify_ledger(&Actor::system()).await.expect("a verification");
        assert_eq!(verified.findings, Vec::<String>::new());
    }

    async fn exports_tell_the_public_price_from_the_contract_s(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let public = priced(&session).1;
        let terms = pricing("2026-03", 1, protecting(public.clone(), None, percent_off(25)));
        let id = agreed(&cloud.cloud, &session, terms).await;
        used(&session, 2 * MILLION).await;
        publish_at_double_price(&cloud.cloud, &cloud.clock).await;
        used(&session, 2 * MILLION).await;
        let asked = wanted(Dataset::Focus, "2026-03");
        let found = rows(file(&cloud.cloud, &admin_of(&session), &asked).await.expect("a file"));
        let mut usage: Vec<_> = found
            .iter()
            .filter(|row| row["ChargeCategory"] == "Usage")
            .map(|row| ["ListUnitPrice", "ContractedUnitPrice", "ListCost", "ContractedCost", "BilledCost"].map(|name| row[name].clone()))
            .collect();
        usage.sort();
        let expected = [["0.6", "0.45", "1.2", "0.9", "0.9"], ["1.2", "0.45", "2.4", "0.9", "0.9"]];
        assert_eq!(usage, expected.map(|row| row.map(str::to_owned)));
        // An amendment that names no version keeps what is protected; another contract would protect what is in force.
        let system = Actor::system();
        assert_eq!(cloud.cloud.version_to_protect(&system, Currency::EUR, Some(&id)).await.expect("a version"), public);
        assert_ne!(cloud.cloud.version_to_protect(&system, Currency::EUR, None).await.expect("a version"), public);
        // What an account pays is shown to it, with what it is made from.
        let shown = cloud.cloud.account_prices(&project_of(&session), cloud.now()).await.expect("prices");
        assert_eq!(shown.version.version(), &priced(&session).1);
        assert!(shown.version.source().is_some_and(|source| source.protected.is_some()));
    }

    async fn an_amendment_changes_prices_from_its_month_on_and_leaving_ends_them(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let id = agreed(&cloud.cloud, &session, pricing("2026-03", 6, percent_off(10))).await;
        assert_eq!(priced(&session).0, 540_000_000, "it is the running month: from now on");
        let offer = amended(&cloud.cloud, &id, "2026-05", pricing("2026-03", 12, percent_off(50))).await.expect("an amendment");
        cloud.cloud.accept_contract(&admin_of(&session), &id, &hash(&offer)).await.expect("accepted");
        let half = amended(&cloud.cloud, &id, "2026-07", ContractTerms { pricing: None, ..pricing("2026-03", 12, percent_off(1)) });
        cloud.cloud.accept_contract(&admin_of(&session), &id, &hash(&half.await.expect("an amendment"))).await.expect("accepted");
        let after = |instant: Timestamp| {
            cloud.clock.set(instant);
            priced(&session).0 / 10_000_000
        };
        assert_eq!((after(before(month(ZONE, "2026-05"))), after(month(ZONE, "2026-05"))), (54, 30));
        // A new public version in between, published ahead of its time.
        let lists = cloud.cloud.prices().snapshot();
        let entries = lists.values().next().expect("a list").versions()[0].entries();
        let dearer = |entry: &PriceEntry| PriceEntry::new(entry.sku.clone(), per_unit(700_000_000));
        let (list, effective_at) = (lists.keys().next().expect("a list").clone(), month("UTC", "2026-06"));
        let draft = PriceListDraft { list, currency: Currency::EUR, effective_at, entries: entries.map(dearer).collect() };
        cloud.cloud.publish_prices(&Call::once(Actor::system()), "list", draft, cloud.now()).await.expect("published");
        assert_eq!(priced(&session).0, 300_000_000);
        assert_eq!((after(before(effective_at)), after(effective_at)), (30, 35));
        assert_eq!((after(before(month(ZONE, "2026-07"))), after(month(ZONE, "2026-07"))), (35, 70));
        // Terms with prices again, and then notice.
        let again = amended(&cloud.cloud, &id, "2026-08", pricing("2026-03", 12, percent_off(50))).await.expect("an amendment");
        cloud.cloud.accept_contract(&admin_of(&session), &id, &hash(&again)).await.expect("accepted");
        assert_eq!(after(month(ZONE, "2026-08")), 35);
        cloud.cloud.leave_contract(&admin_of(&session), &id, "2026-08".parse().expect("a month")).await.expect("left");
        assert_eq!((after(before(month(ZONE, "2026-09"))), after(month(ZONE, "2026-09"))), (35, 70));
    }

    async fn what_was_admitted_before_a_contract_was_accepted_keeps_its_price(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let earlier = session.record(&grant.slice, 0, MILLION);
        agreed(&cloud.cloud, &session, pricing("2026-03", 1, percent_off(50))).await;
        cloud.clock.advance(HOUR);
        let later = session.record(&grant.slice, 0, MILLION);
        // Another process settles it, that has not read these prices.
        let third = cloud.another(3).await;
        agreed(&cloud.cloud, &customer(cloud, "other", ZONE, 0).await, pricing("2026-03", 1, percent_off(30))).await;
        let report = third.settle(&[later.clone(), earlier.clone()]).await.expect("settled");
        assert_eq!((report.settled, report.quarantined), (2, 0));
        let drafted = cloud.cloud.draft_invoice(&admin_of(&session), &session.access.organization, None).await.expect("a draft");
        assert_eq!(drafted.invoice.content.subtotal.get(), 900_000_000);
        let why = cloud.cloud.why(&admin_of(&session), later.request.as_str()).await.expect("why");
        assert!(format!("{why:?}").contains("price by contract, made from"), "{why:?}");
        // What it would be by another list is by that list and the contract.
        let version = cloud.cloud.prices().in_force(Currency::EUR, cloud.now()).expect("a list");
        let entries = version.entries().map(|entry| PriceEntry::new(entry.sku.clone(), per_unit(UNIT))).collect();
        let draft = PriceListDraft { list: version.list().clone(), currency: Currency::EUR, effective_at: cloud.now(), entries };
        let seen = cloud.cloud.simulate_prices(&Actor::system(), draft, Some("2026-03".parse().expect("a month"))).await.expect("seen");
        assert_eq!((seen.total.charged.get(), seen.total.would_be.get()), (900_000_000, UNIT));
    }

    async fn prices_that_cannot_be_made_are_refused_when_they_are_offered(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 0).await;
        let refused = async |terms: PriceTerms| {
            let (organization, name) = (session.access.organization.clone(), "prices".to_owned());
            let new = NewContract { organization, name, terms: pricing("2026-03", 1, terms), expires_at: None };
            let answer = cloud.cloud.offer_contract(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await;
            let error = answer.expect_err("refused");
            (error.param_name().unwrap_or("-").to_owned(), error.alternatives().len())
        };
        let unknown = PriceVersion("0".repeat(64).as_str().into());
        assert_eq!(refused(protecting(unknown, None, percent_off(1))).await, ("terms.pricing.protection.list".to_owned(), 1));
        assert_eq!(refused(PriceTerms::default()).await.0, "terms.pricing");
        assert_eq!(refused(percent_off(101)).await.0, "terms.pricing.discounts[0]");
        // Prices by contract are nobody's public prices.
        agreed(&cloud.cloud, &session, pricing("2026-03", 1, percent_off(50))).await;
        let own = priced(&session).1;
        let other = customer(cloud, "other", ZONE, 0).await;
        let (organization, name) = (other.access.organization.clone(), "prices".to_owned());
        let terms = pricing("2026-03", 1, protecting(own, None, PriceTerms::default()));
        let new = NewContract { organization, name, terms, expires_at: None };
        let answer = cloud.cloud.offer_contract(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await;
        assert_eq!(answer.expect_err("refused").param_name(), Some("terms.pricing.protection.list"));
    }

    async fn contracts_and_lists_that_come_at_once_leave_no_gap(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let (one, other): (&Cloud, Cloud) = (&cloud.cloud, cloud.another(9).await);
        let accepted = agreed(one, &session, pricing("2026-03", 3, percent_off(50)));
        let published = republish(&other, &cloud.clock, |entry| PriceEntry::new(entry.sku.clone(), per_unit(UNIT)));
        let (_, version) = tokio::join!(accepted, published);
        one.follow().await.expect("followed");
        let held = one.prices().in_force_for((&session.access.organization, Currency::EUR), cloud.now()).expect("a list");
        assert_eq!(held.source().map(|source| &source.list), Some(&version));
        assert_eq!(priced(&session).0, UNIT / 2);
    }
}

fn project_of(session: &Session) -> Actor {
    let (organization, project) = (session.access.organization.clone(), session.access.project.clone());
    let scope = sublet_core::Scope::Project { organization, project };
    Actor { plane: sublet_core::key::KeyPlane::Project, scope, ..Actor::system() }
}
