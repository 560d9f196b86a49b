//! The columns of Invoice Detail. Names of our own begin with `x_`.
//!
//! Deliberately absent: columns for payments in another currency than the bill's, which there are none of.

use crate::focus_columns::category;
use crate::focus_invoice::{InvoiceDetail, detail_id};
use crate::table::{Cell, Column, Decimal, Kind};

type Read = for<'r> fn(&'r InvoiceDetail) -> Cell<'r>;

const fn column(name: &'static str, kind: Kind, cell: Read) -> Column<InvoiceDetail> {
    Column { name, kind, is_optional: false, cell }
}
const fn optional(name: &'static str, kind: Kind, cell: Read) -> Column<InvoiceDetail> {
    Column { name, kind, is_optional: true, cell }
}

const COLUMNS: &[Column<InvoiceDetail>] = &[
    column("BilledCost", Kind::Decimal, |row| Cell::Decimal(row.billed.into())),
    column("BillingAccountId", Kind::Text, |row| Cell::text(row.head.of.account.organization.as_str())),
    column("BillingCurrency", Kind::Text, |row| Cell::text(row.head.of.account.currency.as_str())),
    column("BillingPeriodEnd", Kind::Instant, |row| Cell::Instant(row.head.of.period.interval.ends_at)),
    column("BillingPeriodStart", Kind::Instant, |row| Cell::Instant(row.head.of.period.interval.starts_at)),
    column("ChargeCategory", Kind::Text, |row| Cell::text(category(row.category))),
    column("InvoiceDetailCreated", Kind::Instant, |row| Cell::Instant(row.head.issued_at)),
    column("InvoiceDetailDescription", Kind::Text, |row| Cell::text(&row.description)),
    column("InvoiceDetailGrain", Kind::Text, |row| Cell::text(&row.grain)),
    column("InvoiceDetailId", Kind::Text, |row| Cell::owned(detail_id(row.head.number, row.place))),
    column("InvoiceDetailLastUpdated", Kind::Instant, |row| Cell::Instant(row.head.issued_at)),
    column("InvoiceId", Kind::Text, |row| Cell::owned(row.head.number.to_string())),
    column("InvoiceIssueDate", Kind::Instant, |row| Cell::Instant(row.head.issued_at)),
    // What was taken back is in documents of its own: none is retracted.
    column("InvoiceIssueStatus", Kind::Text, |_| Cell::text("Issued")),
    column("InvoiceIssuerName", Kind::Text, |row| Cell::text(&row.head.of.seller)),
    optional("PaymentDueDate", Kind::Instant, |row| row.head.due_at.map_or(Cell::Absent, Cell::Instant)),
    column("PaymentTerms", Kind::Text, |row| Cell::text(&row.head.terms)),
    optional("PurchaseOrderNumber", Kind::Text, |row| Cell::optional(row.head.purchase_order.as_deref())),
    column("ReferenceInvoiceId", Kind::Text, |row| Cell::owned(row.head.reference.to_string())),
    optional("x_PaymentDueOn", Kind::Text, |row| row.head.due_on.map_or(Cell::Absent, |day| Cell::owned(day.to_string()))),
    optional("x_Quantity", Kind::Count, |row| row.counted.map_or(Cell::Absent, |(quantity, _)| Cell::Count(quantity.get()))),
    optional("x_QuantityUnit", Kind::Text, |row| Cell::optional(row.counted.map(|(_, unit)| unit.base_unit_name()))),
    optional("x_TaxBase", Kind::Decimal, |row| row.base.map_or(Cell::Absent, |base| Cell::Decimal(Decimal::of_nanos(base)))),
];

pub fn invoice_detail_columns() -> Vec<&'static Column<InvoiceDetail>> {
    COLUMNS.iter().collect()
}
