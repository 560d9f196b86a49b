//! Personas: the actors and calls that tests need over and over.

use sublet_cloud::credit::NewCredit;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::{Actor, Cloud};
use sublet_core::id::OrganizationId;
use sublet_core::key::Secret;
use sublet_core::{Currency, Nanos, Result};
use sublet_money::account::CreditKind;
use sublet_money::contract::{Commitment, ContractTerms};
use sublet_money::credit_lot::CreditTerms;
use sublet_money::sku::SkuFamily;
use sublet_store::top_up_rule::{self, StoredTopUpRule};

/// The actor behind a key.
pub async fn actor(cloud: &Cloud, secret: &Secret) -> Actor {
    cloud.authenticate_key(secret, "127.0.0.1").await.expect("the key works")
}

/// The created object of a call that was not a repeat.
pub fn created<T>(answer: Result<Answer<T>>) -> T {
    match answer.expect("the call works") {
        Answer::New(value) => value,
        Answer::Replayed(text) => panic!("the call was a repeat: {text}"),
    }
}

/// Gives an organization paid credit.
pub async fn pay_in(cloud: &Cloud, organization: &OrganizationId, amount: Nanos) {
    let new = NewCredit {
        organization: organization.clone(),
        kind: CreditKind::Paid,
        amount,
        currency: None,
        reference: "test".to_owned(),
        terms: CreditTerms::default(),
    };
    created(cloud.grant_credit(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
}

/// So much of tokens in euros each month, from April 2026 on, at public prices.
pub fn committed_monthly(months: u32, amount: Nanos) -> ContractTerms {
    ContractTerms {
        billed: None,
        commitments: vec![Commitment { from_period: 1, amount }],
        covers: [SkuFamily::ModelTokens].into(),
        currency: Currency::EUR,
        exit: None,
        fee: None,
        months,
        payment: None,
        period_months: 1,
        pricing: None,
        quantities: None,
        renewal: None,
        roll_over_periods: 0,
        starts: "2026-04".parse().expect("a month"),
    }
}

/// Keeps a rule as it is, though nobody processes cards.
pub async fn put_top_up_rule(cloud: &Cloud, rule: &StoredTopUpRule) {
    let put = cloud.store().write(rule, |rule, tx| Box::pin(top_up_rule::put(tx, rule)));
    put.await.expect("it is kept");
}
