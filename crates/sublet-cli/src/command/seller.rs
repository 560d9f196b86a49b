//! `sublet seller`, `sublet taxes` and `sublet billing profile`.

use std::path::PathBuf;

use clap::Subcommand;
use sublet_api::job::Base64;
use sublet_api::tax::{AddLogo, BillingProfile, Buyer, InvoiceTax, Party, PaymentTerms, Seller, TaxRow, TaxTable, TaxTreatment};
use sublet_core::error::Result;
use sublet_core::id::OrganizationId;

use crate::Context;
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};
use crate::value::{read_body, read_file};

/// Who sells.
#[derive(Subcommand, Debug)]
pub enum SellerCommand {
    /// Show who sells
    Show,
    /// Say who sells, from a JSON file with party, bank, footer, logo and terms
    Set { file: PathBuf },
    /// Keep a PNG for invoices, and print the name to put into the seller's file
    Logo { file: PathBuf },
}

/// Taxes that are collected.
#[derive(Subcommand, Debug)]
pub enum TaxCommand {
    /// Show the table
    Show,
    /// Say which taxes are collected, from a JSON file with rows
    Set { file: PathBuf },
}

/// How an account is invoiced.
#[derive(Subcommand, Debug)]
pub enum ProfileCommand {
    /// Show it, how the account is taxed, and why
    Show {
        /// Of another organization (operator)
        #[arg(long, value_name = "ORGANIZATION")]
        of: Option<OrganizationId>,
    },
    /// Say whom invoices are for, from a JSON file with party, purchase_order and reference
    Set {
        file: PathBuf,
        /// Of another organization (operator)
        #[arg(long, value_name = "ORGANIZATION")]
        of: Option<OrganizationId>,
    },
}

impl SellerCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Show => context.show_text(&client.seller()?, seller_text),
            Self::Set { file } => context.show_text(&client.set_seller(&read_body(&file)?)?, seller_text),
            Self::Logo { file } => {
                let logo = client.add_logo(&AddLogo { png_base64: Base64(read_file(&file)?) })?;
                context.show_text(&logo, |logo, _| format!("{}\n", logo.sha256))
            }
        }
    }
}

impl TaxCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let shown: TaxTable = match self {
            Self::Show => client.tax_table()?,
            Self::Set { file } => client.set_tax_table(&read_body(&file)?)?,
        };
        context.show(&shown, |shown| table(&shown.rows))
    }
}

impl ProfileCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let shown = match self {
            Self::Show { of: None } => client.billing_profile()?,
            Self::Show { of: Some(id) } => client.any_billing_profile(&id)?,
            Self::Set { file, of: None } => client.set_billing_profile(&read_body(&file)?)?,
            Self::Set { file, of: Some(id) } => client.set_any_billing_profile(&id, &read_body(&file)?)?,
        };
        context.show_text(&shown, profile_text)
    }
}

fn optional(text: Option<&String>) -> Cell {
    Cell::text(text.map_or(NOTHING, String::as_str))
}

/// One line: street, place and country.
fn address(party: &Party) -> String {
    let address = &party.address;
    let code = address.postal_code.as_deref().map_or_else(String::new, |code| format!("{code} "));
    let part = address.subdivision.as_deref().map_or_else(String::new, |part| format!("-{part}"));
    format!("{}, {code}{}, {}{part}", address.lines.join(", "), address.city, address.country)
}

pub(super) fn terms(terms: &PaymentTerms) -> String {
    let note = terms.note.as_deref().map_or_else(String::new, |note| format!("; {note}"));
    format!("{} days net{note}", terms.net_days)
}

fn seller_text(shown: &Seller, style: Style) -> String {
    let seller = &shown.seller;
    Table::of_fields(vec![
        ("seller", Cell::text(&seller.party.legal_name)),
        ("address", Cell::text(address(&seller.party))),
        ("VAT number", optional(seller.party.tax_id.as_ref())),
        ("registration", optional(seller.party.registration.as_ref())),
        ("IBAN", optional(seller.bank.as_ref().map(|bank| &bank.iban))),
        ("terms", Cell::text(terms(&seller.terms))),
        ("footer", optional(seller.footer.as_ref())),
        ("logo", optional(seller.logo.as_ref())),
    ])
    .render(style)
}

fn table(rows: &[TaxRow]) -> Table {
    let rows = rows.iter().map(|row| {
        [
            Cell::text(&row.jurisdiction),
            Cell::text(&row.name),
            Cell::number(format!("{} %", row.rate)),
            Cell::text(&row.from),
            optional(row.category.as_ref()),
            optional(row.reason.as_ref()),
        ]
    });
    Table::new(["jurisdiction", "tax", "rate", "from", "category", "reason"], "no tax is collected").rows(rows)
}

fn treatment(tax: &TaxTreatment) -> [Cell; 6] {
    [
        Cell::text(&tax.name),
        Cell::text(&tax.jurisdiction),
        Cell::text(&tax.category),
        Cell::number(format!("{} %", tax.rate)),
        optional(tax.reason.as_ref()),
        optional(tax.reason_code.as_ref()),
    ]
}

fn profile_text(shown: &BillingProfile, style: Style) -> String {
    let profile = shown.profile.as_ref();
    let party = profile.map(|profile| &profile.party);
    let head = Table::of_fields(vec![
        ("organization", Cell::text(shown.organization.as_str())),
        ("buyer", optional(party.map(|party| &party.legal_name))),
        ("address", Cell::text(party.map_or_else(|| NOTHING.to_owned(), address))),
        ("VAT number", optional(party.and_then(|party| party.tax_id.as_ref()))),
        ("purchase order", optional(profile.and_then(|profile| profile.purchase_order.as_ref()))),
        ("reference", optional(profile.and_then(|profile| profile.reference.as_ref()))),
        ("certificate", optional(profile.and_then(|profile| profile.exemption.as_ref()).map(|exempt| &exempt.certificate))),
        ("terms", Cell::text(shown.terms.as_ref().map_or_else(|| NOTHING.to_owned(), terms))),
        ("today", Cell::text(&shown.today)),
        ("problem", optional(shown.problem.as_ref())),
    ]);
    let taxes =
        Table::new(["tax", "jurisdiction", "category", "rate", "why", "code"], "no taxes").rows(shown.taxes.iter().map(treatment));
    format!("{}\n{}", head.render(style), taxes.render(style))
}

/// The parties of an invoice.
pub(super) fn parties(seller: Option<&Seller>, buyer: Option<&Buyer>) -> Vec<(&'static str, Cell)> {
    let mut fields = Vec::new();
    if let Some(Seller { seller, .. }) = seller {
        fields.push(("seller", Cell::text(format!("{}, {}", seller.party.legal_name, address(&seller.party)))));
        fields.push(("its VAT number", optional(seller.party.tax_id.as_ref())));
    }
    if let Some(buyer) = buyer {
        fields.push(("buyer", Cell::text(format!("{}, {}", buyer.party.legal_name, address(&buyer.party)))));
        fields.push(("its VAT number", optional(buyer.party.tax_id.as_ref())));
    }
    fields
}

/// The taxes of an invoice, as amounts below its total.
pub(super) fn tax_lines(tax: &InvoiceTax) -> Table {
    let rows = tax.lines.iter().map(|line| {
        let why = line.treatment.reason.as_deref().unwrap_or(NOTHING);
        [
            Cell::text(format!("{} {}", line.treatment.name, line.treatment.jurisdiction)),
            Cell::text(&line.treatment.category),
            Cell::number(format!("{} %", line.treatment.rate)),
            Cell::number(render::money(&line.base)),
            Cell::number(render::money(&line.amount)),
            Cell::text(why),
        ]
    });
    Table::new(["tax", "category", "rate", "base", "amount", "why"], "no taxes").rows(rows)
}
