//! Server-sent events as they arrive: bytes in, data lines out.
//!
//! Invariant: memory is bounded by the longest event that is allowed, whatever the server sends.

use bytes::{Buf, Bytes, BytesMut};

/// Longest line of a stream, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Cuts a stream of bytes into the data of its events.
#[derive(Default)]
pub(crate) struct EventReader {
    rest: BytesMut,
    /// Bytes of `rest` that are known to hold no line end.
    looked_at: usize,
}

/// A line is longer than [`LINE_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LineTooLong;

impl EventReader {
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > LINE_BYTES_MAX && !self.rest[self.looked_at..].contains(&b'\n') {
            return Err(LineTooLong);
        }
        Ok(())
    }

    /// The next event's data, if it is there as a whole. OpenAI-compatible servers send one data line per event;
    /// names, ids and comments are skipped.
    pub fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(end) = self.rest[self.looked_at..].iter().position(|byte| *byte == b'\n') else {
                self.looked_at = self.rest.len();
                return None;
            };
            let mut line = self.rest.split_to(self.looked_at + end + 1).freeze();
            self.looked_at = 0;
            line.truncate(line.len() - 1);
            if line.ends_with(b"\r") {
                line.truncate(line.len() - 1);
            }
            if line.starts_with(b"data:") {
                line.advance(5);
                if line.starts_with(b" ") {
                    line.advance(1);
                }
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(reader: &mut EventReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next()).map(|data| String::from_utf8(data.to_vec()).unwrap()).collect()
    }

    const STREAM: &str = ": hi\n\ndata: {\"a\":1}\n\nevent: x\r\ndata:{\"b\":2}\r\n\r\nid: 3\nretry: 1\n\ndata: [DONE]\n\n";

    proptest! {
        #[test]
        fn events_are_the_same_however_they_are_cut(cuts in proptest::collection::vec(0_usize..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut reader = EventReader::default();
            let mut seen = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([STREAM.len()]) {
                reader.push(&STREAM.as_bytes()[from..cut]).unwrap();
                seen.extend(all(&mut reader));
                from = cut;
            }
            prop_assert_eq!(seen, ["{\"a\":1}", "{\"b\":2}", "[DONE]"]);
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused_and_a_cut_event_is_not_one() {
        let mut reader = EventReader::default();
        reader.push(b"data: {\"a\":").unwrap();
        assert_eq!(reader.next(), None);
        let piece = vec![b'x'; LINE_BYTES_MAX / 2];
        reader.push(&piece).unwrap();
        assert_eq!(reader.next(), None);
        assert_eq!(reader.push(&piece), Err(LineTooLong));
    }
}
