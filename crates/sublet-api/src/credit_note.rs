//! What was taken back of issued invoices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{CreditNoteId, InvoiceId, OrganizationId};

use crate::credit::CreditKind;
use crate::list::list_query;
use crate::money::Money;
use crate::object::CreditNoteTag;
use crate::schema::IdText;
use crate::time::{Rfc3339, UnixSeconds};

/// Part of an issued invoice, taken back; the customer has it as credit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CreditNote {
    pub object: CreditNoteTag,
    #[schemars(with = "IdText<CreditNoteId>")]
    pub id: CreditNoteId,
    /// In a series of its own without gaps, such as `CN-2026-000001`.
    pub number: String,
    #[schemars(with = "IdText<InvoiceId>")]
    pub invoice: InvoiceId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub kind: CreditKind,
    pub amount: Money,
    /// Of the invoice's taxes, besides; left out where that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<Money>,
    pub reason: String,
    pub issued_at: Rfc3339,
    pub created_at: UnixSeconds,
}

/// Body that takes part of an invoice back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCreditNote {
    /// In the invoice's currency and its smallest units, above zero; all notes together at most the invoice's total.
    pub amount: Money,
    /// What the customer gets: `paid` may be paid out.
    pub kind: CreditKind,
    /// One line that the customer reads.
    pub reason: String,
}

list_query! {
    /// Which credit notes.
    CreditNoteListQuery {
        #[schemars(with = "Option<IdText<InvoiceId>>")]
        invoice: InvoiceId,
    }
}
