//! Taking capacity back for a lease of the owner's team.
//!
//! Only leases of customers with notice are victims. It is proven on each machine that the newcomer fits once its victims
//! are gone; the machine with the best choice of victims is taken, and nobody is a victim in vain.

use sublet_core::Timestamp;
use sublet_core::id::{DeviceId, LeaseId, NodeId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;

use crate::index::{FleetIndex, MachineIndex};
use crate::place::{Request, check_possible, refuse, try_place};
use crate::refusal::{Refusal, RefusalReason};
use crate::reserve::figures;
use crate::snapshot::{DeviceView, LeaseStage, Snapshot, count};
use crate::victim::{self, Candidate, Choice, Tier, cover};

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
    let wanted = |machine: &&MachineIndex<'_>| {
        machine.isolation >= request.isolation && request.site.as_ref().is_none_or(|site| machine.site == site)
    };
    let machines: Vec<Machine<'_>> =
        index.machines(&request.kind).iter().filter(wanted).map(|machine| Machine::new(machine, now)).collect();
    let largest_after = machines.iter().map(Machine::reachable).max().unwrap_or(0);
    let units = usize::try_from(request.units).unwrap_or(usize::MAX);
    let solved = machines.iter().filter_map(|machine| Some((machine.solve(units)?, machine)));
    let best = solved.min_by(|((one, choice), machine), ((other, other_choice), other_machine)| {
        let order = (one, choice.loss, choice.count).cmp(&(other, other_choice.loss, other_choice.count));
        let ready = |machine: &Machine<'_>, choice: &Choice| machine.ready_at(choice, units, now);
        order
            .then_with(|| ready(machine, choice).cmp(&ready(other_machine, other_choice)))
            .then_with(|| machine.node.cmp(other_machine.node))
    });
    let ((_, choice), machine) = best.ok_or(RefusalReason::NotReclaimable { largest_after })?;
    Ok(machine.plan(&choice, units, now))
}

/// One machine's devices of the wanted kind, by how they could be had.
struct Machine<'a> {
    site: &'a SiteId,
    node: &'a NodeId,
    idle: &'a [&'a DeviceView],
    /// Given back without any doing of ours, with when.
    leaving: Vec<(&'a DeviceView, Timestamp)>,
    /// Leases that may be ended, best victim first.
    candidates: Vec<Candidate<'a>>,
}

impl<'a> Machine<'a> {
    fn new(machine: &'a MachineIndex<'a>, now: Timestamp) -> Self {
        let (mut leaving, mut candidates) = (Vec::new(), Vec::new());
        for tenant in &machine.tenants {
            let lease = tenant.lease;
            match (&lease.stage, lease.holder, lease.reclaim_deadline(now)) {
                (LeaseStage::Ending { deadline, .. }, ..) => {
                    leaving.extend(tenant.devices.iter().map(|device| (*device, *deadline)));
                }
                (LeaseStage::Active, Holder::External, Some(deadline)) => {
                    let tier = Tier { breaks_promise: false, notice: lease.notice };
                    let loss = victim::loss(lease, tier, deadline);
                    candidates.push(Candidate { lease, deadline, tier, loss, devices: tenant.devices.clone() });
                }
                // Firm leases and the owner's own are never victims.
                (LeaseStage::Active | LeaseStage::Pending, Holder::External | Holder::Internal, _) => {}
            }
        }
        leaving.sort_by(|a, b| (a.1, &a.0.id).cmp(&(b.1, &b.0.id)));
        victim::sort(&mut candidates);
        Self { site: machine.site, node: machine.node, idle: &machine.idle, leaving, candidates }
    }

    /// All units that could be had here.
    fn reachable(&self) -> u32 {
        let sold: usize = self.candidates.iter().map(|one| one.devices.len()).sum();
        count(self.idle.len() + self.leaving.len() + sold)
    }

    /// The victims that make so many units fit here, with the longest notice among them; `None` if they never do.
    fn solve(&self, units: usize) -> Option<(Option<Tier>, Choice)> {
        let needed = units.saturating_sub(self.idle.len() + self.leaving.len());
        if needed == 0 {
            return Some((None, cover(&[], 0)?));
        }
        let mut allowed: Vec<&Candidate<'_>> = Vec::with_capacity(self.candidates.len());
        let mut freed = 0;
        // They come by notice: each is added with all of its own, as soon as that is enough.
        for (place, candidate) in self.candidates.iter().enumerate() {
            allowed.push(candidate);
            freed += candidate.devices.len();
            let is_last = self.candidates.get(place + 1).is_none_or(|next| next.tier > candidate.tier);
            if is_last && freed >= needed {
                return Some((Some(candidate.tier), cover(&allowed, needed)?));
            }
        }
        None
    }

    /// The devices with when they are free, those that are free soonest without anybody's loss first.
    fn devices<'c>(
        &'c self,
        choice: &'c Choice,
        units: usize,
        now: Timestamp,
    ) -> impl Iterator<Item = (&'c DeviceView, Timestamp)> {
        let chosen = choice.chosen.iter().map(|place| &self.candidates[*place]);
        let freed = chosen.flat_map(|one| one.devices.iter().map(|device| (*device, one.deadline)));
        let free = self.idle.iter().map(move |device| (*device, now));
        free.chain(self.leaving.iter().copied()).chain(freed).take(units)
    }

    fn ready_at(&self, choice: &Choice, units: usize, now: Timestamp) -> Timestamp {
        self.devices(choice, units, now).map(|(_, at)| at).max().unwrap_or(now).max(now)
    }

    fn plan(&self, choice: &Choice, units: usize, now: Timestamp) -> ReclaimPlan {
        let victims = choice.chosen.iter().map(|place| {
            let Candidate { lease, deadline, .. } = &self.candidates[*place];
            Victim { lease: lease.id.clone(), generation: lease.generation, notice: lease.notice, deadline: *deadline }
        });
        ReclaimPlan {
            site: self.site.clone(),
            node: self.node.clone(),
            devices: self.devices(choice, units, now).map(|(device, _)| device.id.clone()).collect(),
            victims: victims.collect(),
            free_now: self.idle.len() >= units,
            ready_at: self.ready_at(choice, units, now),
        }
    }
}
