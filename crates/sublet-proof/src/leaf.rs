//! One charge as a leaf of its invoice's tree: a line of JSON whose bytes are hashed.
//!
//! A leaf carries a salt of its own, so that its hash says nothing to who does not have it: what is left of a leaf that
//! was erased, in the tree and in the log, cannot be tried out against guesses.

use std::borrow::Cow;
use std::fmt;

use ring::hmac;
use serde::{Deserialize, Deserializer, Serialize};
use sublet_core::error::{Error, Result};
use sublet_core::id::ChargeId;
use sublet_core::{Nanos, Timestamp};
use sublet_money::canonical::decimal;
use sublet_money::sku::{Quantity, QuantityChange};

use crate::merkle::Hash;

/// What most leaves have room in.
const TEXT_BYTES_USUAL: usize = 640;
/// Bytes of a salt.
const SALT_BYTES: usize = 16;

/// The canonical form (RFC 8785) is what serializing gives: members are in the order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChargeLeaf<'a> {
    #[serde(with = "decimal")]
    pub amount: Nanos,
    /// The band of a price by time of use.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default, deserialize_with = "borrowed")]
    pub band: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub charge: Cow<'a, str>,
    #[serde(with = "decimal")]
    pub charged_before: Nanos,
    /// The API key that caused it, for requests.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default, deserialize_with = "borrowed")]
    pub key: Option<Cow<'a, str>>,
    /// The instant that chose period and band: the admission of a request, the beginning of a stretch of device time.
    pub occurred_at_micros: Timestamp,
    /// The month of the use.
    #[serde(borrow)]
    pub period: Cow<'a, str>,
    #[serde(borrow)]
    pub price_version: Cow<'a, str>,
    #[serde(borrow)]
    pub project: Cow<'a, str>,
    /// Negative where use was rated anew and left the line.
    pub quantity: QuantityChange,
    pub quantity_before: Quantity,
    #[serde(borrow)]
    pub salt: Cow<'a, str>,
    #[serde(borrow)]
    pub sku: Cow<'a, str>,
    /// The request or job, or what rated its use anew.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
}

/// An optional text from where it stands: by itself serde copies what is optional.
fn borrowed<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'a, str>>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Ok(Option::<Text<'a>>::deserialize(deserializer)?.map(|text| text.0))
}

impl ChargeLeaf<'_> {
    /// The text that is hashed.
    pub fn text(&self) -> Result<String> {
        let mut text = Vec::with_capacity(TEXT_BYTES_USUAL);
        serde_json::to_writer(&mut text, self).map_err(|cause| Error::internal(format!("a leaf has no JSON form: {cause}")))?;
        String::from_utf8(text).map_err(|cause| Error::internal(format!("a leaf is not text: {cause}")))
    }
}

/// The hash of a leaf's text.
pub fn leaf_hash(text: &str) -> Hash {
    Hash::of_entry(text.as_bytes())
}

/// The secret of one invoice that its salts are made from. Who deletes it, and the charges, leaves hashes that nobody
/// can tell anything from. Printed nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct SaltSecret([u8; SALT_SECRET_BYTES]);

/// Bytes of that secret.
pub const SALT_SECRET_BYTES: usize = 32;

impl SaltSecret {
    pub const fn new(random: [u8; SALT_SECRET_BYTES]) -> Self {
        Self(random)
    }
    /// For who keeps it.
    pub const fn bytes(&self) -> &[u8; SALT_SECRET_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SaltSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltSecret")
    }
}

/// What makes salts.
pub struct SaltKey(hmac::Key);

impl SaltKey {
    pub fn new(secret: &SaltSecret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret.0))
    }
    pub fn of_charge(&self, charge: &ChargeId) -> String {
        self.of_name(charge.as_str())
    }
    /// Of what is no charge; no charge has such a name.
    pub(crate) fn of_name(&self, name: &str) -> String {
        let tag = hmac::sign(&self.0, name.as_bytes());
        let digit = |four_bits: u8| char::from_digit(u32::from(four_bits), 16).unwrap_or('0');
        tag.as_ref().iter().take(SALT_BYTES).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use sublet_money::canonical::canonical_json;

    use super::*;

    fn leaf() -> ChargeLeaf<'static> {
        ChargeLeaf {
            amount: Nanos::new(1_500),
            band: Some("Tag & Nacht".into()),
            charge: "chg_1".into(),
            charged_before: Nanos::new(-7),
            key: Some("key_1".into()),
            occurred_at_micros: Timestamp::from_micros(1_767_225_600_000_001),
            period: "2026-01".into(),
            price_version: "ab".into(),
            project: "proj_1".into(),
            quantity: QuantityChange::new(3),
            quantity_before: Quantity::new(4).unwrap(),
            salt: "00".into(),
            sku: "tokens/input/modell-ä\u{1}\"".into(),
            source: "req_1".into(),
        }
    }

    #[test]
    fn what_is_written_is_canonical_and_reads_back() {
        for leaf in [leaf(), ChargeLeaf { band: None, key: None, ..leaf() }] {
            let text = leaf.text().unwrap();
            assert_eq!(text, canonical_json(&leaf).unwrap());
            assert_eq!(serde_json::from_str::<ChargeLeaf<'_>>(&text).unwrap(), leaf);
        }
    }

    #[test]
    fn what_is_not_a_leaf_is_refused() {
        let text = leaf().text().unwrap();
        let unknown = text.replace("\"salt\"", "\"pepper\"");
        let twice = text.replace("\"salt\":\"00\"", "\"salt\":\"00\",\"salt\":\"00\"");
        let missing = text.replace(",\"salt\":\"00\"", "");
        for text in [unknown, twice, missing, String::new(), text.replace("0.0000015", "1e3")] {
            assert!(serde_json::from_str::<ChargeLeaf<'_>>(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_salt_is_of_one_secret_and_one_charge() {
        let [first, second]: [ChargeId; 2] = ["chg_1", "chg_2"].map(|id| id.parse().unwrap());
        let [one, other] = [[1; 32], [2; 32]].map(|secret| SaltKey::new(&SaltSecret::new(secret)));
        let salts = [one.of_charge(&first), one.of_charge(&second), other.of_charge(&first)];
        assert!(salts.iter().all(|salt| salt.len() == 32));
        assert_eq!(one.of_charge(&first), salts[0]);
        assert!(salts[0] != salts[1] && salts[0] != salts[2]);
    }
}
