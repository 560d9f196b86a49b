//! The price list that a new cloud starts with. Every number in it is the operator's to change.

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::PriceListId;
use sublet_core::money::divide_half_even;
use sublet_core::notice::NoticeClass;
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Nanos, Timestamp};

use crate::price_book::{PriceEntry, PriceListDraft};
use crate::sku::{DeviceKind, ModelName, SkuName, TokenKind};

/// Per 1M tokens: uncached input, input read from the prefix cache, output.
const INPUT_PRICE: Nanos = Nanos::new(150_000_000);
const CACHED_INPUT_PRICE: Nanos = Nanos::new(75_000_000);
const OUTPUT_PRICE: Nanos = Nanos::new(600_000_000);
/// Per device-hour at `firm` notice: a CPU slot, and any accelerator.
const CPU_PRICE: Nanos = Nanos::new(60_000_000);
const ACCELERATOR_PRICE: Nanos = Nanos::new(2_000_000_000);

/// A kind of device with its list price: that of an hour which is never taken back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StarterDevice {
    pub kind: DeviceKind,
    pub list_price_per_hour: Nanos,
}

impl StarterDevice {
    /// A kind at the list price a new cloud begins with.
    pub fn at_list_price(kind: DeviceKind) -> Self {
        let list_price_per_hour = if kind.as_str() == "cpu" { CPU_PRICE } else { ACCELERATOR_PRICE };
        Self { kind, list_price_per_hour }
    }
}

/// The share of the list price that each notice class costs, in percent: the shorter the notice, the cheaper.
pub const fn share_of_list_price_percent(notice: NoticeClass) -> i64 {
    match notice {
        NoticeClass::N0 => 25,
        NoticeClass::N2m => 40,
        NoticeClass::N15m => 55,
        NoticeClass::N1h => 70,
        NoticeClass::N24h => 85,
        NoticeClass::Firm => 100,
    }
}

/// What a tier costs of the default one, in percent.
pub const fn share_of_default_tier_percent(tier: ServiceTier) -> i64 {
    match tier {
        ServiceTier::Flex => 50,
        ServiceTier::Default => 100,
        ServiceTier::Priority => 175,
    }
}

/// Version 1: every model's tokens at every tier, every device kind at every notice.
pub fn starter_price_list(
    list: PriceListId,
    currency: Currency,
    effective_at: Timestamp,
    models: &[ModelName],
    devices: &[StarterDevice],
) -> Result<PriceListDraft> {
    let mut entries = Vec::new();
    for model in models {
        for (kind, price) in
            [(TokenKind::Input, INPUT_PRICE), (TokenKind::CachedInput, CACHED_INPUT_PRICE), (TokenKind::Output, OUTPUT_PRICE)]
        {
            for tier in ServiceTier::ALL {
                let sku = SkuName::Tokens { tier, kind, model: model.clone() };
                entries.push(PriceEntry::per_unit(sku, share(price, share_of_default_tier_percent(tier))?));
            }
        }
    }
    for device in devices {
        for notice in NoticeClass::ALL {
            let sku = SkuName::device(notice, device.kind.clone());
            entries.push(PriceEntry::per_unit(sku, share(device.list_price_per_hour, share_of_list_price_percent(notice))?));
        }
    }
    Ok(PriceListDraft { list, currency, effective_at, entries })
}

/// A list price times its share, half to even in the ninth decimal.
fn share(list_price: Nanos, percent: i64) -> Result<Nanos> {
    let exact = i128::from(list_price.get()) * i128::from(percent);
    i64::try_from(divide_half_even(exact, 100))
        .map(Nanos::new)
        .map_err(|_| Error::new(ErrorCode::AmountOverflow, format!("a list price of {list_price} is too large")))
}
