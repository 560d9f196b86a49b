//! The runner dies, or may not do what it would like to.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;
use sublet_core::runner::{AttemptEvent, Exit, Runner};
use sublet_core::time::Timestamp;

use crate::lab::{Lab, Setup};

/// How long processes may take to vanish after their runner was killed.
const VANISH_MAX: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Host processes whose command line holds `token`.
fn processes_with(token: &str) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mine = Pid::from_raw(std::process::id().try_into().unwrap()).unwrap();
    entries
        .filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(token)))
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| *pid != mine)
        .collect()
}

#[test]
fn nothing_survives_a_killed_runner_and_the_time_counts_to_its_last_proof_of_life() {
    let directory = tempfile::tempdir().unwrap();
    let token = format!("31415.{}", std::process::id());
    let mut host = Command::new(env!("CARGO_BIN_EXE_sublet-sandbox"))
        .arg(directory.path())
        .args(["sandbox", "--", "sh", "-c", &format!("trap '' TERM HUP; setsid sleep {token} & sleep {token}")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let host_pid = Pid::from_raw(host.id().try_into().unwrap()).unwrap();
    let mut lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let started = lines.find(|line| line.as_ref().unwrap().contains("\"started\"")).unwrap().unwrap();
    let started: serde_json::Value = serde_json::from_str(&started).unwrap();
    let started_at: Timestamp = serde_json::from_value(started["event"]["at"].clone()).unwrap();

    // Two sleeps and their shell; the host's own command line holds the token too.
    let jobs: Vec<Pid> = loop {
        let found: Vec<Pid> = processes_with(&token).into_iter().filter(|pid| *pid != host_pid).collect();
        if found.len() >= 3 {
            break found;
        }
        std::thread::yield_now();
    };
    let handles: Vec<_> = jobs.iter().map(|pid| pidfd_open(*pid, PidfdFlags::empty()).unwrap()).collect();
    host.kill().unwrap();
    host.wait().unwrap();
    for handle in &handles {
        let gone = poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&VANISH_MAX)).unwrap();
        assert_eq!(gone, 1, "a process outlived its runner");
    }

    let lab = Lab::open(directory, Setup::default());
    let events = lab.runner.events_after(0, 100).unwrap();
    let attempt = events[0].attempt.clone();
    let last_alive = lab.events(&attempt).into_iter().rev().find_map(|event| match event {
        AttemptEvent::Alive { at } | AttemptEvent::Started { at, .. } => Some(at),
        AttemptEvent::Contained { .. } | AttemptEvent::Exited { .. } => None,
    });
    let Some(AttemptEvent::Exited { at, exit: Exit::Lost, .. }) = lab.events(&attempt).pop() else {
        panic!("{events:?}");
    };
    assert_eq!(Some(at), last_alive);
    assert!(at >= started_at);
    assert_eq!(lab.runner.snapshot(), []);
    lab.assert_gone(&attempt);
    assert_eq!(processes_with(&token), []);
}

#[test]
fn an_ordinary_user_gets_a_weaker_sandbox_that_says_so_and_refuses_strict_jobs() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65_534), Some(65_534)).unwrap();
    // The binary may lie where only root can reach it.
    let binary = directory.path().join("sublet-sandbox");
    fs::copy(env!("CARGO_BIN_EXE_sublet-sandbox"), &binary).unwrap();
    let run = |level: &str| {
        let command = ["--", "sh", "-c", "touch ran; id -u; cat /proc/self/status | grep CapEff; ls -A /work; df /work | tail -1"];
        Command::new(&binary).arg(&state).arg(level).args(command).uid(65_534).gid(65_534).current_dir("/").output().unwrap()
    };
    let strict = run("sandbox");
    let message = String::from_utf8_lossy(&strict.stderr);
    assert_eq!(strict.status.code(), Some(8), "{message}");
    assert!(message.contains("policy_refused") && message.contains("missing a memory limit, a process limit"), "{message}");
    let printed = String::from_utf8_lossy(&strict.stdout);
    assert!(!printed.contains("started"), "{printed}");

    let loose = run("process");
    let (printed, log) = (String::from_utf8_lossy(&loose.stdout), String::from_utf8_lossy(&loose.stderr));
    assert!(loose.status.success(), "{log}");
    for part in ["\"level\":\"process\"", "\"user_namespace\":true", "\"cgroup_memory\":false", "\"disk_quota\":true", "\"code\":0"]
    {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    assert!(log.starts_with("1000\nCapEff:\t0000000000000000\nran\n") && log.contains("tmpfs"), "{log}");
}
