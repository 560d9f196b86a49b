//! Audit entries, written in the transaction of what they record.

use sublet_core::id::OrganizationId;
use sublet_core::{Result, Timestamp};
use sublet_store::audit::AuditEntry;
use sublet_store::{Page, PageRequest, Tx};

use crate::{Action, Actor, Cloud};

/// What an entry says besides who and when.
#[derive(Clone, Debug)]
pub struct Deed<'a> {
    pub organization: Option<&'a OrganizationId>,
    /// `noun.verb`, such as `key.create`.
    pub action: &'a str,
    pub target: &'a str,
    /// The figures that matter; never a secret.
    pub detail: String,
}

impl Cloud {
    /// Records a deed that is about to be committed with this transaction.
    pub(crate) async fn record(&self, tx: &mut Tx, actor: &Actor, deed: Deed<'_>, now: Timestamp) -> Result<()> {
        let entry = AuditEntry {
            id: self.ids.mint(),
            organization: deed.organization.cloned(),
            actor: actor.name().to_owned(),
            address: actor.address.clone(),
            action: deed.action.to_owned(),
            target: deed.target.to_owned(),
            result: "ok".to_owned(),
            detail: deed.detail,
            occurred_at: now,
        };
        sublet_store::audit::insert(tx, &entry).await
    }

    /// The audit log of the actor's organization, or all of it for the operator.
    pub async fn list_audit(&self, actor: &Actor, page: &PageRequest) -> Result<Page<AuditEntry>> {
        actor.require(Action::ReadAudit)?;
        self.store.read((actor, page), |(actor, page), tx| Box::pin(sublet_store::audit::list(tx, &actor.scope, page))).await
    }
}
