//! The columns of Contract Commitment. Names of our own begin with `x_`.
//!
//! Deliberately absent: the upfront percentage, since all of a commitment is paid before it or nothing (a fee is a price
//! beside it), and prices in another currency than the bill's.

use crate::focus::consumed_unit;
use crate::focus_contract::{CommittedUnits, ContractCommitment};
use crate::table::{Cell, Column, Decimal, Kind};

type Row = ContractCommitment;
type Read = for<'r> fn(&'r Row) -> Cell<'r>;

const fn text(name: &'static str, cell: Read) -> Column<Row> {
    Column { name, kind: Kind::Text, is_optional: false, cell }
}
const fn maybe_text(name: &'static str, cell: Read) -> Column<Row> {
    Column { name, kind: Kind::Text, is_optional: true, cell }
}
const fn amount(name: &'static str, cell: Read) -> Column<Row> {
    Column { name, kind: Kind::Decimal, is_optional: false, cell }
}
const fn maybe_number(name: &'static str, cell: Read) -> Column<Row> {
    Column { name, kind: Kind::Decimal, is_optional: true, cell }
}
const fn instant(name: &'static str, cell: Read) -> Column<Row> {
    Column { name, kind: Kind::Instant, is_optional: false, cell }
}
const fn count(name: &'static str, cell: Read) -> Column<Row> {
    Column { name, kind: Kind::Count, is_optional: false, cell }
}

fn units<'r>(row: &Row, cell: impl Fn(&CommittedUnits) -> Cell<'r>) -> Cell<'r> {
    row.units.as_ref().map_or(Cell::Absent, cell)
}

const COLUMNS: &[Column<Row>] = &[
    text("BillingCurrency", |row| Cell::text(row.account.currency.as_str())),
    text("ContractCommitmentApplicability", |row| Cell::text(&row.applicability)),
    text("ContractCommitmentBenefitCategory", |row| Cell::text(benefit(row))),
    text("ContractCommitmentCategory", |row| Cell::text(if row.units.is_some() { "Usage" } else { "Spend" })),
    amount("ContractCommitmentCost", |row| Cell::Decimal(row.committed.into())),
    instant("ContractCommitmentCreated", |row| Cell::Instant(row.created_at)),
    text("ContractCommitmentDescription", |row| Cell::text(&row.description)),
    maybe_number("ContractCommitmentDiscountPercentage", discount),
    text("ContractCommitmentDurationType", |row| Cell::owned(duration(row.months))),
    text("ContractCommitmentFulfillmentInterval", |row| Cell::text(interval(row.months))),
    text("ContractCommitmentId", |row| Cell::owned(row.id.to_string())),
    instant("ContractCommitmentLastUpdated", |row| Cell::Instant(row.updated_at)),
    text("ContractCommitmentLifecycleStatus", |row| Cell::text(row.status.as_str())),
    text("ContractCommitmentModel", |_| Cell::text("Discontinuous")),
    text("ContractCommitmentOfferCategory", |_| Cell::text("Negotiated")),
    text("ContractCommitmentPaymentInterval", |_| Cell::text("Monthly")),
    text("ContractCommitmentPaymentModel", |row| Cell::text(if row.is_upfront { "All Upfront" } else { "No Upfront" })),
    instant("ContractCommitmentPeriodEnd", |row| Cell::Instant(row.interval.ends_at)),
    instant("ContractCommitmentPeriodStart", |row| Cell::Instant(row.interval.starts_at)),
    maybe_number("ContractCommitmentQuantity", |row| units(row, |units| Cell::Decimal(units.committed))),
    text("ContractCommitmentType", |row| Cell::text(if row.units.is_some() { "Committed Quantity" } else { "Committed Spend" })),
    maybe_text("ContractCommitmentUnit", |row| units(row, |units| Cell::text(consumed_unit(units.unit)))),
    text("ContractId", |row| Cell::text(row.id.contract.as_str())),
    instant("ContractPeriodEnd", |row| Cell::Instant(row.contract.ends_at)),
    instant("ContractPeriodStart", |row| Cell::Instant(row.contract.starts_at)),
    text("InvoiceIssuerName", |row| Cell::text(&row.seller)),
    text("ServiceProviderName", |row| Cell::text(&row.seller)),
    maybe_number("x_AdvanceFee", |row| row.fee.map_or(Cell::Absent, |fee| Cell::Decimal(fee.into()))),
    text("x_BillingAccountId", |row| Cell::text(row.account.organization.as_str())),
    amount("x_ExitFee", |row| Cell::Decimal(row.used.exit_fee.into())),
    text("x_IsSettled", |row| Cell::text(if row.used.is_settled { "true" } else { "false" })),
    maybe_number("x_MissingQuantity", |row| units(row, |units| Cell::Decimal(units.missing))),
    amount("x_OverageCost", |row| Cell::Decimal(row.used.overage.into())),
    count("x_PeriodNumber", |row| Cell::Count(i64::from(row.id.number))),
    maybe_number("x_RollOverCost", |row| row.roll_over.map_or(Cell::Absent, |left| Cell::Decimal(left.into()))),
    count("x_RollOverPeriods", |row| Cell::Count(i64::from(row.roll_over_periods))),
    maybe_number("x_RollOverQuantity", |row| units(row, |units| Cell::Decimal(units.roll_over))),
    amount("x_RollOverUsedCost", |row| Cell::Decimal(row.used.roll_over_used.into())),
    maybe_number("x_RollOverUsedQuantity", |row| units(row, |units| Cell::Decimal(units.roll_over_used))),
    amount("x_ShortfallCost", |row| Cell::Decimal(row.used.shortfall.into())),
    text("x_TermsVersion", |row| Cell::text(&row.terms)),
    amount("x_UsedCost", |row| Cell::Decimal(row.used.counted.into())),
    maybe_number("x_UsedQuantity", |row| units(row, |units| Cell::Decimal(units.used))),
];

pub fn contract_commitment_columns() -> Vec<&'static Column<ContractCommitment>> {
    COLUMNS.iter().collect()
}

/// One discount on all that is covered, or so many units; what else a contract gives has no category.
const fn benefit(row: &Row) -> &'static str {
    match (&row.units, row.discount_ppm) {
        (Some(_), _) => "Entitlement",
        (None, Some(_)) => "Discount",
        (None, None) => "Other",
    }
}

/// As a part of 1.
fn discount(row: &Row) -> Cell<'_> {
    let Some(off_ppm) = row.discount_ppm else { return Cell::Absent };
    // A millionth is 1,000 of the 10⁹ parts that an amount has.
    Cell::Decimal(Decimal::of_nanos(sublet_core::Nanos::new(i64::from(off_ppm) * 1_000)))
}

fn duration(months: u32) -> String {
    if months == 1 { "1 Month".to_owned() } else { format!("{months} Months") }
}

const fn interval(months: u32) -> &'static str {
    match months {
        1 => "Monthly",
        3 => "Quarterly",
        6 => "Semi-Annual",
        12 => "Annual",
        _ => "Custom",
    }
}
