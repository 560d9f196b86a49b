//! Reads demand from comma-separated text: `t_s,[pool,]capacity_gpus,in_use_gpus,queued_gpus,valid`.
//!
//! Strict: what is not certain is an error that names the line and says what would work. `queued_gpus`
//! and `valid` may be left out of the heading; then nothing waits and everything is known. More in use
//! than there is means that nothing is idle: pools are lent beyond their size.

use std::collections::BTreeMap;

use sublet_core::error::{Error, ErrorCode, Result};

use super::demand::{Demand, Pool, SPAN_MAX_S, Step};

/// Most units of a pool.
pub const UNITS_MAX: u32 = 10_000_000;
/// Longest text that an error repeats, in characters.
const SHOWN_MAX: usize = 30;
/// Most pools of a file.
pub(super) const POOLS_MAX: usize = 10_000;

/// Where the columns are.
struct Columns {
    number: usize,
    at: usize,
    pool: Option<usize>,
    capacity: usize,
    in_use: usize,
    queued: Option<usize>,
    valid: Option<usize>,
}

/// An error of a line, counted from one.
pub(super) fn wrong(line: usize, message: &str, remedy: &str) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("line {line}: {message}")).alternative(remedy)
}

pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_MAX).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().count() > SHOWN_MAX { format!("'{cut}…'") } else { format!("'{cut}'") }
}

/// The demand that the text says.
///
/// # Errors
/// [`ErrorCode::InvalidRequest`] with the number of the first line that is wrong.
pub fn parse(text: &str) -> Result<Demand> {
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    let Some((_, heading)) = lines.next() else {
        return Err(wrong(1, "the file is empty", "begin with the line t_s,capacity_gpus,in_use_gpus,queued_gpus,valid"));
    };
    let columns = columns(heading)?;
    let mut pools: BTreeMap<String, Vec<Step>> = BTreeMap::new();
    let mut newest = i64::MIN;
    let mut first = None;
    for (place, text) in lines {
        let line = place + 1;
        if text.trim().is_empty() {
            return Err(wrong(line, "the line is empty", "leave the line out; a row holds until the pool's next row"));
        }
        let (name, step) = row(line, text, &columns)?;
        if step.at_s < newest {
            let message = format!("the clock goes back from {newest} to {}", step.at_s);
            return Err(wrong(line, &message, "sort the rows by t_s: sort -t, -k1,1n"));
        }
        newest = step.at_s;
        if newest - *first.get_or_insert(newest) > SPAN_MAX_S {
            let message = format!("t_s is {newest}, more than ten years behind the first row");
            return Err(wrong(line, &message, "correct t_s, or begin later; a clock that was set makes a new file"));
        }
        if !pools.contains_key(name) && pools.len() == POOLS_MAX {
            return Err(wrong(line, &format!("there are more than {POOLS_MAX} pools"), "give each file at most that many pools"));
        }
        let steps = pools.entry(name.to_owned()).or_default();
        if steps.last().is_some_and(|last| last.at_s == step.at_s) {
            let message = format!(
                "t_s {} comes twice{}",
                step.at_s,
                if name.is_empty() { String::new() } else { format!(" for the pool {}", shown(name)) }
            );
            return Err(wrong(line, &message, "keep one row for each instant and pool"));
        }
        steps.push(step);
    }
    if pools.is_empty() {
        return Err(wrong(2, "there are no rows", "give at least one row below the heading, such as 0,64,40,0,1"));
    }
    Ok(Demand::new(pools.into_iter().map(|(name, steps)| Pool { name, steps }).collect()))
}

fn columns(heading: &str) -> Result<Columns> {
    let names: Vec<&str> = heading.split(',').map(str::trim).collect();
    let remedy = "use the heading t_s,capacity_gpus,in_use_gpus,queued_gpus,valid, with pool behind t_s if there are several";
    let known = ["t_s", "pool", "capacity_gpus", "in_use_gpus", "queued_gpus", "valid"];
    for (place, name) in names.iter().enumerate() {
        if !known.contains(name) {
            return Err(wrong(1, &format!("there is no column {}", shown(name)), remedy));
        }
        if names[..place].contains(name) {
            return Err(wrong(1, &format!("the column {name} comes twice"), remedy));
        }
    }
    let find = |name: &str| names.iter().position(|found| *found == name);
    let need = |name: &str| find(name).ok_or_else(|| wrong(1, &format!("the column {name} is missing"), remedy));
    Ok(Columns {
        number: names.len(),
        at: need("t_s")?,
        pool: find("pool"),
        capacity: need("capacity_gpus")?,
        in_use: need("in_use_gpus")?,
        queued: find("queued_gpus"),
        valid: find("valid"),
    })
}

fn row<'a>(line: usize, text: &'a str, columns: &Columns) -> Result<(&'a str, Step)> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    if fields.len() != columns.number {
        let message = format!("there are {} fields where the heading has {}", fields.len(), columns.number);
        return Err(wrong(line, &message, "give each row one field for each column, without commas in names"));
    }
    let at_s: i64 = fields[columns.at].parse().map_err(|_| {
        wrong(
            line,
            &format!("t_s is {}", shown(fields[columns.at])),
            "give whole seconds, such as 3600; date --utc +%s turns dates into them",
        )
    })?;
    if at_s.unsigned_abs() > u64::MAX >> 24 {
        return Err(wrong(line, "t_s is beyond all calendars", "give seconds, not milliseconds or nanoseconds"));
    }
    let units = |name: &str, place: usize| units(line, name, fields[place]);
    let valid = match columns.valid.map_or("1", |place| fields[place]) {
        "1" | "true" => true,
        "0" | "false" => false,
        other => return Err(wrong(line, &format!("valid is {}", shown(other)), "give 1, or 0 where nothing is known")),
    };
    let (capacity, in_use) = (units("capacity_gpus", columns.capacity)?, units("in_use_gpus", columns.in_use)?);
    let queued = columns.queued.map_or(Ok(0), |place| units("queued_gpus", place))?;
    Ok((columns.pool.map_or("", |place| fields[place]), Step { at_s, capacity, in_use, queued, valid }))
}

fn units(line: usize, name: &str, text: &str) -> Result<u32> {
    let remedy = format!("give a whole number from 0 to {UNITS_MAX}");
    if text.starts_with('-') {
        return Err(wrong(line, &format!("{name} is {}, below zero", shown(text)), &remedy));
    }
    match text.parse::<u32>() {
        Ok(units) if units <= UNITS_MAX => Ok(units),
        Ok(_) => Err(wrong(line, &format!("{name} is {}, more than any pool has", shown(text)), &remedy)),
        Err(_) => Err(wrong(line, &format!("{name} is {}, which is no number of units", shown(text)), &remedy)),
    }
}
