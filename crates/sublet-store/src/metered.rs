//! What was metered, as it was metered: the records of requests, the intervals of device time, the starts of jobs, the hours of storage and the
//! downloads that charges were made from. What was charged for them is not read.

use std::collections::{BTreeMap, BTreeSet};

use sublet_core::admission::PriceVersion;
use sublet_core::id::{AttemptId, OrganizationId, ProjectId};
use sublet_core::usage::UsageRecord;
use sublet_core::{DurationMs, Nanos, Result, Timestamp};
use sublet_money::period::{Interval, PeriodKey};
use sublet_money::sku::{DeviceKind, SkuName};

use crate::database::Tx;
use crate::download::{self, Download};
use crate::params;
use crate::row::Value;
use crate::storage::{self, StoragePart};

/// Most sources that are read at once.
const SOURCES_MAX: i64 = 500;

/// Up to where a month was read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MeteredCursor(Option<(Timestamp, String)>);

/// Something metered that was charged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Metered {
    Request(Box<UsageRecord>),
    DeviceTime(DeviceTime),
    Start(JobStart),
    Storage(StoragePart),
    Download(Download),
}

/// A stretch of time on all devices of a lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceTime {
    pub project: ProjectId,
    /// That of its price.
    pub sku: SkuName,
    /// The full name.
    pub placed: SkuName,
    pub price_version: PriceVersion,
    pub units: u32,
    /// The most that an hour of one device may cost.
    pub max_price: Option<Nanos>,
    pub interval: Interval,
}

impl DeviceTime {
    pub fn span(&self) -> DurationMs {
        self.interval.ends_at.since(self.interval.starts_at)
    }
}

/// A job that began to run, however often it was tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobStart {
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub price_version: PriceVersion,
    pub device: DeviceKind,
    pub at: Timestamp,
}

/// The next that was metered of a month's use within an interval; none after the last.
pub async fn list(
    tx: &mut Tx,
    organization: &OrganizationId,
    (period, within): (PeriodKey, Interval),
    cursor: &mut MeteredCursor,
) -> Result<Vec<Metered>> {
    loop {
        let (from, behind) = cursor.0.clone().unwrap_or((within.starts_at, String::new()));
        let rows = tx
            .fetch_all(
                "SELECT DISTINCT occurred_at, source FROM charges
                 WHERE organization_id = $1 AND period = $2 AND occurred_at >= $3 AND occurred_at < $4
                     AND (occurred_at > $3 OR source > $5) ORDER BY occurred_at, source LIMIT $6",
                params![organization.as_str(), period.to_string(), from, within.ends_at, behind.as_str(), SOURCES_MAX],
            )
            .await?;
        let (mut requests, mut jobs) = (BTreeSet::new(), BTreeSet::new());
        let (mut hours, mut downloads) = (BTreeSet::new(), BTreeSet::new());
        for row in &rows {
            let mut row = row.reader();
            let (at, source) = (row.time()?, row.string()?);
            cursor.0 = Some((at, source.clone()));
            if source.starts_with("req_") {
                requests.insert((source, at));
            } else if source.starts_with("job_") {
                jobs.insert((source, at));
            } else if source.starts_with("hour_") {
                hours.insert((source, at));
            } else if source.starts_with("dl_") {
                downloads.insert(source);
            }
        }
        let mut found = list_requests(tx, organization, &requests).await?;
        found.extend(list_device_time(tx, organization, &jobs).await?);
        found.extend(list_starts(tx, organization, &jobs).await?);
        found.extend(list_storage(tx, organization, &hours).await?);
        found.extend(list_downloads(tx, organization, &downloads).await?);
        // A page may be all of what was only rated anew.
        if rows.is_empty() || !found.is_empty() {
            return Ok(found);
        }
    }
}

/// By request and instant of admission.
async fn list_requests(tx: &mut Tx, organization: &OrganizationId, wanted: &BTreeSet<(String, Timestamp)>) -> Result<Vec<Metered>> {
    let names: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    let names: Vec<Value<'_>> = names.into_iter().map(Into::into).collect();
    let rows = tx.fetch_listed("SELECT body FROM usage_events WHERE state = 'settled' AND request_id IN ", &names).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let record: UsageRecord = row.reader().json()?;
        if record.organization == *organization && wanted.contains(&(record.request.to_string(), record.admitted_at)) {
            found.push(Metered::Request(Box::new(record)));
        }
    }
    Ok(found)
}

/// By job and beginning. Each device of a lease has the same interval; what was not paid for was not charged.
async fn list_device_time(
    tx: &mut Tx,
    organization: &OrganizationId,
    wanted: &BTreeSet<(String, Timestamp)>,
) -> Result<Vec<Metered>> {
    let names: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    let names: Vec<Value<'_>> = names.into_iter().map(Into::into).collect();
    let prefix = "SELECT attempts.job_id, attempts.id, leases.organization_id, leases.project_id, leases.sku, leases.price_version,
             leases.site, leases.isolation, leases.units, leases.max_price, attempt_intervals.started_at, attempt_intervals.ended_at
         FROM attempts JOIN attempt_intervals ON attempt_intervals.attempt_id = attempts.id
         JOIN leases ON leases.id = attempts.lease_id
         WHERE attempt_intervals.close_reason <> 'unpaid' AND attempts.job_id IN ";
    let rows = tx.fetch_listed(prefix, &names).await?;
    let mut seen: BTreeSet<(AttemptId, Timestamp)> = BTreeSet::new();
    let mut found = Vec::new();
    for row in &rows {
        let mut row = row.reader();
        let (job, attempt, owner): (String, AttemptId, OrganizationId) = (row.string()?, row.parse()?, row.parse()?);
        let (project, sku, price_version) = (row.parse()?, row.parse::<SkuName>()?, PriceVersion(row.text()?.into()));
        let placed = sku.placed(&row.parse()?, row.parse()?);
        let units = u32::try_from(row.int()?).unwrap_or(1).max(1);
        let max_price = row.optional_int()?.map(Nanos::new);
        let interval = Interval { starts_at: row.time()?, ends_at: row.time()? };
        let is_wanted = owner == *organization && wanted.contains(&(job, interval.starts_at));
        if is_wanted && seen.insert((attempt, interval.starts_at)) {
            found.push(Metered::DeviceTime(DeviceTime { project, sku, placed, price_version, units, max_price, interval }));
        }
    }
    Ok(found)
}

/// By job and its first start.
async fn list_starts(tx: &mut Tx, organization: &OrganizationId, wanted: &BTreeSet<(String, Timestamp)>) -> Result<Vec<Metered>> {
    let names: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    let names: Vec<Value<'_>> = names.into_iter().map(Into::into).collect();
    let prefix =
        "SELECT attempts.job_id, attempts.started_at, leases.organization_id, leases.project_id, leases.sku, leases.price_version
         FROM attempts JOIN leases ON leases.id = attempts.lease_id
         WHERE attempts.started_at IS NOT NULL AND attempts.job_id IN ";
    let rows = tx.fetch_listed(prefix, &names).await?;
    let mut first: BTreeMap<String, JobStart> = BTreeMap::new();
    for row in &rows {
        let mut row = row.reader();
        let (job, at, owner) = (row.string()?, row.time()?, row.parse()?);
        let (project, sku, price_version) = (row.parse()?, row.parse::<SkuName>()?, PriceVersion(row.text()?.into()));
        let SkuName::Device { device, .. } = sku else { continue };
        let start = JobStart { organization: owner, project, price_version, device, at };
        match first.get_mut(&job) {
            Some(known) if known.at <= at => {}
            Some(known) => *known = start,
            None => drop(first.insert(job, start)),
        }
    }
    let is_wanted =
        |(job, start): &(String, JobStart)| start.organization == *organization && wanted.contains(&(job.clone(), start.at));
    Ok(first.into_iter().filter(is_wanted).map(|(_, start)| Metered::Start(start)).collect())
}

/// By hour and beginning of the part.
async fn list_storage(tx: &mut Tx, organization: &OrganizationId, wanted: &BTreeSet<(String, Timestamp)>) -> Result<Vec<Metered>> {
    let names: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let mut parts = storage::parts_of(tx, &names).await?;
    parts.retain(|part| part.organization == *organization && wanted.contains(&(part.id.to_string(), part.starts_at)));
    Ok(parts.into_iter().map(Metered::Storage).collect())
}

async fn list_downloads(tx: &mut Tx, organization: &OrganizationId, wanted: &BTreeSet<String>) -> Result<Vec<Metered>> {
    let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let mut found = download::all_of(tx, &names).await?;
    found.retain(|download| download.organization == *organization);
    Ok(found.into_iter().map(Metered::Download).collect())
}
