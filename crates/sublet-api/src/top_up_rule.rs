//! What an organization wants charged by itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::OrganizationId;

use crate::money::Money;
use crate::object::TopUpRuleTag;
use crate::payment::words;
use crate::schema::IdText;
use crate::time::Rfc3339;

words! {
    /// How a rule stands.
    TopUpRuleStatus {
        /// There is none.
        Off = "off",
        Active = "active",
        /// The bank of the card wants the customer to confirm a charge, on the page of a pending top-up.
        NeedsAction = "needs_action",
        /// Until it is set again, or another card is saved.
        Paused = "paused",
    }
}

/// Charges an amount whenever less than a threshold is left to spend.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopUpBelow {
    pub threshold: Money,
    pub amount: Money,
}

/// Charges an amount on a day.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopUpOn {
    /// `mon` to `sun` for each week, `1` to `31` for each month, in the account's zone. A month that is too short has it on its last day.
    pub day: String,
    pub amount: Money,
}

/// What is charged, and at most. All of it is in the account's currency.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopUpTerms {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<TopUpBelow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<TopUpOn>,
    /// In a calendar day of the account's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_per_day: Option<Money>,
    /// In a calendar month of the account's zone.
    pub most_per_month: Money,
}

/// A rule, and how far it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TopUpRule {
    pub object: TopUpRuleTag,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub status: TopUpRuleStatus,
    /// Null if there is none.
    pub terms: Option<TopUpTerms>,
    /// Why it is paused.
    pub reason: Option<String>,
    /// Charges in a row that came to nothing.
    pub declines: u32,
    /// Nothing is tried before.
    pub retry_at: Option<Rfc3339>,
    /// The next day of the rule.
    pub next_day_at: Option<Rfc3339>,
    /// The key that set it.
    pub set_by: Option<String>,
    pub set_at: Option<Rfc3339>,
}
