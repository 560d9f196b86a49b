//! What runs or was metered and is not charged, over all tenants: for the operator only.
//!
//! Each query looks for one thing that should not be there, and what it finds is bounded; what is found is as it stands in the books.

use sublet_core::admission::PriceVersion;
use sublet_core::id::{DeviceId, DownloadId, OrganizationId, ProjectId};
use sublet_core::usage::UsageRecord;
use sublet_core::{Currency, Nanos, Result, Timestamp};
use sublet_money::period::PeriodKey;
use sublet_money::sku::SkuName;

use crate::database::Tx;
use crate::params;
use crate::row::{Row, RowReader};

/// Most findings of one kind.
pub const FINDINGS_MAX: i64 = 100;
/// Most price lists by which starts are looked for.
const VERSIONS_MAX: i64 = 1_000;

/// A usage record that nobody was charged for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnchargedRecord {
    pub record: UsageRecord,
    pub currency: Currency,
    pub reason: String,
}

fn record(row: &Row) -> Result<UnchargedRecord> {
    let mut row = row.reader();
    Ok(UnchargedRecord { record: row.json()?, currency: row.parse()?, reason: row.string()? })
}

/// Records that could not be charged: they wait for an operator, however old they are.
pub async fn quarantined(tx: &mut Tx) -> Result<Vec<UnchargedRecord>> {
    let rows = tx
        .fetch_all(
            "SELECT body, currency, reason FROM usage_events WHERE state = 'quarantined' ORDER BY request_id LIMIT $1",
            params![FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(record).collect()
}

/// Lines of batches that were computed and that another attempt answered.
pub async fn superseded(tx: &mut Tx, since: Timestamp) -> Result<Vec<UnchargedRecord>> {
    let rows = tx
        .fetch_all(
            "SELECT body, currency, reason FROM usage_events
             WHERE state = 'superseded' AND finished_at >= $1 AND input_tokens + cached_input_tokens + output_tokens > 0
             ORDER BY request_id LIMIT $2",
            params![since, FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(record).collect()
}

/// Device time of a lease that nobody was charged for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnchargedTime {
    /// The job that ran, or the lease.
    pub id: String,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub sku: SkuName,
    pub price_version: String,
    pub currency: Currency,
    pub since: Timestamp,
    /// Of all its devices together.
    pub millis: i64,
}

fn time(row: &Row) -> Result<UnchargedTime> {
    Ok(time_and_rest(row)?.0)
}

fn time_and_rest(row: &Row) -> Result<(UnchargedTime, RowReader<'_>)> {
    let mut row = row.reader();
    let time = UnchargedTime {
        id: row.string()?,
        organization: row.parse()?,
        project: row.parse()?,
        sku: row.parse()?,
        price_version: row.string()?,
        currency: row.parse()?,
        since: row.time()?,
        millis: row.int()?,
    };
    Ok((time, row))
}

/// Time that jobs ran beyond what was held for them.
pub async fn beyond_hold(tx: &mut Tx, since: Timestamp) -> Result<Vec<UnchargedTime>> {
    let rows = tx
        .fetch_all(
            "SELECT attempts.job_id, leases.organization_id, leases.project_id, leases.sku, leases.price_version, leases.currency,
                 MIN(attempt_intervals.started_at),
                 CAST(SUM((attempt_intervals.ended_at - attempt_intervals.started_at) / 1000) AS BIGINT)
             FROM attempt_intervals JOIN attempts ON attempts.id = attempt_intervals.attempt_id
                 JOIN leases ON leases.id = attempt_intervals.lease_id
             WHERE attempt_intervals.close_reason = 'unpaid' AND attempt_intervals.ended_at >= $1
             GROUP BY attempts.job_id, leases.organization_id, leases.project_id, leases.sku, leases.price_version, leases.currency
             ORDER BY attempts.job_id LIMIT $2",
            params![since, FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(time).collect()
}

/// Jobs on leases that are over whose metered time is more than what they were charged for.
pub async fn metered_not_charged(tx: &mut Tx, since: Timestamp) -> Result<Vec<UnchargedTime>> {
    let rows = tx
        .fetch_all(
            "SELECT job_id, organization_id, project_id, sku, price_version, currency, started_at, CAST(metered - charged AS BIGINT)
             FROM (SELECT attempts.job_id, leases.organization_id, leases.project_id, leases.sku, leases.price_version, leases.currency,
                     MIN(attempt_intervals.started_at) AS started_at,
                     SUM((attempt_intervals.ended_at - attempt_intervals.started_at) / 1000) AS metered,
                     (SELECT COALESCE(SUM(charges.quantity), 0) FROM charges
                         WHERE charges.source = attempts.job_id AND charges.sku LIKE 'device/%') AS charged
                 FROM attempts JOIN attempt_intervals ON attempt_intervals.attempt_id = attempts.id
                     JOIN leases ON leases.id = attempts.lease_id
                 WHERE attempts.state = 'ended' AND attempts.ended_at >= $1 AND attempt_intervals.close_reason <> 'unpaid'
                     AND leases.state = 'ended'
                 GROUP BY attempts.job_id, leases.organization_id, leases.project_id, leases.sku, leases.price_version,
                     leases.currency) AS jobs
             WHERE metered > charged ORDER BY job_id LIMIT $2",
            params![since, FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(time).collect()
}

/// Of one device, and in the column behind it which devices there were.
fn running(row: &Row) -> Result<UnchargedTime> {
    let (time, mut rest) = time_and_rest(row)?;
    let devices: Vec<DeviceId> = rest.json()?;
    let count = i64::try_from(devices.len()).unwrap_or(i64::MAX);
    Ok(UnchargedTime { millis: time.millis.saturating_mul(count), ..time })
}

/// Attempts that ran and of whose time nothing is in the interval log.
pub async fn ran_not_metered(tx: &mut Tx, since: Timestamp) -> Result<Vec<UnchargedTime>> {
    let rows = tx
        .fetch_all(
            "SELECT attempts.job_id, leases.organization_id, leases.project_id, leases.sku, leases.price_version, leases.currency,
                 attempts.started_at, (attempts.ended_at - attempts.started_at) / 1000, attempts.devices
             FROM attempts JOIN leases ON leases.id = attempts.lease_id
             WHERE attempts.state = 'ended' AND attempts.ended_at >= $1 AND attempts.ended_at - attempts.started_at >= 1000
                 AND NOT EXISTS (SELECT 1 FROM attempt_intervals WHERE attempt_intervals.attempt_id = attempts.id)
             ORDER BY attempts.id LIMIT $2",
            params![since, FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(running).collect()
}

/// Attempts that live and whose proofs of life are older than what is settled of them by more than some time.
pub async fn running_not_settled(tx: &mut Tx, micros: i64) -> Result<Vec<UnchargedTime>> {
    let rows = tx
        .fetch_all(
            "SELECT attempts.job_id, leases.organization_id, leases.project_id, leases.sku, leases.price_version, leases.currency,
                 COALESCE(attempts.settled_until, attempts.started_at),
                 (attempts.alive_at - COALESCE(attempts.settled_until, attempts.started_at)) / 1000, attempts.devices
             FROM attempts JOIN leases ON leases.id = attempts.lease_id
             WHERE attempts.state = 'running' AND attempts.alive_at - COALESCE(attempts.settled_until, attempts.started_at) > $1
             ORDER BY attempts.id LIMIT $2",
            params![micros, FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(running).collect()
}

/// Leases with a price on which something runs and nothing is held any more.
pub async fn running_unheld(tx: &mut Tx) -> Result<Vec<UnchargedTime>> {
    let rows = tx
        .fetch_all(
            "SELECT leases.id, leases.organization_id, leases.project_id, leases.sku, leases.price_version, leases.currency,
                 COALESCE(attempts.settled_until, attempts.started_at),
                 (attempts.alive_at - COALESCE(attempts.settled_until, attempts.started_at)) / 1000
             FROM leases JOIN attempts ON attempts.lease_id = leases.id AND attempts.state = 'running'
                 LEFT JOIN holds ON holds.subject = leases.id AND holds.state = 'open'
             WHERE leases.price > 0 AND (holds.id IS NULL OR holds.captured >= holds.promotional + holds.paid + holds.committed)
             ORDER BY leases.id LIMIT $1",
            params![FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(time).collect()
}

/// Leases that should have ended: their deadline or window is over since an instant.
pub async fn past_end(tx: &mut Tx, before: Timestamp) -> Result<Vec<UnchargedTime>> {
    let rows = tx
        .fetch_all(
            "SELECT id, organization_id, project_id, sku, price_version, currency, COALESCE(deadline, ends_at), CAST(0 AS BIGINT) FROM leases
             WHERE state IN ('active', 'ending') AND COALESCE(deadline, ends_at) < $1 ORDER BY id LIMIT $2",
            params![before, FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(time).collect()
}

/// Money of an organization that a lost gateway has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostMoney {
    /// The slice, or the account in suspense.
    pub id: String,
    pub gateway: Option<String>,
    pub organization: OrganizationId,
    pub currency: Currency,
    /// `None` for an account, which does not say.
    pub since: Option<Timestamp>,
    pub amount: Nanos,
}

fn lost(row: &Row) -> Result<LostMoney> {
    let mut row = row.reader();
    Ok(LostMoney {
        id: row.string()?,
        gateway: row.optional_text()?.map(str::to_owned),
        organization: row.parse()?,
        currency: row.parse()?,
        since: row.optional_time()?,
        amount: row.nanos()?,
    })
}

/// Slices of sessions that ended without giving them back, or that are silent, since an instant at least.
pub async fn lost_slices(tx: &mut Tx, before: Timestamp) -> Result<Vec<LostMoney>> {
    let rows = tx
        .fetch_all(
            "SELECT slices.id, slices.gateway_id, slices.organization_id, slices.currency, slices.opened_at,
                 slices.promotional + slices.paid + slices.committed - slices.spent
             FROM slices JOIN gateways ON gateways.id = slices.gateway_id
             WHERE slices.state = 'open'
                 AND (gateways.seen_at < $1 OR (slices.fence < gateways.fence AND gateways.started_at < $1))
             ORDER BY slices.id LIMIT $2",
            params![before, FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(lost).collect()
}

/// Accounts with money in suspense.
pub async fn in_suspense(tx: &mut Tx) -> Result<Vec<LostMoney>> {
    let rows = tx
        .fetch_all(
            "SELECT path, NULL, organization_id, currency, NULL, credits - debits FROM accounts
             WHERE path LIKE 'liabilities:customers:%:suspense' AND credits <> debits ORDER BY path LIMIT $1",
            params![FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(lost).collect()
}

/// Months that were closed and have no invoice, and months that are over since an instant and not closed. A month that
/// is not closed yet is named with its end.
pub async fn months_behind(tx: &mut Tx, before: Timestamp) -> Result<Vec<(OrganizationId, PeriodKey, Option<Timestamp>)>> {
    let rows = tx
        .fetch_all(
            "SELECT organization_id, period, NULL FROM closed_months WHERE billed_at IS NULL
             UNION ALL SELECT organization_id, open_period, open_ends_at FROM billing_accounts WHERE open_ends_at < $1
             ORDER BY 1, 2 LIMIT $2",
            params![before, FINDINGS_MAX],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok((row.parse()?, row.parse()?, row.optional_time()?))
        })
        .collect()
}

/// Months that were billed since an instant, behind one of an organization.
pub async fn billed_months(
    tx: &mut Tx,
    since: Timestamp,
    after: (&str, &str),
    limit: i64,
) -> Result<Vec<(OrganizationId, PeriodKey, Timestamp)>> {
    let rows = tx
        .fetch_all(
            "SELECT organization_id, period, billed_at FROM closed_months
             WHERE billed_at >= $1 AND (organization_id > $2 OR (organization_id = $2 AND period > $3))
             ORDER BY organization_id, period LIMIT $4",
            params![since, after.0, after.1, limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok((row.parse()?, row.parse()?, row.time()?))
        })
        .collect()
}

/// A download of which nobody knows what it had sent: nobody was charged for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostDownload {
    pub id: DownloadId,
    pub organization: OrganizationId,
    pub currency: Currency,
    pub price_version: PriceVersion,
    pub opened_at: Timestamp,
    /// Of the file, if it is still there.
    pub bytes: Option<i64>,
}

/// Downloads whose process died, closed since an instant.
pub async fn lost_downloads(tx: &mut Tx, since: Timestamp) -> Result<Vec<LostDownload>> {
    let rows = tx
        .fetch_all(
            "SELECT downloads.id, downloads.organization_id, organizations.currency, downloads.price_version, downloads.opened_at, files.bytes
             FROM downloads JOIN organizations ON organizations.id = downloads.organization_id
                 LEFT JOIN files ON files.id = downloads.file_id
             WHERE downloads.state = 'lost' AND downloads.ended_at >= $1 ORDER BY downloads.id LIMIT $2",
            params![since, FINDINGS_MAX],
        )
        .await?;
    let read = |row: &Row| {
        let mut row = row.reader();
        Ok(LostDownload {
            id: row.parse()?,
            organization: row.parse()?,
            currency: row.parse()?,
            price_version: PriceVersion(row.text()?.into()),
            opened_at: row.time()?,
            bytes: row.optional_int()?,
        })
    };
    rows.iter().map(read).collect()
}

/// What is kept and not metered: a project, or one of its files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unmetered {
    pub id: String,
    pub organization: OrganizationId,
    pub since: Timestamp,
}

fn unmetered(row: &Row) -> Result<Unmetered> {
    let mut row = row.reader();
    Ok(Unmetered { id: row.string()?, organization: row.parse()?, since: row.time()? })
}

/// Projects whose files are metered up to before an instant.
pub async fn storage_behind(tx: &mut Tx, before: Timestamp) -> Result<Vec<Unmetered>> {
    let rows = tx
        .fetch_all(
            "SELECT project_id, organization_id, metered_until FROM storage_meters WHERE metered_until < $1 ORDER BY project_id LIMIT $2",
            params![before, FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(unmetered).collect()
}

/// Files from before an instant whose project has no meter.
pub async fn files_without_meter(tx: &mut Tx, before: Timestamp) -> Result<Vec<Unmetered>> {
    let rows = tx
        .fetch_all(
            "SELECT id, organization_id, created_at FROM files
             WHERE created_at < $1 AND NOT EXISTS (SELECT 1 FROM storage_meters WHERE storage_meters.project_id = files.project_id)
             ORDER BY id LIMIT $2",
            params![before, FINDINGS_MAX],
        )
        .await?;
    rows.iter().map(unmetered).collect()
}

/// The price lists of leases on which jobs began to run since an instant.
pub async fn versions_of_starts(tx: &mut Tx, since: Timestamp) -> Result<Vec<PriceVersion>> {
    let rows = tx
        .fetch_all(
            "SELECT DISTINCT leases.price_version FROM jobs
                 JOIN leases ON leases.id = COALESCE(jobs.start_lease_id, jobs.lease_id)
             WHERE jobs.started_at >= $1 ORDER BY leases.price_version LIMIT $2",
            params![since, VERSIONS_MAX],
        )
        .await?;
    rows.iter().map(|row| Ok(PriceVersion(row.reader().text()?.into()))).collect()
}

/// Jobs on devices of a kind that began to run since an instant by a price list, and have no charge for their start.
pub async fn starts_not_charged(
    tx: &mut Tx,
    (version, sku): (&PriceVersion, &SkuName),
    since: Timestamp,
) -> Result<Vec<Unmetered>> {
    let SkuName::Starts { device } = sku else { return Ok(Vec::new()) };
    let rows = tx
        .fetch_all(
            "SELECT jobs.id, jobs.organization_id, jobs.started_at, leases.sku FROM jobs
                 JOIN leases ON leases.id = COALESCE(jobs.start_lease_id, jobs.lease_id)
             WHERE leases.price_version = $1 AND leases.sku LIKE 'device/%/' || $2 AND jobs.started_at >= $3
                 AND NOT EXISTS (SELECT 1 FROM charges WHERE charges.source = jobs.id AND charges.sku = $4)
             ORDER BY jobs.id LIMIT $5",
            params![version.0.to_string(), device.as_str(), since, sku.to_string(), FINDINGS_MAX],
        )
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut reader = row.reader();
        let job = Unmetered { id: reader.string()?, organization: reader.parse()?, since: reader.time()? };
        // A kind may end like another one.
        if matches!(reader.parse()?, SkuName::Device { device: used, .. } if used == *device) {
            found.push(job);
        }
    }
    Ok(found)
}
