//! Refunds: approved by another, never more than is there, paid once by transfer or by Stripe.

use serde_json::json;
use sublet_cloud::Actor;
use sublet_cloud::credit::NewCredit;
use sublet_cloud::data::{IncomingProblem, RefundState};
use sublet_cloud::idempotency::Call;
use sublet_cloud::incoming_payment::IncomingAnswer;
use sublet_cloud::refund::RefundWay;
use sublet_core::payment::PaymentMethod;
use sublet_core::{DurationMs, ErrorCode, Nanos};
use sublet_money::account::CreditKind;
use sublet_money::credit_lot::CreditTerms;
use sublet_testkit::on_both_databases;
use sublet_testkit::stripe::Trouble;
use sublet_testkit::tenant::{created, pay_in};

use crate::{UNIT, World, operator};

/// A German seller and customer, and 19 % of tax.
async fn sells_with_tax(world: &World<'_>) {
    let party = |name: &str| {
        let address = json!({ "lines": ["Street 2"], "city": "Berlin", "postal_code": "10115", "country": "DE" });
        json!({ "legal_name": name, "address": address, "tax_id": "DE123456789" })
    };
    let seller =
        serde_json::from_value(json!({ "seller": { "party": party("Seller") }, "terms": { "net_days": 14 } })).expect("a profile");
    world.cloud.set_seller(&Actor::system(), &seller).await.expect("it is set");
    let row = json!({ "jurisdiction": "DE", "name": "VAT", "rate_ppm": 190_000, "from": "2007-01-01" });
    let table = serde_json::from_value(json!({ "rows": [row] })).expect("a table");
    world.cloud.set_tax_table(&Actor::system(), &table).await.expect("it is set");
    let buyer = serde_json::from_value(json!({ "buyer": { "party": party("Buyer") } })).expect("a profile");
    world.cloud.set_billing_profile(&Actor::system(), &world.organization, buyer).await.expect("it is set");
}

on_both_databases! {
    async fn a_refund_is_approved_by_another_and_paid_once(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        pay_in(&world.cloud, &world.organization, Nanos::new(100 * UNIT)).await;
        let (anna, ben) = (operator("key_anna"), operator("key_ben"));
        let refund = world.request_by(&world.cloud, &anna, 60 * UNIT).await.expect("requested");
        assert_eq!(world.funds().await, (40 * UNIT, 100 * UNIT), "nobody spends it meanwhile");
        let error = world.cloud.approve_refund(&anna, &refund.id, &RefundWay::Bank).await.expect_err("four eyes");
        assert_eq!(error.code(), ErrorCode::Conflict);
        assert!(world.cloud.pay_refund(&ben, &refund.id, "out-1").await.is_err(), "it is not approved");
        for _ in 0..2 {
            let approved = world.cloud.approve_refund(&ben, &refund.id, &RefundWay::Bank).await.expect("approved");
            assert_eq!((approved.state, approved.answered_by.as_deref()), (RefundState::Approved, Some("key_ben")));
        }
        for _ in 0..2 {
            let paid = world.cloud.pay_refund(&anna, &refund.id, "out-1").await.expect("paid");
            assert_eq!((paid.state, paid.transaction.as_deref()), (RefundState::Paid, Some("out-1")));
        }
        assert!(world.cloud.pay_refund(&anna, &refund.id, "out-2").await.is_err());
        assert!(world.cloud.reject_refund(&ben, &refund.id, "too late").await.is_err());
        assert_eq!(world.funds().await, (40 * UNIT, 100 * UNIT));
        // One transfer pays one refund.
        let other = world.request(UNIT).await.expect("requested");
        world.cloud.approve_refund(&ben, &other.id, &RefundWay::Bank).await.expect("approved");
        let error = world.cloud.pay_refund(&anna, &other.id, "out-1").await.expect_err("used");
        assert_eq!((error.code(), error.param_name()), (ErrorCode::Conflict, Some("transaction_id")));
        world.check().await;
    }

    async fn never_more_goes_back_than_was_paid_and_is_there(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        assert_eq!(world.request(UNIT).await.expect_err("gifts are not paid out").code(), ErrorCode::InsufficientQuota);
        pay_in(&world.cloud, &world.organization, Nanos::new(10 * UNIT)).await;
        assert_eq!(world.request(11 * UNIT).await.expect_err("too much").code(), ErrorCode::InsufficientQuota);
        assert_eq!(world.request(1).await.expect_err("no cent").code(), ErrorCode::InvalidAmount);
        // Two processes, and money for one.
        let other = world.another().await;
        let (first, second) =
            tokio::join!(world.request(10 * UNIT), world.request_by(&other, &world.admin, 10 * UNIT));
        assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "{first:?} {second:?}");
        assert_eq!(world.funds().await, (0, 10 * UNIT));
        world.check().await;
    }

    async fn what_is_called_off_is_credit_again(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        pay_in(&world.cloud, &world.organization, Nanos::new(10 * UNIT)).await;
        let ben = operator("key_ben");
        let cancelled = world.request(4 * UNIT).await.expect("requested");
        let rejected = world.request(3 * UNIT).await.expect("requested");
        let stopped = world.request(2 * UNIT).await.expect("requested");
        world.cloud.approve_refund(&ben, &stopped.id, &RefundWay::Bank).await.expect("approved");
        assert!(world.cloud.cancel_refund(&world.admin, &stopped.id).await.is_err(), "it may be on its way");
        for _ in 0..2 {
            let done = world.cloud.cancel_refund(&world.admin, &cancelled.id).await.expect("cancelled");
            assert_eq!(done.state, RefundState::Cancelled);
            for id in [&rejected.id, &stopped.id] {
                let done = world.cloud.reject_refund(&ben, id, "wrong account").await.expect("rejected");
                assert_eq!((done.state, done.reason.as_deref()), (RefundState::Rejected, Some("wrong account")));
            }
        }
        assert_eq!(world.funds().await, (10 * UNIT, 10 * UNIT));
        assert!(world.cloud.approve_refund(&ben, &rejected.id, &RefundWay::Bank).await.is_err());
        world.check().await;
    }

    async fn what_was_kept_for_tax_goes_back_with_it(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        sells_with_tax(&world).await;
        pay_in(&world.cloud, &world.organization, Nanos::new(119 * UNIT)).await;
        assert_eq!(world.kept().await, (100 * UNIT, 19 * UNIT));
        let refund = world.request(119 * UNIT / 2).await.expect("requested");
        assert_eq!((refund.tax, world.kept().await), (Nanos::new(19 * UNIT / 2), (50 * UNIT, 19 * UNIT / 2)));
        world.cloud.cancel_refund(&world.admin, &refund.id).await.expect("cancelled");
        assert_eq!(world.kept().await, (100 * UNIT, 19 * UNIT), "each is where it was");
        assert_eq!(world.request(120 * UNIT).await.expect_err("too much").code(), ErrorCode::InsufficientQuota);
        let ben = operator("key_ben");
        let all = world.request(119 * UNIT).await.expect("requested");
        world.cloud.approve_refund(&ben, &all.id, &RefundWay::Bank).await.expect("approved");
        world.cloud.pay_refund(&ben, &all.id, "out-1").await.expect("paid");
        assert_eq!(world.kept().await, (0, 0));
        world.check().await;
    }

    async fn credit_that_ends_does_not_go_back(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let terms = CreditTerms { expires_at: Some(world.now().plus(DurationMs::from_hours(1))), ..CreditTerms::default() };
        let (organization, reference) = (world.organization.clone(), "offer".to_owned());
        let new = NewCredit { organization, kind: CreditKind::Paid, amount: Nanos::new(10 * UNIT), currency: None, reference, terms };
        created(world.cloud.grant_credit(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
        assert_eq!(world.request(UNIT).await.expect_err("it ends").code(), ErrorCode::InsufficientQuota);
        pay_in(&world.cloud, &world.organization, Nanos::new(UNIT)).await;
        world.request(UNIT).await.expect("what was paid in without an end");
        world.request(UNIT).await.expect_err("and no more");
    }

    async fn stripe_pays_back_once_whatever_gets_lost(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let (ben, paid) = (operator("key_ben"), world.paid_by_stripe(100 * UNIT).await);
        let way = RefundWay::Payment(paid.id.clone());
        let troubles: [&[Trouble]; 5] = [
            &[],
            &[Trouble::LoseAnswer],
            &[Trouble::Refuse(429, "rate_limit_error")],
            &[Trouble::Refuse(409, "idempotency_error")],
            &[Trouble::Hang],
        ];
        for (number, troubles) in (1..).zip(troubles) {
            let refund = world.request(10 * UNIT).await.expect("requested");
            // The first question is whether Stripe knows it; the next one makes it.
            let other = world.another().await;
            if !troubles.is_empty() {
                world.stripe.fail_next(Trouble::Refuse(503, "api_error"));
                world.cloud.approve_refund(&ben, &refund.id, &way).await.expect("approved");
                world.test.clock.advance(DurationMs::from_seconds(6));
                world.stripe.pass_next();
                troubles.iter().for_each(|trouble| world.stripe.fail_next(*trouble));
                other.reconcile_payments().await.expect("reconciled");
                world.test.clock.advance(DurationMs::from_hours(1));
                other.reconcile_payments().await.expect("reconciled");
            } else {
                world.cloud.approve_refund(&ben, &refund.id, &way).await.expect("approved");
            }
            let refund = world.cloud.get_refund(&world.admin, &refund.id).await.expect("it is there");
            assert_eq!(refund.state, RefundState::Paid, "{troubles:?}");
            assert_eq!(world.stripe.refunds().len(), number, "{troubles:?}");
        }
        assert_eq!(world.funds().await, (50 * UNIT, 100 * UNIT));
        assert_eq!(world.see(&paid).await.refunded.get(), 50 * UNIT);
        world.check().await;
    }

    async fn a_failure_that_stripe_keeps_is_tried_under_another_key(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let (ben, paid) = (operator("key_ben"), world.paid_by_stripe(10 * UNIT).await);
        let refund = world.request(10 * UNIT).await.expect("requested");
        world.stripe.pass_next();
        world.stripe.fail_next(Trouble::Break);
        world.cloud.approve_refund(&ben, &refund.id, &RefundWay::Payment(paid.id.clone())).await.expect("approved");
        assert!(world.stripe.refunds().is_empty());
        world.test.clock.advance(DurationMs::from_seconds(6));
        world.cloud.reconcile_payments().await.expect("reconciled");
        assert_eq!(world.cloud.get_refund(&world.admin, &refund.id).await.expect("it is there").state, RefundState::Paid);
        assert_eq!(world.stripe.refunds().len(), 1);
        world.check().await;
    }

    async fn a_payment_is_not_paid_back_twice_over(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let (ben, small) = (operator("key_ben"), world.paid_by_stripe(10 * UNIT).await);
        let by_bank = world.top_up(PaymentMethod::Bank, 90 * UNIT).await;
        world.import(&format!("t1,90,EUR,{}\n", by_bank.reference)).await;
        let big = world.request(60 * UNIT).await.expect("requested");
        for wrong in [&small.id, &by_bank.id] {
            let error = world.cloud.approve_refund(&ben, &big.id, &RefundWay::Payment(wrong.clone())).await.expect_err("too much");
            assert_eq!((error.code(), error.param_name()), (ErrorCode::Conflict, Some("top_up")));
        }
        let first = world.request(6 * UNIT).await.expect("requested");
        let second = world.request(6 * UNIT).await.expect("requested");
        let way = RefundWay::Payment(small.id.clone());
        let other = world.another().await;
        let (one, two) =
            tokio::join!(world.cloud.approve_refund(&ben, &first.id, &way), other.approve_refund(&ben, &second.id, &way));
        assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1, "{one:?} {two:?}");
        assert_eq!(world.stripe.refunds().len(), 1);
        world.check().await;
    }

    async fn a_refund_that_stripe_cannot_pay_is_credit_again(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let (ben, paid) = (operator("key_ben"), world.paid_by_stripe(10 * UNIT).await);
        let way = RefundWay::Payment(paid.id.clone());
        // Stripe takes its time, then fails.
        world.stripe.refund_as("pending");
        let refund = world.request(10 * UNIT).await.expect("requested");
        let waiting = world.cloud.approve_refund(&ben, &refund.id, &way).await.expect("approved");
        assert_eq!(waiting.state, RefundState::Approved);
        assert!(world.cloud.reject_refund(&ben, &refund.id, "too late").await.is_err(), "Stripe was asked already");
        world.stripe.settle_refunds("failed");
        world.test.clock.advance(DurationMs::from_hours(2));
        world.cloud.reconcile_payments().await.expect("reconciled");
        assert_eq!(world.cloud.get_refund(&world.admin, &refund.id).await.expect("it is there").state, RefundState::Failed);
        assert_eq!(world.funds().await, (10 * UNIT, 10 * UNIT));
        assert_eq!(world.see(&paid).await.refunded.get(), 0);
        // Another one goes through, and comes back days later: that is for a person.
        world.stripe.refund_as("succeeded");
        let refund = world.request(10 * UNIT).await.expect("requested");
        let done = world.cloud.approve_refund(&ben, &refund.id, &way).await.expect("approved");
        assert_eq!(done.state, RefundState::Paid);
        let object = json!({"id": "re_2", "object": "refund", "amount": 1_000, "currency": "eur", "metadata": {"refund": refund.id}});
        for kind in ["refund.updated", "refund.failed", "refund.failed"] {
            let (body, header) = world.stripe.event("evt_1", kind, &object, world.now());
            world.cloud.receive_notice(body.as_bytes(), &header).await.expect("taken");
        }
        let [back] = <[_; 1]>::try_from(world.quarantined().await).expect("one");
        assert_eq!(back.problem, Some(IncomingProblem::RefundReturned));
        let answer = (&IncomingAnswer::Credit(world.organization.clone()), "their account was closed");
        world.cloud.answer_incoming(&ben, &back.id, answer).await.expect("credited");
        assert_eq!(world.funds().await, (10 * UNIT, 20 * UNIT));
        world.check().await;
    }
}
