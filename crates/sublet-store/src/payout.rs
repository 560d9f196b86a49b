//! What processors paid out to the owner's bank account. Operator's data.

use sublet_core::id::PayoutId;
use sublet_core::payment::PayoutState;
use sublet_core::{Currency, Error, Nanos, Result, Timestamp};
use sublet_money::account::Processor;

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, Value};
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payout {
    pub id: PayoutId,
    /// What the processor calls it.
    pub name: String,
    pub amount: Nanos,
    pub currency: Currency,
    pub state: PayoutState,
    pub reason: Option<String>,
    pub made_at: Timestamp,
    /// Since when it is in the books that it arrived.
    pub posted_at: Option<Timestamp>,
    /// Since when it is in the books that it came back.
    pub returned_at: Option<Timestamp>,
}

/// The text that stands for a processor.
const fn processor_text(processor: Processor) -> &'static str {
    match processor {
        Processor::Bank => "bank",
        Processor::Stripe => "stripe",
    }
}

fn from_row(row: &Row) -> Result<Payout> {
    let mut row = row.reader();
    let (id, name, amount, currency) = (row.parse()?, row.string()?, row.nanos()?, row.parse()?);
    let state = row.text()?;
    let state = PayoutState::ALL.into_iter().find(|known| known.as_str() == state);
    Ok(Payout {
        id,
        name,
        amount,
        currency,
        state: state.ok_or_else(|| Error::internal("a payout is in no state that is known"))?,
        reason: row.optional_text()?.map(str::to_owned),
        made_at: row.time()?,
        posted_at: row.optional_time()?,
        returned_at: row.optional_time()?,
    })
}

/// Writes a payout as it is now; its amount and when it was made stay as they were written first.
pub async fn put(tx: &mut Tx, processor: Processor, payout: &Payout) -> Result<()> {
    tx.execute(
        "INSERT INTO payouts (id, processor, name, amount, currency, state, reason, made_at, posted_at, returned_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (processor, name) DO UPDATE SET state = excluded.state, reason = excluded.reason,
             posted_at = excluded.posted_at, returned_at = excluded.returned_at",
        params![
            payout.id.as_str(),
            processor_text(processor),
            payout.name.as_str(),
            payout.amount,
            payout.currency.as_str(),
            payout.state.as_str(),
            payout.reason.as_deref(),
            payout.made_at,
            payout.posted_at,
            payout.returned_at
        ],
    )
    .await?;
    Ok(())
}

pub async fn find(tx: &mut Tx, processor: Processor, name: &str) -> Result<Option<Payout>> {
    let row = tx
        .fetch_optional(
            "SELECT id, name, amount, currency, state, reason, made_at, posted_at, returned_at FROM payouts
             WHERE processor = $1 AND name = $2",
            params![processor_text(processor), name],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

pub async fn list(tx: &mut Tx, page: &PageRequest) -> Result<Page<Payout>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, name, amount, currency, state, reason, made_at, posted_at, returned_at FROM payouts
         WHERE ($1 = '' OR processor = $1)",
        "id",
        "2",
        "3"
    );
    let filter: [Value<'_>; 3] = ["".into(), key, limit];
    let rows = tx.fetch_all(sql, &filter).await?;
    page.page(&rows, from_row)
}

/// When the oldest payout was made that is still on its way.
pub async fn oldest_pending(tx: &mut Tx) -> Result<Option<Timestamp>> {
    let row = tx.fetch_one("SELECT MIN(made_at) FROM payouts WHERE state = 'pending'", &[]).await?;
    row.reader().optional_time()
}
