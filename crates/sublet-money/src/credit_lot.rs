//! Credit that expires, burns in an order of its own, or is for some use only.
//!
//! An account's credit is what its ledger says, by kind. Some of it belongs to *lots*: grants with an end, a priority
//! or a scope; the rest is free. A lot says how much of the available credit is its own. Credit burns in the order
//! (priority, end, gifts before what was paid for, id), and what is not spent goes back to where it was taken from, the
//! last taken first. Free credit has the usual priority and no end.
//!
//! Credit of a contract, whose commitment was billed in advance ([`crate::drawdown`]), is in lots alone and burns before
//! all other.
//!
//! Invariants: no more is burned than the ledger has; a lot never burns at or after its end, or for a use outside its
//! scope; lots together are never more than the credit of their kind and what is lent with it. Where money was taken
//! from the account otherwise (a debt by contract, a refund), lots give way in the order in which they would have burned.
//!
//! Deliberately absent: what a lot was spent on. Charges name no lots; the books keep the kinds apart.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::CreditGrantId;
use sublet_core::{Nanos, Timestamp};

use crate::account::CreditKind;
use crate::posting::CreditSplit;
use crate::sku::SkuFamily;

/// The priority of credit of which nothing else was said. What has a smaller one burns before it.
pub const PRIORITY_DEFAULT: u16 = 100;
/// The largest priority.
pub const PRIORITY_MAX: u16 = 1_000;
/// Most lots of an account with anything left in them.
pub const LOTS_MAX: usize = 100;
/// Most parts that one slice or hold is made of.
pub const PARTS_MAX: usize = 1_000;

/// Begins the name of a scope that a contract has.
const COVERED_PREFIX: &str = "contract:";

/// What slices and holds are taken for. A slice pays for the tokens of requests and for the requests themselves, so credit
/// for tokens is for both.
const FUNDED: [SkuFamily; 2] = [SkuFamily::ModelTokens, SkuFamily::DeviceTime];

/// What credit may be spent on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CreditScope {
    #[default]
    All,
    Family(SkuFamily),
    /// What a contract covers.
    Covered(FamilySet),
}

/// Families of things.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FamilySet([bool; SkuFamily::ALL.len()]);

impl FamilySet {
    pub fn new(families: impl IntoIterator<Item = SkuFamily>) -> Self {
        let mut set = [false; SkuFamily::ALL.len()];
        for family in families {
            for (known, is_in) in SkuFamily::ALL.into_iter().zip(&mut set) {
                *is_in |= known == family;
            }
        }
        Self(set)
    }
    pub fn iter(self) -> impl Iterator<Item = SkuFamily> {
        SkuFamily::ALL.into_iter().zip(self.0).filter_map(|(family, is_in)| is_in.then_some(family))
    }
    pub fn contains(self, family: SkuFamily) -> bool {
        self.iter().any(|known| known == family)
    }
}

impl CreditScope {
    pub fn covers(self, family: SkuFamily) -> bool {
        match self {
            Self::All => true,
            Self::Family(own) => own == family,
            Self::Covered(set) => set.contains(family),
        }
    }
}

impl fmt::Display for CreditScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Family(family) => f.write_str(family.as_str()),
            Self::Covered(set) => {
                f.write_str(COVERED_PREFIX)?;
                set.iter()
                    .enumerate()
                    .try_for_each(|(index, family)| write!(f, "{}{}", if index == 0 { "" } else { "+" }, family.as_str()))
            }
        }
    }
}

impl FromStr for CreditScope {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if let Some(names) = text.strip_prefix(COVERED_PREFIX) {
            let family = |name: &str| SkuFamily::ALL.into_iter().find(|family| family.as_str() == name);
            let families: Option<Vec<_>> = names.split('+').map(family).collect();
            let scope = families.map(|families| Self::Covered(FamilySet::new(families)));
            // Written in one way only.
            if let Some(scope) = scope.filter(|scope| scope.to_string() == text) {
                return Ok(scope);
            }
        }
        let mut all = std::iter::once(Self::All).chain(FUNDED.into_iter().map(Self::Family));
        all.find(|scope| scope.to_string() == text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is nothing that credit can be for"))
                .alternative("use all, model-tokens or device-time")
        })
    }
}

impl TryFrom<String> for CreditScope {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<CreditScope> for String {
    fn from(scope: CreditScope) -> Self {
        scope.to_string()
    }
}

/// When and for what credit burns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreditTerms {
    /// What has a smaller one burns first.
    pub priority: u16,
    /// It cannot be spent at that instant any more.
    pub expires_at: Option<Timestamp>,
    pub scope: CreditScope,
}

impl Default for CreditTerms {
    fn default() -> Self {
        Self { priority: PRIORITY_DEFAULT, expires_at: None, scope: CreditScope::All }
    }
}

impl CreditTerms {
    /// Refuses what can never be spent.
    pub fn validate(&self, now: Timestamp) -> Result<()> {
        if self.priority > PRIORITY_MAX {
            let message = format!("a priority is 0 to {PRIORITY_MAX}, and {PRIORITY_DEFAULT} is the usual one");
            return Err(Error::new(ErrorCode::InvalidRequest, message).param("priority"));
        }
        if self.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("credit expires in the future, and it is {now}"))
                .param("expires_at")
                .alternative("leave expires_at out for credit without an end"));
        }
        Ok(())
    }
}

/// A grant that does not burn like any other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreditLot {
    pub id: CreditGrantId,
    pub kind: CreditKind,
    pub terms: CreditTerms,
    /// What of the available credit is its own.
    pub remaining: Nanos,
}

impl CreditLot {
    /// The lot of a new grant; `None` for one that is free credit.
    pub fn of(id: CreditGrantId, kind: CreditKind, terms: CreditTerms, amount: Nanos) -> Option<Self> {
        (terms != CreditTerms::default()).then_some(Self { id, kind, terms, remaining: amount })
    }
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.terms.expires_at.is_some_and(|end| end <= now)
    }
    fn rank(&self) -> Rank<'_> {
        Rank { priority: self.terms.priority, end: self.terms.expires_at, kind: self.kind, id: self.id.as_str() }
    }
}

/// The place of credit in the order of burning.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rank<'a> {
    priority: u16,
    end: Option<Timestamp>,
    kind: CreditKind,
    id: &'a str,
}

impl Rank<'_> {
    const fn free(kind: CreditKind) -> Self {
        Self { priority: PRIORITY_DEFAULT, end: None, kind, id: "" }
    }
    /// What was given for nothing before what was paid for.
    const fn cost_basis(self) -> u8 {
        match self.kind {
            CreditKind::Committed => 0,
            CreditKind::Promotional => 1,
            CreditKind::Paid => 2,
        }
    }
}

impl PartialOrd for Rank<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let end = |rank: &Self| (rank.end.is_none(), rank.end);
        let order = |rank: &Self| (rank.kind != CreditKind::Committed, rank.priority, end(rank), rank.cost_basis());
        (order(self), self.id).cmp(&(order(other), other.id))
    }
}

/// A part of a slice or hold, by where it was taken from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BurnedPart {
    /// `None` for free credit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lot: Option<CreditGrantId>,
    pub kind: CreditKind,
    pub amount: Nanos,
}

/// What was taken from credit, in the order in which it burned.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Burned(Vec<BurnedPart>);

impl Burned {
    /// Free credit alone: what accounts without lots burn.
    pub fn free(split: CreditSplit) -> Self {
        let kinds = [CreditKind::Committed, CreditKind::Promotional, CreditKind::Paid];
        let parts = kinds.map(|kind| (kind, of_kind(split, kind)));
        let part = |(kind, amount)| BurnedPart { lot: None, kind, amount };
        Self(parts.into_iter().filter(|(_, amount)| !amount.is_zero()).map(part).collect())
    }

    pub fn parts(&self) -> &[BurnedPart] {
        &self.0
    }

    /// What of it belongs to lots, and to which.
    pub fn of_lots(&self) -> impl Iterator<Item = (&CreditGrantId, Nanos)> {
        self.0.iter().filter_map(|part| part.lot.as_ref().map(|lot| (lot, part.amount)))
    }

    pub fn has_lots(&self) -> bool {
        self.of_lots().next().is_some()
    }

    pub fn split(&self) -> Result<CreditSplit> {
        let of = |kind| Nanos::checked_sum(self.0.iter().filter(|part| part.kind == kind).map(|part| part.amount));
        Ok(CreditSplit {
            promotional: of(CreditKind::Promotional)?,
            paid: of(CreditKind::Paid)?,
            committed: of(CreditKind::Committed)?,
        })
    }

    pub fn total(&self) -> Result<Nanos> {
        Nanos::checked_sum(self.0.iter().map(|part| part.amount))
    }

    /// With what was burned later.
    pub fn followed_by(mut self, later: Self) -> Result<Self> {
        for part in later.0 {
            match self.0.last_mut() {
                Some(last) if last.lot == part.lot && last.kind == part.kind => {
                    last.amount = last.amount.checked_add(part.amount)?
                }
                _ => self.0.push(part),
            }
        }
        if self.0.len() > PARTS_MAX {
            return Err(Error::new(ErrorCode::Conflict, format!("this credit is made of more than {PARTS_MAX} parts")));
        }
        Ok(self)
    }

    /// All of a slice or hold, of which this is kept where lots are in it.
    pub fn or_free(&self, all: CreditSplit) -> Self {
        if self.0.is_empty() { Self::free(all) } else { self.clone() }
    }

    /// What is kept of a slice or hold once more was taken for it.
    pub fn extended(&self, all: CreditSplit, by: &Self) -> Result<Self> {
        if self.0.is_empty() && !by.has_lots() {
            return Ok(Self::default());
        }
        self.or_free(all).followed_by(by.clone())
    }

    /// What is kept of a new slice or hold.
    pub fn kept(&self) -> Self {
        if self.has_lots() { self.clone() } else { Self::default() }
    }

    /// What goes back after `spent` of it was spent: what burned first is what was spent. Where a falling volume price
    /// gave back more than was charged, `spent` is negative and the surplus is free paid credit.
    pub fn unspent(self, spent: Nanos) -> Result<Self> {
        let total = self.total()?;
        if spent > total {
            return Err(Error::new(ErrorCode::LedgerMismatch, format!("{spent} was spent of {total}")));
        }
        let mut left = spent.max(Nanos::ZERO);
        let mut back = Vec::new();
        for part in self.0 {
            let gone = part.amount.min(left);
            left = left.checked_sub(gone)?;
            let amount = part.amount.checked_sub(gone)?;
            if !amount.is_zero() {
                back.push(BurnedPart { amount, ..part });
            }
        }
        let surplus = spent.min(Nanos::ZERO).checked_neg()?;
        Self(back).followed_by(Self::free(CreditSplit { paid: surplus, ..CreditSplit::default() }))
    }
}

/// An account's credit with its lots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credit {
    available: CreditSplit,
    credit_limit: Nanos,
    /// In the order in which they burn; each has something left.
    lots: Vec<CreditLot>,
}

impl Credit {
    /// Lots that are more than there is give way. Below zero within the credit limit is a debt of its own: lots stay.
    pub fn new(available: CreditSplit, credit_limit: Nanos, mut lots: Vec<CreditLot>) -> Result<Self> {
        if credit_limit.is_negative() {
            return Err(Error::internal("a credit limit is not negative"));
        }
        lots.sort_by(|a, b| a.rank().cmp(&b.rank()));
        for kind in CreditKind::ALL {
            let lent = if kind == CreditKind::Paid { credit_limit } else { Nanos::ZERO };
            let there = of_kind(available, kind).checked_add(lent)?.max(Nanos::ZERO);
            let mut missing = total_of(&lots, kind)?.checked_sub(there)?.max(Nanos::ZERO);
            for lot in lots.iter_mut().filter(|lot| lot.kind == kind) {
                let gone = lot.remaining.min(missing);
                lot.remaining = lot.remaining.checked_sub(gone)?;
                missing = missing.checked_sub(gone)?;
            }
        }
        Ok(Self { available, credit_limit, lots })
    }

    /// The lots as they are now, those with nothing left included.
    pub fn lots(&self) -> &[CreditLot] {
        &self.lots
    }

    pub const fn available(&self) -> CreditSplit {
        self.available
    }

    fn free_of(&self, kind: CreditKind) -> Result<Nanos> {
        of_kind(self.available, kind).checked_sub(total_of(&self.lots, kind)?)
    }

    fn usable(&self, family: SkuFamily, now: Timestamp) -> impl Iterator<Item = &CreditLot> {
        self.lots.iter().filter(move |lot| !lot.is_over(now) && lot.terms.scope.covers(family) && !lot.remaining.is_zero())
    }

    /// The most that a use can be paid with; never negative.
    pub fn spendable(&self, family: SkuFamily, now: Timestamp) -> Result<Nanos> {
        let lots = Nanos::checked_sum(self.usable(family, now).map(|lot| lot.remaining))?;
        let gifts = self.free_of(CreditKind::Promotional)?.max(Nanos::ZERO);
        let paid = self.free_of(CreditKind::Paid)?.checked_add(self.credit_limit)?.max(Nanos::ZERO);
        Nanos::checked_sum([lots, gifts, paid])
    }

    /// The lots that are left when paid credit is taken for what is no use, as a debt is: free credit goes first, and then
    /// lots in the order in which they would have burned.
    pub fn lots_without(&self, paid: Nanos) -> Result<Vec<CreditLot>> {
        let mut missing = paid.checked_sub(self.free_of(CreditKind::Paid)?.max(Nanos::ZERO))?.max(Nanos::ZERO);
        let mut lots = self.lots.clone();
        for lot in lots.iter_mut().filter(|lot| lot.kind == CreditKind::Paid) {
            let gone = lot.remaining.min(missing);
            lot.remaining = lot.remaining.checked_sub(gone)?;
            missing = missing.checked_sub(gone)?;
        }
        Ok(lots)
    }

    /// Takes an amount for a use, in the order of burning; what is paid for down to the credit limit below zero, last of
    /// all. Refused if that is not enough.
    pub fn burn(&self, amount: Nanos, family: SkuFamily, now: Timestamp) -> Result<Burned> {
        if amount.is_negative() {
            return Err(Error::internal("an amount to burn is not negative"));
        }
        let spendable = self.spendable(family, now)?;
        if amount > spendable {
            let error = Error::new(
                ErrorCode::InsufficientQuota,
                format!("the credit balance allows {spendable} for {}, and {amount} is needed", family.as_str()),
            );
            return Err(error.alternative("add credit"));
        }
        let mut sources: Vec<(Rank<'_>, Option<&CreditLot>, Nanos)> =
            self.usable(family, now).map(|lot| (lot.rank(), Some(lot), lot.remaining)).collect();
        for kind in [CreditKind::Promotional, CreditKind::Paid] {
            sources.push((Rank::free(kind), None, self.free_of(kind)?.max(Nanos::ZERO)));
        }
        sources.sort_by_key(|(rank, ..)| *rank);
        let (mut burned, mut left) = (Burned::default(), amount);
        for (rank, lot, there) in sources {
            let taken = there.min(left);
            left = left.checked_sub(taken)?;
            burned = burned.followed_by(part_of(lot, rank.kind, taken))?;
        }
        burned.followed_by(part_of(None, CreditKind::Paid, left))
    }
}

fn part_of(lot: Option<&CreditLot>, kind: CreditKind, amount: Nanos) -> Burned {
    let part = BurnedPart { lot: lot.map(|lot| lot.id.clone()), kind, amount };
    Burned(if amount.is_zero() { Vec::new() } else { vec![part] })
}

const fn of_kind(split: CreditSplit, kind: CreditKind) -> Nanos {
    match kind {
        CreditKind::Paid => split.paid,
        CreditKind::Promotional => split.promotional,
        CreditKind::Committed => split.committed,
    }
}

fn total_of(lots: &[CreditLot], kind: CreditKind) -> Result<Nanos> {
    Nanos::checked_sum(lots.iter().filter(|lot| lot.kind == kind).map(|lot| lot.remaining))
}

#[cfg(test)]
#[path = "credit_lot_tests.rs"]
mod tests;
