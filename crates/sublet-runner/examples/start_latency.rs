//! Measures how long a job waits from its placement to its first instruction, and how long its end takes.
//!
//! `cargo run --release -p sublet-runner --example start_latency [COUNT]`
//!
//! The first figure is taken by the job itself: it prints the kernel's clock, which is compared with the same clock
//! read before the placement. Root is needed for the full sandbox; the isolation measured is printed.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use sublet_core::Clock;
use sublet_core::error::{Error, Result};
use sublet_core::quantity::Bytes;
use sublet_core::runner::{AttemptEvent, AttemptLimits, AttemptSpec, Exit, IsolationLevel, Runner};
use sublet_core::time::{DurationMs, Timestamp};
use sublet_runner::local::{LocalRunner, LocalRunnerConfig};

const COUNT_DEFAULT: u32 = 50;

struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "a measurement needs real time")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

fn main() -> ExitCode {
    sublet_runner::shim::main_if_requested();
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(COUNT_DEFAULT);
    let directory = tempfile::tempdir().map_err(|error| Error::internal(error.to_string()))?;
    let (wake, woken) = sync_channel(1);
    let runner = LocalRunner::open(LocalRunnerConfig {
        name: "local".to_owned(),
        state_dir: directory.path().to_owned(),
        shim: std::env::current_exe().map_err(|error| Error::internal(error.to_string()))?,
        cpu_slots: None,
        extra_toolchain: Vec::new(),
        configured_devices: Vec::new(),
        heartbeat: DurationMs::from_seconds(1),
        clock: Arc::new(SystemClock),
        on_event: Arc::new(move || {
            let _ = wake.try_send(());
        }),
    })?;
    let (mut placed, mut first, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let (place_us, first_us, whole_us) = one(&runner, &woken, number)?;
        placed.push(place_us);
        first.push(first_us);
        whole.push(whole_us);
    }
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{count} jobs one after another; isolation {:?}", runner.isolation().level());
    for (name, figures) in [("place() returned", placed), ("first instruction", first), ("end written down", whole)] {
        let _ = writeln!(out, "{name}: {}", summary(figures));
    }
    Ok(())
}

/// Microseconds from the call until it returned, until the job's first instruction, and until the job's end was on disk.
fn one(runner: &LocalRunner, woken: &Receiver<()>, number: u32) -> Result<(i64, i64, i64)> {
    let spec = specification(number)?;
    let before = SystemClock.now();
    runner.place(&spec)?;
    let returned = SystemClock.now();
    let ended = loop {
        let events = runner.events_after(0, 100)?;
        let exit = events
            .into_iter()
            .find_map(|event| if let AttemptEvent::Exited { exit, .. } = event.event { Some(exit) } else { None });
        match exit {
            Some(Exit::Code { code: 0 }) => break SystemClock.now(),
            Some(other) => return Err(Error::internal(format!("the job ended with {other:?}"))),
            None => {
                let _ = woken.recv();
            }
        }
    };
    let log =
        String::from_utf8(runner.read_log(&spec.attempt, 0, 100)?.bytes).map_err(|error| Error::internal(error.to_string()))?;
    let nanos: i64 = log.trim().parse().map_err(|error| Error::internal(format!("the job printed {log:?}: {error}")))?;
    runner.forget(&spec.attempt)?;
    Ok((returned.micros() - before.micros(), nanos / 1_000 - before.micros(), ended.micros() - before.micros()))
}

fn specification(number: u32) -> Result<AttemptSpec> {
    Ok(AttemptSpec {
        attempt: format!("att_{number}").parse()?,
        job: format!("job_{number}").parse()?,
        lease: "lease_1".parse()?,
        organization: "org_1".parse()?,
        command: ["date", "+%s%N"].map(str::to_owned).to_vec(),
        environment: Default::default(),
        files: Default::default(),
        devices: Vec::new(),
        device_names: vec!["cpu-slot-0".to_owned()],
        limits: AttemptLimits {
            memory: Bytes::new(1024 * 1024 * 1024),
            disk: Bytes::new(1024 * 1024 * 1024),
            log: Bytes::new(1024 * 1024),
            processes: 256,
            open_files: 1_024,
            cpu_millis: 1_000,
        },
        isolation_required: IsolationLevel::Process,
        continues: Vec::new(),
    })
}

fn summary(mut micros: Vec<i64>) -> String {
    micros.sort_unstable();
    let at = |percent: usize| micros.get((micros.len() - 1) * percent / 100).copied().unwrap_or(0) / 100;
    let shown = |tenths: i64| format!("{}.{}", tenths / 10, tenths % 10);
    format!("median {} ms, p90 {} ms, max {} ms", shown(at(50)), shown(at(90)), shown(at(100)))
}
