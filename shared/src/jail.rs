//! The jail of one spawn as pure data: typed steps in a fixed order, by mode. The supervisor makes a plan, prints it, compares it;
//! the shim's child applies it in one straight line and names the step that failed.
//!
//! Layers that exist today: user, pid and mount namespaces, a minimal root, a PTY of the jail's own, ids, rlimits, environment, no set-ID files.
//! Network, IPC, UTS and cgroup namespaces, Landlock and the rest of seccomp are further [`Namespace`]s and further fields of the plan.

use serde::{Deserialize, Serialize};

/// Host ids of session slots start here: above every distribution's users and subordinate ids.
pub const SLOT_UID_BASE: u32 = 0x4000_0000;
/// Host ids of one slot.
pub const SLOT_UIDS: u32 = 65_536;
/// Slots of one host: what fits below the reserved ids at the top of the 32-bit range.
pub const SLOTS_MAX: u32 = 32_000;
const _: () = assert!(SLOT_UID_BASE as u64 + SLOTS_MAX as u64 * SLOT_UIDS as u64 <= u32::MAX as u64 - 65_536);

/// The agent's uid and gid inside.
pub const AGENT_ID: u32 = 1000;
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
}

/// Everything the jail's init has to do, in the order in which it does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailPlan {
    /// Who makes the jail.
    pub mode: JailMode,
    /// What is unshared at birth, or for `user` in root mode entered last.
    pub namespaces: Vec<Namespace>,
    /// The new root, from empty. Empty when there is no mount namespace.
    pub mounts: Vec<MountStep>,
    /// Whether the agent is kept from making set-user-ID and set-group-ID files: the first rule of the system call filter.
    #[serde(default)]
    pub forbid_set_id: bool,
    /// Limits of the agent's processes.
    pub rlimits: Vec<Rlimit>,
    /// What is executed.
    pub exec: ExecStep,
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
    /// The jail's own process list.
    Proc {
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
