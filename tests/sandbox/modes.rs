//! What hosts that lack something refuse, and what they give all the same.

use std::fs;

use agentapi_shared::SessionId;
use agentapi_shared::api::{MountRequest, SandboxRequest, Workspace, WorkspaceSource};
use agentapi_shared::jail::AGENT_ID;
use agentapi_shared::link::{Command, StartSpawn};
use agentapi_tests::plane::custom;
use agentapi_tests::wait::eventually;
use anyhow::{Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::scene::{Kind, OWNER, Scene};

/// Asks for a start that has to be refused; what was said. Nothing may be there afterwards.
async fn refused(scene: &mut Scene, start: StartSpawn) -> Result<String> {
    let session = SessionId::generate();
    let Err(error) = scene.link.command(session, Command::Start(start)).await? else { bail!("it was not refused") };
    assert_eq!(error.code, "refused", "{error}");
    ensure!(!scene.session_dir(session).exists(), "something of it was made");
    Ok(error.to_string())
}

fn in_workspace(path: &str) -> StartSpawn {
    let workspace = Workspace { source: WorkspaceSource::Path, path: Some(path.to_owned()) };
    StartSpawn { workspace, env: Some(Default::default()), ..custom(&["sleep", "3600"]) }
}

fn with_mount(path: &str, writable: bool) -> StartSpawn {
    let mount = MountRequest { source: path.to_owned(), target: Some("/data".to_owned()), writable };
    let sandbox = SandboxRequest { mounts: vec![mount], ..SandboxRequest::default() };
    StartSpawn { sandbox, env: Some(Default::default()), ..custom(&["sleep", "3600"]) }
}

#[tokio::test]
async fn a_directory_that_cannot_be_shown_under_other_ids_is_refused_by_its_field() -> Result<()> {
    let mut scene = Scene::new().await?;
    // The supervisor has the mounts of this thread. This file system knows no id-mapped mounts, like that of most containers.
    let poor = scene.workspace("poor")?;
    mount(Some("none"), &poor, Some("ramfs"), MsFlags::empty(), None::<&str>)?;
    std::os::unix::fs::chown(&poor, Some(OWNER), Some(OWNER))?;
    let path = poor.display().to_string();
    for (start, field) in
        [(in_workspace(&path), "workspace.path"), (with_mount(&path, true), "sandbox.mounts[0].source")]
    {
        let words = refused(&mut scene, start).await?;
        assert!(words.contains(&format!("{field}: `{path}` lies on a file system (ramfs)")), "{words}");
        assert!(words.contains("empty workspace"), "{words}");
    }
    // Only read, it needs no other ids; and on another file system the same is given.
    for start in [with_mount(&path, false), in_workspace(&scene.workspace("rich")?.display().to_string())] {
        let session = SessionId::generate();
        ensure!(scene.link.command(session, Command::Start(start)).await?.is_ok(), "refused");
        scene.link.report(session, agentapi_shared::SpawnState::Running).await?;
        scene.stop(session, 1, 0).await?;
        scene.purge(session).await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_user_namespaces_a_session_has_ids_of_its_own_and_no_directory_of_the_host() -> Result<()> {
    let mut scene = Scene::of(Kind::WithoutUserNamespaces).await?;
    let path = scene.workspace("given")?.display().to_string();
    for (start, field) in
        [(in_workspace(&path), "workspace.path"), (with_mount(&path, true), "sandbox.mounts[0].source")]
    {
        let words = refused(&mut scene, start).await?;
        assert!(words.contains(&format!("{field}: `{path}`")) && words.contains("user.max_user_namespaces"), "{words}");
    }
    let look = "id -u > ids; id -un >> ids; unshare --user true 2>> ids; cat /proc/self/uid_map >> ids; echo seen >> ids; sleep 3600";
    let running = scene.run_own(&["sh", "-c", look]).await?;
    let seen = eventually("it has looked", || async {
        fs::read_to_string(running.workspace.join("ids")).ok().filter(|text| text.ends_with("seen\n"))
    })
    .await;
    let agent = scene.block(running.session)? + AGENT_ID;
    assert!(seen.starts_with(&format!("{agent}\nagent\nunshare: ")), "{seen}");
    assert!(seen.split_whitespace().collect::<String>().ends_with("004294967295seen"), "no ids of its own: {seen}");
    let owners: Vec<u32> = scene.members(running.session)?.into_iter().map(|process| process.uid).collect();
    assert!(!owners.is_empty() && owners.iter().all(|uid| *uid == agent), "{owners:?}");
    let record = fs::read(scene.session_dir(running.session).join("spawns/1/spawn.json"))?;
    let record: Value = serde_json::from_slice(&record)?;
    let degraded = record["posture"]["degraded"].as_array().cloned().unwrap_or_default();
    assert!(degraded.contains(&Value::from("userns")), "{record}");
    Ok(())
}
