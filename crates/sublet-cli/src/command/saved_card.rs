//! `sublet saved-card`.

use clap::Subcommand;
use sublet_api::saved_card::SavedCard;
use sublet_core::error::Result;

use crate::Context;
use crate::render::{self, Cell, Table};

/// The card that top-ups charge.
#[derive(Subcommand, Debug)]
pub enum SavedCardCommand {
    /// Show it, and the page on which one can be saved
    Show,
    /// Make a page of Stripe on which a card is saved; it takes the place of the one before it
    Save,
    /// Have it forgotten; what charges it by itself is paused
    Remove,
}

impl SavedCardCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let card = match self {
            Self::Show => client.saved_card()?,
            Self::Save => client.save_card(&context.fresh_key())?,
            Self::Remove => client.remove_saved_card()?,
        };
        context.show(&card, table)
    }
}

/// A line for the card, and one for the page.
fn table(saved: &SavedCard) -> Table {
    let card = saved.card.iter().map(|card| {
        let ends = format!("{:02}/{}", card.expires_month, card.expires_year);
        [Cell::text(card.id.as_str()), Cell::text(format!("{} …{}", card.brand, card.last4)), Cell::text(ends)]
    });
    let page = saved.page.iter().map(|page| {
        let url = page.url.as_deref().unwrap_or("the page is being made");
        [Cell::text("to be saved"), Cell::text(url), Cell::text(render::instant(page.expires_at.0))]
    });
    Table::new(["saved card", "card, or where to save it", "expires"], "no card is saved").rows(card.chain(page))
}
