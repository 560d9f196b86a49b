//! Jobs of customers: by hand, and what holds for all of them.

use proptest::prelude::*;
use sublet_core::notice::NoticeClass;

use super::demand::{Demand, Pool, Step};
use super::finite::{JobTally, Outside, replay_jobs};
use super::jobs::{Job, parse};
use super::leases::{End, EndKind, Leases};
use super::replay::{Levels, Manner, SellingPolicy, Tally};
use super::running::{Held, Running};
use super::score::{Named, run_jobs, score_jobs};
use super::terms::Terms;
use super::tests::pool;

/// Sells the same levels, or what is idle if that is less.
struct Fixed(Levels, Manner);

impl SellingPolicy for Fixed {
    fn levels(&mut self, step: &Step) -> Levels {
        Levels(self.0.0.map(|level| level.min(step.idle())))
    }
    fn manner(&self) -> Manner {
        self.1
    }
}

fn job(arrival_s: i64, units: u32, duration_s: i64, patience_s: Option<i64>) -> Job {
    Job { arrival_s, units, duration_s, patience_s }
}

fn replayed(minutes: &[u32], jobs: &[Job], checkpoint_s: Option<i64>, manner: Manner) -> (Tally, JobTally, Vec<End>) {
    let end_s = i64::try_from(minutes.len()).unwrap() * 60;
    let mut policy = Fixed(Levels([8, 8, 8, 0, 0, 0]), manner);
    let mut ends = Vec::new();
    let outside = Outside { jobs, checkpoint_s };
    let (tally, counts) = replay_jobs(&pool(8, minutes), end_s, (&Terms::default(), outside), &mut policy, &mut |moment| {
        ends.extend(moment.ends.to_vec());
    });
    (tally, counts, ends)
}

#[test]
fn a_job_takes_the_longest_notice_that_is_not_longer_than_it_runs() {
    let jobs = [job(0, 2, 60, None), job(0, 2, 120, None), job(0, 2, 1_000, None), job(0, 3, 1_000, None)];
    let (tally, counts, ends) = replayed(&[0; 60], &jobs, None, Manner::PLAIN);
    let ended: Vec<_> = ends.iter().map(|end| (end.class, end.units, end.at_s, end.kind)).collect();
    assert_eq!(
        ended,
        [
            (NoticeClass::N0, 2, 60, EndKind::Over),
            (NoticeClass::N2m, 2, 120, EndKind::Over),
            (NoticeClass::N15m, 2, 1_000, EndKind::Over),
            // Three units are free when the first job is done, a decision after that.
            (NoticeClass::N15m, 3, 1_060, EndKind::Over),
        ]
    );
    assert_eq!((counts.arrived, counts.finished, counts.waits_s.as_slice()), (4, 4, &[0, 0, 0, 60][..]));
    assert_eq!(counts.useful_s, 2 * 60 + 2 * 120 + 5 * 1_000);
    assert_eq!(tally.revenue, 120 * 250_000 + 240 * 400_000 + 5_000 * 550_000);
    assert_eq!(tally.sold_s, counts.useful_s);
}

#[test]
fn who_is_told_saves_at_the_end_and_who_is_killed_since_the_last_checkpoint() {
    // Four units until minute 30, then none: a job of four is told 15 minutes before, or killed at once.
    let mut minutes = vec![4; 120];
    minutes[30..60].fill(8);
    let jobs = [job(0, 4, 3_000, None)];
    for (manner, checkpoint_s, useful_s, lost_s) in [
        (Manner::PLAIN, None, 3_000, 2_700),
        // Told at 1,800, it runs until 2,700, and 300 seconds are left.
        (Manner::PLAIN, Some(1_000), 3_000, 0),
        (Manner::FULL, None, 3_000, 1_800),
        (Manner::FULL, Some(1_000), 3_000, 800),
    ] {
        let (tally, counts, ends) = replayed(&minutes, &jobs, checkpoint_s, manner);
        let (useful, lost) = (counts.useful_s / 4, counts.lost_s / 4);
        assert_eq!((counts.finished, useful, lost), (1, useful_s, lost_s), "{manner:?} {checkpoint_s:?}");
        assert_eq!(counts.interrupted, 1);
        assert_eq!(ends[0].kind, if manner.breaks { EndKind::Broken } else { EndKind::Evicted });
        // Without breaking, internal demand waits for the notice.
        assert_eq!(tally.collision_s > 4 * 5, !manner.breaks);
    }
}

#[test]
fn who_has_waited_enough_goes_and_takes_what_was_saved_with_it() {
    let mut minutes = vec![0; 60];
    minutes[10..50].fill(8);
    let jobs = [job(0, 8, 1_200, Some(600)), job(660, 1, 60, Some(60)), job(700, 1, 60, None)];
    let (_, counts, _) = replayed(&minutes, &jobs, Some(100), Manner::FULL);
    // The first is killed at 600 with 600 seconds saved, and leaves at 1,200.
    assert_eq!((counts.gone, counts.finished, counts.useful_s, counts.lost_s), (2, 1, 60, 8 * 600));
    assert_eq!(counts.waits_s, [0, 3_000 - 700]);
    let score = score_jobs(&counts, (0, 0));
    assert_eq!((score.median_wait_s, score.long_wait_s, score.goodput.to_string().as_str()), (0, 2_300, "0.012346"));
}

#[test]
fn an_outage_ends_jobs_and_nothing_is_owed() {
    let mut minutes = vec![0; 60];
    minutes[10..20].fill(u32::MAX);
    let (tally, counts, _) = replayed(&minutes, &[job(0, 8, 1_200, None)], None, Manner::FULL);
    assert_eq!((counts.finished, counts.interrupted, counts.lost_s), (1, 1, 8 * 600));
    assert_eq!((tally.compensation, tally.evictions(), tally.collision_s), (0, 0, 0));
}

#[test]
fn needless_victims_are_spared() {
    // Six of eight units run; internal demand takes four, so two have to go: the job of two, not that of four.
    let mut minutes = vec![0; 30];
    minutes[5..].fill(4);
    let jobs = [job(0, 4, 1_700, None), job(60, 2, 1_000, None)];
    let (_, counts, ends) = replayed(&minutes, &jobs, None, Manner::FULL);
    assert_eq!((ends[0].units, ends[0].kind, ends[0].at_s), (2, EndKind::Broken, 300));
    assert_eq!(counts.interrupted, 1);
}

#[test]
fn nobody_is_killed_for_units_that_are_free_as_soon() {
    // At 300 internal demand takes four units, and the job of four is done at 302, before a kill would be.
    let mut minutes = vec![0; 60];
    minutes[5..].fill(4);
    let jobs = [job(0, 4, 302, None), job(0, 4, 3_000, None)];
    let (tally, counts, _) = replayed(&minutes, &jobs, None, Manner::FULL);
    assert_eq!((counts.interrupted, counts.finished, tally.collision_s), (0, 2, 4 * 2));
    let mut leases = Leases::default();
    leases.sell(NoticeClass::N2m, 4, 0);
    leases.give_notice(NoticeClass::N2m, 2, 0, &Terms::default());
    assert_eq!(leases.take_back(2, 117, &Terms::default()), 0);
    assert_eq!((leases.running_total(), leases.counts[1].broken), (4, 0));
    leases.take_back(3, 117, &Terms::default());
    assert_eq!((leases.running_total(), leases.counts[1].broken), (3, 1));
}

#[test]
fn a_notice_is_taken_back_where_every_shorter_class_has_room_too() {
    // Told until 300: at 100 it still counts in two minutes' notice, at 250 it does not.
    for (now_s, missing, still_told_s) in
        [(100, [0, 0, 4, 0, 0, 0], None), (250, [0, 0, 4, 0, 0, 0], Some(300)), (250, [0, 4, 4, 0, 0, 0], None)]
    {
        let mut running = Running::default();
        let class_held = NoticeClass::N15m;
        let held = Held { job: 0, units: 4, class: class_held, began_s: 0, ran_since_s: 0, finish_s: 9_000, told_s: Some(300) };
        running.start(held);
        running.keep_on(class_held, missing, (now_s, now_s));
        let told_s = running.lose_all()[0].told_s;
        assert_eq!(told_s, still_told_s, "{now_s} {missing:?}");
    }
}

#[test]
fn jobs_that_never_fit_keep_nobody_from_being_asked() {
    let mut jobs = vec![job(0, 9, 60, None); 1_500];
    jobs.push(job(0, 8, 60, None));
    let (_, counts, _) = replayed(&[0; 10], &jobs, None, Manner::FULL);
    assert_eq!((counts.finished, counts.waiting), (1, 1_500));
}

#[test]
fn who_came_first_of_those_that_fit_is_asked_first() {
    let jobs = [job(0, 5, 60, None), job(0, 4, 60, None), job(0, 3, 60, None), job(0, 3, 60, None)];
    let (_, counts, _) = replayed(&[0; 10], &jobs, None, Manner::PLAIN);
    assert_eq!(counts.waits_s, [0, 0, 60, 60], "five and three, then four and three");
}

#[test]
fn a_job_that_is_done_when_an_outage_begins_is_done() {
    let mut minutes = vec![0; 60];
    minutes[20..30].fill(u32::MAX);
    for checkpoint_s in [None, Some(60)] {
        let (tally, counts, _) = replayed(&minutes, &[job(0, 8, 1_200, None)], checkpoint_s, Manner::FULL);
        assert_eq!((counts.finished, counts.interrupted, counts.lost_s), (1, 0, 0), "{checkpoint_s:?}");
        assert_eq!(tally.sold_s, 8 * 1_200);
    }
}

#[test]
fn files_of_jobs_are_read_and_wrong_lines_named() {
    let found = parse("tenant,arrival_s,gpus,duration_s,qos,patience_s\na,60,0.47,30,LS,\nb,0,8.0,3600,BE,90\n").unwrap();
    assert_eq!(found.jobs, [job(0, 8, 3_600, Some(90)), job(60, 1, 30, None)]);
    assert_eq!(found.rounded, 1);
    assert_eq!(found.on_clock(1_000).jobs[1].arrival_s, 1_060);
    let head = "arrival_s,gpus,duration_s\n";
    for (text, said) in [
        (String::new(), "line 1: the column arrival_s is missing"),
        ("arrival_s,gpus\n".to_owned(), "line 1: the column duration_s is missing"),
        (head.to_owned(), "line 2: there are no jobs"),
        (format!("{head}0,1\n"), "line 2: there are 2 fields"),
        (format!("{head}0,1,60\n-5,1,60\n"), "line 3: arrival_s is '-5'"),
        (format!("{head}0,0,60\n"), "line 2: gpus is '0'"),
        (format!("{head}0,-1,60\n"), "line 2: gpus is '-1'"),
        (format!("{head}0,1e3,60\n"), "line 2: gpus is '1e3'"),
        (format!("{head}0,1,0.5\n"), "line 2: duration_s is '0.5'"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.to_string().contains(said) && !error.alternatives().is_empty(), "{said}: {error}");
    }
}

#[test]
fn several_pools_are_refused() {
    let demand = Demand::new(vec![pool(8, &[0; 9]), Pool { name: "b".to_owned(), ..pool(8, &[0; 9]) }]);
    let outside = Outside { jobs: &[job(0, 1, 60, None)], checkpoint_s: None };
    let error = run_jobs(&demand, &Terms::default(), (Named::Default, outside), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("2 pools"), "{error}");
}

#[test]
fn prices_are_parts_of_the_list_price_that_never_fall() {
    let terms = Terms::default().with_prices("n0=.1, firm=1.25").unwrap();
    assert_eq!(terms.prices_ppm, [100_000, 400_000, 550_000, 700_000, 850_000, 1_250_000]);
    for wrong in ["", "n0", "n0=", "n0=.", "n0=-1", "n0=0.1234567", "n9=.1", "n0=.9", "n0=9999", "n0=.1,,"] {
        let error = Terms::default().with_prices(wrong).unwrap_err();
        assert!(!error.alternatives().is_empty(), "{wrong}");
    }
}

fn minutes() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec((prop_oneof![9 => 0_u32..=12, 1 => Just(u32::MAX)], 1_usize..60), 1..16)
        .prop_map(|runs| runs.into_iter().flat_map(|(value, length)| std::iter::repeat_n(value, length)).collect())
}

fn jobs() -> impl Strategy<Value = Vec<Job>> {
    // Half of them are done at a decision, as outages begin at one.
    let length = prop_oneof![1_i64..9_000, (1_i64..150).prop_map(|minutes| minutes * 60)];
    let arrival = prop_oneof![0_i64..30_000, (0_i64..500).prop_map(|minutes| minutes * 60)];
    let job = (arrival, 1_u32..14, length, prop::option::of(0_i64..5_000));
    prop::collection::vec(job, 1..40).prop_map(|jobs| {
        let mut jobs: Vec<Job> =
            jobs.into_iter().map(|(at, units, length, patience)| job_of(at, units, length, patience)).collect();
        jobs.sort_by_key(|job| job.arrival_s);
        jobs
    })
}

fn job_of(arrival_s: i64, units: u32, duration_s: i64, patience_s: Option<i64>) -> Job {
    job(arrival_s, units, duration_s, patience_s)
}

fn manners() -> impl Strategy<Value = Manner> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(breaks, keeps_on, extends)| Manner {
        breaks,
        keeps_on,
        extends,
        outlasts: false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_job_is_lost_and_no_second_counted_twice(
        minutes in minutes(), jobs in jobs(), manner in manners(), checkpoint_s in prop::option::of(1_i64..2_000), reclaim_s in 0_u32..200,
        levels in prop::array::uniform6(0_u32..=12),
    ) {
        let mut levels = levels;
        levels.sort_unstable_by(|left, right| right.cmp(left));
        let pool = pool(12, &minutes);
        let end_s = i64::try_from(minutes.len()).unwrap() * 60;
        let terms = Terms { reclaim_s, ..Terms::default() };
        let outside = Outside { jobs: &jobs, checkpoint_s };
        let mut most = true;
        let (tally, counts) = replay_jobs(&pool, end_s, (&terms, outside), &mut Fixed(Levels(levels), manner), &mut |moment| {
            most &= moment.running.iter().sum::<u32>() <= 12;
        });
        prop_assert!(most, "more runs than there is");
        prop_assert_eq!(counts.arrived, counts.finished + counts.gone + counts.waiting + counts.running);
        let ran: u128 = tally.class_s.iter().sum();
        prop_assert_eq!(ran, counts.useful_s + counts.lost_s + counts.going_on_s);
        prop_assert_eq!(tally.class_s[5], 0, "jobs buy no firm windows");
        prop_assert!(tally.counts.iter().all(|counts| counts.broken <= counts.evicted));
        prop_assert!(manner.breaks || tally.compensation == 0);
        if checkpoint_s == Some(1) {
            prop_assert!(counts.gone > 0 || counts.lost_s == 0);
        }
    }

    #[test]
    fn constant_demand_and_constant_levels_interrupt_nobody(
        in_use in 0_u32..12, jobs in jobs(), manner in manners(), reclaim_s in 0_u32..200, levels in prop::array::uniform6(0_u32..=12),
    ) {
        let mut levels = levels;
        levels.sort_unstable_by(|left, right| right.cmp(left));
        let minutes = [in_use; 700];
        let terms = Terms { reclaim_s, ..Terms::default() };
        let outside = Outside { jobs: &jobs, checkpoint_s: None };
        let (tally, counts) =
            replay_jobs(&pool(12, &minutes), 700 * 60, (&terms, outside), &mut Fixed(Levels(levels), manner), &mut |_| {});
        prop_assert_eq!((counts.interrupted, counts.lost_s, tally.evictions(), tally.collision_s), (0, 0, 0, 0));
    }

    #[test]
    fn every_policy_sells_to_jobs_only_what_is_idle(minutes in minutes(), jobs in jobs(), all in prop::sample::select(Named::all())) {
        let demand = Demand::new(vec![pool(12, &minutes)]);
        let outside = Outside { jobs: &jobs, checkpoint_s: Some(600) };
        let replay = || run_jobs(&demand, &Terms::default(), (all.1, outside), &mut |_| {}).unwrap();
        let (tally, counts) = replay();
        prop_assert!(tally.sold_s <= tally.idle_s && counts.finished <= counts.arrived);
        prop_assert_eq!((tally, counts), replay(), "deterministic");
    }

    #[test]
    fn reading_jobs_never_panics(text in "(arrival_s,gpus,duration_s,patience_s\n)?[-0-9a-z,.\n]{0,80}") {
        let _ = parse(&text);
    }
}
