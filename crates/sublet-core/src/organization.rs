//! Organizations: who buys, lends, supplies.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode};

/// What an organization is to the owner of this cloud.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrganizationClass {
    /// The owner's own team: served first.
    Internal,
    /// A customer.
    External,
    /// Sells on our behalf.
    Partner,
    /// Sells to us.
    Supplier,
}

impl OrganizationClass {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::External => "external",
            Self::Partner => "partner",
            Self::Supplier => "supplier",
        }
    }
}

impl fmt::Display for OrganizationClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OrganizationClass {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Internal, Self::External, Self::Partner, Self::Supplier].into_iter().find(|class| class.as_str() == text).ok_or_else(
            || Error::new(ErrorCode::InvalidRequest, "an organization's class is internal, external, partner or supplier"),
        )
    }
}
