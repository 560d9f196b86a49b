//! A process with batches, and a line server that does what each line says.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sublet_cloud::batch::{BatchPorts, BatchStatement, Batches, NewBatch};
use sublet_cloud::file::{Files, NewFile, Upload};
use sublet_cloud::file_room::FileLimits;
use sublet_cloud::idempotency::Call;
use sublet_cloud::slice::GatewayPort;
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::{Access, Admission, SliceClosed, SliceRequest, SliceReturn, SliceTarget, SpendClass, TokenUsage};
use sublet_core::batch::{LineEnd, LineEndpoint, LineEstimate, LineName, LineRequest, LineServer};
use sublet_core::blob::{BlobStore, BlobWriter};
use sublet_core::engine::{
    EmbedRequest, EngineLoad, GenerateRequest, GenerationStream, ModelEngine, ModelInfo, PreparedPrompt, Prompt,
};
use sublet_core::file::FilePurpose;
use sublet_core::id::{BatchId, FileId, GatewayId};
use sublet_core::tier::ServiceTier;
use sublet_core::usage::{AnsweredLine, Measured, Outcome, SettleReport, UsageRecord, UsageSink};
use sublet_core::{BoxFuture, DurationMs, Error, ErrorCode, Nanos, Result, Scope, TokenCount};
use sublet_store::Store;
use sublet_store::batch::{self, Batch};
use sublet_store::batch_line::{self, Given, Try};
use sublet_testkit::database::MODEL;
use sublet_testkit::tenant::{actor, created};
use sublet_testkit::{MemoryBlobs, TestCloud};
use tokio::sync::Semaphore;

/// How long a test waits for what must happen soon; only a failing test waits that long.
pub const SOON: Duration = Duration::from_secs(30);
/// What one line costs: 10 tokens of input and 5 of output at the first prices.
pub const LINE_NANOS: i64 = 10 * 150 + 5 * 600;

/// Nothing better to do.
pub struct Idle;

impl ModelEngine for Idle {
    fn models(&self) -> Vec<ModelInfo> {
        Vec::new()
    }
    fn prepare(&self, _: &str, _: &Prompt) -> Result<PreparedPrompt> {
        Err(Error::internal("nothing is generated here"))
    }
    fn generate(&self, _: GenerateRequest) -> Result<GenerationStream> {
        Err(Error::internal("nothing is generated here"))
    }
    fn prepare_input(&self, _: &str, _: &Prompt) -> Result<PreparedPrompt> {
        Err(Error::internal("nothing is generated here"))
    }
    fn embed(&self, _: EmbedRequest) -> Result<GenerationStream> {
        Err(Error::internal("nothing is generated here"))
    }
    fn wake(&self) {}
    fn load(&self) -> EngineLoad {
        EngineLoad::default()
    }
}

/// A gateway's session that answers lines by their body's `do`, and settles their records at once or keeps them.
pub struct Lines {
    pub cloud: Cloud,
    pub port: GatewayPort,
    pub gateway: GatewayId,
    pub fence: i64,
    /// Every line that was served, with its attempt.
    pub served: Mutex<Vec<(String, u32)>>,
    /// Records that are durable and on their way.
    pub kept: Mutex<Vec<UsageRecord>>,
    pub at_once: AtomicUsize,
    pub at_once_most: AtomicUsize,
    /// How often a line was read before it ran.
    pub read: AtomicUsize,
    pub stalled: AtomicUsize,
    /// Lines that the limit of one end user still lets through.
    pub let_through: AtomicUsize,
    /// Opens for lines that wait at it, in the order in which they came.
    pub gate: Semaphore,
    /// Lines at the gate, by their batch.
    pub at_gate: Mutex<BTreeMap<BatchId, usize>>,
}

pub fn refused(code: ErrorCode) -> LineEnd {
    let error = Error::new(code, "as the line asked");
    LineEnd::Refused { status: code.status(), body: json!({ "error": { "code": code.as_str() } }).to_string(), error }
}

impl Lines {
    pub async fn start(cloud: &Cloud, gateway: &str) -> Arc<Self> {
        let gateway: GatewayId = gateway.parse().expect("an id");
        let fence = cloud.start_gateway(&gateway).await.expect("a session");
        let port = GatewayPort::new(cloud.clone(), gateway.clone());
        let (served, kept) = Default::default();
        Arc::new(Self {
            cloud: cloud.clone(),
            port,
            gateway,
            fence,
            served,
            kept,
            at_once: AtomicUsize::new(0),
            at_once_most: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            stalled: AtomicUsize::new(0),
            let_through: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            at_gate: Mutex::default(),
        })
    }

    /// The record of an answer, in a slice of its own.
    pub async fn record(&self, line: &LineRequest) -> Result<UsageRecord> {
        let key = line.access.key.clone();
        let amount = Nanos::new(LINE_NANOS + 10);
        let gateway = self.gateway.clone();
        let request = SliceRequest {
            gateway: gateway.clone(),
            fence: self.fence,
            key: key.clone(),
            class: SpendClass::default(),
            slice: SliceTarget::Open(self.cloud.ids().mint()),
            wanted: amount,
            least: amount,
            is_final: true,
        };
        let slice = self.port.grant_slice(request).await?.slice;
        let now = self.cloud.clock().now();
        Ok(UsageRecord {
            tier: ServiceTier::Default,
            request: line.request.clone(),
            attempt: line.attempt,
            gateway,
            fence: self.fence,
            slice,
            key,
            project: line.access.project.clone(),
            organization: line.access.organization.clone(),
            model: MODEL.to_owned(),
            route: line.endpoint.as_str().to_owned(),
            price_version: self.port.prices(&line.access, (MODEL, ServiceTier::Default), now)?.version.clone(),
            admitted_at: now,
            first_token_at: Some(now),
            finished_at: now,
            tokens: TokenUsage { input: TokenCount::new(10), cached_input: TokenCount::ZERO, output: TokenCount::new(5) },
            outcome: Outcome::Completed,
            measured: Measured::Engine,
            client_retry: 0,
            replica: None,
            purchases: Vec::new(),
            line: Some(AnsweredLine { name: line.name.clone(), answer: json!({ "attempt": line.attempt }).to_string() }),
        })
    }

    pub async fn settle(&self, record: &UsageRecord) -> SettleReport {
        self.cloud.settle(std::slice::from_ref(record)).await.expect("settled")
    }

    /// Settles a record and gives its slice back; says what came of it.
    pub async fn settle_and_return(&self, record: &UsageRecord) -> SettleReport {
        let report = self.settle(record).await;
        let returned = SliceReturn { slice: record.slice.clone(), fence: self.fence, records: 1 };
        let closed = self.port.return_slice(returned).await.expect("the slice is this session's");
        assert!(matches!(closed, SliceClosed::Released(_)), "a slice closes once its records are known");
        report
    }

    pub async fn act(&self, line: LineRequest, asked: &str) -> LineEnd {
        let number = line.name.number;
        let seen = {
            let mut served = self.served.lock().expect("served");
            served.push((format!("{asked}-{number}"), line.attempt));
            served.iter().filter(|(name, _)| *name == format!("{asked}-{number}")).count()
        };
        match asked {
            "wait" => std::future::pending().await,
            "gate" => self.pass_gate(&line.name.batch).await,
            "limited" if self.let_through.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() => {
                let error = Error::new(ErrorCode::RateLimitExceeded, "one end user asks too often");
                let error = error.retry_after(DurationMs::from_seconds(10)).bottleneck("rlim_1/user");
                LineEnd::Refused { status: 429, body: String::new(), error }
            }
            "limited" => LineEnd::Free { body: "{}".to_owned() },
            // PostgreSQL cannot store it.
            "unstorable" if seen == 1 => LineEnd::Free { body: "\"\0\"".to_owned() },
            "unstorable" => LineEnd::Free { body: "{}".to_owned() },
            "free" => LineEnd::Free { body: "{\"free\":true}".to_owned() },
            "refuse" => refused(ErrorCode::ContextLengthExceeded),
            "poor" if seen < 3 => refused(ErrorCode::InsufficientQuota),
            "broke" => refused(ErrorCode::InsufficientQuota),
            "busy" if seen < 3 => refused(ErrorCode::QueueFull),
            "shaky" if seen < 3 => refused(ErrorCode::UpstreamFailed),
            "down" => refused(ErrorCode::UpstreamTimeout),
            "unknown" if line.attempt == 1 => {
                let record = self.record(&line).await.expect("a record");
                self.kept.lock().expect("kept").push(record);
                LineEnd::Unknown
            }
            "keep" => {
                let record = self.record(&line).await.expect("a record");
                self.kept.lock().expect("kept").push(record);
                LineEnd::Recorded
            }
            _ => match self.record(&line).await {
                Ok(record) => {
                    assert_eq!(self.settle_and_return(&record).await.settled, 1);
                    LineEnd::Recorded
                }
                Err(error) => LineEnd::Refused { status: error.code().status(), body: "{}".to_owned(), error },
            },
        }
    }

    async fn pass_gate(&self, batch: &BatchId) -> LineEnd {
        *self.at_gate.lock().expect("the gate").entry(batch.clone()).or_default() += 1;
        self.gate.acquire().await.expect("a gate").forget();
        *self.at_gate.lock().expect("the gate").entry(batch.clone()).or_default() -= 1;
        LineEnd::Free { body: "{}".to_owned() }
    }

    /// Lines of a batch that are at the gate.
    pub fn at_gate(&self, batch: &BatchId) -> usize {
        self.at_gate.lock().expect("the gate").get(batch).copied().unwrap_or(0)
    }

    /// How often lines that ask for this were served.
    pub fn count(&self, asked: &str) -> usize {
        self.served.lock().expect("served").iter().filter(|(name, _)| name.split('-').next() == Some(asked)).count()
    }

    pub fn kept(&self) -> Vec<UsageRecord> {
        self.kept.lock().expect("kept").clone()
    }
}

impl LineServer for Lines {
    fn estimate(&self, _: Arc<Access>, _: LineEndpoint, body: Vec<u8>) -> BoxFuture<'_, Result<LineEstimate>> {
        Box::pin(async move {
            let body: Value = serde_json::from_slice(&body).expect("a body");
            self.read.fetch_add(1, Ordering::SeqCst);
            if body["do"] == json!("stall") && self.stalled.fetch_add(1, Ordering::SeqCst) == 0 {
                std::future::pending::<()>().await;
            }
            let (input, output_max) = (TokenCount::new(10), TokenCount::new(5));
            let answers = body["answers"].as_u64().map_or(1, |answers| u32::try_from(answers).expect("few"));
            Ok(LineEstimate { answers, input, output_max, least: Nanos::new(2_100), most: Nanos::new(LINE_NANOS) })
        })
    }
    fn serve(&self, line: LineRequest) -> BoxFuture<'_, LineEnd> {
        Box::pin(async move {
            let body: Value = serde_json::from_slice(&line.body).expect("a body");
            let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.at_once_most.fetch_max(at_once, Ordering::SeqCst);
            let asked = body["do"].as_str().expect("what to do").to_owned();
            let end = self.act(line, &asked).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            end
        })
    }
}

/// Contents of which the first one that is made durable comes just before the settling of an answer.
pub struct Outrun {
    pub blobs: Arc<MemoryBlobs>,
    pub store: Store,
    pub outruns: Arc<Mutex<Option<BatchId>>>,
}

pub struct OutrunWriter {
    pub writer: Box<dyn BlobWriter>,
    pub store: Store,
    pub outruns: Arc<Mutex<Option<BatchId>>>,
}

impl BlobStore for Outrun {
    fn home(&self) -> &str {
        self.blobs.home()
    }
    fn create(&self, id: &FileId) -> io::Result<Box<dyn BlobWriter>> {
        let writer = self.blobs.create(id)?;
        Ok(Box::new(OutrunWriter { writer, store: self.store.clone(), outruns: Arc::clone(&self.outruns) }))
    }
    fn read(&self, id: &FileId, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        self.blobs.read(id, offset, bytes_max)
    }
    fn remove(&self, id: &FileId) -> io::Result<()> {
        self.blobs.remove(id)
    }
    fn list(&self) -> io::Result<Vec<(FileId, DurationMs)>> {
        self.blobs.list()
    }
    fn sweep_unfinished(&self, idle: DurationMs) -> io::Result<u64> {
        self.blobs.sweep_unfinished(idle)
    }
}

impl BlobWriter for OutrunWriter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.append(bytes)
    }
    fn commit(self: Box<Self>) -> io::Result<()> {
        if let Some(id) = self.outruns.lock().expect("a batch").take() {
            tokio::runtime::Handle::current().block_on(answer_late(&self.store, &id));
        }
        self.writer.commit()
    }
}

/// One process's batches.
pub struct Process {
    pub batches: Batches,
    pub lines: Arc<Lines>,
    pub person: Actor,
}

impl Process {
    pub async fn start(cloud: &TestCloud, own: &Cloud, blobs: &Arc<MemoryBlobs>, gateway: &str) -> Self {
        let lines = Lines::start(own, gateway).await;
        Self::over(cloud, own, (Arc::<MemoryBlobs>::clone(blobs), lines), gateway).await
    }

    pub async fn over(cloud: &TestCloud, own: &Cloud, (blobs, lines): (Arc<dyn BlobStore>, Arc<Lines>), gateway: &str) -> Self {
        let files = Files::new(own.clone(), blobs, FileLimits::default());
        let ports = BatchPorts {
            files,
            lines: Arc::<Lines>::clone(&lines),
            engine: Arc::new(Idle),
            owner: gateway.parse().expect("an id"),
        };
        Self { batches: Batches::new(ports), lines, person: actor(own, &cloud.keys.project).await }
    }

    /// An upload that has begun.
    pub async fn begin(&self) -> Upload {
        let files = self.batches.files();
        let turn = files.admit(&Call::once(self.person.clone()), 0).await.expect("admitted");
        files.begin(turn).await.expect("begun")
    }

    pub async fn upload(&self, content: &[u8]) -> FileId {
        let files = self.batches.files();
        let mut upload = self.begin().await;
        upload.append(content).await.expect("taken");
        let stored = upload.commit().await.expect("durable");
        let new = NewFile { purpose: FilePurpose::Batch, filename: "lines.jsonl".to_owned(), expires_after: None };
        created(files.create(&Call::once(self.person.clone()), stored, &new, &|_| Ok(String::new())).await).id
    }

    /// The same process, for another project.
    pub async fn for_another(&self, cloud: &TestCloud) -> Self {
        let person = actor(&self.lines.cloud, &cloud.keys.internal).await;
        Self { batches: self.batches.clone(), lines: Arc::clone(&self.lines), person }
    }

    /// A batch whose lines do these things.
    pub async fn create(&self, deeds: &[&str]) -> BatchId {
        self.create_within("24h", deeds).await
    }

    /// The same with a time to end in. `free x8` asks for eight answers.
    pub async fn create_within(&self, window: &str, deeds: &[&str]) -> BatchId {
        let url = LineEndpoint::ChatCompletions;
        let line = |(n, deed): (usize, &&str)| {
            let (deed, answers) = deed.split_once(" x").unwrap_or((deed, "1"));
            let body = json!({ "do": deed, "answers": answers.parse::<u32>().expect("a number") });
            let line = json!({ "custom_id": format!("c{}", n + 1), "method": "POST", "url": url.as_str(), "body": body });
            format!("{line}\n")
        };
        let content: String = deeds.iter().enumerate().map(line).collect();
        let new = NewBatch {
            input_file: self.upload(content.as_bytes()).await,
            endpoint: url,
            completion_window: window.to_owned(),
            output_expires_after: None,
            metadata: BTreeMap::new(),
        };
        created(self.batches.create(&Call::once(self.person.clone()), &new, &|_| Ok(String::new())).await).batch.id
    }

    pub async fn see(&self, id: &BatchId) -> BatchStatement {
        self.batches.get(&self.person, id).await.expect("the batch")
    }

    /// Works until the condition holds.
    pub async fn work_until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let looking = async {
            while !holds().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = self.batches.run_reconciler(stopped) => panic!("the reconciler ended"),
            looked = tokio::time::timeout(SOON, looking) => looked.unwrap_or_else(|_| panic!("waited in vain for {what}")),
        }
    }

    pub async fn work_until_ended(&self, id: &BatchId) -> BatchStatement {
        self.work_until("the end", || async { self.see(id).await.batch.status.has_ended() }).await;
        self.see(id).await
    }

    pub async fn lines_of(&self, file: Option<FileId>) -> BTreeMap<String, Value> {
        let Some(id) = file else { return BTreeMap::new() };
        let files = self.batches.files();
        let file = files.get(&self.person, &id).await.expect("a file");
        let content = files.read(&file, 0, usize::MAX).await.expect("its content");
        let text = String::from_utf8(content).expect("text");
        let parse = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
        text.lines().map(parse).map(|line| (line["custom_id"].as_str().expect("an id").to_owned(), line)).collect()
    }

    pub async fn outputs(&self, statement: &BatchStatement) -> [BTreeMap<String, Value>; 2] {
        let batch = &statement.batch;
        [self.lines_of(batch.output_file.clone()).await, self.lines_of(batch.error_file.clone()).await]
    }
}

pub fn blobs(cloud: &TestCloud) -> Arc<MemoryBlobs> {
    Arc::new(MemoryBlobs::new("home", Arc::clone(cloud.cloud.clock())))
}

/// Answers an open line as a settlement does that began before the batch was sealed and ends after it.
pub async fn answer_late(store: &Store, id: &BatchId) {
    let written = store.write(id, |id, tx| {
        Box::pin(async move {
            let sealed = batch::get(tx, &Scope::Operator, id).await?;
            batch::save(tx, &Batch { sealed: false, ..sealed.clone() }).await?;
            for line in batch_line::open_after(tx, id, 0, 1).await? {
                let name = LineName { batch: BatchId::clone(id), number: line.number };
                let attempt = u32::try_from(sealed.generation).expect("an attempt");
                let by = Try { name: &name, request: &line.request, attempt };
                let given = Given { status: 200, body: "{}", tokens: TokenUsage::default() };
                assert!(batch_line::answer(tx, &by, &given).await?, "the line is open");
            }
            batch::save(tx, &sealed).await
        })
    });
    written.await.expect("written");
}

/// What the project's organization was charged in all.
pub async fn charged(cloud: &TestCloud) -> i64 {
    let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
    let organization = admin.organization().expect("its organization").clone();
    cloud.cloud.credit_balance(&admin, &organization).await.expect("a balance").funds.captured.get()
}
