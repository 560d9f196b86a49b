//! The file system that the job sees.
//!
//! A fresh, read-only root in memory holds the host's toolchain (read-only), a synthesized /etc, a /proc of the new
//! process namespace with the host's secrets masked, a /dev with six harmless files and the leased devices, and /work
//! and /tmp on the size-limited disk. Whatever is not named here does not exist inside.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
};

use super::{During, Failure, INSIDE_ID, Step};
use crate::channel::Launch;
use crate::sys::{self, LoopAccess};

/// The root itself holds only directories, links and a few lines of text.
const ROOT_OPTIONS: &str = "size=1m,nr_inodes=1k,mode=0755";
/// Host files that programs expect and that say nothing about tenants.
const SHARED_ETC: [&str; 9] = [
    "alternatives",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "pki",
    "ssl/certs",
    "ssl/openssl.cnf",
];
const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];
/// What would show the machine or its other users: covered with nothing.
const MASKED_PROC: [&str; 21] = [
    "acpi",
    "asound",
    "cgroups",
    "config.gz",
    "diskstats",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "locks",
    "partitions",
    "sched_debug",
    "scsi",
    "slabinfo",
    "swaps",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
];
const SEALED_PROC: [&str; 5] = ["bus", "driver", "fs", "irq", "sys"];

/// Builds the root and moves this process into it. Returns the work directory for the runner to read from.
pub fn build(launch: &Launch, mut files: File) -> Step<OwnedFd> {
    let root = launch.root.as_path();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).during("make mounts private")?;
    mount_tmpfs(root, ROOT_OPTIONS).during("mount the root")?;
    add_toolchain(root, &launch.toolchain).during("add the toolchain")?;
    add_etc(root).during("add /etc")?;
    add_proc(root).during("add /proc")?;
    add_dev(root, launch).during("add /dev")?;
    add_disk(root, launch)?;
    // What is gone on with is the tenant's, and so are the links in it: nothing is written there any more.
    if !launch.is_continued {
        place_files(&root.join("work"), launch, &mut files).during("place the files")?;
    }
    add_notices(root, &launch.notices).during("add /run")?;
    let work = rustix::fs::open(root.join("work"), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).during("open /work")?;
    for directory in ["home", "root", "sys", "var"] {
        fs::create_dir_all(root.join(directory)).during("finish the root")?;
    }
    symlink("/tmp", root.join("var/tmp")).during("finish the root")?;
    enter(root).during("enter the root")?;
    Ok(work)
}

fn mount_tmpfs(target: &Path, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?)
}

fn seal(path: &Path) -> io::Result<()> {
    sys::seal_mounts_below(&std::ffi::CString::new(path.as_os_str().as_bytes())?)
}

/// Where a host path appears under the new root.
fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn add_toolchain(root: &Path, toolchain: &[PathBuf]) -> io::Result<()> {
    for path in toolchain {
        let Ok(metadata) = fs::symlink_metadata(path) else { continue };
        let target = under(root, path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if metadata.is_symlink() {
            symlink(fs::read_link(path)?, &target)?;
        } else {
            fs::create_dir_all(&target)?;
            mount_bind_recursive(path.as_path(), target.as_path())?;
            seal(&target)?;
        }
    }
    Ok(())
}

fn add_etc(root: &Path) -> io::Result<()> {
    let etc = root.join("etc");
    fs::create_dir_all(etc.join("ssl"))?;
    let id = INSIDE_ID;
    let texts = [
        ("passwd", format!("root:x:0:0::/:/bin/false\njob:x:{id}:{id}::/work:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")),
        ("group", format!("root:x:0:\njob:x:{id}:\nnogroup:x:65534:\n")),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
        ("hostname", "sandbox\n".to_owned()),
        ("resolv.conf", String::new()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n".to_owned()),
    ];
    for (name, text) in texts {
        fs::write(etc.join(name), text)?;
    }
    for name in SHARED_ETC {
        let (source, target) = (Path::new("/etc").join(name), etc.join(name));
        let Ok(metadata) = fs::metadata(&source) else { continue };
        if metadata.is_dir() {
            fs::create_dir_all(&target)?
        } else {
            fs::write(&target, "")?
        }
        mount_bind_recursive(source.as_path(), target.as_path())?;
        seal(&target)?;
    }
    Ok(())
}

fn add_proc(root: &Path) -> io::Result<()> {
    let proc = root.join("proc");
    fs::create_dir(&proc)?;
    mount("proc", proc.as_path(), "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None::<&std::ffi::CStr>)?;
    for name in MASKED_PROC {
        let path = proc.join(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                mount_tmpfs(&path, "size=0,nr_inodes=2,mode=0555")?;
                seal(&path)?;
            }
            Ok(_) => mount_bind("/dev/null", path.as_path())?,
            Err(_) => {}
        }
    }
    for name in SEALED_PROC {
        let path = proc.join(name);
        if path.exists() {
            mount_bind_recursive(path.as_path(), path.as_path())?;
            seal(&path)?;
        }
    }
    Ok(())
}

fn add_dev(root: &Path, launch: &Launch) -> io::Result<()> {
    let dev = root.join("dev");
    fs::create_dir(&dev)?;
    for name in DEVICES {
        fs::write(dev.join(name), "")?;
        mount_bind(Path::new("/dev").join(name), dev.join(name))?;
    }
    for node in &launch.devices {
        let target = under(root, &node.inside);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, "")?;
        mount_bind(node.host.as_path(), target.as_path())?;
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        symlink(target, dev.join(name))?;
    }
    fs::create_dir(dev.join("shm"))?;
    // Shared memory is memory: the group's limit holds for it too, this only keeps one file from taking all.
    let bytes = launch.limits.memory.get() / 2;
    mount_tmpfs(&dev.join("shm"), &format!("size={bytes},mode=1777"))
}

/// /work and /tmp share one file system whose size is the limit.
fn add_disk(root: &Path, launch: &Launch) -> Step<()> {
    let disk = root.join("disk");
    fs::create_dir(&disk).during("add the disk")?;
    match &launch.image {
        Some(image) => mount_image(image, &disk).during("mount the disk image")?,
        None => {
            let options = format!("size={},mode=0755", launch.limits.disk.get().max(4_096));
            mount_tmpfs(&disk, &options).during("mount the disk")?;
        }
    }
    for (name, mode) in [("work", 0o755), ("tmp", 0o1777)] {
        let (source, target) = (disk.join(name), root.join(name));
        let add = || -> io::Result<()> {
            if launch.is_continued && name == "work" {
                hand_over(&source, launch)?;
            } else {
                if launch.is_continued {
                    fs::remove_dir_all(&source)?;
                }
                fs::create_dir(&source)?;
                own(&source, launch)?;
            }
            fs::set_permissions(&source, fs::Permissions::from_mode(mode))?;
            fs::create_dir(&target)?;
            Ok(mount_bind(source.as_path(), target.as_path())?)
        };
        add().during("add /work and /tmp")?;
    }
    unmount(disk.as_path(), UnmountFlags::DETACH).during("hide the disk")?;
    fs::remove_dir(&disk).during("hide the disk")
}

fn mount_image(image: &Path, target: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(image)?;
    let device = sys::attach_loop(&file, LoopAccess::ReadWrite)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    mount(device.path.as_path(), target, "ext4", flags, c"noinit_itable")?;
    drop(device.file);
    Ok(())
}

/// Gives a path to the job's user.
fn own(path: &Path, launch: &Launch) -> io::Result<()> {
    if let Some(user) = launch.host_user {
        rustix::fs::chown(path, Some(Uid::from_raw(user)), Some(Gid::from_raw(user)))?;
    }
    Ok(())
}

/// Gives a directory of an earlier attempt to the user of this one, without following any link in it.
fn hand_over(work: &Path, launch: &Launch) -> io::Result<()> {
    let Some(user) = launch.host_user else { return Ok(()) };
    if fs::symlink_metadata(work)?.uid() == user {
        return Ok(());
    }
    // Nobody's until all is handed over: one that was cut off is begun anew, whoever's turn is next.
    lchown(work, Some(0), Some(0))?;
    let mut open = vec![work.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
            lchown(entry.path(), Some(user), Some(user))?;
        }
    }
    lchown(work, Some(user), Some(user))
}

/// Writes the customer's files. Their paths were checked by the runner; they are checked again here.
fn place_files(work: &Path, launch: &Launch, contents: &mut File) -> io::Result<()> {
    for (path, length) in &launch.files {
        let relative = Path::new(path);
        if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::other("a file would leave the work directory"));
        }
        let mut directory = work.to_owned();
        for part in relative.parent().into_iter().flat_map(Path::components) {
            directory.push(part);
            if !directory.exists() {
                fs::create_dir(&directory)?;
                own(&directory, launch)?;
            }
        }
        let mut content = Vec::new();
        contents.take(*length).read_to_end(&mut content)?;
        let target = work.join(relative);
        let runs = content.starts_with(b"#!") || content.starts_with(b"\x7fELF");
        fs::write(&target, content)?;
        own(&target, launch)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 }))?;
    }
    Ok(())
}

fn add_notices(root: &Path, notices: &Path) -> io::Result<()> {
    let target = root.join("run/sublet");
    fs::create_dir_all(&target)?;
    mount_bind(notices, target.as_path())?;
    seal(&target)
}

/// Makes the new root the only one and read-only.
fn enter(root: &Path) -> Result<(), Failure> {
    rustix::process::chdir(root).during("enter")?;
    rustix::process::pivot_root(".", ".").during("pivot")?;
    unmount(".", UnmountFlags::DETACH).during("leave the old root")?;
    rustix::process::chdir("/").during("enter")?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount("/", flags, c"").during("seal the root")
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.cause)
    }
}
