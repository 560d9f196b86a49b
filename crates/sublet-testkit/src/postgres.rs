//! A real PostgreSQL, started once per test program on a private socket, as a user who is not root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
/// What the directories of servers are called.
const PREFIX: &str = "sublet-postgres-";
/// A directory without a server that is older than this was left behind.
const LEFT_AFTER: Duration = Duration::from_secs(600);
/// How often the start is asked for, [`START_PAUSE`] apart.
const START_CHECKS_MAX: u32 = 600;
const START_PAUSE: Duration = Duration::from_millis(50);

/// Settings of a server that many tests share: none of them stops it, so nothing has to survive that.
const QUICK: &[&str] = &["listen_addresses=", "fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300"];

/// A running server.
pub struct PostgresServer {
    directory: PathBuf,
    programs: PathBuf,
    databases: AtomicU64,
    /// Where it answers besides its socket, if it was made to be reached from other machines.
    port: Option<u16>,
    thread: ServerThread,
}

impl PostgresServer {
    /// The server of this test program.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<PostgresServer> = OnceLock::new();
        SERVER.get_or_init(|| Self::start(QUICK, None))
    }

    /// A server for one test, which may stop it. It keeps what it commits, as a server in use does, and is reached over
    /// TCP on the loopback address. It remembers when each transaction was committed.
    pub fn alone() -> Self {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = taken.local_addr().expect("an address").port();
        drop(taken);
        let port_setting = format!("port={port}");
        let settings = ["listen_addresses=127.0.0.1", "max_connections=100", "track_commit_timestamp=on", &port_setting];
        Self::start(&settings, Some(port))
    }

    /// Ends the server at once, as a crash would: transactions break off, nothing is written down in order.
    pub fn crash(&self) {
        let stopped = as_server_user(&self.programs.join("pg_ctl"))
            .args(["stop", "--silent", "--wait", "--mode=immediate", "-D"])
            .arg(self.directory.join("data"))
            .status()
            .expect("pg_ctl runs");
        assert!(stopped.success(), "PostgreSQL did not stop");
    }

    /// Starts a server that was stopped.
    pub fn start_again(&self) {
        self.thread.start();
        self.wait_until_ready();
    }

    /// The charged usage events of a database: how many, and their amounts in nano-units, added up.
    pub fn usage_events(&self, url: &str) -> (i128, i128) {
        let sql = "SELECT COUNT(*) || ' ' || COALESCE(SUM(amount), 0) FROM usage_events WHERE amount > 0";
        let output = Command::new(self.programs.join("psql")).args(["-qtA", "-d", url, "-c", sql]).output().expect("psql runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text.split_whitespace().map(|number| number.parse().expect("a number"));
        (numbers.next().expect("a count"), numbers.next().expect("a sum"))
    }

    /// When each entry of the ledger was committed, in milliseconds since 1970: what it says itself is when it was written.
    pub fn entry_commits(&self, url: &str) -> BTreeMap<String, i64> {
        let sql = "SELECT id, (EXTRACT(EPOCH FROM pg_xact_commit_timestamp(xmin)) * 1000)::BIGINT FROM journal_entries";
        let output = Command::new(self.programs.join("psql")).args(["-qtA", "-F", " ", "-d", url, "-c", sql]).output();
        let text = String::from_utf8(output.expect("psql runs").stdout).expect("psql speaks UTF-8");
        let commits = text.lines().map(|line| line.split_once(' ').expect("an id and an instant"));
        commits.map(|(id, at)| (id.to_owned(), at.parse().expect("an instant"))).collect()
    }

    /// Makes a database look as if a newer program had raised its schema.
    pub fn pretend_newer_schema(&self, url: &str) {
        self.statement(url, "INSERT INTO schema_versions (version, name) VALUES (1000000, 'future')");
    }

    /// Undoes [`Self::pretend_newer_schema`].
    pub fn forget_newer_schema(&self, url: &str) {
        self.statement(url, "DELETE FROM schema_versions WHERE version = 1000000");
    }

    fn statement(&self, url: &str, sql: &'static str) {
        let done = Command::new(self.programs.join("psql")).args(["-q", "-d", url, "-c", sql]).status().expect("psql runs");
        assert!(done.success(), "PostgreSQL did not carry out: {sql}");
    }

    /// A new empty database; returns its URL.
    pub fn fresh_database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::SeqCst));
        let created = self
            .client("psql")
            .args(["-q", "-d", "postgres", "-c"])
            .arg(format!("CREATE DATABASE {name}"))
            .status()
            .expect("psql runs");
        assert!(created.success(), "PostgreSQL did not create the database {name}");
        match self.port {
            Some(port) => format!("postgres://postgres@127.0.0.1:{port}/{name}"),
            None => format!("postgres://postgres@localhost/{name}?host={}", self.directory.display()),
        }
    }

    /// A client program that finds the server's socket.
    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(["-U", "postgres", "-h"]).arg(&self.directory);
        if let Some(port) = self.port {
            command.args(["-p", &port.to_string()]);
        }
        command
    }

    fn start(settings: &[&str], port: Option<u16>) -> Self {
        let programs = find_programs();
        sweep();
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir().expect("a temporary directory").keep();
        let data = directory.join("data");
        hand_over(&directory);
        let made = as_server_user(&programs.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .expect("initdb runs");
        assert!(made.success(), "initdb failed");
        let mut command = as_server_user(&programs.join("postgres"));
        command.arg("-D").arg(data).arg("-k").arg(&directory);
        for setting in settings {
            command.args(["-c", setting]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let thread = ServerThread::begin(command, directory.clone());
        let server = Self { directory, programs, databases: AtomicU64::new(0), port, thread };
        server.start_again();
        server
    }

    fn wait_until_ready(&self) {
        for _ in 0..START_CHECKS_MAX {
            let ready = self.client("pg_isready").arg("-q").status().expect("pg_isready runs");
            if ready.success() {
                return;
            }
            std::thread::sleep(START_PAUSE);
        }
        panic!("PostgreSQL did not start");
    }
}

/// Removes what servers of earlier programs left: the kernel ends them too soon to clean up.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let server = std::fs::read_to_string(entry.path().join("data/postmaster.pid")).unwrap_or_default();
        let is_alive = server.lines().next().is_some_and(|pid| Path::new("/proc").join(pid.trim()).exists());
        // One that is just starting has no server yet.
        let age = entry.metadata().and_then(|found| found.modified()).ok().and_then(|at| at.elapsed().ok());
        if !is_alive && age.is_some_and(|age| age > LEFT_AFTER) {
            // Another program may sweep at the same time.
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// The thread that starts the server and lives as long as this program: the kernel ends the server with that thread, so
/// no server outlives its tests.
struct ServerThread {
    starts: mpsc::Sender<()>,
    started: Mutex<mpsc::Receiver<bool>>,
}

impl ServerThread {
    fn begin(mut command: Command, directory: PathBuf) -> Self {
        let (starts, asked) = mpsc::channel();
        let (sender, started) = mpsc::channel();
        std::thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || {
                for () in asked {
                    let child = command.spawn();
                    sender.send(child.is_ok()).ok();
                    wait(child.ok());
                }
                std::fs::remove_dir_all(directory).ok();
            })
            .expect("a thread for the server");
        Self { starts, started: Mutex::new(started) }
    }

    /// Waits for the end of the server before, if there is one.
    fn start(&self) {
        self.starts.send(()).expect("the server's thread lives");
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner).recv();
        assert!(started == Ok(true), "postgres did not start");
    }
}

impl Drop for PostgresServer {
    /// Only a server that is not shared is dropped. One that was stopped already says so, which is no matter.
    fn drop(&mut self) {
        let data = self.directory.join("data");
        let stopping = as_server_user(&self.programs.join("pg_ctl"))
            .args(["stop", "--silent", "--wait", "--mode=immediate", "-D"])
            .arg(data)
            .stderr(Stdio::null())
            .status();
        stopping.ok();
    }
}

fn wait(child: Option<Child>) {
    if let Some(mut child) = child {
        child.wait().ok();
    }
}

fn find_programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).collect())
        .unwrap_or_default();
    versions.sort();
    versions
        .pop()
        .expect("PostgreSQL's server programs are missing: install Debian's package 'postgresql' or run 'cargo xtask test-env'")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn hand_over(directory: &Path) {
    if is_root() {
        let handed = Command::new("chown").arg("nobody").arg(directory).status().expect("chown runs");
        assert!(handed.success(), "the server's directory could not be handed over");
    }
}

/// PostgreSQL refuses to run as root, so root runs it as nobody.
fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    }
    command.arg("--pdeathsig=KILL").arg("--").arg(program);
    command.current_dir("/");
    command
}
