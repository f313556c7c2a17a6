//! The bare relay: three processes with the product's hops and crates that pass bytes on and do nothing else. No frames, no screen, no journal,
//! no store, no flow control but the sockets' own, one terminal, one viewer. What the product adds to it is the product's price.
//! For the gateway there are two of its own, of one process each.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use agentapi_tests::dir::TempDir;
use agentapi_tests::process::Daemon;
use agentapi_tests::wait::soon;
use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

mod relays;
mod roles;

/// How its daemons run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Threads {
    /// One thread each: no wake-up crosses threads.
    One,
    /// What `#[tokio::main]` gives.
    Default,
}

/// A running bare relay with its one viewer.
#[derive(Debug)]
pub(crate) struct BareRelay {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// In the order in which they end when dropped.
    _processes: [Daemon; 3],
    _dir: TempDir,
}

impl BareRelay {
    pub(crate) async fn start(threads: Threads, command: &[&str], cwd: &Path) -> Result<Self> {
        let dir = TempDir::new();
        let log = dir.path().join("log");
        let threads = match threads {
            Threads::One => "one",
            Threads::Default => "default",
        };
        let role = |name: &str| -> Result<Command> {
            let mut process = Command::new(std::env::current_exe()?);
            process.arg(format!("bare-{name}")).arg(threads).current_dir(cwd);
            Ok(process)
        };
        let mut process = role("shim")?;
        process.arg(dir.path().join("shim.sock")).args(command);
        let mut shim = Daemon::start(process, &log)?;
        shim.line().await?;
        let mut plane = Daemon::start(role("plane")?, &log)?;
        let ports = plane.line().await?;
        let (for_host, for_viewer) = ports.split_once(' ').context("two addresses")?;
        let mut process = role("supervisor")?;
        process.arg(dir.path().join("shim.sock")).arg(for_host);
        let mut supervisor = Daemon::start(process, &log)?;
        supervisor.line().await?;
        let (socket, _) = connect_async_with_config(format!("ws://{for_viewer}/"), None, true).await?;
        Ok(Self { socket, _processes: [supervisor, plane, shim], _dir: dir })
    }

    pub(crate) async fn input(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.socket.send(Message::binary(bytes.to_vec())).await?)
    }

    /// The next output.
    pub(crate) async fn output(&mut self) -> Result<bytes::Bytes> {
        // With the same deadline around it as the product's viewer has here.
        match soon("output of the bare relay", self.socket.next()).await.context("the bare relay ended")?? {
            Message::Binary(bytes) => Ok(bytes),
            other => bail!("unexpected {other:?}"),
        }
    }

    pub(crate) async fn read_until(&mut self, needle: &[u8]) -> Result<()> {
        let mut seen = Vec::new();
        while !seen.windows(needle.len()).any(|window| window == needle) {
            seen.extend_from_slice(&self.output().await?);
        }
        Ok(())
    }
}

/// One of the relays beside the gateway, and its address.
pub(crate) async fn relay(role: &str, words: &[&str], log: &Path) -> Result<(Daemon, SocketAddr)> {
    let mut process = Command::new(std::env::current_exe()?);
    process.arg(role).arg("default").args(words);
    let mut relay = Daemon::start(process, log)?;
    let address = relay.line().await?.parse()?;
    Ok((relay, address))
}

/// Plays one of its processes.
pub(crate) fn play(role: &str, words: &[String]) -> Result<()> {
    let (threads, rest) = words.split_first().context("how many threads")?;
    let mut builder = match threads.as_str() {
        "one" => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    match (role, rest) {
        ("bare-shim", [socket, command @ ..]) => roles::shim(Path::new(socket), command),
        ("bare-tunnel", [target]) => builder.enable_all().build()?.block_on(relays::tunnel(target)),
        ("bare-model", [target, name, authority]) => {
            builder.enable_all().build()?.block_on(relays::model(target, name, Path::new(authority)))
        }
        ("bare-plane", []) => builder.enable_all().build()?.block_on(roles::plane()),
        ("bare-supervisor", [socket, plane]) => {
            builder.enable_all().build()?.block_on(roles::supervisor(Path::new(socket), plane))
        }
        _ => bail!("{role} {rest:?}"),
    }
}
