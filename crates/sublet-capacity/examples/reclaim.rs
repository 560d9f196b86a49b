//! Times decisions about victims over a large fleet: `reclaim [DEVICES [LEASES]]`.
//!
//! Machines have eight devices of one kind. Leases have one to eight units and are of all classes; a tenth are firm, a
//! fifth the owner's own, one in two hundred is ending already, half have a checkpoint. Each figure is the mean processor time of
//! 50 runs, in milliseconds.

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::num::NonZeroU32;

use sublet_capacity::{
    DeviceView, FleetIndex, LeaseStage, LeaseView, Need, Request, ReserveRule, Selling, Snapshot, Stake, Terms, decide, figures,
    plan, take_back, try_place_with_reclaim,
};
use sublet_core::device::DeviceHealth;
use sublet_core::id::{Identifier, LeaseId};
use sublet_core::lease::{EndReason, Holder};
use sublet_core::notice::NoticeClass;
use sublet_core::reclaim::{Promises, ReclaimShape};
use sublet_core::runner::IsolationLevel;
use sublet_core::{DurationMs, Nanos, Timestamp};

const NOW: Timestamp = Timestamp::from_seconds(1_000_000);
const PER_NODE: usize = 8;
const RUNS: u64 = 50;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A sequence that is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
    fn id<I: Identifier>(&mut self) -> I {
        let mut random = [0; 10];
        random.iter_mut().for_each(|byte| *byte = self.0.to_le_bytes()[usize::try_from(self.below(8)).unwrap_or(0)]);
        I::encode(NOW, random)
    }
}

fn lease(numbers: &mut Numbers, units: usize) -> Outcome<LeaseView> {
    let notice = match numbers.below(10) {
        0 => NoticeClass::Firm,
        1 | 2 => NoticeClass::N0,
        3 | 4 => NoticeClass::N15m,
        5 => NoticeClass::N1h,
        6 => NoticeClass::N24h,
        _ => NoticeClass::N2m,
    };
    let ran = i64::try_from(numbers.below(200_000))?;
    let since = DurationMs::from_seconds(if numbers.below(2) == 0 { ran } else { ran % 900 });
    let is_ending = numbers.below(200) == 0;
    let deadline = NOW.plus(DurationMs::from_seconds(i64::try_from(numbers.below(900))?));
    Ok(LeaseView {
        id: numbers.id(),
        generation: 1,
        holder: if numbers.below(5) == 0 { Holder::Internal } else { Holder::External },
        kind: "h200".parse()?,
        units: u32::try_from(units)?,
        notice,
        stage: if is_ending { LeaseStage::Ending { reason: EndReason::Released, deadline } } else { LeaseStage::Active },
        starts_at: NOW.minus(DurationMs::from_seconds(ran)),
        ends_at: None,
        busy: true,
        unused_since: None,
        job_over: false,
        cover: None,
        stake: Stake { at_risk_since: Some(NOW.minus(since)), price: Nanos::new(2_400_000_000), ordered: None },
    })
}

fn fleet(devices: usize, leases: usize) -> Outcome<Snapshot> {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut views: Vec<DeviceView> = Vec::with_capacity(devices);
    for place in 0..devices {
        let node = match views.last() {
            Some(last) if place % PER_NODE != 0 => last.node.clone(),
            _ => numbers.id(),
        };
        views.push(DeviceView {
            id: numbers.id(),
            kind: "h200".parse()?,
            site: format!("site_{}", place * 4 / devices).parse()?,
            node,
            isolation: IsolationLevel::Sandbox,
            health: DeviceHealth::Healthy,
            used_by: None,
            promised_to: None,
            held: false,
        });
    }
    let mut sold: BTreeMap<LeaseId, LeaseView> = BTreeMap::new();
    // About one device in forty stays free, and the rest of a machine after the last lease.
    for node in views.chunks_mut(PER_NODE) {
        let mut free = PER_NODE - usize::from(numbers.below(5) == 0);
        while free > 0 && sold.len() < leases {
            let wanted = 1 + usize::try_from(numbers.below(3))? + usize::from(numbers.below(12) == 0) * 5;
            let units = wanted.clamp(1, free);
            let view = lease(&mut numbers, units)?;
            node[free - units..free].iter_mut().for_each(|device| device.used_by = Some(view.id.clone()));
            free -= units;
            sold.insert(view.id.clone(), view);
        }
    }
    let terms = Terms {
        reserve: ReserveRule { minimum_units: 0, fraction_thousandths: 20 },
        grace: DurationMs::from_seconds(10),
        slack: DurationMs::from_seconds(5),
        stop_notice_max: DurationMs::from_seconds(900),
        unused_max: DurationMs::from_seconds(300),
    };
    Ok(Snapshot { devices: views, leases: sold, terms, selling: Selling::default() })
}

/// What a task takes, and what its answer was.
fn timed<T>(out: &mut impl Write, what: &str, mut task: impl FnMut() -> (T, String)) -> Outcome<()> {
    let mut said = String::new();
    let begun = processor_nanos()?;
    for _ in 0..RUNS {
        let (answer, text) = task();
        black_box(answer);
        said = text;
    }
    let micros = (processor_nanos()? - begun) / 1_000 / RUNS;
    Ok(writeln!(out, "{what:<44} {:>5}.{:03}   {said}", micros / 1_000, micros % 1_000)?)
}

/// Processor time of this program so far. It is counted in steps of a few milliseconds.
fn processor_nanos() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(text.split(' ').next().ok_or("no time is counted here")?.parse()?)
}

fn need(units: u32, shape: ReclaimShape, seconds: i64) -> Outcome<Need> {
    let by = NOW.plus(DurationMs::from_seconds(seconds));
    Ok(Need { kind: "h200".parse()?, units, site: None, shape, by, promises: Promises::Kept })
}

fn main() -> Outcome<()> {
    let mut sizes = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let (devices, leases) = (sizes.next().transpose()?.unwrap_or(100_000), sizes.next().transpose()?.unwrap_or(50_000));
    let snapshot = fleet(devices, leases)?;
    let mut out = std::io::stdout().lock();
    let seen = figures(&snapshot, &"h200".parse()?);
    writeln!(out, "{devices} devices, {} leases, {} free; milliseconds of processor time", snapshot.leases.len(), seen.idle)?;
    timed(&mut out, "the index of a snapshot", || (FleetIndex::new(&snapshot), String::new()))?;
    let index = FleetIndex::new(&snapshot);
    let free = seen.idle;
    let per_node = |units| NonZeroU32::new(units).map(ReclaimShape::PerNode).ok_or("no units");
    for (what, need) in [
        ("2 more than are free, anywhere", need(free + 2, ReclaimShape::Anywhere, 7_200)?),
        ("1,000 more than are free, anywhere", need(free + 1_000, ReclaimShape::Anywhere, 7_200)?),
        ("4,000 more than are free, anywhere", need(free + 4_000, ReclaimShape::Anywhere, 7_200)?),
        ("16 units, 8 on each machine", need(16, per_node(8)?, 7_200)?),
        ("16 units, 8 on each, within five minutes", need(16, per_node(8)?, 300)?),
        ("64 units, 4 on each machine", need(64, per_node(4)?, 7_200)?),
        ("160 units, whole machines", need(160, ReclaimShape::WholeNodes, 7_200)?),
    ] {
        timed(&mut out, what, || {
            let order = decide(&index, &need, NOW);
            let said =
                order.as_ref().map_or_else(|short| format!("{short:?}"), |order| format!("{} leases end", order.victims.len()));
            (order, said)
        })?;
    }
    let request = Request {
        kind: "h200".parse()?,
        units: 8,
        notice: NoticeClass::N0,
        holder: Holder::Internal,
        site: None,
        isolation: IsolationLevel::Process,
    };
    timed(&mut out, "a team's lease of 8, with the index", || {
        let taken = take_back(&index, &request, NOW);
        let said = taken.as_ref().map_or_else(ToString::to_string, |plan| format!("{} leases end", plan.victims.len()));
        (taken, said)
    })?;
    timed(&mut out, "a team's lease of 8, from the snapshot", || {
        (try_place_with_reclaim(&snapshot, &request, NOW), String::new())
    })?;
    timed(&mut out, "the plan of a pass", || {
        let actions = plan(&snapshot, NOW);
        let said = format!("{} steps", actions.len());
        (actions, said)
    })
}
