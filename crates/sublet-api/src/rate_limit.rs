//! Limits on speed: of an organization, a project or a key, its models and its end users. All that apply do apply.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::RateLimitId;
use sublet_core::rate::RateMetric;

use crate::object::RateLimitTag;
use crate::schema::{IdText, RateMetricText};
use crate::time::UnixSeconds;

/// A limit on speed. All gateways together let through what one would.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RateLimit {
    pub object: RateLimitTag,
    #[schemars(with = "IdText<RateLimitId>")]
    pub id: RateLimitId,
    /// The organization, project or key that it limits.
    pub subject: String,
    /// What it counts. A minute's and a day's allowance comes back evenly, not at once; cached input is not counted.
    #[schemars(with = "RateMetricText")]
    pub metric: RateMetric,
    pub value: i64,
    /// Counts requests for this model only; all models together if null.
    pub model: Option<String>,
    /// Every end user has the limit for himself.
    pub each_end_user: bool,
    /// Counts requests of this end user only.
    pub end_user: Option<String>,
    /// What is left now beyond what gateways hold; negative after a debt; null where every end user has his own.
    pub remaining: Option<i64>,
    pub created_at: UnixSeconds,
}

/// Body that sets a limit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRateLimit {
    /// An organization, project or key id; the organization if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[schemars(with = "RateMetricText")]
    pub metric: RateMetric,
    /// At least 1.
    pub value: i64,
    /// Counts requests for this model only. The name is the model's own, not an alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Every end user has the limit for himself; requests that name none are those of one more. The end user is
    /// `safety_identifier` or `user` of a request, in Anthropic's API `metadata.user_id`.
    #[serde(default)]
    pub each_end_user: bool,
    /// Counts requests of this end user only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_user: Option<String>,
}

/// Body that changes a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRateLimit {
    /// At least 1. What was used stays used.
    pub value: i64,
}
