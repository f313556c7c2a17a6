//! From the supervisor's start message to a running agent, or to a record of why there is none.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use agentapi_shared::shim::{ATTACHED, START_BYTES_MAX, ShimStart, ShimStarted};
use agentapi_shared::{Exit, ExitReason};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, UnixAddr, recv, sendmsg};
use nix::unistd::{Pid, geteuid, setsid};

use crate::jail::{self, Building, Given, Jail, JailError};
use crate::output::Output;
use crate::parser;
use crate::records::{self, Records};
use crate::service::Service;
use crate::sys;
use crate::terminal::Terminal;

/// Why a shim could not even start a record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The start message did not come, or not whole.
    #[error("no start message: {0}")]
    NoMessage(String),
    /// Something of our own could not be set up.
    #[error("cannot {action}")]
    Setup {
        /// What.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn setup<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> StartError {
    move |source| StartError::Setup { action, source: source.into() }
}

/// Serves one spawn until its end.
pub(crate) fn serve() -> Result<(), StartError> {
    sys::limit_malloc_arenas();
    // Of a session of our own, and deaf to what ends daemons: a shim ends when its agent does.
    let _already_leader = setsid();
    for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE] {
        sys::ignore_signal(number);
    }
    let control = sys::stdin_socket();
    let Received { mut start, listener, dir, given } = receive_start(&control)?;
    // Whoever has started us is whom we serve, also when we are somebody else.
    let owner = geteuid();
    // Held while we live, however we end: so that nobody takes a living spawn for a lost one.
    let _alive = records::hold(&dir).map_err(setup("lock the spawn's directory"))?;
    let begun = jail::begin(&start.plan, start.size, given, |init| attach(&control, init));
    // While init builds; if any of it fails, that ends with us.
    let records = Records::new(dir);
    let journal = records.journal_dir().map_err(setup("make the journal's directory"))?;
    let reread = journal.try_clone().map_err(setup("share the journal's directory"))?;
    let output =
        Output::create(&start, journal).map_err(|error| setup("start the journal")(io::Error::other(error)))?;
    let launched = begun.and_then(Building::finish);
    let jail = match launched.and_then(|jail| confine(&start, jail, &records, &reread)) {
        Ok(jail) => jail,
        Err(error) => return fail(&control, &records, &start, &error),
    };
    let init_pid = jail.init.as_raw();
    let confined = start.plan.shim.is_some();
    // What the jail was made of is needed no more; it holds the session's secrets and costs memory.
    start.plan.mounts = Vec::new();
    start.plan.exec.env = Vec::new();
    // From here on there may be threads.
    let parser = parser::Parser::start(start.spawn, start.size, reread).map_err(setup("start the screen's thread"))?;
    let service =
        Service::new(start, owner, jail, listener, output, parser, records).map_err(setup("start serving"))?;
    if confined {
        // An error ends this process, and with it the agent that has just begun.
        jail::filter_calls().map_err(|error| setup("give up system calls")(io::Error::other(error)))?;
    }
    tell(&control, &ShimStarted::Executed { init_pid });
    drop(control);
    service.run().map_err(setup("serve"))
}

/// Gives up what serving does not need. If that fails nothing runs.
fn confine(start: &ShimStart, jail: Jail, records: &Records, journal: &OwnedFd) -> Result<Jail, JailError> {
    let Some(step) = start.plan.shim else { return Ok(jail) };
    let confined = jail::hand_over(step, records.dir(), journal)
        .and_then(|()| jail::shed(step, start.plan.landlock.as_ref(), records.dir()));
    match confined {
        Ok(()) => Ok(jail),
        Err(error) => {
            jail.end();
            Err(error)
        }
    }
}

/// Has the supervisor put init into its cgroups.
fn attach(control: &OwnedFd, init: Pid) -> Result<(), Errno> {
    tell(control, &ShimStarted::Born { init_pid: init.as_raw() });
    let mut answer = [0; ATTACHED.len()];
    let length = recv(control.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    if length == answer.len() && answer == ATTACHED { Ok(()) } else { Err(Errno::ECANCELED) }
}

/// What comes with the first message.
struct Received {
    start: ShimStart,
    listener: UnixListener,
    dir: OwnedFd,
    given: Given,
}

fn receive_start(control: &OwnedFd) -> Result<Received, StartError> {
    let mut buffer = vec![0; START_BYTES_MAX];
    let (length, fds) = jail::receive_with_fds(control.as_fd(), &mut buffer)
        .map_err(|errno| StartError::NoMessage(errno.to_string()))?
        .ok_or_else(|| StartError::NoMessage("the supervisor is gone".to_owned()))?;
    let start: ShimStart = serde_json::from_slice(buffer.get(..length).unwrap_or_default())
        .map_err(|error| StartError::NoMessage(error.to_string()))?;
    let count = fds.len();
    let mut fds = fds.into_iter();
    let (Some(listener), Some(dir)) = (fds.next(), fds.next()) else {
        return Err(StartError::NoMessage(format!("{count} descriptors, and at least 2 are needed")));
    };
    let cgroup = if start.plan.cgroup.born_in { fds.next() } else { None };
    let disk = if start.plan.has_disk() { fds.next() } else { None };
    Ok(Received { start, listener: UnixListener::from(listener), dir, given: Given { cgroup, disk } })
}

/// Leaves a record of a start that failed, and tells it.
fn fail(control: &OwnedFd, records: &Records, start: &ShimStart, error: &JailError) -> Result<(), StartError> {
    let (reason, detail) = match error {
        JailError::Exec(errno) => {
            let program = start.plan.exec.argv.first().map_or("", String::as_str);
            let path =
                start.plan.exec.env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value.as_str());
            (ExitReason::ExecFailed, jail::describe_exec_failure(*errno, program, path))
        }
        JailError::Step { .. } | JailError::InitGone => (ExitReason::JailFailed, jail::describe_jail_failure(error)),
    };
    let exit = Exit { code: None, signal: None, reason, detail };
    let (screen, keyframe) = parser::finished(&Terminal::new(start.size), start.spawn);
    records.write(&exit, &screen, &keyframe).map_err(setup("write the exit record"))?;
    tell(control, &ShimStarted::Failed { exit });
    Ok(())
}

/// Tells the supervisor; one that is gone finds the record later.
fn tell(control: &OwnedFd, message: &ShimStarted) {
    let Ok(bytes) = serde_json::to_vec(message) else { return };
    let _told = sendmsg::<UnixAddr>(control.as_raw_fd(), &[IoSlice::new(&bytes)], &[], MsgFlags::MSG_NOSIGNAL, None);
}
