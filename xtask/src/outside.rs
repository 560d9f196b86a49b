//! Runs other people's programs against a running cloud: client libraries, accounting programs, a browser.
//!
//! The suites are in `tests/clients/` and `tests/outside/`. Each reads the cloud's address and keys
//! from the environment, prints a line per check, and ends with 0 only if all passed. Clients run
//! side by side: each has a model of its own behind the scripted server.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::environment;
use crate::scripted::Scripted;
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
    pub fn start(root: &Path, binary: &Path, name: &str, options: &[&str]) -> Result<Self> {
        let directory = root.join("target/outside").join(name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory).context("empty the data directory")?;
        }
        std::fs::create_dir_all(&directory)?;
        let log = std::fs::File::create(directory.join("cloud.log"))?;
        let process = Command::new(binary)
            .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory.join("data"))
            .args(options)
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

impl Suite {
    /// Its room at the scripted server: the name of the script.
    fn room(&self) -> &str {
        let file = self.script.rsplit('/').next().unwrap_or(self.script);
        file.split('.').next().unwrap_or(file)
    }
}

/// How long one suite may take.
const SUITE_MAX: Duration = Duration::from_secs(600);

/// How long the suite that asks every route may take.
const EVERY_ROUTE_MAX: Duration = Duration::from_secs(1_800);

/// Clients that run at once: much of their time they wait, as they are told to by busy servers.
const SUITES_AT_ONCE: usize = 4;

/// Names of models that a library gives no choice of, and the room in which they are scripted.
const OTHER_MODELS: &[(&str, &str)] = &[("text-embedding-3-small", "llm_vectors")];

/// The suites of clients, those that take long first.
fn clients(root: &Path) -> Vec<Suite> {
    let python = environment::PYTHON.bin(root).join("python");
    let older = environment::OLDER_PYTHON.bin(root).join("python");
    let node = environment::node_bin(root).join("node");
    let suite = |name, program: &Path, script| Suite { name, program: program.to_owned(), script, limit: SUITE_MAX };
    vec![
        suite("llama-index", &older, "tests/clients/llama_index_python.py"),
        suite("litellm", &older, "tests/clients/litellm_python.py"),
        suite("langchain", &python, "tests/clients/langchain_python.py"),
        suite("pydantic-ai", &python, "tests/clients/pydantic_ai_python.py"),
        suite("llm", &python, "tests/clients/llm_python.py"),
        suite("instructor", &older, "tests/clients/instructor_python.py"),
        suite("openai for Python", &python, "tests/clients/openai_python.py"),
        suite("openai for Node", &node, "tests/clients/openai_node.mjs"),
        suite("AI SDK for Node", &node, "tests/clients/ai_sdk_node.mjs"),
        suite("anthropic for Python", &python, "tests/clients/anthropic_python.py"),
        suite("anthropic for Node", &node, "tests/clients/anthropic_node.mjs"),
        suite("curl", Path::new("bash"), "tests/clients/curl.sh"),
    ]
}

/// `route_examples` is how many requests every route gets beyond those at the ends of its ranges.
pub fn run_all(root: &Path, binary: &Path, route_examples: u32) -> Result<String> {
    let clients = clients(root);
    // What the clients did is in the books and on the screen of the others.
    let after = [
        Suite {
            name: "events of caches",
            program: environment::PYTHON.bin(root).join("python"),
            script: "tests/outside/kv_events.py",
            limit: SUITE_MAX,
        },
        Suite {
            name: "store of objects",
            program: environment::STORE_PYTHON.bin(root).join("python"),
            script: "tests/outside/store.py",
            limit: SUITE_MAX,
        },
        Suite { name: "accounting programs", program: PathBuf::from("bash"), script: "tests/outside/journal.sh", limit: SUITE_MAX },
        Suite {
            name: "browser",
            program: environment::node_bin(root).join("node"),
            script: "tests/outside/console.mjs",
            limit: SUITE_MAX,
        },
    ];
    let cloud = Cloud::start(root, binary, "suites", &[])?;
    let scripted = Scripted::start(root)?;
    let rooms = clients.iter().map(|suite| (format!("scripted/{}", suite.room()), suite.room().to_owned()));
    let others = OTHER_MODELS.iter().map(|(model, room)| ((*model).to_owned(), (*room).to_owned()));
    scripted.offer(binary, &cloud.directory.join("data"), &rooms.chain(others).collect::<Vec<_>>())?;
    let mut settings = settings(root, &cloud.credentials)?;
    settings.push(("SUBLET_UPSTREAM", scripted.address.clone()));
    settings.push(("SUBLET_DATA", cloud.directory.join("data").display().to_string()));
    settings.push(("TIKTOKEN_CACHE_DIR", environment::vocabularies(root)?.display().to_string()));
    let mut results = side_by_side(&clients, SUITES_AT_ONCE, |suite| run_suite(root, suite, &settings));
    results.extend(after.iter().map(|suite| run_suite(root, suite, &settings)));
    cloud.stop()?;
    results.extend(judges(root, binary));
    results.push(estimates(root, binary));
    results.push(every_route(root, binary, route_examples));
    let suites = results.len();
    let failures: Vec<String> =
        results.iter().filter_map(|result| result.as_ref().err().map(|error| format!("{error:#}"))).collect();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    let checks: usize = results.into_iter().flatten().sum();
    Ok(format!("{checks} checks in {suites} suites"))
}

/// Months pass: on a cloud of its own, with a test clock.
fn months(root: &Path, binary: &Path, suite: &Suite, more: &[(&'static str, String)]) -> Result<usize> {
    let cloud = Cloud::start(root, binary, suite.room(), &["--test-clock"])?;
    let mut settings = settings(root, &cloud.credentials)?;
    settings.push(("SUBLET_BINARY", binary.display().to_string()));
    settings.extend(more.iter().cloned());
    let ran = run_suite(root, suite, &settings);
    cloud.stop()?;
    ran
}

/// What programs of proofs, of finance and of accounting make of clouds whose months pass.
fn judges(root: &Path, binary: &Path) -> Vec<Result<usize>> {
    let python = environment::PYTHON.bin(root).join("python");
    let finance = environment::FINANCE_PYTHON.bin(root).join("python");
    let suite = |name, program: &Path, script| Suite { name, program: program.to_owned(), script, limit: SUITE_MAX };
    let mut results = Vec::new();
    for suite in [
        suite("judges of proofs", &python, "tests/outside/proofs.py"),
        suite("judges of exports", &finance, "tests/outside/exports.py"),
        suite("a customer's year", &python, "tests/outside/year.py"),
    ] {
        results.push(months(root, binary, &suite, &[]));
    }
    let documents = suite("judges of documents", &finance, "tests/outside/documents.py");
    results.push(samples(root).and_then(|samples| months(root, binary, &documents, &[("SUBLET_SAMPLES", samples)])));
    results
}

/// Histories that are replayed and scored again; no cloud is needed.
fn estimates(root: &Path, binary: &Path) -> Result<usize> {
    let program = environment::PYTHON.bin(root).join("python");
    let suite = Suite { name: "scorer of estimates", program, script: "tests/outside/estimates.py", limit: SUITE_MAX };
    run_suite(root, &suite, &[("SUBLET_BINARY", binary.display().to_string())])
}

/// The folder of invoices of every kind, written by a test.
fn samples(root: &Path) -> Result<String> {
    let mut write = Command::new("cargo");
    write.args(["test", "--quiet", "--package", "sublet-document", "--test", "documents", "of_every_kind"]);
    if !write.current_dir(root).stdout(Stdio::null()).status().context("write invoices of every kind")?.success() {
        bail!("invoices of every kind could not be written");
    }
    Ok(root.join("target/tmp/documents").display().to_string())
}

/// Whoever asks every route for everything leaves nothing as it was: on a cloud of its own.
fn every_route(root: &Path, binary: &Path, examples: u32) -> Result<usize> {
    let program = environment::PYTHON.bin(root).join("python");
    let suite = Suite { name: "schemathesis", program, script: "tests/outside/openapi.py", limit: EVERY_ROUTE_MAX };
    let cloud = Cloud::start(root, binary, "every-route", &[])?;
    let mut settings = settings(root, &cloud.credentials)?;
    settings.push(("SUBLET_OPENAPI_EXAMPLES", examples.to_string()));
    let ran = run_suite(root, &suite, &settings);
    cloud.stop()?;
    ran
}

/// Does all of a list, some at once, and gives what came of each.
fn side_by_side<T: Sync, R: Send>(list: &[T], at_once: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let todo = Mutex::new(list.iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(list.len()));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let next = todo.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((place, item)) = next else { break };
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
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

/// What every suite finds in its environment.
fn settings(root: &Path, credentials: &Value) -> Result<Vec<(&'static str, String)>> {
    let out = root.join("target/outside/out");
    std::fs::create_dir_all(&out).context("create the folder for what suites write")?;
    let inherited = std::env::var("PATH").context("PATH")?;
    let mut settings = vec![
        ("PATH", format!("{}:{inherited}", environment::PYTHON.bin(root).display())),
        ("SUBLET_NODE_MODULES", environment::node_modules(root).display().to_string()),
        ("SUBLET_OUT", out.display().to_string()),
    ];
    for (field, name) in FIELDS {
        let value = credentials[field].as_str().with_context(|| format!("credentials.json has no {field}"))?;
        settings.push((name, value.to_owned()));
    }
    Ok(settings)
}

fn run_suite(root: &Path, suite: &Suite, settings: &[(&str, String)]) -> Result<usize> {
    let start = Instant::now();
    let mut command = Command::new(&suite.program);
    command.arg(root.join(suite.script)).envs(settings.iter().map(|(name, value)| (name, value)));
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
    println!("      {}: {passed} checks passed in {:.0?}", suite.name, start.elapsed());
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
        let result = settings(&directory, &credentials).and_then(|settings| run_suite(&directory, &suite, &settings));
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
    fn all_of_a_list_is_done_and_what_comes_of_it_is_in_its_order() {
        let list: Vec<usize> = (0..20).collect();
        for at_once in [1, 3, 40] {
            assert_eq!(side_by_side(&list, at_once, |item| item * 2), (0..20).map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_suite_that_hangs_is_ended() {
        let child = Command::new("sleep").arg("600").stdout(Stdio::piped()).spawn().unwrap();
        assert!(wait_with_limit(child, Duration::from_millis(50)).is_err());
    }

    #[test]
    fn a_cloud_that_ends_at_once_is_an_error_with_its_log() {
        let root = std::env::temp_dir().join(format!("sublet-cloud-{}", std::process::id()));
        let error = Cloud::start(&root, Path::new("false"), "ends", &[]).err().unwrap();
        assert!(error.to_string().contains("before it was ready"), "{error}");
        std::fs::remove_dir_all(root).unwrap();
    }
}
