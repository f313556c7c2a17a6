//! `agentapi up` and what belongs to it.

use std::os::unix::fs::PermissionsExt;

use agentapi_tests::process::{binary, processes};
use agentapi_tests::wait::eventually;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machine::Machine;

/// The organisation that every embedded database has.
const LOCAL_ORG: &str = "00000000-0000-7000-8000-000000000001";

fn up_pid(machine: &Machine) -> Result<i32> {
    let status = machine.json(&["status", "--json"])?;
    let pid = status["pid"].as_i64().or(status["up"]["pid"].as_i64()).with_context(|| status.to_string())?;
    Ok(i32::try_from(pid)?)
}

/// Processes of this machine's data directory: daemons by their arguments, shims by what they hold.
fn own_processes(machine: &Machine) -> Vec<String> {
    let data = machine.data().display().to_string();
    processes()
        .into_iter()
        .filter(|process| process.command.contains(&data) || process.holds(machine.data()))
        .map(|p| p.command)
        .collect()
}

#[test]
fn a_session_is_made_used_and_ended_from_the_command_line() -> Result<()> {
    let machine = Machine::new()?;
    machine.up(&[])?;
    let id =
        machine.run(&["session", "create", "--wait", "--name", "first", "--", "bash", "--norc"])?.trim().to_owned();
    // Whoever waits for a text is no viewer, of whom there may be none.
    let mut quota = std::process::Command::new(binary("agentapi-controlplane"));
    quota.args(["admin", "set-quotas", "--org", LOCAL_ORG, "--viewers-max", "0", "--data-dir"]);
    assert!(quota.arg(machine.data().join("controlplane")).status()?.success());
    machine.run(&["session", "input", &id, "--text", "sleep 1; echo sum-$((20+22))\r"])?;
    machine.run(&["session", "wait", &id, "--text", "sum-42", "--timeout", "30"])?;
    let never = machine.output(&["session", "wait", &id, "--text", "sum-43", "--timeout", "1s"])?;
    assert_eq!(never.status.code(), Some(7), "{never:?}");
    let ended = machine.run(&["session", "create", "--", "echo", "all of it"])?.trim().to_owned();
    machine.run(&["session", "wait", &ended, "--text", "all of it", "--timeout", "30"])?;
    let never = machine.output(&["session", "wait", &ended, "--text", "more", "--timeout", "30"])?;
    assert_eq!(never.status.code(), Some(1), "{never:?}");
    assert!(machine.run(&["session", "screen", "first"])?.contains("sum-42"));
    let list = machine.json(&["session", "list", "--json"])?;
    assert!(list.to_string().contains("\"first\""), "{list}");
    machine.run(&["session", "stop", &id])?;
    let shown = machine.json(&["session", "show", &id, "--json"])?;
    assert_eq!(shown["state"], "exited", "{shown}");
    assert!(machine.run(&["session", "screen", &id])?.contains("sum-42"), "the last screen stays");
    machine.run(&["session", "restart", &id])?;
    machine.run(&["session", "wait", &id, "--for", "running", "--timeout", "30"])?;
    let shown = machine.json(&["session", "show", &id, "--json"])?;
    assert_eq!(shown["spawns"].as_array().map(Vec::len), Some(2), "{shown}");
    machine.run(&["session", "stop", "--force", &id])?;
    machine.run(&["session", "purge", &id])?;
    let gone = machine.output(&["session", "show", &id])?;
    assert_eq!(gone.status.code(), Some(3), "{gone:?}");
    Ok(())
}

#[tokio::test]
async fn a_second_start_keeps_data_and_credentials_and_finds_the_sessions() -> Result<()> {
    let machine = Machine::new()?;
    machine.up(&[])?;
    let credentials = machine.data().join("credentials.json");
    let token = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).map(|value| value["token"].clone());
    let before = token(&std::fs::read(&credentials)?)?;
    assert_eq!(std::fs::metadata(&credentials)?.permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(machine.data())?.permissions().mode() & 0o777, 0o700);
    let id = machine.run(&["session", "create", "--wait", "--", "bash", "--norc"])?.trim().to_owned();
    machine.run(&["session", "input", &id, "--text", "kept=yes\r"])?;
    let said = machine.run(&["down", "--keep-sessions"])?;
    assert!(said.contains("sessions run on"), "it says that it leaves sessions: {said}");
    machine.up(&[])?;
    assert_eq!(token(&std::fs::read(&credentials)?)?, before);
    machine.run(&["session", "input", &id, "--text", "echo kept=$kept\r"])?;
    machine.run(&["session", "wait", &id, "--text", "kept=yes", "--timeout", "30"])?;
    let said = machine.run(&["down"])?;
    assert!(said.contains("1 session"), "it says how many sessions it stops: {said}");
    // `down` is told when all is over, a moment before the process that told it is gone.
    eventually("nothing of it runs", || async { own_processes(&machine).is_empty().then_some(()) }).await;
    // Nothing runs: it is said, and is no error.
    machine.run(&["down"])?;
    Ok(())
}

#[test]
fn two_on_one_data_directory_are_refused() -> Result<()> {
    let machine = Machine::new()?;
    let (url, _) = machine.up(&[])?;
    let second = machine.output(&["up", "--detach", "--listen", "127.0.0.1:0"])?;
    assert_eq!(second.status.code(), Some(6), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains(&url), "{second:?}");
    Ok(())
}

#[tokio::test]
async fn killed_it_takes_its_daemons_with_it_but_no_session() -> Result<()> {
    let machine = Machine::new()?;
    machine.up(&[])?;
    let id = machine.run(&["session", "create", "--wait", "--", "bash", "--norc"])?.trim().to_owned();
    machine.run(&["session", "input", &id, "--text", "kept=yes\r"])?;
    kill(Pid::from_raw(up_pid(&machine)?), Signal::SIGKILL)?;
    let daemons =
        || own_processes(&machine).into_iter().filter(|command| command.contains("--exit-with-parent")).count();
    eventually("the daemons are gone", || async { (daemons() == 0).then_some(()) }).await;
    // The session lives, and so do its tunnels. Of the shim and its jail's init only the shim holds anything of the host's.
    let named = |name: &str| own_processes(&machine).iter().filter(|command| command.contains(name)).count();
    assert_eq!((named("agentapi-shim"), named("agentapi-egress"), own_processes(&machine).len()), (1, 1, 2));
    machine.up(&[])?;
    machine.run(&["session", "input", &id, "--text", "echo kept=$kept\r"])?;
    machine.run(&["session", "wait", &id, "--text", "kept=yes", "--timeout", "30"])?;
    Ok(())
}

#[tokio::test]
async fn a_daemon_that_is_killed_is_started_again_on_the_same_port() -> Result<()> {
    let machine = Machine::new()?;
    machine.up(&[])?;
    let id = machine.run(&["session", "create", "--wait", "--", "bash", "--norc"])?.trim().to_owned();
    for name in ["agentapi-controlplane", "agentapi-supervisor"] {
        let find = || {
            let data = machine.data().display().to_string();
            processes().into_iter().find(|process| process.command.contains(name) && process.command.contains(&data))
        };
        let daemon = find().with_context(|| format!("{name} runs"))?;
        kill(Pid::from_raw(daemon.pid), Signal::SIGKILL)?;
        eventually(&format!("{name} runs again"), || async { find().filter(|again| again.pid != daemon.pid) }).await;
    }
    eventually("the session answers again", || async {
        let shown = machine.json(&["session", "show", &id, "--json"]).ok()?;
        (shown["state"] == "running" && shown["unreachable"] == false).then_some(())
    })
    .await;
    machine.run(&["session", "input", &id, "--text", "echo sum-$((20+22))\r"])?;
    machine.run(&["session", "wait", &id, "--text", "sum-42", "--timeout", "30"])?;
    Ok(())
}

#[test]
fn long_paths_work() -> Result<()> {
    let machine = Machine::with_data_dir(&["a-directory-with-a-long-name"; 5].join("/"))?;
    assert!(machine.data().as_os_str().len() > 150);
    machine.up(&[])?;
    let id =
        machine.run(&["session", "create", "--wait", "--", "sh", "-c", "echo it-works; sleep 100"])?.trim().to_owned();
    machine.run(&["session", "wait", &id, "--text", "it-works", "--timeout", "30"])?;
    machine.run(&["down"])?;
    Ok(())
}
