//! Keys and values of prompts that came before, kept in whole blocks for prompts that begin the same.
//!
//! A block is known by a hash over everything before it and by the salt of its tenant, so that tenants
//! share nothing, not even the time a prompt takes. A block shares its pages with the sequences that
//! use them; pages go back to the pool when their last holder lets go.
//!
//! Invariants: a block's pages are written before it is kept and never after; what was used longest
//! ago goes first, a longer prefix before its own beginning.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::kv::{PAGE_POSITIONS, Page};

/// Positions of a block.
pub const BLOCK_POSITIONS: usize = 64;
/// Pages of a block.
pub const BLOCK_PAGES: usize = BLOCK_POSITIONS / PAGE_POSITIONS;

/// What a block is known by.
pub type BlockHash = [u8; 32];
/// When a block was last used, and how many blocks come before it: the order of going.
type Rank = (u64, Reverse<usize>, BlockHash);

struct Block {
    pages: Vec<Arc<Page>>,
    rank: Rank,
}

/// The kept blocks.
#[derive(Default)]
pub struct Prefixes {
    blocks: HashMap<BlockHash, Block>,
    order: BTreeSet<Rank>,
    tick: u64,
}

/// The hashes of the whole blocks that `tokens` begin with.
pub fn hashes(salt: &str, tokens: &[u32]) -> Vec<BlockHash> {
    let mut before: BlockHash = Sha256::digest(salt.as_bytes()).into();
    let next = |block: &[u32]| {
        let mut hash = Sha256::new_with_prefix(before);
        block.iter().for_each(|token| hash.update(token.to_le_bytes()));
        before = hash.finalize().into();
        before
    };
    tokens.chunks_exact(BLOCK_POSITIONS).map(next).collect()
}

impl Prefixes {
    /// The pages of the longest kept beginning of a prompt.
    pub fn find(&mut self, hashes: &[BlockHash]) -> Vec<Arc<Page>> {
        self.tick += 1;
        let mut pages = Vec::new();
        for (depth, hash) in hashes.iter().enumerate() {
            let Some(block) = self.blocks.get_mut(hash) else { break };
            self.order.remove(&block.rank);
            block.rank = (self.tick, Reverse(depth), *hash);
            self.order.insert(block.rank);
            pages.extend(block.pages.iter().cloned());
        }
        pages
    }

    /// Keeps the blocks of a sequence whose first pages are these.
    pub fn keep(&mut self, hashes: &[BlockHash], pages: &[Arc<Page>]) {
        self.tick += 1;
        for (depth, (hash, pages)) in hashes.iter().zip(pages.chunks_exact(BLOCK_PAGES)).enumerate() {
            let rank = (self.tick, Reverse(depth), *hash);
            if !self.blocks.contains_key(hash) {
                self.order.insert(rank);
                self.blocks.insert(*hash, Block { pages: pages.to_vec(), rank });
            }
        }
    }

    /// Lets go of the block that nobody uses and that was used longest ago; its pages.
    pub fn drop_oldest(&mut self) -> Option<Vec<Arc<Page>>> {
        let is_idle = |rank: &&Rank| self.blocks[&rank.2].pages.iter().all(|page| Arc::strong_count(page) == 1);
        let rank = *self.order.iter().find(is_idle)?;
        self.order.remove(&rank);
        self.blocks.remove(&rank.2).map(|block| block.pages)
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        assert_eq!(self.blocks.len(), self.order.len());
        self.blocks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(count: usize) -> Vec<Arc<Page>> {
        (0..count).map(|_| Arc::new(vec![0.0; 1].into_boxed_slice())).collect()
    }

    #[test]
    fn a_hash_is_of_everything_before_and_of_the_tenant() {
        let tokens: Vec<u32> = (0..200).collect();
        let all = hashes("a", &tokens);
        assert_eq!(all.len(), 3, "whole blocks only");
        assert_eq!(hashes("a", &tokens[..130]), all[..2]);
        assert_ne!(hashes("b", &tokens), all);
        let mut other = tokens.clone();
        other[0] = 999;
        assert!(hashes("a", &other).iter().zip(&all).all(|(one, two)| one != two));
        other.clone_from(&tokens);
        other[70] = 999;
        let changed = hashes("a", &other);
        assert_eq!((changed[0], changed[1] == all[1], changed[2] == all[2]), (all[0], false, false));
    }

    #[test]
    fn the_longest_beginning_is_found_and_the_oldest_goes_first() {
        let tokens: Vec<u32> = (0..192).collect();
        let (long, mut prefixes) = (hashes("a", &tokens), Prefixes::default());
        prefixes.keep(&long, &pages(12));
        let other = hashes("b", &tokens);
        prefixes.keep(&other[..1], &pages(4));
        assert_eq!((prefixes.find(&long).len(), prefixes.find(&other).len()), (12, 4));
        assert_eq!(prefixes.find(&long[..2]).len(), 8);
        // The third block of the first was used longest ago, then the other tenant's.
        assert!(prefixes.drop_oldest().is_some());
        assert_eq!((prefixes.find(&long).len(), prefixes.count()), (8, 3));
        let held = prefixes.find(&other);
        prefixes.find(&long);
        assert!(prefixes.drop_oldest().is_some() && prefixes.drop_oldest().is_some(), "blocks in use are passed over");
        assert!(prefixes.drop_oldest().is_none());
        drop(held);
        assert!(prefixes.drop_oldest().is_some());
        assert_eq!(prefixes.count(), 0);
    }
}
