//! What a month returned to the owner: what was earned and what it cost, what the devices did, when they are paid for,
//! what customers would have bought and did not get, and which promises were kept.
//!
//! The month is that of the margin report ([`crate::margin`]). What devices did, what was refused and what was promised
//! is of the month in Coordinated Universal Time.

use std::collections::{BTreeMap, BTreeSet};

use sublet_capacity::estimate::demand::Step;
use sublet_capacity::{ClassTimes, Pool, Stretch, TimeClass, Units, outside_use, partition};
use sublet_core::device::{DeviceClass, DeviceHealth, DeviceKind};
use sublet_core::id::{DeviceId, LeaseId, ProjectId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::{Currency, DurationMs, Error, Nanos, Result, Timestamp};
use sublet_money::compensation::Interruption;
use sublet_money::payback::Payback;
use sublet_money::period::{BillingCalendar, Interval, PeriodKey};
use sublet_money::sku::SkuName;
use sublet_money::supply_cost::SupplyCost;
use sublet_money::unfilled::{Ask, Leased, Unfilled, WANTED_MAX, Wants, unfilled};
use sublet_money::zone::Zone;
use sublet_store::compensation::LeaseNotice;
use sublet_store::device::Device;
use sublet_store::monthly_return::{self as stored, OwnLease, Span, ToldLease};
use sublet_store::{Tx, demand, device};

use crate::compensation::{last_instant, owners_end};
use crate::margin::MarginReport;
use crate::{Action, Actor, Cloud};

/// Rows of demand that are read at once.
const STEPS_PAGE: i64 = 10_000;

/// What devices were bought for, and how many have a price.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capital {
    pub payback: Payback,
    pub devices: u32,
    /// Of kinds with a declared purchase price.
    pub priced: u32,
}

/// What became of customers' leases of one notice class that ended in the month.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Promises {
    pub ended: i64,
    /// By the owner, for whatever reason.
    pub ended_by_owner: i64,
    /// Of those, where something was interrupted and the notice was what was sold.
    pub kept: i64,
    /// Where something was interrupted with less notice than was sold.
    pub broken: i64,
    /// Given in the month.
    pub compensated: BTreeMap<Currency, Nanos>,
}

/// What was not filled, in the report's currency.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnfilledDemand {
    pub kinds: BTreeMap<DeviceKind, Unfilled>,
    /// Device-milliseconds that were asked for in other currencies.
    pub elsewhere: BTreeMap<Currency, i64>,
    /// On whose clocks days and nights are.
    pub zone: Zone,
    /// False if more was asked for than is kept.
    pub is_all: bool,
}

/// A month in one currency.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReturnReport {
    pub margin: MarginReport,
    /// What devices did, by kind.
    pub times: BTreeMap<DeviceKind, ClassTimes>,
    pub capital: Capital,
    pub unfilled: UnfilledDemand,
    pub promises: BTreeMap<NoticeClass, Promises>,
}

impl ReturnReport {
    /// Of all kinds together.
    pub fn time(&self) -> ClassTimes {
        let mut all = ClassTimes::default();
        self.times.values().for_each(|times| all.extend(times));
        all
    }
}

impl Cloud {
    /// A month in the currency of a price list, the first if none is named; the running month if none is.
    pub async fn return_report(&self, actor: &Actor, month: Option<PeriodKey>, currency: Option<Currency>) -> Result<ReturnReport> {
        actor.require(Action::ReadLedger)?;
        let asked = self.reported(month, currency)?;
        self.store.read((self, asked), |(cloud, (asked, now)), tx| Box::pin(cloud.return_in(tx, *asked, *now))).await
    }

    async fn return_in(&self, tx: &mut Tx, asked: (PeriodKey, Currency), now: Timestamp) -> Result<ReturnReport> {
        let margin = self.margin_in(tx, asked, now).await?;
        let month = BillingCalendar::new("UTC")?.period(asked.0)?.interval;
        let over = Interval { ends_at: month.ends_at.min(now).max(month.starts_at), ..month };
        let devices = device::list_all(tx).await?;
        let (times, lost) = device_times(tx, &devices, over).await?;
        let devices: Vec<&Device> = devices.iter().filter(|device| !lost.contains(&device.id)).collect();
        let capital = capital(&devices, &margin, over)?;
        let unfilled = unfilled_in(tx, over, &margin).await?;
        let promises = promises_in(tx, month).await?;
        Ok(ReturnReport { margin, times, capital, unfilled, promises })
    }
}

/// What was bought for, and what it brought while it was there: for each device the time that it was owned, on average.
fn capital(devices: &[&Device], margin: &MarginReport, over: Interval) -> Result<Capital> {
    let owned: Vec<&Device> = devices.iter().copied().filter(|device| device.created_at < over.ends_at).collect();
    let price_of = |kind: &DeviceKind| margin.costs.as_ref().and_then(|costs| Some(costs.device(kind)?.depreciation?.price));
    let prices: Vec<Nanos> = owned.iter().filter_map(|device| price_of(&device.kind)).collect();
    let time =
        owned.iter().map(|device| i128::from(over.ends_at.since(device.created_at.max(over.starts_at)).millis())).sum::<i128>();
    let time = i64::try_from(time.checked_div(i128::try_from(owned.len()).unwrap_or(0)).unwrap_or(0)).unwrap_or(0);
    let depreciation = margin.figures(false)?.costs.device.depreciation;
    let payback = Payback {
        capital: Nanos::checked_sum(prices.iter().copied())?,
        cash: margin.gross_margin()?.checked_add(depreciation)?,
        time: DurationMs::from_millis(time),
    };
    let count = |count: usize| u32::try_from(count).map_err(|_| Error::internal("there are more devices than can be counted"));
    Ok(Capital { payback, devices: count(owned.len())?, priced: count(prices.len())? })
}

/// A fleet's time on its way to classes.
struct Fleet<'a> {
    over: Stretch,
    devices: BTreeMap<&'a DeviceId, &'a Device>,
    holds: BTreeMap<DeviceId, Vec<(TimeClass, Stretch)>>,
    times: BTreeMap<Pool, ClassTimes>,
    /// Of pools whose demand is recorded.
    idle: BTreeMap<Pool, Vec<Stretch>>,
    /// What Sublet gave the owner's teams, or kept idle for them.
    own: BTreeMap<Pool, Vec<Units>>,
    /// Lost the whole time.
    lost: BTreeSet<DeviceId>,
}

impl Fleet<'_> {
    /// What one device did; it leaves the ones that are still to come.
    fn take(&mut self, id: &DeviceId, spans: Vec<(TimeClass, Stretch)>) {
        let Some(device) = self.devices.remove(id).filter(|device| device.created_at <= self.over.until) else { return };
        let pool = Pool { kind: device.kind.clone(), site: device.site.clone() };
        let owned = Stretch { from: device.created_at.max(self.over.from), ..self.over };
        let mut idle = self.idle.get_mut(&pool);
        let mut own = idle.is_some().then(|| self.own.entry(pool.clone()).or_default());
        let mut is_lost = device.health == DeviceHealth::Lost;
        let times = self.times.entry(pool).or_default();
        for (class, part) in partition(owned, TimeClass::Unknown, spans) {
            is_lost &= class == TimeClass::Unhealthy;
            if class != TimeClass::Idle {
                times.add(class, part.micros());
                continue;
            }
            let holds = self.holds.get(id).into_iter().flatten().copied();
            for (class, part) in partition(part, TimeClass::Idle, holds) {
                times.add(class, part.micros());
                match (class, &mut idle, &mut own) {
                    (TimeClass::Idle, Some(idle), _) => idle.push(part),
                    (TimeClass::Reserved, _, Some(own)) => own.push(Units { count: 1, when: part }),
                    _ => {}
                }
            }
        }
        if is_lost {
            self.lost.insert(id.clone());
        }
    }
}

fn class_of(span: &Span) -> TimeClass {
    match (span.class, span.lease) {
        (DeviceClass::Internal, _) => TimeClass::OwnUse,
        (DeviceClass::Lease | DeviceClass::Spot, Some((_, notice))) => TimeClass::Sold(notice),
        (DeviceClass::Lease | DeviceClass::Spot, None) => TimeClass::Unknown,
        (DeviceClass::Held, Some((Holder::Internal, _))) => TimeClass::Reserved,
        (DeviceClass::Held, Some((Holder::External, _)) | None) => TimeClass::Held,
        (DeviceClass::Drain, _) => TimeClass::Drained,
        (DeviceClass::Idle, _) => TimeClass::Idle,
        (DeviceClass::Unhealthy, _) => TimeClass::Unhealthy,
    }
}

/// What all devices did in some time, by kind, and which were lost all that time.
async fn device_times(
    tx: &mut Tx,
    devices: &[Device],
    over: Interval,
) -> Result<(BTreeMap<DeviceKind, ClassTimes>, BTreeSet<DeviceId>)> {
    let whole = Stretch { from: over.starts_at, until: over.ends_at };
    let mut fleet = Fleet {
        over: whole,
        devices: devices.iter().map(|device| (&device.id, device)).collect(),
        holds: BTreeMap::new(),
        times: BTreeMap::new(),
        idle: demand::list_pools(tx).await?.into_iter().map(|stored| (stored.pool, Vec::new())).collect(),
        own: BTreeMap::new(),
        lost: BTreeSet::new(),
    };
    read_holds(tx, &mut fleet, over).await?;
    read_own_leases(tx, &mut fleet, over).await?;
    read_spans(tx, &mut fleet, over).await?;
    let Fleet { mut times, idle, own, lost, .. } = fleet;
    for (pool, idle) in idle.into_iter().filter(|(_, idle)| !idle.is_empty()) {
        let steps = steps_of(tx, &pool, over).await?;
        let outside = outside_use(&idle, own.get(&pool).map_or(&[][..], Vec::as_slice), &steps, over.ends_at);
        times.entry(pool).or_default().take_outside(outside);
    }
    let mut by_kind: BTreeMap<DeviceKind, ClassTimes> = BTreeMap::new();
    times.into_iter().for_each(|(pool, times)| by_kind.entry(pool.kind).or_default().extend(&times));
    Ok((by_kind, lost))
}

async fn read_holds(tx: &mut Tx, fleet: &mut Fleet<'_>, over: Interval) -> Result<()> {
    let mut after = String::new();
    loop {
        let page = stored::order_holds(tx, over, &after).await?;
        let Some(last) = page.last() else { break };
        after = last.order.to_string();
        for hold in page {
            let when = Stretch { from: hold.from, until: hold.until.unwrap_or(over.ends_at) };
            fleet.holds.entry(hold.device).or_default().push((TimeClass::Reserved, when));
        }
    }
    fleet.holds.values_mut().for_each(|holds| holds.sort_by_key(|(_, when)| when.from));
    Ok(())
}

async fn read_own_leases(tx: &mut Tx, fleet: &mut Fleet<'_>, over: Interval) -> Result<()> {
    let mut after = String::new();
    loop {
        let page = stored::own_leases(tx, over, &after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.id.to_string();
        for OwnLease { kind, site, units, from, until, .. } in page {
            let (pool, when) = (Pool { kind, site }, Stretch { from, until: until.unwrap_or(over.ends_at) });
            if fleet.idle.contains_key(&pool) {
                fleet.own.entry(pool).or_default().push(Units { count: units, when });
            }
        }
    }
}

async fn read_spans(tx: &mut Tx, fleet: &mut Fleet<'_>, over: Interval) -> Result<()> {
    let mut last: Option<Span> = None;
    let mut of_one: Vec<(TimeClass, Stretch)> = Vec::new();
    loop {
        let spans = stored::spans_after(tx, over, last.as_ref()).await?;
        if spans.is_empty() {
            break;
        }
        for span in spans {
            if let Some(before) = last.take().filter(|before| before.device != span.device) {
                fleet.take(&before.device, std::mem::take(&mut of_one));
            }
            let when = Stretch { from: span.started_at, until: span.ended_at.unwrap_or(over.ends_at) };
            of_one.push((class_of(&span), when));
            last = Some(span);
        }
    }
    if let Some(before) = last {
        fleet.take(&before.device, of_one);
    }
    // Of those that are left nothing is known.
    let left: Vec<DeviceId> = fleet.devices.keys().map(|id| (*id).clone()).collect();
    left.iter().for_each(|id| fleet.take(id, Vec::new()));
    Ok(())
}

/// A pool's recorded demand from the row that holds at the beginning of some time.
async fn steps_of(tx: &mut Tx, pool: &Pool, over: Interval) -> Result<Vec<Step>> {
    let after = |at: Timestamp| Timestamp::from_micros(at.micros().saturating_add(1));
    let mut steps: Vec<Step> = demand::find_step_before(tx, pool, after(over.starts_at)).await?.into_iter().collect();
    let mut since = after(over.starts_at);
    loop {
        let page = demand::list_steps(tx, pool, since, STEPS_PAGE).await?;
        let is_last = i64::try_from(page.len()).unwrap_or(0) < STEPS_PAGE;
        steps.extend(page.into_iter().filter(|step| Timestamp::from_seconds(step.at_s) < over.ends_at));
        let Some(newest) =
            steps.last().map(|step| Timestamp::from_seconds(step.at_s)).filter(|newest| !is_last && *newest >= since)
        else {
            return Ok(steps);
        };
        since = after(newest);
    }
}

/// The zone in which the owner's week is: that of the declared price of energy.
fn zone_of(costs: Option<&SupplyCost>) -> Result<Zone> {
    let bands = costs.and_then(|costs| costs.content().energy.as_ref()?.time_of_use.as_ref());
    bands.map_or_else(|| Zone::new("UTC"), |bands| Ok(bands.zone.clone()))
}

/// Of the part of a month that is over: nobody knows yet what will not be filled in the rest.
async fn unfilled_in(tx: &mut Tx, over: Interval, margin: &MarginReport) -> Result<UnfilledDemand> {
    // What was asked for before may reach into the month.
    let asked_in = Interval { starts_at: over.starts_at.minus(WANTED_MAX), ..over };
    let (asks, is_all) = sublet_store::unfilled::of_time(tx, asked_in, over.starts_at).await?;
    let (found, is_all_leased) = sublet_store::unfilled::leased_beside(tx, asked_in, over.starts_at).await?;
    let mut leased: BTreeMap<DeviceKind, BTreeMap<ProjectId, Vec<Leased>>> = BTreeMap::new();
    for found in found {
        if let SkuName::Device { device, .. } = found.sku {
            leased.entry(device).or_default().entry(found.project).or_default().push(found.leased);
        }
    }
    let mut by_kind: BTreeMap<(Currency, DeviceKind), Vec<Ask>> = BTreeMap::new();
    for asked in asks {
        by_kind.entry((asked.currency, asked.kind)).or_default().push(asked.ask);
    }
    let (zone, nothing) = (zone_of(margin.costs.as_ref())?, BTreeMap::new());
    let (mut kinds, mut elsewhere) = (BTreeMap::new(), BTreeMap::new());
    for ((currency, kind), asks) in by_kind {
        let leased = leased.get(&kind).unwrap_or(&nothing);
        let found = unfilled(Wants { asks: &asks, leased }, over, &zone)?;
        if found.device_millis == 0 {
            continue;
        }
        if currency == margin.currency {
            kinds.insert(kind, found);
        } else {
            let sum: &mut i64 = elsewhere.entry(currency).or_default();
            *sum = sum.saturating_add(found.device_millis);
        }
    }
    let is_all = is_all && is_all_leased && !sublet_store::unfilled::is_cut(tx, asked_in).await?;
    Ok(UnfilledDemand { kinds, elsewhere, zone, is_all })
}

/// Every class, whether anything of it ended or not.
async fn promises_in(tx: &mut Tx, month: Interval) -> Result<BTreeMap<NoticeClass, Promises>> {
    let mut promises: BTreeMap<NoticeClass, Promises> =
        NoticeClass::ALL.into_iter().map(|notice| (notice, Promises::default())).collect();
    for (notice, ended) in stored::ended_by_notice(tx, month).await? {
        promises.entry(notice).or_default().ended = ended;
    }
    let mut after = String::new();
    loop {
        let page = stored::told_leases(tx, month, &after).await?;
        let Some(last) = page.last() else { break };
        after = last.id.to_string();
        let mut leases: BTreeMap<LeaseId, (ToldLease, Vec<LeaseNotice>)> = BTreeMap::new();
        for told in page {
            let notice = told.notice;
            leases.entry(told.id.clone()).or_insert_with(|| (told, Vec::new())).1.push(notice);
        }
        for (lease, notices) in leases.values() {
            let of_class = promises.entry(lease.class).or_default();
            judge(tx, lease, notices, of_class).await?;
        }
    }
    for (notice, currency, amount) in stored::compensated_by_notice(tx, month).await? {
        promises.entry(notice).or_default().compensated.insert(currency, amount);
    }
    Ok(promises)
}

async fn judge(tx: &mut Tx, lease: &ToldLease, notices: &[LeaseNotice], of_class: &mut Promises) -> Result<()> {
    of_class.ended_by_owner += 1;
    let Some(end) = owners_end(lease.class, notices) else { return Ok(()) };
    let ended_at = last_instant(tx, &lease.id, &end).await?;
    let interruption = Interruption {
        class: lease.class,
        units: lease.units,
        price: lease.price,
        started_at: lease.started_at,
        window_ends_at: lease.window_ends_at,
        told_at: end.told_at.min(ended_at),
        ended_at,
    };
    if interruption.missing() > DurationMs::ZERO {
        of_class.broken += 1;
    } else {
        of_class.kept += 1;
    }
    Ok(())
}
