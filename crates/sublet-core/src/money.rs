//! Money: checked 64-bit nano-units of one ISO 4217 currency, and exact prices.
//!
//! The bound is ±9,223,372,036 units per amount. Nothing here rounds silently: every
//! division names its rounding.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode};

/// Nano-units in one unit of any currency.
pub const NANOS_PER_UNIT: i64 = 1_000_000_000;

/// An amount in nano-units (10⁻⁹) of a currency known from the context.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(i64);

impl Nanos {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(i64::MAX);

    pub const fn new(nanos: i64) -> Self {
        Self(nanos)
    }
    pub const fn get(self) -> i64 {
        self.0
    }
    pub fn checked_add(self, other: Self) -> Result<Self, Error> {
        self.0.checked_add(other.0).map(Self).ok_or_else(overflow)
    }
    pub fn checked_sub(self, other: Self) -> Result<Self, Error> {
        self.0.checked_sub(other.0).map(Self).ok_or_else(overflow)
    }
    pub fn checked_neg(self) -> Result<Self, Error> {
        self.0.checked_neg().map(Self).ok_or_else(overflow)
    }
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
    pub fn checked_sum(amounts: impl IntoIterator<Item = Self>) -> Result<Self, Error> {
        amounts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }
    /// Rounds to whole multiples of `step` nanos, half to even. `step` must be positive.
    pub fn round_half_even(self, step: i64) -> Result<Self, Error> {
        let quotient = divide_half_even(i128::from(self.0), i128::from(step));
        i64::try_from(quotient).ok().and_then(|q| q.checked_mul(step)).map(Self).ok_or_else(overflow)
    }
}

/// Most characters of an amount: a sign, ten digits, a point and nine decimals.
const NANOS_CHARS_MAX: usize = 21;

/// The last decimal digit of a number, as its character.
fn digit(number: u64) -> u8 {
    b'0' + u8::try_from(number % 10).unwrap_or(0)
}

/// A plain decimal without an exponent and without trailing zeros: `-0.0000005`, `12`, `3.14`.
impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let (mut units, mut rest) = (magnitude / 1_000_000_000, magnitude % 1_000_000_000);
        // Backwards, and without formatting machinery: every leaf of an invoice has two amounts.
        let mut text = [b'0'; NANOS_CHARS_MAX];
        let mut start = text.len();
        let mut put = |byte: u8| {
            start -= 1;
            text[start] = byte;
        };
        let mut is_trailing = true;
        for _ in 0..9 {
            let digit = digit(rest);
            rest /= 10;
            is_trailing &= digit == b'0';
            if !is_trailing {
                put(digit);
            }
        }
        if !is_trailing {
            put(b'.');
        }
        put(digit(units));
        while units >= 10 {
            units /= 10;
            put(digit(units));
        }
        if self.0 < 0 {
            put(b'-');
        }
        f.write_str(std::str::from_utf8(&text[start..]).unwrap_or_default())
    }
}

impl fmt::Debug for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Parses a plain decimal with at most nine decimals.
impl FromStr for Nanos {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        parse_decimal(text).map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::new(
                ErrorCode::InvalidAmount,
                format!(
                    "'{shown}' is not an amount; write a plain decimal such as 12.50 with at most 9 decimals, below 9223372036"
                ),
            )
        })
    }
}

fn parse_decimal(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let shape_is_good = !whole.is_empty()
        && whole.len() <= 10
        && fraction.len() <= 9
        && (digits.len() == whole.len() || !fraction.is_empty())
        && all_digits(whole)
        && all_digits(fraction);
    if !shape_is_good {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let decimals: i64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    // At most nine decimals, by the shape.
    let fraction = (fraction.len()..9).fold(decimals, |scaled, _| scaled * 10);
    let magnitude = whole.checked_mul(NANOS_PER_UNIT)?.checked_add(fraction)?;
    Some(if negative { -magnitude } else { magnitude })
}

/// The quotient rounded towards negative infinity, and what is left: one division, since those of 128 bits are slow.
const fn divide_floor(dividend: i128, divisor: i128) -> (i128, i128) {
    let quotient = dividend / divisor;
    // The product is at most the dividend, so none of these leaves the range.
    let remainder = dividend - quotient * divisor;
    if remainder < 0 { (quotient - 1, remainder + divisor) } else { (quotient, remainder) }
}

/// Divides, rounding the exact quotient half to even. `divisor` must be positive.
pub const fn divide_half_even(dividend: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = divide_floor(dividend, divisor);
    let twice = remainder.saturating_mul(2);
    if twice > divisor || (twice == divisor && quotient & 1 == 1) { quotient + 1 } else { quotient }
}

/// Divides, rounding towards positive infinity. `divisor` must be positive.
pub const fn divide_ceil(dividend: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = divide_floor(dividend, divisor);
    if remainder == 0 { quotient } else { quotient + 1 }
}

fn overflow() -> Error {
    Error::new(ErrorCode::AmountOverflow, "an amount left the range of ±9223372036 currency units")
}

/// An ISO 4217 currency code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// The currencies an account can be kept in, with their minor digits (ISO 4217:2015, list one).
const CURRENCIES: &[(&str, u32)] = &[
    ("AUD", 2),
    ("BHD", 3),
    ("BRL", 2),
    ("CAD", 2),
    ("CHF", 2),
    ("CLP", 0),
    ("CNY", 2),
    ("CZK", 2),
    ("DKK", 2),
    ("EUR", 2),
    ("GBP", 2),
    ("HKD", 2),
    ("HUF", 2),
    ("IDR", 2),
    ("ILS", 2),
    ("INR", 2),
    ("ISK", 0),
    ("JPY", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("MXN", 2),
    ("MYR", 2),
    ("NOK", 2),
    ("NZD", 2),
    ("PLN", 2),
    ("RON", 2),
    ("SAR", 2),
    ("SEK", 2),
    ("SGD", 2),
    ("THB", 2),
    ("TRY", 2),
    ("TWD", 2),
    ("USD", 2),
    ("VND", 0),
    ("ZAR", 2),
];

impl Currency {
    pub const EUR: Self = Self(*b"EUR");
    pub const USD: Self = Self(*b"USD");

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }
    /// Nano-units in the smallest unit an invoice can ask for (a cent for EUR).
    pub fn minor_unit(self) -> Nanos {
        let digits = CURRENCIES.iter().find(|(code, _)| *code == self.as_str()).map_or(2, |(_, digits)| *digits);
        Nanos(NANOS_PER_UNIT / 10_i64.pow(digits))
    }
}

impl FromStr for Currency {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let known = CURRENCIES.iter().any(|(code, _)| *code == text);
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if known => Ok(Self(code)),
            _ => Err(Error::new(
                ErrorCode::UnknownCurrency,
                format!("'{}' is not a currency this cloud keeps accounts in", text.chars().take(12).collect::<String>()),
            )
            .alternative("use an upper-case ISO 4217 code such as EUR or USD")),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}
impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}
impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount together with its currency. There is no arithmetic across currencies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Money {
    pub amount: Nanos,
    pub currency: Currency,
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount, self.currency)
    }
}

/// An exact price: `nanos` nano-units for every `per` base units of a quantity.
///
/// A price per hour is not a finite decimal per millisecond, so a rate stays a fraction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Rate {
    nanos: i64,
    per: i64,
}

impl Rate {
    pub const FREE: Self = Self { nanos: 0, per: 1 };

    /// `nanos` must not be negative and `per` must be positive.
    pub fn new(nanos: Nanos, per: i64) -> Result<Self, Error> {
        if per <= 0 || nanos.is_negative() {
            return Err(Error::new(ErrorCode::InvalidPrice, "a price has an amount of at least 0 for a positive number of units"));
        }
        Ok(Self { nanos: nanos.get(), per })
    }
    pub const fn nanos(self) -> Nanos {
        Nanos(self.nanos)
    }
    pub const fn per(self) -> i64 {
        self.per
    }
    /// The cost of `quantity`, rounded half to even on the exact rational: what a line is charged.
    pub fn cost_half_even(self, quantity: i64) -> Result<Nanos, Error> {
        to_nanos(divide_half_even(i128::from(self.nanos) * i128::from(quantity), i128::from(self.per)))
    }
    /// The cost of `quantity`, rounded up: what a hold takes.
    pub fn cost_ceil(self, quantity: i64) -> Result<Nanos, Error> {
        to_nanos(divide_ceil(i128::from(self.nanos) * i128::from(quantity), i128::from(self.per)))
    }
    /// The largest quantity whose rounded-up cost is at most `budget`; `i64::MAX` if it is free.
    pub fn affordable(self, budget: Nanos) -> i64 {
        if budget.is_negative() {
            return 0;
        }
        if self.nanos == 0 {
            return i64::MAX;
        }
        let quantity = (i128::from(budget.get()) * i128::from(self.per)).div_euclid(i128::from(self.nanos));
        i64::try_from(quantity).unwrap_or(i64::MAX)
    }
}

fn to_nanos(value: i128) -> Result<Nanos, Error> {
    i64::try_from(value).map(Nanos).map_err(|_| overflow())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_parse_and_print_as_plain_decimals() {
        for (text, nanos, shown) in [
            ("0", 0, "0"),
            ("12.50", 12_500_000_000, "12.5"),
            ("-0.000000001", -1, "-0.000000001"),
            ("9223372036.854775807", i64::MAX, "9223372036.854775807"),
        ] {
            let amount: Nanos = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((amount.get(), amount.to_string().as_str()), (nanos, shown));
        }
    }

    #[test]
    fn amounts_that_cannot_be_held_are_refused() {
        for text in ["", "-", ".5", "1.", "1e3", "1,5", "+1", "0.0000000001", "9223372036.854775808", "99999999999", "１"] {
            assert!(text.parse::<Nanos>().is_err(), "{text}");
        }
        assert!(Nanos::MAX.checked_add(Nanos::new(1)).is_err());
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        for (dividend, expected) in [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2)] {
            assert_eq!(divide_half_even(dividend, 2), expected, "{dividend}/2");
        }
    }

    #[test]
    fn minor_units_follow_the_currency() {
        assert_eq!(Currency::EUR.minor_unit(), Nanos::new(10_000_000));
        let yen: Currency = "JPY".parse().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(yen.minor_unit(), Nanos::new(NANOS_PER_UNIT));
    }

    proptest! {
        #[test]
        fn what_is_affordable_never_costs_more_than_the_budget(nanos in 1_i64..1_000_000_000_000, per in 1_i64..3_600_000, budget in 0_i64..1_000_000_000_000) {
            let rate = Rate::new(Nanos::new(nanos), per).unwrap();
            let quantity = rate.affordable(Nanos::new(budget));
            prop_assert!(rate.cost_ceil(quantity).unwrap() <= Nanos::new(budget));
            prop_assert!(rate.cost_ceil(quantity + 1).unwrap() > Nanos::new(budget));
        }

        #[test]
        fn differences_of_cumulative_costs_add_up_to_the_line(nanos in 0_i64..10_000_000, per in 1_i64..10_000_000, parts in prop::collection::vec(0_i64..1_000_000, 1..40)) {
            let rate = Rate::new(Nanos::new(nanos), per).unwrap();
            let mut cumulative = 0;
            let mut charged = 0;
            for part in &parts {
                let before = rate.cost_half_even(cumulative).unwrap();
                cumulative += part;
                charged += rate.cost_half_even(cumulative).unwrap().get() - before.get();
            }
            prop_assert_eq!(Nanos::new(charged), rate.cost_half_even(cumulative).unwrap());
        }
    }
}
