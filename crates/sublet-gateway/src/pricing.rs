//! What a request may cost at most, and how many tokens an amount covers.
//!
//! Invariant: for every split of the prompt into cached and uncached tokens, the upper bound of a
//! request's usage is at most what [`hold_for`] asks for the same counts.

use sublet_core::admission::{ROUNDING_SLACK, TokenPrices, TokenUsage};
use sublet_core::{Nanos, Result, TokenCount};

/// The rounding of one line into two (cached and uncached) costs at most one nano-unit more.
const SPLIT_SLACK: Nanos = Nanos::new(1);

/// What a request costs at most before any output: the request itself, and its prompt while it is not known how much of
/// that was cached.
pub(crate) fn prompt_hold(prices: &TokenPrices, prompt: TokenCount) -> Result<Nanos> {
    if prompt == TokenCount::ZERO {
        return Ok(prices.request);
    }
    let dearest = prices.input.cost_ceil(prompt.get())?.max(prices.cached_input.cost_ceil(prompt.get())?);
    if dearest.is_zero() {
        return Ok(prices.request);
    }
    let slack = SPLIT_SLACK.checked_add(ROUNDING_SLACK)?.checked_add(ROUNDING_SLACK)?;
    dearest.checked_add(slack)?.checked_add(prices.request)
}

/// As [`prompt_hold`], once its prompt was counted.
pub(crate) fn counted_hold(prices: &TokenPrices, prompt: &TokenUsage) -> Result<Nanos> {
    prices.tokens_bound(prompt)?.checked_add(prices.request)
}

/// What `output` tokens cost at most, besides the request.
pub(crate) fn output_hold(prices: &TokenPrices, output: TokenCount) -> Result<Nanos> {
    prices.tokens_bound(&TokenUsage { output, ..TokenUsage::default() })
}

/// The most a request of this size can cost.
pub(crate) fn hold_for(prices: &TokenPrices, prompt: TokenCount, output: TokenCount) -> Result<Nanos> {
    prompt_hold(prices, prompt)?.checked_add(output_hold(prices, output)?)
}

/// The most output tokens that `money` covers besides the request.
pub(crate) fn output_covered(prices: &TokenPrices, money: Nanos) -> TokenCount {
    if prices.output.nanos().is_zero() {
        return TokenCount::new(i64::MAX);
    }
    let usable = money.checked_sub(ROUNDING_SLACK).unwrap_or(Nanos::ZERO);
    TokenCount::new(prices.output.affordable(usable))
}

/// What the caller is told a request cost: each line rounded once. The charge may differ in the last digit, and a request
/// may cost less where its flat price falls with their number.
pub(crate) fn provisional_cost(prices: &TokenPrices, tokens: &TokenUsage) -> Result<Nanos> {
    let lines = [(prices.input, tokens.input), (prices.cached_input, tokens.cached_input), (prices.output, tokens.output)];
    let besides = if *tokens == TokenUsage::default() { Nanos::ZERO } else { prices.request };
    lines.iter().try_fold(besides, |total, (rate, count)| total.checked_add(rate.cost_half_even(count.get())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use sublet_core::admission::{PriceVersion, TokenRates};
    use sublet_core::tier::ServiceTier;
    use sublet_core::{Currency, Rate};

    fn prices(request: i64, (input, cached, output): (i64, i64, i64), per: i64) -> TokenPrices {
        let rate = |nanos| Rate::new(Nanos::new(nanos), per).unwrap();
        TokenPrices {
            tier: ServiceTier::Default,
            version: PriceVersion(Arc::from("v")),
            currency: Currency::EUR,
            request: Nanos::new(request),
            input: rate(input),
            cached_input: rate(cached),
            output: rate(output),
            least: TokenRates { input: rate(input), cached_input: rate(cached), output: rate(output) },
        }
    }

    proptest! {
        #[test]
        fn a_hold_covers_every_way_its_prompt_can_be_cached(
            request in 0_i64..5_000, rates in (0_i64..5_000, 0_i64..5_000, 0_i64..5_000), per in 1_i64..1_000_000,
            prompt in 0_i64..10_000, cached_share in 0_i64..=100, output in 0_i64..10_000,
        ) {
            let prices = prices(request, rates, per);
            let cached = prompt * cached_share / 100;
            let usage = TokenUsage { input: TokenCount::new(prompt - cached), cached_input: TokenCount::new(cached), output: TokenCount::new(output) };
            let bound = prices.upper_bound(&usage).unwrap();
            prop_assert!(bound <= hold_for(&prices, TokenCount::new(prompt), TokenCount::new(output)).unwrap());
            prop_assert!(provisional_cost(&prices, &usage).unwrap() <= bound);
            let counted = TokenUsage { output: TokenCount::ZERO, ..usage };
            let in_steps = counted_hold(&prices, &counted).unwrap().checked_add(output_hold(&prices, usage.output).unwrap()).unwrap();
            prop_assert!(bound <= in_steps);
        }

        #[test]
        fn the_covered_output_is_the_largest(output_rate in 1_i64..5_000, per in 1_i64..100_000, money in 0_i64..1_000_000) {
            let prices = prices(7, (0, 0, output_rate), per);
            let covered = output_covered(&prices, Nanos::new(money));
            prop_assert!(output_hold(&prices, covered).unwrap() <= Nanos::new(money));
            prop_assert!(output_hold(&prices, TokenCount::new(covered.get() + 1)).unwrap() > Nanos::new(money));
        }
    }
}
