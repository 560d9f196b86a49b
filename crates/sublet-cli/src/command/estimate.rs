//! `sublet estimate`: what an owner's history could have earned. Needs no cloud.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use sublet_capacity::estimate::demand::Demand;
use sublet_capacity::estimate::finite::Outside;
use sublet_capacity::estimate::jobs::Job;
use sublet_capacity::estimate::leases::{End, EndKind};
use sublet_capacity::estimate::replay::Moment;
use sublet_capacity::estimate::score::{Millionths, Named, bound_of, bound_of_jobs, run, run_jobs, score};
use sublet_capacity::estimate::terms::Terms;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::notice::NoticeClass;

use super::chart::Format;
use super::estimate_chart::Week;
use super::estimate_figures::{Reached, ReachedJobs, figures, job_table, shortened, table};
use super::estimate_input::{AccountingArgs, Found, JobArgs};
use super::estimate_progress::Progress;
use crate::Context;

/// Longest time to kill or clean, in seconds: a day.
const SECONDS_MAX: i64 = 86_400;

/// Which history, sold by which rule.
#[derive(Args, Debug)]
pub struct EstimateArgs {
    /// Rows of `t_s,[pool,]capacity_gpus,in_use_gpus,queued_gpus,valid`, or what `sacct -D -X -P` prints; may be packed with gzip
    #[arg(long, value_name = "FILE")]
    demand: PathBuf,
    #[command(flatten)]
    jobs: JobArgs,
    /// default, all (with rules of thumb to compare with), parts (default without each part), or one name
    #[arg(long, value_name = "POLICY", default_value = "default")]
    policy: String,
    /// Parts of the list price by class, such as n0=.25,n2m=.4; classes left out keep their default
    #[arg(long, value_name = "LIST")]
    prices: Option<String>,
    /// Seconds to clean a unit behind each lease
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=SECONDS_MAX))]
    reclaim_seconds: u32,
    /// Seconds to kill a lease that has no notice, or does not get it
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=SECONDS_MAX))]
    kill_seconds: u32,
    /// Take all pools as one, if every unit can serve every team
    #[arg(long)]
    merge_pools: bool,
    /// Write what was sold and what ended, one JSON object a line
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Draw the last week, by notice class, as .svg or .png
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    #[command(flatten)]
    accounting: AccountingArgs,
}

/// What is replayed.
struct History {
    demand: Demand,
    /// How it was read.
    head: Value,
    jobs: Option<Vec<Job>>,
    terms: Terms,
}

impl EstimateArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let policies = Named::chosen(&self.policy)?;
        if policies.len() > 1 && (self.schedule.is_some() || self.chart.is_some()) {
            return Err(Error::new(ErrorCode::Usage, "a schedule or chart is of one policy".to_owned())
                .alternative("name the policy, such as --policy default"));
        }
        // A wrong name is told before the replay, not behind it.
        self.chart.as_deref().map(Format::of).transpose()?;
        let history = self.history(context)?;
        let bound = bound_of(&history.demand, &history.terms);
        let job_bound = history.jobs.as_ref().map_or(0, |jobs| bound_of_jobs(&history.demand, &history.terms, jobs));
        let mut progress = Progress::new(&history.demand, policies.len(), context.style.live);
        let mut all = Vec::new();
        for (place, named) in policies.iter().enumerate() {
            progress.begin(place, named.0, context);
            let reached = self.replay(&history, *named, &mut |pool, at_s| progress.at(pool, at_s, &mut *context.err));
            let (tally, jobs) = reached.inspect_err(|_| progress.end(&mut *context.err))?;
            let jobs = jobs.map(|counts| ReachedJobs { tally: counts, value: tally.value(), bound: job_bound });
            all.push(Reached { policy: named.0, score: score(&tally, &bound), jobs });
        }
        progress.end(&mut *context.err);
        if context.json {
            let figures = all.iter().map(figures).collect::<Result<Vec<_>>>()?;
            return context.print_json(&figures);
        }
        let text = table(&all).render(context.style);
        context.print(&text)?;
        if history.jobs.is_some() {
            let text = job_table(&all).render(context.style);
            context.print(&format!("\n{text}"))?;
        }
        if let Some(Reached { score, .. }) = all.first() {
            let hours = |hours: Millionths| shortened(hours, 1);
            context.note(&format!(
                "{} unit-hours were idle; who knew the future would have earned {} hours at list price",
                hours(score.idle_hours),
                hours(score.bound_hours)
            ))?;
        }
        Ok(())
    }

    fn history(&self, context: &mut Context<'_>) -> Result<History> {
        let Found { demand, head } = self.accounting.read(&self.demand, context)?;
        let demand = if self.merge_pools { demand.merged() } else { demand };
        let jobs = self.jobs.read(&demand, context)?;
        let terms = Terms { kill_s: self.kill_seconds, reclaim_s: self.reclaim_seconds, ..Terms::default() };
        let terms = self.prices.as_ref().map_or(Ok(terms), |list| terms.with_prices(list))?;
        Ok(History { demand, head, jobs, terms })
    }

    fn replay(
        &self,
        history: &History,
        (name, policy): (&'static str, Named),
        at: &mut dyn FnMut(usize, i64),
    ) -> Result<(sublet_capacity::estimate::replay::Tally, Option<sublet_capacity::estimate::finite::JobTally>)> {
        let History { demand, terms, .. } = history;
        let mut schedule = match &self.schedule {
            Some(path) => Some(Schedule::create(path, &self.head(name, history))?),
            None => None,
        };
        let mut week = self.chart.as_ref().map(|_| Week::new(demand));
        let mut watch = |pool: usize, moment: &Moment<'_>| {
            at(pool, moment.at_s);
            if let Some(schedule) = &mut schedule {
                schedule.write(&demand.pools[pool].name, moment);
            }
            if let Some(week) = &mut week {
                week.add(moment);
            }
        };
        let reached = match &history.jobs {
            None => (run(demand, terms, policy, &mut watch), None),
            Some(jobs) => {
                let outside = Outside { jobs, checkpoint_s: self.jobs.checkpoint_s() };
                let (tally, counts) = run_jobs(demand, terms, (policy, outside), &mut |moment| watch(0, moment))?;
                (tally, Some(counts))
            }
        };
        if let Some(schedule) = schedule {
            schedule.finish()?;
        }
        if let (Some(path), Some(week)) = (&self.chart, week) {
            let bytes = week.draw(name).bytes(Format::of(path)?)?;
            std::fs::write(path, bytes).map_err(|error| unwritable(path, &error))?;
        }
        Ok(reached)
    }

    fn head(&self, name: &str, history: &History) -> Value {
        let terms = &history.terms;
        let mut head = history.head.clone();
        let replayed = json!({
            "schedule": 1,
            "policy": name,
            "end_s": history.demand.end_s,
            "kill_seconds": terms.kill_s,
            "reclaim_seconds": terms.reclaim_s,
            "prices_ppm": terms.prices_ppm,
            "classes": NoticeClass::ALL.map(NoticeClass::as_str),
            "merged": self.merge_pools,
        });
        for (member, value) in replayed.as_object().into_iter().flatten() {
            head[member] = value.clone();
        }
        head
    }
}

/// The schedule's file: the first write that fails is told at the end.
struct Schedule<'a> {
    path: &'a Path,
    file: BufWriter<File>,
    failed: Option<std::io::Error>,
    last: Option<(String, [u32; 6])>,
}

impl<'a> Schedule<'a> {
    fn create(path: &'a Path, head: &Value) -> Result<Self> {
        let mut file = File::create(path).map(BufWriter::new).map_err(|error| unwritable(path, &error))?;
        writeln!(file, "{head}").map_err(|error| unwritable(path, &error))?;
        Ok(Self { path, file, failed: None, last: None })
    }

    /// A line where something changed.
    fn write(&mut self, pool: &str, moment: &Moment<'_>) {
        let is_same = self.last.as_ref().is_some_and(|(last, running)| last == pool && *running == moment.running);
        if is_same && moment.ends.is_empty() && moment.starts.is_empty() || self.failed.is_some() {
            return;
        }
        let mut row = json!({"t_s": moment.at_s, "pool": pool, "running": moment.running});
        if !moment.ends.is_empty() {
            row["ended"] = moment.ends.iter().map(ended).collect();
        }
        if !moment.starts.is_empty() {
            let started = moment.starts.iter().map(|start| json!([start.job, start.class.as_str(), start.units]));
            row["started"] = started.collect();
        }
        self.failed = writeln!(self.file, "{row}").err();
        self.last = Some((pool.to_owned(), moment.running));
    }

    fn finish(mut self) -> Result<()> {
        let written = self.failed.take().map_or_else(|| self.file.flush(), Err);
        written.map_err(|error| unwritable(self.path, &error))
    }
}

/// Class, units, when they began, until when they were promised, when they ended, and how.
fn ended(end: &End) -> Value {
    let kind = match end.kind {
        EndKind::Evicted => "evicted",
        EndKind::Broken => "broken",
        EndKind::Over => "over",
    };
    json!([end.class.as_str(), end.units, end.began_s, end.promised_s, end.at_s, kind])
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorCode::StorageFull, format!("{} cannot be written: {error}", path.display()))
}
