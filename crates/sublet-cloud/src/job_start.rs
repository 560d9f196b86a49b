//! Starts: what a job costs once, for being started.
//!
//! The most that a start can cost is held when the job is asked for, apart from what its lease holds for time, and within
//! the lease's maximum cost. It is charged in the transaction that learns that the program runs, once for a job however
//! often it is tried; of a job that never ran, it goes back. A job that the owner interrupted and that did not go on has to be
//! started anew: what
//! its start costs by the list that it is rated by when it ends is given back as credit.
//!
//! Deliberately absent: a start for each attempt. Trying again is ours.

use std::sync::Arc;

use serde::Serialize;
use sublet_core::job::{JobState, StopReason};
use sublet_core::lease::Holder;
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::period::PeriodKey;
use sublet_money::price_book::PriceListVersion;
use sublet_money::rating::{LineKey, RatedLine, rate_line};
use sublet_money::rerate::UsedAt;
use sublet_money::sku::{Quantity, QuantityChange, SkuFamily, SkuName};
use sublet_store::charge::{self, Charge};
use sublet_store::job::Job;
use sublet_store::lease::{self, Lease};
use sublet_store::metered::JobStart;
use sublet_store::{Tx, attempt, compensation, hold, organization};

use crate::Cloud;
use crate::billing::Billing;
use crate::compensation::is_owners;
use crate::compute::{Compute, device_of};
use crate::hold::HoldOwner;
use crate::restart::taken;

const FAMILY: SkuFamily = SkuFamily::JobStarts;
/// Most charges of one job, for its start and for what else it is charged.
const CHARGES_MAX: i64 = 10_000;

/// Why a start was given back, for people and programs that check it.
#[derive(Serialize)]
struct Evidence {
    reason: &'static str,
    lease: String,
    charges: Vec<String>,
    interrupted_at: String,
}

fn owner_of(job: &Job) -> HoldOwner {
    HoldOwner {
        organization: job.organization.clone(),
        project: job.project.clone(),
        key: job.key.clone(),
        subject: job.id.to_string(),
        family: FAMILY.paid_as(),
    }
}

/// The line that a start is on first.
pub(crate) fn line_of(start: &JobStart, period: PeriodKey) -> LineKey {
    LineKey {
        organization: start.organization.clone(),
        project: start.project.clone(),
        period,
        price_version: start.price_version.clone(),
        sku: SkuName::Starts { device: start.device.clone() },
        band: None,
    }
}

/// What is set aside for a lease: for its time, and for jobs on it that did not start yet.
pub(crate) async fn held_for(tx: &mut Tx, lease: &Lease) -> Result<Nanos> {
    let for_time = match hold::find_open(tx, lease.id.as_str()).await? {
        Some(hold) => hold.uncaptured()?.total()?,
        None => Nanos::ZERO,
    };
    for_time.checked_add(hold::open_total_of_jobs(tx, &lease.id).await?)
}

impl Compute {
    /// Sets aside what the start of a new job costs at most. Without a price it costs nothing.
    pub(crate) async fn hold_start(&self, tx: &mut Tx, lease: &Lease, job: &Job) -> Result<()> {
        let version = self.cloud.price_version(tx, &lease.price_version).await?;
        let Some(price) = version.start_price(device_of(&lease.sku)?)? else { return Ok(()) };
        if let Some(max_cost) = lease.max_cost {
            let needed = lease.cost.checked_add(held_for(tx, lease).await?)?.checked_add(price)?;
            if needed > max_cost {
                let (id, currency) = (&lease.id, lease.currency);
                let message = format!(
                    "starting a job costs {price} {currency}; with what lease '{id}' cost and holds that is {needed} {currency}, \
                     and its maximum cost is {max_cost} {currency}"
                );
                return Err(Error::new(ErrorCode::PriceAboveMaximum, message)
                    .alternative("lease anew with a higher maximum cost, or with one job for all that is to be run"));
            }
        }
        self.cloud.place_hold(tx, &owner_of(job), price, self.now()).await.map(|_| ())
    }

    /// Charges the start of a job whose program began to run. Once: a job that was charged holds nothing any more.
    pub(crate) async fn charge_start(&self, tx: &mut Tx, lease: &Lease, job: &Job, at: Timestamp) -> Result<()> {
        let Some(held) = hold::find_open(tx, job.id.as_str()).await? else { return Ok(()) };
        let now = self.now();
        let charge = self.cloud.start_charge(tx, lease, job, (at, now)).await?;
        if let Some(charge) = charge {
            let covered = charge.amount.min(held.uncaptured()?.total()?);
            self.cloud.capture_hold(tx, &held, (FAMILY, covered), now).await?;
            // Its list was put right meanwhile, by one that is dearer.
            let rest = charge.amount.checked_sub(covered)?;
            if !rest.is_zero() {
                let account = organization::get(tx, &Scope::Operator, &job.organization).await?;
                let owner = HoldOwner { family: FAMILY, ..owner_of(job) };
                self.cloud.pay_or_owe(tx, &account, &owner, (rest, now)).await?;
            }
            let amount = charge.amount;
            charge::insert(tx, &[charge]).await?;
            lease::add_cost(tx, &lease.id, amount).await?;
        }
        self.cloud.release_hold(tx, job.id.as_str(), now).await
    }

    /// Gives back what the start of a job cost that the owner interrupted, or that its holder gave up when told.
    pub(crate) async fn give_start_back(
        &self,
        tx: &mut Tx,
        (job, stopped_for): (&Job, Option<StopReason>),
        at: Timestamp,
    ) -> Result<()> {
        let reason = match (interruption_of(tx, job).await?, job.state, stopped_for) {
            (Some(reason), ..) | (None, JobState::Interrupted { reason }, _) | (None, JobState::Cancelled, Some(reason)) => reason,
            _ => return Ok(()),
        };
        let Some(started_at) = job.started_at else { return Ok(()) };
        let last = lease::get(tx, &Scope::Operator, &job.lease).await?;
        if last.holder == Holder::Internal || !is_owners_doing(tx, &last, (reason, started_at)).await? {
            return Ok(());
        }
        let lease = lease::get(tx, &Scope::Operator, job.start_lease.as_ref().unwrap_or(&job.lease)).await?;
        let mut charges = charge::list_of(tx, job.id.as_str(), CHARGES_MAX).await?;
        charges.retain(|charge| charge.sku.family() == FAMILY);
        let amount = self.cloud.start_costs(tx, &lease, (&charges, started_at)).await?;
        if amount <= Nanos::ZERO {
            return Ok(());
        }
        let evidence = Evidence {
            reason: reason.as_str(),
            lease: lease.id.to_string(),
            charges: charges.iter().map(|charge| charge.id.to_string()).collect(),
            interrupted_at: at.to_string(),
        };
        self.cloud.make_good_start(tx, (job, &lease), (amount, &evidence), self.now()).await
    }
}

/// Why the owner interrupted a job that has not run again since, if that is so.
async fn interruption_of(tx: &mut Tx, job: &Job) -> Result<Option<StopReason>> {
    if job.requeued_at.is_none() {
        return Ok(None);
    }
    let ran = attempt::list_of(tx, &job.id).await?.into_iter().rfind(|attempt| attempt.started_at.is_some());
    let Some(ran) = ran else { return Ok(None) };
    let lease = lease::get(tx, &Scope::Operator, &ran.lease).await?;
    Ok(Some(taken(&lease).unwrap_or(StopReason::Lost)))
}

/// Whether the owner stopped a job, or its lease ended otherwise after the owner had told its holder while the job ran.
async fn is_owners_doing(tx: &mut Tx, lease: &Lease, (reason, started_at): (StopReason, Timestamp)) -> Result<bool> {
    let reason = match reason {
        StopReason::Lost => return Ok(true),
        StopReason::LeaseEnds(reason) => reason,
        StopReason::Cancelled | StopReason::TimeLimit => return Ok(false),
    };
    if is_owners(reason) {
        return Ok(true);
    }
    let notices = compensation::list_notices(tx, &Scope::Operator, &lease.id).await?;
    Ok(notices.iter().any(|notice| is_owners(notice.reason) && notice.told_at >= started_at))
}

impl Cloud {
    /// The charge for a start, and its line moved on; `None` where the list that it is rated by asks nothing for it.
    async fn start_charge(
        &self,
        tx: &mut Tx,
        lease: &Lease,
        job: &Job,
        (at, now): (Timestamp, Timestamp),
    ) -> Result<Option<Charge>> {
        let billing = Billing::of(tx, &lease.organization).await?;
        let (key, version) = self.start_line(tx, &billing, lease, at).await?;
        if !key.is_asked_for(&version) {
            return Ok(None);
        }
        let state = charge::line_state(tx, &key).await?;
        let RatedLine { key, quantity, amount, before, after } = rate_line(key, state, &version, Quantity::new(1)?)?;
        charge::set_line_states(tx, &[(&key, after)]).await?;
        Ok(Some(Charge {
            id: self.ids.mint(),
            organization: key.organization,
            project: key.project,
            key: job.key.clone(),
            source: job.id.to_string(),
            sku: key.sku,
            quantity,
            amount,
            currency: version.currency(),
            price_version: key.price_version,
            period: key.period,
            billed_in: billing.billed_in(key.period),
            band: key.band,
            before,
            occurred_at: at,
            posted_at: now,
        }))
    }

    /// The line that a start on a lease is on now, and its price list.
    async fn start_line(
        &self,
        tx: &mut Tx,
        billing: &Billing,
        lease: &Lease,
        at: Timestamp,
    ) -> Result<(LineKey, Arc<PriceListVersion>)> {
        let version = self.price_version(tx, &lease.price_version).await?;
        let start = JobStart {
            organization: lease.organization.clone(),
            project: lease.project.clone(),
            price_version: lease.price_version.clone(),
            device: device_of(&lease.sku)?.clone(),
            at,
        };
        let key = line_of(&start, billing.calendar.period_at(at)?.key);
        self.line_now(tx, billing, (key, UsedAt::instant(at)), &version).await
    }

    /// Whether the list that the start of a job is rated by now has a price for it.
    pub(crate) async fn asks_for_start(&self, tx: &mut Tx, job: &Job, started_at: Timestamp) -> Result<bool> {
        let lease = lease::get(tx, &Scope::Operator, job.start_lease.as_ref().unwrap_or(&job.lease)).await?;
        let billing = Billing::of(tx, &lease.organization).await?;
        let (key, version) = self.start_line(tx, &billing, &lease, started_at).await?;
        Ok(key.is_asked_for(&version))
    }

    /// What a start costs as it stands now: what was charged for it, or, where it was rated anew since, what its line
    /// would cost less without it.
    async fn start_costs(&self, tx: &mut Tx, lease: &Lease, (charges, at): (&[Charge], Timestamp)) -> Result<Nanos> {
        let billing = Billing::of(tx, &lease.organization).await?;
        let (key, version) = self.start_line(tx, &billing, lease, at).await?;
        if !key.is_asked_for(&version) {
            return Ok(Nanos::ZERO);
        }
        let own = charges.iter().filter(|charge| charge.price_version == key.price_version);
        let own: Vec<Nanos> = own.map(|charge| charge.amount).collect();
        if !own.is_empty() {
            return Nanos::checked_sum(own);
        }
        let state = charge::line_state(tx, &key).await?;
        if state.quantity.is_zero() {
            return Ok(Nanos::ZERO);
        }
        let without = rate_line(key, state, &version, QuantityChange::new(-1))?;
        Nanos::ZERO.checked_sub(without.amount)
    }

    async fn make_good_start(
        &self,
        tx: &mut Tx,
        (job, lease): (&Job, &Lease),
        (amount, evidence): (Nanos, &Evidence),
        now: Timestamp,
    ) -> Result<()> {
        let made = crate::compensation::Made::of_start((job, lease), amount, evidence)?;
        self.make_good(tx, &crate::Actor::system(), made, now).await.map(|_| ())
    }
}
