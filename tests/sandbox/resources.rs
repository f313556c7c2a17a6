//! Use without end: of processors, of a terminal that nobody reads, of a disk that has to be cleaned up.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agentapi_tests::wait::{eventually, here};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scene::{CPU, DISK_BYTES_PER_SECOND, JOURNAL_MB, Kind, SLOW_DISK, Scene, UNLIMITED};
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

/// Ways to keep a disk busy with 3 MiB, past the page cache and through it.
const BUSY: [(&str, &str); 3] = [
    ("written", "dd if=/dev/zero of=block bs=64k count=48 oflag=direct"),
    ("read", "dd if=block of=/dev/null bs=64k iflag=direct"),
    ("written through the cache", "dd if=/dev/zero of=other bs=64k count=48 conv=fsync"),
];
const BUSY_BYTES: u64 = 3 << 20;

#[tokio::test]
async fn a_disk_is_kept_busy_no_more_than_its_session_may() -> Result<()> {
    let mut scene = Scene::new().await?;
    if let Some(lacks) = lacks_disk_limits(scene.dir.path())? {
        eprintln!("not shown on this host, {lacks}: 69 keep the disk busy");
        return Ok(());
    }
    let usual = Duration::from_secs_f64(BUSY_BYTES as f64 / DISK_BYTES_PER_SECOND as f64);
    scene.profile = SLOW_DISK;
    let limited = busy(&mut scene).await?;
    scene.profile = UNLIMITED;
    let control = busy(&mut scene).await?;
    for ((way, _), (limited, control)) in BUSY.iter().zip(limited.into_iter().zip(control)) {
        // The kernel lets a moment's worth through at once.
        assert!(limited > usual.mul_f64(0.7), "{way}: only {limited:?}, where the limit allows it in {usual:?}");
        assert!(
            control < limited / 2,
            "{way}: the control took {control:?} and {limited:?} with the limit: this disk is too slow to show anything"
        );
    }
    Ok(())
}

/// How long each way takes in a session, as seen from outside.
async fn busy(scene: &mut Scene) -> Result<Vec<Duration>> {
    let steps: Vec<String> = BUSY
        .iter()
        .enumerate()
        .map(|(step, (_, command))| format!("echo >begun{step}; {command} || exit; echo >done{step}"))
        .collect();
    let running = scene.run_own(&["sh", "-c", &format!("{}; sleep 3600", steps.join("; "))]).await?;
    let mut took = Vec::new();
    for step in 0..BUSY.len() {
        let there = |name: &str| running.workspace.join(format!("{name}{step}")).exists().then(Instant::now);
        let begun = eventually("a way is begun", || async { there("begun") }).await;
        took.push(eventually("it is over", || async { there("done") }).await - begun);
    }
    scene.stop(running.session, 1, 0).await?;
    scene.purge(running.session).await?;
    Ok(took)
}

/// Why this host limits no traffic to the disk that holds a directory, if it does not.
fn lacks_disk_limits(dir: &Path) -> Result<Option<&'static str>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    if table.contains(" - cgroup ") || !table.contains(" - cgroup2 ") {
        return Ok(Some("limits of disk traffic exist in cgroup v2 alone"));
    }
    let device = std::os::unix::fs::MetadataExt::dev(&fs::metadata(dir)?);
    let disk = format!("/sys/dev/block/{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    Ok((!Path::new(&disk).exists()).then_some("what holds the sessions is on no disk of its own"))
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
    // A disk is one file to the host.
    let mut scene = Scene::of(Kind::WithoutDisks).await?;
    let outside = scene.dir.path().join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("kept"), "kept")?;
    let link = outside.display().to_string();
    let running = scene.run_own(&["sandbox-probe", "act", "deep", "2000", "5000", &link]).await?;
    eventually("everything is made", || async { scene_ready(&running.workspace).then_some(()) }).await;
    let deadline = Instant::now() + here(PURGE_MAX);
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
    assert!(asked.elapsed() < here(PURGE_MAX), "{:?}", asked.elapsed());
    assert_eq!(fs::read_to_string(outside.join("kept")).context("what the link led to")?, "kept");
    Ok(())
}

fn scene_ready(workspace: &Path) -> bool {
    workspace.join("many").exists() && workspace.join("d/d/d").exists()
}
