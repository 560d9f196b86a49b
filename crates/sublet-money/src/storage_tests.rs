use proptest::prelude::*;

use super::*;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn span(starts_at: i64, ends_at: i64) -> Interval {
    Interval { starts_at: at(starts_at), ends_at: at(ends_at) }
}

fn kept(bytes: i64, starts_at: i64, ends_at: i64) -> KeptBytes {
    KeptBytes { bytes: Bytes::new(bytes), interval: span(starts_at, ends_at) }
}

fn byte_hours(parts: &[Interval], files: &[KeptBytes]) -> Vec<i64> {
    let mut time = ByteTime::new(parts.to_vec()).unwrap();
    files.iter().for_each(|file| time.add(*file).unwrap());
    time.quantities().unwrap().into_iter().map(Quantity::get).collect()
}

const MINUTE: i64 = 60_000_000;
const ONE: i64 = HOUR_MICROS;

#[test]
fn files_count_for_their_part_of_an_hour_and_are_rounded_down_together() {
    let hours = [span(0, ONE), span(ONE, 2 * ONE)];
    for (files, expected) in [
        (vec![], [0, 0]),
        (vec![kept(1_000, 0, 2 * ONE)], [1_000, 1_000]),
        (vec![kept(1_000, -ONE, 5 * ONE)], [1_000, 1_000]),
        (vec![kept(60, 30 * MINUTE, ONE)], [30, 0]),
        (vec![kept(60, 30 * MINUTE, ONE + 15 * MINUTE)], [30, 15]),
        // Two halves of a byte-hour are one, and one alone is nothing.
        (vec![kept(1, 0, ONE / 2)], [0, 0]),
        (vec![kept(1, 0, ONE / 2), kept(1, ONE / 2, ONE)], [1, 0]),
        (vec![kept(7, 0, ONE - 1)], [6, 0]),
        (vec![kept(7, 3 * ONE, 4 * ONE)], [0, 0]),
        (vec![kept(i64::MAX, 0, 2 * ONE)], [i64::MAX, i64::MAX]),
    ] {
        assert_eq!(byte_hours(&hours, &files), expected, "{files:?}");
    }
}

#[test]
fn more_than_is_counted_and_parts_that_overlap_are_refused() {
    let mut time = ByteTime::new(vec![span(0, ONE)]).unwrap();
    for _ in 0..2 {
        time.add(kept(i64::MAX, 0, ONE)).unwrap();
    }
    assert_eq!(time.quantities().unwrap_err().code(), ErrorCode::AmountOverflow);
    for parts in [vec![span(0, 0)], vec![span(0, 2), span(1, 3)], vec![span(2, 3), span(0, 1)]] {
        assert!(ByteTime::new(parts).is_err());
    }
}

#[test]
fn an_hour_begins_where_the_clock_says() {
    for (instant, hour) in [(0, 0), (ONE - 1, 0), (ONE, ONE), (-1, -ONE)] {
        assert_eq!(hour_of(at(instant)), at(hour));
    }
    assert!(is_free(span(0, MINUTE - 1_000)) && !is_free(span(0, MINUTE)));
}

/// Cuts a span at some places.
fn tiles(end: i64, cuts: &[i64]) -> Vec<Interval> {
    let mut places: Vec<i64> = cuts.iter().map(|cut| cut.rem_euclid(end)).chain([0, end]).collect();
    places.sort_unstable();
    places.dedup();
    places.windows(2).map(|pair| span(pair[0], pair[1])).collect()
}

proptest! {
    #[test]
    fn parts_add_up_to_the_whole_but_for_less_than_one_each_and_never_to_more(
        files in proptest::collection::vec((0_i64..1 << 40, -ONE..30 * ONE, 0_i64..40 * ONE), 0..20),
        cuts in proptest::collection::vec(0_i64..24 * ONE, 0..30),
    ) {
        let end = 24 * ONE;
        let files: Vec<KeptBytes> = files.iter().map(|(bytes, from, life)| kept(*bytes, *from, from + life)).collect();
        let exact: i128 = files
            .iter()
            .map(|file| {
                let (from, until) = (file.interval.starts_at.micros().max(0), file.interval.ends_at.micros().min(end));
                i128::from(file.bytes.get()) * i128::from((until - from).max(0))
            })
            .sum();
        let parts = tiles(end, &cuts);
        let counted: i128 = byte_hours(&parts, &files).into_iter().map(i128::from).sum();
        let short = exact - counted * i128::from(HOUR_MICROS);
        prop_assert!(short >= 0, "more was counted than kept");
        prop_assert!(short < i128::from(HOUR_MICROS) * i128::try_from(parts.len()).unwrap(), "more than rounding is missing");
    }

    #[test]
    fn the_order_of_files_does_not_matter_and_one_more_never_takes_anything_off(
        files in proptest::collection::vec((0_i64..1 << 40, 0_i64..24 * ONE, 0_i64..24 * ONE), 1..20),
        cuts in proptest::collection::vec(0_i64..24 * ONE, 0..30),
    ) {
        let parts = tiles(24 * ONE, &cuts);
        let files: Vec<KeptBytes> = files.iter().map(|(bytes, from, life)| kept(*bytes, *from, from + life)).collect();
        let mut turned = files.clone();
        turned.reverse();
        let all = byte_hours(&parts, &files);
        prop_assert_eq!(&all, &byte_hours(&parts, &turned));
        let fewer = byte_hours(&parts, &files[1..]);
        prop_assert!(fewer.iter().zip(&all).all(|(fewer, all)| fewer <= all));
    }
}
