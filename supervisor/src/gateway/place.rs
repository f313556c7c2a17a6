//! Where gateways are on this host: the directory with their sockets, and how one is started.
//!
//! ```text
//! STATE/gateway/N.sock   one per gateway, the highest number is the newest
//!               log      what all of them say
//! ```

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::SessionId;
use agentapi_shared::egress::{GatewayEvent, GatewayRequest, PROTOCOL};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::socket::Socket;
use crate::files;
use crate::versions::Stamp;

/// A gateway reads the host's certificate authorities and is there; that takes some 50 ms.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// It answers at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Attempts to connect to one that is there and does not answer, and the pause between them: one that ends is gone by then.
const ATTEMPTS_MAX: usize = 4;
/// See [`ATTEMPTS_MAX`].
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);
/// The line that says that it is ready.
const READY_BYTES_MAX: u64 = 256;
/// Of the supervisor's environment, what says whom this host trusts. All else stays here: it may hold credentials.
const ENVIRONMENT: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Why a gateway could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Its directory or log.
    #[error("cannot prepare the gateway's {what}")]
    Prepare { what: &'static str, source: io::Error },
    /// The program.
    #[error("cannot run {program}: is agentapi-egress installed beside agentapi-supervisor?")]
    Run { program: String, source: io::Error },
    /// It ended, or said nothing.
    #[error("the gateway did not start (see gateway/log in the state directory)")]
    NotReady(#[source] io::Error),
    /// It does not take us.
    #[error("cannot connect to the gateway")]
    Connect(#[source] io::Error),
}

/// Takes the child for reaping.
pub(crate) type Keep = Arc<dyn Fn(Child) + Send + Sync>;

/// See the module.
#[derive(Clone)]
pub(crate) struct Place {
    /// `STATE/gateway`.
    pub(crate) dir: PathBuf,
    /// The program.
    pub(crate) program: PathBuf,
    /// Addresses inside that names may lead to.
    pub(crate) allow_addresses: Vec<String>,
    /// See [`Keep`].
    pub(crate) keep: Keep,
}

/// What a gateway said of itself.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) running: Running,
    /// Whether it is what would be started now: this program, and with this configuration.
    pub(super) fit: Fit,
    /// What it serves.
    pub(super) sessions: Vec<(SessionId, u32)>,
}

/// See [`Found::fit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It can go on.
    Ours,
    /// It is to be replaced.
    Another,
}

/// A gateway that runs, by the number of its socket.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) number: u64,
    pub(super) socket: Socket,
}

impl Place {
    /// Connects to a gateway to which there is no connection; none if it has ended, whose socket is removed then. A connection replaces the one
    /// before it, so this is nothing to find out with whether one lives.
    pub(super) async fn connect(&self, number: u64) -> io::Result<Option<Found>> {
        let mut attempts = 0;
        loop {
            let greeted = match Socket::connect(&self.dir, &name(number)) {
                Ok(socket) => greet(&socket).await.map(|hello| self.found(Running { number, socket }, hello)),
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                    self.remove(number);
                    return Ok(None);
                }
                Err(error) => Err(error),
            };
            attempts += 1;
            match greeted {
                Ok(found) => return Ok(Some(found)),
                // One that is just ending takes a connection and drops it.
                Err(error) if attempts < ATTEMPTS_MAX && error.kind() != io::ErrorKind::TimedOut => {
                    sleep(ATTEMPT_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn found(&self, running: Running, hello: Greeting) -> Found {
        let Greeting { version, configuration, sessions } = hello;
        let ours = version == env!("CARGO_PKG_VERSION") && configuration == self.configuration();
        info!(number = running.number, version, sessions = sessions.len(), ours, "an egress gateway runs already");
        Found { running, fit: if ours { Fit::Ours } else { Fit::Another }, sessions }
    }

    /// What a gateway is started with, as a text that another one can be compared by.
    fn configuration(&self) -> String {
        let trust = ENVIRONMENT.map(|name| std::env::var_os(name).unwrap_or_default());
        // A program that was built anew may say the same version.
        let program = Stamp::of(&self.program).ok();
        format!("{:?} {trust:?} {program:?}", self.allow_addresses)
    }

    /// Removes the socket of a gateway that has ended.
    pub(super) fn remove(&self, number: u64) {
        match fs::remove_file(self.dir.join(name(number))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(number, %error, "the socket of an ended gateway could not be removed");
            }
            _ => {}
        }
    }

    /// Every gateway that was started and whose socket is still there, oldest first.
    pub(super) fn numbers(&self) -> Vec<u64> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".sock")?.parse().ok();
        let mut numbers: Vec<u64> = entries.filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Starts one and connects to it. One that is not ready in time is ended.
    pub(super) async fn start(&self) -> Result<Running, StartError> {
        let prepare = |what| move |source| StartError::Prepare { what, source };
        files::private_dir(&self.dir).map_err(prepare("directory"))?;
        let number = self.numbers().last().map_or(1, |newest| newest + 1);
        let place = self.clone();
        let launched = tokio::task::spawn_blocking(move || place.launch(number)).await;
        let mut child = launched.map_err(|error| StartError::NotReady(io::Error::other(error)))??;
        let started = match timeout(START_TIMEOUT, ready(child.stdout.take())).await {
            Ok(Ok(())) => self.greeted(number).await,
            Ok(Err(error)) => Err(StartError::NotReady(error)),
            Err(_) => Err(StartError::NotReady(io::ErrorKind::TimedOut.into())),
        };
        if started.is_err() {
            // It may have ended by itself.
            let _ended = child.kill();
            self.remove(number);
        }
        (self.keep)(child);
        started
    }

    async fn greeted(&self, number: u64) -> Result<Running, StartError> {
        let socket = Socket::connect(&self.dir, &name(number)).map_err(StartError::Connect)?;
        greet(&socket).await.map_err(StartError::Connect)?;
        Ok(Running { number, socket })
    }

    /// Runs the program. Blocks.
    fn launch(&self, number: u64) -> Result<Child, StartError> {
        let log = File::options().create(true).append(true).mode(0o600).open(self.dir.join("log"));
        let log = log.map_err(|source| StartError::Prepare { what: "log", source })?;
        let mut command = Command::new(&self.program);
        command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.envs(ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.arg("--socket").arg(self.dir.join(name(number))).arg("--configuration").arg(self.configuration());
        for address in &self.allow_addresses {
            command.arg("--allow-address").arg(address);
        }
        command.spawn().map_err(|source| StartError::Run { program: self.program.display().to_string(), source })
    }
}

/// Waits for the word of a gateway that was started.
async fn ready(stdout: Option<ChildStdout>) -> io::Result<()> {
    let stdout = stdout.ok_or(io::ErrorKind::UnexpectedEof)?;
    let stdout = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
    let mut line = String::new();
    match BufReader::new(stdout.take(READY_BYTES_MAX)).read_line(&mut line).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn name(number: u64) -> String {
    format!("{number}.sock")
}

struct Greeting {
    version: String,
    configuration: String,
    sessions: Vec<(SessionId, u32)>,
}

async fn greet(socket: &Socket) -> io::Result<Greeting> {
    socket.send(&GatewayRequest::Hello { protocol: PROTOCOL }, &[]).await?;
    let hello = timeout(HELLO_TIMEOUT, socket.receive()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    match hello {
        GatewayEvent::Hello { version, configuration, sessions, .. } => {
            Ok(Greeting { version, configuration, sessions })
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
