//! The clients: each keeps many streams open, at one of the two processes, and writes down how every one ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Ask, Opened};
use crate::server::{chat, merge, never_end, wait_for};

/// What one thread of a client needs for its stack, in bytes.
const STACK_BYTES: usize = 256 * 1024;
/// Most requests of one stream's place.
const REQUESTS_MAX: u32 = 100_000;
/// Pause after a connection was refused: the process is on its way back.
const GONE_PAUSE: Duration = Duration::from_millis(200);

/// What clients do, and how large it is.
pub struct Load {
    pub clients: usize,
    pub streams_each: usize,
    /// Of those, how many are answered by the embedded model.
    pub embedded_each: usize,
    pub far_tokens: u32,
    pub embedded_tokens: u32,
    /// After a refusal: as long as a client that read the error would wait at least.
    pub refused_pause: Duration,
}

impl Load {
    pub fn streams(&self) -> usize {
        self.clients * self.streams_each
    }
}

/// How a request ended for its client.
#[derive(Clone, Debug)]
pub enum Fate {
    /// With `[DONE]`: the tokens its usage names, and whether the budget cut it.
    Finished { output: u64, cut: bool },
    /// Before its first byte.
    Refused { status: u16, code: String, message: String, retry_after: bool },
    /// An error in the stream, with its code.
    Failed(String),
    /// The connection broke after the answer had begun.
    Broken,
}

/// One request, with instants since the start of the storm.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: String,
    pub process: usize,
    pub sent: Duration,
    pub ended: Duration,
    pub fate: Fate,
}

/// What everybody in the storm shares.
pub struct Storm<'a> {
    pub load: Load,
    pub addresses: [RwLock<String>; 2],
    pub key: String,
    pub embedded_model: String,
    pub far_model: &'static str,
    pub running: AtomicBool,
    pub may_go_on: Arc<AtomicBool>,
    pub open: AtomicUsize,
    pub open_most: AtomicUsize,
    pub records: Mutex<Vec<Record>>,
    /// Since the start of the storm.
    pub elapsed: &'a (dyn Fn() -> Duration + Sync),
}

impl Storm<'_> {
    pub fn address(&self, process: usize) -> String {
        self.addresses[process].read().unwrap().clone()
    }

    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// What became of the requests so far, for whoever reads a failure.
    pub fn tell(&self) {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for record in self.records.lock().unwrap().iter() {
            let fate = match &record.fate {
                Fate::Refused { status, code, .. } => format!("refused with {status} {code}"),
                Fate::Finished { cut, .. } => format!("finished, cut {cut}"),
                other => format!("{other:?}"),
            };
            if let Fate::Refused { message, .. } = &record.fate
                && !counts.contains_key(&format!("process {}: {fate}", record.process))
            {
                eprintln!("the first of process {}, {:?} to {:?}: {message}", record.process, record.sent, record.ended);
            }
            *counts.entry(format!("process {}: {fate}", record.process)).or_default() += 1;
        }
        let (open, most) = (self.open.load(Ordering::Relaxed), self.open_most.load(Ordering::Relaxed));
        eprintln!("{open} streams open, {most} at most; {counts:#?}");
    }

    /// Returns when so much of the storm has passed.
    pub fn pass(&self, pause: Duration) {
        let until = (self.elapsed)() + pause;
        wait_for("a while to pass", || ((self.elapsed)() >= until || !self.is_running()).then_some(()));
    }

    /// Starts every stream of every client in a scope; they end soon after `running` turns false.
    pub fn begin<'scope>(&'scope self, scope: &'scope std::thread::Scope<'scope, '_>) {
        for client in 0..self.load.clients {
            for place in 0..self.load.streams_each {
                let is_embedded = place < self.load.embedded_each;
                let builder = std::thread::Builder::new().name(format!("client-{client}-{place}")).stack_size(STACK_BYTES);
                builder.spawn_scoped(scope, move || self.keep_asking(client % 2, is_embedded)).unwrap();
            }
        }
    }

    fn keep_asking(&self, process: usize, is_embedded: bool) {
        let (model, tokens) = match is_embedded {
            true => (self.embedded_model.as_str(), self.load.embedded_tokens),
            false => (self.far_model, self.load.far_tokens),
        };
        let mut body = chat(model, tokens, &json!({ "stream": true, "stream_options": { "include_usage": true } }));
        if is_embedded {
            merge(&mut body, &json!({ "logit_bias": never_end() }));
        }
        for _ in 0..REQUESTS_MAX {
            if !self.is_running() {
                return;
            }
            let Some(record) = self.ask(process, &body) else {
                self.pass(GONE_PAUSE);
                continue;
            };
            let is_refused = matches!(record.fate, Fate::Refused { .. });
            self.records.lock().unwrap().push(record);
            if is_refused {
                self.pass(self.load.refused_pause);
            }
        }
    }

    /// One request; `None` if the process is not there.
    fn ask(&self, process: usize, body: &Value) -> Option<Record> {
        let sent = (self.elapsed)();
        let asked = Ask::new(&self.address(process), "POST", "/v1/chat/completions").key(&self.key).json(body);
        let opened = asked.open().ok()?;
        let id = opened.headers.iter().find(|(name, _)| name == "x-request-id").expect("every answer has an id").1.clone();
        let fate = match opened.status {
            200 => self.read(opened),
            _ => refusal(opened),
        };
        Some(Record { id, process, sent, ended: (self.elapsed)(), fate })
    }

    fn read(&self, opened: Opened) -> Fate {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.open_most.fetch_max(open, Ordering::Relaxed);
        // The first streams of all wait for each other, so that all of them are open at once.
        wait_for("all streams to be open", || (self.may_go_on.load(Ordering::Relaxed) || !self.is_running()).then_some(()));
        let fate = read_stream(opened);
        self.open.fetch_sub(1, Ordering::Relaxed);
        fate
    }
}

fn refusal(opened: Opened) -> Fate {
    let (status, retry_after) = (opened.status, opened.headers.iter().any(|(name, _)| name == "retry-after"));
    let Ok(text) = opened.text() else { return Fate::Broken };
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {status}: {text}"));
    let field = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    Fate::Refused { status, code: field("code"), message: field("message"), retry_after }
}

fn read_stream(opened: Opened) -> Fate {
    let (mut output, mut cut) = (0, false);
    for event in opened.events() {
        let Ok(event) = event else { return Fate::Broken };
        if event == "[DONE]" {
            return Fate::Finished { output, cut };
        }
        // A process that was killed may leave half a line.
        let Ok(chunk) = serde_json::from_str::<Value>(&event) else { return Fate::Broken };
        if let Some(code) = chunk["error"]["code"].as_str() {
            return Fate::Failed(code.to_owned());
        }
        output = chunk["usage"]["completion_tokens"].as_u64().unwrap_or(output);
        cut |= chunk["sublet_stop"] == json!("budget");
    }
    Fate::Broken
}
