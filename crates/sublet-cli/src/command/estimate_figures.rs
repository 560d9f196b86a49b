//! The figures of `sublet estimate`, as JSON and as a table.

use serde::Serialize;
use serde_json::{Map, Number, Value};
use sublet_capacity::estimate::finite::JobTally;
use sublet_capacity::estimate::score::{JobScore, Millionths, Score, score_jobs};
use sublet_core::error::{Error, Result};
use sublet_core::notice::NoticeClass;

use crate::render::{Cell, NOTHING, Table};

/// What one policy reached.
pub(super) struct Reached {
    pub(super) policy: &'static str,
    pub(super) score: Score,
    /// If the jobs of customers were given.
    pub(super) jobs: Option<ReachedJobs>,
}

/// What became of jobs, what they paid, and what they could have paid at most; both as the bound counts it.
pub(super) struct ReachedJobs {
    pub(super) tally: JobTally,
    pub(super) value: u128,
    pub(super) bound: u128,
}

impl ReachedJobs {
    fn score(&self) -> JobScore {
        score_jobs(&self.tally, (self.value, self.bound))
    }
}

/// The figures of one policy.
#[derive(Serialize)]
pub(super) struct Figures {
    policy: &'static str,
    sold_share: Number,
    value_share_of_bound: Number,
    collision_ppm: Number,
    collision_episodes_per_day: Number,
    evictions_per_day: Number,
    sold_hours_per_eviction: Option<Number>,
    broken_promises: Map<String, Value>,
    compensation: Number,
    revenue: Number,
    idle_hours: Number,
    bound_hours: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs: Option<JobFigures>,
}

/// What became of the jobs of customers.
#[derive(Serialize)]
struct JobFigures {
    arrived: u64,
    finished: u64,
    gone: u64,
    waiting: u64,
    running: u64,
    interrupted: u64,
    asked_hours: Number,
    useful_hours: Number,
    lost_hours: Number,
    going_on_hours: Number,
    goodput: Number,
    mean_wait_seconds: Number,
    median_wait_seconds: i64,
    p95_wait_seconds: i64,
    bound_hours: Number,
    value_share_of_bound: Number,
}

fn number(value: Millionths) -> Result<Number> {
    value.to_string().parse().map_err(|error: serde_json::Error| Error::internal(error.to_string()))
}

pub(super) fn figures(reached: &Reached) -> Result<Figures> {
    let score = &reached.score;
    let broken = NoticeClass::ALL.into_iter().zip(score.broken_promises);
    Ok(Figures {
        policy: reached.policy,
        sold_share: number(score.sold_share)?,
        value_share_of_bound: number(score.value_share_of_bound)?,
        collision_ppm: number(score.collision_ppm)?,
        collision_episodes_per_day: number(score.collision_episodes_per_day)?,
        evictions_per_day: number(score.evictions_per_day)?,
        sold_hours_per_eviction: score.sold_hours_per_eviction.map(number).transpose()?,
        broken_promises: broken.map(|(class, units)| (class.as_str().to_owned(), Value::from(units))).collect(),
        compensation: number(score.compensation)?,
        revenue: number(score.revenue)?,
        idle_hours: number(score.idle_hours)?,
        bound_hours: number(score.bound_hours)?,
        jobs: reached.jobs.as_ref().map(job_figures).transpose()?,
    })
}

fn job_figures(reached: &ReachedJobs) -> Result<JobFigures> {
    let (counts, score) = (&reached.tally, reached.score());
    Ok(JobFigures {
        arrived: counts.arrived,
        finished: counts.finished,
        gone: counts.gone,
        waiting: counts.waiting,
        running: counts.running,
        interrupted: counts.interrupted,
        asked_hours: number(score.asked_hours)?,
        useful_hours: number(score.useful_hours)?,
        lost_hours: number(score.lost_hours)?,
        going_on_hours: number(score.going_on_hours)?,
        goodput: number(score.goodput)?,
        mean_wait_seconds: number(score.mean_wait_s)?,
        median_wait_seconds: score.median_wait_s,
        p95_wait_seconds: score.long_wait_s,
        bound_hours: number(score.bound_hours)?,
        value_share_of_bound: number(score.value_share_of_bound)?,
    })
}

/// So many decimals, cut off.
pub(super) fn shortened(value: Millionths, decimals: usize) -> String {
    let text = value.to_string();
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    if decimals == 0 { whole.to_owned() } else { format!("{whole}.{}", &part[..decimals.min(part.len())]) }
}

pub(super) fn table(all: &[Reached]) -> Table {
    let rows = all.iter().map(|Reached { policy, score, .. }| {
        let broken: Vec<String> = NoticeClass::ALL
            .into_iter()
            .zip(score.broken_promises)
            .filter(|(_, units)| *units > 0)
            .map(|(class, units)| format!("{class} {units}"))
            .collect();
        [
            Cell::text(policy),
            Cell::number(shortened(score.sold_share, 3)),
            Cell::number(shortened(score.value_share_of_bound, 3)),
            Cell::number(shortened(score.collision_ppm, 1)),
            Cell::number(shortened(score.evictions_per_day, 1)),
            Cell::number(score.sold_hours_per_eviction.map_or_else(|| NOTHING.to_owned(), |hours| shortened(hours, 1))),
            Cell::number(shortened(score.revenue, 1)),
            Cell::number(shortened(score.compensation, 1)),
            Cell::text(if broken.is_empty() { NOTHING.to_owned() } else { broken.join(", ") }),
        ]
    });
    Table::new(["policy", "sold", "of bound", "collisions ppm", "evictions/day", "h/eviction", "revenue h", "owed h", "broken"], "")
        .rows(rows)
}

/// What became of the jobs under each policy.
pub(super) fn job_table(all: &[Reached]) -> Table {
    let rows =
        all.iter().filter_map(|reached| reached.jobs.as_ref().map(|jobs| (reached.policy, jobs))).map(|(policy, reached)| {
            let (counts, score) = (&reached.tally, reached.score());
            [
                Cell::text(policy),
                Cell::number(counts.arrived),
                Cell::number(counts.finished),
                Cell::number(counts.gone),
                Cell::number(counts.waiting + counts.running),
                Cell::number(counts.interrupted),
                Cell::number(shortened(score.useful_hours, 1)),
                Cell::number(shortened(score.lost_hours, 1)),
                Cell::number(shortened(score.goodput, 3)),
                Cell::number(shortened(score.value_share_of_bound, 3)),
                Cell::number(score.median_wait_s),
                Cell::number(score.long_wait_s),
            ]
        });
    Table::new(
        [
            "policy",
            "jobs",
            "done",
            "gone",
            "open",
            "interrupted",
            "useful h",
            "lost h",
            "goodput",
            "of jobs' bound",
            "wait s p50",
            "p95",
        ],
        "no jobs",
    )
    .rows(rows)
}
