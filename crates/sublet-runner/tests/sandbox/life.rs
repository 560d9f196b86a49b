//! What a well-behaved job gets.

use std::path::Path;

use sublet_core::error::ErrorCode;
use sublet_core::quantity::Bytes;
use sublet_core::runner::{AttemptEvent, Exit, IsolationLevel, Notice, Runner};
use sublet_core::time::{DurationMs, Timestamp};
use sublet_runner::local::{ConfiguredDevice, LocalRunner};

use crate::lab::{Lab, Setup, config, job, perl, shell};

#[test]
fn a_command_runs_and_its_output_code_and_times_are_kept() {
    let lab = Lab::new();
    let spec = shell("plain", "echo to output; echo to error >&2; exit 7");
    let (exit, log) = lab.run(&spec);
    assert_eq!((exit, log.as_str()), (Exit::Code { code: 7 }, "to output\nto error\n"));
    let events = lab.events(&spec.attempt);
    let (AttemptEvent::Started { at: start, isolation }, Some(AttemptEvent::Exited { at: end, peak_memory, .. })) =
        (&events[0], events.last())
    else {
        panic!("{events:?}");
    };
    assert!(start < end);
    assert!(*peak_memory > Bytes::ZERO);
    assert_eq!(isolation.level(), IsolationLevel::Sandbox);
    lab.assert_gone(&spec.attempt);
    assert_eq!(lab.runner.snapshot(), []);
}

#[test]
fn processor_time_is_counted() {
    let lab = Lab::new();
    let spec = job("busy", &["perl", "-e", "my @t; do { @t = times } while ($t[0] < 0.3)"]);
    lab.run(&spec);
    let cpu = lab.events(&spec.attempt).into_iter().find_map(|event| match event {
        AttemptEvent::Exited { cpu_time, .. } => Some(cpu_time.millis()),
        AttemptEvent::Started { .. } | AttemptEvent::Alive { .. } | AttemptEvent::Contained { .. } => None,
    });
    assert!((250..3_000).contains(&cpu.unwrap()), "{cpu:?}");
}

#[test]
fn the_environment_holds_what_was_set_and_what_sublet_says_and_nothing_else() {
    let lab = Lab::new();
    let mut spec = shell("environment", "env | sort");
    spec.environment.insert("MODEL".into(), "small".into());
    spec.environment.insert("SUBLET_JOB".into(), "job_forged".into());
    spec.device_names = vec!["cpu-slot-1".into(), "cpu-slot-2".into()];
    let (_, log) = lab.run(&spec);
    let expected = "CUDA_VISIBLE_DEVICES=\nHOME=/work\nMODEL=small\n\
                    PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin\nPWD=/work\nSUBLET_ATTEMPT=att_environment\n\
                    SUBLET_CHECKPOINT_DIR=/work\nSUBLET_DEVICES=cpu-slot-1,cpu-slot-2\nSUBLET_JOB=job_environment\nSUBLET_NOTICE_FILE=/run/sublet/notice.json\n";
    assert_eq!(log, expected);
}

#[test]
fn placed_files_can_be_read_and_scripts_among_them_run() {
    let lab = Lab::new();
    let mut spec = job("files", &["./tools/go.sh"]);
    spec.files.insert("tools/go.sh".into(), b"#!/bin/sh\ncat data.txt; test -x data.txt || echo not executable\n".to_vec());
    spec.files.insert("data.txt".into(), b"content\n".to_vec());
    assert_eq!(lab.run(&spec), (Exit::Code { code: 0 }, "content\nnot executable\n".into()));
}

#[test]
fn a_program_that_does_not_exist_never_starts() {
    let lab = Lab::new();
    for (name, program, reason) in [
        ("missing", "no-such-program", "there is no program 'no-such-program' in the sandbox"),
        ("directory", "/usr", "'/usr' is not an executable program"),
    ] {
        let spec = job(name, &[program]);
        let (exit, log) = lab.run(&spec);
        assert_eq!((exit, log.as_str()), (Exit::NotStarted { reason: reason.into() }, ""));
        assert_eq!(lab.events(&spec.attempt).len(), 1, "there is no start to be charged for");
    }
}

#[test]
fn a_signal_nobody_here_sent_is_told() {
    let lab = Lab::new();
    assert_eq!(lab.run(&shell("signal", "kill -SEGV $$")).0, Exit::Signal { signal: 11 });
}

#[test]
fn a_job_that_obeys_is_not_forced() {
    let lab = Lab::new();
    let script = "$| = 1; $SIG{TERM} = sub { print \"saved\\n\"; exit 0 }; print \"ready\\n\"; sleep 1 while 1";
    let spec = perl("obedient", script);
    lab.runner.place(&spec).unwrap();
    lab.until_logged(&spec.attempt, "ready");
    lab.runner.stop(&spec.attempt, DurationMs::from_seconds(20)).unwrap();
    assert_eq!(lab.until_ended(&spec.attempt), Exit::Stopped { forced: false });
    assert_eq!(lab.log(&spec.attempt), "ready\nsaved\n");
}

#[test]
fn a_notice_is_a_file_and_a_signal_only_for_those_who_listen() {
    let lab = Lab::new();
    let script = "trap 'cat /run/sublet/notice.json; echo; echo warned' USR1\n\
                  sleep 1000 & other=$!\necho ready\n\
                  while ! test -e enough; do sleep 0.05; kill -0 $other || echo other died; test -s /run/sublet/notice.json && \
                  sleep 0.2 && touch enough; done; kill -9 $other";
    let spec = shell("notice", script);
    lab.runner.place(&spec).unwrap();
    lab.until_logged(&spec.attempt, "ready");
    let notice = Notice { reason: "the owner needs it".into(), deadline: Timestamp::from_seconds(1_700_000_000) };
    lab.runner.notify(&spec.attempt, &notice).unwrap();
    assert_eq!(lab.until_ended(&spec.attempt), Exit::Code { code: 0 });
    let expected = "ready\n{\"action\":\"stop\",\"reason\":\"the owner needs it\",\"deadline\":\"2023-11-14T22:13:20.000000Z\",\
                    \"deadline_unix_ms\":1700000000000}\nwarned\n";
    assert_eq!(lab.log(&spec.attempt), expected);
    let late = lab.runner.notify(&spec.attempt, &notice).unwrap_err();
    assert_eq!(late.code(), ErrorCode::NotFound);
}

#[test]
fn the_same_attempt_again_changes_nothing_also_after_a_restart() {
    let lab = Lab::new();
    let spec = shell("twice", "echo once");
    lab.run(&spec);
    lab.runner.place(&spec).unwrap();
    let before = lab.events(&spec.attempt);
    let lab = lab.restart();
    lab.runner.place(&spec).unwrap();
    assert_eq!(lab.events(&spec.attempt), before);
    assert_eq!(lab.log(&spec.attempt), "once\n");
}

#[test]
fn a_device_is_leased_to_one_job_at_a_time_and_must_exist() {
    let lab = Lab::new();
    let mut holder = shell("holder", "echo ready; sleep 1000");
    holder.device_names = vec!["cpu-slot-0".into()];
    lab.runner.place(&holder).unwrap();
    let mut other = shell("other", "true");
    other.device_names = vec!["cpu-slot-0".into()];
    assert_eq!(lab.runner.place(&other).unwrap_err().code(), ErrorCode::CapacityUnavailable);
    lab.runner.stop(&holder.attempt, DurationMs::ZERO).unwrap();
    lab.until_ended(&holder.attempt);
    lab.runner.place(&other).unwrap();
    assert_eq!(lab.until_ended(&other.attempt), Exit::Code { code: 0 });
    other.attempt = "att_third".parse().unwrap();
    other.device_names = vec!["cpu-slot-99".into()];
    assert_eq!(lab.runner.place(&other).unwrap_err().code(), ErrorCode::InvalidRequest);
}

#[test]
fn device_files_are_seen_only_by_who_leased_them() {
    let lab_directory = tempfile::tempdir().unwrap();
    let node = lab_directory.path().join("accelerator7");
    let made = std::process::Command::new("mknod").arg(&node).args(["-m", "666", "c", "1", "3"]).status().unwrap();
    assert!(made.success());
    let info = sublet_core::runner::DeviceInfo {
        name: "fake-7".into(),
        kind: "fake".into(),
        uuid: "FAKE-7".into(),
        memory: Bytes::new(1),
    };
    let device = ConfiguredDevice { info, nodes: vec![node], cuda_name: Some("FAKE-7".into()) };
    let lab = Lab::with(Setup { devices: vec![device], ..Setup::default() });
    let script = "echo \"[$CUDA_VISIBLE_DEVICES]\"; echo x > /dev/accelerator7 && echo written; ls /dev";
    let mut holder = shell("gpu", script);
    holder.device_names = vec!["fake-7".into()];
    let (_, log) = lab.run(&holder);
    assert_eq!(log, "[FAKE-7]\nwritten\naccelerator7\nfd\nfull\nnull\nrandom\nshm\nstderr\nstdin\nstdout\nurandom\nzero\n");
    let (_, log) = lab.run(&shell("nogpu", "echo \"[$CUDA_VISIBLE_DEVICES]\"; ls /dev"));
    assert_eq!(log, "[]\nfd\nfull\nnull\nrandom\nshm\nstderr\nstdin\nstdout\nurandom\nzero\n");
}

#[test]
fn what_a_job_leaves_can_be_read_until_it_is_cleaned_also_after_a_restart() {
    let lab = Lab::new();
    let spec = shell("artifact", "mkdir out; echo weights > out/model.bin; ln -s /etc/passwd leak; mkfifo pipe; ln -s out link");
    lab.run(&spec);
    let check = |lab: &Lab| {
        let names: Vec<String> =
            lab.runner.artifacts(&spec.attempt).unwrap().iter().map(|a| a.path.display().to_string()).collect();
        assert_eq!(names, ["out/model.bin"]);
        let read = |path: &str| lab.runner.read_artifact(&spec.attempt, Path::new(path), 2, 100);
        assert_eq!(read("out/model.bin").unwrap(), b"ights\n");
        for path in ["leak", "pipe", "link/model.bin", "../tmp", "/etc/passwd", "out", "none"] {
            assert_eq!(read(path).unwrap_err().code(), ErrorCode::NotFound, "{path}");
        }
    };
    check(&lab);
    let lab = lab.restart();
    check(&lab);
    lab.runner.clean(&spec.attempt).unwrap();
    assert_eq!(lab.runner.artifacts(&spec.attempt).unwrap_err().code(), ErrorCode::NotFound);
    assert!(lab.runner.read_log(&spec.attempt, 0, 1).unwrap().complete, "the log outlives the work directory");
    lab.runner.forget(&spec.attempt).unwrap();
    assert_eq!(lab.runner.read_log(&spec.attempt, 0, 1).unwrap_err().code(), ErrorCode::NotFound);
    assert_eq!(lab.events(&spec.attempt), []);
}

#[test]
fn a_running_job_can_be_neither_cleaned_nor_forgotten() {
    let lab = Lab::new();
    let spec = shell("running", "sleep 1000");
    lab.runner.place(&spec).unwrap();
    assert_eq!(lab.runner.clean(&spec.attempt).unwrap_err().code(), ErrorCode::Conflict);
    assert_eq!(lab.runner.forget(&spec.attempt).unwrap_err().code(), ErrorCode::Conflict);
    assert_eq!(lab.runner.snapshot().len(), 1);
}

#[test]
fn proofs_of_life_follow_each_other() {
    let lab = Lab::new();
    let spec = shell("alive", "sleep 1000");
    lab.runner.place(&spec).unwrap();
    let alive = || {
        let all = lab.runner.events_after(0, 100).unwrap();
        let alive: Vec<u64> =
            all.iter().filter(|event| matches!(event.event, AttemptEvent::Alive { .. })).map(|event| event.sequence).collect();
        assert!(alive.len() <= 1, "older proofs are dropped");
        alive.first().copied()
    };
    let first = lab.until("a proof of life", alive);
    lab.until("another proof of life", || alive().filter(|later| *later > first));
}

#[test]
fn shutting_down_stops_all_jobs_and_refuses_more() {
    let lab = Lab::new();
    let specs = [shell("one", "trap '' TERM; echo ready; while :; do sleep 1; done"), shell("two", "echo ready; sleep 1000")];
    for spec in &specs {
        lab.runner.place(spec).unwrap();
        lab.until_logged(&spec.attempt, "ready");
    }
    lab.runner.shutdown(DurationMs::from_millis(300));
    let exits = specs.each_ref().map(|spec| lab.exit(&spec.attempt));
    assert_eq!(exits, [Some(Exit::Stopped { forced: true }), Some(Exit::Stopped { forced: false })]);
    assert_eq!(lab.runner.place(&shell("three", "true")).unwrap_err().code(), ErrorCode::ShuttingDown);
}

#[test]
fn a_directory_serves_one_runner_and_may_not_be_where_jobs_can_read() {
    let lab = Lab::new();
    let (second, _woken) = config(lab.directory.path(), Setup::default());
    assert_eq!(LocalRunner::open(second).err().unwrap().code(), ErrorCode::DataDirectoryBusy);
    let shared = tempfile::tempdir().unwrap();
    let programs = tempfile::tempdir_in("/opt").unwrap();
    let data = |below: &std::path::Path| below.join("data");
    for (state_dir, extra) in [
        (data(programs.path()), "/opt"),
        (data(shared.path()), "/tmp/programs"),
        (data(shared.path()), "/etc"),
        (data(shared.path()), "/../opt"),
        (data(shared.path()), "opt"),
        (data(shared.path()), "/"),
    ] {
        let setup = Setup { extra_toolchain: vec![extra.into()], ..Setup::default() };
        let (wrong, _woken) = config(&state_dir, setup);
        assert_eq!(LocalRunner::open(wrong).err().unwrap().code(), ErrorCode::InvalidRequest, "{extra}");
    }
}

#[test]
fn a_job_that_cannot_be_built_leaves_nothing_and_may_be_tried_again() {
    let lab = Lab::new();
    let mut spec = shell("toolarge", "cat large | wc -c");
    spec.limits.disk = Bytes::new(1024 * 1024);
    spec.files.insert("large".into(), vec![b'x'; 4 * 1024 * 1024]);
    let error = lab.runner.place(&spec).unwrap_err();
    assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some("files")), "{error:?}");
    lab.assert_gone(&spec.attempt);
    spec.limits.disk = Bytes::new(8 * 1024 * 1024);
    assert_eq!(lab.run(&spec), (Exit::Code { code: 0 }, "4194304\n".into()));
}

#[test]
fn a_binary_that_is_no_sandbox_runs_nothing_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut wrong, _woken) = config(directory.path(), Setup::default());
    wrong.shim = "/bin/true".into();
    let runner = LocalRunner::open(wrong).unwrap();
    assert_eq!(runner.isolation().level(), IsolationLevel::Process, "nothing is promised");
    let error = runner.place(&shell("nowhere", "true")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Internal);
    assert!(error.private_context()[0].contains("main_if_requested"), "{error:?}");
    assert_eq!(runner.snapshot(), []);
    assert_eq!(std::fs::read_dir(directory.path().join("attempts")).unwrap().count(), 0);
}
