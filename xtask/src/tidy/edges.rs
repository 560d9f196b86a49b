//! Which package may depend on which.

use super::Finding;
use crate::tree::Tree;

/// A crate of this workspace and the crates of this workspace it may use. `sublet-testkit` and
/// `sublet-fuzz` may be dev-dependencies of every crate.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sublet-core", &[]),
    ("sublet-money", &["sublet-core"]),
    ("sublet-capacity", &["sublet-core"]),
    ("sublet-api", &["sublet-core"]),
    ("sublet-engine", &["sublet-core"]),
    ("sublet-runner", &["sublet-core"]),
    ("sublet-gateway", &["sublet-core", "sublet-api"]),
    ("sublet-stripe", &["sublet-core"]),
    ("sublet-mail", &["sublet-core"]),
    ("sublet-delivery", &["sublet-core"]),
    ("sublet-proof", &["sublet-core", "sublet-money"]),
    ("sublet-document", &["sublet-core", "sublet-money"]),
    ("sublet-store", &["sublet-core", "sublet-money", "sublet-capacity", "sublet-proof"]),
    ("sublet-cloud", &["sublet-core", "sublet-money", "sublet-capacity", "sublet-proof", "sublet-document", "sublet-store"]),
    ("sublet-http", &["sublet-core", "sublet-api", "sublet-cloud"]),
    ("sublet-cli", &["sublet-core", "sublet-api", "sublet-money", "sublet-capacity", "sublet-proof"]),
    ("sublet-testkit", EVERYTHING),
    ("sublet-fuzz", &[]),
    ("sublet", EVERYTHING),
    ("xtask", &["sublet-core"]),
];

const FOR_TESTS: [&str; 2] = ["sublet-testkit", "sublet-fuzz"];

const EVERYTHING: &[&str] = &[
    "sublet-core",
    "sublet-money",
    "sublet-capacity",
    "sublet-proof",
    "sublet-store",
    "sublet-cloud",
    "sublet-api",
    "sublet-http",
    "sublet-gateway",
    "sublet-stripe",
    "sublet-mail",
    "sublet-delivery",
    "sublet-engine",
    "sublet-runner",
    "sublet-cli",
];

/// Outside packages that may be named by these crates only; a trailing `*` stands for any ending.
const HEAVY: &[(&str, &[&str])] = &[
    ("candle*", &["sublet-engine"]),
    ("tokenizers", &["sublet-engine"]),
    ("llguidance", &["sublet-engine"]),
    ("hf-hub", &["sublet"]),
    ("lettre", &["sublet-mail"]),
    ("sqlx*", &["sublet-store"]),
    ("rusqlite", &["sublet-store"]),
    ("libsqlite3-sys", &["sublet-store"]),
    ("tokio-postgres", &["sublet-store"]),
    ("landlock", &["sublet-runner"]),
    ("seccompiler", &["sublet-runner"]),
    ("clap*", &["sublet-cli", "sublet"]),
];

/// What the pure crates may use. A new name here needs the argument that it does no I/O.
const PURE: &[(&str, &[&str])] = &[
    ("sublet-core", &["futures-core", "serde", "serde_json", "thiserror"]),
    ("sublet-money", &["sublet-core", "serde", "serde_json", "thiserror", "jiff", "sha2"]),
    ("sublet-capacity", &["sublet-core", "serde", "serde_json", "thiserror", "jiff"]),
    ("sublet-document", &["sublet-core", "sublet-money", "krilla", "rustybuzz", "notosans", "quick-xml"]),
    // ring is used with keys that are given: Ed25519 and HMAC need no randomness.
    ("sublet-proof", &["sublet-core", "sublet-money", "serde", "serde_json", "sha2", "ring", "base64", "coset"]),
];

pub fn edges(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &tree.packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            findings.push(at(&package.name, "is no crate that ARCHITECTURE.md knows"));
            continue;
        };
        for dependency in &package.dependencies {
            let is_ours = ALLOWED.iter().any(|(name, _)| *name == dependency.name);
            let is_for_tests = dependency.is_dev && FOR_TESTS.contains(&dependency.name.as_str());
            if is_ours && !allowed.contains(&dependency.name.as_str()) && !is_for_tests {
                findings.push(at(&package.name, &format!("must not depend on {}", dependency.name)));
            }
        }
    }
    findings
}

pub fn heavy_dependencies(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &tree.packages {
        for dependency in &package.dependencies {
            let owners = HEAVY.iter().find(|(name, _)| matches_name(name, &dependency.name)).map(|(_, owners)| *owners);
            if owners.is_some_and(|owners| !owners.contains(&package.name.as_str())) {
                findings.push(heavy_at(&package.name, &format!("must not depend on {}; it has one home", dependency.name)));
            }
            let pure = PURE.iter().find(|(name, _)| *name == package.name).map(|(_, allowed)| *allowed);
            if !dependency.is_dev && pure.is_some_and(|allowed| !allowed.contains(&dependency.name.as_str())) {
                findings.push(heavy_at(&package.name, &format!("is pure and must not depend on {}", dependency.name)));
            }
        }
    }
    findings
}

fn matches_name(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

fn manifest(package: &str) -> String {
    if package == "xtask" { "xtask/Cargo.toml".to_owned() } else { format!("crates/{package}/Cargo.toml") }
}

fn at(package: &str, problem: &str) -> Finding {
    Finding::new("edges", &manifest(package), 0, format!("{package} {problem}"))
}

fn heavy_at(package: &str, problem: &str) -> Finding {
    Finding::new("heavy", &manifest(package), 0, format!("{package} {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Dependency, Package};

    fn tree(name: &str, dependency: &str, is_dev: bool) -> Tree {
        let dependencies = vec![Dependency { name: dependency.to_owned(), is_dev }];
        Tree { packages: vec![Package { name: name.to_owned(), dependencies }], ..Tree::default() }
    }

    #[test]
    fn an_edge_against_the_architecture_is_found() {
        for (name, dependency, is_dev, found) in [
            ("sublet-gateway", "sublet-api", false, 0),
            ("sublet-gateway", "sublet-store", false, 1),
            ("sublet-gateway", "sublet-cloud", true, 1),
            ("sublet-money", "sublet-capacity", false, 1),
            ("sublet-core", "sublet-money", false, 1),
            ("sublet-store", "sublet-testkit", true, 0),
            ("sublet", "sublet-testkit", false, 1),
            ("sublet-strange", "serde", false, 1),
        ] {
            assert_eq!(edges(&tree(name, dependency, is_dev)).len(), found, "{name} -> {dependency}");
        }
    }

    #[test]
    fn a_heavy_or_impure_dependency_in_the_wrong_crate_is_found() {
        for (name, dependency, is_dev, found) in [
            ("sublet-engine", "candle-core", false, 0),
            ("sublet-gateway", "candle-core", false, 1),
            ("sublet-cloud", "sqlx", true, 1),
            ("sublet-store", "sqlx", false, 0),
            ("sublet-money", "tokio", false, 1),
            ("sublet-money", "tracing", false, 1),
            ("sublet-money", "proptest", true, 0),
            ("sublet-capacity", "rand", false, 1),
        ] {
            assert_eq!(heavy_dependencies(&tree(name, dependency, is_dev)).len(), found, "{name} -> {dependency}");
        }
    }
}
