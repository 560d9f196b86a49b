//! The port to whatever runs workloads: the local sandbox, Slurm, Kubernetes.
//!
//! Calls are synchronous and quick; a runner does its work on threads of its own and reports
//! through an append-only event log that is read by cursor.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode, Result};
use crate::id::{AttemptId, DeviceId, JobId, LeaseId, OrganizationId, SiteId};
use crate::quantity::Bytes;
use crate::time::{DurationMs, Timestamp};

/// One device slot that can be leased.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Stable over restarts: derived from the node and the slot or the hardware's own id.
    pub name: String,
    /// `cpu` or the accelerator's model, lower case.
    pub kind: String,
    /// The hardware's own identifier, such as a GPU UUID or `cpu-slot-0`.
    pub uuid: String,
    pub memory: Bytes,
}

/// A machine with its devices, as its runner offers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Unique in a cloud. `None` is the machine that this process is on, which the owner's settings name; a runner has
    /// at most one of those.
    pub name: Option<String>,
    /// `None` is where the owner's settings say.
    pub site: Option<SiteId>,
    /// What isolation an attempt would get there now.
    pub isolation: Isolation,
    /// Those that can be used. A device that is no longer among them is lost.
    pub devices: Vec<DeviceInfo>,
}

/// How well a workload is separated from the machine and its neighbours. What was achieved, not what was asked.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Isolation {
    pub user_namespace: bool,
    pub pid_namespace: bool,
    pub mount_namespace: bool,
    pub network_namespace: bool,
    pub ipc_namespace: bool,
    /// The kernel's Landlock ABI in force; 0 is none.
    pub landlock_abi: u32,
    pub seccomp: bool,
    pub no_new_privileges: bool,
    pub cgroup_memory: bool,
    pub cgroup_pids: bool,
    pub cgroup_kill: bool,
    /// The work directory has a hard size limit.
    pub disk_quota: bool,
}

/// How strictly a workload must be separated. Ordered: each level includes the ones before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationLevel {
    /// Own process group and limits only: for the owner's own teams.
    Process,
    /// Namespaces, no privileges, a private file system, no network, limits on memory and processes.
    Sandbox,
}

impl IsolationLevel {
    pub const ALL: [Self; 2] = [Self::Process, Self::Sandbox];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Sandbox => "sandbox",
        }
    }
}

impl FromStr for IsolationLevel {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not a level of isolation"))
                .alternative("use one of process, sandbox")
        })
    }
}

impl Isolation {
    /// The strictest level that this isolation fulfils.
    pub const fn level(&self) -> IsolationLevel {
        let sandboxed = self.pid_namespace
            && self.mount_namespace
            && self.network_namespace
            && self.ipc_namespace
            && self.seccomp
            && self.no_new_privileges
            && self.cgroup_memory
            && self.cgroup_pids
            && self.disk_quota;
        if sandboxed { IsolationLevel::Sandbox } else { IsolationLevel::Process }
    }
}

/// Limits on one attempt. All are enforced by the kernel where the isolation record says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptLimits {
    pub memory: Bytes,
    pub disk: Bytes,
    pub log: Bytes,
    pub processes: u32,
    pub open_files: u32,
    /// CPU time per wall time in thousandths: 1000 is one core.
    pub cpu_millis: u32,
}

/// One run of a job, ready to start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptSpec {
    pub attempt: AttemptId,
    pub job: JobId,
    pub lease: LeaseId,
    pub organization: OrganizationId,
    /// Program and arguments; never passed through a shell.
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// Files to place in the work directory before the start: relative path and content.
    pub files: BTreeMap<String, Vec<u8>>,
    pub devices: Vec<DeviceId>,
    /// Names of the devices as the runner's inventory gave them, in the order of `devices`.
    pub device_names: Vec<String>,
    pub limits: AttemptLimits,
    pub isolation_required: IsolationLevel,
    /// Earlier attempts of the job at this runner, the newest first: it goes on with the work directory of the first of them
    /// that is still kept.
    #[serde(default)]
    pub continues: Vec<AttemptId>,
}

/// A warning that capacity will be taken back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice {
    pub reason: String,
    pub deadline: Timestamp,
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Exit {
    /// The program ended by itself.
    Code { code: i32 },
    /// A signal nobody here sent.
    Signal { signal: i32 },
    /// The memory limit was hit.
    OutOfMemory,
    /// We stopped it.
    Stopped { forced: bool },
    /// It never started; the reason is public.
    NotStarted { reason: String },
    /// The runner or the machine died; the end is the last proof of life.
    Lost,
}

/// What happened to an attempt. Instants are when it happened, not when it was noticed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum AttemptEvent {
    /// The customer's process can use its devices from here on.
    Started {
        at: Timestamp,
        isolation: Isolation,
    },
    /// Proof of life.
    Alive {
        at: Timestamp,
    },
    /// A limit acted: processes refused, log cut, disk full. Reported at most once per kind and attempt.
    Contained {
        at: Timestamp,
        what: String,
    },
    Exited {
        at: Timestamp,
        exit: Exit,
        cpu_time: DurationMs,
        peak_memory: Bytes,
    },
}

/// An event with its position in the runner's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SequencedEvent {
    /// Grows by at least one per event; also over restarts of the runner.
    pub sequence: u64,
    pub attempt: AttemptId,
    pub event: AttemptEvent,
}

/// One attempt that exists at the runner now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveAttempt {
    pub attempt: AttemptId,
    pub started_at: Option<Timestamp>,
    pub last_alive_at: Option<Timestamp>,
}

/// Part of a log.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LogChunk {
    pub bytes: Vec<u8>,
    /// Where to read on.
    pub next_offset: u64,
    /// The attempt has ended and nothing follows.
    pub complete: bool,
}

/// Runs attempts.
pub trait Runner: Send + Sync {
    /// What this runner is called in records.
    fn name(&self) -> &str;
    /// What it runs workloads on, as it is now: machines and devices come and go. Asked often.
    fn machines(&self) -> Vec<Machine>;
    /// Starts an attempt. The same id again changes nothing. Refuses isolation below what the spec requires.
    fn place(&self, spec: &AttemptSpec) -> Result<()>;
    /// Tells the workload that it will be stopped: notice file and signal.
    fn notify(&self, attempt: &AttemptId, notice: &Notice) -> Result<()>;
    /// Ends an attempt: SIGTERM, then after `grace` everything in it is killed. Unknown ids are fine.
    fn stop(&self, attempt: &AttemptId, grace: DurationMs) -> Result<()>;
    /// Events after a sequence number, oldest first, at most `max`.
    fn events_after(&self, sequence: u64, max: usize) -> Result<Vec<SequencedEvent>>;
    /// All live attempts, for reconciliation.
    fn snapshot(&self) -> Vec<LiveAttempt>;
    /// Standard output and error as they came, from `offset`, at most `max` bytes.
    fn read_log(&self, attempt: &AttemptId, offset: u64, max: usize) -> Result<LogChunk>;
    /// Deletes an ended attempt's work directory (its log is kept until [`Runner::forget`]). A later attempt that goes on with
    /// it keeps it.
    fn clean(&self, attempt: &AttemptId) -> Result<()>;
    /// Deletes everything kept about an ended attempt.
    fn forget(&self, attempt: &AttemptId) -> Result<()>;
}
