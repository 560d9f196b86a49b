//! The worked accounting of docs/operation/estimate.md, and what becomes of rows that are odd or wrong.

use std::collections::BTreeMap;

use super::demand::Demand;
use super::sacct::{Accounting, Clock, PoolBy, Reading, Unit, is_sacct, parse};

const EXAMPLE: &str = include_str!("example.sacct");
const HEAD: &str = "JobIDRaw|Submit|Eligible|Start|End|ElapsedRaw|Partition|AllocTRES|ReqTRES";

fn reading() -> Reading {
    Reading {
        unit: Unit::Gpu,
        pool_by: PoolBy::Partition,
        clock: Clock::new("UTC").unwrap(),
        from_s: None,
        until_s: None,
        capacity: None,
        capacities: BTreeMap::new(),
    }
}

fn read(text: &str, reading: &Reading) -> Accounting {
    parse(text, reading).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Per pool: minutes since the first instant, what is in use, and what waits.
fn told(demand: &Demand) -> String {
    let start_s = demand.end_s - demand.span_s();
    let mut text = String::new();
    for pool in &demand.pools {
        text += &format!("{}/{}:", pool.name, pool.steps[0].capacity);
        for step in &pool.steps {
            text += &format!(" {}={}+{}", (step.at_s - start_s) / 60, step.in_use, step.queued);
        }
        text += "\n";
    }
    text + &format!("until {}", (demand.end_s - start_s) / 60)
}

/// A job of two units: submitted, started and ended at these times of a day.
fn job(id: &str, day: &str, times: [&str; 3], ran_s: &str) -> String {
    let [submit, start, end] = times.map(|time| if time.is_empty() { "Unknown".to_owned() } else { format!("{day}T{time}:00") });
    format!("{id}|{submit}|{submit}|{start}|{end}|{ran_s}|p|gres/gpu=2|gres/gpu=2\n")
}

#[test]
fn the_worked_example_is_this_demand() {
    let accounting = read(EXAMPLE, &reading());
    assert_eq!(
        told(&accounting.demand),
        "dev/4: 0=2+0 30=2+2 31=4+0 45=2+0 50=3+0 58=2+0\n\
         train/14: 0=12+6 2=14+4 5=13+4 6=12+4 10=4+4 12=4+12 15=4+28 20=12+20 25=12+4 30=8+4 35=8+5 36=9+4 40=13+4 44=12+4 50=4+4 55=0+4\n\
         until 60"
    );
    let said = accounting.remarks.join("\n");
    for part in [
        "as sacct -X does: 1",
        "took were left out: 1",
        "another row tells were left out: 2",
        "highest use was taken",
        "(dev 4, train 14)",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn nodes_that_jobs_share_are_one_and_accounts_or_nothing_are_pools() {
    let nodes = Reading { unit: Unit::Node, ..reading() };
    assert_eq!(
        told(&read(EXAMPLE, &nodes).demand),
        // gpu03 has up to four jobs; cpu01 one.
        "dev/1: 0=1+0 30=1+1 31=1+0\n\
         train/4: 0=3+6 2=3+4 5=4+4 10=2+4 12=2+6 15=2+8 20=4+6 25=4+4 30=3+4 35=3+5 36=4+4 40=3+4 50=1+4 55=0+4\n\
         until 60"
    );
    let cpus = Reading { unit: Unit::Cpu, pool_by: PoolBy::Nothing, ..reading() };
    let cpus = read(EXAMPLE, &cpus).demand;
    assert_eq!((cpus.pools.len(), cpus.pools[0].steps[0].in_use), (1, 16 + 8 + 64));
    let by_account = Reading { pool_by: PoolBy::Account, ..reading() };
    let shared = parse(EXAMPLE, &by_account).unwrap_err().to_string();
    assert!(shared.contains("the pools 'vision' and 'speech' share the node 'gpu04'"), "{shared}");
    let capacities = BTreeMap::from([("speech".to_owned(), 8), ("vision".to_owned(), 14)]);
    let accounts = read(EXAMPLE, &Reading { capacities, ..by_account }).demand;
    assert_eq!(accounts.pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), ["speech", "vision"]);
}

#[test]
fn what_is_not_complete_is_cut_off_unless_the_owner_knows_better() {
    let day = "2026-01-05";
    let text = format!(
        "{HEAD}\n{}{}{}",
        job("1", day, ["00:00", "00:00", "02:00"], "7200"),
        job("2", day, ["01:00", "01:30", "05:00"], "12600"),
        job("3", day, ["04:00", "04:00", ""], "0")
    );
    // From the first end to the last that became eligible.
    assert_eq!(told(&read(&text, &reading()).demand), "p/2: 0=2+0\nuntil 120");
    let clock = Clock::new("UTC").unwrap();
    let (from_s, until_s) = (clock.seconds("2026-01-05").unwrap(), clock.seconds("2026-01-05T06:00:00").unwrap());
    let whole = Reading { from_s: Some(from_s), until_s: Some(until_s), ..reading() };
    assert_eq!(told(&read(&text, &whole).demand), "p/4: 0=2+0 60=2+2 90=4+0 120=2+0 240=4+0 300=2+0\nuntil 360");
}

#[test]
fn the_history_begins_with_an_end_that_was_printed() {
    let day = "2026-01-05";
    // Job 7 was submitted anew at 00:30, which says nothing of when sacct began to print.
    let text = format!(
        "{HEAD}\n{}{}{}{}",
        job("1", day, ["00:00", "00:00", "02:00"], "7200"),
        job("7", day, ["00:10", "00:20", ""], "0"),
        job("7", day, ["00:30", "02:00", "04:00"], "7200"),
        job("9", day, ["05:00", "05:00", ""], "0")
    );
    assert_eq!(told(&read(&text, &reading()).demand), "p/2: 0=2+0 120=0+0\nuntil 180");
}

#[test]
fn what_begins_in_the_future_ends_no_history() {
    let day = "2026-01-05";
    let later = |at: &str| format!("3|2026-01-05T04:00:00|{at}|Unknown|Unknown|0|p||gres/gpu=2\n");
    let first = job("1", day, ["00:00", "00:00", "01:00"], "3600");
    let submitted = format!("{HEAD}\n{first}{}", later("2026-07-01T00:00:00"));
    let known = BTreeMap::from([("p".to_owned(), 4)]);
    let known = Reading { capacities: known, ..reading() };
    assert_eq!(told(&read(&submitted, &known).demand), "p/4: 0=0+0\nuntil 180");
    // Without Submit what runs says until when it is known.
    let running = "4|Unknown|2026-01-05T02:00:00|2026-01-05T02:30:00|Unknown|9000|p|gres/gpu=2|gres/gpu=2\n";
    let unsaid = format!("{HEAD}\n{first}{running}{}", later("2026-07-01T00:00:00").replace("3|2026-01-05T04:00:00", "3|Unknown"));
    assert_eq!(told(&read(&unsaid, &known).demand), "p/4: 0=0+0 60=0+2 90=2+0\nuntil 240");
}

#[test]
fn a_history_that_is_too_long_is_refused_with_what_makes_it_so() {
    let day = "2026-01-05";
    let frame = |row: &str| {
        let (first, last) = (job("1", day, ["00:00", "00:00", "01:00"], "3600"), job("2", day, ["05:00", "05:00", ""], "0"));
        format!("{HEAD}\n{first}{row}{last}")
    };
    let refused = |text: &str, reading: &Reading| parse(text, reading).unwrap_err().to_string();
    let late = frame("3|2046-01-05T00:00:00|2046-01-05T00:00:00|Unknown|Unknown|0|p||gres/gpu=2\n");
    assert!(refused(&late, &reading()).contains("line 3: the history would end here"), "{}", refused(&late, &reading()));
    let early = frame("3|1970-01-02T00:00:00|1970-01-02T00:00:00|1970-01-02T00:00:00|1970-01-02T01:00:00|0|p||gres/gpu=2\n");
    assert!(refused(&early, &reading()).contains("line 3: the history would begin here"));
    let from = Reading { from_s: Some(0), ..reading() };
    assert!(refused(&frame(""), &from).contains("--from is more than ten years before line 3"));
    let until = Reading { until_s: Some(9_000_000_000), ..reading() };
    assert!(refused(&frame(""), &until).contains("--until is more than ten years behind line 2"));
}

#[test]
fn pools_that_share_nodes_are_no_guess_and_jobs_without_an_end_are_said() {
    let row = |id: &str, pool: &str, nodes: &str, end: &str| format!("{id}|0|0|0|{end}|100|{pool}|gres/gpu=8|gres/gpu=8|{nodes}\n");
    let frame = |rows: &str| format!("{HEAD}|NodeList\n{rows}{}", row("9", "long", "gpu9", "9000"));
    let known = || Reading { from_s: Some(0), until_s: Some(9_000), ..reading() };
    // Eight units in two partitions, first in the one, then in the other.
    let shared = frame(&format!("{}{}", row("1", "long", "gpu[1-2]", "600"), row("2", "short", "gpu2", "Unknown")));
    let error = parse(&shared, &known()).unwrap_err();
    assert!(error.to_string().contains("share the node 'gpu2'") && error.alternatives().len() == 2, "{error}");
    let given = BTreeMap::from([("long".to_owned(), 16), ("short".to_owned(), 8)]);
    let accounting = read(&shared, &Reading { capacities: given, ..known() });
    assert!(accounting.remarks.iter().any(|remark| remark.contains("run on: 8, of 1 jobs")), "{:?}", accounting.remarks);
    assert!(parse(&shared, &Reading { pool_by: PoolBy::Nothing, ..known() }).is_ok());
    let apart = frame(&format!("{}{}", row("1", "long", "gpu1", "600"), row("2", "short", "gpu2", "900")));
    let accounting = read(&apart, &known());
    assert!(!accounting.remarks.iter().any(|remark| remark.contains("run on")), "{:?}", accounting.remarks);
}

#[test]
fn names_of_nodes_are_bounded_over_the_file() {
    let row = |id: usize| format!("{id:03}|0|0|0|600|600|p|node=1|node=1|n[1-99999]\n");
    let text = format!("{HEAD}|NodeList\n{}", (0..102).map(row).collect::<String>());
    let reading = Reading { unit: Unit::Node, from_s: Some(0), until_s: Some(600), ..reading() };
    let error = parse(&text, &reading).unwrap_err().to_string();
    assert!(error.contains("line 101: NodeList: up to here there are more than 10000000 names"), "{error}");
}

#[test]
fn tasks_that_are_told_are_not_left_of_their_array() {
    let head = HEAD.replace("JobIDRaw", "JobID");
    let row = |id: &str, times: &str| format!("{id}|0|0|{times}|0|p|gres/gpu=1|gres/gpu=1\n");
    let known = || Reading { from_s: Some(0), until_s: Some(600), ..reading() };
    let started = |last: u32| (1..=last).map(|task| row(&format!("105_{task}"), "60|Unknown")).collect::<String>();
    // Two months: in the first all wait, in the second only tasks 3 and 4 do.
    let left = row("105_[1-4]", "Unknown|Unknown");
    let fewer = row("105_[3-4%1]", "Unknown|Unknown");
    for (rows, waits) in [
        (left.clone(), 4),
        (format!("{left}{}", started(4)), 0),
        (format!("{left}{}", started(2)), 2),
        (format!("{left}{}{fewer}", started(2)), 2),
    ] {
        let accounting = read(&format!("{head}\n{rows}{}", row("9", "0|Unknown")), &known());
        assert_eq!(accounting.demand.pools[0].steps.last().unwrap().queued, waits, "{rows}");
        assert!(accounting.remarks.iter().any(|remark| remark.contains("add JobIDRaw")), "{:?}", accounting.remarks);
    }
    let raw = format!("{HEAD}\n{}{}", row("105", "Unknown|Unknown"), row("9", "0|Unknown"));
    assert!(read(&raw, &known()).remarks.iter().any(|remark| remark.ends_with("add JobID: 1")));
}

#[test]
fn an_attempt_without_an_end_ends_where_its_successor_was_submitted() {
    let day = "2026-01-05";
    let text = format!(
        "{HEAD}\n{}{}{}{}",
        job("1", day, ["00:00", "00:00", "01:00"], "3600"),
        job("7", day, ["00:10", "00:20", ""], "0"),
        job("7", day, ["02:00", "03:00", "04:00"], "3600"),
        job("9", day, ["05:00", "05:00", ""], "0")
    );
    let accounting = read(&text, &reading());
    assert_eq!(told(&accounting.demand), "p/2: 0=2+0 60=0+2 120=2+0 180=0+0\nuntil 240");
    assert!(accounting.remarks.iter().any(|remark| remark.ends_with("was submitted: 1")), "{:?}", accounting.remarks);
}

#[test]
fn months_that_were_asked_for_one_by_one_are_one_file() {
    let day = "2026-01-05";
    let first = format!("{HEAD}\n{}{}", job("1", day, ["00:00", "00:00", "01:00"], "3600"), job("2", day, ["00:30", "", ""], "0"));
    let second =
        format!("{HEAD}\n{}{}", job("2", day, ["00:30", "02:00", "04:00"], "7200"), job("3", day, ["05:00", "05:00", ""], "0"));
    let accounting = read(&format!("{first}{second}"), &reading());
    assert_eq!(told(&accounting.demand), "p/2: 0=0+2 60=2+0 180=0+0\nuntil 240");
}

#[test]
fn the_hour_that_clocks_repeat_is_told_by_how_long_the_job_ran() {
    let day = "2025-10-26";
    let frame = |rows: &str| {
        format!(
            "{HEAD}\n{}{rows}{}",
            job("1", day, ["00:00", "00:00", "01:00"], "3600"),
            job("9", day, ["06:00", "06:00", ""], "0")
        )
    };
    let berlin = Reading { clock: Clock::new("Europe/Berlin").unwrap(), ..reading() };
    // Clocks went from 03:00 back to 02:00: from 01:30 to 02:30 is an hour or two.
    for (start, end, ran_s, steps) in [
        ("01:30", "02:30", "3600", "30=2+0 90=0+0"),
        ("01:30", "02:30", "7200", "30=2+0 150=0+0"),
        ("02:30", "02:30", "3600", "90=2+0 150=0+0"),
        ("02:30", "04:00", "5400", "150=2+0 240=0+0"),
        ("01:30", "04:00", "12600", "30=2+0 240=0+0"),
    ] {
        let accounting = read(&frame(&job("2", day, [start, start, end], ran_s)), &berlin);
        assert_eq!(told(&accounting.demand), format!("p/2: 0=0+0 {steps}\nuntil 360"), "{start} {end} {ran_s}");
        assert!(!accounting.remarks.iter().any(|remark| remark.contains("twice")), "{start} {end}");
    }
    let unsaid = read(&frame(&job("2", day, ["01:30", "01:30", "02:30"], "")), &berlin);
    assert!(told(&unsaid.demand).contains("30=2+0 90=0+0"), "the first");
    assert!(unsaid.remarks.iter().any(|remark| remark.ends_with("avoids it: 1")), "{:?}", unsaid.remarks);
    let gap = frame("2|2025-03-30T02:30:00|Unknown|Unknown|Unknown||p||gres/gpu=1\n");
    let error = parse(&gap, &berlin).unwrap_err();
    assert!(error.to_string().contains("line 3: Submit: no clock in Europe/Berlin showed"), "{error}");
    let frame = format!("{gap}{}", job("3", day, ["00:00", "00:30", "02:00"], "5400"));
    assert!(parse(&frame, &reading()).is_ok(), "in UTC there is such a time");
}

#[test]
fn seconds_are_instants_and_other_formats_are_not() {
    let text = format!("{HEAD}\n1|100|100|100|4000|3900|p|gres/gpu=1|\n2|9000|9000|9000|Unknown|0|p|gres/gpu=1|\n");
    let known = Reading { from_s: Some(0), ..reading() };
    assert_eq!(told(&read(&text, &known).demand), "p/1: 0=0+0 1=1+0 66=0+0\nuntil 150");
}

#[test]
fn a_bar_at_the_end_of_each_line_is_no_column() {
    let day = "2026-01-05";
    let text =
        format!("{HEAD}\n{}{}", job("1", day, ["00:00", "00:00", "01:00"], "3600"), job("2", day, ["00:30", "02:00", ""], "0"));
    let known = || Reading { until_s: Some(1_767_585_600), ..reading() };
    let parsable = text.replace('\n', "|\n");
    assert_eq!(told(&read(&text, &known()).demand), "p/2: 0=0+2 60=2+0\nuntil 180");
    assert_eq!(told(&read(&parsable, &known()).demand), told(&read(&text, &known()).demand));
}

#[test]
fn a_wrong_accounting_is_refused_by_its_line_with_what_would_work() {
    let good = job("1", "2026-01-05", ["00:00", "00:00", "01:00"], "3600");
    let row = |fields: &str| format!("{HEAD}\n{good}{fields}\n");
    for (text, said) in [
        (
            "       JobID    JobName  Partition\n------------ ---------- ----------\n".to_owned(),
            "line 1: sacct was asked for a table",
        ),
        ("JobID,Submit,Start\n".to_owned(), "line 1: sacct was given another delimiter"),
        ("{\n  \"jobs\": []\n}\n".to_owned(), "line 1: sacct was asked for JSON"),
        (good.clone(), "line 1: this is no heading of sacct"),
        ("JobID|JobName|Partition|Account|AllocCPUS|State|ExitCode\n".to_owned(), "line 1: the column AllocTRES is missing"),
        ("JobID|AllocTRES|Partition|Submit|Start\n".to_owned(), "line 1: the column End is missing"),
        ("JobID|AllocTRES|Partition|Start|End\n".to_owned(), "line 1: the columns Eligible and Submit"),
        ("JobID|AllocTRES|Submit|Start|End\n".to_owned(), "line 1: the column Partition is missing"),
        (format!("{HEAD}\n"), "line 2: there are no jobs"),
        (row("2|Unknown"), "line 3: there are 2 fields where the heading has 9"),
        (row("2|a|b|Unknown|Unknown|Unknown||p|gres/gpu=1|"), "line 3: there are 10 fields"),
        (row("2|05 Jan 10:00|Unknown|Unknown|Unknown||p||"), "line 3: Submit: '05 Jan 10:00' is no time"),
        (row("2|2026-02-30T00:00:00|Unknown|Unknown|Unknown||p||"), "line 3: Submit: '2026-02-30T00:00:00' is no time"),
        (row("2|5|5|9|7||p||"), "line 3: the job ends at 7 before it starts at 9"),
        (row("2|5|5|7|9||p|gres/gpu=-1|"), "line 3: '-1' is below zero"),
        (row("2|5|5|7|9||p|gres/gpu=2K|"), "line 3: '2K' is no number of units"),
        (row("2|5|5|7|9||p|gres/gpu=99999999|"), "line 3: '99999999' is more than any job has"),
        (row("2|5|5|7|9||p|gpu|"), "line 3: 'gpu' is no list of resources"),
        (row("|5|5|7|9||p||"), "line 3: there is no job id"),
        (format!("{HEAD}\n{good}"), "covers no time"),
        (row("2|2026-01-06T00:00:00|2026-01-06T00:00:00|Unknown|Unknown||p||").replace("gres/gpu=2", "cpu=2"), "no job had a gpu"),
    ] {
        assert!(is_sacct(&text), "{text}");
        let error = parse(&text, &reading()).unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {error}");
        assert!(!error.alternatives().is_empty(), "{error}");
    }
}

#[test]
fn capacity_is_given_for_the_pools_there_are() {
    let refused = |reading: Reading| parse(EXAMPLE, &reading).unwrap_err().to_string();
    assert!(refused(Reading { capacity: Some(16), ..reading() }).contains("2 pools, and one capacity"));
    let unknown = BTreeMap::from([("gold".to_owned(), 4)]);
    assert!(refused(Reading { capacities: unknown, ..reading() }).contains("no job was in the pool 'gold'"));
    let others = Reading { capacity: Some(16), capacities: BTreeMap::from([("dev".to_owned(), 8)]), ..reading() };
    let accounting = read(EXAMPLE, &others);
    assert_eq!(accounting.demand.pools.iter().map(|pool| pool.steps[0].capacity).collect::<Vec<_>>(), [8, 16]);
    let capacities = BTreeMap::from([("train".to_owned(), 13), ("dev".to_owned(), 8)]);
    let accounting = read(EXAMPLE, &Reading { capacities, ..reading() });
    assert_eq!(accounting.demand.pools.iter().map(|pool| pool.steps[0].capacity).collect::<Vec<_>>(), [8, 13]);
    assert!(accounting.remarks.iter().any(|remark| remark.ends_with("than the capacity that was given: train 14")));
}

#[test]
fn rows_of_demand_are_no_accounting() {
    assert!(!is_sacct("t_s,capacity_gpus,in_use_gpus\n") && !is_sacct("") && is_sacct("Account|JobID\n"));
}
