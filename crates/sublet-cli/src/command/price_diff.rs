//! `sublet prices diff`: what another list would change.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use sublet_api::client::Client;
use sublet_api::list::ListQuery;
use sublet_api::price::{Price, Subject};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::SiteId;
use sublet_core::money::Currency;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::tier::ServiceTier;

use super::price::{price_rows, read};
use super::price_simulation;
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};

/// What has one price in a list.
type Sold = (Subject, &'static str, Option<ServiceTier>, Option<NoticeClass>, Option<SiteId>, Option<IsolationLevel>);

/// Two lists, and what is not the same in them.
#[derive(Debug, Serialize)]
pub struct Difference {
    pub currency: Currency,
    pub changes: Vec<Change>,
    /// Prices that stay as they are.
    pub unchanged: usize,
}

/// What something costs in both lists; nothing where a list does not sell it.
#[derive(Debug, Serialize)]
pub struct Change {
    pub before: Option<Price>,
    pub after: Option<Price>,
}

/// Prices with their currency, from a published version or a file.
struct Prices {
    currency: Currency,
    prices: Vec<Price>,
}

/// Compares two lists, each a file or the hash of a version. Without `old` it is the newest in the currency of `new`.
pub fn compare(client: &Client, old: Option<&str>, new: &str) -> Result<Difference> {
    let new = find(client, new)?;
    let old = match old {
        Some(name) => find(client, name)?,
        None => newest(client, new.currency)?,
    };
    if old.currency != new.currency {
        return Err(Error::new(
            ErrorCode::CurrencyMismatch,
            format!("one list is in {}, the other in {}", old.currency, new.currency),
        ));
    }
    let mut sold: BTreeMap<Sold, Change> = BTreeMap::new();
    for price in old.prices {
        sold.insert(key(&price), Change { before: Some(price), after: None });
    }
    for price in new.prices {
        let change = sold.entry(key(&price)).or_insert(Change { before: None, after: None });
        change.after = Some(price);
    }
    let all = sold.len();
    let changes: Vec<Change> = sold.into_values().filter(|change| change.before != change.after).collect();
    Ok(Difference { currency: new.currency, unchanged: all - changes.len(), changes })
}

fn key(price: &Price) -> Sold {
    let (subject, site) = (price.subject.clone(), price.site.clone());
    (subject, price.meter.as_str(), price.service_tier, price.notice, site, price.isolation)
}

fn find(client: &Client, name: &str) -> Result<Prices> {
    let is_hash = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash {
        let list = client.price_list(name)?;
        return Ok(Prices { currency: list.currency, prices: list.prices });
    }
    let body = read(Path::new(name))?;
    Ok(Prices { currency: body.currency, prices: body.prices })
}

/// The version that holds last, in force or not yet. Lists begin with the newest.
fn newest(client: &Client, currency: Currency) -> Result<Prices> {
    let mut query = ListQuery::default();
    loop {
        let page = client.price_lists(&query)?;
        if let Some(list) = page.data.into_iter().find(|list| list.currency == currency) {
            return Ok(Prices { currency, prices: list.prices });
        }
        if !page.has_more {
            return Err(Error::new(ErrorCode::NotFound, format!("there is no price list in {currency} to compare with"))
                .alternative("name another list with --with"));
        }
        query.after = page.last_id;
    }
}

/// One row for each price that changes.
pub fn text(difference: &Difference, style: Style) -> String {
    let rows = difference.changes.iter().map(|change| {
        let either = change.after.as_ref().or(change.before.as_ref());
        let name = either.map_or(NOTHING, |price| price.subject.name());
        [
            Cell::text(name),
            Cell::text(either.map_or(NOTHING, |price| price.meter.as_str())),
            Cell::text(either.and_then(|price| price.service_tier).map_or(NOTHING, ServiceTier::as_str)),
            Cell::text(
                either.map_or_else(String::new, |price| render::kind_of_time(price.notice, price.site.as_ref(), price.isolation)),
            ),
            Cell::number(side(change.before.as_ref(), difference.currency, "not sold")),
            Cell::number(side(change.after.as_ref(), difference.currency, "no longer sold")),
            Cell::number(growth(change).unwrap_or_else(|| NOTHING.to_owned())),
        ]
    });
    let table = Table::new(["what", "meter", "tier", "notice", "before", "after", "change"], "the prices are the same").rows(rows);
    format!("{}prices that stay as they are: {}\n", table.render(style), difference.unchanged)
}

fn side(price: Option<&Price>, currency: Currency, nothing: &str) -> String {
    let Some(price) = price else { return nothing.to_owned() };
    let say = |(when, terms)| if when == NOTHING { terms } else { format!("{when}: {terms}") };
    price_rows(price, currency).into_iter().map(say).collect::<Vec<_>>().join("; ")
}

/// By how much an amount grows, of prices that are one amount all week.
fn growth(change: &Change) -> Option<String> {
    let plain =
        |price: &Price| price.amount.filter(|_| price.time_of_use.is_none() && price.market.is_none() && price.minimum.is_none());
    price_simulation::growth(plain(change.before.as_ref()?)?.0.get(), plain(change.after.as_ref()?)?.0.get())
}
