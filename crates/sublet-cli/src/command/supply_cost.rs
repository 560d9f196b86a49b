//! `sublet costs`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use sublet_api::supply_cost::{PriceBelowCost, PublishSupplyCosts, SupplyCosts};
use sublet_core::error::{Error, ErrorCode, Result};

use super::price::rate;
use crate::Context;
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};

/// Largest file of costs that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What supply costs, as the owner declares it.
#[derive(Subcommand, Debug)]
pub enum CostCommand {
    /// Declare costs from a JSON file with currency, effective_at, energy, devices and models
    Publish { file: PathBuf },
    /// Show a version, the one published last if none is named
    #[command(disable_version_flag = true)]
    Show {
        /// Its hash, as `list` shows it
        version: Option<String>,
    },
    /// List every version
    List,
}

impl CostCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Publish { file } => {
                let costs = client.publish_supply_costs(&read(&file)?, &context.fresh_key())?;
                context.show_text(&costs, text)
            }
            Self::Show { version: Some(version) } => context.show_text(&client.supply_cost(&version)?, text),
            Self::Show { version: None } => {
                let mut all = client.supply_costs()?.data;
                all.sort_by_key(|costs| costs.created_at.0);
                let last = all.pop().ok_or_else(|| {
                    Error::new(ErrorCode::NotFound, "no costs of supply are declared").alternative("sublet costs publish FILE")
                })?;
                context.show_text(&last, text)
            }
            Self::List => {
                let list = client.supply_costs()?;
                context.show(&list, |list| table(&list.data))
            }
        }
    }
}

fn read(file: &Path) -> Result<PublishSupplyCosts> {
    let unusable = |why: String| Error::new(ErrorCode::Usage, format!("{} cannot be used: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| unusable(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unusable(format!("it is larger than {}", render::bytes(FILE_BYTES_MAX))));
    }
    let bytes = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    sublet_api::parse_body(&bytes)
}

fn table(list: &[SupplyCosts]) -> Table {
    let rows = list.iter().map(|costs| {
        [
            Cell::text(costs.currency.as_str()),
            Cell::number(costs.number),
            Cell::text(render::instant(costs.effective_at.0)),
            Cell::number(costs.devices.len()),
            Cell::number(costs.models.len()),
            Cell::text(&costs.version),
        ]
    });
    Table::new(["currency", "number", "in force from", "devices", "models", "version"], "no costs of supply are declared")
        .rows(rows)
}

fn text(costs: &SupplyCosts, style: Style) -> String {
    let currency = costs.currency;
    let amount = |amount: sublet_api::money::Amount| String::from(amount);
    let energy = costs.energy.as_ref().map_or_else(
        || NOTHING.to_owned(),
        |energy| {
            let bands = energy.time_of_use.as_ref().map(|bands| &bands.bands[..]).unwrap_or_default();
            let band = |band: &sublet_api::price::PriceBand| {
                format!("; {} {} {currency}", band.name, band.amount.map_or_else(|| NOTHING.to_owned(), amount))
            };
            format!("{} {currency} / kWh{}", amount(energy.per_kwh), bands.iter().map(band).collect::<String>())
        },
    );
    let head = Table::of_fields(vec![
        ("costs", Cell::text(format!("#{} in {currency}", costs.number))),
        ("version", Cell::text(&costs.version)),
        ("in force from", Cell::text(render::instant(costs.effective_at.0))),
        ("energy", Cell::text(energy)),
    ]);
    let devices = costs.devices.iter().map(|device| {
        let power = device.power.map(|power| format!("{} W busy, {} W idle", power.busy_watts, power.idle_watts));
        let bought = device.depreciation.map(|bought| {
            format!("{} to {} {currency} in {} months", amount(bought.price), amount(bought.residual), bought.months)
        });
        let transfer = device.transfer_price.map(|hour| format!("{} {currency} as transfer price", amount(hour)));
        let hourly = device.per_hour.map(|hour| format!("{} {currency}", amount(hour))).or(transfer);
        [Some(device.kind.clone()), power, bought, hourly].map(|text| Cell::text(text.unwrap_or_else(|| NOTHING.to_owned())))
    });
    let devices = Table::new(["device", "power", "depreciation", "an hour"], "no kind of device has a cost").rows(devices);
    let models = costs.models.iter().map(|model| {
        let cached = model.cached_input.unwrap_or(model.input);
        let numbers = [model.input, cached, model.output].map(|cost| Cell::number(amount(cost)));
        let [input, cached, output] = numbers;
        [Cell::text(&model.model), input, cached, output]
    });
    let headings = ["1M tokens of model", "input", "cached input", "output"];
    let models = Table::new(headings, "no model has a cost").rows(models);
    [head, devices, models].map(|table| table.render(style)).join("\n")
}

/// What is priced below its cost.
pub(super) fn below_cost(found: &[PriceBelowCost]) -> Table {
    let rows = found.iter().map(|below| {
        [
            Cell::text(below.subject.name()),
            Cell::text(below.meter.as_str()),
            Cell::text(below.service_tier.map_or(NOTHING, |tier| tier.as_str())),
            Cell::text(render::kind_of_time(below.notice, below.site.as_ref(), below.isolation)),
            Cell::text(below.band.as_deref().unwrap_or(NOTHING)),
            Cell::number(rate(&below.price, below.meter, below.per)),
            Cell::number(render::money(&below.cost)),
            Cell::number(render::money(&below.short)),
        ]
    });
    let headings = ["below cost", "meter", "tier", "notice", "band", "price", "cost", "short"];
    Table::new(headings, "no price is below its declared cost").rows(rows)
}

/// Says on standard error what was published below its cost.
pub(super) fn warn(context: &mut Context<'_>, found: &[PriceBelowCost]) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let table = below_cost(found).render(context.style);
    context.note(&format!("warning: {} of these prices do not cover what supply is declared to cost\n{table}", found.len()))
}
