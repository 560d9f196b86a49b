//! A snapshot by kind and machine, made in one pass: what decisions about victims look at again and again.
//!
//! Machines, devices and leases are in the order of their ids, whatever the order of the snapshot.

use std::collections::{BTreeMap, HashMap};

use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::id::{LeaseId, NodeId, SiteId};
use sublet_core::runner::IsolationLevel;

use crate::snapshot::{DeviceView, LeaseView, Snapshot, Terms};

/// A snapshot by kind and machine.
pub struct FleetIndex<'a> {
    pub(crate) terms: &'a Terms,
    kinds: BTreeMap<&'a DeviceKind, Vec<MachineIndex<'a>>>,
}

/// One machine's devices of one kind.
pub(crate) struct MachineIndex<'a> {
    pub node: &'a NodeId,
    pub site: &'a SiteId,
    pub isolation: IsolationLevel,
    /// All of the kind, whatever is wrong with them.
    pub total: usize,
    /// Healthy, free, not promised.
    pub idle: Vec<&'a DeviceView>,
    pub tenants: Vec<Tenant<'a>>,
}

/// A lease with those of its devices here that are healthy and not promised to another.
pub(crate) struct Tenant<'a> {
    pub lease: &'a LeaseView,
    pub devices: Vec<&'a DeviceView>,
}

impl<'a> FleetIndex<'a> {
    pub fn new(snapshot: &'a Snapshot) -> Self {
        // Only looked up, never walked: its order is nobody's.
        let leases: HashMap<&LeaseId, &LeaseView> = snapshot.leases.iter().collect();
        let mut places: HashMap<(&DeviceKind, &NodeId), usize> = HashMap::new();
        let mut machines: Vec<(&DeviceKind, MachineIndex<'a>)> = Vec::new();
        let mut last = None;
        for device in &snapshot.devices {
            let key = (&device.kind, &device.node);
            let place = match last {
                Some((known, place)) if known == key => place,
                _ => *places.entry(key).or_insert_with(|| {
                    machines.push((&device.kind, MachineIndex::new(device)));
                    machines.len() - 1
                }),
            };
            last = Some((key, place));
            machines[place].1.add(device, |id| leases.get(id).copied());
        }
        let mut kinds: BTreeMap<&DeviceKind, Vec<MachineIndex<'a>>> = BTreeMap::new();
        for (kind, mut machine) in machines {
            machine.sort();
            kinds.entry(kind).or_default().push(machine);
        }
        for machines in kinds.values_mut() {
            machines.sort_by_key(|machine| machine.node);
        }
        Self { terms: &snapshot.terms, kinds }
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = &'a DeviceKind> {
        self.kinds.keys().copied()
    }
    pub(crate) fn machines(&self, kind: &DeviceKind) -> &[MachineIndex<'a>] {
        self.kinds.get(kind).map_or(&[], Vec::as_slice)
    }
    /// Where there are devices of a kind, in order.
    pub(crate) fn sites(&self, kind: &DeviceKind) -> Vec<&'a SiteId> {
        let mut sites: Vec<&SiteId> = self.machines(kind).iter().map(|machine| machine.site).collect();
        sites.sort();
        sites.dedup();
        sites
    }
}

impl<'a> MachineIndex<'a> {
    fn new(device: &'a DeviceView) -> Self {
        let (node, site, isolation) = (&device.node, &device.site, device.isolation);
        Self { node, site, isolation, total: 0, idle: Vec::new(), tenants: Vec::new() }
    }

    fn add(&mut self, device: &'a DeviceView, lease: impl Fn(&LeaseId) -> Option<&'a LeaseView>) {
        self.total += 1;
        if device.health != DeviceHealth::Healthy || device.promised_to.is_some() {
            return;
        }
        let Some(id) = &device.used_by else { return self.idle.push(device) };
        // A machine has few leases, and the devices of one come together.
        if let Some(tenant) = self.tenants.iter_mut().rev().find(|tenant| tenant.lease.id == *id) {
            return tenant.devices.push(device);
        }
        // A device whose lease is not in the snapshot is in use by somebody: never free.
        if let Some(lease) = lease(id) {
            self.tenants.push(Tenant { lease, devices: vec![device] });
        }
    }

    fn sort(&mut self) {
        self.idle.sort_by(|a, b| a.id.cmp(&b.id));
        self.tenants.sort_by(|a, b| a.lease.id.cmp(&b.lease.id));
        for tenant in &mut self.tenants {
            tenant.devices.sort_by(|a, b| a.id.cmp(&b.id));
        }
    }
}
