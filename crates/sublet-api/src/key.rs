//! Keys. The secret is shown once, when the key is made.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{KeyId, OrganizationId, ProjectId};
use sublet_core::key::KeyPlane;

use crate::object::{AdminKeyTag, KeyTag, Metadata};
use crate::schema::{IdText, PlaneText};
use crate::time::{Rfc3339, UnixSeconds};

/// A key without its secret (OpenAI's `organization.project.api_key`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Key {
    pub object: KeyTag,
    #[schemars(with = "IdText<KeyId>")]
    pub id: KeyId,
    pub name: String,
    #[schemars(with = "PlaneText")]
    pub plane: KeyPlane,
    /// Prefix and last characters, to tell keys apart.
    pub redacted_value: String,
    /// The project whose models and compute it opens; none on the other planes.
    #[schemars(with = "Option<IdText<ProjectId>>")]
    pub project: Option<ProjectId>,
    /// Models it may call; all if null.
    pub models: Option<Vec<String>>,
    pub rate_limits: RateLimits,
    pub created_at: UnixSeconds,
    pub expires_at: Option<UnixSeconds>,
    pub revoked_at: Option<UnixSeconds>,
    pub last_used_at: Option<UnixSeconds>,
    pub metadata: Metadata,
}

/// A key without its secret that opens an organization (OpenAI's `organization.admin_api_key`), or the cloud itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AdminKey {
    pub object: AdminKeyTag,
    #[schemars(with = "IdText<KeyId>")]
    pub id: KeyId,
    pub name: String,
    /// Prefix and last characters, to tell keys apart.
    pub redacted_value: String,
    pub owner: KeyOwner,
    pub created_at: UnixSeconds,
    pub expires_at: Option<UnixSeconds>,
    pub revoked_at: Option<UnixSeconds>,
    pub last_used_at: Option<UnixSeconds>,
}

/// What a key opens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeyOwner {
    #[serde(rename = "type")]
    pub kind: KeyOwnerKind,
    /// None of the operator.
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub id: Option<OrganizationId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyOwnerKind {
    Organization,
    Operator,
}

/// Body of the creation of a key like the one that creates it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAdminKey {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Rfc3339>,
}

/// A new key with its secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CreatedAdminKey {
    #[serde(flatten)]
    pub key: AdminKey,
    /// The secret. It cannot be shown again.
    pub value: SecretText,
}

/// Limits on speed rather than spend; what is left out is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u32>,
}

impl From<RateLimits> for sublet_core::rate::RateLimits {
    fn from(limits: RateLimits) -> Self {
        Self {
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            concurrent_requests: limits.concurrent_requests,
        }
    }
}
impl From<sublet_core::rate::RateLimits> for RateLimits {
    fn from(limits: sublet_core::rate::RateLimits) -> Self {
        Self {
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            concurrent_requests: limits.concurrent_requests,
        }
    }
}

/// Body of the creation of a project key.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    pub name: String,
    /// Models it may call; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Rfc3339>,
    #[serde(default)]
    pub rate_limits: RateLimits,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// A new key with its secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CreatedKey {
    #[serde(flatten)]
    pub key: Key,
    /// The secret. It cannot be shown again.
    pub value: SecretText,
}

/// A secret on its one way to its owner. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    pub fn reveal(&self) -> &str {
        &self.0
    }
}
impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_serialized_but_never_printed() {
        let secret = SecretText::new("sk-sub-0123");
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#""sk-sub-0123""#);
        assert!(!format!("{secret:?}").contains("0123"));
    }
}
