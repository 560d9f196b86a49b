//! Continuous batching: which sequences are computed in the next step.
//!
//! Sequences are in one of three places: *waiting* for a slot by tier and arrival, *running*
//! (computed in every step), or *parked* (allowance used up, or the reader is slow). A parked
//! sequence holds no slot; its keys and values stay until somebody else needs the memory, and
//! are then computed again from its tokens, with the same result. So a sequence that gives way to
//! a higher tier goes on later as if nothing had been, unless it waits too long.
//!
//! A request for vectors is a sequence like the others: it holds a slot while one of its inputs is
//! computed, gives it to whoever waits before the next input, and has no more than half of all slots.
//!
//! Invariants: running ≤ `running_max`; prompt tokens per step ≤ `prefill_tokens_per_step_max`;
//! no sequence produces beyond its allowance; the first in rank of the running sequences is never
//! the one whose memory is taken, so every step makes progress; nothing waits for a slot longer
//! than its tier's bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::ThreadPool;
use sublet_core::engine::FinishReason;
use sublet_core::tier::ServiceTier;
use sublet_core::{Clock, DurationMs, Error, ErrorCode, Timestamp};

use crate::config::EngineConfig;
use crate::decoder::{Computed, Row, Wants};
use crate::inbox::{Inbox, Work, crowded};
use crate::kv::{KvCache, KvPool};
use crate::load::LoadedModel;
use crate::prefix::BLOCK_POSITIONS;
use crate::sequence::{Rank, Readiness, Sequence};
use crate::share::{Shares, Wanted};

/// Products per step below which one thread is faster than several.
const PARALLEL_STEP_PRODUCTS_MIN: usize = 8_000_000;

/// Time between two looks for sequences that wait too long.
const LOOK_INTERVAL: DurationMs = DurationMs::from_millis(100);

/// Everything one model's thread owns.
pub struct Scheduler {
    model: Arc<LoadedModel>,
    config: EngineConfig,
    inbox: Arc<Inbox>,
    clock: Arc<dyn Clock>,
    threads: Option<ThreadPool>,
    pool: KvPool,
    waiting: BTreeMap<Rank, Sequence>,
    /// By rank.
    running: Vec<Sequence>,
    parked: BTreeMap<Rank, Sequence>,
    /// When waiting sequences were last looked through for those that wait too long.
    looked_at: Timestamp,
    ends: EndRate,
    /// The order of service.
    numbers: Arc<AtomicU64>,
}

/// The smoothed time between two ends while there was work throughout.
#[derive(Default)]
struct EndRate {
    last: Option<Timestamp>,
    interval_micros: Option<f64>,
}

impl EndRate {
    fn record(&mut self, now: Timestamp, ended: usize) -> Option<u64> {
        let last = self.last.replace(now)?;
        let each = (now.micros() - last.micros()).max(0) as f64 / ended.max(1) as f64;
        let smoothed = self.interval_micros.map_or(each, |before| before * 0.8 + each * 0.2);
        self.interval_micros = Some(smoothed);
        Some(smoothed as u64)
    }
}

impl Scheduler {
    pub fn new(
        model: Arc<LoadedModel>,
        config: EngineConfig,
        (inbox, numbers): (Arc<Inbox>, Arc<AtomicU64>),
        clock: Arc<dyn Clock>,
    ) -> Self {
        let pool = KvPool::new(&model.decoder.parameters, config.kv_bytes(model.decoder.weight_bytes()));
        let count = config.thread_count();
        let name = |index| format!("sublet-math-{index}");
        let threads =
            if count > 1 { rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(name).build().ok() } else { None };
        Self {
            looked_at: clock.now(),
            model,
            config,
            inbox,
            clock,
            threads,
            pool,
            waiting: BTreeMap::new(),
            running: Vec::new(),
            parked: BTreeMap::new(),
            ends: EndRate::default(),
            numbers,
        }
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        while self.turn() {}
    }

    /// Takes what has arrived and computes a step; false if it was told to stop.
    pub fn turn(&mut self) -> bool {
        let work = if self.running.is_empty() && self.waiting.is_empty() { Work::None } else { Work::Some };
        if work == Work::None {
            self.ends.last = None;
        }
        let collected = self.inbox.collect(work);
        if collected.stopping {
            return false;
        }
        for sequence in collected.arrivals {
            self.waiting.insert(sequence.rank, sequence);
        }
        if collected.woken {
            self.sort_idle();
        }
        self.refuse_overdue();
        // A running sequence may have been cancelled since its last step.
        self.sort_running();
        self.admit();
        self.step();
        self.deliver_vectors();
        self.sort_running();
        self.inbox.report_places(self.running.len(), self.parked.len());
        true
    }

    /// Parks or drops the running sequences that cannot go on.
    fn sort_running(&mut self) {
        let mut over = Vec::new();
        for mut sequence in std::mem::take(&mut self.running) {
            match sequence.readiness() {
                Readiness::Ready => self.running.push(sequence),
                Readiness::Waits => self.park(sequence),
                Readiness::Over => {
                    self.retire(&mut sequence);
                    over.push(sequence.tier());
                }
            }
        }
        self.record_over(&over);
    }

    /// Moves the sequences that are not running to where they belong and drops those that are over.
    fn sort_idle(&mut self) {
        let mut over = Vec::new();
        let waiting = std::mem::take(&mut self.waiting).into_values().map(|sequence| (sequence, true));
        let parked = std::mem::take(&mut self.parked).into_values().map(|sequence| (sequence, false));
        for (mut sequence, was_waiting) in waiting.chain(parked) {
            match sequence.readiness() {
                Readiness::Ready => self.wait(sequence, was_waiting),
                Readiness::Waits => self.park(sequence),
                Readiness::Over => {
                    self.retire(&mut sequence);
                    over.push(sequence.tier());
                }
            }
        }
        self.record_over(&over);
    }

    fn park(&mut self, mut sequence: Sequence) {
        if sequence.finished {
            self.retire(&mut sequence);
        }
        self.parked.insert(sequence.rank, sequence);
    }

    /// Puts a sequence where it waits for a slot; its time begins unless it has begun.
    fn wait(&mut self, mut sequence: Sequence, has_begun: bool) {
        if !has_begun {
            sequence.waits_since = self.clock.now();
        }
        self.waiting.insert(sequence.rank, sequence);
    }

    /// Ends what waits longer than its tier may.
    fn refuse_overdue(&mut self) {
        let now = self.clock.now();
        if self.waiting.is_empty() || now.since(self.looked_at) < LOOK_INTERVAL {
            return;
        }
        self.looked_at = now;
        let config = &self.config;
        let is_overdue = |sequence: &Sequence| now.since(sequence.waits_since) > config.wait_max(sequence.tier());
        let overdue: Vec<Rank> =
            self.waiting.values().filter(|sequence| is_overdue(sequence)).map(|sequence| sequence.rank).collect();
        let mut over = Vec::new();
        for rank in overdue {
            let Some(mut sequence) = self.waiting.remove(&rank) else { continue };
            sequence.end_badly(self.overdue(&sequence));
            match sequence.readiness() {
                Readiness::Over => {
                    self.retire(&mut sequence);
                    over.push(sequence.tier());
                }
                Readiness::Waits | Readiness::Ready => self.park(sequence),
            }
        }
        for tier in over {
            self.inbox.report_over(tier);
        }
    }

    fn overdue(&self, sequence: &Sequence) -> Error {
        let tier = sequence.tier();
        let waited = self.config.wait_max(tier).seconds_ceil();
        let after = self.inbox.time_of_ends(self.waiting.len() as u64 + 1);
        if !sequence.is_started() {
            return crowded(format!("no place for a request of the tier '{tier}' was free for {waited} s"), after);
        }
        let message = format!("requests of a higher tier need the model: this one waited for {waited} s to go on");
        Error::new(ErrorCode::Preempted, message).retry_after(after).alternative("service_tier 'default'")
    }

    /// Gives the memory of a finished sequence back, and keeps what the next prompt may begin with.
    fn retire(&mut self, sequence: &mut Sequence) {
        keep_beginning(&mut self.pool, sequence);
        self.pool.release(&mut sequence.cache);
    }

    fn record_over(&mut self, over: &[ServiceTier]) {
        for tier in over {
            self.inbox.report_over(*tier);
        }
        if !over.is_empty()
            && let Some(micros) = self.ends.record(self.clock.now(), over.len())
        {
            self.inbox.report_end_interval(micros);
        }
    }

    /// Gives slots to the first in rank: free ones, and those of lower tiers.
    fn admit(&mut self) {
        while let Some((rank, missing)) = self.next_waiting() {
            if !self.make_slot(rank.0.0) || !self.make_room_for(rank, missing) {
                break;
            }
            if let Some(mut sequence) = self.waiting.remove(&rank) {
                self.reuse(&mut sequence);
                let place = self.running.partition_point(|other| other.rank < rank);
                self.running.insert(place, sequence);
            }
        }
        self.bound_flex();
    }

    /// Whether a sequence of a tier can have a slot, now that a lower one gave way if it had to.
    fn make_slot(&mut self, tier: ServiceTier) -> bool {
        let is_full = self.running.len() >= self.config.running_max.max(1);
        if tier == ServiceTier::Flex {
            return !is_full && (!self.has_better_than_flex() || self.flex_running() < self.config.flex_beside_max());
        }
        !is_full || self.pause_below(tier)
    }

    /// Makes room for what is to run; at the cost of running sequences of lower tiers if need be. Alone it runs anyway.
    fn make_room_for(&mut self, rank: Rank, positions: usize) -> bool {
        while !self.make_room(positions, Some(rank)) {
            if self.running.is_empty() {
                return true;
            }
            if self.running.last().is_none_or(|last| last.tier() >= rank.0.0) {
                return false;
            }
            self.preempt_last();
        }
        true
    }

    fn has_better_than_flex(&self) -> bool {
        self.running.first().is_some_and(|first| first.tier() > ServiceTier::Flex)
    }

    fn flex_running(&self) -> usize {
        self.running.len() - self.running.partition_point(|sequence| sequence.tier() > ServiceTier::Flex)
    }

    /// Beside others little of `flex` is computed.
    fn bound_flex(&mut self) {
        if self.has_better_than_flex() {
            while self.flex_running() > self.config.flex_beside_max() {
                self.pause_below(ServiceTier::Default);
            }
        }
    }

    /// The last in rank gives its slot up if it is of a lower tier. Its memory stays until somebody needs it.
    fn pause_below(&mut self, tier: ServiceTier) -> bool {
        match self.running.pop_if(|last| last.tier() < tier) {
            Some(paused) => {
                self.wait(paused, false);
                true
            }
            None => false,
        }
    }

    /// The sequence that gets the next slot, and the positions it needs memory for.
    fn next_waiting(&self) -> Option<(Rank, usize)> {
        let vectors = self.running.iter().filter(|sequence| sequence.vectors.is_some()).count();
        let no_more_vectors = vectors >= (self.config.running_max / 2).max(1);
        let mut waiting = self.waiting.values();
        let first = waiting.find(|sequence| !(no_more_vectors && sequence.vectors.is_some()))?;
        Some((first.rank, (first.tokens.len() + 1).saturating_sub(first.cache.capacity())))
    }

    /// Begins a sequence that has computed nothing with what is kept. Its last token is always computed,
    /// because the next one is chosen from its logits.
    fn reuse(&mut self, sequence: &mut Sequence) {
        if sequence.cache.length == 0 && sequence.vectors.is_none() {
            let mut hashes = sequence.block_hashes();
            hashes.truncate((sequence.tokens.len() - 1) / BLOCK_POSITIONS);
            self.pool.release(&mut sequence.cache);
            self.pool.begin(&mut sequence.cache, &hashes);
            sequence.note_reused();
        }
    }

    /// Takes memory from parked and waiting sequences, the last in rank first and never from the one that is
    /// `spared`, until `positions` fit.
    fn make_room(&mut self, positions: usize, spared: Option<Rank>) -> bool {
        let pages = positions.div_ceil(crate::kv::PAGE_POSITIONS);
        if self.pool.has(pages) {
            return true;
        }
        let waiting = self.waiting.values_mut().rev().filter(|sequence| Some(sequence.rank) != spared);
        for sequence in self.parked.values_mut().rev().chain(waiting) {
            self.pool.release(&mut sequence.cache);
            if self.pool.has(pages) {
                return true;
            }
        }
        false
    }

    /// Decides how many tokens of each running sequence are computed, and takes the memory.
    fn plan(&mut self) -> Vec<usize> {
        let mut shares = Shares::new(self.config.prefill_tokens_per_step_max.max(1), self.wanted());
        let mut flex_left = if self.has_better_than_flex() { self.config.flex_prefill_beside_max() } else { usize::MAX };
        let mut planned = Vec::with_capacity(self.running.len());
        let mut index = 0;
        while index < self.running.len() {
            let before = shares;
            let uncomputed = self.running[index].uncomputed();
            let is_vectors = self.running[index].vectors.is_some();
            // One token is a decode, which needs no share of what is for prompts.
            let is_bound = self.running[index].tier() == ServiceTier::Flex && uncomputed > 1;
            let wanted = if is_bound { uncomputed.min(flex_left) } else { uncomputed };
            let count = match wanted {
                0 => 0,
                wanted if is_vectors => shares.vectors(wanted),
                wanted => shares.prompt(wanted),
            };
            let positions = self.running[index].cache.length + count;
            if count > 0 && !self.grow(index, positions) {
                // Nobody could give way: this one is the last in rank and waits.
                shares = before;
                self.preempt_last();
                continue;
            }
            if is_bound {
                flex_left -= count;
            }
            planned.push(count);
            index += 1;
        }
        planned
    }

    fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for sequence in &self.running {
            match (sequence.vectors.is_some(), sequence.uncomputed()) {
                (true, uncomputed) => {
                    wanted.vectors += uncomputed;
                    wanted.vector_requests += 1;
                }
                (false, 0 | 1) => {}
                (false, uncomputed) => wanted.prompts += uncomputed,
            }
        }
        wanted
    }

    /// Makes room for a running sequence, at the cost of parked ones and of those behind it.
    fn grow(&mut self, index: usize, positions: usize) -> bool {
        loop {
            if self.pool.grow(&mut self.running[index].cache, positions) {
                return true;
            }
            let missing = positions.saturating_sub(self.running[index].cache.capacity());
            // Whoever is next is the last to lose what it has.
            let spared = self.waiting.keys().next().copied();
            if self.make_room(missing, spared) {
                continue;
            }
            if let Some(first) = self.waiting.first_entry().filter(|entry| entry.get().cache.capacity() > 0) {
                self.pool.release(&mut first.into_mut().cache);
                continue;
            }
            if self.running.len() <= index + 1 {
                return false;
            }
            self.preempt_last();
        }
    }

    /// The running sequence that is last in rank goes back to wait and will be computed again.
    fn preempt_last(&mut self) {
        if let Some(mut last) = self.running.pop() {
            self.pool.release(&mut last.cache);
            self.wait(last, false);
        }
    }

    /// Computes one batch and chooses a token for every sequence whose tokens are all computed.
    fn step(&mut self) {
        let planned = self.plan();
        let rows = self.rows(&planned);
        if rows.is_empty() {
            return;
        }
        let products = rows.len() * self.model.decoder.weight_count();
        let model = Arc::clone(&self.model);
        let mut caches: Vec<&mut KvCache> = self.running.iter_mut().map(|sequence| &mut sequence.cache).collect();
        let computed = match &self.threads {
            Some(threads) if products >= PARALLEL_STEP_PRODUCTS_MIN => {
                threads.install(|| model.decoder.forward(&rows, &mut caches))
            }
            _ => model.decoder.forward(&rows, &mut caches),
        };
        let produced = self.read_off(&rows, computed);
        self.inbox.report_step(produced);
    }

    /// Takes what was computed; returns how many output tokens that made.
    fn read_off(&mut self, rows: &[Row], mut computed: Computed) -> u64 {
        let model = Arc::clone(&self.model);
        let mut produced = 0;
        let mut logits = computed.logits.chunks_exact_mut(model.decoder.parameters.vocabulary);
        let mut states = computed.states.chunks_exact(model.decoder.parameters.hidden);
        for row in rows {
            let sequence = &mut self.running[row.cache];
            match row.wants {
                Wants::Nothing => {}
                Wants::State => {
                    let state = states.next().expect("one state per row that wants it");
                    if let Some(vectors) = &mut sequence.vectors {
                        vectors.add(row.position, state);
                    }
                }
                Wants::Logits => {
                    let logits = logits.next().expect("one row of logits per row that wants them");
                    if !sequence.is_started() {
                        // Others may ask the same while this one still answers.
                        keep_beginning(&mut self.pool, sequence);
                    }
                    produced += advance(&model, sequence, logits);
                }
            }
        }
        produced
    }

    /// Sends the vectors of inputs that are computed whole. Before its next input a request lets others go first.
    fn deliver_vectors(&mut self) {
        for mut sequence in std::mem::take(&mut self.running) {
            if sequence.vectors.is_some() && sequence.uncomputed() == 0 && !sequence.finished {
                sequence.deliver_vector();
                self.pool.release(&mut sequence.cache);
                if !sequence.finished && !self.waiting.is_empty() {
                    sequence.rank.1 = self.numbers.fetch_add(1, Ordering::Relaxed);
                    self.wait(sequence, false);
                    continue;
                }
            }
            self.running.push(sequence);
        }
    }

    fn rows(&self, planned: &[usize]) -> Vec<Row> {
        let mut rows = Vec::new();
        for (cache, (sequence, count)) in self.running.iter().zip(planned).enumerate() {
            let start = sequence.cache.length;
            for position in start..start + count {
                let wants = match &sequence.vectors {
                    Some(vectors) => vectors.wants(position, sequence.tokens.len()),
                    None if position + 1 == sequence.tokens.len() => Wants::Logits,
                    None => Wants::Nothing,
                };
                rows.push(Row { token: sequence.tokens[position], position, cache, wants });
            }
        }
        rows
    }
}

/// Keeps the whole blocks that a sequence has computed.
fn keep_beginning(pool: &mut KvPool, sequence: &Sequence) {
    if sequence.cache.length >= BLOCK_POSITIONS && sequence.vectors.is_none() {
        pool.keep(&sequence.cache, &sequence.block_hashes());
    }
}

/// Chooses a sequence's next token; returns how many output tokens that made.
fn advance(model: &LoadedModel, sequence: &mut Sequence, logits: &mut [f32]) -> u64 {
    sequence.report_started();
    let Some(allowed) = sequence.allowed() else { return 0 };
    let choice = sequence.sampler.choose(logits, allowed.as_ref(), &model.tokenizer);
    if model.end_tokens.contains(&choice.token) {
        sequence.finish(FinishReason::Stop);
        return 0;
    }
    let bytes = model.tokenizer.bytes(choice.token);
    sequence.accept(choice, bytes);
    1
}
