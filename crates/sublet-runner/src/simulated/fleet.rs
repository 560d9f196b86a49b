//! What a simulated fleet consists of.

use serde::{Deserialize, Serialize};
use sublet_core::device::DeviceKind;
use sublet_core::id::SiteId;
use sublet_core::runner::DeviceInfo;
use sublet_core::{Bytes, Error, ErrorCode, Result, Timestamp};

use super::fault::{Faults, seed_of};

/// Bytes of a description.
const TEXT_BYTES_MAX: usize = 1024 * 1024;
const POOLS_MAX: usize = 256;
const DEVICES_PER_MACHINE_MAX: u32 = 64;
/// Devices of a fleet.
const DEVICES_MAX: u64 = 10_000;
const MEMORY_GIB_MAX: u32 = 65_536;
const GIB: i64 = 1 << 30;
const START_SECONDS_MAX: u32 = 3_600;

/// A fleet as its owner describes it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Another number, other faults.
    #[serde(default)]
    pub seed: u64,
    pub pools: Vec<Pool>,
    #[serde(default)]
    pub faults: Faults,
    /// From placing a workload to its first instruction.
    #[serde(default)]
    pub start_seconds: u32,
}

/// Machines that are alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    pub site: SiteId,
    pub kind: DeviceKind,
    pub machines: u32,
    /// Of each machine.
    pub devices: u32,
    /// Of each device.
    pub memory_gib: u32,
}

/// A machine of the description, whether or not it is up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FleetMachine {
    pub name: String,
    pub site: SiteId,
    seed: u64,
    pub devices: Vec<FleetDevice>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FleetDevice {
    pub info: DeviceInfo,
    seed: u64,
}

impl Fleet {
    /// Reads a description in JSON.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(refusal(format!("the fleet's description has more than {TEXT_BYTES_MAX} bytes")));
        }
        let fleet: Self = serde_json::from_str(text).map_err(|error| refusal(format!("the fleet's description: {error}")))?;
        fleet.check()?;
        Ok(fleet)
    }

    fn check(&self) -> Result<()> {
        if self.pools.is_empty() || self.pools.len() > POOLS_MAX {
            return Err(refusal(format!("'pools' has {} pools; it takes 1 to {POOLS_MAX}", self.pools.len())));
        }
        let mut devices = 0;
        for (place, pool) in self.pools.iter().enumerate() {
            let wrong = |what: &str, value: u32, most: u64| {
                refusal(format!("'pools[{place}].{what}' is {value}; it is a whole number from 1 to {most}"))
            };
            if pool.machines == 0 || u64::from(pool.machines) > DEVICES_MAX {
                return Err(wrong("machines", pool.machines, DEVICES_MAX));
            }
            if pool.devices == 0 || pool.devices > DEVICES_PER_MACHINE_MAX {
                return Err(wrong("devices", pool.devices, DEVICES_PER_MACHINE_MAX.into()));
            }
            if pool.memory_gib == 0 || pool.memory_gib > MEMORY_GIB_MAX {
                return Err(wrong("memory_gib", pool.memory_gib, MEMORY_GIB_MAX.into()));
            }
            let is_same = |other: &Pool| other.site == pool.site && other.kind == pool.kind;
            if self.pools[..place].iter().any(is_same) {
                return Err(refusal(format!("'pools[{place}]' is {} at {} once more; say it in one pool", pool.kind, pool.site)));
            }
            devices += u64::from(pool.machines) * u64::from(pool.devices);
        }
        if devices > DEVICES_MAX {
            return Err(refusal(format!("the fleet has {devices} devices; it takes at most {DEVICES_MAX}")));
        }
        for (name, rate) in [("machine", self.faults.machine), ("device", self.faults.device)] {
            if rate.is_some_and(|rate| rate.hours_between == 0 || rate.repair_minutes == 0) {
                return Err(refusal(format!("'faults.{name}' needs hours and minutes above zero; leave it out for no faults")));
            }
        }
        if self.start_seconds > START_SECONDS_MAX {
            return Err(refusal(format!("'start_seconds' is {}; it is at most {START_SECONDS_MAX}", self.start_seconds)));
        }
        Ok(())
    }

    /// The kinds of devices there are, in order.
    pub fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self.pools.iter().map(|pool| pool.kind.to_string()).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    pub(super) fn machines(&self) -> Vec<FleetMachine> {
        self.pools.iter().flat_map(|pool| (1..=pool.machines).map(|number| self.machine(pool, number))).collect()
    }

    fn machine(&self, pool: &Pool, number: u32) -> FleetMachine {
        let site = pool.site.as_str().trim_start_matches("site_");
        let name = format!("{site}-{}-{number:03}", pool.kind);
        let devices = (0..pool.devices).map(|slot| {
            let name = format!("{name}-{slot}");
            let info = DeviceInfo {
                kind: pool.kind.to_string(),
                uuid: format!("simulated-{name}"),
                memory: Bytes::new(i64::from(pool.memory_gib) * GIB),
                name: name.clone(),
            };
            FleetDevice { info, seed: seed_of(self.seed, &name) }
        });
        FleetMachine { devices: devices.collect(), site: pool.site.clone(), seed: seed_of(self.seed, &name), name }
    }
}

impl FleetMachine {
    pub fn is_up(&self, faults: &Faults, now: Timestamp) -> bool {
        !faults.machine.is_some_and(|rate| rate.is_down(self.seed, now))
    }

    /// The devices that can be used now.
    pub fn usable(&self, faults: &Faults, now: Timestamp) -> Vec<DeviceInfo> {
        if !self.is_up(faults, now) {
            return Vec::new();
        }
        let is_up = |device: &&FleetDevice| !faults.device.is_some_and(|rate| rate.is_down(device.seed, now));
        self.devices.iter().filter(is_up).map(|device| device.info.clone()).collect()
    }

    /// When the first fault of the machine or one of these devices of it begins, after one instant and not after another.
    pub fn first_fault(&self, faults: &Faults, names: &[String], (after, until): (Timestamp, Timestamp)) -> Option<Timestamp> {
        let of_machine = faults.machine.and_then(|rate| rate.first_between(self.seed, after, until));
        let used = self.devices.iter().filter(|device| names.contains(&device.info.name));
        let of_devices = used.filter_map(|device| faults.device?.first_between(device.seed, after, until));
        of_devices.chain(of_machine).min()
    }
}

fn refusal(message: String) -> Error {
    Error::new(ErrorCode::InvalidRequest, message)
        .alternative(r#"for example {"pools":[{"site":"site_north","kind":"h200","machines":4,"devices":8,"memory_gib":141}]}"#)
}
