//! Tables and properties over small fleets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::id::{DeviceId, LeaseId, NodeId, SiteId};
use sublet_core::lease::{EndReason, Holder};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::{DurationMs, Timestamp};

use super::*;

mod orders;

pub(super) const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

pub(super) fn kind(name: &str) -> DeviceKind {
    name.parse().unwrap()
}
fn lease_id(number: usize) -> LeaseId {
    format!("lease_{number:04}").parse().unwrap()
}
fn terms(reserve: ReserveRule) -> Terms {
    Terms {
        reserve,
        grace: DurationMs::from_seconds(10),
        slack: DurationMs::from_seconds(5),
        stop_notice_max: DurationMs::from_seconds(900),
        unused_max: DurationMs::from_seconds(300),
    }
}

/// `nodes` lists how many devices each machine has; machine 0 and 1 share a site.
pub(super) fn fleet(kind_name: &str, nodes: &[usize]) -> Snapshot {
    let mut devices = Vec::new();
    for (node, size) in nodes.iter().enumerate() {
        for slot in 0..*size {
            devices.push(DeviceView {
                id: format!("dev_{kind_name}{node:02}{slot:02}").parse::<DeviceId>().unwrap(),
                kind: kind(kind_name),
                site: format!("site_{}", node / 2).parse::<SiteId>().unwrap(),
                node: format!("node_{node:02}").parse::<NodeId>().unwrap(),
                isolation: IsolationLevel::Sandbox,
                health: DeviceHealth::Healthy,
                used_by: None,
                promised_to: None,
                held: false,
            });
        }
    }
    Snapshot { devices, leases: BTreeMap::new(), terms: terms(ReserveRule::default()), selling: Selling::default() }
}

pub(super) fn request(units: u32, notice: NoticeClass, holder: Holder) -> Request {
    Request { kind: kind("cpu"), units, notice, holder, site: None, isolation: IsolationLevel::Process }
}

fn external(units: u32) -> Request {
    request(units, NoticeClass::N2m, Holder::External)
}

/// What the executor does: gives the devices to a new lease.
pub(super) fn take(snapshot: &mut Snapshot, wanted: &Request, devices: &[DeviceId]) -> LeaseId {
    let id = lease_id(snapshot.leases.len() + 1);
    for device in &mut snapshot.devices {
        if devices.contains(&device.id) {
            assert!(device.used_by.is_none() && device.promised_to.is_none(), "{} is placed twice", device.id);
            device.used_by = Some(id.clone());
        }
    }
    let lease = LeaseView {
        id: id.clone(),
        generation: 1,
        holder: wanted.holder,
        kind: wanted.kind.clone(),
        units: wanted.units,
        notice: wanted.notice,
        stage: LeaseStage::Active,
        starts_at: NOW
            .minus(DurationMs::from_hours(48))
            .plus(DurationMs::from_seconds(i64::try_from(snapshot.leases.len()).unwrap())),
        ends_at: None,
        busy: true,
        unused_since: None,
        job_over: false,
        cover: None,
        stake: Stake::default(),
    };
    snapshot.leases.insert(id.clone(), lease);
    id
}

fn take_placed(snapshot: &mut Snapshot, wanted: &Request) -> LeaseId {
    let placement = place(snapshot, wanted).unwrap();
    take(snapshot, wanted, &placement.devices)
}

#[test]
fn the_reserve_is_the_larger_of_units_and_share() {
    for (minimum_units, fraction_thousandths, healthy, expected) in [
        (0, 0, 10, 0),
        (3, 0, 10, 3),
        (3, 0, 2, 2),
        (0, 1, 10, 1),
        (0, 250, 8, 2),
        (0, 251, 8, 3),
        (1, 250, 8, 2),
        (0, 5_000, 8, 8),
    ] {
        let rule = ReserveRule { minimum_units, fraction_thousandths };
        assert_eq!(rule.units(healthy), expected, "{rule:?} of {healthy}");
    }
}

#[test]
fn what_is_kept_shrinks_with_what_the_owners_teams_use() {
    let mut snapshot = fleet("cpu", &[10]);
    snapshot.terms.reserve = ReserveRule { minimum_units: 4, fraction_thousandths: 0 };
    assert_eq!(available(&snapshot, &external(1)).units, 6);
    take_placed(&mut snapshot, &request(3, NoticeClass::N0, Holder::Internal));
    assert_eq!(available(&snapshot, &external(1)).units, 6);
    take_placed(&mut snapshot, &request(3, NoticeClass::N0, Holder::Internal));
    assert_eq!(available(&snapshot, &external(1)).units, 4);
    let refusal = place(&fleet_with_reserve(4), &external(7)).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Reserved { idle: 10, kept: 4, sellable: 6 });
    assert_eq!(refusal.alternatives, vec![Alternative::FewerUnits { units: 6 }]);
}

fn fleet_with_reserve(minimum_units: u32) -> Snapshot {
    let mut snapshot = fleet("cpu", &[10]);
    snapshot.terms.reserve = ReserveRule { minimum_units, fraction_thousandths: 0 };
    snapshot
}

#[test]
fn fragments_are_never_added_up() {
    let snapshot = fleet("cpu", &[2, 3, 1]);
    assert_eq!(available(&snapshot, &external(1)).units, 3);
    let refusal = place(&snapshot, &external(4)).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Fragmented { sellable: 6, largest: 3 });
    assert_eq!(refusal.alternatives, vec![Alternative::FewerUnits { units: 3 }]);
    // The tightest machine is used first, so the larger one stays whole.
    assert_eq!(place(&snapshot, &external(1)).unwrap().node.as_str(), "node_02");
}

#[test]
fn firm_leases_and_guarantees_fit_into_what_is_healthy() {
    let mut snapshot = fleet_with_reserve(4);
    take_placed(&mut snapshot, &request(4, NoticeClass::Firm, Holder::External));
    // The owner's teams use their whole reserve, so all that is idle may be sold, but not firmly.
    take_placed(&mut snapshot, &request(4, NoticeClass::N0, Holder::Internal));
    assert_eq!(available(&snapshot, &request(1, NoticeClass::Firm, Holder::External)).units, 2);
    take_placed(&mut snapshot, &request(2, NoticeClass::Firm, Holder::External));
    assert_eq!(figures(&snapshot, &kind("cpu")).firm_headroom(), 0);
}

#[test]
fn refusals_name_what_is_wrong_and_what_works() {
    let mut snapshot = fleet("cpu", &[2, 2, 4]);
    snapshot.devices.extend(fleet("h100", &[8]).devices);
    let other = Request { kind: kind("b200"), ..external(1) };
    let elsewhere = Request { site: Some("site_9".parse().unwrap()), ..external(1) };
    let small_site = Request { site: Some("site_0".parse().unwrap()), ..external(3) };
    let known_sites = vec!["site_0".parse().unwrap(), "site_1".parse().unwrap()];
    let cases = [
        (external(0), RefusalReason::NoUnits),
        (other, RefusalReason::UnknownKind { known: vec![kind("cpu"), kind("h100")] }),
        (elsewhere, RefusalReason::UnknownSite { known: known_sites }),
        (external(9), RefusalReason::AboveHealthy { healthy: 8 }),
        (small_site.clone(), RefusalReason::Fragmented { sellable: 8, largest: 2 }),
    ];
    for (case, expected) in cases {
        assert_eq!(place(&snapshot, &case).unwrap_err().reason, expected);
    }
    let alternatives = place(&snapshot, &small_site).unwrap_err().alternatives;
    let (site, other_kind) = ("site_1".parse().unwrap(), kind("h100"));
    assert_eq!(
        alternatives,
        vec![Alternative::FewerUnits { units: 2 }, Alternative::OtherSite { site }, Alternative::OtherKind { kind: other_kind },]
    );
}

#[test]
fn weakly_separated_machines_are_neither_shown_nor_taken() {
    let mut snapshot = fleet("cpu", &[3, 2]);
    snapshot.devices.iter_mut().take(3).for_each(|device| device.isolation = IsolationLevel::Process);
    let sandboxed = |units| Request { isolation: IsolationLevel::Sandbox, ..external(units) };
    assert_eq!(available(&snapshot, &external(1)).units, 3);
    assert_eq!(available(&snapshot, &sandboxed(1)).units, 2);
    assert_eq!(place(&snapshot, &sandboxed(2)).unwrap().node.as_str(), "node_01");
    snapshot.devices.truncate(3);
    let (required, achieved) = (IsolationLevel::Sandbox, IsolationLevel::Process);
    assert_eq!(place(&snapshot, &sandboxed(1)).unwrap_err().reason, RefusalReason::Isolation { required, achieved });
}

#[test]
fn the_shortest_notice_is_reclaimed_first_and_firm_never() {
    let mut snapshot = fleet("cpu", &[6]);
    let spot = take_placed(&mut snapshot, &request(2, NoticeClass::N0, Holder::External));
    let noticed = take_placed(&mut snapshot, &request(2, NoticeClass::N2m, Holder::External));
    take_placed(&mut snapshot, &request(2, NoticeClass::Firm, Holder::External));
    let plan = place_with_reclaim(&snapshot, &request(2, NoticeClass::N0, Holder::Internal), NOW).unwrap();
    assert_eq!(plan.victims.iter().map(|victim| &victim.lease).collect::<Vec<_>>(), [&spot]);
    let plan = place_with_reclaim(&snapshot, &request(4, NoticeClass::N0, Holder::Internal), NOW).unwrap();
    assert_eq!(plan.victims.iter().map(|victim| &victim.lease).collect::<Vec<_>>(), [&spot, &noticed]);
    assert_eq!(plan.ready_at, NOW.plus(DurationMs::from_seconds(120)));
    let refusal = place_with_reclaim(&snapshot, &request(5, NoticeClass::N0, Holder::Internal), NOW).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::NotReclaimable { largest_after: 4 });
    let customer = place_with_reclaim(&snapshot, &external(2), NOW).unwrap_err();
    assert_eq!(customer.reason, RefusalReason::NotIdle { idle: 0 });
}

#[test]
fn victims_that_turn_out_needless_are_dropped() {
    let mut snapshot = fleet("cpu", &[5]);
    let large = request(4, NoticeClass::N2m, Holder::External);
    let big = take_placed(&mut snapshot, &large);
    take_placed(&mut snapshot, &request(1, NoticeClass::N0, Holder::External));
    let plan = place_with_reclaim(&snapshot, &request(4, NoticeClass::N0, Holder::Internal), NOW).unwrap();
    assert_eq!(plan.victims.iter().map(|victim| &victim.lease).collect::<Vec<_>>(), [&big]);
}

#[test]
fn each_end_of_a_lease_comes_with_its_reason_and_deadline() {
    let mut snapshot = fleet("cpu", &[4]);
    let id = take_placed(&mut snapshot, &external(1));
    let after = |seconds| NOW.plus(DurationMs::from_seconds(seconds));
    let base = snapshot.leases[&id].clone();
    let cover = |until, bound| Some(Cover { until, bound });
    let ending = |reason, deadline| Some(ActionKind::BeginEnding { reason, deadline });
    let stage = |deadline| LeaseStage::Ending { reason: EndReason::Budget, deadline };
    let cases = [
        (base.clone(), None),
        (LeaseView { ends_at: Some(after(121)), ..base.clone() }, None),
        (LeaseView { ends_at: Some(after(120)), ..base.clone() }, ending(EndReason::WindowOver, after(120))),
        (LeaseView { cover: cover(after(1), CoverBound::Open), ..base.clone() }, None),
        (LeaseView { cover: cover(after(136), CoverBound::Budget), ..base.clone() }, None),
        (LeaseView { cover: cover(after(135), CoverBound::Budget), ..base.clone() }, ending(EndReason::Budget, after(120))),
        (LeaseView { cover: cover(after(20), CoverBound::MaximumCost), ..base.clone() }, ending(EndReason::MaximumCost, after(5))),
        (LeaseView { cover: cover(after(136), CoverBound::MaximumPrice), ..base.clone() }, None),
        (
            LeaseView { cover: cover(after(135), CoverBound::MaximumPrice), ..base.clone() },
            ending(EndReason::MaximumPrice, after(120)),
        ),
        (LeaseView { cover: cover(after(3), CoverBound::Budget), ..base.clone() }, ending(EndReason::Budget, NOW)),
        (LeaseView { unused_since: Some(after(-299)), ..base.clone() }, None),
        (LeaseView { unused_since: Some(after(-300)), ..base.clone() }, ending(EndReason::Unused, NOW)),
        (LeaseView { job_over: true, ..base.clone() }, ending(EndReason::JobEnded, NOW)),
        (LeaseView { stage: stage(after(1)), ..base.clone() }, None),
        (LeaseView { stage: stage(NOW), ..base.clone() }, Some(ActionKind::Stop)),
        (LeaseView { stage: stage(after(1)), busy: false, ..base.clone() }, Some(ActionKind::Release)),
        (LeaseView { stage: stage(after(60)), ends_at: Some(after(30)), ..base.clone() }, ending(EndReason::WindowOver, after(30))),
        (LeaseView { stage: LeaseStage::Pending, ..base.clone() }, None),
    ];
    for (lease, expected) in cases {
        snapshot.leases.insert(id.clone(), lease.clone());
        let actions = plan(&snapshot, NOW);
        assert_eq!(actions.first().map(|action| action.kind), expected, "{lease:?}");
    }
    snapshot.leases.insert(id.clone(), base);
    snapshot.devices.iter_mut().for_each(|device| device.health = DeviceHealth::Lost);
    assert_eq!(plan(&snapshot, NOW)[0].kind, ActionKind::BeginEnding { reason: EndReason::DeviceLost, deadline: NOW });
}

#[test]
fn a_pending_lease_begins_when_all_its_devices_are_free() {
    let mut snapshot = fleet("cpu", &[2]);
    let first = take_placed(&mut snapshot, &external(2));
    let pending =
        LeaseView { stage: LeaseStage::Pending, id: lease_id(9), holder: Holder::Internal, ..snapshot.leases[&first].clone() };
    snapshot.leases.insert(lease_id(9), pending);
    snapshot.devices.iter_mut().for_each(|device| device.promised_to = Some(lease_id(9)));
    let due =
        |snapshot: &Snapshot| plan(snapshot, NOW).into_iter().find(|action| action.lease == lease_id(9)).map(|action| action.kind);
    snapshot.devices[0].used_by = None;
    assert_eq!(due(&snapshot), None);
    snapshot.devices[1].used_by = None;
    assert_eq!(due(&snapshot), Some(ActionKind::Activate));
    // Free but promised: nobody else gets it.
    assert_eq!(available(&snapshot, &external(1)).units, 0);
}

/// Random requests, as they would arrive.
fn requests() -> impl Strategy<Value = Vec<(u32, usize, bool, bool)>> {
    prop::collection::vec((1_u32..5, 0_usize..6, any::<bool>(), any::<bool>()), 0..24)
}

struct World {
    snapshot: Snapshot,
    nodes: Vec<usize>,
}

fn worlds() -> impl Strategy<Value = World> {
    (prop::collection::vec(1_usize..6, 1..5), 0_u32..5, 0_u32..600, requests()).prop_map(
        |(nodes, minimum_units, fraction, requests)| {
            let mut snapshot = fleet("cpu", &nodes);
            snapshot.terms.reserve = ReserveRule { minimum_units, fraction_thousandths: fraction };
            for (units, notice, internal, ends) in requests {
                let holder = if internal { Holder::Internal } else { Holder::External };
                let wanted = request(units, NoticeClass::ALL[notice], holder);
                let Ok(placement) = place(&snapshot, &wanted) else { continue };
                assert!(placement.devices.iter().collect::<BTreeSet<_>>().len() == usize::try_from(units).unwrap());
                let id = take(&mut snapshot, &wanted, &placement.devices);
                let lease = snapshot.leases.get_mut(&id).unwrap();
                if ends && units % 2 == 0 {
                    lease.stage = LeaseStage::Ending {
                        reason: EndReason::Released,
                        deadline: NOW.plus(DurationMs::from_seconds(i64::from(units))),
                    };
                }
            }
            World { snapshot, nodes }
        },
    )
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} {:#?}", self.nodes, self.snapshot.terms.reserve, self.snapshot.leases)
    }
}

/// Counts units straight from the devices, not through `figures`.
fn units_of(snapshot: &Snapshot, wanted: impl Fn(&LeaseView) -> bool) -> usize {
    snapshot.devices.iter().filter(|device| device.used_by.as_ref().is_some_and(|id| wanted(&snapshot.leases[id]))).count()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_reserve_is_never_sold_and_firm_fits_beside_it(world in worlds()) {
        let snapshot = &world.snapshot;
        let healthy = snapshot.devices.len();
        let reserve = usize::try_from(snapshot.terms.reserve.units(u32::try_from(healthy).unwrap())).unwrap();
        let sold = units_of(snapshot, |lease| lease.holder == Holder::External);
        let firm = units_of(snapshot, |lease| lease.holder == Holder::External && lease.notice == NoticeClass::Firm);
        prop_assert!(sold + reserve <= healthy);
        prop_assert!(firm + reserve <= healthy);
        let seen = figures(snapshot, &kind("cpu"));
        prop_assert_eq!(seen.idle + seen.internal + seen.external + seen.promised, seen.healthy);
    }

    #[test]
    fn what_is_available_is_placed_as_shown_and_not_a_unit_more(world in worlds(), notice in 0_usize..6, internal in any::<bool>()) {
        let holder = if internal { Holder::Internal } else { Holder::External };
        let wanted = |units| request(units, NoticeClass::ALL[notice], holder);
        let shown = available(&world.snapshot, &wanted(1)).units;
        for units in 1..=shown {
            let placement = place(&world.snapshot, &wanted(units)).unwrap();
            prop_assert_eq!(placement.devices.len(), usize::try_from(units).unwrap());
            for id in &placement.devices {
                let device = world.snapshot.devices.iter().find(|device| device.id == *id).unwrap();
                prop_assert!(device.used_by.is_none() && device.node == placement.node && device.site == placement.site);
            }
        }
        prop_assert!(place(&world.snapshot, &wanted(shown + 1)).is_err());
    }

    #[test]
    fn every_alternative_of_a_refusal_works(world in worlds(), units in 1_u32..9, notice in 0_usize..6) {
        let wanted = request(units, NoticeClass::ALL[notice], Holder::External);
        if let Err(refusal) = place(&world.snapshot, &wanted) {
            for alternative in refusal.alternatives {
                let changed = match alternative {
                    Alternative::FewerUnits { units } => Request { units, ..wanted.clone() },
                    Alternative::ShorterNotice { notice } => Request { notice, ..wanted.clone() },
                    Alternative::OtherKind { kind } => Request { kind, ..wanted.clone() },
                    Alternative::OtherSite { site } => Request { site: Some(site), ..wanted.clone() },
                };
                prop_assert!(place(&world.snapshot, &changed).is_ok());
            }
        }
    }

    #[test]
    fn nobody_is_displaced_in_vain(world in worlds(), units in 1_u32..7) {
        let snapshot = &world.snapshot;
        let wanted = request(units, NoticeClass::N0, Holder::Internal);
        let on = |node: &NodeId, free: &dyn Fn(&DeviceView) -> bool| {
            snapshot.devices.iter().filter(|device| device.node == *node && free(device)).count()
        };
        let lease = |device: &DeviceView| device.used_by.as_ref().map(|id| &snapshot.leases[id]);
        let free_anyway = |device: &DeviceView| lease(device).is_none_or(|lease| matches!(lease.stage, LeaseStage::Ending { .. }));
        let may_be_freed = |device: &DeviceView| {
            free_anyway(device)
                || lease(device).is_some_and(|lease| lease.holder == Holder::External && lease.notice != NoticeClass::Firm)
        };
        let units = usize::try_from(units).unwrap();
        match place_with_reclaim(snapshot, &wanted, NOW) {
            Ok(plan) => {
                let victims: BTreeSet<&LeaseId> = plan.victims.iter().map(|victim| &victim.lease).collect();
                let freed_by = |device: &DeviceView, left_out: Option<&LeaseId>| {
                    free_anyway(device) || device.used_by.as_ref().is_some_and(|id| victims.contains(id) && Some(id) != left_out)
                };
                // It fits on one machine once the victims are gone.
                prop_assert_eq!(plan.devices.iter().collect::<BTreeSet<_>>().len(), units);
                for id in &plan.devices {
                    let device = snapshot.devices.iter().find(|device| device.id == *id).unwrap();
                    prop_assert!(device.node == plan.node && freed_by(device, None));
                }
                for victim in &plan.victims {
                    let view = &snapshot.leases[&victim.lease];
                    prop_assert!(view.holder == Holder::External && view.notice != NoticeClass::Firm);
                    prop_assert!(victim.deadline >= NOW.plus(view.notice.notice().unwrap()) && victim.deadline <= plan.ready_at.max(victim.deadline));
                    // Each victim is needed.
                    prop_assert!(on(&plan.node, &|device| freed_by(device, Some(&victim.lease))) < units);
                }
                prop_assert_eq!(plan.victims.is_empty(), place(snapshot, &wanted).is_ok() || on(&plan.node, &free_anyway) >= units);
            }
            Err(_) => {
                let nodes: BTreeSet<&NodeId> = snapshot.devices.iter().map(|device| &device.node).collect();
                for node in nodes {
                    prop_assert!(on(node, &may_be_freed) < units);
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(world in worlds(), units in 1_u32..6, rotation in 0_usize..20) {
        let mut turned = world.snapshot.clone();
        let length = turned.devices.len();
        turned.devices.rotate_left(rotation % length);
        for holder in [Holder::Internal, Holder::External] {
            let wanted = request(units, NoticeClass::N0, holder);
            prop_assert_eq!(place(&world.snapshot, &wanted), place(&turned, &wanted));
            prop_assert_eq!(place_with_reclaim(&world.snapshot, &wanted, NOW), place_with_reclaim(&turned, &wanted, NOW));
        }
        prop_assert_eq!(plan(&world.snapshot, NOW), plan(&turned, NOW));
    }
}
