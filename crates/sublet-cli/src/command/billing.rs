//! `sublet billing`.

use clap::{Subcommand, ValueEnum};
use sublet_api::credit::{CreateCreditGrant, CreditBalance, CreditGrant, CreditKind, CreditScope};
use sublet_api::invoice::{Charge, ChargeListQuery};
use sublet_api::list::ListQuery;
use sublet_api::object::Metadata;
use sublet_api::time::Rfc3339;
use sublet_core::error::Result;
use sublet_core::id::{JobId, OrganizationId, ProjectId, RequestId};

use super::credit_note::CreditNoteCommand;
use super::export::ExportArgs;
use super::invoice::InvoiceCommand;
use super::limit::{self, LimitCommand};
use super::seller::ProfileCommand;
use super::usage::quantity;
use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};
use crate::value::MoneyArgument;

/// Money of the organization.
#[derive(Subcommand, Debug)]
pub enum BillingCommand {
    /// Prepaid and promotional credit
    #[command(subcommand)]
    Credits(CreditCommand),
    /// Drafts and issued bills
    #[command(subcommand)]
    Invoices(InvoiceCommand),
    /// What was taken back of issued bills
    #[command(subcommand)]
    CreditNotes(CreditNoteCommand),
    /// A month for finance and FinOps programs: cost and usage, or charges, as CSV or Parquet
    #[command(disable_version_flag = true)]
    Export(ExportArgs),
    /// Whom bills are for, and how the account is taxed
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Spend limits
    #[command(subcommand)]
    Limits(LimitCommand),
    /// What limits will stand at when their windows end
    Forecast,
    /// Thresholds of limits that were crossed
    Alerts {
        #[command(flatten)]
        page: PageArgs,
    },
    /// List single charges: what invoices add up
    Charges {
        #[arg(long)]
        project: Option<ProjectId>,
        #[arg(long)]
        request: Option<RequestId>,
        #[arg(long)]
        job: Option<JobId>,
        #[command(flatten)]
        page: PageArgs,
    },
}

/// Credit.
#[derive(Subcommand, Debug)]
pub enum CreditCommand {
    /// Give an organization credit (operator)
    Grant {
        organization: OrganizationId,
        /// Such as 50 or "50 EUR"
        amount: MoneyArgument,
        #[arg(long, value_enum, default_value_t = Kind::Paid)]
        kind: Kind,
        /// It can be spent before this instant
        #[arg(long, value_name = "INSTANT")]
        expires_at: Option<Rfc3339>,
        /// What has a smaller number burns first; 100 is the usual one
        #[arg(long, value_name = "0-1000")]
        priority: Option<u16>,
        /// What it may be spent on
        #[arg(long, value_enum)]
        scope: Option<ScopeArgument>,
        /// Your own record, such as a bank reference
        #[arg(long)]
        reference: Option<String>,
    },
    /// List grants and where the money is
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show where an organization's money is (operator)
    Show { organization: OrganizationId },
}

/// Where credit comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    Paid,
    Promotional,
}

impl From<Kind> for CreditKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Paid => Self::Paid,
            Kind::Promotional => Self::Promotional,
        }
    }
}

/// What credit may be spent on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ScopeArgument {
    All,
    ModelTokens,
    DeviceTime,
}

impl From<ScopeArgument> for CreditScope {
    fn from(scope: ScopeArgument) -> Self {
        match scope {
            ScopeArgument::All => Self::All,
            ScopeArgument::ModelTokens => Self::ModelTokens,
            ScopeArgument::DeviceTime => Self::DeviceTime,
        }
    }
}

impl BillingCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        match self {
            Self::Credits(command) => command.run(context),
            Self::Invoices(command) => command.run(context),
            Self::CreditNotes(command) => command.run(context),
            Self::Export(export) => export.run(context),
            Self::Limits(command) => command.run(context),
            Self::Forecast => limit::forecast(context),
            Self::Alerts { page } => limit::alerts(context, page),
            Self::Profile(command) => command.run(context),
            Self::Charges { project, request, job, page } => {
                let order = page.order();
                let query = ChargeListQuery {
                    project,
                    request,
                    job,
                    limit: page.limit,
                    after: page.after,
                    order,
                    ..ChargeListQuery::default()
                };
                let list = context.client()?.charges(&query)?;
                show_page(context, &list, charges)
            }
        }
    }
}

impl CreditCommand {
    fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Grant { organization, amount, kind, expires_at, priority, scope, reference } => {
                let currency = client.organization_credits(&organization)?.available.currency;
                let body = CreateCreditGrant {
                    amount: amount.in_currency(currency)?,
                    kind: kind.into(),
                    expires_at,
                    priority,
                    scope: scope.map(Into::into),
                    reference,
                    metadata: Metadata::default(),
                };
                let grant = client.grant_credit(&organization, &body, &context.fresh_key())?;
                context.show(&grant, |grant| grants(std::slice::from_ref(grant)))
            }
            Self::List { page } => {
                let order = page.order();
                let list = client.credit_grants(&ListQuery { limit: page.limit, after: page.after, before: None, order })?;
                show_page(context, &list, grants)?;
                if context.json {
                    return Ok(());
                }
                let balance = Table::of_fields(balance(&client.credits()?)).render(context.style);
                context.print(&format!("\n{balance}"))
            }
            Self::Show { organization } => {
                let credits = client.organization_credits(&organization)?;
                context.show(&credits, |credits| Table::of_fields(balance(credits)))
            }
        }
    }
}

fn grants(grants: &[CreditGrant]) -> Table {
    let rows = grants.iter().map(|grant| {
        [
            Cell::text(grant.id.as_str()),
            Cell::text(grant.kind.as_str()),
            Cell::number(render::money(&grant.amount)),
            Cell::number(grant.remaining.as_ref().map_or_else(String::new, render::money)),
            Cell::text(render::rfc3339(grant.expires_at)),
            Cell::text(grant.scope.as_str()),
            Cell::number(grant.priority.to_string()),
            Cell::optional(grant.reference.as_ref()),
        ]
    });
    Table::new(["grant", "kind", "amount", "left", "expires", "for", "priority", "reference"], "no credit was ever granted")
        .rows(rows)
}

/// The two sides of the identity that holds at every instant, one term a line.
fn balance(balance: &CreditBalance) -> Vec<(&'static str, Cell)> {
    let mut terms = vec![
        ("granted", &balance.deposited),
        ("credit limit", &balance.credit_limit),
        ("owed", &balance.owed),
        ("available", &balance.available),
        ("with gateways", &balance.sliced),
        ("set aside", &balance.held),
        ("charged", &balance.captured),
        ("in suspense", &balance.suspense),
        ("expired", &balance.expired),
        ("refunded", &balance.refunded),
    ];
    terms.extend(balance.tax_prepaid.as_ref().map(|kept| ("kept for tax", kept)));
    terms.extend(balance.taxed.as_ref().map(|taxed| ("tax of bills", taxed)));
    terms.into_iter().map(|(name, money)| (name, Cell::number(render::money(money)))).collect()
}

fn charges(charges: &[Charge]) -> Table {
    let rows = charges.iter().map(|charge| {
        let cause = charge
            .request
            .as_ref()
            .map(ToString::to_string)
            .or_else(|| charge.job.as_ref().map(ToString::to_string))
            .or_else(|| charge.lease.as_ref().map(ToString::to_string))
            .or_else(|| charge.rerate.as_ref().map(ToString::to_string));
        [
            Cell::text(charge.id.as_str()),
            Cell::text(render::instant(charge.used_at.0)),
            Cell::text(charge.subject.name()),
            Cell::text(charge.meter.as_str()),
            Cell::number(quantity(charge.meter, charge.quantity)),
            Cell::number(render::money(&charge.amount)),
            Cell::optional(cause),
        ]
    });
    Table::new(["charge", "used", "what", "meter", "quantity", "amount", "for"], "no charges").rows(rows)
}
