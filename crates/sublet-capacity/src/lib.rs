//! Capacity decisions as pure code: what is idle, what can be sold at which notice, where a
//! request goes, which leases end, and whom the owner's own demand displaces.
//!
//! Everything is a function of a [`Snapshot`] and an instant: no clock, no I/O, no randomness, no
//! logging, integers only. The same snapshot gives the same answer, in the same order.
//!
//! Invariants: a unit is placed once; the owner's reserve is never sold; what [`available`] shows,
//! [`place`] places; a victim is named only after it is proven that the newcomer then fits, and
//! only if it does not fit without it; `firm` is never a victim.
//!
//! [`estimate`] replays an owner's history under a policy that learns from it; what the same policy says
//! of the live history is the curve by which a pool is sold.
//!
//! Deliberately absent: price lists, and gangs over several machines: a request is placed on one machine, so that a sum of
//! fragments is never promised. An order of the owner may span machines.
#![deny(clippy::float_arithmetic)]

mod calendar;
mod curve;
mod device_time;
pub mod estimate;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hourly;
mod index;
pub mod kubernetes;
mod market;
mod order;
mod place;
mod plan;
mod price;
mod reclaim;
mod refusal;
mod reserve;
mod snapshot;
mod victim;

pub use calendar::{Booking, Calendar, Kept, NearWindow, OpenLeases, Window, WindowPlacement, WindowRequest};
pub use curve::{
    CURVE_LIFE, Curve, Level, LevelReason, Pool, PoolFigures, PoolView, Selling, SellingMode, pool_figures, sold_by_class,
};
pub use device_time::{ClassTimes, Stretch, TimeClass, Units, outside_use, partition};
pub use hourly::{Bucket, HOURS_MAX, HourFigures, buckets, calendars};
pub use index::FleetIndex;
pub use order::{Instead, Need, Order, OrderedDevice, OrderedVictim, Shortfall, decide, instead};
pub use place::{Availability, Placement, Request, available, place, refuse, try_place};
pub use plan::{Action, ActionKind, plan};
pub use price::{Commitment, CommitmentFrom, PriceBand, RunningCost};
pub use reclaim::{ReclaimPlan, Victim, place_with_reclaim, take_back, try_place_with_reclaim};
pub use refusal::{AboveLevel, Alternative, Refusal, RefusalReason};
pub use reserve::{KindFigures, ReserveRule, figures};
pub use snapshot::{Cover, CoverBound, DeviceView, LeaseStage, LeaseView, OrderedEnd, Snapshot, Stake, Terms, earliest_end};

#[cfg(test)]
mod calendar_tests;
#[cfg(test)]
mod curve_tests;
#[cfg(test)]
mod kubernetes_tests;
#[cfg(test)]
mod price_tests;
#[cfg(test)]
mod tests;
