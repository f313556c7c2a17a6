//! The layers of the sandbox as this host has them, each with what was seen of it.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::cgroup::Control;
use crate::host::{self, Ground, Isolation};
use crate::posture::{LANDLOCK_ABI_WHOLE, Missing};
use crate::settings::Settings;

/// One layer.
#[derive(Debug, Serialize)]
pub(super) struct Layer {
    pub(super) name: &'static str,
    /// Whether the host has it, at least in part.
    pub(super) available: bool,
    /// Whether sessions here are held by it.
    pub(super) enforced: bool,
    /// What was seen.
    pub(super) evidence: String,
    /// Whether no session starts without all of it.
    pub(super) required: bool,
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
        Layer {
            name,
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
    let disk = !ground.missing.contains(&Missing::DiskQuota);
    let disk_words = if disk { "a file system of its own for each session" } else { Missing::DiskQuota.effect() };
    let idmap = root && !ground.missing.contains(&Missing::IdMap);
    let idmap_words = match (root, idmap) {
        (true, true) => "this kernel shows directories under other ids",
        (true, false) => Missing::IdMap.effect(),
        (false, _) => "not for an ordinary user, and not needed: files are written as that user",
    };
    vec![
        layer("namespaces", ground.problem.is_none(), &[Missing::UserNamespaces], namespaces),
        layer("ids", root, &[Missing::OneUid], ids.to_owned()),
        layer("landlock", ground.landlock_abi > 0, &abis, landlock),
        layer("seccomp", filters.is_ok(), &[], seccomp),
        layer("cgroup", groups, &[Missing::Cgroup, Missing::CgroupHybrid], evidence),
        layer("disk", disk, &[Missing::DiskQuota], disk_words.to_owned()),
        layer("idmap", idmap, &[Missing::IdMap], idmap_words.to_owned()),
    ]
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
