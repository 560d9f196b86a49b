use proptest::prelude::*;
use sublet_core::DurationMs;

use super::*;
use crate::period::{BillingCalendar, PeriodLength};

const UNIT: i64 = 1_000_000_000;

fn at(text: &str) -> Timestamp {
    Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

fn month_of(instant: Timestamp) -> Interval {
    BillingCalendar::new("UTC").unwrap().interval_at(PeriodLength::Month, instant).unwrap()
}

fn run_rate(settled: i64, now: &str) -> Option<Forecast> {
    let (now, history) = (at(now), History::default());
    let observed = Observed { window: month_of(now), now, settled: Nanos::new(settled), committed: Nanos::ZERO, history: &history };
    observed.forecast().unwrap()
}

fn figures(forecast: Option<Forecast>) -> (i64, i64, i64) {
    let forecast = forecast.expect("a forecast");
    (forecast.low.get(), forecast.expected.get(), forecast.high.get())
}

#[test]
fn the_run_rate_goes_on_and_its_band_is_half_and_double_of_the_rest() {
    // Ten of thirty days.
    let forecast = run_rate(100, "2026-06-11T00:00:00Z");
    assert_eq!(figures(forecast), (200, 300, 500));
    assert_eq!(forecast.unwrap().method, ForecastMethod::RunRate);
    assert_eq!(figures(run_rate(100, "2026-07-01T00:00:00Z").or(run_rate(100, "2026-06-30T23:59:59.999999Z"))), (100, 100, 100));
}

#[test]
fn not_enough_is_an_answer_and_never_zero() {
    assert_eq!(run_rate(100, "2026-06-03T11:59:59Z"), None, "less than a twelfth of the month");
    assert!(run_rate(100, "2026-06-03T12:00:00Z").is_some());
    assert_eq!(run_rate(0, "2026-06-20T00:00:00Z"), None, "nothing was spent, and nothing is known of before");
    assert_eq!(run_rate(100, "2026-06-01T00:00:00Z"), None);
}

#[test]
fn a_window_of_a_day_with_23_or_25_hours_is_foreseen_by_its_own_length() {
    let calendar = BillingCalendar::new("Europe/Berlin").unwrap();
    let history = History::default();
    // Six hours after midnight, at ten an hour: 17, 18 and 19 hours are left.
    for (now, expected) in [("2026-03-29T05:00:00Z", 230), ("2026-06-10T04:00:00Z", 240), ("2026-10-25T04:00:00Z", 250)] {
        let now = at(now);
        let window = calendar.interval_at(PeriodLength::Day, now).unwrap();
        let spent = now.since(window.starts_at).millis() / 3_600_000 * 10;
        let observed = Observed { window, now, settled: Nanos::new(spent), committed: Nanos::ZERO, history: &history };
        assert_eq!(observed.forecast().unwrap().unwrap().expected.get(), expected, "{now}");
    }
}

#[test]
fn a_week_s_profile_knows_that_nights_and_weekends_are_quiet() {
    // Five working days of eight hours at one unit. It is Friday evening, the last day of the month is the Sunday.
    let now = at("2026-05-29T20:00:00Z");
    let first = Hour::of(now).minus(4 * 168);
    let works = |hour: i64| (8..16).contains(&hour.rem_euclid(24)) && (hour.div_euclid(24) + 3).rem_euclid(7) < 5;
    let amounts: Vec<Nanos> = (0..4 * 168).map(|step| Nanos::new(if works(first.number() + step) { UNIT } else { 0 })).collect();
    let history = History::of_hours(first, &amounts);
    let observed =
        Observed { window: month_of(now), now, settled: Nanos::new(168 * UNIT), committed: Nanos::ZERO, history: &history };
    let forecast = observed.forecast().unwrap();
    assert_eq!(figures(forecast), (168 * UNIT, 168 * UNIT, 168 * UNIT), "the run rate would say 178");
    // On the Monday before, five days are to come.
    let early = Observed { now: at("2026-05-25T00:00:00Z"), settled: Nanos::new(128 * UNIT), ..observed };
    let history = History::of_hours(first, amounts.get(..amounts.len() - 116).unwrap());
    let early = Observed { history: &history, ..early }.forecast().unwrap().unwrap();
    assert_eq!((early.expected.get(), early.method), (168 * UNIT, ForecastMethod::WeeklyProfile));
}

#[test]
fn samples_become_hours_over_gaps_and_new_windows() {
    let sample = |hour, starts_at, settled| Sample {
        hour: Hour::from_number(hour),
        starts_at: Timestamp::from_seconds(starts_at),
        settled: Nanos::new(settled),
    };
    let history = History::of(&[
        sample(10, 0, 100),
        sample(11, 0, 130),
        // Nobody looked for two hours.
        sample(14, 0, 140),
        // A new window begins at zero; a limit that was set again too.
        sample(15, 54_000, 7),
        sample(16, 54_000, 3),
    ]);
    let hours: Vec<(i64, i128)> = history.hours.iter().map(|(hour, amount)| (hour.number(), *amount)).collect();
    assert_eq!(hours, [(11, 30), (12, 3), (13, 3), (14, 4), (15, 7), (16, 0)]);
}

#[test]
fn what_is_fixed_already_is_the_least_of_the_rest() {
    let now = at("2026-06-11T00:00:00Z");
    let history = History::default();
    let observed = Observed { window: month_of(now), now, settled: Nanos::new(100), committed: Nanos::new(350), history: &history };
    assert_eq!(figures(observed.forecast().unwrap()), (450, 450, 500));
}

/// Reproducible noise: 0 to 999.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((self.0 >> 33) % 1_000).unwrap()
    }
}

/// A customer: what he spends in an hour that has a number, of a series that began at hour zero.
type Shape = fn(i64, &mut Noise) -> i64;

/// Busy on working days from eight to eighteen.
fn busy(hour: i64) -> i64 {
    let is_day = (8..18).contains(&hour.rem_euclid(24));
    let is_weekday = hour.div_euclid(24).rem_euclid(7) < 5;
    match (is_day, is_weekday) {
        (true, true) => 10,
        (false, true) => 2,
        (_, false) => 1,
    }
}

const SHAPES: [(&str, Shape); 6] = [
    ("constant", |_, noise| 1_000_000 + noise.next() * 500),
    ("week", |hour, noise| busy(hour) * (500_000 + noise.next() * 1_000)),
    // Two percent a week.
    ("growth", |hour, noise| busy(hour) * (500_000 + noise.next() * 1_000) * (5_000 + hour * 100 / 168) / 5_000),
    // Three times as much from the middle of the twelfth week on.
    ("step", |hour, noise| if hour < 1_900 { 1 } else { 3 } * busy(hour) * (500_000 + noise.next() * 1_000)),
    // One hour in fifty costs a hundred times as much as the others.
    ("bursty", |_, noise| if noise.next() < 20 { 100_000_000 } else { 1_000_000 }),
    ("empty", |_, _| 0),
];

/// How often of a hundred the truth lay in the band, and the average error of the expected value in per mille of the truth.
fn backtest(shape: Shape) -> (usize, i64) {
    let series: Vec<(i64, Vec<i64>)> = (0..20_u64)
        .map(|seed| {
            let mut noise = Noise(seed * 7_919 + 13);
            (0, (0..24 * 7 * 30).map(|hour| shape(hour, &mut noise)).collect())
        })
        .collect();
    let (mut inside, mut asked, mut wrong) = (0, 0, 0_i64);
    for (_, hours) in &series {
        // A month of thirty days begins in week 13; it is asked after 3, 9, 15, 21 and 27 days.
        for days in [3, 9, 15, 21, 27] {
            let (start, end) = (24 * 7 * 13_usize, 24 * (7 * 13 + 30_usize));
            let now = start + days * 24;
            let amounts: Vec<Nanos> =
                hours[now - PROFILE_HOURS_MAX.min(now)..now].iter().map(|amount| Nanos::new(*amount)).collect();
            let hour = |number: usize| Timestamp::from_seconds(i64::try_from(number).unwrap() * 3_600);
            let history = History::of_hours(Hour::of(hour(now - amounts.len())), &amounts);
            let settled = Nanos::new(hours[start..now].iter().sum());
            let window = Interval { starts_at: hour(start), ends_at: hour(end) };
            let observed = Observed { window, now: hour(now), settled, committed: Nanos::ZERO, history: &history };
            let forecast = observed.forecast().unwrap().expect("enough");
            let truth: i64 = hours[start..end].iter().sum();
            asked += 1;
            inside += usize::from((forecast.low.get()..=forecast.high.get()).contains(&truth));
            wrong += if truth == 0 { forecast.expected.get() } else { (forecast.expected.get() - truth).abs() * 1_000 / truth };
        }
    }
    (inside * 100 / asked, wrong / i64::try_from(asked).unwrap())
}

#[test]
fn the_band_holds_the_truth_as_often_as_it_says() {
    let measured: Vec<(&str, usize, i64)> = SHAPES
        .iter()
        .map(|(name, shape)| {
            let (inside, error) = backtest(*shape);
            (*name, inside, error)
        })
        .collect();
    // Least share of truths inside of the band in percent, and most of the average error in per mille.
    let promised =
        [("constant", 90, 5), ("week", 90, 20), ("growth", 90, 25), ("step", 90, 20), ("bursty", 90, 190), ("empty", 100, 0)];
    for ((name, inside, error), (_, least, most)) in measured.iter().zip(promised) {
        assert!(*inside >= least && *error <= most, "{name}: {inside} percent inside, {error} per mille wrong; all: {measured:?}");
    }
}

proptest! {
    #[test]
    fn a_forecast_is_in_order_above_what_is_fixed_monotone_and_scales(
        amounts in prop::collection::vec(0..1_000_000_000_i64, 0..700),
        settled in 0..1_000_000_000_000_i64,
        more in 0..1_000_000_000_i64,
        committed in 0..1_000_000_000_000_i64,
        hour_of_month in 0..720_i64,
        k in 1..1_000_i64,
    ) {
        let window = month_of(at("2026-06-01T00:00:00Z"));
        let now = window.starts_at.plus(DurationMs::from_hours(hour_of_month));
        let first = Hour::of(now).minus(i64::try_from(amounts.len()).unwrap());
        let times = |k: i64| -> Vec<Nanos> { amounts.iter().map(|amount| Nanos::new(amount * k)).collect() };
        let ask = |settled: i64, k: i64| {
            let history = History::of_hours(first, &times(k));
            let (settled, committed) = (Nanos::new(settled * k), Nanos::new(committed * k));
            Observed { window, now, settled, committed, history: &history }.forecast().unwrap()
        };
        let forecast = ask(settled, 1);
        prop_assert_eq!(forecast.is_some(), ask(settled, k).is_some());
        if let (Some(one), Some(many)) = (forecast, ask(settled, k)) {
            prop_assert!(one.low <= one.expected && one.expected <= one.high);
            prop_assert!(one.low.get() >= settled + committed);
            prop_assert_eq!(one.method, many.method);
            for (one, many) in [(one.low, many.low), (one.expected, many.expected), (one.high, many.high)] {
                prop_assert!((one.get() * k - many.get()).abs() <= 4 * k, "{} times {k} is not {}", one.get(), many.get());
            }
            let later = ask(settled + more, 1).expect("more is not less to go by");
            prop_assert!(later.low >= one.low && later.expected >= one.expected && later.high >= one.high);
        }
    }
}
