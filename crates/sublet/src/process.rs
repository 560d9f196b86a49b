//! What the process knows of itself: readiness and figures.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sublet_api::health::HealthCheck;
use sublet_api::remote_model::ReplicaSeen;
use sublet_cloud::Cloud;
use sublet_cloud::batch::Batches;
use sublet_core::batch::BatchStatus;
use sublet_core::engine::{ModelEngine, ModelInfo};
use sublet_core::id::ReplicaId;
use sublet_core::tokenizer::{TokenizerName, Tokenizers};
use sublet_core::{BoxFuture, DurationMs, Result};
use sublet_engine::Engine;
use sublet_gateway::Gateway;
use sublet_gateway::metrics::{FIRST_TOKEN_BOUNDS_MS, GRANT_BOUNDS_MS};
use sublet_http::Process;

use crate::fast_clock::FastClock;
use crate::models;

/// How long what was served may take to be charged, where that is waited for.
const SETTLE_WITHIN: DurationMs = DurationMs::from_seconds(10);

/// The parts that are looked at.
pub struct CloudProcess {
    pub cloud: Cloud,
    pub gateway: Arc<Gateway>,
    pub engine: Arc<Engine>,
    pub batches: Batches,
    pub tokenizers: Arc<dyn Tokenizers>,
    /// Where imported models are kept.
    pub models: PathBuf,
    /// Its clock, if this is a demonstration.
    pub demonstration: Option<Arc<FastClock>>,
}

impl Process for CloudProcess {
    fn checks(&self) -> BoxFuture<'_, Vec<HealthCheck>> {
        Box::pin(async move {
            let store = self.cloud.store().ping().await;
            let models = self.engine.models();
            let mut checks = vec![
                check("store", store.map(|()| self.cloud.store().engine_name().to_owned())),
                check("gateway", self.gateway.ready().map(|()| "serving".to_owned())),
                HealthCheck { name: "models".to_owned(), ok: !models.is_empty(), detail: format!("{} loaded", models.len()) },
            ];
            checks.extend(self.demonstration.as_ref().map(|clock| check("demonstration", Ok(clock.to_string()))));
            checks
        })
    }

    fn import_model(&self, path: String, name: Option<String>) -> BoxFuture<'_, Result<ModelInfo>> {
        let (engine, directory) = (Arc::clone(&self.engine), self.models.clone());
        Box::pin(async move {
            tokio::task::spawn_blocking(move || models::import(&engine, &directory, Path::new(&path), name.as_deref()))
                .await
                .map_err(|error| sublet_core::Error::internal(format!("the import failed: {error}")))?
        })
    }

    fn replica_seen(&self, id: &ReplicaId) -> Option<ReplicaSeen> {
        let status = self.gateway.replicas().into_iter().find(|status| status.replica == *id)?;
        Some(ReplicaSeen {
            in_flight: status.in_flight,
            resting_until: status.resting_until.map(Into::into),
            cached_tokens: status.cached_tokens,
        })
    }

    fn settle(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.gateway.flush(SETTLE_WITHIN))
    }

    fn check_tokenizer<'a>(&'a self, name: &'a TokenizerName) -> BoxFuture<'a, Result<()>> {
        let (tokenizers, name) = (Arc::clone(&self.tokenizers), name.clone());
        Box::pin(async move {
            let opened = tokio::task::spawn_blocking(move || tokenizers.open(&name).map(|_| ())).await;
            opened.unwrap_or_else(|error| Err(sublet_core::Error::internal(format!("reading a tokenizer failed: {error}"))))
        })
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let mut page = Page::default();
            self.gateway_figures(&mut page);
            self.engine_figures(&mut page);
            self.store_figures(&mut page);
            self.batch_figures(&mut page).await;
            let available = self.cloud.store().ping().await;
            page.gauge("sublet_store_up", "1 if the database answers", i64::from(available.is_ok()));
            page.0
        })
    }
}

fn check(name: &str, outcome: Result<String>) -> HealthCheck {
    let ok = outcome.is_ok();
    let detail = outcome.unwrap_or_else(|error| error.to_string());
    HealthCheck { name: name.to_owned(), ok, detail }
}

impl CloudProcess {
    fn gateway_figures(&self, page: &mut Page) {
        let figures = self.gateway.metrics();
        page.head("sublet_requests_total", "requests with a usage record, by how they ended", "counter");
        for (outcome, count) in &figures.requests {
            page.sample("sublet_requests_total", &format!("{{outcome=\"{}\"}}", outcome.as_str()), count);
        }
        page.counter("sublet_requests_refused_total", "requests refused before anything was generated", figures.refused);
        page.counter("sublet_requests_void_total", "requests that ended without a charge after money was held", figures.voided);
        page.counter("sublet_requests_unsold_total", "void requests for which a supplier is owed something", figures.unsold);
        page.counter(
            "sublet_supplier_calls_unaccounted_total",
            "suppliers that were asked and neither delivered nor counted anything",
            figures.calls_unaccounted,
        );
        page.head("sublet_tokens_total", "tokens by price kind", "counter");
        for (kind, count) in
            [("input", figures.tokens.input), ("cached_input", figures.tokens.cached_input), ("output", figures.tokens.output)]
        {
            page.sample("sublet_tokens_total", &format!("{{kind=\"{kind}\"}}"), count);
        }
        page.gauge("sublet_requests_in_flight", "requests in flight", figures.in_flight);
        page.gauge("sublet_held_nanos", "money held by requests in flight, in nano-units", figures.held.get());
        page.counter("sublet_journal_records_total", "usage records made durable", figures.journal_records);
        page.counter("sublet_journal_syncs_total", "sync calls of the usage journal", figures.journal_syncs);
        page.counter("sublet_journal_sync_microseconds_total", "time spent in sync calls", figures.journal_sync_micros);
        page.gauge("sublet_journal_unsettled_records", "durable records that are not settled yet", figures.journal_unsettled);
        let replicas = self.gateway.replicas();
        page.head("sublet_replica_in_flight", "requests of this process at a replica", "gauge");
        for status in &replicas {
            page.sample("sublet_replica_in_flight", &format!("{{replica=\"{}\"}}", status.replica), status.in_flight);
        }
        page.head("sublet_replica_up", "0 while a replica is left alone after failures", "gauge");
        for status in &replicas {
            page.sample(
                "sublet_replica_up",
                &format!("{{replica=\"{}\"}}", status.replica),
                u8::from(status.resting_until.is_none()),
            );
        }
        page.gauge("sublet_journal_bytes", "size of the segments that are kept", figures.journal_bytes);
        Self::histograms(page, &figures);
    }

    fn histograms(page: &mut Page, figures: &sublet_gateway::MetricsSnapshot) {
        let bounds: Vec<String> = FIRST_TOKEN_BOUNDS_MS.iter().map(ToString::to_string).collect();
        let sum = figures.first_token_sum.millis();
        let names = ("sublet_time_to_first_token_milliseconds", "from admission to the first token");
        page.histogram(names, &bounds, &figures.first_token, sum);
        let bounds: Vec<String> = GRANT_BOUNDS_MS.iter().map(ToString::to_string).collect();
        let (counts, sum) = (&figures.grants.buckets, figures.grants.micros / 1_000);
        page.histogram(("sublet_grant_milliseconds", "grants of slices, refused ones included"), &bounds, counts, sum);
    }

    fn store_figures(&self, page: &mut Page) {
        let figures = self.cloud.store().figures();
        page.counter("sublet_store_transactions_total", "transactions begun, repetitions included", figures.transactions);
        page.counter(
            "sublet_store_repetitions_total",
            "writes begun again because others wrote the same rows",
            figures.repetitions,
        );
        page.gauge("sublet_store_attempts_max", "attempts of the write that was begun most often", figures.attempts_max);
    }

    /// What is counted in the database is left out while that does not answer.
    async fn batch_figures(&self, page: &mut Page) {
        let local = self.batches.figures();
        page.gauge("sublet_batch_lines_running", "lines of batches that run at this process", local.lines_running);
        page.gauge("sublet_batch_answers_running", "answers that those lines ask for", local.answers_running);
        page.gauge("sublet_batch_lines_aside", "lines that wait for a limit or servers that others do not need", local.lines_aside);
        page.head("sublet_batch_lines_total", "lines that ended at this process, by what came of them", "counter");
        for (outcome, count) in
            [("completed", local.lines_completed), ("failed", local.lines_failed), ("unanswered", local.lines_unanswered)]
        {
            page.sample("sublet_batch_lines_total", &format!("{{outcome=\"{outcome}\"}}"), count);
        }
        let Ok(open) = self.batches.open_figures().await else { return };
        page.head("sublet_batches", "batches of the cloud that have not ended, by status", "gauge");
        for status in BatchStatus::ALL.into_iter().filter(|status| !status.has_ended()) {
            let count = open.batches.iter().find(|count| count.status == status).map_or(0, |count| count.batches);
            page.sample("sublet_batches", &format!("{{status=\"{}\"}}", status.as_str()), count);
        }
        page.gauge(
            "sublet_batch_oldest_waiting_milliseconds",
            "how long the oldest batch of the cloud waits that no process works on",
            open.oldest_waiting.millis(),
        );
    }

    fn engine_figures(&self, page: &mut Page) {
        let load = self.engine.load();
        page.gauge("sublet_engine_running_sequences", "sequences computed together now", load.running);
        page.gauge("sublet_engine_parked_sequences", "sequences that wait for money or a slow reader", load.parked);
        page.gauge("sublet_engine_queued_sequences", "sequences that wait for a place", load.queued);
        page.counter("sublet_engine_steps_total", "decode steps", load.steps);
        page.counter("sublet_engine_tokens_total", "output tokens produced, delivered or not", load.produced);
    }
}

/// A page in Prometheus' text format.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
    /// `counts` are not cumulative and have one more than there are bounds.
    fn histogram(&mut self, (name, help): (&str, &str), bounds: &[String], counts: &[u64], sum: impl std::fmt::Display) {
        self.head(name, help, "histogram");
        let mut cumulative = 0;
        for (position, count) in counts.iter().enumerate() {
            cumulative += count;
            let bound = bounds.get(position).map_or("+Inf", String::as_str);
            self.sample(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), cumulative);
        }
        self.sample(&format!("{name}_sum"), "", sum);
        self.sample(&format!("{name}_count"), "", cumulative);
    }
    fn counter(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "counter");
        self.sample(name, "", value);
    }
    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "gauge");
        self.sample(name, "", value);
    }
}
