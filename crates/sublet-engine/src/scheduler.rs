//! Continuous batching: which sequences are computed in the next step.
//!
//! Sequences are in one of three places: *waiting* for a slot in order of arrival, *running*
//! (computed in every step), or *parked* (allowance used up, or the reader is slow). A parked
//! sequence holds no slot; its keys and values stay until somebody else needs the memory, and
//! are then computed again from its tokens, with the same result.
//!
//! Invariants: running ≤ `running_max`; prompt tokens per step ≤ `prefill_tokens_per_step_max`;
//! no sequence produces beyond its allowance; the oldest running sequence is never the one
//! whose memory is taken, so every step makes progress.
//!
//! Deliberately absent: priorities.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::ThreadPool;
use sublet_core::engine::FinishReason;
use sublet_core::{Clock, Timestamp};

use crate::config::EngineConfig;
use crate::decoder::Row;
use crate::inbox::{Inbox, Work};
use crate::kv::{KvCache, KvPool};
use crate::load::LoadedModel;
use crate::prefix::BLOCK_POSITIONS;
use crate::sequence::{Readiness, Sequence};

/// Products per step below which one thread is faster than several.
const PARALLEL_STEP_PRODUCTS_MIN: usize = 8_000_000;

/// Everything one model's thread owns.
pub struct Scheduler {
    model: Arc<LoadedModel>,
    config: EngineConfig,
    inbox: Arc<Inbox>,
    clock: Arc<dyn Clock>,
    threads: Option<ThreadPool>,
    pool: KvPool,
    waiting: BTreeMap<u64, Sequence>,
    /// In order of arrival.
    running: Vec<Sequence>,
    parked: BTreeMap<u64, Sequence>,
    ends: EndRate,
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
    pub fn new(model: Arc<LoadedModel>, config: EngineConfig, inbox: Arc<Inbox>, clock: Arc<dyn Clock>) -> Self {
        let pool = KvPool::new(&model.decoder.parameters, config.kv_bytes(model.decoder.weight_bytes()));
        let count = config.thread_count();
        let name = |index| format!("sublet-math-{index}");
        let threads =
            if count > 1 { rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(name).build().ok() } else { None };
        Self {
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
        }
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        loop {
            let work = if self.running.is_empty() && self.waiting.is_empty() { Work::None } else { Work::Some };
            if work == Work::None {
                self.ends.last = None;
            }
            let collected = self.inbox.collect(work);
            if collected.stopping {
                return;
            }
            for sequence in collected.arrivals {
                self.waiting.insert(sequence.number, sequence);
            }
            if collected.woken {
                self.sort_idle();
            }
            // A running sequence may have been cancelled since its last step.
            self.sort_running();
            self.admit();
            self.step();
            self.sort_running();
            self.inbox.report_places(self.running.len(), self.parked.len());
        }
    }

    /// Parks or drops the running sequences that cannot go on.
    fn sort_running(&mut self) {
        let mut over = 0;
        for mut sequence in std::mem::take(&mut self.running) {
            match sequence.readiness() {
                Readiness::Ready => self.running.push(sequence),
                Readiness::Waits => self.park(sequence),
                Readiness::Over => {
                    self.retire(&mut sequence);
                    over += 1;
                }
            }
        }
        self.record_over(over);
    }

    /// Moves the sequences that are not running to where they belong and drops those that are over.
    fn sort_idle(&mut self) {
        let mut over = 0;
        let idle = std::mem::take(&mut self.waiting).into_values().chain(std::mem::take(&mut self.parked).into_values());
        for mut sequence in idle {
            match sequence.readiness() {
                Readiness::Ready => {
                    self.waiting.insert(sequence.number, sequence);
                }
                Readiness::Waits => self.park(sequence),
                Readiness::Over => {
                    self.retire(&mut sequence);
                    over += 1;
                }
            }
        }
        self.record_over(over);
    }

    fn park(&mut self, mut sequence: Sequence) {
        if sequence.finished {
            self.retire(&mut sequence);
        }
        self.parked.insert(sequence.number, sequence);
    }

    /// Gives the memory of a finished sequence back, and keeps what the next prompt may begin with.
    fn retire(&mut self, sequence: &mut Sequence) {
        keep_beginning(&mut self.pool, sequence);
        self.pool.release(&mut sequence.cache);
    }

    fn record_over(&mut self, over: usize) {
        if over > 0 {
            self.inbox.report_over(over as u64);
            if let Some(micros) = self.ends.record(self.clock.now(), over) {
                self.inbox.report_end_interval(micros);
            }
        }
    }

    /// Gives free slots to the longest waiting.
    fn admit(&mut self) {
        while self.running.len() < self.config.running_max.max(1) {
            let Some((&number, first)) = self.waiting.first_key_value() else { break };
            let positions = first.tokens.len() + 1;
            let held = first.cache.capacity();
            if !self.make_room(positions.saturating_sub(held)) && !self.running.is_empty() {
                return;
            }
            if let Some(mut sequence) = self.waiting.remove(&number) {
                self.reuse(&mut sequence);
                let place = self.running.partition_point(|other| other.number < number);
                self.running.insert(place, sequence);
            }
        }
    }

    /// Begins a sequence that has computed nothing with what is kept. Its last token is always computed,
    /// because the next one is chosen from its logits.
    fn reuse(&mut self, sequence: &mut Sequence) {
        if sequence.cache.length == 0 {
            let mut hashes = sequence.block_hashes();
            hashes.truncate((sequence.tokens.len() - 1) / BLOCK_POSITIONS);
            self.pool.release(&mut sequence.cache);
            self.pool.begin(&mut sequence.cache, &hashes);
            sequence.note_reused();
        }
    }

    /// Takes memory from parked and waiting sequences, the youngest first, until `positions` fit.
    fn make_room(&mut self, positions: usize) -> bool {
        let pages = positions.div_ceil(crate::kv::PAGE_POSITIONS);
        if self.pool.has(pages) {
            return true;
        }
        // The first waiting sequence is the one that room is made for.
        for sequence in self.parked.values_mut().rev().chain(self.waiting.values_mut().skip(1).rev()) {
            self.pool.release(&mut sequence.cache);
            if self.pool.has(pages) {
                return true;
            }
        }
        false
    }

    /// Decides how many tokens of each running sequence are computed, and takes the memory.
    fn plan(&mut self) -> Vec<usize> {
        let mut prefill_left = self.config.prefill_tokens_per_step_max.max(1);
        let mut planned = Vec::with_capacity(self.running.len());
        let mut index = 0;
        while index < self.running.len() {
            let uncomputed = self.running[index].uncomputed();
            let count = if uncomputed == 1 { 1 } else { uncomputed.min(prefill_left) };
            let positions = self.running[index].cache.length + count;
            if count > 0 && !self.grow(index, positions) {
                // Not even the youngest could give way: this one is the youngest and waits.
                self.preempt_last();
                continue;
            }
            if uncomputed > 1 {
                prefill_left -= count;
            }
            planned.push(count);
            index += 1;
        }
        planned
    }

    /// Makes room for a running sequence, at the cost of parked and of younger running ones.
    fn grow(&mut self, index: usize, positions: usize) -> bool {
        loop {
            if self.pool.grow(&mut self.running[index].cache, positions) {
                return true;
            }
            let missing = positions.saturating_sub(self.running[index].cache.capacity());
            if self.make_room(missing) {
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

    /// The youngest running sequence goes back to wait and will be computed again.
    fn preempt_last(&mut self) {
        if let Some(mut youngest) = self.running.pop() {
            self.pool.release(&mut youngest.cache);
            self.waiting.insert(youngest.number, youngest);
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
        let mut logits = match &self.threads {
            Some(threads) if products >= PARALLEL_STEP_PRODUCTS_MIN => {
                threads.install(|| model.decoder.forward(&rows, &mut caches))
            }
            _ => model.decoder.forward(&rows, &mut caches),
        };
        let mut produced = 0;
        let mut logits = logits.chunks_exact_mut(model.decoder.parameters.vocabulary);
        for row in rows.iter().filter(|row| row.wants_logits) {
            let logits = logits.next().expect("one row of logits per row that wants them");
            let sequence = &mut self.running[row.cache];
            if !sequence.is_started() {
                // Others may ask the same while this one still answers.
                keep_beginning(&mut self.pool, sequence);
            }
            produced += advance(&model, sequence, logits);
        }
        self.inbox.report_step(produced);
    }

    fn rows(&self, planned: &[usize]) -> Vec<Row> {
        let mut rows = Vec::new();
        for (cache, (sequence, count)) in self.running.iter().zip(planned).enumerate() {
            let start = sequence.cache.length;
            for position in start..start + count {
                let wants_logits = position + 1 == sequence.tokens.len();
                rows.push(Row { token: sequence.tokens[position], position, cache, wants_logits });
            }
        }
        rows
    }
}

/// Keeps the whole blocks that a sequence has computed.
fn keep_beginning(pool: &mut KvPool, sequence: &Sequence) {
    if sequence.cache.length >= BLOCK_POSITIONS {
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
