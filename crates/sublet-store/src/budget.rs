//! Budgets: what is settled and reserved in one window of one spend limit.
//!
//! Invariant, enforced by the statements themselves: `settled + reserved <= amount` whenever
//! something is reserved, plus the overrun for work that was admitted before, where the limit has
//! one; a soft limit counts and refuses nothing. A window is part of the key, so a reset is a new row,
//! never a SET.
//! Slices and holds remember which budgets they reserved from. The rows of a removed limit are
//! deleted; what still remembers them passes over them.

use serde::{Deserialize, Serialize};
use sublet_core::admission::{Narrowing, SpendClass};
use sublet_core::rate::EndUsers;
use sublet_core::{Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::spend_limit::{AtLimit, Work};

use crate::database::Tx;
use crate::params;
use crate::row::RowReader;

/// How often a spend limit starts anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetWindow {
    /// Never: the limit is on everything spent since it was set.
    Total,
    Day,
    Month,
}

impl BudgetWindow {
    pub const ALL: [Self; 3] = [Self::Total, Self::Day, Self::Month];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

impl std::str::FromStr for BudgetWindow {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|window| window.as_str() == text)
            .ok_or_else(|| Error::new(ErrorCode::InvalidRequest, "a spend limit's window is total, day or month"))
    }
}

/// Where each window stands at one instant, in the organization's time zone. Half-open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Periods {
    pub day: (Timestamp, Timestamp),
    pub month: (Timestamp, Timestamp),
}

impl Periods {
    /// Where a window begins and ends.
    pub const fn of(&self, window: BudgetWindow) -> (Timestamp, Option<Timestamp>) {
        match window {
            BudgetWindow::Total => (Timestamp::EPOCH, None),
            BudgetWindow::Day => (self.day.0, Some(self.day.1)),
            BudgetWindow::Month => (self.month.0, Some(self.month.1)),
        }
    }
}

/// One window of one limit: what slices and holds remember.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct BudgetRef {
    /// An organization, project or key id, and which of its requests ([`sublet_core::admission::Narrowing`]).
    pub subject: String,
    pub window: BudgetWindow,
    pub starts_at: Timestamp,
}

/// A budget's figures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    pub reference: BudgetRef,
    pub ends_at: Option<Timestamp>,
    pub amount: Nanos,
    pub settled: Nanos,
    pub reserved: Nanos,
    pub at_limit: AtLimit,
    /// When something was refused, or went on beyond the limit, for the first time.
    pub reached_at: Option<Timestamp>,
}

impl Budget {
    /// What is missing to the limit, whatever happens there; never negative.
    pub fn left(&self) -> Nanos {
        let left = self.amount.get().saturating_sub(self.settled.get()).saturating_sub(self.reserved.get());
        Nanos::new(left.max(0))
    }
    /// What can still be reserved; never negative.
    pub fn room(&self, work: Work) -> Nanos {
        self.at_limit.room(self.amount, Nanos::new(self.settled.get().saturating_add(self.reserved.get())), work)
    }
}

/// Of the columns `at_limit, overrun_max`.
pub(crate) fn at_limit(row: &mut RowReader<'_>) -> Result<AtLimit> {
    let name = row.string()?;
    AtLimit::from_parts(&name, row.nanos()?)
}

/// The budgets that apply to requests of a class of the subjects of a chain (key, project, organization), one per limit,
/// in a fixed order. Windows that were not touched before are opened.
pub async fn chain(tx: &mut Tx, subjects: &[&str; 3], class: &SpendClass, periods: &Periods) -> Result<Vec<Budget>> {
    let names: Vec<(String, String)> = subjects.iter().flat_map(|subject| class.budgets_of(subject)).collect();
    let rows = if *class == SpendClass::default() {
        tx.fetch_all(
            "SELECT subject, budget_window, amount, at_limit, overrun_max FROM spend_limits WHERE subject IN ($1, $2, $3) ORDER BY subject, budget_window",
            params![subjects[0], subjects[1], subjects[2]],
        )
        .await?
    } else {
        let name = |place: usize| names.get(place).map_or("", |(limit, _)| limit);
        tx.fetch_all(
            "SELECT subject, budget_window, amount, at_limit, overrun_max FROM spend_limits WHERE subject IN
                 ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) ORDER BY subject, budget_window",
            params![
                name(0),
                name(1),
                name(2),
                name(3),
                name(4),
                name(5),
                name(6),
                name(7),
                name(8),
                name(9),
                name(10),
                name(11),
                name(12),
                name(13),
                name(14),
                name(15),
                name(16),
                name(17)
            ],
        )
        .await?
    };
    let mut budgets = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut row = row.reader();
        let (limit, window, amount) = (row.string()?, row.parse::<BudgetWindow>()?, row.nanos()?);
        let budget = names.iter().find(|(name, _)| *name == limit).map(|(_, budget)| budget.clone());
        let subject = budget.ok_or_else(|| Error::internal(format!("nobody asked for the limit {limit}")))?;
        let at_limit = at_limit(&mut row)?;
        let (starts_at, ends_at) = periods.of(window);
        let reference = BudgetRef { subject, window, starts_at };
        open(tx, &reference, ends_at, (amount, at_limit)).await?;
        budgets.push(get(tx, &reference).await?);
    }
    Ok(budgets)
}

async fn open(tx: &mut Tx, budget: &BudgetRef, ends_at: Option<Timestamp>, (amount, at_limit): (Nanos, AtLimit)) -> Result<()> {
    tx.execute(
        "INSERT INTO budgets (subject, budget_window, starts_at, ends_at, amount, settled, reserved, at_limit, overrun_max)
         VALUES ($1, $2, $3, $4, $5, 0, 0, $6, $7) ON CONFLICT (subject, budget_window, starts_at) DO NOTHING",
        params![
            budget.subject.as_str(),
            budget.window.as_str(),
            budget.starts_at,
            ends_at,
            amount,
            at_limit.as_str(),
            at_limit.overrun_max()
        ],
    )
    .await?;
    Ok(())
}

/// Takes note that a limit stopped something, or would have. The first time counts.
pub async fn mark_reached(tx: &mut Tx, budget: &BudgetRef, now: Timestamp) -> Result<()> {
    tx.execute(
        "UPDATE budgets SET reached_at = $4
         WHERE subject = $1 AND budget_window = $2 AND starts_at = $3 AND reached_at IS NULL",
        params![budget.subject.as_str(), budget.window.as_str(), budget.starts_at, now],
    )
    .await?;
    Ok(())
}

/// The figures of one budget.
pub async fn get(tx: &mut Tx, reference: &BudgetRef) -> Result<Budget> {
    find(tx, reference).await?.ok_or_else(|| Error::internal(format!("there is no budget {reference:?}")))
}

/// The figures of one budget; `None` once its limit was removed.
pub async fn find(tx: &mut Tx, reference: &BudgetRef) -> Result<Option<Budget>> {
    let row = tx
        .fetch_optional(
            "SELECT ends_at, amount, settled, reserved, at_limit, overrun_max, reached_at FROM budgets
             WHERE subject = $1 AND budget_window = $2 AND starts_at = $3",
            params![reference.subject.as_str(), reference.window.as_str(), reference.starts_at],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut row = row.reader();
    Ok(Some(Budget {
        reference: reference.clone(),
        ends_at: row.optional_time()?,
        amount: row.nanos()?,
        settled: row.nanos()?,
        reserved: row.nanos()?,
        at_limit: at_limit(&mut row)?,
        reached_at: row.optional_time()?,
    }))
}

/// Everybody takes the rows of several budgets in this order, so that nobody waits for somebody who waits.
fn in_order(budgets: &[BudgetRef]) -> Vec<&BudgetRef> {
    let mut ordered: Vec<&BudgetRef> = budgets.iter().collect();
    ordered.sort();
    ordered
}

/// Reserves an amount in every budget of a chain, all or nothing (the caller's transaction fails with the error).
pub async fn reserve(tx: &mut Tx, budgets: &[BudgetRef], amount: Nanos, work: Work) -> Result<()> {
    let overruns: i64 = match work {
        Work::New => 0,
        Work::Admitted => 1,
    };
    for reference in in_order(budgets) {
        let changed = tx
            .execute(
                "UPDATE budgets SET reserved = reserved + $4
                 WHERE subject = $1 AND budget_window = $2 AND starts_at = $3
                     AND (at_limit = 'soft' OR settled + reserved + $4 <= amount + overrun_max * $5)",
                params![reference.subject.as_str(), reference.window.as_str(), reference.starts_at, amount, overruns],
            )
            .await?;
        if changed == 0
            && let Some(budget) = find(tx, reference).await?
        {
            return Err(exhausted(&budget, amount));
        }
    }
    Ok(())
}

/// Gives a reservation back.
pub async fn release(tx: &mut Tx, budgets: &[BudgetRef], amount: Nanos) -> Result<()> {
    change(tx, budgets, amount, Nanos::ZERO).await
}

/// Turns part of a reservation into settled spend.
pub async fn settle(tx: &mut Tx, budgets: &[BudgetRef], amount: Nanos) -> Result<()> {
    change(tx, budgets, amount, amount).await
}

async fn change(tx: &mut Tx, budgets: &[BudgetRef], unreserved: Nanos, settled: Nanos) -> Result<()> {
    for reference in in_order(budgets) {
        let changed = tx
            .execute(
                "UPDATE budgets SET reserved = reserved - $4, settled = settled + $5
                 WHERE subject = $1 AND budget_window = $2 AND starts_at = $3 AND reserved >= $4",
                params![reference.subject.as_str(), reference.window.as_str(), reference.starts_at, unreserved, settled],
            )
            .await?;
        if changed == 0 && find(tx, reference).await?.is_some() {
            return Err(Error::new(ErrorCode::LedgerMismatch, "a budget holds less than its reservations")
                .context(format!("budget {reference:?} cannot give back {unreserved}")));
        }
    }
    Ok(())
}

/// The refusal that names the limit, what was needed and what is left.
pub fn exhausted(budget: &Budget, needed: Nanos) -> Error {
    let BudgetRef { subject, window, .. } = &budget.reference;
    // What tells end users apart tells nobody anything.
    let subject = subject.split_once(" #").map_or(subject.as_str(), |(limit, _)| limit);
    let period = match window {
        BudgetWindow::Total => "in total",
        BudgetWindow::Day => "a day",
        BudgetWindow::Month => "a month",
    };
    let error = Error::new(
        ErrorCode::InsufficientQuota,
        format!(
            "the spend limit of {subject} ({} {period}) is used up: {needed} needed, {} left ({} spent, {} held)",
            budget.amount,
            budget.left(),
            budget.settled,
            budget.reserved
        ),
    );
    // Other requests of the same key may go on: the field says which cannot.
    let (_, requests) = Narrowing::parse(subject);
    let error = match (&requests.end_users, &requests.model) {
        (EndUsers::Each | EndUsers::One(_), _) => error.param("user"),
        (EndUsers::All, Some(_)) => error.param("model"),
        (EndUsers::All, None) => error,
    };
    match budget.ends_at {
        Some(ends_at) => error.alternative(format!("the limit starts anew at {ends_at}")),
        None => error.alternative("ask an administrator of the organization to raise the limit"),
    }
}
