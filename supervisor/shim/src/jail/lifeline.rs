//! The socket between shim and init. It carries set-up messages, then the word to end; when the shim dies it closes, and init ends everything.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
    socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Messages are some dozen bytes; a step's name and an errno.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Shim to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ShimMessage {
    /// Ids are mapped: begin.
    Go,
    /// Ask the agent to end.
    Terminate,
}

/// Init to shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InitMessage {
    /// The terminal's master comes with this.
    Terminal,
    /// A listener on this port inside comes with this.
    Listener { port: u16 },
    /// A step failed.
    Failed { step: String, errno: i32 },
    /// The command could not be executed.
    ExecFailed { errno: i32 },
    /// The command runs.
    Executed,
    /// The agent ended: exit code or signal.
    Ended { code: Option<i32>, signal: Option<i32> },
}

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Lifeline(OwnedFd);

impl Lifeline {
    pub(super) fn pair() -> Result<(Self, Self), Errno> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    /// Sends a message, with a descriptor or without.
    pub(crate) fn send<M: Serialize>(&self, message: &M, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let bytes = serde_json::to_vec(message).map_err(|_| Errno::EINVAL)?;
        let fds = fd.map(|fd| [fd.as_raw_fd()]);
        let control: Vec<ControlMessage<'_>> = fds.iter().map(|fds| ControlMessage::ScmRights(fds)).collect();
        sendmsg::<UnixAddr>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], &control, MsgFlags::MSG_NOSIGNAL, None)
            .map(drop)
    }

    /// The next message; none when the other end is gone.
    pub(crate) fn receive<M: DeserializeOwned>(&mut self) -> Result<Option<(M, Option<OwnedFd>)>, Errno> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let Some((length, mut fds)) = receive_with_fds(self.0.as_fd(), &mut buffer)? else { return Ok(None) };
        let message = serde_json::from_slice(buffer.get(..length).unwrap_or_default()).map_err(|_| Errno::EBADMSG)?;
        Ok(Some((message, fds.pop())))
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One datagram and the descriptors that came with it; none at the end.
pub(crate) fn receive_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<Option<(usize, Vec<OwnedFd>)>, Errno> {
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; 4]);
    let mut parts = [std::io::IoSliceMut::new(buffer)];
    let message = loop {
        match recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            fds.extend(received.into_iter().map(crate::sys::own_received));
        }
    }
    Ok((message.bytes > 0).then_some((message.bytes, fds)))
}
