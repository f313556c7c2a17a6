//! The socket between shim and init. It carries set-up messages, then the word to end; when the shim dies it closes, and init ends everything.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
    socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest message tells of a step that failed.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes of a step in a message: its name, and the beginning of the path that it is about.
pub(super) const STEP_BYTES_MAX: usize = 600;
/// In JSON a byte becomes six at most, and around it there are some dozen.
const _: () = assert!(STEP_BYTES_MAX * 6 + 128 <= MESSAGE_BYTES_MAX);

/// Shim to init.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ShimMessage {
    /// It is in its cgroups, its ids are mapped: build the jail.
    Build,
    /// The shim is ready: run the agent. In root mode the user namespace that is entered last comes with this, and the network.
    Run,
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

    /// Sends a message, with descriptors or without.
    pub(crate) fn send<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let bytes = serde_json::to_vec(message).map_err(|_| Errno::EINVAL)?;
        let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let control: Vec<_> = if fds.is_empty() { Vec::new() } else { vec![ControlMessage::ScmRights(&fds)] };
        sendmsg::<UnixAddr>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], &control, MsgFlags::MSG_NOSIGNAL, None)
            .map(drop)
    }

    /// The next message; none when the other end is gone.
    pub(crate) fn receive<M: DeserializeOwned>(&mut self) -> Result<Option<(M, Vec<OwnedFd>)>, Errno> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let received = match receive_with_fds(self.0.as_fd(), &mut buffer) {
            // The other end went without having read all that it was told. That is said once, before what it has said itself.
            Err(Errno::ECONNRESET) => receive_with_fds(self.0.as_fd(), &mut buffer)?,
            other => other?,
        };
        let Some((length, fds)) = received else { return Ok(None) };
        let message = serde_json::from_slice(buffer.get(..length).unwrap_or_default()).map_err(|_| Errno::EBADMSG)?;
        Ok(Some((message, fds)))
    }
}

impl Lifeline {
    /// Whether somebody holds the other end.
    pub(super) fn is_open(&self) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO)?;
        Ok(!fds[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_an_end_that_did_not_read_all_is_heard() {
        let (mut ours, theirs) = Lifeline::pair().unwrap();
        ours.send(&ShimMessage::Run, &[]).unwrap();
        theirs.send(&InitMessage::ExecFailed { errno: 2 }, &[]).unwrap();
        assert!(ours.is_open().unwrap());
        drop(theirs);
        // A child that a test beside this one has just forked has it too, until it executes something.
        let mut hung_up = [PollFd::new(ours.0.as_fd(), PollFlags::empty())];
        assert_eq!(poll(&mut hung_up, PollTimeout::from(5000_u16)), Ok(1));
        assert!(!ours.is_open().unwrap());
        let heard = ours.receive::<InitMessage>().unwrap();
        assert!(matches!(heard, Some((InitMessage::ExecFailed { errno: 2 }, _))), "{heard:?}");
        assert!(ours.receive::<InitMessage>().unwrap().is_none());
    }
}
