//! Money that customers pay in and get back, on both databases, with a Stripe on loopback.
#![cfg(test)]

mod cards;
mod dunning;
mod invoices;
mod mail;
mod payouts;
mod refunds;
mod statements;
mod stripe;
mod top_up_rules;
mod top_ups;

use sublet_cloud::data::{IncomingPayment, IncomingState, Refund, TopUp};
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::incoming_payment::{RowOutcome, TakenRow};
use sublet_cloud::payment::Payments;
use sublet_cloud::refund::NewRefund;
use sublet_cloud::top_up::NewTopUp;
use sublet_cloud::{Actor, Cloud, CloudSettings};
use sublet_core::id::OrganizationId;
use sublet_core::payment::PaymentMethod;
use sublet_core::{Currency, Nanos, Result, Timestamp};
use sublet_store::PageRequest;
use sublet_testkit::TestCloud;
use sublet_testkit::stripe::FakeStripe;
use sublet_testkit::tenant::{actor, created};

const UNIT: i64 = 1_000_000_000;
/// What a new customer is given.
const WELCOME: i64 = 25 * UNIT;

/// A cloud with a Stripe, and who acts in it.
pub struct World<'a> {
    pub test: &'a TestCloud,
    pub cloud: Cloud,
    pub stripe: FakeStripe,
    pub admin: Actor,
    pub organization: OrganizationId,
}

impl<'a> World<'a> {
    pub async fn start(test: &'a TestCloud) -> Self {
        let stripe = FakeStripe::start();
        let cloud = with_stripe(test, &stripe, 2).await;
        let admin = actor(&cloud, &test.keys.admin).await;
        let organization = admin.organization().expect("an organization").clone();
        Self { test, cloud, stripe, admin, organization }
    }

    /// Another process of the same cloud.
    pub async fn another(&self) -> Cloud {
        with_stripe(self.test, &self.stripe, 3).await
    }

    pub async fn top_up(&self, method: PaymentMethod, units: i64) -> TopUp {
        let call = Call::once(self.admin.clone());
        self.cloud.create_top_up(&call, &new(method, units)).await.expect("a top-up")
    }

    /// A top-up that was paid on Stripe's page.
    pub async fn paid_by_stripe(&self, units: i64) -> TopUp {
        let top_up = self.top_up(PaymentMethod::Stripe, units).await;
        self.stripe.pay(top_up.checkout.as_deref().expect("a page"), 0);
        self.notice("payment_intent.succeeded", &top_up).await;
        self.cloud.reconcile_payments().await.expect("reconciled");
        self.see(&top_up).await
    }

    /// What Stripe tells of a top-up.
    pub async fn notice(&self, kind: &str, top_up: &TopUp) {
        let object = serde_json::json!({"id": "pi_x", "object": "payment_intent", "metadata": {"top_up": top_up.id}});
        let (body, header) = self.stripe.event("evt_x", kind, &object, self.now());
        self.cloud.receive_notice(body.as_bytes(), &header).await.expect("taken");
    }

    pub async fn see(&self, top_up: &TopUp) -> TopUp {
        self.cloud.get_top_up(&self.admin, &top_up.id).await.expect("it is there")
    }

    pub async fn import(&self, rows: &str) -> Vec<RowOutcome> {
        let taken = created(self.try_import(rows).await);
        taken.into_iter().map(|row| row.outcome).collect()
    }

    pub async fn try_import(&self, rows: &str) -> Result<Answer<Vec<TakenRow>>> {
        let content = format!("transaction_id,amount,currency,reference\n{rows}");
        let call = Call::once(operator("key_bank"));
        self.cloud.import_statement(&call, &content, &|_| Ok(String::new())).await
    }

    pub async fn quarantined(&self) -> Vec<IncomingPayment> {
        let page = PageRequest { limit: Some(100), ..PageRequest::default() };
        let found = self.cloud.list_incoming(&operator("key_bank"), Some(IncomingState::Quarantined), &page).await;
        let mut items = found.expect("a page").items;
        items.sort_by(|one, other| one.transaction.cmp(&other.transaction));
        items
    }

    /// Of credit, without what was given at the start: what is there, and what ever came in.
    pub async fn funds(&self) -> (i64, i64) {
        let funds = self.cloud.credit_balance(&self.admin, &self.organization).await.expect("a balance").funds;
        (funds.available.get() - WELCOME, funds.deposited.get() - WELCOME)
    }

    /// Of credit, what is there, and what is kept for tax.
    pub async fn kept(&self) -> (i64, i64) {
        let funds = self.cloud.credit_balance(&self.admin, &self.organization).await.expect("a balance").funds;
        (funds.available.get() - WELCOME, funds.tax_prepaid.get())
    }

    pub async fn request(&self, units: i64) -> Result<Refund> {
        self.request_by(&self.cloud, &self.admin, units).await
    }

    pub async fn request_by(&self, cloud: &Cloud, actor: &Actor, units: i64) -> Result<Refund> {
        let (organization, amount, note) = (self.organization.clone(), Nanos::new(units), "we leave".to_owned());
        let new = NewRefund { organization, amount, currency: Currency::EUR, note };
        let answer = cloud.request_refund(&Call::once(actor.clone()), &new, &|_| Ok(String::new())).await?;
        Ok(created(Ok(answer)))
    }

    pub fn now(&self) -> Timestamp {
        self.test.now()
    }

    /// The books fit, and Stripe was asked as it wants to be.
    pub async fn check(&self) {
        self.test.assert_books_balance().await;
        assert_eq!(self.stripe.wrong(), Vec::<String>::new());
    }
}

async fn with_stripe(test: &TestCloud, stripe: &FakeStripe, seed: u64) -> Cloud {
    let payments = Payments { stripe: Some(stripe.port()), cards: Some(stripe.card_port()), ..Payments::default() };
    test.with(seed, CloudSettings { payments, ..CloudSettings::default() }).await
}

pub fn operator(key: &str) -> Actor {
    Actor { key: Some(key.parse().expect("a key's id")), ..Actor::system() }
}

pub fn new(method: PaymentMethod, units: i64) -> NewTopUp {
    NewTopUp { method, amount: Nanos::new(units), currency: Currency::EUR }
}
