//! Who works on which batch: claims, renewals, and one worker for each batch that this process has.
//!
//! A pass may be run any number of times. When a batch waits that has more right to be worked on than one that is, the
//! latter gives way: its lines end, their answers arrive, and its claim is given up. A worker looks at its batch's row, does what the row says is
//! next, and ends when the batch has ended or the claim is gone; a crash at any point leaves a row from
//! which the next claim goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sublet_core::batch::BatchStatus;
use sublet_core::id::{BatchId, ProjectId};
use sublet_core::{BoxFuture, DurationMs, Result, Scope, Timestamp};
use sublet_store::batch::{self, Batch, BatchEnd, Claim, Problem, Renewal, Waiting};
use sublet_store::{Tx, batch_line};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::batch::{Batches, CANCELLED};
use crate::batch_turns::{TURN, Turn, plan_change};

/// Batches that one process works on at once.
const HELD_MAX: usize = 8;
/// Projects with waiting batches that are looked at.
const WAITING_MAX: i64 = 256;
/// How long it is known when a project had its last turn: longer ago is long enough.
const TURNS_KEPT: DurationMs = DurationMs::from_hours(1);
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
    turn: Turn,
    generation: i64,
    forecast: Forecast,
    /// Set once another batch is to have its turn.
    gives_way: Arc<AtomicBool>,
    /// When it was.
    told_at: Option<Timestamp>,
    task: JoinHandle<()>,
}

impl Held {
    /// Told to give way, and not able to for longer than a turn takes: others need not wait for it.
    fn is_stuck(&self, now: Timestamp) -> bool {
        self.told_at.is_some_and(|told_at| now.since(told_at) >= TURN)
    }
}

/// What a process keeps between two passes.
#[derive(Default)]
struct Desk {
    held: BTreeMap<BatchId, Held>,
    /// For whom a batch gave way.
    first: Option<ProjectId>,
    /// When projects last had a batch begun, for as long as that matters.
    turns: BTreeMap<ProjectId, Timestamp>,
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
            let Some(project) = self.next_project(desk, now).await? else { break };
            let Some(batch) = self.claim(project, now).await? else { break };
            desk.turns.retain(|_, at| now.since(*at) < TURNS_KEPT);
            desk.turns.insert(batch.project.clone(), now);
            tracing::info!(batch = %batch.id, generation = batch.generation, status = batch.status.as_str(), "a batch was claimed");
            let held = self.begin(&batch, now);
            if let Some(stale) = desk.held.insert(batch.id, held) {
                stale.task.abort();
            }
        }
        if desk.held.len() == HELD_MAX {
            self.share(desk, now).await?;
        }
        if now.since(desk.swept_at) >= SWEEP_PERIOD {
            self.sweep().await?;
            desk.swept_at = now;
        }
        Ok(())
    }

    /// The project whose batch is begun next: the one with the fewest, of these the one whose last turn is longest ago.
    async fn next_project(&self, desk: &mut Desk, now: Timestamp) -> Result<Option<ProjectId>> {
        let waiting = self.waiting(desk, now).await?;
        if let Some(first) = desk.first.take().filter(|first| waiting.iter().any(|one| one.project == *first)) {
            return Ok(Some(first));
        }
        let count = |one: &Waiting| desk.held.values().filter(|held| held.turn.project == one.project).count();
        Ok(waiting.iter().min_by_key(|one| count(one)).map(|one| one.project.clone()))
    }

    /// Projects with batches that wait, the one first whose last turn is longest ago.
    async fn waiting(&self, desk: &Desk, now: Timestamp) -> Result<Vec<Waiting>> {
        let home = self.files.blobs.home().to_owned();
        let mut waiting = self.cloud.store.read(home, move |home, tx| Box::pin(batch::waiting(tx, home, now, WAITING_MAX))).await?;
        for one in &mut waiting {
            // The row of a batch that has ended says nothing of turns any more.
            one.last_turn = desk.turns.get(&one.project).map_or(one.last_turn, |at| one.last_turn.max(*at));
        }
        waiting.sort_by_key(|one| (one.last_turn, one.expires_at));
        Ok(waiting)
    }

    async fn claim(&self, project: ProjectId, now: Timestamp) -> Result<Option<Batch>> {
        let home = self.files.blobs.home().to_owned();
        let claim = Claim { owner: self.owner.clone(), home, project, now, until: now.plus(CLAIM_LIFE) };
        self.cloud.store.write(claim, |claim, tx| Box::pin(batch::claim(tx, claim))).await
    }

    /// Begins to work on a batch that was claimed.
    fn begin(&self, batch: &Batch, now: Timestamp) -> Held {
        let worker = Worker {
            batches: self.clone(),
            id: batch.id.clone(),
            generation: batch.generation,
            forecast: Forecast::default(),
            gives_way: Arc::default(),
        };
        let turn = Turn { batch: batch.id.clone(), project: batch.project.clone(), expires_at: batch.expires_at, since: now };
        Held {
            turn,
            generation: batch.generation,
            forecast: Arc::clone(&worker.forecast),
            gives_way: Arc::clone(&worker.gives_way),
            told_at: None,
            task: tokio::spawn(worker.run()),
        }
    }

    /// Has a batch give way, if one waits that has more right to be worked on. One at a time does.
    async fn share(&self, desk: &mut Desk, now: Timestamp) -> Result<()> {
        if desk.held.values().any(|held| held.told_at.is_some() && !held.is_stuck(now)) {
            return Ok(());
        }
        let waiting = self.waiting(desk, now).await?;
        let turns: Vec<Turn> = desk.held.values().filter(|held| held.told_at.is_none()).map(|held| held.turn.clone()).collect();
        let Some(change) = plan_change(&turns, &waiting, now) else { return Ok(()) };
        if let Some(held) = desk.held.get_mut(&change.batch) {
            tracing::info!(batch = %change.batch, project = %change.to, "a batch gives way to another project or an earlier deadline");
            held.gives_way.store(true, Ordering::Release);
            held.told_at = Some(now);
            desk.first = Some(change.to);
        }
        Ok(())
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
    gives_way: Arc<AtomicBool>,
}

impl Worker {
    /// Whether it is to let its batch go as soon as nothing of it is under way.
    pub(crate) fn gives_way(&self) -> bool {
        self.gives_way.load(Ordering::Acquire)
    }

    /// Gives the claim up, so that another batch has its turn.
    pub(crate) async fn let_go(&self, now: Timestamp) -> Result<()> {
        let claim = (self.id.clone(), self.generation);
        self.batches
            .cloud
            .store
            .write(claim, move |(id, generation), tx| Box::pin(batch::give_way(tx, id, *generation, now)))
            .await?;
        self.batches.wake.notify_one();
        Ok(())
    }

    async fn run(self) {
        loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(batch = %self.id, ?error, "a batch could not go on; it is tried again");
                    // Nothing of it is under way: lines that run end before their step does.
                    if self.gives_way() && self.let_go(self.batches.now()).await.is_ok() {
                        return;
                    }
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
