//! The real binary on a free port, with a data directory of its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sublet_testkit::postgres::PostgresServer;
use tempfile::TempDir;

use crate::http::{Answer, Ask};

/// How often something awaited is looked at, [`LOOK_PAUSE`] apart: sixty seconds.
pub const LOOKS_MAX: u32 = 3_000;
pub const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// What servers log unless a test says otherwise.
const LOG_FILTER: &str = "info,sqlx=warn";

/// Which database a scenario runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Database {
    Sqlite,
    Postgresql,
}

/// Where a cloud keeps what survives it.
pub struct Home {
    _temporary: Option<TempDir>,
    pub data_dir: PathBuf,
    pub database_url: Option<String>,
    /// Where contents of files are, if not in the data directory.
    pub files: Option<PathBuf>,
    /// What is logged.
    pub log_filter: &'static str,
    /// Whose currency the first organizations have, if not the default.
    pub currency: Option<&'static str>,
    /// How wrong the machine's clock is as this process sees it, in milliseconds.
    pub clock_skew_ms: i64,
    /// How long responses are kept, if not as long as usual.
    pub keep_responses_days: Option<u32>,
    /// Where Stripe is, if it is elsewhere.
    pub stripe: Option<String>,
    /// The description of a simulated fleet.
    pub fleet: Option<PathBuf>,
    /// More options of `sublet up`.
    pub options: &'static [&'static str],
}

impl Home {
    pub fn new(database: Database) -> Self {
        let temporary = tempfile::Builder::new().prefix("sublet-it-").tempdir().unwrap();
        let data_dir = temporary.path().join("data");
        let database_url = match database {
            Database::Sqlite => None,
            Database::Postgresql => Some(PostgresServer::shared().fresh_database()),
        };
        Self {
            _temporary: Some(temporary),
            data_dir,
            database_url,
            files: None,
            log_filter: LOG_FILTER,
            currency: None,
            clock_skew_ms: 0,
            keep_responses_days: None,
            stripe: None,
            fleet: None,
            options: &[],
        }
    }

    /// A directory that somebody else owns.
    pub fn at(data_dir: PathBuf) -> Self {
        Self {
            _temporary: None,
            data_dir,
            database_url: None,
            files: None,
            log_filter: LOG_FILTER,
            currency: None,
            clock_skew_ms: 0,
            keep_responses_days: None,
            stripe: None,
            fleet: None,
            options: &[],
        }
    }

    pub fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    /// `sublet up` for this home.
    pub fn up(&self, listen: &str) -> Command {
        let mut command = sublet();
        command.arg("up").arg("--data-dir").arg(&self.data_dir).args(["--listen", listen]).env("SUBLET_LOG", self.log_filter);
        if let Some(url) = &self.database_url {
            command.args(["--database", url]);
        }
        if let Some(files) = &self.files {
            command.arg("--files").arg(files);
        }
        if let Some(currency) = self.currency {
            command.args(["--currency", currency]);
        }
        if let Some(days) = self.keep_responses_days {
            command.args(["--keep-responses-days", &days.to_string()]);
        }
        if let Some(url) = &self.stripe {
            command.args(["--stripe-api", url]);
        }
        if let Some(fleet) = &self.fleet {
            command.arg("--fleet").arg(fleet);
        }
        command.args(self.options);
        if self.clock_skew_ms != 0 {
            command.env("SUBLET_TEST_CLOCK_SKEW_MS", self.clock_skew_ms.to_string());
        }
        command
    }

    pub fn start(self) -> Server {
        let child = spawn(&self);
        Server::begin(self, child)
    }
}

/// The binary, without what a person's shell may have set.
pub fn sublet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sublet"));
    for name in ["SUBLET_LISTEN", "SUBLET_DATABASE", "SUBLET_DATA_DIR", "SUBLET_URL", "SUBLET_LOG_FORMAT"] {
        command.env_remove(name);
    }
    command.env("SUBLET_LOG", LOG_FILTER).stdin(Stdio::null());
    command
}

fn spawn(home: &Home) -> Child {
    let log = File::options().create(true).append(true).open(home.log_path()).unwrap();
    home.up("127.0.0.1:0").stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// The keys and the model of `credentials.json`.
#[derive(Clone, Default, Debug)]
pub struct Credentials {
    pub operator: String,
    pub admin: String,
    pub project: String,
    pub model: String,
}

/// A running cloud; dropping it kills it.
pub struct Server {
    pub home: Home,
    child: Child,
    pub address: String,
    pub keys: Credentials,
}

impl Server {
    fn begin(home: Home, child: Child) -> Self {
        let mut server = Self { home, child, address: String::new(), keys: Credentials::default() };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        for _ in 0..LOOKS_MAX {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status}\n{}", self.log());
            }
            if self.read_credentials() && self.get("/readyz", "").is_ok_and(|answer| answer.status == 200) {
                return;
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        panic!("the server did not become ready\n{}", self.log());
    }

    fn read_credentials(&mut self) -> bool {
        let Ok(text) = std::fs::read_to_string(self.home.data_dir.join("credentials.json")) else { return false };
        let Ok(file) = serde_json::from_str::<Value>(&text) else { return false };
        let field = |name: &str| file[name].as_str().unwrap_or_default().to_owned();
        self.address = field("api_base").trim_start_matches("http://").trim_end_matches("/v1").to_owned();
        self.keys = Credentials {
            operator: field("operator_key"),
            admin: field("admin_key"),
            project: field("project_key"),
            model: field("model"),
        };
        true
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.log_path()).unwrap_or_default()
    }

    /// SIGKILL, as a power cut would end it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A new process on the same data.
    pub fn restart(&mut self) {
        self.child = spawn(&self.home);
        self.wait_until_ready();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let told = Command::new("kill").args(["-TERM", &self.process_id().to_string()]).status().unwrap();
        assert!(told.success());
    }

    /// The exit status, awaited for a bounded time.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the server to end", || self.child.try_wait().unwrap())
    }

    pub fn ask(&self, method: &'static str, path: &str) -> Ask {
        Ask::new(&self.address, method, path)
    }

    /// `key` may be empty.
    pub fn get(&self, path: &str, key: &str) -> std::io::Result<Answer> {
        let asked = self.ask("GET", path);
        if key.is_empty() { asked.send() } else { asked.key(key).send() }
    }

    pub fn post(&self, path: &str, key: &str, body: &Value) -> std::io::Result<Answer> {
        self.ask("POST", path).key(key).json(body).send()
    }

    #[track_caller]
    pub fn see(&self, path: &str, key: &str) -> Value {
        self.get(path, key).unwrap().good()
    }

    #[track_caller]
    pub fn make(&self, path: &str, key: &str, body: &Value) -> Value {
        self.post(path, key, body).unwrap().good()
    }

    /// The sample of a counter or gauge, without labels.
    pub fn figure(&self, name: &str) -> i64 {
        let page = self.get("/metrics", "").unwrap().text();
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name} is not in {page}"))
    }

    /// The project that the first key belongs to.
    pub fn project(&self) -> String {
        text(&self.see("/v1/account", &self.keys.project)["project"])
    }

    /// A new key of the first project.
    pub fn new_key(&self, name: &str) -> NewKey {
        let project = self.project();
        let made = self.make(&format!("/v1/organization/projects/{project}/api_keys"), &self.keys.admin, &json!({ "name": name }));
        NewKey { project, id: text(&made["id"]), secret: text(&made["value"]) }
    }

    /// Sets a key's limit over all time.
    pub fn limit_key(&self, key: &NewKey, amount: i128) {
        let path = format!("{}/spend_limits/total", key.path());
        let body = json!({ "amount": decimal(amount) });
        self.ask("PUT", &path).key(&self.keys.admin).json(&body).send().unwrap().good();
    }

    /// A lease of one CPU slot with a maximum cost.
    pub fn lease(&self, key: &str, notice: &str, extra: &Value) -> Value {
        let mut asked = json!({ "sku": "cpu", "units": 1, "notice": notice });
        merge(&mut asked, extra);
        let quote = self.make("/v1/quotes", key, &asked);
        self.make("/v1/leases", key, &json!({ "quote": quote["id"] }))
    }

    /// A shell script as a job on a lease.
    pub fn job(&self, key: &str, lease: &Value, script: &str) -> Value {
        self.make("/v1/jobs", key, &json!({ "lease": lease["id"], "command": ["sh", "-c", script] }))
    }

    /// The job when it has ended.
    pub fn ended_job(&self, key: &str, id: &Value) -> Value {
        let path = format!("/v1/jobs/{}", text(id));
        wait_for("the job to end", || {
            Some(self.see(&path, key)).filter(|job| matches!(job["status"].as_str(), Some("succeeded" | "failed" | "cancelled")))
        })
    }

    /// The books balance and nothing was set aside as unchargeable.
    #[track_caller]
    pub fn assert_books(&self) {
        let verified = self.see("/operator/v1/ledger/verify", &self.keys.operator);
        assert_eq!((&verified["balanced"], &verified["findings"]), (&json!(true), &json!([])), "{verified}");
        let quarantine = self.see("/operator/v1/quarantine", &self.keys.operator);
        assert_eq!(quarantine["data"], json!([]));
    }

    /// Waits until no request is in flight, all usage is settled and no money is held or in slices.
    pub fn wait_until_settled(&self) {
        wait_for("usage to settle and slices to return", || {
            let quiet = self.figure("sublet_requests_in_flight") == 0
                && self.figure("sublet_journal_unsettled_records") == 0
                && self.figure("sublet_held_nanos") == 0;
            let credits = self.see("/v1/organization/billing/credits", &self.keys.admin);
            (quiet && nanos(&credits["sliced"]) == 0 && nanos(&credits["held"]) == 0).then_some(())
        });
    }

    /// Every charge of the organization.
    pub fn charges(&self) -> Vec<Value> {
        self.pages("/v1/organization/billing/charges", &self.keys.admin)
    }

    /// Every object of a list.
    pub fn pages(&self, path: &str, key: &str) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let page = self.see(&format!("{path}?limit=100{after}"), key);
            all.extend(page["data"].as_array().unwrap().iter().cloned());
            if page["has_more"] != json!(true) {
                return all;
            }
            after = format!("&after={}", text(&page["last_id"]));
        }
        panic!("{path} has no end");
    }
}

/// Most pages of one list that a test reads.
const PAGES_MAX: u32 = 1_000;

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the server's process is at {ended:?}; its last lines:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// A key made by a test.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub project: String,
    pub id: String,
    pub secret: String,
}

impl NewKey {
    pub fn path(&self) -> String {
        format!("/v1/organization/projects/{}/api_keys/{}", self.project, self.id)
    }
}

/// Looks until there is something, a bounded number of times.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS_MAX {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    panic!("waited in vain for {what}");
}

/// A JSON string's text.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Money of the wire, in nano-units.
#[track_caller]
pub fn nanos(money: &Value) -> i128 {
    let amount = text(&money["amount"]);
    let (sign, digits) = amount.strip_prefix('-').map_or((1, amount.as_str()), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let nine: i128 = format!("{fraction:0<9}").parse().unwrap();
    sign * (whole.parse::<i128>().unwrap() * 1_000_000_000 + nine)
}

/// Nano-units as the wire writes them.
pub fn decimal(nanos: i128) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

pub fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.clone());
    }
}

/// True where the whole counts are asked for.
#[allow(clippy::disallowed_methods, reason = "the one place of these tests that reads the environment")]
pub fn full() -> bool {
    std::env::var("SUBLET_FULL").is_ok_and(|value| value == "1")
}

/// Seconds since some instant, to tell a slow run from a fast one; nothing is decided by it.
#[allow(clippy::disallowed_methods, reason = "the one place of these tests that reads the clock")]
pub fn stopwatch() -> impl Fn() -> Duration {
    let start = std::time::Instant::now();
    move || start.elapsed()
}

/// A seeded sequence, so that a failing round can be played again.
pub struct Sequence(pub u64);

impl Sequence {
    pub fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The shipped model's end token, which a bias of -100 keeps away: answers as long as asked.
pub fn never_end() -> Value {
    let config: Value = serde_json::from_str(include_str!("../../../../models/sublet-mini/generation_config.json")).unwrap();
    let ends = match &config["eos_token_id"] {
        Value::Array(ids) => ids.clone(),
        id => vec![id.clone()],
    };
    ends.iter().map(|id| (id.to_string(), json!(-100))).collect::<serde_json::Map<_, _>>().into()
}

/// A chat request of at most so many output tokens.
pub fn chat(model: &str, max_tokens: u32, extra: &Value) -> Value {
    let mut body = json!({
        "model": model,
        "messages": [{ "role": "user", "content": "What is Sublet?" }],
        "max_tokens": max_tokens,
        "seed": 7,
    });
    merge(&mut body, extra);
    body
}
