//! Limits on speed: set by administrators, drawn from by every gateway.

use sublet_core::id::RateLimitId;
use sublet_core::rate::{DRAWS_MAX, Draw, DrawRequest, Drawn, EndUsers, RateMetric};
use sublet_core::{DurationMs, Error, ErrorCode, Result};
use sublet_store::change::{self, Subject};
use sublet_store::rate_limit::{self, RateLimit};
use sublet_store::{Page, PageRequest, Tx, slice};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call, Render};
use crate::limit::{LimitSubject, check_name};
use crate::{Action, Actor, Cloud};

/// A bucket that nobody drew from for so long is full again, whatever it counts, unless it was in debt.
const BUCKET_LIFE: DurationMs = DurationMs::from_hours(25);
/// A debt is forgotten after so long.
const DEBT_LIFE: DurationMs = DurationMs::from_hours(24 * 400);
/// Buckets that are forgotten in one transaction.
const BUCKETS_PER_STEP: i64 = 500;

/// A limit to be set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRateLimit {
    pub subject: LimitSubject,
    pub metric: RateMetric,
    pub value: i64,
    pub model: Option<String>,
    pub end_users: EndUsers,
}

impl NewRateLimit {
    fn check(&self) -> Result<()> {
        check_value(self.metric, self.value)?;
        check_name("a model", "model", self.model.as_deref())?;
        match &self.end_users {
            EndUsers::One(name) => check_name("an end user", "end_user", Some(name)),
            EndUsers::Each | EndUsers::All => Ok(()),
        }
    }
}

fn check_value(metric: RateMetric, value: i64) -> Result<()> {
    if value == 0 {
        return Err(
            Error::new(ErrorCode::LimitUnenforceable, "a limit of 0 would stop its subject; revoke the key instead").param("value")
        );
    }
    if value < 0 || value > metric.value_max() {
        let message = format!("{} are limited to 1 up to {}", metric.in_words(), metric.value_max());
        return Err(Error::new(ErrorCode::InvalidRequest, message).param("value"));
    }
    Ok(())
}

fn not_found(id: &RateLimitId) -> Error {
    Error::new(ErrorCode::NotFound, format!("there is no rate limit '{id}'"))
}

/// The words of an entry in the audit log.
fn described(limit: &RateLimit) -> String {
    let model = limit.model.as_deref().map(|model| format!(" for {model}")).unwrap_or_default();
    let users = match &limit.end_users {
        EndUsers::All => "",
        EndUsers::Each => ", each end user",
        // Names of people are kept where the limit is, and nowhere else.
        EndUsers::One(_) => ", one end user",
    };
    format!("{} {}{model}{users}", limit.value, limit.metric.in_words())
}

impl Cloud {
    /// Sets a limit. It binds from the next request on, at every gateway.
    pub async fn create_rate_limit(&self, call: &Call, new: NewRateLimit, render: &Render<RateLimit>) -> Result<Answer<RateLimit>> {
        call.actor.require(Action::ManageLimits)?;
        new.check()?;
        let NewRateLimit { subject, metric, value, model, end_users } = new;
        let organization = call.actor.organization()?.clone();
        let text = subject.as_str().to_owned();
        let limit = RateLimit {
            id: self.ids.mint(),
            organization,
            subject: text,
            metric,
            value,
            model,
            end_users,
            created_at: self.now(),
            remaining: None,
        };
        let answer = self
            .once(call, render, (self, &call.actor, subject, limit), |(cloud, actor, subject, limit), tx| {
                Box::pin(async move {
                    subject.check(tx, &actor.scope).await?;
                    if !rate_limit::insert(tx, limit).await? {
                        let message = format!("{} has such a limit already", limit.subject);
                        return Err(Error::new(ErrorCode::Conflict, message).alternative("change the value of that limit"));
                    }
                    cloud.record_rate_limit(tx, actor, limit, "rate_limit.set").await?;
                    let mut made = limit.clone();
                    rate_limit::fill_in(tx, std::slice::from_mut(&mut made), limit.created_at).await?;
                    Ok(made)
                })
            })
            .await?;
        self.follow().await?;
        Ok(answer)
    }

    /// Changes a limit's value. What was used stays used.
    pub async fn update_rate_limit(&self, actor: &Actor, id: &RateLimitId, value: i64) -> Result<RateLimit> {
        actor.require(Action::ManageLimits)?;
        let organization = actor.organization()?;
        let changed = self
            .store
            .write((self, actor, organization, id), move |(cloud, actor, organization, id), tx| {
                Box::pin(async move {
                    let found = rate_limit::find(tx, organization, id).await?.ok_or_else(|| not_found(id))?;
                    check_value(found.metric, value)?;
                    rate_limit::set_value(tx, organization, id, value).await?;
                    let mut limit = RateLimit { value, ..found };
                    cloud.record_rate_limit(tx, actor, &limit, "rate_limit.set").await?;
                    rate_limit::fill_in(tx, std::slice::from_mut(&mut limit), cloud.now()).await?;
                    Ok(limit)
                })
            })
            .await?;
        self.follow().await?;
        Ok(changed)
    }

    pub async fn remove_rate_limit(&self, actor: &Actor, id: &RateLimitId) -> Result<()> {
        actor.require(Action::ManageLimits)?;
        let organization = actor.organization()?;
        self.store
            .write((self, actor, organization, id), move |(cloud, actor, organization, id), tx| {
                Box::pin(async move {
                    let limit = rate_limit::find(tx, organization, id).await?.ok_or_else(|| not_found(id))?;
                    rate_limit::remove(tx, organization, id).await?;
                    cloud.record_rate_limit(tx, actor, &limit, "rate_limit.remove").await
                })
            })
            .await?;
        self.follow().await
    }

    async fn record_rate_limit(&self, tx: &mut Tx, actor: &Actor, limit: &RateLimit, action: &'static str) -> Result<()> {
        // Gateways know limits as part of a key's access.
        change::announce(tx, Subject::Access).await?;
        let deed = Deed { organization: Some(&limit.organization), action, target: &limit.subject, detail: described(limit) };
        self.record(tx, actor, deed, self.now()).await
    }

    pub async fn get_rate_limit(&self, actor: &Actor, id: &RateLimitId) -> Result<RateLimit> {
        actor.require(Action::ManageLimits)?;
        let (organization, now) = (actor.organization()?, self.now());
        self.store
            .read((organization, id), move |(organization, id), tx| {
                Box::pin(async move {
                    let mut found = rate_limit::find(tx, organization, id).await?.ok_or_else(|| not_found(id))?;
                    rate_limit::fill_in(tx, std::slice::from_mut(&mut found), now).await?;
                    Ok(found)
                })
            })
            .await
    }

    pub async fn list_rate_limits(&self, actor: &Actor, page: &PageRequest) -> Result<Page<RateLimit>> {
        actor.require(Action::ManageLimits)?;
        let (organization, now) = (actor.organization()?, self.now());
        self.store
            .read((organization, page), move |(organization, page), tx| {
                Box::pin(async move {
                    let mut found = rate_limit::list(tx, organization, page).await?;
                    rate_limit::fill_in(tx, &mut found.items, now).await?;
                    Ok(found)
                })
            })
            .await
    }

    /// Draws for a gateway, all in one transaction.
    pub(crate) async fn draw_limits(&self, request: DrawRequest) -> Result<Vec<Drawn>> {
        if request.draws.len() > DRAWS_MAX {
            return Err(Error::internal(format!("{} draws in one request", request.draws.len())));
        }
        self.store
            .write((self, request), |(cloud, request), tx| {
                Box::pin(async move {
                    if slice::find_fence(tx, &request.gateway).await? != Some(request.fence) {
                        return Err(Error::new(ErrorCode::Conflict, "another session of this gateway has taken over"));
                    }
                    cloud.follow_changes(tx).await?;
                    let mut answers = Vec::with_capacity(request.draws.len());
                    for draw in &request.draws {
                        answers.push(cloud.draw_limit(tx, request, draw).await?);
                    }
                    Ok(answers)
                })
            })
            .await
    }

    async fn draw_limit(&self, tx: &mut Tx, request: &DrawRequest, draw: &Draw) -> Result<Drawn> {
        let now = self.now();
        let mut bucket = rate_limit::bucket_of(tx, draw, now).await?;
        let drawn = bucket.draw((&request.gateway, request.fence), draw, now);
        rate_limit::save_bucket(tx, draw, &bucket).await?;
        Ok(drawn)
    }

    /// Forgets the buckets of those who were not heard of for a day.
    pub(crate) async fn forget_unused_rate_buckets(&self) -> Result<()> {
        let before = (self.now().minus(BUCKET_LIFE), self.now().minus(DEBT_LIFE));
        let mut forgotten = u64::MAX;
        while forgotten > 0 {
            let step =
                self.store.write((), move |(), tx| Box::pin(rate_limit::delete_unused_buckets(tx, before, BUCKETS_PER_STEP)));
            forgotten = step.await?;
        }
        Ok(())
    }
}
