//! The columns of the FinOps Open Cost and Usage Specification that are filled, version by version.
//!
//! Every column that a version makes mandatory, and the conditional ones whose condition holds here or whose absence older
//! readers do not accept. Those of 1.2 that nothing fills (discounts by commitment) have no cells. Names of our own begin with
//! `x_`.

use crate::focus::{Category, FocusRow, FocusVersion, Priced, consumed_unit, pricing_unit};
use crate::focus_invoice::detail_id;
use crate::sku::{SkuFamily, SkuName};
use crate::table::{Cell, Column, Kind};

type Read = for<'r> fn(&'r FocusRow) -> Cell<'r>;

/// A column and the versions that have it.
struct Versioned {
    column: Column<FocusRow>,
    only: Option<FocusVersion>,
}

const fn column(name: &'static str, (kind, is_optional): (Kind, bool), cell: Read) -> Versioned {
    Versioned { column: Column { name, kind, is_optional, cell }, only: None }
}

const fn only(version: FocusVersion, versioned: Versioned) -> Versioned {
    let Versioned { column: Column { name, kind, is_optional, cell }, .. } = versioned;
    Versioned { column: Column { name, kind, is_optional, cell }, only: Some(version) }
}

/// A column of text that always has cells.
const fn text(name: &'static str, cell: Read) -> Versioned {
    column(name, (Kind::Text, false), cell)
}
const fn maybe_text(name: &'static str, cell: Read) -> Versioned {
    column(name, (Kind::Text, true), cell)
}
const fn amount(name: &'static str, cell: Read) -> Versioned {
    column(name, (Kind::Decimal, false), cell)
}
const fn maybe_number(name: &'static str, cell: Read) -> Versioned {
    column(name, (Kind::Decimal, true), cell)
}
const fn instant(name: &'static str, cell: Read) -> Versioned {
    column(name, (Kind::Instant, false), cell)
}
/// A column that nothing fills yet.
const fn empty(name: &'static str) -> Versioned {
    maybe_text(name, |_| Cell::Absent)
}

fn of_priced<'r>(row: &'r FocusRow, cell: impl Fn(&'r Priced) -> Cell<'r>) -> Cell<'r> {
    row.priced.as_ref().map_or(Cell::Absent, cell)
}

fn seller(row: &FocusRow) -> Cell<'_> {
    Cell::text(&row.seller)
}

const V1_2: FocusVersion = FocusVersion::V1_2;
const V1_4: FocusVersion = FocusVersion::V1_4;

const COLUMNS: &[Versioned] = &[
    only(V1_2, empty("AvailabilityZone")),
    amount("BilledCost", |row| Cell::Decimal(row.billed.into())),
    text("BillingAccountId", |row| Cell::text(row.account.organization.as_str())),
    text("BillingAccountName", |row| Cell::text(&row.account.name)),
    text("BillingAccountType", |_| Cell::text("Organization")),
    text("BillingCurrency", |row| Cell::text(row.account.currency.as_str())),
    instant("BillingPeriodEnd", |row| Cell::Instant(row.billing.ends_at)),
    instant("BillingPeriodStart", |row| Cell::Instant(row.billing.starts_at)),
    text("ChargeCategory", |row| Cell::text(category(row.category))),
    maybe_text("ChargeClass", |row| Cell::optional(row.is_correction.then_some("Correction"))),
    text("ChargeDescription", |row| Cell::text(&row.description)),
    text("ChargeFrequency", |row| Cell::text(frequency(row.category))),
    instant("ChargePeriodEnd", |row| Cell::Instant(row.charged.ends_at)),
    instant("ChargePeriodStart", |row| Cell::Instant(row.charged.starts_at)),
    only(V1_2, empty("CommitmentDiscountCategory")),
    only(V1_2, empty("CommitmentDiscountId")),
    only(V1_2, empty("CommitmentDiscountName")),
    only(V1_2, empty("CommitmentDiscountStatus")),
    only(V1_2, empty("CommitmentDiscountType")),
    maybe_number("ConsumedQuantity", |row| of_priced(row, |priced| Cell::Decimal(priced.consumed_quantity))),
    maybe_text("ConsumedUnit", |row| of_priced(row, |priced| Cell::text(consumed_unit(priced.sku.pricing_unit())))),
    only(V1_4, maybe_text("ContractApplied", |row| Cell::optional(row.applied.as_deref()))),
    amount("ContractedCost", |row| Cell::Decimal(row.contracted)),
    maybe_number("ContractedUnitPrice", |row| of_priced(row, |priced| Cell::Decimal(priced.unit_price))),
    amount("EffectiveCost", |row| Cell::Decimal(row.billed.into())),
    only(V1_4, text("HostProviderName", seller)),
    only(V1_4, maybe_text("InvoiceDetailId", detail)),
    maybe_text("InvoiceId", |row| row.document.map_or(Cell::Absent, |number| Cell::owned(number.to_string()))),
    text("InvoiceIssuerName", seller),
    amount("ListCost", |row| Cell::Decimal(row.list)),
    maybe_number("ListUnitPrice", |row| of_priced(row, |priced| Cell::Decimal(priced.list_unit_price))),
    maybe_text("PricingCategory", |row| of_priced(row, |priced| Cell::text(pricing_category(priced)))),
    // Prices are in the currency of the bill.
    only(V1_2, text("PricingCurrency", |row| Cell::text(row.account.currency.as_str()))),
    only(V1_2, maybe_number("PricingCurrencyContractedUnitPrice", |row| of_priced(row, |priced| Cell::Decimal(priced.unit_price)))),
    only(V1_2, amount("PricingCurrencyEffectiveCost", |row| Cell::Decimal(row.billed.into()))),
    only(V1_2, maybe_number("PricingCurrencyListUnitPrice", |row| of_priced(row, |priced| Cell::Decimal(priced.list_unit_price)))),
    maybe_number("PricingQuantity", |row| of_priced(row, |priced| Cell::Decimal(priced.pricing_quantity))),
    maybe_text("PricingUnit", |row| of_priced(row, |priced| Cell::text(pricing_unit(priced.sku.pricing_unit())))),
    only(V1_2, text("ProviderName", seller)),
    only(V1_2, text("PublisherName", seller)),
    maybe_text("RegionId", |row| of_priced(row, site)),
    // Sites have no other name.
    maybe_text("RegionName", |row| of_priced(row, site)),
    maybe_text("ResourceId", |row| of_priced(row, |priced| Cell::optional(priced.resource.as_deref()))),
    empty("ResourceName"),
    maybe_text("ResourceType", |row| of_priced(row, |priced| Cell::optional(priced.resource.as_deref().map(resource_type)))),
    text("ServiceCategory", |row| Cell::text(service(row).0)),
    text("ServiceName", |row| Cell::text(service(row).2)),
    only(V1_4, text("ServiceProviderName", seller)),
    text("ServiceSubcategory", |row| Cell::text(service(row).1)),
    maybe_text("SkuId", |row| of_priced(row, |priced| Cell::owned(priced.sku.to_string()))),
    maybe_text("SkuMeter", |row| of_priced(row, |priced| Cell::text(meter(&priced.sku)))),
    maybe_text("SkuPriceDetails", |row| of_priced(row, |priced| Cell::text(&priced.price_details))),
    maybe_text("SkuPriceId", |row| of_priced(row, |priced| Cell::text(&priced.price_id))),
    maybe_text("SubAccountId", |row| of_priced(row, |priced| Cell::text(priced.project.as_str()))),
    maybe_text("SubAccountName", |row| of_priced(row, |priced| Cell::text(&priced.project_name))),
    maybe_text("SubAccountType", |row| of_priced(row, |_| Cell::text("Project"))),
    text("Tags", |_| Cell::text("{}")),
    maybe_text("x_Band", |row| of_priced(row, band)),
    column("x_ChargeCount", (Kind::Count, true), |row| of_priced(row, |priced| Cell::Count(priced.charges))),
    maybe_text("x_CreditedInvoiceId", |row| row.credited_invoice.map_or(Cell::Absent, |number| Cell::owned(number.to_string()))),
    maybe_text("x_LateOf", |row| Cell::optional(row.late_of.as_deref())),
    maybe_text("x_PriceVersion", |row| of_priced(row, |priced| Cell::text(&priced.price_version.0))),
];

/// The columns of a version, in the order of their names.
pub fn focus_columns(version: FocusVersion) -> Vec<&'static Column<FocusRow>> {
    COLUMNS
        .iter()
        .filter(|versioned| versioned.only.is_none_or(|only| only == version))
        .map(|versioned| &versioned.column)
        .collect()
}

fn detail(row: &FocusRow) -> Cell<'_> {
    row.document.zip(row.place).map_or(Cell::Absent, |(number, place)| Cell::owned(detail_id(number, place)))
}

fn site(priced: &Priced) -> Cell<'_> {
    Cell::optional(priced.site.as_ref().map(|site| site.as_str()))
}

fn band(priced: &Priced) -> Cell<'_> {
    Cell::optional(priced.band.as_ref().map(|band| band.as_str()))
}

pub(crate) const fn category(category: Category) -> &'static str {
    match category {
        Category::Usage => "Usage",
        Category::Credit => "Credit",
        Category::Tax => "Tax",
        Category::Adjustment => "Adjustment",
    }
}

const fn frequency(category: Category) -> &'static str {
    match category {
        Category::Usage => "Usage-Based",
        Category::Credit | Category::Tax | Category::Adjustment => "One-Time",
    }
}

/// Prices that change by themselves while something is used are dynamic ones; those by the hour of the week are fixed.
const fn pricing_category(priced: &Priced) -> &'static str {
    if priced.follows_index { "Dynamic" } else { "Standard" }
}

fn resource_type(id: &str) -> &'static str {
    if id.starts_with("lease_") { "Lease" } else { "Job" }
}

/// Category, subcategory and name of the service.
fn service(row: &FocusRow) -> (&'static str, &'static str, &'static str) {
    match row.priced.as_ref().map(|priced| &priced.sku) {
        Some(SkuName::Tokens { .. } | SkuName::Requests { .. }) => ("AI and Machine Learning", "Generative AI", "Model Access"),
        Some(SkuName::ProjectMonth | SkuName::Fee { .. }) => ("Other", "Other (Other)", "Platform Fee"),
        Some(SkuName::FileStorage) => ("Storage", "Object Storage", "File Storage"),
        Some(SkuName::FileEgress) => ("Networking", "Other (Networking)", "File Egress"),
        Some(SkuName::Device { .. } | SkuName::Starts { .. }) => ("AI and Machine Learning", "AI Platforms", "Accelerator Compute"),
        None => ("Other", "Other (Other)", "Invoicing"),
    }
}

pub(crate) const fn meter(sku: &SkuName) -> &'static str {
    match sku {
        SkuName::Tokens { kind, .. } => match kind {
            crate::sku::TokenKind::Input => "Input Tokens",
            crate::sku::TokenKind::CachedInput => "Cached Input Tokens",
            crate::sku::TokenKind::Output => "Output Tokens",
        },
        SkuName::Requests { .. } => "Requests",
        SkuName::Device { .. } => "Device Time",
        SkuName::Starts { .. } => "Starts",
        SkuName::ProjectMonth => "Project Months",
        SkuName::Fee { .. } => "Fees",
        SkuName::FileStorage => "Kept Bytes",
        SkuName::FileEgress => "Sent Bytes",
    }
}

/// What meters of a family are called: no two families have one.
pub(crate) const fn meters(family: SkuFamily) -> &'static [&'static str] {
    match family {
        SkuFamily::ModelTokens => &["Input Tokens", "Cached Input Tokens", "Output Tokens"],
        SkuFamily::ModelRequests => &["Requests"],
        SkuFamily::DeviceTime => &["Device Time"],
        SkuFamily::JobStarts => &["Starts"],
        SkuFamily::ProjectFees => &["Project Months"],
        SkuFamily::OneTimeFees => &["Fees"],
        SkuFamily::FileStorage => &["Kept Bytes"],
        SkuFamily::FileEgress => &["Sent Bytes"],
    }
}
