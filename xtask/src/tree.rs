//! The files that are, or are about to be, under version control, and the workspace's packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::source::Source;

/// Everything the checks look at, read once.
#[derive(Default)]
pub struct Tree {
    pub files: Vec<File>,
    pub packages: Vec<Package>,
    /// All files by name, those without text too.
    pub paths: Vec<String>,
    /// How this machine's folders begin: the checkout and the home folder.
    pub machine_paths: Vec<String>,
}

/// One text file; `path` is relative to the root with forward slashes.
pub struct File {
    pub path: String,
    pub text: String,
    /// Present for Rust files.
    pub source: Option<Source>,
}

/// One package of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub dependencies: Vec<Dependency>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Dependency {
    pub name: String,
    pub is_dev: bool,
}

impl Tree {
    pub fn read(root: &Path) -> Result<Self> {
        let listing = output(root, "git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        let mut files = Vec::new();
        let mut paths = Vec::new();
        for path in listing.split('\0').filter(|path| root.join(path).exists()) {
            paths.push(path.to_owned());
            // A file that is not text has nothing to check.
            if let Ok(text) = std::fs::read_to_string(root.join(path)) {
                files.push(File::new(path, text));
            }
        }
        let metadata = output(root, "cargo", &["metadata", "--no-deps", "--format-version", "1", "--offline"])?;
        Ok(Self { files, packages: packages_from_metadata(&metadata)?, paths, machine_paths: machine_paths(root) })
    }

    /// Rust files with their sources.
    pub fn rust(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files.iter().filter_map(|file| file.source.as_ref().map(|source| (file, source)))
    }

    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let paths = files.iter().map(|(path, _)| (*path).to_owned()).collect();
        let files = files.iter().map(|(path, text)| File::new(path, (*text).to_owned())).collect();
        Self { files, paths, ..Self::default() }
    }
}

impl File {
    fn new(path: &str, text: String) -> Self {
        let source = path.ends_with(".rs").then(|| Source::parse(&text));
        Self { path: path.to_owned(), text, source }
    }

    /// Whether the whole file exists only for tests.
    pub fn is_test(&self) -> bool {
        let in_folder = ["/tests/", "/benches/", "/examples/"].iter().any(|folder| self.path.contains(folder));
        in_folder || self.path.ends_with("/tests.rs") || self.path.ends_with("_tests.rs")
    }

    /// The crate it belongs to, if it lies in one of the product's.
    pub fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// Whether it is product code: the binary's and libraries' sources.
    pub fn is_product(&self) -> bool {
        self.crate_name().is_some() && !self.is_test()
    }
}

/// Shorter paths, such as `/`, would be found everywhere.
const MACHINE_PATH_CHARS_MIN: usize = 5;

fn machine_paths(root: &Path) -> Vec<String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let paths = [home, root.display().to_string()];
    paths.into_iter().filter(|path| path.len() >= MACHINE_PATH_CHARS_MIN).map(|path| format!("{path}/")).collect()
}

/// Runs a program in `root` and returns what it wrote to standard output.
pub fn output(root: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).current_dir(root).output().with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{program} {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn packages_from_metadata(metadata: &str) -> Result<Vec<Package>> {
    let metadata: Value = serde_json::from_str(metadata).context("parse cargo metadata")?;
    let mut packages = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata has packages")? {
        let dependencies = package["dependencies"].as_array().context("a package has dependencies")?;
        packages.push(Package {
            name: package["name"].as_str().context("a package has a name")?.to_owned(),
            dependencies: dependencies
                .iter()
                .filter_map(|dependency| {
                    Some(Dependency { name: dependency["name"].as_str()?.to_owned(), is_dev: dependency["kind"] == "dev" })
                })
                .collect(),
        });
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_cargo_metadata() {
        let text = r#"{"packages":[{"name":"a","dependencies":[{"name":"b","kind":null},{"name":"c","kind":"dev"}]}]}"#;
        let dependencies =
            vec![Dependency { name: "b".to_owned(), is_dev: false }, Dependency { name: "c".to_owned(), is_dev: true }];
        assert_eq!(packages_from_metadata(text).unwrap(), [Package { name: "a".to_owned(), dependencies }]);
    }

    #[test]
    fn product_code_is_told_from_tests_and_tools() {
        let tree = Tree::of(&[
            ("crates/a/src/x.rs", ""),
            ("crates/a/tests/it.rs", ""),
            ("crates/a/src/x/tests.rs", ""),
            ("xtask/src/x.rs", ""),
        ]);
        let product: Vec<_> = tree.files.iter().map(File::is_product).collect();
        assert_eq!(product, [true, false, false, false]);
    }
}
