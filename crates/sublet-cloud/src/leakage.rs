//! What runs or was metered and brings nothing: each finding with what to do about it. Empty when all is well.
//!
//! What waits for somebody is found however old it is; what is over, if it is not older than [`LOOKED_BACK`].

use std::collections::BTreeSet;

use sublet_core::admission::PriceVersion;
use sublet_core::id::OrganizationId;
use sublet_core::supply::Catalogue;
use sublet_core::{Currency, DurationMs, Nanos, Result, Scope, Timestamp};
use sublet_money::period::BillingCalendar;
use sublet_money::sku::{ModelName, Quantity, SkuFamily, SkuName};
use sublet_money::storage::hour_of;
use sublet_store::leakage::{self, FINDINGS_MAX, LostMoney, UnchargedRecord, UnchargedTime, Unmetered};
use sublet_store::{Tx, charge, device, invoice, job, organization};

use crate::{Action, Actor, Cloud};

/// How long something that is over is shown: long enough for the report of a month.
pub const LOOKED_BACK: DurationMs = DurationMs::from_hours(35 * 24);
/// How late work of the background may be before it counts as not done.
const PATIENCE: DurationMs = DurationMs::from_hours(1);
/// Months that are compared with their invoices at once.
const MONTHS_AT_ONCE: i64 = 100;

/// What is wrong with something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum LeakKind {
    QuarantinedUsage,
    SupersededLine,
    TimeBeyondHold,
    TimeNotCharged,
    TimeNotMetered,
    TimeNotSettled,
    RunningUnheld,
    LeasePastEnd,
    LostSlice,
    Suspense,
    MonthNotBilled,
    ChargesNotInvoiced,
    ModelWithoutPrice,
    DeviceWithoutPrice,
    LostDownload,
    StorageBehind,
    FileNotMetered,
    StartNotCharged,
}

impl LeakKind {
    pub const ALL: [Self; 18] = [
        Self::QuarantinedUsage,
        Self::SupersededLine,
        Self::TimeBeyondHold,
        Self::TimeNotCharged,
        Self::TimeNotMetered,
        Self::TimeNotSettled,
        Self::RunningUnheld,
        Self::LeasePastEnd,
        Self::LostSlice,
        Self::Suspense,
        Self::MonthNotBilled,
        Self::ChargesNotInvoiced,
        Self::ModelWithoutPrice,
        Self::DeviceWithoutPrice,
        Self::LostDownload,
        Self::StorageBehind,
        Self::FileNotMetered,
        Self::StartNotCharged,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QuarantinedUsage => "quarantined_usage",
            Self::SupersededLine => "superseded_line",
            Self::TimeBeyondHold => "time_beyond_hold",
            Self::TimeNotCharged => "time_not_charged",
            Self::TimeNotMetered => "time_not_metered",
            Self::TimeNotSettled => "time_not_settled",
            Self::RunningUnheld => "running_unheld",
            Self::LeasePastEnd => "lease_past_end",
            Self::LostSlice => "lost_slice",
            Self::Suspense => "suspense",
            Self::MonthNotBilled => "month_not_billed",
            Self::ChargesNotInvoiced => "charges_not_invoiced",
            Self::ModelWithoutPrice => "model_without_price",
            Self::DeviceWithoutPrice => "device_without_price",
            Self::LostDownload => "lost_download",
            Self::StorageBehind => "storage_behind",
            Self::FileNotMetered => "file_not_metered",
            Self::StartNotCharged => "start_not_charged",
        }
    }

    /// What somebody should do.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::QuarantinedUsage => {
                "look at the reason, and put right what caused it; nothing of it is charged, or owed to a supplier"
            }
            Self::SupersededLine => {
                "nothing to charge: two attempts computed one line; if there are many, look for processes that stall"
            }
            Self::TimeBeyondHold => "look why the workload did not stop at the end of its money: the node, or its runner",
            Self::TimeNotCharged => "verify the ledger, and charge or write off the job's time",
            Self::TimeNotMetered => "look at the runner's events of this job, and charge or write off its time",
            Self::TimeNotSettled => "look whether the reconciler of compute runs",
            Self::RunningUnheld => "end the lease: nothing is set aside for it any more",
            Self::LeasePastEnd => "end the lease, and look whether the reconciler of compute runs",
            Self::LostSlice => {
                "start the gateway with its journal, so that what it served is charged; if it is gone, declare it lost"
            }
            Self::Suspense => "start the lost gateway with its journal, or write off what it had in the customers' favour",
            Self::MonthNotBilled => "look in the log why the month cannot be closed; it is tried every minute",
            Self::ChargesNotInvoiced => "verify the ledger: charges came into a month after its invoice",
            Self::ModelWithoutPrice => "publish a price, or withdraw the model: it cannot be sold",
            Self::DeviceWithoutPrice => "publish a price for the device kind: it cannot be sold",
            Self::LostDownload => "nothing to charge: nobody knows what was sent; if there are many, look why processes end early",
            Self::StorageBehind => "look in the log why what the project keeps is not metered; it is tried again every minute",
            Self::FileNotMetered => "look whether months are closed here: metering begins with that, from the oldest file on",
            Self::StartNotCharged => "verify the ledger, and charge or write off the job's start",
        }
    }
}

/// One thing that brings nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leak {
    pub kind: LeakKind,
    /// What it is about: a request, a job, a lease, an account, an invoice's month, a model, a download, a project, a file.
    pub id: String,
    pub organization: Option<OrganizationId>,
    pub since: Option<Timestamp>,
    /// At list price where it was not charged; `None` if that is not known.
    pub at_stake: Option<(Nanos, Currency)>,
    pub detail: String,
}

impl Leak {
    fn new(kind: LeakKind, id: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind, id: id.into(), organization: None, since: None, at_stake: None, detail: detail.into() }
    }
}

/// All findings.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LeakageReport {
    pub as_of: Timestamp,
    pub leaks: Vec<Leak>,
    /// Kinds of which there are more than are listed.
    pub more: BTreeSet<LeakKind>,
}

impl LeakageReport {
    fn take(&mut self, kind: LeakKind, found: impl IntoIterator<Item = Leak>) {
        let before = self.leaks.len();
        self.leaks.extend(found);
        if i64::try_from(self.leaks.len() - before).is_ok_and(|count| count >= FINDINGS_MAX) {
            self.more.insert(kind);
        }
    }
}

impl Cloud {
    /// Looks for everything that brings nothing, `served` being the models that this process answers for itself.
    pub async fn leakage(&self, actor: &Actor, served: &[String]) -> Result<LeakageReport> {
        actor.require(Action::ReadLedger)?;
        let now = self.now();
        self.store.read((self, served, now), |(cloud, served, now), tx| Box::pin(cloud.leakage_in(tx, served, *now))).await
    }

    async fn leakage_in(&self, tx: &mut Tx, served: &[String], now: Timestamp) -> Result<LeakageReport> {
        let since = now.minus(LOOKED_BACK);
        let mut report = LeakageReport { as_of: now, ..LeakageReport::default() };
        let records = |kind, found: Vec<UnchargedRecord>| found.into_iter().map(move |found| self.record_leak(kind, found, now));
        report.take(LeakKind::QuarantinedUsage, records(LeakKind::QuarantinedUsage, leakage::quarantined(tx).await?));
        report.take(LeakKind::SupersededLine, records(LeakKind::SupersededLine, leakage::superseded(tx, since).await?));
        for (kind, found) in times(tx, since, now).await? {
            if i64::try_from(found.len()).is_ok_and(|count| count >= FINDINGS_MAX) {
                // Those that are no leaks are sorted out of the first only.
                report.more.insert(kind);
            }
            let mut leaks = Vec::with_capacity(found.len());
            for found in found {
                // What is paid by the package is charged at the end of its lease.
                if kind != LeakKind::TimeNotSettled || self.settles_bit_by_bit(tx, &found).await? {
                    leaks.push(self.time_leak(tx, kind, found).await);
                }
            }
            report.take(kind, leaks);
        }
        report.take(LeakKind::LostSlice, leakage::lost_slices(tx, now.minus(PATIENCE)).await?.into_iter().map(money_leak));
        report.take(LeakKind::Suspense, leakage::in_suspense(tx).await?.into_iter().map(money_leak));
        report.take(LeakKind::MonthNotBilled, self.months_behind(tx, now).await?);
        report.take(LeakKind::ChargesNotInvoiced, not_invoiced(tx, since).await?);
        self.unpriced(tx, served, &mut report).await?;
        self.files(tx, since, &mut report).await?;
        report.take(LeakKind::StartNotCharged, self.starts_not_charged(tx, since).await?);
        Ok(report)
    }

    /// At the price of its admission; a record that names no price that is known, at the one in force.
    fn record_leak(&self, kind: LeakKind, found: UnchargedRecord, now: Timestamp) -> Leak {
        let UnchargedRecord { record, currency, reason } = found;
        let prices = [record.admitted_at, now].into_iter().find_map(|at| {
            let prices = self.prices.token_prices((&record.organization, currency), (&record.model, record.tier), at);
            // What nobody can have used is at no price.
            let (prices, tokens) = (prices.ok()?, &record.tokens);
            let costs = [(prices.input, tokens.input), (prices.cached_input, tokens.cached_input), (prices.output, tokens.output)];
            let costs: Result<Vec<_>> = costs.into_iter().map(|(rate, count)| rate.cost_half_even(count.get())).collect();
            costs.and_then(Nanos::checked_sum).ok()
        });
        let detail = if reason.is_empty() { format!("attempt {} for {}", record.attempt, record.model) } else { reason };
        Leak {
            organization: Some(record.organization.clone()),
            since: Some(record.admitted_at),
            at_stake: prices.map(|amount| (amount, currency)),
            ..Leak::new(kind, record.request.to_string(), detail)
        }
    }

    async fn time_leak(&self, tx: &mut Tx, kind: LeakKind, found: UnchargedTime) -> Leak {
        let version = self.price_version(tx, &PriceVersion(found.price_version.as_str().into())).await.ok();
        let entry = version.as_ref().and_then(|version| version.find(&found.sku));
        let index = match entry {
            Some(entry) => self.index_of(tx, entry, found.since).await.ok().flatten(),
            None => None,
        };
        let price = entry.and_then(|entry| entry.over_time(index.as_ref()).ok()?.price_at(found.since).ok());
        let quantity = Quantity::new(found.millis).unwrap_or_default();
        let amount = price.and_then(|price| price.exact_cost(quantity).ok()?.half_even().ok());
        let detail = format!("{} ms of {}", found.millis, found.sku);
        Leak {
            organization: Some(found.organization),
            since: Some(found.since),
            at_stake: amount.filter(|_| found.millis > 0).map(|amount| (amount, found.currency)),
            ..Leak::new(kind, found.id, detail)
        }
    }

    async fn settles_bit_by_bit(&self, tx: &mut Tx, found: &UnchargedTime) -> Result<bool> {
        let version = self.price_version(tx, &PriceVersion(found.price_version.as_str().into())).await?;
        Ok(version.find(&found.sku).is_none_or(|entry| entry.prices().all(|price| price.model().is_proportional())))
    }

    async fn months_behind(&self, tx: &mut Tx, now: Timestamp) -> Result<Vec<Leak>> {
        let before = now.minus(self.settings.close_after).minus(PATIENCE);
        let mut leaks = Vec::new();
        for (id, period, ends_at) in leakage::months_behind(tx, before).await? {
            let account = organization::get(tx, &Scope::Operator, &id).await?;
            let ended_at = BillingCalendar::new(&account.time_zone)?.period(period)?.interval.ends_at;
            // A month that was closed a moment ago is about to be billed.
            if ended_at >= before {
                continue;
            }
            let (_, amount) = charge::period_total(tx, &id, period).await?;
            let detail = if ends_at.is_some() { "is over and not closed" } else { "is closed and has no invoice" };
            leaks.push(Leak {
                organization: Some(id.clone()),
                since: Some(ended_at),
                at_stake: Some((amount, account.currency)),
                ..Leak::new(LeakKind::MonthNotBilled, format!("{id}/{period}"), format!("{period} {detail}"))
            });
        }
        Ok(leaks)
    }

    /// What of files brings nothing: what is kept and not metered, and what was sent and is not known.
    async fn files(&self, tx: &mut Tx, since: Timestamp, report: &mut LeakageReport) -> Result<()> {
        let mut lost = Vec::new();
        for found in leakage::lost_downloads(tx, since).await? {
            let version = self.price_version(tx, &found.price_version).await.ok();
            let price = version.as_ref().and_then(|version| version.find(&SkuName::FileEgress)?.price_at(found.opened_at).ok());
            let cost = |bytes| price.and_then(|price| price.exact_cost(Quantity::new(bytes).ok()?).ok()?.half_even().ok());
            let detail = match found.bytes {
                Some(bytes) => format!("nobody knows how much of {bytes} bytes was sent"),
                None => "nobody knows how much was sent of a file that is gone".to_owned(),
            };
            lost.push(Leak {
                organization: Some(found.organization),
                since: Some(found.opened_at),
                at_stake: found.bytes.and_then(cost).map(|amount| (amount, found.currency)),
                ..Leak::new(LeakKind::LostDownload, found.id.to_string(), detail)
            });
        }
        report.take(LeakKind::LostDownload, lost);
        let before = report.as_of.minus(PATIENCE);
        let behind = leakage::storage_behind(tx, hour_of(before).minus(PATIENCE)).await?;
        let leak = |kind, detail: &'static str| move |found| unmetered_leak(found, kind, detail);
        report.take(
            LeakKind::StorageBehind,
            behind.into_iter().map(leak(LeakKind::StorageBehind, "its files are metered until then")),
        );
        let files = leakage::files_without_meter(tx, before).await?;
        report.take(LeakKind::FileNotMetered, files.into_iter().map(leak(LeakKind::FileNotMetered, "its project has no meter")));
        Ok(())
    }

    async fn starts_not_charged(&self, tx: &mut Tx, since: Timestamp) -> Result<Vec<Leak>> {
        let limit = usize::try_from(FINDINGS_MAX).unwrap_or(usize::MAX);
        let mut leaks = Vec::new();
        for id in leakage::versions_of_starts(tx, since).await? {
            let version = self.price_version(tx, &id).await?;
            for entry in version.entries().filter(|entry| entry.sku.family() == SkuFamily::JobStarts) {
                let price = entry.model.dearest_from(Quantity::ZERO)?;
                for found in leakage::starts_not_charged(tx, (&id, &entry.sku), since).await? {
                    let job = job::get(tx, &Scope::Operator, &found.id.parse()?).await?;
                    // Its list may have been put right to one that asks nothing for it.
                    if !self.asks_for_start(tx, &job, found.since).await? {
                        continue;
                    }
                    let at_stake = Some((price, version.currency()));
                    leaks.push(Leak {
                        at_stake,
                        ..unmetered_leak(found, LeakKind::StartNotCharged, "its start has a price and no charge")
                    });
                }
            }
            if leaks.len() >= limit {
                break;
            }
        }
        leaks.truncate(limit);
        Ok(leaks)
    }

    async fn unpriced(&self, tx: &mut Tx, served: &[String], report: &mut LeakageReport) -> Result<()> {
        let remote = self.remote_models();
        let names: BTreeSet<&str> =
            served.iter().map(String::as_str).chain(remote.models.values().map(|model| model.name.as_str())).collect();
        let lists = self.prices.snapshot();
        let in_force: Vec<_> = lists.values().filter_map(|list| list.find_at(report.as_of)).collect();
        let is_sold = |name: &str| {
            name.parse::<ModelName>().is_ok_and(|name| in_force.iter().any(|version| version.tiers(&name).next().is_some()))
        };
        let unsold = names.into_iter().filter(|name| !is_sold(name));
        let limit = usize::try_from(FINDINGS_MAX).unwrap_or(usize::MAX);
        let models = unsold.map(|name| Leak::new(LeakKind::ModelWithoutPrice, name, "it has no price in any list in force"));
        report.take(LeakKind::ModelWithoutPrice, models.take(limit));
        let priced: BTreeSet<_> = in_force
            .iter()
            .flat_map(|version| version.entries())
            .filter_map(
                |entry| if let SkuName::Device { device, site, .. } = &entry.sku { Some((device, site.as_ref())) } else { None },
            )
            .collect();
        let mut kinds = std::collections::BTreeMap::new();
        for found in device::list_all(tx).await? {
            if [None, Some(&found.site)].into_iter().any(|site| priced.contains(&(&found.kind, site))) {
                continue;
            }
            let (count, since) = kinds.entry(found.kind).or_insert((0_usize, found.created_at));
            *count += 1;
            *since = (*since).min(found.created_at);
        }
        let unpriced = kinds.iter().map(|(kind, (count, since))| Leak {
            since: Some(*since),
            ..Leak::new(LeakKind::DeviceWithoutPrice, kind.as_str(), format!("{count} devices have no price at any notice"))
        });
        report.take(LeakKind::DeviceWithoutPrice, unpriced.take(limit));
        Ok(())
    }
}

/// Device time that brings nothing, by kind.
async fn times(tx: &mut Tx, since: Timestamp, now: Timestamp) -> Result<Vec<(LeakKind, Vec<UnchargedTime>)>> {
    Ok(vec![
        (LeakKind::TimeBeyondHold, leakage::beyond_hold(tx, since).await?),
        (LeakKind::TimeNotCharged, leakage::metered_not_charged(tx, since).await?),
        (LeakKind::TimeNotMetered, leakage::ran_not_metered(tx, since).await?),
        (LeakKind::TimeNotSettled, leakage::running_not_settled(tx, PATIENCE.millis().saturating_mul(1_000)).await?),
        (LeakKind::RunningUnheld, leakage::running_unheld(tx).await?),
        (LeakKind::LeasePastEnd, leakage::past_end(tx, now.minus(PATIENCE)).await?),
    ])
}

fn unmetered_leak(found: Unmetered, kind: LeakKind, detail: &str) -> Leak {
    Leak { organization: Some(found.organization), since: Some(found.since), ..Leak::new(kind, found.id, detail) }
}

fn money_leak(found: LostMoney) -> Leak {
    let (kind, detail) = match &found.gateway {
        Some(gateway) => (LeakKind::LostSlice, format!("a session of {gateway} that is over or silent has it still")),
        None => (LeakKind::Suspense, "of a lost gateway's slices".to_owned()),
    };
    Leak {
        organization: Some(found.organization),
        since: found.since,
        at_stake: Some((found.amount, found.currency)),
        ..Leak::new(kind, found.id, detail)
    }
}

/// Months whose charges are not what their invoice says.
async fn not_invoiced(tx: &mut Tx, since: Timestamp) -> Result<Vec<Leak>> {
    let mut leaks = Vec::new();
    let mut after = (String::new(), String::new());
    loop {
        let months = leakage::billed_months(tx, since, (&after.0, &after.1), MONTHS_AT_ONCE).await?;
        let Some((last, period, _)) = months.last() else { return Ok(leaks) };
        after = (last.to_string(), period.to_string());
        for (id, period, billed_at) in months {
            let (_, charged) = charge::period_total(tx, &id, period).await?;
            let issued = invoice::find_of_period(tx, &id, period).await?.filter(|found| found.invoice.number.is_some());
            let invoiced = issued.as_ref().map_or(Ok(Nanos::ZERO), |found| found.invoice.content.charged())?;
            if charged == invoiced {
                continue;
            }
            let currency = organization::get(tx, &Scope::Operator, &id).await?.currency;
            leaks.push(Leak {
                organization: Some(id.clone()),
                since: Some(billed_at),
                at_stake: Some((charged.checked_sub(invoiced)?, currency)),
                ..Leak::new(
                    LeakKind::ChargesNotInvoiced,
                    format!("{id}/{period}"),
                    format!("charges of {period} add up to {charged}, its invoice to {invoiced}"),
                )
            });
            if i64::try_from(leaks.len()).is_ok_and(|count| count >= FINDINGS_MAX) {
                return Ok(leaks);
            }
        }
    }
}
