//! `sublet report`: the owner's view.

use clap::{Args, Subcommand};
use sublet_api::leakage::Leakage;
use sublet_api::margin::{DeviceUtilisation, MarginFigures, MarginReport, MonthQuery, Showback, SkuMargin, UnitMargin};
use sublet_api::money::Money;
use sublet_api::price::Meter;
use sublet_api::revenue::RevenueReport;
use sublet_core::error::Result;
use sublet_core::id::SiteId;
use sublet_core::money::Currency;

use super::monthly_return;
use super::tax_report::TaxReportArgs;
use super::usage::quantity;
use crate::Context;
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};

/// Amounts of tables are rounded to so many nano-units; `--json` has every digit.
const SHOWN_STEP: i64 = 1_000;

/// What the cloud brings its owner.
#[derive(Subcommand, Debug)]
pub enum ReportCommand {
    /// A month's revenue, cost of supply and margin
    Margin(MonthArgs),
    /// What runs or was metered and brings nothing
    Leakage,
    /// What a month returned: earned, cost, use before and after, payback, unfilled demand, promises
    Return(MonthArgs),
    /// What a month earned, what is deferred, and what contracts bring in months to come
    Revenue(MonthArgs),
    /// What the owner's own teams used in a month
    Showback(MonthArgs),
    /// What documents of a month or quarter come to, tax by tax, and what the books say
    Tax(TaxReportArgs),
}

/// Which month.
#[derive(Args, Debug)]
pub struct MonthArgs {
    /// A month like 2026-10; the running one if left out
    #[arg(long)]
    pub month: Option<String>,
    /// That of the first price list if left out
    #[arg(long)]
    pub currency: Option<Currency>,
}

impl From<MonthArgs> for MonthQuery {
    fn from(args: MonthArgs) -> Self {
        Self { month: args.month, currency: args.currency }
    }
}

impl ReportCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Margin(args) => context.show_text(&client.margin_report(&args.into())?, margin),
            Self::Leakage => context.show_text(&client.leakage()?, leakage),
            Self::Return(args) => context.show_text(&client.return_report(&args.into())?, monthly_return::text),
            Self::Revenue(args) => context.show_text(&client.revenue_report(&args.into())?, revenue),
            Self::Tax(args) => args.run(context),
            Self::Showback(args) => context.show_text(&client.showback(&args.into())?, showback),
        }
    }
}

pub(super) fn shown(money: &Money) -> Cell {
    let rounded = money.nanos().round_half_even(SHOWN_STEP).unwrap_or(money.nanos());
    Cell::number(rounded.to_string())
}

pub(super) fn share(per_mille: Option<i64>) -> Cell {
    Cell::number(per_mille.map_or_else(
        || NOTHING.to_owned(),
        |share| format!("{}{}.{} %", if share < 0 { "-" } else { "" }, share.abs() / 10, share.abs() % 10),
    ))
}

/// Revenue, cost, margin and its share, as they stand in every table.
fn columns(figures: &MarginFigures) -> [Cell; 4] {
    // Of what has no known cost there is no margin.
    if figures.without_cost == figures.revenue && figures.cost.nanos().is_zero() {
        return [shown(&figures.revenue), Cell::number("unknown"), Cell::number(NOTHING), Cell::number(NOTHING)];
    }
    [shown(&figures.revenue), shown(&figures.cost), shown(&figures.margin), share(figures.margin_permille)]
}

fn unit(unit: Option<&UnitMargin>) -> Cell {
    unit.map_or_else(|| Cell::number(NOTHING), |unit| shown(&unit.margin))
}

fn named(name: &str, figures: &MarginFigures, last: Cell) -> [Cell; 6] {
    let [revenue, cost, margin, share] = columns(figures);
    [Cell::text(name), revenue, cost, margin, share, last]
}

fn sku_name(sku: &SkuMargin) -> String {
    let tier = sku.service_tier.map_or_else(String::new, |tier| format!(" {tier}"));
    match (sku.meter, sku.notice) {
        (Meter::DeviceMilliseconds, notice) => format!("{} {}", sku.subject.name(), notice.map_or("", |notice| notice.as_str())),
        (Meter::InputTokens, _) => format!("{}{tier} input", sku.subject.name()),
        (Meter::CachedInputTokens, _) => format!("{}{tier} cached", sku.subject.name()),
        (Meter::OutputTokens, _) => format!("{}{tier} output", sku.subject.name()),
        (Meter::Starts, _) => format!("{} starts", sku.subject.name()),
        (Meter::Fees, _) => format!("fee {}", sku.subject.name()),
        (Meter::ByteHours, _) => format!("{} kept", sku.subject.name()),
        (Meter::BytesSent, _) => format!("{} sent", sku.subject.name()),
        (Meter::ProjectMonths, _) => format!("{} months", sku.subject.name()),
        (Meter::Requests, _) => format!("{}{tier} requests", sku.subject.name()),
    }
}

fn sku_rows(skus: &[SkuMargin]) -> Vec<[Cell; 7]> {
    let row = |sku: &SkuMargin| {
        let [revenue, cost, margin, share] = columns(&sku.figures);
        let mark = if sku.below_cost { " (below cost)" } else { "" };
        let name = Cell::text(format!("{}{mark}", sku_name(sku)));
        [name, Cell::number(quantity(sku.meter, sku.quantity)), revenue, cost, margin, share, unit(sku.unit.as_ref())]
    };
    skus.iter().map(row).collect()
}

const SKU_HEADINGS: [&str; 7] = ["sku", "quantity", "revenue", "cost", "margin", "share", "margin / unit"];

fn margin(report: &MarginReport, style: Style) -> String {
    let named_amount = |name: &'static str, money: &Money| (name, shown(money));
    let head = Table::of_fields(vec![
        ("month", Cell::text(&report.month)),
        ("currency", Cell::text(report.currency.as_str())),
        ("costs", Cell::text(report.cost_version.as_deref().unwrap_or("none are declared"))),
        named_amount("revenue", &report.revenue),
        named_amount("promotions", &report.promotions),
        named_amount("compensations", &report.compensations),
        named_amount("refunds", &report.refunds),
        named_amount("breakage", &report.breakage),
        named_amount("commitments", &report.commitments),
        named_amount("fees", &report.fees),
        named_amount("rounding", &report.rounding),
        named_amount("net revenue", &report.net_revenue),
        named_amount("power", &report.costs.power),
        named_amount("depreciation", &report.costs.depreciation),
        named_amount("device time", &report.costs.device_time),
        named_amount("transfer price", &report.costs.transfer_price),
        named_amount("own models", &report.costs.models),
        named_amount("upstream", &report.costs.upstream),
        named_amount("bought for nobody", &report.bought_for_nobody),
        named_amount("processor fees", &report.processor_fees),
        named_amount("gross margin", &report.gross_margin),
        ("share", share(report.margin_permille)),
        named_amount("revenue without a cost", &report.without_cost),
        named_amount("not in the ledger", &report.ledger.difference),
    ]);
    let unit_name = |per: u64| if per == 1_000_000 { "1M tokens" } else { "device-hour" };
    let per = |margin: Option<&UnitMargin>| {
        let text = margin.map(|unit| format!("{} / {}", rounded(&unit.margin), unit_name(unit.per)));
        Cell::number(text.unwrap_or_else(|| NOTHING.to_owned()))
    };
    let families = report.families.iter().map(|one| named(&one.family, &one.figures, per(one.unit.as_ref())));
    let products = report.products.iter().map(|one| named(one.subject.name(), &one.figures, per(one.unit.as_ref())));
    let headings = ["product", "revenue", "cost", "margin", "share", "margin per"];
    let products = Table::new(headings, "nothing was sold").rows(families.chain(products));
    let skus = Table::new(SKU_HEADINGS, "no sku was sold").rows(sku_rows(&report.skus));
    let customers = report.customers.iter().map(|one| named(&one.name, &one.figures, Cell::text(one.organization.as_str())));
    let headings = ["customer", "revenue", "cost", "margin", "share", "organization"];
    let customers = Table::new(headings, "no customer used anything").rows(customers);
    let site = |site: Option<&SiteId>| Cell::text(site.map_or("no site", SiteId::as_str));
    let sites = report.sites.iter().map(|one| {
        let [revenue, cost, margin, share] = columns(&one.figures);
        [site(one.site.as_ref()), revenue, cost, margin, share]
    });
    let sites = Table::new(["site", "revenue", "cost", "margin", "share"], "nothing was sold at any site").rows(sites);
    [head, products, skus, customers, sites, utilisation(&report.utilisation)].map(|table| table.render(style)).join("\n")
}

fn rounded(money: &Money) -> String {
    money.nanos().round_half_even(SHOWN_STEP).unwrap_or(money.nanos()).to_string()
}

fn utilisation(kinds: &[DeviceUtilisation]) -> Table {
    let rows = kinds.iter().map(|kind| {
        [
            Cell::text(&kind.kind),
            Cell::number(render::milliseconds(kind.capacity_milliseconds)),
            Cell::number(render::milliseconds(kind.sold_milliseconds)),
            share(kind.sold_permille),
            Cell::number(render::milliseconds(kind.internal_milliseconds)),
            Cell::number(render::milliseconds(kind.idle_milliseconds)),
            kind.unused_cost.as_ref().map_or_else(|| Cell::number("unknown"), shown),
        ]
    });
    let headings = ["devices", "capacity", "sold", "share", "internal", "idle", "cost unused"];
    Table::new(headings, "there are no devices").rows(rows)
}

fn revenue(report: &RevenueReport, style: Style) -> String {
    let mut head = vec![("month", Cell::text(&report.month)), ("currency", Cell::text(report.currency.as_str()))];
    head.extend(report.usage.iter().map(|family| match family.family.as_str() {
        "device-time" => ("device time", shown(&family.recognised)),
        "project-fees" => ("project fees", shown(&family.recognised)),
        "one-time-fees" => ("one-time fees", shown(&family.recognised)),
        "model-requests" => ("model requests", shown(&family.recognised)),
        "file-storage" => ("file storage", shown(&family.recognised)),
        "file-egress" => ("file egress", shown(&family.recognised)),
        _ => ("model tokens", shown(&family.recognised)),
    }));
    let off = report.ledger.iter().filter(|tie| !tie.difference.nanos().is_zero()).map(|tie| tie.what.as_str());
    let off = off.collect::<Vec<_>>().join(", ");
    head.extend([
        ("commitments", shown(&report.commitments)),
        ("fees", shown(&report.fees)),
        ("recognised", shown(&report.recognised)),
        ("deferred now", shown(&report.deferred)),
        ("not as in the ledger", Cell::text(if off.is_empty() { NOTHING.to_owned() } else { off })),
    ]);
    let contracts = report.contracts.iter().map(|part| {
        let name = Cell::text(format!("{} ({})", part.name, part.contract));
        [name, shown(&part.commitments), shown(&part.fees), shown(&part.deferred), shown(&part.firm), shown(&part.planned)]
    });
    let headings = ["contract", "commitments", "fees", "deferred", "firm", "if nobody leaves"];
    let contracts = Table::new(headings, "there are no contracts").rows(contracts);
    let months = report.backlog.iter().map(|month| [Cell::text(&month.month), shown(&month.firm), shown(&month.planned)]);
    let backlog = Table::new(["backlog", "firm", "if nobody leaves"], "nothing is committed for months to come").rows(months);
    [Table::of_fields(head), contracts, backlog].map(|table| table.render(style)).join("\n")
}

fn showback(report: &Showback, style: Style) -> String {
    let [value, cost, ..] = columns(&report.total);
    let head = Table::of_fields(vec![
        ("month", Cell::text(&report.month)),
        ("currency", Cell::text(report.currency.as_str())),
        ("at list price", value),
        ("cost", cost),
    ]);
    let mut text = head.render(style);
    for team in &report.teams {
        let [value, ..] = columns(&team.figures);
        let named = Table::of_fields(vec![
            ("team", Cell::text(format!("{} ({})", team.name, team.organization))),
            ("at list price", value),
        ]);
        let headings = ["sku", "quantity", "at list price", "cost", "difference", "share", "a unit"];
        let lines = Table::new(headings, "it used nothing").rows(sku_rows(&team.lines));
        text.push_str(&format!("\n{}{}", named.render(style), lines.render(style)));
    }
    if report.teams.is_empty() {
        text.push_str("\nno team used anything\n");
    }
    text
}

fn leakage(report: &Leakage, style: Style) -> String {
    if report.findings.is_empty() {
        return "nothing leaks: all that runs is charged, and all that was charged is invoiced\n".to_owned();
    }
    let rows = report.findings.iter().map(|leak| {
        [
            Cell::text(&leak.kind),
            Cell::text(&leak.id),
            Cell::text(render::rfc3339(leak.since)),
            Cell::number(
                leak.at_stake
                    .as_ref()
                    .map_or_else(|| "unknown".to_owned(), |money| format!("{} {}", rounded(money), money.currency)),
            ),
        ]
    });
    let table = Table::new(["what", "id", "since", "at stake"], "").rows(rows);
    let mut text = table.render(style);
    let mut told = Vec::new();
    for leak in report.findings.iter().filter(|leak| !leak.detail.is_empty()) {
        text.push_str(&format!("\n{}: {}", render::plain(&leak.id), render::plain(&leak.detail)));
        if !told.contains(&&leak.kind) {
            told.push(&leak.kind);
            text.push_str(&format!("\n  to do: {}", render::plain(&leak.remedy)));
        }
    }
    let more: String = report.more.iter().map(|kind| format!("\nthere are more of {}", render::plain(kind))).collect();
    format!("{text}{more}\n")
}
