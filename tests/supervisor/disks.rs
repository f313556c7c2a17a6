//! Disks of sessions: what they hold and no more, what they keep, and that nothing of them stays on the host.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentapi_shared::api::{Limits, SandboxRequest};
use agentapi_shared::link::{Command, SpawnReport, StartSpawn};
use agentapi_shared::{ExitReason, SessionId, SpawnState};
use agentapi_tests::plane::{Link, custom};
use agentapi_tests::process::{kill_survivors, loop_files};
use agentapi_tests::wait::eventually;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};

use crate::harness::{Host, Lack};

const DISK_BYTES: u64 = 64 << 20;

fn assert_root() {
    assert!(nix::unistd::geteuid().is_root(), "these tests are of disks, which only root can make");
}

/// A spawn of a session with a small disk.
fn spawn(number: u32, script: &str) -> Command {
    let limits = Limits { disk_bytes: Some(DISK_BYTES), ..Limits::default() };
    let sandbox = SandboxRequest { limits, ..SandboxRequest::default() };
    let generation = u64::from(number) * 2 - 1;
    Command::Start(StartSpawn { spawn: number, generation, sandbox, ..custom(&["bash", "-c", script]) })
}

/// Starts one and waits for what becomes of it.
async fn run(link: &mut Link, session: SessionId, command: Command, state: SpawnState) -> Result<SpawnReport> {
    let number = match &command {
        Command::Start(start) => start.spawn,
        _ => bail!("no start"),
    };
    if let Err(error) = link.command(session, command).await? {
        bail!("start refused: {error}");
    }
    report(link, session, number, state).await
}

/// What is told of this spawn: ends of earlier ones are told again to each new control plane.
async fn report(link: &mut Link, session: SessionId, number: u32, state: SpawnState) -> Result<SpawnReport> {
    loop {
        let report = link.report(session, state).await?;
        if report.spawn == number {
            return Ok(report);
        }
    }
}

/// The same for one that ends by itself, and well.
async fn succeeds(link: &mut Link, session: SessionId, number: u32, script: &str) -> Result<SpawnReport> {
    let report = run(link, session, spawn(number, script), SpawnState::Exited).await?;
    let exit = report.exit.clone().context("an exit")?;
    assert_eq!((exit.reason, exit.code), (ExitReason::Exited, Some(0)), "{script}: {exit:?}");
    Ok(report)
}

async fn stop(link: &mut Link, session: SessionId, spawn: u32) -> Result<()> {
    let generation = u64::from(spawn) * 2;
    link.command(session, Command::Stop { spawn, generation, grace_ms: 0, force: true }).await??;
    report(link, session, spawn, SpawnState::Exited).await?;
    Ok(())
}

/// Whatever the session's directory is called by now.
async fn released(host: &Host) {
    eventually("no device is left", || async { loop_files(host.dir.path()).is_empty().then_some(()) }).await;
}

/// What an image takes on the host.
fn taken(image: &Path) -> Result<u64> {
    Ok(fs::metadata(image)?.blocks() * 512)
}

#[tokio::test]
async fn what_is_full_is_the_disk_of_the_session_and_what_is_deleted_comes_back() -> Result<()> {
    assert_root();
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let session = SessionId::generate();
    let image = host.session_dir(session).join("disk.img");
    // More than it should hold, and no more than a host can bear if it does.
    let fill = r#"
        [ "$(stat -c %d ~)" = "$(stat -c %d /workspace)" ] || exit 10
        LC_ALL=C dd if=/dev/zero of="$HOME/full" bs=1M count=256 2>&1 | grep -q 'No space left' || exit 11
        dd if=/dev/zero of=/workspace/more bs=1M count=8 2>/dev/null && exit 12
        [ "$(stat -c %s ~/full)" -gt 48000000 ] || exit 13
    "#;
    let report = succeeds(&mut link, session, 1, fill).await?;
    let posture = report.posture.context("a posture")?;
    assert_eq!(posture.limits.disk_bytes, Some(DISK_BYTES));
    assert!(!posture.degraded.contains(&"no-disk-quota".to_owned()), "{posture:?}");
    released(&host).await;
    let full = taken(&image)?;
    assert!(fs::metadata(&image)?.len() == DISK_BYTES && full <= DISK_BYTES, "{full} bytes");
    succeeds(&mut link, session, 2, "rm ~/full /workspace/more && echo x >/workspace/more && sync").await?;
    released(&host).await;
    assert!(taken(&image)? < 8 << 20 && full > 48 << 20, "{full} bytes, then {}", taken(&image)?);
    // Files without anything in them.
    let inodes =
        "mkdir ~/many && cd ~/many && seq 20000 | LC_ALL=C xargs touch 2>&1 | grep -q 'No space left' || exit 14
        [ \"$(ls | wc -l)\" -lt 8192 ] || exit 15";
    succeeds(&mut link, session, 3, inodes).await?;
    Ok(())
}

#[tokio::test]
async fn files_are_kept_over_stops_and_kills_and_no_device_is_left() -> Result<()> {
    assert_root();
    let host = Host::new().await?;
    let (mut daemon, mut link) = host.linked().await?;
    let session = SessionId::generate();
    let wait = "sleep 1000";
    let begin = format!("echo one >~/kept && {wait}");
    run(&mut link, session, spawn(1, &begin), SpawnState::Running).await?;
    assert_eq!(loop_files(host.dir.path()).len(), 1);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(" - ext4 /dev/loop"), "it is mounted on the host:\n{mounts}");
    stop(&mut link, session, 1).await?;
    released(&host).await;
    // A supervisor that is killed: the session goes on, on the same disk.
    run(&mut link, session, spawn(2, &format!("[ $(cat ~/kept) = one ] && {wait}")), SpawnState::Running).await?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    drop(link);
    assert_eq!(loop_files(host.dir.path()).len(), 1);
    let (mut daemon, mut link) = host.linked().await?;
    assert_eq!(link.hello.inventory.iter().map(|spawn| spawn.session).collect::<Vec<_>>(), [session]);
    stop(&mut link, session, 2).await?;
    released(&host).await;
    // A shim that is killed.
    let dirty = format!(
        "[ $(cat ~/kept) = one ] && echo two >>~/kept && head -c 20000000 /dev/urandom >~/dirty && touch ~/ready && {wait}"
    );
    run(&mut link, session, spawn(3, &dirty), SpawnState::Running).await?;
    let shim = host.shim(session)?;
    eventually("it has written", || async {
        taken(&host.session_dir(session).join("disk.img")).is_ok_and(|bytes| bytes > 20_000_000).then_some(())
    })
    .await;
    kill(shim, Signal::SIGKILL)?;
    report(&mut link, session, 3, SpawnState::Failed).await?;
    // At once: what is still being written is waited for.
    let check = "[ \"$(cat ~/kept)\" = $'one\\ntwo' ] && [ $(stat -c %s ~/dirty) = 20000000 ]";
    succeeds(&mut link, session, 4, check).await?;
    released(&host).await;
    // Everything that there is.
    run(&mut link, session, spawn(5, wait), SpawnState::Running).await?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    drop(link);
    kill_survivors(&host.state_dir());
    released(&host).await;
    let (_daemon, mut link) = host.linked().await?;
    succeeds(&mut link, session, 6, check).await?;
    link.command(session, Command::Purge).await??;
    released(&host).await;
    assert!(!host.session_dir(session).exists());
    Ok(())
}

#[tokio::test]
async fn a_session_of_before_there_were_disks_goes_on_and_is_purged() -> Result<()> {
    assert_root();
    let host = Host::new().await?;
    let (mut daemon, mut link) = host.linked().await?;
    let session = SessionId::generate();
    succeeds(&mut link, session, 1, "true").await?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended().await?;
    drop(link);
    // As earlier releases made it.
    let dir = host.session_dir(session);
    let agent = Some(fs::metadata(dir.join("disk.img"))?.gid());
    fs::remove_file(dir.join("disk.img"))?;
    for name in ["home", "workspace"] {
        fs::create_dir(dir.join(name))?;
        std::os::unix::fs::chown(dir.join(name), agent, agent)?;
        fs::write(dir.join(name).join("mine"), "mine")?;
        std::os::unix::fs::chown(dir.join(name).join("mine"), agent, agent)?;
    }
    let (_daemon, mut link) = host.linked().await?;
    let plain =
        StartSpawn { spawn: 2, generation: 3, ..custom(&["sh", "-c", "cat ~/mine && echo more >>/workspace/mine"]) };
    let report = run(&mut link, session, Command::Start(plain), SpawnState::Exited).await?;
    assert_eq!(report.exit.and_then(|exit| exit.code), Some(0));
    let posture = report.posture.context("a posture")?;
    assert_eq!(posture.limits.disk_bytes, None);
    assert!(posture.degraded.contains(&"no-disk-quota".to_owned()), "{posture:?}");
    assert_eq!(fs::read_to_string(dir.join("workspace/mine"))?, "minemore\n");
    assert!(!dir.join("disk.img").exists() && loop_files(host.dir.path()).is_empty());
    link.command(session, Command::Purge).await??;
    assert!(!dir.exists());
    Ok(())
}

#[tokio::test]
async fn a_session_whose_first_start_failed_at_its_disk_begins_in_directories_of_its_own() -> Result<()> {
    assert_root();
    let mut host = Host::new().await?;
    let (mut daemon, mut link) = host.linked().await?;
    let session = SessionId::generate();
    // In the way of its image.
    fs::create_dir_all(host.session_dir(session).join("disk.new/full"))?;
    let report = run(&mut link, session, spawn(1, "true"), SpawnState::Failed).await?;
    assert!(report.exit.is_some_and(|exit| exit.detail.contains("disk: cannot replace")));
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended().await?;
    drop(link);
    host.lacks = Some(Lack::LoopDevices);
    let (_daemon, mut link) = host.linked().await?;
    let plain = StartSpawn {
        spawn: 2,
        generation: 3,
        ..custom(&["sh", "-c", "echo mine >~/mine && echo mine >/workspace/mine"])
    };
    let report = run(&mut link, session, Command::Start(plain), SpawnState::Exited).await?;
    assert_eq!(report.exit.and_then(|exit| exit.code), Some(0));
    assert_eq!(fs::read_to_string(host.session_dir(session).join("home/mine"))?, "mine\n");
    Ok(())
}

#[tokio::test]
async fn neither_a_stop_nor_the_supervisors_end_waits_for_a_disk_that_is_held() -> Result<()> {
    assert_root();
    // A disk is waited for longer than all of this may take.
    const LONGEST: Duration = Duration::from_secs(15);
    let host = Host::new().await?;
    let (mut daemon, mut link) = host.linked().await?;
    let session = SessionId::generate();
    succeeds(&mut link, session, 1, "true").await?;
    released(&host).await;
    let image = fs::File::open(host.session_dir(session).join("disk.img"))?;
    image.lock()?;
    let began = Instant::now();
    link.command(session, spawn(2, "true")).await??;
    stop(&mut link, session, 2).await?;
    link.command(session, spawn(3, "true")).await??;
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended().await?;
    assert!(began.elapsed() < LONGEST, "{:?}", began.elapsed());
    drop((link, image));
    let (_daemon, mut link) = host.linked().await?;
    succeeds(&mut link, session, 4, "true").await?;
    Ok(())
}

#[tokio::test]
async fn a_disk_that_is_no_disk_any_more_is_not_made_anew() -> Result<()> {
    assert_root();
    let host = Host::new().await?;
    let (_daemon, mut link) = host.linked().await?;
    let session = SessionId::generate();
    succeeds(&mut link, session, 1, "true").await?;
    released(&host).await;
    let image = host.session_dir(session).join("disk.img");
    fs::write(&image, vec![0; 1 << 20])?;
    let report = run(&mut link, session, spawn(2, "true"), SpawnState::Failed).await?;
    let exit = report.exit.context("an exit")?;
    assert!(exit.reason == ExitReason::StartFailed && exit.detail.contains("disk: e2fsck: "), "{exit:?}");
    assert_eq!(fs::read(&image)?, vec![0; 1 << 20]);
    link.command(session, Command::Purge).await??;
    Ok(())
}

#[tokio::test]
async fn nothing_starts_on_a_host_whose_own_disk_is_nearly_full() -> Result<()> {
    assert_root();
    let mut host = Host::new().await?;
    host.lacks = Some(Lack::Room);
    let (mut daemon, mut link) = host.linked().await?;
    let directories = SessionId::generate();
    let seen_by_it = PathBuf::from(format!("/proc/{}/root", daemon.pid()));
    let home = host.session_dir(directories).join("home");
    fs::create_dir_all(seen_by_it.join(home.strip_prefix("/")?))?;
    let plain = Command::Start(custom(&["true"]));
    for (session, command) in [(SessionId::generate(), spawn(1, "true")), (directories, plain)] {
        let Err(error) = link.command(session, command).await? else { bail!("it was accepted") };
        assert!(error.code == "refused" && error.detail.contains("MiB left on the disk"), "{error:?}");
    }
    // Nobody else sees the directory that its groups are named after.
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended().await?;
    Ok(())
}
