//! Leases.

use std::collections::BTreeMap;

use sublet_core::admission::PriceVersion;
use sublet_core::id::{DeviceId, KeyId, LeaseId, NodeId, OrganizationId, ProjectId, QuoteId, SiteId};
use sublet_core::lease::{Holder, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::sku::SkuName;

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, RowReader, Value, to_json};
use crate::{Updated, params};

/// Most leases that have not ended.
pub const OPEN_LEASES_MAX: i64 = 50_000;

/// Why a hold cannot grow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HoldBound {
    /// It can, as far as is known.
    Open,
    /// The account or a limit refused; the text names it.
    Budget { refusal: String },
    /// It reached the maximum cost of the lease.
    MaximumCost,
}

impl HoldBound {
    fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Open => ("open", ""),
            Self::Budget { refusal } => ("budget", refusal),
            Self::MaximumCost => ("maximum_cost", ""),
        }
    }
    fn restore(name: &str, refusal: String) -> Result<Self> {
        match name {
            "open" => Ok(Self::Open),
            "budget" => Ok(Self::Budget { refusal }),
            "maximum_cost" => Ok(Self::MaximumCost),
            other => Err(Error::internal(format!("'{other}' is not a bound of a hold"))),
        }
    }
}

/// A right to use capacity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    pub id: LeaseId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub quote: QuoteId,
    pub key: Option<KeyId>,
    pub holder: Holder,
    pub sku: SkuName,
    pub units: u32,
    pub notice: NoticeClass,
    pub site: SiteId,
    pub node: NodeId,
    pub isolation: IsolationLevel,
    /// What it has, had, or is promised.
    pub devices: Vec<DeviceId>,
    pub price_version: PriceVersion,
    /// Per device and hour.
    pub price: Nanos,
    pub currency: Currency,
    pub max_cost: Option<Nanos>,
    /// It ends before an hour of a device costs more.
    pub max_price: Option<Nanos>,
    /// Charged so far.
    pub cost: Nanos,
    pub starts_at: Timestamp,
    pub ends_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub state: LeaseState,
    pub unused_since: Option<Timestamp>,
    /// Its job ended and it was made for that job alone.
    pub job_over: bool,
    pub hold_bound: HoldBound,
    pub generation: i64,
    pub created_at: Timestamp,
    pub metadata: BTreeMap<String, String>,
}

/// The columns of the list; every query of this file reads them in this order.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, organization_id, project_id, quote_id, key_id, holder, sku, units, notice, site, node_id, isolation, devices,
                 price_version, price, currency, max_cost, cost, starts_at, ends_at, ended_at, state, reason, deadline, unused_since,
                 job_over, hold_bound, hold_refusal, generation, created_at, metadata, max_price FROM leases ",
            $rest
        )
    };
}

fn from_row(row: &Row) -> Result<Lease> {
    let mut row = row.reader();
    Ok(Lease {
        id: row.parse()?,
        organization: row.parse()?,
        project: row.parse()?,
        quote: row.parse()?,
        key: row.optional_parse()?,
        holder: row.parse()?,
        sku: row.parse()?,
        units: u32::try_from(row.int()?).map_err(|_| Error::internal("a lease's units are out of range"))?,
        notice: row.parse()?,
        site: row.parse()?,
        node: row.parse()?,
        isolation: row.parse()?,
        devices: row.json()?,
        price_version: PriceVersion(row.text()?.into()),
        price: row.nanos()?,
        currency: row.parse()?,
        max_cost: row.optional_int()?.map(Nanos::new),
        cost: row.nanos()?,
        starts_at: row.time()?,
        ends_at: row.optional_time()?,
        ended_at: row.optional_time()?,
        state: state(&mut row)?,
        unused_since: row.optional_time()?,
        job_over: row.int()? == 1,
        hold_bound: hold_bound(&mut row)?,
        generation: row.int()?,
        created_at: row.time()?,
        metadata: row.json()?,
        max_price: row.optional_int()?.map(Nanos::new),
    })
}

fn state(row: &mut RowReader<'_>) -> Result<LeaseState> {
    let (name, reason, deadline) = (row.string()?, row.string()?, row.optional_time()?);
    match (name.as_str(), deadline) {
        ("pending", _) => Ok(LeaseState::Pending),
        ("active", _) => Ok(LeaseState::Active),
        ("ending", Some(deadline)) => Ok(LeaseState::Ending { reason: reason.parse()?, deadline }),
        ("ended", _) => Ok(LeaseState::Ended { reason: reason.parse()? }),
        (other, _) => Err(Error::internal(format!("'{other}' is not a state of a lease"))),
    }
}

fn hold_bound(row: &mut RowReader<'_>) -> Result<HoldBound> {
    let (name, refusal) = (row.string()?, row.string()?);
    HoldBound::restore(&name, refusal)
}

pub async fn insert(tx: &mut Tx, lease: &Lease) -> Result<()> {
    tx.execute(
        "INSERT INTO leases (id, organization_id, project_id, quote_id, key_id, holder, sku, units, notice, site, node_id, isolation,
             devices, price_version, price, currency, max_cost, cost, starts_at, state, reason, job_over, hold_bound, hold_refusal,
             generation, created_at, metadata, max_price)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, '', 0, 'open', '',
             0, $21, $22, $23)",
        params![
            lease.id.as_str(),
            lease.organization.as_str(),
            lease.project.as_str(),
            lease.quote.as_str(),
            lease.key.as_ref().map(KeyId::as_str),
            lease.holder.as_str(),
            lease.sku.to_string(),
            i64::from(lease.units),
            lease.notice.as_str(),
            lease.site.as_str(),
            lease.node.as_str(),
            lease.isolation.as_str(),
            to_json(&lease.devices)?,
            lease.price_version.0.to_string(),
            lease.price,
            lease.currency.as_str(),
            lease.max_cost.map(Nanos::get),
            lease.cost,
            lease.starts_at,
            lease.state.as_str(),
            lease.created_at,
            to_json(&lease.metadata)?,
            lease.max_price.map(Nanos::get)
        ],
    )
    .await?;
    // The row begins at generation 0; saving it writes the rest and makes it 1.
    match save(tx, &Lease { generation: 0, ..lease.clone() }).await? {
        Updated::Done => Ok(()),
        Updated::Stale | Updated::NotFound => Err(Error::internal(format!("lease {} was not written", lease.id))),
    }
}

/// How far leases are: their numbers of changes. The caller has checked its scope.
pub async fn generations_of(tx: &mut Tx, ids: &[LeaseId]) -> Result<Vec<(LeaseId, i64)>> {
    let ids: Vec<Value<'_>> = ids.iter().map(|id| Value::from(id.as_str())).collect();
    let mut found = Vec::with_capacity(ids.len());
    tx.each_listed("SELECT id, generation FROM leases WHERE id IN ", &ids, |mut row| {
        found.push((row.parse()?, row.int()?));
        Ok(())
    })
    .await?;
    Ok(found)
}

/// Writes what can change of a lease, if it is still of the generation that was read.
pub async fn save(tx: &mut Tx, lease: &Lease) -> Result<Updated> {
    let (bound, refusal) = lease.hold_bound.parts();
    let changed = tx
        .execute(
            "UPDATE leases SET state = $3, reason = $4, deadline = $5, devices = $6, starts_at = $7, ends_at = $8, ended_at = $9,
                 unused_since = $10, job_over = $11, hold_bound = $12, hold_refusal = $13, generation = generation + 1
             WHERE id = $1 AND generation = $2",
            params![
                lease.id.as_str(),
                lease.generation,
                lease.state.as_str(),
                lease.state.reason().map_or("", sublet_core::lease::EndReason::as_str),
                lease.state.deadline(),
                to_json(&lease.devices)?,
                lease.starts_at,
                lease.ends_at,
                lease.ended_at,
                lease.unused_since,
                i64::from(lease.job_over),
                bound,
                refusal
            ],
        )
        .await?;
    if changed == 1 {
        return Ok(Updated::Done);
    }
    let row = tx.fetch_optional("SELECT generation FROM leases WHERE id = $1", params![lease.id.as_str()]).await?;
    Ok(if row.is_some() { Updated::Stale } else { Updated::NotFound })
}

/// Adds a charge to what the lease cost so far.
pub async fn add_cost(tx: &mut Tx, id: &LeaseId, amount: Nanos) -> Result<()> {
    tx.execute("UPDATE leases SET cost = cost + $2 WHERE id = $1", params![id.as_str(), amount]).await?;
    Ok(())
}

/// The lease, if the scope may see it.
pub async fn find(tx: &mut Tx, scope: &Scope, id: &LeaseId) -> Result<Option<Lease>> {
    let row = tx.fetch_optional(select!("WHERE id = $1"), params![id.as_str()]).await?;
    let lease = row.as_ref().map(from_row).transpose()?;
    Ok(lease.filter(|lease| crate::project::is_visible(scope, &lease.organization, &lease.project)))
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &LeaseId) -> Result<Lease> {
    find(tx, scope, id).await?.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no lease '{id}'")))
}

/// A page of leases, possibly those in either of two states.
pub async fn list(tx: &mut Tx, scope: &Scope, states: Option<[&'static str; 2]>, page: &PageRequest) -> Result<Page<Lease>> {
    let (key, limit) = page.keyset();
    let sql = page.pick(
        select!(
            "WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2) AND ($3 = '' OR state IN ($3, $4))
             AND id > $5 ORDER BY id ASC LIMIT $6"
        ),
        select!(
            "WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2) AND ($3 = '' OR state IN ($3, $4))
             AND id < $5 ORDER BY id DESC LIMIT $6"
        ),
    );
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let project = scope.project().map_or("", ProjectId::as_str);
    let [one, other] = states.unwrap_or_default().map(Into::into);
    let rows = tx.fetch_all(sql, &[organization.into(), project.into(), one, other, key, limit]).await?;
    page.page(&rows, from_row)
}

/// All leases that have not ended, over all tenants: what a plan is made from.
pub async fn list_open(tx: &mut Tx) -> Result<Vec<Lease>> {
    let rows = tx
        .fetch_all(select!("WHERE state IN ('pending', 'active', 'ending') ORDER BY id LIMIT $1"), params![OPEN_LEASES_MAX])
        .await?;
    rows.iter().map(from_row).collect()
}
