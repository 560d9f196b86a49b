//! Projects: where work and keys of an organization belong.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::ProjectId;

use crate::list::list_query;
use crate::object::{Metadata, ProjectTag};
use crate::schema::IdText;
use crate::time::UnixSeconds;

/// A project (OpenAI's `organization.project`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Project {
    pub object: ProjectTag,
    #[schemars(with = "IdText<ProjectId>")]
    pub id: ProjectId,
    pub name: String,
    pub status: ProjectStatus,
    pub created_at: UnixSeconds,
    pub archived_at: Option<UnixSeconds>,
    pub metadata: Metadata,
}

/// Whether a project's keys work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProjectStatus {
    Active,
    /// Its keys are refused; what it owes and owns stays on record.
    Archived,
}

/// Body of the creation of a project.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProject {
    pub name: String,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

list_query! {
    /// Which projects.
    ProjectListQuery {
        /// Archived projects too; only active ones if left out.
        include_archived: bool,
    }
}
