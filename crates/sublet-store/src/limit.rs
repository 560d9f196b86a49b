//! Spend limits on organizations, projects and keys. They nest: all that apply do apply.

use sublet_core::admission::Narrowing;
use sublet_core::id::OrganizationId;
use sublet_core::rate::EndUsers;
use sublet_core::{Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::spend_limit::{AlertRule, AtLimit, LimitTerms};

use crate::budget::{self, Budget, BudgetRef, BudgetWindow, Periods};
use crate::database::Tx;
use crate::params;
use crate::row::{RowReader, to_json};

/// A limit on what a subject may spend in a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpendLimit {
    pub subject: String,
    pub window: BudgetWindow,
    pub organization: OrganizationId,
    pub amount: Nanos,
    pub at_limit: AtLimit,
    pub alerts: Vec<AlertRule>,
    pub created_at: Timestamp,
}

/// Of the columns `amount, at_limit, overrun_max, alerts`.
fn terms(row: &mut RowReader<'_>) -> Result<LimitTerms> {
    Ok(LimitTerms { amount: row.nanos()?, at_limit: budget::at_limit(row)?, alerts: row.json()? })
}

/// What a limit says now, if it is there.
pub async fn find_terms(
    tx: &mut Tx,
    organization: &OrganizationId,
    (subject, window): (&str, BudgetWindow),
) -> Result<Option<LimitTerms>> {
    let row = tx
        .fetch_optional(
            "SELECT amount, at_limit, overrun_max, alerts FROM spend_limits
             WHERE organization_id = $1 AND subject = $2 AND budget_window = $3",
            params![organization.as_str(), subject, window.as_str()],
        )
        .await?;
    row.as_ref().map(|row| terms(&mut row.reader())).transpose()
}

/// Most limits one organization can have.
pub const LIMITS_MAX: i64 = 10_000;
/// Most limits on some requests of one organization, project or key: every request looks at all of them.
pub const NARROW_LIMITS_OF_SUBJECT_MAX: i64 = 64;

/// Sets a limit. Spend of the running window that happened before counts, so a new limit is exact at once.
/// For a `total` limit only spend from now on counts, together with what is reserved now.
pub async fn set(tx: &mut Tx, limit: &SpendLimit, periods: &Periods) -> Result<()> {
    check_room(tx, limit).await?;
    write(tx, limit).await?;
    let (starts_at, ends_at) = periods.of(limit.window);
    // What was reached before was another limit.
    let values = params![
        limit.subject.as_str(),
        limit.window.as_str(),
        starts_at,
        limit.amount,
        limit.at_limit.as_str(),
        limit.at_limit.overrun_max()
    ];
    let known = tx
        .execute(
            "UPDATE budgets SET amount = $4, at_limit = $5, overrun_max = $6, reached_at = NULL
             WHERE subject = $1 AND budget_window = $2 AND starts_at = $3",
            values,
        )
        .await?;
    if is_each(&limit.subject) {
        // Those of each end user are called after the limit.
        tx.execute(
            "UPDATE budgets SET amount = $4, at_limit = $5, overrun_max = $6, reached_at = NULL
             WHERE substr(subject, 1, length($1) + 2) = $1 || ' #' AND budget_window = $2 AND starts_at = $3",
            values,
        )
        .await?;
    }
    if known == 0 {
        let counted_from = if limit.window == BudgetWindow::Total { limit.created_at } else { starts_at };
        let is_narrow = limit.subject.contains(' ');
        // Charges do not say which end user they are for, so what was spent before is not counted.
        let settled = if is_narrow { Nanos::ZERO } else { spent_since(tx, &limit.subject, counted_from).await? };
        tx.execute(
            "INSERT INTO budgets (subject, budget_window, starts_at, ends_at, amount, settled, reserved, at_limit, overrun_max)
             VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8)",
            params![
                limit.subject.as_str(),
                limit.window.as_str(),
                starts_at,
                ends_at,
                limit.amount,
                settled,
                limit.at_limit.as_str(),
                limit.at_limit.overrun_max()
            ],
        )
        .await?;
        if !is_narrow {
            attach_open_reservations(tx, limit, starts_at).await?;
        }
    }
    Ok(())
}

/// Writes what a limit says; one that tells something is looked at from now on.
async fn write(tx: &mut Tx, limit: &SpendLimit) -> Result<()> {
    let look_at = (!limit.alerts.is_empty()).then_some(limit.created_at);
    // Where nobody looked, what was seen before that is history of another time.
    tx.execute(
        "DELETE FROM spend_samples WHERE subject = $1 AND budget_window = $2 AND NOT EXISTS
             (SELECT 1 FROM spend_limits WHERE subject = $1 AND budget_window = $2 AND look_at IS NOT NULL)",
        params![limit.subject.as_str(), limit.window.as_str()],
    )
    .await?;
    tx.execute(
        "INSERT INTO spend_limits (subject, budget_window, organization_id, amount, created_at, at_limit, overrun_max, alerts, look_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (subject, budget_window) DO UPDATE SET amount = excluded.amount, at_limit = excluded.at_limit,
             overrun_max = excluded.overrun_max, alerts = excluded.alerts, look_at = excluded.look_at,
             looked_from = CASE WHEN spend_limits.look_at IS NULL THEN NULL ELSE spend_limits.looked_from END",
        params![
            limit.subject.as_str(),
            limit.window.as_str(),
            limit.organization.as_str(),
            limit.amount,
            limit.created_at,
            limit.at_limit.as_str(),
            limit.at_limit.overrun_max(),
            to_json(&limit.alerts)?,
            look_at
        ],
    )
    .await?;
    Ok(())
}

/// Whether every end user has a budget of his own under this limit.
fn is_each(name: &str) -> bool {
    Narrowing::parse(name).1.end_users == EndUsers::Each
}

/// A new limit is one that gateways can keep in mind with all the others of its subject.
async fn check_room(tx: &mut Tx, limit: &SpendLimit) -> Result<()> {
    let (subject, requests) = Narrowing::parse(&limit.subject);
    let row = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(CASE WHEN subject LIKE $2 || ' %' THEN 1 ELSE 0 END), 0) AS BIGINT),
                 CAST(COALESCE(SUM(CASE WHEN subject = $3 AND budget_window = $4 THEN 1 ELSE 0 END), 0) AS BIGINT)
             FROM spend_limits WHERE organization_id = $1",
            params![limit.organization.as_str(), subject, limit.subject.as_str(), limit.window.as_str()],
        )
        .await?;
    let mut row = row.reader();
    let (all, narrow, same) = (row.int()?, row.int()?, row.int()?);
    if same > 0 {
        return Ok(());
    }
    if all >= LIMITS_MAX {
        return Err(Error::new(ErrorCode::Conflict, format!("an organization has at most {LIMITS_MAX} spend limits")));
    }
    if requests != Narrowing::NONE && narrow >= NARROW_LIMITS_OF_SUBJECT_MAX {
        let message =
            format!("{subject} has {NARROW_LIMITS_OF_SUBJECT_MAX} spend limits on some of its requests, and may have no more");
        return Err(Error::new(ErrorCode::Conflict, message).alternative("remove one of them"));
    }
    Ok(())
}

/// Slices and holds that are open now start to count towards the new limit.
async fn attach_open_reservations(tx: &mut Tx, limit: &SpendLimit, starts_at: Timestamp) -> Result<()> {
    let reference = BudgetRef { subject: limit.subject.clone(), window: limit.window, starts_at };
    let rows = tx
        .fetch_all(
            "SELECT 'slice', id, promotional + paid + committed - spent, budgets FROM slices
             WHERE state <> 'closed' AND (organization_id = $1 OR project_id = $1 OR key_id = $1)
             UNION ALL SELECT 'hold', id, promotional + paid + committed - captured, budgets FROM holds
             WHERE state = 'open' AND (organization_id = $1 OR project_id = $1 OR key_id = $1)",
            params![limit.subject.as_str()],
        )
        .await?;
    for row in &rows {
        let mut row = row.reader();
        let (table, id, open, mut budgets) = (row.string()?, row.string()?, row.nanos()?, row.json::<Vec<BudgetRef>>()?);
        if !budgets.contains(&reference) {
            budgets.push(reference.clone());
        }
        set_budgets(tx, &table, &id, &budgets).await?;
        tx.execute(
            "UPDATE budgets SET reserved = reserved + $4 WHERE subject = $1 AND budget_window = $2 AND starts_at = $3",
            params![reference.subject.as_str(), reference.window.as_str(), starts_at, open],
        )
        .await?;
    }
    Ok(())
}

async fn spent_since(tx: &mut Tx, subject: &str, since: Timestamp) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM charges
             WHERE (organization_id = $1 OR project_id = $1 OR key_id = $1) AND occurred_at >= $2",
            params![subject, since],
        )
        .await?;
    row.reader().nanos()
}

/// Removes a limit and its budgets. What is open passes over them from now on.
pub async fn remove(tx: &mut Tx, organization: &OrganizationId, subject: &str, window: BudgetWindow) -> Result<()> {
    let removed = tx
        .execute(
            "DELETE FROM spend_limits WHERE organization_id = $1 AND subject = $2 AND budget_window = $3",
            params![organization.as_str(), subject, window.as_str()],
        )
        .await?;
    if removed == 0 {
        return Err(Error::new(ErrorCode::NotFound, format!("{subject} has no spend limit with the window {}", window.as_str())));
    }
    detach_open_reservations(tx, organization, subject, window).await?;
    tx.execute("DELETE FROM budgets WHERE subject = $1 AND budget_window = $2", params![subject, window.as_str()]).await?;
    tx.execute("DELETE FROM spend_samples WHERE subject = $1 AND budget_window = $2", params![subject, window.as_str()]).await?;
    if is_each(subject) {
        tx.execute(
            "DELETE FROM budgets WHERE substr(subject, 1, length($1) + 2) = $1 || ' #' AND budget_window = $2",
            params![subject, window.as_str()],
        )
        .await?;
    }
    Ok(())
}

/// What is open forgets a limit that is removed: one that is set under the same name later has nothing reserved for it.
async fn detach_open_reservations(tx: &mut Tx, organization: &OrganizationId, name: &str, window: BudgetWindow) -> Result<()> {
    let children = is_each(name).then(|| format!("{name} #"));
    let is_of = |reference: &BudgetRef| {
        let is_child = children.as_ref().is_some_and(|prefix| reference.subject.starts_with(prefix.as_str()));
        reference.window == window && (reference.subject == name || is_child)
    };
    let rows = tx
        .fetch_all(
            "SELECT 'slice', id, budgets FROM slices WHERE state <> 'closed' AND organization_id = $1
             UNION ALL SELECT 'hold', id, budgets FROM holds WHERE state = 'open' AND organization_id = $1",
            params![organization.as_str()],
        )
        .await?;
    for row in &rows {
        let mut row = row.reader();
        let (table, id, mut budgets) = (row.string()?, row.string()?, row.json::<Vec<BudgetRef>>()?);
        let before = budgets.len();
        budgets.retain(|reference| !is_of(reference));
        if budgets.len() < before {
            set_budgets(tx, &table, &id, &budgets).await?;
        }
    }
    Ok(())
}

async fn set_budgets(tx: &mut Tx, table: &str, id: &str, budgets: &[BudgetRef]) -> Result<()> {
    let update = match table {
        "slice" => "UPDATE slices SET budgets = $2 WHERE id = $1",
        _ => "UPDATE holds SET budgets = $2 WHERE id = $1",
    };
    tx.execute(update, params![id, crate::row::to_json(&budgets)?]).await?;
    Ok(())
}

/// The limits of an organization, its projects and keys (or of one subject), with their running windows.
pub async fn list(
    tx: &mut Tx,
    organization: &OrganizationId,
    subject: Option<&str>,
    periods: &Periods,
) -> Result<Vec<(SpendLimit, Budget)>> {
    let rows = tx
        .fetch_all(
            "SELECT subject, budget_window, created_at, amount, at_limit, overrun_max, alerts FROM spend_limits
             WHERE organization_id = $1 AND ($2 = '' OR subject = $2 OR subject LIKE $2 || ' %') ORDER BY subject, budget_window LIMIT $3",
            params![organization.as_str(), subject.unwrap_or(""), LIMITS_MAX],
        )
        .await?;
    let mut limits = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut row = row.reader();
        let (subject, window, created_at) = (row.string()?, row.parse::<BudgetWindow>()?, row.time()?);
        let LimitTerms { amount, at_limit, alerts } = terms(&mut row)?;
        let limit = SpendLimit { subject, window, organization: organization.clone(), amount, at_limit, alerts, created_at };
        let (starts_at, ends_at) = periods.of(window);
        let reference = BudgetRef { subject: limit.subject.clone(), window, starts_at };
        let budget = budget::find(tx, &reference).await?;
        let untouched =
            || Budget { reference, ends_at, amount, settled: Nanos::ZERO, reserved: Nanos::ZERO, at_limit, reached_at: None };
        limits.push((limit, budget.unwrap_or_else(untouched)));
    }
    Ok(limits)
}

/// The limits on some of the requests of an organization, its project and its key only.
pub async fn list_narrow(tx: &mut Tx, organization: &OrganizationId, (project, key): (&str, &str)) -> Result<Vec<Narrowing>> {
    let rows = tx
        .fetch_all(
            "SELECT DISTINCT subject FROM spend_limits
             WHERE organization_id = $1 AND (subject LIKE $1 || ' %' OR subject LIKE $2 || ' %' OR subject LIKE $3 || ' %')
             ORDER BY subject",
            params![organization.as_str(), project, key],
        )
        .await?;
    rows.iter().map(|row| Ok(Narrowing::parse(row.reader().text()?).1)).collect()
}

/// The tightest budget of a chain for an amount, if any is too tight.
pub fn tightest(budgets: &[Budget]) -> Option<&Budget> {
    budgets.iter().min_by_key(|budget| budget.left())
}

pub use budget::chain;
