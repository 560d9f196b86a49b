//! The search for inputs that a parser cannot take, with coverage as its guide: `cargo xtask fuzz`.
//!
//! `cargo fuzz` compiles the targets of `fuzz/` and runs them one after the other. Without a sanitizer it needs
//! nothing but stable Rust and a C++ compiler; the workspace denies unsafe code, so what is looked for are
//! panics, broken properties, time and memory. The tests run the same targets without coverage.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::environment;
use crate::steps;

/// The version that is installed where there is none.
const CARGO_FUZZ: &str = "0.13.2";
/// How long each target is searched if nobody says, in seconds.
const SECONDS: u64 = 180;
/// Longest input, in bytes.
const INPUT_BYTES_MAX: u64 = 32 * 1_024;
/// An input that takes longer is a finding, in seconds.
const INPUT_SECONDS_MAX: u64 = 20;
/// A target that takes more memory is a finding, in mebibytes.
const MEMORY_MIB_MAX: u64 = 2_048;

/// What the command line asked for.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    seconds: u64,
    /// One target, or all.
    target: Option<String>,
    /// Only this input is run.
    input: Option<PathBuf>,
}

impl Order {
    fn read(words: &[&str]) -> Result<Self> {
        let mut order = Self { seconds: SECONDS, target: None, input: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("'{word}' needs a value"))?;
            match *word {
                "--seconds" => order.seconds = value.parse().context("--seconds is a whole number")?,
                "--target" => order.target = Some((*value).to_owned()),
                "--input" => order.input = Some(PathBuf::from(value)),
                _ => bail!("'{word}' is no option of fuzz; --seconds N, --target T and --input FILE are"),
            }
        }
        if order.input.is_some() && order.target.is_none() {
            bail!("--input needs the --target that it is for");
        }
        Ok(order)
    }
}

/// How one search went.
struct Found {
    target: String,
    executions: u64,
    seconds: u64,
    failed: bool,
}

pub fn run(root: &Path, words: &[&str]) -> Result<()> {
    let order = Order::read(words)?;
    let known = targets(root)?;
    let chosen: Vec<&String> = known.iter().filter(|name| order.target.as_ref().is_none_or(|wanted| wanted == *name)).collect();
    if chosen.is_empty() {
        bail!("there is no such target; these are: {}", known.join(", "));
    }
    install(root)?;
    if let (Some(target), Some(input)) = (&order.target, &order.input) {
        let input = input.canonicalize().with_context(|| input.display().to_string())?;
        return end(cargo_fuzz(root).args(["run", "--sanitizer", "none", target]).arg(input).status());
    }
    end(cargo_fuzz(root).args(["build", "--sanitizer", "none"]).args(&order.target).status())?;
    let mut found = Vec::new();
    for target in chosen {
        found.push(search(root, target, order.seconds)?);
    }
    report(&found)
}

/// The targets, by the files that are them.
fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn tool_folder(root: &Path) -> PathBuf {
    root.join("target/test-env/cargo-fuzz")
}

fn install(root: &Path) -> Result<()> {
    if tool_folder(root).join("bin/cargo-fuzz").is_file() {
        return Ok(());
    }
    if !environment::on_path("c++") {
        bail!("fuzzing compiles libFuzzer and needs a C++ compiler: install g++");
    }
    println!("  installing cargo-fuzz {CARGO_FUZZ}");
    let folder = tool_folder(root);
    let arguments = ["install", "--quiet", "--locked", "--version", CARGO_FUZZ, "cargo-fuzz", "--root"];
    end(Command::new("cargo").args(arguments).arg(folder).status())
}

fn cargo_fuzz(root: &Path) -> Command {
    let mut command = Command::new(tool_folder(root).join("bin/cargo-fuzz"));
    command.arg("fuzz").current_dir(root).stdin(Stdio::null());
    command
}

fn end(status: std::io::Result<std::process::ExitStatus>) -> Result<()> {
    match status.context("start cargo fuzz")? {
        status if status.success() => Ok(()),
        status => bail!("cargo fuzz ended with {status}"),
    }
}

/// Searches one target; what the fuzzer says goes to a log.
fn search(root: &Path, target: &str, seconds: u64) -> Result<Found> {
    let log_path = steps::log_path(root, &format!("fuzz-{target}"));
    std::fs::create_dir_all(log_path.parent().context("the log has a folder")?)?;
    let log = std::fs::File::create(&log_path).context("create a log")?;
    let folders = ["corpus", "seeds", "regressions"].map(|kind| root.join("fuzz").join(kind).join(target));
    std::fs::create_dir_all(&folders[0]).context("create the folder of what was learned")?;
    println!("{target}: {seconds} s");
    let status = cargo_fuzz(root)
        .args(["run", "--sanitizer", "none", target])
        .args(folders.iter().filter(|folder| folder.is_dir()))
        .arg("--")
        .args([format!("-max_total_time={seconds}"), format!("-max_len={INPUT_BYTES_MAX}")])
        .args([format!("-timeout={INPUT_SECONDS_MAX}"), format!("-rss_limit_mb={MEMORY_MIB_MAX}")])
        .args([format!("-dict={}", root.join("fuzz/json.dict").display()), "-print_final_stats=1".to_owned()])
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("start cargo fuzz")?;
    let log = std::fs::read(&log_path).context("read the log")?;
    let (executions, seconds) = figures(&String::from_utf8_lossy(&log));
    if !status.success() {
        println!("{target}: a finding; {}", steps::tail(&log_path));
    }
    Ok(Found { target: target.to_owned(), executions, seconds, failed: !status.success() })
}

/// Executions and seconds, from what the fuzzer prints at its end.
fn figures(log: &str) -> (u64, u64) {
    let number = |text: &str| text.split_whitespace().find_map(|word| word.parse().ok());
    let executions = log.lines().rev().find_map(|line| number(line.strip_prefix("stat::number_of_executed_units:")?));
    let seconds = log.lines().rev().find_map(|line| number(line.strip_prefix("Done ")?.split_once(" runs in ")?.1));
    (executions.unwrap_or(0), seconds.unwrap_or(0))
}

fn report(found: &[Found]) -> Result<()> {
    println!("\n| target | seconds | executions | finding |\n| --- | --- | --- | --- |");
    for Found { target, executions, seconds, failed } in found {
        println!("| `{target}` | {seconds} | {executions} | {} |", if *failed { "one" } else { "none" });
    }
    let failed: Vec<&str> = found.iter().filter(|found| found.failed).map(|found| found.target.as_str()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "findings in {}: the input is in fuzz/artifacts/TARGET/; mend what it shows, and keep it in fuzz/regressions/TARGET/",
        failed.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_and_a_wrong_one_is_refused() {
        assert_eq!(Order::read(&[]).unwrap(), Order { seconds: SECONDS, target: None, input: None });
        let order = Order::read(&["--target", "chat", "--seconds", "5"]).unwrap();
        assert_eq!((order.seconds, order.target.as_deref()), (5, Some("chat")));
        for words in [&["--seconds"][..], &["--seconds", "x"], &["--fast", "1"], &["--input", "x"]] {
            assert!(Order::read(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn figures_are_read_from_the_end_of_a_log() {
        let log = "#2 INITED\nDone 639428 runs in 151 second(s)\nstat::number_of_executed_units: 639428\nstat::peak_rss_mb: 32\n";
        assert_eq!(figures(log), (639_428, 151));
        assert_eq!(figures("killed"), (0, 0));
    }

    #[test]
    fn every_target_has_a_binary_and_seeds() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let manifest = std::fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        let names = targets(root).unwrap();
        assert!(!names.is_empty());
        for name in names {
            assert!(manifest.contains(&format!("name = \"{name}\"\n")), "fuzz/Cargo.toml has no binary {name}");
            assert!(root.join("fuzz/seeds").join(&name).is_dir(), "fuzz/seeds has no {name}");
        }
    }
}
