//! Settlement: usage records become events, charges, costs and postings in one transaction.
//!
//! A batch is folded: what its records refer to is read once, moved on in memory record by record in
//! their order, and written once. The result is what settling one by one would give, but that the
//! ledger has one entry for each organization of a batch.
//!
//! Settling again changes nothing. What cannot be charged is quarantined and visible, never
//! dropped and never zero.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sublet_core::id::{GatewayId, OrganizationId, RequestId, SliceId};
use sublet_core::usage::{SettleReport, UsageRecord, UsageSink};
use sublet_core::{BoxFuture, Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::rating::{LineKey, LineState, RatedLine, rate_line, used_lines};
use sublet_money::rerate::UsedAt;
use sublet_money::sku::SkuFamily;
use sublet_store::batch_line::{self, Given, Try};
use sublet_store::budget::BudgetRef;
use sublet_store::charge::{self, Charge};
use sublet_store::slice::{self, Slice};
use sublet_store::usage::{self, Encoded, NewEvent};
use sublet_store::{Tx, audit, budget, ledger, organization};

use crate::audit::Deed;
use crate::billing::Billing;
use crate::settlement_cost::Costs;
use crate::{Actor, Cloud};

impl UsageSink for Cloud {
    fn settle<'a>(&'a self, batch: &'a [UsageRecord]) -> BoxFuture<'a, Result<SettleReport>> {
        Box::pin(async move { self.store.write((self, batch), |(cloud, batch), tx| Box::pin(cloud.settle_batch(tx, batch))).await })
    }
}

/// The status of an answer that is charged.
const ANSWERED: u16 = 200;

/// A slice, and what a batch takes of it.
struct Drawn {
    slice: Slice,
    total: Nanos,
    /// The part of the total that is for requests, besides their tokens.
    for_requests: Nanos,
    records: i64,
}

/// What a batch charges an organization, by family of sku.
#[derive(Default)]
struct Captured {
    tokens: Nanos,
    requests: Nanos,
    records: i64,
}

impl Captured {
    /// What falling volume prices give back comes first, so that what is in slices never goes below zero between two.
    fn facts(&self, lost: bool) -> Vec<Fact> {
        let mut families = vec![(SkuFamily::ModelTokens, self.tokens), (SkuFamily::ModelRequests, self.requests)];
        families.retain(|(family, amount)| *family == SkuFamily::ModelTokens || !amount.is_zero());
        families.sort_by_key(|(_, amount)| *amount);
        let fact = |(family, amount)| match lost {
            true => Fact::SuspenseCaptured { family, amount },
            false => Fact::UsageCaptured { family, amount },
        };
        families.into_iter().map(fact).collect()
    }
}

impl Drawn {
    fn left(&self) -> Result<Nanos> {
        self.slice.granted.total()?.checked_sub(self.slice.spent)?.checked_sub(self.total)
    }
}

/// A batch on its way through.
pub(crate) struct Fold<'a> {
    pub(crate) now: Timestamp,
    report: SettleReport,
    /// Bodies that are known, from before and from this batch.
    hashes: BTreeMap<(RequestId, u32), String>,
    billings: BTreeMap<OrganizationId, Billing>,
    /// `None` if there is no such slice.
    slices: BTreeMap<(GatewayId, SliceId), Option<Drawn>>,
    lines: BTreeMap<LineKey, LineState>,
    charges: Vec<Charge>,
    events: Vec<NewEvent<'a>>,
    /// What it owes to suppliers.
    pub(crate) costs: Costs<'a>,
}

/// What one record is charged.
struct Rated {
    lines: Vec<RatedLine>,
    total: Nanos,
    /// The part of it that is for the request, besides its tokens.
    for_request: Nanos,
}

impl Rated {
    /// An error if its lines are too much together.
    fn of(lines: Vec<RatedLine>) -> Result<Self> {
        let total = Nanos::checked_sum(lines.iter().map(|line| line.amount))?;
        let for_request = lines.iter().filter(|line| line.key.sku.family() == SkuFamily::ModelRequests);
        let for_request = Nanos::checked_sum(for_request.map(|line| line.amount))?;
        Ok(Self { lines, total, for_request })
    }
}

impl<'a> Fold<'a> {
    fn new(now: Timestamp, hashes: BTreeMap<(RequestId, u32), String>) -> Self {
        Self {
            now,
            report: SettleReport::default(),
            hashes,
            billings: BTreeMap::new(),
            slices: BTreeMap::new(),
            lines: BTreeMap::new(),
            charges: Vec::new(),
            events: Vec::new(),
            costs: Costs::default(),
        }
    }

    pub(crate) async fn billing(&mut self, tx: &mut Tx, id: &OrganizationId) -> Result<&Billing> {
        match self.billings.entry(id.clone()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(empty) => Ok(empty.insert(Billing::of(tx, id).await?)),
        }
    }

    /// The slice that a record spends from, or why it may not.
    async fn slice(&mut self, tx: &mut Tx, record: &UsageRecord) -> Result<Result<&mut Drawn, String>> {
        let drawn = match self.slices.entry((record.gateway.clone(), record.slice.clone())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(empty) => {
                let found = slice::find(tx, &record.gateway, &record.slice).await?;
                empty.insert(found.map(|slice| Drawn { slice, total: Nanos::ZERO, for_requests: Nanos::ZERO, records: 0 }))
            }
        };
        Ok(match drawn {
            None => Err(format!("there is no slice {}", record.slice)),
            Some(Drawn { slice, .. }) if !slice.open => Err(format!("slice {} is closed", slice.id)),
            Some(Drawn { slice, .. }) if slice.fence != record.fence => Err(format!("slice {} is of another session", slice.id)),
            Some(Drawn { slice, .. }) if slice.key != record.key || slice.organization != record.organization => {
                Err(format!("slice {} is of another key", slice.id))
            }
            Some(drawn) => Ok(drawn),
        })
    }

    async fn line(&mut self, tx: &mut Tx, key: &LineKey) -> Result<LineState> {
        match self.lines.get(key) {
            Some(state) => Ok(*state),
            None => charge::line_state(tx, key).await,
        }
    }

    /// Names the first and the last request of an entry: usage events have those between.
    fn memo(&self, organization: &OrganizationId, count: i64) -> String {
        let charged = |event: &&NewEvent<'_>| {
            event.quarantine.is_none() && !event.superseded && &event.encoded.record.organization == organization
        };
        let mut requests = self.events.iter().filter(charged).map(|event| &event.encoded.record.request);
        match (requests.next(), requests.next_back()) {
            (Some(first), Some(last)) => format!("{count} requests, {first} to {last}"),
            (Some(only), None) => only.to_string(),
            (None, _) => String::new(),
        }
    }

    /// Takes a rated record in: from here on it is charged.
    fn charge(&mut self, cloud: &Cloud, record: &UsageRecord, rated: Rated, currency: Currency) {
        let billing = self.billings.get(&record.organization);
        for line in rated.lines {
            self.charges.push(Charge {
                id: cloud.ids.mint(),
                organization: record.organization.clone(),
                project: record.project.clone(),
                key: Some(record.key.clone()),
                source: record.request.to_string(),
                sku: line.key.sku.clone(),
                quantity: line.quantity,
                amount: line.amount,
                currency,
                price_version: line.key.price_version.clone(),
                period: line.key.period,
                billed_in: billing.and_then(|billing| billing.billed_in(line.key.period)),
                band: line.key.band.clone(),
                before: line.before,
                occurred_at: record.admitted_at,
                posted_at: self.now,
            });
            self.lines.insert(line.key, line.after);
        }
    }
}

impl Cloud {
    async fn settle_batch(&self, tx: &mut Tx, batch: &[UsageRecord]) -> Result<SettleReport> {
        let mut fold = Fold::new(self.now(), usage::hashes_of(tx, batch).await?);
        for record in batch {
            let encoded = Encoded::new(record)?;
            match fold.hashes.entry((record.request.clone(), record.attempt)) {
                Entry::Occupied(known) if *known.get() == encoded.body_hash => fold.report.duplicate += 1,
                Entry::Occupied(_) => {
                    fold.report.quarantined += 1;
                    self.report_conflict(tx, &encoded, &mut fold).await?;
                }
                Entry::Vacant(empty) => {
                    empty.insert(encoded.body_hash.clone());
                    self.settle_one(tx, encoded, &mut fold).await?;
                }
            }
        }
        self.write(tx, &fold).await?;
        Ok(fold.report)
    }

    /// Charges one new record, or says why not.
    async fn settle_one<'a>(&self, tx: &mut Tx, encoded: Encoded<'a>, fold: &mut Fold<'a>) -> Result<()> {
        let record = encoded.record;
        let answers = answer_line(tx, record).await?;
        let owed = match fold.owe(tx, record).await? {
            Ok(owed) => owed,
            Err(reason) => return self.set_aside(tx, encoded, reason, fold).await,
        };
        if !answers {
            fold.buy(record, owed, Nanos::ZERO);
            return supersede(tx, encoded, fold).await;
        }
        let outcome = match self.rate(tx, record, fold).await? {
            Ok(rated) => match fold.slice(tx, record).await? {
                Ok(drawn) if rated.total <= drawn.left()? => {
                    drawn.total = drawn.total.checked_add(rated.total)?;
                    drawn.for_requests = drawn.for_requests.checked_add(rated.for_request)?;
                    drawn.records += 1;
                    Ok((rated, drawn.slice.currency))
                }
                Ok(drawn) => Err(format!("{} is more than slice {} has left", rated.total, drawn.slice.id)),
                Err(reason) => Err(reason),
            },
            Err(reason) => Err(reason),
        };
        match outcome {
            Ok((rated, currency)) => {
                fold.report.settled += 1;
                fold.buy(record, owed, rated.total);
                fold.events.push(NewEvent { encoded, amount: rated.total, currency, quarantine: None, superseded: false });
                fold.charge(self, record, rated, currency);
            }
            Err(reason) => self.set_aside(tx, encoded, reason, fold).await?,
        }
        Ok(())
    }

    /// Neither charged nor owed: an operator has to look at it. Its slice counts it, so that the rest can go back.
    async fn set_aside<'a>(&self, tx: &mut Tx, encoded: Encoded<'a>, reason: String, fold: &mut Fold<'a>) -> Result<()> {
        fold.report.quarantined += 1;
        if let Ok(drawn) = fold.slice(tx, encoded.record).await? {
            drawn.records += 1;
        }
        let event = self.quarantine(tx, encoded, reason, fold.now).await?;
        fold.events.push(event);
        Ok(())
    }

    /// What a record costs after those before it, or why it cannot be charged. Whatever is wrong with
    /// the record itself must not keep its batch from being settled.
    async fn rate(&self, tx: &mut Tx, record: &UsageRecord, fold: &mut Fold<'_>) -> Result<Result<Rated, String>> {
        if let Err(reason) = fold.slice(tx, record).await? {
            return Ok(Err(reason));
        }
        let version = match self.price_version(tx, &record.price_version).await {
            Ok(version) => version,
            Err(error) if error.code() == ErrorCode::UnknownPrice => return Ok(Err(error.to_string())),
            Err(error) => return Err(error),
        };
        let now = fold.now;
        let month = fold.billing(tx, &record.organization).await?.month_of(record.admitted_at, now);
        let dated = month.and_then(|month| used_lines(record, month, &version).map_err(|error| error.to_string()));
        let quantities = match dated {
            Ok(quantities) => quantities,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut lines = Vec::with_capacity(quantities.len());
        for (key, quantity) in quantities {
            // Use of a time that was rated anew meanwhile goes where it would be now.
            let billing = fold.billing(tx, &record.organization).await?;
            let (key, version) = self.line_now(tx, billing, (key, UsedAt::instant(record.admitted_at)), &version).await?;
            if !key.is_asked_for(&version) {
                continue;
            }
            let state = fold.line(tx, &key).await?;
            match rate_line(key, state, &version, quantity) {
                Ok(line) => lines.push(line),
                Err(error) if matches!(error.code(), ErrorCode::UnknownPrice | ErrorCode::AmountOverflow) => {
                    return Ok(Err(error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Rated::of(lines).map_err(|error| error.to_string()))
    }

    /// Everything that a batch comes to, in an order that is the same for all.
    async fn write(&self, tx: &mut Tx, fold: &Fold<'_>) -> Result<()> {
        let lines: Vec<_> = fold.lines.iter().map(|(key, state)| (key, *state)).collect();
        charge::set_line_states(tx, &lines).await?;
        charge::insert(tx, &fold.charges).await?;
        usage::insert(tx, &fold.events).await?;
        self.write_purchases(tx, &fold.costs).await?;
        // Grants wait for the rows from here on, so they are taken last.
        let mut budgets: BTreeMap<&BudgetRef, Nanos> = BTreeMap::new();
        let mut captured: BTreeMap<(&OrganizationId, Currency, bool), Captured> = BTreeMap::new();
        for Drawn { slice, total, for_requests, records } in fold.slices.values().flatten().filter(|drawn| drawn.records > 0) {
            if !slice::spend(tx, slice, *total, *records).await? {
                return Err(Error::internal(format!("slice {} changed while {total} was settled on it", slice.id)));
            }
            for reference in &slice.budgets {
                let settled = budgets.entry(reference).or_default();
                *settled = settled.checked_add(*total)?;
            }
            let sum = captured.entry((&slice.organization, slice.currency, slice.lost)).or_default();
            sum.tokens = sum.tokens.checked_add(total.checked_sub(*for_requests)?)?;
            sum.requests = sum.requests.checked_add(*for_requests)?;
            sum.records += records;
        }
        for (reference, settled) in budgets {
            budget::settle(tx, std::slice::from_ref(reference), settled).await?;
        }
        let mut entries = Vec::with_capacity(captured.len());
        for ((organization, currency, lost), captured) in captured {
            let memo = fold.memo(organization, captured.records);
            for fact in captured.facts(lost) {
                let head = EntryHead { id: self.ids.mint(), at: fold.now, currency, memo: memo.clone() };
                entries.push(post(head, organization, &fact)?);
            }
        }
        ledger::post_all(tx, &entries).await?;
        self.post_purchases(tx, fold).await
    }

    /// The same identity came with another body: the first one stays. The slice counts this one too, for its
    /// gateway does, and once only, however often it comes.
    async fn report_conflict(&self, tx: &mut Tx, encoded: &Encoded<'_>, fold: &mut Fold<'_>) -> Result<()> {
        let record = encoded.record;
        let deed = Deed {
            organization: Some(&record.organization),
            action: "usage.conflict",
            target: record.request.as_str(),
            detail: format!(
                "usage of {} (attempt {}) was recorded before with other figures than those with the hash {}",
                record.request, record.attempt, encoded.body_hash
            ),
        };
        if audit::exists(tx, &record.organization, (deed.action, deed.target), &deed.detail).await? {
            return Ok(());
        }
        self.record(tx, &Actor::system(), deed, fold.now).await?;
        if let Ok(drawn) = fold.slice(tx, record).await? {
            drawn.records += 1;
        }
        Ok(())
    }

    async fn quarantine<'a>(&self, tx: &mut Tx, encoded: Encoded<'a>, reason: String, now: Timestamp) -> Result<NewEvent<'a>> {
        let record = encoded.record;
        let found = organization::find(tx, &Scope::Operator, &record.organization).await?;
        let currency = found.map_or(Currency::EUR, |found| found.currency);
        let deed = Deed {
            organization: Some(&record.organization),
            action: "usage.quarantine",
            target: record.request.as_str(),
            detail: reason.clone(),
        };
        self.record(tx, &Actor::system(), deed, now).await?;
        Ok(NewEvent { encoded, amount: Nanos::ZERO, currency, quarantine: Some(reason), superseded: false })
    }
}

/// Writes the answer of a line into its batch, in the transaction that charges it. False if this attempt may not.
async fn answer_line(tx: &mut Tx, record: &UsageRecord) -> Result<bool> {
    let Some(line) = &record.line else { return Ok(true) };
    let by = Try { name: &line.name, request: &record.request, attempt: record.attempt };
    batch_line::answer(tx, &by, &Given { status: ANSWERED, body: &line.answer, tokens: record.tokens }).await
}

/// Takes note of an answer that another attempt gives. Its slice counts the record, so that it can close.
async fn supersede<'a>(tx: &mut Tx, encoded: Encoded<'a>, fold: &mut Fold<'a>) -> Result<()> {
    fold.report.superseded += 1;
    let currency = match fold.slice(tx, encoded.record).await? {
        Ok(drawn) => {
            drawn.records += 1;
            drawn.slice.currency
        }
        Err(_) => Currency::EUR,
    };
    fold.events.push(NewEvent { encoded, amount: Nanos::ZERO, currency, quarantine: None, superseded: true });
    Ok(())
}
