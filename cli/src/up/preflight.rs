//! What must be there before anything is started: the programs beside this one, and a kernel that lets sessions be isolated.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::failure::{ExitKind, Failure};
use crate::output;

/// The supervisor's own checks start a few processes; this is far longer than they take.
const DOCTOR_SECONDS_MAX: Duration = Duration::from_secs(60);

/// The programs that `up` needs, as files beside this one.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// `agentapi-controlplane`.
    pub(crate) controlplane: PathBuf,
    /// `agentapi-supervisor`.
    pub(crate) supervisor: PathBuf,
    /// `agentapi-shim`; the supervisor finds it by itself.
    pub(crate) shim: PathBuf,
}

impl Programs {
    /// Where they belong: beside this executable.
    pub(crate) fn beside_us() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("cannot tell where this program lies")?;
        let dir = own.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self {
            controlplane: dir.join("agentapi-controlplane"),
            supervisor: dir.join("agentapi-supervisor"),
            shim: dir.join("agentapi-shim"),
        })
    }

    /// Those that are not there.
    pub(crate) fn missing(&self) -> Vec<&Path> {
        [&self.controlplane, &self.supervisor, &self.shim]
            .into_iter()
            .map(PathBuf::as_path)
            .filter(|path| !path.is_file())
            .collect()
    }
}

/// What the supervisor says of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostReport {
    /// `root`, `user` or `none`.
    pub(crate) isolation: String,
    /// Whether sessions can run here.
    pub(crate) verdict: Verdict,
    /// One by one.
    pub(crate) checks: Vec<Check>,
}

/// Whether sessions can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// All is there.
    Ok,
    /// Something is missing that not everyone needs.
    Degraded,
    /// Sessions cannot be isolated.
    Refused,
    /// The sandbox was tried, and something got out.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    /// What.
    pub(crate) name: String,
    /// Whether it is well.
    pub(crate) ok: bool,
    /// What was found.
    pub(crate) detail: String,
    /// The command that mends it.
    #[serde(default)]
    pub(crate) fix: Option<String>,
}

/// How closely the supervisor looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// At what there is: the supervisor tries it out by itself when it is started.
    Quick,
    /// And whether it holds.
    Whole,
}

/// Asks the supervisor about this machine. With its state directory it also tells the versions of the agents.
pub(crate) async fn host_report(
    supervisor: &Path,
    state_dir: Option<&Path>,
    roots: &[PathBuf],
    look: Look,
) -> anyhow::Result<HostReport> {
    let mut command = Command::new(supervisor);
    command.args(["doctor", "--json"]).kill_on_drop(true);
    if look == Look::Quick {
        command.arg("--skip-canary");
    }
    command.args(super::plans::local_degraded());
    if let Some(dir) = state_dir {
        command.arg("--state-dir").arg(dir);
    }
    for root in roots {
        command.arg("--workspace-root").arg(root);
    }
    let output = tokio::time::timeout(DOCTOR_SECONDS_MAX, command.output())
        .await
        .context("`agentapi-supervisor doctor` does not end")?
        .with_context(|| format!("cannot run {}", supervisor.display()))?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("`agentapi-supervisor doctor` gave no report ({}) {}", output.status, output::clean_lines(said.trim()))
    })
}

/// Refuses to go on where sessions could not be isolated, saying what would allow it.
pub(crate) async fn check(programs: &Programs, roots: &[PathBuf], unsafe_no_jail: bool) -> anyhow::Result<()> {
    let missing = programs.missing();
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(|path| path.display().to_string()).collect();
        let words = format!(
            "missing: {}. These programs belong beside `agentapi`; in a source tree `make build` makes them",
            names.join(", ")
        );
        return Err(Failure::new(ExitKind::Failure, words).into());
    }
    if unsafe_no_jail {
        output::note(
            "warning: --unsafe-no-jail: sessions run without isolation, and every agent can do what you can do",
        );
        return Ok(());
    }
    let report = host_report(&programs.supervisor, None, roots, Look::Quick).await?;
    // An agent that is not installed is no reason to warn: it is named when somebody wants to run it.
    let failing = report.checks.iter().filter(|check| !check.ok && !check.name.starts_with("agent "));
    let words: Vec<String> = failing.map(describe).collect();
    match report.verdict {
        Verdict::Ok => Ok(()),
        Verdict::Degraded => {
            for line in words {
                output::note(&format!("warning: {line}"));
            }
            Ok(())
        }
        Verdict::Refused | Verdict::Broken => Err(Failure::new(
            ExitKind::Failure,
            format!(
                "sessions cannot be isolated on this machine:\n{}\nMend that, run as root, or accept agents without isolation with --unsafe-no-jail.",
                words.join("\n")
            ),
        )
        .into()),
    }
}

fn describe(check: &Check) -> String {
    let fix =
        check.fix.as_deref().map(|fix| format!("\n    allow it with: {}", output::clean(fix))).unwrap_or_default();
    format!("  {}: {}{fix}", output::clean(&check.name), output::clean(&check.detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::tests::write_program;

    fn programs(report: &str) -> (PathBuf, Programs) {
        let dir = std::env::temp_dir().join(format!("agentapi-preflight-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&dir).unwrap();
        let file = |name: &str| dir.join(name);
        let programs = Programs { controlplane: file("plane"), supervisor: file("supervisor"), shim: file("shim") };
        for path in [&programs.controlplane, &programs.supervisor, &programs.shim] {
            write_program(path, &format!("#!/bin/sh\ncat <<'END'\n{report}\nEND\n"));
        }
        (dir, programs)
    }

    const REFUSED: &str = r#"{"isolation":"none","verdict":"refused","checks":[
        {"name":"user namespaces","ok":false,"detail":"forbidden","fix":"sysctl -w kernel.unprivileged_userns_clone=1"}]}"#;

    #[tokio::test]
    async fn a_refusal_names_the_command_and_can_be_overruled_by_name_only() {
        let (dir, programs) = programs(REFUSED);
        let words = check(&programs, &[], false).await.unwrap_err().to_string();
        assert!(words.contains("sysctl -w kernel.unprivileged_userns_clone=1"), "{words}");
        check(&programs, &[], true).await.unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn missing_programs_are_named_first() {
        let (dir, programs) = programs("");
        std::fs::remove_file(&programs.shim).unwrap();
        let words = check(&programs, &[], true).await.unwrap_err().to_string();
        assert!(words.contains("shim") && !words.contains("plane,"), "{words}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn a_supervisor_that_gives_no_report_is_not_trusted() {
        let (dir, programs) = programs("not json");
        assert!(check(&programs, &[], false).await.is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
