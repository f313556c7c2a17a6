//! A control plane that speaks the real link protocol and does only what a test tells it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use agentapi_shared::frame::{FrameType, Header};
use agentapi_shared::link::{
    Command, CommandError, CommandResult, HostHello, HostMessage, OutboxItem, Outcome, PlaneMessage, SUBPROTOCOL,
    SpawnReport, StartSpawn,
};
use agentapi_shared::{HostId, SessionId, SpawnState};
use anyhow::{Context, Result, bail};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::wait::soon;

/// The token of the host under test.
const TOKEN: &str = "aah_test";
/// Received and not yet asked for. Overflow: the socket is not read, and the host waits, as it does for a slow control plane.
const RECEIVED_MAX: usize = 4096;

/// Where a supervisor connects to.
#[derive(Debug)]
pub struct Plane {
    listener: TcpListener,
}

/// One linked host.
#[derive(Debug)]
pub struct Link {
    socket: SplitSink<WebSocketStream<TcpStream>, Message>,
    received: mpsc::Receiver<Result<Received>>,
    /// Reads whatever the test does meanwhile: a host that hears nothing for a while takes its link for dead. Ends with the link.
    _reader: JoinSet<()>,
    /// What the host said first.
    pub hello: HostHello,
    next_id: u64,
    /// Received, but not what was waited for.
    backlog: VecDeque<Received>,
}

/// Something the host sent.
#[derive(Debug, Clone)]
pub enum Received {
    /// A text frame.
    Message(HostMessage),
    /// A binary frame.
    Frame(Header, Vec<u8>),
}

impl Plane {
    /// Listens on a free port of loopback and writes the credential file for it.
    pub async fn listen(dir: &Path) -> Result<(Self, PathBuf)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("ws://{}/api/v1/link", listener.local_addr()?);
        // In a directory of its own: what lies beside a credential is given to no session.
        let keys = dir.join("keys");
        std::fs::create_dir_all(&keys)?;
        let path = keys.join("host-credential.json");
        std::fs::write(&path, serde_json::json!({ "url": url, "token": TOKEN }).to_string())?;
        Ok((Self { listener }, path))
    }

    /// The next link, after its hello.
    pub async fn accept(&self) -> Result<Link> {
        let (stream, _) = soon("a link", self.listener.accept()).await?;
        stream.set_nodelay(true)?;
        #[expect(clippy::result_large_err, reason = "the callback's type is not ours")]
        let check = |request: &Request, mut response: Response| {
            let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
            assert_eq!(header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
            assert_eq!(header("sec-websocket-protocol"), Some(SUBPROTOCOL));
            response.headers_mut().insert("sec-websocket-protocol", http::HeaderValue::from_static(SUBPROTOCOL));
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, check).await?;
        let hello = match soon("the hello", socket.next()).await.context("link closed")?? {
            Message::Text(text) => match serde_json::from_str(&text)? {
                HostMessage::Hello(hello) => *hello,
                other => bail!("instead of a hello: {other:?}"),
            },
            other => bail!("instead of a hello: {other:?}"),
        };
        let (socket, incoming) = socket.split();
        let (sender, received) = mpsc::channel(RECEIVED_MAX);
        let mut reader = JoinSet::new();
        reader.spawn(read(incoming, sender));
        let mut link = Link { socket, received, _reader: reader, hello, next_id: 1, backlog: VecDeque::new() };
        link.send(&PlaneMessage::Welcome { host: HostId::generate() }).await?;
        Ok(link)
    }
}

impl Link {
    /// Sends a message.
    pub async fn send(&mut self, message: &PlaneMessage) -> Result<()> {
        Ok(self.socket.send(Message::text(serde_json::to_string(message)?)).await?)
    }

    /// Cuts the connection, as a network does.
    pub async fn close(&mut self) {
        // One that is gone already is what was wanted.
        let _gone = self.socket.close().await;
    }

    /// Types on a stream.
    pub async fn input(&mut self, stream: u32, seq: u64, bytes: &[u8]) -> Result<()> {
        let frame = Header::new(FrameType::Input, stream, seq).with_payload(bytes);
        Ok(self.socket.send(Message::Binary(frame.into())).await?)
    }

    async fn receive(&mut self) -> Result<Received> {
        soon("a message of the host", self.received.recv()).await.context("link closed")?
    }

    /// The first thing received, now or later, from which `pick` makes something; the rest stays for others.
    pub async fn wait_for<T>(&mut self, mut pick: impl FnMut(&Received) -> Option<T>) -> Result<T> {
        for (index, received) in self.backlog.iter().enumerate() {
            if let Some(found) = pick(received) {
                self.backlog.remove(index);
                return Ok(found);
            }
        }
        let wait = async {
            loop {
                let received = self.receive().await?;
                if let Some(found) = pick(&received) {
                    return Ok(found);
                }
                self.backlog.push_back(received);
            }
        };
        soon("something that the test waits for", wait).await
    }

    /// Has the host do something and waits for its answer.
    pub async fn command(
        &mut self,
        session: SessionId,
        command: Command,
    ) -> Result<Result<CommandResult, CommandError>> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&PlaneMessage::Command { id, session, command: Box::new(command) }).await?;
        self.wait_for(|received| match received {
            Received::Message(HostMessage::Reply { id: of, outcome }) if *of == id => Some(match outcome {
                Outcome::Done(result) => Ok(result.clone()),
                Outcome::Error(error) => Err(error.clone()),
            }),
            _ => None,
        })
        .await
    }

    /// Starts spawn 1 of a new session and waits until it runs.
    pub async fn start(&mut self, command: &[&str]) -> Result<SessionId> {
        let session = SessionId::generate();
        let accepted = self.command(session, Command::Start(custom(command))).await?;
        if let Err(error) = accepted {
            bail!("start refused: {error}");
        }
        self.report(session, SpawnState::Running).await?;
        Ok(session)
    }

    /// The report that a session's spawn has come to that state, by whatever way.
    pub async fn report(&mut self, session: SessionId, state: SpawnState) -> Result<SpawnReport> {
        self.wait_for(|received| {
            let report = match received {
                Received::Message(HostMessage::Report(report)) => report,
                Received::Message(HostMessage::Outbox { item: OutboxItem::Ended(report), .. }) => report,
                _ => return None,
            };
            (report.session == session && (report.state == state || report.state.is_ended())).then(|| report.clone())
        })
        .await
    }

    /// Collects the output of a stream until `done`.
    pub async fn output(&mut self, stream: u32, mut done: impl FnMut(&[u8]) -> bool) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while !done(&all) {
            let bytes = self
                .wait_for(|received| match received {
                    Received::Frame(header, bytes)
                        if header.stream == stream && header.frame_type == FrameType::Output =>
                    {
                        Some(bytes.clone())
                    }
                    _ => None,
                })
                .await?;
            all.extend(bytes);
        }
        Ok(all)
    }
}

/// Passes on what comes, up to the first that is no message, such as the end of the link.
async fn read(mut incoming: SplitStream<WebSocketStream<TcpStream>>, sender: mpsc::Sender<Result<Received>>) {
    while let Some(message) = incoming.next().await {
        let received = match message {
            Ok(Message::Text(text)) => serde_json::from_str(&text).map(Received::Message).map_err(Into::into),
            Ok(Message::Binary(frame)) => Header::parse(&frame)
                .map(|(header, payload)| Received::Frame(header, payload.to_vec()))
                .map_err(Into::into),
            Ok(Message::Close(_)) => return,
            // Pings are answered by reading on.
            Ok(_) => continue,
            Err(error) => Err(error.into()),
        };
        let is_end = received.is_err();
        if sender.send(received).await.is_err() || is_end {
            return;
        }
    }
}

/// Spawn 1 of a command, with everything else as it comes.
#[must_use]
pub fn custom(command: &[&str]) -> StartSpawn {
    StartSpawn {
        policy: agentapi_shared::api::SandboxPolicy::default(),
        spawn: 1,
        generation: 1,
        agent: agentapi_shared::api::CUSTOM_AGENT.to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        args: Vec::new(),
        env: None,
        size: agentapi_shared::WindowSize::DEFAULT,
        workspace: agentapi_shared::api::Workspace::default(),
        sandbox: agentapi_shared::api::SandboxRequest::default(),
    }
}
