//! The thread that makes records durable, as many as wait with one sync.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use sublet_core::{Clock, Error, Result};
use tokio::sync::oneshot;

use super::frame::{self, RECORD_BYTES_MAX};
use super::is_full;
use super::segments::{Current, Segments};
use crate::config::JournalConfig;

/// Bytes that must fit before a full disk counts as usable again.
const PROBE_BYTES: usize = 64 * 1_024;

/// What became of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Written {
    Durable,
    /// Surely not in the journal.
    Refused,
    /// A failed sync: it may or may not be there after a restart.
    Unknown,
}

/// One record on its way to the disk.
pub(crate) struct Submission {
    pub payload: Vec<u8>,
    pub answer: Box<dyn FnOnce(Written) + Send>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Health {
    Ready,
    /// No space; everything acknowledged is safe.
    Full,
    /// A sync failed. What the disk holds is unknown, so nothing more is written in this life.
    Failed,
}

/// Figures for metrics.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Figures {
    pub records: u64,
    pub syncs: u64,
    pub sync_micros: u64,
    pub waiting: usize,
}

struct Queue {
    waiting: VecDeque<Submission>,
    /// Records ever accepted, and those of them that were answered.
    accepted: u64,
    answered: u64,
    /// Each waits until so many are answered.
    barriers: Vec<(u64, oneshot::Sender<()>)>,
    health: Health,
    probe: bool,
    stop: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    queue_records_max: usize,
    records: AtomicU64,
    syncs: AtomicU64,
    sync_micros: AtomicU64,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(segments: Arc<Segments>, config: JournalConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let current = segments.current()?;
        let queue = Queue {
            waiting: VecDeque::new(),
            accepted: 0,
            answered: 0,
            barriers: Vec::new(),
            health: Health::Ready,
            probe: false,
            stop: false,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            work: Condvar::new(),
            queue_records_max: config.queue_records_max,
            records: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            sync_micros: AtomicU64::new(0),
        });
        let segment_max = u64::try_from(config.segment_max.get()).unwrap_or(0);
        let mut disk = Disk { segments, current, segment_max, clock, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new()
            .name("usage-journal".to_owned())
            .spawn(move || disk.run())
            .map_err(|e| Error::internal(format!("no thread for the usage journal: {e}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub fn submit(&self, submission: Submission) {
        let mut queue = self.shared.queue();
        let accepted = queue.health != Health::Failed
            && !queue.stop
            && queue.waiting.len() < self.shared.queue_records_max
            && submission.payload.len() <= RECORD_BYTES_MAX;
        if accepted {
            queue.waiting.push_back(submission);
            queue.accepted += 1;
            drop(queue);
            self.shared.work.notify_one();
        } else {
            drop(queue);
            (submission.answer)(Written::Refused);
        }
    }

    pub fn health(&self) -> Health {
        self.shared.queue().health
    }

    /// Asks the writer to see whether there is space again.
    pub fn try_again(&self) {
        self.shared.queue().probe = true;
        self.shared.work.notify_one();
    }

    /// Returns when everything submitted before has been answered.
    pub async fn barrier(&self) {
        let (reply, done) = oneshot::channel();
        {
            let mut queue = self.shared.queue();
            let accepted = queue.accepted;
            queue.barriers.push((accepted, reply));
        }
        self.shared.work.notify_one();
        // A writer that has ended answers by dropping the sender.
        let _ended = done.await;
    }

    pub fn figures(&self) -> Figures {
        Figures {
            records: self.shared.records.load(Ordering::Relaxed),
            syncs: self.shared.syncs.load(Ordering::Relaxed),
            sync_micros: self.shared.sync_micros.load(Ordering::Relaxed),
            waiting: self.shared.queue().waiting.len(),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue().stop = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by its own message.
            let _ended = thread.join();
        }
    }
}

/// What the thread owns.
struct Disk {
    segments: Arc<Segments>,
    current: Current,
    segment_max: u64,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
}

/// What the thread should do next.
enum Work {
    Write(Vec<Submission>),
    Probe,
    Answer(Vec<(u64, oneshot::Sender<()>)>),
    Stop,
}

/// Ends the queue when the thread ends, however it ends: nobody may wait for it.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.stop = true;
        queue.health = Health::Failed;
        let (waiting, barriers) = (std::mem::take(&mut queue.waiting), std::mem::take(&mut queue.barriers));
        drop(queue);
        drop(barriers);
        for submission in waiting {
            (submission.answer)(Written::Refused);
        }
    }
}

impl Disk {
    fn run(&mut self) {
        let _ended = Ended(Arc::clone(&self.shared));
        loop {
            match self.next_work() {
                Work::Write(batch) => self.write(batch),
                Work::Probe => self.probe(),
                Work::Answer(barriers) => {
                    for (_, barrier) in barriers {
                        let _nobody = barrier.send(());
                    }
                }
                Work::Stop => return,
            }
        }
    }

    fn next_work(&self) -> Work {
        let mut queue = self.shared.queue();
        loop {
            let answered = queue.answered;
            let reached: Vec<_> = queue.barriers.extract_if(.., |(target, _)| *target <= answered).collect();
            if !reached.is_empty() {
                return Work::Answer(reached);
            }
            if !queue.waiting.is_empty() {
                let count = frame::fitting(queue.waiting.iter().map(|submission| submission.payload.len()));
                return Work::Write(queue.waiting.drain(..count).collect());
            }
            if queue.stop {
                return Work::Stop;
            }
            if std::mem::take(&mut queue.probe) && queue.health == Health::Full {
                return Work::Probe;
            }
            queue = self.shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&mut self, batch: Vec<Submission>) {
        let (written, health) = self.append(&batch);
        self.set_health(health);
        let records = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        if written == Written::Durable {
            self.shared.records.fetch_add(records, Ordering::Relaxed);
        }
        for submission in batch {
            (submission.answer)(written);
        }
        self.shared.queue().answered += records;
    }

    fn set_health(&self, health: Health) {
        let mut queue = self.shared.queue();
        if queue.health != health {
            tracing::warn!(from = ?queue.health, to = ?health, "the usage journal's state changed");
        }
        // Failed is final: a later success of the same file proves nothing about the pages a failed sync dropped.
        if queue.health != Health::Failed {
            queue.health = health;
        }
    }

    fn append(&mut self, batch: &[Submission]) -> (Written, Health) {
        if self.shared.queue().health == Health::Failed {
            return (Written::Refused, Health::Failed);
        }
        if self.current.durable_bytes > self.segment_max {
            match self.segments.start_segment() {
                Ok(current) => self.current = current,
                Err(error) => return self.not_written(&error),
            }
        }
        let bytes = frame::encode(self.current.next_sequence, batch.iter().map(|submission| submission.payload.as_slice()));
        if let Err(error) = self.current.file.append(&bytes) {
            return self.take_back(&error);
        }
        if let Err(error) = self.sync() {
            tracing::error!(%error, "the usage journal could not be synced; this gateway stops serving");
            return (Written::Unknown, Health::Failed);
        }
        self.current.durable_bytes += u64::try_from(bytes.len()).unwrap_or(0);
        self.current.next_sequence += u64::try_from(batch.len()).unwrap_or(0);
        self.segments.grew(&self.current);
        (Written::Durable, Health::Ready)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        let before = self.clock.now();
        let result = self.current.file.sync();
        let micros = self.clock.now().micros().saturating_sub(before.micros());
        self.shared.sync_micros.fetch_add(u64::try_from(micros).unwrap_or(0), Ordering::Relaxed);
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn not_written(&self, error: &std::io::Error) -> (Written, Health) {
        if is_full(error) {
            return (Written::Refused, Health::Full);
        }
        tracing::error!(%error, "the usage journal could not be written; this gateway stops serving");
        (Written::Refused, Health::Failed)
    }

    /// Cuts off what an unfinished append left, so that it can never be read back as a record.
    fn take_back(&mut self, error: &std::io::Error) -> (Written, Health) {
        let cut = self.current.file.truncate(self.current.durable_bytes).and_then(|()| self.current.file.sync());
        match cut {
            Ok(()) => self.not_written(error),
            Err(cut) => {
                tracing::error!(%error, %cut, "the usage journal's unfinished end could not be cut; this gateway stops serving");
                (Written::Unknown, Health::Failed)
            }
        }
    }

    /// Sees whether a block fits again. Zeros are never a frame, so a crash in between leaves a torn tail.
    fn probe(&mut self) {
        let fits = self.current.file.append(&[0; PROBE_BYTES]).and_then(|()| self.current.file.sync());
        let cut = self.current.file.truncate(self.current.durable_bytes).and_then(|()| self.current.file.sync());
        match (fits, cut) {
            (_, Err(error)) => {
                tracing::error!(%error, "the usage journal could not be cut after a probe; this gateway stops serving");
                self.set_health(Health::Failed);
            }
            (Ok(()), Ok(())) => self.set_health(Health::Ready),
            (Err(error), Ok(())) => {
                let (_, health) = self.not_written(&error);
                self.set_health(health);
            }
        }
    }
}
