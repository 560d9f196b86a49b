//! `sublet prices`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use sublet_api::list::ListQuery;
use sublet_api::money::{Amount, Money};
use sublet_api::price::{
    MarketPrice, Meter, Price, PriceBand, PriceList, PriceListQuery, PriceModel, PriceTier, PriceWindow, PublishPriceList,
};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::key::KeyPlane;
use sublet_core::money::Currency;

use super::price_index::IndexCommand;
use super::{PageArgs, price_diff, price_simulation, show_page, supply_cost};
use crate::Context;
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};

/// Largest price-list file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Prices in force, unless something else is asked.
#[derive(Args, Debug)]
pub struct PriceArgs {
    /// The public prices, whatever this account pays
    #[arg(long)]
    pub public: bool,
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
    /// Show what another list would change (operator)
    Diff {
        /// A JSON file with name, currency and prices, or the hash of a version
        new: String,
        /// A file or a version to compare with; the newest version in its currency if left out
        #[arg(long)]
        with: Option<String>,
    },
    /// Show what a past month would have been at other prices (operator)
    Simulate {
        /// A JSON file with currency and prices
        file: PathBuf,
        /// A month like 2026-03; the last whole one if left out
        #[arg(long)]
        period: Option<String>,
    },
    /// What market prices follow
    #[command(subcommand)]
    Index(IndexCommand),
}

impl PriceArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self.action {
            Some(PriceCommand::Index(command)) => command.run(context),
            None => {
                let is_customer = client.holds_key(KeyPlane::Project) && !self.public;
                let list = if is_customer { client.account_prices(&PriceListQuery::default())? } else { client.prices()? };
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
                context.show_text(&list, text)?;
                supply_cost::warn(context, &list.below_cost)
            }
            Some(PriceCommand::Diff { new, with }) => {
                let difference = price_diff::compare(&client, with.as_deref(), &new)?;
                context.show_text(&difference, price_diff::text)
            }
            Some(PriceCommand::Simulate { file, period }) => {
                let simulation = price_simulation::simulate(&client, &file, period)?;
                context.show_text(&simulation, price_simulation::text)
            }
        }
    }
}

pub(super) fn read(file: &Path) -> Result<PublishPriceList> {
    let unusable = |why: String| Error::new(ErrorCode::Usage, format!("{} cannot be used: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| unusable(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unusable(format!("it is larger than {}", render::bytes(FILE_BYTES_MAX))));
    }
    let bytes = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    sublet_api::parse_body(&bytes)
}

fn text(list: &PriceList, style: Style) -> String {
    let rows = list.prices.iter().flat_map(|price| rows(price, list.currency));
    let table = Table::new(["what", "meter", "tier", "notice", "when", "price"], "the list is empty").rows(rows).render(style);
    let mut fields = vec![
        ("price list", Cell::text(format!("{} #{} ({})", list.name, list.number, list.id))),
        ("version", Cell::text(list.version.0.as_ref())),
        ("in force from", Cell::text(render::instant(list.effective_at.0))),
    ];
    if let Some(contract) = &list.contract {
        fields.push(("by the contract's terms", Cell::text(&contract.terms_hash)));
        fields.push(("from public version", Cell::text(contract.public_version.0.as_ref())));
        fields.extend(contract.protected_version.as_ref().map(|version| ("never above version", Cell::text(version.0.as_ref()))));
    }
    let head = Table::of_fields(fields);
    format!("{}\n{table}", head.render(style))
}

/// One row for each band, and one for the rest of the week.
fn rows(price: &Price, currency: Currency) -> Vec<[Cell; 6]> {
    let row = |(when, terms): (String, String)| {
        [
            Cell::text(price.subject.name()),
            Cell::text(price.meter.as_str()),
            Cell::text(price.service_tier.map_or(NOTHING, |tier| tier.as_str())),
            Cell::text(render::kind_of_time(price.notice, price.site.as_ref(), price.isolation)),
            Cell::text(when),
            Cell::number(terms),
        ]
    };
    price_rows(price, currency).into_iter().map(row).collect()
}

/// When a price holds, and what it is then.
pub(super) fn price_rows(price: &Price, currency: Currency) -> Vec<(String, String)> {
    let own = Terms { amount: price.amount, model: price.model.as_ref(), minimum: price.minimum };
    if let Some(MarketPrice { index, floor, ceiling }) = &price.market {
        return vec![(format!("times {index}, {floor} to {ceiling}"), own.text(price, currency))];
    }
    let Some(bands) = &price.time_of_use else { return vec![(NOTHING.to_owned(), own.text(price, currency))] };
    let mut rows = vec![("otherwise".to_owned(), own.text(price, currency))];
    for PriceBand { name, windows, amount, model, minimum } in &bands.bands {
        let windows: Vec<String> = windows.iter().map(window).collect();
        let terms = Terms { amount: *amount, model: model.as_ref(), minimum: *minimum };
        rows.push((format!("{name}: {} {}", windows.join(", "), bands.time_zone), terms.text(price, currency)));
    }
    rows
}

fn window(window: &PriceWindow) -> String {
    let days = window.days.as_ref().filter(|days| days.len() < 7).map(|days| format!("{} ", days.join("+"))).unwrap_or_default();
    format!("{days}{}-{}", window.from, window.until)
}

/// What is said of a price, and of each band.
#[derive(Clone, Copy)]
struct Terms<'a> {
    amount: Option<Amount>,
    model: Option<&'a PriceModel>,
    minimum: Option<Amount>,
}

impl Terms<'_> {
    fn text(self, price: &Price, currency: Currency) -> String {
        let money = |amount| Money { amount, currency };
        let rate = |amount| rate(&money(amount), price.meter, price.per);
        let of_tiers = |tiers: &[PriceTier]| {
            let tier = |tier: &PriceTier| match tier.up_to {
                Some(bound) => format!("{} up to {bound}", rate(tier.amount)),
                None => format!("then {}", rate(tier.amount)),
            };
            tiers.iter().map(tier).collect::<Vec<_>>().join(", ")
        };
        let mut text = match (self.amount, self.model) {
            (Some(amount), _) => rate(amount),
            (None, Some(PriceModel::Graduated { tiers })) => format!("each unit by its tier: {}", of_tiers(tiers)),
            (None, Some(PriceModel::Volume { tiers })) => format!("all units by the tier reached: {}", of_tiers(tiers)),
            (None, Some(PriceModel::Package { size, amount })) => {
                format!("{} / started {}", render::money(&money(*amount)), units(price.meter, *size))
            }
            (None, None) => NOTHING.to_owned(),
        };
        if let Some(minimum) = self.minimum {
            text.push_str(&format!(", at least {}", render::money(&money(minimum))));
        }
        text
    }
}

/// A price as people say it: so much for so many.
pub(super) fn rate(amount: &Money, meter: Meter, per: u64) -> String {
    format!("{} / {}", render::money(amount), units(meter, per))
}

/// Bytes in a GiB.
const GIB: u64 = 1 << 30;
/// Byte-hours in a GiB for a month of 730 hours.
const GIB_MONTH: u64 = GIB * 730;

/// So many of what a meter counts.
fn units(meter: Meter, count: u64) -> String {
    match (meter, count) {
        (Meter::DeviceMilliseconds, 3_600_000) => "device-hour".to_owned(),
        (Meter::DeviceMilliseconds, 1_000) => "device-second".to_owned(),
        (Meter::DeviceMilliseconds, count) => format!("{count} device-milliseconds"),
        (Meter::Fees, 1) => "fee".to_owned(),
        (Meter::Fees, count) => format!("{count} fees"),
        (Meter::Starts, 1) => "start".to_owned(),
        (Meter::Starts, count) => format!("{count} starts"),
        (Meter::ProjectMonths, 1) => "project-month".to_owned(),
        (Meter::ProjectMonths, count) => format!("{count} project-months"),
        (Meter::ByteHours, GIB_MONTH) => "GiB-month".to_owned(),
        (Meter::ByteHours, count) => format!("{count} byte-hours"),
        (Meter::BytesSent, GIB) => "GiB".to_owned(),
        (Meter::BytesSent, count) => format!("{count} bytes"),
        (Meter::Requests, 1) => "request".to_owned(),
        (Meter::Requests, count) => format!("{count} requests"),
        (_, 1_000_000) => "1M tokens".to_owned(),
        (_, count) => format!("{count} tokens"),
    }
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
