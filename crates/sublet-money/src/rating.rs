//! Rating: from a metered quantity to what it is charged.
//!
//! There is one rounding per line and period. An event's charge is R(cumulative after) −
//! R(cumulative before), where R rounds the exact cost of the line's whole quantity half to even.
//! So the charges of a line add up to the line exactly, in any order and however they are split,
//! for any price model. The state of a line is its whole history as two numbers.

use std::fmt;

use serde::{Deserialize, Serialize};
use sublet_core::Nanos;
use sublet_core::admission::{PriceVersion, TokenUsage};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{OrganizationId, ProjectId};
use sublet_core::usage::UsageRecord;

use crate::explanation::ChargeExplanation;
use crate::period::PeriodKey;
use crate::price_book::{BandPrice, PriceListVersion};
use crate::sku::{ModelName, Quantity, QuantityChange, SkuName, TokenKind};
use crate::time_of_use::BandName;

/// What is added up and rounded together. A new period or a new price version begins a new line,
/// with its tiers from the bottom.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct LineKey {
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub period: PeriodKey,
    pub price_version: PriceVersion,
    pub sku: SkuName,
    /// The band of a price by time of use; none outside of its windows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub band: Option<BandName>,
}

impl LineKey {
    /// Whether its list asks anything for it. What has no price is not sold, but for requests and starts: without a
    /// flat price only their tokens and their time cost something.
    pub fn is_asked_for(&self, version: &PriceListVersion) -> bool {
        !matches!(self.sku, SkuName::Requests { .. } | SkuName::Starts { .. }) || version.find(&self.sku).is_some()
    }
}

/// All that has been rated on a line. `charged` is always R(`quantity`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct LineState {
    pub quantity: Quantity,
    pub charged: Nanos,
}

/// One event's part of a line, ready to be stored: the charge, and the line before and after it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RatedLine {
    pub key: LineKey,
    /// Negative only where use is rated anew and leaves the line ([`crate::rerate`]).
    pub quantity: QuantityChange,
    /// Negative there too, and where a volume price fell for the whole line.
    pub amount: Nanos,
    pub before: LineState,
    pub after: LineState,
}

/// What `quantity` more costs on a line, and the line after it.
///
/// A state that is not the rounding of its own quantity is a broken book: an error, never a patch.
pub fn rate(state: LineState, price: BandPrice<'_>, quantity: impl Into<QuantityChange>) -> Result<(Nanos, LineState)> {
    verify_line(state, price)?;
    let cumulative = state.quantity.changed_by(quantity.into())?;
    let charged = price.exact_cost(cumulative)?.half_even()?;
    let amount = charged.checked_sub(state.charged)?;
    Ok((amount, LineState { quantity: cumulative, charged }))
}

/// Proves that a line was charged exactly its rounded cost.
pub fn verify_line(state: LineState, price: BandPrice<'_>) -> Result<()> {
    let owed = price.exact_cost(state.quantity)?.half_even()?;
    if owed == state.charged {
        return Ok(());
    }
    Err(Error::new(ErrorCode::LedgerMismatch, format!("a line of {} was charged {} but costs {owed}", price.sku, state.charged))
        .context(format!("quantity {}", state.quantity)))
}

/// Rates one quantity on the line that `key` names.
pub fn rate_line(
    key: LineKey,
    state: LineState,
    version: &PriceListVersion,
    quantity: impl Into<QuantityChange>,
) -> Result<RatedLine> {
    let quantity = quantity.into();
    check_version(&key.price_version, version)?;
    let price = version.get(&key.sku)?.price_in(key.band.as_ref())?;
    let (amount, after) = rate(state, price, quantity)?;
    Ok(RatedLine { key, quantity, amount, before: state, after })
}

/// The lines that a usage record adds to, with their quantities: one for each kind of token used, and one request where
/// the version has a flat price for it. The record is priced as things were when it was admitted. One without any tokens
/// is charged nothing, so it is no request either.
pub fn usage_lines(record: &UsageRecord, period: PeriodKey, version: &PriceListVersion) -> Result<Vec<(LineKey, Quantity)>> {
    let mut lines = used_lines(record, period, version)?;
    lines.retain(|(key, _)| key.is_asked_for(version));
    Ok(lines)
}

/// As [`usage_lines`], with the line of the request whether the list has a flat price for it or not: another list, by which
/// its use is rated anew, may have one.
pub fn used_lines(record: &UsageRecord, period: PeriodKey, version: &PriceListVersion) -> Result<Vec<(LineKey, Quantity)>> {
    check_version(&record.price_version, version)?;
    let model: ModelName = record.model.parse()?;
    let line_of = |sku, band| LineKey {
        organization: record.organization.clone(),
        project: record.project.clone(),
        period,
        price_version: record.price_version.clone(),
        sku,
        band,
    };
    let mut lines = Vec::with_capacity(TokenKind::ALL.len() + 1);
    for kind in TokenKind::ALL {
        let quantity = tokens_of(&record.tokens, kind)?;
        if quantity.is_zero() {
            continue;
        }
        let sku = SkuName::Tokens { tier: record.tier, kind, model: model.clone() };
        let band = version.get(&sku)?.band_at(record.admitted_at)?.cloned();
        lines.push((line_of(sku, band), quantity));
    }
    if !lines.is_empty() {
        lines.push((line_of(SkuName::Requests { tier: record.tier, model }, None), Quantity::new(1)?));
    }
    Ok(lines)
}

fn tokens_of(tokens: &TokenUsage, kind: TokenKind) -> Result<Quantity> {
    match kind {
        TokenKind::Input => tokens.input.try_into(),
        TokenKind::CachedInput => tokens.cached_input.try_into(),
        TokenKind::Output => tokens.output.try_into(),
    }
}

fn check_version(named: &PriceVersion, given: &PriceListVersion) -> Result<()> {
    if named == given.version() {
        return Ok(());
    }
    Err(Error::internal(format!("rated with price version {} instead of {}", given.version().0, named.0)))
}

impl RatedLine {
    /// The numbers behind the charge.
    pub fn explain(&self, version: &PriceListVersion) -> Result<ChargeExplanation> {
        check_version(&self.key.price_version, version)?;
        let price = version.get(&self.key.sku)?.price_in(self.key.band.as_ref())?;
        ChargeExplanation::new(self, price, version.currency())
    }
}

impl fmt::Display for LineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}/{}", self.organization, self.project, self.period, self.price_version.0, self.sku)?;
        self.band.as_ref().map_or(Ok(()), |band| write!(f, " in {band}"))
    }
}

#[cfg(test)]
#[path = "rating_tests.rs"]
mod tests;
