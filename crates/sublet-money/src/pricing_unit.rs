//! The units in which operators write prices, and prices in them.
//!
//! Invariant: a unit is a whole number of base units, so every price is an exact fraction.
//!
//! Deliberately absent: what is priced in which unit; that is a thing's own ([`crate::sku`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::{Currency, Nanos, Rate};

use crate::canonical::decimal;
use crate::sku::{GIBIBYTE, STORAGE_MONTH_HOURS};

/// The units in which operators write prices.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum PricingUnit {
    #[serde(rename = "1M tokens")]
    MillionTokens,
    #[serde(rename = "request")]
    Request,
    #[serde(rename = "device-hour")]
    DeviceHour,
    #[serde(rename = "start")]
    Start,
    #[serde(rename = "project-month")]
    ProjectMonth,
    #[serde(rename = "fee")]
    Fee,
    /// 730 hours, whatever the month: a twelfth of a year of 365 days.
    #[serde(rename = "GiB-month")]
    GibibyteMonth,
    #[serde(rename = "GiB")]
    Gibibyte,
}

impl PricingUnit {
    pub const ALL: [Self; 8] = [
        Self::MillionTokens,
        Self::Request,
        Self::DeviceHour,
        Self::Start,
        Self::ProjectMonth,
        Self::Fee,
        Self::GibibyteMonth,
        Self::Gibibyte,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MillionTokens => "1M tokens",
            Self::Request => "request",
            Self::DeviceHour => "device-hour",
            Self::Start => "start",
            Self::ProjectMonth => "project-month",
            Self::Fee => "fee",
            Self::GibibyteMonth => "GiB-month",
            Self::Gibibyte => "GiB",
        }
    }
    /// Base units in one pricing unit: tokens, requests, device-milliseconds, starts, months of projects, fees,
    /// byte-hours, or bytes.
    pub const fn base_units(self) -> i64 {
        match self {
            Self::MillionTokens => 1_000_000,
            Self::Request | Self::Start | Self::ProjectMonth | Self::Fee => 1,
            Self::DeviceHour => 3_600_000,
            Self::GibibyteMonth => GIBIBYTE * STORAGE_MONTH_HOURS,
            Self::Gibibyte => GIBIBYTE,
        }
    }
    /// What a quantity counts, as a person reads it.
    pub const fn base_unit_name(self) -> &'static str {
        match self {
            Self::MillionTokens => "tokens",
            Self::Request => "requests",
            Self::DeviceHour => "device-ms",
            Self::Start => "starts",
            Self::ProjectMonth => "project-months",
            Self::Fee => "fees",
            Self::GibibyteMonth => "byte-hours",
            Self::Gibibyte => "bytes",
        }
    }
}

impl fmt::Display for PricingUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PricingUnit {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|unit| unit.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::new(ErrorCode::InvalidPrice, format!("'{shown}' is not a unit that prices are written in"))
                .alternative("write '1M tokens', 'request', 'device-hour', 'start', 'project-month', 'fee', 'GiB-month' or 'GiB'")
        })
    }
}

/// A price as operators write it: `0.15 EUR per 1M tokens`, `1.20 EUR per device-hour`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnitPrice {
    #[serde(with = "decimal")]
    pub amount: Nanos,
    pub currency: Currency,
    pub unit: PricingUnit,
}

impl UnitPrice {
    /// The exact fraction: nano-units for so many base units.
    pub fn rate(&self) -> Result<Rate> {
        Rate::new(self.amount, self.unit.base_units())
    }
}

impl fmt::Display for UnitPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} per {}", self.amount, self.currency, self.unit)
    }
}

impl FromStr for UnitPrice {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let shape = || {
            let shown: String = text.chars().take(60).collect();
            Error::new(ErrorCode::InvalidPrice, format!("'{shown}' is not a price"))
                .alternative("write it like '0.15 EUR per 1M tokens' or '1.20 EUR per device-hour'")
        };
        let (money, unit) = text.split_once(" per ").ok_or_else(shape)?;
        let (amount, currency) = money.split_once(' ').ok_or_else(shape)?;
        let price = Self { amount: amount.parse()?, currency: currency.parse()?, unit: unit.parse()? };
        if price.amount.is_negative() {
            return Err(Error::new(ErrorCode::InvalidPrice, format!("a price cannot be negative, and {amount} is")));
        }
        Ok(price)
    }
}
