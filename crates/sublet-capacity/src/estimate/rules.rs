//! The rules that the default policy follows in the shadow: for each class, bases and margins.
//!
//! A *base* is what was least idle within a window behind now, or a mixture of a short and a long window:
//! what is idle now tends back towards what was least for a day, and a mixture follows it part of the way.
//! A *margin* is a part of capacity or of the base. Every base is tried with every margin.

use sublet_core::notice::NoticeClass;

use super::baseline::share;

const MINUTE_S: i64 = 60;

/// Windows behind now, in minutes, shortest first.
const WINDOWS_MIN: [i64; 14] = [0, 5, 10, 20, 30, 60, 120, 240, 480, 960, 1_440, 2_880, 5_760, 11_520];
/// How many windows there are.
pub(super) const WINDOWS: usize = WINDOWS_MIN.len();

/// The lengths of the windows, in seconds.
pub(super) fn windows_s() -> [i64; WINDOWS] {
    WINDOWS_MIN.map(|minutes| minutes * MINUTE_S)
}

/// What a promise is measured from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Base {
    short: usize,
    long: usize,
    short_quarters: u32,
}

impl Base {
    /// The mixture of two windows of so many minutes, with so many quarters of the short one.
    fn mixed(short_min: i64, long_min: i64, short_quarters: u32) -> Self {
        let place = |minutes: i64| WINDOWS_MIN.iter().position(|window| *window == minutes);
        let place = |minutes: i64| place(minutes).expect("the bases are of these windows");
        Self { short: place(short_min), long: place(long_min), short_quarters }
    }

    pub(super) fn is_mixed(self) -> bool {
        self.short != self.long
    }

    /// The longest window that it looks at, in seconds.
    pub(super) fn window_s(self) -> i64 {
        windows_s()[self.long]
    }

    /// Units, of what was least in each window.
    pub(super) fn of(self, least: &[u32; WINDOWS]) -> u32 {
        let (short, long) = (least[self.short], least[self.long]);
        long + short.saturating_sub(long) * self.short_quarters / 4
    }
}

/// What is kept back, in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Margin {
    OfCapacity(u64),
    OfBase(u64),
}

impl Margin {
    /// Whether both are parts of the same.
    pub(super) fn is_like(self, other: Self) -> bool {
        matches!((self, other), (Self::OfCapacity(_), Self::OfCapacity(_)) | (Self::OfBase(_), Self::OfBase(_)))
    }

    /// What is left of a base.
    pub(super) fn less(self, base: u32, capacity: u32) -> u32 {
        base.saturating_sub(match self {
            Self::OfCapacity(ppm) => share(capacity, ppm),
            Self::OfBase(ppm) => share(base, ppm),
        })
    }
}

const SHORT_OF_CAPACITY_PPM: [u64; 16] =
    [0, 8_000, 12_000, 16_000, 20_000, 24_000, 32_000, 40_000, 50_000, 63_000, 80_000, 100_000, 125_000, 160_000, 200_000, 250_000];
const SHORT_OF_BASE_PPM: [u64; 9] = [50_000, 100_000, 150_000, 200_000, 250_000, 375_000, 500_000, 650_000, 800_000];
const LONG_OF_CAPACITY_PPM: [u64; 10] = [0, 20_000, 40_000, 63_000, 80_000, 100_000, 125_000, 150_000, 180_000, 220_000];
const LONG_OF_BASE_PPM: [u64; 15] = [
    100_000, 150_000, 200_000, 250_000, 300_000, 350_000, 400_000, 450_000, 500_000, 550_000, 600_000, 650_000, 700_000, 775_000,
    850_000,
];
/// Nothing takes `firm` back: half of what was least is kept at least.
const FIRM_OF_BASE_PPM: [u64; 8] = [500_000, 550_000, 600_000, 650_000, 700_000, 775_000, 850_000, 900_000];

/// The margins of a class, narrowest first within each kind.
pub(super) fn margins(class: NoticeClass) -> Vec<Margin> {
    let (capacity, base): (&[u64], &[u64]) = match class {
        NoticeClass::N0 | NoticeClass::N2m => (&SHORT_OF_CAPACITY_PPM, &SHORT_OF_BASE_PPM),
        NoticeClass::N15m | NoticeClass::N1h | NoticeClass::N24h => (&LONG_OF_CAPACITY_PPM, &LONG_OF_BASE_PPM),
        NoticeClass::Firm => (&[], &FIRM_OF_BASE_PPM),
    };
    capacity.iter().map(|ppm| Margin::OfCapacity(*ppm)).chain(base.iter().map(|ppm| Margin::OfBase(*ppm))).collect()
}

/// The bases of a class: single windows, then mixtures, in minutes and quarters.
pub(super) fn bases(class: NoticeClass) -> Vec<Base> {
    let (single, mixed): (&[i64], &[(i64, i64, u32)]) = match class {
        NoticeClass::N0 | NoticeClass::N2m => (
            &[5, 10, 20, 30, 60, 120, 240, 480],
            &[(10, 240, 3), (10, 480, 3), (30, 240, 3), (30, 480, 3), (30, 1_440, 3), (60, 240, 3)],
        ),
        NoticeClass::N15m => (
            &[5, 20, 30, 60, 240, 480],
            &[(10, 240, 3), (10, 1_440, 3), (30, 240, 2), (30, 480, 2), (30, 960, 3), (30, 960, 2), (30, 2_880, 3)],
        ),
        NoticeClass::N1h => (
            &[5, 30, 60, 240, 480, 960],
            &[(0, 960, 3), (0, 960, 2), (0, 1_440, 3), (30, 480, 2), (30, 960, 2), (30, 1_440, 2), (30, 2_880, 3), (60, 1_440, 2)],
        ),
        NoticeClass::N24h => (
            &[60, 240, 480, 960, 1_440, 2_880, 5_760],
            &[(30, 5_760, 1), (60, 960, 2), (60, 1_440, 2), (60, 1_440, 1), (60, 2_880, 1)],
        ),
        NoticeClass::Firm => (&[1_440, 2_880, 5_760, 11_520], &[]),
    };
    let mixed = mixed.iter().map(|(short, long, quarters)| Base::mixed(*short, *long, *quarters));
    single.iter().map(|minutes| Base::mixed(*minutes, *minutes, 4)).chain(mixed).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_class_has_rules_whose_margins_widen() {
        for class in NoticeClass::ALL {
            assert!(!bases(class).is_empty(), "{class}");
            for pair in margins(class).windows(2).filter(|pair| pair[0].is_like(pair[1])) {
                assert!(pair[0].less(1_000_000, 1_000_000) > pair[1].less(1_000_000, 1_000_000), "{class} {pair:?}");
            }
        }
    }

    #[test]
    fn half_of_what_was_least_is_kept_from_firm() {
        assert!(margins(NoticeClass::Firm).into_iter().all(|margin| margin.less(100, 1_000) <= 50));
    }

    proptest! {
        #[test]
        fn a_base_is_never_more_than_what_is_idle(mut least in prop::array::uniform14(0_u32..10_000_000)) {
            least.sort_unstable_by(|left, right| right.cmp(left));
            for base in NoticeClass::ALL.into_iter().flat_map(bases) {
                let units = base.of(&least);
                prop_assert!(units <= least[0] && units >= least[WINDOWS - 1], "{base:?} {units}");
            }
        }
    }
}
