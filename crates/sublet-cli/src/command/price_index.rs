//! `sublet prices index`: what market prices follow.

use clap::Subcommand;
use sublet_api::list::ListQuery;
use sublet_api::price_index::{CreatePriceIndex, PriceIndex, PricePoint, PublishPricePoint};
use sublet_api::time::Rfc3339;
use sublet_core::error::Result;

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};

/// What market prices follow.
#[derive(Subcommand, Debug)]
pub enum IndexCommand {
    /// List the indexes with their levels
    List,
    /// Make an index (operator)
    Create {
        name: String,
        /// The first level, such as 1
        #[arg(long, default_value = "1")]
        level: String,
        /// How long before it holds a point is published at least, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 1_800)]
        lead: u64,
        /// What it is made from
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Publish the next level of an index (operator)
    Publish {
        name: String,
        /// Such as 0.85
        level: String,
        /// The instant from which it holds; as soon as it can if left out
        #[arg(long, value_name = "INSTANT")]
        from: Option<Rfc3339>,
    },
    /// List the points of an index
    Points {
        name: String,
        #[command(flatten)]
        page: PageArgs,
    },
}

impl IndexCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List => {
                let list = client.price_indexes()?;
                context.show(&list, |list| table(&list.data))
            }
            Self::Create { name, level, lead, note } => {
                let body = CreatePriceIndex { name, level, lead_seconds: lead, note };
                let index = client.create_price_index(&body, &context.fresh_key())?;
                context.show(&index, |index| table(std::slice::from_ref(index)))
            }
            Self::Publish { name, level, from } => {
                let point = client.publish_price_point(&name, &PublishPricePoint { level, from }, &context.fresh_key())?;
                context.show(&point, |point| points(std::slice::from_ref(point)))
            }
            Self::Points { name, page } => {
                let order = page.order();
                let query = ListQuery { limit: page.limit, after: page.after, before: None, order };
                let list = client.price_points(&name, &query)?;
                show_page(context, &list, points)
            }
        }
    }
}

fn table(indexes: &[PriceIndex]) -> Table {
    let rows = indexes.iter().map(|index| {
        [
            Cell::text(&index.name),
            Cell::number(&index.level),
            Cell::text(render::instant(index.known_until.0)),
            Cell::number(&index.last.level),
            Cell::text(render::instant(index.last.from.0)),
            Cell::number(index.lead_seconds),
            Cell::text(&index.note),
        ]
    });
    let headings = ["index", "level", "known until", "last level", "from", "lead in seconds", "note"];
    Table::new(headings, "there is no price index").rows(rows)
}

fn points(points: &[PricePoint]) -> Table {
    let rows = points.iter().map(|point| {
        [
            Cell::number(point.number),
            Cell::number(&point.level),
            Cell::text(render::instant(point.from.0)),
            Cell::text(render::instant(point.published_at.0)),
            Cell::text(&point.hash),
        ]
    });
    Table::new(["number", "level", "from", "published", "hash"], "there are no more points").rows(rows)
}
