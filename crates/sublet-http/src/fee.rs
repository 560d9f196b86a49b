//! Fees that are charged once.

use sublet_api::fee as wire;
use sublet_api::object::FeeTag;
use sublet_cloud::data::{Quantity, StoredFee};
use sublet_cloud::fee::NewFee;
use sublet_core::{Error, ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::wire::money;

fn to_wire(fee: &StoredFee) -> wire::Fee {
    wire::Fee {
        object: FeeTag,
        id: fee.id.clone(),
        organization: fee.organization.clone(),
        project: fee.project.clone(),
        fee: fee.name.to_string(),
        quantity: u64::try_from(fee.quantity.get()).unwrap_or(0),
        amount: money(fee.amount, fee.currency),
        price_version: fee.price_version.0.to_string(),
        note: fee.note.clone(),
        created_at: fee.created_at.into(),
    }
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateFee = context.body()?;
    let too_many = |_| Error::new(ErrorCode::InvalidRequest, "there are not so many fees").param("quantity");
    let new = NewFee {
        organization: body.organization,
        project: body.project,
        name: body.fee.parse().map_err(|error: Error| error.param("fee"))?,
        quantity: Quantity::new(i64::try_from(body.quantity.unwrap_or(1)).map_err(too_many)?)?,
        note: body.note,
    };
    let outcome = app.cloud.charge_fee(&context.call()?, &new, &|fee| text_of(&to_wire(fee))).await?;
    once(outcome, to_wire)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::FeeListQuery = context.query()?;
    let asked = query.page();
    let page = app.cloud.list_fees(&context.actor, query.organization.as_ref(), &page_request(&asked)?).await?;
    page_answer(&asked, page, |fee| to_wire(&fee), |wire| wire.id.to_string())
}
