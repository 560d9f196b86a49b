//! What supply costs the owner, as he declares it: immutable, content-hashed versions for whole months.
//!
//! Formulas, for a time of `t` hours and exact until one rounding:
//! straight-line depreciation (IAS 16, paragraph 62) is `(price − residual) ÷ (months × 730) × t`, since a year of 8,760
//! hours has twelve months of 730; energy is `watts × t ÷ 1000 × price of a kilowatt-hour`.
//!
//! Invariants: a version holds from the beginning of a month of Coordinated Universal Time, so that one version is in
//! force throughout a month. It names the version that it replaces, so that no two have one hash and none can be taken
//! out between two others.
//!
//! Deliberately absent: what is bought from suppliers ([`crate::cost`]), and conversion between currencies.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sublet_core::device::DeviceKind;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::divide_half_even;
use sublet_core::{Currency, Nanos, Timestamp};

use crate::canonical::{canonical_json, decimal, sha256_hex};
use crate::period::{BillingCalendar, PeriodKey};
use crate::price_model::PriceModel;
use crate::sku::{ModelName, TokenKind};
use crate::time_of_use::{BandName, TimeOfUse};

/// Names the meaning of the canonical form; a change of meaning is a new name.
const SCHEMA: &str = "sublet-supply-cost/1";
/// Most kinds of device, and most models, in one version.
pub const ENTRIES_MAX: usize = 1_000;
/// Longest canonical text of a version, in bytes.
pub const CANONICAL_MAX_BYTES: usize = 1 << 20;
/// Most that one device draws, in watts.
pub const WATTS_MAX: u32 = 1_000_000;
/// Longest life of a device, in months.
pub const LIFE_MONTHS_MAX: u16 = 600;
/// Dearest kilowatt-hour, and device: a million units. So costs of a whole fleet stay in range.
pub const AMOUNT_MAX: Nanos = Nanos::new(1_000_000_000_000_000);
/// A twelfth of a year of 365 days.
pub const HOURS_PER_MONTH: i128 = 730;

const MICROS_PER_HOUR: i128 = 3_600_000_000;
const WATTS_PER_KILOWATT: i128 = 1_000;

/// What a kilowatt-hour costs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergyPrice {
    #[serde(with = "decimal")]
    pub per_kwh: Nanos,
    /// Bands of the week in which it costs something else, each with a price per unit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time_of_use: Option<TimeOfUse>,
}

impl EnergyPrice {
    /// The price in a band; outside of all without one.
    fn in_band(&self, band: Option<&BandName>) -> Result<Nanos> {
        let Some(name) = band else { return Ok(self.per_kwh) };
        let found = self.time_of_use.as_ref().and_then(|bands| bands.find(name));
        match found.map(|band| &band.model) {
            Some(PriceModel::PerUnit { price }) => Ok(*price),
            Some(_) | None => Err(Error::internal(format!("energy has no price in the band '{name}'"))),
        }
    }

    /// The band that an instant is in, and until when that is sure at least; `None` where it is always the same.
    pub fn stretch_at(&self, at: Timestamp) -> Result<(Option<&BandName>, Option<Timestamp>)> {
        let Some(bands) = &self.time_of_use else { return Ok((None, None)) };
        let stretch = bands.stretch_at(at)?;
        Ok((stretch.band.map(|band| &band.name), Some(stretch.until)))
    }

    fn validate(&self) -> Result<()> {
        check_amount(self.per_kwh, "energy.per_kwh")?;
        let Some(bands) = &self.time_of_use else { return Ok(()) };
        bands.validate().map_err(|error| error.prefixed("energy").param("energy.time_of_use"))?;
        for band in &bands.bands {
            let PriceModel::PerUnit { price } = &band.model else {
                let message = format!("energy in the band '{}' has one amount for a kilowatt-hour", band.name);
                return Err(invalid(message, "energy.time_of_use"));
            };
            check_amount(*price, "energy.time_of_use")?;
        }
        Ok(())
    }
}

/// What one device draws.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// While a workload runs.
    pub busy_watts: u32,
    /// Otherwise.
    pub idle_watts: u32,
}

/// What a device was bought for, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depreciation {
    #[serde(with = "decimal")]
    pub price: Nanos,
    #[serde(with = "decimal")]
    pub residual: Nanos,
    pub months: u16,
}

/// What time on a device of a kind costs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceCost {
    pub kind: DeviceKind,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub power: Option<Power>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub depreciation: Option<Depreciation>,
    /// In the place of a depreciation: what an hour costs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub per_hour: Option<HourlyCost>,
    /// In the place of either: what the owner's business pays its own infrastructure team for an hour.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transfer_price: Option<HourlyCost>,
}

/// A plain cost for an hour of one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HourlyCost(#[serde(with = "decimal")] pub Nanos);

/// What a million tokens of a model that runs here cost, by kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCost {
    pub model: ModelName,
    #[serde(with = "decimal")]
    pub input: Nanos,
    #[serde(with = "decimal")]
    pub cached_input: Nanos,
    #[serde(with = "decimal")]
    pub output: Nanos,
}

impl ModelCost {
    pub const fn of(&self, kind: TokenKind) -> Nanos {
        match kind {
            TokenKind::Input => self.input,
            TokenKind::CachedInput => self.cached_input,
            TokenKind::Output => self.output,
        }
    }
}

/// Whether a workload runs on a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Load {
    Busy,
    Idle,
}

/// What device time cost, by kind of cost.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DeviceTimeCost {
    pub power: Nanos,
    pub depreciation: Nanos,
    /// Of kinds with a plain cost for an hour.
    pub device_time: Nanos,
    /// Paid to the owner's own infrastructure team.
    pub transfer_price: Nanos,
}

impl DeviceTimeCost {
    pub fn total(self) -> Result<Nanos> {
        Nanos::checked_sum([self.power, self.depreciation, self.device_time, self.transfer_price])
    }
    pub fn checked_add(self, other: Self) -> Result<Self> {
        Ok(Self {
            power: self.power.checked_add(other.power)?,
            depreciation: self.depreciation.checked_add(other.depreciation)?,
            device_time: self.device_time.checked_add(other.device_time)?,
            transfer_price: self.transfer_price.checked_add(other.transfer_price)?,
        })
    }
    pub fn checked_sub(self, other: Self) -> Result<Self> {
        Ok(Self {
            power: self.power.checked_sub(other.power)?,
            depreciation: self.depreciation.checked_sub(other.depreciation)?,
            device_time: self.device_time.checked_sub(other.device_time)?,
            transfer_price: self.transfer_price.checked_sub(other.transfer_price)?,
        })
    }
}

/// Time on devices in one band of the price of energy, in device-microseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BandTime {
    pub band: Option<BandName>,
    pub load: Load,
    pub micros: i64,
}

/// The content of a version before it is checked and hashed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupplyCostDraft {
    pub currency: Currency,
    /// In force from the beginning of this month on.
    pub month: PeriodKey,
    /// The hash of the version published before this one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaces: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub energy: Option<EnergyPrice>,
    pub devices: Vec<DeviceCost>,
    pub models: Vec<ModelCost>,
}

#[derive(Serialize, Deserialize)]
struct Canonical {
    schema: String,
    #[serde(flatten)]
    content: SupplyCostDraft,
}

/// An immutable version of what supply costs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SupplyCost {
    version: String,
    content: SupplyCostDraft,
    canonical: String,
}

impl SupplyCost {
    /// Checks, orders and hashes.
    pub fn new(mut draft: SupplyCostDraft) -> Result<Self> {
        validate(&draft)?;
        draft.devices.sort_by(|one, other| one.kind.cmp(&other.kind));
        draft.models.sort_by(|one, other| one.model.cmp(&other.model));
        if let Some(energy) = &mut draft.energy {
            energy.time_of_use = energy.time_of_use.take().map(TimeOfUse::in_order);
        }
        let canonical = Canonical { schema: SCHEMA.to_owned(), content: draft };
        let text = canonical_json(&canonical)?;
        if text.len() > CANONICAL_MAX_BYTES {
            return Err(invalid(format!("declared costs have at most {CANONICAL_MAX_BYTES} bytes, not {}", text.len()), "devices"));
        }
        Ok(Self { version: sha256_hex(&text), content: canonical.content, canonical: text })
    }

    /// Reads a stored version back and proves that it is the one named.
    pub fn from_canonical(text: &str, expected: &str) -> Result<Self> {
        let mismatch = || Error::new(ErrorCode::LedgerMismatch, "stored costs are not the ones that their hash names");
        if sha256_hex(text) != expected {
            return Err(mismatch().context(format!("expected {expected}")));
        }
        let read: Canonical = serde_json::from_str(text).map_err(|cause| mismatch().context(cause.to_string()))?;
        if read.schema != SCHEMA {
            return Err(mismatch().context(read.schema));
        }
        Self::new(read.content)
    }

    pub fn version(&self) -> &str {
        &self.version
    }
    pub fn content(&self) -> &SupplyCostDraft {
        &self.content
    }
    /// The text that is hashed and stored.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
    pub fn device(&self, kind: &DeviceKind) -> Option<&DeviceCost> {
        self.content.devices.iter().find(|cost| cost.kind == *kind)
    }
    pub fn model(&self, model: &ModelName) -> Option<&ModelCost> {
        self.content.models.iter().find(|cost| cost.model == *model)
    }

    /// What time on devices of a kind cost: each kind of cost is rounded once, half to even. `None` for a kind whose cost
    /// is not declared.
    pub fn device_time(&self, kind: &DeviceKind, times: &[BandTime]) -> Result<Option<DeviceTimeCost>> {
        let Some(cost) = self.device(kind) else { return Ok(None) };
        let mut micros: i128 = 0;
        let mut energy: i128 = 0;
        for time in times {
            micros = sum(micros, Some(i128::from(time.micros)))?;
            if let (Some(power), Some(price)) = (cost.power, &self.content.energy) {
                let watts = match time.load {
                    Load::Busy => power.busy_watts,
                    Load::Idle => power.idle_watts,
                };
                let price = i128::from(price.in_band(time.band.as_ref())?.get());
                let drawn = i128::from(time.micros).checked_mul(i128::from(watts));
                energy = sum(energy, drawn.and_then(|drawn| drawn.checked_mul(price)))?;
            }
        }
        let hourly = |hourly: HourlyCost| divide(i128::from(hourly.0.get()).checked_mul(micros), MICROS_PER_HOUR);
        let straight_line = |bought: Depreciation| {
            let lost = i128::from(bought.price.get()) - i128::from(bought.residual.get());
            divide(lost.checked_mul(micros), i128::from(bought.months) * HOURS_PER_MONTH * MICROS_PER_HOUR)
        };
        Ok(Some(DeviceTimeCost {
            power: divide(Some(energy), WATTS_PER_KILOWATT * MICROS_PER_HOUR)?,
            depreciation: cost.depreciation.map_or(Ok(Nanos::ZERO), straight_line)?,
            device_time: cost.per_hour.map_or(Ok(Nanos::ZERO), hourly)?,
            transfer_price: cost.transfer_price.map_or(Ok(Nanos::ZERO), hourly)?,
        }))
    }

    /// What an hour of a busy device costs at an instant, and until when that is sure at least.
    pub fn busy_hour(&self, kind: &DeviceKind, at: Timestamp) -> Result<Option<(Nanos, Option<Timestamp>)>> {
        let (band, until) = match &self.content.energy {
            Some(energy) => energy.stretch_at(at)?,
            None => (None, None),
        };
        let hour = BandTime { band: band.cloned(), load: Load::Busy, micros: 3_600_000_000 };
        self.device_time(kind, &[hour])?.map(|cost| Ok((cost.total()?, until))).transpose()
    }
}

/// The first instant of a month in Coordinated Universal Time: from which costs of it hold.
pub fn month_starts_at(month: PeriodKey) -> Result<Timestamp> {
    Ok(BillingCalendar::new("UTC")?.period(month)?.interval.starts_at)
}

/// The month that begins at an instant, which has to be the first of one.
pub fn month_from(at: Timestamp) -> Result<PeriodKey> {
    let period = BillingCalendar::new("UTC")?.period_at(at)?;
    if period.interval.starts_at == at {
        return Ok(period.key);
    }
    Err(invalid(format!("costs hold for whole months, and {at} is not the first instant of one"), "effective_at")
        .alternative(period.interval.starts_at.to_string())
        .alternative(period.interval.ends_at.to_string()))
}

fn validate(draft: &SupplyCostDraft) -> Result<()> {
    month_starts_at(draft.month)?;
    if draft.devices.is_empty() && draft.models.is_empty() {
        return Err(invalid("costs are those of at least one kind of device or one model", "devices"));
    }
    for (count, field) in [(draft.devices.len(), "devices"), (draft.models.len(), "models")] {
        if count > ENTRIES_MAX {
            return Err(invalid(format!("at most {ENTRIES_MAX} {field} have costs, not {count}"), field));
        }
    }
    if let Some(energy) = &draft.energy {
        energy.validate()?;
    }
    let mut kinds = BTreeSet::new();
    for (index, cost) in draft.devices.iter().enumerate() {
        let field = format!("devices[{index}]");
        if !kinds.insert(&cost.kind) {
            return Err(invalid(format!("the device kind '{}' is there twice", cost.kind), &field));
        }
        check_device(cost, draft.energy.is_some(), &field)?;
    }
    let mut models = BTreeSet::new();
    for (index, cost) in draft.models.iter().enumerate() {
        let field = format!("models[{index}]");
        if !models.insert(&cost.model) {
            return Err(invalid(format!("the model '{}' is there twice", cost.model), &field));
        }
        for kind in TokenKind::ALL {
            check_amount(cost.of(kind), &format!("{field}.{kind}"))?;
        }
    }
    Ok(())
}

fn check_device(cost: &DeviceCost, has_energy: bool, field: &str) -> Result<()> {
    let having = [
        ("a depreciation", cost.depreciation.is_some()),
        ("a cost for an hour", cost.per_hour.is_some()),
        ("a transfer price", cost.transfer_price.is_some()),
    ];
    let mut given = having.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name);
    let (first, second) = (given.next(), given.next());
    if cost.power.is_none() && first.is_none() {
        return Err(invalid(format!("'{}' has no cost", cost.kind), field)
            .alternative("give power, depreciation, per_hour or transfer_price; an hour may cost 0"));
    }
    if let (Some(first), Some(second)) = (first, second) {
        return Err(invalid(format!("'{}' has {first} and {second}", cost.kind), field)
            .alternative("give one of them: each is what having the device costs"));
    }
    if let Some(power) = cost.power {
        if !has_energy {
            return Err(invalid(format!("'{}' draws power, and energy has no price", cost.kind), "energy")
                .alternative("give energy.per_kwh"));
        }
        if power.busy_watts.max(power.idle_watts) > WATTS_MAX {
            return Err(invalid(format!("a device draws at most {WATTS_MAX} watts"), &format!("{field}.power")));
        }
    }
    if let Some(bought) = cost.depreciation {
        let field = format!("{field}.depreciation");
        check_amount(bought.price, &field)?;
        check_amount(bought.residual, &field)?;
        if bought.residual > bought.price {
            let message = format!("'{}' is worth {} at its end and {} when bought", cost.kind, bought.residual, bought.price);
            return Err(invalid(message, &field).alternative("a residual of at most the price"));
        }
        if !(1..=LIFE_MONTHS_MAX).contains(&bought.months) {
            return Err(invalid(format!("a device lives 1 to {LIFE_MONTHS_MAX} months, not {}", bought.months), &field));
        }
    }
    for (hourly, name) in [(cost.per_hour, "per_hour"), (cost.transfer_price, "transfer_price")] {
        hourly.map_or(Ok(()), |hour| check_amount(hour.0, &format!("{field}.{name}")))?;
    }
    Ok(())
}

fn check_amount(amount: Nanos, field: &str) -> Result<()> {
    if amount.is_negative() {
        return Err(invalid(format!("a cost is not negative, and {amount} is"), field));
    }
    if amount > AMOUNT_MAX {
        return Err(invalid(format!("a cost is at most {AMOUNT_MAX}, not {amount}"), field));
    }
    Ok(())
}

fn invalid(reason: impl Into<String>, field: &str) -> Error {
    Error::new(ErrorCode::InvalidPrice, reason.into()).param(field)
}

fn overflow() -> Error {
    Error::new(ErrorCode::AmountOverflow, "a cost of supply left the range of amounts")
}

fn sum(total: i128, more: Option<i128>) -> Result<i128> {
    more.and_then(|more| total.checked_add(more)).ok_or_else(overflow)
}

fn divide(dividend: Option<i128>, divisor: i128) -> Result<Nanos> {
    let rounded = divide_half_even(dividend.ok_or_else(overflow)?, divisor);
    i64::try_from(rounded).map(Nanos::new).map_err(|_| overflow())
}

#[cfg(test)]
#[path = "supply_cost_tests.rs"]
mod tests;
