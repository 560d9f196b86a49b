//! Quantities: integers in base units, each with its own type.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! quantities {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
            #[serde(transparent)]
            pub struct $name(i64);

            impl $name {
                pub const ZERO: Self = Self(0);
                pub const fn new(count: i64) -> Self { Self(count) }
                pub const fn get(self) -> i64 { self.0 }
                pub fn checked_add(self, other: Self) -> Option<Self> { self.0.checked_add(other.0).map(Self) }
                #[must_use]
                pub const fn saturating_sub(self, other: Self) -> Self { Self(self.0.saturating_sub(other.0)) }
                #[must_use]
                pub const fn saturating_add(self, other: Self) -> Self { Self(self.0.saturating_add(other.0)) }
            }
            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) }
            }
        )+
    };
}

quantities! {
    /// Model tokens, counted by the model's own tokenizer.
    TokenCount,
    /// Devices multiplied by milliseconds of use.
    DeviceMillis,
    /// Bytes.
    Bytes,
}
