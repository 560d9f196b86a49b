//! What has to be done about leases at an instant. The executor does it by generation, so a plan
//! made from an old snapshot changes nothing.

use std::collections::BTreeMap;

use sublet_core::Timestamp;
use sublet_core::device::DeviceHealth;
use sublet_core::id::LeaseId;
use sublet_core::lease::EndReason;

use crate::curve::surplus;
use crate::snapshot::{Cover, CoverBound, LeaseStage, LeaseView, Snapshot};

/// One step of one lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Action {
    pub lease: LeaseId,
    /// The step is for the lease as it was then.
    pub generation: i64,
    pub kind: ActionKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ActionKind {
    /// Its promised devices are free: it begins.
    Activate,
    /// Tell its holder that it ends by then.
    BeginEnding { reason: EndReason, deadline: Timestamp },
    /// Its deadline has come: stop what runs.
    Stop,
    /// Nothing of it runs: give its devices back.
    Release,
}

/// The steps that are due, in the order of the leases' ids: at most one for each.
pub fn plan(snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
    let devices = devices_of_leases(snapshot);
    let nothing = LeaseDevices::default();
    let surplus = surplus(snapshot, now);
    snapshot
        .leases
        .values()
        .filter_map(|lease| {
            let step = step(snapshot, lease, devices.get(&lease.id).unwrap_or(&nothing), now);
            let kind = sooner(step, surplus.get(&lease.id).copied())?;
            Some(Action { lease: lease.id.clone(), generation: lease.generation, kind })
        })
        .collect()
}

/// The step of a lease that is beyond its pool's level: it ends with the notice it was sold, unless it ends sooner anyway.
fn sooner(step: Option<ActionKind>, surplus_by: Option<Timestamp>) -> Option<ActionKind> {
    let given_back = surplus_by.map(|deadline| ActionKind::BeginEnding { reason: EndReason::Reclaimed, deadline });
    match (step, surplus_by) {
        (Some(ActionKind::BeginEnding { deadline, .. }), Some(surplus_by)) if surplus_by < deadline => given_back,
        (None, _) => given_back,
        (Some(step), _) => Some(step),
    }
}

/// What a plan has to know of a lease's devices, gathered in one pass over the fleet.
#[derive(Default)]
struct LeaseDevices {
    used_lost: bool,
    promised_lost: bool,
    promised_free: u32,
}

fn devices_of_leases(snapshot: &Snapshot) -> BTreeMap<&LeaseId, LeaseDevices> {
    let mut leases: BTreeMap<&LeaseId, LeaseDevices> = BTreeMap::new();
    for device in &snapshot.devices {
        let lost = device.health == DeviceHealth::Lost;
        if let Some(lease) = &device.used_by {
            leases.entry(lease).or_default().used_lost |= lost;
        }
        if let Some(lease) = &device.promised_to {
            let promised = leases.entry(lease).or_default();
            promised.promised_lost |= lost;
            promised.promised_free += u32::from(device.used_by.is_none());
        }
    }
    leases
}

fn step(snapshot: &Snapshot, lease: &LeaseView, devices: &LeaseDevices, now: Timestamp) -> Option<ActionKind> {
    let ending = |(reason, deadline)| ActionKind::BeginEnding { reason, deadline };
    match &lease.stage {
        LeaseStage::Pending if devices.promised_lost => Some(ending((EndReason::DeviceLost, now))),
        LeaseStage::Pending => (devices.promised_free >= lease.units).then_some(ActionKind::Activate),
        LeaseStage::Active => end_of_active(snapshot, lease, devices, now).map(ending),
        LeaseStage::Ending { .. } if !lease.busy => Some(ActionKind::Release),
        LeaseStage::Ending { deadline, .. } => {
            // It was told to stop by a later deadline, but something more urgent came up.
            let sooner = end_of_active(snapshot, lease, devices, now).filter(|(_, sooner)| sooner < deadline);
            sooner.map(ending).or((now >= *deadline).then_some(ActionKind::Stop))
        }
    }
}

/// The most urgent reason why a lease has to end, with its deadline.
fn end_of_active(snapshot: &Snapshot, lease: &LeaseView, devices: &LeaseDevices, now: Timestamp) -> Option<(EndReason, Timestamp)> {
    if devices.used_lost {
        return Some((EndReason::DeviceLost, now));
    }
    if lease.job_over {
        return Some((EndReason::JobEnded, now));
    }
    let ends = [
        end_of_window(snapshot, lease, now),
        end_of_cover(snapshot, lease, now),
        end_of_unused(snapshot, lease, now),
        end_by_order(lease, now),
    ];
    ends.into_iter().flatten().min_by_key(|(_, deadline)| *deadline)
}

/// An order takes it back. Whoever is told later than was planned still gets the notice, unless the order breaks it.
fn end_by_order(lease: &LeaseView, now: Timestamp) -> Option<(EndReason, Timestamp)> {
    let ordered = lease.stake.ordered.filter(|ordered| now >= ordered.tell_at)?;
    let deadline = match lease.reclaim_deadline(now) {
        Some(earliest) if !ordered.breaks_promise => ordered.deadline.max(earliest),
        Some(_) => ordered.deadline.max(now),
        None => return None,
    };
    Some((EndReason::Reclaimed, deadline))
}

fn end_of_window(snapshot: &Snapshot, lease: &LeaseView, now: Timestamp) -> Option<(EndReason, Timestamp)> {
    let ends_at = lease.ends_at?;
    (now.plus(snapshot.terms.stop_notice(lease.notice)) >= ends_at).then_some((EndReason::WindowOver, ends_at))
}

/// A workload is told early enough to have the notice it was sold, and stopped early enough that
/// its last moment is paid for.
fn end_of_cover(snapshot: &Snapshot, lease: &LeaseView, now: Timestamp) -> Option<(EndReason, Timestamp)> {
    let Cover { until, bound } = lease.cover?;
    let reason = match bound {
        CoverBound::Open => return None,
        CoverBound::Budget => EndReason::Budget,
        CoverBound::MaximumCost => EndReason::MaximumCost,
        CoverBound::MaximumPrice => EndReason::MaximumPrice,
    };
    let deadline = until.minus(snapshot.terms.grace).minus(snapshot.terms.slack);
    (now.plus(snapshot.terms.stop_notice(lease.notice)) >= deadline).then_some((reason, deadline.max(now)))
}

fn end_of_unused(snapshot: &Snapshot, lease: &LeaseView, now: Timestamp) -> Option<(EndReason, Timestamp)> {
    let since = lease.unused_since?;
    (now >= since.plus(snapshot.terms.unused_max)).then_some((EndReason::Unused, now))
}
