//! Which lines change when use is rated anew, by what was metered, and on which line use is that comes to be known now.

use std::collections::BTreeMap;
use std::sync::Arc;

use sublet_core::admission::PriceVersion;
use sublet_core::id::OrganizationId;
use sublet_core::{Result, Timestamp};
use sublet_money::period::{Interval, PeriodKey};
use sublet_money::price_book::PriceListVersion;
use sublet_money::price_index::PriceIndexes;
use sublet_money::rating::{LineKey, RatedLine, rate_line, used_lines};
use sublet_money::rerate::{MeteredUse, Moves, Rerate, UsedAt, line_after};
use sublet_money::sku::{Quantity, SkuName};
use sublet_store::metered::{self, Metered, MeteredCursor};
use sublet_store::organization::Organization;
use sublet_store::rerate::StoredRerate;
use sublet_store::{Tx, charge};

use crate::billing::Billing;
use crate::{Cloud, file_egress, job_start};

/// A line that changes, and when the first use was that changes it.
pub(crate) type Changed = (RatedLine, Timestamp);

/// The indexes that lists follow, in the time of which use is read.
struct Levels {
    within: Interval,
    known: BTreeMap<PriceVersion, PriceIndexes>,
}

impl Levels {
    async fn of(&mut self, tx: &mut Tx, cloud: &Cloud, version: &PriceListVersion) -> Result<&PriceIndexes> {
        if !self.known.contains_key(version.version()) {
            let indexes = cloud.indexes_within(tx, [version], self.within).await?;
            self.known.insert(version.version().clone(), indexes);
        }
        Ok(&self.known[version.version()])
    }
}

impl Cloud {
    /// Which lines of a customer change, by everything that was metered of the time.
    pub(crate) async fn plan_account(
        &self,
        tx: &mut Tx,
        (account, billing): (&Organization, &Billing),
        stored: &StoredRerate,
    ) -> Result<Vec<Changed>> {
        let rerate = self.rerate_of(tx, stored).await?;
        let applied = self.rerates_of(tx, billing).await?;
        let Interval { starts_at, ends_at } = rerate.interval;
        let starts_at = starts_at.max(billing.first_use_at());
        let mut moves = Moves::default();
        let mut month = billing.calendar.period_at(starts_at)?;
        while month.interval.starts_at < ends_at {
            let within =
                Interval { starts_at: starts_at.max(month.interval.starts_at), ends_at: ends_at.min(month.interval.ends_at) };
            let (mut cursor, mut levels) = (MeteredCursor::default(), Levels { within, known: BTreeMap::new() });
            loop {
                let page = metered::list(tx, &account.id, (month.key, within), &mut cursor).await?;
                if page.is_empty() {
                    break;
                }
                for metered in &page {
                    for used in self.uses_of(tx, &account.id, (month.key, metered), &mut levels).await? {
                        moves.add(used, &applied, &rerate)?;
                    }
                }
            }
            month = billing.calendar.period(month.key.next()?)?;
        }
        let mut changed = Vec::new();
        for (key, line) in moves.into_lines().filter(|(_, line)| !line.quantity.is_zero()) {
            let version = self.price_version(tx, &key.price_version).await?;
            if !key.is_asked_for(&version) {
                continue;
            }
            let state = charge::line_state(tx, &key).await?;
            changed.push((rate_line(key, state, &version, line.quantity)?, line.first_at));
        }
        Ok(changed)
    }

    /// What was metered, on the lines that it was on first.
    async fn uses_of(
        &self,
        tx: &mut Tx,
        organization: &OrganizationId,
        (period, metered): (PeriodKey, &Metered),
        levels: &mut Levels,
    ) -> Result<Vec<MeteredUse>> {
        match metered {
            Metered::Request(record) => {
                let version = self.price_version(tx, &record.price_version).await?;
                let lines = used_lines(record, period, &version)?;
                Ok(lines
                    .into_iter()
                    .map(|(key, quantity)| MeteredUse { key, quantity, used: UsedAt::instant(record.admitted_at) })
                    .collect())
            }
            Metered::DeviceTime(time) => {
                let version = self.price_version(tx, &time.price_version).await?;
                let at = time.interval.starts_at;
                let indexes = levels.of(tx, self, &version).await?;
                let key = LineKey {
                    organization: organization.clone(),
                    project: time.project.clone(),
                    period,
                    price_version: time.price_version.clone(),
                    sku: time.sku.clone(),
                    band: version.get(&time.sku)?.over_time_in(indexes)?.band_at(at)?,
                };
                let used = UsedAt { at, max_price: time.max_price, placed: Some(time.placed.clone()) };
                let quantity = Quantity::new(time.span().millis().saturating_mul(i64::from(time.units)))?;
                Ok(vec![MeteredUse { key, quantity, used }])
            }
            Metered::Start(start) => {
                let key = job_start::line_of(start, period);
                Ok(vec![MeteredUse { key, quantity: Quantity::new(1)?, used: UsedAt::instant(start.at) }])
            }
            Metered::Storage(part) => {
                let Some(price_version) = part.price_version.clone() else { return Ok(Vec::new()) };
                let (organization, project, sku) = (organization.clone(), part.project.clone(), SkuName::FileStorage);
                let key = LineKey { organization, project, period, price_version, sku, band: part.band.clone() };
                Ok(vec![MeteredUse { key, quantity: part.byte_hours, used: UsedAt::instant(part.starts_at) }])
            }
            Metered::Download(download) => {
                let version = self.price_version(tx, &download.price_version).await?;
                let key = file_egress::line_of(download, period, &version)?;
                Ok(vec![MeteredUse {
                    key,
                    quantity: Quantity::new(download.bytes.get())?,
                    used: UsedAt::instant(download.opened_at),
                }])
            }
        }
    }

    /// The line that use is on which comes to be known now, and its price list.
    pub(crate) async fn line_now(
        &self,
        tx: &mut Tx,
        billing: &Billing,
        (key, used): (LineKey, UsedAt),
        version: &Arc<PriceListVersion>,
    ) -> Result<(LineKey, Arc<PriceListVersion>)> {
        if billing.rerates().is_empty() {
            return Ok((key, version.clone()));
        }
        let key = line_after(key, &used, &self.rerates_of(tx, billing).await?)?;
        let version = self.price_version(tx, &key.price_version).await?;
        Ok((key, version))
    }

    async fn rerates_of(&self, tx: &mut Tx, billing: &Billing) -> Result<Vec<Rerate>> {
        let mut rerates = Vec::with_capacity(billing.rerates().len());
        for stored in billing.rerates() {
            rerates.push(self.rerate_of(tx, stored).await?);
        }
        Ok(rerates)
    }

    async fn rerate_of(&self, tx: &mut Tx, stored: &StoredRerate) -> Result<Rerate> {
        let to = self.price_version(tx, &stored.to).await?;
        let indexes = self.indexes_within(tx, [&*to], stored.interval).await?;
        Ok(Rerate { id: stored.id.clone(), of: stored.of.clone(), to, indexes, interval: stored.interval })
    }
}
