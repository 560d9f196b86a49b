//! The other side of settlement: what suppliers are owed for what was served, in the transaction that charges it.
//!
//! A purchase is owed whatever became of the request: also where the customer is charged nothing, and where another
//! attempt answered the line of a batch. It waits only with a record that is in quarantine.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sublet_core::id::OrganizationId;
use sublet_core::supplier::{CostVersion, Purchase};
use sublet_core::usage::UsageRecord;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result};
use sublet_money::cost::{CostLineKey, ReplicaCost, cost_lines, owe};
use sublet_money::period::PeriodKey;
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::rating::LineState;
use sublet_store::supplier::{self, BoughtRow};
use sublet_store::{Tx, ledger};

use crate::Cloud;
use crate::settlement::Fold;

/// What a batch owes to suppliers.
#[derive(Default)]
pub(crate) struct Costs<'a> {
    /// `None` if there is no such version.
    versions: BTreeMap<CostVersion, Option<ReplicaCost>>,
    lines: BTreeMap<CostLineKey, LineState>,
    rows: Vec<BoughtRow<'a>>,
}

/// What one record owes, and where the lines stand after it.
#[derive(Default)]
pub(crate) struct Owed<'a> {
    lines: BTreeMap<CostLineKey, LineState>,
    purchases: Vec<OwedPurchase<'a>>,
}

struct OwedPurchase<'a> {
    purchase: &'a Purchase,
    supplier: OrganizationId,
    period: PeriodKey,
    amount: Nanos,
    currency: Currency,
}

impl<'a> Fold<'a> {
    /// What a record owes to suppliers after those before it, or why that is not known.
    pub(crate) async fn owe(&mut self, tx: &mut Tx, record: &'a UsageRecord) -> Result<Result<Owed<'a>, String>> {
        let mut owed = Owed::default();
        for purchase in &record.purchases {
            let Some(cost) = self.cost(tx, &purchase.cost).await? else {
                return Ok(Err(format!("there is no cost {} of {}", purchase.cost.0, purchase.replica)));
            };
            if cost.content().replica != purchase.replica {
                return Ok(Err(format!("the cost {} is not one of {}", purchase.cost.0, purchase.replica)));
            }
            let calendar = &self.billing(tx, &cost.content().supplier).await?.calendar;
            let dated = calendar.period_at(record.admitted_at);
            let dated = dated.and_then(|period| Ok((period.key, cost_lines(&cost, &purchase.tokens, period.key)?)));
            let (period, lines) = match dated {
                Ok(dated) => dated,
                Err(error) => return Ok(Err(error.to_string())),
            };
            let mut amount = Nanos::ZERO;
            for (key, quantity) in lines {
                let state = match owed.lines.get(&key).or_else(|| self.costs.lines.get(&key)) {
                    Some(state) => *state,
                    None => supplier::line_state(tx, &key).await?,
                };
                match owe(state, &cost, key.kind, quantity).and_then(|(more, after)| Ok((amount.checked_add(more)?, after))) {
                    Ok((sum, after)) => {
                        amount = sum;
                        owed.lines.insert(key, after);
                    }
                    Err(error) if error.code() == ErrorCode::AmountOverflow => return Ok(Err(error.to_string())),
                    Err(error) => return Err(error),
                }
            }
            let (supplier, currency) = (cost.content().supplier.clone(), cost.content().currency);
            owed.purchases.push(OwedPurchase { purchase, supplier, period, amount, currency });
        }
        Ok(Ok(owed))
    }

    async fn cost(&mut self, tx: &mut Tx, version: &CostVersion) -> Result<Option<ReplicaCost>> {
        match self.costs.versions.entry(version.clone()) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(empty) => {
                let found = supplier::find_cost(tx, version).await?.map(|stored| stored.cost);
                Ok(empty.insert(found).clone())
            }
        }
    }

    /// Takes in what a record owes. `revenue` is what its customer was charged.
    pub(crate) fn buy(&mut self, record: &'a UsageRecord, owed: Owed<'a>, revenue: Nanos) {
        self.costs.lines.extend(owed.lines);
        for (position, bought) in (0_i64..).zip(owed.purchases) {
            let served = record.replica.as_ref() == Some(&bought.purchase.replica);
            self.costs.rows.push(BoughtRow {
                request: &record.request,
                attempt: record.attempt,
                position,
                supplier: bought.supplier,
                model: &record.model,
                period: bought.period,
                purchase: bought.purchase,
                amount: bought.amount,
                revenue: if served { revenue } else { Nanos::ZERO },
                currency: bought.currency,
                occurred_at: record.admitted_at,
                posted_at: self.now,
            });
        }
    }
}

impl Cloud {
    /// Writes what a batch owes: lines and purchases.
    pub(crate) async fn write_purchases(&self, tx: &mut Tx, costs: &Costs<'_>) -> Result<()> {
        let lines: Vec<_> = costs.lines.iter().map(|(key, state)| (key, *state)).collect();
        supplier::set_line_states(tx, &lines).await?;
        supplier::insert_purchases(tx, &costs.rows).await
    }

    /// One entry for each supplier of a batch, in one order for all.
    pub(crate) async fn post_purchases(&self, tx: &mut Tx, fold: &Fold<'_>) -> Result<()> {
        let mut suppliers: BTreeMap<(&OrganizationId, Currency), (Nanos, Vec<&BoughtRow<'_>>)> = BTreeMap::new();
        for row in &fold.costs.rows {
            let (amount, rows) = suppliers.entry((&row.supplier, row.currency)).or_default();
            *amount = amount.checked_add(row.amount)?;
            rows.push(row);
        }
        for ((id, currency), (amount, rows)) in suppliers {
            if amount.is_zero() {
                continue;
            }
            let [first, .., last] = rows.as_slice() else {
                let request = rows.first().ok_or_else(|| Error::internal("a supplier without a purchase"))?.request;
                self.post_one(tx, (id, amount), (currency, request.to_string(), fold)).await?;
                continue;
            };
            let memo = format!("{} purchases, {} to {}", rows.len(), first.request, last.request);
            self.post_one(tx, (id, amount), (currency, memo, fold)).await?;
        }
        Ok(())
    }

    async fn post_one(
        &self,
        tx: &mut Tx,
        (supplier, amount): (&OrganizationId, Nanos),
        (currency, memo, fold): (Currency, String, &Fold<'_>),
    ) -> Result<()> {
        let head = EntryHead { id: self.ids.mint(), at: fold.now, currency, memo };
        ledger::post(tx, &post(head, supplier, &Fact::SupplyBought { amount })?).await?;
        Ok(())
    }
}
