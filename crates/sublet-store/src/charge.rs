//! Charges and the lines they add up to.

use sublet_core::admission::PriceVersion;
use sublet_core::id::{ChargeId, KeyId, OrganizationId, ProjectId, RerateId};
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Nanos, Result, Scope, Timestamp};
use sublet_money::invoice;
use sublet_money::period::{Interval, PeriodKey};
use sublet_money::rating::{LineKey, LineState};
use sublet_money::sku::{DeviceKind, ModelName, Quantity, QuantityChange, SkuName, TokenKind};
use sublet_money::time_of_use::BandName;

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, RowReader, Value};
use crate::{list_sql, params};

/// One event's part of one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Charge {
    pub id: ChargeId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub key: Option<KeyId>,
    /// A request or a job, or what rated its use anew.
    pub source: String,
    pub sku: SkuName,
    /// Negative where use was rated anew and left the line.
    pub quantity: QuantityChange,
    pub amount: Nanos,
    pub currency: Currency,
    pub price_version: PriceVersion,
    /// The month of the use: the line's.
    pub period: PeriodKey,
    /// The month in whose invoice it is, where its own was closed before it came.
    pub billed_in: Option<PeriodKey>,
    /// `None` outside of all bands of the price.
    pub band: Option<BandName>,
    /// The line before this charge: with it the charge can be computed again.
    pub before: LineState,
    pub occurred_at: Timestamp,
    pub posted_at: Timestamp,
}

pub(crate) fn band(stored: &str) -> Result<Option<BandName>> {
    Some(stored).filter(|name| !name.is_empty()).map(str::parse).transpose()
}

fn band_text(band: Option<&BandName>) -> String {
    band.map_or_else(String::new, ToString::to_string)
}

pub(crate) fn from_row(row: &Row) -> Result<Charge> {
    let mut row = row.reader();
    Ok(Charge {
        id: row.parse()?,
        organization: row.parse()?,
        project: row.parse()?,
        key: row.optional_parse()?,
        source: row.string()?,
        sku: row.parse()?,
        quantity: QuantityChange::new(row.int()?),
        amount: row.nanos()?,
        currency: row.parse()?,
        price_version: PriceVersion(row.text()?.into()),
        period: row.parse()?,
        billed_in: Some(row.string()?).filter(|text| !text.is_empty()).map(|text| text.parse()).transpose()?,
        band: band(row.text()?)?,
        before: LineState { quantity: Quantity::new(row.int()?)?, charged: row.nanos()? },
        occurred_at: row.time()?,
        posted_at: row.time()?,
    })
}

pub async fn insert(tx: &mut Tx, charges: &[Charge]) -> Result<()> {
    fn row(charge: &Charge) -> Vec<Value<'_>> {
        params![
            charge.id.as_str(),
            charge.organization.as_str(),
            charge.project.as_str(),
            charge.key.as_ref().map(KeyId::as_str),
            charge.source.as_str(),
            charge.sku.to_string(),
            charge.quantity.get(),
            charge.amount,
            charge.currency.as_str(),
            charge.price_version.0.to_string(),
            charge.period.to_string(),
            charge.billed_in.map_or_else(String::new, |period| period.to_string()),
            band_text(charge.band.as_ref()),
            charge.before.quantity.get(),
            charge.before.charged,
            charge.occurred_at,
            charge.posted_at
        ]
        .to_vec()
    }
    let rows: Vec<_> = charges.iter().map(row).collect();
    let prefix =
        "INSERT INTO charges (id, organization_id, project_id, key_id, source, sku, quantity, amount, currency, price_version,
             period, billed_in, band, quantity_before, charged_before, occurred_at, posted_at) VALUES ";
    tx.insert_many(prefix, "", &rows).await?;
    Ok(())
}

pub async fn find(tx: &mut Tx, scope: &Scope, id: &ChargeId) -> Result<Option<Charge>> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, project_id, key_id, source, sku, quantity, amount, currency, price_version, period, billed_in, band,
                 quantity_before, charged_before, occurred_at, posted_at FROM charges WHERE id = $1",
            params![id.as_str()],
        )
        .await?;
    let charge = row.as_ref().map(from_row).transpose()?;
    Ok(charge.filter(|charge| crate::project::is_visible(scope, &charge.organization, &charge.project)))
}

/// Charges of one request or job. The caller has checked the source's scope. At most `limit`, oldest first.
pub async fn list_of(tx: &mut Tx, source: &str, limit: i64) -> Result<Vec<Charge>> {
    let rows = tx
        .fetch_all(
            "SELECT id, organization_id, project_id, key_id, source, sku, quantity, amount, currency, price_version, period, billed_in, band,
                 quantity_before, charged_before, occurred_at, posted_at FROM charges WHERE source = $1 ORDER BY id LIMIT $2",
            params![source, limit],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Charges of one request or job that the scope may see.
pub async fn list_of_source(tx: &mut Tx, scope: &Scope, source: &str, page: &PageRequest) -> Result<Page<Charge>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, project_id, key_id, source, sku, quantity, amount, currency, price_version, period, billed_in, band,
             quantity_before, charged_before, occurred_at, posted_at FROM charges
         WHERE source = $1 AND ($2 = '' OR organization_id = $2) AND ($3 = '' OR project_id = $3)",
        "id",
        "4",
        "5"
    );
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let project = scope.project().map_or("", ProjectId::as_str);
    let rows = tx.fetch_all(sql, &[source.into(), organization.into(), project.into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// The sum of a source's charges.
pub async fn total_of(tx: &mut Tx, source: &str) -> Result<Nanos> {
    let row =
        tx.fetch_one("SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM charges WHERE source = $1", params![source]).await?;
    row.reader().nanos()
}

pub async fn list(tx: &mut Tx, scope: &Scope, page: &PageRequest) -> Result<Page<Charge>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, project_id, key_id, source, sku, quantity, amount, currency, price_version, period, billed_in, band,
             quantity_before, charged_before, occurred_at, posted_at FROM charges
         WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2)",
        "id",
        "3",
        "4"
    );
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let project = scope.project().map_or("", ProjectId::as_str);
    let rows = tx.fetch_all(sql, &[organization.into(), project.into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// Where a line stands. A line nobody charged yet is empty.
pub async fn line_state(tx: &mut Tx, key: &LineKey) -> Result<LineState> {
    let row = tx
        .fetch_optional(
            "SELECT quantity, charged FROM charge_lines
             WHERE organization_id = $1 AND project_id = $2 AND period = $3 AND price_version = $4 AND sku = $5 AND band = $6",
            params![
                key.organization.as_str(),
                key.project.as_str(),
                key.period.to_string(),
                key.price_version.0.to_string(),
                key.sku.to_string(),
                band_text(key.band.as_ref())
            ],
        )
        .await?;
    let Some(row) = row else { return Ok(LineState::default()) };
    let mut row = row.reader();
    Ok(LineState { quantity: Quantity::new(row.int()?)?, charged: row.nanos()? })
}

/// Moves lines on, each named once. The caller read them in the same transaction.
pub async fn set_line_states(tx: &mut Tx, lines: &[(&LineKey, LineState)]) -> Result<()> {
    fn row<'l>((key, state): &(&'l LineKey, LineState)) -> Vec<Value<'l>> {
        params![
            key.organization.as_str(),
            key.project.as_str(),
            key.period.to_string(),
            key.price_version.0.to_string(),
            key.sku.to_string(),
            band_text(key.band.as_ref()),
            state.quantity.get(),
            state.charged
        ]
        .to_vec()
    }
    let rows: Vec<_> = lines.iter().map(row).collect();
    let prefix =
        "INSERT INTO charge_lines (organization_id, project_id, period, price_version, sku, band, quantity, charged) VALUES ";
    let suffix = "ON CONFLICT (organization_id, project_id, period, price_version, sku, band)
         DO UPDATE SET quantity = excluded.quantity, charged = excluded.charged";
    tx.insert_many(prefix, suffix, &rows).await?;
    Ok(())
}

/// Most lines of one invoice.
fn lines_max() -> i64 {
    i64::try_from(invoice::LINES_MAX).unwrap_or(i64::MAX)
}

/// All lines of an organization's period.
pub async fn list_lines(tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<Vec<(LineKey, LineState)>> {
    let rows = tx
        .fetch_all(
            "SELECT project_id, period, price_version, sku, band, quantity, charged FROM charge_lines
             WHERE organization_id = $1 AND period = $2 LIMIT $3",
            params![organization.as_str(), period.to_string(), lines_max()],
        )
        .await?;
    rows.iter().map(|row| line(organization, row)).collect()
}

/// Of columns in the order project, period, price version, sku, band.
fn line_key(organization: &OrganizationId, row: &mut RowReader<'_>) -> Result<LineKey> {
    Ok(LineKey {
        organization: organization.clone(),
        project: row.parse()?,
        period: row.parse()?,
        price_version: PriceVersion(row.text()?.into()),
        sku: row.parse()?,
        band: band(row.text()?)?,
    })
}

fn line(organization: &OrganizationId, row: &Row) -> Result<(LineKey, LineState)> {
    let mut row = row.reader();
    let key = line_key(organization, &mut row)?;
    Ok((key, LineState { quantity: Quantity::new(row.int()?)?, charged: row.nanos()? }))
}

/// What the charges of a line that are in one invoice add up to, straight from the charges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinePart {
    pub key: LineKey,
    pub charges: i64,
    pub sum: LineChange,
}

/// What charges do to a line together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LineChange {
    pub quantity: QuantityChange,
    pub charged: Nanos,
}

/// All that is invoiced in a month: its own lines, and the parts of closed months that came late. One more than
/// [`invoice::LINES_MAX`] if there are more.
pub async fn list_parts(tx: &mut Tx, organization: &OrganizationId, month: PeriodKey) -> Result<Vec<LinePart>> {
    let rows = tx
        .fetch_all(
            "SELECT project_id, period, price_version, sku, band, COUNT(*), CAST(SUM(quantity) AS BIGINT), CAST(SUM(amount) AS BIGINT)
             FROM charges WHERE organization_id = $1 AND period = $2 AND billed_in = ''
             GROUP BY project_id, period, price_version, sku, band
             UNION ALL
             SELECT project_id, period, price_version, sku, band, COUNT(*), CAST(SUM(quantity) AS BIGINT), CAST(SUM(amount) AS BIGINT)
             FROM charges WHERE organization_id = $1 AND billed_in = $2 AND billed_in <> ''
             GROUP BY project_id, period, price_version, sku, band
             LIMIT $3",
            params![organization.as_str(), month.to_string(), lines_max() + 1],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            let key = line_key(organization, &mut row)?;
            Ok(LinePart {
                key,
                charges: row.int()?,
                sum: LineChange { quantity: QuantityChange::new(row.int()?), charged: row.nanos()? },
            })
        })
        .collect()
}

/// What the charges of a closed month's line add up to that came late and are in invoices from a month on; all that
/// came late if none is named.
pub async fn sum_late(tx: &mut Tx, key: &LineKey, from: Option<PeriodKey>) -> Result<LineChange> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(quantity), 0) AS BIGINT), CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM charges
             WHERE organization_id = $1 AND period = $2 AND project_id = $3 AND sku = $4 AND price_version = $5 AND band = $6
                 AND billed_in <> '' AND billed_in >= $7",
            params![
                key.organization.as_str(),
                key.period.to_string(),
                key.project.as_str(),
                key.sku.to_string(),
                key.price_version.0.to_string(),
                band_text(key.band.as_ref()),
                from.map_or_else(String::new, |month| month.to_string())
            ],
        )
        .await?;
    let mut row = row.reader();
    Ok(LineChange { quantity: QuantityChange::new(row.int()?), charged: row.nanos()? })
}

/// The first month in which an organization was charged anything.
pub async fn first_period(tx: &mut Tx, organization: &OrganizationId) -> Result<Option<PeriodKey>> {
    let row =
        tx.fetch_one("SELECT MIN(period) FROM charge_lines WHERE organization_id = $1", params![organization.as_str()]).await?;
    row.reader().optional_parse()
}

/// What one event used, and what it was charged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Use {
    pub project: ProjectId,
    /// What was used; of device time by its full name, where a job used it.
    pub used: SkuName,
    /// Nothing where use was only rated anew: it was used at other times.
    pub quantity: QuantityChange,
    pub amount: Nanos,
    pub occurred_at: Timestamp,
}

/// Up to where uses were read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct UseCursor(String);

/// Most uses that are read at once.
const USES_MAX: i64 = 1_000;

/// The next uses of one thing in an organization's period; none after the last.
pub async fn list_uses(
    tx: &mut Tx,
    (organization, period, sku): (&OrganizationId, PeriodKey, &SkuName),
    cursor: &mut UseCursor,
) -> Result<Vec<Use>> {
    let rows = tx
        .fetch_all(
            "SELECT charge.id, charge.source, charge.project_id, charge.quantity, charge.amount, charge.occurred_at,
                 lease.site, lease.isolation
             FROM charges charge LEFT JOIN jobs job ON job.id = charge.source LEFT JOIN leases lease ON lease.id = job.lease_id
             WHERE charge.organization_id = $1 AND charge.period = $2 AND charge.sku = $3 AND charge.id > $4
             ORDER BY charge.id LIMIT $5",
            params![organization.as_str(), period.to_string(), sku.to_string(), cursor.0.as_str(), USES_MAX],
        )
        .await?;
    let mut uses = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut row = row.reader();
        cursor.0 = row.string()?;
        let is_use = row.text()?.parse::<RerateId>().is_err();
        let (project, quantity) = (row.parse()?, QuantityChange::new(row.int()?));
        let quantity = if is_use { quantity } else { QuantityChange::ZERO };
        let (amount, occurred_at) = (row.nanos()?, row.time()?);
        let used = match (row.optional_parse()?, row.optional_parse()?) {
            (Some(site), Some(isolation)) => sku.placed(&site, isolation),
            (None, _) | (_, None) => sku.clone(),
        };
        uses.push(Use { project, used, quantity, amount, occurred_at });
    }
    Ok(uses)
}

/// The projects that used anything in an organization's period; keeping files is no use.
pub async fn used_projects(tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<Vec<ProjectId>> {
    let rows = tx
        .fetch_all(
            "SELECT DISTINCT project_id FROM charge_lines
             WHERE organization_id = $1 AND period = $2 AND sku NOT LIKE 'fee/%'
                 AND sku NOT IN ('project/month', 'storage/files')
             ORDER BY project_id LIMIT $3",
            params![organization.as_str(), period.to_string(), lines_max()],
        )
        .await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}

/// How many requests of a model at a tier each project was charged in an organization's period, whether they had a flat
/// price or not: charged is what used tokens.
pub async fn count_requests(
    tx: &mut Tx,
    (organization, period): (&OrganizationId, PeriodKey),
    (model, tier): (&ModelName, ServiceTier),
) -> Result<Vec<(ProjectId, Quantity)>> {
    let [input, cached_input, output] = TokenKind::ALL.map(|kind| SkuName::Tokens { tier, kind, model: model.clone() }.to_string());
    let rows = tx
        .fetch_all(
            "SELECT project_id, COUNT(DISTINCT source) FROM charges
             WHERE organization_id = $1 AND period = $2 AND sku IN ($3, $4, $5) AND source NOT LIKE 'rer/_%' ESCAPE '/'
             GROUP BY project_id ORDER BY project_id",
            params![organization.as_str(), period.to_string(), input, cached_input, output],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok((row.parse()?, Quantity::new(row.int()?)?))
        })
        .collect()
}

/// Jobs on devices of one kind that began to run, of one project.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartCount {
    pub project: ProjectId,
    pub device: DeviceKind,
    pub count: Quantity,
}

/// How many jobs of an organization began to run within an interval, whether their starts had a price or not.
pub async fn count_starts(tx: &mut Tx, organization: &OrganizationId, within: Interval) -> Result<Vec<StartCount>> {
    let rows = tx
        .fetch_all(
            "SELECT jobs.project_id, leases.sku, COUNT(*) FROM jobs JOIN leases ON leases.id = jobs.lease_id
             WHERE jobs.organization_id = $1 AND jobs.started_at >= $2 AND jobs.started_at < $3
             GROUP BY jobs.project_id, leases.sku ORDER BY jobs.project_id, leases.sku LIMIT $4",
            params![organization.as_str(), within.starts_at, within.ends_at, lines_max()],
        )
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut row = row.reader();
        let (project, sku, count) = (row.parse()?, row.parse::<SkuName>()?, Quantity::new(row.int()?)?);
        if let SkuName::Device { device, .. } = sku {
            found.push(StartCount { project, device, count });
        }
    }
    Ok(found)
}

/// The sum of the charges that are invoiced in a period, straight from the charges: a second way to the invoice's total.
pub async fn period_total(tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<(i64, Nanos)> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM charges
             WHERE organization_id = $1 AND ((period = $2 AND billed_in = '') OR billed_in = $2)",
            params![organization.as_str(), period.to_string()],
        )
        .await?;
    let mut row = row.reader();
    Ok((row.int()?, row.nanos()?))
}

/// What is added up: charges by the instant they occurred, half-open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargeQuery {
    pub scope: Scope,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Charges of one organization, project and sku.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargeSummary {
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub sku: SkuName,
    pub currency: Currency,
    pub charges: i64,
    /// What was used then: what was rated anew was used once.
    pub quantity: i64,
    pub amount: Nanos,
}

/// Most rows of a summary.
pub const SUMMARY_ROWS_MAX: i64 = 10_000;

/// Sums by organization, project and sku.
pub async fn summarize(tx: &mut Tx, query: &ChargeQuery) -> Result<Vec<ChargeSummary>> {
    let organization = query.scope.organization().map_or("", OrganizationId::as_str);
    let project = query.scope.project().map_or("", ProjectId::as_str);
    let rows = tx
        .fetch_all(
            "SELECT organization_id, project_id, sku, currency, COUNT(*),
                 CAST(SUM(CASE WHEN source LIKE 'rer/_%' ESCAPE '/' THEN 0 ELSE quantity END) AS BIGINT), CAST(SUM(amount) AS BIGINT)
             FROM charges WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2)
                 AND occurred_at >= $3 AND occurred_at < $4
             GROUP BY organization_id, project_id, sku, currency ORDER BY organization_id, project_id, sku LIMIT $5",
            params![organization, project, query.from, query.until, SUMMARY_ROWS_MAX],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(ChargeSummary {
                organization: row.parse()?,
                project: row.parse()?,
                sku: row.parse()?,
                currency: row.parse()?,
                charges: row.int()?,
                quantity: row.int()?,
                amount: row.nanos()?,
            })
        })
        .collect()
}

/// How many charges of one source are in a month's invoice, and what they add up to.
pub async fn sum_of_source(
    tx: &mut Tx,
    organization: &OrganizationId,
    (source, period): (&str, PeriodKey),
) -> Result<(i64, Nanos)> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM charges
             WHERE source = $1 AND organization_id = $2 AND ((period = $3 AND billed_in = '') OR billed_in = $3)",
            params![source, organization.as_str(), period.to_string()],
        )
        .await?;
    let mut row = row.reader();
    Ok((row.int()?, row.nanos()?))
}

/// How the charges of a line were counted, straight from the charges.
pub async fn sum_of_line(tx: &mut Tx, key: &LineKey) -> Result<(i64, Nanos)> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM charges
             WHERE organization_id = $1 AND period = $2 AND project_id = $3 AND sku = $4 AND price_version = $5
                 AND band = $6",
            params![
                key.organization.as_str(),
                key.period.to_string(),
                key.project.as_str(),
                key.sku.to_string(),
                key.price_version.0.to_string(),
                band_text(key.band.as_ref())
            ],
        )
        .await?;
    let mut row = row.reader();
    Ok((row.int()?, row.nanos()?))
}

/// How many charges an organization has, and what they add up to.
pub async fn organization_total(tx: &mut Tx, organization: &OrganizationId) -> Result<(i64, Nanos)> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM charges WHERE organization_id = $1",
            params![organization.as_str()],
        )
        .await?;
    let mut row = row.reader();
    Ok((row.int()?, row.nanos()?))
}

/// All lines of an organization, over all periods.
pub async fn list_all_lines(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<(LineKey, LineState)>> {
    let rows = tx
        .fetch_all(
            "SELECT project_id, period, price_version, sku, band, quantity, charged FROM charge_lines
             WHERE organization_id = $1 ORDER BY period, project_id, sku, price_version, band LIMIT $2",
            params![organization.as_str(), lines_max()],
        )
        .await?;
    rows.iter().map(|row| line(organization, row)).collect()
}
