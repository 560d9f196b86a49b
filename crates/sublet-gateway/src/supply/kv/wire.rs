//! Events about blocks of a cache, as vLLM and SGLang publish them: MessagePack, in which older versions write an
//! event as an array that begins with its name, and newer ones as a map that has it as its `type`.
//!
//! Source: `vllm/distributed/kv_events.py` and `sglang/srt/disaggregation/kv_events.py` of both projects.

use std::hash::{DefaultHasher, Hash, Hasher};

use rmpv::Value;

/// Values within each other.
const DEPTH_MAX: usize = 16;
/// Events of one batch.
const EVENTS_MAX: usize = 65_536;

/// An engine's own name of a block: a number or some bytes, as a number.
pub(super) type BlockName = u64;

/// What happened to blocks of tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// They are there, one after the other, behind their parent.
    Stored {
        blocks: Vec<BlockName>,
        parent: Option<BlockName>,
        tokens: Vec<u32>,
        block_tokens: usize,
        salt: Salt,
    },
    Removed(Vec<BlockName>),
    Cleared,
}

/// Whose the first of the stored blocks is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Salt {
    /// This version does not say it.
    Unsaid,
    Said(Option<String>),
}

/// The number and the batch of a message, which begins with its topic.
pub(super) fn message(parts: Vec<Vec<u8>>) -> Option<(u64, Vec<u8>)> {
    let [_, number, batch] = <[Vec<u8>; 3]>::try_from(parts).ok()?;
    Some((u64::from_be_bytes(number.try_into().ok()?), batch))
}

/// Reads a batch. `None` is no batch; of a batch, events that are not understood are left out, and said to be.
pub(super) fn read(mut bytes: &[u8]) -> Option<(Vec<Event>, bool)> {
    let batch = rmpv::decode::read_value_with_max_depth(&mut bytes, DEPTH_MAX).ok()?;
    let events = field(&batch, 1, "events")?.as_array().filter(|events| events.len() <= EVENTS_MAX)?;
    let mut is_whole = true;
    let read = events.iter().filter_map(|event| {
        let known = self::event(event);
        is_whole &= known.is_some();
        known.flatten()
    });
    let read = read.collect();
    Some((read, is_whole))
}

/// A field of a struct, by its place in an array or its name in a map.
fn field<'a>(value: &'a Value, place: usize, name: &str) -> Option<&'a Value> {
    match value {
        Value::Array(fields) => fields.get(place),
        Value::Map(fields) => fields.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value),
        _ => None,
    }
}

/// `Some(None)` is an event that does not matter here.
fn event(value: &Value) -> Option<Option<Event>> {
    match field(value, 0, "type")?.as_str()? {
        "AllBlocksCleared" => Some(Some(Event::Cleared)),
        "BlockStored" => {
            let tokens = field(value, 3, "token_ids")?.as_array()?.iter().map(|token| token.as_u64()?.try_into().ok());
            let event = Event::Stored {
                blocks: names(field(value, 1, "block_hashes")?)?,
                parent: match field(value, 2, "parent_block_hash") {
                    None | Some(Value::Nil) => None,
                    Some(parent) => Some(name(parent)?),
                },
                tokens: tokens.collect::<Option<Vec<u32>>>()?,
                block_tokens: field(value, 4, "block_size")?.as_u64()?.try_into().ok()?,
                salt: salt(field(value, 8, "extra_keys")),
            };
            Some(is_of_interest(value, 6, 9).then_some(event))
        }
        "BlockRemoved" => {
            let event = Event::Removed(names(field(value, 1, "block_hashes")?)?);
            Some(is_of_interest(value, 2, 3).then_some(event))
        }
        _ => None,
    }
}

/// Blocks in the accelerator's memory, of the first group of layers: what is elsewhere has to be fetched, and groups
/// hold the same tokens again.
fn is_of_interest(event: &Value, medium_at: usize, group_at: usize) -> bool {
    let medium = field(event, medium_at, "medium").and_then(Value::as_str);
    let group = field(event, group_at, "group_idx").and_then(Value::as_u64);
    medium.is_none_or(|medium| medium.eq_ignore_ascii_case("gpu")) && group.is_none_or(|group| group == 0)
}

fn names(value: &Value) -> Option<Vec<BlockName>> {
    value.as_array()?.iter().map(name).collect()
}

fn name(value: &Value) -> Option<BlockName> {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Integer(number) => number.to_string().hash(&mut hasher),
        Value::Binary(bytes) => bytes.hash(&mut hasher),
        Value::String(text) => text.as_bytes().hash(&mut hasher),
        _ => return None,
    }
    Some(hasher.finish())
}

/// Of the first block, the one text among its extra keys is the salt; names of adapters and pictures come with others.
fn salt(extra_keys: Option<&Value>) -> Salt {
    match extra_keys {
        None => Salt::Unsaid,
        Some(keys) => {
            let first = keys.as_array().and_then(|blocks| blocks.first()).and_then(Value::as_array);
            Salt::Said(first.and_then(|keys| keys.iter().rev().find_map(Value::as_str)).map(ToOwned::to_owned))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    fn list(values: impl IntoIterator<Item = Value>) -> Value {
        Value::Array(values.into_iter().collect())
    }

    fn map(fields: &[(&str, Value)]) -> Value {
        Value::Map(fields.iter().map(|(name, value)| (Value::from(*name), value.clone())).collect())
    }

    #[test]
    fn both_ways_of_writing_say_the_same() {
        let (blocks, tokens) = (list([7.into(), Value::Binary(vec![1, 2])]), list([5, 6, 7, 8].map(Value::from)));
        let keys = list([list(["pepper".into()]), Value::Nil]);
        let stored = [blocks.clone(), Value::Nil, tokens.clone(), 2.into(), Value::Nil, "GPU".into(), Value::Nil, keys.clone()];
        let old = list([
            1.5.into(),
            list([
                list([Value::from("BlockStored")].into_iter().chain(stored)),
                list(["BlockRemoved".into(), blocks.clone(), "GPU".into()]),
                list(["AllBlocksCleared".into()]),
            ]),
            0.into(),
        ]);
        let stored = map(&[
            ("type", "BlockStored".into()),
            ("block_hashes", blocks.clone()),
            ("parent_block_hash", Value::Nil),
            ("token_ids", tokens),
            ("block_size", 2.into()),
            ("medium", "GPU".into()),
            ("extra_keys", keys),
        ]);
        let removed = map(&[("type", "BlockRemoved".into()), ("block_hashes", blocks), ("medium", Value::Nil)]);
        let cleared = map(&[("type", "AllBlocksCleared".into())]);
        let new = map(&[("ts", 1.5.into()), ("events", list([stored, removed, cleared])), ("data_parallel_rank", 0.into())]);
        let (events, is_whole) = read(&packed(&old)).unwrap();
        assert_eq!(read(&packed(&new)).unwrap(), (events.clone(), true));
        assert!(is_whole);
        let [Event::Stored { blocks, parent: None, tokens, block_tokens: 2, salt }, Event::Removed(removed), Event::Cleared] =
            events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert_eq!((tokens.as_slice(), blocks, salt), ([5, 6, 7, 8].as_slice(), removed, &Salt::Said(Some("pepper".to_owned()))));
    }

    #[test]
    fn what_is_not_understood_is_left_out_and_said() {
        let other = list(["BlockStored".into(), list([Value::Nil]), Value::Nil, list([]), 2.into()]);
        let elsewhere = list(["BlockRemoved".into(), list([7.into()]), "CPU".into()]);
        let later = list(["BlockMoved".into()]);
        for (event, is_whole) in [(other, false), (elsewhere, true), (later, false)] {
            let batch = list([1.0.into(), list([event, list(["AllBlocksCleared".into()])])]);
            assert_eq!(read(&packed(&batch)), Some((vec![Event::Cleared], is_whole)));
        }
        for bytes in [b"".as_slice(), b"\xc1", b"\x93", b"\xdd\xff\xff\xff\xff", &packed(&list([1.0.into(), Value::Nil]))] {
            assert_eq!(read(bytes), None);
        }
        assert_eq!(read(&[0x91].repeat(10_000)), None, "no depth ends the process");
    }
}
