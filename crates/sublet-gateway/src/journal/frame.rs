//! The format of a segment: frames, each a group of records that became durable together.
//!
//! ```text
//! frame  = magic u32 | body length u32 | first sequence u64 | records u32 | crc32c u32 | body
//! body   = (length u32 | payload)*
//! ```
//! All numbers are little-endian. The checksum covers everything of the frame but itself. At most one
//! frame is ever unsynced, and it is the last one. A record is JSON, which has no control characters, and
//! every header has one: the last byte of its length. So no frame stands inside a record, and a frame that does not check out is a torn tail if
//! no good frame follows it, and corruption of synced data if one does.

/// "SJF1": the version is in the magic.
const MAGIC: [u8; 4] = *b"SJF1";
/// Bytes before the body.
pub const HEADER_BYTES: usize = 24;
const CHECKSUM_AT: usize = 20;
/// Records in one frame at most.
pub const FRAME_RECORDS_MAX: usize = 1_024;
/// Bytes of one record at most: a line's answer is in it, with every quotation mark escaped.
pub const RECORD_BYTES_MAX: usize = 64 * 1_024 + 2 * LINE_ANSWER_BYTES_MAX;
/// Bytes of one line's answer at most.
pub const LINE_ANSWER_BYTES_MAX: usize = 512 * 1_024;
/// Bytes of one frame's records at most, with the four bytes before each.
pub const FRAME_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// How many of the next payloads fit into one frame, from their lengths: at least one.
pub fn fitting(lengths: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = |length: &usize| {
        bytes += length + 4;
        bytes <= FRAME_BYTES_MAX
    };
    lengths.take(FRAME_RECORDS_MAX).take_while(fits).count().max(1)
}

/// Writes one frame of as many payloads as are [`fitting`].
pub fn encode<'a>(first_sequence: u64, payloads: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    let mut records = 0_u32;
    for payload in payloads {
        frame.extend_from_slice(&bounded(payload.len()).to_le_bytes());
        frame.extend_from_slice(payload);
        records += 1;
    }
    let body = bounded(frame.len() - HEADER_BYTES);
    frame[0..4].copy_from_slice(&MAGIC);
    frame[4..8].copy_from_slice(&body.to_le_bytes());
    frame[8..16].copy_from_slice(&first_sequence.to_le_bytes());
    frame[16..20].copy_from_slice(&records.to_le_bytes());
    let checksum = checksum(&frame);
    frame[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    frame
}

fn bounded(length: usize) -> u32 {
    u32::try_from(length).expect("a frame is bounded by its number of records and their size")
}

fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..CHECKSUM_AT]), &frame[HEADER_BYTES..])
}

/// One good frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    pub first_sequence: u64,
    pub records: u32,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Bytes of the whole frame.
    pub fn len(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
    /// The first sequence number after this frame.
    pub fn next_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.records)
    }
    pub fn payloads(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (payload, after) = after.split_at_checked(length)?;
            rest = after;
            Some(payload)
        })
    }
}

/// The bytes of the frame that starts here, if this can be the start of one.
pub fn announced_len(header: &[u8]) -> Option<usize> {
    let (magic, rest) = header.split_first_chunk::<4>()?;
    let body = rest.first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*body)).ok()?;
    (*magic == MAGIC && length <= FRAME_BYTES_MAX).then_some(HEADER_BYTES + length)
}

/// Reads the frame at the start of `bytes`, if it is whole and checks out.
pub fn decode(bytes: &[u8]) -> Option<Frame<'_>> {
    let frame = bytes.get(..announced_len(bytes)?)?;
    let stored = u32::from_le_bytes(*frame[CHECKSUM_AT..].first_chunk()?);
    if checksum(frame) != stored {
        return None;
    }
    let first_sequence = u64::from_le_bytes(*frame[8..].first_chunk()?);
    let records = u32::from_le_bytes(*frame[16..].first_chunk()?);
    // No writer gets there.
    first_sequence.checked_add(u64::from(records))?;
    Some(Frame { first_sequence, records, body: &frame[HEADER_BYTES..] })
}

/// What a segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scan {
    /// Bytes of good frames from the start.
    pub good_bytes: usize,
    pub next_sequence: u64,
    pub tail: Tail,
}

/// What follows the good frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    Clean,
    /// An unfinished write: no good frame follows.
    Torn,
    /// A good frame follows, or the sequence has a gap: synced data was changed.
    Corrupt,
}

/// Walks the frames of one segment that should begin with `first_sequence`.
pub fn scan(segment: &[u8], first_sequence: u64) -> Scan {
    let mut at = 0;
    let mut sequence = first_sequence;
    while at < segment.len() {
        let Some(frame) = decode(&segment[at..]) else {
            let tail = if good_frame_after(segment, at + 1) { Tail::Corrupt } else { Tail::Torn };
            return Scan { good_bytes: at, next_sequence: sequence, tail };
        };
        if frame.first_sequence != sequence {
            return Scan { good_bytes: at, next_sequence: sequence, tail: Tail::Corrupt };
        }
        sequence = frame.next_sequence();
        at += frame.len();
    }
    Scan { good_bytes: at, next_sequence: sequence, tail: Tail::Clean }
}

fn good_frame_after(segment: &[u8], from: usize) -> bool {
    (from..segment.len()).any(|at| segment[at] == MAGIC[0] && decode(&segment[at..]).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_frames() -> (Vec<u8>, usize) {
        let mut segment = encode(7, [b"one".as_slice(), b"", b"three"].into_iter());
        let first = segment.len();
        segment.extend(encode(10, [b"four".as_slice()].into_iter()));
        (segment, first)
    }

    #[test]
    fn frames_read_back_with_their_payloads() {
        let (segment, first) = two_frames();
        let frame = decode(&segment).unwrap();
        assert_eq!(frame.payloads().collect::<Vec<_>>(), [b"one".as_slice(), b"", b"three"]);
        assert_eq!((frame.len(), frame.next_sequence()), (first, 10));
        assert_eq!(scan(&segment, 7), Scan { good_bytes: segment.len(), next_sequence: 11, tail: Tail::Clean });
    }

    #[test]
    fn every_cut_is_a_torn_tail_that_keeps_the_whole_frames() {
        let (segment, first) = two_frames();
        for cut in 0..segment.len() {
            let scan = scan(&segment[..cut], 7);
            let (good, next) = if cut >= first { (first, 10) } else { (0, 7) };
            let tail = if cut == good { Tail::Clean } else { Tail::Torn };
            assert_eq!(scan, Scan { good_bytes: good, next_sequence: next, tail }, "cut at {cut}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (segment, first) = two_frames();
        for at in 0..segment.len() {
            for bit in 0..8 {
                let mut damaged = segment.clone();
                damaged[at] ^= 1 << bit;
                let expected = if at < first { Tail::Corrupt } else { Tail::Torn };
                assert_eq!(scan(&damaged, 7).tail, expected, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn no_header_can_be_written_in_json() {
        for payloads in [vec![b"".as_slice()], vec![b"record"; FRAME_RECORDS_MAX]] {
            assert!(encode(u64::MAX / 2, payloads.into_iter())[7].is_ascii_control());
        }
        let most = bounded(FRAME_BYTES_MAX).to_le_bytes();
        assert!(most[3].is_ascii_control(), "{most:?}");
    }

    #[test]
    fn a_frame_is_bounded_by_records_and_by_bytes() {
        let small = std::iter::repeat_n(10, 5_000);
        assert_eq!(fitting(small), FRAME_RECORDS_MAX);
        let large = std::iter::repeat_n(RECORD_BYTES_MAX, 5_000);
        let count = fitting(large);
        assert!((1..FRAME_RECORDS_MAX).contains(&count) && count * (RECORD_BYTES_MAX + 4) <= FRAME_BYTES_MAX, "{count}");
        assert_eq!(fitting(std::iter::empty()), 1);
    }

    #[test]
    fn a_gap_in_the_sequence_is_corruption() {
        let (segment, _) = two_frames();
        assert_eq!(scan(&segment, 6).tail, Tail::Corrupt);
    }
}
