//! The system calls that have no safe wrapper: questions to the kernel about what it has.

#![expect(unsafe_code, reason = "thin wrappers over system calls, one call a block")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// `SECCOMP_GET_ACTION_AVAIL`.
const SECCOMP_ACTION_AVAILABLE: libc::c_ulong = 2;

/// Whether system call filters can do this action.
pub(crate) fn seccomp_can(action: u32) -> io::Result<()> {
    let (action, flags): (*const u32, libc::c_ulong) = (&raw const action, 0);
    // SAFETY: the kernel reads one u32 through the pointer, which is of a variable that lives until the call has returned.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_ACTION_AVAILABLE, flags, action) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor of a process, so that a signal cannot reach another one that has its number later.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let flags: libc::c_uint = 0;
    // SAFETY: takes two numbers and no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Kills the process that a descriptor is of.
pub(crate) fn pidfd_kill(process: BorrowedFd<'_>) -> io::Result<()> {
    let (info, flags): (*const libc::siginfo_t, libc::c_uint) = (std::ptr::null(), 0);
    // SAFETY: the descriptor is open as long as it is borrowed; without an info the kernel reads no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, info, flags) };
    Errno::result(answer)?;
    Ok(())
}

/// Owns a descriptor that came with a message.
pub(crate) fn own_received(fd: RawFd) -> OwnedFd {
    // SAFETY: recvmsg has just made this descriptor for us; nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The version of Landlock that the kernel has; an error if it has none or it is off.
pub(crate) fn landlock_version() -> Result<u32, Errno> {
    const CREATE_RULESET_VERSION: libc::c_uint = 1;
    let none: *const libc::c_void = std::ptr::null();
    // SAFETY: with this flag the call takes no attributes, makes nothing and returns the version.
    let version = Errno::result(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, CREATE_RULESET_VERSION)
    })?;
    u32::try_from(version).map_err(|_| Errno::ERANGE)
}
