//! From tokens to deliverable text: whole characters, nothing of a stop string, exact counts.
//!
//! Invariants: what is delivered ends where a token ends, except before a stop string; a token
//! is counted exactly when some of its text, or everything before its end, was delivered; what
//! is held back is shorter than the longest stop string plus one token and one character.

use std::collections::VecDeque;

use sublet_core::engine::PositionLogprobs;

/// Assembles one sequence's text.
pub struct TextAssembler {
    /// Each with its place in the request.
    stops: Vec<(u8, Vec<u8>)>,
    pending: Vec<u8>,
    tokens: VecDeque<PendingToken>,
    delivered: u64,
}

struct PendingToken {
    /// Where its bytes end in `pending`.
    end: usize,
    logprobs: Option<PositionLogprobs>,
}

/// Text that can be delivered now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Piece {
    pub text: String,
    pub logprobs: Vec<PositionLogprobs>,
}

/// What a token led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// Go on; `None` if nothing can be delivered yet.
    Open(Option<Piece>),
    /// The stop string of this place is complete; the piece is the last text.
    Stopped(u8, Option<Piece>),
}

impl TextAssembler {
    /// Empty stop strings are ignored.
    pub fn new(stops: &[String]) -> Self {
        let places = (0..u8::MAX).zip(stops);
        let stops = places.filter(|(_, stop)| !stop.is_empty()).map(|(place, stop)| (place, stop.as_bytes().to_vec())).collect();
        Self { stops, pending: Vec::new(), tokens: VecDeque::new(), delivered: 0 }
    }

    /// Tokens counted so far.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Adds one token.
    pub fn push(&mut self, bytes: &[u8], logprobs: Option<PositionLogprobs>) -> Pushed {
        self.pending.extend_from_slice(bytes);
        self.tokens.push_back(PendingToken { end: self.pending.len(), logprobs });
        if let Some((start, place)) = self.find_stop() {
            self.pending.truncate(start);
            return Pushed::Stopped(place, self.deliver_before_stop());
        }
        let safe = self.pending.len() - self.held_for_stop();
        let boundary = self
            .tokens
            .iter()
            .rev()
            .map(|token| token.end)
            .find(|end| *end <= safe && !ends_inside_character(&self.pending[..*end]));
        Pushed::Open(boundary.and_then(|end| self.deliver(end)))
    }

    /// Delivers all that is held back; an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> Option<Piece> {
        self.deliver(self.pending.len())
    }

    /// Where the first stop string begins, and its place.
    fn find_stop(&self) -> Option<(usize, u8)> {
        let found = |(place, stop): &(u8, Vec<u8>)| {
            self.pending.windows(stop.len()).position(|window| window == stop).map(|start| (start, *place))
        };
        self.stops.iter().filter_map(found).min()
    }

    /// Bytes at the end that may begin a stop string.
    fn held_for_stop(&self) -> usize {
        let held = |(_, stop): &(u8, Vec<u8>)| {
            let longest = (stop.len() - 1).min(self.pending.len());
            (1..=longest).rev().find(|length| self.pending.ends_with(&stop[..*length])).unwrap_or(0)
        };
        self.stops.iter().map(held).max().unwrap_or(0)
    }

    fn deliver(&mut self, end: usize) -> Option<Piece> {
        let mut piece = Piece { text: String::from_utf8_lossy(&self.pending[..end]).into_owned(), logprobs: Vec::new() };
        while self.tokens.front().is_some_and(|token| token.end <= end) {
            self.count(&mut piece);
        }
        self.pending.drain(..end);
        for token in &mut self.tokens {
            token.end -= end;
        }
        (!piece.text.is_empty() || !piece.logprobs.is_empty()).then_some(piece)
    }

    /// Everything left in `pending` precedes the stop string; tokens that begin in it count.
    fn deliver_before_stop(&mut self) -> Option<Piece> {
        let mut piece = Piece { text: String::from_utf8_lossy(&self.pending).into_owned(), logprobs: Vec::new() };
        let mut start = 0;
        while start < self.pending.len() {
            let Some(end) = self.tokens.front().map(|token| token.end) else { break };
            self.count(&mut piece);
            start = end;
        }
        self.pending.clear();
        self.tokens.clear();
        (!piece.text.is_empty() || !piece.logprobs.is_empty()).then_some(piece)
    }

    fn count(&mut self, piece: &mut Piece) {
        if let Some(token) = self.tokens.pop_front() {
            self.delivered += 1;
            piece.logprobs.extend(token.logprobs);
        }
    }
}

/// Whether the bytes end with the beginning of a character whose rest may still come.
fn ends_inside_character(bytes: &[u8]) -> bool {
    let tail_start = bytes.len().saturating_sub(3);
    let lead = bytes[tail_start..].iter().rposition(|byte| byte & 0xc0 != 0x80);
    let Some(at) = lead.map(|lead| tail_start + lead) else { return false };
    match std::str::from_utf8(&bytes[at..]) {
        Ok(_) => false,
        Err(error) => error.error_len().is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], tokens: &[&[u8]]) -> (Vec<(String, u64)>, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut assembler = TextAssembler::new(&stops);
        let mut pieces = Vec::new();
        for token in tokens {
            let (piece, stopped) = match assembler.push(token, None) {
                Pushed::Open(piece) => (piece, false),
                Pushed::Stopped(_, piece) => (piece, true),
            };
            pieces.extend(piece.map(|piece| (piece.text, assembler.delivered())));
            if stopped {
                return (pieces, true);
            }
        }
        pieces.extend(assembler.finish().map(|piece| (piece.text, assembler.delivered())));
        (pieces, false)
    }

    fn owned(pieces: &[(&str, u64)]) -> Vec<(String, u64)> {
        pieces.iter().map(|(text, count)| ((*text).to_owned(), *count)).collect()
    }

    #[test]
    fn text_is_whole_and_counted_exactly() {
        type Case<'a> = (&'a [&'a str], &'a [&'a [u8]], &'a [(&'a str, u64)], bool);
        let cases: &[Case<'_>] = &[
            (&[], &[b"a", b"b"], &[("a", 1), ("b", 2)], false),
            // A character over three tokens.
            (&[], &[b"x", b"\xe2", b"\x82", b"\xac", b"y"], &[("x", 1), ("€", 4), ("y", 5)], false),
            // A token that ends inside a character is delivered later, whole.
            (&[], &[b"a\xc3", b"\xa9b"], &[("aéb", 2)], false),
            // Bytes that never become a character.
            (&[], &[b"\xff", b"\xe2", b"a"], &[("\u{fffd}", 1), ("\u{fffd}a", 3)], false),
            (&[], &[b"a", b"\xe2\x82"], &[("a", 1), ("\u{fffd}", 2)], false),
            // A stop string in one token, over tokens, and one that is begun but not finished.
            (&["STOP"], &[b"a", b"STOP", b"c"], &[("a", 1)], true),
            (&["STOP"], &[b"a", b"bS", b"TO", b"Pc"], &[("a", 1), ("b", 2)], true),
            (&["STOP"], &[b"S", b"T", b"A"], &[("STA", 3)], false),
            (&["STOP"], &[b"S", b"TO"], &[("STO", 2)], false),
            // The earliest of two, though the other is listed first.
            (&["def", "bc"], &[b"abcdef"], &[("a", 1)], true),
            // Overlapping beginnings.
            (&["aab"], &[b"a", b"a", b"a", b"b"], &[("a", 1)], true),
            // Tokens without text count with what follows or at the end.
            (&[], &[b"", b"a", b""], &[("a", 2)], false),
            // A stop string at once delivers nothing and counts nothing.
            (&["ab"], &[b"a", b"b"], &[], true),
            (&[""], &[b"a"], &[("a", 1)], false),
        ];
        for (stops, tokens, pieces, stopped) in cases {
            assert_eq!(run(stops, tokens), (owned(pieces), *stopped), "{stops:?} {tokens:?}");
        }
    }

    #[test]
    fn the_stop_string_that_begins_first_is_named_by_its_place() {
        for (stops, expected) in [(["x", "", "bc"], 2), (["c", "bc", ""], 1), (["", "b", "bc"], 1)] {
            let mut assembler = TextAssembler::new(&stops.map(str::to_owned));
            let Pushed::Stopped(place, piece) = assembler.push(b"abcd", None) else { panic!("{stops:?} ends it") };
            assert_eq!((place, piece.map(|piece| piece.text)), (expected, Some("a".to_owned())), "{stops:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_of_a_text_delivers_the_text_before_the_stop(text in "[ab€é]{0,24}", cuts in prop::collection::vec(1..4_usize, 0..40), stop in "[ab€]{1,3}") {
            let (mut rest, mut tokens) = (text.as_bytes(), Vec::new());
            for cut in cuts {
                let (token, after) = rest.split_at(cut.min(rest.len()));
                tokens.push(token);
                rest = after;
            }
            tokens.push(rest);
            let expected = text.split(&stop).next().unwrap_or_default().to_owned();
            let (pieces, stopped) = run(&[&stop], &tokens);
            let joined: String = pieces.iter().map(|(text, _)| text.as_str()).collect();
            prop_assert_eq!(joined, expected);
            prop_assert_eq!(stopped, text.contains(&stop));
            let in_order = pieces.windows(2).all(|pair| pair[0].1 < pair[1].1 && !pair[0].0.contains('\u{fffd}'));
            prop_assert!(in_order);
            if !stopped && !pieces.is_empty() && !tokens.last().is_some_and(|t| t.is_empty()) {
                prop_assert_eq!(pieces.last().map(|piece| piece.1), Some(tokens.len() as u64));
            }
        }
    }
}
