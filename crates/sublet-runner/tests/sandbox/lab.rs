//! A runner of its own for each test, and jobs to put into it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use sublet_core::Clock;
use sublet_core::id::AttemptId;
use sublet_core::quantity::Bytes;
use sublet_core::runner::{AttemptEvent, AttemptLimits, AttemptSpec, Exit, IsolationLevel, Runner};
use sublet_core::time::{DurationMs, Timestamp};
use sublet_runner::local::{ConfiguredDevice, LocalRunner, LocalRunnerConfig};

/// A condition that has not come true by then never will.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition that nothing announces is looked at.
const LOOK: Duration = Duration::from_millis(10);
const MEBIBYTE: i64 = 1024 * 1024;

/// Moves on by a millisecond whenever it is asked.
pub struct CountingClock(AtomicI64);

impl CountingClock {
    pub fn starting_at(millis: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(millis)))
    }
}

impl Clock for CountingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

pub struct Lab {
    pub runner: LocalRunner,
    woken: Receiver<()>,
    /// Last, so that it is deleted after the runner has stopped.
    pub directory: tempfile::TempDir,
}

#[derive(Default)]
pub struct Setup {
    pub extra_toolchain: Vec<PathBuf>,
    pub devices: Vec<ConfiguredDevice>,
}

pub fn config(state_dir: &Path, setup: Setup) -> (LocalRunnerConfig, Receiver<()>) {
    let (wake, woken) = sync_channel(1);
    let config = LocalRunnerConfig {
        name: "local".to_owned(),
        state_dir: state_dir.to_owned(),
        shim: PathBuf::from(env!("CARGO_BIN_EXE_sublet-sandbox")),
        cpu_slots: Some(4),
        extra_toolchain: setup.extra_toolchain,
        configured_devices: setup.devices,
        heartbeat: DurationMs::from_millis(20),
        clock: CountingClock::starting_at(1_000_000),
        on_event: Arc::new(move || {
            let _ = wake.try_send(());
        }),
    };
    (config, woken)
}

impl Lab {
    pub fn new() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup) -> Self {
        Self::open(tempfile::tempdir().unwrap(), setup)
    }

    pub fn open(directory: tempfile::TempDir, setup: Setup) -> Self {
        let (config, woken) = config(directory.path(), setup);
        let runner = LocalRunner::open(config).unwrap();
        assert_eq!(runner.isolation().level(), IsolationLevel::Sandbox, "{:?}", runner.isolation());
        Self { runner, woken, directory }
    }

    /// Stops the runner and starts another on the same directory.
    pub fn restart(self) -> Self {
        let Self { runner, woken, directory } = self;
        drop((runner, woken));
        Self::open(directory, Setup::default())
    }

    pub fn events(&self, attempt: &AttemptId) -> Vec<AttemptEvent> {
        let all = self.runner.events_after(0, 1_000).unwrap();
        all.into_iter().filter(|event| event.attempt == *attempt).map(|event| event.event).collect()
    }

    pub fn log(&self, attempt: &AttemptId) -> String {
        let mut text = Vec::new();
        loop {
            let chunk = self.runner.read_log(attempt, text.len().try_into().unwrap(), 1 << 20).unwrap();
            let done = chunk.bytes.is_empty();
            text.extend(chunk.bytes);
            if done {
                return String::from_utf8_lossy(&text).into_owned();
            }
        }
    }

    /// Waits until `look` finds something; fails after [`PATIENCE`].
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
            if let Some(found) = look() {
                return found;
            }
            let _ = self.woken.recv_timeout(LOOK);
        }
        panic!("{what} did not happen");
    }

    pub fn until_logged(&self, attempt: &AttemptId, text: &str) {
        self.until(&format!("'{text}' in the log"), || self.log(attempt).contains(text).then_some(()));
    }

    pub fn until_contained(&self, attempt: &AttemptId, limit: &str) {
        self.until(limit, || self.contained(attempt).contains(&limit.to_owned()).then_some(()));
    }

    pub fn contained(&self, attempt: &AttemptId) -> Vec<String> {
        let events = self.events(attempt).into_iter();
        events.filter_map(|event| if let AttemptEvent::Contained { what, .. } = event { Some(what) } else { None }).collect()
    }

    pub fn exit(&self, attempt: &AttemptId) -> Option<Exit> {
        self.events(attempt)
            .into_iter()
            .find_map(|event| if let AttemptEvent::Exited { exit, .. } = event { Some(exit) } else { None })
    }

    pub fn until_ended(&self, attempt: &AttemptId) -> Exit {
        self.until("the end", || self.exit(attempt))
    }

    /// Runs a job to its end.
    pub fn run(&self, spec: &AttemptSpec) -> (Exit, String) {
        self.runner.place(spec).unwrap();
        let exit = self.until_ended(&spec.attempt);
        (exit, self.log(&spec.attempt))
    }

    /// No process of the attempt is left: its control groups are gone, and only empty ones can be removed.
    pub fn assert_gone(&self, attempt: &AttemptId) {
        assert!(self.groups(attempt).is_empty(), "{:?}", self.groups(attempt));
    }

    /// Directories of control groups that exist for an attempt.
    pub fn groups(&self, attempt: &AttemptId) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
        while let Some((directory, depth)) = open.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
                if entry.file_name() == attempt.as_str() {
                    found.push(entry.path());
                } else if depth < 4 {
                    open.push((entry.path(), depth + 1));
                }
            }
        }
        found
    }
}

/// A job of its own name with generous limits.
pub fn job(name: &str, command: &[&str]) -> AttemptSpec {
    AttemptSpec {
        attempt: format!("att_{name}").parse().unwrap(),
        job: format!("job_{name}").parse().unwrap(),
        lease: "lease_1".parse().unwrap(),
        organization: "org_1".parse().unwrap(),
        command: command.iter().map(|argument| (*argument).to_owned()).collect(),
        environment: BTreeMap::new(),
        files: BTreeMap::new(),
        devices: Vec::new(),
        device_names: Vec::new(),
        limits: AttemptLimits {
            memory: Bytes::new(128 * MEBIBYTE),
            disk: Bytes::new(16 * MEBIBYTE),
            log: Bytes::new(MEBIBYTE),
            processes: 64,
            open_files: 256,
            cpu_millis: 2_000,
        },
        isolation_required: IsolationLevel::Sandbox,
        continues: Vec::new(),
    }
}

pub fn shell(name: &str, script: &str) -> AttemptSpec {
    job(name, &["sh", "-c", script])
}

pub fn perl(name: &str, script: &str) -> AttemptSpec {
    job(name, &["perl", "-e", script])
}
