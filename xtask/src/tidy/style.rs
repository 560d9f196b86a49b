//! Names, silenced lints, promises not kept, waiting tests, missing module docs.

use super::Finding;
use crate::tree::Tree;

const MEANINGLESS: &[&str] = &["util", "utils", "helper", "helpers", "common", "manager", "managers", "misc", "stuff"];

/// A module is named after what it is about.
pub fn names(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, _) in tree.rust() {
        for part in file.path.trim_end_matches(".rs").split('/') {
            if part.split('_').any(|word| MEANINGLESS.contains(&word)) {
                findings.push(Finding::new("names", &file.path, 0, format!("'{part}' does not say what is inside")));
            }
        }
    }
    findings
}

/// Lints and tests that were switched off.
pub fn silenced(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in tree.rust() {
        for pattern in ["#[ignore", "#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for line in source.find(pattern) {
                findings.push(Finding::new(
                    "silenced",
                    &file.path,
                    line,
                    format!("{pattern}…: mend it, or list it in the ratchet"),
                ));
            }
        }
    }
    findings
}

/// Notes to oneself that say the work is not done.
pub fn unfinished(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in tree.rust() {
        for (line, comment) in &source.comments {
            if comment.split(|c: char| !c.is_alphanumeric()).any(|word| ["TODO", "FIXME", "XXX", "HACK"].contains(&word)) {
                findings.push(Finding::new("unfinished", &file.path, *line, "a promise in a comment; file an issue instead"));
            }
        }
    }
    findings
}

/// Tests wait for conditions, never for time.
pub fn waiting(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in tree.rust().filter(|(file, _)| file.crate_name().is_some()) {
        for line in ["thread::sleep(", "time::sleep("].iter().flat_map(|pattern| source.find(pattern)) {
            if file.is_test() || source.is_test_line(line) {
                findings.push(Finding::new("waiting", &file.path, line, "a test sleeps; wait for the condition it means"));
            }
        }
    }
    findings
}

/// A module's first lines say what it is for.
pub fn module_docs(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|(file, _)| !file.is_test() && !file.path.ends_with("/build.rs"))
        .filter(|(file, _)| !file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or("").starts_with("//!"))
        .map(|(file, _)| Finding::new("module_docs", &file.path, 1, "a module begins with '//!' and says its purpose"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(check: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn a_meaningless_module_name_is_found() {
        assert_eq!(count(names, "crates/a/src/utils.rs", ""), 1);
        assert_eq!(count(names, "crates/a/src/test_helpers/mod.rs", ""), 1);
        assert_eq!(count(names, "crates/a/src/lease.rs", ""), 0);
    }

    #[test]
    fn a_silenced_lint_or_test_is_found() {
        for text in
            ["#[ignore]\nfn a() {}", "#[allow(dead_code)]\nfn a() {}", "#![allow(clippy::all)]", "#[expect(dead_code)]\nfn a() {}"]
        {
            assert_eq!(count(silenced, "crates/a/src/a.rs", text), 1, "{text}");
        }
        assert_eq!(count(silenced, "crates/a/src/a.rs", "// #[allow(dead_code)]"), 0);
    }

    #[test]
    fn a_promise_in_a_comment_is_found() {
        let marker = ["TO", "DO"].concat();
        assert_eq!(count(unfinished, "crates/a/src/a.rs", &format!("// {marker}: later")), 1);
        assert_eq!(count(unfinished, "crates/a/src/a.rs", &format!("let a = \"{marker}\";")), 0);
    }

    #[test]
    fn a_sleeping_test_is_found() {
        let text = "fn a() { std::thread::sleep(x) }\n#[cfg(test)]\nmod tests { fn b() { tokio::time::sleep(x) } }";
        assert_eq!(count(waiting, "crates/a/src/a.rs", text), 1);
        assert_eq!(count(waiting, "crates/a/tests/it.rs", text), 2);
    }

    #[test]
    fn a_module_without_a_purpose_is_found() {
        assert_eq!(count(module_docs, "crates/a/src/a.rs", "use x;"), 1);
        assert_eq!(count(module_docs, "crates/a/src/a.rs", "//! Why.\nuse x;"), 0);
        assert_eq!(count(module_docs, "crates/a/tests/it.rs", "use x;"), 0);
    }
}
