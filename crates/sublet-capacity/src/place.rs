//! Placement: all of a request on one machine, or a refusal.

use std::collections::{BTreeMap, HashMap};

use sublet_core::device::DeviceKind;
use sublet_core::id::{DeviceId, NodeId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;

use crate::curve::Room;
use crate::refusal::{Alternative, Refusal, RefusalReason};
use crate::reserve::{KindFigures, figures, room_at, room_of, rooms_for};
use crate::snapshot::{DeviceView, Snapshot, count};

/// Capacity that somebody asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub kind: DeviceKind,
    pub units: u32,
    pub notice: NoticeClass,
    pub holder: Holder,
    /// A hard constraint; `None` is anywhere.
    pub site: Option<SiteId>,
    /// A hard constraint: the weakest separation that is good enough.
    pub isolation: IsolationLevel,
}

impl Request {
    /// Whether the hard constraints allow this device, free or not.
    pub(crate) fn accepts(&self, device: &DeviceView) -> bool {
        let is_held_back = device.held && self.holder == Holder::External;
        device.kind == self.kind
            && device.isolation >= self.isolation
            && !is_held_back
            && self.site.as_ref().is_none_or(|site| device.site == *site)
    }
}

/// Where a request goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    pub site: SiteId,
    pub node: NodeId,
    pub devices: Vec<DeviceId>,
    /// What the decision was made from.
    pub figures: KindFigures,
    pub largest: u32,
}

/// How much could be placed now, and what that was made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Availability {
    /// Devices of the kind, at the site if one is named.
    pub total: u32,
    /// The largest request that [`place`] would place.
    pub units: u32,
    pub figures: KindFigures,
}

/// The largest request of this kind, notice, holder and site that would be placed; `units` is ignored.
pub fn available(snapshot: &Snapshot, request: &Request) -> Availability {
    let shelf = Shelf::new(snapshot, request);
    let figures = shelf.figures;
    let total = match &request.site {
        None => figures.total,
        Some(site) => count(snapshot.devices_of(&request.kind).filter(|device| device.site == *site).count()),
    };
    Availability { total, units: shelf.units(request.notice, request.site.as_ref()), figures }
}

/// What one kind has for a holder who asks for some isolation: gone through once, and asked for every notice and site.
struct Shelf<'a> {
    figures: KindFigures,
    holder: Holder,
    rooms: Option<BTreeMap<&'a SiteId, Room>>,
    /// The most idle units on one machine of each site.
    largest: BTreeMap<&'a SiteId, u32>,
}

impl<'a> Shelf<'a> {
    /// Of a request its kind, holder and isolation.
    fn new(snapshot: &'a Snapshot, request: &Request) -> Self {
        let anywhere = Request { site: None, ..request.clone() };
        let mut machines: HashMap<&NodeId, (&SiteId, u32)> = HashMap::new();
        for device in snapshot.devices.iter().filter(|device| device.is_idle() && anywhere.accepts(device)) {
            machines.entry(&device.node).or_insert((&device.site, 0)).1 += 1;
        }
        let mut largest: BTreeMap<&SiteId, u32> = BTreeMap::new();
        for (site, units) in machines.into_values() {
            let most = largest.entry(site).or_default();
            *most = units.max(*most);
        }
        let (figures, rooms) = (figures(snapshot, &request.kind), rooms_for(snapshot, request));
        Self { figures, holder: request.holder, rooms, largest }
    }

    /// The largest request at a notice that would be placed, at a site or anywhere.
    fn units(&self, notice: NoticeClass, site: Option<&SiteId>) -> u32 {
        let there = self.largest.iter().filter(|(known, _)| site.is_none_or(|site| site == **known));
        let most = there.map(|(site, most)| room_at(self.rooms.as_ref(), site, notice).min(*most)).max().unwrap_or(0);
        most.min(self.figures.sellable(self.holder, notice))
    }
}

/// Places a request, or says why not and what would work. Nothing is relaxed.
pub fn place(snapshot: &Snapshot, request: &Request) -> Result<Placement, Refusal> {
    try_place(snapshot, request).map_err(|reason| refuse(snapshot, request, reason))
}

/// The refusal of a request, with what would work: every alternative is tried.
pub fn refuse(snapshot: &Snapshot, request: &Request, reason: RefusalReason) -> Refusal {
    Refusal { reason, alternatives: alternatives(snapshot, request), figures: Box::new(figures(snapshot, &request.kind)) }
}

/// As [`place`], and only why not.
pub fn try_place(snapshot: &Snapshot, request: &Request) -> Result<Placement, RefusalReason> {
    let figures = &figures(snapshot, &request.kind);
    check_possible(snapshot, request, figures)?;
    let sellable = figures.sellable(request.holder, request.notice);
    if request.units > figures.idle {
        return Err(RefusalReason::NotIdle { idle: figures.idle });
    }
    if request.units > sellable {
        return Err(refused_by_rule(snapshot, request, figures, sellable));
    }
    let rooms = rooms_for(snapshot, request);
    let nodes = snapshot.idle_by_node(request);
    let unbound = nodes.values().map(|devices| count(devices.len())).max().unwrap_or(0);
    let room = |devices: &Vec<&DeviceView>| room_of(rooms.as_ref(), devices, request.notice).min(count(devices.len()));
    let largest = nodes.values().map(&room).max().unwrap_or(0);
    // The machine that is left with the fewest free units keeps larger gaps whole elsewhere.
    let best = nodes.into_iter().filter(|(_, devices)| room(devices) >= request.units).min_by_key(|(_, devices)| devices.len());
    let Some((node, devices)) = best else {
        if unbound >= request.units {
            return Err(refused_by_room(snapshot, request).unwrap_or(RefusalReason::Fragmented { sellable, largest }));
        }
        return Err(RefusalReason::Fragmented { sellable, largest });
    };
    let wanted = usize::try_from(request.units).unwrap_or(usize::MAX);
    let chosen: Vec<&DeviceView> = devices.into_iter().take(wanted).collect();
    let site = chosen.first().map(|device| device.site.clone()).ok_or(RefusalReason::NoUnits)?;
    let devices = chosen.into_iter().map(|device| device.id.clone()).collect();
    Ok(Placement { site, node: node.clone(), devices, figures: *figures, largest })
}

/// What no freeing of capacity would change.
pub(crate) fn check_possible(snapshot: &Snapshot, request: &Request, figures: &KindFigures) -> Result<(), RefusalReason> {
    if request.units == 0 {
        return Err(RefusalReason::NoUnits);
    }
    if figures.total == 0 {
        return Err(RefusalReason::UnknownKind { known: snapshot.kinds().into_iter().cloned().collect() });
    }
    if let Some(site) = &request.site {
        let mut known: Vec<SiteId> = snapshot.devices_of(&request.kind).map(|device| device.site.clone()).collect();
        known.sort();
        known.dedup();
        if !known.contains(site) {
            return Err(RefusalReason::UnknownSite { known });
        }
    }
    let best = snapshot.devices_of(&request.kind).map(|device| device.isolation).max();
    if let Some(achieved) = best.filter(|best| *best < request.isolation) {
        return Err(RefusalReason::Isolation { required: request.isolation, achieved });
    }
    if request.units > figures.healthy {
        return Err(RefusalReason::AboveHealthy { healthy: figures.healthy });
    }
    Ok(())
}

/// The site with most room for the request, and why it has no more.
fn refused_by_room(snapshot: &Snapshot, request: &Request) -> Option<RefusalReason> {
    let rooms = rooms_for(snapshot, request)?;
    let asked = rooms.into_iter().filter(|(site, _)| request.site.as_ref().is_none_or(|wanted| wanted == *site));
    asked.max_by_key(|(_, room)| room.units(request.notice)).map(|(_, room)| room.refusal(request.notice))
}

fn refused_by_rule(snapshot: &Snapshot, request: &Request, figures: &KindFigures, sellable: u32) -> RefusalReason {
    let by_reserve = KindFigures { room: None, outside: 0, ..*figures }.sellable(request.holder, request.notice);
    if request.units <= by_reserve
        && let Some(reason) = refused_by_room(snapshot, request)
    {
        return reason;
    }
    let headroom = figures.firm_headroom();
    if request.notice == NoticeClass::Firm && headroom < figures.above_reserve() {
        return RefusalReason::FirmSoldOut { headroom, reserve: figures.reserve, firm: figures.firm };
    }
    RefusalReason::Reserved { idle: figures.idle.saturating_sub(figures.outside), kept: figures.kept, sellable }
}

/// Requests near the refused one that would be placed now: the same with each shorter notice, fewer
/// units, another site, each other kind.
fn alternatives(snapshot: &Snapshot, request: &Request) -> Vec<Alternative> {
    let shelf = Shelf::new(snapshot, request);
    let fits = |units: u32| request.units > 0 && units >= request.units;
    let mut found = Vec::new();
    let shorter = NoticeClass::ALL.into_iter().rev().filter(|notice| *notice < request.notice);
    let shorter = shorter.filter(|notice| fits(shelf.units(*notice, request.site.as_ref())));
    found.extend(shorter.map(|notice| Alternative::ShorterNotice { notice }));
    let units = shelf.units(request.notice, request.site.as_ref());
    if units > 0 && units < request.units {
        found.push(Alternative::FewerUnits { units });
    }
    if request.site.is_some() {
        let site = shelf.largest.keys().find(|site| fits(shelf.units(request.notice, Some(**site))));
        found.extend(site.map(|site| Alternative::OtherSite { site: (*site).clone() }));
    }
    let of_kind = |kind: &DeviceKind| Shelf::new(snapshot, &Request { kind: kind.clone(), ..request.clone() });
    let is_other = |kind: &&DeviceKind| **kind != request.kind && fits(of_kind(kind).units(request.notice, request.site.as_ref()));
    let others = snapshot.kinds().into_iter().filter(is_other);
    found.extend(others.map(|kind| Alternative::OtherKind { kind: kind.clone() }));
    found
}
