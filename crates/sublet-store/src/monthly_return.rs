//! What devices did and what became of promises in some time, over all tenants: for the operator only.

use sublet_core::device::{DeviceClass, DeviceKind};
use sublet_core::id::{DeviceId, LeaseId, ReclaimId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::{Currency, Error, Nanos, Result, Timestamp};
use sublet_money::period::Interval;
use sublet_money::sku::SkuName;

use crate::compensation::LeaseNotice;
use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// Spans that are read at once.
pub const SPANS_PAGE: i64 = 10_000;
/// Leases, and orders, that are read at once.
const LEASES_PAGE: i64 = 1_000;
const ORDERS_PAGE: i64 = 100;

/// What a device did for some time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    pub device: DeviceId,
    pub number: i64,
    pub class: DeviceClass,
    /// Who had the lease, and at which notice.
    pub lease: Option<(Holder, NoticeClass)>,
    pub started_at: Timestamp,
    /// `None` while it lasts.
    pub ended_at: Option<Timestamp>,
}

/// The next spans that meet some time, device by device; none after the last.
pub async fn spans_after(tx: &mut Tx, when: Interval, after: Option<&Span>) -> Result<Vec<Span>> {
    let rows = tx
        .fetch_all(
            "SELECT device_spans.device_id, device_spans.number, device_spans.class, leases.holder, leases.notice,
                 device_spans.started_at, device_spans.ended_at
             FROM device_spans LEFT JOIN leases ON leases.id = device_spans.lease_id
             WHERE device_spans.started_at < $2 AND (device_spans.ended_at IS NULL OR device_spans.ended_at > $1)
                 AND (device_spans.device_id > $3 OR (device_spans.device_id = $3 AND device_spans.number > $4))
             ORDER BY device_spans.device_id, device_spans.number LIMIT $5",
            params![
                when.starts_at,
                when.ends_at,
                after.map_or("", |span| span.device.as_str()),
                after.map_or(0, |span| span.number),
                SPANS_PAGE
            ],
        )
        .await?;
    let span = |row: &Row| {
        let mut row = row.reader();
        let (device, number, class) = (row.parse()?, row.int()?, row.parse()?);
        let (holder, notice): (Option<Holder>, Option<NoticeClass>) = (row.optional_parse()?, row.optional_parse()?);
        Ok(Span { device, number, class, lease: holder.zip(notice), started_at: row.time()?, ended_at: row.optional_time()? })
    };
    rows.iter().map(span).collect()
}

/// When an order held a device for the owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderHold {
    pub order: ReclaimId,
    pub device: DeviceId,
    pub from: Timestamp,
    pub until: Option<Timestamp>,
}

/// Holds of the next orders that meet some time, order by order; none after the last.
pub async fn order_holds(tx: &mut Tx, when: Interval, after: &str) -> Result<Vec<OrderHold>> {
    let rows = tx
        .fetch_all(
            "SELECT reclaims.id, reclaim_devices.device_id, reclaims.created_at, reclaims.ended_at
             FROM reclaims JOIN reclaim_devices ON reclaim_devices.reclaim_id = reclaims.id
             WHERE reclaims.id IN (
                 SELECT met.id FROM reclaims AS met
                 WHERE met.created_at < $2 AND (met.ended_at IS NULL OR met.ended_at > $1) AND met.id > $3
                     AND EXISTS (SELECT 1 FROM reclaim_devices AS held WHERE held.reclaim_id = met.id)
                 ORDER BY met.id LIMIT $4)
             ORDER BY reclaims.id, reclaim_devices.device_id",
            params![when.starts_at, when.ends_at, after, ORDERS_PAGE],
        )
        .await?;
    let hold = |row: &Row| {
        let mut row = row.reader();
        Ok(OrderHold { order: row.parse()?, device: row.parse()?, from: row.time()?, until: row.optional_time()? })
    };
    rows.iter().map(hold).collect()
}

/// A lease of one of the owner's teams, from when it was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnLease {
    pub id: LeaseId,
    pub kind: DeviceKind,
    pub site: SiteId,
    pub units: u32,
    pub from: Timestamp,
    pub until: Option<Timestamp>,
}

/// Next leases of the owner's teams that meet some time; none after the last.
pub async fn own_leases(tx: &mut Tx, when: Interval, after: &str) -> Result<Vec<OwnLease>> {
    let rows = tx
        .fetch_all(
            "SELECT id, sku, site, units, created_at, ended_at FROM leases
             WHERE holder = 'internal' AND created_at < $2 AND (state <> 'ended' OR (state = 'ended' AND ended_at > $1)) AND id > $3
             ORDER BY id LIMIT $4",
            params![when.starts_at, when.ends_at, after, LEASES_PAGE],
        )
        .await?;
    let lease = |row: &Row| {
        let mut row = row.reader();
        let (id, sku, site): (LeaseId, SkuName, SiteId) = (row.parse()?, row.parse()?, row.parse()?);
        let SkuName::Device { device: kind, .. } = sku else { return Err(Error::internal("a lease is not of a device")) };
        let units = u32::try_from(row.int()?).map_err(|_| Error::internal("a lease's units are out of range"))?;
        Ok(OwnLease { id, kind, site, units, from: row.time()?, until: row.optional_time()? })
    };
    rows.iter().map(lease).collect()
}

/// Leases of customers that ended in some time, by the notice they were sold with.
pub async fn ended_by_notice(tx: &mut Tx, when: Interval) -> Result<Vec<(NoticeClass, i64)>> {
    let rows = tx
        .fetch_all(
            "SELECT notice, COUNT(*) FROM leases
             WHERE state = 'ended' AND ended_at >= $1 AND ended_at < $2 AND holder = 'external' GROUP BY notice ORDER BY notice",
            params![when.starts_at, when.ends_at],
        )
        .await?;
    let count = |row: &Row| {
        let mut row = row.reader();
        Ok((row.parse()?, row.int()?))
    };
    rows.iter().map(count).collect()
}

/// A customer's lease that ended, and one thing that its holder was told of that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToldLease {
    pub id: LeaseId,
    pub class: NoticeClass,
    pub units: u32,
    pub price: Nanos,
    pub started_at: Timestamp,
    pub window_ends_at: Option<Timestamp>,
    pub notice: LeaseNotice,
}

/// Next customers' leases that ended in some time and that the owner told to end, lease by lease, each notice in the order
/// in which it was given; none after the last.
pub async fn told_leases(tx: &mut Tx, when: Interval, after: &str) -> Result<Vec<ToldLease>> {
    let rows = tx
        .fetch_all(
            "SELECT leases.id, leases.notice, leases.units, leases.price, leases.starts_at, leases.ends_at,
                 lease_notices.told_at, lease_notices.reason, lease_notices.deadline, lease_notices.is_busy
             FROM leases JOIN lease_notices ON lease_notices.lease_id = leases.id
             WHERE leases.id IN (
                 SELECT ended.id FROM leases AS ended
                 WHERE ended.state = 'ended' AND ended.ended_at >= $1 AND ended.ended_at < $2 AND ended.holder = 'external' AND ended.id > $3
                     AND EXISTS (SELECT 1 FROM lease_notices AS told
                         WHERE told.lease_id = ended.id AND told.reason IN ('reclaimed', 'device_lost', 'shut_down'))
                 ORDER BY ended.id LIMIT $4)
             ORDER BY leases.id, lease_notices.told_at, lease_notices.deadline DESC",
            params![when.starts_at, when.ends_at, after, LEASES_PAGE],
        )
        .await?;
    let told = |row: &Row| {
        let mut row = row.reader();
        Ok(ToldLease {
            id: row.parse()?,
            class: row.parse()?,
            units: u32::try_from(row.int()?).map_err(|_| Error::internal("a lease's units are out of range"))?,
            price: row.nanos()?,
            started_at: row.time()?,
            window_ends_at: row.optional_time()?,
            notice: LeaseNotice { told_at: row.time()?, reason: row.parse()?, deadline: row.time()?, is_busy: row.int()? == 1 },
        })
    };
    rows.iter().map(told).collect()
}

/// What was given in some time for leases that were interrupted and for starts of their jobs, by the notice that was sold.
pub async fn compensated_by_notice(tx: &mut Tx, when: Interval) -> Result<Vec<(NoticeClass, Currency, Nanos)>> {
    let rows = tx
        .fetch_all(
            "SELECT leases.notice, compensations.currency, CAST(SUM(compensations.amount) AS BIGINT)
             FROM compensations LEFT JOIN jobs ON jobs.id = compensations.subject
                 JOIN leases ON leases.id = COALESCE(jobs.lease_id, compensations.subject)
             WHERE compensations.kind = 'reclaim' AND compensations.created_at >= $1 AND compensations.created_at < $2
             GROUP BY leases.notice, compensations.currency ORDER BY leases.notice, compensations.currency",
            params![when.starts_at, when.ends_at],
        )
        .await?;
    let given = |row: &Row| {
        let mut row = row.reader();
        Ok((row.parse()?, row.parse()?, row.nanos()?))
    };
    rows.iter().map(given).collect()
}
