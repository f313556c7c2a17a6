//! Serving one link: the socket task, which never waits for the store, and the ledger task, which stores what the host says in order.

use std::sync::{Arc, Weak};
use std::time::Duration;

use agentapi_shared::HostId;
use agentapi_shared::frame::{FrameError, FrameType, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX};
use agentapi_shared::link::{DEAD_SECONDS, HostHello, HostMessage, PROTOCOL, PlaneMessage, TEXT_BYTES_MAX};
use agentapi_shared::runtime::OnEnd;
use agentapi_shared::viewer::close;
use bytes::Bytes;
use serde_json::json;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::outlet::{LinkStream, SocketOutlet};
use super::{Drive, Link, drive, reconcile};
use crate::clock;
use crate::domain::audit;
use crate::plane::Plane;
use crate::store::StoreError;

/// Reports and outbox items that wait for the store. Overflow: the link is closed; the host sends them again when it comes back.
const LEDGER_MAX: usize = 16 * 1024;

/// And their text. Overflow: the same. Hosts may be a tenant's, and a store that is away must not fill the memory of everybody.
const LEDGER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Read from the socket at once.
const READ_BYTES: usize = 32 * 1024;

/// The WebSocket library's own buffer. It clears the whole of it before every read, so a large one would cost an echo more than all else.
const BUFFER_BYTES: usize = 4 * 1024;

/// A frame below this size is no flood.
const LITTLE_BYTES: usize = 512;

type LinkSocket = WebSocketStream<BufReader<LinkStream>>;

fn socket_config() -> WebSocketConfig {
    let largest = TEXT_BYTES_MAX.max(HEADER_BYTES + PAYLOAD_BYTES_MAX);
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * TEXT_BYTES_MAX)
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest))
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error("the host closed it")]
    Closed,
    #[error("nothing was heard for {DEAD_SECONDS} s")]
    Dead,
    #[error("it was closed here: replaced, overflowed or shut down")]
    ClosedHere,
    #[error("the first message was not a hello")]
    NoHello,
    #[error("the host speaks protocol {0}, this program {PROTOCOL}")]
    Protocol(u32),
    #[error("a message could not be read")]
    Malformed(#[source] serde_json::Error),
    #[error("a frame could not be read")]
    Frame(#[source] FrameError),
    #[error("the socket failed")]
    Socket(#[source] SocketError),
    #[error("the store did not answer")]
    Store(#[source] StoreError),
}

impl LinkEnd {
    fn close_frame(&self) -> CloseFrame {
        let code = match self {
            Self::NoHello | Self::Protocol(_) | Self::Malformed(_) | Self::Frame(_) | Self::Socket(_) => {
                CloseCode::from(close::MALFORMED)
            }
            _ => CloseCode::Away,
        };
        CloseFrame { code, reason: self.to_string().into() }
    }
}

/// Serves the link of `host` until it ends.
pub async fn serve(plane: Arc<Plane>, host: HostId, tcp: TcpStream, read: Vec<u8>) {
    let stream = LinkStream::new(tcp);
    let outlet = stream.outlet();
    let stream = BufReader::with_capacity(READ_BYTES, stream);
    let mut socket = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(socket_config())).await;
    let end = match greet(&plane, host, &outlet, &mut socket).await {
        Ok((link, hello)) => {
            let end = connected(&plane, &link, &outlet, hello, &mut socket).await;
            link.abandon();
            if plane.fleet.disconnect(&link) {
                reconcile::host_went(&plane, host).await;
            }
            end
        }
        Err(end) => end,
    };
    info!(host.id = %host, reason = &end as &dyn std::error::Error, "link closed");
    // The other side may be gone: saying goodbye is a courtesy with a limit.
    let goodbye = async {
        // It may fail on a dead socket; nothing follows from it.
        let _sent = socket.close(Some(end.close_frame())).await;
    };
    let _in_time = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
}

/// Reads the hello and answers it.
async fn greet(
    plane: &Arc<Plane>,
    host: HostId,
    outlet: &Arc<SocketOutlet>,
    socket: &mut LinkSocket,
) -> Result<(Arc<Link>, HostHello), LinkEnd> {
    let deadline = Instant::now() + Duration::from_secs(DEAD_SECONDS);
    let mut unflushed = false;
    let text = loop {
        let received = tokio::time::timeout_at(deadline, drive(socket, &mut unflushed)).await;
        match received.map_err(|_| LinkEnd::Dead)? {
            Drive::Received(Some(Ok(Message::Text(text)))) => break text,
            Drive::Flushed | Drive::Received(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Drive::Received(Some(Ok(_))) => return Err(LinkEnd::NoHello),
            Drive::Received(Some(Err(error))) => return Err(LinkEnd::Socket(error)),
            Drive::Received(None) => return Err(LinkEnd::Closed),
        }
    };
    let HostMessage::Hello(hello) = serde_json::from_str(&text).map_err(LinkEnd::Malformed)? else {
        return Err(LinkEnd::NoHello);
    };
    // One release either way is spoken; there has been one so far.
    if hello.protocol != PROTOCOL {
        return Err(LinkEnd::Protocol(hello.protocol));
    }
    let mut record = plane.store.host(host).await.map_err(LinkEnd::Store)?;
    record.version = Some(hello.version.clone());
    record.facts = Some(hello.facts.clone());
    record.last_seen_at = Some(clock::now());
    let entry = audit::of_host(host, "host.connected", None, json!({ "version": hello.version }));
    let org = record.org;
    let running = u64::from(record.sessions_running);
    plane.store.host_connected(record, entry).await.map_err(LinkEnd::Store)?;
    let out: Weak<SocketOutlet> = Arc::downgrade(outlet);
    let link = Link::new(host, org, hello.facts.boot_id.clone(), running, out);
    link.send(PlaneMessage::Welcome { host });
    info!(host.id = %host, version = %hello.version, spawns = hello.inventory.len(), "link opened");
    Ok((link, *hello))
}

/// Starts the ledger and moves messages until the link ends.
async fn connected(
    plane: &Arc<Plane>,
    link: &Arc<Link>,
    outlet: &SocketOutlet,
    hello: HostHello,
    socket: &mut LinkSocket,
) -> LinkEnd {
    let (queue, entries) = mpsc::channel(LEDGER_MAX);
    let ledger = Ledger { queue, room: Arc::new(Semaphore::new(LEDGER_BYTES_MAX)) };
    let work = reconcile::keep_ledger(plane.clone(), link.clone(), hello.inventory, entries);
    plane.tasks.spawn("link ledger", OnEnd::Continue, work);
    let shutdown = plane.tasks.cancelled();
    match pump(link, outlet, &ledger, socket, &shutdown).await {
        Ok(()) => LinkEnd::Closed,
        Err(end) => end,
    }
}

async fn pump(
    link: &Arc<Link>,
    outlet: &SocketOutlet,
    ledger: &Ledger,
    socket: &mut LinkSocket,
    shutdown: &CancellationToken,
) -> Result<(), LinkEnd> {
    let dead_after = Duration::from_secs(DEAD_SECONDS);
    let closed = link.closed();
    let mut unflushed = false;
    let mut heard = Instant::now();
    let dead = tokio::time::sleep_until(heard + dead_after);
    let (closed, shut_down, drained) = (closed.cancelled(), shutdown.cancelled(), outlet.drain());
    tokio::pin!(dead, closed, shut_down, drained);
    loop {
        tokio::select! {
            driven = drive(socket, &mut unflushed) => match driven {
                Drive::Flushed => {}
                Drive::Received(Some(Ok(message))) => {
                    heard = Instant::now();
                    match receive(link, ledger, message)? {
                        Received::Done => {}
                        // Most likely an echo: its viewers' turn is now, before whatever else the host has said.
                        Received::LittleOutput => tokio::task::yield_now().await,
                        Received::Goodbye => return Ok(()),
                    }
                }
                Drive::Received(Some(Err(error))) => return Err(LinkEnd::Socket(error)),
                Drive::Received(None) => return Ok(()),
            },
            error = &mut drained => return Err(LinkEnd::Socket(error.into())),
            () = &mut dead => {
                if heard.elapsed() >= dead_after {
                    return Err(LinkEnd::Dead);
                }
                dead.as_mut().reset(heard + dead_after);
            }
            () = &mut closed => return Err(LinkEnd::ClosedHere),
            () = &mut shut_down => return Err(LinkEnd::ClosedHere),
        }
    }
}

/// What waits for the store, each with the room that it takes.
struct Ledger {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// A message of a host, and the room that it takes until it is stored.
pub(super) type Waiting = (HostMessage, OwnedSemaphorePermit);

impl Ledger {
    /// Has a message stored; false if there is no room.
    fn put(&self, message: HostMessage, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(room) = self.room.clone().try_acquire_many_owned(bytes) else { return false };
        self.queue.try_send((message, room)).is_ok()
    }
}

/// What a message was.
enum Received {
    Done,
    /// So little that a person may wait for it.
    LittleOutput,
    /// The last one.
    Goodbye,
}

/// Takes one message.
fn receive(link: &Link, ledger: &Ledger, message: Message) -> Result<Received, LinkEnd> {
    match message {
        Message::Binary(frame) => {
            binary(link, &frame)?;
            return Ok(if frame.len() < LITTLE_BYTES { Received::LittleOutput } else { Received::Done });
        }
        Message::Text(text) => {
            let message = match serde_json::from_str::<HostMessage>(&text) {
                Ok(message) => message,
                // A newer host may say things that are not known here.
                Err(error) if is_unknown_type(&text) => {
                    debug!(%error, "unknown message ignored");
                    return Ok(Received::Done);
                }
                Err(error) => return Err(LinkEnd::Malformed(error)),
            };
            if let Some(kept) = link.route(message)
                && !ledger.put(kept, text.len())
            {
                warn!(host.id = %link.host(), "ledger overflowed or ended");
                link.close();
            }
        }
        Message::Close(_) => return Ok(Received::Goodbye),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
    }
    Ok(Received::Done)
}

fn is_unknown_type(text: &str) -> bool {
    const KNOWN: [&str; 10] = [
        "hello",
        "report",
        "outbox",
        "reply",
        "watched",
        "watch_failed",
        "resized",
        "stream_ended",
        "facts",
        "input_done",
    ];
    #[derive(serde::Deserialize)]
    struct Tag {
        r#type: String,
    }
    serde_json::from_str::<Tag>(text).is_ok_and(|tag| !KNOWN.contains(&tag.r#type.as_str()))
}

/// The hot path: from the socket into the ring.
fn binary(link: &Link, frame: &Bytes) -> Result<(), LinkEnd> {
    let (header, _) = Header::parse(frame).map_err(LinkEnd::Frame)?;
    // A stream that was just closed may still have frames under way.
    let Some(feed) = link.feed(header.stream) else { return Ok(()) };
    let payload = frame.slice(HEADER_BYTES..);
    match header.frame_type {
        FrameType::Output => feed.output(header.position, payload),
        FrameType::Keyframe => feed.keyframe(header.position, payload),
        FrameType::Rows | FrameType::Input => {}
    }
    Ok(())
}
