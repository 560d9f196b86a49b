//! Storage: what projects keep is metered by the hour, charged, and paid by credit as far as that goes.
//!
//! Invariants: an hour of a project is metered and charged once for ever, in one transaction that also moves the mark on up to
//! which it is metered; never more is charged than was kept. An hour is metered only after everything in it can be known.
//!
//! Deliberately absent: holds, and deleting what is not paid for. Nothing is deleted for money; what can be prevented, new
//! files, is.

use std::collections::BTreeMap;
use std::sync::Arc;

use sublet_core::admission::SpendClass;
use sublet_core::id::{KeyId, ProjectId, StorageHourId};
use sublet_core::{DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::period::{BillingCalendar, Interval, PeriodKey};
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::price_book::PriceListVersion;
use sublet_money::rating::{LineKey, LineState, RatedLine, rate_line};
use sublet_money::rerate::UsedAt;
use sublet_money::sku::{Quantity, SkuFamily, SkuName};
use sublet_money::spend_limit::Work;
use sublet_money::storage::{ByteTime, HOUR, hour_of};
use sublet_money::stretch::Stretches;
use sublet_money::time_of_use::BandName;
use sublet_store::charge::{self, Charge};
use sublet_store::file::Kept;
use sublet_store::organization::{self, Organization};
use sublet_store::storage::{self, KeptCursor, StorageMeter, StoragePart};
use sublet_store::{Tx, budget, ledger, setting, top_up_rule};

use crate::billing::Billing;
use crate::budget::periods_at;
use crate::credit_lot::StoredCredit;
use crate::hold::HoldOwner;
use crate::{Actor, Cloud};

/// How long after its end an hour is metered: by then it is known what was deleted in it, and what lived too short to count.
const METER_AFTER: DurationMs = DurationMs::from_seconds(5 * 60);
/// Hours of a project that are metered in one transaction: 31 days.
const HOURS_AT_ONCE: i64 = 31 * 24;
/// By how much fewer it is tried with when the database is too busy for so many.
const FEWER_HOURS: i64 = 8;
/// Transactions for one project in one look: more hours than a test clock goes forward at once.
const STEPS_PER_LOOK: usize = 13;
/// Projects that are looked at together.
const PROJECTS_AT_ONCE: i64 = 100;
/// The setting that says since when files are metered.
const METERED_SINCE: &str = "storage_metered_since";

const SKU: SkuName = SkuName::FileStorage;
const FAMILY: SkuFamily = SkuFamily::FileStorage;

/// What a look at what is kept did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct MeterReport {
    /// Projects of which something failed; each was logged, and is tried again.
    pub failed: u64,
}

/// A part of an hour that is charged on one line.
struct Part {
    hour: Timestamp,
    interval: Interval,
    period: PeriodKey,
    /// The list in force at its beginning, if that has a price.
    version: Option<Arc<PriceListVersion>>,
    band: Option<BandName>,
}

/// What a step charges.
#[derive(Default)]
struct Charged {
    charges: Vec<Charge>,
    lines: BTreeMap<LineKey, LineState>,
}

impl Cloud {
    /// Meters every hour that is over and not metered, of every project that keeps files.
    pub(crate) async fn meter_storage(&self, is_stopped: &(impl Fn() -> bool + Sync)) -> Result<MeterReport> {
        let is_begun = self.store.read((), |(), tx| {
            Box::pin(async move { Ok(setting::find(tx, METERED_SINCE).await?.is_some() && !storage::is_any_unmetered(tx).await?) })
        });
        if !is_begun.await? {
            self.store.write(self, |cloud, tx| Box::pin(cloud.begin_to_meter(tx))).await?;
        }
        let mut report = MeterReport::default();
        let mut last: Option<ProjectId> = None;
        loop {
            let page = (self.metered_until(), last);
            let due = self
                .store
                .read(page, |(until, last), tx| Box::pin(storage::due(tx, *until, last.as_ref(), PROJECTS_AT_ONCE)))
                .await?;
            let Some(newest) = due.last() else { return Ok(report) };
            last = Some(newest.clone());
            for project in &due {
                if is_stopped() {
                    return Ok(report);
                }
                if let Err(error) = self.meter_project(project).await {
                    report.failed += 1;
                    tracing::error!(%project, %error, private = ?error, "what a project keeps was not metered; it is tried again");
                }
            }
        }
    }

    /// Up to here everything can be known.
    fn metered_until(&self) -> Timestamp {
        hour_of(self.now().minus(METER_AFTER))
    }

    /// Files from before anything was metered are metered from now on; others whose project has no mark, from the first.
    async fn begin_to_meter(&self, tx: &mut Tx) -> Result<()> {
        let since = match setting::find(tx, METERED_SINCE).await? {
            Some(since) => {
                Timestamp::from_micros(since.parse().map_err(|_| Error::internal(format!("'{METERED_SINCE}' is '{since}'")))?)
            }
            None => {
                setting::set(tx, METERED_SINCE, &self.now().micros().to_string()).await?;
                self.now()
            }
        };
        storage::begin_all(tx, since).await
    }

    async fn meter_project(&self, project: &ProjectId) -> Result<()> {
        let mut hours = HOURS_AT_ONCE;
        for _ in 0..STEPS_PER_LOOK {
            let of = (self, project);
            let step = self.store.write(of, move |(cloud, project), tx| Box::pin(cloud.meter_step(tx, project, hours))).await;
            match step {
                Ok(true) => {}
                Ok(false) => break,
                // What is short collides with less.
                Err(error) if error.code() == ErrorCode::StoreUnavailable && hours > 1 => hours = (hours / FEWER_HOURS).max(1),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Meters the next hours of a project. False if there are none.
    async fn meter_step(&self, tx: &mut Tx, project: &ProjectId, hours: i64) -> Result<bool> {
        let Some(meter) = storage::find_meter(tx, project).await? else { return Ok(false) };
        let from = meter.metered_until;
        let until = self.metered_until().min(from.plus(DurationMs::from_hours(hours)));
        if until <= from || !storage::move_on(tx, &meter, until).await? {
            return Ok(false);
        }
        let within = Interval { starts_at: from, ends_at: until };
        self.meter_hours(tx, &meter, within).await?;
        storage::forget(tx, project, until).await?;
        Ok(true)
    }

    async fn meter_hours(&self, tx: &mut Tx, meter: &StorageMeter, within: Interval) -> Result<()> {
        let account = organization::get(tx, &Scope::Operator, &meter.organization).await?;
        let billing = Billing::of_account(tx, &account).await?;
        let parts = self.parts_of(tx, (&account, &billing.calendar), within).await?;
        let mut time = ByteTime::new(parts.iter().map(|part| part.interval).collect())?;
        add_kept(tx, &meter.project, within, &mut time).await?;
        let mut charged = Charged::default();
        let metered: Vec<(Part, Quantity)> = parts.into_iter().zip(time.quantities()?).collect();
        for hour in metered.chunk_by(|one, other| one.0.hour == other.0.hour) {
            self.meter_hour(tx, (&account, &billing), (&meter.project, hour), &mut charged).await?;
        }
        let lines: Vec<_> = charged.lines.iter().map(|(key, state)| (key, *state)).collect();
        charge::set_line_states(tx, &lines).await?;
        charge::insert(tx, &charged.charges).await?;
        let amount = Nanos::checked_sum(charged.charges.iter().map(|charge| charge.amount))?;
        let owner = HoldOwner {
            organization: account.id.clone(),
            project: meter.project.clone(),
            key: None,
            subject: format!("files of {}", meter.project),
            family: FAMILY,
        };
        self.pay_or_owe(tx, &account, &owner, (amount, within.starts_at)).await
    }

    /// The parts of hours: each is of one month, one price list and one band.
    async fn parts_of(
        &self,
        tx: &mut Tx,
        (account, calendar): (&Organization, &BillingCalendar),
        within: Interval,
    ) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let mut starts_at = within.starts_at;
        while starts_at < within.ends_at {
            let hour = hour_of(starts_at);
            let month = calendar.period_at(starts_at)?;
            let interval = Interval { starts_at, ends_at: hour.plus(HOUR).min(month.interval.ends_at) };
            let version = self.version_at(tx, account, starts_at.max(account.created_at)).await?;
            match version.filter(|version| version.find(&SKU).is_some()) {
                Some(version) => {
                    for stretch in Stretches::new(calendar, version.get(&SKU)?.over_time(None)?, interval) {
                        let stretch = stretch?;
                        let (interval, band) = (stretch.interval, stretch.band);
                        parts.push(Part { hour, interval, period: stretch.period, version: Some(version.clone()), band });
                    }
                }
                None => parts.push(Part { hour, interval, period: month.key, version: None, band: None }),
            }
            starts_at = interval.ends_at;
        }
        Ok(parts)
    }

    /// Writes down what was kept in an hour, and charges it; nothing if it was metered before.
    async fn meter_hour(
        &self,
        tx: &mut Tx,
        (account, billing): (&Organization, &Billing),
        (project, parts): (&ProjectId, &[(Part, Quantity)]),
        charged: &mut Charged,
    ) -> Result<()> {
        let Some((Part { hour, .. }, _)) = parts.first() else { return Ok(()) };
        if parts.iter().all(|(_, quantity)| quantity.is_zero()) || storage::is_metered(tx, project, *hour).await? {
            return Ok(());
        }
        let id: StorageHourId = self.ids.mint();
        for (number, (part, byte_hours)) in (0..).zip(parts) {
            let metered = StoragePart {
                id: id.clone(),
                organization: account.id.clone(),
                project: project.clone(),
                hour: *hour,
                part: number,
                starts_at: part.interval.starts_at,
                period: part.period,
                byte_hours: *byte_hours,
                price_version: part.version.as_ref().map(|version| version.version().clone()),
                band: part.band.clone(),
            };
            storage::insert(tx, &metered).await?;
            if let Some(version) = part.version.as_ref().filter(|_| !byte_hours.is_zero()) {
                let rated = self.rate_part(tx, billing, (&metered, version), charged).await?;
                charged.charges.push(self.charge_of_part(account, billing, &metered, &rated));
                charged.lines.insert(rated.key, rated.after);
            }
        }
        Ok(())
    }

    async fn rate_part(
        &self,
        tx: &mut Tx,
        billing: &Billing,
        (part, version): (&StoragePart, &Arc<PriceListVersion>),
        charged: &Charged,
    ) -> Result<RatedLine> {
        let key = LineKey {
            organization: part.organization.clone(),
            project: part.project.clone(),
            period: part.period,
            price_version: version.version().clone(),
            sku: SKU,
            band: part.band.clone(),
        };
        // Use of a time that was rated anew meanwhile goes where it would be now.
        let (key, version) = self.line_now(tx, billing, (key, UsedAt::instant(part.starts_at)), version).await?;
        let state = match charged.lines.get(&key) {
            Some(state) => *state,
            None => charge::line_state(tx, &key).await?,
        };
        rate_line(key, state, &version, part.byte_hours)
    }

    fn charge_of_part(&self, account: &Organization, billing: &Billing, part: &StoragePart, rated: &RatedLine) -> Charge {
        Charge {
            id: self.ids.mint(),
            organization: part.organization.clone(),
            project: part.project.clone(),
            key: None,
            source: part.id.to_string(),
            sku: rated.key.sku.clone(),
            quantity: rated.quantity,
            amount: rated.amount,
            currency: account.currency,
            price_version: rated.key.price_version.clone(),
            period: rated.key.period,
            billed_in: billing.billed_in(rated.key.period),
            band: rated.key.band.clone(),
            before: rated.before,
            occurred_at: part.starts_at,
            posted_at: self.now(),
        }
    }

    /// From credit as far as there is any; the rest is owed. It counts in the limits as far as they have room.
    pub(crate) async fn pay_or_owe(
        &self,
        tx: &mut Tx,
        account: &Organization,
        owner: &HoldOwner,
        (amount, used_at): (Nanos, Timestamp),
    ) -> Result<()> {
        if amount.is_zero() {
            return Ok(());
        }
        let now = self.now();
        let subjects = [owner.key.as_ref().map_or("", KeyId::as_str), owner.project.as_str(), account.id.as_str()];
        let budgets = budget::chain(tx, &subjects, &SpendClass::default(), &periods_at(&account.time_zone, now)?).await?;
        for limit in &budgets {
            let counted = amount.min(limit.room(Work::Admitted));
            // Of a limit that is lower than what is spent, not even nothing can be reserved.
            if !counted.is_zero() {
                let reference = std::slice::from_ref(&limit.reference);
                budget::reserve(tx, reference, counted, Work::Admitted).await?;
                budget::settle(tx, reference, counted).await?;
            }
            if counted < amount {
                budget::mark_reached(tx, &limit.reference, now).await?;
            }
        }
        let stored = StoredCredit::at(tx, account, used_at).await?;
        let (family, paid_as) = (owner.family, owner.family.paid_as());
        let covered = stored.credit.spendable(paid_as, used_at)?.min(amount);
        let owed = amount.checked_sub(covered)?;
        let from = stored.burn(tx, covered, (paid_as, used_at)).await?.split()?;
        let head = EntryHead { id: self.ids.mint(), at: now, currency: account.currency, memo: owner.subject.clone() };
        ledger::post(tx, &post(head, &account.id, &Fact::FeeCharged { family, from, owed })?).await?;
        if owed > Nanos::ZERO {
            top_up_rule::wake(tx, &account.id, now).await?;
        }
        Ok(())
    }

    /// Whether any list in force has a price for what is kept: contracts have none for what public lists do not sell.
    pub(crate) fn sells_storage(&self) -> bool {
        let now = self.now();
        self.prices.snapshot().values().any(|list| list.find_at(now).is_some_and(|version| version.find(&SKU).is_some()))
    }

    /// Refuses a new file unless an hour of all that its project would keep is covered, by credit and by every limit.
    pub(crate) async fn check_storage_covered(&self, tx: &mut Tx, actor: &Actor, kept: Kept) -> Result<()> {
        let (organization, project) = actor.project()?;
        self.follow_changes(tx).await?;
        let account = organization::get(tx, &Scope::Operator, organization).await?;
        let now = self.now();
        let Ok(version) = self.prices.in_force_for((&account.id, account.currency), now) else { return Ok(()) };
        let Some(entry) = version.find(&SKU) else { return Ok(()) };
        self.check_suspension(tx, organization, Work::New).await?;
        let byte_hours = Quantity::new(i64::try_from(kept.bytes).unwrap_or(i64::MAX))?;
        let mut needed = Nanos::ZERO;
        let calendar = BillingCalendar::new(&account.time_zone)?;
        let hour = Interval { starts_at: now, ends_at: now.plus(HOUR) };
        for stretch in Stretches::new(&calendar, entry.over_time(None)?, hour) {
            let stretch = stretch?;
            let key = LineKey {
                organization: organization.clone(),
                project: project.clone(),
                period: stretch.period,
                price_version: version.version().clone(),
                sku: SKU,
                band: stretch.band,
            };
            // A minimum that the month has reached is not asked for again.
            let line = charge::line_state(tx, &key).await?;
            needed = needed.max(entry.price_in(key.band.as_ref())?.hold(line.quantity, byte_hours)?);
        }
        let subjects = [actor.key.as_ref().map_or("", KeyId::as_str), project.as_str(), organization.as_str()];
        let budgets = budget::chain(tx, &subjects, &SpendClass::default(), &periods_at(&account.time_zone, now)?).await?;
        if let Some(tight) = budgets.iter().filter(|budget| budget.room(Work::New) < needed).min_by_key(|budget| budget.left()) {
            return Err(budget::exhausted(tight, needed));
        }
        let left = self.credit_for(tx, &account, (needed, FAMILY), now).await?.credit.spendable(FAMILY, now)?;
        if left >= needed {
            return Ok(());
        }
        let message =
            format!("keeping it costs {needed} {} an hour with what the project keeps, and {left} is left", account.currency);
        Err(Error::new(ErrorCode::InsufficientQuota, message)
            .alternative("add credit to the organization's account")
            .alternative("delete files that are not needed: DELETE /v1/files/{id}"))
    }
}

/// Adds up what a project kept within an interval.
async fn add_kept(tx: &mut Tx, project: &ProjectId, within: Interval, time: &mut ByteTime) -> Result<()> {
    time.add(storage::kept_throughout(tx, project, within).await?)?;
    let mut cursor = KeptCursor::default();
    loop {
        let page = storage::kept_partly(tx, project, within, &mut cursor).await?;
        if page.is_empty() {
            return Ok(());
        }
        page.into_iter().try_for_each(|kept| time.add(kept))?;
    }
}
