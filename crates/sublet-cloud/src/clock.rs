//! The test clock: a cloud whose time an operator can put forward, so that months of billing pass in seconds.
//!
//! Such a cloud is one from its first start to its end: its books have instants that have not come yet. Time goes on
//! between two jumps as it always does, and never back.
//!
//! Deliberately absent: jumps while something runs on a lease. It would have run, and would be charged, for a time
//! that nobody saw pass.

use std::sync::Arc;

use sublet_core::delivery::DeliveryPort;
use sublet_core::webhook::WebhookPort;
use sublet_core::{Clock, DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_money::focus::DEFAULT_SELLER;
use sublet_store::{Store, Tx, lease, organization, setting};

use crate::audit::Deed;
use crate::billing::{CLOSE_AFTER, ClosingReport};
use crate::demonstration;
use crate::key::SESSION_LIFE;
use crate::mail::Mailer;
use crate::payment::Payments;
use crate::{Action, Actor, Cloud};

/// The setting that says how far a test clock is ahead, in milliseconds.
const AHEAD: &str = "test_clock_ahead_ms";
/// The longest jump.
pub const ADVANCE_MAX: DurationMs = DurationMs::from_seconds(366 * 24 * 3_600);
/// How far ahead it may be in all: about a century.
const AHEAD_MAX: DurationMs = DurationMs::from_seconds(100 * 366 * 24 * 3_600);
/// How often, and how many times, months that wait for slices are looked at again after a jump: for 10 s.
const SLICE_LOOK_PERIOD: DurationMs = DurationMs::from_millis(250);
const SLICE_LOOKS_MAX: u32 = 40;

/// A clock that can be put forward.
pub trait TestClock: Clock {
    /// The real time.
    fn real_now(&self) -> Timestamp;
    /// How far it is ahead of the real time from now on. It is never put back.
    fn set_ahead(&self, ahead: DurationMs);
}

/// How a cloud differs from others.
#[derive(Clone)]
pub struct CloudSettings {
    /// How long after its end a month is closed.
    pub close_after: DurationMs,
    /// Months are closed although the last look for them was long ago.
    pub resume_billing: bool,
    /// Who sells, as exports name it.
    pub seller: String,
    /// How customers pay in.
    pub payments: Payments,
    /// How mail goes out; `None` where it waits.
    pub mail: Option<Mailer>,
    /// Where scheduled exports go; `None` where they wait.
    pub exports: Option<Arc<dyn DeliveryPort>>,
    /// How events are posted to webhooks; `None` where they wait.
    pub webhooks: Option<Arc<dyn WebhookPort>>,
    /// Its clock, if it can be put forward.
    pub test_clock: Option<Arc<dyn TestClock>>,
    /// How long a console session lives, by the cloud's clock.
    pub session_life: DurationMs,
}

impl Default for CloudSettings {
    fn default() -> Self {
        Self {
            close_after: CLOSE_AFTER,
            resume_billing: false,
            seller: DEFAULT_SELLER.to_owned(),
            payments: Payments::default(),
            mail: None,
            exports: None,
            webhooks: None,
            test_clock: None,
            session_life: SESSION_LIFE,
        }
    }
}

/// What time it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockReading {
    pub now: Timestamp,
    /// How far a test clock is ahead of the real time; `None` where time is real.
    pub ahead: Option<DurationMs>,
    /// What a jump closed.
    pub closing: ClosingReport,
}

/// Makes sure that a cloud has the kind of clock that it had from the start, and says how far that is ahead: `None`
/// for one whose time is real.
pub async fn clock_of(store: &Store, wants_test_clock: bool) -> Result<Option<DurationMs>> {
    store.write(wants_test_clock, |wants, tx| Box::pin(open_clock(tx, *wants))).await
}

async fn open_clock(tx: &mut Tx, wants_test_clock: bool) -> Result<Option<DurationMs>> {
    match (ahead(tx).await?, wants_test_clock) {
        (Some(ahead), true) => Ok(Some(ahead)),
        (None, false) => Ok(None),
        (Some(_), false) => Err(Error::new(ErrorCode::Conflict, "this cloud has a test clock, and its books follow it")
            .alternative("start it with --test-clock")),
        (None, true) if organization::exist(tx).await? => {
            Err(Error::new(ErrorCode::Conflict, "this cloud's time is real, and its books follow it")
                .alternative("start a cloud with a test clock in a new data directory"))
        }
        (None, true) => {
            setting::set(tx, AHEAD, "0").await?;
            Ok(Some(DurationMs::ZERO))
        }
    }
}

async fn ahead(tx: &mut Tx) -> Result<Option<DurationMs>> {
    let Some(text) = setting::find(tx, AHEAD).await? else { return Ok(None) };
    let millis = text.parse().map_err(|_| Error::internal(format!("the setting {AHEAD} is '{text}'")))?;
    Ok(Some(DurationMs::from_millis(millis)))
}

impl Cloud {
    /// What time it is.
    pub async fn read_clock(&self, actor: &Actor) -> Result<ClockReading> {
        actor.require(Action::SetClock)?;
        let ahead = self.store.read((), |(), tx| Box::pin(ahead(tx))).await?;
        Ok(ClockReading { now: self.now(), ahead, closing: ClosingReport::default() })
    }

    /// Puts a test clock forward, and closes the months that are over then.
    pub async fn advance_clock(&self, actor: &Actor, to: Timestamp) -> Result<ClockReading> {
        actor.require(Action::SetClock)?;
        let Some(clock) = &self.settings.test_clock else {
            let runs_fast = self.store.read((), |(), tx| Box::pin(demonstration::find(tx))).await?.is_some();
            let message = if runs_fast { "this demonstration's time runs by itself" } else { "this cloud's time is real" };
            return Err(
                Error::new(ErrorCode::Conflict, message).alternative("start a cloud with --test-clock in a new data directory")
            );
        };
        let ahead = self
            .store
            .write((self, actor, clock, to), |(cloud, actor, clock, to), tx| Box::pin(cloud.jump(tx, actor, clock.real_now(), *to)))
            .await?;
        clock.set_ahead(ahead);
        let closing = self.close_after_slices().await?;
        self.expire_credit().await?;
        self.dun().await?;
        Ok(ClockReading { now: self.now(), ahead: Some(ahead), closing })
    }

    /// Closes what is over. Gateways go by the same clock and give idle slices back within a second, so months that
    /// wait for slices are looked at again for a while.
    async fn close_after_slices(&self) -> Result<ClosingReport> {
        let mut all = self.close_months().await?;
        for _ in 0..SLICE_LOOKS_MAX {
            if all.waiting == 0 {
                break;
            }
            tokio::time::sleep(SLICE_LOOK_PERIOD.to_std()).await;
            let more = self.close_months().await?;
            all = ClosingReport { closed: all.closed + more.closed, issued: all.issued + more.issued, ..more };
        }
        Ok(all)
    }

    async fn jump(&self, tx: &mut Tx, actor: &Actor, real: Timestamp, to: Timestamp) -> Result<DurationMs> {
        // From the books, and not from the clock: another jump may be on its way there.
        let before = ahead(tx).await?.unwrap_or(DurationMs::ZERO);
        let now = real.plus(before);
        // Up to whole milliseconds, which is what clocks are ahead by: what is over at that instant is over afterwards.
        let by = Timestamp::from_micros(to.micros().saturating_add(999)).since(now);
        if by <= DurationMs::ZERO {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("time goes forward only, and it is {now}")));
        }
        let after = DurationMs::from_millis(before.millis().saturating_add(by.millis()));
        if by > ADVANCE_MAX || after > AHEAD_MAX {
            return Err(Error::new(
                ErrorCode::InvalidRequest,
                "one jump is over 366 days at most, and all together over a century",
            )
            .alternative("make several jumps"));
        }
        let running = lease::list_open(tx).await?.len();
        if running > 0 {
            let message = format!("{running} leases are not over: what runs on them would be charged for a time that did not pass");
            return Err(Error::new(ErrorCode::Conflict, message).alternative("end them first"));
        }
        setting::set(tx, AHEAD, &after.millis().to_string()).await?;
        self.note_look(tx, now.plus(by), true).await?;
        let detail = format!("from {now} by {} s", by.millis() / 1_000);
        self.record(tx, actor, Deed { organization: None, action: "clock.advance", target: "clock", detail }, now).await?;
        Ok(after)
    }
}
