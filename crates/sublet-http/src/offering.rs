//! To whom products are sold.

use sublet_api::object::OfferingTag;
use sublet_api::offering as wire;
use sublet_cloud::data::OfferingRow;
use sublet_cloud::offering::{InvitationState, NewOffering, OfferingRecord};
use sublet_core::offering::{OfferingChange, Product};
use sublet_core::{Error, Result, Timestamp};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::count;

fn to_wire(row: &OfferingRow, now: Timestamp) -> Result<wire::Offering> {
    let offering = &row.offering;
    let end = offering.end.as_ref();
    Ok(wire::Offering {
        object: OfferingTag,
        id: offering.product.clone(),
        state: offering.state_at(now),
        known_to: offering.reach,
        ends_at: end.map(|end| end.at.into()),
        successor: end.and_then(|end| end.successor.clone()),
        number: count(offering.number)?,
        note: row.note.clone(),
        changed_by: row.actor.clone(),
        changed_at: row.changed_at.into(),
    })
}

fn record(app: &App, record: &OfferingRecord) -> Result<Answer> {
    let now = app.cloud.clock().now();
    let (latest, earlier) = record.history.split_first().ok_or_else(|| Error::internal("an offering has no history"))?;
    json(&wire::OfferingRecord {
        offering: to_wire(latest, now)?,
        invited: record
            .invited
            .iter()
            .map(|invitation| wire::OfferingInvitation {
                organization: invitation.organization.clone(),
                invited_by: invitation.invited_by.clone(),
                invited_at: invitation.invited_at.into(),
            })
            .collect(),
        users: count(record.users)?,
        // As it was said then: what has ended since had not.
        history: earlier.iter().map(|row| to_wire(row, row.changed_at)).collect::<Result<_>>()?,
    })
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let rows = app.cloud.list_offerings(&context.actor).await?;
    let now = app.cloud.clock().now();
    json(&sublet_api::List::whole(rows.iter().map(|row| to_wire(row, now)).collect::<Result<Vec<_>>>()?))
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    record(&app, &app.cloud.get_offering(&context.actor, &context.path("id")?).await?)
}

pub async fn set(app: App, context: Context) -> Result<Answer> {
    let body: wire::SetOffering = context.body()?;
    let product = context.path("id")?;
    let ends_at = body.ends_at.map(|at| at.0);
    let change = OfferingChange { state: body.state, ends_at, successor: body.successor };
    let new = NewOffering { product, change, used_within_days: body.used_within_days, note: body.note };
    record(&app, &app.cloud.set_offering(&context.actor, &new).await?)
}

pub async fn invite(app: App, context: Context) -> Result<Answer> {
    set_invitation(app, context, InvitationState::Invited).await
}

pub async fn uninvite(app: App, context: Context) -> Result<Answer> {
    set_invitation(app, context, InvitationState::Withdrawn).await
}

async fn set_invitation(app: App, context: Context, wanted: InvitationState) -> Result<Answer> {
    let product: Product = context.path("product")?;
    let changed = app.cloud.set_invitation(&context.actor, &product, &context.path("id")?, wanted).await?;
    record(&app, &changed)
}
