//! The card that a processor keeps for an organization. Its number is nowhere here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{OrganizationId, SavedCardId};

use crate::object::SavedCardTag;
use crate::schema::IdText;
use crate::time::Rfc3339;

/// The card that is charged, and the page on which one can be saved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SavedCard {
    pub object: SavedCardTag,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    /// Null if no card is saved.
    pub card: Option<CardFace>,
    /// Null if nothing was asked for, or the card was saved there.
    pub page: Option<CardPage>,
}

/// What is shown of a card.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CardFace {
    #[schemars(with = "IdText<SavedCardId>")]
    pub id: SavedCardId,
    pub brand: String,
    /// Its last four digits.
    pub last4: String,
    /// The month with whose end it ends.
    pub expires_month: u8,
    pub expires_year: u16,
    pub saved_at: Option<Rfc3339>,
}

/// A page of Stripe on which a card can be saved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CardPage {
    /// Null for a moment where the processor did not answer yet.
    pub url: Option<String>,
    pub expires_at: Rfc3339,
}
