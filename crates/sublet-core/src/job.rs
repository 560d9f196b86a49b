//! Jobs and their attempts: what is asked to run, and how it goes.
//!
//! `queued → starting → running → stopping → succeeded | failed | cancelled | interrupted | refused`.
//! The program's own end decides between succeeded and failed, also while it is being stopped;
//! only what we stopped is cancelled (its owner asked) or interrupted (a limit or the owner of the
//! machine did). A job that never ran is refused, or cancelled if its owner asked.
//!
//! A job that may be restarted ([`crate::restart`]) goes from there to `requeued`, where it waits for other capacity, or to
//! `queued` on the lease that it has.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode, Result};
use crate::lease::{EndReason, InvalidTransition};
use crate::quantity::Bytes;
use crate::restart::{GoesOn, RestartPolicy};
use crate::runner::Exit;
use crate::time::DurationMs;

/// Most words in a command, and their bytes together.
pub const COMMAND_WORDS_MAX: usize = 256;
pub const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// Most environment variables, and the bytes of all names and values together.
pub const ENVIRONMENT_ENTRIES_MAX: usize = 256;
pub const ENVIRONMENT_BYTES_MAX: usize = 64 * 1024;
/// Most files that come with a job, and their bytes together.
pub const FILES_MAX: usize = 256;
pub const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest path of a file, in bytes.
pub const PATH_BYTES_MAX: usize = 512;
/// Longest time limit.
pub const TIME_LIMIT_MAX: DurationMs = DurationMs::from_hours(24 * 366);

/// What a job asks to run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobSpec {
    /// Program and arguments; never passed through a shell.
    pub command: Vec<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Placed in the work directory before the start. Stored apart from the rest.
    #[serde(skip)]
    pub files: BTreeMap<String, Vec<u8>>,
    #[serde(default)]
    pub limits: JobLimits,
    #[serde(default)]
    pub on_end: OnEnd,
    #[serde(default)]
    pub restart: RestartPolicy,
}

/// Limits that a job may ask for; what is left out is the share of its devices.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct JobLimits {
    pub memory: Option<Bytes>,
    pub disk: Option<Bytes>,
    /// The job is told and stopped after this much running time.
    pub time: Option<DurationMs>,
}

/// What becomes of the lease when the job ends.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnEnd {
    /// It ends too.
    #[default]
    EndLease,
    /// It stays for the next job.
    KeepLease,
}

impl JobSpec {
    /// Checks every bound and every form. The first thing wrong is named.
    pub fn validate(&self) -> Result<()> {
        self.validate_command()?;
        self.validate_environment()?;
        self.validate_files()?;
        self.restart.validate()?;
        self.limits.validate()
    }

    fn validate_command(&self) -> Result<()> {
        let refuse = |reason: String| Err(invalid(reason).param("command"));
        let bytes: usize = self.command.iter().map(String::len).sum();
        if self.command.first().is_none_or(String::is_empty) {
            return refuse("a job needs a command: its program and arguments".to_owned());
        }
        if self.command.len() > COMMAND_WORDS_MAX || bytes > COMMAND_BYTES_MAX {
            return refuse(format!("a command has at most {COMMAND_WORDS_MAX} words and {COMMAND_BYTES_MAX} bytes"));
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            return refuse("a command cannot contain the character NUL".to_owned());
        }
        Ok(())
    }

    fn validate_environment(&self) -> Result<()> {
        let refuse = |reason: String| Err(invalid(reason).param("environment"));
        let bytes: usize = self.environment.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.environment.len() > ENVIRONMENT_ENTRIES_MAX || bytes > ENVIRONMENT_BYTES_MAX {
            return refuse(format!(
                "an environment has at most {ENVIRONMENT_ENTRIES_MAX} variables and {ENVIRONMENT_BYTES_MAX} bytes"
            ));
        }
        for (name, value) in &self.environment {
            let good = name
                .bytes()
                .enumerate()
                .all(|(index, byte)| byte == b'_' || byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()));
            if name.is_empty() || !good || value.contains('\0') {
                let shown: String = name.chars().take(40).collect();
                return refuse(format!("'{shown}' is not an environment variable; use letters, digits and underscores"));
            }
            if name.starts_with("SUBLET_") {
                return refuse(format!("{name} is set by the cloud; names that start with SUBLET_ are kept for it"));
            }
        }
        Ok(())
    }

    fn validate_files(&self) -> Result<()> {
        let refuse = |reason: String| Err(invalid(reason).param("files"));
        let bytes: usize = self.files.values().map(Vec::len).sum();
        if self.files.len() > FILES_MAX || bytes > FILE_BYTES_MAX {
            return refuse(format!("a job comes with at most {FILES_MAX} files of {FILE_BYTES_MAX} bytes together"));
        }
        for path in self.files.keys() {
            if !is_relative_path(path) {
                let shown: String = path.chars().take(80).collect();
                return refuse(format!("'{shown}' is not a relative path below the work directory"));
            }
            let mut parent = path.as_str();
            while let Some((head, _)) = parent.rsplit_once('/') {
                if self.files.contains_key(head) {
                    return refuse(format!("'{head}' is a file and cannot also be a directory"));
                }
                parent = head;
            }
        }
        Ok(())
    }
}

impl JobLimits {
    fn validate(&self) -> Result<()> {
        for (name, bytes) in [("memory", self.memory), ("disk", self.disk)] {
            if bytes.is_some_and(|bytes| bytes <= Bytes::ZERO) {
                return Err(invalid(format!("the limit on {name} is a positive number of bytes")).param(name));
            }
        }
        if self.time.is_some_and(|time| time <= DurationMs::ZERO || time > TIME_LIMIT_MAX) {
            return Err(invalid("a time limit is positive and at most 366 days".to_owned()).param("time_limit"));
        }
        Ok(())
    }
}

fn is_relative_path(path: &str) -> bool {
    (1..=PATH_BYTES_MAX).contains(&path.len())
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255)
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorCode::InvalidRequest, reason)
}

/// Why a job is being stopped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StopReason {
    /// Its owner asked.
    Cancelled,
    /// Its own time limit.
    TimeLimit,
    /// Its machine died.
    Lost,
    /// Its lease ends.
    LeaseEnds(EndReason),
}

impl StopReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::TimeLimit => "time_limit",
            Self::Lost => "lost",
            Self::LeaseEnds(reason) => reason.as_str(),
        }
    }
    /// One sentence for the job's owner.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Cancelled => "it was cancelled",
            Self::TimeLimit => "it reached its own time limit",
            Self::Lost => "its machine died; it is charged up to the last proof of life",
            Self::LeaseEnds(reason) => match reason {
                EndReason::Released => "its lease was ended by its holder",
                EndReason::JobEnded => "the job its lease was made for ended",
                EndReason::WindowOver => "the window of its lease is over",
                EndReason::MaximumCost => "its lease reached the maximum cost that was set",
                EndReason::MaximumPrice => "the price of its lease goes above the maximum that was set",
                EndReason::Budget => "no more money could be set aside for it, and nothing runs unpaid",
                EndReason::Unused => "its lease was not used for too long",
                EndReason::Reclaimed => "the owner took the capacity back with the notice that was sold",
                EndReason::DeviceLost => "a device of its lease was lost",
                EndReason::ShutDown => "the cloud is stopping",
            },
        }
    }
    /// Whether it is the doing of the machine's owner, or of the machine: neither the job, nor its holder or money ended it.
    pub const fn is_owners(self) -> bool {
        match self {
            Self::Lost => true,
            Self::Cancelled | Self::TimeLimit => false,
            Self::LeaseEnds(reason) => match reason {
                EndReason::Reclaimed | EndReason::DeviceLost | EndReason::ShutDown => true,
                EndReason::Released
                | EndReason::JobEnded
                | EndReason::WindowOver
                | EndReason::MaximumCost
                | EndReason::MaximumPrice
                | EndReason::Budget
                | EndReason::Unused => false,
            },
        }
    }
    /// Whether the job's owner wanted it.
    const fn is_wanted(self) -> bool {
        match self {
            Self::Cancelled | Self::LeaseEnds(EndReason::Released) => true,
            Self::TimeLimit | Self::Lost | Self::LeaseEnds(_) => false,
        }
    }
}

impl FromStr for StopReason {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Self::Cancelled, Self::TimeLimit, Self::Lost]
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .map_or_else(|| text.parse().map(Self::LeaseEnds), Ok)
    }
}

/// Where a job is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobState {
    Queued,
    /// An attempt exists; its program does not run yet.
    Starting,
    Running,
    Stopping {
        reason: StopReason,
    },
    /// It was interrupted and waits for capacity to go on. It has no lease.
    Requeued {
        reason: StopReason,
    },
    /// Its program ended with code 0.
    Succeeded,
    /// Its program ended otherwise, or could not be started.
    Failed,
    Cancelled,
    /// We stopped it.
    Interrupted {
        reason: StopReason,
    },
    /// It never ran, and never will.
    Refused,
}

impl JobState {
    pub const NAMES: [&'static str; 10] =
        ["queued", "starting", "running", "stopping", "requeued", "succeeded", "failed", "cancelled", "interrupted", "refused"];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping { .. } => "stopping",
            Self::Requeued { .. } => "requeued",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted { .. } => "interrupted",
            Self::Refused => "refused",
        }
    }
    /// Reads a stored state back from its name and its reason.
    pub fn restore(name: &str, reason: &str) -> Result<Self> {
        Ok(match name {
            "queued" => Self::Queued,
            "starting" => Self::Starting,
            "running" => Self::Running,
            "stopping" => Self::Stopping { reason: reason.parse()? },
            "requeued" => Self::Requeued { reason: reason.parse()? },
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            "interrupted" => Self::Interrupted { reason: reason.parse()? },
            "refused" => Self::Refused,
            other => return Err(Error::internal(format!("'{other}' is not a state of a job"))),
        })
    }
    /// What is stored as the reason.
    pub const fn reason(self) -> Option<StopReason> {
        match self {
            Self::Stopping { reason } | Self::Requeued { reason } | Self::Interrupted { reason } => Some(reason),
            Self::Queued | Self::Starting | Self::Running | Self::Succeeded | Self::Failed | Self::Cancelled | Self::Refused => {
                None
            }
        }
    }
    const fn refuse(self, to: &'static str) -> InvalidTransition {
        InvalidTransition { noun: "job", from: self.as_str(), to }
    }
    /// An attempt was made for it.
    pub const fn start(self) -> Result<Self, InvalidTransition> {
        match self {
            Self::Queued => Ok(Self::Starting),
            Self::Starting
            | Self::Running
            | Self::Stopping { .. }
            | Self::Requeued { .. }
            | Self::Succeeded
            | Self::Failed
            | Self::Cancelled
            | Self::Interrupted { .. }
            | Self::Refused => Err(self.refuse("starting")),
        }
    }
    /// Its program runs.
    pub const fn run(self) -> Result<Self, InvalidTransition> {
        match self {
            Self::Starting => Ok(Self::Running),
            // It was told to stop before it began; the order to stop stands.
            Self::Stopping { .. } => Ok(self),
            Self::Queued
            | Self::Running
            | Self::Requeued { .. }
            | Self::Succeeded
            | Self::Failed
            | Self::Cancelled
            | Self::Interrupted { .. }
            | Self::Refused => Err(self.refuse("running")),
        }
    }
    /// It is told to stop. A job that waits ends at once.
    pub const fn stop(self, reason: StopReason) -> Result<Self, InvalidTransition> {
        match self {
            Self::Queued | Self::Requeued { .. } if reason.is_wanted() => Ok(Self::Cancelled),
            Self::Queued => Ok(Self::Refused),
            Self::Starting | Self::Running => Ok(Self::Stopping { reason }),
            Self::Stopping { .. }
            | Self::Requeued { .. }
            | Self::Succeeded
            | Self::Failed
            | Self::Cancelled
            | Self::Interrupted { .. }
            | Self::Refused => Err(self.refuse("stopping")),
        }
    }
    /// Its attempt ended.
    pub fn exit(self, exit: &Exit) -> Result<Self, InvalidTransition> {
        let stopped_for = match self {
            Self::Starting | Self::Running => None,
            Self::Stopping { reason } => Some(reason),
            Self::Queued
            | Self::Requeued { .. }
            | Self::Succeeded
            | Self::Failed
            | Self::Cancelled
            | Self::Interrupted { .. }
            | Self::Refused => return Err(self.refuse("ended")),
        };
        Ok(match (exit, stopped_for) {
            (Exit::Code { code: 0 }, _) => Self::Succeeded,
            (Exit::Code { .. } | Exit::Signal { .. } | Exit::OutOfMemory, _) => Self::Failed,
            (Exit::NotStarted { .. }, None) => Self::Failed,
            (Exit::Stopped { .. } | Exit::NotStarted { .. }, Some(reason)) if reason.is_wanted() => Self::Cancelled,
            (Exit::Stopped { .. } | Exit::NotStarted { .. }, Some(reason)) => Self::Interrupted { reason },
            // The runner stopped it on its own, for example because it is shutting down.
            (Exit::Stopped { .. } | Exit::Lost, None) => Self::Interrupted { reason: StopReason::Lost },
            (Exit::Lost, Some(reason)) if reason.is_wanted() => Self::Cancelled,
            (Exit::Lost, Some(_)) => Self::Interrupted { reason: StopReason::Lost },
        })
    }
    /// The runner would not take it.
    pub const fn refuse_start(self) -> Result<Self, InvalidTransition> {
        match self {
            Self::Starting => Ok(Self::Refused),
            Self::Stopping { reason } if reason.is_wanted() => Ok(Self::Cancelled),
            Self::Stopping { .. } => Ok(Self::Refused),
            Self::Queued
            | Self::Running
            | Self::Requeued { .. }
            | Self::Succeeded
            | Self::Failed
            | Self::Cancelled
            | Self::Interrupted { .. }
            | Self::Refused => Err(self.refuse("refused")),
        }
    }
    /// Whether nobody but the owner of its machine told it to stop: what its holder or its money ended is not run again.
    pub fn may_go_on(self) -> bool {
        !matches!(self, Self::Stopping { reason } if !reason.is_owners())
    }
    /// Its attempt ended, or will not begin, and it is run again: on the lease that it has, or elsewhere.
    pub const fn go_on(self, goes_on: GoesOn) -> Result<Self, InvalidTransition> {
        match (self, goes_on) {
            (Self::Starting | Self::Running | Self::Stopping { .. }, GoesOn::Here) => Ok(Self::Queued),
            (Self::Queued | Self::Starting | Self::Running | Self::Stopping { .. }, GoesOn::Elsewhere(reason)) => {
                Ok(Self::Requeued { reason })
            }
            (Self::Queued, GoesOn::Here)
            | (
                Self::Requeued { .. } | Self::Succeeded | Self::Failed | Self::Cancelled | Self::Interrupted { .. } | Self::Refused,
                GoesOn::Here | GoesOn::Elsewhere(_),
            ) => Err(self.refuse("requeued")),
        }
    }
    /// It has a lease again.
    pub const fn resume(self) -> Result<Self, InvalidTransition> {
        match self {
            Self::Requeued { .. } => Ok(Self::Queued),
            Self::Queued
            | Self::Starting
            | Self::Running
            | Self::Stopping { .. }
            | Self::Succeeded
            | Self::Failed
            | Self::Cancelled
            | Self::Interrupted { .. }
            | Self::Refused => Err(self.refuse("queued")),
        }
    }
    /// It waited too long, or for what will not come.
    pub const fn give_up(self) -> Result<Self, InvalidTransition> {
        match self {
            Self::Requeued { reason } => Ok(Self::Interrupted { reason }),
            Self::Queued
            | Self::Starting
            | Self::Running
            | Self::Stopping { .. }
            | Self::Succeeded
            | Self::Failed
            | Self::Cancelled
            | Self::Interrupted { .. }
            | Self::Refused => Err(self.refuse("interrupted")),
        }
    }
    /// Nothing changes any more.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Starting | Self::Running | Self::Stopping { .. } | Self::Requeued { .. } => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Interrupted { .. } | Self::Refused => true,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where one run of a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttemptState {
    /// The runner was or will be asked to start it.
    Placed,
    /// Its program uses the devices.
    Running,
    Ended,
}

impl AttemptState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }
}

impl FromStr for AttemptState {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Self::Placed, Self::Running, Self::Ended]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Error::internal(format!("'{text}' is not a state of an attempt")))
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
