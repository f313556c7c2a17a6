//! The console in a real browser: the checks are in `tests/console`, which drives headless Chromium, and has two owners of organisations to do it as.

use std::path::Path;
use std::process::Command;

use agentapi_tests::process::{LOCAL_DEGRADED, binary};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::machine::Machine;

/// An owner of a new organisation, made beside the running server; what was printed of them.
fn owner(machine: &Machine, email: &str, organization: &str) -> Result<Value> {
    let mut command = Command::new(binary("agentapi-controlplane"));
    command.args(["admin", "create-owner", "--json", "--email", email, "--org", organization]);
    let made = command.arg("--data-dir").arg(machine.data().join("controlplane")).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(serde_json::from_slice(&made.stdout)?)
}

#[test]
fn the_console_does_what_a_person_wants() -> Result<()> {
    let machine = Machine::new()?;
    let (url, login) = machine.up(&[])?;
    let checks = Path::new(env!("CARGO_MANIFEST_DIR")).join("console");
    let pictures = machine.data().join("pictures");
    std::fs::create_dir_all(&pictures)?;
    let owners = machine.data().join("owners.json");
    let people =
        [owner(&machine, "ada@example.com", "Analytical Engines")?, owner(&machine, "grace@example.com", "Compilers")?];
    std::fs::write(&owners, serde_json::to_string(&people)?)?;
    let programs = binary("agentapi");
    let output = Command::new("node")
        .arg("run.mjs")
        .args(["--url", &url, "--login-url", &login, "--out"])
        .arg(&pictures)
        .arg("--owners")
        .arg(&owners)
        .arg("--bin")
        .arg(programs.parent().context("a directory")?)
        // For the supervisor of a host that is enrolled in the console.
        .env(LOCAL_DEGRADED.0, LOCAL_DEGRADED.1)
        .current_dir(checks)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(" 0 failed") && text.contains("ok - organization: "), "{text}");
    Ok(())
}
