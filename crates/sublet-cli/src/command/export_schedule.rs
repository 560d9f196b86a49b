//! `sublet exports`.

use clap::{Args, Subcommand};
use sublet_api::export_schedule::{CreateExportSchedule, ExportCadence, ExportRun, ExportSchedule, ExportTarget};
use sublet_core::delivery::{BucketName, Folder, SigningWord};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{ExportScheduleId, OrganizationId};
use sublet_core::supply::{BaseUrl, SecretName};

use crate::Context;
use crate::context::Style;
use crate::render::{self, Cell, Table};

/// Files for finance that are delivered by themselves.
#[derive(Subcommand, Debug)]
pub enum ExportScheduleCommand {
    /// Have files delivered into a directory or a bucket from now on (operator)
    #[command(disable_version_flag = true)]
    Schedule(Box<ScheduleArgs>),
    /// List what is delivered where (operator)
    List,
    /// Show one schedule and its latest attempts (operator)
    Show { schedule: ExportScheduleId },
    /// Deliver at once, also what was delivered today already (operator)
    Run { schedule: ExportScheduleId },
    /// Deliver no more; what was delivered stays (operator)
    Delete { schedule: ExportScheduleId },
}

/// What is delivered where.
#[derive(Args, Debug)]
pub struct ScheduleArgs {
    /// focus: cost and usage for FinOps programs; billing-period, invoice-detail, contract-commitment: what is beside it;
    /// charges: one row for each charge; journal: the whole books
    #[arg(default_value = "focus")]
    dataset: String,
    /// Of the FOCUS specification, 1.2 or 1.4
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// csv or parquet; beancount or hledger for the journal
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// daily: open months each day, and once more when they are closed; monthly: months when they are closed
    #[arg(long, value_name = "CADENCE", default_value = "daily")]
    cadence: ExportCadence,
    /// Of one organization; of all if left out
    #[arg(long, value_name = "ORGANIZATION")]
    of: Option<OrganizationId>,
    /// The first month, such as 2026-01; the one that runs if left out
    #[arg(long, value_name = "MONTH")]
    from: Option<String>,
    /// Into a folder below the server's directory for exports
    #[arg(long, value_name = "FOLDER", conflicts_with = "bucket", required_unless_present = "bucket")]
    directory: Option<Folder>,
    /// Into a bucket of S3, or of a store that speaks its protocol
    #[arg(long, value_name = "BUCKET", requires = "access_key_id", requires = "secret")]
    bucket: Option<BucketName>,
    /// What keys begin with
    #[arg(long, value_name = "FOLDER", requires = "bucket")]
    prefix: Option<Folder>,
    /// Where the store is; Amazon's of the region if left out
    #[arg(long, value_name = "URL", requires = "bucket")]
    endpoint: Option<BaseUrl>,
    #[arg(long, default_value = "us-east-1", requires = "bucket")]
    region: SigningWord,
    /// As whom
    #[arg(long, value_name = "ID", requires = "bucket")]
    access_key_id: Option<SigningWord>,
    /// The name of the secret that has the access key's secret
    #[arg(long, value_name = "SECRET", requires = "bucket")]
    secret: Option<SecretName>,
}

impl ScheduleArgs {
    fn body(self) -> Result<CreateExportSchedule> {
        let target = match (self.bucket, self.access_key_id, self.secret) {
            (Some(bucket), Some(access_key_id), Some(secret)) => {
                let of_region = || format!("https://s3.{}.amazonaws.com", self.region.as_str()).parse();
                let endpoint = self.endpoint.map_or_else(of_region, Ok)?;
                let prefix = self.prefix.unwrap_or_default();
                ExportTarget::S3 { endpoint, region: self.region, bucket, prefix, access_key_id, secret }
            }
            _ => {
                let missing = || Error::new(ErrorCode::Usage, "files go into a --directory or a --bucket");
                ExportTarget::Directory { folder: self.directory.ok_or_else(missing)? }
            }
        };
        Ok(CreateExportSchedule {
            dataset: self.dataset,
            version: self.version,
            format: self.format,
            cadence: self.cadence,
            target,
            organization: self.of,
            from: self.from,
        })
    }
}

impl ExportScheduleCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Schedule(args) => {
                let created = client.create_export_schedule(&args.body()?, &context.fresh_key())?;
                context.show(&created, |schedule| table(std::slice::from_ref(schedule)))
            }
            Self::List => context.show(&client.export_schedules()?, |list| table(&list.data)),
            Self::Show { schedule } => context.show_text(&client.export_schedule(&schedule)?, details),
            Self::Run { schedule } => context.show_text(&client.run_export_schedule(&schedule)?, details),
            Self::Delete { schedule } => context.show(&client.delete_export_schedule(&schedule)?, |deleted| {
                Table::of_fields(vec![("deleted", Cell::text(&deleted.id))])
            }),
        }
    }
}

fn place(target: &ExportTarget) -> String {
    match target {
        ExportTarget::Directory { folder } => format!("directory {}", folder.as_str()),
        ExportTarget::S3 { endpoint, bucket, prefix, .. } => {
            format!("{}/{}/{}", endpoint.as_str(), bucket.as_str(), prefix.as_str())
        }
    }
}

fn content(schedule: &ExportSchedule) -> String {
    let version = schedule.version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
    format!("{}{version} {}", schedule.dataset, schedule.format)
}

fn table(schedules: &[ExportSchedule]) -> Table {
    let rows = schedules.iter().map(|schedule| {
        [
            Cell::text(schedule.id.as_str()),
            Cell::text(content(schedule)),
            Cell::text(schedule.cadence.as_str()),
            Cell::text(schedule.organization.as_ref().map_or("all", OrganizationId::as_str)),
            Cell::text(place(&schedule.target)),
            Cell::optional(schedule.next_period.as_ref()),
            Cell::optional(schedule.problem.as_ref()),
        ]
    });
    let titles = ["schedule", "content", "cadence", "of", "to", "closes next", "problem"];
    Table::new(titles, "nothing is delivered").rows(rows)
}

fn details(schedule: &ExportSchedule, style: Style) -> String {
    let runs = schedule.runs.as_deref().unwrap_or_default().iter().map(|run: &ExportRun| {
        [
            Cell::text(render::instant(run.ended_at.0)),
            Cell::text(&run.file),
            Cell::text(run.coverage.as_str()),
            Cell::number(run.rows.to_string()),
            Cell::number(run.bytes.to_string()),
            Cell::optional(run.problem.as_ref().or(run.sha256.as_ref())),
        ]
    });
    let titles = ["ended", "file", "month is", "rows", "bytes", "sha-256, or problem"];
    let runs = Table::new(titles, "nothing was delivered yet").rows(runs);
    format!("{}\n{}", table(std::slice::from_ref(schedule)).render(style), runs.render(style))
}
