//! Mail: with its cause, once, and never lost from sight.

use serde_json::json;
use sublet_cloud::data::{InvoiceFilter, OutboxState};
use sublet_cloud::idempotency::Call;
use sublet_cloud::invoice::NewCreditNote;
use sublet_cloud::mail::{ATTEMPTS_MAX, Mail, MailReport, Mailer, QueuedMail, Recipient};
use sublet_cloud::{Actor, Cloud, CloudSettings};
use sublet_core::usage::UsageSink as _;
use sublet_core::{Currency, DurationMs, ErrorCode, Nanos};
use sublet_money::account::CreditKind;
use sublet_store::PageRequest;
use sublet_testkit::on_both_databases;
use sublet_testkit::smtp::{FakeSmtp, MailTrouble};

use crate::invoices::postpaid;
use crate::{UNIT, World};

/// A process that hands mail in at a server.
pub async fn mailing(world: &World<'_>, server: &FakeSmtp, seed: u64) -> Cloud {
    let port = server.port();
    let from = "billing@cloud.example".parse().expect("an address");
    let operator = Some("operator@cloud.example".parse().expect("an address"));
    let mail = Some(Mailer { port, from, operator });
    world.test.with(seed, CloudSettings { mail, ..CloudSettings::default() }).await
}

/// Says whom the customer's invoices are for.
pub async fn reads_mail(world: &World<'_>) {
    let address = json!({ "lines": ["Street 2"], "city": "Berlin", "country": "DE" });
    let party = json!({ "legal_name": "Buyer", "address": address, "contact": { "email": "pay@customer.example" } });
    let profile = serde_json::from_value(json!({ "buyer": { "party": party } })).expect("a profile");
    world.cloud.set_billing_profile(&Actor::system(), &world.organization, profile).await.expect("it is set");
}

async fn all(cloud: &Cloud, state: Option<OutboxState>) -> Vec<QueuedMail> {
    let page = PageRequest { limit: Some(100), ..PageRequest::default() };
    cloud.list_mail(&Actor::system(), state, &page).await.expect("a page").items
}

async fn queue(world: &World<'_>, key: &str, to: Recipient) {
    let mail = Mail {
        key: key.to_owned(),
        to,
        kind: "test",
        subject: "Hello\r\nBcc: all@example.com".to_owned(),
        text: "Hello.\n".to_owned(),
        attachment: None,
    };
    let store = world.cloud.store();
    store.write((&world.cloud, mail), |(cloud, mail), tx| Box::pin(cloud.queue_mail(tx, mail))).await.expect("queued");
}

const fn report(sent: u64, later: u64, failed: u64) -> MailReport {
    MailReport { sent, later, failed }
}

on_both_databases! {
    async fn an_invoice_and_its_credit_note_are_mailed_with_their_documents(cloud: &TestCloud) {
        let mut world = World::start(cloud).await;
        let session = postpaid(&mut world).await;
        reads_mail(&world).await;
        let grant = session.grant(None, 10 * UNIT, 10 * UNIT).await.expect("credit is there");
        let record = session.record(&grant.slice, 0, 10_000_000);
        world.cloud.settle(&[record]).await.expect("settled");
        session.give_back(&grant.slice, 1).await.expect("returned");
        world.test.clock.advance(DurationMs::from_hours(24 * 20));
        for _ in 0..2 {
            world.cloud.close_months().await.expect("closed");
        }
        assert_eq!(world.cloud.reconcile_mail().await.expect("looked"), MailReport::default(), "nobody delivers here");
        let waiting = all(&world.cloud, None).await;
        assert_eq!(waiting.len(), 1, "{waiting:?}");
        assert_eq!((waiting[0].kind.as_str(), waiting[0].state), ("invoice_issued", OutboxState::Queued));
        assert!(waiting[0].text.contains("Total: 6 EUR\n6 EUR of it are to be paid."), "{}", waiting[0].text);

        let server = FakeSmtp::start();
        let mailing = mailing(&world, &server, 5).await;
        server.fail_next(MailTrouble::LoseAnswer);
        assert_eq!(mailing.reconcile_mail().await.expect("looked"), report(0, 1, 0));
        assert_eq!(mailing.reconcile_mail().await.expect("looked"), report(0, 0, 0), "not at once again");
        world.test.clock.advance(DurationMs::from_seconds(60));
        assert_eq!(mailing.reconcile_mail().await.expect("looked"), report(1, 0, 0));
        let taken = server.taken();
        assert_eq!((taken.len(), taken[0].header("Message-ID")), (2, taken[1].header("Message-ID")), "a repeat is known by its id");
        assert_eq!(taken[1].to, ["pay@customer.example"]);
        assert!(taken[1].content.contains("Content-Type: application/pdf"), "{}", taken[1].content);
        let sent = all(&mailing, Some(OutboxState::Done)).await;
        assert_eq!(sent[0].sent_to.as_deref(), Some("pay@customer.example"));

        let page = PageRequest { limit: Some(100), ..PageRequest::default() };
        let bills = world.cloud.list_invoices(&world.admin, &InvoiceFilter::default(), &page).await.expect("invoices").items;
        let bill = bills.iter().find(|bill| bill.invoice.number.is_some()).expect("an invoice");
        let (invoice, amount) = (bill.invoice.id.clone(), Nanos::new(UNIT));
        let new = NewCreditNote { invoice, kind: CreditKind::Paid, amount, currency: Currency::EUR, reason: "a wrong price".to_owned() };
        world.cloud.issue_credit_note(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await.expect("issued");
        assert_eq!(mailing.reconcile_mail().await.expect("looked"), report(1, 0, 0));
        let note = server.taken().pop().expect("a mail");
        assert!(note.header("Subject").is_some_and(|subject| subject.starts_with("Credit note CN-")), "{}", note.content);
        assert!(note.content.contains("a wrong price") && note.content.contains("application/pdf"), "{}", note.content);
        assert_eq!(server.wrong(), Vec::<String>::new());
    }

    async fn what_nobody_can_read_fails_at_once_and_is_tried_again_when_it_is_put_right(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let server = FakeSmtp::start();
        let mailing = mailing(&world, &server, 5).await;
        queue(&world, "one", Recipient::Organization(world.organization.clone())).await;
        assert_eq!(mailing.reconcile_mail().await.expect("looked"), report(1, 0, 1), "the operator is told");
        let failed = all(&mailing, Some(OutboxState::Failed)).await;
        assert_eq!(failed[0].problem.as_deref(), Some("the organization's billing profile has no e-mail address"));
        reads_mail(&world).await;
        world.test.clock.advance(DurationMs::from_hours(24));
        let told = server.taken();
        assert_eq!((told.len(), told[0].to[0].as_str()), (1, "operator@cloud.example"), "{told:?}");
        assert!(told[0].content.contains("has no e-mail address"), "{}", told[0].content);
        assert_eq!(mailing.reconcile_mail().await.expect("looked"), report(0, 0, 0), "not by itself");
        assert!(mailing.retry_mail(&world.admin, &failed[0].id).await.is_err(), "customers do not see the operator's mail");
        let queued = mailing.retry_mail(&Actor::system(), &failed[0].id).await.expect("queued");
        assert_eq!(queued.state, OutboxState::Queued);
        assert_eq!(mailing.reconcile_mail().await.expect("looked"), report(1, 0, 0));
        let error = mailing.retry_mail(&Actor::system(), &failed[0].id).await.expect_err("it was sent");
        assert_eq!(error.code(), ErrorCode::Conflict);
        let taken = server.taken();
        assert_eq!((taken.len(), taken[1].header("Subject"), taken[1].header("Bcc")), (2, Some("Hello  Bcc: all@example.com"), None));
        // The operator's goes to the operator.
        queue(&world, "two", Recipient::Operator).await;
        assert_eq!(mailing.reconcile_mail().await.expect("looked"), report(1, 0, 0));
        assert_eq!(server.taken()[2].to, ["operator@cloud.example"]);
    }

    async fn two_processes_send_each_mail_once(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let server = FakeSmtp::start();
        let (one, other) = (mailing(&world, &server, 5).await, mailing(&world, &server, 6).await);
        for number in 0..6 {
            for _ in 0..2 {
                queue(&world, &format!("mail {number}"), Recipient::Operator).await;
            }
        }
        let (first, second) = tokio::join!(one.reconcile_mail(), other.reconcile_mail());
        let sent = first.expect("looked").sent + second.expect("looked").sent;
        let mut ids: Vec<_> = server.taken().iter().map(|mail| mail.header("Message-ID").map(str::to_owned)).collect();
        ids.sort();
        ids.dedup();
        assert_eq!((sent, ids.len(), server.taken().len()), (6, 6, 6));
    }

    async fn a_process_that_dies_while_it_sends_is_followed_by_another(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        queue(&world, "one", Recipient::Operator).await;
        let now = world.now();
        let claim = DurationMs::from_seconds(180);
        let claimed = world.cloud.store().write((), move |(), tx| {
            Box::pin(sublet_store::outbox::claim(tx, ("mail", "dead"), now, claim))
        });
        assert!(claimed.await.expect("claimed").is_some());
        let server = FakeSmtp::start();
        let mailing = mailing(&world, &server, 5).await;
        assert_eq!(mailing.reconcile_mail().await.expect("looked"), report(0, 0, 0), "somebody has it");
        world.test.clock.advance(claim);
        assert_eq!(mailing.reconcile_mail().await.expect("looked"), report(1, 0, 0));
    }

    async fn whoever_stops_does_not_wait_for_servers_that_do_not_answer(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let server = FakeSmtp::start();
        let mailing = mailing(&world, &server, 5).await;
        for number in 0..5 {
            server.fail_next(MailTrouble::Hang);
            queue(&world, &format!("mail {number}"), Recipient::Operator).await;
        }
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let stopping = async {
            while !server.said().iter().any(|line| line == "DATA") {
                tokio::task::yield_now().await;
            }
            stop.send(true).expect("it listens");
        };
        tokio::join!(mailing.run_mail(stopped), stopping);
        assert_eq!(server.said().iter().filter(|line| *line == "DATA").count(), 1, "no other one is begun");
        let queued = all(&mailing, Some(OutboxState::Queued)).await;
        let mut attempts: Vec<i64> = queued.iter().map(|mail| mail.attempts).collect();
        attempts.sort_unstable();
        assert_eq!(attempts, [0, 0, 0, 0, 1]);
        let begun = queued.iter().find(|mail| mail.attempts == 1).and_then(|mail| mail.problem.as_deref());
        assert_eq!(begun, Some("this process ended before it was answered"));
    }

    async fn a_server_that_says_later_for_days_is_given_up(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let server = FakeSmtp::start();
        let mailing = mailing(&world, &server, 5).await;
        queue(&world, "one", Recipient::Operator).await;
        for attempt in 1..=ATTEMPTS_MAX {
            server.fail_next(MailTrouble::RefuseContent("451 4.3.0 come again"));
            let is_last = attempt == ATTEMPTS_MAX;
            let expected = if is_last { report(0, 0, 1) } else { report(0, 1, 0) };
            assert_eq!(mailing.reconcile_mail().await.expect("looked"), expected, "{attempt}");
            world.test.clock.advance(DurationMs::from_hours(4));
        }
        assert_eq!(mailing.reconcile_mail().await.expect("looked"), report(0, 0, 0));
        let failed = all(&mailing, Some(OutboxState::Failed)).await;
        assert!(failed[0].problem.as_ref().is_some_and(|problem| problem.contains("come again")), "{failed:?}");
        assert_eq!(server.wrong(), Vec::<String>::new());
    }
}
