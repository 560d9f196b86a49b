//! Changes known inputs: what a fuzzer without a guide does, repeatably.

/// Longest changed input, in bytes.
const INPUT_BYTES_MAX: usize = 64 * 1_024;
/// Changes of one input at most.
const CHANGES_MAX: u64 = 6;
/// Parts that parsers look for, and values at the ends of ranges.
const PARTS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"true",
    b"false",
    b"0",
    b"-1",
    b"1e-2147483648",
    b"1e309",
    b"0.0000001",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"4294967296",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"\n",
    b"\r\n\r\n",
    b"data: ",
    b"[DONE]",
    b"\"index\":",
    b"\"usage\":",
    b"<tool_call>",
    b"</tool_call>",
    b"(.*)*",
    b"{0,65535}",
    b"\"$ref\":\"#\"",
];

/// Numbers that look random and are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn from_name(name: &str) -> Self {
        Self(hash(name.as_bytes()) | 1)
    }

    /// Xorshift, with the multiplication that evens out its low bits.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `bound`; 0 for an empty range.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Makes changed inputs out of known ones.
pub struct Changer<'a> {
    known: &'a [Vec<u8>],
    random: Random,
}

impl<'a> Changer<'a> {
    pub fn new(known: &'a [Vec<u8>], random: Random) -> Self {
        Self { known, random }
    }

    pub fn next(&mut self) -> Vec<u8> {
        let mut input = self.known[self.random.below(self.known.len())].clone();
        for _ in 0..=self.random.next() % CHANGES_MAX {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.below(input.len() + 1);
        match self.random.below(9) {
            0 => self.flip(input),
            1 => input.truncate(at),
            2 => self.insert(input, at),
            3 => self.remove(input),
            4 => self.repeat(input),
            5 => self.replace_number(input),
            6 => self.splice(input, at),
            7 => self.exchange(input),
            _ => self.set(input),
        }
    }

    fn range(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let from = self.random.below(input.len());
        let length = 1 + self.random.below((input.len() - from).min(64));
        from..(from + length).min(input.len())
    }

    fn flip(&mut self, input: &mut [u8]) {
        let (at, bit) = (self.random.below(input.len()), self.random.below(8));
        if let Some(byte) = input.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    fn set(&mut self, input: &mut [u8]) {
        let (at, value) = (self.random.below(input.len()), self.random.next().to_le_bytes()[0]);
        if let Some(byte) = input.get_mut(at) {
            *byte = value;
        }
    }

    fn insert(&mut self, input: &mut Vec<u8>, at: usize) {
        let part = PARTS[self.random.below(PARTS.len())];
        input.splice(at..at, part.iter().copied());
    }

    fn remove(&mut self, input: &mut Vec<u8>) {
        let range = self.range(input);
        input.drain(range);
    }

    /// The same again, up to so often that a bound is met.
    fn repeat(&mut self, input: &mut Vec<u8>) {
        let range = self.range(input);
        let (end, part) = (range.end, input[range].to_vec());
        let times = 1 << self.random.below(10);
        input.splice(end..end, part.repeat(times));
        input.truncate(INPUT_BYTES_MAX);
    }

    /// Another number in the place of one.
    fn replace_number(&mut self, input: &mut Vec<u8>) {
        let digits: Vec<usize> = (0..input.len()).filter(|at| input[*at].is_ascii_digit()).collect();
        if digits.is_empty() {
            return;
        }
        let from = digits[self.random.below(digits.len())];
        let to = from + input[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = PARTS[10 + self.random.below(9)];
        input.splice(from..to, number.iter().copied());
    }

    /// The end of another known input.
    fn splice(&mut self, input: &mut Vec<u8>, at: usize) {
        let other = &self.known[self.random.below(self.known.len())];
        let from = self.random.below(other.len() + 1);
        input.truncate(at);
        input.extend_from_slice(&other[from..]);
    }

    /// Two parts in each other's place.
    fn exchange(&mut self, input: &mut Vec<u8>) {
        let (one, other) = (self.range(input), self.range(input));
        if one.end <= other.start {
            let (first, second) = (input[one.clone()].to_vec(), input[other.clone()].to_vec());
            input.splice(other, first);
            input.splice(one, second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_inputs_are_bounded_and_differ() {
        let known = [b"{\"n\":12,\"s\":\"text\"}".to_vec(), Vec::new()];
        let mut changer = Changer::new(&known, Random::from_name("x"));
        let mut inputs: Vec<Vec<u8>> = (0..2_000).map(|_| changer.next()).collect();
        assert!(inputs.iter().all(|input| input.len() <= INPUT_BYTES_MAX));
        inputs.sort();
        inputs.dedup();
        assert!(inputs.len() > 1_000, "{}", inputs.len());
    }
}
