use serde_json::{Value, json};

use super::*;

fn seller() -> Value {
    json!({
        "party": {
            "legal_name": "Beispiel GmbH",
            "address": { "lines": ["Hauptstraße 1"], "city": "Berlin", "postal_code": "10115", "country": "DE" },
            "tax_id": "DE 123 456 789",
            "registration": "HRB 1234",
            "contact": { "name": "Billing", "phone": "+49 30 1", "email": "billing@example.com" },
            "electronic_address": { "scheme": "EM", "id": "billing@example.com" },
        },
        "bank": { "iban": "DE89370400440532013000", "bic": "COBADEFFXXX" },
        "footer": "Managing director: A. Example. District court Berlin",
    })
}

fn with(pointer: &str, value: Value) -> Result<(), String> {
    let mut seller = seller();
    *seller.pointer_mut(pointer).expect("the member is there") = value;
    let seller: Seller = serde_json::from_value(seller).map_err(|error| error.to_string())?;
    seller.validate().map_err(|error| format!("{}: {error}", error.param_name().unwrap_or("?")))
}

#[test]
fn a_seller_is_read_and_written_in_one_form() {
    let read: Seller = serde_json::from_value(seller()).unwrap();
    read.validate().unwrap();
    assert_eq!(read.party.tax_id.as_ref().unwrap().as_str(), "DE123456789");
    let again: Seller = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
    assert_eq!(again, read);
    assert!(serde_json::from_value::<Seller>(json!({ "party": seller()["party"], "logos": 1 })).is_err());
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("/party/legal_name", json!(""), "party.legal_name: "),
        ("/party/legal_name", json!("a\nb"), "party.legal_name: "),
        ("/party/legal_name", json!(" a"), "party.legal_name: "),
        ("/party/address/lines", json!([]), "party.address.lines: "),
        ("/party/address/lines", json!(["1", "2", "3", "4"]), "party.address.lines: "),
        ("/party/address/city", json!("x".repeat(201)), "party.address.city: "),
        ("/party/address/country", json!("FR"), "party.tax_id: "),
        ("/party/contact/email", json!("nobody"), "party.contact.email: "),
        ("/party/contact/email", json!("a@b"), "party.contact.email: "),
        ("/party/contact/email", json!("Ann <ann@example.com>"), "party.contact.email: "),
        ("/party/contact/email", json!("bü@example.com"), "party.contact.email: "),
        ("/party/electronic_address", json!({ "scheme": "EM", "id": "nobody" }), "party.electronic_address.id: "),
        ("/party/electronic_address/scheme", json!("1234"), "party.electronic_address.scheme: "),
        ("/bank/iban", json!("DE89370400440532013001"), "bank.iban: "),
        ("/bank/bic", json!("COBADEFFX"), "bank.bic: "),
        ("/footer", json!("x".repeat(501)), "footer: "),
        ("/party/address/country", json!("UK"), "'UK' is not a country"),
        ("/party/tax_id", json!("DE1"), "'DE1' is not a VAT number"),
    ];
    for (pointer, value, expected) in cases {
        let error = with(pointer, value.clone()).unwrap_err();
        assert!(error.starts_with(expected), "{pointer} {value}: {error}");
    }
}

/// Examples of the IBAN registry (ISO 13616).
#[test]
fn an_iban_checks_itself() {
    for iban in ["DE89370400440532013000", "GB29NWBK60161331926819", "NO9386011117947", "MT84MALT011000012345MTLCAST001S"] {
        assert!(is_iban(iban), "{iban}");
        // Any one digit that is another one is found.
        for (at, byte) in iban.bytes().enumerate().skip(2).filter(|(_, byte)| byte.is_ascii_digit()) {
            let mut bytes = iban.as_bytes().to_vec();
            bytes[at] = if byte == b'9' { b'0' } else { byte + 1 };
            assert!(!is_iban(std::str::from_utf8(&bytes).unwrap()), "{iban} at {at}");
        }
    }
    for text in ["", "DE", "DE89 3704 0044 0532 0130 00", "de89370400440532013000", "ÄÄ89370400440532013000"] {
        assert!(!is_iban(text), "{text}");
    }
}

#[test]
fn an_invoice_is_due_on_a_day_of_the_accounts_zone() {
    // 2026-02-28T23:30:00Z: the first of March in Berlin.
    let issued_at = Timestamp::from_seconds(1_772_321_400);
    let terms = PaymentTerms { net_days: 14, note: None };
    let due_in = |zone: &str| terms.due_on(issued_at, &BillingCalendar::new(zone).unwrap()).unwrap().to_string();
    assert_eq!(due_in("Europe/Berlin"), "2026-03-15");
    assert_eq!(due_in("UTC"), "2026-03-14");
    assert!(PaymentTerms { net_days: 366, note: None }.validate().is_err());
}
