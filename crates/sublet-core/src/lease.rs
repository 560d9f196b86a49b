//! Leases: the only right to use capacity, and their life.
//!
//! `pending` waits for capacity that is being taken back for it; `active` may run workloads;
//! `ending` has a deadline that its holder was told; `ended` holds nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode, Result};
use crate::time::Timestamp;

/// A state machine was asked for a step it does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidTransition {
    pub noun: &'static str,
    pub from: &'static str,
    pub to: &'static str,
}

impl fmt::Display for InvalidTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} that is {} cannot become {}", self.noun, self.from, self.to)
    }
}
impl std::error::Error for InvalidTransition {}
impl From<InvalidTransition> for Error {
    fn from(invalid: InvalidTransition) -> Self {
        Self::new(ErrorCode::Conflict, invalid.to_string())
    }
}

/// What the holder of a lease is to the owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// One of the owner's teams.
    Internal,
    /// Anybody else.
    External,
}

impl Holder {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::External => "external",
        }
    }
}

impl From<crate::organization::OrganizationClass> for Holder {
    fn from(class: crate::organization::OrganizationClass) -> Self {
        use crate::organization::OrganizationClass;
        match class {
            OrganizationClass::Internal => Self::Internal,
            OrganizationClass::External | OrganizationClass::Partner | OrganizationClass::Supplier => Self::External,
        }
    }
}

impl FromStr for Holder {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Self::Internal, Self::External]
            .into_iter()
            .find(|holder| holder.as_str() == text)
            .ok_or_else(|| Error::new(ErrorCode::InvalidRequest, "a lease's holder is internal or external"))
    }
}

/// Why a lease ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its holder ended it.
    Released,
    /// The job it was made for ended.
    JobEnded,
    /// Its window is over.
    WindowOver,
    /// It reached the maximum cost its holder set.
    MaximumCost,
    /// Its price goes above the maximum its holder set.
    MaximumPrice,
    /// The money that can be held for it is used up.
    Budget,
    /// Nothing ran on it for too long.
    Unused,
    /// The owner took the capacity back, with the notice that was sold.
    Reclaimed,
    /// A device was lost.
    DeviceLost,
    /// The cloud is stopping.
    ShutDown,
}

impl EndReason {
    pub const ALL: [Self; 10] = [
        Self::Released,
        Self::JobEnded,
        Self::WindowOver,
        Self::MaximumCost,
        Self::MaximumPrice,
        Self::Budget,
        Self::Unused,
        Self::Reclaimed,
        Self::DeviceLost,
        Self::ShutDown,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::JobEnded => "job_ended",
            Self::WindowOver => "window_over",
            Self::MaximumCost => "maximum_cost",
            Self::MaximumPrice => "maximum_price",
            Self::Budget => "budget",
            Self::Unused => "unused",
            Self::Reclaimed => "reclaimed",
            Self::DeviceLost => "device_lost",
            Self::ShutDown => "shut_down",
        }
    }
    /// One sentence for the holder.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Released => "its holder ended it",
            Self::JobEnded => "the job it was made for ended",
            Self::WindowOver => "its window is over",
            Self::MaximumCost => "it reached the maximum cost that was set for it",
            Self::MaximumPrice => "its price goes above the maximum that was set for it",
            Self::Budget => "no more money could be set aside for it, and nothing runs unpaid",
            Self::Unused => "nothing ran on it for too long",
            Self::Reclaimed => "the owner took the capacity back with the notice that was sold",
            Self::DeviceLost => "a device of it was lost",
            Self::ShutDown => "the cloud is stopping",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EndReason {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| Error::new(ErrorCode::InvalidRequest, format!("'{text}' is not a reason why a lease ends")))
    }
}

/// Where a lease is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseState {
    Pending,
    Active,
    Ending { reason: EndReason, deadline: Timestamp },
    Ended { reason: EndReason },
}

impl LeaseState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Ending { .. } => "ending",
            Self::Ended { .. } => "ended",
        }
    }
    const fn refuse(self, to: &'static str) -> InvalidTransition {
        InvalidTransition { noun: "lease", from: self.as_str(), to }
    }
    /// Its capacity is there.
    pub const fn activate(self) -> Result<Self, InvalidTransition> {
        match self {
            Self::Pending => Ok(Self::Active),
            Self::Active | Self::Ending { .. } | Self::Ended { .. } => Err(self.refuse("active")),
        }
    }
    /// Its holder is told that it ends by `deadline`. A lease that is ending already can only end earlier.
    pub fn begin_ending(self, reason: EndReason, deadline: Timestamp) -> Result<Self, InvalidTransition> {
        match self {
            Self::Pending | Self::Active => Ok(Self::Ending { reason, deadline }),
            Self::Ending { deadline: told, .. } if deadline < told => Ok(Self::Ending { reason, deadline }),
            Self::Ending { .. } | Self::Ended { .. } => Err(self.refuse("ending")),
        }
    }
    /// Nothing of it runs and its devices are given back.
    pub const fn end(self) -> Result<Self, InvalidTransition> {
        match self {
            Self::Ending { reason, .. } => Ok(Self::Ended { reason }),
            Self::Pending | Self::Active | Self::Ended { .. } => Err(self.refuse("ended")),
        }
    }
    /// Why it ends or ended.
    pub const fn reason(self) -> Option<EndReason> {
        match self {
            Self::Pending | Self::Active => None,
            Self::Ending { reason, .. } | Self::Ended { reason } => Some(reason),
        }
    }
    pub const fn deadline(self) -> Option<Timestamp> {
        match self {
            Self::Ending { deadline, .. } => Some(deadline),
            Self::Pending | Self::Active | Self::Ended { .. } => None,
        }
    }
    /// Nothing changes any more.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Ended { .. } => true,
            Self::Pending | Self::Active | Self::Ending { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: Timestamp = Timestamp::from_seconds(1);
    const T2: Timestamp = Timestamp::from_seconds(2);

    #[test]
    fn a_lease_lives_once_through_its_states() {
        let ending = LeaseState::Pending.activate().and_then(|state| state.begin_ending(EndReason::Budget, T2)).unwrap();
        assert_eq!(ending, LeaseState::Ending { reason: EndReason::Budget, deadline: T2 });
        let ended = ending.end().unwrap();
        assert!(ended.is_final());
        assert_eq!(ended.reason(), Some(EndReason::Budget));
        assert!(ended.activate().is_err() && ended.end().is_err() && ended.begin_ending(EndReason::Released, T1).is_err());
        assert!(LeaseState::Active.end().is_err());
    }

    #[test]
    fn an_ending_lease_can_only_be_hastened() {
        let ending = LeaseState::Active.begin_ending(EndReason::Reclaimed, T2).unwrap();
        assert!(ending.begin_ending(EndReason::Released, T2).is_err());
        let hastened = ending.begin_ending(EndReason::Released, T1).unwrap();
        assert_eq!((hastened.reason(), hastened.deadline()), (Some(EndReason::Released), Some(T1)));
    }

    #[test]
    fn reasons_parse_back() {
        for reason in EndReason::ALL {
            assert_eq!(reason.as_str().parse::<EndReason>().unwrap(), reason);
        }
    }
}
