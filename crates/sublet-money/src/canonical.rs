//! One byte form for one value, so that a hash names its content.
//!
//! The form is that of RFC 8785 (JSON Canonicalization Scheme) for the values used here: strings,
//! integers of at most 2⁵³, booleans, arrays and objects; members sorted by name, no white space.
//! Member names are ASCII, so sorting by bytes is sorting by UTF-16 code units.

use std::fmt::Write as _;

use serde::{Deserializer, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sublet_core::Nanos;
use sublet_core::error::{Error, Result};

/// The canonical JSON text of a value.
pub fn canonical_json<T: Serialize>(value: &T) -> Result<String> {
    let value = serde_json::to_value(value).map_err(|cause| Error::internal(format!("value has no JSON form: {cause}")))?;
    let mut text = String::new();
    write_value(&mut text, &value);
    Ok(text)
}

/// SHA-256 of a text, or of bytes, as 64 lower-case hexadecimal digits.
pub fn sha256_hex(content: impl AsRef<[u8]>) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(content) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Recursion is bounded by the types that are serialized: none of ours nests without end.
fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_value(text, item);
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            text.push('{');
            for (index, name) in names.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String((*name).clone()).to_string());
                text.push(':');
                write_value(text, &members[*name]);
            }
            text.push('}');
        }
    }
}

/// Amounts as decimal strings: `"0.15"`, never a JSON number.
pub mod decimal {
    use std::fmt;

    use serde::de::{Error, Visitor};

    use super::{Deserializer, Nanos, Serializer};

    /// Reads the amount from where it stands, without a copy of its text.
    struct Amount;

    impl Visitor<'_> for Amount {
        type Value = Nanos;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an amount as a decimal string")
        }
        fn visit_str<E: Error>(self, text: &str) -> std::result::Result<Nanos, E> {
            text.parse().map_err(E::custom)
        }
    }

    pub fn serialize<S: Serializer>(amount: &Nanos, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(amount)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Nanos, D::Error> {
        deserializer.deserialize_str(Amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_sorted_and_white_space_is_gone() {
        let value: Value = serde_json::from_str(r#"{ "b": [1, {"z": "é\n", "a": null}], "a": true }"#).unwrap();
        assert_eq!(canonical_json(&value).unwrap(), r#"{"a":true,"b":[1,{"a":null,"z":"é\n"}]}"#);
    }

    /// Test vector of FIPS 180-4 for the message "abc".
    #[test]
    fn hashes_are_sha_256() {
        assert_eq!(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
