//! When machines and devices fail: a function of the fleet's seed, a name, and time.
//!
//! Time is cut into windows. In each window a part fails at most once, with the probability 1 - 1/e of at least one event
//! of a Poisson process whose mean is one, at an instant of the window; both come from a hash of seed, name and window
//! (the finalizer of SplitMix64, Steele and others 2014). A window is so long that faults are as far apart in the mean as
//! was asked. So nothing has to be kept, and a restart changes nothing.

use serde::{Deserialize, Serialize};
use sublet_core::{DurationMs, Timestamp};

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
/// Of so many parts of a window's hash, this many are a fault: 1 - 1/e.
const PARTS: i64 = 1_000_000;
const FAULTY_PARTS: i64 = 632_121;

/// How often one part fails, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRate {
    /// The mean time between the beginnings of two faults.
    pub hours_between: u32,
    pub repair_minutes: u32,
}

/// What fails in a fleet; nothing if not said.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// A machine with all its devices.
    pub machine: Option<FaultRate>,
    /// A device alone.
    pub device: Option<FaultRate>,
}

impl FaultRate {
    fn window_ms(self) -> i64 {
        (i64::from(self.hours_between.max(1)) * HOUR_MS / PARTS * FAULTY_PARTS).max(1)
    }

    fn repair(self) -> DurationMs {
        DurationMs::from_millis(i64::from(self.repair_minutes) * MINUTE_MS)
    }

    /// The fault that begins in a window, if one does.
    fn fault_in(self, seed: u64, window: i64) -> Option<Timestamp> {
        let drawn = mix(seed ^ mix(window.unsigned_abs()));
        if drawn % PARTS.unsigned_abs() >= FAULTY_PARTS.unsigned_abs() {
            return None;
        }
        let length = self.window_ms();
        let offset = i64::try_from(mix(drawn) % length.unsigned_abs()).unwrap_or(0);
        Some(Timestamp::from_millis(window.saturating_mul(length).saturating_add(offset)))
    }

    /// Whether the part of this seed is down at an instant.
    pub fn is_down(self, seed: u64, now: Timestamp) -> bool {
        let windows = self.repair().millis() / self.window_ms() + 1;
        let current = now.millis().div_euclid(self.window_ms());
        (current - windows..=current)
            .filter_map(|window| self.fault_in(seed, window))
            .any(|fault| fault <= now && now < fault.plus(self.repair()))
    }

    /// The first fault that begins after one instant and not after another.
    pub fn first_between(self, seed: u64, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let window = |at: Timestamp| at.millis().div_euclid(self.window_ms());
        (window(after)..=window(until))
            .filter_map(|window| self.fault_in(seed, window))
            .find(|fault| *fault > after && *fault <= until)
    }
}

/// The seed of a part of a fleet.
pub fn seed_of(seed: u64, name: &str) -> u64 {
    name.bytes().fold(mix(seed), |seed, byte| mix(seed ^ u64::from(byte)))
}

/// The finalizer of SplitMix64: numbers that are near each other become ones that are not.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
