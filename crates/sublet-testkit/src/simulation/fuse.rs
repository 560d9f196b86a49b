//! Crashes at exact points: a clock that ends the process at its n-th reading.
//!
//! Use cases read the clock at their beginning and for every id they mint, so that a fuse of n
//! readings cuts them before, inside and between their transactions. Nothing here is random and
//! nothing depends on threads: the same fuse cuts the same work at the same place.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use sublet_core::{Clock, Timestamp};

use crate::clock::ManualClock;

/// What unwinds through a process that dies. It is raised past the panic hook, so nothing is printed.
struct Crash;

/// The test's clock as one process reads it.
pub(crate) struct Fuse {
    clock: Arc<ManualClock>,
    /// Readings until the crash; 0 is never.
    left: AtomicU64,
}

impl Fuse {
    pub fn new(clock: Arc<ManualClock>) -> Arc<Self> {
        Arc::new(Self { clock, left: AtomicU64::new(0) })
    }
    /// The process dies at this reading from now; 0 puts the fuse out.
    pub fn light(&self, readings: u64) {
        self.left.store(readings, Ordering::SeqCst);
    }
}

impl Clock for Fuse {
    fn now(&self) -> Timestamp {
        let left = self.left.load(Ordering::SeqCst);
        if left > 0 {
            self.left.store(left - 1, Ordering::SeqCst);
            if left == 1 {
                resume_unwind(Box::new(Crash));
            }
        }
        self.clock.now()
    }
}

/// Runs a process's work; `None` if the process died in it. Other panics go on.
pub(crate) struct UntilCrash<F>(Pin<Box<F>>);

impl<F: Future> UntilCrash<F> {
    pub fn new(work: F) -> Self {
        Self(Box::pin(work))
    }
}

impl<F: Future> Future for UntilCrash<F> {
    type Output = Option<F::Output>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Err(cause) if cause.is::<Crash>() => Poll::Ready(None),
            Err(cause) => resume_unwind(cause),
        }
    }
}
