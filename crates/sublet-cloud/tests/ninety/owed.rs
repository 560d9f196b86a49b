//! What an interrupted lease is owed, computed once more from rows: exact fractions, rounded once.
//!
//! Written after the published rule (docs/operation/compensation.md), with none of the product's functions: charges are
//! laid out in time and cut where the free time begins, instead of being counted from the newest backwards.

use sublet_core::lease::{EndReason, Holder};
use sublet_core::notice::NoticeClass;
use sublet_core::{Nanos, Timestamp};
use sublet_money::compensation::CompensationRule;
use sublet_store::charge::Charge;
use sublet_store::compensation::LeaseNotice;
use sublet_store::lease::Lease;

use crate::record::LeaseRow;

const HOUR_MICROS: i128 = 3_600_000_000;
const PPM: i128 = 1_000_000;

/// How the owner ended a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupted {
    pub reason: EndReason,
    pub told_at: Timestamp,
    pub ended_at: Timestamp,
}

pub fn is_owners(reason: EndReason) -> bool {
    matches!(reason, EndReason::Reclaimed | EndReason::DeviceLost | EndReason::ShutDown)
}

/// `None` if it was not the owner who interrupted something. `last_use` is the end of the last metered time.
pub fn interruption(row: &LeaseRow, last_use: Option<Timestamp>) -> Option<Interrupted> {
    let (first, last) = (row.notices.first()?, row.notices.last()?);
    let told: Vec<&LeaseNotice> = row.notices.iter().filter(|notice| is_owners(notice.reason)).collect();
    let end = told.last()?;
    let had_work = first.is_busy || row.lease.notice == NoticeClass::Firm;
    let ended_by_holder = row.lease.notice == NoticeClass::N0 && !is_owners(last.reason);
    if row.lease.holder == Holder::Internal || !had_work || ended_by_holder {
        return None;
    }
    let is_lost = end.reason == EndReason::DeviceLost && end.is_busy;
    let ended_at = if is_lost { last_use.unwrap_or(end.deadline).min(end.deadline) } else { end.deadline };
    Some(Interrupted { reason: end.reason, told_at: first.told_at.min(ended_at), ended_at })
}

/// Microseconds that are missing of what was sold: of the notice, or of the window of `firm`; none beyond the window.
pub fn missing(lease: &Lease, end: Interrupted) -> i128 {
    let left = lease.ends_at.map(|window| micros(end.ended_at, window).max(0));
    let missing = match lease.notice.notice() {
        None => return left.unwrap_or(0),
        Some(sold) => (i128::from(sold.millis()) * 1_000 - micros(end.told_at, end.ended_at).max(0)).max(0),
    };
    left.map_or(missing, |left| left.min(missing))
}

/// Whether the holder did not get what it was sold.
pub fn is_broken(lease: &Lease, end: Interrupted) -> bool {
    match lease.notice {
        NoticeClass::N0 => lease.ends_at.is_none_or(|window| window > end.ended_at),
        _ => missing(lease, end) > 0,
    }
}

/// The amount, zero if nothing is.
pub fn owed(lease: &Lease, end: Interrupted, rule: CompensationRule, charges: &[&Charge]) -> Nanos {
    if !is_broken(lease, end) {
        return Nanos::ZERO;
    }
    let price = i128::from(lease.price.get()) * i128::from(lease.units);
    let used = micros(lease.starts_at, end.ended_at).max(0);
    let rest_of_hour = (HOUR_MICROS - used % HOUR_MICROS) % HOUR_MICROS;
    let weighted = rest_of_hour * i128::from(rule.hour_ppm) + missing(lease, end) * i128::from(rule.missing_ppm);
    let free_from = Timestamp::from_micros(end.ended_at.micros() - rule.free_ms.millis() * 1_000).max(lease.starts_at);
    let free: i128 = charges.iter().map(|charge| part_after(charge, lease.units, free_from)).sum();
    let owed = free + half_even(price * weighted, HOUR_MICROS * PPM);
    Nanos::new(i64::try_from(owed).expect("in range"))
}

/// What who left before its deadline gets, rounded down. `left` is when its last work ended, unless that was lost.
pub fn early(row: &LeaseRow, left: Option<Timestamp>, rule: CompensationRule) -> Nanos {
    let lease = &row.lease;
    let told = row.notices.iter().find(|notice| notice.reason == EndReason::Reclaimed);
    let (Some(told), Some(left), Some(sold)) = (told, left, lease.notice.notice()) else { return Nanos::ZERO };
    if lease.holder == Holder::Internal || !told.is_busy || left < told.told_at {
        return Nanos::ZERO;
    }
    let by_holder = |reason| matches!(reason, EndReason::Released | EndReason::JobEnded);
    let deadlines = row.notices.iter().filter(|notice| !by_holder(notice.reason)).map(|notice| notice.deadline);
    let deadline = deadlines.chain(lease.ends_at).min().expect("it was told one");
    let unused = (i128::from(deadline.since(left).millis()).max(0)).min(i128::from(sold.millis()));
    let price = i128::from(lease.price.get()) * i128::from(lease.units);
    let credit = price * unused * i128::from(rule.early_ppm) / (HOUR_MICROS / 1_000 * PPM);
    Nanos::new(i64::try_from(credit).expect("in range"))
}

/// What of a charge is for time after an instant.
fn part_after(charge: &Charge, units: u32, from: Timestamp) -> i128 {
    let (amount, length) = (i128::from(charge.amount.get()), i128::from(charge.quantity.get()) * 1_000 / i128::from(units));
    let begins = i128::from(charge.occurred_at.micros());
    let after = (begins + length - i128::from(from.micros())).clamp(0, length);
    if length == 0 { 0 } else { half_even(amount * after, length) }
}

fn micros(from: Timestamp, until: Timestamp) -> i128 {
    i128::from(until.micros()) - i128::from(from.micros())
}

/// The nearest integer, ties to the even one; for a divisor above zero.
pub fn half_even(dividend: i128, divisor: i128) -> i128 {
    let (floor, rest) = (dividend.div_euclid(divisor), dividend.rem_euclid(divisor));
    match (rest * 2).cmp(&divisor) {
        std::cmp::Ordering::Less => floor,
        std::cmp::Ordering::Greater => floor + 1,
        std::cmp::Ordering::Equal => floor + floor.rem_euclid(2),
    }
}
