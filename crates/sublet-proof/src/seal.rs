//! What is said of an invoice when it is issued, once and for ever: its content, its leaves and what they add up to.
//!
//! The log's entry for it is the hash of this statement, which has a salt: the log is public, and says of a customer
//! nothing but that some invoice was issued. What the invoice adds up to is a statement of its own, of which the first
//! has the hash, so that a receipt for one charge does not tell the rest of the bill.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{InvoiceId, OrganizationId};
use sublet_core::{Currency, Nanos, Timestamp};
use sublet_money::canonical::{canonical_json, decimal};
use sublet_money::document::DocumentNumber;
use sublet_money::invoice::InvoiceContent;
use sublet_money::price_index::IndexName;

use crate::leaf::SaltKey;
use crate::merkle::{Hash, Nodes, ProofPlan, root_by_path};
use crate::note::VerifierKey;

/// Names the meaning of a seal; a change of meaning is a new name.
const SCHEMA: &str = "sublet-seal/1";
/// What the salts of a seal are made from.
const SEAL_SALT: &str = "seal";
const DETAILS_SALT: &str = "details";

/// The tree over an invoice's charges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealedLeaves {
    pub count: u64,
    pub root: Hash,
    pub sum: Nanos,
}

/// What is shown with a receipt: what was issued to whom, and the tree over its charges.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    currency: Currency,
    /// The SHA-256 of the [`SealDetails`] as canonical JSON.
    details_sha256: Hash,
    invoice: InvoiceId,
    issued_at_micros: Timestamp,
    leaves: u64,
    number: DocumentNumber,
    organization: OrganizationId,
    root: Hash,
    salt: String,
    schema: String,
}

/// What a bundle shows besides, and a receipt does not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealDetails {
    /// The SHA-256 of the invoice's content as canonical JSON.
    content_sha256: Hash,
    /// The hash of the last point that is needed of each index that lines follow.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    price_indexes: BTreeMap<IndexName, String>,
    /// All that the lines name, by their hashes.
    price_versions: BTreeSet<PriceVersion>,
    salt: String,
    /// What the leaves add up to, and the invoice's lines.
    #[serde(with = "decimal")]
    sum: Nanos,
}

/// An invoice as it is issued.
#[derive(Clone, Debug)]
pub struct Issued<'a> {
    pub invoice: &'a InvoiceId,
    pub number: DocumentNumber,
    pub issued_at: Timestamp,
    pub content: &'a InvoiceContent,
    /// The hash of the last point that is needed of each index that lines follow.
    pub price_indexes: &'a BTreeMap<IndexName, String>,
}

impl SealDetails {
    pub const fn sum(&self) -> Nanos {
        self.sum
    }
    pub(crate) const fn price_indexes(&self) -> &BTreeMap<IndexName, String> {
        &self.price_indexes
    }
    pub const fn price_versions(&self) -> &BTreeSet<PriceVersion> {
        &self.price_versions
    }
}

impl Seal {
    /// Seals an invoice over its leaves. Leaves that do not add up to it are a broken book.
    pub fn new(issued: &Issued<'_>, leaves: SealedLeaves, salts: &SaltKey) -> Result<(Self, SealDetails)> {
        let content = issued.content;
        if leaves.sum != content.charged()? || leaves.count != charges(content)? {
            return Err(Error::new(
                ErrorCode::LedgerMismatch,
                format!(
                    "an invoice over {} charges of {} has {} leaves that add up to {}",
                    charges(content)?,
                    content.charged()?,
                    leaves.count,
                    leaves.sum
                ),
            ));
        }
        let details = SealDetails {
            content_sha256: hash_of(content)?,
            price_indexes: issued.price_indexes.clone(),
            price_versions: price_versions(content),
            salt: salts.of_name(DETAILS_SALT),
            sum: leaves.sum,
        };
        let seal = Self {
            currency: content.account.currency,
            details_sha256: hash_of(&details)?,
            invoice: issued.invoice.clone(),
            issued_at_micros: issued.issued_at,
            leaves: leaves.count,
            number: issued.number,
            organization: content.account.organization.clone(),
            root: leaves.root,
            salt: salts.of_name(SEAL_SALT),
            schema: SCHEMA.to_owned(),
        };
        Ok((seal, details))
    }

    /// The log's entry: the SHA-256 of this as canonical JSON.
    pub fn entry(&self) -> Result<Hash> {
        hash_of(self)
    }
    pub const fn currency(&self) -> Currency {
        self.currency
    }
    pub const fn organization(&self) -> &OrganizationId {
        &self.organization
    }
    pub const fn invoice(&self) -> &InvoiceId {
        &self.invoice
    }
    pub const fn number(&self) -> DocumentNumber {
        self.number
    }
    pub const fn issued_at(&self) -> Timestamp {
        self.issued_at_micros
    }
    /// How many charges are sealed.
    pub const fn leaves(&self) -> u64 {
        self.leaves
    }
    pub const fn root(&self) -> Hash {
        self.root
    }

    /// Why this cannot be a seal at all.
    pub(crate) fn check_schema(&self) -> Result<(), String> {
        if self.schema == SCHEMA {
            return Ok(());
        }
        Err(format!("a seal of '{}' cannot be read; this program knows {SCHEMA}", self.schema))
    }

    /// Why this is not the seal of a content.
    pub(crate) fn check_content(&self, details: &SealDetails, content: &InvoiceContent) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        content.verify().map_err(text)?;
        if hash_of(details).map_err(text)? != self.details_sha256 {
            return Err("the details are not those of the seal".to_owned());
        }
        if hash_of(content).map_err(text)? != details.content_sha256 {
            return Err("the invoice is not the one that was sealed".to_owned());
        }
        if (&self.organization, self.currency) != (&content.account.organization, content.account.currency) {
            return Err("the seal is of another account than the invoice".to_owned());
        }
        if details.sum != content.charged().map_err(text)? || self.leaves != charges(content).map_err(text)? {
            return Err("the seal says another sum, or another number of charges, than the invoice".to_owned());
        }
        if price_versions(content) != details.price_versions {
            return Err("the seal names other price lists than the invoice".to_owned());
        }
        Ok(())
    }
}

/// The SHA-256 of canonical JSON.
fn hash_of(statement: &impl Serialize) -> Result<Hash> {
    Ok(Hash::of(canonical_json(statement)?.as_bytes()))
}

fn price_versions(content: &InvoiceContent) -> BTreeSet<PriceVersion> {
    content.lines.iter().map(|line| line.price_version.clone()).collect()
}

/// How many charges an invoice is made of.
fn charges(content: &InvoiceContent) -> Result<u64> {
    let sum = content.lines.iter().try_fold(0_u64, |sum, line| sum.checked_add(line.charges.count));
    sum.ok_or_else(|| Error::internal("an invoice is over more charges than can be counted"))
}

/// That a seal is in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogProof {
    /// The log's signed note.
    pub checkpoint: String,
    /// The seal's place in the log, from 0.
    pub index: u64,
    /// The log's verifier key.
    pub key: String,
    pub path: Vec<Hash>,
}

impl LogProof {
    /// The proof for the entry at `index` of the tree that a checkpoint of `size` entries is of.
    pub fn new((key, checkpoint): (&VerifierKey, String), index: u64, size: u64, nodes: &Nodes) -> Result<Self> {
        let path = ProofPlan::inclusion(index, size)?.proof(nodes)?;
        Ok(Self { checkpoint, index, key: key.to_string(), path })
    }

    /// The key whose log has the entry. `trusted` is a key that is known from elsewhere.
    pub(crate) fn check(&self, entry: Hash, trusted: Option<&VerifierKey>) -> Result<VerifierKey, String> {
        let key: VerifierKey = self.key.parse().map_err(|error: Error| error.to_string())?;
        if let Some(trusted) = trusted.filter(|trusted| **trusted != key) {
            return Err(format!("the log's key is {key}, and not {trusted}"));
        }
        let head = key.read_checkpoint(&self.checkpoint).map_err(|error| error.to_string())?;
        if root_by_path(Hash::of_entry(entry.bytes()), self.index, head.size, &self.path) != Some(head.root) {
            return Err(format!("the log of {} entries does not have the seal at {}", head.size, self.index));
        }
        Ok(key)
    }
}
