//! Times quotes of windows over a large calendar: `quote [DEVICES [DAYS]]`.
//!
//! Machines have eight devices of one kind, at four sites. Devices are booked in turn for one hour to four days, with gaps
//! of up to two days, until the horizon; a tenth of each site is its owner's in the day. Each figure is the mean processor
//! time of 50 runs, in milliseconds.

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::io::Write;

use sublet_capacity::{
    Booking, Calendar, DeviceView, Kept, OpenLeases, Pool, ReserveRule, Selling, Snapshot, Terms, Window, WindowRequest,
};
use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::id::Identifier;
use sublet_core::lease::Holder;
use sublet_core::runner::IsolationLevel;
use sublet_core::{DurationMs, Timestamp};

const NOW: Timestamp = Timestamp::from_seconds(1_000_000);
const PER_NODE: usize = 8;
const SITES: usize = 4;
const RUNS: u64 = 50;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A sequence that is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: i64) -> Outcome<i64> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Ok(i64::try_from(self.0 % u64::try_from(end)?)?)
    }
    fn id<I: Identifier>(&mut self) -> Outcome<I> {
        let mut random = [0; 10];
        for byte in &mut random {
            *byte = u8::try_from(self.below(256)?)?;
        }
        Ok(I::encode(NOW, random))
    }
}

fn hours(count: i64) -> DurationMs {
    DurationMs::from_hours(count)
}

fn fleet(devices: usize, numbers: &mut Numbers) -> Outcome<Snapshot> {
    let mut views: Vec<DeviceView> = Vec::with_capacity(devices);
    for place in 0..devices {
        let node = match views.last() {
            Some(last) if place % PER_NODE != 0 => last.node.clone(),
            _ => numbers.id()?,
        };
        views.push(DeviceView {
            id: numbers.id()?,
            kind: "h200".parse()?,
            site: format!("site_{}", place / PER_NODE % SITES).parse()?,
            node,
            isolation: IsolationLevel::Sandbox,
            health: DeviceHealth::Healthy,
            used_by: None,
            promised_to: None,
            held: false,
        });
    }
    let terms = Terms {
        reserve: ReserveRule::default(),
        grace: DurationMs::from_seconds(10),
        slack: DurationMs::from_seconds(5),
        stop_notice_max: DurationMs::from_seconds(900),
        unused_max: DurationMs::from_seconds(300),
    };
    Ok(Snapshot { devices: views, leases: BTreeMap::new(), terms, selling: Selling::default() })
}

fn bookings(snapshot: &Snapshot, days: i64, numbers: &mut Numbers) -> Outcome<Vec<Booking>> {
    let (mut all, horizon) = (Vec::new(), NOW.plus(hours(24 * days)));
    for device in &snapshot.devices {
        let mut at = NOW.plus(hours(numbers.below(24)?));
        while at < horizon {
            let ends_at = at.plus(hours(1 + numbers.below(96)?));
            all.push(Booking { device: device.id.clone(), window: Window { starts_at: at, ends_at } });
            at = ends_at.plus(hours(numbers.below(48)?));
        }
    }
    Ok(all)
}

/// A tenth of each site by day.
fn kept(snapshot: &Snapshot, days: i64) -> Outcome<BTreeMap<Pool, Vec<Kept>>> {
    let tenth = u32::try_from(snapshot.devices.len() / SITES / 10)?;
    let mut steps = Vec::new();
    for day in 0..days {
        steps.push(Kept { from: NOW.plus(hours(24 * day)), units: tenth });
        steps.push(Kept { from: NOW.plus(hours(24 * day + 12)), units: 0 });
    }
    let kind: DeviceKind = "h200".parse()?;
    let mut pools = BTreeMap::new();
    for site in 0..SITES {
        pools.insert(Pool { kind: kind.clone(), site: format!("site_{site}").parse()? }, steps.clone());
    }
    Ok(pools)
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
    Ok(writeln!(out, "{what:<52} {:>5}.{:03}   {said}", micros / 1_000, micros % 1_000)?)
}

/// Processor time of this program so far. It is counted in steps of a few milliseconds.
fn processor_nanos() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(text.split(' ').next().ok_or("no time is counted here")?.parse()?)
}

fn main() -> Outcome<()> {
    let mut sizes = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let (devices, days) = (sizes.next().transpose()?.unwrap_or(10_000), sizes.next().transpose()?.unwrap_or(60));
    let (mut numbers, days) = (Numbers(0x9e37_79b9_7f4a_7c15), i64::try_from(days)?);
    let snapshot = fleet(devices, &mut numbers)?;
    let (bookings, kept) = (bookings(&snapshot, days, &mut numbers)?, kept(&snapshot, days)?);
    let (kind, span) = ("h200".parse()?, (NOW, NOW.plus(hours(24 * days))));
    let make = || Calendar::of(&snapshot, &kind, span, (&bookings, &kept), OpenLeases::Stay);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{devices} devices, {days} days, {} bookings; milliseconds of processor time", bookings.len())?;
    timed(&mut out, "the calendar of a snapshot", || (make(), String::new()))?;
    let mut calendar = make();
    let asked = |units, length, latest| WindowRequest {
        units,
        length: hours(length),
        starts: Window { starts_at: NOW.plus(hours(24)), ends_at: NOW.plus(hours(24 + latest)) },
        holder: Holder::External,
        site: None,
        isolation: IsolationLevel::Process,
    };
    let all = 24 * days;
    for (what, request) in [
        ("1 unit for 6 hours tomorrow", asked(1, 6, 0)),
        ("4 units for a day, whenever it is", asked(4, 24, all)),
        ("8 units for a day, whenever it is", asked(8, 24, all)),
        ("8 units for 2 days, whenever it is", asked(8, 48, all)),
        ("2 units for 2 weeks, whenever it is", asked(2, 14 * 24, all)),
    ] {
        timed(&mut out, what, || {
            let found = calendar.earliest(&request);
            let hours = |at: Timestamp| at.since(NOW).millis() / 3_600_000;
            let said = found.as_ref().map_or("none".to_owned(), |found| format!("after {} hours", hours(found.window.starts_at)));
            (found, said)
        })?;
        if calendar.earliest(&request).is_none() {
            timed(&mut out, "  and what is nearby", || {
                let near = calendar.nearby(&request);
                let said = format!("{:?}", near.iter().map(|near| near.request.units).collect::<Vec<_>>());
                (near, said)
            })?;
        }
    }
    let request = asked(1, 1, all);
    timed(&mut out, "booking a unit for an hour, found anew each time", || {
        let booked = calendar.earliest(&request).is_some_and(|found| calendar.book(&found));
        (booked, format!("{booked}"))
    })
}
