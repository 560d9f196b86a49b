//! Device time by where it is and how it is kept apart: which price of a list is that of a lease.
//!
//! A name of device time leaves site and isolation open, or says them. What is leased has a full name that says both: the
//! site is the one that was quoted, the isolation the one that was demanded. A price is that of every full name that it
//! covers, and of those that cover one the price is the one that says most. Two that say different things of it, a site
//! and an isolation, would both be the price: a list that has both has one for the two together, or is refused
//! ([`check_unambiguous`]). So every full name has one price or none, whatever the order of a list.
//!
//! Everything else that has a price is covered by its own name alone.
//!
//! Deliberately absent: what a place is like. A list says so by its price.

use std::collections::BTreeSet;

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::SiteId;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;

use crate::sku::{DeviceKind, SkuName};

impl SkuName {
    /// Device time, wherever it is and however it is kept apart.
    pub const fn device(notice: NoticeClass, device: DeviceKind) -> Self {
        Self::Device { notice, device, site: None, isolation: None }
    }

    /// The name of device time without its place; what is no device time is as it was.
    pub fn general(&self) -> Self {
        match self {
            Self::Device { notice, device, .. } => Self::device(*notice, device.clone()),
            Self::Tokens { .. }
            | Self::Requests { .. }
            | Self::Starts { .. }
            | Self::ProjectMonth
            | Self::Fee { .. }
            | Self::FileStorage
            | Self::FileEgress => self.clone(),
        }
    }

    /// The full name of device time at a place; what is no device time is as it was.
    pub fn placed(&self, site: &SiteId, isolation: IsolationLevel) -> Self {
        match self {
            Self::Device { notice, device, .. } => {
                Self::Device { notice: *notice, device: device.clone(), site: Some(site.clone()), isolation: Some(isolation) }
            }
            Self::Tokens { .. }
            | Self::Requests { .. }
            | Self::Starts { .. }
            | Self::ProjectMonth
            | Self::Fee { .. }
            | Self::FileStorage
            | Self::FileEgress => self.clone(),
        }
    }

    /// Itself and all that cover it, what says most first, and a site before an isolation.
    pub fn covering(&self) -> Vec<Self> {
        let Self::Device { notice, device, site, isolation } = self else { return vec![self.clone()] };
        let parts = [(site.clone(), *isolation), (site.clone(), None), (None, *isolation), (None, None)];
        let mut names: Vec<Self> = Vec::with_capacity(parts.len());
        for (site, isolation) in parts {
            let name = Self::Device { notice: *notice, device: device.clone(), site, isolation };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Whether whatever the other name is of is of this one too.
    pub fn covers(&self, other: &Self) -> bool {
        self.common(other).as_ref() == Some(other)
    }

    /// The name of what both names are of; `None` if nothing is.
    pub fn common(&self, other: &Self) -> Option<Self> {
        let (
            Self::Device { notice, device, site, isolation },
            Self::Device { notice: other_notice, device: other_device, site: other_site, isolation: other_isolation },
        ) = (self, other)
        else {
            return (self == other).then(|| self.clone());
        };
        if notice != other_notice || device != other_device {
            return None;
        }
        let (site, isolation) = (both(site.as_ref(), other_site.as_ref())?, both(isolation.as_ref(), other_isolation.as_ref())?);
        Some(Self::Device { notice: *notice, device: device.clone(), site: site.cloned(), isolation: isolation.copied() })
    }

    /// How much a name says: of two that cover the same, the one that says more is the price.
    pub const fn exactness(&self) -> u8 {
        match self {
            Self::Device { site: Some(_), isolation: Some(_), .. } => 2,
            Self::Device { site: Some(_), .. } | Self::Device { isolation: Some(_), .. } => 1,
            Self::Device { .. }
            | Self::Tokens { .. }
            | Self::Requests { .. }
            | Self::Starts { .. }
            | Self::ProjectMonth
            | Self::Fee { .. }
            | Self::FileStorage
            | Self::FileEgress => 0,
        }
    }
}

/// What both say, where one says nothing or both the same; `None` where they differ.
fn both<'a, T: PartialEq>(one: Option<&'a T>, other: Option<&'a T>) -> Option<Option<&'a T>> {
    match (one, other) {
        (Some(one), Some(other)) => (one == other).then_some(Some(one)),
        (one, other) => Some(one.or(other)),
    }
}

/// Names that two others cover, of which neither says more, and that are not there: where a site and an isolation are named
/// apart, the name of both together, and those two.
pub(crate) fn ambiguous<'a>(names: &BTreeSet<&'a SkuName>) -> Vec<(SkuName, [&'a SkuName; 2])> {
    let mut found = Vec::new();
    let at_sites = names.iter().filter(|name| matches!(name, SkuName::Device { site: Some(_), isolation: None, .. }));
    for at_site in at_sites {
        let SkuName::Device { notice, device, .. } = at_site else { continue };
        for level in IsolationLevel::ALL {
            let apart = SkuName::Device { notice: *notice, device: device.clone(), site: None, isolation: Some(level) };
            let Some(apart) = names.get(&apart) else { continue };
            let together = at_site.common(apart);
            found.extend(together.filter(|together| !names.contains(together)).map(|together| (together, [*at_site, *apart])));
        }
    }
    found
}

/// The same names, with one for every site and isolation that are named apart.
pub fn closed(names: &BTreeSet<SkuName>) -> BTreeSet<SkuName> {
    let missing = ambiguous(&names.iter().collect());
    names.iter().cloned().chain(missing.into_iter().map(|(name, _)| name)).collect()
}

/// Refuses names of which two cover the same full name and neither says more.
pub fn check_unambiguous<'a>(names: impl IntoIterator<Item = &'a SkuName>) -> Result<()> {
    match ambiguous(&names.into_iter().collect()).first() {
        None => Ok(()),
        Some((together, [one, other])) => {
            Err(Error::new(ErrorCode::InvalidPrice, format!("{one} and {other} would both be the price of {together}"))
                .alternative(format!("price {together} too")))
        }
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
