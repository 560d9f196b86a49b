//! How long functions and files may be.

use super::Finding;
use crate::tree::Tree;

/// A function fits a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// A file is one room; its tests do not count.
const FILE_LINES_MAX: usize = 600;

pub fn functions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in tree.rust() {
        for function in source.functions().into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX) {
            findings.push(Finding {
                check: "function_lines",
                key: format!("{}::{}", file.path, function.name),
                path: file.path.clone(),
                line: function.line,
                size: u64::try_from(function.lines).unwrap_or(u64::MAX),
                message: format!("{} has {} lines; the limit is {FUNCTION_LINES_MAX}", function.name, function.lines),
            });
        }
    }
    findings
}

pub fn files(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in tree.rust().filter(|(file, _)| !file.is_test()) {
        let lines = source.lines_without_tests();
        if lines > FILE_LINES_MAX {
            findings.push(Finding {
                check: "file_lines",
                key: file.path.clone(),
                path: file.path.clone(),
                line: 0,
                size: u64::try_from(lines).unwrap_or(u64::MAX),
                message: format!("{lines} lines without tests; the limit is {FILE_LINES_MAX}"),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_over_the_limit_is_found() {
        let function = |lines: usize| format!("fn long() {{\n{}}}\n", "    x();\n".repeat(lines - 2));
        assert!(functions(&Tree::of(&[("crates/a/src/a.rs", &function(FUNCTION_LINES_MAX))])).is_empty());
        let found = functions(&Tree::of(&[("crates/a/src/a.rs", &function(FUNCTION_LINES_MAX + 1))]));
        assert_eq!((found[0].key.as_str(), found[0].size), ("crates/a/src/a.rs::long", 71));
    }

    #[test]
    fn a_file_over_the_limit_is_found_and_its_tests_do_not_count() {
        let code = "// a line\n".repeat(FILE_LINES_MAX);
        let tests = "#[cfg(test)]\nmod tests {\n}\n";
        assert!(files(&Tree::of(&[("crates/a/src/a.rs", &format!("{code}{tests}"))])).is_empty());
        assert_eq!(files(&Tree::of(&[("crates/a/src/a.rs", &format!("{code}// more\n{tests}"))])).len(), 1);
        assert!(files(&Tree::of(&[("crates/a/tests/it.rs", &format!("{code}// more\n"))])).is_empty());
    }
}
