//! Limits on speed: the rules, and the bucket of each that all gateways draw from.
//!
//! A bucket is a GCRA in its leaky-bucket form, in exact integers: it holds *parts*, a unit is as many
//! parts as its period has ticks, and each tick brings `value` parts. A gateway spends units that it has
//! drawn; what it holds and has not spent counts against the bucket's room, so whatever several gateways
//! do, what they let through is what one bucket would have let through. Buckets of tokens may go negative:
//! output is only known afterwards, and the debt delays what comes next.
//!
//! The source of the equivalence: ITU-T I.371, annex A (virtual scheduling and leaky bucket).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode, Result};
use crate::id::{GatewayId, KeyId};
use crate::time::{DurationMs, Timestamp};

/// How long a gateway that says nothing keeps what it holds.
pub const HOLDING_LIFE: DurationMs = DurationMs::from_seconds(30);

/// What a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateMetric {
    RequestsPerMinute,
    TokensPerMinute,
    TokensPerDay,
    ConcurrentRequests,
}

impl RateMetric {
    pub const ALL: [Self; 4] = [Self::RequestsPerMinute, Self::TokensPerMinute, Self::TokensPerDay, Self::ConcurrentRequests];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests_per_minute",
            Self::TokensPerMinute => "tokens_per_minute",
            Self::TokensPerDay => "tokens_per_day",
            Self::ConcurrentRequests => "concurrent_requests",
        }
    }

    /// In a sentence, after a number.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests per minute",
            Self::TokensPerMinute => "tokens per minute",
            Self::TokensPerDay => "tokens per day",
            Self::ConcurrentRequests => "requests in flight",
        }
    }

    /// The largest value whose bucket is in range.
    pub const fn value_max(self) -> i64 {
        match self {
            Self::RequestsPerMinute | Self::TokensPerMinute => 4_294_967_295,
            Self::TokensPerDay => 10_000_000_000,
            Self::ConcurrentRequests => 1_000_000,
        }
    }

    /// Ticks of the period, and microseconds of a tick; `None` where nothing comes back with time.
    const fn period(self) -> Option<(i64, i64)> {
        match self {
            Self::RequestsPerMinute | Self::TokensPerMinute => Some((60_000_000, 1)),
            Self::TokensPerDay => Some((86_400_000, 1_000)),
            Self::ConcurrentRequests => None,
        }
    }

    pub const fn is_tokens(self) -> bool {
        matches!(self, Self::TokensPerMinute | Self::TokensPerDay)
    }
}

impl std::str::FromStr for RateMetric {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == text).ok_or_else(|| {
            let error = Error::new(ErrorCode::InvalidRequest, "a rate limit has no such metric").param("metric");
            Self::ALL.into_iter().fold(error, |error, metric| error.alternative(metric.as_str()))
        })
    }
}

/// Whose requests a limit counts together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EndUsers {
    All,
    /// Every end user has the limit for himself; requests that name none are those of one more.
    Each,
    One(Arc<str>),
}

/// One limit as gateways apply it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RateRule {
    /// What its buckets are named after.
    pub name: Arc<str>,
    /// The organization, project or key that it limits.
    pub subject: Arc<str>,
    pub metric: RateMetric,
    pub value: i64,
    /// Counts requests for this model only.
    pub model: Option<Arc<str>>,
    pub end_users: EndUsers,
}

impl RateRule {
    /// True if it is the same for every request of its subject.
    pub const fn is_plain(&self) -> bool {
        self.model.is_none() && matches!(self.end_users, EndUsers::All)
    }

    pub const fn needs_end_user(&self) -> bool {
        !matches!(self.end_users, EndUsers::All)
    }

    /// The bucket that a request counts in, if it is one of those that are limited. End users are told apart by a
    /// mark that does not show their names.
    pub fn bucket(&self, model: &str, end_user: Option<&EndUser>) -> Option<Arc<str>> {
        if self.model.as_deref().is_some_and(|limited| limited != model) {
            return None;
        }
        match (&self.end_users, end_user) {
            (EndUsers::All, _) => Some(Arc::clone(&self.name)),
            (EndUsers::Each, user) => Some(format!("{}/{}", self.name, user.map_or("", |user| &user.mark)).into()),
            (EndUsers::One(name), Some(user)) if **name == *user.name => Some(Arc::clone(&self.name)),
            (EndUsers::One(_), _) => None,
        }
    }
}

/// Who calls, as the customer's own program names him.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EndUser {
    pub name: String,
    /// Different for different names, and says nothing of them.
    pub mark: String,
}

/// Limits that come with a key; `None` is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RateLimits {
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
    pub concurrent_requests: Option<u32>,
}

impl RateLimits {
    /// The same as rules.
    pub fn rules(&self, key: &KeyId) -> Vec<RateRule> {
        let of = |metric, value: Option<u32>| {
            value.map(|value| RateRule {
                name: format!("{key}.{}", RateMetric::as_str(metric)).into(),
                subject: key.as_str().into(),
                metric,
                value: i64::from(value),
                model: None,
                end_users: EndUsers::All,
            })
        };
        let limits = [
            of(RateMetric::RequestsPerMinute, self.requests_per_minute),
            of(RateMetric::TokensPerMinute, self.tokens_per_minute),
            of(RateMetric::ConcurrentRequests, self.concurrent_requests),
        ];
        limits.into_iter().flatten().collect()
    }
}

/// How full a bucket is at an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level {
    metric: RateMetric,
    value: i64,
    parts: i64,
    at: Timestamp,
}

impl Level {
    /// A full bucket.
    pub fn full(metric: RateMetric, value: i64, at: Timestamp) -> Self {
        let empty = Self { metric, value: value.clamp(0, metric.value_max()), parts: 0, at };
        Self { parts: empty.capacity(), ..empty }
    }

    /// As it was stored.
    pub fn stored(metric: RateMetric, value: i64, parts: i64, at: Timestamp) -> Self {
        let full = Self::full(metric, value, at);
        Self { parts: parts.min(full.parts), ..full }
    }

    pub const fn value(&self) -> i64 {
        self.value
    }
    pub const fn parts(&self) -> i64 {
        self.parts
    }
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    const fn unit(&self) -> i64 {
        match self.metric.period() {
            Some((ticks, _)) => ticks,
            None => 1,
        }
    }

    const fn capacity(&self) -> i64 {
        self.value.saturating_mul(self.unit())
    }

    fn in_parts(&self, units: i64) -> i64 {
        units.saturating_mul(self.unit())
    }

    /// Follows a change of the limit: what was used stays used.
    fn resize(&mut self, value: i64) {
        let value = value.clamp(0, self.metric.value_max());
        self.parts = self.parts.saturating_add(self.in_parts(value - self.value));
        self.value = value;
    }

    /// Lets time pass; the bucket keeps room for `held` units.
    fn refill(&mut self, now: Timestamp, held: i64) {
        let Some((_, tick)) = self.metric.period() else {
            // Places come back when they are given back.
            self.parts = self.capacity().saturating_sub(held);
            self.at = self.at.max(now);
            return;
        };
        // A clock that jumps back gives nothing and takes nothing.
        let ticks = now.micros().saturating_sub(self.at.micros()).max(0) / tick;
        let room = self.capacity().saturating_sub(self.in_parts(held));
        self.parts = self.parts.saturating_add(ticks.saturating_mul(self.value)).min(room);
        self.at = self.at.max(Timestamp::from_micros(self.at.micros().saturating_add(ticks.saturating_mul(tick))));
    }

    /// The level at a later instant, with so many units more or less.
    pub fn with(mut self, units: i64, now: Timestamp) -> Self {
        if self.metric.period().is_some() {
            self.refill(now, units.max(0));
        }
        self.parts = self.parts.saturating_add(self.in_parts(units)).min(self.capacity());
        self
    }

    /// Whole units that are there; negative is debt.
    pub const fn units(&self) -> i64 {
        self.parts.div_euclid(self.unit())
    }

    /// Until so many units are there, rounded up to milliseconds. Nobody knows when a place is given back: soon.
    pub fn until(&self, units: i64) -> DurationMs {
        let Some((_, tick)) = self.metric.period() else { return DurationMs::from_seconds(1) };
        let missing = self.in_parts(units).saturating_sub(self.parts).max(0);
        let ticks = missing.div_euclid(self.value.max(1)) + i64::from(missing.rem_euclid(self.value.max(1)) > 0);
        let micros = ticks.saturating_mul(tick);
        DurationMs::from_millis(micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0))
    }

    /// Until it is full.
    pub fn until_full(&self) -> DurationMs {
        if self.parts >= self.capacity() { DurationMs::ZERO } else { self.until(self.value) }
    }
}

/// What one gateway holds of a bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    pub gateway: GatewayId,
    /// The gateway's session; a later one has lost what this one held.
    pub fence: i64,
    pub units: i64,
    /// When it counts as lost, in microseconds since the epoch.
    pub until: i64,
}

/// A bucket and those who hold parts of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    pub level: Level,
    pub holders: Vec<Holder>,
}

/// What a gateway tells of one bucket and asks of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draw {
    pub bucket: Arc<str>,
    pub metric: RateMetric,
    /// The limit's value.
    pub value: i64,
    /// Units that it goes on holding; places in use are among them. Of what it held, the others are spent.
    pub keeps: i64,
    /// Units that it held and gives back unspent.
    pub back: i64,
    /// Units that it spent beyond what it held.
    pub debt: i64,
    /// More units that are needed; none if that many are not there.
    pub least: i64,
    /// More units that would be good.
    pub wanted: i64,
}

/// An answered [`Draw`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drawn {
    /// None, or at least what was needed.
    pub added: i64,
    /// What is left to everybody.
    pub level: Level,
}

/// Draws of one gateway, in the order of their buckets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrawRequest {
    pub gateway: GatewayId,
    pub fence: i64,
    pub draws: Vec<Draw>,
}

/// Draws that one request may have.
pub const DRAWS_MAX: usize = 256;

impl Bucket {
    pub fn full(draw: &Draw, now: Timestamp) -> Self {
        Self { level: Level::full(draw.metric, draw.value, now), holders: Vec::new() }
    }

    fn held(&self) -> i64 {
        self.holders.iter().fold(0, |sum, holder| sum.saturating_add(holder.units))
    }

    /// What is left beyond what gateways hold.
    pub fn remaining(mut self, value: i64, now: Timestamp) -> i64 {
        self.holders.retain(|holder| holder.until > now.micros());
        self.level.refill(now, self.held());
        self.level.resize(value);
        self.level.units()
    }

    /// Takes note of what a gateway tells, and gives it what it asks for if that is there. Half of what is left stays for
    /// others, unless more is needed: near its end a limit is drawn unit by unit.
    pub fn draw(&mut self, gateway: (&GatewayId, i64), draw: &Draw, now: Timestamp) -> Drawn {
        let (name, fence) = gateway;
        // What a lost gateway held is lost with it: of a rate it comes back with time, and a place is free at once.
        self.holders.retain(|holder| holder.gateway != *name && holder.until > now.micros());
        let keeps = draw.keeps.max(0);
        let held = self.held().saturating_add(keeps);
        // The time that has passed counts at the value that was in force.
        self.level.refill(now, held);
        self.level.resize(draw.value);
        if self.level.metric.period().is_some() {
            let settled = draw.back.max(0).saturating_sub(draw.debt.max(0));
            self.level.parts = self.level.parts.saturating_add(self.level.in_parts(settled));
            let room = self.level.capacity().saturating_sub(self.level.in_parts(held));
            self.level.parts = self.level.parts.min(room);
        }
        let available = self.level.units();
        let added = if draw.least > available { 0 } else { draw.wanted.min(available / 2).max(draw.least).max(0) };
        self.level.parts = self.level.parts.saturating_sub(self.level.in_parts(added));
        let units = keeps.saturating_add(added);
        if units > 0 {
            let until = now.plus(HOLDING_LIFE).micros();
            self.holders.push(Holder { gateway: name.clone(), fence, units, until });
        }
        Drawn { added, level: self.level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Identifier;
    use proptest::prelude::*;

    fn gateway(number: usize) -> GatewayId {
        GatewayId::from_trusted(Arc::from(format!("gw_{number}")))
    }

    fn draw(metric: RateMetric, value: i64) -> Draw {
        Draw { bucket: "b".into(), metric, value, keeps: 0, back: 0, debt: 0, least: 0, wanted: 0 }
    }

    /// One gateway as this module expects it to behave.
    #[derive(Clone, Copy, Default, Debug)]
    struct Holding {
        /// What the bucket knows that it holds.
        told: i64,
        /// What is left of that; negative is debt.
        free: i64,
        in_use: i64,
    }

    #[derive(Clone, Debug)]
    enum Act {
        Draw { least: i64, wanted: i64 },
        Spend(i64),
        Release,
        GiveBack,
        Crash,
        Wait(i64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0_i64..20, 0_i64..40).prop_map(|(least, wanted)| Act::Draw { least, wanted }),
            (1_i64..30).prop_map(Act::Spend),
            Just(Act::Release),
            Just(Act::GiveBack),
            Just(Act::Crash),
            (1_i64..10_000).prop_map(Act::Wait),
        ]
    }

    proptest! {
        /// Whatever several gateways do, what they let through is at most what one full bucket lets through, but for
        /// the debt, which is waited for.
        #[test]
        fn many_gateways_let_through_no_more_than_one_bucket(
            metric in prop::sample::select(RateMetric::ALL.to_vec()), value in 1_i64..100,
            acts in prop::collection::vec((0_usize..3, act()), 1..80),
        ) {
            let start = Timestamp::from_seconds(1_000_000);
            let mut now = start;
            let mut bucket = Bucket { level: Level::full(metric, value, now), holders: Vec::new() };
            let mut fleet = [Holding::default(); 3];
            let (mut spent, mut debt) = (0_i64, 0_i64);
            for (number, act) in acts {
                let id = gateway(number);
                let holding = &mut fleet[number];
                match act {
                    Act::Draw { least, wanted } => {
                        let told = Draw { keeps: holding.free.max(0) + holding.in_use, debt: (-holding.free).max(0), least, wanted, ..draw(metric, value) };
                        let drawn = bucket.draw((&id, 1), &told, now);
                        prop_assert!(drawn.added == 0 || (drawn.added >= least && drawn.added <= wanted.max(least)));
                        debt -= told.debt;
                        holding.free = holding.free.max(0) + drawn.added;
                        holding.told = holding.free + holding.in_use;
                    }
                    Act::Spend(units) if metric == RateMetric::ConcurrentRequests => {
                        let taken = units.min(holding.free.max(0));
                        holding.free -= taken;
                        holding.in_use += taken;
                    }
                    Act::Spend(units) => {
                        let beyond = if metric.is_tokens() { units } else { units.min(holding.free.max(0)) };
                        debt += (beyond - holding.free.max(0)).max(0);
                        holding.free -= beyond;
                        spent += beyond;
                    }
                    Act::Release => {
                        holding.free += std::mem::take(&mut holding.in_use);
                    }
                    Act::GiveBack => {
                        let told = Draw { keeps: holding.in_use, back: holding.free.max(0), debt: (-holding.free).max(0), ..draw(metric, value) };
                        bucket.draw((&id, 1), &told, now);
                        debt -= told.debt;
                        holding.free = 0;
                        holding.told = holding.in_use;
                    }
                    Act::Crash => {
                        // Debt that was told to nobody is lost.
                        debt -= (-holding.free).max(0);
                        spent -= (-holding.free).max(0);
                        *holding = Holding::default();
                    }
                    Act::Wait(millis) => now = now.plus(DurationMs::from_millis(millis)),
                }
                // Nobody says nothing for so long that he loses what he holds.
                for (number, holding) in fleet.iter().enumerate() {
                    let known = bucket.holders.iter_mut().find(|holder| holder.gateway == gateway(number));
                    if let Some(known) = known {
                        known.until = now.plus(HOLDING_LIFE).micros();
                        prop_assert!(known.units >= holding.free.max(0) + holding.in_use || holding.told == 0);
                    }
                }
                let held = bucket.held();
                prop_assert!(bucket.level.units() + held <= value, "{bucket:?}");
                let in_use: i64 = fleet.iter().map(|holding| holding.in_use).sum();
                prop_assert!(in_use <= value);
                if let Some((ticks, tick)) = metric.period() {
                    let passed = (now.micros() - start.micros()) / tick;
                    let allowed = value + (passed * value).div_euclid(ticks) + 1;
                    let owed = debt.max(0) + (-bucket.level.units()).max(0);
                    prop_assert!(spent - owed <= allowed, "{spent} spent, {owed} of it owed, {allowed} allowed");
                }
            }
        }
    }

    #[test]
    fn near_its_end_a_limit_is_drawn_unit_by_unit_and_the_wait_is_the_real_one() {
        let now = Timestamp::from_seconds(100);
        let ask = Draw { least: 1, wanted: 50, ..draw(RateMetric::RequestsPerMinute, 60) };
        let mut bucket = Bucket::full(&ask, now);
        let mut kept = 0;
        let added: Vec<i64> = (0..9)
            .map(|_| {
                let drawn = bucket.draw((&gateway(1), 1), &Draw { keeps: kept, ..ask.clone() }, now);
                kept += drawn.added;
                drawn.added
            })
            .collect();
        assert_eq!(added, [30, 15, 7, 4, 2, 1, 1, 0, 0]);
        let refused = bucket.draw((&gateway(2), 1), &ask, now);
        assert_eq!((refused.added, refused.level.until(1)), (0, DurationMs::from_seconds(1)));
        // As long as the first may still spend what it holds, time brings no more.
        let late = now.plus(DurationMs::from_millis(999));
        bucket.draw((&gateway(1), 1), &draw(RateMetric::RequestsPerMinute, 60), now);
        assert_eq!(bucket.draw((&gateway(2), 1), &ask, late).level.until(1), DurationMs::from_millis(1));
        assert_eq!(bucket.draw((&gateway(2), 1), &ask, late.plus(DurationMs::from_millis(1))).added, 1);
    }

    #[test]
    fn debt_is_carried_and_waited_for() {
        let now = Timestamp::from_seconds(100);
        let ask = Draw { debt: 150, least: 1, wanted: 1, ..draw(RateMetric::TokensPerMinute, 60) };
        let mut bucket = Bucket::full(&ask, now);
        let drawn = bucket.draw((&gateway(1), 1), &ask, now);
        assert_eq!((drawn.added, drawn.level.until(1)), (0, DurationMs::from_seconds(91)), "90 of debt and one to go on with");
        let again = Draw { debt: 0, ..ask };
        assert_eq!(bucket.draw((&gateway(1), 1), &again, now.plus(DurationMs::from_seconds(91))).added, 1);
    }

    #[test]
    fn places_of_a_lost_gateway_are_free_again_and_those_of_a_new_session_at_once() {
        let now = Timestamp::from_seconds(100);
        let ask = Draw { least: 2, wanted: 2, ..draw(RateMetric::ConcurrentRequests, 2) };
        let mut bucket = Bucket::full(&ask, now);
        assert_eq!(bucket.draw((&gateway(1), 1), &ask, now).added, 2);
        assert_eq!(bucket.draw((&gateway(2), 1), &ask, now).added, 0);
        assert_eq!(bucket.draw((&gateway(1), 2), &ask, now).added, 2, "another session of the first");
        assert_eq!(bucket.draw((&gateway(2), 1), &ask, now.plus(HOLDING_LIFE)).added, 2);
    }

    #[test]
    fn what_was_used_stays_used_when_a_limit_changes() {
        let now = Timestamp::from_seconds(100);
        let ask = |value, least| Draw { least, wanted: least, ..draw(RateMetric::TokensPerDay, value) };
        let mut bucket = Bucket::full(&ask(10, 0), now);
        assert_eq!(bucket.draw((&gateway(1), 1), &ask(10, 8), now).added, 8);
        let raised = bucket.draw((&gateway(1), 1), &ask(20, 0), now);
        assert_eq!(raised.level.units(), 12);
        let lowered = bucket.draw((&gateway(1), 1), &ask(5, 1), now);
        assert_eq!((lowered.added, lowered.level.units()), (0, -3));
    }

    #[test]
    fn a_bucket_is_that_of_the_model_and_of_the_end_user() {
        let rule = |model: Option<&str>, end_users| RateRule {
            name: "rlim_1".into(),
            subject: "proj_1".into(),
            metric: RateMetric::TokensPerDay,
            value: 1,
            model: model.map(Into::into),
            end_users,
        };
        let ann = EndUser { name: "ann".to_owned(), mark: "a1".to_owned() };
        for (rule, user, expected) in [
            (rule(None, EndUsers::All), Some(&ann), Some("rlim_1")),
            (rule(Some("m"), EndUsers::All), None, Some("rlim_1")),
            (rule(Some("other"), EndUsers::All), None, None),
            (rule(None, EndUsers::Each), Some(&ann), Some("rlim_1/a1")),
            (rule(None, EndUsers::Each), None, Some("rlim_1/")),
            (rule(None, EndUsers::One("ann".into())), Some(&ann), Some("rlim_1")),
            (rule(None, EndUsers::One("bob".into())), Some(&ann), None),
            (rule(None, EndUsers::One("bob".into())), None, None),
        ] {
            assert_eq!(rule.bucket("m", user).as_deref(), expected, "{rule:?}");
        }
    }
}
