//! The runner of a simulated fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sublet_core::id::AttemptId;
use sublet_core::runner::{
    AttemptEvent, AttemptSpec, Exit, Isolation, LiveAttempt, LogChunk, Machine, Notice, Runner, SequencedEvent,
};
use sublet_core::{Bytes, Clock, DurationMs, Error, ErrorCode, Result, Timestamp};

use super::fleet::{Fleet, FleetMachine};
use super::workload::{Asked, Workload};
use crate::directory::lock_directory;
use crate::journal::{Durability, Journal};

/// What the runner of a simulated fleet needs.
pub struct SimulatedRunnerConfig {
    /// What attempts know it by: the same over restarts, another for every state directory.
    pub name: String,
    /// Made if missing; used by one runner at a time.
    pub state_dir: PathBuf,
    pub fleet: Fleet,
    /// How often a proof of life is given.
    pub heartbeat: DurationMs,
    pub clock: Arc<dyn Clock>,
}

/// Runs workloads that do nothing on machines that are not there.
pub struct SimulatedRunner {
    name: String,
    fleet: Fleet,
    machines: Vec<FleetMachine>,
    /// In which of them each device is, by its name.
    places: BTreeMap<String, usize>,
    heartbeat: DurationMs,
    clock: Arc<dyn Clock>,
    attempts: PathBuf,
    state: Mutex<State>,
    _lock: File,
}

struct State {
    journal: Journal,
    live: BTreeMap<AttemptId, Kept>,
    /// Which live attempt has which device, by the device's name.
    used: BTreeMap<String, AttemptId>,
}

impl State {
    fn insert(&mut self, id: AttemptId, kept: Kept) {
        self.used.extend(kept.device_names.iter().map(|name| (name.clone(), id.clone())));
        self.live.insert(id, kept);
    }
}

/// An attempt as it is on disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Kept {
    asked: Asked,
    device_names: Vec<String>,
    /// The last proof of life; `None` before its start. Told from the journal, which knows its end too.
    #[serde(skip)]
    alive_at: Option<Timestamp>,
}

/// Nothing of a customer's runs on these machines, so nothing of it can get out.
fn isolation() -> Isolation {
    Isolation {
        user_namespace: true,
        pid_namespace: true,
        mount_namespace: true,
        network_namespace: true,
        ipc_namespace: true,
        landlock_abi: 1,
        seccomp: true,
        no_new_privileges: true,
        cgroup_memory: true,
        cgroup_pids: true,
        cgroup_kill: true,
        disk_quota: true,
    }
}

impl SimulatedRunner {
    /// Opens the state directory. What was live goes on.
    pub fn open(config: SimulatedRunnerConfig) -> Result<Self> {
        let attempts = config.state_dir.join("attempts");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&attempts).map_err(failed("make the runner's directory"))?;
        let lock = lock_directory(&config.state_dir)?;
        let mut journal = Journal::open(&config.state_dir.join("intervals.log")).map_err(failed("read the interval log"))?;
        let (mut live, mut lost) = (Vec::new(), Vec::new());
        for unfinished in journal.unfinished() {
            let last = unfinished.last_proof_of_life;
            match read(&attempts, &unfinished.attempt)? {
                Some(kept) => {
                    let alive_at = unfinished.started.then_some(last);
                    live.push((unfinished.attempt, Kept { alive_at, ..kept }));
                }
                None => lost.push((unfinished.attempt, exited(last, Exit::Lost))),
            }
        }
        journal.record(lost, Durability::Synced).map_err(failed("write the interval log"))?;
        remove_unknown(&attempts, &journal)?;
        let machines = config.fleet.machines();
        let devices =
            machines.iter().enumerate().flat_map(|(place, machine)| machine.devices.iter().map(move |device| (place, device)));
        let places = devices.map(|(place, device)| (device.info.name.clone(), place)).collect();
        let mut state = State { journal, live: BTreeMap::new(), used: BTreeMap::new() };
        live.into_iter().for_each(|(id, kept)| state.insert(id, kept));
        let (name, fleet, heartbeat, clock) = (config.name, config.fleet, config.heartbeat, config.clock);
        Ok(Self { name, fleet, machines, places, heartbeat, clock, attempts, state: Mutex::new(state), _lock: lock })
    }

    /// As it was described.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down all that has happened by now.
    fn advance(&self, state: &mut State, now: Timestamp) -> Result<()> {
        let changes = state.live.iter().map(|(id, kept)| (id.clone(), self.happened(kept, now))).collect();
        self.note(state, changes)
    }

    /// The same of single attempts.
    fn advance_some(&self, state: &mut State, ids: &BTreeSet<AttemptId>, now: Timestamp) -> Result<()> {
        let live = ids.iter().filter_map(|id| state.live.get(id).map(|kept| (id.clone(), self.happened(kept, now))));
        let changes = live.collect();
        self.note(state, changes)
    }

    /// Nothing counts as happened before it is written down.
    fn note(&self, state: &mut State, changes: Vec<(AttemptId, Vec<(Timestamp, AttemptEvent)>)>) -> Result<()> {
        let all = || changes.iter().flat_map(|(id, events)| events.iter().map(move |(at, event)| (*at, id, event)));
        let is_alive = |event: &AttemptEvent| matches!(event, AttemptEvent::Alive { .. });
        let mut synced: Vec<_> = all().filter(|(_, _, event)| !is_alive(event)).collect();
        synced.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let alive: Vec<_> = all().filter(|(_, _, event)| is_alive(event)).collect();
        for (events, durability) in [(synced, Durability::Synced), (alive, Durability::Written)] {
            if !events.is_empty() {
                let events = events.into_iter().map(|(_, id, event)| (id.clone(), event.clone())).collect();
                state.journal.record(events, durability).map_err(failed("write the interval log"))?;
            }
        }
        for (id, events) in changes {
            for (at, event) in events {
                self.apply(state, &id, at, &event);
            }
        }
        Ok(())
    }

    fn apply(&self, state: &mut State, id: &AttemptId, at: Timestamp, event: &AttemptEvent) {
        let Some(kept) = state.live.get_mut(id) else { return };
        match event {
            AttemptEvent::Started { .. } | AttemptEvent::Alive { .. } => kept.alive_at = Some(at),
            AttemptEvent::Contained { .. } => {}
            AttemptEvent::Exited { .. } => {
                if let Some(kept) = state.live.remove(id) {
                    for name in &kept.device_names {
                        state.used.remove(name);
                    }
                }
            }
        }
    }

    /// What happened to an attempt since it was last asked, in order.
    fn happened(&self, kept: &Kept, now: Timestamp) -> Vec<(Timestamp, AttemptEvent)> {
        let mut events = Vec::new();
        let (end_at, exit) = kept.asked.end();
        // What was proven alive did not fail before, whatever a later description says.
        let proven = kept.alive_at.unwrap_or(kept.asked.placed_at);
        let fault = match self.machine_of(&kept.device_names) {
            Some(machine) => machine.first_fault(&self.fleet.faults, &kept.device_names, (proven, now.min(end_at))),
            // The fleet's description changed: its machine is gone.
            None => Some(proven),
        };
        let end = fault.map(|at| (at, Exit::Lost)).or((end_at <= now).then_some((end_at, exit)));
        let starts_at = kept.asked.starts_at;
        let starts = kept.alive_at.is_none() && starts_at <= end.as_ref().map_or(now, |(at, _)| *at);
        if starts {
            events.push((starts_at, AttemptEvent::Started { at: starts_at, isolation: isolation() }));
        }
        let alive_at = kept.alive_at.or(starts.then_some(starts_at));
        if let Some((at, exit)) = end {
            events.push((at, exited(at, exit)));
        } else if alive_at.is_some_and(|last| now >= last.plus(self.heartbeat)) {
            events.push((now, AttemptEvent::Alive { at: now }));
        }
        events
    }

    /// The machine that has all these devices.
    fn machine_of(&self, names: &[String]) -> Option<&FleetMachine> {
        let place = |name: &String| self.places.get(name).copied();
        let first = place(names.first()?)?;
        names.iter().all(|name| place(name) == Some(first)).then(|| self.machines.get(first)).flatten()
    }

    fn begin(&self, state: &mut State, spec: &AttemptSpec, now: Timestamp) -> Result<()> {
        let workload = Workload::parse(&spec.command)?;
        let gone = || Error::new(ErrorCode::CapacityUnavailable, "the machine of these devices is not up");
        let machine = self.machine_of(&spec.device_names).ok_or_else(gone)?;
        let usable = machine.usable(&self.fleet.faults, now);
        if !spec.device_names.iter().all(|name| usable.iter().any(|info| info.name == *name)) {
            return Err(gone());
        }
        if let Some((other, _)) =
            state.live.iter().find(|(_, kept)| kept.device_names.iter().any(|name| spec.device_names.contains(name)))
        {
            return Err(Error::new(ErrorCode::Conflict, format!("a device of it is used by '{other}'")));
        }
        let starts_at = now.plus(DurationMs::from_seconds(self.fleet.start_seconds.into()));
        let done_before = self.saved_by(state, &spec.continues)?;
        let asked = Asked { workload, done_before, placed_at: now, starts_at, noticed: None, stopped: None };
        let kept = Kept { asked, device_names: spec.device_names.clone(), alive_at: None };
        write(&self.attempts, &spec.attempt, &kept)?;
        state.journal.place(&spec.attempt, now).map_err(failed("write the interval log"))?;
        state.insert(spec.attempt.clone(), kept);
        Ok(())
    }

    /// What the newest of these attempts that is still known has saved.
    fn saved_by(&self, state: &State, earlier: &[AttemptId]) -> Result<DurationMs> {
        for id in earlier {
            if let (Some(kept), Some((ended_at, _))) = (read(&self.attempts, id)?, state.journal.end_of(id)) {
                return Ok(kept.asked.saved(ended_at));
            }
        }
        Ok(DurationMs::ZERO)
    }

    /// Changes what a live attempt was asked, on disk first. False if it is not live.
    fn ask(&self, attempt: &AttemptId, change: impl FnOnce(&mut Asked, Timestamp)) -> Result<bool> {
        let (now, mut state) = (self.clock.now(), self.state());
        self.advance_some(&mut state, &BTreeSet::from([attempt.clone()]), now)?;
        let Some(kept) = state.live.get_mut(attempt) else { return Ok(false) };
        let mut changed = kept.clone();
        change(&mut changed.asked, now);
        write(&self.attempts, attempt, &changed)?;
        *kept = changed;
        Ok(true)
    }
}

impl Runner for SimulatedRunner {
    fn name(&self) -> &str {
        &self.name
    }

    fn machines(&self) -> Vec<Machine> {
        let now = self.clock.now();
        let machine = |machine: &FleetMachine| Machine {
            name: Some(machine.name.clone()),
            site: Some(machine.site.clone()),
            isolation: isolation(),
            devices: machine.usable(&self.fleet.faults, now),
        };
        self.machines.iter().map(machine).collect()
    }

    fn place(&self, spec: &AttemptSpec) -> Result<()> {
        let (now, mut state) = (self.clock.now(), self.state());
        if state.journal.knows(&spec.attempt) {
            return Ok(());
        }
        // What is over on these devices makes room.
        let before = spec.device_names.iter().filter_map(|name| state.used.get(name)).cloned().collect();
        self.advance_some(&mut state, &before, now)?;
        self.begin(&mut state, spec, now)
    }

    fn notify(&self, attempt: &AttemptId, notice: &Notice) -> Result<()> {
        let told = self.ask(attempt, |asked, now| {
            // The first notice is what a workload acts on; a later one only tells another deadline.
            let since = asked.noticed.as_ref().map_or(now, |(at, _)| *at);
            asked.noticed = Some((since, notice.clone()));
        })?;
        if told { Ok(()) } else { Err(Error::new(ErrorCode::NotFound, format!("'{attempt}' is not running"))) }
    }

    fn stop(&self, attempt: &AttemptId, grace: DurationMs) -> Result<()> {
        self.ask(attempt, |asked, now| {
            let kill = now.plus(grace);
            asked.stopped = Some(asked.stopped.map_or((now, kill), |(told, killed)| (told, killed.min(kill))));
        })
        .map(|_| ())
    }

    fn events_after(&self, sequence: u64, max: usize) -> Result<Vec<SequencedEvent>> {
        let (now, mut state) = (self.clock.now(), self.state());
        self.advance(&mut state, now)?;
        Ok(state.journal.events_after(sequence, max))
    }

    fn snapshot(&self) -> Vec<LiveAttempt> {
        let live = |(id, kept): (&AttemptId, &Kept)| LiveAttempt {
            attempt: id.clone(),
            started_at: kept.alive_at.map(|_| kept.asked.starts_at),
            last_alive_at: kept.alive_at,
        };
        let (now, mut state) = (self.clock.now(), self.state());
        if let Err(error) = self.advance(&mut state, now) {
            // What has ended counts as live until it can be written down.
            tracing::warn!(?error, "the simulated fleet did not get on");
        }
        state.live.iter().map(live).collect()
    }

    fn read_log(&self, attempt: &AttemptId, offset: u64, max: usize) -> Result<LogChunk> {
        let (now, mut state) = (self.clock.now(), self.state());
        self.advance_some(&mut state, &BTreeSet::from([attempt.clone()]), now)?;
        let missing = || Error::new(ErrorCode::NotFound, format!("there is no log of '{attempt}'"));
        let kept = read(&self.attempts, attempt)?.ok_or_else(missing)?;
        let ended = state.journal.end_of(attempt);
        let text = kept.asked.log(now, ended.as_ref()).into_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let bytes: Vec<u8> = text[start..].iter().take(max).copied().collect();
        let next = start + bytes.len();
        Ok(LogChunk {
            bytes,
            next_offset: u64::try_from(next).unwrap_or(u64::MAX),
            complete: ended.is_some() && next == text.len(),
        })
    }

    fn clean(&self, _attempt: &AttemptId) -> Result<()> {
        Ok(())
    }

    fn forget(&self, attempt: &AttemptId) -> Result<()> {
        let mut state = self.state();
        if state.live.contains_key(attempt) {
            return Err(Error::new(ErrorCode::Conflict, format!("'{attempt}' has not ended")));
        }
        state.journal.forget(attempt).map_err(failed("write the interval log"))?;
        match fs::remove_file(path_of(&self.attempts, attempt)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove an attempt's file")(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn exited(at: Timestamp, exit: Exit) -> AttemptEvent {
    AttemptEvent::Exited { at, exit, cpu_time: DurationMs::ZERO, peak_memory: Bytes::ZERO }
}

fn failed(step: &str) -> impl Fn(io::Error) -> Error {
    let step = step.to_owned();
    move |error| {
        let code = if error.kind() == io::ErrorKind::StorageFull { ErrorCode::StorageFull } else { ErrorCode::Internal };
        Error::new(code, format!("{step}: {error}"))
    }
}

fn path_of(attempts: &Path, id: &AttemptId) -> PathBuf {
    attempts.join(format!("{id}.json"))
}

fn read(attempts: &Path, id: &AttemptId) -> Result<Option<Kept>> {
    match fs::read(path_of(attempts, id)) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::internal(format!("the file of '{id}': {error}")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read an attempt's file")(error)),
    }
}

/// Whole or not at all.
fn write(attempts: &Path, id: &AttemptId, kept: &Kept) -> Result<()> {
    let bytes = serde_json::to_vec(kept).map_err(|error| Error::internal(error.to_string()))?;
    let path = path_of(attempts, id);
    let beside = path.with_extension("new");
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_data()?;
        fs::rename(&beside, &path)
    });
    written.map_err(failed("write an attempt's file"))
}

/// A file without a record in the journal is of an attempt that was never accepted.
fn remove_unknown(attempts: &Path, journal: &Journal) -> Result<()> {
    let list = fs::read_dir(attempts).map_err(failed("read the runner's directory"))?;
    for entry in list {
        let path = entry.map_err(failed("read the runner's directory"))?.path();
        let id: Option<AttemptId> = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let is_whole = path.extension().is_some_and(|extension| extension == "json");
        if !(is_whole && id.is_some_and(|id| journal.knows(&id))) {
            fs::remove_file(&path).map_err(failed("remove an attempt's file"))?;
        }
    }
    Ok(())
}
