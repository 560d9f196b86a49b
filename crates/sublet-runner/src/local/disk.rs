//! The size-limited disk of an attempt: an ext4 image on a loop device, or memory.
//!
//! The image is the better kind: it is on disk, its space is reserved when it is made, and it outlives the runner. It
//! needs root, loop devices and `mkfs.ext4`. Everywhere else the work directory is a `tmpfs` of the same size: just as
//! hard a limit, but what is written counts as memory and is gone when the runner's process is.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FallocateFlags;
use sublet_core::quantity::Bytes;

use crate::sys::{LoopAccess, attach_loop};

/// Where the formatter is looked for; the environment's PATH is not consulted.
const FORMATTERS: [&str; 3] = ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"];
/// Images are whole blocks.
const BLOCK_BYTES: i64 = 4_096;
/// What the file system needs for itself: a fixed part and a fiftieth (inodes take a 64th).
const OVERHEAD_BYTES: i64 = 1024 * 1024;
const OVERHEAD_DIVISOR: i64 = 50;

/// How work directories are limited on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disks {
    /// Images made by this formatter.
    Image {
        formatter: PathBuf,
    },
    Memory,
}

impl Disks {
    pub fn find(root: bool) -> Self {
        let formatter = FORMATTERS.iter().map(PathBuf::from).find(|path| path.exists());
        match formatter {
            Some(formatter) if root && Path::new("/dev/loop-control").exists() => Self::Image { formatter },
            _ => Self::Memory,
        }
    }
}

/// Size of the image that leaves about `usable` bytes to the job. Rounded up to whole blocks.
fn image_bytes(usable: Bytes) -> i64 {
    let usable = usable.get().max(0);
    let wanted = usable.saturating_add(usable / OVERHEAD_DIVISOR).saturating_add(OVERHEAD_BYTES);
    wanted.saturating_add(BLOCK_BYTES - 1).div_euclid(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

/// Reserves the space and makes an empty file system in it.
pub fn format_image(formatter: &Path, image: &Path, usable: Bytes) -> io::Result<()> {
    let size = u64::try_from(image_bytes(usable)).map_err(io::Error::other)?;
    let file = File::options().write(true).create_new(true).open(image)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
        // Not every file system can reserve; the limit on the job holds all the same.
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(size)?,
        other => other?,
    }
    drop(file);
    let output = Command::new(formatter)
        .args(["-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard"])
        .arg(image)
        .env_clear()
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let reason: String = String::from_utf8_lossy(&output.stderr).chars().take(300).collect();
    Err(io::Error::other(format!("formatting ended with {}: {reason}", output.status)))
}

/// Mounts an ended attempt's image read-only in no namespace at all: only the returned descriptor reaches it.
pub fn open_image(image: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let device = attach_loop(&File::open(image)?, LoopAccess::ReadOnly)?;
    let context = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", device.path.as_path())?;
    rustix::mount::fsconfig_set_flag(&context, "ro")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(rustix::fs::openat(&mount, "work", OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_whole_blocks_and_larger_than_what_is_usable() {
        for (usable, expected) in [(0, 1_048_576), (1, 1_052_672), (1_048_576, 2_121_728), (-5, 1_048_576)] {
            assert_eq!(image_bytes(Bytes::new(usable)), expected, "{usable}");
        }
    }
}
