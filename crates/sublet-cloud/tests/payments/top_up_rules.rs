//! Automatic top-ups: by threshold and by day, within their bounds, one at a time, and what follows when one is declined.

use serde_json::json;
use sublet_cloud::data::{BelowThreshold, OnDay, TopUp, TopUpRule, TopUpRuleState, TopUpState};
use sublet_cloud::idempotency::Call;
use sublet_cloud::top_up_rule::AccountTopUpRule;
use sublet_cloud::{Actor, Cloud};
use sublet_core::payment::{PaymentMethod, TopUpCause};
use sublet_core::{Currency, DurationMs, ErrorCode, Nanos, Timestamp};
use sublet_store::PageRequest;
use sublet_testkit::on_both_databases;
use sublet_testkit::session::Session;
use sublet_testkit::stripe::Trouble;

use crate::cards::save;
use crate::{UNIT, World};

const MINUTE: DurationMs = DurationMs::from_seconds(61);
const HOUR: DurationMs = DurationMs::from_seconds(3_601);
const DAY: DurationMs = DurationMs::from_seconds(86_401);

fn units(amount: i64) -> Nanos {
    Nanos::new(amount * UNIT)
}

/// What a new customer is given is 25.
fn below(threshold: i64, amount: i64, most_per_month: i64) -> TopUpRule {
    let below = Some(BelowThreshold { threshold: units(threshold), amount: units(amount) });
    TopUpRule { below, on: None, most_per_day: None, most_per_month: units(most_per_month) }
}

fn on(day: &str, amount: i64, most_per_month: i64) -> TopUpRule {
    let on = Some(OnDay { day: day.parse().expect("a day"), amount: units(amount) });
    TopUpRule { below: None, on, most_per_day: None, most_per_month: units(most_per_month) }
}

async fn set(world: &World<'_>, rule: &TopUpRule) -> AccountTopUpRule {
    world.cloud.set_top_up_rule(&world.admin, rule, Currency::EUR).await.expect("set")
}

/// Time goes by, and every process looks.
async fn after(world: &World<'_>, by: DurationMs) {
    world.test.clock.advance(by);
    reconcile(&world.cloud).await;
}

async fn reconcile(cloud: &Cloud) {
    assert_eq!(cloud.reconcile_payments().await.expect("reconciled").failed, 0);
}

async fn state(world: &World<'_>) -> (TopUpRuleState, i64) {
    let rule = world.cloud.top_up_rule(&world.admin).await.expect("a rule").rule.expect("it is set");
    (rule.state, rule.declines)
}

/// The oldest first, a page after the charge that it is for.
async fn top_ups(world: &World<'_>) -> Vec<TopUp> {
    let page = PageRequest { limit: Some(100), ..PageRequest::default() };
    let mut items = world.cloud.list_top_ups(&world.admin, (None, None), &page).await.expect("a page").items;
    items.sort_by_key(|top_up| (top_up.created_at, top_up.cause == Some(TopUpCause::Confirmation), top_up.id.clone()));
    items
}

/// The customer pays on the page that waits for a confirmation.
async fn confirm(world: &World<'_>) {
    let is_waiting = |top_up: &TopUp| top_up.cause == Some(TopUpCause::Confirmation) && top_up.state == TopUpState::Pending;
    let page = top_ups(world).await.into_iter().find(is_waiting).expect("a page");
    world.stripe.pay(page.checkout.as_deref().expect("a page"), 0);
    world.notice("checkout.session.completed", &page).await;
    reconcile(&world.cloud).await;
    assert_eq!(world.see(&page).await.state, TopUpState::Succeeded);
}

async fn subjects(world: &World<'_>) -> Vec<String> {
    let page = PageRequest { limit: Some(100), ..PageRequest::default() };
    let mail = world.cloud.list_mail(&Actor::system(), None, &page).await.expect("a page").items;
    let mut subjects: Vec<_> = mail.into_iter().filter(|mail| mail.kind == "automatic_top_up").map(|mail| mail.subject).collect();
    subjects.sort();
    subjects
}

/// A saved card, a rule for Mondays, and the first of them, for which the bank wants to hear the customer.
async fn day_that_waits_for_the_customer(world: &World<'_>) -> Timestamp {
    save(world, "4242").await;
    let day = set(world, &on("mon", 20, 100)).await.rule.expect("it is set").day_at.expect("a day");
    world.stripe.decline_next("authentication_required");
    world.test.clock.set(day);
    reconcile(&world.cloud).await;
    reconcile(&world.cloud).await;
    day
}

on_both_databases! {
    async fn a_rule_needs_a_card_and_makes_sense(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let refused = world.cloud.set_top_up_rule(&world.admin, &below(30, 10, 100), Currency::EUR).await.expect_err("no card");
        assert_eq!(refused.code(), ErrorCode::Conflict);
        save(&world, "4242").await;
        for (rule, currency, code) in [
            (below(30, 10, 100), Currency::USD, ErrorCode::CurrencyMismatch),
            (below(30, 10, 9), Currency::EUR, ErrorCode::InvalidRequest),
            (below(30, 1_000_000, 2_000_000), Currency::EUR, ErrorCode::InvalidAmount),
        ] {
            let refused = world.cloud.set_top_up_rule(&world.admin, &rule, currency).await.expect_err("refused");
            assert_eq!(refused.code(), code, "{rule:?}");
        }
        assert_eq!(world.cloud.top_up_rule(&world.admin).await.expect("none").rule, None);
        let project = Actor { plane: sublet_core::key::KeyPlane::Project, ..world.admin.clone() };
        let refused = world.cloud.set_top_up_rule(&project, &below(30, 10, 100), Currency::EUR).await.expect_err("refused");
        assert_eq!(refused.code(), ErrorCode::WrongKeyPlane);
    }

    async fn too_little_is_topped_up_until_it_is_enough_or_the_bound_is_reached(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        set(&world, &below(50, 10, 40)).await;
        reconcile(&world.cloud).await;
        assert_eq!((world.funds().await.0, world.stripe.charged()), (10 * UNIT, 1_000), "the first look is at once");
        reconcile(&world.cloud).await;
        assert_eq!(world.stripe.charged(), 1_000, "the next one is not");
        for _ in 0..5 {
            after(&world, MINUTE).await;
        }
        assert_eq!((world.funds().await.0, world.stripe.charged()), (30 * UNIT, 3_000), "55 are enough");
        let causes: Vec<_> = top_ups(&world).await.into_iter().map(|top_up| (top_up.method, top_up.cause, top_up.state)).collect();
        assert_eq!(causes, vec![(PaymentMethod::Card, Some(TopUpCause::Threshold), TopUpState::Succeeded); 3]);

        set(&world, &below(500, 10, 40)).await;
        for _ in 0..5 {
            after(&world, MINUTE).await;
        }
        assert_eq!(world.stripe.charged(), 4_000, "40 in a month are all");
        assert_eq!(subjects(&world).await, ["Automatic top-ups have reached their limit"], "said once");
        world.check().await;
    }

    async fn a_slice_that_is_refused_is_topped_up_for_at_once(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        set(&world, &below(20, 50, 100)).await;
        after(&world, MINUTE).await;
        let session = Session::start(&world.cloud, &world.test.keys.project, "gw_1").await;
        let slice = session.grant(None, 20 * UNIT, 20 * UNIT).await.expect("it is there");
        session.grant(None, 10 * UNIT, 10 * UNIT).await.expect_err("it is not there");
        reconcile(&world.cloud).await;
        assert_eq!(world.stripe.charged(), 5_000);
        session.grant(None, 10 * UNIT, 10 * UNIT).await.expect("it is there now");
        session.give_back(&slice.slice, 0).await.expect("returned");
        world.check().await;
    }

    async fn each_day_of_a_rule_is_charged_once_however_many_were_missed(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        let rule = set(&world, &on("1", 20, 100)).await.rule.expect("it is set");
        reconcile(&world.cloud).await;
        assert_eq!(world.stripe.charged(), 0, "its day is to come");
        world.test.clock.set(rule.day_at.expect("a day").minus(DurationMs::from_millis(1)));
        reconcile(&world.cloud).await;
        assert_eq!(world.stripe.charged(), 0, "its day has not begun");
        after(&world, MINUTE).await;
        after(&world, MINUTE).await;
        assert_eq!(world.stripe.charged(), 2_000);
        // Nobody looks for three months.
        for _ in 0..3 {
            after(&world, DurationMs::from_hours(24 * 92)).await;
            after(&world, MINUTE).await;
        }
        assert_eq!(world.stripe.charged(), 8_000);
        world.check().await;
    }

    async fn a_rule_that_is_declined_waits_longer_each_time_and_is_paused(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        set(&world, &below(50, 10, 100)).await;
        for code in ["card_declined", "insufficient_funds", "expired_card"] {
            world.stripe.decline_next(code);
        }
        reconcile(&world.cloud).await;
        assert_eq!(state(&world).await, (TopUpRuleState::Active, 1));
        for _ in 0..5 {
            after(&world, MINUTE).await;
        }
        assert_eq!(world.stripe.intents().len(), 1, "it waits for an hour");
        after(&world, HOUR).await;
        assert_eq!(state(&world).await, (TopUpRuleState::Active, 2));
        after(&world, HOUR).await;
        assert_eq!(world.stripe.intents().len(), 2, "it waits for a day");
        after(&world, DAY).await;
        assert_eq!(state(&world).await, (TopUpRuleState::Paused, 3));
        after(&world, DAY).await;
        assert_eq!((world.stripe.intents().len(), world.stripe.charged()), (3, 0));
        assert_eq!(subjects(&world).await, vec!["An automatic top-up of 10 EUR did not come through"; 3]);
        // With another card it goes on.
        save(&world, "1881").await;
        reconcile(&world.cloud).await;
        assert_eq!((state(&world).await, world.stripe.charged()), ((TopUpRuleState::Active, 0), 1_000));
        world.check().await;
    }

    async fn a_day_that_was_declined_is_still_due(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        let rule = set(&world, &on("mon", 20, 100)).await.rule.expect("it is set");
        world.stripe.decline_next("card_declined");
        world.test.clock.set(rule.day_at.expect("a day"));
        reconcile(&world.cloud).await;
        assert_eq!((state(&world).await.1, world.stripe.charged()), (1, 0));
        after(&world, HOUR).await;
        assert_eq!((state(&world).await, world.stripe.charged()), ((TopUpRuleState::Active, 0), 2_000));
        after(&world, DAY).await;
        assert_eq!(world.stripe.charged(), 2_000, "until the next Monday");
        world.check().await;
    }

    /// Known failure: the customer pays on the page, the day is due all the same, and the card is charged for it again.
    async fn a_day_that_the_customer_confirmed_is_charged_for_once(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let day = day_that_waits_for_the_customer(&world).await;
        confirm(&world).await;
        for _ in 0..2 {
            after(&world, HOUR).await;
        }
        assert_eq!((world.stripe.intents().len(), world.funds().await.0), (1, 20 * UNIT));
        // And the next one is a day of its own.
        let next = day.plus(DurationMs::from_hours(24 * 7));
        assert_eq!(world.cloud.top_up_rule(&world.admin).await.expect("a rule").rule.expect("it is set").day_at, Some(next));
        world.test.clock.set(next);
        reconcile(&world.cloud).await;
        assert_eq!((world.stripe.intents().len(), world.funds().await.0), (2, 40 * UNIT));
        world.check().await;
    }

    async fn a_day_that_was_confirmed_while_the_rule_was_paused_is_not_charged_for_with_another_card(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        day_that_waits_for_the_customer(&world).await;
        world.cloud.remove_card(&world.admin).await.expect("removed");
        confirm(&world).await;
        assert_eq!(state(&world).await, (TopUpRuleState::Paused, 0));
        save(&world, "1881").await;
        for _ in 0..2 {
            after(&world, HOUR).await;
        }
        assert_eq!((state(&world).await, world.stripe.charged(), world.funds().await.0), ((TopUpRuleState::Active, 0), 0, 20 * UNIT));
        world.check().await;
    }

    async fn a_day_whose_page_expired_is_still_due(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        let day = set(&world, &on("mon", 20, 100)).await.rule.expect("it is set").day_at.expect("a day");
        world.stripe.decline_next("authentication_required");
        world.test.clock.set(day);
        reconcile(&world.cloud).await;
        after(&world, DAY).await;
        for _ in 0..3 {
            after(&world, MINUTE).await;
        }
        assert_eq!((world.stripe.intents().len(), world.stripe.charged()), (2, 2_000));
        world.check().await;
    }

    async fn a_day_that_was_paid_for_after_it_had_failed_is_charged_for_once(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        let day = set(&world, &on("mon", 20, 100)).await.rule.expect("it is set").day_at.expect("a day");
        world.stripe.decline_next("card_declined");
        world.test.clock.set(day);
        reconcile(&world.cloud).await;
        let [failed] = <[_; 1]>::try_from(top_ups(&world).await).expect("one");
        assert_eq!(failed.state, TopUpState::Failed);
        world.stripe.charge_all();
        world.notice("payment_intent.succeeded", &failed).await;
        reconcile(&world.cloud).await;
        for _ in 0..2 {
            after(&world, HOUR).await;
        }
        assert_eq!((world.stripe.intents().len(), world.funds().await.0), (1, 20 * UNIT));
        world.check().await;
    }

    /// Known failure: a charge of the rule as it was makes a day of the rule as it is now.
    async fn a_rule_that_was_set_again_has_days_of_its_own(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        let day = set(&world, &on("mon", 20, 100)).await.rule.expect("it is set").day_at.expect("a day");
        world.stripe.pass_next();
        world.stripe.fail_next(Trouble::Refuse(503, "api_error"));
        world.test.clock.set(day);
        reconcile(&world.cloud).await;
        world.test.clock.advance(DurationMs::from_seconds(1));
        let anew = set(&world, &on("1", 50, 100)).await.rule.expect("it is set");
        world.stripe.decline_next("card_declined");
        after(&world, MINUTE).await;
        after(&world, HOUR).await;
        assert_eq!(top_ups(&world).await[0].state, TopUpState::Failed);
        let rule = world.cloud.top_up_rule(&world.admin).await.expect("a rule").rule.expect("it is set");
        assert_eq!((rule.day_at, world.stripe.intents().len()), (anew.day_at, 1));
        world.check().await;
    }

    async fn a_day_whose_card_was_replaced_is_charged_to_the_other_one(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        let day = set(&world, &on("mon", 20, 100)).await.rule.expect("it is set").day_at.expect("a day");
        world.stripe.fail_next(Trouble::Refuse(429, "rate_limit_error"));
        world.test.clock.set(day);
        reconcile(&world.cloud).await;
        save(&world, "1881").await;
        after(&world, MINUTE).await;
        assert_eq!(top_ups(&world).await[0].state, TopUpState::Cancelled);
        for _ in 0..3 {
            after(&world, MINUTE).await;
        }
        assert_eq!((state(&world).await, world.stripe.charged()), ((TopUpRuleState::Active, 0), 2_000), "nothing was declined");
        assert_eq!(world.stripe.intents()[0]["payment_method"], json!("pm_1881_2"));
        assert_eq!(subjects(&world).await, Vec::<String>::new());
        world.check().await;
    }

    async fn a_page_that_cannot_be_made_is_told_of(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        set(&world, &below(30, 10, 100)).await;
        world.stripe.decline_next("authentication_required");
        world.stripe.refuse_at("/v1/checkout/sessions");
        reconcile(&world.cloud).await;
        reconcile(&world.cloud).await;
        let states: Vec<_> = top_ups(&world).await.into_iter().map(|top_up| (top_up.cause, top_up.state)).collect();
        let failed = |cause| (Some(cause), TopUpState::Failed);
        assert_eq!(states, [failed(TopUpCause::Threshold), failed(TopUpCause::Confirmation)]);
        assert_eq!(subjects(&world).await, ["An automatic top-up of 10 EUR did not come through"]);
        assert_eq!(state(&world).await, (TopUpRuleState::Active, 1));
        world.check().await;
    }

    async fn a_refusal_writes_nothing_while_a_rule_waits(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        set(&world, &below(50, 10, 100)).await;
        world.stripe.decline_next("card_declined");
        reconcile(&world.cloud).await;
        let session = Session::start(&world.cloud, &world.test.keys.project, "gw_1").await;
        let waiting = world.cloud.top_up_rule(&world.admin).await.expect("a rule");
        session.grant(None, 30 * UNIT, 30 * UNIT).await.expect_err("it is not there");
        assert_eq!(world.cloud.top_up_rule(&world.admin).await.expect("a rule"), waiting);
        after(&world, HOUR).await;
        assert_eq!(world.stripe.charged(), 1_000, "then it is tried again");
        let session = Session::start(&world.cloud, &world.test.keys.project, "gw_2").await;
        session.grant(None, 40 * UNIT, 40 * UNIT).await.expect_err("it is not there");
        let woken = world.cloud.top_up_rule(&world.admin).await.expect("a rule").rule.expect("it is set");
        assert_eq!(woken.look_at, Some(world.now()));
        world.check().await;
    }

    async fn a_bank_that_wants_the_customer_gets_the_customer(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        set(&world, &below(30, 10, 100)).await;
        world.stripe.decline_next("authentication_required");
        reconcile(&world.cloud).await;
        reconcile(&world.cloud).await;
        let [declined, page] = <[_; 2]>::try_from(top_ups(&world).await).expect("a charge and a page");
        assert_eq!((declined.state, page.state), (TopUpState::Failed, TopUpState::Pending));
        assert_eq!((page.method, page.cause), (PaymentMethod::Stripe, Some(TopUpCause::Confirmation)));
        assert_eq!(world.stripe.intents()[0]["status"], json!("canceled"), "only the page can be paid");
        assert!(world.cloud.top_up_rule(&world.admin).await.expect("a rule").needs_customer);
        let mail = world.cloud.list_mail(&Actor::system(), None, &PageRequest::default()).await.expect("a page").items;
        let url = page.url.as_deref().expect("a page");
        assert!(mail.iter().any(|mail| mail.subject == "Confirm an automatic top-up of 10 EUR" && mail.text.contains(url)));
        for _ in 0..3 {
            after(&world, HOUR).await;
        }
        assert_eq!(world.stripe.intents().len(), 1, "nothing else is charged meanwhile");
        confirm(&world).await;
        assert_eq!((world.funds().await, state(&world).await), ((10 * UNIT, 10 * UNIT), (TopUpRuleState::Active, 0)));
        assert!(!world.cloud.top_up_rule(&world.admin).await.expect("a rule").needs_customer);
        world.check().await;
    }

    async fn a_page_that_nobody_confirms_on_expires_and_the_card_is_tried_again(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        set(&world, &below(30, 10, 100)).await;
        for _ in 0..3 {
            world.stripe.decline_next("authentication_required");
        }
        for _ in 0..40 {
            after(&world, HOUR).await;
            after(&world, HOUR).await;
        }
        assert_eq!(state(&world).await, (TopUpRuleState::Paused, 3));
        assert_eq!((world.stripe.intents().len(), world.stripe.sessions().len() - 1), (3, 3), "each time a page");
        world.check().await;
    }

    /// Known failure: the threshold is seen again before the first charge is credit, and the card is charged again.
    async fn a_card_is_charged_once_for_a_threshold_however_many_look(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        // The charge is made, and its answer lost.
        set(&world, &below(30, 10, 1_000)).await;
        world.stripe.pass_next();
        world.stripe.fail_next(Trouble::LoseAnswer);
        let other = world.another().await;
        let (first, second) = tokio::join!(world.cloud.reconcile_payments(), other.reconcile_payments());
        assert!(first.is_ok() && second.is_ok());
        assert_eq!((world.stripe.intents().len(), world.funds().await.0), (1, 0), "it is charged, and not credit yet");
        for _ in 0..4 {
            world.test.clock.advance(MINUTE);
            let (first, second) = tokio::join!(world.cloud.reconcile_payments(), other.reconcile_payments());
            assert!(first.is_ok() && second.is_ok());
        }
        assert_eq!((world.stripe.charged(), world.funds().await), (1_000, (10 * UNIT, 10 * UNIT)));
        world.check().await;
    }

    async fn a_rule_waits_for_a_charge_that_somebody_asked_for(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        world.stripe.fail_next(Trouble::Refuse(429, "rate_limit_error"));
        let by_hand = world.top_up(PaymentMethod::Card, 40 * UNIT).await;
        assert_eq!(by_hand.state, TopUpState::Pending);
        set(&world, &below(30, 10, 100)).await;
        reconcile(&world.cloud).await;
        for _ in 0..3 {
            after(&world, MINUTE).await;
        }
        assert_eq!((world.stripe.charged(), top_ups(&world).await.len()), (4_000, 1), "then it is enough");
        // A page that is open is none: nobody knows whether it will be paid.
        world.top_up(PaymentMethod::Stripe, UNIT).await;
        set(&world, &below(70, 10, 100)).await;
        reconcile(&world.cloud).await;
        assert_eq!(world.stripe.charged(), 5_000);
        world.check().await;
    }

    async fn a_rule_without_its_card_or_that_was_removed_charges_nothing(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        set(&world, &below(100, 10, 1_000)).await;
        world.cloud.remove_card(&world.admin).await.expect("removed");
        assert_eq!(state(&world).await.0, TopUpRuleState::Paused);
        after(&world, HOUR).await;
        assert_eq!(world.stripe.charged(), 0);
        save(&world, "1881").await;
        assert_eq!((state(&world).await.0, world.stripe.charged()), (TopUpRuleState::Active, 1_000));
        for _ in 0..2 {
            assert_eq!(world.cloud.remove_top_up_rule(&world.admin).await.expect("removed").rule, None);
        }
        after(&world, HOUR).await;
        assert_eq!(world.stripe.charged(), 1_000);
        world.check().await;
    }

    async fn a_charge_that_is_cancelled_is_not_made_again_at_once(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        save(&world, "4242").await;
        set(&world, &below(100, 10, 1_000)).await;
        world.stripe.fail_next(Trouble::Refuse(429, "rate_limit_error"));
        reconcile(&world.cloud).await;
        let [pending] = <[_; 1]>::try_from(top_ups(&world).await).expect("one");
        world.cloud.cancel_top_up(&world.admin, &pending.id).await.expect("cancelled");
        for _ in 0..5 {
            after(&world, MINUTE).await;
        }
        assert_eq!((state(&world).await, world.stripe.charged()), ((TopUpRuleState::Active, 1), 0));
        world.check().await;
    }

    async fn tenants_see_their_own_cards_and_rules_only(cloud: &TestCloud) {
        let mut world = World::start(cloud).await;
        save(&world, "4242").await;
        set(&world, &below(20, 10, 100)).await;
        crate::invoices::postpaid(&mut world).await;
        assert_eq!(world.cloud.saved_cards(&world.admin).await.expect("cards").saved, None);
        assert_eq!(world.cloud.top_up_rule(&world.admin).await.expect("none").rule, None);
        let refused = world.cloud.create_top_up(&Call::once(world.admin.clone()), &crate::new(PaymentMethod::Card, UNIT)).await;
        assert_eq!(refused.expect_err("no card").code(), ErrorCode::Conflict);
    }
}
