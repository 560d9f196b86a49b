//! Orders of the owner: so many units by an instant, loose or in gangs, over as many machines as it takes.
//!
//! Devices that another order holds are left out. What is free anyway by then comes first; a lease is named only if the
//! order does not fit without it, and nobody is named unless it fits. `firm` is never taken. Who was told has ended, and
//! its devices are clean, when the order's time comes.

use std::collections::BTreeMap;

use sublet_core::device::DeviceKind;
use sublet_core::id::{DeviceId, LeaseId, NodeId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::reclaim::{Promises, ReclaimShape};
use sublet_core::{DurationMs, Timestamp};

use crate::index::{FleetIndex, KindIndex, MachineIndex, Standing, Tenant};
use crate::market::{Access, Candidate, Fate, Market, Supply};
use crate::snapshot::{DeviceView, LeaseView, OrderedEnd, Terms, count};
use crate::victim::{Choice, Item, Tier, cover, is_dearer};

/// What the owner needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    pub kind: DeviceKind,
    pub units: u32,
    /// `None` is anywhere.
    pub site: Option<SiteId>,
    pub shape: ReclaimShape,
    pub by: Timestamp,
    pub promises: Promises,
}

/// How a need is met.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Order {
    /// In the order of machines and devices.
    pub devices: Vec<OrderedDevice>,
    /// In the order of the leases' ids.
    pub victims: Vec<OrderedVictim>,
    /// Leases that another order ends, whose devices this one takes: if the other is given up, this one ends them.
    pub shared: Vec<OrderedVictim>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderedDevice {
    pub device: DeviceId,
    pub node: NodeId,
    pub site: SiteId,
    /// Who has it now.
    pub lease: Option<LeaseId>,
    pub free_at: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderedVictim {
    pub lease: LeaseId,
    pub generation: i64,
    pub notice: NoticeClass,
    pub end: OrderedEnd,
    /// All units of the lease multiplied by the time that its workload loses.
    pub lost: DurationMs,
}

impl Order {
    /// Units that come without anybody's interruption.
    pub fn free_anyway(&self) -> u32 {
        let taken =
            |device: &&OrderedDevice| device.lease.as_ref().is_none_or(|id| !self.victims.iter().any(|victim| victim.lease == *id));
        count(self.devices.iter().filter(taken).count())
    }
    pub fn lost(&self) -> DurationMs {
        DurationMs::from_millis(self.victims.iter().fold(0, |sum, victim| sum.saturating_add(victim.lost.millis())))
    }
    pub fn breaks_promises(&self) -> bool {
        self.victims.iter().any(|victim| victim.end.breaks_promise)
    }
}

/// Why a need cannot be met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shortfall {
    NoUnits,
    UnknownKind {
        known: Vec<DeviceKind>,
    },
    UnknownSite {
        known: Vec<SiteId>,
    },
    /// The units are no multiple of those on each machine; so many would be.
    NoMultiple {
        units: u32,
    },
    /// At most so many units, as the need is shaped.
    TooFew {
        available: u32,
    },
}

/// Something near that was tried and would be met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Instead {
    /// No promise is broken.
    Later,
    /// Nobody is interrupted.
    FewerUnits,
    OtherSite,
    OtherKind,
    /// Notices that were sold are broken.
    BreakPromises,
}

/// Decides an order.
pub fn decide(index: &FleetIndex<'_>, need: &Need, now: Timestamp) -> Result<Order, Shortfall> {
    check(index, need)?;
    let Some(kind) = index.of(&need.kind) else { return Err(Shortfall::TooFew { available: 0 }) };
    let market = market(kind, need, (index.terms, now));
    let units = usize::try_from(need.units).unwrap_or(usize::MAX);
    let chosen = match need.shape {
        ReclaimShape::Anywhere => anywhere(&market, units),
        ReclaimShape::PerNode(of_each) => {
            let of_each = usize::try_from(of_each.get()).unwrap_or(usize::MAX);
            let best = market.best_machines(of_each, units / of_each, |_, _| ());
            best.map(|best| best.into_iter().map(|(supply, choice)| Part { supply, units: of_each, choice }).collect())
        }
        ReclaimShape::WholeNodes => whole_nodes(&market, units),
    };
    match chosen {
        Some(parts) => Ok(order_of(&market, &parts, need, (index.terms, now))),
        None => Err(Shortfall::TooFew { available: shaped(&market, need.shape, |supply| supply.reachable) }),
    }
}

/// Needs near this one that would be met, with how: every one was tried.
pub fn instead(index: &FleetIndex<'_>, need: &Need, now: Timestamp) -> Vec<(Instead, Need, Order)> {
    let mut found = Vec::new();
    let tried = |changed: Need| decide(index, &changed, now).ok().map(|order| (changed, order));
    let kept = |changed: Need| tried(Need { promises: Promises::Kept, ..changed });
    let lead = lead(index.terms);
    let classes = NoticeClass::ALL.into_iter().filter_map(NoticeClass::notice);
    let later = classes.map(|notice| now.plus(notice).plus(index.terms.slack).plus(lead)).filter(|by| *by > need.by);
    let later = later.into_iter().find_map(|by| kept(Need { by, ..need.clone() }));
    found.extend(later.map(|(need, order)| (Instead::Later, need, order)));
    let free = free_anyway(index, need, now);
    if free > 0 && free < need.units {
        let fewer = kept(Need { units: free, ..need.clone() }).filter(|(_, order)| order.victims.is_empty());
        found.extend(fewer.map(|(need, order)| (Instead::FewerUnits, need, order)));
    }
    if let Some(asked) = &need.site {
        let others = index.sites(&need.kind).into_iter().filter(|site| *site != asked);
        let others = others.filter_map(|site| kept(Need { site: Some(site.clone()), ..need.clone() }));
        let best = others.min_by_key(|(_, order)| (order.victims.len(), order.lost()));
        found.extend(best.map(|(need, order)| (Instead::OtherSite, need, order)));
    }
    let kinds = index.kinds().filter(|kind| **kind != need.kind);
    let kinds = kinds.filter_map(|kind| kept(Need { kind: kind.clone(), ..need.clone() }));
    let best = kinds.min_by_key(|(_, order)| (order.victims.len(), order.lost()));
    found.extend(best.map(|(need, order)| (Instead::OtherKind, need, order)));
    if need.promises == Promises::Kept {
        let broken = tried(Need { promises: Promises::MayBreak, ..need.clone() }).filter(|(_, order)| order.breaks_promises());
        found.extend(broken.map(|(need, order)| (Instead::BreakPromises, need, order)));
    }
    found
}

/// From the end of a lease until its devices are there.
fn lead(terms: &Terms) -> DurationMs {
    DurationMs::from_millis(terms.grace.millis().saturating_add(terms.slack.millis()))
}

fn check(index: &FleetIndex<'_>, need: &Need) -> Result<(), Shortfall> {
    if need.units == 0 {
        return Err(Shortfall::NoUnits);
    }
    let sites = index.sites(&need.kind);
    if sites.is_empty() {
        return Err(Shortfall::UnknownKind { known: index.kinds().cloned().collect() });
    }
    if need.site.as_ref().is_some_and(|site| !sites.contains(&site)) {
        return Err(Shortfall::UnknownSite { known: sites.into_iter().cloned().collect() });
    }
    match need.shape {
        ReclaimShape::PerNode(of_each) if !need.units.is_multiple_of(of_each.get()) => {
            Err(Shortfall::NoMultiple { units: need.units.div_ceil(of_each.get()).saturating_mul(of_each.get()) })
        }
        ReclaimShape::PerNode(_) | ReclaimShape::Anywhere | ReclaimShape::WholeNodes => Ok(()),
    }
}

fn market<'i, 'a>(kind: &'i KindIndex<'a>, need: &Need, (terms, now): (&Terms, Timestamp)) -> Market<'i, 'a> {
    let latest = need.by.minus(lead(terms));
    let at_site = |machine: &MachineIndex<'a>| need.site.as_ref().is_none_or(|site| machine.site == site);
    Market::new(kind, Access::NotHeld, at_site, |tenant| match end_anyway(&tenant.standing) {
        Some(end) if end <= latest => Fate::Leaves(end),
        // Whoever is told takes a moment to be told.
        Some(_) | None => may_end(&tenant.standing, need.promises, (latest, now), terms.slack),
    })
}

/// When a lease ends without this order: it was told, its window is over, or another order ends it.
fn end_anyway(lease: &Standing) -> Option<Timestamp> {
    let window = lease.ends_at.filter(|_| lease.is_active);
    let ordered = lease.stake.ordered.map(|ordered| ordered.deadline);
    [lease.told, window, ordered].into_iter().flatten().min()
}

/// Whether a lease may be ended by then. What is told already, or is to be, is not told sooner.
fn may_end(lease: &Standing, promises: Promises, (latest, now): (Timestamp, Timestamp), slack: DurationMs) -> Fate {
    let is_customers = lease.holder == Holder::External && lease.is_active && lease.stake.ordered.is_none();
    let deadlines = (lease.reclaim_deadline(now), lease.reclaim_deadline(now.plus(slack)));
    let (Some(earliest), Some(surely)) = deadlines else { return Fate::Stays };
    if !is_customers || latest < now || (surely > latest && promises == Promises::Kept) {
        return Fate::Stays;
    }
    // With less than the slack left it has its notice all the same: it is told at once.
    let breaks_promise = earliest > latest;
    Fate::MayEnd { deadline: latest, tier: Tier::new(lease, breaks_promise, latest) }
}

/// What is taken of one machine: so many units, by these of its candidates.
struct Part {
    supply: usize,
    units: usize,
    choice: Choice,
}

fn anywhere(market: &Market<'_, '_>, units: usize) -> Option<Vec<Part>> {
    let free: usize = market.supplies.iter().map(|supply| supply.free).sum();
    let needed = units.saturating_sub(free);
    let mut sizes: BTreeMap<Tier, usize> = BTreeMap::new();
    market.candidates.iter().for_each(|one| *sizes.entry(one.tier).or_default() += one.item.units);
    let mut reachable = 0;
    let enough = sizes.into_iter().find(|(_, size)| {
        reachable += size;
        reachable >= needed
    });
    let tier = if needed == 0 { None } else { Some(enough?.0) };
    let allowed: Vec<usize> = (0..market.candidates.len()).filter(|place| Some(market.candidates[*place].tier) <= tier).collect();
    let items: Vec<Item> = allowed.iter().map(|place| market.candidates[*place].item).collect();
    let choice = cover(&items, needed)?;
    let mut left = units;
    let mut parts: Vec<Part> = Vec::with_capacity(market.supplies.len());
    for (supply, of_it) in market.supplies.iter().enumerate() {
        let units = of_it.free.min(left);
        left -= units;
        parts.push(Part { supply, units, choice: Choice::default() });
    }
    for place in choice.chosen {
        let candidate = allowed[place];
        let supply = market.supply_of(candidate);
        let of_it = market.candidates[candidate].item.units.min(left);
        left -= of_it;
        parts[supply].units += of_it;
        parts[supply].choice.chosen.push(candidate - market.offset_of(supply));
    }
    parts.retain(|part| part.units > 0);
    Some(parts)
}

/// The machines with the least loss per unit, until it is enough; those without which it still is are dropped in reverse.
/// A machine is taken with all that may be ended on it.
fn whole_nodes(market: &Market<'_, '_>, units: usize) -> Option<Vec<Part>> {
    let all = |supply: &Supply<'_, '_>| {
        let candidates = market.candidates_of(supply);
        let chosen: Vec<usize> = (0..candidates.len()).collect();
        let choice = Choice { loss: candidates.iter().map(|one| one.item.loss).sum(), count: chosen.len(), chosen };
        (candidates.last().map(|one| one.tier), Item { units: supply.reachable, loss: choice.loss }, choice)
    };
    let whole = market.supplies.iter().enumerate().filter(|(_, supply)| supply.reachable == supply.machine.total);
    let mut found: Vec<_> = whole.map(|(at, supply)| (all(supply), at)).collect();
    found.sort_by_key(|((tier, ..), _)| *tier);
    let mut reachable = 0;
    let enough = found.iter().find(|((_, item, _), _)| {
        reachable += item.units;
        reachable >= units
    });
    let tier = enough?.0.0;
    found.retain(|((least, ..), _)| *least <= tier);
    found.sort_by(|((_, one, choice), at), ((_, other, other_choice), other_at)| {
        is_dearer(*one, *other).then((choice.count, at).cmp(&(other_choice.count, other_at)))
    });
    let mut parts: Vec<Part> =
        found.into_iter().map(|((_, item, choice), supply)| Part { supply, units: item.units, choice }).collect();
    let mut freed = 0;
    parts.retain(|part| {
        let is_needed = freed < units;
        freed += if is_needed { part.units } else { 0 };
        is_needed
    });
    for index in (0..parts.len()).rev() {
        if freed - parts[index].units >= units {
            freed -= parts[index].units;
            parts.remove(index);
        }
    }
    Some(parts)
}

fn order_of(market: &Market<'_, '_>, parts: &[Part], need: &Need, (terms, now): (&Terms, Timestamp)) -> Order {
    let mut order = Order::default();
    for part in parts {
        let supply = &market.supplies[part.supply];
        let candidates = market.candidates_of(supply);
        let chosen = || part.choice.chosen.iter().map(|place| candidates[*place]);
        let freed = chosen().flat_map(|one| market.devices(&one.tenant.room).iter().map(move |device| (*device, one.deadline)));
        let taken: Vec<(&DeviceView, Timestamp)> = market.free_devices(supply, now).chain(freed).take(part.units).collect();
        let is_taken = |id: &LeaseId| taken.iter().any(|(device, _)| device.used_by.as_ref() == Some(id));
        let leaving = market.leaving_of(supply).filter(|tenant| is_taken(&tenant.lease.id));
        order.shared.extend(leaving.filter_map(|tenant| shared_of(tenant, need, terms)));
        order.devices.extend(taken.iter().map(|(device, at)| OrderedDevice {
            device: device.id.clone(),
            node: device.node.clone(),
            site: device.site.clone(),
            lease: device.used_by.clone(),
            free_at: if device.used_by.is_some() { at.plus(lead(terms)) } else { *at },
        }));
        order.victims.extend(chosen().map(|one| victim_of(&one, terms, now)));
    }
    order.devices.sort_by(|a, b| (&a.node, &a.device).cmp(&(&b.node, &b.device)));
    order.victims.sort_by(|a, b| a.lease.cmp(&b.lease));
    order.shared.sort_by(|a, b| a.lease.cmp(&b.lease));
    order
}

fn victim_of(candidate: &Candidate<'_, '_>, terms: &Terms, now: Timestamp) -> OrderedVictim {
    let Candidate { tenant, deadline, tier, .. } = candidate;
    let lease = tenant.lease;
    // It is told a little early, for the time between decision and effect.
    let told = deadline.minus(lease.notice.notice().unwrap_or(DurationMs::ZERO)).minus(terms.slack);
    OrderedVictim {
        lease: lease.id.clone(),
        generation: lease.generation,
        notice: lease.notice,
        end: OrderedEnd { tell_at: told.max(now), deadline: *deadline, breaks_promise: tier.breaks_promise },
        lost: lost_by(lease, *deadline),
    }
}

/// All units of a lease multiplied by the time that its workload loses if it ends then.
fn lost_by(lease: &LeaseView, deadline: Timestamp) -> DurationMs {
    let work = lease.stake.at_risk_since.map_or(0, |since| deadline.since(since).millis().max(0));
    DurationMs::from_millis(work.saturating_mul(i64::from(lease.units)))
}

/// A lease that leaves in time because of another order alone. Its notice is kept if that one is given up and this one may
/// break none.
fn shared_of(tenant: &Tenant<'_>, need: &Need, terms: &Terms) -> Option<OrderedVictim> {
    let (lease, latest) = (tenant.lease, need.by.minus(lead(terms)));
    let mut alone = tenant.standing;
    let ordered = alone.stake.ordered.take()?;
    if end_anyway(&alone).is_some_and(|end| end <= latest) {
        return None;
    }
    Some(OrderedVictim {
        lease: lease.id.clone(),
        generation: lease.generation,
        notice: lease.notice,
        end: OrderedEnd { breaks_promise: ordered.breaks_promise && need.promises == Promises::MayBreak, ..ordered },
        lost: lost_by(lease, ordered.deadline),
    })
}

/// Units of a need's shape that come without anybody's interruption.
fn free_anyway(index: &FleetIndex<'_>, need: &Need, now: Timestamp) -> u32 {
    let Some(kind) = index.of(&need.kind) else { return 0 };
    shaped(&market(kind, need, (index.terms, now)), need.shape, |supply| supply.free)
}

fn shaped(market: &Market<'_, '_>, shape: ReclaimShape, units: impl Fn(&Supply<'_, '_>) -> usize) -> u32 {
    let of = |supply: &Supply<'_, '_>| match shape {
        ReclaimShape::Anywhere => units(supply),
        ReclaimShape::PerNode(of_each) => {
            let of_each = usize::try_from(of_each.get()).unwrap_or(usize::MAX);
            if units(supply) >= of_each { of_each } else { 0 }
        }
        ReclaimShape::WholeNodes => {
            let is_whole = units(supply) == supply.machine.total;
            if is_whole { units(supply) } else { 0 }
        }
    };
    count(market.supplies.iter().map(of).sum())
}
