//! Notice classes: how long before it is taken back a lease's holder is told.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode};
use crate::time::DurationMs;

/// A notice class, shortest notice first. The order is the order of eviction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeClass {
    N0,
    N2m,
    N15m,
    N1h,
    N24h,
    Firm,
}

impl NoticeClass {
    pub const ALL: [Self; 6] = [Self::N0, Self::N2m, Self::N15m, Self::N1h, Self::N24h, Self::Firm];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::N0 => "n0",
            Self::N2m => "n2m",
            Self::N15m => "n15m",
            Self::N1h => "n1h",
            Self::N24h => "n24h",
            Self::Firm => "firm",
        }
    }
    /// The notice owed before capacity is taken back; `None` means never within the window.
    pub const fn notice(self) -> Option<DurationMs> {
        match self {
            Self::N0 => Some(DurationMs::ZERO),
            Self::N2m => Some(DurationMs::from_seconds(120)),
            Self::N15m => Some(DurationMs::from_seconds(900)),
            Self::N1h => Some(DurationMs::from_hours(1)),
            Self::N24h => Some(DurationMs::from_hours(24)),
            Self::Firm => None,
        }
    }
    /// The shortest life of a lease of this class: its notice, or seven days for `firm`.
    pub const fn minimum_term(self) -> DurationMs {
        match self.notice() {
            Some(notice) => notice,
            None => DurationMs::from_hours(7 * 24),
        }
    }
}

impl fmt::Display for NoticeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for NoticeClass {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            Error::new(ErrorCode::UnknownNoticeClass, format!("'{shown}' is not a notice class"))
                .alternative("use one of n0, n2m, n15m, n1h, n24h, firm")
        })
    }
}
