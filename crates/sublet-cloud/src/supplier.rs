//! Suppliers outside: their terms and costs, kept by the operator; which of them may see an organization's data,
//! said by that organization alone; and what stays of what was sold.

use sublet_core::id::{OrganizationId, ReplicaId};
use sublet_core::organization::OrganizationClass;
use sublet_core::supplier::{
    CostPrice, DataConsent, Objection, PerMille, REGIONS_MAX, SupplierPolicy, SupplierTerms, TokenMeter, check_margin, cost_at,
    margin_per_mille,
};
use sublet_core::supply::{Catalogue, Replica, ReplicaSource};
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::cost::{CostDraft, ReplicaCost};
use sublet_store::change::{self, Subject};
use sublet_store::organization::{self, Organization};
use sublet_store::supplier::{self, MarginRow, RequestCost, StoredCost};
use sublet_store::{Tx, remote_model, replica};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call};
use crate::{Action, Actor, Cloud};

/// What a new version of a replica's cost needs. Amounts are for a million tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewCost {
    pub replica: ReplicaId,
    /// `None` is that of the supplier's account, which is the only one that works.
    pub currency: Option<Currency>,
    /// `None` is now.
    pub effective_at: Option<Timestamp>,
    pub input: Nanos,
    /// `None` is what other input costs.
    pub cached_input: Option<Nanos>,
    pub output: Nanos,
}

/// What can be changed of a supplier's terms; `None` stays.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TermsChange {
    /// For a replica that was bought before suppliers had names; it is not changed afterwards.
    pub supplier: Option<OrganizationId>,
    pub data: Option<SupplierPolicy>,
    pub margin_min: Option<PerMille>,
}

/// How a supplier's replica stands at one tier, against the price in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TierStanding {
    pub tier: ServiceTier,
    /// Of the kind of token that earns least, in thousandths of its price, rounded down.
    pub margin: Option<i64>,
    /// Why it is not sold at this tier.
    pub objection: Option<Objection>,
}

/// Whether a supplier's replica is used, and if not, why.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Standing {
    pub cost: Option<CostPrice>,
    /// The tiers at which its model has a price in the currency of the cost.
    pub tiers: Vec<TierStanding>,
}

/// The terms of a new replica: those of the fleet have none, those of suppliers name a supplier that exists.
pub(crate) async fn check_terms(tx: &mut Tx, replica: &Replica) -> Result<()> {
    match (replica.source, &replica.terms) {
        (ReplicaSource::Fleet, None) => Ok(()),
        (ReplicaSource::Fleet, Some(_)) => {
            Err(Error::new(ErrorCode::InvalidRequest, "a replica of the fleet has no supplier").param("supplier"))
        }
        (ReplicaSource::Supplier, None) => {
            Err(Error::new(ErrorCode::InvalidRequest, "a replica that is bought names who is owed for it")
                .param("supplier")
                .alternative("an organization of the class 'supplier'"))
        }
        (ReplicaSource::Supplier, Some(terms)) => check_supplier(tx, &terms.supplier).await.map(|_| ()),
    }
}

async fn check_supplier(tx: &mut Tx, id: &OrganizationId) -> Result<Organization> {
    let found = organization::get(tx, &Scope::Operator, id).await.map_err(|error| error.param("supplier"))?;
    if found.class == OrganizationClass::Supplier {
        return Ok(found);
    }
    let message = format!("'{}' is an organization of the class '{}', not a supplier", found.name, found.class);
    Err(Error::new(ErrorCode::InvalidRequest, message).param("supplier").alternative("an organization of the class 'supplier'"))
}

/// Changes terms in place.
pub(crate) async fn change_terms(tx: &mut Tx, replica: &mut Replica, change: &TermsChange) -> Result<()> {
    if *change == TermsChange::default() {
        return Ok(());
    }
    if replica.source == ReplicaSource::Fleet {
        return Err(Error::new(ErrorCode::Conflict, format!("the replica '{}' is of the fleet: it has no terms", replica.id)));
    }
    if let Some(supplier) = &change.supplier {
        let known = replica.terms.as_ref().map(|terms| &terms.supplier);
        if known.is_some_and(|known| known != supplier) {
            let error = Error::new(ErrorCode::Conflict, "the supplier of a replica is not changed: its costs are owed to it");
            return Err(error.param("supplier").alternative("add another replica and remove this one"));
        }
        check_supplier(tx, supplier).await?;
        if known.is_none() {
            let (data, margin_min) = Default::default();
            replica.terms = Some(SupplierTerms { supplier: supplier.clone(), data, margin_min });
        }
    }
    let Some(terms) = &mut replica.terms else {
        return Err(Error::new(ErrorCode::InvalidRequest, "this replica has no supplier yet").param("supplier"));
    };
    if let Some(data) = &change.data {
        terms.data = data.clone();
    }
    terms.margin_min = change.margin_min.unwrap_or(terms.margin_min);
    Ok(())
}

impl Cloud {
    /// Adds a version of what a supplier's replica costs. It is never changed; a later one takes over from it.
    pub async fn set_cost(&self, call: &Call, new: NewCost) -> Result<Answer<StoredCost>> {
        call.actor.require(Action::ManageFleet)?;
        let render = |stored: &StoredCost| Ok(stored.cost.version().0.to_string());
        let answer = self
            .once(call, &render, (self, &call.actor, new), |(cloud, actor, new), tx| {
                Box::pin(async move {
                    let stored = cloud.new_cost(tx, new).await?;
                    supplier::insert_cost(tx, &stored).await?;
                    let content = stored.cost.content();
                    let detail = format!(
                        "{} from {} on: input {}, cached input {}, output {} {} for a million tokens",
                        stored.cost.version().0,
                        content.effective_at,
                        content.input,
                        content.cached_input,
                        content.output,
                        content.currency
                    );
                    cloud.changed(tx, actor, ("replica.cost", content.replica.as_str(), detail)).await?;
                    Ok(stored)
                })
            })
            .await?;
        self.follow().await?;
        Ok(answer)
    }

    async fn new_cost(&self, tx: &mut Tx, new: &NewCost) -> Result<StoredCost> {
        let now = self.now();
        let row = replica::get(tx, &new.replica).await?;
        let Some(terms) = row.replica.terms else {
            let error =
                Error::new(ErrorCode::Conflict, format!("the replica '{}' has no supplier who is owed for it", new.replica));
            return Err(error.alternative("a replica that was added with its supplier"));
        };
        let model = remote_model::get(tx, &row.model).await?;
        let account = organization::get(tx, &Scope::Operator, &terms.supplier).await?;
        let currency = new.currency.unwrap_or(account.currency);
        if currency != account.currency {
            let message =
                format!("the account of the supplier '{}' is in {}, this cost in {currency}", account.name, account.currency);
            return Err(Error::new(ErrorCode::CurrencyMismatch, message).param("currency").alternative(account.currency.as_str()));
        }
        self.follow_changes(tx).await?;
        if self.prices.in_force(currency, now).is_err() {
            let message = format!("nothing is sold in {currency}, and costs are not converted");
            return Err(Error::new(ErrorCode::CurrencyMismatch, message)
                .param("currency")
                .alternative("a supplier whose account is in a currency that a price list has"));
        }
        let effective_at = new.effective_at.unwrap_or(now);
        if effective_at < now {
            let message = format!("a cost cannot take effect at {effective_at}, which has passed");
            return Err(Error::new(ErrorCode::InvalidPrice, message).param("effective_at"));
        }
        let cost = ReplicaCost::new(CostDraft {
            replica: new.replica.clone(),
            supplier: terms.supplier,
            model: model.name.parse()?,
            currency,
            effective_at,
            input: new.input,
            cached_input: new.cached_input.unwrap_or(new.input),
            output: new.output,
        })?;
        Ok(StoredCost { cost, created_at: now })
    }

    /// All versions of a replica's cost, oldest first.
    pub async fn list_costs(&self, actor: &Actor, id: &ReplicaId) -> Result<Vec<StoredCost>> {
        actor.require(Action::ManageFleet)?;
        self.store.read(id, |id, tx| Box::pin(supplier::list_costs(tx, id))).await
    }

    /// How a supplier's replica stands now; `None` for one of the fleet.
    pub fn standing(&self, id: &ReplicaId) -> Option<Standing> {
        let now = self.now();
        let models = self.remote_models();
        let (model, replica) = models.models.values().find_map(|model| {
            let replica = model.replicas.iter().find(|replica| replica.id == *id)?;
            Some((model, replica))
        })?;
        let terms = match (replica.source, &replica.terms) {
            (ReplicaSource::Fleet, _) => return None,
            (ReplicaSource::Supplier, None) => return Some(Standing::default()),
            (ReplicaSource::Supplier, Some(terms)) => terms,
        };
        let (cards, least) = (self.cards(), terms.margin_min);
        let promised = cards.find(&model.name).and_then(|card| card.data_policy.as_ref());
        let breaks = promised.is_some_and(|promised| !terms.data.keeps(promised));
        let Some(cost) = cost_at(&replica.costs, now) else { return Some(Standing::default()) };
        let tiers = ServiceTier::ALL.into_iter().filter_map(|tier| {
            let prices = self.prices.in_force(cost.currency, now).ok()?.token_prices(&model.name.parse().ok()?, tier, now).ok()?;
            let margins = TokenMeter::ALL.map(|meter| margin_per_mille(meter.rate_of(&cost.rates), meter.rate_of(&prices.least)));
            let margin = if margins.contains(&None) { None } else { margins.into_iter().flatten().min() };
            let objection = if breaks { Some(Objection::Promise) } else { check_margin(cost, &prices, least).err() };
            Some(TierStanding { tier, margin, objection })
        });
        Some(Standing { cost: Some(cost.clone()), tiers: tiers.collect() })
    }

    /// Says which suppliers may see the actor's organization's data. It holds for requests that begin afterwards.
    pub async fn set_data_consent(&self, actor: &Actor, mut consent: DataConsent) -> Result<Organization> {
        actor.require(Action::ManageProjects)?;
        let organization = actor.organization()?;
        if consent.regions.len() > REGIONS_MAX {
            return Err(
                Error::new(ErrorCode::InvalidRequest, format!("at most {REGIONS_MAX} regions can be named")).param("regions")
            );
        }
        consent.regions.sort();
        consent.regions.dedup();
        let now = self.now();
        let changed = self
            .store
            .write((self, actor, organization, &consent), move |(cloud, actor, id, consent), tx| {
                Box::pin(async move {
                    organization::set_consent(tx, id, consent).await?;
                    // Gateways know it as part of a key's access.
                    change::announce(tx, Subject::Access).await?;
                    let regions: Vec<&str> = consent.regions.iter().map(|region| region.as_str()).collect();
                    let detail = format!("external suppliers: {}; regions: {}", consent.external, regions.join(", "));
                    let deed = Deed { organization: Some(id), action: "organization.data_policy", target: id.as_str(), detail };
                    cloud.record(tx, actor, deed, now).await?;
                    organization::get(tx, &Scope::Organization((*id).clone()), id).await
                })
            })
            .await?;
        self.follow().await?;
        Ok(changed)
    }

    /// What was bought and what it was sold for, by model and supplier: for the operator.
    pub async fn margins(&self, actor: &Actor, from: Timestamp, until: Timestamp) -> Result<Vec<MarginRow>> {
        actor.require(Action::ReadLedger)?;
        self.store.read((), move |(), tx| Box::pin(supplier::summarize(tx, from, until))).await
    }

    /// What was bought for a request: for the operator; to others nothing.
    pub(crate) async fn costs_of_request(&self, actor: &Actor, id: &sublet_core::id::RequestId) -> Result<Vec<RequestCost>> {
        if actor.require(Action::ReadLedger).is_err() {
            return Ok(Vec::new());
        }
        self.store.read(id, |id, tx| Box::pin(supplier::list_of_request(tx, id))).await
    }
}
