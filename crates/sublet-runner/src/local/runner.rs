//! The runner: places attempts, keeps their log of intervals, and answers for them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, poll};
use rustix::time::Timespec;
use sublet_core::Clock;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::AttemptId;
use sublet_core::quantity::Bytes;
use sublet_core::runner::{
    AttemptEvent, AttemptLimits, AttemptSpec, DeviceInfo, Exit, Isolation, IsolationLevel, LiveAttempt, LogChunk, Notice, Runner,
    SequencedEvent,
};
use sublet_core::time::DurationMs;

use super::artifact::{self, Artifact};
use super::attempt::{Attempt, Phase, lock};
use super::cgroup::Hierarchies;
use super::disk::{self, Disks};
use super::inventory::{self, ConfiguredDevice, Device};
use super::journal::{Durability, Journal};
use super::launch::{HOST_USERS, Host, remove_directory};
use super::specification;
use super::watch::{DISK_LIMIT, Log, MEMORY_LIMIT, PROCESS_LIMIT, Watch};

/// Attempts that live at the same time.
const LIVE_ATTEMPTS_MAX: usize = 256;
/// Attempts that are kept, ended ones included, until they are forgotten.
const KEPT_ATTEMPTS_MAX: usize = 10_000;
/// Bytes of a log returned at once.
const LOG_READ_BYTES_MAX: usize = 1024 * 1024;
/// The shortest heartbeat.
const HEARTBEAT_MIN: DurationMs = DurationMs::from_millis(10);
/// What shutting down waits for beyond the grace it was given.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(15);
/// Host directories that hold programs and libraries.
const TOOLCHAIN: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32"];
/// What is free on a work disk below which it counts as full.
const DISK_FULL_BYTES: u64 = 16 * 1024;

/// What a local runner needs.
pub struct LocalRunnerConfig {
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
    inner: Arc<Inner>,
    heartbeat: Mutex<Option<JoinHandle<()>>>,
}

/// What the runner's threads share.
pub struct Inner {
    pub clock: Arc<dyn Clock>,
    on_event: Arc<dyn Fn() + Send + Sync>,
    attempts_dir: PathBuf,
    host: Host,
    devices: Vec<Device>,
    isolation: Mutex<Isolation>,
    journal: Mutex<Journal>,
    attempts: Mutex<HashMap<AttemptId, Arc<Attempt>>>,
    /// Ends that could not be written yet.
    unrecorded: Mutex<Vec<(AttemptId, AttemptEvent)>>,
    /// Signalled when an attempt has ended.
    ended: Condvar,
    closing: AtomicBool,
    /// Readable when the heartbeat shall end.
    quit: std::os::fd::OwnedFd,
    /// Held while this runner uses the directory.
    _lock: File,
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
            disks: Disks::find(root),
            toolchain,
            user_block: Host::user_block_of(inode.ino()),
        };
        host.hierarchies.sweep();
        let journal = Journal::open(&state_dir.join("intervals.log")).map_err(internal("read the interval log"))?;
        let cores = std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok()).unwrap_or(1);
        let inner = Arc::new(Inner {
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
            _lock: lock,
        });
        inner.recover().map_err(internal("close what was left open"))?;
        let runner = Self { heartbeat: Mutex::new(Some(start_heartbeat(&inner, config.heartbeat)?)), inner };
        if let Err(error) = runner.probe_isolation() {
            tracing::warn!(?error, "no sandbox can be built on this machine; every job will be refused");
        }
        Ok(runner)
    }

    /// Builds a sandbox, sees what isolation it has, and throws it away.
    pub fn probe_isolation(&self) -> Result<Isolation> {
        let isolation = self.inner.probe()?;
        *lock(&self.inner.isolation) = isolation.clone();
        Ok(isolation)
    }

    /// The regular files in an attempt's work directory, until it is cleaned.
    pub fn artifacts(&self, attempt: &AttemptId) -> Result<Vec<Artifact>> {
        self.inner.with_work(attempt, |work| Ok(artifact::list(work)))
    }

    /// Part of a file in an attempt's work directory, from `offset`, at most `max` bytes.
    pub fn read_artifact(&self, attempt: &AttemptId, path: &std::path::Path, offset: u64, max: usize) -> Result<Vec<u8>> {
        self.inner.with_work(attempt, |work| artifact::read(work, path, offset, max))
    }

    /// Stops every attempt as [`Runner::stop`] does and waits until all have ended, or for the grace and a margin.
    pub fn shutdown(&self, grace: DurationMs) {
        self.inner.closing.store(true, Ordering::SeqCst);
        let live: Vec<Arc<Attempt>> = lock(&self.inner.attempts).values().filter(|attempt| attempt.is_live()).cloned().collect();
        for attempt in live {
            attempt.request_stop(grace);
        }
        let patience = Duration::from_millis(u64::try_from(grace.millis()).unwrap_or(0)).saturating_add(SHUTDOWN_MARGIN);
        let attempts = lock(&self.inner.attempts);
        let waited = self.inner.ended.wait_timeout_while(attempts, patience, |all| all.values().any(|attempt| attempt.is_live()));
        drop(waited);
        if let Some(heartbeat) = lock(&self.heartbeat).take() {
            let _ = rustix::io::write(&self.inner.quit, &1_u64.to_ne_bytes());
            let _ = heartbeat.join();
        }
    }
}

impl Drop for LocalRunner {
    fn drop(&mut self) {
        self.shutdown(DurationMs::ZERO);
    }
}

fn lock_directory(state_dir: &std::path::Path) -> Result<File> {
    let path = state_dir.join("lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| Error::internal(format!("open the runner's lock: {error}")))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::new(ErrorCode::DataDirectoryBusy, "another process runs jobs from this data directory")
            .alternative("stop it or choose another data directory")
    })?;
    Ok(file)
}

/// The directories every sandbox sees. The runner's own must not be among them, or tenants would see each other.
fn toolchain(extra: &[PathBuf], state_dir: &std::path::Path) -> Result<Vec<PathBuf>> {
    let all: Vec<PathBuf> = TOOLCHAIN.iter().map(PathBuf::from).chain(extra.iter().cloned()).collect();
    for path in &all {
        if path.canonicalize().is_ok_and(|real| state_dir.starts_with(real)) {
            let message = format!("the data directory lies below {}, which every job can read", path.display());
            return Err(Error::new(ErrorCode::InvalidRequest, message).alternative("choose a data directory elsewhere"));
        }
    }
    Ok(all)
}

fn start_heartbeat(inner: &Arc<Inner>, interval: DurationMs) -> Result<JoinHandle<()>> {
    let interval = interval.max(HEARTBEAT_MIN).millis();
    let pause = Timespec { tv_sec: interval.div_euclid(1_000), tv_nsec: interval.rem_euclid(1_000) * 1_000_000 };
    let inner = Arc::clone(inner);
    let beat = move || {
        // An interruption by a signal only makes one beat early.
        while poll(&mut [PollFd::new(&inner.quit, PollFlags::IN)], Some(&pause)).unwrap_or(0) == 0 {
            inner.beat();
        }
    };
    std::thread::Builder::new().name("runner-heartbeat".to_owned()).spawn(beat).map_err(|error| Error::internal(error.to_string()))
}

impl Inner {
    pub fn wake(&self) {
        (self.on_event)();
    }

    pub fn record(&self, attempt: &Attempt, event: AttemptEvent, durability: Durability) -> io::Result<()> {
        lock(&self.journal).record(vec![(attempt.id.clone(), event)], durability)
    }

    /// Writes an end down; if that fails now, the heartbeat tries again.
    pub fn record_end(&self, attempt: &Attempt, event: AttemptEvent) {
        if let Err(error) = self.record(attempt, event.clone(), Durability::Synced) {
            tracing::error!(attempt = %attempt.id, %error, "an end could not be written down yet");
            lock(&self.unrecorded).push((attempt.id.clone(), event));
        }
        let attempts = lock(&self.attempts);
        self.ended.notify_all();
        drop(attempts);
        self.wake();
    }

    /// Reports once that a limit acted.
    pub fn contain(&self, attempt: &Attempt, what: &'static str) {
        if !attempt.state().contained.insert(what) {
            return;
        }
        let event = AttemptEvent::Contained { at: self.clock.now(), what: what.to_owned() };
        if let Err(error) = self.record(attempt, event, Durability::Written) {
            tracing::error!(attempt = %attempt.id, %error, "a containment could not be written down");
        }
        self.wake();
    }

    /// Looks whether limits acted. An attempt that hit its memory limit is ended as a whole.
    pub fn check_limits(&self, attempt: &Attempt) {
        let (leaf, full) = {
            let state = attempt.state();
            let space = state.work.as_ref().and_then(|work| rustix::fs::fstatvfs(work).ok());
            (state.leaf.clone(), space.is_some_and(|space| space.f_bavail.saturating_mul(space.f_frsize) < DISK_FULL_BYTES))
        };
        let counters = leaf.counters();
        if counters.process_refusals > 0 {
            self.contain(attempt, PROCESS_LIMIT);
        }
        if full {
            self.contain(attempt, DISK_LIMIT);
        }
        if counters.memory_kills > 0 {
            self.contain(attempt, MEMORY_LIMIT);
            leaf.kill();
        }
    }

    /// One proof of life for every running attempt, written together.
    fn beat(&self) {
        let all: Vec<Arc<Attempt>> = lock(&self.attempts).values().cloned().collect();
        let running: Vec<Arc<Attempt>> = all
            .into_iter()
            .filter(|attempt| attempt.state().phase == Phase::Running && attempt.state().started_at.is_some())
            .collect();
        for attempt in &running {
            self.check_limits(attempt);
        }
        let at = self.clock.now();
        let mut events = Vec::new();
        for attempt in &running {
            let mut state = attempt.state();
            if state.phase == Phase::Running {
                state.last_alive_at = Some(at);
                events.push((attempt.id.clone(), AttemptEvent::Alive { at }));
            }
        }
        if !events.is_empty()
            && let Err(error) = lock(&self.journal).record(events, Durability::Written)
        {
            tracing::error!(%error, "proofs of life could not be written");
        }
        self.record_late_ends();
    }

    fn record_late_ends(&self) {
        let mut late = lock(&self.unrecorded);
        if late.is_empty() {
            return;
        }
        if lock(&self.journal).record(late.clone(), Durability::Synced).is_ok() {
            late.clear();
            drop(late);
            self.wake();
        }
    }

    /// Ends, in the log, what an earlier life of the runner did not, and deletes what nobody knows.
    fn recover(&self) -> io::Result<()> {
        let mut journal = lock(&self.journal);
        let mut ends = Vec::new();
        for unfinished in journal.unfinished() {
            let exit = if unfinished.started {
                Exit::Lost
            } else {
                Exit::NotStarted { reason: "the runner stopped before the start".into() }
            };
            let at = unfinished.last_proof_of_life;
            let event = AttemptEvent::Exited { at, exit, cpu_time: DurationMs::ZERO, peak_memory: Bytes::ZERO };
            ends.push((unfinished.attempt, event));
        }
        if !ends.is_empty() {
            journal.record(ends, Durability::Synced)?;
        }
        for entry in fs::read_dir(&self.attempts_dir)? {
            let entry = entry?;
            let known = entry.file_name().to_str().and_then(|name| name.parse().ok()).is_some_and(|id| journal.knows(&id));
            if !known {
                remove_directory(&entry.path())?;
            }
        }
        Ok(())
    }

    fn find(&self, attempt: &AttemptId) -> Option<Arc<Attempt>> {
        lock(&self.attempts).get(attempt).cloned()
    }

    fn probe(&self) -> Result<Isolation> {
        let id = "att_0probe".parse()?;
        let attempt = Attempt::new(id, self.attempts_dir.join("probe"), Vec::new(), HOST_USERS - 1);
        let attempt = attempt.map_err(|error| Error::internal(error.to_string()))?;
        let spec = probe_specification(&attempt.id)?;
        let prepared = self.host.prepare(&attempt, &spec, &[]);
        let isolation = prepared.map(|mut prepared| {
            drop(prepared.control);
            let _ = prepared.child.kill();
            let _ = prepared.child.wait();
            prepared.leaf.kill();
            prepared.leaf.remove();
            prepared.isolation
        });
        let _ = remove_directory(&attempt.directory);
        isolation
    }

    /// Takes the devices for an attempt, or finds that it exists already.
    fn admit(&self, spec: &AttemptSpec) -> Result<Option<(Arc<Attempt>, Vec<Device>)>> {
        let mut attempts = lock(&self.attempts);
        let (known, kept) = {
            let journal = lock(&self.journal);
            (journal.knows(&spec.attempt), journal.attempts())
        };
        if known || attempts.contains_key(&spec.attempt) {
            return Ok(None);
        }
        if self.closing.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorCode::ShuttingDown, "the runner is stopping"));
        }
        let live: Vec<&Arc<Attempt>> = attempts.values().filter(|attempt| attempt.is_live()).collect();
        if live.len() >= LIVE_ATTEMPTS_MAX || kept >= KEPT_ATTEMPTS_MAX {
            return Err(Error::new(ErrorCode::CapacityUnavailable, "this machine runs or keeps as many jobs as it can"));
        }
        let mut devices = Vec::new();
        for name in &spec.device_names {
            let device = self.devices.iter().find(|device| device.info.name == *name);
            let device = device.ok_or_else(|| {
                Error::new(ErrorCode::InvalidRequest, format!("there is no device '{name}' on this machine")).param("device_names")
            })?;
            if live.iter().any(|attempt| attempt.devices.contains(name)) {
                return Err(Error::new(ErrorCode::CapacityUnavailable, format!("the device '{name}' is in use")));
            }
            devices.push(device.clone());
        }
        let user_index = (0..HOST_USERS - 1).find(|index| live.iter().all(|attempt| attempt.user_index != *index)).unwrap_or(0);
        let directory = self.attempts_dir.join(spec.attempt.as_str());
        let attempt = Attempt::new(spec.attempt.clone(), directory, spec.device_names.clone(), user_index)
            .map_err(|error| Error::internal(error.to_string()))?;
        let attempt = Arc::new(attempt);
        attempts.insert(spec.attempt.clone(), Arc::clone(&attempt));
        Ok(Some((attempt, devices)))
    }

    /// Builds the sandbox, judges it, writes the placement down and gives the word.
    fn launch(self: &Arc<Self>, attempt: &Arc<Attempt>, spec: &AttemptSpec, devices: &[Device]) -> Result<()> {
        let mut prepared = self.host.prepare(attempt, spec, devices)?;
        let judged = judge(&prepared.isolation, spec.isolation_required).and_then(|()| {
            let log = File::options().append(true).open(attempt.log_path());
            let log = log.map_err(|error| Error::internal(format!("open the log: {error}")))?;
            let placed = lock(&self.journal).place(&attempt.id, self.clock.now());
            placed.map(|()| log).map_err(|error| Error::internal(format!("write the placement down: {error}")))
        });
        let log = match judged {
            Ok(log) => log,
            Err(error) => {
                drop(prepared.control);
                let _ = prepared.child.kill();
                let _ = prepared.child.wait();
                prepared.leaf.remove();
                return Err(error);
            }
        };
        let control = Arc::new(prepared.control);
        let watch = Watch {
            inner: Arc::clone(self),
            attempt: Arc::clone(attempt),
            child: prepared.child,
            control: Some(Arc::clone(&control)),
            output: Some(prepared.output),
            log: Log { file: log, left: spec.limits.log },
            isolation: prepared.isolation,
        };
        let mut state = attempt.state();
        state.phase = Phase::Running;
        state.work = prepared.work;
        state.leaf = prepared.leaf;
        state.control = Some(Arc::clone(&control));
        // A sandbox that cannot be told to go says so by ending, which its thread sees.
        let _ = control.send_at_once(&crate::channel::Order::Go);
        if state.stop_requested {
            let _ = control.send_at_once(&crate::channel::Order::Terminate);
        }
        drop(state);
        drop(control);
        let thread = std::thread::Builder::new().name("attempt".to_owned());
        thread.spawn(move || watch.run()).map(drop).map_err(|error| Error::internal(format!("start the attempt's thread: {error}")))
    }

    fn with_work<T>(&self, id: &AttemptId, read: impl FnOnce(&std::os::fd::OwnedFd) -> Result<T>) -> Result<T> {
        let missing = || Error::new(ErrorCode::NotFound, format!("the work directory of {id} is not kept any more"));
        if let Some(attempt) = self.find(id) {
            let work = attempt.state().work.as_ref().map(std::os::fd::OwnedFd::try_clone).transpose();
            let work = work.map_err(|error| Error::internal(error.to_string()))?.ok_or_else(missing)?;
            return read(&work);
        }
        // After a restart the descriptor is gone, but a disk image is not.
        let image = self.attempts_dir.join(id.as_str()).join("disk.img");
        if !image.exists() {
            return Err(missing());
        }
        let work = disk::open_image(&image).map_err(|error| Error::internal(format!("open a work disk: {error}")))?;
        read(&work)
    }

    fn require_ended(&self, id: &AttemptId) -> Result<Option<Arc<Attempt>>> {
        match self.find(id) {
            Some(attempt) if attempt.is_live() => {
                Err(Error::new(ErrorCode::Conflict, format!("{id} is still running")).alternative("stop it first"))
            }
            other => Ok(other),
        }
    }
}

/// A sandbox for nothing, as small as can be.
fn probe_specification(attempt: &AttemptId) -> Result<AttemptSpec> {
    let limits = AttemptLimits {
        memory: Bytes::new(64 * 1024 * 1024),
        disk: Bytes::new(4 * 1024 * 1024),
        log: Bytes::ZERO,
        processes: 8,
        open_files: 64,
        cpu_millis: 1_000,
    };
    Ok(AttemptSpec {
        attempt: attempt.clone(),
        job: "job_0probe".parse()?,
        lease: "lease_0probe".parse()?,
        organization: "org_0probe".parse()?,
        command: vec!["true".to_owned()],
        environment: Default::default(),
        files: Default::default(),
        devices: Vec::new(),
        device_names: Vec::new(),
        limits,
        isolation_required: IsolationLevel::Process,
    })
}

/// Refuses isolation below what is required, and says what is missing.
fn judge(achieved: &Isolation, required: IsolationLevel) -> Result<()> {
    if achieved.level() >= required {
        return Ok(());
    }
    let missing: Vec<&str> = [
        ("a process namespace", achieved.pid_namespace),
        ("a mount namespace", achieved.mount_namespace),
        ("a network namespace", achieved.network_namespace),
        ("an IPC namespace", achieved.ipc_namespace),
        ("system call filters", achieved.seccomp),
        ("no_new_privs", achieved.no_new_privileges),
        ("a memory limit", achieved.cgroup_memory),
        ("a process limit", achieved.cgroup_pids),
        ("a disk limit", achieved.disk_quota),
    ]
    .into_iter()
    .filter_map(|(name, present)| (!present).then_some(name))
    .collect();
    let message = format!("this machine cannot isolate a job as '{}' requires: missing {}", required.as_str(), missing.join(", "));
    Err(Error::new(ErrorCode::PolicyRefused, message).alternative("run the cloud as root, or with delegated control groups"))
}

impl Runner for LocalRunner {
    fn name(&self) -> &str {
        "local"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        self.inner.devices.iter().map(|device| device.info.clone()).collect()
    }

    fn isolation(&self) -> Isolation {
        lock(&self.inner.isolation).clone()
    }

    fn place(&self, spec: &AttemptSpec) -> Result<()> {
        specification::check(spec)?;
        let Some((attempt, devices)) = self.inner.admit(spec)? else { return Ok(()) };
        let outcome = self.inner.launch(&attempt, spec, &devices);
        if outcome.is_err() {
            lock(&self.inner.attempts).remove(&spec.attempt);
            attempt.state().phase = Phase::Ended;
            let _ = remove_directory(&attempt.directory);
        }
        outcome
    }

    fn notify(&self, attempt: &AttemptId, notice: &Notice) -> Result<()> {
        let missing = || Error::new(ErrorCode::NotFound, format!("{attempt} is not running"));
        let live = self.inner.find(attempt).filter(|attempt| attempt.is_live()).ok_or_else(missing)?;
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
            let _ = control.send_at_once(&crate::channel::Order::Notice);
        }
        Ok(())
    }

    fn stop(&self, attempt: &AttemptId, grace: DurationMs) -> Result<()> {
        if let Some(attempt) = self.inner.find(attempt) {
            attempt.request_stop(grace);
        }
        Ok(())
    }

    fn events_after(&self, sequence: u64, max: usize) -> Result<Vec<SequencedEvent>> {
        Ok(lock(&self.inner.journal).events_after(sequence, max))
    }

    fn snapshot(&self) -> Vec<LiveAttempt> {
        let attempts: Vec<Arc<Attempt>> = lock(&self.inner.attempts).values().cloned().collect();
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
        let ended = self.inner.find(attempt).is_none_or(|attempt| !attempt.is_live());
        let path = self.inner.attempts_dir.join(attempt.as_str()).join("log");
        let file = File::open(path).map_err(|_| Error::new(ErrorCode::NotFound, format!("there is no log of {attempt}")))?;
        let mut bytes = vec![0; max.min(LOG_READ_BYTES_MAX)];
        let count = file.read_at(&mut bytes, offset).map_err(|error| Error::internal(format!("read a log: {error}")))?;
        bytes.truncate(count);
        let next_offset = offset.saturating_add(u64::try_from(count).unwrap_or(0));
        let length = file.metadata().map_err(|error| Error::internal(format!("read a log: {error}")))?.len();
        Ok(LogChunk { bytes, next_offset, complete: ended && next_offset >= length })
    }

    fn clean(&self, attempt: &AttemptId) -> Result<()> {
        if let Some(ended) = self.inner.require_ended(attempt)? {
            ended.state().work = None;
        }
        let directory = self.inner.attempts_dir.join(attempt.as_str());
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
        if let Some(ended) = self.inner.require_ended(attempt)? {
            ended.state().work = None;
        }
        remove_directory(&self.inner.attempts_dir.join(attempt.as_str()))
            .and_then(|()| lock(&self.inner.journal).forget(attempt))
            .map_err(|error| Error::internal(format!("forget {attempt}: {error}")))?;
        lock(&self.inner.attempts).remove(attempt);
        Ok(())
    }
}
