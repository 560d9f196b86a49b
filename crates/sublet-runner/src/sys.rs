//! The crate's only unsafe code: system calls that no dependency wraps safely.
//!
//! Invariants: each function is sound for every argument; those that are sound only in a process with one
//! thread check that first. Deliberately absent: policy. Nothing here decides what a sandbox is.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which side of a [`fork`] this is.
pub enum Forked {
    Parent(Pid),
    Child,
}

/// Splits this process in two. Refused unless it has exactly one thread, so that no lock can be left held in the child.
pub fn fork() -> io::Result<Forked> {
    require_single_thread()?;
    // SAFETY: there is one thread, so the child is a complete copy in which every invariant of the parent holds.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(Forked::Child),
        pid => Pid::from_raw(pid).filter(|_| pid > 0).map(Forked::Parent).ok_or_else(io::Error::last_os_error),
    }
}

/// Moves this process into new namespaces. Refused unless it has exactly one thread.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    require_single_thread()?;
    // SAFETY: the hazard is a thread that loses its shared descriptor table or working directory; there is no other thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

fn require_single_thread() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 { Ok(()) } else { Err(io::Error::other(format!("{threads} threads where one is required"))) }
}

/// Marks every descriptor from `first` on to be closed on exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    let last = libc::c_uint::MAX;
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed now, so no owner of a descriptor is affected.
    let status = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's `struct mount_attr`, version 0 (mount_setattr(2)).
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;

/// Makes the mount at `path` and everything mounted below it read-only, without setuid and without devices.
pub fn seal_mounts_below(path: &CStr) -> io::Result<()> {
    let attributes = MountAttributes {
        set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: `path` is a C string and `attributes` has the layout and the size that the kernel is told; both outlive the call.
    let status = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// Others may take the free device that we were told of; so many times we ask again.
const LOOP_TRIES_MAX: u32 = 32;

/// The kernel's `struct loop_info64` (linux/loop.h).
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// The kernel's `struct loop_config` (linux/loop.h).
#[repr(C)]
struct LoopConfig {
    descriptor: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// What a loop device may do with its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoopAccess {
    ReadOnly,
    ReadWrite,
}

/// A block device backed by a file. It goes away by itself when nothing holds or mounts it any more.
pub struct LoopDevice {
    pub path: PathBuf,
    /// Holds the device until it is mounted.
    pub file: File,
}

/// Backs a free loop device with `image`.
pub fn attach_loop(image: &File, access: LoopAccess) -> io::Result<LoopDevice> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..LOOP_TRIES_MAX {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument and returns a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let file = File::options().read(true).write(access == LoopAccess::ReadWrite).open(&path)?;
        match configure_loop(&file, image, access) {
            Ok(()) => return Ok(LoopDevice { path, file }),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Direct I/O avoids keeping every page twice, but not every file system can do it.
fn configure_loop(device: &File, image: &File, access: LoopAccess) -> io::Result<()> {
    let base = LO_FLAGS_AUTOCLEAR | if access == LoopAccess::ReadOnly { LO_FLAGS_READ_ONLY } else { 0 };
    match configure_loop_with(device, image, base | LO_FLAGS_DIRECT_IO) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => configure_loop_with(device, image, base),
        other => other,
    }
}

/// Device and inode of the file that a loop device shows.
pub fn backing_of_loop(device: &File) -> io::Result<(u64, u64)> {
    let mut info = empty_info(0);
    // SAFETY: LOOP_GET_STATUS64 writes one `struct loop_info64`, which `info` is laid out as and which outlives the call.
    let status = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    if status == 0 { Ok((info.device, info.inode)) } else { Err(io::Error::last_os_error()) }
}

const fn empty_info(flags: u32) -> LoopInfo {
    LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    }
}

fn configure_loop_with(device: &File, image: &File, flags: u32) -> io::Result<()> {
    let descriptor = u32::try_from(image.as_raw_fd()).map_err(io::Error::other)?;
    let info = empty_info(flags);
    let config = LoopConfig { descriptor, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, which `config` is laid out as and which outlives the call.
    let status = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A second handle on this process's standard input, which the sandbox's parent made a control socket.
pub fn duplicate_stdin() -> io::Result<std::os::fd::OwnedFd> {
    // SAFETY: descriptor 0 is only borrowed for the call; if it is closed the call fails.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    let duplicate = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    Ok(duplicate)
}
