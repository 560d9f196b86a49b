//! What is proven of invoices: their charges as leaves, the subtrees over them, and their seals.

use std::borrow::Cow;

use sublet_core::id::{ChargeId, OrganizationId};
use sublet_core::{Error, Nanos, Result};
use sublet_money::period::PeriodKey;
use sublet_money::sku::{Quantity, QuantityChange};
use sublet_proof::leaf::{ChargeLeaf, SaltKey, SaltSecret};
use sublet_proof::merkle::Hash;
use sublet_proof::seal::{Seal, SealDetails};

use crate::database::Tx;
use crate::params;
use crate::row::{Row, RowReader, to_json};

/// Most blocks of an invoice: 25 thousand million charges.
const BLOCKS_MAX: i64 = 100_000_000;

fn secret(bytes: &[u8]) -> Result<SaltSecret> {
    let bytes = bytes.try_into().map_err(|_| Error::internal(format!("a stored secret has {} bytes", bytes.len())))?;
    Ok(SaltSecret::new(bytes))
}

/// The secret of a month's invoice, which is `fresh` if it had none.
pub async fn open(tx: &mut Tx, (organization, period): (&OrganizationId, PeriodKey), fresh: &SaltSecret) -> Result<SaltSecret> {
    let fresh: &[u8] = fresh.bytes();
    tx.execute(
        "INSERT INTO seals (organization_id, period, secret) VALUES ($1, $2, $3) ON CONFLICT (organization_id, period) DO NOTHING",
        params![organization.as_str(), period.to_string(), fresh],
    )
    .await?;
    let row = tx
        .fetch_one(
            "SELECT secret FROM seals WHERE organization_id = $1 AND period = $2",
            params![organization.as_str(), period.to_string()],
        )
        .await?;
    secret(row.reader().bytes()?)
}

/// Keeps the seal of an issued invoice, and its place in the log. An invoice is sealed once.
pub async fn set(
    tx: &mut Tx,
    (organization, period): (&OrganizationId, PeriodKey),
    (seal, details): (&Seal, &SealDetails),
    log_place: u64,
) -> Result<()> {
    let place = i64::try_from(log_place).map_err(|_| Error::internal("the log is full"))?;
    let set = tx
        .execute(
            "UPDATE seals SET seal = $3, details = $4, log_place = $5 WHERE organization_id = $1 AND period = $2 AND seal IS NULL",
            params![organization.as_str(), period.to_string(), to_json(seal)?, to_json(details)?, place],
        )
        .await?;
    if set == 1 {
        return Ok(());
    }
    Err(Error::internal(format!("the invoice of {period} of {organization} was sealed before")))
}

/// A seal, and what its invoice's leaves are made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredSeal {
    pub secret: SaltSecret,
    pub seal: Seal,
    pub details: SealDetails,
    /// In the log, from 0.
    pub log_place: u64,
}

/// `None` for what was not issued, or before invoices were sealed.
pub async fn find(tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<Option<StoredSeal>> {
    fn from_row(row: &Row) -> Result<StoredSeal> {
        let mut row = row.reader();
        let (secret, seal, details, place) = (secret(row.bytes()?)?, row.json()?, row.json()?, row.int()?);
        let log_place = u64::try_from(place).map_err(|_| Error::internal(format!("a seal is at {place} of the log")))?;
        Ok(StoredSeal { secret, seal, details, log_place })
    }
    let row = tx
        .fetch_optional(
            "SELECT secret, seal, details, log_place FROM seals WHERE organization_id = $1 AND period = $2 AND seal IS NOT NULL",
            params![organization.as_str(), period.to_string()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Up to where leaves were read: those of the month by their charges, then those that came late.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LeafCursor {
    pub is_late: bool,
    /// Empty before the first.
    pub charge: String,
}

/// 256 leaves that follow each other: their subtree, and the last of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeafBlock {
    pub place: i64,
    pub hash: Hash,
    pub last: LeafCursor,
}

/// Keeps blocks of an invoice that is not sealed yet, in the place of what an earlier try kept.
pub async fn put_blocks(tx: &mut Tx, (organization, period): (&OrganizationId, PeriodKey), blocks: &[LeafBlock]) -> Result<()> {
    let period = period.to_string();
    let rows: Vec<_> = blocks
        .iter()
        .map(|block| {
            let hash: &[u8] = block.hash.bytes();
            params![
                organization.as_str(),
                period.as_str(),
                block.place,
                hash,
                i64::from(block.last.is_late),
                block.last.charge.as_str()
            ]
            .to_vec()
        })
        .collect();
    let prefix = "INSERT INTO leaf_blocks (organization_id, period, place, hash, last_is_late, last_charge) VALUES ";
    let suffix = "ON CONFLICT (organization_id, period, place)
         DO UPDATE SET hash = excluded.hash, last_is_late = excluded.last_is_late, last_charge = excluded.last_charge";
    tx.insert_many(prefix, suffix, &rows).await?;
    Ok(())
}

/// All blocks of an invoice that are full, in their order.
pub async fn list_blocks(tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<Vec<LeafBlock>> {
    let rows = tx
        .fetch_all(
            "SELECT place, hash, last_is_late, last_charge FROM leaf_blocks WHERE organization_id = $1 AND period = $2
             ORDER BY place LIMIT $3",
            params![organization.as_str(), period.to_string(), BLOCKS_MAX],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            let (place, hash) = (row.int()?, Hash::try_from(row.bytes()?)?);
            Ok(LeafBlock { place, hash, last: LeafCursor { is_late: row.int()? != 0, charge: row.string()? } })
        })
        .collect()
}

/// In which block a leaf is, counted from 0. The database compares, as it did when it put the leaves in order.
pub async fn find_block(tx: &mut Tx, (organization, period): (&OrganizationId, PeriodKey), leaf: &LeafCursor) -> Result<i64> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*) FROM leaf_blocks WHERE organization_id = $1 AND period = $2
                 AND (last_is_late < $3 OR (last_is_late = $3 AND last_charge < $4))",
            params![organization.as_str(), period.to_string(), i64::from(leaf.is_late), leaf.charge.as_str()],
        )
        .await?;
    row.reader().int()
}

/// A leaf as it is hashed, and what is needed of it besides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeafText {
    pub text: String,
    pub amount: Nanos,
    pub cursor: LeafCursor,
}

/// The next leaves of a month's invoice, at most `limit`; none after the last.
pub async fn list_leaves(
    tx: &mut Tx,
    (organization, period): (&OrganizationId, PeriodKey),
    (cursor, limit): (&mut LeafCursor, i64),
    salts: &SaltKey,
) -> Result<Vec<LeafText>> {
    let mut leaves = Vec::new();
    loop {
        let before = leaves.len();
        let left = limit - i64::try_from(before).unwrap_or(limit);
        let sql = if cursor.is_late {
            "SELECT id, amount, band, charged_before, key_id, occurred_at, period, price_version, project_id, quantity,
                 quantity_before, sku, source FROM charges
             WHERE organization_id = $1 AND billed_in = $2 AND billed_in <> '' AND id > $3 ORDER BY id LIMIT $4"
        } else {
            "SELECT id, amount, band, charged_before, key_id, occurred_at, period, price_version, project_id, quantity,
                 quantity_before, sku, source FROM charges
             WHERE organization_id = $1 AND period = $2 AND billed_in = '' AND id > $3 ORDER BY id LIMIT $4"
        };
        let of = params![organization.as_str(), period.to_string(), cursor.charge.as_str(), left];
        let is_late = cursor.is_late;
        tx.fetch_each(sql, of, |row| {
            leaves.push(leaf(row, is_late, salts)?);
            Ok(())
        })
        .await?;
        if let Some(last) = leaves.get(before..).and_then(<[LeafText]>::last) {
            cursor.charge.clone_from(&last.cursor.charge);
        }
        let is_end = i64::try_from(leaves.len() - before).unwrap_or(limit) < left;
        if !is_end || cursor.is_late {
            return Ok(leaves);
        }
        *cursor = LeafCursor { is_late: true, charge: String::new() };
    }
}

fn leaf(mut row: RowReader<'_>, is_late: bool, salts: &SaltKey) -> Result<LeafText> {
    let charge: ChargeId = row.parse()?;
    let leaf = ChargeLeaf {
        charge: charge.as_str().into(),
        amount: row.nanos()?,
        band: Some(row.text()?).filter(|band| !band.is_empty()).map(Cow::Borrowed),
        charged_before: row.nanos()?,
        key: row.optional_text()?.map(Cow::Borrowed),
        occurred_at_micros: row.time()?,
        period: row.text()?.into(),
        price_version: row.text()?.into(),
        project: row.text()?.into(),
        quantity: QuantityChange::new(row.int()?),
        quantity_before: Quantity::new(row.int()?)?,
        salt: salts.of_charge(&charge).into(),
        sku: row.text()?.into(),
        source: row.text()?.into(),
    };
    Ok(LeafText { text: leaf.text()?, amount: leaf.amount, cursor: LeafCursor { is_late, charge: charge.to_string() } })
}
