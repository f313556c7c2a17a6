//! Facts about this host, and what it can isolate: found out by doing, not by reading settings.

pub(crate) mod landlock;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use agentapi_shared::api::Limits;
use agentapi_shared::link::HostFacts;
use nix::sys::utsname::uname;
use nix::unistd::geteuid;

use crate::agents;
use crate::cgroup::{Cgroups, Control};
use crate::config::Exposure;
use crate::disk;
use crate::posture::{self, LANDLOCK_ABI_WHOLE, Missing};
use crate::settings::Settings;
use crate::sys;
use crate::versions::Versions;

/// A probe that takes longer will not end.
const PROBE_SECONDS_MAX: &str = "5";
/// Detached and id-mapped mounts came with this one.
pub(crate) const IDMAP_KERNEL: (u32, u32) = (5, 12);

/// How sessions are isolated here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// By real root: a block of ids for each session.
    Root,
    /// By an ordinary user: every session is that one user on the host.
    User,
    /// Not at all.
    None,
}

impl Isolation {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
            Self::None => "none",
        }
    }
}

/// What ids are inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Others than on the host, by a user namespace.
    Mapped,
    /// The host's own: those of the session's block, as they are.
    OfHost,
}

/// What sessions can be built on here.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) isolation: Isolation,
    /// What failed of the namespaces, and the command that allows it.
    pub(crate) problem: Option<(String, String)>,
    /// What is missing of the whole, allowed or not.
    pub(crate) missing: BTreeSet<Missing>,
    /// What control groups can limit.
    pub(crate) control: Control,
    /// The kernel's Landlock ABI; 0: it has none.
    pub(crate) landlock_abi: u32,
    /// Why sessions cannot have a disk of their own; none: they can.
    pub(crate) no_disk: Option<String>,
}

impl Ground {
    /// Tries everything out, with disks below a directory.
    pub(crate) fn probe(cgroups: &Cgroups, settings: &Settings, disks: &Path) -> Self {
        let root = geteuid().is_root();
        let mut missing = BTreeSet::new();
        // Without filters nothing is started at all: sockets to the hypervisor and other terminals would be open.
        let namespaces = filters().and_then(|()| try_namespaces(true));
        let isolation = match (&namespaces, root) {
            (Ok(()), true) => Isolation::Root,
            (Ok(()), false) => Isolation::User,
            // Real root can do without them, if its operator says so.
            (Err(_), true)
                if settings.allow_degraded.contains(&Missing::UserNamespaces) && without_user_namespace() =>
            {
                missing.insert(Missing::UserNamespaces);
                Isolation::Root
            }
            (Err(_), _) => Isolation::None,
        };
        let landlock_abi = landlock::version().unwrap_or(0);
        match landlock_abi {
            0 => missing.insert(Missing::Landlock),
            abi if abi < LANDLOCK_ABI_WHOLE => missing.insert(Missing::LandlockAbi(abi)),
            _ => false,
        };
        let control = cgroups.control();
        match control {
            Control::None => missing.insert(Missing::Cgroup),
            Control::Hybrid => missing.insert(Missing::CgroupHybrid),
            Control::V2 { memory: true, pids: true, cpu: true, .. } => false,
            Control::V2 { .. } => missing.insert(Missing::Cgroup),
        };
        let no_disk = match isolation {
            Isolation::Root => disk::probe(disks).err().map(|error| crate::chain(&error)),
            Isolation::User => Some("an ordinary user cannot mount file systems".to_owned()),
            Isolation::None => Some("there are no sessions to give disks to".to_owned()),
        };
        if no_disk.is_some() {
            missing.insert(Missing::DiskQuota);
        }
        if !root {
            missing.insert(Missing::OneUid);
        }
        Self { isolation, problem: namespaces.err(), missing, control, landlock_abi, no_disk }
    }

    /// What the ids of sessions are.
    pub(crate) fn ids(&self) -> Ids {
        if self.missing.contains(&Missing::UserNamespaces) { Ids::OfHost } else { Ids::Mapped }
    }

    /// Version of Landlock for plans; none where there is none.
    pub(crate) fn landlock(&self) -> Option<u32> {
        (self.landlock_abi > 0).then_some(self.landlock_abi)
    }

    /// Whether a limit by this name, one of `Limits::named`, would be kept.
    pub(crate) fn keeps(&self, limit: &str) -> bool {
        if limit == "disk_bytes" { !self.missing.contains(&Missing::DiskQuota) } else { self.control.keeps(limit) }
    }

    /// What of some limits would be kept.
    pub(crate) fn kept(&self, limits: &Limits) -> Limits {
        Limits {
            memory_bytes: limits.memory_bytes.filter(|_| self.keeps("memory_bytes")),
            pids: limits.pids.filter(|_| self.keeps("pids")),
            cpu_percent: limits.cpu_percent.filter(|_| self.keeps("cpu_percent")),
            disk_bytes: limits.disk_bytes.filter(|_| self.keeps("disk_bytes")),
            io_bytes_per_second: limits.io_bytes_per_second.filter(|_| self.keeps("io_bytes_per_second")),
        }
    }
}

fn without_user_namespace() -> bool {
    filters().and_then(|()| try_namespaces(false)).is_ok()
}

/// Whether the kernel has the actions that the filters of sessions use.
pub(crate) fn filters() -> Result<(), (String, String)> {
    for (action, name) in [(libc::SECCOMP_RET_KILL_PROCESS, "kill_process"), (libc::SECCOMP_RET_ERRNO, "errno")] {
        sys::seccomp_can(action).map_err(|error| {
            (format!("seccomp action {name}: {error}"), "run a kernel with CONFIG_SECCOMP_FILTER".to_owned())
        })?;
    }
    Ok(())
}

/// Makes the namespaces of a jail once, in a process that ends at once. The problem comes with what mends it.
fn try_namespaces(user: bool) -> Result<(), (String, String)> {
    // unshare(1) is in every Debian and Ubuntu; it fails the way a jail would.
    let mut command = Command::new("timeout");
    command.args(["-k", "1", PROBE_SECONDS_MAX, "unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"]);
    command.args(["--fork", "--mount-proc"]).args(user.then_some("--user")).args(user.then_some("--map-root-user"));
    let outcome = command.arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let problem = match outcome {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) if output.stderr.is_empty() => format!("unshare ended with {}", output.status),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("unshare: {error}"),
    };
    Err((problem, remedy()))
}

/// Release of the running kernel.
pub(crate) fn kernel() -> String {
    uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Its first two numbers.
pub(crate) fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The command that allows user namespaces, by what this host says forbids them.
fn remedy() -> String {
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|text| text.trim().to_owned());
    if setting("user/max_user_namespaces").as_deref() == Some("0") {
        return "sudo sysctl -w user.max_user_namespaces=15000".to_owned();
    }
    if setting("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1".to_owned();
    }
    if setting("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".to_owned();
    }
    "sudo apt-get install util-linux, then run as root (sudo), or outside of a container that forbids user namespaces"
        .to_owned()
}

/// Changes with each boot.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// What the control plane is told.
pub(crate) fn facts(ground: &Ground, settings: &Settings, exposure: &Exposure, versions: &Versions) -> HostFacts {
    let name = uname().ok();
    let word =
        |text: Option<&std::ffi::OsStr>| text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    HostFacts {
        hostname: word(name.as_ref().map(|name| name.nodename())),
        boot_id: boot_id(),
        kernel: kernel(),
        arch: std::env::consts::ARCH.to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes(),
        isolation: ground.isolation.as_str().to_owned(),
        workspace_roots: exposure.workspace_roots.iter().map(|root| root.display().to_string()).collect(),
        profiles: settings.profiles.keys().cloned().collect(),
        degraded: posture::words(&ground.missing),
        agents: agents::facts(exposure, versions),
    }
}

fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
