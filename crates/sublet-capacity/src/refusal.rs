//! Refusals: the reason as data, and the nearest requests that would work now.

use std::fmt;

use sublet_core::device::DeviceKind;
use sublet_core::id::SiteId;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;

use crate::curve::LevelReason;
use crate::place::Request;
use crate::reserve::KindFigures;

/// Why a request cannot be placed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RefusalReason {
    /// Nothing was asked for.
    NoUnits,
    /// There is no device of this kind (at this site).
    UnknownKind {
        known: Vec<DeviceKind>,
    },
    UnknownSite {
        known: Vec<SiteId>,
    },
    /// No machine with this kind separates workloads well enough.
    Isolation {
        required: IsolationLevel,
        achieved: IsolationLevel,
    },
    /// More than there is, whoever uses it.
    AboveHealthy {
        healthy: u32,
    },
    /// Not enough is free.
    NotIdle {
        idle: u32,
    },
    /// Enough is free, but the owner keeps some of it for its own teams.
    Reserved {
        idle: u32,
        kept: u32,
        sellable: u32,
    },
    /// Firm leases and the owner's guarantees together would exceed what is healthy.
    FirmSoldOut {
        headroom: u32,
        reserve: u32,
        firm: u32,
    },
    /// Enough is free in total, but not on one machine.
    Fragmented {
        sellable: u32,
        largest: u32,
    },
    /// The owner uses what is free outside.
    UsedOutside {
        idle: u32,
        outside: u32,
    },
    /// So many may be promised as long as this class does, and so many are.
    AboveLevel(Box<AboveLevel>),
    /// What may be sold is not known: the curve of the pool is not there, or was not renewed.
    NoCurve,
    /// The owner sells nothing now.
    NothingSold,
    /// Not even everything that may be taken back would be enough on one machine.
    NotReclaimable {
        largest_after: u32,
    },
}

/// The class of a curve that bounds a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AboveLevel {
    pub class: NoticeClass,
    /// Units that may be promised for at least the class's term.
    pub level: u32,
    /// Units that are.
    pub sold: u32,
    pub headroom: u32,
    /// Why the level is what it is.
    pub reason: LevelReason,
}

impl RefusalReason {
    /// A stable name for records.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoUnits => "no_units",
            Self::UnknownKind { .. } => "unknown_kind",
            Self::UnknownSite { .. } => "unknown_site",
            Self::Isolation { .. } => "isolation",
            Self::AboveHealthy { .. } => "above_healthy",
            Self::NotIdle { .. } => "not_idle",
            Self::Reserved { .. } => "reserved",
            Self::FirmSoldOut { .. } => "firm_sold_out",
            Self::Fragmented { .. } => "fragmented",
            Self::UsedOutside { .. } => "used_outside",
            Self::AboveLevel(_) => "above_level",
            Self::NoCurve => "no_curve",
            Self::NothingSold => "nothing_sold",
            Self::NotReclaimable { .. } => "not_reclaimable",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUnits => f.write_str("at least one unit must be asked for"),
            Self::UnknownKind { known } => write!(f, "there is no device of this kind; there are: {}", list(known)),
            Self::UnknownSite { known } => write!(f, "there is no such site with devices of this kind; there are: {}", list(known)),
            Self::Isolation { required, achieved } => write!(
                f,
                "this work needs the isolation '{}', and the machines with this kind achieve '{}'",
                required.as_str(),
                achieved.as_str()
            ),
            Self::AboveHealthy { healthy } => write!(f, "there are only {healthy} healthy units of this kind"),
            Self::NotIdle { idle } => write!(f, "only {idle} units are free"),
            Self::Reserved { idle, kept, sellable } => {
                write!(f, "{idle} units are free, of which the owner keeps {kept} for its own teams, so {sellable} can be leased")
            }
            Self::FirmSoldOut { headroom, reserve, firm } => write!(
                f,
                "firm leases ({firm}) and the owner's guarantees ({reserve}) leave {headroom} units that can be promised firmly"
            ),
            Self::Fragmented { sellable, largest } => {
                write!(f, "{sellable} units can be leased, but at most {largest} on one machine")
            }
            Self::UsedOutside { idle, outside } => {
                write!(f, "{idle} units are not leased, of which the owner uses {outside} outside")
            }
            Self::AboveLevel(above) => {
                let AboveLevel { class, level, sold, headroom, reason } = above.as_ref();
                write!(
                    f,
                    "{level} units may be promised at notice {class} or longer ({reason}), {sold} are, so {headroom} can be leased"
                )
            }
            Self::NoCurve => f.write_str("how much the owner needs is not known at the moment, so nothing new is leased"),
            Self::NothingSold => f.write_str("the owner leases nothing to customers at the moment"),
            Self::NotReclaimable { largest_after } => {
                write!(f, "even after taking back all that was sold with notice, one machine would have {largest_after} units free")
            }
        }
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A request that would be placed in the same snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Alternative {
    FewerUnits { units: u32 },
    ShorterNotice { notice: NoticeClass },
    OtherKind { kind: DeviceKind },
    OtherSite { site: SiteId },
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FewerUnits { units } => write!(f, "ask for {units} units"),
            Self::ShorterNotice { notice } => write!(f, "ask for notice {notice}"),
            Self::OtherKind { kind } => write!(f, "ask for {kind}"),
            Self::OtherSite { site } => write!(f, "ask at site {site}"),
        }
    }
}

impl Alternative {
    /// The request that it is.
    pub fn of(&self, request: &Request) -> Request {
        let request = request.clone();
        match self.clone() {
            Self::FewerUnits { units } => Request { units, ..request },
            Self::ShorterNotice { notice } => Request { notice, ..request },
            Self::OtherKind { kind } => Request { kind, ..request },
            Self::OtherSite { site } => Request { site: Some(site), ..request },
        }
    }
}

/// A refused request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub reason: RefusalReason,
    /// Those of one sort together, nearest first; each was tried and would be placed. Which of them are sold to whoever
    /// asks is not known here.
    pub alternatives: Vec<Alternative>,
    pub figures: Box<KindFigures>,
}
