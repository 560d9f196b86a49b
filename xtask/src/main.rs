//! Developer commands: `cargo xtask COMMAND`.

mod ci;
mod environment;
mod fuzz;
mod generate;
mod outside;
mod ratchet;
mod scripted;
mod snippets;
mod source;
mod steps;
mod tidy;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask COMMAND

  ci              everything CI checks; what the README calls the test command
  full            the same with the counts and the build of a release; writes docs/full-run.md
  tidy [--bless]  the rules no compiler checks; --bless lowers the ratchet, never raises it
  generate        writes the reference pages that are made from the code
  test-env        installs what the tests need beyond cargo
  fuzz [--seconds N] [--target T] [--input FILE]
                  searches for inputs that a parser cannot take, N seconds a target; runs one FILE
  outside         other people's clients, accounting programs and browser against the built binary
  docs-test       the snippets of README and docs against the built binary";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&root(), &words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: &Path, words: &[&str]) -> Result<()> {
    let binary = root.join("target/debug/sublet");
    match words {
        ["ci"] => ci::run(root, ci::Extent::Reduced),
        ["full"] => ci::run(root, ci::Extent::Full),
        ["tidy"] => tidy::run(root, false),
        ["tidy", "--bless"] => tidy::run(root, true),
        ["generate"] => generate::write_all(root),
        ["test-env"] => environment::ensure(root).map(|remark| println!("{remark}")),
        ["fuzz", options @ ..] => fuzz::run(root, options),
        ["outside"] => {
            environment::ensure(root)?;
            outside::run_all(root, &binary, ci::Extent::Reduced.route_examples()).map(|remark| println!("{remark}"))
        }
        ["docs-test"] => {
            environment::ensure(root)?;
            snippets::run_all(root, &binary).map(|remark| println!("{remark}"))
        }
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => bail!("'{}' is no command\n\n{HELP}", words.join(" ")),
    }
}

/// The checkout this program was built from.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}
