//! Invoices: the draft of a period, made from its lines and checked against its charges.

use sublet_core::id::{InvoiceId, OrganizationId};
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope};
use sublet_money::invoice::{ChargeSum, ChargedLine, Invoice, InvoiceAccount, draft};
use sublet_money::period::{BillingCalendar, PeriodKey};
use sublet_money::rating::LineKey;
use sublet_store::invoice::{self, StoredInvoice};
use sublet_store::row::to_json;
use sublet_store::{Page, PageRequest, Tx, charge, organization};

use crate::{Action, Actor, Cloud};

impl Cloud {
    /// Drafts the invoice of a period (the running one if none is named). The same books give the same draft.
    pub async fn draft_invoice(&self, actor: &Actor, organization: &OrganizationId, period: Option<PeriodKey>) -> Result<Invoice> {
        actor.require(Action::ReadBilling)?;
        self.store
            .write((self, actor, organization), move |(cloud, actor, organization), tx| {
                Box::pin(cloud.draft_in(tx, &actor.scope, organization, period))
            })
            .await
    }

    async fn draft_in(
        &self,
        tx: &mut Tx,
        scope: &Scope,
        organization: &OrganizationId,
        period: Option<PeriodKey>,
    ) -> Result<Invoice> {
        let account = organization::get(tx, scope, organization).await?;
        let calendar = BillingCalendar::new(&account.time_zone)?;
        let period = match period {
            Some(key) => calendar.period(key)?,
            None => calendar.period_at(self.now())?,
        };
        let mut lines = Vec::new();
        for stored in charge::list_lines(tx, organization, period.key).await? {
            let key = LineKey {
                organization: organization.clone(),
                project: stored.project,
                period: period.key,
                price_version: stored.price_version,
                sku: stored.sku,
                band: stored.band,
            };
            let (count, amount) = charge::sum_of_line(tx, &key).await?;
            let count = u64::try_from(count).unwrap_or(0);
            lines.push(ChargedLine { key, state: stored.state, charges: ChargeSum { count, amount } });
        }
        let mut versions = Vec::new();
        for line in &lines {
            versions.push(self.price_version(tx, &line.key.price_version).await?);
        }
        let versions: Vec<_> = versions.iter().map(AsRef::as_ref).collect();
        let invoiced = InvoiceAccount {
            organization: organization.clone(),
            name: account.name.clone(),
            currency: account.currency,
            zone: account.time_zone.clone(),
        };
        let content = draft(invoiced, period, Nanos::ZERO, &lines, &versions)?;
        let known = invoice::find_of_period(tx, organization, period.key).await?;
        let id = known.map_or_else(|| self.ids.mint(), |known| known.id);
        let drafted = Invoice::draft(id, content);
        let stored = StoredInvoice {
            id: drafted.id.clone(),
            organization: organization.clone(),
            period: period.key,
            state: "draft".to_owned(),
            currency: account.currency,
            total: drafted.content.total,
            body: to_json(&drafted)?,
            generation: 1,
            created_at: self.now(),
        };
        invoice::put_draft(tx, &stored).await?;
        Ok(drafted)
    }

    pub async fn get_invoice(&self, actor: &Actor, id: &InvoiceId) -> Result<Invoice> {
        actor.require(Action::ReadBilling)?;
        let stored = self.store.read((actor, id), |(actor, id), tx| Box::pin(invoice::find(tx, &actor.scope, id))).await?;
        let stored = stored.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no invoice '{id}'")))?;
        parse(&stored)
    }

    pub async fn list_invoices(&self, actor: &Actor, page: &PageRequest) -> Result<Page<Invoice>> {
        actor.require(Action::ReadBilling)?;
        let page = self.store.read((actor, page), |(actor, page), tx| Box::pin(invoice::list(tx, &actor.scope, page))).await?;
        let items = page.items.iter().map(parse).collect::<Result<_>>()?;
        Ok(Page { items, has_more: page.has_more })
    }
}

fn parse(stored: &StoredInvoice) -> Result<Invoice> {
    serde_json::from_str(&stored.body).map_err(|error| Error::internal(format!("invoice {}: {error}", stored.id)))
}
