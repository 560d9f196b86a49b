//! Answers of Prometheus as demand.

use std::fmt::Write as _;

use super::csv;
use super::demand::Step;
use super::prometheus::{is_answer, parse};

/// Its name, its pool, its samples.
type Series<'a> = (&'a str, &'a str, &'a [(i64, &'a str)]);

fn answer(series: &[Series<'_>]) -> String {
    let mut rows = Vec::new();
    for (name, pool, samples) in series {
        let values: Vec<String> = samples.iter().map(|(at_s, units)| format!("[{at_s},\"{units}\"]")).collect();
        rows.push(format!(r#"{{"metric":{{"series":"{name}","pool":"{pool}"}},"values":[{}]}}"#, values.join(",")));
    }
    format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{}]}}}}"#, rows.join(","))
}

fn step(at_s: i64, capacity: u32, in_use: u32, queued: u32) -> Step {
    Step { at_s, capacity, in_use, queued, valid: true }
}

fn unknown(at_s: i64, capacity: u32) -> Step {
    Step { at_s, capacity, in_use: 0, queued: 0, valid: false }
}

#[test]
fn series_become_steps_and_what_has_no_sample_is_nothing_where_the_capacity_has_one() {
    let text = answer(&[
        ("capacity_gpus", "h100", &[(600, "8"), (660, "8"), (720, "8"), (780, "16")]),
        ("in_use_gpus", "h100", &[(660, "3"), (720, "3")]),
        ("queued_gpus", "h100", &[(720, "2")]),
    ]);
    let found = parse(&text).unwrap();
    let steps = [step(600, 8, 0, 0), step(660, 8, 3, 0), step(720, 8, 3, 2), step(780, 16, 0, 0)];
    assert_eq!(found.demand.pools[0].steps, steps);
    assert_eq!((found.demand.end_s, found.step_s, found.remarks.len()), (840, 60, 0));
}

#[test]
fn a_hole_is_not_known_rather_than_idle() {
    let capacity: Vec<(i64, &str)> = (0..10).filter(|minute| !(4..7).contains(minute)).map(|minute| (minute * 60, "8")).collect();
    let in_use: Vec<(i64, &str)> = capacity.iter().filter(|(at_s, _)| *at_s != 120).map(|(at_s, _)| (*at_s, "5")).collect();
    let mut only_use = in_use.clone();
    only_use.push((300, "5"));
    let text = answer(&[("capacity_gpus", "", &capacity), ("in_use_gpus", "", &only_use)]);
    let found = parse(&text).unwrap();
    let steps = [step(0, 8, 5, 0), step(120, 8, 0, 0), step(180, 8, 5, 0), unknown(240, 8), step(420, 8, 5, 0)];
    assert_eq!(found.demand.pools[0].steps, steps);
    assert_eq!(found.remarks, ["seconds without a sample of the capacity, in which nothing is known: 180"]);
}

#[test]
fn a_pool_that_ends_before_the_others_is_not_known_from_then_on() {
    let long: Vec<(i64, &str)> = (0..5).map(|minute| (minute * 60, "8")).collect();
    let text = answer(&[("capacity_gpus", "a", &long), ("capacity_gpus", "b", &long[..2])]);
    let demand = parse(&text).unwrap().demand;
    assert_eq!(demand.pools[1].steps, [step(0, 8, 0, 0), unknown(120, 8)]);
    assert_eq!(demand.end_s, 300);
}

#[test]
fn several_answers_are_one_history_in_any_order_and_overlap_counts_once() {
    let rows: Vec<(i64, String)> = (0..100).map(|minute| (minute * 60, (minute * 7 % 5).to_string())).collect();
    let part = |from: usize, to: usize| {
        let samples: Vec<(i64, &str)> = rows[from..to].iter().map(|(at_s, units)| (*at_s, units.as_str())).collect();
        let capacity: Vec<(i64, &str)> = samples.iter().map(|(at_s, _)| (*at_s, "4")).collect();
        answer(&[("in_use_gpus", "", &samples), ("capacity_gpus", "", &capacity)])
    };
    let whole = parse(&part(0, 100)).unwrap().demand;
    assert_eq!(parse(&format!("{}\n{}", part(40, 100), part(0, 60))).unwrap().demand, whole);
    let mut text = "t_s,capacity_gpus,in_use_gpus\n".to_owned();
    for (at_s, units) in &rows {
        let _ = writeln!(text, "{at_s},4,{units}");
    }
    let by_rows = csv::parse(&text).unwrap();
    assert_eq!(by_rows.end_s, whole.end_s);
    for at_s in (0..6_000).step_by(60) {
        let held = |steps: &[Step]| steps.iter().rev().find(|step| step.at_s <= at_s).map(|step| step.in_use);
        assert_eq!(held(&by_rows.pools[0].steps), held(&whole.pools[0].steps), "at {at_s}");
    }
}

#[test]
fn what_cannot_be_right_is_refused_with_its_place_and_what_would_work() {
    let capacity: &[(i64, &str)] = &[(0, "8"), (60, "8")];
    let refused = [
        (
            r#"{"status":"error","errorType":"bad_data","error":"exceeded maximum resolution"}"#.to_owned(),
            "exceeded maximum resolution",
        ),
        (r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#.to_owned(), "query_range"),
        (answer(&[]), "no samples"),
        (answer(&[("gpus", "", capacity)]), "answer 1, series 1: the label series is 'gpus'"),
        (answer(&[("capacity_gpus", "", capacity), ("in_use_gpus", "", &[(0, "2.5")])]), "series 2: '2.5' is no number of units"),
        (answer(&[("capacity_gpus", "", &[(0, "-1")])]), "'-1' is no number"),
        (answer(&[("in_use_gpus", "a", capacity)]), "'a' has no capacity_gpus"),
        (answer(&[("capacity_gpus", "", capacity), ("capacity_gpus", "", &[(0, "9")])]), "both 8 and 9 at 0"),
        (answer(&[("capacity_gpus", "", capacity), ("in_use_gpus", "", &[(7, "1"), (67, "1")])]), "other instants"),
        (answer(&[("capacity_gpus", "", &[(0, "8"), (400_000_000, "8")])]), "ten years"),
        (format!("{}\n{{\"status\":", answer(&[("capacity_gpus", "", capacity)])), "line 2: answer 2"),
    ];
    for (text, said) in refused {
        let error = parse(&text).unwrap_err();
        assert!(error.to_string().contains(said) || error.alternatives().iter().any(|other| other.contains(said)), "{error}");
        assert!(!error.alternatives().is_empty(), "{error}");
    }
    let none = answer(&[("capacity_gpus", "", &[(0, "8"), (60, "NaN"), (120, "8"), (180, "8"), (240, "8")])]);
    assert_eq!(parse(&none).unwrap().demand.pools[0].steps, [step(0, 8, 0, 0), unknown(60, 8), step(120, 8, 0, 0)]);
}

#[test]
fn only_answers_of_prometheus_are_taken_for_them() {
    assert!(is_answer(&answer(&[])));
    assert!(is_answer("\u{feff} {\"status\":\"error\",\"errorType\":\"timeout\",\"error\":\"x\"}"));
    assert!(!is_answer("t_s,capacity_gpus,in_use_gpus\n0,1,1\n"));
    assert!(!is_answer("{\"meta\": {}, \"jobs\": []}"));
}
