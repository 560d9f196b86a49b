//! Payments by Stripe: lost answers, failures, webhooks in any order, two processes, crashes.

use serde_json::json;
use sublet_cloud::data::{IncomingProblem, TopUpState};
use sublet_core::payment::PaymentMethod;
use sublet_core::{DurationMs, ErrorCode, Nanos};
use sublet_money::account::{AccountKind, CostKind, LedgerAccount, Processor};
use sublet_store::ledger;
use sublet_testkit::on_both_databases;
use sublet_testkit::stripe::{Trouble, WEBHOOK_SECRET, sign};

use crate::{UNIT, World};

async fn balance(world: &World<'_>, kind: AccountKind) -> i64 {
    let account = LedgerAccount::customer(kind, &world.organization);
    let read = world.cloud.store().read(account, |account, tx| Box::pin(ledger::totals(tx, account)));
    read.await.expect("totals").balance(kind.normal_side()).expect("a balance").get()
}

on_both_databases! {
    async fn a_payment_is_credited_once_whatever_stripe_tells_and_in_which_order(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let top_up = world.top_up(PaymentMethod::Stripe, 30 * UNIT).await;
        let page = top_up.checkout.clone().expect("a page");
        assert!(top_up.url.as_deref().is_some_and(|url| url.ends_with(&page)));
        assert_eq!(world.stripe.sessions()[0]["amount_total"], json!(3_000));
        // Told before anything was paid, and with the end before the beginning: Stripe is asked each time.
        world.notice("checkout.session.completed", &top_up).await;
        world.cloud.reconcile_payments().await.expect("reconciled");
        assert_eq!(world.see(&top_up).await.state, TopUpState::Pending);
        world.stripe.pay(&page, 117);
        for kind in ["payment_intent.succeeded", "checkout.session.completed", "payment_intent.created", "payment_intent.succeeded"] {
            world.notice(kind, &top_up).await;
            world.cloud.reconcile_payments().await.expect("reconciled");
        }
        let paid = world.see(&top_up).await;
        assert_eq!((paid.state, paid.payment.as_deref()), (TopUpState::Succeeded, Some("pi_test_1")));
        assert_eq!(world.funds().await, (30 * UNIT, 30 * UNIT));
        assert_eq!(balance(&world, AccountKind::Cash(Processor::Stripe)).await, 30 * UNIT);
        assert_eq!(balance(&world, AccountKind::Cash(Processor::Bank)).await, 0);
        assert_eq!(balance(&world, AccountKind::Costs(CostKind::ProcessorFees)).await, 1_170_000_000);
        assert_eq!(balance(&world, AccountKind::AccruedCosts(CostKind::ProcessorFees)).await, 1_170_000_000);
        world.check().await;
    }

    async fn a_payment_that_nobody_tells_of_is_found(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let top_up = world.top_up(PaymentMethod::Stripe, UNIT).await;
        world.stripe.pay(top_up.checkout.as_deref().expect("a page"), 0);
        world.cloud.reconcile_payments().await.expect("reconciled");
        assert_eq!(world.see(&top_up).await.state, TopUpState::Pending, "it is not time to ask");
        world.test.clock.advance(DurationMs::from_seconds(61));
        world.cloud.reconcile_payments().await.expect("reconciled");
        assert_eq!(world.see(&top_up).await.state, TopUpState::Succeeded);
        world.check().await;
    }

    async fn whatever_fails_at_first_ends_with_one_page(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let troubles = [
            Trouble::LoseAnswer,
            Trouble::Break,
            Trouble::Hang,
            Trouble::Refuse(409, "invalid_request_error"),
            Trouble::Refuse(429, "rate_limit_error"),
            Trouble::Refuse(401, "invalid_request_error"),
            Trouble::Refuse(503, "api_error"),
        ];
        for (number, trouble) in (1..).zip(troubles) {
            world.stripe.fail_next(trouble);
            let top_up = world.top_up(PaymentMethod::Stripe, number * UNIT).await;
            assert_eq!((top_up.state, top_up.url), (TopUpState::Pending, None), "{trouble:?}");
            // The process is gone, and another one goes on.
            let other = world.another().await;
            world.test.clock.advance(DurationMs::from_seconds(6));
            other.reconcile_payments().await.expect("reconciled");
            let top_up = world.cloud.get_top_up(&world.admin, &top_up.id).await.expect("it is there");
            assert!(top_up.url.is_some(), "{trouble:?}");
            let pages: Vec<_> = world.stripe.sessions().into_iter().filter(|page| page["metadata"]["top_up"] == json!(top_up.id)).collect();
            assert_eq!(pages.len(), 1, "{trouble:?}");
        }
        world.check().await;
    }

    async fn a_refusal_is_told_to_the_customer(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        for (status, kind) in [(402, "card_error"), (400, "invalid_request_error")] {
            world.stripe.fail_next(Trouble::Refuse(status, kind));
            let top_up = world.top_up(PaymentMethod::Stripe, UNIT).await;
            assert_eq!((top_up.state, top_up.reason.as_deref()), (TopUpState::Failed, Some("you shall not")), "{status}");
        }
        assert!(world.stripe.sessions().is_empty());
    }

    async fn notices_that_are_not_from_stripe_do_nothing(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let top_up = world.top_up(PaymentMethod::Stripe, UNIT).await;
        let object = json!({"id": "pi_1", "object": "payment_intent", "metadata": {"top_up": top_up.id}});
        let (body, header) = world.stripe.event("evt_1", "payment_intent.succeeded", &object, world.now());
        let asked = world.stripe.seen().len();
        let old = sign(WEBHOOK_SECRET, world.now().minus(DurationMs::from_seconds(301)), &body);
        let forged = sign("whsec_guessed", world.now(), &body);
        for (body, header) in [(body.as_str(), ""), (&body, &old), (&body, &forged), (&body.replace("evt_1", "evt_2"), &header)] {
            let error = world.cloud.receive_notice(body.as_bytes(), header).await.expect_err("refused");
            assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some("stripe-signature")));
        }
        world.cloud.reconcile_payments().await.expect("reconciled");
        assert_eq!(world.stripe.seen().len(), asked, "nobody was asked");
        assert!(world.quarantined().await.is_empty());
        world.cloud.receive_notice(body.as_bytes(), &header).await.expect("the right one works");
    }

    async fn a_payment_that_nobody_knows_is_quarantined_once(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let payment = json!({"id": "pi_9", "object": "payment_intent", "amount": 1_250, "currency": "eur", "metadata": {}});
        let elsewhere = json!({"id": "pi_8", "object": "payment_intent", "amount": 9, "currency": "jpy",
            "metadata": {"top_up": "top_00000000000000000000000000"}});
        let refund = json!({"id": "re_9", "object": "refund", "amount": 5, "currency": "eur", "metadata": {}});
        let dispute = json!({"id": "dp_9", "object": "dispute", "amount": 5, "currency": "eur"});
        let customer = json!({"id": "cus_9", "object": "customer"});
        for _ in 0..2 {
            for (kind, object) in [
                ("payment_intent.succeeded", &payment),
                ("payment_intent.succeeded", &elsewhere),
                ("refund.created", &refund),
                ("charge.dispute.created", &dispute),
                ("customer.created", &customer),
            ] {
                let (body, header) = world.stripe.event("evt_1", kind, object, world.now());
                world.cloud.receive_notice(body.as_bytes(), &header).await.expect("taken");
            }
        }
        let kept: Vec<_> = world.quarantined().await.into_iter().map(|known| (known.transaction, known.problem, known.amount)).collect();
        let eur = |units| Some((Nanos::new(units), sublet_core::Currency::EUR));
        let yen = Some((Nanos::new(9 * UNIT), "JPY".parse().expect("a currency")));
        assert_eq!(
            kept,
            [
                ("dp_9".to_owned(), Some(IncomingProblem::Disputed), eur(50_000_000)),
                ("pi_8".to_owned(), Some(IncomingProblem::UnknownPayment), yen),
                ("pi_9".to_owned(), Some(IncomingProblem::UnknownPayment), eur(12_500_000_000)),
                ("re_9".to_owned(), Some(IncomingProblem::UnknownRefund), eur(50_000_000)),
            ]
        );
        assert_eq!(world.funds().await, (0, 0));
    }

    async fn what_was_paid_while_it_was_cancelled_is_credit(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let (paid, unpaid) = (world.top_up(PaymentMethod::Stripe, UNIT).await, world.top_up(PaymentMethod::Stripe, 2 * UNIT).await);
        world.stripe.pay(paid.checkout.as_deref().expect("a page"), 0);
        assert_eq!(world.cloud.cancel_top_up(&world.admin, &paid.id).await.expect("asked").state, TopUpState::Succeeded);
        assert_eq!(world.cloud.cancel_top_up(&world.admin, &unpaid.id).await.expect("asked").state, TopUpState::Cancelled);
        assert_eq!(world.stripe.sessions()[1]["status"], json!("expired"));
        // Where the answer is lost it is cancelled when that is known.
        let unclear = world.top_up(PaymentMethod::Stripe, 3 * UNIT).await;
        world.stripe.fail_next(Trouble::LoseAnswer);
        assert_eq!(world.cloud.cancel_top_up(&world.admin, &unclear.id).await.expect("asked").state, TopUpState::Pending);
        world.test.clock.advance(DurationMs::from_seconds(6));
        world.cloud.reconcile_payments().await.expect("reconciled");
        assert_eq!(world.see(&unclear).await.state, TopUpState::Cancelled);
        // A page of which nobody was told is closed when it comes to light.
        world.stripe.fail_next(Trouble::LoseAnswer);
        let hidden = world.top_up(PaymentMethod::Stripe, 4 * UNIT).await;
        assert_eq!(world.cloud.cancel_top_up(&world.admin, &hidden.id).await.expect("asked").state, TopUpState::Cancelled);
        assert_eq!(world.funds().await, (UNIT, UNIT));
        world.check().await;
    }

    async fn money_can_be_on_its_way_for_days_and_not_come(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let top_up = world.top_up(PaymentMethod::Stripe, UNIT).await;
        let page = top_up.checkout.clone().expect("a page");
        world.stripe.begin_to_pay(&page);
        world.test.clock.advance(DurationMs::from_hours(72));
        world.cloud.reconcile_payments().await.expect("reconciled");
        assert_eq!(world.see(&top_up).await.state, TopUpState::Pending);
        world.stripe.bounce(&page);
        world.notice("checkout.session.async_payment_failed", &top_up).await;
        world.cloud.reconcile_payments().await.expect("reconciled");
        let failed = world.see(&top_up).await;
        assert_eq!((failed.state, failed.reason.as_deref()), (TopUpState::Failed, Some("Insufficient funds.")));
        assert_eq!(world.funds().await, (0, 0));
    }

    async fn a_page_that_is_not_used_expires(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let top_up = world.top_up(PaymentMethod::Stripe, UNIT).await;
        world.test.clock.advance(DurationMs::from_hours(24));
        for _ in 0..2 {
            world.cloud.reconcile_payments().await.expect("reconciled");
        }
        assert_eq!(world.see(&top_up).await.state, TopUpState::Expired);
        assert_eq!(world.stripe.sessions()[0]["status"], json!("expired"));
    }

    async fn another_amount_than_was_asked_for_is_quarantined(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let top_up = world.top_up(PaymentMethod::Stripe, 10 * UNIT).await;
        let page = top_up.checkout.clone().expect("a page");
        world.stripe.change_amount(&page, 900);
        world.stripe.pay(&page, 0);
        world.notice("payment_intent.succeeded", &top_up).await;
        world.cloud.reconcile_payments().await.expect("reconciled");
        assert_eq!(world.see(&top_up).await.state, TopUpState::Failed);
        let [kept] = <[_; 1]>::try_from(world.quarantined().await).expect("one");
        assert_eq!((kept.problem, kept.amount.map(|(amount, _)| amount.get())), (Some(IncomingProblem::Partial), Some(9 * UNIT)));
        assert_eq!(world.funds().await, (0, 0));
    }

    /// Known failure: two processes see the same payment at once, and each credits it.
    async fn two_processes_credit_a_payment_once(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let other = world.another().await;
        let mut top_ups = Vec::new();
        for number in 1..=6 {
            let top_up = world.top_up(PaymentMethod::Stripe, number * UNIT).await;
            world.stripe.pay(top_up.checkout.as_deref().expect("a page"), 10);
            top_ups.push(top_up);
        }
        // What each process would credit if seeing were enough.
        let naive = 2 * 21 * UNIT;
        for top_up in &top_ups {
            world.notice("payment_intent.succeeded", top_up).await;
        }
        let (first, second) = tokio::join!(world.cloud.reconcile_payments(), other.reconcile_payments());
        assert!(first.is_ok() && second.is_ok());
        world.test.clock.advance(DurationMs::from_hours(1));
        let (first, second) = tokio::join!(world.cloud.reconcile_payments(), other.reconcile_payments());
        assert!(first.is_ok() && second.is_ok());
        for top_up in &top_ups {
            assert_eq!(world.see(top_up).await.state, TopUpState::Succeeded);
        }
        assert_eq!(world.funds().await, (21 * UNIT, 21 * UNIT));
        assert_ne!(world.funds().await.1, naive);
        world.check().await;
    }
}
