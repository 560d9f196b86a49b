//! Quotes.

use sublet_api::Money;
use sublet_api::object::QuoteTag;
use sublet_api::quote as wire;
use sublet_api::sku::SkuName;
use sublet_cloud::data::Quote;
use sublet_cloud::quote::NewQuote;
use sublet_core::id::QuoteId;
use sublet_core::quote::{QuoteState, QuoteTerms};
use sublet_core::{DurationMs, Error, ErrorCode, Nanos, Result, Timestamp};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::sku::device_kind;
use crate::wire::{count, metadata, money};

fn to_wire(quote: &Quote, now: Timestamp) -> Result<wire::Quote> {
    let terms = &quote.terms;
    Ok(wire::Quote {
        object: QuoteTag,
        id: quote.id.clone(),
        project: quote.project.clone(),
        status: match quote.state.at(now) {
            QuoteState::Open { .. } => wire::QuoteStatus::Open,
            QuoteState::Accepted => wire::QuoteStatus::Accepted,
            QuoteState::Expired => wire::QuoteStatus::Expired,
        },
        sku: SkuName(terms.kind.to_string()),
        units: terms.units,
        notice: terms.notice,
        site: terms.site.clone(),
        isolation: terms.isolation,
        price: money(terms.price_per_hour, terms.currency),
        price_version: terms.price_version.clone(),
        // Only time on devices is charged, so a lease that is ended at once costs nothing.
        minimum_seconds: 0,
        maximum_seconds: terms.max_duration.map(|span| count(span.seconds_ceil())).transpose()?,
        minimum_cost: money(Nanos::ZERO, terms.currency),
        maximum_cost: most(terms),
        maximum_price: terms.max_price.map(|most| money(most, terms.currency)),
        hold: money(terms.hold.checked_add(terms.start.unwrap_or(Nanos::ZERO))?, terms.currency),
        start_price: terms.start.map(|start| money(start, terms.currency)),
        lease: quote.lease.clone(),
        created_at: quote.created_at.into(),
        expires_at: quote.expires_at.into(),
        metadata: metadata(&quote.metadata)?,
    })
}

/// The most a lease can cost: its own maximum, or its whole window.
fn most(terms: &QuoteTerms) -> Option<Money> {
    let most = match (terms.window_cost, terms.max_cost) {
        (Some(window), Some(maximum)) => Some(window.min(maximum)),
        (window, maximum) => window.or(maximum),
    };
    most.map(|most| money(most, terms.currency))
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateQuote = context.body()?;
    let organization = app.cloud.account_of(&context.actor).await?;
    for (most, param) in [(body.maximum_cost, "maximum_cost"), (body.maximum_price, "maximum_price")] {
        if most.is_some_and(|most| most.currency != organization.currency) {
            let message = format!("the account is kept in {}", organization.currency);
            return Err(Error::new(ErrorCode::CurrencyMismatch, message).param(param));
        }
    }
    let seconds = body.maximum_seconds.map(i64::try_from).transpose();
    let seconds = seconds
        .map_err(|_| Error::new(ErrorCode::InvalidRequest, "a window this long cannot be leased").param("maximum_seconds"))?;
    let new = NewQuote {
        kind: device_kind(&app, &context.actor, body.sku.as_str()).await?,
        units: body.units,
        notice: body.notice,
        site: body.site,
        isolation: body.isolation,
        max_duration: seconds.map(DurationMs::from_seconds),
        max_cost: body.maximum_cost.map(|most| most.nanos()),
        max_price: body.maximum_price.map(|most| most.nanos()),
        metadata: body.metadata.pairs().clone(),
    };
    let now = app.cloud.clock().now();
    let outcome = app.compute.create_quote(&context.call()?, &new, &move |quote| text_of(&to_wire(quote, now)?)).await?;
    once(outcome, |quote| to_wire(quote, now).ok())
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: QuoteId = context.path("id")?;
    json(&to_wire(&app.compute.get_quote(&context.actor, &id).await?, app.cloud.clock().now())?)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::QuoteListQuery = context.query()?;
    if query.status.is_some() {
        return Err(Error::new(ErrorCode::UnsupportedField, "quotes cannot be filtered by status yet").param("status"));
    }
    let asked = query.page();
    let now = app.cloud.clock().now();
    let page = app.compute.list_quotes(&context.actor, &page_request(&asked)?).await?;
    let quotes = page.items.iter().map(|quote| to_wire(quote, now)).collect::<Result<Vec<_>>>()?;
    let page = sublet_cloud::data::Page { items: quotes, has_more: page.has_more };
    page_answer(&asked, page, |wire| wire, |wire| wire.id.to_string())
}
