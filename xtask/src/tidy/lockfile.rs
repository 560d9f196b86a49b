//! What the build pulls in: how many packages, none that is banned, all under known licences.
//!
//! `deny.toml` is the list, so that `cargo deny check` says the same where it is installed.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;
use crate::tree::{Tree, output};

/// Packages in the lock file at most, for all platforms and features.
const PACKAGES_MAX: usize = 500;

pub fn lockfile(tree: &Tree) -> Vec<Finding> {
    let text = |path: &str| tree.file(path).map(|file| file.text.as_str());
    let (Some(lock), Some(deny)) = (text("Cargo.lock"), text("deny.toml")) else {
        return vec![Finding::new("lockfile", "Cargo.lock", 0, "Cargo.lock or deny.toml is missing")];
    };
    let packages: Vec<&str> = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    let mut findings = Vec::new();
    if packages.len() > PACKAGES_MAX {
        let message = format!("{} packages; the limit is {PACKAGES_MAX}", packages.len());
        findings.push(Finding::new("lockfile", "Cargo.lock", 0, message));
    }
    for banned in banned(deny).into_iter().filter(|name| packages.contains(name)) {
        findings.push(Finding::new("lockfile", "Cargo.lock", 0, format!("{banned} is banned by deny.toml")));
    }
    findings
}

/// Packages of the build whose licence is not on the list.
pub fn licences(root: &Path) -> Result<Vec<String>> {
    let deny = std::fs::read_to_string(root.join("deny.toml")).context("deny.toml")?;
    let arguments = ["metadata", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"];
    unlicensed(&output(root, "cargo", &arguments)?, &allowed(&deny))
}

fn unlicensed(metadata: &str, allowed: &[&str]) -> Result<Vec<String>> {
    let metadata: Value = serde_json::from_str(metadata).context("parse cargo metadata")?;
    let mut failures = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata has packages")? {
        let licence = package["license"].as_str().unwrap_or("none stated");
        if !permits(licence, allowed) {
            failures.push(format!("Cargo.lock:0: [licences] {} has the licence '{licence}'", package["name"]));
        }
    }
    Ok(failures)
}

/// Whether an SPDX expression can be fulfilled with allowed licences. OR binds weaker than AND.
fn permits(expression: &str, allowed: &[&str]) -> bool {
    let flat = expression.replace('/', " OR ");
    let mut tokens = flat.replace('(', " ( ").replace(')', " ) ").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    tokens.reverse();
    any_of(&mut tokens, allowed)
}

fn any_of(tokens: &mut Vec<String>, allowed: &[&str]) -> bool {
    let mut good = all_of(tokens, allowed);
    while tokens.last().is_some_and(|token| token == "OR") {
        tokens.pop();
        good |= all_of(tokens, allowed);
    }
    good
}

fn all_of(tokens: &mut Vec<String>, allowed: &[&str]) -> bool {
    let mut good = one(tokens, allowed);
    while tokens.last().is_some_and(|token| token == "AND") {
        tokens.pop();
        good &= one(tokens, allowed);
    }
    good
}

fn one(tokens: &mut Vec<String>, allowed: &[&str]) -> bool {
    let Some(mut name) = tokens.pop() else { return false };
    if name == "(" {
        let good = any_of(tokens, allowed);
        tokens.pop();
        return good;
    }
    if tokens.last().is_some_and(|token| token == "WITH") {
        tokens.pop();
        name = format!("{name} WITH {}", tokens.pop().unwrap_or_default());
    }
    allowed.contains(&name.as_str())
}

fn banned(deny: &str) -> Vec<&str> {
    section(deny, "[bans]").filter_map(|line| line.split("name = \"").nth(1)?.split('"').next()).collect()
}

fn allowed(deny: &str) -> Vec<&str> {
    section(deny, "[licenses]").filter_map(|line| line.trim().strip_prefix('"')?.split('"').next()).collect()
}

fn section<'a>(text: &'a str, header: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().skip_while(move |line| *line != header).skip(1).take_while(|line| !line.starts_with('['))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = "[bans]\ndeny = [\n    { name = \"openssl-sys\", reason = \"x\" },\n]\n[licenses]\nallow = [\n    \"MIT\",\n    \"Apache-2.0 WITH LLVM-exception\",\n]\n[sources]\n\"GPL-3.0\"\n";

    fn lock(packages: usize, extra: &str) -> String {
        format!("{}{extra}", "name = \"a\"\n".repeat(packages))
    }

    #[test]
    fn too_many_packages_and_a_banned_one_are_found() {
        for (packages, extra, found) in [(PACKAGES_MAX, "", 0), (PACKAGES_MAX + 1, "", 1), (1, "name = \"openssl-sys\"\n", 1)] {
            assert_eq!(lockfile(&Tree::of(&[("Cargo.lock", &lock(packages, extra)), ("deny.toml", DENY)])).len(), found);
        }
        assert_eq!(lockfile(&Tree::of(&[])).len(), 1);
    }

    #[test]
    fn licence_expressions_are_weighed() {
        let allowed = allowed(DENY);
        for (expression, good) in [
            ("MIT", true),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0 WITH other", false),
            ("GPL-3.0", false),
            ("", false),
        ] {
            assert_eq!(permits(expression, &allowed), good, "{expression}");
        }
    }

    #[test]
    fn a_package_without_a_known_licence_is_found() {
        let metadata =
            r#"{"packages":[{"name":"a","license":"MIT"},{"name":"b","license":null},{"name":"c","license":"GPL-3.0"}]}"#;
        assert_eq!(unlicensed(metadata, &["MIT"]).unwrap().len(), 2);
    }
}
