//! `sublet policy`.

use clap::{Args, Subcommand};
use sublet_api::client::Client;
use sublet_api::demand::{DemandStep, SellingPolicy, SetSellingPolicy};
use sublet_capacity::ReserveRule;
use sublet_capacity::estimate::demand::{Demand, Pool, Step};
use sublet_capacity::estimate::follow::Live;
use sublet_capacity::estimate::replay::replay;
use sublet_capacity::estimate::score::{Named, bound_of, run, score};
use sublet_capacity::estimate::terms::Terms;
use sublet_core::error::{Error, ErrorCode, Result};

use super::demand::{PoolArgs, history};
use super::estimate_figures::{Reached, figures, table as figures_table};
use crate::Context;
use crate::render::{Cell, Table};

/// Longest time to kill or clean, in seconds: a day.
const SECONDS_MAX: i64 = 86_400;

/// By what is sold to customers.
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Show the mode and the reserve rule
    Show,
    /// Change the mode or the reserve rule; what is left out stays
    Set {
        /// static (the reserve rule), shadow (the same; curves are shown), learned (the lesser of rule and curve), nothing
        mode: Option<String>,
        #[command(flatten)]
        reserve: ReserveArgs,
    },
    /// Replay a pool's recorded demand as it would be sold; nothing is changed
    Simulate(SimulateArgs),
}

#[derive(Args, Clone, Copy, Debug)]
pub struct ReserveArgs {
    /// Units of each kind that stay for the owner's teams
    #[arg(long, value_name = "N")]
    reserve_units: Option<u32>,
    /// Thousandths of the healthy units that stay for them, if that is more
    #[arg(long, value_name = "N")]
    reserve_thousandths: Option<u32>,
}

#[derive(Args, Debug)]
pub struct SimulateArgs {
    #[command(flatten)]
    pool: PoolArgs,
    #[command(flatten)]
    reserve: ReserveArgs,
    /// To compare with: all, parts, or a name that `sublet estimate` knows
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    /// Seconds to clean a unit behind each lease
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=SECONDS_MAX))]
    reclaim_seconds: u32,
    /// Seconds to kill a lease that has no notice
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=SECONDS_MAX))]
    kill_seconds: u32,
}

impl PolicyCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Show => context.show(&client.selling_policy()?, table),
            Self::Set { mode, reserve: ReserveArgs { reserve_units, reserve_thousandths } } => {
                let policy = client.set_selling_policy(&SetSellingPolicy { mode, reserve_units, reserve_thousandths })?;
                context.show(&policy, table)
            }
            Self::Simulate(args) => args.run(context, &client),
        }
    }
}

impl SimulateArgs {
    fn run(self, context: &mut Context<'_>, client: &Client) -> Result<()> {
        let compared = self.policy.as_deref().map(Named::chosen).transpose()?.unwrap_or_default();
        let capacity = client.capacity()?.data;
        let (kind, pool) = self.pool.find(&capacity)?;
        let steps = history(client, (&kind, &pool.site), 0)?;
        if steps.is_empty() {
            return Err(Error::new(ErrorCode::NotFound, format!("no demand of {kind} at {} was recorded yet", pool.site))
                .alternative("wait a moment, or import a history with sublet demand import"));
        }
        let in_force = client.selling_policy()?;
        let reserve = ReserveRule {
            minimum_units: self.reserve.reserve_units.unwrap_or(in_force.reserve_units),
            fraction_thousandths: self.reserve.reserve_thousandths.unwrap_or(in_force.reserve_thousandths),
        };
        let end_s = capacity.iter().map(|kind| kind.as_of.0.seconds()).max().unwrap_or(0);
        let demand = Demand { pools: vec![Pool { name: String::new(), steps: steps.iter().map(step).collect() }], end_s };
        let terms = Terms { kill_s: self.kill_seconds, reclaim_s: self.reclaim_seconds, ..Terms::default() };
        let bound = bound_of(&demand, &terms);
        let live = replay(&demand.pools[0], end_s, &terms, &mut Live::new(&terms, reserve), &mut |_| {});
        let mut all = vec![Reached { policy: "learned", score: score(&live, &bound), jobs: None }];
        for (name, named) in compared {
            let tally = run(&demand, &terms, named, &mut |_, _| {});
            all.push(Reached { policy: name, score: score(&tally, &bound), jobs: None });
        }
        if context.json {
            let figures = all.iter().map(figures).collect::<Result<Vec<_>>>()?;
            return context.print_json(&figures);
        }
        let text = figures_table(&all).render(context.style);
        context.print(&text)?;
        let hours = demand.span_s() / 3_600;
        let ReserveRule { minimum_units, fraction_thousandths } = reserve;
        context.note(&format!(
            "{hours} hours of {kind} at {}, with {minimum_units} units or {fraction_thousandths} thousandths in reserve",
            pool.site
        ))
    }
}

fn step(step: &DemandStep) -> Step {
    let DemandStep { at, capacity, in_use, queued, valid } = *step;
    Step { at_s: at, capacity, in_use, queued, valid }
}

fn table(policy: &SellingPolicy) -> Table {
    let row = [Cell::text(&policy.mode), Cell::number(policy.reserve_units), Cell::number(policy.reserve_thousandths)];
    Table::new(["sells by", "reserve units", "reserve thousandths"], "").rows([row])
}
