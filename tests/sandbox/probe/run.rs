//! Running attempts: each in a process of its own, so that one that hangs, dies or spoils its process says so and harms no other.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use agentapi_tests::attempt::{DONE, Outcome, PARAMS_FILE, Params, RESULTS_FILE};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid, pipe};

use crate::outcome::{Row, Seen};
use crate::{credentials, filesystem, ipc, kernel, network, process, resources, sys, tty};

/// Seconds that one attempt may take on a usual machine; the alarm ends it.
const ATTEMPT_SECONDS_MAX: u32 = 20;

/// Every attempt, in the order in which they are made: those that may end the session are last.
fn rows() -> Vec<Row> {
    let groups: [&[Row]; 8] = [
        filesystem::ROWS,
        network::ROWS,
        ipc::ROWS,
        tty::ROWS,
        kernel::ROWS,
        credentials::ROWS,
        resources::ROWS,
        process::ROWS,
    ];
    groups.concat()
}

/// One line of text for the harness.
pub(crate) fn say(line: &str) {
    // Nobody listening is no reason to stop.
    let _written = writeln!(std::io::stdout(), "{line}");
}

/// Names every attempt: `NUMBER NAME`.
pub(crate) fn list() -> ExitCode {
    for row in rows() {
        say(&format!("{} {}", row.number, row.name));
    }
    ExitCode::SUCCESS
}

/// Ids and capabilities of this process: what a set-user-ID copy of this program gained.
pub(crate) fn whoami() -> ExitCode {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default().trim().to_owned();
    say(&format!("{} {effective}", geteuid()));
    ExitCode::SUCCESS
}

/// Makes the attempts named, or all, in the working directory; then waits to be ended.
pub(crate) fn batch(names: &[&str]) -> ExitCode {
    let dir = std::env::current_dir().unwrap_or_default();
    if !make(&dir, names) {
        return ExitCode::FAILURE;
    }
    loop {
        nix::unistd::pause();
    }
}

/// The same on the bare host, as the control. Mounts are copies of this process's own; for everything else the host's namespaces are those of the harness.
pub(crate) fn bare(names: &[&str]) -> ExitCode {
    let none: Option<&str> = None;
    let prepared = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        // Something to unmount, as in a jail.
        .and_then(|()| mount(Some("/proc/sys"), "/proc/sys", none, MsFlags::MS_BIND, none));
    if let Err(errno) = prepared {
        say(&format!("bare: {errno}"));
        return ExitCode::FAILURE;
    }
    // The parent stands for init: an attempt may end it.
    match sys::fork() {
        Ok(0) => sys::exit_now(i32::from(!make(&std::env::current_dir().unwrap_or_default(), names))),
        Ok(pid) => {
            let _status = waitpid(Pid::from_raw(pid), None);
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Becomes a program for which the host forbids user namespaces: root of one that maps every id to itself, in which none may be made.
pub(crate) fn without_user_namespaces(program: &[&str]) -> ExitCode {
    let Some((program, args)) = program.split_first() else { return ExitCode::FAILURE };
    if let Err(errno) = forbid_user_namespaces() {
        say(&format!("without-user-namespaces: {errno}"));
        return ExitCode::FAILURE;
    }
    let _error = Command::new(program).args(args).exec();
    ExitCode::FAILURE
}

fn forbid_user_namespaces() -> Result<(), Errno> {
    /// All ids that there are, each as itself.
    const EVERY_ID: &str = "0 0 4294967295\n";
    let (ready, made) = pipe()?;
    // Only somebody outside may map every id.
    let mapper = sys::fork()?;
    if mapper == 0 {
        drop(made);
        let parent = nix::unistd::getppid();
        let told = File::from(ready).read_exact(&mut [0]);
        let mapped = ["uid_map", "gid_map"].map(|map| std::fs::write(format!("/proc/{parent}/{map}"), EVERY_ID));
        sys::exit_now(i32::from(told.is_err() || mapped.iter().any(Result::is_err)));
    }
    unshare(CloneFlags::CLONE_NEWUSER)?;
    File::from(made).write_all(b"x").map_err(|_| Errno::EPIPE)?;
    match waitpid(Pid::from_raw(mapper), None)? {
        WaitStatus::Exited(_, 0) => {}
        _ => return Err(Errno::EPERM),
    }
    std::fs::write("/proc/sys/user/max_user_namespaces", "0").map_err(|_| Errno::EACCES)
}

fn make(dir: &Path, names: &[&str]) -> bool {
    // Before anything of our own is open.
    let inherited = filesystem::open_descriptors();
    let Ok(text) = std::fs::read(dir.join(PARAMS_FILE)) else { return false };
    let Ok(params) = serde_json::from_slice::<Params>(&text) else { return false };
    let Ok(mut results) = File::options().create(true).append(true).open(dir.join(RESULTS_FILE)) else { return false };
    // What ends polite programs must not end this one between two attempts.
    sys::ignore(libc::SIGHUP);
    for row in rows().iter().filter(|row| names.is_empty() || names.contains(&row.name)) {
        let outcome = if row.name == filesystem::INHERITED {
            filesystem::judge_inherited(&inherited).named(row)
        } else {
            alone(row, &params)
        };
        let Ok(mut line) = serde_json::to_string(&outcome) else { continue };
        line.push('\n');
        if results.write_all(line.as_bytes()).is_err() {
            return false;
        }
    }
    writeln!(results, "\"{DONE}\"").is_ok()
}

fn alone(row: &Row, params: &Params) -> Outcome {
    let failed = |what: &str| Seen::held("FAILED").with(what).named(row);
    let Ok((read, write)) = pipe() else { return failed("no pipe") };
    match sys::fork() {
        Ok(0) => {
            drop(read);
            sys::reset_signals();
            let _before = nix::unistd::alarm::set(ATTEMPT_SECONDS_MAX * params.slowness.max(1));
            let outcome = (row.make)(params).named(row);
            let told = serde_json::to_vec(&outcome).is_ok_and(|bytes| File::from(write).write_all(&bytes).is_ok());
            sys::exit_now(i32::from(!told));
        }
        Ok(pid) => {
            drop(write);
            let ended = waitpid(Pid::from_raw(pid), None);
            // A process that the attempt left behind may hold the pipe open; it has nothing to say.
            let mut text = Vec::new();
            let told = matches!(ended, Ok(WaitStatus::Exited(_, 0))) && File::from(read).read_to_end(&mut text).is_ok();
            match (told.then(|| serde_json::from_slice(&text).ok()).flatten(), ended) {
                (Some(outcome), _) => outcome,
                (None, Ok(WaitStatus::Signaled(_, signal, _))) => Seen::held(signal.as_str()).named(row),
                (None, other) => failed(&format!("{other:?}")),
            }
        }
        Err(errno) => failed(errno.desc()),
    }
}

/// Ends a child that an attempt made, and takes it in.
pub(crate) fn end(pid: i32) {
    let _sent = kill(Pid::from_raw(pid), Signal::SIGKILL);
    let _status = waitpid(Pid::from_raw(pid), None);
}

/// Does something in a child, whose exit status is the answer.
pub(crate) fn in_child(work: impl FnOnce() -> i32) -> Result<WaitStatus, nix::errno::Errno> {
    match sys::fork()? {
        0 => sys::exit_now(work()),
        pid => waitpid(Pid::from_raw(pid), None),
    }
}
