//! Batches on both databases, with a line server that does what each line says: what settles, what is
//! superseded, who may claim, and what a crash leaves.
#![cfg(test)]

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sublet_cloud::batch::{BatchPorts, BatchStatement, Batches, NewBatch};
use sublet_cloud::file::{Files, NewFile};
use sublet_cloud::idempotency::Call;
use sublet_cloud::slice::GatewayPort;
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::{Access, Admission, SliceClosed, SliceRequest, SliceReturn, TokenUsage};
use sublet_core::batch::{BatchStatus, LineEnd, LineEndpoint, LineEstimate, LineName, LineRequest, LineServer};
use sublet_core::blob::{BlobStore, BlobWriter};
use sublet_core::engine::{EngineLoad, GenerateRequest, GenerationStream, ModelEngine, ModelInfo, PreparedPrompt, Prompt};
use sublet_core::file::FilePurpose;
use sublet_core::id::{BatchId, FileId, GatewayId};
use sublet_core::usage::{AnsweredLine, Measured, Outcome, SettleReport, UsageRecord, UsageSink};
use sublet_core::{BoxFuture, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp, TokenCount};
use sublet_store::batch::{self, Batch};
use sublet_store::batch_line::{self, Given, Try};
use sublet_store::file::File;
use sublet_store::{PageRequest, Store};
use sublet_testkit::database::MODEL;
use sublet_testkit::tenant::{actor, created};
use sublet_testkit::{MemoryBlobs, TestCloud, on_both_databases};

/// How long a test waits for what must happen soon; only a failing test waits that long.
const SOON: Duration = Duration::from_secs(30);
/// What one line costs: 10 tokens of input and 5 of output at the first prices.
const LINE_NANOS: i64 = 10 * 150 + 5 * 600;

/// Nothing better to do.
struct Idle;

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
    fn wake(&self) {}
    fn load(&self) -> EngineLoad {
        EngineLoad::default()
    }
}

/// A gateway's session that answers lines by their body's `do`, and settles their records at once or keeps them.
struct Lines {
    cloud: Cloud,
    port: GatewayPort,
    gateway: GatewayId,
    fence: i64,
    /// Every line that was served, with its attempt.
    served: Mutex<Vec<(String, u32)>>,
    /// Records that are durable and on their way.
    kept: Mutex<Vec<UsageRecord>>,
    at_once: AtomicUsize,
    at_once_most: AtomicUsize,
    /// How often a line was read before it ran.
    read: AtomicUsize,
    stalled: AtomicUsize,
}

fn refused(code: ErrorCode) -> LineEnd {
    let error = Error::new(code, "as the line asked");
    LineEnd::Refused { status: code.status(), body: json!({ "error": { "code": code.as_str() } }).to_string(), error }
}

impl Lines {
    async fn start(cloud: &Cloud, gateway: &str) -> Arc<Self> {
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
        })
    }

    /// The record of an answer, in a slice of its own.
    async fn record(&self, line: &LineRequest) -> Result<UsageRecord> {
        let key = line.access.key.clone();
        let amount = Nanos::new(LINE_NANOS + 10);
        let gateway = self.gateway.clone();
        let request = SliceRequest {
            gateway: gateway.clone(),
            fence: self.fence,
            key: key.clone(),
            extend: None,
            wanted: amount,
            least: amount,
        };
        let slice = self.port.grant_slice(request).await?.slice;
        let now = self.cloud.clock().now();
        Ok(UsageRecord {
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
            price_version: self.port.prices(&line.access, MODEL)?.version.clone(),
            admitted_at: now,
            first_token_at: Some(now),
            finished_at: now,
            tokens: TokenUsage { input: TokenCount::new(10), cached_input: TokenCount::ZERO, output: TokenCount::new(5) },
            outcome: Outcome::Completed,
            measured: Measured::Engine,
            client_retry: 0,
            replica: None,
            line: Some(AnsweredLine { name: line.name.clone(), answer: json!({ "attempt": line.attempt }).to_string() }),
        })
    }

    async fn settle(&self, record: &UsageRecord) -> SettleReport {
        self.cloud.settle(std::slice::from_ref(record)).await.expect("settled")
    }

    /// Settles a record and gives its slice back; says what came of it.
    async fn settle_and_return(&self, record: &UsageRecord) -> SettleReport {
        let report = self.settle(record).await;
        let returned = SliceReturn { slice: record.slice.clone(), fence: self.fence, records: 1 };
        let closed = self.port.return_slice(returned).await.expect("the slice is this session's");
        assert!(matches!(closed, SliceClosed::Released(_)), "a slice closes once its records are known");
        report
    }

    async fn act(&self, line: LineRequest, asked: &str) -> LineEnd {
        let number = line.name.number;
        let seen = {
            let mut served = self.served.lock().expect("served");
            served.push((format!("{asked}-{number}"), line.attempt));
            served.iter().filter(|(name, _)| *name == format!("{asked}-{number}")).count()
        };
        match asked {
            "wait" => std::future::pending().await,
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

    fn kept(&self) -> Vec<UsageRecord> {
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
            Ok(LineEstimate { input, output_max, least: Nanos::new(2_100), most: Nanos::new(LINE_NANOS) })
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
struct Outrun {
    blobs: Arc<MemoryBlobs>,
    store: Store,
    outruns: Arc<Mutex<Option<BatchId>>>,
}

struct OutrunWriter {
    writer: Box<dyn BlobWriter>,
    store: Store,
    outruns: Arc<Mutex<Option<BatchId>>>,
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
    fn list(&self) -> io::Result<Vec<(FileId, Timestamp)>> {
        self.blobs.list()
    }
    fn sweep_unfinished(&self, before: Timestamp) -> io::Result<u64> {
        self.blobs.sweep_unfinished(before)
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
struct Process {
    batches: Batches,
    lines: Arc<Lines>,
    person: Actor,
}

impl Process {
    async fn start(cloud: &TestCloud, own: &Cloud, blobs: &Arc<MemoryBlobs>, gateway: &str) -> Self {
        let lines = Lines::start(own, gateway).await;
        Self::over(cloud, own, (Arc::<MemoryBlobs>::clone(blobs), lines), gateway).await
    }

    async fn over(cloud: &TestCloud, own: &Cloud, (blobs, lines): (Arc<dyn BlobStore>, Arc<Lines>), gateway: &str) -> Self {
        let files = Files::new(own.clone(), blobs);
        let ports = BatchPorts {
            files,
            lines: Arc::<Lines>::clone(&lines),
            engine: Arc::new(Idle),
            owner: gateway.parse().expect("an id"),
        };
        Self { batches: Batches::new(ports), lines, person: actor(own, &cloud.keys.project).await }
    }

    async fn upload(&self, content: &[u8]) -> FileId {
        let files = self.batches.files();
        let mut upload = files.begin(&self.person).await.expect("begun");
        upload.append(content).await.expect("taken");
        let stored = upload.commit().await.expect("durable");
        let new = NewFile { purpose: FilePurpose::Batch, filename: "lines.jsonl".to_owned(), expires_after: None };
        created(files.create(&Call::once(self.person.clone()), stored, &new, &|_| Ok(String::new())).await).id
    }

    /// A batch whose lines do these things.
    async fn create(&self, deeds: &[&str]) -> BatchId {
        let url = LineEndpoint::ChatCompletions;
        let line = |(n, deed): (usize, &&str)| {
            format!(
                "{}\n",
                json!({ "custom_id": format!("c{}", n + 1), "method": "POST", "url": url.as_str(), "body": { "do": deed } })
            )
        };
        let content: String = deeds.iter().enumerate().map(line).collect();
        let new = NewBatch {
            input_file: self.upload(content.as_bytes()).await,
            endpoint: url,
            completion_window: "24h".to_owned(),
            output_expires_after: None,
            metadata: BTreeMap::new(),
        };
        created(self.batches.create(&Call::once(self.person.clone()), &new, &|_| Ok(String::new())).await).batch.id
    }

    async fn see(&self, id: &BatchId) -> BatchStatement {
        self.batches.get(&self.person, id).await.expect("the batch")
    }

    /// Works until the condition holds.
    async fn work_until<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
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

    async fn work_until_ended(&self, id: &BatchId) -> BatchStatement {
        self.work_until("the end", || async { self.see(id).await.batch.status.has_ended() }).await;
        self.see(id).await
    }

    async fn lines_of(&self, file: Option<FileId>) -> BTreeMap<String, Value> {
        let Some(id) = file else { return BTreeMap::new() };
        let files = self.batches.files();
        let file = files.get(&self.person, &id).await.expect("a file");
        let content = files.read(&file, 0, usize::MAX).await.expect("its content");
        let text = String::from_utf8(content).expect("text");
        let parse = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
        text.lines().map(parse).map(|line| (line["custom_id"].as_str().expect("an id").to_owned(), line)).collect()
    }

    async fn outputs(&self, statement: &BatchStatement) -> [BTreeMap<String, Value>; 2] {
        let batch = &statement.batch;
        [self.lines_of(batch.output_file.clone()).await, self.lines_of(batch.error_file.clone()).await]
    }
}

fn blobs(cloud: &TestCloud) -> Arc<MemoryBlobs> {
    Arc::new(MemoryBlobs::new("home", Arc::clone(cloud.cloud.clock())))
}

/// Answers an open line as a settlement does that began before the batch was sealed and ends after it.
async fn answer_late(store: &Store, id: &BatchId) {
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
async fn charged(cloud: &TestCloud) -> i64 {
    let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
    let organization = admin.organization().expect("its organization").clone();
    cloud.cloud.credit_balance(&admin, &organization).await.expect("a balance").funds.captured.get()
}

on_both_databases! {
    async fn each_line_ends_as_it_should_and_only_answers_cost(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let deeds = ["answer", "free", "refuse", "busy", "answer"];
        let id = process.create(&deeds).await;
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.counts.completed, ended.counts.failed), (BatchStatus::Completed, 4, 1));
        let [answers, errors] = process.outputs(&ended).await;
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["c1", "c2", "c4", "c5"]);
        assert_eq!(answers["c2"]["response"]["body"], json!({ "free": true }));
        let refused = json!({ "error": { "code": "context_length_exceeded" } });
        assert_eq!((&errors["c3"]["response"]["status_code"], &errors["c3"]["response"]["body"]), (&json!(400), &refused));
        assert_eq!(charged(cloud).await, 3 * LINE_NANOS, "answered, answered after it was busy, answered");
        assert_eq!(ended.counts.tokens.output.get(), 15);
        let busy: Vec<u32> = process.lines.served.lock().expect("served").iter().filter(|(name, _)| name == "busy-4").map(|(_, attempt)| *attempt).collect();
        assert_eq!(busy, [1, 1, 1], "what left no record is the same attempt again");
    }

    async fn a_server_that_fails_is_asked_again_a_few_times(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["shaky", "down"]).await;
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.counts.completed, ended.counts.failed), (BatchStatus::Completed, 1, 1));
        let [answers, errors] = process.outputs(&ended).await;
        assert_eq!((answers.len(), &errors["c2"]["response"]["status_code"]), (1, &json!(504)));
        let mut served = process.lines.served.lock().expect("served").clone();
        served.sort();
        let tries = |name: &str| vec![(name.to_owned(), 1); 3];
        assert_eq!(served, [tries("down-2"), tries("shaky-1")].concat());
        assert_eq!(charged(cloud).await, LINE_NANOS);
    }

    async fn money_that_is_short_for_a_moment_does_not_end_a_batch(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["answer", "poor", "answer"]).await;
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.counts.completed, ended.batch.problems.len()), (BatchStatus::Completed, 3, 0));
        let id = process.create(&["broke", "answer"]).await;
        let ended = process.work_until_ended(&id).await;
        assert_eq!(ended.batch.problems[0].code, "insufficient_quota");
        let [answers, errors] = process.outputs(&ended).await;
        assert_eq!((answers.len() + errors.len(), &errors["c1"]["error"]["code"]), (2, &json!("insufficient_quota")));
        assert_eq!(charged(cloud).await, LINE_NANOS * i64::try_from(3 + answers.len()).expect("few"));
    }

    async fn a_record_offered_again_answers_and_charges_once(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["keep"]).await;
        process.work_until("the record", || async { process.lines.kept().len() == 1 }).await;
        let record = process.lines.kept().remove(0);
        assert_eq!(process.see(&id).await.counts.completed, 0, "durable is not settled");
        let first = process.lines.settle(&record).await;
        let again = process.lines.settle(&record).await;
        assert_eq!((first.settled, again.settled, again.duplicate), (1, 0, 1));
        assert_eq!((process.see(&id).await.counts.completed, charged(cloud).await), (1, LINE_NANOS));
        let usage = cloud.cloud.get_request(&process.person, &record.request).await.expect("its usage");
        let line = usage.events[0].record.line.clone().expect("its line");
        assert_eq!((line.name.number, line.answer.as_str()), (1, ""), "the answer is not kept with what it cost");
        let ended = process.work_until_ended(&id).await;
        assert_eq!(process.outputs(&ended).await[0].len(), 1);
    }

    async fn what_an_earlier_claim_still_sends_is_neither_charged_nor_given(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["keep", "answer"]).await;
        process.work_until("the record", || async { process.lines.kept().len() == 1 && process.see(&id).await.counts.completed == 1 }).await;
        let late = process.lines.kept().remove(0);
        // The process is gone and comes back: its claim is free at once, and the open line is run again.
        process.work_until("the line again", || async { process.lines.kept().len() == 2 }).await;
        let second = process.lines.kept().remove(1);
        assert_eq!((late.request == second.request, late.attempt < second.attempt), (true, true));
        let report = process.lines.settle_and_return(&late).await;
        assert_eq!((report.superseded, report.settled, report.quarantined), (1, 0, 0));
        assert_eq!((process.see(&id).await.counts.completed, charged(cloud).await), (1, LINE_NANOS));
        assert_eq!(process.lines.settle_and_return(&second).await.settled, 1);
        assert_eq!(process.lines.settle(&late).await.duplicate, 1, "a superseded record is known");
        let ended = process.work_until_ended(&id).await;
        let [answers, _] = process.outputs(&ended).await;
        assert_eq!(answers["c1"]["response"]["body"], json!({ "attempt": second.attempt }));
        assert_eq!((answers.len(), charged(cloud).await), (2, 2 * LINE_NANOS));
    }

    async fn an_answer_that_comes_after_the_end_is_neither_charged_nor_given(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["wait", "answer"]).await;
        process.work_until("an answer", || async { process.see(&id).await.counts.completed == 1 }).await;
        process.batches.cancel(&process.person, &id).await.expect("cancelled");
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.counts.completed, ended.counts.failed), (BatchStatus::Cancelled, 1, 1));
        let [answers, errors] = process.outputs(&ended).await;
        assert_eq!((answers.len(), &errors["c1"]["error"]["code"]), (1, &json!("batch_cancelled")));
        assert_eq!(charged(cloud).await, LINE_NANOS);
    }

    async fn a_line_nobody_knows_of_is_run_again_only_by_the_next_claim(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["unknown"]).await;
        let served = || process.lines.served.lock().expect("served").clone();
        process
            .work_until("the claim to be given up", || async {
                if served().len() == 1 {
                    // A small step for each look, so that the deadline stays far away.
                    process.see(&id).await;
                    cloud.clock.advance(DurationMs::from_millis(100));
                }
                served().len() == 2
            })
            .await;
        assert_eq!(served(), [("unknown-1".to_owned(), 1), ("unknown-1".to_owned(), 2)]);
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, charged(cloud).await), (BatchStatus::Completed, LINE_NANOS));
        // It was durable after all: too late.
        assert_eq!(process.lines.settle_and_return(&process.lines.kept()[0]).await.superseded, 1);
        assert_eq!(charged(cloud).await, LINE_NANOS);
    }

    async fn an_answer_that_comes_while_the_files_are_written_is_in_them(cloud: &TestCloud) {
        let blobs = blobs(cloud);
        let outruns = Arc::<Mutex<Option<BatchId>>>::default();
        let outrun = Outrun { blobs: Arc::clone(&blobs), store: cloud.cloud.store().clone(), outruns: Arc::clone(&outruns) };
        let lines = Lines::start(&cloud.cloud, "gw_1").await;
        let process = Process::over(cloud, &cloud.cloud, (Arc::new(outrun), lines), "gw_1").await;
        let id = process.create(&["wait", "free"]).await;
        process.work_until("an answer", || async { process.see(&id).await.counts.completed == 1 }).await;
        process.batches.cancel(&process.person, &id).await.expect("cancelled");
        *outruns.lock().expect("a batch") = Some(id.clone());
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.counts.completed, ended.counts.failed), (BatchStatus::Cancelled, 2, 0));
        let [answers, errors] = process.outputs(&ended).await;
        assert_eq!((answers.len(), errors.len()), (2, 0));
        assert_eq!(blobs.count(), 2, "the input and the answers; what was outrun is forgotten");
    }

    async fn a_claim_that_fails_does_not_run_its_lines_again(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["unstorable"]).await;
        let attempts = || process.lines.served.lock().expect("served").iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>();
        process
            .work_until("the end", || async {
                if attempts().len() == 1 {
                    // A small step for each look, so that the deadline stays far away.
                    cloud.clock.advance(DurationMs::from_millis(100));
                }
                process.see(&id).await.batch.status.has_ended()
            })
            .await;
        // SQLite can store it.
        let expected = if cloud.cloud.store().engine_name() == "postgresql" { vec![1, 2] } else { vec![1] };
        assert_eq!(attempts(), expected);
    }

    async fn two_processes_never_work_on_one_batch(cloud: &TestCloud) {
        let (blobs, other) = (blobs(cloud), cloud.another(7).await);
        let first = Process::start(cloud, &cloud.cloud, &blobs, "gw_1").await;
        let second = Process::start(cloud, &other, &blobs, "gw_2").await;
        let id = first.create(&["wait", "answer", "answer"]).await;
        first
            .work_until("its claim", || async {
                if first.see(&id).await.counts.completed < 2 {
                    return false;
                }
                let (_stop, stopped) = tokio::sync::watch::channel(false);
                let looking = second.batches.run_reconciler(stopped);
                assert!(tokio::time::timeout(Duration::from_millis(50), looking).await.is_err(), "it looks for ever");
                true
            })
            .await;
        assert_eq!(second.lines.served.lock().expect("served").len(), 0, "claimed is claimed");
        // The first one is gone without a word; its claim lapses.
        cloud.clock.advance(DurationMs::from_seconds(31));
        second.work_until("the line", || async { !second.lines.served.lock().expect("served").is_empty() }).await;
        assert_eq!(*second.lines.served.lock().expect("served"), [("wait-1".to_owned(), 2)]);
        let elsewhere = Arc::new(MemoryBlobs::new("elsewhere", Arc::clone(cloud.cloud.clock())));
        let third = Process::start(cloud, &cloud.cloud, &elsewhere, "gw_3").await;
        cloud.clock.advance(DurationMs::from_seconds(31));
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let looking = third.batches.run_reconciler(stopped);
        assert!(tokio::time::timeout(Duration::from_millis(50), looking).await.is_err(), "it looks for ever");
        assert_eq!(third.lines.served.lock().expect("served").len(), 0, "its files are elsewhere");
        let file = third.batches.files().get(&third.person, &first.see(&id).await.batch.input_file).await.expect("the row");
        assert_eq!(third.batches.files().read(&file, 0, 1).await.unwrap_err().code(), ErrorCode::Unreachable);
    }

    async fn a_reading_that_was_cut_off_goes_on_behind_what_was_written(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let mut deeds = vec!["free"; 700];
        deeds[650] = "stall";
        let id = process.create(&deeds).await;
        let read = || process.lines.read.load(Ordering::SeqCst);
        process.work_until("the reading to stall", || async { read() == 651 }).await;
        let ended = process.work_until_ended(&id).await;
        assert_eq!(read(), 651 + 100, "the first 600 lines were written and are not read again");
        assert_eq!((ended.batch.status, ended.counts.total, ended.counts.completed), (BatchStatus::Completed, 700, 700));
        let quote = ended.batch.quote.clone().expect("a quote");
        assert_eq!((quote.most, quote.input_tokens.get()), (Nanos::new(700 * LINE_NANOS), 7_000));
        assert_eq!((charged(cloud).await, process.outputs(&ended).await[0].len()), (LINE_NANOS, 700));
        let most = process.lines.at_once_most.load(Ordering::SeqCst);
        assert!((1..=16).contains(&most), "{most} lines at once");
    }

    async fn a_content_stays_while_nobody_knows_whether_it_has_a_row(cloud: &TestCloud) {
        let blobs = blobs(cloud);
        let process = Process::start(cloud, &cloud.cloud, &blobs, "gw_1").await;
        let files = process.batches.files();
        for (code, kept) in [(ErrorCode::StoreUnavailable, 1), (ErrorCode::Internal, 2), (ErrorCode::StorageFull, 2)] {
            let mut upload = files.begin(&process.person).await.expect("begun");
            upload.append(b"content").await.expect("taken");
            let stored = upload.commit().await.expect("durable");
            let new = NewFile { purpose: FilePurpose::UserData, filename: "a".to_owned(), expires_after: None };
            let call = Call::under_key(process.person.clone(), "file.create", code.as_str(), "").expect("a call");
            let failing = move |_: &File| Err(Error::new(code, "as the test asks"));
            assert_eq!(files.create(&call, stored, &new, &failing).await.unwrap_err().code(), code);
            assert_eq!(blobs.count(), kept, "{code:?}");
        }
        cloud.clock.advance(DurationMs::from_millis(3_600_001));
        assert_eq!((files.sweep().await.expect("swept"), blobs.count()), (2, 0));
    }

    async fn a_reading_that_is_not_done_in_time_fails(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["stall"]).await;
        process.work_until("the reading to stall", || async { process.lines.read.load(Ordering::SeqCst) == 1 }).await;
        cloud.clock.advance(DurationMs::from_hours(24));
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.batch.problems[0].code.as_str()), (BatchStatus::Failed, "batch_expired"));
        assert_eq!(process.lines.read.load(Ordering::SeqCst), 1);
    }

    async fn contents_without_a_row_and_expired_files_are_swept(cloud: &TestCloud) {
        let blobs = blobs(cloud);
        let process = Process::start(cloud, &cloud.cloud, &blobs, "gw_1").await;
        let files = process.batches.files();
        let orphan: FileId = cloud.cloud.ids().mint();
        blobs.put(orphan.clone(), b"written before a crash");
        let mut upload = files.begin(&process.person).await.expect("begun");
        upload.append(b"kept for an hour").await.expect("taken");
        let stored = upload.commit().await.expect("durable");
        let new = NewFile { purpose: FilePurpose::UserData, filename: "a".to_owned(), expires_after: Some(DurationMs::from_hours(1)) };
        let file = created(files.create(&Call::once(process.person.clone()), stored, &new, &|_| Ok(String::new())).await);
        assert_eq!((files.sweep().await.expect("swept"), blobs.count()), (0, 2), "young ones may get a row yet");
        cloud.clock.advance(DurationMs::from_millis(3_600_001));
        assert_eq!(files.get(&process.person, &file.id).await.unwrap_err().code(), ErrorCode::NotFound, "expired is gone at once");
        let page = files.list(&process.person, None, &PageRequest::default()).await.expect("a list");
        assert_eq!(page.items, []);
        assert_eq!((files.sweep().await.expect("swept"), blobs.count()), (2, 0));
        assert!(!blobs.has(&orphan));
    }
}
