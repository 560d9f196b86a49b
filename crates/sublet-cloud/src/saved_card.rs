//! Cards that Stripe keeps for organizations: saved on a page of Stripe, shown by their last digits, charged by top-ups.
//!
//! An organization has one card that is charged, at most. Saving another one replaces it, in the transaction that notes
//! the new one; what was replaced or removed is charged no more, and forgotten by the processor after that.

use sublet_core::id::SavedCardId;
use sublet_core::organization::OrganizationClass;
use sublet_core::payment::{CardPageAsk, CardProgress, Checkout, KeptCard, PaymentFailure};
use sublet_core::{DurationMs, Error, ErrorCode, Result};
use sublet_store::saved_card::{self, SavedCard, SavedCardState, SavedCardStep};
use sublet_store::top_up::TopUp;
use sublet_store::{Tx, organization};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call};
use crate::payment::backoff;
use crate::payment_step::{CLAIM, key_of};
use crate::top_up::{ANY, PAGE_WAIT, changed, next_look};
use crate::{Action, Actor, Cloud};

/// How long it is asked what became of a page after its time, where that does not become clear.
const UNCLEAR_MAX: DurationMs = DurationMs::from_hours(24);

/// What an organization has of cards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SavedCards {
    /// The one that is charged.
    pub saved: Option<SavedCard>,
    /// The one that is being saved.
    pub pending: Option<SavedCard>,
}

/// What a step brought to light.
enum Outcome {
    Opened(Checkout),
    Seen(CardProgress),
    Forgotten,
    Failed(PaymentFailure),
}

impl Cloud {
    /// Makes a page on which a card is saved; while one is open it is that one.
    pub async fn save_card(&self, call: &Call) -> Result<SavedCards> {
        call.actor.require(Action::PayIn)?;
        self.settings.payments.cards()?;
        let id: SavedCardId = self.ids.mint();
        let render = |card: &SavedCard| Ok(card.id.to_string());
        let answer = self
            .once(call, &render, (self, &call.actor, id), |(cloud, actor, id), tx| Box::pin(cloud.insert_card(tx, actor, id)))
            .await?;
        let id = match answer {
            Answer::New(card) => card.id,
            Answer::Replayed(id) => id.parse()?,
        };
        self.advance_saved_card(&id).await?;
        self.saved_cards(&call.actor).await
    }

    async fn insert_card(&self, tx: &mut Tx, actor: &Actor, id: &SavedCardId) -> Result<SavedCard> {
        let now = self.now();
        let account = organization::get(tx, &actor.scope, actor.organization()?).await?;
        if account.class == OrganizationClass::Supplier {
            return Err(Error::new(ErrorCode::Conflict, "a supplier is paid, and pays nothing in"));
        }
        if let Some(open) = saved_card::find(tx, &account.id, SavedCardState::Pending).await? {
            return Ok(open);
        }
        let card = SavedCard {
            id: id.clone(),
            organization: account.id,
            state: SavedCardState::Pending,
            step: SavedCardStep::Open,
            next_at: Some(now),
            calls: 0,
            tries: 0,
            page: None,
            url: None,
            kept: None,
            reason: None,
            created_by: actor.name().to_owned(),
            page_expires_at: now.plus(PAGE_WAIT),
            created_at: now,
            saved_at: None,
        };
        saved_card::insert(tx, &card).await?;
        self.record_card(tx, actor, &card, ("saved_card.create", String::new())).await?;
        Ok(card)
    }

    pub async fn saved_cards(&self, actor: &Actor) -> Result<SavedCards> {
        actor.require(Action::ReadBilling)?;
        let id = actor.organization()?;
        self.store
            .read(id, |id, tx| {
                Box::pin(async move {
                    let saved = saved_card::find(tx, id, SavedCardState::Saved).await?;
                    let pending = saved_card::find(tx, id, SavedCardState::Pending).await?;
                    Ok(SavedCards { saved, pending })
                })
            })
            .await
    }

    /// Charges the card no more, pauses the rule that does, and lets the processor forget it. Again it changes nothing.
    pub async fn remove_card(&self, actor: &Actor) -> Result<SavedCards> {
        actor.require(Action::PayIn)?;
        let id = actor.organization()?;
        let removed = self
            .store
            .write((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let Some(card) = saved_card::find(tx, id, SavedCardState::Saved).await? else { return Ok(None) };
                    let removed = cloud.retire_card(tx, actor, card).await?;
                    cloud.pause_rule(tx, actor, (id, "the card was removed")).await?;
                    Ok(Some(removed))
                })
            })
            .await?;
        if let Some(card) = removed {
            self.advance_saved_card(&card).await?;
        }
        self.saved_cards(actor).await
    }

    async fn retire_card(&self, tx: &mut Tx, actor: &Actor, card: SavedCard) -> Result<SavedCardId> {
        let was = (card.state, card.step);
        let retired =
            SavedCard { state: SavedCardState::Removed, step: SavedCardStep::Forget, next_at: Some(self.now()), tries: 0, ..card };
        changed(saved_card::update(tx, was, &retired).await?)?;
        self.record_card(tx, actor, &retired, ("saved_card.remove", String::new())).await?;
        Ok(retired.id)
    }

    /// Does the step of a card that is due, if there is one.
    pub(crate) async fn advance_saved_card(&self, id: &SavedCardId) -> Result<()> {
        let claimed = self
            .store
            .write((self, id), |(cloud, id), tx| {
                Box::pin(async move {
                    let (known, now) = (saved_card::get(tx, &ANY, id).await?, cloud.now());
                    if known.next_at.is_none_or(|at| at > now) {
                        return Ok(None);
                    }
                    let was = (known.state, known.step);
                    let claimed = SavedCard { next_at: Some(now.plus(CLAIM)), ..known };
                    Ok(saved_card::update(tx, was, &claimed).await?.then_some(claimed))
                })
            })
            .await?;
        let Some(card) = claimed else { return Ok(()) };
        let outcome = self.ask_about_card(&card).await;
        self.store
            .write((self, &card, &outcome), |(cloud, asked, outcome), tx| {
                Box::pin(async move {
                    let known = saved_card::get(tx, &ANY, &asked.id).await?;
                    if (known.state, known.step) != (asked.state, asked.step) {
                        return Ok(());
                    }
                    let woken = known.next_at.filter(|at| Some(*at) != asked.next_at);
                    let next = cloud.after_card(tx, known, outcome).await?;
                    let next_at = next.next_at.map(|at| woken.map_or(at, |woken| at.min(woken)));
                    changed(saved_card::update(tx, (asked.state, asked.step), &SavedCard { next_at, ..next }).await?)
                })
            })
            .await
    }

    /// Asks the processor what the step needs. Outside of any transaction.
    async fn ask_about_card(&self, card: &SavedCard) -> Outcome {
        let port = match self.settings.payments.cards() {
            Ok(port) => port,
            Err(error) => {
                return Outcome::Failed(PaymentFailure::Unclear { why: error.to_string(), key_is_used: false });
            }
        };
        let key = key_of(card.id.as_str(), card.calls);
        match (card.step, &card.page, &card.kept) {
            (SavedCardStep::Forget, _, Some(kept)) => match port.forget(&kept.name, &format!("{key}-forget")).await {
                // It is known there no more.
                Ok(()) | Err(PaymentFailure::Refused(_)) => Outcome::Forgotten,
                Err(failure) => Outcome::Failed(failure),
            },
            (SavedCardStep::Look, Some(page), _) => port.look_at_page(page).await.map_or_else(Outcome::Failed, Outcome::Seen),
            _ => {
                let ask = CardPageAsk { card: card.id.clone(), key, expires_at: card.page_expires_at };
                port.open_page(&ask).await.map_or_else(Outcome::Failed, Outcome::Opened)
            }
        }
    }

    /// What a card is after a step, with what follows from it.
    async fn after_card(&self, tx: &mut Tx, known: SavedCard, outcome: &Outcome) -> Result<SavedCard> {
        let now = self.now();
        let over = |card: SavedCard, state, reason| SavedCard {
            state,
            step: SavedCardStep::Done,
            next_at: None,
            tries: 0,
            reason,
            ..card
        };
        Ok(match outcome {
            Outcome::Opened(checkout) => {
                let (page, url) = (Some(checkout.name.clone()), checkout.url.clone());
                let next_at = Some(next_look(known.created_at, now));
                SavedCard { page, url, step: SavedCardStep::Look, next_at, tries: 0, ..known }
            }
            Outcome::Seen(CardProgress::Open) => SavedCard { next_at: Some(next_look(known.created_at, now)), tries: 0, ..known },
            Outcome::Seen(CardProgress::Closed) => over(known, SavedCardState::Expired, None),
            Outcome::Seen(CardProgress::Saved(kept)) => self.keep_card(tx, known, kept).await?,
            Outcome::Forgotten => SavedCard { step: SavedCardStep::Done, next_at: None, tries: 0, ..known },
            Outcome::Failed(PaymentFailure::Refused(why)) if known.step == SavedCardStep::Open => {
                over(known, SavedCardState::Failed, Some(why.clone()))
            }
            Outcome::Failed(_) if known.step == SavedCardStep::Open && now >= known.page_expires_at => {
                over(known, SavedCardState::Expired, Some("it did not become clear where to save it".to_owned()))
            }
            // Another page can be made then.
            Outcome::Failed(_) if known.step == SavedCardStep::Look && now >= known.page_expires_at.plus(UNCLEAR_MAX) => {
                over(known, SavedCardState::Expired, Some("it did not become clear whether a card was saved".to_owned()))
            }
            Outcome::Failed(failure) => {
                let tries = known.tries.saturating_add(1);
                let (why, key_is_used) = match failure {
                    PaymentFailure::Refused(why) => (why, false),
                    PaymentFailure::Unclear { why, key_is_used } => (why, *key_is_used),
                };
                tracing::warn!(id = %known.id, step = known.step.as_str(), tries, why, "it is not clear how far a card is");
                SavedCard { tries, calls: known.calls + i64::from(key_is_used), next_at: Some(backoff(now, tries)), ..known }
            }
        })
    }

    /// The card in the place of the one before it; a rule that waits for a card goes on with it.
    async fn keep_card(&self, tx: &mut Tx, known: SavedCard, kept: &KeptCard) -> Result<SavedCard> {
        let system = Actor::system();
        if let Some(before) = saved_card::find(tx, &known.organization, SavedCardState::Saved).await? {
            self.retire_card(tx, &system, before).await?;
        }
        let (state, step, now) = (SavedCardState::Saved, SavedCardStep::Done, self.now());
        let saved =
            SavedCard { state, step, next_at: None, tries: 0, url: None, kept: Some(kept.clone()), saved_at: Some(now), ..known };
        let detail = format!("{} {}", kept.face.brand, kept.face.last4);
        self.record_card(tx, &system, &saved, ("saved_card.save", detail)).await?;
        self.resume_rule(tx, &saved.organization).await?;
        Ok(saved)
    }

    async fn record_card(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        card: &SavedCard,
        (action, detail): (&'static str, String),
    ) -> Result<()> {
        let deed = Deed { organization: Some(&card.organization), action, target: card.id.as_str(), detail };
        self.record(tx, actor, deed, self.now()).await
    }
}

/// Whether what a top-up charges was removed or replaced since it was asked for.
pub(crate) async fn is_card_gone(tx: &mut Tx, top_up: &TopUp) -> Result<bool> {
    let Some(card) = &top_up.card else { return Ok(false) };
    Ok(saved_card::get(tx, &ANY, card).await?.state != SavedCardState::Saved)
}
