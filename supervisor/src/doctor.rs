//! `doctor`: what this host can isolate, told to a person or a program, with the command that mends what it cannot.

use std::io::{self, Write};
use std::process::ExitCode;

use agentapi_shared::link::AgentFacts;
use serde::Serialize;

use crate::agents::{self, AgentError};
use crate::config::{DoctorOptions, Exposure};
use crate::host::{self, Isolation};
use crate::versions::Versions;

/// The whole report.
#[derive(Debug, Serialize)]
struct Report {
    isolation: &'static str,
    verdict: &'static str,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    detail: String,
    fix: Option<String>,
}

/// Runs every check; 0: all well, 1: usable with limits, 2: no sessions here.
pub(crate) fn run(options: &DoctorOptions) -> ExitCode {
    let report = report(options);
    let code = match report.verdict {
        "ok" => 0,
        "degraded" => 1,
        _ => 2,
    };
    match print(&report, options.json) {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE,
    }
}

fn report(options: &DoctorOptions) -> Report {
    let probe = host::probe();
    let versions = options.state_dir.as_deref().map(Versions::read).unwrap_or_default();
    let facts = host::facts(probe.isolation, &options.exposure, &versions);
    let mut checks = Vec::new();
    let (problem, fix) = probe.problem.map_or((None, None), |(problem, fix)| (Some(problem), Some(fix)));
    let detail = problem.unwrap_or_else(|| "made and entered".to_owned());
    checks.push(Check { name: "user, mount and pid namespaces".to_owned(), ok: fix.is_none(), detail, fix });
    let (ok, detail, fix) = match probe.isolation {
        Isolation::Root => (true, "every session has host ids of its own".to_owned(), None),
        Isolation::User => {
            let fix = "run the supervisor as root (sudo) to give sessions ids of their own".to_owned();
            (false, "sessions are one user on this host: for yourself, not for several tenants".to_owned(), Some(fix))
        }
        Isolation::None => (false, "sessions cannot be separated".to_owned(), None),
    };
    checks.push(Check { name: "ids of their own".to_owned(), ok, detail, fix });
    checks.push(kernel_check(&facts.kernel));
    checks.extend(facts.agents.into_iter().map(|agent| agent_check(agent, &options.exposure)));
    let verdict = match probe.isolation {
        Isolation::None => "refused",
        Isolation::User => "degraded",
        Isolation::Root => "ok",
    };
    Report { isolation: probe.isolation.as_str(), verdict, checks }
}

/// Whether an agent could be started, and the command that installs what it lacks.
fn agent_check(agent: AgentFacts, exposure: &Exposure) -> Check {
    let (ok, detail, fix) = match agents::command(&agent.name, &[], &[], exposure) {
        Ok(_) => (true, agent.version.unwrap_or_else(|| "installed".to_owned()), None),
        Err(AgentError::Missing { program, install }) => {
            (false, format!("`{program}` is not installed"), Some(install))
        }
        Err(other) => (false, other.to_string(), None),
    };
    Check { name: format!("agent {}", agent.name), ok, detail, fix }
}

/// Detached and id-mapped mounts came with Linux 5.12.
fn kernel_check(release: &str) -> Check {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let ok = version >= (5, 12);
    let fix = (!ok).then(|| "upgrade to Linux 5.12 or later".to_owned());
    Check { name: "kernel".to_owned(), ok, detail: release.to_owned(), fix }
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string_pretty(report)?);
    }
    for check in &report.checks {
        writeln!(out, "{}  {:<34} {}", if check.ok { "ok" } else { "--" }, check.name, check.detail)?;
        if let Some(fix) = &check.fix {
            writeln!(out, "      {fix}")?;
        }
    }
    writeln!(out, "isolation: {}; verdict: {}", report.isolation, report.verdict)
}
