//! The reserve rule: how much of the healthy capacity stays for the owner's teams.

use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;

use crate::place::Request;
use crate::snapshot::{LeaseView, Snapshot, count};

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
}

impl KindFigures {
    /// Units that the rule lets this holder take at this notice, wherever they are.
    pub fn sellable(&self, holder: Holder, notice: NoticeClass) -> u32 {
        match holder {
            Holder::Internal => self.idle,
            Holder::External => {
                let above_reserve = self.idle.saturating_sub(self.kept);
                match notice {
                    NoticeClass::Firm => above_reserve.min(self.firm_headroom()),
                    NoticeClass::N0 | NoticeClass::N2m | NoticeClass::N15m | NoticeClass::N1h | NoticeClass::N24h => above_reserve,
                }
            }
        }
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
    for device in snapshot.devices_of(kind) {
        figures.total += 1;
        if device.health != DeviceHealth::Healthy {
            continue;
        }
        figures.healthy += 1;
        let user = device.used_by.as_ref().and_then(|id| snapshot.lease(id));
        match (&device.used_by, user.map(|lease| lease.holder)) {
            (Some(_), Some(Holder::Internal)) => figures.internal += 1,
            // A device whose lease is not in the snapshot is in use by somebody: never free.
            (Some(_), Some(Holder::External) | None) => figures.external += 1,
            (None, _) if device.promised_to.is_some() => figures.promised += 1,
            (None, _) => {
                figures.idle += 1;
                held += u32::from(device.held);
            }
        }
        let next = device.promised_to.as_ref().and_then(|id| snapshot.lease(id));
        if next.is_some_and(|lease| lease.holder == Holder::Internal) {
            demanded_by_internal += 1;
        }
    }
    let firm = |lease: &&LeaseView| lease.kind == *kind && lease.holder == Holder::External && lease.notice == NoticeClass::Firm;
    figures.firm = snapshot.leases.values().filter(firm).fold(0, |sum, lease| sum + lease.units);
    figures.reserve = snapshot.terms.reserve.units(figures.healthy);
    figures.kept = figures.reserve.saturating_sub(figures.internal).saturating_sub(demanded_by_internal).saturating_add(held);
    figures
}

/// The most idle units on one machine that the request may be placed on.
pub(crate) fn largest_idle(snapshot: &Snapshot, request: &Request) -> u32 {
    snapshot.idle_by_node(request).values().map(|devices| count(devices.len())).max().unwrap_or(0)
}
