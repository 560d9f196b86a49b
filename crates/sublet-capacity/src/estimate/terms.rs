//! What a replay is asked under: prices, notices, reclaim times, and what a broken promise costs.

use sublet_core::notice::NoticeClass;

/// Parts of a whole.
pub const PPM: u64 = 1_000_000;
/// Notice classes.
pub const CLASSES: usize = NoticeClass::ALL.len();
const HOUR_S: i64 = 3_600;
/// A broken notice of an hour or more is paid with this much of its price: the price and a quarter.
const MISSING_NOTICE_PPM: u64 = PPM + PPM / 4;

/// The owner's terms of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// From the order to kill until the unit is free of an `n0` lease, or of one whose promise is broken.
    pub kill_s: u32,
    /// Cleaning, behind every lease.
    pub reclaim_s: u32,
    /// Price of each class in parts per million of the list price, shortest notice first; never falling.
    pub prices_ppm: [u64; CLASSES],
}

impl Default for Terms {
    fn default() -> Self {
        Self { kill_s: 5, reclaim_s: 0, prices_ppm: [250_000, 400_000, 550_000, 700_000, 850_000, 1_000_000] }
    }
}

/// The place of a class, shortest notice first.
pub fn index(class: NoticeClass) -> usize {
    match class {
        NoticeClass::N0 => 0,
        NoticeClass::N2m => 1,
        NoticeClass::N15m => 2,
        NoticeClass::N1h => 3,
        NoticeClass::N24h => 4,
        NoticeClass::Firm => 5,
    }
}

/// The shortest life of a lease of a class, in seconds: its notice, or seven days for `firm`.
pub fn term_s(class: NoticeClass) -> i64 {
    class.minimum_term().millis() / 1_000
}

impl Terms {
    pub fn price_ppm(&self, class: NoticeClass) -> u64 {
        self.prices_ppm[index(class)]
    }

    /// What a broken promise costs, in seconds of list price and parts per million: the default rules
    /// of decision 0140. `age_s` is how long the lease ran, `missing_s` the notice that was missing.
    pub fn compensation(&self, class: NoticeClass, age_s: i64, missing_s: i64) -> u128 {
        let price = u128::from(self.price_ppm(class));
        let seconds = |seconds: i64| u128::try_from(seconds.max(0)).unwrap_or(0);
        match class {
            NoticeClass::N0 | NoticeClass::Firm => 0,
            NoticeClass::N2m => price * seconds(age_s.min(HOUR_S)),
            NoticeClass::N15m => 2 * price * seconds((HOUR_S - age_s.rem_euclid(HOUR_S)) % HOUR_S),
            NoticeClass::N1h | NoticeClass::N24h => price * seconds(missing_s) * u128::from(MISSING_NOTICE_PPM) / u128::from(PPM),
        }
    }
}
