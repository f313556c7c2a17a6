//! The console in a real browser: the checks are in `tests/console`, which drives headless Chromium.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::machine::Machine;

#[test]
fn the_console_does_what_a_person_wants() -> Result<()> {
    let machine = Machine::new()?;
    let (url, login) = machine.up(&[])?;
    let checks = Path::new(env!("CARGO_MANIFEST_DIR")).join("console");
    let pictures = machine.data().join("pictures");
    std::fs::create_dir_all(&pictures)?;
    let output = Command::new("node")
        .arg("run.mjs")
        .args(["--url", &url, "--login-url", &login, "--out"])
        .arg(&pictures)
        .current_dir(checks)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(" 0 failed"), "{text}");
    Ok(())
}
