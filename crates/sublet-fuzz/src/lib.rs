//! Runs a fuzz target on stable Rust: over its seeds, over what was once found, and over changed seeds.
//!
//! A target is a function of bytes that panics when something is wrong; it lives in the crate whose
//! parser it is about. The same function is what `cargo xtask fuzz` searches with coverage as its guide;
//! this runner is the part of that which every run of the tests can afford, and which repeats exactly.
//!
//! Invariants: the inputs depend on the files and on the target's name alone; an input that fails is
//! written to a file before the test does.
//!
//! Deliberately absent: coverage.

mod change;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use change::{Changer, Random};

/// What one input may be expected to cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Far less than a millisecond.
    Quick,
    /// Milliseconds.
    Slow,
}

impl Pace {
    /// Changed inputs that are tried, without and with `SUBLET_FULL=1`.
    const fn changes(self) -> usize {
        match (self, option_env!("SUBLET_FULL").is_some()) {
            (Self::Quick, false) => 500,
            (Self::Quick, true) => 50_000,
            (Self::Slow, false) => 60,
            (Self::Slow, true) => 3_000,
        }
    }
}

/// Defines a test for each target, which is a function of this name beside it.
#[macro_export]
macro_rules! tests {
    ($pace:ident: $($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                $crate::drive(stringify!($name), $crate::Pace::$pace, super::$name);
            }
        )+
    };
}

/// Runs a target over everything that is known for it, and over changes of that.
///
/// # Panics
/// When an input fails; the message says where that input is.
pub fn drive(name: &str, pace: Pace, target: impl Fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    let seeds = read_folder(&root.join("fuzz/seeds").join(name));
    assert!(!seeds.is_empty(), "fuzz/seeds/{name} has no file: a target begins with an input that it takes");
    let known: Vec<Vec<u8>> = seeds.into_iter().chain(read_folder(&root.join("fuzz/regressions").join(name))).collect();
    let findings = root.join("target/fuzz-findings");
    for input in &known {
        run(name, &target, input, &findings);
    }
    let mut changer = Changer::new(&known, Random::from_name(name));
    for _ in 0..pace.changes() {
        run(name, &target, &changer.next(), &findings);
    }
    eprintln!("count: fuzz target {name}: {} known inputs, {} changed ones", known.len(), pace.changes());
}

fn run(name: &str, target: &impl Fn(&[u8]), input: &[u8], findings: &Path) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let kept = keep(findings, name, input);
        eprintln!("fuzz target '{name}' fails on {} bytes, kept in {kept}", input.len());
        eprintln!("repeat: cargo xtask fuzz --target {name} --input {kept}");
        resume_unwind(panic);
    }
}

/// Writes an input to a file named after its content; says where, or why not.
fn keep(findings: &Path, name: &str, input: &[u8]) -> String {
    let path = findings.join(format!("{name}-{:016x}", change::hash(input)));
    match fs::create_dir_all(findings).and_then(|()| fs::write(&path, input)) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("no file ({error})"),
    }
}

/// The files of a folder in the order of their names; none if there is no folder.
fn read_folder(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn a_run_repeats_exactly_and_begins_with_the_known_inputs() {
        let seen = || {
            let inputs = RefCell::new(Vec::new());
            drive("runner", Pace::Quick, |input| inputs.borrow_mut().push(input.to_vec()));
            inputs.into_inner()
        };
        let first = seen();
        assert_eq!(first, seen());
        assert_eq!(first[0], b"{\"a\":1}\n");
        assert!(first.len() > Pace::Quick.changes());
    }

    #[test]
    fn an_input_that_fails_is_kept() {
        let folder = std::env::temp_dir().join(format!("sublet-fuzz-{}", std::process::id()));
        let failed = catch_unwind(|| run("x", &|_: &[u8]| panic!("wrong"), b"input", &folder));
        assert!(failed.is_err());
        assert_eq!(read_folder(&folder), [b"input".to_vec()]);
        fs::remove_dir_all(folder).unwrap();
    }
}
