//! Delivers the files of schedules: a reconciler.
//!
//! One worker at a time is at a schedule: its claim has a number and an end, and is kept up for as long as it is at a file,
//! whatever it waits for. A file is put in its place before the row says so; whoever ends in between, the next one writes
//! it again. After the file comes its manifest, which says what is in it.
//!
//! Invariants: memory does not grow with a file; no month is passed over because of a failure; nothing is sent in a
//! transaction; no manifest comes after a file of somebody who claimed the schedule later.
//!
//! Deliberately absent: giving up. What stands in the way is for an operator to put right, and months do not change.

use serde::Serialize;
use sha2::{Digest, Sha256};
use sublet_core::delivery::{Delivered, DeliveryFailure, DeliveryPort};
use sublet_core::id::{ExportScheduleId, OrganizationId};
use sublet_core::{DurationMs, Error, Result, Timestamp};
use sublet_money::export_schedule::{Due, ExportContent, plan_export};
use sublet_money::focus::FocusVersion;
use sublet_money::period::BillingCalendar;
use sublet_store::billing;
use sublet_store::export_schedule::{self, ExportRun, ExportSchedule};
use tokio::sync::watch;

use crate::audit::Deed;
use crate::export::{Dataset, Export, ExportRequest};
use crate::export_schedule::calendar;
use crate::ledger::LedgerExport;
use crate::{Actor, Cloud};

/// How often it is looked for files that are due.
const LOOK_PERIOD: DurationMs = DurationMs::from_seconds(2);
/// How often it is looked whether a schedule has something due.
const LOOK_EVERY: DurationMs = DurationMs::from_seconds(300);
/// What is claimed in one look.
const AT_ONCE: usize = 20;
/// Nobody else is at the same schedule meanwhile.
const CLAIM: DurationMs = DurationMs::from_seconds(180);
/// A claim is kept up so often, so it lasts though some of that is late.
const RENEW_EVERY: DurationMs = DurationMs::from_seconds(30);
/// The first repetition comes so much later; each one after twice as late.
const BACKOFF_BASE: DurationMs = DurationMs::from_seconds(60);
const BACKOFF_MAX: DurationMs = DurationMs::from_hours(4);
/// What is kept of why an attempt failed, in characters.
const PROBLEM_CHARS_MAX: usize = 400;

/// What one look did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DeliveryReport {
    /// Files that were delivered.
    pub delivered: u64,
    /// Attempts that failed, and are made again.
    pub failed: u64,
    /// Files that somebody else took over.
    pub superseded: u64,
}

/// Why a file was not delivered.
enum Broken {
    Failed(String),
    /// Somebody else has the claim, or the schedule is gone.
    Superseded,
}

impl From<DeliveryFailure> for Broken {
    fn from(DeliveryFailure(why): DeliveryFailure) -> Self {
        Self::Failed(why)
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Failed(format!("{error} {}", error.private_context().join("; ")).trim_end().to_owned())
    }
}

/// What a file came to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Totals {
    rows: u64,
    bytes: u64,
    sha256: String,
}

/// Where a file's content comes from.
enum Content {
    Table(Box<Export>),
    Journal(Box<LedgerExport>),
}

impl Content {
    async fn next(&mut self, cloud: &Cloud) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Table(export) => cloud.next_export_piece(export).await,
            Self::Journal(export) => export.next().await.map(|piece| piece.map(String::into_bytes)),
        }
    }
    fn rows(&self) -> u64 {
        match self {
            Self::Table(export) => export.row_count,
            Self::Journal(export) => export.entries,
        }
    }
}

/// What stands beside a file, for programs.
#[derive(Serialize)]
struct Manifest<'a> {
    file: &'a str,
    dataset: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<String>,
    /// `open` or `closed`.
    coverage: &'static str,
    rows: u64,
    bytes: u64,
    sha256: &'a str,
    /// When it was begun: what came later may be missing of what is open.
    as_of: String,
    schedule: &'a ExportScheduleId,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<&'a OrganizationId>,
}

/// A schedule that this process is at.
struct Work<'a> {
    claimed: &'a ExportSchedule,
    due: Due,
    calendar: &'a BillingCalendar,
    started_at: Timestamp,
}

impl Cloud {
    /// Delivers what is due until `stop` says so.
    pub async fn run_exports(&self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            if let Err(error) = self.deliver_due(stop.clone()).await {
                tracing::error!(%error, private = ?error, "scheduled exports were not looked at; it is tried again");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD.to_std()) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Delivers what is due now.
    pub async fn reconcile_exports(&self) -> Result<DeliveryReport> {
        let (_goes_on, never) = watch::channel(false);
        self.deliver_due(never).await
    }

    /// A file under way when this process stops is begun again by the next one.
    async fn deliver_due(&self, mut stop: watch::Receiver<bool>) -> Result<DeliveryReport> {
        let mut report = DeliveryReport::default();
        let Some(port) = &self.settings.exports else { return Ok(report) };
        for _ in 0..AT_ONCE {
            if *stop.borrow() {
                break;
            }
            let now = self.now();
            let claimed = self.store.write(now, |now, tx| Box::pin(export_schedule::claim(tx, *now, CLAIM))).await?;
            let Some(claimed) = claimed else { break };
            let stopping = async {
                let _told = stop.wait_for(|stop| *stop).await.is_ok();
            };
            tokio::select! {
                looked = self.look_at_schedule(port.as_ref(), &claimed, &mut report) => looked?,
                () = stopping => {
                    self.store.write(&claimed, |claimed, tx| Box::pin(export_schedule::release(tx, claimed, claimed))).await?;
                }
            }
        }
        Ok(report)
    }

    async fn look_at_schedule(&self, port: &dyn DeliveryPort, claimed: &ExportSchedule, report: &mut DeliveryReport) -> Result<()> {
        let now = self.now();
        let (calendar, is_closed) = self.look_at_months(claimed, now).await?;
        let Some(due) = plan_export(&claimed.progress, claimed.cadence, (&calendar, now), is_closed)? else {
            let later = ExportSchedule { next_at: now.plus(LOOK_EVERY), ..claimed.clone() };
            let at = (claimed, later);
            self.store.write(at, |(claimed, later), tx| Box::pin(export_schedule::release(tx, claimed, later))).await?;
            return Ok(());
        };
        let work = Work { claimed, due, calendar: &calendar, started_at: now };
        // Both at once: neither waits for a connection that the other has.
        let written = tokio::select! {
            written = self.write_file(port, &work) => written,
            lost = self.keep_claim(claimed) => Err(lost),
        };
        let noted = match written {
            Err(Broken::Superseded) => false,
            Ok(totals) => {
                let noted = self.note_delivered(&work, &totals).await?;
                report.delivered += u64::from(noted);
                noted
            }
            Err(Broken::Failed(why)) => {
                let noted = self.note_failed(&work, &why).await?;
                report.failed += u64::from(noted);
                noted
            }
        };
        report.superseded += u64::from(!noted);
        Ok(())
    }

    /// The days and months of a schedule, and whether the oldest that was not delivered as closed is closed.
    async fn look_at_months(&self, schedule: &ExportSchedule, now: Timestamp) -> Result<(BillingCalendar, bool)> {
        let close_after = self.settings.close_after;
        self.store
            .read(schedule, move |schedule, tx| {
                Box::pin(async move {
                    let organization = schedule.organization.as_ref();
                    let calendar = calendar(tx, organization).await?;
                    let Some(next) = schedule.progress.next else { return Ok((calendar, false)) };
                    // Whose months nobody bills are over by the clock alone: of all, where a day ends last.
                    let ends_at = match organization {
                        Some(_) => calendar.period(next)?.interval.ends_at,
                        None => BillingCalendar::new("Etc/GMT+12")?.period(next)?.interval.ends_at,
                    };
                    let is_over = ends_at.plus(close_after) <= now;
                    let is_closed = is_over && billing::is_billed(tx, organization, next).await?;
                    Ok((calendar, is_closed))
                })
            })
            .await
    }

    async fn write_file(&self, port: &dyn DeliveryPort, work: &Work<'_>) -> Result<Totals, Broken> {
        let schedule = work.claimed;
        let name = schedule.content.file_name(work.due.period);
        let mut content = self.open_content(work).await?;
        let file = delivered(schedule, &name)?;
        let mut delivery = port.begin(&file).await?;
        let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
        while let Some(piece) = content.next(self).await? {
            hash.update(&piece);
            bytes = bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            delivery.append(piece).await?;
        }
        self.renew_claim(schedule).await?;
        // Begun before the file is in its place: whoever claims the schedule from now on clears both.
        let mut beside = port.begin(&delivered(schedule, &schedule.content.manifest_name(work.due.period))?).await?;
        delivery.commit().await?;
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let totals = Totals { rows: content.rows(), bytes, sha256 };
        beside.append(manifest(work, &name, &totals)?).await?;
        beside.commit().await?;
        Ok(totals)
    }

    async fn open_content(&self, work: &Work<'_>) -> Result<Content> {
        let system = Actor::system();
        let table = |dataset, version, format| ExportRequest {
            dataset,
            version,
            format,
            period: work.due.period,
            organization: work.claimed.organization.clone(),
        };
        let request = match work.claimed.content {
            ExportContent::Focus(version, format) => table(Dataset::Focus, version, format),
            ExportContent::Charges(format) => table(Dataset::Charges, FocusVersion::default(), format),
            ExportContent::Supporting(dataset, format) => table(Dataset::Supporting(dataset), dataset.version(), format),
            ExportContent::Journal(format) => return Ok(Content::Journal(Box::new(self.export_ledger(&system, format)?))),
        };
        Ok(Content::Table(Box::new(self.open_export(&system, &request).await?)))
    }

    /// Keeps a claim up, until it is lost.
    async fn keep_claim(&self, claimed: &ExportSchedule) -> Broken {
        loop {
            tokio::time::sleep(RENEW_EVERY.to_std()).await;
            if let Err(broken) = self.renew_claim(claimed).await {
                return broken;
            }
        }
    }

    async fn renew_claim(&self, claimed: &ExportSchedule) -> Result<(), Broken> {
        let until = self.now().plus(CLAIM);
        let kept = self.store.write(claimed, move |claimed, tx| Box::pin(export_schedule::renew(tx, claimed, until))).await?;
        if kept { Ok(()) } else { Err(Broken::Superseded) }
    }

    /// False if somebody else claimed it since.
    async fn note_delivered(&self, work: &Work<'_>, totals: &Totals) -> Result<bool> {
        let progress = work.claimed.progress.after(&work.due, (work.calendar, work.started_at))?;
        let now = self.now();
        // At once again: there may be more that is due.
        let after = ExportSchedule { progress, failures: 0, problem: String::new(), next_at: now, ..work.claimed.clone() };
        let run = run_of(work, Some(totals), String::new(), now)?;
        self.note(work.claimed, after, run).await
    }

    async fn note_failed(&self, work: &Work<'_>, why: &str) -> Result<bool> {
        let problem: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(PROBLEM_CHARS_MAX).collect();
        let (now, failures) = (self.now(), work.claimed.failures.saturating_add(1));
        tracing::warn!(schedule = %work.claimed.id, failures, problem, "a scheduled export was not delivered; it is tried again");
        let after =
            ExportSchedule { failures, problem: problem.clone(), next_at: now.plus(backoff(failures)), ..work.claimed.clone() };
        let run = run_of(work, None, problem, now)?;
        self.note(work.claimed, after, run).await
    }

    async fn note(&self, claimed: &ExportSchedule, after: ExportSchedule, run: ExportRun) -> Result<bool> {
        self.store
            .write((self, claimed, after, run), |(cloud, claimed, after, run), tx| {
                Box::pin(async move {
                    let is_own = export_schedule::release(tx, claimed, after).await?;
                    if is_own {
                        export_schedule::insert_run(tx, &claimed.id, run).await?;
                    }
                    if is_own && run.problem.is_empty() {
                        let detail = format!("{} {} to {}", run.file, run.sha256, claimed.target);
                        let organization = claimed.organization.as_ref();
                        let deed = Deed { organization, action: "export_schedule.deliver", target: claimed.id.as_str(), detail };
                        cloud.record(tx, &Actor::system(), deed, run.ended_at).await?;
                    }
                    Ok(is_own)
                })
            })
            .await
    }
}

fn delivered(schedule: &ExportSchedule, name: &str) -> Result<Delivered> {
    Ok(Delivered { target: schedule.target.clone(), name: name.parse()?, schedule: schedule.id.clone(), attempt: schedule.attempt })
}

fn manifest(work: &Work<'_>, name: &str, totals: &Totals) -> Result<Vec<u8>> {
    let (schedule, content) = (work.claimed, work.claimed.content);
    let manifest = Manifest {
        file: name,
        dataset: content.dataset(),
        version: content.version(),
        format: content.format(),
        period: work.due.period.map(|period| period.to_string()),
        coverage: work.due.coverage.as_str(),
        rows: totals.rows,
        bytes: totals.bytes,
        sha256: &totals.sha256,
        as_of: work.started_at.to_string(),
        schedule: &schedule.id,
        organization: schedule.organization.as_ref(),
    };
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|error| Error::internal(error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

fn run_of(work: &Work<'_>, totals: Option<&Totals>, problem: String, ended_at: Timestamp) -> Result<ExportRun> {
    let count = |count: u64| i64::try_from(count).map_err(|_| Error::internal("a file is beyond all counts"));
    Ok(ExportRun {
        attempt: work.claimed.attempt,
        file: work.claimed.content.file_name(work.due.period),
        period: work.due.period,
        coverage: work.due.coverage,
        rows: count(totals.map_or(0, |totals| totals.rows))?,
        bytes: count(totals.map_or(0, |totals| totals.bytes))?,
        sha256: totals.map_or_else(String::new, |totals| totals.sha256.clone()),
        problem,
        started_at: work.started_at,
        ended_at,
    })
}

/// How long after so many failures it is tried again.
fn backoff(failures: i64) -> DurationMs {
    let doublings = u32::try_from(failures.clamp(1, 20)).unwrap_or(1) - 1;
    let wait = BACKOFF_BASE.millis().saturating_mul(1_i64 << doublings);
    DurationMs::from_millis(wait.min(BACKOFF_MAX.millis()))
}
