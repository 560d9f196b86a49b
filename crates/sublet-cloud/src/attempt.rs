//! Attempts: the effects of a runner's events, and what device time costs.
//!
//! Metering begins with the event that the program can use its devices and ends with its exit. A
//! piece of time is appended to the interval log and charged in the same transaction, at most what
//! the hold covers: what ran beyond it is in the log, too, and nobody pays for it but us.

use sublet_core::id::{AttemptId, LeaseId};
use sublet_core::job::{AttemptState, OnEnd};
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::runner::{AttemptEvent, Exit, SequencedEvent};
use sublet_core::{Bytes, DurationMs, Error, Nanos, Result, Scope, Timestamp};
use sublet_money::period::Interval;
use sublet_money::price_book::PriceListVersion;
use sublet_money::rating::{LineKey, LineState, RatedLine, rate_line};
use sublet_money::rerate::UsedAt;
use sublet_money::sku::SkuFamily;
use sublet_money::stretch::{Stretch, StretchEnd};
use sublet_store::attempt::{self, Attempt, AttemptInterval, CloseReason, Contained};
use sublet_store::charge::{self, Charge};
use sublet_store::compensation::LeaseNotice;
use sublet_store::hold::{self, Hold};
use sublet_store::job::{self, Job};
use sublet_store::lease::{self, Lease};
use sublet_store::{Tx, device};

use crate::billing::Billing;
use crate::compute::{Compute, Tariff, done};
use crate::device::switch_lease;

/// Most contained events that are kept of one attempt.
const CONTAINED_MAX: usize = 100;

/// Up to where device time is settled, and why there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub until: Timestamp,
    pub reason: CloseReason,
    /// The runner's last event that this is made from.
    pub sequence: u64,
}

/// What an attempt used when it ended.
struct Ending {
    at: Timestamp,
    exit: Exit,
    cpu_time: DurationMs,
    peak_memory: Bytes,
}

/// Everything a settlement works on.
struct Meter {
    tariff: Tariff,
    billing: Billing,
    hold: Option<Hold>,
    /// What the hold still has.
    left: Nanos,
}

impl Meter {
    /// What a span costs on a line of a price list; as much of it as the hold pays for.
    fn rate(
        &self,
        (key, version): (&LineKey, &PriceListVersion),
        state: LineState,
        span: DurationMs,
    ) -> Result<(RatedLine, DurationMs)> {
        let rated = |span| rate_line(key.clone(), state, version, self.tariff.quantity(span)?);
        let whole = rated(span)?;
        if whole.amount <= self.left {
            return Ok((whole, span));
        }
        // Halve what is between a span that is paid for and one that is not.
        let (mut paid, mut unpaid) = (0, span.millis());
        while unpaid - paid > 1 {
            let middle = paid + (unpaid - paid) / 2;
            if rated(DurationMs::from_millis(middle))?.amount <= self.left { paid = middle } else { unpaid = middle }
        }
        let paid = DurationMs::from_millis(paid);
        Ok((rated(paid)?, paid))
    }
}

impl Compute {
    /// The effects of one event. Events of unknown or ended attempts have none.
    pub(crate) async fn apply_event(&self, tx: &mut Tx, sequenced: &SequencedEvent) -> Result<()> {
        let Some(attempt) = attempt::find(tx, &sequenced.attempt).await? else { return Ok(()) };
        if attempt.state == AttemptState::Ended {
            return Ok(());
        }
        match &sequenced.event {
            AttemptEvent::Started { at, isolation } => {
                let at = not_before_its_devices(tx, &attempt, *at).await?;
                let started = Attempt {
                    state: AttemptState::Running,
                    started_at: Some(at),
                    alive_at: Some(at),
                    isolation: Some(isolation.clone()),
                    ..attempt
                };
                self.started(tx, &started, at).await
            }
            AttemptEvent::Alive { at } => {
                let alive = Attempt { alive_at: attempt.alive_at.max(Some(*at)), ..attempt };
                done(attempt::save(tx, &alive).await?, alive.id.as_str())
            }
            AttemptEvent::Contained { at, what } => {
                let mut contained = attempt;
                if contained.contained.len() < CONTAINED_MAX {
                    contained.contained.push(Contained { at: *at, what: what.clone() });
                }
                done(attempt::save(tx, &contained).await?, contained.id.as_str())
            }
            AttemptEvent::Exited { at, exit, cpu_time, peak_memory } => {
                let ending = Ending { at: *at, exit: exit.clone(), cpu_time: *cpu_time, peak_memory: *peak_memory };
                self.ended(tx, attempt, ending, sequenced.sequence).await
            }
        }
    }

    async fn started(&self, tx: &mut Tx, attempt: &Attempt, at: Timestamp) -> Result<()> {
        let found = attempt::find(tx, &attempt.id).await?;
        if found.is_some_and(|found| found.state != AttemptState::Placed) {
            return Ok(());
        }
        done(attempt::save(tx, attempt).await?, attempt.id.as_str())?;
        let job = job::get(tx, &Scope::Operator, &attempt.job).await?;
        let (started_at, start_lease) = (job.started_at.or(Some(at)), job.start_lease.clone().or(Some(attempt.lease.clone())));
        let running = Job { state: job.state.run()?, started_at, start_lease, requeued_at: None, not_before: None, ..job };
        done(job::save(tx, &running).await?, running.id.as_str())?;
        let lease = lease::get(tx, &Scope::Operator, &attempt.lease).await?;
        self.charge_start(tx, &lease, &running, at).await?;
        switch_lease(tx, &lease, true, at).await
    }

    async fn ended(&self, tx: &mut Tx, mut attempt: Attempt, ending: Ending, sequence: u64) -> Result<()> {
        let lease = lease::get(tx, &Scope::Operator, &attempt.lease).await?;
        // A clock that was set back does not make time run backwards, nor free devices before what was charged of them.
        let at = attempt.settled_until.or(attempt.started_at).unwrap_or(attempt.placed_at).max(ending.at);
        if attempt.started_at.is_some() {
            let reason = if ending.exit == Exit::Lost { CloseReason::Lost } else { CloseReason::Exited };
            self.settle(tx, &lease, &mut attempt, Closing { until: at, reason, sequence }).await?;
        }
        let closed = Attempt {
            state: AttemptState::Ended,
            ended_at: Some(at),
            exit: Some(ending.exit.clone()),
            cpu_time: ending.cpu_time,
            peak_memory: ending.peak_memory,
            ..attempt
        };
        done(attempt::save(tx, &closed).await?, closed.id.as_str())?;
        if closed.started_at.is_some() {
            switch_lease(tx, &lease, false, at).await?;
        }
        let job = job::get(tx, &Scope::Operator, &closed.job).await?;
        if ending.exit == Exit::Lost && job.spec.on_end == OnEnd::EndLease {
            self.end_lost(tx, &closed.lease, at).await?;
        }
        if self.goes_on_after(tx, &job, &ending.exit, at).await? {
            return Ok(());
        }
        let (message, stopped_for) = (message_of(&ending.exit), job.state.reason());
        let over = Job { state: job.state.exit(&ending.exit)?, exit: Some(ending.exit), message, ended_at: Some(at), ..job };
        done(job::save(tx, &over).await?, over.id.as_str())?;
        self.give_start_back(tx, (&over, stopped_for), at).await?;
        self.job_ended(tx, &over, at).await
    }

    /// The machine died under a lease that ends with its job: its holder was never told.
    async fn end_lost(&self, tx: &mut Tx, id: &LeaseId, at: Timestamp) -> Result<()> {
        let lease = lease::get(tx, &Scope::Operator, id).await?;
        let Ok(state) = lease.state.begin_ending(EndReason::DeviceLost, at) else { return Ok(()) };
        let ending = Lease { state, ..lease };
        done(lease::save(tx, &ending).await?, id.as_str())?;
        let notice = LeaseNotice { told_at: at, reason: EndReason::DeviceLost, deadline: at, is_busy: true };
        self.cloud.note_told(tx, &ending, &notice).await
    }

    /// A running attempt that its runner does not know any more ended at its last proof of life.
    pub(crate) async fn close_lost(&self, tx: &mut Tx, id: &AttemptId) -> Result<()> {
        let Some(attempt) = attempt::find(tx, id).await? else { return Ok(()) };
        if attempt.state != AttemptState::Running {
            return Ok(());
        }
        let at = attempt.alive_at.or(attempt.started_at).unwrap_or(attempt.placed_at);
        let (cpu_time, peak_memory) = (attempt.cpu_time, attempt.peak_memory);
        let sequence = attempt::find_cursor(tx, &attempt.runner).await?;
        self.ended(tx, attempt, Ending { at, exit: Exit::Lost, cpu_time, peak_memory }, sequence).await
    }

    /// The runner will not start it: nothing ran and nothing is charged.
    pub(crate) async fn refuse_attempt(&self, tx: &mut Tx, id: &AttemptId, refusal: &Error) -> Result<()> {
        let now = self.now();
        let Some(attempt) = attempt::find(tx, id).await? else { return Ok(()) };
        if attempt.state != AttemptState::Placed {
            return Ok(());
        }
        let reason = refusal.message().to_owned();
        let exit = Exit::NotStarted { reason: reason.clone() };
        let closed = Attempt { state: AttemptState::Ended, ended_at: Some(now), exit: Some(exit.clone()), ..attempt };
        done(attempt::save(tx, &closed).await?, closed.id.as_str())?;
        let job = job::get(tx, &Scope::Operator, &closed.job).await?;
        if self.goes_on_after_refusal(tx, &job, now).await? {
            return Ok(());
        }
        let refused = Job { state: job.state.refuse_start()?, exit: Some(exit), message: reason, ended_at: Some(now), ..job };
        done(job::save(tx, &refused).await?, refused.id.as_str())?;
        self.give_start_back(tx, (&refused, None), now).await?;
        self.job_ended(tx, &refused, now).await
    }

    /// Settles a running attempt up to its last proof of life, in whole milliseconds.
    pub(crate) async fn settle_running(&self, tx: &mut Tx, id: &AttemptId) -> Result<()> {
        let Some(mut attempt) = attempt::find(tx, id).await? else { return Ok(()) };
        let (Some(alive_at), Some(from)) = (attempt.alive_at, attempt.settled_until.or(attempt.started_at)) else {
            return Ok(());
        };
        if attempt.state != AttemptState::Running {
            return Ok(());
        }
        let until = from.plus(alive_at.since(from));
        let lease = lease::get(tx, &Scope::Operator, &attempt.lease).await?;
        let sequence = attempt::find_cursor(tx, &attempt.runner).await?;
        self.settle(tx, &lease, &mut attempt, Closing { until, reason: CloseReason::Settled, sequence }).await?;
        done(attempt::save(tx, &attempt).await?, attempt.id.as_str())
    }

    /// Appends and charges an attempt's device time up to an instant. The caller saves the attempt.
    async fn settle(&self, tx: &mut Tx, lease: &Lease, attempt: &mut Attempt, closing: Closing) -> Result<()> {
        let Some(from) = attempt.settled_until.or(attempt.started_at) else { return Ok(()) };
        if closing.until <= from {
            return Ok(());
        }
        let billing = Billing::of(tx, &lease.organization).await?;
        let hold = hold::find_open(tx, lease.id.as_str()).await?;
        let left = match &hold {
            Some(hold) => hold.uncaptured()?.total()?,
            None => Nanos::ZERO,
        };
        let mut meter = Meter { tariff: Tariff::of(tx, &self.cloud, lease, from).await?, billing, hold, left };
        let asked = Interval { starts_at: from, ends_at: closing.until };
        let stretches: Vec<Stretch> = meter.tariff.stretches(&meter.billing.calendar, asked)?.collect::<Result<_>>()?;
        for stretch in stretches {
            let reason = match stretch.end {
                StretchEnd::Asked => closing.reason,
                StretchEnd::Period => CloseReason::Period,
                StretchEnd::Band => CloseReason::Band,
            };
            let closing = Closing { until: stretch.interval.ends_at, reason, ..closing };
            self.settle_piece(tx, lease, attempt, (&mut meter, Piece { stretch, closing })).await?;
        }
        attempt.settled_until = Some(closing.until);
        Ok(())
    }

    /// One piece, all of it on one line.
    async fn settle_piece(&self, tx: &mut Tx, lease: &Lease, attempt: &Attempt, (meter, piece): (&mut Meter, Piece)) -> Result<()> {
        let Piece { stretch, closing } = piece;
        let from = stretch.interval.starts_at;
        if meter.tariff.is_band_too_dear(stretch.band.as_ref())? {
            return append(tx, attempt, from, Closing { reason: CloseReason::Unpaid, ..closing }).await;
        }
        let key = LineKey {
            organization: lease.organization.clone(),
            project: lease.project.clone(),
            period: stretch.period,
            price_version: lease.price_version.clone(),
            sku: lease.sku.clone(),
            band: stretch.band,
        };
        // Time that was rated anew before it was settled goes where it would be now.
        let placed = Some(lease.sku.placed(&lease.site, lease.isolation));
        let used = UsedAt { at: from, max_price: lease.max_price, placed };
        let (key, version) = self.cloud.line_now(tx, &meter.billing, (key, used), &meter.tariff.version).await?;
        let state = charge::line_state(tx, &key).await?;
        let span = closing.until.since(from);
        let (rated, paid) = meter.rate((&key, &version), state, span)?;
        let paid_until = if paid == span { closing.until } else { from.plus(paid) };
        if paid_until > from {
            let reason = if paid == span { closing.reason } else { CloseReason::HoldUsedUp };
            append(tx, attempt, from, Closing { until: paid_until, reason, ..closing }).await?;
        }
        if closing.until > paid_until {
            append(tx, attempt, paid_until, Closing { reason: CloseReason::Unpaid, ..closing }).await?;
        }
        if rated.quantity.is_zero() {
            return Ok(());
        }
        meter.left = meter.left.checked_sub(rated.amount)?;
        self.charge(tx, lease, attempt, (meter, &rated, from)).await
    }

    async fn charge(
        &self,
        tx: &mut Tx,
        lease: &Lease,
        attempt: &Attempt,
        (meter, rated, from): (&Meter, &RatedLine, Timestamp),
    ) -> Result<()> {
        let now = self.now();
        let hold = meter.hold.as_ref().ok_or_else(|| Error::internal(format!("{} runs without a hold", lease.id)))?;
        self.cloud.capture_hold(tx, hold, (SkuFamily::DeviceTime, rated.amount), now).await?;
        charge::set_line_states(tx, &[(&rated.key, rated.after)]).await?;
        let charge = Charge {
            id: self.cloud.ids.mint(),
            organization: lease.organization.clone(),
            project: lease.project.clone(),
            key: lease.key.clone(),
            source: attempt.job.to_string(),
            sku: rated.key.sku.clone(),
            quantity: rated.quantity,
            amount: rated.amount,
            currency: lease.currency,
            price_version: rated.key.price_version.clone(),
            period: rated.key.period,
            billed_in: meter.billing.billed_in(rated.key.period),
            band: rated.key.band.clone(),
            before: rated.before,
            occurred_at: from,
            posted_at: now,
        };
        charge::insert(tx, &[charge]).await?;
        lease::add_cost(tx, &lease.id, rated.amount).await
    }
}

/// When an attempt's devices were free for it: a clock that was set back between two attempts does
/// not sell the same instant of a device twice.
async fn not_before_its_devices(tx: &mut Tx, attempt: &Attempt, at: Timestamp) -> Result<Timestamp> {
    let mut earliest = at;
    for id in &attempt.devices {
        let span = device::open_span(tx, id).await?;
        earliest = span.map_or(earliest, |span| span.started_at.max(earliest));
    }
    Ok(earliest)
}

/// Device time on one line.
struct Piece {
    stretch: Stretch,
    closing: Closing,
}

async fn append(tx: &mut Tx, attempt: &Attempt, from: Timestamp, closing: Closing) -> Result<()> {
    for device in &attempt.devices {
        let interval = AttemptInterval {
            attempt: attempt.id.clone(),
            device: device.clone(),
            started_at: from,
            ended_at: closing.until,
            close_reason: closing.reason,
            source: attempt.runner.clone(),
            source_sequence: closing.sequence,
            lease: attempt.lease.clone(),
        };
        attempt::append_interval(tx, &interval).await?;
    }
    Ok(())
}

/// What a job's owner should read first.
fn message_of(exit: &Exit) -> String {
    match exit {
        Exit::Code { .. } => String::new(),
        Exit::Signal { signal } => format!("ended by signal {signal}"),
        Exit::OutOfMemory => "it needed more memory than its limit".to_owned(),
        Exit::Stopped { forced: false } => "it was stopped".to_owned(),
        Exit::Stopped { forced: true } => "it did not end in its grace and was killed".to_owned(),
        Exit::NotStarted { reason } => reason.clone(),
        Exit::Lost => "its machine died; it is charged up to the last proof of life".to_owned(),
    }
}

/// Whether a lease may start something.
pub(crate) const fn may_start(lease: &Lease) -> bool {
    match lease.state {
        LeaseState::Active => true,
        LeaseState::Pending | LeaseState::Ending { .. } | LeaseState::Ended { .. } => false,
    }
}
