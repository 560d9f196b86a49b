//! The fuzz targets of this crate: functions of bytes that panic when something is wrong.
//!
//! There only for tests and fuzzers (`docs/fuzzing.md`).

use std::fmt::{Debug, Display};
use std::str::FromStr;

use crate::admission::{PriceVersion, TokenPrices, TokenRates, TokenUsage};
use crate::error::{Error, ErrorCode};
use crate::id::{BatchId, FileId, KeyId, OrganizationId, RequestId, ResponseId, prefix_of};
use crate::key::{KeyPlane, Secret};
use crate::money::{Currency, Nanos, Rate, divide_ceil, divide_half_even};
use crate::notice::NoticeClass;
use crate::quantity::TokenCount;
use crate::supplier::Retention;
use crate::supply::{BaseUrl, SecretName};
use crate::usage::UsageRecord;

/// Longest message of a refusal, in bytes.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Text that stands for one thing: what is read is written as it was, or as what reads the same.
pub fn core_texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    amount(text);
    exact::<Currency>(text);
    exact::<RequestId>(text);
    exact::<OrganizationId>(text);
    exact::<KeyId>(text);
    exact::<FileId>(text);
    exact::<BatchId>(text);
    exact::<ResponseId>(text);
    exact::<KeyPlane>(text);
    exact::<NoticeClass>(text);
    exact::<ErrorCode>(text);
    exact::<Retention>(text);
    if let Some(prefix) = prefix_of(text) {
        assert!(text.starts_with(prefix));
    }
    if let Ok(secret) = text.parse::<Secret>() {
        assert_eq!(secret.reveal(), text);
        assert!(!format!("{secret:?}").contains(text), "a secret is not shown");
    }
    match text.parse::<BaseUrl>() {
        Ok(url) => assert_eq!(url.as_str().parse().ok(), Some(url)),
        Err(error) => check_refusal(&error),
    }
    match text.parse::<SecretName>() {
        // It becomes the name of a file.
        Ok(name) => assert!(!name.as_str().contains(['/', '.', '\0'])),
        Err(error) => check_refusal(&error),
    }
}

fn check_refusal(error: &Error) {
    assert!(error.code().status() < 500 && error.message().len() <= MESSAGE_BYTES_MAX, "{error:?}");
}

fn exact<T: FromStr<Err = Error> + Display>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string(), text),
        Err(error) => check_refusal(&error),
    }
}

/// An amount is written with as many decimals as it needs.
fn amount(text: &str) {
    let amount = match text.parse::<Nanos>() {
        Ok(amount) => amount,
        Err(error) => return check_refusal(&error),
    };
    let written = amount.to_string();
    assert_eq!(written.parse().ok(), Some(amount), "{text} was written as {written}");
    assert!(written.len() <= text.len(), "{text} was written as {written}");
    assert_eq!(amount.is_negative(), text.starts_with('-') && !amount.is_zero());
    assert!(amount.checked_neg().is_ok(), "what can be written has an opposite");
}

/// Prices and counts: no cost is negative, none is larger than what was held for it, and what is
/// affordable is paid for.
pub fn core_costs(data: &[u8]) {
    let mut numbers = data.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
    let mut next = || numbers.next().unwrap_or(1);
    let (Ok(input), Ok(cached_input), Ok(output)) =
        (Rate::new(Nanos::new(next()), next()), Rate::new(Nanos::new(next()), next()), Rate::new(Nanos::new(next()), next()))
    else {
        return;
    };
    let mut count = || TokenCount::new(next().max(0));
    let tokens = TokenUsage { input: count(), cached_input: count(), output: count() };
    let prices = TokenPrices {
        request: Nanos::ZERO,
        tier: crate::tier::ServiceTier::Default,
        version: PriceVersion("v".into()),
        currency: Currency::EUR,
        input,
        cached_input,
        output,
        least: TokenRates { input, cached_input, output },
    };
    if let Ok(held) = prices.upper_bound(&tokens) {
        let lines = [(input, tokens.input), (cached_input, tokens.cached_input), (output, tokens.output)];
        let charged = lines.map(|(rate, count)| rate.cost_half_even(count.get()).expect("no more than what is held"));
        assert!(charged.iter().all(|line| !line.is_negative()));
        assert!(Nanos::checked_sum(charged).is_ok_and(|charged| charged <= held), "{prices:?} {tokens:?}");
    }
    let budget = Nanos::new(next().max(0));
    let affordable = output.affordable(budget);
    assert!(affordable >= 0);
    assert!(output.cost_ceil(affordable).is_ok_and(|cost| cost <= budget), "{output:?} {budget}");
    let (dividend, divisor) = (i128::from(next()), i128::from(next().max(1)));
    let (half, ceil) = (divide_half_even(dividend, divisor), divide_ceil(dividend, divisor));
    assert!((half * divisor - dividend).abs() * 2 <= divisor && half <= ceil, "{dividend}/{divisor}");
    assert!(ceil * divisor >= dividend && (ceil - 1) * divisor < dividend, "{dividend}/{divisor}");
}

/// A record of the usage journal: written again it is the same.
pub fn usage_record(data: &[u8]) {
    let Ok(record) = serde_json::from_slice::<UsageRecord>(data) else { return };
    let written = serde_json::to_vec(&record).expect("a record is JSON");
    assert_same(&record, serde_json::from_slice(&written).ok().as_ref());
}

fn assert_same<T: PartialEq + Debug>(one: &T, other: Option<&T>) {
    assert_eq!(Some(one), other);
}

#[cfg(test)]
mod tests {
    sublet_fuzz::tests!(Quick: core_costs, core_texts, usage_record);
}
