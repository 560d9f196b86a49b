//! Selling by curves: what is shown is placed, no level is exceeded, and live is as in a replay.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sublet_core::device::DeviceHealth;
use sublet_core::id::LeaseId;
use sublet_core::lease::{EndReason, Holder};
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Timestamp};

use crate::estimate::demand::{Pool as Series, Step};
use crate::estimate::follow::{Follower, Live};
use crate::estimate::leases::EndKind;
use crate::estimate::replay::{DECISION_S, replay};
use crate::estimate::terms::{CLASSES, Terms, index};
use crate::tests::{NOW, fleet, kind, request, take};
use crate::*;

fn pool(site: &str) -> Pool {
    Pool { kind: kind("cpu"), site: site.parse().unwrap() }
}

fn learned(levels: [u32; CLASSES]) -> Curve {
    let reason = LevelReason::OfCapacity { window_s: 3_600, margin_ppm: 20_000 };
    Curve::Fresh(levels.map(|units| Level { units, reason }))
}

fn sells(snapshot: &mut Snapshot, mode: SellingMode, curves: &[(&str, Curve, u32)]) {
    let pools = curves.iter().map(|(site, curve, outside)| (pool(site), PoolView { outside: *outside, curve: *curve })).collect();
    snapshot.selling = Selling { mode, at: NOW, pools };
}

fn external(units: u32, notice: NoticeClass) -> Request {
    request(units, notice, Holder::External)
}

fn sell(snapshot: &mut Snapshot, wanted: &Request) -> LeaseId {
    let placement = place(snapshot, wanted).unwrap();
    take(snapshot, wanted, &placement.devices)
}

#[test]
fn a_level_bounds_what_is_promised_as_long_as_its_class() {
    let mut snapshot = fleet("cpu", &[10]);
    sells(&mut snapshot, SellingMode::Learned, &[("site_0", learned([8, 6, 6, 3, 1, 0]), 0)]);
    let shown = |snapshot: &Snapshot| NoticeClass::ALL.map(|notice| available(snapshot, &external(1, notice)).units);
    assert_eq!(shown(&snapshot), [8, 6, 6, 3, 1, 0]);
    sell(&mut snapshot, &external(2, NoticeClass::N1h));
    assert_eq!(shown(&snapshot), [6, 4, 4, 1, 1, 0]);
    sell(&mut snapshot, &external(4, NoticeClass::N2m));
    // The level of n2m is used up, so nothing longer is sold either, though one of n1h is left.
    assert_eq!(shown(&snapshot), [2, 0, 0, 0, 0, 0]);
    let refusal = place(&snapshot, &external(1, NoticeClass::N1h)).unwrap_err();
    assert_eq!(
        refusal.reason.to_string(),
        "6 units may be promised at notice n2m or longer (the least idle in 60 minutes, less 2.0 % of capacity), 6 are, so 0 can be leased"
    );
    assert_eq!(refusal.alternatives, [Alternative::ShorterNotice { notice: NoticeClass::N0 }]);
    // The owner's own teams are bound by no level.
    assert_eq!(available(&snapshot, &request(1, NoticeClass::N0, Holder::Internal)).units, 4);
}

#[test]
fn each_mode_sells_what_it_says() {
    let firm = |snapshot: &Snapshot| available(snapshot, &external(1, NoticeClass::N2m)).units;
    let curve = learned([4, 3, 2, 1, 0, 0]);
    for (mode, curve, outside, expected) in [
        (SellingMode::Static, curve, 0, 8),
        (SellingMode::Shadow, curve, 0, 8),
        (SellingMode::Learned, curve, 0, 3),
        (SellingMode::Nothing, curve, 0, 0),
        // What is not known is not sold.
        (SellingMode::Learned, Curve::Stale, 0, 0),
        (SellingMode::Learned, Curve::Missing, 0, 0),
        (SellingMode::Shadow, Curve::Stale, 0, 8),
        // What the owner uses outside is not sold in any mode; it is part of what the owner keeps.
        (SellingMode::Static, curve, 1, 8),
        (SellingMode::Static, curve, 5, 5),
        (SellingMode::Learned, curve, 8, 2),
    ] {
        let mut snapshot = fleet("cpu", &[10]);
        snapshot.terms.reserve = ReserveRule { minimum_units: 2, fraction_thousandths: 0 };
        sells(&mut snapshot, mode, &[("site_0", curve, outside)]);
        assert_eq!(firm(&snapshot), expected, "{mode:?} {curve:?} {outside}");
        let reason = place(&snapshot, &external(9, NoticeClass::N2m)).unwrap_err().reason;
        assert_ne!(reason.as_str(), "fragmented", "{mode:?}");
    }
}

#[test]
fn a_site_without_room_leaves_the_others_alone() {
    let mut snapshot = fleet("cpu", &[4, 0, 4]);
    let curves = [("site_0", learned([0; CLASSES]), 0), ("site_1", learned([2, 2, 0, 0, 0, 0]), 0)];
    sells(&mut snapshot, SellingMode::Learned, &curves);
    assert_eq!(place(&snapshot, &external(2, NoticeClass::N2m)).unwrap().site.as_str(), "site_1");
    let there = Request { site: Some("site_0".parse().unwrap()), ..external(1, NoticeClass::N2m) };
    let refusal = place(&snapshot, &there).unwrap_err();
    assert_eq!(refusal.reason.as_str(), "above_level");
    assert!(refusal.alternatives.contains(&Alternative::OtherSite { site: "site_1".parse().unwrap() }));
}

fn told(snapshot: &Snapshot, now: Timestamp) -> Vec<(LeaseId, Timestamp)> {
    let ends = plan(snapshot, now).into_iter().filter_map(|action| match action.kind {
        ActionKind::BeginEnding { reason: EndReason::Reclaimed, deadline } => Some((action.lease, deadline)),
        ActionKind::BeginEnding { .. } | ActionKind::Activate | ActionKind::Stop | ActionKind::Release => None,
    });
    ends.collect()
}

#[test]
fn surplus_is_told_with_its_notice_and_firm_never_is() {
    let mut snapshot = fleet("cpu", &[12]);
    let firm = sell(&mut snapshot, &external(2, NoticeClass::Firm));
    let hour = sell(&mut snapshot, &external(3, NoticeClass::N1h));
    let old = sell(&mut snapshot, &external(1, NoticeClass::N2m));
    let young = sell(&mut snapshot, &external(2, NoticeClass::N2m));
    sells(&mut snapshot, SellingMode::Learned, &[("site_0", learned([8, 8, 8, 8, 8, 8]), 0)]);
    assert_eq!(told(&snapshot, NOW), []);
    // One too many: the youngest of the shortest class that has any, and not more than needed.
    sells(&mut snapshot, SellingMode::Learned, &[("site_0", learned([7, 7, 5, 5, 2, 2]), 0)]);
    assert_eq!(told(&snapshot, NOW), [(young.clone(), NOW.plus(DurationMs::from_seconds(120)))]);
    // All of n2m, and the hours with an hour's notice.
    sells(&mut snapshot, SellingMode::Learned, &[("site_0", learned([0; CLASSES]), 0)]);
    let all = told(&snapshot, NOW);
    assert_eq!(all.iter().map(|(id, _)| id).collect::<Vec<_>>(), [&hour, &old, &young]);
    assert_eq!(all[0].1, NOW.plus(DurationMs::from_hours(1)));
    assert!(!all.iter().any(|(id, _)| *id == firm));
    // A level of zero that was not learned ends nothing, nor does a curve that is stale, nor a shadow.
    let unknown = LevelReason::LittleSeen { seen_s: 0, needed_s: 3_600 };
    for (mode, curve) in [
        (SellingMode::Learned, Curve::Fresh([Level { units: 0, reason: unknown }; CLASSES])),
        (SellingMode::Learned, Curve::Stale),
        (SellingMode::Shadow, learned([0; CLASSES])),
        (SellingMode::Nothing, learned([0; CLASSES])),
    ] {
        sells(&mut snapshot, mode, &[("site_0", curve, 0)]);
        assert_eq!(told(&snapshot, NOW), [], "{mode:?} {curve:?}");
    }
}

#[test]
fn where_little_is_known_only_what_the_owner_needs_is_given_back() {
    let mut snapshot = fleet("cpu", &[12]);
    let hour = sell(&mut snapshot, &external(3, NoticeClass::N1h));
    let noticed = sell(&mut snapshot, &external(2, NoticeClass::N2m));
    let spot = sell(&mut snapshot, &external(3, NoticeClass::N0));
    let level = |units, reason| Level { units, reason };
    let seen = LevelReason::OfCapacity { window_s: 3_600, margin_ppm: 20_000 };
    let unproven = [
        level(9, seen),
        level(9, seen),
        level(9, seen),
        level(0, LevelReason::Unproven),
        level(0, LevelReason::ShorterNotSold),
        level(0, LevelReason::ShorterNotSold),
    ];
    let withdrawn = unproven.map(|one| if one.reason == LevelReason::Unproven { level(0, LevelReason::Withdrawn) } else { one });
    let all = |reason| [level(0, reason); CLASSES];
    let victims = |curve, outside| {
        let mut now = snapshot.clone();
        sells(&mut now, SellingMode::Learned, &[("site_0", curve, outside)]);
        told(&now, NOW).into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    // What was not shown yet is not sold, and who is there stays; what was shown to break ends.
    assert_eq!(victims(Curve::Fresh(unproven), 0), []);
    assert_eq!(victims(Curve::Fresh(withdrawn), 0), std::slice::from_ref(&hour));
    let little = LevelReason::LittleSeen { seen_s: 0, needed_s: 3_600 };
    for curve in [Curve::Fresh(all(little)), Curve::Fresh(all(LevelReason::AfterOutage)), Curve::Stale, Curve::Missing] {
        assert_eq!(victims(curve, 4), [], "eight units are sold, and eight are not needed: {curve:?}");
        assert_eq!(victims(curve, 5), std::slice::from_ref(&spot), "{curve:?}");
        assert_eq!(victims(curve, 8), [noticed.clone(), spot.clone()], "{curve:?}");
        assert_eq!(victims(curve, 12), [hour.clone(), noticed.clone(), spot.clone()], "{curve:?}");
    }
    assert_eq!(victims(Curve::Fresh(all(LevelReason::Outage)), 12), [], "nobody knows what is needed");
}

#[test]
fn what_is_used_outside_at_one_site_is_taken_from_that_site_alone() {
    let mut snapshot = fleet("cpu", &[4, 0, 4]);
    let curves = [("site_0", Curve::Missing, 0), ("site_1", Curve::Missing, 0)];
    sells(&mut snapshot, SellingMode::Static, &curves);
    sell(&mut snapshot, &Request { site: Some("site_0".parse().unwrap()), ..external(3, NoticeClass::N2m) });
    // Four are used outside at a site at which one is free by our books.
    sells(&mut snapshot, SellingMode::Static, &[("site_0", Curve::Missing, 4), ("site_1", Curve::Missing, 0)]);
    assert_eq!(available(&snapshot, &external(1, NoticeClass::N2m)).units, 4);
    assert_eq!(available(&snapshot, &request(1, NoticeClass::N0, Holder::Internal)).units, 4);
    assert_eq!(figures(&snapshot, &kind("cpu")).outside, 1);
    // What an order holds is kept only once.
    snapshot
        .devices
        .iter_mut()
        .filter(|device| device.used_by.is_none())
        .for_each(|device| device.held = device.site.as_str() == "site_0");
    assert_eq!(available(&snapshot, &external(1, NoticeClass::N2m)).units, 4);
    assert_eq!(figures(&snapshot, &kind("cpu")).kept, 0);
}

#[test]
fn cordoned_devices_that_are_used_outside_count_once() {
    let mut snapshot = fleet("cpu", &[6]);
    snapshot.devices.iter_mut().take(3).for_each(|device| device.health = DeviceHealth::Cordoned);
    snapshot.devices[0].used_by = Some("lease_0own".parse().unwrap());
    let figures = pool_figures(&snapshot.devices, |_| false)[&pool("site_0")];
    assert_eq!((figures.cordoned, figures.set_aside), (3, 2), "a lease still runs on one");
    assert_eq!([0, 1, 2, 3, 5].map(|reported| figures.used_outside(reported)), [0, 0, 0, 1, 3]);
}

#[test]
fn what_is_lost_cordoned_or_held_takes_nothing_from_others() {
    for health in [DeviceHealth::Lost, DeviceHealth::Cordoned] {
        let mut snapshot = fleet("cpu", &[4, 4]);
        let gone = sell(&mut snapshot, &external(4, NoticeClass::N15m));
        sell(&mut snapshot, &external(3, NoticeClass::N15m));
        for device in snapshot.devices.iter_mut().filter(|device| device.used_by.as_ref() == Some(&gone)) {
            device.health = health;
        }
        // Four units fewer, so four fewer may be promised; those who lost theirs do not have them any more.
        sells(&mut snapshot, SellingMode::Learned, &[("site_0", learned([3; CLASSES]), 0)]);
        assert_eq!(told(&snapshot, NOW), []);
        assert_eq!(available(&snapshot, &external(1, NoticeClass::N0)).units, 0);
    }
    let mut snapshot = fleet("cpu", &[8]);
    snapshot.devices.iter_mut().take(3).for_each(|device| device.held = true);
    let figures = pool_figures(&snapshot.devices, |_| false)[&pool("site_0")];
    assert_eq!((figures.capacity, figures.internal, figures.idle), (8, 3, 5), "held for the owner's teams");
}

#[test]
fn what_is_used_outside_of_what_is_held_counts_once() {
    let mut snapshot = fleet("cpu", &[5]);
    let quarter = sell(&mut snapshot, &external(3, NoticeClass::N15m));
    snapshot.devices.iter_mut().filter(|device| device.used_by.is_none()).for_each(|device| device.held = true);
    let mut told_with = |outside| {
        sells(&mut snapshot, SellingMode::Learned, &[("site_0", Curve::Stale, outside)]);
        told(&snapshot, NOW)
    };
    // Only the two that are held for the owner's teams look free, so those are the ones that are used.
    assert_eq!([0, 1, 2].map(&mut told_with), [const { Vec::new() }; 3]);
    assert_eq!(told_with(3), [(quarter, NOW.plus(DurationMs::from_seconds(900)))], "one more than is free");
}

#[test]
fn a_unit_that_is_promised_already_displaces_nobody_else() {
    let mut snapshot = fleet("cpu", &[6]);
    let quarter = sell(&mut snapshot, &external(2, NoticeClass::N15m));
    sell(&mut snapshot, &external(2, NoticeClass::N0));
    let own: LeaseId = "lease_0own".parse().unwrap();
    for device in snapshot.devices.iter_mut().filter(|device| device.used_by.as_ref() == Some(&quarter)) {
        device.promised_to = Some(own.clone());
    }
    let (reason, deadline) = (EndReason::Reclaimed, NOW.plus(DurationMs::from_seconds(900)));
    snapshot.leases.get_mut(&quarter).unwrap().stage = LeaseStage::Ending { reason, deadline };
    // Two of six units are promised to the owner's team, so four are idle for it and two of them are sold.
    sells(&mut snapshot, SellingMode::Learned, &[("site_0", learned([3, 3, 3, 0, 0, 0]), 0)]);
    assert_eq!(told(&snapshot, NOW), []);
    assert_eq!(available(&snapshot, &external(1, NoticeClass::N0)).units, 1);
    assert_eq!(sold_by_class(&snapshot, &pool("site_0")), [2, 0, 2, 0, 0, 0]);
}

fn levels() -> impl Strategy<Value = [u32; CLASSES]> {
    prop::array::uniform6(0_u32..9).prop_map(|mut levels| {
        levels.sort_unstable_by(|a, b| b.cmp(a));
        levels
    })
}

proptest! {
    #[test]
    fn no_unit_is_sold_twice_and_none_above_a_level(
        levels in levels(),
        outside in 0_u32..4,
        reserve in 0_u32..4,
        wanted in prop::collection::vec((1_u32..4, 0_usize..6, any::<bool>()), 0..12),
    ) {
        let mut snapshot = fleet("cpu", &[4, 3]);
        snapshot.terms.reserve = ReserveRule { minimum_units: reserve, fraction_thousandths: 0 };
        sells(&mut snapshot, SellingMode::Learned, &[("site_0", learned(levels), outside)]);
        for (units, notice, is_internal) in wanted {
            let holder = if is_internal { Holder::Internal } else { Holder::External };
            let asked = request(units, NoticeClass::ALL[notice], holder);
            let shown = available(&snapshot, &asked).units;
            match place(&snapshot, &asked) {
                Ok(placement) => {
                    prop_assert!(units <= shown);
                    // It panics on a device that is in use.
                    take(&mut snapshot, &asked, &placement.devices);
                }
                Err(refusal) => {
                    prop_assert!(units > shown);
                    for alternative in refusal.alternatives {
                        prop_assert!(place(&snapshot, &alternative.of(&asked)).is_ok());
                    }
                }
            }
        }
        for class in NoticeClass::ALL {
            let sold = snapshot.leases.values().filter(|lease| lease.holder == Holder::External && lease.notice >= class);
            let sold: u32 = sold.map(|lease| lease.units).sum();
            prop_assert!(sold <= levels[index(class)], "{sold} at {class}");
        }
    }
}

/// A series that repeats a day with noise, rises sharply at times, and has rows between the minutes.
fn series(hours: i64, capacity: u32) -> Series {
    let mut seed = 7_u64;
    let mut random = move |most: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % most
    };
    let mut steps = Vec::new();
    let mut in_use = 4_u32;
    for minute in 0..hours * 60 {
        let hour = minute / 60 % 24;
        let target = if (9..17).contains(&hour) { 8 } else { 3 };
        if random(9) == 0 {
            let up = in_use < target || random(40) == 0;
            in_use = if up { (in_use + 1 + u32::try_from(random(2)).unwrap()).min(capacity) } else { in_use.saturating_sub(1) };
            let at_s = minute * 60 + i64::try_from(random(60)).unwrap();
            steps.push(Step { at_s, capacity, in_use, queued: 0, valid: true });
        }
    }
    Series { name: String::new(), steps }
}

/// The same with times of which nothing is known: an outage that is reported, a process that was down, a clock that was set
/// ahead. Behind each the owner has more than before.
fn with_holes(series: Series) -> Series {
    const HOLES: [(i64, i64); 5] = [(26, 130), (31, 1_260), (37, 61), (43, 10_800), (52, 3_599)];
    let mut steps: Vec<Step> = Vec::new();
    for step in series.steps {
        let hole = HOLES.iter().find(|(hour, lasts_s)| (hour * 3_600..hour * 3_600 + lasts_s).contains(&step.at_s));
        let surge = HOLES.iter().any(|(hour, lasts_s)| (0..5_400).contains(&(step.at_s - hour * 3_600 - lasts_s)));
        match hole {
            Some((hour, _)) if steps.last().is_some_and(|last| last.valid) => {
                steps.push(Step { at_s: (hour * 3_600).max(step.at_s - 60), valid: false, ..step });
            }
            Some(_) => {}
            None => steps.push(Step { in_use: step.in_use + if surge { 6 } else { 0 }, ..step }),
        }
    }
    steps.dedup_by_key(|step| step.at_s);
    Series { steps, ..series }
}

/// The fleet as the cloud would have it: single units, sold to whoever wants them.
struct Simulated {
    snapshot: Snapshot,
    number: usize,
    /// Class, beginning, promised end.
    ended: Vec<(NoticeClass, i64, i64)>,
}

impl Simulated {
    fn decide(&mut self, step: &Step, curve: Option<[Level; CLASSES]>) {
        let now = Timestamp::from_seconds(step.at_s);
        self.end(now);
        // What it finds no unit for it needs all the same.
        let outside = self.serve_owner(step.in_use);
        self.snapshot.selling.at = now;
        let view = PoolView { outside, curve: curve.map_or(Curve::Missing, Curve::Fresh) };
        self.snapshot.selling.pools = BTreeMap::from([(pool("site_0"), view)]);
        for (id, deadline) in told(&self.snapshot, now) {
            let lease = self.snapshot.leases.get_mut(&id).unwrap();
            lease.stage = LeaseStage::Ending { reason: EndReason::Reclaimed, deadline };
        }
        for notice in NoticeClass::ALL.into_iter().rev() {
            while let Ok(placement) = place(&self.snapshot, &external(1, notice)) {
                self.number += 1;
                let id: LeaseId = format!("lease_{:06}", self.number).parse().unwrap();
                let taken = take(&mut self.snapshot, &external(1, notice), &placement.devices);
                let mut lease = self.snapshot.leases.remove(&taken).unwrap();
                (lease.id, lease.starts_at) = (id.clone(), now);
                self.snapshot.leases.insert(id.clone(), lease);
                let device = self.snapshot.devices.iter_mut().find(|device| device.used_by.as_ref() == Some(&taken)).unwrap();
                device.used_by = Some(id);
            }
        }
    }

    fn end(&mut self, now: Timestamp) {
        let over = self.snapshot.leases.values().filter_map(|lease| match lease.stage {
            LeaseStage::Ending { deadline, .. } if deadline <= now => {
                Some((lease.id.clone(), lease.notice, lease.starts_at, deadline))
            }
            LeaseStage::Ending { .. } | LeaseStage::Active | LeaseStage::Pending => None,
        });
        for (id, notice, began, deadline) in over.collect::<Vec<_>>() {
            self.ended.push((notice, began.seconds(), deadline.seconds()));
            self.snapshot.leases.remove(&id);
            for device in self.snapshot.devices.iter_mut().filter(|device| device.used_by.as_ref() == Some(&id)) {
                device.used_by = None;
            }
        }
    }

    /// The owner's team has as much as it wants, as far as it is free; answers how many units it misses.
    fn serve_owner(&mut self, wanted: u32) -> u32 {
        let own: LeaseId = "lease_0own".parse().unwrap();
        for device in &mut self.snapshot.devices {
            if device.used_by.as_ref() == Some(&own) {
                device.used_by = None;
            }
        }
        let mut missing = wanted;
        for device in self.snapshot.devices.iter_mut().filter(|device| device.used_by.is_none()) {
            if missing > 0 {
                missing -= 1;
                device.used_by = Some(own.clone());
            }
        }
        missing
    }

    /// How many were told now.
    fn told_at(&self, now_s: i64) -> usize {
        let now = Timestamp::from_seconds(now_s);
        let is_told_now = |lease: &&LeaseView| match (&lease.stage, lease.notice.notice()) {
            (LeaseStage::Ending { deadline, .. }, Some(notice)) => deadline.since(now) == notice,
            _ => false,
        };
        self.snapshot.leases.values().filter(is_told_now).count()
    }

    fn running(&self, now_s: i64) -> [u32; CLASSES] {
        let mut running = [0; CLASSES];
        let now = Timestamp::from_seconds(now_s);
        for lease in self.snapshot.leases.values().filter(|lease| lease.holder == Holder::External) {
            let is_over = matches!(lease.stage, LeaseStage::Ending { deadline, .. } if deadline <= now);
            running[index(lease.notice)] += u32::from(!is_over);
        }
        running
    }
}

#[test]
fn live_sells_and_gives_back_as_in_a_replay_of_the_same_history() {
    assert_eq!(live_as_in_a_replay(&series(60, 14)), (0, 0));
}

#[test]
fn live_sells_and_gives_back_as_in_a_replay_of_a_history_with_holes() {
    let (outlasted, behind) = live_as_in_a_replay(&with_holes(series(60, 14)));
    assert!(outlasted > 0, "leases outlast a hole");
    assert!(behind > 3, "{behind} units were told within the hour behind a hole");
}

/// Compares decision by decision; answers how many units ran while nothing was known, and how many were told within an hour
/// behind that.
fn live_as_in_a_replay(series: &Series) -> (u32, usize) {
    let (capacity, hours) = (14, 60);
    let end_s = hours * 3_600;
    let reserve = ReserveRule { minimum_units: 5, fraction_thousandths: 0 };
    let (mut moments, mut ends) = (BTreeMap::new(), Vec::new());
    let tally = replay(series, end_s, &Terms::default(), &mut Live::new(&Terms::default(), reserve), &mut |moment| {
        moments.insert(moment.at_s, moment.running);
        ends.extend(moment.ends.iter().map(|end| (end.kind, end.class, end.units, end.began_s, end.promised_s)));
    });

    let mut snapshot = fleet("cpu", &[usize::try_from(capacity).unwrap()]);
    snapshot.terms.reserve = reserve;
    snapshot.selling.mode = SellingMode::Learned;
    let mut own = snapshot.clone();
    let own = take(&mut own, &request(1, NoticeClass::N0, Holder::Internal), &[]);
    let mut live = Simulated { snapshot, number: 0, ended: Vec::new() };
    let id: LeaseId = "lease_0own".parse().unwrap();
    let mut template = fleet("cpu", &[1]);
    take(&mut template, &request(1, NoticeClass::N0, Holder::Internal), &[]);
    live.snapshot.leases.insert(id.clone(), LeaseView { id, ..template.leases[&own].clone() });
    let (mut follower, mut decisions) = (Follower::new(&Terms::default()), 0);
    let (mut known_since_s, mut outlasted, mut behind) = (None, 0, 0);
    for (place, step) in series.steps.iter().enumerate() {
        let until = series.steps.get(place + 1).map_or(end_s, |next| next.at_s);
        follower.hear(*step);
        let mut now_s = step.at_s;
        while now_s < until {
            assert_eq!(follower.decide_until(now_s + 1, u32::MAX), 1);
            live.decide(&Step { at_s: now_s, ..*step }, follower.curve());
            assert_eq!(Some(live.running(now_s)), moments.get(&now_s).copied(), "at {now_s}");
            decisions += 1;
            if !step.valid {
                (known_since_s, outlasted) = (None, outlasted + live.running(now_s).iter().sum::<u32>());
            }
            let is_behind = step.valid && now_s - *known_since_s.get_or_insert(now_s) < 3_600 && now_s > 26 * 3_600;
            behind += if is_behind { live.told_at(now_s) } else { 0 };
            now_s = (now_s - now_s.rem_euclid(DECISION_S) + DECISION_S).min(until);
        }
    }
    live.end(Timestamp::from_seconds(end_s));
    // The same units were told, when they began, and with the same end.
    let mut told: Vec<_> = live.ended.clone();
    let mut replayed: Vec<_> = Vec::new();
    for (kind, class, units, began_s, promised_s) in ends {
        assert_eq!(kind, EndKind::Evicted);
        replayed.extend(std::iter::repeat_n((class, began_s, promised_s), usize::try_from(units).unwrap()));
    }
    told.sort_unstable();
    replayed.sort_unstable();
    assert_eq!(told, replayed);
    assert!(tally.evictions() > 20 && decisions > 3_600, "{} evictions in {decisions} decisions", tally.evictions());
    assert!(
        tally.counts[index(NoticeClass::N2m)].sold > 10 && tally.counts[index(NoticeClass::N15m)].sold > 0,
        "{:?}",
        tally.counts
    );
    assert!(tally.counts.iter().all(|counts| counts.broken == 0));
    (outlasted, behind)
}

#[test]
fn a_follower_hears_the_same_however_its_history_is_cut() {
    let series = series(30, 14);
    let run = |chunk: u32| {
        let mut follower = Follower::new(&Terms::default());
        for step in &series.steps {
            while !follower.is_at(step.at_s) {
                assert!(follower.decide_until(step.at_s, chunk) > 0);
            }
            follower.hear(*step);
        }
        follower.decide_until(30 * 3_600, u32::MAX);
        (follower.decided_s(), follower.curve())
    };
    let whole = run(u32::MAX);
    assert!(whole.1.unwrap()[0].units > 0, "{whole:?}");
    assert_eq!(run(1), whole);
    assert_eq!(run(7), whole);
}
