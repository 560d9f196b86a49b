//! Orders by which the owner takes capacity back, and their life.
//!
//! `placed` waits for its devices; `fulfilled` has them all, free or with the owner's teams; both hold them. `cancelled`
//! and `expired` hold nothing any more.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::error::{Error, ErrorCode, Result};
use crate::lease::InvalidTransition;

/// Where an order is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ReclaimState {
    Placed,
    Fulfilled,
    Cancelled,
    Expired,
}

impl ReclaimState {
    pub const ALL: [Self; 4] = [Self::Placed, Self::Fulfilled, Self::Cancelled, Self::Expired];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Fulfilled => "fulfilled",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
    /// It holds its devices.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Placed | Self::Fulfilled => true,
            Self::Cancelled | Self::Expired => false,
        }
    }
    const fn refuse(self, to: &'static str) -> InvalidTransition {
        InvalidTransition { noun: "reclaim", from: self.as_str(), to }
    }
    /// All its devices are there.
    pub const fn fulfil(self) -> Result<Self, InvalidTransition> {
        match self {
            Self::Placed => Ok(Self::Fulfilled),
            Self::Fulfilled | Self::Cancelled | Self::Expired => Err(self.refuse("fulfilled")),
        }
    }
    /// The owner does not need it any more.
    pub const fn cancel(self) -> Result<Self, InvalidTransition> {
        match self {
            Self::Placed | Self::Fulfilled => Ok(Self::Cancelled),
            Self::Cancelled | Self::Expired => Err(self.refuse("cancelled")),
        }
    }
    /// Its time is over.
    pub const fn expire(self) -> Result<Self, InvalidTransition> {
        match self {
            Self::Placed | Self::Fulfilled => Ok(Self::Expired),
            Self::Cancelled | Self::Expired => Err(self.refuse("expired")),
        }
    }
}

impl fmt::Display for ReclaimState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ReclaimState {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| Error::new(ErrorCode::InvalidRequest, format!("'{text}' is not a state of a reclaim")))
    }
}

/// How the units have to lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ReclaimShape {
    /// Wherever they are.
    Anywhere,
    /// So many on each of some machines.
    PerNode(NonZeroU32),
    /// All devices of each of some machines.
    WholeNodes,
}

/// What becomes of notices that were sold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Promises {
    Kept,
    /// They may be broken, the shortest first; `firm` never.
    MayBreak,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_ends_once() {
        for open in [ReclaimState::Placed, ReclaimState::Placed.fulfil().unwrap()] {
            for ended in [open.cancel().unwrap(), open.expire().unwrap()] {
                assert!(open.is_open() && !ended.is_open());
                assert!(ended.cancel().is_err() && ended.expire().is_err() && ended.fulfil().is_err());
            }
        }
    }

    #[test]
    fn states_parse_back() {
        for state in ReclaimState::ALL {
            assert_eq!(state.as_str().parse::<ReclaimState>().unwrap(), state);
        }
    }
}
