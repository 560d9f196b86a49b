//! Jobs that want more than they were sold.

use sublet_core::quantity::Bytes;
use sublet_core::runner::{AttemptEvent, Exit, Runner};
use sublet_core::time::DurationMs;

use crate::lab::{Lab, perl, shell};

const MEBIBYTE: i64 = 1024 * 1024;

#[test]
fn a_fork_bomb_hits_its_limit_and_ends_when_told() {
    let lab = Lab::new();
    let mut spec = perl("bomb", "$SIG{TERM} = 'IGNORE'; $SIG{HUP} = 'IGNORE'; while (1) { fork }");
    spec.limits.processes = 40;
    spec.limits.cpu_millis = 500;
    lab.runner.place(&spec).unwrap();
    lab.until_contained(&spec.attempt, "process limit");
    let outside = std::process::Command::new("true").status().unwrap();
    assert!(outside.success(), "the host can still start processes");
    lab.runner.stop(&spec.attempt, DurationMs::from_millis(50)).unwrap();
    assert_eq!(lab.until_ended(&spec.attempt), Exit::Stopped { forced: true });
    lab.assert_gone(&spec.attempt);
    let reported = lab.contained(&spec.attempt);
    assert_eq!(reported, ["process limit"], "once, however often it acted");
}

#[test]
fn a_memory_hog_is_ended_and_the_end_says_why() {
    let lab = Lab::new();
    let mut spec = perl("hog", "my @all; while (1) { push @all, 'x' x 1048576 }");
    spec.limits.memory = Bytes::new(48 * MEBIBYTE);
    let (exit, _) = lab.run(&spec);
    assert_eq!(exit, Exit::OutOfMemory);
    assert_eq!(lab.contained(&spec.attempt), ["memory limit"]);
    let peak = lab.events(&spec.attempt).into_iter().find_map(|event| match event {
        AttemptEvent::Exited { peak_memory, .. } => Some(peak_memory.get()),
        AttemptEvent::Started { .. } | AttemptEvent::Alive { .. } | AttemptEvent::Contained { .. } => None,
    });
    assert!(((40 * MEBIBYTE)..=(49 * MEBIBYTE)).contains(&peak.unwrap()), "{peak:?}");
}

#[test]
fn a_job_does_not_outlive_the_part_of_it_that_ran_out_of_memory() {
    let lab = Lab::new();
    let mut spec = shell("half", "perl -e 'my @all; while (1) { push @all, \"x\" x 1048576 }'; echo survived; sleep 1000");
    spec.limits.memory = Bytes::new(48 * MEBIBYTE);
    assert_eq!(lab.run(&spec).0, Exit::OutOfMemory);
}

#[test]
fn shared_memory_counts_as_memory() {
    let lab = Lab::new();
    let mut spec = shell("shm", "for i in 1 2 3; do head -c 60000000 /dev/zero > /dev/shm/$i; done; cat /dev/shm/* | wc -c");
    spec.limits.memory = Bytes::new(64 * MEBIBYTE);
    let (exit, log) = lab.run(&spec);
    let kept: i64 = log.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0);
    assert!(exit == Exit::OutOfMemory || kept <= 32 * MEBIBYTE, "{exit:?} {log}");
}

#[test]
fn a_disk_filler_meets_a_full_disk_in_both_of_its_directories() {
    let lab = Lab::new();
    let script = "head -c 100000000 /dev/zero > a; head -c 100000000 /dev/zero > /tmp/b; echo x > c; \
                  cat a /tmp/b c | wc -c; sleep 0.2";
    let spec = shell("filler", script);
    let (exit, log) = lab.run(&spec);
    assert_eq!(exit, Exit::Code { code: 0 });
    assert!(log.contains("No space left on device"), "{log}");
    let kept: i64 = log.lines().last().unwrap().parse().unwrap();
    assert!((15 * MEBIBYTE..=17 * MEBIBYTE).contains(&kept), "{kept} bytes of 16 MiB");
    assert_eq!(lab.contained(&spec.attempt), ["disk limit"]);
}

#[test]
fn a_flood_of_empty_files_meets_the_same_limit() {
    let lab = Lab::new();
    let script = "my $n = 0; while ($n < 1e6) { open(my $f, '>', \"f$n\") or last; $n++ } print \"$n $!\\n\"; ";
    let spec = perl("inodes", script);
    let (_, log) = lab.run(&spec);
    assert!(log.ends_with("No space left on device\n"), "{log}");
    assert_eq!(lab.contained(&spec.attempt), ["disk limit"]);
}

#[test]
fn a_log_flood_is_cut_and_the_job_goes_on_without_using_our_memory() {
    let lab = Lab::new();
    let mut spec = shell("flood", "yes | head -c 200000000; exit 5");
    spec.limits.log = Bytes::new(MEBIBYTE);
    let before = resident_kib();
    let (exit, log) = lab.run(&spec);
    let growth = resident_kib() - before;
    assert_eq!(exit, Exit::Code { code: 5 });
    assert_eq!(log.len(), 1024 * 1024);
    assert_eq!(lab.contained(&spec.attempt), ["log limit"]);
    assert!(growth < 64 * 1024, "{growth} KiB more for 195313 KiB of output");
}

/// The most memory this process ever had.
fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn processor_time_is_limited_to_what_was_sold() {
    let lab = Lab::new();
    // Spins from the beginning of one second to the beginning of the next, in two processes.
    let spin = "my $t = time; 1 while time == $t; 1 while time == $t + 1";
    let mut spec = shell("cores", &format!("perl -e '{spin}' & perl -e '{spin}'; wait"));
    spec.limits.cpu_millis = 100;
    lab.run(&spec);
    let used = lab.events(&spec.attempt).into_iter().find_map(|event| match event {
        AttemptEvent::Exited { cpu_time, .. } => Some(cpu_time.millis()),
        AttemptEvent::Started { .. } | AttemptEvent::Alive { .. } | AttemptEvent::Contained { .. } => None,
    });
    assert!((20..500).contains(&used.unwrap()), "{used:?} ms of at least 1000 ms at a tenth of a core");
}

#[test]
fn one_that_hides_from_its_parents_and_ignores_signals_is_still_ended() {
    let lab = Lab::new();
    let script = "trap '' TERM HUP INT\n\
                  setsid sh -c 'trap \"\" TERM HUP INT; (setsid sh -c \"trap \\\"\\\" TERM HUP; echo deep; sleep 1000\" &) ; sleep 1000' &\n\
                  sleep 1000; sleep 1000";
    let spec = shell("escape", script);
    lab.runner.place(&spec).unwrap();
    lab.until_logged(&spec.attempt, "deep");
    lab.runner.stop(&spec.attempt, DurationMs::from_millis(100)).unwrap();
    assert_eq!(lab.until_ended(&spec.attempt), Exit::Stopped { forced: true });
    lab.assert_gone(&spec.attempt);
}

#[test]
fn what_a_job_left_running_ends_with_it() {
    let lab = Lab::new();
    let spec = shell("daemon", "setsid sleep 1000 & echo left; exit 0");
    assert_eq!(lab.run(&spec), (Exit::Code { code: 0 }, "left\n".into()));
    lab.assert_gone(&spec.attempt);
}
