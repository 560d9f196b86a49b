//! Who starts the next line: projects share the places, and in a project the batch that must end first goes first.
//!
//! A place is one answer under way; a line of several answers takes as many, and starts when all of them fit, or when
//! nothing else runs. One batch at a time has its turn. If its line does not fit yet, the others wait with it: lines of
//! one answer would else overtake a line of many for ever.
//!
//! Deliberately absent: time. What changes when is for whoever asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sublet_core::Timestamp;
use sublet_core::engine::EngineLoad;
use sublet_core::id::{BatchId, ProjectId};
use tokio::sync::Notify;

use crate::batch_pace::{ANSWERS_IN_FLIGHT_MAX, Urgency, answers_allowed};

/// The places of a process.
#[derive(Default)]
pub(crate) struct Places {
    desk: Mutex<Desk>,
    /// Rings when somebody else may have his turn.
    pub changed: Notify,
}

/// A batch, and which of its claims: an old one may end after the next has begun.
type SeatId = (BatchId, u64);

#[derive(Default)]
struct Desk {
    seats: BTreeMap<SeatId, Standing>,
    /// Seats that were ever given.
    given: u64,
    /// Answers that each project was let start; who comes later begins with the least of the others.
    served: BTreeMap<ProjectId, u64>,
    /// Whose line waits until it fits.
    turn: Option<SeatId>,
    lines: usize,
    answers: usize,
}

struct Standing {
    project: ProjectId,
    deadline: Timestamp,
    /// Its answers under way.
    answers: usize,
    wants: Option<Want>,
    /// Its lines that wait for something of their own.
    aside: usize,
}

/// The line that a batch would start next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Want {
    pub answers: usize,
    pub urgency: Urgency,
}

/// What runs now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Running {
    pub lines: usize,
    pub answers: usize,
    pub aside: usize,
}

/// A batch among those that share the places, until it is dropped.
pub(crate) struct Seat {
    places: Arc<Places>,
    id: SeatId,
}

/// The places of one line, until it is dropped.
pub(crate) struct Taken {
    places: Arc<Places>,
    seat: SeatId,
    answers: usize,
}

impl Places {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a batch a seat.
    pub fn join(self: &Arc<Self>, batch: &BatchId, (project, deadline): (&ProjectId, Timestamp)) -> Seat {
        let mut desk = self.desk();
        let least = desk.served.values().min().copied().unwrap_or(0);
        desk.served.entry(project.clone()).or_insert(least);
        let standing = Standing { project: project.clone(), deadline, answers: 0, wants: None, aside: 0 };
        desk.given += 1;
        let id = (batch.clone(), desk.given);
        desk.seats.insert(id.clone(), standing);
        Seat { places: Arc::clone(self), id }
    }

    pub fn running(&self) -> Running {
        let desk = self.desk();
        let aside = desk.seats.values().map(|standing| standing.aside).sum();
        Running { lines: desk.lines, answers: desk.answers, aside }
    }
}

impl Desk {
    /// Whose turn it is, and how many answers may run in all with his: whoever waits until his line fits, else of the
    /// projects the one that has least, and in it the batch that must end first. Only those count that may start
    /// something beside what else the engine does.
    fn next(&self, load: EngineLoad) -> Option<(SeatId, usize)> {
        let mut firsts: BTreeMap<&ProjectId, First<'_>> = BTreeMap::new();
        for (id, standing) in &self.seats {
            let Some(want) = standing.wants else { continue };
            let allowed = answers_allowed(load, self.answers, want.urgency);
            if self.answers >= allowed {
                continue;
            }
            if self.turn.as_ref() == Some(id) {
                return Some((id.clone(), allowed));
            }
            let first = First { deadline: standing.deadline, id, answers: want.answers, allowed };
            let known = firsts.entry(&standing.project).or_insert(first);
            if (first.deadline, first.id) < (known.deadline, known.id) {
                *known = first;
            }
        }
        // A line of many answers has its turn before its project has more than its share.
        let share = (ANSWERS_IN_FLIGHT_MAX / firsts.len().max(1)).max(1);
        let rank = |(project, first): &(&ProjectId, First<'_>)| {
            let served = self.served.get(*project).copied().unwrap_or(0);
            (self.answers_of(project) + first.answers.min(share), served, first.deadline, first.id.clone())
        };
        firsts.into_iter().min_by_key(rank).map(|(_, first)| (first.id.clone(), first.allowed))
    }

    fn answers_of(&self, project: &ProjectId) -> usize {
        self.seats.values().filter(|standing| standing.project == *project).map(|standing| standing.answers).sum()
    }
}

/// The first batch of a project.
#[derive(Clone, Copy)]
struct First<'d> {
    deadline: Timestamp,
    id: &'d SeatId,
    answers: usize,
    /// Answers in all, with its line.
    allowed: usize,
}

impl Seat {
    /// Says what the batch would start, if anything.
    pub fn want(&self, wants: Option<Want>) {
        let mut desk = self.places.desk();
        let Some(standing) = desk.seats.get_mut(&self.id) else { return };
        let steps_back = wants.is_none() && standing.wants.is_some();
        standing.wants = wants;
        desk.turn.take_if(|turn| steps_back && *turn == self.id);
        drop(desk);
        if steps_back {
            self.places.changed.notify_waiters();
        }
    }

    /// Says how many lines wait for something of their own.
    pub fn set_aside(&self, lines: usize) {
        if let Some(standing) = self.places.desk().seats.get_mut(&self.id) {
            standing.aside = lines;
        }
    }

    /// Takes the places of the line that is wanted, if it is this batch's turn and they are free.
    pub fn take(&self, load: EngineLoad) -> Option<Taken> {
        let mut desk = self.places.desk();
        let (next, allowed) = desk.next(load)?;
        if next != self.id {
            return None;
        }
        let running = desk.answers;
        let standing = desk.seats.get_mut(&self.id)?;
        let answers = standing.wants?.answers;
        if running > 0 && running + answers > allowed {
            desk.turn = Some(next);
            return None;
        }
        standing.answers += answers;
        standing.wants = None;
        let project = standing.project.clone();
        desk.turn = None;
        desk.lines += 1;
        desk.answers += answers;
        let served = desk.served.entry(project).or_default();
        *served = served.saturating_add(u64::try_from(answers).unwrap_or(u64::MAX));
        drop(desk);
        self.places.changed.notify_waiters();
        Some(Taken { places: Arc::clone(&self.places), seat: self.id.clone(), answers })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut desk = self.places.desk();
        if let Some(standing) = desk.seats.remove(&self.id)
            && !desk.seats.values().any(|other| other.project == standing.project)
        {
            desk.served.remove(&standing.project);
        }
        desk.turn.take_if(|turn| *turn == self.id);
        drop(desk);
        self.places.changed.notify_waiters();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut desk = self.places.desk();
        desk.lines = desk.lines.saturating_sub(1);
        desk.answers = desk.answers.saturating_sub(self.answers);
        if let Some(standing) = desk.seats.get_mut(&self.seat) {
            standing.answers = standing.answers.saturating_sub(self.answers);
        }
        drop(desk);
        self.places.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: EngineLoad = EngineLoad { running: 0, parked: 0, queued: 0, steps: 0, produced: 0 };

    /// Batches that want lines of so many answers for ever, as (name, project, deadline, answers).
    struct Hall {
        seats: Vec<(&'static str, Seat, usize)>,
        running: Vec<(&'static str, Taken)>,
        places: Arc<Places>,
    }

    impl Hall {
        fn new() -> Self {
            Self { seats: Vec::new(), running: Vec::new(), places: Arc::default() }
        }

        fn join(&mut self, name: &'static str, (project, deadline, answers): (&str, i64, usize)) {
            let id = format!("batch_{name}").parse().unwrap();
            let project: ProjectId = format!("proj_{project}").parse().unwrap();
            let seat = self.places.join(&id, (&project, Timestamp::from_seconds(deadline)));
            self.seats.push((name, seat, answers));
        }

        /// Starts whatever may start, and says which lines in their order.
        fn fill(&mut self) -> String {
            let mut started = Vec::new();
            for (_, seat, answers) in &self.seats {
                seat.want(Some(Want { answers: *answers, urgency: Urgency::Relaxed }));
            }
            loop {
                let before = started.len();
                for (name, seat, answers) in &self.seats {
                    if let Some(taken) = seat.take(IDLE) {
                        self.running.push((name, taken));
                        started.push(*name);
                        seat.want(Some(Want { answers: *answers, urgency: Urgency::Relaxed }));
                    }
                }
                if started.len() == before {
                    return started.join(" ");
                }
            }
        }

        /// Ends the oldest line of a batch.
        fn end(&mut self, name: &str) {
            let place = self.running.iter().position(|(running, _)| *running == name).unwrap();
            self.running.remove(place);
        }

        fn count(&self, name: &str) -> usize {
            self.running.iter().filter(|(running, _)| *running == name).count()
        }
    }

    #[test]
    fn the_first_batch_does_not_keep_the_places_that_it_took_alone() {
        let mut hall = Hall::new();
        hall.join("a", ("1", 100, 1));
        hall.fill();
        assert_eq!(hall.count("a"), 16);
        hall.join("b", ("2", 900, 1));
        assert_eq!(hall.fill(), "");
        for _ in 0..8 {
            hall.end("a");
            assert_eq!(hall.fill(), "b");
        }
        hall.end("a");
        assert_eq!(hall.fill(), "a", "half and half");
    }

    #[test]
    fn a_project_has_the_same_share_with_one_batch_or_many() {
        let mut hall = Hall::new();
        for name in ["a", "b", "c"] {
            hall.join(name, ("1", 100, 1));
        }
        hall.join("d", ("2", 100, 1));
        hall.fill();
        assert_eq!((hall.count("d"), hall.running.len()), (8, 16));
    }

    #[test]
    fn in_a_project_the_earliest_deadline_goes_first() {
        let mut hall = Hall::new();
        hall.join("late", ("1", 900, 1));
        hall.join("soon", ("1", 100, 1));
        hall.join("other", ("2", 500, 1));
        hall.fill();
        assert_eq!(["late", "soon", "other"].map(|name| hall.count(name)), [0, 8, 8]);
        // Who has nothing to start holds nobody up.
        let (_, seat, _) = hall.seats.remove(1);
        drop(seat);
        hall.end("soon");
        assert_eq!(hall.fill(), "late");
    }

    #[test]
    fn a_line_of_many_answers_takes_as_many_places_and_is_not_overtaken_for_ever() {
        let mut hall = Hall::new();
        hall.join("one", ("1", 100, 1));
        hall.join("two", ("2", 100, 1));
        hall.fill();
        hall.join("many", ("3", 100, 12));
        let mut rounds = 0;
        while hall.count("many") == 0 {
            let oldest = hall.running[0].0;
            hall.end(oldest);
            hall.fill();
            rounds += 1;
            assert!(rounds < 40, "overtaken for ever");
            assert!(hall.places.running().answers <= 16);
        }
        assert_eq!(hall.places.running().answers, 12 + hall.running.len() - 1);
        // After it the others have their turns.
        hall.end("many");
        let started = hall.fill();
        assert!(started.starts_with("one two") || started.starts_with("two one"), "{started}");
    }

    #[test]
    fn a_line_of_more_answers_than_places_runs_alone() {
        let mut hall = Hall::new();
        hall.join("huge", ("1", 100, 40));
        hall.join("one", ("2", 100, 1));
        hall.fill();
        let mut seen = 0;
        for _ in 0..100 {
            let oldest = hall.running[0].0;
            seen += usize::from(oldest == "huge");
            assert!(oldest != "huge" || hall.running.len() == 1);
            hall.end(oldest);
            hall.fill();
        }
        assert!(seen > 5, "{seen}");
        drop(hall.running.drain(..));
        assert_eq!(hall.places.running(), Running::default());
    }

    #[test]
    fn one_that_may_not_start_beside_others_does_not_hold_up_one_that_may() {
        let places = Arc::<Places>::default();
        let seat = |name: &str, deadline| {
            let (id, project): (BatchId, ProjectId) = (format!("batch_{name}").parse().unwrap(), "proj_1".parse().unwrap());
            places.join(&id, (&project, Timestamp::from_seconds(deadline)))
        };
        let (relaxed, late) = (seat("a", 10), seat("b", 20));
        relaxed.want(Some(Want { answers: 1, urgency: Urgency::Relaxed }));
        late.want(Some(Want { answers: 1, urgency: Urgency::Late }));
        let busy = EngineLoad { running: 9, queued: 3, ..IDLE };
        assert!(relaxed.take(busy).is_none());
        assert!(late.take(busy).is_some());
    }

    #[test]
    fn a_claim_that_ends_late_leaves_the_next_one_its_seat() {
        let places = Arc::<Places>::default();
        let (batch, project) = ("batch_1".parse().unwrap(), "proj_1".parse().unwrap());
        let join = || places.join(&batch, (&project, Timestamp::from_seconds(1)));
        let want = Some(Want { answers: 2, urgency: Urgency::Relaxed });
        let old = join();
        old.want(want);
        let running = old.take(IDLE).unwrap();
        let new = join();
        drop(old);
        new.want(want);
        let taken = new.take(IDLE).unwrap();
        drop(running);
        assert_eq!(places.running(), Running { lines: 1, answers: 2, aside: 0 });
        drop((taken, new));
        assert_eq!(places.running(), Running::default());
    }
}
