//! `agentapi up` with its records in a Supabase project, whose database is brought up to date first.

use std::process::Command;

use agentapi_test_postgres::cluster::{Cluster, Release};
use agentapi_tests::process::{binary, processes};
use agentapi_tests::project::{environment, project};
use agentapi_tests::wait::eventually;
use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::machine::Machine;

/// Runs `agentapi-controlplane migrate`; what it said.
fn migrate(cluster: &Cluster) -> Result<String> {
    let mut command = Command::new(binary("agentapi-controlplane"));
    let output = command.arg("migrate").env("AGENTAPI_CONTROLPLANE_DATABASE_URL", cluster.owner_url()).output()?;
    anyhow::ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The variables that a daemon of this machine has.
fn variables(machine: &Machine, daemon: &str) -> Result<String> {
    let data = machine.data().display().to_string();
    let is_it = |command: &str| command.contains(daemon) && command.contains(&data);
    let found = processes().into_iter().find(|process| is_it(&process.command)).context("it runs")?;
    let all = std::fs::read(format!("/proc/{}/environ", found.pid))?;
    Ok(String::from_utf8_lossy(&all).replace('\0', "\n"))
}

/// The operator's commands with the key of the service role, beside the running control plane: who is there, and the platform's own trail.
fn the_operator_sees_it(machine: &Machine, cluster: &Cluster) -> Result<()> {
    let admin = |words: &[&str]| -> Result<Vec<u8>> {
        let mut command = Command::new(binary("agentapi-controlplane"));
        command.arg("admin").args(words).arg("--data-dir").arg(machine.data().join("controlplane"));
        let output = command.envs(environment(cluster)).output()?;
        anyhow::ensure!(output.status.success(), "{output:?}");
        Ok(output.stdout)
    };
    let all: Value = serde_json::from_slice(&admin(&["list-organizations", "--json"])?)?;
    assert_eq!(
        (&all["data"][0]["name"], &all["data"][0]["owners"][0]["name"]),
        (&"ours".into(), &"owner".into()),
        "{all}"
    );
    let owner = all["data"][0]["owners"][0]["id"].as_str().context("an id")?;
    admin(&["disable-user", "--user", owner, "--yes", "--force"])?;
    admin(&["enable-user", "--user", owner])?;
    let shown: Value = serde_json::from_slice(&admin(&["audit", "--json"])?)?;
    let newest = |at: usize| shown["data"][at]["entry"]["action"].clone();
    assert_eq!([newest(0), newest(1)], [Value::from("user.enable"), Value::from("user.disable")], "{shown}");
    let file = machine.data().join("platform.ndjson");
    let path = file.to_str().context("a path")?;
    admin(&["audit", "export", "--output", path])?;
    let key = machine.data().join("controlplane/audit-checkpoints.pub");
    let verified = machine.command(&["audit", "verify", path, "--key", key.to_str().context("a path")?]).output()?;
    let said = String::from_utf8_lossy(&verified.stdout);
    anyhow::ensure!(verified.status.success() && said.contains("of the platform"), "{verified:?}");
    Ok(())
}

#[tokio::test]
async fn up_goes_into_a_project_once_its_database_is_up_to_date() -> Result<()> {
    let mut cluster = Cluster::bare(Release::System).await?;
    cluster.sql("create schema agentapi; grant usage on schema agentapi to service_role").await?;
    cluster.serve("agentapi").await?;
    let machine = Machine::new()?;
    let up = |cluster: &Cluster| {
        let mut command = machine.command(&["up", "--detach", "--json", "--listen", "127.0.0.1:0"]);
        command.envs(environment(cluster)).output()
    };
    let refused = up(&cluster)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("agentapi-controlplane migrate"), "{refused:?}");
    cluster.sql("drop schema agentapi").await?;
    let (first, second) = (migrate(&cluster)?, migrate(&cluster)?);
    assert!(first.contains("applied 20261126040001_roles\n") && first.contains(" 0 before"), "{first}");
    assert!(second.starts_with("0 applied now, "), "{second}");
    cluster.serve("agentapi").await?;
    let project = project(&cluster).await?;
    let ready = up(&cluster)?;
    assert!(ready.status.success(), "{ready:?}");
    let ready: Value = serde_json::from_slice(&ready.stdout)?;
    assert!(ready.get("login_url").is_none(), "nobody is an admin by themselves: {ready}");
    let url = ready["ready"].as_str().context("a URL")?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    eventually("the local host is there", async || {
        let answer = http.get(format!("{url}/api/v1/hosts")).bearer_auth(&project.token).send().await.ok()?;
        let hosts: Value = answer.json().await.ok()?;
        (hosts["data"][0]["connected"] == true).then_some(())
    })
    .await;
    the_operator_sees_it(&machine, &cluster)?;
    assert!(!machine.data().join("credentials.json").exists());
    assert!(variables(&machine, "agentapi-controlplane")?.contains("SUPABASE_SERVICE_ROLE_KEY="));
    assert!(!variables(&machine, "agentapi-supervisor")?.contains("SUPABASE_"), "keys stay with the control plane");
    Ok(())
}
