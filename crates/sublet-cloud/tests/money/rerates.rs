//! Use of past months by another price list: forward, exact, once, and provable.

use sublet_cloud::export::Dataset;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::rerate::{NewRerate, RerateResult};
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::PriceVersion;
use sublet_core::id::{OrganizationId, RerateId};
use sublet_core::usage::UsageSink;
use sublet_core::{DurationMs, ErrorCode, Nanos, Result};
use sublet_money::account::CreditKind;
use sublet_money::invoice::InvoiceContent;
use sublet_money::period::Interval;
use sublet_money::price_book::PriceEntry;
use sublet_money::price_model::{PriceModel, Tier};
use sublet_money::sku::Quantity;
use sublet_store::rerate::{self, RerateAccountState, RerateState};
use sublet_store::{PageRequest, charge};
use sublet_testkit::bundle::{bundle, verify};
use sublet_testkit::prices::{band, by_time, per_unit, republish};
use sublet_testkit::session::Session;
use sublet_testkit::{TestCloud, on_both_databases};
use tokio::sync::watch;

use crate::UNIT;
use crate::contract_prices::{percent_off, pricing};
use crate::contracts::{admin_of, agreed, granted};
use crate::exports::{file, rows, wanted};
use crate::months::{close, customer, issued, month, used};
use crate::prices::{publish_at_double_price, publish_requests_at};
use crate::year::rerated;

const HOUR: DurationMs = DurationMs::from_seconds(3_600);
const ZONE: &str = "Europe/Berlin";
const MILLION: i64 = 1_000_000;

/// An operator's key that is nobody else's.
fn operator(name: &str) -> Actor {
    Actor { key: Some(name.parse().expect("an id")), ..Actor::system() }
}

/// 0.6 for each of the first five million, 0.3 for the rest.
async fn publish_tiers(cloud: &TestCloud) -> PriceVersion {
    let tier =
        |up_to: Option<i64>, price| Tier { up_to: up_to.map(|to| Quantity::new(to).expect("a bound")), price: Nanos::new(price) };
    let tiers = || vec![tier(Some(5 * MILLION), 600_000_000), tier(None, 300_000_000)];
    let change = |entry: &PriceEntry| PriceEntry::new(entry.sku.clone(), PriceModel::Graduated { tiers: tiers() });
    republish(&cloud.cloud, &cloud.clock, change).await
}

fn of_march(of: &PriceVersion, to: &PriceVersion) -> NewRerate {
    NewRerate {
        of: of.clone(),
        to: to.clone(),
        interval: Interval { starts_at: month(ZONE, "2026-03"), ends_at: month(ZONE, "2026-04") },
        organization: None,
        reason: "the list of March had a mistake".to_owned(),
    }
}

async fn try_simulate(cloud: &Cloud, new: &NewRerate) -> Result<RerateResult> {
    match cloud.simulate_rerate(&Call::once(operator("key_asks")), new, &|_| Ok(String::new())).await? {
        Answer::New(result) => Ok(result),
        Answer::Replayed(text) => panic!("the call was a repeat: {text}"),
    }
}

async fn simulate(cloud: &Cloud, new: &NewRerate) -> RerateResult {
    try_simulate(cloud, new).await.expect("a simulation")
}

/// Simulates and applies, as two operators.
pub async fn apply(cloud: &Cloud, new: &NewRerate) -> RerateResult {
    let simulated = simulate(cloud, new).await;
    cloud.apply_rerate(&operator("key_applies"), &simulated.rerate.id).await.expect("applied")
}

/// What was charged and what it would be, of all.
fn sums(result: &RerateResult) -> (i64, i64) {
    (result.sums.charged.get(), result.sums.would_be.get())
}

/// The month, the quantity and the amount of each line.
fn lines(content: &InvoiceContent) -> Vec<(String, i64, i64)> {
    let month = |late: Option<sublet_money::invoice::Late>| late.map_or(content.period.key, |late| late.period).to_string();
    content.lines.iter().map(|line| (month(line.late), line.quantity.get(), line.charges.amount.get())).collect()
}

async fn available(cloud: &TestCloud, organization: &OrganizationId) -> i64 {
    cloud.cloud.credit_balance(&Actor::system(), organization).await.expect("a balance").funds.available.get()
}

async fn end_of(cloud: &TestCloud, next: &str) {
    cloud.clock.set(month(ZONE, next).plus(HOUR));
    close(&cloud.cloud).await;
}

/// Every line of an account: its month, and what it is at.
async fn books(cloud: &TestCloud, organization: &OrganizationId) -> Vec<(String, i64, i64)> {
    let read = cloud.cloud.store().read(organization, |id, tx| Box::pin(charge::list_all_lines(tx, id)));
    let mut lines: Vec<_> = read
        .await
        .expect("lines")
        .into_iter()
        .filter(|(_, state)| !state.quantity.is_zero())
        .map(|(key, state)| {
            (
                format!("{} {} {:?} {}", key.period, key.sku, key.band, key.price_version.0),
                state.quantity.get(),
                state.charged.get(),
            )
        })
        .collect();
    lines.sort();
    lines
}

on_both_databases! {
    async fn a_wrong_month_is_put_right_in_the_next_invoice_and_late_use_goes_on(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let organization = session.access.organization.clone();
        let wrong = session.priced_by();
        let grant = session.grant(None, 10 * UNIT, 10 * UNIT).await.expect("credit is there");
        let late = session.record(&grant.slice, 0, 2 * MILLION);
        used(&session, 3 * MILLION).await;
        used(&session, 5 * MILLION).await;
        end_of(cloud, "2026-04").await;
        let right = publish_tiers(cloud).await;
        let march = issued(cloud, &organization).await.remove(0);
        let before = available(cloud, &organization).await;
        let simulated = simulate(&cloud.cloud, &of_march(&wrong, &right)).await;
        // Eight million at 0.6; by the right list five of them, and three at 0.3.
        assert_eq!(sums(&simulated), (4_800_000_000, 3_900_000_000));
        assert_eq!((simulated.sums.customers, simulated.sums.raised, simulated.rerate.state), (1, 0, RerateState::Simulated));
        assert_eq!(available(cloud, &organization).await, before, "nothing was changed");
        let id = &simulated.rerate.id;
        for _ in 0..2 {
            let applied = cloud.cloud.apply_rerate(&operator("key_asks"), id).await.expect("little goes back: nobody else is needed");
            assert_eq!((sums(&applied), applied.rerate.state), (sums(&simulated), RerateState::Applied));
            assert_eq!(applied.most_changed[0].state, RerateAccountState::Applied);
            assert_eq!(available(cloud, &organization).await, before + 900_000_000);
        }
        assert_eq!(simulate(&cloud.cloud, &of_march(&wrong, &right)).await.sums.customers, 0, "there is nothing left to rate anew");
        // Admitted in March under the wrong list, and known only now: the ninth and tenth million.
        let report = session.cloud.settle(std::slice::from_ref(&late)).await.expect("settled");
        assert_eq!((report.settled, report.quarantined), (1, 0));
        used(&session, MILLION).await;
        end_of(cloud, "2026-05").await;
        let bills = issued(cloud, &organization).await;
        assert_eq!(bills[0].invoice.content, march.invoice.content, "what was issued stays");
        let april = &bills[1].invoice.content;
        let mut found = lines(april);
        found.sort();
        let in_march = |quantity: i64, amount| ("2026-03".to_owned(), quantity * MILLION, amount);
        let right_lines = [in_march(-8, -4_800_000_000), in_march(10, 3_900_000_000 + 600_000_000), ("2026-04".to_owned(), MILLION, 600_000_000)];
        assert_eq!(found, right_lines);
        let [note] = april.rerates.as_slice() else { panic!("{:?}", april.rerates) };
        assert_eq!((&note.id, note.amount, note.reason.as_str()), (id, Nanos::new(-900_000_000), "the list of March had a mistake"));
        // The two invoices together are what one by the right list would have been.
        let sum: i64 = bills.iter().map(|bill| bill.invoice.content.subtotal.get()).sum();
        assert_eq!(sum, 4_500_000_000 + 600_000_000);
        let focus = rows(file(&cloud.cloud, &admin_of(&session), &wanted(Dataset::Focus, "2026-04")).await.expect("a file"));
        let sum_of = |class: &str| {
            let costs = focus.iter().filter(|row| row["ChargeClass"] == class).map(|row| row["BilledCost"].parse::<Nanos>());
            costs.map(|cost| cost.expect("an amount").get()).sum::<i64>()
        };
        assert_eq!((sum_of("Correction"), sum_of("")), (4_500_000_000 - 4_800_000_000, 600_000_000));
        // What comes in May of March is on the right list as well, and its invoice says why.
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let mut record = session.record(&grant.slice, 0, MILLION);
        (record.admitted_at, record.price_version) = (late.admitted_at, wrong);
        let report = session.cloud.settle(&[record]).await.expect("settled");
        assert_eq!((report.settled, report.quarantined), (1, 0));
        end_of(cloud, "2026-06").await;
        let may = issued(cloud, &organization).await.remove(2).invoice.content;
        assert_eq!((lines(&may), may.rerates[0].amount), (vec![in_march(1, 300_000_000)], Nanos::ZERO));
    }

    async fn there_and_back_is_nothing_whatever_the_bands_and_an_open_month_is_put_right_in_place(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let organization = session.access.organization.clone();
        let first = session.priced_by();
        for tokens in [3, 7 * MILLION, 11] {
            used(&session, tokens).await;
            cloud.clock.advance(DurationMs::from_hours(5));
        }
        let night = || by_time(vec![band("night", &["15:00-23:00".to_owned()], per_unit(100_000_007))]);
        let second = republish(&cloud.cloud, &cloud.clock, |entry| PriceEntry { time_of_use: night(), ..entry.clone() }).await;
        let (before, credit) = (books(cloud, &organization).await, available(cloud, &organization).await);
        let now = cloud.now();
        let until_now = |of: &PriceVersion, to: &PriceVersion| {
            let interval = Interval { starts_at: month(ZONE, "2026-03"), ends_at: now };
            NewRerate { interval, ..of_march(of, to) }
        };
        let same = apply(&cloud.cloud, &until_now(&first, &first)).await;
        assert_eq!((same.sums.customers, books(cloud, &organization).await), (0, before.clone()));
        let there = apply(&cloud.cloud, &until_now(&first, &second)).await;
        let (charged, would_be) = sums(&there);
        assert!(charged > would_be, "{there:?}");
        assert_ne!(books(cloud, &organization).await, before);
        let back = apply(&cloud.cloud, &until_now(&second, &first)).await;
        assert_eq!(sums(&back), (would_be, charged));
        assert_eq!((books(cloud, &organization).await, available(cloud, &organization).await), (before, credit));
        end_of(cloud, "2026-04").await;
        let march = issued(cloud, &organization).await.remove(0).invoice.content;
        assert_eq!(march.rerates.iter().map(|note| note.amount.get()).collect::<Vec<_>>(), [would_be - charged, charged - would_be]);
        assert!(march.lines.iter().all(|line| line.late.is_none()));
    }

    async fn a_request_goes_where_its_tokens_go_whichever_of_the_lists_has_a_flat_price(cloud: &TestCloud) {
        publish_requests_at(cloud, Some(500_000_000)).await;
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let organization = session.access.organization.clone();
        let flat = session.priced_by();
        let grant = session.grant(None, 10 * UNIT, 10 * UNIT).await.expect("credit is there");
        let late = session.record(&grant.slice, 0, MILLION);
        used(&session, MILLION).await;
        used(&session, MILLION).await;
        end_of(cloud, "2026-04").await;
        publish_requests_at(cloud, None).await;
        let plain = session.priced_by();
        let first = apply(&cloud.cloud, &of_march(&flat, &plain)).await;
        assert_eq!(sums(&first), (2_200_000_000, 1_200_000_000));
        // Known only now: its tokens and its request are on the list without a flat price.
        let report = session.cloud.settle(std::slice::from_ref(&late)).await.expect("settled");
        assert_eq!((report.settled, report.quarantined), (1, 0));
        publish_requests_at(cloud, Some(100_000_000)).await;
        let cheap = session.priced_by();
        let second = apply(&cloud.cloud, &of_march(&plain, &cheap)).await;
        assert_eq!(sums(&second), (1_800_000_000, 2_100_000_000));
        end_of(cloud, "2026-05").await;
        let bills = issued(cloud, &organization).await;
        let sum: i64 = bills.iter().map(|bill| bill.invoice.content.subtotal.get()).sum();
        assert_eq!(sum, 2_100_000_000, "three requests by the last list");
        let folder = tempfile::tempdir().expect("a folder");
        let mut paths = Vec::new();
        for bill in &bills {
            let text = bundle(&cloud.cloud, &Actor::system(), &bill.invoice.id).await.expect("a bundle");
            verify(&text, None).expect("it is right");
            let path = folder.path().join(format!("{}.bundle", bill.invoice.id));
            std::fs::write(&path, text).expect("room");
            paths.push(path);
        }
        let (is_right, said) = rerated(&paths);
        assert!(is_right, "{said}");
        // What was rated anew is no request: a flat price for all of March would be for three.
        let counted = cloud.cloud.store().read(&organization, |id, tx| {
            let of = (sublet_testkit::database::MODEL.parse().expect("a model"), sublet_core::tier::ServiceTier::Default);
            Box::pin(async move { charge::count_requests(tx, (id, "2026-03".parse().expect("a month")), (&of.0, of.1)).await })
        });
        let counted: Vec<_> = counted.await.expect("a count").into_iter().map(|(_, count)| count.get()).collect();
        assert_eq!(counted, [3]);
    }

    /// What was simulated was nothing; what it has come to since raises a bill, and nobody else looked at it.
    async fn one_operator_applies_no_more_alone_than_was_simulated(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let first = session.priced_by();
        used(&session, MILLION).await;
        let dear = publish_at_double_price(&cloud.cloud, &cloud.clock).await;
        let halved = |entry: &PriceEntry| PriceEntry { market: None, ..PriceEntry::new(entry.sku.clone(), per_unit(600_000_000)) };
        let same = republish(&cloud.cloud, &cloud.clock, halved).await;
        end_of(cloud, "2026-04").await;
        let nothing_yet = simulate(&cloud.cloud, &of_march(&same, &dear)).await;
        assert_eq!(nothing_yet.sums.raised, 0);
        let to_same = simulate(&cloud.cloud, &of_march(&first, &same)).await;
        let asks = operator("key_asks");
        cloud.cloud.apply_rerate(&asks, &to_same.rerate.id).await.expect("nobody pays more");
        let before = available(cloud, &session.access.organization).await;
        let refused = cloud.cloud.apply_rerate(&asks, &nothing_yet.rerate.id).await.expect("it is decided");
        assert_eq!((refused.sums.refused, refused.most_changed[0].state), (1, RerateAccountState::Refused));
        assert!(refused.most_changed[0].refusal.contains("simulate it again"), "{refused:?}");
        assert_eq!(available(cloud, &session.access.organization).await, before);
    }

    async fn only_use_of_the_time_and_of_the_list_is_moved(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let wrong = session.priced_by();
        used(&session, 6 * MILLION).await;
        cloud.clock.advance(HOUR);
        let from = cloud.now();
        used(&session, 2 * MILLION).await;
        cloud.clock.advance(HOUR);
        let until = cloud.now();
        used(&session, MILLION).await;
        let right = publish_tiers(cloud).await;
        used(&session, MILLION).await;
        cloud.clock.advance(HOUR);
        let new = NewRerate { interval: Interval { starts_at: from, ends_at: until }, ..of_march(&wrong, &right) };
        let applied = apply(&cloud.cloud, &new).await;
        // Of the right list, these two come behind the million that is on it: all in its first tier.
        assert_eq!(sums(&applied), (1_200_000_000, 1_200_000_000));
        let quantities: Vec<_> = books(cloud, &session.access.organization).await.into_iter().map(|(_, quantity, _)| quantity).collect();
        assert_eq!(quantities.iter().sum::<i64>(), 10 * MILLION);
        assert!(quantities.contains(&(7 * MILLION)) && quantities.contains(&(3 * MILLION)), "{quantities:?}");
    }

    async fn more_needs_another_operator_and_credit_and_no_contract_against_it(cloud: &TestCloud) {
        let rich = customer(cloud, "rich", ZONE, 100 * UNIT).await;
        let poor = customer(cloud, "poor", ZONE, 5 * UNIT).await;
        let agreed_prices = customer(cloud, "agreed", ZONE, 100 * UNIT).await;
        agreed(&cloud.cloud, &agreed_prices, pricing("2026-03", 12, percent_off(10))).await;
        let wrong = rich.priced_by();
        let contract_list = agreed_prices.priced_by();
        for session in [&rich, &poor, &agreed_prices] {
            let grant = session.grant(None, 3 * UNIT, 3 * UNIT).await.expect("credit is there");
            session.cloud.settle(&[session.record(&grant.slice, 0, 5 * MILLION)]).await.expect("settled");
            session.give_back(&grant.slice, 1).await.expect("returned");
        }
        end_of(cloud, "2026-04").await;
        let right = publish_at_double_price(&cloud.cloud, &cloud.clock).await;
        let simulated = simulate(&cloud.cloud, &of_march(&wrong, &right)).await;
        assert_eq!((simulated.sums.customers, simulated.sums.raised), (2, 2), "the contract's use is on a list of its own");
        let id: &RerateId = &simulated.rerate.id;
        let alone = cloud.cloud.apply_rerate(&operator("key_asks"), id).await.expect_err("it raises bills");
        assert_eq!(alone.code(), ErrorCode::Conflict);
        let applied = cloud.cloud.apply_rerate(&operator("key_applies"), id).await.expect("applied");
        let [refused, raised] = applied.most_changed.as_slice() else { panic!("{applied:?}") };
        assert_eq!((&refused.organization, refused.state), (&poor.access.organization, RerateAccountState::Refused));
        assert!(refused.refusal.contains("2 for model-tokens, and 3 is needed"), "{}", refused.refusal);
        assert_eq!((&raised.organization, raised.state), (&rich.access.organization, RerateAccountState::Applied));
        assert_eq!(available(cloud, &rich.access.organization).await, (100 - 6) * UNIT);
        assert_eq!(available(cloud, &poor.access.organization).await, 2 * UNIT);
        // The contract says what it pays; its own list would do, the public one does not.
        let to_public = apply(&cloud.cloud, &of_march(&contract_list, &right)).await;
        assert_eq!((to_public.sums.refused, to_public.most_changed[0].state), (1, RerateAccountState::Refused));
        assert!(to_public.most_changed[0].refusal.contains("contract"), "{to_public:?}");
        let own = agreed_prices.priced_by();
        assert_ne!(own, contract_list, "made anew from the public list");
        let for_all = try_simulate(&cloud.cloud, &of_march(&contract_list, &own)).await.expect_err("it is one customer's");
        assert_eq!(for_all.param_name(), Some("organization"));
        let for_one = NewRerate { organization: Some(agreed_prices.access.organization.clone()), ..of_march(&contract_list, &own) };
        let by_contract = apply(&cloud.cloud, &for_one).await;
        assert_eq!((by_contract.sums.refused, sums(&by_contract)), (0, (27 * UNIT / 10, 54 * UNIT / 10)));
        end_of(cloud, "2026-05").await;
        for (session, total) in [(&rich, 3 * UNIT), (&agreed_prices, 27 * UNIT / 10)] {
            let bills = issued(cloud, &session.access.organization).await;
            assert_eq!(bills.iter().map(|bill| bill.invoice.content.total.get()).collect::<Vec<_>>(), [total; 2]);
        }
        assert_eq!(issued(cloud, &poor.access.organization).await.len(), 1);
    }

    async fn gifts_come_back_as_gifts_and_paid_credit_before_them(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 0).await;
        let organization = session.access.organization.clone();
        let wrong = session.priced_by();
        granted(&cloud.cloud, &organization, CreditKind::Promotional, 5 * UNIT).await;
        granted(&cloud.cloud, &organization, CreditKind::Paid, UNIT).await;
        let grant = session.grant(None, 54 * UNIT / 10, 54 * UNIT / 10).await.expect("credit is there");
        // 5 given and 0.4 paid.
        session.cloud.settle(&[session.record(&grant.slice, 0, 9 * MILLION)]).await.expect("settled");
        session.give_back(&grant.slice, 1).await.expect("returned");
        let right = publish_tiers(cloud).await;
        let interval = Interval { starts_at: month(ZONE, "2026-03"), ends_at: cloud.now() };
        // Nine at 0.6 are five, and four at 0.3: 1.2 come back.
        let applied = apply(&cloud.cloud, &NewRerate { interval, ..of_march(&wrong, &right) }).await;
        assert_eq!(sums(&applied), (5_400_000_000, 4_200_000_000));
        let split = cloud.cloud.store().read(&organization, |id, tx| Box::pin(sublet_store::ledger::available(tx, id))).await.expect("credit");
        assert_eq!((split.paid.get(), split.promotional.get()), (UNIT, 800_000_000));
    }

    /// Two processes at once, and one that died after it was told to.
    async fn it_is_applied_once_whoever_applies_it_and_after_a_crash(cloud: &TestCloud) {
        let mut sessions = Vec::new();
        for index in 0..4 {
            let session = customer(cloud, &format!("c{index}"), ZONE, 100 * UNIT).await;
            used(&session, 8 * MILLION).await;
            sessions.push(session);
        }
        let wrong = sessions[0].priced_by();
        end_of(cloud, "2026-04").await;
        let right = publish_tiers(cloud).await;
        let simulated = simulate(&cloud.cloud, &of_march(&wrong, &right)).await;
        let (other, id, by) = (cloud.another(7).await, &simulated.rerate.id, operator("key_applies"));
        let (here, there) = tokio::join!(cloud.cloud.apply_rerate(&by, id), other.apply_rerate(&by, id));
        assert!(here.is_ok() || there.is_ok(), "{here:?} {there:?}");
        let balances = async || {
            let mut balances = Vec::new();
            for session in &sessions {
                balances.push(available(cloud, &session.access.organization).await);
            }
            balances
        };
        let once = vec![(100 * UNIT) - 3_900_000_000; 4];
        assert_eq!(balances().await, once);
        // Back to the first list: the process that was told dies before it begins.
        let back = simulate(&cloud.cloud, &of_march(&right, &wrong)).await.rerate.id;
        let told = (&back, cloud.now());
        cloud.cloud.store().write(told, |(id, now), tx| Box::pin(rerate::approve(tx, id, "key_applies", *now))).await.expect("told");
        let (_stop, stopped) = watch::channel(false);
        other.look_for_months(&stopped).await.expect("looked");
        assert_eq!(balances().await, vec![(100 * UNIT) - 4_800_000_000; 4]);
        let page = PageRequest::default();
        let listed = cloud.cloud.list_rerates(&Actor::system(), &page).await.expect("a list").items;
        assert!(listed.iter().all(|(stored, _)| stored.state == RerateState::Applied), "{listed:?}");
    }

    async fn what_cannot_be_is_refused_and_nothing_is_kept(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, UNIT).await;
        let of = session.priced_by();
        let good = NewRerate { interval: Interval { starts_at: month(ZONE, "2026-03"), ends_at: cloud.now() }, ..of_march(&of, &of) };
        let unknown = PriceVersion("00".into());
        let team = Session::start(&cloud.cloud, &cloud.keys.internal, "gw_2").await.access.organization.clone();
        let nobody: OrganizationId = "org_nobody".parse().expect("an id");
        let later = Interval { ends_at: cloud.now().plus(DurationMs::from_millis(1)), ..good.interval };
        let empty = Interval { starts_at: good.interval.ends_at, ends_at: good.interval.ends_at };
        for (wrong, code, param) in [
            (NewRerate { of: unknown.clone(), ..good.clone() }, ErrorCode::UnknownPrice, "of"),
            (NewRerate { to: unknown, ..good.clone() }, ErrorCode::UnknownPrice, "to"),
            (NewRerate { interval: later, ..good.clone() }, ErrorCode::InvalidRequest, "until"),
            (NewRerate { interval: empty, ..good.clone() }, ErrorCode::InvalidRequest, "until"),
            (NewRerate { organization: Some(nobody), ..good.clone() }, ErrorCode::NotFound, "organization"),
            (NewRerate { organization: Some(team), ..good.clone() }, ErrorCode::InvalidRequest, "organization"),
            (NewRerate { reason: String::new(), ..good.clone() }, ErrorCode::InvalidRequest, "reason"),
            (NewRerate { reason: "two\nlines".to_owned(), ..good.clone() }, ErrorCode::InvalidRequest, "reason"),
        ] {
            let error = try_simulate(&cloud.cloud, &wrong).await.expect_err("wrong");
            assert_eq!((error.code(), error.param_name()), (code, Some(param)), "{error:?}");
        }
        let missing = cloud.cloud.apply_rerate(&Actor::system(), &"rer_none".parse().expect("an id")).await;
        assert_eq!(missing.expect_err("there is none").code(), ErrorCode::NotFound);
        let admin = Actor { plane: sublet_core::key::KeyPlane::Admin, ..operator("key_admin") };
        let call = Call::once(admin);
        let refused = cloud.cloud.simulate_rerate(&call, &good, &|_| Ok(String::new())).await.expect_err("the operator's alone");
        assert_eq!(refused.code(), ErrorCode::WrongKeyPlane);
        let listed = cloud.cloud.list_rerates(&Actor::system(), &PageRequest::default()).await.expect("a list");
        assert!(listed.items.is_empty());
    }

    /// A seller who moves use without saying so, or says another amount, is found out.
    async fn a_correction_that_is_not_what_the_invoice_says_is_found(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let wrong = session.priced_by();
        used(&session, 8 * MILLION).await;
        end_of(cloud, "2026-04").await;
        let right = publish_tiers(cloud).await;
        apply(&cloud.cloud, &of_march(&wrong, &right)).await;
        end_of(cloud, "2026-05").await;
        let april = issued(cloud, &session.access.organization).await.remove(1);
        let text = bundle(&cloud.cloud, &Actor::system(), &april.invoice.id).await.expect("a bundle");
        verify(&text, None).expect("it is right");
        let leaf = text.lines().nth(1).expect("a leaf");
        assert!(leaf.contains("\"quantity\":-8000000"), "{leaf}");
        for (from, to) in [("\"quantity\":-8000000", "\"quantity\":-7000000"), ("the list of March had a mistake", "a better reason, forged")] {
            assert!(text.contains(from));
            verify(&text.replacen(from, to, 1), None).expect_err("it was changed");
        }
    }
}
