use proptest::prelude::*;
use sublet_core::lease::EndReason;

use super::*;
use crate::curve::{LevelReason, PoolView, Selling};
use crate::place::Request;
use crate::reserve::ReserveRule;
use crate::snapshot::OrderedEnd;
use crate::tests::{NOW, fleet, kind, request, take};

fn site() -> SiteId {
    "site_0".parse().unwrap()
}

fn pool() -> Pool {
    Pool { kind: kind("cpu"), site: site() }
}

fn at(hours: i64) -> Timestamp {
    NOW.plus(DurationMs::from_hours(hours))
}

fn levels(units: [u32; CLASSES]) -> Curve {
    let reason = LevelReason::OfCapacity { window_s: 3_600, margin_ppm: 0 };
    Curve::Fresh(units.map(|units| Level { units, reason }))
}

/// Sells so many of the first devices that are free.
fn sold(snapshot: &mut Snapshot, wanted: &Request, ends_at: Option<Timestamp>) -> sublet_core::id::LeaseId {
    let free = snapshot.devices.iter().filter(|device| device.used_by.is_none()).map(|device| device.id.clone());
    let devices: Vec<DeviceId> = free.take(usize::try_from(wanted.units).unwrap()).collect();
    let id = take(snapshot, wanted, &devices);
    snapshot.leases.get_mut(&id).unwrap().ends_at = ends_at;
    id
}

/// Ten devices: two firm for 30 hours, one at an hour's notice without an end, one that was told, two of a team until an
/// order takes them back, one cordoned.
fn busy() -> Snapshot {
    let mut snapshot = fleet("cpu", &[10]);
    snapshot.selling = Selling { at: NOW, ..Selling::default() };
    sold(&mut snapshot, &request(2, NoticeClass::Firm, Holder::External), Some(at(30)));
    sold(&mut snapshot, &request(1, NoticeClass::N1h, Holder::External), None);
    let told = sold(&mut snapshot, &request(1, NoticeClass::N0, Holder::External), None);
    snapshot.leases.get_mut(&told).unwrap().stage = LeaseStage::Ending { reason: EndReason::Reclaimed, deadline: at(2) };
    let team = sold(&mut snapshot, &request(2, NoticeClass::N2m, Holder::Internal), None);
    let ordered = OrderedEnd { tell_at: at(1), deadline: at(4), breaks_promise: false };
    snapshot.leases.get_mut(&team).unwrap().stake.ordered = Some(ordered);
    snapshot.devices[9].health = DeviceHealth::Cordoned;
    snapshot
}

fn hours_of(snapshot: &Snapshot, held: &BTreeMap<DeviceId, Option<Timestamp>>, hours: usize) -> Vec<HourFigures> {
    calendars(snapshot, held, &kind("cpu"), hours).remove(&site()).unwrap()
}

#[test]
fn leases_and_orders_leave_when_they_are_settled_to() {
    let snapshot = busy();
    let hours = hours_of(&snapshot, &BTreeMap::new(), 48);
    assert_eq!(hours.len(), 48);
    let of = |hour: usize| {
        let made = &hours[hour];
        (made.unhealthy, made.internal, made.sold[index(NoticeClass::Firm)], made.sold_total(), made.idle)
    };
    // NOW is not a full hour: the first is less than an hour ahead.
    assert!(hours[0].at > NOW && hours[0].at < at(1));
    assert_eq!((of(0), of(1)), ((1, 2, 2, 4, 3), (1, 2, 2, 4, 3)));
    assert_eq!(of(2), (1, 2, 2, 3, 4), "who was told is gone");
    assert_eq!(of(4), (1, 0, 2, 3, 6), "whom an order takes back is gone");
    assert_eq!(of(30), (1, 0, 0, 1, 8), "the window is over; without one a lease stays");
    assert!(hours.iter().all(|hour| hour.owned == 10));
}

#[test]
fn held_devices_are_the_owners_until_their_order_ends() {
    let snapshot = busy();
    let held = BTreeMap::from([(snapshot.devices[8].id.clone(), Some(at(6))), (snapshot.devices[7].id.clone(), None)]);
    let hours = hours_of(&snapshot, &held, 10);
    let internal: Vec<u32> = hours.iter().map(|hour| hour.internal).collect();
    assert_eq!(internal, [4, 4, 4, 4, 2, 2, 1, 1, 1, 1]);
}

#[test]
fn the_reserve_is_kept_and_what_is_used_outside_is_not_sold() {
    let mut snapshot = busy();
    snapshot.terms.reserve = ReserveRule { minimum_units: 4, fraction_thousandths: 0 };
    let free =
        |snapshot: &Snapshot| hours_of(snapshot, &BTreeMap::new(), 5).iter().map(|hour| (hour.kept, hour.free)).collect::<Vec<_>>();
    // Two of the four are in use by a team, until they are taken back.
    assert_eq!(free(&snapshot), [(2, 1), (2, 1), (2, 2), (2, 2), (4, 2)]);
    snapshot.selling.pools.insert(pool(), PoolView { outside: 3, curve: Curve::Missing });
    assert_eq!(free(&snapshot), [(0, 0), (0, 0), (0, 1), (0, 1), (1, 2)]);
}

#[test]
fn a_customer_sees_steps_and_what_the_curve_leaves() {
    let mut snapshot = busy();
    let shown = |snapshot: &Snapshot, notice: NoticeClass, hours: usize| {
        let figures = hours_of(snapshot, &BTreeMap::new(), hours);
        buckets(snapshot, &pool(), &figures, (Holder::External, notice)).into_iter().map(Bucket::as_str).collect::<Vec<_>>()
    };
    // Three and four of nine, then six.
    assert_eq!(shown(&snapshot, NoticeClass::N0, 5), ["medium", "medium", "medium", "medium", "high"]);
    snapshot.selling.mode = SellingMode::Nothing;
    assert_eq!(shown(&snapshot, NoticeClass::N0, 2), ["none", "none"]);
    snapshot.selling.mode = SellingMode::Learned;
    assert_eq!(shown(&snapshot, NoticeClass::N0, 2), ["none", "none"], "without a curve nothing is sold");
    snapshot.selling.pools.insert(pool(), PoolView { outside: 0, curve: levels([9, 9, 9, 6, 5, 4]) });
    // The first hour begins within fifteen minutes, the second within a day; a day from there is a matter of firm.
    assert_eq!(shown(&snapshot, NoticeClass::N0, 3), ["medium", "low", "low"]);
    assert_eq!(shown(&snapshot, NoticeClass::N24h, 2), ["none", "none"], "four firmly, and four are sold");
    assert_eq!(shown(&snapshot, NoticeClass::Firm, 1), ["none"], "four firmly, and four are sold");
    let far = shown(&snapshot, NoticeClass::Firm, 170);
    assert_eq!((far[167], far[169]), ("medium", "unknown"), "nobody knows so far ahead");
    let figures = hours_of(&snapshot, &BTreeMap::new(), 1);
    let team = buckets(&snapshot, &pool(), &figures, (Holder::Internal, NoticeClass::Firm));
    assert_eq!(team, [Bucket::Medium], "the owner's teams are bound by no curve");
    let needs: Vec<Option<u32>> = hours_of(&snapshot, &BTreeMap::new(), 200).iter().map(|hour| hour.own_need_max).collect();
    assert_eq!((needs[0], needs[1], needs[30], needs[199]), (Some(0), Some(4), Some(5), None));
}

#[test]
fn a_small_pool_does_not_show_a_customer_when_somebody_leaves() {
    let mut snapshot = fleet("cpu", &[4]);
    snapshot.selling = Selling { at: NOW, ..Selling::default() };
    sold(&mut snapshot, &request(2, NoticeClass::N24h, Holder::External), Some(at(28)));
    let figures = hours_of(&snapshot, &BTreeMap::new(), 40);
    let shown = |holder| buckets(&snapshot, &pool(), &figures, (holder, NoticeClass::N2m));
    assert!(shown(Holder::External).iter().all(|bucket| *bucket == Bucket::Low));
    assert_ne!(shown(Holder::Internal)[0], shown(Holder::Internal)[31], "the owner's teams see it");
}

proptest! {
    #[test]
    fn units_add_up_in_every_hour(
        ends in prop::collection::vec((0_i64..400, 0_usize..6, any::<bool>()), 0..10),
        hours in 0_usize..400,
    ) {
        let mut snapshot = fleet("cpu", &[6, 6, 4]);
        snapshot.selling = Selling { at: NOW, ..Selling::default() };
        for (end, class, is_team) in ends {
            let holder = if is_team { Holder::Internal } else { Holder::External };
            let ends_at = Some(at(end)).filter(|_| end > 20);
            sold(&mut snapshot, &request(1, NoticeClass::ALL[class], holder), ends_at);
        }
        let made = calendars(&snapshot, &BTreeMap::new(), &kind("cpu"), hours);
        prop_assert_eq!(made.len(), 2);
        for hour in made.values().flatten() {
            prop_assert_eq!(hour.owned, hour.unhealthy + hour.internal + hour.sold_total() + hour.idle);
            prop_assert!(hour.free <= hour.idle);
        }
        prop_assert!(made.values().all(|of| of.len() == hours.min(HOURS_MAX)));
    }
}
