//! How far the commitment periods of contracts are used and settled.

use std::collections::BTreeMap;

use sublet_core::{Nanos, Result};
use sublet_money::commitment::{SettledPeriod, counted_from, counts, roll_over, share_ppm};
use sublet_money::contract::{Agreement, CommitmentPeriod, TermsVersion};
use sublet_money::drawdown::Drawn;
use sublet_money::period::PeriodKey;
use sublet_money::sku::{Quantity, QuantityChange, SkuName};
use sublet_store::contract::{self, Contract, ContractMonth};
use sublet_store::{Tx, billing, charge};

/// What is counted towards a commitment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Counted {
    /// By invoices.
    Invoiced,
    /// And what will be in the next ones: that reads all charges of months that are open.
    Used,
}

/// How far a commitment period is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeriodUse {
    pub number: u32,
    pub first: PeriodKey,
    pub last: PeriodKey,
    pub committed: Nanos,
    /// By invoices; of a single contract also by what will be in the next ones.
    pub counted: Nanos,
    pub shortfall: Nanos,
    pub roll_over_used: Nanos,
    pub exit_fee: Nanos,
    /// What overage cost more than the contract's price; below zero where it cost less.
    pub overage: Nanos,
    /// Where a quantity is committed.
    pub quantity: Option<PeriodQuantity>,
    /// Where the commitment was billed in advance.
    pub drawdown: Option<PeriodDrawdown>,
    /// The drawdown: those that are billed, and of a single contract those that are open.
    pub months: Vec<MonthUse>,
    /// Its last month has its invoice.
    pub is_settled: bool,
}

/// How much of a commitment that was billed in advance is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeriodDrawdown {
    /// By what is counted.
    pub drawn: Nanos,
    /// What can still be drawn; nothing once it is settled.
    pub left: Nanos,
    /// What could not be used in time.
    pub lapsed: Nanos,
}

/// How much of a committed quantity is used, in base units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeriodQuantity {
    pub sku: SkuName,
    pub committed: Quantity,
    pub counted: Quantity,
    pub missing: Quantity,
    pub roll_over_used: Quantity,
}

/// What one month took of a commitment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MonthUse {
    pub month: PeriodKey,
    pub counted: Nanos,
    /// Of a committed quantity.
    pub quantity: Quantity,
    /// What all use came to, whether it counts or not; `None` where an old invoice did not note it.
    pub used: Option<Nanos>,
    pub is_billed: bool,
}

impl PeriodUse {
    /// What is used of what is committed, in parts per million; more than a whole with overage. `None` where nothing is
    /// committed.
    pub fn utilisation_ppm(&self) -> Option<u64> {
        match &self.quantity {
            Some(used) => share_ppm(used.counted.get(), used.committed.get()),
            None => share_ppm(self.counted.get(), self.committed.get()),
        }
    }

    /// What the commitment covers of what is used: of all use, or of a committed thing's, and no more than all of it, also
    /// where corrections of earlier months lowered that. `None` where nothing is used, and where it is not known.
    pub fn coverage_ppm(&self) -> Option<u64> {
        if let Some(used) = &self.quantity {
            return share_ppm(used.counted.min(used.committed).get(), used.counted.get());
        }
        let used = self.months.iter().map(|month| month.used).collect::<Option<Vec<_>>>()?;
        let used = Nanos::checked_sum(used).ok()?;
        share_ppm(self.counted.min(self.committed).min(used).get(), used.get())
    }

    fn begun(period: CommitmentPeriod, version: &TermsVersion, is_settled: bool) -> Self {
        let quantities = version.terms.quantities.as_ref();
        Self {
            number: period.number,
            first: period.first,
            last: period.last,
            committed: period.committed,
            counted: Nanos::ZERO,
            shortfall: Nanos::ZERO,
            roll_over_used: Nanos::ZERO,
            exit_fee: Nanos::ZERO,
            overage: Nanos::ZERO,
            quantity: quantities.map(|quantities| PeriodQuantity {
                sku: quantities.sku.clone(),
                committed: quantities.committed(period.number),
                counted: Quantity::ZERO,
                missing: Quantity::ZERO,
                roll_over_used: Quantity::ZERO,
            }),
            drawdown: None,
            months: Vec::new(),
            is_settled,
        }
    }

    /// Adds what an invoice counted and settled.
    fn add_billed(&mut self, known: &ContractMonth) -> Result<()> {
        self.shortfall = self.shortfall.checked_add(known.shortfall)?;
        self.roll_over_used = self.roll_over_used.checked_add(known.roll_over_used)?;
        self.exit_fee = self.exit_fee.checked_add(known.exit_fee)?;
        self.overage = self.overage.checked_add(known.overage)?;
        if let Some(used) = &mut self.quantity {
            used.missing = used.missing.checked_add(known.missing)?;
            used.roll_over_used = used.roll_over_used.checked_add(known.quantity_used)?;
        }
        let ContractMonth { period: month, counted, quantity, used, .. } = *known;
        self.add_month(MonthUse { month, counted, quantity, used, is_billed: true })
    }

    /// Says how much is drawn of what was billed in advance, and of what rolled over.
    fn draw(&mut self, roll_over: Nanos, lapsed: Nanos) -> Result<()> {
        let (committed, counted) = (self.committed, self.counted);
        let of = Drawn { committed, roll_over, counted_before: Nanos::ZERO, counted, is_last: false };
        let left = if self.is_settled { Nanos::ZERO } else { of.left()? };
        self.drawdown = Some(PeriodDrawdown { drawn: of.total()?, left, lapsed });
        Ok(())
    }

    fn add_month(&mut self, month: MonthUse) -> Result<()> {
        self.counted = self.counted.checked_add(month.counted)?;
        if let Some(used) = &mut self.quantity {
            used.counted = used.counted.checked_add(month.quantity)?;
        }
        self.months.push(month);
        Ok(())
    }
}

/// What the periods before one settled.
pub(crate) fn settled_periods(months: &[&ContractMonth], number: u32) -> Result<Vec<SettledPeriod>> {
    let mut periods: BTreeMap<u32, SettledPeriod> = BTreeMap::new();
    for month in months.iter().filter(|month| month.number < number) {
        let period = periods.entry(month.number).or_insert(SettledPeriod {
            number: month.number,
            shortfall: Nanos::ZERO,
            roll_over_used: Nanos::ZERO,
            missing: Quantity::ZERO,
            quantity_used: Quantity::ZERO,
            roll_over_periods: month.roll_over_periods,
        });
        period.shortfall = period.shortfall.checked_add(month.shortfall)?;
        period.roll_over_used = period.roll_over_used.checked_add(month.roll_over_used)?;
        period.missing = period.missing.checked_add(month.missing)?;
        period.quantity_used = period.quantity_used.checked_add(month.quantity_used)?;
    }
    Ok(periods.into_values().collect())
}

/// The commitment periods of a contract that began by a month, and how far each is used by then.
pub(crate) async fn periods(
    tx: &mut Tx,
    contract: &Contract,
    agreement: &Agreement,
    (month, counted): (PeriodKey, Counted),
) -> Result<Vec<PeriodUse>> {
    let known = Billed::of(tx, contract).await?;
    let mut uses = Vec::new();
    let Some(mut at) = agreement.versions().first().map(|version| version.terms.starts) else { return Ok(uses) };
    while at <= month {
        let Some((version, period)) = agreement.at(at)? else { break };
        at = period.last.next()?;
        uses.push(known.period(tx, contract, (version, period), (month, counted)).await?);
    }
    Ok(uses)
}

/// What counts by now towards a period. Charges of other periods are not read.
pub(crate) async fn used_in(
    tx: &mut Tx,
    contract: &Contract,
    (version, period): (&TermsVersion, CommitmentPeriod),
) -> Result<Nanos> {
    let (known, last) = (Billed::of(tx, contract).await?, period.last);
    let used = known.period(tx, contract, (version, period), (last, Counted::Used)).await?;
    Ok(used.counted.max(Nanos::ZERO))
}

/// The months of a contract that have their invoice, and those of its account.
struct Billed {
    of_account: Vec<PeriodKey>,
    months: Vec<ContractMonth>,
}

impl Billed {
    async fn of(tx: &mut Tx, contract: &Contract) -> Result<Self> {
        let of_account = billing::list_billed(tx, &contract.organization).await?;
        Ok(Self { of_account, months: contract::list_months(tx, &contract.organization, &contract.id).await? })
    }

    async fn period(
        &self,
        tx: &mut Tx,
        contract: &Contract,
        (version, period): (&TermsVersion, CommitmentPeriod),
        (month, counted): (PeriodKey, Counted),
    ) -> Result<PeriodUse> {
        let (number, first, last) = (period.number, period.first, period.last);
        let mut used = PeriodUse::begun(period, version, self.of_account.contains(&last));
        for known in self.months.iter().filter(|known| known.number == number && known.period <= month) {
            used.add_billed(known)?;
        }
        let mut open = first;
        while open <= last.min(month) {
            if counted == Counted::Used && !self.of_account.contains(&open) {
                used.add_month(open_month(tx, contract, (version, first), open).await?)?;
            }
            open = open.next()?;
        }
        if version.terms.is_drawn_down() {
            let known: Vec<_> = self.months.iter().collect();
            let lapsed = self.months.iter().filter(|known| known.number == number).map(|known| known.lapsed);
            used.draw(roll_over(&settled_periods(&known, number)?, number)?, Nanos::checked_sum(lapsed)?)?;
        }
        Ok(used)
    }
}

/// What will be counted of a month that has no invoice yet.
async fn open_month(
    tx: &mut Tx,
    contract: &Contract,
    (version, first): (&TermsVersion, PeriodKey),
    month: PeriodKey,
) -> Result<MonthUse> {
    let (mut counted, mut quantity, mut all) = (Vec::new(), QuantityChange::ZERO, Nanos::ZERO);
    for part in charge::list_parts(tx, &contract.organization, month).await? {
        all = all.checked_add(part.sum.charged)?;
        if counts(&version.terms, &part.key.sku) {
            counted.push((part.key.period, part.sum.charged));
            quantity = quantity.checked_add(part.sum.quantity)?;
        }
    }
    let quantity = match version.terms.quantities {
        Some(_) => Quantity::ZERO.changed_by(quantity)?,
        None => Quantity::ZERO,
    };
    Ok(MonthUse { month, counted: counted_from(first, counted)?, quantity, used: Some(all), is_billed: false })
}
