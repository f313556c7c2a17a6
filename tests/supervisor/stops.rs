//! A stop reaches a session whatever its start, or its shim, is doing.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use agentapi_shared::link::{Command, CommandResult};
use agentapi_shared::{ExitReason, SessionId, SpawnState};
use agentapi_tests::plane::custom;
use agentapi_tests::process::{ProcessInfo, binary, processes};
use agentapi_tests::wait::eventually;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};

use crate::harness::Host;

/// Grace, what the supervisor adds to it, and a loaded machine: far below the 20 s that a start may take.
const BOUND: Duration = Duration::from_secs(10);

const STOP: Command = Command::Stop { spawn: 1, generation: 1, grace_ms: 300, force: false };

#[tokio::test]
async fn a_start_that_hangs_is_given_up() -> Result<()> {
    let mut host = Host::new().await?;
    let (shim, hang) = (host.dir.path().join("agentapi-shim"), host.dir.path().join("hang"));
    std::fs::write(
        &shim,
        format!(
            "#!/bin/sh\n[ $# -gt 0 ] || [ ! -e {} ] || kill -STOP $$\nexec {} \"$@\"\n",
            hang.display(),
            binary("agentapi-shim").display()
        ),
    )?;
    std::fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755))?;
    host.arguments = vec!["--shim".to_owned(), shim.display().to_string()];
    let (_daemon, mut link) = host.linked().await?;
    // Not the self-test, which is over.
    std::fs::write(&hang, "")?;
    let session = SessionId::generate();
    let accepted = link.command(session, Command::Start(custom(&["sleep", "1000"]))).await?;
    assert!(matches!(accepted, Ok(CommandResult::Accepted)), "{accepted:?}");
    let dir = host.session_dir(session);
    // Beside the supervisor, which holds the directory while it waits.
    let is_shim = |process: &ProcessInfo| process.command.starts_with("/bin/sh") && process.holds(&dir);
    let shims = || processes().into_iter().filter(is_shim).count();
    eventually("the shim is there, and stopped", || async { (shims() == 1).then_some(()) }).await;
    let began = Instant::now();
    let stopped = link.command(session, STOP).await?;
    assert!(matches!(stopped, Ok(CommandResult::Done)), "{stopped:?}");
    let exit = link.report(session, SpawnState::Exited).await?.exit.context("an exit")?;
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    assert_eq!(exit.reason, ExitReason::Killed, "{exit:?}");
    assert_eq!(shims(), 0);
    let purged = link.command(session, Command::Purge).await?;
    assert!(matches!(purged, Ok(CommandResult::Done)), "{purged:?}");
    Ok(())
}

#[tokio::test]
async fn a_stop_behind_a_slow_start_is_done_once_it_runs() -> Result<()> {
    let mut host = Host::new().await?;
    let (shim, go) = (host.dir.path().join("agentapi-shim"), host.dir.path().join("go"));
    let wait = format!("#!/bin/sh\nuntil [ -e {} ]; do /bin/sleep 0.05; done\n", go.display());
    std::fs::write(&shim, format!("{wait}exec {}\n", binary("agentapi-shim").display()))?;
    // Not yet: the self-test goes first.
    std::fs::write(&go, "")?;
    std::fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755))?;
    host.arguments = vec!["--shim".to_owned(), shim.display().to_string()];
    let (_daemon, mut link) = host.linked().await?;
    std::fs::remove_file(&go)?;
    let session = SessionId::generate();
    link.command(session, Command::Start(custom(&["sh", "-c", "trap 'exit 7' TERM; sleep 1000 & wait"]))).await??;
    let patient = Command::Stop { spawn: 1, generation: 1, grace_ms: 60_000, force: false };
    assert!(matches!(link.command(session, patient).await?, Ok(CommandResult::Done)));
    link.report(session, SpawnState::Stopping).await?;
    std::fs::write(&go, "")?;
    let exit = link.report(session, SpawnState::Exited).await?.exit.context("an exit")?;
    assert_eq!(exit.reason, ExitReason::Stopped, "asked, not killed: {exit:?}");
    Ok(())
}

#[tokio::test]
async fn a_session_whose_shim_does_not_answer_a_new_supervisor_is_stopped() -> Result<()> {
    let host = Host::new().await?;
    let (mut daemon, mut link) = host.linked().await?;
    let session = link.start(&["sleep", "3400"]).await?;
    let runs = || processes().iter().any(|process| process.command == "sleep 3400");
    assert!(runs());
    let shim = host.shim(session)?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    drop(link);
    kill(shim, Signal::SIGSTOP)?;
    let (_daemon, mut link) = host.linked().await?;
    let began = Instant::now();
    let stopped = link.command(session, STOP).await?;
    assert!(matches!(stopped, Ok(CommandResult::Done)), "{stopped:?}");
    eventually("the program has ended", || async { (!runs()).then_some(()) }).await;
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    // What it was asked is done, and its end is told once its shim can.
    kill(shim, Signal::SIGCONT)?;
    link.report(session, SpawnState::Exited).await?.exit.context("an exit")?;
    Ok(())
}
