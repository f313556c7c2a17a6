//! `up.sock`: how `agentapi status` and `agentapi down` talk to the `up` that runs.
//!
//! One line of JSON each way: a request, then answers until the last. The socket lies in the data dir, which only its owner may enter.
//! It is bound and opened through the directory's fd, because a socket's path may not be longer than 107 bytes and a data dir's may.

use std::fs::Permissions;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use agentapi_shared::runtime::{OnEnd, TaskGroup};
use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::codec::{Framed, LinesCodec};

use super::children::DaemonStatus;
use crate::datadir::DataDir;

/// A line is a status with two ready lines in it, or the words of a failure.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Connections at once; one more waits in the kernel's queue until one of them ends.
const CONNECTIONS_MAX: usize = 16;
/// A client that says nothing for this long is dropped.
const REQUEST_SECONDS_MAX: Duration = Duration::from_secs(5);
/// Wishes to end. Overflow: cannot happen, each connection sends one and waits; bounded all the same.
const WISHES_MAX: usize = CONNECTIONS_MAX;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// How are you?
    Status {},
    /// End.
    Down(Wish),
}

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// Leave the sessions running.
    pub(crate) keep_sessions: bool,
    /// Do not wait for the agents.
    pub(crate) force: bool,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// To `status`.
    Status(Box<UpStatus>),
    /// To `down`, for each step.
    Progress {
        /// For people.
        line: String,
    },
    /// To `down`, at the end.
    Ended {
        /// What could not be done.
        failed: Option<String>,
    },
}

/// How `up` is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct UpStatus {
    /// The process of `up`.
    pub(crate) pid: u32,
    /// Where the API is, once it is.
    pub(crate) url: Option<String>,
    /// The control plane.
    pub(crate) controlplane: DaemonStatus,
    /// The supervisor.
    pub(crate) supervisor: DaemonStatus,
}

/// The way to the end, as far as it has come. Everyone who waits for it sees every line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending {
    /// What was done, for people.
    pub(crate) lines: Vec<String>,
    /// It is over; with what could not be done.
    pub(crate) ended: Option<Option<String>>,
}

/// What connections see of `up`.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// How the control plane is doing.
    pub(crate) controlplane: watch::Receiver<DaemonStatus>,
    /// How the supervisor is doing.
    pub(crate) supervisor: watch::Receiver<DaemonStatus>,
    /// How far the end is.
    pub(crate) ending: watch::Receiver<Ending>,
}

impl View {
    fn status(&self) -> UpStatus {
        let controlplane = self.controlplane.borrow().clone();
        let url = controlplane.ready.as_ref().and_then(|said| said["ready"].as_str()).map(str::to_owned);
        UpStatus { pid: std::process::id(), url, controlplane, supervisor: self.supervisor.borrow().clone() }
    }
}

/// Listens on the socket; wishes to end come out of the channel.
pub(crate) fn serve(data: &DataDir, view: View, group: &TaskGroup) -> anyhow::Result<mpsc::Receiver<Wish>> {
    let (_dir, path) = socket_path(data)?;
    // Ours by the lock: what lies there is of a process that is gone.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("cannot remove the old up.sock");
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).context("cannot make up.sock")?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).context("cannot make up.sock private")?;
    let (wishes, received) = mpsc::channel(WISHES_MAX);
    let connections = group.clone();
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    group.spawn("control", OnEnd::Continue, async move {
        let stopped = connections.cancelled();
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let socket = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped.cancelled() => return,
            };
            // A failed accept is that of a client that has gone already.
            let Ok((socket, _)) = socket else { continue };
            let (view, wishes) = (view.clone(), wishes.clone());
            // Not cancelled with the rest: who asked for the end is told of it. A client that breaks off has nothing more to ask.
            connections.spawn("control connection", OnEnd::Continue, async move {
                let _broken = answer(socket, view, wishes).await;
                drop(slot);
            });
        }
    });
    Ok(received)
}

async fn answer(socket: UnixStream, mut view: View, wishes: mpsc::Sender<Wish>) -> anyhow::Result<()> {
    let mut lines = Framed::new(socket, LinesCodec::new_with_max_length(LINE_BYTES_MAX));
    let request = tokio::time::timeout(REQUEST_SECONDS_MAX, lines.next()).await?.context("no request")??;
    match serde_json::from_str(&request)? {
        Request::Status {} => {
            lines.send(serde_json::to_string(&Answer::Status(Box::new(view.status())))?).await?;
        }
        Request::Down(wish) => {
            wishes.send(wish).await?;
            let mut sent = 0;
            loop {
                let ending = view.ending.borrow_and_update().clone();
                for line in &ending.lines[sent..] {
                    lines.send(serde_json::to_string(&Answer::Progress { line: line.clone() })?).await?;
                }
                sent = ending.lines.len();
                if let Some(failed) = ending.ended {
                    lines.send(serde_json::to_string(&Answer::Ended { failed })?).await?;
                    break;
                }
                view.ending.changed().await?;
            }
        }
    }
    Ok(())
}

/// A connection to the `up` that runs.
#[derive(Debug)]
pub(crate) struct Connection {
    lines: Framed<UnixStream, LinesCodec>,
}

/// Asks the `up` that runs; none: there is none.
pub(crate) async fn ask(data: &DataDir, request: Request) -> anyhow::Result<Option<Connection>> {
    if !data.root().exists() {
        return Ok(None);
    }
    let (_dir, path) = socket_path(data)?;
    let socket = match UnixStream::connect(&path).await {
        Ok(socket) => socket,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error).context("cannot reach up.sock"),
    };
    let mut lines = Framed::new(socket, LinesCodec::new_with_max_length(LINE_BYTES_MAX));
    lines.send(serde_json::to_string(&request)?).await?;
    Ok(Some(Connection { lines }))
}

impl Connection {
    /// The next answer; none: the other side is gone.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Answer>> {
        match self.lines.next().await {
            Some(Ok(line)) => Ok(Some(serde_json::from_str(&line)?)),
            Some(Err(_)) | None => Ok(None),
        }
    }
}

/// The directory's fd, to be kept while the path is used, and a short path to the socket.
fn socket_path(data: &DataDir) -> anyhow::Result<(OwnedFd, PathBuf)> {
    let dir = open(data.root(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open {}", data.root().display()))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/up.sock", dir.as_raw_fd()));
    Ok((dir, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep_data_dir() -> DataDir {
        let name = format!("agentapi-{}-{}", uuid::Uuid::now_v7(), "long".repeat(30));
        let data = DataDir::new(std::env::temp_dir().join(name));
        data.create().unwrap();
        data
    }

    #[tokio::test]
    async fn a_long_path_works_and_down_sees_every_line() {
        let data = deep_data_dir();
        let group = TaskGroup::new();
        let ready = serde_json::json!({"ready": "http://127.0.0.1:1"});
        let (_plane, controlplane) = watch::channel(DaemonStatus { ready: Some(ready), ..DaemonStatus::default() });
        let (_supervisor, supervisor) = watch::channel(DaemonStatus::default());
        let (ending, watched) = watch::channel(Ending::default());
        let mut wishes = serve(&data, View { controlplane, supervisor, ending: watched }, &group).unwrap();

        let mut asked = ask(&data, Request::Status {}).await.unwrap().unwrap();
        let Some(Answer::Status(status)) = asked.next().await.unwrap() else { panic!("no status") };
        assert_eq!((status.pid, status.url.as_deref()), (std::process::id(), Some("http://127.0.0.1:1")));

        let wish = Wish { keep_sessions: true, force: false };
        let mut down = ask(&data, Request::Down(wish)).await.unwrap().unwrap();
        assert_eq!(wishes.recv().await, Some(wish));
        ending.send_modify(|ending| ending.lines.push("one".into()));
        ending.send_modify(|ending| ending.lines.push("two".into()));
        for word in ["one", "two"] {
            assert_eq!(down.next().await.unwrap(), Some(Answer::Progress { line: word.into() }));
        }
        ending.send_modify(|ending| ending.ended = Some(None));
        assert_eq!(down.next().await.unwrap(), Some(Answer::Ended { failed: None }));
        group.shutdown();
        std::fs::remove_dir_all(data.root()).unwrap();
    }

    #[tokio::test]
    async fn nobody_there_is_an_answer() {
        let data = deep_data_dir();
        assert!(ask(&data, Request::Status {}).await.unwrap().is_none());
        std::fs::remove_dir_all(data.root()).unwrap();
    }
}
