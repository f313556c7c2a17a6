//! Every number against what is wanted, by an interpreter of our own: the lists here are written anew, from the kernel's table of x86-64.
#![cfg(target_arch = "x86_64")]

use agentapi_shared::jail::FilterStep;
use libc::sock_filter;

use super::{agent, allow_list};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

/// Runs a program as the kernel does; also how many instructions that took.
fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let mut data = Vec::from(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    for argument in arguments {
        data.extend(argument.to_le_bytes());
    }
    let (mut at, mut accumulator, mut steps) = (0usize, 0u32, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        steps += 1;
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            // ld w abs
            0x20 => {
                let from = k as usize;
                accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            // jeq, jge, jset, ja, and, ret
            0x15 => jump(accumulator == k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            0x05 => at += k as usize,
            0x54 => accumulator &= k,
            0x06 => return (k, steps),
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn verdict(program: &[sock_filter], number: u32, arguments: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    run(program, X86_64, number, all).0
}

/// Refused with EPERM whatever their arguments are.
const REFUSED: [u32; 65] = [
    134, 136, 139, 153, 154, 155, 159, 161, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 175, 176, 179, 180,
    103, 212, 216, 227, 237, 238, 239, 246, 248, 249, 250, 256, 278, 279, 298, 300, 301, 303, 304, 305, 308, 312, 313,
    320, 321, 323, 428, 429, 430, 431, 432, 433, 438, 440, 442, 443, 447, 448, 450, 459, 460, 461,
];
/// As if the kernel did not have them.
const ABSENT: [(u32, u32); 11] = [
    (156, 156),
    (174, 174),
    (177, 178),
    (181, 185),
    (214, 215),
    (236, 236),
    (335, 423),
    (425, 427),
    (435, 435),
    (437, 437),
    (457, 458),
];
/// Judged by their arguments; with all of them 0 they are as said.
const JUDGED: [(u32, u32); 22] = [
    (2, ALLOW),   // open
    (16, ALLOW),  // ioctl
    (41, EPERM),  // socket, of no family
    (53, EPERM),  // socketpair, of no family
    (56, ALLOW),  // clone
    (85, ALLOW),  // creat
    (90, ALLOW),  // chmod
    (91, ALLOW),  // fchmod
    (133, ALLOW), // mknod
    (135, ALLOW), // personality
    (141, ALLOW), // setpriority
    (142, ALLOW), // sched_setparam
    (144, ALLOW), // sched_setscheduler
    (203, ALLOW), // sched_setaffinity
    (251, ALLOW), // ioprio_set
    (257, ALLOW), // openat
    (259, ALLOW), // mknodat
    (268, ALLOW), // fchmodat
    (272, ALLOW), // unshare
    (302, ALLOW), // prlimit64
    (314, ALLOW), // sched_setattr
    (452, ALLOW), // fchmodat2
];
const DEBUGGING: [u32; 3] = [101, 310, 311];

fn wanted(number: u32, step: FilterStep) -> u32 {
    if let Some((_, verdict)) = JUDGED.iter().find(|(judged, _)| *judged == number) {
        return *verdict;
    }
    let absent = number > 462 || ABSENT.iter().any(|(first, last)| (*first..=*last).contains(&number));
    let refused = REFUSED.contains(&number) || step == FilterStep::Strict && DEBUGGING.contains(&number);
    if absent {
        ENOSYS
    } else if refused {
        EPERM
    } else {
        ALLOW
    }
}

#[test]
fn every_number_has_the_verdict_that_is_wanted() {
    for step in [FilterStep::Strict, FilterStep::Debuggers] {
        let program = agent::program(step).unwrap();
        let wrong: Vec<String> = (0..=600)
            .chain([0x3fff_ffff, 0x4000_0000, 0x4000_0001, 0x4000_0208, 0x7fff_ffff, 0x8000_0000, u32::MAX])
            .map(|number| (number, verdict(&program, number, &[]), wanted(number, step)))
            .filter(|(_, is, wanted)| is != wanted)
            .map(|(number, is, wanted)| format!("{number}: {is:#x} instead of {wanted:#x}"))
            .collect();
        assert!(wrong.is_empty(), "{step:?}: {wrong:?}");
    }
}

#[test]
fn another_architecture_ends_the_process() {
    for step in [FilterStep::Strict, FilterStep::Debuggers] {
        let program = agent::program(step).unwrap();
        // int 0x80, and the two other ones of that kind.
        for (arch, number) in [(I386, 1), (I386, 359), (0xc000_00b7, 0)] {
            assert_eq!(run(&program, arch, number, [0; 6]).0, KILL);
        }
    }
}

#[test]
fn arguments_are_judged() {
    let program = agent::program(FilterStep::Debuggers).unwrap();
    let check = |what: &str, number: u32, arguments: &[u64], wanted: u32| {
        assert_eq!(verdict(&program, number, arguments), wanted, "{what} {arguments:x?}");
    };
    for request in [0x5412, 0x541c, 0x541d, 0x5423] {
        check("ioctl", 16, &[0, request], EPERM);
        check("ioctl with high bits", 16, &[0, request | 1 << 32], EPERM);
    }
    check("ioctl TCGETS", 16, &[0, 0x5401], ALLOW);
    check("ioctl TIOCSCTTY", 16, &[0, 0x540e], ALLOW);
    for flag in [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        check("clone", 56, &[flag | 17], EPERM);
        check("unshare", 272, &[flag], EPERM);
    }
    check("unshare NEWTIME", 272, &[0x80], EPERM);
    check("unshare FS", 272, &[0x200], ALLOW);
    check("clone of a thread", 56, &[0x003d_0f00], ALLOW);
    check("fork", 56, &[0x0120_0011], ALLOW);
    for (arguments, wanted) in [
        ([1, 1, 0], ALLOW),
        ([1, 3 | 0o2_000_000, 0], ALLOW),
        ([2, 1 | 0o2_004_000, 0], ALLOW),
        ([2, 2, 17], ALLOW),
        ([10, 1, 6], ALLOW),
        ([2, 3, 0], EPERM),
        ([2, 3 | 0o2_000_000, 1], EPERM),
        ([10, 3, 58], EPERM),
        ([2, 1, 262], EPERM),
        ([2, 1, 132], EPERM),
        ([2, 2, 1], EPERM),
        ([2, 10, 0], EPERM),
        ([16, 3, 0], ALLOW),
        ([16, 2, 0], ALLOW),
        ([16, 3, 9], EPERM),
        ([17, 3, 0], EPERM),
        ([38, 5, 0], EPERM),
        ([40, 1, 0], EPERM),
        ([44, 2, 0], EPERM),
        ([0x1_0000_0000 + 40, 1, 0], EPERM),
    ] {
        check("socket", 41, &arguments, wanted);
    }
    check("socketpair", 53, &[1, 1, 0], ALLOW);
    check("socketpair of TIPC", 53, &[30, 1, 0], EPERM);
    for (personality, wanted) in
        [(0xffff_ffff, ALLOW), (0x4_0000, ALLOW), (0x40_0000, EPERM), (0x8, EPERM), (0x44_0000, EPERM)]
    {
        check("personality", 135, &[personality], wanted);
    }
    for (what, number, arguments) in [
        ("chmod", 90, [0, 0o4755, 0, 0]),
        ("fchmod", 91, [0, 0o2755, 0, 0]),
        ("fchmodat", 268, [0, 0, 0o6777, 0]),
        ("fchmodat2", 452, [0, 0, 0o4700, 0]),
        ("mknod", 133, [0, 0o104_755, 0, 0]),
        ("mknodat", 259, [0, 0, 0o102_755, 0]),
        ("creat", 85, [0, 0o4755, 0, 0]),
        ("open", 2, [0, 0o101, 0o4755, 0]),
        ("openat", 257, [0, 0, 0o101, 0o2755]),
        ("openat of a temporary file", 257, [0, 0, 0o20_200_002, 0o4755]),
    ] {
        check(what, number, &arguments, EPERM);
        check(what, number, &arguments.map(|argument| argument & !0o6000), ALLOW);
    }
    // A mode that is not used.
    check("openat of a file that is there", 257, &[0, 0, 0, 0o4755], ALLOW);
}

#[test]
fn nothing_is_taken_from_init() {
    for step in [FilterStep::Strict, FilterStep::Debuggers] {
        let program = agent::program(step).unwrap();
        let check = |number: u32, arguments: &[u64], wanted: u32| {
            assert_eq!(verdict(&program, number, arguments), wanted, "{number} {arguments:x?}");
        };
        // prlimit64, on oneself only.
        check(302, &[0, 7], ALLOW);
        for pid in [1, 2, 1 << 32 | 1, 0xffff_ffff] {
            check(302, &[pid, 7], EPERM);
        }
        // sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr.
        for number in [142, 144, 203, 314] {
            check(number, &[1], EPERM);
            check(number, &[1 << 32 | 1], EPERM);
            check(number, &[2], ALLOW);
        }
        // setpriority, ioprio_set: of a process, of a group, of a user.
        for (number, [process, group, user]) in [(141, [0, 1, 2]), (251, [1, 2, 3])] {
            for kind in [process, group] {
                check(number, &[kind, 1, 19], EPERM);
                check(number, &[kind, 1 << 32 | 1, 19], EPERM);
                check(number, &[kind, 2, 19], ALLOW);
            }
            check(number, &[user, 0, 19], EPERM);
            check(number, &[1 << 32 | user, 1000, 19], EPERM);
        }
    }
}

#[test]
fn the_limit_of_core_dumps_stays_and_nobody_fails_for_it() {
    const TAKEN_FOR_DONE: u32 = 0x0005_0000;
    const CORE: u64 = 4;
    for step in [FilterStep::Strict, FilterStep::Debuggers] {
        let program = agent::program(step).unwrap();
        for (number, arguments, wanted) in [
            (302, [0, CORE, 0x7fff_0000, 0], TAKEN_FOR_DONE),
            (302, [0, CORE, 1 << 32, 0], TAKEN_FOR_DONE),
            (302, [0, CORE, 0x7fff_0000, 0x7fff_0010], EPERM),
            (302, [0, CORE, 0x7fff_0000, 1 << 32], EPERM),
            (302, [1, CORE, 0x7fff_0000, 0], EPERM),
            (302, [0, CORE, 0, 0x7fff_0010], ALLOW),
            (302, [0, 7, 0x7fff_0000, 0], ALLOW),
            (160, [CORE, 0x7fff_0000, 0, 0], TAKEN_FOR_DONE),
            (160, [1 << 32 | CORE, 0x7fff_0000, 0, 0], TAKEN_FOR_DONE),
            (160, [7, 0x7fff_0000, 0, 0], ALLOW),
        ] {
            assert_eq!(verdict(&program, number, &arguments), wanted, "{number} {arguments:x?}");
        }
    }
}

#[test]
fn a_call_costs_little() {
    for step in [FilterStep::Strict, FilterStep::Debuggers] {
        let program = agent::program(step).unwrap();
        let longest = (0..=600).map(|number| run(&program, X86_64, number, [0; 6]).1).max().unwrap();
        assert!(program.len() < 400 && longest < 25, "{} instructions, {longest} for one call", program.len());
    }
}

#[test]
fn the_processes_beside_the_agent_can_start_and_reach_nothing() {
    let (init, shim) = (allow_list::init().unwrap(), allow_list::shim().unwrap());
    for program in [&init, &shim] {
        // Programs, processes, namespaces, tracing, sockets, executable memory, terminals' input, signals to others.
        for (number, arguments) in [
            (59, [0; 3]),
            (322, [0; 3]),
            (56, [0; 3]),
            (57, [0; 3]),
            (58, [0; 3]),
            (435, [0; 3]),
            (101, [0; 3]),
            (41, [1, 1, 0]),
            (42, [0; 3]),
            (49, [0; 3]),
            (2, [0; 3]),
            (272, [0; 3]),
            (165, [0; 3]),
            (9, [0, 4096, 5]),
            (10, [0, 4096, 4]),
            (16, [0, 0x5412, 0]),
            (234, [1, 1, 9]),
            (310, [0; 3]),
            (105, [0; 3]),
            (424, [0; 3]),
            (600, [0; 3]),
        ] {
            assert_ne!(verdict(program, number, &arguments), ALLOW, "{number} {arguments:x?}");
        }
        assert_eq!(run(program, I386, 1, [0; 6]).0, KILL);
        for (number, arguments) in [(0, [0; 3]), (1, [0; 3]), (9, [0, 4096, 3]), (61, [0; 3]), (231, [0; 3])] {
            assert_eq!(verdict(program, number, &arguments), ALLOW, "{number}");
        }
    }
    // Of the two only the shim opens files, and only init signals.
    assert_eq!((verdict(&init, 257, &[]), verdict(&shim, 257, &[])), (ENOSYS, ALLOW));
    assert_eq!((verdict(&init, 62, &[]), verdict(&shim, 62, &[])), (ALLOW, ENOSYS));
}
