//! Keys on three planes that do not work on each other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Rng;
use crate::error::{Error, ErrorCode};

/// Random bytes in a key: 256 bits.
const SECRET_BYTES: usize = 32;
/// Characters of a secret that may be shown later, to tell keys apart.
const HINT_CHARS: usize = 4;

/// What a key opens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPlane {
    /// `sk-sub-…`: models and compute of one project.
    Project,
    /// `sk-adm-…`: one organization's people, projects, keys and bills.
    Admin,
    /// `sk-opr-…`: the cloud itself.
    Operator,
}

impl KeyPlane {
    pub const ALL: [Self; 3] = [Self::Project, Self::Admin, Self::Operator];

    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Project => "sk-sub-",
            Self::Admin => "sk-adm-",
            Self::Operator => "sk-opr-",
        }
    }
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for KeyPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyPlane {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|plane| plane.as_str() == text)
            .ok_or_else(|| Error::new(ErrorCode::InvalidRequest, "a key's plane is project, admin or operator"))
    }
}

/// A key's text. It is shown once and never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    plane: KeyPlane,
}

impl Secret {
    /// A new secret of 256 random bits.
    pub fn generate(plane: KeyPlane, rng: &dyn Rng) -> Self {
        let mut bytes = [0_u8; SECRET_BYTES];
        rng.fill(&mut bytes);
        let mut text = String::from(plane.prefix());
        for byte in bytes {
            text.push_str(&format!("{byte:02x}"));
        }
        Self { text, plane }
    }
    pub fn plane(&self) -> KeyPlane {
        self.plane
    }
    /// The whole secret: for the one time it is shown, and for hashing.
    pub fn reveal(&self) -> &str {
        &self.text
    }
    /// What may be shown later: `sk-sub-…ab12`.
    pub fn hint(&self) -> String {
        let tail = self.text.len().saturating_sub(HINT_CHARS);
        format!("{}…{}", self.plane.prefix(), self.text.get(tail..).unwrap_or(""))
    }
}

impl FromStr for Secret {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let plane = KeyPlane::ALL.into_iter().find(|plane| text.starts_with(plane.prefix()));
        match plane {
            Some(plane)
                if text.len() == plane.prefix().len() + 2 * SECRET_BYTES
                    && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') =>
            {
                Ok(Self { text: text.to_owned(), plane })
            }
            _ => Err(Error::new(ErrorCode::InvalidApiKey, "the key given is not one of this cloud's keys")
                .alternative("project keys start with sk-sub-, organization admin keys with sk-adm-, operator keys with sk-opr-")),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hint())
    }
}
