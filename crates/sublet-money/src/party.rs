//! Who sells and who buys: what an invoice says of both.
//!
//! Names of members follow the terms of EN 16931. Texts are single lines with a bound, and numbers are checked as far as
//! they check themselves. Parties are frozen with the invoice that names them.
//!
//! Deliberately absent: asking registers whether a number was given to somebody.

use serde::{Deserialize, Serialize};
use sublet_core::Timestamp;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::mail::MailAddress;

use crate::day::Day;
use crate::period::BillingCalendar;
use crate::place::{Country, Jurisdiction, Subdivision};
use crate::tax_id::TaxId;

/// Longest name or line, in characters.
pub const LINE_MAX_CHARS: usize = 200;
/// Longest reference or number, in characters.
pub const REFERENCE_MAX_CHARS: usize = 100;
/// Longest note, in characters.
pub const NOTE_MAX_CHARS: usize = 500;
/// Most lines of an address besides its city.
pub const ADDRESS_LINES_MAX: usize = 3;
/// Longest time to pay.
pub const NET_DAYS_MAX: u16 = 365;
/// The scheme of electronic addresses that are addresses of mail.
pub const MAIL_SCHEME: &str = "EM";
/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// Where a party is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Street and number, and what is above them.
    pub lines: Vec<String>,
    pub city: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub postal_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subdivision: Option<Subdivision>,
    pub country: Country,
}

/// Who is asked.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub email: Option<String>,
}

/// Where electronic invoices go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElectronicAddress {
    /// A code of the Electronic Address Scheme list: `0204`, `EM`.
    pub scheme: String,
    pub id: String,
}

/// A business or a person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    pub legal_name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trading_name: Option<String>,
    pub address: Address,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tax_id: Option<TaxId>,
    /// In the register of companies.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub registration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub contact: Option<Contact>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub electronic_address: Option<ElectronicAddress>,
}

/// Where the money goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BankAccount {
    /// Without spaces.
    pub iban: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holder: Option<String>,
}

/// Who sells.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seller {
    pub party: Party,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bank: Option<BankAccount>,
    /// One line, such as the management and the court of registration.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub footer: Option<String>,
    /// The SHA-256 of an image that is kept apart, in lower-case hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub logo: Option<String>,
}

/// Who buys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buyer {
    pub party: Party,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub purchase_order: Option<String>,
    /// The buyer's own reference, such as a Leitweg-ID.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reference: Option<String>,
}

/// By when an invoice is paid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentTerms {
    /// Days after the day of issue.
    pub net_days: u16,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

fn invalid(param: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param.to_owned())
}

/// One line of text that says something.
pub(crate) fn check_line(param: &str, text: &str, chars_max: usize) -> Result<()> {
    if text.trim() != text || text.is_empty() || text.chars().count() > chars_max || text.chars().any(char::is_control) {
        let message = format!("{param} is one line of 1 to {chars_max} characters, without spaces around it");
        return Err(invalid(param, message));
    }
    Ok(())
}

fn check_optional(param: &str, text: Option<&String>, chars_max: usize) -> Result<()> {
    text.map_or(Ok(()), |text| check_line(param, text, chars_max))
}

/// Names a member of a member.
fn within(outer: &str, error: Error) -> Error {
    match error.param_name().map(|param| format!("{outer}.{param}")) {
        Some(param) => error.param(param),
        None => error.param(outer),
    }
}

impl Address {
    /// Where taxes are levied on what is sold there.
    pub fn jurisdiction(&self) -> Jurisdiction {
        Jurisdiction::new(self.country, self.subdivision.clone())
    }

    fn validate(&self) -> Result<()> {
        if !(1..=ADDRESS_LINES_MAX).contains(&self.lines.len()) {
            return Err(invalid("lines", format!("an address has 1 to {ADDRESS_LINES_MAX} lines besides its city")));
        }
        for line in &self.lines {
            check_line("lines", line, LINE_MAX_CHARS)?;
        }
        check_line("city", &self.city, LINE_MAX_CHARS)?;
        check_optional("postal_code", self.postal_code.as_ref(), REFERENCE_MAX_CHARS)
    }
}

impl Contact {
    fn validate(&self) -> Result<()> {
        check_optional("name", self.name.as_ref(), LINE_MAX_CHARS)?;
        check_optional("phone", self.phone.as_ref(), REFERENCE_MAX_CHARS)?;
        check_optional("email", self.email.as_ref(), LINE_MAX_CHARS)?;
        self.email.as_ref().map_or(Ok(()), |email| check_mail_address("email", email))
    }
}

impl ElectronicAddress {
    /// Codes are four digits of ISO 6523 or of the European list, or one of five of letters.
    fn validate(&self) -> Result<()> {
        let is_number = self.scheme.len() == 4 && self.scheme.bytes().all(|byte| byte.is_ascii_digit());
        let is_listed = is_number && (self.scheme.starts_with('0') || self.scheme.starts_with("99"));
        if !is_listed && !["AN", "AQ", "AS", "AU", "EM"].contains(&self.scheme.as_str()) {
            return Err(invalid("scheme", format!("'{}' is not a code of the Electronic Address Scheme list", clip(&self.scheme)))
                .alternative("EM for an e-mail address, 0204 for a Leitweg-ID, 9930 for a German VAT number"));
        }
        check_line("id", &self.id, LINE_MAX_CHARS)?;
        if self.scheme == MAIL_SCHEME { check_mail_address("id", &self.id) } else { Ok(()) }
    }
}

/// One that mail can be sent to: what is wrong with it is told to whoever sets it, and not found out with the first mail.
fn check_mail_address(param: &str, text: &str) -> Result<()> {
    let address = text.parse::<MailAddress>().map_err(|error| error.param(param.to_owned()))?;
    if !address.host().contains('.') {
        return Err(
            invalid(param, "an e-mail address has a name, an @ and a host with a domain").alternative("billing@example.com")
        );
    }
    Ok(())
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

impl Party {
    /// Refuses what cannot be on an invoice.
    pub fn validate(&self) -> Result<()> {
        check_line("legal_name", &self.legal_name, LINE_MAX_CHARS)?;
        check_optional("trading_name", self.trading_name.as_ref(), LINE_MAX_CHARS)?;
        self.address.validate().map_err(|error| within("address", error))?;
        check_optional("registration", self.registration.as_ref(), REFERENCE_MAX_CHARS)?;
        if let Some(id) = self.tax_id.as_ref().filter(|id| !id.is_of(self.address.country)) {
            let message = format!("{id} is not a VAT number of {}, where the address is", self.address.country);
            return Err(invalid("tax_id", message).alternative("the address of the establishment that has the number"));
        }
        if let Some(contact) = &self.contact {
            contact.validate().map_err(|error| within("contact", error))?;
        }
        if let Some(address) = &self.electronic_address {
            address.validate().map_err(|error| within("electronic_address", error))?;
        }
        Ok(())
    }
}

impl BankAccount {
    fn validate(&self) -> Result<()> {
        if !is_iban(&self.iban) {
            return Err(invalid("iban", format!("'{}' is not an IBAN: its check digits are wrong", clip(&self.iban)))
                .alternative("without spaces, such as DE89370400440532013000"));
        }
        if let Some(bic) = self.bic.as_ref().filter(|bic| !is_bic(bic)) {
            return Err(invalid("bic", format!("'{}' is not a BIC of 8 or 11 letters and digits", clip(bic))));
        }
        check_optional("holder", self.holder.as_ref(), LINE_MAX_CHARS)
    }
}

/// ISO 13616: country, check digits, account; with letters as numbers from 10 on and the first four characters moved to
/// the end, the number leaves 1 when divided by 97.
fn is_iban(text: &str) -> bool {
    let (Some(head), Some(tail)) = (text.get(..4), text.get(4..)) else { return false };
    let head_fits = head.get(..2).is_some_and(|code| code.parse::<Country>().is_ok() || code == "XK")
        && head.bytes().skip(2).all(|byte| byte.is_ascii_digit());
    if !head_fits || !(15..=34).contains(&text.len()) {
        return false;
    }
    let mut left = 0_u32;
    for byte in tail.bytes().chain(head.bytes()) {
        left = match byte {
            b'0'..=b'9' => left * 10 + u32::from(byte - b'0'),
            b'A'..=b'Z' => left * 100 + u32::from(byte - b'A') + 10,
            _ => return false,
        } % 97;
    }
    left == 1
}

/// ISO 9362: four letters, a country, two letters or digits, and three more for a branch.
fn is_bic(text: &str) -> bool {
    let country = text.get(4..6).is_some_and(|code| code.parse::<Country>().is_ok() || code == "XK");
    matches!(text.len(), 8 | 11)
        && country
        && text.bytes().take(4).all(|byte| byte.is_ascii_uppercase())
        && text.bytes().skip(6).all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

impl Seller {
    pub fn validate(&self) -> Result<()> {
        self.party.validate().map_err(|error| within("party", error))?;
        if let Some(bank) = &self.bank {
            bank.validate().map_err(|error| within("bank", error))?;
        }
        check_optional("footer", self.footer.as_ref(), NOTE_MAX_CHARS)?;
        let is_hash = |text: &String| {
            text.len() == SHA256_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        if self.logo.as_ref().is_some_and(|logo| !is_hash(logo)) {
            return Err(invalid("logo", "a logo is named by its SHA-256, in 64 lower-case hexadecimal digits"));
        }
        Ok(())
    }
}

impl Buyer {
    pub fn validate(&self) -> Result<()> {
        self.party.validate().map_err(|error| within("party", error))?;
        check_optional("purchase_order", self.purchase_order.as_ref(), REFERENCE_MAX_CHARS)?;
        check_optional("reference", self.reference.as_ref(), REFERENCE_MAX_CHARS)
    }
}

impl PaymentTerms {
    pub fn validate(&self) -> Result<()> {
        if self.net_days > NET_DAYS_MAX {
            return Err(invalid("net_days", format!("an invoice is paid within at most {NET_DAYS_MAX} days")));
        }
        check_optional("note", self.note.as_ref(), NOTE_MAX_CHARS)
    }

    /// The last day on which an invoice is paid in time, in the account's zone.
    pub fn due_on(&self, issued_at: Timestamp, calendar: &BillingCalendar) -> Result<Day> {
        calendar.day_at(issued_at)?.plus_days(self.net_days)
    }
}

#[cfg(test)]
#[path = "party_tests.rs"]
mod tests;
