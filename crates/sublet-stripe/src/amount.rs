//! Amounts in Stripe's minor units.
//!
//! They are ISO 4217's but for the króna, which has no minor unit any more and is still counted in hundredths; amounts
//! with three decimals end in 0. An amount has at most eight digits.

use sublet_core::{Currency, Error, ErrorCode, Nanos, Result};

/// Eight digits.
const AMOUNT_MAX: i64 = 99_999_999;

/// How many of Stripe's units are one of ISO's minor units.
fn units_in_minor(currency: Currency) -> i64 {
    if currency.as_str() == "ISK" { 100 } else { 1 }
}

pub fn to_stripe(amount: Nanos, currency: Currency) -> Result<i64> {
    let wrong = |message: String| Error::new(ErrorCode::InvalidAmount, message).param("amount");
    let minor = currency.minor_unit().get();
    if amount.get() <= 0 || amount.get() % minor != 0 {
        return Err(wrong(format!("{amount} {currency} is not a whole number of minor units above zero")));
    }
    let units = (amount.get() / minor).checked_mul(units_in_minor(currency)).filter(|units| *units <= AMOUNT_MAX);
    let units = units.ok_or_else(|| {
        wrong(format!("{amount} {currency} is more than Stripe takes at once")).alternative("several payments, or method 'bank'")
    })?;
    // A thousandth is no amount that cards know.
    if minor == 1_000_000 && units % 10 != 0 {
        return Err(wrong(format!("Stripe takes amounts of {currency} in hundredths")));
    }
    Ok(units)
}

/// The currency may be in either case.
pub fn from_stripe(units: i64, currency: &str) -> Option<(Nanos, Currency)> {
    let currency: Currency = currency.to_ascii_uppercase().parse().ok()?;
    let nanos = units.checked_mul(currency.minor_unit().get())?;
    // A fraction of a króna is none that accounts have.
    let divisor = units_in_minor(currency);
    (nanos % divisor == 0).then_some((Nanos::new(nanos / divisor), currency))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(amount: &str, currency: &str) -> Option<i64> {
        to_stripe(amount.parse().unwrap(), currency.parse().unwrap()).ok()
    }

    #[test]
    fn units_follow_the_currency() {
        for (amount, currency, expected) in [
            ("12.50", "EUR", Some(1_250)),
            ("0.01", "USD", Some(1)),
            ("500", "JPY", Some(500)),
            ("500", "KRW", Some(500)),
            ("5", "ISK", Some(500)),
            ("5.120", "KWD", Some(5_120)),
            ("5.124", "KWD", None),
            ("0.5", "JPY", None),
            ("0.001", "EUR", None),
            ("999999.99", "EUR", Some(99_999_999)),
            ("1000000", "EUR", None),
            ("999999", "ISK", Some(99_999_900)),
            ("0", "EUR", None),
            ("-1", "EUR", None),
        ] {
            assert_eq!(units(amount, currency), expected, "{amount} {currency}");
            if let Some(units) = expected {
                let read = from_stripe(units, &currency.to_lowercase());
                assert_eq!(read, Some((amount.parse().unwrap(), currency.parse().unwrap())), "{amount} {currency}");
            }
        }
        assert_eq!(from_stripe(1, "xxx"), None);
        assert_eq!(from_stripe(i64::MAX, "eur"), None);
    }
}
