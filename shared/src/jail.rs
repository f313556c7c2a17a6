//! The jail of one spawn as pure data: typed steps in a fixed order, by mode. The supervisor makes a plan, prints it, compares it;
//! the shim's child applies it in one straight line and names the step that failed.
//!
//! The fields stand in the order in which they are applied. What a plan says is what is done: a step that cannot be is an error, never a smaller
//! jail. Which layers a host may do without is settled before the plan is made.

mod mounts;

use serde::{Deserialize, Serialize};

pub use mounts::compare as compare_mounts;

/// Host ids of session slots start here: above every distribution's users and subordinate ids.
pub const SLOT_UID_BASE: u32 = 0x4000_0000;
/// Host ids of one slot.
pub const SLOT_UIDS: u32 = 65_536;
/// Slots of one host: what fits below the reserved ids at the top of the 32-bit range.
pub const SLOTS_MAX: u32 = 32_000;
const _: () = assert!(SLOT_UID_BASE as u64 + SLOTS_MAX as u64 * SLOT_UIDS as u64 <= u32::MAX as u64 - 65_536);

/// The agent's uid and gid inside.
pub const AGENT_ID: u32 = 1000;
/// Ids of a slot that exist inside: all but the last.
pub const MAPPED_IDS: u32 = SLOT_UIDS - 1;
/// The shim's uid and gid in the slot's block, once the agent runs. Not mapped, so that nothing inside can ever have it or name it.
pub const SHIM_ID: u32 = SLOT_UIDS - 1;
const _: () = assert!(SHIM_ID >= MAPPED_IDS && AGENT_ID < MAPPED_IDS);
/// Name of the host inside.
pub const HOSTNAME: &str = "agentapi";
/// The agent's HOME inside.
pub const HOME: &str = "/home/agent";
/// The agent's working directory inside.
pub const WORKSPACE: &str = "/workspace";

/// How much the daemon can isolate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "mode")]
pub enum JailMode {
    /// The daemon is root: namespaces are made by real root, the user namespace is entered last, ids are a block of the session's own.
    Root {
        /// Host uid of id 0 inside.
        uid_base: u32,
    },
    /// The daemon is an ordinary user: its user namespace comes first, every session is that one user on the host.
    User,
    /// No isolation at all, by the operator's word.
    None,
}

/// A namespace to unshare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// Users and capabilities.
    User,
    /// Processes.
    Pid,
    /// Mounts.
    Mount,
    /// Interfaces, addresses, ports, abstract unix sockets.
    Network,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// The host's name.
    Uts,
    /// The view of cgroups: the jail's own is the root.
    Cgroup,
}

/// Everything the jail's init has to do, in the order in which it does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailPlan {
    /// Who makes the jail.
    pub mode: JailMode,
    /// What is unshared: at birth, but for `user` and `network` in root mode, which the shim makes meanwhile, and `cgroup`, which follows the jail
    /// into its cgroup.
    pub namespaces: Vec<Namespace>,
    /// How init gets into the cgroup that the supervisor made.
    #[serde(default)]
    pub cgroup: CgroupStep,
    /// Name of the host inside, where there is a UTS namespace.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Ports on 127.0.0.1 in the network namespace, and listeners there, which the shim keeps.
    #[serde(default)]
    pub listeners: Vec<u16>,
    /// The new root, from empty. Empty when there is no mount namespace.
    pub mounts: Vec<MountStep>,
    /// Limits of the agent's processes.
    pub rlimits: Vec<Rlimit>,
    /// How much sooner than others the jail is killed when the host runs out of memory, from 0 to 1000.
    #[serde(default)]
    pub oom_score_adj: Option<u16>,
    /// Rules of the file system beneath the mounts, and scopes; none where the host lacks it and may.
    #[serde(default)]
    pub landlock: Option<LandlockStep>,
    /// The filter of the agent's system calls.
    #[serde(default)]
    pub filter: Option<FilterStep>,
    /// What the shim gives up once the agent runs; none: nothing.
    #[serde(default)]
    pub shim: Option<ShimStep>,
    /// What is executed.
    pub exec: ExecStep,
}

impl JailPlan {
    /// Whether the jail has a namespace of this kind.
    #[must_use]
    pub fn has(&self, namespace: Namespace) -> bool {
        self.namespaces.contains(&namespace)
    }

    /// Whether the session has a disk of its own, whose mount is the last descriptor of the start message.
    #[must_use]
    pub fn has_disk(&self) -> bool {
        self.mounts.iter().any(|step| matches!(step, MountStep::Disk { .. }))
    }
}

/// See [`JailPlan::cgroup`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupStep {
    /// Born in the cgroup v2 directory whose descriptor is the third of the start message.
    pub born_in: bool,
    /// Waits until the supervisor has put it into cgroups (v1): see [`crate::shim::ShimStarted::Born`].
    pub attach: bool,
}

/// See [`JailPlan::landlock`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockStep {
    /// Version of the kernel's interface; all that it knows is used, no less.
    pub abi: u32,
    /// Beneath these directories, and for these files, everything that file permissions allow. Beneath all others only reading and executing.
    pub read_write: Vec<String>,
    /// Beneath these files may be written that are there, and none made: `/proc`.
    pub write_existing: Vec<String>,
}

/// See [`JailPlan::filter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterStep {
    /// Nothing that reaches into another process.
    Strict,
    /// The same with `ptrace` and `process_vm_*`, for debuggers.
    Debuggers,
}

/// See [`JailPlan::shim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimStep {
    /// Host uid and gid that it takes, in root mode.
    pub host_id: Option<u32>,
}

/// One step of the new root. Targets are absolute paths inside it; parents are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum MountStep {
    /// A file or directory of the host.
    Bind {
        /// On the host.
        source: String,
        /// Inside.
        target: String,
        /// Whether writing is refused.
        read_only: bool,
        /// What the source must be, for paths that somebody else could exchange meanwhile.
        identity: Option<FileIdentity>,
        /// Ids on disk and in the jail, where they differ.
        idmap: Option<IdMap>,
    },
    /// A directory of the session's own disk, whose mount comes with the start message.
    Disk {
        /// On the disk.
        dir: DiskDir,
        /// Inside.
        target: String,
    },
    /// A character device of the host, which must be the one that its name says.
    Device {
        /// Path on the host and inside.
        path: String,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Inside.
        target: String,
        /// The most it holds.
        size_bytes: u64,
        /// Mode of its root.
        mode: u32,
        /// Id inside that its root belongs to, in root mode; for an ordinary user there is only one.
        owner: u32,
    },
    /// An empty directory in what is mounted there already.
    Directory {
        /// Inside.
        target: String,
        /// Its mode.
        mode: u32,
        /// Id inside that it belongs to, in root mode; for an ordinary user there is only one.
        owner: u32,
    },
    /// The jail's own process list.
    Proc {
        /// Inside.
        target: String,
    },
    /// Something in `/proc` that is nobody's business: a file reads as empty, a directory as well. What this kernel does not have needs none. The
    /// device `/dev/null` must be there by then.
    Mask {
        /// Inside.
        target: String,
    },
    /// A directory that is there already, with all below it, is only read from here on. What this kernel does not have needs none.
    ReadOnly {
        /// Inside.
        target: String,
    },
    /// The jail's own terminals.
    DevPts {
        /// Inside.
        target: String,
        /// The most terminals.
        max: u32,
    },
    /// A symbolic link.
    Symlink {
        /// Inside.
        target: String,
        /// What it points to.
        to: String,
    },
    /// A file made for the jail.
    File {
        /// Inside.
        target: String,
        /// Its text.
        content: String,
    },
    /// From here on nothing below the target can be changed, except other mounts.
    SealReadOnly {
        /// Inside.
        target: String,
    },
}

/// What there is on a session's own disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskDir {
    /// The agent's HOME.
    Home,
    /// Its workspace, unless that is a directory of the host.
    Workspace,
}

impl DiskDir {
    /// Name in the root of the disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Workspace => "workspace",
        }
    }
}

/// Which file a path was when the plan was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

/// One owner on disk shown as the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// Owner on disk.
    pub disk_uid: u32,
    /// Group on disk.
    pub disk_gid: u32,
    /// Host uid of the agent.
    pub host_uid: u32,
    /// Host gid of the agent.
    pub host_gid: u32,
}

/// A limit of `setrlimit(2)`, soft and hard alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Which.
    pub resource: RlimitResource,
    /// The limit.
    pub value: u64,
}

/// What an [`Rlimit`] limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RlimitResource {
    /// Open files of a process.
    Nofile,
    /// Processes of the session's user.
    Nproc,
    /// Bytes of a core dump.
    Core,
    /// Bytes of locked memory.
    Memlock,
    /// Bytes in POSIX message queues.
    Msgqueue,
    /// Queued signals.
    Sigpending,
}

/// The program.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStep {
    /// Program and arguments. Without a slash the program is looked up in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment; may hold secrets.
    pub env: Vec<(String, String)>,
    /// Working directory inside.
    pub cwd: String,
}

impl std::fmt::Debug for ExecStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ExecStep").field("argv", &self.argv).field("env", &names).field("cwd", &self.cwd).finish()
    }
}
