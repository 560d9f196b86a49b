//! `sublet contracts`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use sublet_api::client::Client;
use sublet_api::contract::{
    AcceptContract, CommitmentBilling, Contract, ContractExit, ContractListQuery, ContractStatus, ContractTerms, ContractVersion,
    CreateAmendment, CreateContract, Discounted, LeaveContract, OfferStatus, PricingTerms,
};
use sublet_api::list::{Cursor, List, PageLimit};
use sublet_api::money::Money;
use sublet_api::time::Rfc3339;
use sublet_core::Currency;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{ContractId, OrganizationId};

use super::price::price_rows;
use super::{PageArgs, parse_cursor, seller, show_page};
use crate::Context;
use crate::render::{self, Cell, NOTHING, Table};

/// Longest file of terms, in bytes.
const TERMS_MAX_BYTES: u64 = 1 << 20;
/// Most contracts of which the ways to leave are shown at once.
const CONTRACTS_MAX: usize = 1_000;

/// Contracts.
#[derive(Subcommand, Debug)]
pub enum ContractCommand {
    /// List contracts
    List {
        /// Of every organization (operator)
        #[arg(long)]
        all: bool,
        /// Of one organization (operator)
        #[arg(long, conflicts_with = "all")]
        organization: Option<OrganizationId>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show what is agreed, and how far it is used
    Show {
        contract: ContractId,
        /// Of any organization (operator)
        #[arg(long)]
        any: bool,
    },
    /// Offer an organization a contract (operator)
    Offer {
        organization: OrganizationId,
        /// The terms as JSON
        #[arg(long, short = 'f', value_name = "FILE")]
        terms: PathBuf,
        #[arg(long)]
        name: String,
        /// Until when it binds; 30 days if left out
        #[arg(long, value_name = "INSTANT")]
        expires_at: Option<Rfc3339>,
    },
    /// Offer other terms from a commitment period on (operator)
    Amend {
        contract: ContractId,
        /// All terms as JSON
        #[arg(long, short = 'f', value_name = "FILE")]
        terms: PathBuf,
        /// The first month of a commitment period that has not begun, such as 2027-01
        #[arg(long, value_name = "MONTH")]
        from: String,
        #[arg(long, value_name = "INSTANT")]
        expires_at: Option<Rfc3339>,
    },
    /// Take back what nobody accepted yet (operator)
    Withdraw { contract: ContractId },
    /// Accept what is offered
    Accept {
        contract: ContractId,
        /// The hash of the terms that you have read, as `contracts show` prints it
        #[arg(long, value_name = "HASH")]
        terms: String,
    },
    /// Leave: without a month, only show when that is possible and what it costs
    Exit {
        /// All contracts of all customers if left out, with --simulate (operator)
        #[arg(required_unless_present = "simulate")]
        contract: Option<ContractId>,
        /// The last month, such as 2027-06
        #[arg(long, value_name = "MONTH", conflicts_with = "simulate", required_unless_present = "simulate")]
        after: Option<String>,
        /// Show who may leave, when, and at what cost; nothing is changed
        #[arg(long)]
        simulate: bool,
        /// Of any organization, with --simulate (operator)
        #[arg(long, requires = "simulate")]
        any: bool,
        /// Of all contracts, those behind this one
        #[arg(long, value_name = "ID", value_parser = parse_cursor, conflicts_with_all = ["contract", "after"])]
        behind: Option<Cursor>,
    },
}

impl ContractCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { all, organization, page } => {
                let order = page.order();
                let is_operator = all || organization.is_some();
                let query = ContractListQuery { organization, limit: page.limit, after: page.after, before: None, order };
                let list = if is_operator { client.all_contracts(&query)? } else { client.contracts(&query)? };
                show_page(context, &list, table)
            }
            Self::Show { contract, any } => {
                let contract = if any { client.any_contract(&contract)? } else { client.contract(&contract)? };
                show(context, &contract)
            }
            Self::Offer { organization, terms, name, expires_at } => {
                let body = CreateContract { organization, name, terms: read_terms(&terms)?, expires_at };
                let contract = client.create_contract(&body, &context.fresh_key())?;
                show(context, &contract)
            }
            Self::Amend { contract, terms, from, expires_at } => {
                let body = CreateAmendment { from, terms: read_terms(&terms)?, expires_at };
                let contract = client.amend_contract(&contract, &body, &context.fresh_key())?;
                show(context, &contract)
            }
            Self::Withdraw { contract } => show(context, &client.withdraw_contract(&contract)?),
            Self::Accept { contract, terms } => {
                show(context, &client.accept_contract(&contract, &AcceptContract { terms_hash: terms })?)
            }
            Self::Exit { contract: Some(contract), after: Some(last_month), .. } => {
                show(context, &client.leave_contract(&contract, &LeaveContract { last_month })?)
            }
            Self::Exit { contract: Some(contract), any, .. } => {
                let contract = if any { client.any_contract(&contract)? } else { client.contract(&contract)? };
                context.show(&contract, exits)
            }
            Self::Exit { behind, .. } => {
                let list = binding(&client, behind)?;
                context.show(&list, |list| all_exits(&list.data))?;
                match (&list.last_id, list.has_more) {
                    (Some(last), true) => context.note(&format!("more: --behind {}", render::plain(&last.0))),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// The contracts that are agreed and did not end, of as many as are looked at; the cursor is the last of those.
fn binding(client: &Client, behind: Option<Cursor>) -> Result<List<Contract>> {
    let mut query = ContractListQuery { limit: Some(PageLimit::MAX), after: behind, ..ContractListQuery::default() };
    let (mut list, mut seen) = (List::whole(Vec::new()), 0);
    loop {
        let page = client.all_contracts(&query)?;
        seen += page.data.len();
        let bind = |contract: &Contract| matches!(contract.status, ContractStatus::Agreed | ContractStatus::Active);
        list.data.extend(page.data.into_iter().filter(bind));
        list.first_id = list.first_id.or(page.first_id);
        (list.last_id, list.has_more) = (page.last_id.clone(), page.has_more);
        if !page.has_more || seen >= CONTRACTS_MAX {
            return Ok(list);
        }
        query.after = page.last_id;
    }
}

fn read_terms(path: &Path) -> Result<ContractTerms> {
    let unusable = |why: String| Error::new(ErrorCode::Usage, format!("{} cannot be used: {why}", path.display()));
    let file = File::open(path).map_err(|error| unusable(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(TERMS_MAX_BYTES).read_to_end(&mut bytes).map_err(|error| unusable(error.to_string()))?;
    sublet_api::parse_body(&bytes).map_err(|error| unusable(error.to_string()))
}

fn table(contracts: &[Contract]) -> Table {
    let rows = contracts.iter().map(|contract| {
        let running = contract.periods.last();
        [
            Cell::text(contract.id.as_str()),
            Cell::text(&contract.name),
            Cell::text(contract.status.as_str()),
            Cell::optional(contract.versions.first().map(|version| &version.terms.starts)),
            Cell::optional(contract.last_month.as_ref()),
            Cell::number(running.map_or_else(String::new, |period| render::money(&period.committed))),
            Cell::number(running.map_or_else(String::new, |period| render::money(&period.counted))),
        ]
    });
    Table::new(["contract", "name", "status", "starts", "ends", "committed", "counted"], "no contracts").rows(rows)
}

fn show(context: &mut Context<'_>, contract: &Contract) -> Result<()> {
    context.show(contract, |contract| Table::of_fields(fields(contract)))?;
    if context.json {
        return Ok(());
    }
    if !contract.periods.is_empty() {
        let periods = periods(contract).render(context.style);
        context.print(&format!("\n{periods}"))?;
    }
    if contract.periods.iter().any(|period| !period.months.is_empty()) {
        let drawdown = drawdown(contract).render(context.style);
        context.print(&format!("\n{drawdown}"))?;
    }
    if !contract.exits.is_empty() {
        let exits = exits(contract).render(context.style);
        context.print(&format!("\n{exits}"))?;
    }
    Ok(())
}

fn fields(contract: &Contract) -> Vec<(&'static str, Cell)> {
    let mut fields = vec![
        ("contract", Cell::text(contract.id.as_str())),
        ("name", Cell::text(&contract.name)),
        ("organization", Cell::text(contract.organization.as_str())),
        ("status", Cell::text(contract.status.as_str())),
        ("ends", Cell::text(contract.last_month.as_deref().unwrap_or("when notice is given"))),
    ];
    for version in &contract.versions {
        fields.push(("terms", Cell::text(&version.terms_hash)));
        fields.push(("", Cell::text(version_text(version))));
        for step in &version.terms.commitments {
            let money = Money { amount: step.amount, currency: version.terms.currency };
            let text = format!("from period {}: {} each", step.from_period, render::money(&money));
            fields.push(("", Cell::text(text)));
        }
        for step in version.terms.quantities.iter().flat_map(|committed| &committed.steps) {
            let sku = version.terms.quantities.as_ref().map_or("", |committed| &committed.sku);
            let text = format!("from period {}: {} of {sku} each", step.from_period, units(sku, step.quantity));
            fields.push(("", Cell::text(text)));
        }
        fields.extend(rules(&version.terms).iter().map(|rule| ("", Cell::text(rule))));
    }
    if let Some(notice) = &contract.notice {
        let text = format!("ends after {}, for {}", notice.last_month, render::money(&notice.fee));
        fields.push(("notice", Cell::text(text)));
    }
    fields
}

fn version_text(version: &ContractVersion) -> String {
    let terms = &version.terms;
    let end = match version.status {
        OfferStatus::Offered => format!(", until {}", render::instant(version.expires_at.0)),
        OfferStatus::Accepted | OfferStatus::Withdrawn => String::new(),
    };
    let period = if terms.period_months == 1 { "every month".to_owned() } else { format!("every {} months", terms.period_months) };
    format!(
        "{}{end}; from {}; {} months from {}, settled {period}",
        version.status.as_str(),
        version.from,
        terms.months,
        terms.starts
    )
}

fn rules(terms: &ContractTerms) -> Vec<String> {
    let covers: Vec<_> = terms.covers.iter().map(|family| family.as_str()).collect();
    let mut rules = Vec::new();
    if !covers.is_empty() {
        rules.push(format!("covers {}", covers.join(" and ")));
    }
    if let Some(price) = terms.quantities.as_ref().and_then(|committed| committed.overage) {
        let money = Money { amount: price, currency: terms.currency };
        rules.push(format!("use beyond the commitment at {}", render::money(&money)));
    }
    if terms.billed == Some(CommitmentBilling::InAdvance) {
        rules.push("commitments are billed in advance and drawn down by use".to_owned());
    }
    if let Some(fee) = terms.fee {
        let money = Money { amount: fee, currency: terms.currency };
        rules.push(format!("{} for each period in advance, whatever is used", render::money(&money)));
    }
    if terms.roll_over_periods > 0 {
        rules.push(format!("what is missing rolls over for {}", counted(terms.roll_over_periods, "period")));
    }
    if let Some(exit) = &terms.exit {
        let fee = percent(exit.fee_ppm);
        let notice = counted(exit.notice_months, "month");
        rules.push(format!(
            "exit after {} with a notice of {notice} for {fee} % of the rest",
            counted(exit.after_periods, "period")
        ));
    }
    if let Some(renewal) = &terms.renewal {
        let (months, notice) = (counted(renewal.months, "month"), counted(renewal.notice_months, "month"));
        rules.push(format!("renewed by {months} unless notice is given {notice} before"));
    }
    if let Some(payment) = &terms.payment {
        rules.push(format!("invoices of its months: {}", seller::terms(payment)));
    }
    if let Some(pricing) = &terms.pricing {
        rules.extend(price_rules(pricing, terms.currency));
    }
    rules
}

/// What is said about prices, one sentence for each thing.
fn price_rules(pricing: &PricingTerms, currency: Currency) -> Vec<String> {
    let discounts = pricing.discounts.iter().map(|discount| {
        let on = match &discount.on {
            Discounted::Family(family) => family.as_str().to_owned(),
            Discounted::Model(model) => format!("all tokens of {model}"),
            Discounted::Device(kind) => format!("all time on {kind}"),
            Discounted::Notice(notice) => format!("all devices at notice {}", notice.as_str()),
            Discounted::Sku(sku) => sku.clone(),
        };
        format!("{} % off {on}", percent(discount.off_ppm))
    });
    let fixed = pricing.fixed.iter().flat_map(|price| {
        let what = |when: &str| match when {
            NOTHING => format!("{} {}", price.subject.name(), price.meter.as_str()),
            when => format!("{} {} ({when})", price.subject.name(), price.meter.as_str()),
        };
        let time = render::kind_of_time(price.notice, price.site.as_ref(), price.isolation);
        let notice = price.notice.map_or_else(String::new, |_| format!(" at notice {time}"));
        let tier = price.service_tier.map_or_else(String::new, |tier| format!(" at the tier {}", tier.as_str()));
        let rows = price_rows(price, currency).into_iter();
        rows.map(move |(when, text)| format!("fixed: {}{notice}{tier} at {text}", what(&when))).collect::<Vec<_>>()
    });
    let protection = pricing.protection.iter().map(|protection| {
        let version = protection.version.as_ref().map_or(NOTHING, |version| &version.0);
        let until = protection.until.as_ref().map_or_else(String::new, |until| format!(" until {until}"));
        format!("public prices are never above those of version {version}{until}")
    });
    discounts.chain(fixed).chain(protection).collect()
}

/// Parts per million as a percentage.
pub(super) fn percent(ppm: u32) -> String {
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn counted(count: u32, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn periods(contract: &Contract) -> Table {
    let rows = contract.periods.iter().map(|period| {
        [
            Cell::number(period.number),
            Cell::text(&period.first_month),
            Cell::text(&period.last_month),
            Cell::number(render::money(&period.committed)),
            Cell::number(render::money(&period.counted)),
            Cell::number(period.drawdown.as_ref().map_or_else(|| NOTHING.to_owned(), |drawdown| render::money(&drawdown.left))),
            Cell::number(render::money(&period.shortfall)),
            Cell::number(render::money(&period.roll_over_used)),
            share(period.utilisation_ppm),
            share(period.coverage_ppm),
            Cell::text(if period.settled { "settled" } else { "running" }),
        ]
    });
    let titles =
        ["period", "from", "to", "committed", "counted", "to draw", "missing", "rolled over", "utilisation", "coverage", "state"];
    Table::new(titles, "no period began").rows(rows)
}

fn share(ppm: Option<u64>) -> Cell {
    Cell::number(ppm.map_or_else(|| NOTHING.to_owned(), |ppm| format!("{}.{} %", ppm / 10_000, ppm % 10_000 / 1_000)))
}

/// A quantity of something as a person reads it.
fn units(sku: &str, quantity: u64) -> String {
    if sku.starts_with("device/") { render::milliseconds(quantity) } else { quantity.to_string() }
}

/// What each month took of its period's commitment.
fn drawdown(contract: &Contract) -> Table {
    let rows = contract.periods.iter().flat_map(|period| {
        period.months.iter().map(|month| {
            let sku = period.quantity.as_ref().map_or("", |used| &used.sku);
            [
                Cell::number(period.number),
                Cell::text(&month.month),
                Cell::number(month.quantity.map_or_else(|| NOTHING.to_owned(), |quantity| units(sku, quantity))),
                Cell::number(render::money(&month.counted)),
                Cell::number(month.used.as_ref().map_or_else(|| NOTHING.to_owned(), render::money)),
                Cell::text(if month.billed { "billed" } else { "open" }),
            ]
        })
    });
    Table::new(["period", "month", "quantity", "counted", "all use", "state"], "nothing was used").rows(rows)
}

fn exits(contract: &Contract) -> Table {
    let rows = contract.exits.iter().map(exit);
    Table::new(["last month", "notice by", "fee", "committed until then", ""], "it cannot be left any more").rows(rows)
}

/// Who may leave, when, and at what cost.
fn all_exits(contracts: &[Contract]) -> Table {
    let rows = contracts.iter().flat_map(|contract| {
        contract.exits.iter().map(|one| {
            let [month, notice_by, fee, committed, kind] = exit(one);
            let (customer, id) = (Cell::text(contract.organization.as_str()), Cell::text(contract.id.as_str()));
            [customer, id, month, notice_by, fee, committed, kind]
        })
    });
    let titles = ["customer", "contract", "last month", "notice by", "fee", "committed until then", ""];
    Table::new(titles, "no contract can be left").rows(rows)
}

fn exit(exit: &ContractExit) -> [Cell; 5] {
    [
        Cell::text(&exit.last_month),
        Cell::text(exit.notice_by.as_deref().unwrap_or("ends by itself")),
        Cell::number(render::money(&exit.fee)),
        Cell::number(render::money(&exit.committed)),
        Cell::text(if exit.term_end { "end of the term" } else { "exit" }),
    ]
}
