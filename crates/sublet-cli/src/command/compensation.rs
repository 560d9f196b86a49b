//! `sublet compensations`.

use std::path::PathBuf;

use clap::Subcommand;
use sublet_api::compensation::{
    ChargedFamily, Compensation, CompensationKind, CompensationListQuery, CompensationRules, CreateCompensation,
    SetCompensationRules,
};
use sublet_api::list::ListQuery;
use sublet_core::DurationMs;
use sublet_core::error::Result;
use sublet_core::id::{CompensationId, InvoiceId, OrganizationId};

use super::contract::percent;
use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};
use crate::value::read_body;

/// Credit for promises that were not kept, and for leaving early.
#[derive(Subcommand, Debug)]
pub enum CompensationCommand {
    /// List it: of your organization, or of all (operator)
    List {
        /// Of one organization (operator)
        #[arg(long, conflicts_with = "all")]
        organization: Option<OrganizationId>,
        /// Of every organization (operator)
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one with its evidence
    Show {
        id: CompensationId,
        /// Of any organization (operator)
        #[arg(long)]
        any: bool,
    },
    /// Give back a share of an issued bill for a level of service that was missed (operator)
    Give {
        invoice: InvoiceId,
        /// How much of its charges, in parts per million
        #[arg(long, value_name = "PPM")]
        share_ppm: u32,
        /// Of which charges; of all if left out
        #[arg(long, value_enum)]
        family: Option<Family>,
        /// What was measured: a file with a JSON object
        #[arg(long, value_name = "FILE")]
        evidence: PathBuf,
        /// One line that the customer reads
        #[arg(long)]
        note: String,
    },
    /// Show what interrupted leases are owed, or set it for leases that are sold from now on (operator)
    Rules {
        /// With the operator's key
        #[arg(long)]
        any: bool,
        /// A file with a rule for every class: the member `rules` of what this command shows with --json
        #[arg(long, value_name = "FILE")]
        set: Option<PathBuf>,
    },
}

/// What was charged for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Family {
    ModelTokens,
    ModelRequests,
    DeviceTime,
    JobStarts,
    ProjectFees,
    OneTimeFees,
    FileStorage,
    FileEgress,
}

impl CompensationCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { organization, all, page } => {
                let order = page.order();
                let of_operator = all || organization.is_some();
                let query = CompensationListQuery { organization, limit: page.limit, after: page.after, before: None, order };
                let list = if of_operator {
                    client.all_compensations(&query)?
                } else {
                    let CompensationListQuery { limit, after, before, order, .. } = query;
                    client.compensations(&ListQuery { limit, after, before, order })?
                };
                show_page(context, &list, table)
            }
            Self::Show { id, any } => {
                let found = if any { client.any_compensation(&id)? } else { client.compensation(&id)? };
                context.show(&found, details)
            }
            Self::Give { invoice, share_ppm, family, evidence, note } => {
                let family = family.map(|family| match family {
                    Family::ModelTokens => ChargedFamily::ModelTokens,
                    Family::ModelRequests => ChargedFamily::ModelRequests,
                    Family::DeviceTime => ChargedFamily::DeviceTime,
                    Family::JobStarts => ChargedFamily::JobStarts,
                    Family::ProjectFees => ChargedFamily::ProjectFees,
                    Family::OneTimeFees => ChargedFamily::OneTimeFees,
                    Family::FileStorage => ChargedFamily::FileStorage,
                    Family::FileEgress => ChargedFamily::FileEgress,
                });
                let body = CreateCompensation { invoice, family, share_ppm, evidence: read_body(&evidence)?, note };
                let given = client.give_compensation(&body, &context.fresh_key())?;
                context.show(&given, details)
            }
            Self::Rules { set: Some(file), .. } => {
                context.show(&client.set_compensation_rules(&SetCompensationRules { rules: read_body(&file)? })?, rules_table)
            }
            Self::Rules { any: true, .. } => context.show(&client.all_compensation_rules()?, rules_table),
            Self::Rules { .. } => context.show(&client.compensation_rules()?, rules_table),
        }
    }
}

const fn kind(kind: CompensationKind) -> &'static str {
    match kind {
        CompensationKind::Reclaim => "reclaim",
        CompensationKind::Sla => "sla",
        CompensationKind::Early => "early",
    }
}

fn table(given: &[Compensation]) -> Table {
    let rows = given.iter().map(|one| {
        [
            Cell::text(one.id.as_str()),
            Cell::text(kind(one.kind)),
            Cell::text(&one.subject),
            Cell::number(render::money(&one.amount)),
            Cell::text(render::unix(one.created_at)),
            Cell::text(&one.note),
        ]
    });
    Table::new(["compensation", "kind", "for", "amount", "given", "note"], "every promise was kept").rows(rows)
}

fn details(one: &Compensation) -> Table {
    let mut fields = vec![
        ("compensation", Cell::text(one.id.as_str())),
        ("organization", Cell::text(one.organization.as_str())),
        ("kind", Cell::text(kind(one.kind))),
        ("for", Cell::text(&one.subject)),
        ("amount", Cell::text(render::money(&one.amount))),
        ("note", Cell::text(&one.note)),
        ("credit", Cell::text(one.credit_grant.as_str())),
        ("given", Cell::text(render::unix(one.created_at))),
    ];
    fields.extend(one.share_ppm.map(|share| ("share", Cell::text(format!("{share} ppm")))));
    fields.extend(one.evidence.iter().enumerate().map(|(number, (member, value))| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (if number == 0 { "evidence" } else { "" }, Cell::text(format!("{member}: {value}")))
    }));
    Table::of_fields(fields)
}

fn rules_table(rules: &CompensationRules) -> Table {
    let rows = rules.rules.iter().map(|(class, rule)| {
        [
            Cell::text(class),
            Cell::number(render::duration(DurationMs::from_millis(rule.free_ms))),
            Cell::number(format!("{} %", percent(rule.hour_ppm))),
            Cell::number(format!("{} %", percent(rule.missing_ppm))),
            Cell::number(format!("{} %", percent(rule.early_ppm))),
        ]
    });
    Table::new(["notice", "last time free", "of the hour's rest", "of what is missing", "of what is not used"], "no rules")
        .rows(rows)
}
