//! Files for finance that are delivered by themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::delivery::{BucketName, Folder, SigningWord};
use sublet_core::id::{ExportScheduleId, OrganizationId};
use sublet_core::supply::{BaseUrl, SecretName};

use crate::object::ExportScheduleTag;
use crate::payment::words;
use crate::schema::IdText;
use crate::time::{Rfc3339, UnixSeconds};

words! {
    /// How often a schedule delivers.
    ExportCadence {
        /// Every open month each day, in the place of the file before, and for the last time when it is closed.
        Daily = "daily",
        /// A month when it is closed.
        Monthly = "monthly",
    }
}

words! {
    /// What a file has of a month.
    ExportCoverage {
        /// What there was by then.
        Open = "open",
        /// All of it, for ever.
        Closed = "closed",
    }
}

/// Where files go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ExportTarget {
    /// A directory below that of the server's option `--exports`.
    Directory {
        /// Such as `finance/focus`; the directory itself if left out.
        #[serde(default)]
        #[schemars(with = "String")]
        folder: Folder,
    },
    /// A bucket of S3, or of a store that speaks its protocol.
    S3 {
        /// `http://` or `https://` and a host. The bucket is the first part of paths.
        #[schemars(with = "String")]
        endpoint: BaseUrl,
        #[schemars(with = "String")]
        region: SigningWord,
        #[schemars(with = "String")]
        bucket: BucketName,
        /// What keys begin with, such as `sublet/focus`.
        #[serde(default)]
        #[schemars(with = "String")]
        prefix: Folder,
        #[schemars(with = "String")]
        access_key_id: SigningWord,
        /// The name of the secret that has the access key's secret: a file in the folder `secrets` of the data directory.
        #[schemars(with = "String")]
        secret: SecretName,
    },
}

/// What is delivered where, and how far it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExportSchedule {
    pub object: ExportScheduleTag,
    #[schemars(with = "IdText<ExportScheduleId>")]
    pub id: ExportScheduleId,
    /// Of whom; null is of every organization.
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub organization: Option<OrganizationId>,
    /// `focus`, `billing-period`, `invoice-detail`, `contract-commitment`, `charges` or `journal`.
    pub dataset: String,
    /// Of the FinOps Open Cost and Usage Specification, for `focus` and what is beside it.
    pub version: Option<String>,
    pub format: String,
    pub cadence: ExportCadence,
    pub target: ExportTarget,
    /// The oldest month that was not delivered as closed; null for the journal, which has no months.
    pub next_period: Option<String>,
    /// When it is looked at next.
    pub next_at: Rfc3339,
    /// Attempts that failed since the last that did not.
    pub failures: i64,
    /// Why the last attempt failed; null once one did not.
    pub problem: Option<String>,
    pub created_by: String,
    pub created_at: UnixSeconds,
    /// The latest attempts, at most a hundred, the last one first; null in lists.
    pub runs: Option<Vec<ExportRun>>,
}

/// An attempt to deliver a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ExportRun {
    pub attempt: i64,
    pub file: String,
    /// A month like `2026-03`; null for the journal.
    pub period: Option<String>,
    pub coverage: ExportCoverage,
    /// Rows of tables, entries of the journal.
    pub rows: i64,
    pub bytes: i64,
    /// Of the file, in hexadecimal digits; null for what failed.
    pub sha256: Option<String>,
    /// Why it failed; null for what was delivered.
    pub problem: Option<String>,
    pub started_at: Rfc3339,
    pub ended_at: Rfc3339,
}

/// Body that has files delivered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateExportSchedule {
    /// `focus`, cost and usage for FinOps programs; beside it `billing-period`, `invoice-detail` and `contract-commitment`;
    /// `charges`, one row for each charge; or `journal`, the whole books.
    pub dataset: String,
    /// For `focus`: `1.2` or `1.4`; `1.2` if left out. What is beside it is of `1.4` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `csv` or `parquet`, and `beancount` or `hledger` for `journal`; the first of them if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    pub cadence: ExportCadence,
    pub target: ExportTarget,
    /// Of one organization; of all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub organization: Option<OrganizationId>,
    /// The first month, such as `2026-01`; the one that runs if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}
