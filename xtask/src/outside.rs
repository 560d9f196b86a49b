//! Runs other people's programs against a running cloud: client libraries, accounting programs, a browser.
//!
//! The suites are in `tests/clients/` and `tests/outside/`. Each reads the cloud's address and keys
//! from the environment, prints a line per check, and ends with 0 only if all passed.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::environment;
use crate::steps;

/// How long a cloud may take to write its credentials and answer.
const READY_MAX: Duration = Duration::from_secs(60);

/// How long a cloud may take to end after it was told to.
const STOP_MAX: Duration = Duration::from_secs(60);

/// A `sublet up` on a free loopback port with a new data directory.
pub struct Cloud {
    process: Child,
    directory: PathBuf,
    pub credentials: Value,
}

impl Cloud {
    pub fn start(root: &Path, binary: &Path, name: &str) -> Result<Self> {
        let directory = root.join("target/outside").join(name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory).context("empty the data directory")?;
        }
        std::fs::create_dir_all(&directory)?;
        let log = std::fs::File::create(directory.join("cloud.log"))?;
        let process = Command::new(binary)
            .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let mut cloud = Self { process, directory, credentials: Value::Null };
        cloud.wait_until_ready()?;
        Ok(cloud)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < READY_MAX {
            if let Some(status) = self.process.try_wait()? {
                bail!("the cloud ended with {status} before it was ready; {}", steps::tail(&self.log()));
            }
            if let Some(credentials) = self.answering_credentials() {
                self.credentials = credentials;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the cloud was not ready after {READY_MAX:?}; {}", steps::tail(&self.log()))
    }

    fn answering_credentials(&self) -> Option<Value> {
        let text = std::fs::read_to_string(self.directory.join("data/credentials.json")).ok()?;
        let credentials: Value = serde_json::from_str(&text).ok()?;
        let root = credentials["api_base"].as_str()?.strip_suffix("/v1")?.to_owned();
        let answer =
            Command::new("curl").args(["--silent", "--fail", "--max-time", "5", &format!("{root}/readyz")]).output().ok()?;
        answer.status.success().then_some(credentials)
    }

    fn log(&self) -> PathBuf {
        self.directory.join("cloud.log")
    }

    /// Tells the cloud to stop and expects it to end well.
    pub fn stop(mut self) -> Result<()> {
        let told = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        if !told.success() {
            bail!("the cloud was gone before it was told to stop; {}", steps::tail(&self.log()));
        }
        let start = Instant::now();
        while start.elapsed() < STOP_MAX {
            match self.process.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the cloud ended with {status}; {}", steps::tail(&self.log())),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        bail!("the cloud did not end {STOP_MAX:?} after SIGTERM; {}", steps::tail(&self.log()))
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // After a good stop this finds nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A suite: the program that runs it and the script.
struct Suite {
    name: &'static str,
    program: PathBuf,
    script: &'static str,
    limit: Duration,
}

/// How long one suite may take.
const SUITE_MAX: Duration = Duration::from_secs(300);

/// How long the suite that asks every route may take.
const EVERY_ROUTE_MAX: Duration = Duration::from_secs(1_800);

/// `route_examples` is how many requests every route gets beyond those at the ends of its ranges.
pub fn run_all(root: &Path, binary: &Path, route_examples: u32) -> Result<String> {
    let python = environment::python_bin(root).join("python");
    let node = environment::node_bin(root).join("node");
    let bash = PathBuf::from("bash");
    let suites = [
        Suite { name: "curl", program: bash.clone(), script: "tests/clients/curl.sh", limit: SUITE_MAX },
        Suite { name: "openai for Python", program: python.clone(), script: "tests/clients/openai_python.py", limit: SUITE_MAX },
        Suite { name: "openai for Node", program: node.clone(), script: "tests/clients/openai_node.mjs", limit: SUITE_MAX },
        Suite {
            name: "anthropic for Python",
            program: python.clone(),
            script: "tests/clients/anthropic_python.py",
            limit: SUITE_MAX,
        },
        Suite { name: "anthropic for Node", program: node.clone(), script: "tests/clients/anthropic_node.mjs", limit: SUITE_MAX },
        Suite { name: "accounting programs", program: bash, script: "tests/outside/journal.sh", limit: SUITE_MAX },
        Suite { name: "browser", program: node, script: "tests/outside/console.mjs", limit: SUITE_MAX },
    ];
    let cloud = Cloud::start(root, binary, "suites")?;
    let mut outcome = Outcome::default();
    for suite in &suites {
        outcome.take(suite.name, run_suite(root, suite, &cloud.credentials, &[]));
    }
    cloud.stop()?;
    // Whoever asks every route for everything leaves nothing as it was.
    let suite = Suite { name: "schemathesis", program: python, script: "tests/outside/openapi.py", limit: EVERY_ROUTE_MAX };
    let cloud = Cloud::start(root, binary, "every-route")?;
    let examples = ("SUBLET_OPENAPI_EXAMPLES", route_examples.to_string());
    outcome.take(suite.name, run_suite(root, &suite, &cloud.credentials, &[examples]));
    cloud.stop()?;
    outcome.end(suites.len() + 1)
}

/// What came of suites.
#[derive(Default)]
struct Outcome {
    checks: usize,
    failures: Vec<String>,
}

impl Outcome {
    fn take(&mut self, name: &str, ran: Result<usize>) {
        match ran {
            Ok(passed) => {
                println!("      {name}: {passed} checks passed");
                self.checks += passed;
            }
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    fn end(self, suites: usize) -> Result<String> {
        if !self.failures.is_empty() {
            bail!("{}", self.failures.join("\n"));
        }
        Ok(format!("{} checks in {suites} suites", self.checks))
    }
}

/// Fields of `credentials.json`, and the names under which suites find them.
const FIELDS: &[(&str, &str)] = &[
    ("api_base", "SUBLET_API_BASE"),
    ("console_url", "SUBLET_CONSOLE_URL"),
    ("project_key", "SUBLET_PROJECT_KEY"),
    ("admin_key", "SUBLET_ADMIN_KEY"),
    ("operator_key", "SUBLET_OPERATOR_KEY"),
    ("model", "SUBLET_MODEL"),
];

fn run_suite(root: &Path, suite: &Suite, credentials: &Value, environment: &[(&str, String)]) -> Result<usize> {
    let out = root.join("target/outside/out");
    std::fs::create_dir_all(&out).context("create the folder for what suites write")?;
    let inherited = std::env::var("PATH").context("PATH")?;
    let mut command = Command::new(&suite.program);
    command
        .arg(root.join(suite.script))
        .env("PATH", format!("{}:{inherited}", environment::python_bin(root).display()))
        .env("SUBLET_NODE_MODULES", environment::node_modules(root))
        .env("SUBLET_OUT", out)
        .envs(environment.iter().map(|(name, value)| (name, value)));
    for (field, name) in FIELDS {
        command.env(name, credentials[field].as_str().with_context(|| format!("credentials.json has no {field}"))?);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let (lines, succeeded) = wait_with_limit(child.with_context(|| format!("start {}", suite.program.display()))?, suite.limit)?;
    let failed: Vec<&String> = lines.iter().filter(|line| line.starts_with("FAIL")).collect();
    for line in &failed {
        println!("      {}: {line}", suite.name);
    }
    let passed = lines.iter().filter(|line| line.starts_with("ok ")).count();
    if !succeeded || !failed.is_empty() || passed == 0 {
        bail!("{}: {passed} checks passed, {} failed, ended well: {succeeded}", suite.name, failed.len());
    }
    Ok(passed)
}

/// The lines a program wrote, and whether it succeeded; it is ended when its time is up.
fn wait_with_limit(mut child: Child, limit: Duration) -> Result<(Vec<String>, bool)> {
    let output = child.stdout.take().context("the suite has an output")?;
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines: Vec<String> = read_lines(output);
        // The other side may have given up already.
        let _ = sender.send(lines);
    });
    let received = receiver.recv_timeout(limit);
    if received.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    reader.join().map_err(|_| anyhow::anyhow!("the reader of a suite's output panicked"))?;
    let lines = received.with_context(|| format!("a suite was still running after {limit:?}"))?;
    Ok((lines, status.success()))
}

fn read_lines(output: impl Read) -> Vec<String> {
    BufReader::new(output).lines().map_while(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(script: &str) -> Result<usize> {
        let directory = std::env::temp_dir().join(format!("sublet-clients-{}-{}", std::process::id(), script.len()));
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("suite.sh"), script)?;
        let credentials: Value = FIELDS.iter().map(|(field, _)| ((*field).to_owned(), Value::from("x"))).collect();
        let suite = Suite { name: "sample", program: PathBuf::from("bash"), script: "suite.sh", limit: SUITE_MAX };
        let result = run_suite(&directory, &suite, &credentials, &[]);
        std::fs::remove_dir_all(directory)?;
        result
    }

    #[test]
    fn a_suite_passes_only_if_checks_ran_and_none_failed() {
        assert_eq!(suite("echo ok one; echo ok two").unwrap(), 2);
        assert!(suite("echo nothing").is_err());
        assert!(suite("echo ok one; exit 1").is_err());
        assert!(suite("echo ok one; echo FAIL two; exit 0").is_err());
    }

    #[test]
    fn a_suite_that_hangs_is_ended() {
        let child = Command::new("sleep").arg("600").stdout(Stdio::piped()).spawn().unwrap();
        assert!(wait_with_limit(child, Duration::from_millis(50)).is_err());
    }

    #[test]
    fn a_cloud_that_ends_at_once_is_an_error_with_its_log() {
        let root = std::env::temp_dir().join(format!("sublet-cloud-{}", std::process::id()));
        let error = Cloud::start(&root, Path::new("false"), "ends").err().unwrap();
        assert!(error.to_string().contains("before it was ready"), "{error}");
        std::fs::remove_dir_all(root).unwrap();
    }
}
