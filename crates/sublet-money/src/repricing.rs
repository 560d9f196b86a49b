//! What the use of a past period would have cost under another version of a price list.
//!
//! Everything is rated as though that version had held throughout, each line from zero: so a version that replaced
//! another in the middle of the period does not begin its tiers anew. What the version does not sell has no cost in it;
//! it would have been refused. Device time is rated by the price of its place. A flat price that it does not have is not asked for.
//!
//! Deliberately absent: what customers would have done at other prices.

use std::collections::BTreeMap;

use sublet_core::error::Result;
use sublet_core::id::ProjectId;
use sublet_core::{Nanos, Timestamp};

use crate::price_book::{PriceEntry, PriceListVersion};
use crate::price_index::PriceIndexes;
use crate::sku::{Quantity, QuantityChange, SkuName};
use crate::time_of_use::BandName;

/// One organization's use of a period, and what it was charged.
#[derive(Clone, Debug)]
pub struct Repricing<'a> {
    version: &'a PriceListVersion,
    /// That prices of the version follow.
    indexes: &'a PriceIndexes,
    lines: BTreeMap<(SkuName, Option<BandName>, ProjectId), Used>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Used {
    quantity: QuantityChange,
    charged: Nanos,
}

/// What all projects together used of one thing in one band.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepricedSku {
    pub sku: SkuName,
    /// Of the other version.
    pub band: Option<BandName>,
    pub quantity: Quantity,
    pub charged: Nanos,
    /// `None`: the version does not sell it.
    pub would_be: Option<Nanos>,
}

impl<'a> Repricing<'a> {
    pub const fn new(version: &'a PriceListVersion, indexes: &'a PriceIndexes) -> Self {
        Self { version, indexes, lines: BTreeMap::new() }
    }

    /// Whether it matters when something was used.
    pub fn depends_on_time(&self, sku: &SkuName) -> bool {
        self.version.resolve(sku).is_some_and(PriceEntry::depends_on_time)
    }

    /// Whether it matters where something was used.
    pub fn depends_on_placement(&self, sku: &SkuName) -> bool {
        self.version.depends_on_placement(sku)
    }

    /// Takes in what a project used and was charged: of device time by its full name, where places have prices. What begins
    /// in a band counts as of it; `None` is a sum over all times.
    pub fn add(&mut self, project: &ProjectId, sku: &SkuName, at: Option<Timestamp>, used: (QuantityChange, Nanos)) -> Result<()> {
        let entry = self.version.resolve(sku);
        let sku = entry.map_or(sku, |entry| &entry.sku);
        let band = match (entry, at) {
            (Some(entry), Some(at)) => entry.over_time_in(self.indexes)?.band_at(at)?,
            (None, _) | (_, None) => None,
        };
        let line = self.lines.entry((sku.clone(), band, project.clone())).or_default();
        line.quantity = line.quantity.checked_add(used.0)?;
        line.charged = line.charged.checked_add(used.1)?;
        Ok(())
    }

    /// What was used of each thing, what it cost and what it would have cost.
    pub fn finish(self) -> Result<Vec<RepricedSku>> {
        let mut skus: Vec<RepricedSku> = Vec::new();
        for ((sku, band, _), used) in self.lines {
            let quantity = Quantity::ZERO.changed_by(used.quantity)?;
            let would_be = match self.version.find(&sku) {
                Some(entry) => Some(entry.price_in(band.as_ref())?.exact_cost(quantity)?.half_even()?),
                None if sku.is_free_without_price() => Some(Nanos::ZERO),
                None => None,
            };
            match skus.last_mut().filter(|last| last.sku == sku && last.band == band) {
                Some(last) => last.add(quantity, used.charged, would_be)?,
                None => skus.push(RepricedSku { sku, band, quantity, charged: used.charged, would_be }),
            }
        }
        Ok(skus)
    }
}

impl RepricedSku {
    /// Takes in more of the same.
    pub fn add(&mut self, quantity: Quantity, charged: Nanos, would_be: Option<Nanos>) -> Result<()> {
        self.quantity = self.quantity.checked_add(quantity)?;
        self.charged = self.charged.checked_add(charged)?;
        self.would_be = match (self.would_be, would_be) {
            (Some(one), Some(other)) => Some(one.checked_add(other)?),
            (None, _) | (_, None) => None,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sublet_core::Currency;

    use super::*;
    use crate::price_book::PriceListDraft;
    use crate::price_model::{PriceModel, Tier};

    fn sku(name: &str) -> SkuName {
        name.parse().unwrap()
    }
    fn quantity(count: i64) -> Quantity {
        Quantity::new(count).unwrap()
    }
    fn version(entries: Vec<PriceEntry>) -> PriceListVersion {
        let draft =
            PriceListDraft { list: "plist_1".parse().unwrap(), currency: Currency::EUR, effective_at: Timestamp::EPOCH, entries };
        PriceListVersion::new(draft).unwrap()
    }

    /// 1,000 nanos a device-millisecond for the first ten, then 500.
    fn tiered() -> PriceModel {
        let tier = |up_to: Option<i64>, price| Tier { up_to: up_to.map(quantity), price: Nanos::new(price) };
        PriceModel::Graduated { tiers: vec![tier(Some(10), 3_600_000_000), tier(None, 1_800_000_000)] }
    }

    #[test]
    fn each_project_s_line_is_rated_from_zero_whatever_versions_it_had() {
        let version = version(vec![PriceEntry::new(sku("device/n0/cpu"), tiered())]);
        let indexes = PriceIndexes::new();
        let mut repricing = Repricing::new(&version, &indexes);
        let (one, two) = ("proj_1".parse().unwrap(), "proj_2".parse().unwrap());
        // Two versions of the list in the same month: eight and eight are one line of sixteen.
        for (project, count) in [(&one, 8), (&one, 8), (&two, 8)] {
            repricing.add(project, &sku("device/n0/cpu"), None, (quantity(count).into(), Nanos::new(1))).unwrap();
        }
        repricing.add(&two, &sku("device/firm/cpu"), None, (quantity(5).into(), Nanos::new(70))).unwrap();
        let expected = [
            RepricedSku {
                sku: sku("device/n0/cpu"),
                band: None,
                quantity: quantity(24),
                charged: Nanos::new(3),
                would_be: Some(Nanos::new(10_000 + 6 * 500 + 8_000)),
            },
            RepricedSku { sku: sku("device/firm/cpu"), band: None, quantity: quantity(5), charged: Nanos::new(70), would_be: None },
        ];
        let mut found = repricing.finish().unwrap();
        found.sort_by_key(|repriced| repriced.would_be.is_none());
        assert_eq!(found, expected);
    }

    #[test]
    fn device_time_is_priced_by_its_place() {
        let entry = |name: &str, price| PriceEntry::per_unit(sku(name), Nanos::new(price));
        let version =
            version(vec![entry("device/site_a/n0/cpu", 3_600_000_000), entry("device/site_b/process/n0/cpu", 7_200_000_000)]);
        let indexes = PriceIndexes::new();
        let mut repricing = Repricing::new(&version, &indexes);
        let depends = |name: &str| repricing.depends_on_placement(&sku(name));
        assert!(depends("device/n0/cpu") && depends("device/site_b/n0/cpu") && depends("device/process/n0/cpu"));
        assert!(!depends("device/site_a/process/n0/cpu") && !depends("device/n2m/cpu") && !depends("tokens/input/m"));
        for place in ["device/site_a/sandbox/n0/cpu", "device/site_b/sandbox/n0/cpu", "device/site_b/process/n0/cpu"] {
            repricing.add(&"proj_1".parse().unwrap(), &sku(place), None, (quantity(5).into(), Nanos::new(9))).unwrap();
        }
        let mut found: Vec<_> =
            repricing.finish().unwrap().into_iter().map(|repriced| (repriced.sku.to_string(), repriced.would_be)).collect();
        found.sort();
        let expected = [
            ("device/site_a/n0/cpu", Some(Nanos::new(5_000))),
            ("device/site_b/process/n0/cpu", Some(Nanos::new(10_000))),
            ("device/site_b/sandbox/n0/cpu", None),
        ];
        assert_eq!(found, expected.map(|(name, would_be)| (name.to_owned(), would_be)));
    }

    #[test]
    fn a_flat_price_that_a_list_does_not_have_is_not_asked_for() {
        let version = version(vec![PriceEntry::new(sku("device/n0/cpu"), tiered())]);
        let indexes = PriceIndexes::new();
        let mut repricing = Repricing::new(&version, &indexes);
        repricing.add(&"proj_1".parse().unwrap(), &sku("requests/default/m"), None, (quantity(3).into(), Nanos::new(60))).unwrap();
        let found = repricing.finish().unwrap();
        assert_eq!((found[0].charged, found[0].would_be), (Nanos::new(60), Some(Nanos::ZERO)));
    }

    #[test]
    fn use_falls_into_the_bands_of_the_other_version() {
        let bands = serde_json::from_value(serde_json::json!({ "zone": "UTC", "bands": [{ "name": "night",
            "windows": [{ "days": ["thu"], "from": "00:00", "until": "06:00" }], "model": { "type": "per_unit", "price": "0.9" } }] }));
        let entry =
            PriceEntry { time_of_use: bands.unwrap(), ..PriceEntry::per_unit(sku("device/n0/cpu"), Nanos::new(3_600_000_000)) };
        let version = version(vec![entry]);
        let indexes = PriceIndexes::new();
        let mut repricing = Repricing::new(&version, &indexes);
        assert!(repricing.depends_on_time(&sku("device/n0/cpu")) && !repricing.depends_on_time(&sku("device/n2m/cpu")));
        // The first of January 1970 was a Thursday.
        for hour in [1, 2, 7] {
            let at = Some(Timestamp::from_seconds(hour * 3_600));
            repricing.add(&"proj_1".parse().unwrap(), &sku("device/n0/cpu"), at, (quantity(100).into(), Nanos::ZERO)).unwrap();
        }
        let costs: Vec<_> = repricing.finish().unwrap().into_iter().map(|repriced| (repriced.band, repriced.would_be)).collect();
        let night = Some("night".parse().unwrap());
        assert_eq!(costs, [(None, Some(Nanos::new(100_000))), (night, Some(Nanos::new(50_000)))]);
    }
}
