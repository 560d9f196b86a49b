//! Planners as they are written first. Each is wrong in one way that a check has to find.

use std::sync::atomic::{AtomicU32, Ordering};

use sublet_capacity::{
    Action, ActionKind, LeaseStage, Placement, ReclaimPlan, Refusal, RefusalReason, Request, Snapshot, Victim, available, figures,
    place, place_with_reclaim, plan,
};
use sublet_core::Timestamp;
use sublet_core::device::DeviceHealth;
use sublet_core::lease::{EndReason, Holder};
use sublet_core::notice::NoticeClass;

use super::check::Rule;
use super::decider::Decider;

type Variant = (&'static str, Box<dyn Decider>, &'static [Rule]);

pub fn variants() -> Vec<Variant> {
    vec![
        ("sells the sum of fragments", Box::new(SumOfFragments), &[Rule::QuoteHolds]),
        ("sells what is promised", Box::new(SellsTwice), &[Rule::SoldOnce]),
        ("sells what is kept", Box::new(SellsReserve), &[Rule::KeptBack]),
        ("evicts the first it finds", Box::new(FirstFound), &[Rule::NobodyInVain]),
        ("evicts before it knows", Box::new(EvictsFirst), &[Rule::FitsFirst]),
        ("evicts firm leases", Box::new(EvictsFirm), &[Rule::FirmStays]),
        ("forgets the notice", Box::new(NoNotice), &[Rule::NoticeKept]),
        ("forgets orders", Box::new(ForgetsOrders), &[Rule::InTime]),
        ("tells again", Box::new(TellsAgain), &[Rule::Once]),
        ("gives back at every pass", Box::new(Restless), &[Rule::Calm]),
        ("acts for a lease that is over", Box::new(Ghost), &[Rule::Exists]),
        ("follows the list of devices", Box::new(ByList), &[Rule::Same]),
        ("answers by the number of the question", Box::new(Moody(AtomicU32::new(0))), &[Rule::Same]),
    ]
}

struct SumOfFragments;
impl Decider for SumOfFragments {
    fn available(&self, snapshot: &Snapshot, request: &Request) -> u32 {
        let sellable = figures(snapshot, &request.kind).sellable(request.holder, request.notice);
        if available(snapshot, request).units == 0 { 0 } else { sellable }
    }
}

/// A snapshot in which something is free that is not.
fn changed(snapshot: &Snapshot, change: impl Fn(&mut Snapshot)) -> Snapshot {
    let mut changed = snapshot.clone();
    change(&mut changed);
    changed
}

struct SellsTwice;
impl Decider for SellsTwice {
    fn place(&self, snapshot: &Snapshot, request: &Request) -> Result<Placement, Refusal> {
        place(&changed(snapshot, |all| all.devices.iter_mut().for_each(|device| device.promised_to = None)), request)
    }
}

struct SellsReserve;
impl Decider for SellsReserve {
    fn place(&self, snapshot: &Snapshot, request: &Request) -> Result<Placement, Refusal> {
        place(&changed(snapshot, |all| all.terms.reserve = sublet_capacity::ReserveRule::default()), request)
    }
}

/// Leases of a machine that may be ended, in the order of its devices, until there is enough or none is left.
fn greedy(snapshot: &Snapshot, request: &Request, now: Timestamp, may_go: impl Fn(NoticeClass) -> bool) -> Option<ReclaimPlan> {
    let first = snapshot.devices.iter().find(|device| device.kind == request.kind && device.used_by.is_some())?;
    let mut plan = ReclaimPlan {
        site: first.site.clone(),
        node: first.node.clone(),
        devices: Vec::new(),
        victims: Vec::new(),
        free_now: false,
        ready_at: now,
    };
    for device in snapshot.devices.iter().filter(|device| device.node == first.node && device.kind == request.kind) {
        if device.promised_to.is_some() || device.health != DeviceHealth::Healthy {
            continue;
        }
        let Some(lease) = device.used_by.as_ref().and_then(|id| snapshot.leases.get(id)) else {
            plan.devices.push(device.id.clone());
            continue;
        };
        let is_customers = lease.holder == Holder::External && lease.stage == LeaseStage::Active && may_go(lease.notice);
        let deadline = lease.reclaim_deadline(now).unwrap_or(now);
        if is_customers {
            plan.devices.push(device.id.clone());
            plan.ready_at = plan.ready_at.max(deadline);
            if plan.victims.iter().all(|victim| victim.lease != lease.id) {
                let (lease, generation, notice) = (lease.id.clone(), lease.generation, lease.notice);
                plan.victims.push(Victim { lease, generation, notice, deadline });
            }
        }
    }
    Some(plan)
}

struct FirstFound;
impl Decider for FirstFound {
    fn reclaim(&self, snapshot: &Snapshot, request: &Request, now: Timestamp) -> Result<ReclaimPlan, RefusalReason> {
        let found = place_with_reclaim(snapshot, request, now).map_err(|refusal| refusal.reason)?;
        let wanted = usize::try_from(request.units).unwrap();
        let is_open = request.site.is_none() && request.isolation == sublet_core::runner::IsolationLevel::Process;
        let greedy = greedy(snapshot, request, now, |notice| notice != NoticeClass::Firm);
        match greedy.filter(|plan| is_open && !found.victims.is_empty() && plan.devices.len() >= wanted) {
            None => Ok(found),
            Some(mut plan) => {
                plan.devices.reverse();
                plan.devices.truncate(wanted);
                Ok(plan)
            }
        }
    }
}

struct EvictsFirst;
impl Decider for EvictsFirst {
    fn reclaim(&self, snapshot: &Snapshot, request: &Request, now: Timestamp) -> Result<ReclaimPlan, RefusalReason> {
        place_with_reclaim(snapshot, request, now).or_else(|refusal| {
            let plan = greedy(snapshot, request, now, |notice| notice != NoticeClass::Firm);
            plan.filter(|plan| !plan.victims.is_empty() && request.units > 0).ok_or(refusal.reason)
        })
    }
}

struct EvictsFirm;
impl Decider for EvictsFirm {
    fn reclaim(&self, snapshot: &Snapshot, request: &Request, now: Timestamp) -> Result<ReclaimPlan, RefusalReason> {
        place_with_reclaim(snapshot, request, now).or_else(|refusal| {
            let plan = greedy(snapshot, request, now, |_| true);
            let has_firm = |plan: &ReclaimPlan| plan.victims.iter().any(|victim| victim.notice == NoticeClass::Firm);
            plan.filter(|plan| has_firm(plan)).ok_or(refusal.reason)
        })
    }
}

struct NoNotice;
impl Decider for NoNotice {
    fn reclaim(&self, snapshot: &Snapshot, request: &Request, now: Timestamp) -> Result<ReclaimPlan, RefusalReason> {
        let mut plan = place_with_reclaim(snapshot, request, now).map_err(|refusal| refusal.reason)?;
        plan.victims.iter_mut().for_each(|victim| victim.deadline = now);
        Ok(plan)
    }
}

struct ForgetsOrders;
impl Decider for ForgetsOrders {
    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
        plan(&changed(snapshot, |all| all.leases.values_mut().for_each(|lease| lease.stake.ordered = None)), now)
    }
}

/// The plan, and another action.
fn with(snapshot: &Snapshot, now: Timestamp, more: impl FnOnce(&[Action]) -> Option<Action>) -> Vec<Action> {
    let mut actions = plan(snapshot, now);
    actions.extend(more(&actions));
    actions.sort_by(|a, b| a.lease.cmp(&b.lease));
    actions
}

struct TellsAgain;
impl Decider for TellsAgain {
    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
        with(snapshot, now, |actions| {
            let told = snapshot.leases.values().find(|lease| {
                matches!(lease.stage, LeaseStage::Ending { .. }) && actions.iter().all(|action| action.lease != lease.id)
            })?;
            let LeaseStage::Ending { reason, deadline } = told.stage else { return None };
            let kind = ActionKind::BeginEnding { reason, deadline };
            Some(Action { lease: told.id.clone(), generation: told.generation, kind })
        })
    }
}

struct Restless;
impl Decider for Restless {
    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
        with(snapshot, now, |actions| {
            let sold = snapshot.leases.values().find(|lease| {
                let is_sold = lease.holder == Holder::External && lease.stage == LeaseStage::Active;
                is_sold && lease.starts_at == now && actions.iter().all(|action| action.lease != lease.id)
            })?;
            let kind = ActionKind::BeginEnding { reason: EndReason::Reclaimed, deadline: sold.reclaim_deadline(now)? };
            Some(Action { lease: sold.id.clone(), generation: sold.generation, kind })
        })
    }
}

struct Ghost;
impl Decider for Ghost {
    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
        with(snapshot, now, |_| {
            let lease = "lease_000000".parse().unwrap();
            Some(Action { lease, generation: 1, kind: ActionKind::Stop })
        })
    }
}

struct ByList;
impl Decider for ByList {
    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
        let mut actions = plan(snapshot, now);
        let is_turned = snapshot.devices.first().is_some_and(|first| first.id.as_str() != "dev_00");
        if is_turned && let Some(lease) = snapshot.leases.values().next() {
            actions.push(Action { lease: lease.id.clone(), generation: lease.generation, kind: ActionKind::Stop });
        }
        actions
    }
}

/// Its answers depend on how often it was asked.
struct Moody(AtomicU32);
impl Decider for Moody {
    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
        let asked = self.0.fetch_add(1, Ordering::Relaxed);
        let mut actions = plan(snapshot, now);
        if asked % 2 == 1 {
            actions.pop();
        }
        actions
    }
}
