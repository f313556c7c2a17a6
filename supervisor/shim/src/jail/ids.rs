//! Becoming nobody in particular: user namespace, ids, capabilities, no new privileges.

use std::fs;
use std::os::fd::OwnedFd;

use agentapi_shared::jail::{AGENT_ID, JailMode};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::error::JailError;
use super::userns::errno;
use crate::sys;

/// Gives up every privilege. Afterwards all five capability sets are empty; that is checked.
pub(super) fn drop_privileges(mode: JailMode, userns: Option<OwnedFd>) -> Result<(), JailError> {
    match mode {
        JailMode::Root { .. } => {
            let userns = userns.ok_or(JailError::step("user namespace")(Errno::EBADF))?;
            setns(&userns, CloneFlags::CLONE_NEWUSER).map_err(JailError::step("enter user namespace"))?;
            setgroups(&[]).map_err(JailError::step("setgroups"))?;
            become_agent()?;
        }
        JailMode::User => {
            // A second user namespace, so that the agent is uid 1000 and not the root of the first one.
            unshare(CloneFlags::CLONE_NEWUSER).map_err(JailError::step("second user namespace"))?;
            map_agent_to_root().map_err(JailError::step("map of the second user namespace"))?;
            become_agent()?;
        }
        JailMode::None => {}
    }
    set_no_new_privs().map_err(JailError::step("no_new_privs"))?;
    // Nothing of the agent's user may trace init or read its memory.
    set_dumpable(false).map_err(JailError::step("not dumpable"))
}

fn map_agent_to_root() -> Result<(), Errno> {
    let map = format!("{AGENT_ID} 0 1\n");
    fs::write("/proc/self/setgroups", "deny").map_err(errno)?;
    fs::write("/proc/self/gid_map", &map).map_err(errno)?;
    fs::write("/proc/self/uid_map", &map).map_err(errno)
}

fn become_agent() -> Result<(), JailError> {
    // Before the ids change: without CAP_SETPCAP the bounding set would silently stay full.
    sys::drop_bounding_set().map_err(JailError::step("capability bounding set"))?;
    let (uid, gid) = (Uid::from_raw(AGENT_ID), Gid::from_raw(AGENT_ID));
    setresgid(gid, gid, gid).map_err(JailError::step("setresgid"))?;
    setresuid(uid, uid, uid).map_err(JailError::step("setresuid"))?;
    sys::drop_all_capabilities().map_err(JailError::step("capabilities"))?;
    assert_no_capabilities()
}

fn assert_no_capabilities() -> Result<(), JailError> {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| JailError::step("read own status")(errno(e)))?;
    let sets: Vec<&str> = status.lines().filter(|line| line.starts_with("Cap")).collect();
    let empty =
        sets.iter().all(|line| line.split_whitespace().nth(1).is_some_and(|set| set.bytes().all(|b| b == b'0')));
    if sets.len() == 5 && empty { Ok(()) } else { Err(JailError::step("check of the capability sets")(Errno::EPERM)) }
}
