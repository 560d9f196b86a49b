//! Months that close: invoices with numbers, what comes late, what is still to pay, credit notes.

use std::collections::BTreeSet;

use sublet_cloud::billing::ClosingReport;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::invoice::{Bill, NewCreditNote};
use sublet_cloud::key::NewKey;
use sublet_cloud::organization::NewOrganization;
use sublet_cloud::{Actor, Cloud, CloudSettings};
use sublet_core::admission::ModelAccess;
use sublet_core::id::{InvoiceId, OrganizationId};
use sublet_core::organization::OrganizationClass;
use sublet_core::rate::RateLimits;
use sublet_core::usage::{UsageRecord, UsageSink};
use sublet_core::{Currency, DurationMs, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::account::{AccountKind, CreditKind, LedgerAccount};
use sublet_money::period::BillingCalendar;
use sublet_money::price_book::PriceEntry;
use sublet_money::price_model::{PriceModel, Tier};
use sublet_money::sku::Quantity;
use sublet_store::billing::{self, OpenMonth};
use sublet_store::credit_note::CreditNote;
use sublet_store::invoice::InvoiceFilter;
use sublet_store::{PageRequest, charge, ledger};
use sublet_testkit::prices::republish;
use sublet_testkit::session::Session;
use sublet_testkit::tenant::{actor, created, pay_in};
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;

const HOUR: DurationMs = DurationMs::from_seconds(3_600);

/// The instant at which a month of some zone begins.
pub fn month(zone: &str, name: &str) -> Timestamp {
    let calendar = BillingCalendar::new(zone).expect("a zone");
    calendar.period(name.parse().expect("a month")).expect("a period").interval.starts_at
}

fn before(instant: Timestamp) -> Timestamp {
    Timestamp::from_micros(instant.micros() - 1)
}

pub async fn close(cloud: &Cloud) -> (u64, u64) {
    let ClosingReport { closed, issued, failed, .. } = cloud.close_months().await.expect("months are looked at");
    assert_eq!(failed, 0);
    (closed, issued)
}

/// Issued invoices, the oldest first.
pub async fn issued(cloud: &TestCloud, organization: &OrganizationId) -> Vec<Bill> {
    let page = PageRequest { limit: Some(100), ..PageRequest::default() };
    let mut bills = cloud.cloud.list_invoices(&Actor::system(), &InvoiceFilter::default(), &page).await.expect("invoices").items;
    bills.retain(|bill| bill.invoice.number.is_some() && bill.invoice.content.account.organization == *organization);
    bills.sort_by_key(|bill| bill.invoice.content.period.key);
    bills
}

fn number(bill: &Bill) -> String {
    bill.invoice.number.map(|number| number.to_string()).unwrap_or_default()
}

/// A customer with a zone and a credit limit, and a session of a key of its first project.
pub async fn customer(cloud: &TestCloud, name: &str, zone: &str, credit_limit: i64) -> Session {
    customer_in(cloud, name, (Currency::EUR, zone), credit_limit).await
}

pub async fn customer_in(cloud: &TestCloud, name: &str, (currency, zone): (Currency, &str), credit_limit: i64) -> Session {
    let new = NewOrganization {
        name: name.to_owned(),
        class: OrganizationClass::External,
        currency,
        time_zone: zone.to_owned(),
        credit_limit: Nanos::new(credit_limit),
    };
    let (_, admin) = created(cloud.cloud.create_organization(&Call::once(Actor::system()), &new).await);
    let admin = actor(&cloud.cloud, &admin.secret).await;
    let project = created(cloud.cloud.create_project(&Call::once(admin.clone()), "work", &|_| Ok(String::new())).await);
    let key = NewKey { name: "work".to_owned(), models: ModelAccess::All, rates: RateLimits::default(), expires_at: None };
    let key = created(cloud.cloud.create_project_key(&Call::once(admin), &project.id, &key).await);
    Session::start(&cloud.cloud, &key.secret, &format!("gw_{name}")).await
}

/// Settles one use of so many output tokens, at 0.6 for a thousand thousand.
pub async fn used(session: &Session, tokens: i64) -> UsageRecord {
    let grant = session.grant(None, 10 * UNIT, 10 * UNIT).await.expect("credit is there");
    let record = session.record(&grant.slice, 0, tokens);
    settled(session, &record).await;
    session.give_back(&grant.slice, 1).await.expect("returned");
    record
}

async fn settled(session: &Session, record: &UsageRecord) {
    let report = session.cloud.settle(std::slice::from_ref(record)).await.expect("settled");
    assert_eq!((report.settled, report.quarantined), (1, 0));
}

pub async fn credit(cloud: &TestCloud, invoice: &InvoiceId, amount: i64) -> Result<CreditNote> {
    credit_in(cloud, invoice, (amount, Currency::EUR)).await
}

pub async fn credit_in(cloud: &TestCloud, invoice: &InvoiceId, (amount, currency): (i64, Currency)) -> Result<CreditNote> {
    let new = NewCreditNote {
        invoice: invoice.clone(),
        kind: CreditKind::Paid,
        amount: Nanos::new(amount),
        currency,
        reason: "slow answers on 17 March".to_owned(),
    };
    match cloud.cloud.issue_credit_note(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await? {
        Answer::New(note) => Ok(note),
        Answer::Replayed(text) => panic!("the call was a repeat: {text}"),
    }
}

on_both_databases! {
    async fn a_month_is_closed_once_and_a_while_after_its_end(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let organization = session.access.organization.clone();
        used(&session, 10_000_000).await;
        let april = month("Europe/Berlin", "2026-04");
        for early in [april, before(april.plus(HOUR))] {
            cloud.clock.set(early);
            assert_eq!(close(&cloud.cloud).await.1, 0, "{early}");
        }
        cloud.clock.set(april.plus(HOUR));
        assert_eq!(close(&cloud.cloud).await.1, 1);
        assert_eq!(close(&cloud.another(7).await).await, (0, 0), "it is closed");
        // Another process found the account new, and comes to open its first month only now.
        let first = OpenMonth { period: "2026-03".parse().expect("a month"), ends_at: april };
        let late = cloud.cloud.store().write((&organization, first), |(id, first), tx| Box::pin(async move {
            billing::open(tx, id, first).await?;
            billing::find_open(tx, id).await
        }));
        assert_eq!(late.await.expect("a row").map(|(open, _)| open.period.to_string()), Some("2026-04".to_owned()));
        let bills = issued(cloud, &organization).await;
        let [march] = bills.as_slice() else { panic!("{bills:?}") };
        assert_eq!((number(march).as_str(), march.invoice.state.as_str(), march.due), ("INV-2026-000001", "paid", Nanos::ZERO));
        assert_eq!(march.invoice.content.total, Nanos::new(6 * UNIT));
        // Asking for a draft of it gives what was issued; the running month has one of its own.
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let again = cloud.cloud.draft_invoice(&admin, &organization, Some("2026-03".parse().expect("a month"))).await.expect("issued");
        assert_eq!(&again, march);
        let running = cloud.cloud.draft_invoice(&admin, &organization, None).await.expect("a draft");
        assert_eq!((running.invoice.number, running.invoice.content.period.key.to_string()), (None, "2026-04".to_owned()));
        // A month without use is closed, too, and has no invoice and no number.
        cloud.clock.set(month("Europe/Berlin", "2026-05").plus(HOUR));
        assert_eq!(close(&cloud.cloud).await.1, 0);
        let none = cloud.cloud.draft_invoice(&admin, &organization, Some("2026-04".parse().expect("a month"))).await.expect_err("nothing");
        assert_eq!(none.code(), ErrorCode::NotFound);
        used(&session, 5_000_000).await;
        cloud.clock.set(month("Europe/Berlin", "2026-06").plus(HOUR));
        assert_eq!(close(&cloud.cloud).await.1, 1);
        assert_eq!(issued(cloud, &organization).await.iter().map(number).collect::<Vec<_>>(), ["INV-2026-000001", "INV-2026-000002"]);
    }

    /// Known failures: what is late is lost, is in two invoices, or begins its tiers anew.
    async fn what_comes_late_goes_on_where_its_closed_month_ended(cloud: &TestCloud) {
        let tier = |up_to: Option<i64>, price| Tier { up_to: up_to.map(|to| Quantity::new(to).expect("a bound")), price: Nanos::new(price) };
        let tiers = vec![tier(Some(10_000_000), UNIT), tier(None, UNIT / 2)];
        let graduated = |entry: &PriceEntry| PriceEntry::new(entry.sku.clone(), PriceModel::Graduated { tiers: tiers.clone() });
        republish(&cloud.cloud, &cloud.clock, graduated).await;
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let organization = session.access.organization.clone();
        let grant = session.grant(None, 20 * UNIT, 20 * UNIT).await.expect("credit is there");
        settled(&session, &session.record(&grant.slice, 0, 8_000_000)).await;
        // Admitted in March, and its gateway was cut off until after the month was closed.
        let late = session.record(&grant.slice, 0, 4_000_000);
        cloud.clock.set(month("Europe/Berlin", "2026-04").plus(HOUR));
        assert_eq!(close(&cloud.cloud).await.1, 1);
        settled(&session, &late).await;
        settled(&session, &session.record(&grant.slice, 0, 1_000_000)).await;
        cloud.clock.set(month("Europe/Berlin", "2026-05").plus(HOUR));
        assert_eq!(close(&cloud.cloud).await.1, 1);
        let bills = issued(cloud, &organization).await;
        let [march, april] = bills.as_slice() else { panic!("{bills:?}") };
        assert_eq!(march.invoice.content.total, Nanos::new(8 * UNIT));
        let lines: Vec<_> = april.invoice.content.lines.iter().map(|line| {
            (line.late.map(|late| (late.period.to_string(), late.quantity_before.get())), line.quantity.get(), line.charges.amount.get())
        }).collect();
        // Two thousand thousand in the first tier, two in the second; April begins its own.
        assert_eq!(lines, [(None, 1_000_000, UNIT), (Some(("2026-03".to_owned(), 8_000_000)), 4_000_000, 3 * UNIT)]);
        // Every charge is in exactly one of them.
        let (count, total) = cloud.cloud.store().read(&organization, |id, tx| Box::pin(charge::organization_total(tx, id))).await.expect("a total");
        let in_invoices: u64 = bills.iter().flat_map(|bill| &bill.invoice.content.lines).map(|line| line.charges.count).sum();
        let invoiced = Nanos::checked_sum(bills.iter().map(|bill| bill.invoice.content.subtotal)).expect("a sum");
        assert_eq!((i64::try_from(in_invoices).expect("few"), invoiced), (count, total));
        let charges = cloud.cloud.list_charges(&Actor::system(), Some(late.request.as_str()), &PageRequest::default()).await.expect("charges").items;
        assert_eq!(charges[0].billed_in.map(|period| period.to_string()), Some("2026-04".to_owned()));
    }

    /// Known failures: a double invoice, or a missing last hour, for accounts away from UTC and at DST days.
    async fn an_instant_at_a_boundary_is_in_one_invoice_in_any_zone(cloud: &TestCloud) {
        // A day and more apart; clocks that jump by an hour, by half an hour, or not at all.
        let zones = ["Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Amman", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns"];
        let mut sessions = Vec::new();
        for (index, zone) in zones.into_iter().enumerate() {
            sessions.push((zone, customer(cloud, &format!("zone{index}"), zone, 100 * UNIT).await));
        }
        let months = ["2026-04", "2026-05", "2026-10", "2026-11"];
        let mut instants: Vec<(usize, Timestamp)> = Vec::new();
        for (index, zone) in zones.into_iter().enumerate() {
            for name in months {
                let begins = month(zone, name);
                instants.extend([before(begins), begins].map(|instant| (index, instant)));
            }
        }
        instants.sort_by_key(|(_, instant)| *instant);
        for (index, instant) in &instants {
            cloud.clock.set(*instant);
            close(&cloud.cloud).await;
            used(&sessions[*index].1, 1_000).await;
        }
        cloud.clock.set(month("UTC", "2027-01"));
        close(&cloud.cloud).await;
        for (zone, session) in &sessions {
            let calendar = BillingCalendar::new(zone).expect("a zone");
            let bills = issued(cloud, &session.access.organization).await;
            let periods: Vec<_> = bills.iter().map(|bill| bill.invoice.content.period.key.to_string()).collect();
            assert_eq!(periods, ["2026-03", "2026-04", "2026-05", "2026-09", "2026-10", "2026-11"], "{zone}");
            for bill in &bills {
                let content = &bill.invoice.content;
                let expected = instants.iter().filter(|(index, instant)| {
                    zones[*index] == *zone && calendar.period_at(*instant).expect("a period").key == content.period.key
                }).count();
                let quantity: i64 = content.lines.iter().map(|line| line.quantity.get()).sum();
                assert_eq!(quantity, 1_000 * i64::try_from(expected).expect("few"), "{zone} {}", content.period.key);
                assert!(content.lines.iter().all(|line| line.late.is_none()), "{zone}: nothing is late");
            }
        }
    }

    async fn numbers_have_no_gaps_whoever_closes_and_whatever_fails(cloud: &TestCloud) {
        let mut sessions = Vec::new();
        for index in 0..6 {
            sessions.push(customer(cloud, &format!("c{index}"), "UTC", 100 * UNIT).await);
        }
        for session in &sessions {
            used(session, 1_000_000).await;
        }
        // The books of one do not add up: it gets no invoice, and no number is lost for it.
        let broken = sessions[2].access.organization.clone();
        let charged = |amount: i64| {
            let (store, broken) = (cloud.cloud.store().clone(), broken.clone());
            async move {
                let set = store.write((broken, amount), |(broken, amount), tx| Box::pin(async move {
                    let lines = charge::list_all_lines(tx, broken).await?;
                    let lines: Vec<_> = lines.iter().map(|(key, state)| (key, sublet_money::rating::LineState { charged: Nanos::new(*amount), ..*state })).collect();
                    charge::set_line_states(tx, &lines).await
                }));
                set.await.expect("a changed line");
            }
        };
        let right = 600_000_000;
        charged(right + 1).await;
        cloud.clock.set(month("UTC", "2026-04").plus(HOUR));
        let other = cloud.another(7).await;
        let (here, there) = tokio::join!(cloud.cloud.close_months(), other.close_months());
        let (here, there) = (here.expect("closed"), there.expect("closed"));
        assert!(here.failed > 0 || there.failed > 0);
        assert_eq!(here.issued + there.issued, 5);
        charged(right).await;
        // Its month is closed all the same: what comes now is late, and in the next invoice.
        let at = cloud.now();
        cloud.clock.set(before(month("UTC", "2026-04")));
        let late = used(&sessions[2], 1_000_000).await;
        cloud.clock.set(at);
        assert_eq!(close(&cloud.cloud).await, (0, 1));
        let repaired = issued(cloud, &broken).await;
        assert_eq!(repaired[0].invoice.content.subtotal, Nanos::new(right));
        let charges = cloud.cloud.list_charges(&Actor::system(), Some(late.request.as_str()), &PageRequest::default()).await.expect("charges").items;
        assert_eq!(charges[0].billed_in.map(|period| period.to_string()), Some("2026-04".to_owned()));
        let mut numbers = BTreeSet::new();
        for session in &sessions {
            numbers.extend(issued(cloud, &session.access.organization).await.iter().map(number));
        }
        let wanted: BTreeSet<String> = (1..=6).map(|place| format!("INV-2026-{place:06}")).collect();
        assert_eq!(numbers, wanted);
    }

    /// Known failure: an invoice's payment is put to the wallet, and the invoice stays unpaid, or both.
    async fn what_is_paid_in_pays_the_oldest_invoice_first(cloud: &TestCloud) {
        let session = customer(cloud, "postpaid", "UTC", 100 * UNIT).await;
        let organization = session.access.organization.clone();
        used(&session, 10_000_000).await;
        cloud.clock.set(month("UTC", "2026-04").plus(HOUR));
        close(&cloud.cloud).await;
        used(&session, 5_000_000).await;
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        let standing = async || -> Vec<(&'static str, i64)> {
            issued(cloud, &organization).await.iter().map(|bill| (bill.invoice.state.as_str(), bill.due.get())).collect()
        };
        let available = async || {
            let balance = cloud.cloud.credit_balance(&Actor::system(), &organization).await.expect("a balance");
            balance.funds.available.get()
        };
        assert_eq!(standing().await, [("issued", 6 * UNIT), ("issued", 3 * UNIT)]);
        assert_eq!(available().await, 91 * UNIT);
        // Who keeps a wallet and invoices beside each other has two places to put a payment, and uses both.
        let (mut wallet, mut naive_dues) = (100 * UNIT, [6 * UNIT, 3 * UNIT]);
        for (due, payment) in naive_dues.iter_mut().zip([6 * UNIT, 3 * UNIT]) {
            wallet += payment;
            *due -= payment;
        }
        assert_eq!((wallet, naive_dues), (109 * UNIT, [0, 0]), "nine were paid, and nine more can be spent");
        pay_in(&cloud.cloud, &organization, Nanos::new(2 * UNIT)).await;
        assert_eq!(standing().await, [("issued", 4 * UNIT), ("issued", 3 * UNIT)]);
        pay_in(&cloud.cloud, &organization, Nanos::new(5 * UNIT)).await;
        assert_eq!(standing().await, [("paid", 0), ("issued", 2 * UNIT)]);
        pay_in(&cloud.cloud, &organization, Nanos::new(2 * UNIT)).await;
        assert_eq!(standing().await, [("paid", 0), ("paid", 0)]);
        assert_eq!(available().await, 100 * UNIT, "what was paid is what was owed: nothing more is in the wallet");
    }

    async fn a_credit_note_gives_back_at_most_what_was_invoiced(cloud: &TestCloud) {
        let session = customer(cloud, "refunded", "UTC", 100 * UNIT).await;
        let organization = session.access.organization.clone();
        used(&session, 10_000_000).await;
        let draft = cloud.cloud.draft_invoice(&Actor::system(), &organization, None).await.expect("a draft");
        let error = credit(cloud, &draft.invoice.id, UNIT).await.expect_err("a draft");
        assert_eq!(error.code(), ErrorCode::Conflict);
        cloud.clock.set(month("UTC", "2026-04").plus(HOUR));
        close(&cloud.cloud).await;
        used(&session, 5_000_000).await;
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        let bills = issued(cloud, &organization).await;
        let [first, second] = [0, 1].map(|index| bills[index].invoice.id.clone());
        for (amount, part) in [(0, "positive"), (-UNIT, "positive"), (UNIT / 1_000, "whole minor units"), (6 * UNIT + 10_000_000, "can still be credited")] {
            let error = credit(cloud, &first, amount).await.expect_err("refused");
            assert!(error.code() == ErrorCode::InvalidAmount && error.to_string().contains(part), "{amount}: {error}");
        }
        let numbers = [credit(cloud, &second, 3 * UNIT).await, credit(cloud, &first, UNIT).await].map(|note| note.expect("a note").number.to_string());
        assert_eq!(numbers, ["CN-2026-000001", "CN-2026-000002"]);
        let error = credit(cloud, &first, 5 * UNIT + 10_000_000).await.expect_err("more than is left");
        assert!(error.to_string().contains("5 EUR of INV-2026-000001 can still be credited"), "{error}");
        let standing: Vec<_> = issued(cloud, &organization).await.iter().map(|bill| (bill.invoice.state.as_str(), bill.credited.get(), bill.due.get())).collect();
        assert_eq!(standing, [("issued", UNIT, 5 * UNIT), ("void", 3 * UNIT, 0)]);
        let content: Vec<_> = issued(cloud, &organization).await.into_iter().map(|bill| bill.invoice.content).collect();
        assert_eq!(content, bills.into_iter().map(|bill| bill.invoice.content).collect::<Vec<_>>(), "an issued invoice is never edited");
        let balance = cloud.cloud.credit_balance(&Actor::system(), &organization).await.expect("a balance");
        assert_eq!(balance.funds.available, Nanos::new((100 - 9 + 4) * UNIT));
        let notes = cloud.cloud.list_credit_notes(&Actor::system(), Some(&first), &PageRequest::default()).await.expect("notes").items;
        assert_eq!(notes.iter().map(|note| note.amount.get()).collect::<Vec<_>>(), [UNIT]);
        let stranger = actor(&cloud.cloud, &cloud.keys.admin).await;
        assert!(cloud.cloud.list_credit_notes(&stranger, None, &PageRequest::default()).await.expect("notes").items.is_empty());
    }

    async fn a_use_in_the_future_is_set_aside_and_seen(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let record = session.record(&grant.slice, 0, 1_000);
        let (tomorrow, yesterday) = (cloud.now().plus(DurationMs::from_hours(24)), cloud.now().minus(DurationMs::from_hours(24)));
        let a_bit = DurationMs::from_millis(1);
        for (admitted_at, quarantined) in [(tomorrow, 0), (tomorrow.plus(a_bit), 1), (yesterday, 0), (yesterday.minus(a_bit), 1)] {
            let record = UsageRecord { admitted_at, request: cloud.cloud.ids().mint(), ..record.clone() };
            let report = session.cloud.settle(std::slice::from_ref(&record)).await.expect("settled");
            assert_eq!((report.settled, report.quarantined), (1 - quarantined, quarantined));
        }
        let aside = cloud.cloud.list_quarantine(&Actor::system(), &PageRequest::default()).await.expect("a list").items;
        let said = format!("{aside:?}");
        assert!(aside.len() == 2 && said.contains("and it is") && said.contains("its account is there since"), "{said}");
    }

    /// Known failure: every invoice is patched by a cent, or the rounding of one is forgotten in the next.
    async fn the_rounding_of_one_invoice_is_carried_into_the_next(cloud: &TestCloud) {
        let session = customer(cloud, "cents", "UTC", 100 * UNIT).await;
        let organization = session.access.organization.clone();
        // 0.0042 a month: seldom worth a cent.
        for name in ["2026-04", "2026-05", "2026-06", "2026-07", "2026-08"] {
            used(&session, 7_000).await;
            // An empty look in between, and a draft, change nothing.
            cloud.cloud.draft_invoice(&Actor::system(), &organization, None).await.expect("a draft");
            cloud.clock.set(month("UTC", name).plus(HOUR));
            close(&cloud.cloud).await;
        }
        let contents: Vec<_> = issued(cloud, &organization).await.into_iter().map(|bill| bill.invoice.content).collect();
        let totals: Vec<_> = contents.iter().map(|content| content.total.get() / 10_000_000).collect();
        assert_eq!(totals, [0, 1, 0, 1, 0], "0.42, 0.84 rounded up, 1.26, 1.68 rounded up, 2.1 cents in all");
        for pair in contents.windows(2) {
            assert_eq!(pair[1].carry_before, pair[0].carry_after);
        }
        let second = issued(cloud, &organization).await.swap_remove(1).invoice.id;
        let why = cloud.cloud.why(&Actor::system(), second.as_str()).await.expect("why");
        let figures: Vec<_> = why.facts.iter().take(4).map(|fact| (fact.label.as_str(), fact.value.as_str())).collect();
        // Each is added to the one before; the last but one is their sum.
        assert_eq!(figures, [
            ("sum of charges", "0.0042 EUR"),
            ("carried over", "0.0042 EUR"),
            ("total", "0.01 EUR"),
            ("rounding, carried on to the next invoice", "0.0016 EUR"),
        ]);
        let carry = LedgerAccount::customer(AccountKind::RoundingCarry, &organization);
        let totals = cloud.cloud.store().read(carry, |carry, tx| Box::pin(ledger::totals(tx, carry))).await.expect("an account");
        let carried = totals.debits.checked_sub(totals.credits).expect("a balance");
        assert_eq!(carried, contents.last().expect("invoices").carry_after);
    }

    async fn a_month_closes_while_its_account_is_busy(cloud: &TestCloud) {
        let session = customer(cloud, "busy", "UTC", 100 * UNIT).await;
        let organization = session.access.organization.clone();
        let grant = session.grant(None, 50 * UNIT, 50 * UNIT).await.expect("credit is there");
        cloud.clock.set(before(month("UTC", "2026-04")));
        let march: Vec<_> = (0..60).map(|_| session.record(&grant.slice, 0, 1_000)).collect();
        cloud.clock.set(month("UTC", "2026-04").plus(HOUR));
        let settles = async {
            for record in &march {
                settled(&session, record).await;
            }
        };
        let other = cloud.another(7).await;
        let closes = async {
            let mut issued = 0;
            for _ in 0..5 {
                issued += close(&other).await.1;
            }
            issued
        };
        let ((), closed) = tokio::join!(settles, closes);
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        let later = close(&cloud.cloud).await.1;
        let bills = issued(cloud, &organization).await;
        let count: u64 = bills.iter().flat_map(|bill| &bill.invoice.content.lines).map(|line| line.charges.count).sum();
        assert_eq!((count, bills.len()), (60, usize::try_from(closed + later).expect("few")), "each is in exactly one invoice");
    }

    /// A volume price falls for a whole line: what came late gives back more than the month costs.
    async fn an_invoice_below_zero_pays_another(cloud: &TestCloud) {
        let tier = |up_to: Option<i64>, price| Tier { up_to: up_to.map(|to| Quantity::new(to).expect("a bound")), price: Nanos::new(price) };
        let tiers = vec![tier(Some(10_000_000), UNIT), tier(None, UNIT / 2)];
        republish(&cloud.cloud, &cloud.clock, |entry| PriceEntry::new(entry.sku.clone(), PriceModel::Volume { tiers: tiers.clone() })).await;
        let session = customer(cloud, "volume", "UTC", 100 * UNIT).await;
        let organization = session.access.organization.clone();
        used(&session, 9_000_000).await;
        let grant = session.grant(None, 10 * UNIT, 10 * UNIT).await.expect("credit is there");
        let late = session.record(&grant.slice, 0, 2_000_000);
        cloud.clock.set(month("UTC", "2026-04").plus(HOUR));
        close(&cloud.cloud).await;
        settled(&session, &late).await;
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        let standing = async || -> Vec<(&'static str, i64, i64)> {
            issued(cloud, &organization).await.iter().map(|bill| (bill.invoice.state.as_str(), bill.invoice.content.total.get(), bill.due.get())).collect()
        };
        assert_eq!(standing().await, [("issued", 9 * UNIT, 55 * UNIT / 10), ("paid", -35 * UNIT / 10, 0)]);
        pay_in(&cloud.cloud, &organization, Nanos::new(55 * UNIT / 10)).await;
        assert_eq!(standing().await[0], ("paid", 9 * UNIT, 0));
    }

    async fn a_clock_that_jumped_closes_nothing_until_somebody_says_it_is_right(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        used(&session, 1_000_000).await;
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        cloud.cloud.look_for_months(&stopped).await.expect("the first look");
        let (right, wrong) = (cloud.now(), cloud.now().plus(DurationMs::from_hours(24 * 36)));
        cloud.clock.set(wrong);
        let error = cloud.cloud.look_for_months(&stopped).await.expect_err("a jump");
        assert!(error.alternatives()[0].contains("--resume-billing"), "{error:?}");
        assert!(issued(cloud, &session.access.organization).await.is_empty());
        cloud.clock.set(right);
        assert_eq!(cloud.cloud.look_for_months(&stopped).await.expect("the clock was set right").closed, 0);
        cloud.clock.set(wrong);
        let said = cloud.with(7, CloudSettings { resume_billing: true, ..CloudSettings::default() }).await;
        assert_eq!(said.look_for_months(&stopped).await.expect("somebody said so").issued, 1);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        stop.send(true).expect("somebody looks");
        cloud.clock.set(wrong.plus(DurationMs::from_hours(24 * 30)));
        assert_eq!(cloud.cloud.look_for_months(&stopped).await.expect("a look").closed, 0, "it was told to stop");
    }

    async fn the_owners_own_teams_get_no_invoice(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.internal, "gw_1").await;
        used(&session, 1_000_000).await;
        cloud.clock.set(month("Europe/Berlin", "2026-06"));
        assert_eq!(close(&cloud.cloud).await.1, 0);
        let draft = cloud.cloud.draft_invoice(&Actor::system(), &session.access.organization, Some("2026-03".parse().expect("a month"))).await.expect("a draft");
        assert_eq!((draft.invoice.number, draft.invoice.content.subtotal), (None, Nanos::new(600_000_000)));
    }
}
