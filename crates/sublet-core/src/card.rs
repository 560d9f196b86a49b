//! Model cards: what is told of a model beside its size and price, under which licence, and how long it is served.
//!
//! Deliberately absent: what was measured here, which every gateway knows for itself, and who accepted a licence,
//! which is part of an organization's access.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::OrganizationId;
use crate::supply::Audience;
use crate::time::Timestamp;

/// What the operator says of a model. What is not said is not claimed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ModelCard {
    /// Who made it; `None` leaves what the model's own entry says.
    pub owned_by: Option<String>,
    pub description: Option<String>,
    pub weights: Option<Weights>,
    pub licence: Option<Licence>,
    pub data_policy: Option<DataPolicy>,
    /// Who may call it, beside what its own entry says.
    pub audience: Audience,
    /// Nobody should begin to use it from then on.
    pub deprecated_at: Option<Timestamp>,
    /// It is not served from then on.
    pub shutdown_at: Option<Timestamp>,
    /// The model to use instead.
    pub replacement: Option<String>,
    /// Other names that mean this model.
    pub aliases: Vec<String>,
}

/// Whether anybody can have the weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    Open,
    Proprietary,
}

/// What a model may be used for, and whether that has to be agreed to first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Licence {
    /// Its SPDX identifier where there is one, otherwise its name.
    pub name: String,
    pub url: Option<String>,
    /// Nobody calls the model before their organization has accepted this.
    pub acceptance_required: bool,
}

/// What becomes of prompts and outputs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DataPolicy {
    /// How long they are kept, in words; `None` does not say.
    pub retention: Option<String>,
    /// Whether somebody trains models with them; `None` does not say.
    pub used_for_training: Option<bool>,
    /// Countries or regions in which the model is served.
    pub served_in: Vec<String>,
}

/// That an organization agreed to a licence for a model.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AcceptedLicence {
    pub model: String,
    /// As [`Licence::name`]; another licence has to be accepted anew.
    pub licence: String,
}

impl ModelCard {
    pub fn admits(&self, organization: &OrganizationId) -> bool {
        self.audience.admits(organization)
    }
    /// The licence that has to be accepted before `model` is called, if it was not.
    pub fn unaccepted(&self, model: &str, accepted: &[AcceptedLicence]) -> Option<&Licence> {
        let licence = self.licence.as_ref().filter(|licence| licence.acceptance_required)?;
        let is_this = |known: &AcceptedLicence| known.model == model && known.licence == licence.name;
        (!accepted.iter().any(is_this)).then_some(licence)
    }
    pub fn is_shut_down(&self, now: Timestamp) -> bool {
        self.shutdown_at.is_some_and(|at| at <= now)
    }
    /// Its end is announced.
    pub fn is_deprecated(&self, now: Timestamp) -> bool {
        self.shutdown_at.is_some() || self.deprecated_at.is_some_and(|at| at <= now)
    }
}

/// All cards at one time.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Cards {
    by_model: BTreeMap<String, Arc<ModelCard>>,
    aliases: BTreeMap<String, String>,
}

impl Cards {
    /// An alias leads to a model in one step and never on to another alias, so that there is no cycle to walk.
    pub fn new(cards: impl IntoIterator<Item = (String, ModelCard)>) -> Self {
        let mut all = Self::default();
        for (model, card) in cards {
            all.aliases.extend(card.aliases.iter().map(|alias| (alias.clone(), model.clone())));
            all.by_model.insert(model, Arc::new(card));
        }
        all
    }
    pub fn find(&self, model: &str) -> Option<&Arc<ModelCard>> {
        self.by_model.get(model)
    }
    /// The model that an alias stands for.
    pub fn model_of(&self, alias: &str) -> Option<&str> {
        self.aliases.get(alias).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn licence(name: &str) -> Licence {
        Licence { name: name.to_owned(), url: None, acceptance_required: true }
    }

    #[test]
    fn a_licence_is_accepted_for_one_model_and_by_its_name() {
        let card = ModelCard { licence: Some(licence("llama3.1")), ..ModelCard::default() };
        let accepted = |model: &str, licence: &str| vec![AcceptedLicence { model: model.to_owned(), licence: licence.to_owned() }];
        assert_eq!(card.unaccepted("m", &accepted("m", "llama3.1")), None);
        for other in [vec![], accepted("n", "llama3.1"), accepted("m", "llama3")] {
            assert_eq!(card.unaccepted("m", &other), Some(&licence("llama3.1")));
        }
        let free = ModelCard { licence: Some(Licence { acceptance_required: false, ..licence("MIT") }), ..ModelCard::default() };
        assert_eq!(free.unaccepted("m", &[]), None);
    }

    #[test]
    fn an_alias_is_one_step() {
        let card =
            |aliases: &[&str]| ModelCard { aliases: aliases.iter().map(|&alias| alias.into()).collect(), ..ModelCard::default() };
        let cards = Cards::new([("a".to_owned(), card(&["b"])), ("b".to_owned(), card(&["a"]))]);
        assert_eq!((cards.model_of("a"), cards.model_of("b"), cards.model_of("c")), (Some("b"), Some("a"), None));
    }

    #[test]
    fn an_end_is_announced_before_it_comes() {
        let at = Timestamp::from_seconds;
        let card = ModelCard { deprecated_at: Some(at(10)), ..ModelCard::default() };
        assert_eq!([9, 10].map(|now| card.is_deprecated(at(now))), [false, true]);
        let card = ModelCard { shutdown_at: Some(at(10)), ..ModelCard::default() };
        assert_eq!([9, 10].map(|now| (card.is_deprecated(at(now)), card.is_shut_down(at(now)))), [(true, false), (true, true)]);
    }
}
