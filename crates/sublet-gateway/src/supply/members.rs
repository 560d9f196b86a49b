//! The members of an object that is known to be good JSON, without reading it again: every event of a stream is
//! looked through here, so it is a scan for the places where values end.

use std::borrow::Cow;

/// One member, as its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member<'a> {
    /// With its quotes.
    key: &'a str,
    is_escaped: bool,
    pub value: &'a str,
}

impl<'a> Member<'a> {
    pub fn name(&self) -> Cow<'a, str> {
        let plain = self.key.get(1..self.key.len() - 1).unwrap_or_default();
        let read = || serde_json::from_str(self.key).map(Cow::Owned).unwrap_or(Cow::Borrowed(plain));
        if self.is_escaped { read() } else { Cow::Borrowed(plain) }
    }

    /// `"name":value`, as it was written.
    pub fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
        out.push(b':');
        out.extend_from_slice(self.value.as_bytes());
    }
}

/// The members of an object in their order. Text that is no object has none, and what is not JSON ends early.
pub(crate) fn members(object: &str) -> Members<'_> {
    let start = skip_space(object.as_bytes(), 0);
    let is_object = object.as_bytes().get(start) == Some(&b'{');
    Members { text: object, at: if is_object { start + 1 } else { object.len() } }
}

/// The members of an object that has so few at most, each given once, with their names.
pub(crate) fn distinct(object: &str, most: usize) -> Option<Vec<(Cow<'_, str>, Member<'_>)>> {
    let mut all: Vec<(Cow<'_, str>, Member<'_>)> = Vec::with_capacity(8);
    for member in members(object) {
        let name = member.name();
        if all.len() == most || all.iter().any(|(known, _)| *known == name) {
            return None;
        }
        all.push((name, member));
    }
    Some(all)
}

pub(crate) struct Members<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let bytes = self.text.as_bytes();
        let mut at = skip_space(bytes, self.at);
        if bytes.get(at) == Some(&b',') {
            at = skip_space(bytes, at + 1);
        }
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        let (key_end, is_escaped) = string_end(bytes, at + 1);
        let colon = skip_space(bytes, key_end);
        let value = skip_space(bytes, colon + 1);
        let end = value_end(bytes, value);
        self.at = end;
        let (key, value) = (self.text.get(at..key_end)?, self.text.get(value..end)?);
        (key.len() > 1 && !value.is_empty()).then_some(Member { key, is_escaped, value })
    }
}

/// How many bytes a JSON string holds once its escapes are read. `None` is no string.
pub(crate) fn string_bytes(value: &str) -> Option<usize> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    if inner.as_bytes().contains(&b'\\') {
        return serde_json::from_str::<Cow<'_, str>>(value).ok().map(|text| text.len());
    }
    Some(inner.len())
}

fn find(bytes: &[u8], from: usize, is_wanted: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.iter().position(|byte| is_wanted(*byte)).map_or(bytes.len(), |offset| from + offset)
}

fn skip_space(bytes: &[u8], from: usize) -> usize {
    match bytes.get(from) {
        Some(byte) if *byte > b' ' => from,
        _ => find(bytes, from, |byte| !byte.is_ascii_whitespace()),
    }
}

/// Behind the quote that ends a string, and whether it has escapes; `from` is behind the quote that begins it.
fn string_end(bytes: &[u8], from: usize) -> (usize, bool) {
    let (mut at, mut is_escaped) = (from, false);
    loop {
        at = find(bytes, at, |byte| byte == b'"' || byte == b'\\');
        match bytes.get(at) {
            Some(b'\\') => (at, is_escaped) = (at + 2, true),
            Some(_) => return (at + 1, is_escaped),
            None => return (bytes.len(), is_escaped),
        }
    }
}

fn value_end(bytes: &[u8], from: usize) -> usize {
    match bytes.get(from) {
        Some(b'"') => string_end(bytes, from + 1).0,
        Some(b'{' | b'[') => nested_end(bytes, from + 1),
        _ => find(bytes, from, |byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')),
    }
}

/// Behind the bracket that ends what a bracket before `from` began.
fn nested_end(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 1_usize);
    while depth > 0 {
        at = find(bytes, at, |byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'));
        match bytes.get(at) {
            Some(b'"') => {
                at = string_end(bytes, at + 1).0;
                continue;
            }
            Some(b'{' | b'[') => depth += 1,
            Some(_) => depth -= 1,
            None => return bytes.len(),
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supply::request::Fields;
    use proptest::prelude::*;
    use serde_json::Value;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            r#"[\\"{}\[\],: ]{0,8}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(r#"[a-d"\\{},\PC]{0,4}"#, inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn members_are_those_that_a_parser_finds(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let found: Vec<(String, &str)> = members(&text).map(|member| (member.name().into_owned(), member.value)).collect();
            let parsed = serde_json::from_str::<Fields<'_>>(&text);
            let expected: Vec<(String, &str)> = match &parsed {
                Ok(fields) => fields.iter().map(|(name, raw)| (name.to_owned(), raw.get())).collect(),
                Err(_) => Vec::new(),
            };
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_string_has_the_bytes_that_a_parser_reads(text in ".{0,40}") {
            let quoted = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(string_bytes(&quoted), Some(text.len()));
        }

        #[test]
        fn what_is_no_json_ends(text in r#"[{}\[\]",:\\ a1é]{0,24}"#) {
            prop_assert!(members(&text).count() <= text.len());
        }
    }

    #[test]
    fn what_is_no_string_has_no_bytes() {
        for value in ["1", "null", "{}", "\"", ""] {
            assert_eq!(string_bytes(value), None, "{value}");
        }
    }
}
