//! All attempts against the whole jail, the bare host, and the jail with one layer taken away, held against `golden/layers.txt`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p agentapi-tests --test sandbox -- every_ one_layer` writes the files anew; read the difference before you keep it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use agentapi_tests::attempt::{Edit, Outcome};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::batch::{self, Neighbour};
use crate::golden;
use crate::hosts::Table;
use crate::scene::{Kind, STRICT, Scene, UNLIMITED};

/// Attempts that assert how something is rather than take it; there is nothing that a bare host gives them.
pub(crate) const WITHOUT_CONTROL: [&str; 1] = ["fs.device_nodes"];

/// What every layer is for is seen by taking it away: its name, and the change of the plan.
fn layers() -> Vec<(&'static str, Vec<Edit>)> {
    let without = |at: &str, value: Value| Edit::Without { at: format!("/plan/{at}"), value };
    let set = |at: &str, value: Value| Edit::Set { at: format!("/plan/{at}"), value };
    let namespace = |name: &str| vec![without("namespaces", json!(name))];
    vec![
        ("user", namespace("user")),
        ("pid", namespace("pid")),
        ("network", namespace("network")),
        ("ipc", namespace("ipc")),
        ("uts", vec![without("namespaces", json!("uts")), set("hostname", Value::Null)]),
        ("cgroup-ns", namespace("cgroup")),
        (
            "masks",
            vec![without("mounts", json!({ "step": "mask" })), without("mounts", json!({ "step": "read_only" }))],
        ),
        ("read-only", vec![without("mounts", json!({ "step": "seal_read_only" }))]),
        ("landlock", vec![set("landlock", Value::Null)]),
        ("filter", vec![set("filter", Value::Null)]),
        ("rlimits", vec![set("rlimits", json!([]))]),
    ]
}

/// Name of the column with nothing left out.
const WHOLE: &str = "whole";

/// One column of the matrix: outcomes, or why nothing ran.
type Column = (&'static str, Result<BTreeMap<String, Outcome>, String>);

fn by_name(outcomes: Vec<Outcome>) -> BTreeMap<String, Outcome> {
    outcomes.into_iter().map(|outcome| (outcome.name.clone(), outcome)).collect()
}

/// Another session, so that there is somebody to be attacked.
async fn neighbour(scene: &mut Scene) -> Result<Neighbour> {
    const SECRET: [&str; 3] = ["sh", "-c", "echo secret-of-the-host-7a1f > secret; sleep 3600"];
    // In a directory of the host others can at least name it; where sessions have none, it is on the other's disk.
    let running = match scene.kind {
        Kind::WithoutUserNamespaces => scene.run_own(&SECRET).await?,
        _ => scene.run("neighbour", &SECRET).await?,
    };
    let dir = scene.session_dir(running.session);
    Ok(Neighbour {
        files: vec![running.workspace.join("secret"), dir.join("session.json")],
        sockets: vec![dir.join("spawns/1/shim.sock")],
    })
}

#[tokio::test]
async fn every_attempt_fails_in_a_jail_and_succeeds_on_the_bare_host() -> Result<()> {
    let mut scene = Scene::new().await?;
    let other = neighbour(&mut scene).await?;
    let bare = by_name(batch::bare(&scene, &other).await?);
    let whole = by_name(batch::in_jail(&mut scene, "whole", Vec::new(), &other).await?);
    let mut wrong = String::new();
    for (name, outcome) in &whole {
        let shown = format!("{:>2} {name}: {} {}", outcome.number, outcome.effect, outcome.detail);
        if outcome.open || ["FAILED", "NO LIMIT", "NOT RUN"].contains(&outcome.effect.as_str()) {
            writeln!(wrong, "  in the jail   {shown}")?;
        }
        let control = bare.get(name);
        let controlled = control.is_some_and(|control| control.open) || WITHOUT_CONTROL.contains(&name.as_str());
        if controlled {
            continue;
        }
        if outcome.absent || control.is_some_and(|control| control.absent) {
            // Said aloud: on a kernel that has it the same attempt shows it.
            eprintln!("not shown on this kernel, there is no such thing: {shown}");
        } else {
            let said = control.map(|control| format!("{} {}", control.effect, control.detail)).unwrap_or_default();
            writeln!(wrong, "  without control {:>2} {name}: {said}", outcome.number)?;
        }
    }
    if let Some(calls) = whole.get("kernel.every_call") {
        // The list is of the numbers of this architecture.
        if cfg!(target_arch = "x86_64") {
            golden::calls(&calls.detail, &mut wrong)?;
        }
    }
    ensure!(wrong.is_empty(), "attempts did not end as they have to:\n{wrong}");
    Ok(())
}

/// All attempts in the jails that other supervisors make, and in that of the stricter profile, held against `golden/modes.txt`.
#[tokio::test]
async fn every_mode_holds_what_it_says() -> Result<()> {
    let mut columns: Vec<Column> = Vec::new();
    let mut whole = BTreeMap::new();
    let others = [("user", Kind::User), ("without-userns", Kind::WithoutUserNamespaces)];
    for (label, kind) in [("whole", Kind::Root)].into_iter().chain(others) {
        let mut scene = Scene::of(kind).await?;
        let other = neighbour(&mut scene).await?;
        let outcomes = batch::in_jail(&mut scene, label, Vec::new(), &other).await;
        let outcomes = outcomes.map(by_name).map_err(|error| error.to_string());
        if kind == Kind::Root {
            whole = outcomes.map_err(anyhow::Error::msg)?;
            scene.profile = STRICT;
            let strict = batch::in_jail(&mut scene, "strict", Vec::new(), &other).await?;
            columns.push(("strict", Ok(by_name(strict))));
        } else {
            columns.push((label, outcomes));
        }
    }
    let then = include_str!("golden/modes.txt");
    golden::check("modes.txt", then, MODES, &table(&whole, &columns), &refused(&columns)?)
}

#[tokio::test]
async fn one_layer_less_changes_what_the_list_says() -> Result<()> {
    let mut scene = Scene::new().await?;
    let other = neighbour(&mut scene).await?;
    let mut columns: Vec<Column> = vec![("bare", Ok(by_name(batch::bare(&scene, &other).await?)))];
    let whole = by_name(batch::in_jail(&mut scene, "whole", Vec::new(), &other).await?);
    for (layer, edits) in layers() {
        let outcome = batch::in_jail(&mut scene, layer, edits, &other).await;
        columns.push((layer, outcome.map(by_name).map_err(|error| error.to_string())));
    }
    // Limits of cgroups are no part of the plan, but of the profile.
    scene.profile = UNLIMITED;
    columns.push(("limits", Ok(by_name(batch::in_jail(&mut scene, "limits", Vec::new(), &other).await?))));
    let then = include_str!("golden/layers.txt");
    golden::check("layers.txt", then, LAYERS, &table(&whole, &columns), &refused(&columns)?)
}

/// Head of `layers.txt`.
const LAYERS: &str = "What each attempt meets in the whole jail, on the bare host, and in the jail without one layer. `.`: as in the whole jail.\n\
                      OPEN: it got what it wanted. (none): there is no such thing, or not in sight. NOT RUN: the one before it ended the session.\n\
                      This is so with Landlock ABI 6 or later, on a host with few modules and few files in /proc. What is different on others, and\n\
                      why: layers-differ.txt, which is about modes.txt too.\n";
/// Head of `modes.txt`.
const MODES: &str = "What each attempt meets in the whole jail, in that of the strict profile, in that of a supervisor that is an ordinary user, and in that\n\
                     of root on a host without user namespaces. `.`: as in the whole jail. OPEN: it got what it wanted, which is as it has to be:\n\
                     user: nobody gives it control groups or disks, so memory and disk space are not limited (postures `no-cgroup`, `no-disk-quota`).\n\
                     without-userns: ids inside are those of the host, a block of the session's own (posture `userns`). What forbids user namespaces in\n\
                     this test, one around the supervisor, gives it no disks either.\n";

fn table(whole: &BTreeMap<String, Outcome>, columns: &[Column]) -> Table {
    let made: Vec<_> = columns.iter().filter_map(|(name, column)| Some((*name, column.as_ref().ok()?))).collect();
    let mut outcomes: Vec<&Outcome> = whole.values().collect();
    outcomes.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
    let rows = outcomes.into_iter().map(|outcome| {
        let inside = word(outcome);
        let cells = made.iter().map(|(name, column)| {
            let there = column.get(&outcome.name).map_or_else(|| "NOT RUN".to_owned(), word);
            ((*name).to_owned(), if there == inside { ".".to_owned() } else { there })
        });
        let cells = cells.chain([(WHOLE.to_owned(), inside.clone())]).collect();
        (outcome.number.to_string(), outcome.name.clone(), cells)
    });
    let columns = std::iter::once(WHOLE).chain(made.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
    Table { columns, rows: rows.collect() }
}

/// Layers without which nothing starts.
fn refused(columns: &[Column]) -> Result<String> {
    let mut text = String::new();
    for (name, column) in columns {
        if let Err(reason) = column {
            writeln!(text, "Without {name} nothing starts: {}", shortened(reason))?;
        }
    }
    Ok(text)
}

fn word(outcome: &Outcome) -> String {
    if outcome.absent { "(none)".to_owned() } else { outcome.effect.clone() }
}

/// The part of a refusal that is the same in every run.
fn shortened(reason: &str) -> String {
    let start = reason.find("detail: \"").map_or(0, |at| at + "detail: \"".len());
    reason[start..].split(['"', ';']).next().unwrap_or_default().to_owned()
}
