//! Control groups: limits on memory, processes and processor time, and a switch that ends everything at once.
//!
//! Three kinds of host are served: version 2 alone, version 1 alone, and both beside each other (controllers on
//! version 1, an empty version 2 tree). A version 2 leaf is made wherever the tree exists: `cgroup.kill` and
//! `cpu.stat` work without any controller. Files are written directly; systemd is neither needed nor asked.
//!
//! Invariant: a limit counts as achieved only after the kernel accepted the value.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sublet_core::quantity::Bytes;
use sublet_core::runner::AttemptLimits;
use sublet_core::time::DurationMs;

/// Our group at the top of each hierarchy (below the runner's own group without root).
const TOP: &str = "sublet";
/// Period of the processor bandwidth limit in microseconds; the kernel's own default.
const CPU_PERIOD_US: i64 = 100_000;
/// How often a group that still holds dying processes is asked again to go away, with this pause.
const REMOVE_TRIES_MAX: u32 = 400;
const REMOVE_PAUSE: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

/// The directory under which leaves are made for one controller.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Branch {
    version: Version,
    directory: PathBuf,
}

/// Where this host lets us make groups.
#[derive(Clone, Default, Debug)]
pub struct Hierarchies {
    unified: Option<PathBuf>,
    memory: Option<Branch>,
    pids: Option<Branch>,
    cpu: Option<Branch>,
}

/// One mounted hierarchy as /proc/self/mountinfo and /proc/self/cgroup describe it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mounted {
    version: Version,
    mount_point: PathBuf,
    /// Controllers of a version 1 hierarchy.
    controllers: Vec<String>,
    /// The runner's own group in it.
    own: String,
}

fn parse_mounts(mountinfo: &str, memberships: &str) -> Vec<Mounted> {
    let mut mounts = Vec::new();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let Some(mount_point) = front.split(' ').nth(4) else { continue };
        let mut back = back.split(' ');
        let version = match back.next() {
            Some("cgroup") => Version::One,
            Some("cgroup2") => Version::Two,
            _ => continue,
        };
        let options: Vec<String> = back.nth(1).unwrap_or("").split(',').map(str::to_owned).collect();
        let own = memberships.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let same = match version {
                Version::Two => id == "0",
                Version::One => controllers.split(',').any(|controller| options.iter().any(|option| option == controller)),
            };
            same.then(|| path.to_owned())
        });
        let controllers = if version == Version::One { options } else { Vec::new() };
        mounts.push(Mounted { version, mount_point: PathBuf::from(mount_point), controllers, own: own.unwrap_or_default() });
    }
    mounts
}

impl Hierarchies {
    /// Finds the hierarchies and makes our branch for `instance` in each that allows it.
    pub fn open(instance: &str, root: bool) -> Self {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut found = Self::default();
        for mounted in parse_mounts(&mountinfo, &memberships) {
            let base =
                if root { mounted.mount_point.clone() } else { mounted.mount_point.join(mounted.own.trim_start_matches('/')) };
            match mounted.version {
                Version::Two => found.add_unified(&base, instance),
                Version::One => found.add_version_one(&mounted, &base, instance),
            }
        }
        found
    }

    fn add_unified(&mut self, base: &Path, instance: &str) {
        let directory = base.join(TOP).join(instance);
        if !make_branch(&directory) {
            return;
        }
        for level in [base, &base.join(TOP), &directory] {
            for controller in ["+memory", "+pids", "+cpu"] {
                // Refused where the host keeps the controller elsewhere; what is missing then shows below.
                let _ = fs::write(level.join("cgroup.subtree_control"), controller);
            }
        }
        let enabled = fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
        let branch = |name: &str| {
            enabled.split_whitespace().any(|c| c == name).then(|| Branch { version: Version::Two, directory: directory.clone() })
        };
        self.memory = self.memory.take().or_else(|| branch("memory"));
        self.pids = self.pids.take().or_else(|| branch("pids"));
        self.cpu = self.cpu.take().or_else(|| branch("cpu"));
        self.unified = Some(directory);
    }

    fn add_version_one(&mut self, mounted: &Mounted, base: &Path, instance: &str) {
        for controller in &mounted.controllers {
            let slot = match controller.as_str() {
                "memory" => &mut self.memory,
                "pids" => &mut self.pids,
                "cpu" => &mut self.cpu,
                _ => continue,
            };
            let directory = base.join(TOP).join(instance);
            if make_branch(&directory) {
                *slot = Some(Branch { version: Version::One, directory });
            }
        }
    }

    fn branches(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = self.unified.iter().cloned().collect();
        all.extend([&self.memory, &self.pids, &self.cpu].into_iter().flatten().map(|branch| branch.directory.clone()));
        all.sort();
        all.dedup();
        all
    }

    /// Ends and removes what an earlier life of this runner left behind.
    pub fn sweep(&self) {
        for branch in self.branches() {
            let Ok(entries) = fs::read_dir(&branch) else { continue };
            for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
                let _ = fs::write(entry.path().join("cgroup.kill"), "1");
                remove_group(&entry.path());
            }
        }
    }

    /// Removes our branches if nothing lives in them; they are made again when needed.
    pub fn remove_empty(&self) {
        for branch in self.branches() {
            let _ = fs::remove_dir(branch);
        }
    }

    /// Makes the groups of one attempt and sets its limits.
    pub fn create_leaf(&self, name: &str, limits: &AttemptLimits) -> io::Result<Leaf> {
        let mut leaf = Leaf::default();
        if let Some(directory) = &self.unified {
            leaf.unified = Some(leaf.add(&directory.join(name))?);
        }
        if let Some(branch) = &self.memory {
            let directory = leaf.add(&branch.directory.join(name))?;
            leaf.memory = limit_memory(branch.version, &directory, limits.memory).then_some((branch.version, directory));
        }
        if let Some(branch) = &self.pids {
            let directory = leaf.add(&branch.directory.join(name))?;
            let accepted = fs::write(directory.join("pids.max"), limits.processes.to_string()).is_ok();
            leaf.pids = accepted.then_some(directory);
        }
        if let Some(branch) = &self.cpu {
            let directory = leaf.add(&branch.directory.join(name))?;
            limit_cpu(branch.version, &directory, limits.cpu_millis);
        }
        Ok(leaf)
    }
}

/// Makes a directory that groups can be made in; one that somebody else made there will not do.
fn make_branch(directory: &Path) -> bool {
    fs::create_dir_all(directory).is_ok() && rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok()
}

fn limit_memory(version: Version, directory: &Path, limit: Bytes) -> bool {
    match version {
        Version::One => {
            let accepted = fs::write(directory.join("memory.limit_in_bytes"), limit.to_string()).is_ok();
            // Swap would make the limit soft; these two exist only on hosts that account for swap.
            let _ = fs::write(directory.join("memory.memsw.limit_in_bytes"), limit.to_string());
            let _ = fs::write(directory.join("memory.swappiness"), "0");
            accepted
        }
        Version::Two => {
            let _ = fs::write(directory.join("memory.swap.max"), "0");
            let _ = fs::write(directory.join("memory.oom.group"), "1");
            fs::write(directory.join("memory.max"), limit.to_string()).is_ok()
        }
    }
}

fn limit_cpu(version: Version, directory: &Path, cpu_millis: u32) {
    let quota_us = i64::from(cpu_millis).saturating_mul(CPU_PERIOD_US / 1_000).max(1_000);
    // Best effort: without it the job competes for processor time, but is not less separated.
    let _ = match version {
        Version::One => fs::write(directory.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())
            .and_then(|()| fs::write(directory.join("cpu.cfs_quota_us"), quota_us.to_string())),
        Version::Two => fs::write(directory.join("cpu.max"), format!("{quota_us} {CPU_PERIOD_US}")),
    };
}

/// The groups of one attempt.
#[derive(Clone, Default, Debug)]
pub struct Leaf {
    directories: Vec<PathBuf>,
    unified: Option<PathBuf>,
    memory: Option<(Version, PathBuf)>,
    pids: Option<PathBuf>,
}

/// What the kernel counted for an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    pub cpu_time: DurationMs,
    pub peak_memory: Bytes,
    /// Processes killed because the memory limit was hit.
    pub memory_kills: u64,
    /// Processes refused because of the process limit.
    pub process_refusals: u64,
}

impl Leaf {
    fn add(&mut self, directory: &Path) -> io::Result<PathBuf> {
        if !self.directories.iter().any(|known| known == directory) {
            match fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => self.directories.push(directory.to_owned()),
            }
        }
        Ok(directory.to_owned())
    }

    /// The files through which a process joins.
    pub fn entrances(&self) -> Vec<PathBuf> {
        self.directories.iter().map(|directory| directory.join("cgroup.procs")).collect()
    }

    pub fn limits_memory(&self) -> bool {
        self.memory.is_some()
    }

    pub fn limits_processes(&self) -> bool {
        self.pids.is_some()
    }

    pub fn can_kill(&self) -> bool {
        self.unified.as_ref().is_some_and(|directory| directory.join("cgroup.kill").exists())
    }

    /// Kills every process of the attempt, however it hid. `false` where the kernel cannot.
    pub fn kill(&self) -> bool {
        self.unified.as_ref().is_some_and(|directory| fs::write(directory.join("cgroup.kill"), "1").is_ok())
    }

    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        if let Some(directory) = &self.unified {
            let usage_us = keyed(&directory.join("cpu.stat"), "usage_usec");
            counters.cpu_time = DurationMs::from_millis(i64::try_from(usage_us / 1_000).unwrap_or(i64::MAX));
        }
        if let Some((version, directory)) = &self.memory {
            let (peak, events, key) = match version {
                Version::One => ("memory.max_usage_in_bytes", "memory.oom_control", "oom_kill"),
                Version::Two => ("memory.peak", "memory.events", "oom_kill"),
            };
            let peak = fs::read_to_string(directory.join(peak)).ok().and_then(|text| text.trim().parse().ok());
            counters.peak_memory = Bytes::new(peak.unwrap_or(0));
            counters.memory_kills = keyed(&directory.join(events), key);
        }
        if let Some(directory) = &self.pids {
            counters.process_refusals = keyed(&directory.join("pids.events"), "max");
        }
        counters
    }

    /// Removes the groups, waiting a bounded time for processes that are still dying.
    pub fn remove(&self) {
        for directory in &self.directories {
            remove_group(directory);
        }
    }
}

fn remove_group(directory: &Path) {
    for _ in 0..REMOVE_TRIES_MAX {
        match fs::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let _ = rustix::thread::nanosleep(&REMOVE_PAUSE);
            }
            _ => return,
        }
    }
    tracing::warn!(directory = %directory.display(), "a control group is still in use");
}

/// The number after `key` in a file of lines such as `oom_kill 3`.
fn keyed(file: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_in_a_hybrid_host() {
        let mountinfo = "34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                         35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                         41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
                         42 31 0:39 / /proc rw - proc proc rw\n";
        let memberships = "4:memory:/services/one\n1:cpu,cpuacct:/\n0::/whole\n";
        let found: Vec<(Version, String, String)> = parse_mounts(mountinfo, memberships)
            .into_iter()
            .map(|m| (m.version, m.mount_point.display().to_string(), m.own))
            .collect();
        let expected = [
            (Version::One, "/sys/fs/cgroup/cpu,cpuacct", "/"),
            (Version::One, "/sys/fs/cgroup/memory", "/services/one"),
            (Version::Two, "/sys/fs/cgroup/unified", "/whole"),
        ];
        assert_eq!(found, expected.map(|(v, p, o)| (v, p.to_owned(), o.to_owned())));
    }
}
