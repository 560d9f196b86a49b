//! One charge with the proof that it is in its invoice and that its invoice is in the log: what a customer shows to
//! somebody who must not see the rest of the bill.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, Result};
use sublet_money::canonical::canonical_json;

use crate::cose::Inclusion;
use crate::leaf::{ChargeLeaf, leaf_hash};
use crate::merkle::{Hash, root_by_path};
use crate::note::{LogKey, VerifierKey};
use crate::seal::{LogProof, Seal};

/// Names the meaning of a receipt; a change of meaning is a new name.
const SCHEMA: &str = "sublet-receipt/1";

/// As it is given to others: canonical JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The same for programs that read COSE receipts: base64 of one over the seal's root, signed by the log's key.
    cose: String,
    /// The leaf's place among those of its invoice, from 0.
    index: u64,
    leaf: String,
    log: LogProof,
    /// From the leaf to the seal's root.
    path: Vec<Hash>,
    schema: String,
    seal: Seal,
}

impl Receipt {
    /// `path` is that of the leaf in the seal's tree; `key` is that of the log.
    pub fn new((index, leaf): (u64, String), path: Vec<Hash>, (seal, log): (Seal, LogProof), key: &LogKey) -> Result<Self> {
        if root_by_path(leaf_hash(&leaf), index, seal.leaves(), &path) != Some(seal.root()) {
            return Err(Error::internal(format!("the path of leaf {index} does not lead to the root of {}", seal.number())));
        }
        let inclusion = Inclusion { size: seal.leaves(), index, path: &path, root: seal.root() };
        let cose = BASE64.encode(inclusion.sign(key)?);
        Ok(Self { cose, index, leaf, log, path, schema: SCHEMA.to_owned(), seal })
    }
    pub fn text(&self) -> Result<String> {
        canonical_json(self)
    }
    pub const fn seal(&self) -> &Seal {
        &self.seal
    }
    /// The place of the seal in the log.
    pub const fn log_index(&self) -> u64 {
        self.log.index
    }
    /// The charge that is proven, as far as it can be read.
    pub fn charge(&self) -> Result<ChargeLeaf<'_>, String> {
        serde_json::from_str(&self.leaf).map_err(|error| format!("the leaf cannot be read: {error}"))
    }

    /// Reads a receipt and checks it. `trusted` is the log's key as it is known from elsewhere, if it is.
    pub fn verify(text: &str, trusted: Option<&VerifierKey>) -> Result<(Self, VerifierKey), String> {
        let receipt: Self = serde_json::from_str(text).map_err(|error| format!("it cannot be read: {error}"))?;
        if receipt.schema != SCHEMA {
            return Err(format!("a receipt of '{}' cannot be read; this program knows {SCHEMA}", receipt.schema));
        }
        if receipt.text().map_err(|error| error.to_string())? != text {
            return Err("it is not in canonical form".to_owned());
        }
        receipt.charge()?;
        let seal = &receipt.seal;
        seal.check_schema()?;
        let key = receipt.log.check(seal.entry().map_err(|error| error.to_string())?, trusted)?;
        let root = root_by_path(leaf_hash(&receipt.leaf), receipt.index, seal.leaves(), &receipt.path);
        if root != Some(seal.root()) {
            return Err(format!("the leaf is not the one at {} of {}", receipt.index, seal.number()));
        }
        let inclusion = Inclusion { size: seal.leaves(), index: receipt.index, path: &receipt.path, root: seal.root() };
        if !inclusion.is_signed(&key, &BASE64.decode(&receipt.cose).unwrap_or_default()) {
            return Err("its COSE receipt is not of this leaf, or not signed by the log's key".to_owned());
        }
        Ok((receipt, key))
    }
}
