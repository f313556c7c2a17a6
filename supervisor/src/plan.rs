//! From a session to its [`JailPlan`]: pure, apart from looking which of the host's directories exist.

use std::collections::BTreeMap;

use agentapi_shared::api::NetworkMode;
use agentapi_shared::jail::{
    CgroupStep, DiskDir, ExecStep, FilterStep, HOME, HOSTNAME, JailMode, JailPlan, LandlockStep, Namespace, Rlimit,
    RlimitResource, SHIM_ID, SLOT_UID_BASE, SLOT_UIDS, SLOTS_MAX, ShimStep, WORKSPACE,
};

use crate::config::Exposure;
use crate::host::{Ids, Isolation};
use crate::sandbox::Sandbox;
use crate::workspace::HostDir;

mod environment;
mod root;
#[cfg(test)]
mod tests;

pub(crate) use environment::{program_dirs, visible};
pub(crate) use root::{own_paths, system_paths};

/// Open files of a process: what language servers and file watchers of large projects need.
const NOFILE: u64 = 8192;
/// Processes of a session: builds with many jobs fit, a fork bomb does not take the host.
const NPROC: u64 = 4096;
/// Bytes of a core dump, which holds secrets. Not 0: with a handler of dumps (`core_pattern` is a pipe) the kernel starts it as root on the host
/// for each crash inside, and only a limit of one byte keeps it from that.
const CORE: u64 = 1;
/// When the host runs out of memory, a jail goes before the daemons and most of what else runs there.
const OOM_SCORE_ADJ: u16 = 500;

/// What a plan is made from.
#[derive(Debug)]
pub(crate) struct PlanInput<'a> {
    pub(crate) isolation: Isolation,
    pub(crate) ids: Ids,
    pub(crate) sandbox: &'a Sandbox,
    /// How programs find the egress gateway.
    pub(crate) egress_env: &'a [(String, String)],
    /// Version of Landlock on this host; none: it is not used.
    pub(crate) landlock: Option<u32>,
    /// How init gets into its cgroups.
    pub(crate) cgroup: CgroupStep,
    pub(crate) exposure: &'a Exposure,
    pub(crate) slot: u32,
    pub(crate) home: Source<'a>,
    pub(crate) workspace: Source<'a>,
    /// Whether the workspace is a directory of the host and not of the session.
    pub(crate) foreign_workspace: bool,
    pub(crate) argv: Vec<String>,
    pub(crate) agent_env: &'a BTreeMap<String, String>,
    pub(crate) session_env: &'a BTreeMap<String, String>,
}

/// Where a directory of a session is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// On the host.
    Host(&'a HostDir),
    /// On the session's own disk, which only a jail can have.
    Disk(DiskDir),
}

impl Source<'_> {
    /// Its path for a program that is in no jail.
    fn bare_path(self) -> String {
        match self {
            Self::Host(dir) => dir.path.display().to_string(),
            Self::Disk(dir) => dir.name().to_owned(),
        }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// It would cover something else, or be led elsewhere.
    #[error("nothing can be mounted at {0} inside")]
    Target(String),
}

/// The plan.
pub(crate) fn plan(input: PlanInput<'_>) -> Result<JailPlan, PlanError> {
    let mode = match input.isolation {
        Isolation::Root => JailMode::Root { uid_base: uid_base(input.slot) },
        Isolation::User => JailMode::User,
        Isolation::None => return Ok(unjailed(input)),
    };
    let sandbox = input.sandbox;
    let filter = if sandbox.debuggers { FilterStep::Debuggers } else { FilterStep::Strict };
    let landlock = input.landlock.map(|abi| LandlockStep {
        abi,
        read_write: root::writable(&input),
        // A process renames its threads and adjusts itself there.
        write_existing: vec!["/proc".to_owned()],
    });
    let host_id = match mode {
        JailMode::Root { uid_base } => Some(uid_base + SHIM_ID),
        JailMode::User | JailMode::None => None,
    };
    Ok(JailPlan {
        mode,
        namespaces: namespaces(sandbox.network, input.ids),
        cgroup: input.cgroup,
        hostname: Some(HOSTNAME.to_owned()),
        listeners: sandbox.ports(),
        mounts: root::steps(&input, mode)?,
        rlimits: rlimits(sandbox.limits.pids),
        oom_score_adj: Some(OOM_SCORE_ADJ),
        landlock,
        filter: Some(filter),
        shim: Some(ShimStep { host_id }),
        exec: ExecStep { env: environment::environment(&input, HOME), argv: input.argv, cwd: WORKSPACE.to_owned() },
    })
}

/// No jail at all, by the operator's word.
fn unjailed(input: PlanInput<'_>) -> JailPlan {
    let home = input.home.bare_path();
    JailPlan {
        mode: JailMode::None,
        namespaces: Vec::new(),
        cgroup: input.cgroup,
        hostname: None,
        listeners: Vec::new(),
        mounts: Vec::new(),
        rlimits: rlimits(input.sandbox.limits.pids),
        oom_score_adj: None,
        landlock: None,
        filter: None,
        shim: None,
        exec: ExecStep {
            env: environment::environment(&input, &home),
            argv: input.argv,
            cwd: input.workspace.bare_path(),
        },
    }
}

fn namespaces(network: NetworkMode, ids: Ids) -> Vec<Namespace> {
    let mut namespaces = match ids {
        Ids::Mapped => vec![Namespace::User],
        Ids::OfHost => Vec::new(),
    };
    namespaces.extend([Namespace::Pid, Namespace::Mount, Namespace::Ipc, Namespace::Uts, Namespace::Cgroup]);
    if network != NetworkMode::Host {
        namespaces.push(Namespace::Network);
    }
    namespaces
}

/// First host id of a slot.
pub(crate) fn uid_base(slot: u32) -> u32 {
    SLOT_UID_BASE + slot * SLOT_UIDS
}

/// The slot that a host id belongs to; none: it is no session's.
pub(crate) fn slot_of(uid: u32) -> Option<u32> {
    uid.checked_sub(SLOT_UID_BASE).map(|offset| offset / SLOT_UIDS).filter(|slot| *slot < SLOTS_MAX)
}

fn rlimits(pids: Option<u32>) -> Vec<Rlimit> {
    let limit = |resource, value| Rlimit { resource, value };
    vec![
        limit(RlimitResource::Nofile, NOFILE),
        limit(RlimitResource::Nproc, pids.map_or(NPROC, |pids| NPROC.min(pids.into()))),
        limit(RlimitResource::Core, CORE),
        limit(RlimitResource::Memlock, 64 * 1024 * 1024),
        limit(RlimitResource::Msgqueue, 1024 * 1024),
        limit(RlimitResource::Sigpending, 4096),
    ]
}
