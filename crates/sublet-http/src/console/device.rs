//! The fleet: every device, what it does, and for whom.

use std::collections::BTreeMap;

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::data::{Device, KindFigures, Lease, PageRequest};
use sublet_cloud::device::KindCapacity;
use sublet_core::Result;
use sublet_core::device::{DeviceClass, DeviceHealth};
use sublet_core::id::OrganizationId;
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;

use super::chart::{Part, Svg, meter};
use super::figure::{bytes_text, duration_text};
use super::pool::{self, PoolRow};
use super::shell::Shell;
use super::visit::Visit;
use super::{Console, shell};

/// Devices on one page.
const ROWS_ON_PAGE: i64 = 100;
/// Pages that are read to count what is sold: 10,000 devices.
const PAGES_MAX: usize = 100;

/// Where the devices of one kind are.
pub struct KindRow {
    pub kind: String,
    pub figures: KindFigures,
    pub cordoned: u32,
    pub lost: u32,
    pub meter: Svg,
}

/// The parts of a fleet meter, in the order in which they are drawn.
pub fn parts(figures: &KindFigures, out_of_service: u32) -> [Part; 5] {
    let part = |class: &'static str, name: &str, count: u32| Part::new(class, format!("{count} {name}"), i64::from(count));
    [
        part("external", "sold to customers", figures.external),
        part("internal", "used by our own teams", figures.internal),
        part("promised", "promised", figures.promised),
        part("idle", "idle", figures.idle),
        part("bad", "out of service", out_of_service),
    ]
}

fn kind_row(capacity: &KindCapacity) -> KindRow {
    let figures = capacity.figures;
    let out_of_service = figures.total.saturating_sub(figures.healthy);
    let description = format!("{} of {} devices idle", figures.idle, figures.total);
    KindRow {
        kind: capacity.kind.to_string(),
        cordoned: capacity.cordoned,
        lost: capacity.lost,
        meter: meter(i64::from(figures.total), &parts(&figures, out_of_service), &description),
        figures,
    }
}

pub fn kinds(capacity: &[KindCapacity]) -> Vec<KindRow> {
    capacity.iter().map(kind_row).collect()
}

/// One device with whoever has it.
pub struct DeviceRow {
    pub id: String,
    pub name: String,
    pub kind: String,
    pub memory: String,
    pub health: DeviceHealth,
    pub class: &'static str,
    pub does: &'static str,
    /// Who has it.
    pub holder: String,
    pub lease: Option<Lease>,
}

fn device_row(device: Device, lease: Option<Lease>, holder: String) -> DeviceRow {
    let (class, does) = match (&lease, device.health, &device.promised_to) {
        (Some(lease), ..) => match lease.holder {
            Holder::Internal => ("internal", "our own team"),
            Holder::External => ("external", "sold"),
        },
        (None, DeviceHealth::Healthy, Some(_)) => ("promised", "promised"),
        (None, DeviceHealth::Healthy, None) => ("idle", "idle"),
        (None, DeviceHealth::Cordoned, _) => ("bad", "cordoned"),
        (None, DeviceHealth::Lost, _) => ("bad", "lost"),
    };
    DeviceRow {
        id: device.id.to_string(),
        name: device.name,
        kind: device.kind.to_string(),
        memory: bytes_text(device.memory),
        health: device.health,
        class,
        does,
        holder,
        lease,
    }
}

/// Devices sold to customers, by the notice they were sold with.
pub async fn sold_by_notice(console: &Console, visit: &Visit) -> Result<Vec<(NoticeClass, u32)>> {
    let mut sold: Vec<(NoticeClass, u32)> = NoticeClass::ALL.into_iter().map(|notice| (notice, 0)).collect();
    let mut page = PageRequest { limit: Some(ROWS_ON_PAGE), ..PageRequest::default() };
    for _ in 0..PAGES_MAX {
        let found = console.app.compute.list_devices(&visit.actor, None, &page).await?;
        page.after = found.items.last().map(|(device, _)| device.id.to_string());
        for lease in found.items.iter().filter_map(|(_, lease)| lease.as_ref()).filter(|lease| lease.holder == Holder::External) {
            if let Some((_, count)) = sold.iter_mut().find(|(notice, _)| *notice == lease.notice) {
                *count = count.saturating_add(1);
            }
        }
        if !found.has_more {
            break;
        }
    }
    Ok(sold)
}

/// Device time by class, as parts of all of it.
pub fn time_parts(times: &[(DeviceClass, i64)]) -> Vec<Part> {
    let part = |&(class, millis): &(DeviceClass, i64)| {
        let (colour, name) = match class {
            DeviceClass::Idle => ("idle", "idle"),
            DeviceClass::Held => ("promised", "held, not running"),
            DeviceClass::Internal => ("internal", "our own teams"),
            DeviceClass::Lease => ("external", "customers with notice"),
            DeviceClass::Spot => ("spot", "customers without notice"),
            DeviceClass::Drain => ("drain", "draining"),
            DeviceClass::Unhealthy => ("bad", "out of service"),
        };
        Part::new(colour, format!("{name}: {}", duration_text(sublet_core::DurationMs::from_millis(millis))), millis)
    };
    // Work first, then what waits, then what is idle.
    const ORDER: [DeviceClass; 7] = [
        DeviceClass::Lease,
        DeviceClass::Spot,
        DeviceClass::Internal,
        DeviceClass::Held,
        DeviceClass::Drain,
        DeviceClass::Idle,
        DeviceClass::Unhealthy,
    ];
    let in_order = ORDER.iter().filter_map(|class| times.iter().find(|(known, _)| known == class));
    in_order.filter(|(_, millis)| *millis > 0).map(part).collect()
}

#[derive(Template)]
#[template(path = "fleet.html")]
struct FleetPage {
    shell: Shell,
    kinds: Vec<KindRow>,
    selling: &'static str,
    pools: Vec<PoolRow>,
    devices: Vec<DeviceRow>,
    reserve_units: u32,
    reserve_thousandths: u32,
    next: Option<String>,
}

/// An organization's name, looked up once for a page.
async fn name_of(
    console: &Console,
    visit: &Visit,
    names: &mut BTreeMap<OrganizationId, String>,
    id: &OrganizationId,
) -> Result<String> {
    if let Some(name) = names.get(id) {
        return Ok(name.clone());
    }
    let name = console.app.cloud.get_organization(&visit.actor, id).await?.name;
    names.insert(id.clone(), name.clone());
    Ok(name)
}

pub async fn list(console: Console, visit: Visit) -> Result<Response<Body>> {
    let after = visit.guest.query::<super::request::After>()?.after;
    let compute = &console.app.compute;
    let page = PageRequest { limit: Some(ROWS_ON_PAGE), after, ..PageRequest::default() };
    let found = compute.list_devices(&visit.actor, None, &page).await?;
    let mut names: BTreeMap<OrganizationId, String> = BTreeMap::new();
    let mut devices = Vec::with_capacity(found.items.len());
    for (device, lease) in found.items {
        let holder = match lease.as_ref().map(|lease| &lease.organization) {
            Some(id) => name_of(&console, &visit, &mut names, id).await?,
            None => String::new(),
        };
        devices.push(device_row(device, lease, holder));
    }
    let reserve = compute.reserve(&visit.actor).await?;
    let kinds = kinds(&compute.capacity(&visit.actor).await?);
    let selling = pool::selling(compute.selling_mode(&visit.actor).await?);
    let pools = pool::rows(&compute.list_pools(&visit.actor).await?);
    let next = devices.last().filter(|_| found.has_more).map(|last| last.id.clone());
    let shell = Shell::of(&console, &visit.actor, "Fleet", "/console/fleet").await?;
    shell::html(&FleetPage {
        shell,
        kinds,
        selling,
        pools,
        devices,
        reserve_units: reserve.minimum_units,
        reserve_thousandths: reserve.fraction_thousandths,
        next,
    })
}
