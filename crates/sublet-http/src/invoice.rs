//! Invoices and the charges they add up.

use std::collections::BTreeMap;

use sublet_api::invoice as wire;
use sublet_api::money::Amount;
use sublet_api::object::{ChargeTag, InvoiceTag};
use sublet_cloud::data::{
    BillingCalendar, Charge, InvoiceFilter, InvoiceLine, InvoiceState, Late, PriceListVersion, PriceModel, RerateNote,
};
use sublet_cloud::invoice::Bill;
use sublet_core::id::InvoiceId;
use sublet_core::{Currency, Error, ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_request};
use crate::wire::{SkuParts, count, money, sku_parts};
use crate::{contract, tax};

async fn to_wire(app: &App, bill: &Bill) -> Result<wire::Invoice> {
    let invoice = &bill.invoice;
    let content = &invoice.content;
    let currency = content.account.currency;
    let (status, issued_at, paid_at, voided_at) = match invoice.state {
        InvoiceState::Draft => (wire::InvoiceStatus::Draft, None, None, None),
        InvoiceState::Issued { issued_at } => (wire::InvoiceStatus::Issued, Some(issued_at), None, None),
        InvoiceState::Paid { issued_at, paid_at } => (wire::InvoiceStatus::Paid, Some(issued_at), Some(paid_at), None),
        InvoiceState::Void { issued_at, paid_at, voided_at } => {
            (wire::InvoiceStatus::Void, Some(issued_at), paid_at, Some(voided_at))
        }
    };
    let mut versions = BTreeMap::new();
    for version in content.lines.iter().map(|line| &line.price_version) {
        if !versions.contains_key(version) {
            versions.insert(version, app.cloud.find_prices(version).await?);
        }
    }
    let line = |line: &InvoiceLine| match versions.get(&line.price_version) {
        Some(version) => line_to_wire(version, line, currency),
        None => Err(Error::internal("an invoice's prices were not read")),
    };
    let lines = content.lines.iter().map(line).collect::<Result<_>>()?;
    let exact = content.subtotal.checked_sub(content.carry_before)?;
    Ok(wire::Invoice {
        object: InvoiceTag,
        id: invoice.id.clone(),
        number: invoice.number.map(|number| number.to_string()),
        organization: content.account.organization.clone(),
        status,
        period_start: content.period.interval.starts_at.into(),
        period_end: content.period.interval.ends_at.into(),
        time_zone: content.account.zone.clone(),
        lines,
        rerates: content.rerates.iter().map(|note| note_to_wire(note, currency)).collect(),
        commitment: content.commitment.as_ref().map(|line| contract::line_to_wire(line, currency)).transpose()?,
        advance: content.advance.as_ref().map(|line| contract::advance_to_wire(line, currency)),
        subtotal: money(content.subtotal, currency),
        rounding: money(content.total.checked_sub(exact)?, currency),
        carried: money(content.carry_before.checked_neg()?, currency),
        total: money(content.total, currency),
        seller: content.seller.as_ref().zip(content.terms.as_ref()).map(|(seller, terms)| tax::seller_to_wire(seller, terms)),
        buyer: content.buyer.as_deref().map(tax::buyer_to_wire),
        terms: content.terms.as_ref().map(tax::terms_to_wire),
        due_on: invoice.due_on()?.map(|day| day.to_string()),
        tax: tax::taxes_to_wire(content, bill.credited_tax)?,
        credited: money(bill.credited, currency),
        amount_due: money(bill.due, currency),
        created_at: bill.created_at.into(),
        issued_at: issued_at.map(Into::into),
        paid_at: paid_at.map(Into::into),
        voided_at: voided_at.map(Into::into),
    })
}

fn line_to_wire(version: &PriceListVersion, line: &InvoiceLine, currency: Currency) -> Result<wire::InvoiceLine> {
    let SkuParts { subject, meter, notice, service_tier, site, isolation } = sku_parts(&line.sku);
    let entry = version.get(&line.sku)?;
    let unit_amount = match *entry.price_in(line.band.as_ref())?.model() {
        PriceModel::PerUnit { price } => Some(Amount(price)),
        PriceModel::Graduated { .. } | PriceModel::Volume { .. } | PriceModel::Package { .. } | PriceModel::Minimum { .. } => None,
    };
    Ok(wire::InvoiceLine {
        project: line.project.clone(),
        subject,
        meter,
        notice,
        service_tier,
        site,
        isolation,
        price_version: line.price_version.clone(),
        band: line.band.as_ref().map(ToString::to_string),
        price: line.price.clone(),
        unit_amount,
        unit_per: count(entry.unit.base_units())?,
        quantity: line.quantity.get(),
        charges: line.charges.count,
        amount: money(line.charges.amount, currency),
        late: line.late.map(|late| late_to_wire(&late, currency)).transpose()?,
    })
}

fn note_to_wire(note: &RerateNote, currency: Currency) -> wire::InvoiceRerate {
    wire::InvoiceRerate {
        id: note.id.clone(),
        of: note.of.clone(),
        to: note.to.clone(),
        from: note.interval.starts_at.into(),
        until: note.interval.ends_at.into(),
        reason: note.reason.clone(),
        amount: money(note.amount, currency),
    }
}

fn late_to_wire(late: &Late, currency: Currency) -> Result<wire::Late> {
    Ok(wire::Late {
        period: late.period.to_string(),
        quantity_before: count(late.quantity_before.get())?,
        amount_before: money(late.charged_before, currency),
    })
}

/// Drafts the invoice of the period that holds the given instant.
pub async fn draft(app: App, context: Context) -> Result<Answer> {
    let body: wire::DraftInvoice = if context.body.is_empty() { wire::DraftInvoice::default() } else { context.body()? };
    let organization = context.actor.organization()?;
    let account = app.cloud.get_organization(&context.actor, organization).await?;
    let period = match body.at {
        Some(at) => Some(BillingCalendar::new(&account.time_zone)?.period_at(at.0)?.key),
        None => None,
    };
    json(&to_wire(&app, &app.cloud.draft_invoice(&context.actor, organization, period).await?).await?)
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: InvoiceId = context.path("id")?;
    json(&to_wire(&app, &app.cloud.get_invoice(&context.actor, &id).await?).await?)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::InvoiceListQuery = context.query()?;
    let asked = query.page();
    let state = query.status.map(wire::InvoiceStatus::as_str);
    let filter = InvoiceFilter { state, organization: query.organization, number: query.number };
    let page = app.cloud.list_invoices(&context.actor, &filter, &page_request(&asked)?).await?;
    let mut invoices = Vec::with_capacity(page.items.len());
    for bill in &page.items {
        invoices.push(to_wire(&app, bill).await?);
    }
    if asked.before.is_some() {
        invoices.reverse();
    }
    json(&sublet_api::List::page(invoices, page.has_more, |invoice| invoice.id.to_string()))
}

pub fn charge_to_wire(charge: &Charge) -> Result<wire::Charge> {
    let SkuParts { subject, meter, notice, service_tier, site, isolation } = sku_parts(&charge.sku);
    Ok(wire::Charge {
        object: ChargeTag,
        id: charge.id.clone(),
        project: charge.project.clone(),
        request: charge.source.parse().ok(),
        job: charge.source.parse().ok(),
        lease: charge.source.parse().ok(),
        rerate: charge.source.parse().ok(),
        subject,
        meter,
        notice,
        service_tier,
        site,
        isolation,
        band: charge.band.as_ref().map(ToString::to_string),
        quantity: charge.quantity.get(),
        amount: money(charge.amount, charge.currency),
        price_version: charge.price_version.clone(),
        used_at: charge.occurred_at.into(),
        billed_in: charge.billed_in.map(|period| period.to_string()),
        created_at: charge.posted_at.into(),
    })
}

pub async fn list_charges(app: App, context: Context) -> Result<Answer> {
    let query: wire::ChargeListQuery = context.query()?;
    let filters = [query.project.is_some(), query.start_time.is_some(), query.end_time.is_some()];
    if filters.contains(&true) {
        return Err(Error::new(
            ErrorCode::UnsupportedField,
            "charges can be filtered by request and job; not yet by project or time",
        )
        .alternative("use /v1/organization/costs for sums over time"));
    }
    let source = query.request.as_ref().map(|id| id.as_str()).or(query.job.as_ref().map(|id| id.as_str()));
    let asked = query.page();
    let page = app.cloud.list_charges(&context.actor, source, &page_request(&asked)?).await?;
    let mut charges = page.items.iter().map(charge_to_wire).collect::<Result<Vec<_>>>()?;
    if asked.before.is_some() {
        charges.reverse();
    }
    json(&sublet_api::List::page(charges, page.has_more, |charge| charge.id.to_string()))
}
