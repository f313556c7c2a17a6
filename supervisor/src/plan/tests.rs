//! What plans must hold, whatever they are made from.

use super::*;
use crate::sandbox::{Listener, SandboxMount};
use agentapi_shared::api::Limits;
use agentapi_shared::jail::{FileIdentity, IdMap, MountStep};

fn dir(path: &str, uid: u32) -> HostDir {
    HostDir { path: path.into(), identity: FileIdentity { dev: 1, ino: 2 }, uid, gid: uid }
}

fn sandbox(network: NetworkMode) -> Sandbox {
    Sandbox {
        profile: "dev".to_owned(),
        debuggers: true,
        network,
        listeners: [3128, 3200].map(|port| Listener { port, model: None }).to_vec(),
        mounts: Vec::new(),
        limits: Limits::default(),
        degraded: Vec::new(),
    }
}

fn sample(isolation: Isolation, foreign_workspace: bool) -> JailPlan {
    made(isolation, foreign_workspace, &sandbox(NetworkMode::Filtered)).unwrap()
}

fn made(isolation: Isolation, foreign_workspace: bool, sandbox: &Sandbox) -> Result<JailPlan, PlanError> {
    with_ids(Ids::Mapped, isolation, foreign_workspace, sandbox)
}

fn with_ids(ids: Ids, isolation: Isolation, foreign_workspace: bool, sandbox: &Sandbox) -> Result<JailPlan, PlanError> {
    let (home, workspace) = (dir("/state/home", 0), dir("/srv/project", 4711));
    plan(PlanInput {
        isolation,
        ids,
        sandbox,
        egress_env: &[],
        landlock: Some(7),
        cgroup: CgroupStep::default(),
        exposure: &Exposure { agent_paths: vec!["/srv/agents".into()], ..Exposure::default() },
        slot: 3,
        home: Source::Host(&home),
        workspace: Source::Host(&workspace),
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
fn every_jail_has_every_layer_and_none_has_nothing() {
    for isolation in [Isolation::Root, Isolation::User] {
        let plan = sample(isolation, false);
        for namespace in [
            Namespace::User,
            Namespace::Pid,
            Namespace::Mount,
            Namespace::Network,
            Namespace::Ipc,
            Namespace::Uts,
            Namespace::Cgroup,
        ] {
            assert!(plan.has(namespace), "{namespace:?}");
        }
        assert_eq!(plan.exec.cwd, WORKSPACE);
        assert_eq!(plan.filter, Some(FilterStep::Debuggers));
        assert_eq!(plan.landlock.as_ref().map(|landlock| landlock.abi), Some(7));
        assert!(matches!(plan.mounts.last(), Some(MountStep::SealReadOnly { target }) if target == "/"));
    }
    let none = sample(Isolation::None, true);
    assert!(none.namespaces.is_empty() && none.mounts.is_empty());
    assert_eq!((none.filter, none.landlock, none.shim), (None, None, None));
    assert_eq!(none.exec.cwd, "/srv/project");
}

#[test]
fn the_network_is_what_the_sandbox_says() {
    for (network, own, listeners) in [
        (NetworkMode::Off, true, vec![]),
        (NetworkMode::Filtered, true, vec![3128, 3200]),
        (NetworkMode::Host, false, vec![]),
    ] {
        let plan = made(Isolation::Root, false, &sandbox(network)).unwrap();
        assert_eq!((plan.has(Namespace::Network), plan.listeners), (own, listeners), "{network:?}");
    }
}

#[test]
fn the_shim_has_an_id_that_is_not_mapped_inside() {
    let base = 0x4000_0000 + 3 * 65_536;
    assert_eq!(sample(Isolation::Root, false).shim, Some(ShimStep { host_id: Some(base + 65_535) }));
    assert_eq!(sample(Isolation::User, false).shim, Some(ShimStep { host_id: None }));
}

#[test]
fn mounts_of_a_session_cover_nothing_of_the_jail() {
    let with = |source: &str, target: &str, writable| {
        let mut sandbox = sandbox(NetworkMode::Off);
        sandbox.mounts =
            vec![SandboxMount { source: source.into(), target: target.into(), writable, dir: dir(source, 4711) }];
        made(Isolation::Root, false, &sandbox)
    };
    let source = std::env::temp_dir().display().to_string();
    for target in [
        "/",
        "/proc",
        "/proc/sys",
        "/dev/shm",
        "/home",
        "/home/agent/.ssh",
        "/workspace/x",
        "/usr/lib",
        "/etc",
        "/run/x",
        "data",
        "/data/../proc",
    ] {
        assert!(matches!(with(&source, target, true), Err(PlanError::Target(_))), "{target}");
    }
    let plan = with(&source, "/data", true).unwrap();
    let bind = plan.mounts.iter().find_map(|step| match step {
        MountStep::Bind { target, read_only, identity, .. } if target == "/data" => {
            Some((*read_only, identity.is_some()))
        }
        _ => None,
    });
    assert_eq!(bind, Some((false, true)));
    assert!(plan.landlock.unwrap().read_write.contains(&"/data".to_owned()));
    let read_only = with(&source, "/data", false).unwrap();
    assert!(!read_only.landlock.unwrap().read_write.contains(&"/data".to_owned()));
}

#[test]
fn an_id_of_the_host_belongs_to_one_slot_or_to_none() {
    for slot in [0, 1, SLOTS_MAX - 1] {
        assert_eq!(slot_of(uid_base(slot)), Some(slot));
        assert_eq!(slot_of(uid_base(slot) + SLOT_UIDS - 1), Some(slot));
    }
    for uid in [0, 1000, SLOT_UID_BASE - 1, SLOT_UID_BASE + SLOTS_MAX * SLOT_UIDS, u32::MAX] {
        assert_eq!(slot_of(uid), None);
    }
}

#[test]
fn without_user_namespaces_the_agent_is_named_by_its_id_on_the_host() {
    let sandbox = sandbox(NetworkMode::Filtered);
    let plain = with_ids(Ids::OfHost, Isolation::Root, false, &sandbox).unwrap();
    let whole = with_ids(Ids::Mapped, Isolation::Root, false, &sandbox).unwrap();
    let passwd = |plan: &JailPlan| {
        plan.mounts.iter().find_map(|step| match step {
            MountStep::File { target, content } if target == "/etc/passwd" => Some(content.clone()),
            _ => None,
        })
    };
    let agent = 0x4000_0000 + 3 * 65_536 + 1000;
    assert!(passwd(&plain).unwrap().contains(&format!("\nagent:x:{agent}:{agent}:")));
    assert!(passwd(&whole).unwrap().contains("\nagent:x:1000:1000:"));
    let others: Vec<Namespace> = whole.namespaces.iter().copied().filter(|it| *it != Namespace::User).collect();
    assert_eq!(plain.namespaces, others);
    assert_eq!((plain.landlock, plain.filter, plain.shim), (whole.landlock, whole.filter, whole.shim));
}
