//! The system calls that have no safe wrapper: questions to the kernel about what it has.

#![expect(unsafe_code, reason = "thin wrappers over system calls, one call a block")]

mod attempts;
pub(crate) mod disk;

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

pub(crate) use agentapi_shared::sys::own_received;
pub(crate) use attempts::{Arg, CloneCall, call, clone_child, compat_getpid, exit_now, fork_child, ignore_hang_up};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

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

/// A directory, not for reading but as something that other calls can be about.
pub(crate) fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// Puts the ids of a user namespace on a detached mount of a directory, which is gone with the call.
pub(crate) fn try_id_map(dir: BorrowedFd<'_>, users: BorrowedFd<'_>) -> Result<(), Errno> {
    let empty = c"";
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned();
    // SAFETY: the descriptor is open as long as it is borrowed, and the string ends with a NUL and lives for the program's whole life.
    let tree = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), empty.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    let tree = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(tree).map_err(|_| Errno::EBADF)?) };
    // SAFETY: mount_attr is a struct of integers, for which all zeroes is a valid value.
    let mut attr: libc::mount_attr = unsafe { mem::zeroed() };
    attr.attr_set = libc::MOUNT_ATTR_IDMAP;
    attr.userns_fd = u64::try_from(users.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let (at, size) = (libc::AT_EMPTY_PATH, mem::size_of::<libc::mount_attr>());
    // SAFETY: the string ends with a NUL; attr lives until the call has returned and has the size that is given.
    let answer =
        unsafe { libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), empty.as_ptr(), at, &raw mut attr, size) };
    Errno::result(answer).map(drop)
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
