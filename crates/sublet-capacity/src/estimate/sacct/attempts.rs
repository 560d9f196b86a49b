//! Which rows tell the same attempt of a job, and where attempts without an end ended.

use super::table::{Remarks, Row};

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
            remarks.succeeded += 1;
        }
    }
    kept
}

fn is_same_submission(left: &Row<'_>, right: &Row<'_>) -> bool {
    let submitted = |row: &Row<'_>| row.submit_s.or(row.eligible_s);
    (left.cluster, left.id, submitted(left)) == (right.cluster, right.id, submitted(right))
}

fn knows(row: &Row<'_>) -> (bool, bool) {
    (row.end_s.is_some(), row.start_s.is_some())
}
