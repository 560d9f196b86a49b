//! Process 1 of the sandbox.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus};
use sublet_core::runner::Isolation;

use super::job::{self, Confinement, Word};
use super::{During, Failure, Step, confine, end, root};
use crate::channel::{Channel, Launch, Order, Report, retry};
use crate::sys::{self, Forked};

/// Builds the sandbox, runs the job in it and returns this process's exit status.
pub fn run(control: &Channel, launch: &Launch, files: File) -> i32 {
    match start(control, launch, files) {
        Ok(Some(job)) => {
            watch(control, job);
            0
        }
        Ok(None) => 0,
        Err(failure) => {
            let _ = control.send(&Report::Failed { step: failure.step.to_owned(), cause: failure.cause });
            1
        }
    }
}

/// Everything up to the running program. `None` if it was not to be, and the runner knows why.
fn start(control: &Channel, launch: &Launch, files: File) -> Step<Option<Pid>> {
    // Opened while the host's control groups are still visible.
    let entrances: io::Result<Vec<File>> =
        launch.cgroup_entrances.iter().map(|path| File::options().write(true).open(path)).collect();
    let entrances = entrances.during("open the control groups")?;
    let (to_job, to_init) = Channel::pair().during("open a channel")?;
    // The job joins its control groups, which takes the kernel some ten milliseconds, while init builds the root.
    let job = match sys::fork().during("start the job")? {
        Forked::Parent(job) => job,
        Forked::Child => {
            drop(to_job);
            job::run(&to_init, launch, entrances);
            end(127)
        }
    };
    drop(to_init);
    drop(entrances);
    rustix::system::sethostname(b"sandbox").during("name the host")?;
    let work = root::build(launch, files)?;
    to_job.send(&Order::Prepare).during("let the job confine itself")?;
    drop_privileges(launch)?;
    let confinement = match hear(&to_job).during("hear from the job")? {
        Some(Word::Confined(confinement)) => confinement,
        Some(Word::Failed { step, cause }) => return Err(Failure { step: "confine the job", cause: format!("{step}: {cause}") }),
        Some(Word::NotExecuted { .. }) | None => return Err(Failure { step: "confine the job", cause: "it died".to_owned() }),
    };
    let isolation = isolation(launch, confinement);
    control.send_with(&Report::Ready { isolation }, work.as_fd()).during("report")?;
    drop(work);
    let go = control.receive::<Order>().during("wait for the word")?;
    if go.is_none_or(|order| order.message != Order::Go) {
        return Ok(None);
    }
    to_job.send(&Order::Go).during("let the job go")?;
    // The channel closes by itself when the program replaces the job.
    match hear(&to_job).during("hear from the job")? {
        None => control.send(&Report::Started).during("report").map(|()| Some(job)),
        Some(Word::NotExecuted { reason }) => control.send(&Report::NotExecuted { reason }).during("report").map(|()| None),
        Some(Word::Confined(_) | Word::Failed { .. }) => Err(Failure { step: "start the job", cause: "out of turn".to_owned() }),
    }
}

fn hear(channel: &Channel) -> io::Result<Option<Word>> {
    Ok(channel.receive()?.map(|received| received.message))
}

fn isolation(launch: &Launch, confinement: Confinement) -> Isolation {
    Isolation {
        user_namespace: confinement.user_namespace,
        pid_namespace: true,
        mount_namespace: true,
        network_namespace: true,
        ipc_namespace: true,
        landlock_abi: confinement.landlock_abi,
        seccomp: confinement.seccomp,
        no_new_privileges: confinement.no_new_privileges,
        cgroup_memory: launch.cgroup_memory,
        cgroup_pids: launch.cgroup_pids,
        cgroup_kill: launch.cgroup_kill,
        disk_quota: true,
    }
}

/// Init keeps the right to signal the job (it is the same user) and nothing else, and the job cannot look into it.
fn drop_privileges(launch: &Launch) -> Step<()> {
    if let Some(user) = launch.host_user {
        job::switch_user(user).during("drop init's privileges")?;
    }
    rustix::thread::set_no_new_privs(true).during("drop init's privileges")?;
    confine::drop_capabilities().during("drop init's privileges")?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).during("drop init's privileges")?;
    // After the change of user, which clears it: if the supervisor dies, everything here does.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).during("follow the supervisor")
}

/// Collects every child until the job itself has ended; passes the runner's orders on meanwhile.
fn watch(control: &Channel, job: Pid) {
    let duplicate = rustix::io::fcntl_dupfd_cloexec(control, 3).map(Channel::from_descriptor).map(Arc::new);
    let Ok(orders) = duplicate else { return };
    let listener = std::thread::Builder::new().name("orders".to_owned()).spawn(move || obey(&orders, job));
    if listener.is_err() {
        return;
    }
    loop {
        match retry(|| rustix::process::wait(WaitOptions::empty())) {
            Ok(Some((pid, status))) if pid == job => {
                let _ = control.send(&report(status));
                return;
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn report(status: WaitStatus) -> Report {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Report::Exited { code },
        (None, Some(signal)) => Report::Killed { signal },
        (None, None) => Report::Killed { signal: Signal::KILL.as_raw() },
    }
}

/// Carries out orders until the runner is gone, and then ends the sandbox.
fn obey(orders: &Channel, job: Pid) {
    while let Ok(Some(order)) = orders.receive::<Order>() {
        match order.message {
            Order::Terminate => {
                let _ = rustix::process::kill_process_group(job, Signal::TERM);
            }
            Order::Notice => warn_listener(job),
            Order::Prepare | Order::Go => {}
        }
    }
    end(0)
}

/// Sends SIGUSR1 to the job's first process if it catches it; the signal would kill it otherwise. Its children are left
/// alone: one that was seen with a handler may have become another program, without it, when the signal arrives.
fn warn_listener(job: Pid) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", job.as_raw_pid())).unwrap_or_default();
    if catches_usr1(&status) {
        let _ = rustix::process::kill_process(job, Signal::USR1);
    }
}

/// Whether a process with this /proc/PID/status has a handler for SIGUSR1.
fn catches_usr1(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(Signal::USR1.as_raw() - 1).unwrap_or(0);
    mask >> bit & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::catches_usr1;

    #[test]
    fn only_a_process_with_a_handler_is_warned() {
        for (status, expected) in [
            ("Name:\tx\nSigIgn:\t0000000000000200\nSigCgt:\t0000000000000200\n", true),
            ("SigIgn:\t0000000000000200\nSigCgt:\t0000000000004002\n", false),
            ("SigCgt:\tnonsense\n", false),
            ("", false),
        ] {
            assert_eq!(catches_usr1(status), expected, "{status}");
        }
    }
}
