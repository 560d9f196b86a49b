//! The private conversation between the runner and the sandbox's first process.
//!
//! A socket that keeps message boundaries carries small JSON messages; what is large (the launch request with its
//! files) travels as an anonymous memory file whose descriptor is attached. The end of the conversation means that the
//! other side is gone: that is how a sandbox learns that its runner died.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sublet_core::runner::{AttemptLimits, Isolation};

/// Bytes in one message.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Bytes in a launch request without the files' contents.
const LAUNCH_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Everything the sandbox has to know before it can be built.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Launch {
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub limits: AttemptLimits,
    /// An empty directory over which the new root is mounted.
    pub root: PathBuf,
    /// The directory that appears as /run/sublet.
    pub notices: PathBuf,
    /// Host directories that appear read-only under the same path.
    pub toolchain: Vec<PathBuf>,
    /// Device files of the lease.
    pub devices: Vec<DeviceNode>,
    /// The image that holds the work directory; without one it is kept in memory.
    pub image: Option<PathBuf>,
    /// The image has the work directory of an earlier attempt, which is gone on with.
    pub is_continued: bool,
    /// The user to become; without one the sandbox keeps the runner's own, inside a user namespace.
    pub host_user: Option<u32>,
    /// Files through which the job's first process joins its control groups.
    pub cgroup_entrances: Vec<PathBuf>,
    pub cgroup_memory: bool,
    pub cgroup_pids: bool,
    pub cgroup_kill: bool,
    /// Path and size of each file to place; the contents follow this record in the same order.
    pub files: Vec<(String, u64)>,
}

/// A device file of the host and where it appears.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceNode {
    pub host: PathBuf,
    pub inside: PathBuf,
}

/// From the runner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Order {
    /// The launch request is in the attached memory file.
    Prepare,
    /// The isolation is good enough: run the command.
    Go,
    /// Send SIGTERM to the job's process group.
    Terminate,
    /// A notice was written: send SIGUSR1 to the job's first process if it catches it.
    Notice,
}

/// From the sandbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Report {
    /// Everything is in force; the work directory's descriptor is attached.
    Ready {
        isolation: Isolation,
    },
    /// The sandbox could not be built. `step` and `cause` are for the operator.
    Failed {
        step: String,
        cause: String,
    },
    /// The command runs.
    Started,
    /// The command could not be executed; the reason is public.
    NotExecuted {
        reason: String,
    },
    Exited {
        code: i32,
    },
    Killed {
        signal: i32,
    },
}

/// One end of a conversation.
pub struct Channel(OwnedFd);

/// A message and the descriptor that came with it.
pub struct Received<M> {
    pub message: M,
    pub descriptor: Option<OwnedFd>,
}

impl Channel {
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    pub fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    pub fn send<M: Serialize>(&self, message: &M) -> io::Result<()> {
        self.transmit(message, None, SendFlags::NOSIGNAL)
    }

    /// Sends a message without ever waiting for the other side to make room.
    pub fn send_at_once<M: Serialize>(&self, message: &M) -> io::Result<()> {
        self.transmit(message, None, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    /// Sends a message with a descriptor attached.
    pub fn send_with<M: Serialize>(&self, message: &M, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.transmit(message, Some(descriptor), SendFlags::NOSIGNAL)
    }

    fn transmit<M: Serialize>(&self, message: &M, descriptor: Option<BorrowedFd<'_>>, flags: SendFlags) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::other("control message too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("no room for the descriptor"));
        }
        retry(|| sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, flags))?;
        Ok(())
    }

    /// The next message; `None` when the other side is gone.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<Received<M>>> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = retry(|| recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC));
        let received = match received {
            Ok(received) => received,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut descriptor = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptor = descriptors.last();
            }
        }
        let message = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or(&[]))?;
        Ok(Some(Received { message, descriptor }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Repeats a call that a signal interrupted.
pub fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Writes a launch request and its files' contents into a memory file.
pub fn pack_launch<'a>(launch: &Launch, contents: impl Iterator<Item = &'a [u8]>) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("sublet-launch", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(memory);
    let header = serde_json::to_vec(launch)?;
    let length = u64::try_from(header.len()).map_err(io::Error::other)?;
    if length > LAUNCH_BYTES_MAX {
        return Err(io::Error::other("launch request too long"));
    }
    file.write_all(&length.to_le_bytes())?;
    file.write_all(&header)?;
    for content in contents {
        file.write_all(content)?;
    }
    file.rewind()?;
    Ok(file.into())
}

/// Reads the request back; the reader then stands at the first file's content.
pub fn unpack_launch(memory: OwnedFd) -> io::Result<(Launch, File)> {
    let mut file = File::from(memory);
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LAUNCH_BYTES_MAX {
        return Err(io::Error::other("launch request too long"));
    }
    let mut header = Vec::new();
    (&mut file).take(length).read_to_end(&mut header)?;
    Ok((serde_json::from_slice(&header)?, file))
}
