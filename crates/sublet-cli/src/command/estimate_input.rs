//! What `sublet estimate` and `sublet demand` read: demand as rows, as Slurm's accounting or as what Prometheus recorded of
//! Kubernetes, and the jobs of customers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use sublet_api::time::Rfc3339;
use sublet_capacity::estimate::csv;
use sublet_capacity::estimate::demand::Demand;
use sublet_capacity::estimate::jobs::{self, Job};
use sublet_capacity::estimate::prometheus;
use sublet_capacity::estimate::sacct::{self, Clock, PoolBy, Reading, Unit};
use sublet_core::error::{Error, ErrorCode, Result};

use crate::Context;

/// What a file of demand may be.
const DEMAND: &str =
    "give rows t_s,capacity_gpus,in_use_gpus,queued_gpus,valid, what sacct -D -X -P prints, or what Prometheus answered";
/// Largest file, in bytes, unpacked.
const FILE_MAX_BYTES: u64 = 1 << 30;

/// What a unit of the accounting is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum UnitName {
    Gpu,
    Node,
    Cpu,
}

/// What a pool of the accounting is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum PoolName {
    Partition,
    Account,
    None,
}

/// How the accounting of Slurm is read.
#[derive(Args, Debug)]
pub(super) struct AccountingArgs {
    /// Units that there are, or POOL=N for each pool of the accounting; else the most that was ever in use
    #[arg(long, value_name = "N", help_heading = "Reading sacct")]
    capacity: Vec<String>,
    /// What is counted [default: gpu]
    #[arg(long, value_name = "UNIT", help_heading = "Reading sacct")]
    unit: Option<UnitName>,
    /// Whose units replace each other [default: partition]
    #[arg(long, value_name = "COLUMN", help_heading = "Reading sacct")]
    pool_by: Option<PoolName>,
    /// Where the times are of, as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", help_heading = "Reading sacct")]
    time_zone: Option<String>,
    /// What sacct had as -S, if the jobs since then are to be used to the first second; of rows that are imported, when
    /// their second 0 was
    #[arg(long, value_name = "TIME", help_heading = "Reading sacct")]
    from: Option<String>,
    /// What sacct had as -E, likewise
    #[arg(long, value_name = "TIME", help_heading = "Reading sacct")]
    until: Option<String>,
    /// When nothing was known or everything was down, in all pools: seconds of the file, or times
    #[arg(long, value_name = "FROM/UNTIL")]
    outage: Vec<String>,
}

/// What is to be replayed, and what an outside scorer has to know of how it was read.
pub(super) struct Found {
    pub(super) demand: Demand,
    pub(super) head: Value,
}

/// The jobs of customers.
#[derive(Args, Debug)]
pub(super) struct JobArgs {
    /// Rows of `arrival_s,gpus,duration_s[,patience_s]`: who would buy, instead of unlimited demand
    #[arg(long, value_name = "FILE")]
    jobs: Option<PathBuf>,
    /// How often these jobs save their work; never if it is not said
    #[arg(long, value_name = "N", requires = "jobs", value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    checkpoint_seconds: Option<u32>,
}

impl AccountingArgs {
    /// The demand of a file, on its own clock.
    pub(super) fn read(&self, path: &Path, context: &mut Context<'_>) -> Result<Found> {
        let text = text_of(path, DEMAND, context)?;
        if !is_accounting(&text) {
            self.refuse_for_rows(self.from.is_some())?;
        }
        let found = self.parse(&text, context)?;
        self.with_outages(found, context)
    }

    /// The demand of a file, in seconds since 1970; of rows, `--from` says when their second 0 was.
    pub(super) fn read_history(&self, path: &Path, context: &mut Context<'_>) -> Result<Demand> {
        let text = text_of(path, DEMAND, context)?;
        let mut found = self.parse(&text, context)?;
        if !is_accounting(&text) {
            self.refuse_for_rows(self.from.is_some() && prometheus::is_answer(&text))?;
            let from = self.from.as_ref().map(|from| from.parse::<Rfc3339>()).transpose()?;
            found.demand = found.demand.shifted(from.map_or(0, |from| from.0.seconds()));
        }
        Ok(self.with_outages(found, context)?.demand)
    }

    fn with_outages(&self, found: Found, context: &mut Context<'_>) -> Result<Found> {
        let Found { mut demand, mut head } = found;
        let clock = Clock::new(self.time_zone.as_deref().unwrap_or("UTC"))?;
        let mut outages = Vec::new();
        for text in &self.outage {
            let (from_s, until_s) = span(text, &clock)?;
            within(text, (from_s, until_s), &demand, context)?;
            demand = demand.with_outage(from_s, until_s);
            outages.push([from_s, until_s]);
        }
        head["outages"] = json!(outages);
        Ok(Found { demand, head })
    }

    fn parse(&self, text: &str, context: &mut Context<'_>) -> Result<Found> {
        if prometheus::is_answer(text) {
            let recorded = prometheus::parse(text)?;
            note_all(&recorded.remarks, context)?;
            return Ok(Found { demand: recorded.demand, head: json!({ "recording": { "step_seconds": recorded.step_s } }) });
        }
        if !sacct::is_sacct(text) {
            return Ok(Found { demand: csv::parse(text)?, head: json!({}) });
        }
        let reading = self.reading()?;
        let accounting = sacct::parse(text, &reading)?;
        note_all(&accounting.remarks, context)?;
        let how = json!({
            "unit": reading.unit.as_str(),
            "pool_by": reading.pool_by.as_str(),
            "time_zone": reading.clock.name(),
            "from_s": reading.from_s,
            "until_s": reading.until_s,
            "capacity": reading.capacity,
            "capacities": reading.capacities,
        });
        Ok(Found { demand: accounting.demand, head: json!({ "accounting": how }) })
    }

    /// `from` says whether `--from` says nothing of this file.
    fn refuse_for_rows(&self, from: bool) -> Result<()> {
        let given = [
            ("--capacity", !self.capacity.is_empty()),
            ("--unit", self.unit.is_some()),
            ("--pool-by", self.pool_by.is_some()),
            ("--time-zone", self.time_zone.is_some()),
            ("--from", from),
            ("--until", self.until.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Error::new(ErrorCode::Usage, format!("{name} is about what sacct prints, and the file is not that"))
                    .alternative(format!("leave {name} out: the file says it itself"))
                    .alternative("give the text of sacct -D -X -P with its heading"))
            }
        }
    }

    fn reading(&self) -> Result<Reading> {
        let clock = Clock::new(self.time_zone.as_deref().unwrap_or("UTC"))?;
        let mut capacity = None;
        let mut capacities = BTreeMap::new();
        for text in &self.capacity {
            let (pool, number) = text.rsplit_once('=').map_or((None, text.as_str()), |(pool, number)| (Some(pool), number));
            let units = number.parse::<u32>().ok().filter(|units| *units <= csv::UNITS_MAX).ok_or_else(|| {
                Error::new(ErrorCode::Usage, format!("--capacity {text} is no number of units"))
                    .alternative("give --capacity 512, or --capacity POOL=512 for each pool")
            })?;
            match pool {
                None => capacity = Some(units),
                Some(pool) => {
                    capacities.insert(pool.to_owned(), units);
                }
            }
        }
        let instant = |text: &Option<String>| text.as_ref().map(|text| clock.seconds(text)).transpose();
        Ok(Reading {
            unit: match self.unit {
                None | Some(UnitName::Gpu) => Unit::Gpu,
                Some(UnitName::Node) => Unit::Node,
                Some(UnitName::Cpu) => Unit::Cpu,
            },
            pool_by: match self.pool_by {
                None | Some(PoolName::Partition) => PoolBy::Partition,
                Some(PoolName::Account) => PoolBy::Account,
                Some(PoolName::None) => PoolBy::Nothing,
            },
            from_s: instant(&self.from)?,
            until_s: instant(&self.until)?,
            clock,
            capacity,
            capacities,
        })
    }
}

/// Whatever Slurm may have printed, JSON among it.
fn is_accounting(text: &str) -> bool {
    sacct::is_sacct(text) && !prometheus::is_answer(text)
}

fn note_all(remarks: &[String], context: &mut Context<'_>) -> Result<()> {
    remarks.iter().try_for_each(|remark| context.note(&format!("note: {remark}")))
}

impl JobArgs {
    pub(super) fn checkpoint_s(&self) -> Option<i64> {
        self.checkpoint_seconds.map(i64::from)
    }

    /// The jobs that come while the demand is known, in order.
    pub(super) fn read(&self, demand: &Demand, context: &mut Context<'_>) -> Result<Option<Vec<Job>>> {
        let Some(path) = &self.jobs else { return Ok(None) };
        let start_s = demand.end_s - demand.span_s();
        let found = jobs::parse(&text_of(path, "give rows arrival_s,gpus,duration_s", context)?)?.on_clock(start_s);
        if found.rounded > 0 {
            context.note(&format!("note: {} jobs asked for a part of a unit and get a whole one", found.rounded))?;
        }
        let all = found.jobs.len();
        let jobs: Vec<Job> = found.jobs.into_iter().filter(|job| (start_s..demand.end_s).contains(&job.arrival_s)).collect();
        if jobs.is_empty() {
            return Err(Error::new(
                ErrorCode::Usage,
                format!("no job comes from {start_s} to {}, where demand is known", demand.end_s),
            )
            .alternative("let arrival_s begin at 0: then it counts from the first row of the demand")
            .alternative("give both files on the same clock"));
        }
        let most = demand.pools.iter().flat_map(|pool| &pool.steps).map(|step| step.capacity).max().unwrap_or(0);
        let large = jobs.iter().filter(|job| job.units > most).count();
        if large > 0 {
            context.note(&format!("note: {large} jobs want more than the {most} units that there ever are, and never run"))?;
        }
        if jobs.len() < all {
            let note = format!("note: {} of {all} jobs come before or behind the demand and are left out", all - jobs.len());
            context.note(&note)?;
        }
        Ok(Some(jobs))
    }
}

/// Whether an outage meets the history, which a slip of the year or of the zone does not.
fn within(text: &str, (from_s, until_s): (i64, i64), demand: &Demand, context: &mut Context<'_>) -> Result<()> {
    let (first_s, end_s) = (demand.end_s - demand.span_s(), demand.end_s);
    let whole = format!("which is from {} to {}", shown(first_s), shown(end_s));
    if until_s <= first_s || end_s <= from_s {
        return Err(Error::new(ErrorCode::Usage, format!("--outage {text} meets no part of the history, {whole}"))
            .alternative("give times of --time-zone, or seconds on the clock of the file")
            .alternative("leave it out"));
    }
    if from_s < first_s || end_s < until_s {
        context.note(&format!("note: --outage {text} is only partly in the history, {whole}"))?;
    }
    Ok(())
}

/// Seconds, and what they are if they are of a calendar.
fn shown(at_s: i64) -> String {
    match Clock::utc(at_s) {
        Some(time) => format!("{at_s} ({time})"),
        None => at_s.to_string(),
    }
}

/// The two instants of `FROM/UNTIL`.
fn span(text: &str, clock: &Clock) -> Result<(i64, i64)> {
    let remedy = "give --outage 2026-01-03T04:00:00/2026-01-03T09:30:00, or two numbers on the clock of the file";
    let wrong = |message: String| Error::new(ErrorCode::Usage, message).alternative(remedy);
    let (from, until) = text.split_once('/').ok_or_else(|| wrong(format!("--outage {text} is no span of time")))?;
    let (from_s, until_s) = (clock.seconds(from)?, clock.seconds(until)?);
    if from_s < until_s { Ok((from_s, until_s)) } else { Err(wrong(format!("--outage {text} ends before it begins"))) }
}

/// The text of a file, or of the standard input if the path is `-`.
pub(super) fn text_of(path: &Path, remedy: &str, context: &mut Context<'_>) -> Result<String> {
    let is_input = path.as_os_str() == "-";
    let name = if is_input { "the standard input".to_owned() } else { path.display().to_string() };
    let unreadable = |message: String| {
        Error::new(ErrorCode::Usage, format!("{name}: {message}")).alternative(format!("{remedy}, as text or packed with gzip"))
    };
    let reader: Box<dyn Read + '_> = if is_input {
        Box::new(&mut *context.input)
    } else {
        let file = File::open(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
        let is_packed = path.extension().is_some_and(|extension| extension == "gz");
        if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) }
    };
    let mut bytes = Vec::new();
    let read = reader.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_MAX_BYTES {
        return Err(unreadable(format!("is larger than {FILE_MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].split(|byte| *byte == b'\n').count();
        unreadable(format!("line {line}: is not text in UTF-8"))
    })
}
