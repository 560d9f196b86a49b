//! Price indexes: what market prices follow.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::{PriceIndexTag, PricePointTag};
use crate::time::{Rfc3339, UnixSeconds};

/// A level that prices may be multiplied by, and that changes at instants that are told ahead.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PriceIndex {
    pub object: PriceIndexTag,
    pub name: String,
    pub note: String,
    /// A decimal with at most three places: what holds now.
    pub level: String,
    /// Points are published at least so long before they hold.
    pub lead_seconds: u64,
    /// Before this instant nothing can change any more.
    pub known_until: Rfc3339,
    /// The point that was published last; it may not hold yet.
    pub last: PricePoint,
    pub created_at: UnixSeconds,
}

/// From an instant on an index is at a level. It is never changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PricePoint {
    pub object: PricePointTag,
    /// Counts the points of the index from 1.
    pub number: u64,
    /// A decimal with at most three places.
    pub level: String,
    pub from: Rfc3339,
    pub published_at: Rfc3339,
    /// SHA-256 over this point and the hash of the one before it: it names the index's whole past.
    pub hash: String,
}

/// Body that makes an index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePriceIndex {
    /// 1 to 64 of a-z, 0-9, - and _.
    pub name: String,
    /// The first level; it holds at once.
    pub level: String,
    /// How long before it holds a point is published at least; never changed. 60 to 604800.
    #[schemars(range(min = 60, max = 604_800))]
    pub lead_seconds: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Body that publishes the next point of an index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishPricePoint {
    pub level: String,
    /// As soon as it can if left out: when the lead is over, and five minutes after the last point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Rfc3339>,
}
