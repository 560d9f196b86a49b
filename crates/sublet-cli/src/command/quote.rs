//! `sublet quotes`.

use clap::{Args, Subcommand};
use sublet_api::client::Client;
use sublet_api::quote::{CreateQuote, Quote, QuoteListQuery, QuoteStatus};
use sublet_api::sku::SkuName;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{QuoteId, SiteId};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, NOTHING, Table};
use crate::value::{MoneyArgument, word};

/// Binding offers.
#[derive(Subcommand, Debug)]
pub enum QuoteCommand {
    /// Ask for an offer; nothing is charged for it
    Create(AskArgs),
    /// Show one offer
    Show { id: QuoteId },
    /// List the project's offers
    List {
        /// open, accepted or expired
        #[arg(long, value_parser = word::<QuoteStatus>)]
        status: Option<QuoteStatus>,
        #[command(flatten)]
        page: PageArgs,
    },
}

/// What is wanted.
#[derive(Args, Clone, Debug)]
pub struct AskArgs {
    /// SKU by name or id; needed where there is more than one
    #[arg(long)]
    pub sku: Option<String>,
    /// Devices
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub units: u32,
    /// How long before capacity is taken back you are told: n0, n2m, n15m, n1h, n24h, firm
    #[arg(long, default_value_t = NoticeClass::N0)]
    pub notice: NoticeClass,
    /// Only at this site
    #[arg(long)]
    pub site: Option<SiteId>,
    /// Kept apart from other work at least so: process or sandbox
    #[arg(long, value_name = "LEVEL", value_parser = word::<IsolationLevel>)]
    pub isolation: Option<IsolationLevel>,
    /// End before it costs more, such as 5 or "5 EUR"
    #[arg(long, value_name = "MONEY")]
    pub max_cost: Option<MoneyArgument>,
    /// End before an hour of a device costs more, such as 2 or "2 EUR"
    #[arg(long, value_name = "MONEY")]
    pub max_price: Option<MoneyArgument>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_seconds: Option<u64>,
}

impl QuoteCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Create(ask) => {
                let quote = ask.quote(&client, context)?;
                context.show(&quote, |quote| Table::of_fields(fields(quote)))
            }
            Self::Show { id } => {
                let quote = client.quote(&id)?;
                context.show(&quote, |quote| Table::of_fields(fields(quote)))
            }
            Self::List { status, page } => {
                let order = page.order();
                let query = QuoteListQuery { status, limit: page.limit, after: page.after, before: None, order };
                let list = client.quotes(&query)?;
                show_page(context, &list, table)
            }
        }
    }
}

impl AskArgs {
    /// Asks for the offer.
    pub(super) fn quote(self, client: &Client, context: &Context<'_>) -> Result<Quote> {
        let money = |typed: Option<MoneyArgument>| match typed {
            Some(typed) => Ok(Some(typed.in_currency(client.account()?.currency)?)),
            None => Ok::<_, Error>(None),
        };
        let (maximum_cost, maximum_price) = (money(self.max_cost)?, money(self.max_price)?);
        let sku = match self.sku {
            Some(name) => SkuName(name),
            None => only_sku(client)?,
        };
        let body = CreateQuote {
            sku,
            units: self.units,
            notice: self.notice,
            site: self.site,
            isolation: self.isolation,
            maximum_seconds: self.max_seconds,
            maximum_cost,
            maximum_price,
            metadata: sublet_api::object::Metadata::default(),
        };
        client.create_quote(&body, &context.fresh_key())
    }
}

fn only_sku(client: &Client) -> Result<SkuName> {
    let skus = client.skus()?.data;
    match skus.as_slice() {
        [only] => Ok(SkuName(only.name.clone())),
        [] => Err(Error::new(ErrorCode::CapacityUnavailable, "nothing can be leased here")),
        several => {
            let names: Vec<&str> = several.iter().map(|sku| sku.name.as_str()).collect();
            Err(Error::new(ErrorCode::Usage, "there is more than one SKU; say which with --sku")
                .param("sku")
                .alternative(format!("--sku with one of {}", names.join(", "))))
        }
    }
}

fn fields(quote: &Quote) -> Vec<(&'static str, Cell)> {
    let maximum = quote.maximum_cost.as_ref().map_or_else(|| NOTHING.to_owned(), render::money);
    let mut fields = vec![
        ("quote", Cell::text(quote.id.as_str())),
        ("status", Cell::state(quote.status.as_str())),
        ("capacity", Cell::text(format!("{} × {} at {}", quote.units, quote.sku.as_str(), quote.notice))),
        ("site", Cell::text(quote.site.as_str())),
        ("isolation", Cell::text(quote.isolation.as_str())),
        ("device-hour", Cell::text(render::money(&quote.price))),
        ("at least", Cell::text(render::money(&quote.minimum_cost))),
        ("at most", Cell::text(maximum)),
        ("set aside", Cell::text(render::money(&quote.hold))),
        ("expires", Cell::text(render::instant(quote.expires_at.0))),
        ("lease", Cell::optional(quote.lease.as_ref())),
        ("price list", Cell::text(quote.price_version.0.as_ref())),
    ];
    // Only where starts have a price.
    fields.extend(quote.start_price.map(|start| ("start of a job", Cell::text(render::money(&start)))));
    fields
}

fn table(quotes: &[Quote]) -> Table {
    let rows = quotes.iter().map(|quote| {
        [
            Cell::text(quote.id.as_str()),
            Cell::state(quote.status.as_str()),
            Cell::number(quote.units),
            Cell::text(quote.sku.as_str()),
            Cell::text(quote.notice.as_str()),
            Cell::number(render::money(&quote.price)),
            Cell::text(render::instant(quote.expires_at.0)),
        ]
    });
    Table::new(["quote", "status", "units", "sku", "notice", "device-hour", "expires"], "no quotes yet").rows(rows)
}
