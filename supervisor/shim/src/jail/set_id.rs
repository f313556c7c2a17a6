//! The first seccomp filter: no agent makes a set-user-ID or set-group-ID file.
//!
//! Inside a jail such bits have no effect, but a workspace of the host is written as its owner: without this an agent could leave a program
//! there that runs as that owner for whoever starts it on the host. What cannot be looked into is refused as if the kernel did not know it:
//! other architectures' system calls, `openat2` (its mode lies behind a pointer), io_uring (which opens files by itself).

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO,
    sock_filter,
};
use nix::errno::Errno;

use crate::sys;

/// Set-user-ID and set-group-ID.
const SET_ID_BITS: u32 = 0o6000;
/// Flags with which opening a file takes a mode: `O_CREAT`, and the bit of `O_TMPFILE` that is not `O_DIRECTORY`.
const CREATING: u32 = 0o100 | 0o20_000_000;
/// Numbers from here on belong to the x32 variant of x86-64.
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`: the number, the architecture, the low half of an argument (both architectures are little endian).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// What is looked at in a system call.
enum Rule {
    /// A mode.
    Mode { argument: u32 },
    /// A mode, if the flags create a file.
    OpenMode { flags: u32, mode: u32 },
    /// Not to be had.
    Absent,
}

#[cfg(target_arch = "x86_64")]
fn rules() -> Vec<(i64, Rule)> {
    let mut rules = common_rules();
    rules.extend([
        (libc::SYS_chmod, Rule::Mode { argument: 1 }),
        (libc::SYS_mknod, Rule::Mode { argument: 1 }),
        (libc::SYS_creat, Rule::Mode { argument: 1 }),
        (libc::SYS_open, Rule::OpenMode { flags: 1, mode: 2 }),
    ]);
    rules
}

#[cfg(target_arch = "aarch64")]
fn rules() -> Vec<(i64, Rule)> {
    common_rules()
}

fn common_rules() -> Vec<(i64, Rule)> {
    /// `fchmodat2`, not in every libc's headers.
    const FCHMODAT2: i64 = 452;
    vec![
        (libc::SYS_fchmod, Rule::Mode { argument: 1 }),
        (libc::SYS_fchmodat, Rule::Mode { argument: 2 }),
        (FCHMODAT2, Rule::Mode { argument: 2 }),
        (libc::SYS_mknodat, Rule::Mode { argument: 2 }),
        (libc::SYS_openat, Rule::OpenMode { flags: 2, mode: 3 }),
        (libc::SYS_openat2, Rule::Absent),
        (libc::SYS_io_uring_setup, Rule::Absent),
    ]
}

/// From now on neither this process nor any it starts makes such a file. `no_new_privs` must be set.
pub(super) fn forbid() -> Result<(), Errno> {
    sys::install_filter(&program()?)
}

fn load(offset: u32) -> sock_filter {
    stmt(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn allow() -> sock_filter {
    stmt(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
}

fn refuse(errno: Errno) -> sock_filter {
    stmt(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (errno as i32).unsigned_abs())
}

fn stmt(code: u32, k: u32) -> sock_filter {
    jump_or_stmt(code, k, 0, 0)
}

fn jump(kind: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    jump_or_stmt(BPF_JMP | kind | BPF_K, k, jt, jf)
}

/// Instruction codes are below 256; the kernel refuses a program with an unknown one.
fn jump_or_stmt(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}

fn program() -> Result<Vec<sock_filter>, Errno> {
    let mut program = vec![load(ARCH), jump(BPF_JEQ, AUDIT_ARCH, 1, 0), refuse(Errno::ENOSYS), load(NUMBER)];
    if cfg!(target_arch = "x86_64") {
        program.extend([jump(BPF_JSET, X32, 0, 1), refuse(Errno::ENOSYS)]);
    }
    for (number, rule) in rules() {
        let body = match rule {
            Rule::Absent => vec![refuse(Errno::ENOSYS)],
            Rule::Mode { argument: mode } => set_id_check(mode).to_vec(),
            Rule::OpenMode { flags, mode } => {
                let mut body = vec![load(argument(flags)), jump(BPF_JSET, CREATING, 1, 0), allow()];
                body.extend(set_id_check(mode));
                body
            }
        };
        let number = u32::try_from(number).map_err(|_| Errno::EINVAL)?;
        let length = u8::try_from(body.len()).map_err(|_| Errno::EINVAL)?;
        // A body always returns, so the number is still loaded when the next rule is reached.
        program.push(jump(BPF_JEQ, number, 0, length));
        program.extend(body);
    }
    program.push(allow());
    Ok(program)
}

fn set_id_check(mode: u32) -> [sock_filter; 4] {
    [load(argument(mode)), jump(BPF_JSET, SET_ID_BITS, 0, 1), refuse(Errno::EPERM), allow()]
}
