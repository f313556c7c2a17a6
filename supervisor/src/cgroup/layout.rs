//! Which groups a session has and what is written into them: pure, from what the kernel says of its mounts and of us.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agentapi_shared::SessionId;
use agentapi_shared::api::Limits;
use serde::{Deserialize, Serialize};

/// Window of the processor limit, in microseconds; the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel counts memory in pages; the largest page of a supported machine has this many bytes.
const PAGE_BYTES_MAX: u64 = 64 * 1024;
/// v1 controllers that limit, in the order in which a process is put into them.
const HYBRID: [&str; 3] = ["memory", "pids", "cpu"];

/// What the groups of this host can limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// Nothing: there are no groups.
    None,
    /// Memory, processes and processor time, by v1.
    Hybrid,
    /// By v2, what of it is there.
    V2 { memory: bool, pids: bool, cpu: bool, io: bool },
}

impl Control {
    /// Everything.
    #[cfg(test)]
    pub(crate) const fn whole() -> Self {
        Self::V2 { memory: true, pids: true, cpu: true, io: true }
    }

    /// Whether a limit by this name, one of [`Limits::named`], is kept. Processes are, by `RLIMIT_NPROC`, also without groups.
    pub(crate) fn keeps(self, limit: &str) -> bool {
        match (self, limit) {
            (_, "pids") => true,
            (Self::None, _) => false,
            (Self::Hybrid, limit) => matches!(limit, "memory_bytes" | "cpu_percent"),
            (Self::V2 { memory, cpu, io, .. }, limit) => match limit {
                "memory_bytes" => memory,
                "cpu_percent" => cpu,
                "io_bytes_per_second" => io,
                _ => false,
            },
        }
    }
}

/// Where the groups of this supervisor are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Its directory in the v2 tree.
    pub(super) v2: PathBuf,
    /// Its directory below each v1 controller; none: v2 has the controllers.
    pub(super) hybrid: BTreeMap<&'static str, PathBuf>,
}

/// What has to be made for one session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CgroupPlan {
    /// Directories, parents first.
    pub(super) dirs: Vec<PathBuf>,
    /// Files, in order.
    pub(super) writes: Vec<Write>,
}

/// One value into one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Write {
    pub(crate) file: PathBuf,
    pub(crate) value: String,
    /// Whether the file may be missing.
    pub(crate) optional: bool,
    check: Check,
}

/// How a file shows what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Check {
    /// As it was written.
    Same,
    /// Rounded down to pages.
    Pages,
    /// Words in a list.
    Words,
}

impl Write {
    fn new(file: PathBuf, value: impl ToString, check: Check) -> Self {
        Self { file, value: value.to_string(), optional: false, check }
    }

    /// Whether a file that shows this holds the value.
    pub(crate) fn holds(&self, shown: &str) -> bool {
        let shown = shown.trim();
        match self.check {
            Check::Same => shown == self.value,
            Check::Pages => match (shown.parse::<u64>(), self.value.parse::<u64>()) {
                (Ok(shown), Ok(wanted)) => shown <= wanted && wanted - shown < PAGE_BYTES_MAX,
                _ => false,
            },
            Check::Words => {
                let all: Vec<&str> = shown.split_whitespace().collect();
                self.value.split_whitespace().all(|word| all.contains(&word.trim_start_matches('+')))
            }
        }
    }
}

/// Finds the trees: v2 with its own controllers, or v1 controllers beside a v2 tree. None if there is no v2 tree at all, or v1 lacks one.
pub(super) fn find(mountinfo: &str, own: &str, name: &str) -> Option<Layout> {
    let mut v2 = None;
    let mut v1: BTreeMap<&'static str, PathBuf> = BTreeMap::new();
    for line in mountinfo.lines() {
        // 36 35 98:0 /root /mount/point rw,... shared:1 - type source options
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1).unwrap_or_default());
        if kind == "cgroup2" {
            v2.get_or_insert_with(|| below(root, point, own_path(own, |id, _| id == "0"), name));
        } else if kind == "cgroup" {
            for controller in HYBRID.into_iter().filter(|known| options.split(',').any(|option| option == *known)) {
                let path = own_path(own, |_, names| names.split(',').any(|known| known == controller));
                v1.entry(controller).or_insert_with(|| below(root, point, path, name));
            }
        }
    }
    let v2 = v2?;
    if v1.is_empty() {
        return Some(Layout { v2, hybrid: v1 });
    }
    (v1.len() == HYBRID.len()).then_some(Layout { v2, hybrid: v1 })
}

/// Our own group in one hierarchy, from lines such as `4:memory:/path`.
fn own_path(own: &str, is: impl Fn(&str, &str) -> bool) -> &str {
    let found = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        is(id, names).then_some(path)
    });
    found.unwrap_or("/")
}

/// A group of this name below our own one, seen through a mount that shows the hierarchy from `root` on.
fn below(root: &str, point: &str, own: &str, name: &str) -> PathBuf {
    let seen = Path::new(own).strip_prefix(root).or_else(|_| Path::new(own).strip_prefix("/")).unwrap_or(Path::new(""));
    Path::new(point).join(seen).join(name)
}

impl Layout {
    /// The directory of this supervisor in each tree.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.v2).chain(self.hybrid.values()).map(PathBuf::as_path)
    }

    fn of(&self, session: SessionId) -> PathBuf {
        self.v2.join(session.to_string())
    }

    /// Every directory of a session, parents first.
    pub(super) fn dirs(&self, session: SessionId) -> Vec<PathBuf> {
        let own = self.of(session);
        let (shim, work) = (own.join("shim"), own.join("work"));
        let hybrid = self.hybrid.values().map(|dir| dir.join(session.to_string()));
        [own, shim, work].into_iter().chain(hybrid).collect()
    }

    /// The v2 group in which init and the agent are.
    pub(super) fn work(&self, session: SessionId) -> PathBuf {
        self.of(session).join("work")
    }

    /// The v1 groups in which they are.
    pub(super) fn limits(&self, session: SessionId) -> Vec<PathBuf> {
        let dirs = HYBRID.iter().filter_map(|name| self.hybrid.get(name));
        dirs.map(|dir| dir.join(session.to_string())).collect()
    }

    /// The v2 group in which the shim is. No limit is its own: v1 knows it only as whatever started it.
    pub(super) fn shim(&self, session: SessionId) -> PathBuf {
        self.of(session).join("shim")
    }

    /// What is made and written for a session. `disk`: the one that its traffic is limited on.
    pub(super) fn plan(&self, session: SessionId, limits: &Limits, disk: Option<(u64, u64)>) -> CgroupPlan {
        let writes = if self.hybrid.is_empty() {
            self.v2_writes(session, limits, disk)
        } else {
            self.v1_writes(session, limits)
        };
        CgroupPlan { dirs: self.dirs(session), writes }
    }

    fn v2_writes(&self, session: SessionId, limits: &Limits, disk: Option<(u64, u64)>) -> Vec<Write> {
        let own = self.of(session);
        let file = |name: &str| own.join("work").join(name);
        let mut controllers = Vec::new();
        let mut writes = Vec::new();
        if let Some(bytes) = limits.memory_bytes {
            controllers.push("+memory");
            writes.push(Write::new(file("memory.max"), bytes, Check::Pages));
            // One limit for both, so all of it is memory.
            writes.push(Write { optional: true, ..Write::new(file("memory.swap.max"), 0, Check::Same) });
            // An agent without its compiler is of no use to anyone: the whole session goes.
            writes.push(Write::new(file("memory.oom.group"), 1, Check::Same));
        }
        if let Some(pids) = limits.pids {
            controllers.push("+pids");
            writes.push(Write::new(file("pids.max"), pids, Check::Same));
        }
        if let Some(percent) = limits.cpu_percent {
            controllers.push("+cpu");
            let quota = u64::from(percent) * CPU_PERIOD_US / 100;
            writes.push(Write::new(file("cpu.max"), format!("{quota} {CPU_PERIOD_US}"), Check::Same));
        }
        if let (Some(bytes), Some((major, minor))) = (limits.io_bytes_per_second, disk) {
            controllers.push("+io");
            writes.push(Write::new(file("io.max"), format!("{major}:{minor} rbps={bytes} wbps={bytes}"), Check::Words));
        }
        if !controllers.is_empty() {
            let subtree = Write::new(own.join("cgroup.subtree_control"), controllers.join(" "), Check::Words);
            writes.insert(0, subtree);
        }
        writes
    }

    fn v1_writes(&self, session: SessionId, limits: &Limits) -> Vec<Write> {
        let file = |controller: &str, name: &str| {
            self.hybrid.get(controller).map(|dir| dir.join(session.to_string()).join(name)).unwrap_or_default()
        };
        let mut writes = Vec::new();
        if let Some(bytes) = limits.memory_bytes {
            writes.push(Write::new(file("memory", "memory.limit_in_bytes"), bytes, Check::Pages));
            let both = Write::new(file("memory", "memory.memsw.limit_in_bytes"), bytes, Check::Pages);
            writes.push(Write { optional: true, ..both });
        }
        if let Some(pids) = limits.pids {
            writes.push(Write::new(file("pids", "pids.max"), pids, Check::Same));
        }
        if let Some(percent) = limits.cpu_percent {
            writes.push(Write::new(file("cpu", "cpu.cfs_period_us"), CPU_PERIOD_US, Check::Same));
            let quota = u64::from(percent) * CPU_PERIOD_US / 100;
            writes.push(Write::new(file("cpu", "cpu.cfs_quota_us"), quota, Check::Same));
        }
        writes
    }
}
