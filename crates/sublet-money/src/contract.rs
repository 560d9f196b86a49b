//! Contracts: what a customer commits to spend over months to years, and how it may leave.
//!
//! A contract runs for whole months of the account's time zone, cut into commitment periods of the same length. Each
//! period has a committed amount, which may rise or fall from period to period (a ramp). What is used of the covered
//! families in a period counts towards it. What is missing at its end is charged ([`crate::commitment`]), and may be
//! used up in later periods (roll-over). What was agreed is never changed: an amendment is a further version of the
//! terms, from a period on that has not begun.
//!
//! Whatever can be asked of a contract is a function of its versions, its last month if notice was given, and a month.
//!
//! A contract is committed to amounts of money, or to quantities of a thing ([`crate::committed_quantity`]); those have a
//! value, by which leaving is priced.
//!
//! What is missing is charged at a period's end, or all of it is billed in advance and drawn down ([`crate::drawdown`]).
//!
//! Deliberately absent: two contracts at once.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::divide_half_even;
use sublet_core::{Currency, Nanos};

use crate::advance::FeeTerms;
use crate::canonical::{canonical_json, decimal, sha256_hex};
use crate::committed_quantity::{CommittedQuantity, QuantityTerms};
use crate::contract_price::PriceTerms;
use crate::drawdown::{self, Billed};
use crate::party::PaymentTerms;
use crate::period::PeriodKey;
use crate::sku::{Quantity, SkuFamily, SkuName};

/// Most months of a term: ten years.
pub const MONTHS_MAX: u32 = 120;
/// Most versions of the terms of one contract.
pub const VERSIONS_MAX: usize = 100;
/// Lengths of a commitment period, in months.
pub const PERIOD_MONTHS: [u32; 6] = [1, 2, 3, 4, 6, 12];
/// A whole, in parts per million.
const WHOLE_PPM: u32 = 1_000_000;
/// Names the meaning of the canonical form; a change of meaning is a new name.
const SCHEMA: &str = "sublet-contract/1";

/// A step of the ramp: what each period is committed to, from one on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    #[serde(with = "decimal")]
    pub amount: Nanos,
    /// Counted from 1.
    pub from_period: u32,
}

/// How the customer may leave before the term is over. It leaves at the end of a commitment period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitTerms {
    /// So many periods at least.
    pub after_periods: u32,
    /// Of what is committed for the rest of the term, in parts per million.
    pub fee_ppm: u32,
    /// Whole months between the month of the notice and the end.
    pub notice_months: u32,
}

/// How the term goes on when it is over, unless notice is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewalTerms {
    /// By so many months each time, at the last commitment.
    pub months: u32,
    /// Whole months between the month of the notice and the end.
    pub notice_months: u32,
}

/// What is agreed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractTerms {
    /// Left out where only what is missing is billed, at a period's end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub billed: Option<Billed>,
    /// Empty if and only if quantities are committed.
    pub commitments: Vec<Commitment>,
    /// What counts towards committed amounts; empty where quantities are committed.
    pub covers: BTreeSet<SkuFamily>,
    pub currency: Currency,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit: Option<ExitTerms>,
    /// For standing ready, whatever is used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fee: Option<FeeTerms>,
    /// The term.
    pub months: u32,
    /// By when invoices of the contract's months are paid; the account's terms if left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payment: Option<PaymentTerms>,
    /// Months of a commitment period.
    pub period_months: u32,
    /// Other prices than the public ones.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pricing: Option<PriceTerms>,
    /// Instead of amounts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quantities: Option<QuantityTerms>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub renewal: Option<RenewalTerms>,
    /// For so many periods after it, what was charged as missing can be used up. 0 if it is lost.
    pub roll_over_periods: u32,
    pub starts: PeriodKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Canonical {
    from: PeriodKey,
    schema: String,
    terms: ContractTerms,
}

/// A commitment period of a contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitmentPeriod {
    /// Counted from 1.
    pub number: u32,
    pub first: PeriodKey,
    pub last: PeriodKey,
    /// Of quantities, what they cost at the contract's price.
    pub committed: Nanos,
    pub quantity: Option<Quantity>,
}

fn invalid(param: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param.to_owned())
}

impl ContractTerms {
    /// Refuses terms that contradict themselves.
    pub fn validate(&self) -> Result<()> {
        if !PERIOD_MONTHS.contains(&self.period_months) {
            return Err(invalid("period_months", "a commitment period has 1, 2, 3, 4, 6 or 12 months"));
        }
        self.check_whole("months", self.months)?;
        match &self.quantities {
            Some(quantities) => quantities.validate(self)?,
            None if self.covers.is_empty() => {
                return Err(invalid("covers", "a contract covers something: model_tokens, device_time or both"));
            }
            None => self.check_ramp()?,
        }
        // All of the term together is an amount, too.
        self.committed_in(1, self.periods()).map_err(|error| error.param(self.ramp()))?;
        if let Some(fee) = self.fee {
            fee.validate(self)?;
        }
        if self.is_drawn_down() {
            drawdown::validate(self)?;
        }
        if self.roll_over_periods > MONTHS_MAX {
            return Err(invalid("roll_over_periods", format!("what is missing rolls over for at most {MONTHS_MAX} periods")));
        }
        if let Some(exit) = self.exit {
            if exit.after_periods == 0 || exit.after_periods >= self.periods() {
                let message = format!("the term has {} periods: an exit is after 1 to one less", self.periods());
                return Err(invalid("exit.after_periods", message));
            }
            if exit.fee_ppm > WHOLE_PPM {
                return Err(invalid("exit.fee_ppm", format!("a fee is at most {WHOLE_PPM} parts per million: all that is left")));
            }
            self.check_notice("exit.notice_months", exit.notice_months)?;
        }
        if let Some(renewal) = self.renewal {
            self.check_whole("renewal.months", renewal.months)?;
            self.check_notice("renewal.notice_months", renewal.notice_months)?;
        }
        if let Some(pricing) = &self.pricing {
            pricing.validate(self.starts)?;
        }
        if let Some(payment) = &self.payment {
            payment.validate().map_err(|error| {
                let member = format!("payment.{}", error.param_name().unwrap_or_default());
                error.param(member)
            })?;
        }
        // The years that months are computed for.
        self.starts.plus(self.months)?;
        Ok(())
    }

    fn check_whole(&self, param: &str, months: u32) -> Result<()> {
        if months == 0 || months > MONTHS_MAX || !months.is_multiple_of(self.period_months) {
            let message = format!("{months} months are not 1 to {MONTHS_MAX}, in whole periods of {}", self.period_months);
            return Err(invalid(param, message));
        }
        Ok(())
    }

    fn check_notice(&self, param: &str, months: u32) -> Result<()> {
        if months >= self.months {
            return Err(invalid(param, format!("a notice of {months} months does not fit into a term of {}", self.months)));
        }
        Ok(())
    }

    fn check_ramp(&self) -> Result<()> {
        let minor_unit = self.currency.minor_unit().get();
        if self.commitments.first().is_none_or(|first| first.from_period != 1) {
            return Err(invalid("commitments", "the first commitment is from period 1 on"));
        }
        if self.commitments.windows(2).any(|pair| pair[0].from_period >= pair[1].from_period) {
            return Err(invalid("commitments", "commitments are in the order of their periods, one for each"));
        }
        for step in &self.commitments {
            if step.from_period > self.periods() {
                let message =
                    format!("the term has {} periods, and a commitment is from period {} on", self.periods(), step.from_period);
                return Err(invalid("commitments", message));
            }
            if step.amount.is_negative() || step.amount.get() % minor_unit != 0 {
                let message = format!("{} is not an amount in whole minor units of {} from 0 on", step.amount, self.currency);
                return Err(Error::new(ErrorCode::InvalidAmount, message).param("commitments"));
            }
        }
        Ok(())
    }

    /// The member that says what periods are committed to.
    const fn ramp(&self) -> &'static str {
        if self.quantities.is_some() { "quantities.steps" } else { "commitments" }
    }

    /// Whether commitments are billed in advance.
    pub const fn is_drawn_down(&self) -> bool {
        matches!(self.billed, Some(Billed::InAdvance))
    }

    /// Whether something is billed before its period.
    pub const fn bills_in_advance(&self) -> bool {
        self.fee.is_some() || self.is_drawn_down()
    }

    /// Commitment periods of the term.
    pub const fn periods(&self) -> u32 {
        self.months / self.period_months
    }

    /// The committed thing and its price, where quantities are committed.
    pub fn committed_thing(&self) -> Result<Option<CommittedQuantity<'_>>> {
        self.quantities.as_ref().map(|quantities| quantities.priced(self)).transpose()
    }

    /// What a period is committed to; after the term it is as in the last one. Of quantities, what they cost.
    pub fn committed(&self, number: u32) -> Result<Nanos> {
        if let Some(thing) = self.committed_thing()? {
            return thing.value(thing.terms.committed(number));
        }
        let reached = self.commitments.iter().rev().find(|step| step.from_period <= number);
        Ok(reached.map_or(Nanos::ZERO, |step| step.amount))
    }

    /// What all periods from one to another are committed to.
    pub fn committed_in(&self, from: u32, to: u32) -> Result<Nanos> {
        (from..=to).try_fold(Nanos::ZERO, |sum, number| sum.checked_add(self.committed(number)?))
    }

    /// What a period is committed to as the terms say it: prices may change, and it does not.
    fn committed_as_said(&self, number: u32) -> Result<(Nanos, Quantity)> {
        match &self.quantities {
            Some(quantities) => Ok((Nanos::ZERO, quantities.committed(number))),
            None => Ok((self.committed(number)?, Quantity::ZERO)),
        }
    }

    /// The commitment period that a month is in, whether the contract still runs then or not.
    pub fn period_at(&self, month: PeriodKey) -> Result<Option<CommitmentPeriod>> {
        let Some(months) = month.since(self.starts) else { return Ok(None) };
        let before = months / self.period_months;
        let first = self.starts.plus(before * self.period_months)?;
        let last = first.plus(self.period_months - 1)?;
        let number = before + 1;
        let quantity = self.quantities.as_ref().map(|quantities| quantities.committed(number));
        Ok(Some(CommitmentPeriod { number, first, last, committed: self.committed(number)?, quantity }))
    }

    /// The last period of the term that one is in: of the first term, or of a renewal.
    pub(crate) fn term_end(&self, number: u32) -> Option<u32> {
        let periods = self.periods();
        if number <= periods {
            return Some(periods);
        }
        let renewal = self.renewal?.months / self.period_months;
        Some(periods + (number - periods).div_ceil(renewal) * renewal)
    }

    /// What leaving at the end of a period costs: a part of what the rest of the term is committed to, by the newest
    /// version of the terms.
    pub fn exit_fee(&self, number: u32, newest: &Self) -> Result<Nanos> {
        let (Some(exit), Some(end)) = (self.exit, newest.term_end(number)) else { return Ok(Nanos::ZERO) };
        let left = newest.committed_in(number + 1, end)?;
        let exact = divide_half_even(i128::from(left.get()) * i128::from(exit.fee_ppm), i128::from(WHOLE_PPM));
        let exact = i64::try_from(exact).map_err(|_| Error::internal("a fee is more than what it is a part of"))?;
        Nanos::new(exact).round_half_even(self.currency.minor_unit().get())
    }
}

/// Terms as agreed, named by the hash of their canonical form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TermsVersion {
    pub hash: String,
    /// The first month of the period from which on they apply.
    pub from: PeriodKey,
    pub terms: ContractTerms,
}

impl TermsVersion {
    /// Of terms that are to be offered.
    pub fn new(from: PeriodKey, terms: ContractTerms) -> Result<Self> {
        terms.validate()?;
        // Leaving is priced over two terms at most, the running one and the next.
        let renewed = terms.renewal.map_or(0, |renewal| 2 * (renewal.months / terms.period_months));
        terms.committed_in(1, terms.periods() + renewed).map_err(|error| error.param(terms.ramp()))?;
        let version = Self { hash: String::new(), from, terms };
        Ok(Self { hash: sha256_hex(&version.canonical()?), ..version })
    }

    /// The text that is hashed, stored and shown.
    pub fn canonical(&self) -> Result<String> {
        canonical_json(&Canonical { from: self.from, schema: SCHEMA.to_owned(), terms: self.terms.clone() })
    }

    /// Reads the canonical form back, and proves that it is the one that a hash names.
    pub fn from_canonical(text: &str, expected: &str) -> Result<Self> {
        if sha256_hex(text) != expected {
            return Err(Error::new(ErrorCode::LedgerMismatch, "the terms of a contract are not those that their hash names"));
        }
        let read: Canonical = serde_json::from_str(text)
            .map_err(|cause| Error::new(ErrorCode::InvalidRequest, format!("these are not the terms of a contract: {cause}")))?;
        if read.schema != SCHEMA {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("terms of a contract say \"schema\":\"{SCHEMA}\"")));
        }
        read.terms.validate()?;
        Ok(Self { hash: expected.to_owned(), from: read.from, terms: read.terms })
    }
}

/// A notice that was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The contract's last month.
    pub last_month: PeriodKey,
    /// Due with that month's invoice; 0 at the end of a term.
    pub fee: Nanos,
}

/// All that was agreed so far: the first version, and amendments in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agreement {
    versions: Vec<TermsVersion>,
    notice: Option<Notice>,
}

/// One way to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// The contract's last month.
    pub last_month: PeriodKey,
    /// The last month in which notice can be given; `None` where the contract ends by itself.
    pub notice_by: Option<PeriodKey>,
    pub fee: Nanos,
    /// What is committed from the running period to the end.
    pub committed: Nanos,
    /// It is the end of a term.
    pub is_term_end: bool,
}

impl Agreement {
    /// `versions` in the order in which they were agreed.
    pub fn new(versions: Vec<TermsVersion>, notice: Option<Notice>) -> Result<Self> {
        if versions.is_empty() || versions.len() > VERSIONS_MAX {
            return Err(Error::internal(format!("a contract has 1 to {VERSIONS_MAX} versions of its terms")));
        }
        Ok(Self { versions, notice })
    }

    pub fn versions(&self) -> &[TermsVersion] {
        &self.versions
    }
    pub const fn notice(&self) -> Option<Notice> {
        self.notice
    }

    /// The terms that a month's period began with.
    fn version_at(&self, month: PeriodKey) -> Option<&TermsVersion> {
        self.versions.iter().rev().find(|version| version.from <= month)
    }

    /// The version that was agreed last.
    pub fn newest(&self) -> Result<&TermsVersion> {
        self.versions.last().ok_or_else(|| Error::internal("a contract has no terms"))
    }

    /// The contract's last month as things stand; `None` if it is renewed until notice is given.
    pub fn last_month(&self) -> Result<Option<PeriodKey>> {
        let newest = &self.newest()?.terms;
        match (self.notice, newest.renewal) {
            (Some(notice), _) => Ok(Some(notice.last_month)),
            (None, Some(_)) => Ok(None),
            (None, None) => newest.starts.plus(newest.months - 1).map(Some),
        }
    }

    /// The thing that units are committed of, with the last month in which some are or what is missing can be used up.
    /// `None` for the month where it goes on until notice is given.
    pub fn committed_thing(&self) -> Result<Option<(&SkuName, Option<PeriodKey>)>> {
        let terms = &self.newest()?.terms;
        let Some(quantities) = &terms.quantities else { return Ok(None) };
        let steps = &quantities.steps;
        let Some(last) = steps.iter().rposition(|step| step.quantity != Quantity::ZERO) else { return Ok(None) };
        let ends = self.last_month()?;
        // Nothing is committed any more from the step after it on.
        let Some(nothing) = steps.get(last + 1) else { return Ok(Some((&quantities.sku, ends))) };
        let periods = nothing.from_period - 1 + terms.roll_over_periods;
        // After the years that months are computed for the contract is over, too.
        let until = terms.starts.plus(periods * terms.period_months - 1).ok();
        Ok(Some((&quantities.sku, [ends, until].into_iter().flatten().min())))
    }

    /// The terms and the commitment period of a month; `None` when the contract does not run then.
    pub fn at(&self, month: PeriodKey) -> Result<Option<(&TermsVersion, CommitmentPeriod)>> {
        if self.last_month()?.is_some_and(|last| month > last) {
            return Ok(None);
        }
        let Some(version) = self.version_at(month) else { return Ok(None) };
        Ok(version.terms.period_at(month)?.map(|period| (version, period)))
    }

    /// By when the invoice of a month is paid; `None` where the contract does not say so, or does not run then.
    pub fn payment_at(&self, month: PeriodKey) -> Result<Option<&PaymentTerms>> {
        Ok(self.at(month)?.and_then(|(version, _)| version.terms.payment.as_ref()))
    }

    /// Whether both run in some month.
    pub fn overlaps(&self, other: &Self) -> Result<bool> {
        let starts = |agreement: &Self| agreement.versions.first().map(|version| version.terms.starts);
        let begins_by = |a: &Self, b: &Self| -> Result<bool> {
            let last = b.last_month()?;
            Ok(starts(a).is_some_and(|start| last.is_none_or(|last| start <= last)))
        };
        Ok(begins_by(self, other)? && begins_by(other, self)?)
    }

    /// Checks an amendment against what is agreed; `now` is the month that is running.
    pub fn check_amendment(&self, amendment: &TermsVersion, now: PeriodKey) -> Result<()> {
        let (first, terms) = (&self.versions[0].terms, &amendment.terms);
        if self.versions.len() >= VERSIONS_MAX {
            return Err(invalid("terms", format!("a contract has at most {VERSIONS_MAX} versions of its terms")));
        }
        if self.notice.is_some() {
            return Err(Error::new(ErrorCode::Conflict, "notice was given: the contract is not amended any more"));
        }
        let thing = |terms: &ContractTerms| terms.quantities.as_ref().map(|quantities| quantities.sku.clone());
        let fixed = [
            ("currency", terms.currency == first.currency),
            ("starts", terms.starts == first.starts),
            ("period_months", terms.period_months == first.period_months),
            ("billed", terms.billed == first.billed),
            ("quantities.sku", thing(terms) == thing(first)),
        ];
        if let Some((name, _)) = fixed.into_iter().find(|(_, same)| !same) {
            return Err(invalid(name, format!("an amendment does not change {name}"))
                .alternative("end this contract, and agree on another one"));
        }
        if amendment.from <= now {
            let message = format!("{now} is running: an amendment is from a later period on");
            return Err(invalid("from", message));
        }
        let running = self.at(amendment.from)?.map(|(_, period)| period);
        let Some(period) = running.filter(|period| period.first == amendment.from && period.number <= terms.periods()) else {
            let message = format!("no commitment period begins in {}, by the terms before or after", amendment.from);
            return Err(invalid("from", message));
        };
        if self.newest()?.from >= amendment.from {
            return Err(invalid("from", format!("an amendment from {} on is agreed already", self.newest()?.from)));
        }
        for number in 1..period.number {
            let month = terms.starts.plus((number - 1) * terms.period_months)?;
            let agreed = self.version_at(month).map(|version| version.terms.committed_as_said(number)).transpose()?;
            if agreed != Some(terms.committed_as_said(number)?) {
                let message = format!("period {number} is before the amendment, and its commitment would change");
                return Err(invalid(terms.ramp(), message));
            }
        }
        Ok(())
    }

    /// Every way to leave from the running period on, up to the end of a term. Of those past their notice only
    /// that end is left.
    pub fn exits(&self, now: PeriodKey) -> Result<Vec<Exit>> {
        if self.notice.is_some() {
            return Ok(Vec::new());
        }
        let begin = now.max(self.versions[0].terms.starts);
        let Some((_, running)) = self.at(begin)? else { return Ok(Vec::new()) };
        let newest = &self.newest()?.terms;
        let (mut exits, mut committed) = (Vec::new(), Nanos::ZERO);
        for number in running.number..=running.number.saturating_add(2 * MONTHS_MAX) {
            let month = begin.plus((number - running.number) * newest.period_months)?;
            let Some((version, period)) = self.at(month)? else { break };
            let terms = &version.terms;
            committed = committed.checked_add(period.committed)?;
            // What is agreed for later counts: it binds already.
            let is_term_end = newest.term_end(number) == Some(number);
            let notice_months = match (is_term_end, terms.exit, newest.renewal) {
                (true, _, Some(renewal)) => Some(renewal.notice_months),
                (true, _, None) => None,
                (false, Some(exit), _) if number >= exit.after_periods => Some(exit.notice_months),
                (false, _, _) => continue,
            };
            let notice_by = notice_months.map(|months| period.last.minus(months)).transpose()?;
            if notice_by.is_some_and(|by| by < now) {
                // Too late.
                continue;
            }
            let fee = if is_term_end { Nanos::ZERO } else { terms.exit_fee(number, newest)? };
            exits.push(Exit { last_month: period.last, notice_by, fee, committed, is_term_end });
            if is_term_end {
                break;
            }
        }
        Ok(exits)
    }

    /// The notice by which the contract's last month is the given one.
    pub fn give_notice(&self, last_month: PeriodKey, now: PeriodKey) -> Result<Notice> {
        if let Some(notice) = self.notice {
            let message = format!("notice was given: the contract ends with {}", notice.last_month);
            return Err(Error::new(ErrorCode::Conflict, message));
        }
        let exits = self.exits(now)?;
        let open = |exit: &&Exit| exit.notice_by.is_some();
        if let Some(exit) = exits.iter().filter(open).find(|exit| exit.last_month == last_month) {
            return Ok(Notice { last_month, fee: exit.fee });
        }
        let error =
            Error::new(ErrorCode::Conflict, format!("the contract cannot be left at the end of {last_month}")).param("last_month");
        if exits.iter().any(|exit| exit.last_month == last_month) {
            return Err(error.alternative("it ends then by itself; no notice is needed"));
        }
        Err(exits.iter().filter(open).take(3).fold(error, |error, exit| error.alternative(exit.last_month.to_string())))
    }
}

#[cfg(test)]
#[path = "contract_tests.rs"]
mod tests;
