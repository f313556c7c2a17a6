//! The shim gives up what it no longer needs. It goes on to parse what the agent prints, so it becomes nobody: an id that exists nowhere else, no
//! capability, its spawn's directory instead of the host's files, and only the system calls that it makes.
//!
//! Two steps, because ids and Landlock belong to a thread and have to come before the second one starts, while that start needs more calls than the
//! filter leaves.

use std::os::fd::{AsFd, OwnedFd};

use agentapi_shared::jail::{LandlockStep, ShimStep};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown, fchownat, setgroups};

use super::error::JailError;
use super::{filter, ids, landlock};

/// The spawn's directory: the shim makes files in it, and the sticky bit keeps those that the supervisor made out of its hands.
const SPAWN_DIR_MODE: u32 = 0o1770;

/// Gives the shim's id what it goes on writing: the journal is its own, in the spawn's directory it may make files.
pub(crate) fn hand_over(step: ShimStep, dir: &OwnedFd, journal: &OwnedFd) -> Result<(), JailError> {
    let Some(id) = step.host_id else { return Ok(()) };
    let (uid, gid) = (Some(Uid::from_raw(id)), Some(Gid::from_raw(id)));
    let failed = JailError::step("shim: hand over of the spawn's directory");
    let give = || -> Result<(), Errno> {
        fchown(dir, None, gid)?;
        fchmod(dir, Mode::from_bits_truncate(SPAWN_DIR_MODE))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        for entry in Dir::openat(journal, ".", flags, Mode::empty())?.iter() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                fchownat(journal, entry.file_name(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
        }
        fchown(journal, uid, gid)
    };
    give().map_err(failed)
}

/// Ids, capabilities, files. The process must have one thread.
pub(crate) fn shed(step: ShimStep, landlock: Option<&LandlockStep>, dir: &OwnedFd) -> Result<(), JailError> {
    if let Some(id) = step.host_id {
        setgroups(&[]).map_err(JailError::step("shim: setgroups"))?;
        ids::become_nobody(Uid::from_raw(id), Gid::from_raw(id))?;
    }
    set_no_new_privs().map_err(JailError::step("shim: no_new_privs"))?;
    // A change of ids has undone it.
    set_dumpable(false).map_err(JailError::step("shim: not dumpable"))?;
    match landlock {
        Some(landlock) => landlock::confine_shim(landlock, dir),
        None => Ok(()),
    }
}

/// System calls, on all threads there are. Last of all.
pub(crate) fn filter_calls() -> Result<(), JailError> {
    filter::confine_shim().map_err(JailError::step("seccomp: shim"))
}

/// Whose the journal of an earlier shim is, if that had an id of its own.
pub(crate) fn owner_of(journal: &OwnedFd) -> Result<ShimStep, JailError> {
    let owner = nix::sys::stat::fstat(journal.as_fd()).map_err(JailError::step("shim: owner of the journal"))?.st_uid;
    let own = nix::unistd::geteuid().as_raw();
    Ok(ShimStep { host_id: (owner != own).then_some(owner) })
}
