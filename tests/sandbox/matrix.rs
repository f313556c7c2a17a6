//! All attempts against the whole jail, the bare host, and the jail with one layer taken away, held against `golden/layers.txt`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p agentapi-tests --test sandbox one_layer` writes the files anew; read the difference before you keep it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use agentapi_tests::attempt::{Edit, Outcome};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::batch::{self, Neighbour};
use crate::golden;
use crate::scene::{Scene, UNLIMITED};

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

/// One column of the matrix: outcomes, or why nothing ran.
type Column = (&'static str, Result<BTreeMap<String, Outcome>, String>);

fn by_name(outcomes: Vec<Outcome>) -> BTreeMap<String, Outcome> {
    outcomes.into_iter().map(|outcome| (outcome.name.clone(), outcome)).collect()
}

/// Another session, so that there is somebody to be attacked.
async fn neighbour(scene: &mut Scene) -> Result<Neighbour> {
    let running = scene.run_own(&["sh", "-c", "echo secret-of-the-host-7a1f > secret; sleep 3600"]).await?;
    let dir = scene.session_dir(running.session);
    Ok(Neighbour {
        files: vec![dir.join("workspace/secret"), dir.join("session.json")],
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
    golden::check("layers.txt", &table(&whole, &columns)?)
}

fn table(whole: &BTreeMap<String, Outcome>, columns: &[Column]) -> Result<String> {
    let mut text = String::from(
        "What each attempt meets in the whole jail, on the bare host, and in the jail without one layer. `.`: as in the whole jail.\n\
         OPEN: it got what it wanted. (none): this kernel has no such thing. A layer that cannot be left out is listed below.\n\n",
    );
    write!(text, "{:<3} {:<28} {:<13}", "", "", "whole")?;
    for (name, _) in columns.iter().filter(|(_, column)| column.is_ok()) {
        write!(text, " {name:<13}")?;
    }
    text = text.trim_end().to_owned() + "\n";
    let mut rows: Vec<&Outcome> = whole.values().collect();
    rows.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
    for row in rows {
        let mut line = format!("{:<3} {:<28} {:<13}", row.number, row.name, word(row));
        for (_, column) in columns {
            let Ok(column) = column else { continue };
            let there = column.get(&row.name).map_or_else(|| "NOT RUN".to_owned(), word);
            write!(line, " {:<13}", if there == word(row) { ".".to_owned() } else { there })?;
        }
        writeln!(text, "{}", line.trim_end())?;
    }
    for (name, column) in columns {
        if let Err(reason) = column {
            writeln!(text, "\nWithout {name} nothing starts: {}", shortened(reason))?;
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
