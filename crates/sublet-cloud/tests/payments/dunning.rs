//! Dunning: reminders in their order, suspension after all of the grace, and its end with the payment.

use serde_json::json;
use sublet_cloud::data::{BelowThreshold, DunningPolicy, OnSuspension, OutboxState, TopUpRule};
use sublet_cloud::dunning::DunningReport;
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::Admission as _;
use sublet_core::key::Secret;
use sublet_core::payment::PaymentMethod;
use sublet_core::usage::UsageSink as _;
use sublet_core::{Currency, DurationMs, ErrorCode, Nanos};
use sublet_store::PageRequest;
use sublet_testkit::on_both_databases;
use sublet_testkit::session::Session;
use sublet_testkit::smtp::{FakeSmtp, MailTrouble};
use sublet_testkit::tenant::pay_in;

use crate::invoices::postpaid_with_key;
use crate::mail::mailing;
use crate::{UNIT, World};

fn policy(reminders: &[u16], suspend_after: Option<u16>) -> DunningPolicy {
    DunningPolicy { reminders: reminders.to_vec(), suspend_after }
}

/// A seller with fourteen days to pay, and a customer that reads mail. Nobody collects taxes.
async fn sells(world: &World<'_>) {
    let party = |name: &str| {
        let address = json!({ "lines": ["Street 2"], "city": "Bern", "country": "CH" });
        json!({ "legal_name": name, "address": address, "contact": { "email": "pay@customer.example" } })
    };
    let seller = json!({ "seller": { "party": party("Seller") }, "terms": { "net_days": 14 } });
    world.cloud.set_seller(&Actor::system(), &serde_json::from_value(seller).expect("a profile")).await.expect("it is set");
    let buyer = serde_json::from_value(json!({ "buyer": { "party": party("Buyer") } })).expect("a profile");
    world.cloud.set_billing_profile(&Actor::system(), &world.organization, buyer).await.expect("it is set");
}

/// A customer that owes 6, by an invoice that is due in fourteen days, and has a slice of 10 that it may use.
async fn owing(world: &mut World<'_>) -> (Session, Secret) {
    let (session, secret) = postpaid_with_key(world).await;
    sells(world).await;
    let grant = session.grant(None, 10 * UNIT, 10 * UNIT).await.expect("credit is there");
    let record = session.record(&grant.slice, 0, 10_000_000);
    world.cloud.settle(&[record]).await.expect("settled");
    session.give_back(&grant.slice, 1).await.expect("returned");
    world.test.clock.advance(DurationMs::from_hours(24 * 20));
    world.cloud.close_months().await.expect("closed");
    (session, secret)
}

const fn report(reminded: u64, suspended: u64, lifted: u64) -> DunningReport {
    DunningReport { reminded, suspended, lifted, failed: 0 }
}

/// Days go by, with the mail of each, until something happens; says on which day after the due day, and what.
async fn until_something(world: &World<'_>, (cloud, mailing): (&Cloud, &Cloud)) -> (i64, DunningReport) {
    for _ in 0..100 {
        mailing.reconcile_mail().await.expect("looked");
        let done = cloud.dun().await.expect("looked");
        if done != DunningReport::default() {
            assert_eq!(cloud.dun().await.expect("looked"), DunningReport::default(), "once");
            return (overdue_days(world).await, done);
        }
        world.test.clock.advance(DurationMs::from_hours(24));
    }
    panic!("nothing happened in a hundred days");
}

async fn overdue_days(world: &World<'_>) -> i64 {
    let dunning = world.cloud.dunning(&world.admin, &world.organization).await.expect("a standing");
    let due_on = dunning.debts[0].due_on;
    (0..200_u16).find(|days| due_on.plus_days(*days).is_ok_and(|day| day >= dunning.today)).map_or(-1, i64::from)
}

async fn is_suspended(world: &World<'_>) -> bool {
    world.cloud.dunning(&world.admin, &world.organization).await.expect("a standing").account.suspended_at.is_some()
}

on_both_databases! {
    async fn an_account_is_reminded_suspended_and_free_again_with_its_payment(cloud: &TestCloud) {
        let mut world = World::start(cloud).await;
        let (session, secret) = owing(&mut world).await;
        let server = FakeSmtp::start();
        let mailing = mailing(&world, &server, 5).await;
        assert_eq!(world.cloud.dun().await.expect("looked"), DunningReport::default(), "nobody set a policy");
        world.cloud.set_dunning_policy(&Actor::system(), &policy(&[3, 10], Some(15))).await.expect("set");
        let running = session.grant(None, UNIT, UNIT).await.expect("a slice");
        assert_eq!(until_something(&world, (&world.cloud, &mailing)).await, (3, report(1, 0, 0)));
        assert_eq!(until_something(&world, (&world.cloud, &mailing)).await, (10, report(1, 0, 0)));
        session.port.authenticate(&secret).await.expect("it has its grace");
        let epoch = session.port.access_epoch();
        // Another process suspends; this one hears of it.
        let other = world.another().await;
        assert_eq!(until_something(&world, (&other, &mailing)).await, (15, report(0, 1, 0)));
        world.cloud.follow().await.expect("followed");
        assert!(session.port.access_epoch() > epoch, "what gateways remember is asked anew");

        let refused = session.port.authenticate(&secret).await.expect_err("nothing new");
        assert_eq!(refused.code(), ErrorCode::InsufficientQuota);
        assert!(refused.message().starts_with("the account is suspended: 6 EUR are overdue; invoice INV-"), "{refused}");
        assert!(refused.alternatives()[0].contains("sublet top-ups create 6"), "{refused:?}");
        // What runs goes on, unless its customer said otherwise.
        session.grant(Some(&running.slice), UNIT, UNIT).await.expect("it finishes");
        world.cloud.set_on_suspension(&world.admin, OnSuspension::Stop).await.expect("set");
        let refused = session.grant(Some(&running.slice), UNIT, UNIT).await.expect_err("it stops");
        assert_eq!(refused.code(), ErrorCode::InsufficientQuota);

        // Part of it is not enough; the rest is, at once.
        pay_in(&world.cloud, &world.organization, Nanos::new(5 * UNIT)).await;
        assert!(is_suspended(&world).await);
        let refused = session.port.authenticate(&secret).await.expect_err("nothing new");
        assert!(refused.message().starts_with("the account is suspended: 1 EUR are overdue; invoice INV-"), "{refused}");
        pay_in(&world.cloud, &world.organization, Nanos::new(UNIT)).await;
        assert!(!is_suspended(&world).await);
        session.port.authenticate(&secret).await.expect("it has access");
        session.grant(Some(&running.slice), UNIT, UNIT).await.expect("it goes on");
        session.give_back(&running.slice, 0).await.expect("returned");
        assert_eq!(world.cloud.dun().await.expect("looked"), DunningReport::default());

        // Everybody was told of everything, once.
        mailing.reconcile_mail().await.expect("sent");
        let subjects: Vec<String> =
            server.taken().iter().map(|mail| format!("{} {}", mail.to[0], mail.header("Subject").unwrap_or_default())).collect();
        let count = |text: &str| subjects.iter().filter(|subject| subject.contains(text)).count();
        assert_eq!(
            (count("Reminder: invoice"), count("is suspended"), count("is no longer suspended"), subjects.len()),
            (2, 2, 2, 7),
            "{subjects:?}"
        );
        assert_eq!(count("operator@cloud.example"), 2, "{subjects:?}");
        let page = PageRequest { limit: Some(100), ..PageRequest::default() };
        let audit = world.cloud.list_audit(&world.admin, &page).await.expect("a page").items;
        let count = |action: &str| audit.iter().filter(|entry| entry.action == action).count();
        assert_eq!(
            (count("invoice.remind"), count("organization.suspend"), count("organization.unsuspend"), count("dunning.set")),
            (2, 1, 1, 1)
        );
        world.check().await;
    }

    async fn nobody_is_suspended_whom_no_mail_reached(cloud: &TestCloud) {
        let mut world = World::start(cloud).await;
        owing(&mut world).await;
        world.cloud.set_dunning_policy(&Actor::system(), &policy(&[3], Some(5))).await.expect("set");
        for day in 0..60 {
            let done = world.cloud.dun().await.expect("looked");
            assert_eq!((done.suspended, done.failed), (0, 0), "on day {day} nobody delivers mail");
            world.test.clock.advance(DurationMs::from_hours(24));
        }
        let server = FakeSmtp::start();
        let mailing = mailing(&world, &server, 5).await;
        // The invoice's mail is taken, its reminder is not.
        server.fail_next(MailTrouble::None);
        server.fail_next(MailTrouble::RefuseRecipient("550 5.1.1 nobody"));
        let sent = mailing.reconcile_mail().await.expect("looked");
        assert_eq!((sent.sent, sent.failed), (2, 1), "the operator is told");
        let told = server.taken().into_iter().last().expect("a mail");
        assert_eq!(told.to, ["operator@cloud.example"]);
        assert!(told.header("Subject").is_some_and(|subject| subject.ends_with("was not delivered")), "{told:?}");
        world.test.clock.advance(DurationMs::from_hours(24 * 30));
        assert_eq!(mailing.dun().await.expect("looked"), DunningReport::default(), "it was not delivered");
        // It is tried again and arrives: all of the grace follows.
        let page = PageRequest { limit: Some(100), ..PageRequest::default() };
        let failed = mailing.list_mail(&Actor::system(), Some(OutboxState::Failed), &page).await.expect("a page").items;
        assert_eq!((failed.len(), failed[0].kind.as_str()), (1, "dunning_reminder"));
        mailing.retry_mail(&Actor::system(), &failed[0].id).await.expect("queued");
        mailing.reconcile_mail().await.expect("looked");
        for _ in 0..2 {
            assert_eq!(mailing.dun().await.expect("looked"), DunningReport::default(), "it has its grace");
            world.test.clock.advance(DurationMs::from_hours(24));
        }
        assert_eq!(mailing.dun().await.expect("looked"), report(0, 1, 0));
    }

    async fn a_suspended_account_is_not_charged_by_its_rule(cloud: &TestCloud) {
        let mut world = World::start(cloud).await;
        owing(&mut world).await;
        crate::cards::save(&world, "4242").await;
        let below = Some(BelowThreshold { threshold: Nanos::new(200 * UNIT), amount: Nanos::new(10 * UNIT) });
        let rule = TopUpRule { below, on: None, most_per_day: None, most_per_month: Nanos::new(500 * UNIT) };
        let mailing = mailing(&world, &FakeSmtp::start(), 5).await;
        world.cloud.set_dunning_policy(&Actor::system(), &policy(&[1], Some(2))).await.expect("set");
        until_something(&world, (&world.cloud, &mailing)).await;
        until_something(&world, (&world.cloud, &mailing)).await;
        assert!(is_suspended(&world).await);
        world.cloud.set_top_up_rule(&world.admin, &rule, Currency::EUR).await.expect("set");
        for _ in 0..3 {
            world.cloud.reconcile_payments().await.expect("reconciled");
            world.test.clock.advance(DurationMs::from_seconds(61));
        }
        assert_eq!(world.stripe.charged(), 0, "what is owed it pays by itself");
        world.top_up(PaymentMethod::Card, 6 * UNIT).await;
        assert!(!is_suspended(&world).await);
        world.cloud.reconcile_payments().await.expect("reconciled");
        assert_eq!(world.stripe.charged(), 1_600, "now it is");
        world.check().await;
    }

    async fn two_processes_do_each_step_once(cloud: &TestCloud) {
        let mut world = World::start(cloud).await;
        owing(&mut world).await;
        world.cloud.set_dunning_policy(&Actor::system(), &policy(&[3], Some(4))).await.expect("set");
        let other = world.another().await;
        let mailing = mailing(&world, &FakeSmtp::start(), 5).await;
        let mut done = (0, 0);
        for _ in 0..30 {
            mailing.reconcile_mail().await.expect("looked");
            let (one, two) = tokio::join!(world.cloud.dun(), other.dun());
            for report in [one.expect("looked"), two.expect("looked")] {
                assert_eq!(report.failed, 0);
                done = (done.0 + report.reminded, done.1 + report.suspended);
            }
            world.test.clock.advance(DurationMs::from_hours(24));
        }
        assert_eq!(done, (1, 1));
    }

    async fn a_dispute_is_left_alone_and_a_milder_policy_frees(cloud: &TestCloud) {
        let mut world = World::start(cloud).await;
        let (session, secret) = owing(&mut world).await;
        let operator = Actor::system();
        let mailing = mailing(&world, &FakeSmtp::start(), 5).await;
        let own = policy(&[1], Some(2));
        let id = world.organization.clone();
        world.cloud.set_dunning(&operator, &id, (Some(&own), None)).await.expect("set");
        assert_eq!(until_something(&world, (&world.cloud, &mailing)).await, (1, report(1, 0, 0)));
        assert_eq!(until_something(&world, (&world.cloud, &mailing)).await, (2, report(0, 1, 0)));
        let invoice = world.cloud.dunning(&operator, &id).await.expect("a standing").debts[0].invoice.clone();
        let note = "they say that it was never delivered".to_owned();
        for wrong in ["", " ", "two\nlines"] {
            let error = world.cloud.pause_invoice(&operator, &invoice, Some(&wrong.to_owned())).await.expect_err("no note");
            assert_eq!(error.param_name(), Some("note"));
        }
        assert!(world.cloud.pause_invoice(&world.admin, &invoice, Some(&note)).await.is_err(), "only the operator");
        world.cloud.pause_invoice(&operator, &invoice, Some(&note)).await.expect("paused");
        session.port.authenticate(&secret).await.expect("it is free at once");
        assert_eq!(world.cloud.dun().await.expect("looked"), DunningReport::default());
        world.cloud.pause_invoice(&operator, &invoice, None).await.expect("resumed");
        assert_eq!(world.cloud.dun().await.expect("looked"), report(0, 1, 0), "where it was");
        // An account is paused as a whole, and one that pays never is asked for less.
        world.cloud.set_dunning(&operator, &id, (Some(&own), Some(&note))).await.expect("paused");
        assert!(!is_suspended(&world).await);
        world.cloud.set_dunning(&operator, &id, (Some(&own), None)).await.expect("resumed");
        assert_eq!(world.cloud.dun().await.expect("looked"), report(0, 1, 0));
        world.cloud.set_dunning(&operator, &id, (None, None)).await.expect("as all others, who are not dunned");
        assert!(!is_suspended(&world).await);
        let wrong = policy(&[], Some(3));
        assert!(world.cloud.set_dunning(&operator, &id, (Some(&wrong), None)).await.is_err(), "nobody would be reminded");
        assert!(world.cloud.set_dunning_policy(&operator, &wrong).await.is_err());
    }
}
