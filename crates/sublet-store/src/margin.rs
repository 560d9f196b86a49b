//! Sums over all tenants, from which the owner's reports are made: for the operator only.

use sublet_core::device::{DeviceClass, DeviceKind};
use sublet_core::id::{OrganizationId, SiteId};
use sublet_core::organization::OrganizationClass;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::account::LedgerAccount;
use sublet_money::cost::ReplicaCost;
use sublet_money::period::{Interval, PeriodKey};
use sublet_money::rating::LineState;
use sublet_money::sku::{ModelName, Quantity, SkuName, TokenKind};

use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// Most lines of one month, over all accounts, and most accounts that something was posted to in it.
pub const LINES_MAX: i64 = 200_000;
/// Spans that are read at once.
pub const SPANS_PAGE: i64 = 10_000;

/// What an account used of a thing in a month.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MonthLine {
    pub organization: OrganizationId,
    pub class: OrganizationClass,
    pub sku: SkuName,
    pub used: LineState,
}

fn bounded(rows: Vec<Row>) -> Result<Vec<Row>> {
    if i64::try_from(rows.len()).is_ok_and(|count| count <= LINES_MAX) {
        return Ok(rows);
    }
    // A sum over a part of a month would be wrong without a sign of it.
    Err(Error::new(ErrorCode::InvalidRequest, format!("a month with more than {LINES_MAX} lines cannot be reported")))
}

/// What all accounts in a currency used in a month, each in its own calendar.
pub async fn month_lines(tx: &mut Tx, month: PeriodKey, currency: Currency) -> Result<Vec<MonthLine>> {
    let rows = tx
        .fetch_all(
            "SELECT charge_lines.organization_id, organizations.class, charge_lines.sku, CAST(SUM(charge_lines.quantity) AS BIGINT),
                 CAST(SUM(charge_lines.charged) AS BIGINT)
             FROM charge_lines JOIN organizations ON organizations.id = charge_lines.organization_id
             WHERE charge_lines.period = $1 AND organizations.currency = $2
             GROUP BY charge_lines.organization_id, organizations.class, charge_lines.sku
             ORDER BY charge_lines.organization_id, charge_lines.sku LIMIT $3",
            params![month.to_string(), currency.as_str(), LINES_MAX + 1],
        )
        .await?;
    bounded(rows)?
        .iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(MonthLine {
                organization: row.parse()?,
                class: row.parse()?,
                sku: row.parse()?,
                used: LineState { quantity: Quantity::new(row.int()?)?, charged: row.nanos()? },
            })
        })
        .collect()
}

/// The part of what an account was charged in a month that is of work at a site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacedCharges {
    pub organization: OrganizationId,
    pub sku: SkuName,
    pub site: SiteId,
    pub charged: Nanos,
}

/// What all accounts in a currency were charged for jobs in a month, by where those ran; `around` is a time that has all of
/// the month in it, in every calendar. What was rated anew since is no charge of a job.
pub async fn month_places(tx: &mut Tx, (month, currency): (PeriodKey, Currency), around: Interval) -> Result<Vec<PlacedCharges>> {
    let rows = tx
        .fetch_all(
            // A job that went on after an interruption has the lease of its newest attempt; the earlier ones have theirs.
            "SELECT charges.organization_id, charges.sku, placed.site, CAST(SUM(charges.amount) AS BIGINT)
             FROM (SELECT jobs.id AS job, jobs.organization_id, leases.site
                   FROM leases JOIN jobs ON jobs.lease_id = leases.id
                   WHERE leases.starts_at < $2 AND (leases.ended_at IS NULL OR leases.ended_at >= $1)
                   UNION SELECT attempts.job_id, attempts.organization_id, leases.site
                   FROM leases JOIN attempts ON attempts.lease_id = leases.id
                   WHERE leases.starts_at < $2 AND (leases.ended_at IS NULL OR leases.ended_at >= $1)) AS placed
                 JOIN charges ON charges.source = placed.job AND charges.organization_id = placed.organization_id
                 JOIN organizations ON organizations.id = charges.organization_id
             WHERE charges.period = $3 AND organizations.currency = $4
             GROUP BY charges.organization_id, charges.sku, placed.site
             ORDER BY charges.organization_id, charges.sku, placed.site LIMIT $5",
            params![around.starts_at, around.ends_at, month.to_string(), currency.as_str(), LINES_MAX + 1],
        )
        .await?;
    bounded(rows)?
        .iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(PlacedCharges { organization: row.parse()?, sku: row.parse()?, site: row.parse()?, charged: row.nanos()? })
        })
        .collect()
}

/// What the lines of all months add up to, and what the income accounts for use do: the same, if the books are right.
pub async fn recognised_and_booked(tx: &mut Tx, currency: Currency) -> Result<(Nanos, Nanos)> {
    let lines = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(charge_lines.charged), 0) AS BIGINT) FROM charge_lines
             JOIN organizations ON organizations.id = charge_lines.organization_id WHERE organizations.currency = $1",
            params![currency.as_str()],
        )
        .await?;
    let income = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(credits - debits), 0) AS BIGINT) FROM accounts
             WHERE path LIKE 'income:usage:%' AND currency = $1",
            params![currency.as_str()],
        )
        .await?;
    Ok((lines.reader().nanos()?, income.reader().nanos()?))
}

/// What all accounts come to whose paths begin so, as credits less debits.
pub async fn booked(tx: &mut Tx, prefix: &str, currency: Currency) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(credits - debits), 0) AS BIGINT) FROM accounts WHERE path LIKE $1 AND currency = $2",
            params![format!("{prefix}%"), currency.as_str()],
        )
        .await?;
    row.reader().nanos()
}

/// What was posted to one account from another in some time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostedSum {
    pub debit: LedgerAccount,
    pub credit: LedgerAccount,
    pub amount: Nanos,
}

/// What was posted to accounts of income and of expenses, by pair of accounts.
pub async fn posted_sums(tx: &mut Tx, when: Interval, currency: Currency) -> Result<Vec<PostedSum>> {
    let rows = tx
        .fetch_all(
            "SELECT debited.path, credited.path, CAST(SUM(transfers.amount) AS BIGINT)
             FROM journal_entries JOIN transfers ON transfers.entry_id = journal_entries.id
             JOIN account_names AS debited ON debited.number = transfers.debit
             JOIN account_names AS credited ON credited.number = transfers.credit
             WHERE journal_entries.posted_at >= $1 AND journal_entries.posted_at < $2 AND journal_entries.currency = $3
                 AND (debited.path LIKE 'income:%' OR credited.path LIKE 'income:%' OR debited.path LIKE 'expenses:%')
             GROUP BY debited.path, credited.path ORDER BY debited.path, credited.path LIMIT $4",
            params![when.starts_at, when.ends_at, currency.as_str(), LINES_MAX + 1],
        )
        .await?;
    bounded(rows)?
        .iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(PostedSum { debit: row.parse()?, credit: row.parse()?, amount: row.nanos()? })
        })
        .collect()
}

/// What was bought from suppliers in a month of theirs, by model and kind of token.
pub async fn month_purchases(tx: &mut Tx, month: PeriodKey, currency: Currency) -> Result<Vec<(ModelName, TokenKind, LineState)>> {
    let rows = tx
        .fetch_all(
            "SELECT cost_versions.version, cost_versions.body, cost_lines.kind, cost_lines.quantity, cost_lines.owed
             FROM cost_lines JOIN cost_versions ON cost_versions.version = cost_lines.cost_version
             WHERE cost_lines.period = $1 AND cost_versions.currency = $2
             ORDER BY cost_versions.version, cost_lines.kind LIMIT $3",
            params![month.to_string(), currency.as_str(), LINES_MAX + 1],
        )
        .await?;
    bounded(rows)?
        .iter()
        .map(|row| {
            let mut row = row.reader();
            let version = sublet_core::supplier::CostVersion(row.text()?.into());
            let cost = ReplicaCost::from_canonical(row.text()?, &version)?;
            let kind = row.text()?;
            let known = TokenKind::ALL.into_iter().find(|known| known.as_str() == kind);
            let kind = known.ok_or_else(|| Error::internal("a line of costs has an unknown kind of token"))?;
            let bought = LineState { quantity: Quantity::new(row.int()?)?, charged: row.nanos()? };
            Ok((cost.content().model.clone(), kind, bought))
        })
        .collect()
}

/// What a device did for some time, and for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsedSpan {
    pub kind: DeviceKind,
    pub class: DeviceClass,
    pub lease: Option<UsedLease>,
    pub started_at: Timestamp,
    /// `None` while it lasts.
    pub ended_at: Option<Timestamp>,
}

/// Who had a device, what it was sold as, and where it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsedLease {
    pub organization: OrganizationId,
    pub sku: SkuName,
    pub site: SiteId,
}

/// Up to where spans were read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SpanCursor {
    device: String,
    number: i64,
}

/// The next spans of all devices that meet some time; none after the last.
pub async fn used_spans(tx: &mut Tx, when: Interval, cursor: &mut SpanCursor) -> Result<Vec<UsedSpan>> {
    let rows = tx
        .fetch_all(
            "SELECT device_spans.device_id, device_spans.number, devices.kind, device_spans.class, leases.organization_id, leases.sku,
                 leases.site, device_spans.started_at, device_spans.ended_at
             FROM device_spans JOIN devices ON devices.id = device_spans.device_id
                 LEFT JOIN leases ON leases.id = device_spans.lease_id
             WHERE device_spans.started_at < $2 AND (device_spans.ended_at IS NULL OR device_spans.ended_at > $1)
                 AND (device_spans.device_id > $3 OR (device_spans.device_id = $3 AND device_spans.number > $4))
             ORDER BY device_spans.device_id, device_spans.number LIMIT $5",
            params![when.starts_at, when.ends_at, cursor.device.as_str(), cursor.number, SPANS_PAGE],
        )
        .await?;
    let mut spans = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut row = row.reader();
        *cursor = SpanCursor { device: row.string()?, number: row.int()? };
        let (kind, class) = (row.parse()?, row.parse()?);
        let (organization, sku): (Option<OrganizationId>, Option<SkuName>) = (row.optional_parse()?, row.optional_parse()?);
        let site: Option<SiteId> = row.optional_parse()?;
        let lease = organization.zip(sku).zip(site);
        let lease = lease.map(|((organization, sku), site)| UsedLease { organization, sku, site });
        spans.push(UsedSpan { kind, class, lease, started_at: row.time()?, ended_at: row.optional_time()? });
    }
    Ok(spans)
}
