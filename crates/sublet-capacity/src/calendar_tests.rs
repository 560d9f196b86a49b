//! Calendars against every instant and every machine.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sublet_core::id::DeviceId;
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::{DurationMs, Timestamp};

use super::*;
use crate::tests::{NOW, fleet, kind, request, take};

const END: i64 = 40;

fn at(seconds: i64) -> Timestamp {
    NOW.plus(DurationMs::from_seconds(seconds))
}

fn window(from: i64, until: i64) -> Window {
    Window { starts_at: at(from), ends_at: at(until) }
}

fn asked(units: u32, seconds: i64, starts: Window) -> WindowRequest {
    let (holder, isolation) = (Holder::External, IsolationLevel::Process);
    WindowRequest { units, length: DurationMs::from_seconds(seconds), starts, holder, site: None, isolation }
}

fn booking(node: usize, slot: usize, window: Window) -> Booking {
    Booking { device: format!("dev_cpu{node:02}{slot:02}").parse().unwrap(), window }
}

fn calendar(snapshot: &Snapshot, bookings: &[Booking], kept: &[Kept]) -> Calendar {
    let pool = Pool { kind: kind("cpu"), site: snapshot.devices[0].site.clone() };
    let kept = BTreeMap::from([(pool, kept.to_vec())]);
    Calendar::of(snapshot, &kind("cpu"), (NOW, at(END)), (bookings, &kept), OpenLeases::Stay)
}

#[test]
fn units_that_change_places_are_not_a_window() {
    // At every instant two of three are free, and never the same two for longer than ten seconds.
    let busy = [booking(0, 0, window(0, 10)), booking(0, 1, window(10, 20)), booking(0, 2, window(20, 40))];
    let calendar = calendar(&fleet("cpu", &[3]), &busy, &[]);
    assert_eq!(calendar.earliest(&asked(2, 10, window(0, 5))).unwrap().window, window(0, 10));
    assert_eq!(calendar.earliest(&asked(2, 11, window(0, 9))), None);
    assert_eq!(calendar.earliest(&asked(2, 11, window(0, END))).unwrap().window, window(20, 31));
    let near = calendar.nearby(&asked(2, 11, window(0, 9)));
    let found: Vec<_> = near.iter().map(|near| (near.request.units, near.placement.window)).collect();
    assert_eq!(found, [(2, window(20, 31)), (1, window(0, 11))], "later, and fewer");
    assert_eq!(near[1].placement.devices, ["dev_cpu0002".parse::<DeviceId>().unwrap()], "the shortest gap that is long enough");
}

#[test]
fn what_the_owner_keeps_then_is_a_customer_s_never_and_a_team_s_always() {
    let kept = [Kept { from: at(0), units: 1 }, Kept { from: at(10), units: 3 }, Kept { from: at(20), units: 0 }];
    let calendar = calendar(&fleet("cpu", &[3]), &[], &kept);
    assert_eq!(calendar.earliest(&asked(2, 10, window(0, END))).unwrap().window, window(0, 10));
    assert_eq!(calendar.earliest(&asked(2, 11, window(0, END))).unwrap().window, window(20, 31));
    assert_eq!(calendar.most(&asked(1, 10, window(0, 0))), 2);
    let team = WindowRequest { holder: Holder::Internal, ..asked(3, 40, window(0, END)) };
    assert_eq!(calendar.earliest(&team).unwrap().window, window(0, 40));
}

#[test]
fn leases_are_bookings_and_open_ones_give_way_if_asked() {
    let mut snapshot = fleet("cpu", &[2]);
    let wanted = request(1, NoticeClass::N0, Holder::External);
    let id = take(&mut snapshot, &wanted, &["dev_cpu0000".parse().unwrap()]);
    let firm = take(&mut snapshot, &request(1, NoticeClass::Firm, Holder::External), &["dev_cpu0001".parse().unwrap()]);
    snapshot.leases.get_mut(&firm).unwrap().ends_at = Some(at(5));
    let free_from = |snapshot: &Snapshot, open, units| {
        let calendar = Calendar::of(snapshot, &kind("cpu"), (NOW, at(200)), (&[], &BTreeMap::new()), open);
        calendar.earliest(&asked(units, 10, window(0, 200))).map(|found| found.window.starts_at)
    };
    assert_eq!(free_from(&snapshot, OpenLeases::Stay, 1), Some(at(20)), "the window, grace and slack");
    assert_eq!(free_from(&snapshot, OpenLeases::Stay, 2), None);
    assert_eq!(free_from(&snapshot, OpenLeases::GiveWay, 2), Some(at(30)), "told a little late, and gone a little later");
    snapshot.leases.get_mut(&id).unwrap().notice = NoticeClass::Firm;
    assert_eq!(free_from(&snapshot, OpenLeases::GiveWay, 2), None, "a firm one never does");
    snapshot.devices[0].health = sublet_core::device::DeviceHealth::Lost;
    assert_eq!(free_from(&snapshot, OpenLeases::GiveWay, 1), Some(at(20)));
}

/// Who has which device when, and what is kept.
type Plan = (Vec<usize>, Vec<(usize, usize, i64, i64)>, Vec<(i64, u32)>);

fn plans() -> impl Strategy<Value = Plan> {
    let bookings = prop::collection::vec((0_usize..4, 0_usize..4, 0..END, 1_i64..15), 0..24);
    (prop::collection::vec(1_usize..5, 1..4), bookings, prop::collection::vec((0..END, 0_u32..5), 0..4))
}

fn parts((nodes, bookings, kept): &Plan) -> (Snapshot, Vec<Booking>, Vec<Kept>) {
    // All machines are at one site, so that the pool's steps bind all of them.
    let mut snapshot = fleet("cpu", nodes);
    let site = snapshot.devices[0].site.clone();
    snapshot.devices.iter_mut().for_each(|device| device.site = site.clone());
    let made = bookings.iter().map(|(node, slot, from, span)| booking(*node, *slot, window(*from, from + span)));
    let mut kept = kept.clone();
    kept.sort_unstable();
    kept.dedup_by_key(|(from, _)| *from);
    (snapshot, made.collect(), kept.into_iter().map(|(from, units)| Kept { from: at(from), units }).collect())
}

/// Looks at every second.
struct Seconds<'a> {
    snapshot: &'a Snapshot,
    bookings: &'a [Booking],
    kept: &'a [Kept],
}

impl Seconds<'_> {
    fn is_free(&self, device: &DeviceId, second: i64) -> bool {
        let has = |window: Window| window.starts_at <= at(second) && at(second) < window.ends_at;
        !self.bookings.iter().any(|booking| booking.device == *device && has(booking.window))
    }
    fn room(&self, second: i64) -> i64 {
        let free = self.snapshot.devices.iter().filter(|device| self.is_free(&device.id, second)).count();
        let kept = self.kept.iter().rfind(|kept| kept.from <= at(second)).map_or(0, |kept| kept.units);
        i64::try_from(free).unwrap() - i64::from(kept)
    }
    fn fits(&self, units: u32, (from, length): (i64, i64)) -> bool {
        let span = || from..from + length;
        let mut nodes: BTreeMap<_, u32> = BTreeMap::new();
        for device in &self.snapshot.devices {
            *nodes.entry(&device.node).or_default() += u32::from(span().all(|second| self.is_free(&device.id, second)));
        }
        from + length <= END
            && span().all(|second| self.room(second) >= i64::from(units))
            && nodes.values().any(|free| *free >= units)
    }
    fn earliest(&self, units: u32, length: i64, (from, latest): (i64, i64)) -> Option<i64> {
        (from..=latest).find(|second| self.fits(units, (*second, length)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_starts_earlier_and_what_is_found_is_free(plan in plans(), units in 1_u32..6, length in 1_i64..20, from in 0_i64..30, more in 0_i64..40) {
        let (snapshot, bookings, kept) = parts(&plan);
        let (calendar, seconds) = (calendar(&snapshot, &bookings, &kept), Seconds { snapshot: &snapshot, bookings: &bookings, kept: &kept });
        let request = asked(units, length, window(from, from + more));
        let found = calendar.earliest(&request);
        let expected = seconds.earliest(units, length, (from, from + more));
        prop_assert_eq!(found.as_ref().map(|found| found.window), expected.map(|start| window(start, start + length)));
        if let (Some(found), Some(start)) = (found, expected) {
            let devices: BTreeSet<&DeviceId> = found.devices.iter().collect();
            prop_assert_eq!(devices.len(), usize::try_from(units).unwrap());
            for id in devices {
                let device = snapshot.devices.iter().find(|device| device.id == *id).unwrap();
                prop_assert!(device.node == found.node && device.site == found.site);
                prop_assert!((start..start + length).all(|second| seconds.is_free(id, second)));
            }
        }
        let most = (1..=5).rev().find(|units| seconds.earliest(*units, length, (from, from + more)).is_some());
        prop_assert_eq!(calendar.most(&request), most.unwrap_or(0));
        for near in calendar.nearby(&request) {
            prop_assert_eq!(calendar.earliest(&near.request), Some(near.placement));
        }
    }

    #[test]
    fn what_is_booked_is_booked_once_and_the_rest_stays_as_it_was(plan in plans(), asks in prop::collection::vec((1_u32..4, 1_i64..12), 1..8)) {
        let (snapshot, mut bookings, kept) = parts(&plan);
        let mut calendar = calendar(&snapshot, &bookings, &kept);
        for (units, length) in asks {
            let expected = Seconds { snapshot: &snapshot, bookings: &bookings, kept: &kept }.earliest(units, length, (0, END));
            let found = calendar.earliest(&asked(units, length, window(0, END)));
            prop_assert_eq!(found.as_ref().map(|found| found.window.starts_at), expected.map(at));
            let Some(found) = found else { continue };
            prop_assert!(calendar.book(&found));
            prop_assert!(!calendar.book(&found), "once");
            bookings.extend(found.devices.iter().map(|device| Booking { device: device.clone(), window: found.window }));
        }
    }

    #[test]
    fn a_calendar_does_not_depend_on_the_order_of_devices(plan in plans(), units in 1_u32..5, length in 1_i64..20, rotation in 0_usize..20) {
        let (snapshot, bookings, kept) = parts(&plan);
        let mut turned = snapshot.clone();
        let number = turned.devices.len();
        turned.devices.rotate_left(rotation % number);
        let request = asked(units, length, window(0, END));
        prop_assert_eq!(calendar(&snapshot, &bookings, &kept).earliest(&request), calendar(&turned, &bookings, &kept).earliest(&request));
    }
}
