//! Credit that expires, burns in an order of its own or is for some use only.

use sublet_cloud::idempotency::Answer;
use sublet_core::id::CreditGrantId;
use sublet_core::{Result, Timestamp};
use sublet_money::account::{AccountKind, LedgerAccount};
use sublet_money::credit_lot::{CreditScope, LOTS_MAX};
use sublet_money::sku::SkuFamily;
use sublet_store::credit::CreditGrant;
use sublet_store::ledger;

use super::*;
use crate::months::customer;

const DEVICES: CreditScope = CreditScope::Family(SkuFamily::DeviceTime);

async fn grant(cloud: &TestCloud, session: &Session, kind: CreditKind, amount: i64, terms: CreditTerms) -> Result<CreditGrant> {
    let new = NewCredit {
        organization: session.access.organization.clone(),
        kind,
        amount: Nanos::new(amount),
        currency: None,
        reference: "test".to_owned(),
        terms,
    };
    match cloud.cloud.grant_credit(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await? {
        Answer::New(grant) => Ok(grant),
        Answer::Replayed(text) => panic!("the call was a repeat: {text}"),
    }
}

fn until(cloud: &TestCloud, hours: i64) -> CreditTerms {
    CreditTerms { expires_at: Some(end_in(cloud, hours)), ..CreditTerms::default() }
}

fn end_in(cloud: &TestCloud, hours: i64) -> Timestamp {
    cloud.now().plus(DurationMs::from_hours(hours))
}

/// What is left of each lot.
async fn left(cloud: &TestCloud, session: &Session) -> Vec<i64> {
    let page = PageRequest::default();
    let grants = cloud.cloud.list_credit(&Actor::system(), &session.access.organization, &page).await.expect("grants");
    let mut grants = grants.items;
    grants.sort_by(|a, b| a.id.cmp(&b.id));
    grants.iter().filter_map(|grant| grant.remaining).map(Nanos::get).collect()
}

async fn funds(cloud: &TestCloud, session: &Session) -> (i64, i64) {
    let balance = cloud.cloud.credit_balance(&Actor::system(), &session.access.organization).await.expect("a balance");
    (balance.funds.available.get(), balance.funds.expired.get())
}

on_both_databases! {
    async fn credit_that_ends_first_burns_first_and_what_is_left_of_it_expires(cloud: &TestCloud) {
        let session = customer(cloud, "ends", "UTC", 0).await;
        grant(cloud, &session, CreditKind::Paid, 10, until(cloud, 5)).await.expect("a grant");
        grant(cloud, &session, CreditKind::Promotional, 10, until(cloud, 2)).await.expect("a grant");
        let plain = grant(cloud, &session, CreditKind::Promotional, 10, CreditTerms::default()).await.expect("a grant");
        assert_eq!(plain.remaining, None);
        let slice = session.grant(None, 12, 12).await.expect("credit is there").slice;
        assert_eq!(left(cloud, &session).await, [8, 0], "the gift that ends first, and two of what ends next");
        session.give_back(&slice, 0).await.expect("given back");
        assert_eq!(left(cloud, &session).await, [10, 10], "each is where it was");
        // A slice that is open at the end keeps what it has; what comes back from it is gone then.
        let slice = session.grant(None, 4, 4).await.expect("credit is there").slice;
        cloud.clock.advance(DurationMs::from_hours(2));
        assert_eq!(session.grant(None, 21, 21).await.expect_err("six are over").code(), ErrorCode::InsufficientQuota);
        assert_eq!(cloud.cloud.expire_credit().await.expect("looked"), 1);
        assert_eq!((funds(cloud, &session).await, left(cloud, &session).await), ((20, 6), vec![10, 0]));
        session.give_back(&slice, 0).await.expect("given back");
        assert_eq!(left(cloud, &session).await, [10, 4]);
        session.grant(None, 21, 21).await.expect_err("what came back is over");
        assert_eq!(cloud.another(4).await.expire_credit().await.expect("looked"), 1);
        assert_eq!(cloud.cloud.expire_credit().await.expect("looked"), 0, "it is gone once");
        assert_eq!((funds(cloud, &session).await, left(cloud, &session).await), ((20, 10), vec![10, 0]));
        // What was paid for is income once it is over, a gift is not.
        cloud.clock.advance(DurationMs::from_hours(3));
        assert_eq!(cloud.cloud.expire_credit().await.expect("looked"), 1);
        let organization = session.access.organization.clone();
        let breakage = cloud.cloud.store().read(organization, |id, tx| {
            Box::pin(async move { ledger::totals(tx, &LedgerAccount::customer(AccountKind::Breakage, id)).await })
        });
        assert_eq!(breakage.await.expect("totals").credits, Nanos::new(10));
        assert_eq!(funds(cloud, &session).await, (10, 20));
    }

    async fn credit_for_one_use_pays_for_no_other(cloud: &TestCloud) {
        let session = customer(cloud, "scoped", "UTC", 0).await;
        let terms = CreditTerms { scope: DEVICES, ..CreditTerms::default() };
        grant(cloud, &session, CreditKind::Promotional, 10, terms).await.expect("a grant");
        let refused = session.grant(None, 1, 1).await.expect_err("nothing is there for tokens");
        assert_eq!(refused.code(), ErrorCode::InsufficientQuota);
        pay_in(&cloud.cloud, &session.access.organization, Nanos::new(5)).await;
        session.grant(None, 5, 5).await.expect("what was paid in");
        session.grant(None, 1, 1).await.expect_err("and no more");
        let owner = HoldOwner {
            organization: session.access.organization.clone(),
            project: session.access.project.clone(),
            key: Some(session.access.key.clone()),
            subject: "lease_1".to_owned(),
            family: SkuFamily::DeviceTime,
        };
        let now = cloud.now();
        let context = (&cloud.cloud, &owner);
        cloud.cloud.store().write(context, move |(cloud, owner), tx| Box::pin(async move {
            cloud.place_hold(tx, owner, Nanos::new(7), now).await?;
            let hold = sublet_store::hold::find_open(tx, &owner.subject).await?.expect("the hold");
            cloud.extend_hold(tx, &hold, Nanos::new(2), now).await
        })).await.expect("it is for devices");
        assert_eq!(left(cloud, &session).await, [1]);
        cloud.cloud.store().write(context, move |(cloud, owner), tx| Box::pin(async move {
            cloud.release_hold(tx, &owner.subject, now).await
        })).await.expect("released");
        assert_eq!(left(cloud, &session).await, [10], "what was not used is for devices again");
        session.grant(None, 1, 1).await.expect_err("and for nothing else");
    }

    async fn a_slice_that_is_extended_gives_back_in_the_order_in_which_it_was_taken(cloud: &TestCloud) {
        let session = customer(cloud, "extended", "UTC", 0).await;
        pay_in(&cloud.cloud, &session.access.organization, Nanos::new(600)).await;
        let slice = session.grant(None, 600, 600).await.expect("free credit").slice;
        let first = CreditTerms { priority: 1, ..CreditTerms::default() };
        grant(cloud, &session, CreditKind::Paid, 900, first).await.expect("a grant");
        session.grant(Some(&slice), 900, 900).await.expect("the lot");
        assert_eq!(left(cloud, &session).await, [0]);
        // Two output tokens are 1,200: all of the free credit, which was taken first, and 600 of the lot.
        session.cloud.settle(&[session.record(&slice, 0, 2)]).await.expect("settled");
        session.give_back(&slice, 1).await.expect("given back");
        assert_eq!(left(cloud, &session).await, [300]);
        assert_eq!(funds(cloud, &session).await, (300, 0));
    }

    async fn terms_that_mean_nothing_are_refused(cloud: &TestCloud) {
        let session = customer(cloud, "refused", "UTC", 0).await;
        let over = CreditTerms { expires_at: Some(cloud.now()), ..CreditTerms::default() };
        let late = CreditTerms { priority: 1_001, ..CreditTerms::default() };
        for (terms, param) in [(over, "expires_at"), (late, "priority")] {
            let error = grant(cloud, &session, CreditKind::Paid, 1, terms).await.expect_err("refused");
            assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some(param)));
        }
        let lot = CreditTerms { priority: 5, ..CreditTerms::default() };
        for _ in 0..LOTS_MAX {
            grant(cloud, &session, CreditKind::Paid, 1, lot).await.expect("a grant");
        }
        let error = grant(cloud, &session, CreditKind::Paid, 1, lot).await.expect_err("one too many");
        assert_eq!(error.code(), ErrorCode::Conflict);
        assert_eq!(funds(cloud, &session).await.0, 100, "what was refused was not posted");
        session.grant(None, 100, 100).await.expect("all of them");
        let error = grant(cloud, &session, CreditKind::Paid, 1, lot).await.expect_err("they may come back");
        assert_eq!(error.code(), ErrorCode::Conflict);
    }

    async fn a_grant_that_is_repeated_after_its_end_is_answered_as_it_was(cloud: &TestCloud) {
        let session = customer(cloud, "repeated", "UTC", 0).await;
        let new = NewCredit {
            organization: session.access.organization.clone(),
            kind: CreditKind::Paid,
            amount: Nanos::new(3),
            currency: None,
            reference: "transfer 9".to_owned(),
            terms: until(cloud, 1),
        };
        let call = Call::under_key(Actor::system(), "credit.grant", "nine", "body").expect("a call");
        let render = |grant: &CreditGrant| Ok(grant.id.to_string());
        let first: CreditGrantId = created(cloud.cloud.grant_credit(&call, &new, &render).await).id;
        cloud.clock.advance(DurationMs::from_hours(2));
        let again = cloud.cloud.grant_credit(&call, &new, &render).await.expect("answered");
        assert_eq!(again, Answer::Replayed(first.to_string()));
    }
}
