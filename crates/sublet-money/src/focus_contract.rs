//! Contract Commitment of FOCUS 1.4: every commitment period of a contract, as it was when a month ended.
//!
//! A commitment period is what customers fulfil or miss, so each is a commitment of the specification, named by its
//! contract and its number: `contract_x/3`. Periods that have not begun are there up to the end of the running term, with
//! their ramp; those that a notice or a shorter term cut off are canceled, and stay. What is said of a month that is over does not change: what was
//! agreed or given notice of later is not in it.
//!
//! Quantities are in the units in which use is metered, of which all are finite decimals: what rows of Cost and Usage say
//! that they count ([`AppliedUse`]) adds up to what a commitment says was used.
//!
//! Deliberately absent: offers that nobody accepted; public commitments, since every contract is negotiated.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Value, json};
use sublet_core::error::{Error, Result};
use sublet_core::id::ContractId;
use sublet_core::{Nanos, Timestamp};

use crate::canonical::canonical_json;
use crate::commitment::{SettledPeriod, counts, roll_over, roll_over_quantity};
use crate::contract::{Agreement, CommitmentPeriod, ContractTerms, TermsVersion};
use crate::contract_price::Discounted;
use crate::focus::{consumed_base, consumed_unit};
use crate::focus_columns::meters;
use crate::invoice::InvoiceAccount;
use crate::period::{BillingCalendar, Interval, PeriodKey};
use crate::sku::{PricingUnit, Quantity, SkuFamily, SkuName};
use crate::table::Decimal;

/// Most commitment periods of one contract that a file has.
pub const PERIODS_MAX: u32 = 10_000;

/// Names a commitment period.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CommitmentId {
    pub contract: ContractId,
    /// Counted from 1.
    pub number: u32,
}

impl fmt::Display for CommitmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.contract, self.number)
    }
}

impl CommitmentId {
    /// That a charge is about it, and counts nothing towards it.
    pub(crate) fn named(&self) -> String {
        self.applied(&Applied::Cost(Nanos::ZERO.into()))
    }

    /// The specification's object. Its numbers are exact, so it is not made by way of floats. Ids need no escapes.
    fn applied(&self, part: &Applied) -> String {
        let part = match part {
            Applied::Cost(cost) => format!("\"ContractCommitmentAppliedCost\":{cost}"),
            Applied::Quantity(quantity, unit) => {
                format!("\"ContractCommitmentAppliedQuantity\":{quantity},\"ContractCommitmentAppliedUnit\":\"{unit}\"")
            }
        };
        format!("{{\"Elements\":[{{{part},\"ContractCommitmentId\":\"{self}\",\"ContractId\":\"{}\"}}]}}", self.contract)
    }
}

enum Applied {
    Cost(Decimal),
    Quantity(Decimal, &'static str),
}

/// What use of a month counts towards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppliedUse {
    pub commitment: CommitmentId,
    pub terms: ContractTerms,
}

impl AppliedUse {
    /// Of a contract that runs in a month.
    pub fn at(contract: &ContractId, agreement: &Agreement, month: PeriodKey) -> Result<Option<Self>> {
        let found = agreement.at(month)?;
        Ok(found.map(|(version, period)| Self {
            commitment: CommitmentId { contract: contract.clone(), number: period.number },
            terms: version.terms.clone(),
        }))
    }

    /// `used` is what was charged, and the quantity in the units that are metered.
    pub(crate) fn applied(&self, sku: &SkuName, (amount, quantity): (Nanos, Decimal)) -> Option<String> {
        let part = match &self.terms.quantities {
            Some(_) => Applied::Quantity(quantity, consumed_unit(sku.pricing_unit())),
            None => Applied::Cost(amount.into()),
        };
        counts(&self.terms, sku).then(|| self.commitment.applied(&part))
    }
}

/// What became of a commitment period until a month ended.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CommitmentUse {
    /// Counted from 1.
    pub number: u32,
    pub counted: Nanos,
    pub shortfall: Nanos,
    pub roll_over_used: Nanos,
    pub overage: Nanos,
    pub exit_fee: Nanos,
    /// Where quantities are committed.
    pub quantity: Quantity,
    pub missing: Quantity,
    pub quantity_used: Quantity,
    pub is_settled: bool,
}

/// A contract as it was when a month ended.
#[derive(Clone, Copy, Debug)]
pub struct ContractAsOf<'a> {
    pub account: &'a InvoiceAccount,
    pub seller: &'a str,
    pub id: &'a ContractId,
    pub name: &'a str,
    pub agreement: &'a Agreement,
    /// When each version was agreed, in their order.
    pub agreed_at: &'a [Timestamp],
    pub notice_at: Option<Timestamp>,
    /// Of the periods that have begun.
    pub uses: &'a [CommitmentUse],
    /// What is said is as of then.
    pub as_of: Timestamp,
}

/// How a commitment stands, in the words of the specification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitmentStatus {
    Pending,
    Active,
    /// All of it is used.
    Exhausted,
    /// It is over.
    Expired,
    /// Notice was given before it began, or an amendment left it out.
    Canceled,
}

impl CommitmentStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Active => "Active",
            Self::Exhausted => "Exhausted",
            Self::Expired => "Expired",
            Self::Canceled => "Canceled",
        }
    }
}

/// How much of something is committed and used, in metered units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommittedUnits {
    pub committed: Decimal,
    pub used: Decimal,
    pub roll_over: Decimal,
    pub roll_over_used: Decimal,
    pub missing: Decimal,
    pub unit: PricingUnit,
}

/// One commitment period.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContractCommitment {
    pub account: InvoiceAccount,
    pub seller: String,
    pub id: CommitmentId,
    pub description: String,
    /// Of the contract.
    pub contract: Interval,
    pub interval: Interval,
    pub months: u32,
    pub applicability: String,
    /// Of all that it covers, in parts per million, where it is the same for all.
    pub discount_ppm: Option<u32>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub status: CommitmentStatus,
    /// Of quantities, what they cost.
    pub committed: Nanos,
    pub units: Option<CommittedUnits>,
    /// What can be used up in it of what was missing before; nothing is known of periods that have not begun.
    pub roll_over: Option<Nanos>,
    pub used: CommitmentUse,
    /// Billed in advance; of nothing that is canceled.
    pub fee: Option<Nanos>,
    /// All that is committed is billed in advance.
    pub is_upfront: bool,
    pub roll_over_periods: u32,
    pub terms: String,
}

/// Every commitment period of a contract up to the end of the running term, and those that were announced before.
pub fn contract_commitments(of: &ContractAsOf<'_>) -> Result<Vec<ContractCommitment>> {
    let calendar = BillingCalendar::new(&of.account.zone)?;
    let announced = of.announced(&calendar)?;
    let newest = announced.last().ok_or_else(|| Error::internal("a contract has no terms"))?;
    let terms = &newest.version.terms;
    let interval = |first: PeriodKey, last: PeriodKey| -> Result<Interval> {
        let (first, last) = (calendar.period(first)?.interval, calendar.period(last)?.interval);
        Ok(Interval { starts_at: first.starts_at, ends_at: last.ends_at })
    };
    let term_last = terms.starts.plus(newest.end * terms.period_months - 1)?;
    let last_month = of.agreement.last_month()?.map_or(term_last, |last| last.min(term_last));
    let contract = interval(terms.starts, last_month)?;
    let renewed_at = of.renewed_at(&calendar, terms)?;
    let (mut rows, mut settled) = (Vec::new(), Vec::new());
    for number in 1..=announced.iter().map(|known| known.end).fold(0, u32::max).min(PERIODS_MAX) {
        let first = terms.starts.plus((number - 1) * terms.period_months)?;
        let (version, period, is_canceled) = match of.agreement.at(first)? {
            Some((version, period)) => (version, period, false),
            None => match last_announced(&announced, (number, first))? {
                Some((version, period)) => (version, period, true),
                None => continue,
            },
        };
        let planned =
            Planned { version, period, is_canceled, contract, renewed_at, interval: interval(period.first, period.last)? };
        let row = of.commitment(&planned, &settled)?;
        settled.push(SettledPeriod {
            number,
            shortfall: row.used.shortfall,
            roll_over_used: row.used.roll_over_used,
            missing: row.used.missing,
            quantity_used: row.used.quantity_used,
            roll_over_periods: version.terms.roll_over_periods,
        });
        rows.push(row);
    }
    Ok(rows)
}

/// A version of the terms, with the last period that files named while it was the newest.
struct Announced<'a> {
    version: &'a TermsVersion,
    end: u32,
}

/// A period as the last terms had it that had it.
fn last_announced<'a>(
    announced: &[Announced<'a>],
    (number, first): (u32, PeriodKey),
) -> Result<Option<(&'a TermsVersion, CommitmentPeriod)>> {
    let Some(found) = announced.iter().rev().find(|known| known.end >= number) else { return Ok(None) };
    Ok(found.version.terms.period_at(first)?.map(|period| (found.version, period)))
}

/// A commitment period as agreed.
struct Planned<'a> {
    version: &'a TermsVersion,
    period: CommitmentPeriod,
    is_canceled: bool,
    contract: Interval,
    /// When the term began that runs, if it is not the first one.
    renewed_at: Option<Timestamp>,
    interval: Interval,
}

impl<'a> ContractAsOf<'a> {
    /// What files said of the contract's length: until an amendment was agreed, by the terms before it.
    fn announced(&self, calendar: &BillingCalendar) -> Result<Vec<Announced<'a>>> {
        let mut replaced_at = self.agreed_at.iter().copied().skip(1);
        let announced = self.agreement.versions().iter().map(|version| {
            let reached = match (replaced_at.next(), self.agreement.notice()) {
                // It may be for a later term than the one that runs.
                (None, Some(notice)) => notice.last_month,
                (at, _) => calendar.period_at(at.unwrap_or(self.as_of))?.key,
            };
            let number = version.terms.period_at(reached)?.map_or(1, |period| period.number);
            Ok(Announced { version, end: version.terms.term_end(number).unwrap_or(version.terms.periods()) })
        });
        announced.collect()
    }

    /// When the end of the contract moved by renewal; `None` in the first term, and if notice had fixed it before.
    fn renewed_at(&self, calendar: &BillingCalendar, newest: &ContractTerms) -> Result<Option<Timestamp>> {
        let running = newest.period_at(calendar.period_at(self.as_of)?.key)?;
        let Some(number) = running.map(|period| period.number).filter(|number| *number > newest.periods()) else {
            return Ok(None);
        };
        let (Some(end), Some(renewal)) = (newest.term_end(number), newest.renewal) else { return Ok(None) };
        let before = end * newest.period_months - renewal.months;
        let began_at = calendar.period(newest.starts.plus(before)?)?.interval.starts_at;
        Ok(Some(began_at).filter(|began| self.notice_at.is_none_or(|notice| notice > *began)))
    }

    /// When something of a row was last said anew. What is used is counted until the period ends.
    fn updated_at(&self, planned: &Planned<'_>, has_begun: bool) -> Option<Timestamp> {
        let counted_until = has_begun.then(|| planned.interval.ends_at.min(self.as_of));
        let said = self.agreed_at.iter().copied();
        said.chain(self.notice_at).chain(planned.renewed_at).chain(counted_until).max()
    }

    fn commitment(&self, planned: &Planned<'_>, settled: &[SettledPeriod]) -> Result<ContractCommitment> {
        let Planned { version, period, interval, .. } = planned;
        let terms = &version.terms;
        let used = self.uses.iter().find(|known| known.number == period.number).copied().unwrap_or_default();
        let has_begun = !planned.is_canceled && interval.starts_at <= self.as_of;
        let status = if planned.is_canceled {
            CommitmentStatus::Canceled
        } else if !has_begun {
            CommitmentStatus::Pending
        } else if interval.ends_at <= self.as_of {
            CommitmentStatus::Expired
        } else if is_used_up(period, &used) {
            CommitmentStatus::Exhausted
        } else {
            CommitmentStatus::Active
        };
        let rolled = if has_begun { roll_over_quantity(settled, period.number)? } else { Quantity::ZERO };
        let units = terms.quantities.as_ref().map(|thing| units(&thing.sku, period, (&used, rolled))).transpose()?;
        let roll_over = match (has_begun, terms.committed_thing()?) {
            (false, _) => None,
            (true, Some(thing)) => Some(thing.value(rolled)?),
            (true, None) => Some(roll_over(settled, period.number)?),
        };
        let created_at = self.agreed_at.first().copied().ok_or_else(|| Error::internal("nobody agreed to a contract"))?;
        let length =
            if period.first == period.last { period.first.to_string() } else { format!("{} to {}", period.first, period.last) };
        Ok(ContractCommitment {
            account: self.account.clone(),
            seller: self.seller.to_owned(),
            id: CommitmentId { contract: self.id.clone(), number: period.number },
            description: format!("commitment period {} of contract {}: {length}", period.number, self.name),
            contract: planned.contract,
            interval: *interval,
            months: terms.period_months,
            applicability: applicability(self.account, terms)?,
            discount_ppm: discount(terms),
            created_at,
            updated_at: self.updated_at(planned, has_begun).unwrap_or(created_at),
            status,
            committed: period.committed,
            units,
            roll_over,
            used,
            fee: terms.fee.filter(|_| !planned.is_canceled).map(|fee| fee.amount),
            is_upfront: terms.is_drawn_down(),
            roll_over_periods: terms.roll_over_periods,
            terms: version.hash.clone(),
        })
    }
}

fn is_used_up(period: &CommitmentPeriod, used: &CommitmentUse) -> bool {
    match period.quantity {
        Some(committed) => !committed.is_zero() && used.quantity >= committed,
        None => !period.committed.is_zero() && used.counted >= period.committed,
    }
}

fn units(sku: &SkuName, period: &CommitmentPeriod, (used, rolled): (&CommitmentUse, Quantity)) -> Result<CommittedUnits> {
    let unit = sku.pricing_unit();
    let metered = |quantity: Quantity| Decimal::ratio(quantity.get(), consumed_base(unit));
    Ok(CommittedUnits {
        committed: metered(period.quantity.unwrap_or_default())?,
        used: metered(used.quantity)?,
        roll_over: metered(rolled)?,
        roll_over_used: metered(used.quantity_used)?,
        missing: metered(used.missing)?,
        unit,
    })
}

/// Of whose use of what it counts: meters tell families apart, services do not.
fn applicability(account: &InvoiceAccount, terms: &ContractTerms) -> Result<String> {
    let rule = |dimension: &str, values: Vec<Value>| json!({ "Dimension": dimension, "Operator": "In", "Values": values });
    let of_what = match &terms.quantities {
        Some(thing) => rule("SkuId", vec![json!(thing.sku.to_string())]),
        None => {
            let names: BTreeSet<&str> = terms.covers.iter().flat_map(|family| meters(*family)).copied().collect();
            rule("SkuMeter", names.into_iter().map(|name| json!(name)).collect())
        }
    };
    let of_whom = rule("BillingAccountId", vec![json!(account.organization)]);
    canonical_json(&json!({ "InclusionOperator": "And", "Inclusions": [of_whom, of_what] }))
}

/// The discount on all that is covered, where it is one and nothing else is said of prices.
fn discount(terms: &ContractTerms) -> Option<u32> {
    let pricing = terms.pricing.as_ref().filter(|pricing| pricing.fixed.is_empty() && pricing.protection.is_none())?;
    let mut of_families = Vec::new();
    for discount in &pricing.discounts {
        match &discount.on {
            Discounted::Family(family) if terms.covers.contains(family) => of_families.push((*family, discount.off_ppm)),
            Discounted::Family(_) => {}
            Discounted::Device(_) | Discounted::Model(_) | Discounted::Notice(_) | Discounted::Sku(_) => return None,
        }
    }
    let found = |family: &SkuFamily| of_families.iter().find(|(of, _)| of == family).map(|(_, off_ppm)| *off_ppm);
    let mut rates = terms.covers.iter().map(found);
    let first = rates.next().flatten()?;
    rates.all(|rate| rate == Some(first)).then_some(first)
}

#[cfg(test)]
#[path = "focus_contract_tests.rs"]
mod tests;
