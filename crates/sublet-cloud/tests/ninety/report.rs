//! What a run came to, for whoever reads its log; and that it was a run that could have gone wrong.

use std::io::Write;

use sublet_core::device::DeviceClass;

use crate::check::{Sums, collision_ppm, hours};
use crate::days::{Figures, Plan};
use crate::record::Record;

pub fn show((database, plan): (&str, Plan), record: &Record, (figures, sums): (&Figures, &Sums)) -> std::io::Result<()> {
    let mut log = std::io::stdout().lock();
    let class = |class| sums.class_millis.get(&class).copied().unwrap_or(0);
    let sold = class(DeviceClass::Lease) + class(DeviceClass::Spot);
    // Until all had ended; what follows is the wait for the last month's invoices.
    let wait = record.until.since(record.ended_at.unwrap_or(record.until)).millis();
    let after = wait * i64::try_from(record.devices.len()).expect("few");
    let free = (sums.capacity_millis - after - class(DeviceClass::Internal) - class(DeviceClass::Unhealthy)).max(1);
    writeln!(log, "count: simulated days with surges on {database}, seed {} = {}", plan.seed, plan.days)?;
    writeln!(log, "  device-hours by class: {:?} of {}", by_hours(sums), hours(sums.capacity_millis))?;
    writeln!(log, "  sold, of what its owner left: {} %", sold * 100 / free)?;
    writeln!(log, "  asked for by customers: {}, bought: {:?}, refused: {:?}", figures.wanted, figures.bought, figures.refused)?;
    writeln!(
        log,
        "  cancelled: {}, went on with another job: {}, given back early: {}",
        figures.cancelled,
        figures.extended,
        record.yielded.len()
    )?;
    writeln!(log, "  leases ended: {:?}", sums.ended)?;
    writeln!(
        log,
        "  interrupted by the owner: {:?}; notice kept: {:?}, made good: {:?}",
        sums.interrupted, sums.kept, sums.broken
    )?;
    writeln!(
        log,
        "  team: {} requests, {} waited for a notice, {} refused behind firm and its own; waited {} ppm of its device time",
        sums.team_requests,
        sums.waits,
        sums.team_refused,
        collision_ppm(sums)
    )?;
    let outside = figures.outside_collided_millis * 1_000_000 / figures.outside_millis.max(1);
    writeln!(log, "  use beside leases that found no free device: {outside} ppm of it")?;
    writeln!(log, "  orders refused: {}, restarts: {}, looks: {}", figures.orders_refused, figures.restarts, figures.passes)?;
    let units = |nanos: i128| nanos / 1_000_000_000;
    let (charged, given, early) = (units(sums.charged_nanos), units(sums.compensated_nanos), units(sums.early_nanos));
    writeln!(
        log,
        "  charged: {charged}, made good: {given} in {} credits, of that {early} for leaving early, invoices: {}",
        record.compensations.len(),
        record.invoices.len()
    )
}

fn by_hours(sums: &Sums) -> Vec<(&'static str, i64)> {
    sums.class_millis.iter().map(|(class, millis)| (class.as_str(), hours(*millis))).collect()
}

/// A run in which nothing is interrupted shows nothing.
pub fn assert_something_happened(plan: Plan, figures: &Figures, sums: &Sums) {
    let few = format!("{figures:?} {sums:?}");
    let interrupted: u64 = sums.interrupted.values().sum();
    let kept: u64 = sums.kept.values().sum();
    let broken: u64 = sums.broken.values().sum();
    assert!(interrupted > 3 && kept > 0 && broken > 0 && sums.waits > 0 && figures.restarts > 0, "{few}");
    if plan.days >= 5 {
        assert!(figures.extended > 0 && figures.cancelled > 0 && sums.ended.contains_key("budget"), "{few}");
        assert!(sums.ended.contains_key("device_lost") && sums.ended.contains_key("window_over"), "{few}");
    }
}
