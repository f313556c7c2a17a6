//! What surrounds a jail beside files and processes: keyring, cgroup, name, an ordinary user's network. Done by init while it is still who it was
//! born as.

use std::os::fd::AsFd;

use agentapi_shared::jail::{JailPlan, Namespace};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use super::error::JailError;
use super::lifeline::{InitMessage, Lifeline};
use super::network;
use crate::sys;

/// In the order of the plan.
pub(super) fn arrange(plan: &JailPlan, lifeline: &Lifeline) -> Result<(), JailError> {
    if plan.namespaces.is_empty() {
        return Ok(());
    }
    sys::join_empty_keyring().map_err(JailError::step("keyring: join an empty one"))?;
    if plan.has(Namespace::Cgroup) {
        // Not at birth: whoever had to be put into a cgroup later would see the one before as its root.
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(JailError::step("namespaces: cgroup"))?;
    }
    if let Some(name) = plan.hostname.as_deref().filter(|_| plan.has(Namespace::Uts)) {
        sethostname(name).map_err(JailError::step("namespaces: host name"))?;
    }
    if plan.has(Namespace::Network) && !network::is_made_by_shim(plan) {
        for (port, listener) in network::furnish(plan)? {
            lifeline
                .send(&InitMessage::Listener { port }, &[listener.as_fd()])
                .map_err(JailError::step("init: lifeline"))?;
        }
    }
    Ok(())
}
