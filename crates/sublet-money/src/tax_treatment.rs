//! Which taxes a sale has: a function of the seller, the tax table, the buyer and a day.
//!
//! What is sold is a service that is supplied electronically, so it is taxed where its buyer is. In this order:
//!
//! 1. A buyer with a certificate is exempt while it holds.
//! 2. Within the European Union, a business in another member state owes the tax itself (directive 2006/112/EC,
//!    articles 44 and 196). Anybody else there pays the tax of their own country, which the seller collects if its table
//!    has it (One-Stop-Shop, article 58).
//! 3. Where the table has rows of the buyer's part of a country, or else of the country, these are the taxes.
//! 4. A member state's own sales need a row. Anywhere else where there is none, the seller collects nothing.
//!
//! A buyer that nobody knows is taxed like one in the seller's own place.

use sublet_core::error::{Error, ErrorCode, Result};

use crate::day::Day;
use crate::party::Seller;
use crate::place::Jurisdiction;
use crate::tax::{BillingProfile, TaxCategory, TaxRate, TaxRow, TaxTable, TaxTreatment};

/// The name of the tax of the European Union.
const VAT: &str = "VAT";

/// The taxes on what a seller sells to a buyer on a day: at least one, and where nothing is collected one that says why.
pub fn treatments(seller: &Seller, table: &TaxTable, buyer: Option<&BillingProfile>, day: Day) -> Result<Vec<TaxTreatment>> {
    let home = &seller.party.address;
    let place = buyer.map_or(home, |profile| &profile.buyer.party.address).jurisdiction();
    let held = buyer.and_then(|profile| profile.exemption.as_ref()).filter(|held| held.until.is_none_or(|until| day <= until));
    if let Some(exemption) = held {
        let reason_code = exemption.reason_code.clone();
        return Ok(vec![none(TaxCategory::Exempt, place, (exemption.reason.clone(), reason_code))]);
    }
    let (sold_from, sold_to) = (home.country, place.country());
    let within_union = sold_from.is_in_european_union() && sold_to.is_in_european_union();
    let is_business = buyer.is_some_and(|profile| profile.buyer.party.tax_id.is_some());
    if within_union && sold_from != sold_to && is_business && seller.party.tax_id.is_some() {
        let reason = ("Reverse charge".to_owned(), Some("VATEX-EU-AE".to_owned()));
        return Ok(vec![none(TaxCategory::ReverseCharge, place, reason)]);
    }
    let rows = rows_at(table, &place, day);
    if !rows.is_empty() {
        return Ok(rows.into_iter().map(TaxRow::treatment).collect());
    }
    if !within_union {
        let code = sold_from.is_in_european_union().then(|| "VATEX-EU-O".to_owned());
        let reason = format!("No tax is collected in {place}");
        return Ok(vec![none(TaxCategory::OutOfScope, place, (reason, code))]);
    }
    let row = format!("a row of {sold_to} from {day} or earlier in the tax table");
    let error = Error::new(ErrorCode::Conflict, format!("the tax table has no rate of {sold_to} on {day}")).param("tax_table");
    if sold_from == sold_to {
        return Err(error.alternative(row));
    }
    let number = match &seller.party.tax_id {
        Some(_) => "the VAT number of the buyer, if it is a business",
        None => "the VAT numbers of the seller and the buyer, if it is a business",
    };
    Err(error.alternative(number).alternative(format!("{row} (One-Stop-Shop)")))
}

/// The rows of a part of a country; of the country where it has none of its own.
fn rows_at<'a>(table: &'a TaxTable, place: &Jurisdiction, day: Day) -> Vec<&'a TaxRow> {
    let own = table.in_force(place, day);
    if own.is_empty() { table.in_force(&Jurisdiction::new(place.country(), None), day) } else { own }
}

fn none(category: TaxCategory, jurisdiction: Jurisdiction, (reason, reason_code): (String, Option<String>)) -> TaxTreatment {
    TaxTreatment { category, jurisdiction, name: VAT.to_owned(), rate_ppm: TaxRate::ZERO, reason: Some(reason), reason_code }
}

#[cfg(test)]
#[path = "tax_treatment_tests.rs"]
mod tests;
