//! `agentapi status` and `agentapi down`: the `up` of this machine, seen from another process.

use agentapi_shared::api::Host;
use serde::Serialize;

use super::children::DaemonStatus;
use super::control::{self, Answer, Request, UpStatus, Wish};
use super::{lock, stop};
use crate::args::{DownArgs, GlobalArgs};
use crate::client::Client;
use crate::config::{self, Environment};
use crate::datadir::DataDir;
use crate::failure::{ExitKind, Failure};
use crate::output;

/// Answer of `agentapi status --json`.
#[derive(Debug, Serialize)]
struct StatusReport {
    running: bool,
    data_dir: String,
    url: Option<String>,
    pid: Option<u32>,
    controlplane: Option<DaemonStatus>,
    supervisor: Option<DaemonStatus>,
    sessions_running: Option<u64>,
    hosts: Vec<Host>,
}

/// Says whether it runs. Ends with "not found" if not, so that scripts need not read.
pub(crate) async fn status(global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let data = DataDir::new(config::data_dir(global, env)?);
    let up = ask_status(&data).await?;
    let hosts = match &up {
        Some(status) if status.url.is_some() => hosts(&data).await,
        _ => None,
    };
    let running = up.is_some();
    let (pid, url) = (up.as_ref().map(|up| up.pid), up.as_ref().and_then(|up| up.url.clone()));
    let report = StatusReport {
        running,
        data_dir: data.root().display().to_string(),
        url,
        pid,
        sessions_running: hosts.as_ref().map(|hosts| hosts.iter().map(|host| u64::from(host.sessions_running)).sum()),
        hosts: hosts.unwrap_or_default(),
        controlplane: up.as_ref().map(|up| up.controlplane.clone()),
        supervisor: up.map(|up| up.supervisor),
    };
    if global.json {
        output::json(&report)?;
    } else {
        show(&report);
    }
    if running { Ok(()) } else { Err(Failure::silent(ExitKind::NotFound as u8).into()) }
}

async fn ask_status(data: &DataDir) -> anyhow::Result<Option<UpStatus>> {
    if let Some(mut connection) = control::ask(data, Request::Status {}).await?
        && let Some(Answer::Status(status)) = connection.next().await?
    {
        return Ok(Some(*status));
    }
    // It may be starting, and not listen yet.
    Ok(lock::holder(data)?
        .map(|pid| UpStatus { pid: pid.and_then(|pid| pid.try_into().ok()).unwrap_or(0), ..UpStatus::default() }))
}

/// The hosts, if the control plane answers: that it does not is what the rest of the report says.
async fn hosts(data: &DataDir) -> Option<Vec<Host>> {
    let client = Client::new(config::local_server(data.root()).ok()?).ok()?;
    client.hosts().await.ok()
}

fn show(report: &StatusReport) {
    if !report.running {
        output::line(&format!("not running (data dir {})", report.data_dir));
        return;
    }
    output::line(&format!("running: {}", report.url.as_deref().unwrap_or("starting")));
    output::line(&format!("up: pid {}, data dir {}", report.pid.unwrap_or(0), report.data_dir));
    for (name, daemon) in [("control plane", &report.controlplane), ("supervisor", &report.supervisor)] {
        let Some(daemon) = daemon else { continue };
        let pid = daemon.pid.map_or("no process".to_owned(), |pid| format!("pid {pid}"));
        let state = if daemon.ready.is_some() { "ready" } else { "not ready" };
        let restarts =
            if daemon.restarts == 0 { String::new() } else { format!(", restarted {} times", daemon.restarts) };
        output::line(&format!("{name}: {state}, {pid}{restarts}"));
    }
    for host in &report.hosts {
        let name = host.facts.as_ref().map_or_else(|| host.id.to_string(), |facts| output::clean(&facts.hostname));
        let state = if host.connected { "connected" } else { "not connected" };
        output::line(&format!("host {name}: {state}"));
    }
    if let Some(sessions) = report.sessions_running {
        output::line(&format!("{} running", stop::count(sessions)));
    }
}

/// Ends it, and returns when it has ended. Nothing to end is no error.
pub(crate) async fn down(args: &DownArgs, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let data = DataDir::new(config::data_dir(global, env)?);
    let wish = Wish { keep_sessions: args.keep_sessions, force: args.force };
    let Some(mut connection) = control::ask(&data, Request::Down(wish)).await? else {
        if let Some(pid) = lock::holder(&data)? {
            let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
            let words = format!("agentapi (pid {pid}) runs, and does not listen yet: try again, or send it SIGTERM");
            return Err(Failure::new(ExitKind::Conflict, words).into());
        }
        output::line("not running");
        return Ok(());
    };
    while let Some(answer) = connection.next().await? {
        match answer {
            Answer::Progress { line } => output::line(&line),
            Answer::Ended { failed: None } => return Ok(()),
            Answer::Ended { failed: Some(words) } => return Err(Failure::new(ExitKind::Failure, words).into()),
            Answer::Status(_) => {}
        }
    }
    Err(Failure::new(ExitKind::Failure, "agentapi was killed while it ended; see `agentapi status`").into())
}
