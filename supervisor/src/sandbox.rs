//! The sandbox of one spawn, settled: what the host's profile allows, tightened by what the session asked for. Plans are made from this.

use std::path::PathBuf;

use agentapi_shared::api::{Limits, NetworkMode, Posture};
use serde::{Deserialize, Serialize};

use crate::host::Isolation;
use crate::workspace::HostDir;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    /// Name of the profile.
    pub(crate) profile: String,
    /// Whether debuggers work inside (`ptrace` and its like).
    pub(crate) debuggers: bool,
    /// Where its programs may connect to.
    pub(crate) network: NetworkMode,
    /// Where the egress gateway listens inside, in `filtered` mode.
    pub(crate) listeners: Vec<Listener>,
    /// Directories of the host beside the system's, checked against the host's list.
    pub(crate) mounts: Vec<SandboxMount>,
    /// Limits, all of them settled.
    pub(crate) limits: Limits,
    /// Layers that the host lacks and that its operator allowed to be missing.
    pub(crate) degraded: Vec<String>,
}

impl Sandbox {
    /// Ports inside on which something listens.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let listeners = self.listeners.iter().filter(|_| self.network == NetworkMode::Filtered);
        listeners.map(|listener| listener.port).collect()
    }

    /// What people are told of it.
    pub(crate) fn posture(&self, isolation: Isolation) -> Posture {
        Posture {
            isolation: isolation.as_str().to_owned(),
            profile: self.profile.clone(),
            network: self.network,
            limits: self.limits,
            degraded: self.degraded.clone(),
        }
    }
}

/// One listener of a jail, without any key: that comes from the settings of the day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listener {
    /// Inside.
    pub(crate) port: u16,
    /// Name of the model provider; none: the proxy.
    pub(crate) model: Option<String>,
}

/// A directory of the host inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SandboxMount {
    /// On the host.
    pub(crate) source: PathBuf,
    /// Inside.
    pub(crate) target: PathBuf,
    /// Whether it is written to.
    pub(crate) writable: bool,
    /// What the source was when it was checked: which directory, and whose.
    pub(crate) dir: HostDir,
}
