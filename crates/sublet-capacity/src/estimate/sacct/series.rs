//! Attempts as demand over time: what is in use and what waits, by pool, at every change.

use std::collections::{BTreeMap, HashMap};

use sublet_core::error::{Error, ErrorCode, Result};

use super::super::csv::wrong;
use super::super::demand::{Demand, Pool, SPAN_MAX_S, Step};
use super::nodes::Nodes;
use super::table::{Remarks, Row};
use super::{Reading, Unit};

/// Most names that a remark lists.
const LISTED_MAX: usize = 5;

/// What changes in a pool at an instant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Change {
    Used(i64),
    Waiting(i64),
    /// A job more or less on this node.
    OnNode(usize, i64),
}

/// What is so in a pool.
#[derive(Clone, Default, Debug)]
struct Now {
    used: i64,
    waiting: i64,
    /// Jobs on each node that has any.
    nodes: HashMap<usize, i64>,
}

impl Now {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Used(units) => self.used += units,
            Change::Waiting(units) => self.waiting += units,
            Change::OnNode(node, jobs) => {
                let held = self.nodes.entry(node).or_default();
                *held += jobs;
                if *held == 0 {
                    self.nodes.remove(&node);
                }
            }
        }
    }

    fn step(&self, at_s: i64) -> Step {
        let units = |units: i64| u32::try_from(units.max(0)).unwrap_or(u32::MAX);
        let in_use = units(self.used).saturating_add(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        Step { at_s, capacity: 0, in_use, queued: units(self.waiting), valid: true }
    }
}

/// The instants between which the file has every job.
#[derive(Clone, Copy, Debug)]
struct Span {
    from_s: i64,
    until_s: i64,
}

impl Span {
    /// See the module above: jobs that had ended before `-S` or became eligible after `-E` are not there.
    /// What a row has as its end or begin without having happened says nothing of `-S` and `-E`.
    fn of(rows: &[Row<'_>], reading: &Reading) -> Result<Self> {
        let ends = rows.iter().filter(|row| !row.is_superseded).filter_map(|row| Some((row.end_s?, row.line)));
        let starts = rows.iter().filter_map(|row| Some((row.start_s?, row.line)));
        let first = reading.from_s.map(|from_s| (from_s, 1)).or_else(|| ends.min()).or_else(|| starts.min());
        let happened_s = rows.iter().filter_map(|row| row.happened_s).max();
        let eligible = rows.iter().filter_map(|row| Some((row.eligible_s?, row.line))).max();
        let eligible = eligible.map(|(at_s, line)| (happened_s.map_or(at_s, |happened_s| at_s.min(happened_s)), line));
        let last = reading.until_s.map(|until_s| (until_s, 1)).or(eligible);
        match first.zip(last) {
            Some((first, last)) if last.0.saturating_sub(first.0) > SPAN_MAX_S => Err(too_long(rows, reading, first, last)),
            Some(((from_s, _), (until_s, _))) if from_s < until_s => Ok(Self { from_s, until_s }),
            _ => Err(Error::new(
                ErrorCode::InvalidRequest,
                "the file covers no time: it has every job only from the first End to the last Eligible, and the one is not before the other",
            )
            .alternative("say with --from and --until what sacct had as -S and -E")
            .alternative("ask sacct for a longer time")),
        }
    }

    fn meets(self, row: &Row<'_>) -> bool {
        row.start_s.is_some_and(|start_s| start_s < self.until_s) && row.end_s.is_none_or(|end_s| end_s > self.from_s)
    }
}

/// What makes a history too long: an option, or the line that is farther from most.
fn too_long(rows: &[Row<'_>], reading: &Reading, first: (i64, usize), last: (i64, usize)) -> Error {
    let usage = |message: String| Error::new(ErrorCode::Usage, message).alternative("give the day as 2026-01-31");
    match (reading.from_s, reading.until_s) {
        (Some(_), Some(_)) => return usage("--from is more than ten years before --until".to_owned()),
        (Some(_), None) => {
            return usage(format!("--from is more than ten years before line {}, where the last job became eligible", last.1));
        }
        (None, Some(_)) => {
            return usage(format!("--until is more than ten years behind line {}, where the first job ended", first.1));
        }
        (None, None) => {}
    }
    let mut instants: Vec<i64> = rows.iter().filter_map(|row| row.start_s.or(row.eligible_s)).collect();
    instants.sort_unstable();
    let usual_s = instants.get(instants.len() / 2).copied().unwrap_or(last.0);
    let remedy = "leave the line out if its clock was wrong, or say where to begin: --from 2026-01-01";
    if usual_s.saturating_sub(first.0) >= last.0.saturating_sub(usual_s) {
        wrong(first.1, "the history would begin here, more than ten years before the last job became eligible", remedy)
    } else {
        wrong(last.1, "the history would end here, more than ten years behind the first End", remedy)
    }
}

/// The demand of every pool that used a unit.
pub(super) fn demand(rows: &[Row<'_>], reading: &Reading, remarks: &mut Remarks) -> Result<Demand> {
    let span = Span::of(rows, reading)?;
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        let next = names.len();
        names.entry(row.pool).or_insert(next);
    }
    let mut nodes = Nodes::default();
    let mut changes = changes(rows, (&names, &mut nodes), reading, span)?;
    changes.sort_unstable();
    let mut pools = follow(&changes, names.len(), span);
    let mut named: Vec<Pool> =
        names.iter().map(|(name, place)| Pool { name: (*name).to_owned(), steps: std::mem::take(&mut pools[*place]) }).collect();
    named.retain(|pool| pool.steps.iter().any(|step| step.in_use > 0) || reading.capacities.contains_key(&pool.name));
    if named.is_empty() {
        return Err(nothing_used(reading.unit));
    }
    set_capacities(&mut named, reading, remarks)?;
    nodes.refuse_shared(&names, reading)?;
    remark_running(rows, span, remarks);
    Ok(Demand { pools: named, end_s: span.until_s })
}

fn remark_running(rows: &[Row<'_>], span: Span, remarks: &mut Remarks) {
    let running = rows.iter().filter(|row| row.end_s.is_none() && row.used > 0 && span.meets(row));
    let (jobs, units) = running.fold((0_usize, 0_u64), |(jobs, units), row| (jobs + 1, units + u64::from(row.used)));
    if jobs > 0 {
        remarks.other.push(format!(
            "units of jobs that have no End and are taken to run on: {units}, of {jobs} jobs; sacctmgr show runawayjobs finds those that do not"
        ));
    }
}

fn nothing_used(unit: Unit) -> Error {
    let error = Error::new(ErrorCode::InvalidRequest, format!("no job had a {} in the time that the file covers", unit.as_str()));
    match unit {
        Unit::Gpu => error
            .alternative("count something else: --unit node or --unit cpu")
            .alternative("let Slurm account for them: AccountingStorageTRES=gres/gpu in slurm.conf"),
        Unit::Cpu | Unit::Node => error.alternative("ask sacct for AllocTRES, and for jobs that ran"),
    }
}

fn changes<'a>(
    rows: &[Row<'a>],
    (names, nodes): (&BTreeMap<&str, usize>, &mut Nodes<'a>),
    reading: &Reading,
    span: Span,
) -> Result<Vec<(i64, usize, Change)>> {
    let mut changes = Vec::new();
    let mut add = |from_s: i64, to_s: Option<i64>, pool: usize, change: &dyn Fn(i64) -> Change| {
        let to_s = to_s.unwrap_or(span.until_s).min(span.until_s);
        let from_s = from_s.max(span.from_s);
        if from_s < to_s {
            changes.push((from_s, pool, change(1)));
            changes.push((to_s, pool, change(-1)));
        }
    };
    let is_guessed = names.len() > 1 && names.keys().any(|name| is_guessed(reading, name));
    for row in rows {
        let Some(pool) = names.get(row.pool).copied() else { continue };
        let waiting = i64::from(row.asked) * i64::from(row.tasks);
        if let Some(eligible_s) = row.eligible_s.filter(|_| waiting > 0) {
            add(eligible_s, row.start_s.or(row.end_s), pool, &|sign| Change::Waiting(sign * waiting));
        }
        let Some(start_s) = row.start_s.filter(|_| row.used > 0 && span.meets(row)) else { continue };
        let counts_nodes = reading.unit == Unit::Node && !row.nodes.is_empty();
        if counts_nodes || is_guessed {
            nodes.read(row, pool)?;
        }
        if !counts_nodes {
            add(start_s, row.end_s, pool, &|sign| Change::Used(sign * i64::from(row.used)));
            continue;
        }
        for node in nodes.of(row)? {
            add(start_s, row.end_s, pool, &|sign| Change::OnNode(*node, sign));
        }
    }
    Ok(changes)
}

pub(super) fn is_guessed(reading: &Reading, pool: &str) -> bool {
    reading.capacity.is_none() && !reading.capacities.contains_key(pool)
}

/// The steps of each pool, by its place; capacities are not known yet.
fn follow(changes: &[(i64, usize, Change)], pools: usize, span: Span) -> Vec<Vec<Step>> {
    let mut now = vec![Now::default(); pools];
    let mut steps: Vec<Vec<Step>> = vec![Vec::new(); pools];
    let mut rest = changes;
    let mut at_s = span.from_s;
    let mut touched: Vec<usize> = (0..pools).collect();
    while at_s < span.until_s {
        while let Some(((_, pool, change), behind)) = rest.split_first().filter(|((change_s, _, _), _)| *change_s <= at_s) {
            now[*pool].apply(*change);
            touched.push(*pool);
            rest = behind;
        }
        touched.sort_unstable();
        touched.dedup();
        for pool in touched.drain(..) {
            let step = now[pool].step(at_s);
            if steps[pool].last().is_none_or(|last| (last.in_use, last.queued) != (step.in_use, step.queued)) {
                steps[pool].push(step);
            }
        }
        at_s = rest.first().map_or(span.until_s, |(change_s, _, _)| *change_s);
    }
    steps
}

fn set_capacities(pools: &mut [Pool], reading: &Reading, remarks: &mut Remarks) -> Result<()> {
    let list = |names: &[&str]| {
        let more = if names.len() > LISTED_MAX { format!(" and {} more", names.len() - LISTED_MAX) } else { String::new() };
        format!("{}{more}", names[..names.len().min(LISTED_MAX)].join(", "))
    };
    let all: Vec<String> = pools.iter().map(|pool| pool.name.clone()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    if let Some(unknown) = reading.capacities.keys().find(|name| !all.contains(&name.as_str())) {
        return Err(Error::new(ErrorCode::Usage, format!("no job was in the pool '{unknown}'"))
            .alternative(format!("give the capacity of {}", list(&all))));
    }
    let unnamed: Vec<&str> = all.iter().filter(|name| !reading.capacities.contains_key(**name)).copied().collect();
    if reading.capacity.is_some() && unnamed.len() > 1 {
        return Err(Error::new(ErrorCode::Usage, format!("there are {} pools, and one capacity", unnamed.len()))
            .alternative(format!("give --capacity POOL=N for each of {}", list(&unnamed)))
            .alternative("take them as one: --pool-by none"));
    }
    let (mut guessed, mut exceeded) = (Vec::new(), Vec::new());
    for pool in pools.iter_mut() {
        let most = pool.steps.iter().map(|step| step.in_use).max().unwrap_or(0);
        let given = reading.capacities.get(&pool.name).copied().or(reading.capacity);
        let capacity = given.unwrap_or(most);
        pool.steps.iter_mut().for_each(|step| step.capacity = capacity);
        let shown = if pool.name.is_empty() { "all".to_owned() } else { pool.name.clone() };
        match given {
            None => guessed.push(format!("{shown} {most}")),
            Some(given) if most > given => exceeded.push(format!("{shown} {most}")),
            Some(_) => {}
        }
    }
    let borrow = |names: &[String]| list(&names.iter().map(String::as_str).collect::<Vec<_>>());
    if !guessed.is_empty() {
        remarks.other.push(format!(
            "capacity is not in the accounting: the highest use was taken, which is too little if there is more, and too much if jobs without an End run no more ({}); give --capacity",
            borrow(&guessed)
        ));
    }
    if !exceeded.is_empty() {
        remarks.other.push(format!("more was in use at times than the capacity that was given: {}", borrow(&exceeded)));
    }
    Ok(())
}
