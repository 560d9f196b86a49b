//! `sublet rerates`.

use clap::Subcommand;
use sublet_api::list::ListQuery;
use sublet_api::rerate::{Rerate, ReratedLine, SimulateRerate};
use sublet_api::time::Rfc3339;
use sublet_core::admission::PriceVersion;
use sublet_core::error::Result;
use sublet_core::id::{OrganizationId, RerateId};

use super::usage::quantity;
use super::{PageArgs, show_page};
use crate::Context;
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};

/// Characters of a price list's hash that tables show.
const HASH_SHOWN: usize = 12;

/// Use of past times by other price lists.
#[derive(Subcommand, Debug)]
pub enum RerateCommand {
    /// Say what use would have been by another price list; nothing is changed
    Simulate {
        /// The price list that was wrong, by its version
        #[arg(long, value_name = "VERSION")]
        of: String,
        /// The price list that is right, by its version
        #[arg(long, value_name = "VERSION")]
        to: String,
        /// The first instant of the use
        #[arg(long, value_name = "INSTANT")]
        from: Rfc3339,
        /// The instant behind the last
        #[arg(long, value_name = "INSTANT")]
        until: Rfc3339,
        /// Of one customer; of all if left out
        #[arg(long)]
        organization: Option<OrganizationId>,
        /// One line that customers read
        #[arg(long)]
        reason: String,
    },
    /// Apply what was simulated: what it costs less is credit, what it costs more is charged
    Apply { rerate: RerateId },
    /// Show one, with the customers for whom most changes
    Show { rerate: RerateId },
    /// List them
    List {
        #[command(flatten)]
        page: PageArgs,
    },
}

impl RerateCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let rerate = match self {
            Self::Simulate { of, to, from, until, organization, reason } => {
                let (of, to) = (PriceVersion(of.into()), PriceVersion(to.into()));
                let body = SimulateRerate { of, to, from, until, organization, reason };
                client.simulate_rerate(&body, &context.fresh_key())?
            }
            Self::Apply { rerate } => client.apply_rerate(&rerate)?,
            Self::Show { rerate } => client.rerate(&rerate)?,
            Self::List { page } => {
                let order = page.order();
                let query = ListQuery { limit: page.limit, after: page.after, before: None, order };
                return show_page(context, &client.rerates(&query)?, table);
            }
        };
        context.show_text(&rerate, text)
    }
}

fn hash(version: &PriceVersion) -> String {
    version.0.chars().take(HASH_SHOWN).collect()
}

/// The sums, then what changes for customers and on their lines.
fn text(rerate: &Rerate, style: Style) -> String {
    let head = Table::of_fields(vec![
        ("rerate", Cell::text(rerate.id.as_str())),
        ("status", Cell::state(rerate.status.as_str())),
        ("price list", Cell::text(format!("{} instead of {}", hash(&rerate.to), hash(&rerate.of)))),
        ("from", Cell::text(render::instant(rerate.from.0))),
        ("until before", Cell::text(render::instant(rerate.until.0))),
        ("reason", Cell::text(&rerate.reason)),
        ("customers", Cell::number(rerate.customers)),
        ("who pay more", Cell::number(rerate.raised)),
        ("refused", Cell::number(rerate.refused)),
        ("charged", Cell::number(render::money(&rerate.charged))),
        ("would be", Cell::number(render::money(&rerate.would_be))),
    ]);
    let customers = rerate.most_changed.iter().map(|customer| {
        [
            Cell::text(customer.organization.as_str()),
            Cell::state(customer.status.as_str()),
            Cell::number(render::money(&customer.charged)),
            Cell::number(render::money(&customer.would_be)),
            Cell::number(customer.lines),
            Cell::optional(customer.refusal.as_ref()),
        ]
    });
    let titles = ["organization", "status", "charged", "would be", "lines", "refused because"];
    let customers = Table::new(titles, "nothing changes for anybody").rows(customers);
    let lines = rerate.most_changed.iter().flat_map(|customer| &customer.most_changed).map(line);
    let titles = ["project", "month", "price list", "what", "meter", "tier", "notice", "band", "quantity", "amount"];
    let lines = Table::new(titles, "no line changes").rows(lines);
    [head, customers, lines].map(|table| table.render(style)).join("\n")
}

fn line(line: &ReratedLine) -> [Cell; 10] {
    [
        Cell::text(line.project.as_str()),
        Cell::text(&line.period),
        Cell::text(hash(&line.price_version)),
        Cell::text(line.subject.name()),
        Cell::text(line.meter.as_str()),
        Cell::text(line.service_tier.map_or(NOTHING, |tier| tier.as_str())),
        Cell::text(render::kind_of_time(line.notice, line.site.as_ref(), line.isolation)),
        Cell::text(line.band.as_deref().unwrap_or(NOTHING)),
        Cell::number(quantity(line.meter, line.quantity)),
        Cell::number(render::money(&line.amount)),
    ]
}

fn table(rerates: &[Rerate]) -> Table {
    let rows = rerates.iter().map(|rerate| {
        [
            Cell::text(rerate.id.as_str()),
            Cell::state(rerate.status.as_str()),
            Cell::text(render::instant(rerate.from.0)),
            Cell::text(render::instant(rerate.until.0)),
            Cell::number(rerate.customers),
            Cell::number(render::money(&rerate.charged)),
            Cell::number(render::money(&rerate.would_be)),
            Cell::text(&rerate.reason),
        ]
    });
    let titles = ["rerate", "status", "from", "until before", "customers", "charged", "would be", "reason"];
    Table::new(titles, "nothing was rated anew").rows(rows)
}
