//! The clock of a demonstration: it runs at a factor of the machine's, and never goes back.
//!
//! It may not pass an instant that was not written down before, so a process that dies leaves none behind that its books
//! do not know. If nothing can be written, time stands still.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sublet_cloud::demonstration::{DemonstrationTime, note_demonstration_time};
use sublet_core::{Clock, DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_store::Store;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often it is written down what may be reached, and how much real time that is good for.
const PERIOD: Duration = Duration::from_millis(500);
const AHEAD: DurationMs = DurationMs::from_seconds(5);
/// For so long a demonstration's time runs fast; then as the world's.
const FAST_FOR: DurationMs = DurationMs::from_hours(366 * 24);

/// How many times faster than the world's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Speed(i64);

impl Speed {
    /// A day in ten minutes.
    pub const DEFAULT: Self = Self(144);
    const MAX: i64 = 600;

    /// What so much real time is on such a clock.
    pub const fn of(self, real: DurationMs) -> DurationMs {
        DurationMs::from_millis(real.millis().saturating_mul(self.0))
    }

    /// How long a day takes.
    pub const fn day_seconds(self) -> i64 {
        86_400_i64.div_euclid(self.0)
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Speed {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let speed = text.parse().ok().filter(|speed| (1..=Self::MAX).contains(speed));
        speed.map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            Error::new(ErrorCode::Usage, format!("'{shown}' is not a whole number from 1 to {}", Self::MAX))
        })
    }
}

pub struct FastClock {
    machine: Arc<dyn Clock>,
    speed: Speed,
    began: Timestamp,
    /// What the machine's clock said when this one said `from`.
    opened: Timestamp,
    from: Timestamp,
    /// In microseconds: what may be reached, and what was shown.
    limit: AtomicI64,
    shown: AtomicI64,
}

impl FastClock {
    /// Goes on from what was reached.
    pub fn new(machine: Arc<dyn Clock>, speed: Speed, time: DemonstrationTime) -> Self {
        let reached = time.reached.micros();
        let (opened, limit, shown) = (machine.now(), AtomicI64::new(reached), AtomicI64::new(reached));
        Self { machine, speed, began: time.began, opened, from: time.reached, limit, shown }
    }

    pub fn speed(&self) -> Speed {
        self.speed
    }

    pub fn began(&self) -> Timestamp {
        self.began
    }

    /// What it says when the machine's clock says this, if nothing keeps it.
    fn at(&self, real: Timestamp) -> i64 {
        let elapsed = real.micros().saturating_sub(self.opened.micros()).max(0);
        let room = self.began.plus(FAST_FOR).micros().saturating_sub(self.from.micros()).max(0);
        let fast = elapsed.min(room.div_euclid(self.speed.0));
        self.from.micros().saturating_add(fast.saturating_mul(self.speed.0)).saturating_add(elapsed - fast)
    }

    fn next_limit(&self) -> DemonstrationTime {
        let reached = self.at(self.machine.now().plus(AHEAD));
        DemonstrationTime { began: self.began, reached: Timestamp::from_micros(reached.max(self.limit.load(Ordering::Acquire))) }
    }

    /// Writes down what may be reached soon, and lets it be reached.
    pub async fn prolong(&self, store: &Store) -> Result<()> {
        let next = self.next_limit();
        note_demonstration_time(store, next).await?;
        self.limit.store(next.reached.micros(), Ordering::Release);
        Ok(())
    }

    /// Keeps it going until `stop` says so.
    pub async fn run(&self, store: &Store, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            if let Err(error) = self.prolong(store).await {
                tracing::warn!(?error, "it cannot be written down how far time is; it stands still until it can");
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Stops it, and writes down where: the next start goes on from here.
    pub async fn stop(&self, store: &Store) {
        let now = self.now();
        self.limit.store(now.micros(), Ordering::Release);
        let time = DemonstrationTime { began: self.began, reached: self.now() };
        if let Err(error) = note_demonstration_time(store, time).await {
            tracing::warn!(?error, "where time stopped is not written down; the next start is a little later");
        }
    }
}

impl fmt::Display for FastClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { speed, .. } = self;
        let (now, day) = (self.now(), speed.day_seconds());
        write!(f, "all of it is simulated; its time runs {speed} times as fast, a day in {day} s; it is {now}")
    }
}

impl Clock for FastClock {
    fn now(&self) -> Timestamp {
        let now = self.at(self.machine.now()).min(self.limit.load(Ordering::Acquire));
        Timestamp::from_micros(self.shown.fetch_max(now, Ordering::AcqRel).max(now))
    }
}

/// Counts on from the system's clock as it was once: nobody sets it, and it rests while the machine does.
pub struct SteadyClock {
    start: Instant,
    from: Timestamp,
}

impl SteadyClock {
    pub fn new(from: Timestamp) -> Self {
        Self { start: Instant::now(), from }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.from.plus(DurationMs::from_millis(i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_seconds(1_773_576_000);

    #[derive(Default)]
    struct Machine(AtomicI64);

    impl Clock for Machine {
        fn now(&self) -> Timestamp {
            NOON.plus(DurationMs::from_millis(self.0.load(Ordering::Acquire)))
        }
    }

    fn clock(speed: i64) -> (Arc<Machine>, FastClock) {
        let machine = Arc::new(Machine::default());
        let time = DemonstrationTime { began: NOON, reached: NOON };
        let clock = FastClock::new(Arc::<Machine>::clone(&machine), Speed(speed), time);
        (machine, clock)
    }

    fn prolong(clock: &FastClock) {
        clock.limit.store(clock.next_limit().reached.micros(), Ordering::Release);
    }

    #[test]
    fn it_is_as_fast_as_asked_and_never_passes_what_was_written_down() {
        let (machine, clock) = clock(100);
        let seconds = |clock: &FastClock| clock.now().since(NOON).millis() / 1_000;
        machine.0.store(1_000, Ordering::Release);
        assert_eq!(seconds(&clock), 0, "nothing was written down");
        prolong(&clock);
        assert_eq!(seconds(&clock), 100);
        machine.0.store(60_000, Ordering::Release);
        assert_eq!(seconds(&clock), 600, "one second and five were written down");
        prolong(&clock);
        assert_eq!(seconds(&clock), 6_000);
    }

    #[test]
    fn it_never_goes_back_though_the_machine_does() {
        let (machine, clock) = clock(10);
        prolong(&clock);
        machine.0.store(4_000, Ordering::Release);
        let before = clock.now();
        machine.0.store(1_000, Ordering::Release);
        assert_eq!(clock.now(), before);
        prolong(&clock);
        assert!(clock.next_limit().reached >= before);
    }

    #[test]
    fn after_a_year_it_runs_as_the_world_does() {
        let (machine, clock) = clock(600);
        let year = FAST_FOR.millis();
        machine.0.store(year / 600 + 7_000, Ordering::Release);
        prolong(&clock);
        assert_eq!(clock.now().since(NOON).millis(), year + 7_000);
    }

    #[test]
    fn a_speed_is_a_whole_number_in_its_bounds() {
        for text in ["0", "-1", "601", "fast", "1.5", ""] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
        assert_eq!("144".parse::<Speed>().unwrap(), Speed::DEFAULT);
        assert_eq!(Speed::DEFAULT.day_seconds(), 600);
    }
}
