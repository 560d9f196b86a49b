//! Spend limits on organizations, projects and keys. All that apply do apply.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{KeyId, OrganizationId, ProjectId};

use crate::money::{Amount, Money};
use crate::object::SpendLimitTag;
use crate::schema::IdText;
use crate::time::{Rfc3339, UnixSeconds};

/// A limit and how much of it is used. Its name is its owner and its window.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SpendLimit {
    pub object: SpendLimitTag,
    pub owner: LimitOwner,
    pub window: LimitWindow,
    /// Counts requests for this model only; all models together if null.
    pub model: Option<String>,
    /// Every end user has the limit for himself; what is spent, held and left is then that of one who spent nothing.
    pub each_end_user: bool,
    /// Counts requests of this end user only.
    pub end_user: Option<String>,
    pub amount: Money,
    /// Settled in the window.
    pub spent: Money,
    /// Set aside for what runs now.
    pub held: Money,
    /// `amount - spent - held`.
    pub remaining: Money,
    /// When the window ends and the next begins; null for `total`.
    pub resets_at: Option<Rfc3339>,
    pub created_at: UnixSeconds,
}

/// Whose spending a limit bounds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind", content = "id")]
pub enum LimitOwner {
    Organization(#[schemars(with = "IdText<OrganizationId>")] OrganizationId),
    Project(#[schemars(with = "IdText<ProjectId>")] ProjectId),
    Key(#[schemars(with = "IdText<KeyId>")] KeyId),
}

/// The stretch of time a limit counts over, in the organization's time zone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitWindow {
    /// For ever.
    Total,
    Day,
    Month,
}

impl LimitWindow {
    pub const ALL: [Self; 3] = [Self::Total, Self::Day, Self::Month];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// Which of the owner's requests a limit is on; all of them if nothing is said.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitQuery {
    /// Requests for this model; the name is the model's own, not an alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Every end user has the limit for himself. The end user is `safety_identifier` or `user` of a request, in Anthropic's
    /// API `metadata.user_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each_end_user: Option<bool>,
    /// Requests of this end user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_user: Option<String>,
}

/// Body that sets a limit; the window is in the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSpendLimit {
    /// In the organization's currency.
    pub amount: Amount,
}
