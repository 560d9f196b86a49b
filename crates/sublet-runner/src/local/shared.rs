//! What the runner's threads share, and what happens to an attempt between its placement and its end.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use sublet_core::Clock;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::AttemptId;
use sublet_core::quantity::Bytes;
use sublet_core::runner::{AttemptEvent, AttemptLimits, AttemptSpec, Exit, Isolation, IsolationLevel};
use sublet_core::time::DurationMs;

use super::attempt::{Attempt, Phase, lock};
use super::disk;
use super::inventory::Device;
use super::launch::{HOST_USERS, Host, remove_directory};
use super::watch::{DISK_LIMIT, Log, MEMORY_LIMIT, PROCESS_LIMIT, Watch};
use crate::channel::Order;
use crate::journal::{Durability, Journal};

/// Attempts that live at the same time.
const LIVE_ATTEMPTS_MAX: usize = 256;
/// Attempts that are kept, ended ones included, until they are forgotten.
const KEPT_ATTEMPTS_MAX: usize = 10_000;
/// What is free on a work disk below which it counts as full.
const DISK_FULL_BYTES: u64 = 16 * 1024;

/// What the runner's threads share.
pub struct Shared {
    pub name: String,
    pub clock: Arc<dyn Clock>,
    pub on_event: Arc<dyn Fn() + Send + Sync>,
    pub attempts_dir: PathBuf,
    pub host: Host,
    pub devices: Vec<Device>,
    pub isolation: Mutex<Isolation>,
    pub journal: Mutex<Journal>,
    pub attempts: Mutex<HashMap<AttemptId, Arc<Attempt>>>,
    /// Ends that could not be written yet.
    pub unrecorded: Mutex<Vec<(AttemptId, AttemptEvent)>>,
    /// Signalled when an attempt has ended.
    pub ended: Condvar,
    pub closing: AtomicBool,
    /// Readable when the heartbeat shall end.
    pub quit: OwnedFd,
    /// Held while this runner uses the directory.
    pub directory_lock: File,
}

impl Shared {
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
            let full =
                space.is_some_and(|space| space.f_favail == 0 || space.f_bavail.saturating_mul(space.f_frsize) < DISK_FULL_BYTES);
            (state.leaf.clone(), full)
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
            if !leaf.kill() {
                attempt.arm(DurationMs::ZERO);
            }
        }
    }

    /// One proof of life for every running attempt, written together.
    pub fn beat(&self) {
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

    pub fn record_late_ends(&self) {
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
    pub fn recover(&self) -> io::Result<()> {
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

    pub fn find(&self, attempt: &AttemptId) -> Option<Arc<Attempt>> {
        lock(&self.attempts).get(attempt).cloned()
    }

    pub fn probe(&self) -> Result<Isolation> {
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
    pub fn admit(&self, spec: &AttemptSpec) -> Result<Option<(Arc<Attempt>, Vec<Device>)>> {
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
    pub fn launch(self: &Arc<Self>, attempt: &Arc<Attempt>, spec: &AttemptSpec, devices: &[Device]) -> Result<()> {
        self.let_go_of_work(spec);
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
            shared: Arc::clone(self),
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
        let _ = control.send_at_once(&Order::Go);
        if state.stop_requested {
            let _ = control.send_at_once(&Order::Terminate);
        }
        drop(state);
        drop(control);
        let thread = std::thread::Builder::new().name("attempt".to_owned());
        if let Err(error) = thread.spawn(move || watch.run()) {
            // The placement is written down, so its end must be too. Dropping the conversation ends the sandbox.
            tracing::error!(attempt = %attempt.id, %error, "an attempt's thread could not be started");
            self.abandon(attempt);
        }
        Ok(())
    }

    /// Nothing of ours shall hold the disk of an earlier attempt that is to be used again.
    fn let_go_of_work(&self, spec: &AttemptSpec) {
        for earlier in spec.continues.iter().filter_map(|id| self.find(id)).filter(|earlier| !earlier.is_live()) {
            earlier.state().work = None;
        }
    }

    /// Ends an attempt that nobody watches.
    fn abandon(&self, attempt: &Attempt) {
        let leaf = {
            let mut state = attempt.state();
            state.control = None;
            state.phase = Phase::Ended;
            state.leaf.clone()
        };
        leaf.kill();
        leaf.remove();
        let exit = Exit::NotStarted { reason: "the machine could not run another job".to_owned() };
        let event = AttemptEvent::Exited { at: self.clock.now(), exit, cpu_time: DurationMs::ZERO, peak_memory: Bytes::ZERO };
        self.record_end(attempt, event);
    }

    pub fn with_work<T>(&self, id: &AttemptId, read: impl FnOnce(&OwnedFd) -> Result<T>) -> Result<T> {
        let missing = || Error::new(ErrorCode::NotFound, format!("the work directory of {id} is not kept any more"));
        if let Some(attempt) = self.find(id) {
            let work = attempt.state().work.as_ref().map(OwnedFd::try_clone).transpose();
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

    pub fn require_ended(&self, id: &AttemptId) -> Result<Option<Arc<Attempt>>> {
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
        continues: Vec::new(),
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
