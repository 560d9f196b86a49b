//! Models that other servers answer for, and their replicas: kept by the operator, known to every gateway.
//!
//! The gateways of a deployment answer from memory; what is changed here acts in this process at once, and
//! in the others when they next look.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use sublet_core::card::Cards;
use sublet_core::id::{ModelId, ReplicaId};
use sublet_core::kv_events::KvEvents;
use sublet_core::offering::Offerings;
use sublet_core::supplier::{CostPrice, SupplierTerms};
use sublet_core::supply::{
    Audience, BaseUrl, Catalogue, EngineKind, RemoteModel, RemoteModels, Replica, ReplicaSource, ReplicaState, SecretName,
};
use sublet_core::tokenizer::TokenizerName;
use sublet_core::{Error, ErrorCode, Result, Scope, TokenCount};
use sublet_money::sku::ModelName;
use sublet_store::change::{self, Subject};
use sublet_store::model_card;
use sublet_store::remote_model::{self, RemoteModelRow};
use sublet_store::replica::{self, ReplicaRow};
use sublet_store::{Page, PageRequest, Tx, offering, organization, supplier};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call};
use crate::organization::checked_name;
use crate::supplier::{TermsChange, change_terms, check_terms};
use crate::{Action, Actor, Cloud};

/// Organizations that one private model can be for.
const AUDIENCE_MAX: usize = 1_000;
/// Longest context of a model, in tokens.
const CONTEXT_MAX: i64 = 100_000_000;
/// Most requests of one gateway at a replica.
const IN_FLIGHT_MAX: u32 = 100_000;
/// Longest name of a model on a replica, in bytes.
const UPSTREAM_MODEL_BYTES_MAX: usize = 256;

/// The remote models, all cards and all offerings as they were when they had changed `number` times.
#[derive(Default)]
pub(crate) struct RemoteModelBook {
    edition: RwLock<Edition>,
}

#[derive(Clone, Default)]
struct Edition {
    number: i64,
    models: Arc<RemoteModels>,
    cards: Arc<Cards>,
    offerings: Arc<Offerings>,
}

impl RemoteModelBook {
    fn edition(&self) -> Edition {
        self.edition.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads all of them again if any were changed since they were last read.
    pub(crate) async fn follow(&self, tx: &mut Tx, number: i64) -> Result<()> {
        if number <= self.edition().number {
            return Ok(());
        }
        let mut replicas: BTreeMap<ModelId, Vec<Arc<Replica>>> = BTreeMap::new();
        let mut costs: BTreeMap<ReplicaId, Vec<CostPrice>> = BTreeMap::new();
        for stored in supplier::list_all_costs(tx).await? {
            costs.entry(stored.cost.content().replica.clone()).or_default().push(stored.cost.price()?);
        }
        for row in replica::list_all(tx).await? {
            let costs = costs.remove(&row.replica.id).unwrap_or_default();
            replicas.entry(row.model).or_default().push(Arc::new(Replica { costs, ..row.replica }));
        }
        let models = remote_model::list_all(tx).await?.into_iter().map(|row| {
            let model = RemoteModel {
                name: row.name.clone(),
                owned_by: row.owned_by,
                created_at: row.created_at,
                context_window: row.context_window,
                output_max: row.output_max,
                audience: row.audience,
                tokenizer: row.tokenizer,
                replicas: replicas.remove(&row.id).unwrap_or_default(),
            };
            (row.name, Arc::new(model))
        });
        let models = RemoteModels { models: models.collect() };
        let cards = Cards::new(model_card::list_all(tx).await?.into_iter().map(|row| (row.model, row.card)));
        let offerings = Offerings::new(offering::list_all(tx).await?.into_iter().map(|row| row.offering));
        let mut edition = self.edition.write().unwrap_or_else(PoisonError::into_inner);
        if edition.number < number {
            *edition = Edition { number, models: Arc::new(models), cards: Arc::new(cards), offerings: Arc::new(offerings) };
        }
        Ok(())
    }
}

impl Catalogue for Cloud {
    fn remote_models(&self) -> Arc<RemoteModels> {
        self.remote_models.edition().models
    }
    fn cards(&self) -> Arc<Cards> {
        self.remote_models.edition().cards
    }
    fn offerings(&self) -> Arc<Offerings> {
        self.remote_models.edition().offerings
    }
}

/// What a new remote model needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRemoteModel {
    pub name: String,
    pub owned_by: String,
    pub context_window: TokenCount,
    /// `None` is the context window.
    pub output_max: Option<TokenCount>,
    pub audience: Audience,
    pub tokenizer: Option<TokenizerName>,
}

/// What can be changed of a remote model; `None` stays.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RemoteModelChange {
    pub context_window: Option<TokenCount>,
    pub output_max: Option<TokenCount>,
    pub audience: Option<Audience>,
    /// Some of none takes it away.
    pub tokenizer: Option<Option<TokenizerName>>,
}

/// What a new replica needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewReplica {
    pub model: ModelId,
    pub base_url: BaseUrl,
    pub upstream_model: String,
    pub secret: Option<SecretName>,
    pub engine: EngineKind,
    pub kv_events: Option<KvEvents>,
    pub in_flight_max: u32,
    pub source: ReplicaSource,
    pub terms: Option<SupplierTerms>,
}

/// What can be changed of a replica; `None` stays.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ReplicaChange {
    pub state: Option<ReplicaState>,
    pub in_flight_max: Option<u32>,
    pub terms: TermsChange,
}

fn check_sizes(context_window: TokenCount, output_max: TokenCount) -> Result<()> {
    if !(2..=CONTEXT_MAX).contains(&context_window.get()) {
        return Err(Error::new(ErrorCode::InvalidRequest, format!("a context window has 2 to {CONTEXT_MAX} tokens"))
            .param("context_window"));
    }
    if !(1..=context_window.get()).contains(&output_max.get()) {
        return Err(Error::new(ErrorCode::InvalidRequest, "an answer has between 1 token and the context window")
            .param("max_output_tokens"));
    }
    Ok(())
}

fn check_in_flight(in_flight_max: u32) -> Result<()> {
    if (1..=IN_FLIGHT_MAX).contains(&in_flight_max) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidRequest, format!("a replica takes 1 to {IN_FLIGHT_MAX} requests of a gateway at once"))
        .param("max_in_flight"))
}

pub(crate) async fn check_audience(tx: &mut Tx, audience: &Audience) -> Result<()> {
    let Audience::Only(organizations) = audience else { return Ok(()) };
    if organizations.is_empty() || organizations.len() > AUDIENCE_MAX {
        return Err(Error::new(ErrorCode::InvalidRequest, format!("a private model is for 1 to {AUDIENCE_MAX} organizations"))
            .param("organizations"));
    }
    for id in organizations {
        organization::get(tx, &Scope::Operator, id).await.map_err(|error| error.param("organizations"))?;
    }
    Ok(())
}

impl Cloud {
    /// Creates a remote model without replicas. `served_here` are the names that the engine of this process has.
    pub async fn create_remote_model(
        &self,
        call: &Call,
        new: NewRemoteModel,
        served_here: &[String],
    ) -> Result<Answer<RemoteModelRow>> {
        call.actor.require(Action::ManageFleet)?;
        let name: ModelName = new.name.parse().map_err(|error: Error| error.param("name"))?;
        if served_here.iter().any(|known| known == name.as_str()) {
            return Err(Error::new(ErrorCode::Conflict, format!("the model '{name}' is served by this process")).param("name"));
        }
        let output_max = new.output_max.unwrap_or(new.context_window);
        check_sizes(new.context_window, output_max)?;
        let row = RemoteModelRow {
            id: self.ids.mint(),
            name: name.to_string(),
            owned_by: checked_name(&new.owned_by).map_err(|error| error.param("owned_by"))?,
            context_window: new.context_window,
            output_max,
            audience: new.audience,
            tokenizer: new.tokenizer,
            generation: 1,
            created_at: self.now(),
        };
        let render = |row: &RemoteModelRow| Ok(row.id.to_string());
        let answer = self
            .once(call, &render, (self, &call.actor, row), |(cloud, actor, row), tx| {
                Box::pin(async move {
                    check_audience(tx, &row.audience).await?;
                    if let Some(model) = model_card::find_alias(tx, &row.name).await? {
                        let message = format!("the name '{}' is an alias of '{model}'", row.name);
                        return Err(Error::new(ErrorCode::Conflict, message).param("name"));
                    }
                    remote_model::insert(tx, row).await?;
                    let detail = format!("'{}', context {}", row.name, row.context_window);
                    cloud.changed(tx, actor, ("remote_model.create", row.id.as_str(), detail)).await?;
                    Ok(row.clone())
                })
            })
            .await?;
        self.follow().await?;
        Ok(answer)
    }

    /// Announces and records a change of models or replicas.
    pub(crate) async fn changed(&self, tx: &mut Tx, actor: &Actor, (action, target, detail): (&str, &str, String)) -> Result<()> {
        change::announce(tx, Subject::Models).await?;
        self.record(tx, actor, Deed { organization: None, action, target, detail }, self.now()).await
    }

    pub async fn get_remote_model(&self, actor: &Actor, id: &ModelId) -> Result<RemoteModelRow> {
        actor.require(Action::ManageFleet)?;
        self.store.read(id, |id, tx| Box::pin(remote_model::get(tx, id))).await
    }

    pub async fn list_remote_models(&self, actor: &Actor, page: &PageRequest) -> Result<Page<RemoteModelRow>> {
        actor.require(Action::ManageFleet)?;
        self.store.read(page, |page, tx| Box::pin(remote_model::list(tx, page))).await
    }

    pub async fn change_remote_model(&self, actor: &Actor, id: &ModelId, change: RemoteModelChange) -> Result<RemoteModelRow> {
        actor.require(Action::ManageFleet)?;
        let changed = self
            .store
            .write((self, actor, id, &change), |(cloud, actor, id, change), tx| {
                Box::pin(async move {
                    let mut row = remote_model::get(tx, id).await?;
                    row.context_window = change.context_window.unwrap_or(row.context_window);
                    row.output_max = change.output_max.unwrap_or(row.output_max.min(row.context_window));
                    row.audience = change.audience.clone().unwrap_or(row.audience);
                    row.tokenizer = change.tokenizer.clone().unwrap_or(row.tokenizer);
                    check_sizes(row.context_window, row.output_max)?;
                    check_audience(tx, &row.audience).await?;
                    remote_model::update(tx, &row).await?;
                    let tokenizer = row.tokenizer.as_ref().map_or("none", TokenizerName::as_str);
                    let detail = format!("context {}, output {}, tokenizer {tokenizer}", row.context_window, row.output_max);
                    cloud.changed(tx, actor, ("remote_model.change", id.as_str(), detail)).await?;
                    Ok(RemoteModelRow { generation: row.generation + 1, ..row })
                })
            })
            .await?;
        self.follow().await?;
        Ok(changed)
    }

    /// Removes a model that has no replicas. What it was used for stays charged.
    pub async fn delete_remote_model(&self, actor: &Actor, id: &ModelId) -> Result<()> {
        actor.require(Action::ManageFleet)?;
        self.store
            .write((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let row = remote_model::get(tx, id).await?;
                    remote_model::delete(tx, id).await?;
                    cloud.changed(tx, actor, ("remote_model.delete", id.as_str(), row.name)).await
                })
            })
            .await?;
        self.follow().await
    }

    /// Adds a server to a model. It is asked from now on.
    pub async fn create_replica(&self, call: &Call, new: NewReplica) -> Result<Answer<ReplicaRow>> {
        call.actor.require(Action::ManageFleet)?;
        check_in_flight(new.in_flight_max)?;
        let named = (1..=UPSTREAM_MODEL_BYTES_MAX).contains(&new.upstream_model.len());
        if !named || new.upstream_model.chars().any(char::is_control) {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("a model's name has 1 to {UPSTREAM_MODEL_BYTES_MAX} bytes"))
                .param("upstream_model"));
        }
        let replica = Replica {
            id: self.ids.mint(),
            base_url: new.base_url,
            upstream_model: new.upstream_model,
            secret: new.secret,
            engine: new.engine,
            kv_events: new.kv_events,
            in_flight_max: new.in_flight_max,
            state: ReplicaState::Serving,
            source: new.source,
            terms: new.terms,
            costs: Vec::new(),
        };
        let row = ReplicaRow { model: new.model, replica, generation: 1, created_at: self.now() };
        let render = |row: &ReplicaRow| Ok(row.replica.id.to_string());
        let answer = self
            .once(call, &render, (self, &call.actor, row), |(cloud, actor, row), tx| {
                Box::pin(async move {
                    let model = remote_model::get(tx, &row.model).await?;
                    check_terms(tx, &row.replica).await?;
                    replica::insert(tx, row).await?;
                    let detail = format!("of '{}' at {}", model.name, row.replica.base_url.as_str());
                    cloud.changed(tx, actor, ("replica.create", row.replica.id.as_str(), detail)).await?;
                    Ok(row.clone())
                })
            })
            .await?;
        self.follow().await?;
        Ok(answer)
    }

    pub async fn get_replica(&self, actor: &Actor, id: &ReplicaId) -> Result<ReplicaRow> {
        actor.require(Action::ManageFleet)?;
        self.store.read(id, |id, tx| Box::pin(replica::get(tx, id))).await
    }

    pub async fn list_replicas(&self, actor: &Actor, model: Option<&ModelId>, page: &PageRequest) -> Result<Page<ReplicaRow>> {
        actor.require(Action::ManageFleet)?;
        self.store.read((model, page), |(model, page), tx| Box::pin(replica::list(tx, *model, page))).await
    }

    pub async fn change_replica(&self, actor: &Actor, id: &ReplicaId, change: ReplicaChange) -> Result<ReplicaRow> {
        actor.require(Action::ManageFleet)?;
        let changed = self
            .store
            .write((self, actor, id, &change), |(cloud, actor, id, change), tx| {
                Box::pin(async move {
                    let mut row = replica::get(tx, id).await?;
                    row.replica.state = change.state.unwrap_or(row.replica.state);
                    row.replica.in_flight_max = change.in_flight_max.unwrap_or(row.replica.in_flight_max);
                    check_in_flight(row.replica.in_flight_max)?;
                    change_terms(tx, &mut row.replica, &change.terms).await?;
                    replica::update(tx, &row).await?;
                    let mut detail = format!("{:?}, {} at once", row.replica.state, row.replica.in_flight_max);
                    if let Some(SupplierTerms { data, margin_min, .. }) = &row.replica.terms {
                        let training = if data.used_for_training { "trains" } else { "does not train" };
                        let margin = margin_min.get();
                        detail.push_str(&format!(", retention {}, {training}, margin {margin} of 1000", data.retention));
                    }
                    cloud.changed(tx, actor, ("replica.change", id.as_str(), detail)).await?;
                    Ok(ReplicaRow { generation: row.generation + 1, ..row })
                })
            })
            .await?;
        self.follow().await?;
        Ok(changed)
    }

    /// Removes a server. What it has begun there still ends.
    pub async fn delete_replica(&self, actor: &Actor, id: &ReplicaId) -> Result<()> {
        actor.require(Action::ManageFleet)?;
        self.store
            .write((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let row = replica::get(tx, id).await?;
                    replica::delete(tx, id).await?;
                    let detail = row.replica.base_url.as_str().to_owned();
                    cloud.changed(tx, actor, ("replica.delete", id.as_str(), detail)).await
                })
            })
            .await?;
        self.follow().await
    }
}
