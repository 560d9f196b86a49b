//! One clock for all processes on one database: the database's.
//!
//! Claims, expiries, periods and prices in force compare instants that different processes wrote. Their machines'
//! clocks may differ by any amount, so no process uses its own: it asks the database what time it is, and counts on
//! from there with a clock that nobody sets. It asks again all the time; an answer moves the clock only if the two
//! differ by more than the question took, and no further than it must, so it stays as near as the best answer was.
//! That matters: a question that waited for a connection was answered at the very end of its time.
//!
//! Deliberately absent: SQLite. Its only process has the system's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sublet_core::{Clock, DurationMs, Result, Timestamp};
use sublet_store::Store;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::real::SystemClock;

/// How often the database is asked.
const PERIOD: Duration = Duration::from_millis(500);
/// How often it is asked at the start: the quickest answer counts.
const FIRST_QUESTIONS: u32 = 5;
/// A machine's clock that is wrong by more is worth a line in the log.
const WORTH_SAYING: DurationMs = DurationMs::from_seconds(1);

/// The system's clock, set wrong by a fixed amount: for tests and diagnosis.
struct SkewedClock {
    skew: DurationMs,
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(self.skew)
    }
}

/// Counts on from the database's clock.
pub struct SharedClock {
    start: Instant,
    /// What the database's clock said at `start`, in microseconds.
    start_micros: AtomicI64,
}

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }
}

impl SharedClock {
    fn new(start: Instant, said: Timestamp) -> Self {
        Self { start, start_micros: AtomicI64::new(said.micros()) }
    }

    fn at(&self, instant: Instant) -> Timestamp {
        let since = i64::try_from(instant.saturating_duration_since(self.start).as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(self.start_micros.load(Ordering::Acquire).saturating_add(since))
    }

    /// Takes in what the database said between two instants. By how much the clock was moved, in microseconds.
    fn hear(&self, said: Timestamp, asked: Instant, answered: Instant) -> i64 {
        let (said, earliest, latest) = (said.micros(), self.at(asked).micros(), self.at(answered).micros());
        let off = said.saturating_sub(said.clamp(earliest, latest.max(earliest)));
        if off != 0 {
            self.start_micros.fetch_add(off, Ordering::AcqRel);
        }
        off
    }

    async fn ask(&self, store: &Store) -> Result<i64> {
        let asked = Instant::now();
        let said = store.now().await?;
        Ok(said.map_or(0, |said| self.hear(said, asked, Instant::now())))
    }

    /// Asks until `stop` says so. While the database is away the clock counts on.
    pub async fn run(&self, store: &Store, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            match self.ask(store).await {
                Ok(off) if off.unsigned_abs() / 1_000 >= WORTH_SAYING.millis().unsigned_abs() => {
                    tracing::warn!(off_ms = off / 1_000, "the database's clock was set; this process follows it");
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(?error, "the database's clock could not be read; it is asked again"),
            }
        }
    }
}

/// The clock of this process, and what keeps it right if it is shared.
pub struct ProcessClock {
    pub clock: Arc<dyn Clock>,
    pub shared: Option<Arc<SharedClock>>,
}

impl ProcessClock {
    /// `skew` sets the machine's clock wrong, which must not matter where the database has one.
    pub async fn open(store: &Store, skew: DurationMs) -> Result<Self> {
        let machine: Arc<dyn Clock> = if skew == DurationMs::ZERO { Arc::new(SystemClock) } else { Arc::new(SkewedClock { skew }) };
        let (asked, here) = (Instant::now(), machine.now());
        let Some(said) = store.now().await? else { return Ok(Self { clock: machine, shared: None }) };
        let off = said.since(here);
        if off.millis().unsigned_abs() >= WORTH_SAYING.millis().unsigned_abs() {
            tracing::warn!(off_ms = off.millis(), "this machine's clock is not the database's; the database's is used");
        }
        let shared = Arc::new(SharedClock::new(asked, said));
        for _ in 0..FIRST_QUESTIONS {
            shared.ask(store).await?;
        }
        let clock: Arc<dyn Clock> = Arc::<SharedClock>::clone(&shared);
        Ok(Self { clock, shared: Some(shared) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_seconds(1_773_576_000);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn only_an_answer_that_cannot_be_right_moves_the_clock() {
        let start = Instant::now();
        let clock = SharedClock::new(start, NOON);
        for (said_ms, asked_ms, answered_ms, moved_ms) in [
            // Between the two instants: nothing is known better.
            (1_000, 1_000, 1_100, 0),
            (2_049, 2_000, 2_100, 0),
            // Further off than the question took: as far as it must be.
            (3_060, 3_000, 3_002, 58),
            (3_958, 4_000, 4_000, -100),
            // A question that waited for all but a moment of its time is answered at the end of it.
            (8_260, 6_000, 8_300, 2),
            // An hour off, however slow the answer.
            (3_610_000, 10_000, 11_000, 3_599_040),
        ] {
            let said = NOON.plus(DurationMs::from_millis(said_ms));
            let moved = clock.hear(said, start + millis(asked_ms), start + millis(answered_ms));
            assert_eq!(moved / 1_000, moved_ms, "said {said_ms}");
        }
    }

    #[test]
    fn time_goes_on_between_two_answers() {
        let start = Instant::now();
        let clock = SharedClock::new(start, NOON);
        assert_eq!(clock.at(start + millis(250)), NOON.plus(DurationMs::from_millis(250)));
    }
}
