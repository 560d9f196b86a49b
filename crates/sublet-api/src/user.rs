//! People of an organization.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::UserId;

use crate::object::UserTag;
use crate::schema::IdText;
use crate::time::UnixSeconds;

/// A person (OpenAI's `organization.user`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct User {
    pub object: UserTag,
    #[schemars(with = "IdText<UserId>")]
    pub id: UserId,
    pub name: String,
    pub email: String,
    pub role: Role,
    pub added_at: UnixSeconds,
}

/// What a person may do in the organization.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, including people and limits.
    Owner,
    /// Projects, keys, work.
    Developer,
    /// Bills, limits, usage.
    Billing,
    /// Looks, changes nothing.
    Reader,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Owner, Self::Developer, Self::Billing, Self::Reader];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Developer => "developer",
            Self::Billing => "billing",
            Self::Reader => "reader",
        }
    }
}

/// Body of the creation of a user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    pub name: String,
    pub email: String,
    pub role: Role,
}
