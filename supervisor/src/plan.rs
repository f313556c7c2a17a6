//! From a session to its [`JailPlan`]: pure, apart from looking which of the host's system directories exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agentapi_shared::jail::{
    AGENT_ID, ExecStep, HOME, IdMap, JailMode, JailPlan, MountStep, Namespace, Rlimit, RlimitResource, SLOT_UID_BASE,
    SLOT_UIDS, WORKSPACE,
};

use crate::config::Exposure;
use crate::host::Isolation;
use crate::workspace::HostDir;

/// Open files of a process: what language servers and file watchers of large projects need.
const NOFILE: u64 = 8192;
/// Processes of a session: builds with many jobs fit, a fork bomb does not take the host.
const NPROC: u64 = 4096;
/// Bytes in /tmp, which is memory.
const TMP_BYTES: u64 = 1024 * 1024 * 1024;
/// Bytes in /dev/shm, which browsers and databases use.
const SHM_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes of directories that only hold sockets and lock files.
const RUN_BYTES: u64 = 16 * 1024 * 1024;
/// Where programs put sockets that are nobody else's business.
const RUNTIME_DIR: &str = "/run/user/1000";
/// Terminals of a session: its own and those of tmux or script inside.
const PTS_MAX: u32 = 64;

/// Directories of the system that a session sees, read-only.
const SYSTEM_DIRS: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix"];
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
/// Devices that hold no data of anyone.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What a plan is made from.
#[derive(Debug)]
pub(crate) struct PlanInput<'a> {
    pub(crate) isolation: Isolation,
    pub(crate) exposure: &'a Exposure,
    pub(crate) slot: u32,
    pub(crate) home: &'a HostDir,
    pub(crate) workspace: &'a HostDir,
    /// Whether the workspace is a directory of the host and not of the session.
    pub(crate) foreign_workspace: bool,
    pub(crate) argv: Vec<String>,
    pub(crate) agent_env: &'a BTreeMap<String, String>,
    pub(crate) session_env: &'a BTreeMap<String, String>,
}

/// The plan.
pub(crate) fn plan(input: PlanInput<'_>) -> JailPlan {
    let mode = match input.isolation {
        Isolation::Root => JailMode::Root { uid_base: uid_base(input.slot) },
        Isolation::User => JailMode::User,
        Isolation::None => JailMode::None,
    };
    let jailed = mode != JailMode::None;
    let (home, cwd) = if jailed {
        (HOME.to_owned(), WORKSPACE.to_owned())
    } else {
        (input.home.path.display().to_string(), input.workspace.path.display().to_string())
    };
    JailPlan {
        mode,
        namespaces: if jailed { vec![Namespace::User, Namespace::Pid, Namespace::Mount] } else { Vec::new() },
        mounts: if jailed { mounts(&input, mode) } else { Vec::new() },
        forbid_set_id: jailed,
        rlimits: rlimits(),
        exec: ExecStep { env: environment(&input, &home), argv: input.argv, cwd },
    }
}

/// First host id of a slot.
pub(crate) fn uid_base(slot: u32) -> u32 {
    SLOT_UID_BASE + slot * SLOT_UIDS
}

fn rlimits() -> Vec<Rlimit> {
    let limit = |resource, value| Rlimit { resource, value };
    vec![
        limit(RlimitResource::Nofile, NOFILE),
        limit(RlimitResource::Nproc, NPROC),
        // A core dump holds secrets.
        limit(RlimitResource::Core, 0),
        limit(RlimitResource::Memlock, 64 * 1024 * 1024),
        limit(RlimitResource::Msgqueue, 1024 * 1024),
        limit(RlimitResource::Sigpending, 4096),
    ]
}

fn mounts(input: &PlanInput<'_>, mode: JailMode) -> Vec<MountStep> {
    let mut steps = Vec::new();
    for dir in SYSTEM_DIRS {
        steps.extend(system_dir(Path::new(dir)));
    }
    for name in ETC {
        let path = format!("/etc/{name}");
        steps.extend(Path::new(&path).exists().then(|| read_only(&path)));
    }
    steps.extend(files());
    steps.push(MountStep::Proc { target: "/proc".to_owned() });
    steps.extend(devices());
    steps.push(tmpfs("/tmp", TMP_BYTES, 0o1777));
    steps.push(tmpfs("/run", RUN_BYTES, 0o755));
    let (target, size_bytes) = (RUNTIME_DIR.to_owned(), RUN_BYTES);
    steps.push(MountStep::Tmpfs { target, size_bytes, mode: 0o700, owner: AGENT_ID });
    steps.push(tmpfs("/var/tmp", RUN_BYTES, 0o1777));
    // After what would cover them. A path below another one, or below the system's, is there already.
    let mut shown: Vec<&Path> = SYSTEM_DIRS.iter().map(Path::new).collect();
    for path in &input.exposure.read_only_paths {
        if path.is_absolute() && path.exists() && !shown.iter().any(|above| path.starts_with(above)) {
            steps.push(read_only(&path.display().to_string()));
            shown.push(path);
        }
    }
    steps.push(bind_dir(input.home, HOME, None));
    let idmap = match mode {
        JailMode::Root { uid_base } if input.foreign_workspace => {
            let agent = uid_base + AGENT_ID;
            let HostDir { uid, gid, .. } = *input.workspace;
            Some(IdMap { disk_uid: uid, disk_gid: gid, host_uid: agent, host_gid: agent })
        }
        _ => None,
    };
    steps.push(bind_dir(input.workspace, WORKSPACE, idmap));
    steps.push(MountStep::SealReadOnly { target: "/dev".to_owned() });
    steps.push(MountStep::SealReadOnly { target: "/".to_owned() });
    steps
}

/// A system directory as it is on the host: a directory, a link into another one, or nothing.
fn system_dir(path: &Path) -> Option<MountStep> {
    let target = path.display().to_string();
    if let Ok(to) = std::fs::read_link(path) {
        return Some(MountStep::Symlink { target, to: to.display().to_string() });
    }
    path.is_dir().then(|| read_only(&target))
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

/// Files of the jail's own.
fn files() -> impl Iterator<Item = MountStep> {
    let passwd = format!(
        "root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{AGENT_ID}:{AGENT_ID}:agent:{HOME}:/bin/bash\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    );
    let group = format!("root:x:0:\ntty:x:5:\nagent:x:{AGENT_ID}:\nnogroup:x:65534:\n");
    let hosts = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    [("/etc/passwd", passwd), ("/etc/group", group), ("/etc/hosts", hosts)]
        .into_iter()
        .map(|(target, content)| MountStep::File { target: target.to_owned(), content })
}

fn devices() -> Vec<MountStep> {
    let mut steps = vec![tmpfs("/dev", 64 * 1024, 0o755)];
    for name in DEVICES {
        let path = format!("/dev/{name}");
        steps.push(MountStep::Bind {
            source: path.clone(),
            target: path,
            read_only: false,
            identity: None,
            idmap: None,
        });
    }
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

/// The whole environment: nothing of the daemon's own. Later ones win: ours, the agent's, the session's.
fn environment(input: &PlanInput<'_>, home: &str) -> Vec<(String, String)> {
    let mut env: BTreeMap<&str, String> = BTreeMap::from([
        ("HOME", home.to_owned()),
        ("USER", "agent".to_owned()),
        ("LOGNAME", "agent".to_owned()),
        ("SHELL", "/bin/bash".to_owned()),
        ("PATH", search_path(input.exposure, home)),
        ("TERM", "xterm-256color".to_owned()),
        ("COLORTERM", "truecolor".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
    ]);
    if input.isolation != Isolation::None {
        env.insert("XDG_RUNTIME_DIR", RUNTIME_DIR.to_owned());
    }
    for (name, value) in input.agent_env.iter().chain(input.session_env) {
        env.insert(name, value.clone());
    }
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Where programs are looked up: the operator's directories, the session's own, the system's.
fn search_path(exposure: &Exposure, home: &str) -> String {
    let dirs = agent_dirs(exposure).into_iter().map(|dir| dir.display().to_string());
    dirs.chain([format!("{home}/.local/bin")]).chain(SYSTEM_PATH.map(str::to_owned)).collect::<Vec<_>>().join(":")
}

const SYSTEM_PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

fn agent_dirs(exposure: &Exposure) -> Vec<PathBuf> {
    exposure.agent_paths.iter().filter(|dir| dir.is_absolute()).cloned().collect()
}

/// Whether sessions see the file at this path, to which every link has been followed.
pub(crate) fn visible(path: &Path, exposure: &Exposure) -> bool {
    let system = SYSTEM_DIRS.iter().any(|dir| path.starts_with(dir));
    system || exposure.read_only_paths.iter().any(|dir| dir.canonicalize().is_ok_and(|dir| path.starts_with(dir)))
}

/// The directories of the host in which a session's programs are found.
pub(crate) fn program_dirs(exposure: &Exposure) -> Vec<PathBuf> {
    agent_dirs(exposure).into_iter().chain(SYSTEM_PATH.map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentapi_shared::jail::FileIdentity;

    fn dir(path: &str, uid: u32) -> HostDir {
        HostDir { path: path.into(), identity: FileIdentity { dev: 1, ino: 2 }, uid, gid: uid }
    }

    fn sample(isolation: Isolation, foreign_workspace: bool) -> JailPlan {
        let (home, workspace) = (dir("/state/home", 0), dir("/srv/project", 4711));
        plan(PlanInput {
            isolation,
            exposure: &Exposure { agent_paths: vec!["/srv/agents".into()], ..Exposure::default() },
            slot: 3,
            home: &home,
            workspace: &workspace,
            foreign_workspace,
            argv: vec!["sh".to_owned()],
            agent_env: &BTreeMap::from([("A".to_owned(), "agent".to_owned()), ("B".to_owned(), "agent".to_owned())]),
            session_env: &BTreeMap::from([("B".to_owned(), "session".to_owned())]),
        })
    }

    fn env(plan: &JailPlan, name: &str) -> Option<String> {
        plan.exec.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn the_environment_is_ours_alone() {
        let plan = sample(Isolation::Root, false);
        assert_eq!((env(&plan, "A"), env(&plan, "B")), (Some("agent".to_owned()), Some("session".to_owned())));
        assert!(env(&plan, "PATH").unwrap().starts_with("/srv/agents:/home/agent/.local/bin:/usr/local/sbin"));
        // What cargo has set for this test must not be there.
        assert_eq!(env(&plan, "CARGO_MANIFEST_DIR"), None);
    }

    #[test]
    fn a_foreign_workspace_is_written_as_its_owner() {
        let bind = |plan: &JailPlan| {
            plan.mounts.iter().find_map(|step| match step {
                MountStep::Bind { target, idmap, .. } if target == WORKSPACE => Some(*idmap),
                _ => None,
            })
        };
        let agent = 0x4000_0000 + 3 * 65_536 + 1000;
        let map = IdMap { disk_uid: 4711, disk_gid: 4711, host_uid: agent, host_gid: agent };
        assert_eq!(bind(&sample(Isolation::Root, true)), Some(Some(map)));
        assert_eq!(bind(&sample(Isolation::Root, false)), Some(None));
        assert_eq!(bind(&sample(Isolation::User, true)), Some(None));
    }

    #[test]
    fn every_jail_has_pid_and_mount_namespaces_and_none_has_nothing() {
        for isolation in [Isolation::Root, Isolation::User] {
            let plan = sample(isolation, false);
            assert!(plan.namespaces.contains(&Namespace::Pid) && plan.namespaces.contains(&Namespace::Mount));
            assert_eq!(plan.exec.cwd, WORKSPACE);
            assert!(matches!(plan.mounts.last(), Some(MountStep::SealReadOnly { target }) if target == "/"));
        }
        let none = sample(Isolation::None, true);
        assert!(none.namespaces.is_empty() && none.mounts.is_empty());
        assert_eq!(none.exec.cwd, "/srv/project");
    }
}
