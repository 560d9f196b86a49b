//! What customers mean to pay in, and how far each of it is.

use sublet_core::id::{CreditGrantId, OrganizationId, SavedCardId, TopUpId};
use sublet_core::payment::{PaymentMethod, TopUpCause};
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, Value};
use crate::{list_sql, params};

macro_rules! stored_as_text {
    ($(#[$doc:meta])* $name:ident { $($(#[$note:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum $name { $($(#[$note])* $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text),+ } }
        }

        impl std::str::FromStr for $name {
            type Err = sublet_core::Error;
            fn from_str(text: &str) -> sublet_core::Result<Self> {
                let known = Self::ALL.iter().copied().find(|known| known.as_str() == text);
                known.ok_or_else(|| sublet_core::Error::internal(format!("'{text}' is no {}", stringify!($name))))
            }
        }
    };
}
pub(crate) use stored_as_text;

stored_as_text! {
    /// What became of a top-up. Only `Succeeded` is for ever: money that came after all is money.
    TopUpState { Pending = "pending", Succeeded = "succeeded", Failed = "failed", Cancelled = "cancelled", Expired = "expired" }
}

stored_as_text! {
    /// What is to be done with the processor.
    TopUpStep {
        /// To make a place to pay, or to prepare a charge; whether there is one may be unclear.
        Open = "open",
        /// To charge the card.
        Charge = "charge",
        /// To ask whether it was paid.
        Look = "look",
        /// To close it, and to ask once more.
        Close = "close",
        /// Nothing more.
        Done = "done",
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopUp {
    pub id: TopUpId,
    pub organization: OrganizationId,
    pub method: PaymentMethod,
    pub amount: Nanos,
    pub currency: Currency,
    /// What a bank transfer has to name.
    pub reference: String,
    pub state: TopUpState,
    pub step: TopUpStep,
    /// When the next step is to be done; `None` if there is none.
    pub next_at: Option<Timestamp>,
    /// Keys that were used up: each attempt that a processor answered with a failure of its own has its key.
    pub calls: i64,
    /// What went wrong in a row.
    pub tries: i64,
    pub checkout: Option<String>,
    pub url: Option<String>,
    pub payment: Option<String>,
    pub reason: Option<String>,
    pub grant: Option<CreditGrantId>,
    /// Paid back, or on its way back, through its processor.
    pub refunded: Nanos,
    pub fee: Option<(Nanos, Currency)>,
    pub created_by: String,
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// The card that is charged.
    pub card: Option<SavedCardId>,
    /// Why there is one that nobody asked for by itself.
    pub cause: Option<TopUpCause>,
}

fn from_row(row: &Row) -> Result<TopUp> {
    let mut row = row.reader();
    let (id, organization) = (row.parse()?, row.parse()?);
    let method = row.text()?;
    let method = PaymentMethod::ALL.into_iter().find(|known| known.as_str() == method);
    let cause_of = |text| TopUpCause::ALL.into_iter().find(|known| known.as_str() == text);
    Ok(TopUp {
        id,
        organization,
        method: method.ok_or_else(|| Error::internal("a top-up is paid in no way that is known"))?,
        amount: row.nanos()?,
        currency: row.parse()?,
        reference: row.string()?,
        state: row.parse()?,
        step: row.parse()?,
        next_at: row.optional_time()?,
        calls: row.int()?,
        tries: row.int()?,
        checkout: row.optional_text()?.map(str::to_owned),
        url: row.optional_text()?.map(str::to_owned),
        payment: row.optional_text()?.map(str::to_owned),
        reason: row.optional_text()?.map(str::to_owned),
        grant: row.optional_parse()?,
        refunded: row.nanos()?,
        fee: row.optional_int()?.map(Nanos::new).zip(row.optional_parse()?),
        created_by: row.string()?,
        expires_at: row.time()?,
        created_at: row.time()?,
        ended_at: row.optional_time()?,
        card: row.optional_parse()?,
        cause: row.optional_text()?.and_then(cause_of),
    })
}

pub async fn insert(tx: &mut Tx, new: &TopUp) -> Result<()> {
    tx.execute(
        "INSERT INTO top_ups (id, organization_id, method, amount, currency, reference, state, step, next_at, calls, tries,
             refunded, created_by, expires_at, created_at, card_id, cause)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, 0, $10, $11, $12, $13, $14)",
        params![
            new.id.as_str(),
            new.organization.as_str(),
            new.method.as_str(),
            new.amount,
            new.currency.as_str(),
            new.reference.as_str(),
            new.state.as_str(),
            new.step.as_str(),
            new.next_at,
            new.created_by.as_str(),
            new.expires_at,
            new.created_at,
            new.card.as_ref().map(SavedCardId::as_str),
            new.cause.map(TopUpCause::as_str)
        ],
    )
    .await?;
    Ok(())
}

/// Writes what changes of a top-up, if it is still as it was read: `was` is its state and step then. False if not.
pub async fn update(tx: &mut Tx, (state, step): (TopUpState, TopUpStep), now: &TopUp) -> Result<bool> {
    let updated = tx
        .execute(
            "UPDATE top_ups SET state = $4, step = $5, next_at = $6, calls = $7, tries = $8, checkout = $9, url = $10,
                 payment = $11, reason = $12, grant_id = $13, fee = $14, fee_currency = $15, ended_at = $16
             WHERE id = $1 AND state = $2 AND step = $3",
            params![
                now.id.as_str(),
                state.as_str(),
                step.as_str(),
                now.state.as_str(),
                now.step.as_str(),
                now.next_at,
                now.calls,
                now.tries,
                now.checkout.as_deref(),
                now.url.as_deref(),
                now.payment.as_deref(),
                now.reason.as_deref(),
                now.grant.as_ref().map(CreditGrantId::as_str),
                now.fee.map(|(fee, _)| fee.get()),
                now.fee.map(|(_, currency)| currency.to_string()),
                now.ended_at
            ],
        )
        .await?;
    Ok(updated == 1)
}

/// Notes that so much more of it goes back through its processor; never more than was paid. False if it is too much.
/// A negative amount takes back what was noted.
pub async fn note_refund(tx: &mut Tx, id: &TopUpId, amount: Nanos) -> Result<bool> {
    let updated = tx
        .execute(
            "UPDATE top_ups SET refunded = refunded + $2
             WHERE id = $1 AND state = 'succeeded' AND refunded + $2 <= amount AND refunded + $2 >= 0",
            params![id.as_str(), amount],
        )
        .await?;
    Ok(updated == 1)
}

/// Says that the next step is to be done at once.
pub async fn wake(tx: &mut Tx, id: &TopUpId, now: Timestamp) -> Result<bool> {
    let woken = tx
        .execute(
            "UPDATE top_ups SET next_at = $2, step = CASE step WHEN 'done' THEN 'look' ELSE step END
             WHERE id = $1 AND state <> 'succeeded' AND checkout IS NOT NULL",
            params![id.as_str(), now],
        )
        .await?;
    Ok(woken == 1)
}

pub async fn find(tx: &mut Tx, scope: &Scope, id: &TopUpId) -> Result<Option<TopUp>> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, method, amount, currency, reference, state, step, next_at, calls, tries, checkout, url,
                 payment, reason, grant_id, refunded, fee, fee_currency, created_by, expires_at, created_at, ended_at,
                 card_id, cause
             FROM top_ups WHERE id = $1 AND ($2 = '' OR organization_id = $2)",
            params![id.as_str(), scope.organization().map_or("", OrganizationId::as_str)],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &TopUpId) -> Result<TopUp> {
    find(tx, scope, id).await?.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no top-up '{id}'")))
}

/// The top-up that a bank transfer names.
pub async fn find_by_reference(tx: &mut Tx, scope: &Scope, reference: &str) -> Result<Option<TopUp>> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, method, amount, currency, reference, state, step, next_at, calls, tries, checkout, url,
                 payment, reason, grant_id, refunded, fee, fee_currency, created_by, expires_at, created_at, ended_at,
                 card_id, cause
             FROM top_ups WHERE reference = $1 AND ($2 = '' OR organization_id = $2)",
            params![reference, scope.organization().map_or("", OrganizationId::as_str)],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Those of an organization, or all that the scope may see, in a state or in any.
pub async fn list(
    tx: &mut Tx,
    scope: &Scope,
    (organization, state): (Option<&OrganizationId>, Option<TopUpState>),
    page: &PageRequest,
) -> Result<Page<TopUp>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, method, amount, currency, reference, state, step, next_at, calls, tries, checkout, url,
             payment, reason, grant_id, refunded, fee, fee_currency, created_by, expires_at, created_at, ended_at,
                 card_id, cause
         FROM top_ups WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR organization_id = $2) AND ($3 = '' OR state = $3)",
        "id",
        "4",
        "5"
    );
    let own = scope.organization().map_or("", OrganizationId::as_str);
    let filter: [Value<'_>; 5] = [
        own.into(),
        organization.map_or("", OrganizationId::as_str).into(),
        state.map_or("", TopUpState::as_str).into(),
        key,
        limit,
    ];
    let rows = tx.fetch_all(sql, &filter).await?;
    page.page(&rows, from_row)
}

pub async fn count_pending(tx: &mut Tx, organization: &OrganizationId) -> Result<i64> {
    let sql = "SELECT COUNT(*) FROM top_ups WHERE organization_id = $1 AND state = 'pending'";
    tx.fetch_one(sql, params![organization.as_str()]).await?.reader().int()
}

/// Whether a card of the organization is being charged.
pub async fn is_card_charged(tx: &mut Tx, organization: &OrganizationId) -> Result<bool> {
    let sql = "SELECT COUNT(*) FROM top_ups WHERE organization_id = $1 AND state = 'pending' AND method = 'card'";
    Ok(tx.fetch_one(sql, params![organization.as_str()]).await?.reader().int()? > 0)
}

/// Whether a top-up of the organization's rule has no end yet.
pub async fn is_automatic_pending(tx: &mut Tx, organization: &OrganizationId) -> Result<bool> {
    let sql = "SELECT COUNT(*) FROM top_ups WHERE organization_id = $1 AND state = 'pending' AND cause IS NOT NULL";
    Ok(tx.fetch_one(sql, params![organization.as_str()]).await?.reader().int()? > 0)
}

/// Whether a page waits on which the customer confirms a charge of its rule.
pub async fn is_confirmation_pending(tx: &mut Tx, organization: &OrganizationId) -> Result<bool> {
    let sql = "SELECT COUNT(*) FROM top_ups WHERE organization_id = $1 AND state = 'pending' AND cause = 'confirmation'";
    Ok(tx.fetch_one(sql, params![organization.as_str()]).await?.reader().int()? > 0)
}

/// What a rule charged, or tries to, since an instant.
pub async fn sum_automatic(tx: &mut Tx, organization: &OrganizationId, since: Timestamp) -> Result<Nanos> {
    let sql = "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM top_ups
         WHERE organization_id = $1 AND cause IS NOT NULL AND created_at >= $2 AND state IN ('pending', 'succeeded')";
    tx.fetch_one(sql, params![organization.as_str(), since]).await?.reader().nanos()
}

/// Those with something to be done by now, the longest waiting first.
pub async fn due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<TopUpId>> {
    let sql = "SELECT id FROM top_ups WHERE next_at <= $1 ORDER BY next_at, id LIMIT $2";
    tx.fetch_all(sql, params![now, limit]).await?.iter().map(|row| row.reader().parse()).collect()
}
