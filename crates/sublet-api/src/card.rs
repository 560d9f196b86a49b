//! Model cards: what callers are told of a model, what the operator says of it, and licences that organizations accept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::card as domain;
use sublet_core::engine::{EmbeddingInfo, Shortening};
use sublet_core::id::OrganizationId;
use sublet_core::supply::Audience;

use crate::object::{LicenceTag, ModelCardTag};
use crate::offering::OfferingNote;
use crate::schema::{IdText, WeightsText};
use crate::time::{Rfc3339, UnixSeconds};

/// What is told of a model beside OpenAI's fields. What is left out is not claimed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ModelNote {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Other names that mean this model. Prices and records name the model itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<WeightsText>")]
    pub weights: Option<domain::Weights>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<LicenceState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_policy: Option<DataPolicy>,
    /// Only some organizations may call it, yours among them.
    #[serde(default)]
    pub private: bool,
    /// Nobody should begin to use it from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated_at: Option<UnixSeconds>,
    /// The model to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// To whom it is sold, where that is not simply everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offering: Option<OfferingNote>,
    /// How it makes vectors; left out if it does not, or if only its servers know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embeddings: Option<EmbeddingNote>,
    /// Left out until something was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredSpeed>,
}

/// A licence, and whether the caller's organization agreed to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LicenceState {
    /// An SPDX identifier where there is one, otherwise the licence's name.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The model is not called before the organization has accepted the licence.
    pub acceptance_required: bool,
    /// It has, or need not.
    pub accepted: bool,
}

/// How a model makes one vector of a text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingNote {
    /// Values of a vector, whose length is 1.
    pub dimensions: u32,
    /// `mean` of all positions, or the `last` one, after the final norm.
    pub pooling: String,
    /// What `dimensions` may be; left out if it must be all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shorter: Option<ShorterVectors>,
}

/// Which shorter vectors the model was trained for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShorterVectors {
    Any,
    To(Vec<u32>),
}

/// Speed at this gateway, over its last requests: at most 256, and at most an hour old.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MeasuredSpeed {
    pub requests: u32,
    /// From admission to the first text, in milliseconds.
    pub first_token_ms: Percentiles,
    /// Output tokens per second of one answer, after its first; left out if no answer had two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens_per_second: Option<Percentiles>,
}

/// Half of the requests were at least as good as `p50`, nine of ten at least as good as `p90`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Percentiles {
    pub p50: u64,
    pub p90: u64,
}

/// A model's card as the operator sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ModelCard {
    pub object: ModelCardTag,
    /// The model's name.
    pub id: String,
    #[serde(flatten)]
    pub card: SetModelCard,
    /// Grows with every change.
    pub generation: u64,
    pub changed_at: UnixSeconds,
}

/// Body that writes a card in the place of the one before it: what is left out is not said any more.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetModelCard {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<WeightsText>")]
    pub weights: Option<domain::Weights>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<Licence>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_policy: Option<DataPolicy>,
    /// The only organizations that may call it; everybody if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<IdText<OrganizationId>>>")]
    pub organizations: Option<Vec<OrganizationId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated_at: Option<Rfc3339>,
    /// It is not served from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_date: Option<Rfc3339>,
    /// The model to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// Other names that mean this model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// What a model may be used for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// An SPDX identifier where there is one, otherwise the licence's name.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Nobody calls the model before their organization has accepted this; needs a `url`.
    #[serde(default)]
    pub acceptance_required: bool,
}

/// What becomes of prompts and outputs. What is left out is not said.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataPolicy {
    /// How long they are kept, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_for_training: Option<bool>,
    /// Countries or regions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub served_in: Vec<String>,
}

/// That an organization agreed to a model's licence.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AcceptedLicence {
    pub object: LicenceTag,
    pub model: String,
    pub licence: String,
    /// Where it could be read then.
    pub url: Option<String>,
    /// The key that accepted it.
    pub accepted_by: String,
    pub accepted_at: UnixSeconds,
}

/// Body that accepts a licence for the organization.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptLicence {
    pub model: String,
    /// The name of the licence that was read: another one in force is a conflict.
    pub licence: String,
}

impl From<SetModelCard> for domain::ModelCard {
    fn from(card: SetModelCard) -> Self {
        let licence = |licence: Licence| domain::Licence {
            name: licence.name,
            url: licence.url,
            acceptance_required: licence.acceptance_required,
        };
        let policy = |policy: DataPolicy| domain::DataPolicy {
            retention: policy.retention,
            used_for_training: policy.used_for_training,
            served_in: policy.served_in,
        };
        Self {
            owned_by: card.owned_by,
            description: card.description,
            weights: card.weights,
            licence: card.licence.map(licence),
            data_policy: card.data_policy.map(policy),
            audience: card.organizations.map_or(Audience::Everyone, Audience::Only),
            deprecated_at: card.deprecated_at.map(|at| at.0),
            shutdown_at: card.shutdown_date.map(|at| at.0),
            replacement: card.replacement,
            aliases: card.aliases,
        }
    }
}

impl From<&domain::ModelCard> for SetModelCard {
    fn from(card: &domain::ModelCard) -> Self {
        Self {
            owned_by: card.owned_by.clone(),
            description: card.description.clone(),
            weights: card.weights,
            licence: card.licence.as_ref().map(Into::into),
            data_policy: card.data_policy.as_ref().map(Into::into),
            organizations: match &card.audience {
                Audience::Everyone => None,
                Audience::Only(organizations) => Some(organizations.clone()),
            },
            deprecated_at: card.deprecated_at.map(Into::into),
            shutdown_date: card.shutdown_at.map(Into::into),
            replacement: card.replacement.clone(),
            aliases: card.aliases.clone(),
        }
    }
}

impl From<&domain::Licence> for Licence {
    fn from(licence: &domain::Licence) -> Self {
        Self { name: licence.name.clone(), url: licence.url.clone(), acceptance_required: licence.acceptance_required }
    }
}

impl From<&domain::DataPolicy> for DataPolicy {
    fn from(policy: &domain::DataPolicy) -> Self {
        Self {
            retention: policy.retention.clone(),
            used_for_training: policy.used_for_training,
            served_in: policy.served_in.clone(),
        }
    }
}

impl From<&EmbeddingInfo> for EmbeddingNote {
    fn from(info: &EmbeddingInfo) -> Self {
        let shorter = match &info.shortening {
            Shortening::Refused => None,
            Shortening::To(lengths) => Some(ShorterVectors::To(lengths.to_vec())),
            Shortening::Any => Some(ShorterVectors::Any),
        };
        Self { dimensions: info.dimensions, pooling: info.pooling.as_str().to_owned(), shorter }
    }
}

impl ModelNote {
    /// What a card says to an organization that agreed to these licences.
    pub fn of_card(model: &str, card: &domain::ModelCard, accepted: &[domain::AcceptedLicence]) -> Self {
        let licence = |licence: &domain::Licence| LicenceState {
            name: licence.name.clone(),
            url: licence.url.clone(),
            acceptance_required: licence.acceptance_required,
            accepted: card.unaccepted(model, accepted).is_none(),
        };
        Self {
            description: card.description.clone(),
            aliases: card.aliases.clone(),
            weights: card.weights,
            licence: card.licence.as_ref().map(licence),
            data_policy: card.data_policy.as_ref().map(Into::into),
            private: card.audience != Audience::Everyone,
            deprecated_at: card.deprecated_at.map(Into::into),
            replacement: card.replacement.clone(),
            offering: None,
            embeddings: None,
            measured: None,
        }
    }
}
