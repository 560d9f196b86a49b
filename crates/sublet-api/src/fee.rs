//! Fees that are charged once, by name and at the price of the account's list.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{FeeId, OrganizationId, ProjectId};

use crate::list::list_query;
use crate::money::Money;
use crate::object::FeeTag;
use crate::schema::IdText;
use crate::time::UnixSeconds;

/// A fee that was charged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Fee {
    pub object: FeeTag,
    #[schemars(with = "IdText<FeeId>")]
    pub id: FeeId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    /// As the price list calls it.
    pub fee: String,
    pub quantity: u64,
    pub amount: Money,
    /// Content hash of the price-list version.
    pub price_version: String,
    /// One line for the customer.
    pub note: String,
    pub created_at: UnixSeconds,
}

/// Body that charges an account a fee: all of it from credit, or nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFee {
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    /// On whose line of the invoice it is.
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    /// As the account's price list calls it.
    pub fee: String,
    /// How many; 1 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<u64>,
    /// One line that the customer reads.
    pub note: String,
}

list_query! {
    /// Whose; the operator's only.
    FeeListQuery {
        #[schemars(with = "Option<IdText<OrganizationId>>")]
        organization: OrganizationId,
    }
}
