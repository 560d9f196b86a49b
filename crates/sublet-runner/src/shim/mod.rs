//! The inside of the sandbox: what the binary does when the runner starts it as a sandbox's first process.
//!
//! Three processes follow each other. The *supervisor* enters the namespaces and waits; it exists because a new process
//! namespace begins with a child. *Init* is process 1 of the sandbox: it builds the root file system, drops everything
//! it does not need, starts the job, collects orphans and passes signals on. The *job* confines itself step by step,
//! reports what is in force, waits for the word to go, and becomes the customer's program.
//!
//! Invariants: nothing of the customer runs before the runner has judged the isolation achieved. When the runner dies,
//! its end of the control socket closes, init ends, and the kernel kills every process of the namespace. Each process
//! has one thread until everything that changes credentials is done.
//!
//! Deliberately absent: clocks, logging, configuration. The runner has them.

mod confine;
mod init;
mod job;
mod root;
mod syscalls;

use std::fs;
use std::io;

use rustix::process::{Pid, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::channel::{Channel, Launch, Order, Report, retry, unpack_launch};
use crate::sys::{self, Forked};

/// The first argument that makes the binary a sandbox.
pub const SANDBOX_ARGUMENT: &str = "__sandbox";
/// The job's user and group inside the sandbox.
const INSIDE_ID: u32 = 1_000;

/// A step of building the sandbox that failed.
#[derive(Debug)]
struct Failure {
    step: &'static str,
    cause: String,
}

type Step<T> = Result<T, Failure>;

/// Names the step in which an error happened.
trait During<T> {
    fn during(self, step: &'static str) -> Step<T>;
}

impl<T, E: std::fmt::Display> During<T> for Result<T, E> {
    fn during(self, step: &'static str) -> Step<T> {
        self.map_err(|error| Failure { step, cause: error.to_string() })
    }
}

/// Turns this process into a sandbox if its arguments ask for it, and then never returns.
///
/// Call it first thing in `main`, before any thread exists. Without the argument it does nothing.
pub fn main_if_requested() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == SANDBOX_ARGUMENT) {
        // A panic message would land in the customer's log with paths of the host.
        std::panic::set_hook(Box::new(|_| {}));
        end(supervise());
    }
}

/// Ends this process at once.
#[allow(clippy::exit)]
fn end(status: i32) -> ! {
    std::process::exit(status)
}

/// The supervisor. Returns its exit status.
fn supervise() -> i32 {
    let Ok(control) = take_control() else { return 2 };
    match prepare(&control) {
        Ok(init) => {
            // Only init may keep the conversation open, or its end would go unnoticed.
            drop(control);
            release_output();
            let _ = retry(|| rustix::process::waitpid(Some(init), WaitOptions::empty()));
            0
        }
        Err(failure) => {
            let _ = control.send(&Report::Failed { step: failure.step.to_owned(), cause: failure.cause });
            1
        }
    }
}

/// Standard input is the control socket; it is moved away so that nothing inherits it by accident.
fn take_control() -> io::Result<Channel> {
    let control = Channel::from_descriptor(sys::duplicate_stdin()?);
    let null = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    sys::close_on_exec_from(3)?;
    Ok(control)
}

fn release_output() {
    if let Ok(null) = fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

fn prepare(control: &Channel) -> Step<Pid> {
    let order = control.receive::<Order>().during("receive the launch request")?;
    let Some(memory) = order.filter(|order| order.message == Order::Prepare).and_then(|order| order.descriptor) else {
        return Err(Failure { step: "receive the launch request", cause: "none came".to_owned() });
    };
    let (launch, files) = unpack_launch(memory).during("read the launch request")?;
    enter_namespaces(&launch)?;
    match sys::fork().during("start init")? {
        Forked::Parent(init) => Ok(init),
        Forked::Child => {
            let status = init::run(control, &launch, files);
            end(status)
        }
    }
}

fn enter_namespaces(launch: &Launch) -> Step<()> {
    if launch.host_user.is_none() {
        let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        sys::unshare(UnshareFlags::NEWUSER).during("enter a user namespace")?;
        map_identity(user, group).during("map the user")?;
    }
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    sys::unshare(flags).during("enter the namespaces")
}

/// Maps the one user and group of a fresh user namespace to the job's.
fn map_identity(user: u32, group: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{INSIDE_ID} {group} 1"))?;
    fs::write("/proc/self/uid_map", format!("{INSIDE_ID} {user} 1"))
}
