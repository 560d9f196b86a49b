//! From priced work to a running generation: the money is held, then everything is started.

use std::sync::Arc;

use sublet_core::admission::SpendClass;
use sublet_core::engine::Allowance;
use sublet_core::id::SliceId;
use sublet_core::{DurationMs, Error, ErrorCode, Result, TokenCount};

use crate::branch::{Branch, BranchSizes};
use crate::gateway::Gateway;
use crate::generation::{Facts, Generation, Guards};
use crate::keys::KeyState;
use crate::prepare::{Lot, Payment, Prepared};
use crate::pricing::{hold_for, output_covered, prompt_hold};
use crate::purse::{Ask, Held, Money};

/// How long a new request waits for a slice.
const GRANT_WAIT: DurationMs = DurationMs::from_seconds(10);
/// Purses that may close under one request before it gives up.
const PURSES_MAX: usize = 4;

/// Holds the money, then starts every lot.
pub(crate) async fn start(
    gateway: &Arc<Gateway>,
    (state, class): (&KeyState, &SpendClass),
    (facts, guards): (Facts, Guards),
    prepared: &Prepared,
) -> Result<Generation> {
    let (money, slice) = hold(gateway, (state, class), &facts, prepared).await?;
    let is_tight = money.purse().is_tight();
    let for_output = money.amount().checked_sub(prompt_hold(&facts.prices, prepared.prompt_max())?)?;
    let mut spare = output_covered(&facts.prices, for_output).get();
    let mut branches = Vec::with_capacity(prepared.lots.len());
    for (index, lot) in prepared.lots.iter().enumerate() {
        let left = i64::try_from(prepared.lots.len() - index).unwrap_or(i64::MAX);
        // Rounded down; what remains is for the last ones.
        let paid = TokenCount::new(first_step(gateway, is_tight, lot).min(spare / left));
        spare -= paid.get();
        let allowance = Arc::new(Allowance::new(paid));
        let events = prepared.open(gateway, index, &allowance).await?;
        let Lot { origin, prompt, prompt_max, .. } = *lot;
        let cap = if lot.payment == Payment::Before { paid } else { lot.cap };
        branches.push(Branch::new(events, allowance, BranchSizes { origin, prompt, prompt_max, cap, paid }));
    }
    Ok(Generation::new(Arc::clone(gateway), facts, guards, (money, slice), branches))
}

/// Output that is paid for when a lot begins.
fn first_step(gateway: &Gateway, is_tight: bool, lot: &Lot) -> i64 {
    if lot.payment == Payment::Before {
        return lot.cap.get();
    }
    let config = &gateway.config;
    let step = if is_tight { config.tight_output_step } else { config.output_step };
    step.get().saturating_mul(lot.least).min(lot.cap.get()).max(1)
}

/// Money for the prompts and a first step of each answer; at least for one token of each.
async fn hold(
    gateway: &Gateway,
    (state, class): (&KeyState, &SpendClass),
    facts: &Facts,
    prepared: &Prepared,
) -> Result<(Money, SliceId)> {
    let is_tight = gateway.keys.purse(state, class)?.is_tight();
    let least = prepared.lots.iter().fold(0_i64, |sum, lot| sum.saturating_add(lot.least));
    let wanted = prepared.lots.iter().fold(0_i64, |sum, lot| sum.saturating_add(first_step(gateway, is_tight, lot)));
    let prompt = prepared.prompt_max();
    let short = Ask {
        least: hold_for(&facts.prices, prompt, TokenCount::new(least))?,
        wanted: hold_for(&facts.prices, prompt, TokenCount::new(wanted))?,
    };
    // What is paid before it begins is cut by the budget, and not by what happens to be free in a slice.
    let is_paid_before = prepared.lots.iter().any(|lot| lot.payment == Payment::Before);
    let mut ask = if is_paid_before { Ask { least: short.wanted, ..short } } else { short };
    for _ in 0..PURSES_MAX {
        let purse = gateway.keys.purse(state, class)?;
        let money = match purse.hold(ask) {
            Held::Now(money) => money,
            Held::Retired => {
                gateway.keys.rotate(state, &purse);
                continue;
            }
            Held::Wait(answer) => match tokio::time::timeout(GRANT_WAIT.to_std(), answer).await {
                Ok(Ok(Ok(money))) => money,
                Ok(Ok(Err(error))) if error.code() == ErrorCode::Conflict => continue,
                Ok(Ok(Err(error))) if error.code() == ErrorCode::InsufficientQuota && ask != short => {
                    ask = short;
                    continue;
                }
                Ok(Ok(Err(error))) => return Err(error),
                Ok(Err(_)) => return Err(Error::internal("a purse dropped its waiter")),
                Err(_) => {
                    return Err(Error::new(ErrorCode::StoreUnavailable, "the budget could not be asked in time")
                        .retry_after(DurationMs::from_seconds(1)));
                }
            },
        };
        let slice = purse.slice().ok_or_else(|| Error::internal("money was held without a slice"))?;
        return Ok((money, slice));
    }
    Err(Error::internal("every slice closed before it could be used"))
}
