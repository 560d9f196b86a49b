//! `sublet orgs`.

use clap::{Args, Subcommand};
use sublet_api::money::Amount;
use sublet_api::object::Metadata;
use sublet_api::organization::{CreateOrganization, CreatedOrganization, Organization, OrganizationListQuery, OrganizationStatus};
use sublet_api::supplier::DataPermission;
use sublet_core::error::Result;
use sublet_core::money::Currency;
use sublet_core::organization::OrganizationClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::supplier::{ExternalSupply, Region};

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};
use crate::value::{MoneyArgument, word};

/// Organizations of the cloud.
#[derive(Subcommand, Debug)]
pub enum OrganizationCommand {
    /// List organizations
    List {
        /// internal, external, partner or supplier
        #[arg(long)]
        class: Option<OrganizationClass>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Create an organization; its admin key is printed this once
    Create(CreateArgs),
    /// Say which suppliers outside may see what your organization asks, with its admin key
    DataPolicy {
        /// none, no_retention or any
        #[arg(value_parser = word::<ExternalSupply>)]
        external: ExternalSupply,
        /// Where suppliers may process it, such as eu; everywhere if left out
        #[arg(long = "region", value_name = "REGION")]
        regions: Vec<Region>,
    },
}

/// A new organization.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// What to call it
    pub name: String,
    /// internal, external, partner or supplier
    #[arg(long, default_value_t = OrganizationClass::External)]
    pub class: OrganizationClass,
    /// ISO 4217 code of its account; it never changes
    #[arg(long, default_value_t = Currency::EUR)]
    pub currency: Currency,
    /// IANA zone in which its billing periods begin
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// How far its balance may go below zero
    #[arg(long, value_name = "MONEY")]
    pub credit_limit: Option<MoneyArgument>,
    /// The least separation of its workloads: sandbox or process
    #[arg(long, value_name = "LEVEL", value_parser = word::<IsolationLevel>)]
    pub isolation: Option<IsolationLevel>,
}

impl OrganizationCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { class, page } => {
                let order = page.order();
                let query = OrganizationListQuery { class, limit: page.limit, after: page.after, before: None, order };
                let list = client.organizations(&query)?;
                show_page(context, &list, table)
            }
            Self::Create(args) => {
                let body = args.body()?;
                let created = client.create_organization(&body, &context.fresh_key())?;
                context.show_text(&created, |created: &CreatedOrganization, _| {
                    format!("{}\n{}\n", created.organization.id, created.admin_key.value.reveal())
                })?;
                context.note("the second line is its admin key, which is not shown again")
            }
            Self::DataPolicy { external, regions } => {
                let changed = client.set_data_policy(&DataPermission { external, regions })?;
                context.show(&changed, |organization| table(std::slice::from_ref(organization)))
            }
        }
    }
}

impl CreateArgs {
    fn body(self) -> Result<CreateOrganization> {
        let credit_limit = match self.credit_limit {
            Some(typed) => Some(Amount(typed.in_currency(self.currency)?.nanos())),
            None => None,
        };
        Ok(CreateOrganization {
            name: self.name,
            class: self.class,
            currency: self.currency,
            time_zone: self.time_zone,
            credit_limit,
            isolation: self.isolation,
            metadata: Metadata::default(),
        })
    }
}

fn table(organizations: &[Organization]) -> Table {
    let rows = organizations.iter().map(|organization| {
        let state = match organization.status {
            OrganizationStatus::Active => "active",
            OrganizationStatus::Suspended => "suspended",
        };
        [
            Cell::text(organization.id.as_str()),
            Cell::text(&organization.name),
            Cell::text(organization.class.as_str()),
            Cell::state(state),
            Cell::number(render::money(&organization.credit_limit)),
            Cell::text(organization.isolation.as_str()),
            Cell::text(&organization.time_zone),
            Cell::text(organization.data_policy.external.as_str()),
        ]
    });
    Table::new(
        ["organization", "name", "class", "state", "credit limit", "isolation", "time zone", "suppliers"],
        "no organizations yet",
    )
    .rows(rows)
}
