//! What the parts of the daemon share. It knows none of those who use it.

use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};

use agentapi_shared::link::HostFacts;
use agentapi_shared::runtime::TaskGroup;

use crate::cgroup::Cgroups;
use crate::config::Exposure;
use crate::gateway::Gateway;
use crate::host::{self, Ground};
use crate::outbox::Outbox;
use crate::private::Private;
use crate::self_test::SelfTest;
use crate::settings::Settings;
use crate::shim_client::ReadBuffer;
use crate::slots::Slots;
use crate::streams::StreamTable;
use crate::uplink::LinkSender;
use crate::versions::Versions;

/// See the module.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) state_dir: PathBuf,
    pub(crate) shim: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) ground: Ground,
    /// Whether the sandbox is known to hold.
    pub(crate) self_test: SelfTest,
    pub(crate) cgroups: Cgroups,
    pub(crate) unsafe_no_jail: bool,
    pub(crate) exposure: Exposure,
    pub(crate) private: Private,
    pub(crate) journal_bytes_max: u64,
    pub(crate) boot_id: String,
    pub(crate) link: LinkSender,
    pub(crate) streams: Arc<StreamTable>,
    pub(crate) shim_bytes: ReadBuffer,
    pub(crate) outbox: Outbox,
    pub(crate) gateway: Gateway,
    pub(crate) reaper: Reaper,
    pub(crate) slots: Slots,
    pub(crate) versions: Versions,
    pub(crate) tasks: TaskGroup,
}

impl Context {
    /// What the control plane is told of this host, as it is now.
    pub(crate) fn facts(&self) -> HostFacts {
        host::facts(&self.ground, &self.settings, &self.exposure, &self.versions)
    }
}

/// Waits for shims that end while we live, so that none stays a zombie. Their exit status says nothing: their records do.
#[derive(Debug, Default)]
pub(crate) struct Reaper(Mutex<Vec<Child>>);

impl Reaper {
    pub(crate) fn keep(&self, shim: Child) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(shim);
    }

    pub(crate) fn reap(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|shim| matches!(shim.try_wait(), Ok(None)));
    }
}
