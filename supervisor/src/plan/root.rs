//! The root of a jail, step by step: what of the host is shown, what is made for it, what is hidden.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agentapi_shared::jail::{AGENT_ID, HOME, HOSTNAME, IdMap, JailMode, MountStep, WORKSPACE};

use super::{PlanError, PlanInput, Source};
use crate::host::Ids;
use crate::sandbox::SandboxMount;
use crate::workspace::{HostDir, is_plain};

/// Bytes in /tmp, which is memory.
const TMP_BYTES: u64 = 1024 * 1024 * 1024;
/// Bytes in /dev/shm, which browsers and databases use.
const SHM_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes of directories that only hold sockets and lock files.
const RUN_BYTES: u64 = 16 * 1024 * 1024;
/// Where programs put sockets that are nobody else's business.
pub(super) const RUNTIME_DIR: &str = "/run/user/1000";
/// Terminals of a session: its own and those of tmux or script inside.
const PTS_MAX: u32 = 64;

/// Bytes of a file of /etc that is copied instead of mounted: with all of [`ETC`] far below what a start message takes.
const COPIED_BYTES_MAX: u64 = 4096;

/// Directories of the system that a session sees, read-only.
pub(super) const SYSTEM_DIRS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix"];
/// What of /etc a session sees, read-only: what programs need to run, nothing that says who uses this host.
const ETC: [&str; 34] = [
    "alternatives",
    "bash.bashrc",
    "bash_completion",
    "bash_completion.d",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "java-17-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "locale.alias",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "pki",
    "profile",
    "profile.d",
    "protocols",
    "resolv.conf",
    "rpc",
    "services",
    "shells",
    "ssl",
    "terminfo",
    "timezone",
    "vim",
];
/// Devices that hold no data of anyone, with their numbers.
const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];
/// What of /proc tells of the host's memory, keys, timers and drivers, or commands it.
const MASKED: [&str; 17] = [
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "kallsyms",
    "kpagecount",
    "kpageflags",
    "kpagecgroup",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "latency_stats",
    "interrupts",
    "sysrq-trigger",
    "acpi",
    "scsi",
    "asound",
];
/// What of /proc programs read and nobody may set.
const READ_ONLY: [&str; 4] = ["sys", "bus", "fs", "irq"];
/// What programs write to themselves, where file permissions let them.
const SCRATCH: [&str; 4] = ["/tmp", "/run", "/dev/shm", "/dev/pts"];
/// Where no mount of a session goes, nor above nor below: what is made for the jail, and what the agent writes. Below the latter a link that the
/// agent of an earlier spawn has left there would lead the mount, made by root, elsewhere.
const RESERVED: [&str; 8] = ["/proc", "/sys", "/dev", "/etc", "/run", "/var/tmp", HOME, WORKSPACE];

/// What the jail itself makes or shows: nothing is put over it, and nothing into it.
pub(crate) fn own_paths() -> impl Iterator<Item = &'static str> {
    RESERVED.into_iter().chain(SYSTEM_DIRS)
}

/// What every session sees of the system.
pub(crate) fn system_paths() -> impl Iterator<Item = PathBuf> {
    SYSTEM_DIRS.iter().map(PathBuf::from).chain(ETC.iter().map(|name| Path::new("/etc").join(name)))
}

/// Every step, in order.
pub(super) fn steps(input: &PlanInput<'_>, mode: JailMode) -> Result<Vec<MountStep>, PlanError> {
    let mut steps = Vec::new();
    for dir in SYSTEM_DIRS {
        steps.extend(system_dir(Path::new(dir)));
    }
    for name in ETC {
        steps.extend(setting(Path::new("/etc").join(name)));
    }
    steps.extend(files(agent_id(input.ids, mode)));
    // Devices first: one of them is the mask of what /proc must not show.
    steps.extend(devices());
    steps.extend(proc());
    steps.push(tmpfs("/tmp", TMP_BYTES, 0o1777));
    steps.push(tmpfs("/run", RUN_BYTES, 0o755));
    steps.push(MountStep::Directory { target: RUNTIME_DIR.to_owned(), mode: 0o700, owner: AGENT_ID });
    steps.push(MountStep::Symlink { target: "/var/tmp".to_owned(), to: "../tmp".to_owned() });
    // After what would cover them. A path below another one, or below the system's, is there already.
    let mut shown: Vec<&Path> = SYSTEM_DIRS.iter().map(Path::new).collect();
    for path in &input.exposure.read_only_paths {
        if path.is_absolute() && path.exists() && !shown.iter().any(|above| path.starts_with(above)) {
            steps.push(read_only(&path.display().to_string()));
            shown.push(path);
        }
    }
    for (source, target, foreign) in [(input.home, HOME, false), (input.workspace, WORKSPACE, input.foreign_workspace)]
    {
        steps.push(match (source, mode) {
            (Source::Disk(dir), _) => MountStep::Disk { dir, target: target.to_owned() },
            (Source::Host(dir), JailMode::Root { uid_base }) if foreign => {
                bind_dir(dir, target, Some(as_owner(dir, uid_base)))
            }
            (Source::Host(dir), _) => bind_dir(dir, target, None),
        });
    }
    for mount in &input.sandbox.mounts {
        steps.push(extra(mount, mode)?);
    }
    steps.push(MountStep::SealReadOnly { target: "/dev".to_owned() });
    steps.push(MountStep::SealReadOnly { target: "/".to_owned() });
    Ok(steps)
}

/// Where Landlock lets the agent write: everything that is mounted for that.
pub(super) fn writable(input: &PlanInput<'_>) -> Vec<String> {
    let fixed = [HOME, WORKSPACE].into_iter().chain(SCRATCH).chain(DEVICES.map(|(path, _, _)| path));
    let extra = input.sandbox.mounts.iter().filter(|mount| mount.writable);
    fixed.map(str::to_owned).chain(extra.map(|mount| mount.target.display().to_string())).collect()
}

/// A directory of the host that the session asked for and may have.
fn extra(mount: &SandboxMount, mode: JailMode) -> Result<MountStep, PlanError> {
    let source = mount.source.display().to_string();
    // As it was when it was checked, not what has its name by now.
    let dir = &mount.dir;
    let target = mount.target.display().to_string();
    let mut taken = own_paths().map(Path::new);
    let collides = taken.any(|taken| mount.target.starts_with(taken) || taken.starts_with(&mount.target));
    if !is_plain(&mount.target) || collides {
        return Err(PlanError::Target(target));
    }
    if !mount.writable {
        return Ok(MountStep::Bind { source, target, read_only: true, identity: Some(dir.identity), idmap: None });
    }
    let idmap = match mode {
        JailMode::Root { uid_base } => Some(as_owner(dir, uid_base)),
        JailMode::User | JailMode::None => None,
    };
    Ok(bind_dir(dir, &target, idmap))
}

/// What is written there belongs to the directory's owner.
fn as_owner(dir: &HostDir, uid_base: u32) -> IdMap {
    let agent = uid_base + AGENT_ID;
    IdMap { disk_uid: dir.uid, disk_gid: dir.gid, host_uid: agent, host_gid: agent }
}

/// A system directory as it is on the host: a directory, a link into another one, or nothing.
fn system_dir(path: &Path) -> Option<MountStep> {
    let target = path.display().to_string();
    if let Ok(to) = std::fs::read_link(path) {
        return Some(MountStep::Symlink { target, to: to.display().to_string() });
    }
    path.is_dir().then(|| read_only(&target))
}

/// Something of /etc as it is now. A small file is copied, as a mount costs more than its text; what only some may read is left to the mount.
fn setting(path: PathBuf) -> Option<MountStep> {
    let found = std::fs::metadata(&path).ok()?;
    let target = path.display().to_string();
    let small = found.is_file() && found.len() <= COPIED_BYTES_MAX && found.mode() & 0o004 != 0;
    let content = small.then(|| std::fs::read_to_string(&path).ok()).flatten();
    let copied = content.filter(|content| content.len() as u64 <= COPIED_BYTES_MAX);
    Some(match copied {
        Some(content) => MountStep::File { target, content },
        None => read_only(&target),
    })
}

fn read_only(path: &str) -> MountStep {
    MountStep::Bind { source: path.to_owned(), target: path.to_owned(), read_only: true, identity: None, idmap: None }
}

fn bind_dir(dir: &HostDir, target: &str, idmap: Option<IdMap>) -> MountStep {
    let source = dir.path.display().to_string();
    MountStep::Bind { source, target: target.to_owned(), read_only: false, identity: Some(dir.identity), idmap }
}

fn tmpfs(target: &str, size_bytes: u64, mode: u32) -> MountStep {
    MountStep::Tmpfs { target: target.to_owned(), size_bytes, mode, owner: 0 }
}

/// The agent's uid and gid, as it sees them.
fn agent_id(ids: Ids, mode: JailMode) -> u32 {
    match (ids, mode) {
        (Ids::OfHost, JailMode::Root { uid_base }) => uid_base + AGENT_ID,
        _ => AGENT_ID,
    }
}

/// Files of the jail's own.
fn files(agent: u32) -> impl Iterator<Item = MountStep> {
    let passwd = format!(
        "root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{agent}:{agent}:agent:{HOME}:/bin/bash\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    );
    let group = format!("root:x:0:\ntty:x:5:\nagent:x:{agent}:\nnogroup:x:65534:\n");
    let hosts = format!("127.0.0.1 localhost {HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback\n");
    [("/etc/passwd", passwd), ("/etc/group", group), ("/etc/hosts", hosts)]
        .into_iter()
        .map(|(target, content)| MountStep::File { target: target.to_owned(), content })
}

/// The jail's own process list, without what is not its own.
fn proc() -> Vec<MountStep> {
    let mut steps = vec![MountStep::Proc { target: "/proc".to_owned() }];
    steps.extend(MASKED.map(|name| MountStep::Mask { target: format!("/proc/{name}") }));
    steps.extend(READ_ONLY.map(|name| MountStep::ReadOnly { target: format!("/proc/{name}") }));
    steps
}

fn devices() -> Vec<MountStep> {
    let mut steps = vec![tmpfs("/dev", 64 * 1024, 0o755)];
    steps.extend(DEVICES.map(|(path, major, minor)| MountStep::Device { path: path.to_owned(), major, minor }));
    steps.push(MountStep::DevPts { target: "/dev/pts".to_owned(), max: PTS_MAX });
    steps.push(tmpfs("/dev/shm", SHM_BYTES, 0o1777));
    let links = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    steps.extend(links.map(|(name, to)| MountStep::Symlink { target: format!("/dev/{name}"), to: to.to_owned() }));
    steps
}
