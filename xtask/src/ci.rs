//! The checks of CI, and the same with full counts.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::steps::{self, Done, Step, TestReport};
use crate::{environment, outside, snippets, tidy, tree};

/// Tests that need long read this variable; unset, they run reduced.
const FULL: (&str, &str) = ("SUBLET_FULL", "1");

/// How much is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Reduced,
    Full,
}

impl Extent {
    fn profile(self) -> &'static [&'static str] {
        match self {
            Self::Reduced => &[],
            Self::Full => &["--release"],
        }
    }
    fn binary(self) -> &'static str {
        match self {
            Self::Reduced => "target/debug/sublet",
            Self::Full => "target/release/sublet",
        }
    }
    /// Requests that every route gets beyond those at the ends of its ranges.
    pub fn route_examples(self) -> u32 {
        match self {
            Self::Reduced => 4,
            Self::Full => 100,
        }
    }
    fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Reduced => &[],
            Self::Full => &[FULL],
        }
    }
}

/// Runs everything; the closing line is in a form that tools read.
pub fn run(root: &Path, extent: Extent) -> Result<()> {
    let start = Instant::now();
    let binary = root.join(extent.binary());
    let mut report = TestReport::default();
    let list = vec![
        Step { name: "what the tests need", run: Box::new(|| environment::ensure(root)) },
        Step { name: "packages", run: Box::new(|| steps::program(root, "cargo", &["fetch", "--locked", "--quiet"])) },
        Step { name: "formatting", run: Box::new(|| steps::program(root, "cargo", &["fmt", "--all", "--check"])) },
        Step { name: "tidy", run: Box::new(|| tidy::run(root, false).map(|()| String::new())) },
        Step { name: "clippy", run: Box::new(|| lint(root)) },
        Step { name: "tests", run: Box::new(|| test(root, extent, &mut report)) },
        Step { name: "build", run: Box::new(|| build(root, extent)) },
        Step { name: "other people's programs", run: Box::new(|| outside::run_all(root, &binary, extent.route_examples())) },
        Step { name: "documents", run: Box::new(|| snippets::run_all(root, &binary)) },
    ];
    let done = steps::run(list)?;
    if extent == Extent::Full {
        let page = full_page(root, &done, &report)?;
        std::fs::write(root.join("docs/full-run.md"), &page).context("docs/full-run.md")?;
        println!("{page}");
    }
    println!("all checks in {:.0?}", start.elapsed());
    println!("{} passed, {} failed", report.passed, report.failed);
    Ok(())
}

fn lint(root: &Path) -> Result<String> {
    steps::program(root, "cargo", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
}

fn test(root: &Path, extent: Extent, report: &mut TestReport) -> Result<String> {
    // Always with the checks of a debug build: overflow and assertions are part of the test.
    *report = steps::cargo_test(root, &["--workspace", "--no-fail-fast"], extent.environment())?;
    for count in &report.counts {
        println!("      {count}");
    }
    Ok(format!("{} tests passed", report.passed))
}

fn build(root: &Path, extent: Extent) -> Result<String> {
    steps::program(root, "cargo", &[&["build", "--quiet", "--package", "sublet"], extent.profile()].concat())
}

/// The page that records a full run.
fn full_page(root: &Path, done: &[Done], report: &TestReport) -> Result<String> {
    let commit = tree::output(root, "git", &["rev-parse", "HEAD"])?;
    let cores = std::thread::available_parallelism().context("count the cores")?;
    let mut page = format!(
        "# The last full run\n\nWritten by `cargo xtask full`, which runs the checks of CI with the counts of a release and a release build.\n\n\
         Commit `{}`, {cores} cores: {} tests passed, {} failed.\n\n| step | seconds | remark |\n| --- | --- | --- |\n",
        commit.trim(),
        report.passed,
        report.failed
    );
    for step in done {
        let _ = writeln!(page, "| {} | {} | {} |", step.name, step.took.as_secs(), step.remark);
    }
    page.push_str("\nHow far the long tests went:\n\n");
    for count in &report.counts {
        let _ = writeln!(page, "- {count}");
    }
    Ok(page)
}
