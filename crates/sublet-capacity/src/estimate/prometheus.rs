//! Reads demand from what Prometheus answers to a range query: a matrix, or several of them one behind the other.
//!
//! Each series says with its label `series` which column it is, and with `pool` of which pool; see
//! `docs/operation/estimate.md` for a query that asks so of what Kubernetes' own exporter records.
//! Source of the shape: Prometheus' HTTP API, "Expression query result formats".
//!
//! A pool is known where its capacity has a sample: the exporter that says it says the rest, too, and a
//! sum over nothing has no sample. Where no series of a pool has a sample for longer than most samples
//! are apart, nothing is known of it.
//!
//! Invariants: instants rise strictly within a pool; what two answers both say is counted once.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use sublet_core::error::{Error, ErrorCode, Result};

use super::csv::{POOLS_MAX, UNITS_MAX, shown};
use super::demand::{Demand, Pool, SPAN_MAX_S, Step, usual_gap};

/// Names of series, in the order of [`Samples`].
const SERIES: [&str; 3] = ["capacity_gpus", "in_use_gpus", "queued_gpus"];
/// Characters in which an answer says that it is one.
const HEAD_MAX: usize = 4_096;

/// One answer of the HTTP API.
#[derive(Deserialize)]
struct Answer<'a> {
    status: String,
    error: Option<String>,
    #[serde(borrow)]
    data: Option<Data<'a>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "resultType")]
    kind: String,
    #[serde(borrow)]
    result: &'a RawValue,
}

#[derive(Deserialize)]
struct Series<'a> {
    #[serde(default)]
    metric: Labels,
    #[serde(borrow, default)]
    values: Vec<(&'a RawValue, &'a str)>,
}

#[derive(Default, Deserialize)]
struct Labels {
    #[serde(default)]
    series: String,
    #[serde(default)]
    pool: String,
}

/// What is recorded of a pool, by series: instants and units.
type Samples = [Vec<(i64, u32)>; SERIES.len()];

/// The demand that a recording shows.
#[derive(Debug)]
pub struct Recorded {
    pub demand: Demand,
    /// How far samples are apart, in seconds.
    pub step_s: i64,
    /// What the owner should know about how it was read.
    pub remarks: Vec<String>,
}

/// Whether the text begins as an answer of Prometheus does.
pub fn is_answer(text: &str) -> bool {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start();
    let head = text.char_indices().nth(HEAD_MAX).map_or(text, |(end, _)| &text[..end]);
    head.starts_with('{') && (head.contains("\"resultType\"") || head.contains("\"errorType\""))
}

/// The demand of one or several answers.
///
/// # Errors
/// [`ErrorCode::InvalidRequest`] with the answer and series that is wrong.
pub fn parse(text: &str) -> Result<Recorded> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pools: BTreeMap<String, Samples> = BTreeMap::new();
    for (place, answer) in serde_json::Deserializer::from_str(text).into_iter::<Answer<'_>>().enumerate() {
        let number = place + 1;
        let answer = answer.map_err(|error| {
            wrong(&format!("line {}: answer {number} cannot be read: {error}", error.line()), "keep each answer as curl prints it")
        })?;
        take(&answer, number, &mut pools)?;
    }
    for (name, samples) in &mut pools {
        for (series, samples) in SERIES.iter().zip(samples.iter_mut()) {
            order(name, series, samples)?;
        }
    }
    let mut instants: Vec<i64> = pools.values().flatten().flatten().map(|(at_s, _)| *at_s).collect();
    instants.sort_unstable();
    instants.dedup();
    let (Some(first_s), Some(last_s)) = (instants.first().copied(), instants.last().copied()) else {
        return Err(wrong("there are no samples", "ask for a time in which the exporter was scraped"));
    };
    if last_s.saturating_sub(first_s) > SPAN_MAX_S {
        return Err(wrong("there are more than ten years between the first sample and the last", "ask for a shorter time"));
    }
    let step_s = usual_gap(&instants);
    let end_s = last_s.saturating_add(step_s);
    let mut named = Vec::with_capacity(pools.len());
    let mut remarks = Vec::new();
    for (name, samples) in pools {
        let (steps, unknown_s) = steps(&name, &samples, (step_s, end_s))?;
        if unknown_s > 0 {
            let shown = if name.is_empty() { String::new() } else { format!(" of {}", shown(&name)) };
            remarks.push(format!("seconds{shown} without a sample of the capacity, in which nothing is known: {unknown_s}"));
        }
        named.push(Pool { name, steps });
    }
    Ok(Recorded { demand: Demand { pools: named, end_s }, step_s, remarks })
}

fn wrong(message: &str, remedy: &str) -> Error {
    Error::new(ErrorCode::InvalidRequest, message.to_owned()).alternative(remedy)
}

fn take(answer: &Answer<'_>, number: usize, pools: &mut BTreeMap<String, Samples>) -> Result<()> {
    let Some(data) = answer.data.as_ref().filter(|_| answer.status == "success") else {
        let said = answer.error.as_deref().map_or_else(|| "nothing".to_owned(), |error| error.chars().take(200).collect());
        return Err(wrong(
            &format!("answer {number} is no result: Prometheus said {said}"),
            "ask again, for a shorter time if it was too much",
        ));
    };
    if data.kind != "matrix" {
        let message = format!("answer {number} is a {}, not the matrix of a range query", shown(&data.kind));
        return Err(wrong(&message, "ask /api/v1/query_range with start, end and step"));
    }
    let series: Vec<Series<'_>> = serde_json::from_str(data.result.get()).map_err(|error| {
        wrong(&format!("answer {number}: the result cannot be read: {error}"), "keep each answer as curl prints it")
    })?;
    for (place, Series { metric, values }) in series.iter().enumerate() {
        let at = format!("answer {number}, series {}", place + 1);
        let Some(column) = SERIES.iter().position(|name| *name == metric.series) else {
            let message = format!("{at}: the label series is {}", shown(&metric.series));
            return Err(wrong(&message, &format!("name each series with label_replace: {}", SERIES.join(", "))));
        };
        if !pools.contains_key(&metric.pool) && pools.len() == POOLS_MAX {
            return Err(wrong(&format!("{at}: there are more than {POOLS_MAX} pools"), "sum by a label with fewer values"));
        }
        let samples = &mut pools.entry(metric.pool.clone()).or_default()[column];
        samples.reserve(values.len());
        for (instant, units) in values {
            let at_s = seconds(instant.get()).ok_or_else(|| {
                wrong(&format!("{at}: {} is no instant", shown(instant.get())), "keep each answer as curl prints it")
            })?;
            if let Some(units) = whole(units, &at)? {
                samples.push((at_s, units));
            }
        }
    }
    Ok(())
}

/// Whole seconds of a number of seconds.
fn seconds(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let at_s: i64 = whole.parse().ok()?;
    (part.bytes().all(|byte| byte.is_ascii_digit()) && at_s.unsigned_abs() <= u64::MAX >> 24).then_some(at_s)
}

/// Units of a sample; none of one that says that there is no number.
fn whole(text: &str, at: &str) -> Result<Option<u32>> {
    let remedy = format!("ask for sums, which are whole numbers from 0 to {UNITS_MAX}, not for averages");
    if text == "NaN" {
        return Ok(None);
    }
    let (number, part) = text.split_once('.').unwrap_or((text, ""));
    let is_whole = part.bytes().all(|byte| byte == b'0');
    match number.parse::<u32>().ok().filter(|units| is_whole && *units <= UNITS_MAX) {
        Some(units) => Ok(Some(units)),
        None => Err(wrong(&format!("{at}: {} is no number of units", shown(text)), &remedy)),
    }
}

/// In the order of time, each instant once.
fn order(pool: &str, series: &str, samples: &mut Vec<(i64, u32)>) -> Result<()> {
    samples.sort_unstable();
    samples.dedup();
    match samples.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        None => Ok(()),
        Some(pair) => {
            let message = format!("{series} of the pool {} is both {} and {} at {}", shown(pool), pair[0].1, pair[1].1, pair[0].0);
            Err(wrong(&message, "sum by the label pool, and let each range begin behind the end of the one before"))
        }
    }
}

/// The steps of a pool, and how many seconds of them are not known.
fn steps(name: &str, samples: &Samples, (step_s, end_s): (i64, i64)) -> Result<(Vec<Step>, i64)> {
    let [capacity, in_use, queued] = samples;
    if capacity.is_empty() {
        let message = format!("the pool {} has no capacity_gpus", shown(name));
        return Err(wrong(&message, "ask for the capacity by the same label as for what is in use"));
    }
    let mut instants: Vec<i64> = samples.iter().flatten().map(|(at_s, _)| *at_s).collect();
    instants.sort_unstable();
    instants.dedup();
    for (series, found) in SERIES.iter().zip(samples).skip(1) {
        let apart = found.iter().filter(|(at_s, _)| capacity.binary_search_by_key(at_s, |(at_s, _)| *at_s).is_err()).count();
        if apart * 2 > found.len() {
            let message = format!("{series} of the pool {} has samples at other instants than capacity_gpus", shown(name));
            return Err(wrong(&message, "ask for all series in one query, or with the same start and step"));
        }
    }
    let at = |samples: &[(i64, u32)], at_s: i64| {
        samples.binary_search_by_key(&at_s, |(at_s, _)| *at_s).ok().map(|place| samples[place].1)
    };
    let mut last_known = capacity[0].1;
    let mut steps: Vec<Step> = Vec::new();
    let mut unknown_s = 0;
    let ends = instants.iter().skip(1).copied().chain([end_s]);
    for (at_s, next_s) in instants.iter().copied().zip(ends) {
        let known = at(capacity, at_s);
        last_known = known.unwrap_or(last_known);
        let held_s = step_s.min(next_s - at_s);
        let unknown = Step { at_s, capacity: last_known, in_use: 0, queued: 0, valid: false };
        let now = match known {
            None => unknown,
            Some(capacity) => {
                Step { at_s, capacity, in_use: at(in_use, at_s).unwrap_or(0), queued: at(queued, at_s).unwrap_or(0), valid: true }
            }
        };
        unknown_s += if now.valid { 0 } else { held_s } + (next_s - at_s - held_s);
        push(&mut steps, now);
        if at_s + held_s < next_s {
            push(&mut steps, Step { at_s: at_s + held_s, ..unknown });
        }
    }
    Ok((steps, unknown_s))
}

/// A step that changes something.
fn push(steps: &mut Vec<Step>, step: Step) {
    if steps.last().is_none_or(|last| Step { at_s: step.at_s, ..*last } != step) {
        steps.push(step);
    }
}
