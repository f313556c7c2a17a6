//! Between supervisor and shim: takes the start message, changes the plan as the test says, and becomes the real shim.
//!
//! The plan is data, so a layer is taken away by taking it out of the plan; supervisor, shim, descriptors, cgroups and volumes stay real. The
//! process keeps its id, so that the supervisor sees its shim; a child passes on what the shim answers.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use agentapi_shared::shim::START_BYTES_MAX;
use agentapi_tests::attempt::{EDITS_FILE, Edit, is_meant};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
    setsockopt, socketpair, sockopt,
};
use nix::unistd::setsid;
use serde_json::Value;

use crate::sys;

/// The real shim, beside this program.
const REAL: &str = "real-shim";

/// Becomes the shim; returns only if that failed.
pub(crate) fn run(args: &[&str]) -> ExitCode {
    let Ok(program) = std::env::current_exe() else { return ExitCode::FAILURE };
    let dir = program.parent().unwrap_or(Path::new("/"));
    let mut shim = Command::new(dir.join(REAL));
    shim.arg0("agentapi-shim").args(args).env_clear();
    if args.is_empty() {
        match interpose(dir) {
            Ok(stdin) => shim.stdin(Stdio::from(stdin)),
            Err(_) => return ExitCode::FAILURE,
        };
    }
    let _error = shim.exec();
    ExitCode::FAILURE
}

fn interpose(dir: &Path) -> Result<OwnedFd, Errno> {
    let text = std::fs::read(dir.join(EDITS_FILE)).map_err(|_| Errno::ENOENT)?;
    let edits: Vec<Edit> = serde_json::from_slice(&text).map_err(|_| Errno::EINVAL)?;
    let (bytes, fds) = receive(0)?;
    let mut start: Value = serde_json::from_slice(&bytes).map_err(|_| Errno::EBADMSG)?;
    for edit in &edits {
        apply(edit, &mut start);
    }
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    setsockopt(&ours, sockopt::SndBuf, &(2 * START_BYTES_MAX))?;
    let bytes = serde_json::to_vec(&start).map_err(|_| Errno::EINVAL)?;
    send(ours.as_raw_fd(), &bytes, &fds)?;
    drop(fds);
    if sys::fork()? == 0 {
        drop(theirs);
        let _own = setsid();
        relay(ours.as_fd(), std::io::stdin().as_fd());
        sys::exit_now(0);
    }
    Ok(theirs)
}

/// What the shim says goes to the supervisor and the other way round, until the shim says no more.
fn relay(shim: BorrowedFd<'_>, supervisor: BorrowedFd<'_>) {
    loop {
        let mut fds = [PollFd::new(shim, PollFlags::POLLIN), PollFd::new(supervisor, PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        for (from, to, ready) in [(shim, supervisor, fds[0].any()), (supervisor, shim, fds[1].any())] {
            if ready != Some(true) {
                continue;
            }
            match receive(from.as_raw_fd()) {
                Ok((bytes, rights)) if !bytes.is_empty() && send(to.as_raw_fd(), &bytes, &rights).is_ok() => {}
                _ => return,
            }
        }
    }
}

fn receive(socket: RawFd) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
    let mut buffer = vec![0; START_BYTES_MAX];
    let mut control = nix::cmsg_space!([RawFd; 32]);
    let mut fds = Vec::new();
    let length = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<UnixAddr>(socket, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = part {
                fds.extend(received.into_iter().map(|fd| sys::own(i64::from(fd))));
            }
        }
        message.bytes
    };
    buffer.truncate(length);
    Ok((buffer, fds))
}

fn send(socket: RawFd, bytes: &[u8], fds: &[OwnedFd]) -> Result<(), Errno> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<UnixAddr>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

fn apply(edit: &Edit, start: &mut Value) {
    match edit {
        Edit::Set { at, value } => match start.pointer_mut(at) {
            Some(place) => *place = value.clone(),
            None => add(start, at, value),
        },
        Edit::Without { at, value } => {
            if let Some(Value::Array(list)) = start.pointer_mut(at) {
                list.retain(|element| !is_meant(element, value));
            }
        }
        Edit::Merge { at, which, fields } => {
            let Some(Value::Array(list)) = start.pointer_mut(at) else { return };
            for element in list.iter_mut().filter(|element| is_meant(element, which)) {
                if let (Value::Object(have), Value::Object(new)) = (element, fields) {
                    have.extend(new.clone());
                }
            }
        }
        Edit::Exchange { path, by } => {
            let _moved = std::fs::rename(path, format!("{path}.away"));
            let _linked = std::os::unix::fs::symlink(by, path);
        }
    }
}

/// A field that the message does not have yet.
fn add(start: &mut Value, at: &str, value: &Value) {
    if let Some((parent, name)) = at.rsplit_once('/')
        && let Some(Value::Object(parent)) = start.pointer_mut(parent)
    {
        parent.insert(name.to_owned(), value.clone());
    }
}
