//! Windows in the future: which devices of one machine are free together for so long, and from when on.
//!
//! Every device has the gaps between its bookings. A request is placed on the same devices from its first instant to its
//! last, so gaps are of devices and never of counts: ten units that are free at every instant, but never the same ten, are
//! not ten units for a day. Beside it each pool has one step function, how many units are free less how many its owner
//! keeps then, and no window takes it below zero.
//!
//! Invariants: no device is booked twice at one instant; what is found can be booked; nothing starts earlier.
//!
//! Deliberately absent: prices, and who may book for how long; leases and orders become bookings in [`Calendar::of`].

use std::collections::{BTreeMap, HashMap};

use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::id::{DeviceId, LeaseId, NodeId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::runner::IsolationLevel;
use sublet_core::{DurationMs, Timestamp};

use crate::curve::Pool;
use crate::snapshot::{LeaseStage, LeaseView, Snapshot, count};

/// From an instant, until before another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Window {
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
}

impl Window {
    fn length(self) -> DurationMs {
        self.ends_at.since(self.starts_at)
    }
}

/// A device is somebody's for a while, such as an order's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Booking {
    pub device: DeviceId,
    pub window: Window,
}

/// What becomes of leases without an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenLeases {
    /// They stay.
    Stay,
    /// A customer's lease makes room once the notice that it was sold could have passed.
    GiveWay,
}

/// How many units of a pool are its owner's from an instant on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    pub from: Timestamp,
    pub units: u32,
}

/// Units of one machine for a while. It begins within `starts`: at its first instant at the earliest, and at its last at the
/// latest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowRequest {
    pub units: u32,
    pub length: DurationMs,
    pub starts: Window,
    pub holder: Holder,
    /// `None` is anywhere.
    pub site: Option<SiteId>,
    pub isolation: IsolationLevel,
}

/// Where a window is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowPlacement {
    pub window: Window,
    pub site: SiteId,
    pub node: NodeId,
    pub devices: Vec<DeviceId>,
}

/// Something near that was tried and is free.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NearWindow {
    pub request: WindowRequest,
    pub placement: WindowPlacement,
}

/// All pools of one kind, up to a horizon.
#[derive(Clone, Debug)]
pub struct Calendar {
    now: Timestamp,
    horizon: Timestamp,
    pools: BTreeMap<SiteId, PoolCalendar>,
}

#[derive(Clone, Default, Debug)]
struct PoolCalendar {
    machines: Vec<MachineCalendar>,
    /// From each instant on, units that are free less those that are kept. Ascending; begins at `now`.
    room: Vec<(Timestamp, i64)>,
    free: Vec<(Timestamp, i64)>,
}

#[derive(Clone, Debug)]
struct MachineCalendar {
    node: NodeId,
    isolation: IsolationLevel,
    devices: Vec<DeviceCalendar>,
}

#[derive(Clone, Debug)]
struct DeviceCalendar {
    id: DeviceId,
    /// Ascending, apart from each other, none empty.
    gaps: Vec<Window>,
}

impl DeviceCalendar {
    /// The first instant from which on it is free for so long.
    fn next_start(&self, from: Timestamp, length: DurationMs) -> Option<Timestamp> {
        let first = self.gaps.partition_point(|gap| gap.ends_at <= from);
        let starts = self.gaps[first..].iter().map(|gap| (gap.starts_at.max(from), gap.ends_at));
        starts.into_iter().find(|(at, ends_at)| at.plus(length) <= *ends_at).map(|(at, _)| at)
    }
    /// The gap that a window lies in.
    fn gap_of(&self, window: Window) -> Option<usize> {
        let place = self.gaps.partition_point(|gap| gap.ends_at < window.ends_at);
        self.gaps.get(place).filter(|gap| gap.starts_at <= window.starts_at).map(|_| place)
    }
    fn book(&mut self, window: Window) -> bool {
        let Some(place) = self.gap_of(window) else { return false };
        let gap = self.gaps.remove(place);
        let after = Window { starts_at: window.ends_at, ends_at: gap.ends_at };
        let before = Window { starts_at: gap.starts_at, ends_at: window.starts_at };
        for part in [after, before].into_iter().filter(|part| part.starts_at < part.ends_at) {
            self.gaps.insert(place, part);
        }
        true
    }
}

impl MachineCalendar {
    /// The first instant of the spans, `latest` at the latest, at which so many devices are free for so long. Each turn moves
    /// to the first instant at which that many could begin if each of them waited for the others, or to the next span; when
    /// nobody has to wait it is found.
    fn earliest(&self, (units, length): (usize, DurationMs), spans: &[Window], latest: Timestamp) -> Option<Timestamp> {
        let mut at = spans.first()?.starts_at;
        let mut next: Vec<Timestamp> = Vec::with_capacity(self.devices.len());
        while at <= latest {
            next.clear();
            next.extend(self.devices.iter().filter_map(|device| device.next_start(at, length)));
            if next.len() < units || units == 0 {
                return None;
            }
            let (_, found, _) = next.select_nth_unstable(units - 1);
            let span = spans.get(spans.partition_point(|span| span.ends_at < *found))?;
            match (*found).max(span.starts_at) {
                found if found == at => return Some(at),
                found => at = found,
            }
        }
        None
    }
    fn free_in(&self, window: Window) -> usize {
        self.devices.iter().filter(|device| device.gap_of(window).is_some()).count()
    }
    /// Devices that are free in a window, those with the shortest gaps first, so that long ones stay whole.
    fn choose(&self, window: Window, units: usize) -> Vec<DeviceId> {
        let gap = |device: &DeviceCalendar| device.gap_of(window).map(|place| device.gaps[place].length());
        let mut free: Vec<_> = self.devices.iter().filter_map(|device| Some((gap(device)?, &device.id))).collect();
        free.sort();
        let mut chosen: Vec<DeviceId> = free.into_iter().take(units).map(|(_, id)| id.clone()).collect();
        chosen.sort();
        chosen
    }
}

impl PoolCalendar {
    /// How much of it bounds whom: a team may have what is kept.
    fn steps(&self, holder: Holder) -> &[(Timestamp, i64)] {
        match holder {
            Holder::Internal => &self.free,
            Holder::External => &self.room,
        }
    }

    /// The spans of instants, within `starts`, from which on so many units may be taken for so long.
    fn open(&self, request: &WindowRequest, horizon: Timestamp) -> Vec<Window> {
        let (steps, length, starts) = (self.steps(request.holder), request.length, request.starts);
        let mut open: Vec<Window> = Vec::new();
        let first = steps.partition_point(|(at, _)| *at <= starts.starts_at).saturating_sub(1);
        let mut since: Option<Timestamp> = None;
        let mut close = |since: Option<Timestamp>, until: Timestamp| {
            let latest = until.minus(length).min(starts.ends_at);
            if let Some(since) = since.filter(|since| *since <= latest) {
                open.push(Window { starts_at: since, ends_at: latest });
            }
        };
        for (at, units) in &steps[first..] {
            if *units >= i64::from(request.units) {
                since = since.or(Some((*at).max(starts.starts_at)));
            } else {
                close(since.take(), *at);
                if *at > starts.ends_at {
                    break;
                }
            }
        }
        close(since, horizon);
        open
    }

    fn earliest(&self, site: &SiteId, request: &WindowRequest, horizon: Timestamp) -> Option<WindowPlacement> {
        let units = usize::try_from(request.units).unwrap_or(usize::MAX);
        let spans = self.open(request, horizon);
        let mut best: Option<(Timestamp, usize, &MachineCalendar)> = None;
        for machine in self.machines.iter().filter(|machine| machine.isolation >= request.isolation) {
            // What is later than the best so far need not be looked for.
            let latest = best.map_or(request.starts.ends_at, |(at, ..)| at);
            let Some(at) = machine.earliest((units, request.length), &spans, latest) else { continue };
            let free = machine.free_in(Window { starts_at: at, ends_at: at.plus(request.length) });
            if best.is_none_or(|(known, least, _)| (at, free) < (known, least)) {
                best = Some((at, free, machine));
            }
        }
        let (at, _, machine) = best?;
        let window = Window { starts_at: at, ends_at: at.plus(request.length) };
        let devices = machine.choose(window, units);
        Some(WindowPlacement { window, site: site.clone(), node: machine.node.clone(), devices })
    }

    /// Units less, from the first instant of a window to its last.
    fn take(&mut self, window: Window, units: i64) {
        for steps in [&mut self.free, &mut self.room] {
            for at in [window.starts_at, window.ends_at] {
                let place = steps.partition_point(|(step, _)| *step < at);
                if place > 0 && steps.get(place).is_none_or(|(step, _)| *step != at) {
                    let level = steps[place - 1].1;
                    steps.insert(place, (at, level));
                }
            }
            let from = steps.partition_point(|(at, _)| *at < window.starts_at);
            let until = steps.partition_point(|(at, _)| *at < window.ends_at);
            steps[from..until].iter_mut().for_each(|(_, level)| *level -= units);
        }
    }
}

impl Calendar {
    /// The devices of a kind from now until the horizon. What is not healthy is nobody's. `kept` is ascending for each pool.
    pub fn of(
        snapshot: &Snapshot,
        kind: &DeviceKind,
        (now, horizon): (Timestamp, Timestamp),
        (bookings, kept): (&[Booking], &BTreeMap<Pool, Vec<Kept>>),
        open: OpenLeases,
    ) -> Self {
        // Only looked up, never walked: its order is nobody's.
        let mut booked: HashMap<&DeviceId, Vec<Window>> = HashMap::with_capacity(snapshot.devices.len());
        for booking in bookings {
            booked.entry(&booking.device).or_default().push(booking.window);
        }
        let lead = DurationMs::from_millis(snapshot.terms.grace.millis().saturating_add(snapshot.terms.slack.millis()));
        let free_at = |id: &LeaseId| snapshot.leases.get(id).map_or(horizon, |lease| end_of(lease, (now, horizon), lead, open));
        let mut pools: BTreeMap<SiteId, PoolCalendar> = BTreeMap::new();
        let mut places: BTreeMap<(&SiteId, &NodeId), usize> = BTreeMap::new();
        for device in snapshot.devices.iter().filter(|device| device.kind == *kind && device.health == DeviceHealth::Healthy) {
            let machines = &mut pools.entry(device.site.clone()).or_default().machines;
            let place = *places.entry((&device.site, &device.node)).or_insert_with(|| {
                machines.push(MachineCalendar { node: device.node.clone(), isolation: device.isolation, devices: Vec::new() });
                machines.len() - 1
            });
            let used = [&device.used_by, &device.promised_to].into_iter().flatten().map(free_at).max();
            let mut busy: Vec<Window> = used.map(|ends_at| Window { starts_at: now, ends_at }).into_iter().collect();
            busy.extend(booked.get(&device.id).into_iter().flatten());
            machines[place].devices.push(DeviceCalendar { id: device.id.clone(), gaps: gaps(busy, (now, horizon)) });
        }
        for (site, pool) in &mut pools {
            pool.machines.iter_mut().for_each(|machine| machine.devices.sort_by(|a, b| a.id.cmp(&b.id)));
            pool.machines.sort_by(|a, b| a.node.cmp(&b.node));
            let known = Pool { kind: kind.clone(), site: site.clone() };
            pool.free = free_steps(&pool.machines, now);
            pool.room = less(&pool.free, kept.get(&known).map_or(&[][..], Vec::as_slice));
        }
        Self { now, horizon, pools }
    }

    /// The earliest window; among sites that have one at the same instant the first by its name. A window that would end
    /// behind the horizon is none.
    pub fn earliest(&self, request: &WindowRequest) -> Option<WindowPlacement> {
        let request = &self.within(request)?;
        let asked = self.pools.iter().filter(|(site, _)| request.site.as_ref().is_none_or(|wanted| wanted == *site));
        let found = asked.filter_map(|(site, pool)| pool.earliest(site, request, self.horizon));
        found.min_by_key(|placement| placement.window.starts_at)
    }

    /// The most units of one machine that a request of its length could have where it may begin; its own are ignored.
    pub fn most(&self, request: &WindowRequest) -> u32 {
        let largest = self.pools.values().flat_map(|pool| &pool.machines).map(|machine| machine.devices.len()).max().unwrap_or(0);
        let fits = |units: u32| self.earliest(&WindowRequest { units, ..request.clone() }).is_some();
        // Whoever finds so many finds fewer, so it is searched by halves.
        let (mut fit, mut beyond) = (0, count(largest).saturating_add(1));
        while fit + 1 < beyond {
            let middle = fit.midpoint(beyond);
            if fits(middle) { fit = middle } else { beyond = middle }
        }
        fit
    }

    /// Requests near one that finds nothing: later, fewer units, another site. Each was tried.
    pub fn nearby(&self, request: &WindowRequest) -> Vec<NearWindow> {
        let tried = |request: WindowRequest| {
            let placement = self.earliest(&request)?;
            Some(NearWindow { request, placement })
        };
        let later = Window { starts_at: request.starts.starts_at, ends_at: self.horizon };
        let later = tried(WindowRequest { starts: later, ..request.clone() });
        let units = self.most(request);
        let fewer = (units > 0 && units < request.units).then(|| tried(WindowRequest { units, ..request.clone() })).flatten();
        let elsewhere = request.site.is_some().then(|| tried(WindowRequest { site: None, ..request.clone() })).flatten();
        [later, fewer, elsewhere].into_iter().flatten().collect()
    }

    /// Books what was found. False, and nothing is booked, if any of it is not free any more.
    pub fn book(&mut self, placement: &WindowPlacement) -> bool {
        let window = placement.window;
        let Some(pool) = self.pools.get_mut(&placement.site) else { return false };
        let Some(machine) = pool.machines.iter_mut().find(|machine| machine.node == placement.node) else { return false };
        let mut changed = machine.clone();
        let mut devices = changed.devices.iter_mut().filter(|device| placement.devices.contains(&device.id));
        if !devices.all(|device| device.book(window)) {
            return false;
        }
        *machine = changed;
        pool.take(window, i64::try_from(placement.devices.len()).unwrap_or(i64::MAX));
        true
    }

    /// The request as far as it lies ahead; `None` if no part of it does.
    fn within(&self, request: &WindowRequest) -> Option<WindowRequest> {
        let starts_at = request.starts.starts_at.max(self.now);
        let ends_at = request.starts.ends_at.min(self.horizon.minus(request.length));
        let is_sound = request.units > 0 && request.length > DurationMs::ZERO && starts_at <= ends_at;
        is_sound.then(|| WindowRequest { starts: Window { starts_at, ends_at }, ..request.clone() })
    }
}

/// When the devices of a lease are there for somebody else.
fn end_of(lease: &LeaseView, (now, horizon): (Timestamp, Timestamp), lead: DurationMs, open: OpenLeases) -> Timestamp {
    let told = if let LeaseStage::Ending { deadline, .. } = lease.stage { Some(deadline) } else { None };
    let given = match open {
        OpenLeases::GiveWay if lease.holder == Holder::External => lease.reclaim_deadline(now.plus(lead)),
        OpenLeases::GiveWay | OpenLeases::Stay => None,
    };
    [told, lease.ends_at, given].into_iter().flatten().min().map_or(horizon, |end| end.max(now).plus(lead))
}

/// What bookings leave of a span; they may overlap.
fn gaps(mut busy: Vec<Window>, (now, horizon): (Timestamp, Timestamp)) -> Vec<Window> {
    busy.sort();
    let (mut free_from, mut gaps) = (now, Vec::with_capacity(busy.len() + 1));
    for window in busy {
        let ends_at = window.starts_at.min(horizon);
        if free_from < ends_at {
            gaps.push(Window { starts_at: free_from, ends_at });
        }
        free_from = free_from.max(window.ends_at);
    }
    if free_from < horizon {
        gaps.push(Window { starts_at: free_from, ends_at: horizon });
    }
    gaps
}

/// How many units are free, from each instant on at which that changes.
fn free_steps(machines: &[MachineCalendar], now: Timestamp) -> Vec<(Timestamp, i64)> {
    let gaps = machines.iter().flat_map(|machine| &machine.devices).flat_map(|device| &device.gaps);
    let mut changes: Vec<(Timestamp, i64)> = gaps.flat_map(|gap| [(gap.starts_at, 1), (gap.ends_at, -1)]).collect();
    changes.push((now, 0));
    changes.sort_unstable();
    let (mut level, mut steps) = (0, Vec::<(Timestamp, i64)>::with_capacity(changes.len()));
    for (at, change) in changes {
        level += change;
        match steps.last_mut() {
            Some((last, units)) if *last == at => *units = level,
            _ => steps.push((at, level)),
        }
    }
    steps
}

/// The steps less what is kept, with an entry wherever either changes.
fn less(free: &[(Timestamp, i64)], kept: &[Kept]) -> Vec<(Timestamp, i64)> {
    let mut steps = Vec::with_capacity(free.len() + kept.len());
    let (mut kept, mut units) = (kept.iter().peekable(), 0);
    for (place, (at, level)) in free.iter().enumerate() {
        while let Some(step) = kept.next_if(|step| step.from <= *at) {
            units = i64::from(step.units);
        }
        steps.push((*at, level - units));
        let next = free.get(place + 1).map(|(next, _)| *next);
        while let Some(step) = kept.next_if(|step| next.is_none_or(|next| step.from < next)) {
            units = i64::from(step.units);
            steps.push((step.from, level - units));
        }
    }
    steps
}
