//! The card that Stripe keeps for an organization.

use sublet_api::object::SavedCardTag;
use sublet_api::saved_card as wire;
use sublet_cloud::saved_card::SavedCards;
use sublet_core::Result;
use sublet_core::id::OrganizationId;

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;

fn to_wire(organization: &OrganizationId, cards: SavedCards) -> wire::SavedCard {
    let face = |card: sublet_cloud::data::SavedCard| {
        let face = card.kept?.face;
        Some(wire::CardFace {
            id: card.id,
            brand: face.brand,
            last4: face.last4,
            expires_month: face.expires_month,
            expires_year: face.expires_year,
            saved_at: card.saved_at.map(Into::into),
        })
    };
    wire::SavedCard {
        object: SavedCardTag,
        organization: organization.clone(),
        card: cards.saved.and_then(face),
        page: cards.pending.map(|page| wire::CardPage { url: page.url, expires_at: page.page_expires_at.into() }),
    }
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(context.actor.organization()?, app.cloud.saved_cards(&context.actor).await?))
}

pub async fn save(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(context.actor.organization()?, app.cloud.save_card(&context.call()?).await?))
}

pub async fn remove(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(context.actor.organization()?, app.cloud.remove_card(&context.actor).await?))
}
