//! Schedules over whole years, looked at often, seldom and not at all.

use proptest::prelude::*;
use sublet_core::DurationMs;

use super::*;

const HOUR: DurationMs = DurationMs::from_hours(1);

fn month(text: &str) -> PeriodKey {
    text.parse().expect("a month")
}

fn calendar(zone: &str) -> BillingCalendar {
    BillingCalendar::new(zone).expect("a zone")
}

fn fresh(next: &str) -> ScheduleProgress {
    ScheduleProgress { next: Some(month(next)), open: None }
}

/// All that one look finds due, in its order.
fn look(progress: &mut ScheduleProgress, cadence: Cadence, at: (&BillingCalendar, Timestamp), closed_through: &str) -> Vec<String> {
    let mut done = Vec::new();
    loop {
        let is_closed = progress.next.is_some_and(|next| next <= month(closed_through));
        let Some(due) = plan_export(progress, cadence, at, is_closed).expect("a plan") else { return done };
        done.push(format!(
            "{} {}",
            due.period.map_or_else(|| "all".to_owned(), |period| period.to_string()),
            due.coverage.as_str()
        ));
        *progress = progress.after(&due, at).expect("progress");
        assert!(done.len() < 100, "a look ends: {done:?}");
    }
}

#[test]
fn an_open_month_is_written_once_a_day_and_once_more_when_it_is_closed() {
    let berlin = calendar("Europe/Berlin");
    let april = berlin.period(month("2026-04")).expect("a month").interval.starts_at;
    let mut progress = fresh("2026-03");
    for (hours, closed_through, expected) in [
        (-30, "2026-02", vec!["2026-03 open"]),
        (-29, "2026-02", vec![]),
        // The last day, and then two months that are open.
        (-1, "2026-02", vec!["2026-03 open"]),
        (0, "2026-02", vec!["2026-03 open", "2026-04 open"]),
        (1, "2026-03", vec!["2026-03 closed"]),
        (2, "2026-03", vec![]),
        (24, "2026-03", vec!["2026-04 open"]),
    ] {
        let now = april.plus(DurationMs::from_millis(HOUR.millis() * hours));
        assert_eq!(look(&mut progress, Cadence::Daily, (&berlin, now), closed_through), expected, "{hours} h");
    }
}

#[test]
fn a_monthly_schedule_writes_nothing_that_is_open() {
    let utc = calendar("UTC");
    let june = utc.period(month("2026-06")).expect("a month").interval.starts_at;
    let mut progress = fresh("2026-03");
    assert_eq!(look(&mut progress, Cadence::Monthly, (&utc, june), "2026-02"), Vec::<String>::new());
    assert_eq!(look(&mut progress, Cadence::Monthly, (&utc, june), "2026-04"), ["2026-03 closed", "2026-04 closed"]);
    assert_eq!(look(&mut progress, Cadence::Monthly, (&utc, june), "2026-04"), Vec::<String>::new());
}

#[test]
fn what_has_no_months_is_written_once_a_day() {
    let utc = calendar("UTC");
    let june = utc.period(month("2026-06")).expect("a month").interval.starts_at;
    let mut progress = ScheduleProgress { next: None, open: None };
    for (hours, expected) in [(0, 1), (1, 0), (23, 0), (24, 1), (24 * 9, 1)] {
        let now = june.plus(DurationMs::from_hours(hours));
        assert_eq!(look(&mut progress, Cadence::Daily, (&utc, now), "2026-05").len(), expected, "{hours} h");
    }
}

proptest! {
    /// However irregular the looks and the closings are, each month is closed once, in order, and never open after that.
    #[test]
    fn every_month_is_written_as_closed_once_and_in_order(
        zone in prop::sample::select(vec!["UTC", "Pacific/Kiritimati", "America/St_Johns", "Africa/Casablanca", "Asia/Kolkata"]),
        daily in any::<bool>(),
        looks in prop::collection::vec((1_i64..2_000, 0_u32..3), 1..60),
    ) {
        let (calendar, cadence) = (calendar(zone), if daily { Cadence::Daily } else { Cadence::Monthly });
        let mut now = calendar.period(month("2024-01")).expect("a month").interval.starts_at;
        let mut progress = fresh("2024-01");
        let (mut written, mut closed_through) = (Vec::new(), month("2023-12"));
        for (hours, closing) in looks {
            now = now.plus(DurationMs::from_hours(hours));
            let current = calendar.period_at(now).expect("a period").key;
            // As far as months are over, some of them are closed.
            let newest = current.minus(1).expect("a month");
            closed_through = closed_through.plus(closing).expect("a month").min(newest).max(closed_through);
            written.extend(look(&mut progress, cadence, (&calendar, now), &closed_through.to_string()));
        }
        let closed: Vec<&String> = written.iter().filter(|name| name.ends_with("closed")).collect();
        let expected: Vec<String> =
            (0..closed_through.since(month("2024-01")).map_or(0, |months| months + 1))
                .map(|months| format!("{} closed", month("2024-01").plus(months).expect("a month")))
                .collect();
        prop_assert_eq!(closed, expected.iter().collect::<Vec<_>>());
        for (place, name) in written.iter().enumerate().filter(|(_, name)| name.ends_with("open")) {
            let closing = name.replace("open", "closed");
            prop_assert!(!written[..place].contains(&closing), "{} after it was closed", name);
            prop_assert!(daily);
        }
    }
}

#[test]
fn what_is_asked_for_is_what_files_are_called() {
    for (dataset, version, format, expected) in [
        ("focus", None, None, Ok("focus-1.2-2026-03.csv")),
        ("focus", Some("1.4"), Some("parquet"), Ok("focus-1.4-2026-03.parquet")),
        ("charges", None, Some("csv"), Ok("charges-2026-03.csv")),
        ("journal", None, None, Ok("journal-2026-03.beancount")),
        ("journal", None, Some("hledger"), Ok("journal-2026-03.hledger")),
        ("invoice-detail", None, None, Ok("invoice-detail-1.4-2026-03.csv")),
        ("billing-period", Some("1.4"), Some("parquet"), Ok("billing-period-1.4-2026-03.parquet")),
        ("contract-commitment", Some("1.2"), None, Err("version")),
        ("focus", Some("1.3"), None, Err("version")),
        ("focus", None, Some("beancount"), Err("format")),
        ("journal", None, Some("csv"), Err("format")),
        ("charges", Some("1.2"), None, Err("version")),
        ("invoices", None, None, Err("dataset")),
    ] {
        let content = ExportContent::from_parts(dataset, version, format);
        let found = content.map(|content| content.file_name(Some(month("2026-03"))));
        let found = found.map_err(|error| error.param_name().unwrap_or_default().to_owned());
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{dataset} {version:?} {format:?}");
    }
    let content = ExportContent::from_parts("focus", None, None).expect("a content");
    assert_eq!(content.manifest_name(Some(month("2026-03"))), "focus-1.2-2026-03.csv.manifest.json");
}
