//! Becoming nobody in particular: user namespace, ids, capabilities, no new privileges.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use agentapi_shared::jail::{AGENT_ID, JailMode, JailPlan, Namespace};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::error::JailError;
use super::userns::errno;
use crate::sys;

/// Gives up every privilege. Afterwards all five capability sets are empty; that is checked. `limits` is `/proc/sys/user`, opened before it was
/// made read-only.
pub(super) fn drop_privileges(
    plan: &JailPlan,
    userns: Option<OwnedFd>,
    limits: Option<&OwnedFd>,
) -> Result<(), JailError> {
    let agent = match plan.mode {
        JailMode::Root { uid_base } if !plan.has(Namespace::User) => {
            // The host has none: the agent's id on the host is its id inside as well, and what limits user namespaces is the host's own.
            setgroups(&[]).map_err(JailError::step("ids: setgroups"))?;
            Some(uid_base + AGENT_ID)
        }
        JailMode::Root { .. } => {
            let userns = userns.ok_or(JailError::step("namespaces: descriptor")(Errno::EBADF))?;
            setns(&userns, CloneFlags::CLONE_NEWUSER).map_err(JailError::step("namespaces: enter that of users"))?;
            setgroups(&[]).map_err(JailError::step("ids: setgroups"))?;
            forbid_user_namespaces(limits)?;
            Some(AGENT_ID)
        }
        JailMode::User => {
            // A second user namespace, so that the agent is uid 1000 and not the root of the first one.
            unshare(CloneFlags::CLONE_NEWUSER).map_err(JailError::step("namespaces: second of users"))?;
            map_agent_to_root().map_err(JailError::step("namespaces: map of the second of users"))?;
            forbid_user_namespaces(limits)?;
            Some(AGENT_ID)
        }
        JailMode::None => None,
    };
    if let Some(agent) = agent {
        become_nobody(Uid::from_raw(agent), Gid::from_raw(agent))?;
    }
    set_no_new_privs().map_err(JailError::step("privileges: no_new_privs"))?;
    // Nothing of the agent's user may trace init or read its memory. A change of ids has undone it.
    set_dumpable(false).map_err(JailError::step("privileges: not dumpable"))
}

/// In this user namespace none can be made, also if the filter of system calls had a hole.
fn forbid_user_namespaces(limits: Option<&OwnedFd>) -> Result<(), JailError> {
    let forbid = || {
        let limits = limits.ok_or(Errno::EBADF)?.as_fd();
        let limit = openat(limits, "max_user_namespaces", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        File::from(limit).write_all(b"0").map_err(errno)
    };
    forbid().map_err(JailError::step("namespaces: limit of those of users"))
}

fn map_agent_to_root() -> Result<(), Errno> {
    let map = format!("{AGENT_ID} 0 1\n");
    fs::write("/proc/self/setgroups", "deny").map_err(errno)?;
    fs::write("/proc/self/gid_map", &map).map_err(errno)?;
    fs::write("/proc/self/uid_map", &map).map_err(errno)
}

/// Takes an id for good and keeps no capability.
pub(super) fn become_nobody(uid: Uid, gid: Gid) -> Result<(), JailError> {
    // Both before the ids change: without CAP_SETPCAP the bounding set would silently stay full.
    sys::drop_bounding_set().map_err(JailError::step("capabilities: bounding set"))?;
    sys::lock_secure_bits().map_err(JailError::step("capabilities: secure bits"))?;
    setresgid(gid, gid, gid).map_err(JailError::step("ids: setresgid"))?;
    setresuid(uid, uid, uid).map_err(JailError::step("ids: setresuid"))?;
    sys::drop_all_capabilities().map_err(JailError::step("capabilities: drop"))?;
    assert_no_capabilities()
}

fn assert_no_capabilities() -> Result<(), JailError> {
    let status =
        fs::read_to_string("/proc/self/status").map_err(|e| JailError::step("capabilities: read back")(errno(e)))?;
    let sets: Vec<&str> = status.lines().filter(|line| line.starts_with("Cap")).collect();
    let empty =
        sets.iter().all(|line| line.split_whitespace().nth(1).is_some_and(|set| set.bytes().all(|b| b == b'0')));
    if sets.len() == 5 && empty { Ok(()) } else { Err(JailError::step("capabilities: check")(Errno::EPERM)) }
}
