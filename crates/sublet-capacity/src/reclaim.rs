//! Taking capacity back for the owner's own demand.
//!
//! Only leases of customers with notice are victims: the shortest notice first, among equals the
//! one that began last. It is proven on each machine that the newcomer fits once its victims are
//! gone; of the victims that a first pass names, those it fits without are dropped in reverse.

use std::collections::BTreeMap;

use sublet_core::Timestamp;
use sublet_core::device::DeviceHealth;
use sublet_core::id::{DeviceId, LeaseId, NodeId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;

use crate::place::{Request, check_possible, refuse, try_place};
use crate::refusal::{Refusal, RefusalReason};
use crate::reserve::figures;
use crate::snapshot::{DeviceView, LeaseStage, LeaseView, Snapshot, count};

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
    let machines = machines(snapshot, request, now);
    let largest_after = machines.values().map(Machine::reachable).max().unwrap_or(0);
    let best = machines.into_iter().filter_map(|(node, machine)| machine.solve(node, request.units, now)).min_by(|a, b| {
        let cost = |plan: &ReclaimPlan| {
            let dearest = plan.victims.iter().map(|victim| victim.notice).max();
            (dearest, plan.victims.len(), plan.ready_at, plan.node.clone())
        };
        cost(a).cmp(&cost(b))
    });
    best.ok_or(RefusalReason::NotReclaimable { largest_after })
}

/// One machine's devices of the wanted kind, by how they could be had.
struct Machine<'a> {
    site: &'a SiteId,
    idle: Vec<&'a DeviceView>,
    /// Given back without any doing of ours, with when.
    leaving: Vec<(&'a DeviceView, Timestamp)>,
    /// Leases that may be ended, best victim first, with their devices.
    victims: Vec<(&'a LeaseView, Timestamp, Vec<&'a DeviceView>)>,
}

fn machines<'a>(snapshot: &'a Snapshot, request: &Request, now: Timestamp) -> BTreeMap<&'a NodeId, Machine<'a>> {
    let mut machines: BTreeMap<&NodeId, Machine<'a>> = BTreeMap::new();
    for device in &snapshot.devices {
        let usable = device.health == DeviceHealth::Healthy && device.promised_to.is_none();
        if !usable || !request.accepts(device) {
            continue;
        }
        let machine = machines.entry(&device.node).or_insert_with(|| Machine {
            site: &device.site,
            idle: Vec::new(),
            leaving: Vec::new(),
            victims: Vec::new(),
        });
        match device.used_by.as_ref().map(|id| snapshot.lease(id)) {
            None => machine.idle.push(device),
            Some(Some(lease)) => machine.add_used(device, lease, now),
            Some(None) => {}
        }
    }
    for machine in machines.values_mut() {
        machine.idle.sort_by(|a, b| a.id.cmp(&b.id));
        machine.leaving.sort_by(|a, b| (a.1, &a.0.id).cmp(&(b.1, &b.0.id)));
        for (_, _, devices) in &mut machine.victims {
            devices.sort_by(|a, b| a.id.cmp(&b.id));
        }
        machine.victims.sort_by(|(a, ..), (b, ..)| {
            (a.notice, std::cmp::Reverse(a.starts_at), &a.id).cmp(&(b.notice, std::cmp::Reverse(b.starts_at), &b.id))
        });
    }
    machines
}

impl<'a> Machine<'a> {
    fn add_used(&mut self, device: &'a DeviceView, lease: &'a LeaseView, now: Timestamp) {
        match (&lease.stage, lease.holder, lease.reclaim_deadline(now)) {
            (LeaseStage::Ending { deadline, .. }, ..) => self.leaving.push((device, *deadline)),
            (LeaseStage::Active, Holder::External, Some(deadline)) => {
                match self.victims.iter_mut().find(|(victim, ..)| victim.id == lease.id) {
                    Some((_, _, devices)) => devices.push(device),
                    None => self.victims.push((lease, deadline, vec![device])),
                }
            }
            // Firm leases and the owner's own are never victims.
            (LeaseStage::Active | LeaseStage::Pending, Holder::External | Holder::Internal, _) => {}
        }
    }

    /// All units that could be had here.
    fn reachable(&self) -> u32 {
        let sold: usize = self.victims.iter().map(|(_, _, devices)| devices.len()).sum();
        count(self.idle.len() + self.leaving.len() + sold)
    }

    /// The devices and victims that make `units` fit here; `None` if they never do.
    fn solve(self, node: &NodeId, units: u32, now: Timestamp) -> Option<ReclaimPlan> {
        if self.reachable() < units {
            return None;
        }
        let units = usize::try_from(units).ok()?;
        let free_now = self.idle.len() >= units;
        let needed = units.saturating_sub(self.idle.len() + self.leaving.len());
        let mut chosen: Vec<&(&LeaseView, Timestamp, Vec<&DeviceView>)> = Vec::new();
        let mut freed = 0;
        for victim in &self.victims {
            if freed >= needed {
                break;
            }
            freed += victim.2.len();
            chosen.push(victim);
        }
        for index in (0..chosen.len()).rev() {
            let size = chosen[index].2.len();
            if freed - size >= needed {
                freed -= size;
                chosen.remove(index);
            }
        }
        let mut ready_at = now;
        let mut devices = Vec::with_capacity(units);
        let free = self.idle.iter().map(|device| (*device, now));
        let freed = chosen.iter().flat_map(|(_, deadline, devices)| devices.iter().map(|device| (*device, *deadline)));
        for (device, at) in free.chain(self.leaving.iter().copied()).chain(freed).take(units) {
            ready_at = ready_at.max(at);
            devices.push(device.id.clone());
        }
        let victims = chosen
            .iter()
            .map(|(lease, deadline, _)| Victim {
                lease: lease.id.clone(),
                generation: lease.generation,
                notice: lease.notice,
                deadline: *deadline,
            })
            .collect();
        Some(ReclaimPlan { site: self.site.clone(), node: node.clone(), devices, victims, free_now, ready_at })
    }
}
