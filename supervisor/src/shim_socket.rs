//! The socket to a shim, watched for reading only.
//!
//! Tokio's own `UnixStream` asks the kernel to be woken for room to write as well, and on a Unix socket there is more room whenever the other
//! side reads: each keystroke would wake this process once for nothing, in the moment in which the shim wants to write it to the terminal.
//! What Tokio has for one direction alone is the end of a pipe; on a stream socket `read(2)` does the same as on a pipe.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};
use tokio::net::unix::pipe;

/// The half that reads.
#[derive(Debug)]
pub(crate) struct ShimReader(pipe::Receiver);

/// The half that writes.
#[derive(Debug)]
pub(crate) struct ShimWriter(UnixStream);

/// Connects, or fails at once: a shim that takes nobody in, and before which as many wait as may, is not waited for.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(made.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(made.into())
}

/// Both halves of a connected socket, which does not block.
pub(crate) fn split(socket: UnixStream) -> io::Result<(ShimReader, ShimWriter)> {
    let writer = socket.try_clone()?;
    let reader = pipe::Receiver::from_owned_fd_unchecked(OwnedFd::from(socket))?;
    Ok((ShimReader(reader), ShimWriter(writer)))
}

impl ShimReader {
    /// Waits until there is something to read.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Reads what is there; none if that is nothing.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.try_read(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl ShimWriter {
    /// Writes all of it. Not cancel safe: a packet that is cut off ends the use of the socket.
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.0.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The only time that room to write is of interest: a second registration, for just so long.
    async fn writable(&self) -> io::Result<()> {
        pipe::Sender::from_owned_fd_unchecked(self.0.try_clone()?.into())?.writable().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;

    #[test]
    fn a_shim_that_takes_nobody_in_holds_nobody_up() {
        let path = std::env::temp_dir().join(format!("agentapi-shim-{}.sock", agentapi_shared::SessionId::generate()));
        let made = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(made.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&made, Backlog::new(1).unwrap()).unwrap();
        let began = Instant::now();
        let waiting: Vec<io::Result<UnixStream>> = (0..4).map(|_| connect(&path)).collect();
        assert!(waiting[0].is_ok());
        let error = waiting[3].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
        assert!(began.elapsed() < Duration::from_secs(10));
        std::fs::remove_file(path).unwrap();
    }
}
