use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sublet_core::id::{AttemptId, Identifier, JobId, LeaseId, OrganizationId};
use sublet_core::runner::{AttemptEvent, AttemptLimits, AttemptSpec, Exit, IsolationLevel, Notice, Runner, SequencedEvent};
use sublet_core::{Bytes, Clock, DurationMs, ErrorCode, Timestamp};

use super::fault::{FaultRate, Faults, seed_of};
use super::{Fleet, SimulatedRunner, SimulatedRunnerConfig};

struct TestClock(AtomicI64);

impl TestClock {
    fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock(AtomicI64::new(1_772_323_200_000)))
}

fn fleet() -> Fleet {
    let text = r#"{"seed":7,"start_seconds":2,"pools":[
        {"site":"site_north","kind":"h200","machines":2,"devices":4,"memory_gib":141},
        {"site":"site_south","kind":"a100","machines":1,"devices":2,"memory_gib":80}]}"#;
    Fleet::parse(text).unwrap()
}

fn runner_of(fleet: Fleet, directory: &Path, clock: &Arc<TestClock>) -> SimulatedRunner {
    SimulatedRunner::open(SimulatedRunnerConfig {
        name: "simulated:test".to_owned(),
        state_dir: directory.to_owned(),
        fleet,
        heartbeat: DurationMs::from_seconds(5),
        clock: Arc::<TestClock>::clone(clock),
    })
    .unwrap()
}

fn attempt(number: u8) -> AttemptId {
    AttemptId::encode(Timestamp::from_millis(1), [number; 10])
}

fn spec(number: u8, devices: &[&str], command: &str) -> AttemptSpec {
    let at = Timestamp::from_millis(1);
    AttemptSpec {
        attempt: attempt(number),
        job: JobId::encode(at, [number; 10]),
        lease: LeaseId::encode(at, [number; 10]),
        organization: OrganizationId::encode(at, [number; 10]),
        command: command.split(' ').map(str::to_owned).collect(),
        environment: std::collections::BTreeMap::new(),
        files: std::collections::BTreeMap::new(),
        devices: Vec::new(),
        device_names: devices.iter().map(|name| (*name).to_owned()).collect(),
        limits: AttemptLimits {
            memory: Bytes::new(1 << 30),
            disk: Bytes::new(1 << 30),
            log: Bytes::new(1 << 20),
            processes: 16,
            open_files: 64,
            cpu_millis: 1_000,
        },
        isolation_required: IsolationLevel::Sandbox,
        continues: Vec::new(),
    }
}

fn exit_of(events: &[SequencedEvent], number: u8) -> Option<(Timestamp, Exit)> {
    events.iter().filter(|event| event.attempt == attempt(number)).find_map(|event| match &event.event {
        AttemptEvent::Exited { at, exit, .. } => Some((*at, exit.clone())),
        AttemptEvent::Started { .. } | AttemptEvent::Alive { .. } | AttemptEvent::Contained { .. } => None,
    })
}

fn events(runner: &SimulatedRunner) -> Vec<SequencedEvent> {
    runner.events_after(0, 1_000).unwrap()
}

#[test]
fn work_starts_gives_proofs_of_life_and_ends_at_the_instant_it_said() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let runner = runner_of(fleet(), directory.path(), &clock);
    let placed = clock.now();
    runner.place(&spec(1, &["north-h200-001-0", "north-h200-001-1"], "simulate --seconds 60 --exit 3")).unwrap();
    assert!(events(&runner).is_empty(), "it has not started");
    clock.advance(30);
    let so_far = events(&runner);
    let started = placed.plus(DurationMs::from_seconds(2));
    assert!(matches!(&so_far[0].event, AttemptEvent::Started { at, .. } if *at == started), "{so_far:?}");
    assert!(so_far.iter().any(|event| matches!(event.event, AttemptEvent::Alive { at } if at == clock.now())), "{so_far:?}");
    assert_eq!(runner.snapshot().len(), 1);
    clock.advance(1_000);
    let end = (started.plus(DurationMs::from_seconds(60)), Exit::Code { code: 3 });
    assert_eq!(exit_of(&events(&runner), 1), Some(end), "however late anybody looks");
    assert!(runner.snapshot().is_empty());
    let log = runner.read_log(&attempt(1), 0, 1_000).unwrap();
    let text = String::from_utf8(log.bytes).unwrap();
    assert!(text.contains("began") && text.contains("exit code 3") && log.complete, "{text}");
    runner.forget(&attempt(1)).unwrap();
    assert_eq!(runner.read_log(&attempt(1), 0, 10).unwrap_err().code(), ErrorCode::NotFound);
}

#[test]
fn each_kind_of_workload_hears_of_its_end_in_its_way() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let runner = runner_of(fleet(), directory.path(), &clock);
    let commands =
        ["simulate --seconds 900 --end-on-notice 8", "simulate --seconds 900", "simulate --seconds 900 --ignore-signals"];
    for ((number, slot), command) in (1..).zip(0..).zip(commands) {
        runner.place(&spec(number, &[&format!("north-h200-002-{slot}")], command)).unwrap();
    }
    clock.advance(100);
    let told = clock.now();
    let notice = Notice { reason: "the owner needs it".to_owned(), deadline: told.plus(DurationMs::from_seconds(30)) };
    for number in 1..=3 {
        runner.notify(&attempt(number), &notice).unwrap();
    }
    clock.advance(30);
    for number in 1..=3 {
        runner.stop(&attempt(number), DurationMs::from_seconds(10)).unwrap();
    }
    clock.advance(60);
    let events = events(&runner);
    let after = |seconds: i64| told.plus(DurationMs::from_seconds(seconds));
    assert_eq!(exit_of(&events, 1), Some((after(8), Exit::Code { code: 0 })));
    assert_eq!(exit_of(&events, 2), Some((after(30), Exit::Stopped { forced: false })));
    assert_eq!(exit_of(&events, 3), Some((after(40), Exit::Stopped { forced: true })));
    assert_eq!(runner.notify(&attempt(2), &notice).unwrap_err().code(), ErrorCode::NotFound);
}

#[test]
fn what_is_live_outlives_the_control_plane_and_is_placed_once() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let placed = clock.now();
    let long = spec(1, &["south-a100-001-0"], "simulate --seconds 600");
    let before = {
        let runner = runner_of(fleet(), directory.path(), &clock);
        runner.place(&long).unwrap();
        clock.advance(20);
        events(&runner)
    };
    clock.advance(20);
    let runner = runner_of(fleet(), directory.path(), &clock);
    runner.place(&long).unwrap();
    assert_eq!(runner.snapshot().len(), 1, "no double start");
    assert!(events(&runner).starts_with(&before[..1]));
    clock.advance(1_000);
    let end = (placed.plus(DurationMs::from_seconds(602)), Exit::Code { code: 0 });
    assert_eq!(exit_of(&events(&runner), 1), Some(end));
    runner.place(&long).unwrap();
    assert!(runner.snapshot().is_empty(), "an attempt that has ended does not begin again");
}

#[test]
fn an_attempt_that_goes_on_has_only_the_rest_to_do() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let runner = runner_of(fleet(), directory.path(), &clock);
    let devices = ["south-a100-001-0"];
    let goes_on = |number: u8, earlier: &[u8], command: &str| AttemptSpec {
        continues: earlier.iter().map(|number| attempt(*number)).collect(),
        ..spec(number, &devices, command)
    };
    let command = "simulate --seconds 600 --checkpoint 60 --end-on-notice 5";
    runner.place(&goes_on(1, &[], command)).unwrap();
    clock.advance(2 + 150);
    let told = clock.now();
    runner
        .notify(&attempt(1), &Notice { reason: "reclaimed".to_owned(), deadline: told.plus(DurationMs::from_seconds(30)) })
        .unwrap();
    clock.advance(10);
    let left = (told.plus(DurationMs::from_seconds(5)), Exit::Code { code: 75 });
    assert_eq!(exit_of(&events(&runner), 1), Some(left), "told, it saves 150 s and leaves");
    runner.place(&goes_on(2, &[1], command)).unwrap();
    clock.advance(2 + 100);
    runner.stop(&attempt(2), DurationMs::ZERO).unwrap();
    clock.advance(1);
    assert!(exit_of(&events(&runner), 2).is_some(), "stopped without a word, it saved 60 s of its 100");
    let placed = clock.now();
    runner.place(&goes_on(3, &[2, 1], command)).unwrap();
    clock.advance(1_000);
    let end = (placed.plus(DurationMs::from_seconds(2 + 600 - 150 - 60)), Exit::Code { code: 0 });
    assert_eq!(exit_of(&events(&runner), 3), Some(end));
    let log = String::from_utf8(runner.read_log(&attempt(3), 0, 1_000).unwrap().bytes).unwrap();
    assert!(log.contains("goes on after 210 s"), "{log}");
}

#[test]
fn what_cannot_run_is_refused_with_what_would() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let runner = runner_of(fleet(), directory.path(), &clock);
    for command in
        ["./train.sh", "simulate", "simulate --seconds x", "simulate --seconds 5 --nice", "simulate --seconds 5 --exit 256"]
    {
        let refused = runner.place(&spec(1, &["north-h200-001-0"], command)).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidRequest, "{command}");
        assert!(refused.alternatives()[0].contains("simulate --seconds N"), "{refused:?}");
    }
    for devices in [&["north-h200-001-9"][..], &["north-h200-001-0", "north-h200-002-0"], &[]] {
        let refused = runner.place(&spec(1, devices, "simulate --seconds 5")).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::CapacityUnavailable, "{devices:?}");
    }
    runner.place(&spec(2, &["north-h200-001-0"], "simulate --seconds 5")).unwrap();
    let refused = runner.place(&spec(3, &["north-h200-001-0"], "simulate --seconds 5")).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Conflict);
}

#[test]
fn a_description_that_makes_no_sense_is_refused_with_an_example() {
    let pool = |rest: &str| format!(r#"{{"pools":[{{"site":"site_a","kind":"h200",{rest}}}]}}"#);
    let wrong = [
        "{}".to_owned(),
        r#"{"pools":[]}"#.to_owned(),
        pool(r#""machines":0,"devices":8,"memory_gib":80"#),
        pool(r#""machines":1,"devices":65,"memory_gib":80"#),
        pool(r#""machines":1,"devices":8,"memory_gib":80,"colour":"red""#),
        pool(r#""machines":2000,"devices":8,"memory_gib":80"#),
        r#"{"pools":[{"site":"site_a","kind":"h 200","machines":1,"devices":1,"memory_gib":1}]}"#.to_owned(),
        r#"{"faults":{"device":{"hours_between":0,"repair_minutes":1}},"pools":[{"site":"site_a","kind":"a","machines":1,"devices":1,"memory_gib":1}]}"#
            .to_owned(),
    ];
    for text in wrong {
        let refused = Fleet::parse(&text).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidRequest, "{text}");
        assert!(refused.alternatives()[0].contains("site_north"), "{refused:?}");
    }
    let twice = r#"{"site":"site_a","kind":"a","machines":1,"devices":1,"memory_gib":1}"#;
    assert!(Fleet::parse(&format!(r#"{{"pools":[{twice},{twice}]}}"#)).is_err());
}

#[test]
fn faults_come_as_often_as_said_and_the_same_every_time() {
    let rate = FaultRate { hours_between: 100, repair_minutes: 90 };
    let hours = |hours: i64| Timestamp::from_millis(hours * 3_600_000);
    let (mut count, mut down) = (0, 0);
    for part in 0..50 {
        let seed = seed_of(1, &format!("part-{part}"));
        let (mut from, until) = (hours(0), hours(10_000));
        while let Some(fault) = rate.first_between(seed, from, until) {
            count += 1;
            assert!(rate.is_down(seed, fault) && rate.is_down(seed, fault.plus(DurationMs::from_seconds(5_399))));
            from = fault;
        }
        down += (0..10_000).filter(|hour| rate.is_down(seed, hours(*hour))).count();
    }
    // 50 parts for 10,000 hours at one fault in 100 hours, 1.5 hours each.
    assert!((4_800..5_200).contains(&count), "{count} faults");
    assert!((6_900..8_000).contains(&down), "down in {down} of 500,000 hours");
}

#[test]
fn a_fault_ends_what_runs_there_and_takes_its_devices_away_until_they_are_mended() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
    let faults = Faults { machine: Some(FaultRate { hours_between: 48, repair_minutes: 120 }), device: None };
    let runner = runner_of(Fleet { faults, ..fleet() }, directory.path(), &clock);
    let name = "south-a100-001";
    let mut number = 0;
    let (mut lost, mut away) = (0, 0);
    for _ in 0..24 * 60 {
        clock.advance(3_600);
        let machine = runner.machines().into_iter().find(|machine| machine.name.as_deref() == Some(name)).unwrap();
        if machine.devices.is_empty() {
            away += 1;
            assert!(runner.snapshot().is_empty(), "nothing runs on a machine that is down");
            let refused = runner.place(&spec(200, &["south-a100-001-0"], "simulate --seconds 5")).unwrap_err();
            assert_eq!(refused.code(), ErrorCode::CapacityUnavailable);
            continue;
        }
        if runner.snapshot().is_empty() && number < 199 {
            number += 1;
            runner.place(&spec(number, &["south-a100-001-0"], "simulate --seconds 20000")).unwrap();
        }
    }
    for number in 1..=number {
        if let Some((_, Exit::Lost)) = exit_of(&runner.events_after(0, 10_000).unwrap(), number) {
            lost += 1;
        }
    }
    assert!(lost >= 3 && away >= 10, "{lost} lost, {away} hours away");
}
