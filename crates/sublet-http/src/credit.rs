//! Credit: balances and grants.

use sublet_api::credit as wire;
use sublet_api::list::ListQuery;
use sublet_api::object::{CreditBalanceTag, CreditGrantTag, Metadata};
use sublet_cloud::credit::{CreditBalance, NewCredit};
use sublet_cloud::data::CreditGrant;
use sublet_cloud::data::{CreditKind, CreditScope, CreditTerms, SkuFamily};
use sublet_core::id::OrganizationId;
use sublet_core::{Error, ErrorCode, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::wire::{money, no_metadata};

fn balance_to_wire(balance: &CreditBalance) -> wire::CreditBalance {
    let funds = &balance.funds;
    let money = |amount: Nanos| money(amount, balance.currency);
    wire::CreditBalance {
        object: CreditBalanceTag,
        organization: balance.organization.clone(),
        deposited: money(funds.deposited),
        credit_limit: money(funds.credit_limit),
        owed: money(funds.owed),
        available: money(funds.available),
        sliced: money(funds.sliced),
        held: money(funds.held),
        captured: money(funds.captured),
        suspense: money(funds.suspense),
        expired: money(funds.expired),
        refunded: money(funds.refunded),
        tax_prepaid: Some(funds.tax_prepaid).filter(|amount| !amount.is_zero()).map(money),
        taxed: Some(funds.taxed).filter(|amount| !amount.is_zero()).map(money),
    }
}

pub const fn kind_to_wire(kind: CreditKind) -> wire::CreditKind {
    match kind {
        CreditKind::Paid => wire::CreditKind::Paid,
        CreditKind::Promotional => wire::CreditKind::Promotional,
        CreditKind::Committed => wire::CreditKind::Committed,
    }
}

pub const fn kind_from_wire(kind: wire::CreditKind) -> CreditKind {
    match kind {
        wire::CreditKind::Paid => CreditKind::Paid,
        wire::CreditKind::Promotional => CreditKind::Promotional,
        wire::CreditKind::Committed => CreditKind::Committed,
    }
}

const fn scope_to_wire(scope: CreditScope) -> wire::CreditScope {
    match scope {
        // No credit is for fees or files alone.
        CreditScope::All
        | CreditScope::Family(SkuFamily::ProjectFees | SkuFamily::OneTimeFees | SkuFamily::FileStorage | SkuFamily::FileEgress) => {
            wire::CreditScope::All
        }
        CreditScope::Family(SkuFamily::ModelTokens | SkuFamily::ModelRequests) => wire::CreditScope::ModelTokens,
        CreditScope::Family(SkuFamily::DeviceTime | SkuFamily::JobStarts) => wire::CreditScope::DeviceTime,
        CreditScope::Covered(_) => wire::CreditScope::Contract,
    }
}

fn scope_from_wire(scope: wire::CreditScope) -> Result<CreditScope> {
    match scope {
        wire::CreditScope::All => Ok(CreditScope::All),
        wire::CreditScope::ModelTokens => Ok(CreditScope::Family(SkuFamily::ModelTokens)),
        wire::CreditScope::DeviceTime => Ok(CreditScope::Family(SkuFamily::DeviceTime)),
        wire::CreditScope::Contract => {
            Err(Error::new(ErrorCode::InvalidRequest, "only credit of a contract is for what that covers")
                .param("scope")
                .alternative("use all, model_tokens or device_time"))
        }
    }
}

fn grant_to_wire(grant: &CreditGrant) -> wire::CreditGrant {
    let kind = CreditKind::ALL.into_iter().find(|kind| kind.as_str() == grant.kind);
    wire::CreditGrant {
        object: CreditGrantTag,
        id: grant.id.clone(),
        organization: grant.organization.clone(),
        kind: kind.map_or(wire::CreditKind::Promotional, kind_to_wire),
        amount: money(grant.amount, grant.currency),
        reference: Some(grant.reference.clone()).filter(|reference| !reference.is_empty()),
        expires_at: grant.terms.expires_at.map(Into::into),
        priority: grant.terms.priority,
        scope: scope_to_wire(grant.terms.scope),
        remaining: grant.remaining.map(|remaining| money(remaining, grant.currency)),
        created_at: grant.created_at.into(),
        metadata: Metadata::default(),
    }
}

pub async fn get_own(app: App, context: Context) -> Result<Answer> {
    let organization = context.actor.organization()?;
    json(&balance_to_wire(&app.cloud.credit_balance(&context.actor, organization).await?))
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let organization: OrganizationId = context.path("id")?;
    json(&balance_to_wire(&app.cloud.credit_balance(&context.actor, &organization).await?))
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let page = app.cloud.list_credit(&context.actor, context.actor.organization()?, &page_request(&asked)?).await?;
    page_answer(&asked, page, |grant| grant_to_wire(&grant), |wire| wire.id.to_string())
}

pub async fn grant(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateCreditGrant = context.body()?;
    no_metadata(&body.metadata)?;
    let usual = CreditTerms::default();
    let new = NewCredit {
        organization: context.path("id")?,
        kind: kind_from_wire(body.kind),
        amount: body.amount.nanos(),
        currency: Some(body.amount.currency),
        reference: body.reference.unwrap_or_default(),
        terms: CreditTerms {
            priority: body.priority.unwrap_or(usual.priority),
            expires_at: body.expires_at.map(|at| at.0),
            scope: body.scope.map_or(Ok(usual.scope), scope_from_wire)?,
        },
    };
    let outcome = app.cloud.grant_credit(&context.call()?, &new, &|grant| text_of(&grant_to_wire(grant))).await?;
    once(outcome, grant_to_wire)
}
