//! The link to the control plane: connects, says who we are, passes on what comes, and connects again.
//!
//! While there is no control plane nothing here matters to the sessions: they run, and the outbox keeps what must not be lost.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentapi_shared::frame::{FrameType, Header};
use agentapi_shared::link::{
    CommandError, DEAD_SECONDS, HostHello, HostMessage, PING_SECONDS, PROTOCOL, PlaneMessage, SUBPROTOCOL,
    TEXT_BYTES_MAX,
};
use agentapi_shared::shim::ShimRequest;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use http::{HeaderValue, header};
use rand::RngExt;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tracing::{debug, info, warn};

use crate::chain;
use crate::context::Context;
use crate::registry::Registry;
use crate::session::blocking;
use crate::streams::Server;
use crate::uplink::Socket;

/// Waits between attempts: at once after a restart of the control plane, rarely while it is away for long.
const BACKOFF_MS: [u64; 6] = [0, 250, 500, 1000, 2000, 5000];
/// A control plane that does not answer the upgrade is none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Read at once. What comes is small: keys, credit, commands. The library clears the whole buffer before every read, and with its default of
/// 128 KiB a keystroke would first empty the processor's caches.
const READ_BYTES: usize = 2 * 1024;

/// Why there is no link at the moment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The credential file.
    #[error("cannot read the host's credential file")]
    Credential(#[source] std::io::Error),
    /// The URL or token in it.
    #[error("the host's credential file holds no usable url and token")]
    CredentialContent,
    /// The connection.
    #[error("cannot connect to the control plane")]
    Connect(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// The connection took too long.
    #[error("the control plane did not answer in time")]
    Timeout,
    /// The link broke.
    #[error("the link broke")]
    Broken(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// The other end closed it.
    #[error("the control plane closed the link")]
    Closed,
    /// The control plane sent what we cannot read.
    #[error("the control plane sent a malformed message")]
    Malformed,
}

#[derive(Deserialize)]
struct Credential {
    url: String,
    token: String,
}

/// Keeps the link until the daemon ends.
pub(crate) async fn run(registry: Arc<Registry>, credential_file: std::path::PathBuf) {
    let context = registry.context();
    let cancelled = context.tasks.cancelled();
    let mut failures = 0;
    while !cancelled.is_cancelled() {
        let served = tokio::select! {
            () = cancelled.cancelled() => break,
            served = serve(&registry, &credential_file) => served,
        };
        context.link.detach().await;
        let watched = context.streams.close_all();
        for shim in watched {
            // A shim that is gone has no streams either.
            let _sent = shim.send(&ShimRequest::UnwatchAll).await;
        }
        match served {
            Ok(error) => {
                failures = 0;
                info!(error = chain(&error), "link lost");
            }
            Err(error) => {
                failures += 1;
                debug!(error = chain(&error), failures, "no link");
                if failures == 1 {
                    warn!(error = chain(&error), "no link to the control plane; sessions go on, trying again");
                }
            }
        }
        let base = BACKOFF_MS.get(failures).or(BACKOFF_MS.last()).copied().unwrap_or(0);
        // Half of it is chance, so that a thousand hosts do not come back at once.
        let wait = Duration::from_millis(base / 2 + rand::rng().random_range(0..=base / 2));
        tokio::select! {
            () = cancelled.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    context.link.detach().await;
}

/// One connection. `Err`: it could not be made. `Ok`: how it ended.
async fn serve(registry: &Arc<Registry>, credential_file: &Path) -> Result<LinkError, LinkError> {
    let context = registry.context();
    let socket = connect(credential_file).await?;
    let (sink, mut stream) = socket.split();
    let known_ends = registry.known_ends().await;
    // From here to the hello nobody else gets to run: it is the first message, and no change is missing in it.
    context.link.attach(sink).await;
    let changes = context.versions.changes();
    let hello = HostHello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        facts: context.facts(),
        inventory: registry.inventory(&known_ends),
    };
    context.link.send(&HostMessage::Hello(Box::new(hello))).await;
    match next(&mut stream, &mut Instant::now()).await? {
        Message::Text(text) => match serde_json::from_str(&text).map_err(|_| LinkError::Malformed)? {
            PlaneMessage::Welcome { host } => info!(host.id = %host, "linked to the control plane"),
            _ => return Err(LinkError::Malformed),
        },
        _ => return Err(LinkError::Malformed),
    }
    tokio::select! {
        error = read(registry, &mut stream) => Ok(error),
        () = send_outbox(context) => Ok(LinkError::Closed),
        () = shrink_outbox(context) => Ok(LinkError::Closed),
        () = send_facts(context, changes) => Ok(LinkError::Closed),
        () = ping(context) => Ok(LinkError::Closed),
    }
}

async fn connect(credential_file: &Path) -> Result<Socket, LinkError> {
    let text = tokio::fs::read(credential_file).await.map_err(LinkError::Credential)?;
    let credential: Credential = serde_json::from_slice(&text).map_err(|_| LinkError::CredentialContent)?;
    let mut request = credential.url.into_client_request().map_err(|_| LinkError::CredentialContent)?;
    let mut bearer =
        HeaderValue::try_from(format!("Bearer {}", credential.token)).map_err(|_| LinkError::CredentialContent)?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let config = WebSocketConfig::default()
        .max_message_size(Some(TEXT_BYTES_MAX))
        .max_frame_size(Some(TEXT_BYTES_MAX))
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0);
    let connecting = connect_async_with_config(request, Some(config), true);
    let (socket, _) = timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| LinkError::Timeout)?
        .map_err(|error| LinkError::Connect(Box::new(error)))?;
    Ok(socket)
}

/// The next message; silence beyond the limit counts as a broken link.
async fn next(stream: &mut SplitStream<Socket>, heard: &mut Instant) -> Result<Message, LinkError> {
    let dead = *heard + Duration::from_secs(DEAD_SECONDS);
    match tokio::time::timeout_at(dead, stream.next()).await {
        Err(_) => Err(LinkError::Timeout),
        Ok(None) => Err(LinkError::Closed),
        Ok(Some(Err(error))) => Err(LinkError::Broken(Box::new(error))),
        Ok(Some(Ok(Message::Close(_)))) => Err(LinkError::Closed),
        Ok(Some(Ok(message))) => {
            *heard = Instant::now();
            Ok(message)
        }
    }
}

/// Serves what the control plane sends until the link ends.
async fn read(registry: &Arc<Registry>, stream: &mut SplitStream<Socket>) -> LinkError {
    let context = registry.context();
    let mut heard = Instant::now();
    loop {
        let served = match next(stream, &mut heard).await {
            Ok(Message::Binary(frame)) => input(context, &frame).await,
            Ok(Message::Text(text)) => match serde_json::from_str::<PlaneMessage>(&text) {
                Ok(message) => obey(registry, message).await,
                Err(error) => {
                    debug!(%error, "a message of the control plane is unknown here");
                    Ok(())
                }
            },
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            return error;
        }
    }
}

/// Passes typed bytes to the shim; no task and no queue in between.
async fn input(context: &Context, frame: &Bytes) -> Result<(), LinkError> {
    let (header, _) = Header::parse(frame).map_err(|_| LinkError::Malformed)?;
    if header.frame_type != FrameType::Input {
        return Err(LinkError::Malformed);
    }
    let sent = match context.streams.server(header.stream) {
        Some(Server::Shim(shim)) => shim.send_frame(frame).await.is_ok(),
        Some(Server::Journal(_)) | None => false,
    };
    if !sent {
        let error = Some(CommandError::new("not_running", "the program has ended"));
        context.link.send(&HostMessage::InputDone { stream: header.stream, seq: header.position, error }).await;
    }
    Ok(())
}

async fn obey(registry: &Arc<Registry>, message: PlaneMessage) -> Result<(), LinkError> {
    let context = registry.context();
    match message {
        PlaneMessage::Command { id, session, command } => registry.command(id, session, *command),
        PlaneMessage::Watch { stream, session, spawn, from, limit } => {
            registry.watch(stream, session, spawn, from, limit).await;
        }
        PlaneMessage::Credit { stream, limit } => {
            if let Some(Server::Shim(shim)) = context.streams.credit(stream, limit) {
                let _sent = shim.send(&ShimRequest::Credit { stream, limit }).await;
            }
        }
        PlaneMessage::Keyframe { stream } => {
            // A stream from the journal of an ended spawn has its keyframe already, or gets it at its end.
            if let Some(Server::Shim(shim)) = context.streams.server(stream) {
                let _sent = shim.send(&ShimRequest::Keyframe { stream }).await;
            }
        }
        PlaneMessage::Unwatch { stream } => {
            if let Some(Server::Shim(shim)) = context.streams.close(stream) {
                let _sent = shim.send(&ShimRequest::Unwatch { stream }).await;
            }
        }
        PlaneMessage::OutboxAck { seq } => context.outbox.stored_up_to(seq),
        PlaneMessage::Welcome { .. } => return Err(LinkError::Malformed),
    }
    Ok(())
}

/// Sends the outbox from its beginning, and what is added; it is emptied by acknowledgements.
async fn send_outbox(context: &Arc<Context>) {
    let mut newest = context.outbox.newest();
    let mut sent = 0;
    loop {
        let reading = Arc::clone(context);
        match blocking(move || reading.outbox.after(sent).map_err(io::Error::other)).await {
            Ok(items) if !items.is_empty() => {
                for (seq, item) in items {
                    context.link.send(&HostMessage::Outbox { seq, item }).await;
                    sent = seq;
                }
                continue;
            }
            Ok(_) => {}
            Err(error) => warn!(error = chain(&error), "the outbox cannot be sent"),
        }
        let wanted = sent;
        if newest.wait_for(|newest| *newest > wanted).await.is_err() {
            return;
        }
    }
}

/// Removes from the outbox what is stored: beside the link, which others type through, and all that came meanwhile with one sync of the disk.
async fn shrink_outbox(context: &Arc<Context>) {
    let mut stored = context.outbox.stored();
    let mut removed = 0;
    while let Ok(seq) = stored.wait_for(|stored| *stored > removed).await.map(|seq| *seq) {
        let removing = Arc::clone(context);
        if let Err(error) = blocking(move || removing.outbox.acknowledged(seq).map_err(io::Error::other)).await {
            warn!(error = chain(&error), "acknowledged outbox items could not be removed; they will be sent again");
        }
        removed = seq;
    }
}

/// Sends the facts again whenever they differ from what was told last.
async fn send_facts(context: &Context, mut changes: watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        context.link.send(&HostMessage::Facts(Box::new(context.facts()))).await;
    }
}

async fn ping(context: &Context) {
    let mut beat = tokio::time::interval(Duration::from_secs(PING_SECONDS));
    loop {
        beat.tick().await;
        context.link.ping().await;
    }
}
