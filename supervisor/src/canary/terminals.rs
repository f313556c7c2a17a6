//! Attempts on terminals: typing as if the user did, and changing what a line means.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::pty::openpty;
use nix::unistd::setsid;

use super::Scene;
use super::attempt::{Needs, Row, Seen};
use crate::sys::{self, Arg, call};

/// Requests of `ioctl(2)`; libc has them under names that differ by platform.
const TIOCSTI: i64 = 0x5412;
const TIOCLINUX: i64 = 0x541c;
const TIOCCONS: i64 = 0x541d;
const TIOCSETD: i64 = 0x5423;
const TIOCSCTTY: i64 = 0x540e;
/// Bits above those that the kernel looks at: filters that compare all 64 have been passed that way.
const HIGH_BITS: i64 = 1 << 32;

/// What their names begin with. Each wants a process that leads no session yet.
pub(super) const GROUP: &str = "terminals.";

pub(super) const ROWS: &[Row] = &[
    row("terminals.type", |_| inject(TIOCSTI)),
    row("terminals.type_with_high_bits", |_| inject(TIOCSTI | HIGH_BITS)),
    // Pasting what is selected on a console.
    row("terminals.paste", |_| on_own(|tty| ioctl(tty, TIOCLINUX, Arg::In(&[3]))).absent_if_missing()),
    row("terminals.console", |_| on_own(|tty| ioctl(tty, TIOCCONS, Arg::Number(0)))),
    row("terminals.discipline", |_| on_own(discipline)),
];

const fn row(name: &'static str, make: fn(&Scene) -> Seen) -> Row {
    Row { name, needs: Needs::Nothing, make }
}

fn ioctl(tty: &OwnedFd, request: i64, argument: Arg<'_>) -> Result<i64, Errno> {
    call(libc::SYS_ioctl, [Arg::Number(tty.as_raw_fd().into()), Arg::Number(request), argument])
}

/// A terminal of one's own, as its session's leader: what a program inside a jail may always have.
fn own_terminal() -> Result<(OwnedFd, OwnedFd), Errno> {
    let pty = openpty(None, None)?;
    // The end of the terminal is no reason to say nothing.
    sys::ignore_hang_up();
    let _leader = setsid();
    ioctl(&pty.slave, TIOCSCTTY, Arg::Number(0))?;
    Ok((pty.master, pty.slave))
}

fn on_own(attempt: impl Fn(&OwnedFd) -> Result<i64, Errno>) -> Seen {
    match own_terminal() {
        Ok((_master, slave)) => Seen::of(attempt(&slave)),
        Err(errno) => Seen::Unclear(format!("no terminal: {errno}")),
    }
}

fn inject(request: i64) -> Seen {
    on_own(|tty| ioctl(tty, request, Arg::In(b"\n")))
}

/// Another line discipline, and back.
fn discipline(tty: &OwnedFd) -> Result<i64, Errno> {
    /// `N_NULL`: needs no module.
    const NULL: i32 = 27;
    let set = ioctl(tty, TIOCSETD, Arg::In(&NULL.to_ne_bytes()));
    let _back = ioctl(tty, TIOCSETD, Arg::In(&0_i32.to_ne_bytes()));
    set
}
