//! Service tiers: who is served first, who gives way, and at which price.
//!
//! A tier is a notice class under the name that clients of model APIs use for it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode};
use crate::notice::NoticeClass;

/// A service tier, the first to give way first: the order is the order of eviction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTier {
    /// Fills what nothing better needs, and ends at once when it is needed.
    Flex,
    #[default]
    Default,
    /// Served before all others.
    Priority,
}

impl ServiceTier {
    pub const ALL: [Self; 3] = [Self::Flex, Self::Default, Self::Priority];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Default => "default",
            Self::Priority => "priority",
        }
    }
    /// The notice that is owed before its capacity is taken back.
    pub const fn notice(self) -> NoticeClass {
        match self {
            Self::Flex => NoticeClass::N0,
            Self::Default => NoticeClass::N15m,
            Self::Priority => NoticeClass::N1h,
        }
    }
    /// Its place in [`ServiceTier::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Flex => 0,
            Self::Default => 1,
            Self::Priority => 2,
        }
    }
    /// How many waiting requests one of this tier may find in a queue of so many places: an eighth is kept for
    /// `priority`, and `flex` finds half.
    pub const fn places(self, queue_max: usize) -> usize {
        match self {
            Self::Flex => queue_max / 2,
            Self::Default => queue_max - queue_max / 8,
            Self::Priority => queue_max,
        }
    }
    /// For serde: records of the default tier do not name it.
    pub fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

impl fmt::Display for ServiceTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ServiceTier {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            let error = Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not a service tier"));
            Self::ALL.iter().fold(error, |error, tier| error.alternative(tier.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_give_way_in_the_order_of_their_notice() {
        assert!(ServiceTier::ALL.is_sorted() && ServiceTier::ALL.map(ServiceTier::notice).is_sorted());
        for (index, tier) in ServiceTier::ALL.into_iter().enumerate() {
            assert_eq!((tier.index(), tier.as_str().parse::<ServiceTier>().unwrap()), (index, tier));
        }
        assert_eq!(ServiceTier::ALL.map(|tier| tier.places(8)), [4, 7, 8]);
        assert_eq!("gold".parse::<ServiceTier>().unwrap_err().code(), ErrorCode::InvalidRequest);
    }
}
