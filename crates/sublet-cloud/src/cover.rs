//! Cover: how long what is held pays for what runs, and keeping it long enough.
//!
//! While one interval runs, the next is held together with the stop notice and the grace. A hold
//! that cannot grow is kept on the lease as its bound; the plan then ends the lease in time.

use sublet_capacity::CoverBound;
use sublet_core::id::{AttemptId, LeaseId};
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::{DurationMs, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::period::Interval;
use sublet_money::sku::SkuFamily;
use sublet_store::attempt::{self, Attempt};
use sublet_store::budget::{BudgetWindow, Periods};
use sublet_store::hold::{self, Hold};
use sublet_store::lease::{self, HoldBound, Lease};
use sublet_store::{Tx, organization};

use crate::Actor;
use crate::budget::periods_at;
use crate::compute::{Compute, Tariff, calendar_of, done, sum};
use crate::compute_reconciler::ComputeReport;
use crate::hold::HoldOwner;
use crate::job_start::held_for;
use crate::lease::End;

impl Compute {
    /// Grows the holds of what runs and settles what is due. Reads first: most passes change nothing.
    pub(crate) async fn pay(&self, report: &mut ComputeReport) {
        let due = self.cloud.store.read(self, |compute, tx| Box::pin(compute.dues(tx))).await;
        for due in report.note("reading what runs", due) {
            if due.hold_is_short {
                let extended = self.extend_cover(&due.lease).await;
                report.note("extending a hold", extended);
            }
            if due.unsettled >= self.settings.hold_interval {
                let settled =
                    self.cloud.store.write((self, &due), |(compute, due), tx| Box::pin(compute.settle_running(tx, &due.attempt)));
                report.note("settling an attempt", settled.await);
            }
        }
    }

    /// What the running attempts owe.
    async fn dues(&self, tx: &mut Tx) -> Result<Vec<Due>> {
        let mut dues = Vec::new();
        for attempt in attempt::list_live(tx).await? {
            let (Some(from), Some(alive_at)) = (attempt.settled_until.or(attempt.started_at), attempt.alive_at) else { continue };
            let lease = lease::get(tx, &Scope::Operator, &attempt.lease).await?;
            let growth = self.growth(tx, &lease, &attempt).await?;
            let tariff = Tariff::of(tx, &self.cloud, &lease, from).await?;
            let unsettled = if tariff.settles_in_steps()? { alive_at.since(from) } else { DurationMs::ZERO };
            dues.push(Due { lease: lease.id, hold_is_short: growth.is_some(), unsettled, attempt: attempt.id });
        }
        Ok(dues)
    }

    /// Holds the next interval while the present one runs. A refusal is kept on the lease: the plan
    /// then ends it within what is held.
    async fn extend_cover(&self, id: &LeaseId) -> Result<()> {
        let extended = self.cloud.store.write((self, id), |(compute, id), tx| Box::pin(compute.extend_in(tx, id))).await;
        match extended {
            Err(error) if error.code() == ErrorCode::InsufficientQuota => {
                let bound = HoldBound::Budget { refusal: error.to_string() };
                self.cloud.store.write((id, &bound), |(id, bound), tx| Box::pin(set_bound(tx, id, bound))).await
            }
            other => other,
        }
    }

    async fn extend_in(&self, tx: &mut Tx, id: &LeaseId) -> Result<()> {
        let now = self.now();
        let lease = lease::get(tx, &Scope::Operator, id).await?;
        let Some(attempt) = attempt::find_live_of(tx, id).await? else { return Ok(()) };
        let Some(growth) = self.growth(tx, &lease, &attempt).await? else { return Ok(()) };
        if growth.window_is_over {
            self.renew_hold(tx, &lease, &attempt, now).await?;
        }
        if growth.missing > DurationMs::ZERO {
            let calendar = calendar_of(tx, &lease).await?;
            let interval = Interval { starts_at: growth.from, ends_at: growth.from.plus(growth.missing) };
            let wanted = Tariff::of(tx, &self.cloud, &lease, growth.from).await?.hold_for(&calendar, interval)?;
            self.grow_hold(tx, &lease, wanted, now).await?;
        }
        Ok(())
    }

    /// What a running attempt's hold needs; `None` if it is good as it is.
    async fn growth(&self, tx: &mut Tx, lease: &Lease, attempt: &Attempt) -> Result<Option<Growth>> {
        let now = self.now();
        let (Some(hold), Some(cover)) = (hold::find_open(tx, lease.id.as_str()).await?, self.cover(tx, lease, attempt).await?)
        else {
            return Ok(None);
        };
        if lease.state != LeaseState::Active {
            return Ok(None);
        }
        let organization = organization::get(tx, &Scope::Operator, &lease.organization).await?;
        let window_is_over = is_window_over(&hold, &periods_at(&organization.time_zone, now)?);
        let stop = self.settings.stop_span(lease.notice);
        let half_an_interval = DurationMs::from_millis(self.settings.hold_interval.millis().div_euclid(2));
        let is_enough = cover.until >= now.plus(sum([stop, half_an_interval]))
            || lease.hold_bound == HoldBound::MaximumCost
            || cover.bound == CoverBound::MaximumPrice;
        let window_end = lease.ends_at.map(|ends_at| ends_at.plus(sum([self.settings.grace, self.settings.slack])));
        let open_end = now.plus(sum([self.settings.hold_interval, stop]));
        let target = window_end.map_or(open_end, |window_end| window_end.min(open_end));
        let missing = if is_enough { DurationMs::ZERO } else { target.since(cover.until).max(DurationMs::ZERO) };
        let missing = self.before_too_dear(tx, lease, (cover.until, missing)).await?;
        Ok((window_is_over || missing > DurationMs::ZERO).then_some(Growth { window_is_over, from: cover.until, missing }))
    }

    /// A span from an instant on, as far as the price in it is within the lease's maximum.
    async fn before_too_dear(&self, tx: &mut Tx, lease: &Lease, (from, span): (Timestamp, DurationMs)) -> Result<DurationMs> {
        if lease.max_price.is_none() || span <= DurationMs::ZERO {
            return Ok(span);
        }
        let (calendar, tariff) = (calendar_of(tx, lease).await?, Tariff::of(tx, &self.cloud, lease, from).await?);
        let too_dear_from = tariff.too_dear_from(&calendar, Interval { starts_at: from, ends_at: from.plus(span) })?;
        Ok(too_dear_from.map_or(span, |too_dear_from| too_dear_from.since(from)))
    }

    /// Ends a lease whose price goes above its maximum before what starts now could be told of it.
    pub(crate) async fn end_too_dear(&self, tx: &mut Tx, lease: &Lease) -> Result<bool> {
        if lease.max_price.is_none() {
            return Ok(false);
        }
        let now = self.now();
        let tariff = Tariff::of(tx, &self.cloud, lease, now).await?;
        let reach = Interval { starts_at: now, ends_at: now.plus(self.settings.stop_span(lease.notice)) };
        if tariff.too_dear_from(&calendar_of(tx, lease).await?, reach)?.is_none() {
            return Ok(false);
        }
        self.begin_ending(tx, &Actor::system(), lease, End { reason: EndReason::MaximumPrice, deadline: now, told_at: now }).await
    }

    /// Adds to a lease's hold, within its maximum cost.
    async fn grow_hold(&self, tx: &mut Tx, lease: &Lease, wanted: Nanos, now: Timestamp) -> Result<()> {
        let Some(hold) = hold::find_open(tx, lease.id.as_str()).await? else { return Ok(()) };
        let lease = lease::get(tx, &Scope::Operator, &lease.id).await?;
        let held = held_for(tx, &lease).await?;
        let room = match lease.max_cost {
            Some(max_cost) => max_cost.checked_sub(lease.cost)?.checked_sub(held)?.max(Nanos::ZERO),
            None => Nanos::MAX,
        };
        let amount = wanted.min(room);
        if amount > Nanos::ZERO {
            self.cloud.extend_hold(tx, &hold, amount, now).await?;
        }
        let bound = if amount < wanted { HoldBound::MaximumCost } else { HoldBound::Open };
        set_bound(tx, &lease.id, &bound).await
    }

    /// A hold counts towards the days and months in which it was placed. When one is over, what ran
    /// is settled in it and the rest is held anew, in the window that runs now.
    async fn renew_hold(&self, tx: &mut Tx, lease: &Lease, attempt: &Attempt, now: Timestamp) -> Result<()> {
        if Tariff::of(tx, &self.cloud, lease, now).await?.settles_in_steps()? {
            self.settle_running(tx, &attempt.id).await?;
        }
        self.cloud.renew_hold(tx, &owner_of(lease), now).await
    }
}

/// What one running attempt owes.
struct Due {
    lease: LeaseId,
    attempt: AttemptId,
    hold_is_short: bool,
    unsettled: DurationMs,
}

/// What a hold needs.
struct Growth {
    /// A day or month that it was placed in is over.
    window_is_over: bool,
    /// Until then it pays.
    from: Timestamp,
    missing: DurationMs,
}

fn is_window_over(hold: &Hold, periods: &Periods) -> bool {
    hold.budgets.iter().any(|budget| match budget.window {
        BudgetWindow::Total => false,
        BudgetWindow::Day => budget.starts_at != periods.day.0,
        BudgetWindow::Month => budget.starts_at != periods.month.0,
    })
}

/// Who pays for a lease.
pub(crate) fn owner_of(lease: &Lease) -> HoldOwner {
    HoldOwner {
        organization: lease.organization.clone(),
        project: lease.project.clone(),
        key: lease.key.clone(),
        subject: lease.id.to_string(),
        family: SkuFamily::DeviceTime,
    }
}

async fn set_bound(tx: &mut Tx, id: &LeaseId, bound: &HoldBound) -> Result<()> {
    let lease = lease::get(tx, &Scope::Operator, id).await?;
    if lease.hold_bound == *bound || lease.state.is_final() {
        return Ok(());
    }
    let bounded = Lease { hold_bound: bound.clone(), ..lease };
    done(lease::save(tx, &bounded).await?, id.as_str())
}
