//! The two processes of ours that go on beside the agent may only do what they do.
//!
//! What is not listed does not exist (`ENOSYS`) and does not end the process: a library that tries a newer call goes on with the older one, and
//! an agent's work of days does not depend on this list being complete. Whoever has taken the process over gains nothing by either.

use std::collections::BTreeMap;

use libc::sock_filter;
use nix::errno::Errno;

use super::bpf::{self, Look, Verdict};

/// Memory, time, locks, the end: what any process does. No call here makes memory executable.
const ANY: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Waiting, on this architecture.
#[cfg(target_arch = "x86_64")]
const WAIT: &[i64] = &[libc::SYS_ppoll, libc::SYS_poll];
#[cfg(target_arch = "aarch64")]
const WAIT: &[i64] = &[libc::SYS_ppoll];

/// Not in every architecture's headers.
#[cfg(target_arch = "x86_64")]
const RENAMEAT: i64 = 264;
#[cfg(target_arch = "aarch64")]
const RENAMEAT: i64 = 38;

/// Init: hears the shim, reaps, signals.
const INIT: &[i64] = &[libc::SYS_recvmsg, libc::SYS_sendmsg, libc::SYS_wait4, libc::SYS_kill];

/// The shim: its socket, its directory by descriptor, its terminal.
const SHIM: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_unlinkat,
    RENAMEAT,
    libc::SYS_renameat2,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    // The lock on its directory, let go at the end.
    libc::SYS_flock,
    libc::SYS_wait4,
    // A thread that starts while the filter is put on it.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_prlimit64,
];

/// Requests to the terminal, and those that the standard library makes of descriptors.
const SHIM_REQUESTS: &[u64] = &[libc::TIOCGPGRP, libc::TIOCSWINSZ, libc::TIOCGWINSZ, libc::FIONBIO, libc::FIOCLEX];

/// Init's program.
pub(super) fn init() -> Result<Vec<sock_filter>, Errno> {
    program(INIT, &[libc::TIOCGPGRP])
}

/// The shim's program.
pub(super) fn shim() -> Result<Vec<sock_filter>, Errno> {
    program(SHIM, SHIM_REQUESTS)
}

fn program(own: &[i64], requests: &[u64]) -> Result<Vec<sock_filter>, Errno> {
    let number = |number: i64| u32::try_from(number).map_err(|_| Errno::EINVAL);
    let mut verdicts = BTreeMap::new();
    for call in ANY.iter().chain(WAIT).chain(own) {
        verdicts.insert(number(*call)?, Verdict::Allow);
    }
    let no_programs = Look::Bits { argument: 2, mask: libc::PROT_EXEC.cast_unsigned() };
    let requests: Vec<u32> =
        requests.iter().map(|request| u32::try_from(*request)).collect::<Result<_, _>>().map_err(|_| Errno::EINVAL)?;
    let itself = std::process::id();
    let looks = [
        (libc::SYS_mmap, no_programs.clone()),
        (libc::SYS_mprotect, no_programs),
        (libc::SYS_ioctl, Look::NoneOf { argument: 1, allowed: requests }),
        // For a panic that aborts.
        (libc::SYS_tgkill, Look::NoneOf { argument: 0, allowed: vec![itself] }),
        (libc::SYS_prctl, Look::NoneOf { argument: 0, allowed: vec![libc::PR_SET_NAME.cast_unsigned()] }),
    ];
    for (call, look) in looks {
        verdicts.insert(number(call)?, Verdict::Look(look));
    }
    bpf::program(&verdicts, &Verdict::Refuse(Errno::ENOSYS))
}
