//! A snapshot by kind and machine, made in one pass: what decisions about victims look at again and again.
//!
//! Everything of one kind lies side by side in memory, with copies of the little that a decision asks of each lease, so a
//! decision reads through it and follows no pointers. Machines, leases and devices are in the order of their ids, whatever
//! the order of the snapshot; what is held comes behind what is not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use sublet_core::Timestamp;
use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::id::{DeviceId, LeaseId, NodeId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;

use crate::snapshot::{DeviceView, LeaseStage, LeaseView, Snapshot, Stake, Terms, earliest_end};

/// A snapshot by kind and machine.
pub struct FleetIndex<'a> {
    pub(crate) terms: &'a Terms,
    kinds: BTreeMap<&'a DeviceKind, KindIndex<'a>>,
}

/// All machines with devices of one kind.
#[derive(Default)]
pub(crate) struct KindIndex<'a> {
    pub machines: Vec<MachineIndex<'a>>,
    tenants: Vec<Tenant<'a>>,
    devices: Vec<&'a DeviceView>,
}

/// One machine's devices of one kind.
pub(crate) struct MachineIndex<'a> {
    pub node: &'a NodeId,
    pub site: &'a SiteId,
    pub isolation: IsolationLevel,
    /// All of the kind, whatever is wrong with them.
    pub total: usize,
    /// Healthy, free, not promised.
    pub idle: Room,
    tenants: Range<usize>,
}

/// Devices of a kind that lie side by side: first those that nobody holds.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    place: Range<usize>,
    /// Those that nobody holds.
    pub open: usize,
}

impl Room {
    pub fn len(&self) -> usize {
        self.place.len()
    }
}

/// A lease with those of its devices here that are healthy and not promised to another.
pub(crate) struct Tenant<'a> {
    pub lease: &'a LeaseView,
    pub standing: Standing,
    pub room: Room,
}

/// What a decision about victims asks of a lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub holder: Holder,
    pub notice: NoticeClass,
    pub units: u32,
    pub is_active: bool,
    /// It was told that it ends then.
    pub told: Option<Timestamp>,
    pub starts_at: Timestamp,
    pub ends_at: Option<Timestamp>,
    pub stake: Stake,
}

impl Standing {
    pub fn of(lease: &LeaseView) -> Self {
        let told = match lease.stage {
            LeaseStage::Ending { deadline, .. } => Some(deadline),
            LeaseStage::Pending | LeaseStage::Active => None,
        };
        Self {
            holder: lease.holder,
            notice: lease.notice,
            units: lease.units,
            is_active: lease.stage == LeaseStage::Active,
            told,
            starts_at: lease.starts_at,
            ends_at: lease.ends_at,
            stake: lease.stake,
        }
    }
    /// As [`LeaseView::reclaim_deadline`].
    pub fn reclaim_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        earliest_end(self.notice, (self.starts_at, self.ends_at), now)
    }
}

impl<'a> FleetIndex<'a> {
    pub fn new(snapshot: &'a Snapshot) -> Self {
        // Only looked up, never walked: its order is nobody's.
        let leases: HashMap<&LeaseId, &LeaseView> = snapshot.leases.iter().collect();
        let mut places: HashMap<(&DeviceKind, &NodeId), usize> = HashMap::new();
        let mut machines: Vec<Vec<&DeviceView>> = Vec::new();
        let mut last: Option<(&DeviceView, usize)> = None;
        for device in &snapshot.devices {
            let place = match last {
                Some((known, place)) if known.node == device.node && known.kind == device.kind => place,
                _ => *places.entry((&device.kind, &device.node)).or_insert_with(|| {
                    machines.push(Vec::new());
                    machines.len() - 1
                }),
            };
            last = Some((device, place));
            machines[place].push(device);
        }
        machines.sort_by_key(|devices| devices.first().map(|device| &device.node));
        let occupied = used_outside(snapshot, &machines);
        let mut kinds: BTreeMap<&DeviceKind, KindIndex<'a>> = BTreeMap::new();
        for devices in machines {
            if let Some(first) = devices.first() {
                kinds.entry(&first.kind).or_default().add((first, &devices), &occupied, |id| leases.get(id).copied());
            }
        }
        Self { terms: &snapshot.terms, kinds }
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = &'a DeviceKind> {
        self.kinds.keys().copied()
    }
    pub(crate) fn of(&self, kind: &DeviceKind) -> Option<&KindIndex<'a>> {
        self.kinds.get(kind)
    }
    /// Where there are devices of a kind, in order.
    pub(crate) fn sites(&self, kind: &DeviceKind) -> Vec<&'a SiteId> {
        let mut sites: Vec<&SiteId> = Vec::new();
        for machine in self.kinds.get(kind).iter().flat_map(|kind| &kind.machines) {
            if !sites.contains(&machine.site) {
                sites.push(machine.site);
            }
        }
        sites.sort();
        sites
    }
}

impl<'a> KindIndex<'a> {
    pub fn devices(&self, room: &Room) -> &[&'a DeviceView] {
        &self.devices[room.place.clone()]
    }
    pub fn tenants(&self, machine: &MachineIndex<'a>) -> &[Tenant<'a>] {
        &self.tenants[machine.tenants.clone()]
    }

    fn add(
        &mut self,
        (first, devices): (&'a DeviceView, &[&'a DeviceView]),
        occupied: &HashSet<&DeviceId>,
        lease: impl Fn(&LeaseId) -> Option<&'a LeaseView>,
    ) {
        let is_usable = |device: &&DeviceView| {
            device.health == DeviceHealth::Healthy && device.promised_to.is_none() && !occupied.contains(&device.id)
        };
        let mut usable: Vec<&DeviceView> = devices.iter().copied().filter(is_usable).collect();
        // By their leases, in each first what is not held.
        usable.sort_by(|a, b| (&a.used_by, a.held, &a.id).cmp(&(&b.used_by, b.held, &b.id)));
        let idle = usable.iter().take_while(|device| device.used_by.is_none()).count();
        let (free, used) = usable.split_at(idle);
        let room = self.room(free);
        let from = self.tenants.len();
        for devices in used.chunk_by(|a, b| a.used_by == b.used_by) {
            // A device whose lease is not in the snapshot is in use by somebody: never free.
            if let Some(lease) = devices[0].used_by.as_ref().and_then(&lease) {
                let room = self.room(devices);
                self.tenants.push(Tenant { lease, standing: Standing::of(lease), room });
            }
        }
        self.machines.push(MachineIndex {
            node: &first.node,
            site: &first.site,
            isolation: first.isolation,
            total: devices.len(),
            idle: room,
            tenants: from..self.tenants.len(),
        });
    }

    fn room(&mut self, devices: &[&'a DeviceView]) -> Room {
        let from = self.devices.len();
        self.devices.extend(devices);
        Room { place: from..self.devices.len(), open: devices.iter().filter(|device| !device.held).count() }
    }
}

/// Idle devices that count as used outside, of which only the number is known: at each site the last ones that nobody
/// holds, then the last ones.
fn used_outside<'a>(snapshot: &Snapshot, machines: &[Vec<&'a DeviceView>]) -> HashSet<&'a DeviceId> {
    let mut occupied = HashSet::new();
    for (pool, view) in snapshot.selling.pools.iter().filter(|(_, view)| view.outside > 0) {
        let units = usize::try_from(view.outside).unwrap_or(usize::MAX);
        let all = machines.iter().flatten().copied();
        let mut idle: Vec<&DeviceView> =
            all.filter(|device| device.is_idle() && device.kind == pool.kind && device.site == pool.site).collect();
        idle.sort_by(|a, b| (a.held, &b.node, &b.id).cmp(&(b.held, &a.node, &a.id)));
        occupied.extend(idle.into_iter().take(units).map(|device| &device.id));
    }
    occupied
}
