//! `sublet estimate`: figures that an outside scorer finds again, files, and what is said of bad ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sublet_cli::ExitStatus;

use crate::terminal::{Printed, Terminal};

const SCORER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/outside/estimate.py");
const EXAMPLE: &str = include_str!("../../../sublet-capacity/src/estimate/example.csv");

const ACCOUNTING: &str = include_str!("../../../sublet-capacity/src/estimate/example.sacct");

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("estimate-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A day and a half of two pools: a wave, bursts, an outage, and a capacity that shrinks.
fn two_pools() -> String {
    let mut rows = String::from("t_s,pool,capacity_gpus,in_use_gpus,queued_gpus,valid\n");
    for minute in 0..2_160_u32 {
        let wave = (minute % 720).abs_diff(360) / 24;
        let burst = if minute % 97 < 3 { 6 } else { 0 };
        let valid = u32::from(!(1_000..1_010).contains(&minute));
        let capacity = if minute > 1_500 { 36 } else { 40 };
        rows +=
            &format!("{},a,{capacity},{},0,{valid}\n", minute * 60, (10 + wave + burst + 30 * u32::from(minute == 1_700)) * valid);
        if minute % 7 == 0 {
            rows += &format!("{},b,16,{},1,1\n", minute * 60, 3 + minute % 5);
        }
    }
    rows
}

fn estimate(demand: &Path, more: &[&str]) -> Printed {
    let mut words = vec!["--json", "estimate", "--demand", text(demand)];
    words.extend(more);
    Terminal::default().run(&words)
}

/// Runs the scorer on what was printed.
fn scored(demand: &Path, schedule: &Path, printed: &Printed) -> (bool, String) {
    scored_with(&[demand, schedule], printed)
}

/// Likewise of a demand, a schedule, and jobs behind the figures.
fn scored_with(files: &[&Path], printed: &Printed) -> (bool, String) {
    let (demand, schedule, jobs) = (files[0], files[1], &files[2..]);
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    let figures = schedule.with_extension("figures");
    std::fs::write(&figures, &printed.out).unwrap();
    let output = Command::new("python3").arg(SCORER).args([demand, schedule, &figures]).args(jobs).output().unwrap();
    (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn an_outside_scorer_finds_every_figure_again() {
    let folder = folder("scored");
    let demand = folder.join("two-pools.csv");
    std::fs::write(&demand, two_pools()).unwrap();
    for policy in ["default", "static-5", "peak-1h", "default-without-evidence", "default-without-keeping-on"] {
        for times in [["--reclaim-seconds", "0"], ["--reclaim-seconds", "95"]] {
            let schedule = folder.join(format!("{policy}.jsonl"));
            let printed = estimate(&demand, &[&["--policy", policy, "--schedule", text(&schedule)][..], &times[..]].concat());
            let (ok, said) = scored(&demand, &schedule, &printed);
            assert!(ok, "{policy} {times:?}: {said}");
        }
    }
}

#[test]
fn the_scorer_finds_what_is_wrong() {
    let folder = folder("wrong");
    let demand = folder.join("example.csv");
    std::fs::write(&demand, EXAMPLE).unwrap();
    let schedule = folder.join("schedule.jsonl");
    let mut printed = estimate(&demand, &["--policy", "static-10", "--reclaim-seconds", "30", "--schedule", text(&schedule)]);
    let (ok, said) = scored(&demand, &schedule, &printed);
    assert!(ok, "{said}");
    insta::assert_snapshot!(printed.out);
    let mut figures: Value = serde_json::from_str(&printed.out).unwrap();
    figures[0]["collision_ppm"] = Value::from(0);
    printed.out = figures.to_string();
    let (ok, said) = scored(&demand, &schedule, &printed);
    assert!(!ok && said.contains("collision_ppm is 0"), "{said}");
}

#[test]
fn every_policy_asked_for_has_one_object_with_these_members() {
    let demand = folder("members").join("example.csv");
    std::fs::write(&demand, EXAMPLE).unwrap();
    let members = "policy sold_share value_share_of_bound collision_ppm collision_episodes_per_day evictions_per_day \
        sold_hours_per_eviction broken_promises compensation revenue idle_hours bound_hours";
    let printed = estimate(&demand, &["--policy", "all"]);
    let objects: Vec<serde_json::Map<String, Value>> = serde_json::from_str(&printed.out).unwrap();
    let names: Vec<&str> = objects.iter().map(|object| object["policy"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["default", "static-5", "static-10"]);
    for object in &objects {
        let mut found: Vec<&str> = object.keys().map(String::as_str).collect();
        let mut expected: Vec<&str> = members.split_whitespace().collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
    let table = Terminal::default().run(&["estimate", "--demand", text(&demand), "--policy", "all", "--reclaim-seconds", "30"]);
    insta::assert_snapshot!(table.out);
    assert!(table.err.contains("1.3 unit-hours were idle"), "{}", table.err);
}

#[test]
fn packed_files_are_read_and_a_chart_is_drawn() {
    let folder = folder("packed");
    let plain = folder.join("two.csv");
    std::fs::write(&plain, two_pools()).unwrap();
    let packed = folder.join("two.csv.gz");
    let file = std::fs::File::create(&packed).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, two_pools().as_bytes()).unwrap();
    encoder.finish().unwrap();
    let chart = folder.join("week.svg");
    let from_packed = estimate(&packed, &["--merge-pools", "--chart", text(&chart)]);
    assert_eq!(from_packed.out, estimate(&plain, &["--merge-pools"]).out);
    let svg = std::fs::read_to_string(&chart).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.matches("<path").count() >= 8, "{svg}");
}

#[test]
fn a_chart_is_a_picture_if_its_name_says_so() {
    let folder = folder("picture");
    let demand = folder.join("half.csv");
    // Half of ten units are in use for a day and more.
    std::fs::write(&demand, "t_s,capacity_gpus,in_use_gpus,queued_gpus,valid\n0,10,5,0,1\n100000,10,5,0,1\n").unwrap();
    let chart = folder.join("week.PNG");
    estimate(&demand, &["--policy", "static-10", "--chart", text(&chart)]);
    let file = std::io::BufReader::new(std::fs::File::open(&chart).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    assert_eq!((info.width, info.height, info.color_type), (2 * 1_088, 2 * 410, png::ColorType::Rgb));
    let pixel = |x: usize, y: usize| &bytes[(y * 2 * 1_088 + x) * 3..][..3];
    let (internal, two_minutes, red) = ([0x9a, 0xa0, 0xa6], [0x9e, 0xca, 0xe1], [0xd6, 0x27, 0x28]);
    // In points: columns from 60 to 1,068, units from 360 up to 40; nine of ten are sold or in use.
    assert_eq!((pixel(1_000, 700), pixel(1_000, 410)), (&internal[..], &internal[..]));
    assert_eq!((pixel(1_000, 380), pixel(1_000, 160)), (&two_minutes[..], &two_minutes[..]));
    assert_eq!((pixel(1_000, 130), pixel(1_000, 80), pixel(2_170, 400)), (&[255; 3][..], &red[..], &[255; 3][..]));
    let ink = |(from, until): (usize, usize), y: usize| (from..until).filter(|x| pixel(*x, y) == [0; 3]).count();
    assert!((400..4_000).contains(&(34..48).map(|y| ink((120, 440), y)).sum::<usize>()), "a title is written");
    let wrong = Terminal::default().run(&["estimate", "--demand", text(&demand), "--chart", "week.jpg"]);
    assert!(wrong.err.contains(".svg or .png") && wrong.status != ExitStatus::OK, "{}", wrong.err);
}

#[test]
fn what_is_wrong_is_said_with_what_would_work() {
    let folder = folder("bad");
    let head = "t_s,capacity_gpus,in_use_gpus,queued_gpus,valid\n";
    let mut said = String::new();
    for (name, content) in [
        ("empty", String::new()),
        ("heading", "time,gpus\n".to_owned()),
        ("twice", format!("{head}0,8,1,0,1\n0,8,2,0,1\n")),
        ("back", format!("{head}60,8,1,0,1\n0,8,2,0,1\n")),
        ("negative", format!("{head}0,8,-1,0,1\n")),
    ] {
        let path = folder.join(format!("{name}.csv"));
        std::fs::write(&path, content).unwrap();
        let printed = Terminal::default().run(&["estimate", "--demand", text(&path)]);
        assert!(printed.out.is_empty() && printed.status != ExitStatus::OK, "{name}");
        said += &format!("{name}\n{}\n", printed.err);
    }
    let example = folder.join("example.csv");
    std::fs::write(&example, EXAMPLE).unwrap();
    for more in [["--policy", "magic"], ["--policy", "all"]] {
        let words = [&["estimate", "--demand", text(&example), "--chart", "chart.svg"][..], &more[..]].concat();
        said += &format!("{}\n{}\n", more.join(" "), Terminal::default().run(&words).err);
    }
    insta::assert_snapshot!(said);
}

#[test]
fn an_accounting_is_read_as_it_is_and_its_figures_are_found_again() {
    let folder = folder("accounting");
    let demand = folder.join("example.sacct");
    std::fs::write(&demand, ACCOUNTING).unwrap();
    let schedule = folder.join("schedule.jsonl");
    let more = ["--policy", "static-10", "--capacity", "train=16", "--capacity", "dev=4", "--schedule", text(&schedule)];
    let printed = estimate(&demand, &more);
    let (ok, said) = scored(&demand, &schedule, &printed);
    assert!(ok, "{said}");
    insta::assert_snapshot!(format!("{}\n{}", printed.out, printed.err));
}

/// Two answers of Prometheus that follow each other: two pools with a hole in both and one in one of them.
fn recording() -> String {
    let answer = |minutes: std::ops::Range<u32>| {
        let series = |name: &str, pool: &str, of: &dyn Fn(u32) -> Option<u32>| {
            let samples = minutes.clone().filter(|minute| !(400..430).contains(minute));
            let samples = samples.filter_map(|minute| of(minute).map(|units| format!("[{},\"{units}\"]", 60 * minute)));
            let samples: Vec<String> = samples.collect();
            format!(r#"{{"metric":{{"series":"{name}","pool":"{pool}"}},"values":[{}]}}"#, samples.join(","))
        };
        let rows = [
            series("capacity_gpus", "h100", &|minute| Some(if minute > 700 { 24 } else { 32 })),
            series("in_use_gpus", "h100", &|minute| (minute % 50 > 3).then_some(6 + minute / 20 % 17)),
            series("queued_gpus", "h100", &|minute| (minute % 90 < 9).then_some(4)),
            series("capacity_gpus", "l4", &|minute| (!(500..520).contains(&minute)).then_some(8)),
            series("in_use_gpus", "l4", &|minute| Some(minute / 200 % 5)),
        ];
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{}]}}}}"#, rows.join(","))
    };
    format!("{}\n{}\n", answer(0..600), answer(600..1_400))
}

#[test]
fn a_recording_of_prometheus_is_read_as_it_is_and_its_figures_are_found_again() {
    let folder = folder("recording");
    let (demand, schedule) = (folder.join("answers.json"), folder.join("schedule.jsonl"));
    std::fs::write(&demand, recording()).unwrap();
    for policy in ["static-10", "default"] {
        let printed = estimate(&demand, &["--policy", policy, "--outage", "60000/61500", "--schedule", text(&schedule)]);
        let (ok, said) = scored(&demand, &schedule, &printed);
        assert!(ok, "{policy}: {said}");
        assert!(printed.err.contains("seconds of 'h100' without a sample of the capacity, in which nothing is known: 1800"));
        assert!(printed.err.contains("seconds of 'l4' without a sample of the capacity, in which nothing is known: 3000"));
        assert!(printed.out.contains("\"sold_share\""), "{}", printed.out);
    }
    let from_input = Terminal { input: recording().leak(), ..Terminal::default() }.run(&[
        "--json",
        "estimate",
        "--demand",
        "-",
        "--policy",
        "static-10",
    ]);
    assert_eq!(from_input.out, estimate(&demand, &["--policy", "static-10"]).out);
    let words = ["estimate", "--demand", text(&demand), "--capacity", "8"];
    assert!(Terminal::default().run(&words).err.contains("leave --capacity out"));
}

#[test]
fn jobs_of_customers_are_told_beside_the_owners_figures() {
    let folder = folder("jobs");
    let (demand, jobs) = (folder.join("two.csv"), folder.join("jobs.csv"));
    std::fs::write(&demand, two_pools()).unwrap();
    let rows: Vec<String> =
        (0..300_u32).map(|job| format!("{},{},{},900", job * 400, 1 + job % 5, 60 + job * 37 % 5_000)).collect();
    std::fs::write(&jobs, format!("arrival_s,gpus,duration_s,patience_s\n{}\n", rows.join("\n"))).unwrap();
    let more = ["--policy", "static-5", "--merge-pools", "--jobs", text(&jobs)];
    let plain: Value = serde_json::from_str(&estimate(&demand, &more).out).unwrap();
    let saved: Value =
        serde_json::from_str(&estimate(&demand, &[&more[..], &["--checkpoint-seconds", "60"]].concat()).out).unwrap();
    let table = Terminal::default().run(&[&["estimate", "--demand", text(&demand)][..], &more].concat());
    insta::assert_snapshot!(format!("{}\n{}\n{}", plain[0]["jobs"], saved[0]["jobs"], table.out));
    assert_eq!(plain[0]["bound_hours"], saved[0]["bound_hours"]);
}

#[test]
fn figures_of_jobs_are_found_again_and_wrong_ones_are_not() {
    let folder = folder("jobs-scored");
    let (demand, jobs, schedule) = (folder.join("one.csv"), folder.join("jobs.csv"), folder.join("schedule.jsonl"));
    let rows: String = (0..600_u32).map(|minute| format!("{},16,{}\n", minute * 60, 4 + minute / 50 % 3 * 4)).collect();
    std::fs::write(&demand, format!("t_s,capacity_gpus,in_use_gpus\n{rows}")).unwrap();
    let rows: Vec<String> =
        (0..200_u32).map(|job| format!("{},{},{},900", job * 170, 1 + job % 17, 60 + job * 37 % 5_000)).collect();
    std::fs::write(&jobs, format!("arrival_s,gpus,duration_s,patience_s\n{}\n", rows.join("\n"))).unwrap();
    let more = ["--policy", "static-5", "--jobs", text(&jobs), "--checkpoint-seconds", "600", "--outage", "9000/9990"];
    let mut printed = estimate(&demand, &[&more[..], &["--outage", "35000/99999", "--schedule", text(&schedule)]].concat());
    assert!(printed.err.contains("11 jobs want more than the 16 units that there ever are"), "{}", printed.err);
    assert!(
        printed.err.contains("--outage 35000/99999 is only partly in the history, which is from 0 to 36000"),
        "{}",
        printed.err
    );
    let (ok, said) = scored_with(&[&demand, &schedule, &jobs], &printed);
    assert!(ok && said.contains("with those of 200 jobs"), "{said}");
    let figures: Value = serde_json::from_str(&printed.out).unwrap();
    for name in ["arrived", "finished", "interrupted", "running", "useful_hours", "goodput", "mean_wait_seconds"] {
        let mut wrong = figures.clone();
        wrong[0]["jobs"][name] = Value::from(77_777);
        printed.out = wrong.to_string();
        let (ok, said) = scored_with(&[&demand, &schedule, &jobs], &printed);
        assert!(!ok, "{name}: {said}");
    }
}

#[test]
fn a_long_replay_is_told_on_a_terminal_only() {
    let demand = folder("long").join("year.csv");
    std::fs::write(&demand, "t_s,capacity_gpus,in_use_gpus\n0,8,4\n15000000,8,5\n15000060,8,5\n15000120,8,5\n").unwrap();
    let words = ["estimate", "--demand", text(&demand), "--policy", "static-10"];
    let style = sublet_cli::Style { live: true, ..sublet_cli::Style::default() };
    let live = Terminal { style, ..Terminal::default() }.run(&words);
    assert!(live.err.contains("\r###############---------------  50 % static-10"), "{}", live.err);
    assert!(live.err.contains("  99 % "), "{}", live.err);
    let quiet = Terminal::default().run(&words);
    assert!(quiet.err.starts_with("1 of 1: static-10\n") && !quiet.err.contains('\r'), "{}", quiet.err);
    assert_eq!(live.out, quiet.out);
}

#[test]
fn what_an_estimate_is_asked_wrongly_is_said_with_what_would_work() {
    let folder = folder("asked");
    let write = |name: &str, content: &str| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (rows, accounting) = (write("example.csv", EXAMPLE), write("example.sacct", ACCOUNTING));
    let late = write("late.csv", "arrival_s,gpus,duration_s\n900000,1,60\n");
    let binary = folder.join("binary.csv");
    std::fs::write(&binary, b"t_s,capacity_gpus,in_use_gpus\n0,8,1\n60,8,\xff\n").unwrap();
    let table = write("table.txt", "       JobID    JobName  Partition\n------------ ---------- ----------\n");
    let mut said = String::new();
    for words in [
        &["--demand", text(&rows), "--unit", "node"][..],
        &["--demand", text(&rows), "--prices", "n0=.9"],
        &["--demand", text(&rows), "--prices", "best=1"],
        &["--demand", text(&rows), "--jobs", text(&late)],
        &["--demand", text(&accounting), "--jobs", text(&late)],
        &["--demand", text(&accounting), "--time-zone", "Europe/Atlantis"],
        &["--demand", text(&accounting), "--capacity", "all"],
        &["--demand", text(&accounting), "--capacity", "16"],
        &["--demand", text(&accounting), "--from", "yesterday"],
        &["--demand", text(&accounting), "--from", "2026-03-03"],
        &["--demand", text(&accounting), "--outage", "2026-03-02"],
        &["--demand", text(&rows), "--outage", "900/600"],
        &["--demand", text(&rows), "--outage", "1800/3600"],
        &["--demand", text(&accounting), "--outage", "2025-03-02T09:10:00/2025-03-02T09:20:00"],
        &["--demand", text(&accounting), "--pool-by", "account"],
        &["--demand", text(&accounting), "--from", "1990-01-01"],
        &["--demand", text(&table)],
        &["--demand", text(&binary)],
    ] {
        let printed = Terminal::default().run(&[&["estimate"], words].concat());
        assert!(printed.out.is_empty() && printed.status != ExitStatus::OK, "{words:?}");
        let short = words.iter().map(|word| word.rsplit('/').next().unwrap()).collect::<Vec<_>>().join(" ");
        said += &format!("{short}\n{}\n", printed.err.replace(text(&folder), "FOLDER"));
    }
    insta::assert_snapshot!(said);
}
