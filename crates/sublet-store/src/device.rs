//! Machines, their devices, and what each device did at every instant.
//!
//! A device is leased by one conditional update, so it is never leased twice. Its spans are
//! contiguous: the end of one is the beginning of the next.

use std::collections::BTreeMap;

use sublet_core::device::{DeviceClass, DeviceHealth, DeviceKind};
use sublet_core::id::{DeviceId, LeaseId, NodeId, SiteId};
use sublet_core::runner::Isolation;
use sublet_core::{Bytes, Error, ErrorCode, Result, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, to_json};
use crate::{list_sql, params};

/// Most devices that one plan looks at.
pub const DEVICES_MAX: i64 = 100_000;

/// Most machines that one plan looks at.
pub const NODES_MAX: i64 = 20_000;

/// A machine with what runs workloads there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub id: NodeId,
    /// Unique: how the machine is found again after a restart.
    pub name: String,
    pub runner: String,
    pub site: SiteId,
    /// What a workload would get now.
    pub isolation: Isolation,
    pub created_at: Timestamp,
}

/// One accelerator or CPU slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    pub id: DeviceId,
    pub node: NodeId,
    pub site: SiteId,
    pub name: String,
    pub kind: DeviceKind,
    pub uuid: String,
    pub memory: Bytes,
    pub health: DeviceHealth,
    /// Kept out of sale by the operator, also while it is lost.
    pub cordoned: bool,
    pub lease: Option<LeaseId>,
    pub promised_to: Option<LeaseId>,
    pub generation: i64,
    pub created_at: Timestamp,
}

fn node_from_row(row: &Row) -> Result<Node> {
    let mut row = row.reader();
    Ok(Node {
        id: row.parse()?,
        name: row.string()?,
        runner: row.string()?,
        site: row.parse()?,
        isolation: row.json()?,
        created_at: row.time()?,
    })
}

fn from_row(row: &Row) -> Result<Device> {
    let mut row = row.reader();
    Ok(Device {
        id: row.parse()?,
        node: row.parse()?,
        site: row.parse()?,
        name: row.string()?,
        kind: row.parse()?,
        uuid: row.string()?,
        memory: Bytes::new(row.int()?),
        health: row.parse()?,
        cordoned: row.int()? != 0,
        lease: row.optional_parse()?,
        promised_to: row.optional_parse()?,
        generation: row.int()?,
        created_at: row.time()?,
    })
}

/// Takes note of a machine and returns it as known: the first id given to a name stays, and so does its runner, which says
/// its site and isolation.
pub async fn register_node(tx: &mut Tx, node: &Node) -> Result<Node> {
    let row = tx
        .fetch_one(
            "INSERT INTO nodes (id, name, runner, site, isolation, created_at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (name) DO UPDATE SET isolation = CASE WHEN nodes.runner = excluded.runner THEN excluded.isolation ELSE nodes.isolation END,
                 site = CASE WHEN nodes.runner = excluded.runner THEN excluded.site ELSE nodes.site END
             RETURNING id, name, runner, site, isolation, created_at",
            params![
                node.id.as_str(),
                node.name.as_str(),
                node.runner.as_str(),
                node.site.as_str(),
                to_json(&node.isolation)?,
                node.created_at
            ],
        )
        .await?;
    node_from_row(&row)
}

/// The machine of a name, if one is known.
pub async fn node_named(tx: &mut Tx, name: &str) -> Result<Option<Node>> {
    let row =
        tx.fetch_optional("SELECT id, name, runner, site, isolation, created_at FROM nodes WHERE name = $1", params![name]).await?;
    row.as_ref().map(node_from_row).transpose()
}

/// The machine of a runner, under whatever name it was known.
pub async fn rename_node_of(tx: &mut Tx, runner: &str, name: &str) -> Result<()> {
    tx.execute(
        "UPDATE nodes SET name = $2 WHERE runner = $1 AND name <> $2 AND NOT EXISTS (SELECT 1 FROM nodes AS other WHERE other.name = $2)",
        params![runner, name],
    )
    .await?;
    Ok(())
}

/// All machines: the fleet is the owner's, not a tenant's.
pub async fn list_nodes(tx: &mut Tx, page: &PageRequest) -> Result<Page<Node>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, name, runner, site, isolation, created_at FROM nodes WHERE ($1 = '' OR id <> $1)",
        "id",
        "2",
        "3"
    );
    let rows = tx.fetch_all(sql, &["".into(), key, limit]).await?;
    page.page(&rows, node_from_row)
}

/// All machines, in order, at most [`NODES_MAX`].
pub async fn list_all_nodes(tx: &mut Tx) -> Result<Vec<Node>> {
    let rows = tx
        .fetch_all("SELECT id, name, runner, site, isolation, created_at FROM nodes ORDER BY id LIMIT $1", params![NODES_MAX])
        .await?;
    rows.iter().map(node_from_row).collect()
}

/// The machine of this id.
pub async fn get_node(tx: &mut Tx, id: &NodeId) -> Result<Node> {
    let row = tx
        .fetch_optional("SELECT id, name, runner, site, isolation, created_at FROM nodes WHERE id = $1", params![id.as_str()])
        .await?;
    let row = row.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no node '{id}'")))?;
    node_from_row(&row)
}

/// Devices of a node, for counting.
pub async fn count_of_node(tx: &mut Tx, node: &NodeId) -> Result<i64> {
    let row = tx.fetch_one("SELECT COUNT(*) FROM devices WHERE node_id = $1", params![node.as_str()]).await?;
    row.reader().int()
}

pub async fn insert(tx: &mut Tx, device: &Device) -> Result<()> {
    tx.execute(
        "INSERT INTO devices (id, node_id, site, name, kind, uuid, memory, health, cordoned, generation, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        params![
            device.id.as_str(),
            device.node.as_str(),
            device.site.as_str(),
            device.name.as_str(),
            device.kind.as_str(),
            device.uuid.as_str(),
            device.memory.get(),
            device.health.as_str(),
            i64::from(device.cordoned),
            device.generation,
            device.created_at
        ],
    )
    .await?;
    Ok(())
}

/// What may change of a known device: its name, its memory, its health.
pub async fn update(tx: &mut Tx, device: &Device) -> Result<()> {
    tx.execute(
        "UPDATE devices SET name = $2, memory = $3, health = $4, site = $5, cordoned = $6, generation = generation + 1 WHERE id = $1",
        params![
            device.id.as_str(),
            device.name.as_str(),
            device.memory.get(),
            device.health.as_str(),
            device.site.as_str(),
            i64::from(device.cordoned)
        ],
    )
    .await?;
    Ok(())
}

/// The whole fleet, in order, at most [`DEVICES_MAX`].
pub async fn list_all(tx: &mut Tx) -> Result<Vec<Device>> {
    let rows = tx
        .fetch_all(
            "SELECT id, node_id, site, name, kind, uuid, memory, health, cordoned, lease_id, promised_to, generation, created_at
             FROM devices ORDER BY id LIMIT $1",
            params![DEVICES_MAX],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// The memory of the smallest device of each kind.
pub async fn memory_by_kind(tx: &mut Tx) -> Result<BTreeMap<DeviceKind, Bytes>> {
    let rows =
        tx.fetch_all("SELECT kind, MIN(memory) FROM devices GROUP BY kind ORDER BY kind LIMIT $1", params![DEVICES_MAX]).await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok((row.parse()?, Bytes::new(row.int()?)))
        })
        .collect()
}

/// The devices of a machine, in order, at most [`DEVICES_MAX`].
pub async fn list_of_node(tx: &mut Tx, node: &NodeId) -> Result<Vec<Device>> {
    let rows = tx
        .fetch_all(
            "SELECT id, node_id, site, name, kind, uuid, memory, health, cordoned, lease_id, promised_to, generation, created_at
             FROM devices WHERE node_id = $1 ORDER BY id LIMIT $2",
            params![node.as_str(), DEVICES_MAX],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Part of the fleet, possibly of one machine.
pub async fn list(tx: &mut Tx, node: Option<&NodeId>, page: &PageRequest) -> Result<Page<Device>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, node_id, site, name, kind, uuid, memory, health, cordoned, lease_id, promised_to, generation, created_at
         FROM devices WHERE ($1 = '' OR node_id = $1)",
        "id",
        "2",
        "3"
    );
    let rows = tx.fetch_all(sql, &[node.map_or("", NodeId::as_str).into(), key, limit]).await?;
    page.page(&rows, from_row)
}

pub async fn get(tx: &mut Tx, id: &DeviceId) -> Result<Device> {
    let row = tx
        .fetch_optional(
            "SELECT id, node_id, site, name, kind, uuid, memory, health, cordoned, lease_id, promised_to, generation, created_at
             FROM devices WHERE id = $1",
            params![id.as_str()],
        )
        .await?;
    let row = row.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no device '{id}'")))?;
    from_row(&row)
}

/// Gives a device to a lease: it is free, and healthy or promised to this lease before it was cordoned. False otherwise.
pub async fn lease(tx: &mut Tx, id: &DeviceId, lease: &LeaseId) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE devices SET lease_id = $2, promised_to = NULL, generation = generation + 1
             WHERE id = $1 AND lease_id IS NULL
             AND (promised_to IS NULL AND health = 'healthy' OR promised_to = $2 AND health <> 'lost')",
            params![id.as_str(), lease.as_str()],
        )
        .await?;
    Ok(changed == 1)
}

/// Promises a device to a pending lease. False if it is promised to another.
pub async fn promise(tx: &mut Tx, id: &DeviceId, lease: &LeaseId) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE devices SET promised_to = $2, generation = generation + 1 WHERE id = $1 AND promised_to IS NULL",
            params![id.as_str(), lease.as_str()],
        )
        .await?;
    Ok(changed == 1)
}

/// Devices that a lease has, in order.
pub async fn list_of_lease(tx: &mut Tx, lease: &LeaseId) -> Result<Vec<Device>> {
    let rows = tx
        .fetch_all(
            "SELECT id, node_id, site, name, kind, uuid, memory, health, cordoned, lease_id, promised_to, generation, created_at
             FROM devices WHERE lease_id = $1 ORDER BY id",
            params![lease.as_str()],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Gives back all devices that a lease has or was promised.
pub async fn release(tx: &mut Tx, lease: &LeaseId) -> Result<()> {
    tx.execute("UPDATE devices SET lease_id = NULL, generation = generation + 1 WHERE lease_id = $1", params![lease.as_str()])
        .await?;
    tx.execute(
        "UPDATE devices SET promised_to = NULL, generation = generation + 1 WHERE promised_to = $1",
        params![lease.as_str()],
    )
    .await?;
    Ok(())
}

/// What a device did for some time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceSpan {
    pub device: DeviceId,
    pub number: i64,
    pub class: DeviceClass,
    pub lease: Option<LeaseId>,
    pub started_at: Timestamp,
    /// `None` while it lasts.
    pub ended_at: Option<Timestamp>,
}

fn span_from_row(row: &Row) -> Result<DeviceSpan> {
    let mut row = row.reader();
    Ok(DeviceSpan {
        device: row.parse()?,
        number: row.int()?,
        class: row.parse()?,
        lease: row.optional_parse()?,
        started_at: row.time()?,
        ended_at: row.optional_time()?,
    })
}

/// The span that lasts now.
pub async fn open_span(tx: &mut Tx, device: &DeviceId) -> Result<Option<DeviceSpan>> {
    let row = tx
        .fetch_optional(
            "SELECT device_id, number, class, lease_id, started_at, ended_at FROM device_spans WHERE device_id = $1 AND ended_at IS NULL",
            params![device.as_str()],
        )
        .await?;
    row.as_ref().map(span_from_row).transpose()
}

/// From `at` on a device does something else. The same again changes nothing; an instant before the
/// present span's beginning counts as its beginning, so that time never runs backwards.
pub async fn switch_class(
    tx: &mut Tx,
    device: &DeviceId,
    class: DeviceClass,
    lease: Option<&LeaseId>,
    at: Timestamp,
) -> Result<()> {
    let present = open_span(tx, device).await?;
    if present.as_ref().is_some_and(|span| span.class == class && span.lease.as_ref() == lease) {
        return Ok(());
    }
    let at = present.as_ref().map_or(at, |span| span.started_at.max(at));
    if let Some(span) = &present {
        tx.execute(
            "UPDATE device_spans SET ended_at = $3 WHERE device_id = $1 AND number = $2",
            params![device.as_str(), span.number, at],
        )
        .await?;
    }
    tx.execute(
        "INSERT INTO device_spans (device_id, number, class, lease_id, started_at) VALUES ($1, $2, $3, $4, $5)",
        params![device.as_str(), present.map_or(1, |span| span.number + 1), class.as_str(), lease.map(LeaseId::as_str), at],
    )
    .await?;
    Ok(())
}

/// Most spans in one listing.
pub const SPANS_PAGE: i64 = 10_000;

/// Spans of a device after a number, oldest first.
pub async fn list_spans(tx: &mut Tx, device: &DeviceId, after: i64) -> Result<Vec<DeviceSpan>> {
    let rows = tx
        .fetch_all(
            "SELECT device_id, number, class, lease_id, started_at, ended_at FROM device_spans
             WHERE device_id = $1 AND number > $2 ORDER BY number LIMIT $3",
            params![device.as_str(), after, SPANS_PAGE],
        )
        .await?;
    rows.iter().map(span_from_row).collect()
}

/// Milliseconds of device time by class in a window, over the fleet; open spans last until its end.
pub async fn time_by_class(tx: &mut Tx, from: Timestamp, until: Timestamp) -> Result<Vec<(DeviceClass, i64)>> {
    let rows = tx
        .fetch_all(
            "SELECT class, CAST(SUM((CASE WHEN ended_at IS NULL OR ended_at > $2 THEN $2 ELSE ended_at END)
                 - (CASE WHEN started_at < $1 THEN $1 ELSE started_at END)) AS BIGINT)
             FROM device_spans WHERE started_at < $2 AND (ended_at IS NULL OR ended_at > $1) GROUP BY class ORDER BY class",
            params![from, until],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok((row.parse()?, row.int()?.div_euclid(1_000)))
        })
        .collect()
}
