//! Settlement: usage records become events, charges and postings in one transaction.
//!
//! Settling again changes nothing. What cannot be charged is quarantined and visible, never
//! dropped and never zero.

use std::collections::BTreeMap;

use sublet_core::id::OrganizationId;
use sublet_core::usage::{SettleReport, UsageRecord, UsageSink};
use sublet_core::{BoxFuture, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::period::BillingCalendar;
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::rating::{rate_line, usage_lines};
use sublet_money::sku::SkuFamily;
use sublet_store::charge::{self, Charge};
use sublet_store::organization::Organization;
use sublet_store::slice::{self, Slice};
use sublet_store::usage::{self, Offered, UsageEvent};
use sublet_store::{Tx, budget, ledger, organization};

use crate::audit::Deed;
use crate::{Actor, Cloud};

impl UsageSink for Cloud {
    fn settle<'a>(&'a self, batch: &'a [UsageRecord]) -> BoxFuture<'a, Result<SettleReport>> {
        Box::pin(async move { self.store.write((self, batch), |(cloud, batch), tx| Box::pin(cloud.settle_batch(tx, batch))).await })
    }
}

/// Accounts looked up once per batch.
#[derive(Default)]
struct Accounts(BTreeMap<OrganizationId, (Organization, BillingCalendar)>);

impl Accounts {
    async fn get(&mut self, tx: &mut Tx, id: &OrganizationId) -> Result<&(Organization, BillingCalendar)> {
        if !self.0.contains_key(id) {
            let found = organization::get(tx, &Scope::Operator, id).await?;
            let calendar = BillingCalendar::new(&found.time_zone)?;
            self.0.insert(id.clone(), (found, calendar));
        }
        self.0.get(id).ok_or_else(|| sublet_core::Error::internal("an account vanished from the batch"))
    }
}

impl Cloud {
    async fn settle_batch(&self, tx: &mut Tx, batch: &[UsageRecord]) -> Result<SettleReport> {
        let now = self.now();
        let mut report = SettleReport::default();
        let mut accounts = Accounts::default();
        for record in batch {
            match usage::offer(tx, record).await {
                Ok(Offered::Duplicate) => report.duplicate += 1,
                Ok(Offered::New) => match self.settle_one(tx, record, &mut accounts, now).await? {
                    None => report.settled += 1,
                    Some(reason) => {
                        self.quarantine(tx, record, reason, now).await?;
                        report.quarantined += 1;
                    }
                },
                Err(error) if error.code() == ErrorCode::IdempotencyMismatch => {
                    let deed = Deed {
                        organization: Some(&record.organization),
                        action: "usage.conflict",
                        target: record.request.as_str(),
                        detail: error.to_string(),
                    };
                    self.record(tx, &Actor::system(), deed, now).await?;
                    report.quarantined += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    /// Charges one record. `Some` says why it cannot be charged.
    async fn settle_one(
        &self,
        tx: &mut Tx,
        record: &UsageRecord,
        accounts: &mut Accounts,
        now: Timestamp,
    ) -> Result<Option<String>> {
        let slice = match slice::find(tx, &record.gateway, &record.slice).await? {
            None => return Ok(Some(format!("there is no slice {}", record.slice))),
            Some(slice) if !slice.open => return Ok(Some(format!("slice {} is closed", slice.id))),
            Some(slice) if slice.fence != record.fence => return Ok(Some(format!("slice {} is of another session", slice.id))),
            Some(slice) if slice.key != record.key || slice.organization != record.organization => {
                return Ok(Some(format!("slice {} is of another key", slice.id)));
            }
            Some(slice) => slice,
        };
        let version = match self.price_version(tx, &record.price_version).await {
            Ok(version) => version,
            Err(error) if error.code() == ErrorCode::UnknownPrice => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let (_, calendar) = accounts.get(tx, &record.organization).await?;
        // Whatever is wrong with the record itself must not keep its batch from being settled.
        let dated = calendar.period_at(record.admitted_at).and_then(|period| Ok((period.key, usage_lines(record, period.key)?)));
        let (period, lines) = match dated {
            Ok(dated) => dated,
            Err(error) => return Ok(Some(error.to_string())),
        };
        let mut rated = Vec::new();
        for (key, quantity) in lines {
            let state = charge::line_state(tx, &key).await?;
            match rate_line(key, state, &version, quantity) {
                Ok(line) => rated.push(line),
                Err(error) if matches!(error.code(), ErrorCode::UnknownPrice | ErrorCode::AmountOverflow) => {
                    return Ok(Some(error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        let total = Nanos::checked_sum(rated.iter().map(|line| line.amount))?;
        if !slice::spend(tx, &slice.id, total, 1).await? {
            return Ok(Some(format!("{total} is more than slice {} has left", slice.id)));
        }
        for line in rated {
            charge::set_line_state(tx, &line.key, line.after).await?;
            let charge = Charge {
                id: self.ids.mint(),
                organization: record.organization.clone(),
                project: record.project.clone(),
                key: Some(record.key.clone()),
                source: record.request.to_string(),
                sku: line.key.sku.clone(),
                quantity: line.quantity,
                amount: line.amount,
                currency: slice.currency,
                price_version: record.price_version.clone(),
                period,
                before: line.before,
                occurred_at: record.admitted_at,
                posted_at: now,
            };
            charge::insert(tx, &charge).await?;
        }
        self.book_usage(tx, record, &slice, total).await?;
        Ok(None)
    }

    async fn book_usage(&self, tx: &mut Tx, record: &UsageRecord, slice: &Slice, total: Nanos) -> Result<()> {
        let now = self.now();
        budget::settle(tx, &slice.budgets, total).await?;
        let memo = format!("{} {} from {}", record.request, record.model, slice.id);
        let head = EntryHead { id: self.ids.mint(), at: now, currency: slice.currency, memo };
        let fact = Fact::UsageCaptured { family: SkuFamily::ModelTokens, amount: total };
        ledger::post(tx, &post(head, &record.organization, &fact)?).await?;
        usage::insert(tx, &UsageEvent { record: record.clone(), amount: total, currency: slice.currency, quarantine: None }).await
    }

    async fn quarantine(&self, tx: &mut Tx, record: &UsageRecord, reason: String, now: Timestamp) -> Result<()> {
        let currency = match organization::find(tx, &Scope::Operator, &record.organization).await? {
            Some(found) => found.currency,
            None => sublet_core::Currency::EUR,
        };
        let deed = Deed {
            organization: Some(&record.organization),
            action: "usage.quarantine",
            target: record.request.as_str(),
            detail: reason.clone(),
        };
        self.record(tx, &Actor::system(), deed, now).await?;
        let event = UsageEvent { record: record.clone(), amount: Nanos::ZERO, currency, quarantine: Some(reason) };
        usage::insert(tx, &event).await
    }
}
