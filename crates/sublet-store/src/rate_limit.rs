//! Limits on speed, and the buckets that gateways draw from.

use sublet_core::id::{OrganizationId, RateLimitId};
use sublet_core::rate::{Bucket, Draw, EndUsers, Level, RateMetric, RateRule};
use sublet_core::{Error, ErrorCode, Result, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, to_json};
use crate::{list_sql, params};

/// Most rate limits of one organization.
pub const RATE_LIMITS_MAX: i64 = 10_000;
/// Most rate limits of one organization, project or key: every request looks at all of them.
pub const RATE_LIMITS_OF_SUBJECT_MAX: i64 = 32;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RateLimit {
    pub id: RateLimitId,
    pub organization: OrganizationId,
    /// An organization, a project or a key of the organization.
    pub subject: String,
    pub metric: RateMetric,
    pub value: i64,
    pub model: Option<String>,
    pub end_users: EndUsers,
    pub created_at: Timestamp,
    /// What its bucket had left when it was read; `None` if there are several.
    pub remaining: Option<i64>,
}

impl RateLimit {
    /// As gateways apply it.
    pub fn rule(&self) -> RateRule {
        RateRule {
            name: self.id.as_str().into(),
            subject: self.subject.as_str().into(),
            metric: self.metric,
            value: self.value,
            model: self.model.as_deref().map(Into::into),
            end_users: self.end_users.clone(),
        }
    }
}

fn end_users_text(end_users: &EndUsers) -> String {
    match end_users {
        EndUsers::All => "all".to_owned(),
        EndUsers::Each => "each".to_owned(),
        EndUsers::One(name) => format!("one:{name}"),
    }
}

fn read_end_users(text: &str) -> Result<EndUsers> {
    match (text, text.strip_prefix("one:")) {
        ("all", _) => Ok(EndUsers::All),
        ("each", _) => Ok(EndUsers::Each),
        (_, Some(name)) => Ok(EndUsers::One(name.into())),
        _ => Err(Error::internal("a stored rate limit has no end users")),
    }
}

fn from_row(row: &Row) -> Result<RateLimit> {
    let mut row = row.reader();
    let (id, organization, subject, metric, value) = (row.parse()?, row.parse()?, row.string()?, row.parse()?, row.int()?);
    let (model, end_users) = (row.string()?, read_end_users(row.text()?)?);
    let model = Some(model).filter(|model| !model.is_empty());
    let created_at = row.time()?;
    Ok(RateLimit { id, organization, subject, metric, value, model, end_users, created_at, remaining: None })
}

/// Adds a limit. False if the subject has one like it.
pub async fn insert(tx: &mut Tx, limit: &RateLimit) -> Result<bool> {
    let counts = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(CASE WHEN subject = $2 THEN 1 ELSE 0 END), 0) AS BIGINT)
             FROM rate_limits WHERE organization_id = $1",
            params![limit.organization.as_str(), limit.subject.as_str()],
        )
        .await?;
    let mut counts = counts.reader();
    if counts.int()? >= RATE_LIMITS_MAX {
        return Err(Error::new(ErrorCode::Conflict, format!("an organization has at most {RATE_LIMITS_MAX} rate limits")));
    }
    if counts.int()? >= RATE_LIMITS_OF_SUBJECT_MAX {
        let message = format!("{} has {RATE_LIMITS_OF_SUBJECT_MAX} rate limits, and may have no more", limit.subject);
        return Err(Error::new(ErrorCode::Conflict, message).alternative("remove one of them"));
    }
    let inserted = tx
        .execute(
            "INSERT INTO rate_limits (id, organization_id, subject, metric, value, model, end_users, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (subject, metric, model, end_users) DO NOTHING",
            params![
                limit.id.as_str(),
                limit.organization.as_str(),
                limit.subject.as_str(),
                limit.metric.as_str(),
                limit.value,
                limit.model.as_deref().unwrap_or(""),
                end_users_text(&limit.end_users),
                limit.created_at
            ],
        )
        .await?;
    Ok(inserted == 1)
}

pub async fn find(tx: &mut Tx, organization: &OrganizationId, id: &RateLimitId) -> Result<Option<RateLimit>> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, subject, metric, value, model, end_users, created_at FROM rate_limits
             WHERE organization_id = $1 AND id = $2",
            params![organization.as_str(), id.as_str()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// A page of an organization's limits.
pub async fn list(tx: &mut Tx, organization: &OrganizationId, page: &PageRequest) -> Result<Page<RateLimit>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, subject, metric, value, model, end_users, created_at FROM rate_limits WHERE organization_id = $1",
        "id",
        "2",
        "3"
    );
    let rows = tx.fetch_all(sql, &[organization.as_str().into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// The limits on an organization, and on its project and key of these names.
pub async fn list_for(tx: &mut Tx, organization: &OrganizationId, (project, key): (&str, &str)) -> Result<Vec<RateLimit>> {
    let rows = tx
        .fetch_all(
            "SELECT id, organization_id, subject, metric, value, model, end_users, created_at FROM rate_limits
             WHERE organization_id = $1 AND subject IN ($1, $2, $3) ORDER BY id",
            params![organization.as_str(), project, key],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Changes the value. False if there is no such limit.
pub async fn set_value(tx: &mut Tx, organization: &OrganizationId, id: &RateLimitId, value: i64) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE rate_limits SET value = $3 WHERE organization_id = $1 AND id = $2",
            params![organization.as_str(), id.as_str(), value],
        )
        .await?;
    Ok(changed == 1)
}

/// Removes a limit. False if there was none.
pub async fn remove(tx: &mut Tx, organization: &OrganizationId, id: &RateLimitId) -> Result<bool> {
    let removed = tx
        .execute("DELETE FROM rate_limits WHERE organization_id = $1 AND id = $2", params![organization.as_str(), id.as_str()])
        .await?;
    Ok(removed == 1)
}

/// Reads what is left of limits that have one bucket each.
pub async fn fill_in(tx: &mut Tx, limits: &mut [RateLimit], now: Timestamp) -> Result<()> {
    for limit in limits.iter_mut().filter(|limit| limit.end_users != EndUsers::Each) {
        let bucket = limit.id.as_str().into();
        let draw = Draw { bucket, metric: limit.metric, value: limit.value, keeps: 0, back: 0, debt: 0, least: 0, wanted: 0 };
        limit.remaining = Some(bucket_of(tx, &draw, now).await?.remaining(limit.value, now));
    }
    Ok(())
}

/// The bucket that a gateway draws from; a full one if nobody did before.
pub async fn bucket_of(tx: &mut Tx, draw: &Draw, now: Timestamp) -> Result<Bucket> {
    let row = tx
        .fetch_optional("SELECT metric, value, parts, at, holders FROM rate_buckets WHERE bucket = $1", params![&*draw.bucket])
        .await?;
    let Some(row) = row else { return Ok(Bucket::full(draw, now)) };
    let mut row = row.reader();
    let (metric, value, parts, at) = (row.parse::<RateMetric>()?, row.int()?, row.int()?, row.time()?);
    if metric != draw.metric {
        return Err(Error::internal(format!("bucket {} counts {}, not {}", draw.bucket, metric.as_str(), draw.metric.as_str())));
    }
    Ok(Bucket { level: Level::stored(metric, value, parts, at), holders: row.json()? })
}

pub async fn save_bucket(tx: &mut Tx, draw: &Draw, bucket: &Bucket) -> Result<()> {
    let Bucket { level, holders } = bucket;
    tx.execute(
        "INSERT INTO rate_buckets (bucket, metric, value, parts, at, holders) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (bucket) DO UPDATE SET value = excluded.value, parts = excluded.parts, at = excluded.at, holders = excluded.holders",
        params![&*draw.bucket, draw.metric.as_str(), level.value(), level.parts(), level.at(), to_json(holders)?],
    )
    .await?;
    Ok(())
}

/// Forgets some of the buckets that nobody drew from since an instant, those in debt since another; answers how many.
pub async fn delete_unused_buckets(tx: &mut Tx, (before, in_debt_before): (Timestamp, Timestamp), count: i64) -> Result<u64> {
    tx.execute(
        "DELETE FROM rate_buckets WHERE bucket IN
             (SELECT bucket FROM rate_buckets WHERE at < $1 AND (parts >= 0 OR at < $2) ORDER BY at LIMIT $3)",
        params![before, in_debt_before, count],
    )
    .await
}
