//! Which rows tell the same attempt of a job, and where attempts without an end ended.

use std::collections::{BTreeSet, HashMap};

use super::table::{Remarks, Row, ranges};

/// The attempts, each once: in the order of cluster, job and submission.
///
/// A job that is requeued is submitted anew, so an attempt is a job and its submission. Two rows of
/// one that both know when it started, and differ, are two attempts all the same.
pub(super) fn distinct<'a>(mut rows: Vec<Row<'a>>, remarks: &mut Remarks) -> Vec<Row<'a>> {
    let key = |row: &Row<'a>| (row.cluster, row.id, row.submit_s.or(row.eligible_s), row.line);
    rows.sort_unstable_by_key(key);
    let mut kept: Vec<Row<'a>> = Vec::with_capacity(rows.len());
    for row in rows {
        let same = kept.iter_mut().rev().take_while(|held| is_same_submission(held, &row));
        let same = same.into_iter().find(|held| held.start_s.is_none() || row.start_s.is_none() || held.start_s == row.start_s);
        match same {
            None => kept.push(row),
            Some(held) => {
                remarks.repeated += 1;
                // Printed later, it says at least as much.
                if knows(&row) >= knows(held) {
                    *held = row;
                }
            }
        }
    }
    for place in 1..kept.len() {
        let (before, after) = kept.split_at_mut(place);
        let (Some(held), Some(next)) = (before.last_mut(), after.first()) else { continue };
        if held.end_s.is_none() && (held.cluster, held.id) == (next.cluster, next.id) {
            let ended = next.submit_s.or(next.start_s).or(next.eligible_s);
            held.end_s = ended.filter(|end| held.start_s.is_none_or(|start| start <= *end)).or(held.start_s);
            held.is_superseded = true;
            remarks.succeeded += 1;
        }
    }
    without_told_tasks(&mut kept);
    kept
}

/// What is left of a job array is what no row of its own tells: months that were asked for one by one tell both.
fn without_told_tasks(rows: &mut Vec<Row<'_>>) {
    let submitted = |row: &Row<'_>| row.submit_s.or(row.eligible_s);
    let mut told: HashMap<(&str, &str, Option<i64>), BTreeSet<u32>> = HashMap::new();
    for row in rows.iter() {
        if let Some((array, task)) = row.shown_id.split_once('_')
            && let Ok(task) = task.parse()
        {
            told.entry((row.cluster, array, submitted(row))).or_default().insert(task);
        }
    }
    rows.retain_mut(|row| {
        let Some((array, _)) = row.shown_id.split_once("_[").filter(|_| row.start_s.is_none()) else { return true };
        let Some(told) = told.get(&(row.cluster, array, submitted(row))) else { return true };
        let is_left = |task: &u32| {
            ranges(row.shown_id).any(|(low, high, step)| (low..=high).contains(task) && (task - low).is_multiple_of(step))
        };
        let gone = u32::try_from(told.iter().filter(|task| is_left(task)).count()).unwrap_or(u32::MAX);
        row.tasks = row.tasks.saturating_sub(gone);
        row.tasks > 0
    });
}

fn is_same_submission(left: &Row<'_>, right: &Row<'_>) -> bool {
    let submitted = |row: &Row<'_>| row.submit_s.or(row.eligible_s);
    (left.cluster, left.id, submitted(left)) == (right.cluster, right.id, submitted(right))
}

fn knows(row: &Row<'_>) -> (bool, bool) {
    (row.end_s.is_some(), row.start_s.is_some())
}
