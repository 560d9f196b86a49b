//! What was used, and what single requests used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::id::{ChargeId, KeyId, ProjectId, RequestId, SiteId};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::tier::ServiceTier;
use sublet_core::usage::{Measured, Outcome};

use crate::list::Cursor;
use crate::money::Money;
use crate::object::{BucketTag, CompletionsUsageTag, CostsTag, PageTag, RequestTag, UsageTag};
use crate::price::{Meter, Subject};
use crate::schema::{IdText, IsolationText, MeasuredText, NoticeText, OutcomeText, PriceVersionText, ServedByText, TierText};
use crate::time::{QueryInstant, Rfc3339, UnixSeconds};

/// Settled usage of a stretch of time, one line for each thing with its own price.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UsageSummary {
    pub object: UsageTag,
    /// Included.
    pub start_time: Rfc3339,
    /// Excluded.
    pub end_time: Rfc3339,
    pub lines: Vec<UsageLine>,
    /// The sum of the lines, exact.
    pub total: Money,
    /// Set aside for what runs now.
    pub held: Money,
}

/// One thing that was used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UsageLine {
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    pub subject: Subject,
    pub meter: Meter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NoticeText>")]
    pub notice: Option<NoticeClass>,
    /// For device time whose site has a price of its own: the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    /// For device time whose isolation has a price of its own: the isolation that is demanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IsolationText>")]
    pub isolation: Option<IsolationLevel>,
    /// For tokens: the tier; left out for the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TierText>")]
    pub service_tier: Option<ServiceTier>,
    /// In the meter's unit.
    pub quantity: u64,
    /// How many charges the line adds up.
    pub charges: u64,
    pub cost: Money,
}

/// Which stretch of time; the current billing period if left out.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageQuery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<QueryInstant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<QueryInstant>,
}

/// Buckets of time, in OpenAI's shape.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct BucketPage<T> {
    pub object: PageTag,
    pub data: Vec<Bucket<T>>,
    pub has_more: bool,
    /// Give it as `page` for the next buckets.
    pub next_page: Option<Cursor>,
}

/// One bucket: `start_time` included, `end_time` excluded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Bucket")]
pub struct Bucket<T> {
    pub object: BucketTag,
    pub start_time: UnixSeconds,
    pub end_time: UnixSeconds,
    pub results: Vec<T>,
}

/// Tokens of one bucket and project (OpenAI's completions usage).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CompletionsUsage {
    pub object: CompletionsUsageTag,
    /// Prompt tokens, cached ones included.
    pub input_tokens: u64,
    pub input_cached_tokens: u64,
    pub output_tokens: u64,
    pub num_model_requests: u64,
    #[schemars(with = "Option<IdText<ProjectId>>")]
    pub project_id: Option<ProjectId>,
    pub model: Option<String>,
}

/// Money of one bucket and project (OpenAI's costs; the amount is ours: exact).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Costs {
    pub object: CostsTag,
    pub amount: Money,
    pub line_item: Option<String>,
    #[schemars(with = "Option<IdText<ProjectId>>")]
    pub project_id: Option<ProjectId>,
}

/// Which buckets, with OpenAI's names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BucketQuery {
    pub start_time: QueryInstant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<QueryInstant>,
    #[serde(default)]
    pub bucket_width: BucketWidth,
    /// Buckets per page: at most 31 days or 168 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<crate::list::PageLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<Cursor>,
}

/// Length of a bucket. Days are days of the organization's time zone.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub enum BucketWidth {
    #[serde(rename = "1h")]
    Hour,
    #[default]
    #[serde(rename = "1d")]
    Day,
}

/// One request to the data plane: counts and money, never content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    pub object: RequestTag,
    #[schemars(with = "IdText<RequestId>")]
    pub id: RequestId,
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    #[schemars(with = "IdText<KeyId>")]
    pub key: KeyId,
    pub model: String,
    /// The tier that was served and charged.
    #[schemars(with = "TierText")]
    pub service_tier: ServiceTier,
    pub route: String,
    #[schemars(with = "OutcomeText")]
    pub outcome: Outcome,
    /// Who answered: the engine of the cloud's own process, another server of its fleet, or a supplier outside.
    #[schemars(with = "ServedByText")]
    pub served_by: ServedBy,
    pub usage: RequestTokens,
    /// Who counted these tokens: the engine that produced them; nobody, so that they are estimated; or an engine that
    /// counted more than is possible, of which what is possible was charged.
    #[schemars(with = "MeasuredText")]
    pub measured: Measured,
    pub cost: Money,
    #[schemars(with = "PriceVersionText")]
    pub price_version: PriceVersion,
    #[schemars(with = "Vec<IdText<ChargeId>>")]
    pub charges: Vec<ChargeId>,
    pub created_at: UnixSeconds,
    pub admitted_at: Rfc3339,
    pub first_token_at: Option<Rfc3339>,
    pub finished_at: Rfc3339,
}

/// Who answered a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServedBy {
    Engine,
    Fleet,
    Supplier,
}

/// Tokens by price kind; `input_tokens` excludes the cached ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RequestTokens {
    pub input_tokens: u64,
    pub cached_input_tokens: u64,
    pub output_tokens: u64,
}
