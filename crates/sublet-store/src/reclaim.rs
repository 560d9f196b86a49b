//! Orders by which the owner takes capacity back: what each was decided to be, and how far it is. They are the operator's.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use sublet_capacity::{Need, OrderedDevice, OrderedEnd};
use sublet_core::id::{DeviceId, LeaseId, OrganizationId, ReclaimId, SiteId};
use sublet_core::notice::NoticeClass;
use sublet_core::reclaim::{Promises, ReclaimShape, ReclaimState};
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::Row;
use crate::{Updated, list_sql, params};

/// Most orders that are open at a time.
pub const OPEN_MAX: i64 = 1_000;
/// Most devices of one order.
pub const DEVICES_MAX: i64 = 10_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredReclaim {
    pub id: ReclaimId,
    pub need: Need,
    /// Its devices are held until then, or until it is cancelled.
    pub until: Option<Timestamp>,
    pub state: ReclaimState,
    pub generation: i64,
    pub created_by: String,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// A lease that an order ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredVictim {
    pub lease: LeaseId,
    pub organization: OrganizationId,
    pub units: u32,
    pub notice: NoticeClass,
    pub end: OrderedEnd,
    /// What was foretold to be owed, and what it was in the end.
    pub owed: Nanos,
    pub given: Option<Nanos>,
    pub currency: Currency,
    /// Units times the time that its workload loses.
    pub lost: DurationMs,
    pub checkpoint_at: Option<Timestamp>,
}

/// How the devices of an order are now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DeviceCounts {
    pub held: u32,
    /// Free, or with the owner's teams.
    pub there: u32,
    /// Not healthy: lost or cordoned since.
    pub lost: u32,
}

/// A device that an order holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldDevice {
    pub device: OrderedDevice,
    /// It is there: free, or with the owner's teams.
    pub is_there: bool,
}

fn from_row(row: &Row) -> Result<StoredReclaim> {
    let mut row = row.reader();
    let (id, kind, site) = (row.parse()?, row.parse()?, row.optional_parse::<SiteId>()?);
    let (units, of_each, whole) = (count(row.int()?)?, count(row.int()?)?, row.int()? == 1);
    let shape = match (whole, NonZeroU32::new(of_each)) {
        (true, _) => ReclaimShape::WholeNodes,
        (false, Some(of_each)) => ReclaimShape::PerNode(of_each),
        (false, None) => ReclaimShape::Anywhere,
    };
    let (by, until) = (row.time()?, row.optional_time()?);
    let promises = if row.int()? == 1 { Promises::MayBreak } else { Promises::Kept };
    Ok(StoredReclaim {
        id,
        need: Need { kind, units, site, shape, by, promises },
        until,
        state: row.parse()?,
        generation: row.int()?,
        created_by: row.string()?,
        created_at: row.time()?,
        ended_at: row.optional_time()?,
    })
}

fn count(value: i64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::internal("a number of units is out of range"))
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, kind, site, units, units_per_node, whole_nodes, by_at, until_at, may_break, state, generation, created_by,
                 created_at, ended_at FROM reclaims ",
            $rest
        )
    };
}

pub async fn insert(tx: &mut Tx, new: &StoredReclaim) -> Result<()> {
    let open = tx.fetch_one("SELECT COUNT(*) FROM reclaims WHERE state IN ('placed', 'fulfilled')", &[]).await?.reader().int()?;
    if open >= OPEN_MAX {
        let message = format!("at most {OPEN_MAX} orders are open at a time");
        return Err(Error::new(ErrorCode::Conflict, message).alternative("cancel one that is not needed any more"));
    }
    let (of_each, whole) = match new.need.shape {
        ReclaimShape::Anywhere => (0, 0),
        ReclaimShape::PerNode(of_each) => (i64::from(of_each.get()), 0),
        ReclaimShape::WholeNodes => (0, 1),
    };
    tx.execute(
        "INSERT INTO reclaims (id, kind, site, units, units_per_node, whole_nodes, by_at, until_at, may_break, state, generation,
             created_by, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        params![
            new.id.as_str(),
            new.need.kind.as_str(),
            new.need.site.as_ref().map(SiteId::as_str),
            i64::from(new.need.units),
            of_each,
            whole,
            new.need.by,
            new.until,
            i64::from(new.need.promises == Promises::MayBreak),
            new.state.as_str(),
            new.generation,
            new.created_by.as_str(),
            new.created_at
        ],
    )
    .await?;
    Ok(())
}

pub async fn insert_device(tx: &mut Tx, reclaim: &ReclaimId, device: &OrderedDevice) -> Result<()> {
    tx.execute(
        "INSERT INTO reclaim_devices (reclaim_id, device_id, lease_id, free_at) VALUES ($1, $2, $3, $4)",
        params![reclaim.as_str(), device.device.as_str(), device.lease.as_ref().map(LeaseId::as_str), device.free_at],
    )
    .await?;
    Ok(())
}

pub async fn insert_victim(tx: &mut Tx, reclaim: &ReclaimId, victim: &StoredVictim) -> Result<()> {
    tx.execute(
        "INSERT INTO reclaim_victims (reclaim_id, lease_id, tell_at, deadline, breaks_promise, owed, lost_ms, checkpoint_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        params![
            reclaim.as_str(),
            victim.lease.as_str(),
            victim.end.tell_at,
            victim.end.deadline,
            i64::from(victim.end.breaks_promise),
            victim.owed,
            victim.lost.millis(),
            victim.checkpoint_at
        ],
    )
    .await?;
    Ok(())
}

/// Writes what can change of an order, if it is still of the generation that was read.
pub async fn save(tx: &mut Tx, reclaim: &StoredReclaim) -> Result<Updated> {
    let changed = tx
        .execute(
            "UPDATE reclaims SET state = $3, ended_at = $4, generation = generation + 1 WHERE id = $1 AND generation = $2",
            params![reclaim.id.as_str(), reclaim.generation, reclaim.state.as_str(), reclaim.ended_at],
        )
        .await?;
    if changed == 1 {
        return Ok(Updated::Done);
    }
    let row = tx.fetch_optional("SELECT generation FROM reclaims WHERE id = $1", params![reclaim.id.as_str()]).await?;
    Ok(if row.is_some() { Updated::Stale } else { Updated::NotFound })
}

pub async fn get(tx: &mut Tx, id: &ReclaimId) -> Result<StoredReclaim> {
    let row = tx.fetch_optional(select!("WHERE id = $1"), params![id.as_str()]).await?;
    let row = row.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no reclaim '{id}'")))?;
    from_row(&row)
}

/// A page of orders, possibly in one state.
pub async fn list(tx: &mut Tx, state: Option<ReclaimState>, page: &PageRequest) -> Result<Page<StoredReclaim>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, kind, site, units, units_per_node, whole_nodes, by_at, until_at, may_break, state, generation, created_by,
             created_at, ended_at FROM reclaims WHERE ($1 = '' OR state = $1)",
        "id",
        "2",
        "3"
    );
    let rows = tx.fetch_all(sql, &[state.map_or("", ReclaimState::as_str).into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// All that hold devices.
pub async fn list_open(tx: &mut Tx) -> Result<Vec<StoredReclaim>> {
    let rows = tx.fetch_all(select!("WHERE state IN ('placed', 'fulfilled') ORDER BY id LIMIT $1"), params![OPEN_MAX]).await?;
    rows.iter().map(from_row).collect()
}

/// What an order was decided to hold, with what is there.
pub async fn list_devices(tx: &mut Tx, id: &ReclaimId) -> Result<Vec<HeldDevice>> {
    let rows = tx
        .fetch_all(
            "SELECT devices.id, devices.node_id, devices.site, reclaim_devices.lease_id, free_at,
                 CASE WHEN devices.health = 'healthy' AND (devices.lease_id IS NULL OR leases.holder = 'internal') THEN 1 ELSE 0 END
             FROM reclaim_devices JOIN devices ON devices.id = device_id LEFT JOIN leases ON leases.id = devices.lease_id
             WHERE reclaim_id = $1 ORDER BY devices.node_id, devices.id LIMIT $2",
            params![id.as_str(), DEVICES_MAX],
        )
        .await?;
    let held = |row: &Row| {
        let mut row = row.reader();
        let (device, node, site) = (row.parse()?, row.parse()?, row.parse()?);
        let device = OrderedDevice { device, node, site, lease: row.optional_parse()?, free_at: row.time()? };
        Ok(HeldDevice { device, is_there: row.int()? == 1 })
    };
    rows.iter().map(held).collect()
}

/// How the devices of an order are.
pub async fn count_devices(tx: &mut Tx, id: &ReclaimId) -> Result<DeviceCounts> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(CASE WHEN devices.health = 'healthy' AND (devices.lease_id IS NULL OR leases.holder = 'internal')
                     THEN 1 ELSE 0 END), 0) AS BIGINT),
                 CAST(COALESCE(SUM(CASE WHEN devices.health <> 'healthy' THEN 1 ELSE 0 END), 0) AS BIGINT)
             FROM reclaim_devices JOIN devices ON devices.id = device_id LEFT JOIN leases ON leases.id = devices.lease_id
             WHERE reclaim_id = $1",
            params![id.as_str()],
        )
        .await?;
    let mut row = row.reader();
    Ok(DeviceCounts { held: count(row.int()?)?, there: count(row.int()?)?, lost: count(row.int()?)? })
}

/// How many leases an order ends, and what was foretold to be owed, by currency.
pub async fn sum_victims(tx: &mut Tx, id: &ReclaimId) -> Result<(u32, BTreeMap<Currency, Nanos>)> {
    let rows = tx
        .fetch_all(
            "SELECT leases.currency, COUNT(*), CAST(SUM(owed) AS BIGINT) FROM reclaim_victims JOIN leases ON leases.id = lease_id
             WHERE reclaim_id = $1 GROUP BY leases.currency ORDER BY leases.currency",
            params![id.as_str()],
        )
        .await?;
    let (mut victims, mut owed) = (0_u32, BTreeMap::new());
    for row in &rows {
        let mut row = row.reader();
        let currency = row.parse()?;
        victims = victims.saturating_add(count(row.int()?)?);
        let sum = row.nanos()?;
        if !sum.is_zero() {
            owed.insert(currency, sum);
        }
    }
    Ok((victims, owed))
}

/// The leases that an order ends, with what they were given if they were told while it was open.
pub async fn list_victims(tx: &mut Tx, id: &ReclaimId) -> Result<Vec<StoredVictim>> {
    let rows = tx
        .fetch_all(
            "SELECT leases.id, leases.organization_id, leases.units, leases.notice, tell_at, reclaim_victims.deadline, breaks_promise,
                 owed, compensations.amount, leases.currency, lost_ms, checkpoint_at
             FROM reclaim_victims JOIN reclaims ON reclaims.id = reclaim_id JOIN leases ON leases.id = lease_id
             LEFT JOIN compensations ON compensations.subject = lease_id AND compensations.kind = 'reclaim' AND EXISTS (
                 SELECT 1 FROM lease_notices
                 WHERE lease_notices.lease_id = reclaim_victims.lease_id AND reason = 'reclaimed' AND told_at >= reclaims.created_at
                     AND (reclaims.ended_at IS NULL OR told_at <= reclaims.ended_at))
             WHERE reclaim_id = $1 ORDER BY leases.id LIMIT $2",
            params![id.as_str(), DEVICES_MAX],
        )
        .await?;
    let victim = |row: &Row| {
        let mut row = row.reader();
        Ok(StoredVictim {
            lease: row.parse()?,
            organization: row.parse()?,
            units: count(row.int()?)?,
            notice: row.parse()?,
            end: OrderedEnd { tell_at: row.time()?, deadline: row.time()?, breaks_promise: row.int()? == 1 },
            owed: row.nanos()?,
            given: row.optional_int()?.map(Nanos::new),
            currency: row.parse()?,
            lost: DurationMs::from_millis(row.int()?),
            checkpoint_at: row.optional_time()?,
        })
    };
    rows.iter().map(victim).collect()
}

/// Devices that open orders hold, with when the last of them ends by itself, if it does.
pub async fn list_held_until(tx: &mut Tx) -> Result<BTreeMap<DeviceId, Option<Timestamp>>> {
    let rows = tx
        .fetch_all(
            "SELECT device_id, until_at FROM reclaim_devices JOIN reclaims ON reclaims.id = reclaim_id
             WHERE state IN ('placed', 'fulfilled') LIMIT $1",
            params![crate::device::DEVICES_MAX],
        )
        .await?;
    let mut held: BTreeMap<DeviceId, Option<Timestamp>> = BTreeMap::new();
    for row in &rows {
        let mut row = row.reader();
        let (device, until) = (row.parse()?, row.optional_time()?);
        let known = held.entry(device).or_insert(until);
        *known = known.zip(until).map(|(one, other)| one.max(other));
    }
    Ok(held)
}

/// Devices that open orders hold.
pub async fn list_held(tx: &mut Tx) -> Result<BTreeSet<DeviceId>> {
    let rows = tx
        .fetch_all(
            "SELECT device_id FROM reclaim_devices JOIN reclaims ON reclaims.id = reclaim_id
             WHERE state IN ('placed', 'fulfilled') LIMIT $1",
            params![crate::device::DEVICES_MAX],
        )
        .await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}

// Nobody is told for an order that waits for a device which is lost.
macro_rules! ordered_ends {
    ($rest:literal) => {
        concat!(
            "SELECT lease_id, tell_at, reclaim_victims.deadline, breaks_promise
             FROM reclaim_victims JOIN reclaims ON reclaims.id = reclaim_id JOIN leases ON leases.id = lease_id
             WHERE reclaims.state IN ('placed', 'fulfilled') AND (until_at IS NULL OR until_at > $1) AND leases.state <> 'ended'
                 AND (reclaims.state = 'fulfilled' OR NOT EXISTS (
                     SELECT 1 FROM reclaim_devices JOIN devices ON devices.id = device_id
                     WHERE reclaim_devices.reclaim_id = reclaims.id AND devices.health = 'lost')) ",
            $rest
        )
    };
}

fn ordered_end(row: &Row) -> Result<(LeaseId, OrderedEnd)> {
    let mut row = row.reader();
    let lease = row.parse()?;
    Ok((lease, OrderedEnd { tell_at: row.time()?, deadline: row.time()?, breaks_promise: row.int()? == 1 }))
}

/// The ends that orders have settled on which are not over at an instant, of leases that have not ended.
pub async fn list_ordered_ends(tx: &mut Tx, now: Timestamp) -> Result<BTreeMap<LeaseId, OrderedEnd>> {
    let sql = ordered_ends!("ORDER BY reclaim_victims.deadline DESC, breaks_promise LIMIT $2");
    let rows = tx.fetch_all(sql, params![now, crate::lease::OPEN_LEASES_MAX]).await?;
    rows.iter().map(ordered_end).collect()
}

/// As [`list_ordered_ends`], of one lease.
pub async fn ordered_end_of(tx: &mut Tx, lease: &LeaseId, now: Timestamp) -> Result<Option<OrderedEnd>> {
    let sql = ordered_ends!("AND lease_id = $2 ORDER BY reclaim_victims.deadline, breaks_promise DESC LIMIT 1");
    let row = tx.fetch_optional(sql, params![now, lease.as_str()]).await?;
    Ok(row.as_ref().map(ordered_end).transpose()?.map(|(_, end)| end))
}

/// A lease's workload has saved its work. False if it has said so of a later instant. The caller has checked whose it is.
pub async fn set_checkpoint(tx: &mut Tx, lease: &LeaseId, at: Timestamp) -> Result<bool> {
    let changed = tx
        .execute(
            "INSERT INTO lease_checkpoints (lease_id, checkpoint_at) VALUES ($1, $2)
             ON CONFLICT (lease_id) DO UPDATE SET checkpoint_at = excluded.checkpoint_at
             WHERE lease_checkpoints.checkpoint_at < excluded.checkpoint_at",
            params![lease.as_str(), at],
        )
        .await?;
    Ok(changed == 1)
}

/// The last checkpoints of all leases that have not ended.
pub async fn list_checkpoints(tx: &mut Tx) -> Result<BTreeMap<LeaseId, Timestamp>> {
    let rows = tx
        .fetch_all(
            "SELECT lease_id, checkpoint_at FROM lease_checkpoints JOIN leases ON leases.id = lease_id
             WHERE leases.state IN ('pending', 'active', 'ending') LIMIT $1",
            params![crate::lease::OPEN_LEASES_MAX],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok((row.parse()?, row.time()?))
        })
        .collect()
}
