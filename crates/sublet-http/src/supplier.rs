//! Suppliers outside: costs and margins for the operator, and what an organization permits.

use sublet_api::money::Amount;
use sublet_api::object::{MarginsTag, ReplicaCostTag};
use sublet_api::supplier as wire;
use sublet_api::usage::UsageQuery;
use sublet_cloud::data::{BillingCalendar, MarginRow, ReplicaRow, StoredCost};
use sublet_cloud::idempotency::Answer as Once;
use sublet_cloud::supplier::NewCost;
use sublet_core::id::ReplicaId;
use sublet_core::supplier::{DataConsent, PerMille, SupplierPolicy};
use sublet_core::supply::ReplicaSource;
use sublet_core::{Error, Rate, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::usage::interval;
use crate::wire::{count, money};

/// A policy as a body says it.
pub fn policy(said: wire::SupplierPolicy) -> SupplierPolicy {
    SupplierPolicy { retention: said.retention, used_for_training: said.used_for_training, region: said.region }
}

fn policy_to_wire(data: &SupplierPolicy) -> wire::SupplierPolicy {
    wire::SupplierPolicy { retention: data.retention, used_for_training: data.used_for_training, region: data.region.clone() }
}

/// The terms of a replica, and how it stands now; none for one of the fleet.
pub fn supply_to_wire(app: &App, row: &ReplicaRow) -> Option<wire::ReplicaSupply> {
    if row.replica.source == ReplicaSource::Fleet {
        return None;
    }
    let standing = app.cloud.standing(&row.replica.id).unwrap_or_default();
    let terms = row.replica.terms.as_ref();
    let tiers = standing.tiers.iter().map(|tier| wire::TierMargin {
        service_tier: tier.tier,
        margin_permille: tier.margin,
        refused: tier.objection.map(|objection| objection.to_string()),
    });
    Some(wire::ReplicaSupply {
        supplier: terms.map(|terms| terms.supplier.clone()),
        data_policy: terms.map(|terms| policy_to_wire(&terms.data)),
        min_margin_permille: terms.map_or(0, |terms| terms.margin_min.get()),
        cost_version: standing.cost.as_ref().map(|cost| cost.version.clone()),
        tiers: tiers.collect(),
    })
}

/// A least margin as a body says it.
pub fn margin_min(said: Option<u16>) -> Result<Option<PerMille>> {
    said.map(PerMille::try_from).transpose().map_err(|error: Error| error.param("min_margin_permille"))
}

fn cost_to_wire(stored: &StoredCost) -> wire::ReplicaCost {
    let content = stored.cost.content();
    wire::ReplicaCost {
        object: ReplicaCostTag,
        version: stored.cost.version().clone(),
        replica: content.replica.clone(),
        supplier: content.supplier.clone(),
        model: content.model.to_string(),
        currency: content.currency,
        effective_at: content.effective_at.into(),
        input: Amount(content.input),
        cached_input: Amount(content.cached_input),
        output: Amount(content.output),
        created_at: stored.created_at.into(),
    }
}

pub async fn list_costs(app: App, context: Context) -> Result<Answer> {
    let id: ReplicaId = context.path("id")?;
    let costs = app.cloud.list_costs(&context.actor, &id).await?;
    json(&sublet_api::List::whole(costs.iter().map(cost_to_wire).collect()))
}

pub async fn set_cost(app: App, context: Context) -> Result<Answer> {
    let replica: ReplicaId = context.path("id")?;
    let body: wire::SetReplicaCost = context.body()?;
    let new = NewCost {
        replica: replica.clone(),
        currency: body.currency,
        effective_at: body.effective_at.map(|at| at.0),
        input: body.input.0,
        cached_input: body.cached_input.map(|amount| amount.0),
        output: body.output.0,
    };
    let stored = match app.cloud.set_cost(&context.call()?, new).await? {
        Once::New(stored) => stored,
        Once::Replayed(version) => {
            let costs = app.cloud.list_costs(&context.actor, &replica).await?;
            let known = costs.into_iter().find(|stored| *stored.cost.version().0 == *version);
            known.ok_or_else(|| Error::internal("a cost that was set is not there"))?
        }
    };
    json(&cost_to_wire(&stored))
}

fn margin_to_wire(row: MarginRow) -> Result<wire::MarginLine> {
    // Both are whole amounts: the rate of one for the other.
    let of = |amount: sublet_core::Nanos| Rate::new(amount.max(sublet_core::Nanos::ZERO), 1);
    let earned = row.revenue > sublet_core::Nanos::ZERO;
    let share = sublet_core::supplier::margin_per_mille(of(row.cost)?, of(row.revenue)?).filter(|_| earned);
    Ok(wire::MarginLine {
        model: row.model,
        supplier: row.supplier,
        purchases: count(row.purchases)?,
        unsold: count(row.unsold)?,
        input_tokens: count(row.input_tokens)?,
        cached_input_tokens: count(row.cached_input_tokens)?,
        output_tokens: count(row.output_tokens)?,
        revenue: money(row.revenue, row.currency),
        cost: money(row.cost, row.currency),
        margin: money(row.revenue.checked_sub(row.cost)?, row.currency),
        margin_permille: share,
    })
}

/// By model and supplier; of the running month in UTC if no time is given.
pub async fn margins(app: App, context: Context) -> Result<Answer> {
    let interval = match interval(&context.query::<UsageQuery>()?)? {
        Some(interval) => interval,
        None => BillingCalendar::new("UTC")?.period_at(app.cloud.clock().now())?.interval,
    };
    let rows = app.cloud.margins(&context.actor, interval.starts_at, interval.ends_at).await?;
    json(&wire::Margins {
        object: MarginsTag,
        start_time: interval.starts_at.into(),
        end_time: interval.ends_at.into(),
        lines: rows.into_iter().map(margin_to_wire).collect::<Result<_>>()?,
    })
}

pub async fn set_data_policy(app: App, context: Context) -> Result<Answer> {
    let body: wire::DataPermission = context.body()?;
    let consent = DataConsent { external: body.external, regions: body.regions };
    let organization = app.cloud.set_data_consent(&context.actor, consent).await?;
    json(&crate::organization::to_wire(&organization))
}
