//! Numbers and parties as documents write them.

use sublet_core::{Currency, Nanos};
use sublet_money::party::{Party, Seller};
use sublet_money::sku::PricingUnit;

use crate::figures::Measure;

/// Digits after the point in a currency's smallest unit.
fn minor_digits(currency: Currency) -> usize {
    let mut digits = 0;
    let mut unit = currency.minor_unit().get();
    while unit < sublet_core::money::NANOS_PER_UNIT {
        unit *= 10;
        digits += 1;
    }
    digits
}

fn decimals(amount: Nanos, least: usize) -> (String, String, String) {
    let magnitude = amount.get().unsigned_abs();
    let mut fraction = format!("{:09}", magnitude % 1_000_000_000);
    while fraction.len() > least && fraction.ends_with('0') {
        fraction.pop();
    }
    let sign = if amount.is_negative() { "-" } else { "" };
    (sign.to_owned(), (magnitude / 1_000_000_000).to_string(), fraction)
}

/// For programs: `1234.50`. No decimal that is not zero is left out.
pub fn plain(amount: Nanos, currency: Currency) -> String {
    let (sign, units, fraction) = decimals(amount, minor_digits(currency));
    if fraction.is_empty() { format!("{sign}{units}") } else { format!("{sign}{units}.{fraction}") }
}

/// For people: `1,234.50`.
pub fn amount(amount: Nanos, currency: Currency) -> String {
    let (sign, units, fraction) = decimals(amount, minor_digits(currency));
    let units = grouped(&units);
    if fraction.is_empty() { format!("{sign}{units}") } else { format!("{sign}{units}.{fraction}") }
}

/// With its currency.
pub fn money(nanos: Nanos, currency: Currency) -> String {
    format!("{} {currency}", amount(nanos, currency))
}

fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1,234,567 tokens`; device time to the millisecond, `36:00:00.000 h`.
pub fn quantity(measure: Measure) -> String {
    match measure {
        Measure::Once => "1".to_owned(),
        Measure::Counted { quantity, unit: PricingUnit::MillionTokens, .. } => format!("{} tokens", grouped(&quantity.to_string())),
        Measure::Counted { quantity, unit: PricingUnit::Request, .. } => format!("{} requests", grouped(&quantity.to_string())),
        Measure::Counted { quantity, unit: PricingUnit::Start, .. } => format!("{} starts", grouped(&quantity.to_string())),
        Measure::Counted { quantity, unit: PricingUnit::ProjectMonth, .. } => format!("{} months", grouped(&quantity.to_string())),
        Measure::Counted { quantity, unit: PricingUnit::GibibyteMonth, .. } => {
            format!("{} byte-hours", grouped(&quantity.to_string()))
        }
        Measure::Counted { quantity, unit: PricingUnit::Gibibyte, .. } => format!("{} bytes", grouped(&quantity.to_string())),
        Measure::Counted { quantity, unit: PricingUnit::Fee, .. } => grouped(&quantity.to_string()),
        Measure::Counted { quantity, unit: PricingUnit::DeviceHour, .. } => {
            let (sign, quantity) = (if quantity < 0 { "-" } else { "" }, quantity.unsigned_abs());
            let (seconds, millis) = (quantity / 1_000, quantity % 1_000);
            let hours = grouped(&(seconds / 3_600).to_string());
            format!("{sign}{hours}:{:02}:{:02}.{millis:03} h", seconds / 60 % 60, seconds % 60)
        }
    }
}

/// A party's name and address, one thing a line.
pub fn address(party: &Party) -> Vec<String> {
    let mut lines = vec![party.legal_name.clone()];
    lines.extend(party.trading_name.clone());
    let address = &party.address;
    lines.extend(address.lines.iter().cloned());
    let city: Vec<&str> = address.postal_code.as_deref().into_iter().chain([address.city.as_str()]).collect();
    lines.push(match &address.subdivision {
        Some(part) => format!("{}, {}, {}", city.join(" "), part.as_str(), address.country),
        None => format!("{}, {}", city.join(" "), address.country),
    });
    lines
}

/// The numbers under which a party is registered.
pub fn registrations(party: &Party) -> Vec<String> {
    let tax = party.tax_id.as_ref().map(|id| format!("VAT ID {}", id.as_str()));
    let register = party.registration.as_ref().map(|number| format!("Reg. no. {number}"));
    tax.into_iter().chain(register).collect()
}

/// Whom to ask.
pub fn contact(seller: &Seller) -> Option<String> {
    let contact = seller.party.contact.as_ref()?;
    let parts: Vec<&str> = [&contact.name, &contact.phone, &contact.email].into_iter().flatten().map(String::as_str).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_decimal_that_says_something_is_left_out() {
        for (nanos, code, people, programs) in [
            (0, "EUR", "0.00", "0.00"),
            (1_234_500_000_000, "EUR", "1,234.50", "1234.50"),
            (-1_234_567_890_123, "EUR", "-1,234.567890123", "-1234.567890123"),
            (1, "EUR", "0.000000001", "0.000000001"),
            (2_000_000_000, "JPY", "2", "2"),
        ] {
            let currency = code.parse().unwrap();
            assert_eq!(
                (amount(Nanos::new(nanos), currency).as_str(), plain(Nanos::new(nanos), currency).as_str()),
                (people, programs)
            );
        }
    }

    #[test]
    fn quantities_are_exact() {
        let time = |quantity| Measure::Counted { quantity, unit: PricingUnit::DeviceHour, price: None };
        assert_eq!(quantity(time(3_600_000 * 1_234 + 61_001)), "1,234:01:01.001 h");
        assert_eq!(quantity(time(-61_001)), "-0:01:01.001 h");
        assert_eq!(quantity(Measure::Counted { quantity: 1_000, unit: PricingUnit::MillionTokens, price: None }), "1,000 tokens");
    }
}
