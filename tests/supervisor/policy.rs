//! What a host allows, refuses and limits, seen from its control plane and from its kernel.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use agentapi_shared::api::{Limits, MountRequest, NetworkMode, SandboxPolicy, SandboxRequest};
use agentapi_shared::link::{Command, CommandError, SpawnReport, StartSpawn};
use agentapi_shared::{ExitReason, SessionId, SpawnState};
use agentapi_tests::plane::{Link, custom};
use agentapi_tests::process::{binary, find_dirs, kill_survivors};
use agentapi_tests::wait::eventually;
use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use crate::harness::{Host, Lack};

fn start(command: &[&str], sandbox: SandboxRequest) -> Command {
    Command::Start(StartSpawn { sandbox, ..custom(command) })
}

/// A refusal, and that nothing of the session was made.
async fn refused(host: &Host, link: &mut Link, sandbox: SandboxRequest) -> Result<CommandError> {
    let session = SessionId::generate();
    let Err(refused) = link.command(session, start(&["true"], sandbox)).await? else { bail!("it was accepted") };
    assert_eq!(refused.code, "refused");
    assert!(!host.session_dir(session).exists());
    Ok(refused)
}

/// Starts a command under limits and waits for its end.
async fn ended(link: &mut Link, command: &[&str], limits: Limits) -> Result<(SessionId, SpawnReport)> {
    let session = SessionId::generate();
    let sandbox = SandboxRequest { limits, ..SandboxRequest::default() };
    link.command(session, start(command, sandbox)).await??;
    Ok((session, link.report(session, SpawnState::Exited).await?))
}

/// Control groups of a session, wherever they are.
fn groups(session: SessionId) -> Vec<PathBuf> {
    let mut found = Vec::new();
    find_dirs(Path::new("/sys/fs/cgroup"), &session.to_string(), 6, &mut found);
    found
}

#[tokio::test]
async fn what_opens_anything_is_refused_by_its_field_before_anything_is_made() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    assert_eq!(link.hello.facts.profiles, ["dev", "strict"]);
    let plain = SandboxRequest::default;
    let mount = |source: &str| MountRequest { source: source.to_owned(), target: None, writable: false };
    for (field, sandbox) in [
        ("sandbox.profile:", SandboxRequest { profile: Some("mine".to_owned()), ..plain() }),
        ("sandbox.network:", SandboxRequest { network: Some(NetworkMode::Host), ..plain() }),
        ("sandbox.mounts[0].source:", SandboxRequest { mounts: vec![mount("/etc")], ..plain() }),
        (
            "sandbox.limits.pids:",
            SandboxRequest { limits: Limits { pids: Some(9000), ..Limits::default() }, ..plain() },
        ),
    ] {
        let error = refused(&host, &mut link, sandbox).await?;
        assert!(error.detail.starts_with(field), "{}", error.detail);
    }
    Ok(())
}

#[tokio::test]
async fn an_organisation_narrows_a_session_that_asks_for_nothing() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let run = async |link: &mut Link, policy: SandboxPolicy| {
        let session = SessionId::generate();
        let start = StartSpawn { policy, ..custom(&["true"]) };
        link.command(session, Command::Start(start)).await??;
        let report = link.report(session, SpawnState::Exited).await?;
        anyhow::Ok(report.posture.expect("a posture"))
    };
    let free = run(&mut link, SandboxPolicy::default()).await?;
    assert_eq!(free.network, NetworkMode::Filtered);
    let policy = SandboxPolicy {
        network: Some(NetworkMode::Off),
        limits: Limits { pids: Some(64), ..Limits::default() },
        ..SandboxPolicy::default()
    };
    let narrowed = run(&mut link, policy).await?;
    assert_eq!((narrowed.network, narrowed.limits.pids), (NetworkMode::Off, Some(64)));
    let policy = SandboxPolicy { profiles: Some(vec!["strict".to_owned()]), ..SandboxPolicy::default() };
    let start = StartSpawn { policy, ..custom(&["true"]) };
    let session = SessionId::generate();
    let Err(refused) = link.command(session, Command::Start(start)).await? else { bail!("it was accepted") };
    assert!(refused.detail.starts_with("sandbox.profile: your organisation"), "{}", refused.detail);
    assert!(!host.session_dir(session).exists());
    Ok(())
}

#[tokio::test]
async fn a_layer_that_nobody_allowed_to_be_missing_keeps_sessions_from_starting() -> Result<()> {
    let mut host = Host::new().await?;
    // An ordinary user's machine has none for it anyway.
    host.lacks = nix::unistd::geteuid().is_root().then_some(Lack::LoopDevices);
    host.allowed = "cgroup-hybrid,no-cgroup,one-uid";
    let (mut daemon, mut link) = host.linked().await?;
    let error = refused(&host, &mut link, SandboxRequest::default()).await?;
    assert!(error.detail.contains("allow_degraded = [\"no-disk-quota\"]"), "{}", error.detail);
    // Once it is allowed the session starts, and says so.
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended().await?;
    host.allowed = "cgroup-hybrid,no-cgroup,one-uid,no-disk-quota";
    let (_daemon, mut link) = host.linked().await?;
    let session = SessionId::generate();
    link.command(session, start(&["sleep", "1000"], SandboxRequest::default())).await?.expect("accepted");
    let posture = link.report(session, SpawnState::Running).await?.posture.expect("a posture");
    assert!(posture.degraded.contains(&"no-disk-quota".to_owned()), "{posture:?}");
    assert_eq!(posture.limits.disk_bytes, None);
    Ok(())
}

#[test]
fn settings_are_checked_and_a_daemon_does_not_start_with_mistakes() -> Result<()> {
    let dir = agentapi_tests::dir::TempDir::new();
    let settings = dir.path().join("supervisor.toml");
    std::fs::write(
        &settings,
        "allow_degraded = [\"seccomp\"]\n[egress]\nallow = [\"com\"]\n[profiles.dev]\nnetwrk = \"off\"\n",
    )?;
    let run = |words: &[&str]| {
        Process::new(binary("agentapi-supervisor")).arg("run").args(words).arg("--config").arg(&settings).output()
    };
    let checked = run(&["--check-config"])?;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success());
    for key in ["allow_degraded[0]: ", "egress.allow[0]: ", "profiles.dev.netwrk: "] {
        assert!(said.contains(key), "{said}");
    }
    let state = dir.path().join("state");
    let started = run(&["--credential-file", "/none", "--state-dir", &state.display().to_string()])?;
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && said.contains("profiles.dev.netwrk"), "{said}");
    std::fs::write(&settings, "allow_degraded = []\n")?;
    assert!(run(&["--check-config"])?.status.success());
    Ok(())
}

#[tokio::test]
async fn limits_hold_and_leave_the_record_of_what_they_ended() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    // Far below what the user may have without a group. The shell ends when it cannot fork.
    let bomb = "n=0; while [ $n -lt 200 ]; do sleep 1000 & n=$((n+1)); done; exit 0";
    let pids = Limits { pids: Some(30), ..Limits::default() };
    let (session, report) = ended(&mut link, &["dash", "-c", bomb], pids).await?;
    let posture = report.posture.expect("a posture");
    assert_eq!(posture.limits.pids, Some(30));
    assert!(posture.limits.memory_bytes.is_some(), "{posture:?}");
    let exit = report.exit.expect("an exit");
    assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(2)), "{exit:?}");
    eventually("its groups are gone", || async { groups(session).is_empty().then_some(()) }).await;
    // At most 300 MB, also if nothing limits it.
    let memory = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let (_, report) = ended(&mut link, &["dash", "-c", "head -c 300000000 /dev/zero | tail"], memory).await?;
    let exit = report.exit.expect("an exit");
    assert!(exit.code == Some(137) || exit.signal.as_deref() == Some("SIGKILL"), "{exit:?}");
    assert_ne!(exit.reason, ExitReason::ShimLost);
    Ok(())
}

#[tokio::test]
async fn what_a_crash_leaves_is_ended_at_the_next_start() -> Result<()> {
    let host = Host::new().await?;
    let (mut daemon, mut link) = host.linked().await?;
    let session = link.start(&["sleep", "1000"]).await?;
    assert!(!groups(session).is_empty());
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    kill_survivors(&host.state_dir());
    let (_daemon, _link) = host.linked().await?;
    assert_eq!(groups(session), Vec::<PathBuf>::new());
    Ok(())
}
