//! Compensation: what customers get for promises that were not kept, as credit with its evidence.
//!
//! A lease that the owner ended is judged when its devices go back, by the rule that held when it was sold; the credit is
//! in the transaction that releases it, once. For a level of service that was missed an operator gives back a share of
//! an issued invoice's charges, never more than they were in all.
//!
//! In the same transaction a holder who left before its deadline gets credit for it ([`crate::early_credit`]).
//!
//! What a job's start cost that was interrupted is given back when the job ends ([`crate::job_start`]).
//!
//! Nothing was interrupted where nothing ran, so it is owed nothing, but for `firm` leases, whose window was promised.
//!
//! Deliberately absent: what a level of service was. The operator says what was measured; the invoice says what it cost.

use serde::Serialize;
use serde_json::{Map, Value, json};
use sublet_core::id::{CompensationId, InvoiceId, LeaseId, OrganizationId};
use sublet_core::lease::{EndReason, Holder};
use sublet_core::notice::NoticeClass;
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::CreditKind;
use sublet_money::compensation::{
    Compensation, CompensationRule, CompensationRules, Interruption, charged_for_last, compensation, service_credit,
};
use sublet_money::credit_lot::CreditTerms;
use sublet_money::period::Interval;
use sublet_money::sku::{Quantity, SkuFamily};
use sublet_store::compensation::{self as stored, CompensationKind, LeaseNotice, StoredCompensation};
use sublet_store::compensation_rule::{self, StoredRules};
use sublet_store::credit::CreditGrant;
use sublet_store::invoice::{self, StoredInvoice};
use sublet_store::job::Job;
use sublet_store::lease::Lease;
use sublet_store::{Page, PageRequest, Tx, attempt, job};

use crate::audit::Deed;
use crate::compute::{Tariff, calendar_of};
use crate::credit::GrantSource;
use crate::idempotency::{Answer, Call, Render};
use crate::incoming_payment::check_note;
use crate::{Action, Actor, Cloud};

/// Most credits for one invoice.
const PER_INVOICE_MAX: i64 = 50;
/// Longest evidence that an operator gives, in bytes of JSON.
const EVIDENCE_MAX_BYTES: usize = 16 * 1024;

/// Credit for a level of service that was missed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewServiceCredit {
    pub invoice: InvoiceId,
    /// Which of its charges; all if `None`.
    pub family: Option<SkuFamily>,
    /// How much of them.
    pub share_ppm: u32,
    /// What was measured.
    pub evidence: Map<String, Value>,
    /// What the customer reads.
    pub note: String,
}

/// What happened to a lease and what follows from it, for people and programs that check it.
#[derive(Serialize)]
struct ReclaimEvidence {
    reason: EndReason,
    notice: NoticeClass,
    /// Nothing of `firm`, which is never taken back within its window.
    notice_sold_ms: Option<i64>,
    notice_given_ms: i64,
    missing_ms: i64,
    told_at: String,
    ended_at: String,
    started_at: String,
    window_ends_at: Option<String>,
    units: u32,
    price_per_hour: String,
    rules_version: i64,
    rule: CompensationRule,
    /// The device time whose charges are given back, and what they were.
    free_time_ms: i64,
    free: String,
    hour: String,
    missing: String,
}

struct Judged {
    interruption: Interruption,
    rule: (i64, CompensationRule),
    free_time: Quantity,
    owed: Compensation,
}

impl Judged {
    fn evidence(&self, reason: EndReason) -> ReclaimEvidence {
        let Self { interruption, rule: (rules_version, rule), free_time, owed } = self;
        ReclaimEvidence {
            reason,
            notice: interruption.class,
            notice_sold_ms: interruption.class.notice().map(|sold| sold.millis()),
            notice_given_ms: interruption.given().millis(),
            missing_ms: interruption.missing().millis(),
            told_at: interruption.told_at.to_string(),
            ended_at: interruption.ended_at.to_string(),
            started_at: interruption.started_at.to_string(),
            window_ends_at: interruption.window_ends_at.map(|at| at.to_string()),
            units: interruption.units,
            price_per_hour: interruption.price.to_string(),
            rules_version: *rules_version,
            rule: *rule,
            free_time_ms: free_time.get(),
            free: owed.free.to_string(),
            hour: owed.hour.to_string(),
            missing: owed.missing.to_string(),
        }
    }
}

/// How the owner ended a lease, if it did; the notice counts from when its holder was told first.
///
/// A holder who gives the lease back because it was told to is owed what it would have been; but one of `n0` that does not
/// yield it, and ends it for reasons of its own, lost nothing then.
pub(crate) fn owners_end(class: NoticeClass, notices: &[LeaseNotice]) -> Option<LeaseNotice> {
    let (first, last) = (notices.first()?, notices.last()?);
    let end = notices.iter().rev().find(|notice| is_owners(notice.reason))?;
    let is_interrupted = match class {
        NoticeClass::N0 => first.is_busy && is_owners(last.reason),
        NoticeClass::N2m | NoticeClass::N15m | NoticeClass::N1h | NoticeClass::N24h => first.is_busy,
        NoticeClass::Firm => true,
    };
    is_interrupted.then_some(LeaseNotice { told_at: first.told_at, ..*end })
}

/// Whether the owner ended it, and not its holder, its job, its window or its money.
pub(crate) const fn is_owners(reason: EndReason) -> bool {
    match reason {
        EndReason::Reclaimed | EndReason::DeviceLost | EndReason::ShutDown => true,
        EndReason::Released
        | EndReason::JobEnded
        | EndReason::WindowOver
        | EndReason::MaximumCost
        | EndReason::MaximumPrice
        | EndReason::Budget
        | EndReason::Unused => false,
    }
}

impl Cloud {
    /// Judges a lease that is being released, and makes good what it was promised and did not get.
    pub(crate) async fn compensate(&self, tx: &mut Tx, lease: &Lease, now: Timestamp) -> Result<()> {
        if lease.holder == Holder::Internal {
            return Ok(());
        }
        // A lease that was told before this was kept has no evidence, and nothing is guessed.
        let notices = stored::list_notices(tx, &Scope::Operator, &lease.id).await?;
        self.credit_early_leave(tx, lease, &notices, now).await?;
        let Some(end) = owners_end(lease.notice, &notices) else { return Ok(()) };
        let reason = end.reason;
        let Some(judged) = judge(tx, self, lease, end).await? else { return Ok(()) };
        if judged.owed.amount.is_zero() {
            return Ok(());
        }
        let evidence = object(&judged.evidence(reason))?;
        let note = match lease.notice {
            NoticeClass::Firm => format!("{} was taken back within its window", lease.id),
            NoticeClass::N0 => format!("{} was taken back: what was lost is not charged", lease.id),
            sold => format!("{} was taken back with less notice than {sold}", lease.id),
        };
        let made = Made {
            organization: &lease.organization,
            kind: CompensationKind::Reclaim,
            subject: lease.id.to_string(),
            share: (None, 0),
            amount: (judged.owed.amount, lease.currency),
            evidence,
            note,
        };
        self.make_good(tx, &Actor::system(), made, now).await.map(|_| ())
    }

    /// What a lease would be owed that keeps running until the owner ends it, told and ended at these instants.
    pub(crate) async fn foresee(&self, tx: &mut Tx, lease: &Lease, (told_at, ended_at): (Timestamp, Timestamp)) -> Result<Nanos> {
        let is_kept = lease.notice.notice().is_some_and(|sold| sold > DurationMs::ZERO && ended_at.since(told_at) >= sold);
        let is_idle = job::list_open_of(tx, &lease.id).await?.is_empty();
        if lease.holder == Holder::Internal || is_kept || is_idle {
            return Ok(Nanos::ZERO);
        }
        let (rule, interruption) = interruption_of(tx, self, lease, (told_at, ended_at)).await?;
        if !interruption.is_broken() {
            return Ok(Nanos::ZERO);
        }
        let since = interruption.free_from(rule.1);
        let free_time = stored::time_used(tx, &lease.id, since).await?;
        let charged = charged_for_last(free_time, &stored::newest_charges(tx, &lease.id, free_time).await?)?;
        let metered = attempt::find_live_of(tx, &lease.id).await?.and_then(|attempt| attempt.settled_until.or(attempt.started_at));
        let starts_at = metered.unwrap_or_else(|| self.now()).max(since);
        let rest = if starts_at < ended_at {
            let tariff = Tariff::of(tx, self, lease, starts_at).await?;
            tariff.cost_of(&calendar_of(tx, lease).await?, Interval { starts_at, ends_at: ended_at })?
        } else {
            Nanos::ZERO
        };
        let owed = compensation(&interruption, rule.1, charged.checked_add(rest)?)?;
        Ok(owed.map_or(Nanos::ZERO, |owed| owed.amount))
    }

    /// Gives back a share of an issued invoice's charges.
    pub async fn grant_service_credit(
        &self,
        call: &Call,
        new: &NewServiceCredit,
        render: &Render<StoredCompensation>,
    ) -> Result<Answer<StoredCompensation>> {
        call.actor.require(Action::GrantCredit)?;
        check_note(&new.note, "note")?;
        if new.evidence.is_empty() || json!(new.evidence).to_string().len() > EVIDENCE_MAX_BYTES {
            let message = format!("evidence says what was measured, in at most {EVIDENCE_MAX_BYTES} bytes");
            return Err(Error::new(ErrorCode::InvalidRequest, message).param("evidence"));
        }
        self.once(call, render, (self, &call.actor, new), |(cloud, actor, new), tx| {
            Box::pin(async move {
                let found = invoice::find(tx, &actor.scope, &new.invoice).await?;
                let missing = || Error::new(ErrorCode::NotFound, format!("there is no invoice '{}'", new.invoice)).param("invoice");
                let found = found.ok_or_else(missing)?;
                let (charged, amount) = service_credit_of(tx, &found, new).await?;
                let evidence = object(&json!({ "measured": new.evidence, "charged": charged.to_string() }))?;
                let made = Made {
                    organization: found.organization(),
                    kind: CompensationKind::Sla,
                    subject: new.invoice.to_string(),
                    share: (new.family, new.share_ppm),
                    amount: (amount, found.currency()),
                    evidence,
                    note: new.note.clone(),
                };
                cloud.make_good(tx, actor, made, cloud.now()).await
            })
        })
        .await
    }

    /// What was given back of an invoice for levels of service that were missed.
    pub(crate) async fn service_credits_of(&self, tx: &mut Tx, invoice: &StoredInvoice) -> Result<Nanos> {
        let given = stored::list_of(tx, invoice.organization(), invoice.invoice.id.as_str(), PER_INVOICE_MAX).await?;
        Nanos::checked_sum(given.iter().map(|one| one.amount))
    }

    pub(crate) async fn make_good(&self, tx: &mut Tx, actor: &Actor, made: Made<'_>, now: Timestamp) -> Result<StoredCompensation> {
        let id: CompensationId = self.ids.mint();
        let (amount, currency) = made.amount;
        let grant = CreditGrant {
            id: self.ids.mint(),
            organization: made.organization.clone(),
            kind: CreditKind::Promotional.as_str().to_owned(),
            amount,
            currency,
            reference: format!("{id} for {}", made.subject),
            terms: CreditTerms::default(),
            created_at: now,
            remaining: None,
        };
        let given = StoredCompensation {
            id,
            organization: made.organization.clone(),
            kind: made.kind,
            subject: made.subject,
            family: made.share.0,
            share_ppm: made.share.1,
            amount,
            currency,
            evidence: made.evidence,
            note: made.note,
            grant: grant.id.clone(),
            created_by: actor.name().to_owned(),
            created_at: now,
        };
        if !stored::insert(tx, &given).await? {
            return Err(Error::new(ErrorCode::Conflict, format!("{} was compensated already", given.subject)));
        }
        self.insert_grant(tx, actor, &grant, GrantSource::Compensation).await?;
        let deed = Deed {
            organization: Some(&given.organization),
            action: "compensation.give",
            target: given.id.as_str(),
            detail: format!("{amount} {currency} for {}: {}", given.subject, given.note),
        };
        self.record(tx, actor, deed, now).await?;
        Ok(given)
    }

    pub async fn get_compensation(&self, actor: &Actor, id: &CompensationId) -> Result<StoredCompensation> {
        actor.require(Action::ReadBilling)?;
        let found = self.store.read((actor, id), |(actor, id), tx| Box::pin(stored::find(tx, &actor.scope, id))).await?;
        found.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no compensation '{id}'")))
    }

    /// Those of the actor's organization; of an operator, of one or all.
    pub async fn list_compensations(
        &self,
        actor: &Actor,
        organization: Option<&OrganizationId>,
        page: &PageRequest,
    ) -> Result<Page<StoredCompensation>> {
        actor.require(Action::ReadBilling)?;
        self.store
            .read((actor, organization, page), |(actor, organization, page), tx| {
                Box::pin(stored::list(tx, &actor.scope, *organization, page))
            })
            .await
    }

    /// The rules that hold for leases that are sold now.
    pub async fn compensation_rules(&self, actor: &Actor) -> Result<StoredRules> {
        actor.require(Action::ReadCatalogue)?;
        let now = self.now();
        self.store.read(now, |now, tx| Box::pin(compensation_rule::find_at(tx, *now))).await
    }

    /// Sets what leases are owed that are sold from now on; those that were sold keep theirs. The same rules again change
    /// nothing.
    pub async fn set_compensation_rules(&self, actor: &Actor, rules: &CompensationRules) -> Result<StoredRules> {
        actor.require(Action::ManagePrices)?;
        self.store
            .write((self, actor, rules), |(cloud, actor, rules), tx| {
                Box::pin(async move {
                    let now = cloud.now();
                    let known = compensation_rule::find_at(tx, now).await?;
                    if known.rules == **rules {
                        return Ok(known);
                    }
                    let set = compensation_rule::insert(tx, rules, actor.name(), now).await?;
                    let (target, detail) = (set.version.to_string(), "what interrupted leases are owed".to_owned());
                    let deed = Deed { organization: None, action: "compensation_rules.set", target: &target, detail };
                    cloud.record(tx, actor, deed, now).await?;
                    Ok(set)
                })
            })
            .await
    }
}

/// What a credit is for and how much it is.
pub(crate) struct Made<'o> {
    organization: &'o OrganizationId,
    kind: CompensationKind,
    subject: String,
    share: (Option<SkuFamily>, u32),
    amount: (Nanos, Currency),
    evidence: Map<String, Value>,
    note: String,
}

impl<'o> Made<'o> {
    /// The price of a start that has to be made again.
    pub(crate) fn of_start((job, lease): (&'o Job, &Lease), amount: Nanos, evidence: &impl Serialize) -> Result<Self> {
        Ok(Self {
            organization: &job.organization,
            kind: CompensationKind::Reclaim,
            subject: job.id.to_string(),
            share: (None, 0),
            amount: (amount, lease.currency),
            evidence: object(evidence)?,
            note: format!("{} was interrupted: its start is not charged", job.id),
        })
    }

    /// A share of the notice that was not used.
    pub(crate) fn of_early_leave(lease: &'o Lease, amount: Nanos, evidence: &impl Serialize) -> Result<Self> {
        Ok(Self {
            organization: &lease.organization,
            kind: CompensationKind::Early,
            subject: lease.id.to_string(),
            share: (None, 0),
            amount: (amount, lease.currency),
            evidence: object(evidence)?,
            note: format!("{} was left before its deadline", lease.id),
        })
    }
}

fn object(evidence: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(evidence) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) | Err(_) => Err(Error::internal("evidence is no JSON object")),
    }
}

/// The last instant at which a lease could be used that the owner ended.
pub(crate) async fn last_instant(tx: &mut Tx, lease: &LeaseId, end: &LeaseNotice) -> Result<Timestamp> {
    Ok(match end.reason {
        // It is lost before anybody notices: what was used says until when it was there.
        EndReason::DeviceLost if end.is_busy => {
            stored::last_use(tx, lease).await?.map_or(end.deadline, |used| used.min(end.deadline))
        }
        _ => end.deadline,
    })
}

async fn judge(tx: &mut Tx, cloud: &Cloud, lease: &Lease, end: LeaseNotice) -> Result<Option<Judged>> {
    let ended_at = last_instant(tx, &lease.id, &end).await?;
    let ((version, rule), interruption) = interruption_of(tx, cloud, lease, (end.told_at.min(ended_at), ended_at)).await?;
    if !interruption.is_broken() {
        return Ok(None);
    }
    let free_time = stored::time_used(tx, &lease.id, interruption.free_from(rule)).await?;
    let free = charged_for_last(free_time, &stored::newest_charges(tx, &lease.id, free_time).await?)?;
    let owed = compensation(&interruption, rule, free)?;
    Ok(owed.map(|owed| Judged { interruption, rule: (version, rule), free_time, owed }))
}

/// The rule that a lease was sold with, and how it is ended.
async fn interruption_of(
    tx: &mut Tx,
    cloud: &Cloud,
    lease: &Lease,
    (told_at, ended_at): (Timestamp, Timestamp),
) -> Result<((i64, CompensationRule), Interruption)> {
    let StoredRules { version, rules, .. } = compensation_rule::find_at(tx, lease.created_at).await?;
    let interruption = Interruption {
        class: lease.notice,
        units: lease.units,
        price: price_at(tx, cloud, lease, told_at).await?,
        started_at: lease.starts_at,
        window_ends_at: lease.ends_at,
        told_at,
        ended_at,
    };
    Ok(((version, rules.of(lease.notice)), interruption))
}

/// What a unit and hour of a lease cost when its holder was told. Not the quote's: the price may have changed with time
/// since. Of a time to come it may not be known yet.
pub(crate) async fn price_at(tx: &mut Tx, cloud: &Cloud, lease: &Lease, told_at: Timestamp) -> Result<Nanos> {
    let tariff = Tariff::of(tx, cloud, lease, told_at.min(cloud.now())).await?;
    tariff.per_hour(told_at).or_else(|_| tariff.per_hour(told_at.min(cloud.now())))
}

/// What the share is of, and what it comes to: with all that was given back before, never more than was charged.
async fn service_credit_of(tx: &mut Tx, found: &StoredInvoice, new: &NewServiceCredit) -> Result<(Nanos, Nanos)> {
    let Some(number) = &found.invoice.number else {
        let message = format!("invoice {} is a draft: what it charges is not final", new.invoice);
        return Err(Error::new(ErrorCode::Conflict, message).param("invoice"));
    };
    let lines = found.invoice.content.lines.iter();
    let of_it = lines.filter(|line| new.family.is_none_or(|family| line.sku.family() == family));
    let charged = Nanos::checked_sum(of_it.map(|line| line.charges.amount))?;
    let amount = service_credit(charged, new.share_ppm)?;
    let too_much = |message: String| Err(Error::new(ErrorCode::InvalidAmount, message).param("share_ppm"));
    if amount <= Nanos::ZERO {
        return too_much(format!("{number} has no such charges to give back"));
    }
    let given = stored::list_of(tx, found.organization(), new.invoice.as_str(), PER_INVOICE_MAX).await?;
    if i64::try_from(given.len()).unwrap_or(PER_INVOICE_MAX) >= PER_INVOICE_MAX {
        return too_much(format!("an invoice has at most {PER_INVOICE_MAX} such credits"));
    }
    let overlapping = given.iter().filter(|one| one.family.is_none() || new.family.is_none() || one.family == new.family);
    let mut before = Nanos::checked_sum(overlapping.map(|one| one.amount))?;
    if new.family.is_none() {
        before = before.checked_add(found.credited)?;
    }
    let left = charged.checked_sub(before)?;
    let all = Nanos::checked_sum(given.iter().map(|one| one.amount))?.checked_add(found.credited)?;
    // The total is in whole minor units: it may be less than what was charged.
    let content = &found.invoice.content;
    let whole = content.charged()?.max(content.total);
    let left = left.min(whole.checked_sub(all)?).max(Nanos::ZERO);
    if amount > left {
        return too_much(format!("{amount} is more than the {left} {} of {number} that was not given back", found.currency()));
    }
    Ok((charged, amount))
}
