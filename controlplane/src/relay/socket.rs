//! The socket of a viewer: control messages through tungstenite, output past its buffers straight from the ring to the kernel.
//!
//! A frame of output is its two headers and a slice of the ring, written with one vectored write: no copy per viewer, and an idle
//! viewer keeps no buffer that a burst once needed. A frame may be queued only when everything before it is with the kernel, and
//! whatever tungstenite writes waits for a frame that is half-way, so the two never mix.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use agentapi_shared::frame::{HEADER_BYTES, Header, INPUT_BYTES_MAX};
use agentapi_shared::viewer::{ServerMessage, TEXT_BYTES_MAX};
use bytes::{Buf, Bytes};
use futures_util::SinkExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use crate::fleet::{Drive, drive};
use crate::ws_frame::{self, HEAD_BYTES_MAX, Kind};

/// Buffers of a viewer's socket: an idle viewer has only these. What comes is small (keys, acknowledgements), and the library clears the whole
/// buffer before every read.
const BUFFER_BYTES: usize = 1024;

/// How the WebSocket of a viewer is set up.
#[must_use]
pub fn viewer_socket_config() -> WebSocketConfig {
    let largest = TEXT_BYTES_MAX.max(HEADER_BYTES + INPUT_BYTES_MAX);
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * TEXT_BYTES_MAX)
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest))
}

/// A frame on its way to the kernel.
#[derive(Debug)]
struct Pending {
    head: [u8; HEAD_BYTES_MAX + HEADER_BYTES],
    head_at: usize,
    head_len: usize,
    payload: Bytes,
}

/// The stream below tungstenite, with at most one frame in front of what it writes.
#[derive(Debug)]
pub(super) struct Outlet<S> {
    inner: S,
    pending: Option<Pending>,
}

/// See the module.
#[derive(Debug)]
pub struct ViewerSocket<S> {
    ws: WebSocketStream<Outlet<S>>,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ViewerSocket<S> {
    /// A socket whose upgrade is done. `read`: what the client sent right behind it.
    pub async fn new(inner: S, read: Vec<u8>) -> Self {
        let outlet = Outlet { inner, pending: None };
        let config = Some(viewer_socket_config());
        let ws = WebSocketStream::from_partially_read(outlet, read, Role::Server, config).await;
        Self { ws, unflushed: false }
    }

    /// Whether everything queued is with the kernel, so that more may be queued.
    pub(super) fn is_free(&self) -> bool {
        !self.unflushed
    }

    /// Queues a control message.
    pub(super) async fn say(&mut self, message: &ServerMessage) -> Result<(), SocketError> {
        // A value of our own types always has a JSON form.
        let text = serde_json::to_string(message).unwrap_or_default();
        self.unflushed = true;
        self.ws.feed(Message::Text(text.into())).await
    }

    /// Queues a frame; only while [`Self::is_free`].
    pub(super) fn queue(&mut self, header: Header, payload: Bytes) {
        debug_assert!(self.is_free(), "a frame may only follow what is with the kernel");
        self.ws.get_mut().pending = Some(Pending::new(header, payload));
        self.unflushed = true;
    }

    /// Queues a ping.
    pub(super) async fn ping(&mut self) -> Result<(), SocketError> {
        self.unflushed = true;
        self.ws.feed(Message::Ping(Bytes::new())).await
    }

    /// Sends what is queued and receives, whichever is ready first. Cancel safe.
    pub(super) async fn drive(&mut self) -> Drive {
        drive(&mut self.ws, &mut self.unflushed).await
    }

    /// Says goodbye.
    pub(super) async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        // The viewer may be gone already; nothing follows from it.
        let _sent = self.ws.close(Some(frame)).await;
    }
}

impl Pending {
    fn new(header: Header, payload: Bytes) -> Self {
        let mut head = [0; HEAD_BYTES_MAX + HEADER_BYTES];
        let (ws_head, ws_len) = ws_frame::head(Kind::Binary, HEADER_BYTES + payload.len());
        head[..HEAD_BYTES_MAX].copy_from_slice(&ws_head);
        head[ws_len..ws_len + HEADER_BYTES].copy_from_slice(&header.to_bytes());
        Self { head, head_at: 0, head_len: ws_len + HEADER_BYTES, payload }
    }

    fn advance(&mut self, written: usize) {
        let of_head = written.min(self.head_len - self.head_at);
        self.head_at += of_head;
        self.payload.advance(written - of_head);
    }

    fn is_done(&self) -> bool {
        self.head_at == self.head_len && self.payload.is_empty()
    }
}

impl<S: AsyncWrite + Unpin> Outlet<S> {
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(pending) = &mut self.pending {
            let parts =
                [IoSlice::new(&pending.head[pending.head_at..pending.head_len]), IoSlice::new(&pending.payload)];
            let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &parts))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            pending.advance(written);
            if pending.is_done() {
                self.pending = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outlet<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outlet<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use agentapi_shared::frame::FrameType;
    use futures_util::StreamExt;

    use super::*;

    /// Frames of every length class, between control messages, through a pipe that takes a few bytes at a time.
    #[tokio::test]
    async fn frames_and_messages_arrive_whole_and_in_order() {
        let (near, far) = tokio::io::duplex(7);
        let mut socket = ViewerSocket::new(near, Vec::new()).await;
        let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let sizes = [0usize, 1, 111, 112, 65_521, 65_522, 70_000];
        let send = async {
            for (index, size) in sizes.into_iter().enumerate() {
                while !socket.is_free() {
                    socket.drive().await;
                }
                socket.queue(Header::new(FrameType::Output, 3, index as u64), vec![7; size].into());
                socket.say(&ServerMessage::InputAck { seq: index as u64 }).await.unwrap();
            }
            while !socket.is_free() {
                socket.drive().await;
            }
        };
        let receive = async {
            for (index, size) in sizes.into_iter().enumerate() {
                let frame = client.next().await.unwrap().unwrap().into_data();
                let (header, payload) = Header::parse(&frame).unwrap();
                assert_eq!((header.position, payload.len()), (index as u64, size));
                assert!(client.next().await.unwrap().unwrap().is_text());
            }
        };
        tokio::join!(send, receive);
    }
}
