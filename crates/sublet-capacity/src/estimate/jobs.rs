//! Reads the jobs of customers: `arrival_s,gpus,duration_s[,patience_s]`, other columns are passed over.
//!
//! Arrivals are on the clock of the demand, or count from its first instant if the first is 0.

use sublet_core::error::Result;

use super::csv::{UNITS_MAX, shown, wrong};

/// Most jobs of a file.
const JOBS_MAX: usize = 10_000_000;
/// Longest time of a job, in seconds: a hundred years.
const SECONDS_MAX: i64 = 3_155_760_000;
const HEADING: &str = "begin with a heading such as arrival_s,gpus,duration_s; patience_s may be added";

/// What a customer wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job {
    pub arrival_s: i64,
    /// All at once, or none.
    pub units: u32,
    /// Work, in seconds on all its units.
    pub duration_s: i64,
    /// How long it waits before it goes elsewhere; forever if nothing is said.
    pub patience_s: Option<i64>,
}

/// The jobs of a file, in the order of their arrival.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Jobs {
    pub jobs: Vec<Job>,
    /// Jobs that asked for a part of a unit and were given a whole one.
    pub rounded: usize,
}

impl Jobs {
    /// The jobs on the clock of a demand that begins then.
    #[must_use]
    pub fn on_clock(mut self, start_s: i64) -> Self {
        if self.jobs.first().is_some_and(|first| first.arrival_s == 0) {
            self.jobs.iter_mut().for_each(|job| job.arrival_s += start_s);
        }
        self
    }
}

/// # Errors
/// [`sublet_core::error::ErrorCode::InvalidRequest`] with the number of the first line that is wrong.
pub fn parse(text: &str) -> Result<Jobs> {
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    let names: Vec<&str> = lines.next().map_or("", |(_, heading)| heading).split(',').map(str::trim).collect();
    let find = |name: &str| names.iter().position(|found| *found == name);
    let need = |name: &str| find(name).ok_or_else(|| wrong(1, &format!("the column {name} is missing"), HEADING));
    let (arrival, gpus, duration, patience) = (need("arrival_s")?, need("gpus")?, need("duration_s")?, find("patience_s"));
    let mut found = Jobs { jobs: Vec::new(), rounded: 0 };
    for (place, text) in lines {
        let line = place + 1;
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        if fields.len() != names.len() {
            let message = format!("there are {} fields where the heading has {}", fields.len(), names.len());
            return Err(wrong(line, &message, "give each row one field for each column, without commas in names"));
        }
        if found.jobs.len() == JOBS_MAX {
            return Err(wrong(line, &format!("there are more than {JOBS_MAX} jobs"), "give each file at most that many"));
        }
        let (units, is_rounded) = units(line, fields[gpus])?;
        found.rounded += usize::from(is_rounded);
        let patience = patience.map(|place| fields[place]).filter(|text| !text.is_empty());
        found.jobs.push(Job {
            arrival_s: seconds(line, "arrival_s", fields[arrival])?,
            units,
            duration_s: seconds(line, "duration_s", fields[duration])?.max(1),
            patience_s: patience.map(|text| seconds(line, "patience_s", text)).transpose()?,
        });
    }
    if found.jobs.is_empty() {
        return Err(wrong(2, "there are no jobs", "give at least one row below the heading, such as 0,8,3600"));
    }
    found.jobs.sort_by_key(|job| job.arrival_s);
    Ok(found)
}

fn seconds(line: usize, name: &str, text: &str) -> Result<i64> {
    text.parse().ok().filter(|seconds| (0..=SECONDS_MAX).contains(seconds)).ok_or_else(|| {
        wrong(line, &format!("{name} is {}, which is no time", shown(text)), &format!("give whole seconds from 0 to {SECONDS_MAX}"))
    })
}

/// Units, and whether a part of one was made a whole one.
fn units(line: usize, text: &str) -> Result<(u32, bool)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
    let is_part = part.bytes().any(|byte| byte != b'0');
    let units = whole.parse::<u32>().ok().filter(|units| is_number && *units < UNITS_MAX).map(|units| units + u32::from(is_part));
    let remedy = format!("give a number above 0 and at most {UNITS_MAX}; a part of a unit is sold as a whole one");
    let units = units.filter(|units| *units > 0);
    units.map(|units| (units, is_part)).ok_or_else(|| wrong(line, &format!("gpus is {}", shown(text)), &remedy))
}
