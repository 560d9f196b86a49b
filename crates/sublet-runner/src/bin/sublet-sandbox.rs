//! Runs one command in the local sandbox and prints what happens, one JSON object a line.
//!
//! `sublet-sandbox STATE_DIR [process|sandbox] -- COMMAND…`
//!
//! A tool for looking at the sandbox by hand and for measuring it; the crate's tests use the same binary as the sandbox's
//! first process and as a runner that can be killed.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sublet_core::Clock;
use sublet_core::error::{Error, Result};
use sublet_core::quantity::Bytes;
use sublet_core::runner::{AttemptEvent, AttemptLimits, AttemptSpec, IsolationLevel, Runner};
use sublet_core::time::{DurationMs, Timestamp};
use sublet_runner::local::{LocalRunner, LocalRunnerConfig};

const EVENTS_MAX: usize = 100;
const LOG_CHUNK_BYTES: usize = 64 * 1024;

struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this binary is where real time enters")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

fn main() -> ExitCode {
    sublet_runner::shim::main_if_requested();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:?}");
            ExitCode::from(error.code().exit_status())
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let separator = arguments.iter().position(|argument| argument == "--");
    let (Some(separator), Some(state_dir)) = (separator, arguments.first()) else {
        return Err(Error::new(sublet_core::ErrorCode::Usage, "usage: sublet-sandbox STATE_DIR [process|sandbox] -- COMMAND…"));
    };
    let strict = arguments.get(1).is_none_or(|level| level != IsolationLevel::Process.as_str());
    let level = if strict { IsolationLevel::Sandbox } else { IsolationLevel::Process };
    let (wake, woken): (SyncSender<()>, Receiver<()>) = sync_channel(1);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = LocalRunnerConfig {
        name: "local".to_owned(),
        state_dir: PathBuf::from(state_dir),
        shim: std::env::current_exe().map_err(|error| Error::internal(error.to_string()))?,
        cpu_slots: None,
        extra_toolchain: Vec::new(),
        configured_devices: Vec::new(),
        heartbeat: DurationMs::from_millis(100),
        clock: Arc::clone(&clock),
        on_event: Arc::new(move || {
            // One waiting signal is enough: the reader takes all events.
            let _ = wake.try_send(());
        }),
    };
    let runner = LocalRunner::open(config)?;
    print(&serde_json::json!({ "isolation": runner.isolation(), "level": runner.isolation().level() }))?;
    let spec = specification(&*clock, arguments.get(separator + 1..).unwrap_or(&[]), level)?;
    let placed_at = clock.now();
    runner.place(&spec)?;
    follow(&runner, &spec, &woken, placed_at)
}

fn specification(clock: &dyn Clock, command: &[String], level: IsolationLevel) -> Result<AttemptSpec> {
    let limits = AttemptLimits {
        memory: Bytes::new(256 * 1024 * 1024),
        disk: Bytes::new(64 * 1024 * 1024),
        log: Bytes::new(64 * 1024 * 1024),
        processes: 64,
        open_files: 1_024,
        cpu_millis: 1_000,
    };
    Ok(AttemptSpec {
        attempt: format!("att_{}", clock.now().micros()).parse()?,
        job: "job_byhand".parse()?,
        lease: "lease_byhand".parse()?,
        organization: "org_byhand".parse()?,
        command: command.to_vec(),
        environment: Default::default(),
        files: Default::default(),
        devices: Vec::new(),
        device_names: vec!["cpu-slot-0".to_owned()],
        limits,
        isolation_required: level,
        continues: Vec::new(),
    })
}

/// Prints events as they come and, at the end, the log and how long the start took.
fn follow(runner: &LocalRunner, spec: &AttemptSpec, woken: &Receiver<()>, placed_at: Timestamp) -> Result<()> {
    let mut seen = 0;
    loop {
        for event in runner.events_after(seen, EVENTS_MAX)? {
            seen = event.sequence;
            if event.attempt != spec.attempt {
                continue;
            }
            print(&serde_json::json!(event))?;
            match event.event {
                AttemptEvent::Started { at, .. } => {
                    let micros = at.micros() - placed_at.micros();
                    print(&serde_json::json!({ "start_latency_us": micros }))?;
                }
                AttemptEvent::Exited { .. } => return print_log(runner, spec),
                AttemptEvent::Alive { .. } | AttemptEvent::Contained { .. } => {}
            }
        }
        if woken.recv().is_err() {
            return Ok(());
        }
    }
}

fn print_log(runner: &LocalRunner, spec: &AttemptSpec) -> Result<()> {
    let mut offset = 0;
    loop {
        let chunk = runner.read_log(&spec.attempt, offset, LOG_CHUNK_BYTES)?;
        io::stderr().write_all(&chunk.bytes).map_err(|error| Error::internal(error.to_string()))?;
        offset = chunk.next_offset;
        if chunk.complete {
            return Ok(());
        }
    }
}

fn print(value: &serde_json::Value) -> Result<()> {
    writeln!(io::stdout(), "{value}").map_err(|error| Error::internal(error.to_string()))
}
