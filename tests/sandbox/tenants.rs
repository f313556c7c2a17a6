//! Two sessions that know everything of each other, and many at once.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use agentapi_shared::api::{ScreenFormat, Workspace};
use agentapi_shared::jail::AGENT_ID;
use agentapi_shared::link::Command as LinkCommand;
use agentapi_shared::{SessionId, SpawnState};
use agentapi_tests::wait::{eventually, here};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scene::{PIDS, Running, Scene};
use crate::world::{cgroups_of, mounts_below};

/// What one tenant tries against another whose names and numbers it knows.
const AGAINST: &str = r#"
try() { if "$@" >/dev/null 2>&1; then echo "GOT THROUGH: $*" >> result; fi; }
try cat "$THEIR_WORKSPACE/secret"
try cat "$THEIR_HOME/secret"
try cat /dev/shm/theirs
try cat /tmp/theirs
for pid in $THEIR_PIDS 2 3 4 5 6 7 8; do
  case "$(tr '\0' ' ' < /proc/$pid/cmdline 2>/dev/null)" in *THEIR[-]MARK*) echo "SEEN: $pid" >> result;; esac
  [ "$pid" -gt 20 ] && try kill -9 "$pid"
  try cat "/proc/$pid/root/workspace/secret"
done
try bash -c "exec 3<>/dev/tcp/127.0.0.1/$THEIR_PORT"
try python3 -c "import socket; socket.socket(socket.AF_UNIX).connect('\0$THEIR_SOCKET')"
for pts in 1 2 3; do [ -e /dev/pts/$pts ] && echo "SEEN: pts $pts" >> result; done
try test -e "/sys/fs/cgroup/$THEIR_SESSION"
echo finished >> result
sleep 3600
"#;

#[tokio::test]
async fn two_sessions_find_nothing_of_each_other() -> Result<()> {
    let mut scene = Scene::new().await?;
    let probe = scene.probe();
    let listen = format!(
        "echo theirs | tee secret $HOME/secret /dev/shm/theirs /tmp/theirs; {probe} act listen theirs-abstract 4711; : THEIR-MARK"
    );
    let theirs = scene.run_own(&["sh", "-c", &listen]).await?;
    let heard = theirs.workspace.join("heard");
    eventually("the victim hears itself", || async {
        fs::read_to_string(&heard).ok().filter(|text| text.lines().count() == 2)
    })
    .await;
    let pids: Vec<String> = scene.members(theirs.session)?.iter().map(|process| process.pid.to_string()).collect();
    let dir = scene.session_dir(theirs.session);
    let script = format!(
        "THEIR_WORKSPACE={0}/workspace THEIR_HOME={0}/home THEIR_PIDS='{1}' THEIR_PORT=4711 THEIR_SOCKET=theirs-abstract THEIR_SESSION={2}\n{AGAINST}",
        dir.display(),
        pids.join(" "),
        theirs.session
    );
    let ours = scene.run_own(&["bash", "-c", &script]).await?;
    let result = ours.workspace.join("result");
    let said = eventually("the attempts are made", || async {
        fs::read_to_string(&result).ok().filter(|text| text.contains("finished"))
    })
    .await;
    assert_eq!(said, "finished\n");
    assert_eq!(fs::read_to_string(&heard)?, "self\nself\n", "nobody but itself was heard");
    let alive = scene.members(theirs.session)?.iter().map(|process| process.pid.to_string()).collect::<BTreeSet<_>>();
    assert!(pids.iter().all(|pid| alive.contains(pid)), "all of the victim's processes live");
    let (a, b) = (scene.block(theirs.session)?, scene.block(ours.session)?);
    assert_ne!(a, b, "each has ids of its own");
    Ok(())
}

#[tokio::test]
async fn a_slot_that_is_used_again_owns_nothing_of_its_former_session() -> Result<()> {
    let mut scene = Scene::new().await?;
    let first = scene.run("first", &["sh", "-c", "echo mine > mine; echo mine > $HOME/mine; sleep 3600"]).await?;
    eventually("its files are there", || async { first.workspace.join("mine").exists().then_some(()) }).await;
    let base = scene.block(first.session)?;
    scene.stop(first.session, 1, 0).await?;
    // Until it is purged, its ids are its own.
    let second = scene.run_own(&["sleep", "3600"]).await?;
    assert_ne!(scene.block(second.session)?, base);
    scene.stop(second.session, 1, 0).await?;
    scene.purge(second.session).await?;
    scene.purge(first.session).await?;
    let third = scene.run_own(&["sleep", "3600"]).await?;
    assert_eq!(scene.block(third.session)?, base, "the slot is used again");
    let own = scene.session_dir(third.session);
    let agent = (base + AGENT_ID).to_string();
    let found = Command::new("find").arg(scene.dir.path()).args(["-uid", &agent]).output()?;
    let found = String::from_utf8(found.stdout)?;
    let foreign: Vec<&str> = found.lines().filter(|path| !std::path::Path::new(path).starts_with(&own)).collect();
    assert_eq!(foreign, Vec::<&str>::new());
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(first.workspace.join("mine"))?);
    assert_eq!(
        owner,
        crate::scene::OWNER,
        "what it wrote in a directory of the host belongs to that directory's owner"
    );
    Ok(())
}

#[tokio::test]
async fn nobody_but_the_supervisor_speaks_to_a_shim() -> Result<()> {
    let mut scene = Scene::new().await?;
    let running = scene.run_own(&["sleep", "3600"]).await?;
    let other = scene.run_own(&["sleep", "3600"]).await?;
    let socket = scene.session_dir(running.session).join("spawns/1/shim.sock");
    let probe = scene.probe();
    let connect = |uid: u32| {
        let output = Command::new(&probe).args(["act", "connect"]).arg(&socket).uid(uid).gid(uid).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    for uid in [scene.block(other.session)? + AGENT_ID, scene.block(running.session)? + AGENT_ID, 65_534] {
        assert_eq!(connect(uid)?, "EACCES", "as uid {uid}");
    }
    // A session that is not there is not there, whoever asks.
    let forged = LinkCommand::Screen { spawn: 1, format: ScreenFormat::Text, scrollback: 0 };
    assert!(scene.link.command(SessionId::generate(), forged).await?.is_err());
    assert_eq!(connect(0)?, "connected", "the control: root, who is the supervisor, may");
    Ok(())
}

#[tokio::test]
async fn many_starts_and_stops_with_faults_leave_nothing_linked() -> Result<()> {
    const ROUNDS: usize = 10;
    const AT_ONCE: usize = 10;
    let mut scene = Scene::new().await?;
    let before = mounts_below(scene.dir.path());
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let mut sessions = Vec::new();
        for _ in 0..AT_ONCE {
            sessions.push(
                scene
                    .run_own(&["sh", "-c", "ls -l /proc/self/fd > fds; cat /proc/self/mountinfo > mounts; sleep 3600"])
                    .await?,
            );
        }
        let mut disks = BTreeSet::new();
        for (index, Running { session, workspace }) in sessions.iter().enumerate() {
            let mounts = eventually("it has looked", || async {
                fs::read_to_string(workspace.join("mounts")).ok().filter(|text| text.ends_with('\n'))
            })
            .await;
            let others = sessions.iter().map(|other| other.session).filter(|other| other != session);
            let foreign: Vec<_> = others.filter(|other| mounts.contains(&other.to_string())).collect();
            ensure!(foreign.is_empty(), "{session} has mounts of {foreign:?}");
            let disk =
                mounts.lines().find(|line| line.contains(" /workspace ")).and_then(|line| line.split(' ').nth(2));
            ensure!(
                disk.is_some_and(|disk| disks.insert(disk.to_owned())),
                "{session} has the disk {disk:?}, {disks:?}"
            );
            // Every third meets a fault instead of a stop.
            match (index + round) % 3 {
                0 => kill(Pid::from_raw(scene.shim(*session)?.pid), Signal::SIGKILL)?,
                1 => {
                    kill(Pid::from_raw(scene.init(*session)?.pid), Signal::SIGKILL)?;
                }
                _ => {
                    scene.stop(*session, 1, 0).await?;
                    continue;
                }
            }
            scene.link.report(*session, SpawnState::Failed).await?;
        }
        for Running { session, .. } in sessions {
            scene.purge(session).await?;
            all.push(session);
        }
    }
    eventually("its mounts are gone", || async { (mounts_below(scene.dir.path()) == before).then_some(()) }).await;
    eventually("its disks are gone", || async {
        agentapi_tests::process::loop_files(scene.dir.path()).is_empty().then_some(())
    })
    .await;
    let cgroups: Vec<_> = all.iter().flat_map(|session| cgroups_of(&session.to_string())).collect();
    assert!(cgroups.is_empty(), "{cgroups:?}");
    Ok(())
}

#[tokio::test]
async fn a_neighbour_at_all_its_limits_does_not_slow_a_start() -> Result<()> {
    const STARTS: usize = 7;
    /// What any busy machine adds.
    const NOISE: Duration = Duration::from_millis(60);
    let mut scene = Scene::new().await?;
    let quiet = median_start(&mut scene, STARTS).await?;
    let probe = scene.probe();
    let all = format!(
        "{probe} act burn 4 & for i in $(seq {PIDS}); do sleep 3600 & done; head -c 400m /dev/zero > /tmp/full; head -c 300m /dev/zero | tail | tr a b & wait"
    );
    let neighbour = scene.run_own(&["bash", "-c", &all]).await?;
    eventually("the neighbour is at its limit of processes", || async {
        scene.members(neighbour.session).is_ok_and(|all| all.len() as u64 > PIDS / 2).then_some(())
    })
    .await;
    let beside = median_start(&mut scene, STARTS).await?;
    assert!(beside <= quiet * 2 + here(NOISE), "{beside:?} beside it, {quiet:?} alone");
    Ok(())
}

async fn median_start(scene: &mut Scene, starts: usize) -> Result<Duration> {
    let mut took = Vec::new();
    for _ in 0..starts {
        let since = Instant::now();
        let running = scene.begin(SessionId::generate(), 1, Workspace::default(), &["sleep", "3600"]).await?;
        took.push(since.elapsed());
        scene.stop(running.session, 1, 0).await?;
        scene.purge(running.session).await?;
    }
    took.sort_unstable();
    took.get(starts / 2).copied().context("a median")
}
