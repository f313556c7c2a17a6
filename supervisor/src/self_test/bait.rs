//! What of the host the canary is to get at: it must not, and would show it.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use agentapi_shared::SessionId;

use crate::canary::Aims;
use crate::proc;

/// What the canary must not get to see.
const BAIT: &str = "bait";

/// Listeners that tell everyone a secret, and a file with it.
pub(super) struct Host {
    tcp: TcpListener,
    unix: UnixListener,
    pub(super) aims: Aims,
}

impl Host {
    pub(super) fn listen(dir: &Path) -> io::Result<Self> {
        let secret = SessionId::generate().to_string();
        let bait = dir.join(BAIT);
        // Never through a link, and never what somebody else has open.
        File::options().write(true).create_new(true).mode(0o600).open(&bait)?.write_all(secret.as_bytes())?;
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let abstract_socket = format!("agentapi-canary-{}", SessionId::generate());
        let unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_socket)?)?;
        tcp.set_nonblocking(true)?;
        unix.set_nonblocking(true)?;
        let host_pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let host_began = proc::began(host_pid).ok_or(io::ErrorKind::NotFound)?;
        // What the jail has is known with its plan.
        let (own_network, own_users) = (true, true);
        let aims = Aims {
            bait: bait.canonicalize()?,
            secret,
            host_pid,
            host_began,
            tcp: tcp.local_addr()?,
            abstract_socket,
            own_network,
            own_users,
        };
        Ok(Self { tcp, unix, aims })
    }

    /// What becomes readable when somebody comes.
    pub(super) fn doors(&self) -> [BorrowedFd<'_>; 2] {
        [self.tcp.as_fd(), self.unix.as_fd()]
    }

    /// Tells whoever has come. One that does not listen any more has heard nothing.
    pub(super) fn greet(&self) {
        if let Ok((mut stream, _)) = self.tcp.accept() {
            let _told = stream.write_all(self.aims.secret.as_bytes());
        }
        if let Ok((mut stream, _)) = self.unix.accept() {
            let _told = stream.write_all(self.aims.secret.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bait_is_not_written_through_a_link() {
        let dir = std::env::temp_dir().join(format!("agentapi-bait-{}", SessionId::generate()));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("theirs"), "theirs").unwrap();
        std::os::unix::fs::symlink("theirs", dir.join(BAIT)).unwrap();
        assert!(Host::listen(&dir).is_err());
        assert_eq!(std::fs::read_to_string(dir.join("theirs")).unwrap(), "theirs");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
