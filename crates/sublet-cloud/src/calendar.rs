//! The coming hours: where the owner's units will be, and how much of a thing could be leased.
//!
//! What customers see is in steps of a share of a pool, of what is sold to them alone. Nothing of it is promised: a quote is.

use sublet_capacity::{Bucket, HOURS_MAX, HourFigures, Pool, Request, buckets, calendars};
use sublet_core::device::DeviceKind;
use sublet_core::id::SiteId;
use sublet_core::notice::NoticeClass;
use sublet_core::{Error, ErrorCode, Result, Timestamp};
use sublet_money::period::BillingCalendar;
use sublet_store::{Tx, reclaim};

use crate::compute::Compute;
use crate::offering::DeviceShelf;
use crate::placed_price::Ask;
use crate::{Action, Actor};

/// Hours that are shown if nobody says how many.
pub const HOURS_DEFAULT: usize = 48;

/// A pool's hours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolCalendar {
    pub pool: Pool,
    pub hours: Vec<HourFigures>,
}

/// What somebody wants to see of what could be leased; nothing is everything.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Wanted {
    pub kind: Option<DeviceKind>,
    pub notice: Option<NoticeClass>,
    pub site: Option<SiteId>,
    pub hours: Option<usize>,
}

/// How much of a thing could be leased at a site, hour by hour.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkuCalendar {
    pub pool: Pool,
    pub notice: NoticeClass,
    /// The beginning of the first hour.
    pub starts_at: Timestamp,
    pub levels: Vec<Bucket>,
}

impl Compute {
    /// Where the units of every pool will be, as far as it is settled.
    pub async fn capacity_calendar(&self, actor: &Actor, hours: Option<usize>) -> Result<Vec<PoolCalendar>> {
        actor.require(Action::ManageFleet)?;
        let hours = checked(hours)?;
        self.cloud
            .store
            .read(self, move |compute, tx| {
                Box::pin(async move {
                    let (snapshot, held) = (compute.snapshot(tx).await?, reclaim::list_held_until(tx).await?);
                    let mut made = Vec::new();
                    for kind in snapshot.kinds() {
                        let of_kind = calendars(&snapshot, &held, kind, hours).into_iter();
                        made.extend(
                            of_kind
                                .map(|(site, hours)| PoolCalendar { pool: Pool { kind: kind.clone(), site: site.clone() }, hours }),
                        );
                    }
                    Ok(made)
                })
            })
            .await
    }

    /// How much the actor could lease of what is sold to it, in the coming hours.
    pub async fn availability_calendar(&self, actor: &Actor, wanted: &Wanted) -> Result<Vec<SkuCalendar>> {
        actor.require(Action::ReadCatalogue)?;
        let (now, hours) = (self.now(), checked(wanted.hours)?);
        self.cloud
            .store
            .read((self, actor, wanted), move |(compute, actor, wanted), tx| {
                Box::pin(compute.availability_calendar_in(tx, actor, wanted, (now, hours)))
            })
            .await
    }

    async fn availability_calendar_in(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        wanted: &Wanted,
        (now, hours): (Timestamp, usize),
    ) -> Result<Vec<SkuCalendar>> {
        self.cloud.follow_changes(tx).await?;
        let (holder, version) = self.holder_and_prices(tx, actor, now).await?;
        let shelf = DeviceShelf::read(tx, actor.scope.organization(), now).await?;
        let (snapshot, held) = (self.snapshot(tx).await?, reclaim::list_held_until(tx).await?);
        let calendar = BillingCalendar::new("UTC")?;
        let ask = Ask { snapshot: &snapshot, version: &version, calendar: &calendar, max_price: None, now };
        let isolation = self.settings.required_isolation(holder);
        let mut made = Vec::new();
        for kind in snapshot.kinds().into_iter().filter(|kind| wanted.kind.as_ref().is_none_or(|wanted| wanted == *kind)) {
            let sites = calendars(&snapshot, &held, kind, hours);
            for notice in NoticeClass::ALL.into_iter().filter(|notice| wanted.notice.is_none_or(|wanted| wanted == *notice)) {
                if shelf.find(&self.cloud, kind, notice).is_none() {
                    continue;
                }
                for (site, hours) in sites.iter().filter(|(site, _)| wanted.site.as_ref().is_none_or(|wanted| wanted == **site)) {
                    let (pool, at) = (Pool { kind: kind.clone(), site: (*site).clone() }, Some((*site).clone()));
                    let request = Request { kind: kind.clone(), units: 1, notice, holder, site: at, isolation };
                    let Some(first) = hours.first() else { continue };
                    if self.choices(tx, ask, &request).await?.is_empty() {
                        continue;
                    }
                    let levels = buckets(&snapshot, &pool, hours, (holder, notice));
                    made.push(SkuCalendar { pool, notice, starts_at: first.at, levels });
                }
            }
        }
        Ok(made)
    }
}

fn checked(hours: Option<usize>) -> Result<usize> {
    let hours = hours.unwrap_or(HOURS_DEFAULT);
    if (1..=HOURS_MAX).contains(&hours) {
        return Ok(hours);
    }
    let message = format!("a calendar has between 1 and {HOURS_MAX} hours, not {hours}");
    Err(Error::new(ErrorCode::InvalidRequest, message).param("hours").alternative(format!("ask for {HOURS_MAX} hours")))
}
