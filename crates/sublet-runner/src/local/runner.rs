//! The runner: places attempts, keeps their log of intervals, and answers for them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, poll};
use rustix::time::Timespec;
use sublet_core::Clock;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::AttemptId;
use sublet_core::runner::{AttemptSpec, DeviceInfo, Isolation, LiveAttempt, LogChunk, Machine, Notice, Runner, SequencedEvent};
use sublet_core::time::DurationMs;

use super::artifact::{self, Artifact};
use super::attempt::{Attempt, Phase, lock};
use super::cgroup::Hierarchies;
use super::disk::Disks;
use super::inventory::{self, ConfiguredDevice};
use super::launch::{Host, remove_directory};
use super::shared::Shared;
use super::specification;
use crate::channel::Order;
use crate::directory::lock_directory;
use crate::journal::Journal;

/// Bytes of a log returned at once.
const LOG_READ_BYTES_MAX: usize = 1024 * 1024;
/// The shortest heartbeat.
const HEARTBEAT_MIN: DurationMs = DurationMs::from_millis(10);
/// What shutting down waits for beyond the grace it was given.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(15);
/// Host directories that hold programs and libraries.
const TOOLCHAIN: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32"];
/// Directories that every sandbox has of its own.
const OWN_DIRECTORIES: [&str; 9] = ["..", "dev", "etc", "proc", "run", "sys", "tmp", "var", "work"];

/// What a local runner needs.
pub struct LocalRunnerConfig {
    /// What attempts know it by: the same over restarts, another for every state directory.
    pub name: String,
    /// Where logs, work disks and the interval log live. Made if missing; used by one runner at a time.
    pub state_dir: PathBuf,
    /// A binary whose `main` begins with [`crate::shim::main_if_requested`]; usually the running one.
    pub shim: PathBuf,
    /// Processor slots to lease; `None` is one per core.
    pub cpu_slots: Option<u32>,
    /// Host directories with programs beyond the system's own. They appear read-only under the same path.
    pub extra_toolchain: Vec<PathBuf>,
    /// Devices that are described rather than found.
    pub configured_devices: Vec<ConfiguredDevice>,
    /// How often a proof of life is written.
    pub heartbeat: DurationMs,
    pub clock: Arc<dyn Clock>,
    /// Called, from any thread and without a lock held, when there are new events (not for proofs of life).
    pub on_event: Arc<dyn Fn() + Send + Sync>,
}

/// Runs attempts in sandboxes on this machine. Dropping it stops everything at once.
pub struct LocalRunner {
    shared: Arc<Shared>,
    heartbeat: Mutex<Option<JoinHandle<()>>>,
}

impl LocalRunner {
    /// Opens the state directory, closes what an earlier life left open, and tries what isolation is to be had.
    pub fn open(config: LocalRunnerConfig) -> Result<Self> {
        let internal = |step: &str| {
            let step = step.to_owned();
            move |error: io::Error| Error::internal(format!("{step}: {error}"))
        };
        let attempts_dir = config.state_dir.join("attempts");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&attempts_dir).map_err(internal("make the runner's directory"))?;
        let state_dir = config.state_dir.canonicalize().map_err(internal("find the runner's directory"))?;
        let attempts_dir = state_dir.join("attempts");
        let lock = lock_directory(&state_dir)?;
        let toolchain = toolchain(&config.extra_toolchain, &state_dir)?;
        let inode = fs::metadata(&state_dir).map_err(internal("look at the runner's directory"))?;
        let root = rustix::process::geteuid().is_root();
        let host = Host {
            shim: config.shim,
            root,
            hierarchies: Hierarchies::open(&format!("{:x}-{:x}", inode.dev(), inode.ino()), root),
            disks: Disks::find(root, state_dir.join("templates")).map_err(internal("make room for empty disks"))?,
            toolchain,
            user_block: Host::user_block_of(inode.ino()),
        };
        host.hierarchies.sweep();
        let journal = Journal::open(&state_dir.join("intervals.log")).map_err(internal("read the interval log"))?;
        let cores = std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok()).unwrap_or(1);
        let shared = Arc::new(Shared {
            name: config.name,
            clock: config.clock,
            on_event: config.on_event,
            attempts_dir,
            host,
            devices: inventory::list(config.cpu_slots.unwrap_or(cores), &config.configured_devices),
            isolation: Mutex::new(Isolation::default()),
            journal: Mutex::new(journal),
            attempts: Mutex::new(HashMap::new()),
            unrecorded: Mutex::new(Vec::new()),
            ended: Condvar::new(),
            closing: AtomicBool::new(false),
            quit: rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| Error::internal(error.to_string()))?,
            directory_lock: lock,
        });
        shared.recover().map_err(internal("close what was left open"))?;
        let runner = Self { heartbeat: Mutex::new(Some(start_heartbeat(&shared, config.heartbeat)?)), shared };
        if let Err(error) = runner.probe_isolation() {
            tracing::warn!(?error, "no sandbox can be built on this machine; every job will be refused");
        }
        Ok(runner)
    }

    /// The devices of this machine.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        self.shared.devices.iter().map(|device| device.info.clone()).collect()
    }

    /// What isolation an attempt would get now.
    pub fn isolation(&self) -> Isolation {
        lock(&self.shared.isolation).clone()
    }

    /// Builds a sandbox, sees what isolation it has, and throws it away.
    pub fn probe_isolation(&self) -> Result<Isolation> {
        let isolation = self.shared.probe()?;
        *lock(&self.shared.isolation) = isolation.clone();
        Ok(isolation)
    }

    /// The regular files in an attempt's work directory, until it is cleaned.
    pub fn artifacts(&self, attempt: &AttemptId) -> Result<Vec<Artifact>> {
        self.shared.with_work(attempt, |work| Ok(artifact::list(work)))
    }

    /// Part of a file in an attempt's work directory, from `offset`, at most `max` bytes.
    pub fn read_artifact(&self, attempt: &AttemptId, path: &Path, offset: u64, max: usize) -> Result<Vec<u8>> {
        self.shared.with_work(attempt, |work| artifact::read(work, path, offset, max))
    }

    /// Stops every attempt as [`Runner::stop`] does and waits until all have ended, or for the grace and a margin.
    pub fn shutdown(&self, grace: DurationMs) {
        self.shared.closing.store(true, Ordering::SeqCst);
        let live: Vec<Arc<Attempt>> = lock(&self.shared.attempts).values().filter(|attempt| attempt.is_live()).cloned().collect();
        for attempt in live {
            attempt.request_stop(grace);
        }
        let patience = Duration::from_millis(u64::try_from(grace.millis()).unwrap_or(0)).saturating_add(SHUTDOWN_MARGIN);
        let attempts = lock(&self.shared.attempts);
        let waited = self.shared.ended.wait_timeout_while(attempts, patience, |all| all.values().any(|attempt| attempt.is_live()));
        drop(waited);
        if let Some(heartbeat) = lock(&self.heartbeat).take() {
            let _ = rustix::io::write(&self.shared.quit, &1_u64.to_ne_bytes());
            let _ = heartbeat.join();
            self.shared.host.hierarchies.remove_empty();
        }
    }
}

impl Drop for LocalRunner {
    fn drop(&mut self) {
        self.shutdown(DurationMs::ZERO);
        // Said aloud: a child that is just being started still holds a copy of the descriptor.
        let _ = rustix::fs::flock(&self.shared.directory_lock, rustix::fs::FlockOperation::Unlock);
    }
}

/// The directories every sandbox sees. The runner's own must not be among them, or tenants would see each other.
fn toolchain(extra: &[PathBuf], state_dir: &Path) -> Result<Vec<PathBuf>> {
    if let Some(path) = extra.iter().find(|path| !can_be_shown(path)) {
        let message = format!("{} cannot be shown to jobs, because a directory of the sandbox is there", path.display());
        return Err(Error::new(ErrorCode::InvalidRequest, message).alternative("keep programs below /opt"));
    }
    let all: Vec<PathBuf> = TOOLCHAIN.iter().map(PathBuf::from).chain(extra.iter().cloned()).collect();
    for path in &all {
        if path.canonicalize().is_ok_and(|real| state_dir.starts_with(real)) {
            let message = format!("the data directory lies below {}, which every job can read", path.display());
            return Err(Error::new(ErrorCode::InvalidRequest, message).alternative("choose a data directory elsewhere"));
        }
    }
    Ok(all)
}

/// Whether a host directory can appear under its own path beside what the sandbox puts there itself.
fn can_be_shown(path: &Path) -> bool {
    let mut parts = path.components();
    let absolute = parts.next() == Some(Component::RootDir);
    let top = parts.next().map(|part| part.as_os_str().to_owned());
    let plain = parts.all(|part| matches!(part, Component::Normal(_)));
    absolute && plain && top.is_some_and(|top| !OWN_DIRECTORIES.iter().any(|own| *own == top))
}

fn start_heartbeat(shared: &Arc<Shared>, interval: DurationMs) -> Result<JoinHandle<()>> {
    let interval = interval.max(HEARTBEAT_MIN).millis();
    let pause = Timespec { tv_sec: interval.div_euclid(1_000), tv_nsec: interval.rem_euclid(1_000) * 1_000_000 };
    let shared = Arc::clone(shared);
    let beat = move || {
        // An interruption by a signal only makes one beat early.
        while poll(&mut [PollFd::new(&shared.quit, PollFlags::IN)], Some(&pause)).unwrap_or(0) == 0 {
            shared.beat();
        }
    };
    std::thread::Builder::new().name("runner-heartbeat".to_owned()).spawn(beat).map_err(|error| Error::internal(error.to_string()))
}

impl Runner for LocalRunner {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn machines(&self) -> Vec<Machine> {
        vec![Machine { name: None, site: None, isolation: self.isolation(), devices: self.devices() }]
    }

    fn place(&self, spec: &AttemptSpec) -> Result<()> {
        specification::check(spec)?;
        let Some((attempt, devices)) = self.shared.admit(spec)? else { return Ok(()) };
        let outcome = self.shared.launch(&attempt, spec, &devices);
        if outcome.is_err() {
            attempt.state().phase = Phase::Ended;
            lock(&self.shared.attempts).remove(&spec.attempt);
            self.shared.ended.notify_all();
            let _ = remove_directory(&attempt.directory);
        }
        outcome
    }

    fn notify(&self, attempt: &AttemptId, notice: &Notice) -> Result<()> {
        let missing = || Error::new(ErrorCode::NotFound, format!("{attempt} is not running"));
        let live = self.shared.find(attempt).filter(|attempt| attempt.is_live()).ok_or_else(missing)?;
        let body = serde_json::json!({
            "action": "stop",
            "reason": notice.reason,
            "deadline": notice.deadline.to_string(),
            "deadline_unix_ms": notice.deadline.millis(),
        });
        let write = || -> io::Result<()> {
            // Renamed into place, so that the job never reads half a notice.
            let (beside, path) = (live.notices_path().join(".notice.json.new"), live.notices_path().join("notice.json"));
            let mut file = File::create(&beside)?;
            file.write_all(body.to_string().as_bytes())?;
            rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o644))?;
            fs::rename(&beside, &path)
        };
        write().map_err(|error| Error::internal(format!("write a notice: {error}")))?;
        let control = live.state().control.clone();
        if let Some(control) = control {
            // The file is the promise; the signal only makes it known sooner.
            let _ = control.send_at_once(&Order::Notice);
        }
        Ok(())
    }

    fn stop(&self, attempt: &AttemptId, grace: DurationMs) -> Result<()> {
        if let Some(attempt) = self.shared.find(attempt) {
            attempt.request_stop(grace);
        }
        Ok(())
    }

    fn events_after(&self, sequence: u64, max: usize) -> Result<Vec<SequencedEvent>> {
        Ok(lock(&self.shared.journal).events_after(sequence, max))
    }

    fn snapshot(&self) -> Vec<LiveAttempt> {
        let attempts: Vec<Arc<Attempt>> = lock(&self.shared.attempts).values().cloned().collect();
        let mut live = Vec::new();
        for attempt in attempts {
            let state = attempt.state();
            if state.phase != Phase::Ended {
                let (started_at, last_alive_at) = (state.started_at, state.last_alive_at);
                live.push(LiveAttempt { attempt: attempt.id.clone(), started_at, last_alive_at });
            }
        }
        live.sort_by(|a, b| a.attempt.cmp(&b.attempt));
        live
    }

    fn read_log(&self, attempt: &AttemptId, offset: u64, max: usize) -> Result<LogChunk> {
        // Asked before reading: what is written after the answer belongs to the next chunk.
        let ended = self.shared.find(attempt).is_none_or(|attempt| !attempt.is_live());
        let path = self.shared.attempts_dir.join(attempt.as_str()).join("log");
        let file = File::open(path).map_err(|_| Error::new(ErrorCode::NotFound, format!("there is no log of {attempt}")))?;
        let mut bytes = vec![0; max.min(LOG_READ_BYTES_MAX)];
        let count = file.read_at(&mut bytes, offset).map_err(|error| Error::internal(format!("read a log: {error}")))?;
        bytes.truncate(count);
        let next_offset = offset.saturating_add(u64::try_from(count).unwrap_or(0));
        let length = file.metadata().map_err(|error| Error::internal(format!("read a log: {error}")))?.len();
        Ok(LogChunk { bytes, next_offset, complete: ended && next_offset >= length })
    }

    fn clean(&self, attempt: &AttemptId) -> Result<()> {
        if let Some(ended) = self.shared.require_ended(attempt)? {
            ended.state().work = None;
        }
        let directory = self.shared.attempts_dir.join(attempt.as_str());
        for remains in ["disk.img", "root", "run"] {
            let path = directory.join(remains);
            let removed = if remains == "disk.img" { fs::remove_file(&path) } else { fs::remove_dir_all(&path) };
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(Error::internal(format!("clean {attempt}: {error}")));
            }
        }
        Ok(())
    }

    fn forget(&self, attempt: &AttemptId) -> Result<()> {
        if let Some(ended) = self.shared.require_ended(attempt)? {
            ended.state().work = None;
        }
        remove_directory(&self.shared.attempts_dir.join(attempt.as_str()))
            .and_then(|()| lock(&self.shared.journal).forget(attempt))
            .map_err(|error| Error::internal(format!("forget {attempt}: {error}")))?;
        lock(&self.shared.attempts).remove(attempt);
        Ok(())
    }
}
