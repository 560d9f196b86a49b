//! Paid credit on its way back to customers.

use sublet_core::id::{OrganizationId, RefundId, TopUpId};
use sublet_core::payment::PaymentMethod;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, Value};
use crate::top_up::stored_as_text;
use crate::{list_sql, params};

stored_as_text! {
    /// What became of a refund.
    RefundState {
        /// Somebody else has to approve it.
        Requested = "requested",
        /// It is to be paid.
        Approved = "approved",
        Paid = "paid",
        /// Called off before it was paid: it is credit again.
        Rejected = "rejected",
        Cancelled = "cancelled",
        /// The processor could not pay it: it is credit again.
        Failed = "failed",
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refund {
    pub id: RefundId,
    pub organization: OrganizationId,
    /// What is paid back.
    pub amount: Nanos,
    /// The part of it that was kept for tax; the rest was credit.
    pub tax: Nanos,
    pub currency: Currency,
    /// Why, by whoever asked for it.
    pub note: String,
    pub state: RefundState,
    /// How it is paid, since it was approved.
    pub method: Option<PaymentMethod>,
    /// Of which payment it is paid back, by a processor.
    pub top_up: Option<TopUpId>,
    pub payment: Option<String>,
    pub requested_by: String,
    pub answered_by: Option<String>,
    /// Why it was rejected or failed.
    pub reason: Option<String>,
    /// The bank's name of the transfer, or the processor's of the refund.
    pub transaction: Option<String>,
    /// When the processor is to be asked; `None` if it is not.
    pub next_at: Option<Timestamp>,
    pub calls: i64,
    pub tries: i64,
    pub created_at: Timestamp,
    pub answered_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

fn from_row(row: &Row) -> Result<Refund> {
    let mut row = row.reader();
    let (id, organization, amount, currency) = (row.parse()?, row.parse()?, row.nanos()?, row.parse()?);
    let (note, state) = (row.string()?, row.parse()?);
    let method = row.optional_text()?;
    let method = PaymentMethod::ALL.into_iter().find(|known| Some(known.as_str()) == method);
    Ok(Refund {
        id,
        organization,
        amount,
        currency,
        note,
        state,
        method,
        top_up: row.optional_parse()?,
        payment: row.optional_text()?.map(str::to_owned),
        requested_by: row.string()?,
        answered_by: row.optional_text()?.map(str::to_owned),
        reason: row.optional_text()?.map(str::to_owned),
        transaction: row.optional_text()?.map(str::to_owned),
        next_at: row.optional_time()?,
        calls: row.int()?,
        tries: row.int()?,
        created_at: row.time()?,
        answered_at: row.optional_time()?,
        ended_at: row.optional_time()?,
        tax: row.nanos()?,
    })
}

pub async fn insert(tx: &mut Tx, new: &Refund) -> Result<()> {
    tx.execute(
        "INSERT INTO refunds (id, organization_id, amount, currency, note, state, requested_by, calls, tries, created_at, tax)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, $8, $9)",
        params![
            new.id.as_str(),
            new.organization.as_str(),
            new.amount,
            new.currency.as_str(),
            new.note.as_str(),
            new.state.as_str(),
            new.requested_by.as_str(),
            new.created_at,
            new.tax
        ],
    )
    .await?;
    Ok(())
}

/// Writes what changes of a refund, if it is still in the state in which it was read. False if not.
pub async fn update(tx: &mut Tx, was: RefundState, now: &Refund) -> Result<bool> {
    let updated = tx
        .execute(
            "UPDATE refunds SET state = $3, method = $4, top_up_id = $5, payment = $6, answered_by = $7, reason = $8,
                 transaction_id = $9, next_at = $10, calls = $11, tries = $12, answered_at = $13, ended_at = $14
             WHERE id = $1 AND state = $2",
            params![
                now.id.as_str(),
                was.as_str(),
                now.state.as_str(),
                now.method.map(PaymentMethod::as_str),
                now.top_up.as_ref().map(TopUpId::as_str),
                now.payment.as_deref(),
                now.answered_by.as_deref(),
                now.reason.as_deref(),
                now.transaction.as_deref(),
                now.next_at,
                now.calls,
                now.tries,
                now.answered_at,
                now.ended_at
            ],
        )
        .await?;
    Ok(updated == 1)
}

pub async fn find(tx: &mut Tx, scope: &Scope, id: &RefundId) -> Result<Option<Refund>> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, amount, currency, note, state, method, top_up_id, payment, requested_by, answered_by,
                 reason, transaction_id, next_at, calls, tries, created_at, answered_at, ended_at, tax
             FROM refunds WHERE id = $1 AND ($2 = '' OR organization_id = $2)",
            params![id.as_str(), scope.organization().map_or("", OrganizationId::as_str)],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &RefundId) -> Result<Refund> {
    find(tx, scope, id).await?.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no refund '{id}'")))
}

/// Those of an organization, or all that the scope may see, in a state or in any.
pub async fn list(
    tx: &mut Tx,
    scope: &Scope,
    (organization, state): (Option<&OrganizationId>, Option<RefundState>),
    page: &PageRequest,
) -> Result<Page<Refund>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, amount, currency, note, state, method, top_up_id, payment, requested_by, answered_by,
             reason, transaction_id, next_at, calls, tries, created_at, answered_at, ended_at, tax
         FROM refunds WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR organization_id = $2) AND ($3 = '' OR state = $3)",
        "id",
        "4",
        "5"
    );
    let own = scope.organization().map_or("", OrganizationId::as_str);
    let filter: [Value<'_>; 5] = [
        own.into(),
        organization.map_or("", OrganizationId::as_str).into(),
        state.map_or("", RefundState::as_str).into(),
        key,
        limit,
    ];
    let rows = tx.fetch_all(sql, &filter).await?;
    page.page(&rows, from_row)
}

/// Refunds whose processor is to be asked by now, the longest waiting first.
pub async fn due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<RefundId>> {
    let sql = "SELECT id FROM refunds WHERE next_at <= $1 ORDER BY next_at, id LIMIT $2";
    tx.fetch_all(sql, params![now, limit]).await?.iter().map(|row| row.reader().parse()).collect()
}
