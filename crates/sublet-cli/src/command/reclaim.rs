//! `sublet reclaim`.

use std::fmt::Display;
use std::str::FromStr;

use clap::{Args, Subcommand};
use sublet_api::money::Money;
use sublet_api::reclaim::{
    CreateReclaim, NearbyReclaim, Reclaim, ReclaimListQuery, ReclaimPlan, ReclaimPreview, ReclaimStatus, ReclaimSummary,
    ReclaimVictim,
};
use sublet_api::time::Rfc3339;
use sublet_core::Timestamp;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{ReclaimId, SiteId};
use sublet_money::zone::Zone;

use super::{PageArgs, show_page};
use crate::Context;
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};
use crate::value::word;

/// Taking capacity back for the owner's teams.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ReclaimArgs {
    #[command(subcommand)]
    command: Option<ReclaimCommand>,
    #[command(flatten)]
    order: OrderArgs,
}

#[derive(Args, Debug)]
struct OrderArgs {
    /// How many devices of which kind, such as 16xh200
    #[arg(long, value_name = "UNITSxKIND", required = true)]
    need: Option<Need>,
    /// When they have to be there: an instant, or the next time that clocks show, such as 18:00
    #[arg(long, value_name = "WHEN", required = true)]
    by: Option<String>,
    /// Until when they are held; until the order is cancelled if left out
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Whose clocks times of the day are of
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// At one site
    #[arg(long)]
    site: Option<SiteId>,
    /// So many on each of some machines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    units_per_node: Option<u32>,
    /// All devices of each of some machines
    #[arg(long, conflicts_with = "units_per_node")]
    whole_nodes: bool,
    /// Notices that were sold may be broken, the shortest first, and are made good
    #[arg(long)]
    break_promises: bool,
    /// Say whom it touches and what it costs; nothing is changed
    #[arg(long)]
    dry_run: bool,
}

#[derive(Subcommand, Debug)]
enum ReclaimCommand {
    /// List orders
    List {
        /// placed, fulfilled, cancelled or expired
        #[arg(long, value_parser = word::<ReclaimStatus>)]
        status: Option<ReclaimStatus>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one, with what is there
    Show { id: ReclaimId },
    /// Give one up: what it holds may be sold; who was told ends all the same
    Cancel { id: ReclaimId },
}

/// Units of a kind of device.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Need {
    units: u32,
    kind: String,
}

impl FromStr for Need {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once('x').and_then(|(units, kind)| {
            let units = units.parse().ok().filter(|units| *units > 0)?;
            (!kind.is_empty()).then(|| Self { units, kind: kind.to_owned() })
        });
        parsed.ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::new(ErrorCode::Usage, format!("'{shown}' does not say how many devices of which kind"))
                .alternative("write it such as 16xh200")
        })
    }
}

impl ReclaimArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let reclaim = match self.command {
            None => return self.order.run(context),
            Some(ReclaimCommand::List { status, page }) => {
                let order = page.order();
                let query = ReclaimListQuery { status, limit: page.limit, after: page.after, before: None, order };
                return show_page(context, &client.reclaims(&query)?, table);
            }
            Some(ReclaimCommand::Show { id }) => client.reclaim(&id)?,
            Some(ReclaimCommand::Cancel { id }) => client.cancel_reclaim(&id)?,
        };
        context.show_text(&reclaim, text)
    }
}

impl OrderArgs {
    fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let (Some(need), Some(by)) = (self.need, self.by) else {
            return Err(Error::new(ErrorCode::Usage, "say what is needed and when: --need 16xh200 --by 18:00"));
        };
        let now = || client.clock().map(|clock| clock.now.0);
        let by = instant(&by, &self.time_zone, now)?;
        // Until a time of the day is until it comes after the devices are there.
        let until = self.until.map(|until| instant(&until, &self.time_zone, || Ok(by))).transpose()?;
        let body = CreateReclaim {
            kind: need.kind,
            units: need.units,
            by: by.into(),
            until: until.map(Into::into),
            site: self.site,
            units_per_node: self.units_per_node,
            whole_nodes: self.whole_nodes,
            break_promises: self.break_promises,
        };
        if self.dry_run {
            return context.show_text(&client.preview_reclaim(&body)?, preview_text);
        }
        context.show_text(&client.create_reclaim(&body, &context.fresh_key())?, text)
    }
}

/// An instant, or the next time of the day after another.
fn instant(text: &str, zone: &str, after: impl Fn() -> Result<Timestamp>) -> Result<Timestamp> {
    if text.contains('T') {
        return text.parse::<Rfc3339>().map(|at| at.0);
    }
    Zone::new(zone)?.next_time(text, after()?)
}

fn amounts(owed: &[Money]) -> String {
    if owed.is_empty() {
        return "nothing".to_owned();
    }
    owed.iter().map(render::money).collect::<Vec<_>>().join(" and ")
}

fn lost(seconds: u64) -> String {
    render::milliseconds(seconds.saturating_mul(1_000))
}

fn of_plan(plan: &ReclaimPlan) -> Vec<(&'static str, Cell)> {
    vec![
        ("free anyway", Cell::number(plan.free_anyway)),
        ("leases that end", Cell::number(plan.victims.len())),
        ("owed", Cell::text(amounts(&plan.owed))),
        ("device time lost", Cell::text(lost(plan.lost_device_seconds))),
    ]
}

fn victims(plan: &ReclaimPlan) -> Table {
    let row = |victim: &ReclaimVictim| {
        [
            Cell::text(victim.lease.as_str()),
            Cell::text(victim.organization.as_str()),
            Cell::number(victim.units),
            Cell::text(victim.notice.as_str()),
            Cell::text(render::instant(victim.told_at.0)),
            Cell::text(render::instant(victim.ends_at.0)),
            Cell::text(if victim.breaks_promise { "broken" } else { "kept" }),
            Cell::number(render::money(&victim.owed)),
            Cell::text(lost(victim.lost_device_seconds)),
            Cell::text(render::rfc3339(victim.checkpoint_at)),
        ]
    };
    let titles = ["lease", "organization", "units", "notice", "told", "ends", "promise", "owed", "device time lost", "checkpoint"];
    Table::new(titles, "nobody is interrupted").rows(plan.victims.iter().map(row))
}

fn machines(plan: &ReclaimPlan) -> Table {
    let mut rows: Vec<(String, String, u32, Timestamp)> = Vec::new();
    for device in &plan.devices {
        let (node, site) = (device.node.to_string(), device.site.to_string());
        match rows.iter_mut().find(|row| row.0 == node) {
            Some(row) => (row.2, row.3) = (row.2 + 1, row.3.max(device.free_at.0)),
            None => rows.push((node, site, 1, device.free_at.0)),
        }
    }
    let rows = rows
        .iter()
        .map(|(node, site, units, at)| [Cell::text(node), Cell::text(site), Cell::number(units), Cell::text(render::instant(*at))]);
    Table::new(["machine", "site", "units", "there by"], "no devices").rows(rows)
}

fn cheaper(nearby: &[NearbyReclaim]) -> String {
    nearby.iter().map(|one| format!("cheaper: {}\n", render::plain(&one.text))).collect()
}

fn preview_text(preview: &ReclaimPreview, style: Style) -> String {
    let mut fields = vec![
        ("would take", Cell::text(format!("{} × {}", preview.units, preview.kind))),
        ("by", Cell::text(render::instant(preview.by.0))),
    ];
    fields.extend(of_plan(&preview.plan));
    let tables = [Table::of_fields(fields), victims(&preview.plan), machines(&preview.plan)];
    let mut text = tables.map(|table| table.render(style)).join("\n");
    text.push_str(&cheaper(&preview.cheaper));
    text
}

fn text(reclaim: &Reclaim, style: Style) -> String {
    let mut fields = vec![
        ("reclaim", Cell::text(reclaim.id.as_str())),
        ("status", Cell::state(reclaim.status.as_str())),
        ("capacity", Cell::text(format!("{} × {}", reclaim.units, reclaim.kind))),
        ("by", Cell::text(render::instant(reclaim.by.0))),
        ("held until", Cell::text(reclaim.until.map_or("it is cancelled".to_owned(), |until| render::instant(until.0)))),
        ("site", Cell::text(reclaim.site.as_ref().map_or(NOTHING, SiteId::as_str))),
        ("there", Cell::text(there(reclaim.there, reclaim.lost, reclaim.plan.devices.len()))),
    ];
    fields.extend(of_plan(&reclaim.plan));
    [Table::of_fields(fields), victims(&reclaim.plan), machines(&reclaim.plan)].map(|table| table.render(style)).join("\n")
}

/// How much of a need is there, and whether it can be met at all.
fn there(there: u32, lost: u32, devices: impl Display) -> String {
    if lost == 0 { format!("{there} of {devices}") } else { format!("{there} of {devices}, {lost} lost") }
}

fn table(reclaims: &[ReclaimSummary]) -> Table {
    let rows = reclaims.iter().map(|reclaim| {
        [
            Cell::text(reclaim.id.as_str()),
            Cell::state(reclaim.status.as_str()),
            Cell::number(reclaim.units),
            Cell::text(&reclaim.kind),
            Cell::text(render::instant(reclaim.by.0)),
            Cell::text(render::rfc3339(reclaim.until)),
            Cell::number(there(reclaim.there, reclaim.lost, reclaim.devices)),
            Cell::number(reclaim.victims),
            Cell::number(amounts(&reclaim.owed)),
        ]
    });
    let titles = ["reclaim", "status", "units", "kind", "by", "until", "there", "leases", "owed"];
    Table::new(titles, "nothing was taken back").rows(rows)
}
