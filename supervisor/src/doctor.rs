//! `doctor`: what this host can isolate, told to a person or a program, with the command that mends what it cannot.

mod layers;
mod session;

use std::io::{self, Write};
use std::process::ExitCode;

use agentapi_shared::link::AgentFacts;
use serde::Serialize;

use self::layers::Layer;
use crate::agents::{self, AgentError};
use crate::cgroup::Cgroups;
use crate::config::{DoctorOptions, Exposure};
use crate::host::{self, Ground, Isolation};
use crate::posture;
use crate::settings::SettingsError;
use crate::versions::Versions;

/// Version of the report.
const SCHEMA: u32 = 1;

/// The whole report.
#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    kernel: String,
    /// `root`, `user` or `none`.
    mode: &'static str,
    /// The same, by the name that facts of hosts have for it.
    isolation: &'static str,
    verdict: Verdict,
    /// What the sandbox is made of.
    layers: Vec<Layer>,
    /// What is missing of it, of what sessions would use.
    degraded: Vec<String>,
    /// What else was looked at, agents among it.
    checks: Vec<Check>,
}

/// What comes of looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// All well.
    Ok,
    /// Sessions start, and say what they lack.
    Degraded,
    /// None start; or a session is not as it was promised.
    Refused,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Refused => "refused",
        }
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(match verdict {
            Verdict::Ok => 0,
            Verdict::Degraded => 1,
            Verdict::Refused => 2,
        })
    }
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
    let printed = match (options.session, &options.state_dir) {
        (Some(session), Some(state_dir)) => {
            let report = session::report(state_dir, session);
            report.and_then(|report| report.print(options.json).map(|()| report.verdict()))
        }
        _ => report(options)
            .map_err(io::Error::other)
            .and_then(|report| print(&report, options.json).map(|()| report.verdict)),
    };
    match printed {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            // The reason may be that there is no output any more.
            let _told = writeln!(
                io::stderr(),
                "{}",
                error.get_ref().map_or_else(|| error.to_string(), |inner| crate::chain(inner))
            );
            Verdict::Refused.into()
        }
    }
}

fn report(options: &DoctorOptions) -> Result<Report, SettingsError> {
    let settings = options.policy.settings()?;
    let groups_of = options.state_dir.clone().filter(|dir| dir.is_dir()).unwrap_or_else(std::env::temp_dir);
    let cgroups = Cgroups::look(&groups_of);
    let ground = Ground::probe(&cgroups, &settings);
    cgroups.close();
    let versions = options.state_dir.as_deref().map(Versions::read).unwrap_or_default();
    let facts = host::facts(&ground, &settings, &options.exposure, &versions);
    let mut checks = Vec::new();
    let (problem, fix) = ground.problem.clone().map_or((None, None), |(problem, fix)| (Some(problem), Some(fix)));
    let detail = problem.unwrap_or_else(|| "made and entered".to_owned());
    checks.push(Check { name: "user, mount and pid namespaces".to_owned(), ok: fix.is_none(), detail, fix });
    let (ok, detail, fix) = match ground.isolation {
        Isolation::Root => (true, "every session has host ids of its own".to_owned(), None),
        Isolation::User => {
            let fix = "run the supervisor as root (sudo) to give sessions ids of their own".to_owned();
            (false, "sessions are one user on this host: for yourself, not for several tenants".to_owned(), Some(fix))
        }
        Isolation::None => (false, "sessions cannot be separated".to_owned(), None),
    };
    checks.push(Check { name: "ids of their own".to_owned(), ok, detail, fix });
    checks.push(kernel_check(&facts.kernel));
    let layers = layers::of(&ground, &settings);
    checks.extend(layers.iter().filter(|layer| layer.missing.is_some()).map(layer_check));
    checks.extend(facts.agents.into_iter().map(|agent| agent_check(agent, &options.exposure)));
    let missing = layers::used(&ground, &settings);
    let verdict = match (ground.isolation, missing.is_empty()) {
        _ if posture::require(missing.clone(), &settings.allow_degraded).is_err() => Verdict::Refused,
        (Isolation::None, _) => Verdict::Refused,
        (_, false) => Verdict::Degraded,
        (_, true) => Verdict::Ok,
    };
    let (mode, degraded) = (ground.isolation.as_str(), posture::words(&missing));
    Ok(Report { schema: SCHEMA, kernel: facts.kernel, mode, isolation: mode, verdict, layers, degraded, checks })
}

/// A layer that is not there as a whole, for those who read checks only.
fn layer_check(layer: &Layer) -> Check {
    let allow = || {
        format!("allow sessions without it: allow_degraded = [\"{}\"]", layer.missing.as_deref().unwrap_or_default())
    };
    Check {
        name: format!("sandbox: {}", layer.name),
        ok: !layer.required,
        detail: layer.evidence.clone(),
        fix: layer.required.then(allow),
    }
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
    let ok = host::kernel_version(release) >= host::IDMAP_KERNEL;
    let fix = (!ok).then(|| "upgrade to Linux 5.12 or later".to_owned());
    Check { name: "kernel".to_owned(), ok, detail: release.to_owned(), fix }
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string_pretty(report)?);
    }
    writeln!(out, "{:<12} {:<10} {:<9} {:<9} FOUND", "LAYER", "AVAILABLE", "ENFORCED", "REQUIRED")?;
    let word = |is: bool| if is { "yes" } else { "no" };
    for layer in &report.layers {
        let (available, enforced, required) = (word(layer.available), word(layer.enforced), word(layer.required));
        writeln!(out, "{:<12} {available:<10} {enforced:<9} {required:<9} {}", layer.name, layer.evidence)?;
    }
    writeln!(out)?;
    for check in &report.checks {
        writeln!(out, "{}  {:<34} {}", if check.ok { "ok" } else { "--" }, check.name, check.detail)?;
        if let Some(fix) = &check.fix {
            writeln!(out, "      {fix}")?;
        }
    }
    let degraded = if report.degraded.is_empty() { "nothing".to_owned() } else { report.degraded.join(", ") };
    writeln!(out, "isolation: {}; missing: {degraded}; verdict: {}", report.isolation, report.verdict.as_str())
}
