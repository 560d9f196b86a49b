//! Taking capacity back for a lease of the owner's team.
//!
//! Only leases of customers with notice are victims. It is proven on each machine that the newcomer fits once its victims
//! are gone; the machine with the best choice of victims is taken, and nobody is a victim in vain.

use sublet_core::Timestamp;
use sublet_core::id::{DeviceId, LeaseId, NodeId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;

use crate::index::{FleetIndex, MachineIndex, Standing};
use crate::market::{Access, Candidate, Fate, Market, Supply};
use crate::place::{Request, check_possible, refuse, try_place};
use crate::refusal::{Refusal, RefusalReason};
use crate::reserve::figures;
use crate::snapshot::{DeviceView, Snapshot, count};
use crate::victim::{Choice, Tier};

/// A lease that has to end for the newcomer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Victim {
    pub lease: LeaseId,
    pub generation: i64,
    pub notice: NoticeClass,
    /// Not before the notice that was sold.
    pub deadline: Timestamp,
}

/// How a request of the owner's team fits after all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReclaimPlan {
    pub site: SiteId,
    pub node: NodeId,
    /// Devices to promise to the newcomer: free ones, those of the victims, those that end anyway.
    pub devices: Vec<DeviceId>,
    /// Empty if the request fits without taking anything back.
    pub victims: Vec<Victim>,
    /// All devices are free at this moment.
    pub free_now: bool,
    /// When the last of the devices is free at the latest, without the grace.
    pub ready_at: Timestamp,
}

/// Places a request of the owner's team, taking back what is needed and no more.
///
/// # Errors
/// A refusal: the request is not internal and does not fit, or nothing that may be taken back is enough.
pub fn place_with_reclaim(snapshot: &Snapshot, request: &Request, now: Timestamp) -> Result<ReclaimPlan, Refusal> {
    try_place_with_reclaim(snapshot, request, now).map_err(|reason| refuse(snapshot, request, reason))
}

/// As [`place_with_reclaim`], and only why not.
pub fn try_place_with_reclaim(snapshot: &Snapshot, request: &Request, now: Timestamp) -> Result<ReclaimPlan, RefusalReason> {
    let reason = match try_place(snapshot, request) {
        Ok(placement) => {
            let (site, node, devices) = (placement.site, placement.node, placement.devices);
            return Ok(ReclaimPlan { site, node, devices, victims: Vec::new(), free_now: true, ready_at: now });
        }
        Err(reason) => reason,
    };
    let all_figures = figures(snapshot, &request.kind);
    if request.holder == Holder::External || check_possible(snapshot, request, &all_figures).is_err() {
        return Err(reason);
    }
    take_back(&FleetIndex::new(snapshot), request, now)
}

/// The machine whose victims are the best choice, for a request that does not fit into what is free.
///
/// # Errors
/// Not even everything that may be taken back would be enough on one machine.
pub fn take_back(index: &FleetIndex<'_>, request: &Request, now: Timestamp) -> Result<ReclaimPlan, RefusalReason> {
    let Some(kind) = index.of(&request.kind) else { return Err(RefusalReason::NotReclaimable { largest_after: 0 }) };
    let wanted = |machine: &MachineIndex<'_>| {
        machine.isolation >= request.isolation && request.site.as_ref().is_none_or(|site| machine.site == site)
    };
    let market = Market::new(kind, Access::All, wanted, |tenant| fate(&tenant.standing, now));
    let units = usize::try_from(request.units).unwrap_or(usize::MAX);
    let ready = |supply: &Supply<'_, '_>, choice: &Choice| devices(&market, (supply, choice), units, now).map(|(_, at)| at).max();
    let best = market.best_machines(units, 1, ready).and_then(|best| best.into_iter().next());
    let Some((at, choice)) = best else {
        let largest = market.supplies.iter().map(|supply| supply.reachable).max().unwrap_or(0);
        return Err(RefusalReason::NotReclaimable { largest_after: count(largest) });
    };
    let supply = &market.supplies[at];
    let victims = choice.chosen.iter().map(|place| {
        let Candidate { tenant, deadline, .. } = market.candidates_of(supply)[*place];
        let lease = tenant.lease;
        Victim { lease: lease.id.clone(), generation: lease.generation, notice: lease.notice, deadline }
    });
    let taken: Vec<(&DeviceView, Timestamp)> = devices(&market, (supply, &choice), units, now).collect();
    Ok(ReclaimPlan {
        site: supply.machine.site.clone(),
        node: supply.machine.node.clone(),
        devices: taken.iter().map(|(device, _)| device.id.clone()).collect(),
        victims: victims.collect(),
        free_now: supply.machine.idle.len() >= units,
        ready_at: taken.iter().map(|(_, at)| *at).max().unwrap_or(now).max(now),
    })
}

/// Firm leases and the owner's own are never victims.
fn fate(lease: &Standing, now: Timestamp) -> Fate {
    match (lease.told, lease.holder, lease.reclaim_deadline(now)) {
        (Some(deadline), ..) => Fate::Leaves(deadline),
        (None, Holder::External, Some(deadline)) if lease.is_active => {
            Fate::MayEnd { deadline, tier: Tier::new(lease, false, deadline) }
        }
        (None, Holder::External | Holder::Internal, _) => Fate::Stays,
    }
}

/// The devices with when they are free, those that come without anybody's loss first.
fn devices<'m, 'a>(
    market: &'m Market<'_, 'a>,
    (supply, choice): (&'m Supply<'_, 'a>, &'m Choice),
    units: usize,
    now: Timestamp,
) -> impl Iterator<Item = (&'a DeviceView, Timestamp)> {
    let chosen = choice.chosen.iter().map(|place| market.candidates_of(supply)[*place]);
    let freed = chosen.flat_map(|one| market.devices(&one.tenant.room).iter().map(move |device| (*device, one.deadline)));
    market.free_devices(supply, now).chain(freed).take(units)
}
