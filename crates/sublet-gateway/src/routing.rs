//! Which replica a request goes to: where the least has to be computed before its first token.
//!
//! Replicas keep what they computed of earlier prompts. A gateway cannot see what they kept, but it
//! remembers where it sent which beginnings, in blocks whose hashes are chained, so that a block stands
//! for everything before it. The cost of a replica is what it still has to read for others, plus what of
//! this prompt it probably does not have, plus a share for each answer that it writes meanwhile.
//!
//! Invariants: no input or output, no clock, no chance; memory is bounded by
//! [`Routing::blocks_per_replica_max`] for each replica; of what is remembered tenants share nothing, because
//! their salt is in every hash.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{Hash, Hasher};

use sublet_core::id::ReplicaId;
use sublet_core::{DurationMs, Timestamp, TokenCount};

/// Bytes of text in one block: about 64 tokens.
pub const BLOCK_BYTES: usize = 256;
/// Blocks of one prompt that are looked at.
pub const BLOCKS_MAX: usize = 4_096;

/// The beginning of a prompt up to the end of a block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Block(pub u64);

/// The blocks of a text, each standing for all of the text up to its end. The last, incomplete one is left out.
pub fn blocks(salt: &str, parts: &[&[u8]]) -> Vec<Block> {
    // Keyed by nothing: a collision costs a worse choice and tells nobody anything.
    let mut chain = std::hash::DefaultHasher::new();
    salt.hash(&mut chain);
    let mut found = Vec::new();
    for part in parts {
        for piece in part.chunks_exact(BLOCK_BYTES) {
            if found.len() == BLOCKS_MAX {
                return found;
            }
            chain.write(piece);
            found.push(Block(chain.finish()));
        }
        // What is left of a part separates it from the next.
        chain.write(part.chunks_exact(BLOCK_BYTES).remainder());
    }
    found
}

/// How replicas are weighed.
#[derive(Clone, Copy, Debug)]
pub struct Routing {
    /// Blocks that are remembered for each replica; the longest unused are forgotten.
    pub blocks_per_replica_max: usize,
    /// How long a block is believed to be there after its last use.
    pub believed_for: DurationMs,
    /// Tokens of one block.
    pub block_tokens: u64,
    /// What an answer that is being written costs whoever waits to be read, in tokens to read.
    pub writing_tokens: u64,
}

impl Default for Routing {
    fn default() -> Self {
        Self { blocks_per_replica_max: 262_144, believed_for: DurationMs::from_seconds(600), block_tokens: 64, writing_tokens: 256 }
    }
}

/// A replica that could be asked.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub replica: ReplicaId,
    /// Tokens of prompts it was sent and has not answered to yet.
    pub reading: TokenCount,
    /// Answers it is writing.
    pub writing: u32,
    /// What it says that it has of the prompt, if it says so.
    pub cached: Option<Cached>,
}

/// How much of a prompt a replica says that it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cached {
    pub tokens: u64,
    /// It has no more: nothing of what it said was missed.
    pub is_all: bool,
}

/// What is remembered of one replica.
#[derive(Default, Debug)]
struct Memory {
    used: HashMap<Block, Use>,
    /// Uses in their order; a block that was used again is in it more than once.
    order: VecDeque<(u64, Block)>,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    at: Timestamp,
    number: u64,
}

impl Memory {
    fn add(&mut self, blocks: &[Block], at: Timestamp, number: &mut u64, most: usize) {
        for block in blocks.iter().take(most) {
            *number += 1;
            self.used.insert(*block, Use { at, number: *number });
            self.order.push_back((*number, *block));
        }
        while self.used.len() > most || self.order.len() > most.saturating_mul(4) {
            let Some((number, block)) = self.order.pop_front() else { return };
            if self.used.get(&block).is_some_and(|used| used.number == number) {
                self.used.remove(&block);
            }
        }
    }

    /// How many blocks from the beginning on are probably there.
    fn matched(&self, blocks: &[Block], since: Timestamp) -> usize {
        blocks.iter().take_while(|block| self.used.get(block).is_some_and(|used| used.at >= since)).count()
    }
}

/// Remembers where beginnings were sent, and chooses.
#[derive(Debug)]
pub struct Router {
    routing: Routing,
    memories: BTreeMap<ReplicaId, Memory>,
    /// Counts uses.
    number: u64,
}

impl Router {
    pub fn new(routing: Routing) -> Self {
        Self { routing, memories: BTreeMap::new(), number: 0 }
    }

    /// The candidates' places, cheapest first. Equal ones keep their order, which the caller turns.
    pub fn rank(&self, blocks: &[Block], prompt: TokenCount, candidates: &[Candidate], now: Timestamp) -> Vec<usize> {
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by_cached_key(|place| self.cost(blocks, prompt, &candidates[*place], now));
        order
    }

    /// Tokens that stand before the first one of the answer.
    fn cost(&self, blocks: &[Block], prompt: TokenCount, candidate: &Candidate, now: Timestamp) -> u64 {
        let reading = u64::try_from(candidate.reading.get()).unwrap_or(0);
        let writing = u64::from(candidate.writing).saturating_mul(self.routing.writing_tokens);
        reading.saturating_add(writing).saturating_add(self.uncached(blocks, prompt, (&candidate.replica, candidate.cached), now))
    }

    /// Tokens of a prompt that a replica probably has to read.
    pub fn uncached(
        &self,
        blocks: &[Block],
        prompt: TokenCount,
        (replica, said): (&ReplicaId, Option<Cached>),
        now: Timestamp,
    ) -> u64 {
        let since = now.minus(self.routing.believed_for);
        let matched = self.memories.get(replica).map_or(0, |memory| memory.matched(blocks, since));
        let remembered = u64::try_from(matched).unwrap_or(u64::MAX).saturating_mul(self.routing.block_tokens);
        let cached = match said {
            Some(Cached { tokens, is_all: true }) => tokens,
            Some(Cached { tokens, is_all: false }) => tokens.max(remembered),
            None => remembered,
        };
        u64::try_from(prompt.get()).unwrap_or(0).saturating_sub(cached)
    }

    /// A replica was sent a prompt.
    pub fn sent(&mut self, blocks: &[Block], replica: &ReplicaId, now: Timestamp) {
        let most = self.routing.blocks_per_replica_max;
        let memory = self.memories.entry(replica.clone()).or_default();
        memory.add(blocks, now, &mut self.number, most);
    }

    /// A replica failed: what it had is not believed any more.
    pub fn forget(&mut self, replica: &ReplicaId) {
        self.memories.remove(replica);
    }

    /// Forgets replicas that are no longer there.
    pub fn keep_only(&mut self, known: impl Fn(&ReplicaId) -> bool) {
        self.memories.retain(|replica, _| known(replica));
    }

    /// Blocks that are remembered in all.
    pub fn remembered(&self) -> usize {
        self.memories.values().map(|memory| memory.used.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use sublet_core::id::Identifier;

    fn replica(number: usize) -> ReplicaId {
        ReplicaId::from_trusted(Arc::from(format!("rep_{number}")))
    }

    fn idle(count: usize) -> Vec<Candidate> {
        (0..count)
            .map(|number| Candidate { replica: replica(number), reading: TokenCount::ZERO, writing: 0, cached: None })
            .collect()
    }

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn text(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at % 251).unwrap() ^ seed).collect()
    }

    #[test]
    fn prompts_that_begin_alike_have_the_same_first_blocks() {
        let (long, mut other) = (text(2_000, 0), text(2_000, 0));
        other[1_000] ^= 1;
        let (a, b) = (blocks("org", &[&long]), blocks("org", &[&other]));
        assert_eq!((a.len(), b.len()), (7, 7));
        assert_eq!(a[..3], b[..3]);
        assert!(a[3..].iter().zip(&b[3..]).all(|(a, b)| a != b), "a block stands for everything before it");
        assert!(blocks("other org", &[&long]).iter().zip(&a).all(|(a, b)| a != b), "tenants share nothing");
        assert_ne!(blocks("org", &[b"tools", &long]), a);
        assert_eq!(blocks("org", &[&text(BLOCK_BYTES * BLOCKS_MAX * 2, 0)]).len(), BLOCKS_MAX);
    }

    #[test]
    fn a_conversation_goes_on_where_it_began_until_that_is_busier_than_it_is_worth() {
        let mut router = Router::new(Routing::default());
        let talk = blocks("org", &[&text(64 * BLOCK_BYTES, 0)]);
        let prompt = TokenCount::new(64 * 64);
        let mut candidates = idle(3);
        assert_eq!(router.rank(&talk, prompt, &candidates, NOW), [0, 1, 2]);
        router.sent(&talk, &replica(1), NOW);
        assert_eq!(router.rank(&talk, prompt, &candidates, NOW)[0], 1);
        candidates[1].reading = TokenCount::new(4_000);
        assert_eq!(router.rank(&talk, prompt, &candidates, NOW)[0], 1, "4,000 tokens of others are less than 4,096 of its own");
        candidates[1].reading = TokenCount::new(5_000);
        assert_eq!(router.rank(&talk, prompt, &candidates, NOW)[0], 0, "it spills");
        candidates[1].reading = TokenCount::ZERO;
        let later = NOW.plus(DurationMs::from_seconds(601));
        assert_eq!(router.rank(&talk, prompt, &candidates, later)[0], 0, "it is not believed for ever");
        router.forget(&replica(1));
        assert_eq!((router.rank(&talk, prompt, &candidates, NOW)[0], router.remembered()), (0, 0));
    }

    #[test]
    fn replicas_that_write_more_are_left_to_their_answers() {
        let router = Router::new(Routing::default());
        let mut candidates = idle(2);
        candidates[0].writing = 3;
        assert_eq!(router.rank(&[], TokenCount::new(100), &candidates, NOW), [1, 0]);
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_what_was_used_last_stays(
            uses in proptest::collection::vec((0_usize..3, 0_u64..64, 1_usize..12), 1..200),
        ) {
            let routing = Routing { blocks_per_replica_max: 40, ..Routing::default() };
            let mut router = Router::new(routing);
            for (place, first, length) in uses {
                let prompt: Vec<Block> = (0..length).map(|at| Block(first * 1_000 + u64::try_from(at).unwrap())).collect();
                router.sent(&prompt, &replica(place), NOW);
                for memory in router.memories.values() {
                    prop_assert!(memory.used.len() <= 40 && memory.order.len() <= 160);
                }
                let tokens = TokenCount::new(i64::try_from(length * 64).unwrap());
                prop_assert_eq!(router.uncached(&prompt, tokens, (&replica(place), None), NOW), 0);
            }
        }
    }
}
