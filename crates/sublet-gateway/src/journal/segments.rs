//! The list of segment files: opening, reading and deleting them.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sublet_core::usage::UsageRecord;
use sublet_core::{Bytes, Error, ErrorCode, Result};
use tokio::sync::watch;

use super::directory::{JournalDirectory, JournalFile};
use super::frame::{self, Tail};
use super::{OpenReport, TornTail, io_error};

/// As much is read of a segment at once.
const READ_BYTES: usize = 256 * 1_024;
const PREFIX: &str = "usage-";
const SUFFIX: &str = ".journal";
/// Bytes a segment can have at most: one frame over its soft limit.
const SEGMENT_BYTES_MAX: usize = 256 * 1_024 * 1_024;
/// Numbers that records can have. Nobody gets to the last of them; a name beyond is no segment's.
const SEQUENCES: RangeInclusive<u64> = 1..=u64::MAX / 2;

/// All segments, oldest first; the last one is written.
pub(crate) struct Segments {
    directory: Arc<dyn JournalDirectory>,
    list: Mutex<VecDeque<Segment>>,
    /// The last durable sequence.
    durable: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct Segment {
    name: String,
    first_sequence: u64,
    /// The first sequence number after this segment's durable records.
    next_sequence: u64,
    durable_bytes: u64,
}

/// Where reading goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cursor {
    next_sequence: u64,
    offset: u64,
    segment: u64,
}

/// The segment that is appended to.
pub(crate) struct Current {
    pub file: Box<dyn JournalFile>,
    pub durable_bytes: u64,
    pub next_sequence: u64,
}

fn name_of(first_sequence: u64) -> String {
    format!("{PREFIX}{first_sequence:020}{SUFFIX}")
}

fn sequence_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl Segments {
    /// Scans every segment. Only the last one may end torn; that tail is cut off.
    pub fn open(directory: Arc<dyn JournalDirectory>) -> Result<(Self, OpenReport)> {
        let names = directory.list().map_err(|e| io_error("list", "its directory", &e))?;
        let mut found: Vec<(u64, String)> = names.into_iter().filter_map(|name| Some((sequence_of(&name)?, name))).collect();
        found.sort();
        let mut list = VecDeque::with_capacity(found.len());
        let mut report = OpenReport::default();
        let mut expected = found.first().map_or(1, |(first, _)| *first);
        let last = found.len().saturating_sub(1);
        for (position, (first_sequence, name)) in found.into_iter().enumerate() {
            if !SEQUENCES.contains(&first_sequence) {
                return Err(corrupt(&name, 0, "no segment of a journal has this name"));
            }
            if first_sequence != expected {
                return Err(corrupt(&name, 0, &format!("the records from {expected} on are missing before it")));
            }
            let bytes = directory.read(&name, 0, SEGMENT_BYTES_MAX).map_err(|e| io_error("read", &name, &e))?;
            let scan = frame::scan(&bytes, first_sequence);
            let good = length(scan.good_bytes);
            match scan.tail {
                Tail::Clean => {}
                Tail::Torn if position == last => {
                    cut(&*directory, &name, good)?;
                    report.torn = Some(TornTail { file: name.clone(), offset: good, bytes: length(bytes.len()) - good });
                }
                Tail::Torn | Tail::Corrupt => return Err(corrupt(&name, good, "a frame does not match its checksum or sequence")),
            }
            report.records += scan.next_sequence - first_sequence;
            expected = scan.next_sequence;
            list.push_back(Segment { name, first_sequence, next_sequence: scan.next_sequence, durable_bytes: good });
        }
        let (durable, _) = watch::channel(expected - 1);
        Ok((Self { directory, list: Mutex::new(list), durable }, report))
    }

    fn list(&self) -> MutexGuard<'_, VecDeque<Segment>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn durable(&self) -> u64 {
        *self.durable.borrow()
    }

    /// Tells of each growth of [`Segments::durable`].
    pub fn watch_durable(&self) -> watch::Receiver<u64> {
        self.durable.subscribe()
    }

    pub fn unsettled_bytes(&self) -> Bytes {
        let sum = self.list().iter().fold(0_u64, |sum, segment| sum.saturating_add(segment.durable_bytes));
        Bytes::new(i64::try_from(sum).unwrap_or(i64::MAX))
    }

    /// Begins a segment of its own for this start, so that the earlier ones can be deleted once they are settled.
    pub fn current(&self) -> Result<Current> {
        let empty = self.list().back().filter(|segment| segment.durable_bytes == 0).cloned();
        let Some(last) = empty else {
            return self.start_segment().map_err(|e| io_error("create a segment in", "its directory", &e));
        };
        let file = self.directory.open(&last.name).map_err(|e| io_error("open", &last.name, &e))?;
        Ok(Current { file, durable_bytes: last.durable_bytes, next_sequence: last.next_sequence })
    }

    /// Begins a new segment after everything durable.
    pub fn start_segment(&self) -> io::Result<Current> {
        let next_sequence = self.durable() + 1;
        let name = name_of(next_sequence);
        let file = self.directory.create(&name)?;
        let segment = Segment { name, first_sequence: next_sequence, next_sequence, durable_bytes: 0 };
        self.list().push_back(segment);
        Ok(Current { file, durable_bytes: 0, next_sequence })
    }

    /// The writer made more durable.
    pub fn grew(&self, current: &Current) {
        if let Some(last) = self.list().back_mut() {
            last.durable_bytes = current.durable_bytes;
            last.next_sequence = current.next_sequence;
        }
        self.durable.send_replace(current.next_sequence - 1);
    }

    /// The position of the oldest kept record.
    pub fn start(&self) -> Cursor {
        let list = self.list();
        let first = list.front().map_or(self.durable() + 1, |segment| segment.first_sequence);
        Cursor { next_sequence: first, offset: 0, segment: first }
    }

    /// The records of the next frames after `cursor`, at least of one and no more than it takes to have `records_max`, and
    /// where to go on; `None` if nothing more is durable.
    pub fn read(&self, cursor: &Cursor, records_max: usize) -> Result<Option<(Vec<UsageRecord>, Cursor)>> {
        let Some(place) = self.locate(cursor) else { return Ok(None) };
        let Place { name, offset, segment, durable_bytes } = place;
        let failed = |e: io::Error| io_error("read", &name, &e);
        let durable = usize::try_from(durable_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = self.directory.read(&name, offset, durable.min(READ_BYTES)).map_err(failed)?;
        let announced = frame::announced_len(&bytes).ok_or_else(|| changed(&name, offset))?;
        if announced > bytes.len() {
            bytes = self.directory.read(&name, offset, announced).map_err(failed)?;
        }
        let (mut records, mut next) = read_frame(&bytes, cursor.next_sequence, (&name, offset))?;
        let mut done = next.offset - offset;
        // What is cut at the end of what was read, or cannot be read, is for the next call.
        while records.len() < records_max
            && let Some(rest) = usize::try_from(done).ok().and_then(|done| bytes.get(done..))
            && frame::announced_len(rest).is_some_and(|announced| announced <= rest.len())
            && let Ok((more, after)) = read_frame(rest, next.next_sequence, (&name, next.offset))
        {
            records.extend(more);
            done += after.offset - next.offset;
            next = after;
        }
        Ok(Some((records, Cursor { segment, ..next })))
    }

    /// The place of the cursor, moved on over the end of a segment.
    fn locate(&self, cursor: &Cursor) -> Option<Place> {
        let list = self.list();
        let holding = list.iter().find(|s| s.first_sequence <= cursor.next_sequence && cursor.next_sequence < s.next_sequence)?;
        let offset = if holding.first_sequence == cursor.segment { cursor.offset } else { 0 };
        let durable_bytes = holding.durable_bytes;
        Some(Place { name: holding.name.clone(), offset, segment: holding.first_sequence, durable_bytes })
    }

    /// Deletes segments of which every record before `cursor` was settled, except the one being written.
    pub fn settled(&self, cursor: &Cursor) -> Result<()> {
        loop {
            let done = {
                let mut list = self.list();
                let whole = list.len() > 1 && list.front().is_some_and(|segment| segment.next_sequence <= cursor.next_sequence);
                if whole { list.pop_front() } else { None }
            };
            let Some(segment) = done else { return Ok(()) };
            self.directory.remove(&segment.name).map_err(|e| io_error("delete", &segment.name, &e))?;
        }
    }
}

fn changed(name: &str, offset: u64) -> Error {
    corrupt(name, offset, "a frame that was good does not match its checksum any more")
}

/// The records of the frame at the start of `bytes`, and where the next one is; its segment is for the caller to say.
fn read_frame(bytes: &[u8], first_sequence: u64, (name, offset): (&str, u64)) -> Result<(Vec<UsageRecord>, Cursor)> {
    let frame = frame::decode(bytes).filter(|frame| frame.first_sequence == first_sequence);
    let frame = frame.ok_or_else(|| changed(name, offset))?;
    let parse = |payload: &[u8]| {
        serde_json::from_slice(payload).map_err(|e| corrupt(name, offset, &format!("a record cannot be understood: {e}")))
    };
    let records = frame.payloads().map(parse).collect::<Result<_>>()?;
    Ok((records, Cursor { next_sequence: frame.next_sequence(), offset: offset + length(frame.len()), segment: 0 }))
}

/// Where to read on.
struct Place {
    name: String,
    offset: u64,
    segment: u64,
    durable_bytes: u64,
}

impl Cursor {
    /// Everything up to and including this sequence lies before the cursor.
    pub fn last_read(&self) -> u64 {
        self.next_sequence - 1
    }
}

fn cut(directory: &dyn JournalDirectory, name: &str, good: u64) -> Result<()> {
    let mut file = directory.open(name).map_err(|e| io_error("open", name, &e))?;
    file.truncate(good).and_then(|()| file.sync()).map_err(|e| io_error("cut the unfinished end of", name, &e))
}

fn corrupt(name: &str, offset: u64, what: &str) -> Error {
    Error::new(ErrorCode::LedgerMismatch, format!("the usage journal is damaged at byte {offset} of {name}: {what}"))
        .alternative("restore the file from a backup, or move it away and settle its records by hand")
}
