//! Runs the steps of CI in order, with progress and times, and stops at the first that fails.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One step: its name and what it does; the answer is a short remark.
pub struct Step<'a> {
    pub name: &'static str,
    pub run: Box<dyn FnOnce() -> Result<String> + 'a>,
}

/// What a step took and said.
pub struct Done {
    pub name: &'static str,
    pub took: Duration,
    pub remark: String,
}

pub fn run(steps: Vec<Step<'_>>) -> Result<Vec<Done>> {
    let total = steps.len();
    let mut done = Vec::new();
    for (index, step) in steps.into_iter().enumerate() {
        println!("[{}/{total}] {}", index + 1, step.name);
        std::io::stdout().flush()?;
        let start = Instant::now();
        let remark = (step.run)().with_context(|| format!("step '{}' failed", step.name))?;
        let took = start.elapsed();
        println!("      {} in {:.1?}{}{remark}", step.name, took, if remark.is_empty() { "" } else { ": " });
        done.push(Done { name: step.name, took, remark });
    }
    Ok(done)
}

/// Runs a program with its output going where ours goes.
pub fn program(root: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start {program}"))?;
    if !status.success() {
        bail!("{program} {} ended with {status}", arguments.join(" "));
    }
    Ok(String::new())
}

/// What a test run said.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct TestReport {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    /// What long tests print as `count: …`: how far they went.
    pub counts: Vec<String>,
}

impl TestReport {
    /// Takes one line of the test runner in; says whether a person wants to see it.
    fn take(&mut self, line: &str) -> bool {
        if let Some(count) = line.trim().strip_prefix("count: ") {
            self.counts.push(count.to_owned());
            return false;
        }
        if let Some(figures) = line.strip_prefix("test result: ") {
            let figure = |word: &str| {
                let before = figures.split(word).next().unwrap_or("").trim_end();
                before.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
            };
            self.passed += figure(" passed");
            self.failed += figure(" failed");
            self.ignored += figure(" ignored");
            return true;
        }
        line.trim_start().starts_with("Running ") || line.starts_with("error") || line.contains("... FAILED")
    }
}

/// Runs `cargo test` and reports; the whole output is kept in a log.
pub fn cargo_test(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<TestReport> {
    let log_path = log_path(root, "tests");
    std::fs::create_dir_all(log_path.parent().context("the log has a folder")?)?;
    let mut log = std::fs::File::create(&log_path)?;
    let mut child = Command::new("sh")
        .args(["-c", "exec cargo test \"$@\" -- --show-output 2>&1", "sh"])
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start cargo test")?;
    let mut report = TestReport::default();
    let lines = BufReader::new(child.stdout.take().context("cargo test has an output")?);
    for line in lines.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(log, "{line}")?;
        if report.take(&line) {
            println!("      {}", line.trim_start());
        }
    }
    let status = child.wait()?;
    if !status.success() {
        let told = failures(&std::fs::read_to_string(&log_path).unwrap_or_default()).unwrap_or_else(|| tail(&log_path));
        bail!("cargo test ended with {status}; {} passed, {} failed; {told}", report.passed, report.failed);
    }
    if report.passed == 0 || report.ignored > 0 {
        bail!("{} tests passed and {} were ignored: all must run", report.passed, report.ignored);
    }
    Ok(report)
}

pub fn log_path(root: &Path, name: &str) -> PathBuf {
    root.join("target/xtask").join(format!("{name}.log"))
}

/// What the tests that failed said, of a run that showed the output of all; `None` if none of them did.
fn failures(log: &str) -> Option<String> {
    let mut shown = Vec::new();
    let mut is_of_a_failure = false;
    for line in log.lines() {
        match line {
            "failures:" => is_of_a_failure = true,
            "successes:" => is_of_a_failure = false,
            _ if line.starts_with("test result: ") => is_of_a_failure = false,
            _ if is_of_a_failure && shown.len() < FAILURE_LINES_MAX => shown.push(line),
            _ => {}
        }
    }
    (!shown.is_empty()).then(|| format!("what failed said:\n{}", shown.join("\n")))
}

/// Lines of failures that are shown.
const FAILURE_LINES_MAX: usize = 400;
/// Lines of a log shown when something failed.
const TAIL_LINES_MAX: usize = 150;

/// The end of a log, with its place.
pub fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES_MAX)..];
    format!("the end of {}:\n{}", log.display(), shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_all_test_binaries_add_up() {
        let mut report = TestReport::default();
        for (line, shown) in [
            ("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s", true),
            ("test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out", true),
            ("test a::b ... ok", false),
            ("test a::c ... FAILED", true),
            ("count: kills = 20", false),
        ] {
            assert_eq!(report.take(line), shown, "{line}");
        }
        assert_eq!(report, TestReport { passed: 15, failed: 2, ignored: 1, counts: vec!["kills = 20".to_owned()] });
    }

    #[test]
    fn what_failed_is_told_though_more_tests_ran_after_it() {
        let log = "successes:\n\n---- a stdout ----\nfine\n\nfailures:\n\n---- b stdout ----\nnot fine\n\nfailures:\n    b\n\n\
                   test result: FAILED. 1 passed; 1 failed\n\nsuccesses:\n\n---- c stdout ----\nfine, too\n\ntest result: ok. 1 passed\n";
        let told = failures(log).unwrap();
        assert!(told.contains("not fine") && !told.contains("fine, too") && !told.contains("---- a"), "{told}");
        assert_eq!(failures("test result: ok. 1 passed\n"), None);
    }

    #[test]
    fn a_failing_step_stops_the_run() {
        let second_ran = std::cell::Cell::new(false);
        let steps = vec![
            Step { name: "first", run: Box::new(|| program(Path::new("."), "false", &[])) },
            Step {
                name: "second",
                run: Box::new(|| {
                    second_ran.set(true);
                    Ok(String::new())
                }),
            },
        ];
        let error = run(steps).err().unwrap();
        assert!(format!("{error:#}").contains("step 'first' failed"));
        assert!(!second_ran.get());
    }
}
