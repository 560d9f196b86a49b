//! What customers asked for and did not get, written down after they were told so.
//!
//! A refusal is decided and answered as if nobody counted; what is kept of it is one row in a transaction of its own. A
//! process remembers what it kept in the hour, so a client that asks again and again costs a look at a table in memory.
//!
//! Deliberately absent: refusals of requests for tokens (gateways decide them without the database), and what the owner's
//! own teams were refused.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sublet_core::device::DeviceKind;
use sublet_core::id::{OrganizationId, ProjectId, QuoteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::sku::SkuName;
use sublet_money::unfilled::{Ask, UnfilledReason, wanted, would_pay};
use sublet_store::quote;
use sublet_store::unfilled::{self, StoredAsk};
use sublet_store::{Tx, organization};

use crate::Actor;
use crate::compute::{Compute, Tariff};
use crate::quote::NewQuote;

/// Most requests of one hour that a process remembers.
const REMEMBERED_MAX: usize = 10_000;
/// How long it is kept what was not filled, and how many hours of older requests are forgotten with the first of a new one.
const RETENTION: DurationMs = DurationMs::from_hours(400 * 24);
const HOURS_FORGOTTEN_AT_ONCE: i64 = 24;
const HOUR_MICROS: i64 = 3_600_000_000;

type Place = (ProjectId, DeviceKind, NoticeClass, UnfilledReason);
/// Device-milliseconds, and what they may cost.
type Size = (i64, Option<Nanos>, Option<Nanos>);

/// What this process kept in the hour. Forgetting it is harmless: rows are kept by their size.
#[derive(Default)]
pub(crate) struct Remembered(Mutex<(i64, BTreeMap<Place, Size>)>);

/// Whether a request is worth a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    None,
    Larger,
    FirstOfHour,
}

impl Remembered {
    fn note(&self, hour: Timestamp, place: &Place, size: Size) -> News {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, places) = &mut *known;
        let is_first = *of != hour.micros();
        if is_first {
            *of = hour.micros();
            places.clear();
        }
        if places.get(place).is_some_and(|before| !is_more(*before, size)) {
            return News::None;
        }
        if places.len() >= REMEMBERED_MAX && !places.contains_key(place) {
            return News::None;
        }
        places.insert(place.clone(), size);
        if is_first { News::FirstOfHour } else { News::Larger }
    }
}

/// A tenth more device time, or as much of it for a tenth more: who asks for a little more each time writes seldom.
fn is_more(before: Size, now: Size) -> bool {
    let tenth = |before: i64, now: i64| i128::from(now) * 10 >= i128::from(before) * 11 && now > before;
    let dearer = |before: Option<Nanos>, now: Option<Nanos>| {
        now.is_some_and(|now| before.is_none_or(|before| tenth(before.get(), now.get())))
    };
    tenth(before.0, now.0) || (now.0 >= before.0 && (dearer(before.1, now.1) || dearer(before.2, now.2)))
}

/// Why a refusal left demand unfilled; nothing where the request was wrong, or nobody would have paid for it.
fn reason_of(error: &Error) -> Option<UnfilledReason> {
    match (error.code(), error.reason_name()) {
        (ErrorCode::CapacityUnavailable, Some("reserved" | "used_outside" | "firm_sold_out")) => Some(UnfilledReason::Kept),
        (ErrorCode::CapacityUnavailable, Some("above_level" | "no_curve" | "nothing_sold")) => Some(UnfilledReason::ClassWithdrawn),
        (ErrorCode::CapacityUnavailable, _) => Some(UnfilledReason::NotEnough),
        (ErrorCode::PolicyRefused, Some("isolation")) => Some(UnfilledReason::Isolation),
        (ErrorCode::PriceAboveMaximum, _) => Some(UnfilledReason::Price),
        (ErrorCode::UnknownPrice, _) => Some(UnfilledReason::NotOnSale),
        (ErrorCode::PolicyRefused, None) => Some(UnfilledReason::NotOnSale),
        _ => None,
    }
}

impl Compute {
    /// Keeps what a customer was refused; hands the outcome on as it is.
    pub(crate) async fn noting<T>(&self, actor: &Actor, new: &NewQuote, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome
            && let Some(reason) = reason_of(error)
            && let Err(failure) = self.note_unfilled(actor, new, reason).await
        {
            tracing::warn!(error = ?failure, "what a customer was refused could not be written down");
        }
        outcome
    }

    /// As [`Self::noting`], of a quote that could not be taken.
    pub(crate) async fn noting_quote<T>(&self, actor: &Actor, id: &QuoteId, outcome: Result<T>) -> Result<T> {
        if !outcome.as_ref().is_err_and(|error| reason_of(error).is_some()) {
            return outcome;
        }
        let read = self.cloud.store.read((actor, id), |(actor, id), tx| Box::pin(quote::get(tx, &actor.scope, id))).await;
        let Ok(quote) = read else { return outcome };
        let terms = quote.terms;
        let new = NewQuote {
            kind: terms.kind,
            units: terms.units,
            notice: terms.notice,
            site: Some(terms.site),
            isolation: Some(terms.isolation),
            max_duration: terms.max_duration,
            max_cost: terms.max_cost,
            max_price: terms.max_price.or(Some(terms.price_per_hour)),
            metadata: quote.metadata,
        };
        self.noting(actor, &new, outcome).await
    }

    async fn note_unfilled(&self, actor: &Actor, new: &NewQuote, reason: UnfilledReason) -> Result<()> {
        let (now, (organization, project)) = (self.now(), actor.project()?);
        let hour = Timestamp::from_micros(now.micros().div_euclid(HOUR_MICROS).saturating_mul(HOUR_MICROS));
        let wanted = wanted(new.max_duration, new.notice);
        let size = (wanted.millis().saturating_mul(i64::from(new.units)), new.max_price, new.max_cost);
        let place = (project.clone(), new.kind.clone(), new.notice, reason);
        let news = self.refused.note(hour, &place, size);
        if news == News::None {
            return Ok(());
        }
        let asked = Asked { organization, project, new, hour, wanted, reason, now };
        self.cloud
            .store
            .write((self, asked), move |(compute, asked), tx| {
                Box::pin(async move {
                    if news == News::FirstOfHour {
                        unfilled::forget(tx, now.minus(RETENTION), HOURS_FORGOTTEN_AT_ONCE).await?;
                    }
                    compute.keep_in(tx, asked).await
                })
            })
            .await
    }

    async fn keep_in(&self, tx: &mut Tx, asked: &Asked<'_>) -> Result<()> {
        let Asked { organization, project, new, hour, wanted, reason, now } = asked;
        let account = organization::get(tx, &sublet_core::Scope::Operator, organization).await?;
        if Holder::from(account.class) == Holder::Internal {
            return Ok(());
        }
        let version = self.cloud.prices.in_force_for((&account.id, account.currency), *now)?;
        let general = SkuName::device(new.notice, new.kind.clone());
        let required = self.settings.required_isolation(Holder::External);
        let isolation = new.isolation.map_or(required, |wanted| wanted.max(required));
        let sku = new.site.as_ref().map_or_else(|| general.clone(), |site| general.placed(site, isolation));
        let list_price = match version.resolve(&sku).map(|entry| entry.sku.clone()) {
            // A price that follows an index has none while no level is published.
            Some(sku) => Tariff::since(tx, &self.cloud, (version.clone(), sku), new.units, *now).await?.per_hour(*now).ok(),
            None => None,
        };
        let price = would_pay((new.max_price, list_price), new.max_cost, (new.units, *wanted));
        let ask = Ask {
            project: (*project).clone(),
            hour: *hour,
            asked_at: *now,
            notice: new.notice,
            reason: *reason,
            units: new.units,
            wanted: *wanted,
            price,
        };
        let stored = StoredAsk { kind: new.kind.clone(), ask, site: new.site.clone(), currency: account.currency };
        unfilled::keep(tx, &stored).await.map(|_| ())
    }
}

struct Asked<'a> {
    organization: &'a OrganizationId,
    project: &'a ProjectId,
    new: &'a NewQuote,
    hour: Timestamp,
    wanted: DurationMs,
    reason: UnfilledReason,
    now: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_keeps_what_is_larger_than_what_it_kept_in_the_hour() {
        let remembered = Remembered::default();
        let place = |project: &str| {
            let project = project.parse().expect("a project");
            (project, "cpu".parse().expect("a kind"), NoticeClass::N1h, UnfilledReason::NotEnough)
        };
        let price = |nanos| Some(Nanos::new(nanos));
        let hour = Timestamp::from_seconds(3_600);
        let told: Vec<News> =
            [("proj_1", 5, None), ("proj_1", 5, None), ("proj_1", 4, price(9)), ("proj_1", 5, price(1)), ("proj_2", 1, None)]
                .into_iter()
                .map(|(project, size, price)| remembered.note(hour, &place(project), (size, price, None)))
                .collect();
        assert_eq!(told, [News::FirstOfHour, News::None, News::None, News::Larger, News::Larger]);
        let mut writes = 0;
        for units in 100..10_000 {
            let news = remembered.note(hour, &place("proj_1"), (units, price(units), None));
            writes += usize::from(news != News::None);
        }
        assert!(writes < 60, "who asks for one more each time wrote {writes} times");
        assert_eq!(remembered.note(Timestamp::from_seconds(7_200), &place("proj_1"), (1, None, None)), News::FirstOfHour);
    }

    #[test]
    fn what_was_asked_wrongly_is_no_demand() {
        let error = |code| Error::new(code, "no");
        let capacity = |reason| reason_of(&error(ErrorCode::CapacityUnavailable).reason(reason));
        assert_eq!(capacity("not_idle"), Some(UnfilledReason::NotEnough));
        assert_eq!(capacity("no_curve"), Some(UnfilledReason::ClassWithdrawn));
        assert_eq!(capacity("reserved"), Some(UnfilledReason::Kept));
        assert_eq!(reason_of(&error(ErrorCode::PolicyRefused).reason("isolation")), Some(UnfilledReason::Isolation));
        assert_eq!(reason_of(&error(ErrorCode::PolicyRefused).reason("unknown_site")), None);
        assert_eq!(reason_of(&error(ErrorCode::PriceAboveMaximum)), Some(UnfilledReason::Price));
        for code in [ErrorCode::InvalidRequest, ErrorCode::InsufficientQuota, ErrorCode::Conflict, ErrorCode::StoreUnavailable] {
            assert_eq!(reason_of(&error(code)), None, "{code}");
        }
    }
}
