//! Price indexes: what market prices follow, and the points that are published ahead.
//!
//! Points are read in the transaction that needs them, from the instant on that it is about, so no process can be behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sublet_core::admission::PriceVersion;
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_money::invoice::InvoiceContent;
use sublet_money::period::Interval;
use sublet_money::price_book::{PriceEntry, PriceListVersion};
use sublet_money::price_index::{
    IndexExcerpt, IndexName, IndexPoint, LEAD_MAX, LEAD_MIN, Level, PriceIndex, PriceIndexes, SPACING_MIN,
};
use sublet_proof::bundle::indexes_of;
use sublet_store::price_index::{self, StoredIndex, StoredPoint};
use sublet_store::{Page, PageRequest, Tx};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call, Render};
use crate::{Action, Cloud};

/// Longest note on an index, in bytes.
pub const NOTE_MAX_BYTES: usize = 500;
/// Further than any point is published.
const END_OF_TIME: Timestamp = Timestamp::from_micros(i64::MAX);

/// An index that is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewIndex {
    pub name: IndexName,
    /// How long before it holds a point is published at least.
    pub lead: DurationMs,
    pub level: Level,
    pub note: String,
}

/// A level that is to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewPoint {
    pub index: IndexName,
    /// As soon as it can if left out.
    pub from: Option<Timestamp>,
    pub level: Level,
}

/// An index as it is at an instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexView {
    pub index: StoredIndex,
    pub level: Level,
    /// Before this nothing can change any more.
    pub known_until: Timestamp,
}

impl Cloud {
    /// Makes an index. Its first level holds at once: nothing follows it yet.
    pub async fn create_price_index(&self, call: &Call, new: &NewIndex) -> Result<Answer<IndexView>> {
        call.actor.require(Action::ManagePrices)?;
        check_new(new)?;
        let render = |view: &IndexView| Ok(view.index.name.to_string());
        self.once(call, &render, (self, &call.actor, new), |(cloud, actor, new), tx| {
            Box::pin(async move {
                let now = cloud.now();
                let point = IndexPoint::first(new.level, now);
                let hash = point.hash((&new.name, new.lead), None)?;
                let last = StoredPoint { number: 1, point, hash };
                let index = StoredIndex { name: new.name.clone(), lead: new.lead, note: new.note.clone(), created_at: now, last };
                if !price_index::insert(tx, &index, actor.name()).await? {
                    return Err(Error::new(ErrorCode::Conflict, format!("there is a price index '{}' already", new.name)));
                }
                let detail = format!("at {}, points are published {} seconds ahead", new.level, new.lead.seconds_ceil());
                let deed = Deed { organization: None, action: "price_index.create", target: new.name.as_str(), detail };
                cloud.record(tx, actor, deed, now).await?;
                view(tx, index, now).await
            })
        })
        .await
    }

    /// Publishes the next point of an index.
    pub async fn publish_price_point(
        &self,
        call: &Call,
        new: &NewPoint,
        render: &Render<StoredPoint>,
    ) -> Result<Answer<StoredPoint>> {
        call.actor.require(Action::ManagePrices)?;
        self.once(call, render, (self, &call.actor, new), |(cloud, actor, new), tx| {
            Box::pin(async move {
                let now = cloud.now();
                let StoredIndex { name, lead, last, .. } = price_index::get(tx, &new.index).await?;
                let soonest = now.plus(lead).max(last.point.from_micros.plus(SPACING_MIN));
                let held = (new.from.unwrap_or(soonest), new.level);
                let point = IndexPoint::next(&last.point, lead, held, now).map_err(|error| error.param("from"))?;
                let hash = point.hash((&name, lead), Some(&last.hash))?;
                let stored = StoredPoint { number: last.number + 1, point, hash };
                price_index::append(tx, &name, &stored, actor.name()).await?;
                let detail = format!("number {}: {} from {} on", stored.number, new.level, point.from_micros);
                let deed = Deed { organization: None, action: "price_index.publish", target: name.as_str(), detail };
                cloud.record(tx, actor, deed, now).await?;
                Ok(stored)
            })
        })
        .await
    }

    /// All indexes as they are now. Everybody may know them.
    pub async fn list_price_indexes(&self) -> Result<Vec<IndexView>> {
        let now = self.now();
        self.store
            .read((), move |(), tx| {
                Box::pin(async move {
                    let mut views = Vec::new();
                    for index in price_index::list(tx).await? {
                        views.push(view(tx, index, now).await?);
                    }
                    Ok(views)
                })
            })
            .await
    }

    pub async fn get_price_index(&self, name: &IndexName) -> Result<IndexView> {
        let now = self.now();
        self.store
            .read(name, move |name, tx| {
                Box::pin(async move {
                    let index = price_index::get(tx, name).await?;
                    view(tx, index, now).await
                })
            })
            .await
    }

    /// The points of an index, the last one first unless asked otherwise. A cursor is a point's number.
    pub async fn list_price_points(&self, name: &IndexName, page: &PageRequest) -> Result<Page<StoredPoint>> {
        self.store
            .read((name, page), |(name, page), tx| {
                Box::pin(async move {
                    price_index::get(tx, name).await?;
                    price_index::list_points(tx, name, page).await
                })
            })
            .await
    }

    /// The index that a price follows, as far as it is known now, from an instant on.
    pub(crate) async fn index_of(&self, tx: &mut Tx, entry: &PriceEntry, since: Timestamp) -> Result<Option<PriceIndex>> {
        let Some(market) = &entry.market else { return Ok(None) };
        let excerpt = excerpt(tx, &market.index, (since, END_OF_TIME)).await?;
        PriceIndex::known_at(excerpt, self.now()).map(Some)
    }

    /// The indexes that prices of lists follow, in an interval that use is already known of.
    pub(crate) async fn indexes_within(
        &self,
        tx: &mut Tx,
        lists: impl IntoIterator<Item = &PriceListVersion>,
        interval: Interval,
    ) -> Result<PriceIndexes> {
        let names: BTreeSet<&IndexName> = lists.into_iter().flat_map(PriceListVersion::indexes).collect();
        let mut indexes = PriceIndexes::new();
        for name in names {
            let excerpt = excerpt(tx, name, (interval.starts_at, interval.ends_at)).await?;
            indexes.insert(name.clone(), PriceIndex::past(excerpt, interval.ends_at)?);
        }
        Ok(indexes)
    }

    /// The points that an invoice's prices are known from.
    pub(crate) async fn index_excerpts(
        &self,
        tx: &mut Tx,
        content: &InvoiceContent,
        lists: &[Arc<PriceListVersion>],
    ) -> Result<Vec<IndexExcerpt>> {
        let by_hash: BTreeMap<&PriceVersion, &PriceListVersion> =
            lists.iter().map(|list| (list.version(), list.as_ref())).collect();
        let mut excerpts = Vec::new();
        for (name, since) in indexes_of(content, |version| by_hash.get(version).copied())? {
            excerpts.push(excerpt(tx, name, (since, content.period.interval.ends_at)).await?);
        }
        Ok(excerpts)
    }
}

/// Refuses a price list that follows an index that is not there.
pub(crate) async fn check_indexes(tx: &mut Tx, version: &PriceListVersion) -> Result<()> {
    for name in version.indexes() {
        if price_index::find(tx, name).await?.is_none() {
            let message = format!("there is no price index '{name}' that a price could follow");
            return Err(Error::new(ErrorCode::InvalidPrice, message).alternative("make the index first"));
        }
    }
    Ok(())
}

async fn excerpt(tx: &mut Tx, name: &IndexName, span: (Timestamp, Timestamp)) -> Result<IndexExcerpt> {
    let found = price_index::excerpt(tx, name, span).await?;
    found.ok_or_else(|| Error::new(ErrorCode::UnknownPrice, format!("there is no price index '{name}'")))
}

async fn view(tx: &mut Tx, index: StoredIndex, now: Timestamp) -> Result<IndexView> {
    let known = PriceIndex::known_at(excerpt(tx, &index.name, (now, END_OF_TIME)).await?, now)?;
    let (level, _) = known.level_at(now)?;
    let level = level.ok_or_else(|| Error::internal(format!("the level of {} is not known now", index.name)))?;
    Ok(IndexView { index, level, known_until: known.known_until() })
}

fn check_new(new: &NewIndex) -> Result<()> {
    let refuse = |param: &str, message: String| Err(Error::new(ErrorCode::InvalidRequest, message).param(param));
    if !(LEAD_MIN..=LEAD_MAX).contains(&new.lead) {
        let (least, most) = (LEAD_MIN.seconds_ceil(), LEAD_MAX.seconds_ceil());
        return refuse("lead_seconds", format!("points are published between {least} and {most} seconds ahead"));
    }
    if new.note.len() > NOTE_MAX_BYTES {
        return refuse("note", format!("a note has at most {NOTE_MAX_BYTES} bytes"));
    }
    Ok(())
}
