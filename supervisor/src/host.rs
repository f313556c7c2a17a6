//! Facts about this host, and what it can isolate: found out by doing, not by reading settings.

use std::fs;
use std::process::{Command, Stdio};

use agentapi_shared::link::HostFacts;
use nix::sys::utsname::uname;
use nix::unistd::geteuid;

use crate::agents;
use crate::config::Exposure;
use crate::versions::Versions;

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

/// What came of trying to isolate.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) isolation: Isolation,
    /// What failed, and the command that allows it.
    pub(crate) problem: Option<(String, String)>,
}

/// Makes the namespaces of a jail once, in a process that ends at once.
pub(crate) fn probe() -> Probe {
    let wanted = if geteuid().is_root() { Isolation::Root } else { Isolation::User };
    // unshare(1) is in every Debian and Ubuntu; it fails the way a jail would.
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true"]);
    let outcome = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let problem = match outcome {
        Ok(output) if output.status.success() => return Probe { isolation: wanted, problem: None },
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("unshare: {error}"),
    };
    Probe { isolation: Isolation::None, problem: Some((problem, remedy())) }
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
pub(crate) fn facts(isolation: Isolation, exposure: &Exposure, versions: &Versions) -> HostFacts {
    let name = uname().ok();
    let word =
        |text: Option<&std::ffi::OsStr>| text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    HostFacts {
        hostname: word(name.as_ref().map(|name| name.nodename())),
        boot_id: boot_id(),
        kernel: word(name.as_ref().map(|name| name.release())),
        arch: std::env::consts::ARCH.to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes(),
        isolation: isolation.as_str().to_owned(),
        workspace_roots: exposure.workspace_roots.iter().map(|root| root.display().to_string()).collect(),
        agents: agents::facts(exposure, versions),
    }
}

fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
