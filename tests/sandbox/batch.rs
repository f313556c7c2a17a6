//! One run of all attempts, inside a jail or on the bare host, and what came of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agentapi_tests::attempt::{DONE, Edit, Outcome, PARAMS_FILE, RESULTS_FILE};
use agentapi_tests::process::processes;
use agentapi_tests::wait::here;
use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::bait::{Bait, TMP_BYTES};
use crate::scene::{CREDENTIAL, OWNER, PIDS, Scene};

/// A run of all attempts takes seconds; on a loaded machine, minutes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Bytes of message queues in the jails of these tests: less than any host allows.
const QUEUE_BYTES: u64 = 200_000;
/// Attempts after which the kernel may end the whole session: each gets one of its own.
const ALONE: [&str; 4] = ["use.memory", "use.page_tables", "use.memfd", "use.pipes"];

/// So often in a row a process has to be gone before it counts as gone.
const DEAD_TIMES: u32 = 6;

/// Who else is on the host while attempts are made.
pub(crate) struct Neighbour {
    /// Files of another session, by their paths on the host.
    pub(crate) files: Vec<PathBuf>,
    /// Sockets of another session.
    pub(crate) sockets: Vec<PathBuf>,
}

/// Of the attempt after which there was no session any more.
const ENDED: &str = "ended the session";

/// Names of all attempts, with their numbers.
pub(crate) fn rows(scene: &Scene) -> Result<Vec<(u32, String)>> {
    let output = Command::new(scene.probe()).arg("list").output()?;
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .map(|line| {
            let (number, name) = line.split_once(' ').context("NUMBER NAME")?;
            Ok((number.parse()?, name.to_owned()))
        })
        .collect()
}

/// What every jail of these tests has smaller than usual, so that it can be filled.
pub(crate) fn small() -> Vec<Edit> {
    let merge = |at: &str, which, fields| Edit::Merge { at: at.to_owned(), which, fields };
    vec![
        merge("/plan/mounts", json!({ "step": "tmpfs", "target": "/tmp" }), json!({ "size_bytes": TMP_BYTES })),
        merge("/plan/rlimits", json!({ "resource": "nproc" }), json!({ "value": PIDS })),
        merge("/plan/rlimits", json!({ "resource": "msgqueue" }), json!({ "value": QUEUE_BYTES })),
    ]
}

/// All attempts in a jail whose plan is changed like this.
pub(crate) async fn in_jail(
    scene: &mut Scene,
    label: &str,
    edits: Vec<Edit>,
    neighbour: &Neighbour,
) -> Result<Vec<Outcome>> {
    scene.edit(&[small(), edits].concat())?;
    let all = rows(scene)?;
    let (alone, together): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, name)| ALONE.contains(&name.as_str()));
    let mut outcomes = session(scene, label, &together, neighbour).await?;
    for row in alone {
        let one = [row];
        let mut outcome = session(scene, &format!("{label}-{}", one[0].1), &one, neighbour).await?;
        for outcome in outcome.iter_mut().filter(|outcome| outcome.detail == ENDED) {
            // It took its session with it, and nothing else.
            (outcome.open, outcome.effect) = (false, "SIGKILL".to_owned());
        }
        outcomes.extend(outcome);
    }
    scene.edit(&[])?;
    Ok(outcomes)
}

/// Some attempts in one session.
async fn session(
    scene: &mut Scene,
    label: &str,
    rows: &[(u32, String)],
    neighbour: &Neighbour,
) -> Result<Vec<Outcome>> {
    let (session, workspace, place) = scene.place(label)?;
    let mut bait = Bait::lay(scene, label, &neighbour.files, &neighbour.sockets)?;
    bait.params.workspace = "/workspace".to_owned();
    bait.params.home = "/home/agent".to_owned();
    prepare(scene, &workspace, &bait)?;
    let _before = scene.world.heard.take();
    let names = rows.iter().map(|(_, name)| name.as_str());
    let command: Vec<&str> = ["sandbox-probe", "batch", label].into_iter().chain(names).collect();
    let running = scene.begin(session, 1, place, &command).await?;
    let marker = format!("batch {label} ");
    let lines = finished(&workspace, || processes().iter().any(|process| process.command.contains(&marker))).await?;
    let taken = bait.taken(scene);
    // A jail that an attempt has ended is over already.
    let _ended = scene.stop(running.session, 1, 0).await?;
    scene.purge(running.session).await?;
    judge(rows, lines, &taken)
}

/// All attempts on the bare host, as root: the control.
pub(crate) async fn bare(scene: &Scene, neighbour: &Neighbour) -> Result<Vec<Outcome>> {
    let workspace = scene.workspace("bare")?;
    let mut bait = Bait::lay(scene, "bare", &neighbour.files, &neighbour.sockets)?;
    bait.params.workspace = workspace.display().to_string();
    bait.params.home = workspace.display().to_string();
    prepare(scene, &workspace, &bait)?;
    let _before = scene.world.heard.take();
    let mut child = Command::new("sh")
        // With a descriptor that somebody forgot to close.
        .args(["-c", "exec 7</etc/hostname; exec \"$0\" bare control", &scene.probe()])
        .current_dir(&workspace)
        .env("AWS_SECRET_ACCESS_KEY", CREDENTIAL)
        .env("SSH_AUTH_SOCK", "/nowhere")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let lines =
        finished(&workspace, || processes().iter().any(|process| process.command.contains("bare control"))).await?;
    let init_lives = matches!(child.try_wait(), Ok(None));
    let killed = !child.wait()?.success() && !init_lives;
    let mut taken = bait.taken(scene);
    if killed {
        taken.insert("proc.kill_init".to_owned());
    }
    judge(&rows(scene)?, lines, &taken)
}

/// Parameters and programs with privileges, as a careless owner might have left them.
fn prepare(scene: &Scene, workspace: &Path, bait: &Bait) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(workspace.join(PARAMS_FILE), serde_json::to_vec(&bait.params)?)?;
    let with_id = scene.dir.path().join("tools/set-user-id");
    let with_capability = scene.dir.path().join("tools/file-capabilities");
    if !with_id.exists() {
        fs::copy(scene.probe(), &with_id)?;
        fs::set_permissions(&with_id, fs::Permissions::from_mode(0o4755))?;
        fs::copy(scene.probe(), &with_capability)?;
        let set = Command::new("setcap")
            .arg("cap_sys_admin+ep")
            .arg(&with_capability)
            .status()
            .context("setcap (package libcap2-bin)")?;
        anyhow::ensure!(set.success(), "setcap");
    }
    for path in [with_id, with_capability] {
        let name = path.file_name().context("a name")?;
        fs::hard_link(&path, workspace.join(name))?;
    }
    Ok(std::os::unix::fs::chown(workspace.join(PARAMS_FILE), Some(OWNER), Some(OWNER))?)
}

/// Waits until the probe is done or gone; the lines it wrote.
async fn finished(workspace: &Path, lives: impl Fn() -> bool) -> Result<Vec<String>> {
    let path = workspace.join(RESULTS_FILE);
    let patience = here(PATIENCE);
    let deadline = Instant::now() + patience;
    let mut times_dead = 0;
    loop {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.last().is_some_and(|line| line.contains(&format!("\"{DONE}\""))) || times_dead > DEAD_TIMES {
            return Ok(lines);
        }
        if Instant::now() > deadline {
            bail!("attempts are not done after {patience:?}; the last line is {:?}", lines.last());
        }
        // A process that is just becoming another program has no name for a moment, and what one wrote last counts.
        times_dead = if lives() { 0 } else { times_dead + 1 };
        tokio::time::sleep(here(Duration::from_millis(50))).await;
    }
}

/// What attempts say of themselves, corrected by what they left behind.
fn judge(rows: &[(u32, String)], lines: Vec<String>, taken: &BTreeSet<String>) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for line in lines.iter().filter(|line| !line.contains(&format!("\"{DONE}\""))) {
        outcomes.push(serde_json::from_str::<Outcome>(line).with_context(|| line.clone())?);
    }
    for (number, name) in rows {
        let Some(outcome) = outcomes.iter_mut().find(|outcome| outcome.name == *name) else {
            // The first that says nothing ended the session.
            let first = outcomes.iter().all(|outcome| outcome.effect != "NOT RUN" && outcome.detail != ENDED);
            let (effect, detail) = if first { ("OPEN", ENDED) } else { ("NOT RUN", "") };
            outcomes.push(Outcome {
                number: *number,
                name: name.clone(),
                effect: effect.to_owned(),
                open: first,
                absent: false,
                detail: detail.to_owned(),
            });
            continue;
        };
        if taken.contains(name) && !outcome.open {
            outcome.open = true;
            outcome.absent = false;
            outcome.detail = format!("said {}, but left its mark outside", outcome.effect);
            outcome.effect = "OPEN".to_owned();
        }
    }
    Ok(outcomes)
}
