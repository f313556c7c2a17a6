//! The way out on a link: whoever has something to send writes to the socket itself, without a queue or another task's turn in between.
//!
//! What the kernel does not take at once waits here, whole and in order, and the link's own task writes it when there is room. The WebSocket
//! library writes through the same door (its pongs and the close frame), so that no frame is ever torn by another.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use agentapi_shared::link::PlaneMessage;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::ws_frame::{self, Kind};

/// What waits for a host that takes nothing: every input frame of a busy minute. Overflow: the host is considered dead and its link closed.
const BACKLOG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What goes out on the link.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A text frame.
    Message(PlaneMessage),
    /// A binary frame.
    Frame(Bytes),
}

/// The link cannot take it: the socket failed, or too much waits already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// Takes what goes out, in order, and never waits.
pub(crate) trait Outlet: std::fmt::Debug + Send + Sync {
    /// Sends, or keeps until there is room.
    fn send(&self, outgoing: Outgoing) -> Result<(), Closed>;
}

/// The socket of a link as those see it who write.
#[derive(Debug)]
pub(crate) struct SocketOutlet {
    tcp: TcpStream,
    backlog: Mutex<Backlog>,
    stuck: Notify,
}

#[derive(Debug, Default)]
struct Backlog {
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

impl SocketOutlet {
    fn lock(&self) -> MutexGuard<'_, Backlog> {
        // A panic in between leaves chunks as they were.
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes `head` and `body` as far as the kernel takes them now, and keeps the rest.
    fn write(&self, head: &[u8], body: Bytes) -> io::Result<()> {
        let mut backlog = self.lock();
        let mut written = 0;
        if backlog.chunks.is_empty() {
            match self.tcp.try_write_vectored(&[IoSlice::new(head), IoSlice::new(&body)]) {
                Ok(count) => written = count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if written == head.len() + body.len() {
            return Ok(());
        }
        backlog.keep(Bytes::copy_from_slice(head.get(written..).unwrap_or_default()));
        backlog.keep(body.slice(written.saturating_sub(head.len()).min(body.len())..));
        let full = backlog.bytes > BACKLOG_BYTES_MAX;
        drop(backlog);
        self.stuck.notify_one();
        if full { Err(ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }

    fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut backlog = self.lock();
            let Some(chunk) = backlog.chunks.front() else { return Poll::Ready(Ok(())) };
            match self.tcp.try_write(chunk) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(count) => backlog.taken(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    drop(backlog);
                    ready!(self.tcp.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes what had to wait, whenever there is some. Ends with the socket.
    pub(super) async fn drain(&self) -> io::Error {
        loop {
            self.stuck.notified().await;
            if let Err(error) = poll_fn(|cx| self.poll_drain(cx)).await {
                return error;
            }
        }
    }
}

impl Outlet for SocketOutlet {
    fn send(&self, outgoing: Outgoing) -> Result<(), Closed> {
        let (kind, body) = match outgoing {
            Outgoing::Frame(frame) => (Kind::Binary, frame),
            // A value of our own types always has a JSON form.
            Outgoing::Message(message) => (Kind::Text, serde_json::to_vec(&message).unwrap_or_default().into()),
        };
        let (head, length) = ws_frame::head(kind, body.len());
        self.write(head.get(..length).unwrap_or_default(), body).map_err(|_| Closed)
    }
}

impl Backlog {
    fn keep(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    fn taken(&mut self, count: usize) {
        self.bytes -= count;
        if let Some(chunk) = self.chunks.front_mut() {
            chunk.advance(count);
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

/// The socket of a link as the WebSocket library sees it.
#[derive(Debug)]
pub struct LinkStream(Arc<SocketOutlet>);

impl LinkStream {
    /// Takes a connection whose upgrade is done.
    #[must_use]
    pub fn new(tcp: TcpStream) -> Self {
        Self(Arc::new(SocketOutlet { tcp, backlog: Mutex::default(), stuck: Notify::new() }))
    }

    pub(super) fn outlet(&self) -> Arc<SocketOutlet> {
        self.0.clone()
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.tcp.poll_read_ready(cx))?;
            match self.0.tcp.try_read(buf.initialize_unfilled()) {
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for LinkStream {
    /// Takes all of it: what the library writes is small (pongs, the close frame), and half a frame must not be left to it.
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.write(buf, Bytes::new()).map(|()| buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_drain(cx)
    }

    /// The connection closes when this is dropped.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_drain(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpSocket::new_v4().unwrap();
        // The kernel would let it grow to some megabytes.
        near.set_send_buffer_size(64 * 1024).unwrap();
        let (near, far) = tokio::join!(near.connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// Frames larger than what the kernel takes, between others and between what the library writes, for a reader that starts late.
    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_through_a_full_socket() {
        let (near, far) = connection().await;
        let mut stream = LinkStream::new(near);
        let outlet = stream.outlet();
        let sizes = [0usize, 1, 125, 126, 65_535, 65_536, 7_000_000, 2, 1_000_000, 3];
        for size in sizes {
            outlet.send(Outgoing::Frame(vec![7; size].into())).unwrap();
            // A pong of nothing, as the library would write it.
            stream.write_all(&[0x8a, 0]).await.unwrap();
            outlet.send(Outgoing::Message(PlaneMessage::OutboxAck { seq: size as u64 })).unwrap();
        }
        assert!(!outlet.lock().chunks.is_empty(), "the socket was never full");
        let mut host = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let receive = async {
            for size in sizes {
                let frame = host.next().await.unwrap().unwrap();
                assert!(frame.is_binary() && frame.len() == size, "{size}: {}", frame.len());
                assert!(host.next().await.unwrap().unwrap().is_pong());
                let text = host.next().await.unwrap().unwrap().into_text().unwrap();
                assert_eq!(text.as_str(), format!(r#"{{"type":"outbox_ack","seq":{size}}}"#));
            }
        };
        tokio::select! {
            error = outlet.drain() => panic!("{error}"),
            () = receive => {}
        }
        let backlog = outlet.lock();
        assert_eq!((backlog.chunks.len(), backlog.bytes), (0, 0));
    }

    /// A host that takes nothing does not grow the control plane.
    #[tokio::test]
    async fn a_host_that_takes_nothing_is_given_up() {
        let (near, _far) = connection().await;
        let outlet = LinkStream::new(near).outlet();
        let frame = || Outgoing::Frame(vec![7; 1024 * 1024].into());
        let sent = (0..64).take_while(|_| outlet.send(frame()).is_ok()).count();
        assert!(sent < 64);
        assert!(outlet.lock().bytes <= BACKLOG_BYTES_MAX + 2 * 1024 * 1024);
    }
}
