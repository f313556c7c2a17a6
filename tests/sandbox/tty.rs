//! Terminals: what programs may make them say, and what viewers do to programs.

use std::fs;

use agentapi_shared::WindowSize;
use agentapi_shared::link::{Command, PlaneMessage};
use agentapi_tests::wait::eventually;
use anyhow::{Context, Result};

use crate::scene::Scene;

/// A shim with a screen needs so much at most, whatever its program prints.
const SHIM_KIB_MAX: u64 = 64 * 1024;

/// Memory of a process that is nobody else's, in KiB.
pub(crate) fn resident_kib(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[tokio::test]
async fn a_terminal_repeats_nothing_that_a_program_told_it() -> Result<()> {
    let mut scene = Scene::new().await?;
    let running = scene.run("answers", &["sandbox-probe", "act", "answers", "1048576"]).await?;
    let answers = eventually("the terminal has answered", || async {
        fs::read(running.workspace.join("answers")).ok().filter(|all| all.ends_with(b"c"))
    })
    .await;
    let text = String::from_utf8_lossy(&answers).into_owned();
    // Its kind, which shows that it does answer, and neither title nor clipboard nor settings.
    assert!(text.contains("\x1b[?"), "{text:?}");
    for told in ["typed by nobody", "]52", "]l", "]L", "544e", "QUFB"] {
        assert!(!text.contains(told), "{told:?} in {text:?}");
    }
    let screen = scene.screen(running.session).await?;
    assert!(screen.contains("ready"), "{screen:?}");
    let used = resident_kib(scene.shim(running.session)?.pid)?;
    assert!(used < SHIM_KIB_MAX, "{used} KiB after a title of a megabyte");
    Ok(())
}

#[tokio::test]
async fn viewers_that_come_and_go_type_nothing_and_end_nothing() -> Result<()> {
    let mut scene = Scene::new().await?;
    let running = scene.run("typed", &["sandbox-probe", "act", "typed", "typed"]).await?;
    let session = running.session;
    eventually("it listens", || async { running.workspace.join("typed").exists().then_some(()) }).await;
    for stream in 1..4 {
        scene.link.send(&PlaneMessage::Watch { stream, session, spawn: 1, from: Some(0), limit: 1 << 30 }).await?;
        scene.link.output(stream, |seen| String::from_utf8_lossy(seen).contains("ready")).await?;
        if stream == 2 {
            scene.link.send(&PlaneMessage::Unwatch { stream }).await?;
        } else {
            // The link is cut in the middle, and comes again.
            scene.link = {
                let Scene { plane, link, .. } = &mut scene;
                link.close().await;
                plane.accept().await?
            };
        }
    }
    scene.link.send(&PlaneMessage::Watch { stream: 9, session, spawn: 1, from: Some(0), limit: 1 << 30 }).await?;
    scene.link.input(9, 1, b"x").await?;
    let typed = eventually("what is typed arrives", || async {
        fs::read(running.workspace.join("typed")).ok().filter(|all| !all.is_empty())
    })
    .await;
    assert_eq!(String::from_utf8_lossy(&typed), "x");
    Ok(())
}

#[tokio::test]
async fn sizes_that_no_window_has_harm_nobody() -> Result<()> {
    let mut scene = Scene::new().await?;
    let running = scene.run("sizes", &["sandbox-probe", "act", "sizes"]).await?;
    for (columns, rows) in [(0, 0), (u16::MAX, u16::MAX), (1, u16::MAX), (u16::MAX, 1), (80, 24)] {
        // What is no size is not one, before it gets anywhere.
        assert!(WindowSize::new(columns, rows).is_err() || (columns, rows) == (80, 24));
        let size = WindowSize::clamped(columns, rows);
        scene
            .link
            .command(running.session, Command::Resize { spawn: 1, size })
            .await?
            .map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    // It still shows a screen, and still runs.
    scene.screen(running.session).await?;
    assert!(scene.members(running.session)?.len() >= 2);
    let used = resident_kib(scene.shim(running.session)?.pid)?;
    assert!(used < SHIM_KIB_MAX, "{used} KiB");
    Ok(())
}
