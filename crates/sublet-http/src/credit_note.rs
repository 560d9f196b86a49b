//! Credit notes.

use sublet_api::credit_note as wire;
use sublet_api::object::CreditNoteTag;
use sublet_cloud::data::CreditNote;
use sublet_cloud::invoice::NewCreditNote;
use sublet_core::Result;

use crate::App;
use crate::answer::{Answer, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::credit::{kind_from_wire, kind_to_wire};
use crate::wire::money;

fn to_wire(note: &CreditNote) -> wire::CreditNote {
    wire::CreditNote {
        object: CreditNoteTag,
        id: note.id.clone(),
        number: note.number.to_string(),
        invoice: note.invoice.clone(),
        organization: note.organization.clone(),
        kind: kind_to_wire(note.kind),
        amount: money(note.amount, note.currency),
        tax: Some(note.tax).filter(|tax| !tax.is_zero()).map(|tax| money(tax, note.currency)),
        reason: note.reason.clone(),
        issued_at: note.issued_at.into(),
        created_at: note.issued_at.into(),
    }
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateCreditNote = context.body()?;
    let new = NewCreditNote {
        invoice: context.path("id")?,
        kind: kind_from_wire(body.kind),
        amount: body.amount.nanos(),
        currency: body.amount.currency,
        reason: body.reason,
    };
    let outcome = app.cloud.issue_credit_note(&context.call()?, &new, &|note| text_of(&to_wire(note))).await?;
    once(outcome, to_wire)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::CreditNoteListQuery = context.query()?;
    let asked = query.page();
    let page = app.cloud.list_credit_notes(&context.actor, query.invoice.as_ref(), &page_request(&asked)?).await?;
    page_answer(&asked, page, |note| to_wire(&note), |wire| wire.id.to_string())
}
