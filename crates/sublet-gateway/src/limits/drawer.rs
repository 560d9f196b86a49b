//! Asks the cloud for what meters need: one request at a time, with everything that gathered meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::meter::{Meter, Purpose, send};
use super::{DRAW_WAIT, not_in_time};
use crate::generation::monotonic;
use sublet_core::admission::Admission;
use sublet_core::id::GatewayId;
use sublet_core::rate::{DRAWS_MAX, Draw, DrawRequest};
use sublet_core::{Clock, Error};

pub(super) struct Drawer {
    admission: Arc<dyn Admission>,
    clock: Arc<dyn Clock>,
    gateway: GatewayId,
    fence: i64,
    todo: Mutex<Todo>,
    /// Rings when there is nothing more to ask.
    rested: tokio::sync::Notify,
}

#[derive(Default)]
struct Todo {
    meters: Vec<(Arc<Meter>, Purpose)>,
    running: bool,
}

impl Drawer {
    pub fn new(admission: Arc<dyn Admission>, clock: Arc<dyn Clock>, (gateway, fence): (GatewayId, i64)) -> Arc<Self> {
        Arc::new(Self { admission, clock, gateway, fence, todo: Mutex::default(), rested: tokio::sync::Notify::new() })
    }

    fn todo(&self) -> MutexGuard<'_, Todo> {
        self.todo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws for a meter that has said that it needs it.
    pub fn add(self: &Arc<Self>, meter: Arc<Meter>, purpose: Purpose) {
        let mut todo = self.todo();
        todo.meters.push((meter, purpose));
        if !std::mem::replace(&mut todo.running, true) {
            tokio::spawn(run(Running { drawer: Arc::clone(self), asked: Vec::new(), finished: false }));
        }
    }

    /// Waits until everything that was added is asked.
    pub async fn rest(&self) {
        loop {
            let rested = self.rested.notified();
            if !self.todo().running {
                return;
            }
            rested.await;
        }
    }

    /// The next ones to ask for, in the order in which everybody takes them; `None` ends the run.
    fn next(&self) -> Option<Vec<(Arc<Meter>, Purpose)>> {
        let mut todo = self.todo();
        if todo.meters.is_empty() {
            todo.running = false;
            self.rested.notify_waiters();
            return None;
        }
        let count = todo.meters.len().min(DRAWS_MAX);
        let mut batch: Vec<_> = todo.meters.drain(..count).collect();
        batch.sort_by(|(one, _), (other, _)| one.bucket.cmp(&other.bucket));
        Some(batch)
    }
}

/// A run, which ends in order or fails those who wait for it.
struct Running {
    drawer: Arc<Drawer>,
    asked: Vec<(Arc<Meter>, Draw)>,
    finished: bool,
}

impl Running {
    fn fail(&mut self, error: &Error) {
        for (meter, draw) in self.asked.drain(..) {
            send(meter.failed(&draw, error));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.fail(&Error::internal("drawing from the limits ended early"));
        // What is left is asked for with the next that comes.
        self.drawer.todo().running = false;
        self.drawer.rested.notify_waiters();
    }
}

async fn run(mut running: Running) {
    let drawer = Arc::clone(&running.drawer);
    while let Some(batch) = drawer.next() {
        running.asked = batch.into_iter().map(|(meter, purpose)| (Arc::clone(&meter), meter.compose(purpose))).collect();
        let draws = running.asked.iter().map(|(_, draw)| draw.clone()).collect();
        let asked_at = monotonic();
        let request = DrawRequest { gateway: drawer.gateway.clone(), fence: drawer.fence, draws };
        // One that hangs would keep all others waiting.
        let answer = tokio::time::timeout(DRAW_WAIT.to_std(), drawer.admission.draw_limits(request)).await;
        match answer.unwrap_or_else(|_| Err(not_in_time())) {
            Ok(drawn) if drawn.len() == running.asked.len() => {
                let now = drawer.clock.now();
                for ((meter, draw), drawn) in running.asked.drain(..).zip(drawn) {
                    let (replies, more) = meter.drawn((&draw, drawn), asked_at, now);
                    send(replies);
                    if more {
                        drawer.todo().meters.push((meter, Purpose::Serve));
                    }
                }
            }
            Ok(_) => running.fail(&Error::internal("the cloud answered other draws than were asked")),
            Err(error) => running.fail(&error),
        }
    }
    running.finished = true;
}
