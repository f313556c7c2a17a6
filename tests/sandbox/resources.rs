//! Use without end: of processors, of a terminal that nobody reads, of a disk that has to be cleaned up.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agentapi_tests::wait::eventually;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scene::{CPU, JOURNAL_MB, Scene};
use crate::tty::resident_kib;

/// How long processor time is measured: several periods of any quota.
const MEASURED: Duration = Duration::from_millis(2500);
/// A purge of what one session can leave takes so long at most.
const PURGE_MAX: Duration = Duration::from_secs(30);

/// Processor time of processes, in seconds.
fn used_seconds(pids: &[i32]) -> f64 {
    let ticks: u64 = pids.iter().map(|pid| ticks_of(*pid)).sum();
    // A tick is a hundredth of a second to user space, on every Linux.
    ticks as f64 / 100.0
}

fn ticks_of(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    // utime and stime are fields 14 and 15; the state is the third.
    [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<u64>().ok()).sum()
}

/// Share of a core that processes take over a while.
async fn share(pids: &[i32]) -> f64 {
    let (before, since) = (used_seconds(pids), Instant::now());
    tokio::time::sleep(MEASURED).await;
    (used_seconds(pids) - before) / since.elapsed().as_secs_f64()
}

#[tokio::test]
async fn burning_on_every_core_gets_no_more_than_its_share() -> Result<()> {
    let mut scene = Scene::new().await?;
    let running = scene.run("burn", &["sandbox-probe", "act", "burn", "4"]).await?;
    let pids: Vec<i32> = eventually("all of them burn", || async {
        let all = scene.members(running.session).ok()?;
        (all.len() >= 6).then(|| all.iter().map(|process| process.pid).collect())
    })
    .await;
    let inside = share(&pids).await;
    scene.stop(running.session, 1, 0).await?;
    let mut bare = Command::new(scene.probe()).args(["act", "burn", "4"]).stdout(Stdio::null()).spawn()?;
    let marker = "sandbox-probe act burn 4";
    let of = || {
        agentapi_tests::process::processes()
            .into_iter()
            .filter(|process| process.command.ends_with(marker))
            .map(|process| process.pid)
            .collect::<Vec<_>>()
    };
    eventually("the control burns", || async { (of().len() == 5).then_some(()) }).await;
    let pids = of();
    // On a machine that is busy otherwise it may take a while until they get what they want.
    let mut outside: f64 = 0.0;
    for _ in 0..8 {
        outside = outside.max(share(&pids).await);
        if outside > CPU as f64 / 100.0 * 1.3 {
            break;
        }
    }
    for pid in pids {
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    bare.wait()?;
    let quota = CPU as f64 / 100.0;
    assert!(inside < quota * 1.3, "{inside:.2} of a core inside, with a quota of {quota}");
    assert!(
        outside > quota * 1.3,
        "the control took only {outside:.2} of a core: this machine is too busy to show anything"
    );
    Ok(())
}

#[tokio::test]
async fn output_that_nobody_reads_costs_neither_memory_nor_disk() -> Result<()> {
    let mut scene = Scene::new().await?;
    let running = scene.run("flood", &["sandbox-probe", "act", "flood"]).await?;
    let journal = scene.session_dir(running.session).join("spawns/1/journal");
    let segments = || {
        let all = fs::read_dir(&journal).into_iter().flatten().flatten();
        all.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.len())))
            .collect::<Vec<_>>()
    };
    let first = eventually("the journal begins", || async { segments().into_iter().map(|(name, _)| name).min() }).await;
    eventually("what the journal keeps has been written over", || async {
        segments().iter().all(|(name, _)| *name > first).then_some(())
    })
    .await;
    let kept: u64 = segments().iter().map(|(_, bytes)| bytes).sum();
    assert!(kept <= (JOURNAL_MB + 4) << 20, "{kept} bytes of journal");
    let used = resident_kib(scene.shim(running.session)?.pid)?;
    assert!(used < 96 * 1024, "{used} KiB of shim");
    Ok(())
}

#[tokio::test]
async fn what_a_session_leaves_is_removed_in_time_and_links_are_not_followed() -> Result<()> {
    let mut scene = Scene::new().await?;
    let outside = scene.dir.path().join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("kept"), "kept")?;
    let link = outside.display().to_string();
    let running = scene.run_own(&["sandbox-probe", "act", "deep", "2000", "5000", &link]).await?;
    eventually("everything is made", || async { scene_ready(&running.workspace).then_some(()) }).await;
    let deadline = Instant::now() + PURGE_MAX;
    while !scene.screen(running.session).await?.contains("ready") {
        assert!(Instant::now() < deadline, "the mess is not made in time");
    }
    scene.stop(running.session, 1, 0).await?;
    let asked = Instant::now();
    scene.purge(running.session).await?;
    let sessions = scene.state_dir().join("sessions");
    eventually("nothing of it is left", || async {
        fs::read_dir(&sessions).is_ok_and(|mut all| all.next().is_none()).then_some(())
    })
    .await;
    assert!(asked.elapsed() < PURGE_MAX, "{:?}", asked.elapsed());
    assert_eq!(fs::read_to_string(outside.join("kept")).context("what the link led to")?, "kept");
    Ok(())
}

fn scene_ready(workspace: &std::path::Path) -> bool {
    workspace.join("many").exists() && workspace.join("d/d/d").exists()
}
