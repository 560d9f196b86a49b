//! The attempt-interval log: what happened to each attempt, in order, on disk.
//!
//! One append-only file. A record is its length, the CRC-32C of the rest, its sequence number and a JSON payload; the
//! lengths are little-endian. What the customer pays for (a start, an end) is synced before it is reported; proofs of
//! life are only written: they survive the death of the process, and if the machine dies an older one counts, which is
//! in the customer's favour.
//!
//! Invariants: sequence numbers grow and are never used twice, also over restarts and compaction. Memory is bounded by
//! the number of attempts kept: of proofs of life only the last of each attempt stays. A torn tail is cut off; damage
//! before the end is an error, never silently skipped.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sublet_core::id::AttemptId;
use sublet_core::runner::{AttemptEvent, Exit, SequencedEvent};
use sublet_core::time::Timestamp;

/// First bytes of the file: the format and its version.
const MAGIC: &[u8; 8] = b"SUBLRUN1";
/// Length, checksum and sequence number.
const HEADER_BYTES: usize = 16;
/// Bytes of one record's payload.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// The file is rewritten when it exceeds this many bytes and twice what the last rewrite left.
const COMPACT_BYTES_MIN: u64 = 4 * 1024 * 1024;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Record {
    /// The attempt was accepted and may have run from here on.
    Placed {
        attempt: AttemptId,
        at: Timestamp,
    },
    Event {
        attempt: AttemptId,
        event: AttemptEvent,
    },
    Forgotten {
        attempt: AttemptId,
    },
    /// Carries only its sequence number, so that numbers continue after compaction.
    Mark,
}

/// Whether an append must be on disk when it returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    Synced,
    Written,
}

/// What is known about one attempt.
#[derive(Clone, Default, Debug)]
struct Known {
    placed: Option<(u64, Timestamp)>,
    sequences: Vec<u64>,
    alive: Option<u64>,
    ended: bool,
}

/// An attempt that a dead runner left open, and the last instant at which it is known to have lived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfinished {
    pub attempt: AttemptId,
    pub started: bool,
    pub last_proof_of_life: Timestamp,
}

pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes known to be whole records.
    length: u64,
    length_after_compaction: u64,
    next_sequence: u64,
    events: BTreeMap<u64, SequencedEvent>,
    known: HashMap<AttemptId, Known>,
}

impl Journal {
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if bytes.len() < MAGIC.len() {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(MAGIC)?;
            file.sync_all()?;
            bytes = MAGIC.to_vec();
        }
        if !bytes.starts_with(MAGIC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not an attempt log of this version"));
        }
        let (records, whole) = scan(&bytes)?;
        let length = u64::try_from(whole).map_err(io::Error::other)?;
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            length,
            length_after_compaction: 0,
            next_sequence: 1,
            events: BTreeMap::new(),
            known: HashMap::new(),
        };
        for (sequence, record) in records {
            journal.next_sequence = journal.next_sequence.max(sequence.saturating_add(1));
            journal.apply(sequence, record);
        }
        Ok(journal)
    }

    pub fn knows(&self, attempt: &AttemptId) -> bool {
        self.known.contains_key(attempt)
    }

    /// When an attempt ended and how, if it has.
    pub fn end_of(&self, attempt: &AttemptId) -> Option<(Timestamp, Exit)> {
        let events = self.known.get(attempt)?.sequences.iter().filter_map(|sequence| self.events.get(sequence));
        events.rev().find_map(|event| match &event.event {
            AttemptEvent::Exited { at, exit, .. } => Some((*at, exit.clone())),
            AttemptEvent::Started { .. } | AttemptEvent::Alive { .. } | AttemptEvent::Contained { .. } => None,
        })
    }

    /// Attempts kept: placed and not forgotten.
    pub fn attempts(&self) -> usize {
        self.known.len()
    }

    /// Attempts without an end.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        let open = self.known.iter().filter(|(_, known)| !known.ended);
        open.map(|(attempt, known)| {
            let instants = known.sequences.iter().filter_map(|sequence| self.events.get(sequence)).filter_map(|e| match &e.event {
                AttemptEvent::Started { at, .. } | AttemptEvent::Alive { at } => Some(*at),
                AttemptEvent::Contained { .. } | AttemptEvent::Exited { .. } => None,
            });
            let last = instants.max();
            let placed = known.placed.map_or(Timestamp::EPOCH, |(_, at)| at);
            Unfinished { attempt: attempt.clone(), started: last.is_some(), last_proof_of_life: last.unwrap_or(placed) }
        })
        .collect()
    }

    /// Notes, synced, that the attempt may run from here on.
    pub fn place(&mut self, attempt: &AttemptId, at: Timestamp) -> io::Result<()> {
        self.append(vec![Record::Placed { attempt: attempt.clone(), at }], Durability::Synced)
    }

    pub fn record(&mut self, events: Vec<(AttemptId, AttemptEvent)>, durability: Durability) -> io::Result<()> {
        self.append(events.into_iter().map(|(attempt, event)| Record::Event { attempt, event }).collect(), durability)
    }

    pub fn forget(&mut self, attempt: &AttemptId) -> io::Result<()> {
        if !self.knows(attempt) {
            return Ok(());
        }
        self.append(vec![Record::Forgotten { attempt: attempt.clone() }], Durability::Written)
    }

    /// Events after a sequence number, oldest first.
    pub fn events_after(&self, sequence: u64, max: usize) -> Vec<SequencedEvent> {
        let Some(first) = sequence.checked_add(1) else { return Vec::new() };
        self.events.range(first..).take(max).map(|(_, event)| event.clone()).collect()
    }

    fn append(&mut self, records: Vec<Record>, durability: Durability) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (sequence, record) in (self.next_sequence..).zip(&records) {
            encode(&mut bytes, sequence, record)?;
        }
        if let Err(error) = self.write(&bytes, durability) {
            // What was half written must not stand before the next record.
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.length += u64::try_from(bytes.len()).map_err(io::Error::other)?;
        for record in records {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            self.apply(sequence, record);
        }
        let long = self.length > COMPACT_BYTES_MIN.max(self.length_after_compaction.saturating_mul(2));
        if long && let Err(error) = self.compact() {
            // The records are safe in the long file; the next append tries again.
            tracing::warn!(%error, "the interval log could not be compacted");
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], durability: Durability) -> io::Result<()> {
        self.file.write_all(bytes)?;
        match durability {
            Durability::Synced => self.file.sync_data(),
            Durability::Written => Ok(()),
        }
    }

    fn apply(&mut self, sequence: u64, record: Record) {
        match record {
            Record::Placed { attempt, at } => self.known.entry(attempt).or_default().placed = Some((sequence, at)),
            Record::Event { attempt, event } => self.apply_event(sequence, attempt, event),
            Record::Forgotten { attempt } => {
                for sequence in self.known.remove(&attempt).unwrap_or_default().sequences {
                    self.events.remove(&sequence);
                }
            }
            Record::Mark => {}
        }
    }

    fn apply_event(&mut self, sequence: u64, attempt: AttemptId, event: AttemptEvent) {
        let known = self.known.entry(attempt.clone()).or_default();
        match &event {
            AttemptEvent::Alive { .. } => {
                if let Some(older) = known.alive.replace(sequence) {
                    self.events.remove(&older);
                    known.sequences.retain(|kept| *kept != older);
                }
            }
            AttemptEvent::Exited { .. } => known.ended = true,
            AttemptEvent::Started { .. } | AttemptEvent::Contained { .. } => {}
        }
        known.sequences.push(sequence);
        self.events.insert(sequence, SequencedEvent { sequence, attempt, event });
    }

    /// Rewrites the file with what is still known, beside the old one, and swaps them.
    fn compact(&mut self) -> io::Result<()> {
        let mut kept: Vec<(u64, Record)> = Vec::new();
        for (attempt, known) in &self.known {
            if let Some((sequence, at)) = known.placed {
                kept.push((sequence, Record::Placed { attempt: attempt.clone(), at }));
            }
        }
        for (sequence, event) in &self.events {
            kept.push((*sequence, Record::Event { attempt: event.attempt.clone(), event: event.event.clone() }));
        }
        kept.push((self.next_sequence, Record::Mark));
        kept.sort_by_key(|(sequence, _)| *sequence);
        let mut bytes = MAGIC.to_vec();
        for (sequence, record) in &kept {
            encode(&mut bytes, *sequence, record)?;
        }
        let beside = self.path.with_extension("new");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        self.file = file;
        self.length = u64::try_from(bytes.len()).map_err(io::Error::other)?;
        self.length_after_compaction = self.length;
        self.next_sequence += 1;
        Ok(())
    }
}

fn encode(bytes: &mut Vec<u8>, sequence: u64, record: &Record) -> io::Result<()> {
    let payload = serde_json::to_vec(record)?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(io::Error::other("attempt log record too long"));
    }
    let mut body = sequence.to_le_bytes().to_vec();
    body.extend_from_slice(&payload);
    bytes.extend_from_slice(&u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(())
}

/// All whole records and where they end. Damage that is followed by a whole record is an error.
fn scan(bytes: &[u8]) -> io::Result<(Vec<(u64, Record)>, usize)> {
    let mut records = Vec::new();
    let mut offset = MAGIC.len();
    while let Some((sequence, record, next)) = decode(bytes, offset) {
        records.push((sequence, record));
        offset = next;
    }
    let mut probe = offset + 1;
    while probe < bytes.len() {
        if decode(bytes, probe).is_some() {
            let message = format!("the attempt log is damaged at byte {offset} and goes on at byte {probe}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        probe += 1;
    }
    Ok((records, offset))
}

fn decode(bytes: &[u8], offset: usize) -> Option<(u64, Record, usize)> {
    let header = bytes.get(offset..offset.checked_add(HEADER_BYTES)?)?;
    let length = usize::try_from(u32::from_le_bytes(header.get(..4)?.try_into().ok()?)).ok()?;
    if length > PAYLOAD_BYTES_MAX {
        return None;
    }
    let end = offset + HEADER_BYTES + length;
    let body = bytes.get(offset + 8..end)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(header.get(4..8)?.try_into().ok()?) {
        return None;
    }
    let sequence = u64::from_le_bytes(header.get(8..16)?.try_into().ok()?);
    let record = serde_json::from_slice(bytes.get(offset + HEADER_BYTES..end)?).ok()?;
    Some((sequence, record, end))
}

#[cfg(test)]
mod tests {
    use sublet_core::id::Identifier;
    use sublet_core::quantity::Bytes;
    use sublet_core::runner::Isolation;
    use sublet_core::time::DurationMs;

    use super::*;

    fn attempt(number: u8) -> AttemptId {
        AttemptId::encode(Timestamp::from_millis(1), [number; 10])
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn started(millis: i64) -> AttemptEvent {
        AttemptEvent::Started { at: at(millis), isolation: Isolation::default() }
    }

    fn exited(millis: i64) -> AttemptEvent {
        let exit = Exit::Code { code: 0 };
        AttemptEvent::Exited { at: at(millis), exit, cpu_time: DurationMs::ZERO, peak_memory: Bytes::ZERO }
    }

    fn alive(millis: i64) -> AttemptEvent {
        AttemptEvent::Alive { at: at(millis) }
    }

    fn record(journal: &mut Journal, number: u8, event: AttemptEvent) {
        journal.record(vec![(attempt(number), event)], Durability::Written).unwrap();
    }

    /// One finished attempt, one that is running, one that was only placed.
    fn busy(path: &Path) -> Journal {
        let mut journal = Journal::open(path).unwrap();
        for number in 1..=3 {
            journal.place(&attempt(number), at(10)).unwrap();
        }
        record(&mut journal, 1, started(20));
        record(&mut journal, 2, started(21));
        record(&mut journal, 1, alive(30));
        record(&mut journal, 2, alive(31));
        record(&mut journal, 1, exited(40));
        record(&mut journal, 2, alive(41));
        journal
    }

    #[test]
    fn a_restart_remembers_events_and_goes_on_counting() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let before = busy(&path).events_after(0, 100);
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.events_after(0, 100), before);
        record(&mut journal, 2, exited(50));
        let last = journal.events_after(0, 100).pop().unwrap().sequence;
        assert!(last > before.last().unwrap().sequence);
    }

    #[test]
    fn an_unfinished_attempt_ends_at_its_last_proof_of_life() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        drop(busy(&path));
        let mut unfinished = Journal::open(&path).unwrap().unfinished();
        unfinished.sort_by(|a, b| a.attempt.cmp(&b.attempt));
        let expected = [
            Unfinished { attempt: attempt(2), started: true, last_proof_of_life: at(41) },
            Unfinished { attempt: attempt(3), started: false, last_proof_of_life: at(10) },
        ];
        assert_eq!(unfinished, expected);
    }

    #[test]
    fn any_torn_tail_is_cut_off_and_the_records_before_it_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let whole = {
            let mut journal = busy(&path);
            let whole = journal.length;
            record(&mut journal, 2, exited(60));
            usize::try_from(whole).unwrap()
        };
        let bytes = fs::read(&path).unwrap();
        for cut in whole..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            assert_eq!(journal.unfinished().len(), 2, "cut at {cut}");
            record(&mut journal, 2, exited(61));
            drop(journal);
            assert_eq!(Journal::open(&path).unwrap().unfinished().len(), 1, "cut at {cut}");
        }
    }

    #[test]
    fn damage_before_the_end_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        drop(busy(&path));
        let mut bytes = fs::read(&path).unwrap();
        bytes[60] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = Journal::open(&path).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }

    #[test]
    fn proofs_of_life_do_not_accumulate_in_memory_or_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut journal = busy(&path);
        for millis in 100..40_100 {
            record(&mut journal, 2, alive(millis));
        }
        assert_eq!(journal.events_after(0, 100).len(), 5);
        assert!(journal.length < COMPACT_BYTES_MIN + 1_000, "{}", journal.length);
        let events = journal.events_after(0, 100);
        let next = journal.next_sequence;
        drop(journal);
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.events_after(0, 100), events);
        assert!(journal.next_sequence >= next);
        assert_eq!(journal.unfinished().len(), 2);
    }

    #[test]
    fn a_forgotten_attempt_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut journal = busy(&path);
        for number in 1..=3 {
            journal.forget(&attempt(number)).unwrap();
        }
        assert_eq!((journal.attempts(), journal.events_after(0, 100).len()), (0, 0));
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().attempts(), 0);
    }
}
