//! Ends: of those that do not want to, of those that cannot hear it, and of the daemons themselves.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agentapi_shared::{ExitReason, SessionId, SpawnState};
use agentapi_tests::process::processes;
use agentapi_tests::wait::{eventually, here};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scene::Scene;

/// A stop is over so long after its grace, on a loaded machine too. An emulated one takes longer.
const GONE_WITHIN: Duration = Duration::from_secs(1);

async fn gone(scene: &Scene, session: SessionId, base: u32) {
    eventually("every process of the session is gone", || async {
        let block = base..base + agentapi_shared::jail::SLOT_UIDS - 1;
        let left = processes().into_iter().filter(|process| block.contains(&process.uid)).count();
        (left == 0).then_some(())
    })
    .await;
    assert!(scene.session_dir(session).exists(), "and its record is still there");
}

#[tokio::test]
async fn strays_that_hear_no_signal_are_gone_with_their_session() -> Result<()> {
    let mut scene = Scene::new().await?;
    let running = scene.run("strays", &["sandbox-probe", "act", "strays", "20"]).await?;
    let base = scene.block(running.session)?;
    // Init, the agent, and twenty that belong to nobody.
    eventually("the strays are there", || async {
        scene.members(running.session).is_ok_and(|all| all.len() >= 22).then_some(())
    })
    .await;
    let grace = Duration::from_millis(200);
    let asked = Instant::now();
    scene.stop(running.session, 1, 200).await?;
    gone(&scene, running.session, base).await;
    let took = asked.elapsed();
    assert!(took < grace + here(GONE_WITHIN), "gone only after {took:?}");
    // The control: without a jail they outlive whoever started them, and its end.
    let mut bare = Command::new(scene.probe()).args(["act", "strays", "2"]).stdout(Stdio::piped()).spawn()?;
    let marker = "sandbox-probe act strays 2";
    eventually("the control's strays are there", || async { (of_command(marker).len() == 3).then_some(()) }).await;
    bare.kill()?;
    bare.wait()?;
    let left = of_command(marker);
    for pid in &left {
        kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
    }
    assert_eq!(left.len(), 2);
    Ok(())
}

fn of_command(marker: &str) -> Vec<i32> {
    processes().into_iter().filter(|process| process.command.ends_with(marker)).map(|process| process.pid).collect()
}

#[tokio::test]
async fn stopped_processes_are_gone_with_their_session() -> Result<()> {
    let mut scene = Scene::new().await?;
    let running = scene.run("stopped", &["sandbox-probe", "act", "stopped"]).await?;
    let base = scene.block(running.session)?;
    eventually("both are stopped", || async {
        let all = scene.members(running.session).ok()?;
        let stopped = all.iter().filter(|process| state_of(process.pid).starts_with('T')).count();
        (stopped == 2).then_some(())
    })
    .await;
    let asked = Instant::now();
    scene.stop(running.session, 1, 200).await?;
    gone(&scene, running.session, base).await;
    assert!(asked.elapsed() < Duration::from_millis(200) + here(GONE_WITHIN), "{:?}", asked.elapsed());
    Ok(())
}

fn state_of(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_killed_supervisor_leaves_a_session_and_a_killed_shim_takes_it() -> Result<()> {
    let mut scene = Scene::new().await?;
    let running = scene.run("kept", &["sandbox-probe", "act", "strays", "3"]).await?;
    let base = scene.block(running.session)?;
    eventually("it is there", || async {
        scene.members(running.session).is_ok_and(|all| all.len() >= 5).then_some(())
    })
    .await;
    let before = scene.members(running.session)?.len();
    scene.daemon.signal(Signal::SIGKILL)?;
    scene.daemon.ended().await?;
    assert_eq!(scene.members(running.session)?.len(), before);
    scene.start_again().await?;
    let known = scene.link.hello.inventory.first().context("the session in the inventory")?;
    assert_eq!((known.session, known.state), (running.session, SpawnState::Running));
    kill(Pid::from_raw(scene.shim(running.session)?.pid), Signal::SIGKILL)?;
    gone(&scene, running.session, base).await;
    let report = scene.link.report(running.session, SpawnState::Failed).await?;
    assert_eq!(report.exit.context("an exit")?.reason, ExitReason::ShimLost);
    Ok(())
}
