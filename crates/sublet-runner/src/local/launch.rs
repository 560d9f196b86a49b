//! Builds an attempt's sandbox up to the point where its isolation is known and nothing of the customer has run.

use std::fs::{self, File};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::runner::{AttemptSpec, Isolation};

use super::attempt::{Attempt, image_in};
use super::cgroup::{Hierarchies, Leaf};
use super::disk::Disks;
use super::inventory::Device;
use super::specification;
use crate::channel::{Channel, Launch, Order, Report, pack_launch, retry};
use crate::shim::SANDBOX_ARGUMENT;

/// How long a sandbox may take to be built.
const PREPARE_MAX: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// The same where a work directory of any number of files may have to be given to another user.
const CONTINUE_MAX: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };
/// The first host user of ours; far above what distributions and container engines hand out.
const HOST_USERS_FIRST: u32 = 1_900_000_000;
/// Host users that one runner may use at a time, and blocks of them for different runners.
pub const HOST_USERS: u32 = 1_024;
const HOST_USER_BLOCKS: u64 = 1_024;

/// What the host offers to every sandbox.
pub struct Host {
    pub shim: PathBuf,
    pub root: bool,
    pub hierarchies: Hierarchies,
    pub disks: Disks,
    pub toolchain: Vec<PathBuf>,
    /// Which block of host users this runner takes.
    pub user_block: u32,
}

/// A built sandbox that waits for the word.
pub struct Prepared {
    pub child: Child,
    pub control: Channel,
    pub output: PipeReader,
    pub isolation: Isolation,
    pub leaf: Leaf,
    pub work: Option<OwnedFd>,
}

impl Host {
    pub fn user_block_of(inode: u64) -> u32 {
        u32::try_from(inode % HOST_USER_BLOCKS).unwrap_or(0)
    }

    fn host_user(&self, attempt: &Attempt) -> Option<u32> {
        self.root.then(|| HOST_USERS_FIRST + self.user_block * HOST_USERS + attempt.user_index)
    }

    /// Makes directories, disk, groups and processes. On an error nothing is left but the attempt's directory.
    pub fn prepare(&self, attempt: &Attempt, spec: &AttemptSpec, devices: &[Device]) -> Result<Prepared> {
        make_directories(attempt).map_err(|error| failed("make the attempt's directory", &error))?;
        let (image, is_continued) = match &self.disks {
            Disks::Image(maker) => {
                let image = attempt.image_path();
                let is_continued = maker.continue_first(&earlier_images(attempt, spec), &image)?;
                if !is_continued {
                    maker.make(&image, spec.limits.disk).map_err(|error| failed("make the work disk", &error))?;
                }
                (Some(image), is_continued)
            }
            Disks::Memory => (None, false),
        };
        let leaf = self.hierarchies.create_leaf(attempt.id.as_str(), &spec.limits);
        let leaf = leaf.map_err(|error| failed("make the control groups", &error))?;
        let launch = Launch {
            command: spec.command.clone(),
            environment: specification::environment(spec, devices),
            limits: spec.limits,
            root: attempt.directory.join("root"),
            notices: attempt.notices_path(),
            toolchain: self.toolchain.clone(),
            devices: devices.iter().flat_map(|device| device.nodes.iter().cloned()).collect(),
            image,
            is_continued,
            host_user: self.host_user(attempt),
            cgroup_entrances: leaf.entrances(),
            cgroup_memory: leaf.limits_memory(),
            cgroup_pids: leaf.limits_processes(),
            cgroup_kill: leaf.can_kill(),
            files: spec.files.iter().map(|(path, bytes)| (path.clone(), bytes.len().try_into().unwrap_or(u64::MAX))).collect(),
        };
        let prepared = self.spawn(&launch, spec, &leaf);
        if prepared.is_err() {
            leaf.kill();
            leaf.remove();
        }
        prepared
    }

    fn spawn(&self, launch: &Launch, spec: &AttemptSpec, leaf: &Leaf) -> Result<Prepared> {
        let (mut child, control, output) = self.start_shim().map_err(|error| failed("start the sandbox", &error))?;
        let ready = request(&control, launch, spec);
        match ready {
            Ok((isolation, work)) => Ok(Prepared { child, control, output, isolation, leaf: leaf.clone(), work }),
            Err(error) => {
                drop(control);
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Starts the binary as a sandbox: the control socket is its standard input, the log its output.
    fn start_shim(&self) -> io::Result<(Child, Channel, PipeReader)> {
        let (ours, theirs) = Channel::pair()?;
        let (output, writer) = io::pipe()?;
        let child = Command::new(&self.shim)
            .arg0("sublet")
            .arg(SANDBOX_ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs.into_descriptor()))
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()?;
        Ok((child, ours, output))
    }
}

fn request(control: &Channel, launch: &Launch, spec: &AttemptSpec) -> Result<(Isolation, Option<OwnedFd>)> {
    let memory = pack_launch(launch, spec.files.values().map(Vec::as_slice));
    let memory = memory.map_err(|error| failed("describe the sandbox", &error))?;
    control.send_with(&Order::Prepare, memory.as_fd()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => died(),
        _ => failed("describe the sandbox", &error),
    })?;
    let longest = if launch.is_continued { &CONTINUE_MAX } else { &PREPARE_MAX };
    let mut waiting = [PollFd::new(control, PollFlags::IN)];
    let ready = retry(|| poll(&mut waiting, Some(longest))).map_err(|error| failed("wait for the sandbox", &error.into()))?;
    if ready == 0 {
        return Err(Error::internal("the sandbox was not ready in time"));
    }
    let report = control.receive::<Report>().map_err(|error| failed("hear from the sandbox", &error))?;
    match report.map(|received| (received.message, received.descriptor)) {
        Some((Report::Ready { isolation }, work)) => Ok((isolation, work)),
        Some((Report::Failed { step, cause }, _)) => Err(not_built(&step, &cause)),
        Some(_) => Err(Error::internal("the sandbox spoke out of turn")),
        None => Err(died()),
    }
}

fn died() -> Error {
    Error::internal("the sandbox died while it was built; does the binary call shim::main_if_requested first?")
}

fn not_built(step: &str, cause: &str) -> Error {
    if step == "place the files" && cause.contains("No space left") {
        return Error::new(ErrorCode::InvalidRequest, "the files do not fit into the disk limit")
            .param("files")
            .alternative("raise the disk limit or send fewer files");
    }
    Error::internal(format!("the sandbox could not be built: {step}: {cause}"))
}

fn failed(step: &str, error: &io::Error) -> Error {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Error::new(ErrorCode::StorageFull, "the runner's disk has no room for another job").context(step);
    }
    Error::internal(format!("{step}: {error}"))
}

/// Where the disks of earlier attempts are, if they are kept.
fn earlier_images(attempt: &Attempt, spec: &AttemptSpec) -> Vec<PathBuf> {
    let beside = attempt.directory.parent().unwrap_or(&attempt.directory);
    spec.continues.iter().map(|earlier| image_in(&beside.join(earlier.as_str()))).collect()
}

/// The directory holds the log and, while the attempt is kept, its disk. Only the runner can look into it.
fn make_directories(attempt: &Attempt) -> io::Result<()> {
    remove_directory(&attempt.directory)?;
    fs::DirBuilder::new().mode(0o700).create(&attempt.directory)?;
    fs::create_dir(attempt.directory.join("root"))?;
    fs::create_dir(attempt.notices_path())?;
    fs::set_permissions(attempt.notices_path(), fs::Permissions::from_mode(0o755))?;
    File::options().write(true).create_new(true).open(attempt.log_path())?;
    Ok(())
}

/// Deletes an attempt's directory; fine if there is none.
pub fn remove_directory(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
