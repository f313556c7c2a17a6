//! The layers of the sandbox as this host has them, each with what was seen of it.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::cgroup::Control;
use crate::host::{self, Ground, Ids, Isolation};
use crate::posture::{LANDLOCK_ABI_WHOLE, Missing};
use crate::settings::Settings;

/// How much of a layer sessions have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// All of it.
    Whole,
    /// A part of it.
    Partial,
    /// Nothing.
    Missing,
    /// Nothing, and nothing here asks for it.
    Unused,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Partial => "partial",
            Self::Missing => "missing",
            Self::Unused => "unused",
        }
    }
}

/// One layer.
#[derive(Debug, Serialize)]
pub(super) struct Layer {
    pub(super) name: &'static str,
    pub(super) state: State,
    /// Whether the host has it, at least in part.
    pub(super) available: bool,
    /// Whether sessions here are held by it.
    pub(super) enforced: bool,
    /// What was seen.
    pub(super) evidence: String,
    /// Whether no session starts without all of it.
    pub(super) required: bool,
    /// What to do about it; none: nothing.
    pub(super) remedy: Option<String>,
    /// The word for what is missing of it.
    #[serde(skip)]
    pub(super) missing: Option<String>,
}

/// What is missing of what sessions would use: a limit of disk space is missed only if a profile has one.
pub(super) fn used(ground: &Ground, settings: &Settings) -> BTreeSet<Missing> {
    let disk = settings.profiles.values().any(|profile| profile.limits.disk_bytes.is_some());
    ground.missing.iter().copied().filter(|missing| disk || *missing != Missing::DiskQuota).collect()
}

/// All of them, outermost first.
pub(super) fn of(ground: &Ground, settings: &Settings) -> Vec<Layer> {
    let lacked = used(ground, settings);
    let jailed = ground.isolation != Isolation::None;
    let problem = ground.problem.as_ref().map(|(problem, _)| problem.clone());
    let layer = |name, available, whole: &[Missing], evidence: String| {
        let missing = whole.iter().copied().find(|missing| lacked.contains(missing));
        // What is not there and not missed is not needed.
        let required = missing.map_or(available, |missing| !settings.allow_degraded.contains(&missing));
        let state = match (available && jailed, missing) {
            (true, None) => State::Whole,
            (true, Some(_)) => State::Partial,
            (false, None) if jailed => State::Unused,
            (false, _) => State::Missing,
        };
        let found = ground.problem.as_ref().filter(|_| name == "namespaces").map(|(_, fix)| fix.clone());
        let remedy = found.or_else(|| missing.map(|missing| remedy(missing, required)));
        Layer {
            name,
            state,
            remedy,
            available,
            enforced: available && jailed,
            evidence,
            required,
            missing: missing.map(|it| it.to_string()),
        }
    };
    let namespaces =
        problem.unwrap_or_else(|| "user, mount, pid, net, ipc, uts and cgroup made and entered".to_owned());
    let abis: Vec<Missing> = (1..LANDLOCK_ABI_WHOLE).map(Missing::LandlockAbi).chain([Missing::Landlock]).collect();
    let landlock = match ground.landlock_abi {
        0 => Missing::Landlock.effect().to_owned(),
        abi if abi < LANDLOCK_ABI_WHOLE => format!("ABI {abi}: {}", Missing::LandlockAbi(abi).effect()),
        abi => format!("ABI {abi}"),
    };
    let filters = host::filters();
    let seccomp = filters.clone().map_or_else(|(problem, _)| problem, |()| "kill_process and errno".to_owned());
    let (groups, evidence) = groups(ground.control);
    let root = ground.isolation == Isolation::Root;
    let ids = if root { "every session has host ids of its own" } else { Missing::OneUid.effect() };
    let disk_words = match &ground.no_disk {
        None => "made a file system, filled it to its end, and it was gone again".to_owned(),
        Some(problem) => format!("{}: {problem}", Missing::DiskQuota.effect()),
    };
    let idmap = root && ground.ids() == Ids::Mapped;
    let idmap_words = match (root, idmap) {
        (true, true) => "this kernel shows directories under other ids, where their file system lets it",
        (true, false) => "no directory of the host can be given for writing",
        (false, _) => "not for an ordinary user, and not needed: files are written as that user",
    };
    vec![
        layer("namespaces", ground.problem.is_none(), &[Missing::UserNamespaces], namespaces),
        layer("ids", root, &[Missing::OneUid], ids.to_owned()),
        layer("landlock", ground.landlock_abi > 0, &abis, landlock),
        layer("seccomp", filters.is_ok(), &[], seccomp),
        layer("cgroup", groups, &[Missing::Cgroup, Missing::CgroupHybrid], evidence),
        layer("disk", ground.no_disk.is_none(), &[Missing::DiskQuota], disk_words),
        layer("idmap", idmap, &[], idmap_words.to_owned()),
    ]
}

/// How a host gets what it lacks, and how an operator says that it need not.
fn remedy(missing: Missing, required: bool) -> String {
    let get = match missing {
        Missing::Landlock => {
            "boot a kernel with CONFIG_SECURITY_LANDLOCK, and `landlock` among those of lsm=".to_owned()
        }
        Missing::LandlockAbi(_) => "Linux 6.12 or later has all of it".to_owned(),
        Missing::UserNamespaces => "sudo sysctl -w user.max_user_namespaces=15000".to_owned(),
        Missing::CgroupHybrid => "boot with systemd.unified_cgroup_hierarchy=1".to_owned(),
        Missing::Cgroup => "run the supervisor as root or by its systemd unit, on a host with cgroup v2".to_owned(),
        Missing::DiskQuota => "see disk_bytes in docs/sandbox.md".to_owned(),
        Missing::OneUid => "run the supervisor as root (sudo)".to_owned(),
    };
    if required { format!("{get}; or allow_degraded = [\"{missing}\"]") } else { format!("{get}; allowed as it is") }
}

fn groups(control: Control) -> (bool, String) {
    match control {
        Control::None => (false, Missing::Cgroup.effect().to_owned()),
        Control::Hybrid => (true, format!("made one; {}", Missing::CgroupHybrid.effect())),
        Control::V2 { memory, pids, cpu, io } => {
            let has: Vec<&str> = [(memory, "memory"), (pids, "pids"), (cpu, "cpu"), (io, "io")]
                .into_iter()
                .filter_map(|(has, name)| has.then_some(name))
                .collect();
            (true, format!("made one, v2, with {}", has.join(", ")))
        }
    }
}
