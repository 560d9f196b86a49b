//! Numbers under which businesses are registered for value added tax.
//!
//! A number is written with the prefix of its country and without spaces or dots. Where the form of a country's numbers
//! is known it is checked; whether a number was given to somebody, only that country's register knows.
//!
//! Forms: the European Commission's VIES, frequently asked questions, "What is the format of a VAT number?"; the Swiss
//! Federal Statistical Office for the UID; the Brønnøysund Register Centre for Norway.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};

use crate::place::Country;

/// Longest number, with its prefix.
const CHARS_MAX: usize = 20;
/// Shortest number, with its prefix.
const CHARS_MIN: usize = 4;

/// By prefix: the forms of what comes after it. `9` is a digit, `A` a letter, `X` either; everything else stands for
/// itself.
const FORMS: [(&str, &[&str]); 32] = [
    ("AT", &["U99999999"]),
    ("BE", &["0999999999", "1999999999"]),
    ("BG", &["999999999", "9999999999"]),
    ("CHE", &["999999999", "999999999MWST", "999999999TVA", "999999999IVA"]),
    ("CY", &["99999999A"]),
    ("CZ", &["99999999", "999999999", "9999999999"]),
    ("DE", &["999999999"]),
    ("DK", &["99999999"]),
    ("EE", &["999999999"]),
    ("EL", &["999999999"]),
    ("ES", &["A9999999X", "99999999A"]),
    ("FI", &["99999999"]),
    ("FR", &["XX999999999"]),
    ("GB", &["999999999", "999999999999", "GD999", "HA999"]),
    ("HR", &["99999999999"]),
    ("HU", &["99999999"]),
    ("IE", &["9X99999A", "9999999AA"]),
    ("IT", &["99999999999"]),
    ("LT", &["999999999", "999999999999"]),
    ("LU", &["99999999"]),
    ("LV", &["99999999999"]),
    ("MT", &["99999999"]),
    ("NL", &["XXXXXXXXXX99"]),
    ("NO", &["999999999MVA", "999999999"]),
    ("PL", &["9999999999"]),
    ("PT", &["999999999"]),
    ("RO", &["99", "999", "9999", "99999", "999999", "9999999", "99999999", "999999999", "9999999999"]),
    ("SE", &["999999999999"]),
    ("SI", &["99999999"]),
    ("SK", &["9999999999"]),
    ("XI", &["999999999", "999999999999", "GD999", "HA999"]),
    ("LI", &["99999"]),
];

/// A number with its prefix: `DE123456789`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaxId(String);

impl TaxId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of a country. Greece writes EL, and Northern Ireland XI.
    pub fn is_of(&self, country: Country) -> bool {
        let prefix: &str = self.0.get(..2).unwrap_or_default();
        match (prefix, country.as_str()) {
            ("EL", "GR") | ("XI", "GB") => true,
            (prefix, code) => prefix == code,
        }
    }
}

fn fits(form: &str, text: &str) -> bool {
    form.len() == text.len()
        && form.bytes().zip(text.bytes()).all(|(kind, byte)| match kind {
            b'9' => byte.is_ascii_digit(),
            b'A' => byte.is_ascii_uppercase(),
            b'X' => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            other => other == byte,
        })
}

/// A form with its classes spelled for a reader.
fn example(prefix: &str, form: &str) -> String {
    format!("{prefix}{}", form.replace('A', "L").replace('X', "1"))
}

impl FromStr for TaxId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let shown: String = text.chars().take(30).collect();
        let wrong = |why: &str| Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not a VAT number: {why}"));
        if text.len() > 2 * CHARS_MAX {
            return Err(wrong("it is too long"));
        }
        let plain: String = text.chars().filter(|c| !matches!(c, ' ' | '.' | '-' | '/')).map(|c| c.to_ascii_uppercase()).collect();
        let is_written = plain.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        if !is_written || !(CHARS_MIN..=CHARS_MAX).contains(&plain.len()) {
            return Err(wrong("it has 4 to 20 letters and digits").alternative("DE123456789"));
        }
        let of_country = plain.get(..2).is_some_and(|code| matches!(code, "EL" | "XI") || code.parse::<Country>().is_ok());
        if !of_country {
            return Err(wrong("it begins with the code of its country").alternative("DE123456789"));
        }
        if plain.starts_with("GR") {
            return Err(wrong("Greece writes EL").alternative("EL123456789"));
        }
        let form = FORMS.iter().find(|(prefix, _)| plain.starts_with(prefix));
        if let Some((prefix, forms)) = form {
            let rest = plain.get(prefix.len()..).unwrap_or_default();
            if !forms.iter().any(|form| fits(form, rest)) {
                let first = forms.first().copied().unwrap_or_default();
                return Err(wrong(&format!("those of {prefix} have another form")).alternative(example(prefix, first)));
            }
        }
        Ok(Self(plain))
    }
}
impl fmt::Display for TaxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for TaxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl TryFrom<String> for TaxId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<TaxId> for String {
    fn from(id: TaxId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_form_of_their_country() {
        let written = [
            ("DE 123 456 789", "DE123456789"),
            ("ATU12345678", "ATU12345678"),
            ("fr 12 345678901", "FR12345678901"),
            ("EL123456789", "EL123456789"),
            ("ESX1234567X", "ESX1234567X"),
            ("ES12345678Z", "ES12345678Z"),
            ("IE1234567WA", "IE1234567WA"),
            ("NL123456789B01", "NL123456789B01"),
            ("CHE-123.456.789 MWST", "CHE123456789MWST"),
            ("XI123456789", "XI123456789"),
            ("CA123456789RT0001", "CA123456789RT0001"),
            ("US123456789", "US123456789"),
        ];
        for (text, plain) in written {
            assert_eq!(text.parse::<TaxId>().unwrap().as_str(), plain);
        }
        let wrong = [
            "",
            "DE",
            "DE12345678",
            "DE1234567890",
            "AT12345678",
            "GR123456789",
            "BE2123456789",
            "ZZ123",
            "123456789",
            "DEÄ23456789",
        ];
        for text in wrong {
            assert!(text.parse::<TaxId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_is_of_a_country() {
        let is_of = |id: &str, country: &str| id.parse::<TaxId>().unwrap().is_of(country.parse().unwrap());
        assert!(is_of("EL123456789", "GR") && is_of("XI123456789", "GB") && is_of("DE123456789", "DE"));
        assert!(!is_of("DE123456789", "FR"));
    }
}
