//! What suppliers are owed: immutable versions of a replica's cost, and the lines that purchases add up to.
//!
//! A line is what the supplier can put on an invoice as one: a replica, a period, a version and a kind of
//! token. As on the lines of customers there is one rounding, of the whole line, and a purchase is owed the
//! difference that it makes; so purchases add up to the line in any order and however they are batched.
//!
//! Deliberately absent: conversion between currencies, and what a supplier's own invoice says.

use std::fmt;

use serde::{Deserialize, Serialize};
use sublet_core::admission::{TokenRates, TokenUsage};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{OrganizationId, ReplicaId};
use sublet_core::supplier::{CostPrice, CostVersion};
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Nanos, Timestamp};

use crate::canonical::{canonical_json, decimal, sha256_hex};
use crate::period::PeriodKey;
use crate::price_book::PriceEntry;
use crate::rating::{LineState, rate};
use crate::sku::{ModelName, Quantity, SkuName, TokenKind};

/// Names the meaning of the canonical form; a change of meaning is a new name.
const SCHEMA: &str = "sublet-cost/1";

/// The content of a version: what a million tokens of each kind cost at one replica from an instant on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CostDraft {
    pub replica: ReplicaId,
    pub supplier: OrganizationId,
    /// What the replica serves here.
    pub model: ModelName,
    pub currency: Currency,
    pub effective_at: Timestamp,
    pub input: Nanos,
    pub cached_input: Nanos,
    pub output: Nanos,
}

/// The canonical form. Its members are the content of the hash.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Canonical {
    schema: String,
    replica: ReplicaId,
    supplier: OrganizationId,
    model: ModelName,
    currency: Currency,
    effective_at_micros: i64,
    #[serde(with = "decimal")]
    input: Nanos,
    #[serde(with = "decimal")]
    cached_input: Nanos,
    #[serde(with = "decimal")]
    output: Nanos,
}

/// An immutable version of a replica's cost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaCost {
    version: CostVersion,
    content: CostDraft,
    canonical: String,
}

impl ReplicaCost {
    /// Checks and hashes.
    pub fn new(draft: CostDraft) -> Result<Self> {
        if [draft.input, draft.cached_input, draft.output].iter().any(|amount| amount.is_negative()) {
            return Err(Error::new(ErrorCode::InvalidPrice, "a cost is not negative"));
        }
        let canonical = canonical_json(&Canonical {
            schema: SCHEMA.to_owned(),
            replica: draft.replica.clone(),
            supplier: draft.supplier.clone(),
            model: draft.model.clone(),
            currency: draft.currency,
            effective_at_micros: draft.effective_at.micros(),
            input: draft.input,
            cached_input: draft.cached_input,
            output: draft.output,
        })?;
        Ok(Self { version: CostVersion(sha256_hex(&canonical).into()), content: draft, canonical })
    }

    /// Reads a stored version back and proves that it is the one named.
    pub fn from_canonical(text: &str, expected: &CostVersion) -> Result<Self> {
        let mismatch = || Error::new(ErrorCode::LedgerMismatch, "a stored cost is not the one that its hash names");
        if *sha256_hex(text) != *expected.0 {
            return Err(mismatch().context(format!("expected {}", expected.0)));
        }
        let read: Canonical = serde_json::from_str(text).map_err(|cause| mismatch().context(cause.to_string()))?;
        if read.schema != SCHEMA {
            return Err(mismatch().context(read.schema));
        }
        Self::new(CostDraft {
            replica: read.replica,
            supplier: read.supplier,
            model: read.model,
            currency: read.currency,
            effective_at: Timestamp::from_micros(read.effective_at_micros),
            input: read.input,
            cached_input: read.cached_input,
            output: read.output,
        })
    }

    pub fn version(&self) -> &CostVersion {
        &self.version
    }
    pub fn content(&self) -> &CostDraft {
        &self.content
    }
    /// The text that is hashed and stored.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// As gateways weigh it against a price.
    pub fn price(&self) -> Result<CostPrice> {
        let rate = |kind| {
            let entry = self.entry(kind);
            sublet_core::Rate::new(self.amount(kind), entry.unit.base_units())
        };
        Ok(CostPrice {
            version: self.version.clone(),
            currency: self.content.currency,
            effective_at: self.content.effective_at,
            rates: TokenRates {
                input: rate(TokenKind::Input)?,
                cached_input: rate(TokenKind::CachedInput)?,
                output: rate(TokenKind::Output)?,
            },
        })
    }

    fn amount(&self, kind: TokenKind) -> Nanos {
        match kind {
            TokenKind::Input => self.content.input,
            TokenKind::CachedInput => self.content.cached_input,
            TokenKind::Output => self.content.output,
        }
    }

    /// The cost of one kind of token, as something that lines are rated with.
    pub fn entry(&self, kind: TokenKind) -> PriceEntry {
        let sku = SkuName::Tokens { tier: ServiceTier::Default, kind, model: self.content.model.clone() };
        PriceEntry::per_unit(sku, self.amount(kind))
    }
}

/// What is added up and rounded together.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CostLineKey {
    pub supplier: OrganizationId,
    pub replica: ReplicaId,
    /// Of the supplier's calendar.
    pub period: PeriodKey,
    pub version: CostVersion,
    pub kind: TokenKind,
}

impl fmt::Display for CostLineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}/{}", self.supplier, self.replica, self.period, self.version.0, self.kind)
    }
}

/// The lines that a purchase adds to, with their quantities: one for each kind of token.
pub fn cost_lines(cost: &ReplicaCost, tokens: &TokenUsage, period: PeriodKey) -> Result<Vec<(CostLineKey, Quantity)>> {
    let counts =
        [(TokenKind::Input, tokens.input), (TokenKind::CachedInput, tokens.cached_input), (TokenKind::Output, tokens.output)];
    let mut lines = Vec::with_capacity(counts.len());
    for (kind, count) in counts {
        let quantity: Quantity = count.try_into()?;
        if quantity.is_zero() {
            continue;
        }
        let content = cost.content();
        let key = CostLineKey {
            supplier: content.supplier.clone(),
            replica: content.replica.clone(),
            period,
            version: cost.version().clone(),
            kind,
        };
        lines.push((key, quantity));
    }
    Ok(lines)
}

/// What `quantity` more is owed on a line, and the line after it.
pub fn owe(state: LineState, cost: &ReplicaCost, kind: TokenKind, quantity: Quantity) -> Result<(Nanos, LineState)> {
    rate(state, cost.entry(kind).price_in(None)?, quantity)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sublet_core::TokenCount;

    use super::*;
    use crate::rating::verify_line;

    fn cost(input: i64, output: i64) -> ReplicaCost {
        ReplicaCost::new(CostDraft {
            replica: "rep_1".parse().unwrap(),
            supplier: "org_9".parse().unwrap(),
            model: "far/mini".parse().unwrap(),
            currency: Currency::EUR,
            effective_at: Timestamp::from_seconds(1),
            input: Nanos::new(input),
            cached_input: Nanos::new(input / 2),
            output: Nanos::new(output),
        })
        .unwrap()
    }

    #[test]
    fn a_version_is_named_by_its_content() {
        let one = cost(100_000_000, 400_000_000);
        assert_eq!(ReplicaCost::from_canonical(one.canonical(), one.version()).unwrap(), one);
        assert_ne!(one.version(), cost(100_000_001, 400_000_000).version());
        assert!(ReplicaCost::from_canonical(&one.canonical().replace("0.1", "0.2"), one.version()).is_err());
        assert!(ReplicaCost::new(CostDraft { output: Nanos::new(-1), ..one.content().clone() }).is_err());
        let rates = one.price().unwrap().rates;
        assert_eq!((rates.output.nanos(), rates.output.per()), (Nanos::new(400_000_000), 1_000_000));
    }

    #[test]
    fn only_kinds_that_were_used_have_a_line() {
        let tokens = TokenUsage { input: TokenCount::new(7), output: TokenCount::new(3), ..TokenUsage::default() };
        let lines = cost_lines(&cost(1, 1), &tokens, "2026-03".parse().unwrap()).unwrap();
        let kinds: Vec<String> = lines.iter().map(|(key, quantity)| format!("{} {quantity}", key.kind)).collect();
        assert_eq!(kinds, ["input 7", "output 3"]);
    }

    /// Owes purchases one after the other on one line.
    fn owe_all(cost: &ReplicaCost, purchases: &[i64]) -> (i64, LineState) {
        purchases.iter().fold((0, LineState::default()), |(sum, state), quantity| {
            let (amount, after) = owe(state, cost, TokenKind::Output, Quantity::new(*quantity).unwrap()).unwrap();
            assert!(!amount.is_negative());
            (sum + amount.get(), after)
        })
    }

    proptest! {
        #[test]
        fn what_purchases_are_owed_adds_up_in_any_order_and_batching(
            price in 0_i64..1_000_000_000,
            purchases in prop::collection::vec(0_i64..1_000_000, 1..40),
            cut in 0_usize..40,
            seed in any::<u64>(),
        ) {
            let cost = cost(1, price);
            let (sum, line) = owe_all(&cost, &purchases);
            let mut shuffled = purchases.clone();
            let turns = usize::try_from(seed % 40).unwrap() % shuffled.len();
            shuffled.rotate_left(turns);
            shuffled.reverse();
            prop_assert_eq!(owe_all(&cost, &shuffled).0, sum);
            // Two batches owe what one owes.
            let (first, second) = purchases.split_at(cut.min(purchases.len()));
            let batches = [first.iter().sum::<i64>(), second.iter().sum::<i64>()];
            prop_assert_eq!(owe_all(&cost, &batches), (sum, line));
            prop_assert!(verify_line(line, cost.entry(TokenKind::Output).price_in(None).unwrap()).is_ok());
            prop_assert_eq!(line.charged, Nanos::new(sum));
        }
    }
}
