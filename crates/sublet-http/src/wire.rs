//! Small conversions that many nouns share: skus, money, counts.

use sublet_api::Money;
use sublet_api::price::{Meter, Subject};
use sublet_core::notice::NoticeClass;
use sublet_core::{Currency, Error, Nanos, Result};
use sublet_money::sku::{SkuName, TokenKind};

/// A sku as the API names it: what is used, how it is counted, at which notice.
pub fn sku_parts(sku: &SkuName) -> (Subject, Meter, Option<NoticeClass>) {
    match sku {
        SkuName::Tokens { kind, model } => {
            let meter = match kind {
                TokenKind::Input => Meter::InputTokens,
                TokenKind::CachedInput => Meter::CachedInputTokens,
                TokenKind::Output => Meter::OutputTokens,
            };
            (Subject::Model(model.to_string()), meter, None)
        }
        SkuName::Device { notice, device } => (Subject::Sku(device.to_string()), Meter::DeviceMilliseconds, Some(*notice)),
    }
}

pub const fn money(amount: Nanos, currency: Currency) -> Money {
    Money::new(amount, currency)
}

/// A count that cannot be negative.
pub fn count(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::internal(format!("a count is negative: {value}")))
}
