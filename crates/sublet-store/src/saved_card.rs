//! Cards that a processor keeps for organizations. Only what tells a card from others is here, never its number.

use sublet_core::id::{OrganizationId, SavedCardId};
use sublet_core::payment::{CardFace, KeptCard};
use sublet_core::{Error, ErrorCode, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::params;
use crate::row::Row;
use crate::top_up::stored_as_text;

stored_as_text! {
    /// What became of a card.
    SavedCardState {
        /// There is a page on which it can be saved.
        Pending = "pending",
        /// It can be charged.
        Saved = "saved",
        /// By the customer, or another one was saved in its place.
        Removed = "removed",
        /// Nothing was saved in time.
        Expired = "expired",
        Failed = "failed",
    }
}

stored_as_text! {
    /// What is to be done with the processor.
    SavedCardStep {
        /// To make a page; whether there is one may be unclear.
        Open = "open",
        /// To ask whether a card was saved.
        Look = "look",
        /// To let the processor forget it.
        Forget = "forget",
        /// Nothing more.
        Done = "done",
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SavedCard {
    pub id: SavedCardId,
    pub organization: OrganizationId,
    pub state: SavedCardState,
    pub step: SavedCardStep,
    /// When the next step is to be done; `None` if there is none.
    pub next_at: Option<Timestamp>,
    /// Keys that were used up.
    pub calls: i64,
    /// What went wrong in a row.
    pub tries: i64,
    pub page: Option<String>,
    pub url: Option<String>,
    /// Since it was saved.
    pub kept: Option<KeptCard>,
    pub reason: Option<String>,
    pub created_by: String,
    pub page_expires_at: Timestamp,
    pub created_at: Timestamp,
    pub saved_at: Option<Timestamp>,
}

fn from_row(row: &Row) -> Result<SavedCard> {
    let mut row = row.reader();
    Ok(SavedCard {
        id: row.parse()?,
        organization: row.parse()?,
        state: row.parse()?,
        step: row.parse()?,
        next_at: row.optional_time()?,
        calls: row.int()?,
        tries: row.int()?,
        page: row.optional_text()?.map(str::to_owned),
        url: row.optional_text()?.map(str::to_owned),
        kept: {
            let names = row.optional_text()?.map(str::to_owned).zip(row.optional_text()?.map(str::to_owned));
            let face = row.optional_text()?.map(str::to_owned).zip(row.optional_text()?.map(str::to_owned));
            let (month, year) = (row.optional_int()?, row.optional_int()?);
            names.zip(face).zip(month.zip(year)).map(kept).transpose()?
        },
        reason: row.optional_text()?.map(str::to_owned),
        created_by: row.string()?,
        page_expires_at: row.time()?,
        created_at: row.time()?,
        saved_at: row.optional_time()?,
    })
}

type KeptColumns = (((String, String), (String, String)), (i64, i64));

fn kept((((customer, name), (brand, last4)), (month, year)): KeptColumns) -> Result<KeptCard> {
    let wrong = |_| Error::internal("a saved card ends in no month of a year");
    let (expires_month, expires_year) = (u8::try_from(month).map_err(wrong)?, u16::try_from(year).map_err(wrong)?);
    Ok(KeptCard { customer, name, face: CardFace { brand, last4, expires_month, expires_year } })
}

pub async fn insert(tx: &mut Tx, new: &SavedCard) -> Result<()> {
    tx.execute(
        "INSERT INTO saved_cards (id, organization_id, state, step, next_at, calls, tries, created_by, page_expires_at, created_at)
         VALUES ($1, $2, $3, $4, $5, 0, 0, $6, $7, $8)",
        params![
            new.id.as_str(),
            new.organization.as_str(),
            new.state.as_str(),
            new.step.as_str(),
            new.next_at,
            new.created_by.as_str(),
            new.page_expires_at,
            new.created_at
        ],
    )
    .await?;
    Ok(())
}

/// Writes what changes of a card, if it is still as it was read: `was` is its state and step then. False if not.
pub async fn update(tx: &mut Tx, (state, step): (SavedCardState, SavedCardStep), now: &SavedCard) -> Result<bool> {
    let kept = now.kept.as_ref();
    let updated = tx
        .execute(
            "UPDATE saved_cards SET state = $4, step = $5, next_at = $6, calls = $7, tries = $8, page = $9, url = $10,
                 customer = $11, name = $12, brand = $13, last4 = $14, expires_month = $15, expires_year = $16, reason = $17,
                 saved_at = $18
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
                now.page.as_deref(),
                now.url.as_deref(),
                kept.map(|kept| kept.customer.as_str()),
                kept.map(|kept| kept.name.as_str()),
                kept.map(|kept| kept.face.brand.as_str()),
                kept.map(|kept| kept.face.last4.as_str()),
                kept.map(|kept| i64::from(kept.face.expires_month)),
                kept.map(|kept| i64::from(kept.face.expires_year)),
                now.reason.as_deref(),
                now.saved_at
            ],
        )
        .await?;
    Ok(updated == 1)
}

/// Says that the next step of a card that is being saved is to be done at once.
pub async fn wake(tx: &mut Tx, id: &SavedCardId, now: Timestamp) -> Result<()> {
    let sql = "UPDATE saved_cards SET next_at = $2 WHERE id = $1 AND state = 'pending' AND page IS NOT NULL";
    tx.execute(sql, params![id.as_str(), now]).await.map(|_| ())
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &SavedCardId) -> Result<SavedCard> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, state, step, next_at, calls, tries, page, url, customer, name, brand, last4,
                 expires_month, expires_year, reason, created_by, page_expires_at, created_at, saved_at
             FROM saved_cards WHERE id = $1 AND ($2 = '' OR organization_id = $2)",
            params![id.as_str(), scope.organization().map_or("", OrganizationId::as_str)],
        )
        .await?;
    let row = row.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no saved card '{id}'")))?;
    from_row(&row)
}

/// The latest card of an organization that is in a state.
pub async fn find(tx: &mut Tx, organization: &OrganizationId, state: SavedCardState) -> Result<Option<SavedCard>> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, state, step, next_at, calls, tries, page, url, customer, name, brand, last4,
                 expires_month, expires_year, reason, created_by, page_expires_at, created_at, saved_at
             FROM saved_cards WHERE organization_id = $1 AND state = $2 ORDER BY id DESC LIMIT 1",
            params![organization.as_str(), state.as_str()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Those with something to be done by now, the longest waiting first.
pub async fn due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<SavedCardId>> {
    let sql = "SELECT id FROM saved_cards WHERE next_at <= $1 ORDER BY next_at, id LIMIT $2";
    tx.fetch_all(sql, params![now, limit]).await?.iter().map(|row| row.reader().parse()).collect()
}
