//! Two processes on one PostgreSQL, many streams and one dollar, while processes are killed, clocks are wrong and the
//! database goes away and comes back.
//!
//! Every client keeps 256 streams open (24 where the whole count is not asked for). Most are answered by a scripted
//! server on the loopback address, at a pace that keeps all of them open at once on two cores; the others by the
//! embedded model, whose holds grow while it writes. One process has the right time; the other's machine is wrong by
//! another amount after each of its starts, by seconds and by more than anything here lives.

mod books;
mod clients;
mod upstream;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use sublet_testkit::postgres::PostgresServer;

use crate::remote;
use crate::server::{Database, Home, NewKey, Sequence, Server, decimal, full, nanos, stopwatch, text, wait_for};
use crate::two::beside_with_clock;
use books::{Looks, Unpromised, Watcher, millis_of};
use clients::{Fate, Load, Record, Storm};
use upstream::Upstream;

const SEED: u64 = 20_261;
/// One dollar, in nano-units.
const LIMIT: i128 = 1_000_000_000;
/// How much of it the storm uses before it ends.
const USED_UP_PERCENT: i128 = 96;
/// A refusal is false while more than this is left beyond holds, live slices and suspense: five percent.
const ENOUGH: i128 = LIMIT / 20;
const FAR_MODEL: &str = "elsewhere/steady";
/// How wrong the second machine's clock is after each of its starts, in milliseconds.
const SKEWS_MS: [i64; 4] = [40_000, -40_000, 7_200_000, -86_400_000];
/// An entry of the ledger bears the instant at which its transaction began, and a refusal that of its request.
const STAMP_MS: i64 = 250;
/// How far the clocks of two processes may differ.
const CLOCKS_APART_MS: i64 = 500;
/// After the database is back, connections are made again with the next request.
const BACK_GRACE: Duration = Duration::from_secs(1);

/// How long the database is away: longer than a request waits for it, so that some are told.
const OUTAGE: Duration = Duration::from_secs(7);

/// How large and how long.
struct Plan {
    load: Load,
    /// Between two words of the server elsewhere.
    pace: Duration,
    script: Script,
    /// Nano-units of a million output tokens elsewhere.
    price: i128,
}

/// What happens to the processes and the database.
struct Script {
    kills: u32,
    /// Between two disasters, at least and at most, in milliseconds.
    calm_ms: (u64, u64),
    outage: Duration,
}

fn plan() -> Plan {
    let load = Load {
        clients: 8,
        streams_each: 24,
        embedded_each: 4,
        far_tokens: 8,
        embedded_tokens: 24,
        refused_pause: Duration::from_millis(500),
    };
    if full() {
        let load = Load { streams_each: 256, embedded_each: 16, refused_pause: Duration::from_secs(3), ..load };
        let script = Script { kills: 6, calm_ms: (4_000, 8_000), outage: OUTAGE };
        return Plan { load, pace: Duration::from_secs(1), script, price: 16_000_000_000 };
    }
    let script = Script { kills: 3, calm_ms: (1_000, 2_500), outage: OUTAGE };
    Plan { load, pace: Duration::from_millis(200), script, price: 180_000_000_000 }
}

#[test]
fn a_dollar_is_never_exceeded_by_two_processes_in_a_storm() {
    let plan = plan();
    let database = PostgresServer::alone();
    let mut home = Home::new(Database::Sqlite);
    (home.database_url, home.currency) = (Some(database.fresh_database()), Some("USD"));
    let first = home.start();
    let upstream = Upstream::start(plan.pace);
    remote::offer(&first, FAR_MODEL, &upstream.base_url, &json!({ "max_in_flight": 100_000 }));
    set_prices(&first, plan.price);
    let key = first.new_key("storm");
    first.limit_key(&key, LIMIT);
    let second = beside_with_clock(&first, SKEWS_MS[0]);
    let mut servers = [first, second];
    let elapsed = stopwatch();
    let storm = Storm {
        load: plan.load,
        addresses: [0, 1].map(|process: usize| RwLock::new(servers[process].address.clone())),
        key: key.secret.clone(),
        embedded_model: servers[0].keys.model.clone(),
        far_model: FAR_MODEL,
        running: AtomicBool::new(true),
        may_go_on: Arc::clone(&upstream.may_go_on),
        open: AtomicUsize::new(0),
        open_most: AtomicUsize::new(0),
        records: Mutex::default(),
        elapsed: &elapsed,
    };
    let admin = servers[0].keys.admin.clone();
    let watcher = Watcher { storm: &storm, admin, key: key.clone(), limit: LIMIT };
    let mut past = Past::default();
    let looks = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watcher.watch());
        storm.begin(scope);
        let _end = EndOfStorm(&storm);
        disasters(&plan.script, &database, &mut servers, &storm, &mut past);
        wait_for("the dollar to be used up", || (spent_of(&servers[0], &key) * 100 >= LIMIT * USED_UP_PERCENT).then_some(()));
        storm.running.store(false, Ordering::Relaxed);
        watch.join().expect("the limit holds at each look")
    });
    let took = elapsed();
    for server in &servers {
        server.wait_until_settled();
        past.figures.add(server);
    }
    let records = storm.records.lock().unwrap().clone();
    let (spent, charged) = assert_spend_is_one_number(&servers[0], &key, &records);
    let url = servers[0].home.database_url.clone().expect("it is on PostgreSQL");
    assert_eq!(database.usage_events(&url), (charged, spent), "the usage events are what was charged");
    let unpromised = Unpromised::of(&servers[0], &key, (LIMIT, &database.entry_commits(&url)));
    assert_eq!(unpromised.last(), LIMIT - spent, "every slice came back but for what was spent");
    assert_clocks_agree(&records);
    let refused = assert_no_refusal_was_false(&records, &past, &unpromised);
    past.tell(&storm, &looks, took);
    eprintln!("refusals {refused:?}, {spent} of {LIMIT} nano-units spent, {} instants of the books", unpromised.entries());
}

/// Ends the clients' loops even if a disaster's assertion fails.
struct EndOfStorm<'a>(&'a Storm<'a>);

impl Drop for EndOfStorm<'_> {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Relaxed);
        if std::thread::panicking() {
            self.0.tell();
        }
    }
}

/// Prices that the dollar lasts for most of the storm, and not for all of it. The embedded model answers faster and
/// costs a tenth. Input is cheap: of a prompt that a server elsewhere will count, the most that it can be is held.
fn set_prices(server: &Server, output: i128) {
    let operator = &server.keys.operator;
    let list = server.see("/operator/v1/price_lists", operator)["data"][0].clone();
    let list = server.see(&format!("/operator/v1/price_lists/{}", text(&list["version"])), operator);
    let devices = list["prices"].as_array().unwrap().iter().filter(|price| price["subject"]["kind"] != json!("model"));
    let mut prices: Vec<Value> = devices.cloned().collect();
    for (model, output) in [(FAR_MODEL, output), (server.keys.model.as_str(), output / 10)] {
        for (meter, amount) in [("input_tokens", output / 120), ("cached_input_tokens", output / 240), ("output_tokens", output)] {
            let subject = json!({ "kind": "model", "name": model });
            prices.push(json!({ "subject": subject, "meter": meter, "amount": decimal(amount), "per": 1_000_000 }));
        }
    }
    server.make("/operator/v1/price_lists", operator, &json!({ "name": list["name"], "currency": "USD", "prices": prices }));
}

/// What is settled of the dollar.
fn spent_of(server: &Server, key: &NewKey) -> i128 {
    nanos(&server.see(&format!("{}/spend_limits", key.path()), &server.keys.admin)["data"][0]["spent"])
}

/// What happened to the processes and the database, with instants since the start of the storm.
#[derive(Default)]
struct Past {
    kills: Vec<(usize, Duration)>,
    /// From the end of the database to the start of the next one.
    outage: Option<(Duration, Duration)>,
    figures: Figures,
    /// Grants that ended in the outage.
    in_outage: Figures,
}

fn disasters(script: &Script, database: &PostgresServer, servers: &mut [Server; 2], storm: &Storm<'_>, past: &mut Past) {
    wait_for("all streams to be open", || (storm.open.load(Ordering::Relaxed) == storm.load.streams()).then_some(()));
    storm.may_go_on.store(true, Ordering::Relaxed);
    let mut moments = Sequence(SEED);
    let mut skews = SKEWS_MS.iter().cycle().skip(1);
    for number in 0..script.kills {
        storm.pass(calm(script, &mut moments));
        // Early: on a slow machine the dollar is used up while processes start again, and then nobody asks the database.
        if number == 1 {
            let before = Figures::of(servers);
            outage(script, database, servers, storm, past);
            past.in_outage = Figures::of(servers).since(&before);
            storm.pass(calm(script, &mut moments));
        }
        // The second first: its clock is the wrong one.
        let victim = usize::from(number % 2 == 0);
        past.figures.add(&servers[victim]);
        past.kills.push((victim, (storm.elapsed)()));
        servers[victim].kill();
        if victim == 1 {
            servers[1].home.clock_skew_ms = *skews.next().expect("a cycle has no end");
        }
        servers[victim].restart();
        storm.addresses[victim].write().unwrap().clone_from(&servers[victim].address);
    }
    storm.pass(calm(script, &mut moments));
}

/// How long nothing happens.
fn calm(script: &Script, moments: &mut Sequence) -> Duration {
    let (least, most) = script.calm_ms;
    Duration::from_millis(least + moments.below(most - least))
}

/// The database ends as in a crash and comes back after a while. Both processes live on, and serve again.
fn outage(script: &Script, database: &PostgresServer, servers: &[Server; 2], storm: &Storm<'_>, past: &mut Past) {
    let processes = [0, 1].map(|process: usize| servers[process].process_id());
    let began = (storm.elapsed)();
    database.crash();
    storm.pass(script.outage);
    wait_for("somebody to be told that the database is away", || {
        let records = storm.records.lock().unwrap();
        records.iter().rev().any(|record| record.ended >= began && is_store_away(&record.fate)).then_some(())
    });
    database.start_again();
    let ended = (storm.elapsed)();
    past.outage = Some((began, ended));
    for process in [0, 1] {
        wait_for("a process to be granted money again", || {
            let records = storm.records.lock().unwrap();
            let mut since = records.iter().filter(|record| record.process == process && record.sent >= ended);
            since.any(|record| matches!(&record.fate, Fate::Finished { .. }) || is_out_of_money(&record.fate)).then_some(())
        });
        assert_eq!(servers[process].process_id(), processes[process]);
    }
}

fn is_store_away(fate: &Fate) -> bool {
    matches!(fate, Fate::Refused { status: 503, code, retry_after: true, .. } if code == "store_unavailable")
}

fn is_out_of_money(fate: &Fate) -> bool {
    matches!(fate, Fate::Refused { status: 429, code, .. } if code == "insufficient_quota")
}

/// What the limit says was spent is the sum of the charges and of the invoice, and what the ledger captured;
/// what clients saw whole was charged once, as they saw it; nothing is held, sliced or in suspense. Answers what was
/// spent, in nano-units, and on how many requests.
fn assert_spend_is_one_number(server: &Server, key: &NewKey, records: &[Record]) -> (i128, i128) {
    server.assert_books();
    let limit = server.see(&format!("{}/spend_limits", key.path()), &server.keys.admin)["data"][0].clone();
    assert_eq!(nanos(&limit["held"]), 0, "{limit}");
    let spent = nanos(&limit["spent"]);
    let mut charged: BTreeMap<String, i128> = BTreeMap::new();
    let mut output: BTreeMap<String, u64> = BTreeMap::new();
    for charge in server.charges() {
        let request = text(&charge["request"]);
        *charged.entry(request.clone()).or_default() += nanos(&charge["amount"]);
        if charge["meter"] == json!("output_tokens") {
            assert_eq!(output.insert(request, charge["quantity"].as_u64().unwrap()), None, "charged twice: {charge}");
        }
    }
    assert_eq!(charged.values().sum::<i128>(), spent, "the charges");
    let invoice = server.make("/v1/organization/billing/invoices", &server.keys.admin, &json!({}));
    assert_eq!(nanos(&invoice["subtotal"]), spent, "{invoice}");
    let credits = server.see("/v1/organization/billing/credits", &server.keys.admin);
    assert_eq!(["captured", "sliced", "held", "suspense"].map(|part| nanos(&credits[part])), [spent, 0, 0, 0], "{credits}");
    let mut seen = BTreeMap::new();
    for record in records {
        if let Fate::Finished { output, cut } = record.fate {
            assert!(cut || output > 0, "nothing came, and nobody said why: {record:?}");
            assert_eq!(seen.insert(record.id.clone(), output), None, "one id for two requests: {record:?}");
        }
    }
    // What has no output is free.
    let wrong = seen.iter().find(|(id, tokens)| output.get(*id).copied().unwrap_or(0) != **tokens);
    assert_eq!(wrong, None, "a client saw it whole, and it is charged otherwise");
    (spent, i128::try_from(charged.len()).unwrap())
}

/// Every identifier bears an instant between the request and the answer, whatever its machine's clock says: there is
/// one distance between the identifiers' clock and ours that explains all of them.
fn assert_clocks_agree(records: &[Record]) {
    let millis = |elapsed: Duration| i64::try_from(elapsed.as_millis()).unwrap();
    let (mut least, mut most) = (i64::MIN, i64::MAX);
    for record in records {
        let at = millis_of(&record.id);
        (least, most) = (least.max(at - millis(record.ended)), most.min(at - millis(record.sent)));
    }
    assert!(least <= most + CLOCKS_APART_MS, "identifiers of two clocks {} ms apart", least - most);
}

/// Every answer that was not given, by why; each for a reason that the books, the database or a kill explains.
fn assert_no_refusal_was_false(records: &[Record], past: &Past, unpromised: &Unpromised) -> BTreeMap<String, u32> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let mut while_away = 0;
    for record in records {
        let is_away = past.outage.is_some_and(|(began, ended)| record.sent <= ended + BACK_GRACE && record.ended >= began);
        let why = match &record.fate {
            Fate::Finished { cut: false, .. } => continue,
            Fate::Finished { cut: true, .. } => {
                assert_money_was_short(record, unpromised);
                "cut by the budget".to_owned()
            }
            Fate::Refused { message, .. } if is_out_of_money(&record.fate) => {
                assert!(left_in(message) <= ENOUGH, "refused with that much left: {record:?}");
                assert_money_was_short(record, unpromised);
                "out of money".to_owned()
            }
            Fate::Refused { .. } if is_store_away(&record.fate) && is_away => {
                while_away += 1;
                "the database is away".to_owned()
            }
            Fate::Failed(code) if code == "store_unavailable" && is_away => "the database went away".to_owned(),
            Fate::Broken => {
                let killed =
                    |(process, at): &(usize, Duration)| *process == record.process && record.sent <= *at && record.ended >= *at;
                assert!(past.kills.iter().any(killed), "broken though nobody killed its process: {record:?}");
                "broken by a kill".to_owned()
            }
            Fate::Refused { .. } | Fate::Failed(_) => panic!("refused without a reason: {record:?}\n{:?}", past.outage),
        };
        *counts.entry(why).or_default() += 1;
    }
    assert!(while_away > 0, "the database was away and nobody was told: {counts:?}");
    counts
}

/// At some instant between the request and its refusal no more than [`ENOUGH`] was left beyond what was promised.
fn assert_money_was_short(record: &Record, unpromised: &Unpromised) {
    let from = millis_of(&record.id);
    let took = i64::try_from((record.ended - record.sent).as_millis()).unwrap();
    let least = unpromised.least(from - STAMP_MS, from + took + STAMP_MS);
    assert!(least <= ENOUGH, "a false refusal: never less than {least} was left meanwhile: {record:?}");
}

/// What a refusal says is left, in nano-units.
fn left_in(message: &str) -> i128 {
    let left = message.split(" needed, ").nth(1).and_then(|rest| rest.split(" left").next());
    nanos(&json!({ "amount": left.unwrap_or_else(|| panic!("no amount in: {message}")) }))
}

/// Figures of all lives of both processes.
#[derive(Default)]
struct Figures {
    transactions: i64,
    repetitions: i64,
    attempts_max: i64,
    requests: i64,
    /// Grants of at most so many milliseconds; the last has no bound.
    grants: BTreeMap<u64, i64>,
}

impl Figures {
    fn of(servers: &[Server; 2]) -> Self {
        let mut figures = Self::default();
        servers.iter().for_each(|server| figures.add(server));
        figures
    }

    /// The grants that are in these figures and not in those.
    fn since(&self, before: &Self) -> Self {
        let known = |bound: &u64| before.grants.get(bound).copied().unwrap_or(0);
        Self { grants: self.grants.iter().map(|(bound, count)| (*bound, count - known(bound))).collect(), ..Self::default() }
    }

    /// Takes in what a process has counted in this life.
    fn add(&mut self, server: &Server) {
        self.transactions += server.figure("sublet_store_transactions_total");
        self.repetitions += server.figure("sublet_store_repetitions_total");
        self.attempts_max = self.attempts_max.max(server.figure("sublet_store_attempts_max"));
        let page = server.get("/metrics", "").unwrap().text();
        let number = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<i64>().ok()).unwrap();
        for line in page.lines() {
            if line.starts_with("sublet_requests_total{") {
                self.requests += number(line);
            }
            if let Some(rest) = line.strip_prefix("sublet_grant_milliseconds_bucket{le=\"") {
                let bound = rest.split('"').next().and_then(|bound| bound.parse().ok()).unwrap_or(u64::MAX);
                *self.grants.entry(bound).or_default() += number(line);
            }
        }
    }

    /// The bound that so many of a hundred grants kept.
    fn grant_ms(&self, percent: i64) -> u64 {
        let all = self.grants.values().max().copied().unwrap_or(0);
        self.grants.iter().find(|(_, count)| **count * 100 >= all * percent).map_or(u64::MAX, |(bound, _)| *bound)
    }
}

impl Past {
    fn tell(&self, storm: &Storm<'_>, looks: &Looks, took: Duration) {
        let Figures { transactions, repetitions, attempts_max, requests, .. } = &self.figures;
        let asked = storm.records.lock().unwrap().len();
        eprintln!("count: streams open at once at two processes = {}", storm.open_most.load(Ordering::Relaxed));
        eprintln!("count: processes killed in the storm = {}", self.kills.len());
        eprintln!("count: looks at the dollar meanwhile = {}", looks.count);
        eprintln!("seed {SEED}: {asked} requests ended, {requests} were charged, in {took:?}; at most {} in use", looks.most);
        eprintln!("{transactions} transactions begun, {repetitions} of them again, one write {attempts_max} times at most");
        for (when, figures) in [("in the outage", &self.in_outage), ("else", &self.figures.since(&self.in_outage))] {
            let [half, most, nearly_all] = [50, 95, 99].map(|percent| figures.grant_ms(percent));
            let grants = figures.grants.values().max().copied().unwrap_or(0);
            eprintln!("{when} {grants} grants; 50 % within {half} ms, 95 % within {most} ms, 99 % within {nearly_all} ms");
        }
    }
}
