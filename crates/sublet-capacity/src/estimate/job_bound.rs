//! What these jobs could have paid at most, under any policy and with the future known.
//!
//! As [`super::bound`], tier by tier: who holds a class or a longer one is among the jobs that run at least its term, and
//! lies in the opening of the idle series by it. For each tier all such jobs are one queue of work that comes when they
//! come and is served as fast as that opening allows: what is served by the end is the most that any order of work could
//! serve, since a queue that never stands still while there is work leaves the least. With a single tier, units that can be
//! split and nobody who leaves, that is the maximum flow from jobs to instants.
//!
//! It is a relaxation, and the linear program of the jobs is not larger: gangs may be split and spread, nobody loses
//! patience, and each tier is served by itself. Work counts once, so what a policy earns for work that is done again is not
//! covered.

use sublet_core::notice::NoticeClass;

use super::bound::{Stretch, openings};
use super::demand::Pool;
use super::jobs::Job;
use super::terms::{CLASSES, Terms, index, term_s};

/// Unit-seconds that jobs could run at most.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct JobBound {
    /// In each class or a longer one; jobs buy no `firm`.
    pub served_s: [u128; CLASSES],
    /// In seconds of list price and parts per million.
    pub value: u128,
}

/// The bound of one pool for jobs in the order of their arrival.
pub fn job_bound(pool: &Pool, end_s: i64, terms: &Terms, jobs: &[Job]) -> JobBound {
    let start_s = pool.steps.first().map_or(end_s, |step| step.at_s);
    let comes = |job: &&Job| (start_s..end_s).contains(&job.arrival_s);
    let mut total = JobBound::default();
    for class in NoticeClass::ALL.into_iter().filter(|class| *class != NoticeClass::Firm) {
        let term_s = term_s(class);
        let work = jobs.iter().filter(comes).filter(|job| job.duration_s >= term_s).map(|job| {
            let lasts_s = job.duration_s.min(end_s - job.arrival_s);
            (job.arrival_s, u128::from(job.units) * u128::try_from(lasts_s).unwrap_or(0))
        });
        total.served_s[index(class)] = served(&openings(pool, end_s, term_s), work);
    }
    let mut below = 0;
    for (served, price) in total.served_s.iter().zip(terms.prices_ppm) {
        total.value += served * u128::from(price.saturating_sub(below));
        below = price;
    }
    total
}

/// How much of the work is served, as fast as the stretches allow. Work is in the order of its coming.
fn served(stretches: &[Stretch], work: impl Iterator<Item = (i64, u128)>) -> u128 {
    let mut work = work.peekable();
    let (mut waiting, mut served) = (0_u128, 0_u128);
    for stretch in stretches {
        let mut now_s = stretch.from_s;
        while now_s < stretch.to_s {
            while let Some((_, more)) = work.next_if(|(at_s, _)| *at_s <= now_s) {
                waiting += more;
            }
            let until_s = work.peek().map_or(stretch.to_s, |(at_s, _)| stretch.to_s.min(*at_s));
            let most = u128::from(stretch.idle) * u128::try_from(until_s - now_s).unwrap_or(0);
            served += waiting.min(most);
            waiting -= waiting.min(most);
            now_s = until_s;
        }
    }
    served
}
