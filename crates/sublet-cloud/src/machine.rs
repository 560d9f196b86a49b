//! Machines: what this process's runner offers, registered as nodes and devices, and followed while it changes.

use std::collections::{BTreeMap, BTreeSet};

use sublet_core::device::{DeviceClass, DeviceHealth};
use sublet_core::id::{NodeId, SiteId};
use sublet_core::runner::{DeviceInfo, Machine};
use sublet_core::{Error, ErrorCode, Result, Timestamp};
use sublet_store::device::{self, Device, Node};
use sublet_store::{Store, Tx, organization, setting};

use crate::Actor;
use crate::audit::Deed;
use crate::compute::Compute;
use crate::device::class_when_free;

/// Who offers the machines of this process's runner.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Registration {
    /// This process.
    pub offered: Vec<Node>,
    /// The runner of another process, which was first.
    pub taken: Vec<Node>,
}

/// Whether the machines are simulated; not there in a cloud that never opened any.
const SIMULATED: &str = "machines.simulated";

/// Makes sure that a cloud has the kind of machines that it had from the start: time that nobody worked must not get into
/// the books of customers.
pub async fn check_machines(store: &Store, are_simulated: bool) -> Result<()> {
    store.write(are_simulated, |are_simulated, tx| Box::pin(check_in(tx, *are_simulated))).await
}

async fn check_in(tx: &mut Tx, are_simulated: bool) -> Result<()> {
    let known = setting::find(tx, SIMULATED).await?.map(|text| text == "yes");
    let elsewhere = "start a cloud with simulated machines in a new data directory, and on a database of its own";
    match (known, are_simulated) {
        (Some(true), true) | (Some(false), false) => Ok(()),
        (Some(true), false) => {
            Err(Error::new(ErrorCode::Conflict, "this cloud's machines are simulated, and its books follow them")
                .alternative("describe this process's machines with --fleet FILE"))
        }
        (Some(false), true) => {
            Err(Error::new(ErrorCode::Conflict, "this cloud's machines are real, and its books follow them").alternative(elsewhere))
        }
        (None, true) if organization::exist(tx).await? => {
            Err(Error::new(ErrorCode::Conflict, "this cloud has customers already").alternative(elsewhere))
        }
        (None, _) => setting::set(tx, SIMULATED, if are_simulated { "yes" } else { "no" }).await,
    }
}

/// The machines as they were last registered, by their names.
pub(crate) type Offered = BTreeMap<String, Machine>;

impl Compute {
    /// Takes note of the runner's machines and their devices. Devices are found again by their hardware's own
    /// identifier; what the runner no longer reports is lost. Call it at every start. A machine that another runner
    /// offers already stays with that runner, so that no device is sold twice.
    pub async fn register_devices(&self) -> Result<Registration> {
        let machines = self.machines()?;
        let mut registration = Registration::default();
        for (name, machine) in &machines {
            let node = self.register_machine(name, machine).await?;
            let list = if node.runner == self.runner.name() { &mut registration.offered } else { &mut registration.taken };
            list.push(node);
        }
        let offered: BTreeSet<NodeId> = registration.offered.iter().map(|node| node.id.clone()).collect();
        self.lose_devices(|node| !offered.contains(node)).await?;
        self.told.set_offered(Some(machines));
        Ok(registration)
    }

    /// Registers what has changed since it was registered; nothing if nothing ever was. Says how many machines have.
    pub(crate) async fn follow_machines(&self) -> Result<usize> {
        let Some(before) = self.told.offered() else { return Ok(0) };
        let machines = self.machines()?;
        if machines.len() != before.len() || machines.keys().any(|name| !before.contains_key(name)) {
            self.register_devices().await?;
            return Ok(machines.len());
        }
        let changed = machines.iter().filter(|(name, machine)| before.get(*name) != Some(machine));
        let mut count = 0;
        for (name, machine) in changed {
            self.register_machine(name, machine).await?;
            count += 1;
        }
        if count > 0 {
            self.told.set_offered(Some(machines));
        }
        Ok(count)
    }

    fn machines(&self) -> Result<Offered> {
        let mut machines = Offered::new();
        for machine in self.runner.machines() {
            let name = machine.name.clone().unwrap_or_else(|| self.settings.node_name.clone());
            if machines.insert(name.clone(), machine).is_some() {
                return Err(Error::internal(format!("the runner reports two machines with the name '{name}'")));
            }
        }
        Ok(machines)
    }

    /// Takes this process's devices out of sale because it stops: nobody would run what is sold on them. They are back
    /// with [`Self::register_devices`].
    pub async fn retire_devices(&self) -> Result<()> {
        self.told.set_offered(None);
        self.lose_devices(|_| true).await
    }

    /// One machine of the runner, as it is known from then on.
    async fn register_machine(&self, name: &str, machine: &Machine) -> Result<Node> {
        let now = self.now();
        let first_site: SiteId = "site_local".parse()?;
        let asked_site = machine.site.as_ref().or(self.settings.site.as_ref());
        let node = Node {
            id: self.cloud.ids.mint(),
            name: name.to_owned(),
            runner: self.runner.name().to_owned(),
            site: asked_site.cloned().unwrap_or(first_site),
            isolation: machine.isolation.clone(),
            created_at: now,
        };
        let context = (self, &node, &machine.devices);
        let (is_site_asked, is_own) = (asked_site.is_some(), machine.name.is_none());
        self.cloud
            .store
            .write(context, move |(compute, node, reported), tx| {
                Box::pin(async move {
                    // The owner may call it otherwise than at the last start.
                    if is_own {
                        device::rename_node_of(tx, &node.runner, &node.name).await?;
                    }
                    let known = device::node_named(tx, &node.name).await?;
                    let mut asked = (*node).clone();
                    if let (false, Some(known)) = (is_site_asked, &known) {
                        asked.site = known.site.clone();
                    }
                    let node = device::register_node(tx, &asked).await?;
                    if node.runner != asked.runner {
                        return Ok(node);
                    }
                    if let Some(known) = known.filter(|known| known.site != node.site) {
                        let detail = format!("{} from {} to {}", node.name, known.site, node.site);
                        let deed = Deed { organization: None, action: "node.move", target: node.id.as_str(), detail };
                        compute.cloud.record(tx, &Actor::system(), deed, now).await?;
                    }
                    compute.register_in(tx, &node, reported, now).await?;
                    Ok(node)
                })
            })
            .await
    }

    /// Devices of those machines of this runner count as lost.
    async fn lose_devices(&self, is_gone: impl Fn(&NodeId) -> bool + Send + Sync) -> Result<()> {
        let now = self.now();
        self.cloud
            .store
            .write((self, &is_gone), move |(compute, is_gone), tx| {
                Box::pin(async move {
                    for node in device::list_all_nodes(tx).await? {
                        if node.runner != compute.runner.name() || !is_gone(&node.id) {
                            continue;
                        }
                        for found in device::list_of_node(tx, &node.id).await? {
                            if found.health != DeviceHealth::Lost {
                                let changed = Device { health: DeviceHealth::Lost, ..found.clone() };
                                compute.change_device(tx, &found, &changed, now).await?;
                            }
                        }
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn register_in(&self, tx: &mut Tx, node: &Node, reported: &[DeviceInfo], now: Timestamp) -> Result<()> {
        let known = device::list_of_node(tx, &node.id).await?;
        let is_taken = |device: &Device| device.lease.is_some() || device.promised_to.is_some();
        if let Some(leased) = known.iter().find(|device| device.site != node.site && is_taken(device)) {
            let message = format!("{} was at {}, and a device of it is leased there", node.name, leased.site);
            return Err(Error::new(ErrorCode::Conflict, message)
                .alternative(format!("start with --site {}, and move the machine after its leases have ended", leased.site)));
        }
        let uuids: BTreeSet<&str> = reported.iter().map(|info| info.uuid.as_str()).collect();
        for info in reported {
            match known.iter().find(|device| device.uuid == info.uuid) {
                Some(found) => {
                    let back = if found.cordoned { DeviceHealth::Cordoned } else { DeviceHealth::Healthy };
                    let health = if found.health == DeviceHealth::Lost { back } else { found.health };
                    let (name, site) = (info.name.clone(), node.site.clone());
                    let changed = Device { name, site, memory: info.memory, health, ..found.clone() };
                    self.change_device(tx, found, &changed, now).await?;
                }
                None => self.insert_device(tx, node, info, now).await?,
            }
        }
        for gone in known.iter().filter(|device| !uuids.contains(device.uuid.as_str())) {
            let changed = Device { health: DeviceHealth::Lost, site: node.site.clone(), ..gone.clone() };
            self.change_device(tx, gone, &changed, now).await?;
        }
        Ok(())
    }

    async fn insert_device(&self, tx: &mut Tx, node: &Node, info: &DeviceInfo, now: Timestamp) -> Result<()> {
        let device = Device {
            id: self.cloud.ids.mint(),
            node: node.id.clone(),
            site: node.site.clone(),
            name: info.name.clone(),
            kind: info.kind.parse()?,
            uuid: info.uuid.clone(),
            memory: info.memory,
            health: DeviceHealth::Healthy,
            cordoned: false,
            lease: None,
            promised_to: None,
            generation: 1,
            created_at: now,
        };
        device::insert(tx, &device).await?;
        device::switch_class(tx, &device.id, DeviceClass::Idle, None, now).await?;
        let detail = format!("{} {} of {}", device.kind, device.name, node.name);
        let deed = Deed { organization: None, action: "device.register", target: device.id.as_str(), detail };
        self.cloud.record(tx, &Actor::system(), deed, now).await
    }

    pub(crate) async fn change_device(&self, tx: &mut Tx, found: &Device, changed: &Device, now: Timestamp) -> Result<()> {
        if found == changed {
            return Ok(());
        }
        device::update(tx, changed).await?;
        if found.health == changed.health {
            return Ok(());
        }
        if changed.lease.is_none() {
            let (class, lease) = class_when_free(changed);
            device::switch_class(tx, &changed.id, class, lease, now).await?;
        }
        let detail = format!("{} to {}", found.health, changed.health);
        let deed = Deed { organization: None, action: "device.health", target: changed.id.as_str(), detail };
        self.cloud.record(tx, &Actor::system(), deed, now).await
    }
}
