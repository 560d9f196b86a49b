//! Which replicas a request may be sent to: all of the fleet, and those suppliers whose cost leaves the least margin of
//! the caller's price, whose handling of data the caller's organization permits, and who keep what the model's card
//! promises.
//!
//! Invariants: a supplier without a cost in force is never asked; what is forbidden is never relaxed, but said, with
//! what would work. Costs and margins are the owner's business: an error names neither.

use std::sync::Arc;

use sublet_core::admission::{Access, TokenPrices};
use sublet_core::card::ModelCard;
use sublet_core::supplier::{ExternalSupply, Objection, SupplierPolicy, check_margin, cost_at};
use sublet_core::supply::{RemoteModel, Replica, ReplicaSource, ReplicaState};
use sublet_core::tier::ServiceTier;
use sublet_core::{Error, ErrorCode, Result, Timestamp};

use super::purchase::Bid;

/// What a request is sold at, and to whom.
#[derive(Clone, Copy)]
pub(crate) struct Sale<'a> {
    pub access: &'a Access,
    pub prices: &'a TokenPrices,
    pub now: Timestamp,
    /// What customers are told of the model.
    pub card: Option<&'a ModelCard>,
    /// Prices of the model at other tiers, where it has any.
    pub at_tier: &'a dyn Fn(ServiceTier) -> Option<Arc<TokenPrices>>,
}

/// What a request may be sent to.
#[derive(Clone, Debug)]
pub(crate) struct Permitted {
    /// With the replicas that may be asked.
    pub model: Arc<RemoteModel>,
    /// Those of them that are bought.
    pub bids: Arc<[Bid]>,
    /// What would open more.
    pub hints: Arc<[String]>,
}

/// Leaves out what may not be asked. An error if nothing is left but what cannot be had at this price and with this
/// permission.
pub(crate) fn permit(model: &Arc<RemoteModel>, sale: Sale<'_>) -> Result<Permitted> {
    let is_bought = |replica: &Arc<Replica>| replica.source == ReplicaSource::Supplier;
    if !model.replicas.iter().any(is_bought) {
        return Ok(Permitted { model: Arc::clone(model), bids: Arc::default(), hints: Arc::default() });
    }
    let mut bids = Vec::new();
    let mut forbidden = Vec::new();
    let mut replicas = Vec::with_capacity(model.replicas.len());
    for replica in &model.replicas {
        match replica.source {
            ReplicaSource::Fleet => replicas.push(Arc::clone(replica)),
            ReplicaSource::Supplier => match judge(replica, sale, sale.prices) {
                Verdict { allowed: true, bid: Ok(bid) } => {
                    bids.push(bid);
                    replicas.push(Arc::clone(replica));
                }
                verdict => forbidden.push((replica, verdict)),
            },
        }
    }
    forbidden.retain(|(replica, _)| replica.state == ReplicaState::Serving);
    let hints = hints(&forbidden, sale);
    if !forbidden.is_empty() && !replicas.iter().any(|replica| replica.state == ReplicaState::Serving) {
        return Err(refusal(model, &forbidden, &hints, sale));
    }
    let model = Arc::new(RemoteModel { replicas, ..RemoteModel::clone(model) });
    Ok(Permitted { model, bids: bids.into(), hints: hints.into() })
}

/// What speaks for and against a supplier's replica.
struct Verdict {
    /// The organization permits what it does with data.
    allowed: bool,
    bid: Result<Bid, Objection>,
}

fn judge(replica: &Replica, sale: Sale<'_>, prices: &TokenPrices) -> Verdict {
    let Some(terms) = &replica.terms else { return Verdict { allowed: false, bid: Err(Objection::NoCost) } };
    let promised = sale.card.and_then(|card| card.data_policy.as_ref());
    if promised.is_some_and(|promised| !terms.data.keeps(promised)) {
        return Verdict { allowed: sale.access.data.permits(&terms.data), bid: Err(Objection::Promise) };
    }
    let bid = cost_at(&replica.costs, sale.now).ok_or(Objection::NoCost).and_then(|cost| {
        check_margin(cost, prices, terms.margin_min)?;
        Ok(Bid { replica: replica.id.clone(), cost: cost.version.clone() })
    });
    Verdict { allowed: sale.access.data.permits(&terms.data), bid }
}

/// What the caller can do about suppliers that are forbidden.
fn hints(forbidden: &[(&Arc<Replica>, Verdict)], sale: Sale<'_>) -> Vec<String> {
    let mut hints = Vec::new();
    let unpermitted = forbidden.iter().filter(|(_, verdict)| !verdict.allowed && verdict.bid.is_ok());
    let policies = unpermitted.filter_map(|(replica, _)| replica.terms.as_ref().map(|terms| &terms.data));
    // The narrowest permission that opens one.
    if let Some(data) = policies.min_by_key(|data| (data.needs(), data.region.is_none())) {
        let body = consent_for(data, sale.access);
        hints.push(format!("PUT /v1/organization/data_policy {body}, with an admin key of the organization"));
    }
    let refused = forbidden.iter().filter(|(_, verdict)| verdict.allowed && matches!(verdict.bid, Err(Objection::Margin(_))));
    let unsold: Vec<_> = refused.map(|(replica, _)| replica).collect();
    if !unsold.is_empty() {
        let opens = |tier: &ServiceTier| {
            let prices = (sale.at_tier)(*tier);
            prices.is_some_and(|prices| unsold.iter().any(|replica| judge(replica, sale, &prices).bid.is_ok()))
        };
        let tiers = ServiceTier::ALL.into_iter().filter(|tier| *tier != sale.prices.tier);
        hints.extend(tiers.filter(opens).map(|tier| format!("service_tier '{tier}'")));
    }
    hints
}

/// A permission that adds a policy to what is permitted now.
fn consent_for(data: &SupplierPolicy, access: &Access) -> serde_json::Value {
    let external: ExternalSupply = data.needs().max(access.data.external);
    let mut regions: Vec<&str> = access.data.regions.iter().map(|region| region.as_str()).collect();
    match &data.region {
        Some(region) if !regions.is_empty() && !regions.contains(&region.as_str()) => regions.push(region.as_str()),
        // Nobody knows where it is.
        None => regions.clear(),
        Some(_) => {}
    }
    serde_json::json!({ "external": external, "regions": regions })
}

fn refusal(model: &RemoteModel, forbidden: &[(&Arc<Replica>, Verdict)], hints: &[String], sale: Sale<'_>) -> Error {
    let name = &model.name;
    let unpermitted = forbidden.iter().any(|(_, verdict)| !verdict.allowed && verdict.bid.is_ok());
    let unsold = forbidden.iter().any(|(_, verdict)| verdict.allowed && matches!(verdict.bid, Err(Objection::Margin(_))));
    let error = if unpermitted {
        let message =
            format!("the model '{name}' is served by suppliers only, and this organization does not permit those to see its data");
        Error::new(ErrorCode::PolicyRefused, message).param("model")
    } else if unsold && !hints.is_empty() {
        let message = format!("the model '{name}' is not served at the tier '{}' now", sale.prices.tier);
        Error::new(ErrorCode::PolicyRefused, message).param("service_tier")
    } else {
        Error::new(ErrorCode::ModelUnavailable, format!("no server of the model '{name}' can be asked at the price in force"))
            .param("model")
    };
    let error = hints.iter().fold(error, |error, hint| error.alternative(hint.as_str()));
    forbidden.iter().fold(error, |error, (replica, verdict)| error.context(format!("{}: {}", replica.id, reason(verdict))))
}

/// For the operator's log.
fn reason(verdict: &Verdict) -> String {
    match (&verdict.bid, verdict.allowed) {
        (Err(objection), true) => objection.to_string(),
        (Err(objection), false) => format!("{objection}, and the organization does not permit it"),
        (Ok(_), _) => "the organization does not permit it".to_owned(),
    }
}

#[cfg(test)]
#[path = "permit_tests.rs"]
mod tests;
