//! Small conversions that many nouns share: skus, money, counts.

use sublet_api::Money;
use sublet_api::price::{Meter, Subject};
use sublet_cloud::data::{SkuName, TokenKind};
use sublet_core::id::SiteId;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result};

/// A sku as the API names it: what is used, how it is counted, at which notice or tier.
pub struct SkuParts {
    pub subject: Subject,
    pub meter: Meter,
    pub notice: Option<NoticeClass>,
    /// `None` is the default tier.
    pub service_tier: Option<ServiceTier>,
    /// `None` is any, of device time.
    pub site: Option<SiteId>,
    pub isolation: Option<IsolationLevel>,
}

impl SkuParts {
    const fn of(subject: Subject, meter: Meter) -> Self {
        Self { subject, meter, notice: None, service_tier: None, site: None, isolation: None }
    }
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
            SkuParts { service_tier, ..SkuParts::of(Subject::Model(model.to_string()), meter) }
        }
        SkuName::Requests { tier, model } => SkuParts {
            service_tier: Some(*tier).filter(|tier| !tier.is_default()),
            ..SkuParts::of(Subject::Model(model.to_string()), Meter::Requests)
        },
        SkuName::Starts { device } => SkuParts::of(Subject::Sku(device.to_string()), Meter::Starts),
        SkuName::Fee { fee } => SkuParts::of(Subject::Sku(fee.to_string()), Meter::Fees),
        SkuName::ProjectMonth => SkuParts::of(Subject::Sku(PROJECT.to_owned()), Meter::ProjectMonths),
        SkuName::FileStorage => SkuParts::of(Subject::Sku(FILES.to_owned()), Meter::ByteHours),
        SkuName::FileEgress => SkuParts::of(Subject::Sku(FILES.to_owned()), Meter::BytesSent),
        SkuName::Device { notice, device, site, isolation } => SkuParts {
            notice: Some(*notice),
            site: site.clone(),
            isolation: *isolation,
            ..SkuParts::of(Subject::Sku(device.to_string()), Meter::DeviceMilliseconds)
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
