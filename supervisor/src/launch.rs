//! Starting a shim: a clean process, its sockets, its plan.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agentapi_shared::shim::{ATTACHED, SOCKET, START_BYTES_MAX, ShimStart, ShimStarted};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, recv, send, sendmsg, setsockopt,
    shutdown, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::abort::{Abort, Aborted};
use crate::cgroup::{CgroupError, Place};
use crate::disk::Disk;
use crate::files::SpawnFiles;

/// A jail that is not up after this long never will be; the slowest measured, under load, took 60 ms.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a shim could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// Its socket or log could not be made.
    #[error("cannot prepare the spawn's {what}")]
    Prepare { what: &'static str, source: io::Error },
    /// The program could not be run.
    #[error("cannot run {shim}: is agentapi-shim installed beside agentapi-supervisor?")]
    Run { shim: String, source: io::Error },
    /// The plan is too large for one message.
    #[error("command and environment are too long together")]
    TooLong,
    /// It could not be put under its limits.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Somebody wanted it to end first.
    #[error(transparent)]
    Aborted(#[from] Aborted),
    /// It said nothing, or nothing we understand.
    #[error("the shim did not start (see shim.log in the spawn's directory)")]
    NoAnswer(#[source] io::Error),
}

/// A program of ours: the one that was named, or the one beside this. Absolute, because it is run with another working directory.
pub(crate) fn program(named: Option<&Path>, name: &str) -> io::Result<PathBuf> {
    match named {
        Some(path) => std::path::absolute(path),
        None => Ok(std::env::current_exe()?.with_file_name(name)),
    }
}

/// What a spawn is started with, beside its plan.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct With<'a> {
    /// Its control groups.
    pub(crate) place: Option<&'a Place>,
    /// The session's disk.
    pub(crate) disk: Option<&'a Disk>,
    /// How long the shim may take to say its last word, for whoever cannot wait [`START_TIMEOUT`].
    pub(crate) patience: Option<Duration>,
}

/// Starts a shim and waits for its word. Blocks. The child is over already unless it said that the program runs.
///
/// With a place in control groups the plan has to say the step of that place: init is born in it, and does nothing before it is in all of it. A
/// plan that shows directories of the session's disk needs that disk.
pub(crate) fn launch(
    shim: &Path,
    files: &SpawnFiles,
    start: &ShimStart,
    With { place, disk, patience }: With<'_>,
    abort: &Abort,
) -> Result<(ShimStarted, Child), LaunchError> {
    let message = serde_json::to_vec(start).map_err(|_| LaunchError::TooLong)?;
    if message.len() > START_BYTES_MAX {
        return Err(LaunchError::TooLong);
    }
    let prepare = |what| move |source| LaunchError::Prepare { what, source };
    let listener = files.with_short_path(SOCKET, |path| UnixListener::bind(path)).map_err(prepare("socket"))?;
    let dir = File::open(files.path()).map_err(prepare("directory"))?;
    let log = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(files.path().join("shim.log"))
        .map_err(prepare("log"))?;
    let deadline = Instant::now() + patience.unwrap_or(START_TIMEOUT);
    let work = place.map(Place::work).transpose()?;
    let (ours, theirs) = control_pair().map_err(prepare("control socket"))?;
    let watched = ours.try_clone().map_err(prepare("control socket"))?;
    abort.watch(move || {
        // Whoever waits for the shim's word finds the end of the socket. One that is closed already waits for nothing.
        let _shut = shutdown(watched.as_raw_fd(), Shutdown::Both);
    })?;
    let mut child = Command::new(shim)
        // What agents see of it in their /proc: no path of the host.
        .arg0("agentapi-shim")
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::from(log))
        .spawn()
        .map_err(|source| LaunchError::Run { shim: shim.display().to_string(), source })?;
    let answer = place.map_or(Ok(()), |place| place.keep_shim(child.id())).map_err(LaunchError::from).and_then(|()| {
        let more = work.as_ref().map(File::as_fd).into_iter().chain(disk.map(Disk::as_fd));
        let fds: Vec<_> = [listener.as_fd(), dir.as_fd()].into_iter().chain(more).collect();
        converse(&ours, (&message, &fds), place, deadline).map_err(LaunchError::NoAnswer)
    });
    if !matches!(answer, Ok(ShimStarted::Executed { .. })) {
        // Ours, not reaped: nobody else can have its pid. One that has told its failure is about to end anyway.
        let _gone = child.kill();
        let _status = child.wait();
    }
    answer.map(|started| (started, child))
}

fn control_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    setsockopt(&pair.0, sockopt::SndBuf, &(2 * START_BYTES_MAX))?;
    Ok(pair)
}

fn converse(
    control: &OwnedFd,
    (message, fds): (&[u8], &[BorrowedFd<'_>]),
    place: Option<&Place>,
    deadline: Instant,
) -> io::Result<ShimStarted> {
    let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(control.as_raw_fd(), &[IoSlice::new(message)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    let mut buffer = vec![0; START_BYTES_MAX];
    loop {
        // Of no time at all the kernel would make forever.
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let left = TimeVal::milliseconds(i64::try_from(left).unwrap_or(i64::MAX).max(1));
        setsockopt(control, sockopt::ReceiveTimeout, &left)?;
        let length = recv(control.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match serde_json::from_slice(buffer.get(..length).unwrap_or_default())? {
            ShimStarted::Born { init_pid } => {
                let place = place.ok_or(io::ErrorKind::Unsupported)?;
                place.attach(init_pid).map_err(io::Error::other)?;
                send(control.as_raw_fd(), &ATTACHED, MsgFlags::MSG_NOSIGNAL)?;
            }
            told => return Ok(told),
        }
    }
}
