//! What this machine has to lease: processor slots, and the accelerators whose drivers are loaded.

use std::fs;
use std::path::{Path, PathBuf};

use sublet_core::quantity::Bytes;
use sublet_core::runner::DeviceInfo;

use crate::channel::DeviceNode;

/// Slots and accelerators of one machine.
pub const DEVICES_MAX: usize = 1_024;
/// Device files that every program using an NVIDIA accelerator opens.
const NVIDIA_SHARED: [&str; 4] = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"];

/// A device that the operator describes instead of it being found, such as a simulated accelerator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfiguredDevice {
    pub info: DeviceInfo,
    /// Host device files that only the holder of a lease sees, under the same file name in /dev.
    pub nodes: Vec<PathBuf>,
    /// What stands for it in CUDA_VISIBLE_DEVICES; nothing if it is no CUDA device.
    pub cuda_name: Option<String>,
}

/// A device that can be leased and what a holder needs to use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    pub info: DeviceInfo,
    pub nodes: Vec<DeviceNode>,
    pub cuda_name: Option<String>,
}

/// Lists processor slots, found accelerators and configured devices, in this order.
pub fn list(cpu_slots: u32, configured: &[ConfiguredDevice]) -> Vec<Device> {
    let memory = rustix::system::sysinfo();
    let memory = u64::from(memory.mem_unit).saturating_mul(memory.totalram);
    let memory = i64::try_from(memory).unwrap_or(i64::MAX).div_euclid(i64::from(cpu_slots.max(1)));
    let mut devices: Vec<Device> = (0..cpu_slots).map(|slot| cpu_slot(slot, Bytes::new(memory))).collect();
    devices.extend(nvidia(Path::new("/proc/driver/nvidia/gpus"), Path::new("/dev")));
    devices.extend(configured.iter().map(|device| Device {
        info: device.info.clone(),
        nodes: device.nodes.iter().map(|host| DeviceNode { host: host.clone(), inside: inside(host) }).collect(),
        cuda_name: device.cuda_name.clone(),
    }));
    devices.truncate(DEVICES_MAX);
    devices
}

fn inside(host: &Path) -> PathBuf {
    Path::new("/dev").join(host.file_name().unwrap_or_default())
}

fn cpu_slot(slot: u32, memory: Bytes) -> Device {
    let name = format!("cpu-slot-{slot}");
    let info = DeviceInfo { name: name.clone(), kind: "cpu".to_owned(), uuid: name, memory };
    Device { info, nodes: Vec::new(), cuda_name: None }
}

/// Reads what the NVIDIA driver says about its devices. Their memory is not in these files and is given as zero.
fn nvidia(gpus: &Path, dev: &Path) -> Vec<Device> {
    let Ok(entries) = fs::read_dir(gpus) else { return Vec::new() };
    let mut devices: Vec<Device> = entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("information")).ok())
        .filter_map(|text| nvidia_device(&text, dev))
        .collect();
    devices.sort_by(|a, b| a.info.name.cmp(&b.info.name));
    devices
}

fn nvidia_device(information: &str, dev: &Path) -> Option<Device> {
    let field = |name: &str| {
        let line = information.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(':').trim().to_owned())
    };
    let (model, uuid, minor) = (field("Model")?, field("GPU UUID")?, field("Device Minor")?);
    let own = dev.join(format!("nvidia{minor}"));
    if !uuid.starts_with("GPU-") || uuid.contains('?') || !own.exists() {
        return None;
    }
    let shared = NVIDIA_SHARED.iter().map(PathBuf::from).filter(|path| path.exists());
    let nodes = shared.chain([own]).map(|host| DeviceNode { inside: inside(&host), host }).collect();
    let kind = model.to_lowercase().replace(' ', "-");
    let info = DeviceInfo { name: uuid.to_lowercase(), kind, uuid: uuid.clone(), memory: Bytes::ZERO };
    Some(Device { info, nodes, cuda_name: Some(uuid) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_is_a_slot_with_its_share_of_memory() {
        let devices = list(3, &[]);
        let names: Vec<&str> = devices.iter().filter(|d| d.info.kind == "cpu").map(|device| device.info.name.as_str()).collect();
        assert_eq!(names, ["cpu-slot-0", "cpu-slot-1", "cpu-slot-2"]);
        assert!(devices[0].info.memory > Bytes::ZERO);
    }

    #[test]
    fn an_accelerator_is_named_by_the_hardwares_own_id() {
        let directory = tempfile::tempdir().unwrap();
        let (gpus, dev) = (directory.path().join("gpus"), directory.path().join("dev"));
        fs::create_dir_all(gpus.join("0000:1b:00.0")).unwrap();
        fs::create_dir_all(&dev).unwrap();
        let text = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 18\nGPU UUID: \t GPU-1a2b3c4d-0000-1111-2222-333344445555\n\
                    Device Minor: \t 3\n";
        fs::write(gpus.join("0000:1b:00.0/information"), text).unwrap();
        assert_eq!(nvidia(&gpus, &dev), [], "a device without its device file cannot be used");
        fs::write(dev.join("nvidia3"), "").unwrap();
        let found = nvidia(&gpus, &dev);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].info.name, "gpu-1a2b3c4d-0000-1111-2222-333344445555");
        assert_eq!(found[0].info.kind, "nvidia-h100-80gb-hbm3");
        assert_eq!(found[0].cuda_name.as_deref(), Some("GPU-1a2b3c4d-0000-1111-2222-333344445555"));
        assert_eq!(found[0].nodes.last().unwrap().inside, Path::new("/dev/nvidia3"));
    }
}
