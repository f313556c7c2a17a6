//! Attempts on the kernel: calls that no agent needs, and what it tells about itself.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode};

use agentapi_tests::attempt::Params;
use nix::errno::Errno;
use nix::sys::wait::WaitStatus;

use crate::outcome::{Row, Seen, errno};
use crate::run::{in_child, say};
use crate::sys::{self, at, at_mut, call};

/// The numbers that are tried, and then the same again as the x32 variant has them.
const NUMBERS: i64 = 600;
/// How long a call that waits is waited for, on a usual machine.
const WAIT_MICROSECONDS: i64 = 50_000;
/// Numbers from here on are those of x32.
const X32: i64 = 0x4000_0000;

pub(crate) const ROWS: &[Row] = &[
    Row { number: 53, name: "kernel.every_call", make: every_call },
    Row { number: 53, name: "kernel.x32", make: x32 },
    Row { number: 53, name: "kernel.int_80", make: int_80 },
    Row { number: 54, name: "kernel.io_uring", make: io_uring },
    Row { number: 55, name: "kernel.bpf", make: bpf },
    Row { number: 55, name: "kernel.userfaultfd", make: |_| Seen::of(call(libc::SYS_userfaultfd, &[1])) },
    Row { number: 55, name: "kernel.perf", make: perf },
    Row { number: 55, name: "kernel.keyctl", make: |_| Seen::of(call(libc::SYS_keyctl, &[0, -3_isize as usize, 0])) },
    Row { number: 56, name: "kernel.kallsyms", make: kallsyms },
    Row { number: 56, name: "kernel.kcore", make: |_| content("/proc/kcore") },
    Row { number: 56, name: "kernel.kmsg", make: kmsg },
    Row { number: 56, name: "kernel.keys", make: |_| content("/proc/keys") },
    Row { number: 56, name: "kernel.timer_list", make: |_| content("/proc/timer_list") },
    Row { number: 56, name: "kernel.interrupts", make: |_| content("/proc/interrupts") },
    Row { number: 56, name: "kernel.sysfs", make: |_| entries("/sys") },
    Row { number: 56, name: "kernel.acpi", make: |_| entries("/proc/acpi") },
    Row { number: 57, name: "kernel.personality", make: |_| Seen::of(call(libc::SYS_personality, &[0x40_0000])) },
    Row { number: 58, name: "kernel.own_ids", make: own_ids },
    Row { number: 58, name: "kernel.capabilities", make: capabilities },
    Row { number: 58, name: "kernel.no_new_privileges", make: |_| status_is("NoNewPrivs", "1") },
    Row { number: 58, name: "kernel.filtered", make: |_| status_is("Seccomp", "2") },
    Row { number: 58, name: "kernel.init_not_dumpable", make: init_not_dumpable },
    Row { number: 59, name: "kernel.nested_sandbox", make: nested_sandbox },
];

/// What a call said: the class that a filter decides, and no more.
fn class(number: i64, params: &Params) -> &'static str {
    let status = in_child(|| {
        // Ends those that wait, and no other before it got there.
        let wait = WAIT_MICROSECONDS * i64::from(params.slowness.max(1));
        let timer = [0_i64, 0, wait / 1_000_000, wait % 1_000_000];
        let _set = call(libc::SYS_setitimer, &[0, at(&timer), 0]);
        // No pointer, descriptor, pid or flag is valid with every bit set.
        match call(number, &[usize::MAX; 6]) {
            Err(Errno::EPERM) => 1,
            Err(Errno::ENOSYS) => 2,
            _ => 0,
        }
    });
    match status {
        Ok(WaitStatus::Exited(_, 1)) => "EPERM",
        Ok(WaitStatus::Exited(_, 2)) => "ENOSYS",
        Ok(WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGSYS, _)) => "SIGSYS",
        _ => "reached",
    }
}

/// Each number from 0 to 599; the numbers that reached the kernel go to the harness, which holds the list of what may.
fn every_call(params: &Params) -> Seen {
    // Their arguments do not stop these: they end or stop this process, its parent, or the machine's own work.
    let left_out = [libc::SYS_vhangup, libc::SYS_sync];
    let reached: Vec<String> = (0..NUMBERS)
        .filter(|number| !left_out.contains(number) && class(*number, params) == "reached")
        .map(|number| number.to_string())
        .collect();
    // That there is a filter at all shows in a call that every kernel has and that needs no privilege to be tried.
    Seen::open_if(class(libc::SYS_io_uring_setup, params) == "reached", "filtered", reached.join(" "))
}

/// Says which version of Landlock this kernel has; 0 for none.
pub(crate) fn landlock() -> ExitCode {
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const VERSION: usize = 1;
    say(&call(libc::SYS_landlock_create_ruleset, &[0, 0, VERSION]).unwrap_or(0).to_string());
    ExitCode::SUCCESS
}

/// Kernels without that variant answer as a filter does, and show nothing.
fn x32(_: &Params) -> Seen {
    match call(X32 | libc::SYS_getpid, &[]) {
        Err(Errno::ENOSYS) => Seen::nowhere("ENOSYS"),
        other => Seen::of(other),
    }
}

fn int_80(_: &Params) -> Seen {
    let result = sys::compat_getpid();
    match result {
        error if error < 0 => Seen::refused(Errno::from_raw(i32::try_from(-error).unwrap_or(0))).absent_if_missing(),
        pid => Seen::open(pid.to_string()),
    }
}

fn io_uring(_: &Params) -> Seen {
    let mut params = [0_u8; 120];
    match call(libc::SYS_io_uring_setup, &[4, at_mut(&mut params)]) {
        Ok(fd) => {
            drop(sys::own(fd));
            Seen::open("")
        }
        Err(errno) => Seen::refused(errno),
    }
}

fn bpf(_: &Params) -> Seen {
    // BPF_MAP_CREATE of an array.
    let attributes: [u32; 18] = [2, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Seen::of(call(libc::SYS_bpf, &[0, at(&attributes), size_of_val(&attributes)]))
}

fn perf(_: &Params) -> Seen {
    // A counter of task clock ticks of this process.
    let mut attributes = [0_u64; 16];
    attributes[0] = 1 | (128 << 32);
    attributes[1] = 1;
    Seen::of(call(libc::SYS_perf_event_open, &[at(&attributes), 0, usize::MAX, usize::MAX, 0]))
}

/// Addresses of the kernel, not zeros; the first ones are those of a processor's own data, and are zero everywhere.
fn kallsyms(_: &Params) -> Seen {
    match fs::read_to_string("/proc/kallsyms") {
        Ok(text) => Seen::open_if(text.lines().any(|line| !line.starts_with("0000000000000000")), "nothing", ""),
        Err(error) => Seen::refused(errno(&error)).absent_if_missing(),
    }
}

fn content(path: &str) -> Seen {
    let mut buffer = [0_u8; 64];
    match File::open(path).and_then(|mut file| file.read(&mut buffer)) {
        Ok(0) => Seen::held("empty"),
        Ok(length) => Seen::open(format!("{length} bytes")),
        Err(error) => Seen::refused(errno(&error)).absent_if_missing(),
    }
}

fn entries(path: &str) -> Seen {
    match fs::read_dir(path) {
        Ok(mut all) => match all.next() {
            Some(_) => Seen::open(""),
            None => Seen::nowhere("empty"),
        },
        Err(error) => Seen::refused(errno(&error)),
    }
}

/// By the file and by the call, without waiting for the next line.
fn kmsg(_: &Params) -> Seen {
    let mut buffer = [0_u8; 64];
    let open = std::os::unix::fs::OpenOptionsExt::custom_flags(File::options().read(true), libc::O_NONBLOCK)
        .open("/proc/kmsg");
    let by_file = match open.and_then(|mut file| file.read(&mut buffer)) {
        Ok(0) => Seen::held("empty"),
        Ok(_) => Seen::open("file"),
        Err(error) if errno(&error) == Errno::EAGAIN => Seen::open("file"),
        Err(error) => Seen::refused(errno(&error)),
    };
    // SYSLOG_ACTION_READ_ALL
    let by_call = Seen::of(call(libc::SYS_syslog, &[3, at_mut(&mut buffer), buffer.len()]));
    Seen::worst([by_call, by_file])
}

fn status_of(process: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn status_is(name: &str, wanted: &str) -> Seen {
    let found = status_of("self").into_iter().find(|(of, _)| of == name).map(|(_, value)| value).unwrap_or_default();
    Seen::open_if(found != wanted, "as_wanted", found)
}

/// Ids inside are those of the host only where there is no user namespace.
fn own_ids(_: &Params) -> Seen {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let words: Vec<&str> = map.split_whitespace().collect();
    Seen::open_if(words == ["0", "0", "4294967295"], "mapped", words.join(" "))
}

fn capabilities(_: &Params) -> Seen {
    let sets: Vec<(String, String)> =
        status_of("self").into_iter().filter(|(name, _)| name.starts_with("Cap")).collect();
    let some: Vec<String> = sets
        .iter()
        .filter(|(_, set)| set.bytes().any(|byte| byte != b'0'))
        .map(|(name, set)| format!("{name}={set}"))
        .collect();
    Seen::open_if(sets.len() != 5 || !some.is_empty(), "none", some.join(" "))
}

/// Files of a process that is not dumpable belong to root, and its environment is closed to its own user.
fn init_not_dumpable(_: &Params) -> Seen {
    let init = crate::process::init();
    let own = nix::unistd::geteuid().as_raw();
    let readable = fs::read(format!("/proc/{init}/environ")).is_ok();
    let owner = fs::metadata(format!("/proc/{init}/environ")).map_or(u32::MAX, |found| found.uid());
    Seen::open_if(readable || owner == own, "not_dumpable", format!("owner {owner}"))
}

/// Sandboxes that agents and browsers bring along do not work inside, and say so.
fn nested_sandbox(_: &Params) -> Seen {
    let tools: [&[&str]; 2] = [
        &["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount", "true"],
        &["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"],
    ];
    let all = tools.iter().filter_map(|tool| {
        let (program, args) = tool.split_first()?;
        let output = Command::new(program).args(args).output().ok()?;
        let says = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Some(if output.status.success() {
            Seen::open(*program)
        } else {
            // Silence would be a failure that nobody understands.
            Seen::open_if(says.is_empty(), "refused", says)
        })
    });
    Seen::worst(all)
}
