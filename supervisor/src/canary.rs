//! The canary: what is run in a session's place to find out whether the sandbox holds. It tries to get out, in some ninety harmless ways, and
//! writes down what came of each. What it says is judged outside ([`crate::self_test`]).
//!
//! It is a part of the supervisor's own program, so that the two never differ; it is run as a hidden command, with one thread, and knows only
//! what its arguments tell it.

mod attempt;
mod files;
mod ids;
mod kernel;
mod network;
mod processes;
mod terminals;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getppid, pipe2};
use serde::{Deserialize, Serialize};

pub(crate) use self::attempt::{Attempt, Outcome};
use self::attempt::{Needs, Row, Seen};
use crate::sys;

/// The hidden command.
pub(crate) const COMMAND: &str = "canary";
/// Where it writes, in its working directory: a line of JSON for each attempt.
pub(crate) const REPORT: &str = "canary.jsonl";
/// An attempt that takes longer hangs; the alarm ends it. All of them together take some 20 ms.
const ATTEMPT_SECONDS_MAX: u32 = 1;

/// What the attempts are aimed at, and what of the jail there is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Aims {
    /// A file of the supervisor's, by its path on the host.
    pub(crate) bait: PathBuf,
    /// What is in it.
    pub(crate) secret: String,
    /// A process of the host.
    pub(crate) host_pid: i32,
    /// When that began: a process inside may have the same number.
    pub(crate) host_began: u64,
    /// A port of the host's loopback interface on which somebody listens.
    pub(crate) tcp: SocketAddr,
    /// An abstract socket of the host on which somebody listens.
    pub(crate) abstract_socket: String,
    /// Whether there is a network of its own.
    pub(crate) own_network: bool,
    /// Whether there are users of its own.
    pub(crate) own_users: bool,
}

impl Aims {
    fn has(&self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing => true,
            Needs::Network => self.own_network,
            Needs::Users => self.own_users,
        }
    }
}

/// Every attempt, in the order in which they are made.
fn rows() -> impl Iterator<Item = Row> {
    let groups: [&[Row]; 6] = [files::ROWS, processes::ROWS, ids::ROWS, terminals::ROWS, network::ROWS, kernel::ROWS];
    groups.into_iter().flatten().copied()
}

/// The name of every attempt.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    rows().map(|row| row.name)
}

/// The program: makes every attempt.
pub(crate) fn run(aims: &str) -> ExitCode {
    let Ok(aims) = serde_json::from_str::<Aims>(aims) else { return ExitCode::FAILURE };
    // Before anything of our own is open.
    let inherited = files::inherited();
    let Ok(mut report) = File::options().create(true).append(true).open(REPORT) else { return ExitCode::FAILURE };
    let scene = Scene { aims, init: getppid(), inherited };
    // What the terminal's end tells polite programs must not end this one between two attempts.
    sys::ignore_hang_up();
    let (rows, left): (Vec<Row>, Vec<Row>) = rows().partition(|row| scene.aims.has(row.needs));
    let mut attempts: Vec<Attempt> = left.iter().map(|row| Seen::Left.named(row)).collect();
    let mut rest = rows.as_slice();
    loop {
        let told = attempts.iter().filter_map(|attempt| serde_json::to_vec(attempt).ok());
        let text: Vec<u8> = told.flat_map(|line| line.into_iter().chain(*b"\n")).collect();
        if report.write_all(&text).is_err() {
            return ExitCode::FAILURE;
        }
        if rest.is_empty() {
            return ExitCode::SUCCESS;
        }
        attempts = some(rest, &scene);
        rest = rest.get(attempts.len()..).unwrap_or_default();
    }
}

/// What an attempt has to know.
pub(crate) struct Scene {
    aims: Aims,
    /// Who started us: inside a jail, its init.
    init: Pid,
    /// Descriptors that we were born with, beyond the terminal.
    inherited: Vec<String>,
}

/// Makes some of the attempts, at least the first, in a process of their own: one that hangs, dies or spoils its process harms no other. What was
/// refused has changed nothing, so the next one is made in the same process.
fn some(rows: &[Row], scene: &Scene) -> Vec<Attempt> {
    let Some(first) = rows.first() else { return Vec::new() };
    let unclear = |why: String| vec![Seen::Unclear(why).named(first)];
    let Ok((read, write)) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC) else { return unclear("no pipe".to_owned()) };
    let child = match sys::fork_child() {
        Ok(None) => {
            drop(read);
            make(rows, scene, File::from(write))
        }
        Ok(Some(child)) => child,
        Err(errno) => return unclear(format!("no process: {errno}")),
    };
    drop(write);
    let ended = waitpid(child, None);
    // All of it fits into a pipe. A process that an attempt has left behind may hold it open, and has nothing to say.
    let mut text = Vec::new();
    let _until_nothing_is_there = File::from(read).read_to_end(&mut text);
    let mut attempts: Vec<Attempt> =
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let died = rows.get(attempts.len());
    match (ended, died) {
        (Ok(WaitStatus::Exited(_, 0)), _) if !attempts.is_empty() => {}
        // The filter ends whoever calls the kernel in a way that no program has any use for; some kernels know no such way.
        (Ok(WaitStatus::Signaled(_, signal @ (Signal::SIGSYS | Signal::SIGSEGV), _)), Some(row)) => {
            attempts.push(Seen::held(signal.as_str()).named(row));
        }
        (Ok(WaitStatus::Signaled(_, Signal::SIGALRM, _)), Some(row)) => {
            attempts.push(Seen::Unclear("it did not end".to_owned()).named(row));
        }
        (other, Some(row)) => attempts.push(Seen::Unclear(format!("{other:?}")).named(row)),
        (_, None) => {}
    }
    attempts
}

/// The child: one attempt after the other, until one has had an effect.
fn make(rows: &[Row], scene: &Scene, mut told: File) -> ! {
    for row in rows {
        let _before = nix::unistd::alarm::set(ATTEMPT_SECONDS_MAX);
        let attempt = (row.make)(scene).named(row);
        let Ok(mut line) = serde_json::to_vec(&attempt) else { sys::exit_now(1) };
        line.push(b'\n');
        if told.write_all(&line).is_err() {
            sys::exit_now(1);
        }
        if attempt.outcome == Outcome::Open || row.name.starts_with(terminals::GROUP) {
            break;
        }
    }
    sys::exit_now(0)
}
