//! `agentapi doctor`: what this machine has, what is missing, and the command that mends it. It changes nothing.

use std::path::Path;

use serde::Serialize;

use crate::args::{DoctorArgs, GlobalArgs};
use crate::config::{self, Environment};
use crate::datadir::DataDir;
use crate::failure::Failure;
use crate::output;
use crate::up::lock;
use crate::up::preflight::{Check, Look, Programs, Verdict, host_report};
use crate::up::workspace_roots;

/// Answer of `agentapi doctor --json`.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    isolation: String,
    checks: Vec<Check>,
}

/// Looks, and tells. Ends with 1 or 2 if something is missing.
pub(crate) async fn doctor(args: &DoctorArgs, global: &GlobalArgs, env: &Environment) -> anyhow::Result<()> {
    let data = DataDir::new(config::data_dir(global, env)?);
    let programs = Programs::beside_us()?;
    let mut checks = vec![programs_check(&programs), data_dir_check(&data), port_check(&args.listen, &data)?];
    // In the order of the checks above: without programs or data dir nothing runs; another port can be chosen.
    let mut verdict = match (checks[0].ok && checks[1].ok, checks[2].ok) {
        (false, _) => Verdict::Refused,
        (true, false) => Verdict::Degraded,
        (true, true) => Verdict::Ok,
    };
    let mut isolation = "unknown".to_owned();
    if programs.supervisor.is_file() {
        let state = data.supervisor();
        let roots = workspace_roots(&args.workspace_roots)?;
        let report = host_report(&programs.supervisor, Some(&state), &roots, Look::Whole).await?;
        verdict = worse(verdict, report.verdict);
        isolation = report.isolation;
        // Isolation, kernel, and each agent with its version or the command that installs it.
        checks.extend(report.checks);
    }
    let report = Report { verdict, isolation, checks };
    if global.json {
        output::json(&report)?;
    } else {
        show(&report);
    }
    match verdict {
        Verdict::Ok => Ok(()),
        Verdict::Degraded => Err(Failure::silent(1).into()),
        Verdict::Refused | Verdict::Broken => Err(Failure::silent(2).into()),
    }
}

fn worse(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::Broken, _) | (_, Verdict::Broken) => Verdict::Broken,
        (Verdict::Refused, _) | (_, Verdict::Refused) => Verdict::Refused,
        (Verdict::Degraded, _) | (_, Verdict::Degraded) => Verdict::Degraded,
        (Verdict::Ok, Verdict::Ok) => Verdict::Ok,
    }
}

fn show(report: &Report) {
    let row = |check: &Check| {
        let mark = if check.ok { "ok" } else { "--" };
        vec![mark.to_owned(), check.name.clone(), check.detail.clone(), check.fix.clone().unwrap_or_default()]
    };
    let rows: Vec<Vec<String>> = report.checks.iter().map(row).collect();
    output::table(&["", "WHAT", "FOUND", "COMMAND THAT MENDS IT"], &rows);
    output::line(match report.verdict {
        Verdict::Ok => "All is well: `agentapi up` starts AgentAPI.",
        Verdict::Degraded => "AgentAPI runs here, but not all of it.",
        Verdict::Refused => "AgentAPI does not run here as it is.",
        Verdict::Broken => "The sandbox does not hold here: the supervisor starts no session.",
    });
}

fn programs_check(programs: &Programs) -> Check {
    let missing: Vec<String> = programs.missing().iter().map(|path| path.display().to_string()).collect();
    let dir = programs.supervisor.parent().unwrap_or(Path::new("/")).display().to_string();
    Check {
        name: "programs".to_owned(),
        ok: missing.is_empty(),
        detail: if missing.is_empty() { format!("all in {dir}") } else { format!("missing: {}", missing.join(", ")) },
        fix: (!missing.is_empty()).then(|| "make build".to_owned()),
    }
}

fn data_dir_check(data: &DataDir) -> Check {
    let root = data.root();
    let (ok, detail) = if root.exists() {
        let writable = nix::unistd::access(root, nix::unistd::AccessFlags::W_OK).is_ok() && root.is_dir();
        (writable, if writable { root.display().to_string() } else { format!("{} cannot be written", root.display()) })
    } else {
        // What would be created needs a parent that lets us.
        let parent = root.ancestors().skip(1).find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        let creatable = nix::unistd::access(parent, nix::unistd::AccessFlags::W_OK).is_ok();
        let words = if creatable { "will be created" } else { "cannot be created" };
        (creatable, format!("{} {words}", root.display()))
    };
    let fix = (!ok).then(|| "choose another one with --data-dir".to_owned());
    Check { name: "data dir".to_owned(), ok, detail, fix }
}

fn port_check(listen: &str, data: &DataDir) -> anyhow::Result<Check> {
    let (ok, detail) = match std::net::TcpListener::bind(listen) {
        Ok(_free) => (true, format!("{listen} is free")),
        Err(_) if lock::holder(data)?.is_some() => (true, format!("{listen} is taken, and agentapi is running")),
        Err(error) => (false, format!("{listen}: {error}")),
    };
    let fix = (!ok).then(|| "agentapi up --listen 127.0.0.1:0".to_owned());
    Ok(Check { name: "port".to_owned(), ok, detail, fix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_and_an_unusable_data_dir_are_named() {
        let data = DataDir::new(std::env::temp_dir().join(format!("agentapi-doctor-{}", uuid::Uuid::now_v7())));
        assert!(data_dir_check(&data).ok);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = port_check(&listener.local_addr().unwrap().to_string(), &data).unwrap();
        assert!(!taken.ok && taken.fix.is_some());
        assert!(port_check("127.0.0.1:0", &data).unwrap().ok);
    }
}
