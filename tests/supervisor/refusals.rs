//! Hosts on which the supervisor does not start, because sessions would be somebody else or see what nobody may.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use agentapi_tests::dir::TempDir;
use agentapi_tests::process::{LOCAL_DEGRADED, binary, groups};
use anyhow::Result;

/// Starts a supervisor after `script` has changed the mounts that it sees, and nobody else.
fn start(dir: &TempDir, script: &str, state_dir: &str) -> Result<Output> {
    let credential = dir.path().join("credential");
    fs::write(&credential, r#"{"url":"ws://127.0.0.1:1/api/v1/link","token":"aah_test"}"#)?;
    let run = format!("{script} && exec timeout 20 \"$0\" run --state-dir {state_dir} --credential-file \"$1\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &run]).arg(binary("agentapi-supervisor")).arg(credential);
    Ok(command.env("DIR", dir.path()).env(LOCAL_DEGRADED.0, LOCAL_DEGRADED.1).output()?)
}

fn refused(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert!(output.stdout.is_empty(), "it said that it is ready");
}

#[test]
fn data_below_a_directory_that_every_session_sees_is_refused() -> Result<()> {
    let dir = TempDir::new();
    fs::create_dir(dir.path().join("opt"))?;
    let output = start(&dir, "mount --bind \"$DIR/opt\" /opt", "/opt/agentapi/state")?;
    refused(&output, &["`/opt/agentapi/state`", "which every session sees", "--state-dir"]);
    Ok(())
}

#[test]
fn an_account_with_an_id_of_a_session_is_refused_and_named() -> Result<()> {
    let dir = TempDir::new();
    let passwd = fs::read_to_string("/etc/passwd")?;
    fs::write(dir.path().join("passwd"), format!("{passwd}contractor:x:1073742824:100::/:/bin/sh\n"))?;
    let state = dir.path().join("state").display().to_string();
    let output = start(&dir, "mount --bind \"$DIR/passwd\" /etc/passwd", &state)?;
    refused(&output, &["`contractor`", "/etc/passwd", "1073741824 to 3170893823"]);
    assert!(groups(Path::new(&state)).is_empty(), "its control groups are gone");
    Ok(())
}
