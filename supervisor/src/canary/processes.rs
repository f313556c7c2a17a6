//! Attempts on processes: seeing, tracing and changing those of others, and making namespaces of one's own.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::kill;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::Scene;
use super::attempt::{Needs, Row, Seen, errno};
use crate::proc::began;
use crate::sys::{Arg, CloneCall, call, clone_child};

pub(super) const ROWS: &[Row] = &[
    row("processes.of_host", see_host),
    row("processes.signal_host", signal_host),
    row("processes.trace_init", trace_init),
    row("processes.read_init", read_init),
    row("processes.memory_of_init", |scene| Seen::of_io(File::open(format!("/proc/{}/mem", scene.init)))),
    row("processes.environment_of_init", |scene| Seen::of_io(fs::read(format!("/proc/{}/environ", scene.init)))),
    row("processes.program_of_init", |scene| Seen::of_io(File::open(format!("/proc/{}/exe", scene.init)))),
    row("processes.descriptor_of_init", descriptor_of_init),
    row("processes.limit_init", limit_init),
    row("processes.slow_init", slow_init),
    row("namespaces.users", |_| Seen::of(unshare(CloneFlags::CLONE_NEWUSER))),
    row("namespaces.mounts", |_| Seen::of(unshare(CloneFlags::CLONE_NEWNS))),
    row("namespaces.network", |_| Seen::of(unshare(CloneFlags::CLONE_NEWNET))),
    row("namespaces.clone", |_| clone(CloneCall::Old)),
    row("namespaces.clone3", |_| clone(CloneCall::New)),
    row("namespaces.enter_those_of_init", |scene| enter(scene.init)),
    row("namespaces.enter_those_of_host", |scene| enter(Pid::from_raw(scene.aims.host_pid))),
];

const fn row(name: &'static str, make: fn(&Scene) -> Seen) -> Row {
    Row { name, needs: Needs::Nothing, make }
}

fn is_host(scene: &Scene) -> bool {
    began(scene.aims.host_pid) == Some(scene.aims.host_began)
}

fn see_host(scene: &Scene) -> Seen {
    Seen::open_if(is_host(scene), "own only")
}

/// No signal at all: the kernel answers as for any.
fn signal_host(scene: &Scene) -> Seen {
    let pid = scene.aims.host_pid;
    // One of our own that happens to have the number says nothing.
    if began(pid).is_some() && !is_host(scene) {
        return Seen::held("own only");
    }
    Seen::of(kill(Pid::from_raw(pid), None))
}

fn pid(pid: Pid) -> Arg<'static> {
    Arg::Number(pid.as_raw().into())
}

fn trace_init(scene: &Scene) -> Seen {
    let ptrace = |request: u32| {
        call(libc::SYS_ptrace, [Arg::Number(request.into()), pid(scene.init), Arg::Number(0), Arg::Number(0)])
    };
    let seized = ptrace(libc::PTRACE_SEIZE);
    if seized.is_ok() {
        let _let_go = ptrace(libc::PTRACE_DETACH);
    }
    Seen::of(seized)
}

/// Eight bytes of its first mapping; where the map may not be read, any address will do to be refused.
fn read_init(scene: &Scene) -> Seen {
    let maps = fs::read_to_string(format!("/proc/{}/maps", scene.init)).unwrap_or_default();
    let start = maps.split('-').next().and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0x40_0000);
    let mut buffer = [0_u8; 8];
    let vector = |address: u64| [address.to_ne_bytes(), 8_u64.to_ne_bytes()].concat();
    let (local, remote) = (vector(buffer.as_mut_ptr() as u64), vector(start));
    let one = || Arg::Number(1);
    let args = [pid(scene.init), Arg::In(&local), one(), Arg::In(&remote), one(), Arg::Number(0)];
    let read = call(libc::SYS_process_vm_readv, args);
    // The kernel has written to it by the address in the vector.
    std::hint::black_box(&mut buffer);
    Seen::of(read)
}

fn descriptor_of_init(scene: &Scene) -> Seen {
    match crate::sys::pidfd_open(scene.init.as_raw()) {
        Ok(pidfd) => {
            let pidfd = Arg::Number(pidfd.as_raw_fd().into());
            Seen::of(call(libc::SYS_pidfd_getfd, [pidfd, Arg::Number(0), Arg::Number(0)]))
        }
        Err(error) => Seen::refused(errno(&error)),
    }
}

/// Sets what is set already.
fn limit_init(scene: &Scene) -> Seen {
    let which = || Arg::Number(libc::RLIMIT_NOFILE.into());
    let mut limit = [0_u8; 16];
    let known = call(libc::SYS_prlimit64, [pid(scene.init), which(), Arg::Number(0), Arg::Out(&mut limit)]);
    let set = |_| call(libc::SYS_prlimit64, [pid(scene.init), which(), Arg::In(&limit), Arg::Number(0)]);
    Seen::of(known.and_then(set))
}

/// The priority that it has already.
fn slow_init(scene: &Scene) -> Seen {
    let which = || Arg::Number(libc::PRIO_PROCESS.into());
    // The kernel answers with 20 less the value.
    let known = call(libc::SYS_getpriority, [which(), pid(scene.init)]);
    Seen::of(known.and_then(|turned| call(libc::SYS_setpriority, [which(), pid(scene.init), Arg::Number(20 - turned)])))
}

fn clone(how: CloneCall) -> Seen {
    let made = clone_child(libc::CLONE_NEWUSER, how);
    if let Ok(child) = made {
        let _ended = waitpid(child, None);
    }
    Seen::of(made)
}

fn enter(pid: Pid) -> Seen {
    let kinds =
        [("mnt", CloneFlags::CLONE_NEWNS), ("net", CloneFlags::CLONE_NEWNET), ("ipc", CloneFlags::CLONE_NEWIPC)];
    let enter = |(kind, flag)| match File::open(format!("/proc/{pid}/ns/{kind}")) {
        Ok(namespace) => setns(namespace, flag),
        Err(error) => Err::<(), Errno>(errno(&error)),
    };
    Seen::worst(kinds.map(|kind| Seen::of(enter(kind))))
}
