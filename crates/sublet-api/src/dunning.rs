//! Dunning: reminders of what is overdue, and suspension of accounts that do not pay.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{InvoiceId, OrganizationId};

use crate::money::Money;
use crate::object::{DunningPolicyTag, DunningTag};
use crate::payment::words;
use crate::schema::IdText;
use crate::time::Rfc3339;

words! {
    /// What running work does when its account is suspended.
    OnSuspension {
        /// It goes on within its credit and limits.
        Finish = "finish",
        /// It gets no more money, and ends with its notice.
        Stop = "stop",
    }
}

/// What happens to invoices that are not paid, in days after the day on which they were due.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DunningDays {
    /// When reminders are sent, each later than the one before it; none reminds and suspends nobody.
    pub reminders: Vec<u16>,
    /// When the account is suspended: later than the last reminder. Null suspends nobody.
    #[serde(default)]
    pub suspend_after: Option<u16>,
}

/// The policy of all accounts without their own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DunningPolicy {
    pub object: DunningPolicyTag,
    #[serde(flatten)]
    pub days: DunningDays,
}

/// Where an account stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Dunning {
    pub object: DunningTag,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    /// Since when nothing new is begun; null if the account is not suspended.
    pub suspended_at: Option<Rfc3339>,
    /// What running work does then.
    pub on_suspension: OnSuspension,
    /// What is overdue.
    pub overdue: Money,
    /// Why the operator leaves the account alone, if it does.
    pub paused: Option<String>,
    pub policy: DunningDays,
    /// Whether the policy is the account's own.
    pub own_policy: bool,
    /// What is not paid and has a day on which it is due, the oldest first.
    pub invoices: Vec<DunnedInvoice>,
}

/// An invoice that is not paid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DunnedInvoice {
    #[schemars(with = "IdText<InvoiceId>")]
    pub invoice: InvoiceId,
    pub number: String,
    /// The last day to pay it in time, in the zone of the account.
    pub due_on: String,
    pub due: Money,
    /// The latest reminder: so many days after it was due.
    pub reminded_after: Option<u16>,
    /// The day on which that was sent.
    pub reminded_on: Option<String>,
    /// Why the operator leaves it alone, if it does.
    pub paused: Option<String>,
}

/// Body that says what running work does when the account is suspended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetOnSuspension {
    pub on_suspension: OnSuspension,
}

/// Body that says how an account is dunned, in the place of what was said before.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetDunning {
    /// Its own policy; as all others if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<DunningDays>,
    /// One line: why it is left alone. It is not if this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
}

/// Body that leaves an invoice alone, or goes on with it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseInvoice {
    /// One line: why it is left alone. It is not if this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
}
