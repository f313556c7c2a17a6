//! Pseudo-terminals by descriptor: the slave is opened from the master, so that no path has to be trusted.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use agentapi_shared::WindowSize;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

mod ioctls {
    nix::ioctl_write_ptr_bad!(lock_pty, libc::TIOCSPTLCK, libc::c_int);
    nix::ioctl_write_int_bad!(open_peer, libc::TIOCGPTPEER);
    nix::ioctl_write_int_bad!(set_controlling, libc::TIOCSCTTY);
    nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, libc::winsize);
    nix::ioctl_read_bad!(get_size, libc::TIOCGWINSZ, libc::winsize);
}

/// A new terminal of the devpts instance that `multiplexer` belongs to: master (non-blocking) and slave.
pub(crate) fn open_pty(multiplexer: &Path) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open(multiplexer, flags | OFlag::O_NONBLOCK, Mode::empty())?;
    let unlocked: libc::c_int = 0;
    // SAFETY: master is a ptmx descriptor, the argument a live int.
    unsafe { ioctls::lock_pty(master.as_raw_fd(), &raw const unlocked) }?;
    // SAFETY: master is an unlocked ptmx descriptor; the argument is open(2) flags.
    let slave = unsafe { ioctls::open_peer(master.as_raw_fd(), flags.bits()) }?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok((master, unsafe { OwnedFd::from_raw_fd(slave) }))
}

/// Makes the terminal the controlling one of this session leader.
pub(crate) fn become_controlling_terminal(slave: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: a terminal descriptor; 0 means not to steal it from another session.
    unsafe { ioctls::set_controlling(slave.as_raw_fd(), 0) }.map(drop)
}

/// Sets columns and rows; the kernel tells the foreground process group.
pub(crate) fn set_window_size(fd: &impl AsRawFd, size: WindowSize) -> Result<(), Errno> {
    let winsize = libc::winsize { ws_col: size.cols(), ws_row: size.rows(), ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: a terminal descriptor and a live winsize.
    unsafe { ioctls::set_size(fd.as_raw_fd(), &raw const winsize) }.map(drop)
}

/// Columns and rows as the kernel has them.
pub(crate) fn window_size(fd: &impl AsRawFd) -> Result<libc::winsize, Errno> {
    let mut winsize = libc::winsize { ws_col: 0, ws_row: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: a terminal descriptor and a live winsize to write to.
    unsafe { ioctls::get_size(fd.as_raw_fd(), &raw mut winsize) }?;
    Ok(winsize)
}
