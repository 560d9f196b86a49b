//! From a business fact to a balanced journal entry.
//!
//! An entry is a list of transfers, each a debit and a credit of the same positive amount, so
//! debits equal credits by construction. A fact names what happened; this module alone knows
//! which accounts that touches. Callers bring the identifier and the instant; an entry's
//! identifier is idempotent for ever.

use std::fmt;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{ContractId, JournalEntryId, OrganizationId};
use sublet_core::{Currency, Nanos, Timestamp};

use crate::account::{AccountKind, CostKind, CreditKind, LedgerAccount, Processor};
use crate::place::Jurisdiction;
use crate::sku::SkuFamily;

/// Longest memo, in bytes. Longer ones are refused, not cut.
pub const MEMO_MAX_BYTES: usize = 500;

/// An amount of customer credit by where it came from.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct CreditSplit {
    pub promotional: Nanos,
    pub paid: Nanos,
    /// Of a commitment that was billed in advance.
    #[serde(default)]
    pub committed: Nanos,
}

impl CreditSplit {
    pub fn total(self) -> Result<Nanos> {
        self.promotional.checked_add(self.paid)?.checked_add(self.committed)
    }

    const fn by_kind(self) -> [(CreditKind, Nanos); 3] {
        [(CreditKind::Committed, self.committed), (CreditKind::Promotional, self.promotional), (CreditKind::Paid, self.paid)]
    }
}

/// Tax of one jurisdiction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JurisdictionTax {
    pub jurisdiction: Jurisdiction,
    pub amount: Nanos,
}

/// Something that happened to money that is for taxes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaxFact {
    /// Credit was bought by bank transfer, and a part of the payment is kept for tax.
    Bought { net: Nanos, tax: Nanos },
    /// An invoice's taxes: from what was paid ahead as far as there is any, the rest is owed. Negative ones, of an invoice
    /// below zero, are kept for the next.
    Invoiced { taxes: Vec<JurisdictionTax>, prepaid: Nanos },
    /// A credit note's part of its invoice's taxes, kept for the next ones.
    GivenBack { taxes: Vec<JurisdictionTax> },
    /// Tax that was owed was paid: from what was paid ahead, and from paid credit.
    Settled { prepaid: Nanos, paid: Nanos },
    /// What was paid ahead for tax became paid credit: the account is not taxed any more.
    Released { amount: Nanos },
}

/// Something that happened to one organization's money. Amounts are not negative unless said so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// Credit was bought by bank transfer, or given.
    CreditGranted { credit: CreditKind, amount: Nanos },
    /// A promise was not kept, and is made good with credit.
    Compensated { amount: Nanos },
    /// Credit passed its expiry unused.
    CreditExpired { credit: CreditKind, amount: Nanos },
    /// Part of the available credit went to a gateway.
    SliceGranted { from: CreditSplit },
    /// A gateway gave back what it did not spend.
    SliceReturned { to: CreditSplit },
    /// Usage was charged to a slice. Negative where a volume price fell for a whole line.
    UsageCaptured { family: SkuFamily, amount: Nanos },
    /// Part of the available credit was set aside for work that runs.
    HoldPlaced { from: CreditSplit },
    /// Work was charged to its hold. Negative where a volume price fell for a whole line.
    HoldCaptured { family: SkuFamily, amount: Nanos },
    /// What work did not cost went back.
    HoldReleased { to: CreditSplit },
    /// A gateway was lost with this much of its slice unreported.
    SliceLost { amount: Nanos },
    /// A lost slice's usage was found in its gateway's journal.
    SuspenseCaptured { family: SkuFamily, amount: Nanos },
    /// The rest of a lost slice went back: its journal is complete, or an operator wrote it off in
    /// the customer's favour.
    SuspenseReleased { to: CreditSplit },
    /// An invoice over used credit was issued: only its rounding is posted, since usage already was.
    InvoiceIssued { carry_before: Nanos, carry_after: Nanos },
    /// A missed commitment, or a fee for leaving, was charged: to paid credit as far as there is any, the rest is owed.
    CommitmentCharged { paid: Nanos, owed: Nanos },
    /// What was charged for a missed commitment was used up later, or use beyond one costs less than was charged for it.
    CommitmentReturned { credit: CreditKind, amount: Nanos },
    /// A commitment was billed in advance, and is credit: from paid credit as far as there is any, the rest is owed.
    CommitmentBilled { paid: Nanos, owed: Nanos },
    /// A period's commitment that was billed in advance was settled. `lapsed` was not used in time. `returned` is what other
    /// credit paid of the use that was drawn from it, `gifts` of that gifts. What it was spent on beyond that is taken from paid credit as far
    /// as there is any, the rest is owed.
    DrawdownSettled { paid: Nanos, owed: Nanos, lapsed: Nanos, returned: Nanos, gifts: Nanos },
    /// A contract's fee was billed in advance: to paid credit as far as there is any, the rest is owed.
    FeeBilled { contract: ContractId, paid: Nanos, owed: Nanos },
    /// A part of what a contract billed in advance is earned.
    FeeEarned { contract: ContractId, amount: Nanos },
    /// A flat fee was charged: to credit as far as there is any, the rest is owed.
    FeeCharged { family: SkuFamily, from: CreditSplit, owed: Nanos },
    /// Paid credit settled what was owed.
    OwedSettled { amount: Nanos },
    /// Money that is for taxes.
    Tax(TaxFact),
    /// Use was rated anew and costs more: it is taken from credit.
    ChargeRaised { family: SkuFamily, from: CreditSplit },
    /// Use was rated anew and costs less: the rest is credit again.
    ChargeLowered { family: SkuFamily, to: CreditSplit },
    /// A charge was given back as credit.
    ChargeRefunded { credit: CreditKind, amount: Nanos },
    /// Paid credit is to be paid out.
    /// `tax` of it was kept for tax.
    RefundRequested { net: Nanos, tax: Nanos },
    /// Paid credit was paid out.
    RefundPaid { amount: Nanos },
    /// What was to be paid out was not, and is credit again.
    RefundCalledOff { net: Nanos, tax: Nanos },
    /// Whoever processed a customer's payment keeps a fee.
    ProcessorFeeKept { amount: Nanos },
    /// Answers were bought from a supplier, which is owed for them.
    SupplyBought { amount: Nanos },
}

macro_rules! entry_kinds {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// What an entry records; its text is part of the stored and exported form.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        pub enum EntryKind { $(#[serde(rename = $text)] $variant),+ }

        impl EntryKind {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text),+ } }
        }
    };
}

entry_kinds! {
    CreditGranted = "credit_granted",
    Compensated = "compensated",
    CreditExpired = "credit_expired",
    SliceGranted = "slice_granted",
    SliceReturned = "slice_returned",
    UsageCaptured = "usage_captured",
    HoldPlaced = "hold_placed",
    HoldCaptured = "hold_captured",
    HoldReleased = "hold_released",
    SliceLost = "slice_lost",
    SuspenseCaptured = "suspense_captured",
    SuspenseReleased = "suspense_released",
    InvoiceIssued = "invoice_issued",
    CommitmentCharged = "commitment_charged",
    CommitmentReturned = "commitment_returned",
    CommitmentBilled = "commitment_billed",
    DrawdownSettled = "drawdown_settled",
    FeeBilled = "fee_billed",
    FeeEarned = "fee_earned",
    FeeCharged = "fee_charged",
    OwedSettled = "owed_settled",
    TaxInvoiced = "tax_invoiced",
    TaxGivenBack = "tax_given_back",
    TaxSettled = "tax_settled",
    TaxReleased = "tax_released",
    ChargeRaised = "charge_raised",
    ChargeLowered = "charge_lowered",
    ChargeRefunded = "charge_refunded",
    RefundRequested = "refund_requested",
    RefundPaid = "refund_paid",
    RefundCalledOff = "refund_called_off",
    CostAccrued = "cost_accrued",
    PayoutMade = "payout_made",
    PayoutReturned = "payout_returned",
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for EntryKind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::new(ErrorCode::LedgerMismatch, format!("'{shown}' is not a kind of journal entry"))
        })
    }
}

/// A positive amount from one account to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transfer {
    pub debit: LedgerAccount,
    pub credit: LedgerAccount,
    pub amount: Nanos,
}

/// What the caller knows of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryHead {
    pub id: JournalEntryId,
    pub at: Timestamp,
    pub currency: Currency,
    /// One line for a person: what caused this, with the identifiers to look further.
    pub memo: String,
}

/// One business fact in the books.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JournalEntry {
    pub id: JournalEntryId,
    pub at: Timestamp,
    pub kind: EntryKind,
    pub currency: Currency,
    /// Empty if every amount of the fact was zero.
    pub transfers: Vec<Transfer>,
    pub memo: String,
}

impl JournalEntry {
    /// The same entry where a customer's money comes and goes through this processor. Facts say the bank.
    #[must_use]
    pub fn through(mut self, processor: Processor) -> Self {
        let (bank, cash) = (AccountKind::Cash(Processor::Bank), AccountKind::Cash(processor));
        for transfer in &mut self.transfers {
            for account in [&mut transfer.debit, &mut transfer.credit] {
                if let (true, Some(organization)) = (account.kind() == bank, account.organization().cloned()) {
                    *account = LedgerAccount::customer(cash, &organization);
                }
            }
        }
        self
    }

    /// What construction guarantees, for entries read back: positive amounts between two accounts.
    pub fn verify(&self) -> Result<()> {
        for transfer in &self.transfers {
            if transfer.amount <= Nanos::ZERO || transfer.debit == transfer.credit {
                return Err(Error::new(ErrorCode::LedgerMismatch, format!("entry {} has a transfer that moves nothing", self.id)));
            }
        }
        Ok(())
    }
}

/// The entry that records a fact of one organization.
pub fn post(head: EntryHead, organization: &OrganizationId, fact: &Fact) -> Result<JournalEntry> {
    let account = |kind| LedgerAccount::customer(kind, organization);
    let available = |credit| account(AccountKind::Available(credit));
    let mut entry = Builder::new(head, fact.kind())?;
    match fact {
        Fact::CreditGranted { credit, amount } => entry.transfer(account(granted_from(*credit)), available(*credit), *amount)?,
        Fact::Compensated { amount } => {
            entry.transfer(account(AccountKind::Compensations), available(CreditKind::Promotional), *amount)?;
        }
        Fact::CreditExpired { credit, amount } => entry.transfer(available(*credit), account(expired_to(*credit)), *amount)?,
        Fact::SliceGranted { from } => entry.take(organization, *from, AccountKind::Slices)?,
        Fact::SliceReturned { to } => entry.give_back(organization, AccountKind::Slices, *to)?,
        Fact::UsageCaptured { family, amount } => entry.capture(organization, AccountKind::Slices, (*family, *amount))?,
        Fact::HoldPlaced { from } => entry.take(organization, *from, AccountKind::Holds)?,
        Fact::HoldCaptured { family, amount } => entry.capture(organization, AccountKind::Holds, (*family, *amount))?,
        Fact::HoldReleased { to } => entry.give_back(organization, AccountKind::Holds, *to)?,
        Fact::SliceLost { amount } => entry.transfer(account(AccountKind::Slices), account(AccountKind::Suspense), *amount)?,
        Fact::SuspenseCaptured { family, amount } => entry.capture(organization, AccountKind::Suspense, (*family, *amount))?,
        Fact::SuspenseReleased { to } => entry.give_back(organization, AccountKind::Suspense, *to)?,
        Fact::InvoiceIssued { carry_before, carry_after } => {
            // The carry is what was invoiced ahead of exact charges; its growth is income of the invoice.
            let growth = carry_after.checked_sub(*carry_before)?;
            entry.signed_transfer(account(AccountKind::RoundingCarry), account(AccountKind::Rounding), growth)?;
        }
        Fact::CommitmentCharged { paid, owed } => entry.bill(organization, account(AccountKind::Commitments), (*paid, *owed))?,
        Fact::CommitmentReturned { credit, amount } => {
            entry.transfer(account(AccountKind::Commitments), available(*credit), *amount)?;
        }
        Fact::CommitmentBilled { paid, owed } => entry.bill(organization, available(CreditKind::Committed), (*paid, *owed))?,
        Fact::DrawdownSettled { paid, owed, lapsed, returned, gifts } => {
            entry.bill(organization, available(CreditKind::Committed), (*paid, *owed))?;
            entry.transfer(available(CreditKind::Committed), account(AccountKind::Commitments), *lapsed)?;
            entry.transfer(available(CreditKind::Committed), available(CreditKind::Promotional), *gifts)?;
            entry.transfer(available(CreditKind::Committed), available(CreditKind::Paid), returned.checked_sub(*gifts)?)?;
        }
        Fact::FeeBilled { contract, paid, owed } => {
            entry.bill(organization, LedgerAccount::deferred(contract, organization), (*paid, *owed))?;
        }
        Fact::FeeEarned { contract, amount } => {
            entry.transfer(LedgerAccount::deferred(contract, organization), account(AccountKind::Fees), *amount)?;
        }
        Fact::FeeCharged { family, from, owed } => {
            entry.take(organization, *from, AccountKind::Usage(*family))?;
            entry.transfer(account(AccountKind::Receivable), account(AccountKind::Usage(*family)), *owed)?;
        }
        Fact::OwedSettled { amount } => {
            entry.transfer(available(CreditKind::Paid), account(AccountKind::Receivable), *amount)?;
        }
        Fact::Tax(fact) => entry.tax(organization, fact)?,
        Fact::ChargeRaised { family, from } => entry.take(organization, *from, AccountKind::Usage(*family))?,
        Fact::ChargeLowered { family, to } => entry.give_back(organization, AccountKind::Usage(*family), *to)?,
        Fact::ChargeRefunded { credit, amount } => entry.transfer(account(AccountKind::Refunds), available(*credit), *amount)?,
        Fact::RefundRequested { net, tax } => {
            entry.transfer(available(CreditKind::Paid), account(AccountKind::RefundsPayable), *net)?;
            entry.transfer(account(AccountKind::TaxPrepaid), account(AccountKind::RefundsPayable), *tax)?;
        }
        Fact::RefundPaid { amount } => {
            entry.transfer(account(AccountKind::RefundsPayable), account(AccountKind::Cash(Processor::Bank)), *amount)?;
        }
        Fact::RefundCalledOff { net, tax } => {
            entry.transfer(account(AccountKind::RefundsPayable), available(CreditKind::Paid), *net)?;
            entry.transfer(account(AccountKind::RefundsPayable), account(AccountKind::TaxPrepaid), *tax)?;
        }
        Fact::ProcessorFeeKept { amount } => entry.accrue(organization, CostKind::ProcessorFees, *amount)?,
        Fact::SupplyBought { amount } => entry.accrue(organization, CostKind::Upstream, *amount)?,
    }
    Ok(entry.finish())
}

/// The entry that records one of the owner's own costs of supply, which is owed. What is bought names its supplier
/// and is [`Fact::SupplyBought`]; a processor's fee names its customer and is [`Fact::ProcessorFeeKept`].
pub fn post_cost(head: EntryHead, cost: CostKind, amount: Nanos) -> Result<JournalEntry> {
    if matches!(cost, CostKind::Upstream | CostKind::ProcessorFees) {
        return Err(Error::internal("what is bought names its supplier, and a processor's fee its customer"));
    }
    let mut entry = Builder::new(head, EntryKind::CostAccrued)?;
    entry.transfer(LedgerAccount::cost(cost), LedgerAccount::accrued(cost), amount)?;
    Ok(entry.finish())
}

/// What a processor did with money that it held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PayoutFact {
    /// It is on the owner's bank account.
    Made,
    /// The bank sent it back, and the processor holds it again.
    Returned,
}

/// The entry that records what a processor paid out to the owner's bank account, or what came back from there.
pub fn post_payout(head: EntryHead, (processor, fact): (Processor, PayoutFact), amount: Nanos) -> Result<JournalEntry> {
    let at = |place| LedgerAccount::payouts(place, head.currency);
    let (held, arrived) = (at(processor), at(Processor::Bank));
    match fact {
        PayoutFact::Made => {
            let mut entry = Builder::new(head, EntryKind::PayoutMade)?;
            entry.transfer(arrived, held, amount)?;
            Ok(entry.finish())
        }
        PayoutFact::Returned => {
            let mut entry = Builder::new(head, EntryKind::PayoutReturned)?;
            entry.transfer(held, arrived, amount)?;
            Ok(entry.finish())
        }
    }
}

const fn granted_from(credit: CreditKind) -> AccountKind {
    match credit {
        CreditKind::Paid => AccountKind::Cash(Processor::Bank),
        CreditKind::Promotional => AccountKind::Promotions,
        CreditKind::Committed => AccountKind::Receivable,
    }
}

const fn expired_to(credit: CreditKind) -> AccountKind {
    match credit {
        CreditKind::Paid => AccountKind::Breakage,
        CreditKind::Promotional => AccountKind::Promotions,
        CreditKind::Committed => AccountKind::Commitments,
    }
}

impl Fact {
    pub const fn kind(&self) -> EntryKind {
        match self {
            Self::CreditGranted { .. } => EntryKind::CreditGranted,
            Self::Compensated { .. } => EntryKind::Compensated,
            Self::CreditExpired { .. } => EntryKind::CreditExpired,
            Self::SliceGranted { .. } => EntryKind::SliceGranted,
            Self::SliceReturned { .. } => EntryKind::SliceReturned,
            Self::UsageCaptured { .. } => EntryKind::UsageCaptured,
            Self::HoldPlaced { .. } => EntryKind::HoldPlaced,
            Self::HoldCaptured { .. } => EntryKind::HoldCaptured,
            Self::HoldReleased { .. } => EntryKind::HoldReleased,
            Self::SliceLost { .. } => EntryKind::SliceLost,
            Self::SuspenseCaptured { .. } => EntryKind::SuspenseCaptured,
            Self::SuspenseReleased { .. } => EntryKind::SuspenseReleased,
            Self::InvoiceIssued { .. } => EntryKind::InvoiceIssued,
            Self::CommitmentCharged { .. } => EntryKind::CommitmentCharged,
            Self::CommitmentReturned { .. } => EntryKind::CommitmentReturned,
            Self::CommitmentBilled { .. } => EntryKind::CommitmentBilled,
            Self::DrawdownSettled { .. } => EntryKind::DrawdownSettled,
            Self::FeeBilled { .. } => EntryKind::FeeBilled,
            Self::FeeEarned { .. } => EntryKind::FeeEarned,
            Self::FeeCharged { .. } => EntryKind::FeeCharged,
            Self::OwedSettled { .. } => EntryKind::OwedSettled,
            Self::Tax(TaxFact::Bought { .. }) => EntryKind::CreditGranted,
            Self::Tax(TaxFact::Invoiced { .. }) => EntryKind::TaxInvoiced,
            Self::Tax(TaxFact::GivenBack { .. }) => EntryKind::TaxGivenBack,
            Self::Tax(TaxFact::Settled { .. }) => EntryKind::TaxSettled,
            Self::Tax(TaxFact::Released { .. }) => EntryKind::TaxReleased,
            Self::ChargeRaised { .. } => EntryKind::ChargeRaised,
            Self::ChargeLowered { .. } => EntryKind::ChargeLowered,
            Self::ChargeRefunded { .. } => EntryKind::ChargeRefunded,
            Self::RefundRequested { .. } => EntryKind::RefundRequested,
            Self::RefundPaid { .. } => EntryKind::RefundPaid,
            Self::RefundCalledOff { .. } => EntryKind::RefundCalledOff,
            Self::SupplyBought { .. } | Self::ProcessorFeeKept { .. } => EntryKind::CostAccrued,
        }
    }
}

/// Collects transfers and leaves out those of nothing.
struct Builder(JournalEntry);

impl Builder {
    fn new(head: EntryHead, kind: EntryKind) -> Result<Self> {
        if head.memo.len() > MEMO_MAX_BYTES || head.memo.chars().any(char::is_control) {
            return Err(Error::internal(format!("a memo is one line of at most {MEMO_MAX_BYTES} bytes")));
        }
        let EntryHead { id, at, currency, memo } = head;
        Ok(Self(JournalEntry { id, at, kind, currency, transfers: Vec::new(), memo }))
    }

    fn transfer(&mut self, debit: LedgerAccount, credit: LedgerAccount, amount: Nanos) -> Result<()> {
        if amount.is_negative() {
            return Err(Error::new(ErrorCode::InvalidAmount, format!("{} takes no negative amount, and {amount} is", self.0.kind)));
        }
        if !amount.is_zero() {
            self.0.transfers.push(Transfer { debit, credit, amount });
        }
        Ok(())
    }

    /// A negative amount goes the other way.
    fn signed_transfer(&mut self, debit: LedgerAccount, credit: LedgerAccount, amount: Nanos) -> Result<()> {
        if amount.is_negative() {
            self.transfer(credit, debit, amount.checked_neg()?)
        } else {
            self.transfer(debit, credit, amount)
        }
    }

    /// What is due by contract: from paid credit, and the rest is owed.
    fn bill(&mut self, organization: &OrganizationId, into: LedgerAccount, (paid, owed): (Nanos, Nanos)) -> Result<()> {
        let account = |kind| LedgerAccount::customer(kind, organization);
        self.transfer(account(AccountKind::Available(CreditKind::Paid)), into.clone(), paid)?;
        self.transfer(account(AccountKind::Receivable), into, owed)
    }

    /// What was used becomes income; a correction may be negative.
    fn capture(&mut self, organization: &OrganizationId, from: AccountKind, (family, amount): (SkuFamily, Nanos)) -> Result<()> {
        let account = |kind| LedgerAccount::customer(kind, organization);
        self.signed_transfer(account(from), account(AccountKind::Usage(family)), amount)
    }

    /// What moves money that is for taxes.
    fn tax(&mut self, organization: &OrganizationId, fact: &TaxFact) -> Result<()> {
        let account = |kind| LedgerAccount::customer(kind, organization);
        let (ahead, owed) = (account(AccountKind::TaxPrepaid), account(AccountKind::TaxReceivable));
        let (cash, paid_credit) = (account(AccountKind::Cash(Processor::Bank)), account(AccountKind::Available(CreditKind::Paid)));
        let of = |tax: &JurisdictionTax| LedgerAccount::tax(tax.jurisdiction.clone(), organization);
        match fact {
            TaxFact::Bought { net, tax } => {
                self.transfer(cash.clone(), paid_credit, *net)?;
                self.transfer(cash, ahead, *tax)
            }
            TaxFact::Invoiced { taxes, prepaid } => {
                let mut left = *prepaid;
                for tax in taxes {
                    if tax.amount.is_negative() {
                        self.transfer(of(tax), ahead.clone(), tax.amount.checked_neg()?)?;
                        continue;
                    }
                    let from_ahead = tax.amount.min(left).max(Nanos::ZERO);
                    left = left.checked_sub(from_ahead)?;
                    self.transfer(ahead.clone(), of(tax), from_ahead)?;
                    self.transfer(owed.clone(), of(tax), tax.amount.checked_sub(from_ahead)?)?;
                }
                Ok(())
            }
            TaxFact::GivenBack { taxes } => taxes.iter().try_for_each(|tax| self.transfer(of(tax), ahead.clone(), tax.amount)),
            TaxFact::Settled { prepaid, paid } => {
                self.transfer(ahead, owed.clone(), *prepaid)?;
                self.transfer(paid_credit, owed, *paid)
            }
            TaxFact::Released { amount } => self.transfer(ahead, paid_credit, *amount),
        }
    }

    /// From available credit into another account of the customer.
    fn take(&mut self, organization: &OrganizationId, from: CreditSplit, into: AccountKind) -> Result<()> {
        for (credit, amount) in from.by_kind() {
            let available = LedgerAccount::customer(AccountKind::Available(credit), organization);
            self.transfer(available, LedgerAccount::customer(into, organization), amount)?;
        }
        Ok(())
    }

    /// A cost that is owed.
    fn accrue(&mut self, organization: &OrganizationId, kind: CostKind, amount: Nanos) -> Result<()> {
        let account = |kind| LedgerAccount::customer(kind, organization);
        self.transfer(account(AccountKind::Costs(kind)), account(AccountKind::AccruedCosts(kind)), amount)
    }

    /// From another account of the customer back into available credit.
    fn give_back(&mut self, organization: &OrganizationId, from: AccountKind, to: CreditSplit) -> Result<()> {
        for (credit, amount) in to.by_kind() {
            let available = LedgerAccount::customer(AccountKind::Available(credit), organization);
            self.transfer(LedgerAccount::customer(from, organization), available, amount)?;
        }
        Ok(())
    }

    fn finish(self) -> JournalEntry {
        self.0
    }
}

#[cfg(test)]
#[path = "posting_tests.rs"]
mod tests;
