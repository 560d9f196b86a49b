//! What happens to leases and jobs when nothing breaks.

use sublet_cloud::Actor;
use sublet_cloud::data::{AtLimit, JobFilter, PageRequest};
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::job::{NewRun, Run};
use sublet_cloud::limit::{LimitChange, LimitSubject};
use sublet_cloud::quote::NewQuote;
use sublet_core::device::DeviceClass;
use sublet_core::job::{JobState, StopReason};
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::{Exit, Isolation};
use sublet_core::{DurationMs, Error, ErrorCode, Nanos, Timestamp};
use sublet_store::budget::BudgetWindow;
use sublet_store::dunning::{self, AccountDunning, OnSuspension};
use sublet_store::job::Job;
use sublet_store::lease::{HoldBound, Lease};
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::{Manners, cpu_slots};
use sublet_testkit::tenant::actor;

use crate::world::{UNIT, World, command, cost, kept, wanted};

async fn limit_project(world: &World<'_>, window: BudgetWindow, change: impl Into<LimitChange>) {
    let admin = actor(&world.cloud.cloud, &world.cloud.keys.admin).await;
    let (_, project) = world.customer.project().expect("a project");
    world.cloud.cloud.set_limit(&admin, &LimitSubject::Project(project.clone()), window, change).await.expect("the limit is set");
}

/// Suspends the customer, or ends that.
async fn suspend(world: &World<'_>, choice: Option<(OnSuspension, Timestamp)>) {
    suspend_account(world, &world.customer, choice).await;
}

async fn suspend_account(world: &World<'_>, whose: &Actor, choice: Option<(OnSuspension, Timestamp)>) {
    let (organization, _) = whose.project().expect("a project");
    let suspended_at = choice.map(|(_, at)| at);
    let on_suspension = choice.map_or(OnSuspension::Finish, |(choice, _)| choice);
    let account = AccountDunning { on_suspension, suspended_at, ..AccountDunning::default() };
    let written = (organization, account);
    let store = world.cloud.cloud.store();
    store.write(written, |(id, account), tx| Box::pin(dunning::put_account(tx, id, account))).await.expect("written");
}

/// A job and its lease, after their account was suspended for a while.
async fn suspended_for_ten_minutes(world: &World<'_>, choice: OnSuspension) -> (Job, Lease) {
    let run = world.run(wanted(1, NoticeClass::N2m), kept("train")).await.expect("it runs");
    world.pass().await;
    world.pass().await;
    suspend(world, Some((choice, world.now()))).await;
    // Nothing new, on a lease that is there or on another.
    for refused in [
        world.add_job(&run.lease.lease.id, &command("more")).await.map(|_| ()),
        world.run(wanted(1, NoticeClass::N2m), command("more")).await.map(|_| ()),
    ] {
        let error = refused.expect_err("it is suspended");
        assert_eq!(error.code(), ErrorCode::InsufficientQuota, "{error}");
        assert!(error.message().starts_with("the account is suspended"), "{error}");
    }
    world.live(600, 5).await;
    (world.job(&run.job.job.id).await.job, world.lease(&run.lease.lease.id).await.lease)
}

const fn seconds(count: i64) -> Option<DurationMs> {
    Some(DurationMs::from_seconds(count))
}

/// How long a lease runs that is charged after each interval and ended when nothing is left.
const fn naive_seconds(affordable: i64, interval: i64) -> i64 {
    let (mut left, mut ran) = (affordable, 0);
    while left > 0 {
        ran += interval;
        left -= interval;
    }
    ran
}

on_both_databases! {
    async fn an_answer_is_repeated_for_a_day(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let call = Call::under_key(world.customer.clone(), "create_quote", "k-1", "body").expect("a call");
        let quote = async || {
            let new = wanted(1, NoticeClass::N2m);
            world.compute.create_quote(&call, &new, &|quote| Ok(quote.id.to_string())).await.expect("an answer")
        };
        let Answer::New(first) = quote().await else { panic!("nothing was answered before") };
        for hours in [0, 1, 22] {
            cloud.clock.advance(DurationMs::from_seconds(hours * 3_600));
            world.pass().await;
            assert_eq!(quote().await, Answer::Replayed(first.id.to_string()), "after {hours} more hours");
        }
        cloud.clock.advance(DurationMs::from_seconds(2 * 3_600));
        world.pass().await;
        let Answer::New(second) = quote().await else { panic!("a day is over") };
        assert_ne!(first.id, second.id);
    }

    async fn a_job_runs_on_its_lease_and_costs_its_seconds(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let quote = world.quote(&wanted(2, NoticeClass::N2m)).await.expect("a quote");
        assert_eq!(quote.terms.price_per_hour, Nanos::new(24_000_000));
        // The first interval, two minutes of notice, ten seconds of grace, five of slack; rounded up, with its slack.
        let hold = cost(NoticeClass::N2m, 195_000 * 2).get() + 1;
        assert_eq!(quote.terms.hold, Nanos::new(hold));
        let lease = world.accept(&quote).await.expect("a lease").lease;
        assert_eq!(world.lease(&lease.id).await.held, Nanos::new(hold));
        let job = world.add_job(&lease.id, &command("train")).await.expect("a job").job;
        world.pass().await;
        world.pass().await;
        assert_eq!(world.job(&job.id).await.job.state, JobState::Running);
        let placed = &world.runner.attempts()[0];
        assert_eq!((placed.spec.devices.len(), placed.spec.files["input.txt"].as_slice()), (2, b"42".as_slice()));
        world.live(90, 10).await;
        let attempt = world.attempt(&job.id).await;
        world.runner.contain(&attempt, "processes refused");
        world.runner.exit(&attempt, Exit::Code { code: 0 });
        world.pass().await;
        let done = world.job(&job.id).await;
        assert_eq!((done.job.state, done.job.exit.clone()), (JobState::Succeeded, Some(Exit::Code { code: 0 })));
        assert_eq!((done.device_time.get(), done.cost), (180_000, cost(NoticeClass::N2m, 180_000)));
        let over = world.lease(&lease.id).await;
        assert_eq!(over.lease.state, LeaseState::Ended { reason: EndReason::JobEnded });
        assert_eq!((over.lease.cost, over.held), (done.cost, Nanos::ZERO));
        assert!(world.runner.attempts()[0].cleaned, "the work directory is gone");
        world.assert_all_over().await;
        let why = cloud.cloud.why(&world.customer, job.id.as_str()).await.expect("why");
        let text = format!("{why:?}");
        for part in ["processes refused", "isolation achieved", "code 0", "180000 device-milliseconds", "held in all"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for id in [lease.id.as_str(), quote.id.as_str()] {
            cloud.cloud.why(&world.customer, id).await.expect("why");
        }
        let log = world.compute.read_job_log(&world.customer, &job.id, (None, 0), 1_000).await.expect("a log");
        assert!(log.complete && !log.bytes.is_empty());
    }

    async fn device_time_is_in_exactly_one_class(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        world.live(10, 10).await;
        let run = world.run(wanted(1, NoticeClass::N0), command("spot")).await.expect("a run");
        world.pass().await;
        world.pass().await;
        world.live(20, 5).await;
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        world.live(5, 5).await;
        let time = world.compute.device_time(&Actor::system(), Timestamp::EPOCH, world.now()).await.expect("time");
        let some: Vec<_> = time.into_iter().filter(|(_, millis)| *millis > 0).collect();
        assert_eq!(some, vec![(DeviceClass::Idle, 50_000), (DeviceClass::Spot, 20_000)]);
        world.assert_all_over().await;
    }

    async fn a_lease_that_cannot_be_afforded_changes_nothing(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        limit_project(&world, BudgetWindow::Month, Nanos::new(1_000)).await;
        let quote = world.quote(&wanted(2, NoticeClass::N0)).await.expect("a quote");
        let error = world.accept(&quote).await.expect_err("too dear");
        let (_, project) = world.customer.project().expect("a project");
        assert_eq!(error.code(), ErrorCode::InsufficientQuota);
        assert!(error.message().contains(project.as_str()), "the refusal names the limit: {error}");
        let whole = world.run(wanted(2, NoticeClass::N0), command("x")).await.expect_err("too dear");
        assert_eq!(whole.code(), ErrorCode::InsufficientQuota);
        world.assert_all_over().await;
        limit_project(&world, BudgetWindow::Month, Nanos::new(UNIT)).await;
        world.accept(&quote).await.expect("the quote is still open");
    }

    /// Known failure: a lease runs on after what pays for it is used up, since it is charged after it ran.
    async fn nothing_runs_beyond_what_the_limit_allows(cloud: &TestCloud) {
        assert_eq!(naive_seconds(290, 60), 300, "ten seconds are for nothing");
        let world = World::start(cloud, 1, Manners::Prompt).await;
        // Enough for 300 seconds and no more.
        let limit = Nanos::new(cost(NoticeClass::N2m, 300_000).get() + 10);
        limit_project(&world, BudgetWindow::Month, limit).await;
        let run = world.run(wanted(1, NoticeClass::N2m), command("long")).await.expect("a run");
        world.pass().await;
        let started = world.now();
        world.live(400, 5).await;
        let job = world.job(&run.job.job.id).await;
        let reason = StopReason::LeaseEnds(EndReason::Budget);
        assert_eq!(job.job.state, JobState::Interrupted { reason });
        assert!(job.cost <= limit && job.cost.get() > 0, "{} of {limit}", job.cost);
        let attempt = &world.runner.attempts()[0];
        let notice = attempt.notices.first().expect("a notice");
        assert!(notice.reason.contains("money"), "{notice:?}");
        let ended = attempt.ended_at.expect("it ended");
        // It was told two minutes before and had its time until the hold was used up, less grace and slack.
        assert!(ended >= notice.deadline && ended.since(started) <= DurationMs::from_seconds(285), "{notice:?} {ended}");
        assert!(ended.since(started) >= DurationMs::from_seconds(120));
        let lease = world.lease(&run.lease.lease.id).await.lease;
        assert!(matches!(lease.hold_bound, sublet_store::lease::HoldBound::Budget { ref refusal } if refusal.contains("spend limit")));
        world.assert_all_over().await;
    }

    async fn a_lease_that_was_admitted_goes_on_within_the_overrun_and_no_new_one_begins(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let limit = Nanos::new(cost(NoticeClass::N2m, 300_000).get() + 10);
        let overrun_max = Nanos::new(cost(NoticeClass::N2m, 200_000).get());
        let at_limit = Some(AtLimit::FinishThenStop { overrun_max });
        limit_project(&world, BudgetWindow::Month, LimitChange { amount: limit, at_limit, alerts: None }).await;
        let run = world.run(wanted(1, NoticeClass::N2m), command("long")).await.expect("a run");
        world.pass().await;
        world.live(200, 5).await;
        let error = world.run(wanted(1, NoticeClass::N2m), command("late")).await.expect_err("new work is refused");
        assert_eq!(error.code(), ErrorCode::InsufficientQuota);
        world.live(400, 5).await;
        let job = world.job(&run.job.job.id).await;
        assert_eq!(job.job.state, JobState::Interrupted { reason: StopReason::LeaseEnds(EndReason::Budget) });
        // It stops early enough for its notice and grace to be paid of the overrun too.
        let most = limit.checked_add(overrun_max).expect("in range");
        assert!(job.cost > limit && job.cost <= most, "{} of {limit} and at most {most}", job.cost);
        world.assert_all_over().await;
    }

    async fn a_maximum_cost_is_never_exceeded(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let max_cost = cost(NoticeClass::N0, 2 * 200_000);
        let run = world
            .run(NewQuote { max_cost: Some(max_cost), ..wanted(2, NoticeClass::N0) }, command("long"))
            .await
            .expect("a run");
        world.pass().await;
        world.live(300, 5).await;
        let job = world.job(&run.job.job.id).await;
        assert_eq!(job.job.state, JobState::Interrupted { reason: StopReason::LeaseEnds(EndReason::MaximumCost) });
        assert!(job.cost <= max_cost && job.cost.get() * 10 > max_cost.get() * 8, "{} of {max_cost}", job.cost);
        world.assert_all_over().await;
        let low = NewQuote { max_cost: Some(Nanos::new(1_000)), ..wanted(2, NoticeClass::N15m) };
        let error = world.quote(&low).await.expect_err("not even the first interval");
        assert_eq!(error.code(), ErrorCode::PriceAboveMaximum);
        let between = cost(NoticeClass::N0, 2 * 80_000);
        let error = world.quote(&NewQuote { max_cost: Some(between), ..low }).await.expect_err("only short notice fits");
        assert!(error.alternatives().iter().any(|text| text.contains("n0")), "{:?}", error.alternatives());
    }

    async fn a_window_ends_with_notice_and_to_the_second(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let short = NewQuote { max_duration: seconds(60), ..wanted(1, NoticeClass::N2m) };
        let error = world.quote(&short).await.expect_err("shorter than the class lives");
        assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some("maximum_seconds")));
        let run = world.run(NewQuote { max_duration: seconds(150), ..short }, command("x")).await.expect("a run");
        world.pass().await;
        let started = world.now();
        world.live(200, 1).await;
        let attempt = &world.runner.attempts()[0];
        assert_eq!(attempt.ended_at, Some(started.plus(DurationMs::from_seconds(150))));
        assert_eq!(attempt.notices.len(), 1);
        let job = world.job(&run.job.job.id).await;
        assert_eq!(job.job.state, JobState::Interrupted { reason: StopReason::LeaseEnds(EndReason::WindowOver) });
        assert_eq!(job.cost, cost(NoticeClass::N2m, 150_000));
        world.assert_all_over().await;
    }

    async fn a_kept_lease_runs_job_after_job_until_it_is_unused(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let mut first = kept("first");
        first.spec.limits.time = seconds(30);
        let run = world.run(wanted(1, NoticeClass::N0), first).await.expect("a run");
        let lease = run.lease.lease.id.clone();
        cloud.clock.advance(DurationMs::from_millis(1));
        let second = world.add_job(&lease, &kept("second")).await.expect("a second job").job;
        world.pass().await;
        assert_eq!(world.job(&second.id).await.job.state, JobState::Queued);
        world.live(31, 1).await;
        let limited = world.job(&run.job.job.id).await;
        assert_eq!(limited.job.state, JobState::Interrupted { reason: StopReason::TimeLimit });
        for (states, found) in [(["failed", "interrupted", "refused"], 1), (["failed"; 3], 0)] {
            let filter = JobFilter { states: Some(states), lease: Some(lease.clone()) };
            let jobs = world.compute.list_jobs(&Actor::system(), &filter, &PageRequest::default()).await.expect("jobs").items;
            assert_eq!(jobs.len(), found, "{states:?}");
        }
        assert_eq!(limited.device_time.get(), 30_000);
        world.pass().await;
        assert_eq!(world.job(&second.id).await.job.state, JobState::Running);
        world.runner.exit(&world.attempt(&second.id).await, Exit::Code { code: 3 });
        world.pass().await;
        assert_eq!(world.job(&second.id).await.job.state, JobState::Failed);
        assert_eq!(world.lease(&lease).await.lease.state, LeaseState::Active);
        world.live(301, 60).await;
        assert_eq!(world.lease(&lease).await.lease.state, LeaseState::Ended { reason: EndReason::Unused });
        world.assert_all_over().await;
    }

    async fn a_cancelled_job_is_charged_for_what_it_ran(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Scripted).await;
        let run = world.run(wanted(1, NoticeClass::N0), command("x")).await.expect("a run");
        let job = run.job.job.id;
        world.pass().await;
        let attempt = world.attempt(&job).await;
        world.runner.start(&attempt);
        world.live(10, 10).await;
        for _ in 0..2 {
            assert!(matches!(
                world.compute.cancel_job(&world.customer, &job).await.expect("told").job.state,
                JobState::Stopping { reason: StopReason::Cancelled }
            ));
        }
        world.pass().await;
        cloud.clock.advance(DurationMs::from_millis(2_500));
        world.runner.exit(&attempt, Exit::Stopped { forced: true });
        world.pass().await;
        assert_eq!(world.runner.attempts()[0].stops, 1);
        let over = world.job(&job).await;
        assert_eq!((over.job.state, over.cost), (JobState::Cancelled, cost(NoticeClass::N0, 12_500)));
        let again = world.compute.cancel_job(&world.customer, &job).await.expect("nothing to do");
        assert_eq!(again.job.state, JobState::Cancelled);
        world.assert_all_over().await;
    }

    async fn an_ended_lease_takes_its_jobs_along(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let run = world.run(wanted(1, NoticeClass::N1h), command("x")).await.expect("a run");
        cloud.clock.advance(DurationMs::from_millis(1));
        let waiting = world.add_job(&run.lease.lease.id, &command("y")).await.expect("a second job").job;
        world.pass().await;
        let seen = world.lease(&run.lease.lease.id).await.lease;
        let error = world.compute.end_lease(&world.customer, &seen.id, Some(seen.generation - 1)).await.expect_err("old");
        assert_eq!(error.code(), ErrorCode::PreconditionFailed);
        world.compute.end_lease(&world.customer, &seen.id, Some(seen.generation)).await.expect("ended");
        world.pass().await;
        world.pass().await;
        for id in [&run.job.job.id, &waiting.id] {
            assert_eq!(world.job(id).await.job.state, JobState::Cancelled);
        }
        world.compute.end_lease(&world.customer, &seen.id, None).await.expect("nothing to do");
        world.assert_all_over().await;
    }

    async fn the_owners_team_gets_its_capacity_back_with_the_notice_that_was_sold(cloud: &TestCloud) {
        let world = World::start(cloud, 3, Manners::Prompt).await;
        let spot = world.run(wanted(1, NoticeClass::N0), command("spot")).await.expect("spot");
        let noticed = world.run(wanted(2, NoticeClass::N2m), command("noticed")).await.expect("noticed");
        world.pass().await;
        world.live(200, 20).await;
        let one = world.run_as(&world.team, wanted(1, NoticeClass::N0), command("own")).await.expect("own");
        assert_eq!(one.lease.lease.state, LeaseState::Pending);
        for _ in 0..3 {
            world.pass().await;
        }
        let reclaimed = StopReason::LeaseEnds(EndReason::Reclaimed);
        assert_eq!(world.job(&spot.job.job.id).await.job.state, JobState::Interrupted { reason: reclaimed });
        assert_eq!(world.job(&one.job.job.id).await.job.state, JobState::Running);
        assert_eq!(world.job(&noticed.job.job.id).await.job.state, JobState::Running, "nobody is displaced in vain");
        let two = world.run_as(&world.team, wanted(2, NoticeClass::N0), command("own")).await.expect("own");
        let error = world.quote(&wanted(1, NoticeClass::N0)).await.expect_err("all is promised");
        assert_eq!(error.code(), ErrorCode::CapacityUnavailable);
        let told = world.now();
        world.live(119, 1).await;
        assert_eq!(world.job(&noticed.job.job.id).await.job.state, JobState::Running, "the notice is kept");
        world.live(3, 1).await;
        world.pass().await;
        assert_eq!(world.job(&noticed.job.job.id).await.job.state, JobState::Interrupted { reason: reclaimed });
        assert_eq!(world.job(&two.job.job.id).await.job.state, JobState::Running);
        let victim = world.runner.attempts().into_iter().find(|attempt| attempt.spec.job == noticed.job.job.id).expect("it ran");
        assert_eq!(victim.notices[0].deadline, told.plus(DurationMs::from_seconds(120)));
        for job in [&one.job.job.id, &two.job.job.id] {
            world.runner.exit(&world.attempt(job).await, Exit::Code { code: 0 });
        }
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn the_reserve_is_kept_for_the_owners_teams(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let rule = sublet_capacity::ReserveRule { minimum_units: 0, fraction_thousandths: 500 };
        world.compute.set_reserve(&Actor::system(), rule).await.expect("set");
        let shown = world.compute.list_availability(&world.customer).await.expect("availability");
        assert_eq!(shown.len(), 6);
        assert!(shown.iter().all(|row| row.available_units == 2), "{shown:?}");
        assert!(world.compute.list_availability(&world.team).await.expect("availability").iter().all(|row| row.available_units == 4));
        let error = world.quote(&wanted(3, NoticeClass::N0)).await.expect_err("reserved");
        assert!(error.message().contains("keeps 2"), "{error}");
        assert_eq!(error.alternatives(), ["ask for 2 units: 0.015 EUR per device-hour"]);
        world.run(wanted(2, NoticeClass::N0), command("x")).await.expect("as shown");
    }

    async fn customers_are_refused_where_the_isolation_is_too_weak(cloud: &TestCloud) {
        let world = World::start_with(cloud, 2, Manners::Prompt, Isolation::default()).await;
        let error = world.run(wanted(1, NoticeClass::N0), command("x")).await.expect_err("too weak");
        assert_eq!(error.code(), ErrorCode::PolicyRefused);
        assert!(world.compute.list_availability(&world.customer).await.expect("rows").iter().all(|row| row.available_units == 0));
        let own = world.run_as(&world.team, wanted(1, NoticeClass::N0), command("x")).await.expect("the owner's own");
        world.pass().await;
        world.pass().await;
        assert_eq!(world.job(&own.job.job.id).await.job.state, JobState::Running);
    }

    async fn what_the_runner_will_not_start_costs_nothing(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        world.runner.refuse(Some(Error::new(ErrorCode::InvalidRequest, "there is no program 'nope'")));
        let run = world.run(wanted(1, NoticeClass::N0), command("nope")).await.expect("a run");
        world.pass().await;
        world.pass().await;
        let job = world.job(&run.job.job.id).await;
        assert_eq!((job.job.state, job.cost), (JobState::Refused, Nanos::ZERO));
        assert_eq!(job.job.message, "there is no program 'nope'");
        world.assert_all_over().await;
    }

    async fn a_busy_runner_is_asked_again_for_a_while(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        world.runner.refuse(Some(Error::new(ErrorCode::CapacityUnavailable, "the device is in use")));
        let run = world.run(wanted(1, NoticeClass::N0), command("x")).await.expect("a run");
        assert_eq!(world.compute.reconcile().await.errors.len(), 1);
        world.runner.refuse(None);
        world.pass().await;
        world.pass().await;
        assert_eq!(world.job(&run.job.job.id).await.job.state, JobState::Running);
    }

    async fn the_same_call_twice_runs_once(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let call = Call::under_key(world.customer.clone(), "run", "key-1", "body").expect("a call");
        let new = NewRun { quote: wanted(2, NoticeClass::N0), job: command("x") };
        let render = |run: &Run| Ok(run.job.job.id.to_string());
        let Answer::New(first) = world.compute.run(&call, &new, &render).await.expect("a run") else { panic!("a repeat") };
        let again = world.compute.run(&call, &new, &render).await.expect("the stored answer");
        assert_eq!(again, Answer::Replayed(first.job.job.id.to_string()));
        world.pass().await;
        world.pass().await;
        assert_eq!(world.runner.begun(), 1);
    }

    async fn a_quote_is_taken_once_in_time_and_by_its_owner(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let quote = world.quote(&wanted(1, NoticeClass::N0)).await.expect("a quote");
        let call = Call::once(world.team.clone());
        let error = world.compute.accept_quote(&call, &quote.id, &Default::default(), &|_| Ok(String::new())).await.expect_err("not theirs");
        assert_eq!(error.code(), ErrorCode::NotFound);
        let lease = world.accept(&quote).await.expect("a lease").lease;
        assert_eq!(world.accept(&quote).await.expect_err("taken").code(), ErrorCode::Conflict);
        assert_eq!(world.compute.get_lease(&world.team, &lease.id).await.expect_err("not theirs").code(), ErrorCode::NotFound);
        let late = world.quote(&wanted(1, NoticeClass::N0)).await.expect("a quote");
        cloud.clock.advance(DurationMs::from_seconds(600));
        assert_eq!(world.accept(&late).await.expect_err("late").code(), ErrorCode::QuoteExpired);
    }

    async fn a_job_over_the_end_of_a_month_is_in_both_months(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        limit_project(&world, BudgetWindow::Day, Nanos::new(UNIT)).await;
        // Thirty seconds before midnight in Berlin.
        cloud.clock.set(Timestamp::from_seconds(1_774_994_370));
        let run = world.run(wanted(1, NoticeClass::N0), command("x")).await.expect("a run");
        world.pass().await;
        world.live(70, 10).await;
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        let job = world.job(&run.job.job.id).await;
        let by_month = |month: &str| job.charges.iter().filter(|charge| charge.period.to_string() == month).map(|charge| charge.quantity.get()).sum::<i64>();
        assert_eq!((by_month("2026-03"), by_month("2026-04")), (30_000, 40_000));
        world.assert_all_over().await;
    }

    async fn a_lost_or_cordoned_device_is_not_sold(cloud: &TestCloud) {
        let world = World::start(cloud, 3, Manners::Prompt).await;
        let run = world.run(wanted(3, NoticeClass::N0), command("x")).await.expect("a run");
        world.pass().await;
        world.runner.set_devices(cpu_slots(2));
        world.compute.register_devices().await.expect("registered");
        world.pass().await;
        world.pass().await;
        let reason = StopReason::LeaseEnds(EndReason::DeviceLost);
        assert_eq!(world.job(&run.job.job.id).await.job.state, JobState::Interrupted { reason });
        let page = sublet_store::PageRequest::default();
        let devices = world.compute.list_devices(&Actor::system(), None, &page).await.expect("devices").items;
        let healthy = devices.iter().find(|(device, _)| device.health == sublet_core::device::DeviceHealth::Healthy).expect("one");
        world.compute.cordon_device(&Actor::system(), &healthy.0.id).await.expect("cordoned");
        let shown = world.compute.list_availability(&world.customer).await.expect("rows");
        assert!(shown.iter().all(|row| row.available_units == 1), "{shown:?}");
        let capacity = &world.compute.capacity(&Actor::system()).await.expect("capacity")[0];
        assert_eq!((capacity.figures.total, capacity.cordoned, capacity.lost, capacity.figures.idle), (3, 1, 1, 1));
        world.assert_all_over().await;
        world.runner.set_devices(cpu_slots(3));
        world.compute.register_devices().await.expect("registered");
        world.compute.uncordon_device(&Actor::system(), &healthy.0.id).await.expect("uncordoned");
        assert!(world.compute.list_availability(&world.customer).await.expect("rows").iter().all(|row| row.available_units == 3));
    }

    async fn what_was_promised_before_a_cordon_is_kept(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        world.run(wanted(1, NoticeClass::N0), command("spot")).await.expect("spot");
        world.pass().await;
        let own = world.run_as(&world.team, wanted(1, NoticeClass::N0), command("own")).await.expect("own");
        assert_eq!(own.lease.lease.state, LeaseState::Pending);
        world.compute.cordon_device(&Actor::system(), &own.lease.lease.devices[0]).await.expect("cordoned");
        for _ in 0..3 {
            world.pass().await;
        }
        assert_eq!(world.job(&own.job.job.id).await.job.state, JobState::Running);
        let error = world.quote(&wanted(1, NoticeClass::N0)).await.expect_err("cordoned");
        assert_eq!(error.code(), ErrorCode::CapacityUnavailable);
    }

    async fn a_process_that_has_stopped_leaves_nothing_to_sell(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let page = sublet_store::PageRequest::default();
        let devices = world.compute.list_devices(&Actor::system(), None, &page).await.expect("devices").items;
        world.compute.cordon_device(&Actor::system(), &devices[0].0.id).await.expect("cordoned");
        world.compute.drain(DurationMs::from_seconds(3)).await.expect("draining");
        world.compute.retire_devices().await.expect("retired");
        let error = world.quote(&wanted(1, NoticeClass::N0)).await.expect_err("nobody would run it");
        assert_eq!(error.code(), ErrorCode::CapacityUnavailable);
        world.compute.register_devices().await.expect("registered");
        world.quote(&wanted(1, NoticeClass::N0)).await.expect("it is back");
        world.quote(&wanted(2, NoticeClass::N0)).await.expect_err("the cordoned one is not");
    }

    async fn a_stopping_cloud_gives_its_jobs_notice(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let run = world.run(wanted(1, NoticeClass::N15m), command("x")).await.expect("a run");
        world.pass().await;
        world.compute.drain(DurationMs::from_seconds(3)).await.expect("draining");
        world.pass().await;
        assert_eq!(world.compute.live_attempts().await.expect("live"), 1);
        world.live(4, 1).await;
        assert_eq!(world.compute.live_attempts().await.expect("live"), 0);
        let reason = StopReason::LeaseEnds(EndReason::ShutDown);
        assert_eq!(world.job(&run.job.job.id).await.job.state, JobState::Interrupted { reason });
        assert_eq!(world.runner.attempts()[0].notices.len(), 1);
        world.assert_all_over().await;
    }

    async fn what_runs_may_finish_when_its_account_is_suspended(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let (job, lease) = suspended_for_ten_minutes(&world, OnSuspension::Finish).await;
        assert_eq!((job.state, lease.state), (JobState::Running, LeaseState::Active));
        suspend(&world, None).await;
        world.runner.exit(&world.attempt(&job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        world.compute.end_lease(&Actor::system(), &lease.id, None).await.expect("it ends");
        world.live(60, 5).await;
        world.assert_all_over().await;
    }

    async fn what_was_accepted_waits_while_its_account_is_suspended_if_its_customer_chose_so(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let run = world.run(wanted(1, NoticeClass::N0), kept("first")).await.expect("a run");
        cloud.clock.advance(DurationMs::from_millis(1));
        let second = world.add_job(&run.lease.lease.id, &kept("second")).await.expect("a second job").job;
        world.pass().await;
        suspend(&world, Some((OnSuspension::Stop, world.now()))).await;
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        for _ in 0..3 {
            world.pass().await;
        }
        assert_eq!(world.job(&second.id).await.job.state, JobState::Queued);
        suspend(&world, Some((OnSuspension::Finish, world.now()))).await;
        for _ in 0..2 {
            world.pass().await;
        }
        assert_eq!(world.job(&second.id).await.job.state, JobState::Running, "it was accepted before");
        // A lease that waits for its devices does so beyond the instant at which they are free.
        let waiting = world.run_as(&world.team, wanted(1, NoticeClass::N0), command("own")).await.expect("its own").lease.lease;
        assert_eq!(waiting.state, LeaseState::Pending);
        suspend_account(&world, &world.team, Some((OnSuspension::Stop, world.now()))).await;
        world.live(60, 5).await;
        assert!(matches!(world.lease(&run.lease.lease.id).await.lease.state, LeaseState::Ended { .. }));
        assert_eq!(world.lease(&waiting.id).await.lease.state, LeaseState::Pending);
        suspend_account(&world, &world.team, None).await;
        world.pass().await;
        assert_eq!(world.lease(&waiting.id).await.lease.state, LeaseState::Active);
        world.compute.end_lease(&Actor::system(), &waiting.id, None).await.expect("it ends");
        world.live(60, 5).await;
        world.assert_all_over().await;
    }

    async fn what_runs_stops_with_its_notice_if_its_customer_chose_so(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let (job, lease) = suspended_for_ten_minutes(&world, OnSuspension::Stop).await;
        assert_eq!(job.state, JobState::Interrupted { reason: StopReason::LeaseEnds(EndReason::Budget) });
        assert!(matches!(lease.hold_bound, HoldBound::Budget { ref refusal } if refusal.contains("suspended")), "{lease:?}");
        let attempt = &world.runner.attempts()[0];
        let (notice, ended) = (attempt.notices.first().expect("a notice"), attempt.ended_at.expect("it ended"));
        assert!(ended >= notice.deadline, "{notice:?} {ended}");
        world.assert_all_over().await;
    }
}
