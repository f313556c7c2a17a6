//! Attempts to be more than one is: ids, capabilities, limits, priorities.

use std::fs;

use nix::errno::Errno;
use nix::libc::rlim_t;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::Scene;
use super::attempt::{Needs, Row, Seen};
use crate::sys::{Arg, call};

pub(super) const ROWS: &[Row] = &[
    row("ids.become_root", |_| {
        let root = Uid::from_raw(0);
        Seen::of(setresuid(root, root, root))
    }),
    row("ids.become_roots_group", |_| {
        let root = Gid::from_raw(0);
        Seen::of(setresgid(root, root, root))
    }),
    row("ids.join_groups", |_| Seen::of(setgroups(&[Gid::from_raw(0)]))),
    Row { name: "ids.of_host", needs: Needs::Users, make: of_host },
    row("ids.have_capabilities", have_capabilities),
    row("ids.new_privileges", |_| Seen::open_if(status("NoNewPrivs") != "1", "none")),
    row("ids.unfiltered", |_| Seen::open_if(status("Seccomp") != "2", "filtered")),
    row("limits.raise", raise_limits),
    row("limits.spare_from_oom_killer", |_| Seen::of_io(fs::write("/proc/self/oom_score_adj", "-1000"))),
    row("limits.raise_priority", |_| {
        let which = Arg::Number(libc::PRIO_PROCESS.into());
        Seen::of(call(libc::SYS_setpriority, [which, Arg::Number(0), Arg::Number(-5)]))
    }),
];

const fn row(name: &'static str, make: fn(&Scene) -> Seen) -> Row {
    Row { name, needs: Needs::Nothing, make }
}

/// A line of one's own `/proc/self/status`.
fn status(name: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Ids inside are those of the host only where there is no user namespace.
fn of_host(_: &Scene) -> Seen {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let words: Vec<&str> = map.split_whitespace().collect();
    Seen::open_if(words == ["0", "0", "4294967295"] || words.is_empty(), &words.join(" "))
}

fn have_capabilities(_: &Scene) -> Seen {
    let names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let some = |set: &str| set.is_empty() || set.bytes().any(|byte| byte != b'0');
    let found: Vec<String> = names
        .map(|name| (name, status(name)))
        .into_iter()
        .filter(|(_, set)| some(set))
        .map(|(name, set)| format!("{name} {set}"))
        .collect();
    Seen::open_if(!found.is_empty(), "none").with(&found.join(", "))
}

/// One more than the most, of what has an end.
fn raise_limits(_: &Scene) -> Seen {
    let all =
        [Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_SIGPENDING, Resource::RLIMIT_MSGQUEUE, Resource::RLIMIT_NPROC];
    let raise = |resource| -> Result<Option<()>, Errno> {
        let (_, hard): (rlim_t, rlim_t) = getrlimit(resource)?;
        if hard == RLIM_INFINITY { Ok(None) } else { setrlimit(resource, hard, hard + 1).map(Some) }
    };
    Seen::worst(all.into_iter().filter_map(|resource| raise(resource).transpose()).map(Seen::of))
}
