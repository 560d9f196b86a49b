//! Which beginnings of prompts a replica says that it keeps.
//!
//! Blocks are known here by a hash of their tokens that is chained from the beginning on, so that one look-up for each
//! block of a prompt says how much of it is there. What a gateway was not told, because it came later or missed an
//! event, is not there as far as it knows; then its own memory of what it sent counts as well.
//!
//! Invariant: memory is bounded by [`BLOCKS_MAX`].

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use super::wire::{BlockName, Event, Salt};
use crate::routing::Cached;

/// Blocks of one replica that are kept; more are not, and then not all is known.
const BLOCKS_MAX: usize = 262_144;

/// A beginning, up to the end of a block.
pub(super) type Chain = u64;

/// How an engine cuts prompts into blocks, and whether it says whose they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    block_tokens: usize,
    is_salted: bool,
}

/// A prompt as engines have it, and its beginnings for each shape of blocks that was asked about: made once, and not
/// while anybody holds what replicas said.
pub(crate) struct Tokens {
    ids: Vec<u32>,
    /// As the engines are told that keep tenants apart.
    salt: Arc<str>,
    beginnings: Mutex<Vec<(Shape, Arc<[Chain]>)>>,
}

impl Tokens {
    pub fn new(ids: Vec<u32>, salt: Arc<str>) -> Self {
        Self { ids, salt, beginnings: Mutex::default() }
    }

    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// The beginnings, block by block.
    pub(super) fn beginnings(&self, shape: Shape) -> Arc<[Chain]> {
        let mut made = self.beginnings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = made.iter().find(|(known, _)| *known == shape) {
            return Arc::clone(known);
        }
        let mut chain = beginning(shape.is_salted.then_some(&*self.salt));
        let blocks = self.ids.chunks_exact(shape.block_tokens);
        let chains: Arc<[Chain]> = blocks
            .map(|block| {
                chain = longer(chain, block);
                chain
            })
            .collect();
        made.push((shape, Arc::clone(&chains)));
        chains
    }
}

#[derive(Default, Debug)]
pub(super) struct Residence {
    blocks: HashMap<BlockName, Chain>,
    /// How many blocks have this beginning: an engine may have it twice.
    beginnings: HashMap<Chain, u32>,
    block_tokens: usize,
    /// The engine says whose its blocks are.
    is_salted: bool,
    is_connected: bool,
    /// All that is there was told.
    is_whole: bool,
    /// Some prompt was there: the engine writes prompts as this gateway does.
    has_matched: bool,
    /// The number of the next batch.
    next: Option<u64>,
}

impl Residence {
    /// Takes a batch by its number. A publisher counts from 0, and anew when it starts again.
    pub fn take(&mut self, number: u64, (events, is_understood): (Vec<Event>, bool)) {
        if self.next != Some(number) {
            self.forget();
            self.is_whole = number == 0;
        }
        self.next = number.checked_add(1);
        self.is_connected = true;
        self.is_whole &= is_understood;
        for event in events {
            match event {
                Event::Cleared => self.clear(),
                Event::Removed(blocks) => blocks.iter().for_each(|block| self.remove(*block)),
                Event::Stored { blocks, parent, tokens, block_tokens, salt } => {
                    self.is_whole &= self.store(&blocks, parent, (&tokens, block_tokens), &salt);
                }
            }
        }
    }

    /// `false` if not all of it could be taken.
    fn store(
        &mut self,
        blocks: &[BlockName],
        parent: Option<BlockName>,
        (tokens, block_tokens): (&[u32], usize),
        salt: &Salt,
    ) -> bool {
        if block_tokens == 0 || tokens.len() != blocks.len().saturating_mul(block_tokens) {
            return false;
        }
        // Engines with layers of several kinds may cut the same tokens in several ways.
        if self.block_tokens != block_tokens && !self.blocks.is_empty() {
            return false;
        }
        self.block_tokens = block_tokens;
        let mut chain = match (parent, salt) {
            (Some(parent), _) => match self.blocks.get(&parent) {
                Some(chain) => *chain,
                None => return false,
            },
            (None, Salt::Said(salt)) => {
                self.is_salted = true;
                beginning(salt.as_deref())
            }
            (None, Salt::Unsaid) => beginning(None),
        };
        let mut is_new = true;
        for (block, tokens) in blocks.iter().zip(tokens.chunks_exact(block_tokens)) {
            chain = longer(chain, tokens);
            if self.blocks.len() >= BLOCKS_MAX {
                return false;
            }
            // There twice, or said twice: it is not known whether one removal will be all.
            if let Some(before) = self.blocks.insert(*block, chain) {
                self.release(before);
                is_new = false;
            }
            *self.beginnings.entry(chain).or_default() += 1;
        }
        is_new
    }

    fn remove(&mut self, block: BlockName) {
        if let Some(chain) = self.blocks.remove(&block) {
            self.release(chain);
        }
    }

    fn release(&mut self, chain: Chain) {
        if let Some(count) = self.beginnings.get_mut(&chain) {
            *count -= 1;
            if *count == 0 {
                self.beginnings.remove(&chain);
            }
        }
    }

    fn clear(&mut self) {
        self.blocks.clear();
        self.beginnings.clear();
    }

    fn forget(&mut self) {
        self.clear();
        (self.is_whole, self.is_salted, self.has_matched) = (false, false, false);
    }

    /// Nobody tells any more what is there, and whoever does next may be another process.
    pub fn disconnected(&mut self) {
        (self.is_connected, self.next) = (false, None);
    }

    /// It is not believed before it says something again.
    pub fn doubt(&mut self) {
        self.is_connected = false;
    }

    /// How the prompt has to be cut to be found; `None` if nobody can say what is there. Engines that were told no salt
    /// keep all alike.
    pub fn shape(&self, is_salted: bool) -> Option<Shape> {
        let shape = Shape { block_tokens: self.block_tokens, is_salted: self.is_salted && is_salted };
        (self.is_connected && self.block_tokens > 0).then_some(shape)
    }

    /// That what is kept is of one mind, and bounded.
    #[cfg(any(test, fuzzing))]
    pub fn check(&self) {
        let mut counts: HashMap<Chain, u32> = HashMap::new();
        self.blocks.values().for_each(|chain| *counts.entry(*chain).or_default() += 1);
        assert_eq!(counts, self.beginnings);
        assert!(self.blocks.len() <= BLOCKS_MAX);
    }

    /// How many tokens are there in all; `None` if nobody can say.
    pub fn tokens(&self) -> Option<u64> {
        let tokens = self.blocks.len().saturating_mul(self.block_tokens);
        u64::try_from(tokens).ok().filter(|_| self.is_connected)
    }

    /// How many tokens are there of a prompt with these beginnings.
    pub fn cached(&mut self, beginnings: &[Chain], shape: Shape) -> Cached {
        let matched = beginnings.iter().take_while(|chain| self.beginnings.contains_key(chain)).count();
        self.has_matched |= matched > 0;
        let tokens = u64::try_from(matched.saturating_mul(shape.block_tokens)).unwrap_or(u64::MAX);
        Cached { tokens, is_all: self.is_whole && self.has_matched }
    }
}

/// Keyed by nothing: a collision costs a worse choice and tells nobody anything.
fn beginning(salt: Option<&str>) -> Chain {
    let mut hasher = DefaultHasher::new();
    salt.hash(&mut hasher);
    hasher.finish()
}

fn longer(chain: Chain, tokens: &[u32]) -> Chain {
    let mut hasher = DefaultHasher::new();
    (chain, tokens).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(blocks: &[BlockName], parent: Option<BlockName>, tokens: &[u32], salt: Option<&str>) -> Event {
        let salt = Salt::Said(salt.map(ToOwned::to_owned));
        Event::Stored { blocks: blocks.to_vec(), parent, tokens: tokens.to_vec(), block_tokens: 2, salt }
    }

    fn cached(residence: &mut Residence, tokens: &[u32], salt: Option<&str>) -> Option<(u64, bool)> {
        let shape = residence.shape(salt.is_some())?;
        let prompt = Tokens::new(tokens.to_vec(), salt.unwrap_or_default().into());
        let cached = residence.cached(&prompt.beginnings(shape), shape);
        Some((cached.tokens, cached.is_all))
    }

    #[test]
    fn a_prompt_is_there_as_far_as_its_blocks_are() {
        let mut residence = Residence::default();
        assert_eq!(cached(&mut residence, &[1, 2], Some("a")), None, "nobody said anything");
        residence.take(0, (vec![stored(&[10, 11], None, &[1, 2, 3, 4], Some("a")), stored(&[12], Some(11), &[5, 6], None)], true));
        assert_eq!(cached(&mut residence, &[8, 9], Some("a")), Some((0, false)), "nothing was ever found: it may write otherwise");
        assert_eq!(cached(&mut residence, &[1, 2, 3, 4, 5, 6, 7], Some("a")), Some((6, true)));
        assert_eq!(cached(&mut residence, &[1, 2, 3, 9], Some("a")), Some((2, true)));
        assert_eq!(cached(&mut residence, &[1, 2, 3, 4], Some("b")), Some((0, true)), "of another tenant");
        assert_eq!(cached(&mut residence, &[], Some("a")), Some((0, true)));
        residence.take(1, (vec![Event::Removed(vec![11, 99])], true));
        assert_eq!(cached(&mut residence, &[1, 2, 3, 4, 5, 6], Some("a")), Some((2, true)), "what is behind a gap is of no use");
        residence.take(2, (vec![Event::Cleared], true));
        assert_eq!(cached(&mut residence, &[1, 2], Some("a")), Some((0, true)));
    }

    #[test]
    fn a_beginning_that_is_there_twice_is_there_until_both_are_gone() {
        let mut residence = Residence::default();
        residence.take(0, (vec![stored(&[1], None, &[1, 2], None), stored(&[2], None, &[1, 2], None)], true));
        residence.take(1, (vec![Event::Removed(vec![1])], true));
        assert_eq!(cached(&mut residence, &[1, 2], None), Some((2, true)));
        residence.take(2, (vec![Event::Removed(vec![2])], true));
        assert_eq!(cached(&mut residence, &[1, 2], None), Some((0, true)));
    }

    #[test]
    fn who_missed_something_knows_that_it_did() {
        let mut residence = Residence::default();
        residence.take(7, (vec![stored(&[1], None, &[1, 2], None)], true));
        assert_eq!(cached(&mut residence, &[1, 2], None), Some((2, false)), "it came later");
        residence.take(9, (vec![], true));
        assert_eq!(cached(&mut residence, &[1, 2], None), Some((0, false)), "a removal may have been missed");
        let told = || (vec![stored(&[1], None, &[1, 2], None)], true);
        residence.take(0, told());
        assert_eq!(cached(&mut residence, &[1, 2], None), Some((2, true)), "the publisher started again");
        residence.take(1, (vec![stored(&[3], Some(99), &[1, 2], None)], true));
        assert_eq!(cached(&mut residence, &[1, 2], None), Some((2, false)), "behind a block that is not known");
        residence.take(0, told());
        residence.take(1, told());
        assert_eq!(cached(&mut residence, &[1, 2], None), Some((2, false)), "the same name twice");
        residence.take(0, told());
        residence.take(
            1,
            (vec![Event::Stored { blocks: vec![5], parent: None, tokens: vec![1], block_tokens: 1, salt: Salt::Unsaid }], true),
        );
        assert_eq!(cached(&mut residence, &[1, 2], None), Some((2, false)), "blocks of another size");
        residence.disconnected();
        assert_eq!(cached(&mut residence, &[1, 2], None), None);
        residence.take(2, (vec![], true));
        assert_eq!(cached(&mut residence, &[1, 2], None), Some((0, false)), "another process may have counted to the same number");
    }

    #[test]
    fn nonsense_is_not_believed() {
        let mut residence = Residence::default();
        for (tokens, block_tokens) in [(vec![1, 2, 3], 2), (vec![1], 0), (vec![], 2)] {
            let event = Event::Stored { blocks: vec![1], parent: None, tokens, block_tokens, salt: Salt::Unsaid };
            residence.take(0, (vec![event], true));
            assert!(residence.blocks.is_empty());
        }
        for number in [u64::MAX, 0, u64::MAX] {
            residence.take(number, (vec![], true));
        }
    }

    proptest! {
        #[test]
        fn blocks_and_beginnings_are_of_one_mind(steps in proptest::collection::vec((0_u8..3, 0_u64..6, 0_u64..7, 0_u32..3), 1..80)) {
            let mut residence = Residence::default();
            for (number, (what, block, parent, token)) in steps.into_iter().enumerate() {
                let event = match what {
                    0 => Event::Removed(vec![block]),
                    _ => stored(&[block], (parent < 6).then_some(parent), &[token, token], None),
                };
                residence.take(u64::try_from(number).unwrap(), (vec![event], true));
                residence.check();
            }
        }
    }
}
