//! The deployment's log: entries that are only ever added, and the full subtrees over them.

use sublet_core::{Error, Result};
use sublet_proof::merkle::{Frontier, Hash, Node, Nodes, root_nodes};

use crate::database::Tx;
use crate::params;
use crate::row::Value;

/// Bits of a node's place in its id; its level is above them.
const PLACE_BITS: u32 = 56;
/// Most entries or nodes that are read at once: those of a tile.
pub const TILE_WIDTH: i64 = 256;

fn id(node: Node) -> Result<i64> {
    let id = (node.place >> PLACE_BITS == 0).then(|| u64::from(node.level) << PLACE_BITS | node.place);
    id.and_then(|id| i64::try_from(id).ok()).ok_or_else(|| Error::internal(format!("the log has no node {node:?}")))
}

fn node(id: i64) -> Result<Node> {
    let broken = || Error::internal(format!("the log has a node {id}"));
    let id = u64::try_from(id).map_err(|_| broken())?;
    Ok(Node { level: u32::try_from(id >> PLACE_BITS).map_err(|_| broken())?, place: id & ((1 << PLACE_BITS) - 1) })
}

/// How many entries there are.
pub async fn size(tx: &mut Tx) -> Result<u64> {
    let row = tx.fetch_one("SELECT COALESCE(MAX(place), -1) + 1 FROM log_entries", &[]).await?;
    let size = row.reader().int()?;
    u64::try_from(size).map_err(|_| Error::internal(format!("the log has {size} entries")))
}

/// The named subtrees; those that are not full yet are left out.
pub async fn list_nodes(tx: &mut Tx, wanted: &[Node]) -> Result<Nodes> {
    let ids = wanted.iter().map(|node| Ok(Value::from(id(*node)?))).collect::<Result<Vec<_>>>()?;
    let rows = tx.fetch_listed("SELECT id, hash FROM log_nodes WHERE id IN ", &ids).await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok((node(row.int()?)?, Hash::try_from(row.bytes()?)?))
        })
        .collect()
}

/// Full subtrees of one level that follow each other, as many as there are, at most [`TILE_WIDTH`].
pub async fn list_level(tx: &mut Tx, first: Node, count: u64) -> Result<Vec<Hash>> {
    let from = id(first)?;
    let count = i64::try_from(count).map_or(TILE_WIDTH, |count| count.min(TILE_WIDTH));
    let rows = tx
        .fetch_all("SELECT hash FROM log_nodes WHERE id >= $1 AND id < $2 ORDER BY id", params![from, from.saturating_add(count)])
        .await?;
    rows.iter().map(|row| Hash::try_from(row.reader().bytes()?)).collect()
}

/// The tree as it is.
pub async fn find_frontier(tx: &mut Tx) -> Result<Frontier> {
    let size = size(tx).await?;
    let nodes = list_nodes(tx, &root_nodes(size)).await?;
    Frontier::resume(size, &nodes)
}

/// Adds an entry, and says where it is.
pub async fn append(tx: &mut Tx, entry: Hash) -> Result<u64> {
    let mut tree = find_frontier(tx).await?;
    let place = tree.size();
    let mut full = Vec::new();
    tree.push(Hash::of_entry(entry.bytes()), |node, hash| full.push((node, hash)))?;
    let stored = i64::try_from(place).map_err(|_| Error::internal("the log is full"))?;
    let bytes: &[u8] = entry.bytes();
    tx.execute("INSERT INTO log_entries (place, entry) VALUES ($1, $2)", params![stored, bytes]).await?;
    let rows = full
        .iter()
        .map(|(node, hash)| {
            let bytes: &[u8] = hash.bytes();
            Ok(params![id(*node)?, bytes].to_vec())
        })
        .collect::<Result<Vec<_>>>()?;
    tx.insert_many("INSERT INTO log_nodes (id, hash) VALUES ", "", &rows).await?;
    Ok(place)
}

/// Entries from a place on, at most [`TILE_WIDTH`].
pub async fn list_entries(tx: &mut Tx, from: i64) -> Result<Vec<Hash>> {
    let rows =
        tx.fetch_all("SELECT entry FROM log_entries WHERE place >= $1 ORDER BY place LIMIT $2", params![from, TILE_WIDTH]).await?;
    rows.iter().map(|row| Hash::try_from(row.reader().bytes()?)).collect()
}
