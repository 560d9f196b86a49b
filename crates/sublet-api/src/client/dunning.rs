//! The calls about what is overdue.

use sublet_core::error::Result;
use sublet_core::id::{InvoiceId, OrganizationId};

use super::Client;
use crate::dunning::{Dunning, DunningDays, DunningPolicy, PauseInvoice, SetDunning, SetOnSuspension};
use crate::route::Operation;

/// Of the organization, with admin keys.
impl Client {
    pub fn dunning(&self) -> Result<Dunning> {
        self.call(Operation::GetDunning, &[]).json()
    }
    pub fn set_on_suspension(&self, body: &SetOnSuspension) -> Result<Dunning> {
        self.call(Operation::SetOnSuspension, &[]).body(body).json()
    }
}

/// Of the cloud, with operator keys.
impl Client {
    pub fn dunning_policy(&self) -> Result<DunningPolicy> {
        self.call(Operation::GetDunningPolicy, &[]).json()
    }
    pub fn set_dunning_policy(&self, body: &DunningDays) -> Result<DunningPolicy> {
        self.call(Operation::SetDunningPolicy, &[]).body(body).json()
    }
    pub fn dunning_of(&self, id: &OrganizationId) -> Result<Dunning> {
        self.call(Operation::OperatorGetDunning, &[id.as_str()]).json()
    }
    pub fn set_dunning_of(&self, id: &OrganizationId, body: &SetDunning) -> Result<Dunning> {
        self.call(Operation::OperatorSetDunning, &[id.as_str()]).body(body).json()
    }
    pub fn pause_invoice(&self, id: &InvoiceId, body: &PauseInvoice) -> Result<Dunning> {
        self.call(Operation::PauseInvoice, &[id.as_str()]).body(body).json()
    }
}
