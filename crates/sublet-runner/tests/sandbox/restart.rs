//! Attempts that go on with the work directory of an earlier one.

use std::os::unix::fs::MetadataExt;

use sublet_core::error::ErrorCode;
use sublet_core::runner::{AttemptSpec, Exit, Runner};
use sublet_core::time::DurationMs;

use crate::lab::{Lab, shell};

/// The next attempt of a job: other words, the same files.
fn after(first: &AttemptSpec, name: &str, script: &str) -> AttemptSpec {
    let next = shell(name, script);
    AttemptSpec { job: first.job.clone(), files: first.files.clone(), continues: vec![first.attempt.clone()], ..next }
}

/// Runs an attempt as soon as the kernel has let go of the disk.
fn run_again(lab: &Lab, spec: &AttemptSpec) -> (Exit, String) {
    lab.until("the disk is free", || match lab.runner.place(spec) {
        Err(error) if error.code() == ErrorCode::CapacityUnavailable => None,
        placed => {
            placed.unwrap();
            Some(())
        }
    });
    (lab.until_ended(&spec.attempt), lab.log(&spec.attempt))
}

#[test]
fn what_an_attempt_wrote_is_there_for_the_next_and_for_nobody_else() {
    let lab = Lab::new();
    let mut first = shell("first", "mkdir -p deep/er; echo 17 > deep/er/step; echo mine > input; touch /tmp/scrap; exit 75");
    first.files.insert("input".into(), b"given".to_vec());
    assert_eq!(lab.run(&first).0, Exit::Code { code: 75 });
    // Another job lives meanwhile, so the next attempt is another user of the host.
    let other = shell("other", "ls /work; exec sleep 600");
    lab.runner.place(&other).unwrap();
    let second = after(&first, "second", "cat deep/er/step input; ls -A /tmp; echo 18 > deep/er/step; rm input; echo ok");
    assert_eq!(run_again(&lab, &second), (Exit::Code { code: 0 }, "17\nmine\nok\n".to_owned()));
    // Whichever name of the disk goes first, the other keeps it; and what was removed is not placed again.
    lab.runner.clean(&first.attempt).unwrap();
    lab.runner.forget(&first.attempt).unwrap();
    let third = AttemptSpec {
        continues: vec![second.attempt.clone(), first.attempt.clone()],
        ..after(&first, "third", "cat deep/er/step; ls")
    };
    assert_eq!(run_again(&lab, &third), (Exit::Code { code: 0 }, "18\ndeep\n".to_owned()));
    assert_eq!(lab.log(&other.attempt), "", "another job sees nothing");
    let image = lab.directory.path().join("attempts").join(third.attempt.as_str()).join("disk.img");
    lab.runner.clean(&second.attempt).unwrap();
    assert_eq!(std::fs::metadata(&image).unwrap().nlink(), 1);
    lab.runner.clean(&third.attempt).unwrap();
    assert!(!image.exists(), "the disk goes with its last attempt");
    lab.runner.stop(&other.attempt, DurationMs::ZERO).unwrap();
    lab.until_ended(&other.attempt);
}

#[test]
fn a_link_that_was_left_leads_nowhere() {
    let lab = Lab::new();
    let target = lab.directory.path().join("target");
    std::fs::write(&target, "untouched").unwrap();
    let script = format!("rm input; ln -s {} input; ln -s {} linked; ln -s / root", target.display(), target.display());
    let mut first = shell("linker", &script);
    first.files.insert("input".into(), b"given".to_vec());
    lab.run(&first);
    let other = shell("bystander", "exec sleep 600");
    lab.runner.place(&other).unwrap();
    let owner = std::fs::metadata(&target).unwrap().uid();
    let second = after(&first, "follower", "cat input linked; echo written > input; readlink input");
    let (_, log) = run_again(&lab, &second);
    assert!(log.ends_with(&format!("{}\n", target.display())), "{log}");
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "untouched");
    assert_eq!(std::fs::metadata(&target).unwrap().uid(), owner);
    lab.runner.stop(&other.attempt, DurationMs::ZERO).unwrap();
    lab.until_ended(&other.attempt);
}

#[test]
fn a_directory_outlives_the_runner_and_keeps_its_size() {
    let lab = Lab::new();
    let first = shell("before", "head -c 9000000 /dev/zero > big; echo saved > state; exec sleep 600");
    lab.runner.place(&first).unwrap();
    lab.until("the program to write", || {
        lab.runner
            .read_artifact(&first.attempt, std::path::Path::new("state"), 0, 10)
            .is_ok_and(|text| text == b"saved\n")
            .then_some(())
    });
    let lab = lab.restart();
    let second = after(&first, "behind", "cat state; head -c 15000000 /dev/zero > more || echo full");
    let (_, log) = run_again(&lab, &second);
    assert!(log.starts_with("saved\n") && log.contains("full"), "{log}");
}

#[test]
fn without_a_kept_directory_an_attempt_begins_with_its_files() {
    let lab = Lab::new();
    let mut first = shell("cleaned", "echo 1 > state");
    first.files.insert("input".into(), b"given".to_vec());
    lab.run(&first);
    lab.runner.clean(&first.attempt).unwrap();
    let second = after(&first, "anew", "cat input; ls");
    assert_eq!(run_again(&lab, &second), (Exit::Code { code: 0 }, "giveninput\n".to_owned()));
}
