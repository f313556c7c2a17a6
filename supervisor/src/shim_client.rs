//! The connection to one shim. Frames of streams pass through it untouched, in both directions and without a task in between.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agentapi_shared::frame::Header;
use agentapi_shared::link::{CommandError, HostMessage};
use agentapi_shared::runtime::{OnEnd, TaskGroup};
use agentapi_shared::shim::{
    PACKET_FRAME, PACKET_HEADER_BYTES, PACKET_JSON, PROTOCOL, SOCKET, ShimEvent, ShimOutcome, ShimRequest,
    packet_header, parse_packet_header,
};
use agentapi_shared::{SessionId, WindowSize};
use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::oneshot;
use tracing::warn;

use crate::files::SpawnFiles;
use crate::shim_socket::{self, ShimReader, ShimWriter};
use crate::streams::StreamTable;
use crate::uplink::LinkSender;

/// A shim answers at once; one that does not is broken.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A screen with 10,000 rows takes milliseconds, input that a program does not read may wait this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Read at once.
const READ_BYTES: usize = 128 * 1024;

/// Where bytes of shims are read to, before each gets memory for just what it has: one buffer for all, so that an idle shim costs none.
#[derive(Debug, Clone)]
pub(crate) struct ReadBuffer(Arc<Mutex<Vec<u8>>>);

impl Default for ReadBuffer {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(vec![0; READ_BYTES])))
    }
}

/// Requests to a shim.
#[derive(Debug)]
pub(crate) struct ShimClient {
    writer: tokio::sync::Mutex<ShimWriter>,
    pending: Mutex<HashMap<u64, oneshot::Sender<ShimOutcome>>>,
    next_id: AtomicU64,
}

/// How a connection ended, told to its session.
#[derive(Debug)]
pub(crate) enum ShimEnd {
    /// The program ended; the records are written.
    Exited,
    /// The connection broke.
    Gone,
}

/// What a shim said of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShimHello {
    pub(crate) size: WindowSize,
}

/// Connects to the shim of a spawn. `ended` hears how the connection ends, once.
pub(crate) async fn connect(
    files: &SpawnFiles,
    tasks: &TaskGroup,
    link: LinkSender,
    streams: Arc<StreamTable>,
    scratch: ReadBuffer,
    ended: oneshot::Sender<ShimEnd>,
    owner: (SessionId, u32),
) -> io::Result<(Arc<ShimClient>, ShimHello)> {
    let (reader, writer) = shim_socket::split(files.with_short_path(SOCKET, shim_socket::connect)?)?;
    let mut packets = Packets { reader, scratch, buffer: BytesMut::new() };
    let client = Arc::new(ShimClient {
        writer: tokio::sync::Mutex::new(writer),
        pending: Mutex::default(),
        next_id: AtomicU64::new(1),
    });
    client.send(&ShimRequest::Hello { protocol: PROTOCOL }).await?;
    let hello = tokio::time::timeout(HELLO_TIMEOUT, packets.hello()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let shim = Arc::clone(&client);
    let cancelled = tasks.cancelled();
    tasks.spawn("shim", OnEnd::Continue, async move {
        let end = tokio::select! {
            end = shim.read(&mut packets, &link, &streams, owner) => end,
            // The shim goes on for whoever comes next.
            () = cancelled.cancelled() => return,
        };
        shim.pending().clear();
        // A session that is gone does not need to know.
        let _told = ended.send(end);
    });
    Ok((client, hello))
}

impl ShimClient {
    fn pending(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<ShimOutcome>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request that has no answer of its own.
    pub(crate) async fn send(&self, request: &ShimRequest) -> io::Result<()> {
        let body = serde_json::to_vec(request)?;
        self.send_packet(PACKET_JSON, &body).await
    }

    /// Passes a binary frame on.
    pub(crate) async fn send_frame(&self, frame: &[u8]) -> io::Result<()> {
        self.send_packet(PACKET_FRAME, frame).await
    }

    async fn send_packet(&self, kind: u8, body: &[u8]) -> io::Result<()> {
        let head = packet_header(kind, body.len());
        let mut packet = Vec::with_capacity(head.len() + body.len());
        packet.extend_from_slice(&head);
        packet.extend_from_slice(body);
        self.writer.lock().await.write_all(&packet).await
    }

    /// Sends a request and waits for its outcome.
    pub(crate) async fn request(&self, make: impl FnOnce(u64) -> ShimRequest) -> Result<ShimOutcome, CommandError> {
        let gone = || CommandError::new("not_running", "the session's terminal has just ended");
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (done, outcome) = oneshot::channel();
        self.pending().insert(id, done);
        if self.send(&make(id)).await.is_err() {
            self.pending().remove(&id);
            return Err(gone());
        }
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, outcome).await;
        self.pending().remove(&id);
        match answer {
            Ok(Ok(ShimOutcome::Error(error))) => Err(error),
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(CommandError::new("timeout", "the session's terminal did not answer in time")),
        }
    }

    /// Reads until the end.
    async fn read(
        &self,
        packets: &mut Packets,
        link: &LinkSender,
        streams: &StreamTable,
        owner: (SessionId, u32),
    ) -> ShimEnd {
        loop {
            let (kind, body) = match packets.next().await {
                Ok(packet) => packet,
                Err(_) => return ShimEnd::Gone,
            };
            if kind == PACKET_FRAME {
                if let Ok((header, payload)) = Header::parse(&body) {
                    match streams.belongs(header.stream, owner) {
                        Some(true) => {}
                        Some(false) => return foreign(owner, header.stream),
                        // Closed meanwhile.
                        None => continue,
                    }
                    streams.passed(&header, payload.len());
                    link.send_frame(body).await;
                }
                continue;
            }
            match serde_json::from_slice(&body) {
                Ok(ShimEvent::Exited { .. }) => return ShimEnd::Exited,
                Ok(event) => match stream_of(&event).map(|stream| (stream, streams.belongs(stream, owner))) {
                    Some((stream, Some(false))) => return foreign(owner, stream),
                    // Closed meanwhile.
                    Some((_, None)) => {}
                    Some((_, Some(true))) | None => self.pass_on(event, link, streams).await,
                },
                // An event of a later shim; this supervisor cannot need it.
                Err(error) => warn!(%error, "unknown event of a shim"),
            }
        }
    }

    async fn pass_on(&self, event: ShimEvent, link: &LinkSender, streams: &StreamTable) {
        let message = match event {
            ShimEvent::Reply { id, outcome } => {
                if let Some(waiting) = self.pending().remove(&id) {
                    // Whoever asked may have given up.
                    let _told = waiting.send(outcome);
                }
                return;
            }
            ShimEvent::Watched(watched) => {
                streams.started(watched.stream, watched.offset, watched.resumed);
                HostMessage::Watched(watched)
            }
            ShimEvent::WatchFailed { stream, error } => {
                streams.close(stream);
                HostMessage::WatchFailed { stream, error }
            }
            ShimEvent::Resized { stream, offset, size } => HostMessage::Resized { stream, offset, size },
            ShimEvent::InputDone { stream, seq, error } => HostMessage::InputDone { stream, seq, error },
            ShimEvent::Hello { .. } | ShimEvent::Listeners { .. } | ShimEvent::Exited { .. } => return,
        };
        link.send(&message).await;
    }
}

/// The stream that an event is about.
fn stream_of(event: &ShimEvent) -> Option<u32> {
    match event {
        ShimEvent::Watched(watched) => Some(watched.stream),
        ShimEvent::WatchFailed { stream, .. }
        | ShimEvent::Resized { stream, .. }
        | ShimEvent::InputDone { stream, .. } => Some(*stream),
        ShimEvent::Reply { .. } | ShimEvent::Hello { .. } | ShimEvent::Listeners { .. } | ShimEvent::Exited { .. } => {
            None
        }
    }
}

/// A shim that speaks for another session is not to be listened to any more.
fn foreign((session, spawn): (SessionId, u32), stream: u32) -> ShimEnd {
    warn!(session.id = %session, spawn, stream, "a shim wrote to a stream that is not its spawn's, its connection is dropped");
    ShimEnd::Gone
}

/// Packets as they come in.
struct Packets {
    reader: ShimReader,
    scratch: ReadBuffer,
    buffer: BytesMut,
}

impl Packets {
    async fn next(&mut self) -> io::Result<(u8, Bytes)> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<PACKET_HEADER_BYTES>() {
                let (length, kind) = parse_packet_header(*header).ok_or(io::ErrorKind::InvalidData)?;
                if self.buffer.len() >= PACKET_HEADER_BYTES + length {
                    self.buffer.advance(PACKET_HEADER_BYTES);
                    let body = self.buffer.split_to(length).freeze();
                    return Ok((kind, body));
                }
                self.buffer.reserve(PACKET_HEADER_BYTES + length - self.buffer.len());
            }
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            self.fill().await?;
        }
    }

    /// Reads what is there, waiting for at least one byte. The common buffer is held only while the kernel fills it.
    async fn fill(&mut self) -> io::Result<()> {
        loop {
            self.reader.readable().await?;
            let mut scratch = self.scratch.0.lock().unwrap_or_else(PoisonError::into_inner);
            match self.reader.try_read(&mut scratch)? {
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(count) => {
                    self.buffer.extend_from_slice(scratch.get(..count).unwrap_or_default());
                    return Ok(());
                }
                None => {}
            }
        }
    }

    async fn hello(&mut self) -> io::Result<ShimHello> {
        let (_, body) = self.next().await?;
        match serde_json::from_slice(&body)? {
            ShimEvent::Hello { size, .. } => Ok(ShimHello { size }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
