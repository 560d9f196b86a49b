//! A month as its owner sees it: what each thing earned from each account, and what supplying it cost.
//!
//! Revenue is that of the lines that accounts are charged on, so it is their ledger's to the last unit. A cost of device
//! time is that of the time itself, for all places of a kind together. What tokens cost is known for a model and kind as a whole (what was bought, and what
//! those that were not bought cost here); it is spread over the accounts that used them by their quantities, each share
//! rounded as the difference of two sums, so that shares add up to the whole. A flat price of requests is all margin where
//! the cost of the model's tokens is known.
//!
//! By site, a customer's device time and starts are where the work ran, and all else is at no site. What time cost at a site
//! is what the time up to there cost, less what the time at the sites before it did, so that sites add up to the whole.
//!
//! Invariants: sums of figures are sums of lines; no cost is added to a line twice. A line whose cost is not known has
//! none, and its revenue is counted apart: nothing is taken for free.
//!
//! Deliberately absent: deferred revenue, and costs of what nobody used.

use std::collections::{BTreeMap, BTreeSet};

use sublet_core::Nanos;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{OrganizationId, SiteId};
use sublet_core::money::divide_half_even;

use crate::rating::LineState;
use crate::sku::{DeviceKind, ModelName, Quantity, SkuName, TokenKind};
use crate::supply_cost::{BandTime, DeviceTimeCost, SupplyCost};

/// Costs of supply by kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Costs {
    pub device: DeviceTimeCost,
    /// Declared costs of tokens that models of our own made.
    pub models: Nanos,
    /// Bought from suppliers.
    pub upstream: Nanos,
}

impl Costs {
    pub fn total(&self) -> Result<Nanos> {
        Nanos::checked_sum([self.device.total()?, self.models, self.upstream])
    }
    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.device = self.device.checked_add(other.device)?;
        self.models = self.models.checked_add(other.models)?;
        self.upstream = self.upstream.checked_add(other.upstream)?;
        Ok(())
    }
}

/// One thing as one account used it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MarginLine {
    pub organization: OrganizationId,
    /// One of the owner's own teams.
    pub internal: bool,
    pub sku: SkuName,
    pub used: LineState,
    /// `None` where it is not known.
    pub costs: Option<Costs>,
}

/// Sums of lines.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Figures {
    pub quantity: Quantity,
    pub revenue: Nanos,
    pub costs: Costs,
    /// The part of the revenue whose cost is not known.
    pub without_cost: Nanos,
}

impl Figures {
    pub fn add(&mut self, line: &MarginLine) -> Result<()> {
        self.quantity = self.quantity.checked_add(line.used.quantity)?;
        self.revenue = self.revenue.checked_add(line.used.charged)?;
        match &line.costs {
            Some(costs) => self.costs.add(costs),
            None => {
                self.without_cost = self.without_cost.checked_add(line.used.charged)?;
                Ok(())
            }
        }
    }
    pub fn of<'l>(lines: impl IntoIterator<Item = &'l MarginLine>) -> Result<Self> {
        let mut figures = Self::default();
        lines.into_iter().try_for_each(|line| figures.add(line))?;
        Ok(figures)
    }
    /// Gross margin of what has a known cost.
    pub fn margin(&self) -> Result<Nanos> {
        self.revenue.checked_sub(self.without_cost)?.checked_sub(self.costs.total()?)
    }
}

/// Figures of lines that have something in common, in its order.
pub fn group_by<'l, K: Ord>(
    lines: impl IntoIterator<Item = &'l MarginLine>,
    key: impl Fn(&MarginLine) -> K,
) -> Result<BTreeMap<K, Figures>> {
    let mut groups: BTreeMap<K, Figures> = BTreeMap::new();
    for line in lines {
        groups.entry(key(line)).or_default().add(line)?;
    }
    Ok(groups)
}

/// A month's facts on their way to lines.
#[derive(Clone, Debug)]
pub struct MarginBook<'a> {
    costs: Option<&'a SupplyCost>,
    lines: BTreeMap<(OrganizationId, SkuName), (bool, LineState)>,
    /// By the name without its place: use that is rated anew may be on the line of another place than it was leased as.
    times: BTreeMap<(OrganizationId, SkuName), BTreeMap<SiteId, Vec<BandTime>>>,
    /// The part of a line that is known to be of a site.
    earned: BTreeMap<(OrganizationId, SkuName), BTreeMap<SiteId, Nanos>>,
    bought: BTreeMap<(ModelName, TokenKind), LineState>,
}

/// A month's lines, and what was bought for models of which nothing was used.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MarginLines {
    pub lines: Vec<MarginLine>,
    pub bought_for_nobody: Nanos,
    /// The lines of customers by where they were supplied, without quantities; `None` for what has no site.
    pub sites: BTreeMap<Option<SiteId>, Figures>,
}

impl<'a> MarginBook<'a> {
    /// `None` where no costs are declared.
    pub const fn new(costs: Option<&'a SupplyCost>) -> Self {
        Self { costs, lines: BTreeMap::new(), times: BTreeMap::new(), earned: BTreeMap::new(), bought: BTreeMap::new() }
    }

    /// What an account used of a thing, and was charged.
    pub fn used(&mut self, organization: &OrganizationId, internal: bool, sku: &SkuName, used: LineState) -> Result<()> {
        let line = self.lines.entry((organization.clone(), sku.clone())).or_insert((internal, LineState::default()));
        add(&mut line.1, used)
    }

    /// The part of what an account was charged for a thing that is of a site.
    pub fn earned(&mut self, organization: &OrganizationId, (sku, site): (&SkuName, &SiteId), charged: Nanos) -> Result<()> {
        let line = self.earned.entry((organization.clone(), sku.clone())).or_default();
        let earned = line.entry(site.clone()).or_insert(Nanos::ZERO);
        *earned = earned.checked_add(charged)?;
        Ok(())
    }

    /// What workloads of an account ran on devices of a site.
    pub fn ran(&mut self, organization: &OrganizationId, internal: bool, (sku, site): (&SkuName, &SiteId), time: BandTime) {
        // What ran and was not charged cost something, too.
        self.lines.entry((organization.clone(), sku.clone())).or_insert((internal, LineState::default()));
        let times = self.times.entry((organization.clone(), sku.general())).or_default().entry(site.clone()).or_default();
        match times.iter_mut().find(|known| known.band == time.band && known.load == time.load) {
            Some(known) => known.micros = known.micros.saturating_add(time.micros),
            None => times.push(time),
        }
    }

    /// What was bought from suppliers for a model.
    pub fn bought(&mut self, model: &ModelName, kind: TokenKind, bought: LineState) -> Result<()> {
        add(self.bought.entry((model.clone(), kind)).or_default(), bought)
    }

    pub fn finish(self) -> Result<MarginLines> {
        let mut made = MarginLines::default();
        let mut tokens: BTreeMap<(ModelName, TokenKind), Vec<usize>> = BTreeMap::new();
        let mut devices: BTreeMap<(&OrganizationId, SkuName), Vec<usize>> = BTreeMap::new();
        for ((organization, sku), (internal, used)) in &self.lines {
            let costs = match sku {
                SkuName::Tokens { kind, model, .. } => {
                    tokens.entry((model.clone(), *kind)).or_default().push(made.lines.len());
                    None
                }
                SkuName::Requests { .. } | SkuName::Starts { .. } | SkuName::FileStorage | SkuName::FileEgress => None,
                // Nothing is supplied for it.
                SkuName::ProjectMonth | SkuName::Fee { .. } => Some(Costs::default()),
                SkuName::Device { .. } => {
                    devices.entry((organization, sku.general())).or_default().push(made.lines.len());
                    None
                }
            };
            let (organization, sku) = (organization.clone(), sku.clone());
            made.lines.push(MarginLine { organization, internal: *internal, sku, used: *used, costs });
        }
        for (key, places) in &devices {
            self.spread_time(key, (places, &mut made.lines))?;
        }
        for ((model, kind), places) in &tokens {
            let bought = self.bought.get(&(model.clone(), *kind)).copied().unwrap_or_default();
            self.spread((model, *kind), bought, (places, &mut made.lines))?;
        }
        for (product, bought) in &self.bought {
            if !tokens.contains_key(product) {
                made.bought_for_nobody = made.bought_for_nobody.checked_add(bought.charged)?;
            }
        }
        settle_requests(&mut made.lines);
        settle_starts(&mut made.lines);
        made.sites = self.by_site(&made.lines)?;
        Ok(made)
    }

    /// What customers' lines come to at each site, and at none: they add up to the lines.
    fn by_site(&self, lines: &[MarginLine]) -> Result<BTreeMap<Option<SiteId>, Figures>> {
        let mut sites: BTreeMap<Option<SiteId>, Figures> = BTreeMap::new();
        for line in lines.iter().filter(|line| !line.internal) {
            let mut at = |site: Option<&SiteId>, revenue: Nanos| -> Result<()> {
                let figures = sites.entry(site.cloned()).or_default();
                figures.revenue = figures.revenue.checked_add(revenue)?;
                if line.costs.is_none() {
                    figures.without_cost = figures.without_cost.checked_add(revenue)?;
                }
                Ok(())
            };
            let mut rest = line.used.charged;
            for (site, revenue) in self.earned.get(&(line.organization.clone(), line.sku.clone())).into_iter().flatten() {
                at(Some(site), *revenue)?;
                rest = rest.checked_sub(*revenue)?;
            }
            if !rest.is_zero() {
                at(None, rest)?;
            }
            let elsewhere = line.costs.map(|costs| Costs { device: DeviceTimeCost::default(), ..costs }).unwrap_or_default();
            if elsewhere != Costs::default() {
                sites.entry(None).or_default().costs.add(&elsewhere)?;
            }
        }
        self.time_by_site(lines, &mut sites)?;
        Ok(sites)
    }

    /// Adds what customers' device time cost at each site.
    fn time_by_site(&self, lines: &[MarginLine], sites: &mut BTreeMap<Option<SiteId>, Figures>) -> Result<()> {
        let Some(costs) = self.costs else { return Ok(()) };
        let teams: BTreeSet<&OrganizationId> = lines.iter().filter(|line| line.internal).map(|line| &line.organization).collect();
        for ((organization, name), places) in &self.times {
            let SkuName::Device { device, .. } = name else { continue };
            if teams.contains(organization) {
                continue;
            }
            let (mut upto, mut given) = (Vec::new(), DeviceTimeCost::default());
            for (site, times) in places {
                upto.extend_from_slice(times);
                let Some(cost) = costs.device_time(device, &upto)? else { break };
                let known = &mut sites.entry(Some(site.clone())).or_default().costs.device;
                *known = known.checked_add(cost.checked_sub(given)?)?;
                given = cost;
            }
        }
        Ok(())
    }

    /// What device time cost, over the lines of the places where it was used: a kind costs the same at all of them.
    fn spread_time(
        &self,
        (organization, name): &(&OrganizationId, SkuName),
        (places, lines): (&[usize], &mut [MarginLine]),
    ) -> Result<()> {
        let (Some(costs), SkuName::Device { device, .. }) = (self.costs, name) else { return Ok(()) };
        let times = self.times.get(&((*organization).clone(), name.clone()));
        let times: Vec<BandTime> = times.into_iter().flat_map(BTreeMap::values).flatten().cloned().collect();
        let Some(cost) = costs.device_time(device, &times)? else { return Ok(()) };
        let weights: Vec<Quantity> = places.iter().filter_map(|place| lines.get(*place)).map(|line| line.used.quantity).collect();
        let power = apportion(cost.power, &weights)?;
        let depreciation = apportion(cost.depreciation, &weights)?;
        let device_time = apportion(cost.device_time, &weights)?;
        let transfer_price = apportion(cost.transfer_price, &weights)?;
        for (index, place) in places.iter().enumerate() {
            if let Some(line) = lines.get_mut(*place) {
                let device = DeviceTimeCost {
                    power: power[index],
                    depreciation: depreciation[index],
                    device_time: device_time[index],
                    transfer_price: transfer_price[index],
                };
                line.costs = Some(Costs { device, ..Costs::default() });
            }
        }
        Ok(())
    }

    /// What tokens of a kind of a model cost, over the lines that used them.
    fn spread(
        &self,
        (model, kind): (&ModelName, TokenKind),
        bought: LineState,
        (places, lines): (&[usize], &mut [MarginLine]),
    ) -> Result<()> {
        let weights: Vec<Quantity> = places.iter().filter_map(|place| lines.get(*place)).map(|line| line.used.quantity).collect();
        let used = weights.iter().try_fold(Quantity::ZERO, |sum, weight| sum.checked_add(*weight))?;
        let own = used.get().saturating_sub(bought.quantity.get()).max(0);
        let declared = self.costs.and_then(|costs| costs.model(model));
        let models = match declared {
            Some(cost) => sublet_core::Rate::new(cost.of(kind), 1_000_000)?.cost_half_even(own)?,
            None if own == 0 => Nanos::ZERO,
            // What was made here has no known cost; what was bought is then no whole cost either.
            None => return Ok(()),
        };
        let models = apportion(models, &weights)?;
        let upstream = apportion(bought.charged, &weights)?;
        for ((place, models), upstream) in places.iter().zip(models).zip(upstream) {
            if let Some(line) = lines.get_mut(*place) {
                line.costs = Some(Costs { models, upstream, ..Costs::default() });
            }
        }
        Ok(())
    }
}

/// What requests cost is the cost of their tokens: where that of all of a model's tokens is known, its requests cost
/// nothing more, and else it is not known what they cost.
fn settle_requests(lines: &mut [MarginLine]) {
    let mut unknown: BTreeSet<ModelName> = BTreeSet::new();
    for line in lines.iter().filter(|line| line.costs.is_none()) {
        if let SkuName::Tokens { model, .. } = &line.sku {
            unknown.insert(model.clone());
        }
    }
    for line in lines {
        if let SkuName::Requests { model, .. } = &line.sku {
            line.costs = (!unknown.contains(model)).then(Costs::default);
        }
    }
}

/// What starts cost is the cost of their time, in the same way.
fn settle_starts(lines: &mut [MarginLine]) {
    let unknown: BTreeSet<DeviceKind> = lines
        .iter()
        .filter(|line| line.costs.is_none())
        .filter_map(|line| if let SkuName::Device { device, .. } = &line.sku { Some(device.clone()) } else { None })
        .collect();
    for line in lines {
        if let SkuName::Starts { device } = &line.sku {
            line.costs = (!unknown.contains(device)).then(Costs::default);
        }
    }
}

fn add(state: &mut LineState, more: LineState) -> Result<()> {
    state.quantity = state.quantity.checked_add(more.quantity)?;
    state.charged = state.charged.checked_add(more.charged)?;
    Ok(())
}

/// An amount in shares by weight that add up to it: each is the difference of two rounded sums. Without any weight all of
/// it is the first share.
pub fn apportion(amount: Nanos, weights: &[Quantity]) -> Result<Vec<Nanos>> {
    let whole = weights.iter().try_fold(Quantity::ZERO, |sum, weight| sum.checked_add(*weight))?;
    if whole.is_zero() {
        let first = |index| if index == 0 { amount } else { Nanos::ZERO };
        return Ok((0..weights.len()).map(first).collect());
    }
    let (mut sum, mut given) = (Quantity::ZERO, Nanos::ZERO);
    let mut shares = Vec::with_capacity(weights.len());
    for weight in weights {
        sum = sum.checked_add(*weight)?;
        let exact = divide_half_even(i128::from(amount.get()) * i128::from(sum.get()), i128::from(whole.get()));
        let upto = i64::try_from(exact).map(Nanos::new);
        let upto = upto.map_err(|_| Error::new(ErrorCode::AmountOverflow, "a share left the range of amounts"))?;
        shares.push(upto.checked_sub(given)?);
        given = upto;
    }
    Ok(shares)
}

#[cfg(test)]
#[path = "margin_tests.rs"]
mod tests;
