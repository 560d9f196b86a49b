//! The reserve rule: how much of the healthy capacity stays for the owner's teams.

use std::collections::{BTreeMap, HashMap};

use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::id::{LeaseId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;

use crate::curve::{Room, rooms};
use crate::estimate::terms::{CLASSES, index};
use crate::place::Request;
use crate::snapshot::{DeviceView, LeaseView, Snapshot, count};

/// The owner keeps, per kind of device, the larger of a number of units and a share of what is
/// healthy. What the owner's teams use counts towards it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReserveRule {
    pub minimum_units: u32,
    /// Thousandths of the healthy units, rounded up.
    pub fraction_thousandths: u32,
}

impl ReserveRule {
    /// The reserve of so many healthy units; never more than there are.
    pub fn units(self, healthy: u32) -> u32 {
        let share = (u64::from(healthy) * u64::from(self.fraction_thousandths.min(1_000))).div_ceil(1_000);
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        self.minimum_units.max(share).min(healthy)
    }
}

/// Where the units of one kind are. `healthy = idle + internal + external + promised + draining`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KindFigures {
    pub total: u32,
    pub healthy: u32,
    /// Free and not promised.
    pub idle: u32,
    /// In leases of the owner's teams.
    pub internal: u32,
    /// In leases of customers.
    pub external: u32,
    /// Free, and waiting for a pending lease.
    pub promised: u32,
    /// Of all external units, those in firm leases.
    pub firm: u32,
    pub reserve: u32,
    /// The part of the reserve that the owner's teams do not use yet, and what orders hold for them on top of it.
    pub kept: u32,
    /// Free by our books, and used by the owner outside; at each site no more than is free there.
    pub outside: u32,
    /// What customers can get at each notice by curves and outside use, all sites together; `None` where
    /// neither bounds it.
    pub room: Option<[u32; CLASSES]>,
}

impl KindFigures {
    /// Units that the rule lets this holder take at this notice, wherever they are.
    pub fn sellable(&self, holder: Holder, notice: NoticeClass) -> u32 {
        match holder {
            Holder::Internal => self.idle.saturating_sub(self.outside),
            Holder::External => {
                let room = self.room.map_or(u32::MAX, |room| room[index(notice)]);
                let above_reserve = self.above_reserve().min(room);
                match notice {
                    NoticeClass::Firm => above_reserve.min(self.firm_headroom()),
                    NoticeClass::N0 | NoticeClass::N2m | NoticeClass::N15m | NoticeClass::N1h | NoticeClass::N24h => above_reserve,
                }
            }
        }
    }
    /// What is free beyond what the owner keeps and uses outside.
    pub fn above_reserve(&self) -> u32 {
        self.idle.saturating_sub(self.kept).saturating_sub(self.outside)
    }
    /// What can still be sold firm: guarantees of the owner's teams and firm leases together stay
    /// within the healthy units.
    pub fn firm_headroom(&self) -> u32 {
        self.healthy.saturating_sub(self.reserve).saturating_sub(self.firm)
    }
}

/// The figures of one kind of device.
pub fn figures(snapshot: &Snapshot, kind: &DeviceKind) -> KindFigures {
    let mut figures = KindFigures::default();
    let (mut demanded_by_internal, mut held) = (0_u32, 0_u32);
    // Only looked up, never walked: its order is nobody's.
    let of_kind = snapshot.leases.values().filter(|lease| lease.kind == *kind);
    let holders: HashMap<&LeaseId, Holder> = of_kind.map(|lease| (&lease.id, lease.holder)).collect();
    for device in snapshot.devices_of(kind) {
        figures.total += 1;
        if device.health != DeviceHealth::Healthy {
            continue;
        }
        figures.healthy += 1;
        let user = device.used_by.as_ref().and_then(|id| holders.get(id));
        match (&device.used_by, user) {
            (Some(_), Some(Holder::Internal)) => figures.internal += 1,
            // A device whose lease is not in the snapshot is in use by somebody: never free.
            (Some(_), Some(Holder::External) | None) => figures.external += 1,
            (None, _) if device.promised_to.is_some() => figures.promised += 1,
            (None, _) => {
                figures.idle += 1;
                held += u32::from(device.held);
            }
        }
        if device.promised_to.as_ref().and_then(|id| holders.get(id)) == Some(&Holder::Internal) {
            demanded_by_internal += 1;
        }
    }
    let firm = |lease: &&LeaseView| lease.kind == *kind && lease.holder == Holder::External && lease.notice == NoticeClass::Firm;
    figures.firm = snapshot.leases.values().filter(firm).fold(0, |sum, lease| sum + lease.units);
    figures.reserve = snapshot.terms.reserve.units(figures.healthy);
    let outside = outside(snapshot, kind);
    figures.outside = outside.units;
    figures.kept = figures.reserve.saturating_sub(figures.internal).saturating_sub(demanded_by_internal);
    figures.kept = figures.kept.saturating_sub(figures.outside).saturating_add(held).saturating_sub(outside.held);
    figures.room = rooms(snapshot, kind, Holder::External)
        .map(|rooms| NoticeClass::ALL.map(|notice| rooms.values().fold(0_u32, |sum, room| sum.saturating_add(room.units(notice)))));
    figures
}

/// What looks free and is used outside.
#[derive(Default)]
struct Outside {
    units: u32,
    /// Of them, what orders hold: where nothing else is left.
    held: u32,
}

/// Each site's use takes from what is free at that site, and no more than that.
fn outside(snapshot: &Snapshot, kind: &DeviceKind) -> Outside {
    let mut sum = Outside::default();
    for (pool, view) in snapshot.selling.pools.iter().filter(|(pool, view)| pool.kind == *kind && view.outside > 0) {
        let idle = snapshot.devices_of(kind).filter(|device| device.site == pool.site && device.is_idle());
        let (held, open): (Vec<&DeviceView>, Vec<&DeviceView>) = idle.partition(|device| device.held);
        let units = view.outside.min(count(held.len() + open.len()));
        sum.units = sum.units.saturating_add(units);
        sum.held = sum.held.saturating_add(units.saturating_sub(count(open.len())));
    }
    sum
}

/// What bounds a request at each site.
pub(crate) fn rooms_for<'a>(snapshot: &'a Snapshot, request: &Request) -> Option<BTreeMap<&'a SiteId, Room>> {
    rooms(snapshot, &request.kind, request.holder)
}

/// What the site of a machine has at a notice.
pub(crate) fn room_of(rooms: Option<&BTreeMap<&SiteId, Room>>, devices: &[&DeviceView], notice: NoticeClass) -> u32 {
    devices.first().map_or(0, |device| room_at(rooms, &device.site, notice))
}

/// What a site has at a notice.
pub(crate) fn room_at(rooms: Option<&BTreeMap<&SiteId, Room>>, site: &SiteId, notice: NoticeClass) -> u32 {
    let Some(rooms) = rooms else { return u32::MAX };
    rooms.get(site).map_or(0, |room| room.units(notice))
}
