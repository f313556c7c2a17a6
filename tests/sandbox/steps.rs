//! Starts that are killed after each of their steps: supervisor, shim or init, whoever makes the step or waits for it.
//!
//! The probe's tracer (`probe/step.rs`) kills after a step that is named, so each moment is met exactly and every time. What a start did before it
//! may take as long as it wants.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use agentapi_shared::jail::SLOT_UID_BASE;
use agentapi_shared::link::{Command as LinkCommand, PlaneMessage, StartSpawn};
use agentapi_shared::{SessionId, SpawnState};
use agentapi_tests::plane::custom;
use agentapi_tests::process::{Daemon, binary, processes};
use agentapi_tests::wait::eventually;
use anyhow::{Context, Result, bail, ensure};

use crate::scene::Scene;
use crate::world::{cgroups_of, mounts_below};

/// A step of a start: whose, its number among those, and the call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    who: String,
    number: u32,
    call: String,
}

/// What is run: it works in HOME and workspace, which therefore have to be its own.
const WORK: [&str; 3] = ["sh", "-c", "touch made \"$HOME/made\"; exec sleep 36411"];

/// So many moments there are at least, or the tracer has missed most of the start.
const LEAST: usize = 60;
/// Number of the command whose answer nobody hears.
const UNANSWERED: u64 = 1 << 40;

fn start() -> StartSpawn {
    StartSpawn { env: Some(Default::default()), ..custom(&WORK) }
}

/// A scene whose shim is the real one: nobody stands in between.
async fn scene() -> Result<Scene> {
    let scene = Scene::new().await?;
    let shim = scene.dir.path().join("shim/agentapi-shim");
    fs::remove_file(&shim)?;
    symlink(binary("agentapi-shim"), shim)?;
    Ok(scene)
}

/// Follows the supervisor; `wanted` is the step after which the victim dies, none: nobody does.
async fn trace(scene: &Scene, wanted: Option<(&Step, &str)>) -> Result<(Daemon, PathBuf)> {
    let file = scene.dir.path().join("steps");
    let _before = fs::remove_file(&file);
    let (who, number, victim) = match wanted {
        Some((step, victim)) => (step.who.as_str(), step.number, victim),
        None => ("shim", 0, "shim"),
    };
    let mut command = Command::new(scene.probe());
    command.args(["step", &scene.daemon.pid().to_string()]).arg(&file).args([who, &number.to_string(), victim]);
    let mut tracer = Daemon::start(command, &scene.dir.path().join("tracer.log"))?;
    ensure!(tracer.line().await? == "attached");
    Ok((tracer, file))
}

/// The steps of a start that nobody disturbs, in their order.
async fn recorded(scene: &mut Scene) -> Result<Vec<Step>> {
    let (tracer, file) = trace(scene, None).await?;
    let session = SessionId::generate();
    accepted(scene, session).await?;
    let report = scene.link.report(session, SpawnState::Running).await?;
    ensure!(report.state == SpawnState::Running, "{report:?}");
    // Those that it followed go on without it.
    drop(tracer);
    end(scene, session).await?;
    let text = fs::read_to_string(file)?;
    let step = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let (who, number, call) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        Some(Step { who, number, call })
    };
    text.lines().map(|line| step(line).with_context(|| line.to_owned())).collect()
}

/// The steps after which something dies. The thirtieth directory is mounted as the second one was: of calls that follow each other in the same way
/// more often, the first and the last.
fn moments(steps: &[Step]) -> Vec<Step> {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    let mut seen: BTreeMap<(&str, &str, &str), (usize, usize)> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        let before = last.insert(&step.who, &step.call).unwrap_or_default();
        seen.entry((&step.who, before, &step.call)).or_insert((index, index)).1 = index;
    }
    let kept: BTreeSet<usize> = seen.into_values().flat_map(|(first, last)| [first, last]).collect();
    kept.into_iter().filter_map(|index| steps.get(index).cloned()).collect()
}

async fn accepted(scene: &mut Scene, session: SessionId) -> Result<()> {
    match scene.link.command(session, LinkCommand::Start(start())).await? {
        Ok(_) => Ok(()),
        Err(error) => bail!("start refused: {error}"),
    }
}

/// Ends and removes a session that runs; it has worked.
async fn end(scene: &mut Scene, session: SessionId) -> Result<()> {
    eventually("it works in its directories", || async {
        // Who was killed may not have come to note init in the record.
        let inside = PathBuf::from(format!("/proc/{}/root", scene.init(session).ok()?.pid));
        ["workspace/made", "home/agent/made"].iter().all(|made| inside.join(made).exists()).then_some(())
    })
    .await;
    scene.stop(session, 1, 0).await?;
    scene.purge(session).await
}

/// Nothing of a session is there any more: processes, groups, directories.
async fn gone(scene: &Scene, session: SessionId) {
    let shim = fs::canonicalize(binary("agentapi-shim")).unwrap_or_default();
    let ours = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == shim);
    eventually("every process of it is gone", || async {
        (!processes().iter().any(|process| ours(process.pid) || WORK[2].ends_with(&process.command))).then_some(())
    })
    .await;
    let groups = cgroups_of(&session.to_string());
    assert!(groups.is_empty(), "{groups:?}");
    let sessions = scene.state_dir().join("sessions");
    let left: Vec<_> = fs::read_dir(sessions).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Shim or init dies: the supervisor tells it as a failure. First id of the session's block.
async fn without_victim(scene: &mut Scene, step: &Step, victim: &str) -> Result<u32> {
    let (mut tracer, file) = trace(scene, Some((step, victim))).await?;
    let session = SessionId::generate();
    accepted(scene, session).await?;
    let mut report = scene.link.report(session, SpawnState::Running).await?;
    tracer.ended().await?;
    let text = fs::read_to_string(file)?;
    ensure!(text.ends_with("killed\n"), "nobody was killed: {text}");
    if report.state == SpawnState::Running {
        // The kill came after the last step that the supervisor waits for.
        report = scene.link.report(session, SpawnState::Failed).await?;
    }
    // Where the agent ran already it may be its end that is told.
    let killed = report.exit.as_ref().is_some_and(|exit| exit.signal.as_deref() == Some("SIGKILL"));
    ensure!(report.state == SpawnState::Failed || killed, "{report:?}");
    let base = scene.block(session)?;
    scene.purge(session).await?;
    gone(scene, session).await;
    Ok(base)
}

/// What the control plane does about a session whose host has come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// It asks for the same start again, as it has no answer.
    Again,
    /// It wants the session gone.
    Gone,
}

/// The supervisor dies: the next one knows what there is, and can start and remove it.
async fn without_supervisor(scene: &mut Scene, step: &Step, wish: Wish) -> Result<()> {
    let (mut tracer, file) = trace(scene, Some((step, "supervisor"))).await?;
    let session = SessionId::generate();
    let command = PlaneMessage::Command { id: UNANSWERED, session, command: Box::new(LinkCommand::Start(start())) };
    scene.link.send(&command).await?;
    tracer.ended().await?;
    let text = fs::read_to_string(file)?;
    ensure!(text.ends_with("killed\n"), "nobody was killed: {text}");
    scene.daemon.ended().await?;
    scene.start_again().await?;
    let found = scene.link.hello.inventory.iter().find(|spawn| spawn.session == session).map(|spawn| spawn.state);
    let mut runs = found == Some(SpawnState::Running);
    ensure!(found.is_none_or(|state| runs || state == SpawnState::Failed), "it is {found:?}");
    if wish == Wish::Again && found.is_none() {
        accepted(scene, session).await?;
        runs = scene.link.report(session, SpawnState::Running).await?.state == SpawnState::Running;
        ensure!(runs, "what was never started does not start");
    }
    if runs {
        end(scene, session).await?;
    } else {
        scene.purge(session).await?;
    }
    gone(scene, session).await;
    Ok(())
}

#[tokio::test]
async fn a_start_that_is_killed_after_any_step_leaves_nothing() -> Result<()> {
    let mut scene = scene().await?;
    let before = mounts_below(scene.dir.path());
    let steps = recorded(&mut scene).await?;
    let mut bases = Vec::new();
    for step in moments(&steps) {
        let victims: &[&str] = match step.who.as_str() {
            "shim" => &["shim"],
            "init" | "agent" => &["init", "shim"],
            _ => &[],
        };
        for victim in victims {
            let base = without_victim(&mut scene, &step, victim).await;
            bases.push(base.with_context(|| format!("{victim} killed after {step:?}"))?);
        }
    }
    ensure!(bases.len() > LEAST, "only {} moments", bases.len());
    bases.dedup();
    assert_eq!(bases.len(), 1, "the slot of a start that was killed is free again");
    assert_eq!(mounts_below(scene.dir.path()), before);
    Ok(())
}

#[tokio::test]
async fn a_supervisor_that_is_killed_after_any_step_of_a_start_comes_back_to_it() -> Result<()> {
    let mut scene = scene().await?;
    let before = mounts_below(scene.dir.path());
    let steps = recorded(&mut scene).await?;
    // What the shim does meanwhile needs no supervisor, but where they talk.
    let heard = |step: &&Step| step.who == "supervisor" || step.who == "shim" && step.call.ends_with("msg");
    for step in steps.iter().filter(heard) {
        for wish in [Wish::Again, Wish::Gone] {
            let done = without_supervisor(&mut scene, step, wish).await;
            done.with_context(|| format!("{wish:?} after {step:?}"))?;
        }
    }
    let last = SessionId::generate();
    accepted(&mut scene, last).await?;
    scene.link.report(last, SpawnState::Running).await?;
    assert_eq!(scene.block(last)?, SLOT_UID_BASE, "every slot is free again");
    end(&mut scene, last).await?;
    assert_eq!(mounts_below(scene.dir.path()), before);
    Ok(())
}
