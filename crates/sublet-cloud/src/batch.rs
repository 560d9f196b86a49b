//! Batches: many requests in one file, run when nothing better needs the engine.
//!
//! This file has what clients do with them. What happens to them is in `batch_reconciler` (who works on
//! which), `batch_validation`, `batch_progress` and `batch_output`.
//!
//! Invariants: a line is answered in the transaction that charges it, by the newest claim only, and never
//! after its batch was sealed; see the decision on answers and charges of lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use sublet_core::batch::{BatchStatus, LineEndpoint, LineServer};
use sublet_core::engine::ModelEngine;
use sublet_core::file::FilePurpose;
use sublet_core::id::{BatchId, FileId, GatewayId};
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_store::batch::{self, Batch, BatchEnd, BatchTimes, LineCounts};
use sublet_store::{Page, PageRequest, Tx, batch_line, file};
use tokio::sync::Notify;

use crate::audit::Deed;
use crate::batch_figures::Counters;
use crate::batch_places::Places;
use crate::file::{Files, check_expiry};
use crate::idempotency::{Answer, Call, Render};
use crate::{Action, Actor, Cloud};
use sublet_money::spend_limit::Work;

/// Batches of one project that have not ended, at most.
pub const OPEN_BATCHES_MAX: i64 = 100;
/// The longest time a batch may take.
const WINDOW_MAX: DurationMs = DurationMs::from_hours(24);

/// Why lines have no answer, as their batch says it. An empty code: all have one.
pub(crate) const EXPIRED: &str = "batch_expired";
pub(crate) const CANCELLED: &str = "batch_cancelled";

/// The batches of a cloud, worked on by one process. Cheap to clone.
#[derive(Clone)]
pub struct Batches {
    pub(crate) cloud: Cloud,
    pub(crate) files: Files,
    pub(crate) lines: Arc<dyn LineServer>,
    pub(crate) engine: Arc<dyn ModelEngine>,
    /// Who claims.
    pub(crate) owner: GatewayId,
    pub(crate) places: Arc<Places>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) wake: Arc<Notify>,
}

/// What a process works on batches with.
pub struct BatchPorts {
    pub files: Files,
    pub lines: Arc<dyn LineServer>,
    pub engine: Arc<dyn ModelEngine>,
    pub owner: GatewayId,
}

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewBatch {
    pub input_file: FileId,
    pub endpoint: LineEndpoint,
    pub completion_window: String,
    pub output_expires_after: Option<DurationMs>,
    pub metadata: BTreeMap<String, String>,
}

/// A batch as it stands now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchStatement {
    pub batch: Batch,
    /// Up to this moment.
    pub counts: LineCounts,
}

impl BatchStatement {
    /// Whether it will end in time, once that can be said.
    pub fn meets_deadline(&self) -> Option<bool> {
        let runs = self.batch.status == BatchStatus::InProgress;
        self.batch.forecast_at.filter(|_| runs).map(|at| at <= self.batch.expires_at)
    }
}

/// A number of hours, minutes or seconds, such as `24h`.
fn parse_window(text: &str) -> Result<DurationMs> {
    let invalid = || {
        let shown: String = text.chars().take(40).collect();
        Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not a completion window of at most 24 hours"))
            .param("completion_window")
            .alternative("24h")
    };
    let unit = text.chars().last().ok_or_else(invalid)?;
    let millis = match unit {
        'h' => 3_600_000_i64,
        'm' => 60_000,
        's' => 1_000,
        _ => return Err(invalid()),
    };
    let digits = text.trim_end_matches(unit);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.len() + 1 == text.len();
    let count: i64 = digits.parse().ok().filter(|_| is_number).ok_or_else(invalid)?;
    let window = DurationMs::from_millis(count.checked_mul(millis).ok_or_else(invalid)?);
    if window > DurationMs::ZERO && window <= WINDOW_MAX { Ok(window) } else { Err(invalid()) }
}

impl Batches {
    pub fn new(ports: BatchPorts) -> Self {
        Self {
            cloud: ports.files.cloud.clone(),
            files: ports.files,
            lines: ports.lines,
            engine: ports.engine,
            owner: ports.owner,
            places: Arc::default(),
            counters: Arc::default(),
            wake: Arc::default(),
        }
    }

    pub fn files(&self) -> &Files {
        &self.files
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.cloud.now()
    }

    /// Takes a batch in. Its file is read afterwards; what is wrong in it is said on the object.
    pub async fn create(&self, call: &Call, new: &NewBatch, render: &Render<BatchStatement>) -> Result<Answer<BatchStatement>> {
        call.actor.require(Action::UseModels)?;
        let window = parse_window(&new.completion_window)?;
        check_expiry(new.output_expires_after)?;
        let created = self
            .cloud
            .once(call, render, (self, call, new), move |(batches, call, new), tx| {
                Box::pin(batches.insert(tx, &call.actor, new, window))
            })
            .await?;
        self.wake.notify_one();
        Ok(created)
    }

    async fn insert(&self, tx: &mut Tx, actor: &Actor, new: &NewBatch, window: DurationMs) -> Result<BatchStatement> {
        let now = self.now();
        let (organization, project) = actor.project()?;
        self.cloud.check_suspension(tx, organization, Work::New).await?;
        let input = file::get(tx, &actor.scope, &new.input_file, now).await.map_err(|error| error.param("input_file_id"))?;
        if input.purpose != FilePurpose::Batch {
            let message = format!("'{}' was uploaded for {}, a batch reads files for batch", input.id, input.purpose);
            return Err(Error::new(ErrorCode::InvalidRequest, message)
                .param("input_file_id")
                .alternative("upload it with purpose=batch"));
        }
        let open = batch::count_open(tx, project).await?;
        if open >= OPEN_BATCHES_MAX {
            let message = format!("a project has at most {OPEN_BATCHES_MAX} batches that have not ended");
            return Err(Error::new(ErrorCode::Conflict, message).alternative("wait for one to end, or cancel one"));
        }
        self.files.check_batch(tx, project, open).await?;
        let key = actor.key.clone().ok_or_else(|| Error::internal("a batch needs a key that pays for it"))?;
        let batch = Batch {
            id: self.cloud.ids.mint(),
            organization: organization.clone(),
            project: project.clone(),
            key,
            endpoint: new.endpoint,
            input_file: input.id,
            home: input.home,
            completion_window: new.completion_window.clone(),
            status: BatchStatus::Validating,
            problems: Vec::new(),
            quote: None,
            output_file: None,
            error_file: None,
            output_expires_after: new.output_expires_after,
            end: BatchEnd::default(),
            sealed: false,
            counts: LineCounts::default(),
            times: BatchTimes::default(),
            created_at: now,
            expires_at: now.plus(window),
            metadata: new.metadata.clone(),
            generation: 0,
            owner: None,
            forecast_at: None,
        };
        batch::insert(tx, &batch).await?;
        self.note(tx, actor, "batch.create", &batch).await?;
        Ok(BatchStatement { counts: batch.counts, batch })
    }

    async fn note(&self, tx: &mut Tx, actor: &Actor, action: &str, batch: &Batch) -> Result<()> {
        let detail = format!("{} of {}", batch.endpoint, batch.input_file);
        let deed = Deed { organization: Some(&batch.organization), action, target: batch.id.as_str(), detail };
        self.cloud.record(tx, actor, deed, self.now()).await
    }

    pub async fn get(&self, actor: &Actor, id: &BatchId) -> Result<BatchStatement> {
        actor.require(Action::UseModels)?;
        let read = |(actor, id): (&Actor, &BatchId)| {
            let (actor, id) = (actor.clone(), id.clone());
            self.cloud.store.read((actor, id), |(actor, id), tx| {
                Box::pin(async move {
                    let batch = batch::get(tx, &actor.scope, id).await?;
                    state(tx, batch).await
                })
            })
        };
        read((actor, id)).await
    }

    pub async fn list(&self, actor: &Actor, page: &PageRequest) -> Result<Page<BatchStatement>> {
        actor.require(Action::UseModels)?;
        self.cloud
            .store
            .read((actor, page), |(actor, page), tx| {
                Box::pin(async move {
                    let found = batch::list(tx, &actor.scope, page).await?;
                    let mut items = Vec::with_capacity(found.items.len());
                    for batch in found.items {
                        items.push(state(tx, batch).await?);
                    }
                    Ok(Page { items, has_more: found.has_more })
                })
            })
            .await
    }

    /// Asks for the end. Lines that have an answer keep it; the others are not run.
    pub async fn cancel(&self, actor: &Actor, id: &BatchId) -> Result<BatchStatement> {
        actor.require(Action::UseModels)?;
        let now = self.now();
        let cancelled = self
            .cloud
            .store
            .write((self, actor, id), move |(batches, actor, id), tx| {
                Box::pin(async move {
                    let mut batch = batch::get(tx, &actor.scope, id).await?;
                    match batch.status {
                        BatchStatus::Cancelling | BatchStatus::Cancelled => {}
                        BatchStatus::Validating | BatchStatus::InProgress => {
                            batch.status = BatchStatus::Cancelling;
                            batch.times.cancelling = Some(now);
                            batch::save(tx, &batch).await?;
                            batches.note(tx, actor, "batch.cancel", &batch).await?;
                        }
                        BatchStatus::Failed | BatchStatus::Finalizing | BatchStatus::Completed | BatchStatus::Expired => {
                            let message = format!("a batch that is {} cannot be cancelled", batch.status.as_str());
                            return Err(Error::new(ErrorCode::Conflict, message));
                        }
                    }
                    state(tx, batch).await
                })
            })
            .await?;
        self.wake.notify_one();
        Ok(cancelled)
    }
}

/// A batch with its counts: those of its lines while it has them.
async fn state(tx: &mut Tx, batch: Batch) -> Result<BatchStatement> {
    let has_lines = !batch.status.has_ended() && batch.status != BatchStatus::Validating;
    let counts = if has_lines { batch_line::count(tx, &batch.id).await? } else { batch.counts };
    Ok(BatchStatement { batch, counts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_hours_minutes_or_seconds_up_to_a_day() {
        for (text, millis) in [("24h", 86_400_000), ("1h", 3_600_000), ("90m", 5_400_000), ("1s", 1_000)] {
            assert_eq!(parse_window(text).unwrap().millis(), millis);
        }
        for text in
            ["", "h", "0h", "25h", "-1h", "1d", "24 h", "1hh", "99999999999999999999h", "9223372036854775807h", "24H", "２h"]
        {
            assert_eq!(parse_window(text).unwrap_err().param_name(), Some("completion_window"), "{text}");
        }
    }
}
