//! Market prices: prices that follow an index.
//!
//! An index is a name and a level that changes at instants. Its points are published ahead of those instants, in their
//! order, and never changed; each has a hash over the one before it, so a point names the whole past. A price that
//! follows an index is the entry's own price multiplied by the level, between a floor and a ceiling that the price list
//! says. Each level is a band of the price, `level-850` for 0.85: so a line's price is read off the list alone, and only
//! which level held at an instant is read off the index.
//!
//! Deliberately absent: how levels are found. Whoever publishes a point has decided.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::divide_half_even;
use sublet_core::{DurationMs, Nanos, Timestamp};

use crate::canonical::{canonical_json, sha256_hex};
use crate::price_model::PriceModel;
use crate::time_of_use::BandName;

/// Longest name of an index, in bytes.
pub const INDEX_NAME_MAX_BYTES: usize = 64;
/// Largest level, in thousandths: a hundred times the price.
pub const LEVEL_MAX: u32 = 100_000;
/// Shortest and longest lead of an index.
pub const LEAD_MIN: DurationMs = DurationMs::from_seconds(60);
pub const LEAD_MAX: DurationMs = DurationMs::from_hours(7 * 24);
/// Points are at least so far apart: at most 8,928 in a month.
pub const SPACING_MIN: DurationMs = DurationMs::from_seconds(5 * 60);
/// How far ahead a point may be published, in days.
const AHEAD_DAYS_MAX: i64 = 31;
/// What is known ahead is read wherever a price is asked for: at most 8,929 points.
pub const AHEAD_MAX: DurationMs = DurationMs::from_hours(AHEAD_DAYS_MAX * 24);
/// Most points that are read together: nine years of them as close as they may be.
pub const POINTS_MAX: usize = 1_000_000;

/// A level of one: the price as the list says it.
const ONE: u32 = 1_000;
/// What the bands of a price that follows an index are called, before their thousandths.
const BAND_PREFIX: &str = "level-";

/// What an index is called: `gpu-spot`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IndexName(Arc<str>);

impl IndexName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for IndexName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let is_named = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
        if is_named && (1..=INDEX_NAME_MAX_BYTES).contains(&text.len()) {
            return Ok(Self(text.into()));
        }
        let shown: String = text.chars().take(40).collect();
        Err(invalid(format!("'{shown}' is not the name of a price index"))
            .alternative(format!("use 1 to {INDEX_NAME_MAX_BYTES} of a-z, 0-9, - and _, as in 'gpu-spot'")))
    }
}
impl TryFrom<String> for IndexName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<IndexName> for String {
    fn from(name: IndexName) -> Self {
        name.0.to_string()
    }
}
impl fmt::Display for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a price is multiplied by, in thousandths. Written as a decimal: `0.85`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Level(u32);

impl Level {
    pub fn from_thousandths(thousandths: u32) -> Result<Self> {
        if (1..=LEVEL_MAX).contains(&thousandths) {
            return Ok(Self(thousandths));
        }
        Err(invalid(format!("a level is between 0.001 and {}", LEVEL_MAX / ONE)))
    }
    pub const fn thousandths(self) -> u32 {
        self.0
    }
    /// What an amount is at this level, rounded half to even to a nano-unit; `None` beyond the range of amounts.
    pub fn of_amount(self, amount: Nanos) -> Option<Nanos> {
        let exact = divide_half_even(i128::from(amount.get()) * i128::from(self.0), i128::from(ONE));
        i64::try_from(exact).ok().map(Nanos::new)
    }
    /// What a price is at this level. A validated price is in the range of amounts at every level up to its ceiling.
    pub fn of_model(self, model: &PriceModel) -> PriceModel {
        let Ok(changed) = model.with_amounts(&|amount| Ok::<_, Infallible>(self.of_amount(amount).unwrap_or(Nanos::MAX)));
        changed
    }
    /// What lines at this level are called.
    pub fn band(self) -> BandName {
        let name = format!("{BAND_PREFIX}{}", self.0);
        name.parse().expect("letters, a dash and six digits at most are the name of a band")
    }
    /// The level that a band is of.
    fn of_band(band: &BandName) -> Option<Self> {
        let level = Self(band.as_str().strip_prefix(BAND_PREFIX)?.parse().ok()?);
        // One level has one name: no zeros before it.
        (level.band() == *band).then_some(level)
    }
}

impl FromStr for Level {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parse = || -> Option<u32> {
            let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if !digits(whole) || !digits(part) || part.len() > 3 {
                return None;
            }
            let part: u32 = format!("{part:0<3}").parse().ok()?;
            whole.parse::<u32>().ok()?.checked_mul(ONE)?.checked_add(part)
        };
        let thousandths = parse().ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            invalid(format!("'{shown}' is not a level")).alternative("write it like 0.85, with at most three decimals")
        })?;
        Self::from_thousandths(thousandths)
    }
}
impl TryFrom<String> for Level {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Level> for String {
    fn from(level: Level) -> Self {
        level.to_string()
    }
}
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / ONE, self.0 % ONE);
        if part == 0 {
            return write!(f, "{whole}");
        }
        let part = format!("{part:03}");
        write!(f, "{whole}.{}", part.trim_end_matches('0'))
    }
}
impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// That a price follows an index, and within which bounds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarketPrice {
    /// The highest level that is charged.
    pub ceiling: Level,
    /// The lowest.
    pub floor: Level,
    pub index: IndexName,
}

impl MarketPrice {
    /// Refuses bounds that hold no level, a ceiling at which the price leaves the range of amounts, and what would be due
    /// anew at every level.
    pub fn validate(&self, model: &PriceModel) -> Result<()> {
        if !model.is_proportional() {
            return Err(invalid("packages and minimums would begin anew whenever the level of the index changes".to_owned())
                .alternative("use a price per unit, graduated or volume"));
        }
        if self.floor > self.ceiling {
            return Err(invalid(format!("its floor of {} is above its ceiling of {}", self.floor, self.ceiling)));
        }
        let within =
            |amount| self.ceiling.of_amount(amount).ok_or_else(|| invalid(format!("{amount} times its ceiling is too much")));
        model.with_amounts(&within).map(drop)
    }
    /// The level that is charged where an index is at some level; the ceiling where that is not known.
    pub fn charged(&self, level: Option<Level>) -> Level {
        level.map_or(self.ceiling, |level| level.clamp(self.floor, self.ceiling))
    }
    /// The level that a line is of, if it can be one of this price.
    pub fn level_of(&self, band: &BandName) -> Option<Level> {
        Level::of_band(band).filter(|level| (self.floor..=self.ceiling).contains(level))
    }
    /// The highest level at which a price is one that is wanted. Prices rise with levels.
    pub fn highest(&self, is_wanted: impl Fn(Level) -> bool) -> Option<Level> {
        let (mut wanted, mut unwanted) = (self.floor.0, self.ceiling.0.saturating_add(1));
        if !is_wanted(self.floor) {
            return None;
        }
        while unwanted - wanted > 1 {
            let middle = wanted + (unwanted - wanted) / 2;
            if is_wanted(Level(middle)) { wanted = middle } else { unwanted = middle }
        }
        Some(Level(wanted))
    }
}

impl fmt::Display for MarketPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "times the index {} from {} to {}", self.index, self.floor, self.ceiling)
    }
}

/// From an instant on an index is at a level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexPoint {
    pub from_micros: Timestamp,
    pub level: Level,
    pub published_at_micros: Timestamp,
}

/// What the hash of a point is made from, as canonical JSON.
#[derive(Serialize)]
struct Link<'a> {
    from_micros: Timestamp,
    index: &'a IndexName,
    lead_ms: DurationMs,
    level: Level,
    /// The hash of the point before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<&'a str>,
    published_at_micros: Timestamp,
}

impl IndexPoint {
    /// The first point of a new index: it holds at once, since nothing follows the index yet.
    pub const fn first(level: Level, now: Timestamp) -> Self {
        Self { from_micros: now, level, published_at_micros: now }
    }

    /// A point after `last`, published now. Refused is what would change something that was known.
    pub fn next(last: &Self, lead: DurationMs, (from, level): (Timestamp, Level), now: Timestamp) -> Result<Self> {
        let point = Self { from_micros: from, level, published_at_micros: now };
        point.check_after(Some(last), lead)?;
        if from > now.plus(AHEAD_MAX) {
            return Err(invalid(format!("{from} is more than {AHEAD_DAYS_MAX} days ahead")));
        }
        Ok(point)
    }

    fn check_after(&self, last: Option<&Self>, lead: DurationMs) -> Result<()> {
        let Some(last) = last else { return Ok(()) };
        let (from, known_until) = (self.from_micros, self.published_at_micros.plus(lead));
        if from < known_until {
            return Err(invalid(format!("a point holds {} seconds after it is published at the earliest", lead.seconds_ceil()))
                .alternative(format!("publish it from {known_until} on, or later")));
        }
        let earliest = last.from_micros.plus(SPACING_MIN);
        if from < earliest {
            let message = format!(
                "a point follows the last one, which holds from {} on, by at least {} seconds",
                last.from_micros,
                SPACING_MIN.seconds_ceil()
            );
            return Err(invalid(message).alternative(format!("publish it from {earliest} on, or later")));
        }
        Ok(())
    }

    /// The name of the index's whole past up to this point.
    pub fn hash(&self, (index, lead): (&IndexName, DurationMs), previous: Option<&str>) -> Result<String> {
        let Self { from_micros, level, published_at_micros } = *self;
        Ok(sha256_hex(canonical_json(&Link { from_micros, index, lead_ms: lead, level, previous, published_at_micros })?))
    }
}

/// Points of an index that follow each other: what a bundle carries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexExcerpt {
    pub index: IndexName,
    /// How long before it holds a point is published at least.
    pub lead_ms: DurationMs,
    pub points: Vec<IndexPoint>,
    /// The hash of the point before the first; absent where that is the first of all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<String>,
}

impl IndexExcerpt {
    /// Proves that the points follow the rules, and gives the hash of the last.
    pub fn verify(&self) -> Result<String> {
        let broken = |error: Error| error.prefixed(&format!("the index {}", self.index));
        if self.points.is_empty() || self.points.len() > POINTS_MAX {
            return Err(invalid(format!("the index {} comes with 1 to {POINTS_MAX} points", self.index)));
        }
        let (mut last, mut hash): (Option<&IndexPoint>, Option<String>) = (None, self.previous.clone());
        for point in &self.points {
            point.check_after(last, self.lead_ms).map_err(broken)?;
            hash = Some(point.hash((&self.index, self.lead_ms), hash.as_deref())?);
            last = Some(point);
        }
        hash.ok_or_else(|| Error::internal("points have a last one"))
    }
}

/// An index as far as it is known at some moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PriceIndex {
    excerpt: IndexExcerpt,
    /// From then on its level may still be anything.
    known_until: Timestamp,
}

impl PriceIndex {
    /// As it is known now: with all points from the one that holds at some instant on. No point can be published any
    /// more that holds before the lead is over, nor before the last one.
    pub fn known_at(excerpt: IndexExcerpt, now: Timestamp) -> Result<Self> {
        let last = excerpt.points.last().ok_or_else(|| invalid(format!("the index {} has no points", excerpt.index)))?;
        let known_until = last.from_micros.max(now.plus(excerpt.lead_ms));
        Ok(Self { excerpt, known_until })
    }
    /// As it was, with all points that began before `until`.
    pub fn past(excerpt: IndexExcerpt, until: Timestamp) -> Result<Self> {
        if excerpt.points.is_empty() {
            return Err(invalid(format!("the index {} has no points", excerpt.index)));
        }
        Ok(Self { excerpt, known_until: until })
    }
    pub const fn name(&self) -> &IndexName {
        &self.excerpt.index
    }
    /// How long before it holds a point is published at least.
    pub const fn lead(&self) -> DurationMs {
        self.excerpt.lead_ms
    }
    /// From then on its level may still be anything.
    pub const fn known_until(&self) -> Timestamp {
        self.known_until
    }
    /// The level at an instant, and until when it holds at least. `None`: not published yet. What is before the first of
    /// all points is at its level; what is before an excerpt is not known here.
    pub fn level_at(&self, instant: Timestamp) -> Result<(Option<Level>, Timestamp)> {
        if instant >= self.known_until {
            return Ok((None, Timestamp::from_micros(i64::MAX)));
        }
        let points = &self.excerpt.points;
        let begun = points.partition_point(|point| point.from_micros <= instant);
        let next = points.get(begun.max(1)).map_or(self.known_until, |next| next.from_micros);
        match points.get(begun.saturating_sub(1)) {
            Some(point) if begun > 0 || self.excerpt.previous.is_none() => Ok((Some(point.level), next.min(self.known_until))),
            Some(_) | None => {
                Err(Error::new(ErrorCode::UnknownPrice, format!("the level of {} at {instant} is not known here", self.name())))
            }
        }
    }
}

/// Indexes by their names.
pub type PriceIndexes = BTreeMap<IndexName, PriceIndex>;

fn invalid(reason: String) -> Error {
    Error::new(ErrorCode::InvalidPrice, reason)
}

#[cfg(test)]
#[path = "price_index_tests.rs"]
mod tests;
