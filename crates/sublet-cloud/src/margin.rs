//! The owner's view of a month: what was earned, what supplying it cost, and how busy the devices were.
//!
//! Revenue, and costs of what somebody used, are of each account's own calendar month, as on its invoice. What belongs to
//! nobody's account (idle devices, and what was posted besides use) is of the month in Coordinated Universal Time.

use std::collections::BTreeMap;

use sublet_core::device::{DeviceClass, DeviceKind};
use sublet_core::id::OrganizationId;
use sublet_core::organization::OrganizationClass;
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::{AccountKind, CostKind, LedgerAccount};
use sublet_money::margin::{Figures, MarginBook, MarginLines};
use sublet_money::period::{BillingCalendar, Interval, PeriodKey};
use sublet_money::sku::SkuName;
use sublet_money::supply_cost::{BandTime, EnergyPrice, Load, SupplyCost};
use sublet_store::margin::{self, PlacedCharges, PostedSum, SpanCursor, UsedLease, UsedSpan};
use sublet_store::organization::{self, Organization};
use sublet_store::{Tx, supply_cost};

use crate::{Action, Actor, Cloud};

/// How far an account's month can begin before that of Coordinated Universal Time, or end after it.
const ZONES_APART: DurationMs = DurationMs::from_hours(26);
/// Most changes of the price of energy within one span of a device's time: one a minute for a month.
const STRETCHES_MAX: usize = 31 * 24 * 60;

/// What was posted besides use, to the accounts of customers or of the owner's own teams.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Contra {
    pub promotions: Nanos,
    /// For promises that were not kept.
    pub compensations: Nanos,
    pub refunds: Nanos,
    /// Paid credit that expired.
    pub breakage: Nanos,
    /// Charged by contract for what was missing, and for leaving, less what was used up later.
    pub commitments: Nanos,
    /// Of contracts, as they are earned.
    pub fees: Nanos,
    /// Of invoices to whole cents.
    pub rounding: Nanos,
}

impl Contra {
    /// What is added to the revenue.
    pub fn total(&self) -> Result<Nanos> {
        self.breakage
            .checked_add(self.commitments)?
            .checked_add(self.fees)?
            .checked_add(self.rounding)?
            .checked_sub(self.promotions)?
            .checked_sub(self.compensations)?
            .checked_sub(self.refunds)
    }
}

/// Device time of a kind by what the devices did, in milliseconds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Utilisation {
    pub millis: BTreeMap<DeviceClass, i64>,
    /// What the time cost in which no workload ran; `None` where it is not known.
    pub unused_cost: Option<Nanos>,
}

impl Utilisation {
    pub fn of(&self, classes: &[DeviceClass]) -> i64 {
        classes.iter().filter_map(|class| self.millis.get(class)).sum()
    }
    pub fn capacity(&self) -> i64 {
        self.millis.values().sum()
    }
    /// Customers' share of the time, in thousandths, rounded down.
    pub fn sold_per_mille(&self) -> Option<i64> {
        let sold = i128::from(self.of(&[DeviceClass::Lease, DeviceClass::Spot])) * 1_000;
        sold.checked_div(i128::from(self.capacity())).and_then(|share| i64::try_from(share).ok())
    }
}

/// How the report stands to the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Agreement {
    /// Income for use that was posted in the month. It differs from the month's revenue by what was used in one month and
    /// posted in another.
    pub posted: Nanos,
    /// Revenue of all months there were.
    pub recognised: Nanos,
    /// What the income accounts for use add up to.
    pub booked: Nanos,
}

/// A month's figures in one currency.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MarginReport {
    pub month: PeriodKey,
    pub currency: Currency,
    pub as_of: Timestamp,
    pub costs: Option<SupplyCost>,
    pub made: MarginLines,
    /// Of customers, then of the owner's own teams.
    pub contra: [Contra; 2],
    pub processor_fees: Nanos,
    pub utilisation: BTreeMap<DeviceKind, Utilisation>,
    pub agreement: Agreement,
    pub names: BTreeMap<OrganizationId, String>,
}

impl MarginReport {
    /// All lines of customers, or of the owner's own teams.
    pub fn figures(&self, internal: bool) -> Result<Figures> {
        Figures::of(self.made.lines.iter().filter(|line| line.internal == internal))
    }
    /// What customers brought: use, less promotions and refunds, with breakage, commitments and rounding.
    pub fn net_revenue(&self) -> Result<Nanos> {
        self.figures(false)?.revenue.checked_add(self.contra[0].total()?)
    }
    /// What is taken from the net revenue: supply of what customers used, what was bought for nobody, and fees.
    pub fn cost(&self) -> Result<Nanos> {
        let used = self.figures(false)?.costs.total()?;
        Nanos::checked_sum([used, self.made.bought_for_nobody, self.processor_fees])
    }
    /// Of what has a known cost.
    pub fn gross_margin(&self) -> Result<Nanos> {
        self.net_revenue()?.checked_sub(self.figures(false)?.without_cost)?.checked_sub(self.cost()?)
    }
}

impl Cloud {
    /// A month in the currency of a price list, the first if none is named; the running month if none is.
    pub async fn margin_report(&self, actor: &Actor, month: Option<PeriodKey>, currency: Option<Currency>) -> Result<MarginReport> {
        actor.require(Action::ReadLedger)?;
        let asked = self.reported(month, currency)?;
        self.store.read((self, asked), |(cloud, (asked, now)), tx| Box::pin(cloud.margin_in(tx, *asked, *now))).await
    }

    /// What a report of the owner's is about, and the instant as of which it is.
    pub(crate) fn reported(
        &self,
        month: Option<PeriodKey>,
        currency: Option<Currency>,
    ) -> Result<((PeriodKey, Currency), Timestamp)> {
        let now = self.now();
        let month = match month {
            Some(month) => month,
            None => BillingCalendar::new("UTC")?.period_at(now)?.key,
        };
        Ok(((month, self.reported_currency(currency)?), now))
    }

    fn reported_currency(&self, asked: Option<Currency>) -> Result<Currency> {
        let lists = self.prices.snapshot();
        let known = asked.is_none_or(|asked| lists.values().any(|list| list.currency == asked));
        let first = lists.values().next().map(|list| list.currency);
        match asked.or(first).filter(|_| known) {
            Some(currency) => Ok(currency),
            None => {
                let error = Error::new(ErrorCode::InvalidRequest, "nothing is sold in this currency").param("currency");
                Err(lists.values().fold(error, |error, list| error.alternative(list.currency.as_str())))
            }
        }
    }

    pub(crate) async fn margin_in(
        &self,
        tx: &mut Tx,
        (month, currency): (PeriodKey, Currency),
        now: Timestamp,
    ) -> Result<MarginReport> {
        let costs = supply_cost::find_in_force(tx, currency, month).await?.map(|stored| stored.cost);
        let whole = BillingCalendar::new("UTC")?.period(month)?.interval;
        let mut accounts = Accounts::new(month, currency);
        let mut book = MarginBook::new(costs.as_ref());
        for line in margin::month_lines(tx, month, currency).await? {
            book.used(&line.organization, line.class == OrganizationClass::Internal, &line.sku, line.used)?;
            accounts.get(tx, &line.organization).await?;
        }
        for PlacedCharges { organization, sku, site, charged } in margin::month_places(tx, (month, currency), around(whole)).await?
        {
            book.earned(&organization, (&sku, &site), charged)?;
        }
        for (model, kind, bought) in margin::month_purchases(tx, month, currency).await? {
            book.bought(&model, kind, bought)?;
        }
        let until = whole.ends_at.min(now).max(whole.starts_at);
        let mut fleet = Fleet::new(costs.as_ref(), Interval { starts_at: whole.starts_at, ends_at: until });
        read_spans(tx, (&mut fleet, &mut accounts, &mut book), now).await?;
        let posted = margin::posted_sums(tx, whole, currency).await?;
        let (contra, processor_fees, income) = add_up(tx, &posted, &mut accounts).await?;
        let (recognised, booked) = margin::recognised_and_booked(tx, currency).await?;
        Ok(MarginReport {
            month,
            currency,
            as_of: now,
            made: book.finish()?,
            contra,
            processor_fees,
            utilisation: fleet.finish()?,
            agreement: Agreement { posted: income, recognised, booked },
            names: accounts.known.into_iter().map(|(id, account)| (id, account.found.name)).collect(),
            costs,
        })
    }
}

struct Account {
    found: Organization,
    month: Interval,
}

/// Accounts that a report meets, each read once.
struct Accounts {
    month: PeriodKey,
    currency: Currency,
    known: BTreeMap<OrganizationId, Account>,
}

impl Accounts {
    const fn new(month: PeriodKey, currency: Currency) -> Self {
        Self { month, currency, known: BTreeMap::new() }
    }
    async fn get(&mut self, tx: &mut Tx, id: &OrganizationId) -> Result<&Account> {
        if !self.known.contains_key(id) {
            let found = organization::get(tx, &Scope::Operator, id).await?;
            let month = BillingCalendar::new(&found.time_zone)?.period(self.month)?.interval;
            self.known.insert(id.clone(), Account { found, month });
        }
        self.known.get(id).ok_or_else(|| Error::internal("an account that was read is not there"))
    }
}

/// What devices did, and what the time cost in which nothing ran on them.
struct Fleet<'a> {
    costs: Option<&'a SupplyCost>,
    when: Interval,
    micros: BTreeMap<(DeviceKind, DeviceClass), i64>,
    unused: BTreeMap<DeviceKind, Vec<BandTime>>,
}

impl<'a> Fleet<'a> {
    const fn new(costs: Option<&'a SupplyCost>, when: Interval) -> Self {
        Self { costs, when, micros: BTreeMap::new(), unused: BTreeMap::new() }
    }
    fn energy(&self) -> Option<&'a EnergyPrice> {
        self.costs.and_then(|costs| costs.content().energy.as_ref())
    }
    fn take(&mut self, span: &UsedSpan, now: Timestamp) -> Result<()> {
        let part = clip(span, self.when, now);
        let micros = self.micros.entry((span.kind.clone(), span.class)).or_default();
        *micros = micros.saturating_add(length(part));
        if load_of(span.class) == Load::Idle {
            let times = by_band(self.energy(), part, Load::Idle)?;
            let known = self.unused.entry(span.kind.clone()).or_default();
            for time in times {
                match known.iter_mut().find(|known| known.band == time.band) {
                    Some(known) => known.micros = known.micros.saturating_add(time.micros),
                    None => known.push(time),
                }
            }
        }
        Ok(())
    }
    fn finish(self) -> Result<BTreeMap<DeviceKind, Utilisation>> {
        let mut made: BTreeMap<DeviceKind, Utilisation> = BTreeMap::new();
        for ((kind, class), micros) in self.micros {
            made.entry(kind).or_default().millis.insert(class, micros.div_euclid(1_000));
        }
        for (kind, utilisation) in &mut made {
            let Some(costs) = self.costs else { continue };
            let times = self.unused.get(kind).map_or(&[][..], Vec::as_slice);
            let cost = costs.device_time(kind, times)?;
            utilisation.unused_cost = cost.map(sublet_money::supply_cost::DeviceTimeCost::total).transpose()?;
        }
        Ok(made)
    }
}

const fn load_of(class: DeviceClass) -> Load {
    match class {
        DeviceClass::Internal | DeviceClass::Lease | DeviceClass::Spot => Load::Busy,
        DeviceClass::Idle | DeviceClass::Held | DeviceClass::Drain | DeviceClass::Unhealthy => Load::Idle,
    }
}

/// The part of a span that is in some time; empty if there is none.
fn clip(span: &UsedSpan, when: Interval, now: Timestamp) -> Interval {
    let (starts_at, ends_at) = (span.started_at.max(when.starts_at), span.ended_at.unwrap_or(now).min(when.ends_at));
    Interval { starts_at, ends_at: ends_at.max(starts_at) }
}

const fn length(part: Interval) -> i64 {
    part.ends_at.micros().saturating_sub(part.starts_at.micros())
}

/// A stretch of time cut where the price of energy changes.
fn by_band(energy: Option<&EnergyPrice>, part: Interval, load: Load) -> Result<Vec<BandTime>> {
    let mut times: Vec<BandTime> = Vec::new();
    let mut from = part.starts_at;
    for _ in 0..STRETCHES_MAX {
        if from >= part.ends_at {
            break;
        }
        let (band, until) = match energy {
            Some(energy) => energy.stretch_at(from)?,
            None => (None, None),
        };
        let until = until.map_or(part.ends_at, |until| until.min(part.ends_at));
        let micros = length(Interval { starts_at: from, ends_at: until });
        match times.iter_mut().find(|known| known.band.as_ref() == band) {
            Some(known) => known.micros = known.micros.saturating_add(micros),
            None => times.push(BandTime { band: band.cloned(), load, micros }),
        }
        from = until;
    }
    Ok(times)
}

/// A month in Coordinated Universal Time, and what of other calendars' months is before and after it.
fn around(whole: Interval) -> Interval {
    Interval { starts_at: whole.starts_at.minus(ZONES_APART), ends_at: whole.ends_at.plus(ZONES_APART) }
}

async fn read_spans(
    tx: &mut Tx,
    (fleet, accounts, book): (&mut Fleet<'_>, &mut Accounts, &mut MarginBook<'_>),
    now: Timestamp,
) -> Result<()> {
    let whole = BillingCalendar::new("UTC")?.period(accounts.month)?.interval;
    let mut cursor = SpanCursor::default();
    loop {
        let spans = margin::used_spans(tx, around(whole), &mut cursor).await?;
        if spans.is_empty() {
            return Ok(());
        }
        for span in spans {
            fleet.take(&span, now)?;
            let (Load::Busy, Some(UsedLease { organization, sku: sku @ SkuName::Device { .. }, site })) =
                (load_of(span.class), &span.lease)
            else {
                continue;
            };
            let account = accounts.get(tx, organization).await?;
            let internal = account.found.class == OrganizationClass::Internal;
            let (part, currency) = (clip(&span, account.month, now), account.found.currency);
            if currency == accounts.currency && !part.is_empty() {
                for time in by_band(fleet.energy(), part, Load::Busy)? {
                    book.ran(organization, internal, (sku, site), time);
                }
            }
        }
    }
}

/// What was posted besides use, the fees of processors, and the income for use.
async fn add_up(tx: &mut Tx, posted: &[PostedSum], accounts: &mut Accounts) -> Result<([Contra; 2], Nanos, Nanos)> {
    let (mut contra, mut fees, mut income) = ([Contra::default(); 2], Nanos::ZERO, Nanos::ZERO);
    for sum in posted {
        let sides = [(&sum.credit, sum.amount), (&sum.debit, sum.amount.checked_neg()?)];
        for (account, credited) in sides {
            if account.kind() == AccountKind::Costs(CostKind::ProcessorFees) {
                fees = fees.checked_sub(credited)?;
            }
            if matches!(account.kind(), AccountKind::Usage(_)) {
                income = income.checked_add(credited)?;
            }
            let Some(organization) = account.organization().filter(|_| is_contra(account)) else { continue };
            let internal = accounts.get(tx, organization).await?.found.class == OrganizationClass::Internal;
            let side = &mut contra[usize::from(internal)];
            match account.kind() {
                AccountKind::Promotions => side.promotions = side.promotions.checked_sub(credited)?,
                AccountKind::Compensations => side.compensations = side.compensations.checked_sub(credited)?,
                AccountKind::Refunds => side.refunds = side.refunds.checked_sub(credited)?,
                AccountKind::Breakage => side.breakage = side.breakage.checked_add(credited)?,
                AccountKind::Fees => side.fees = side.fees.checked_add(credited)?,
                AccountKind::Commitments => side.commitments = side.commitments.checked_add(credited)?,
                _ => side.rounding = side.rounding.checked_add(credited)?,
            }
        }
    }
    Ok((contra, fees, income))
}

fn is_contra(account: &LedgerAccount) -> bool {
    matches!(
        account.kind(),
        AccountKind::Promotions
            | AccountKind::Compensations
            | AccountKind::Refunds
            | AccountKind::Breakage
            | AccountKind::Commitments
            | AccountKind::Fees
            | AccountKind::Rounding
    )
}
