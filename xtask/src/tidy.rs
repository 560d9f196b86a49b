//! The rules of ARCHITECTURE.md and STYLE.md that no compiler checks.
//!
//! A check takes the tree and returns findings. Each has a test with a sample that breaks it.

mod documents;
mod edges;
mod generated;
mod lockfile;
mod places;
mod size;
mod style;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::ratchet::Ratchet;
use crate::tree::{Tree, output};

const RATCHET: &str = "xtask/ratchet.toml";

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check's name, which is its section in the ratchet.
    pub check: &'static str,
    /// What an exception would be listed under: the path, or path and function.
    pub key: String,
    pub path: String,
    /// 1-based; 0 for a whole file.
    pub line: usize,
    /// How large the breach is: lines for sizes, otherwise 1.
    pub size: u64,
    pub message: String,
}

impl Finding {
    /// A breach that counts one, listed under its path.
    pub fn new(check: &'static str, path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { check, key: path.to_owned(), path: path.to_owned(), line, size: 1, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}", self.path, self.line, self.check, self.message)
    }
}

type Check = fn(&Tree) -> Vec<Finding>;

/// Checks that never have exceptions.
const STRICT: &[(&str, Check)] = &[
    ("edges", edges::edges),
    ("heavy", edges::heavy_dependencies),
    ("database", places::sql),
    ("pure", places::pure),
    ("names", style::names),
    ("decisions", documents::decisions),
    ("links", documents::links),
    ("machine", documents::machine),
    ("lockfile", lockfile::lockfile),
    ("generated", generated::generated),
];

/// Checks whose exceptions stand in the ratchet.
const RATCHETED: &[(&str, Check)] = &[
    ("function_lines", size::functions),
    ("file_lines", size::files),
    ("scopes", places::scopes),
    ("routes", places::routes),
    ("outside", places::outside_world),
    ("floats", places::floats),
    ("wire", places::wire_types),
    ("silenced", style::silenced),
    ("unfinished", style::unfinished),
    ("waiting", style::waiting),
    ("module_docs", style::module_docs),
    ("no_run", documents::snippets_not_run),
];

/// Runs all checks; with `bless`, first lowers what can be lowered.
pub fn run(root: &Path, bless: bool) -> Result<()> {
    let tree = Tree::read(root)?;
    let text = std::fs::read_to_string(root.join(RATCHET)).context(RATCHET)?;
    let ratchet = Ratchet::parse(&text)?;
    let findings: Vec<Finding> = STRICT.iter().chain(RATCHETED).flat_map(|(_, check)| check(&tree)).collect();
    let verdict = ratchet.judge(&findings);
    let mut failures = verdict.failures;
    if bless && !verdict.lowered.is_empty() {
        std::fs::write(root.join(RATCHET), Ratchet::lower(&text, &verdict.lowered)).context(RATCHET)?;
        println!("lowered {} entries of {RATCHET}", verdict.lowered.len());
    } else {
        failures.extend(verdict.lowered.iter().map(|((check, key), size)| {
            format!("{RATCHET}: [{check}] \"{key}\" is only {size} now: run 'cargo xtask tidy --bless'")
        }));
    }
    failures.extend(ratchet.strict_sections());
    failures.extend(lockfile::licences(root)?);
    failures.extend(growth_in_history(root, &ratchet)?);
    for failure in &failures {
        println!("{failure}");
    }
    if failures.is_empty() {
        println!("tidy: {} files, {} checks, nothing to mend", tree.files.len(), STRICT.len() + RATCHETED.len());
        return Ok(());
    }
    bail!("tidy: {} findings", failures.len())
}

impl Ratchet {
    /// Sections that name a check without exceptions, or none.
    fn strict_sections(&self) -> Vec<String> {
        self.sections()
            .into_iter()
            .filter(|section| !RATCHETED.iter().any(|(name, _)| name == section))
            .map(|section| format!("{RATCHET}: [{section}] is no check that may have exceptions"))
            .collect()
    }
}

/// Whether any version of the ratchet grew over the one before it.
fn growth_in_history(root: &Path, current: &Ratchet) -> Result<Vec<String>> {
    let commits = output(root, "git", &["log", "--reverse", "--format=%H", "--", RATCHET])?;
    let mut grown = Vec::new();
    let mut before = Ratchet::default();
    for commit in commits.lines() {
        let text = output(root, "git", &["show", &format!("{commit}:{RATCHET}")])?;
        let version = Ratchet::parse(&text).with_context(|| format!("{RATCHET} in {commit}"))?;
        grown.extend(before.growth(&version));
        before = version;
    }
    grown.extend(before.growth(current));
    Ok(grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_without_exceptions_may_have_no_section() {
        let ratchet = Ratchet::parse("[edges]\n\"a\" = 1\n[routes]\n\"b\" = 1\n").unwrap();
        assert_eq!(ratchet.strict_sections(), ["xtask/ratchet.toml: [edges] is no check that may have exceptions"]);
    }

    #[test]
    fn every_check_reports_under_its_own_name() {
        let mut names: Vec<_> = STRICT.iter().chain(RATCHETED).map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STRICT.len() + RATCHETED.len());
    }
}
