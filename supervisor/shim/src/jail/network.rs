//! A network of the jail's own: empty but for loopback, and for the listeners that are the only way out. Whoever holds such a descriptor accepts,
//! wherever it is.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;

use agentapi_shared::jail::{JailMode, JailPlan, Namespace};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::error::JailError;
use super::userns::errno;
use crate::sys;

/// Ports on 127.0.0.1 and who listens there.
pub(super) type Listeners = Vec<(u16, OwnedFd)>;

/// Whether the shim makes the network, while init builds the root, and init enters it later. An ordinary user's belongs to the user namespace that
/// init is born into, and is made with it.
pub(super) fn is_made_by_shim(plan: &JailPlan) -> bool {
    plan.has(Namespace::Network) && matches!(plan.mode, JailMode::Root { .. })
}

/// Leaves this process's network for a new one. The shim needs none.
pub(super) fn make(plan: &JailPlan) -> Result<(OwnedFd, Listeners), JailError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(JailError::step("namespaces: network"))?;
    let network = File::open("/proc/self/ns/net").map_err(|e| JailError::step("namespaces: network")(errno(e)))?;
    Ok((network.into(), furnish(plan)?))
}

/// Loopback and listeners in the network that this process is in.
pub(super) fn furnish(plan: &JailPlan) -> Result<Listeners, JailError> {
    sys::bring_loopback_up().map_err(JailError::step("network: loopback interface"))?;
    let listen = |port: &u16| {
        let failed =
            |error| JailError::Step { step: format!("network: listener on port {port}"), source: errno(error) };
        TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).map(|listener| (*port, listener.into())).map_err(failed)
    };
    plan.listeners.iter().map(listen).collect()
}

/// Listeners on the host's own network would be everybody's.
pub(super) fn check(plan: &JailPlan) -> Result<(), JailError> {
    if plan.has(Namespace::Network) || plan.listeners.is_empty() {
        return Ok(());
    }
    Err(JailError::step("network: listeners without a network of their own")(Errno::EINVAL))
}
