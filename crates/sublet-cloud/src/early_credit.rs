//! Credit for leaving early: who is told to go and leaves before the deadline gets a share of the price of what is left.
//!
//! It is judged when the lease's devices go back, in the transaction that releases them, once for a lease, by the rule that
//! held when it was sold. It counts from when the last workload ended until the deadline, and no more than the notice that
//! was sold: the owner has the devices for that time, and gives a share of what it would have cost.
//!
//! Only a lease that was in use when the owner took it back, and whose work ended by itself or because its holder gave it
//! back: a machine that died did not leave. If the lease would have ended sooner for another reason, that is its deadline.
//!
//! Deliberately absent: anything for the owner's own teams, whose price is not the owner's income.

use serde::Serialize;
use sublet_core::lease::EndReason;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_core::{Nanos, Result, Timestamp};
use sublet_money::compensation::EarlyLeave;
use sublet_store::compensation::LeaseNotice;
use sublet_store::compensation_rule;
use sublet_store::lease::Lease;
use sublet_store::{Tx, attempt};

use crate::compensation::{Made, price_at};
use crate::{Actor, Cloud};

/// How the credit follows from what happened, for people and programs that check it.
#[derive(Serialize)]
struct EarlyEvidence {
    notice: NoticeClass,
    notice_sold_ms: Option<i64>,
    told_at: String,
    left_at: String,
    deadline: String,
    window_ends_at: Option<String>,
    unused_ms: i64,
    units: u32,
    price_per_hour: String,
    /// What the lease was charged: the credit is never more.
    charged: String,
    rules_version: i64,
    early_ppm: u32,
}

impl EarlyEvidence {
    fn of(leave: &EarlyLeave, charged: Nanos, (rules_version, early_ppm): (i64, u32)) -> Self {
        Self {
            charged: charged.to_string(),
            notice: leave.class,
            notice_sold_ms: leave.class.notice().map(|sold| sold.millis()),
            told_at: leave.told_at.to_string(),
            left_at: leave.left_at.to_string(),
            deadline: leave.deadline.to_string(),
            window_ends_at: leave.window_ends_at.map(|at| at.to_string()),
            unused_ms: leave.unused().millis(),
            units: leave.units,
            price_per_hour: leave.price.to_string(),
            rules_version,
            early_ppm,
        }
    }
}

/// When the owner took back what was in use, and by when it would have ended had its holder stayed.
fn taken_back(notices: &[LeaseNotice]) -> Option<(Timestamp, Timestamp)> {
    let told = notices.iter().find(|notice| notice.reason == EndReason::Reclaimed).filter(|told| told.is_busy)?;
    let deadline = notices.iter().filter(|notice| !is_holders(notice.reason)).map(|notice| notice.deadline).min()?;
    Some((told.told_at, deadline))
}

/// Whether its holder ended it, or the job it was made for did: that is leaving, and no deadline.
pub(crate) const fn is_holders(reason: EndReason) -> bool {
    match reason {
        EndReason::Released | EndReason::JobEnded => true,
        EndReason::WindowOver
        | EndReason::MaximumCost
        | EndReason::MaximumPrice
        | EndReason::Budget
        | EndReason::Unused
        | EndReason::Reclaimed
        | EndReason::DeviceLost
        | EndReason::ShutDown => false,
    }
}

impl Cloud {
    /// Gives a holder credit that left before its deadline. The caller has seen that it is no team of the owner.
    pub(crate) async fn credit_early_leave(
        &self,
        tx: &mut Tx,
        lease: &Lease,
        notices: &[LeaseNotice],
        now: Timestamp,
    ) -> Result<()> {
        let Some((told_at, deadline)) = taken_back(notices) else { return Ok(()) };
        let stored = compensation_rule::find_at(tx, lease.created_at).await?;
        let rule = stored.rules.of(lease.notice);
        if rule.early_ppm == 0 {
            return Ok(());
        }
        let last = attempt::last_of(tx, &lease.id).await?.filter(|attempt| attempt.exit != Some(Exit::Lost));
        let left_at = last.and_then(|attempt| attempt.ended_at).filter(|left_at| *left_at >= told_at);
        let Some(left_at) = left_at else { return Ok(()) };
        let leave = EarlyLeave {
            class: lease.notice,
            units: lease.units,
            price: price_at(tx, self, lease, told_at).await?,
            window_ends_at: lease.ends_at,
            told_at,
            left_at,
            deadline,
        };
        // Who could have paid for a few minutes only would have left soon anyway.
        let amount = leave.credit(rule)?.min(lease.cost);
        if amount.is_zero() {
            return Ok(());
        }
        let evidence = EarlyEvidence::of(&leave, lease.cost, (stored.version, rule.early_ppm));
        let made = Made::of_early_leave(lease, amount, &evidence)?;
        self.make_good(tx, &Actor::system(), made, now).await.map(|_| ())
    }
}
