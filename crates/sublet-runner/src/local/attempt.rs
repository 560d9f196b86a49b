//! One attempt as the runner holds it, from acceptance until it is forgotten.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use sublet_core::id::AttemptId;
use sublet_core::runner::Exit;
use sublet_core::time::{DurationMs, Timestamp};

use super::cgroup::Leaf;
use crate::channel::{Channel, Order};

/// Where the disk of an attempt is, in its directory.
pub fn image_in(directory: &Path) -> PathBuf {
    directory.join("disk.img")
}

/// Locks even after a panic elsewhere: the data are plain values that no step leaves half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The sandbox is being built; nothing of the customer runs.
    Launching,
    Running,
    Ended,
}

/// What changes during an attempt's life.
pub struct State {
    pub phase: Phase,
    pub started_at: Option<Timestamp>,
    pub last_alive_at: Option<Timestamp>,
    pub stop_requested: bool,
    /// Signals were not enough.
    pub forced: bool,
    /// Kinds of containment already reported.
    pub contained: BTreeSet<&'static str>,
    /// The work directory, reachable only through this descriptor.
    pub work: Option<OwnedFd>,
    /// The conversation with init; its end ends the sandbox.
    pub control: Option<Arc<Channel>>,
    pub leaf: Leaf,
}

pub struct Attempt {
    pub id: AttemptId,
    pub directory: PathBuf,
    /// Names of the devices it holds.
    pub devices: Vec<String>,
    /// Distinguishes the users of attempts that live at the same time.
    pub user_index: u32,
    /// Expires when patience with the job does.
    pub timer: OwnedFd,
    pub state: Mutex<State>,
}

impl Attempt {
    pub fn new(id: AttemptId, directory: PathBuf, devices: Vec<String>, user_index: u32) -> io::Result<Self> {
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let state = State {
            phase: Phase::Launching,
            started_at: None,
            last_alive_at: None,
            stop_requested: false,
            forced: false,
            contained: BTreeSet::new(),
            work: None,
            control: None,
            leaf: Leaf::default(),
        };
        Ok(Self { id, directory, devices, user_index, timer, state: Mutex::new(state) })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn is_live(&self) -> bool {
        self.state().phase != Phase::Ended
    }

    pub fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    pub fn image_path(&self) -> PathBuf {
        image_in(&self.directory)
    }

    pub fn notices_path(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Asks the job to end and limits for how long it is asked. A repeated call can only shorten the time.
    pub fn request_stop(&self, grace: DurationMs) {
        let mut state = self.state();
        if state.phase == Phase::Ended {
            return;
        }
        state.stop_requested = true;
        if let Some(control) = &state.control {
            // A sandbox that takes no orders is ended by the timer.
            let _ = control.send_at_once(&Order::Terminate);
        }
        self.arm(grace);
    }

    /// Lets the timer expire after `duration` unless it is due sooner.
    pub fn arm(&self, duration: DurationMs) {
        let wanted = timespec(duration);
        let current = rustix::time::timerfd_gettime(&self.timer).map(|timer| timer.it_value).unwrap_or(DISARMED);
        let sooner = current != DISARMED && (current.tv_sec, current.tv_nsec) <= (wanted.tv_sec, wanted.tv_nsec);
        if !sooner {
            self.set_timer(wanted);
        }
    }

    /// Starts the timer anew.
    pub fn rearm(&self, duration: DurationMs) {
        self.set_timer(timespec(duration));
    }

    fn set_timer(&self, value: Timespec) {
        let once = Itimerspec { it_interval: DISARMED, it_value: value };
        if let Err(error) = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            tracing::error!(attempt = %self.id, %error, "cannot set an attempt's timer");
        }
    }
}

const DISARMED: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A time to wait; zero becomes the shortest there is, because zero would disarm a timer.
fn timespec(duration: DurationMs) -> Timespec {
    let millis = duration.millis().max(0);
    let nanos = millis.rem_euclid(1_000).saturating_mul(1_000_000);
    Timespec { tv_sec: millis.div_euclid(1_000), tv_nsec: if millis == 0 { 1 } else { nanos } }
}

/// What is known when an attempt has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ending {
    pub started: bool,
    pub verdict: Option<Verdict>,
    pub stop_requested: bool,
    pub forced: bool,
    /// The kernel killed something for memory.
    pub out_of_memory: bool,
}

/// What init said about the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Exited {
        code: i32,
    },
    Killed {
        signal: i32,
    },
    NotExecuted {
        reason: String,
    },
    /// The sandbox failed after it had been judged.
    Failed,
}

impl Ending {
    /// How the attempt ended, as the customer is told.
    pub fn exit(self) -> Exit {
        if let Some(Verdict::NotExecuted { reason }) = self.verdict {
            return Exit::NotStarted { reason };
        }
        if !self.started {
            let reason =
                if self.stop_requested { "it was stopped before it started" } else { "the sandbox failed before the start" };
            return Exit::NotStarted { reason: reason.to_owned() };
        }
        if self.stop_requested {
            return Exit::Stopped { forced: self.forced };
        }
        if self.out_of_memory {
            return Exit::OutOfMemory;
        }
        match self.verdict {
            Some(Verdict::Exited { code }) => Exit::Code { code },
            Some(Verdict::Killed { signal }) => Exit::Signal { signal },
            // Init vanished without a word: something outside killed the sandbox.
            Some(Verdict::NotExecuted { .. } | Verdict::Failed) | None => Exit::Signal { signal: libc::SIGKILL },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_what_caused_it() {
        let plain = |verdict| Ending { started: true, verdict, stop_requested: false, forced: false, out_of_memory: false };
        let code = Some(Verdict::Exited { code: 3 });
        let killed = Some(Verdict::Killed { signal: 9 });
        let unknown = Some(Verdict::NotExecuted { reason: "there is none".into() });
        let not_started = |reason: &str| Exit::NotStarted { reason: reason.into() };
        for (ending, expected) in [
            (plain(code.clone()), Exit::Code { code: 3 }),
            (plain(killed.clone()), Exit::Signal { signal: 9 }),
            (plain(None), Exit::Signal { signal: 9 }),
            (Ending { out_of_memory: true, ..plain(killed.clone()) }, Exit::OutOfMemory),
            (Ending { out_of_memory: true, ..plain(code.clone()) }, Exit::OutOfMemory),
            (Ending { stop_requested: true, ..plain(code.clone()) }, Exit::Stopped { forced: false }),
            (Ending { stop_requested: true, forced: true, ..plain(killed) }, Exit::Stopped { forced: true }),
            (Ending { started: false, ..plain(unknown) }, not_started("there is none")),
            (Ending { started: false, stop_requested: true, ..plain(None) }, not_started("it was stopped before it started")),
            (Ending { started: false, ..plain(Some(Verdict::Failed)) }, not_started("the sandbox failed before the start")),
        ] {
            assert_eq!(ending.clone().exit(), expected, "{ending:?}");
        }
    }

    #[test]
    fn patience_can_only_be_shortened() {
        let attempt = "att_1".parse().unwrap();
        let attempt = Attempt::new(attempt, PathBuf::new(), Vec::new(), 0).unwrap();
        let left = || rustix::time::timerfd_gettime(&attempt.timer).unwrap().it_value.tv_sec;
        attempt.arm(DurationMs::from_seconds(5_000));
        attempt.arm(DurationMs::from_seconds(9_000));
        assert!(left() <= 5_000);
        attempt.arm(DurationMs::from_seconds(1_000));
        assert!(left() <= 1_000);
    }
}
