//! `agentapi doctor`: what this machine has, what is missing, and the command that mends it. It changes nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use agentapi_shared::agent::{AgentManifest, manifests};
use agentapi_shared::link::AgentFacts;
use serde::Serialize;
use tokio::process::Command;

use crate::args::{DoctorArgs, GlobalArgs};
use crate::config::{self, Environment};
use crate::datadir::DataDir;
use crate::failure::Failure;
use crate::output;
use crate::up::lock;
use crate::up::preflight::{Check, Programs, Verdict, host_report};
use crate::up::workspace_roots;

/// A program that does not say its version in this time is taken to have none; node programs take seconds on a cold disk.
const VERSION_SECONDS_MAX: Duration = Duration::from_secs(15);
/// Characters of a version that are shown.
const VERSION_CHARS_MAX: usize = 60;

/// Answer of `agentapi doctor --json`.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    isolation: String,
    checks: Vec<Check>,
    agents: Vec<AgentFacts>,
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
        let report = host_report(&programs.supervisor, &workspace_roots(&args.workspace_roots)?).await?;
        verdict = worse(verdict, report.verdict);
        isolation = report.isolation;
        checks.extend(report.checks);
    }
    let mut agents = Vec::new();
    for manifest in manifests()? {
        agents.push(agent_facts(&manifest, env).await);
    }
    let report = Report { verdict, isolation, checks, agents };
    if global.json {
        output::json(&report)?;
    } else {
        show(&report);
    }
    match verdict {
        Verdict::Ok => Ok(()),
        Verdict::Degraded => Err(Failure::silent(1).into()),
        Verdict::Refused => Err(Failure::silent(2).into()),
    }
}

fn worse(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::Refused, _) | (_, Verdict::Refused) => Verdict::Refused,
        (Verdict::Degraded, _) | (_, Verdict::Degraded) => Verdict::Degraded,
        (Verdict::Ok, Verdict::Ok) => Verdict::Ok,
    }
}

fn show(report: &Report) {
    let row = |ok: bool, name: &str, detail: &str, fix: Option<&str>| {
        let mark = if ok { "ok" } else { "--" };
        vec![mark.to_owned(), name.to_owned(), detail.to_owned(), fix.unwrap_or_default().to_owned()]
    };
    let checks = report.checks.iter().map(|check| row(check.ok, &check.name, &check.detail, check.fix.as_deref()));
    let agents = report.agents.iter().map(|agent| {
        let detail = match (&agent.version, agent.installed) {
            (Some(version), _) => version.as_str(),
            (None, true) => "installed",
            (None, false) => "not installed",
        };
        row(
            agent.installed,
            &format!("agent {}", agent.name),
            detail,
            agent.install.as_deref().filter(|_| !agent.installed),
        )
    });
    let rows: Vec<Vec<String>> = checks.chain(agents).collect();
    output::table(&["", "WHAT", "FOUND", "TO MEND IT"], &rows);
    output::line(match report.verdict {
        Verdict::Ok => "All is well: `agentapi up` starts AgentAPI.",
        Verdict::Degraded => "AgentAPI runs here, but not all of it.",
        Verdict::Refused => "AgentAPI does not run here as it is.",
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

async fn agent_facts(manifest: &AgentManifest, env: &Environment) -> AgentFacts {
    let program = manifest.command.first().and_then(|name| find(name, env));
    let others = manifest.requires.keys().all(|name| find(name, env).is_some());
    let version = match &program {
        Some(program) if !manifest.version_args.is_empty() => version(program, &manifest.version_args).await,
        _ => None,
    };
    let missing = manifest.requires.iter().find(|(name, _)| find(name, env).is_none()).map(|(_, install)| install);
    let install = if program.is_none() { Some(&manifest.install) } else { missing };
    AgentFacts {
        name: manifest.name.clone(),
        installed: program.is_some() && others,
        version,
        install: Some(install.unwrap_or(&manifest.install).clone()),
    }
}

/// A program on the path.
fn find(name: &str, env: &Environment) -> Option<PathBuf> {
    let path = env.get("PATH")?;
    std::env::split_paths(path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file() && nix::unistd::access(file.as_path(), nix::unistd::AccessFlags::X_OK).is_ok())
}

async fn version(program: &Path, arguments: &[String]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).env_remove("AGENTAPI_TOKEN").kill_on_drop(true);
    let answer = tokio::time::timeout(VERSION_SECONDS_MAX, command.output()).await.ok()?.ok()?;
    let said = String::from_utf8_lossy(&answer.stdout);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(output::clean(line).chars().take(VERSION_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn an_agent_is_found_with_its_version_or_named_with_what_installs_it() {
        let dir = std::env::temp_dir().join(format!("agentapi-doctor-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&dir).unwrap();
        let env = Environment::with(&[("PATH", dir.to_str().unwrap())]);
        let manifest = manifests().unwrap().into_iter().find(|agent| agent.name == "claude").unwrap();
        let missing = agent_facts(&manifest, &env).await;
        assert!(!missing.installed && missing.install.unwrap().contains("npm install"));

        let program = dir.join("claude");
        std::fs::write(&program, "#!/bin/sh\necho; echo \"2.1.330 ($1)\"\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = agent_facts(&manifest, &env).await;
        assert_eq!((found.installed, found.version.as_deref()), (true, Some("2.1.330 (--version)")));
        std::fs::remove_dir_all(dir).unwrap();
    }

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
