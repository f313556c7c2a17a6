//! From verdicts by number to a program: a binary search over ranges of numbers, then short pieces that look at arguments.

use std::collections::BTreeMap;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, sock_filter,
};
use nix::errno::Errno;

#[cfg(target_arch = "x86_64")]
pub(super) const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(super) const AUDIT_ARCH: u32 = 0xc000_00b7;

/// Offsets in `struct seccomp_data`: the number, the architecture, the low half of an argument (both architectures are little endian). Only whether a
/// pointer is there needs a high half: the kernel itself takes the other arguments that are looked at as 32 bits, or has no flag up there.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}
/// The high half, which only pointers have.
const fn high_half(index: u32) -> u32 {
    argument(index) + 4
}

/// What becomes of a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Refuse(Errno),
    /// Its arguments decide.
    Look(Look),
}

/// What is looked at. What it refuses, it refuses with `EPERM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// Refused if any of these bits is set in an argument.
    Bits { argument: u32, mask: u32 },
    /// The same for the mode of a file, if the flags create one.
    OpenMode { flags: u32, mode: u32 },
    /// Refused if an argument is one of these.
    AnyOf { argument: u32, refused: Vec<u32> },
    /// Refused if it is none of these.
    NoneOf { argument: u32, allowed: Vec<u32> },
    /// Refused for this kind of target (argument 0), which means all of a user's, and for pid 1 (argument 1).
    Target { everyone: u32 },
    /// Families, types and protocols of sockets.
    Socket,
    /// For `prlimit64`: refused for others than the caller. A new limit of core dumps is taken for set (see [`Self::CoreLimit`]), and refused if the
    /// one before is asked for too.
    OwnLimits,
    /// For `setrlimit`: a limit of core dumps is taken for set. It is 1, the only one with which the kernel starts no handler of dumps as root on the
    /// host; an agent could only lower it, to 0, with which it would. Programs that do so want no dumps, and there are none.
    CoreLimit,
}

/// Pid of init, as everything in its pid namespace sees it.
pub(super) const INIT: u32 = 1;
/// Set-user-ID and set-group-ID.
pub(super) const SET_ID_BITS: u32 = 0o6000;
/// Flags with which opening a file takes a mode: `O_CREAT`, and the bit of `O_TMPFILE` that is not `O_DIRECTORY`.
const CREATING: u32 = 0o100 | 0o20_000_000;
/// The part of a socket's type that is not flags.
const SOCKET_TYPE: u32 = 0xf;

/// A program that gives each number its verdict, and `others` to those that have none. Other architectures' calls end the process: what their
/// numbers mean is not known here.
pub(super) fn program(verdicts: &BTreeMap<u32, Verdict>, others: &Verdict) -> Result<Vec<sock_filter>, Errno> {
    let mut looks: Vec<Look> = Vec::new();
    let search = search(&ranges(verdicts, others), &mut looks)?;
    let mut program = vec![
        load(ARCH),
        jump(BPF_JEQ, AUDIT_ARCH, 1, 0),
        statement(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    let bodies: Vec<Vec<sock_filter>> = looks.iter().map(body).collect::<Result<_, _>>()?;
    let mut at = program.len() + search.len();
    let starts: Vec<usize> = bodies
        .iter()
        .map(|body| {
            at += body.len();
            at - body.len()
        })
        .collect();
    for step in search {
        program.push(match step {
            Step::Instruction(instruction) => instruction,
            Step::GoTo(look) => {
                let distance = starts.get(look).and_then(|start| start.checked_sub(program.len() + 1));
                let distance = distance.and_then(|distance| u32::try_from(distance).ok()).ok_or(Errno::E2BIG)?;
                statement(BPF_JMP | BPF_JA, distance)
            }
        });
    }
    program.extend(bodies.into_iter().flatten());
    Ok(program)
}

/// First number of each range of equal verdicts, in order, from 0 on.
fn ranges(verdicts: &BTreeMap<u32, Verdict>, others: &Verdict) -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |first: u32, verdict: &Verdict| {
        if ranges.last().is_none_or(|(_, last)| last != verdict) {
            ranges.push((first, verdict.clone()));
        }
    };
    let mut next = 0;
    for (number, verdict) in verdicts {
        if *number > next {
            push(next, others);
        }
        push(*number, verdict);
        next = number + 1;
    }
    push(next, others);
    ranges
}

enum Step {
    Instruction(sock_filter),
    /// To the piece that looks at this.
    GoTo(usize),
}

/// The tree: a comparison, what is below it, what is not.
fn search(ranges: &[(u32, Verdict)], looks: &mut Vec<Look>) -> Result<Vec<Step>, Errno> {
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let Some((first_above, verdict)) = above.first() else { return Ok(Vec::new()) };
    if below.is_empty() {
        return Ok(vec![match verdict {
            Verdict::Allow => Step::Instruction(allow()),
            Verdict::Refuse(errno) => Step::Instruction(refuse(*errno)),
            Verdict::Look(look) => {
                let known = looks.iter().position(|known| known == look);
                Step::GoTo(known.unwrap_or_else(|| {
                    looks.push(look.clone());
                    looks.len() - 1
                }))
            }
        }]);
    }
    let below = search(below, looks)?;
    let over = u8::try_from(below.len()).map_err(|_| Errno::E2BIG)?;
    let mut steps = vec![Step::Instruction(jump(BPF_JGE, *first_above, over, 0))];
    steps.extend(below);
    steps.extend(search(above, looks)?);
    Ok(steps)
}

/// The piece of a look. It always returns.
fn body(look: &Look) -> Result<Vec<sock_filter>, Errno> {
    Ok(match look {
        Look::Bits { argument: index, mask } => {
            vec![load(argument(*index)), jump(BPF_JSET, *mask, 0, 1), refuse(Errno::EPERM), allow()]
        }
        Look::OpenMode { flags, mode } => {
            let mut body = vec![load(argument(*flags)), jump(BPF_JSET, CREATING, 1, 0), allow()];
            body.extend([load(argument(*mode)), jump(BPF_JSET, SET_ID_BITS, 0, 1), refuse(Errno::EPERM), allow()]);
            body
        }
        Look::AnyOf { argument: index, refused } => one_of(*index, refused, allow(), refuse(Errno::EPERM))?,
        Look::NoneOf { argument: index, allowed } => one_of(*index, allowed, refuse(Errno::EPERM), allow())?,
        Look::Target { everyone } => vec![
            load(argument(0)),
            jump(BPF_JEQ, *everyone, 2, 0),
            load(argument(1)),
            jump(BPF_JEQ, INIT, 0, 1),
            refuse(Errno::EPERM),
            allow(),
        ],
        Look::Socket => socket(),
        Look::OwnLimits => own_limits(),
        Look::CoreLimit => {
            vec![load(argument(0)), jump(BPF_JEQ, libc::RLIMIT_CORE, 0, 1), pretend(), allow()]
        }
    })
}

/// Arguments: process, resource, new limits, where the old ones go.
fn own_limits() -> Vec<sock_filter> {
    vec![
        load(argument(0)),
        jump(BPF_JEQ, 0, 1, 0),
        refuse(Errno::EPERM),
        load(argument(1)),
        jump(BPF_JEQ, libc::RLIMIT_CORE, 1, 0),
        allow(),
        load(argument(2)),
        jump(BPF_JEQ, 0, 0, 3),
        load(high_half(2)),
        jump(BPF_JEQ, 0, 0, 1),
        allow(),
        load(argument(3)),
        jump(BPF_JEQ, 0, 0, 3),
        load(high_half(3)),
        jump(BPF_JEQ, 0, 0, 1),
        pretend(),
        refuse(Errno::EPERM),
    ]
}

/// Compares an argument with each value, one after the other: the lists have a handful.
fn one_of(index: u32, values: &[u32], if_none: sock_filter, if_any: sock_filter) -> Result<Vec<sock_filter>, Errno> {
    let mut body = vec![load(argument(index))];
    for (position, value) in values.iter().enumerate() {
        // Over the comparisons that follow and the answer for none.
        let over = u8::try_from(values.len() - position).map_err(|_| Errno::E2BIG)?;
        body.push(jump(BPF_JEQ, *value, over, 0));
    }
    body.extend([if_none, if_any]);
    Ok(body)
}

/// Unix sockets of every kind; streams and datagrams of TCP and UDP; the netlink protocol that lists interfaces and addresses, which runtimes ask
/// for. All else, raw sockets, packets, AF_VSOCK (which no network namespace holds), AF_ALG and whatever families come, is refused.
fn socket() -> Vec<sock_filter> {
    let equals = |value: i32, then, otherwise| jump(BPF_JEQ, value.cast_unsigned(), then, otherwise);
    vec![
        load(argument(0)),
        equals(libc::AF_UNIX, 12, 0),
        equals(libc::AF_INET, 3, 0),
        equals(libc::AF_INET6, 2, 0),
        equals(libc::AF_NETLINK, 11, 0),
        refuse(Errno::EPERM),
        // IP: by type, then by protocol; 0 is the usual one.
        load(argument(1)),
        statement(BPF_ALU | BPF_AND | BPF_K, SOCKET_TYPE),
        equals(libc::SOCK_STREAM, 1, 0),
        equals(libc::SOCK_DGRAM, 0, 5),
        load(argument(2)),
        equals(0, 2, 0),
        equals(libc::IPPROTO_TCP, 1, 0),
        equals(libc::IPPROTO_UDP, 0, 1),
        allow(),
        refuse(Errno::EPERM),
        // Netlink.
        load(argument(2)),
        equals(libc::NETLINK_ROUTE, 0, 1),
        allow(),
        refuse(Errno::EPERM),
    ]
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn allow() -> sock_filter {
    statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
}

/// The call does nothing and succeeds.
fn pretend() -> sock_filter {
    statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO)
}

fn refuse(errno: Errno) -> sock_filter {
    statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (errno as i32).unsigned_abs())
}

fn statement(code: u32, k: u32) -> sock_filter {
    instruction(code, k, 0, 0)
}

fn jump(kind: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    instruction(BPF_JMP | kind | BPF_K, k, jt, jf)
}

/// Instruction codes are below 256; the kernel refuses a program with an unknown one.
fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}
