//! What is killed, and what holds.

use agentapi_shared::api::ScreenFormat;
use agentapi_shared::link::{Command, CommandResult, PlaneMessage};
use agentapi_shared::{ExitReason, SessionId, SpawnState};
use agentapi_tests::plane::custom;
use agentapi_tests::process::processes;
use agentapi_tests::wait::eventually;
use anyhow::{Context, Result};
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
        let exit = host.state_dir().join("sessions").join(session.to_string()).join("spawns/1/exit.json");
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
    let dir = host.state_dir().join("sessions").join(session.to_string());
    let shim = processes().into_iter().find(|process| process.uid == 0 && process.holds(&dir)).context("the shim")?;
    kill(Pid::from_raw(shim.pid), Signal::SIGKILL)?;
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
    // Answered in order, so the acknowledgement is done when this is.
    let _answer =
        link.command(session, Command::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 0 }).await?;
    drop(link);
    let link = host.plane.accept().await?;
    assert_eq!(link.hello.inventory.len(), 0);
    Ok(())
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
