//! The thread that accompanies one attempt from the word to go until everything of it is gone.
//!
//! It moves output into the log, hears what init reports, runs out of patience when the timer says so, and writes the
//! end down. It never waits for the job without a bound: once the end is known or demanded, the timer is armed.

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::process::Child;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use sublet_core::quantity::Bytes;
use sublet_core::runner::{AttemptEvent, Isolation};
use sublet_core::time::{DurationMs, Timestamp};

use super::attempt::{Attempt, Ending, Phase, Verdict};
use super::shared::Shared;
use crate::channel::{Channel, Report, retry};
use crate::journal::Durability;

/// Output moved at a time, in bytes.
const PUMP_BYTES: usize = 64 * 1024;
/// How long the remains of an ended job may take to vanish before they are killed, and after that to be given up.
const TEARDOWN_MAX: DurationMs = DurationMs::from_seconds(5);

/// Kinds of containment, reported once each.
pub const MEMORY_LIMIT: &str = "memory limit";
pub const PROCESS_LIMIT: &str = "process limit";
pub const DISK_LIMIT: &str = "disk limit";
pub const LOG_LIMIT: &str = "log limit";

/// Everything one attempt's thread owns.
pub struct Watch {
    pub shared: Arc<Shared>,
    pub attempt: Arc<Attempt>,
    pub child: Child,
    /// Until init is gone.
    pub control: Option<Arc<Channel>>,
    /// Until the last writer is gone.
    pub output: Option<PipeReader>,
    pub log: Log,
    pub isolation: Isolation,
}

/// The log file and how much more it takes.
pub struct Log {
    pub file: File,
    pub left: Bytes,
}

/// How far the end has come.
#[derive(Default)]
struct Progress {
    verdict: Option<Verdict>,
    ended_at: Option<Timestamp>,
    /// The timer expired once while the sandbox was being torn down.
    given_up: bool,
}

/// What the thread waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Timer,
    Control,
    Output,
}

impl Watch {
    /// Runs until the attempt's end is written down.
    pub fn run(mut self) {
        let mut progress = Progress::default();
        let mut buffer = vec![0; PUMP_BYTES];
        while (self.control.is_some() || self.output.is_some()) && !progress.given_up {
            match self.wait() {
                Ok(ready) => {
                    for source in ready {
                        match source {
                            Source::Timer => self.lose_patience(&mut progress),
                            Source::Control => self.hear(&mut progress),
                            Source::Output => self.pump(&mut buffer),
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(attempt = %self.attempt.id, %error, "cannot wait for an attempt; ending it");
                    break;
                }
            }
        }
        self.finish(progress);
    }

    /// Waits for init, output or the timer. Output comes before what init says of the end.
    fn wait(&self) -> std::io::Result<Vec<Source>> {
        let mut sources = vec![(Source::Timer, self.attempt.timer.as_fd())];
        sources.extend(self.output.as_ref().map(|output| (Source::Output, output.as_fd())));
        sources.extend(self.control.as_ref().map(|control| (Source::Control, control.as_fd())));
        let mut waiting: Vec<PollFd<'_>> =
            sources.iter().map(|(_, descriptor)| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN)).collect();
        retry(|| poll(&mut waiting, None))?;
        let ready = sources.iter().zip(&waiting).filter(|(_, polled)| !polled.revents().is_empty());
        Ok(ready.map(|((source, _), _)| *source).collect())
    }

    /// Moves output into the log up to its limit and drops the rest.
    fn pump(&mut self, buffer: &mut [u8]) {
        let count = match self.output.as_mut().map(|output| output.read(buffer)) {
            Some(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => return,
            Some(Ok(count)) if count > 0 => count,
            Some(_) | None => {
                // No writer is left.
                self.output = None;
                return;
            }
        };
        let room = usize::try_from(self.log.left.get()).unwrap_or(0);
        let kept = buffer.get(..count.min(room)).unwrap_or(&[]);
        if let Err(error) = self.log.file.write_all(kept) {
            tracing::error!(attempt = %self.attempt.id, %error, "cannot write an attempt's log");
            self.log.left = Bytes::ZERO;
        } else {
            self.log.left = self.log.left.saturating_sub(Bytes::new(kept.len().try_into().unwrap_or(i64::MAX)));
        }
        if count > kept.len() {
            self.shared.contain(&self.attempt, LOG_LIMIT);
        }
    }

    fn hear(&mut self, progress: &mut Progress) {
        let Some(control) = &self.control else { return };
        let verdict = match control.receive::<Report>().map(|received| received.map(|received| received.message)) {
            Ok(Some(Report::Started)) => return self.started(progress),
            Ok(Some(Report::Exited { code })) => Some(Verdict::Exited { code }),
            Ok(Some(Report::Killed { signal })) => Some(Verdict::Killed { signal }),
            Ok(Some(Report::NotExecuted { reason })) => Some(Verdict::NotExecuted { reason }),
            Ok(Some(Report::Failed { step, cause })) => {
                tracing::error!(attempt = %self.attempt.id, step, cause, "a sandbox failed");
                Some(Verdict::Failed)
            }
            Ok(Some(Report::Ready { .. })) => return,
            Ok(None) | Err(_) => {
                self.control = None;
                None
            }
        };
        progress.verdict = progress.verdict.take().or(verdict);
        if progress.ended_at.is_none() {
            progress.ended_at = Some(self.shared.clock.now());
            self.attempt.rearm(TEARDOWN_MAX);
        }
    }

    fn started(&self, progress: &mut Progress) {
        let at = self.shared.clock.now();
        let event = AttemptEvent::Started { at, isolation: self.isolation.clone() };
        match self.shared.record(&self.attempt, event, Durability::Synced) {
            Ok(()) => {
                let mut state = self.attempt.state();
                state.started_at = Some(at);
                state.last_alive_at = Some(at);
            }
            Err(error) => {
                // What cannot be accounted for must not run.
                tracing::error!(attempt = %self.attempt.id, %error, "a start could not be written down; ending the attempt");
                progress.verdict = Some(Verdict::Failed);
                self.attempt.rearm(DurationMs::ZERO);
            }
        }
        self.shared.wake();
    }

    /// The timer expired: the grace is over, or the remains do not vanish by themselves.
    fn lose_patience(&mut self, progress: &mut Progress) {
        if progress.ended_at.is_none() {
            let mut state = self.attempt.state();
            state.forced = true;
            state.leaf.kill();
            drop(state);
            self.attempt.rearm(TEARDOWN_MAX);
            progress.ended_at = Some(self.shared.clock.now());
        } else {
            progress.given_up = true;
        }
        // Ends the supervisor; init follows it, and the kernel ends the rest of the namespace.
        let _ = self.child.kill();
    }

    fn finish(mut self, progress: Progress) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let leaf = self.attempt.state().leaf.clone();
        leaf.kill();
        self.shared.check_limits(&self.attempt);
        let counters = leaf.counters();
        leaf.remove();
        let mut state = self.attempt.state();
        let ending = Ending {
            started: state.started_at.is_some(),
            verdict: progress.verdict,
            stop_requested: state.stop_requested,
            forced: state.forced,
            out_of_memory: counters.memory_kills > 0,
        };
        state.phase = Phase::Ended;
        state.control = None;
        drop(state);
        let at = progress.ended_at.unwrap_or_else(|| self.shared.clock.now());
        let (cpu_time, peak_memory) = (counters.cpu_time, counters.peak_memory);
        let event = AttemptEvent::Exited { at, exit: ending.exit(), cpu_time, peak_memory };
        self.shared.record_end(&self.attempt, event);
    }
}
