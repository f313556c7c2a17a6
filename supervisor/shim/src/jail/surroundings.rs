//! What surrounds a jail beside files and processes: keyring, cgroup, name, network. Done by init while it is still who it was born as.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;

use agentapi_shared::jail::{JailPlan, Namespace};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use super::error::JailError;
use super::lifeline::{InitMessage, Lifeline};
use super::userns::errno;
use crate::sys;

/// Everything but the listeners' way out, in the order of the plan.
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
    if plan.has(Namespace::Network) {
        sys::bring_loopback_up().map_err(JailError::step("network: loopback interface"))?;
        for port in &plan.listeners {
            let failed = |source| JailError::Step { step: format!("network: listener on port {port}"), source };
            // The only way out of an empty network: whoever holds the descriptor accepts, wherever it is.
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).map_err(|e| failed(errno(e)))?;
            lifeline.send(&InitMessage::Listener { port: *port }, Some(listener.as_fd())).map_err(failed)?;
        }
    } else if !plan.listeners.is_empty() {
        return Err(JailError::step("network: listeners without a network of their own")(Errno::EINVAL));
    }
    Ok(())
}
