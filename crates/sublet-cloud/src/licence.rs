//! Organizations agree to the licences of models.

use sublet_core::card::AcceptedLicence;
use sublet_core::offering::Product;
use sublet_core::supply::Catalogue;
use sublet_core::{Error, ErrorCode, Result};
use sublet_store::change::{self, Subject};
use sublet_store::licence::{self, Acceptance};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call, Render};
use crate::{Action, Actor, Cloud};

impl Cloud {
    /// Agrees to a model's licence for the actor's organization. The licence is named, so that nobody agrees to
    /// another one than they have read. Agreeing again changes nothing.
    pub async fn accept_licence(
        &self,
        call: &Call,
        accepted: AcceptedLicence,
        render: &Render<Acceptance>,
    ) -> Result<Answer<Acceptance>> {
        call.actor.require(Action::ManageProjects)?;
        let organization = call.actor.organization()?.clone();
        let cards = self.cards();
        let name = cards.model_of(&accepted.model).unwrap_or(&accepted.model).to_owned();
        let not_found =
            || Error::new(ErrorCode::ModelNotFound, format!("no model '{name}' with a licence is offered")).param("model");
        let card = cards.find(&name).filter(|card| card.admits(&organization)).ok_or_else(not_found)?;
        let hidden = self.remote_models().models.get(&name).is_some_and(|model| !model.audience.admits(&organization));
        let hidden = hidden || !self.knows_of(Some(&organization), &Product::Model(name.as_str().into())).await?;
        let licence = card.licence.as_ref().filter(|_| !hidden).ok_or_else(not_found)?;
        if licence.name != accepted.licence {
            let message = format!("the licence of '{name}' is '{}', not '{}'", licence.name, shown(&accepted.licence));
            return Err(Error::new(ErrorCode::Conflict, message).param("licence").alternative(licence.name.clone()));
        }
        let acceptance = Acceptance {
            organization,
            accepted: AcceptedLicence { model: name, licence: licence.name.clone() },
            url: licence.url.clone(),
            actor: call.actor.name().to_owned(),
            accepted_at: self.now(),
        };
        let answer = self
            .once(call, render, (self, &call.actor, acceptance), |(cloud, actor, acceptance), tx| {
                Box::pin(async move {
                    if !licence::insert(tx, acceptance).await? {
                        let first = licence::find(tx, &acceptance.organization, &acceptance.accepted).await?;
                        return first.ok_or_else(|| Error::internal("an acceptance that was made is not there"));
                    }
                    // Gateways know acceptances as part of a key's access.
                    change::announce(tx, Subject::Access).await?;
                    let deed = Deed {
                        organization: Some(&acceptance.organization),
                        action: "licence.accept",
                        target: &acceptance.accepted.model,
                        detail: acceptance.accepted.licence.clone(),
                    };
                    cloud.record(tx, actor, deed, acceptance.accepted_at).await?;
                    Ok(acceptance.clone())
                })
            })
            .await?;
        self.follow().await?;
        Ok(answer)
    }

    /// What the actor's organization agreed to, as far as models need it.
    pub async fn accepted_licences(&self, actor: &Actor) -> Result<Vec<AcceptedLicence>> {
        actor.require(Action::ReadCatalogue)?;
        let organization = actor.organization()?;
        let found = self.store.read(organization, |organization, tx| Box::pin(licence::list(tx, organization))).await?;
        Ok(found.into_iter().map(|acceptance| acceptance.accepted).collect())
    }

    /// What the actor's organization agreed to, the latest first.
    pub async fn list_licences(&self, actor: &Actor) -> Result<Vec<Acceptance>> {
        actor.require(Action::ManageProjects)?;
        let organization = actor.organization()?;
        self.store.read(organization, |organization, tx| Box::pin(licence::list(tx, organization))).await
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
