//! Contracts: offered, accepted, amended and left; what their months add to invoices, and what is owed of it.

use sublet_cloud::contract::{ContractState, ContractView, NewAmendment, NewContract};
use sublet_cloud::credit::NewCredit;
use sublet_cloud::export::Dataset;
use sublet_cloud::idempotency::Call;
use sublet_cloud::leakage::LeakKind;
use sublet_cloud::{Actor, Cloud};
use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::key::KeyPlane;
use sublet_core::{Currency, DurationMs, ErrorCode, Nanos, Result, Scope};
use sublet_money::account::CreditKind;
use sublet_money::contract::{Commitment, ContractTerms, ExitTerms, RenewalTerms};
use sublet_money::credit_lot::CreditTerms;
use sublet_money::invoice::InvoiceContent;
use sublet_money::sku::SkuFamily;
use sublet_store::PageRequest;
use sublet_testkit::session::Session;
use sublet_testkit::tenant::{actor, created};
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;
use crate::exports::{by_document, file, rows, wanted};
use crate::months::{close, customer, issued, month, used};

const HOUR: DurationMs = DurationMs::from_seconds(3_600);
const ZONE: &str = "Europe/Berlin";
/// Output tokens at 0.6 for a thousand thousand: of one euro.
const EURO_OF_TOKENS: i64 = 1_666_667;

/// Two months a period from March 2026 for half a year, 10 euros each period.
fn terms() -> ContractTerms {
    ContractTerms {
        billed: None,
        commitments: vec![Commitment { from_period: 1, amount: Nanos::new(10 * UNIT) }],
        covers: [SkuFamily::ModelTokens].into(),
        currency: Currency::EUR,
        exit: Some(ExitTerms { after_periods: 1, fee_ppm: 500_000, notice_months: 1 }),
        fee: None,
        months: 6,
        payment: None,
        period_months: 2,
        pricing: None,
        quantities: None,
        renewal: None,
        roll_over_periods: 2,
        starts: "2026-03".parse().expect("a month"),
    }
}

pub async fn offered(cloud: &Cloud, organization: &OrganizationId, terms: ContractTerms) -> Result<ContractView> {
    let new = NewContract { organization: organization.clone(), name: "2026".to_owned(), terms, expires_at: None };
    let answer = cloud.offer_contract(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await?;
    Ok(created(Ok(answer)))
}

pub async fn granted(cloud: &Cloud, organization: &OrganizationId, kind: CreditKind, amount: i64) {
    let (organization, reference) = (organization.clone(), "test".to_owned());
    let new =
        NewCredit { organization, kind, amount: Nanos::new(amount), currency: None, reference, terms: CreditTerms::default() };
    created(cloud.grant_credit(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
}

pub fn hash(view: &ContractView) -> String {
    view.contract.offers.last().expect("an offer").version.hash.clone()
}

pub async fn agreed(cloud: &Cloud, session: &Session, terms: ContractTerms) -> ContractId {
    let admin = admin_of(session);
    let view = offered(cloud, &session.access.organization, terms).await.expect("an offer");
    let view = cloud.accept_contract(&admin, &view.contract.id, &hash(&view)).await.expect("accepted");
    view.contract.id
}

pub async fn amended(cloud: &Cloud, id: &ContractId, from: &str, terms: ContractTerms) -> Result<ContractView> {
    let new = NewAmendment { contract: id.clone(), from: from.parse().expect("a month"), terms, expires_at: None };
    let answer = cloud.offer_amendment(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await?;
    Ok(created(Ok(answer)))
}

pub fn admin_of(session: &Session) -> Actor {
    Actor { plane: KeyPlane::Admin, scope: Scope::Organization(session.access.organization.clone()), ..Actor::system() }
}

/// What the contract's part of each issued invoice adds, and how the months are called.
pub async fn parts(cloud: &TestCloud, organization: &OrganizationId) -> Vec<(String, i64)> {
    let bills = issued(cloud, organization).await;
    let amount = |content: &InvoiceContent| content.committed().expect("an amount").get();
    bills.iter().map(|bill| (bill.invoice.content.period.key.to_string(), amount(&bill.invoice.content))).collect()
}

pub async fn to_end_of(cloud: &TestCloud, next: &str) {
    cloud.clock.set(month(ZONE, next).plus(HOUR));
    close(&cloud.cloud).await;
}

pub async fn owed(cloud: &Cloud, organization: &OrganizationId) -> (i64, i64) {
    let funds = cloud.credit_balance(&Actor::system(), organization).await.expect("a balance").funds;
    (funds.owed.get(), funds.available.get())
}

on_both_databases! {
    async fn what_is_missing_is_charged_to_credit_and_the_rest_is_owed(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 0).await;
        let organization = session.access.organization.clone();
        granted(&cloud.cloud, &organization, CreditKind::Paid, 14 * UNIT).await;
        let id = agreed(&cloud.cloud, &session, terms()).await;
        let view = cloud.cloud.get_contract(&admin_of(&session), &id).await.expect("it is there");
        assert_eq!((view.state, view.last_month), (ContractState::Active, Some("2026-08".parse().expect("a month"))));
        used(&session, 3 * EURO_OF_TOKENS).await;
        to_end_of(cloud, "2026-04").await;
        used(&session, 2 * EURO_OF_TOKENS).await;
        let counted = cloud.cloud.get_contract(&admin_of(&session), &id).await.expect("it is there").periods;
        assert_eq!(counted.len(), 1);
        assert_eq!(counted[0].counted.get() / UNIT, 5, "of the month that is billed, and of the one that is open");
        to_end_of(cloud, "2026-05").await;
        // 5 of 10 are missing; of the 14 paid in, 9 are left.
        let [march, april] = <[_; 2]>::try_from(parts(cloud, &organization).await).expect("two invoices");
        assert_eq!(march, ("2026-03".to_owned(), 0));
        assert_eq!((april.0.as_str(), april.1 / 10_000_000), ("2026-04", 499));
        assert_eq!(owed(&cloud.cloud, &organization).await.0, 0);
        // Nothing is used in two months, and an invoice is issued all the same: over what is missing.
        to_end_of(cloud, "2026-07").await;
        let july = parts(cloud, &organization).await;
        assert_eq!(july.last(), Some(&("2026-06".to_owned(), 10 * UNIT)));
        let (debt, available) = owed(&cloud.cloud, &organization).await;
        assert_eq!(available, 0, "what was there is taken, and nothing more");
        assert!(debt > 5 * UNIT && debt < 7 * UNIT, "{debt}");
        // Exports have it, and it is no leak.
        for bill in issued(cloud, &organization).await {
            let (content, number) = (&bill.invoice.content, bill.invoice.number.expect("it is issued").to_string());
            let asked = wanted(Dataset::Focus, &content.period.key.to_string());
            let exported = file(&cloud.cloud, &admin_of(&session), &asked).await.expect("a file");
            assert_eq!(by_document(&rows(exported)).get(&number), Some(&content.total), "{number}");
        }
        let leaks = cloud.cloud.leakage(&Actor::system(), &[]).await.expect("a report").leaks;
        assert!(!leaks.iter().any(|leak| leak.kind == LeakKind::ChargesNotInvoiced), "{leaks:?}");
        // The next payment pays it first.
        granted(&cloud.cloud, &organization, CreditKind::Paid, 5 * UNIT).await;
        assert_eq!(owed(&cloud.cloud, &organization).await, (debt - 5 * UNIT, 0));
        granted(&cloud.cloud, &organization, CreditKind::Promotional, 5 * UNIT).await;
        assert_eq!(owed(&cloud.cloud, &organization).await, (debt - 5 * UNIT, 5 * UNIT), "a gift pays no debt");
        granted(&cloud.cloud, &organization, CreditKind::Paid, 5 * UNIT).await;
        assert_eq!(owed(&cloud.cloud, &organization).await.0, 0);
        let verified = cloud.cloud.verify_ledger(&Actor::system()).await.expect("a verification");
        assert_eq!(verified.findings, Vec::<String>::new());
    }

    async fn what_was_missing_is_used_up_later(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let organization = session.access.organization.clone();
        agreed(&cloud.cloud, &session, terms()).await;
        to_end_of(cloud, "2026-05").await;
        used(&session, 7 * EURO_OF_TOKENS).await;
        used(&session, 7 * EURO_OF_TOKENS).await;
        to_end_of(cloud, "2026-07").await;
        let parts = parts(cloud, &organization).await;
        assert_eq!(parts[0], ("2026-04".to_owned(), 10 * UNIT));
        assert_eq!((parts[2].0.as_str(), parts[2].1 / 10_000_000), ("2026-06", -400));
        // What comes back is credit again, of which there is less than none: 14 were used, and nothing was paid in.
        let (debt, available) = owed(&cloud.cloud, &organization).await;
        assert_eq!((debt, available / 10_000_000), (10 * UNIT, 9_000));
    }

    async fn an_amendment_is_agreed_by_both_and_changes_nothing_before_it(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let organization = session.access.organization.clone();
        let id = agreed(&cloud.cloud, &session, terms()).await;
        let mut more = terms();
        more.commitments.push(Commitment { from_period: 2, amount: Nanos::new(20 * UNIT) });
        more.months = 12;
        let view = amended(&cloud.cloud, &id, "2026-05", more.clone()).await.expect("an amendment");
        assert_eq!(view.last_month, Some("2026-08".parse().expect("a month")), "it is only offered");
        let twice = amended(&cloud.cloud, &id, "2026-05", more.clone()).await.expect_err("one is offered");
        assert_eq!(twice.code(), ErrorCode::Conflict);
        let admin = admin_of(&session);
        let other = cloud.cloud.accept_contract(&admin, &id, &"0".repeat(64)).await.expect_err("other terms");
        assert_eq!(other.param_name(), Some("terms_hash"));
        let accepted = cloud.cloud.accept_contract(&admin, &id, &hash(&view)).await.expect("accepted");
        assert_eq!(accepted.last_month, Some("2027-02".parse().expect("a month")));
        let again = cloud.cloud.accept_contract(&admin, &id, &hash(&view)).await.expect("the same answer");
        assert_eq!(again, accepted);
        to_end_of(cloud, "2026-07").await;
        assert_eq!(parts(cloud, &organization).await, [("2026-04".to_owned(), 10 * UNIT), ("2026-06".to_owned(), 20 * UNIT)]);
        let late = amended(&cloud.cloud, &id, "2026-07", terms()).await.expect_err("it has begun");
        assert_eq!(late.param_name(), Some("from"));
    }

    async fn leaving_is_simulated_and_then_costs_just_that(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let organization = session.access.organization.clone();
        let id = agreed(&cloud.cloud, &session, terms()).await;
        let admin = admin_of(&session);
        let exits = cloud.cloud.get_contract(&admin, &id).await.expect("it is there").exits;
        let first = exits.first().expect("an exit");
        assert_eq!((first.last_month.to_string().as_str(), first.fee), ("2026-04", Nanos::new(10 * UNIT)));
        let refused = cloud.cloud.leave_contract(&admin, &id, "2026-05".parse().expect("a month")).await.expect_err("no end");
        assert_eq!(refused.alternatives(), ["2026-04", "2026-06"]);
        let left = cloud.cloud.leave_contract(&admin, &id, first.last_month).await.expect("left");
        assert_eq!((left.last_month, left.exits.len()), (Some(first.last_month), 0));
        let again = cloud.cloud.leave_contract(&admin, &id, first.last_month).await.expect("the same answer");
        assert_eq!(again, left);
        to_end_of(cloud, "2026-09").await;
        // 10 are missing, and half of the 20 that would have followed is the fee.
        assert_eq!(parts(cloud, &organization).await, [("2026-04".to_owned(), 20 * UNIT)]);
        let ended = cloud.cloud.get_contract(&admin, &id).await.expect("it is there");
        assert_eq!(ended.state, ContractState::Ended);
        let late = amended(&cloud.cloud, &id, "2026-07", terms()).await.expect_err("it ended");
        assert_eq!(late.code(), ErrorCode::Conflict);
    }

    async fn what_contradicts_itself_is_refused_and_nothing_is_kept(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 0).await;
        let organization = session.access.organization.clone();
        let refused = async |change: fn(&mut ContractTerms)| {
            let mut terms = terms();
            change(&mut terms);
            let error = offered(&cloud.cloud, &organization, terms).await.expect_err("refused");
            error.param_name().unwrap_or("-").to_owned()
        };
        assert_eq!(refused(|terms| terms.currency = Currency::USD).await, "terms.currency");
        assert_eq!(refused(|terms| terms.starts = "2026-02".parse().expect("a month")).await, "terms.starts");
        assert_eq!(refused(|terms| terms.months = 7).await, "terms.months");
        assert_eq!(refused(|terms| terms.commitments.clear()).await, "terms.commitments");
        let page = PageRequest::default();
        assert_eq!(cloud.cloud.list_contracts(&Actor::system(), None, &page).await.expect("a list").items, Vec::new());
        // Two that run at once.
        let id = agreed(&cloud.cloud, &session, terms()).await;
        let both = offered(&cloud.cloud, &organization, terms()).await.expect_err("they overlap");
        assert_eq!(both.code(), ErrorCode::Conflict);
        let mut next = terms();
        next.starts = "2026-09".parse().expect("a month");
        let view = offered(&cloud.cloud, &organization, next).await.expect("an offer for later");
        // An amendment that makes the first one longer meets the second once that is agreed.
        cloud.cloud.accept_contract(&admin_of(&session), &view.contract.id, &hash(&view)).await.expect("accepted");
        let mut longer = terms();
        longer.months = 8;
        let meets = amended(&cloud.cloud, &id, "2026-05", longer).await.expect_err("they overlap");
        assert_eq!(meets.code(), ErrorCode::Conflict);
        // The owner's own teams have none, and nobody sees those of others.
        let team = actor(&cloud.cloud, &cloud.keys.internal).await.organization().expect("one").clone();
        let internal = offered(&cloud.cloud, &team, terms()).await.expect_err("internal");
        assert_eq!(internal.code(), ErrorCode::Conflict);
        let stranger = customer(cloud, "other", ZONE, 0).await;
        let hidden = cloud.cloud.get_contract(&admin_of(&stranger), &id).await.expect_err("it is not theirs");
        assert_eq!(hidden.code(), ErrorCode::NotFound);
        let accepted = cloud.cloud.accept_contract(&Actor::system(), &id, "x").await.expect_err("the seller cannot accept");
        assert_eq!(accepted.code(), ErrorCode::WrongKeyPlane);
    }

    async fn an_offer_expires_or_is_withdrawn(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 0).await;
        let (organization, admin) = (session.access.organization.clone(), admin_of(&session));
        let withdrawn = offered(&cloud.cloud, &organization, terms()).await.expect("an offer");
        let id = withdrawn.contract.id.clone();
        let state = cloud.cloud.withdraw_offer(&Actor::system(), &id).await.expect("withdrawn").state;
        assert_eq!(state, ContractState::Withdrawn);
        assert!(cloud.cloud.accept_contract(&admin, &id, &hash(&withdrawn)).await.is_err());
        let mut later = terms();
        later.starts = "2026-06".parse().expect("a month");
        let old = offered(&cloud.cloud, &organization, later).await.expect("an offer");
        cloud.clock.set(cloud.now().plus(DurationMs::from_hours(24 * 31)));
        let gone = cloud.cloud.accept_contract(&admin, &old.contract.id, &hash(&old)).await.expect_err("it expired");
        assert_eq!(gone.code(), ErrorCode::Conflict);
        let state = cloud.cloud.get_contract(&admin, &old.contract.id).await.expect("it is there").state;
        assert_eq!(state, ContractState::Expired);
    }

    async fn a_renewed_contract_goes_on(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 1_000 * UNIT).await;
        let organization = session.access.organization.clone();
        let mut yearly = terms();
        (yearly.months, yearly.renewal) = (2, Some(RenewalTerms { months: 2, notice_months: 1 }));
        yearly.exit = None;
        let id = agreed(&cloud.cloud, &session, yearly).await;
        to_end_of(cloud, "2026-07").await;
        assert_eq!(parts(cloud, &organization).await.len(), 2, "the first term, and its renewal");
        let admin = admin_of(&session);
        let left = cloud.cloud.leave_contract(&admin, &id, "2026-08".parse().expect("a month")).await.expect("notice in time");
        assert_eq!(left.contract.notice.map(|given| given.notice.fee), Some(Nanos::ZERO));
        to_end_of(cloud, "2026-12").await;
        assert_eq!(parts(cloud, &organization).await.last(), Some(&("2026-08".to_owned(), 10 * UNIT)));
    }
}
