//! Who sells, who buys, and the taxes between them.

use sublet_api::object::{BillingProfileTag, LogoTag, SellerTag, TaxTableTag};
use sublet_api::tax as wire;
use sublet_cloud::data::{
    Address, BankAccount, BillingProfile, Buyer, Contact, ElectronicAddress, Exemption, InvoiceContent, Party, PaymentTerms,
    Seller, SellerProfile, TaxRow, TaxTable, TaxTreatment,
};
use sublet_cloud::tax::AccountTax;
use sublet_core::id::OrganizationId;
use sublet_core::{Error, ErrorCode, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::money;

/// Reads a member that has a form of its own.
fn parsed<T: std::str::FromStr<Err = Error>>(param: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error: Error| error.param(param))
}

fn party(party: wire::Party) -> Result<Party> {
    let wire::Address { lines, city, postal_code, subdivision, country } = party.address;
    let subdivision = subdivision.map(|part| parsed("party.address.subdivision", &part)).transpose()?;
    let country = parsed("party.address.country", &country)?;
    let contact = party.contact.map(|contact| Contact { name: contact.name, phone: contact.phone, email: contact.email });
    let electronic = party.electronic_address.map(|address| ElectronicAddress { scheme: address.scheme, id: address.id });
    Ok(Party {
        legal_name: party.legal_name,
        trading_name: party.trading_name,
        address: Address { lines, city, postal_code, subdivision, country },
        tax_id: party.tax_id.map(|id| parsed("party.tax_id", &id)).transpose()?,
        registration: party.registration,
        contact,
        electronic_address: electronic,
    })
}

fn party_to_wire(party: &Party) -> wire::Party {
    let address = wire::Address {
        lines: party.address.lines.clone(),
        city: party.address.city.clone(),
        postal_code: party.address.postal_code.clone(),
        subdivision: party.address.subdivision.as_ref().map(|part| part.as_str().to_owned()),
        country: party.address.country.to_string(),
    };
    let contact = party.contact.clone().map(|Contact { name, phone, email }| wire::Contact { name, phone, email });
    let electronic =
        party.electronic_address.clone().map(|ElectronicAddress { scheme, id }| wire::ElectronicAddress { scheme, id });
    wire::Party {
        legal_name: party.legal_name.clone(),
        trading_name: party.trading_name.clone(),
        address,
        tax_id: party.tax_id.as_ref().map(ToString::to_string),
        registration: party.registration.clone(),
        contact,
        electronic_address: electronic,
    }
}

pub fn terms_from_wire(terms: wire::PaymentTerms) -> PaymentTerms {
    PaymentTerms { net_days: terms.net_days, note: terms.note }
}

pub fn terms_to_wire(terms: &PaymentTerms) -> wire::PaymentTerms {
    wire::PaymentTerms { net_days: terms.net_days, note: terms.note.clone() }
}

pub fn seller_to_wire(seller: &Seller, terms: &PaymentTerms) -> wire::Seller {
    let bank = seller.bank.clone().map(|BankAccount { iban, bic, holder }| wire::BankAccount { iban, bic, holder });
    let seller = wire::SetSeller {
        party: party_to_wire(&seller.party),
        bank,
        footer: seller.footer.clone(),
        logo: seller.logo.clone(),
        terms: terms_to_wire(terms),
    };
    wire::Seller { object: SellerTag, seller }
}

pub fn buyer_to_wire(buyer: &Buyer) -> wire::Buyer {
    wire::Buyer {
        party: party_to_wire(&buyer.party),
        purchase_order: buyer.purchase_order.clone(),
        reference: buyer.reference.clone(),
    }
}

fn treatment_to_wire(treatment: &TaxTreatment) -> wire::TaxTreatment {
    wire::TaxTreatment {
        category: treatment.category.to_string(),
        jurisdiction: treatment.jurisdiction.to_string(),
        name: treatment.name.clone(),
        rate: treatment.rate_ppm.to_string(),
        reason: treatment.reason.clone(),
        reason_code: treatment.reason_code.clone(),
    }
}

/// An invoice's taxes, of which so much was given back.
pub fn taxes_to_wire(content: &InvoiceContent, credited: Nanos) -> Result<Option<wire::InvoiceTax>> {
    let currency = content.account.currency;
    let Some(tax) = &content.tax else { return Ok(None) };
    let lines = tax.lines.iter().map(|line| wire::TaxLine {
        treatment: treatment_to_wire(&line.treatment),
        base: money(line.base, currency),
        amount: money(line.amount, currency),
    });
    Ok(Some(wire::InvoiceTax {
        gifts: money(tax.gifts, currency),
        lines: lines.collect(),
        amount: money(tax.amount, currency),
        credited: money(credited, currency),
        gross: money(content.gross()?, currency),
    }))
}

fn row((index, row): (usize, wire::TaxRow)) -> Result<TaxRow> {
    let at = |member: &str| format!("rows[{index}].{member}");
    Ok(TaxRow {
        jurisdiction: parsed(&at("jurisdiction"), &row.jurisdiction)?,
        name: row.name,
        rate_ppm: parsed(&at("rate"), &row.rate)?,
        from: parsed(&at("from"), &row.from)?,
        category: row.category.map(|category| parsed(&at("category"), &category)).transpose()?,
        reason: row.reason,
        reason_code: row.reason_code,
    })
}

fn row_to_wire(row: &TaxRow) -> wire::TaxRow {
    wire::TaxRow {
        jurisdiction: row.jurisdiction.to_string(),
        name: row.name.clone(),
        rate: row.rate_ppm.to_string(),
        from: row.from.to_string(),
        category: row.category.map(|category| category.to_string()),
        reason: row.reason.clone(),
        reason_code: row.reason_code.clone(),
    }
}

fn profile(body: wire::SetBillingProfile) -> Result<BillingProfile> {
    let exemption = body.exemption.map(|exemption| {
        let until = exemption.until.map(|day| parsed("exemption.until", &day)).transpose()?;
        let wire::Exemption { certificate, reason, reason_code, .. } = exemption;
        Ok::<_, Error>(Exemption { certificate, reason, reason_code, until })
    });
    let buyer = Buyer { party: party(body.party)?, purchase_order: body.purchase_order, reference: body.reference };
    Ok(BillingProfile { buyer, exemption: exemption.transpose()?, terms: body.terms.map(terms_from_wire) })
}

fn profile_to_wire(profile: &BillingProfile) -> wire::SetBillingProfile {
    let exemption = profile.exemption.as_ref().map(|exemption| wire::Exemption {
        certificate: exemption.certificate.clone(),
        reason: exemption.reason.clone(),
        reason_code: exemption.reason_code.clone(),
        until: exemption.until.map(|day| day.to_string()),
    });
    let wire::Buyer { party, purchase_order, reference } = buyer_to_wire(&profile.buyer);
    wire::SetBillingProfile { party, purchase_order, reference, exemption, terms: profile.terms.as_ref().map(terms_to_wire) }
}

fn account_to_wire(account: &AccountTax) -> wire::BillingProfile {
    wire::BillingProfile {
        object: BillingProfileTag,
        organization: account.organization.clone(),
        profile: account.profile.as_ref().map(profile_to_wire),
        terms: account.terms.as_ref().map(terms_to_wire),
        today: account.day.to_string(),
        taxes: account.treatments.iter().map(treatment_to_wire).collect(),
        problem: account.problem.clone(),
    }
}

pub async fn get_seller(app: App, context: Context) -> Result<Answer> {
    let found = app.cloud.seller(&context.actor).await?;
    let found = found.ok_or_else(|| {
        Error::new(ErrorCode::NotFound, "nobody said who sells").alternative("PUT /operator/v1/seller, or sublet seller set FILE")
    })?;
    json(&seller_to_wire(&found.seller, &found.terms))
}

pub async fn set_seller(app: App, context: Context) -> Result<Answer> {
    let body: wire::SetSeller = context.body()?;
    let bank = body.bank.map(|bank| BankAccount { iban: bank.iban, bic: bank.bic, holder: bank.holder });
    let seller = Seller { party: party(body.party)?, bank, footer: body.footer, logo: body.logo };
    let profile = SellerProfile { seller, terms: terms_from_wire(body.terms) };
    app.cloud.set_seller(&context.actor, &profile).await?;
    json(&seller_to_wire(&profile.seller, &profile.terms))
}

pub async fn add_logo(app: App, context: Context) -> Result<Answer> {
    let body: wire::AddLogo = context.body()?;
    json(&wire::Logo { object: LogoTag, sha256: app.cloud.add_logo(&context.actor, &body.png_base64.0).await? })
}

pub async fn get_table(app: App, context: Context) -> Result<Answer> {
    let table = app.cloud.tax_table(&context.actor).await?;
    json(&wire::TaxTable { object: TaxTableTag, rows: table.rows.iter().map(row_to_wire).collect() })
}

pub async fn set_table(app: App, context: Context) -> Result<Answer> {
    let body: wire::SetTaxTable = context.body()?;
    let table = TaxTable { rows: body.rows.into_iter().enumerate().map(row).collect::<Result<_>>()? };
    app.cloud.set_tax_table(&context.actor, &table).await?;
    json(&wire::TaxTable { object: TaxTableTag, rows: table.rows.iter().map(row_to_wire).collect() })
}

async fn show_profile(app: App, context: Context, organization: &OrganizationId) -> Result<Answer> {
    json(&account_to_wire(&app.cloud.account_tax(&context.actor, organization).await?))
}

async fn write_profile(app: App, context: Context, organization: &OrganizationId) -> Result<Answer> {
    let profile = profile(context.body()?)?;
    json(&account_to_wire(&app.cloud.set_billing_profile(&context.actor, organization, profile).await?))
}

pub async fn get_own_profile(app: App, context: Context) -> Result<Answer> {
    let own = context.actor.organization()?.clone();
    show_profile(app, context, &own).await
}

pub async fn set_own_profile(app: App, context: Context) -> Result<Answer> {
    let own = context.actor.organization()?.clone();
    write_profile(app, context, &own).await
}

pub async fn get_profile(app: App, context: Context) -> Result<Answer> {
    let id: OrganizationId = context.path("id")?;
    show_profile(app, context, &id).await
}

pub async fn set_profile(app: App, context: Context) -> Result<Answer> {
    let id: OrganizationId = context.path("id")?;
    write_profile(app, context, &id).await
}
