//! Jobs: commands that run on leases.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode};
use sublet_core::id::{ChargeId, JobId, LeaseId, OrganizationId, ProjectId};
use sublet_core::runner;

use crate::list::list_query;
use crate::money::Money;
use crate::object::{JobTag, Metadata};
use crate::schema::{IdText, IsolationText};
use crate::time::{Rfc3339, UnixSeconds};

/// A command and what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    pub object: JobTag,
    #[schemars(with = "IdText<JobId>")]
    pub id: JobId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    #[schemars(with = "IdText<LeaseId>")]
    pub lease: LeaseId,
    pub status: JobStatus,
    pub command: Vec<String>,
    /// How it ended; null while it has not.
    pub exit: Option<JobExit>,
    /// The separation it actually ran with; null before the start.
    pub isolation: Option<JobIsolation>,
    /// Limits that acted: processes refused, log cut, disk full.
    pub contained: Vec<String>,
    pub created_at: UnixSeconds,
    /// From here on its process could use its devices.
    pub started_at: Option<Rfc3339>,
    pub ended_at: Option<Rfc3339>,
    /// When it is run again; null if it is not.
    #[serde(default)]
    pub restart: Option<JobRestart>,
    /// How often it was run again.
    #[serde(default)]
    pub restarts: u32,
    /// What it waits for; null unless it is `requeued`.
    #[serde(default)]
    pub waiting: Option<JobWait>,
    /// Its runs, the oldest first.
    #[serde(default)]
    pub attempts: Vec<JobAttempt>,
    /// Devices multiplied by milliseconds of use.
    pub device_milliseconds: u64,
    pub cpu_milliseconds: u64,
    pub peak_memory_bytes: u64,
    /// Charged so far.
    pub cost: Money,
    #[schemars(with = "Vec<IdText<ChargeId>>")]
    pub charges: Vec<ChargeId>,
    pub metadata: Metadata,
}

/// Where a job is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Accepted, not yet started.
    Queued,
    Running,
    /// It was told to stop.
    Stopping,
    /// It was interrupted and waits for capacity to go on.
    Requeued,
    /// Ended with exit code 0.
    Succeeded,
    /// Ended otherwise.
    Failed,
    /// Ended because somebody asked.
    Cancelled,
}

impl JobStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Requeued => "requeued",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
    /// Nothing changes any more.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
            Self::Queued | Self::Running | Self::Stopping | Self::Requeued => false,
        }
    }
}

/// When a job is run again. Its attempts share its work directory.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRestart {
    /// When the owner took its capacity back, a device or machine was lost, or the cloud stopped.
    #[serde(default)]
    pub on_interruption: bool,
    /// When its program ended with one of these, on the same lease, after a pause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exit_codes: Vec<u8>,
    /// At most so often; 100 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts_max: Option<u32>,
    /// It waits so long for capacity each time before it is given up; a week if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds_max: Option<u64>,
}

/// A job that waits for capacity to go on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct JobWait {
    pub since: Rfc3339,
    /// Then it is given up.
    pub until: Rfc3339,
    /// Which in turn it is of those of its project, from 1. Projects go on in turn.
    pub position: u64,
    /// Why it cannot go on now.
    pub reason: String,
}

/// One run of a job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct JobAttempt {
    /// From 1.
    pub number: u64,
    #[schemars(with = "IdText<LeaseId>")]
    pub lease: LeaseId,
    pub status: JobAttemptStatus,
    pub started_at: Option<Rfc3339>,
    pub ended_at: Option<Rfc3339>,
    pub exit: Option<JobExit>,
}

/// Where one run of a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobAttemptStatus {
    /// Its machine was or will be asked to start it.
    Placed,
    Running,
    Ended,
}

/// How a job ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum JobExit {
    /// The program ended by itself.
    Code { code: i32 },
    /// A signal that the cloud did not send.
    Signal { signal: i32 },
    /// The memory limit was hit.
    OutOfMemory,
    /// The cloud stopped it; `forced` if it did not end in its grace time.
    Stopped { forced: bool },
    /// It never started.
    NotStarted { reason: String },
    /// The machine died; charged to its last proof of life.
    Lost,
}

impl From<runner::Exit> for JobExit {
    fn from(exit: runner::Exit) -> Self {
        match exit {
            runner::Exit::Code { code } => Self::Code { code },
            runner::Exit::Signal { signal } => Self::Signal { signal },
            runner::Exit::OutOfMemory => Self::OutOfMemory,
            runner::Exit::Stopped { forced } => Self::Stopped { forced },
            runner::Exit::NotStarted { reason } => Self::NotStarted { reason },
            runner::Exit::Lost => Self::Lost,
        }
    }
}

/// The separation achieved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct JobIsolation {
    #[schemars(with = "IsolationText")]
    pub level: runner::IsolationLevel,
    /// The mechanisms in force, such as `pid_namespace` and `landlock_abi_4`.
    pub mechanisms: Vec<String>,
}

impl From<&runner::Isolation> for JobIsolation {
    fn from(isolation: &runner::Isolation) -> Self {
        let switches = [
            (isolation.user_namespace, "user_namespace"),
            (isolation.pid_namespace, "pid_namespace"),
            (isolation.mount_namespace, "mount_namespace"),
            (isolation.network_namespace, "network_namespace"),
            (isolation.ipc_namespace, "ipc_namespace"),
            (isolation.seccomp, "seccomp"),
            (isolation.no_new_privileges, "no_new_privileges"),
            (isolation.cgroup_memory, "cgroup_memory"),
            (isolation.cgroup_pids, "cgroup_pids"),
            (isolation.cgroup_kill, "cgroup_kill"),
            (isolation.disk_quota, "disk_quota"),
        ];
        let mut mechanisms: Vec<String> =
            switches.iter().filter(|(in_force, _)| *in_force).map(|(_, name)| (*name).to_owned()).collect();
        if isolation.landlock_abi > 0 {
            mechanisms.push(format!("landlock_abi_{}", isolation.landlock_abi));
        }
        Self { level: isolation.level(), mechanisms }
    }
}

/// Body that starts a job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateJob {
    #[schemars(with = "IdText<LeaseId>")]
    pub lease: LeaseId,
    /// Program and arguments; never passed through a shell.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Placed in the work directory before the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<JobFile>,
    /// Memory limit in bytes; the SKU's share if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Size limit of the work directory in bytes; the default share if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// What becomes of the lease when the job ends; `end_lease` if left out.
    #[serde(default)]
    pub on_end: OnEnd,
    /// When it is run again; never if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<JobRestart>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// What becomes of the lease when its job ends.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnEnd {
    /// It ends too, so that nobody pays for idle devices.
    #[default]
    EndLease,
    /// It stays for the next job.
    KeepLease,
}

/// A file for the work directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// Relative, without `..`.
    pub path: String,
    pub content_base64: Base64,
}

/// Bytes as standard base 64 with padding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("contentEncoding" = "base64"))]
pub struct Base64(pub Vec<u8>);

impl TryFrom<String> for Base64 {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        STANDARD
            .decode(text)
            .map(Self)
            .map_err(|error| Error::new(ErrorCode::InvalidRequest, format!("not standard base 64 with padding: {error}")))
    }
}
impl From<Base64> for String {
    fn from(bytes: Base64) -> Self {
        STANDARD.encode(bytes.0)
    }
}

list_query! {
    /// Which jobs.
    JobListQuery {
        status: JobStatus,
        #[schemars(with = "Option<IdText<LeaseId>>")]
        lease: LeaseId,
    }
}

/// Which part of a log.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobLogQuery {
    /// The output of this attempt, counted from 1; of the last one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Byte to begin at; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Keep sending until the job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_without_choices_ends_its_lease() {
        let job: CreateJob = serde_json::from_str(r#"{"lease":"lease_1","command":["true"]}"#).unwrap();
        assert_eq!(job.on_end, OnEnd::EndLease);
    }

    #[test]
    fn files_are_bytes_in_base_64() {
        let file: JobFile = serde_json::from_str(r#"{"path":"a","content_base64":"AP8="}"#).unwrap();
        assert_eq!(file.content_base64.0, [0, 255]);
        assert!(serde_json::from_str::<JobFile>(r#"{"path":"a","content_base64":"%"}"#).is_err());
    }
}
