//! The fleet: machines and devices, what is available now, and the owner's reserve.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sublet_capacity::{KindFigures, Request, ReserveRule, available, figures};
use sublet_core::device::{DeviceClass, DeviceHealth, DeviceKind};
use sublet_core::id::{DeviceId, NodeId, SiteId};
use sublet_core::lease::{Holder, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::offering::Offering;
use sublet_core::supply::Catalogue;
use sublet_core::{Bytes, Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::period::BillingCalendar;
use sublet_money::price_book::PriceListVersion;
use sublet_money::sku::SkuName;
use sublet_store::device::{self, Device, DeviceSpan, Node};
use sublet_store::lease::{self, Lease};
use sublet_store::{Page, PageRequest, Tx, organization};

use crate::audit::Deed;
use crate::compute::{Compute, reserve_rule, set_reserve_rule};
use crate::offering::DeviceShelf;
use crate::placed_price::{Ask, Choice};
use crate::{Action, Actor};

/// A device sku with what could be leased of it now. What is shown can be placed as shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkuAvailability {
    pub sku: SkuName,
    pub kind: DeviceKind,
    pub notice: NoticeClass,
    /// Where the units are, if sites have prices of their own.
    pub site: Option<SiteId>,
    /// Per device and hour.
    pub price_per_hour: Nanos,
    pub currency: Currency,
    /// The largest request that would be placed now.
    pub available_units: u32,
    /// Devices of the kind, where they are at the site.
    pub total_units: u32,
    pub figures: KindFigures,
    pub as_of: Timestamp,
    /// What is said of its sale, where it is not simply public.
    pub offering: Option<Arc<Offering>>,
}

/// Where the devices of one kind are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KindCapacity {
    pub kind: DeviceKind,
    pub figures: KindFigures,
    pub cordoned: u32,
    pub lost: u32,
    pub as_of: Timestamp,
}

impl Compute {
    /// Keeps a device out of sale. What runs there may end in its own time.
    pub async fn cordon_device(&self, actor: &Actor, id: &DeviceId) -> Result<Device> {
        self.set_health(actor, id, DeviceHealth::Cordoned).await
    }

    /// Lets a cordoned device be sold again.
    pub async fn uncordon_device(&self, actor: &Actor, id: &DeviceId) -> Result<Device> {
        self.set_health(actor, id, DeviceHealth::Healthy).await
    }

    async fn set_health(&self, actor: &Actor, id: &DeviceId, health: DeviceHealth) -> Result<Device> {
        actor.require(Action::ManageFleet)?;
        let now = self.now();
        let changed = self
            .cloud
            .store
            .write((self, actor, id), move |(compute, actor, id), tx| {
                Box::pin(async move {
                    let found = device::get(tx, id).await?;
                    // One that is lost is kept out of sale when it is back.
                    let now_health = if found.health == DeviceHealth::Lost { found.health } else { health };
                    let cordoned = health == DeviceHealth::Cordoned;
                    let changed = Device { health: now_health, cordoned, ..found.clone() };
                    compute.change_device(tx, &found, &changed, now).await?;
                    let deed =
                        Deed { organization: None, action: "device.cordon", target: id.as_str(), detail: health.to_string() };
                    compute.cloud.record(tx, actor, deed, now).await?;
                    device::get(tx, id).await
                })
            })
            .await?;
        self.wake();
        Ok(changed)
    }

    pub async fn list_nodes(&self, actor: &Actor, page: &PageRequest) -> Result<Page<(Node, i64)>> {
        actor.require(Action::ManageFleet)?;
        self.cloud
            .store
            .read(page, |page, tx| {
                Box::pin(async move {
                    let nodes = device::list_nodes(tx, page).await?;
                    let mut counted = Vec::with_capacity(nodes.items.len());
                    for node in nodes.items {
                        let devices = device::count_of_node(tx, &node.id).await?;
                        counted.push((node, devices));
                    }
                    Ok(Page { items: counted, has_more: nodes.has_more })
                })
            })
            .await
    }

    /// Devices with the lease that has each.
    pub async fn list_devices(
        &self,
        actor: &Actor,
        node: Option<&NodeId>,
        page: &PageRequest,
    ) -> Result<Page<(Device, Option<Lease>)>> {
        actor.require(Action::ManageFleet)?;
        self.cloud
            .store
            .read((node, page), |(node, page), tx| {
                Box::pin(async move {
                    let devices = device::list(tx, *node, page).await?;
                    let mut items = Vec::with_capacity(devices.items.len());
                    for device in devices.items {
                        let lease = match &device.lease {
                            Some(id) => lease::find(tx, &Scope::Operator, id).await?,
                            None => None,
                        };
                        items.push((device, lease));
                    }
                    Ok(Page { items, has_more: devices.has_more })
                })
            })
            .await
    }

    /// What a device did: spans after a number, oldest first.
    pub async fn list_device_spans(&self, actor: &Actor, id: &DeviceId, after: i64) -> Result<Vec<DeviceSpan>> {
        actor.require(Action::ManageFleet)?;
        self.cloud.store.read(id, move |id, tx| Box::pin(device::list_spans(tx, id, after))).await
    }

    /// Device-milliseconds of the fleet by class in a window. The classes add up to its capacity.
    pub async fn device_time(&self, actor: &Actor, from: Timestamp, until: Timestamp) -> Result<Vec<(DeviceClass, i64)>> {
        actor.require(Action::ManageFleet)?;
        self.cloud.store.read((), move |(), tx| Box::pin(device::time_by_class(tx, from, until))).await
    }

    /// The memory of a device of each kind that there is or was: that of the smallest.
    pub async fn device_memories(&self, actor: &Actor) -> Result<BTreeMap<DeviceKind, Bytes>> {
        actor.require(Action::ReadCatalogue)?;
        self.cloud.store.read((), |(), tx| Box::pin(device::memory_by_kind(tx))).await
    }

    /// Every priced device sku there are devices for, with what the actor could lease of it now.
    pub async fn list_availability(&self, actor: &Actor) -> Result<Vec<SkuAvailability>> {
        actor.require(Action::ReadCatalogue)?;
        let now = self.now();
        self.cloud.store.read((self, actor), move |(compute, actor), tx| Box::pin(compute.availability_in(tx, actor, now))).await
    }

    /// Kinds of devices that the actor may know of: what it could lease, and what is not sold any more, to it or to anybody.
    pub async fn list_kinds(&self, actor: &Actor) -> Result<BTreeSet<DeviceKind>> {
        actor.require(Action::ReadCatalogue)?;
        let now = self.now();
        self.cloud.store.read((self, actor), move |(compute, actor), tx| Box::pin(compute.kinds_in(tx, actor, now))).await
    }

    async fn kinds_in(&self, tx: &mut Tx, actor: &Actor, now: Timestamp) -> Result<BTreeSet<DeviceKind>> {
        self.cloud.follow_changes(tx).await?;
        let (_, prices) = self.holder_and_prices(tx, actor, now).await?;
        let shelf = DeviceShelf::read(tx, actor.scope.organization(), now).await?;
        let there: BTreeSet<DeviceKind> = self.snapshot(tx).await?.kinds().into_iter().cloned().collect();
        // What is retired may have no devices left.
        let mut kinds: BTreeSet<DeviceKind> = self.cloud.offerings().device_kinds().cloned().collect();
        kinds.extend(there.iter().cloned());
        kinds.retain(|kind| {
            let is_on_sale = |notice| there.contains(kind) && prices.sells(&SkuName::device(notice, kind.clone()));
            NoticeClass::ALL.into_iter().any(|notice| shelf.knows_of(&self.cloud, (kind, notice), is_on_sale(notice)))
        });
        Ok(kinds)
    }

    /// As whom the actor leases, and by which prices; the operator looks at the first list as a customer.
    pub(crate) async fn holder_and_prices(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(Holder, Arc<PriceListVersion>)> {
        match actor.scope.organization() {
            Some(id) => {
                let organization = organization::get(tx, &actor.scope, id).await?;
                let version = self.cloud.prices.in_force_for((id, organization.currency), now)?;
                Ok((Holder::from(organization.class), version))
            }
            None => {
                let lists = self.cloud.prices.snapshot();
                let first = lists.values().next();
                let first = first.ok_or_else(|| Error::new(ErrorCode::UnknownPrice, "there is no price list"))?;
                Ok((Holder::External, first.at(now)?.clone()))
            }
        }
    }

    async fn availability_in(&self, tx: &mut Tx, actor: &Actor, now: Timestamp) -> Result<Vec<SkuAvailability>> {
        self.cloud.follow_changes(tx).await?;
        let (holder, version) = self.holder_and_prices(tx, actor, now).await?;
        let shelf = DeviceShelf::read(tx, actor.scope.organization(), now).await?;
        let snapshot = self.snapshot(tx).await?;
        let calendar = BillingCalendar::new("UTC")?;
        let ask = Ask { snapshot: &snapshot, version: &version, calendar: &calendar, max_price: None, now };
        let mut rows = Vec::new();
        for kind in snapshot.kinds() {
            for notice in NoticeClass::ALL {
                let Some(offering) = shelf.find(&self.cloud, kind, notice) else { continue };
                let isolation = self.settings.required_isolation(holder);
                let request = Request { kind: kind.clone(), units: 1, notice, holder, site: None, isolation };
                let mut choices = self.choices(tx, ask, &request).await?;
                choices.sort_by(|one, other| one.site.cmp(&other.site));
                for Choice { site, tariff, per_hour } in choices {
                    let shown = available(&snapshot, &Request { site: site.clone(), ..request.clone() });
                    rows.push(SkuAvailability {
                        sku: tariff.sku,
                        kind: kind.clone(),
                        notice,
                        site,
                        price_per_hour: per_hour,
                        currency: version.currency(),
                        available_units: shown.units,
                        total_units: shown.total,
                        figures: shown.figures,
                        as_of: now,
                        offering: offering.clone(),
                    });
                }
            }
        }
        Ok(rows)
    }

    /// Where the fleet's devices are now.
    pub async fn capacity(&self, actor: &Actor) -> Result<Vec<KindCapacity>> {
        actor.require(Action::ManageFleet)?;
        let as_of = self.now();
        self.cloud
            .store
            .read(self, move |compute, tx| {
                Box::pin(async move {
                    let snapshot = compute.snapshot(tx).await?;
                    let count = |kind: &DeviceKind, health: DeviceHealth| {
                        let counted = snapshot.devices.iter().filter(|device| device.kind == *kind && device.health == health);
                        u32::try_from(counted.count()).unwrap_or(u32::MAX)
                    };
                    let kinds = snapshot.kinds().into_iter().map(|kind| KindCapacity {
                        kind: kind.clone(),
                        figures: figures(&snapshot, kind),
                        cordoned: count(kind, DeviceHealth::Cordoned),
                        lost: count(kind, DeviceHealth::Lost),
                        as_of,
                    });
                    Ok(kinds.collect())
                })
            })
            .await
    }

    /// The owner's reserve rule.
    pub async fn reserve(&self, actor: &Actor) -> Result<ReserveRule> {
        actor.require(Action::ManageFleet)?;
        self.cloud.store.read((), |(), tx| Box::pin(reserve_rule(tx))).await
    }

    /// Sets the owner's reserve rule. Leases that run stay; it holds for what is sold from now on.
    pub async fn set_reserve(&self, actor: &Actor, rule: ReserveRule) -> Result<ReserveRule> {
        actor.require(Action::ManageFleet)?;
        if rule.fraction_thousandths > 1_000 {
            return Err(Error::new(ErrorCode::InvalidRequest, "a share of the capacity is at most 1000 thousandths")
                .param("fraction_thousandths"));
        }
        let now = self.now();
        self.cloud
            .store
            .write((self, actor), move |(compute, actor), tx| {
                Box::pin(async move {
                    set_reserve_rule(tx, rule).await?;
                    let detail = format!("{} units or {} thousandths", rule.minimum_units, rule.fraction_thousandths);
                    let deed = Deed { organization: None, action: "reserve.set", target: "reserve", detail };
                    compute.cloud.record(tx, actor, deed, now).await?;
                    Ok(rule)
                })
            })
            .await
    }
}

/// What a device does that no lease has.
pub(crate) fn class_when_free(device: &Device) -> (DeviceClass, Option<&sublet_core::id::LeaseId>) {
    match (device.health, &device.promised_to) {
        (DeviceHealth::Cordoned | DeviceHealth::Lost, _) => (DeviceClass::Unhealthy, None),
        (DeviceHealth::Healthy, Some(next)) => (DeviceClass::Held, Some(next)),
        (DeviceHealth::Healthy, None) => (DeviceClass::Idle, None),
    }
}

/// What a device does that a lease has.
pub(crate) const fn class_when_leased(lease: &Lease, running: bool) -> DeviceClass {
    match (running, lease.holder, lease.notice, lease.state) {
        (true, Holder::Internal, ..) => DeviceClass::Internal,
        (true, Holder::External, NoticeClass::N0, _) => DeviceClass::Spot,
        (true, Holder::External, ..) => DeviceClass::Lease,
        (false, _, _, LeaseState::Ending { .. } | LeaseState::Ended { .. }) => DeviceClass::Drain,
        (false, _, _, LeaseState::Pending | LeaseState::Active) => DeviceClass::Held,
    }
}

/// Notes that all devices of a lease do something else from `at` on.
pub(crate) async fn switch_lease(tx: &mut Tx, lease: &Lease, running: bool, at: Timestamp) -> Result<()> {
    let class = class_when_leased(lease, running);
    for device in device::list_of_lease(tx, &lease.id).await? {
        device::switch_class(tx, &device.id, class, Some(&lease.id), at).await?;
    }
    Ok(())
}
