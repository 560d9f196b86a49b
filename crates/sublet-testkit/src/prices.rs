//! Other prices.

use std::collections::BTreeSet;

use sublet_cloud::idempotency::Call;
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::PriceVersion;
use sublet_core::{DurationMs, Nanos};
use sublet_money::price_book::{PriceEntry, PriceListDraft};
use sublet_money::price_model::PriceModel;
use sublet_money::time_of_use::{Band, TimeOfUse, Weekday, Window};
use sublet_money::zone::Zone;

use crate::clock::ManualClock;
use crate::tenant::created;

/// Publishes a version, a second from now, in which each price of the version that this process knows is changed.
pub async fn republish(cloud: &Cloud, clock: &ManualClock, change: impl Fn(&PriceEntry) -> PriceEntry) -> PriceVersion {
    let lists = cloud.prices().snapshot();
    let list = lists.values().next().expect("a list");
    let entries = list.versions().last().expect("a version").entries().map(change).collect();
    publish(cloud, clock, entries).await
}

/// Publishes a version, a second from now, with these prices.
pub async fn publish(cloud: &Cloud, clock: &ManualClock, entries: Vec<PriceEntry>) -> PriceVersion {
    clock.advance(DurationMs::from_seconds(1));
    let lists = cloud.prices().snapshot();
    let list = lists.values().next().expect("a list");
    let now = cloud.clock().now();
    let draft = PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at: now, entries };
    let answer = cloud.publish_prices(&Call::once(Actor::system()), &list.name, draft, now).await;
    created(answer).version().clone()
}

/// So much for each unit.
pub fn per_unit(price: i64) -> PriceModel {
    PriceModel::PerUnit { price: Nanos::new(price) }
}

/// A band of windows like `22:00-06:00` on every day.
pub fn band(name: &str, windows: &[String], model: PriceModel) -> Band {
    let window = |text: &String| {
        let (from, until) = text.split_once('-').expect("a window");
        let days: BTreeSet<Weekday> = Weekday::ALL.into_iter().collect();
        Window { days, from: from.parse().expect("a time"), until: until.parse().expect("a time") }
    };
    Band { name: name.parse().expect("a name"), windows: windows.iter().map(window).collect(), model }
}

/// Bands on the clocks of Coordinated Universal Time.
pub fn by_time(bands: Vec<Band>) -> Option<TimeOfUse> {
    Some(TimeOfUse { zone: Zone::new("UTC").expect("a zone"), bands })
}
