//! The connection to one gateway: a datagram is a message, and descriptors go along with it.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use agentapi_shared::egress::{GatewayEvent, GatewayRequest, MESSAGE_BYTES_MAX};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, setsockopt, socket,
    sockopt,
};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tracing::warn;

use crate::files;

/// Bytes of an event at most: a decision has some hundred, a hello some dozen for each session.
const EVENT_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// See the module. The socket is of another type than the wrapper's name says; only its readiness is used, and calls that fit both.
#[derive(Debug, Clone)]
pub(super) struct Socket(Arc<UnixDatagram>);

impl Socket {
    /// Connects to the socket of this name in the directory.
    pub(super) fn connect(dir: &Path, name: &str) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let made = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        setsockopt(&made, sockopt::SndBuf, &(2 * MESSAGE_BYTES_MAX))?;
        files::with_short_path(dir, name, |path| Ok(connect(made.as_raw_fd(), &UnixAddr::new(path)?)?))?;
        Ok(Self(Arc::new(UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(made))?)))
    }

    /// Sends a request; the descriptors stay ours and are closed by their owner.
    pub(super) async fn send(&self, request: &GatewayRequest, descriptors: &[OwnedFd]) -> io::Result<()> {
        let bytes = serde_json::to_vec(request)?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the policy is too long for one message"));
        }
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let write = || {
            let rights = [ControlMessage::ScmRights(&raw)];
            let rights = if raw.is_empty() { &[][..] } else { &rights };
            let sent =
                sendmsg::<UnixAddr>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], rights, MsgFlags::MSG_NOSIGNAL, None);
            Ok(sent.map(drop)?)
        };
        self.0.async_io(Interest::WRITABLE, write).await
    }

    /// The next event.
    pub(super) async fn receive(&self) -> io::Result<GatewayEvent> {
        loop {
            let bytes = self.0.async_io(Interest::READABLE, || receive_bytes(&self.0)).await?;
            if let Some(event) = event(&bytes) {
                return Ok(event);
            }
        }
    }

    /// The next event, if it is there already.
    pub(super) fn receive_now(&self) -> Option<GatewayEvent> {
        // An end that is met here is met again by the next who waits.
        receive_bytes(&self.0).ok().and_then(|bytes| event(&bytes))
    }
}

fn receive_bytes(socket: &UnixDatagram) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; EVENT_BYTES_MAX];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.truncate(length);
    Ok(buffer)
}

fn event(bytes: &[u8]) -> Option<GatewayEvent> {
    // One of a later release; this supervisor cannot need it.
    serde_json::from_slice(bytes).map_err(|error| warn!(%error, "unknown event of the egress gateway")).ok()
}
