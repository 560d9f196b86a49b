use serde_json::json;

use super::*;

const DAY: &str = "2026-03-31";

fn seller(country: &str, tax_id: Option<&str>) -> Seller {
    let address = json!({ "lines": ["1"], "city": "c", "country": country });
    let mut party = json!({ "legal_name": "Seller", "address": address });
    if let Some(id) = tax_id {
        party["tax_id"] = json!(id);
    }
    serde_json::from_value(json!({ "party": party })).unwrap()
}

fn buyer(place: &str, tax_id: Option<&str>) -> BillingProfile {
    let (country, part) = place.split_once('-').map_or((place, None), |(country, part)| (country, Some(part)));
    let mut address = json!({ "lines": ["1"], "city": "c", "country": country });
    if let Some(part) = part {
        address["subdivision"] = json!(part);
    }
    let mut party = json!({ "legal_name": "Buyer", "address": address });
    if let Some(id) = tax_id {
        party["tax_id"] = json!(id);
    }
    serde_json::from_value(json!({ "buyer": { "party": party } })).unwrap()
}

fn table() -> TaxTable {
    let row = |place: &str, name: &str, ppm: u32, from: &str| json!({ "jurisdiction": place, "name": name, "rate_ppm": ppm, "from": from });
    let rows = json!({ "rows": [
        row("DE", "VAT", 190_000, "2007-01-01"),
        row("DE", "VAT", 160_000, "2020-07-01"),
        row("DE", "VAT", 190_000, "2021-01-01"),
        row("FR", "VAT", 200_000, "2014-01-01"),
        row("CA", "GST", 50_000, "2008-01-01"),
        row("CA-QC", "GST", 50_000, "2008-01-01"),
        row("CA-QC", "QST", 99_750, "2013-01-01"),
    ] });
    let table: TaxTable = serde_json::from_value(rows).unwrap();
    table.validate().unwrap();
    table
}

/// `S 19 DE VAT; …`, or the error.
fn treated(seller: &Seller, buyer: Option<&BillingProfile>, day: &str) -> String {
    match treatments(seller, &table(), buyer, day.parse().unwrap()) {
        Ok(treatments) => {
            let text = |tax: &TaxTreatment| {
                let code = tax.reason_code.as_ref().map_or(String::new(), |code| format!(" {code}"));
                format!("{} {} {} {}{code}", tax.category, tax.rate_ppm, tax.jurisdiction, tax.name)
            };
            treatments.iter().map(text).collect::<Vec<_>>().join("; ")
        }
        Err(error) => format!("refused: {}", error.alternatives().join(" | ")),
    }
}

#[test]
fn where_the_buyer_is_decides() {
    let german = seller("DE", Some("DE123456789"));
    let cases = [
        (Some(buyer("DE", None)), "S 19 DE VAT"),
        (Some(buyer("DE", Some("DE987654321"))), "S 19 DE VAT"),
        (Some(buyer("AT", Some("ATU12345678"))), "AE 0 AT VAT VATEX-EU-AE"),
        (Some(buyer("FR", Some("FR12345678901"))), "AE 0 FR VAT VATEX-EU-AE"),
        (Some(buyer("FR", None)), "S 20 FR VAT"),
        (
            Some(buyer("AT", None)),
            "refused: the VAT number of the buyer, if it is a business | a row of AT from 2026-03-31 or earlier in the tax table \
             (One-Stop-Shop)",
        ),
        (Some(buyer("US-CA", None)), "O 0 US-CA VAT VATEX-EU-O"),
        (Some(buyer("CH", Some("CHE123456789"))), "O 0 CH VAT VATEX-EU-O"),
        (Some(buyer("CA-QC", None)), "S 5 CA-QC GST; S 9.975 CA-QC QST"),
        (Some(buyer("CA-BC", None)), "S 5 CA GST"),
        (None, "S 19 DE VAT"),
    ];
    for (buyer, expected) in cases {
        assert_eq!(treated(&german, buyer.as_ref(), DAY), expected, "{buyer:?}");
    }
}

#[test]
fn what_the_seller_is_registered_for_decides_too() {
    // Without a number of its own a seller cannot shift the tax to the buyer.
    assert_eq!(treated(&seller("DE", None), Some(&buyer("FR", Some("FR12345678901"))), DAY), "S 20 FR VAT");
    let american = seller("US", None);
    assert_eq!(treated(&american, Some(&buyer("US-OR", None)), DAY), "O 0 US-OR VAT");
    assert_eq!(treated(&american, Some(&buyer("DE", None)), DAY), "S 19 DE VAT");
    // A member state's own sales need a row.
    assert!(treated(&seller("AT", Some("ATU12345678")), None, DAY).starts_with("refused: a row of AT"));
}

#[test]
fn the_day_decides_the_rate() {
    let german = seller("DE", Some("DE123456789"));
    for (day, expected) in
        [("2020-06-30", "S 19 DE VAT"), ("2020-07-01", "S 16 DE VAT"), ("2020-12-31", "S 16 DE VAT"), ("2021-01-01", "S 19 DE VAT")]
    {
        assert_eq!(treated(&german, Some(&buyer("DE", None)), day), expected);
    }
    assert!(treated(&german, None, "2006-12-31").starts_with("refused"));
}

#[test]
fn a_certificate_exempts_while_it_holds() {
    let german = seller("DE", Some("DE123456789"));
    let mut exempt = buyer("DE", None);
    exempt.exemption = serde_json::from_value(json!({ "certificate": "17", "reason": "NATO forces", "until": DAY })).unwrap();
    exempt.validate().unwrap();
    assert_eq!(treated(&german, Some(&exempt), DAY), "E 0 DE VAT");
    assert_eq!(treated(&german, Some(&exempt), "2026-04-01"), "S 19 DE VAT");
}
