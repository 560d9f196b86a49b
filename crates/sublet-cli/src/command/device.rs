//! `sublet devices`.

use clap::Subcommand;
use sublet_api::device::{Device, DeviceListQuery, DeviceStatus};
use sublet_core::error::Result;
use sublet_core::id::DeviceId;

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, NOTHING, Table};
use crate::value::word;

/// Devices.
#[derive(Subcommand, Debug)]
pub enum DeviceCommand {
    /// List devices and what they do
    List {
        /// idle, sold, internal or lost
        #[arg(long, value_parser = word::<DeviceStatus>)]
        status: Option<DeviceStatus>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Keep a device out of sale; a running lease goes on
    Cordon { id: DeviceId },
    /// Offer a device again
    Uncordon { id: DeviceId },
}

impl DeviceCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let device = match self {
            Self::List { status, page } => {
                let order = page.order();
                let query = DeviceListQuery { status, node: None, limit: page.limit, after: page.after, before: None, order };
                let list = client.devices(&query)?;
                return show_page(context, &list, table);
            }
            Self::Cordon { id } => client.cordon_device(&id)?,
            Self::Uncordon { id } => client.uncordon_device(&id)?,
        };
        context.show(&device, |device| table(std::slice::from_ref(device)))
    }
}

fn table(devices: &[Device]) -> Table {
    let rows = devices.iter().map(|device| {
        [
            Cell::text(device.id.as_str()),
            Cell::text(&device.name),
            Cell::text(&device.kind),
            Cell::number(render::bytes(device.memory_bytes)),
            Cell::state(device.status.as_str()),
            Cell::text(if device.cordoned { "cordoned" } else { NOTHING }),
            Cell::optional(device.lease.as_ref()),
            Cell::optional(device.organization.as_ref()),
        ]
    });
    Table::new(["device", "name", "kind", "memory", "state", "sale", "lease", "organization"], "there are no devices").rows(rows)
}
