//! Lines that wait for a limit, or for servers, that other lines do not need. Pure.
//!
//! What waits for the same waits in one queue. When its time has come, one of it is tried; after each that got through
//! twice as many, after one that did not one again. So nobody asks thousands of times for what is used up, and the
//! other lines of the batch go on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sublet_core::Timestamp;

use crate::batch_pace::ANSWERS_IN_FLIGHT_MAX;

/// Lines of a batch that are set aside at once. When there are as many, no new one is started.
pub(crate) const ASIDE_MAX: usize = 4_096;

/// Lines that are set aside, by what they wait for.
pub(crate) struct Aside<T> {
    queues: BTreeMap<Arc<str>, Queue<T>>,
    len: usize,
}

struct Queue<T> {
    lines: VecDeque<T>,
    /// None is tried before.
    until: Timestamp,
    /// How many are tried together.
    step: usize,
    /// Those that are being tried.
    tried: usize,
}

impl<T> Default for Aside<T> {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), len: 0 }
    }
}

impl<T> Aside<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn is_full(&self) -> bool {
        self.len >= ASIDE_MAX
    }

    /// Sets a line aside that was refused for want of something.
    pub fn put(&mut self, name: &Arc<str>, line: T, until: Timestamp) {
        let new = || Queue { lines: VecDeque::new(), until, step: 1, tried: 0 };
        let queue = self.queues.entry(Arc::clone(name)).or_insert_with(new);
        queue.lines.push_back(line);
        queue.until = queue.until.max(until);
        self.len += 1;
    }

    /// One that was tried did not need to be refused again.
    pub fn passed(&mut self, name: &Arc<str>) {
        self.ended(name, |queue| queue.step = (queue.step * 2).min(ANSWERS_IN_FLIGHT_MAX));
    }

    /// One that was tried was refused again; the line itself is put where it belongs by whoever has it.
    pub fn refused(&mut self, name: &Arc<str>, until: Timestamp) {
        self.ended(name, |queue| {
            queue.step = 1;
            queue.until = queue.until.max(until);
        });
    }

    fn ended(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Queue<T>)) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.tried = queue.tried.saturating_sub(1);
            change(queue);
            if queue.tried == 0 && queue.lines.is_empty() {
                self.queues.remove(name);
            }
        }
    }

    /// The lines that are to be tried now, with what they waited for.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<(Arc<str>, T)> {
        let mut due = Vec::new();
        for (name, queue) in &mut self.queues {
            if queue.tried == 0 && queue.until <= now {
                let count = queue.step.min(queue.lines.len());
                queue.tried = count;
                due.extend(queue.lines.drain(..count).map(|line| (Arc::clone(name), line)));
            }
        }
        self.len -= due.len();
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn lines(due: Vec<(Arc<str>, u32)>) -> Vec<u32> {
        due.into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn one_is_tried_and_then_more_until_one_is_refused() {
        let name: Arc<str> = "limit".into();
        let mut aside = Aside::default();
        for line in 0..20 {
            aside.put(&name, line, at(10));
        }
        assert_eq!((aside.len(), lines(aside.take_due(at(9)))), (20, vec![]));
        assert_eq!(lines(aside.take_due(at(10))), [0]);
        assert_eq!(lines(aside.take_due(at(99))), [0_u32; 0], "while one is tried, the others wait");
        aside.passed(&name);
        assert_eq!(lines(aside.take_due(at(11))), [1, 2]);
        aside.passed(&name);
        aside.passed(&name);
        assert_eq!(lines(aside.take_due(at(12))).len(), 8);
        for _ in 0..7 {
            aside.passed(&name);
        }
        aside.refused(&name, at(50));
        aside.put(&name, 10, at(50));
        assert_eq!((lines(aside.take_due(at(49))), lines(aside.take_due(at(50)))), (vec![], vec![11]));
        assert_eq!(aside.len(), 20 - 1 - 2 - 8 + 1 - 1);
    }

    #[test]
    fn what_waits_for_something_else_does_not_wait_with_it() {
        let mut aside = Aside::default();
        aside.put(&"a".into(), 1, at(100));
        aside.put(&"b".into(), 2, at(5));
        assert_eq!(lines(aside.take_due(at(5))), [2]);
    }

    #[test]
    fn nothing_is_left_of_a_queue_that_was_worked_off() {
        let name: Arc<str> = "limit".into();
        let mut aside = Aside::default();
        aside.put(&name, 1, at(0));
        aside.take_due(at(0));
        aside.passed(&name);
        assert!(aside.queues.is_empty() && aside.is_empty());
    }

    #[test]
    fn as_many_as_may_wait_do() {
        let mut aside = Aside::default();
        for line in 0..ASIDE_MAX {
            assert!(!aside.is_full());
            aside.put(&"limit".into(), line, at(0));
        }
        assert!(aside.is_full());
    }
}
