//! The jail itself beside its plan: its first process, its namespaces, ids and mounts.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use agentapi_shared::jail::{AGENT_ID, JailMode, JailPlan, MAPPED_IDS, Namespace, compare_mounts};

use super::Compared;
use super::processes::Processes;
use crate::proc::field;

/// All of it.
pub(super) fn compare(init: i32, plan: &JailPlan, all: &Processes) -> io::Result<Vec<Compared>> {
    let mut compared = vec![is_init(init)?];
    for namespace in &plan.namespaces {
        compared.push(is_own(init, *namespace)?);
    }
    compared.push(shared_with_nobody(init, plan, all)?);
    if plan.has(Namespace::User) {
        compared.extend(maps(init, plan.mode)?);
    }
    let table = fs::read_to_string(format!("/proc/{init}/mountinfo"))?;
    let difference: Vec<String> = compare_mounts(&table, &plan.mounts).err().into_iter().collect();
    compared.push(Compared::of_differences("mounts", "what the plan made and nothing else", &difference));
    Ok(compared)
}

/// A pid that was given to somebody else meanwhile is no first process of a pid namespace.
fn is_init(pid: i32) -> io::Result<Compared> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = field(&status, "NSpid");
    let ok = found.split_whitespace().count() > 1 && found.split_whitespace().last() == Some("1");
    Ok(Compared::new("init", ok, "the first process of a pid namespace", format!("pids {found}")))
}

/// Its name in `/proc/PID/ns`.
fn word(namespace: Namespace) -> &'static str {
    match namespace {
        Namespace::User => "user",
        Namespace::Pid => "pid",
        Namespace::Mount => "mnt",
        Namespace::Network => "net",
        Namespace::Ipc => "ipc",
        Namespace::Uts => "uts",
        Namespace::Cgroup => "cgroup",
    }
}

fn of(process: &str, namespace: Namespace) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/{}", word(namespace)))
}

/// Not that of the host, which is ours.
fn is_own(init: i32, namespace: Namespace) -> io::Result<Compared> {
    let (theirs, ours) = (of(&init.to_string(), namespace)?, of("self", namespace)?);
    let name = format!("{} namespace", word(namespace));
    Ok(Compared::new(&name, theirs != ours, "its own", theirs.display().to_string()))
}

/// Neither with the host nor with another session: no process outside is in any of them, but the session's own shim in its network, which it has made.
fn shared_with_nobody(init: i32, plan: &JailPlan, all: &Processes) -> io::Result<Compared> {
    let own: BTreeSet<PathBuf> =
        plan.namespaces.iter().map(|namespace| of(&init.to_string(), *namespace)).collect::<io::Result<_>>()?;
    let status = fs::read_to_string(format!("/proc/{init}/status"))?;
    let shim = field(&status, "PPid").parse::<i32>().ok();
    let mut shared = Vec::new();
    for pid in &all.outside {
        for namespace in &plan.namespaces {
            // One that is gone meanwhile shares nothing; one that has come into the jail is of it.
            let theirs = of(&pid.to_string(), *namespace);
            let is_maker = *namespace == Namespace::Network && Some(*pid) == shim;
            if !is_maker && theirs.is_ok_and(|theirs| own.contains(&theirs)) && !all.has(*pid) {
                shared.push(format!("{} with pid {pid}", word(*namespace)));
            }
        }
    }
    Ok(Compared::of_differences("namespaces shared", "with no process outside", &shared))
}

/// Ids of the block and no others, and inside nobody but the agent's user is used.
fn maps(init: i32, mode: JailMode) -> io::Result<Vec<Compared>> {
    let map = |name: &str| -> io::Result<Compared> {
        let text = fs::read_to_string(format!("/proc/{init}/{name}"))?;
        let found = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (ok, expected) = match mode {
            JailMode::Root { uid_base } => {
                let expected = format!("0 {uid_base} {MAPPED_IDS}");
                (found == expected, expected)
            }
            JailMode::User | JailMode::None => {
                let one = found.starts_with(&format!("{AGENT_ID} ")) && found.ends_with(" 1");
                (one && found.split(' ').count() == 3, format!("{AGENT_ID} alone"))
            }
        };
        Ok(Compared::new(name, ok, expected, found))
    };
    Ok(vec![map("uid_map")?, map("gid_map")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_no_init_of_a_session() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!is_init(own).unwrap().ok);
    }
}
