//! `doctor`: what this host can isolate, told to a person or a program, with the command that mends what it cannot.

mod ids;
mod layers;
mod place;
mod session;
mod table;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use agentapi_shared::link::AgentFacts;
use nix::unistd::AccessFlags;
use serde::Serialize;

use self::layers::Layer;
use self::place::Place;
use crate::agents::{self, AgentError};
use crate::cgroup::Cgroups;
use crate::config::{DoctorOptions, Exposure};
use crate::host::{self, Ground, Isolation};
use crate::launch;
use crate::posture;
use crate::self_test::{self, Bench, Limiting, Standing, Trial};
use crate::settings::{Settings, SettingsError};
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
    /// Jails that were made to see whether they hold.
    trials: Vec<Trial>,
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
    /// None start.
    Refused,
    /// Something got out of a jail, or a session is not as it was promised.
    Broken,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Refused => "refused",
            Self::Broken => "broken",
        }
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(match verdict {
            Verdict::Ok => 0,
            Verdict::Degraded => 1,
            Verdict::Refused | Verdict::Broken => 2,
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
            report.and_then(|report| report.print(options.json).map(|()| report.verdict))
        }
        _ => report(options)
            .map_err(io::Error::other)
            .and_then(|report| table::print(&report, options.json).map(|()| report.verdict)),
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
    // Where sessions are, if we may write there: file systems differ.
    let writable = |dir: &PathBuf| nix::unistd::access(dir, AccessFlags::W_OK).is_ok();
    let of = options.state_dir.as_ref().and_then(|dir| dir.canonicalize().ok()).filter(writable);
    let below = of.unwrap_or_else(std::env::temp_dir);
    let place = Place::make(&below);
    let ground = Ground::probe(&cgroups, &settings, place.as_ref().map_or(&below, Place::path));
    let trials = trials(options, &settings, &ground, &cgroups, place.as_ref());
    cgroups.close();
    let versions = options.state_dir.as_deref().map(Versions::read).unwrap_or_default();
    let facts = host::facts(&ground, &settings, &options.exposure, &versions);
    let layers = layers::of(&ground, &settings);
    let ids = ids::check(ground.isolation);
    let mut refused = ids.as_ref().is_some_and(|check| !check.ok);
    let mut checks = ground_checks(&ground, &facts.kernel, ids);
    checks.extend(layers.iter().filter(|layer| layer.missing.is_some()).map(layer_check));
    checks.extend(trials.iter().map(trial_check));
    checks.extend(facts.agents.into_iter().map(|agent| agent_check(agent, &options.exposure)));
    let missing = layers::used(&ground, &settings);
    let standing = if trials.is_empty() { Standing::NoSandbox } else { Standing::of(&trials) };
    refused |= posture::require(missing.clone(), &settings.allow_degraded).is_err() || standing.refusal().is_some();
    let verdict = match (ground.isolation, missing.is_empty()) {
        _ if matches!(standing, Standing::Broken(_)) => Verdict::Broken,
        (Isolation::None, _) => Verdict::Refused,
        _ if refused => Verdict::Refused,
        (_, false) => Verdict::Degraded,
        (_, true) => Verdict::Ok,
    };
    let (mode, degraded) = (ground.isolation.as_str(), posture::words(&missing));
    Ok(Report {
        schema: SCHEMA,
        kernel: facts.kernel,
        mode,
        isolation: mode,
        verdict,
        layers,
        degraded,
        trials,
        checks,
    })
}

/// Tries the sandbox out, beside a daemon that may run.
fn trials(
    options: &DoctorOptions,
    settings: &Settings,
    ground: &Ground,
    cgroups: &Cgroups,
    place: Result<&Place, &io::Error>,
) -> Vec<Trial> {
    if options.skip_canary || ground.isolation == Isolation::None {
        return Vec::new();
    }
    let place = match place {
        Ok(place) => place,
        Err(error) => return vec![Trial::not_made(format!("no directory for the self-test can be made: {error}"))],
    };
    let shim = launch::program(options.shim.as_deref(), "agentapi-shim").unwrap_or_default();
    let dir = place.path().join("self-test");
    let (shim, limiting, exposure) = (shim.as_path(), Limiting::IfGiven, &options.exposure);
    self_test::try_all(&Bench { shim, cgroups, limiting, ground, exposure, dir }, settings)
}

fn ground_checks(ground: &Ground, kernel: &str, ids: Option<Check>) -> Vec<Check> {
    let (problem, fix) = ground.problem.clone().map_or((None, None), |(problem, fix)| (Some(problem), Some(fix)));
    let detail = problem.unwrap_or_else(|| "made and entered".to_owned());
    let namespaces = Check { name: "user, mount and pid namespaces".to_owned(), ok: fix.is_none(), detail, fix };
    let (ok, detail, fix) = match ground.isolation {
        Isolation::Root => (true, "every session has host ids of its own".to_owned(), None),
        Isolation::User => {
            let fix = "run the supervisor as root (sudo) to give sessions ids of their own".to_owned();
            (false, "sessions are one user on this host: for yourself, not for several tenants".to_owned(), Some(fix))
        }
        Isolation::None => (false, "sessions cannot be separated".to_owned(), None),
    };
    let own = Check { name: "ids of their own".to_owned(), ok, detail, fix };
    [namespaces, own].into_iter().chain(ids).chain([kernel_check(kernel)]).collect()
}

/// What came of trying, for those who read checks only.
fn trial_check(trial: &Trial) -> Check {
    let ok = Standing::of(std::slice::from_ref(trial)) == Standing::Holds;
    let fix = "agentapi-supervisor doctor --json shows every attempt; shim.log and the kernel's log may say more";
    Check { name: "sandbox: self-test".to_owned(), ok, detail: trial.summary(), fix: (!ok).then(|| fix.to_owned()) }
}

/// A layer that is not there as a whole, for those who read checks only.
fn layer_check(layer: &Layer) -> Check {
    Check {
        name: format!("sandbox: {}", layer.name),
        ok: !layer.required,
        detail: layer.evidence.clone(),
        fix: layer.remedy.clone().filter(|_| layer.required),
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
