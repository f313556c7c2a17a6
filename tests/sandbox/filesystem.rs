//! What tenants leave in directories that the host handles, and what of the host's own could be exchanged under a jail in the making.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use agentapi_shared::SpawnState;
use agentapi_shared::api::{Workspace, WorkspaceSource};
use agentapi_shared::{ExitReason, SessionId};
use agentapi_tests::attempt::Edit;
use agentapi_tests::wait::eventually;
use anyhow::{Context, Result};

use crate::scene::Scene;
use crate::world::mounts_below;

#[tokio::test]
async fn links_that_a_session_leaves_are_followed_by_nobody_outside() -> Result<()> {
    let mut scene = Scene::new().await?;
    let outside = scene.dir.path().join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("kept"), "kept")?;
    let plant = format!(
        "ln -s {0}/kept secret; ln -s {0} all; ln -s {0} $HOME/all; rm -rf $HOME/.config; ln -s {0} $HOME/.config; ln -s {0} $HOME/.local; echo planted > done; sleep 3600",
        outside.display()
    );
    let running = scene.run_own(&["sh", "-c", &plant]).await?;
    eventually("the links are planted", || async { running.workspace.join("done").exists().then_some(()) }).await;
    // The bait works: whoever follows it from the host gets there.
    assert_eq!(fs::read_to_string(running.workspace.join("secret"))?, "kept");
    scene.stop(running.session, 1, 0).await?;
    scene.begin(running.session, 2, Workspace::default(), &["sleep", "3600"]).await?;
    scene.stop(running.session, 2, 0).await?;
    scene.purge(running.session).await?;
    eventually("the session's files are gone", || async {
        (!scene.session_dir(running.session).exists()).then_some(())
    })
    .await;
    let left: Vec<_> = fs::read_dir(&outside)?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!((left, fs::read_to_string(outside.join("kept"))?), (vec!["kept".into()], "kept".to_owned()));
    Ok(())
}

#[tokio::test]
async fn a_workspace_that_is_exchanged_during_the_start_is_not_used() -> Result<()> {
    let mut scene = Scene::new().await?;
    let victim = scene.workspace("victim")?;
    let workspace = scene.workspace("exchanged")?;
    let path = workspace.display().to_string();
    let place = Workspace { source: WorkspaceSource::Path, path: Some(path.clone()) };
    let command = ["sh", "-c", "echo was here > mark; sleep 3600"];
    scene.edit(&[Edit::Exchange { path: path.clone(), by: victim.display().to_string() }])?;
    let report = scene.try_begin(SessionId::generate(), 1, place, &command).await?;
    assert_eq!(report.state, SpawnState::Failed, "{report:?}");
    // Whoever notices first, the supervisor or the jail: it is told as what it is.
    let exit = report.exit.context("an exit")?;
    assert!(matches!(exit.reason, ExitReason::JailFailed | ExitReason::StartFailed), "{exit:?}");
    assert_eq!(fs::read_dir(&victim)?.count(), 0, "nothing was written where the link led");
    // The same without the exchange runs.
    scene.edit(&[])?;
    let running = scene.run("victim", &command).await?;
    eventually("it works in its workspace", || async { running.workspace.join("mark").exists().then_some(()) }).await;
    Ok(())
}

#[tokio::test]
async fn mounts_of_a_session_are_not_the_hosts_and_are_gone_with_it() -> Result<()> {
    let mut scene = Scene::new().await?;
    let before = mounts_below(scene.dir.path());
    let attempt = "umount -l /proc; umount -l /; mount -t tmpfs none /tmp; echo tried > tried; sleep 3600";
    let running = scene.run("mounts", &["sh", "-c", attempt]).await?;
    eventually("the attempt is made", || async { running.workspace.join("tried").exists().then_some(()) }).await;
    assert!(fs::read_to_string("/proc/self/stat").is_ok(), "the host still has its /proc");
    let state = scene.state_dir().display().to_string();
    let seen: Vec<String> = mounts_below(scene.dir.path())
        .into_iter()
        .filter(|line| !before.contains(line) && !line.contains(&state))
        .collect();
    assert_eq!(seen, Vec::<String>::new());
    scene.stop(running.session, 1, 0).await?;
    scene.purge(running.session).await?;
    eventually("its mounts are gone", || async { (mounts_below(scene.dir.path()) == before).then_some(()) }).await;
    Ok(())
}

#[tokio::test]
async fn a_device_that_is_not_what_its_name_says_stops_the_start() -> Result<()> {
    let mut scene = Scene::new().await?;
    let fake = scene.dir.path().join("fake-zero");
    fs::write(&fake, "not a device")?;
    // A plan for /dev/zero that finds something else there, as an image or a tenant could have put it.
    for other in ["/dev/kmsg", "/dev/mem", "/dev/tty0"] {
        let which = serde_json::json!({ "step": "device", "path": "/dev/zero" });
        let fields = serde_json::json!({ "path": other });
        scene.edit(&[Edit::Merge { at: "/plan/mounts".to_owned(), which, fields }])?;
        let report = scene.try_begin(SessionId::generate(), 1, Workspace::default(), &["sleep", "3600"]).await?;
        assert_eq!(report.state, SpawnState::Failed, "{other} as another device: {report:?}");
    }
    scene.edit(&[])?;
    scene.run_own(&["sleep", "3600"]).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_that_a_repository_plants_runs_on_the_host() -> Result<()> {
    let mut scene = Scene::new().await?;
    let mark = scene.dir.path().join("host-ran-it");
    let running = scene.run("repository", &["sh", "-c", "read line"]).await?;
    let repository = &running.workspace;
    let git = |args: &[&str]| {
        Command::new("git").arg("-C").arg(repository).args(["-c", "safe.directory=*"]).args(args).output()
    };
    git(&["init", "-q"])?;
    let hook = repository.join(".git/planted");
    fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", mark.display()))?;
    crate::world::open_to_all(&hook)?;
    for key in ["core.fsmonitor", "core.sshCommand", "diff.external", "core.pager"] {
        git(&["config", key, &hook.display().to_string()])?;
    }
    for name in ["post-checkout", "pre-commit", "post-index-change"] {
        let _planted = symlink(&hook, repository.join(".git/hooks").join(name));
    }
    // Everything that the host does with a session.
    scene.screen(running.session).await?;
    scene.stop(running.session, 1, 100).await?;
    let place = Workspace { source: WorkspaceSource::Path, path: Some(repository.display().to_string()) };
    scene.begin(running.session, 2, place, &["sleep", "3600"]).await?;
    scene.stop(running.session, 2, 0).await?;
    scene.purge(running.session).await?;
    assert!(!mark.exists(), "the host ran what was planted");
    git(&["status"])?;
    assert!(mark.exists(), "the bait works: one `git status` of the host would have run it");
    Ok(())
}

/// Every way that there is to leave a program that runs as somebody else: one file each.
const PRIVILEGED: &str = r#"
echo 'int main(void){return 0;}' > plain; chmod 755 plain
cp plain chmod; chmod 4755 chmod
cp plain chmod-group; chmod 2755 chmod-group
install -m 4755 plain install
cp -p set-user-id copied
tar -cpf - set-user-id | (mkdir -p untarred; cd untarred; tar -xpf -)
mkdir -m 2755 directory
ln set-user-id linked; echo more >> linked
/usr/bin/python3 - <<'END'
import os, shutil, socket
def attempt(work):
    try: work()
    except OSError: pass
attempt(lambda: os.close(os.open("opened", os.O_CREAT | os.O_WRONLY, 0o4755)))
attempt(lambda: os.mknod("node", 0o4755))
attempt(lambda: os.mkdir("made", 0o6755))
attempt(lambda: shutil.copy("plain", "fchmod"))
attempt(lambda: os.fchmod(os.open("fchmod", os.O_RDWR), 0o4755))
attempt(lambda: shutil.copy("plain", "capable"))
attempt(lambda: os.setxattr("capable", "security.capability", bytes.fromhex("0100000200002000000000000000000000000000")))
END
echo done > done
"#;

/// Files below that run as their owner, or with capabilities.
fn privileged(dir: &Path) -> Result<Vec<String>> {
    let find = Command::new("find").arg(dir).args(["-mindepth", "1", "-perm", "/6000", "-printf", "%P\n"]).output()?;
    let capable = Command::new("getcap").arg("-r").arg(dir).output().context("getcap (package libcap2-bin)")?;
    let mut found: Vec<String> = String::from_utf8(find.stdout)?.lines().map(str::to_owned).collect();
    found.extend(String::from_utf8(capable.stdout)?.lines().map(str::to_owned));
    found.sort();
    Ok(found)
}

#[tokio::test]
async fn in_a_workspace_of_roots_nothing_is_left_that_runs_as_root() -> Result<()> {
    let mut scene = Scene::new().await?;
    let place = |scene: &Scene, name: &str| -> Result<PathBuf> {
        let workspace = scene.workspace(name)?;
        chown(&workspace, Some(0), Some(0))?;
        // What a careless owner has left there already is no program of the agent's, and no longer one once the agent writes to it.
        fs::write(workspace.join("set-user-id"), "plain")?;
        fs::set_permissions(workspace.join("set-user-id"), fs::Permissions::from_mode(0o4755))?;
        Ok(workspace)
    };
    let workspace = place(&scene, "roots")?;
    let running = scene.run_in(&workspace, &["sh", "-c", PRIVILEGED]).await?;
    eventually("it has tried", || async { running.workspace.join("done").exists().then_some(()) }).await;
    assert_eq!(fs::metadata(workspace.join("plain"))?.uid(), 0, "it writes as root, to the host");
    assert_eq!(privileged(&workspace)?, Vec::<String>::new());
    // The control: the same on the bare host leaves one of each.
    let bare = place(&scene, "bare-roots")?;
    Command::new("sh").args(["-c", PRIVILEGED]).current_dir(&bare).status()?;
    let left = privileged(&bare)?;
    for name in
        ["chmod", "chmod-group", "install", "copied", "untarred/set-user-id", "directory", "opened", "fchmod", "node"]
    {
        assert!(left.iter().any(|found| found == name), "{name} is no attempt: {left:?}");
    }
    assert!(left.iter().any(|found| found.contains("capable")), "{left:?}");
    Ok(())
}
