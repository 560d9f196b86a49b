//! Quotes: binding offers of capacity for a short time.

use serde::{Deserialize, Serialize};

use crate::admission::PriceVersion;
use crate::device::DeviceKind;
use crate::id::{NodeId, SiteId};
use crate::lease::{Holder, InvalidTransition};
use crate::money::{Currency, Nanos};
use crate::notice::NoticeClass;
use crate::runner::IsolationLevel;
use crate::time::{DurationMs, Timestamp};

/// Everything a quote binds both sides to. Stored as it was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuoteTerms {
    pub kind: DeviceKind,
    pub units: u32,
    pub notice: NoticeClass,
    pub holder: Holder,
    pub site: SiteId,
    /// Where it could be placed when it was made.
    pub node: NodeId,
    /// The weakest separation its workloads may run with.
    pub isolation: IsolationLevel,
    pub price_version: PriceVersion,
    pub currency: Currency,
    /// Per device and hour.
    pub price_per_hour: Nanos,
    /// What the whole window costs at most, whenever it begins, with the start of one job; nothing if it has no end.
    #[serde(default)]
    pub window_cost: Option<Nanos>,
    /// Set aside when the lease begins: one interval ahead, with the notice and the grace.
    pub hold: Nanos,
    /// The most that a job on it costs for being started, set aside when it is asked for; nothing if nothing is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Nanos>,
    /// The lease ends by itself after this.
    pub max_duration: Option<DurationMs>,
    /// The lease ends before it costs more.
    pub max_cost: Option<Nanos>,
    /// The lease ends before an hour of a device costs more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<Nanos>,
    /// What the placement rule saw, for explanations.
    pub seen: PlacementFigures,
}

/// The figures that a placement was decided by.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct PlacementFigures {
    pub healthy: u32,
    /// Free and not promised to anybody.
    pub idle: u32,
    /// What the owner keeps of the idle units for its own teams.
    pub kept: u32,
    /// What could be leased in total at this notice.
    pub sellable: u32,
    /// The most on one machine: what can be placed at once.
    pub largest: u32,
}

/// Where a quote is in its life. Expiry needs no step: it is a matter of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuoteState {
    Open { expires_at: Timestamp },
    Accepted,
    Expired,
}

impl QuoteState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Accepted => "accepted",
            Self::Expired => "expired",
        }
    }
    /// The state at an instant.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        match self {
            Self::Open { expires_at } if now >= expires_at => Self::Expired,
            Self::Open { .. } | Self::Accepted | Self::Expired => self,
        }
    }
    pub fn accept(self, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self.at(now) {
            Self::Open { .. } => Ok(Self::Accepted),
            from @ (Self::Accepted | Self::Expired) => {
                Err(InvalidTransition { noun: "quote", from: from.as_str(), to: "accepted" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_accepted_once_and_before_it_expires() {
        let open = QuoteState::Open { expires_at: Timestamp::from_seconds(10) };
        assert_eq!(open.accept(Timestamp::from_seconds(9)), Ok(QuoteState::Accepted));
        assert!(open.accept(Timestamp::from_seconds(10)).is_err());
        assert!(QuoteState::Accepted.accept(Timestamp::from_seconds(9)).is_err());
    }
}
