//! The sending half of the link, shared by everything that has something to send. Whoever sends writes to the socket itself: no queue, no task.

use std::sync::Arc;

use agentapi_shared::link::HostMessage;
use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tracing::warn;

/// The WebSocket to the control plane.
pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Sends to the control plane, if there is a link; else what is sent is dropped: states come again with the inventory, durable items are in the
/// outbox, and streams end with the link.
#[derive(Debug, Clone, Default)]
pub(crate) struct LinkSender(Arc<Mutex<Option<SplitSink<Socket, Message>>>>);

impl LinkSender {
    /// From now on messages go there.
    pub(crate) async fn attach(&self, sink: SplitSink<Socket, Message>) {
        *self.0.lock().await = Some(sink);
    }

    /// Closes what there is.
    pub(crate) async fn detach(&self) {
        if let Some(mut sink) = self.0.lock().await.take() {
            // The other end may be gone.
            let _closed = sink.close().await;
        }
    }

    /// Sends a message.
    pub(crate) async fn send(&self, message: &HostMessage) {
        match serde_json::to_string(message) {
            Ok(text) => self.send_message(Message::text(text)).await,
            Err(error) => warn!(%error, "a message could not be written"),
        }
    }

    /// Sends a binary frame.
    pub(crate) async fn send_frame(&self, frame: Bytes) {
        self.send_message(Message::Binary(frame)).await;
    }

    /// Sends a ping.
    pub(crate) async fn ping(&self) {
        self.send_message(Message::Ping(Bytes::new())).await;
    }

    async fn send_message(&self, message: Message) {
        let mut sink = self.0.lock().await;
        if let Some(link) = sink.as_mut()
            && link.send(message).await.is_err()
        {
            // The reading half sees the end as well and connects again.
            *sink = None;
        }
    }
}
