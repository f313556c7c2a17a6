//! User namespaces made ahead, held by a process that does nothing and is gone again once its namespace is open.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getgid, getuid, pause};

use crate::sys::{self, Cloned};

/// A user namespace with these maps (`inside outside count` lines).
pub(super) fn create(uid_map: &str, gid_map: &str) -> Result<OwnedFd, Errno> {
    match sys::clone_process(CloneFlags::CLONE_NEWUSER.bits(), None)? {
        Cloned::Child => loop {
            // Ended by the parent's SIGKILL below; if that died first, by the parent's death.
            let _armed = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            pause();
        },
        Cloned::Parent { pid, .. } => {
            let namespace = write_maps(pid, uid_map, gid_map).and_then(|()| open_namespace(pid));
            kill_and_reap(pid);
            namespace
        }
    }
}

/// Maps id 0 of a new process's user namespace to the user that we are: all that an ordinary user may do.
pub(super) fn map_to_self(pid: Pid) -> Result<(), Errno> {
    write_proc(pid, "setgroups", "deny")?;
    write_maps(pid, &format!("0 {} 1\n", getuid()), &format!("0 {} 1\n", getgid()))
}

/// Ends a child that must not live on.
pub(super) fn kill_and_reap(pid: Pid) {
    // It is our child and not yet reaped, so the pid is still its own.
    let _gone = kill(pid, Signal::SIGKILL);
    let _status = waitpid(pid, None);
}

fn write_maps(pid: Pid, uid_map: &str, gid_map: &str) -> Result<(), Errno> {
    write_proc(pid, "gid_map", gid_map)?;
    write_proc(pid, "uid_map", uid_map)
}

fn write_proc(pid: Pid, file: &str, text: &str) -> Result<(), Errno> {
    fs::write(format!("/proc/{pid}/{file}"), text).map_err(errno)
}

fn open_namespace(pid: Pid) -> Result<OwnedFd, Errno> {
    File::open(format!("/proc/{pid}/ns/user")).map(OwnedFd::from).map_err(errno)
}

/// The kernel's word in an I/O error.
pub(super) fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
