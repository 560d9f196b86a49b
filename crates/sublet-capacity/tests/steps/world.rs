//! The state that decisions are made from, and what is remembered to judge them.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use sublet_capacity::{
    Curve, DeviceView, LeaseStage, LeaseView, Level, LevelReason, Need, OrderedEnd, Pool, PoolView, Request, ReserveRule, Selling,
    SellingMode, Snapshot, Stake, Terms,
};
use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::id::{DeviceId, LeaseId};
use sublet_core::lease::{EndReason, Holder};
use sublet_core::notice::NoticeClass;
use sublet_core::reclaim::{Promises, ReclaimShape};
use sublet_core::runner::IsolationLevel;
use sublet_core::{DurationMs, Nanos, Timestamp};

use super::trace::{Numbers, Shape, Wish};

pub const GRACE: DurationMs = DurationMs::from_seconds(10);
pub const SLACK: DurationMs = DurationMs::from_seconds(5);
const START: Timestamp = Timestamp::from_seconds(1_000_000);
const KINDS: [&str; 2] = ["cpu", "gpu"];

pub fn seconds(count: i64) -> DurationMs {
    DurationMs::from_seconds(count)
}

/// What is remembered of a lease beside its view.
#[derive(Clone, Default, Debug)]
pub struct Memory {
    pub devices: Vec<DeviceId>,
    /// Its workload was stopped and is gone then.
    pub gone_at: Option<Timestamp>,
    /// A lease of a team that waits: it was told that it begins by then.
    pub ready_at: Option<Timestamp>,
    /// Something broke that it waits for.
    pub is_damaged: bool,
}

/// An order of the owner that stands.
#[derive(Clone, Debug)]
pub struct Standing {
    pub need: Need,
    pub until: Option<Timestamp>,
    pub devices: BTreeSet<DeviceId>,
    pub ends: BTreeMap<LeaseId, OrderedEnd>,
    /// It counts on ends that another order settled on.
    pub is_shared: bool,
    /// One of its devices broke, or an order that it shared with was given up.
    pub is_damaged: bool,
    pub is_judged: bool,
}

pub struct World {
    pub snapshot: Snapshot,
    pub now: Timestamp,
    pub memory: BTreeMap<LeaseId, Memory>,
    pub orders: Vec<Standing>,
    pub pools: Vec<Pool>,
    made: usize,
}

impl World {
    /// The fleet of a seed: two kinds, up to three sites, machines of one to five devices.
    pub fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed ^ 0x5eed);
        let (sites, mut devices) = (1 + numbers.below(3), Vec::new());
        for node in 0..4 + numbers.place(4) {
            let (kind, site) = (KINDS[usize::from(node % 3 == 1)], numbers.below(sites));
            let isolation = if numbers.one_in(4) { IsolationLevel::Process } else { IsolationLevel::Sandbox };
            for slot in 0..1 + numbers.place(5) {
                devices.push(DeviceView {
                    id: format!("dev_{node}{slot}").parse().unwrap(),
                    kind: kind.parse().unwrap(),
                    site: format!("site_{site}").parse().unwrap(),
                    node: format!("node_{node}").parse().unwrap(),
                    isolation,
                    health: DeviceHealth::Healthy,
                    used_by: None,
                    promised_to: None,
                    held: false,
                });
            }
        }
        let mut pools: Vec<Pool> =
            devices.iter().map(|device| Pool { kind: device.kind.clone(), site: device.site.clone() }).collect();
        pools.sort();
        pools.dedup();
        let reserve = ReserveRule { minimum_units: numbers.units(3), fraction_thousandths: numbers.units(200) };
        let terms = Terms { reserve, grace: GRACE, slack: SLACK, stop_notice_max: seconds(900), unused_max: seconds(300) };
        let mut selling =
            Selling { at: START, mode: numbers.of(&[SellingMode::Static, SellingMode::Learned]), ..Selling::default() };
        for pool in &pools {
            let units = 4 + numbers.units(6);
            let reason = LevelReason::OfLeast { window_s: 60, margin_ppm: 0 };
            selling.pools.insert(pool.clone(), PoolView { outside: 0, curve: Curve::Fresh([Level { units, reason }; 6]) });
        }
        let snapshot = Snapshot { devices, leases: BTreeMap::new(), terms, selling };
        Self { snapshot, now: START, memory: BTreeMap::new(), orders: Vec::new(), pools, made: 0 }
    }

    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
        self.snapshot.selling.at = now;
    }

    pub fn kind(place: usize) -> DeviceKind {
        // Once in a while one that there is none of.
        KINDS.get(place).unwrap_or(&"tpu").parse().unwrap()
    }

    pub fn request(wish: &Wish, holder: Holder) -> Request {
        Request {
            kind: Self::kind(wish.kind),
            units: wish.units,
            notice: NoticeClass::ALL[wish.notice],
            holder,
            site: wish.site.map(|site| format!("site_{site}").parse().unwrap()),
            isolation: if wish.strict { IsolationLevel::Sandbox } else { IsolationLevel::Process },
        }
    }

    pub fn need(&self, wish: &Wish, shape: Shape, (by_s, may_break): (i64, bool)) -> Need {
        Need {
            kind: Self::kind(wish.kind),
            units: wish.units,
            site: wish.site.map(|site| format!("site_{site}").parse().unwrap()),
            shape: match shape {
                Shape::Anywhere => ReclaimShape::Anywhere,
                Shape::PerNode(each) => ReclaimShape::PerNode(NonZeroU32::new(each).unwrap()),
                Shape::Whole => ReclaimShape::WholeNodes,
            },
            by: self.now.plus(seconds(by_s)),
            promises: if may_break { Promises::MayBreak } else { Promises::Kept },
        }
    }

    /// The lease at a place, if there is one.
    pub fn lease_at(&self, place: usize) -> Option<LeaseId> {
        let number = self.snapshot.leases.len();
        self.snapshot.leases.keys().nth(place % number.max(1)).cloned()
    }

    pub fn device(&self, id: &DeviceId) -> Option<&DeviceView> {
        self.snapshot.devices.iter().find(|device| device.id == *id)
    }

    pub fn lease_of(&self, device: &DeviceView) -> Option<&LeaseView> {
        device.used_by.as_ref().and_then(|id| self.snapshot.leases.get(id))
    }

    pub fn devices_of(&mut self, ids: &[DeviceId]) -> impl Iterator<Item = &mut DeviceView> {
        self.snapshot.devices.iter_mut().filter(|device| ids.contains(&device.id))
    }

    /// A new lease; it has its devices, or is promised them.
    pub fn insert(
        &mut self,
        request: &Request,
        window_s: Option<i64>,
        devices: Vec<DeviceId>,
        ready_at: Option<Timestamp>,
    ) -> LeaseId {
        self.made += 1;
        let id: LeaseId = format!("lease_{:06}", self.made).parse().unwrap();
        for device in self.devices_of(&devices) {
            let place = if ready_at.is_none() { &mut device.used_by } else { &mut device.promised_to };
            *place = Some(id.clone());
        }
        let price = Nanos::new(i64::try_from(1 + self.made % 4).unwrap());
        let lease = LeaseView {
            id: id.clone(),
            generation: 1,
            holder: request.holder,
            kind: request.kind.clone(),
            units: request.units,
            notice: request.notice,
            stage: if ready_at.is_none() { LeaseStage::Active } else { LeaseStage::Pending },
            starts_at: self.now,
            ends_at: window_s.map(|window| self.now.plus(seconds(window))),
            busy: false,
            unused_since: Some(self.now),
            job_over: false,
            cover: None,
            stake: Stake { price, ..Stake::default() },
        };
        self.snapshot.leases.insert(id.clone(), lease);
        self.memory.insert(id.clone(), Memory { devices, ready_at, ..Memory::default() });
        id
    }

    /// A workload begins on a lease, or is gone from it.
    pub fn set_busy(&mut self, id: &LeaseId, busy: bool) {
        let now = self.now;
        let Some(lease) = self.snapshot.leases.get_mut(id) else { return };
        lease.busy = busy;
        lease.unused_since = (!busy).then_some(now);
        lease.stake.at_risk_since = busy.then_some(now);
        lease.cover = None;
        if let Some(memory) = self.memory.get_mut(id) {
            memory.gone_at = None;
        }
    }

    /// As the state of a lease allows; false if it ends no later already.
    pub fn begin_ending(&mut self, id: &LeaseId, reason: EndReason, deadline: Timestamp) -> bool {
        let Some(lease) = self.snapshot.leases.get_mut(id) else { return false };
        if matches!(lease.stage, LeaseStage::Ending { deadline: told, .. } if deadline >= told) {
            return false;
        }
        lease.stage = LeaseStage::Ending { reason, deadline };
        lease.generation += 1;
        true
    }

    /// Writes what orders hold and end into the snapshot.
    pub fn note_orders(&mut self) {
        for device in &mut self.snapshot.devices {
            device.held = self.orders.iter().any(|order| order.devices.contains(&device.id));
        }
        for (id, lease) in &mut self.snapshot.leases {
            let ends = self.orders.iter().filter_map(|order| order.ends.get(id).copied());
            lease.stake.ordered = ends.min_by_key(|end| (end.deadline, !end.breaks_promise));
        }
    }
}
