//! Organizations, as the operator sees them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::OrganizationId;
use sublet_core::money::Currency;
use sublet_core::organization::OrganizationClass;
use sublet_core::runner::IsolationLevel;

use crate::key::CreatedKey;
use crate::list::list_query;
use crate::money::{Amount, Money};
use crate::object::{Metadata, OrganizationTag};
use crate::schema::{ClassText, CurrencyText, IdText, IsolationText};
use crate::supplier::DataPermission;
use crate::time::UnixSeconds;

/// A customer, an internal team, a partner or a supplier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Organization {
    pub object: OrganizationTag,
    #[schemars(with = "IdText<OrganizationId>")]
    pub id: OrganizationId,
    pub name: String,
    #[schemars(with = "ClassText")]
    pub class: OrganizationClass,
    pub status: OrganizationStatus,
    /// The one currency of the account; it never changes.
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    /// The IANA zone in which billing periods begin and end.
    pub time_zone: String,
    /// How far the balance may go below zero.
    pub credit_limit: Money,
    /// The least separation its workloads run with.
    #[schemars(with = "IsolationText")]
    pub isolation: IsolationLevel,
    /// Which suppliers outside may see its prompts and answers; its administrators say so.
    pub data_policy: DataPermission,
    pub created_at: UnixSeconds,
    pub metadata: Metadata,
}

/// Whether an organization may use the cloud.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrganizationStatus {
    Active,
    Suspended,
}

/// Body of the creation of an organization.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOrganization {
    pub name: String,
    #[schemars(with = "ClassText")]
    pub class: OrganizationClass,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    /// An IANA zone such as `Europe/Berlin`; `UTC` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// In the organization's currency; zero (prepaid only) if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit_limit: Option<Amount>,
    /// `sandbox` if left out; `process` is for the owner's own teams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IsolationText>")]
    pub isolation: Option<IsolationLevel>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// A new organization with its first admin key, which is shown this once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CreatedOrganization {
    #[serde(flatten)]
    pub organization: Organization,
    pub admin_key: CreatedKey,
}

list_query! {
    /// Which organizations.
    OrganizationListQuery {
        #[schemars(with = "Option<ClassText>")]
        class: OrganizationClass,
    }
}
