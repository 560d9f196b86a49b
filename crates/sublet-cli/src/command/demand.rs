//! `sublet demand`.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use sublet_api::capacity::{Capacity, PoolCapacity};
use sublet_api::client::Client;
use sublet_api::demand::{DemandQuery, DemandStep, ImportDemand, ReportDemand};
use sublet_api::time::Rfc3339;
use sublet_capacity::estimate::demand::Step;
use sublet_capacity::kubernetes;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::SiteId;

use super::estimate_input::{AccountingArgs, text_of};
use crate::Context;
use crate::render;

/// Rows that travel together.
const ROWS_PER_CALL: usize = 2_000;
/// Most rows of a pool that are read.
const ROWS_MAX: usize = 20_000_000;

/// What the owner's own work demands.
#[derive(Subcommand, Debug)]
pub enum DemandCommand {
    /// Say what the owner uses of a pool beside Sublet; it is not sold
    Report(ReportArgs),
    /// Add history from before the pool was observed, from a file that `sublet estimate` reads
    Import(ImportArgs),
    /// Print a pool's recorded demand as a file that `sublet estimate` reads
    List {
        #[command(flatten)]
        pool: PoolArgs,
        /// Rows from this instant on
        #[arg(long, value_name = "INSTANT")]
        since: Option<Rfc3339>,
    },
}

/// Devices of one kind at one site.
#[derive(Args, Clone, Debug)]
pub struct PoolArgs {
    /// The kind of device; may be left out if there is one pool
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Where they are; may be left out if the kind is at one site
    #[arg(long, value_name = "SITE")]
    pub site: Option<SiteId>,
}

#[derive(Args, Debug)]
pub struct ReportArgs {
    #[command(flatten)]
    pool: PoolArgs,
    /// Units that are used outside, those on cordoned devices among them
    #[arg(long, value_name = "N", required_unless_present = "kubernetes")]
    in_use: Option<u32>,
    /// Units that work outside waits for
    #[arg(long, value_name = "N", default_value_t = 0)]
    queued: u32,
    /// Read both from what `kubectl get pods,nodes --all-namespaces -o json` prints; - is the standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["in_use", "queued", "unknown"])]
    kubernetes: Option<PathBuf>,
    /// Which resource of the nodes is the pool's, such as nvidia.com/gpu; the only one that is known if left out
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    resource: Option<String>,
    /// Nothing is known now, as in an outage
    #[arg(long)]
    unknown: bool,
    /// When it was so; now if left out
    #[arg(long, value_name = "INSTANT")]
    at: Option<Rfc3339>,
    /// Without another report nothing is known after so many seconds
    #[arg(long, value_name = "SECONDS")]
    good_for: Option<u64>,
}

#[derive(Args, Debug)]
pub struct ImportArgs {
    /// Any file that `sublet estimate` reads: rows of `t_s,[pool,]capacity_gpus,in_use_gpus,queued_gpus,valid`, what `sacct
    /// -D -X -P` prints, or what Prometheus answered; may be packed with gzip
    file: PathBuf,
    #[command(flatten)]
    pool: PoolArgs,
    /// Take all pools of the file as one
    #[arg(long)]
    merge_pools: bool,
    #[command(flatten)]
    accounting: AccountingArgs,
}

impl DemandCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Report(args) => args.run(context, &client),
            Self::Import(args) => args.run(context, &client),
            Self::List { pool, since } => {
                let (kind, found) = pool.find(&client.capacity()?.data)?;
                let since = since.map_or(0, |since| since.0.seconds());
                let steps = history(&client, (&kind, &found.site), since)?;
                if context.json {
                    return context.print_json(&steps);
                }
                let mut text = "t_s,pool,capacity_gpus,in_use_gpus,queued_gpus,valid\n".to_owned();
                for DemandStep { at, capacity, in_use, queued, valid } in steps {
                    let _ = writeln!(text, "{at},{kind}@{},{capacity},{in_use},{queued},{}", found.site, u8::from(valid));
                }
                context.print(&text)
            }
        }
    }
}

impl ReportArgs {
    fn run(self, context: &mut Context<'_>, client: &Client) -> Result<()> {
        let (kind, pool) = self.pool.find(&client.capacity()?.data)?;
        let (in_use, queued) = match &self.kubernetes {
            None => (self.in_use.unwrap_or_default(), self.queued),
            Some(path) => {
                let text = text_of(path, "give what kubectl get pods,nodes --all-namespaces -o json prints", context)?;
                let seen = kubernetes::observe(&text, self.resource.as_deref())?;
                for remark in &seen.remarks {
                    context.note(&format!("note: {remark}"))?;
                }
                if seen.capacity != pool.owned {
                    context.note(&format!(
                        "note: the nodes have {} of {}, and the pool has {} units",
                        seen.capacity, seen.resource, pool.owned
                    ))?;
                }
                (seen.in_use, seen.queued)
            }
        };
        let body = ReportDemand {
            device_kind: kind,
            site: pool.site,
            at: self.at,
            in_use,
            queued,
            valid: !self.unknown,
            good_for_seconds: self.good_for,
        };
        let said = client.report_demand(&body)?;
        if context.json {
            return context.print_json(&said);
        }
        let (kind, site) = (render::plain(&said.device_kind), &said.site);
        context.print(&format!("{} units of {kind} at {site} are used outside\n", said.in_use))
    }
}

impl ImportArgs {
    fn run(self, context: &mut Context<'_>, client: &Client) -> Result<()> {
        let (kind, pool) = self.pool.find(&client.capacity()?.data)?;
        let demand = self.accounting.read_history(&self.file, context)?;
        let demand = if self.merge_pools { demand.merged() } else { demand };
        let [series] = demand.pools.as_slice() else {
            let names: Vec<&str> = demand.pools.iter().map(|pool| pool.name.as_str()).take(10).collect();
            return Err(Error::new(ErrorCode::Usage, format!("the file has several pools: {}", names.join(", ")))
                .alternative("give --merge-pools, or a file of one pool"));
        };
        let mut steps: Vec<DemandStep> = series.steps.iter().map(to_wire).collect();
        // What is between the file and the first observation is not known.
        let is_before = pool.observed_from.is_none_or(|observed| demand.end_s < observed.0.seconds());
        if let Some(last) = steps.last().filter(|_| is_before) {
            steps.push(DemandStep { at: demand.end_s, in_use: 0, queued: 0, valid: false, ..last.clone() });
        }
        let mut added = 0;
        for rows in steps.chunks(ROWS_PER_CALL) {
            let body = ImportDemand { device_kind: kind.clone(), site: pool.site.clone(), steps: rows.to_vec() };
            added += client.import_demand(&body)?.added;
        }
        if context.json {
            return context.print_json(&serde_json::json!({ "object": "demand_import", "added": added }));
        }
        context.print(&format!("{added} rows were added\n"))
    }
}

fn to_wire(step: &Step) -> DemandStep {
    let Step { at_s, capacity, in_use, queued, valid } = *step;
    DemandStep { at: at_s, capacity, in_use, queued, valid }
}

/// The recorded demand of a pool, oldest first.
pub(super) fn history(client: &Client, (kind, site): (&str, &SiteId), since: i64) -> Result<Vec<DemandStep>> {
    let mut steps = Vec::new();
    let mut next = Some(since);
    while let Some(since) = next.filter(|_| steps.len() < ROWS_MAX) {
        let query = DemandQuery { device_kind: kind.to_owned(), site: site.clone(), since: Some(since), limit: None };
        let page = client.demand(&query)?;
        steps.extend(page.steps);
        next = page.next_since;
    }
    Ok(steps)
}

impl PoolArgs {
    /// The pool that is meant, with the name of its kind.
    pub(super) fn find(&self, capacity: &[Capacity]) -> Result<(String, PoolCapacity)> {
        let all = capacity.iter().flat_map(|kind| kind.pools.iter().map(|pool| (kind.device_kind.clone(), pool.clone())));
        let is_meant = |(kind, pool): &(String, PoolCapacity)| {
            self.kind.as_ref().is_none_or(|wanted| wanted == kind) && self.site.as_ref().is_none_or(|wanted| *wanted == pool.site)
        };
        let (mut meant, others): (Vec<_>, Vec<_>) = all.partition(is_meant);
        match (meant.pop(), meant.is_empty()) {
            (Some(pool), true) => Ok(pool),
            (found, _) => {
                let named = meant.iter().chain(&found).chain(&others);
                let named: Vec<String> = named.map(|(kind, pool)| format!("--kind {kind} --site {}", pool.site)).collect();
                let message = if found.is_some() { "there are several pools" } else { "there is no such pool" };
                Err(Error::new(ErrorCode::Usage, message.to_owned()).alternative(format!("name one: {}", named.join("; "))))
            }
        }
    }
}
