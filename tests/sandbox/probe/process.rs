//! Attempts on processes: seeing, signalling, tracing, and making namespaces of one's own.

use std::fs::{self, File};
use std::os::fd::AsRawFd;

use agentapi_tests::attempt::Params;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, getppid, setsid};

use crate::outcome::{Row, Seen};
use crate::run::{end, in_child};
use crate::sys::{self, at, at_mut, call};

pub(crate) const ROWS: &[Row] = &[
    Row { number: 20, name: "proc.see_host", make: see_host },
    Row { number: 20, name: "proc.host_name", make: host_name },
    Row { number: 20, name: "proc.signal_host", make: signal_host },
    Row { number: 21, name: "proc.trace_init", make: trace_init },
    Row { number: 21, name: "proc.read_init", make: read_init },
    Row { number: 21, name: "proc.memory_of_init", make: |_| Seen::of_io(File::open(format!("/proc/{}/mem", init()))) },
    Row { number: 21, name: "proc.descriptor_of_init", make: descriptor_of_init },
    Row { number: 21, name: "proc.trace_host", make: trace_host },
    Row { number: 24, name: "proc.unshare_user", make: |_| Seen::of(unshare(CloneFlags::CLONE_NEWUSER)) },
    Row { number: 24, name: "proc.unshare_mount", make: |_| Seen::of(unshare(CloneFlags::CLONE_NEWNS)) },
    Row { number: 24, name: "proc.clone_user", make: clone_user },
    Row { number: 24, name: "proc.clone3_user", make: clone3_user },
    Row { number: 25, name: "proc.setns_init", make: setns_init },
    Row { number: 25, name: "proc.setns_host", make: setns_host },
    Row { number: 26, name: "proc.orphans", make: orphans },
    Row { number: 22, name: "proc.limit_init", make: limit_init },
    Row { number: 22, name: "proc.slow_init", make: slow_init },
    // Takes something away from those that follow.
    Row { number: 18, name: "fs.unmount_host", make: crate::filesystem::unmount_host },
    // Ends the session where it gets through, and therefore comes last.
    Row { number: 22, name: "proc.kill_init", make: kill_init },
];

/// No process has this id: what cannot be found is not to be hit by accident.
const NOBODY: i32 = i32::MAX;

/// The process that is init of this jail: parent of the probe, whose children make the attempts.
pub(crate) fn init() -> i32 {
    let probe = getppid();
    let status = fs::read_to_string(format!("/proc/{probe}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).unwrap_or(NOBODY)
}

fn host_pid(params: &Params, name: &str) -> Pid {
    Pid::from_raw(params.host_pids.get(name).copied().unwrap_or(NOBODY))
}

fn see_host(params: &Params) -> Seen {
    let bait = host_pid(params, "proc.see_host");
    let command = fs::read(format!("/proc/{bait}/cmdline")).unwrap_or_default();
    let seen = String::from_utf8_lossy(&command).contains(&params.secret);
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes =
        listed.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())).count();
    Seen::open_if(seen, "own_only", format!("{processes} processes"))
}

fn host_name(params: &Params) -> Seen {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Seen::open_if(name.trim() == params.host_name, "own", name.trim().to_owned())
}

fn signal_host(params: &Params) -> Seen {
    Seen::of(kill(host_pid(params, "proc.signal_host"), Signal::SIGKILL))
}

fn trace(pid: Pid) -> Seen {
    let attached = call(libc::SYS_ptrace, &[libc::PTRACE_SEIZE as usize, pid.as_raw() as usize, 0, 0]);
    if attached.is_ok() {
        let _detached = call(libc::SYS_ptrace, &[libc::PTRACE_DETACH as usize, pid.as_raw() as usize, 0, 0]);
    }
    Seen::of(attached)
}

fn trace_init(_: &Params) -> Seen {
    trace(Pid::from_raw(init()))
}

fn trace_host(params: &Params) -> Seen {
    trace(host_pid(params, "proc.trace_host"))
}

fn read_init(_: &Params) -> Seen {
    let mut buffer = [0_u8; 8];
    let local = [at_mut(&mut buffer), 8];
    // Some address of its own program, by its map; where that may not be read, any will do to be refused.
    let maps = fs::read_to_string(format!("/proc/{}/maps", init())).unwrap_or_default();
    let start = maps.split('-').next().and_then(|text| usize::from_str_radix(text, 16).ok()).unwrap_or(0x40_0000);
    let remote = [start, 8];
    Seen::of(call(libc::SYS_process_vm_readv, &[init() as usize, at(&local), 1, at(&remote), 1, 0]))
}

fn descriptor_of_init(_: &Params) -> Seen {
    match call(libc::SYS_pidfd_open, &[init() as usize, 0]) {
        Ok(pidfd) => Seen::of(call(libc::SYS_pidfd_getfd, &[sys::own(pidfd).as_raw_fd() as usize, 0, 0])),
        Err(errno) => Seen::refused(errno),
    }
}

fn clone_user(_: &Params) -> Seen {
    let flags = libc::CLONE_NEWUSER as usize | libc::SIGCHLD as usize;
    match call(libc::SYS_clone, &[flags, 0, 0, 0, 0]) {
        Ok(0) => sys::exit_now(0),
        Ok(pid) => {
            end(i32::try_from(pid).unwrap_or(0));
            Seen::open("")
        }
        Err(errno) => Seen::refused(errno),
    }
}

fn clone3_user(_: &Params) -> Seen {
    let mut args = [0_u64; 11];
    args[0] = libc::CLONE_NEWUSER as u64;
    args[4] = libc::SIGCHLD as u64;
    match call(libc::SYS_clone3, &[at(&args), size_of_val(&args)]) {
        Ok(0) => sys::exit_now(0),
        Ok(pid) => {
            end(i32::try_from(pid).unwrap_or(0));
            Seen::open("")
        }
        Err(errno) => Seen::refused(errno),
    }
}

fn join(pid: Pid) -> Seen {
    let kinds =
        [("mnt", CloneFlags::CLONE_NEWNS), ("net", CloneFlags::CLONE_NEWNET), ("ipc", CloneFlags::CLONE_NEWIPC)];
    Seen::worst(kinds.map(|(kind, flag)| match File::open(format!("/proc/{pid}/ns/{kind}")) {
        Ok(namespace) => Seen::of(setns(namespace, flag)),
        Err(error) => Seen::refused(crate::outcome::errno(&error)),
    }))
}

fn setns_init(_: &Params) -> Seen {
    join(Pid::from_raw(init()))
}

fn setns_host(params: &Params) -> Seen {
    join(host_pid(params, "proc.setns_host"))
}

/// Two hundred orphans that end at once: init takes them in, or they stay as zombies.
fn orphans(_: &Params) -> Seen {
    const ORPHANS: u32 = 200;
    // The control: an orphan that comes to somebody who does not take it in is seen.
    let _adopts = nix::sys::prctl::set_child_subreaper(true);
    let _parted = in_child(part);
    for _ in 0..100 {
        if zombies() > 0 {
            break;
        }
        nap(10);
    }
    if zombies() == 0 {
        return Seen::held("FAILED").with("zombies are not seen");
    }
    let _taken_in = nix::sys::wait::wait();
    let _adopts = nix::sys::prctl::set_child_subreaper(false);
    for _ in 0..ORPHANS {
        let parted = in_child(part);
        if !matches!(parted, Ok(WaitStatus::Exited(..))) {
            return Seen::held("FAILED").with(format!("{parted:?}"));
        }
    }
    for _ in 0..100 {
        if zombies() == 0 {
            return Seen::held("reaped");
        }
        nap(20);
    }
    Seen::open(format!("{} zombies", zombies()))
}

/// Leaves a child without a parent.
fn part() -> i32 {
    let _own = setsid();
    if sys::fork() == Ok(0) {
        sys::exit_now(0);
    }
    0
}

fn zombies() -> usize {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let status = all.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    // Only what was ours: on the bare host others may have zombies.
    status.filter(|text| text.contains("State:\tZ") && text.contains("Name:\tsandbox-probe")).count()
}

/// Waits a little, without what the repository's rules keep from tests: this is a program under test.
pub(crate) fn nap(milliseconds: u64) {
    let time = nix::sys::time::TimeSpec::from_duration(std::time::Duration::from_millis(milliseconds));
    let _slept: Result<i64, Errno> = call(libc::SYS_nanosleep, &[at(&time), 0]);
}

/// Sets what is set already: on the bare host this is a process of the tests.
fn limit_init(_: &Params) -> Seen {
    let mut limit = [0_u64; 2];
    let target = [init() as usize, libc::RLIMIT_NOFILE as usize];
    let known = call(libc::SYS_prlimit64, &[target[0], target[1], 0, at_mut(&mut limit)]);
    Seen::of(known.and_then(|_| call(libc::SYS_prlimit64, &[target[0], target[1], at(&limit), 0])))
}

fn slow_init(_: &Params) -> Seen {
    let target = [libc::PRIO_PROCESS as usize, init() as usize];
    let set = |nice: i64| call(libc::SYS_setpriority, &[target[0], target[1], nice as usize]);
    // The kernel answers with 20 less the value.
    Seen::of(call(libc::SYS_getpriority, &target).and_then(|turned| set(20 - turned)))
}

fn kill_init(_: &Params) -> Seen {
    let sent = kill(Pid::from_raw(init()), Signal::SIGKILL);
    nap(100);
    // Still here to tell: what the kernel answered counts for little, the harness looks whether init lives.
    match sent {
        Ok(()) => Seen::held("survived"),
        Err(errno) => Seen::refused(errno),
    }
}
