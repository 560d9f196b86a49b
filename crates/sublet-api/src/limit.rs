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

/// Body that sets a limit; the window is in the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSpendLimit {
    /// In the organization's currency.
    pub amount: Amount,
}
