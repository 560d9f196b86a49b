//! Files, in OpenAI's shape.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{FileId, OrganizationId, ProjectId};

use crate::list::list_query;
use crate::object::{ArchivedFileTag, FileTag};
use crate::schema::{IdText, PurposeText};
use crate::time::UnixSeconds;

/// A file of the project.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct File {
    pub object: FileTag,
    #[schemars(with = "IdText<FileId>")]
    pub id: FileId,
    pub bytes: u64,
    pub created_at: UnixSeconds,
    /// It is deleted then; left out if it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixSeconds>,
    pub filename: String,
    #[schemars(with = "PurposeText")]
    pub purpose: String,
    /// A file is there as soon as it is answered.
    pub status: FileStatus,
    /// SHA-256 of the content, as lower-case hex.
    pub sha256: String,
}

/// Where a file is in its life; clients of OpenAI's API read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    Processed,
}

/// The fields of the form that uploads a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CreateFile {
    /// The content, with its name: at most 200 MiB.
    #[schemars(extend("format" = "binary"))]
    pub file: String,
    #[schemars(with = "PurposeText")]
    pub purpose: String,
    /// The only instant a life is counted from: `created_at`.
    #[serde(rename = "expires_after[anchor]")]
    pub expires_after_anchor: Option<String>,
    /// How long the file is kept, in seconds: 3600 to 2592000.
    #[serde(rename = "expires_after[seconds]")]
    pub expires_after_seconds: Option<u32>,
}

list_query! {
    /// The query of a list of files.
    FileListQuery {
        /// Only files for this.
        purpose: String,
    }
}

list_query! {
    /// The query of a list of files of archived projects.
    ArchivedFileListQuery {
        /// Only files of this.
        #[schemars(with = "Option<IdText<ProjectId>>")]
        project: ProjectId,
    }
}

/// A file of a project that was archived with it. Its content is nobody's to fetch; it costs what keeping it costs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ArchivedFile {
    pub object: ArchivedFileTag,
    #[schemars(with = "IdText<FileId>")]
    pub id: FileId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    pub bytes: u64,
    #[schemars(with = "PurposeText")]
    pub purpose: String,
    /// For administrators of its organization.
    pub filename: Option<String>,
    pub created_at: UnixSeconds,
    /// It is deleted then; null if it stays.
    pub expires_at: Option<UnixSeconds>,
}
