//! The doctor and the self-test: a jail that holds, one with a layer taken away, a session that somebody has changed.

use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use agentapi_shared::SessionId;
use agentapi_shared::jail::SLOT_UID_BASE;
use agentapi_shared::link::Command as LinkCommand;
use agentapi_tests::attempt::{EDITS_FILE, Edit};
use agentapi_tests::dir::TempDir;
use agentapi_tests::plane::custom;
use agentapi_tests::process::{LOCAL_DEGRADED, binary, find_dirs, processes};
use agentapi_tests::wait::eventually;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::Host;

/// The doctor, with its temporary files in a directory of the test's.
fn doctor(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("agentapi-supervisor"));
    command.args(["doctor", "--json"]).args(arguments);
    command.env(LOCAL_DEGRADED.0, LOCAL_DEGRADED.1).env("TMPDIR", dir);
    command
}

fn report(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Attempts of all trials with this outcome.
fn attempts<'a>(report: &'a Value, outcome: &str) -> Vec<&'a str> {
    let trials = report["trials"].as_array().into_iter().flatten();
    let attempts = trials.flat_map(|trial| trial["attempts"].as_array().into_iter().flatten());
    attempts.filter(|attempt| attempt["outcome"] == outcome).filter_map(|attempt| attempt["name"].as_str()).collect()
}

/// Makes a shim that changes every plan.
fn interposed(dir: &Path) -> Result<PathBuf> {
    let shim = dir.join("shim");
    std::fs::create_dir(&shim)?;
    // By another process: a file that this one writes is open in whatever another test starts meanwhile, and cannot be run then.
    let copied = Command::new("cp").arg(binary("sandbox-probe")).arg(shim.join("agentapi-shim")).status()?;
    ensure!(copied.success(), "the probe could not be copied");
    symlink(binary("agentapi-shim"), shim.join("real-shim"))?;
    edit(dir, &[])?;
    Ok(shim.join("agentapi-shim"))
}

fn edit(dir: &Path, edits: &[Edit]) -> Result<()> {
    Ok(std::fs::write(dir.join("shim").join(EDITS_FILE), serde_json::to_vec(edits)?)?)
}

fn set(at: &str, value: Value) -> Edit {
    Edit::Set { at: format!("/plan/{at}"), value }
}

fn without(at: &str, value: Value) -> Edit {
    Edit::Without { at: format!("/plan/{at}"), value }
}

#[test]
fn every_attempt_is_refused_in_a_whole_jail_and_nothing_of_it_is_left() -> Result<()> {
    let dir = TempDir::new();
    let child = doctor(dir.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    let report = report(&output)?;
    assert!(matches!(output.status.code(), Some(0 | 1)), "{report}");
    assert_eq!(report["schema"], 1);
    let trials = report["trials"].as_array().context("trials")?;
    let profiles: Vec<&str> = trials.iter().filter_map(|trial| trial["profile"].as_str()).collect();
    assert_eq!(profiles, ["dev", "strict"]);
    for trial in trials {
        assert_eq!(trial["problem"], Value::Null, "{trial}");
        assert!(trial["took_ms"].as_u64().is_some_and(|took| took < 4000), "{trial}");
        assert!(trial["attempts"].as_array().is_some_and(|attempts| attempts.len() >= 80), "{trial}");
    }
    for outcome in ["open", "unclear"] {
        assert_eq!(attempts(&report, outcome), Vec::<&str>::new());
    }
    // What this machine cannot show is little.
    assert!(attempts(&report, "absent").len() <= 2 * 8, "{:?}", attempts(&report, "absent"));
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
    let mut groups = Vec::new();
    find_dirs(Path::new("/sys/fs/cgroup"), &format!("agentapi-doctor-{pid}"), 6, &mut groups);
    assert_eq!(groups, Vec::<PathBuf>::new());
    let bait = dir.path().display().to_string();
    assert!(!processes().iter().any(|process| process.command.contains(&bait)));
    Ok(())
}

/// A unit may give the supervisor a priority above others, which is not for agents.
#[test]
fn agents_do_not_have_the_priority_of_their_supervisor() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let dir = TempDir::new();
    let plain = doctor(dir.path(), &[]);
    let mut command = Command::new("nice");
    command.args(["-n", "-5"]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let report = report(&command.output()?)?;
    let all: Vec<&Value> = report["trials"].as_array().into_iter().flatten().collect();
    assert!(!all.is_empty() && all.iter().all(|trial| trial["problem"].is_null()), "{report}");
    assert_eq!(attempts(&report, "open"), Vec::<&str>::new());
    Ok(())
}

#[test]
fn ids_that_are_somebody_elses_refuse_sessions() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let dir = TempDir::new();
    let theirs = dir.path().join("passwd");
    let accounts = std::fs::read_to_string("/etc/passwd")?;
    for (more, code) in [(String::new(), false), (format!("they:x:{SLOT_UID_BASE}:100::/:/bin/sh\n"), true)] {
        std::fs::write(&theirs, format!("{accounts}{more}"))?;
        let plain = doctor(dir.path(), &["--skip-canary"]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/passwd && exec \"$@\""]).arg(&theirs);
        command.arg(plain.get_program()).args(plain.get_args());
        let output = command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).output()?;
        let report = report(&output)?;
        assert_eq!((output.status.code() == Some(2), report["verdict"] == "refused"), (code, code), "{report}");
    }
    Ok(())
}

#[test]
fn a_layer_that_is_not_there_is_noticed_by_what_gets_through() -> Result<()> {
    let dir = TempDir::new();
    let shim = interposed(dir.path())?.display().to_string();
    let mask = [without("mounts", json!({ "step": "mask" })), without("mounts", json!({ "step": "read_only" }))];
    let terminals = ["ids.unfiltered", "terminals.type", "terminals.type_with_high_bits", "kernel.io_uring"];
    let network = ["network.host_loopback", "network.host_abstract_socket"];
    for (layer, edits, expected) in [
        ("filter", vec![set("filter", Value::Null)], &terminals[..]),
        ("network", vec![without("namespaces", json!("network")), set("listeners", json!([]))], &network[..1]),
        ("pid", vec![without("namespaces", json!("pid"))], &["processes.of_host"][..]),
        ("masks", mask.to_vec(), &["kernel_files.interrupts"][..]),
    ] {
        edit(dir.path(), &edits)?;
        let output = doctor(dir.path(), &["--shim", &shim]).output()?;
        let report = report(&output)?;
        assert_eq!((output.status.code(), &report["verdict"]), (Some(2), &json!("broken")), "{layer}: {report}");
        let open = attempts(&report, "open");
        for name in expected {
            assert!(open.contains(name), "{layer}: {name} is not among {open:?}");
        }
        let check = report["checks"].as_array().into_iter().flatten().find(|it| it["name"] == "sandbox: self-test");
        let detail = check.and_then(|check| check["detail"].as_str()).unwrap_or_default();
        assert!(detail.contains(expected[0]), "{detail}");
    }
    // A jail that is not made at all is no jail that holds.
    edit(dir.path(), &[set("hostname", json!("x".repeat(100)))])?;
    let output = doctor(dir.path(), &["--shim", &shim]).output()?;
    let report = report(&output)?;
    assert_eq!((output.status.code(), &report["verdict"]), (Some(2), &json!("refused")), "{report}");
    assert!(
        report["trials"][0]["problem"].as_str().is_some_and(|why| why.starts_with("the jail could not be made")),
        "{report}"
    );
    // Nor is one that is never heard of again; it is ended in time.
    edit(dir.path(), &[set("exec/argv", json!(["sleep", "1000"]))])?;
    let began = std::time::Instant::now();
    let output = doctor(dir.path(), &["--shim", &shim]).output()?;
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
    let report = self::report(&output)?;
    assert_eq!((output.status.code(), &report["verdict"]), (Some(2), &json!("refused")), "{report}");
    assert!(attempts(&report, "unclear").len() >= 80, "{report}");
    // With its leavings gone, the shim's directory is what the test made itself.
    let left: Vec<_> = std::fs::read_dir(dir.path())?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["shim"]);
    Ok(())
}

/// Attempts whose object not every kernel has, or which not every root or every file system lets be made: machines that run tests are containers,
/// often, with directories of several file systems.
const MAY_LACK: [&str; 19] = [
    "files.by_handle",
    "files.link_to_system",
    "kernel.calls_of_32_bits",
    "kernel.calls_of_x32",
    "kernel.io_uring",
    "kernel.modules",
    "kernel.swap",
    "kernel_files.devices",
    "kernel_files.keys",
    "kernel_files.memory",
    "kernel_files.sysrq",
    "kernel_files.timers",
    "limits.raise",
    "limits.spare_from_oom_killer",
    "network.route",
    "sockets.bluetooth",
    "sockets.crypto",
    "sockets.hypervisor",
    "terminals.paste",
];

/// What a machine may lack beyond what was thought of: a busy or a restricted one still shows the rest.
const UNSHOWN_MAX: usize = 4;

#[test]
fn on_the_bare_host_nearly_every_attempt_gets_through() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the control is for root: an ordinary user is refused much by the host itself"
    );
    let dir = TempDir::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let tcp = listener.local_addr()?;
    let name = format!("agentapi-control-{}", SessionId::generate());
    let address = SocketAddr::from_abstract_name(&name)?;
    let unix = UnixListener::bind_addr(&address)?;
    let aims = json!({
        "bait": dir.path().join("bait"), "secret": "secret", "host_pid": std::process::id(), "host_began": began()?,
        "tcp": tcp, "abstract_socket": name, "own_network": true, "own_users": true,
    });
    std::fs::write(dir.path().join("bait"), "secret")?;
    // Mounts and names are the canary's own, everything else is the host's; the shell stands for init.
    let script = "cd \"$1\" && \"$2\" canary \"$3\"; exit $?";
    let mut control = Command::new("unshare");
    control.args(["--mount", "--uts", "sh", "-c", script, "sh"]).arg(dir.path());
    let mut control = control.arg(binary("agentapi-supervisor")).arg(aims.to_string()).spawn()?;
    // Whoever connects is told the secret, and the canary does.
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"secret")?;
        let (mut stream, _) = unix.accept()?;
        stream.write_all(b"secret")
    });
    assert!(control.wait()?.success());
    let text = std::fs::read_to_string(dir.path().join("canary.jsonl"))?;
    let all: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let shut = all.iter().filter(|attempt| attempt["outcome"] != "open");
    let unshown = shut.filter(|attempt| {
        let name = attempt["name"].as_str().unwrap_or_default();
        !(MAY_LACK.contains(&name) && ["absent", "refused"].map(Value::from).contains(&attempt["outcome"]))
    });
    let unshown: Vec<&Value> = unshown.collect();
    // Said aloud: elsewhere the same attempts are shown to be possible.
    if !unshown.is_empty() {
        eprintln!("not shown to be possible without a jail: {unshown:#?}");
    }
    assert!(unshown.len() <= UNSHOWN_MAX, "too few are shown to be possible without a jail: {unshown:#?}");
    assert!(all.len() >= 80);
    Ok(())
}

/// When this process began, in ticks since boot.
fn began() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let rest = stat.rsplit_once(')').context("a name in parentheses")?.1;
    Ok(rest.split_whitespace().nth(19).context("a field")?.parse()?)
}

#[tokio::test]
async fn a_supervisor_whose_sandbox_does_not_hold_is_connected_and_refuses_sessions() -> Result<()> {
    let mut host = Host::new().await?;
    let shim = interposed(host.dir.path())?;
    host.arguments = vec!["--shim".to_owned(), shim.display().to_string()];
    edit(host.dir.path(), &[set("filter", Value::Null)])?;
    let (mut daemon, mut link) = host.linked().await?;
    let refused = link.command(SessionId::generate(), LinkCommand::Start(custom(&["true"]))).await?.unwrap_err();
    assert_eq!(refused.code, "refused");
    for word in ["self-test", "terminals.type", "agentapi-supervisor doctor"] {
        assert!(refused.detail.contains(word), "{}", refused.detail);
    }
    // What did not hold is not remembered: the next start finds out anew.
    edit(host.dir.path(), &[])?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended().await?;
    let (_daemon, mut link) = host.linked().await?;
    link.start(&["sleep", "1000"]).await?;
    Ok(())
}

#[tokio::test]
async fn what_held_is_tried_again_only_after_a_change() -> Result<()> {
    let mut host = Host::new().await?;
    let settings = host.dir.path().join("supervisor.toml");
    std::fs::write(&settings, "allow_degraded = []\n")?;
    host.arguments = vec!["--config".to_owned(), settings.display().to_string()];
    let kept = host.state_dir().join("self-test.json");
    let written = || std::fs::metadata(&kept).and_then(|found| found.modified());
    let (mut daemon, _) = host.start().await?;
    let first = written()?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended().await?;
    let (mut daemon, _) = host.start().await?;
    assert_eq!(written()?, first);
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended().await?;
    // Nothing that a jail is made of, and yet a change.
    std::fs::write(&settings, "allow_degraded = [\"landlock\"]\n")?;
    let (_daemon, _) = host.start().await?;
    assert!(written()? > first);
    assert!(!host.state_dir().join("self-test").exists());
    Ok(())
}

/// What the doctor says of a session: its exit code, and the checks that are not as they should be.
fn of_session(host: &Host, session: SessionId) -> Result<(Option<i32>, Vec<String>, Value)> {
    let arguments = ["--session", &session.to_string(), "--state-dir", &host.state_dir().display().to_string()];
    let output = doctor(host.dir.path(), &arguments).output()?;
    let report = report(&output)?;
    let checks = report["checks"].as_array().context("checks")?;
    let wrong = checks.iter().filter(|check| check["ok"] == false);
    let wrong = wrong.map(|check| format!("{}: {}", check["name"], check["found"])).collect();
    Ok((output.status.code(), wrong, report))
}

#[tokio::test]
async fn a_session_is_looked_at_from_outside_and_whatever_was_changed_by_hand_is_named() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let session = link.start(&["sleep", "1000"]).await?;
    // Another one, which it must share nothing with.
    link.start(&["sleep", "1001"]).await?;
    let (code, wrong, report) = of_session(&host, session)?;
    assert_eq!((code, wrong), (Some(0), Vec::new()), "{report}");
    assert!(report["processes"].as_u64().is_some_and(|count| count >= 2), "{report}");
    let names: Vec<&str> =
        report["checks"].as_array().into_iter().flatten().filter_map(|check| check["name"].as_str()).collect();
    for name in [
        "init",
        "pid namespace",
        "mnt namespace",
        "user namespace",
        "net namespace",
        "namespaces shared",
        "uid_map",
        "mounts",
        "NoNewPrivs",
        "Seccomp",
        "filters",
        "CapEff",
        "CapBnd",
        "Uid",
        "Groups",
        "oom_score_adj",
        "limit: open files",
        "control groups",
        "pids.max",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let mut groups = Vec::new();
    find_dirs(Path::new("/sys/fs/cgroup"), &session.to_string(), 6, &mut groups);
    let limit = groups.iter().flat_map(|dir| [dir.join("pids.max"), dir.join("work/pids.max")]).find(|it| it.exists());
    let limit = limit.context("a limit of processes")?;
    let before = std::fs::read_to_string(&limit)?;
    std::fs::write(&limit, "max")?;
    let (code, wrong, _) = of_session(&host, session)?;
    assert_eq!((code, wrong), (Some(2), vec!["\"pids.max\": \"max\"".to_owned()]));
    std::fs::write(&limit, before.trim())?;
    let found = std::fs::read_to_string(limit.with_file_name("cgroup.procs"))?;
    let moved = found.lines().last().context("a process")?;
    let outside = limit.parent().and_then(|dir| {
        dir.ancestors()
            .find(|dir| dir.join("cgroup.procs").exists() && !dir.to_string_lossy().contains(&session.to_string()))
    });
    std::fs::write(outside.context("a group outside")?.join("cgroup.procs"), moved)?;
    let (code, wrong, report) = of_session(&host, session)?;
    assert_eq!(code, Some(2));
    assert!(wrong.len() == 1 && wrong[0].contains(&format!("pid {moved} is not in it")), "{wrong:?} {report}");
    // Back, so that its end finds it.
    std::fs::write(limit.with_file_name("cgroup.procs"), moved)?;
    Ok(())
}

#[tokio::test]
async fn what_somebody_does_in_a_sessions_namespaces_is_named() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let session = link.start(&["sleep", "1000"]).await?;
    let record = host.session_dir(session).join("spawns/1/spawn.json");
    let record: Value = serde_json::from_slice(&std::fs::read(record)?)?;
    let init = record["init_pid"].as_i64().context("a pid")?.to_string();
    let mut guest = Command::new("nsenter").args(["--target", &init, "--net", "sleep", "1000"]).spawn()?;
    let wanted = format!("net with pid {}", guest.id());
    let named = eventually("the guest is named", || async {
        let (code, wrong, _) = of_session(&host, session).ok()?;
        wrong.iter().any(|line| line.contains(&wanted)).then_some(code)
    })
    .await;
    guest.kill()?;
    guest.wait()?;
    assert_eq!(named, Some(2));
    let mount = ["--target", &init, "--mount", "mount", "-t", "tmpfs", "none", "/tmp"];
    ensure!(Command::new("nsenter").args(mount).status()?.success(), "nothing could be mounted");
    std::fs::write(format!("/proc/{init}/oom_score_adj"), "0")?;
    let (code, wrong, _) = of_session(&host, session)?;
    assert_eq!(code, Some(2));
    for (name, found) in [("mounts", "/tmp has rw"), ("oom_score_adj", &*format!("pid {init} has 0"))] {
        assert!(wrong.iter().any(|line| line.contains(name) && line.contains(found)), "{name}: {wrong:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_says_its_version_under_limits_of_its_own() -> Result<()> {
    let mut host = Host::new().await?;
    let bin = host.dir.path().join("bin");
    std::fs::create_dir(&bin)?;
    let agent = bin.join("claude");
    std::fs::write(&agent, "#!/bin/sh\ngrep 'Max processes' /proc/self/limits\n")?;
    std::fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let bin = bin.display().to_string();
    host.arguments = ["--agent-path", &bin, "--read-only-path", &bin].map(str::to_owned).to_vec();
    let (_daemon, _link) = host.linked().await?;
    let answers = host.state_dir().join("versions.json");
    let said = eventually("the agent was asked", || async { std::fs::read_to_string(&answers).ok() }).await;
    assert!(said.contains("Max processes") && said.contains(" 256 "), "{said}");
    eventually("nothing of the question is left", || async {
        let left =
            processes().into_iter().any(|process| process.command.contains(&bin) && process.command.contains("claude"));
        (!left && !host.state_dir().join("probe").exists()).then_some(())
    })
    .await;
    Ok(())
}
