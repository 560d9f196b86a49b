//! Mail that the cloud sends, with operator keys.

use sublet_core::error::Result;
use sublet_core::id::OutboxId;

use super::Client;
use crate::list::List;
use crate::mail::{Mail, MailListQuery};
use crate::route::Operation;

impl Client {
    pub fn mail(&self, query: &MailListQuery) -> Result<List<Mail>> {
        self.call(Operation::ListMail, &[]).query(query).json()
    }
    pub fn retry_mail(&self, id: &OutboxId) -> Result<Mail> {
        self.call(Operation::RetryMail, &[id.as_str()]).json()
    }
}
