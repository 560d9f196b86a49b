//! Reading what a month's invoice is made of, in pages: charges added up by the hour, single charges, credit notes.

use sublet_core::admission::PriceVersion;
use sublet_core::id::{CreditNoteId, OrganizationId, SiteId};
use sublet_core::runner::IsolationLevel;
use sublet_core::{Result, Timestamp};
use sublet_money::focus::{ChargedHour, Credited, ROW_LENGTH};
use sublet_money::period::{Interval, PeriodKey};
use sublet_money::sku::QuantityChange;

use crate::charge::{self, Charge};
use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// Hours that are looked at for one page.
const HOURS_AT_ONCE: usize = 100;

/// Up to where hours were read: those of the month by their use, then those that came late.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HourCursor {
    pub is_late: bool,
    /// In microseconds.
    from: i64,
    /// The last group of that hour that was read; empty before the first.
    group: String,
    pub is_end: bool,
}

impl Default for HourCursor {
    fn default() -> Self {
        Self { is_late: false, from: i64::MIN, group: String::new(), is_end: false }
    }
}

/// What was charged in an hour, and the month of the use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HourOfMonth {
    pub period: PeriodKey,
    pub hour: ChargedHour,
}

/// The next charges of a month's invoice, added up by hour, line and job: `limit` or a few more; fewer do not mean that
/// these were the last, which the cursor says.
pub async fn list_hours(
    tx: &mut Tx,
    of: (&OrganizationId, PeriodKey),
    cursor: &mut HourCursor,
    limit: usize,
) -> Result<Vec<HourOfMonth>> {
    let mut hours = Vec::new();
    for _ in 0..HOURS_AT_ONCE {
        if cursor.is_end || hours.len() >= limit {
            break;
        }
        let Some(used_at) = find_next_use(tx, of, cursor).await? else {
            let is_late = !cursor.is_late;
            *cursor = HourCursor { is_late, is_end: !is_late, ..HourCursor::default() };
            continue;
        };
        let length = ROW_LENGTH.millis() * 1_000;
        let starts_at = used_at.micros().div_euclid(length) * length;
        let left = limit.saturating_sub(hours.len());
        let rows = list_groups(tx, of, (cursor, starts_at), left).await?;
        let is_whole = rows.len() < left;
        for row in &rows {
            let (group, hour) = group(row, Timestamp::from_micros(starts_at))?;
            cursor.group = group;
            hours.push(hour);
        }
        cursor.from = starts_at;
        if is_whole {
            cursor.from = starts_at.saturating_add(length);
            cursor.group.clear();
        }
    }
    Ok(hours)
}

/// Where a job of an organization ran, and how it had to be kept apart.
pub async fn find_place(tx: &mut Tx, organization: &OrganizationId, job: &str) -> Result<Option<(SiteId, IsolationLevel)>> {
    let row = tx
        .fetch_optional(
            "SELECT lease.site, lease.isolation FROM jobs job JOIN leases lease ON lease.id = job.lease_id
             WHERE job.organization_id = $1 AND job.id = $2",
            params![organization.as_str(), job],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut row = row.reader();
    Ok(Some((row.parse()?, row.parse()?)))
}

/// When the first charge was used that was not read.
async fn find_next_use(
    tx: &mut Tx,
    (organization, period): (&OrganizationId, PeriodKey),
    at: &HourCursor,
) -> Result<Option<Timestamp>> {
    let sql = if at.is_late {
        "SELECT occurred_at FROM charges WHERE organization_id = $1 AND billed_in = $2 AND billed_in <> '' AND occurred_at >= $3
         ORDER BY occurred_at LIMIT 1"
    } else {
        "SELECT occurred_at FROM charges WHERE organization_id = $1 AND period = $2 AND billed_in = '' AND occurred_at >= $3
         ORDER BY occurred_at LIMIT 1"
    };
    let row = tx.fetch_optional(sql, params![organization.as_str(), period.to_string(), at.from]).await?;
    row.map(|row| row.reader().time()).transpose()
}

/// Groups of one hour behind the one that was read last. Device time and starts are kept apart by job.
async fn list_groups(
    tx: &mut Tx,
    (organization, period): (&OrganizationId, PeriodKey),
    (at, starts_at): (&HourCursor, i64),
    limit: usize,
) -> Result<Vec<Row>> {
    // The parts before the sku have no spaces, so no two groups have one text.
    let sql = if at.is_late {
        "SELECT period || ' ' || project_id || ' ' || price_version || ' ' || band || ' ' || resource || ' ' || sku AS place,
             period, project_id, price_version, band, resource, sku, COUNT(*), CAST(SUM(quantity) AS BIGINT), CAST(SUM(amount) AS BIGINT)
         FROM (SELECT period, project_id, price_version, band, CASE WHEN sku LIKE 'device/%' OR sku LIKE 'starts/%' THEN source ELSE '' END AS resource,
                 sku, quantity, amount
             FROM charges WHERE organization_id = $1 AND billed_in = $2 AND billed_in <> '' AND occurred_at >= $3 AND occurred_at < $4) AS hour
         WHERE period || ' ' || project_id || ' ' || price_version || ' ' || band || ' ' || resource || ' ' || sku > $5
         GROUP BY period, project_id, price_version, band, resource, sku ORDER BY place LIMIT $6"
    } else {
        "SELECT period || ' ' || project_id || ' ' || price_version || ' ' || band || ' ' || resource || ' ' || sku AS place,
             period, project_id, price_version, band, resource, sku, COUNT(*), CAST(SUM(quantity) AS BIGINT), CAST(SUM(amount) AS BIGINT)
         FROM (SELECT period, project_id, price_version, band, CASE WHEN sku LIKE 'device/%' OR sku LIKE 'starts/%' THEN source ELSE '' END AS resource,
                 sku, quantity, amount
             FROM charges WHERE organization_id = $1 AND period = $2 AND billed_in = '' AND occurred_at >= $3 AND occurred_at < $4) AS hour
         WHERE period || ' ' || project_id || ' ' || price_version || ' ' || band || ' ' || resource || ' ' || sku > $5
         GROUP BY period, project_id, price_version, band, resource, sku ORDER BY place LIMIT $6"
    };
    let until = starts_at.saturating_add(ROW_LENGTH.millis() * 1_000);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let of = params![organization.as_str(), period.to_string(), starts_at, until, at.group.as_str(), limit];
    tx.fetch_all(sql, of).await
}

fn group(row: &Row, starts_at: Timestamp) -> Result<(String, HourOfMonth)> {
    let mut row = row.reader();
    let (place, period, project) = (row.string()?, row.parse()?, row.parse()?);
    let price_version = PriceVersion(row.text()?.into());
    let band = charge::band(row.text()?)?;
    let resource = Some(row.string()?).filter(|resource| !resource.is_empty());
    let (sku, charges) = (row.parse()?, row.int()?);
    let (quantity, amount) = (QuantityChange::new(row.int()?), row.nanos()?);
    Ok((
        place,
        HourOfMonth {
            period,
            hour: ChargedHour {
                project,
                sku,
                price_version,
                band,
                resource,
                site: None,
                isolation: None,
                starts_at,
                quantity,
                amount,
                charges,
            },
        },
    ))
}

/// Up to where single charges were read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ChargeCursor {
    pub is_late: bool,
    charge: String,
    pub is_end: bool,
}

/// The next charges of a month's invoice by their ids, those that came late behind the rest.
pub async fn list_charges(
    tx: &mut Tx,
    (organization, period): (&OrganizationId, PeriodKey),
    cursor: &mut ChargeCursor,
    limit: usize,
) -> Result<Vec<Charge>> {
    let sql = if cursor.is_late {
        "SELECT id, organization_id, project_id, key_id, source, sku, quantity, amount, currency, price_version, period, billed_in, band,
             quantity_before, charged_before, occurred_at, posted_at FROM charges
         WHERE organization_id = $1 AND billed_in = $2 AND billed_in <> '' AND id > $3 ORDER BY id LIMIT $4"
    } else {
        "SELECT id, organization_id, project_id, key_id, source, sku, quantity, amount, currency, price_version, period, billed_in, band,
             quantity_before, charged_before, occurred_at, posted_at FROM charges
         WHERE organization_id = $1 AND period = $2 AND billed_in = '' AND id > $3 ORDER BY id LIMIT $4"
    };
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let of = params![organization.as_str(), period.to_string(), cursor.charge.as_str(), most];
    let rows = tx.fetch_all(sql, of).await?;
    let charges = rows.iter().map(charge::from_row).collect::<Result<Vec<_>>>()?;
    match charges.last() {
        Some(last) if charges.len() >= limit => cursor.charge = last.id.to_string(),
        Some(_) | None if cursor.is_late => cursor.is_end = true,
        Some(_) | None => *cursor = ChargeCursor { is_late: true, ..ChargeCursor::default() },
    }
    Ok(charges)
}

/// The next credit notes that an organization got in a month, by their ids.
pub async fn list_credited(
    tx: &mut Tx,
    (organization, month): (&OrganizationId, Interval),
    after: Option<&CreditNoteId>,
    limit: i64,
) -> Result<Vec<(CreditNoteId, Credited)>> {
    let rows = tx
        .fetch_all(
            "SELECT n.id, n.number, i.number, n.amount, n.tax, n.reason, n.issued_at FROM credit_notes n
             JOIN invoices i ON i.id = n.invoice_id
             WHERE n.organization_id = $1 AND n.issued_at >= $2 AND n.issued_at < $3 AND n.id > $4 ORDER BY n.id LIMIT $5",
            params![organization.as_str(), month.starts_at, month.ends_at, after.map_or("", CreditNoteId::as_str), limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            let id = row.parse()?;
            let (number, invoice, amount, tax) = (row.parse()?, row.parse()?, row.nanos()?, row.nanos()?);
            Ok((id, Credited { number, invoice, amount, tax, reason: row.string()?, issued_at: row.time()? }))
        })
        .collect()
}
