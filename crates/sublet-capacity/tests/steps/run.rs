//! Takes one step after the other: what happens, what is decided, what is done about it, and what has to hold.

use std::collections::BTreeMap;

use sublet_capacity::{
    Action, ActionKind, Cover, CoverBound, Curve, DeviceView, LeaseStage, Level, LevelReason, Pool, Request, ReserveRule,
    SellingMode, place,
};
use sublet_core::device::DeviceHealth;
use sublet_core::id::{DeviceId, LeaseId};
use sublet_core::lease::{EndReason, Holder};
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Timestamp};

use super::check::{self, Broken, Checked, Rule, committed, hold};
use super::decider::Decider;
use super::trace::{Op, Shape, Step, Wish};
use super::world::{GRACE, SLACK, Standing, World, seconds};

/// Passes after which a plan that still has something new to do never ends.
const PASSES_MAX: usize = 8;
/// Instants at which something is due within one wait.
const DUE_MAX: usize = 10_000;
/// A team's lease never waits longer than the longest notice there is.
const REACTION_MAX: DurationMs = DurationMs::from_hours(24);

/// How often each thing was done, so that a run that does nothing is seen.
pub type Counts = BTreeMap<&'static str, u64>;

pub struct Run<'d> {
    pub world: World,
    pub counts: Counts,
    decider: &'d dyn Decider,
}

/// The whole trace; how far it came, and what was broken there.
pub fn run(seed: u64, steps: &[Step], decider: &dyn Decider) -> (Counts, Option<(usize, Broken)>) {
    let mut run = Run { world: World::new(seed), counts: Counts::new(), decider };
    for (place, step) in steps.iter().enumerate() {
        if let Err(broken) = run.step(step, place) {
            return (run.counts, Some((place, broken)));
        }
    }
    (run.counts, None)
}

impl Run<'_> {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn step(&mut self, step: &Step, place: usize) -> Checked {
        let is_calm = self.apply(&step.op)?;
        self.world.note_orders();
        self.settle(is_calm)?;
        check::books(&self.world)?;
        self.quote(&step.quote)?;
        self.repeat(place)
    }

    /// True if nothing about what may be sold has changed.
    fn apply(&mut self, op: &Op) -> Checked<bool> {
        match *op {
            Op::Buy(wish) => self.buy(&wish).map(|()| true),
            Op::Team(wish) => self.team(&wish).map(|()| false),
            Op::Order { wish, shape, by_s, hold_s, may_break } => {
                self.order((&wish, shape), (by_s, may_break), hold_s).map(|()| true)
            }
            Op::Wait { seconds: span, late_s } => self.wait(seconds(span), seconds(late_s)).map(|()| true),
            Op::Levels { .. } | Op::NoLevels { .. } | Op::Outside { .. } | Op::Mode(_) | Op::Reserve { .. } => {
                self.rule(op);
                Ok(false)
            }
            Op::Fault { .. } | Op::Mend(_) | Op::Cancel(_) => {
                self.trouble(op);
                Ok(false)
            }
            Op::Release(_) | Op::JobOver(_) | Op::Work(_) | Op::Idle(_) | Op::Checkpoint(_) | Op::Cover { .. } => {
                // Who waits and gives up leaves devices to customers that counted as the owner's.
                let waits =
                    |run: &Self| run.world.snapshot.leases.values().filter(|lease| lease.stage == LeaseStage::Pending).count();
                let before = waits(self);
                self.holder(op);
                Ok(waits(self) == before)
            }
        }
    }

    fn buy(&mut self, wish: &Wish) -> Checked {
        let request = World::request(wish, Holder::External);
        match self.decider.place(&self.world.snapshot, &request) {
            Err(refusal) => self.count(refusal.reason.as_str()),
            Ok(placed) => {
                check::placement(&self.world, &request, &placed)?;
                let window = wish.window_s.or((request.notice == NoticeClass::Firm).then_some(700_000));
                let id = self.world.insert(&request, window, placed.devices, None);
                if wish.works {
                    self.world.set_busy(&id, true);
                }
                self.count("sold");
            }
        }
        Ok(())
    }

    fn team(&mut self, wish: &Wish) -> Checked {
        let (request, now) = (World::request(wish, Holder::Internal), self.world.now);
        let is_guaranteed = check::is_guaranteed(&self.world, &request);
        let plan = match self.decider.reclaim(&self.world.snapshot, &request, now) {
            Ok(plan) => plan,
            Err(_) => return check::not_reclaimable(&self.world, &request),
        };
        check::reclaim(&self.world, &request, &plan)?;
        hold(Rule::InTime, plan.free_now || !is_guaranteed, || format!("within the reserve, and it waits: {plan:?}"))?;
        hold(Rule::InTime, plan.ready_at <= now.plus(REACTION_MAX), || format!("{plan:?}"))?;
        let waits = (!plan.free_now).then_some(plan.ready_at);
        let id = self.world.insert(&request, wish.window_s, plan.devices, waits);
        if wish.works && waits.is_none() {
            self.world.set_busy(&id, true);
        }
        for victim in plan.victims {
            self.world.begin_ending(&victim.lease, EndReason::Reclaimed, victim.deadline);
            self.count("displaced by a team");
        }
        self.count(if waits.is_some() { "waiting for a team" } else { "placed for a team" });
        self.count(if is_guaranteed { "within the reserve" } else { "beyond the reserve" });
        Ok(())
    }

    fn order(&mut self, (wish, shape): (&Wish, Shape), by: (i64, bool), hold_s: Option<i64>) -> Checked {
        let (need, now) = (self.world.need(wish, shape, by), self.world.now);
        let Ok(order) = self.decider.order(&self.world.snapshot, &need, now) else {
            return check::not_orderable(&self.world, &need);
        };
        check::order(&self.world, &need, &order)?;
        let all = order.victims.iter().chain(&order.shared);
        let ends: BTreeMap<_, _> = all.clone().map(|victim| (victim.lease.clone(), victim.end)).collect();
        for (id, end) in ends.iter().filter(|(_, end)| end.tell_at <= now) {
            self.world.begin_ending(id, EndReason::Reclaimed, end.deadline);
        }
        let devices = order.devices.iter().map(|one| one.device.clone()).collect();
        let (until, is_shared) = (hold_s.map(|span| need.by.plus(seconds(span))), !order.shared.is_empty());
        self.world.orders.push(Standing { need, until, devices, ends, is_shared, is_damaged: false, is_judged: false });
        self.count(if order.victims.is_empty() { "orders without victims" } else { "orders with victims" });
        Ok(())
    }

    /// What the owner decides about selling.
    fn rule(&mut self, op: &Op) {
        let pool = |place: usize| self.world.pools[place % self.world.pools.len()].clone();
        let selling = &mut self.world.snapshot.selling;
        match *op {
            Op::Levels { pool: place, levels, learned } => {
                let little = LevelReason::LittleSeen { seen_s: 0, needed_s: 1 };
                let reason = if learned { LevelReason::OfLeast { window_s: 60, margin_ppm: 0 } } else { little };
                let levels = levels.map(|units| Level { units, reason });
                selling.pools.entry(pool(place)).or_default().curve = Curve::Fresh(levels);
            }
            Op::NoLevels { pool: place, stale } => {
                selling.pools.entry(pool(place)).or_default().curve = if stale { Curve::Stale } else { Curve::Missing };
            }
            Op::Outside { pool: place, units } => selling.pools.entry(pool(place)).or_default().outside = units,
            Op::Mode(place) => selling.mode = SellingMode::ALL[place],
            Op::Reserve { units, thousandths } => {
                self.world.snapshot.terms.reserve = ReserveRule { minimum_units: units, fraction_thousandths: thousandths };
            }
            _ => {}
        }
    }

    fn trouble(&mut self, op: &Op) {
        let number = self.world.snapshot.devices.len();
        match *op {
            Op::Fault { device: place, lost } => {
                let device = &mut self.world.snapshot.devices[place % number];
                device.health = if lost { DeviceHealth::Lost } else { DeviceHealth::Cordoned };
                let (id, waiting) = (device.id.clone(), device.promised_to.clone());
                if let Some(memory) = waiting.and_then(|lease| self.world.memory.get_mut(&lease)) {
                    memory.is_damaged = true;
                }
                let touched = self.world.orders.iter_mut().filter(|order| order.devices.contains(&id));
                touched.for_each(|order| {
                    order.is_damaged = true;
                    // While something is missing, nobody more is told for it.
                    order.ends = if lost { BTreeMap::new() } else { std::mem::take(&mut order.ends) };
                });
            }
            Op::Mend(place) => self.world.snapshot.devices[place % number].health = DeviceHealth::Healthy,
            Op::Cancel(place) => {
                let orders = &mut self.world.orders;
                if !orders.is_empty() {
                    orders.remove(place % orders.len());
                    orders.iter_mut().for_each(|order| order.is_damaged |= order.is_shared);
                }
            }
            _ => {}
        }
    }

    /// What holders of leases do.
    fn holder(&mut self, op: &Op) {
        let (Op::Release(place)
        | Op::JobOver(place)
        | Op::Work(place)
        | Op::Idle(place)
        | Op::Checkpoint(place)
        | Op::Cover { lease: place, .. }) = *op
        else {
            return;
        };
        let (now, Some(id)) = (self.world.now, self.world.lease_at(place)) else {
            return;
        };
        let Some(lease) = self.world.snapshot.leases.get_mut(&id) else {
            return;
        };
        match *op {
            Op::Release(_) => {
                self.world.begin_ending(&id, EndReason::Released, now);
            }
            Op::JobOver(_) => lease.job_over = lease.stage != LeaseStage::Pending,
            Op::Work(_) if lease.stage == LeaseStage::Active && !lease.busy => self.world.set_busy(&id, true),
            Op::Idle(_) if lease.busy => self.world.set_busy(&id, false),
            Op::Checkpoint(_) if lease.busy => lease.stake.at_risk_since = Some(now),
            Op::Cover { seconds: span, bound, .. } if lease.busy => {
                let bounds = [CoverBound::Open, CoverBound::Budget, CoverBound::MaximumCost, CoverBound::MaximumPrice];
                lease.cover = Some(Cover { until: now.plus(seconds(span)), bound: bounds[bound] });
            }
            _ => {}
        }
    }

    /// Time passes; whatever is due is done when it is due, or a little late.
    fn wait(&mut self, span: DurationMs, late: DurationMs) -> Checked {
        let until = self.world.now.plus(span);
        for _ in 0..DUE_MAX {
            let Some(at) = self.next_due(late).filter(|at| *at <= until) else {
                self.world.set_now(until);
                return Ok(());
            };
            self.world.set_now(at);
            self.pass_time()?;
            self.settle(true)?;
        }
        Err(Broken { rule: Rule::Once, detail: format!("something was always due until {until}") })
    }

    /// The next instant at which a lease or order has something due. A workload that is gone is noticed at once.
    fn next_due(&self, late: DurationMs) -> Option<Timestamp> {
        let (world, terms) = (&self.world, &self.world.snapshot.terms);
        let mut due = Vec::new();
        for lease in world.snapshot.leases.values() {
            let notice = terms.stop_notice(lease.notice);
            let deadline = if let LeaseStage::Ending { deadline, .. } = lease.stage { Some(deadline) } else { None };
            let gone_at = world.memory[&lease.id].gone_at;
            let covered = lease.cover.filter(|cover| cover.bound != CoverBound::Open);
            let of_active = [
                lease.ends_at.map(|ends_at| ends_at.minus(notice)),
                covered.map(|cover| cover.until.minus(GRACE).minus(SLACK).minus(notice)),
                lease.unused_since.map(|since| since.plus(terms.unused_max)),
                lease.stake.ordered.map(|end| end.tell_at),
            ];
            due.extend(of_active.into_iter().flatten().chain(deadline).map(|at| at.plus(late)));
            due.extend(gone_at);
        }
        for order in &world.orders {
            due.extend(order.until);
            due.extend((!order.is_judged).then_some(order.need.by));
        }
        due.into_iter().filter(|at| *at > world.now).min()
    }

    /// Workloads that were stopped are gone; orders are judged at their time, and end at theirs.
    fn pass_time(&mut self) -> Checked {
        let now = self.world.now;
        let gone = self.world.memory.iter().filter(|(_, memory)| memory.gone_at.is_some_and(|at| at <= now));
        let gone: Vec<LeaseId> = gone.map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|id| self.world.set_busy(id, false));
        // What is gone at the very instant of an order has left its devices when the order is judged.
        self.settle(true)?;
        for place in 0..self.world.orders.len() {
            let order = &self.world.orders[place];
            if order.is_judged || order.need.by > now {
                continue;
            }
            for id in order.devices.iter().filter(|_| !order.is_damaged) {
                let device = self.world.device(id).unwrap();
                let is_there = self.world.lease_of(device).is_none_or(|lease| lease.holder == Holder::Internal);
                hold(Rule::InTime, is_there, || {
                    format!("{id} is not there at {now}: {order:?}, {:?}", self.world.lease_of(device))
                })?;
            }
            self.count(if self.world.orders[place].is_damaged { "orders that broke" } else { "orders in time" });
            self.world.orders[place].is_judged = true;
        }
        let before = self.world.orders.len();
        self.world.orders.retain(|order| order.until.is_none_or(|until| now < until));
        if self.world.orders.len() < before {
            self.world.orders.iter_mut().for_each(|order| order.is_damaged |= order.is_shared);
        }
        self.world.note_orders();
        Ok(())
    }

    /// Applies plans until nothing new is due at this instant.
    fn settle(&mut self, is_calm: bool) -> Checked {
        let mut told = Vec::new();
        for pass in 0..PASSES_MAX {
            let now = self.world.now;
            let actions = self.decider.plan(&self.world.snapshot, now);
            self.surplus(&actions, is_calm)?;
            let is_stopped = |action: &Action| {
                let memory = self.world.memory.get(&action.lease);
                action.kind == ActionKind::Stop && memory.is_some_and(|memory| memory.gone_at.is_some())
            };
            let new: Vec<Action> = actions.iter().filter(|action| !is_stopped(action)).cloned().collect();
            let is_one_each = actions.windows(2).all(|pair| pair[0].lease < pair[1].lease);
            hold(Rule::Once, is_one_each, || format!("in order, one each: {actions:?}"))?;
            if new.is_empty() {
                return self.waiting();
            }
            for action in new {
                if matches!(action.kind, ActionKind::BeginEnding { .. }) {
                    hold(Rule::Once, !told.contains(&action.lease), || format!("told again in pass {pass}: {action:?}"))?;
                    told.push(action.lease.clone());
                }
                self.act(&action)?;
            }
        }
        Err(Broken { rule: Rule::Once, detail: format!("after {PASSES_MAX} passes something is due") })
    }

    /// A lease of a team that waits has what it waits for when it was told, late by what a stop may take.
    fn waiting(&self) -> Checked {
        for (id, lease) in self.world.snapshot.leases.iter().filter(|(_, lease)| lease.stage == LeaseStage::Pending) {
            let memory = &self.world.memory[id];
            let in_time = memory.ready_at.is_some_and(|at| self.world.now <= at.plus(GRACE).plus(SLACK));
            hold(Rule::InTime, in_time || memory.is_damaged, || format!("{lease:?} waits at {}: {memory:?}", self.world.now))?;
        }
        Ok(())
    }

    fn act(&mut self, action: &Action) -> Checked {
        let now = self.world.now;
        let found = self.world.snapshot.leases.get(&action.lease).filter(|lease| lease.generation == action.generation);
        let lease = found.cloned().ok_or_else(|| Broken { rule: Rule::Exists, detail: format!("{action:?}") })?;
        let devices = self.world.memory[&lease.id].devices.clone();
        match action.kind {
            ActionKind::Activate => self.activate(&lease.id, &devices)?,
            ActionKind::BeginEnding { reason, deadline } => {
                if reason == EndReason::Reclaimed {
                    let breaks = lease.stake.ordered.is_some_and(|end| end.breaks_promise && end.tell_at <= now);
                    hold(Rule::FirmStays, lease.notice != NoticeClass::Firm, || format!("{action:?} of {lease:?}"))?;
                    let is_kept = breaks || Some(deadline) >= check::earliest_end(&lease, now);
                    hold(Rule::NoticeKept, is_kept && lease.holder == Holder::External, || {
                        format!("{action:?} of {lease:?} at {now}")
                    })?;
                }
                let has_begun = self.world.begin_ending(&lease.id, reason, deadline);
                hold(Rule::Once, has_begun, || format!("{action:?} of {lease:?}"))?;
            }
            ActionKind::Stop => {
                let is_due = matches!(lease.stage, LeaseStage::Ending { deadline, .. } if deadline <= now);
                hold(Rule::NoticeKept, is_due && lease.busy, || format!("{action:?} of {lease:?} at {now}"))?;
                // Some are gone at once, some only when they are killed.
                let takes = [0, 3_000, GRACE.millis()][usize::try_from(lease.units % 3).unwrap()];
                match takes {
                    0 => self.world.set_busy(&lease.id, false),
                    _ => self.world.memory.entry(lease.id).or_default().gone_at = Some(now.plus(DurationMs::from_millis(takes))),
                }
            }
            ActionKind::Release => {
                let may_go = matches!(lease.stage, LeaseStage::Ending { .. }) && !lease.busy;
                hold(Rule::SoldOnce, may_go, || format!("{action:?} of {lease:?}"))?;
                for device in &mut self.world.snapshot.devices {
                    for user in [&mut device.used_by, &mut device.promised_to] {
                        user.take_if(|user| *user == lease.id);
                    }
                }
                self.world.snapshot.leases.remove(&lease.id);
                self.world.memory.remove(&lease.id);
                self.count("ended");
            }
        }
        self.count(match action.kind {
            ActionKind::Activate => "activated",
            ActionKind::BeginEnding { reason: EndReason::Reclaimed, .. } => "taken back",
            ActionKind::BeginEnding { .. } => "told otherwise",
            ActionKind::Stop => "stopped",
            ActionKind::Release => "released",
        });
        Ok(())
    }

    fn activate(&mut self, id: &LeaseId, devices: &[DeviceId]) -> Checked {
        let now = self.world.now;
        for device in self.world.devices_of(devices) {
            let is_there =
                device.used_by.is_none() && device.promised_to.as_ref() == Some(id) && device.health != DeviceHealth::Lost;
            hold(Rule::SoldOnce, is_there, || format!("{id} begins on {device:?}"))?;
            device.used_by = device.promised_to.take();
        }
        let memory = self.world.memory.get_mut(id).ok_or_else(|| Broken { rule: Rule::Exists, detail: id.to_string() })?;
        memory.ready_at = None;
        if let Some(lease) = self.world.snapshot.leases.get_mut(id) {
            let waited = now.since(lease.starts_at);
            lease.stage = LeaseStage::Active;
            (lease.starts_at, lease.unused_since) = (now, Some(now));
            lease.ends_at = lease.ends_at.map(|ends_at| ends_at.plus(waited));
            lease.generation += 1;
        }
        Ok(())
    }

    /// What is taken back because of levels is beyond them, and no more than that; and not while nothing changes.
    fn surplus(&self, actions: &[Action], is_calm: bool) -> Checked {
        let world = &self.world;
        let mut by_class: BTreeMap<_, Vec<&LeaseId>> = BTreeMap::new();
        for action in
            actions.iter().filter(|action| matches!(action.kind, ActionKind::BeginEnding { reason: EndReason::Reclaimed, .. }))
        {
            let Some(lease) = world.snapshot.leases.get(&action.lease) else {
                continue;
            };
            if lease.stake.ordered.is_some_and(|end| end.tell_at <= world.now) {
                continue;
            }
            let site =
                world.snapshot.devices.iter().find(|device| device.used_by.as_ref() == Some(&lease.id)).map(|device| &device.site);
            hold(Rule::Calm, !is_calm, || format!("{action:?} of {lease:?}"))?;
            by_class.entry((&lease.kind, site, lease.notice)).or_default().push(&lease.id);
        }
        for ((kind, site, class), leases) in by_class {
            let level = site.and_then(|site| self.stays(&Pool { kind: kind.clone(), site: site.clone() }, class));
            let told = || format!("{leases:?} at level {level:?} of {class}");
            let (Some(site), Some(level)) = (site, level) else {
                return hold(Rule::NobodyInVain, false, told);
            };
            let beyond = committed(world, (kind, site), class).saturating_sub(level);
            let units = |id: &LeaseId| {
                let counts = |device: &&DeviceView| device.used_by.as_ref() == Some(id) && device.health == DeviceHealth::Healthy;
                u32::try_from(world.snapshot.devices.iter().filter(counts).filter(|device| device.promised_to.is_none()).count())
                    .unwrap()
            };
            let freed: u32 = leases.iter().map(|id| units(id)).sum();
            let all_needed = leases.iter().all(|id| freed - units(id) < beyond);
            hold(Rule::NobodyInVain, all_needed, told)?;
        }
        Ok(())
    }

    /// What may stay of a class, where anything is given back: its level if that was learned, else what the owner leaves.
    fn stays(&self, pool: &Pool, class: NoticeClass) -> Option<u32> {
        let selling = &self.world.snapshot.selling;
        let view = selling.pools.get(pool).copied().unwrap_or_default();
        let is_owners = |id: &LeaseId| self.world.snapshot.leases[id].holder == Holder::Internal;
        let left = self.world.snapshot.devices.iter().filter(|device| {
            let is_there = device.kind == pool.kind && device.site == pool.site && device.health == DeviceHealth::Healthy;
            let is_kept = device.held && device.used_by.is_none() && device.promised_to.is_none();
            is_there && !is_kept && !device.used_by.iter().chain(&device.promised_to).any(is_owners)
        });
        // What is used outside counts once, also where it is of what is held.
        let outside = view.outside.saturating_sub(check::outside_held(&self.world, pool));
        let left = u32::try_from(left.count()).unwrap().saturating_sub(outside);
        let place = NoticeClass::ALL.into_iter().position(|one| one == class)?;
        let stays = match view.curve {
            Curve::Fresh(levels) if matches!(levels[place].reason, LevelReason::LittleSeen { .. }) => left,
            Curve::Fresh(levels) => levels[place].units,
            Curve::Missing | Curve::Stale => left,
        };
        (selling.mode == SellingMode::Learned).then_some(stays)
    }

    /// What is shown is placed as shown; nothing more would be; and what is said to work instead does.
    fn quote(&mut self, wish: &Wish) -> Checked {
        for holder in [Holder::External, Holder::Internal] {
            let (request, snapshot) = (World::request(wish, holder), &self.world.snapshot);
            let (shown, most) = (self.decider.available(snapshot, &request), check::most(&self.world, &request));
            hold(Rule::QuoteHolds, shown == most, || format!("{shown} are shown, and {most} can be had: {request:?}"))?;
            let of = |units| Request { units, ..request.clone() };
            if shown > 0 {
                let placed = self.decider.place(snapshot, &of(shown));
                let placed = placed.map_err(|refusal| Broken { rule: Rule::QuoteHolds, detail: format!("{refusal:?}") })?;
                check::placement(&self.world, &of(shown), &placed)?;
            }
            let beyond = self.decider.place(snapshot, &of(shown + 1));
            if let Ok(placed) = &beyond {
                check::placement(&self.world, &of(shown + 1), placed)?;
            }
            let Err(refusal) = beyond else {
                return hold(Rule::QuoteHolds, false, || format!("{beyond:?} of {shown}"));
            };
            for instead in refusal.alternatives.iter().map(|instead| instead.of(&of(shown + 1))) {
                hold(Rule::QuoteHolds, place(snapshot, &instead).is_ok(), || format!("{instead:?} instead of {request:?}"))?;
                hold(Rule::QuoteHolds, check::most(&self.world, &instead) >= instead.units, || format!("{instead:?}"))?;
            }
        }
        Ok(())
    }

    /// The same question has the same answer, wherever its devices stand in the list.
    fn repeat(&self, place: usize) -> Checked {
        let (snapshot, now) = (&self.world.snapshot, self.world.now);
        let mut turned = snapshot.clone();
        let number = turned.devices.len();
        turned.devices.rotate_left(place % number);
        hold(Rule::Same, self.decider.plan(snapshot, now) == self.decider.plan(&turned, now), || format!("the plan at {now}"))
    }
}
