//! What accounts want charged by itself, and how far that is: one rule for each, at most.

use sublet_core::id::OrganizationId;
use sublet_core::{Result, Timestamp};
use sublet_money::top_up_rule::TopUpRule;

use crate::database::Tx;
use crate::params;
use crate::row::to_json;
use crate::top_up::stored_as_text;

stored_as_text! {
    TopUpRuleState {
        Active = "active",
        /// Until the customer sets the rule again, or saves a card.
        Paused = "paused",
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredTopUpRule {
    pub organization: OrganizationId,
    pub terms: TopUpRule,
    pub state: TopUpRuleState,
    /// Why it is paused.
    pub reason: Option<String>,
    /// Charges in a row that came to nothing.
    pub declines: i64,
    /// When it is looked at next; `None` while it is paused.
    pub look_at: Option<Timestamp>,
    /// Nothing is tried before.
    pub retry_at: Option<Timestamp>,
    /// The next day of the rule.
    pub day_at: Option<Timestamp>,
    /// The key that set it.
    pub set_by: String,
    pub set_at: Timestamp,
}

pub async fn put(tx: &mut Tx, rule: &StoredTopUpRule) -> Result<()> {
    tx.execute(
        "INSERT INTO top_up_rules (organization_id, terms, state, reason, declines, look_at, retry_at, day_at, set_by, set_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (organization_id) DO UPDATE SET terms = excluded.terms, state = excluded.state, reason = excluded.reason,
             declines = excluded.declines, look_at = excluded.look_at, retry_at = excluded.retry_at, day_at = excluded.day_at,
             set_by = excluded.set_by, set_at = excluded.set_at",
        params![
            rule.organization.as_str(),
            to_json(&rule.terms)?,
            rule.state.as_str(),
            rule.reason.as_deref(),
            rule.declines,
            rule.look_at,
            rule.retry_at,
            rule.day_at,
            rule.set_by.as_str(),
            rule.set_at
        ],
    )
    .await?;
    Ok(())
}

/// False if there was none.
pub async fn delete(tx: &mut Tx, organization: &OrganizationId) -> Result<bool> {
    Ok(tx.execute("DELETE FROM top_up_rules WHERE organization_id = $1", params![organization.as_str()]).await? == 1)
}

pub async fn find(tx: &mut Tx, organization: &OrganizationId) -> Result<Option<StoredTopUpRule>> {
    let row = tx
        .fetch_optional(
            "SELECT organization_id, terms, state, reason, declines, look_at, retry_at, day_at, set_by, set_at
             FROM top_up_rules WHERE organization_id = $1",
            params![organization.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut row = row.reader();
    Ok(Some(StoredTopUpRule {
        organization: row.parse()?,
        terms: row.json()?,
        state: row.parse()?,
        reason: row.optional_text()?.map(str::to_owned),
        declines: row.int()?,
        look_at: row.optional_time()?,
        retry_at: row.optional_time()?,
        day_at: row.optional_time()?,
        set_by: row.string()?,
        set_at: row.time()?,
    }))
}

/// Says that a rule is to be looked at at once, if there is one that waits for nothing else.
pub async fn wake(tx: &mut Tx, organization: &OrganizationId, now: Timestamp) -> Result<()> {
    let sql = "UPDATE top_up_rules SET look_at = $2
         WHERE organization_id = $1 AND look_at > $2 AND (retry_at IS NULL OR retry_at <= $2)";
    tx.execute(sql, params![organization.as_str(), now]).await.map(|_| ())
}

/// Accounts whose rule is to be looked at by now, the longest waiting first.
pub async fn due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<OrganizationId>> {
    let sql = "SELECT organization_id FROM top_up_rules WHERE look_at <= $1 ORDER BY look_at, organization_id LIMIT $2";
    tx.fetch_all(sql, params![now, limit]).await?.iter().map(|row| row.reader().parse()).collect()
}
