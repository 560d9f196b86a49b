//! Sealing invoices, and giving customers what proves them.
//!
//! The leaves of a closed month do not change any more, so they are read and hashed in pages outside of the transaction
//! that issues the invoice: memory does not grow with the month, and nobody waits. That transaction compares their
//! number and sum with the invoice, and adds the seal to the log.
//!
//! Deliberately absent: seals of drafts, and of invoices that were issued before there were seals.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sublet_core::id::{ChargeId, InvoiceId, OrganizationId};
use sublet_core::organization::OrganizationClass;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::invoice::{Invoice, InvoiceState};
use sublet_money::period::{BillingCalendar, PeriodKey};
use sublet_money::price_book::PriceListVersion;
use sublet_proof::bundle::{BundleHeader, PriceSources, leaf_line};
use sublet_proof::leaf::{SALT_SECRET_BYTES, SaltKey, SaltSecret, leaf_hash};
use sublet_proof::merkle::{Frontier, Hash, Node, Nodes, ProofPlan, TreeHead};
use sublet_proof::note::LogKey;
use sublet_proof::receipt::Receipt;
use sublet_proof::seal::{Issued, LogProof, Seal, SealedLeaves};
use sublet_store::invoice::StoredInvoice;
use sublet_store::seal::{LeafBlock, LeafCursor, LeafText, StoredSeal};
use sublet_store::{Page, PageRequest, Tx, charge, invoice, log, organization, seal, setting};

use crate::{Action, Actor, Cloud, contract};

/// Leaves that are read at once.
const LEAVES_AT_ONCE: i64 = 1_000;
/// Levels of a block's subtree.
const BLOCK_LEVEL: u32 = 8;
/// Leaves of a block.
const BLOCK_LEAVES: u64 = 1 << BLOCK_LEVEL;
/// Blocks that are kept at once.
const BLOCKS_AT_ONCE: usize = 64;
/// The setting with the secret of the log's key, in hexadecimal.
const LOG_KEY: &str = "log_key";

/// The leaves of a closed month.
pub(crate) struct HashedLeaves {
    secret: SaltSecret,
    sealed: SealedLeaves,
    /// Those that are not kept yet.
    blocks: Vec<LeafBlock>,
}

/// Where reading a bundle's leaves is.
#[derive(Clone, Debug)]
pub struct BundleCursor {
    organization: OrganizationId,
    period: PeriodKey,
    secret: SaltSecret,
    at: LeafCursor,
}

/// What proves one charge, as far as it can be proven yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargeReceipt {
    pub charge: ChargeId,
    pub amount: Nanos,
    pub currency: Currency,
    /// The month in whose invoice it is.
    pub period: PeriodKey,
    pub proof: ChargeProof,
}

/// Whether a charge is proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChargeProof {
    /// A receipt as canonical text.
    Sealed(String),
    /// Its month is over at that instant, and its invoice is issued after it.
    Pending { sealed_after: Timestamp },
    /// Its invoice was issued before invoices were sealed, or there is none: of the owner's own teams.
    Never,
}

/// The log as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogView {
    /// Its verifier key.
    pub key: String,
    /// A signed note.
    pub checkpoint: String,
}

/// A part of the log, as C2SP's tlog-tiles names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogTile {
    /// Up to 256 hashes that are subtrees of 256^`level` entries.
    Hashes {
        level: u32,
        place: u64,
        width: u64,
    },
    Entries {
        place: u64,
        width: u64,
    },
}

impl Cloud {
    fn random_secret(&self) -> [u8; SALT_SECRET_BYTES] {
        let mut secret = [0; SALT_SECRET_BYTES];
        self.ids.rng().fill(&mut secret);
        secret
    }

    /// Whether a closed month has any leaves.
    pub(crate) async fn has_leaves(&self, (organization, period): (&OrganizationId, PeriodKey)) -> Result<bool> {
        // Their salts matter to nobody.
        let secret = SaltSecret::new([0; SALT_SECRET_BYTES]);
        let cursor = BundleCursor { organization: organization.clone(), period, secret, at: LeafCursor::default() };
        let read = self.store.read(&cursor, |cursor, tx| Box::pin(read_leaves(tx, cursor, cursor.at.clone(), 1))).await?;
        Ok(!read.0.is_empty())
    }

    /// Reads and hashes the leaves of a closed month; `None` if it was told to stop meanwhile.
    pub(crate) async fn hash_leaves(
        &self,
        (organization, period): (&OrganizationId, PeriodKey),
        is_stopped: &(impl Fn() -> bool + Sync),
    ) -> Result<Option<HashedLeaves>> {
        let fresh = SaltSecret::new(self.random_secret());
        let of = (organization, period);
        let secret = self.store.write((of, fresh), |(of, fresh), tx| Box::pin(seal::open(tx, *of, fresh))).await?;
        let mut cursor =
            BundleCursor { organization: organization.clone(), period, secret: secret.clone(), at: LeafCursor::default() };
        let mut hashing = Hashing::default();
        let mut page = self.leaf_texts(&mut cursor).await?;
        while !page.is_empty() {
            if is_stopped() {
                return Ok(None);
            }
            // Reading and hashing take equally long, and one goes on while the other does. A page ends by itself.
            let running = tokio::task::spawn_blocking(move || hashing.take(page));
            let next = self.leaf_texts(&mut cursor).await;
            let hashed = running.await.map_err(|error| Error::internal(format!("leaves were not hashed: {error}")))?;
            (hashing, page) = (hashed?, next?);
            if hashing.blocks.len() >= BLOCKS_AT_ONCE {
                let blocks = &hashing.blocks;
                self.store.write((of, blocks), |(of, blocks), tx| Box::pin(seal::put_blocks(tx, *of, blocks))).await?;
                hashing.blocks.clear();
            }
        }
        let Hashing { tree, sum, blocks } = hashing;
        let sealed = SealedLeaves { count: tree.size(), root: tree.root(), sum };
        Ok(Some(HashedLeaves { secret, sealed, blocks }))
    }

    /// The next leaves of an invoice, hashed.
    async fn leaves(&self, cursor: &mut BundleCursor) -> Result<Vec<ReadLeaf>> {
        Ok(hashed(self.leaf_texts(cursor).await?))
    }

    /// The next leaves of an invoice.
    async fn leaf_texts(&self, cursor: &mut BundleCursor) -> Result<Vec<LeafText>> {
        let (page, at) =
            self.store.read(&*cursor, |cursor, tx| Box::pin(read_leaves(tx, cursor, cursor.at.clone(), LEAVES_AT_ONCE))).await?;
        cursor.at = at;
        Ok(page)
    }

    /// Seals an invoice that is issued in the same transaction.
    pub(crate) async fn seal_invoice(&self, tx: &mut Tx, invoice: &Invoice, leaves: &HashedLeaves) -> Result<()> {
        let (Some(number), InvoiceState::Issued { issued_at }) = (invoice.number, invoice.state) else {
            return Err(Error::internal("only an issued invoice is sealed"));
        };
        let content = &invoice.content;
        let of = (&content.account.organization, content.period.key);
        let mut lists = BTreeMap::new();
        for line in &content.lines {
            if let Entry::Vacant(unread) = lists.entry(&line.price_version) {
                unread.insert(self.price_version(tx, &line.price_version).await?);
            }
        }
        let lists: Vec<Arc<PriceListVersion>> = lists.into_values().collect();
        let mut price_indexes = BTreeMap::new();
        for excerpt in self.index_excerpts(tx, content, &lists).await? {
            price_indexes.insert(excerpt.index.clone(), excerpt.verify()?);
        }
        let issued = Issued { invoice: &invoice.id, number, issued_at, content, price_indexes: &price_indexes };
        let (sealed, details) = Seal::new(&issued, leaves.sealed, &SaltKey::new(&leaves.secret))?;
        seal::put_blocks(tx, of, &leaves.blocks).await?;
        let place = log::append(tx, sealed.entry()?).await?;
        seal::set(tx, of, (&sealed, &details), place).await
    }

    /// The key of the log, if it has one yet.
    async fn find_log_key(&self, tx: &mut Tx) -> Result<Option<LogKey>> {
        let Some(text) = setting::find(tx, LOG_KEY).await? else { return Ok(None) };
        let digit = |at: usize| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(digit).collect();
        let seed = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        LogKey::from_seed(&seed.ok_or_else(|| Error::internal("the log's key is not 32 bytes in hexadecimal"))?).map(Some)
    }

    /// Sees to it that the log has a key.
    pub(crate) async fn open_log(&self) -> Result<()> {
        if self.store.read(self, |cloud, tx| Box::pin(cloud.find_log_key(tx))).await?.is_some() {
            return Ok(());
        }
        let fresh: String = self.random_secret().iter().map(|byte| format!("{byte:02x}")).collect();
        self.store
            .write((self, fresh), |(cloud, fresh), tx| {
                Box::pin(async move {
                    if cloud.find_log_key(tx).await?.is_none() {
                        setting::set(tx, LOG_KEY, fresh).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn log_key(&self, tx: &mut Tx) -> Result<LogKey> {
        self.find_log_key(tx).await?.ok_or_else(|| Error::internal("the log has no key"))
    }

    /// The log's key and its newest checkpoint. Public: it says nothing of any customer.
    pub async fn log(&self) -> Result<LogView> {
        self.open_log().await?;
        self.store
            .read(self, |cloud, tx| {
                Box::pin(async move {
                    let key = cloud.log_key(tx).await?;
                    let (_, checkpoint) = checkpoint(tx, &key).await?;
                    Ok(LogView { key: key.verifier().to_string(), checkpoint })
                })
            })
            .await
    }

    /// The bytes of a tile; `None` for one that is not there yet.
    pub async fn log_tile(&self, tile: LogTile) -> Result<Option<Vec<u8>>> {
        self.store.read(tile, |tile, tx| Box::pin(read_tile(tx, *tile))).await
    }

    /// The header of an invoice's bundle, and where its leaves begin.
    pub async fn open_bundle(&self, actor: &Actor, id: &InvoiceId) -> Result<(String, BundleCursor)> {
        actor.require(Action::ReadBilling)?;
        self.open_log().await?;
        self.store
            .read((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let found = invoice::find(tx, &actor.scope, id).await?;
                    let stored = found.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no invoice '{id}'")))?;
                    let (organization, period) = (stored.organization().clone(), stored.period());
                    let sealed = find_seal(tx, &stored).await?;
                    let key = cloud.log_key(tx).await?;
                    let log = log_proof(tx, &key, sealed.log_place).await?;
                    let mut lists: Vec<Arc<PriceListVersion>> = Vec::new();
                    for version in sealed.details.price_versions() {
                        lists.push(cloud.price_version(tx, version).await?);
                    }
                    let content = stored.invoice.content;
                    let indexes = cloud.index_excerpts(tx, &content, &lists).await?;
                    let lists: Vec<&PriceListVersion> = lists.iter().map(AsRef::as_ref).collect();
                    let terms = contract::terms_texts(tx, &content).await?;
                    let sources = PriceSources { indexes, ..cloud.price_sources(tx, &organization, &lists).await? };
                    let header = BundleHeader::new(content, (sealed.seal, sealed.details), log, (&lists, terms, sources)).text()?;
                    let at = LeafCursor::default();
                    Ok((header, BundleCursor { organization, period, secret: sealed.secret, at }))
                })
            })
            .await
    }

    /// The next lines of a bundle; `None` after the last.
    pub async fn next_bundle_lines(&self, cursor: &mut BundleCursor) -> Result<Option<String>> {
        let page = self.leaves(cursor).await?;
        let mut lines = String::new();
        for leaf in &page {
            lines.push_str(&leaf_line((leaf.hash, &leaf.leaf.text)));
            lines.push('\n');
        }
        Ok((!page.is_empty()).then_some(lines))
    }

    /// What proves the charges of a request or job of the actor's.
    pub async fn receipts(&self, actor: &Actor, source: &str, page: &PageRequest) -> Result<Page<ChargeReceipt>> {
        actor.require(Action::ReadUsage)?;
        self.open_log().await?;
        self.store
            .read((self, actor, source, page), |(cloud, actor, source, page), tx| {
                Box::pin(async move {
                    let charges = charge::list_of_source(tx, &actor.scope, source, page).await?;
                    if charges.items.is_empty() && page.after.is_none() {
                        return Err(Error::new(ErrorCode::NotFound, format!("nothing was charged for '{source}'"))
                            .alternative("a request or job is charged when it ended; name it by its id"));
                    }
                    let (mut items, mut invoices) = (Vec::with_capacity(charges.items.len()), BTreeMap::new());
                    for charge in &charges.items {
                        items.push(cloud.receipt(tx, charge, &mut invoices).await?);
                    }
                    Ok(Page { items, has_more: charges.has_more })
                })
            })
            .await
    }

    /// `invoices` keeps what was read of an invoice for others of its charges.
    async fn receipt(
        &self,
        tx: &mut Tx,
        charge: &charge::Charge,
        invoices: &mut BTreeMap<PeriodKey, Proven>,
    ) -> Result<ChargeReceipt> {
        let (organization, period) = (&charge.organization, charge.billed_in.unwrap_or(charge.period));
        if let Entry::Vacant(unread) = invoices.entry(period) {
            unread.insert(self.proven(tx, organization, period).await?);
        }
        let proven = invoices.get_mut(&period).ok_or_else(|| Error::internal("an invoice was read and is not there"))?;
        let proof = match proven {
            Proven::Pending { sealed_after } => ChargeProof::Pending { sealed_after: *sealed_after },
            Proven::Never => ChargeProof::Never,
            Proven::Sealed(leaves) => {
                let at = LeafCursor { is_late: charge.billed_in.is_some(), charge: charge.id.to_string() };
                let (index, leaf, path) = leaves.path(tx, &at).await?;
                let sealed = (leaves.stored.seal.clone(), leaves.log.clone());
                ChargeProof::Sealed(Receipt::new((index, leaf), path, sealed, &leaves.key)?.text()?)
            }
        };
        Ok(ChargeReceipt { charge: charge.id.clone(), amount: charge.amount, currency: charge.currency, period, proof })
    }

    /// What can be proven of the charges in a month's invoice.
    async fn proven(&self, tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<Proven> {
        if let Some(stored) = seal::find(tx, organization, period).await? {
            let key = self.log_key(tx).await?;
            return Ok(Proven::Sealed(Box::new(Leaves::of_invoice(tx, (organization, period), stored, key).await?)));
        }
        let account = organization::get(tx, &Scope::Operator, organization).await?;
        let is_issued =
            invoice::find_of_period(tx, organization, period).await?.is_some_and(|stored| stored.invoice.number.is_some());
        // The owner's own teams get no invoices.
        if is_issued || !matches!(account.class, OrganizationClass::External | OrganizationClass::Partner) {
            return Ok(Proven::Never);
        }
        let month = BillingCalendar::new(&account.time_zone)?.period(period)?;
        Ok(Proven::Pending { sealed_after: month.interval.ends_at })
    }
}

/// What can be proven of an invoice's charges.
enum Proven {
    Sealed(Box<Leaves>),
    Pending { sealed_after: Timestamp },
    Never,
}

/// The leaves of an invoice, as far as they were read.
struct Leaves {
    of: BundleCursor,
    stored: StoredSeal,
    key: LogKey,
    log: LogProof,
    blocks: Vec<LeafBlock>,
    nodes: Nodes,
    /// Place, charge and text.
    read: BTreeMap<String, (u64, String)>,
    read_blocks: BTreeSet<usize>,
}

impl Leaves {
    async fn of_invoice(
        tx: &mut Tx,
        (organization, period): (&OrganizationId, PeriodKey),
        stored: StoredSeal,
        key: LogKey,
    ) -> Result<Self> {
        let log = log_proof(tx, &key, stored.log_place).await?;
        let blocks = seal::list_blocks(tx, organization, period).await?;
        let (mut nodes, mut over_blocks) = (Nodes::new(), Frontier::default());
        for block in &blocks {
            over_blocks.push(block.hash, |node, hash| {
                nodes.insert(Node { level: node.level + BLOCK_LEVEL, place: node.place }, hash);
            })?;
        }
        let (organization, secret) = (organization.clone(), stored.secret.clone());
        let of = BundleCursor { organization, period, secret, at: LeafCursor::default() };
        Ok(Self { of, stored, key, log, blocks, nodes, read: BTreeMap::new(), read_blocks: BTreeSet::new() })
    }

    /// The place, text and path of a charge's leaf.
    async fn path(&mut self, tx: &mut Tx, wanted: &LeafCursor) -> Result<(u64, String, Vec<Hash>)> {
        let broken = || Error::internal(format!("charge {} is not among the leaves of its invoice", wanted.charge));
        let its_block = seal::find_block(tx, (&self.of.organization, self.of.period), wanted).await?;
        // The leaves behind the last full block are needed for any path.
        for block in [usize::try_from(its_block).map_err(|_| broken())?, self.blocks.len()] {
            if self.read_blocks.insert(block) {
                self.read_block(tx, block).await?;
            }
        }
        let (index, text) = self.read.get(&wanted.charge).cloned().ok_or_else(broken)?;
        let path = ProofPlan::inclusion(index, self.stored.seal.leaves())?.proof(&self.nodes)?;
        Ok((index, text, path))
    }

    async fn read_block(&mut self, tx: &mut Tx, block: usize) -> Result<()> {
        let before = block.checked_sub(1).and_then(|before| self.blocks.get(before));
        let begin = before.map_or_else(LeafCursor::default, |before| before.last.clone());
        let (leaves, _) = read_leaves(tx, &self.of, begin, i64::try_from(BLOCK_LEAVES).unwrap_or(i64::MAX)).await?;
        let first = u64::try_from(block).map_err(|_| Error::internal("an invoice has too many leaves"))? * BLOCK_LEAVES;
        let mut within = Frontier::default();
        for leaf in hashed(leaves) {
            let index = first + within.size();
            let nodes = &mut self.nodes;
            within.push(leaf.hash, |node, hash| {
                nodes.insert(Node { level: node.level, place: (first >> node.level) + node.place }, hash);
            })?;
            self.read.insert(leaf.leaf.cursor.charge, (index, leaf.leaf.text));
        }
        Ok(())
    }
}

/// How many entries the log has, and its signed note.
async fn checkpoint(tx: &mut Tx, key: &LogKey) -> Result<(u64, String)> {
    let tree = log::find_frontier(tx).await?;
    Ok((tree.size(), key.checkpoint(TreeHead { size: tree.size(), root: tree.root() })))
}

/// That a seal is in the log.
async fn log_proof(tx: &mut Tx, key: &LogKey, place: u64) -> Result<LogProof> {
    let (size, checkpoint) = checkpoint(tx, key).await?;
    let nodes = log::list_nodes(tx, &ProofPlan::inclusion(place, size)?.nodes()).await?;
    LogProof::new((key.verifier(), checkpoint), place, size, &nodes)
}

/// The seal of an invoice, or why it has none.
async fn find_seal(tx: &mut Tx, stored: &StoredInvoice) -> Result<StoredSeal> {
    if let Some(sealed) = seal::find(tx, stored.organization(), stored.period()).await? {
        return Ok(sealed);
    }
    let message = match stored.invoice.number {
        None => format!("invoice {} is a draft; it is sealed when it is issued", stored.invoice.id),
        Some(number) => format!("{number} was issued before invoices were sealed"),
    };
    Err(Error::new(ErrorCode::Conflict, message))
}

/// A leaf with its hash.
struct ReadLeaf {
    hash: Hash,
    leaf: LeafText,
}

fn hashed(leaves: Vec<LeafText>) -> Vec<ReadLeaf> {
    leaves.into_iter().map(|leaf| ReadLeaf { hash: leaf_hash(&leaf.text), leaf }).collect()
}

/// The tree over the leaves that were read so far.
#[derive(Default)]
struct Hashing {
    tree: Frontier,
    sum: Nanos,
    /// Those that are not kept yet.
    blocks: Vec<LeafBlock>,
}

impl Hashing {
    fn take(mut self, page: Vec<LeafText>) -> Result<Self> {
        for ReadLeaf { hash, leaf } in hashed(page) {
            let mut full = None;
            self.tree.push(hash, |node, hash| full = full.or((node.level == BLOCK_LEVEL).then_some((node.place, hash))))?;
            self.sum = self.sum.checked_add(leaf.amount)?;
            if let Some((place, hash)) = full {
                let place = i64::try_from(place).map_err(|_| Error::internal("a month has too many charges"))?;
                self.blocks.push(LeafBlock { place, hash, last: leaf.cursor });
            }
        }
        Ok(self)
    }
}

/// Leaves from a cursor on, and where the next begin.
async fn read_leaves(tx: &mut Tx, of: &BundleCursor, mut at: LeafCursor, limit: i64) -> Result<(Vec<LeafText>, LeafCursor)> {
    let salts = SaltKey::new(&of.secret);
    let leaves = seal::list_leaves(tx, (&of.organization, of.period), (&mut at, limit), &salts).await?;
    Ok((leaves, at))
}

async fn read_tile(tx: &mut Tx, tile: LogTile) -> Result<Option<Vec<u8>>> {
    let size = log::size(tx).await?;
    let (level, place, width) = match tile {
        LogTile::Hashes { level, place, width } => (level, place, width),
        LogTile::Entries { place, width } => (0, place, width),
    };
    // What is past the end of the log, however large its numbers are.
    let Some(subtrees) = level.checked_mul(BLOCK_LEVEL).filter(|shift| *shift < u64::BITS).map(|shift| size >> shift) else {
        return Ok(None);
    };
    let Some(first) =
        place.checked_mul(BLOCK_LEAVES).filter(|first| subtrees.checked_sub(*first).is_some_and(|left| left >= width))
    else {
        return Ok(None);
    };
    match tile {
        LogTile::Hashes { .. } => {
            let hashes = log::list_level(tx, Node { level: level * BLOCK_LEVEL, place: first }, width).await?;
            Ok(Some(hashes.iter().flat_map(Hash::bytes).copied().collect()))
        }
        LogTile::Entries { .. } => {
            let first = i64::try_from(first).map_err(|_| Error::internal("the log is full"))?;
            let entries = log::list_entries(tx, first).await?;
            let mut bytes = Vec::new();
            for entry in entries.iter().take(usize::try_from(width).unwrap_or(0)) {
                // The length of each entry in two bytes, and its bytes.
                bytes.extend([0, 32]);
                bytes.extend(entry.bytes());
            }
            Ok(Some(bytes))
        }
    }
}
