//! Lanes: threads that each watch sockets and move what comes on them. All of a session is on one of them.
//!
//! So the thread that moves the bytes of a connection is the one that watches its two sockets. In one runtime of many threads another thread watches
//! them meanwhile, and each packet wakes it for nothing: a tenth of all that a transfer costs. A session has no more than one core of the gateway, and
//! sessions of one lane take turns.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, EnterGuard, Handle};

/// Threads that wait for the resolver, one a name, of all lanes together. Overflow: a name waits its turn, within its timeout.
const LOOKUP_THREADS_MAX: usize = 256;

/// One thread's runtime.
#[derive(Debug, Clone)]
pub(crate) struct Lane(Arc<Handle>);

impl Lane {
    /// As long as this is held, sockets and tasks that are made here are the lane's.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.0.enter()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lanes {
    first: Lane,
    others: Vec<Lane>,
}

impl Lanes {
    /// Starts one, and so many others. They end with the process.
    pub(crate) fn start(others: usize) -> io::Result<Self> {
        let lookups = LOOKUP_THREADS_MAX / (1 + others);
        let others = (0..others).map(|_| start(lookups)).collect::<io::Result<_>>();
        Ok(Self { first: start(lookups)?, others: others? })
    }

    /// The one with the fewest sessions.
    pub(crate) fn emptiest(&self) -> Lane {
        let sessions = |lane: &&Lane| Arc::strong_count(&lane.0);
        self.others.iter().chain([&self.first]).min_by_key(sessions).unwrap_or(&self.first).clone()
    }
}

fn start(lookups: usize) -> io::Result<Lane> {
    let runtime = Builder::new_current_thread().max_blocking_threads(lookups).enable_all().build()?;
    let lane = Lane(Arc::new(runtime.handle().clone()));
    std::thread::Builder::new()
        .name("lane".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lane_with_the_fewest_sessions_is_next() {
        let lanes = Lanes::start(1).unwrap();
        let ids = |lane: &Lane| lane.0.id();
        let (first, second) = (lanes.emptiest(), lanes.emptiest());
        assert_ne!(ids(&first), ids(&second));
        drop(first);
        let third = lanes.emptiest();
        assert_ne!(ids(&third), ids(&second));
    }
}
