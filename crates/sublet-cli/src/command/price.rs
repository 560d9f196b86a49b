//! `sublet prices`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use sublet_api::list::ListQuery;
use sublet_api::money::Money;
use sublet_api::price::{Meter, PriceList, PublishPriceList};
use sublet_core::error::{Error, ErrorCode, Result};

use super::{PageArgs, show_page};
use crate::Context;
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};

/// Largest price-list file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Prices in force, unless something else is asked.
#[derive(Args, Debug)]
pub struct PriceArgs {
    #[command(subcommand)]
    pub action: Option<PriceCommand>,
}

/// More about prices.
#[derive(Subcommand, Debug)]
pub enum PriceCommand {
    /// List every version (operator)
    History {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Publish a version from a JSON file with name, currency and prices (operator)
    Publish { file: PathBuf },
}

impl PriceArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self.action {
            None => {
                let list = client.prices()?;
                context.show_text(&list, text)
            }
            Some(PriceCommand::History { page }) => {
                let order = page.order();
                let list = client.price_lists(&ListQuery { limit: page.limit, after: page.after, before: None, order })?;
                show_page(context, &list, history)
            }
            Some(PriceCommand::Publish { file }) => {
                let body = read(&file)?;
                let list = client.publish_price_list(&body, &context.fresh_key())?;
                context.show_text(&list, text)
            }
        }
    }
}

fn read(file: &Path) -> Result<PublishPriceList> {
    let unusable = |why: String| Error::new(ErrorCode::Usage, format!("{} cannot be used: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| unusable(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unusable(format!("it is larger than {}", render::bytes(FILE_BYTES_MAX))));
    }
    let bytes = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    sublet_api::parse_body(&bytes)
}

fn text(list: &PriceList, style: Style) -> String {
    let rows = list.prices.iter().map(|price| {
        [
            Cell::text(price.subject.name()),
            Cell::text(price.meter.as_str()),
            Cell::text(price.notice.map_or(NOTHING, |notice| notice.as_str())),
            Cell::number(rate(&Money { amount: price.amount, currency: list.currency }, price.meter, price.per)),
        ]
    });
    let table = Table::new(["what", "meter", "notice", "price"], "the list is empty").rows(rows).render(style);
    let head = Table::of_fields(vec![
        ("price list", Cell::text(format!("{} #{} ({})", list.name, list.number, list.id))),
        ("version", Cell::text(list.version.0.as_ref())),
        ("in force from", Cell::text(render::instant(list.effective_at.0))),
    ]);
    format!("{}\n{table}", head.render(style))
}

/// A price as people say it: so much for so many.
pub(super) fn rate(amount: &Money, meter: Meter, per: u64) -> String {
    let money = render::money(amount);
    let per = match (meter, per) {
        (Meter::DeviceMilliseconds, 3_600_000) => "device-hour".to_owned(),
        (Meter::DeviceMilliseconds, 1_000) => "device-second".to_owned(),
        (Meter::DeviceMilliseconds, per) => format!("{per} device-milliseconds"),
        (_, 1_000_000) => "1M tokens".to_owned(),
        (_, per) => format!("{per} tokens"),
    };
    format!("{money} / {per}")
}

fn history(lists: &[PriceList]) -> Table {
    let rows = lists.iter().map(|list| {
        [
            Cell::text(&list.name),
            Cell::number(list.number),
            Cell::text(render::instant(list.effective_at.0)),
            Cell::number(list.prices.len()),
            Cell::text(list.version.0.as_ref()),
        ]
    });
    Table::new(["price list", "number", "in force from", "prices", "version"], "no price list was ever published").rows(rows)
}
