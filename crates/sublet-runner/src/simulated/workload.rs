//! What a simulated workload does, and when: a function of what it was asked and told.

use serde::{Deserialize, Serialize};
use sublet_core::restart::EXIT_SAVED;
use sublet_core::runner::{Exit, Notice};
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};

/// The program that a simulated machine has.
const PROGRAM: &str = "simulate";
const USAGE: &str = "simulate --seconds N [--exit CODE] [--end-on-notice SECONDS] [--checkpoint SECONDS] [--ignore-signals]";
/// The longest work, in seconds: ten years.
const SECONDS_MAX: u32 = 315_360_000;

/// A workload as its command describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Workload {
    pub seconds: u32,
    pub exit: u8,
    /// It ends by itself so long after it was told that it has to.
    pub end_on_notice: Option<u32>,
    /// It saves what it has done each so many seconds, and when it is told that it has to end; its job's next attempt has
    /// only the rest to do. One that ends because it was told to says so by its exit code.
    #[serde(default)]
    pub checkpoint: Option<u32>,
    /// It is killed at the end of the grace.
    pub ignores_signals: bool,
}

/// What was asked of one attempt, and when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub workload: Workload,
    /// What earlier attempts of its job have done and saved.
    #[serde(default)]
    pub done_before: DurationMs,
    pub placed_at: Timestamp,
    pub starts_at: Timestamp,
    /// The first notice, and when it came.
    pub noticed: Option<(Timestamp, Notice)>,
    /// When it was first told to stop, and when it is killed.
    pub stopped: Option<(Timestamp, Timestamp)>,
}

impl Workload {
    /// Reads a command, program first.
    pub fn parse(command: &[String]) -> Result<Self> {
        let Some((program, arguments)) = command.split_first() else { return Err(refusal("the command is empty")) };
        if program != PROGRAM {
            return Err(refusal("these machines are simulated, and run one program"));
        }
        let mut workload = Self { seconds: 0, exit: 0, end_on_notice: None, checkpoint: None, ignores_signals: false };
        let mut arguments = arguments.iter();
        while let Some(option) = arguments.next() {
            let mut number = |most: u32| {
                let value = arguments.next().and_then(|text| text.parse::<u32>().ok()).filter(|value| *value <= most);
                value.ok_or_else(|| refusal(&format!("{option} needs a whole number up to {most}")))
            };
            match option.as_str() {
                "--seconds" => workload.seconds = number(SECONDS_MAX)?,
                "--exit" => workload.exit = u8::try_from(number(255)?).unwrap_or(u8::MAX),
                "--end-on-notice" => workload.end_on_notice = Some(number(SECONDS_MAX)?),
                "--checkpoint" => workload.checkpoint = Some(number(SECONDS_MAX)?.max(1)),
                "--ignore-signals" => workload.ignores_signals = true,
                other => {
                    let shown: String = other.chars().take(40).collect();
                    return Err(refusal(&format!("'{shown}' is not an option of {PROGRAM}")));
                }
            }
        }
        if workload.seconds == 0 {
            return Err(refusal("--seconds says how long the work takes, and is missing or zero"));
        }
        Ok(workload)
    }
}

impl Asked {
    /// When it ends and how, unless its machine fails before, by what it was told so far.
    pub fn end(&self) -> (Timestamp, Exit) {
        let seconds = |seconds: u32| DurationMs::from_seconds(seconds.into());
        let code = |code: u8| Exit::Code { code: code.into() };
        let all = seconds(self.workload.seconds).millis();
        let rest = DurationMs::from_millis(all.saturating_sub(self.done_before.millis()).max(0));
        let done = (self.starts_at.plus(rest), code(self.workload.exit));
        let told = self.workload.end_on_notice.zip(self.noticed.as_ref());
        let left = if self.workload.checkpoint.is_some() { Exit::Code { code: EXIT_SAVED } } else { code(0) };
        let told = told.map(|(takes, (at, _))| ((*at).max(self.starts_at).plus(seconds(takes)), left));
        let stopped = self.stopped.map(|(told, killed)| match self.workload.ignores_signals {
            true => (killed, Exit::Stopped { forced: true }),
            false => (told, Exit::Stopped { forced: false }),
        });
        [Some(done), told, stopped].into_iter().flatten().min_by_key(|(at, _)| *at).unwrap_or((self.starts_at, code(0)))
    }

    /// What it and the attempts before it have done and saved, if it ended then.
    pub fn saved(&self, ended_at: Timestamp) -> DurationMs {
        let Some(every) = self.workload.checkpoint else { return self.done_before };
        let every = DurationMs::from_seconds(every.into()).millis();
        let ran = |until: Timestamp| until.since(self.starts_at).millis().max(0);
        let periodic = ran(ended_at).div_euclid(every).saturating_mul(every);
        let when_told = self.noticed.as_ref().map(|(at, _)| ran((*at).min(ended_at)));
        let own = when_told.map_or(periodic, |told| told.max(periodic));
        DurationMs::from_millis(self.done_before.millis().saturating_add(own))
    }

    /// What it has written by an instant.
    pub fn log(&self, now: Timestamp, ended: Option<&(Timestamp, Exit)>) -> String {
        let mut lines = Vec::new();
        if now >= self.starts_at && ended.is_none_or(|(at, _)| *at >= self.starts_at) {
            lines.push(format!("{} simulated work of {} s began", self.starts_at, self.workload.seconds));
            if self.done_before > DurationMs::ZERO {
                lines.push(format!("{} it goes on after {} s that were saved", self.starts_at, self.done_before.seconds_ceil()));
            }
        }
        if let Some((at, notice)) = &self.noticed {
            lines.push(format!("{at} notice: {}; it ends by {}", notice.reason, notice.deadline));
        }
        if let Some((at, exit)) = ended {
            lines.push(format!("{at} ended: {}", words(exit)));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

fn words(exit: &Exit) -> String {
    match exit {
        Exit::Code { code } => format!("exit code {code}"),
        Exit::Signal { signal } => format!("signal {signal}"),
        Exit::OutOfMemory => "out of memory".to_owned(),
        Exit::Stopped { forced: false } => "stopped".to_owned(),
        Exit::Stopped { forced: true } => "killed".to_owned(),
        Exit::NotStarted { reason } => format!("not started: {reason}"),
        Exit::Lost => "its machine failed".to_owned(),
    }
}

fn refusal(message: &str) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param("command").alternative(USAGE)
}
