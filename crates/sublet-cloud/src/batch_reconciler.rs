//! Who works on which batch: claims, renewals, and one worker for each batch that this process has.
//!
//! A pass may be run any number of times. A worker looks at its batch's row, does what the row says is
//! next, and ends when the batch has ended or the claim is gone; a crash at any point leaves a row from
//! which the next claim goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sublet_core::batch::BatchStatus;
use sublet_core::id::BatchId;
use sublet_core::{BoxFuture, DurationMs, Result, Scope, Timestamp};
use sublet_store::batch::{self, Batch, BatchEnd, Claim, Problem, Renewal};
use sublet_store::{Tx, batch_line};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::batch::{Batches, CANCELLED};

/// Batches that one process works on at once.
const HELD_MAX: usize = 8;
/// How long a claim lasts without renewal.
const CLAIM_LIFE: DurationMs = DurationMs::from_seconds(30);
/// How often claims are renewed.
const RENEWAL_PERIOD: DurationMs = DurationMs::from_seconds(5);
/// How often a process looks for batches without being woken.
const PERIOD: Duration = Duration::from_millis(500);
/// How often leftovers are looked for.
const SWEEP_PERIOD: DurationMs = DurationMs::from_seconds(60);
/// Rows that are deleted in one transaction.
const DELETED_PER_STEP: i64 = 1_000;
/// Pause of a worker after a failure.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// When a batch will end, as its worker sees it.
type Forecast = Arc<Mutex<Option<Timestamp>>>;

/// A batch that this process works on.
struct Held {
    generation: i64,
    forecast: Forecast,
    task: JoinHandle<()>,
}

/// What a process keeps between two passes.
#[derive(Default)]
struct Desk {
    held: BTreeMap<BatchId, Held>,
    renewed_at: Timestamp,
    swept_at: Timestamp,
}

impl Drop for Desk {
    fn drop(&mut self) {
        for held in self.held.values() {
            held.task.abort();
        }
    }
}

impl Batches {
    /// Works on batches until `stop` says so. Call it after the gateway has settled its journal: answers of the
    /// last life count only until their batch is claimed again.
    pub async fn run_reconciler(&self, mut stop: watch::Receiver<bool>) {
        let mut desk = Desk::default();
        // What this owner had claimed in its last life is free at once.
        self.release().await;
        while !*stop.borrow() {
            if let Err(error) = self.pass(&mut desk).await {
                tracing::warn!(?error, "batches could not be looked after; it is tried again");
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(PERIOD) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
            }
        }
        drop(desk);
        self.release().await;
    }

    async fn release(&self) {
        if let Err(error) = self.cloud.store.write(self, |batches, tx| Box::pin(batch::release(tx, &batches.owner))).await {
            tracing::warn!(?error, "claims on batches were not given up; they end by themselves");
        }
    }

    async fn pass(&self, desk: &mut Desk) -> Result<()> {
        desk.held.retain(|_, held| !held.task.is_finished());
        let now = self.now();
        if now.since(desk.renewed_at) >= RENEWAL_PERIOD {
            self.renew(desk, now).await?;
            desk.renewed_at = now;
        }
        while desk.held.len() < HELD_MAX {
            let Some(batch) = self.claim(now).await? else { break };
            tracing::info!(batch = %batch.id, generation = batch.generation, status = batch.status.as_str(), "a batch was claimed");
            let forecast = Forecast::default();
            let worker = Worker {
                batches: self.clone(),
                id: batch.id.clone(),
                generation: batch.generation,
                forecast: Arc::clone(&forecast),
            };
            let held = Held { generation: batch.generation, forecast, task: tokio::spawn(worker.run()) };
            if let Some(stale) = desk.held.insert(batch.id, held) {
                stale.task.abort();
            }
        }
        if now.since(desk.swept_at) >= SWEEP_PERIOD {
            self.sweep().await?;
            desk.swept_at = now;
        }
        Ok(())
    }

    async fn claim(&self, now: Timestamp) -> Result<Option<Batch>> {
        let home = self.files.blobs.home().to_owned();
        let claim = Claim { owner: self.owner.clone(), home, now, until: now.plus(CLAIM_LIFE) };
        self.cloud.store.write(claim, |claim, tx| Box::pin(batch::claim(tx, claim))).await
    }

    /// Keeps the claims. A batch that somebody else has is let go at once.
    async fn renew(&self, desk: &mut Desk, now: Timestamp) -> Result<()> {
        let mut lost = Vec::new();
        for (id, held) in &desk.held {
            let forecast_at = *held.forecast.lock().unwrap_or_else(PoisonError::into_inner);
            let renewal = Renewal { id: id.clone(), generation: held.generation, until: now.plus(CLAIM_LIFE), forecast_at };
            if !self.cloud.store.write(renewal, |renewal, tx| Box::pin(batch::renew(tx, renewal))).await? {
                tracing::warn!(batch = %id, "another process has taken a batch over");
                held.task.abort();
                lost.push(id.clone());
            }
        }
        desk.held.retain(|id, _| !lost.contains(id));
        Ok(())
    }

    /// Removes what is no longer needed: expired and ownerless files, expired responses, lines of batches that have ended.
    async fn sweep(&self) -> Result<()> {
        self.files.sweep().await?;
        self.cloud.forget_unused_rate_buckets().await?;
        let swept = self.cloud.sweep_responses().await?;
        if swept > 0 {
            tracing::info!(swept, "expired responses were deleted");
        }
        while let Some(id) = self.cloud.store.read((), |(), tx| Box::pin(batch::unpurged(tx))).await? {
            self.purge(&id).await?;
        }
        Ok(())
    }

    /// Deletes the lines of a batch that has ended.
    async fn purge(&self, id: &BatchId) -> Result<()> {
        loop {
            let deleted = self.cloud.store.write(id, |id, tx| Box::pin(batch_line::delete_some(tx, id, DELETED_PER_STEP))).await?;
            if deleted == 0 {
                break;
            }
        }
        self.cloud.store.write(id, |id, tx| Box::pin(batch::set_purged(tx, id))).await
    }
}

/// Works on one batch under one claim.
pub(crate) struct Worker {
    pub batches: Batches,
    pub id: BatchId,
    pub generation: i64,
    forecast: Forecast,
}

impl Worker {
    async fn run(self) {
        loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(batch = %self.id, ?error, "a batch could not go on; it is tried again");
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }

    /// Does what the batch's row says is next. False if there is nothing more to do for this claim.
    async fn step(&self) -> Result<bool> {
        let Some(batch) = self.load().await? else { return Ok(false) };
        match batch.status {
            BatchStatus::Failed | BatchStatus::Completed | BatchStatus::Expired | BatchStatus::Cancelled => {
                self.batches.purge(&batch.id).await?;
                Ok(false)
            }
            _ if batch.sealed => self.finalize(&batch).await,
            BatchStatus::Validating => self.validate(&batch).await,
            BatchStatus::InProgress | BatchStatus::Finalizing => Ok(self.progress(batch).await.unwrap_or_else(|error| {
                // Lines that ran may be recorded: only another claim, once this one lapses, may run them again.
                tracing::warn!(batch = %self.id, ?error, "the lines of a batch could not go on; the claim is given up");
                false
            })),
            BatchStatus::Cancelling => {
                let end =
                    BatchEnd { code: CANCELLED.to_owned(), message: "the batch was cancelled before this line ran".to_owned() };
                self.seal(end, None).await
            }
        }
    }

    /// The batch, while the claim holds.
    pub(crate) async fn load(&self) -> Result<Option<Batch>> {
        let found = self.batches.cloud.store.read(&self.id, |id, tx| Box::pin(batch::find(tx, &Scope::Operator, id))).await?;
        Ok(found.filter(|batch| batch.generation == self.generation))
    }

    /// Runs `work` in one transaction under the claim; `None` if it is gone.
    pub(crate) async fn in_claim<C, T, F>(&self, context: C, work: F) -> Result<Option<T>>
    where
        C: Send + Sync,
        T: Send,
        F: for<'t> Fn(&'t C, &'t mut Tx, Batch) -> BoxFuture<'t, Result<T>> + Send + Sync,
    {
        self.batches
            .cloud
            .store
            .write((self, context, work), |(worker, context, work), tx| {
                Box::pin(async move {
                    let found = batch::find(tx, &Scope::Operator, &worker.id).await?;
                    match found.filter(|batch| batch.generation == worker.generation && !batch.status.has_ended()) {
                        None => Ok(None),
                        Some(batch) => work(context, tx, batch).await.map(Some),
                    }
                })
            })
            .await
    }

    /// Changes the batch under the claim; `None` if it is gone.
    pub(crate) async fn change(&self, edit: impl Fn(&mut Batch) + Send + Sync) -> Result<Option<()>> {
        self.in_claim(edit, |edit, tx, mut batch| {
            edit(&mut batch);
            Box::pin(async move { batch::save(tx, &batch).await })
        })
        .await
    }

    /// From here on no line is answered. False if the claim is gone.
    pub(crate) async fn seal(&self, end: BatchEnd, problem: Option<Problem>) -> Result<bool> {
        let now = self.batches.now();
        let changed = self
            .change(|batch| {
                batch.sealed = true;
                batch.end.clone_from(&end);
                batch.problems.extend(problem.clone());
                if batch.status != BatchStatus::Cancelling {
                    batch.status = BatchStatus::Finalizing;
                    batch.times.finalizing = Some(now);
                }
            })
            .await?;
        Ok(changed.is_some())
    }

    pub(crate) fn foresee(&self, at: Timestamp) {
        *self.forecast.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }
}
