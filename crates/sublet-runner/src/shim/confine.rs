//! What the job gives up before it becomes the customer's program, apart from system calls.

use std::fs;
use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::channel::Launch;

/// The newest rules this was written for; an older kernel gives what it has.
const LANDLOCK_NEWEST: ABI = ABI::V7;
/// Memory that may be locked, in bytes.
const LOCKED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The kernel numbers capabilities from 0; today it knows 41.
const CAPABILITIES_MAX: u32 = 64;

/// Sets the limits that the kernel keeps per process. The size of a file is not among them: the disk is limited as a whole,
/// and a program can handle a full disk but not the signal that a file limit sends.
pub fn limit_resources(launch: &Launch) -> io::Result<()> {
    let limits = &launch.limits;
    let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
    let mut wanted =
        vec![(Resource::Core, 0), (Resource::Nofile, u64::from(limits.open_files)), (Resource::Memlock, LOCKED_BYTES_MAX)];
    if !launch.cgroup_pids {
        wanted.push((Resource::Nproc, u64::from(limits.processes)));
    }
    if !launch.cgroup_memory {
        wanted.push((Resource::As, bytes(limits.memory.get())));
    }
    for (resource, value) in wanted {
        let ceiling = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let value = value.min(ceiling);
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?;
    }
    Ok(())
}

/// Removes every capability from every set and for good.
pub fn drop_capabilities() -> io::Result<()> {
    for number in 0..CAPABILITIES_MAX {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Err(rustix::io::Errno::INVAL) => break,
            // Without the right to shrink it there is nothing in it that could be gained either: no_new_privs is set.
            Err(rustix::io::Errno::PERM) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

/// Confines this process with Landlock as far as the kernel can. Returns the version in force; 0 is none.
pub fn landlock() -> Result<u32, Box<dyn std::error::Error>> {
    let everything = AccessFs::from_all(LANDLOCK_NEWEST);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(everything)?
        .handle_access(AccessNet::from_all(LANDLOCK_NEWEST))?
        .scope(Scope::from_all(LANDLOCK_NEWEST))?
        .create()?;
    let reading = AccessFs::from_read(LANDLOCK_NEWEST);
    let writing = reading | AccessFs::WriteFile | AccessFs::Truncate;
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        let access = match entry.file_name().to_str() {
            Some("work" | "tmp") => everything,
            Some("proc") => writing,
            Some("dev") => writing | AccessFs::IoctlDev,
            _ => reading,
        };
        rules = rules.add_rule(PathBeneath::new(PathFd::new(entry.path())?, access))?;
    }
    // Listing the root itself, and shared memory below /dev.
    rules = rules.add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::ReadDir))?;
    rules = rules.add_rule(PathBeneath::new(PathFd::new("/dev/shm")?, everything))?;
    let status = rules.restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => 0,
        (_, LandlockStatus::Available { effective_abi, .. }) => version(effective_abi),
        (_, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => 0,
    })
}

fn version(abi: ABI) -> u32 {
    let known = [ABI::V1, ABI::V2, ABI::V3, ABI::V4, ABI::V5, ABI::V6, ABI::V7];
    let position = known.iter().position(|known| *known == abi);
    position.and_then(|index| u32::try_from(index + 1).ok()).unwrap_or(0)
}
