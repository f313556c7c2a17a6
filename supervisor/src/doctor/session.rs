//! `doctor --session`: a running session as the kernel sees it, from outside, beside what it was given. Nothing is asked of the session itself.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use agentapi_shared::SessionId;
use agentapi_shared::api::NetworkMode;
use serde::Serialize;

use super::Verdict;
use crate::files::{SessionFiles, SpawnRecord};

/// What was compared.
#[derive(Debug, Serialize)]
pub(super) struct SessionReport {
    session: SessionId,
    spawn: u32,
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

/// Looks at the newest spawn of a session.
pub(super) fn report(state_dir: &Path, session: SessionId) -> io::Result<SessionReport> {
    let files = SessionFiles::new(state_dir, session);
    let number = files.spawns()?.pop().ok_or_else(|| io::Error::other("the session has no spawn"))?;
    let record = files.spawn(number).record()?;
    let init = record.init_pid.ok_or_else(|| io::Error::other("the newest spawn does not run"))?;
    let mut checks = vec![is_init(init)?];
    let processes = processes_of(init)?;
    if record.posture.as_ref().is_some_and(|posture| posture.isolation == "none") {
        return Err(io::Error::other("the session has no jail: it was started with --unsafe-no-jail"));
    }
    checks.extend(namespaces(init, &record)?);
    for (name, expected) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapInh", NO_CAPABILITIES),
        ("CapPrm", NO_CAPABILITIES),
        ("CapEff", NO_CAPABILITIES),
        ("CapBnd", NO_CAPABILITIES),
        ("CapAmb", NO_CAPABILITIES),
    ] {
        checks.push(of_all(&processes, name, expected));
    }
    let groups = fs::read_to_string(format!("/proc/{init}/cgroup"))?;
    let limited = record.posture.as_ref().is_some_and(|posture| posture.limits.memory_bytes.is_some());
    let inside = groups.lines().filter(|line| line.contains(&session.to_string())).count();
    if limited {
        checks.push(Compared {
            name: "control groups".to_owned(),
            ok: inside > 0,
            expected: "the session's own".to_owned(),
            found: format!("{inside} of its own"),
        });
    }
    Ok(SessionReport { session, spawn: number, processes: processes.len(), checks })
}

const NO_CAPABILITIES: &str = "0000000000000000";

impl SessionReport {
    /// Anything that is not as promised is a reason to stop the session.
    pub(super) fn verdict(&self) -> Verdict {
        if self.checks.iter().all(|check| check.ok) { Verdict::Ok } else { Verdict::Refused }
    }

    pub(super) fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            return writeln!(out, "{}", serde_json::to_string_pretty(self)?);
        }
        for Compared { name, ok, expected, found } in &self.checks {
            let mark = if *ok { "ok" } else { "--" };
            writeln!(
                out,
                "{mark}  {name:<20} {found}{}",
                if *ok { String::new() } else { format!(" (expected: {expected})") }
            )?;
        }
        writeln!(out, "spawn {}, {} processes; verdict: {}", self.spawn, self.processes, self.verdict().as_str())
    }
}

/// A pid that was given to somebody else meanwhile is no first process of a pid namespace.
fn is_init(pid: i32) -> io::Result<Compared> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = field(&status, "NSpid");
    let ok = found.split_whitespace().count() > 1 && found.split_whitespace().last() == Some("1");
    Ok(Compared {
        name: "init".to_owned(),
        ok,
        expected: "the first process of a pid namespace".to_owned(),
        found: format!("pids {found}"),
    })
}

/// The namespaces that the session must not share with us.
fn namespaces(init: i32, record: &SpawnRecord) -> io::Result<Vec<Compared>> {
    let posture = record.posture.as_ref();
    let has = |word: &str| posture.is_some_and(|posture| posture.degraded.iter().any(|known| known == word));
    let shares_network = posture.is_some_and(|posture| posture.network == NetworkMode::Host);
    let mut compared = Vec::new();
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        if (name == "net" && shares_network) || (name == "user" && has("userns")) {
            continue;
        }
        let theirs = fs::read_link(format!("/proc/{init}/ns/{name}"))?;
        let ours = fs::read_link(format!("/proc/self/ns/{name}"))?;
        let (ok, expected, found) = (theirs != ours, "its own".to_owned(), theirs.display().to_string());
        compared.push(Compared { name: format!("{name} namespace"), ok, expected, found });
    }
    Ok(compared)
}

/// The status of each process in the pid namespace of `init`.
fn processes_of(init: i32) -> io::Result<Vec<String>> {
    let wanted = fs::read_link(format!("/proc/{init}/ns/pid"))?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        // Processes come and go meanwhile; one that is gone was none of interest.
        if fs::read_link(path.join("ns/pid")).is_ok_and(|namespace| namespace == wanted)
            && let Ok(status) = fs::read_to_string(path.join("status"))
        {
            found.push(status);
        }
    }
    Ok(found)
}

fn of_all(processes: &[String], name: &str, expected: &str) -> Compared {
    let mut values: Vec<&str> = processes.iter().map(|status| field(status, name)).collect();
    values.sort_unstable();
    values.dedup();
    Compared {
        name: name.to_owned(),
        ok: values == [expected],
        expected: expected.to_owned(),
        found: values.join(", "),
    }
}

/// The value of a line such as `CapEff:\t0000`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_has_to_be_as_expected_and_at_least_one() {
        let statuses = ["Seccomp:\t2\nCapEff:\t0000000000000000\n".to_owned(), "Seccomp:\t0\n".to_owned()];
        assert!(of_all(&statuses[..1], "Seccomp", "2").ok);
        let mixed = of_all(&statuses, "Seccomp", "2");
        assert_eq!((mixed.ok, mixed.found.as_str()), (false, "0, 2"));
        assert!(!of_all(&[], "Seccomp", "2").ok);
        // `Seccomp_filters` is another line.
        assert_eq!(field("Seccomp_filters:\t3\nSeccomp:\t2\n", "Seccomp"), "2");
    }

    #[test]
    fn this_process_is_no_init_of_a_session() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!is_init(own).unwrap().ok);
    }
}
