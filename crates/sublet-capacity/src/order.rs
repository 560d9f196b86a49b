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

use crate::index::{FleetIndex, MachineIndex};
use crate::snapshot::{DeviceView, LeaseStage, LeaseView, OrderedEnd, Terms, count};
use crate::victim::{self, Candidate, Choice, Tier, cover};

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
    let supplies = supplies(index, need, now);
    let units = usize::try_from(need.units).unwrap_or(usize::MAX);
    let chosen = match need.shape {
        ReclaimShape::Anywhere => anywhere(&supplies, units),
        ReclaimShape::PerNode(of_each) => {
            let of_each = usize::try_from(of_each.get()).unwrap_or(usize::MAX);
            per_node(&supplies, of_each, units / of_each)
        }
        ReclaimShape::WholeNodes => whole_nodes(&supplies, units),
    };
    match chosen {
        Some(parts) => Ok(order_of(&supplies, &parts, (index.terms, now))),
        None => Err(Shortfall::TooFew { available: available(&supplies, need.shape) }),
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
        ReclaimShape::PerNode(of_each) if need.units % of_each.get() != 0 => {
            Err(Shortfall::NoMultiple { units: need.units.div_ceil(of_each.get()).saturating_mul(of_each.get()) })
        }
        ReclaimShape::PerNode(_) | ReclaimShape::Anywhere | ReclaimShape::WholeNodes => Ok(()),
    }
}

/// One machine's devices, by how they could be had in time.
struct Supply<'a> {
    node: &'a NodeId,
    site: &'a SiteId,
    /// All its devices of the kind could be had.
    is_whole: bool,
    /// Without anybody's interruption, those that are free soonest first.
    free: Vec<(&'a DeviceView, Timestamp)>,
    /// Best victim first.
    candidates: Vec<Candidate<'a>>,
}

fn supplies<'a>(index: &'a FleetIndex<'_>, need: &Need, now: Timestamp) -> Vec<Supply<'a>> {
    let at_site = |machine: &&MachineIndex<'_>| need.site.as_ref().is_none_or(|site| machine.site == site);
    let lead = lead(index.terms);
    let latest = need.by.minus(lead);
    let by = (latest, need.promises, now);
    index.machines(&need.kind).iter().filter(at_site).map(|machine| Supply::new(machine, by, index.terms)).collect()
}

impl<'a> Supply<'a> {
    fn new(machine: &'a MachineIndex<'_>, by: (Timestamp, Promises, Timestamp), terms: &Terms) -> Self {
        let (latest, _, now) = by;
        let mut free: Vec<(&DeviceView, Timestamp)> = Vec::with_capacity(machine.idle.len());
        free.extend(machine.idle.iter().filter(|device| !device.held).map(|device| (*device, now)));
        let mut candidates = Vec::new();
        for tenant in &machine.tenants {
            let devices = tenant.devices.iter().copied().filter(|device| !device.held);
            match end_anyway(tenant.lease) {
                Some(end) if end <= latest => free.extend(devices.map(|device| (device, end.plus(lead(terms))))),
                _ => {
                    let devices: Vec<_> = devices.collect();
                    candidates.extend(
                        candidate(tenant.lease, by).filter(|_| !devices.is_empty()).map(|one| Candidate { devices, ..one }),
                    );
                }
            }
        }
        free.sort_by(|a, b| (a.1, &a.0.id).cmp(&(b.1, &b.0.id)));
        victim::sort(&mut candidates);
        let sold: usize = candidates.iter().map(|one| one.devices.len()).sum();
        let is_whole = free.len() + sold == machine.total;
        Self { node: machine.node, site: machine.site, is_whole, free, candidates }
    }

    /// The least loss that gives so many units here by leases up to a tier; `None` if they are not enough.
    fn solve(&self, units: usize, tier: Option<Tier>) -> Option<Choice> {
        let needed = units.saturating_sub(self.free.len());
        let allowed: Vec<&Candidate<'_>> = self.candidates.iter().take_while(|one| Some(one.tier) <= tier).collect();
        cover(&allowed, needed)
    }
}

/// When a lease ends without this order: it was told, its window is over, or another order ends it.
fn end_anyway(lease: &LeaseView) -> Option<Timestamp> {
    let told = match lease.stage {
        LeaseStage::Ending { deadline, .. } => Some(deadline),
        LeaseStage::Pending | LeaseStage::Active => None,
    };
    let window = lease.ends_at.filter(|_| lease.stage == LeaseStage::Active);
    let ordered = lease.stake.ordered.map(|ordered| ordered.deadline);
    [told, window, ordered].into_iter().flatten().min()
}

/// A lease that may be ended by then, without its devices. What is told already cannot be told sooner.
fn candidate(lease: &LeaseView, (latest, promises, now): (Timestamp, Promises, Timestamp)) -> Option<Candidate<'_>> {
    if lease.holder == Holder::Internal || lease.stage != LeaseStage::Active || lease.stake.ordered.is_some() {
        return None;
    }
    let earliest = lease.reclaim_deadline(now)?;
    let breaks_promise = earliest > latest;
    if latest < now || (breaks_promise && promises == Promises::Kept) {
        return None;
    }
    let tier = Tier { breaks_promise, notice: lease.notice };
    let loss = victim::loss(lease, tier, latest);
    Some(Candidate { lease, deadline: latest, tier, loss, devices: Vec::new() })
}

/// What is taken of one machine: so many units, by these victims.
struct Part {
    supply: usize,
    units: usize,
    choice: Choice,
}

/// The tiers there are, gentlest first; nobody is interrupted in the first.
fn tiers(supplies: &[Supply<'_>]) -> Vec<Option<Tier>> {
    let mut tiers: Vec<Tier> = supplies.iter().flat_map(|supply| supply.candidates.iter().map(|one| one.tier)).collect();
    tiers.sort_unstable();
    tiers.dedup();
    std::iter::once(None).chain(tiers.into_iter().map(Some)).collect()
}

fn anywhere(supplies: &[Supply<'_>], units: usize) -> Option<Vec<Part>> {
    let free: usize = supplies.iter().map(|supply| supply.free.len()).sum();
    let needed = units.saturating_sub(free);
    let places = || supplies.iter().enumerate().flat_map(|(at, supply)| (0..supply.candidates.len()).map(move |place| (at, place)));
    let candidate = |(at, place): (usize, usize)| &supplies[at].candidates[place];
    let mut sizes: BTreeMap<Tier, usize> = BTreeMap::new();
    places().map(candidate).for_each(|one| *sizes.entry(one.tier).or_default() += one.devices.len());
    let mut reachable = 0;
    let enough = sizes.into_iter().find(|(_, size)| {
        reachable += size;
        reachable >= needed
    });
    let tier = if needed == 0 { None } else { Some(enough?.0) };
    let allowed: Vec<(usize, usize)> = places().filter(|place| Some(candidate(*place).tier) <= tier).collect();
    let pool: Vec<&Candidate<'_>> = allowed.iter().map(|place| candidate(*place)).collect();
    let choice = cover(&pool, needed)?;
    let mut parts: Vec<Part> = Vec::with_capacity(supplies.len());
    parts.extend((0..supplies.len()).map(|supply| Part {
        supply,
        units: 0,
        choice: Choice { loss: 0, count: 0, chosen: Vec::new() },
    }));
    let mut left = units;
    for (part, supply) in parts.iter_mut().zip(supplies) {
        part.units = supply.free.len().min(left);
        left -= part.units;
    }
    for place in choice.chosen {
        let (at, place) = allowed[place];
        parts[at].choice.chosen.push(place);
        let of_it = supplies[at].candidates[place].devices.len().min(left);
        parts[at].units += of_it;
        left -= of_it;
    }
    parts.retain(|part| part.units > 0);
    Some(parts)
}

fn per_node(supplies: &[Supply<'_>], of_each: usize, machines: usize) -> Option<Vec<Part>> {
    for tier in tiers(supplies) {
        let solved = supplies.iter().enumerate().filter_map(|(at, supply)| Some((supply.solve(of_each, tier)?, at)));
        let mut solved: Vec<(Choice, usize)> = solved.collect();
        if solved.len() >= machines {
            solved.sort_by(|(one, at), (other, other_at)| (one.loss, one.count, at).cmp(&(other.loss, other.count, other_at)));
            solved.truncate(machines);
            return Some(solved.into_iter().map(|(choice, supply)| Part { supply, units: of_each, choice }).collect());
        }
    }
    None
}

/// The machines with the least loss per unit, until it is enough; those without which it still is are dropped in reverse.
fn whole_nodes(supplies: &[Supply<'_>], units: usize) -> Option<Vec<Part>> {
    let size = |supply: &Supply<'_>| supply.free.len() + supply.candidates.iter().map(|one| one.devices.len()).sum::<usize>();
    for tier in tiers(supplies) {
        let whole = supplies.iter().enumerate().filter(|(_, supply)| supply.is_whole);
        let mut parts: Vec<Part> = whole
            .filter_map(|(at, supply)| Some(Part { supply: at, units: size(supply), choice: supply.solve(size(supply), tier)? }))
            .collect();
        if parts.iter().map(|part| part.units).sum::<usize>() < units {
            continue;
        }
        let widened = |units: usize| i128::try_from(units).unwrap_or(i128::MAX);
        parts.sort_by(|one, other| {
            let of_one = one.choice.loss.saturating_mul(widened(other.units));
            let of_other = other.choice.loss.saturating_mul(widened(one.units));
            of_one.cmp(&of_other).then((one.choice.count, one.supply).cmp(&(other.choice.count, other.supply)))
        });
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
        return Some(parts);
    }
    None
}

fn order_of(supplies: &[Supply<'_>], parts: &[Part], (terms, now): (&Terms, Timestamp)) -> Order {
    let mut order = Order::default();
    for part in parts {
        let supply = &supplies[part.supply];
        let chosen = || part.choice.chosen.iter().map(|place| &supply.candidates[*place]);
        let freed = chosen().flat_map(|one| one.devices.iter().map(|device| (*device, one.deadline.plus(lead(terms)))));
        let devices = supply.free.iter().copied().chain(freed).take(part.units).map(|(device, free_at)| OrderedDevice {
            device: device.id.clone(),
            node: supply.node.clone(),
            site: supply.site.clone(),
            lease: device.used_by.clone(),
            free_at,
        });
        order.devices.extend(devices);
        order.victims.extend(chosen().map(|one| victim_of(one, terms, now)));
    }
    order.devices.sort_by(|a, b| (&a.node, &a.device).cmp(&(&b.node, &b.device)));
    order.victims.sort_by(|a, b| a.lease.cmp(&b.lease));
    order
}

fn victim_of(candidate: &Candidate<'_>, terms: &Terms, now: Timestamp) -> OrderedVictim {
    let Candidate { lease, deadline, tier, .. } = candidate;
    // It is told a little early, for the time between decision and effect.
    let told = deadline.minus(lease.notice.notice().unwrap_or(DurationMs::ZERO)).minus(terms.slack);
    let work = lease.stake.at_risk_since.map_or(0, |since| deadline.since(since).millis().max(0));
    OrderedVictim {
        lease: lease.id.clone(),
        generation: lease.generation,
        notice: lease.notice,
        end: OrderedEnd { tell_at: told.max(now), deadline: *deadline, breaks_promise: tier.breaks_promise },
        lost: DurationMs::from_millis(work.saturating_mul(i64::from(lease.units))),
    }
}

/// Units of a need's shape that come without anybody's interruption.
fn free_anyway(index: &FleetIndex<'_>, need: &Need, now: Timestamp) -> u32 {
    let supplies = supplies(index, need, now);
    shaped(&supplies, need.shape, |supply| supply.free.len(), |supply| supply.is_whole && supply.candidates.is_empty())
}

/// Units of a shape that could be had with all that may be taken.
fn available(supplies: &[Supply<'_>], shape: ReclaimShape) -> u32 {
    let all = |supply: &Supply<'_>| supply.free.len() + supply.candidates.iter().map(|one| one.devices.len()).sum::<usize>();
    shaped(supplies, shape, all, |supply| supply.is_whole)
}

fn shaped(
    supplies: &[Supply<'_>],
    shape: ReclaimShape,
    units: impl Fn(&Supply<'_>) -> usize,
    is_whole: impl Fn(&Supply<'_>) -> bool,
) -> u32 {
    let of = |supply: &Supply<'_>| match shape {
        ReclaimShape::Anywhere => units(supply),
        ReclaimShape::PerNode(of_each) => {
            let of_each = usize::try_from(of_each.get()).unwrap_or(usize::MAX);
            if units(supply) >= of_each { of_each } else { 0 }
        }
        ReclaimShape::WholeNodes => {
            if is_whole(supply) {
                units(supply)
            } else {
                0
            }
        }
    };
    count(supplies.iter().map(of).sum())
}
