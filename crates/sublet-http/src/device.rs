//! Machines, devices and where they are: for the operator.

use sublet_api::capacity::Capacity;
use sublet_api::device as wire;
use sublet_api::list::ListQuery;
use sublet_api::object::{CapacityTag, DeviceTag, NodeTag};
use sublet_cloud::data::{Device, Lease, Node};
use sublet_core::device::DeviceHealth;
use sublet_core::id::DeviceId;
use sublet_core::lease::Holder;
use sublet_core::{Error, ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_answer, page_request};
use crate::wire::count;

fn node_to_wire(node: &Node, devices: i64) -> Result<wire::Node> {
    Ok(wire::Node {
        object: NodeTag,
        id: node.id.clone(),
        name: node.name.clone(),
        runner: node.runner.clone(),
        site: node.site.clone(),
        devices: u32::try_from(devices).map_err(|_| Error::internal("a node has a negative number of devices"))?,
        isolation: node.isolation.level(),
        created_at: node.created_at.into(),
    })
}

fn to_wire(device: &Device, lease: Option<&Lease>) -> Result<wire::Device> {
    let status = match (device.health, lease.map(|lease| lease.holder)) {
        (DeviceHealth::Lost, _) => wire::DeviceStatus::Lost,
        (_, Some(Holder::External)) => wire::DeviceStatus::Sold,
        (_, Some(Holder::Internal)) => wire::DeviceStatus::Internal,
        (_, None) => wire::DeviceStatus::Idle,
    };
    Ok(wire::Device {
        object: DeviceTag,
        id: device.id.clone(),
        node: device.node.clone(),
        name: device.name.clone(),
        kind: device.kind.to_string(),
        uuid: device.uuid.clone(),
        memory_bytes: count(device.memory.get())?,
        status,
        lease: device.lease.clone(),
        organization: lease.map(|lease| lease.organization.clone()),
        cordoned: device.health == DeviceHealth::Cordoned,
        created_at: device.created_at.into(),
    })
}

pub async fn list_nodes(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let page = app.compute.list_nodes(&context.actor, &page_request(&asked)?).await?;
    let items = page.items.iter().map(|(node, devices)| node_to_wire(node, *devices)).collect::<Result<Vec<_>>>()?;
    page_answer(&asked, sublet_cloud::data::Page { items, has_more: page.has_more }, |wire| wire, |wire| wire.id.to_string())
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::DeviceListQuery = context.query()?;
    if query.status.is_some() {
        return Err(Error::new(ErrorCode::UnsupportedField, "devices cannot be filtered by status yet").param("status"));
    }
    let asked = query.page();
    let page = app.compute.list_devices(&context.actor, query.node.as_ref(), &page_request(&asked)?).await?;
    let items = page.items.iter().map(|(device, lease)| to_wire(device, lease.as_ref())).collect::<Result<Vec<_>>>()?;
    page_answer(&asked, sublet_cloud::data::Page { items, has_more: page.has_more }, |wire| wire, |wire| wire.id.to_string())
}

pub async fn cordon(app: App, context: Context) -> Result<Answer> {
    let id: DeviceId = context.path("id")?;
    json(&to_wire(&app.compute.cordon_device(&context.actor, &id).await?, None)?)
}

pub async fn uncordon(app: App, context: Context) -> Result<Answer> {
    let id: DeviceId = context.path("id")?;
    json(&to_wire(&app.compute.uncordon_device(&context.actor, &id).await?, None)?)
}

pub async fn capacity(app: App, context: Context) -> Result<Answer> {
    let kinds = app.compute.capacity(&context.actor).await?;
    let pools = crate::demand::pools(&app, &context).await?;
    let pools_of = |kind: &str| pools.iter().filter(|(of, _)| of == kind).map(|(_, pool)| pool.clone()).collect();
    let data = kinds
        .iter()
        .map(|kind| Capacity {
            object: CapacityTag,
            device_kind: kind.kind.to_string(),
            total: kind.figures.total,
            idle: kind.figures.idle.saturating_add(kind.figures.promised),
            sold: kind.figures.external,
            internal: kind.figures.internal,
            cordoned: kind.cordoned,
            lost: kind.lost,
            pools: pools_of(kind.kind.as_str()),
            as_of: kind.as_of.into(),
        })
        .collect();
    json(&sublet_api::List::whole(data))
}
