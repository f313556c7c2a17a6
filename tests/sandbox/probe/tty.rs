//! Attempts on terminals: typing for others, changing the line, opening those of others.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};

use agentapi_tests::attempt::Params;
use nix::errno::Errno;
use nix::pty::openpty;
use nix::unistd::setsid;

use crate::outcome::{Row, Seen, errno};
use crate::sys::{at, at_mut, call};

/// Requests of `ioctl(2)` that libc names differently by platform.
const TIOCSTI: usize = 0x5412;
const TIOCLINUX: usize = 0x541c;
const TIOCCONS: usize = 0x541d;
const TIOCSETD: usize = 0x5423;
const TIOCSCTTY: usize = 0x540e;
const FIONREAD: usize = 0x541b;

pub(crate) const ROWS: &[Row] = &[
    Row { number: 47, name: "tty.inject", make: |_| inject(TIOCSTI) },
    Row { number: 47, name: "tty.inject_high_bits", make: |_| inject(TIOCSTI | 1 << 32) },
    Row { number: 47, name: "tty.selection", make: selection },
    Row { number: 47, name: "tty.console", make: |_| on_own(|tty| call(libc::SYS_ioctl, &[tty, TIOCCONS, 0])) },
    Row { number: 47, name: "tty.discipline", make: |_| on_own(discipline) },
    Row { number: 48, name: "tty.of_others", make: of_others },
    Row { number: 48, name: "tty.of_host", make: of_host },
];

/// A terminal of one's own, as its session's leader: what a program inside a jail may always have.
fn own_terminal() -> Result<(OwnedFd, OwnedFd), Errno> {
    let pty = openpty(None, None)?;
    // The end of the terminal is no reason to say nothing.
    crate::sys::ignore(libc::SIGHUP);
    let _leader = setsid();
    call(libc::SYS_ioctl, &[pty.slave.as_raw_fd() as usize, TIOCSCTTY, 0])?;
    Ok((pty.master, pty.slave))
}

fn on_own(attempt: impl Fn(usize) -> Result<i64, Errno>) -> Seen {
    match own_terminal() {
        Ok((_master, slave)) => Seen::of(attempt(slave.as_raw_fd() as usize)),
        Err(errno) => Seen::held("FAILED").with(errno.desc()),
    }
}

/// Types a line for whoever reads this terminal next, and looks whether it is there to be read.
fn inject(request: usize) -> Seen {
    let (_master, slave) = match own_terminal() {
        Ok(pair) => pair,
        Err(errno) => return Seen::held("FAILED").with(errno.desc()),
    };
    let tty = slave.as_raw_fd() as usize;
    for byte in b"id\n" {
        if let Err(errno) = call(libc::SYS_ioctl, &[tty, request, at(byte)]) {
            return Seen::refused(errno);
        }
    }
    let mut waiting = 0_i32;
    let asked = call(libc::SYS_ioctl, &[tty, FIONREAD, at_mut(&mut waiting)]);
    Seen::open_if(asked.is_ok() && waiting > 0, "ignored", format!("{waiting} bytes to read"))
}

/// Selects a character of what a terminal shows, which the next call would paste. Only consoles know how: that of the host, if it can be had.
fn selection(_: &Params) -> Seen {
    #[repr(C, packed)]
    struct Select {
        subcode: u8,
        place: [u16; 5],
    }
    /// `TIOCL_SETSEL`: from the first character to itself.
    const FIRST: Select = Select { subcode: 2, place: [1, 1, 1, 1, 0] };
    let select = |tty: usize| call(libc::SYS_ioctl, &[tty, TIOCLINUX, at(&FIRST)]);
    let on_console = |path| match OpenOptions::new().write(true).open(path) {
        Ok(console) => Seen::of(select(console.as_raw_fd() as usize)),
        Err(error) => Seen::refused(errno(&error)),
    };
    Seen::worst([on_console("/dev/tty1"), on_console("/dev/tty0"), on_own(select)]).absent_if_missing()
}

/// Another line discipline, and back.
fn discipline(tty: usize) -> Result<i64, Errno> {
    /// `N_NULL`: needs no module.
    const NULL: i32 = 27;
    let set = call(libc::SYS_ioctl, &[tty, TIOCSETD, at(&NULL)]);
    let _back = call(libc::SYS_ioctl, &[tty, TIOCSETD, at(&0_i32)]);
    set
}

/// Writes to terminals of the host by their names; the harness looks whether anything came out of them.
fn of_others(params: &Params) -> Seen {
    let own = fs::read_link("/proc/self/fd/0").unwrap_or_default();
    let all = params.host_terminals.iter().filter(|path| own.to_str() != Some(path.as_str()));
    Seen::worst(all.map(|path| {
        let written =
            OpenOptions::new().write(true).open(path).and_then(|mut file| std::io::Write::write_all(&mut file, b"x"));
        match written {
            // Of the same name, but a program's own inside: whose it was is seen outside.
            Ok(()) => Seen::held("other"),
            Err(error) => Seen::refused(errno(&error)),
        }
    }))
}

fn of_host(_: &Params) -> Seen {
    let paths = [
        "/dev/console",
        "/dev/tty0",
        "/dev/tty1",
        "/dev/ttyS0",
        "/dev/vcs",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/fuse",
        "/dev/kvm",
        "/dev/net/tun",
        "/dev/loop-control",
    ];
    Seen::worst(paths.map(|path| Seen::of_io(File::open(path)).with(path)))
}
