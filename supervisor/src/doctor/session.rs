//! `doctor --session`: a running session as the kernel sees it, from outside, beside what its jail was made from. Nothing is asked of the session
//! itself.

mod groups;
mod jail;
mod processes;

use std::io::{self, Write};
use std::path::Path;

use agentapi_shared::SessionId;
use serde::Serialize;

use self::processes::Processes;
use super::{SCHEMA, Verdict};
use crate::files::SessionFiles;
use crate::proc;
use crate::promise::Promise;

/// What was compared.
#[derive(Debug, Serialize)]
pub(super) struct SessionReport {
    schema: u32,
    session: SessionId,
    spawn: u32,
    pub(super) verdict: Verdict,
    /// Processes of the jail that were looked at.
    processes: usize,
    checks: Vec<Compared>,
}

/// One thing.
#[derive(Debug, Serialize)]
struct Compared {
    name: String,
    ok: bool,
    expected: String,
    found: String,
}

impl Compared {
    fn new(name: &str, ok: bool, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ok, expected: expected.into(), found: found.into() }
    }

    /// By what differs: nothing may.
    fn of_differences(name: &str, expected: impl Into<String>, differences: &[String]) -> Self {
        /// Named; a jail in which everything is wrong is told by a few as well.
        const SHOWN_MAX: usize = 5;
        let shown: Vec<String> = differences.iter().take(SHOWN_MAX).cloned().collect();
        let more = differences.len().saturating_sub(SHOWN_MAX);
        let found = match (differences.is_empty(), more) {
            (true, _) => "as expected".to_owned(),
            (false, 0) => shown.join(", "),
            (false, more) => format!("{}, and {more} more", shown.join(", ")),
        };
        Self::new(name, differences.is_empty(), expected, found)
    }
}

/// Looks at the newest spawn of a session.
pub(super) fn report(state_dir: &Path, session: SessionId) -> io::Result<SessionReport> {
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::other("the init of a session may be looked at by root only: sudo"));
    }
    let files = SessionFiles::new(state_dir, session);
    let spawn = files.spawns()?.pop().ok_or_else(|| io::Error::other("the session has no spawn"))?;
    let spawn_files = files.spawn(spawn);
    let record = spawn_files.record()?;
    let init = record.init_pid.ok_or_else(|| io::Error::other("the newest spawn does not run"))?;
    if record.posture.as_ref().is_some_and(|posture| posture.isolation == "none") {
        return Err(io::Error::other("the session has no jail: it was started with --unsafe-no-jail"));
    }
    if record.init_began.is_some() && proc::began(init) != record.init_began {
        return Err(io::Error::other("the newest spawn is over"));
    }
    let promise: Promise = match spawn_files.promise() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(io::Error::other("the session was started by an earlier release, which kept no plan of it"));
        }
        other => other?,
    };
    let all = Processes::look(init)?;
    let mut checks = jail::compare(init, &promise.plan, &all)?;
    checks.extend(processes::compare(&all, &promise));
    checks.extend(groups::compare(&all, &promise));
    let verdict = if checks.iter().all(|check| check.ok) { Verdict::Ok } else { Verdict::Broken };
    Ok(SessionReport { schema: SCHEMA, session, spawn, verdict, processes: all.inside.len(), checks })
}

impl SessionReport {
    pub(super) fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            return writeln!(out, "{}", serde_json::to_string_pretty(self)?);
        }
        for Compared { name, ok, expected, found } in &self.checks {
            let mark = if *ok { "ok" } else { "--" };
            let wanted = if *ok { String::new() } else { format!(" (expected: {expected})") };
            writeln!(out, "{mark}  {name:<24} {found}{wanted}")?;
        }
        let sentence = match self.verdict {
            Verdict::Ok => "The session is held as it was promised.",
            _ => "The session is not held as it was promised: stop it, and look for what has changed it.",
        };
        let (spawn, processes, verdict) = (self.spawn, self.processes, self.verdict.as_str());
        writeln!(out, "spawn {spawn}, {processes} processes; verdict: {verdict}. {sentence}")
    }
}
