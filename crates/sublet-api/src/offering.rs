//! Offerings: to whom a product is sold, and until when.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::Timestamp;
use sublet_core::id::OrganizationId;
use sublet_core::offering::{self as domain, OfferingState, Product, Reach};

use crate::object::OfferingTag;
use crate::schema::{IdText, OfferingStateText, ProductText, ReachText};
use crate::time::{Rfc3339, UnixSeconds};

/// What customers are told of a product that is not simply sold to everybody.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OfferingNote {
    /// `invited`, `preview` (no promise), or `retiring`.
    #[schemars(with = "OfferingStateText")]
    pub state: OfferingState,
    /// Nobody uses it from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<UnixSeconds>,
    /// What to use instead, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
}

impl OfferingNote {
    /// `None` says nothing of what is public.
    pub fn of(offering: &domain::Offering, now: Timestamp) -> Option<Self> {
        let state = offering.state_at(now);
        let end = offering.announced_end(now);
        (state != OfferingState::Public).then(|| Self {
            state,
            ends_at: end.map(|end| end.at.into()),
            successor: end.and_then(|end| end.successor.as_ref()).map(|successor| successor.name().to_owned()),
        })
    }
}

/// A product's offering, as the operator sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Offering {
    pub object: OfferingTag,
    /// The product: `model/NAME`, `device/KIND` or `device/NOTICE/KIND`.
    #[schemars(with = "ProductText")]
    pub id: Product,
    /// As it is now: what retires is retired at its end.
    #[schemars(with = "OfferingStateText")]
    pub state: OfferingState,
    /// Who may know that the product exists.
    #[schemars(with = "ReachText")]
    pub known_to: Reach,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Rfc3339>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ProductText>")]
    pub successor: Option<Product>,
    /// Changes so far.
    pub number: u64,
    /// Why it was changed last.
    pub note: String,
    /// The key that changed it last.
    pub changed_by: String,
    pub changed_at: UnixSeconds,
}

/// An offering with all that led to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OfferingRecord {
    #[serde(flatten)]
    pub offering: Offering,
    /// Who is invited now.
    pub invited: Vec<OfferingInvitation>,
    /// Organizations that used it when its end was announced, and may go on until then: their number.
    pub users: u64,
    /// Earlier changes, the latest first.
    pub history: Vec<Offering>,
}

/// An organization that may use what others do not see.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OfferingInvitation {
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub invited_by: String,
    pub invited_at: UnixSeconds,
}

/// Body that brings an offering to a state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetOffering {
    #[schemars(with = "OfferingStateText")]
    pub state: OfferingState,
    /// Of `retiring`, and needed there: from when on nobody uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Rfc3339>,
    /// Of `retiring` and `retired`: what to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ProductText>")]
    pub successor: Option<Product>,
    /// Of `retiring`: who used it in so many days before goes on; 90 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_within_days: Option<u32>,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}
