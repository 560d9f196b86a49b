//! Files for finance that are delivered by themselves.

use sublet_api::List;
use sublet_api::export_schedule as wire;
use sublet_api::object::{Deleted, ExportScheduleTag};
use sublet_cloud::data::{Cadence, Coverage, ExportContent, ExportRun, ExportSchedule, PeriodKey};
use sublet_cloud::export_schedule::NewExportSchedule;
use sublet_core::delivery::{Bucket, Target};
use sublet_core::id::ExportScheduleId;
use sublet_core::{Error, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once};

fn target_from_wire(target: wire::ExportTarget) -> Target {
    match target {
        wire::ExportTarget::Directory { folder } => Target::Directory { folder },
        wire::ExportTarget::S3 { endpoint, region, bucket, prefix, access_key_id, secret } => {
            Target::S3(Bucket { endpoint, region, bucket, prefix, access_key_id, secret })
        }
    }
}

fn target_to_wire(target: &Target) -> wire::ExportTarget {
    match target.clone() {
        Target::Directory { folder } => wire::ExportTarget::Directory { folder },
        Target::S3(Bucket { endpoint, region, bucket, prefix, access_key_id, secret }) => {
            wire::ExportTarget::S3 { endpoint, region, bucket, prefix, access_key_id, secret }
        }
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn run_to_wire(run: &ExportRun) -> wire::ExportRun {
    wire::ExportRun {
        attempt: run.attempt,
        file: run.file.clone(),
        period: run.period.map(|period| period.to_string()),
        coverage: match run.coverage {
            Coverage::Open => wire::ExportCoverage::Open,
            Coverage::Closed => wire::ExportCoverage::Closed,
        },
        rows: run.rows,
        bytes: run.bytes,
        sha256: some(&run.sha256),
        problem: some(&run.problem),
        started_at: run.started_at.into(),
        ended_at: run.ended_at.into(),
    }
}

fn to_wire(schedule: &ExportSchedule, runs: Option<&[ExportRun]>) -> wire::ExportSchedule {
    wire::ExportSchedule {
        object: ExportScheduleTag,
        id: schedule.id.clone(),
        organization: schedule.organization.clone(),
        dataset: schedule.content.dataset().to_owned(),
        version: schedule.content.version().map(str::to_owned),
        format: schedule.content.format().to_owned(),
        cadence: match schedule.cadence {
            Cadence::Daily => wire::ExportCadence::Daily,
            Cadence::Monthly => wire::ExportCadence::Monthly,
        },
        target: target_to_wire(&schedule.target),
        next_period: schedule.progress.next.map(|period| period.to_string()),
        next_at: schedule.next_at.into(),
        failures: schedule.failures,
        problem: some(&schedule.problem),
        created_by: schedule.created_by.clone(),
        created_at: schedule.created_at.into(),
        runs: runs.map(|runs| runs.iter().map(run_to_wire).collect()),
    }
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let schedules = app.cloud.list_export_schedules(&context.actor).await?;
    json(&List::whole(schedules.iter().map(|schedule| to_wire(schedule, None)).collect()))
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateExportSchedule = context.body()?;
    let from: Option<PeriodKey> = body.from.as_deref().map(str::parse).transpose().map_err(|error: Error| error.param("from"))?;
    let new = NewExportSchedule {
        organization: body.organization,
        content: ExportContent::from_parts(&body.dataset, body.version.as_deref(), body.format.as_deref())?,
        cadence: match body.cadence {
            wire::ExportCadence::Daily => Cadence::Daily,
            wire::ExportCadence::Monthly => Cadence::Monthly,
        },
        target: target_from_wire(body.target),
        from,
    };
    let render = |schedule: &ExportSchedule| text_of(&to_wire(schedule, Some(&[])));
    let outcome = app.cloud.create_export_schedule(&context.call()?, &new, &render).await?;
    once(outcome, |schedule| to_wire(schedule, Some(&[])))
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: ExportScheduleId = context.path("id")?;
    let (schedule, runs) = app.cloud.get_export_schedule(&context.actor, &id).await?;
    json(&to_wire(&schedule, Some(&runs)))
}

pub async fn run(app: App, context: Context) -> Result<Answer> {
    let id: ExportScheduleId = context.path("id")?;
    let (schedule, runs) = app.cloud.run_export_schedule(&context.actor, &id).await?;
    json(&to_wire(&schedule, Some(&runs)))
}

pub async fn delete(app: App, context: Context) -> Result<Answer> {
    let id: ExportScheduleId = context.path("id")?;
    app.cloud.delete_export_schedule(&context.actor, &id).await?;
    json(&Deleted::new(ExportScheduleTag::TEXT, id.to_string()))
}
