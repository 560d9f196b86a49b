//! What requests hold of a purse: money that is not spent yet, and money whose record is on its way to the disk.

use std::sync::Arc;

use sublet_core::Nanos;

use super::{Ask, Extended, Purse, expect, send};

/// Money held for one request; what is not captured goes back when this is dropped.
pub(crate) struct Money {
    pub(super) purse: Arc<Purse>,
    pub(super) amount: Nanos,
    /// The request's own hold, not an addition on its way to it.
    pub(super) main: bool,
}

impl Money {
    pub fn amount(&self) -> Nanos {
        self.amount
    }

    pub fn purse(&self) -> &Arc<Purse> {
        &self.purse
    }

    /// More money for the same request.
    pub fn extend(&mut self, ask: Ask) -> Extended {
        let mut state = self.purse.lock();
        match state.take(ask) {
            Some(added) => {
                drop(state);
                self.amount = expect(self.amount.checked_add(added));
                Extended::Now
            }
            None => Extended::Wait(self.purse.wait(state, ask, true)),
        }
    }

    /// Adds what an awaited extension brought.
    pub fn absorb(&mut self, mut addition: Self) {
        assert!(Arc::ptr_eq(&self.purse, &addition.purse) && !addition.main, "an extension comes from the same purse");
        self.amount = expect(self.amount.checked_add(addition.amount));
        addition.amount = Nanos::ZERO;
    }

    /// Turns the hold into spent money. `upper` is the most that the request can be charged.
    pub fn capture(mut self, upper: Nanos) -> Captured {
        assert!(self.main && upper <= self.amount, "a request costs {upper}, more than its hold of {}", self.amount);
        let purse = Arc::clone(&self.purse);
        let mut state = purse.lock();
        state.held = expect(state.held.checked_sub(upper));
        state.captured = expect(state.captured.checked_add(upper));
        state.records += 1;
        state.unanswered += 1;
        state.burn.add(purse.bank.clock.now(), upper.get());
        state.check();
        drop(state);
        self.amount = expect(self.amount.checked_sub(upper));
        Captured { purse, upper, answered: false }
    }
}

impl Drop for Money {
    fn drop(&mut self) {
        self.purse.release(self.amount, self.main);
    }
}

/// Spent money whose record is on its way to the disk.
pub(crate) struct Captured {
    purse: Arc<Purse>,
    upper: Nanos,
    answered: bool,
}

impl Captured {
    /// The record is durable, or may be.
    pub fn keep(mut self) {
        self.answer(false);
    }
    /// The record surely is not durable: nothing was spent.
    pub fn void(mut self) {
        self.answer(true);
    }
    fn answer(&mut self, void: bool) {
        self.answered = true;
        let mut state = self.purse.lock();
        state.unanswered -= 1;
        let mut replies = Vec::new();
        if void {
            state.captured = expect(state.captured.checked_sub(self.upper));
            state.records -= 1;
            state.check();
            replies = state.after_release(&self.purse);
        }
        drop(state);
        send(replies);
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(false);
        }
    }
}
