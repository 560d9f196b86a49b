//! Numbers of documents: one series for each kind and year, without gaps.
//!
//! A number is given in the transaction that issues its document, so a document that was not issued has none and no
//! number is without its document. The year is that of the day of issue in UTC: it is the seller's series, whatever
//! zone a customer has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sublet_core::Timestamp;
use sublet_core::error::{Error, ErrorCode, Result};

use crate::period::BillingCalendar;

/// Digits of a number; later ones are longer.
const NUMBER_DIGITS: usize = 6;

/// What is numbered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum DocumentKind {
    Invoice,
    CreditNote,
}

impl DocumentKind {
    pub const ALL: [Self; 2] = [Self::Invoice, Self::CreditNote];

    /// What its numbers begin with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Invoice => "INV",
            Self::CreditNote => "CN",
        }
    }
}

/// The documents of one kind that were issued in one year: `INV-2026`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Series {
    kind: DocumentKind,
    year: i16,
}

impl Series {
    /// The series of what is issued now.
    pub fn at(kind: DocumentKind, issued_at: Timestamp) -> Result<Self> {
        Ok(Self { kind, year: BillingCalendar::new("UTC")?.period_at(issued_at)?.key.year() })
    }
    pub const fn year(self) -> i16 {
        self.year
    }
    /// Its `number`th document, counted from 1.
    pub const fn number(self, number: u64) -> DocumentNumber {
        DocumentNumber { series: self, number }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:04}", self.kind.prefix(), self.year)
    }
}

/// What a document is called: `INV-2026-000001`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DocumentNumber {
    series: Series,
    number: u64,
}

impl DocumentNumber {
    pub const fn series(self) -> Series {
        self.series
    }
    /// Its place in the series, from 1.
    pub const fn place(self) -> u64 {
        self.number
    }
}

impl fmt::Display for DocumentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:0width$}", self.series, self.number, width = NUMBER_DIGITS)
    }
}
impl fmt::Debug for DocumentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl FromStr for DocumentNumber {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parse = || -> Option<Self> {
            let mut parts = text.split('-');
            let (prefix, year, number) = (parts.next()?, parts.next()?, parts.next()?);
            let kind = DocumentKind::ALL.into_iter().find(|kind| kind.prefix() == prefix)?;
            let read = Self { series: Series { kind, year: year.parse().ok()? }, number: number.parse().ok()? };
            // Written in one way only.
            (parts.next().is_none() && read.number > 0 && read.to_string() == text).then_some(read)
        };
        parse().ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not the number of a document"))
                .alternative("write it like INV-2026-000001")
        })
    }
}
impl TryFrom<String> for DocumentNumber {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<DocumentNumber> for String {
    fn from(number: DocumentNumber) -> Self {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW_YEAR: Timestamp = Timestamp::from_seconds(1_767_225_600);

    #[test]
    fn a_series_is_of_one_year() {
        let at = |instant| Series::at(DocumentKind::Invoice, instant).unwrap().number(7).to_string();
        assert_eq!(at(Timestamp::from_micros(NEW_YEAR.micros() - 1)), "INV-2025-000007");
        assert_eq!(at(NEW_YEAR), "INV-2026-000007");
    }

    #[test]
    fn a_number_is_written_in_one_way() {
        let series = Series::at(DocumentKind::CreditNote, NEW_YEAR).unwrap();
        for (place, text) in [(1, "CN-2026-000001"), (999_999, "CN-2026-999999"), (1_000_000, "CN-2026-1000000")] {
            let number = series.number(place);
            assert_eq!((number.to_string().as_str(), number.place()), (text, place));
            assert_eq!(text.parse::<DocumentNumber>().unwrap(), number);
        }
        for text in ["", "INV-2026", "INV-2026-1", "INV-2026-000000", "INV-2026-+00001", "XX-2026-000001", "INV-2026-000001-"] {
            assert!(text.parse::<DocumentNumber>().is_err(), "{text}");
        }
    }
}
