//! The rows of an accounting: where the columns are, and what a row says.

use sublet_core::error::{Error, Result};

use super::super::csv::{UNITS_MAX, shown, wrong};
use super::clock::{Instant, Printed, Resolved, elapsed_s};
use super::{PoolBy, Reading, Unit};

/// What prints everything that is read.
const COMMAND: &str = "print it with: TZ=UTC sacct -a -D -X -P -S 2026-01-01 \
    -o JobID,JobIDRaw,Cluster,Submit,Eligible,Start,End,ElapsedRaw,State,Partition,Account,AllocTRES,ReqTRES,NNodes,NodeList";
/// Columns in which users write what they like, bars among it.
const FREE_TEXT: [&str; 11] = [
    "jobname",
    "comment",
    "admincomment",
    "systemcomment",
    "submitline",
    "workdir",
    "extra",
    "constraints",
    "stdin",
    "stdout",
    "stderr",
];
/// What stands between columns that are not printed with `-P`, or with `--delimiter`.
const OTHER_DELIMITERS: [char; 4] = [' ', ',', ';', '\t'];
/// Most tasks of a job array.
const TASKS_MAX: u32 = 10_000_000;

/// What a row says of one attempt of a job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) line: usize,
    pub(super) cluster: &'a str,
    pub(super) id: &'a str,
    pub(super) submit_s: Option<i64>,
    pub(super) eligible_s: Option<i64>,
    pub(super) start_s: Option<i64>,
    pub(super) end_s: Option<i64>,
    /// No end was printed: it is where the next attempt was submitted.
    pub(super) is_superseded: bool,
    /// The last instant that it says was over when it was printed.
    pub(super) happened_s: Option<i64>,
    /// Units that it has while it runs.
    pub(super) used: u32,
    /// Units that it waits for, or each of its tasks does.
    pub(super) asked: u32,
    /// Tasks that it is, if it is what is left of a job array.
    pub(super) tasks: u32,
    /// `JobID`, which tells tasks of arrays; empty without that column.
    pub(super) shown_id: &'a str,
    pub(super) pool: &'a str,
    /// Folded names; empty if none are said.
    pub(super) nodes: &'a str,
}

/// What is worth saying and no error.
#[derive(Default, Debug)]
pub(super) struct Remarks {
    pub(super) steps: usize,
    pub(super) revoked: usize,
    pub(super) guessed: usize,
    pub(super) repeated: usize,
    pub(super) succeeded: usize,
    pub(super) unasked: usize,
    pub(super) untold_arrays: usize,
    pub(super) arrays_by_id: usize,
    pub(super) other: Vec<String>,
}

impl Remarks {
    pub(super) fn said(self) -> Vec<String> {
        let counted = [
            (self.steps, "rows of job steps were left out, as sacct -X does"),
            (self.revoked, "rows of jobs that another cluster of the federation took were left out"),
            (self.repeated, "rows that repeat an attempt which another row tells were left out"),
            (self.succeeded, "attempts that have no end but a successor end where that was submitted"),
            (self.guessed, "instants in an hour that clocks showed twice were taken as the first; TZ=UTC sacct avoids it"),
            (self.unasked, "jobs that never began do not say what they waited for; add ReqTRES"),
            (self.untold_arrays, "rows of jobs that never began count as one task each, as only JobID tells job arrays; add JobID"),
            (
                self.arrays_by_id,
                "rows of job arrays have no number of their own, so what is left of one is told by its name; add JobIDRaw",
            ),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}"));
        counted.chain(self.other).collect()
    }
}

/// Where the columns are.
struct Columns {
    number: usize,
    id: usize,
    array: Option<usize>,
    cluster: Option<usize>,
    submit: Option<usize>,
    eligible: Option<usize>,
    start: usize,
    end: usize,
    elapsed: Option<usize>,
    state: Option<usize>,
    used: Counted,
    asked: Counted,
    pool: Option<usize>,
    nodes: Option<usize>,
    /// The only column that may have bars in it.
    free: Option<usize>,
}

/// Where units are counted: in a list of resources, or a number of their own.
#[derive(Clone, Copy)]
struct Counted {
    tres: Option<usize>,
    number: Option<usize>,
}

fn names(heading: &str) -> Vec<String> {
    heading.split('|').map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// Whether a first line is of an accounting, even if it is not one that can be read: rows of demand have no bars,
/// and no jobs.
pub(super) fn is_heading(line: &str) -> bool {
    let is_id = |name: &str| name.eq_ignore_ascii_case("jobid") || name.eq_ignore_ascii_case("jobidraw");
    line.contains('|') || line.starts_with('{') || line.split(OTHER_DELIMITERS).map(str::trim).any(is_id)
}

/// What is wrong with a heading without bars.
fn without_bars(heading: &str) -> Error {
    let what = if heading.starts_with('{') {
        "sacct was asked for JSON"
    } else if heading.contains([',', ';', '\t']) {
        "sacct was given another delimiter than its own, the bar"
    } else {
        "sacct was asked for a table, whose columns are cut off"
    };
    wrong(1, what, COMMAND)
}

fn columns(heading: &str, reading: &Reading) -> Result<Columns> {
    let names = names(heading);
    if names.len() == 1 {
        return Err(without_bars(heading));
    }
    let find = |wanted: &[&str]| wanted.iter().find_map(|wanted| names.iter().position(|name| name == wanted));
    let need =
        |wanted: &str, shown: &str| find(&[wanted]).ok_or_else(|| wrong(1, &format!("the column {shown} is missing"), COMMAND));
    let Some(id) = find(&["jobidraw", "jobid"]) else {
        let message = "this is no heading of sacct: the columns JobID and JobIDRaw are missing";
        return Err(wrong(1, message, &format!("leave -n out, which leaves out the heading; {COMMAND}")));
    };
    let (used, asked) = match reading.unit {
        Unit::Gpu => (None, None),
        Unit::Cpu => (find(&["alloccpus", "ncpus"]), find(&["reqcpus"])),
        Unit::Node => (find(&["allocnodes", "nnodes"]), find(&["reqnodes", "nnodes"])),
    };
    let used = Counted { tres: find(&["alloctres"]), number: used };
    if used.tres.is_none() && used.number.is_none() {
        return Err(wrong(1, "the column AllocTRES is missing, so nothing says what a job has", COMMAND));
    }
    let (submit, eligible) = (find(&["submit"]), find(&["eligible"]));
    if submit.is_none() && eligible.is_none() {
        return Err(wrong(1, "the columns Eligible and Submit are missing, so nothing says what the file covers", COMMAND));
    }
    let pool = match reading.pool_by {
        PoolBy::Partition => Some(need("partition", "Partition")?),
        PoolBy::Account => Some(need("account", "Account")?),
        PoolBy::Nothing => None,
    };
    let mut free = (0..names.len()).filter(|place| FREE_TEXT.contains(&names[*place].as_str()));
    Ok(Columns {
        number: names.len(),
        id,
        array: find(&["jobid"]),
        cluster: find(&["cluster"]),
        submit,
        eligible,
        start: need("start", "Start")?,
        end: need("end", "End")?,
        elapsed: find(&["elapsedraw", "elapsed"]),
        state: find(&["state"]),
        used,
        asked: Counted { tres: find(&["reqtres"]), number: asked },
        pool,
        nodes: find(&["nodelist"]),
        free: free.next().filter(|_| free.next().is_none()),
    })
}

/// The fields of a row by column.
struct Fields<'a, 'b> {
    parts: Vec<&'a str>,
    columns: &'b Columns,
}

impl<'a> Fields<'a, '_> {
    /// Fields behind the one column that may have bars in it are counted from the end.
    fn get(&self, place: usize) -> &'a str {
        let surplus = self.parts.len() - self.columns.number;
        let shift = if self.columns.free.is_some_and(|free| place > free) { surplus } else { 0 };
        self.parts[place + shift].trim()
    }

    fn find(&self, place: Option<usize>) -> &'a str {
        place.map_or("", |place| self.get(place))
    }
}

/// The attempts that the text tells, steps and repeated headings left out.
pub(super) fn rows<'a>(text: &'a str, reading: &Reading, remarks: &mut Remarks) -> Result<Vec<Row<'a>>> {
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines();
    let heading = lines.next().unwrap_or_default();
    let columns = columns(heading, reading)?;
    let mut rows = Vec::new();
    for (place, text) in lines.enumerate() {
        let line = place + 2;
        if text == heading {
            continue;
        }
        let parts: Vec<&str> = text.split('|').collect();
        if parts.len() < columns.number || parts.len() > columns.number && columns.free.is_none() {
            let message = format!("there are {} fields where the heading has {}", parts.len(), columns.number);
            return Err(wrong(line, &message, &format!("leave out columns in which users write, such as JobName; {COMMAND}")));
        }
        if let Some(row) = row(line, &Fields { parts, columns: &columns }, reading, remarks)? {
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Err(wrong(2, "there are no jobs", "ask for a longer time, and for the jobs of all users: sacct -a -S 2026-01-01"));
    }
    Ok(rows)
}

fn row<'a>(line: usize, fields: &Fields<'a, '_>, reading: &Reading, remarks: &mut Remarks) -> Result<Option<Row<'a>>> {
    let columns = fields.columns;
    let id = fields.get(columns.id);
    if id.is_empty() {
        return Err(wrong(line, "there is no job id", "leave the line out"));
    }
    if id.contains('.') {
        remarks.steps += 1;
        return Ok(None);
    }
    if fields.find(columns.state).starts_with("REVOKED") {
        remarks.revoked += 1;
        return Ok(None);
    }
    let instant = |name: &str, place: Option<usize>| reading.clock.column(line, name, fields.find(place));
    let submit = instant("Submit", columns.submit)?;
    let printed = Printed {
        eligible: if columns.eligible.is_some() { instant("Eligible", columns.eligible)? } else { submit },
        start: instant("Start", Some(columns.start))?,
        end: instant("End", Some(columns.end))?,
        elapsed_s: elapsed_s(fields.find(columns.elapsed)),
    };
    let Some(times) = printed.resolve() else {
        let message = format!("the job ends at {} before it starts at {}", fields.get(columns.end), fields.get(columns.start));
        return Err(wrong(line, &message, "correct the line or leave it out: an accounting has such rows after a clock was set"));
    };
    remarks.guessed += usize::from(times.is_guess);
    let used = units(line, reading.unit, columns.used, fields)?;
    let asked = units(line, reading.unit, columns.asked, fields)?;
    let has_begun = times.start_s.is_some();
    remarks.unasked += usize::from(!has_begun && columns.asked.tres.is_none() && columns.asked.number.is_none());
    let shown_id = fields.find(columns.array);
    // What is left of an array gets fewer, and stays the same job.
    let id = id.split_inclusive('[').next().unwrap_or(id);
    remarks.untold_arrays += usize::from(columns.array.is_none() && !has_begun && asked > 0);
    remarks.arrays_by_id += usize::from(columns.array == Some(columns.id) && id.contains('_'));
    let asked = if asked == 0 && has_begun { used } else { asked };
    let pool = fields.find(columns.pool);
    Ok(Some(Row {
        line,
        cluster: fields.find(columns.cluster),
        id,
        submit_s: submit.map(|Instant { first_s, .. }| first_s),
        eligible_s: times.eligible_s,
        start_s: times.start_s,
        end_s: times.end_s,
        is_superseded: false,
        happened_s: happened_s(submit, &times, printed.elapsed_s),
        used,
        asked,
        tasks: if has_begun { 1 } else { tasks(shown_id) },
        shown_id,
        // Who waits for several partitions is told with all of them.
        pool: pool.split(',').next().unwrap_or(pool),
        nodes: Some(fields.find(columns.nodes)).filter(|nodes| *nodes != "None assigned").unwrap_or_default(),
    }))
}

/// What is eligible in the future has only been submitted; what runs has run for so long.
fn happened_s(submit: Option<Instant>, times: &Resolved, elapsed_s: Option<i64>) -> Option<i64> {
    let ran = times.start_s.zip(elapsed_s).filter(|_| times.end_s.is_none());
    let now_s = ran.map(|(start_s, elapsed_s)| start_s.saturating_add(elapsed_s));
    submit.map(|instant| instant.first_s).max(times.start_s).max(times.end_s).max(now_s)
}

fn units(line: usize, unit: Unit, counted: Counted, fields: &Fields<'_, '_>) -> Result<u32> {
    let list = fields.find(counted.tres);
    let found = match unit {
        Unit::Gpu => gpus(line, list)?,
        Unit::Cpu => resource(line, list, |name| name == "cpu")?,
        Unit::Node => resource(line, list, |name| name == "node")?,
    };
    match (found, fields.find(counted.number)) {
        (Some(units), _) => Ok(units),
        (None, "") => Ok(0),
        (None, number) => amount(line, number),
    }
}

/// `gres/gpu` is all of them; older clusters say only the types, newer ones both.
fn gpus(line: usize, list: &str) -> Result<Option<u32>> {
    let all = resource(line, list, |name| name == "gres/gpu")?;
    let typed = resource(line, list, |name| name.starts_with("gres/gpu:"))?;
    Ok(all.max(typed))
}

/// The sum over the resources of a list `cpu=8,gres/gpu=2,mem=64G` whose name is meant.
fn resource(line: usize, list: &str, is_meant: impl Fn(&str) -> bool) -> Result<Option<u32>> {
    let mut sum: Option<u32> = None;
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let Some((name, number)) = part.split_once('=') else {
            let message = format!("{} is no list of resources such as cpu=8,gres/gpu=2", shown(list));
            return Err(wrong(line, &message, COMMAND));
        };
        if is_meant(name) {
            sum = Some(sum.unwrap_or(0).saturating_add(amount(line, number)?));
        }
    }
    Ok(sum)
}

fn amount(line: usize, text: &str) -> Result<u32> {
    let problem = |what: &str| -> Error {
        wrong(line, &format!("{} is {what}", shown(text)), &format!("give whole numbers up to {UNITS_MAX}: sacct --noconvert"))
    };
    match text.parse::<u32>() {
        Ok(units) if units <= UNITS_MAX => Ok(units),
        Ok(_) => Err(problem("more than any job has")),
        Err(_) if text.starts_with('-') => Err(problem("below zero")),
        Err(_) => Err(problem("no number of units")),
    }
}

/// Tasks of `1234_[1-9:2,20%4]`: what is left of a job array that waits; one of anything else. A list that
/// Slurm cut off counts as far as it goes.
fn tasks(id: &str) -> u32 {
    ranges(id).map(|(low, high, step)| (high - low) / step + 1).fold(0_u32, u32::saturating_add).clamp(1, TASKS_MAX)
}

/// The first task, the last and the step of each range between the brackets of `1234_[1-9:2,20%4]`.
pub(super) fn ranges(id: &str) -> impl Iterator<Item = (u32, u32, u32)> {
    let list = id.split_once('[').map_or("", |(_, list)| list);
    let list = list.split(['%', ']']).next().unwrap_or(list);
    list.split(',').filter_map(|part| {
        let (range, step) = part.split_once(':').unwrap_or((part, "1"));
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (low, high, step) = (low.parse().ok()?, high.parse().ok()?, step.parse().ok()?);
        (low <= high && step > 0).then_some((low, high, step))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_not_counted_beside_what_contains_it() {
        for (list, units) in [
            ("billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=64G,node=1", Some(2)),
            ("cpu=8,gres/gpu:a100=2,gres/gpu:h100=3", Some(5)),
            ("cpu=8,gres/gpu=4,gres/gpu:a100=1", Some(4)),
            ("cpu=8,gres/gpumem=16G,gres/gpuutil=50,gres/shard=7", None),
            ("", None),
        ] {
            assert_eq!(gpus(1, list).unwrap(), units, "{list}");
        }
    }

    #[test]
    fn what_is_left_of_an_array_is_counted() {
        for (id, count) in [("77", 1), ("77_3", 1), ("77_[4]", 1), ("77_[1-9:2,20%4]", 6), ("77_[0-99,101,...]", 101), ("77_[]", 1)]
        {
            assert_eq!(tasks(id), count, "{id}");
        }
    }
}
