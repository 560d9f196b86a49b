//! Reads demand from the accounting of Slurm: what `sacct -D -X -P` prints, as it is.
//!
//! Sources: the manual page of sacct (Slurm 20.11 to 25.11) for the columns, and the condition by
//! which its database selects jobs: eligible before `-E`, and not ended before `-S`. So the file
//! has every job from its first end to the last instant at which a job became eligible, and only
//! that stretch is demand, unless the owner says what `-S` and `-E` were.
//!
//! Invariants: an attempt of a job is counted once; a unit is in one pool; what a row does not say
//! is a remark, what it says wrongly an error with its line.
//!
//! Deliberately absent: outages, which the accounting does not show.

mod attempts;
mod clock;
mod nodes;
mod series;
mod table;

use std::collections::BTreeMap;

use sublet_core::error::Result;

use super::demand::Demand;
pub use clock::Clock;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    Gpu,
    Cpu,
    Node,
}

impl Unit {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Cpu => "cpu",
            Self::Node => "node",
        }
    }
}

/// Whose units replace each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoolBy {
    Partition,
    Account,
    /// All are one pool.
    Nothing,
}

impl PoolBy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Account => "account",
            Self::Nothing => "none",
        }
    }
}

/// How the owner wants the accounting read.
#[derive(Debug)]
pub struct Reading {
    pub unit: Unit,
    pub pool_by: PoolBy,
    pub clock: Clock,
    /// What `sacct` had as `-S` and `-E`, in seconds.
    pub from_s: Option<i64>,
    pub until_s: Option<i64>,
    /// Units of every pool that is not named below, or of the only one.
    pub capacity: Option<u32>,
    pub capacities: BTreeMap<String, u32>,
}

/// The demand that an accounting shows.
#[derive(Debug)]
pub struct Accounting {
    pub demand: Demand,
    /// What the owner should know about how it was read.
    pub remarks: Vec<String>,
}

/// Whether the text begins as `sacct -P` does.
pub fn is_sacct(text: &str) -> bool {
    let heading = text.strip_prefix('\u{feff}').unwrap_or(text).lines().next().unwrap_or_default();
    table::is_heading(heading)
}

/// The demand of an accounting.
///
/// # Errors
/// [`sublet_core::error::ErrorCode::InvalidRequest`] with the number of the first line that is wrong.
pub fn parse(text: &str, reading: &Reading) -> Result<Accounting> {
    let mut remarks = table::Remarks::default();
    let rows = table::rows(text, reading, &mut remarks)?;
    let rows = attempts::distinct(rows, &mut remarks);
    let demand = series::demand(&rows, reading, &mut remarks)?;
    Ok(Accounting { demand, remarks: remarks.said() })
}
