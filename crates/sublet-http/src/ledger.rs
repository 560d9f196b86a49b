//! The books: verification, accounts, export, earnings, quarantine.

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use sublet_api::ledger as wire;
use sublet_api::list::{Cursor, ListQuery};
use sublet_api::money::Amount;
use sublet_api::object::{EarningsTag, GatewayLossTag, LedgerAccountTag, LedgerVerificationTag, QuarantineTag};
use sublet_api::usage::UsageQuery;
use sublet_cloud::data::{JournalFormat, StoredAccount};
use sublet_cloud::lost_gateway::GatewayAnswer;
use sublet_core::id::GatewayId;
use sublet_core::{Currency, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_request};
use crate::usage::interval;
use crate::wire::{SkuParts, count, money, sku_parts};

pub async fn verify(app: App, context: Context) -> Result<Answer> {
    let verification = app.cloud.verify_ledger(&context.actor).await?;
    json(&wire::LedgerVerification {
        object: LedgerVerificationTag,
        balanced: verification.balanced(),
        as_of: verification.as_of.into(),
        accounts: verification.accounts,
        transfers: verification.transfers,
        charges: verification.charges,
        currencies: verification
            .totals
            .iter()
            .map(|(currency, debits, credits)| wire::CurrencyTotals {
                currency: *currency,
                debits: Amount(*debits),
                credits: Amount(*credits),
            })
            .collect(),
        findings: verification.findings,
    })
}

fn account_to_wire(stored: &StoredAccount) -> wire::LedgerAccount {
    wire::LedgerAccount {
        object: LedgerAccountTag,
        name: stored.account.to_string(),
        organization: stored.account.organization().cloned(),
        currency: stored.currency,
        debits_posted: Amount(stored.totals.debits),
        credits_posted: Amount(stored.totals.credits),
    }
}

pub async fn list_accounts(app: App, context: Context) -> Result<Answer> {
    let query: wire::LedgerAccountListQuery = context.query()?;
    let after = query.after.as_ref().map_or("", |cursor| cursor.0.as_str());
    let limit = usize::try_from(query.page().limit.get()).unwrap_or(1);
    let accounts = app.cloud.list_ledger_accounts(&context.actor, after).await?;
    let wanted: Vec<_> = accounts
        .iter()
        .filter(|stored| query.organization.is_none() || stored.account.organization() == query.organization.as_ref())
        .map(account_to_wire)
        .collect();
    let has_more = wanted.len() > limit;
    let page: Vec<_> = wanted.into_iter().take(limit).collect();
    json(&sublet_api::List::page(page, has_more, |account| account.name.clone()))
}

/// Streams the journal piece by piece, so that memory stays bounded.
pub async fn export(app: App, context: Context) -> Result<Answer> {
    let query: wire::LedgerExportQuery = context.query()?;
    let format = match query.format {
        wire::ExportFormat::Beancount => JournalFormat::Beancount,
        wire::ExportFormat::Hledger => JournalFormat::Hledger,
    };
    let export = app.cloud.export_ledger(&context.actor, format)?;
    let pieces = stream::try_unfold(export, |mut export| async move {
        let piece = export.next().await?;
        Ok::<_, sublet_core::Error>(piece.map(|text| (Bytes::from(text), export)))
    });
    Ok(Answer::Stream(Body::from_stream(pieces)))
}

pub async fn earnings(app: App, context: Context) -> Result<Answer> {
    let interval = match interval(&context.query::<UsageQuery>()?)? {
        Some(interval) => interval,
        None => sublet_cloud::data::BillingCalendar::new("UTC")?.period_at(app.cloud.clock().now())?.interval,
    };
    let sums = app.cloud.earnings(&context.actor, interval.starts_at, interval.ends_at).await?;
    let mut totals: std::collections::BTreeMap<Currency, Nanos> = std::collections::BTreeMap::new();
    let mut lines = Vec::with_capacity(sums.len());
    for sum in sums {
        let total = totals.entry(sum.currency).or_default();
        *total = total.checked_add(sum.amount)?;
        let SkuParts { subject, meter, service_tier, .. } = sku_parts(&sum.sku);
        let (quantity, earned) = (count(sum.quantity)?, money(sum.amount, sum.currency));
        lines.push(wire::EarningsLine { organization: sum.organization, subject, meter, service_tier, quantity, earned });
    }
    json(&wire::Earnings {
        object: EarningsTag,
        start_time: interval.starts_at.into(),
        end_time: interval.ends_at.into(),
        lines,
        totals: totals.into_iter().map(|(currency, total)| money(total, currency)).collect(),
    })
}

pub async fn quarantine(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let page = app.cloud.list_quarantine(&context.actor, &page_request(&asked)?).await?;
    let data = page
        .items
        .into_iter()
        .map(|event| wire::QuarantineEntry {
            object: QuarantineTag,
            id: Cursor(event.record.request.to_string()),
            reason: event.quarantine.unwrap_or_default(),
            record: serde_json::to_value(&event.record).unwrap_or_default(),
            created_at: event.record.finished_at.into(),
        })
        .collect();
    json(&sublet_api::List::page(data, page.has_more, |entry| entry.id.0.clone()))
}

pub async fn answer_gateway(app: App, context: Context) -> Result<Answer> {
    let wire::AnswerGateway { action, note } = context.body()?;
    let gateway: GatewayId = context.path("id")?;
    let answer = match action {
        wire::GatewayAction::Lost => GatewayAnswer::Lost,
        wire::GatewayAction::WriteOff => GatewayAnswer::WriteOff,
    };
    let loss = app.cloud.answer_gateway(&context.actor, &gateway, (answer, &note)).await?;
    let moved = loss.moved.into_iter().map(|(currency, amount)| money(amount, currency)).collect();
    json(&wire::GatewayLoss { object: GatewayLossTag, gateway, action, slices: loss.slices, moved })
}
