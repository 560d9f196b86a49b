//! What has to hold, computed straight from devices and leases and not by the code under test.

use std::collections::{BTreeMap, BTreeSet};

use sublet_capacity::{Curve, DeviceView, LeaseStage, LeaseView, Need, Order, Placement, Pool, ReclaimPlan, Request, SellingMode};
use sublet_core::Timestamp;
use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::id::{DeviceId, LeaseId, NodeId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::reclaim::{Promises, ReclaimShape};

use super::world::{GRACE, SLACK, World};

/// What was broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// No unit is sold twice.
    SoldOnce,
    /// No firm lease is evicted.
    FirmStays,
    /// Whoever is taken back gets the notice that was sold.
    NoticeKept,
    /// The owner's teams have their units when they were told.
    InTime,
    /// What is quoted is placed as shown, and no more could be.
    QuoteHolds,
    /// What the owner keeps, holds, uses and learned is not sold.
    KeptBack,
    /// Nobody is told before it is known that the newcomer then fits.
    FitsFirst,
    /// Nobody is told in vain.
    NobodyInVain,
    /// The same snapshot has the same answer, in whatever order.
    Same,
    /// Nobody is told again, and nothing is due twice.
    Once,
    /// What was sold is not taken back while nothing changes.
    Calm,
    /// A step is of a lease as it is.
    Exists,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    pub rule: Rule,
    pub detail: String,
}

pub type Checked<T = ()> = Result<T, Broken>;

pub fn hold(rule: Rule, holds: bool, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Broken { rule, detail: detail() }) }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap()
}

/// The earliest end of a lease that is told at that instant; `None` of a firm one.
pub fn earliest_end(lease: &LeaseView, told_at: Timestamp) -> Option<Timestamp> {
    let notice = lease.notice.notice()?;
    let earliest = told_at.plus(notice).max(lease.starts_at.plus(lease.notice.minimum_term()));
    Some(lease.ends_at.map_or(earliest, |ends_at| earliest.min(ends_at)))
}

/// Of each lease, its devices are those that say so, and as many as it was sold.
pub fn books(world: &World) -> Checked {
    let mut used: BTreeMap<&LeaseId, BTreeSet<&DeviceId>> = BTreeMap::new();
    let mut promised = used.clone();
    for device in &world.snapshot.devices {
        for (users, map) in [(&device.used_by, &mut used), (&device.promised_to, &mut promised)] {
            if let Some(id) = users {
                map.entry(id).or_default().insert(&device.id);
            }
        }
    }
    for (id, lease) in &world.snapshot.leases {
        let memory: BTreeSet<&DeviceId> = world.memory[id].devices.iter().collect();
        let waits = world.memory[id].ready_at.is_some();
        let (has, other) = if waits { (promised.remove(id), used.remove(id)) } else { (used.remove(id), promised.remove(id)) };
        let has = has.unwrap_or_default();
        let is_whole = has == memory && number(has.len()) == lease.units && other.is_none();
        hold(Rule::SoldOnce, is_whole, || format!("{id} has {has:?} of {} {memory:?}", lease.units))?;
    }
    hold(Rule::SoldOnce, used.is_empty() && promised.is_empty(), || format!("nobody's: {used:?} {promised:?}"))
}

/// Units of a kind by what they do; of healthy devices.
#[derive(Default)]
struct Stock {
    healthy: u32,
    external: u32,
    internal: u32,
    promised_free: u32,
    promised_to_teams: u32,
    held: u32,
    firm: u32,
    /// Of what looks free.
    outside: u32,
    /// Of it, what is held.
    outside_held: u32,
}

fn stock(world: &World, kind: &DeviceKind) -> Stock {
    let mut stock = Stock::default();
    let is_healthy = |health| health == DeviceHealth::Healthy;
    for device in world.snapshot.devices.iter().filter(|device| device.kind == *kind && is_healthy(device.health)) {
        stock.healthy += 1;
        let is_team = |id: &LeaseId| world.snapshot.leases[id].holder == Holder::Internal;
        stock.promised_to_teams += u32::from(device.promised_to.as_ref().is_some_and(is_team));
        match (&device.used_by, &device.promised_to) {
            (Some(id), _) if is_team(id) => stock.internal += 1,
            (Some(_), _) => stock.external += 1,
            (None, Some(_)) => stock.promised_free += 1,
            (None, None) => stock.held += u32::from(device.held),
        }
    }
    for lease in world.snapshot.leases.values().filter(|lease| lease.kind == *kind) {
        stock.firm += if lease.holder == Holder::External && lease.notice == NoticeClass::Firm { lease.units } else { 0 };
    }
    for id in occupied(world) {
        let device = world.device(&id).expect("it is there");
        stock.outside += u32::from(device.kind == *kind);
        stock.outside_held += u32::from(device.kind == *kind && device.held);
    }
    stock
}

/// Devices that count as used outside: of each pool as many as are, the last ones that nobody holds first.
fn occupied(world: &World) -> BTreeSet<DeviceId> {
    let mut occupied = BTreeSet::new();
    for (pool, view) in &world.snapshot.selling.pools {
        let is_free = |device: &&DeviceView| {
            device.health == DeviceHealth::Healthy && device.used_by.is_none() && device.promised_to.is_none()
        };
        let there = world.snapshot.devices.iter().filter(|device| device.kind == pool.kind && device.site == pool.site);
        let mut free: Vec<&DeviceView> = there.filter(is_free).collect();
        free.sort_by_key(|device| (device.held, std::cmp::Reverse((&device.node, &device.id))));
        occupied.extend(free.into_iter().take(usize::try_from(view.outside).unwrap()).map(|device| device.id.clone()));
    }
    occupied
}

/// Units of a pool that are held for the owner's teams and count as used outside.
pub fn outside_held(world: &World, pool: &Pool) -> u32 {
    let occupied = occupied(world);
    let of_held = world.snapshot.devices.iter().filter(|device| {
        let is_there = device.kind == pool.kind && device.site == pool.site;
        is_there && device.held && occupied.contains(&device.id)
    });
    number(of_held.count())
}

fn reserve(world: &World, healthy: u32) -> u32 {
    let rule = world.snapshot.terms.reserve;
    rule.minimum_units.max((healthy * rule.fraction_thousandths).div_ceil(1_000)).min(healthy)
}

/// Units of a pool that are promised for the term of a class, from now on.
pub fn committed(world: &World, (kind, site): (&DeviceKind, &SiteId), class: NoticeClass) -> u32 {
    let in_pool = world.snapshot.devices.iter().filter(|device| device.kind == *kind && device.site == *site);
    let counted = in_pool.filter(|device| {
        let Some(lease) = world.lease_of(device) else {
            return false;
        };
        let is_long = match lease.stage {
            LeaseStage::Ending { deadline, .. } => class < lease.notice && deadline >= world.now.plus(class.minimum_term()),
            LeaseStage::Pending | LeaseStage::Active => lease.notice >= class,
        };
        let is_there = device.health == DeviceHealth::Healthy && device.promised_to.is_none();
        lease.holder == Holder::External && is_there && (is_long || class == NoticeClass::N0)
    });
    number(counted.count())
}

/// Whether so many more units of a site may be sold by what is learned and used outside.
fn site_allows(world: &World, request: &Request, site: &SiteId, units: u32) -> bool {
    let selling = &world.snapshot.selling;
    let free = world.snapshot.devices.iter().filter(|device| {
        let is_free = device.health == DeviceHealth::Healthy && device.used_by.is_none() && device.promised_to.is_none();
        device.kind == request.kind && device.site == *site && is_free && !device.held
    });
    let view = selling.pools.iter().find(|(pool, _)| pool.kind == request.kind && pool.site == *site).map(|(_, view)| *view);
    let view = view.unwrap_or_default();
    let is_within = |levels: &[sublet_capacity::Level; 6]| {
        NoticeClass::ALL
            .into_iter()
            .zip(levels)
            .all(|(class, level)| class > request.notice || committed(world, (&request.kind, site), class) + units <= level.units)
    };
    let by_rule = match (selling.mode, &view.curve) {
        (SellingMode::Static | SellingMode::Shadow, _) => true,
        (SellingMode::Learned, Curve::Fresh(levels)) => is_within(levels),
        (SellingMode::Learned, Curve::Missing | Curve::Stale) | (SellingMode::Nothing, _) => false,
    };
    by_rule && number(free.count()) >= units + view.outside
}

/// Whether a site has so many units beside those that are used outside.
fn has_free(world: &World, request: &Request, site: &SiteId, units: u32) -> bool {
    let occupied = occupied(world);
    let there = world.snapshot.devices.iter().filter(|device| device.kind == request.kind && device.site == *site);
    let free = there.filter(|device| {
        let is_free = device.health == DeviceHealth::Healthy && device.used_by.is_none() && device.promised_to.is_none();
        is_free && !occupied.contains(&device.id)
    });
    number(free.count()) >= units
}

/// Whether a customer may have so many more units of a kind, wherever they are.
fn kind_allows(world: &World, request: &Request, units: u32) -> bool {
    let stock = stock(world, &request.kind);
    let reserve = reserve(world, stock.healthy);
    let own = reserve.saturating_sub(stock.internal).saturating_sub(stock.promised_to_teams).max(stock.outside);
    let all = units + stock.external + stock.internal + stock.promised_free + stock.held - stock.outside_held + own;
    all <= stock.healthy && (request.notice != NoticeClass::Firm || stock.firm + reserve + units <= stock.healthy)
}

/// What of a machine is free for a request.
fn free_for(world: &World, request: &Request, node: &NodeId) -> u32 {
    let free = world.snapshot.devices.iter().filter(|device| {
        let is_free = device.health == DeviceHealth::Healthy && device.used_by.is_none() && device.promised_to.is_none();
        let is_wanted = request.site.as_ref().is_none_or(|site| device.site == *site) && device.isolation >= request.isolation;
        device.node == *node
            && device.kind == request.kind
            && is_free
            && is_wanted
            && (request.holder == Holder::Internal || !device.held)
    });
    number(free.count())
}

fn nodes(world: &World) -> BTreeMap<&NodeId, &SiteId> {
    world.snapshot.devices.iter().map(|device| (&device.node, &device.site)).collect()
}

/// The largest request of this sort that fits on one machine and takes nothing that is kept back.
pub fn most(world: &World, request: &Request) -> u32 {
    let customer = |site: &SiteId, units| site_allows(world, request, site, units) && kind_allows(world, request, units);
    let allows = |site: &SiteId, units| match request.holder {
        Holder::Internal => has_free(world, request, site, units),
        Holder::External => customer(site, units),
    };
    let on = |(node, site): (&NodeId, &SiteId)| {
        (1..=free_for(world, request, node)).rev().find(|units| allows(site, *units)).unwrap_or(0)
    };
    nodes(world).into_iter().map(on).max().unwrap_or(0)
}

/// What was placed is free, on one machine, and not kept back.
pub fn placement(world: &World, request: &Request, placed: &Placement) -> Checked {
    let devices: BTreeSet<&DeviceId> = placed.devices.iter().collect();
    hold(Rule::SoldOnce, number(devices.len()) == request.units && devices.len() == placed.devices.len(), || {
        format!("{placed:?}")
    })?;
    for id in devices {
        let device = world.device(id).ok_or_else(|| Broken { rule: Rule::Exists, detail: format!("{id} is no device") })?;
        let is_free = device.health == DeviceHealth::Healthy && device.used_by.is_none() && device.promised_to.is_none();
        hold(Rule::SoldOnce, is_free, || format!("{device:?} is placed"))?;
        let is_wanted = device.kind == request.kind
            && device.isolation >= request.isolation
            && request.site.as_ref().is_none_or(|site| device.site == *site);
        hold(Rule::QuoteHolds, is_wanted && device.node == placed.node && device.site == placed.site, || format!("{device:?}"))?;
        hold(Rule::KeptBack, request.holder == Holder::Internal || !device.held, || format!("{id} is held"))?;
    }
    let allowed = match request.holder {
        Holder::Internal => has_free(world, request, &placed.site, request.units),
        Holder::External => site_allows(world, request, &placed.site, request.units) && kind_allows(world, request, request.units),
    };
    hold(Rule::KeptBack, allowed, || format!("{} at {} on {}", request.units, request.notice, placed.node))
}

/// May be taken back at all.
fn is_victim(lease: &LeaseView) -> bool {
    lease.holder == Holder::External && lease.notice != NoticeClass::Firm && lease.stage == LeaseStage::Active
}

/// Of a machine, for a team's lease: units that come anyway, and those of each lease that may be taken back.
fn reachable<'a>(world: &'a World, request: &Request, node: &NodeId) -> (u32, BTreeMap<&'a LeaseId, u32>) {
    let (mut free, mut sold, occupied) = (0, BTreeMap::new(), occupied(world));
    for device in world.snapshot.devices.iter().filter(|device| device.node == *node && device.kind == request.kind) {
        let is_wanted = request.site.as_ref().is_none_or(|site| device.site == *site) && device.isolation >= request.isolation;
        if !is_wanted || device.health != DeviceHealth::Healthy || device.promised_to.is_some() || occupied.contains(&device.id) {
            continue;
        }
        match world.lease_of(device) {
            None => free += 1,
            Some(lease) if matches!(lease.stage, LeaseStage::Ending { .. }) => free += 1,
            Some(lease) if is_victim(lease) => *sold.entry(&lease.id).or_insert(0) += 1,
            Some(_) => {}
        }
    }
    (free, sold)
}

/// Units of a machine that nobody has.
fn idle_on(world: &World, request: &Request, node: &NodeId) -> u32 {
    let there = world.snapshot.devices.iter().filter(|device| device.node == *node && device.kind == request.kind);
    let idle =
        there.filter(|device| device.health == DeviceHealth::Healthy && device.used_by.is_none() && device.promised_to.is_none());
    number(idle.count())
}

/// The longest notice that has to be touched on the best machine; `None` if none will do, `Some(None)` if nobody has to go.
fn gentlest(world: &World, request: &Request) -> Option<Option<NoticeClass>> {
    let of = |node: &NodeId| {
        let (free, sold) = reachable(world, request, node);
        let upto =
            |class| sold.iter().filter(|(id, _)| world.snapshot.leases[**id].notice <= class).map(|(_, units)| units).sum::<u32>();
        if free >= request.units {
            return Some(None);
        }
        NoticeClass::ALL.into_iter().find(|class| free + upto(*class) >= request.units).map(Some)
    };
    nodes(world).into_keys().filter_map(of).min()
}

/// No machine could have a team's request, whoever went.
pub fn not_reclaimable(world: &World, request: &Request) -> Checked {
    let is_possible = request.units > 0 && gentlest(world, request).is_some();
    hold(Rule::InTime, !is_possible, || format!("{request:?} was refused and is possible"))
}

/// It fits once the victims are gone, none of them is firm, none is needless, and no gentler choice is there.
pub fn reclaim(world: &World, request: &Request, plan: &ReclaimPlan) -> Checked {
    let (free, sold) = reachable(world, request, &plan.node);
    let victims: BTreeSet<&LeaseId> = plan.victims.iter().map(|victim| &victim.lease).collect();
    for victim in &plan.victims {
        let lease = world.snapshot.leases.get(&victim.lease);
        let lease = lease.ok_or_else(|| Broken { rule: Rule::Exists, detail: format!("{victim:?}") })?;
        hold(Rule::FirmStays, lease.notice != NoticeClass::Firm, || format!("{victim:?}"))?;
        hold(Rule::Exists, is_victim(lease) && lease.generation == victim.generation, || format!("{victim:?} is {lease:?}"))?;
        hold(Rule::NoticeKept, Some(victim.deadline) >= earliest_end(lease, world.now), || format!("{victim:?} of {lease:?}"))?;
    }
    let with = |gone: &dyn Fn(&LeaseId) -> bool| free + sold.iter().filter(|(id, _)| gone(id)).map(|(_, units)| units).sum::<u32>();
    // Which free devices are used outside is not known: who needs nobody to go may get any of a machine's.
    let is_enough = match plan.victims.is_empty() && plan.free_now {
        true => idle_on(world, request, &plan.node) >= request.units && has_free(world, request, &plan.site, request.units),
        false => with(&|id| victims.contains(id)) >= request.units,
    };
    hold(Rule::FitsFirst, is_enough && number(plan.devices.len()) == request.units, || format!("{plan:?}"))?;
    let mut ready_at = world.now;
    for id in plan.devices.iter().collect::<BTreeSet<_>>() {
        let device = world.device(id).filter(|device| device.node == plan.node && device.kind == request.kind);
        let device = device.ok_or_else(|| Broken { rule: Rule::Exists, detail: format!("{id} of {plan:?}") })?;
        hold(Rule::SoldOnce, device.promised_to.is_none(), || format!("{id} is promised twice"))?;
        let Some(lease) = world.lease_of(device) else {
            continue;
        };
        let victim = plan.victims.iter().find(|victim| victim.lease == lease.id);
        let told = if let LeaseStage::Ending { deadline, .. } = lease.stage { Some(deadline) } else { None };
        let free_at = victim.map(|victim| victim.deadline).or(told);
        hold(Rule::FitsFirst, free_at.is_some(), || format!("{id} stays with {lease:?}"))?;
        ready_at = ready_at.max(free_at.unwrap());
    }
    hold(Rule::InTime, plan.ready_at == ready_at, || format!("it is ready at {ready_at}: {plan:?}"))?;
    for id in &victims {
        let is_needed = with(&|other| victims.contains(other) && other != *id) < request.units;
        hold(Rule::NobodyInVain, is_needed, || format!("{id} of {plan:?}"))?;
    }
    let touched = victims.iter().map(|id| world.snapshot.leases[*id].notice).max();
    let least = gentlest(world, request).flatten();
    hold(Rule::NobodyInVain, touched.is_none() || touched == least, || {
        format!("{touched:?} is touched and {least:?} would do: {plan:?}")
    })
}

/// What the reserve rule keeps for the owner's teams is there at once, one unit at a time.
pub fn is_guaranteed(world: &World, request: &Request) -> bool {
    let stock = stock(world, &request.kind);
    let reserve = reserve(world, stock.healthy);
    let is_simple =
        request.units == 1 && request.site.is_none() && request.isolation == sublet_core::runner::IsolationLevel::Process;
    let used = stock.internal + stock.promised_to_teams + stock.outside;
    is_simple && used < reserve && stock.external + reserve <= stock.healthy
}

/// Leases that end by an instant without this order.
fn leaves(lease: &LeaseView, latest: Timestamp) -> bool {
    let told = if let LeaseStage::Ending { deadline, .. } = lease.stage { Some(deadline) } else { None };
    let window = lease.ends_at.filter(|_| lease.stage == LeaseStage::Active);
    [told, window, lease.stake.ordered.map(|end| end.deadline)].into_iter().flatten().any(|end| end <= latest)
}

fn may_be_ordered(world: &World, need: &Need, lease: &LeaseView) -> bool {
    let latest = need.by.minus(GRACE).minus(SLACK);
    let in_time = earliest_end(lease, world.now.plus(SLACK)).is_some_and(|end| end <= latest);
    let is_open = is_victim(lease) && lease.stake.ordered.is_none() && latest >= world.now;
    is_open && (in_time || need.promises == Promises::MayBreak)
}

/// Free units of each machine by an order's time, and how many it has, once these leases are gone.
fn free_by<'a>(world: &'a World, need: &Need, gone: impl Fn(&LeaseView) -> bool) -> BTreeMap<&'a NodeId, (u32, u32)> {
    let latest = need.by.minus(GRACE).minus(SLACK);
    let (mut nodes, occupied) = (BTreeMap::new(), occupied(world));
    let is_meant = |site: &SiteId| need.site.as_ref().is_none_or(|wanted| wanted == site);
    for device in world.snapshot.devices.iter().filter(|device| device.kind == need.kind && is_meant(&device.site)) {
        let (free, total) = nodes.entry(&device.node).or_insert((0, 0));
        *total += 1;
        let is_open = device.promised_to.is_none() && !device.held && !occupied.contains(&device.id);
        let is_usable = device.health == DeviceHealth::Healthy && is_open;
        let is_free = world.lease_of(device).is_none_or(|lease| leaves(lease, latest) || gone(lease));
        *free += u32::from(is_usable && is_free);
    }
    nodes
}

fn fits(need: &Need, nodes: &BTreeMap<&NodeId, (u32, u32)>) -> bool {
    let sum = match need.shape {
        ReclaimShape::Anywhere => nodes.values().map(|(free, _)| free).sum::<u32>(),
        ReclaimShape::PerNode(each) => nodes.values().filter(|(free, _)| *free >= each.get()).map(|_| each.get()).sum(),
        ReclaimShape::WholeNodes => nodes.values().filter(|(free, total)| free == total).map(|(free, _)| free).sum(),
    };
    sum >= need.units
}

/// Not even all that may be taken back would meet a need.
pub fn not_orderable(world: &World, need: &Need) -> Checked {
    let is_shaped = match need.shape {
        ReclaimShape::PerNode(each) => need.units.is_multiple_of(each.get()),
        ReclaimShape::Anywhere | ReclaimShape::WholeNodes => true,
    };
    let all = free_by(world, need, |lease| may_be_ordered(world, need, lease));
    let is_possible = need.units > 0 && is_shaped && !all.is_empty() && fits(need, &all);
    hold(Rule::InTime, !is_possible, || format!("{need:?} was refused and is possible"))
}

/// An order fits once its victims are gone, touches nobody whom it may not, and nobody in vain.
pub fn order(world: &World, need: &Need, order: &Order) -> Checked {
    let victims: BTreeSet<&LeaseId> = order.victims.iter().map(|victim| &victim.lease).collect();
    for victim in &order.victims {
        let lease = world.snapshot.leases.get(&victim.lease);
        let lease = lease.ok_or_else(|| Broken { rule: Rule::Exists, detail: format!("{victim:?}") })?;
        hold(Rule::FirmStays, lease.notice != NoticeClass::Firm, || format!("{victim:?}"))?;
        hold(Rule::Exists, may_be_ordered(world, need, lease), || format!("{victim:?} is {lease:?} for {need:?}"))?;
        let kept = victim.end.deadline >= victim.end.tell_at.plus(lease.notice.minimum_term())
            || lease.ends_at == Some(victim.end.deadline);
        hold(Rule::NoticeKept, kept || victim.end.breaks_promise, || format!("{victim:?}"))?;
    }
    let gone = |lease: &LeaseView| victims.contains(&lease.id);
    hold(Rule::FitsFirst, fits(need, &free_by(world, need, gone)), || format!("{need:?}: {order:?}"))?;
    let devices: BTreeSet<&DeviceId> = order.devices.iter().map(|one| &one.device).collect();
    let enough =
        number(devices.len()) == need.units || need.shape == ReclaimShape::WholeNodes && number(devices.len()) > need.units;
    hold(Rule::SoldOnce, enough && devices.len() == order.devices.len(), || format!("{need:?}: {order:?}"))?;
    let latest = need.by.minus(GRACE).minus(SLACK);
    for one in &order.devices {
        let device = world.device(&one.device).ok_or_else(|| Broken { rule: Rule::Exists, detail: format!("{one:?}") })?;
        hold(Rule::SoldOnce, !device.held && device.promised_to.is_none(), || format!("{device:?} is somebody's"))?;
        let is_free = device.health == DeviceHealth::Healthy
            && world.lease_of(device).is_none_or(|lease| leaves(lease, latest) || gone(lease));
        hold(Rule::FitsFirst, is_free && one.lease == device.used_by, || format!("{one:?} of {need:?}"))?;
    }
    for id in &victims {
        let others = free_by(world, need, |lease| gone(lease) && lease.id != **id);
        hold(Rule::NobodyInVain, !fits(need, &others), || format!("{id} of {order:?} for {need:?}"))?;
    }
    Ok(())
}
