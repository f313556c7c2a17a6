//! One connection to a session's terminal, `agentapi.terminal.v1`: frames in, input and acknowledgements out.
//!
//! It knows the protocol and nothing of terminals, and does not reconnect.

use std::time::Duration;

use agentapi_shared::frame::{FrameType, HEADER_BYTES, Header, Keyframe, PAYLOAD_BYTES_MAX};
use agentapi_shared::viewer::{ClientMessage, SUBPROTOCOL, ServerMessage, ViewerMode, close};
use agentapi_shared::{SessionId, ViewerId, WindowSize};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::client::{Client, refused};
use crate::failure::{ExitKind, Failure};

/// A ping this often keeps a dead path from being taken for a silent agent.
const PING_EVERY: Duration = Duration::from_secs(10);
/// The connection is given up after this long without a byte.
const SILENCE_MAX: Duration = Duration::from_secs(25);
/// Connecting and the handshake, or handing a frame to the kernel.
const STEP_SECONDS_MAX: Duration = Duration::from_secs(10);
/// A text frame of the server: a few hundred bytes; an exit's words may be longer.
const MESSAGE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + HEADER_BYTES;
/// Read buffer: a screenful; larger frames grow it.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// A place in a session's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The run.
    pub(crate) spawn: u32,
    /// Bytes of its output before this place.
    pub(crate) offset: u64,
}

/// What comes in.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A control message.
    Message(ServerMessage),
    /// Output from a place on.
    Output(Position, Bytes),
    /// The whole terminal at a place, as escape sequences.
    Keyframe(Position, WindowSize, Bytes),
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Closed {
    /// It broke, or the server asks to come again.
    Lost,
    /// Coming again would change nothing.
    Final(Failure),
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    heard_at: Instant,
    ping_at: Instant,
    input_seq: u64,
}

impl Stream {
    /// Connects, in the place of a connection that broke. A refusal has the words of the server.
    pub(crate) async fn open(
        client: &Client,
        id: SessionId,
        mode: ViewerMode,
        from: Option<Position>,
        replaces: Option<ViewerId>,
    ) -> Result<Self, Failure> {
        let unreachable = |words: String| {
            Failure::new(ExitKind::Unreachable, format!("cannot reach {}: {words}", client.server().url))
        };
        let request = request(client, id, mode, from, replaces)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        match timeout(STEP_SECONDS_MAX, connect_async_with_config(request, Some(config), true)).await {
            Ok(Ok((socket, _answer))) => {
                let now = Instant::now();
                Ok(Self { socket, heard_at: now, ping_at: now + PING_EVERY, input_seq: 0 })
            }
            Ok(Err(SocketError::Http(answer))) => {
                Err(refused(answer.status().as_u16(), answer.body().as_deref().unwrap_or_default()))
            }
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!("no answer within {STEP_SECONDS_MAX:?}"))),
        }
    }

    /// The next thing that comes in. May be dropped at any time without losing anything.
    pub(crate) async fn next(&mut self) -> Result<Incoming, Closed> {
        loop {
            let dead_at = self.heard_at + SILENCE_MAX;
            let message = tokio::select! {
                message = self.socket.next() => message,
                () = sleep_until(self.ping_at) => {
                    self.ping_at = Instant::now() + PING_EVERY;
                    self.send(Message::Ping(Bytes::new())).await?;
                    continue;
                }
                () = sleep_until(dead_at) => return Err(Closed::Lost),
            };
            self.heard_at = Instant::now();
            let Some(Ok(message)) = message else { return Err(Closed::Lost) };
            if let Some(incoming) = read(message)? {
                return Ok(incoming);
            }
        }
    }

    /// Forgets the silence of a time in which nothing was read.
    pub(crate) fn restart_silence(&mut self) {
        self.heard_at = Instant::now();
    }

    /// Sends a control message.
    pub(crate) async fn tell(&mut self, message: &ClientMessage) -> Result<(), Closed> {
        let text = serde_json::to_string(message).map_err(|_| Closed::Lost)?;
        self.send(Message::text(text)).await
    }

    /// Sends input, in frames that the server takes.
    pub(crate) async fn input(&mut self, spawn: u32, bytes: &[u8]) -> Result<(), Closed> {
        for chunk in bytes.chunks(agentapi_shared::frame::INPUT_BYTES_MAX) {
            self.input_seq += 1;
            let frame = Header::new(FrameType::Input, spawn, self.input_seq).with_payload(chunk);
            self.send(Message::binary(frame)).await?;
        }
        Ok(())
    }

    /// Says goodbye; whether that arrives is of no interest.
    pub(crate) async fn close(mut self) {
        let _gone = timeout(Duration::from_millis(200), self.socket.close(None)).await;
    }

    async fn send(&mut self, message: Message) -> Result<(), Closed> {
        match timeout(STEP_SECONDS_MAX, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Closed::Lost),
        }
    }
}

fn request(
    client: &Client,
    id: SessionId,
    mode: ViewerMode,
    from: Option<Position>,
    replaces: Option<ViewerId>,
) -> Result<http::Request<()>, Failure> {
    let word = match mode {
        ViewerMode::Rw => "rw",
        ViewerMode::Ro => "ro",
    };
    let mut query = vec![("mode", word.to_owned()), ("catchup", "screen".to_owned())];
    query.extend(from.map(|from| ("from", format!("{}:{}", from.spawn, from.offset))));
    query.extend(replaces.map(|replaced| ("replaces", replaced.to_string())));
    let url = client.url(&format!("sessions/{id}/terminal"), &query);
    // http becomes ws, https becomes wss.
    let url = url.as_str().replacen("http", "ws", 1);
    let bad = || Failure::new(ExitKind::Usage, "the url or the token cannot be used for a terminal");
    let mut request = url.into_client_request().map_err(|_| bad())?;
    let mut bearer = HeaderValue::try_from(client.server().token.bearer()).map_err(|_| bad())?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(request)
}

/// A message of the socket as one of the protocol; none: it carries nothing for us.
fn read(message: Message) -> Result<Option<Incoming>, Closed> {
    match message {
        // A type of tomorrow is ignored.
        Message::Text(text) => Ok(serde_json::from_str(text.as_str()).ok().map(Incoming::Message)),
        Message::Binary(frame) => read_frame(&frame),
        Message::Close(why) => Err(closed(why)),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
    }
}

fn read_frame(frame: &Bytes) -> Result<Option<Incoming>, Closed> {
    let broken = |error| {
        Closed::Final(Failure::new(ExitKind::Failure, format!("the server sent what nobody understands: {error}")))
    };
    let (header, _) = Header::parse(frame).map_err(broken)?;
    let payload = frame.slice(HEADER_BYTES..);
    let position = Position { spawn: header.stream, offset: header.position };
    match header.frame_type {
        FrameType::Output => Ok(Some(Incoming::Output(position, payload))),
        FrameType::Keyframe => {
            let size = Keyframe::parse(&payload).map_err(broken)?.size;
            Ok(Some(Incoming::Keyframe(position, size, payload.slice(size_of::<[u16; 2]>()..))))
        }
        FrameType::Rows | FrameType::Input => Ok(None),
    }
}

fn closed(why: Option<CloseFrame>) -> Closed {
    let Some(why) = why else { return Closed::Lost };
    let (kind, words) = match u16::from(why.code) {
        close::UNAUTHORIZED => (ExitKind::Refused, "the credential expired or was revoked"),
        close::SESSION_GONE => (ExitKind::NotFound, "the session was purged"),
        close::REPLACED => (ExitKind::Conflict, "another connection took the place of this one"),
        close::MALFORMED | close::VIOLATION => (ExitKind::Failure, "the server does not understand this version"),
        _ => return Closed::Lost,
    };
    Closed::Final(Failure::new(kind, words))
}

#[cfg(test)]
mod tests;
