//! Models that other servers answer for: for the operator.

use sublet_api::list::ListQuery;
use sublet_api::object::{Deleted, RemoteModelTag, ReplicaTag};
use sublet_api::remote_model as wire;
use sublet_cloud::data::{RemoteModelRow, ReplicaRow};
use sublet_cloud::idempotency::Answer as Once;
use sublet_cloud::remote_model::{NewRemoteModel, NewReplica, RemoteModelChange, ReplicaChange};
use sublet_cloud::supplier::TermsChange;
use sublet_core::id::{ModelId, OrganizationId, ReplicaId};
use sublet_core::supplier::SupplierTerms;
use sublet_core::supply::{Audience, ReplicaSource};
use sublet_core::tokenizer::TokenizerName;
use sublet_core::{Error, ErrorCode, Result, TokenCount};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_answer, page_request};
use crate::model::is_priced;
use crate::supplier::{margin_min, policy, supply_to_wire};
use crate::wire::count;

/// Requests of one gateway at a replica if the operator does not say.
const IN_FLIGHT_DEFAULT: u32 = 256;

fn to_wire(app: &App, row: &RemoteModelRow) -> Result<wire::RemoteModel> {
    Ok(wire::RemoteModel {
        object: RemoteModelTag,
        id: row.id.clone(),
        name: row.name.clone(),
        owned_by: row.owned_by.clone(),
        context_window: count(row.context_window.get())?,
        max_output_tokens: count(row.output_max.get())?,
        organizations: match &row.audience {
            Audience::Everyone => None,
            Audience::Only(organizations) => Some(organizations.clone()),
        },
        tokenizer: row.tokenizer.clone(),
        priced: is_priced(app, &row.name),
        created_at: row.created_at.into(),
    })
}

fn replica_to_wire(app: &App, row: &ReplicaRow) -> wire::Replica {
    let replica = &row.replica;
    wire::Replica {
        object: ReplicaTag,
        id: replica.id.clone(),
        model: row.model.clone(),
        base_url: replica.base_url.clone(),
        upstream_model: replica.upstream_model.clone(),
        secret: replica.secret.clone(),
        engine: replica.engine,
        kv_events: replica.kv_events.clone(),
        max_in_flight: replica.in_flight_max,
        state: replica.state,
        source: replica.source,
        supply: supply_to_wire(app, row),
        seen: app.process.replica_seen(&replica.id),
        created_at: row.created_at.into(),
    }
}

fn tokens(count: u64, param: &str) -> Result<TokenCount> {
    let count =
        i64::try_from(count).map_err(|_| Error::new(ErrorCode::InvalidRequest, format!("'{param}' is too large")).param(param))?;
    Ok(TokenCount::new(count))
}

fn audience(organizations: Vec<OrganizationId>) -> Audience {
    if organizations.is_empty() { Audience::Everyone } else { Audience::Only(organizations) }
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let page = app.cloud.list_remote_models(&context.actor, &page_request(&asked)?).await?;
    let items = page.items.iter().map(|row| to_wire(&app, row)).collect::<Result<Vec<_>>>()?;
    page_answer(&asked, sublet_cloud::data::Page { items, has_more: page.has_more }, |wire| wire, |wire| wire.id.to_string())
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateRemoteModel = context.body()?;
    if let Some(tokenizer) = &body.tokenizer {
        app.process.check_tokenizer(tokenizer).await?;
    }
    let new = NewRemoteModel {
        name: body.name,
        owned_by: body.owned_by,
        context_window: tokens(body.context_window, "context_window")?,
        output_max: body.max_output_tokens.map(|most| tokens(most, "max_output_tokens")).transpose()?,
        audience: body.organizations.map_or(Audience::Everyone, Audience::Only),
        tokenizer: body.tokenizer,
    };
    let served_here: Vec<String> = app.engine.models().into_iter().map(|model| model.name).collect();
    let row = match app.cloud.create_remote_model(&context.call()?, new, &served_here).await? {
        Once::New(row) => row,
        Once::Replayed(id) => app.cloud.get_remote_model(&context.actor, &id.parse()?).await?,
    };
    json(&to_wire(&app, &row)?)
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: ModelId = context.path("id")?;
    json(&to_wire(&app, &app.cloud.get_remote_model(&context.actor, &id).await?)?)
}

pub async fn change(app: App, context: Context) -> Result<Answer> {
    let id: ModelId = context.path("id")?;
    let body: wire::ChangeRemoteModel = context.body()?;
    let tokenizer = match body.tokenizer.as_deref() {
        None => None,
        Some("") => Some(None),
        Some(name) => {
            let name: TokenizerName = name.parse()?;
            app.process.check_tokenizer(&name).await?;
            Some(Some(name))
        }
    };
    let change = RemoteModelChange {
        context_window: body.context_window.map(|count| tokens(count, "context_window")).transpose()?,
        output_max: body.max_output_tokens.map(|count| tokens(count, "max_output_tokens")).transpose()?,
        audience: body.organizations.map(audience),
        tokenizer,
    };
    json(&to_wire(&app, &app.cloud.change_remote_model(&context.actor, &id, change).await?)?)
}

pub async fn delete(app: App, context: Context) -> Result<Answer> {
    let id: ModelId = context.path("id")?;
    app.cloud.delete_remote_model(&context.actor, &id).await?;
    json(&Deleted::new("remote_model", id.to_string()))
}

pub async fn list_replicas(app: App, context: Context) -> Result<Answer> {
    let query: wire::ReplicaListQuery = context.query()?;
    let asked = query.page();
    let page = app.cloud.list_replicas(&context.actor, query.model.as_ref(), &page_request(&asked)?).await?;
    page_answer(&asked, page, |row| replica_to_wire(&app, &row), |wire| wire.id.to_string())
}

pub async fn create_replica(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateReplica = context.body()?;
    if body.supplier.is_none() && (body.data_policy.is_some() || body.min_margin_permille.is_some()) {
        return Err(Error::new(ErrorCode::InvalidRequest, "terms need the supplier whose they are").param("supplier"));
    }
    let source = if body.supplier.is_some() { ReplicaSource::Supplier } else { body.source };
    let margin_min = margin_min(body.min_margin_permille)?.unwrap_or_default();
    let data = body.data_policy.map(policy).unwrap_or_default();
    let new = NewReplica {
        model: body.model,
        base_url: body.base_url,
        upstream_model: body.upstream_model,
        secret: body.secret,
        engine: body.engine,
        kv_events: body.kv_events,
        in_flight_max: body.max_in_flight.unwrap_or(IN_FLIGHT_DEFAULT),
        source,
        terms: body.supplier.map(|supplier| SupplierTerms { supplier, data, margin_min }),
    };
    let row = match app.cloud.create_replica(&context.call()?, new).await? {
        Once::New(row) => row,
        Once::Replayed(id) => app.cloud.get_replica(&context.actor, &id.parse()?).await?,
    };
    json(&replica_to_wire(&app, &row))
}

pub async fn get_replica(app: App, context: Context) -> Result<Answer> {
    let id: ReplicaId = context.path("id")?;
    json(&replica_to_wire(&app, &app.cloud.get_replica(&context.actor, &id).await?))
}

pub async fn change_replica(app: App, context: Context) -> Result<Answer> {
    let id: ReplicaId = context.path("id")?;
    let body: wire::ChangeReplica = context.body()?;
    let terms = TermsChange {
        supplier: body.supplier,
        data: body.data_policy.map(policy),
        margin_min: margin_min(body.min_margin_permille)?,
    };
    let change = ReplicaChange { state: body.state, in_flight_max: body.max_in_flight, terms };
    json(&replica_to_wire(&app, &app.cloud.change_replica(&context.actor, &id, change).await?))
}

pub async fn delete_replica(app: App, context: Context) -> Result<Answer> {
    let id: ReplicaId = context.path("id")?;
    app.cloud.delete_replica(&context.actor, &id).await?;
    json(&Deleted::new("replica", id.to_string()))
}
