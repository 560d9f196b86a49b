//! Quotes: what capacity costs and where it would go, binding for a while.
//!
//! A quote pins the price and proves that the request can be placed as asked. The placement is
//! proven again when it is taken: capacity is not kept free for quotes.

use std::collections::BTreeMap;

use sublet_capacity::Request;
use sublet_core::device::DeviceKind;
use sublet_core::id::{QuoteId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::quote::{QuoteState, QuoteTerms};
use sublet_core::runner::IsolationLevel;
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::period::{BillingCalendar, Interval};
use sublet_store::organization::{self, Organization};
use sublet_store::quote::{self, Quote};
use sublet_store::{Page, PageRequest, Tx, project};

use crate::audit::Deed;
use crate::compute::{Compute, Tariff, sum};
use crate::idempotency::{Answer, Call, Render};
use crate::offering::DeviceShelf;
use crate::placed_price::{Ask, Offer};
use crate::why::{Explanation, Fact};
use crate::{Action, Actor, Cloud};

/// Most units in one request.
pub const UNITS_MAX: u32 = 10_000;
/// Longest window of a lease.
pub const WINDOW_MAX: DurationMs = DurationMs::from_hours(24 * 366 * 3);
/// Most entries of metadata, and the bytes of one key or value.
pub const METADATA_ENTRIES_MAX: usize = 16;
pub const METADATA_BYTES_MAX: usize = 512;

/// What somebody wants to lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewQuote {
    pub kind: DeviceKind,
    pub units: u32,
    pub notice: NoticeClass,
    /// A hard constraint; `None` is anywhere.
    pub site: Option<SiteId>,
    /// A hard constraint: the weakest separation that is good enough, where the owner demands no stronger one.
    pub isolation: Option<IsolationLevel>,
    /// The lease ends by itself after this.
    pub max_duration: Option<DurationMs>,
    /// The lease ends before it costs more.
    pub max_cost: Option<Nanos>,
    /// The lease ends before an hour of a device costs more.
    pub max_price: Option<Nanos>,
    pub metadata: BTreeMap<String, String>,
}

impl Compute {
    /// Makes a binding offer, or says why there is none and what would work.
    pub async fn create_quote(&self, call: &Call, new: &NewQuote, render: &Render<Quote>) -> Result<Answer<Quote>> {
        call.actor.require(Action::UseCompute)?;
        let now = self.now();
        let outcome = self
            .cloud
            .once(call, render, (self, &call.actor, new), move |(compute, actor, new), tx| {
                Box::pin(compute.quote_in(tx, actor, (new, true), now))
            })
            .await;
        self.noting(&call.actor, new, outcome).await
    }

    pub async fn get_quote(&self, actor: &Actor, id: &QuoteId) -> Result<Quote> {
        actor.require(Action::UseCompute)?;
        self.cloud.store.read((actor, id), |(actor, id), tx| Box::pin(quote::get(tx, &actor.scope, id))).await
    }

    pub async fn list_quotes(&self, actor: &Actor, page: &PageRequest) -> Result<Page<Quote>> {
        actor.require(Action::UseCompute)?;
        self.cloud.store.read((actor, page), |(actor, page), tx| Box::pin(quote::list(tx, &actor.scope, page))).await
    }

    /// What a job that ran before asks for does not pay for its start again.
    pub(crate) async fn quote_in(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        (new, pays_start): (&NewQuote, bool),
        now: Timestamp,
    ) -> Result<Quote> {
        check_new(new)?;
        let (organization_id, project_id) = actor.project()?;
        if project::get(tx, &actor.scope, project_id).await?.archived {
            return Err(Error::new(ErrorCode::Conflict, format!("project '{project_id}' is archived")));
        }
        let organization = organization::get(tx, &actor.scope, organization_id).await?;
        let terms = self.terms_in(tx, &organization, (new, pays_start), now).await?;
        let expires_at = now.plus(self.settings.quote_life);
        let quote = Quote {
            id: self.cloud.ids.mint(),
            organization: organization_id.clone(),
            project: project_id.clone(),
            terms,
            state: QuoteState::Open { expires_at },
            lease: None,
            expires_at,
            created_at: now,
            metadata: new.metadata.clone(),
        };
        quote::insert(tx, &quote).await?;
        let detail = format!("{} {} at {}", new.units, new.kind, new.notice);
        let deed = Deed { organization: Some(organization_id), action: "quote.create", target: quote.id.as_str(), detail };
        self.cloud.record(tx, actor, deed, now).await?;
        Ok(quote)
    }

    /// Refuses a maximum price that could not be kept: one that the price is above, or is before a lease could be told.
    pub(crate) fn check_price(
        &self,
        tariff: &Tariff,
        calendar: &BillingCalendar,
        notice: NoticeClass,
        now: Timestamp,
    ) -> Result<()> {
        let needed = sum([self.settings.hold_interval, self.settings.stop_span(notice)]);
        let Some(too_dear_from) = tariff.too_dear_from(calendar, Interval { starts_at: now, ends_at: now.plus(needed) })? else {
            return Ok(());
        };
        let (message, instead) = match tariff.lead() {
            Some(lead) if lead < needed => {
                let (ahead, needed) = (lead.seconds_ceil(), needed.seconds_ceil());
                let message = format!("the price is known {ahead} seconds ahead, and a lease at notice {notice} needs {needed}");
                (message, "ask for a shorter notice".to_owned())
            }
            Some(_) | None => {
                let (price, currency) = (tariff.per_hour(too_dear_from)?, tariff.version.currency());
                let message = format!("a device-hour costs {price} {currency} from {too_dear_from} on, more than the maximum");
                (message, format!("give a maximum price of at least {price} {currency}"))
            }
        };
        Err(Error::new(ErrorCode::PriceAboveMaximum, message).param("maximum_price").alternative(instead))
    }

    async fn terms_in(
        &self,
        tx: &mut Tx,
        organization: &Organization,
        (new, pays_start): (&NewQuote, bool),
        now: Timestamp,
    ) -> Result<QuoteTerms> {
        self.cloud.follow_changes(tx).await?;
        let shelf = DeviceShelf::read(tx, Some(&organization.id), now).await?;
        shelf.check(&self.cloud, (&new.kind, new.notice), new.max_duration)?;
        let request = self.request_of(organization, new);
        let (snapshot, calendar) = (self.snapshot(tx).await?, BillingCalendar::new(&organization.time_zone)?);
        let version = self.cloud.prices.in_force_for((&organization.id, organization.currency), now)?;
        let is_sold = |kind: &DeviceKind, notice| shelf.sells((&self.cloud, &version), (kind, notice), new.max_duration);
        let ask = Ask { snapshot: &snapshot, version: &version, calendar: &calendar, max_price: new.max_price, now };
        let Offer { place, tariff, per_hour } = match self.offer(tx, ask, &request).await? {
            Ok(offer) => offer,
            Err(refusal) => return Err(self.refused(tx, ask, (&request, refusal), is_sold).await?),
        };
        let hold = self.first_hold(&tariff, (ask, new), new.notice)?;
        let start = tariff.version.start_price(&new.kind)?.filter(|_| pays_start);
        let with_start = |amount: Nanos| amount.checked_add(start.unwrap_or(Nanos::ZERO));
        let needed = with_start(hold)?;
        if let Some(max_cost) = new.max_cost.filter(|max_cost| *max_cost < needed) {
            let mut shorter = Vec::new();
            for notice in NoticeClass::ALL.into_iter().filter(|notice| *notice < new.notice && is_sold(&new.kind, *notice)) {
                let there = Request { notice, site: Some(place.site.clone()), ..request.clone() };
                let choices = self.choices(tx, ask, &there).await?;
                for choice in choices {
                    shorter.push((notice, with_start(self.first_hold(&choice.tariff, (ask, new), notice)?)?));
                }
            }
            return Err(too_dear(new, tariff.version.currency(), (needed, max_cost), &shorter));
        }
        Ok(QuoteTerms {
            kind: new.kind.clone(),
            units: new.units,
            notice: new.notice,
            holder: request.holder,
            site: place.site,
            node: place.node,
            isolation: request.isolation,
            price_version: tariff.version.version().clone(),
            currency: organization.currency,
            price_per_hour: per_hour,
            window_cost: new.max_duration.map(|span| with_start(tariff.most(span)?)).transpose()?,
            hold,
            start,
            max_duration: new.max_duration,
            max_cost: new.max_cost,
            max_price: new.max_price,
            seen: place.figures,
        })
    }

    /// What is asked for: the isolation is the stronger of what the caller and the owner demand.
    fn request_of(&self, organization: &Organization, new: &NewQuote) -> Request {
        let holder = Holder::from(organization.class);
        let required = self.settings.required_isolation(holder);
        Request {
            kind: new.kind.clone(),
            units: new.units,
            notice: new.notice,
            holder,
            site: new.site.clone(),
            isolation: new.isolation.map_or(required, |wanted| wanted.max(required)),
        }
    }

    /// What a lease needs at first: it may be taken as long as the quote stands, and its work begin a while after.
    fn first_hold(&self, tariff: &Tariff, (ask, new): (Ask<'_>, &NewQuote), notice: NoticeClass) -> Result<Nanos> {
        let latest = ask.now.plus(sum([self.settings.quote_life, self.settings.unused_max]));
        tariff.first_hold(ask.calendar, (ask.now, latest), self.settings.first_cover(notice, new.max_duration))
    }
}

/// The refusal that says what the shortest lease needs, and which notice would fit the maximum. `shorter` are notices
/// with what they need, the shortest first.
fn too_dear(new: &NewQuote, currency: Currency, (hold, max_cost): (Nanos, Nanos), shorter: &[(NoticeClass, Nanos)]) -> Error {
    let error = Error::new(
        ErrorCode::PriceAboveMaximum,
        format!(
            "{} {} at notice {} needs {hold} {currency} set aside for its first interval with notice and grace, \
             and the maximum cost is {max_cost} {currency}",
            new.units, new.kind, new.notice
        ),
    )
    .param("maximum_cost")
    .alternative(format!("give a maximum cost of at least {hold} {currency}"));
    match shorter.iter().rev().find(|(_, hold)| *hold <= max_cost) {
        Some((notice, _)) => error.alternative(format!("ask for notice {notice}")),
        None => error,
    }
}

fn check_new(new: &NewQuote) -> Result<()> {
    let refuse = |param: &str, reason: String| Err(Error::new(ErrorCode::InvalidRequest, reason).param(param));
    if new.units == 0 || new.units > UNITS_MAX {
        return refuse("units", format!("a lease has between 1 and {UNITS_MAX} units"));
    }
    if new.max_cost.is_some_and(|cost| cost <= Nanos::ZERO) {
        return refuse("maximum_cost", "a maximum cost is positive".to_owned());
    }
    if new.max_price.is_some_and(|price| price <= Nanos::ZERO) {
        return refuse("maximum_price", "a maximum price is positive".to_owned());
    }
    check_metadata(&new.metadata)?;
    let term = new.notice.minimum_term();
    match new.max_duration {
        Some(window) if window <= DurationMs::ZERO || window > WINDOW_MAX => {
            refuse("maximum_seconds", format!("a window has between 1 and {} seconds", WINDOW_MAX.seconds_ceil()))
        }
        Some(window) if window < term => {
            let fitting = NoticeClass::ALL.into_iter().rev().find(|class| class.minimum_term() <= window);
            Err(Error::new(
                ErrorCode::InvalidRequest,
                format!("a lease at notice {} lives at least {} seconds", new.notice, term.seconds_ceil()),
            )
            .param("maximum_seconds")
            .alternative(format!("ask for notice {}", fitting.unwrap_or(NoticeClass::N0))))
        }
        None if new.notice == NoticeClass::Firm => refuse(
            "maximum_seconds",
            format!("a firm lease is promised for a window: name one of at least {} seconds", term.seconds_ceil()),
        ),
        Some(_) | None => Ok(()),
    }
}

pub(crate) fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<()> {
    let too_long = metadata.iter().any(|(key, value)| key.len() > METADATA_BYTES_MAX || value.len() > METADATA_BYTES_MAX);
    if metadata.len() > METADATA_ENTRIES_MAX || too_long {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            format!("metadata has at most {METADATA_ENTRIES_MAX} entries of at most {METADATA_BYTES_MAX} bytes"),
        )
        .param("metadata"));
    }
    Ok(())
}

impl Cloud {
    pub(crate) async fn why_quote(&self, actor: &Actor, id: &QuoteId) -> Result<Explanation> {
        let quote = self.store.read((actor, id), |(actor, id), tx| Box::pin(quote::get(tx, &actor.scope, id))).await?;
        let (terms, state) = (&quote.terms, quote.state.at(self.now()));
        let money = |amount: Nanos| format!("{amount} {}", terms.currency);
        let mut facts = vec![
            Fact::new("price per device-hour", money(terms.price_per_hour)),
            Fact::new("price version", &terms.price_version.0),
            Fact::new("hold needed", money(terms.hold)),
            Fact::new("placed on", format!("{} at {}", terms.node, terms.site)).made_of(vec![
                Fact::new("healthy units", terms.seen.healthy),
                Fact::new("idle units", terms.seen.idle),
                Fact::new("kept for the owner's teams", terms.seen.kept),
                Fact::new("could be leased at this notice", terms.seen.sellable),
                Fact::new("largest request that could be placed", terms.seen.largest),
            ]),
            Fact::new("isolation required", terms.isolation.as_str()),
            Fact::new("expires at", quote.expires_at),
        ];
        facts.extend(terms.start.map(|start| Fact::new("start of a job", money(start))));
        facts.extend(terms.max_cost.map(|cost| Fact::new("maximum cost", money(cost))));
        facts.extend(terms.max_price.map(|price| Fact::new("maximum price per device-hour", money(price))));
        Ok(Explanation {
            id: id.to_string(),
            summary: format!("{} {} at notice {}; the quote is {}", terms.units, terms.kind, terms.notice, state.as_str()),
            rule: "a request is placed whole on one machine, from the idle units less what the owner keeps for its own teams; \
                   the price is that of its site and isolation in the list in force when the quote was made"
                .to_owned(),
            facts,
            related: quote.lease.iter().map(ToString::to_string).collect(),
        })
    }
}
