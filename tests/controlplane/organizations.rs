//! An organisation from nothing, with the commands that people have: its owner made beside the running server, their keys, a machine that
//! becomes a host, and how each of them ends.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use agentapi_tests::process::{Daemon, LOCAL_DEGRADED, binary};
use agentapi_tests::product::Product;
use agentapi_tests::wait::eventually;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// `agentapi` with a key.
struct Cli<'a> {
    product: &'a Product,
    key: String,
}

impl Cli<'_> {
    fn output(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary("agentapi"));
        command.env("AGENTAPI_URL", format!("http://{}", self.product.address())).env("AGENTAPI_TOKEN", &self.key);
        Ok(command.args(words).output()?)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let output = self.output(&[&["--json"], words].concat())?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The exit code of a command that is refused.
    fn refused(&self, words: &[&str]) -> Result<i32> {
        let output = self.output(words)?;
        ensure!(!output.status.success(), "{words:?} was done");
        output.status.code().context("an exit code")
    }
}

pub(crate) fn admin(product: &Product, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("agentapi-controlplane"));
    command.arg("admin").args(words).arg("--data-dir").arg(product.path().join("controlplane"));
    Ok(command.output()?)
}

/// An owner of a new organisation, made while the server runs.
fn owner<'a>(product: &'a Product, email: &str) -> Result<(Cli<'a>, String)> {
    let made = admin(product, &["create-owner", "--email", email, "--org", "Analytical Engines", "--json"])?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout)?;
    let text = |name: &str| made[name].as_str().map(str::to_owned).context("text");
    Ok((Cli { product, key: text("key")? }, text("organization_id")?))
}

#[tokio::test]
async fn an_owner_is_made_beside_the_server_and_has_the_commands() -> Result<()> {
    let product = Product::start().await?;
    let refused = admin(&product, &["create-owner", "--email", "ada", "--org", "x"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--email"), "{said}");
    let (cli, org) = owner(&product, "Ada@example.com")?;
    let shown = cli.json(&["org", "show"])?;
    assert_eq!(
        (&shown["id"], &shown["role"], &shown["name"]),
        (&json!(org), &json!("owner"), &json!("Analytical Engines"))
    );
    let changed = cli.json(&["org", "update", "--idle", "24h", "--agent", "custom", "--agent", "claude"])?;
    assert_eq!(changed["settings"], json!({ "session_idle_seconds_max": 86400, "agents": ["custom", "claude"] }));
    let changed = cli.json(&["org", "update", "--idle", "none", "--name", "Engines"])?;
    assert_eq!(
        (&changed["settings"], &changed["name"]),
        (&json!({ "agents": ["custom", "claude"] }), &json!("Engines"))
    );
    let members = cli.json(&["member", "list"])?;
    assert_eq!(members["data"][0]["email"], "ada@example.com");
    // The only owner stays one.
    assert_eq!(cli.refused(&["member", "role", "ada@example.com", "viewer"])?, 6);
    let invited = cli.json(&["invite", "create", "grace@example.com", "--role", "auditor", "--expires", "3d"])?;
    assert!(invited["url"].as_str().is_some_and(|url| url.contains("/#invitation=aai_")), "{invited}");
    let id = invited["invitation"]["id"].as_str().context("an id")?;
    cli.json(&["invite", "revoke", id])?;
    assert_eq!(cli.json(&["invite", "list"])?["data"][0]["state"], "revoked");
    // A key for less, which ends.
    let made = cli.json(&["key", "create", "ci", "--scope", "read", "--expires", "90d"])?;
    let ci = Cli { product: &product, key: made["key"].as_str().context("a key")?.to_owned() };
    ci.json(&["session", "list"])?;
    assert_eq!(ci.refused(&["session", "create", "--", "bash"])?, 5);
    cli.json(&["key", "revoke", made["api_key"]["id"].as_str().context("an id")?])?;
    assert_eq!(ci.refused(&["session", "list"])?, 5);
    // One that takes the place of the key that made it, which ends alone; and one that ends with the key that made it.
    let made = |by: &Cli<'_>, name: &str| -> Result<(String, String)> {
        let made = by.json(&["key", "create", name])?;
        let key = made["key"].as_str().context("a key")?.to_owned();
        Ok((key, made["api_key"]["id"].as_str().context("an id")?.to_owned()))
    };
    let (key, old) = made(&cli, "robot")?;
    let (key, new) = made(&Cli { product: &product, key }, "robot")?;
    let robot = Cli { product: &product, key };
    robot.json(&["key", "revoke", &old, "--keep-made"])?;
    let (key, _) = made(&robot, "of the robot")?;
    let of_robot = Cli { product: &product, key };
    of_robot.json(&["session", "list"])?;
    cli.json(&["key", "revoke", &new])?;
    assert_eq!((robot.refused(&["session", "list"])?, of_robot.refused(&["session", "list"])?), (5, 5));
    // Quotas are the platform's.
    let set = admin(&product, &["set-quotas", "--org", &org, "--sessions-max", "1"])?;
    assert_eq!(
        String::from_utf8_lossy(&set.stdout).trim(),
        "sessions at once: 1; sessions a day: no limit; terminals at once: no limit"
    );
    cli.json(&["session", "create", "--wait", "--", "sleep", "1000"])?;
    let more = cli.output(&["session", "create", "--", "sleep", "1000"])?;
    let said = String::from_utf8_lossy(&more.stderr).into_owned();
    assert!(!more.status.success() && said.contains("as many sessions"), "{said}");
    // The administrator of the machine is in another organisation.
    let admins = Cli { product: &product, key: product.token().to_owned() };
    assert_eq!(admins.json(&["session", "list"])?["data"], json!([]));
    assert_eq!(admins.refused(&["org", "show", &org])?, 3);
    Ok(())
}

fn supervisor(words: &[&str], paths: &[(&str, &Path)]) -> Result<Output> {
    let mut command = Command::new(binary("agentapi-supervisor"));
    command.args(words);
    for (flag, path) in paths {
        command.arg(flag).arg(path);
    }
    Ok(command.output()?)
}

#[tokio::test]
async fn a_machine_becomes_a_host_of_an_organization_until_it_is_revoked() -> Result<()> {
    let product = Product::start().await?;
    let (cli, _) = owner(&product, "ada@example.com")?;
    let url = format!("http://{}", product.address());
    let keys = product.path().join("worker");
    std::fs::create_dir(&keys)?;
    let (token, credential, other) = (keys.join("token"), keys.join("host-credential.json"), keys.join("other.json"));
    let made = cli.json(&["host", "enrol", "worker-7"])?;
    std::fs::write(&token, made["token"].as_str().context("a token")?)?;
    let enrol =
        |to: &Path| supervisor(&["enrol", "--url", &url], &[("--token-file", &token), ("--credential-file", to)]);
    let enrolled = enrol(&credential)?;
    ensure!(enrolled.status.success(), "{}", String::from_utf8_lossy(&enrolled.stderr));
    assert_eq!(std::fs::metadata(&credential)?.permissions().mode() & 0o777, 0o600);
    // A token is good once, and a machine is one host.
    for (to, word) in [(&other, "401"), (&credential, "is there already")] {
        let refused = enrol(to)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(word), "{said}");
    }
    assert!(!other.exists());
    let mut command = Command::new(binary("agentapi-supervisor"));
    command.arg("run").arg("--state-dir").arg(keys.join("state")).arg("--credential-file").arg(&credential);
    command.env(LOCAL_DEGRADED.0, LOCAL_DEGRADED.1);
    let mut daemon = Daemon::start(command, &keys.join("supervisor.log"))?;
    daemon.line().await?;
    let host = || {
        let hosts = cli.json(&["host", "list"]).ok()?;
        hosts["data"].as_array()?.iter().find(|host| host["name"] == "worker-7").cloned()
    };
    let connected = || async { host().filter(|host| host["connected"] == true) };
    let found = eventually("the new host is connected", connected).await;
    assert_eq!(found["shared"], false);
    // Nobody else sees it.
    let admins = Cli { product: &product, key: product.token().to_owned() };
    assert_eq!(admins.json(&["host", "list"])?["data"].as_array().map(Vec::len), Some(1));
    let before = std::fs::read_to_string(&credential)?;
    let rotated = supervisor(&["rotate"], &[("--credential-file", &credential)])?;
    ensure!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    let after = std::fs::read_to_string(&credential)?;
    assert_ne!(before, after);
    assert_eq!(host().map(|host| host["connected"] == true), Some(true));
    // Killed and started again it comes with the new one.
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended().await?;
    eventually("the host is gone", || async { host().filter(|host| host["connected"] == false) }).await;
    let mut command = Command::new(binary("agentapi-supervisor"));
    command.arg("run").arg("--state-dir").arg(keys.join("state")).arg("--credential-file").arg(&credential);
    command.env(LOCAL_DEGRADED.0, LOCAL_DEGRADED.1);
    let mut daemon = Daemon::start(command, &keys.join("supervisor.log"))?;
    daemon.line().await?;
    eventually("the host is back", connected).await;
    cli.json(&["host", "revoke", found["id"].as_str().context("an id")?])?;
    assert_eq!(host(), None);
    let log = || std::fs::read_to_string(keys.join("supervisor.log")).unwrap_or_default();
    eventually("the supervisor is refused", || async { log().contains("401").then_some(()) }).await;
    let refused = supervisor(&["rotate"], &[("--credential-file", &credential)])?;
    assert!(!refused.status.success() && std::fs::read_to_string(&credential)? == after);
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended().await?;
    Ok(())
}
