//! Moving bytes between two sockets through a pipe, by splice(2): no copy into this process and back, and no buffer for a tunnel that is quiet.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::yield_now;

use crate::meter::{CHUNK_BYTES, Meter};
use crate::refusal::Refusal;

/// Pipes kept for the next who needs one. Beyond it they are closed: making one takes microseconds.
const SPARE_MAX: usize = 32;
/// Chunks that a tunnel moves before others of its thread have their turn: a megabyte, a third of a millisecond.
const CHUNKS_PER_TURN: usize = 4;

/// A pipe with nothing in it.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Empty pipes. A direction has one only while it moves bytes, so a thousand idle tunnels need none.
#[derive(Debug, Default)]
pub(crate) struct Pipes(Mutex<Vec<Pipe>>);

impl Pipes {
    fn take(&self) -> io::Result<Pipe> {
        if let Some(pipe) = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // A user's pipes together are limited; one that stays small works too.
        let size = i32::try_from(CHUNK_BYTES).unwrap_or(i32::MAX);
        let _larger = fcntl(&write, FcntlArg::F_SETPIPE_SZ(size));
        Ok(Pipe { read, write })
    }

    fn put_back(&self, pipe: Pipe) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(pipe);
        }
    }
}

/// Why a direction ended before its source did.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A socket failed.
    Broken,
    /// A cap of the session, or what was found in the first bytes.
    Refused(Refusal),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// Moves everything from one socket to the other until the end, which is passed on.
pub(crate) async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    pipes: &Pipes,
    meter: &Meter,
    moved: &AtomicU64,
) -> Result<(), Stop> {
    let mut turns = (1..=CHUNKS_PER_TURN).cycle();
    loop {
        from.readable().await?;
        let pipe = pipes.take()?;
        loop {
            if turns.next() == Some(CHUNKS_PER_TURN) {
                yield_now().await;
            }
            let chunk = meter.allow().await.map_err(Stop::Refused)?;
            let taken = from.try_io(Interest::READABLE, || splice_some(from, &pipe.write, chunk));
            let count = match taken {
                Ok(0) => {
                    pipes.put_back(pipe);
                    return end(to).map_err(Stop::from);
                }
                Ok(count) => count,
                // The pipe is empty, so it is the socket that has nothing.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
            meter.charge(count);
            moved.fetch_add(count as u64, Ordering::Relaxed);
            let mut left = count;
            while left > 0 {
                match to.try_io(Interest::WRITABLE, || splice_some(&pipe.read, to, left)) {
                    Ok(count) => left -= count.min(left),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        pipes.put_back(pipe);
    }
}

/// Says that nothing more comes.
fn end(to: &TcpStream) -> io::Result<()> {
    Ok(shutdown(to.as_raw_fd(), Shutdown::Write)?)
}

fn splice_some(from: impl AsFd, to: impl AsFd, count: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    Ok(splice(from, None, to, None, count, flags)?)
}
