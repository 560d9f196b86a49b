//! The fleet and its leases at one instant, as the store sees them in one transaction.

use std::collections::BTreeMap;

use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::id::{DeviceId, LeaseId, NodeId, SiteId};
use sublet_core::lease::{EndReason, Holder};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::{DurationMs, Nanos, Timestamp};

use crate::curve::Selling;
use crate::place::Request;
use crate::reserve::ReserveRule;

/// One device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceView {
    pub id: DeviceId,
    pub kind: DeviceKind,
    pub site: SiteId,
    pub node: NodeId,
    /// The strictest separation its machine achieves.
    pub isolation: IsolationLevel,
    pub health: DeviceHealth,
    /// The lease that has it.
    pub used_by: Option<LeaseId>,
    /// The pending lease that gets it next; nobody else may.
    pub promised_to: Option<LeaseId>,
    /// An order holds it for the owner's teams: no customer gets it.
    pub held: bool,
}

impl DeviceView {
    /// Free, healthy, and not promised.
    pub(crate) fn is_idle(&self) -> bool {
        self.health == DeviceHealth::Healthy && self.used_by.is_none() && self.promised_to.is_none()
    }
}

/// Where a lease is in its life, with what a plan has to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaseStage {
    /// Waits for its promised devices.
    Pending,
    Active,
    /// Its holder was told.
    Ending {
        reason: EndReason,
        deadline: Timestamp,
    },
}

/// What bounds how long a lease's workload is paid for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CoverBound {
    /// The hold can grow.
    Open,
    /// Its holder's money or limits allow no more now.
    Budget,
    /// The maximum cost its holder set.
    MaximumCost,
    /// The maximum price its holder set: from then on the price is above it.
    MaximumPrice,
}

/// How long the money that is held pays for the running workload, its stop included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cover {
    pub until: Timestamp,
    pub bound: CoverBound,
}

/// A lease that has not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseView {
    pub id: LeaseId,
    pub generation: i64,
    pub holder: Holder,
    pub kind: DeviceKind,
    pub units: u32,
    pub notice: NoticeClass,
    pub stage: LeaseStage,
    pub starts_at: Timestamp,
    pub ends_at: Option<Timestamp>,
    /// A workload of it exists at a runner.
    pub busy: bool,
    /// Since when it has had nothing to run; `None` while it has.
    pub unused_since: Option<Timestamp>,
    /// Its job ended and it was made for that job alone.
    pub job_over: bool,
    /// Present while its workload runs.
    pub cover: Option<Cover>,
    pub stake: Stake,
}

/// What taking a lease back would lose, and what is decided about it already.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stake {
    /// Since when its workload has done what a stop would lose: its start, or its last durable checkpoint. `None` while
    /// nothing runs.
    pub at_risk_since: Option<Timestamp>,
    /// Of a unit and hour.
    pub price: Nanos,
    /// An order takes it back.
    pub ordered: Option<OrderedEnd>,
}

/// The end of a lease that an order has settled on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrderedEnd {
    pub tell_at: Timestamp,
    pub deadline: Timestamp,
    /// The deadline stands even if less than the notice is left.
    pub breaks_promise: bool,
}

impl LeaseView {
    /// The earliest end that the sold notice allows: the notice from now on, and never before the
    /// class's shortest life. `None` for `firm`, which has none.
    pub fn reclaim_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        earliest_end(self.notice, (self.starts_at, self.ends_at), now)
    }
}

/// The earliest end that a notice allows of a lease with these beginning and end.
pub fn earliest_end(
    notice: NoticeClass,
    (starts_at, ends_at): (Timestamp, Option<Timestamp>),
    now: Timestamp,
) -> Option<Timestamp> {
    let earliest = now.plus(notice.notice()?).max(starts_at.plus(notice.minimum_term()));
    Some(ends_at.map_or(earliest, |ends_at| ends_at.min(earliest)))
}

/// The owner's terms: reserve and timings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    pub reserve: ReserveRule,
    /// From SIGTERM until everything of a workload is killed.
    pub grace: DurationMs,
    /// What the hold covers beyond the grace, for the time between decision and effect.
    pub slack: DurationMs,
    /// The longest notice of an end that is not a reclaim: the window's end, a budget.
    pub stop_notice_max: DurationMs,
    /// How long a lease may have nothing to run.
    pub unused_max: DurationMs,
}

impl Terms {
    /// The notice before an end that is not a reclaim: what the class sold, up to the maximum.
    pub fn stop_notice(&self, class: NoticeClass) -> DurationMs {
        class.notice().unwrap_or(self.stop_notice_max).min(self.stop_notice_max)
    }
}

/// Everything a decision is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    pub devices: Vec<DeviceView>,
    /// Leases that have not ended, by their id.
    pub leases: BTreeMap<LeaseId, LeaseView>,
    pub terms: Terms,
    pub selling: Selling,
}

impl Snapshot {
    pub(crate) fn lease(&self, id: &LeaseId) -> Option<&LeaseView> {
        self.leases.get(id)
    }
    pub(crate) fn devices_of<'a>(&'a self, kind: &'a DeviceKind) -> impl Iterator<Item = &'a DeviceView> + 'a {
        self.devices.iter().filter(move |device| device.kind == *kind)
    }
    /// The kinds there are, in order.
    pub fn kinds(&self) -> Vec<&DeviceKind> {
        let mut kinds: Vec<&DeviceKind> = self.devices.iter().map(|device| &device.kind).collect();
        // Most devices lie beside others of their kind.
        kinds.dedup();
        kinds.sort();
        kinds.dedup();
        kinds
    }
    /// Idle devices that a request may be placed on, by machine, all in order.
    pub(crate) fn idle_by_node<'a>(&'a self, request: &Request) -> BTreeMap<&'a NodeId, Vec<&'a DeviceView>> {
        let mut nodes: BTreeMap<&NodeId, Vec<&DeviceView>> = BTreeMap::new();
        for device in &self.devices {
            if device.is_idle() && request.accepts(device) {
                nodes.entry(&device.node).or_default().push(device);
            }
        }
        // What is held is for the owner's teams anyway, so they get it first.
        for devices in nodes.values_mut() {
            devices.sort_by(|a, b| (!a.held, &a.id).cmp(&(!b.held, &b.id)));
        }
        nodes
    }
}

/// A count as the bounded integer it is shown as.
pub(crate) fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}
