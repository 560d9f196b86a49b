//! Identifiers: a prefix that names the kind, an underscore, and a sortable body.
//!
//! The body is 26 characters of lower-case Crockford base 32: 48 bits of milliseconds since
//! 1970 followed by 80 random bits, so that identifiers sort by creation and cannot be guessed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorCode};
use crate::time::Timestamp;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const BODY_CHARS: usize = 26;

/// Random bytes in one identifier.
pub const ID_RANDOM_BYTES: usize = 10;

/// An identifier type that [`crate::IdMint`] can create.
pub trait Identifier: Sized {
    /// The text before the underscore.
    const PREFIX: &'static str;
    /// Wraps text that is already known to be well formed.
    fn from_trusted(text: Arc<str>) -> Self;
    /// Encodes an instant and random bytes as a new identifier.
    fn encode(at: Timestamp, random: [u8; ID_RANDOM_BYTES]) -> Self {
        Self::from_trusted(encode_text(Self::PREFIX, at, random))
    }
}

fn encode_text(prefix: &str, at: Timestamp, random: [u8; ID_RANDOM_BYTES]) -> Arc<str> {
    let millis = u64::try_from(at.millis()).unwrap_or(0) & 0xffff_ffff_ffff;
    let mut value = u128::from(millis) << 80;
    for (index, byte) in random.iter().rev().enumerate() {
        value |= u128::from(*byte) << (8 * index);
    }
    let mut text = String::with_capacity(prefix.len() + 1 + BODY_CHARS);
    text.push_str(prefix);
    text.push('_');
    for position in (0..BODY_CHARS).rev() {
        let digit = usize::try_from((value >> (5 * position)) & 31).unwrap_or(0);
        text.push(char::from(ALPHABET[digit]));
    }
    Arc::from(text)
}

fn parse_text(prefix: &'static str, text: &str) -> Result<(), Error> {
    let body = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_'));
    let good = body
        .is_some_and(|body| (1..=64).contains(&body.len()) && body.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    if good {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(Error::new(ErrorCode::InvalidId, format!("'{shown}' is not an id of this kind; it starts with '{prefix}_'")))
}

/// Splits any identifier into its prefix and body; `None` if there is no known prefix.
pub fn prefix_of(text: &str) -> Option<&str> {
    let (prefix, body) = text.split_once('_')?;
    (!body.is_empty() && PREFIXES.contains(&prefix)).then_some(prefix)
}

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal),+ $(,)?) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
            #[serde(try_from = "String", into = "String")]
            pub struct $name(Arc<str>);

            impl $name {
                /// The public text.
                pub fn as_str(&self) -> &str { &self.0 }
            }
            impl Identifier for $name {
                const PREFIX: &'static str = $prefix;
                fn from_trusted(text: Arc<str>) -> Self { Self(text) }
            }
            impl FromStr for $name {
                type Err = Error;
                fn from_str(text: &str) -> Result<Self, Error> {
                    parse_text($prefix, text)?;
                    Ok(Self(Arc::from(text)))
                }
            }
            impl TryFrom<String> for $name {
                type Error = Error;
                fn try_from(text: String) -> Result<Self, Error> { text.parse() }
            }
            impl From<$name> for String {
                fn from(id: $name) -> String { id.0.to_string() }
            }
            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
            }
            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
            }
        )+
        /// Every prefix, in the order of the table.
        pub const PREFIXES: &[&str] = &[$($prefix),+];
    };
}

identifiers! {
    /// A legal entity: a customer, an internal team, a partner or a supplier.
    OrganizationId = "org",
    /// A project of an organization; work and keys belong to it.
    ProjectId = "proj",
    /// A key on one of the three planes.
    KeyId = "key",
    /// A person.
    UserId = "user",
    /// One request to the data plane.
    RequestId = "req",
    /// An answer of the Responses API; it has the text of its request behind another prefix.
    ResponseId = "resp",
    /// A file that a project uploaded or was given.
    FileId = "file",
    /// Many requests in one file, answered within a time.
    BatchId = "batch",
    /// Something with a price.
    SkuId = "sku",
    /// A place with its own jurisdiction.
    SiteId = "site",
    /// A machine.
    NodeId = "node",
    /// One accelerator or CPU slot.
    DeviceId = "dev",
    /// A model in the catalogue.
    ModelId = "model",
    /// A server that serves a model.
    ReplicaId = "rep",
    /// A binding offer.
    QuoteId = "quote",
    /// A right to use capacity.
    LeaseId = "lease",
    /// An order by which the owner takes capacity back.
    ReclaimId = "rcl",
    /// A command that runs on a lease.
    JobId = "job",
    /// One run of a job.
    AttemptId = "att",
    /// One metered fact.
    MeterEventId = "mtr",
    /// Money set aside before a cost arises.
    HoldId = "hold",
    /// Part of an account's available amount, granted to one gateway.
    SliceId = "slice",
    /// What a metered event cost.
    ChargeId = "chg",
    /// One posting in the ledger.
    TransferId = "tra",
    /// One balanced set of transfers in the ledger: a business fact.
    JournalEntryId = "jnl",
    /// A ledger account.
    AccountId = "acct",
    /// A price list, all versions of it.
    PriceListId = "plist",
    /// A limit on speed.
    RateLimitId = "rlim",
    /// Where events of an organization are posted.
    WebhookEndpointId = "whe",
    /// A threshold of a spend limit that was crossed.
    SpendAlertId = "alert",
    /// One invoice.
    InvoiceId = "inv",
    /// What a customer and the owner agreed for months to years.
    ContractId = "ctr",
    /// What takes part of an issued invoice back.
    CreditNoteId = "note",
    /// Prepaid or promotional credit.
    CreditGrantId = "grant",
    /// What a customer means to pay in.
    TopUpId = "top",
    /// A card that a processor keeps for an organization.
    SavedCardId = "card",
    /// What a processor paid out to the owner's bank account.
    PayoutId = "pout",
    /// Paid credit on its way back to the customer.
    RefundId = "rfd",
    /// Credit for a promise that was not kept.
    CompensationId = "comp",
    /// A fee that was charged once.
    FeeId = "fee",
    /// What a project kept in an hour.
    StorageHourId = "hour",
    /// A content of a file on its way to whoever fetches it.
    DownloadId = "dl",
    /// Use of a past time that is rated anew.
    RerateId = "rer",
    /// Money that arrived, or that a processor told of.
    IncomingPaymentId = "inp",
    /// One entry of the audit log.
    AuditId = "aud",
    /// Files for finance that are delivered by themselves.
    ExportScheduleId = "exp",
    /// One background job's row.
    OutboxId = "op",
    /// One gateway, stable over its restarts.
    GatewayId = "gw",
    /// A console session.
    SessionId = "sess",
}

impl ResponseId {
    /// The response that a request is answered with.
    pub fn of(request: &RequestId) -> Self {
        let body = request.as_str().split_once('_').map_or(request.as_str(), |(_, body)| body);
        Self(Arc::from(format!("{}_{body}", Self::PREFIX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_sorts_by_creation_and_parses_back() {
        let early = RequestId::encode(Timestamp::from_millis(1_000), [255; 10]);
        let late = RequestId::encode(Timestamp::from_millis(1_001), [0; 10]);
        assert!(early < late);
        assert_eq!(late.as_str().parse::<RequestId>().unwrap_or_else(|e| panic!("{e}")), late);
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        for text in ["key_0", "req_", "req", "req_UPPER", "req_a b", ""] {
            assert!(text.parse::<RequestId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_response_is_named_after_its_request() {
        let request = RequestId::encode(Timestamp::from_millis(1_000), [7; 10]);
        let response = ResponseId::of(&request);
        assert_eq!(response.as_str().strip_prefix("resp_"), request.as_str().strip_prefix("req_"));
        assert_eq!(response.as_str().parse::<ResponseId>().ok(), Some(response));
    }

    #[test]
    fn prefixes_are_unique() {
        let mut seen = PREFIXES.to_vec();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), PREFIXES.len());
    }
}
