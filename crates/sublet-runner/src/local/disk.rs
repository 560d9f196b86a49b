//! The size-limited disk of an attempt: an ext4 image on a loop device, or memory.
//!
//! The image is the better kind: it is on disk, its space is reserved when it is made, and it outlives the runner. It
//! needs root, loop devices and `mkfs.ext4`. Everywhere else the work directory is a `tmpfs` of the same size: just as
//! hard a limit, but what is written counts as memory and is gone when the runner's process is.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FallocateFlags, SeekFrom};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::quantity::Bytes;

use crate::sys::{LoopAccess, attach_loop, backing_of_loop};

/// Where the formatter is looked for; the environment's PATH is not consulted.
const FORMATTERS: [&str; 3] = ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"];
/// What repairs a file system, beside the formatter; and the bits of its status that say that it did not.
const CHECKER: &str = "e2fsck";
const CHECK_NOT_MENDED: i32 = !3;
/// Images are whole blocks.
const BLOCK_BYTES: i64 = 4_096;
/// What the file system needs for itself: a fixed part and a fiftieth (inodes take a 64th).
const OVERHEAD_BYTES: i64 = 1024 * 1024;
const OVERHEAD_DIVISOR: i64 = 50;

/// Sizes of which an empty image is kept; each takes about as much as the file system's own tables.
const TEMPLATES_MAX: usize = 32;
/// Bytes copied at a time.
const COPY_BYTES: usize = 64 * 1024;

/// How work directories are limited on this host.
pub enum Disks {
    Image(ImageMaker),
    Memory,
}

impl Disks {
    pub fn find(root: bool, templates: PathBuf) -> io::Result<Self> {
        let formatter = FORMATTERS.iter().map(PathBuf::from).find(|path| path.exists());
        match formatter {
            Some(formatter) if root && Path::new("/dev/loop-control").exists() => {
                fs::create_dir_all(&templates)?;
                Ok(Self::Image(ImageMaker { formatter, templates }))
            }
            _ => Ok(Self::Memory),
        }
    }
}

/// Size of the image that leaves about `usable` bytes to the job. Rounded up to whole blocks.
fn image_bytes(usable: Bytes) -> i64 {
    let usable = usable.get().max(0);
    let wanted = usable.saturating_add(usable / OVERHEAD_DIVISOR).saturating_add(OVERHEAD_BYTES);
    wanted.saturating_add(BLOCK_BYTES - 1).div_euclid(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

/// Makes images, and remembers empty ones: copying the little that is in them is faster than formatting.
pub struct ImageMaker {
    pub formatter: PathBuf,
    /// Where empty images are kept, one for each size.
    pub templates: PathBuf,
}

impl ImageMaker {
    /// Makes an image with an empty file system at `image`, and reserves all of its space.
    pub fn make(&self, image: &Path, usable: Bytes) -> io::Result<()> {
        let size = u64::try_from(image_bytes(usable)).map_err(io::Error::other)?;
        let template = self.templates.join(size.to_string());
        if !template.exists() {
            let beside = image.with_extension("template");
            self.format(&beside, size)?;
            if fs::read_dir(&self.templates)?.count() < TEMPLATES_MAX {
                fs::rename(&beside, &template)?;
            } else {
                return fs::rename(&beside, image).and_then(|()| reserve(&File::options().write(true).open(image)?, size));
            }
        }
        let to = File::options().write(true).create_new(true).open(image)?;
        reserve(&to, size)?;
        copy_data(&File::open(&template)?, &to)
    }

    /// Gives the first of these images that there is a second name: the disk goes on under it. False if there is none.
    ///
    /// The kernel lets go of an image a moment after its last sandbox: until then it is refused, and can be asked for again.
    pub fn continue_first(&self, earlier: &[PathBuf], image: &Path) -> Result<bool> {
        let Some(found) = earlier.iter().find(|path| path.exists()) else { return Ok(false) };
        if is_backing_a_loop(found) {
            return Err(Error::new(ErrorCode::CapacityUnavailable, "the job's work directory is still in use by its last attempt"));
        }
        let failed = |step: &str, error: &io::Error| Error::internal(format!("{step}: {error}"));
        self.mend(found).map_err(|error| failed("check the work disk", &error))?;
        fs::hard_link(found, image).map_err(|error| failed("go on with the work disk", &error))?;
        Ok(true)
    }

    /// Repairs what a power cut left; what was let go of properly is only looked at.
    fn mend(&self, image: &Path) -> io::Result<()> {
        let checker = self.formatter.with_file_name(CHECKER);
        if !checker.exists() {
            return Ok(());
        }
        for how in ["-p", "-y"] {
            let output = Command::new(&checker).arg(how).arg(image).env_clear().stdin(Stdio::null()).output()?;
            if output.status.code().is_some_and(|code| code & CHECK_NOT_MENDED == 0) {
                return Ok(());
            }
        }
        Err(io::Error::other("the file system cannot be repaired"))
    }

    fn format(&self, image: &Path, size: u64) -> io::Result<()> {
        File::options().write(true).create(true).truncate(true).open(image)?.set_len(size)?;
        let output = Command::new(&self.formatter)
            .args(["-q", "-F", "-m", "0", "-b", "4096", "-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard"])
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
}

/// Whether a file is what a loop device shows, under whichever of its names, even one that was removed. What cannot be seen
/// is not.
fn is_backing_a_loop(image: &Path) -> bool {
    let Ok(own) = fs::metadata(image).map(|found| (found.dev(), found.ino())) else { return false };
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut loops = devices.filter(|device| device.path().join("loop/backing_file").exists());
    loops.any(|device| {
        let opened = File::open(Path::new("/dev").join(device.file_name()));
        opened.and_then(|device| backing_of_loop(&device)).is_ok_and(|backing| backing == own)
    })
}

/// Sets space aside, so that a job that was sold a disk never meets a full host.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        // Not every file system can reserve; the limit on the job holds all the same.
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(size),
        other => Ok(other?),
    }
}

/// Copies the parts of a file that are not holes.
fn copy_data(from: &File, to: &File) -> io::Result<()> {
    let mut offset = 0;
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        offset = start;
        let mut buffer = vec![0; COPY_BYTES];
        while offset < end {
            let wanted = usize::try_from(end - offset).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            from.read_exact_at(part, offset)?;
            to.write_all_at(part, offset)?;
            offset += u64::try_from(wanted).map_err(io::Error::other)?;
        }
    }
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
    fn a_copy_has_the_data_and_the_length_of_its_original() {
        let directory = tempfile::tempdir().unwrap();
        let from = File::options().read(true).write(true).create_new(true).open(directory.path().join("from")).unwrap();
        from.set_len(40_000_000).unwrap();
        for (offset, text) in [(0, "first"), (5_000_000, "middle"), (39_999_990, "last")] {
            from.write_all_at(text.as_bytes(), offset).unwrap();
        }
        let path = directory.path().join("to");
        let to = File::options().write(true).create_new(true).open(&path).unwrap();
        reserve(&to, 40_000_000).unwrap();
        copy_data(&from, &to).unwrap();
        assert!(fs::read(path).unwrap() == fs::read(directory.path().join("from")).unwrap());
    }

    #[test]
    fn a_disk_is_in_use_under_each_of_its_names_and_under_one_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        File::options().write(true).create_new(true).open(&first).unwrap().set_len(1_048_576).unwrap();
        fs::hard_link(&first, &second).unwrap();
        assert!(!is_backing_a_loop(&first));
        // Only root has loop devices.
        let Ok(device) = attach_loop(&File::open(&second).unwrap(), LoopAccess::ReadOnly) else { return };
        assert!(is_backing_a_loop(&first) && is_backing_a_loop(&second));
        fs::remove_file(&second).unwrap();
        assert!(is_backing_a_loop(&first));
        drop(device);
    }

    #[test]
    fn an_image_is_whole_blocks_and_larger_than_what_is_usable() {
        for (usable, expected) in [(0, 1_048_576), (1, 1_052_672), (1_048_576, 2_121_728), (-5, 1_048_576)] {
            assert_eq!(image_bytes(Bytes::new(usable)), expected, "{usable}");
        }
    }
}
