//! The bound of jobs: by hand, second by second, and above what policies earn.

use proptest::prelude::*;
use sublet_core::notice::NoticeClass;

use super::bound::bound;
use super::demand::Demand;
use super::finite::Outside;
use super::job_bound::{JobBound, job_bound};
use super::jobs::Job;
use super::score::{Named, run_jobs};
use super::terms::{Terms, term_s};
use super::tests::pool;

fn job(arrival_s: i64, units: u32, duration_s: i64) -> Job {
    Job { arrival_s, units, duration_s, patience_s: None }
}

fn bound_of(minutes: &[u32], jobs: &[Job]) -> JobBound {
    job_bound(&pool(8, minutes), i64::try_from(minutes.len()).unwrap() * 60, &Terms::default(), jobs)
}

#[test]
fn few_jobs_pay_for_few_hours_and_many_for_what_is_idle() {
    // Eight units idle for half an hour.
    let one = bound_of(&[0; 30], &[job(0, 2, 1_000)]);
    assert_eq!(one.served_s, [2_000, 2_000, 2_000, 0, 0, 0], "a quarter of an hour, and not a whole one");
    assert_eq!(one.value, 2_000 * 550_000);
    let many = bound_of(&[0; 30], &[job(0, 8, 1_000), job(600, 8, 1_000), job(1_200, 8, 1_000)]);
    assert_eq!(many.served_s[0], 8 * 1_800);
    assert_eq!(bound_of(&[0; 30], &[job(900, 8, 3_600)]).served_s[0], 8 * 900, "nothing before it comes, nothing behind the end");
    assert_eq!(bound_of(&[0; 30], &[job(-5, 8, 60), job(1_800, 8, 60)]), JobBound::default());
    let outage = [vec![0; 10], vec![u32::MAX; 10], vec![0; 10]].concat();
    assert_eq!(
        bound_of(&outage, &[job(0, 8, 1_800)]).served_s[..3],
        [8 * 1_200, 8 * 1_200, 0],
        "ten minutes are no quarter of an hour"
    );
}

/// The opening and the queue, second by second and from their definitions.
fn slowly(minutes: &[u32], jobs: &[Job]) -> [u128; 6] {
    let end = i64::try_from(minutes.len()).unwrap() * 60;
    let idle = |second: i64| minutes[usize::try_from(second / 60).unwrap()];
    let idle = |second: i64| if idle(second) == u32::MAX { 0 } else { 8 - idle(second).min(8) };
    NoticeClass::ALL.map(|class| {
        let term = term_s(class).max(1);
        if class == NoticeClass::Firm || term > end {
            return 0;
        }
        let eroded: Vec<u32> = (0..=end - term).map(|from| (from..from + term).map(idle).min().unwrap()).collect();
        let (mut waiting, mut served) = (0, 0);
        for second in 0..end {
            let lasts = |job: &&Job| job.arrival_s == second && job.duration_s >= term_s(class);
            waiting += jobs.iter().filter(lasts).map(|job| i64::from(job.units) * job.duration_s.min(end - second)).sum::<i64>();
            let from = usize::try_from((second - term + 1).max(0)).unwrap();
            let until = usize::try_from(second.min(end - term)).unwrap();
            let open = eroded[from..=until].iter().max().copied().unwrap();
            let now = waiting.min(i64::from(open));
            waiting -= now;
            served += now;
        }
        u128::try_from(served).unwrap()
    })
}

fn histories() -> impl Strategy<Value = (Vec<u32>, Vec<Job>)> {
    let minute = prop_oneof![8 => 0_u32..9, 1 => Just(u32::MAX)];
    let minutes = prop::collection::vec((minute, 1_usize..12), 1..8);
    let minutes = minutes.prop_map(|parts| parts.into_iter().flat_map(|(level, span)| vec![level; span]).collect::<Vec<u32>>());
    let jobs =
        prop::collection::vec((0_i64..2_000, 1_u32..9, prop::sample::select(vec![1_i64, 60, 130, 500, 1_000, 4_000])), 0..12);
    (minutes, jobs).prop_map(|(minutes, mut jobs)| {
        jobs.sort_unstable();
        (minutes, jobs.into_iter().map(|(at, units, lasts)| job(at, units, lasts)).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_what_a_queue_serves_and_never_more_than_demand_without_end((minutes, jobs) in histories()) {
        let found = bound_of(&minutes, &jobs);
        let end_s = i64::try_from(minutes.len()).unwrap() * 60;
        prop_assert_eq!(found.served_s, slowly(&minutes, &jobs));
        prop_assert!(found.value <= bound(&pool(8, &minutes), end_s, &Terms::default()).value);
    }

    #[test]
    fn no_policy_runs_more_work_than_that((minutes, jobs) in histories()) {
        let (bound, demand) = (bound_of(&minutes, &jobs), Demand::new(vec![pool(8, &minutes)]));
        for (name, policy) in Named::all() {
            // Whoever is interrupted has saved everything, so that no work is done twice.
            let outside = Outside { jobs: &jobs, checkpoint_s: Some(1) };
            let (tally, counts) = run_jobs(&demand, &Terms::default(), (policy, outside), &mut |_| {}).unwrap();
            prop_assert!(counts.lost_s > 0 || tally.sold_s <= bound.served_s[0], "{}: {} of {}", name, tally.sold_s, bound.served_s[0]);
        }
    }
}
