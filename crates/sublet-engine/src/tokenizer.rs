//! Text to tokens by the model's own tokenizer, and tokens back to bytes.
//!
//! Invariants: [`ModelTokenizer::bytes`] of the tokens of a text, joined, are the text's bytes
//! (for byte-level and SentencePiece vocabularies); special tokens have no bytes. Bytes rather
//! than text, because a token may end inside a character.
//!
//! Deliberately absent: training, padding, truncation.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;

/// Tokens one vocabulary may have.
const VOCABULARY_MAX: usize = 1 << 22;

/// A tokenizer with its tokens' bytes at hand.
pub struct ModelTokenizer {
    inner: Tokenizer,
    /// All tokens' bytes, one after the other.
    bytes: Vec<u8>,
    /// Token `i` is `bytes[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
    token_bytes_max: usize,
}

#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

/// How a vocabulary spells bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spelling {
    /// Each byte is one printable character (GPT-2's table).
    ByteLevel,
    /// `▁` is a space and `<0xNN>` a byte.
    SentencePiece,
    Plain,
}

impl ModelTokenizer {
    /// Parses a `tokenizer.json`; the error says what is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let description: Description = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let mut inner = Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        let vocabulary = inner.get_vocab(true);
        let count = vocabulary.values().max().map_or(0, |largest| *largest as usize + 1);
        if count == 0 || count > VOCABULARY_MAX {
            return Err(format!("has token ids up to {count}; 1 to {VOCABULARY_MAX} tokens work"));
        }
        let mut spelled: Vec<Option<String>> = vec![None; count];
        for (token, id) in vocabulary {
            spelled[id as usize] = Some(token);
        }
        let added: BTreeMap<u32, AddedToken> = description.added_tokens.into_iter().map(|token| (token.id, token)).collect();
        let spelling = spelling(&description.decoder);
        let table = byte_table();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(count));
        let mut token_bytes_max = 1;
        for (id, token) in spelled.iter().enumerate() {
            let start = bytes.len();
            match (added.get(&(id as u32)), token) {
                (Some(added), _) if added.special => {}
                (Some(added), _) => bytes.extend_from_slice(added.content.as_bytes()),
                (None, Some(token)) => spell(spelling, token, &table, &mut bytes),
                (None, None) => {}
            }
            let longest = token.as_ref().map_or(0, String::len).max(bytes.len() - start);
            token_bytes_max = token_bytes_max.max(longest);
            ends.push(bytes.len());
        }
        Self { inner, bytes, ends, token_bytes_max }.tried()
    }

    /// Without a memory of the texts it saw.
    pub fn forgetful(mut self) -> Self {
        let mut model = self.inner.get_model().clone();
        model.resize_cache(0);
        self.inner.with_model(model);
        self
    }

    /// Tries what is added around every text: the library believes a file that adds tokens which it does not have.
    fn tried(self) -> Result<Self, String> {
        let added = self.encode("", SpecialTokens::Add)?;
        match added.iter().find(|token| **token as usize >= self.token_count()) {
            Some(token) => Err(format!("adds token {token}, which is not in its vocabulary")),
            None => Ok(self),
        }
    }

    /// The tokens of a text; with the ones the tokenizer adds around it, or without.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, String> {
        let add = special == SpecialTokens::Add;
        // The library asserts what it believes of its file, and no file may end a thread.
        let encoded = catch_unwind(AssertUnwindSafe(|| self.inner.encode_fast(text, add)));
        let encoding = encoded.map_err(|_| "fails on a text: the file contradicts itself".to_owned())?;
        Ok(encoding.map_err(|error| error.to_string())?.get_ids().to_vec())
    }

    /// The tokens a text of this many bytes has at least: an over-long prompt is refused before
    /// the work of tokenizing it.
    pub fn tokens_at_least(&self, text_bytes: usize) -> usize {
        text_bytes / self.token_bytes_max
    }

    /// What a token contributes to the text; empty for special and unknown ones.
    pub fn bytes(&self, token: u32) -> &[u8] {
        let index = token as usize;
        let Some(end) = self.ends.get(index) else { return &[] };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..*end]
    }

    /// One more than the largest token id.
    pub fn token_count(&self) -> usize {
        self.ends.len()
    }

    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token as the vocabulary writes it, for tokens without text.
    pub fn name(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }
}

/// Whether the tokenizer adds what it puts around a text, such as a beginning-of-text token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpecialTokens {
    Add,
    /// The text has them already, as a chat template writes them.
    Leave,
}

/// Looks through nested decoders for the one that decides.
fn spelling(decoder: &Value) -> Spelling {
    match decoder.get("type").and_then(Value::as_str) {
        Some("ByteLevel") => Spelling::ByteLevel,
        Some("Metaspace" | "ByteFallback") => Spelling::SentencePiece,
        Some("Sequence") => {
            let parts = decoder.get("decoders").and_then(Value::as_array);
            let found = parts.into_iter().flatten().map(spelling).find(|spelling| *spelling != Spelling::Plain);
            found.unwrap_or(Spelling::Plain)
        }
        _ => Spelling::Plain,
    }
}

fn spell(spelling: Spelling, token: &str, table: &BTreeMap<char, u8>, into: &mut Vec<u8>) {
    match spelling {
        Spelling::Plain => into.extend_from_slice(token.as_bytes()),
        Spelling::ByteLevel => {
            let spelled: Option<Vec<u8>> = token.chars().map(|c| table.get(&c).copied()).collect();
            into.extend(spelled.unwrap_or_else(|| token.as_bytes().to_vec()));
        }
        Spelling::SentencePiece => {
            let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
            match byte.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => into.push(byte),
                None => into.extend_from_slice(token.replace('\u{2581}', " ").as_bytes()),
            }
        }
    }
}

/// The characters that stand for bytes in byte-level vocabularies, as published with GPT-2:
/// printable Latin-1 characters stand for themselves, the others for 256 and up, in order.
pub fn byte_table() -> BTreeMap<char, u8> {
    let mut next = 256_u32;
    let mut table = BTreeMap::new();
    for byte in 0..=255_u8 {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let code = if printable {
            u32::from(byte)
        } else {
            next += 1;
            next - 1
        };
        table.insert(char::from_u32(code).expect("codes up to 511 are characters"), byte);
    }
    table
}
