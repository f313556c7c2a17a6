//! Sessions from start to end.

use agentapi_shared::api::ScreenFormat;
use agentapi_shared::link::{Command, CommandResult, PlaneMessage};
use agentapi_shared::{ExitReason, SpawnState};
use anyhow::Result;

use crate::harness::Host;

#[tokio::test]
async fn a_command_runs_is_seen_and_typed_to_and_ends() -> Result<()> {
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let session = link.start(&["bash", "--norc"]).await?;
    link.send(&PlaneMessage::Watch { stream: 1, session, spawn: 1, from: Some(0), limit: 1 << 20 }).await?;
    link.input(1, 1, b"id -u; pwd; echo $HOME; echo pid=$$; tty\r").await?;
    let seen = link.output(1, |seen| String::from_utf8_lossy(seen).contains("/dev/pts/0\r\n")).await?;
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("1000\r\n/workspace\r\n/home/agent\r\n"), "{seen}");
    let screen = link.command(session, Command::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 0 }).await?;
    assert!(matches!(&screen, Ok(CommandResult::Screen(screen)) if screen.text.contains("/dev/pts/0")), "{screen:?}");
    link.input(1, 2, b"exit 7\r").await?;
    let report = link.report(session, SpawnState::Exited).await?;
    let exit = report.exit.expect("an exit");
    assert_eq!((exit.code, exit.reason), (Some(7), ExitReason::Exited), "{exit:?}");
    Ok(())
}
