//! Spend limits on organizations, projects and keys. All that apply do apply.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{KeyId, OrganizationId, ProjectId, SpendAlertId};

use crate::money::{Amount, Money};
use crate::object::{SpendAlertTag, SpendForecastTag, SpendLimitTag};
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
    /// What happens when it is reached.
    pub at_limit: AtLimit,
    /// What admitted work may cost beyond the limit at most, all of it together; null but for `finish_then_stop`.
    pub overrun_max: Option<Money>,
    /// At which parts of it somebody is told.
    pub alerts: Vec<AlertRule>,
    /// Settled in the window.
    pub spent: Money,
    /// Set aside for what runs now.
    pub held: Money,
    /// `amount - spent - held`, and zero where that is negative.
    pub remaining: Money,
    /// When something was refused for it in this window, or went on beyond it, for the first time.
    pub reached_at: Option<Rfc3339>,
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

/// What happens when a limit is reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtLimit {
    /// Nothing is spent beyond it: a stream ends at the last token that is paid for, a lease in time.
    #[default]
    Hard,
    /// Nothing is stopped: it only tells.
    Soft,
    /// New work is refused; requests and leases that were admitted go on, by `overrun_max` beyond the limit at most.
    FinishThenStop,
}

impl AtLimit {
    pub const ALL: [Self; 3] = [Self::Hard, Self::Soft, Self::FinishThenStop];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
            Self::FinishThenStop => "finish_then_stop",
        }
    }
}

/// Of what a threshold is a part.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertBasis {
    /// What was settled.
    Actual,
    /// What is expected at the end of the window.
    Forecast,
}

impl AlertBasis {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Actual => "actual",
            Self::Forecast => "forecast",
        }
    }
}

/// A threshold. It is told once in each window, and again only if the limit gets another amount.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertRule {
    pub on: AlertBasis,
    /// Percent of the limit, 1 to 1000.
    pub percent: u16,
}

/// Body that sets a limit; the window is in the path. What is left out stays as it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSpendLimit {
    /// In the organization's currency.
    pub amount: Amount,
    /// `hard` for a new limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_limit: Option<AtLimit>,
    /// In the organization's currency; for `finish_then_stop`, together with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrun_max: Option<Amount>,
    /// All of them; none for a new limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<Vec<AlertRule>>,
}

/// A threshold that was crossed, with the figures of that instant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SpendAlert {
    pub object: SpendAlertTag,
    #[schemars(with = "IdText<SpendAlertId>")]
    pub id: SpendAlertId,
    pub owner: LimitOwner,
    pub window: LimitWindow,
    pub model: Option<String>,
    pub end_user: Option<String>,
    /// Of the window; null for `total`.
    pub starts_at: Option<Rfc3339>,
    pub ends_at: Option<Rfc3339>,
    pub on: AlertBasis,
    pub percent: u16,
    /// Something did not fit in what was left of the limit; less is spent than `percent` says.
    pub refused: bool,
    /// The limit.
    pub amount: Money,
    pub spent: Money,
    pub held: Money,
    /// What was expected at the end of the window, as far as that was known.
    pub forecast: Option<Money>,
    pub created_at: Rfc3339,
}

/// What a limit will stand at when its window ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SpendForecast {
    pub object: SpendForecastTag,
    pub limit: SpendLimit,
    /// Null where there is not enough to say anything, and for `total`.
    pub forecast: Option<ForecastBand>,
}

/// What will have been spent, not cut at the limit: what is above it is what the limit will stop, or tell of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ForecastBand {
    pub low: Money,
    pub expected: Money,
    pub high: Money,
    pub method: ForecastMethod,
}

/// How a forecast was made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForecastMethod {
    /// What the last seven days cost, in the proportion that these hours of the week have in up to eight weeks.
    WeeklyProfile,
    /// As much an hour as in the window so far; the band is half and double of the rest.
    RunRate,
}

impl ForecastMethod {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WeeklyProfile => "weekly_profile",
            Self::RunRate => "run_rate",
        }
    }
}
