//! `sublet estimate`: what an owner's history could have earned. Needs no cloud.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use flate2::read::MultiGzDecoder;
use serde::Serialize;
use serde_json::{Map, Number, Value, json};
use sublet_capacity::estimate::demand::Demand;
use sublet_capacity::estimate::leases::{End, EndKind};
use sublet_capacity::estimate::replay::Moment;
use sublet_capacity::estimate::score::{Millionths, Named, Score, bound_of, run, score};
use sublet_capacity::estimate::terms::Terms;
use sublet_capacity::estimate::{csv, demand};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::notice::NoticeClass;

use super::estimate_chart::Week;
use crate::Context;
use crate::render::{Cell, NOTHING, Table};

/// Largest demand file, in bytes, unpacked.
const DEMAND_MAX_BYTES: u64 = 1 << 30;
/// Rows from which on it is said how far a replay is.
const ROWS_PER_NOTE: usize = 200_000;
/// Longest time to kill or clean, in seconds: a day.
const SECONDS_MAX: i64 = 86_400;

/// Which history, sold by which rule.
#[derive(Args, Debug)]
pub struct EstimateArgs {
    /// Rows of `t_s,[pool,]capacity_gpus,in_use_gpus,queued_gpus,valid`; may be packed with gzip
    #[arg(long, value_name = "FILE")]
    demand: PathBuf,
    /// default, all (with rules of thumb to compare with), parts (default without each part), or one name
    #[arg(long, value_name = "POLICY", default_value = "default")]
    policy: String,
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
    /// Draw the last week, by notice class, as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

/// The figures of one policy.
#[derive(Serialize)]
pub(super) struct Figures {
    policy: &'static str,
    sold_share: Number,
    value_share_of_bound: Number,
    collision_ppm: Number,
    collision_episodes_per_day: Number,
    evictions_per_day: Number,
    sold_hours_per_eviction: Option<Number>,
    broken_promises: Map<String, Value>,
    compensation: Number,
    revenue: Number,
    idle_hours: Number,
    bound_hours: Number,
}

impl EstimateArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let policies = Named::chosen(&self.policy)?;
        if policies.len() > 1 && (self.schedule.is_some() || self.chart.is_some()) {
            return Err(Error::new(ErrorCode::Usage, "a schedule or chart is of one policy".to_owned())
                .alternative("name the policy, such as --policy default"));
        }
        let demand = read(&self.demand)?;
        let demand = if self.merge_pools { demand.merged() } else { demand };
        let terms = Terms { kill_s: self.kill_seconds, reclaim_s: self.reclaim_seconds, ..Terms::default() };
        let rows: usize = demand.pools.iter().map(|pool| pool.steps.len()).sum();
        let bound = bound_of(&demand, &terms);
        let mut scores = Vec::new();
        for (place, (name, policy)) in policies.iter().enumerate() {
            if rows >= ROWS_PER_NOTE {
                context.note(&format!("{} of {}: {name}, {rows} rows", place + 1, policies.len()))?;
            }
            let tally = self.replay(&demand, &terms, (name, *policy))?;
            scores.push((*name, score(&tally, &bound)));
        }
        if context.json {
            let figures = scores.iter().map(|(name, score)| figures(name, score)).collect::<Result<Vec<_>>>()?;
            return context.print_json(&figures);
        }
        let text = table(&scores).render(context.style);
        context.print(&text)?;
        if let Some((_, score)) = scores.first() {
            let hours = |hours: Millionths| shortened(hours, 1);
            context.note(&format!(
                "{} unit-hours were idle; who knew the future would have earned {} hours at list price",
                hours(score.idle_hours),
                hours(score.bound_hours)
            ))?;
        }
        Ok(())
    }

    fn replay(
        &self,
        demand: &Demand,
        terms: &Terms,
        (name, policy): (&'static str, Named),
    ) -> Result<sublet_capacity::estimate::replay::Tally> {
        let mut schedule = match &self.schedule {
            Some(path) => Some(Schedule::create(path, &self.head(name, demand, terms))?),
            None => None,
        };
        let mut week = self.chart.as_ref().map(|_| Week::new(demand));
        let tally = run(demand, terms, policy, &mut |pool, moment| {
            if let Some(schedule) = &mut schedule {
                schedule.write(&demand.pools[pool].name, moment);
            }
            if let Some(week) = &mut week {
                week.add(moment);
            }
        });
        if let Some(schedule) = schedule {
            schedule.finish()?;
        }
        if let (Some(path), Some(week)) = (&self.chart, week) {
            std::fs::write(path, week.draw(name)).map_err(|error| unwritable(path, &error))?;
        }
        Ok(tally)
    }

    fn head(&self, name: &str, demand: &Demand, terms: &Terms) -> Value {
        json!({
            "schedule": 1,
            "policy": name,
            "end_s": demand.end_s,
            "kill_seconds": terms.kill_s,
            "reclaim_seconds": terms.reclaim_s,
            "prices_ppm": terms.prices_ppm,
            "classes": NoticeClass::ALL.map(NoticeClass::as_str),
            "merged": self.merge_pools,
        })
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
        if is_same && moment.ends.is_empty() || self.failed.is_some() {
            return;
        }
        let mut row = json!({"t_s": moment.at_s, "pool": pool, "running": moment.running});
        if !moment.ends.is_empty() {
            row["ended"] = moment.ends.iter().map(ended).collect();
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

pub(super) fn read(path: &Path) -> Result<demand::Demand> {
    let unreadable = |message: String| {
        Error::new(ErrorCode::Usage, format!("{}: {message}", path.display()))
            .alternative("give a file of rows t_s,capacity_gpus,in_use_gpus,queued_gpus,valid, as text or packed with gzip")
    };
    let file = File::open(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    let mut text = String::new();
    let is_packed = path.extension().is_some_and(|extension| extension == "gz");
    let mut reader: Box<dyn Read> = if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    reader
        .by_ref()
        .take(DEMAND_MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(format!("cannot be read as text: {error}")))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > DEMAND_MAX_BYTES {
        return Err(unreadable(format!("is larger than {DEMAND_MAX_BYTES} bytes")));
    }
    csv::parse(&text)
}

fn number(value: Millionths) -> Result<Number> {
    value.to_string().parse().map_err(|error: serde_json::Error| Error::internal(error.to_string()))
}

pub(super) fn figures(name: &'static str, score: &Score) -> Result<Figures> {
    let broken = NoticeClass::ALL.into_iter().zip(score.broken_promises);
    Ok(Figures {
        policy: name,
        sold_share: number(score.sold_share)?,
        value_share_of_bound: number(score.value_share_of_bound)?,
        collision_ppm: number(score.collision_ppm)?,
        collision_episodes_per_day: number(score.collision_episodes_per_day)?,
        evictions_per_day: number(score.evictions_per_day)?,
        sold_hours_per_eviction: score.sold_hours_per_eviction.map(number).transpose()?,
        broken_promises: broken.map(|(class, units)| (class.as_str().to_owned(), Value::from(units))).collect(),
        compensation: number(score.compensation)?,
        revenue: number(score.revenue)?,
        idle_hours: number(score.idle_hours)?,
        bound_hours: number(score.bound_hours)?,
    })
}

/// So many decimals, cut off.
fn shortened(value: Millionths, decimals: usize) -> String {
    let text = value.to_string();
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    if decimals == 0 { whole.to_owned() } else { format!("{whole}.{}", &part[..decimals.min(part.len())]) }
}

pub(super) fn table(scores: &[(&'static str, Score)]) -> Table {
    let rows = scores.iter().map(|(name, score)| {
        let broken: Vec<String> = NoticeClass::ALL
            .into_iter()
            .zip(score.broken_promises)
            .filter(|(_, units)| *units > 0)
            .map(|(class, units)| format!("{class} {units}"))
            .collect();
        [
            Cell::text(name),
            Cell::number(shortened(score.sold_share, 3)),
            Cell::number(shortened(score.value_share_of_bound, 3)),
            Cell::number(shortened(score.collision_ppm, 1)),
            Cell::number(shortened(score.evictions_per_day, 1)),
            Cell::number(score.sold_hours_per_eviction.map_or_else(|| NOTHING.to_owned(), |hours| shortened(hours, 1))),
            Cell::number(shortened(score.revenue, 1)),
            Cell::number(shortened(score.compensation, 1)),
            Cell::text(if broken.is_empty() { NOTHING.to_owned() } else { broken.join(", ") }),
        ]
    });
    Table::new(["policy", "sold", "of bound", "collisions ppm", "evictions/day", "h/eviction", "revenue h", "owed h", "broken"], "")
        .rows(rows)
}
