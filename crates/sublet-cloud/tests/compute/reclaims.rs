//! Orders by which the owner takes capacity back, over three machines.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use sublet_cloud::Actor;
use sublet_cloud::compute::{Compute, ComputeSettings};
use sublet_cloud::data::{CompensationKind, Need, StoredVictim};
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::job::Run;
use sublet_cloud::quote::NewQuote;
use sublet_cloud::reclaim::{NewReclaim, ReclaimStatement, owed_to};
use sublet_core::device::DeviceHealth;
use sublet_core::id::{LeaseId, ReclaimId};
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::reclaim::{Promises, ReclaimShape, ReclaimState};
use sublet_core::runner::{DeviceInfo, Exit};
use sublet_core::{DurationMs, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_store::device::{self, Device};
use sublet_store::reclaim::DeviceCounts;
use sublet_testkit::TestCloud;
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::{FakeRunner, Manners, cpu_slots, sandbox};
use sublet_testkit::tenant::created;

use crate::compensations::given;
use crate::world::{CutShort, World, command, compute_on, cost, wanted};

/// Grace and slack.
const LEAD: i64 = 15;

/// Three machines with four devices each.
struct Fleet<'a> {
    world: World<'a>,
    others: Vec<(Arc<FakeRunner>, Compute)>,
}

impl<'a> Fleet<'a> {
    async fn start(cloud: &'a TestCloud) -> Self {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let mut others = Vec::new();
        for name in ["second", "third"] {
            let slot = |info: DeviceInfo| DeviceInfo { uuid: format!("{name}-{}", info.uuid), ..info };
            let slots = cpu_slots(4).into_iter().map(slot).collect();
            let runner = FakeRunner::named(name, cloud.clock.clone(), slots, (sandbox(), Manners::Prompt));
            let compute = Compute::new(cloud.cloud.clone(), runner.clone(), ComputeSettings::new(name).expect("settings"));
            compute.register_devices().await.expect("the devices are registered");
            others.push((runner, compute));
        }
        Self { world, others }
    }

    fn after(&self, seconds: i64) -> Timestamp {
        self.world.now().plus(DurationMs::from_seconds(seconds))
    }

    async fn pass(&self) {
        self.world.pass().await;
        for (_, compute) in &self.others {
            assert_eq!(compute.reconcile().await.errors, Vec::new());
        }
    }

    async fn live(&self, seconds: i64, step: i64) {
        let mut gone = 0;
        while gone < seconds {
            let by = step.min(seconds - gone);
            self.world.cloud.clock.advance(DurationMs::from_seconds(by));
            self.world.runner.beat();
            self.others.iter().for_each(|(runner, _)| runner.beat());
            self.pass().await;
            gone += by;
        }
    }

    async fn run_as(&self, actor: &Actor, quote: NewQuote) -> LeaseId {
        let run: Run = self.world.run_as(actor, quote, command("x")).await.expect("a run");
        self.pass().await;
        run.lease.lease.id
    }

    async fn run(&self, units: u32, notice: NoticeClass) -> LeaseId {
        self.run_as(&self.world.customer, wanted(units, notice)).await
    }

    /// A whole machine firm, five units at two minutes, one at an hour, two free.
    async fn sold(&self) -> Sold {
        let window = Some(DurationMs::from_hours(8 * 24));
        let firm = self.run_as(&self.world.customer, NewQuote { max_duration: window, ..wanted(4, NoticeClass::Firm) }).await;
        let mut noticed = vec![self.run(3, NoticeClass::N2m).await, self.run(2, NoticeClass::N2m).await];
        noticed.sort();
        let hourly = self.run(1, NoticeClass::N1h).await;
        self.live(200, 20).await;
        Sold { firm, noticed, hourly }
    }

    fn order(&self, units: u32, seconds: i64) -> NewReclaim {
        let (shape, promises) = (ReclaimShape::Anywhere, Promises::Kept);
        let kind = "cpu".parse().expect("a kind");
        NewReclaim { need: Need { kind, units, site: None, shape, by: self.after(seconds), promises }, until: None }
    }

    async fn place(&self, new: &NewReclaim) -> Result<ReclaimStatement> {
        let answer = self.world.compute.place_reclaim(&Call::once(Actor::system()), new, &|_| Ok(String::new())).await?;
        Ok(created(Ok(answer)))
    }
    async fn reclaim(&self, id: &ReclaimId) -> ReclaimStatement {
        self.world.compute.get_reclaim(&Actor::system(), id).await.expect("the order")
    }
    async fn state(&self, id: &LeaseId) -> LeaseState {
        self.world.lease(id).await.lease.state
    }
    async fn refusal(&self, new: &NewReclaim) -> Error {
        let refused = self.world.compute.preview_reclaim(&Actor::system(), new).await.expect_err("it cannot be met");
        assert_eq!(self.place(new).await.expect_err("nor placed"), refused);
        refused
    }
    async fn end_all(&self) {
        for runner in std::iter::once(&self.world.runner).chain(self.others.iter().map(|(runner, _)| runner)) {
            for id in runner.live() {
                runner.exit(&id, Exit::Code { code: 0 });
            }
        }
        self.pass().await;
        self.pass().await;
        self.world.assert_all_over().await;
    }
}

struct Sold {
    firm: LeaseId,
    noticed: Vec<LeaseId>,
    hourly: LeaseId,
}

fn leases(victims: &[StoredVictim]) -> Vec<&LeaseId> {
    victims.iter().map(|victim| &victim.lease).collect()
}

/// Polls a future a number of times, whenever it is woken; true if it is done.
async fn polled<F: Future>(mut future: Pin<&mut F>, mut polls_left: u32) -> bool {
    std::future::poll_fn(|context| {
        if polls_left == 0 {
            return Poll::Ready(false);
        }
        polls_left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if polls_left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn may_break(new: NewReclaim) -> NewReclaim {
    NewReclaim { need: Need { promises: Promises::MayBreak, ..new.need }, ..new }
}

on_both_databases! {
    async fn a_dry_run_is_what_then_happens_and_kept_promises_cost_nothing(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        let sold = fleet.sold().await;
        let order = fleet.order(7, 7_200);
        let shown = fleet.world.compute.preview_reclaim(&Actor::system(), &order).await.expect("a dry run");
        assert_eq!((shown.order.free_anyway(), shown.order.devices.len()), (2, 7));
        assert_eq!(leases(&shown.victims), sold.noticed.iter().collect::<Vec<_>>());
        assert!(shown.victims.iter().all(|victim| victim.owed.is_zero() && !victim.end.breaks_promise));
        let page = sublet_store::PageRequest::default();
        assert_eq!(fleet.world.compute.list_reclaims(&Actor::system(), None, &page).await.expect("a list").items, vec![], "nothing is changed");
        let placed = fleet.place(&order).await.expect("placed");
        assert_eq!((&placed.victims, placed.reclaim.state), (&shown.victims, ReclaimState::Placed));
        let (id, until) = (placed.reclaim.id, placed.victims[0].end);
        assert_eq!((until.tell_at, until.deadline), (fleet.after(7_200 - LEAD - 125), fleet.after(7_200 - LEAD)));
        // What is free and what will be is no customer's any more; until then everybody works on.
        let refused = fleet.world.quote(&wanted(1, NoticeClass::N0)).await.expect_err("held");
        assert_eq!(refused.code(), ErrorCode::CapacityUnavailable);
        fleet.live(7_200 - LEAD - 126, 60).await;
        for lease in &sold.noticed {
            assert_eq!(fleet.state(lease).await, LeaseState::Active);
        }
        fleet.live(1, 1).await;
        let told = LeaseState::Ending { reason: EndReason::Reclaimed, deadline: until.deadline };
        assert_eq!(fleet.state(&sold.noticed[0]).await, told);
        fleet.live(130, 5).await;
        let there = fleet.reclaim(&id).await;
        assert_eq!((there.reclaim.state, there.devices.iter().filter(|device| device.is_there).count()), (ReclaimState::Fulfilled, 7));
        assert!(fleet.world.now() <= placed.reclaim.need.by);
        assert_eq!(given(&fleet.world).await, vec![]);
        for kept in [&sold.firm, &sold.hourly] {
            assert_eq!(fleet.state(kept).await, LeaseState::Active);
        }
        fleet.world.assert_invariants().await;
        // The owner's team has them at once, and nobody else before the order is given up.
        let own = fleet.run_as(&fleet.world.team, wanted(3, NoticeClass::N0)).await;
        assert_eq!(fleet.state(&own).await, LeaseState::Active);
        assert!(fleet.world.quote(&wanted(1, NoticeClass::N0)).await.is_err());
        let cancelled = fleet.world.compute.cancel_reclaim(&Actor::system(), &id, None).await.expect("cancelled");
        assert_eq!(cancelled.reclaim.state, ReclaimState::Cancelled);
        fleet.world.quote(&wanted(3, NoticeClass::N0)).await.expect("it is sold again");
        fleet.end_all().await;
    }

    async fn broken_promises_are_said_before_and_paid_to_the_cent(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        let sold = fleet.sold().await;
        let refused = fleet.refusal(&fleet.order(8, 60)).await;
        assert_eq!(refused.code(), ErrorCode::CapacityUnavailable);
        let instead = refused.alternatives().join("\n");
        for expected in ["by 2026", "ask for 2 units: nobody", "--break-promises): 3 leases end and are owed"] {
            assert!(instead.contains(expected), "{expected} in {instead}");
        }
        let order = may_break(fleet.order(8, 60));
        let shown = fleet.world.compute.preview_reclaim(&Actor::system(), &order).await.expect("a dry run");
        let mut all: Vec<&LeaseId> = sold.noticed.iter().chain([&sold.hourly]).collect();
        all.sort();
        assert_eq!(leases(&shown.victims), all);
        assert!(shown.cheaper.iter().any(|one| one.need.by > order.need.by && one.owed.is_empty()), "{:?}", shown.cheaper);
        let placed = fleet.place(&order).await.expect("placed");
        assert_eq!(placed.victims, shown.victims);
        fleet.live(50, 1).await;
        let given = given(&fleet.world).await;
        assert_eq!(given.len(), 3);
        for victim in &shown.victims {
            let one = given.iter().find(|one| one.subject == victim.lease.as_str()).expect("it is made good");
            assert_eq!(one.amount, victim.owed, "{victim:?} and {one:?}");
            assert!(victim.owed > Nanos::ZERO && victim.end.breaks_promise);
        }
        // The price of the missing notice and a quarter.
        let hourly = shown.victims.iter().find(|victim| victim.lease == sold.hourly).expect("it is one");
        let missing = cost(NoticeClass::N1h, (3_600 - 45) * 1_000).get();
        assert!((hourly.owed.get() - missing * 5 / 4).abs() <= 2, "{hourly:?}");
        let there = fleet.reclaim(&placed.reclaim.id).await;
        assert_eq!(there.reclaim.state, ReclaimState::Fulfilled);
        assert!(there.victims.iter().all(|victim| victim.given == Some(victim.owed)));
        let more = fleet.refusal(&may_break(fleet.order(1, 60))).await;
        assert!(more.to_string().contains("0 can be had"), "firm is never taken: {more}");
        fleet.end_all().await;
    }

    async fn an_order_goes_on_whatever_dies_in_between(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        fleet.sold().await;
        let order = NewReclaim { until: Some(fleet.after(1_200)), ..fleet.order(7, 600) };
        let placed = fleet.place(&order).await.expect("placed");
        let mut polls = 3;
        while fleet.world.now() < order.need.by {
            cloud.clock.advance(DurationMs::from_seconds(5));
            fleet.world.runner.beat();
            fleet.others.iter().for_each(|(runner, _)| runner.beat());
            for runner in [&fleet.world.runner, &fleet.others[0].0, &fleet.others[1].0] {
                CutShort::new(compute_on(&cloud.cloud, runner).reconcile(), polls).await;
                polls = polls * 7 % 401 + 3;
            }
            fleet.pass().await;
        }
        let there = fleet.reclaim(&placed.reclaim.id).await;
        assert_eq!((there.reclaim.state, there.victims.len()), (ReclaimState::Fulfilled, 2));
        assert_eq!(given(&fleet.world).await, vec![], "everybody had the notice that was sold");
        fleet.live(600, 60).await;
        let over = fleet.reclaim(&placed.reclaim.id).await.reclaim;
        assert_eq!((over.state, over.ended_at.is_some()), (ReclaimState::Expired, true));
        fleet.world.quote(&wanted(2, NoticeClass::N0)).await.expect("it is sold again");
        let again = fleet.world.compute.cancel_reclaim(&Actor::system(), &over.id, None).await.expect_err("it is over");
        assert_eq!(again.code(), ErrorCode::Conflict);
        fleet.end_all().await;
    }

    async fn two_orders_share_no_device_and_one_that_is_given_up_tells_nobody(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        let sold = fleet.sold().await;
        let first = fleet.place(&fleet.order(4, 600)).await.expect("placed");
        let taken = leases(&first.victims);
        assert_eq!(taken.len(), 1);
        let second = fleet.place(&fleet.order(4, 7_200)).await.expect("placed");
        let held: std::collections::BTreeSet<_> = first.devices.iter().chain(&second.devices).map(|one| &one.device.device).collect();
        assert_eq!(held.len(), 8);
        assert!(leases(&second.victims).iter().all(|lease| !taken.contains(lease)), "who ends anyway ends once");
        assert!(!leases(&second.victims).contains(&&sold.firm));
        let refused = fleet.refusal(&fleet.order(1, 7_200)).await;
        assert!(refused.to_string().contains("0 can be had"), "{refused}");
        let compute = &fleet.world.compute;
        let stale = compute.cancel_reclaim(&Actor::system(), &second.reclaim.id, Some(9)).await.expect_err("another generation");
        assert_eq!(stale.code(), ErrorCode::PreconditionFailed);
        compute.cancel_reclaim(&Actor::system(), &second.reclaim.id, Some(second.reclaim.generation)).await.expect("cancelled");
        fleet.live(7_300, 50).await;
        for lease in leases(&second.victims) {
            assert_eq!(fleet.state(lease).await, LeaseState::Active);
        }
        assert!(fleet.state(taken[0]).await.is_final());
        assert_eq!(fleet.reclaim(&first.reclaim.id).await.reclaim.state, ReclaimState::Fulfilled);
        fleet.end_all().await;
    }

    async fn nobody_is_told_for_an_order_whose_time_passed_while_the_cloud_stood(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        fleet.sold().await;
        let order = NewReclaim { until: Some(fleet.after(1_200)), ..fleet.order(7, 600) };
        let placed = fleet.place(&order).await.expect("placed");
        cloud.clock.advance(DurationMs::from_seconds(1_300));
        fleet.world.runner.beat();
        fleet.others.iter().for_each(|(runner, _)| runner.beat());
        fleet.pass().await;
        assert_eq!(fleet.reclaim(&placed.reclaim.id).await.reclaim.state, ReclaimState::Expired);
        for lease in leases(&placed.victims) {
            assert_eq!(fleet.state(lease).await, LeaseState::Active);
        }
        fleet.end_all().await;
    }

    async fn a_kept_notice_is_whole_however_long_the_telling_takes(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        fleet.sold().await;
        let placed = fleet.place(&fleet.order(7, 600)).await.expect("placed");
        // The pass comes a minute late, and time goes on while it works.
        cloud.clock.advance(DurationMs::from_seconds(600 - LEAD - 60));
        fleet.world.runner.beat();
        fleet.others.iter().for_each(|(runner, _)| runner.beat());
        cloud.clock.tick(DurationMs::from_millis(1));
        fleet.pass().await;
        cloud.clock.tick(DurationMs::ZERO);
        for id in leases(&placed.victims) {
            let read = cloud.cloud.store().read(id, |id, tx| Box::pin(sublet_store::compensation::list_notices(tx, &sublet_core::Scope::Operator, id)));
            let notices = read.await.expect("notices");
            assert_eq!(notices.len(), 1);
            assert!(notices[0].deadline.since(notices[0].told_at) >= DurationMs::from_seconds(120), "{notices:?}");
        }
        fleet.live(140, 5).await;
        assert_eq!(given(&fleet.world).await, vec![]);
        fleet.end_all().await;
    }

    async fn who_ends_for_two_orders_ends_for_the_one_that_is_left(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        fleet.sold().await;
        let first = fleet.place(&fleet.order(3, 600)).await.expect("placed");
        let second = fleet.place(&fleet.order(1, 7_200)).await.expect("placed");
        assert_eq!((leases(&second.victims), second.victims[0].end), (leases(&first.victims), first.victims[0].end));
        fleet.world.compute.cancel_reclaim(&Actor::system(), &first.reclaim.id, None).await.expect("cancelled");
        fleet.live(660, 20).await;
        assert!(fleet.state(&second.victims[0].lease).await.is_final());
        assert_eq!(fleet.reclaim(&second.reclaim.id).await.reclaim.state, ReclaimState::Fulfilled);
        fleet.end_all().await;
    }

    async fn nobody_is_told_for_an_order_that_has_lost_a_device(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        fleet.sold().await;
        let placed = fleet.place(&fleet.order(7, 600)).await.expect("placed");
        let held = placed.devices.iter().find(|held| held.device.lease.is_none()).expect("a free one").device.device.clone();
        let set = async |health: DeviceHealth| {
            let done = cloud.cloud.store().write(&held, move |id, tx| {
                Box::pin(async move {
                    let found = device::get(tx, id).await?;
                    device::update(tx, &Device { health, ..found }).await
                })
            });
            done.await.expect("it is set");
        };
        set(DeviceHealth::Lost).await;
        fleet.live(600, 20).await;
        for lease in leases(&placed.victims) {
            assert_eq!(fleet.state(lease).await, LeaseState::Active, "what it gave would not be enough");
        }
        set(DeviceHealth::Healthy).await;
        fleet.live(140, 5).await;
        assert_eq!(fleet.reclaim(&placed.reclaim.id).await.reclaim.state, ReclaimState::Fulfilled);
        assert_eq!(given(&fleet.world).await, vec![], "told late, and with the whole notice");
        fleet.end_all().await;
    }

    async fn a_list_of_orders_counts_what_is_there_what_was_lost_and_who_ends(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        fleet.sold().await;
        let placed = fleet.place(&may_break(fleet.order(8, 600))).await.expect("placed");
        assert_eq!(placed.counts, DeviceCounts { held: 8, there: 2, lost: 0 });
        let held = placed.devices.iter().find(|held| held.device.lease.is_none()).expect("a free one").device.device.clone();
        fleet.world.compute.cordon_device(&Actor::system(), &held).await.expect("out of sale");
        let page = sublet_store::PageRequest::default();
        let listed = fleet.world.compute.list_reclaims(&Actor::system(), None, &page).await.expect("a list").items;
        let [one] = listed.as_slice() else { panic!("{listed:?}") };
        assert_eq!((one.counts, one.victims), (DeviceCounts { held: 8, there: 1, lost: 1 }, 3));
        assert_eq!(one.owed, owed_to(&placed.victims).expect("a sum"));
        assert!(!one.owed.is_empty(), "an hour's notice is broken");
        assert_eq!(fleet.reclaim(&placed.reclaim.id).await.counts, one.counts);
    }

    async fn nobody_is_told_for_an_order_that_is_cancelled_while_a_pass_is_on_its_way(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        fleet.sold().await;
        let mut caught = 0;
        // Wherever a pass waits, it finds the order given up by somebody else before it goes on. On SQLite it never waits.
        for polls in 0..400 {
            let placed = fleet.place(&fleet.order(3, LEAD + 127)).await.expect("placed");
            let victim = placed.victims[0].lease.clone();
            cloud.clock.advance(DurationMs::from_seconds(3));
            fleet.world.runner.beat();
            let mut pass = std::pin::pin!(fleet.world.compute.reconcile());
            let is_over = polled(pass.as_mut(), polls).await;
            let rest = async {
                if !is_over {
                    pass.await;
                }
            };
            let cancel = async {
                fleet.world.compute.cancel_reclaim(&Actor::system(), &placed.reclaim.id, None).await.expect("cancelled");
                fleet.state(&victim).await
            };
            let (state, ()) = tokio::join!(cancel, rest);
            if state != LeaseState::Active {
                break;
            }
            caught += 1;
            assert_eq!(fleet.state(&victim).await, LeaseState::Active, "told {polls} steps into a pass, after the order was given up");
            assert!(!is_over, "a pass tells it");
            fleet.live(1, 1).await;
        }
        assert!(caught > 0, "the first is cancelled before a pass begins");
        fleet.end_all().await;
    }

    async fn who_yields_without_a_notice_sold_is_owed_what_it_lost(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        let spot = fleet.run(4, NoticeClass::N0).await;
        fleet.run(4, NoticeClass::N24h).await;
        fleet.run(4, NoticeClass::N24h).await;
        fleet.live(120, 20).await;
        let placed = fleet.place(&fleet.order(4, 60)).await.expect("placed");
        assert_eq!(leases(&placed.victims), [&spot]);
        fleet.live(42, 1).await;
        assert!(matches!(fleet.state(&spot).await, LeaseState::Ending { reason: EndReason::Reclaimed, .. }));
        fleet.world.compute.yield_lease(&fleet.world.customer, &spot).await.expect("given back");
        fleet.pass().await;
        fleet.pass().await;
        let lease = fleet.world.lease(&spot).await.lease;
        let given = given(&fleet.world).await;
        assert_eq!((given.len(), given[0].amount), (1, lease.cost), "{given:?}");
        assert_eq!(fleet.reclaim(&placed.reclaim.id).await.victims[0].given, Some(lease.cost));
        fleet.end_all().await;
    }

    async fn an_order_is_placed_once_and_a_wrong_one_says_what_would_work(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        let order = fleet.order(2, 600);
        let call = Call::under_key(Actor::system(), "CreateReclaim", "once", "the same").expect("a call");
        let place = async || fleet.world.compute.place_reclaim(&call, &order, &|one| Ok(one.reclaim.id.to_string())).await;
        let Ok(Answer::New(placed)) = place().await else { panic!("it is new") };
        assert_eq!(placed.reclaim.state, ReclaimState::Fulfilled, "all of it is free");
        assert!(matches!(place().await, Ok(Answer::Replayed(id)) if id == placed.reclaim.id.as_str()));
        let of = |need: Need| NewReclaim { need, until: None };
        let per_node = |units| ReclaimShape::PerNode(NonZeroU32::new(units).expect("positive"));
        for (wrong, param, works) in [
            (fleet.order(1, -1), "by", "ask for an instant after"),
            (fleet.order(0, 60), "units", ""),
            (NewReclaim { until: Some(fleet.after(60)), ..fleet.order(1, 60) }, "until", "leave it out"),
            (of(Need { kind: "h100".parse().expect("a kind"), ..fleet.order(1, 60).need }), "kind", "cpu"),
            (of(Need { site: Some("site_x".parse().expect("a site")), ..fleet.order(1, 60).need }), "site", "site_local"),
            (of(Need { shape: per_node(3), ..fleet.order(4, 60).need }), "units", "ask for 6 units"),
        ] {
            let refused = fleet.refusal(&wrong).await;
            assert_eq!((refused.code(), refused.param_name()), (ErrorCode::InvalidRequest, Some(param)));
            assert!(refused.alternatives().join(", ").contains(works), "{refused:?}");
        }
        let whole = of(Need { shape: ReclaimShape::WholeNodes, ..fleet.order(8, 60).need });
        let gang = fleet.place(&whole).await.expect("two whole machines");
        let nodes: std::collections::BTreeSet<_> = gang.devices.iter().map(|one| &one.device.node).collect();
        assert_eq!((gang.devices.len(), nodes.len()), (8, 2));
        let customer = fleet.world.compute.preview_reclaim(&fleet.world.customer, &order).await.expect_err("it is the owner's");
        assert_eq!(customer.code(), ErrorCode::WrongKeyPlane);
    }

    async fn who_saved_its_work_is_taken_first_and_may_give_back_early(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud).await;
        let old = fleet.run(4, NoticeClass::N2m).await;
        fleet.live(600, 60).await;
        let young = fleet.run(4, NoticeClass::N2m).await;
        fleet.run(4, NoticeClass::N24h).await;
        fleet.live(60, 20).await;
        let (compute, customer) = (&fleet.world.compute, &fleet.world.customer);
        let shown = async || compute.preview_reclaim(&Actor::system(), &fleet.order(4, 600)).await.expect("a dry run").victims;
        assert_eq!(leases(&shown().await), [&young]);
        let early = compute.declare_checkpoint(customer, &old, Some(fleet.after(-10_000))).await.expect_err("before it began");
        assert_eq!(early.param_name(), Some("at"));
        compute.declare_checkpoint(customer, &old, None).await.expect("noted");
        compute.declare_checkpoint(customer, &old, Some(fleet.after(-30))).await.expect("an older one changes nothing");
        let now_first = shown().await;
        assert_eq!((leases(&now_first), now_first[0].checkpoint_at), (vec![&old], Some(fleet.world.now())));
        assert_eq!(now_first[0].lost, DurationMs::from_seconds(4 * (600 - LEAD)));
        assert_eq!(compute.yield_lease(customer, &old).await.expect_err("nobody asked").code(), ErrorCode::Conflict);
        let placed = fleet.place(&fleet.order(4, LEAD + 126)).await.expect("placed");
        fleet.live(2, 1).await;
        assert!(matches!(fleet.state(&old).await, LeaseState::Ending { reason: EndReason::Reclaimed, .. }));
        compute.yield_lease(customer, &old).await.expect("given back");
        fleet.pass().await;
        fleet.pass().await;
        assert_eq!(fleet.state(&old).await, LeaseState::Ended { reason: EndReason::Reclaimed }, "not for a reason of its own");
        assert_eq!(fleet.reclaim(&placed.reclaim.id).await.reclaim.state, ReclaimState::Fulfilled, "two minutes before its time");
        let given = given(&fleet.world).await;
        assert_eq!(given.iter().map(|one| (one.kind, one.subject.as_str())).collect::<Vec<_>>(), [(CompensationKind::Early, old.as_str())]);
        fleet.end_all().await;
    }
}
