//! The figures of a replay, to be read together: shares, collisions, evictions, promises, value.

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::notice::NoticeClass;

use super::baseline::Baseline;
use super::bound::{Bound, bound};
use super::demand::Demand;
use super::finite::{JobTally, Outside, replay_jobs};
use super::job_bound::job_bound;
use super::jobs::Job;
use super::layered::{Layered, Part};
use super::replay::{SellingPolicy, Tally, Watch, replay};
use super::terms::{PPM, Terms, index};

const HOUR_S: u128 = 3_600;
const DAY_S: u128 = 86_400;

/// A policy by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named {
    Default,
    Baseline(Baseline),
    Without(Part),
}

impl Named {
    /// Ours first, then the rules of thumb, then ours without one part each.
    pub fn all() -> Vec<(&'static str, Self)> {
        let baselines = Baseline::ALL.into_iter().map(|(name, baseline)| (name, Self::Baseline(baseline)));
        let parts = Part::ALL.into_iter().map(|(name, part)| (name, Self::Without(part)));
        std::iter::once(("default", Self::Default)).chain(baselines).chain(parts).collect()
    }

    /// The policies that a word means: a name, `all` for ours and the rules of thumb, or `parts` for
    /// ours and what it is without each part.
    ///
    /// # Errors
    /// [`ErrorCode::Usage`] with the words that mean something.
    pub fn chosen(word: &str) -> Result<Vec<(&'static str, Self)>> {
        let chosen: Vec<_> = Self::all()
            .into_iter()
            .filter(|(name, policy)| match word {
                "all" => !matches!(policy, Self::Without(_)),
                "parts" => !matches!(policy, Self::Baseline(_)),
                word => *name == word,
            })
            .collect();
        if chosen.is_empty() {
            let names: Vec<&str> = Self::all().into_iter().map(|(name, _)| name).collect();
            let shown: String = word.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(Error::new(ErrorCode::Usage, format!("there is no policy '{shown}'"))
                .alternative(format!("use all, parts, or one of {}", names.join(", "))));
        }
        Ok(chosen)
    }

    /// The policy with an empty memory.
    pub fn start(self, terms: &Terms) -> Box<dyn SellingPolicy> {
        match self {
            Self::Default => Box::new(Layered::new(terms)),
            Self::Baseline(baseline) => baseline.start(),
            Self::Without(part) => Box::new(Layered::without(terms, part)),
        }
    }
}

/// The bound of all pools.
pub fn bound_of(demand: &Demand, terms: &Terms) -> Bound {
    let mut total = Bound::default();
    for pool in &demand.pools {
        total.add(&bound(pool, demand.end_s, terms));
    }
    total
}

/// Replays every pool with a memory of its own. `watch` hears the pool's place before each moment.
pub fn run(demand: &Demand, terms: &Terms, policy: Named, watch: &mut dyn FnMut(usize, &super::replay::Moment<'_>)) -> Tally {
    let mut total = Tally::default();
    for (place, pool) in demand.pools.iter().enumerate() {
        let mut selling = policy.start(terms);
        let mut hear = |moment: &super::replay::Moment<'_>| watch(place, moment);
        let hear: &mut Watch<'_> = &mut hear;
        total.add(&replay(pool, demand.end_s, terms, selling.as_mut(), hear));
    }
    total
}

/// Replays a demand of one pool for the jobs of customers.
///
/// # Errors
/// [`ErrorCode::Usage`] if there are several pools.
pub fn run_jobs(
    demand: &Demand,
    terms: &Terms,
    (policy, outside): (Named, Outside<'_>),
    watch: &mut Watch<'_>,
) -> Result<(Tally, JobTally)> {
    let [pool] = demand.pools.as_slice() else {
        let message = format!("there are {} pools, and nothing says which job goes to which", demand.pools.len());
        return Err(Error::new(ErrorCode::Usage, message).alternative("take all pools as one: --merge-pools"));
    };
    let mut selling = policy.start(terms);
    Ok(replay_jobs(pool, demand.end_s, (terms, outside), selling.as_mut(), watch))
}

/// What these jobs could have paid at most, in seconds of list price and parts per million.
pub fn bound_of_jobs(demand: &Demand, terms: &Terms, jobs: &[Job]) -> u128 {
    demand.pools.iter().map(|pool| job_bound(pool, demand.end_s, terms, jobs).value).sum()
}

/// What became of jobs, in figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobScore {
    /// Of the work that was done and is not going on, what was not for nothing.
    pub goodput: Millionths,
    /// Hours of a unit.
    pub asked_hours: Millionths,
    pub useful_hours: Millionths,
    pub lost_hours: Millionths,
    /// Of those that run at the end, since they last started.
    pub going_on_hours: Millionths,
    /// Seconds until they first ran, of those that did.
    pub mean_wait_s: Millionths,
    pub median_wait_s: i64,
    /// All but a twentieth waited at most so long.
    pub long_wait_s: i64,
    /// What these jobs could have paid at most, in hours of a unit at list price.
    pub bound_hours: Millionths,
    /// Revenue less compensation, of that.
    pub value_share_of_bound: Millionths,
}

/// The figures of jobs; `value` of `bound`, both as in [`bound_of_jobs`].
pub fn score_jobs(counts: &JobTally, (value, bound): (u128, u128)) -> JobScore {
    let waited: u128 = counts.waits_s.iter().map(|wait| u128::try_from(*wait).unwrap_or(0)).sum();
    let number = counts.waits_s.len();
    let rank = |numerator: usize, denominator: usize| {
        let place = (number * numerator).div_ceil(denominator).saturating_sub(1);
        counts.waits_s.get(place).copied().unwrap_or(0)
    };
    JobScore {
        goodput: Millionths::of(counts.useful_s, counts.useful_s + counts.lost_s),
        asked_hours: Millionths::of(counts.asked_s, HOUR_S),
        useful_hours: Millionths::of(counts.useful_s, HOUR_S),
        lost_hours: Millionths::of(counts.lost_s, HOUR_S),
        going_on_hours: Millionths::of(counts.going_on_s, HOUR_S),
        mean_wait_s: Millionths::of(waited, u128::try_from(number).unwrap_or(0)),
        median_wait_s: rank(1, 2),
        long_wait_s: rank(19, 20),
        bound_hours: Millionths::of(bound, HOUR_S * u128::from(PPM)),
        value_share_of_bound: Millionths::of(value, bound),
    }
}

/// A number of millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Millionths(pub u128);

impl Millionths {
    /// A fraction, rounded half up; nothing of nothing is nothing.
    fn of(part: u128, whole: u128) -> Self {
        if whole == 0 { Self(0) } else { Self((2 * part * u128::from(PPM) + whole) / (2 * whole)) }
    }
}

impl std::fmt::Display for Millionths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let million = u128::from(PPM);
        write!(f, "{}.{:06}", self.0 / million, self.0 % million)
    }
}

/// What a policy reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Score {
    pub sold_share: Millionths,
    pub value_share_of_bound: Millionths,
    /// Of internal unit-time.
    pub collision_ppm: Millionths,
    pub collision_episodes_per_day: Millionths,
    pub evictions_per_day: Millionths,
    /// None without evictions.
    pub sold_hours_per_eviction: Option<Millionths>,
    pub broken_promises: [u64; super::terms::CLASSES],
    /// Hours of a unit at list price.
    pub compensation: Millionths,
    pub revenue: Millionths,
    pub idle_hours: Millionths,
    pub bound_hours: Millionths,
}

/// The figures of a tally.
pub fn score(tally: &Tally, bound: &Bound) -> Score {
    let price_hour = HOUR_S * u128::from(PPM);
    let evictions = u128::from(tally.evictions());
    let daily = |count: u128| Millionths::of(count * DAY_S, tally.valid_s);
    Score {
        sold_share: Millionths::of(tally.sold_s, tally.idle_s),
        value_share_of_bound: Millionths::of(tally.value(), bound.value),
        collision_ppm: Millionths::of(tally.collision_s * u128::from(PPM), tally.internal_s),
        collision_episodes_per_day: daily(u128::from(tally.episodes)),
        evictions_per_day: daily(evictions),
        sold_hours_per_eviction: (evictions > 0).then(|| Millionths::of(tally.sold_s, evictions * HOUR_S)),
        broken_promises: NoticeClass::ALL.map(|class| tally.counts[index(class)].broken),
        compensation: Millionths::of(tally.compensation, price_hour),
        revenue: Millionths::of(tally.revenue, price_hour),
        idle_hours: Millionths::of(tally.idle_s, HOUR_S),
        bound_hours: Millionths::of(bound.value, price_hour),
    }
}
