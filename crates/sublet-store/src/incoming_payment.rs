//! Money that arrived: every bank transaction once for ever, and what a processor told of payments that nobody knows.

use sublet_core::id::{CreditGrantId, IncomingPaymentId, OrganizationId, TopUpId};
use sublet_core::payment::PaymentMethod;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, Value};
use crate::top_up::stored_as_text;
use crate::{list_sql, params};

stored_as_text! {
    /// What became of it.
    IncomingState {
        /// It paid a top-up.
        Matched = "matched",
        /// It is nobody's yet: a person has to say what to do with it.
        Quarantined = "quarantined",
        /// It became credit of a customer.
        Credited = "credited",
        /// It was sent back, or is none of a customer's.
        Returned = "returned",
    }
}

stored_as_text! {
    /// Why it is not counted by itself.
    IncomingProblem {
        NoReference = "no_reference",
        SeveralReferences = "several_references",
        UnknownReference = "unknown_reference",
        OtherMethod = "other_method",
        WrongCurrency = "wrong_currency",
        Partial = "partial",
        Excess = "excess",
        PaidAlready = "paid_already",
        NotPending = "not_pending",
        UnknownPayment = "unknown_payment",
        UnknownRefund = "unknown_refund",
        /// It was paid back, and came back to us.
        RefundReturned = "refund_returned",
        Disputed = "disputed",
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IncomingPayment {
    pub id: IncomingPaymentId,
    pub source: PaymentMethod,
    /// The bank's or processor's own name of it.
    pub transaction: String,
    /// `None` where the processor did not say one in a currency that accounts are kept in.
    pub amount: Option<(Nanos, Currency)>,
    pub reference: String,
    pub state: IncomingState,
    pub problem: Option<IncomingProblem>,
    /// That it paid, or names.
    pub top_up: Option<TopUpId>,
    /// Whose it is, or seems to be.
    pub organization: Option<OrganizationId>,
    /// What the operator said of it.
    pub answer: Option<String>,
    pub answered_by: Option<String>,
    pub grant: Option<CreditGrantId>,
    pub created_at: Timestamp,
    pub answered_at: Option<Timestamp>,
}

fn from_row(row: &Row) -> Result<IncomingPayment> {
    let mut row = row.reader();
    let id = row.parse()?;
    let source = row.text()?;
    let source = PaymentMethod::ALL.into_iter().find(|known| known.as_str() == source);
    Ok(IncomingPayment {
        id,
        source: source.ok_or_else(|| Error::internal("money arrived in no way that is known"))?,
        transaction: row.string()?,
        amount: row.optional_int()?.map(Nanos::new).zip(row.optional_parse()?),
        reference: row.string()?,
        state: row.parse()?,
        problem: row.optional_parse()?,
        top_up: row.optional_parse()?,
        organization: row.optional_parse()?,
        answer: row.optional_text()?.map(str::to_owned),
        answered_by: row.optional_text()?.map(str::to_owned),
        grant: row.optional_parse()?,
        created_at: row.time()?,
        answered_at: row.optional_time()?,
    })
}

/// Notes it unless the same transaction is known. False if it is.
pub async fn insert(tx: &mut Tx, new: &IncomingPayment) -> Result<bool> {
    let inserted = tx
        .execute(
            "INSERT INTO incoming_payments (id, source, transaction_id, amount, currency, reference, state, problem, top_up_id,
                 organization_id, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (source, transaction_id) DO NOTHING",
            params![
                new.id.as_str(),
                new.source.as_str(),
                new.transaction.as_str(),
                new.amount.map(|(amount, _)| amount.get()),
                new.amount.map(|(_, currency)| currency.to_string()),
                new.reference.as_str(),
                new.state.as_str(),
                new.problem.map(IncomingProblem::as_str),
                new.top_up.as_ref().map(TopUpId::as_str),
                new.organization.as_ref().map(OrganizationId::as_str),
                new.created_at
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// Writes what the operator said of one that is quarantined.
pub async fn answer(tx: &mut Tx, now: &IncomingPayment) -> Result<()> {
    let answered = tx
        .execute(
            "UPDATE incoming_payments SET state = $2, organization_id = $3, answer = $4, answered_by = $5, grant_id = $6,
                 answered_at = $7
             WHERE id = $1 AND state = 'quarantined'",
            params![
                now.id.as_str(),
                now.state.as_str(),
                now.organization.as_ref().map(OrganizationId::as_str),
                now.answer.as_deref(),
                now.answered_by.as_deref(),
                now.grant.as_ref().map(CreditGrantId::as_str),
                now.answered_at
            ],
        )
        .await?;
    if answered == 1 { Ok(()) } else { Err(Error::new(ErrorCode::Conflict, "this payment is not quarantined any more")) }
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &IncomingPaymentId) -> Result<IncomingPayment> {
    let row = tx
        .fetch_optional(
            "SELECT id, source, transaction_id, amount, currency, reference, state, problem, top_up_id, organization_id, answer,
                 answered_by, grant_id, created_at, answered_at
             FROM incoming_payments WHERE id = $1 AND ($2 = '' OR organization_id = $2)",
            params![id.as_str(), scope.organization().map_or("", OrganizationId::as_str)],
        )
        .await?;
    let row = row.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no incoming payment '{id}'")))?;
    from_row(&row)
}

/// The one with a transaction's id.
pub async fn find_transaction(
    tx: &mut Tx,
    scope: &Scope,
    (source, transaction): (PaymentMethod, &str),
) -> Result<Option<IncomingPayment>> {
    let row = tx
        .fetch_optional(
            "SELECT id, source, transaction_id, amount, currency, reference, state, problem, top_up_id, organization_id, answer,
                 answered_by, grant_id, created_at, answered_at
             FROM incoming_payments WHERE source = $1 AND transaction_id = $2 AND ($3 = '' OR organization_id = $3)",
            params![source.as_str(), transaction, scope.organization().map_or("", OrganizationId::as_str)],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// All, or those in a state.
pub async fn list(tx: &mut Tx, scope: &Scope, state: Option<IncomingState>, page: &PageRequest) -> Result<Page<IncomingPayment>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, source, transaction_id, amount, currency, reference, state, problem, top_up_id, organization_id, answer,
             answered_by, grant_id, created_at, answered_at
         FROM incoming_payments WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR state = $2)",
        "id",
        "3",
        "4"
    );
    let own = scope.organization().map_or("", OrganizationId::as_str);
    let filter: [Value<'_>; 4] = [own.into(), state.map_or("", IncomingState::as_str).into(), key, limit];
    let rows = tx.fetch_all(sql, &filter).await?;
    page.page(&rows, from_row)
}
