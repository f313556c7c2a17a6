//! Attempts on the kernel: calls that no agent needs and that lead deep into it.

use nix::errno::Errno;

use super::Scene;
use super::attempt::{Needs, Row, Seen};
use crate::sys::{Arg, call, compat_getpid};

/// Numbers from here on are those of the x32 variant.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

pub(super) const ROWS: &[Row] = &[
    row("kernel.io_uring", |_| Seen::of(call(libc::SYS_io_uring_setup, [Arg::Number(4), Arg::Out(&mut [0; 120])]))),
    row("kernel.bpf", bpf),
    row("kernel.perf", perf),
    row("kernel.userfaultfd", |_| {
        /// `UFFD_USER_MODE_ONLY`: what ordinary users may have.
        const USER_MODE_ONLY: i64 = 1;
        Seen::of(call(libc::SYS_userfaultfd, [Arg::Number(USER_MODE_ONLY)]))
    }),
    // The id of the session's keyring.
    row("kernel.keyring", |_| Seen::of(call(libc::SYS_keyctl, [Arg::Number(0), Arg::Number(-3), Arg::Number(0)]))),
    row("kernel.add_key", add_key),
    row("kernel.log", |_| {
        /// `SYSLOG_ACTION_READ_ALL`.
        const READ_ALL: i64 = 3;
        let mut buffer = [0; 64];
        Seen::of(call(libc::SYS_syslog, [Arg::Number(READ_ALL), Arg::Out(&mut buffer), Arg::Number(64)]))
    }),
    row("kernel.personality", |_| {
        /// `READ_IMPLIES_EXEC`: whatever is read can be executed.
        const READ_IMPLIES_EXEC: i64 = 0x40_0000;
        Seen::of(call(libc::SYS_personality, [Arg::Number(READ_IMPLIES_EXEC)]))
    }),
    row("kernel.calls_of_32_bits", calls_of_32_bits),
    #[cfg(target_arch = "x86_64")]
    row("kernel.calls_of_x32", |_| Seen::of(call(X32 | libc::SYS_getpid, [])).absent_if_missing()),
    row("kernel.host_name", |_| {
        let name = nix::unistd::gethostname().unwrap_or_default();
        Seen::of(nix::unistd::sethostname(name))
    }),
    // Swapping to nothing: whoever may ask is told that there is no such file.
    row("kernel.swap", |_| Seen::permitted(call(libc::SYS_swapon, [Arg::Text(c"/nowhere"), Arg::Number(0)]))),
    row("kernel.modules", |_| {
        Seen::permitted(call(libc::SYS_finit_module, [Arg::Number(-1), Arg::Text(c""), Arg::Number(0)]))
    }),
    row("kernel.watch_mounts", |_| {
        let args = [Arg::Number(-1), Arg::Number(0), Arg::Number(0)];
        Seen::permitted(call(libc::SYS_fanotify_init, args))
    }),
];

const fn row(name: &'static str, make: fn(&Scene) -> Seen) -> Row {
    Row { name, needs: Needs::Nothing, make }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// An array of one element of four bytes.
fn bpf(_: &Scene) -> Seen {
    let attributes = words(&[2, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    Seen::of(call(libc::SYS_bpf, [Arg::Number(0), Arg::In(&attributes), Arg::Number(72)]))
}

/// A counter of the time that this process takes.
fn perf(_: &Scene) -> Seen {
    let mut attributes = words(&[1, 128, 1, 0]);
    attributes.resize(128, 0);
    let number = Arg::Number;
    Seen::of(call(libc::SYS_perf_event_open, [Arg::In(&attributes), number(0), number(-1), number(-1), number(0)]))
}

/// Into the keyring of this process, which goes with it.
fn add_key(_: &Scene) -> Seen {
    let ring = Arg::Number(-2);
    let args = [Arg::Text(c"user"), Arg::Text(c"canary"), Arg::In(b"x"), Arg::Number(1), ring];
    Seen::of(call(libc::SYS_add_key, args))
}

fn calls_of_32_bits(_: &Scene) -> Seen {
    match compat_getpid() {
        error if error < 0 => {
            Seen::refused(Errno::from_raw(i32::try_from(-error).unwrap_or(libc::EIO))).absent_if_missing()
        }
        _ => Seen::open(),
    }
}
