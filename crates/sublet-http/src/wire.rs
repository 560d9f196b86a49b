//! Small conversions that many nouns share: skus, money, counts.

use sublet_api::Money;
use sublet_api::price::{Meter, Subject};
use sublet_cloud::data::{SkuName, TokenKind};
use sublet_core::notice::NoticeClass;
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result};

/// A sku as the API names it: what is used, how it is counted, at which notice or tier.
pub struct SkuParts {
    pub subject: Subject,
    pub meter: Meter,
    pub notice: Option<NoticeClass>,
    /// `None` is the default tier.
    pub service_tier: Option<ServiceTier>,
}

/// What has a price by the month.
pub const PROJECT: &str = "project";
/// What is kept and sent.
pub const FILES: &str = "files";

pub fn sku_parts(sku: &SkuName) -> SkuParts {
    match sku {
        SkuName::Tokens { tier, kind, model } => {
            let meter = match kind {
                TokenKind::Input => Meter::InputTokens,
                TokenKind::CachedInput => Meter::CachedInputTokens,
                TokenKind::Output => Meter::OutputTokens,
            };
            let service_tier = Some(*tier).filter(|tier| !tier.is_default());
            SkuParts { subject: Subject::Model(model.to_string()), meter, notice: None, service_tier }
        }
        SkuName::Requests { tier, model } => SkuParts {
            subject: Subject::Model(model.to_string()),
            meter: Meter::Requests,
            notice: None,
            service_tier: Some(*tier).filter(|tier| !tier.is_default()),
        },
        SkuName::Fee { fee } => {
            SkuParts { subject: Subject::Sku(fee.to_string()), meter: Meter::Fees, notice: None, service_tier: None }
        }
        SkuName::ProjectMonth => {
            SkuParts { subject: Subject::Sku(PROJECT.to_owned()), meter: Meter::ProjectMonths, notice: None, service_tier: None }
        }
        SkuName::FileStorage => {
            SkuParts { subject: Subject::Sku(FILES.to_owned()), meter: Meter::ByteHours, notice: None, service_tier: None }
        }
        SkuName::FileEgress => {
            SkuParts { subject: Subject::Sku(FILES.to_owned()), meter: Meter::BytesSent, notice: None, service_tier: None }
        }
        SkuName::Device { notice, device } => SkuParts {
            subject: Subject::Sku(device.to_string()),
            meter: Meter::DeviceMilliseconds,
            notice: Some(*notice),
            service_tier: None,
        },
    }
}

pub const fn money(amount: Nanos, currency: Currency) -> Money {
    Money::new(amount, currency)
}

/// A count that cannot be negative.
pub fn count(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::internal(format!("a count is negative: {value}")))
}

/// Metadata is stored with jobs and leases only: elsewhere it is refused rather than dropped.
pub fn no_metadata(metadata: &sublet_api::object::Metadata) -> Result<()> {
    if metadata.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorCode::UnsupportedField, "metadata is not kept with this object yet")
        .param("metadata")
        .alternative("leave metadata out"))
}

/// The answer to a repeat of a call whose first answer held a secret.
pub fn shown_before(id: &str) -> Error {
    Error::new(ErrorCode::AlreadyServed, format!("this call created {id}; its secret was shown in the first answer only"))
        .alternative("revoke it and create another under a new Idempotency-Key")
}

/// Stored metadata on the wire.
pub fn metadata(pairs: &std::collections::BTreeMap<String, String>) -> Result<sublet_api::object::Metadata> {
    pairs.clone().try_into()
}
