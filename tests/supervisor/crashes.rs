//! What is killed, and what holds.

use agentapi_shared::api::ScreenFormat;
use agentapi_shared::link::{Command, CommandResult, PlaneMessage};
use agentapi_shared::{ExitReason, SessionId, SpawnState};
use agentapi_tests::plane::custom;
use agentapi_tests::process::processes;
use agentapi_tests::wait::eventually;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Host, NO_LIMIT};

#[tokio::test]
async fn agents_and_their_output_outlive_the_supervisor() -> Result<()> {
    let host = Host::new().await?;
    let (mut daemon, mut link) = host.linked().await?;
    let session = link.start(&["bash", "--norc"]).await?;
    link.send(&PlaneMessage::Watch { stream: 1, session, spawn: 1, from: Some(0), limit: NO_LIMIT }).await?;
    link.input(1, 1, b"marker=kept; (sleep 0.3; echo while-it-was-away) &\r").await?;
    link.output(1, |seen| String::from_utf8_lossy(seen).contains("away) &")).await?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    drop(link);
    let (_daemon, adopted) = host.start().await?;
    assert_eq!(adopted, 1);
    let mut link = host.plane.accept().await?;
    let known = link.hello.inventory.first().context("the session in the inventory")?;
    assert_eq!((known.session, known.spawn, known.state), (session, 1, SpawnState::Running));
    link.send(&PlaneMessage::Watch { stream: 9, session, spawn: 1, from: Some(0), limit: NO_LIMIT }).await?;
    link.input(9, 1, b"echo $marker\r").await?;
    let both =
        |seen: &[u8]| ["\rkept", "while-it-was-away\r"].iter().all(|what| String::from_utf8_lossy(seen).contains(what));
    link.output(9, both).await?;
    Ok(())
}

#[tokio::test]
async fn an_end_without_a_supervisor_is_told_by_the_next_one() -> Result<()> {
    let host = Host::new().await?;
    let (mut daemon, mut link) = host.linked().await?;
    let session = link.start(&["sh", "-c", "echo last words; read line; exit 3"]).await?;
    link.send(&PlaneMessage::Watch { stream: 1, session, spawn: 1, from: Some(0), limit: NO_LIMIT }).await?;
    link.output(1, |seen| String::from_utf8_lossy(seen).contains("last words")).await?;
    daemon.signal(Signal::SIGSTOP)?;
    link.input(1, 1, b"\r").await?;
    // A stopped supervisor passes nothing on: end the program through the terminal of its own shim instead.
    let sh = processes()
        .into_iter()
        .find(|process| process.command.contains("last words") && process.uid != 0)
        .context("the program")?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    kill(Pid::from_raw(sh.pid), Signal::SIGTERM)?;
    eventually("the records are written", || async {
        let exit = host.session_dir(session).join("spawns/1/exit.json");
        exit.exists().then_some(())
    })
    .await;
    drop(link);
    let (_daemon, adopted) = host.start().await?;
    assert_eq!(adopted, 0);
    let mut link = host.plane.accept().await?;
    let exit = link.report(session, SpawnState::Exited).await?.exit.context("an exit")?;
    assert_eq!((exit.reason, exit.signal.as_deref()), (ExitReason::Signaled, Some("SIGTERM")), "{exit:?}");
    let screen = link.command(session, Command::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 0 }).await?;
    assert!(
        matches!(&screen, Ok(CommandResult::Screen(screen)) if screen.text.starts_with("last words")),
        "{screen:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_killed_shim_takes_its_tree_with_it_and_leaves_its_screen() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let bystander = link.start(&["sleep", "3100"]).await?;
    let strays =
        "setsid sh -c \"trap '' HUP TERM; sleep 3101\" & (setsid sleep 3102 &); echo on the screen; sleep 3103";
    let session = link.start(&["bash", "-c", strays]).await?;
    let ours = || {
        processes()
            .into_iter()
            .filter(|process| process.command.starts_with("sleep 310") && process.command != "sleep 3100")
            .count()
    };
    eventually("every stray runs", || async { (ours() == 3).then_some(()) }).await;
    kill(host.shim(session)?, Signal::SIGKILL)?;
    let report = link.report(session, SpawnState::Failed).await?;
    assert_eq!(report.exit.map(|exit| exit.reason), Some(ExitReason::ShimLost));
    eventually("the tree is gone", || async { (ours() == 0).then_some(()) }).await;
    let screen = link.command(session, Command::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 0 }).await?;
    assert!(
        matches!(&screen, Ok(CommandResult::Screen(screen)) if screen.text.starts_with("on the screen")),
        "{screen:?}"
    );
    // And nobody else noticed.
    let answer =
        link.command(bystander, Command::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 0 }).await?;
    assert!(answer.is_ok(), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn sessions_go_on_without_a_control_plane() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let session = link.start(&["bash", "--norc"]).await?;
    drop(link);
    let mut link = host.plane.accept().await?;
    assert_eq!(link.hello.inventory.iter().map(|spawn| spawn.session).collect::<Vec<_>>(), [session]);
    link.send(&PlaneMessage::Watch { stream: 1, session, spawn: 1, from: None, limit: 1 << 20 }).await?;
    link.input(1, 1, b"echo still-$((40+2))\r").await?;
    link.output(1, |seen| String::from_utf8_lossy(seen).contains("still-42")).await?;
    Ok(())
}

#[tokio::test]
async fn an_end_is_told_until_it_is_acknowledged() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let session = SessionId::generate();
    link.command(session, Command::Start(custom(&["true"]))).await?.expect("accepted");
    link.report(session, SpawnState::Exited).await?;
    drop(link);
    let mut link = host.plane.accept().await?;
    assert_eq!(link.hello.inventory.len(), 1, "an end that is not acknowledged is part of the inventory");
    let seq = link
        .wait_for(|received| match received {
            agentapi_tests::plane::Received::Message(agentapi_shared::link::HostMessage::Outbox { seq, .. }) => {
                Some(*seq)
            }
            _ => None,
        })
        .await?;
    link.send(&PlaneMessage::OutboxAck { seq }).await?;
    for _ in 0..20 {
        // Answered in order, so the acknowledgement has been heard when this is; what it is about is removed a moment later.
        let _answer =
            link.command(session, Command::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 0 }).await?;
        drop(link);
        link = host.plane.accept().await?;
        if link.hello.inventory.is_empty() {
            return Ok(());
        }
    }
    bail!("an end that was acknowledged is still in the inventory")
}

#[tokio::test]
async fn stop_all_stops_all_and_says_how_many() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    for _ in 0..3 {
        link.start(&["sleep", "3200"]).await?;
    }
    let answer = host.stop_all()?;
    assert_eq!(answer, "{\"sessions\":3}\n{\"stopped\":3}\n");
    assert!(!processes().iter().any(|process| process.command == "sleep 3200"));
    Ok(())
}

#[tokio::test]
async fn a_stop_ends_what_runs_inside_also_when_the_shim_does_nothing() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let session = link.start(&["sleep", "3300"]).await?;
    let runs = || processes().iter().any(|process| process.command == "sleep 3300");
    assert!(runs());
    let shim = host.shim(session)?;
    kill(shim, Signal::SIGSTOP)?;
    let stop = Command::Stop { spawn: 1, generation: 1, grace_ms: 0, force: true };
    let answer = link.command(session, stop).await?;
    assert!(matches!(answer, Ok(CommandResult::Done)), "{answer:?}");
    eventually("nothing runs inside", || async { (!runs()).then_some(()) }).await;
    // The shim itself was left alone, and notes the end.
    kill(shim, Signal::SIGCONT)?;
    let report = link.report(session, SpawnState::Exited).await?;
    assert!(report.exit.is_some_and(|exit| exit.reason != ExitReason::ShimLost));
    Ok(())
}

#[tokio::test]
async fn a_session_whose_record_cannot_be_read_goes_on_over_a_restart() -> Result<()> {
    let host = Host::new().await?;
    let (mut daemon, mut link) = host.linked().await?;
    let session = link.start(&["sleep", "3310"]).await?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    drop(link);
    std::fs::write(host.session_dir(session).join("session.json"), "{")?;
    let (mut daemon, adopted) = host.start().await?;
    assert_eq!(adopted, 0);
    assert!(processes().iter().any(|process| process.command == "sleep 3310"), "the session was ended");
    // Its ids are not given to another one.
    let mut link = host.plane.accept().await?;
    let second = link.start(&["sleep", "3311"]).await?;
    let owner = |command: &str| processes().into_iter().find(|process| process.command == command).map(|it| it.uid);
    if nix::unistd::geteuid().is_root() {
        assert_ne!(owner("sleep 3310"), owner("sleep 3311"), "{session} and {second}");
    }
    // Nobody knows of it but its shim, which is ended with the test.
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    Ok(())
}

#[tokio::test]
async fn a_spawn_whose_record_cannot_be_read_is_neither_ended_nor_purged_nor_replaced() -> Result<()> {
    let host = Host::new().await?;
    let (mut daemon, mut link) = host.linked().await?;
    let session = link.start(&["sleep", "3320"]).await?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    drop(link);
    let spawn = host.session_dir(session).join("spawns/1");
    std::fs::write(spawn.join("spawn.json"), "{")?;
    let (mut daemon, mut link) = host.linked().await?;
    for command in [Command::Purge, Command::Start(custom(&["true"]))] {
        let refused = link.command(session, command).await?.expect_err("a refusal");
        assert_eq!(refused.code, "already_running", "{refused}");
    }
    assert!(processes().iter().any(|process| process.command == "sleep 3320"), "the session was ended");
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    Ok(())
}
