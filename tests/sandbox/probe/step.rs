//! Ends a process of a start at an exact step: after the n-th system call of those that change something in the world, made by the supervisor, the
//! shim, init or the agent before it is one. A tracer does it, so the product needs no switch for this.
//!
//! `step PID FILE WHO N VICTIM` follows the supervisor PID and all that it starts, and writes each step to FILE as `WHO N CALL`. After the one that
//! is named it kills the victim, writes `killed`, and lets the others go. With N 0 it kills nobody.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::say;
use crate::sys::{at_mut, call};

/// Calls that change what others see, or what the process may do. `prctl` and `capset` are left out: they change nothing outside, and there are
/// dozens.
const STEPS: &[(i64, &str)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir"),
    (libc::SYS_mkdirat, "mkdirat"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    (libc::SYS_renameat2, "renameat2"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, "chown"),
    (libc::SYS_fchown, "fchown"),
    (libc::SYS_fchownat, "fchownat"),
    (libc::SYS_fchmod, "fchmod"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, "symlink"),
    (libc::SYS_symlinkat, "symlinkat"),
    (libc::SYS_flock, "flock"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_socketpair, "socketpair"),
    (libc::SYS_bind, "bind"),
    (libc::SYS_listen, "listen"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_fork, "fork"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_vfork, "vfork"),
    (libc::SYS_execve, "execve"),
    (libc::SYS_setsid, "setsid"),
    (libc::SYS_unshare, "unshare"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_sethostname, "sethostname"),
    (libc::SYS_keyctl, "keyctl"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_open_tree, "open_tree"),
    (libc::SYS_mount_setattr, "mount_setattr"),
    (libc::SYS_move_mount, "move_mount"),
    (libc::SYS_pivot_root, "pivot_root"),
    (libc::SYS_setgroups, "setgroups"),
    (libc::SYS_setresuid, "setresuid"),
    (libc::SYS_setresgid, "setresgid"),
    (libc::SYS_chdir, "chdir"),
    (libc::SYS_landlock_restrict_self, "landlock_restrict_self"),
    (libc::SYS_seccomp, "seccomp"),
];

/// Options of a tracer: see every call as such, and everything that is started.
const OPTIONS: usize = (libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC) as usize;

/// Whose step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Supervisor,
    Shim,
    Init,
    Agent,
}

impl Role {
    const ALL: [(&'static str, Self); 4] =
        [("supervisor", Self::Supervisor), ("shim", Self::Shim), ("init", Self::Init), ("agent", Self::Agent)];

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(name, _)| *name == word).map(|(_, role)| role)
    }

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, role)| *role == self).map_or("", |(name, _)| name)
    }
}

/// See the module.
pub(crate) fn step(args: &[&str]) -> ExitCode {
    let parsed = match args {
        [pid, file, who, nth, victim] => {
            pid.parse().ok().zip(nth.parse().ok()).zip(Role::of(who).zip(Role::of(victim))).map(|it| (it, *file))
        }
        _ => None,
    };
    let Some((((supervisor, nth), (who, victim)), file)) = parsed else {
        say("usage: step PID FILE WHO N VICTIM");
        return ExitCode::FAILURE;
    };
    let Ok(out) = File::options().create(true).append(true).open(file) else { return ExitCode::FAILURE };
    let mut tracer = Tracer {
        out,
        wanted: (who, nth),
        victim,
        roles: BTreeMap::from([(Role::Supervisor, supervisor)]),
        tasks: BTreeMap::new(),
        counts: BTreeMap::new(),
    };
    match tracer.attach(supervisor).and_then(|()| tracer.follow()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errno) => {
            say(&format!("step: {errno}"));
            ExitCode::FAILURE
        }
    }
}

struct Tracer {
    out: File,
    wanted: (Role, u32),
    victim: Role,
    /// Processes by their part.
    roles: BTreeMap<Role, i32>,
    /// Of each thread: whose it is, once that is known, and the call that it is in.
    tasks: BTreeMap<i32, (Option<Role>, i64)>,
    counts: BTreeMap<Role, u32>,
}

impl Tracer {
    fn attach(&mut self, supervisor: i32) -> Result<(), Errno> {
        for entry in std::fs::read_dir(format!("/proc/{supervisor}/task")).map_err(|_| Errno::ESRCH)?.flatten() {
            let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            ptrace(libc::PTRACE_SEIZE, thread, 0, OPTIONS)?;
            ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0)?;
            self.tasks.insert(thread, (Some(Role::Supervisor), 0));
        }
        say("attached");
        Ok(())
    }

    /// Until the victim is killed or nobody is left.
    fn follow(&mut self) -> Result<(), Errno> {
        loop {
            let mut status = 0_i32;
            let any = usize::MAX;
            let waited = call(libc::SYS_wait4, &[any, at_mut(&mut status), libc::__WALL as usize, 0]);
            let task = match waited {
                Ok(task) => i32::try_from(task).unwrap_or(0),
                Err(Errno::EINTR) => continue,
                Err(Errno::ECHILD) => return Ok(()),
                Err(errno) => return Err(errno),
            };
            if !libc::WIFSTOPPED(status) {
                self.tasks.remove(&task);
                continue;
            }
            let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
            let mut pass_on = 0;
            if signal == libc::SIGTRAP | 0x80 {
                if self.stopped_in_call(task) {
                    return Ok(());
                }
            } else if event == libc::PTRACE_EVENT_EXEC && self.role(task) == Some(Role::Agent) {
                // It is the agent now, which is nobody's step any more.
                let _let_go = ptrace(libc::PTRACE_DETACH, task, 0, 0);
                self.tasks.remove(&task);
                continue;
            } else if event == 0 {
                pass_on = usize::try_from(signal).unwrap_or(0);
            }
            // One that was killed meanwhile is no longer there to go on.
            let _goes_on = ptrace(libc::PTRACE_SYSCALL, task, 0, pass_on);
        }
    }

    /// A stop before or after a call; whether that was the last one of all.
    fn stopped_in_call(&mut self, task: i32) -> bool {
        const ENTRY: u8 = 1;
        const EXIT: u8 = 2;
        let mut info = [0_u64; 11];
        if ptrace(libc::PTRACE_GET_SYSCALL_INFO, task, std::mem::size_of_val(&info), at_mut(&mut info)).is_err() {
            return false;
        }
        let role = self.role(task);
        let entered = self.tasks.entry(task).or_insert((role, 0));
        // op, then architecture, instruction and stack; from the fourth word on the number, or the result and whether it is an error.
        match info[0].to_le_bytes()[0] {
            ENTRY => entered.1 = i64::try_from(info[3]).unwrap_or(0),
            EXIT if info[4].to_le_bytes()[0] == 0 => {
                let number = entered.1;
                if let (Some(role), Some((_, name))) = (role, STEPS.iter().find(|(known, _)| *known == number)) {
                    return self.made(role, name);
                }
            }
            _ => {}
        }
        false
    }

    fn made(&mut self, role: Role, name: &str) -> bool {
        let count = self.counts.entry(role).or_insert(0);
        *count += 1;
        let _noted = writeln!(self.out, "{} {count} {name}", role.name());
        if self.wanted != (role, *count) {
            return false;
        }
        let killed = self.roles.get(&self.victim).is_some_and(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok());
        let _noted = writeln!(self.out, "{}", if killed { "killed" } else { "nobody to kill" });
        true
    }

    /// Whose a thread is. Children of others, such as a holder of a user namespace, are nobody's.
    fn role(&mut self, task: i32) -> Option<Role> {
        if let Some((Some(role), _)) = self.tasks.get(&task) {
            return Some(*role);
        }
        let status = std::fs::read_to_string(format!("/proc/{task}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let number = |name: &str| field(name).trim().parse::<i32>().ok();
        let (group, parent) = (number("Tgid:")?, number("PPid:")?);
        let known = |pid: i32| self.roles.iter().find(|(_, known)| **known == pid).map(|(role, _)| *role);
        let role = match (known(group), known(parent)) {
            (Some(role), _) => role,
            (None, Some(Role::Supervisor)) if field("Name:").trim() == "agentapi-shim" => Role::Shim,
            (None, Some(Role::Shim)) if field("NSpid:").split_whitespace().count() > 1 => Role::Init,
            (None, Some(Role::Init)) => Role::Agent,
            _ => return None,
        };
        self.roles.entry(role).or_insert(group);
        let task = self.tasks.entry(task).or_insert((None, 0));
        task.0 = Some(role);
        Some(role)
    }
}

fn ptrace(request: libc::c_uint, task: i32, address: usize, data: usize) -> Result<i64, Errno> {
    call(libc::SYS_ptrace, &[request as usize, usize::try_from(task).unwrap_or(0), address, data])
}
