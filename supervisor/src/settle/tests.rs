//! What is settled is never more open than profile and host, and each refusal names its field.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use agentapi_shared::api::MountRequest;
use agentapi_shared::egress::PROXY_PORT;
use proptest::prelude::*;

use super::*;
use crate::cgroup::Control;
use crate::settings::{AllowedMount, MountMode};

/// A directory with `ro`, `rw`, `rw/inner-ro`, `outside`, and links between them.
struct Dirs(PathBuf);

impl Dirs {
    fn new() -> Self {
        let base = std::env::temp_dir().join(format!("agentapi-settle-{}", agentapi_shared::SessionId::generate()));
        for dir in ["ro/data", "rw/data", "rw/inner-ro/data", "outside"] {
            std::fs::create_dir_all(base.join(dir)).unwrap();
        }
        let base = base.canonicalize().unwrap();
        symlink("../../outside", base.join("rw/data/out")).unwrap();
        symlink("../inner-ro/data", base.join("rw/data/in")).unwrap();
        Self(base)
    }

    fn path(&self, below: &str) -> String {
        self.0.join(below).display().to_string()
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::parse("", "test").unwrap();
        let line = |below: &str, mode| AllowedMount { path: self.0.join(below), mode };
        settings.mounts =
            vec![line("ro", MountMode::Ro), line("rw", MountMode::Rw), line("rw/inner-ro", MountMode::Ro)];
        settings
    }
}

impl Drop for Dirs {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

fn ground(control: Control, missing: &[Missing]) -> Ground {
    Ground {
        isolation: Isolation::Root,
        problem: None,
        missing: missing.iter().copied().collect(),
        control,
        landlock_abi: 7,
        no_disk: None,
    }
}

fn whole() -> Ground {
    ground(Control::whole(), &[])
}

const ANYTHING: SandboxPolicy = SandboxPolicy { profiles: None, network: None, mounts: None, limits: Limits::NONE };

const NOBODY: Subject<'_> =
    Subject { policy: &ANYTHING, manifest: None, read_only_paths: &[], private: &Private::NONE, storage: Storage::New };

/// What the refusal of a request says.
fn refusal(settings: &Settings, ground: &Ground, request: &SandboxRequest) -> String {
    settle(settings, ground, request, NOBODY).unwrap_err().to_string()
}

#[test]
fn a_request_that_opens_anything_is_refused_by_its_field() {
    let settings = Settings::parse("", "test").unwrap();
    let cases = [
        ("sandbox.profile:", SandboxRequest { profile: Some("open".to_owned()), ..SandboxRequest::default() }),
        ("sandbox.network:", SandboxRequest { network: Some(NetworkMode::Host), ..SandboxRequest::default() }),
        (
            "sandbox.limits.pids:",
            SandboxRequest { limits: Limits { pids: Some(100_000), ..Limits::default() }, ..SandboxRequest::default() },
        ),
    ];
    for (field, request) in cases {
        let words = refusal(&settings, &whole(), &request);
        assert!(words.starts_with(field), "{words}");
    }
}

#[test]
fn an_organisation_narrows_what_the_profile_gives_and_what_may_be_asked_for() {
    let settings = Settings::parse("", "test").unwrap();
    let limits = |pids| Limits { pids: Some(pids), ..Limits::default() };
    let policy = SandboxPolicy {
        profiles: Some(vec!["dev".to_owned()]),
        network: Some(NetworkMode::Off),
        limits: limits(64),
        ..SandboxPolicy::default()
    };
    let subject = Subject { policy: &policy, ..NOBODY };
    let plain = SandboxRequest::default();
    // The positive control: without a policy the profile gives more.
    let free = settle(&settings, &whole(), &plain, NOBODY).unwrap().posture;
    assert!(free.network > NetworkMode::Off && free.limits.pids > Some(64));
    let posture = settle(&settings, &whole(), &plain, subject).unwrap().posture;
    assert_eq!((posture.network, posture.limits), (NetworkMode::Off, Limits { pids: Some(64), ..free.limits }));
    let fewer = SandboxRequest { limits: limits(32), ..plain.clone() };
    assert_eq!(settle(&settings, &whole(), &fewer, subject).unwrap().posture.limits.pids, Some(32));
    for (field, request) in [
        ("sandbox.profile:", SandboxRequest { profile: Some("strict".to_owned()), ..plain.clone() }),
        ("sandbox.network:", SandboxRequest { network: Some(NetworkMode::Filtered), ..plain.clone() }),
        ("sandbox.limits.pids:", SandboxRequest { limits: limits(65), ..plain.clone() }),
    ] {
        let words = settle(&settings, &whole(), &request, subject).unwrap_err().to_string();
        assert!(words.starts_with(field) && words.contains("your organisation"), "{words}");
    }
    // A limit that this host cannot keep is not left out because only the organisation asks for it.
    let mut allowing = settings.clone();
    allowing.allow_degraded.extend([Missing::Cgroup]);
    let poor = ground(Control::None, &[Missing::Cgroup]);
    assert!(settle(&allowing, &poor, &plain, NOBODY).is_ok());
    let memory = SandboxPolicy {
        limits: Limits { memory_bytes: Some(1 << 30), ..Limits::default() },
        ..SandboxPolicy::default()
    };
    let words = settle(&allowing, &poor, &plain, Subject { policy: &memory, ..NOBODY }).unwrap_err().to_string();
    assert!(words.starts_with("sandbox.limits.memory_bytes:"), "{words}");
    // Nor is it kept where nothing is isolated.
    let none = Ground { isolation: Isolation::None, ..whole() };
    assert!(matches!(settle(&settings, &none, &plain, subject), Err(SettleError::NoSandbox { .. })));
}

#[test]
fn directories_are_given_as_the_host_says_and_nowhere_else() {
    let dirs = Dirs::new();
    let settings = dirs.settings();
    let ask = |source: &str, target: Option<&str>, writable| SandboxRequest {
        mounts: vec![MountRequest { source: dirs.path(source), target: target.map(str::to_owned), writable }],
        ..SandboxRequest::default()
    };
    let given = |request: &SandboxRequest| settle(&settings, &whole(), request, NOBODY).unwrap().sandbox.mounts;
    let mounts = given(&ask("rw/data", Some("/data"), true));
    assert_eq!(
        (mounts[0].source.as_path(), mounts[0].target.as_path()),
        (Path::new(&dirs.path("rw/data")), Path::new("/data"))
    );
    assert!(mounts[0].writable && mounts[0].dir.path == mounts[0].source);
    // Where a link leads counts.
    assert_eq!(given(&ask("rw/data/in", Some("/data"), false))[0].source, Path::new(&dirs.path("rw/inner-ro/data")));
    for (field, request) in [
        ("sandbox.mounts[0].source:", ask("outside", None, false)),
        ("sandbox.mounts[0].source:", ask("rw/data/out", None, false)),
        ("sandbox.mounts[0].source:", ask("rw/../outside", None, false)),
        ("sandbox.mounts[0].source:", ask("rw/none", None, false)),
        ("sandbox.mounts[0].writable:", ask("ro/data", None, true)),
        ("sandbox.mounts[0].writable:", ask("rw/inner-ro", None, true)),
        ("sandbox.mounts[0].writable:", ask("rw/data/in", None, true)),
    ] {
        let words = refusal(&settings, &whole(), &request);
        assert!(words.starts_with(field), "{words}");
    }
    for target in [
        "/",
        "/proc/x",
        "/dev",
        "/etc/ssl",
        "/home",
        "/home/agent/x",
        "/workspace",
        "/usr/local",
        "/lib64",
        "/opt/x",
        "/tmp",
        "/var",
        "relative",
        "/a/../etc",
    ] {
        let words = refusal(&settings, &whole(), &ask("ro/data", Some(target), false));
        assert!(words.starts_with("sandbox.mounts[0].target:"), "{target}: {words}");
    }
    let mut twice = ask("ro/data", Some("/data/a"), false);
    twice.mounts.push(MountRequest { source: dirs.path("rw"), target: Some("/data".to_owned()), writable: false });
    let words = refusal(&settings, &whole(), &twice);
    assert!(words.starts_with("sandbox.mounts[1].target:"), "{words}");
}

#[test]
fn what_a_host_lacks_is_refused_unless_it_is_allowed_and_used() {
    let mut settings = Settings::parse("", "test").unwrap();
    let poor = ground(Control::None, &[Missing::Cgroup, Missing::DiskQuota]);
    let plain = SandboxRequest::default();
    assert!(refusal(&settings, &poor, &plain).contains("no-cgroup"));
    settings.allow_degraded.insert(Missing::Cgroup);
    // Every profile that is shipped limits disk space; one that does not has nothing to miss.
    assert!(refusal(&settings, &poor, &plain).contains("no-disk-quota"));
    let mut unlimited = settings.clone();
    unlimited.profiles.get_mut("dev").unwrap().limits.disk_bytes = None;
    let settled = settle(&unlimited, &poor, &plain, NOBODY).unwrap();
    assert_eq!(settled.posture.degraded, ["no-cgroup"]);
    settings.allow_degraded.insert(Missing::DiskQuota);
    let settled = settle(&settings, &poor, &plain, NOBODY).unwrap();
    assert_eq!((settled.posture.degraded.len(), settled.posture.limits.disk_bytes), (2, None));
    assert_eq!((settled.posture.limits.memory_bytes, settled.posture.limits.pids), (None, Some(4096)));
    // A limit that somebody relies on is kept or refused, whatever is allowed.
    let limits = Limits { memory_bytes: Some(1 << 30), ..Limits::default() };
    let asked = SandboxRequest { limits, ..SandboxRequest::default() };
    assert!(refusal(&settings, &poor, &asked).starts_with("sandbox.limits.memory_bytes:"));
}

#[test]
fn a_session_keeps_what_its_files_are_on_whatever_is_settled_later() {
    let settings = Settings::parse("", "test").unwrap();
    let plain = SandboxRequest::default();
    let on = |ground: &Ground, storage| settle(&settings, ground, &plain, Subject { storage, ..NOBODY });
    let disk = Storage::Disk { bytes: 123 << 20 };
    let new = on(&whole(), Storage::New).unwrap();
    assert_eq!(new.posture.limits.disk_bytes, settings.profiles["dev"].limits.disk_bytes);
    assert_eq!(on(&whole(), disk).unwrap().posture.limits.disk_bytes, Some(123 << 20));
    // Of before there were disks: it goes on, wherever it is, and says what it is like.
    let without = ground(Control::whole(), &[Missing::DiskQuota]);
    for ground in [whole(), without.clone()] {
        let settled = on(&ground, Storage::Directories).unwrap();
        assert_eq!(
            (settled.posture.limits.disk_bytes, &settled.posture.degraded[..]),
            (None, &["no-disk-quota".to_owned()][..])
        );
    }
    // Its files cannot be had, whatever is allowed.
    let none = Ground { isolation: Isolation::None, ..without.clone() };
    for ground in [without, none] {
        assert!(on(&ground, disk).unwrap_err().to_string().starts_with("sandbox.limits.disk_bytes: "));
    }
}

#[test]
fn the_agent_reaches_what_it_needs_and_the_gateway_listens_only_if_filtered() {
    let manifests = agentapi_shared::agent::manifests().unwrap();
    let claude = manifests.iter().find(|manifest| manifest.name == "claude");
    let text = "[egress]\nallow = [\"mine.example.com\"]\ndeny = [\"github.com\"]";
    let settings = Settings::parse(text, "test").unwrap();
    let strict = SandboxRequest { profile: Some("strict".to_owned()), ..SandboxRequest::default() };
    let settled = settle(&settings, &whole(), &strict, Subject { manifest: claude, ..NOBODY }).unwrap();
    let allowed = |settled: &Settled, name: &str| settled.egress.allow.iter().any(|rule| rule.host.matches(name));
    assert!(allowed(&settled, "api.anthropic.com") && allowed(&settled, "mine.example.com"));
    assert!(!allowed(&settled, "registry.npmjs.org"));
    assert_eq!(settled.sandbox.listeners, [Listener { port: PROXY_PORT, model: None }]);
    assert_eq!(settled.egress.deny.len(), 1);
    let off = SandboxRequest { network: Some(NetworkMode::Off), ..SandboxRequest::default() };
    let settled = settle(&settings, &whole(), &off, NOBODY).unwrap();
    assert!(settled.sandbox.listeners.is_empty() && allowed(&settled, "registry.npmjs.org"));
}

#[test]
fn nothing_is_asked_of_a_sandbox_that_does_not_exist() {
    let settings = Settings::parse("", "test").unwrap();
    let none = Ground { isolation: Isolation::None, ..ground(Control::None, &[Missing::Cgroup]) };
    let settled = settle(&settings, &none, &SandboxRequest::default(), NOBODY).unwrap();
    assert_eq!((settled.posture.isolation.as_str(), settled.posture.network), ("none", NetworkMode::Host));
    assert!(settled.posture.limits.is_empty());
    let off = SandboxRequest { network: Some(NetworkMode::Off), ..SandboxRequest::default() };
    assert!(refusal(&settings, &none, &off).starts_with("sandbox.network:"));
}

fn any_network() -> impl Strategy<Value = NetworkMode> {
    prop_oneof![Just(NetworkMode::Off), Just(NetworkMode::Filtered), Just(NetworkMode::Host)]
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let one = || proptest::option::of(1_u64..20);
    let small = || proptest::option::of(1_u32..20);
    (one(), small(), small(), one(), one()).prop_map(
        |(memory_bytes, pids, cpu_percent, disk_bytes, io_bytes_per_second)| Limits {
            memory_bytes,
            pids,
            cpu_percent,
            disk_bytes,
            io_bytes_per_second,
        },
    )
}

fn any_missing() -> impl Strategy<Value = BTreeSet<Missing>> {
    proptest::sample::subsequence(Missing::all().collect::<Vec<_>>(), 0..4)
        .prop_map(|words| words.into_iter().collect())
}

fn any_mounts() -> impl Strategy<Value = Vec<(usize, usize, bool)>> {
    proptest::collection::vec((0_usize..8, 0_usize..8, any::<bool>()), 0..3)
}

const SOURCES: [&str; 8] = ["ro", "ro/data", "rw", "rw/data", "rw/inner-ro", "rw/data/in", "rw/data/out", "outside"];
const TARGETS: [&str; 8] = ["/data", "/data/a", "/srv/b", "/etc", "/home/agent/x", "/", "/opt/x", "/tmp/y"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn a_settled_sandbox_is_never_more_open_than_profile_and_host(
        most in (any::<bool>(), any_network(), any_limits()),
        asked in (proptest::option::of(any_network()), any_limits(), any_mounts()),
        missing in any_missing(),
        allowed in any_missing(),
        control in prop_oneof![Just(Control::None), Just(Control::Hybrid), Just(Control::whole())],
    ) {
        let dirs = Dirs::new();
        let mut settings = dirs.settings();
        let profile = Profile {
            debuggers: most.0,
            network: most.1,
            limits: most.2,
            read_only_paths: Vec::new(),
            egress: Vec::new(),
        };
        settings.profiles = BTreeMap::from([("dev".to_owned(), profile.clone())]);
        settings.allow_degraded.clone_from(&allowed);
        let mounts = asked.2.into_iter().map(|(source, target, writable)| MountRequest {
            source: dirs.path(SOURCES[source]),
            target: Some(TARGETS[target].to_owned()),
            writable,
        });
        let request = SandboxRequest { profile: None, network: asked.0, mounts: mounts.collect(), limits: asked.1 };
        let ground = Ground { isolation: Isolation::Root, problem: None, missing: missing.clone(), control, landlock_abi: 7, no_disk: None };
        let Ok(settled) = settle(&settings, &ground, &request, NOBODY) else { return Ok(()) };
        let sandbox = settled.sandbox;
        prop_assert!(sandbox.network <= profile.network && asked.0.is_none_or(|asked| sandbox.network <= asked));
        prop_assert!(profile.debuggers || !sandbox.debuggers);
        let limits = sandbox.limits.named().into_iter().zip(profile.limits.named()).zip(request.limits.named());
        for (((name, _, got), (_, _, most)), (_, _, asked)) in limits {
            // No limit is as open as can be; only what the host cannot keep may be without, and only if nobody asked for it.
            let (got, most) = (got.unwrap_or(u64::MAX), most.unwrap_or(u64::MAX));
            prop_assert!(got <= most || !ground.keeps(name) && asked.is_none(), "{name}");
            prop_assert!(asked.is_none_or(|asked| got <= asked), "{name}");
        }
        for mount in &sandbox.mounts {
            let line = |below: &str| mount.source.starts_with(dirs.0.join(below));
            prop_assert!(line("ro") || line("rw"));
            prop_assert!(!mount.writable || line("rw") && !line("rw/inner-ro"));
            prop_assert!(["/data", "/srv/b", "/tmp/y"].iter().any(|free| mount.target.starts_with(free)));
        }
        for word in &sandbox.degraded {
            let word: Missing = word.parse().unwrap();
            prop_assert!(missing.contains(&word) && allowed.contains(&word));
        }
        let unused = [Missing::DiskQuota];
        prop_assert!(missing.iter().all(|word| allowed.contains(word) || unused.contains(word)));
    }
}

#[test]
fn a_mount_or_a_path_of_the_profile_that_holds_our_data_is_refused_by_its_field() {
    let dirs = Dirs::new();
    let mut settings = dirs.settings();
    let private = Private::new(&dirs.0.join("ro/data"), None, std::iter::empty());
    let subject = Subject { private: &private, ..NOBODY };
    let asked = |source: String| {
        let mount = MountRequest { source, target: Some("/data".to_owned()), writable: false };
        SandboxRequest { mounts: vec![mount], ..SandboxRequest::default() }
    };
    for below in ["ro", "ro/data"] {
        let error = settle(&settings, &whole(), &asked(dirs.path(below)), subject).unwrap_err().to_string();
        assert!(
            error.starts_with("sandbox.mounts[0].source: ") && error.contains("AgentAPI keeps its data"),
            "{error}"
        );
    }
    settle(&settings, &whole(), &asked(dirs.path("rw/data")), subject).unwrap();
    settings.profiles.get_mut("dev").unwrap().read_only_paths = vec![dirs.0.join("ro")];
    let error = settle(&settings, &whole(), &SandboxRequest::default(), subject).unwrap_err().to_string();
    assert!(error.starts_with("read_only_paths of profile or agent: "), "{error}");
}

#[test]
fn a_policy_that_the_gateway_would_not_take_is_refused_here() {
    let mut settings = Settings::parse("", "test").unwrap();
    let rules = |count: usize, length: usize| {
        let label = "a".repeat(length);
        (0..count).map(|n| format!("x{n}.{label}.{label}.{label}.com").parse().unwrap()).collect::<Vec<_>>()
    };
    let (ground, request) = (whole(), SandboxRequest::default());
    settings.egress.deny = rules(900, 10);
    assert!(settle(&settings, &ground, &request, NOBODY).is_ok());
    // Too many, and too long.
    for deny in [rules(1001, 10), rules(990, 60)] {
        settings.egress.deny = deny;
        assert!(refusal(&settings, &ground, &request).starts_with("egress: "));
    }
    let off = SandboxRequest { network: Some(NetworkMode::Off), ..SandboxRequest::default() };
    assert!(settle(&settings, &ground, &off, NOBODY).is_ok(), "nothing is handed to the gateway");
}
