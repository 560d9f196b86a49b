//! Values of the command line that are more than text or a number.

use std::path::Path;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use sublet_api::money::Money;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::{Currency, Nanos};

use crate::render;

/// Largest file that is read for a body, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// All of a file that a command names.
pub fn read_file(file: &Path) -> Result<Vec<u8>> {
    let unusable = |why: String| Error::new(ErrorCode::Usage, format!("{} cannot be used: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| unusable(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unusable(format!("it is larger than {}", render::bytes(FILE_BYTES_MAX))));
    }
    std::fs::read(file).map_err(|error| unusable(error.to_string()))
}

/// The JSON of a file that a command names.
pub fn read_body<T: DeserializeOwned>(file: &Path) -> Result<T> {
    sublet_api::parse_body(&read_file(file)?)
}

/// Money as people type it: `5`, `5EUR` or `"5 EUR"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MoneyArgument {
    pub amount: Nanos,
    /// The account's currency if left out.
    pub currency: Option<Currency>,
}

impl MoneyArgument {
    /// Adds the account's currency where none was typed; a different one is refused.
    pub fn in_currency(self, account: Currency) -> Result<Money> {
        match self.currency {
            Some(typed) if typed != account => {
                Err(Error::new(ErrorCode::CurrencyMismatch, format!("the account is kept in {account}, the amount is in {typed}")))
            }
            Some(_) | None => Ok(Money::new(self.amount, account)),
        }
    }
}

impl FromStr for MoneyArgument {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let split = text.find(|c: char| c.is_ascii_alphabetic() || c == ' ').unwrap_or(text.len());
        let (amount, currency) = text.split_at(split);
        let currency = currency.trim();
        Ok(Self {
            amount: amount.trim().parse()?,
            currency: if currency.is_empty() { None } else { Some(currency.to_ascii_uppercase().parse()?) },
        })
    }
}

/// A size such as `512M` or `2GiB`; steps of 1,024 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (count, unit) = text.split_at(split);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(0),
            "k" | "kb" | "kib" => Some(10),
            "m" | "mb" | "mib" => Some(20),
            "g" | "gb" | "gib" => Some(30),
            "t" | "tb" | "tib" => Some(40),
            _ => None,
        };
        let size = shift.and_then(|shift: u32| count.parse::<u64>().ok()?.checked_mul(1_u64 << shift));
        size.map(Self).ok_or_else(|| {
            Error::new(ErrorCode::Usage, format!("'{}' is not a size", text.chars().take(40).collect::<String>()))
                .alternative("write it such as 512M or 2G")
        })
    }
}

/// `NAME=VALUE` of an environment variable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variable {
    pub name: String,
    pub value: String,
}

impl FromStr for Variable {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            _ => Err(Error::new(ErrorCode::Usage, "an environment variable is written NAME=VALUE")),
        }
    }
}

/// Parses a word of the API's own vocabulary; the message of a refusal lists the words.
pub fn word<T: DeserializeOwned>(text: &str) -> std::result::Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_typed_with_or_without_its_currency() {
        let five = Nanos::new(5_000_000_000);
        for (text, currency) in [("5", None), ("5.0", None), ("5EUR", Some(Currency::EUR)), ("5 eur", Some(Currency::EUR))] {
            assert_eq!(text.parse::<MoneyArgument>().unwrap(), MoneyArgument { amount: five, currency }, "{text}");
        }
        for text in ["", "EUR", "5 XXX", "1e3", "five"] {
            assert!(text.parse::<MoneyArgument>().is_err(), "{text}");
        }
    }

    #[test]
    fn another_currency_than_the_account_s_is_refused() {
        let typed: MoneyArgument = "5 USD".parse().unwrap();
        assert_eq!(typed.in_currency(Currency::EUR).unwrap_err().code(), ErrorCode::CurrencyMismatch);
        assert!(typed.in_currency(Currency::USD).is_ok());
    }

    #[test]
    fn sizes_step_by_1024() {
        for (text, bytes) in [("512", 512), ("1k", 1_024), ("512M", 512 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "M", "1.5G", "-1", "99999999999T", "1X"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
