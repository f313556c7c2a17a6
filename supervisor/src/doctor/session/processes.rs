//! Every process of a session beside its plan: privileges, ids, limits. What a program may take from itself (a lower limit, a filter more) is no
//! difference.

use std::fs;
use std::io;
use std::path::PathBuf;

use agentapi_shared::jail::{AGENT_ID, JailMode, Rlimit, RlimitResource};

use super::Compared;
use crate::proc::field;
use crate::promise::Promise;

const NO_CAPABILITIES: &str = "0000000000000000";

/// The processes of this host, by whether they are in the session's jail.
pub(super) struct Processes {
    pub(super) inside: Vec<Process>,
    /// The others.
    pub(super) outside: Vec<i32>,
    pid_namespace: PathBuf,
}

/// A process of the session.
pub(super) struct Process {
    pub(super) pid: i32,
    status: String,
    limits: String,
    oom_score_adj: i32,
}

impl Processes {
    /// Those of the pid namespace that `init` is the first of.
    pub(super) fn look(init: i32) -> io::Result<Self> {
        let pid_namespace = fs::read_link(format!("/proc/{init}/ns/pid"))?;
        let mut found = Self { inside: Vec::new(), outside: Vec::new(), pid_namespace };
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if !found.has(pid) {
                found.outside.push(pid);
            } else if let Ok(process) = Process::look(pid) {
                found.inside.push(process);
            }
        }
        Ok(found)
    }

    /// Whether a process is in the jail now: they come and go.
    pub(super) fn has(&self, pid: i32) -> bool {
        fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|namespace| namespace == self.pid_namespace)
    }
}

impl Process {
    fn look(pid: i32) -> io::Result<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
        let oom_score_adj = read("oom_score_adj")?.trim().parse().map_err(io::Error::other)?;
        Ok(Self { pid, status: read("status")?, limits: read("limits")?, oom_score_adj })
    }

    fn field(&self, name: &str) -> &str {
        field(&self.status, name)
    }

    /// The hard limit of a line such as `Max open files  1024  4096  files`; none: unlimited, or no such line.
    fn limit(&self, name: &str) -> Option<u64> {
        let rest = self.limits.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().nth(1)?.parse().ok()
    }
}

/// All of them.
pub(super) fn compare(all: &Processes, promise: &Promise) -> Vec<Compared> {
    let inside = all.inside.as_slice();
    let mut compared = Vec::new();
    for (name, expected) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapInh", NO_CAPABILITIES),
        ("CapPrm", NO_CAPABILITIES),
        ("CapEff", NO_CAPABILITIES),
        ("CapBnd", NO_CAPABILITIES),
        ("CapAmb", NO_CAPABILITIES),
    ] {
        compared.push(of_all(inside, name, expected));
    }
    let filters = |process: &Process| process.field("Seccomp_filters").parse::<u32>().ok();
    // Kernels before 5.9 do not say.
    let fewer = |process: &&Process| filters(process).is_some_and(|count| count < promise.filters);
    let wrong = named(inside.iter().filter(fewer), |process| process.field("Seccomp_filters").to_owned());
    compared.push(Compared::of_differences("filters", format!("{} or more", promise.filters), &wrong));
    compared.extend(ids(inside, promise.plan.mode));
    if let Some(least) = promise.plan.oom_score_adj {
        let less = inside.iter().filter(|process| process.oom_score_adj < i32::from(least));
        let wrong = named(less, |process| process.oom_score_adj.to_string());
        compared.push(Compared::of_differences("oom_score_adj", format!("{least} or more"), &wrong));
    }
    compared.extend(promise.plan.rlimits.iter().map(|limit| limited(inside, *limit)));
    compared
}

fn of_all(inside: &[Process], name: &str, expected: &str) -> Compared {
    let mut values: Vec<&str> = inside.iter().map(|process| process.field(name)).collect();
    values.sort_unstable();
    values.dedup();
    Compared::new(name, values == [expected], expected, values.join(", "))
}

fn named<'a>(wrong: impl Iterator<Item = &'a Process>, value: impl Fn(&Process) -> String) -> Vec<String> {
    wrong.map(|process| format!("pid {} has {}", process.pid, value(process))).collect()
}

/// Ids as the host sees them, all four of each.
fn ids(inside: &[Process], mode: JailMode) -> Vec<Compared> {
    let JailMode::Root { uid_base } = mode else { return Vec::new() };
    let id = (uid_base + AGENT_ID).to_string();
    let of = |name: &str| {
        let wrong = inside.iter().filter(|process| process.field(name).split_whitespace().any(|found| found != id));
        Compared::of_differences(
            name,
            format!("{id}, {AGENT_ID} inside"),
            &named(wrong, |it| it.field(name).to_owned()),
        )
    };
    vec![of("Uid"), of("Gid"), of_all(inside, "Groups", "")]
}

fn limited(inside: &[Process], Rlimit { resource, value }: Rlimit) -> Compared {
    let (name, line) = match resource {
        RlimitResource::Nofile => ("limit: open files", "Max open files"),
        RlimitResource::Nproc => ("limit: processes", "Max processes"),
        RlimitResource::Core => ("limit: core", "Max core file size"),
        RlimitResource::Memlock => ("limit: locked memory", "Max locked memory"),
        RlimitResource::Msgqueue => ("limit: message queues", "Max msgqueue size"),
        RlimitResource::Sigpending => ("limit: signals", "Max pending signals"),
    };
    let above = inside.iter().filter(|process| process.limit(line).is_none_or(|hard| hard > value));
    let wrong = named(above, |process| process.limit(line).map_or("no limit".to_owned(), |hard| hard.to_string()));
    Compared::of_differences(name, format!("at most {value}"), &wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, status: &str, limits: &str) -> Process {
        Process { pid, status: status.to_owned(), limits: limits.to_owned(), oom_score_adj: 500 }
    }

    #[test]
    fn every_process_has_to_be_as_expected_and_at_least_one() {
        let all = [process(7, "Seccomp:\t2\n", ""), process(8, "Seccomp:\t0\n", "")];
        assert!(of_all(&all[..1], "Seccomp", "2").ok);
        let mixed = of_all(&all, "Seccomp", "2");
        assert_eq!((mixed.ok, mixed.found.as_str()), (false, "0, 2"));
        assert!(!of_all(&[], "Seccomp", "2").ok);
    }

    #[test]
    fn limits_may_be_lower_and_never_higher_or_none() {
        let limit = Rlimit { resource: RlimitResource::Nofile, value: 8192 };
        let with =
            |hard: &str| process(7, "", &format!("Max open files            100                  {hard}     files\n"));
        assert!(limited(&[with("8192")], limit).ok);
        assert!(limited(&[with("10")], limit).ok);
        let higher = limited(&[with("10"), with("9000")], limit);
        assert_eq!((higher.ok, higher.found.as_str()), (false, "pid 7 has 9000"));
        assert!(!limited(&[with("unlimited")], limit).ok);
    }

    #[test]
    fn ids_are_those_of_the_block_and_no_others() {
        let mode = JailMode::Root { uid_base: 0x4000_0000 };
        let status =
            "Uid:\t1073742824\t1073742824\t1073742824\t1073742824\nGid:\t1073742824\t0\t1073742824\t1\nGroups:\t\n";
        let ok: Vec<bool> = ids(&[process(7, status, "")], mode).iter().map(|compared| compared.ok).collect();
        assert_eq!(ok, [true, false, true]);
    }
}
