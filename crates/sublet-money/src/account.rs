//! The chart of accounts: a closed list, each kind with its normal side and its stable path.
//!
//! Customer accounts exist once per organization, so that every balance a customer asks about is
//! one row and no row is shared by all customers; so do the costs of suppliers, once per supplier. Paths are part of the stored and exported form:
//! they never change their meaning.
//!
//! A tax has an account for each jurisdiction and customer, so that what a jurisdiction is owed is the sum of a few rows;
//! the deferred revenue of each contract has one, too.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sublet_core::Currency;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{ContractId, OrganizationId};

use crate::place::Jurisdiction;
use crate::sku::SkuFamily;

/// The classes of double-entry bookkeeping; equity is the owner's own books' business.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum AccountClass {
    Asset,
    Liability,
    Income,
    Expense,
}

/// The side on which an account's balance grows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum NormalSide {
    Debit,
    Credit,
}

/// How customers' money reaches us.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Processor {
    Bank,
    Stripe,
}

impl Processor {
    pub const ALL: [Self; 2] = [Self::Bank, Self::Stripe];
}

/// Where a customer's credit comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreditKind {
    /// Bought: owed back if it is not used.
    Paid,
    /// Given: used first, never paid out.
    Promotional,
    /// Of a commitment that was billed in advance: for what its contract covers, and never paid out.
    Committed,
}

impl CreditKind {
    pub const ALL: [Self; 3] = [Self::Paid, Self::Promotional, Self::Committed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paid => "paid",
            Self::Promotional => "promotional",
            Self::Committed => "committed",
        }
    }
}

impl fmt::Display for CreditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CreditKind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Error::new(ErrorCode::InvalidRequest, "credit is paid, promotional or committed"))
    }
}

/// What supplying capacity costs the owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostKind {
    Power,
    Depreciation,
    Upstream,
    ProcessorFees,
    /// Paid to the owner's own infrastructure team.
    TransferPrice,
}

impl CostKind {
    pub const ALL: [Self; 5] = [Self::Power, Self::Depreciation, Self::Upstream, Self::ProcessorFees, Self::TransferPrice];
}

/// The kinds of ledger account.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum AccountKind {
    /// Money received from a customer, less what was paid back.
    Cash(Processor),
    /// Owed by contract beyond what credit was there for; the next credit pays it first.
    Receivable,
    /// Invoiced in whole minor units ahead of exact charges (or, in credit, behind them).
    RoundingCarry,
    /// Credit that can still be spent. Below zero within the credit limit.
    Available(CreditKind),
    /// Granted to gateways, not yet captured or returned.
    Slices,
    /// Set aside for long-running work.
    Holds,
    /// Parts of slices whose gateway is lost, until its journal or an operator says what they were.
    Suspense,
    /// Credit on its way back to the customer.
    RefundsPayable,
    /// Costs of supply not yet paid: what is bought from outside, once per supplier; fees of processors, once per customer.
    AccruedCosts(CostKind),
    /// What was charged, exact to the nano-unit.
    Usage(SkuFamily),
    /// Charged by contract: commitments that were missed, and fees for leaving, less what was used up later; and what lapsed
    /// of those that were billed in advance.
    Commitments,
    /// Fees of contracts, as they are earned.
    Fees,
    /// Difference between invoices in minor units and exact charges.
    Rounding,
    /// Paid credit that expired unused.
    Breakage,
    /// Promotional credit given (reduces income), less what expired unused.
    Promotions,
    /// Credit for promises that were not kept: a lease without its notice, a level of service that was missed (reduces income).
    Compensations,
    /// Charges given back (reduces income).
    Refunds,
    /// Costs of supply: what is bought from outside, once per supplier; fees of processors, once per customer.
    Costs(CostKind),
    /// Tax of invoices beyond what was paid ahead for it; the next payment pays it first.
    TaxReceivable,
    /// The part of payments that is kept for the tax of invoices to come.
    TaxPrepaid,
    /// Tax that was invoiced and is owed to a jurisdiction: one account for each, and customer.
    Tax,
    /// Billed in advance and not earned yet: one account for each contract.
    DeferredRevenue,
    /// What went from a processor to the bank (below zero), and what came to the bank that way: one account for each
    /// currency. Cash stays what customers paid in there, so that what a customer has needs to know of no payouts.
    Payouts(Processor),
}

/// Stands for the organization's id in a path.
const ORGANIZATION: &str = "{}";
/// Begins the path of every account of a tax; the jurisdiction in lower case and the organization's id follow.
pub const TAX_PREFIX: &str = "liabilities:tax:";
/// Begins the path of every account of deferred revenue; the contract's and the organization's id follow.
pub const DEFERRED_PREFIX: &str = "liabilities:deferred-revenue:";
/// Begin the paths of accounts of payouts; the currency in lower case follows.
const FROM_STRIPE_PREFIX: &str = "assets:payouts:stripe:";
const TO_BANK_PREFIX: &str = "assets:payouts:bank:";

impl AccountKind {
    /// All kinds but [`Self::Tax`] and [`Self::DeferredRevenue`], of which a customer has one for each jurisdiction and
    /// contract, and [`Self::Payouts`], of which there is one for each currency.
    pub const ALL: [Self; 38] = [
        Self::Cash(Processor::Bank),
        Self::Cash(Processor::Stripe),
        Self::Receivable,
        Self::RoundingCarry,
        Self::Available(CreditKind::Paid),
        Self::Available(CreditKind::Promotional),
        Self::Available(CreditKind::Committed),
        Self::Slices,
        Self::Holds,
        Self::Suspense,
        Self::RefundsPayable,
        Self::AccruedCosts(CostKind::Power),
        Self::AccruedCosts(CostKind::Depreciation),
        Self::AccruedCosts(CostKind::Upstream),
        Self::AccruedCosts(CostKind::ProcessorFees),
        Self::AccruedCosts(CostKind::TransferPrice),
        Self::Usage(SkuFamily::ModelTokens),
        Self::Usage(SkuFamily::ModelRequests),
        Self::Usage(SkuFamily::DeviceTime),
        Self::Usage(SkuFamily::JobStarts),
        Self::Usage(SkuFamily::ProjectFees),
        Self::Usage(SkuFamily::OneTimeFees),
        Self::Usage(SkuFamily::FileStorage),
        Self::Usage(SkuFamily::FileEgress),
        Self::Commitments,
        Self::Fees,
        Self::Rounding,
        Self::Breakage,
        Self::Promotions,
        Self::Compensations,
        Self::Refunds,
        Self::Costs(CostKind::Power),
        Self::Costs(CostKind::Depreciation),
        Self::Costs(CostKind::Upstream),
        Self::Costs(CostKind::ProcessorFees),
        Self::Costs(CostKind::TransferPrice),
        Self::TaxReceivable,
        Self::TaxPrepaid,
    ];

    /// The path with `{}` in place of the organization's id; owner's accounts have none.
    const fn pattern(self) -> &'static str {
        match self {
            Self::Cash(Processor::Bank) => "assets:cash:bank:{}",
            Self::Cash(Processor::Stripe) => "assets:cash:stripe:{}",
            Self::Receivable => "assets:receivable:{}",
            Self::RoundingCarry => "assets:rounding-carry:{}",
            Self::Available(CreditKind::Paid) => "liabilities:customers:{}:available:paid",
            Self::Available(CreditKind::Promotional) => "liabilities:customers:{}:available:promotional",
            Self::Available(CreditKind::Committed) => "liabilities:customers:{}:available:committed",
            Self::Slices => "liabilities:customers:{}:slices",
            Self::Holds => "liabilities:customers:{}:holds",
            Self::Suspense => "liabilities:customers:{}:suspense",
            Self::RefundsPayable => "liabilities:customers:{}:refunds-payable",
            Self::AccruedCosts(CostKind::Power) => "liabilities:accrued:power",
            Self::AccruedCosts(CostKind::Depreciation) => "liabilities:accrued:depreciation",
            Self::AccruedCosts(CostKind::Upstream) => "liabilities:accrued:upstream:{}",
            Self::AccruedCosts(CostKind::ProcessorFees) => "liabilities:accrued:processor-fees:{}",
            Self::AccruedCosts(CostKind::TransferPrice) => "liabilities:accrued:transfer-price",
            Self::Usage(SkuFamily::ModelTokens) => "income:usage:model-tokens:{}",
            Self::Usage(SkuFamily::ModelRequests) => "income:usage:model-requests:{}",
            Self::Usage(SkuFamily::DeviceTime) => "income:usage:device-time:{}",
            Self::Usage(SkuFamily::JobStarts) => "income:usage:job-starts:{}",
            Self::Usage(SkuFamily::ProjectFees) => "income:usage:project-fees:{}",
            Self::Usage(SkuFamily::OneTimeFees) => "income:usage:one-time-fees:{}",
            Self::Usage(SkuFamily::FileStorage) => "income:usage:file-storage:{}",
            Self::Usage(SkuFamily::FileEgress) => "income:usage:file-egress:{}",
            Self::Commitments => "income:commitments:{}",
            Self::Fees => "income:fees:{}",
            Self::Rounding => "income:rounding:{}",
            Self::Breakage => "income:breakage:{}",
            Self::Promotions => "income:promotions:{}",
            Self::Compensations => "income:compensations:{}",
            Self::Refunds => "income:refunds:{}",
            Self::Costs(CostKind::Power) => "expenses:supply:power",
            Self::Costs(CostKind::Depreciation) => "expenses:supply:depreciation",
            Self::Costs(CostKind::Upstream) => "expenses:supply:upstream:{}",
            Self::Costs(CostKind::ProcessorFees) => "expenses:supply:processor-fees:{}",
            Self::Costs(CostKind::TransferPrice) => "expenses:supply:transfer-price",
            Self::TaxReceivable => "assets:receivable-tax:{}",
            Self::TaxPrepaid => "liabilities:customers:{}:tax-prepaid",
            Self::Tax => TAX_PREFIX,
            Self::DeferredRevenue => DEFERRED_PREFIX,
            Self::Payouts(Processor::Bank) => TO_BANK_PREFIX,
            Self::Payouts(Processor::Stripe) => FROM_STRIPE_PREFIX,
        }
    }

    pub const fn class(self) -> AccountClass {
        match self {
            Self::Cash(_) | Self::Receivable | Self::TaxReceivable | Self::RoundingCarry | Self::Payouts(_) => AccountClass::Asset,
            Self::Available(_)
            | Self::Slices
            | Self::Holds
            | Self::Suspense
            | Self::RefundsPayable
            | Self::TaxPrepaid
            | Self::Tax
            | Self::DeferredRevenue
            | Self::AccruedCosts(_) => AccountClass::Liability,
            Self::Usage(_)
            | Self::Commitments
            | Self::Fees
            | Self::Rounding
            | Self::Breakage
            | Self::Promotions
            | Self::Compensations
            | Self::Refunds => AccountClass::Income,
            Self::Costs(_) => AccountClass::Expense,
        }
    }

    /// Promotions, compensations and refunds are income accounts with the opposite side (contra accounts).
    pub const fn normal_side(self) -> NormalSide {
        match self {
            Self::Cash(_)
            | Self::Receivable
            | Self::TaxReceivable
            | Self::RoundingCarry
            | Self::Payouts(_)
            | Self::Promotions
            | Self::Compensations
            | Self::Refunds
            | Self::Costs(_) => NormalSide::Debit,
            Self::Available(_)
            | Self::Slices
            | Self::Holds
            | Self::Suspense
            | Self::RefundsPayable
            | Self::TaxPrepaid
            | Self::Tax
            | Self::DeferredRevenue
            | Self::AccruedCosts(_)
            | Self::Usage(_)
            | Self::Commitments
            | Self::Fees
            | Self::Rounding
            | Self::Breakage => NormalSide::Credit,
        }
    }

    /// What the paths of all customers' accounts of a kind begin with; that of the owner's is the whole path.
    pub fn path_prefix(self) -> &'static str {
        self.pattern().split_once(ORGANIZATION).map_or(self.pattern(), |(head, _)| head)
    }

    /// Whether there is one per organization; otherwise it is the owner's.
    pub fn is_customers(self) -> bool {
        self.pattern().contains(ORGANIZATION)
    }
}

/// One account of the ledger. Built by [`LedgerAccount::customer`] and, for the owner's
/// costs, by [`crate::posting::post_cost`], so that no customer account is without its organization.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LedgerAccount {
    kind: AccountKind,
    /// Of a tax only.
    jurisdiction: Option<Jurisdiction>,
    /// Of deferred revenue only.
    contract: Option<ContractId>,
    /// Of payouts only.
    currency: Option<Currency>,
    organization: Option<OrganizationId>,
}

impl LedgerAccount {
    const fn of(kind: AccountKind, organization: Option<OrganizationId>) -> Self {
        Self { kind, jurisdiction: None, contract: None, currency: None, organization }
    }
    /// An account of one organization. Kinds that the owner keeps once ignore it.
    pub fn customer(kind: AccountKind, organization: &OrganizationId) -> Self {
        Self::of(kind, kind.is_customers().then(|| organization.clone()))
    }
    /// What a customer's invoices say a jurisdiction is owed.
    pub fn tax(jurisdiction: Jurisdiction, organization: &OrganizationId) -> Self {
        Self { jurisdiction: Some(jurisdiction), ..Self::of(AccountKind::Tax, Some(organization.clone())) }
    }
    /// What a contract billed in advance and has not earned.
    pub fn deferred(contract: &ContractId, organization: &OrganizationId) -> Self {
        Self { contract: Some(contract.clone()), ..Self::of(AccountKind::DeferredRevenue, Some(organization.clone())) }
    }
    /// What went from a processor to the bank, or came there.
    pub fn payouts(processor: Processor, currency: Currency) -> Self {
        Self { currency: Some(currency), ..Self::of(AccountKind::Payouts(processor), None) }
    }
    pub(crate) const fn cost(kind: CostKind) -> Self {
        Self::of(AccountKind::Costs(kind), None)
    }
    pub(crate) const fn accrued(kind: CostKind) -> Self {
        Self::of(AccountKind::AccruedCosts(kind), None)
    }
    pub const fn kind(&self) -> AccountKind {
        self.kind
    }
    pub const fn organization(&self) -> Option<&OrganizationId> {
        self.organization.as_ref()
    }
    pub const fn jurisdiction(&self) -> Option<&Jurisdiction> {
        self.jurisdiction.as_ref()
    }
    pub const fn contract(&self) -> Option<&ContractId> {
        self.contract.as_ref()
    }
}

/// The stable path: `liabilities:customers:org_…:available:paid`.
impl fmt::Display for LedgerAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(jurisdiction), Some(organization)) = (&self.jurisdiction, &self.organization) {
            return write!(f, "{TAX_PREFIX}{}:{organization}", jurisdiction.to_string().to_ascii_lowercase());
        }
        if let (Some(contract), Some(organization)) = (&self.contract, &self.organization) {
            return write!(f, "{DEFERRED_PREFIX}{contract}:{organization}");
        }
        if let Some(currency) = &self.currency {
            return write!(f, "{}{}", self.kind.pattern(), currency.as_str().to_ascii_lowercase());
        }
        match (self.kind.pattern().split_once(ORGANIZATION), &self.organization) {
            (Some((head, tail)), Some(organization)) => write!(f, "{head}{organization}{tail}"),
            _ => f.write_str(self.kind.pattern()),
        }
    }
}

impl fmt::Debug for LedgerAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for LedgerAccount {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        for kind in AccountKind::ALL {
            match kind.pattern().split_once(ORGANIZATION) {
                None if kind.pattern() == text => return Ok(Self::of(kind, None)),
                None => {}
                Some((head, tail)) => {
                    let id = text.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
                    if let Some(organization) = id.and_then(|id| id.parse().ok()) {
                        return Ok(Self::of(kind, Some(organization)));
                    }
                }
            }
        }
        let of_tax = text.strip_prefix(TAX_PREFIX).and_then(|rest| rest.split_once(':'));
        if let Some((Ok(jurisdiction), Ok(organization))) =
            of_tax.map(|(place, id)| (place.to_ascii_uppercase().parse(), id.parse()))
        {
            let account = Self::tax(jurisdiction, &organization);
            // Written in one way only.
            if account.to_string() == text {
                return Ok(account);
            }
        }
        let deferred = text.strip_prefix(DEFERRED_PREFIX).and_then(|rest| rest.split_once(':'));
        if let Some((Ok(contract), Ok(organization))) = deferred.map(|(contract, id)| (contract.parse(), id.parse())) {
            return Ok(Self::deferred(&contract, &organization));
        }
        for processor in Processor::ALL {
            let currency = text.strip_prefix(AccountKind::Payouts(processor).pattern());
            let account = currency.and_then(|currency| currency.to_ascii_uppercase().parse().ok());
            // Written in one way only.
            let account = account.map(|currency| Self::payouts(processor, currency));
            if let Some(account) = account.filter(|account| account.to_string() == text) {
                return Ok(account);
            }
        }
        let shown: String = text.chars().take(120).collect();
        Err(Error::new(ErrorCode::LedgerMismatch, format!("'{shown}' is not an account of this ledger")))
    }
}

impl TryFrom<String> for LedgerAccount {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<LedgerAccount> for String {
    fn from(account: LedgerAccount) -> Self {
        account.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_account_has_its_own_path_and_parses_back() {
        let organization: OrganizationId = "org_01h".parse().unwrap();
        let accounts: Vec<LedgerAccount> =
            AccountKind::ALL.iter().map(|kind| LedgerAccount::customer(*kind, &organization)).collect();
        let paths: BTreeSet<String> = accounts.iter().map(ToString::to_string).collect();
        assert_eq!(paths.len(), AccountKind::ALL.len());
        for account in &accounts {
            assert_eq!(&account.to_string().parse::<LedgerAccount>().unwrap(), account);
        }
        assert_eq!(accounts[4].to_string(), "liabilities:customers:org_01h:available:paid");
        let tax = LedgerAccount::tax("CA-QC".parse().unwrap(), &organization);
        assert_eq!(tax.to_string(), "liabilities:tax:ca-qc:org_01h");
        assert_eq!(tax.to_string().parse::<LedgerAccount>().unwrap(), tax);
        let deferred = LedgerAccount::deferred(&"ctr_01h".parse().unwrap(), &organization);
        assert_eq!(deferred.to_string(), "liabilities:deferred-revenue:ctr_01h:org_01h");
        assert_eq!(deferred.to_string().parse::<LedgerAccount>().unwrap(), deferred);
    }

    #[test]
    fn payouts_have_an_account_for_each_currency() {
        for (processor, path) in [(Processor::Stripe, "assets:payouts:stripe:eur"), (Processor::Bank, "assets:payouts:bank:eur")] {
            let account = LedgerAccount::payouts(processor, Currency::EUR);
            assert_eq!((account.to_string().as_str(), account.organization()), (path, None));
            assert_eq!(path.parse::<LedgerAccount>().unwrap(), account);
        }
        for text in ["assets:payouts:", "assets:payouts:bank:", "assets:payouts:stripe:EUR", "assets:payouts:stripe:eur:org_1"] {
            assert!(text.parse::<LedgerAccount>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_begins_with_its_class() {
        for kind in AccountKind::ALL.into_iter().chain(Processor::ALL.map(AccountKind::Payouts)) {
            let root = match kind.class() {
                AccountClass::Asset => "assets:",
                AccountClass::Liability => "liabilities:",
                AccountClass::Income => "income:",
                AccountClass::Expense => "expenses:",
            };
            assert!(kind.pattern().starts_with(root), "{kind:?}");
        }
    }

    #[test]
    fn paths_that_name_no_account_are_refused() {
        let wrong =
            ["", "assets:cash:bank", "assets:cash:bank:", "assets:cash:bank:proj_1", "equity:x", "liabilities:customers:{}:slices"];
        let of_tax = ["liabilities:tax:", "liabilities:tax:DE:org_1", "liabilities:tax:xx:org_1", "liabilities:tax:de:proj_1"];
        for text in wrong.into_iter().chain(of_tax) {
            assert!(text.parse::<LedgerAccount>().is_err(), "{text}");
        }
    }
}
