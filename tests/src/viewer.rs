//! A viewer that speaks `agentapi.terminal.v1` and keeps what it got.

use agentapi_shared::frame::{FrameType, Header, Keyframe};
use agentapi_shared::viewer::{ClientMessage, SUBPROTOCOL, ServerMessage};
use agentapi_shared::{SessionId, ViewerId};
use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use http::HeaderValue;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::wait::soon;

/// How to attach.
#[derive(Debug, Clone, Copy, Default)]
pub struct ViewerOptions {
    /// Look only.
    pub read_only: bool,
    /// Never skip a byte.
    pub all_bytes: bool,
    /// Spawn and offset to go on from.
    pub from: Option<(u32, u64)>,
    /// The connection whose place this one takes.
    pub replaces: Option<ViewerId>,
}

/// Something a viewer received.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A text frame.
    Message(ServerMessage),
    /// A keyframe: offset, skipped or not, its sequences.
    Keyframe(u64, bool, Vec<u8>),
    /// Output: offset and bytes.
    Output(u64, Vec<u8>),
}

/// One open terminal.
#[derive(Debug)]
pub struct Viewer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    spawn: u32,
    seq: u64,
    /// Offset after the last byte received.
    pub offset: u64,
}

impl Viewer {
    /// Attaches.
    pub async fn connect(address: &str, token: &str, session: SessionId, options: ViewerOptions) -> Result<Self> {
        let mut url = format!(
            "ws://{address}/api/v1/sessions/{session}/terminal?mode={}",
            if options.read_only { "ro" } else { "rw" }
        );
        if options.all_bytes {
            url.push_str("&catchup=bytes");
        }
        if let Some((spawn, offset)) = options.from {
            url.push_str(&format!("&from={spawn}:{offset}"));
        }
        if let Some(replaced) = options.replaces {
            url.push_str(&format!("&replaces={replaced}"));
        }
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("authorization", HeaderValue::try_from(format!("Bearer {token}"))?);
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let (socket, _) = connect_async_with_config(request, None, true).await?;
        Ok(Self { socket, spawn: 1, seq: 0, offset: 0 })
    }

    /// The next thing, without acknowledging it.
    pub async fn next_unacknowledged(&mut self) -> Result<Seen> {
        loop {
            match soon("something for the viewer", self.socket.next()).await.context("terminal closed")?? {
                Message::Text(text) => {
                    let message: ServerMessage = serde_json::from_str(&text)?;
                    if let ServerMessage::Spawn { spawn, offset, .. } = message {
                        (self.spawn, self.offset) = (spawn, offset);
                    }
                    return Ok(Seen::Message(message));
                }
                Message::Binary(frame) => {
                    let (header, payload) = Header::parse(&frame)?;
                    anyhow::ensure!(
                        header.stream == self.spawn,
                        "a frame of spawn {} within spawn {}",
                        header.stream,
                        self.spawn
                    );
                    return match header.frame_type {
                        FrameType::Output => {
                            anyhow::ensure!(
                                header.position == self.offset,
                                "output at {} instead of {}",
                                header.position,
                                self.offset
                            );
                            self.offset += payload.len() as u64;
                            Ok(Seen::Output(header.position, payload.to_vec()))
                        }
                        FrameType::Keyframe => {
                            self.offset = header.position;
                            let keyframe = Keyframe::parse(payload)?;
                            Ok(Seen::Keyframe(header.position, header.flags != 0, keyframe.bytes.to_vec()))
                        }
                        other => bail!("unexpected frame {other:?}"),
                    };
                }
                Message::Close(frame) => bail!("terminal closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The next thing, acknowledged.
    pub async fn next(&mut self) -> Result<Seen> {
        let seen = self.next_unacknowledged().await?;
        if !matches!(seen, Seen::Message(_)) {
            self.acknowledge().await?;
        }
        Ok(seen)
    }

    /// Says that everything received is parsed.
    pub async fn acknowledge(&mut self) -> Result<()> {
        self.send(&ClientMessage::Ack { spawn: self.spawn, offset: self.offset }).await
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &ClientMessage) -> Result<()> {
        Ok(self.socket.send(Message::text(serde_json::to_string(message)?)).await?)
    }

    /// Sends any frame.
    pub async fn send_raw(&mut self, message: Message) -> Result<()> {
        Ok(self.socket.send(message).await?)
    }

    /// Types.
    pub async fn input(&mut self, bytes: &[u8]) -> Result<u64> {
        self.seq += 1;
        let frame = Header::new(FrameType::Input, self.spawn, self.seq).with_payload(bytes);
        self.send_raw(Message::Binary(frame.into())).await?;
        Ok(self.seq)
    }

    /// Reads on until `pick` makes something of what came.
    pub async fn wait_for<T>(&mut self, mut pick: impl FnMut(&Seen) -> Option<T>) -> Result<T> {
        loop {
            let seen = self.next().await?;
            if let Some(found) = pick(&seen) {
                return Ok(found);
            }
        }
    }

    /// Collects output until it holds `what`.
    pub async fn output_until(&mut self, what: &str) -> Result<String> {
        let mut all = Vec::new();
        loop {
            match self.next().await? {
                Seen::Output(_, bytes) | Seen::Keyframe(_, _, bytes) => all.extend(bytes),
                Seen::Message(_) => {}
            }
            let text = String::from_utf8_lossy(&all);
            if text.contains(what) {
                return Ok(text.into_owned());
            }
        }
    }

    /// The close frame's code, reading whatever comes before it.
    pub async fn closed(&mut self) -> Result<Option<u16>> {
        loop {
            match soon("the end of the terminal", self.socket.next()).await {
                Some(Ok(Message::Close(frame))) => return Ok(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}
