//! What a job costs once, for being started.

use sublet_cloud::Actor;
use sublet_cloud::contract::NewContract;
use sublet_cloud::credit::NewCredit;
use sublet_cloud::data::{Charge, CompensationKind};
use sublet_cloud::export::{Dataset, ExportRequest};
use sublet_cloud::idempotency::Call;
use sublet_cloud::job::Run;
use sublet_cloud::leakage::LeakKind;
use sublet_cloud::limit::LimitSubject;
use sublet_cloud::quote::NewQuote;
use sublet_cloud::rerate::NewRerate;
use sublet_core::admission::PriceVersion;
use sublet_core::id::JobId;
use sublet_core::job::{JobState, StopReason};
use sublet_core::lease::EndReason;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_core::{Currency, Error, ErrorCode, Nanos};
use sublet_money::account::CreditKind;
use sublet_money::contract::{Commitment, ContractTerms};
use sublet_money::contract_price::{Discount, Discounted, PriceTerms};
use sublet_money::credit_lot::{CreditScope, CreditTerms};
use sublet_money::encoder::Format;
use sublet_money::focus::FocusVersion;
use sublet_money::period::Interval;
use sublet_money::price_book::{PriceEntry, PriceListDraft};
use sublet_money::sku::{SkuFamily, SkuName};
use sublet_store::budget::BudgetWindow;
use sublet_store::{PageRequest, charge};
use sublet_testkit::TestCloud;
use sublet_testkit::on_both_databases;
use sublet_testkit::prices::publish;
use sublet_testkit::runner::Manners;
use sublet_testkit::tenant::{actor, created};

use crate::bill::{bill, lines, rerated};
use crate::compensations::given;
use crate::world::{UNIT, World, command, cost, kept, wanted};

const START: i64 = UNIT / 4;

fn starts() -> SkuName {
    "starts/cpu".parse().expect("a sku")
}

/// The newest prices with one for starts, or without.
fn prices(world: &World<'_>, start: Option<i64>) -> Vec<PriceEntry> {
    let lists = world.cloud.cloud.prices().snapshot();
    let newest = lists.values().next().and_then(|list| list.versions().last()).expect("a version").clone();
    let rest = newest.entries().filter(|entry| entry.sku != starts()).cloned();
    rest.chain(start.map(|start| PriceEntry::per_unit(starts(), Nanos::new(start)))).collect()
}

pub async fn publish_start(world: &World<'_>, start: Option<i64>) -> PriceVersion {
    publish(&world.cloud.cloud, &world.cloud.clock, prices(world, start)).await
}

async fn world(cloud: &TestCloud) -> World<'_> {
    let world = World::start(cloud, 2, Manners::Prompt).await;
    publish_start(&world, Some(START)).await;
    world
}

async fn charges(world: &World<'_>, source: &str) -> Vec<Charge> {
    let read = world.cloud.cloud.store().read(source, |source, tx| Box::pin(charge::list_of(tx, source, 1_000)));
    read.await.expect("charges")
}

/// What was charged for the starts of a job.
async fn started(world: &World<'_>, job: &JobId) -> Vec<i64> {
    let charges = charges(world, job.as_str()).await;
    let of_starts = charges.iter().filter(|charge| charge.sku == starts());
    of_starts.inspect(|charge| assert_eq!(charge.quantity.get(), 1)).map(|charge| charge.amount.get()).collect()
}

async fn balance(world: &World<'_>) -> sublet_money::balance::CustomerFunds {
    let (organization, _) = world.customer.project().expect("a project");
    world.cloud.cloud.credit_balance(&Actor::system(), organization).await.expect("a balance").funds
}

/// A job that runs so many seconds, to its end.
async fn run_for(world: &World<'_>, seconds: i64) -> Run {
    let run = world.run(wanted(1, NoticeClass::N2m), command("x")).await.expect("a run");
    world.pass().await;
    world.live(seconds, 20).await;
    world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
    world.pass().await;
    assert_eq!(world.job(&run.job.job.id).await.job.state, JobState::Succeeded);
    run
}

fn of_starts(lines: &[(String, i64)]) -> Option<i64> {
    lines.iter().find(|(sku, _)| sku == "starts/cpu").map(|(_, amount)| *amount)
}

/// A job is sold by one list, rated anew by another, and then interrupted: what is given back of its start.
async fn interrupted_after_rerate(cloud: &TestCloud, sold: Option<i64>, right: Option<i64>) {
    let world = world(cloud).await;
    let starts_at = cloud.now();
    let of = publish_start(&world, sold).await;
    let run = world.run(wanted(2, NoticeClass::N2m), command("x")).await.expect("a run");
    world.pass().await;
    world.live(60, 20).await;
    let to = publish_start(&world, right).await;
    let interval = Interval { starts_at, ends_at: cloud.now() };
    let new = NewRerate { of, to, interval, organization: None, reason: "starts".to_owned() };
    let simulated = created(cloud.cloud.simulate_rerate(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
    // What raises bills is applied by somebody else than who asked for it.
    let applies = Actor { key: Some("key_applies".parse().expect("an id")), ..Actor::system() };
    cloud.cloud.apply_rerate(&applies, &simulated.rerate.id).await.expect("applied");
    world.run_as(&world.team, wanted(2, NoticeClass::N0), command("own")).await.expect("own");
    world.pass().await;
    world.live(140, 1).await;
    let given = given(&world).await;
    let of_start = given.iter().filter(|one| one.subject == run.job.job.id.as_str()).map(|one| one.amount.get());
    assert_eq!(of_start.collect::<Vec<_>>(), right.into_iter().collect::<Vec<_>>(), "{sold:?} put right to {right:?}");
    world.assert_invariants().await;
}

on_both_databases! {
    async fn a_start_is_held_when_a_job_is_asked_for_and_charged_once_when_it_runs(cloud: &TestCloud) {
        let world = world(cloud).await;
        let before = balance(&world).await;
        let quote = world.quote(&wanted(1, NoticeClass::N2m)).await.expect("a quote");
        assert_eq!(quote.terms.start, Some(Nanos::new(START)));
        let run = world.run(wanted(1, NoticeClass::N2m), command("x")).await.expect("a run");
        let held = quote.terms.hold.get() + START;
        assert_eq!((run.lease.held.get(), balance(&world).await.held.get()), (held, held));
        assert_eq!(started(&world, &run.job.job.id).await, Vec::<i64>::new(), "it did not run yet");
        world.pass().await;
        world.pass().await;
        assert_eq!(started(&world, &run.job.job.id).await, [START]);
        world.live(120, 20).await;
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        let done = world.job(&run.job.job.id).await;
        assert_eq!(done.cost, cost(NoticeClass::N2m, done.device_time.get()).checked_add(Nanos::new(START)).expect("a sum"));
        assert_eq!(world.lease(&run.lease.lease.id).await.lease.cost, done.cost);
        let funds = balance(&world).await;
        assert_eq!(funds.captured, before.captured.checked_add(done.cost).expect("a sum"));
        let second = run_for(&world, 60).await;
        let (organization, _) = world.customer.project().expect("a project");
        let path = format!("income:usage:{}:{organization}", SkuFamily::JobStarts);
        let accounts = cloud.cloud.list_ledger_accounts(&Actor::system(), "").await.expect("accounts");
        let income = accounts.iter().find(|account| account.account.to_string() == path).expect("an account");
        assert_eq!(income.totals.credits.get(), 2 * START);
        assert_eq!(started(&world, &second.job.job.id).await, [START]);
        world.assert_all_over().await;
        let (content, text) = bill(world.cloud).await;
        let lines = lines(&content);
        assert_eq!(of_starts(&lines), Some(2 * START));
        // The program in another language knows how often a job starts.
        let twice = text.replace(second.job.job.id.as_str(), run.job.job.id.as_str());
        assert_ne!(twice, text);
        let (is_right, said) = rerated(&twice);
        assert!(!is_right && said.contains("is charged twice"), "{said}");
    }

    async fn a_job_that_never_runs_is_charged_no_start(cloud: &TestCloud) {
        let world = world(cloud).await;
        let run = world.run(wanted(1, NoticeClass::N2m), kept("first")).await.expect("a run");
        world.pass().await;
        let waiting = world.add_job(&run.lease.lease.id, &kept("second")).await.expect("a job");
        let held = world.lease(&run.lease.lease.id).await.held;
        world.compute.cancel_job(&world.customer, &waiting.job.id).await.expect("cancelled");
        assert_eq!(world.job(&waiting.job.id).await.job.state, JobState::Cancelled);
        assert_eq!(world.lease(&run.lease.lease.id).await.held.get(), held.get() - START, "it goes back at once");
        world.runner.refuse(Some(Error::new(ErrorCode::PolicyRefused, "not here")));
        let refused = world.run(wanted(1, NoticeClass::N2m), command("third")).await.expect("a run");
        world.pass().await;
        world.pass().await;
        assert_eq!(world.job(&refused.job.job.id).await.job.state, JobState::Refused);
        world.runner.refuse(None);
        for job in [&waiting.job.id, &refused.job.job.id] {
            assert_eq!(started(&world, job).await, Vec::<i64>::new());
        }
        world.compute.end_lease(&world.customer, &run.lease.lease.id, None).await.expect("ended");
        world.live(60, 5).await;
        assert_eq!(started(&world, &run.job.job.id).await, [START], "its owner stopped what had started");
        assert_eq!(given(&world).await, Vec::new());
        world.assert_all_over().await;
    }

    async fn starts_are_within_the_maximum_cost_and_every_limit(cloud: &TestCloud) {
        let world = world(cloud).await;
        let quote = world.quote(&wanted(1, NoticeClass::N2m)).await.expect("a quote");
        let needed = quote.terms.hold.get() + START;
        let at_most = |cost: i64| NewQuote { max_cost: Some(Nanos::new(cost)), ..wanted(1, NoticeClass::N2m) };
        let refused = world.run(at_most(needed - 1), command("x")).await.expect_err("too little");
        assert_eq!(refused.code(), ErrorCode::PriceAboveMaximum);
        let run = world.run(at_most(needed), kept("x")).await.expect("just enough");
        let refused = world.add_job(&run.lease.lease.id, &kept("more")).await.expect_err("its maximum is held");
        assert_eq!(refused.code(), ErrorCode::PriceAboveMaximum);
        world.pass().await;
        world.live(400, 10).await;
        let lease = world.lease(&run.lease.lease.id).await;
        assert!(lease.lease.cost.get() <= needed && lease.lease.cost.get() > START, "{}", lease.lease.cost);
        world.live(100, 10).await;
        world.assert_all_over().await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let (_, project) = world.customer.project().expect("a project");
        let spent = Nanos::new(lease.lease.cost.get() + needed - 1);
        cloud.cloud.set_limit(&admin, &LimitSubject::Project(project.clone()), BudgetWindow::Month, spent).await.expect("a limit");
        let refused = world.run(wanted(1, NoticeClass::N2m), command("x")).await.expect_err("a nano-unit is missing");
        assert_eq!(refused.code(), ErrorCode::InsufficientQuota);
        world.assert_all_over().await;
    }

    async fn a_start_that_the_owner_interrupted_is_given_back(cloud: &TestCloud) {
        let world = world(cloud).await;
        let run = world.run(wanted(2, NoticeClass::N2m), command("x")).await.expect("a run");
        world.pass().await;
        world.live(60, 20).await;
        world.run_as(&world.team, wanted(2, NoticeClass::N0), command("own")).await.expect("own");
        world.pass().await;
        world.live(140, 1).await;
        let reclaimed = JobState::Interrupted { reason: StopReason::LeaseEnds(EndReason::Reclaimed) };
        assert_eq!(world.job(&run.job.job.id).await.job.state, reclaimed);
        let given = given(&world).await;
        assert_eq!(given.len(), 1, "the notice was kept, so its time is paid: {given:?}");
        let one = &given[0];
        let job = run.job.job.id.as_str();
        assert_eq!((one.kind, one.subject.as_str(), one.amount.get()), (CompensationKind::Reclaim, job, START));
        assert_eq!(one.evidence["reason"], "reclaimed");
        world.assert_invariants().await;
    }

    async fn a_start_is_given_back_to_a_holder_who_leaves_when_told(cloud: &TestCloud) {
        let world = world(cloud).await;
        let run = world.run(wanted(2, NoticeClass::N15m), command("x")).await.expect("a run");
        world.pass().await;
        world.live(60, 20).await;
        world.run_as(&world.team, wanted(2, NoticeClass::N0), command("own")).await.expect("own");
        world.pass().await;
        world.compute.end_lease(&world.customer, &run.lease.lease.id, None).await.expect("given back");
        world.pass().await;
        world.live(60, 1).await;
        assert_eq!(world.job(&run.job.job.id).await.job.state, JobState::Cancelled);
        let given = given(&world).await;
        let of_start: Vec<_> = given.iter().filter(|one| one.subject == run.job.job.id.as_str()).collect();
        assert_eq!(of_start.iter().map(|one| one.amount.get()).collect::<Vec<_>>(), [START], "{given:?}");
        world.assert_invariants().await;
    }

    async fn what_a_list_put_right_took_off_is_not_given_back_again(cloud: &TestCloud) {
        interrupted_after_rerate(cloud, Some(START), None).await;
        let leaks = cloud.cloud.leakage(&Actor::system(), &[]).await.expect("a report").leaks;
        assert!(leaks.iter().all(|leak| leak.kind != LeakKind::StartNotCharged), "{leaks:?}");
    }

    async fn what_a_list_put_right_put_on_is_given_back_too(cloud: &TestCloud) {
        interrupted_after_rerate(cloud, None, Some(START)).await;
    }

    async fn what_a_list_put_right_made_dearer_is_given_back_as_it_is_now(cloud: &TestCloud) {
        interrupted_after_rerate(cloud, Some(START), Some(3 * START)).await;
    }

    async fn starts_are_rated_anew_where_their_time_is(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let starts_at = cloud.now();
        let without = publish_start(&world, None).await;
        let unpriced = run_for(&world, 60).await;
        assert_eq!(started(&world, &unpriced.job.job.id).await, Vec::<i64>::new());
        let with = publish_start(&world, Some(START)).await;
        let priced = run_for(&world, 60).await;
        let rate_anew = async |of: PriceVersion, to: PriceVersion| {
            let interval = Interval { starts_at, ends_at: cloud.now() };
            let new = NewRerate { of, to, interval, organization: None, reason: "starts".to_owned() };
            let simulated = created(cloud.cloud.simulate_rerate(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
            // What raises bills is applied by somebody else than who asked for it.
            let applies = Actor { key: Some("key_applies".parse().expect("an id")), ..Actor::system() };
            let applied = cloud.cloud.apply_rerate(&applies, &simulated.rerate.id).await.expect("applied").rerate.id;
            let charges = charges(&world, applied.as_str()).await;
            let of_starts = charges.into_iter().filter(|charge| charge.sku == starts());
            of_starts.map(|charge| (charge.quantity.get(), charge.amount.get())).collect::<Vec<_>>()
        };
        let free = publish_start(&world, None).await;
        assert_eq!(rate_anew(without.clone(), with.clone()).await, [(1, START)]);
        assert_eq!(rate_anew(with.clone(), free).await, [(-2, -2 * START)]);
        assert_eq!(started(&world, &priced.job.job.id).await, [START], "what was charged stays, and is taken off its line");
        let (content, _) = bill(world.cloud).await;
        let lines = lines(&content);
        assert_eq!(of_starts(&lines).unwrap_or_default(), 0);
    }

    async fn a_list_that_was_put_right_holds_for_a_start_that_is_known_later(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Scripted).await;
        let (organization, _) = world.customer.project().expect("a project");
        let new = NewCredit {
            organization: organization.clone(),
            kind: CreditKind::Promotional,
            amount: Nanos::new(1_000 * UNIT),
            currency: None,
            reference: "for devices".to_owned(),
            terms: CreditTerms { priority: 0, scope: CreditScope::Family(SkuFamily::DeviceTime), ..CreditTerms::default() },
        };
        created(cloud.cloud.grant_credit(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
        let left = async || {
            let grants = cloud.cloud.list_credit(&Actor::system(), organization, &PageRequest::default()).await.expect("grants");
            grants.items.iter().filter_map(|grant| grant.remaining).map(Nanos::get).sum::<i64>()
        };
        let starts_at = cloud.now();
        let of = publish_start(&world, Some(START)).await;
        let run = world.run(wanted(1, NoticeClass::N2m), command("x")).await.expect("a run");
        world.pass().await;
        world.pass().await;
        let attempt = world.attempt(&run.job.job.id).await;
        world.runner.start(&attempt);
        // It runs, and before that is known its price is put right, by one that is dearer than what is held.
        let to = publish_start(&world, Some(3 * START)).await;
        let interval = Interval { starts_at, ends_at: cloud.now() };
        let new = NewRerate { of, to, interval, organization: None, reason: "starts".to_owned() };
        let simulated = created(cloud.cloud.simulate_rerate(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
        cloud.cloud.apply_rerate(&Actor::system(), &simulated.rerate.id).await.expect("applied");
        let (before, left_before) = (balance(&world).await, left().await);
        world.pass().await;
        assert_eq!(started(&world, &run.job.job.id).await, [3 * START]);
        assert_eq!(left().await, left_before - 2 * START, "credit for device time pays the rest too");
        let funds = balance(&world).await;
        assert_eq!((funds.held.get(), funds.available.get()), (before.held.get() - START, before.available.get() - 2 * START));
        world.runner.exit(&attempt, Exit::Code { code: 0 });
        world.pass().await;
        world.pass().await;
        world.assert_all_over().await;
        let (content, _) = bill(world.cloud).await;
        let lines = lines(&content);
        assert_eq!(of_starts(&lines), Some(3 * START));
    }

    async fn a_simulation_counts_starts_that_had_no_price(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        for _ in 0..3 {
            run_for(&world, 60).await;
        }
        let lists = cloud.cloud.prices().snapshot();
        let list = lists.values().next().expect("a list");
        let entries = prices(&world, Some(START));
        let draft = PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at: cloud.now(), entries };
        let month = Some("2026-03".parse().expect("a month"));
        let simulated = cloud.cloud.simulate_prices(&Actor::system(), draft, month).await.expect("a simulation");
        let found = simulated.skus.iter().find(|sku| sku.sku == starts()).expect("starts");
        assert_eq!((found.quantity.get(), found.charged.get(), found.would_be.map(Nanos::get)), (3, 0, Some(3 * START)));
    }

    async fn a_discount_on_a_kind_is_on_its_starts_and_a_commitment_counts_them(cloud: &TestCloud) {
        let world = world(cloud).await;
        let (organization, _) = world.customer.project().expect("a project");
        let off = Discount { off_ppm: 500_000, on: Discounted::Device("cpu".parse().expect("a kind")) };
        let terms = ContractTerms {
            billed: None,
            commitments: vec![Commitment { from_period: 1, amount: Nanos::new(UNIT) }],
            covers: [SkuFamily::JobStarts].into(),
            currency: Currency::EUR,
            exit: None,
            fee: None,
            months: 1,
            payment: None,
            period_months: 1,
            pricing: Some(PriceTerms { discounts: vec![off], fixed: Vec::new(), protection: None }),
            quantities: None,
            renewal: None,
            roll_over_periods: 0,
            starts: "2026-03".parse().expect("a month"),
        };
        let new = NewContract { organization: organization.clone(), name: "starts".to_owned(), terms, expires_at: None };
        let offer = created(cloud.cloud.offer_contract(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let hash = &offer.contract.offers[0].version.hash;
        cloud.cloud.accept_contract(&admin, &offer.contract.id, hash).await.expect("accepted");
        let run = run_for(&world, 60).await;
        assert_eq!(started(&world, &run.job.job.id).await, [START / 2]);
        let (content, text) = bill(world.cloud).await;
        let lines = lines(&content);
        assert_eq!(of_starts(&lines), Some(START / 2));
        assert!(text.contains(r#""shortfall":"0.875""#), "what is missing of the commitment");
    }

    async fn exports_name_the_job_that_a_start_is_of(cloud: &TestCloud) {
        let world = world(cloud).await;
        let run = run_for(&world, 60).await;
        let month = "2026-03".parse().expect("a month");
        let (dataset, version, format) = (Dataset::Focus, FocusVersion::V1_2, Format::Csv);
        let request = ExportRequest { dataset, version, format, period: Some(month), organization: None };
        let mut export = cloud.cloud.open_export(&Actor::system(), &request).await.expect("an export");
        let mut bytes = Vec::new();
        while let Some(piece) = cloud.cloud.next_export_piece(&mut export).await.expect("a piece") {
            bytes.extend(piece);
        }
        let text = String::from_utf8(bytes).expect("text");
        let row = text.lines().find(|row| row.contains("starts/cpu")).expect("a row");
        for cell in [run.job.job.id.as_str(), "Starts", "0.25", "site_local"] {
            assert!(row.split(',').any(|found| found.trim_matches('"') == cell), "{cell}: {row}");
        }
    }
}
