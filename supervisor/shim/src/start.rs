//! From the supervisor's start message to a running agent, or to a record of why there is none.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use agentapi_shared::shim::{START_BYTES_MAX, ShimStart, ShimStarted};
use agentapi_shared::{Exit, ExitReason};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, UnixAddr, sendmsg};
use nix::unistd::setsid;

use crate::jail::{self, JailError};
use crate::output::Output;
use crate::parser;
use crate::pty::JailMaster;
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
    let (mut start, listener, dir) = receive_start(&control)?;
    // Held while we live, however we end: so that nobody takes a living spawn for a lost one.
    let _alive = records::hold(&dir).map_err(setup("lock the spawn's directory"))?;
    let records = Records::new(dir);
    let journal = records.journal_dir().map_err(setup("make the journal's directory"))?;
    let reread = journal.try_clone().map_err(setup("share the journal's directory"))?;
    let output =
        Output::create(&start, journal).map_err(|error| setup("start the journal")(io::Error::other(error)))?;
    let jail = match jail::launch(&start.plan, start.size) {
        Ok(jail) => jail,
        Err(error) => return fail(&control, &records, &start, &error),
    };
    let init_pid = jail.init.as_raw();
    // What the jail was made of is needed no more; it holds the session's secrets and costs memory.
    start.plan.mounts = Vec::new();
    start.plan.exec.env = Vec::new();
    // From here on there may be threads.
    let parser = parser::Parser::start(start.spawn, start.size, reread).map_err(setup("start the screen's thread"))?;
    let master = JailMaster::new(jail.master);
    let service = Service::new(start, jail.init, jail.pidfd, jail.lifeline, master, listener, output, parser, records)
        .map_err(setup("start serving"))?;
    tell(&control, &ShimStarted::Executed { init_pid });
    drop(control);
    service.run().map_err(setup("serve"))
}

fn receive_start(control: &OwnedFd) -> Result<(ShimStart, UnixListener, OwnedFd), StartError> {
    let mut buffer = vec![0; START_BYTES_MAX];
    let (length, fds) = jail::receive_with_fds(control.as_fd(), &mut buffer)
        .map_err(|errno| StartError::NoMessage(errno.to_string()))?
        .ok_or_else(|| StartError::NoMessage("the supervisor is gone".to_owned()))?;
    let start = serde_json::from_slice(buffer.get(..length).unwrap_or_default())
        .map_err(|error| StartError::NoMessage(error.to_string()))?;
    let [listener, dir] = <[OwnedFd; 2]>::try_from(fds)
        .map_err(|fds| StartError::NoMessage(format!("{} descriptors instead of 2", fds.len())))?;
    Ok((start, UnixListener::from(listener), dir))
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
        JailError::Step { .. } | JailError::InitGone => {
            (ExitReason::JailFailed, format!("{error}; run `agentapi doctor` on the host"))
        }
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
