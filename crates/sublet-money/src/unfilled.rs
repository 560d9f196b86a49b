//! What customers asked for and did not get: how much of a month, at which price, and when.
//!
//! A customer who asks five times wants it once, so requests are never added up: in each hour of a project only the
//! largest request counts that covers it. A request covers its window, and one without a window the shortest life of a
//! lease of its class, an hour at least. What the project leased afterwards is taken off for as long as it had it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::civil::Weekday;
use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::ProjectId;
use sublet_core::money::divide_half_even;
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Nanos, Timestamp};

use crate::period::Interval;
use crate::zone::Zone;

/// So much of one request counts at most.
pub const WANTED_MAX: DurationMs = DurationMs::from_hours(31 * 24);
const HOUR: DurationMs = DurationMs::from_hours(1);
const HOUR_MICROS: i64 = 3_600_000_000;
/// From this hour on it is day, and from that on night.
const DAY_HOURS: std::ops::Range<i8> = 8..20;

/// Why a request was not filled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnfilledReason {
    /// Not enough is free, in all or on one machine.
    NotEnough,
    /// What is free is kept for the owner's teams, or used by the owner outside.
    Kept,
    /// So much may not be promised for so long now, or nothing may.
    ClassWithdrawn,
    /// No machine separates workloads well enough.
    Isolation,
    /// It costs more than the customer would pay.
    Price,
    /// It is not on sale, or not for so long.
    NotOnSale,
}

impl UnfilledReason {
    pub const ALL: [Self; 6] = [Self::NotEnough, Self::Kept, Self::ClassWithdrawn, Self::Isolation, Self::Price, Self::NotOnSale];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotEnough => "not_enough",
            Self::Kept => "kept",
            Self::ClassWithdrawn => "class_withdrawn",
            Self::Isolation => "isolation",
            Self::Price => "price",
            Self::NotOnSale => "not_on_sale",
        }
    }
}

impl fmt::Display for UnfilledReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for UnfilledReason {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::new(ErrorCode::InvalidRequest, format!("'{text}' is not a reason why demand was not filled"));
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(unknown)
    }
}

/// How long a request counts: its window, or as long as a lease of its class lives at least, and an hour at least.
pub fn wanted(window: Option<DurationMs>, notice: NoticeClass) -> DurationMs {
    window.unwrap_or_else(|| notice.minimum_term().max(HOUR)).min(WANTED_MAX)
}

/// What a customer would have paid for an hour of one device: its maximum, or the price of the list without one; and no more
/// than its maximum cost comes to for what it wanted, rounded down.
pub fn would_pay(
    (max_price, list_price): (Option<Nanos>, Option<Nanos>),
    max_cost: Option<Nanos>,
    (units, wanted): (u32, DurationMs),
) -> Option<Nanos> {
    let by_cost = max_cost.and_then(|cost| {
        let time = i128::from(units) * i128::from(wanted.millis());
        let hourly = (i128::from(cost.get()) * i128::from(HOUR.millis())).checked_div(time)?;
        i64::try_from(hourly).ok().map(Nanos::new)
    });
    match (max_price.or(list_price), by_cost) {
        (Some(price), Some(by_cost)) => Some(price.min(by_cost)),
        (price, by_cost) => price.or(by_cost),
    }
}

/// The largest request of an hour, a project, a notice and a reason, for one kind of device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    pub project: ProjectId,
    /// When its hour began.
    pub hour: Timestamp,
    pub notice: NoticeClass,
    pub reason: UnfilledReason,
    /// When it was refused: from then on it counts.
    pub asked_at: Timestamp,
    pub units: u32,
    pub wanted: DurationMs,
    /// For an hour of one device; `None` where nothing says it.
    pub price: Option<Nanos>,
}

/// What a project leased, from when it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leased {
    pub units: u32,
    pub from: Timestamp,
    /// `None` while it lasts.
    pub until: Option<Timestamp>,
}

/// Requests for one kind of device, and what their projects leased of it.
#[derive(Clone, Copy, Debug)]
pub struct Wants<'a> {
    pub asks: &'a [Ask],
    pub leased: &'a BTreeMap<ProjectId, Vec<Leased>>,
}

/// A part of the week.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WeekPart {
    WeekdayDays,
    WeekdayNights,
    WeekendDays,
    WeekendNights,
}

impl WeekPart {
    pub const ALL: [Self; 4] = [Self::WeekdayDays, Self::WeekdayNights, Self::WeekendDays, Self::WeekendNights];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WeekdayDays => "weekday days",
            Self::WeekdayNights => "weekday nights",
            Self::WeekendDays => "weekend days",
            Self::WeekendNights => "weekend nights",
        }
    }
}

/// A price at which something would have been sold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PricePoint {
    /// Of an hour of one device.
    pub price: Nanos,
    /// Wanted at this price or a higher one.
    pub device_millis: i64,
    /// What that would have brought, rounded half to even.
    pub worth: Nanos,
}

/// Unfilled demand for one kind of device in a month.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Unfilled {
    pub device_millis: i64,
    /// The price at which it would have brought most: the optimal single price of known bids (Goldberg, Hartline, Wright,
    /// "Competitive auctions and digital goods", 2001). Of two that bring the same, the lower one.
    pub best: Option<PricePoint>,
    pub by_reason: BTreeMap<UnfilledReason, i64>,
    pub by_notice: BTreeMap<NoticeClass, i64>,
    /// By the hour of the day on the clocks of the zone, from midnight on.
    pub by_hour: [i64; 24],
    /// The part of the week that had most of it for each of its hours in the month, and its share in thousandths.
    pub densest: Option<(WeekPart, i64)>,
}

/// What counts in one hour of a project.
#[derive(Clone, Copy)]
struct Cell {
    device_millis: i64,
    price: Option<Nanos>,
    notice: NoticeClass,
    reason: UnfilledReason,
}

impl Cell {
    fn size(&self) -> (i64, Option<Nanos>) {
        (self.device_millis, self.price)
    }
}

/// What was not filled in a month, or in the part of it that is over. It begins at a full hour; hours are those of
/// Coordinated Universal Time, each on the clocks of the zone by its middle.
pub fn unfilled(wants: Wants<'_>, month: Interval, zone: &Zone) -> Result<Unfilled> {
    let hours = hours_of(month);
    let mut found = Unfilled::default();
    let mut prices: BTreeMap<Nanos, i64> = BTreeMap::new();
    let mut by_hour = vec![0_i64; hours];
    let mut by_project: BTreeMap<&ProjectId, Vec<&Ask>> = BTreeMap::new();
    for ask in wants.asks {
        by_project.entry(&ask.project).or_default().push(ask);
    }
    for (project, asks) in &mut by_project {
        let leased = wants.leased.get(*project).map_or(&[][..], Vec::as_slice);
        for (hour, cell) in largest(asks, leased, month).into_iter().enumerate() {
            let Some(cell) = cell else { continue };
            add(&mut found.device_millis, cell.device_millis);
            add(&mut by_hour[hour], cell.device_millis);
            add(found.by_reason.entry(cell.reason).or_default(), cell.device_millis);
            add(found.by_notice.entry(cell.notice).or_default(), cell.device_millis);
            if let Some(price) = cell.price {
                add(prices.entry(price).or_default(), cell.device_millis);
            }
        }
    }
    found.best = best_price(&prices)?;
    let clocks = by_hour.iter().enumerate().map(|(hour, millis)| Ok((clock(month, hour, zone)?, *millis)));
    let clocks = clocks.collect::<Result<Vec<_>>>()?;
    for ((_, hour), millis) in &clocks {
        add(&mut found.by_hour[*hour], *millis);
    }
    found.densest = densest(clocks.iter().map(|((part, _), millis)| (*part, *millis)));
    Ok(found)
}

fn add(sum: &mut i64, more: i64) {
    *sum = sum.saturating_add(more);
}

fn hours_of(month: Interval) -> usize {
    let micros = month.ends_at.micros().saturating_sub(month.starts_at.micros()).max(0);
    usize::try_from(micros / HOUR_MICROS + i64::from(micros % HOUR_MICROS != 0)).unwrap_or(0)
}

/// For each hour of a month the most that a request of a project lost of it; of two alike the dearer one.
fn largest(asks: &mut [&Ask], leased: &[Leased], month: Interval) -> Vec<Option<Cell>> {
    let hours = hours_of(month);
    let mut cells: Vec<Option<Cell>> = vec![None; hours];
    let mut by_hour: Vec<Vec<Leased>> = vec![Vec::new(); hours];
    for one in leased {
        for hour in hours_between(month, one.from, one.until.unwrap_or(month.ends_at)) {
            by_hour[hour].push(*one);
        }
    }
    // With the largest first, few of the others have to be looked at closely.
    asks.sort_by_key(|ask| std::cmp::Reverse((ask.units, ask.price)));
    for ask in asks.iter() {
        let until = ask.asked_at.plus(ask.wanted.min(WANTED_MAX)).min(month.ends_at);
        for hour in hours_between(month, ask.asked_at, until) {
            let from = ask.asked_at.max(hour_at(month, hour));
            let whole = (from, until.min(hour_at(month, hour + 1)));
            let cell = |device_millis| Cell { device_millis, price: ask.price, notice: ask.notice, reason: ask.reason };
            let is_larger = |one: &Cell| one.device_millis > 0 && cells[hour].is_none_or(|known| known.size() < one.size());
            let most = device_millis(ask.units, whole);
            if !is_larger(&cell(most)) {
                continue;
            }
            let since = by_hour[hour].iter().filter(|one| one.from >= ask.asked_at);
            let met = since.map(|one| {
                device_millis(one.units, (one.from.max(whole.0), one.until.map_or(whole.1, |until| until.min(whole.1))))
            });
            let lost = cell(most.saturating_sub(met.fold(0, i64::saturating_add)));
            if is_larger(&lost) {
                cells[hour] = Some(lost);
            }
        }
    }
    cells
}

/// The hours of a month that some time meets.
fn hours_between(month: Interval, from: Timestamp, until: Timestamp) -> std::ops::Range<usize> {
    let place = |micros: i64| usize::try_from(micros.max(0)).unwrap_or(0);
    let since = |at: Timestamp| at.min(month.ends_at).micros().saturating_sub(month.starts_at.micros());
    let (first, end) = (since(from).div_euclid(HOUR_MICROS), since(until).saturating_add(HOUR_MICROS - 1).div_euclid(HOUR_MICROS));
    place(first)..place(end)
}

fn device_millis(units: u32, (from, until): (Timestamp, Timestamp)) -> i64 {
    let micros = until.micros().saturating_sub(from.micros()).max(0);
    (micros / 1_000).saturating_mul(i64::from(units))
}

fn hour_at(month: Interval, hour: usize) -> Timestamp {
    month.starts_at.plus(DurationMs::from_millis(i64::try_from(hour).unwrap_or(i64::MAX).saturating_mul(HOUR.millis())))
}

fn best_price(prices: &BTreeMap<Nanos, i64>) -> Result<Option<PricePoint>> {
    let (mut device_millis, mut best) = (0_i64, None::<(i128, Nanos, i64)>);
    for (price, millis) in prices.iter().rev() {
        add(&mut device_millis, *millis);
        let worth = i128::from(price.get()) * i128::from(device_millis);
        if best.is_none_or(|(most, ..)| worth >= most) {
            best = Some((worth, *price, device_millis));
        }
    }
    best.map(|(worth, price, device_millis)| {
        let worth = divide_half_even(worth, i128::from(HOUR.millis()));
        let too_large = |_| Error::new(ErrorCode::AmountOverflow, "unfilled demand left the range of amounts");
        Ok(PricePoint { price, device_millis, worth: Nanos::new(i64::try_from(worth).map_err(too_large)?) })
    })
    .transpose()
}

/// The part of the week and the hour of the day in the middle of an hour of the month.
fn clock(month: Interval, hour: usize, zone: &Zone) -> Result<(WeekPart, usize)> {
    let middle = hour_at(month, hour).plus(DurationMs::from_seconds(1_800));
    let at = jiff::Timestamp::from_microsecond(middle.micros());
    let at =
        at.map_err(|_| Error::new(ErrorCode::InvalidRequest, "an hour is beyond the calendar"))?.to_zoned(zone.clock().clone());
    let part = match (matches!(at.weekday(), Weekday::Saturday | Weekday::Sunday), DAY_HOURS.contains(&at.hour())) {
        (false, true) => WeekPart::WeekdayDays,
        (false, false) => WeekPart::WeekdayNights,
        (true, true) => WeekPart::WeekendDays,
        (true, false) => WeekPart::WeekendNights,
    };
    Ok((part, usize::try_from(at.hour()).unwrap_or(0)))
}

/// The part of the week with most of something for each of its hours, and its share of all in thousandths. Of two alike
/// the first.
pub fn densest(hours: impl IntoIterator<Item = (WeekPart, i64)>) -> Option<(WeekPart, i64)> {
    let mut parts: BTreeMap<WeekPart, (i128, i128)> = BTreeMap::new();
    for (part, amount) in hours {
        let (sum, count) = parts.entry(part).or_default();
        *sum += i128::from(amount);
        *count += 1;
    }
    let all: i128 = parts.values().map(|(sum, _)| sum).sum();
    let denser = |one: &(WeekPart, (i128, i128)), other: &(WeekPart, (i128, i128))| -> Ordering {
        let ((_, (sum, count)), (_, (other_sum, other_count))) = (one, other);
        (sum * other_count).cmp(&(other_sum * count)).then(other.0.cmp(&one.0))
    };
    let (part, (sum, _)) = parts.into_iter().max_by(denser)?;
    let share = (sum * 1_000).checked_div(all)?;
    Some((part, i64::try_from(share).unwrap_or(0)))
}

#[cfg(test)]
#[path = "unfilled_tests.rs"]
mod tests;
