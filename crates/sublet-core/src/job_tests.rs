use super::*;

fn spec(command: &[&str]) -> JobSpec {
    JobSpec {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        environment: BTreeMap::new(),
        files: BTreeMap::new(),
        limits: JobLimits::default(),
        on_end: OnEnd::EndLease,
        restart: RestartPolicy::default(),
    }
}

#[test]
fn what_cannot_run_is_refused_with_its_field() {
    let mut long = spec(&["a"]);
    long.command[0] = "x".repeat(COMMAND_BYTES_MAX + 1);
    let with = |change: fn(&mut JobSpec)| {
        let mut changed = spec(&["true"]);
        change(&mut changed);
        changed
    };
    let cases = [
        (spec(&[]), "command"),
        (spec(&[""]), "command"),
        (spec(&["a\0"]), "command"),
        (long, "command"),
        (with(|s| drop(s.environment.insert("1A".into(), String::new()))), "environment"),
        (with(|s| drop(s.environment.insert("A=B".into(), String::new()))), "environment"),
        (with(|s| drop(s.environment.insert("SUBLET_X".into(), String::new()))), "environment"),
        (with(|s| drop(s.files.insert("/etc/passwd".into(), vec![]))), "files"),
        (with(|s| drop(s.files.insert("a/../b".into(), vec![]))), "files"),
        (with(|s| drop(s.files.insert("a//b".into(), vec![]))), "files"),
        (with(|s| s.files.extend([("a".into(), vec![]), ("a/b".into(), vec![])])), "files"),
        (with(|s| drop(s.files.insert("a".into(), vec![0; FILE_BYTES_MAX + 1]))), "files"),
        (with(|s| s.limits.memory = Some(Bytes::ZERO)), "memory"),
        (with(|s| s.limits.time = Some(DurationMs::ZERO)), "time_limit"),
        (with(|s| s.restart.restarts_max = 0), "restart.restarts_max"),
    ];
    for (case, param) in cases {
        let error = case.validate().expect_err(param);
        assert_eq!(error.param_name(), Some(param), "{error}");
    }
    let mut good = spec(&["python3", "train.py"]);
    good.files.extend([("train.py".into(), vec![1]), ("data/a".into(), vec![2])]);
    good.environment.insert("EPOCHS".into(), "3".into());
    assert!(good.validate().is_ok());
}

#[test]
fn the_programs_own_end_decides_even_while_it_is_stopped() {
    let lost = StopReason::Lost;
    let reclaimed = StopReason::LeaseEnds(EndReason::Reclaimed);
    let stopping = |reason| JobState::Stopping { reason };
    let cases = [
        (JobState::Running, Exit::Code { code: 0 }, JobState::Succeeded),
        (JobState::Running, Exit::Code { code: 1 }, JobState::Failed),
        (JobState::Running, Exit::OutOfMemory, JobState::Failed),
        (JobState::Running, Exit::Lost, JobState::Interrupted { reason: lost }),
        (JobState::Starting, Exit::NotStarted { reason: "no such program".into() }, JobState::Failed),
        (stopping(StopReason::Cancelled), Exit::Stopped { forced: true }, JobState::Cancelled),
        (stopping(StopReason::Cancelled), Exit::Code { code: 0 }, JobState::Succeeded),
        (stopping(reclaimed), Exit::Stopped { forced: false }, JobState::Interrupted { reason: reclaimed }),
        (stopping(reclaimed), Exit::Code { code: 0 }, JobState::Succeeded),
        (stopping(reclaimed), Exit::Lost, JobState::Interrupted { reason: lost }),
        (stopping(StopReason::LeaseEnds(EndReason::Released)), Exit::Stopped { forced: false }, JobState::Cancelled),
    ];
    for (from, exit, expected) in cases {
        assert_eq!(from.exit(&exit), Ok(expected), "{from:?} {exit:?}");
        assert!(expected.is_final());
        assert!(expected.exit(&exit).is_err() && expected.run().is_err() && expected.start().is_err());
    }
}

#[test]
fn a_waiting_job_ends_at_once_when_stopped() {
    assert_eq!(JobState::Queued.stop(StopReason::Cancelled), Ok(JobState::Cancelled));
    assert_eq!(JobState::Queued.stop(StopReason::LeaseEnds(EndReason::Budget)), Ok(JobState::Refused));
    let stopping = JobState::Starting.stop(StopReason::TimeLimit).unwrap();
    assert_eq!(stopping.run(), Ok(stopping));
    assert!(stopping.stop(StopReason::Cancelled).is_err());
    assert!(JobState::Succeeded.stop(StopReason::Cancelled).is_err());
}

#[test]
fn states_are_restored_from_name_and_reason() {
    let reason = StopReason::LeaseEnds(EndReason::Budget);
    for state in [JobState::Queued, JobState::Stopping { reason }, JobState::Interrupted { reason: StopReason::Lost }] {
        let text = state.reason().map_or("", StopReason::as_str);
        assert_eq!(JobState::restore(state.as_str(), text).unwrap(), state);
    }
    for name in JobState::NAMES {
        assert_eq!(JobState::restore(name, "lost").unwrap().as_str(), name);
    }
}

#[test]
fn an_interrupted_job_goes_on_once_and_only_from_where_it_was() {
    let reason = StopReason::LeaseEnds(EndReason::Reclaimed);
    let elsewhere = GoesOn::Elsewhere(reason);
    let requeued = JobState::Stopping { reason }.go_on(elsewhere).unwrap();
    assert_eq!(requeued, JobState::Requeued { reason });
    assert!(!requeued.is_final() && requeued.start().is_err() && requeued.run().is_err() && requeued.go_on(elsewhere).is_err());
    assert_eq!(requeued.resume(), Ok(JobState::Queued));
    assert!(JobState::Queued.resume().is_err(), "nobody places it twice");
    assert_eq!(requeued.give_up(), Ok(JobState::Interrupted { reason }));
    assert_eq!(requeued.stop(StopReason::Cancelled), Ok(JobState::Cancelled));
    assert!(requeued.stop(StopReason::TimeLimit).is_err());
    assert_eq!(JobState::Running.go_on(GoesOn::Here), Ok(JobState::Queued));
    for over in [JobState::Succeeded, JobState::Failed, JobState::Cancelled, JobState::Interrupted { reason }, JobState::Refused] {
        assert!(over.go_on(elsewhere).is_err() && over.go_on(GoesOn::Here).is_err() && over.resume().is_err(), "{over}");
    }
}
