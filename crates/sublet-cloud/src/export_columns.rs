//! The columns of exported charges: what the API says of a charge, with what it takes to rate it again.

use sublet_core::id::KeyId;
use sublet_money::table::{Cell, Column, Decimal, Kind};
use sublet_store::charge::Charge;

type Read = for<'r> fn(&'r Charge) -> Cell<'r>;

const fn text(name: &'static str, cell: Read) -> Column<Charge> {
    Column { name, kind: Kind::Text, is_optional: false, cell }
}
const fn maybe_text(name: &'static str, cell: Read) -> Column<Charge> {
    Column { name, kind: Kind::Text, is_optional: true, cell }
}
const fn count(name: &'static str, cell: Read) -> Column<Charge> {
    Column { name, kind: Kind::Count, is_optional: false, cell }
}
const fn amount(name: &'static str, cell: Read) -> Column<Charge> {
    Column { name, kind: Kind::Decimal, is_optional: false, cell }
}

const COLUMNS: &[Column<Charge>] = &[
    text("charge", |charge| Cell::text(charge.id.as_str())),
    text("organization", |charge| Cell::text(charge.organization.as_str())),
    text("project", |charge| Cell::text(charge.project.as_str())),
    maybe_text("key", |charge| Cell::optional(charge.key.as_ref().map(KeyId::as_str))),
    text("source", |charge| Cell::text(&charge.source)),
    text("sku", |charge| Cell::owned(charge.sku.to_string())),
    maybe_text("band", |charge| Cell::optional(charge.band.as_ref().map(|band| band.as_str()))),
    text("price_version", |charge| Cell::text(&charge.price_version.0)),
    count("quantity", |charge| Cell::Count(charge.quantity.get())),
    text("unit", |charge| Cell::text(charge.sku.pricing_unit().base_unit_name())),
    amount("amount", |charge| Cell::Decimal(Decimal::of_nanos(charge.amount))),
    text("currency", |charge| Cell::text(charge.currency.as_str())),
    count("quantity_before", |charge| Cell::Count(charge.before.quantity.get())),
    amount("charged_before", |charge| Cell::Decimal(Decimal::of_nanos(charge.before.charged))),
    text("period", |charge| Cell::owned(charge.period.to_string())),
    maybe_text("billed_in", |charge| charge.billed_in.map_or(Cell::Absent, |period| Cell::owned(period.to_string()))),
    text("used_at", |charge| Cell::owned(charge.occurred_at.to_string())),
    text("created_at", |charge| Cell::owned(charge.posted_at.to_string())),
];

pub fn charge_columns() -> Vec<&'static Column<Charge>> {
    COLUMNS.iter().collect()
}
