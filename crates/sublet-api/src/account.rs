//! Who a key is, and what it can still spend.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{KeyId, OrganizationId, ProjectId};
use sublet_core::money::Currency;
use sublet_core::organization::OrganizationClass;

use crate::key::RateLimits;
use crate::limit::SpendLimit;
use crate::money::Money;
use crate::object::AccountTag;
use crate::schema::{ClassText, CurrencyText, IdText};
use crate::time::UnixSeconds;

/// The calling project key's account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    pub object: AccountTag,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub organization_name: String,
    #[schemars(with = "ClassText")]
    pub class: OrganizationClass,
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    pub project_name: String,
    #[schemars(with = "IdText<KeyId>")]
    pub key: KeyId,
    pub key_expires_at: Option<UnixSeconds>,
    /// Models the key may call; all if null.
    pub models: Option<Vec<String>>,
    pub rate_limits: RateLimits,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    pub time_zone: String,
    /// What the organization's credit still allows.
    pub credit_available: Money,
    /// Every limit that applies to the key: the organization's, the project's and its own.
    pub limits: Vec<SpendLimit>,
    /// The least of the credit and of what the limits leave.
    pub spendable: Money,
}
