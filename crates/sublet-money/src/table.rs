//! Tables for other people's programs: columns with kinds, cells, and CSV.
//!
//! A table is a list of columns over some kind of row; what a file says is decided where the columns are. CSV is that
//! of RFC 4180 with line feeds: a cell that is not there is empty, and no other one is.
//!
//! Deliberately absent: floats, and text that means a number.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::divide_half_even;
use sublet_core::{Nanos, Timestamp};

/// Decimal places of [`Decimal`].
pub const DECIMAL_SCALE: u8 = 15;
/// Digits of [`Decimal`] at most.
pub const DECIMAL_PRECISION: u8 = 38;
const ONE: i128 = 1_000_000_000_000_000;
const PER_NANO: i128 = 1_000_000;

/// A number with fifteen decimal places: exact for amounts, and for prices of so many tokens times their number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Decimal(i128);

impl Decimal {
    /// So many times 10⁻¹⁵.
    pub const fn unscaled(self) -> i128 {
        self.0
    }
    pub fn of_nanos(amount: Nanos) -> Self {
        Self(i128::from(amount.get()) * PER_NANO)
    }
    /// `number / per`, rounded half to even. `per` is positive.
    pub fn ratio(number: i64, per: i64) -> Result<Self> {
        Self::of_fraction(i128::from(number), per, ONE)
    }
    /// `price × quantity / per`, rounded half to even. `per` is positive.
    pub fn cost(price: Nanos, quantity: i64, per: i64) -> Result<Self> {
        Self::of_fraction(i128::from(price.get()) * i128::from(quantity), per, PER_NANO)
    }
    fn of_fraction(number: i128, per: i64, scale: i128) -> Result<Self> {
        let per = i128::from(per);
        if per <= 0 {
            return Err(Error::internal(format!("a fraction of {per}")));
        }
        let whole = (number / per).checked_mul(scale);
        let rest = divide_half_even((number % per) * scale, per);
        whole
            .and_then(|whole| whole.checked_add(rest))
            .map(Self)
            .ok_or_else(|| Error::new(ErrorCode::AmountOverflow, "a number of an export has more than 38 digits"))
    }
}

impl From<Nanos> for Decimal {
    fn from(amount: Nanos) -> Self {
        Self::of_nanos(amount)
    }
}

/// With one decimal place at least, so that no program takes a column for one of integers.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, one) = (self.0.unsigned_abs(), ONE.unsigned_abs());
        let fraction = format!("{:015}", number % one);
        let fraction = fraction.trim_end_matches('0');
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{}", number / one, if fraction.is_empty() { "0" } else { fraction })
    }
}

/// What the cells of a column are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Text,
    Decimal,
    /// In whole seconds where it is written as text.
    Instant,
    Count,
}

/// One value of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cell<'r> {
    Absent,
    Text(Cow<'r, str>),
    Decimal(Decimal),
    Instant(Timestamp),
    Count(i64),
}

impl<'r> Cell<'r> {
    pub const fn text(text: &'r str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
    pub const fn owned(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
    pub fn optional(text: Option<&'r str>) -> Self {
        text.map_or(Self::Absent, Self::text)
    }
}

/// A column over rows of some kind.
pub struct Column<R> {
    pub name: &'static str,
    pub kind: Kind,
    /// Whether a cell may be absent.
    pub is_optional: bool,
    pub cell: for<'r> fn(&'r R) -> Cell<'r>,
}

/// The line with the names of the columns.
pub fn csv_header<R>(columns: &[&Column<R>]) -> String {
    let mut line = String::new();
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            line.push(',');
        }
        line.push_str(column.name);
    }
    line.push('\n');
    line
}

/// Appends a row's line.
pub fn write_csv<R>(text: &mut String, columns: &[&Column<R>], row: &R) {
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        // Writing to a string cannot fail.
        let _ = match (column.cell)(row) {
            Cell::Absent => Ok(()),
            Cell::Text(cell) => {
                write_quoted(text, &cell);
                Ok(())
            }
            Cell::Decimal(number) => write!(text, "{number}"),
            Cell::Instant(at) => write!(text, "{}", SecondsText(at)),
            Cell::Count(count) => write!(text, "{count}"),
        };
    }
    text.push('\n');
}

/// Text that a spreadsheet would take for a formula has an apostrophe before it.
fn write_quoted(text: &mut String, cell: &str) {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t']);
    let cell: Cow<'_, str> = if is_formula { format!("'{cell}").into() } else { cell.into() };
    let cell = cell.as_ref();
    let is_plain = !cell.contains([',', '"', '\n', '\r']) && cell.trim() == cell;
    if is_plain {
        text.push_str(cell);
        return;
    }
    text.push('"');
    text.push_str(&cell.replace('"', "\"\""));
    text.push('"');
}

/// An instant as `2026-11-01T00:00:00Z`, rounded towards the past.
pub struct SecondsText(pub Timestamp);

impl fmt::Display for SecondsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        write!(f, "{}Z", text.split('.').next().unwrap_or(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_and_have_a_point() {
        let cases = [
            (Decimal::of_nanos(Nanos::new(0)), "0.0"),
            (Decimal::of_nanos(Nanos::new(-1)), "-0.000000001"),
            (Decimal::of_nanos(Nanos::new(i64::MAX)), "9223372036.854775807"),
            (Decimal::ratio(3_600_000, 3_600_000).unwrap(), "1.0"),
            (Decimal::ratio(1, 3_600_000).unwrap(), "0.000000277777778"),
            (Decimal::ratio(1, 1_000_000).unwrap(), "0.000001"),
            (Decimal::cost(Nanos::new(150_000_001), 7, 1_000_000).unwrap(), "0.000001050000007"),
            (Decimal::cost(Nanos::new(i64::MAX), 1_000_000_000_000, 1_000_000).unwrap(), "9223372036854775.807"),
        ];
        for (number, text) in cases {
            assert_eq!(number.to_string(), text);
        }
        assert_eq!(Decimal::cost(Nanos::new(i64::MAX), i64::MAX, 1).unwrap_err().code(), ErrorCode::AmountOverflow);
        assert_eq!(Decimal::ratio(1, 0).unwrap_err().code(), ErrorCode::Internal);
    }

    struct Row(&'static str, Option<i64>);
    const COLUMNS: [Column<Row>; 2] = [
        Column { name: "Name", kind: Kind::Text, is_optional: false, cell: |row| Cell::text(row.0) },
        Column { name: "Count", kind: Kind::Count, is_optional: true, cell: |row| row.1.map_or(Cell::Absent, Cell::Count) },
    ];

    #[test]
    fn what_csv_would_read_otherwise_is_quoted() {
        let columns: Vec<&Column<Row>> = COLUMNS.iter().collect();
        let mut text = csv_header(&columns);
        for row in
            [Row("plain", Some(1)), Row("a,b", None), Row("say \"x\"", Some(-2)), Row("two\nlines", None), Row(" room", None)]
        {
            write_csv(&mut text, &columns, &row);
        }
        assert_eq!(text, "Name,Count\nplain,1\n\"a,b\",\n\"say \"\"x\"\"\",-2\n\"two\nlines\",\n\" room\",\n");
    }

    #[test]
    fn instants_are_whole_seconds_in_utc() {
        for (micros, text) in [(0, "1970-01-01T00:00:00Z"), (1_999_999, "1970-01-01T00:00:01Z")] {
            assert_eq!(SecondsText(Timestamp::from_micros(micros)).to_string(), text);
        }
    }
}
