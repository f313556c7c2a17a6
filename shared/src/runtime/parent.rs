//! Ending with the parent process, also when it is killed with -9.

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// The process that should be our parent is gone already.
#[derive(Debug, thiserror::Error)]
pub enum ParentGone {
    /// It ended before we could tie ourselves to it.
    #[error("parent process {0} is gone")]
    Ended(i32),
    /// The kernel refused.
    #[error("cannot tie this process to its parent")]
    Refused(#[source] nix::errno::Errno),
}

/// From now on this process gets SIGKILL when `parent` ends. Called first in `main`; the parent must have started us from its main thread.
pub fn exit_with_parent(parent: i32) -> Result<(), ParentGone> {
    set_pdeathsig(Signal::SIGKILL).map_err(ParentGone::Refused)?;
    // It may have ended between our start and the call above; then we were handed to another parent.
    if getppid() == Pid::from_raw(parent) { Ok(()) } else { Err(ParentGone::Ended(parent)) }
}
