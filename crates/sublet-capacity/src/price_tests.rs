//! Floors by hand; prices against the equations that define them, in integers.

use proptest::prelude::*;
use sublet_core::{DurationMs, Nanos, Timestamp};

use super::*;

fn band(floor: i64, ceiling: i64) -> PriceBand {
    PriceBand::new(Nanos::new(floor), Nanos::new(ceiling)).unwrap()
}

fn price(band: &PriceBand, committed: u32, safe: u32) -> i64 {
    band.price(Commitment { committed, safe }).get()
}

#[test]
fn the_floor_is_what_running_costs_beyond_standing_still() {
    // 700 W under load, 100 W idle, a quarter on top, .20 a kilowatt-hour: .15; wear .01.
    let cost = RunningCost {
        load_watts: 700,
        idle_watts: 100,
        pue_thousandths: 1_250,
        energy_price: "0.20".parse().unwrap(),
        wear: "0.01".parse().unwrap(),
        depreciation: None,
    };
    assert_eq!(cost.floor().unwrap(), "0.16".parse().unwrap());
    let firm = RunningCost { depreciation: Some("1.5".parse().unwrap()), ..cost };
    assert_eq!(firm.floor().unwrap(), "1.66".parse().unwrap());
    assert_eq!(RunningCost { load_watts: 90, ..cost }.floor().unwrap(), cost.wear, "a cooler load saves nothing that is sold");
    let odd = RunningCost { load_watts: 101, pue_thousandths: 1_001, energy_price: Nanos::new(1), wear: Nanos::ZERO, ..cost };
    assert_eq!(odd.floor().unwrap(), Nanos::new(1), "never below what it costs");
    let dear = RunningCost { load_watts: u32::MAX, pue_thousandths: u32::MAX, energy_price: Nanos::MAX, ..cost };
    assert!(dear.floor().is_err());
}

#[test]
fn the_first_unit_costs_the_floor_the_middle_the_mean_and_the_last_the_ceiling() {
    let (band, even) = (band(160_000_000, 2_560_000_000), |committed| price(&band(160_000_000, 2_560_000_000), committed, 100));
    assert_eq!([0, 25, 50, 75, 100].map(even), [160_000_000, 320_000_000, 640_000_000, 1_280_000_000, 2_560_000_000]);
    assert_eq!([price(&band, 0, 0), price(&band, 9, 4)], [2_560_000_000; 2], "nothing more may safely be sold");
    for (floor, ceiling) in [(0, 1), (-1, 1), (2, 1), (1, 65_536)] {
        let error = PriceBand::new(Nanos::new(floor), Nanos::new(ceiling)).unwrap_err();
        assert!(!error.alternatives().is_empty());
    }
    assert_eq!(price(&PriceBand::new(Nanos::new(7), Nanos::new(7)).unwrap(), 1, 3), 7);
}

#[test]
fn a_window_costs_the_sum_over_its_hours_and_units() {
    let band = band(160_000_000, 2_560_000_000);
    let at = |minutes: i64| Timestamp::from_seconds(60 * minutes);
    let step = |minutes, committed| CommitmentFrom { from: at(minutes), commitment: Commitment { committed, safe: 4 } };
    let steps = [step(0, 0), step(60, 2), step(90, 4)];
    let of = |from, until, units| band.price_of(Window { starts_at: at(from), ends_at: at(until) }, units, &steps).unwrap().get();
    assert_eq!(of(0, 60, 1), 160_000_000);
    assert_eq!(of(0, 60, 2), 160_000_000 + 320_000_000, "the second unit finds the first one sold");
    assert_eq!(of(30, 120, 1), 80_000_000 + 320_000_000 + 1_280_000_000);
    assert_eq!(of(-60, 0, 1), 2_560_000_000, "of what is not known nothing is cheap");
    assert_eq!(of(10, 10, 3), 0);
    let long = Window { starts_at: at(0), ends_at: at(0).plus(DurationMs::from_hours(24 * 365 * 100)) };
    assert!(band.price_of(long, 5_000, &steps).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn more_committed_is_never_cheaper_and_always_within_the_band(floor in 1_i64..5_000_000_000, times in 1_i64..2_000, safe in 1_u32..100_000, committed in 0_u32..100_000) {
        let band = band(floor, floor.saturating_mul(times));
        let (one, next) = (price(&band, committed, safe), price(&band, committed + 1, safe));
        prop_assert!(floor <= one && one <= next && next <= floor.saturating_mul(times));
    }

    #[test]
    fn exponents_add_where_prices_multiply(floor in 1_000_000_i64..5_000_000_000, times in 2_i64..1_000, a in 0_u32..500, b in 0_u32..500) {
        let band = band(floor, floor.saturating_mul(times));
        let of = |committed| i128::from(price(&band, committed, 1_000));
        // λ(a) λ(b) = λ(a + b) λ(0), but for half a nano-unit in each.
        let (left, right) = (of(a) * of(b), of(a + b) * i128::from(floor));
        let slack = of(a) + of(b) + of(a + b) + i128::from(floor) + 2;
        prop_assert!((left - right).abs() <= slack, "{left} {right}");
    }
}
