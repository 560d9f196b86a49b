//! Which batch of those that a process works on gives way to one that waits. Pure.
//!
//! A process works on a few batches at once. Projects have as many of them each as is fair, a project that has none
//! gets a turn after a while, and in a project the batch that must end first goes first.

use std::collections::BTreeMap;

use sublet_core::id::{BatchId, ProjectId};
use sublet_core::{DurationMs, Timestamp};
use sublet_store::batch::Waiting;

/// How long a project keeps its only batch at work while another project has none.
pub(crate) const TURN: DurationMs = DurationMs::from_seconds(60);

/// A batch that is worked on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Turn {
    pub batch: BatchId,
    pub project: ProjectId,
    pub expires_at: Timestamp,
    pub since: Timestamp,
}

/// A batch that gives way, and to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    pub batch: BatchId,
    pub to: ProjectId,
}

/// Who gives way, if anybody has to. `waiting` has the first batch of each project that has one waiting, the project
/// first whose last turn is longest ago.
pub(crate) fn plan_change(held: &[Turn], waiting: &[Waiting], now: Timestamp) -> Option<Change> {
    let mut counts: BTreeMap<&ProjectId, usize> = BTreeMap::new();
    for turn in held {
        *counts.entry(&turn.project).or_default() += 1;
    }
    let count = |project: &ProjectId| counts.get(project).copied().unwrap_or(0);
    let last = |project: &ProjectId| {
        held.iter().filter(|turn| turn.project == *project).max_by_key(|turn| (turn.expires_at, turn.batch.clone()))
    };
    let (richest, most) = counts.iter().max_by_key(|(_, count)| **count).map(|(project, count)| (*project, *count))?;
    let poorest = waiting.iter().min_by_key(|one| count(&one.project))?;
    let change = |turn: &Turn, to: &ProjectId| Some(Change { batch: turn.batch.clone(), to: to.clone() });
    if most > count(&poorest.project) + 1 {
        return last(richest).and_then(|turn| change(turn, &poorest.project));
    }
    let longest = held.iter().min_by_key(|turn| (turn.since, turn.batch.clone()))?;
    if count(&poorest.project) == 0 && now.since(longest.since) >= TURN {
        return change(longest, &poorest.project);
    }
    let sooner = waiting.iter().find_map(|one| last(&one.project).filter(|turn| one.expires_at < turn.expires_at));
    sooner.and_then(|turn| change(turn, &turn.project))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> ProjectId {
        format!("proj_{name}").parse().unwrap()
    }

    /// Batches as `project:deadline@since`.
    fn held(text: &str) -> Vec<Turn> {
        let turn = |(number, one): (usize, &str)| {
            let (name, times) = one.split_once(':').unwrap();
            let (deadline, since) = times.split_once('@').unwrap();
            let at = |seconds: &str| Timestamp::from_seconds(seconds.parse().unwrap());
            Turn {
                batch: format!("batch_{number}").parse().unwrap(),
                project: project(name),
                expires_at: at(deadline),
                since: at(since),
            }
        };
        text.split(' ').enumerate().map(turn).collect()
    }

    fn waiting(text: &str) -> Vec<Waiting> {
        let one = |one: &str| {
            let (name, deadline) = one.split_once(':').unwrap();
            let expires_at = Timestamp::from_seconds(deadline.parse().unwrap());
            Waiting { project: project(name), expires_at, last_turn: Timestamp::EPOCH }
        };
        text.split_terminator(' ').map(one).collect()
    }

    #[test]
    fn who_gives_way_to_whom() {
        let cases = [
            ("nobody waits", "a:9@0 a:9@0", "", ""),
            ("a project without one gets one of the richest at once, the one with most time", "a:5@0 a:9@0 a:7@0", "b:99", "1 b"),
            ("a just share is left alone", "a:9@0 a:9@0 b:9@0", "b:99", ""),
            ("a later deadline waits in its project", "a:5@0 a:9@0", "a:10", ""),
            ("an earlier one does not", "a:5@0 a:9@0", "a:8", "1 a"),
            ("in every project", "a:5@0 a:9@0 b:50@0 b:60@0", "a:10 b:55", "3 b"),
            ("one each: the turn is not over", "a:9@50 b:9@60", "c:9", ""),
            ("one each: the longest turn is over", "a:9@45 b:9@39", "c:9", "1 c"),
            ("a turn that is over goes before an earlier deadline", "a:50@0 b:9@50", "c:99 a:40", "0 c"),
            ("the project whose turn is longest ago", "a:9@0 b:9@0", "d:99 c:9", "0 d"),
        ];
        for (what, is_held, waits, expected) in cases {
            let change = plan_change(&held(is_held), &waiting(waits), Timestamp::from_seconds(100));
            let text = change.map_or(String::new(), |change| {
                format!("{} {}", &change.batch.as_str()["batch_".len()..], &change.to.as_str()["proj_".len()..])
            });
            assert_eq!(text, expected, "{what}");
        }
    }

    #[test]
    fn changes_come_to_an_end() {
        // A project with everything, and three that wait: each has its share, and then nothing changes until turns end.
        let mut held = held("a:1@0 a:2@0 a:3@0 a:4@0 a:5@0 a:6@0 a:7@0 a:8@0");
        let waiting = waiting("b:50 c:60 d:70");
        let mut changes = 0;
        while let Some(change) = plan_change(&held, &waiting, Timestamp::from_seconds(1)) {
            let place = held.iter().position(|turn| turn.batch == change.batch).unwrap();
            let expires_at = waiting.iter().find(|one| one.project == change.to).unwrap().expires_at;
            held[place] = Turn { project: change.to, expires_at, ..held[place].clone() };
            changes += 1;
            assert!(changes <= 6, "no end of changes");
        }
        let count = |name: &str| held.iter().filter(|turn| turn.project == project(name)).count();
        assert_eq!(["a", "b", "c", "d"].map(count).iter().sum::<usize>(), 8);
        assert!(["a", "b", "c", "d"].map(count).iter().all(|count| (1..=3).contains(count)));
    }
}
