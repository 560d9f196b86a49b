//! JSON number text to exact integers, without floats.

use sublet_core::engine::Millionths;

/// Longer number texts are refused: no setting needs them.
const NUMBER_CHARS_MAX: usize = 64;
/// Exponents beyond this are refused: every setting is far smaller.
const EXPONENT_MAX: u32 = 30;
const MILLIONTHS_DIGITS: i32 = 6;

/// The value of a JSON number in millionths. Digits beyond the sixth decimal are cut towards zero,
/// which no sampler can tell. `None` for other JSON, and for magnitudes that no setting has.
pub(crate) fn millionths(text: &str) -> Option<Millionths> {
    if text.len() > NUMBER_CHARS_MAX {
        return None;
    }
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix('+').unwrap_or(exponent).parse::<i32>().ok()?),
        None => (text, 0),
    };
    if exponent.unsigned_abs() > EXPONENT_MAX {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let point = i32::try_from(whole.len()).ok()? + exponent + MILLIONTHS_DIGITS;
    let digits = whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat(b'0'));
    let mut value = 0_i64;
    for digit in digits.take(usize::try_from(point).unwrap_or(0)) {
        value = value.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(Millionths(if negative { -value } else { value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_numbers_become_millionths_exactly() {
        for (text, value) in [
            ("0", 0),
            ("1", 1_000_000),
            ("-0.5", -500_000),
            ("0.7", 700_000),
            ("1e-3", 1_000),
            ("12.5E+1", 125_000_000),
            ("2.0000019", 2_000_001),
            ("0.0000009", 0),
            ("-100", -100_000_000),
            ("5e-10", 0),
            ("1.5e-6", 1),
        ] {
            assert_eq!(millionths(text), Some(Millionths(value)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_usable_number_is_refused() {
        // The last exponent has no positive counterpart.
        for text in [
            "",
            "-",
            "null",
            "\"1\"",
            "1e99",
            "1e-99",
            "1e-2147483648",
            "1e",
            "[1]",
            "true",
            "NaN",
            "99999999999999999999",
            ".5",
            &"1".repeat(65),
        ] {
            assert_eq!(millionths(text), None, "{text}");
        }
    }
}
