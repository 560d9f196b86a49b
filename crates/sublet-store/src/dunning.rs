//! How far the dunning of accounts and of single invoices is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sublet_core::id::{InvoiceId, OrganizationId};
use sublet_core::{Currency, Error, Nanos, Result, Timestamp};
use sublet_money::day::Day;
use sublet_money::dunning::{DunningPolicy, Reminded};

use crate::attempt::optional_json;
use crate::database::Tx;
use crate::row::to_json;
use crate::top_up::stored_as_text;
use crate::{params, setting};

/// The setting that has the policy of all accounts without their own.
const POLICY: &str = "dunning_policy";
/// Debts of one account that are read together.
const DEBTS_MAX: i64 = 4_000;

stored_as_text! {
    /// What running work does when its account is suspended.
    OnSuspension {
        /// It goes on within its credit and limits.
        Finish = "finish",
        /// It gets no more money, and ends with its notice.
        Stop = "stop",
    }
}

/// How an account is dunned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountDunning {
    /// Its own.
    pub policy: Option<DunningPolicy>,
    pub on_suspension: OnSuspension,
    pub suspended_at: Option<Timestamp>,
    /// Why it is left alone, if it is.
    pub paused: Option<String>,
    /// What is owed, while it is suspended.
    pub overdue: Option<Overdue>,
}

/// What refusals of a suspended account say: kept, so that one costs no more than reading a row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overdue {
    pub sum: Nanos,
    pub currency: Currency,
    /// The number of the oldest invoice, and the last day on which it was paid in time.
    pub oldest: Option<(String, Day)>,
}

impl Default for AccountDunning {
    fn default() -> Self {
        Self { policy: None, on_suspension: OnSuspension::Finish, suspended_at: None, paused: None, overdue: None }
    }
}

/// How far the dunning of one invoice is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DebtDunning {
    pub reminded: Option<Reminded>,
    /// When the mail that has this reminder was taken by whoever delivers it. It is read from the outbox and never put.
    pub delivered_at: Option<Timestamp>,
    /// Why it is left alone, if it is.
    pub paused: Option<String>,
}

/// The policy of all accounts without their own; an empty one if nobody set any.
pub async fn default_policy(tx: &mut Tx) -> Result<DunningPolicy> {
    let Some(text) = setting::find(tx, POLICY).await? else { return Ok(DunningPolicy::default()) };
    serde_json::from_str(&text).map_err(|cause| Error::internal(format!("the setting {POLICY} cannot be read: {cause}")))
}

pub async fn set_default_policy(tx: &mut Tx, policy: &DunningPolicy) -> Result<()> {
    setting::set(tx, POLICY, &to_json(policy)?).await
}

/// How an account is dunned; as all others where nothing was said.
pub async fn find_account(tx: &mut Tx, organization: &OrganizationId) -> Result<AccountDunning> {
    let row = tx
        .fetch_optional(
            "SELECT policy, on_suspension, suspended_at, paused, overdue FROM dunning_accounts WHERE organization_id = $1",
            params![organization.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(AccountDunning::default()) };
    let mut row = row.reader();
    Ok(AccountDunning {
        policy: optional_json(row.optional_text()?)?,
        on_suspension: row.parse()?,
        suspended_at: row.optional_time()?,
        paused: row.optional_text()?.map(str::to_owned),
        overdue: optional_json(row.optional_text()?)?,
    })
}

pub async fn put_account(tx: &mut Tx, organization: &OrganizationId, account: &AccountDunning) -> Result<()> {
    tx.execute(
        "INSERT INTO dunning_accounts (organization_id, policy, on_suspension, suspended_at, paused, overdue)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (organization_id) DO UPDATE SET policy = excluded.policy, on_suspension = excluded.on_suspension,
             suspended_at = excluded.suspended_at, paused = excluded.paused, overdue = excluded.overdue",
        params![
            organization.as_str(),
            account.policy.as_ref().map(to_json).transpose()?,
            account.on_suspension.as_str(),
            account.suspended_at,
            account.paused.as_deref(),
            account.overdue.as_ref().map(to_json).transpose()?
        ],
    )
    .await?;
    Ok(())
}

/// The key of the mail that has a reminder. It is spelled out in the join of [`list_debts`] too.
pub fn reminder_key(invoice: &InvoiceId, reminder: Reminded) -> String {
    format!("dunning_reminder:{invoice}:{}", reminder.after_days)
}

/// How far the dunning of each invoice of an account is, of those of which anything happened.
pub async fn list_debts(tx: &mut Tx, organization: &OrganizationId) -> Result<BTreeMap<InvoiceId, DebtDunning>> {
    let rows = tx
        .fetch_all(
            "SELECT dunning_debts.invoice_id, reminded_after, reminded_on, paused, outbox.done_at FROM dunning_debts
             LEFT JOIN outbox ON outbox.kind = 'mail'
                 AND outbox.dedup_key = 'dunning_reminder:' || invoice_id || ':' || CAST(reminded_after AS TEXT)
             WHERE dunning_debts.organization_id = $1 ORDER BY dunning_debts.invoice_id DESC LIMIT $2",
            params![organization.as_str(), DEBTS_MAX],
        )
        .await?;
    let mut debts = BTreeMap::new();
    for row in &rows {
        let mut row = row.reader();
        let (id, after_days, on) = (row.parse()?, row.optional_int()?, row.optional_parse()?);
        let after_days = after_days.map(u16::try_from).transpose();
        let after_days = after_days.map_err(|_| Error::internal(format!("a reminder of {id} has no number of days")))?;
        let reminded = after_days.zip(on).map(|(after_days, on)| Reminded { after_days, on });
        let (paused, delivered_at) = (row.optional_text()?.map(str::to_owned), row.optional_time()?);
        debts.insert(id, DebtDunning { reminded, delivered_at, paused });
    }
    Ok(debts)
}

pub async fn put_debt(tx: &mut Tx, (organization, invoice): (&OrganizationId, &InvoiceId), debt: &DebtDunning) -> Result<()> {
    tx.execute(
        "INSERT INTO dunning_debts (invoice_id, organization_id, reminded_after, reminded_on, paused) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (invoice_id) DO UPDATE SET reminded_after = excluded.reminded_after, reminded_on = excluded.reminded_on,
             paused = excluded.paused",
        params![
            invoice.as_str(),
            organization.as_str(),
            debt.reminded.map(|reminded| i64::from(reminded.after_days)),
            debt.reminded.map(|reminded| reminded.on.to_string()),
            debt.paused.as_deref()
        ],
    )
    .await?;
    Ok(())
}

/// Customers with something to pay, or that are suspended, by their ids. The owner's own teams are none.
pub async fn owing(tx: &mut Tx, after: Option<&OrganizationId>, limit: i64) -> Result<Vec<OrganizationId>> {
    let sql = "SELECT id FROM organizations WHERE id > $1 AND class IN ('external', 'partner')
         AND (EXISTS (SELECT 1 FROM invoices WHERE organization_id = organizations.id AND state = 'issued')
             OR EXISTS (SELECT 1 FROM dunning_accounts WHERE organization_id = organizations.id AND suspended_at IS NOT NULL))
         ORDER BY id LIMIT $2";
    let rows = tx.fetch_all(sql, params![after.map_or("", OrganizationId::as_str), limit]).await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}
