//! Mail that the cloud sends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{OrganizationId, OutboxId};

use crate::list::list_query;
use crate::object::MailTag;
use crate::payment::words;
use crate::schema::IdText;
use crate::time::{Rfc3339, UnixSeconds};

words! {
    /// What became of a mail.
    MailStatus {
        /// It is to be sent, or sent again.
        Queued = "queued",
        /// A server took it, or it is in the folder.
        Sent = "sent",
        /// It was given up; an operator can have it tried again.
        Failed = "failed",
    }
}

/// A mail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Mail {
    pub object: MailTag,
    #[schemars(with = "IdText<OutboxId>")]
    pub id: OutboxId,
    /// Null for mail to the operator.
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub organization: Option<OrganizationId>,
    /// What it is about, such as `invoice_issued`.
    pub kind: String,
    pub subject: String,
    pub text: String,
    pub status: MailStatus,
    pub attempts: i64,
    /// Why the last attempt failed.
    pub problem: Option<String>,
    /// To whom it was sent.
    pub sent_to: Option<String>,
    /// While it is queued.
    pub next_at: Option<Rfc3339>,
    pub created_at: UnixSeconds,
}

list_query! {
    /// Which mail.
    MailListQuery { status: MailStatus }
}
