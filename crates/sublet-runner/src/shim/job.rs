//! The process that confines itself and then becomes the customer's program.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Gid, Uid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::{During, Failure, Step, confine, map_identity, syscalls};
use crate::channel::{Channel, Launch, Order};
use crate::sys;

/// The job is what the kernel should sacrifice first when the host runs out of memory.
const OUT_OF_MEMORY_SCORE: &str = "500";

/// From the job to init.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Word {
    /// All that can be in force is.
    Confined(Confinement),
    Failed {
        step: String,
        cause: String,
    },
    /// The program could not be executed; the reason is public.
    NotExecuted {
        reason: String,
    },
}

/// What the job achieved by itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Confinement {
    pub user_namespace: bool,
    pub landlock_abi: u32,
    pub seccomp: bool,
    pub no_new_privileges: bool,
}

/// Runs in the child that init forked. Returns only if the program did not start.
pub fn run(to_init: &Channel, launch: &Launch, entrances: Vec<File>) {
    let confined = join_groups(entrances).and_then(|()| match hear(to_init) {
        Some(Order::Prepare) => confine_self(launch),
        _ => Err(Failure { step: "wait for the root", cause: "init is gone".to_owned() }),
    });
    match confined {
        Err(failure) => {
            let _ = to_init.send(&Word::Failed { step: failure.step.to_owned(), cause: failure.cause });
        }
        Ok(confinement) => {
            if to_init.send(&Word::Confined(confinement)).is_err() {
                return;
            }
            if hear(to_init) == Some(Order::Go) {
                let reason = execute(launch);
                let _ = to_init.send(&Word::NotExecuted { reason });
            }
        }
    }
}

fn hear(to_init: &Channel) -> Option<Order> {
    to_init.receive::<Order>().ok().flatten().map(|received| received.message)
}

fn join_groups(entrances: Vec<File>) -> Step<()> {
    for mut entrance in entrances {
        // "0" is the writer itself.
        entrance.write_all(b"0").during("join the control groups")?;
    }
    Ok(())
}

/// Runs when the new root is in place; changing the root moved this process there too.
fn confine_self(launch: &Launch) -> Step<Confinement> {
    sys::unshare(UnshareFlags::NEWCGROUP).during("enter a control group namespace")?;
    rustix::process::setsid().during("start a session")?;
    let _ = fs::write("/proc/self/oom_score_adj", OUT_OF_MEMORY_SCORE);
    confine::limit_resources(launch).during("set resource limits")?;
    let user_namespace = match launch.host_user {
        Some(user) => become_user(user)?,
        None => true,
    };
    rustix::thread::set_no_new_privs(true).during("give up new privileges")?;
    confine::drop_capabilities().during("drop capabilities")?;
    rustix::process::chdir("/work").during("enter /work")?;
    let landlock_abi = confine::landlock().during("confine the file system")?;
    let seccomp = syscalls::confine();
    if let Err(error) = seccomp {
        return Err(Failure { step: "filter system calls", cause: error.to_string() });
    }
    let no_new_privileges = rustix::thread::no_new_privs().during("check privileges")?;
    Ok(Confinement { user_namespace, landlock_abi, seccomp: true, no_new_privileges })
}

/// Becomes an unprivileged user of the host, and then the only user of a namespace of its own where that is allowed.
fn become_user(user: u32) -> Step<bool> {
    switch_user(user).during("become the job's user")?;
    // The change of user made this process unreadable to itself; the maps below need it readable.
    set_dumpable_behavior(DumpableBehavior::Dumpable).during("become the job's user")?;
    match sys::unshare(UnshareFlags::NEWUSER) {
        Ok(()) => map_identity(user, user).during("map the user").map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Changes the real, effective and saved user and group, and leaves all other groups.
pub fn switch_user(user: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Replaces this process by the program. Returns why that was not possible, in words for the customer.
fn execute(launch: &Launch) -> String {
    let Some((program, arguments)) = launch.command.split_first() else { return "the command is empty".to_owned() };
    let error = Command::new(program).args(arguments).env_clear().envs(&launch.environment).exec();
    let shown: String = program.chars().take(200).collect();
    match error.kind() {
        io::ErrorKind::NotFound => format!("there is no program '{shown}' in the sandbox"),
        io::ErrorKind::PermissionDenied => format!("'{shown}' is not an executable program"),
        io::ErrorKind::ArgumentListTooLong => "the command and its environment are too long".to_owned(),
        _ => format!("'{shown}' cannot be executed: {error}"),
    }
}
