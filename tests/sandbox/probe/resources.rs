//! Attempts to use up what others need. Each is bounded by itself, a little above what the harness says the limit is, and looks first whether
//! what it is about to fill is as small as that.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use agentapi_tests::attempt::Params;
use nix::errno::Errno;
use nix::pty::openpty;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::statvfs::statvfs;

use crate::outcome::{Row, Seen, errno};
use crate::run::end;
use crate::sys::{self, at, c, call};

/// How far an attempt goes beyond a limit to see that it is none.
const BEYOND: u64 = 16;
/// No fill goes further, whatever it is told.
const FILL_BYTES_MAX: u64 = 512 << 20;
/// No memory attempt goes further.
const MEMORY_BYTES_MAX: u64 = 768 << 20;
/// A session may open so many files in a process.
const FILES: usize = 8192;

pub(crate) const ROWS: &[Row] = &[
    Row { number: 60, name: "use.fork_bomb", make: fork_bomb },
    Row { number: 61, name: "use.memory", make: |params| memory(params, sys::touch_memory) },
    Row { number: 61, name: "use.page_tables", make: page_tables },
    Row { number: 61, name: "use.memfd", make: memfd },
    Row { number: 61, name: "use.pipes", make: pipes },
    Row { number: 63, name: "use.tmp_bytes", make: |params| fill("/tmp", params.tmp_bytes) },
    Row { number: 63, name: "use.tmp_files", make: |params| fill_inodes("/tmp", params.tmp_bytes) },
    Row { number: 63, name: "use.disk_bytes", make: |params| fill(&params.home, params.disk_bytes) },
    Row { number: 63, name: "use.disk_files", make: |params| fill_inodes(&params.home, params.disk_bytes) },
    Row { number: 64, name: "use.descriptors", make: descriptors },
    Row { number: 65, name: "use.terminals", make: terminals },
    Row { number: 67, name: "use.pending_signals", make: pending_signals },
    Row { number: 67, name: "use.queues", make: queues },
    Row { number: 67, name: "use.locked_memory", make: locked_memory },
    Row { number: 70, name: "use.timers", make: timers },
    Row { number: 70, name: "use.network_namespaces", make: |_| Seen::of(unshare(CloneFlags::CLONE_NEWNET)) },
];

/// Asks for as much as there is: a limit that can be lifted is none.
pub(crate) fn raise(resource: Resource) {
    let hard = getrlimit(resource).map_or(0, |(_, hard)| hard);
    if setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY).is_err() {
        let _soft = setrlimit(resource, hard, hard);
    }
}

/// The kernel knows no infinity of descriptors.
fn raise_files() {
    const MANY: u64 = 65_536;
    if setrlimit(Resource::RLIMIT_NOFILE, MANY, MANY).is_err() {
        raise(Resource::RLIMIT_NOFILE);
    }
}

fn fork_bomb(params: &Params) -> Seen {
    if params.pids_max == 0 {
        return Seen::held("NO LIMIT");
    }
    raise(Resource::RLIMIT_NPROC);
    let mut children = Vec::new();
    let mut refused = None;
    while (children.len() as u64) < params.pids_max + BEYOND {
        match sys::fork() {
            Ok(0) => loop {
                nix::unistd::pause();
            },
            Ok(pid) => children.push(pid),
            Err(errno) => {
                refused = Some(errno);
                break;
            }
        }
    }
    let count = children.len();
    children.into_iter().for_each(end);
    refused.map_or_else(|| Seen::open(count.to_string()), Seen::refused).with(count.to_string())
}

/// What is asked for: the limit and half of it again. A program that is killed for it says nothing; its end is the effect.
fn memory(params: &Params, touch: fn(usize) -> usize) -> Seen {
    let wanted = (params.memory_max + params.memory_max / 2).min(MEMORY_BYTES_MAX);
    if params.memory_max == 0 {
        return Seen::held("NO LIMIT");
    }
    let reached = touch(usize::try_from(wanted).unwrap_or(0)) as u64;
    Seen::open_if(reached >= wanted, "ENOMEM", format!("{reached} bytes"))
}

/// Page tables cost 4 KiB for each 2 MiB that are spread over: as much memory as above without a byte of content.
fn page_tables(params: &Params) -> Seen {
    if params.memory_max == 0 {
        return Seen::held("NO LIMIT");
    }
    let wanted = (params.memory_max + params.memory_max / 2).min(MEMORY_BYTES_MAX) / 4096;
    let reached = sys::touch_page_tables(usize::try_from(wanted).unwrap_or(0));
    Seen::open_if(reached > 0, "ENOMEM", format!("{reached} bytes of addresses"))
}

fn memfd(params: &Params) -> Seen {
    if params.memory_max == 0 {
        return Seen::held("NO LIMIT");
    }
    let name = c("attempt");
    match call(libc::SYS_memfd_create, &[at(name.to_bytes_with_nul()), 0]) {
        Ok(fd) => write_until(
            &mut File::from(sys::own(fd)),
            (params.memory_max + params.memory_max / 2).min(MEMORY_BYTES_MAX),
        ),
        Err(errno) => Seen::refused(errno),
    }
}

/// Pipes hold what nobody reads: 1 MiB each, as far as descriptors go.
fn pipes(params: &Params) -> Seen {
    if params.memory_max == 0 {
        return Seen::held("NO LIMIT");
    }
    let wanted = (params.memory_max + params.memory_max / 2).min(MEMORY_BYTES_MAX);
    raise_files();
    let block = vec![1_u8; 1 << 16];
    let (mut held, mut written) = (Vec::new(), 0);
    while written < wanted {
        let Ok((read, write)) = nix::unistd::pipe() else {
            return Seen::held("EMFILE").with(format!("{written} bytes"));
        };
        let _larger = call(libc::SYS_fcntl, &[write.as_raw_fd() as usize, libc::F_SETPIPE_SZ as usize, 1 << 20]);
        let _never_waits =
            call(libc::SYS_fcntl, &[write.as_raw_fd() as usize, libc::F_SETFL as usize, libc::O_NONBLOCK as usize]);
        let mut file = File::from(write);
        let before = written;
        while file.write_all(&block).is_ok() {
            written += block.len() as u64;
        }
        if written == before {
            return Seen::held("EAGAIN").with(format!("{written} bytes"));
        }
        held.push((read, file));
    }
    Seen::open(format!("{written} bytes"))
}

fn write_until(file: &mut File, wanted: u64) -> Seen {
    let block = vec![1_u8; 1 << 20];
    let mut written = 0;
    while written < wanted {
        if let Err(error) = file.write_all(&block) {
            return Seen::refused(errno(&error)).with(format!("{written} bytes"));
        }
        written += block.len() as u64;
    }
    Seen::open(format!("{written} bytes"))
}

/// Bytes that a file system has in all, if that is small enough to be filled.
fn size_of_mount(dir: &str) -> Option<u64> {
    let found = statvfs(dir).ok()?;
    Some(found.blocks() * found.fragment_size())
}

fn fill(dir: &str, limit: u64) -> Seen {
    let Some(size) = size_of_mount(dir) else { return Seen::held("FAILED") };
    if limit == 0 || limit > FILL_BYTES_MAX {
        return Seen::held("NO LIMIT");
    }
    if size > limit + limit / 8 {
        // To fill it would fill the host. That it has no end of its own is the finding.
        return Seen::open(format!("{size} bytes instead of {limit}"));
    }
    let path = Path::new(dir).join("fill");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
    let seen = match file {
        Ok(mut file) => write_until(&mut file, limit + limit / 8 + (4 << 20)),
        Err(error) => Seen::refused(errno(&error)),
    };
    let _gone = fs::remove_file(path);
    seen
}

/// Empty files: bounded by the mount's inodes, which have to be few.
fn fill_inodes(dir: &str, limit: u64) -> Seen {
    /// More than a file system of some MiB has, and few enough for any host.
    const TRIES: u64 = 20_000;
    if size_of_mount(dir).is_none_or(|size| limit == 0 || size > limit * 2) {
        return Seen::open("as many as the host has");
    }
    let place = Path::new(dir).join("inodes");
    if let Err(error) = fs::create_dir(&place) {
        return Seen::refused(errno(&error));
    }
    let mut refused = None;
    for number in 0..TRIES {
        if let Err(error) = File::create(place.join(number.to_string())) {
            refused = Some((errno(&error), number));
            break;
        }
    }
    let _gone = fs::remove_dir_all(place);
    refused.map_or_else(|| Seen::open(TRIES.to_string()), |(errno, count)| Seen::refused(errno).with(count.to_string()))
}

fn descriptors(_: &Params) -> Seen {
    raise_files();
    let mut held = Vec::new();
    while held.len() < FILES + 100 {
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(error) => return Seen::refused(errno(&error)).with(held.len().to_string()),
        }
    }
    Seen::open(held.len().to_string())
}

fn terminals(_: &Params) -> Seen {
    /// What a jail's devpts may hold, and a few more.
    const TRIES: usize = 100;
    let mut held = Vec::new();
    while held.len() < TRIES {
        match openpty(None, None) {
            Ok(pty) => held.push(pty),
            Err(errno) => return Seen::refused(errno).with(held.len().to_string()),
        }
    }
    Seen::open(held.len().to_string())
}

/// Signals that wait: each costs the kernel memory that no limit of memory counts.
fn pending_signals(_: &Params) -> Seen {
    const TRIES: usize = 6000;
    raise(Resource::RLIMIT_SIGPENDING);
    let mut set = nix::sys::signal::SigSet::empty();
    set.add(nix::sys::signal::Signal::SIGUSR1);
    let _blocked = set.thread_block();
    let real_time = libc::SIGRTMIN() as usize;
    let mask: u64 = !0;
    let _all = call(libc::SYS_rt_sigprocmask, &[0, at(&mask), 0, 8]);
    let mut info = [0_u8; 128];
    info[8..12].copy_from_slice(&(-1_i32).to_ne_bytes());
    let own = std::process::id() as usize;
    for count in 0..TRIES {
        if let Err(errno) = call(libc::SYS_rt_sigqueueinfo, &[own, real_time, at(&info)]) {
            return Seen::refused(errno).with(count.to_string());
        }
    }
    Seen::open(TRIES.to_string())
}

fn queues(_: &Params) -> Seen {
    /// More than a session may have in these tests, and fewer than any host allows.
    const TRIES: usize = 6;
    raise(Resource::RLIMIT_MSGQUEUE);
    let attributes = [0_i64, 10, 8192, 0, 0, 0, 0, 0];
    let mut held = Vec::new();
    for number in 0..TRIES {
        let name = c(&format!("attempt-{}-{number}", std::process::id()));
        let flags = (libc::O_CREAT | libc::O_RDWR) as usize;
        let made = call(libc::SYS_mq_open, &[at(name.to_bytes_with_nul()), flags, 0o600, at(&attributes)]);
        let _unnamed = call(libc::SYS_mq_unlink, &[at(name.to_bytes_with_nul())]);
        match made {
            Ok(fd) => held.push(sys::own(fd)),
            Err(errno) => return Seen::refused(errno).with(number.to_string()),
        }
    }
    Seen::open(TRIES.to_string())
}

fn locked_memory(_: &Params) -> Seen {
    /// A little more than a session may lock.
    const BYTES: usize = 72 << 20;
    raise(Resource::RLIMIT_MEMLOCK);
    let place = vec![1_u8; BYTES];
    Seen::of(call(libc::SYS_mlock, &[at(place.as_slice()), BYTES]))
}

fn timers(_: &Params) -> Seen {
    const TRIES: usize = 6000;
    raise(Resource::RLIMIT_SIGPENDING);
    for count in 0..TRIES {
        let mut timer = 0_i32;
        let made: Result<i64, Errno> = call(libc::SYS_timer_create, &[1, 0, sys::at_mut(&mut timer)]);
        if let Err(errno) = made {
            return Seen::refused(errno).with(count.to_string());
        }
    }
    Seen::open(TRIES.to_string())
}
