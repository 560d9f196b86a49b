//! Calendars of what could be leased, and of the fleet.

use sublet_api::calendar as wire;
use sublet_api::object::{AvailabilityCalendarTag, CapacityCalendarTag};
use sublet_api::sku::SkuName;
use sublet_cloud::calendar::{PoolCalendar, SkuCalendar, Wanted};
use sublet_cloud::data::HourFigures;
use sublet_core::Result;
use sublet_core::notice::NoticeClass;

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::sku::device_kind;

pub async fn availability(app: App, context: Context) -> Result<Answer> {
    let query: wire::AvailabilityCalendarQuery = context.query()?;
    let kind = match &query.sku {
        Some(name) => Some(device_kind(&app, &context.actor, name.as_str()).await?),
        None => None,
    };
    let wanted = Wanted { kind, notice: query.notice, site: query.site, hours: query.hours.map(usize::from) };
    let made = app.compute.availability_calendar(&context.actor, &wanted).await?;
    let row = |one: SkuCalendar| wire::AvailabilityCalendar {
        object: AvailabilityCalendarTag,
        sku: SkuName(one.pool.kind.to_string()),
        notice: one.notice,
        site: one.pool.site,
        starts_at: one.starts_at.into(),
        levels: one.levels.into_iter().map(|level| level.as_str().to_owned()).collect(),
    };
    json(&sublet_api::List::whole(made.into_iter().map(row).collect()))
}

pub async fn capacity(app: App, context: Context) -> Result<Answer> {
    let query: wire::CapacityCalendarQuery = context.query()?;
    let made = app.compute.capacity_calendar(&context.actor, query.hours.map(usize::from)).await?;
    let pool = |one: PoolCalendar| wire::CapacityCalendar {
        object: CapacityCalendarTag,
        device_kind: one.pool.kind.to_string(),
        site: one.pool.site,
        hours: one.hours.iter().map(hour).collect(),
    };
    json(&sublet_api::List::whole(made.into_iter().map(pool).collect()))
}

fn hour(figures: &HourFigures) -> wire::CapacityHour {
    let sold = NoticeClass::ALL.into_iter().zip(figures.sold).filter(|(_, units)| *units > 0);
    wire::CapacityHour {
        at: figures.at.into(),
        owned: figures.owned,
        unhealthy: figures.unhealthy,
        internal: figures.internal,
        sold: sold.map(|(notice, units)| wire::SoldUnits { notice, units }).collect(),
        idle: figures.idle,
        outside: figures.outside,
        kept: figures.kept,
        free: figures.free,
        own_need_max: figures.own_need_max,
    }
}
