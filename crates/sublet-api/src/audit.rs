//! The audit log: who did what, from where, when, with what result.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{AuditId, OrganizationId, RequestId};

use crate::list::list_query;
use crate::object::AuditEntryTag;
use crate::schema::IdText;
use crate::time::{QueryInstant, UnixSeconds};

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    pub object: AuditEntryTag,
    #[schemars(with = "IdText<AuditId>")]
    pub id: AuditId,
    /// What was done, such as `project.created`.
    #[serde(rename = "type")]
    pub action: String,
    pub effective_at: UnixSeconds,
    pub actor: AuditActor,
    /// Where the call came from; null for the cloud itself.
    pub address: Option<String>,
    /// The object it was done to, by id.
    pub target: Option<String>,
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub organization: Option<OrganizationId>,
    #[schemars(with = "Option<IdText<RequestId>>")]
    pub request_id: Option<RequestId>,
    /// `ok`, or the error code of a refusal.
    pub result: String,
    /// What else is worth keeping; never a secret.
    pub detail: Option<serde_json::Value>,
}

/// Who acted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AuditActor {
    pub kind: ActorKind,
    /// The key's or user's id, or the name of the part of the cloud.
    pub id: String,
}

/// What kind of actor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    Key,
    User,
    System,
}

list_query! {
    /// Which entries.
    AuditListQuery {
        /// Only this action.
        action: String,
        /// Only about this object.
        target: String,
        /// Included.
        start_time: QueryInstant,
        /// Excluded.
        end_time: QueryInstant,
    }
}
