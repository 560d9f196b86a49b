//! Instants as `sacct` prints them: local time without its zone, or whatever `SLURM_TIME_FORMAT` says.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use sublet_core::error::{Error, ErrorCode, Result};

use super::super::csv::{shown, wrong};

/// Longest fraction of a name that an error repeats, in characters.
const NAME_MAX: usize = 60;
/// Seconds before this, 1990, count from the beginning of a file.
const CALENDAR_S: i64 = 631_152_000;

/// The zone in which the accounting was printed.
#[derive(Clone, Debug)]
pub struct Clock {
    name: String,
    zone: TimeZone,
}

/// An instant; where clocks show an hour twice, both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Instant {
    pub(super) first_s: i64,
    pub(super) second_s: i64,
}

impl Instant {
    fn exact(at_s: i64) -> Self {
        Self { first_s: at_s, second_s: at_s }
    }
}

impl Clock {
    /// # Errors
    /// [`ErrorCode::Usage`] if there is no such zone.
    pub fn new(name: &str) -> Result<Self> {
        let zone = TimeZone::get(name).map_err(|_| {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
            Error::new(ErrorCode::Usage, format!("there is no time zone '{shown}'"))
                .alternative("use a name of the IANA database, such as Europe/Berlin or UTC")
        })?;
        Ok(Self { name: name.to_owned(), zone })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The time in UTC, with its zone; none of seconds that count from no calendar.
    pub fn utc(at_s: i64) -> Option<String> {
        let time = jiff::Timestamp::from_second(at_s).ok().filter(|_| at_s >= CALENDAR_S)?;
        Some(time.to_string())
    }

    /// Seconds of an instant that is given by hand, the first if clocks showed it twice.
    ///
    /// # Errors
    /// [`ErrorCode::Usage`] if it is none.
    pub fn seconds(&self, text: &str) -> Result<i64> {
        let found = self.read(text).map_err(|message| Error::new(ErrorCode::Usage, message));
        let unknown = || Error::new(ErrorCode::Usage, format!("{} is no instant", shown(text)));
        let remedy = |error: Error| error.alternative("give it as 2026-01-31 or 2026-01-31T00:00:00, or in seconds since 1970");
        found.map_err(remedy)?.ok_or_else(|| remedy(unknown())).map(|instant| instant.first_s)
    }

    /// The instant of a column; none where `sacct` knows none.
    pub(super) fn column(&self, line: usize, name: &str, text: &str) -> Result<Option<Instant>> {
        self.read(text).map_err(|message| {
            wrong(
                line,
                &format!("{name}: {message}"),
                &format!(
                    "print times in UTC: TZ=UTC sacct …, without SLURM_TIME_FORMAT; or say with --time-zone where they are of (now {})",
                    self.name
                ),
            )
        })
    }

    fn read(&self, text: &str) -> Result<Option<Instant>, String> {
        if matches!(text, "" | "Unknown" | "None") {
            return Ok(None);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // Beyond that a civil date would not have four digits of a year.
            let seconds = text.parse::<i64>().ok().filter(|seconds| *seconds < 253_402_300_800);
            return seconds.map(|seconds| Some(Instant::exact(seconds))).ok_or_else(|| format!("{} is no instant", shown(text)));
        }
        let date: DateTime = is_plain(text)
            .then(|| text.parse().ok())
            .flatten()
            .ok_or_else(|| format!("{} is no time such as 2026-01-31T13:45:00", shown(text)))?;
        let instant = match self.zone.to_ambiguous_timestamp(date).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(date).map(|at| Instant::exact(at.as_second())),
            AmbiguousOffset::Fold { before, after } => before.to_timestamp(date).and_then(|first| {
                let second = after.to_timestamp(date)?;
                Ok(Instant { first_s: first.as_second(), second_s: second.as_second() })
            }),
            AmbiguousOffset::Gap { .. } => {
                return Err(format!("no clock in {} showed {}", self.name, shown(text)));
            }
        };
        instant.map(Some).map_err(|_| format!("{} is beyond all calendars", shown(text)))
    }
}

/// A date, or a date and a time, and nothing that would say another zone.
fn is_plain(text: &str) -> bool {
    let pattern = b"dddd-dd-ddTdd:dd:dd";
    (text.len() == 10 || text.len() == pattern.len())
        && text.bytes().zip(pattern).all(|(byte, wanted)| if *wanted == b'd' { byte.is_ascii_digit() } else { byte == *wanted })
}

/// Seconds of `[days-][hours:]minutes:seconds[.fraction]`, or of a plain number of them.
pub(super) fn elapsed_s(text: &str) -> Option<i64> {
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (days.parse::<u32>().ok()?, clock),
        None => (0, text),
    };
    let clock = clock.split_once('.').map_or(clock, |(whole, _)| whole);
    let mut seconds = 0_i64;
    for part in clock.split(':') {
        seconds = seconds.checked_mul(60)?.checked_add(i64::from(part.parse::<u32>().ok()?))?;
    }
    seconds.checked_add(i64::from(days) * 86_400)
}

/// When a row began and ended, each as `sacct` printed it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printed {
    pub(super) eligible: Option<Instant>,
    pub(super) start: Option<Instant>,
    pub(super) end: Option<Instant>,
    /// How long it ran.
    pub(super) elapsed_s: Option<i64>,
}

/// When it did, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Resolved {
    pub(super) eligible_s: Option<i64>,
    pub(super) start_s: Option<i64>,
    pub(super) end_s: Option<i64>,
    /// An hour was shown twice, and nothing said which was meant.
    pub(super) is_guess: bool,
}

impl Printed {
    /// Decides for each instant that clocks showed twice: the order of events and the time that the
    /// job ran say which it was; what they leave open is the first. None if it ends before it begins.
    pub(super) fn resolve(&self) -> Option<Resolved> {
        let mut possible = Vec::new();
        for start_s in both(self.start) {
            for end_s in both(self.end) {
                if start_s.zip(end_s).is_none_or(|(start, end)| start <= end) {
                    possible.push((start_s, end_s));
                }
            }
        }
        let ran = |(start, end): &(Option<i64>, Option<i64>)| start.zip(*end).map(|(start, end)| end - start);
        keep(&mut possible, |found| self.elapsed_s.is_some() && ran(found) == self.elapsed_s);
        keep(&mut possible, |(start, _)| self.eligible.zip(*start).is_none_or(|(eligible, start)| eligible.first_s <= start));
        let (start_s, end_s) = *possible.first()?;
        let eligible = both(self.eligible).into_iter().flatten();
        // Waiting is not made up: it began as late as it can have.
        let latest = eligible.filter(|at| start_s.is_some_and(|start| *at <= start)).max();
        let eligible_s = latest.or(self.eligible.map(|instant| instant.first_s));
        Some(Resolved { eligible_s, start_s, end_s, is_guess: possible.len() > 1 })
    }
}

fn both(instant: Option<Instant>) -> Vec<Option<i64>> {
    match instant {
        None => vec![None],
        Some(Instant { first_s, second_s }) if first_s == second_s => vec![Some(first_s)],
        Some(Instant { first_s, second_s }) => vec![Some(first_s), Some(second_s)],
    }
}

/// Drops what does not fit, unless nothing would be left.
fn keep<T>(possible: &mut Vec<T>, fits: impl Fn(&T) -> bool) {
    if possible.iter().any(&fits) {
        possible.retain(fits);
    }
}
