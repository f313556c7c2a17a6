//! Processes: clone3, fork, descriptors, the allocator.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

/// Which side of a clone we are on.
pub(crate) enum Cloned {
    /// The new process.
    Child,
    /// The old one, with a pidfd of the new.
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// `CLONE_INTO_CGROUP`, which only clone3 knows: above the 32 bits of the others.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// `clone3(2)` without shared memory: a fork into new namespaces, and into a cgroup (the directory of one). The caller must be single-threaded.
pub(crate) fn clone_process(namespaces: i32, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is a struct of integers, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = u64::from((libc::CLONE_PIDFD | namespaces).cast_unsigned());
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(cgroup) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    }
    // SAFETY: args is valid for its size, pidfd points to a live i32; without CLONE_VM and stack the child gets a copy of this one, and the
    // process has one thread (the caller's duty), so no lock can be held by a thread that does not exist in the child.
    let pid =
        Errno::result(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, mem::size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just written a new descriptor there that nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: Pid::from_raw(i32::try_from(pid).unwrap_or(-1)), pidfd })
}

/// `fork(2)`. The caller must be single-threaded.
pub(crate) fn fork_process() -> Result<ForkResult, Errno> {
    // SAFETY: one thread only (the caller's duty), so the child may run any code.
    unsafe { nix::unistd::fork() }
}

/// Gives up a priority above the ordinary one, which whoever started us may have had; a lower one is kept.
pub(crate) fn shed_priority() -> Result<(), Errno> {
    /// The kernel tells 20 less the nice value, so that no answer looks like an error: getpriority(2).
    const ORDINARY: libc::c_long = 20;
    // SAFETY: integers only; 0 is this process.
    let now = Errno::result(unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) })?;
    if now <= ORDINARY {
        return Ok(());
    }
    // SAFETY: as above.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) }).map(drop)
}

/// Has every descriptor from `first` on closed at the exec.
pub(crate) fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: close_range takes integers only, and with this flag closes nothing now.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Closes every descriptor beyond standard error but these.
pub(crate) fn close_others(keep: &[RawFd]) -> Result<(), Errno> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if first < fd {
            // SAFETY: close_range takes integers only; the caller, a fresh process, uses nothing but what it keeps.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) })?;
        }
        first = fd + 1;
    }
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }).map(drop)
}

/// Takes over descriptor 0, on which the supervisor has put our control socket.
pub(crate) fn stdin_socket() -> OwnedFd {
    // SAFETY: called once, first in main; nothing else in the process uses descriptor 0.
    unsafe { OwnedFd::from_raw_fd(std::io::stdin().as_raw_fd()) }
}

/// Default action and an empty mask for every signal: what the agent expects to be born with.
pub(crate) fn reset_signals() -> Result<(), Errno> {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is a valid handler for every signal; numbers that may not be set just fail.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()
}

/// One heap for all threads: a second arena would cost every shim its own dirty pages.
pub(crate) fn limit_malloc_arenas() {
    // SAFETY: mallopt with integers, before a second thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    // SAFETY: as above. Large buffers go back to the kernel when freed.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024) };
}

/// Gives free heap pages back to the kernel.
pub(crate) fn trim_heap() {
    // SAFETY: malloc_trim may be called at any time from any thread.
    unsafe { libc::malloc_trim(0) };
}
