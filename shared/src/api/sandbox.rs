//! What a session may ask of its sandbox, and what it was given. A request only ever tightens what the host's profile allows.

use serde::{Deserialize, Serialize};

/// Profile of a session that names none.
pub const DEFAULT_PROFILE: &str = "dev";

/// Characters of a profile's name.
pub const PROFILE_CHARS_MAX: usize = 64;

/// Whether a profile may have this name: letters, digits, hyphens and underscores.
#[must_use]
pub fn is_profile_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= PROFILE_CHARS_MAX && name.chars().all(plain)
}
/// Directories of the host that one session may ask for.
pub const MOUNTS_MAX: usize = 32;
/// Bytes of a path, as the kernel has it.
pub const PATH_BYTES_MAX: usize = 4096;
/// Below this a shell and a build tool do not start.
pub const MEMORY_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// The same: the jail's init, a shell and a pipe of programs.
pub const PIDS_MIN: u32 = 8;
/// The kernel counts in slices of a millisecond; below this a terminal does not answer.
pub const CPU_PERCENT_MIN: u32 = 1;
/// The same as for memory: a file system with room for a HOME.
pub const DISK_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Slower than any disk; below this nothing is ever read.
pub const IO_BYTES_PER_SECOND_MIN: u64 = 64 * 1024;

/// Part of `POST /api/v1/sessions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SandboxRequest {
    /// A profile of the host; `dev` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The profile's if absent; never more open than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkMode>,
    /// Directories of the host, each below one that the host allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountRequest>,
    /// Lower than the profile's; what is absent is the profile's.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

/// Where a session's programs may connect to. The order is from closed to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Nowhere.
    Off,
    /// Through the egress gateway, to what its rules allow.
    Filtered,
    /// The host's own network: no isolation at all.
    Host,
}

impl NetworkMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Off, Self::Filtered, Self::Host];

    /// As requests and settings have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Filtered => "filtered",
            Self::Host => "host",
        }
    }
}

/// A directory of the host inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MountRequest {
    /// Absolute, on the host.
    pub source: String,
    /// Absolute, inside; the source's path if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether it is written to; only where the host allows that.
    #[serde(default)]
    pub writable: bool,
}

/// What a session may use. An absent limit is that of the profile, in a posture: there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory and swap together, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Processor time in percent of one core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Workspace (`empty` ones) and HOME together, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Reading and writing of disks, each, in bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_bytes_per_second: Option<u64>,
}

impl Limits {
    /// No limit at all.
    pub const NONE: Self =
        Self { memory_bytes: None, pids: None, cpu_percent: None, disk_bytes: None, io_bytes_per_second: None };

    /// Every limit by its name, with the least it may be and what it is.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64, Option<u64>); 5] {
        [
            ("memory_bytes", MEMORY_BYTES_MIN, self.memory_bytes),
            ("pids", PIDS_MIN.into(), self.pids.map(u64::from)),
            ("cpu_percent", CPU_PERCENT_MIN.into(), self.cpu_percent.map(u64::from)),
            ("disk_bytes", DISK_BYTES_MIN, self.disk_bytes),
            ("io_bytes_per_second", IO_BYTES_PER_SECOND_MIN, self.io_bytes_per_second),
        ]
    }

    /// The first limit that is higher than the most it may be: its name, what it is, and that.
    #[must_use]
    pub fn beyond(&self, most: &Self) -> Option<(&'static str, u64, u64)> {
        let pairs = self.named().into_iter().zip(most.named());
        pairs
            .filter_map(|((name, _, this), (_, _, most))| Some((name, this?, most?)))
            .find(|(_, this, most)| this > most)
    }

    /// What is set here, and for the rest what is set there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.or(other.memory_bytes),
            pids: self.pids.or(other.pids),
            cpu_percent: self.cpu_percent.or(other.cpu_percent),
            disk_bytes: self.disk_bytes.or(other.disk_bytes),
            io_bytes_per_second: self.io_bytes_per_second.or(other.io_bytes_per_second),
        }
    }

    /// Of each limit the lower one.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        fn lower<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.into_iter().chain(other).min()
        }
        Self {
            memory_bytes: lower(self.memory_bytes, other.memory_bytes),
            pids: lower(self.pids, other.pids),
            cpu_percent: lower(self.cpu_percent, other.cpu_percent),
            disk_bytes: lower(self.disk_bytes, other.disk_bytes),
            io_bytes_per_second: lower(self.io_bytes_per_second, other.io_bytes_per_second),
        }
    }

    /// Whether it limits nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What may be missing of the whole isolation, in the order of a posture. A host of another release may have other words.
pub const DEGRADED_WORDS: [&str; 11] = [
    "landlock",
    "landlock-abi-1",
    "landlock-abi-2",
    "landlock-abi-3",
    "landlock-abi-4",
    "landlock-abi-5",
    "userns",
    "cgroup-hybrid",
    "no-cgroup",
    "no-disk-quota",
    "one-uid",
];

/// How a spawn is isolated, as its host built it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Posture {
    /// `root`, `user` or `none`.
    pub isolation: String,
    /// Name of the profile.
    pub profile: String,
    /// Its network.
    pub network: NetworkMode,
    /// Limits that are in force.
    pub limits: Limits,
    /// What is missing of the whole, such as `landlock-abi-2` or `no-disk-quota`: every word is one that the operator allowed.
    pub degraded: Vec<String>,
}
