//! Telling the service manager how far we are: systemd's notification protocol, a datagram to the socket that it names.
//!
//! Who did not start us through a service manager is told nothing. Nothing waits for an answer, and a manager that does not listen is no error of
//! ours: it decides by its own time limits.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What a service manager can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// What others wait for is there.
    Ready,
    /// The end has begun.
    Stopping,
}

impl Notice {
    fn line(self) -> &'static str {
        match self {
            Self::Ready => "READY=1",
            Self::Stopping => "STOPPING=1",
        }
    }
}

/// Tells it, if there is a manager.
pub fn notify_manager(notice: Notice) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, notice) {
        tracing::warn!(%error, "the service manager could not be told: {}", notice.line());
    }
}

fn send(socket: &OsStr, notice: Notice) -> io::Result<()> {
    // `@` stands for the NUL of a name that is in no file system.
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(notice.line().as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(listener: &UnixDatagram, socket: &OsStr, notice: Notice) -> String {
        listener.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        send(socket, notice).unwrap();
        let mut buffer = [0; 64];
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_manager_is_told_through_either_kind_of_socket() {
        let name = format!("agentapi-notify-{}", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(&name);
        let listener = UnixDatagram::bind(&path).unwrap();
        assert_eq!(received(&listener, path.as_os_str(), Notice::Ready), "READY=1");
        std::fs::remove_file(&path).unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        assert_eq!(received(&listener, OsStr::new(&format!("@{name}")), Notice::Stopping), "STOPPING=1");
        assert!(send(path.as_os_str(), Notice::Ready).is_err(), "nobody listens there");
    }
}
