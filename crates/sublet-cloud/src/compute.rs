//! Compute: what the use cases and the reconciler share — the runner, the owner's settings, the
//! snapshot that decisions are made from, and what time on devices costs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sublet_capacity::{CURVE_LIFE, Cover, CoverBound, DeviceView, LeaseStage, LeaseView, ReserveRule, Snapshot, Stake, Terms};
use sublet_core::admission::ROUNDING_SLACK;
use sublet_core::device::DeviceKind;
use sublet_core::id::{LeaseId, NodeId, SiteId};
use sublet_core::lease::{Holder, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::{IsolationLevel, Runner};
use sublet_core::{Bytes, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::period::{BillingCalendar, Interval};
use sublet_money::price_book::{BandPrice, PriceEntry, PriceListVersion};
use sublet_money::price_index::PriceIndex;
use sublet_money::sku::{PricingUnit, Quantity, SkuName};
use sublet_money::stretch::Stretches;
use sublet_money::time_of_use::BandName;
use sublet_store::attempt::{self, Attempt};
use sublet_store::lease::{self, HoldBound, Lease};
use sublet_store::{Tx, Updated, device, hold, organization, reclaim, setting};
use tokio::sync::Notify;

use crate::Cloud;
use crate::demand::selling_in;
use crate::idle_loop::Following;
use crate::lease_notice::NoticeBoard;
use crate::told::Told;
use crate::unfilled::Remembered;

/// The owner's settings of compute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ComputeSettings {
    /// What this machine is called in records; it is found again by it.
    pub node_name: String,
    pub site: Option<SiteId>,
    /// While one interval runs, the next is held.
    pub hold_interval: DurationMs,
    /// From SIGTERM until everything of a workload is killed.
    pub grace: DurationMs,
    /// What is held beyond the grace, for the time between decision and effect.
    pub slack: DurationMs,
    /// The longest notice of an end that is not a reclaim. Part of every hold.
    pub stop_notice_max: DurationMs,
    /// How long a lease may have nothing to run.
    pub unused_max: DurationMs,
    /// How long a quote binds.
    pub quote_life: DurationMs,
    /// The notice before a job's own time limit.
    pub time_limit_notice: DurationMs,
    /// How long a start is tried that the runner cannot do at the moment.
    pub start_patience: DurationMs,
    /// How long an attempt may be unknown to its runner before it counts as lost: an end takes a
    /// moment to be written down.
    pub lost_patience: DurationMs,
    /// How long logs are kept after the end.
    pub log_retention: DurationMs,
    /// How often the reconciler looks without being woken.
    pub period: DurationMs,
    /// Longest time between two looks at the fleet in which the owner's demand counts as known.
    pub unobserved_max: DurationMs,
    /// The weakest separation for work of customers; the owner's teams may run with less.
    pub external_isolation: IsolationLevel,
    /// What a job gets for each device if it asks for no less.
    pub disk_per_device: Bytes,
    pub log_per_job: Bytes,
    pub processes_per_device: u32,
    pub open_files: u32,
    /// CPU time per wall time in thousandths, for each device.
    pub cpu_millis_per_device: u32,
}

impl ComputeSettings {
    /// The settings of a new cloud on one machine.
    pub fn new(node_name: &str) -> Result<Self> {
        Ok(Self {
            node_name: node_name.to_owned(),
            site: None,
            hold_interval: DurationMs::from_seconds(60),
            grace: DurationMs::from_seconds(10),
            slack: DurationMs::from_seconds(5),
            stop_notice_max: DurationMs::from_seconds(15 * 60),
            unused_max: DurationMs::from_seconds(5 * 60),
            quote_life: DurationMs::from_seconds(10 * 60),
            time_limit_notice: DurationMs::from_seconds(10),
            start_patience: DurationMs::from_seconds(60),
            lost_patience: DurationMs::from_seconds(10),
            log_retention: DurationMs::from_hours(7 * 24),
            period: DurationMs::from_millis(500),
            unobserved_max: CURVE_LIFE,
            external_isolation: IsolationLevel::Sandbox,
            disk_per_device: Bytes::new(1 << 30),
            log_per_job: Bytes::new(16 << 20),
            processes_per_device: 256,
            open_files: 1_024,
            cpu_millis_per_device: 1_000,
        })
    }

    /// The weakest separation that work of this holder may run with.
    pub const fn required_isolation(&self, holder: Holder) -> IsolationLevel {
        match holder {
            Holder::Internal => IsolationLevel::Process,
            Holder::External => self.external_isolation,
        }
    }

    pub(crate) fn terms(&self, reserve: ReserveRule) -> Terms {
        Terms { reserve, grace: self.grace, slack: self.slack, stop_notice_max: self.stop_notice_max, unused_max: self.unused_max }
    }

    /// What must stay covered at every moment to be able to stop: the notice, the grace, the slack.
    pub(crate) fn stop_span(&self, notice: NoticeClass) -> DurationMs {
        let told = self.terms(ReserveRule::default()).stop_notice(notice);
        sum([told, self.grace, self.slack])
    }

    /// What the first hold covers: an interval and the stop, but not more than the whole window.
    pub(crate) fn first_cover(&self, notice: NoticeClass, window: Option<DurationMs>) -> DurationMs {
        let open_end = sum([self.hold_interval, self.stop_span(notice)]);
        window.map_or(open_end, |window| open_end.min(sum([window, self.grace, self.slack])))
    }
}

pub(crate) fn sum<const N: usize>(parts: [DurationMs; N]) -> DurationMs {
    DurationMs::from_millis(parts.iter().fold(0, |sum, part| sum.saturating_add(part.millis())))
}

/// The use cases of compute over one runner. Cheap to clone.
#[derive(Clone)]
pub struct Compute {
    pub(crate) cloud: Cloud,
    pub(crate) runner: Arc<dyn Runner>,
    pub(crate) settings: Arc<ComputeSettings>,
    pub(crate) told: Arc<Told>,
    /// Set once: this process starts nothing any more.
    pub(crate) draining: Arc<AtomicBool>,
    /// What this process has learned of the owner's demand. Forgetting it is harmless: it is learned again.
    pub(crate) following: Arc<Following>,
    /// What this process wrote down of what was refused.
    pub(crate) refused: Arc<Remembered>,
    /// Who waits in this process to be told of the end of a lease.
    pub(crate) notices: Arc<NoticeBoard>,
    wake: Arc<Notify>,
}

const RESERVE_SETTING: &str = "compute.reserve";

impl Compute {
    pub fn new(cloud: Cloud, runner: Arc<dyn Runner>, settings: ComputeSettings) -> Self {
        Self {
            cloud,
            runner,
            settings: Arc::new(settings),
            told: Arc::default(),
            draining: Arc::default(),
            following: Arc::default(),
            refused: Arc::default(),
            notices: Arc::default(),
            wake: Arc::default(),
        }
    }
    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }
    pub fn settings(&self) -> &ComputeSettings {
        &self.settings
    }
    /// Lets the reconciler look now. Losing a wake costs one period.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
    /// Waits for a wake.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
    pub(crate) fn now(&self) -> Timestamp {
        self.cloud.now()
    }

    /// The fleet as it is in this transaction.
    pub(crate) async fn devices_in(tx: &mut Tx) -> Result<Vec<DeviceView>> {
        let nodes: BTreeMap<NodeId, IsolationLevel> =
            device::list_all_nodes(tx).await?.into_iter().map(|node| (node.id, node.isolation.level())).collect();
        let isolation = |id: &NodeId| nodes.get(id).copied().unwrap_or(IsolationLevel::Process);
        let held = reclaim::list_held(tx).await?;
        let devices = device::list_all(tx).await?.into_iter().map(|device| DeviceView {
            isolation: isolation(&device.node),
            held: held.contains(&device.id),
            id: device.id,
            kind: device.kind,
            site: device.site,
            node: device.node,
            health: device.health,
            used_by: device.lease,
            promised_to: device.promised_to,
        });
        Ok(devices.collect())
    }

    /// The fleet and its leases as they are in this transaction.
    pub(crate) async fn snapshot(&self, tx: &mut Tx) -> Result<Snapshot> {
        let devices = Self::devices_in(tx).await?;
        let live: BTreeMap<LeaseId, Attempt> =
            attempt::list_live(tx).await?.into_iter().map(|attempt| (attempt.lease.clone(), attempt)).collect();
        let (ends, checkpoints) = (reclaim::list_ordered_ends(tx, self.now()).await?, reclaim::list_checkpoints(tx).await?);
        let mut leases = BTreeMap::new();
        for lease in lease::list_open(tx).await? {
            if let Some(view) = self.view(tx, &lease, live.get(&lease.id)).await? {
                let started_at = live.get(&lease.id).and_then(|attempt| attempt.started_at);
                let at_risk_since = started_at.max(started_at.and(checkpoints.get(&lease.id).copied()));
                let stake = Stake { at_risk_since, price: lease.price, ordered: ends.get(&lease.id).copied() };
                leases.insert(lease.id, LeaseView { stake, ..view });
            }
        }
        let reserve = reserve_rule(tx).await?;
        let selling = selling_in(tx, &devices, self.now()).await?;
        Ok(Snapshot { devices, leases, terms: self.settings.terms(reserve), selling })
    }

    async fn view(&self, tx: &mut Tx, lease: &Lease, live: Option<&Attempt>) -> Result<Option<LeaseView>> {
        let stage = match lease.state {
            LeaseState::Pending => LeaseStage::Pending,
            LeaseState::Active => LeaseStage::Active,
            LeaseState::Ending { reason, deadline } => LeaseStage::Ending { reason, deadline },
            LeaseState::Ended { .. } => return Ok(None),
        };
        let cover = match live {
            Some(attempt) => self.cover(tx, lease, attempt).await?,
            None => None,
        };
        Ok(Some(LeaseView {
            id: lease.id.clone(),
            generation: lease.generation,
            holder: lease.holder,
            kind: device_of(&lease.sku)?.clone(),
            units: lease.units,
            notice: lease.notice,
            stage,
            starts_at: lease.starts_at,
            ends_at: lease.ends_at,
            busy: live.is_some(),
            unused_since: lease.unused_since,
            job_over: lease.job_over,
            cover,
            stake: Stake::default(),
        }))
    }

    /// How long what is held pays for a running attempt, its stop included. `None` before it runs.
    pub(crate) async fn cover(&self, tx: &mut Tx, lease: &Lease, attempt: &Attempt) -> Result<Option<Cover>> {
        let Some(from) = attempt.settled_until.or(attempt.started_at) else { return Ok(None) };
        let left = match hold::find_open(tx, lease.id.as_str()).await? {
            Some(hold) => hold.uncaptured()?.total()?,
            None => Nanos::ZERO,
        };
        let calendar = calendar_of(tx, lease).await?;
        let tariff = Tariff::of(tx, &self.cloud, lease, from).await?;
        let until = from.plus(tariff.affordable(&calendar, from, left)?);
        if let Some(too_dear_from) = tariff.too_dear_from(&calendar, Interval { starts_at: from, ends_at: from.plus(HORIZON) })?
            && too_dear_from <= until
        {
            return Ok(Some(Cover { until: too_dear_from, bound: CoverBound::MaximumPrice }));
        }
        let bound = match lease.hold_bound {
            HoldBound::Open => CoverBound::Open,
            HoldBound::Budget { .. } => CoverBound::Budget,
            HoldBound::MaximumCost => CoverBound::MaximumCost,
        };
        Ok(Some(Cover { until, bound }))
    }
}

/// The device kind of a device sku.
pub(crate) fn device_of(sku: &SkuName) -> Result<&DeviceKind> {
    match sku {
        SkuName::Device { device, .. } => Ok(device),
        SkuName::Tokens { .. }
        | SkuName::Requests { .. }
        | SkuName::Starts { .. }
        | SkuName::ProjectMonth
        | SkuName::Fee { .. }
        | SkuName::FileStorage
        | SkuName::FileEgress => Err(Error::internal(format!("{sku} is not device time"))),
    }
}

/// The owner's reserve rule; nothing is kept until it is set.
pub(crate) async fn reserve_rule(tx: &mut Tx) -> Result<ReserveRule> {
    let Some(text) = setting::find(tx, RESERVE_SETTING).await? else { return Ok(ReserveRule::default()) };
    let parsed = text.split_once(' ').and_then(|(units, share)| Some((units.parse().ok()?, share.parse().ok()?)));
    let (minimum_units, fraction_thousandths) =
        parsed.ok_or_else(|| Error::internal(format!("'{text}' is not a stored reserve rule")))?;
    Ok(ReserveRule { minimum_units, fraction_thousandths })
}

pub(crate) async fn set_reserve_rule(tx: &mut Tx, rule: ReserveRule) -> Result<()> {
    setting::set(tx, RESERVE_SETTING, &format!("{} {}", rule.minimum_units, rule.fraction_thousandths)).await
}

/// Turns the answer of a conditional update into an error unless it was done.
pub(crate) fn done(updated: Updated, what: &str) -> Result<()> {
    match updated {
        Updated::Done => Ok(()),
        Updated::Stale => Err(Error::new(ErrorCode::Conflict, format!("{what} changed meanwhile"))),
        Updated::NotFound => Err(Error::internal(format!("{what} is gone"))),
    }
}

/// Further than any hold pays for that is ever asked about.
const HORIZON: DurationMs = DurationMs::from_hours(366 * 24);

/// What time on the devices of a lease costs, at its pinned price.
pub(crate) struct Tariff {
    pub version: Arc<PriceListVersion>,
    pub sku: SkuName,
    units: i64,
    /// That the price follows.
    index: Option<PriceIndex>,
    /// The most that an hour of one device may cost.
    max_price: Option<Nanos>,
}

impl Tariff {
    /// What holds from an instant on.
    pub async fn since(
        tx: &mut Tx,
        cloud: &Cloud,
        (version, sku): (Arc<PriceListVersion>, SkuName),
        units: u32,
        since: Timestamp,
    ) -> Result<Self> {
        device_of(&sku)?;
        let index = cloud.index_of(tx, version.get(&sku)?, since).await?;
        Ok(Self { version, sku, units: i64::from(units.max(1)), index, max_price: None })
    }
    /// The tariff of a lease from an instant on.
    pub async fn of(tx: &mut Tx, cloud: &Cloud, lease: &Lease, since: Timestamp) -> Result<Self> {
        let version = cloud.price_version(tx, &lease.price_version).await?;
        let tariff = Self::since(tx, cloud, (version, lease.sku.clone()), lease.units, since).await?;
        Ok(tariff.at_most(lease.max_price))
    }
    /// The same as long as an hour of one device costs no more.
    pub fn at_most(self, max_price: Option<Nanos>) -> Self {
        Self { max_price, ..self }
    }
    fn entry(&self) -> Result<&PriceEntry> {
        self.version.get(&self.sku)
    }
    /// How long before it holds a level is published at least, of a price that follows an index.
    pub fn lead(&self) -> Option<DurationMs> {
        self.index.as_ref().map(PriceIndex::lead)
    }
    pub fn stretches<'a>(&'a self, calendar: &'a BillingCalendar, interval: Interval) -> Result<Stretches<'a>> {
        Ok(Stretches::new(calendar, self.entry()?.over_time(self.index.as_ref())?, interval))
    }
    /// Whether a price is above the maximum. One without a price for an hour is, whatever the maximum.
    fn is_too_dear(&self, price: BandPrice<'_>) -> bool {
        self.max_price.is_some_and(|max_price| price.model().dearest_from(Quantity::ZERO).map_or(true, |price| price > max_price))
    }
    /// Whether the price in a band is above the maximum.
    pub fn is_band_too_dear(&self, band: Option<&BandName>) -> Result<bool> {
        Ok(self.max_price.is_some() && self.is_too_dear(self.entry()?.price_in(band)?))
    }
    /// The first instant at which the price is, or may yet be, above the maximum.
    pub fn too_dear_from(&self, calendar: &BillingCalendar, interval: Interval) -> Result<Option<Timestamp>> {
        if self.max_price.is_none() || !self.entry()?.prices().any(|price| self.is_too_dear(price)) {
            return Ok(None);
        }
        for stretch in self.stretches(calendar, interval)? {
            // Further than can be said is further than anybody has to know now.
            let Ok(stretch) = stretch else { break };
            if self.is_band_too_dear(stretch.band.as_ref())? {
                return Ok(Some(stretch.interval.starts_at));
            }
        }
        Ok(None)
    }
    /// Device-milliseconds of all devices together.
    pub fn quantity(&self, span: DurationMs) -> Result<Quantity> {
        Quantity::new(span.millis().saturating_mul(self.units).max(0))
    }
    /// What to hold for a time on all devices: each part of it at the price that holds then.
    pub fn hold_for(&self, calendar: &BillingCalendar, interval: Interval) -> Result<Nanos> {
        let entry = self.entry()?;
        let mut sum = Nanos::ZERO;
        for stretch in self.stretches(calendar, interval)? {
            let stretch = stretch?;
            let span = stretch.interval.ends_at.since(stretch.interval.starts_at);
            let price = entry.price_in(stretch.band.as_ref())?;
            sum = sum.checked_add(price.hold(Quantity::ZERO, self.quantity(span)?)?)?;
        }
        Ok(sum)
    }
    /// What a time on all devices costs: each part of it at the price that holds then, from the beginning of a line on.
    /// What comes after the last price that is known costs that.
    pub fn cost_of(&self, calendar: &BillingCalendar, interval: Interval) -> Result<Nanos> {
        let entry = self.entry()?;
        let mut parts: Vec<(Option<BandName>, DurationMs)> = Vec::new();
        let mut until = interval.starts_at;
        for stretch in self.stretches(calendar, interval)? {
            let stretch = match stretch {
                Err(error) if error.code() == ErrorCode::UnknownPrice && !parts.is_empty() => break,
                stretch => stretch?,
            };
            parts.push((stretch.band, stretch.interval.ends_at.since(stretch.interval.starts_at)));
            until = stretch.interval.ends_at;
        }
        if let Some((_, span)) = parts.last_mut() {
            *span = sum([*span, interval.ends_at.since(until)]);
        }
        parts.into_iter().try_fold(Nanos::ZERO, |total, (band, span)| {
            let price = entry.price_in(band.as_ref())?;
            total.checked_add(price.exact_cost(self.quantity(span)?)?.half_even()?)
        })
    }
    /// What to hold for a span that begins at some instant from now until `latest`: as much as it can need then.
    pub fn first_hold(&self, calendar: &BillingCalendar, (now, latest): (Timestamp, Timestamp), span: DurationMs) -> Result<Nanos> {
        let entry = self.entry()?;
        let reach = Interval { starts_at: now, ends_at: latest.plus(span) };
        let mut lines = BTreeSet::new();
        for stretch in self.stretches(calendar, reach)? {
            let stretch = stretch?;
            lines.insert((stretch.period, stretch.band));
        }
        let prices: Vec<_> = lines.iter().map(|(_, band)| entry.price_in(band.as_ref())).collect::<Result<_>>()?;
        let lines = prices.len();
        self.dearest(prices.into_iter().filter(|price| !self.is_too_dear(*price)), (span, lines))
    }
    /// What a span costs at most, whenever it begins.
    pub fn most(&self, span: DurationMs) -> Result<Nanos> {
        const SHORTEST_MONTH: DurationMs = DurationMs::from_hours(28 * 24);
        let entry = self.entry()?;
        let mut prices: Vec<BandPrice<'_>> = entry.prices().filter(|price| !self.is_too_dear(*price)).collect();
        let wanted = |level| !self.is_too_dear(entry.price_at_level(level));
        prices.extend(entry.market.as_ref().and_then(|market| market.highest(wanted)).map(|level| entry.price_at_level(level)));
        let months = usize::try_from(span.millis().div_euclid(SHORTEST_MONTH.millis())).unwrap_or(0).saturating_add(2);
        let lines = months.saturating_mul(prices.len());
        let slack = if self.settles_in_steps()? { ROUNDING_SLACK } else { Nanos::ZERO };
        Ok(self.dearest(prices, (span, lines))?.checked_sub(slack)?.max(Nanos::ZERO))
    }
    /// The dearest hold for a span on so many lines at most. A package or a minimum may be due on each.
    fn dearest<'a>(&self, prices: impl IntoIterator<Item = BandPrice<'a>>, (span, lines): (DurationMs, usize)) -> Result<Nanos> {
        let (mut whole, mut begun) = (Nanos::ZERO, Nanos::ZERO);
        for price in prices {
            whole = whole.max(price.hold(Quantity::ZERO, self.quantity(span)?)?);
            if !price.model().is_proportional() {
                begun = begun.max(price.hold(Quantity::ZERO, Quantity::new(1)?)?);
            }
        }
        let others = i64::try_from(lines.saturating_sub(1)).unwrap_or(i64::MAX);
        let begun = begun.get().checked_mul(others).map(Nanos::new);
        let begun = begun.ok_or_else(|| Error::new(ErrorCode::AmountOverflow, "the window costs too much to be held"))?;
        whole.checked_add(begun)
    }
    /// Whether what was held can be settled bit by bit. A package or a minimum is paid for as a whole, and what is left
    /// of it is anybody's of the project: a lease has the good of it only while it is held and not yet charged.
    pub fn settles_in_steps(&self) -> Result<bool> {
        Ok(self.entry()?.prices().all(|price| price.model().is_proportional()))
    }
    /// How long an amount pays for all devices from an instant on, whatever is on their lines.
    pub fn affordable(&self, calendar: &BillingCalendar, from: Timestamp, amount: Nanos) -> Result<DurationMs> {
        let entry = self.entry()?;
        if entry.prices().all(|price| price.model().is_free()) {
            return Ok(HORIZON);
        }
        let (mut left, mut paid_until) = (amount, from);
        for stretch in self.stretches(calendar, Interval { starts_at: from, ends_at: from.plus(HORIZON) })? {
            // Further than can be said is further than anybody has to know now.
            let Ok(stretch) = stretch else { break };
            let Interval { starts_at, ends_at } = stretch.interval;
            let price = entry.price_in(stretch.band.as_ref())?;
            // More than the range of amounts is more than what is held.
            let hold = price.hold(Quantity::ZERO, self.quantity(ends_at.since(starts_at))?).ok().filter(|hold| *hold <= left);
            let Some(hold) = hold else {
                let paid = price.model().affordable(price.unit, Quantity::ZERO, left).get();
                return Ok(starts_at.plus(DurationMs::from_millis(paid.div_euclid(self.units))).since(from));
            };
            (left, paid_until) = (left.checked_sub(hold)?, ends_at);
        }
        Ok(paid_until.since(from))
    }
    /// The price of one device for an hour as it is at an instant: that of the dearest tier, or of a first hour where an
    /// hour has no price of its own.
    pub fn per_hour(&self, at: Timestamp) -> Result<Nanos> {
        let price = self.entry()?.over_time(self.index.as_ref())?.price_at(at)?;
        if price.model().is_proportional() {
            return price.model().dearest_from(Quantity::ZERO);
        }
        price.exact_cost(Quantity::new(PricingUnit::DeviceHour.base_units())?)?.half_even()
    }
}

/// The calendar of the organization that pays for a lease.
pub(crate) async fn calendar_of(tx: &mut Tx, lease: &Lease) -> Result<BillingCalendar> {
    BillingCalendar::new(&organization::get(tx, &Scope::Operator, &lease.organization).await?.time_zone)
}
