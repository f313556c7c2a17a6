//! One viewer: a task that sends what its position and its credit allow, and takes what the viewer says.
//!
//! Level-triggered: whenever anything changed it looks at what it could send next. It never waits for a socket that does not take
//! bytes without also reading from it, and holds no output of its own.

mod flow;
mod input;

use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::api::Visibility;
use agentapi_shared::frame::{FrameType, Header};
use agentapi_shared::link::CommandError;
use agentapi_shared::viewer::{Catchup, ClientMessage, ServerMessage, ViewerMode, WINDOW_BYTES, close};
use agentapi_shared::{SpawnNumber, ViewerId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::hub::{Seat, View};
use super::socket::ViewerSocket;
use crate::domain::policy::{self, Decision, Principal};
use crate::fleet::Drive;
use crate::leases::Lease;
use crate::plane::Plane;
use crate::sockets::{Lapse, LiveSocket};
use crate::store::Scope;
use crate::store::records::SessionRecord;
use flow::{Action, Around, Flow, Violation};

/// A viewer is pinged this often, so that a dead path is noticed although nothing is sent.
const PING_EVERY: Duration = Duration::from_secs(30);
/// A viewer of which nothing was heard this long is gone.
const DEAD_AFTER: Duration = Duration::from_secs(75);

/// Where a viewer wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the screen of now.
    Fresh,
    /// At an offset of a spawn.
    At(SpawnNumber, u64),
}

/// What was settled before the upgrade.
#[derive(Debug)]
pub struct Attach {
    /// What the viewer may do.
    pub mode: ViewerMode,
    /// What happens when it is too slow.
    pub catchup: Catchup,
    /// Where it begins.
    pub from: From,
    /// Who it is.
    pub principal: Principal,
    /// Its credential.
    pub socket: LiveSocket,
    /// Its place among the viewers of the organisation.
    pub lease: Lease,
}

/// What a viewer of a mode does.
#[must_use]
pub fn action_of(mode: ViewerMode) -> policy::Action {
    match mode {
        ViewerMode::Rw => policy::Action::TerminalType,
        ViewerMode::Ro => policy::Action::TerminalView,
    }
}

/// Why a viewer's connection ends.
#[derive(Debug)]
enum End {
    /// With a close code.
    Close(u16, &'static str),
    /// It is gone already.
    Gone,
}

impl std::convert::From<SocketError> for End {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Capacity(_) => Self::Close(close::MALFORMED, "message or frame too large"),
            SocketError::Protocol(_) | SocketError::Utf8(_) => Self::Close(close::MALFORMED, "not a WebSocket message"),
            _ => Self::Gone,
        }
    }
}

struct Viewer<S> {
    plane: Arc<Plane>,
    principal: Principal,
    id: ViewerId,
    seat: Seat,
    socket: ViewerSocket<S>,
    mode: ViewerMode,
    /// The visibility under which it was allowed to watch.
    allowed_at: Visibility,
    flow: Flow,
    told: Told,
    /// Output went last: acknowledgements of input are next, so that a flood does not hold them up.
    output_went: bool,
    resize_at: Option<Instant>,
    heard: Instant,
}

/// What the viewer was last told, so that it is told only what is new.
#[derive(Debug, Default, PartialEq)]
struct Told {
    state: Option<(SpawnNumber, agentapi_shared::SpawnState, bool)>,
    size_owner: Option<u64>,
}

/// Serves a viewer until it ends; says why it ended. `record` was read before the upgrade.
pub async fn run<S>(plane: Arc<Plane>, record: SessionRecord, attach: Attach, socket: ViewerSocket<S>) -> &'static str
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let seat = plane.hubs.join(&record, plane.reachable(&record));
    let flow = Flow::new(attach.catchup, attach.from, record.spawn());
    let mut viewer = Viewer {
        plane: plane.clone(),
        principal: attach.principal,
        id: attach.lease.id(),
        seat,
        socket,
        mode: attach.mode,
        allowed_at: record.visibility,
        flow,
        told: Told::default(),
        output_went: false,
        resize_at: None,
        heard: Instant::now(),
    };
    let shutdown = plane.tasks.cancelled();
    let end = tokio::select! {
        end = viewer.serve(&record) => end,
        lapse = attach.socket.lapsed() => End::Close(close::UNAUTHORIZED, words(lapse)),
        () = attach.lease.replaced() => End::Close(close::REPLACED, "another connection took its place"),
        () = shutdown.cancelled() => End::Close(close::GOING_AWAY, "the server ends"),
    };
    viewer.flow.leave();
    let End::Close(code, reason) = end else { return "gone" };
    let _in_time = tokio::time::timeout(Duration::from_secs(1), viewer.socket.close(code, reason)).await;
    reason
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Viewer<S> {
    async fn serve(&mut self, record: &SessionRecord) -> End {
        match self.serve_until_failure(record).await {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    async fn serve_until_failure(&mut self, record: &SessionRecord) -> Result<std::convert::Infallible, End> {
        let hello = ServerMessage::Hello {
            session: record.id,
            viewer: self.seat.viewer,
            mode: self.mode,
            catchup: self.flow.catchup(),
            window: WINDOW_BYTES,
            id: Some(self.id),
        };
        self.socket.say(&hello).await?;
        // What changed between the read and the seat is seen now; what changes from here on is told to the hub.
        self.refresh(record).await;
        let mut hub_changed = self.seat.hub.watch();
        let mut port_changed = self.seat.port.watch();
        let mut feed_changed = never_changes();
        let ping = tokio::time::sleep(PING_EVERY);
        tokio::pin!(ping);
        loop {
            self.pump(&mut feed_changed).await?;
            tokio::select! {
                // In the order in which a person waits for it: what was typed, then what is to be seen.
                biased;
                driven = self.socket.drive() => match driven {
                    Drive::Flushed => {}
                    Drive::Received(Some(message)) => self.receive(message?).await?,
                    Drive::Received(None) => return Err(End::Gone),
                },
                // An error would mean that the sender is gone; each is held by this viewer.
                _ = feed_changed.changed() => {}
                _ = port_changed.changed() => {}
                _ = hub_changed.changed() => {}
                () = due(self.resize_at) => self.apply_size(),
                () = due(self.flow.timer()) => self.flow.timer_fired(),
                () = &mut ping => {
                    if self.heard.elapsed() >= DEAD_AFTER {
                        return Err(End::Gone);
                    }
                    if self.socket.is_free() {
                        self.socket.ping().await?;
                    }
                    ping.as_mut().reset(Instant::now() + PING_EVERY);
                }
            }
        }
    }

    /// Reads the record again, now that every change reaches the hub.
    async fn refresh(&self, record: &SessionRecord) {
        match self.plane.store.session(Scope::System, record.id).await {
            Ok(newer) => self.seat.hub.update(&newer, self.plane.reachable(&newer)),
            Err(crate::store::StoreError::NotFound) => self.plane.hubs.session_purged(record.id),
            // The next change is told anyway.
            Err(_) => {}
        }
    }

    /// Sends what can be sent, until the socket is busy or there is nothing more.
    async fn pump(&mut self, feed_changed: &mut watch::Receiver<()>) -> Result<(), End> {
        while self.socket.is_free() {
            let view = self.seat.hub.view();
            if view.purged {
                return Err(End::Close(close::SESSION_GONE, "the session was purged"));
            }
            self.may_watch(&view)?;
            if let Some(message) = self.news(&view) {
                self.socket.say(&message).await?;
            } else {
                let link = view.record.host.and_then(|host| self.plane.fleet.link(host));
                match self.flow.step(Around { hub: &self.seat.hub, view: &view, link: link.as_ref() }) {
                    Action::Say(message) => self.socket.say(&message).await?,
                    Action::Frame(header, payload) => {
                        self.output_went = true;
                        self.socket.queue(header, payload);
                    }
                    Action::Again => continue,
                    Action::Wait if self.seat.port.has_done() => {
                        self.output_went = true;
                        continue;
                    }
                    Action::Wait => {
                        self.flow.watch_feed(feed_changed);
                        return Ok(());
                    }
                }
            }
            // Most of the time the kernel takes it at once.
            self.flush_now().await?;
        }
        Ok(())
    }

    /// Whoever made the session may show it to others no longer.
    fn may_watch(&mut self, view: &View) -> Result<(), End> {
        if view.record.visibility == self.allowed_at {
            return Ok(());
        }
        self.allowed_at = view.record.visibility;
        match policy::decide(self.principal.actor(), action_of(self.mode), Some((&*view.record).into())) {
            Decision::Allowed => Ok(()),
            _ => Err(End::Close(close::SESSION_GONE, "the session is shown to you no longer")),
        }
    }

    /// Gives the kernel what is queued, as far as it takes it now.
    async fn flush_now(&mut self) -> Result<(), End> {
        tokio::select! {
            biased;
            driven = self.socket.drive() => match driven {
                Drive::Flushed => Ok(()),
                Drive::Received(Some(message)) => self.receive(message?).await,
                Drive::Received(None) => Err(End::Gone),
            },
            () = std::future::ready(()) => Ok(()),
        }
    }

    /// A control message that is due before any more output. The echo of a keystroke goes before its acknowledgement: a person waits for it.
    fn news(&mut self, view: &View) -> Option<ServerMessage> {
        if self.output_went {
            match self.seat.port.next_done() {
                Some((seq, error)) => return Some(outcome(seq, error)),
                None => self.output_went = false,
            }
        }
        if self.told.size_owner != view.size_owner {
            self.told.size_owner = view.size_owner;
            return Some(ServerMessage::SizeOwner { viewer: view.size_owner });
        }
        let (spawn, state) = (view.record.spawn(), view.record.state());
        let now = Some((spawn, state, view.reachable));
        if self.told.state == now {
            return None;
        }
        self.told.state = now;
        Some(ServerMessage::State { spawn, state, reachable: view.reachable })
    }

    async fn receive(&mut self, message: Message) -> Result<(), End> {
        self.heard = Instant::now();
        match message {
            Message::Binary(frame) => {
                let Ok((header, payload)) = Header::parse(&frame) else {
                    return Err(End::Close(close::MALFORMED, "malformed binary frame"));
                };
                if header.frame_type != FrameType::Input {
                    return Err(End::Close(close::MALFORMED, "a viewer sends INPUT frames only"));
                }
                self.input(header, payload).await
            }
            Message::Text(text) => match serde_json::from_str::<ClientMessage>(&text) {
                Ok(message) => self.control(message),
                Err(_) if is_unknown_type(&text) => Ok(()),
                Err(_) => Err(End::Close(close::MALFORMED, "malformed control message")),
            },
            Message::Close(_) => Err(End::Gone),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    fn control(&mut self, message: ClientMessage) -> Result<(), End> {
        match message {
            ClientMessage::Ack { spawn, offset } => self
                .flow
                .ack(spawn, offset)
                .map_err(|Violation| End::Close(close::VIOLATION, "acknowledged what was never sent")),
            ClientMessage::Resize { size } => {
                self.want_size(size);
                Ok(())
            }
            ClientMessage::TakeSize => {
                if self.mode == ViewerMode::Rw {
                    self.take_size();
                }
                Ok(())
            }
        }
    }
}

fn words(lapse: Lapse) -> &'static str {
    match lapse {
        Lapse::Revoked => "the credential was revoked",
        Lapse::Expired => "the credential expired",
    }
}

fn outcome(seq: u64, error: Option<CommandError>) -> ServerMessage {
    match error {
        None => ServerMessage::InputAck { seq },
        Some(error) => ServerMessage::InputRefused { seq, code: error.code, detail: error.detail },
    }
}

fn is_unknown_type(text: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Tag {
        r#type: String,
    }
    serde_json::from_str::<Tag>(text).is_ok_and(|tag| !["ack", "resize", "take_size"].contains(&tag.r#type.as_str()))
}

/// Resolves at a time, or never.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A watch that never fires: its sender is leaked nowhere, it simply lives as long as the receiver is replaced.
fn never_changes() -> watch::Receiver<()> {
    static NEVER: std::sync::OnceLock<watch::Sender<()>> = std::sync::OnceLock::new();
    NEVER.get_or_init(|| watch::Sender::new(())).subscribe()
}
