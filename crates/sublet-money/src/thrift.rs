//! Thrift's compact protocol, written: the few kinds of fields that the metadata of Parquet files has.
//!
//! Fields are given in the order of their numbers.

/// The number of a field in its structure.
pub type Field = i16;

const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// A structure being written.
pub struct Struct {
    bytes: Vec<u8>,
    last: Field,
}

impl Struct {
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), last: 0 }
    }

    fn field(&mut self, number: Field, kind: u8) {
        let step = u8::try_from(number - self.last).ok().filter(|step| (1..=15).contains(step));
        match step {
            Some(step) => self.bytes.push((step << 4) | kind),
            None => {
                self.bytes.push(kind);
                write_varint(&mut self.bytes, zigzag(i64::from(number)));
            }
        }
        self.last = number;
    }

    #[must_use]
    pub fn i32(mut self, number: Field, value: i32) -> Self {
        self.field(number, I32);
        write_varint(&mut self.bytes, zigzag(i64::from(value)));
        self
    }
    #[must_use]
    pub fn i64(mut self, number: Field, value: i64) -> Self {
        self.field(number, I64);
        write_varint(&mut self.bytes, zigzag(value));
        self
    }
    #[must_use]
    pub fn text(mut self, number: Field, text: &str) -> Self {
        self.field(number, BINARY);
        write_text(&mut self.bytes, text);
        self
    }
    #[must_use]
    pub fn list(mut self, number: Field, list: List) -> Self {
        self.field(number, LIST);
        self.bytes.extend(list.end());
        self
    }
    /// A structure that was ended.
    #[must_use]
    pub fn structure(mut self, number: Field, structure: &[u8]) -> Self {
        self.field(number, STRUCT);
        self.bytes.extend(structure);
        self
    }
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

/// A list being written.
pub struct List {
    kind: u8,
    length: u64,
    bytes: Vec<u8>,
}

impl List {
    pub const fn of_structs() -> Self {
        Self { kind: STRUCT, length: 0, bytes: Vec::new() }
    }
    pub const fn of_i32() -> Self {
        Self { kind: I32, length: 0, bytes: Vec::new() }
    }
    pub const fn of_texts() -> Self {
        Self { kind: BINARY, length: 0, bytes: Vec::new() }
    }
    /// A structure that was ended.
    pub fn push(&mut self, structure: &[u8]) {
        self.length += 1;
        self.bytes.extend(structure);
    }
    pub fn push_i32(&mut self, value: i32) {
        self.length += 1;
        write_varint(&mut self.bytes, zigzag(i64::from(value)));
    }
    pub fn push_text(&mut self, text: &str) {
        self.length += 1;
        write_text(&mut self.bytes, text);
    }
    fn end(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len() + 4);
        match u8::try_from(self.length).ok().filter(|length| *length < 15) {
            Some(length) => bytes.push((length << 4) | self.kind),
            None => {
                bytes.push(0xf0 | self.kind);
                write_varint(&mut bytes, self.length);
            }
        }
        bytes.extend(self.bytes);
        bytes
    }
}

/// Seven bits a byte, the lowest first.
pub fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// Small numbers of either sign as small numbers.
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn write_text(bytes: &mut Vec<u8>, text: &str) {
    write_varint(bytes, u64::try_from(text.len()).unwrap_or(u64::MAX));
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_fields_are_as_the_protocol_writes_them() {
        for (value, written) in [(0, vec![0]), (-1, vec![1]), (1, vec![2]), (150, vec![0xac, 0x02]), (-65, vec![0x81, 0x01])] {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, zigzag(value));
            assert_eq!(bytes, written, "{value}");
        }
        let far = Struct::new().i32(1, 2).i64(20, -1).text(21, "a").end();
        assert_eq!(far, [0x15, 4, 0x06, 40, 1, 0x18, 1, b'a', 0]);
        let mut list = List::of_i32();
        (0..15).for_each(|value| list.push_i32(value));
        assert_eq!(list.end().get(..3), Some(&[0xf5, 15, 0][..]));
    }
}
