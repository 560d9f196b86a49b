//! What a past period would have been under other prices.

use std::collections::BTreeMap;

use sublet_core::admission::{TokenPrices, TokenRates};
use sublet_core::id::{OrganizationId, ReplicaId};
use sublet_core::supplier::{Objection, check_margin, cost_at};
use sublet_core::supply::{Catalogue, ReplicaSource};
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, DurationMs, Nanos, Result, Timestamp};
use sublet_money::floor::BelowCost;
use sublet_money::period::{BillingCalendar, Interval, PeriodKey};
use sublet_money::price_book::{PriceListDraft, PriceListVersion};
use sublet_money::price_index::PriceIndexes;
use sublet_money::repricing::{RepricedSku, Repricing};
use sublet_money::sku::{ModelName, Quantity, QuantityChange, SkuName};
use sublet_money::time_of_use::BandName;
use sublet_store::charge::UseCursor;
use sublet_store::organization::Organization;
use sublet_store::storage::{self, StorageCursor};
use sublet_store::{PageRequest, Tx, charge, organization};

use crate::{Action, Actor, Cloud, price_index};

/// Most customers that are shown: those for whom most would change.
pub const CUSTOMERS_MAX: usize = 100;
const ONE_DAY: DurationMs = DurationMs::from_hours(24);

/// Charged, and what it would have been.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Comparison {
    pub charged: Nanos,
    pub would_be: Nanos,
}

impl Comparison {
    fn add(&mut self, charged: Nanos, would_be: Nanos) -> Result<()> {
        self.charged = self.charged.checked_add(charged)?;
        self.would_be = self.would_be.checked_add(would_be)?;
        Ok(())
    }
    fn size(&self) -> u64 {
        self.would_be.get().abs_diff(self.charged.get())
    }
}

/// A customer's period.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CustomerComparison {
    pub organization: OrganizationId,
    pub name: String,
    pub comparison: Comparison,
}

/// A supplier's server that would not be used at a tier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BelowFloor {
    pub model: String,
    pub replica: ReplicaId,
    pub tier: ServiceTier,
    pub objection: Objection,
}

/// A period under other prices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PriceSimulation {
    pub period: PeriodKey,
    pub currency: Currency,
    /// Of everything that the other list sells.
    pub total: Comparison,
    /// What was charged for what the other list does not sell.
    pub not_sold: Nanos,
    /// How many customers there are, and those for whom most would change.
    pub customers: (u64, Vec<CustomerComparison>),
    /// All customers together.
    pub skus: Vec<RepricedSku>,
    pub below_floor: Vec<BelowFloor>,
    /// Prices below what supply is declared to cost.
    pub below_cost: Vec<BelowCost>,
}

impl PriceSimulation {
    fn new(period: PeriodKey, currency: Currency) -> Self {
        let (total, not_sold) = (Comparison::default(), Nanos::ZERO);
        let (customers, skus) = ((0, Vec::new()), Vec::new());
        Self { period, currency, total, not_sold, customers, skus, below_floor: Vec::new(), below_cost: Vec::new() }
    }

    fn take(&mut self, customer: &Organization, used: Vec<RepricedSku>, skus: &mut Sums) -> Result<()> {
        let mut comparison = Comparison::default();
        for repriced in used {
            match repriced.would_be {
                Some(would_be) => comparison.add(repriced.charged, would_be)?,
                None => self.not_sold = self.not_sold.checked_add(repriced.charged)?,
            }
            match skus.get_mut(&(repriced.sku.clone(), repriced.band.clone())) {
                Some(sum) => sum.add(repriced.quantity, repriced.charged, repriced.would_be)?,
                None => drop(skus.insert((repriced.sku.clone(), repriced.band.clone()), repriced)),
            }
        }
        self.total.add(comparison.charged, comparison.would_be)?;
        let (count, shown) = &mut self.customers;
        *count += 1;
        shown.push(CustomerComparison { organization: customer.id.clone(), name: customer.name.clone(), comparison });
        if shown.len() >= CUSTOMERS_MAX * 2 {
            keep_most_changed(shown);
        }
        Ok(())
    }
}

type Sums = BTreeMap<(SkuName, Option<BandName>), RepricedSku>;

fn keep_most_changed(customers: &mut Vec<CustomerComparison>) {
    customers.sort_by(|one, other| {
        other.comparison.size().cmp(&one.comparison.size()).then_with(|| one.organization.cmp(&other.organization))
    });
    customers.truncate(CUSTOMERS_MAX);
}

impl Cloud {
    /// What the customers of a currency would have paid in a period had this list held all the time; the last whole
    /// month if none is named. Nothing is changed.
    pub async fn simulate_prices(
        &self,
        actor: &Actor,
        draft: PriceListDraft,
        period: Option<PeriodKey>,
    ) -> Result<PriceSimulation> {
        actor.require(Action::ManagePrices)?;
        let version = PriceListVersion::new(draft)?;
        let period = match period {
            Some(period) => period,
            None => last_month(self.now())?,
        };
        let below_floor = self.below_floor(&version)?;
        let mut simulation =
            self.store.read((self, &version), move |(cloud, version), tx| Box::pin(cloud.simulate_in(tx, version, period))).await?;
        simulation.below_floor = below_floor;
        simulation.below_cost = self.prices_below_cost(actor, &version, version.effective_at()).await?;
        Ok(simulation)
    }

    async fn simulate_in(&self, tx: &mut Tx, version: &PriceListVersion, period: PeriodKey) -> Result<PriceSimulation> {
        price_index::check_indexes(tx, version).await?;
        // Months of customers begin a day earlier or later than those in UTC.
        let month = BillingCalendar::new("UTC")?.period(period)?.interval;
        let month = Interval { starts_at: month.starts_at.minus(ONE_DAY), ends_at: month.ends_at.plus(ONE_DAY) };
        let public = self.indexes_within(tx, [version], month).await?;
        let mut simulation = PriceSimulation::new(period, version.currency());
        let mut skus = Sums::new();
        let mut page = PageRequest { limit: Some(100), ..PageRequest::default() };
        loop {
            let customers = organization::list(tx, None, &page).await?;
            for customer in customers.items.iter().filter(|customer| customer.currency == version.currency()) {
                let own = self.as_by_contract(tx, &customer.id, (version, period)).await?;
                let used = match &own {
                    Some(own) => {
                        let indexes = self.indexes_within(tx, [own], month).await?;
                        reprice(tx, (own, &indexes), (customer, period)).await?
                    }
                    None => reprice(tx, (version, &public), (customer, period)).await?,
                };
                if !used.is_empty() {
                    simulation.take(customer, used, &mut skus)?;
                }
            }
            let Some(last) = customers.items.last().filter(|_| customers.has_more) else { break };
            page.after = Some(last.id.to_string());
        }
        keep_most_changed(&mut simulation.customers.1);
        simulation.skus = skus.into_values().collect();
        Ok(simulation)
    }

    /// Suppliers' servers whose margin would be below the least at the cheapest price of the week.
    fn below_floor(&self, version: &PriceListVersion) -> Result<Vec<BelowFloor>> {
        let now = self.now();
        let models = self.remote_models();
        let mut found = Vec::new();
        for model in models.models.values() {
            let name: ModelName = model.name.parse()?;
            for replica in model.replicas.iter().filter(|replica| replica.source == ReplicaSource::Supplier) {
                let (Some(terms), Some(cost)) = (&replica.terms, cost_at(&replica.costs, now)) else { continue };
                for tier in version.tiers(&name) {
                    let [mut cheapest, _] = version.token_price_range(&name, tier, now)?;
                    let TokenPrices { input, cached_input, output, .. } = cheapest;
                    cheapest.least = TokenRates { input, cached_input, output };
                    if let Err(objection) = check_margin(cost, &cheapest, terms.margin_min) {
                        let (model, replica) = (model.name.clone(), replica.id.clone());
                        found.push(BelowFloor { model, replica, tier, objection });
                    }
                }
            }
        }
        Ok(found)
    }
}

/// What a customer used in a period, at other prices.
async fn reprice(
    tx: &mut Tx,
    (version, indexes): (&PriceListVersion, &PriceIndexes),
    (account, period): (&Organization, PeriodKey),
) -> Result<Vec<RepricedSku>> {
    let customer = &account.id;
    let month = BillingCalendar::new(&account.time_zone)?.period(period)?.interval;
    let mut repricing = Repricing::new(version, indexes);
    let mut by_time = Vec::new();
    for (line, state) in charge::list_lines(tx, customer, period).await? {
        if let SkuName::Requests { .. } | SkuName::Starts { .. } | SkuName::ProjectMonth | SkuName::FileStorage = line.sku {
            // How many there were is counted below, for times without a flat price too.
            let charged = (QuantityChange::ZERO, state.charged);
            repricing.add(&line.project, &line.sku, None, charged)?;
        } else if repricing.depends_on_time(&line.sku) || repricing.depends_on_placement(&line.sku.general()) {
            // Of a kind at a notice all lines or none: use that was rated anew is on another line than its event names.
            if !by_time.contains(&line.sku) {
                by_time.push(line.sku);
            }
        } else {
            repricing.add(&line.project, &line.sku, None, (state.quantity.into(), state.charged))?;
        }
    }
    if version.find(&SkuName::ProjectMonth).is_some() {
        for project in charge::used_projects(tx, customer, period).await? {
            repricing.add(&project, &SkuName::ProjectMonth, None, (Quantity::new(1)?.into(), Nanos::ZERO))?;
        }
    }
    for started in charge::count_starts(tx, customer, month).await? {
        let sku = SkuName::Starts { device: started.device };
        if version.find(&sku).is_some() {
            repricing.add(&started.project, &sku, None, (started.count.into(), Nanos::ZERO))?;
        }
    }
    for entry in version.entries() {
        let SkuName::Requests { tier, model } = &entry.sku else { continue };
        for (project, count) in charge::count_requests(tx, (customer, period), (model, *tier)).await? {
            repricing.add(&project, &entry.sku, None, (count.into(), Nanos::ZERO))?;
        }
    }
    if version.find(&SkuName::FileStorage).is_some() {
        add_storage(tx, (customer, period), &mut repricing).await?;
    }
    for sku in by_time {
        let mut cursor = UseCursor::default();
        loop {
            let uses = charge::list_uses(tx, (customer, period, &sku), &mut cursor).await?;
            if uses.is_empty() {
                break;
            }
            for used in uses {
                repricing.add(&used.project, &used.used, Some(used.occurred_at), (used.quantity, used.amount))?;
            }
        }
    }
    repricing.finish()
}

/// What was kept, whether it had a price or not. An hour is as dear as at its beginning.
async fn add_storage(tx: &mut Tx, of: (&OrganizationId, PeriodKey), repricing: &mut Repricing<'_>) -> Result<()> {
    let mut cursor = StorageCursor::default();
    loop {
        let parts = storage::list_month(tx, of, &mut cursor).await?;
        if parts.is_empty() {
            return Ok(());
        }
        for part in parts {
            let kept = (part.byte_hours.into(), Nanos::ZERO);
            repricing.add(&part.project, &SkuName::FileStorage, Some(part.starts_at), kept)?;
        }
    }
}

/// The month before the one that an instant is in, by Coordinated Universal Time.
fn last_month(now: Timestamp) -> Result<PeriodKey> {
    let calendar = BillingCalendar::new("UTC")?;
    let this = calendar.period_at(now)?;
    let before = Timestamp::from_micros(this.interval.starts_at.micros() - 1);
    Ok(calendar.period_at(before)?.key)
}
