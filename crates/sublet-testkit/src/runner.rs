//! A runner whose workloads do what a test says.
//!
//! It keeps the contract of the port: an id is placed once for ever, events have growing numbers,
//! instants are those of the test's clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sublet_core::id::{AttemptId, DeviceId};
use sublet_core::runner::{
    AttemptEvent, AttemptSpec, DeviceInfo, Exit, Isolation, LiveAttempt, LogChunk, Machine, Notice, Runner, SequencedEvent,
};
use sublet_core::{Bytes, Clock, DurationMs, Error, ErrorCode, Result, Timestamp};

use crate::clock::ManualClock;

/// What the fake knows of one attempt.
#[derive(Clone, Debug)]
pub struct FakeAttempt {
    pub spec: AttemptSpec,
    pub started_at: Option<Timestamp>,
    pub alive_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub notices: Vec<Notice>,
    pub stops: usize,
    pub cleaned: bool,
}

impl FakeAttempt {
    fn is_live(&self) -> bool {
        self.ended_at.is_none()
    }
}

#[derive(Default)]
struct State {
    attempts: BTreeMap<AttemptId, FakeAttempt>,
    events: Vec<SequencedEvent>,
    /// Calls of `place` that began a workload.
    begun: usize,
    refusal: Option<Error>,
}

/// How workloads react by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manners {
    /// They start when placed and end when told to.
    Prompt,
    /// They do nothing that the test does not say.
    Scripted,
}

pub struct FakeRunner {
    name: String,
    clock: Arc<ManualClock>,
    devices: Mutex<Vec<DeviceInfo>>,
    isolation: Isolation,
    manners: Manners,
    state: Mutex<State>,
}

/// Everything that makes a sandbox.
pub fn sandbox() -> Isolation {
    Isolation {
        user_namespace: true,
        pid_namespace: true,
        mount_namespace: true,
        network_namespace: true,
        ipc_namespace: true,
        landlock_abi: 5,
        seccomp: true,
        no_new_privileges: true,
        cgroup_memory: true,
        cgroup_pids: true,
        cgroup_kill: true,
        disk_quota: true,
    }
}

/// CPU slots `slot-0` and so on.
pub fn cpu_slots(count: usize) -> Vec<DeviceInfo> {
    (0..count)
        .map(|slot| DeviceInfo {
            name: format!("slot-{slot}"),
            kind: "cpu".to_owned(),
            uuid: format!("cpu-slot-{slot}"),
            memory: Bytes::new(1 << 30),
        })
        .collect()
}

impl FakeRunner {
    pub fn new(clock: Arc<ManualClock>, devices: Vec<DeviceInfo>, isolation: Isolation, manners: Manners) -> Arc<Self> {
        Self::named("fake", clock, devices, (isolation, manners))
    }
    /// One of several.
    pub fn named(
        name: &str,
        clock: Arc<ManualClock>,
        devices: Vec<DeviceInfo>,
        (isolation, manners): (Isolation, Manners),
    ) -> Arc<Self> {
        let (name, devices) = (name.to_owned(), Mutex::new(devices));
        Arc::new(Self { name, clock, devices, isolation, manners, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of every attempt, in order.
    pub fn attempts(&self) -> Vec<FakeAttempt> {
        self.state().attempts.values().cloned().collect()
    }
    pub fn live(&self) -> Vec<AttemptId> {
        self.state().attempts.iter().filter(|(_, attempt)| attempt.is_live()).map(|(id, _)| id.clone()).collect()
    }
    /// How many workloads were begun, ever.
    pub fn begun(&self) -> usize {
        self.state().begun
    }
    /// The next calls of `place` fail.
    pub fn refuse(&self, refusal: Option<Error>) {
        self.state().refusal = refusal;
    }
    /// What is reported from now on.
    pub fn set_devices(&self, devices: Vec<DeviceInfo>) {
        *self.devices.lock().unwrap_or_else(PoisonError::into_inner) = devices;
    }

    fn push(state: &mut State, attempt: &AttemptId, event: AttemptEvent) {
        // Numbers grow by more than one now and then.
        let last = state.events.last().map_or(0, |event| event.sequence);
        let sequence = last + 1 + u64::from(last % 3 == 2);
        state.events.push(SequencedEvent { sequence, attempt: attempt.clone(), event });
    }

    /// The program begins to run.
    pub fn start(&self, id: &AttemptId) {
        let (now, mut state) = (self.clock.now(), self.state());
        Self::start_in(&mut state, id, now, self.isolation.clone());
    }

    fn start_in(state: &mut State, id: &AttemptId, now: Timestamp, isolation: Isolation) {
        let Some(attempt) = state.attempts.get_mut(id).filter(|attempt| attempt.is_live() && attempt.started_at.is_none()) else {
            return;
        };
        attempt.started_at = Some(now);
        attempt.alive_at = Some(now);
        Self::push(state, id, AttemptEvent::Started { at: now, isolation });
    }

    /// Everything that runs gives proof of life.
    pub fn beat(&self) {
        let (now, mut state) = (self.clock.now(), self.state());
        let running: Vec<AttemptId> = state
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.is_live() && attempt.started_at.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in running {
            if let Some(attempt) = state.attempts.get_mut(&id) {
                attempt.alive_at = Some(now);
            }
            Self::push(&mut state, &id, AttemptEvent::Alive { at: now });
        }
    }

    pub fn contain(&self, id: &AttemptId, what: &str) {
        let (now, mut state) = (self.clock.now(), self.state());
        Self::push(&mut state, id, AttemptEvent::Contained { at: now, what: what.to_owned() });
    }

    /// The program ends.
    pub fn exit(&self, id: &AttemptId, exit: Exit) {
        let (now, mut state) = (self.clock.now(), self.state());
        Self::exit_in(&mut state, id, exit, now);
    }

    fn exit_in(state: &mut State, id: &AttemptId, exit: Exit, at: Timestamp) {
        let Some(attempt) = state.attempts.get_mut(id).filter(|attempt| attempt.is_live()) else { return };
        attempt.ended_at = Some(at);
        let (cpu_time, peak_memory) = (DurationMs::from_millis(5), Bytes::new(4_096));
        Self::push(state, id, AttemptEvent::Exited { at, exit, cpu_time, peak_memory });
    }

    /// The machine dies and comes back: what ran is lost, with its last proof of life in the log.
    pub fn crash(&self) {
        let mut state = self.state();
        let live: Vec<(AttemptId, Timestamp)> = state
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.is_live())
            .map(|(id, attempt)| (id.clone(), attempt.alive_at.unwrap_or(Timestamp::EPOCH)))
            .collect();
        for (id, alive_at) in live {
            Self::exit_in(&mut state, &id, Exit::Lost, alive_at);
        }
    }

    /// The machine comes back without any memory of what ran.
    pub fn lose_memory(&self) {
        let mut state = self.state();
        let now = self.clock.now();
        for attempt in state.attempts.values_mut().filter(|attempt| attempt.is_live()) {
            attempt.ended_at = Some(now);
        }
    }

    /// Two live attempts on one device would be a double sale.
    pub fn assert_no_device_is_shared(&self) {
        let state = self.state();
        let mut used: BTreeMap<&DeviceId, &AttemptId> = BTreeMap::new();
        for (id, attempt) in state.attempts.iter().filter(|(_, attempt)| attempt.is_live()) {
            for device in &attempt.spec.devices {
                let other = used.insert(device, id);
                assert!(other.is_none(), "{device} is used by {id} and {other:?}");
            }
        }
    }
}

impl Runner for FakeRunner {
    fn name(&self) -> &str {
        &self.name
    }
    fn machines(&self) -> Vec<Machine> {
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner).clone();
        vec![Machine { name: None, site: None, isolation: self.isolation.clone(), devices }]
    }
    fn place(&self, spec: &AttemptSpec) -> Result<()> {
        let (now, mut state) = (self.clock.now(), self.state());
        if state.attempts.contains_key(&spec.attempt) {
            return Ok(());
        }
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        if self.isolation.level() < spec.isolation_required {
            return Err(Error::new(ErrorCode::PolicyRefused, "the isolation is too weak"));
        }
        state.begun += 1;
        let attempt = FakeAttempt {
            spec: spec.clone(),
            started_at: None,
            alive_at: None,
            ended_at: None,
            notices: Vec::new(),
            stops: 0,
            cleaned: false,
        };
        state.attempts.insert(spec.attempt.clone(), attempt);
        if self.manners == Manners::Prompt {
            Self::start_in(&mut state, &spec.attempt, now, self.isolation.clone());
        }
        Ok(())
    }
    fn notify(&self, attempt: &AttemptId, notice: &Notice) -> Result<()> {
        let mut state = self.state();
        let live = state.attempts.get_mut(attempt).filter(|attempt| attempt.is_live());
        let live = live.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("{attempt} is not running")))?;
        live.notices.push(notice.clone());
        Ok(())
    }
    fn stop(&self, attempt: &AttemptId, _grace: DurationMs) -> Result<()> {
        let (now, mut state) = (self.clock.now(), self.state());
        let Some(found) = state.attempts.get_mut(attempt) else { return Ok(()) };
        found.stops += 1;
        if self.manners == Manners::Prompt {
            Self::exit_in(&mut state, attempt, Exit::Stopped { forced: false }, now);
        }
        Ok(())
    }
    fn events_after(&self, sequence: u64, max: usize) -> Result<Vec<SequencedEvent>> {
        Ok(self.state().events.iter().filter(|event| event.sequence > sequence).take(max).cloned().collect())
    }
    fn snapshot(&self) -> Vec<LiveAttempt> {
        let state = self.state();
        let live = state.attempts.iter().filter(|(_, attempt)| attempt.is_live());
        live.map(|(id, attempt)| LiveAttempt {
            attempt: id.clone(),
            started_at: attempt.started_at,
            last_alive_at: attempt.alive_at,
        })
        .collect()
    }
    fn read_log(&self, attempt: &AttemptId, offset: u64, max: usize) -> Result<LogChunk> {
        let state = self.state();
        let found =
            state.attempts.get(attempt).ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no log of {attempt}")))?;
        let text = format!("output of {attempt}\n").into_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let bytes: Vec<u8> = text[start..].iter().take(max).copied().collect();
        let next_offset = offset + u64::try_from(bytes.len()).unwrap_or(0);
        Ok(LogChunk { bytes, next_offset, complete: !found.is_live() })
    }
    fn clean(&self, attempt: &AttemptId) -> Result<()> {
        if let Some(found) = self.state().attempts.get_mut(attempt) {
            found.cleaned = true;
        }
        Ok(())
    }
    fn forget(&self, attempt: &AttemptId) -> Result<()> {
        // The id stays known, so that it is never placed again.
        self.clean(attempt)
    }
}
