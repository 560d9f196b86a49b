//! Orders over several machines: tables, and properties against every possible choice.

use std::num::NonZeroU32;

use sublet_core::Nanos;
use sublet_core::reclaim::{Promises, ReclaimShape};

use super::*;

/// Grace and slack.
const LEAD: i64 = 15;

fn after(seconds: i64) -> Timestamp {
    NOW.plus(DurationMs::from_seconds(seconds))
}

fn need(units: u32, seconds: i64) -> Need {
    let (shape, promises) = (ReclaimShape::Anywhere, Promises::Kept);
    Need { kind: kind("cpu"), units, site: None, shape, by: after(seconds), promises }
}

fn per_node(units: u32) -> ReclaimShape {
    ReclaimShape::PerNode(NonZeroU32::new(units).unwrap())
}

fn decided(snapshot: &Snapshot, need: &Need) -> Result<Order, Shortfall> {
    decide(&FleetIndex::new(snapshot), need, NOW)
}

/// A customer's lease on given devices of a machine that has run for so long without a checkpoint.
fn sold(snapshot: &mut Snapshot, (node, slots): (usize, std::ops::Range<usize>), notice: NoticeClass, ran: i64) -> LeaseId {
    let devices: Vec<DeviceId> = slots.map(|slot| format!("dev_cpu{node:02}{slot:02}").parse().unwrap()).collect();
    let units = u32::try_from(devices.len()).unwrap();
    let id = take(snapshot, &request(units, notice, Holder::External), &devices);
    let stake = Stake { at_risk_since: Some(after(-ran)), price: Nanos::new(1_000_000), ordered: None };
    snapshot.leases.get_mut(&id).unwrap().stake = stake;
    id
}

fn victims(order: &Order) -> Vec<&LeaseId> {
    order.victims.iter().map(|victim| &victim.lease).collect()
}

#[test]
fn what_is_free_anyway_comes_first_and_who_is_told_is_told_as_late_as_it_may() {
    let mut snapshot = fleet("cpu", &[4, 4, 4]);
    let noticed = sold(&mut snapshot, (0, 0..2), NoticeClass::N2m, 3_600);
    let hourly = sold(&mut snapshot, (0, 2..4), NoticeClass::N1h, 60);
    let firm = sold(&mut snapshot, (1, 0..4), NoticeClass::Firm, 60);
    let ends = sold(&mut snapshot, (2, 0..2), NoticeClass::Firm, 60);
    snapshot.leases.get_mut(&ends).unwrap().ends_at = Some(after(1_000));
    let order = decided(&snapshot, &need(4, 7_200)).unwrap();
    assert_eq!((order.free_anyway(), victims(&order).len(), order.lost()), (4, 0, DurationMs::ZERO));
    let order = decided(&snapshot, &need(5, 7_200)).unwrap();
    assert_eq!((order.free_anyway(), victims(&order)), (4, vec![&noticed]), "the shorter notice, whatever it has done");
    let end = OrderedEnd { tell_at: after(7_200 - LEAD - 120 - 5), deadline: after(7_200 - LEAD), breaks_promise: false };
    assert_eq!((order.victims[0].end, order.lost()), (end, DurationMs::from_seconds(2 * (7_200 - LEAD + 3_600))));
    assert_eq!(victims(&decided(&snapshot, &need(8, 7_200)).unwrap()), [&noticed, &hourly]);
    // Half an hour is less than the hour that was sold.
    assert_eq!(decided(&snapshot, &need(8, 1_800)), Err(Shortfall::TooFew { available: 6 }));
    let broken = decided(&snapshot, &Need { promises: Promises::MayBreak, ..need(8, 1_800) }).unwrap();
    assert_eq!(victims(&broken), [&noticed, &hourly]);
    assert_eq!(broken.victims[1].end, OrderedEnd { tell_at: NOW, deadline: after(1_800 - LEAD), breaks_promise: true });
    assert!(!broken.victims[0].end.breaks_promise);
    assert_eq!(
        decided(&snapshot, &Need { promises: Promises::MayBreak, ..need(9, 1_800) }),
        Err(Shortfall::TooFew { available: 8 })
    );
    assert!(!victims(&broken).contains(&&firm));
}

#[test]
fn a_checkpoint_makes_a_lease_the_cheaper_victim() {
    let mut snapshot = fleet("cpu", &[2, 2]);
    let long = sold(&mut snapshot, (0, 0..2), NoticeClass::N2m, 36_000);
    let short = sold(&mut snapshot, (1, 0..2), NoticeClass::N2m, 600);
    assert_eq!(victims(&decided(&snapshot, &need(2, 600)).unwrap()), [&short]);
    snapshot.leases.get_mut(&long).unwrap().stake.at_risk_since = Some(after(-1));
    assert_eq!(victims(&decided(&snapshot, &need(2, 600)).unwrap()), [&long]);
    // On what nothing runs, nothing is lost.
    snapshot.leases.get_mut(&short).unwrap().stake.at_risk_since = None;
    assert_eq!(victims(&decided(&snapshot, &need(2, 600)).unwrap()), [&short]);
    let own = place_with_reclaim(&snapshot, &request(2, NoticeClass::N0, Holder::Internal), NOW).unwrap();
    assert_eq!(own.victims.iter().map(|victim| &victim.lease).collect::<Vec<_>>(), [&short], "a team's lease chooses alike");
}

#[test]
fn gangs_lie_on_machines_of_their_own() {
    let mut snapshot = fleet("cpu", &[4, 4, 4, 3]);
    for node in 0..3 {
        sold(&mut snapshot, (node, 0..2), NoticeClass::N2m, 600 * i64::try_from(node + 1).unwrap());
    }
    let shaped = |units, shape| Need { shape, ..need(units, 600) };
    // Nine are free, but two at most on a machine, and three on the last.
    assert!(decided(&snapshot, &shaped(8, per_node(2))).unwrap().victims.is_empty());
    let order = decided(&snapshot, &shaped(9, per_node(3))).unwrap();
    assert_eq!(victims(&order), [&lease_id(1), &lease_id(2)]);
    let whole = decided(&snapshot, &shaped(8, ReclaimShape::WholeNodes)).unwrap();
    assert_eq!(
        (victims(&whole), whole.devices.len()),
        (vec![&lease_id(1), &lease_id(2)], 8),
        "seven on the cheapest two are too few"
    );
    let refused = decided(&snapshot, &shaped(8, per_node(3)));
    assert_eq!(refused, Err(Shortfall::NoMultiple { units: 9 }));
    assert_eq!(decided(&snapshot, &shaped(16, per_node(4))), Err(Shortfall::TooFew { available: 12 }));
}

#[test]
fn what_an_order_holds_is_no_customer_s_and_no_other_order_s() {
    let mut snapshot = fleet("cpu", &[4]);
    snapshot.terms.reserve = ReserveRule { minimum_units: 1, fraction_thousandths: 0 };
    snapshot.devices.iter_mut().take(2).for_each(|device| device.held = true);
    assert_eq!(figures(&snapshot, &kind("cpu")).kept, 3, "on top of the reserve");
    assert_eq!(available(&snapshot, &external(1)).units, 1);
    let own = place(&snapshot, &request(2, NoticeClass::N0, Holder::Internal)).unwrap();
    assert_eq!(own.devices, snapshot.devices[..2].iter().map(|device| device.id.clone()).collect::<Vec<_>>(), "held ones first");
    assert_eq!(available(&snapshot, &request(1, NoticeClass::N0, Holder::Internal)).units, 4);
    assert_eq!(decided(&snapshot, &need(3, 600)), Err(Shortfall::TooFew { available: 2 }));
}

#[test]
fn alternatives_were_tried_and_are_cheaper() {
    let mut snapshot = fleet("cpu", &[2, 2, 2]);
    sold(&mut snapshot, (0, 0..2), NoticeClass::N1h, 600);
    snapshot.devices.extend(fleet("h100", &[8]).devices);
    let index = FleetIndex::new(&snapshot);
    let asked = Need { site: Some("site_0".parse().unwrap()), ..need(4, 600) };
    assert_eq!(decide(&index, &asked, NOW), Err(Shortfall::TooFew { available: 2 }));
    let found = instead(&index, &asked, NOW);
    let sorts: Vec<&Instead> = found.iter().map(|(sort, ..)| sort).collect();
    assert_eq!(sorts, [&Instead::Later, &Instead::FewerUnits, &Instead::OtherKind, &Instead::BreakPromises]);
    assert_eq!(found[0].1.by, after(3_600 + 5 + LEAD));
    assert_eq!((found[1].1.units, found[2].1.kind.clone()), (2, kind("h100")));
    for (_, need, order) in &found {
        assert_eq!(decide(&index, need, NOW).as_ref(), Ok(order));
    }
    assert_eq!(decide(&index, &need(0, 1), NOW), Err(Shortfall::NoUnits));
    let unknown = decide(&index, &Need { kind: kind("b200"), ..need(1, 1) }, NOW);
    assert_eq!(unknown, Err(Shortfall::UnknownKind { known: vec![kind("cpu"), kind("h100")] }));
    let elsewhere = decide(&index, &Need { site: Some("site_9".parse().unwrap()), ..need(1, 1) }, NOW);
    assert!(matches!(elsewhere, Err(Shortfall::UnknownSite { .. })));
}

#[test]
fn the_plan_tells_in_time_and_moves_the_end_and_not_the_notice_if_it_is_late() {
    let mut snapshot = fleet("cpu", &[1]);
    let id = sold(&mut snapshot, (0, 0..1), NoticeClass::N2m, 600);
    let ordered = |breaks_promise| Some(OrderedEnd { tell_at: after(100), deadline: after(225), breaks_promise });
    let ends = |deadline| vec![ActionKind::BeginEnding { reason: EndReason::Reclaimed, deadline }];
    for (breaks_promise, at, expected) in [
        (false, 99, vec![]),
        (false, 100, ends(after(225))),
        (false, 105, ends(after(225))),
        (false, 400, ends(after(520))),
        (true, 150, ends(after(225))),
        (true, 400, ends(after(400))),
    ] {
        snapshot.leases.get_mut(&id).unwrap().stake.ordered = ordered(breaks_promise);
        let kinds: Vec<ActionKind> = plan(&snapshot, after(at)).into_iter().map(|action| action.kind).collect();
        assert_eq!(kinds, expected, "at {at}, {breaks_promise}");
    }
    // Never a firm one, whatever is written somewhere.
    snapshot.leases.get_mut(&id).unwrap().notice = NoticeClass::Firm;
    assert_eq!(plan(&snapshot, after(400)), vec![]);
}

#[test]
fn a_notice_is_kept_only_if_there_is_time_to_tell_it() {
    let mut snapshot = fleet("cpu", &[1]);
    sold(&mut snapshot, (0, 0..1), NoticeClass::N2m, 600);
    assert_eq!(decided(&snapshot, &need(1, 120 + LEAD + 4)), Err(Shortfall::TooFew { available: 0 }));
    assert!(!decided(&snapshot, &need(1, 120 + LEAD + 5)).unwrap().breaks_promises());
    // Who may break promises and is told at once breaks none as long as the notice itself is left.
    let may_break = |seconds| decided(&snapshot, &Need { promises: Promises::MayBreak, ..need(1, seconds) }).unwrap();
    let told = may_break(120 + LEAD);
    assert_eq!(told.victims[0].end, OrderedEnd { tell_at: NOW, deadline: after(120), breaks_promise: false });
    assert!(may_break(120 + LEAD - 1).breaks_promises());
}

#[test]
fn who_has_just_begun_is_taken_last_of_its_notice() {
    let mut snapshot = fleet("cpu", &[3]);
    let [young, old, longer] =
        [(0, NoticeClass::N2m, 30), (1, NoticeClass::N2m, 36_000), (2, NoticeClass::N15m, 36_000)].map(|(slot, notice, ran)| {
            let id = sold(&mut snapshot, (0, slot..slot + 1), notice, ran);
            snapshot.leases.get_mut(&id).unwrap().starts_at = after(-ran);
            id
        });
    let own = |snapshot: &Snapshot, units| {
        let plan = place_with_reclaim(snapshot, &request(units, NoticeClass::N0, Holder::Internal), NOW).unwrap();
        plan.victims.into_iter().map(|victim| victim.lease).collect::<Vec<_>>()
    };
    assert_eq!(own(&snapshot, 1), std::slice::from_ref(&old), "though it loses more");
    assert_eq!(own(&snapshot, 2), [old.clone(), young.clone()], "before anybody with a longer notice");
    assert_eq!(own(&snapshot, 3).len(), 3);
    // By the time of this order both have run long enough, and the young one loses less.
    assert_eq!(victims(&decided(&snapshot, &need(1, 600)).unwrap()), [&young]);
    assert!(snapshot.leases.contains_key(&longer));
}

#[test]
fn what_is_used_outside_is_given_to_nobody() {
    let mut snapshot = fleet("cpu", &[4, 4]);
    let site = |name: &str| Pool { kind: kind("cpu"), site: name.parse().unwrap() };
    let view = PoolView { outside: 3, curve: Curve::Missing };
    snapshot.selling.pools = BTreeMap::from([(site("site_0"), view)]);
    let own = |units| request(units, NoticeClass::N0, Holder::Internal);
    assert_eq!(available(&snapshot, &own(1)).units, 4, "five of eight are left, four at most on a machine");
    sold(&mut snapshot, (1, 0..2), NoticeClass::N1h, 600);
    assert_eq!(available(&snapshot, &own(1)).units, 3, "six look free and three are");
    let refused = place(&snapshot, &own(4)).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::UsedOutside { idle: 6, outside: 3 });
    // Orders and reclaims count on them no more than that.
    assert_eq!(decided(&snapshot, &need(3, 600)).unwrap().devices.len(), 3);
    assert_eq!(decided(&snapshot, &need(4, 600)), Err(Shortfall::TooFew { available: 3 }));
    assert!(decided(&snapshot, &need(4, 7_200)).unwrap().victims.len() == 1);
    let refused = place_with_reclaim(&snapshot, &own(4), NOW).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::NotReclaimable { largest_after: 3 });
}

#[test]
fn who_leaves_because_of_another_order_alone_is_its_victim_too() {
    let mut snapshot = fleet("cpu", &[2]);
    let id = sold(&mut snapshot, (0, 0..2), NoticeClass::N2m, 600);
    let end = OrderedEnd { tell_at: after(100), deadline: after(225), breaks_promise: true };
    snapshot.leases.get_mut(&id).unwrap().stake.ordered = Some(end);
    snapshot.devices[0].held = true;
    let order = decided(&snapshot, &need(1, 600)).unwrap();
    assert_eq!((order.victims.len(), order.free_anyway(), order.shared.len()), (0, 1, 1));
    assert_eq!((&order.shared[0].lease, order.shared[0].end), (&id, OrderedEnd { breaks_promise: false, ..end }));
    let may_break = decided(&snapshot, &Need { promises: Promises::MayBreak, ..need(1, 600) }).unwrap();
    assert_eq!(may_break.shared[0].end, end);
    // Its window is over by then, whatever becomes of the other order.
    snapshot.leases.get_mut(&id).unwrap().ends_at = Some(after(500));
    assert_eq!(decided(&snapshot, &need(1, 600)).unwrap().shared, vec![]);
}

/// Fleets with work of different age, as in [`worlds`].
fn fleets() -> impl Strategy<Value = World> {
    (worlds(), prop::collection::vec((0_i64..40_000, 1_i64..5, any::<bool>()), 24)).prop_map(|(mut world, stakes)| {
        for (lease, (ran, price, is_busy)) in world.snapshot.leases.values_mut().zip(stakes) {
            let at_risk_since = is_busy.then(|| after(-ran));
            if ran < 10_000 {
                lease.starts_at = after(-ran / 25);
            }
            lease.stake = Stake { at_risk_since, price: Nanos::new(price), ordered: None };
        }
        world
    })
}

/// Who may be a victim, written down once more.
fn may_be_taken(snapshot: &Snapshot, need: &Need, id: &LeaseId) -> bool {
    let lease = &snapshot.leases[id];
    let latest = need.by.minus(DurationMs::from_seconds(LEAD));
    let in_time = lease.notice.notice().is_some_and(|notice| NOW.plus(notice).plus(DurationMs::from_seconds(5)) <= latest);
    lease.holder == Holder::External
        && lease.stage == LeaseStage::Active
        && lease.notice != NoticeClass::Firm
        && latest >= NOW
        && (in_time || need.promises == Promises::MayBreak)
}

/// Free units of each machine by then, once these leases are gone.
fn freed(snapshot: &Snapshot, need: &Need, gone: &BTreeSet<&LeaseId>) -> BTreeMap<NodeId, u32> {
    let latest = need.by.minus(DurationMs::from_seconds(LEAD));
    let mut nodes = BTreeMap::new();
    for device in &snapshot.devices {
        let is_free = device.used_by.as_ref().is_none_or(|id| {
            let ends = matches!(snapshot.leases[id].stage, LeaseStage::Ending { deadline, .. } if deadline <= latest);
            ends || gone.contains(id)
        });
        *nodes.entry(device.node.clone()).or_insert(0) += u32::from(is_free);
    }
    nodes
}

fn fits(need: &Need, nodes: &BTreeMap<NodeId, u32>) -> bool {
    match need.shape {
        ReclaimShape::Anywhere => nodes.values().sum::<u32>() >= need.units,
        ReclaimShape::PerNode(each) => {
            nodes.values().filter(|free| **free >= each.get()).count() >= usize::try_from(need.units / each.get()).unwrap()
        }
        ReclaimShape::WholeNodes => unreachable!("not asked for here"),
    }
}

/// The objective: the gentlest worst tier, then the least loss, then the fewest.
fn objective(snapshot: &Snapshot, need: &Need, gone: &BTreeSet<&LeaseId>) -> (Option<(bool, NoticeClass, bool)>, i128, usize) {
    let latest = need.by.minus(DurationMs::from_seconds(LEAD));
    let tier = |id: &&&LeaseId| {
        let lease = &snapshot.leases[**id];
        let is_young = lease.stake.at_risk_since.is_some() && latest.since(lease.starts_at) < DurationMs::from_seconds(300);
        (NOW.plus(lease.notice.notice().unwrap()) > latest, lease.notice, is_young)
    };
    let loss = |id: &&LeaseId| {
        let lease = &snapshot.leases[*id];
        let (breaks_promise, notice, is_young) = tier(&id);
        let tier = crate::victim::Tier { breaks_promise, notice, is_young };
        crate::victim::loss(&crate::index::Standing::of(lease), tier, latest)
    };
    (gone.iter().map(|id| tier(&id)).max(), gone.iter().map(loss).sum(), gone.len())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_choice_of_victims_is_better(
        world in fleets(), units in 1_u32..7, machines in 1_u32..4, gang in any::<bool>(), may_break in any::<bool>(), seconds in prop::sample::select(vec![5_i64, 20, 200, 1_000, 4_000, 100_000]),
    ) {
        let snapshot = &world.snapshot;
        let promises = if may_break { Promises::MayBreak } else { Promises::Kept };
        let need = if gang {
            Need { units: units * machines, shape: per_node(units), promises, ..need(1, seconds) }
        } else {
            Need { promises, ..need(units * machines, seconds) }
        };
        let pool: Vec<&LeaseId> = snapshot.leases.keys().filter(|id| may_be_taken(snapshot, &need, id)).collect();
        prop_assume!(pool.len() <= 9);
        let subsets = (0_usize..1 << pool.len()).map(|mask| pool.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, id)| *id).collect::<BTreeSet<_>>());
        let best = subsets.filter(|gone| fits(&need, &freed(snapshot, &need, gone))).map(|gone| objective(snapshot, &need, &gone)).min();
        match decided(snapshot, &need) {
            Err(shortfall) => prop_assert!(best.is_none(), "{shortfall:?} and {best:?}"),
            Ok(order) => {
                let gone: BTreeSet<&LeaseId> = order.victims.iter().map(|victim| &victim.lease).collect();
                prop_assert!(gone.iter().all(|id| pool.contains(id)));
                prop_assert!(fits(&need, &freed(snapshot, &need, &gone)), "it fits once they are gone");
                prop_assert_eq!(Some(objective(snapshot, &need, &gone)), best);
                for id in &gone {
                    let without: BTreeSet<&LeaseId> = gone.iter().filter(|other| *other != id).copied().collect();
                    prop_assert!(!fits(&need, &freed(snapshot, &need, &without)), "{} is a victim in vain", id);
                }
            }
        }
    }

    #[test]
    fn an_order_names_each_device_once_and_keeps_what_was_sold(world in fleets(), units in 1_u32..20, may_break in any::<bool>(), seconds in 0_i64..8_000) {
        let snapshot = &world.snapshot;
        let promises = if may_break { Promises::MayBreak } else { Promises::Kept };
        let need = Need { promises, ..need(units, seconds) };
        if let Ok(order) = decided(snapshot, &need) {
            let named: BTreeSet<&DeviceId> = order.devices.iter().map(|one| &one.device).collect();
            prop_assert_eq!(named.len(), usize::try_from(units).unwrap());
            for one in &order.devices {
                let device = snapshot.devices.iter().find(|device| device.id == one.device).unwrap();
                prop_assert!(device.node == one.node && device.used_by == one.lease && one.free_at <= need.by.max(NOW));
            }
            for victim in &order.victims {
                let lease = &snapshot.leases[&victim.lease];
                let notice = lease.notice.notice().unwrap();
                prop_assert!(victim.end.deadline.plus(DurationMs::from_seconds(LEAD)) <= need.by);
                prop_assert!(victim.end.breaks_promise || victim.end.tell_at.plus(notice) <= victim.end.deadline);
                prop_assert!(!victim.end.breaks_promise || may_break);
                prop_assert!(order.devices.iter().any(|one| one.lease.as_ref() == Some(&victim.lease)), "it gives something");
            }
        }
    }

    #[test]
    fn an_order_does_not_depend_on_the_order_of_the_input(world in fleets(), units in 1_u32..12, rotation in 0_usize..20) {
        let mut turned = world.snapshot.clone();
        let length = turned.devices.len();
        turned.devices.rotate_left(rotation % length);
        prop_assert_eq!(decided(&world.snapshot, &need(units, 4_000)), decided(&turned, &need(units, 4_000)));
        let (index, other) = (FleetIndex::new(&world.snapshot), FleetIndex::new(&turned));
        prop_assert_eq!(instead(&index, &need(units, 60), NOW), instead(&other, &need(units, 60), NOW));
    }

    #[test]
    fn a_choice_beyond_the_table_covers_and_has_nobody_in_vain(sizes in prop::collection::vec((1_usize..5, 0_i64..50), 1..30), needed in 1_usize..40) {
        let pool: Vec<_> = sizes.iter().map(|(units, loss)| crate::victim::Item { units: *units, loss: i128::from(*loss) }).collect();
        let total: usize = sizes.iter().map(|(size, _)| size).sum();
        for choice in [crate::victim::cover(&pool, needed), crate::victim::cover_greedily(&pool, needed)] {
            prop_assert_eq!(choice.is_some(), total >= needed);
            if let Some(choice) = choice {
                let freed: usize = choice.chosen.iter().map(|place| sizes[*place].0).sum();
                prop_assert!(freed >= needed);
                prop_assert!(choice.chosen.iter().all(|place| freed - sizes[*place].0 < needed));
            }
        }
    }
}
