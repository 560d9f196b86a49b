//! What limits will stand at when their windows end.

use sublet_core::admission::Narrowing;
use sublet_core::id::OrganizationId;
use sublet_core::{Nanos, Result, Timestamp};
use sublet_money::forecast::{Forecast, History, Hour, Observed, PROFILE_HOURS_MAX};
use sublet_money::period::Interval;
use sublet_store::budget::Budget;
use sublet_store::limit::SpendLimit;
use sublet_store::{Tx, hold, spend_alert};

use crate::limit::LimitSubject;
use crate::{Actor, Cloud};

/// Hours that are kept: those of the profile, and the one before them that the first is counted from.
pub(crate) const HISTORY_HOURS: i64 = 8 * 168 + 1;
const _: () = assert!(PROFILE_HOURS_MAX == 8 * 168);

/// Most limits that are foreseen in one call.
pub const FORECASTS_MAX: usize = 100;

/// A limit, where it stands, and where it will stand; `None` where that cannot be said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitForecast {
    pub limit: SpendLimit,
    pub budget: Budget,
    pub forecast: Option<Forecast>,
}

/// What a budget will stand at when its window ends.
pub(crate) async fn foresee(
    tx: &mut Tx,
    organization: &OrganizationId,
    budget: &Budget,
    now: Timestamp,
) -> Result<Option<Forecast>> {
    let Some(ends_at) = budget.ends_at else { return Ok(None) };
    let (subject, requests) = Narrowing::parse(&budget.reference.subject);
    // What leases hold is theirs, whatever comes; limits on some requests have none.
    let committed = match requests == Narrowing::NONE {
        true => hold::open_total_of(tx, organization, subject).await?.min(budget.reserved),
        false => Nanos::ZERO,
    };
    let samples = spend_alert::samples(tx, &budget.reference, Hour::of(now).minus(HISTORY_HOURS)).await?;
    let window = Interval { starts_at: budget.reference.starts_at, ends_at };
    Observed { window, now, settled: budget.settled, committed, history: &History::of(&samples) }.forecast()
}

impl Cloud {
    /// The limits that the actor sees, or those of one subject, and what they will stand at. The first [`FORECASTS_MAX`].
    pub async fn forecast_limits(&self, actor: &Actor, subject: Option<&LimitSubject>) -> Result<Vec<LimitForecast>> {
        let mut limits = self.list_limits(actor, subject).await?;
        limits.truncate(FORECASTS_MAX);
        let now = self.now();
        self.store
            .read((actor.organization()?, limits), move |(organization, limits), tx| {
                Box::pin(async move {
                    let mut forecasts = Vec::with_capacity(limits.len());
                    for (limit, budget) in limits.iter() {
                        let forecast = foresee(tx, organization, budget, now).await?;
                        forecasts.push(LimitForecast { limit: limit.clone(), budget: budget.clone(), forecast });
                    }
                    Ok(forecasts)
                })
            })
            .await
    }
}
