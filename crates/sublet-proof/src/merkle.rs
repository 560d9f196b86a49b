//! Merkle trees as RFC 9162 (section 2.1) and RFC 6962 define them, over SHA-256.
//!
//! A tree is an append-only list of entries. Its root names all of them in their order; a path of at most 64 hashes
//! proves that an entry is in it, and another that a later tree begins with an earlier one. Whole subtrees never change
//! once they are full, so they are what is kept: a tree of any size is a handful of them.
//!
//! Deliberately absent: where nodes are kept. Callers learn which they need, and bring them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};

/// Most entries of a tree: what counts of a database can hold.
pub const ENTRIES_MAX: u64 = 1 << 62;

/// Characters of 32 bytes in base64.
const TEXT_BYTES: usize = 44;

/// The SHA-256 of an entry, a subtree or a statement; in text as base64 (RFC 4648 with padding).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

impl Hash {
    /// The plain SHA-256 of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_parts(&[bytes])
    }
    /// Of an entry of a tree.
    pub fn of_entry(entry: &[u8]) -> Self {
        Self::of_parts(&[&[0], entry])
    }
    /// Of a subtree with these halves.
    pub fn of_halves(left: Self, right: Self) -> Self {
        Self::of_parts(&[&[1], &left.0, &right.0])
    }
    /// Of bytes that follow each other; by the library that is fastest where the processor has no instructions for it.
    pub(crate) fn of_parts(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }
    /// The root of a tree without entries.
    pub fn of_nothing() -> Self {
        Self::of(&[])
    }
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// As it is written.
    fn text(&self) -> [u8; TEXT_BYTES] {
        let mut text = [0; TEXT_BYTES];
        // 32 bytes fill it exactly.
        let _ = BASE64.encode_slice(self.0, &mut text);
        text
    }
    /// Whether a text is what this is written as: each hash has one text only.
    pub fn is_written(&self, text: &str) -> bool {
        text.as_bytes() == self.text()
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = Error;
    fn try_from(bytes: &[u8]) -> Result<Self> {
        bytes.try_into().map(Self).map_err(|_| invalid(format!("a hash has 32 bytes, not {}", bytes.len())))
    }
}
impl FromStr for Hash {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bytes = BASE64.decode(text).map_err(|_| invalid("a hash is written as base64 of 32 bytes".to_owned()))?;
        Self::try_from(bytes.as_slice())
    }
}
impl TryFrom<String> for Hash {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A full subtree: the `place`th of those with 2^`level` entries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Node {
    pub level: u32,
    pub place: u64,
}

/// Hashes of full subtrees, as far as they are needed.
pub type Nodes = BTreeMap<Node, Hash>;

/// The full subtrees that entries are made of, the largest first.
fn full_subtrees(entries: Range<u64>) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut start = entries.start;
    while start < entries.end {
        let level = (entries.end - start).ilog2();
        nodes.push(Node { level, place: start >> level });
        start += 1 << level;
    }
    nodes
}

/// The full subtrees that a tree's root is made of, the largest first.
pub fn root_nodes(size: u64) -> Vec<Node> {
    full_subtrees(0..size)
}

/// Joins subtrees, the largest first, as the right edge of a tree is joined.
fn join(hashes: impl DoubleEndedIterator<Item = Hash>) -> Option<Hash> {
    hashes.rev().reduce(|right, left| Hash::of_halves(left, right))
}

/// The root over a full subtree's parts, which are as many as a power of two; `None` for any other number.
pub fn subtree(parts: &[Hash]) -> Option<Hash> {
    let mut tree = Frontier::default();
    for part in parts {
        tree.push(*part, |_, _| {}).ok()?;
    }
    parts.len().is_power_of_two().then(|| tree.root())
}

/// A growing tree: as many hashes as its size has ones in binary.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Frontier {
    size: u64,
    /// The largest subtree first.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// A tree that was kept: its size and the hashes of [`root_nodes`].
    pub fn resume(size: u64, nodes: &Nodes) -> Result<Self> {
        let peaks = root_nodes(size).into_iter().map(|node| get(nodes, node)).collect::<Result<_>>()?;
        Ok(Self { size, peaks })
    }
    pub const fn size(&self) -> u64 {
        self.size
    }
    /// Adds an entry by its hash; `full` gets each subtree that is full by it, the smallest first.
    pub fn push(&mut self, entry: Hash, mut full: impl FnMut(Node, Hash)) -> Result<()> {
        if self.size >= ENTRIES_MAX {
            return Err(Error::internal(format!("a tree has at most {ENTRIES_MAX} entries")));
        }
        let (mut hash, mut level, mut place) = (entry, 0, self.size);
        full(Node { level, place }, hash);
        while place % 2 == 1 {
            let Some(left) = self.peaks.pop() else { return Err(Error::internal("a tree lacks a subtree")) };
            hash = Hash::of_halves(left, hash);
            level += 1;
            place /= 2;
            full(Node { level, place }, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
        Ok(())
    }
    pub fn root(&self) -> Hash {
        join(self.peaks.iter().copied()).unwrap_or_else(Hash::of_nothing)
    }
}

/// Entries whose subtrees are the hashes of a proof, in the proof's order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProofPlan(Vec<Range<u64>>);

/// The largest power of two below `size`, which is at least 2: where a tree is split.
const fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

impl ProofPlan {
    /// That an entry is in a tree: PATH of RFC 9162, section 2.1.3.1.
    pub fn inclusion(index: u64, size: u64) -> Result<Self> {
        if index >= size || size > ENTRIES_MAX {
            return Err(Error::internal(format!("a tree of {size} entries has no entry {index}")));
        }
        let (mut tree, mut siblings) = (0..size, Vec::new());
        while tree.end - tree.start > 1 {
            let middle = tree.start + split(tree.end - tree.start);
            if index < middle {
                siblings.push(middle..tree.end);
                tree.end = middle;
            } else {
                siblings.push(tree.start..middle);
                tree.start = middle;
            }
        }
        siblings.reverse();
        Ok(Self(siblings))
    }

    /// That a tree begins with an earlier one: PROOF of RFC 9162, section 2.1.4.1.
    pub fn consistency(earlier: u64, size: u64) -> Result<Self> {
        if earlier == 0 || earlier > size || size > ENTRIES_MAX {
            return Err(Error::internal(format!("a tree of {size} entries is not compared with one of {earlier}")));
        }
        let (mut tree, mut parts, mut is_whole) = (0..size, Vec::new(), true);
        while earlier != tree.end {
            let middle = tree.start + split(tree.end - tree.start);
            if earlier <= middle {
                parts.push(middle..tree.end);
                tree.end = middle;
            } else {
                parts.push(tree.start..middle);
                tree.start = middle;
                is_whole = false;
            }
        }
        if !is_whole {
            parts.push(tree);
        }
        parts.reverse();
        Ok(Self(parts))
    }

    /// What has to be known.
    pub fn nodes(&self) -> Vec<Node> {
        self.0.iter().flat_map(|entries| full_subtrees(entries.clone())).collect()
    }
    /// The proof's hashes.
    pub fn proof(&self, nodes: &Nodes) -> Result<Vec<Hash>> {
        let hash = |entries: &Range<u64>| {
            let hashes = full_subtrees(entries.clone()).into_iter().map(|node| get(nodes, node)).collect::<Result<Vec<_>>>()?;
            join(hashes.into_iter()).ok_or_else(|| Error::internal("a proof names no entries"))
        };
        self.0.iter().map(hash).collect()
    }
}

fn get(nodes: &Nodes, node: Node) -> Result<Hash> {
    nodes.get(&node).copied().ok_or_else(|| Error::internal(format!("subtree {} of level {} is not known", node.place, node.level)))
}

/// The root of the tree of `size` entries in which a path puts an entry: RFC 9162, section 2.1.3.2. `None` for a path
/// that cannot be of such a tree.
pub fn root_by_path(entry: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut place, mut last, mut root) = (index, size - 1, entry);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if place % 2 == 1 || place == last {
            root = Hash::of_halves(*sibling, root);
            while place % 2 == 0 && place != 0 {
                place /= 2;
                last /= 2;
            }
        } else {
            root = Hash::of_halves(root, *sibling);
        }
        place /= 2;
        last /= 2;
    }
    (last == 0).then_some(root)
}

/// A tree as it is signed: how many entries, and the root over them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeHead {
    pub size: u64,
    pub root: Hash,
}

/// Whether a proof shows that `later` begins with `earlier`: RFC 9162, section 2.1.4.2.
pub fn is_consistent(earlier: TreeHead, later: TreeHead, proof: &[Hash]) -> bool {
    if earlier.size == later.size {
        return proof.is_empty() && earlier.root == later.root;
    }
    if earlier.size == 0 {
        return proof.is_empty() && earlier.root == Hash::of_nothing();
    }
    roots_by_proof(earlier, later, proof) == Some((earlier.root, later.root))
}

fn roots_by_proof(earlier: TreeHead, later: TreeHead, proof: &[Hash]) -> Option<(Hash, Hash)> {
    let (mut place, mut last) = (earlier.size.checked_sub(1)?, later.size.checked_sub(1)?);
    if place >= last {
        return None;
    }
    while place % 2 == 1 {
        place /= 2;
        last /= 2;
    }
    let mut hashes = proof.iter().copied();
    // The earlier tree is one full subtree of the later one where its size is a power of two.
    let first = if earlier.size.is_power_of_two() { earlier.root } else { hashes.next()? };
    let (mut old, mut new) = (first, first);
    for hash in hashes {
        if last == 0 {
            return None;
        }
        if place % 2 == 1 || place == last {
            old = Hash::of_halves(hash, old);
            new = Hash::of_halves(hash, new);
            while place % 2 == 0 && place != 0 {
                place /= 2;
                last /= 2;
            }
        } else {
            new = Hash::of_halves(new, hash);
        }
        place /= 2;
        last /= 2;
    }
    (last == 0).then_some((old, new))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
#[path = "merkle_tests.rs"]
mod tests;
