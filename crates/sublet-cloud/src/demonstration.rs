//! Demonstrations: clouds whose time runs faster than the world's.
//!
//! Such a cloud is one from its first start to its end: its books have instants that have not come yet. What the clock
//! may reach is written down before it gets there, so it never goes back, whenever the process dies.
//!
//! Deliberately absent: the clock itself, and who lives in it; both are the binary's.

use sublet_core::{Error, ErrorCode, Result, Timestamp};
use sublet_store::{Store, Tx, organization, setting};

/// The setting that says when a demonstration's time began and what it may have reached, in microseconds.
const TIME: &str = "demonstration.time_us";

/// The time of a demonstration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DemonstrationTime {
    pub began: Timestamp,
    /// No clock of it was ever later.
    pub reached: Timestamp,
}

/// Makes sure that a cloud is or is not a demonstration, as it was from the start, and says what time it is in it: `now`
/// at its first start, `None` if it is none.
pub async fn demonstration_of(store: &Store, is_wanted: bool, now: Timestamp) -> Result<Option<DemonstrationTime>> {
    store.write((is_wanted, now), |(is_wanted, now), tx| Box::pin(open(tx, *is_wanted, *now))).await
}

/// Writes down what the clock may reach from now on.
pub async fn note_demonstration_time(store: &Store, time: DemonstrationTime) -> Result<()> {
    store.write(time, |time, tx| Box::pin(set(tx, *time))).await
}

async fn open(tx: &mut Tx, is_wanted: bool, now: Timestamp) -> Result<Option<DemonstrationTime>> {
    match (find(tx).await?, is_wanted) {
        (Some(time), true) => Ok(Some(time)),
        (None, false) => Ok(None),
        (Some(_), false) => {
            Err(Error::new(ErrorCode::Conflict, "this cloud is a demonstration: its time runs fast, and its books follow it")
                .alternative("start it with --demo, or another cloud in a new data directory"))
        }
        (None, true) if organization::exist(tx).await? => {
            Err(Error::new(ErrorCode::Conflict, "this cloud's time is real, or a test's, and its books follow it")
                .alternative("start a demonstration in a new data directory"))
        }
        (None, true) => {
            let time = DemonstrationTime { began: now, reached: now };
            set(tx, time).await?;
            Ok(Some(time))
        }
    }
}

pub(crate) async fn find(tx: &mut Tx) -> Result<Option<DemonstrationTime>> {
    let Some(text) = setting::find(tx, TIME).await? else { return Ok(None) };
    let parsed = text.split_once(' ').and_then(|(began, reached)| Some((began.parse().ok()?, reached.parse().ok()?)));
    let (began, reached) = parsed.ok_or_else(|| Error::internal(format!("the setting {TIME} is '{text}'")))?;
    Ok(Some(DemonstrationTime { began: Timestamp::from_micros(began), reached: Timestamp::from_micros(reached) }))
}

async fn set(tx: &mut Tx, time: DemonstrationTime) -> Result<()> {
    setting::set(tx, TIME, &format!("{} {}", time.began.micros(), time.reached.micros())).await
}
