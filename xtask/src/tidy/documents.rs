//! Documents: numbered decisions, links that lead somewhere, nothing of the machine they were written on.

use super::Finding;
use crate::snippets;
use crate::tree::Tree;

const DECISIONS: &str = "docs/decisions/";

/// One page per decision, `NNNN-short-title.md`, each number once, with a title.
pub fn decisions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.starts_with(DECISIONS)) {
        let name = &file.path[DECISIONS.len()..];
        let number = name.get(..4).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        let is_named = number.is_some()
            && name.get(4..5) == Some("-")
            && name
                .strip_suffix(".md")
                .is_some_and(|stem| stem[5..].bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        if !is_named {
            findings.push(Finding::new("decisions", &file.path, 0, "a decision is named NNNN-short-title.md"));
        } else if let Some(number) = number {
            if seen.contains(&number) {
                findings.push(Finding::new("decisions", &file.path, 0, format!("the number {number} is taken")));
            }
            seen.push(number);
        }
        if !file.text.starts_with("# ") {
            findings.push(Finding::new("decisions", &file.path, 1, "a decision begins with its title"));
        }
    }
    findings
}

/// A relative link names a file or folder that exists.
pub fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (index, line) in file.text.lines().enumerate() {
            for target in link_targets(line) {
                let path = resolve(&file.path, target);
                let folder = format!("{path}/");
                if !tree.paths.iter().any(|known| *known == path || known.starts_with(&folder)) {
                    findings.push(Finding::new("links", &file.path, index + 1, format!("'{target}' leads nowhere")));
                }
            }
        }
    }
    findings
}

fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](")
        .filter_map(|(at, _)| line[at + 2..].split(')').next())
        .map(|target| target.split('#').next().unwrap_or(""))
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
}

fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// No path of the machine somebody worked on, and no download address in a lock file.
pub fn machine(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path != "Cargo.lock") {
        for (index, line) in file.text.lines().enumerate() {
            let names_machine = tree.machine_paths.iter().any(|path| line.contains(path.as_str()));
            let names_host = file.path.ends_with("package-lock.json") && line.contains("\"resolved\": \"http");
            if names_machine || names_host {
                findings.push(Finding::new("machine", &file.path, index + 1, "a path or host of one machine"));
            }
        }
    }
    findings
}

/// Snippets that no test runs.
pub fn snippets_not_run(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for snippet in snippets::parse(&file.text).into_iter().filter(|snippet| snippet.mode == snippets::Mode::NoRun) {
            findings.push(Finding::new("no_run", &file.path, snippet.line, "this snippet is not run by a test"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misnamed_repeated_and_untitled_decisions_are_found() {
        let tree = Tree::of(&[
            ("docs/decisions/0001-record-decisions.md", "# Record"),
            ("docs/decisions/0001-again.md", "# Again"),
            ("docs/decisions/2-short.md", "# Short"),
            ("docs/decisions/0003-Title.md", "# Title"),
            ("docs/decisions/0004-untitled.md", "text"),
        ]);
        let found: Vec<_> = decisions(&tree).into_iter().map(|finding| finding.path).collect();
        let names = ["0001-again.md", "2-short.md", "0003-Title.md", "0004-untitled.md"];
        assert_eq!(found, names.map(|name| format!("docs/decisions/{name}")));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let text = "[a](b.md) [c](../README.md#top) [d](https://example.org/x.md) [e](#here) [f](missing.md) [g](../docs/)";
        let found = links(&Tree::of(&[("docs/a.md", text), ("docs/b.md", ""), ("README.md", "")]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].message.contains("missing.md"));
    }

    #[test]
    fn a_path_of_the_machine_and_a_download_host_are_found() {
        let mut tree = Tree::of(&[
            ("docs/a.md", "see /home/somebody/notes"),
            ("a/package-lock.json", "\"resolved\": \"https://example.org/x.tgz\""),
            ("docs/b.md", "nothing"),
        ]);
        tree.machine_paths = vec!["/home/somebody/".to_owned()];
        assert_eq!(machine(&tree).len(), 2);
    }

    #[test]
    fn a_snippet_that_is_not_run_is_found() {
        let text = "```sh no-run\nrm x\n```\n```sh\ntrue\n```\n";
        assert_eq!(snippets_not_run(&Tree::of(&[("README.md", text)])).len(), 1);
    }
}
