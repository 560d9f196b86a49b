//! Organizations, as the operator and their own administrators see them.

use sublet_api::object::OrganizationTag;
use sublet_api::organization as wire;
use sublet_api::supplier::DataPermission;
use sublet_cloud::data::Organization;
use sublet_cloud::idempotency::Answer as Once;
use sublet_cloud::organization::NewOrganization;
use sublet_core::id::OrganizationId;
use sublet_core::organization::OrganizationClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::{Error, ErrorCode, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_answer, page_request};
use crate::wire::{money, no_metadata, shown_before};

/// The least separation the workloads of a class run with.
const fn isolation_of(class: OrganizationClass) -> IsolationLevel {
    match class {
        OrganizationClass::Internal => IsolationLevel::Process,
        OrganizationClass::External | OrganizationClass::Partner | OrganizationClass::Supplier => IsolationLevel::Sandbox,
    }
}

pub fn to_wire(organization: &Organization) -> wire::Organization {
    wire::Organization {
        object: OrganizationTag,
        id: organization.id.clone(),
        name: organization.name.clone(),
        class: organization.class,
        status: match organization.suspended_at {
            Some(_) => wire::OrganizationStatus::Suspended,
            None => wire::OrganizationStatus::Active,
        },
        currency: organization.currency,
        time_zone: organization.time_zone.clone(),
        credit_limit: money(organization.credit_limit, organization.currency),
        isolation: isolation_of(organization.class),
        data_policy: DataPermission { external: organization.data.external, regions: organization.data.regions.clone() },
        created_at: organization.created_at.into(),
        metadata: sublet_api::object::Metadata::default(),
    }
}

pub async fn get_own(app: App, context: Context) -> Result<Answer> {
    let id = context.actor.organization()?;
    json(&to_wire(&app.cloud.get_organization(&context.actor, id).await?))
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: OrganizationId = context.path("id")?;
    json(&to_wire(&app.cloud.get_organization(&context.actor, &id).await?))
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::OrganizationListQuery = context.query()?;
    let asked = query.page();
    let page = app.cloud.list_organizations(&context.actor, query.class, &page_request(&asked)?).await?;
    page_answer(&asked, page, |organization| to_wire(&organization), |wire| wire.id.to_string())
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateOrganization = context.body()?;
    no_metadata(&body.metadata)?;
    let given = isolation_of(body.class);
    if body.isolation.is_some_and(|asked| asked != given) {
        return Err(Error::new(
            ErrorCode::PolicyRefused,
            format!("{} organizations run with the isolation '{}'", body.class, given.as_str()),
        )
        .param("isolation")
        .alternative("leave isolation out"));
    }
    let new = NewOrganization {
        name: body.name,
        class: body.class,
        currency: body.currency,
        time_zone: body.time_zone.unwrap_or_else(|| "UTC".to_owned()),
        credit_limit: body.credit_limit.map_or(Nanos::ZERO, |limit| limit.0),
    };
    match app.cloud.create_organization(&context.call()?, &new).await? {
        Once::New((organization, key)) => {
            json(&wire::CreatedOrganization { organization: to_wire(&organization), admin_key: crate::key::created_to_wire(&key) })
        }
        Once::Replayed(id) => Err(shown_before(&id)),
    }
}
