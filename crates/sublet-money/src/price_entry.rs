//! The price of one sku: what it is in each band of the week, and at each level of an index.
//!
//! What a line is rated with is a [`BandPrice`]; which one holds when, a [`PriceOverTime`] says.
//!
//! Deliberately absent: when a price is in force ([`crate::price_book`]).

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::{Currency, Nanos, Timestamp};

use crate::price_index::{Level, MarketPrice, PriceIndex, PriceIndexes};
use crate::price_model::{ExactCost, PriceModel};
use crate::sku::{PricingUnit, Quantity, SkuName};
use crate::time_of_use::{Band, BandName, TimeOfUse};

/// The price of one sku.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceEntry {
    /// An index that `model` is multiplied by. Of device time only, and not with bands of the week.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub market: Option<MarketPrice>,
    pub sku: SkuName,
    pub unit: PricingUnit,
    pub model: PriceModel,
    /// Bands of the week that have prices of their own; `model` is the price in the rest of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time_of_use: Option<TimeOfUse>,
}

/// The price of one sku in one band: what a line is rated with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BandPrice<'a> {
    pub sku: &'a SkuName,
    pub unit: PricingUnit,
    /// At a level of one.
    base: &'a PriceModel,
    /// Of a price that follows an index.
    level: Option<Level>,
}

impl<'a> BandPrice<'a> {
    /// How a quantity is priced.
    pub fn model(self) -> Cow<'a, PriceModel> {
        self.level.map_or(Cow::Borrowed(self.base), |level| Cow::Owned(level.of_model(self.base)))
    }
    /// The exact cost of a line's whole quantity.
    pub fn exact_cost(self, quantity: Quantity) -> Result<ExactCost> {
        self.model().exact_cost(self.unit, quantity)
    }
    /// The most that `quantity` more can be charged on a line that holds at least `settled`: what to hold before the cost
    /// arises. From zero it covers every tier and the next period too.
    pub fn hold(self, settled: Quantity, quantity: Quantity) -> Result<Nanos> {
        self.model().hold(self.unit, settled, quantity)
    }
    /// What a person reads.
    pub fn text(self, currency: Currency) -> String {
        self.model().text(self.unit, currency)
    }
}

impl PriceEntry {
    /// One price for every unit, in the sku's own pricing unit.
    pub fn per_unit(sku: SkuName, price: Nanos) -> Self {
        Self::new(sku, PriceModel::PerUnit { price })
    }
    /// The same price all week, in the sku's own pricing unit.
    pub fn new(sku: SkuName, model: PriceModel) -> Self {
        let unit = sku.pricing_unit();
        Self { market: None, sku, unit, model, time_of_use: None }
    }
    /// The price in a band; without one, that outside of all bands.
    pub fn price_in(&self, band: Option<&BandName>) -> Result<BandPrice<'_>> {
        let unknown = |name: &BandName| Error::new(ErrorCode::UnknownPrice, format!("{} has no band '{name}'", self.sku));
        let (base, level) = match (&self.market, band) {
            (None, None) => (&self.model, None),
            (None, Some(name)) => {
                let found = self.time_of_use.as_ref().and_then(|bands| bands.find(name));
                (&found.ok_or_else(|| unknown(name))?.model, None)
            }
            (Some(market), Some(name)) => (&self.model, Some(market.level_of(name).ok_or_else(|| unknown(name))?)),
            (Some(_), None) => return Err(self.needs_index()),
        };
        Ok(BandPrice { sku: &self.sku, unit: self.unit, base, level })
    }
    /// The price through time: with the index that it follows, if it follows one.
    pub fn over_time<'a>(&'a self, index: Option<&'a PriceIndex>) -> Result<PriceOverTime<'a>> {
        match (&self.market, index) {
            (None, _) => Ok(PriceOverTime { entry: self, market: None }),
            (Some(market), Some(index)) if *index.name() == market.index => {
                Ok(PriceOverTime { entry: self, market: Some((market, index)) })
            }
            (Some(_), _) => Err(self.needs_index()),
        }
    }
    /// As [`Self::over_time`], with the index among others.
    pub fn over_time_in<'a>(&'a self, indexes: &'a PriceIndexes) -> Result<PriceOverTime<'a>> {
        self.over_time(self.market.as_ref().and_then(|market| indexes.get(&market.index)))
    }
    /// The price at an instant; of one that follows an index ask [`Self::over_time`].
    pub fn price_at(&self, instant: Timestamp) -> Result<BandPrice<'_>> {
        self.over_time(None)?.price_at(instant)
    }
    /// The band that an instant is in, `None` outside of all; of a price that follows an index ask [`Self::over_time`].
    pub fn band_at(&self, instant: Timestamp) -> Result<Option<&BandName>> {
        if self.market.is_some() {
            return Err(self.needs_index());
        }
        let Some(bands) = &self.time_of_use else { return Ok(None) };
        Ok(bands.band_at(instant)?.map(|band| &band.name))
    }
    fn needs_index(&self) -> Error {
        let index = self.market.as_ref().map_or("", |market| market.index.as_str());
        Error::new(ErrorCode::UnknownPrice, format!("{} follows the index '{index}', whose level is not known here", self.sku))
    }
    /// Whether it matters when something is used.
    pub const fn depends_on_time(&self) -> bool {
        self.time_of_use.is_some() || self.market.is_some()
    }
    /// What a person reads: the price, and what it is in each band.
    pub fn price_text(&self, currency: Currency) -> String {
        let mut text = self.model.text(self.unit, currency);
        if let Some(TimeOfUse { zone, bands }) = &self.time_of_use {
            for Band { name, windows, model } in bands {
                let windows: Vec<String> = windows.iter().map(ToString::to_string).collect();
                let price = model.text(self.unit, currency);
                // Writing to a string cannot fail.
                let _ = write!(text, "; {name} ({}, {zone}) {price}", windows.join(" and "));
            }
        }
        if let Some(market) = &self.market {
            let _ = write!(text, " {market}");
        }
        text
    }
    /// The prices of all bands, and that outside of them; of a price that follows an index the lowest and the highest.
    pub fn prices(&self) -> impl Iterator<Item = BandPrice<'_>> {
        let bands = self.time_of_use.iter().flat_map(|bands| &bands.bands);
        let models = std::iter::once(&self.model).chain(bands.map(|band| &band.model));
        // Of a price that follows an index there is one model, at two levels.
        let levels = self.market.as_ref().map(|market| [Some(market.floor), Some(market.ceiling)]);
        let levels = levels.unwrap_or([None; 2]).into_iter().take(if self.market.is_some() { 2 } else { 1 });
        models.flat_map(move |base| levels.clone().map(move |level| BandPrice { sku: &self.sku, unit: self.unit, base, level }))
    }
    /// The price at a level, of one that follows an index; as it is, of another.
    pub fn price_at_level(&self, level: Level) -> BandPrice<'_> {
        BandPrice { sku: &self.sku, unit: self.unit, base: &self.model, level: self.market.as_ref().map(|_| level) }
    }
    /// The same with every amount changed, in all bands.
    pub fn with_amounts(&self, change: &impl Fn(Nanos) -> Result<Nanos>) -> Result<Self> {
        let mut entry = Self { model: self.model.with_amounts(change)?, ..self.clone() };
        for band in entry.time_of_use.iter_mut().flat_map(|bands| &mut bands.bands) {
            band.model = band.model.with_amounts(change)?;
        }
        Ok(entry)
    }
    /// Refuses what cannot be charged, or not be held.
    pub fn validate(&self) -> Result<()> {
        if self.unit != self.sku.pricing_unit() {
            return Err(Error::new(
                ErrorCode::InvalidPrice,
                format!("{} is priced per {}, not per {}", self.sku, self.sku.pricing_unit(), self.unit),
            ));
        }
        let check = || {
            self.model.validate()?;
            self.market.as_ref().map_or(Ok(()), |market| market.validate(&self.model))?;
            self.time_of_use.as_ref().map_or(Ok(()), TimeOfUse::validate)
        };
        check().map_err(|error| error.prefixed(&format!("price of {}", self.sku)))?;
        if self.market.is_some() && self.time_of_use.is_some() {
            return Err(invalid(format!("the price of {} follows an index or the clocks of a week, not both", self.sku)));
        }
        match &self.sku {
            SkuName::Tokens { .. } | SkuName::Requests { .. } if self.market.is_some() => Err(invalid(format!(
                "{} follows no index: the price of a request is that of the instant of its admission",
                self.sku
            ))
            .alternative("use a price by time of use")),
            SkuName::Tokens { .. } | SkuName::Requests { .. } if !self.prices().all(|price| price.model().is_proportional()) => {
                Err(invalid(format!(
                    "{} has no price in packages and no minimum: a request holds what it costs on its own",
                    self.sku
                ))
                .alternative("use a price per unit, graduated or volume"))
            }
            SkuName::Requests { .. } if self.time_of_use.is_some() => {
                Err(invalid(format!("{} is flat: the same all week", self.sku))
                    .alternative("let the prices of the model's tokens follow the time of use"))
            }
            SkuName::Starts { .. } if self.depends_on_time() => {
                Err(invalid(format!("{} is flat: the same all week, and it follows no index", self.sku))
                    .alternative("let the price of the device time follow them"))
            }
            SkuName::Starts { .. } if !self.prices().all(|price| price.model().is_proportional()) => Err(invalid(format!(
                "{} has no price in packages and no minimum: a job holds what its start costs on its own",
                self.sku
            ))
            .alternative("use a price per unit, graduated or volume")),
            SkuName::ProjectMonth | SkuName::Fee { .. }
                if self.time_of_use.is_some() || self.market.is_some() || !matches!(self.model, PriceModel::PerUnit { .. }) =>
            {
                Err(invalid(format!("{} has one price, however many there are and whenever", self.sku))
                    .alternative("use a price per unit"))
            }
            SkuName::FileStorage | SkuName::FileEgress if self.market.is_some() => {
                Err(invalid(format!("{} follows no index", self.sku)).alternative("use a price by time of use"))
            }
            SkuName::FileStorage if self.prices().any(|price| price.model().is_volume()) => {
                Err(invalid(format!("{} has no volume price: what was paid for an hour is not given back", self.sku))
                    .alternative("use graduated tiers"))
            }
            SkuName::FileEgress if !self.prices().all(|price| price.model().is_proportional()) => Err(invalid(format!(
                "{} has no price in packages and no minimum: a download holds what it costs on its own",
                self.sku
            ))
            .alternative("use a price per unit, graduated or volume")),
            _ => Ok(()),
        }
    }
}

/// A price through time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PriceOverTime<'a> {
    entry: &'a PriceEntry,
    market: Option<(&'a MarketPrice, &'a PriceIndex)>,
}

/// How long a band holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PriceStretch {
    /// `None` outside of all.
    pub band: Option<BandName>,
    /// Until then at least. The next band may be the same.
    pub until: Timestamp,
}

impl<'a> PriceOverTime<'a> {
    pub const fn entry(self) -> &'a PriceEntry {
        self.entry
    }
    /// The band that an instant is in; `None` outside of all. Where the level of an index is not published yet it is that
    /// of the ceiling.
    pub fn band_at(self, instant: Timestamp) -> Result<Option<BandName>> {
        let Some((market, index)) = self.market else { return Ok(self.entry.band_at(instant)?.cloned()) };
        Ok(Some(market.charged(index.level_at(instant)?.0).band()))
    }
    /// The price at an instant.
    pub fn price_at(self, instant: Timestamp) -> Result<BandPrice<'a>> {
        self.entry.price_in(self.band_at(instant)?.as_ref())
    }
    /// The band of an instant and how long it holds; `None` where the price does not depend on time.
    pub fn stretch_at(self, instant: Timestamp) -> Result<Option<PriceStretch>> {
        if let Some((market, index)) = self.market {
            let (level, until) = index.level_at(instant)?;
            return Ok(Some(PriceStretch { band: Some(market.charged(level).band()), until }));
        }
        let Some(bands) = &self.entry.time_of_use else { return Ok(None) };
        let stretch = bands.stretch_at(instant)?;
        Ok(Some(PriceStretch { band: stretch.band.map(|band| band.name.clone()), until: stretch.until }))
    }
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorCode::InvalidPrice, reason)
}
