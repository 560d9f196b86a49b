//! What a disk must never do to the usage journal: what it gives back is what was written, or an error.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::directory::{JournalDirectory, JournalFile};
use super::frame::{Tail, decode, encode, scan};
use super::segments::Segments;

/// Bytes of any kind as the only segment: nothing panics, and what is good stays good.
pub fn journal_bytes(data: &[u8]) {
    let Some((first, segment)) = data.split_first_chunk::<8>() else { return };
    let first = u64::from_le_bytes(*first);
    let found = scan(segment, first);
    assert!(found.good_bytes <= segment.len() && found.next_sequence >= first);
    let again = scan(&segment[..found.good_bytes], first);
    assert_eq!((again.tail, again.next_sequence), (Tail::Clean, found.next_sequence));
    open(&Memory::with(&[(format!("usage-{first:020}.journal"), segment.to_vec())]));
}

/// Segments that were written, and then damaged: a cut end loses the last write and nothing else, a
/// changed one is noticed, and every record that is read was written.
pub fn journal_damage(data: &[u8]) {
    let Some(([shape, place @ .., kind], text)) = data.split_first_chunk::<6>() else { return };
    let place = usize::try_from(u32::from_le_bytes(*place)).unwrap_or(0);
    // Records are JSON, which has no control characters: no frame can stand inside one.
    let text: Vec<u8> = text.iter().map(|byte| (*byte).max(b' ')).collect();
    let written = write(*shape, &text);
    let mut segment: Vec<u8> = written.concat();
    let place = place % segment.len().max(1);
    match kind % 4 {
        0 => segment.truncate(place),
        1 => flip(&mut segment, place, kind / 4),
        2 => segment.extend_from_slice(&text),
        // A disk that gives zeros back for what it had not synced.
        _ => segment[place..].fill(0),
    }
    let found = scan(&segment, 7);
    let mut at = 0;
    for frame in &written {
        if at >= found.good_bytes {
            break;
        }
        assert_eq!(segment.get(at..at + frame.len()), Some(frame.as_slice()), "what is read was written");
        at += frame.len();
    }
    assert!(at >= found.good_bytes || kind % 4 == 2, "nothing is read that was not written");
    match kind % 4 {
        0 => assert_ne!(found.tail, Tail::Corrupt, "a cut is no corruption"),
        1 => assert!(segment == written.concat() || found.tail != Tail::Clean, "a changed bit is noticed"),
        _ => {}
    }
    open(&Memory::with(&[("usage-00000000000000000007.journal".to_owned(), segment)]));
}

/// Frames with numbers from 7 on, out of parts of the text.
fn write(shape: u8, text: &[u8]) -> Vec<Vec<u8>> {
    let (frames, records) = (usize::from(shape & 3) + 1, usize::from(shape >> 2 & 7) + 1);
    let length = usize::from(shape >> 5) * 5;
    let mut parts = text.chunks(length.max(1)).cycle();
    let mut sequence = 7;
    let mut written = Vec::with_capacity(frames);
    for _ in 0..frames {
        let payloads: Vec<&[u8]> = (0..records).map(|_| parts.next().unwrap_or(b"")).collect();
        written.push(encode(sequence, payloads.iter().copied()));
        let frame = decode(&written[written.len() - 1]).expect("what was written is read");
        assert_eq!(frame.payloads().collect::<Vec<_>>(), payloads);
        sequence = frame.next_sequence();
    }
    written
}

fn flip(segment: &mut [u8], place: usize, bit: u8) {
    if let Some(byte) = segment.get_mut(place) {
        *byte ^= 1 << (bit % 8);
    }
}

/// Opens and reads to the end: as many records as the report says, or an error; and the same again.
fn open(directory: &Memory) {
    let Ok((segments, report)) = Segments::open(Arc::new(directory.clone())) else { return };
    let (mut cursor, mut records) = (segments.start(), 0);
    loop {
        match segments.read(&cursor, 3) {
            // A record that nobody can understand stops the settling, and is not skipped.
            Err(_) => break,
            Ok(None) => {
                assert_eq!(records, report.records, "every durable record is read");
                break;
            }
            Ok(Some((read, next))) => {
                records += u64::try_from(read.len()).unwrap_or(u64::MAX);
                assert!(next.last_read() > cursor.last_read(), "reading goes on");
                cursor = next;
            }
        }
    }
    let again = Segments::open(Arc::new(directory.clone())).map(|(_, report)| report);
    assert!(again.is_ok_and(|again| again.torn.is_none() && again.records == report.records), "the end was cut for good");
}

/// Files in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    fn with(files: &[(String, Vec<u8>)]) -> Self {
        Self(Arc::new(Mutex::new(files.iter().cloned().collect())))
    }
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn file<T>(&self, name: &str, work: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        self.files().get_mut(name).map(work).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl JournalDirectory for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn JournalFile>> {
        self.files().insert(name.to_owned(), Vec::new());
        self.open(name)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn JournalFile>> {
        Ok(Box::new(MemoryFile { directory: self.clone(), name: name.to_owned() }))
    }
    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.file(name, |bytes| bytes.iter().skip(offset).take(max).copied().collect())
    }
    fn len(&self, name: &str) -> io::Result<u64> {
        self.file(name, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name);
        Ok(())
    }
}

struct MemoryFile {
    directory: Memory,
    name: String,
}

impl JournalFile for MemoryFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.directory.file(&self.name, |file| file.extend_from_slice(bytes))
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.directory.file(&self.name, |file| file.truncate(usize::try_from(length).unwrap_or(usize::MAX)))
    }
}

#[cfg(test)]
mod tests {
    sublet_fuzz::tests!(Quick: journal_bytes, journal_damage);
}
