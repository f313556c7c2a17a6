//! The link of one connected host, as the rest of the program uses it: commands with replies, streams, input.
//!
//! Nothing here waits for the socket: what the kernel does not take waits in a bounded backlog. A host that does not take it is closed, and
//! everything it missed is settled again when it comes back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use agentapi_shared::frame::{FrameType, Header};
use agentapi_shared::link::{Command, CommandError, CommandResult, HostMessage, Outcome, PlaneMessage, Watched};
use agentapi_shared::{HostId, OrgId, SessionId};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::lock;
use super::outlet::{Outgoing, Outlet};
use crate::relay::{Feed, Port};

/// Commands without an answer. Overflow: the caller is told that the host is busy.
const COMMANDS_MAX: usize = 1024;

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum CommandFailure {
    /// The host said no.
    #[error("refused: {0}")]
    Refused(CommandError),
    /// The link went down before the answer.
    #[error("the link went down")]
    Gone,
    /// No answer in time; it may still happen.
    #[error("no answer in time")]
    Deadline,
    /// Too many commands without an answer.
    #[error("too many commands at work")]
    Busy,
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    host: HostId,
    org: Option<OrgId>,
    boot_id: String,
    placed: AtomicU64,
    /// Gone with the connection, however long somebody still holds this link.
    out: Weak<dyn Outlet>,
    closed: CancellationToken,
    next_command: AtomicU64,
    replies: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
    next_stream: AtomicU32,
    feeds: Mutex<HashMap<u32, Arc<Feed>>>,
    next_input: AtomicU64,
    /// Input that was not yet written, by the number it has on this link: whose it is, and its number there.
    inputs: Mutex<HashMap<u64, (Arc<Port>, u64)>>,
}

impl Link {
    pub(crate) fn new(
        host: HostId,
        org: Option<OrgId>,
        boot_id: String,
        placed: u64,
        out: Weak<dyn Outlet>,
    ) -> Arc<Self> {
        Arc::new(Self {
            host,
            org,
            boot_id,
            placed: AtomicU64::new(placed),
            out,
            closed: CancellationToken::new(),
            next_command: AtomicU64::new(1),
            replies: Mutex::default(),
            next_stream: AtomicU32::new(1),
            feeds: Mutex::default(),
            next_input: AtomicU64::new(1),
            inputs: Mutex::default(),
        })
    }

    /// Whose link it is.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The organisation the host serves; none: all.
    #[must_use]
    pub fn org(&self) -> Option<OrgId> {
        self.org
    }

    /// The boot of the host.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Sessions placed there, roughly: what placement goes by.
    pub(super) fn placed(&self) -> u64 {
        self.placed.load(Ordering::Relaxed)
    }

    pub(super) fn count_placed(&self) {
        self.placed.fetch_add(1, Ordering::Relaxed);
    }

    /// Resolves when the link is down or has to go.
    #[must_use]
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Whether it is down, or about to be.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Sends a message. On a link that is down nothing happens: whoever waits for an effect learns of the end.
    pub fn send(&self, message: PlaneMessage) {
        self.send_out(Outgoing::Message(message));
    }

    fn send_out(&self, outgoing: Outgoing) {
        if self.out.upgrade().is_none_or(|out| out.send(outgoing).is_err()) {
            self.close();
        }
    }

    /// Has the host do something for a session.
    pub async fn command(
        &self,
        session: SessionId,
        command: Command,
        deadline: Duration,
    ) -> Result<CommandResult, CommandFailure> {
        let id = self.next_command.fetch_add(1, Ordering::Relaxed);
        let (reply, replied) = oneshot::channel();
        {
            let mut replies = lock(&self.replies);
            if replies.len() >= COMMANDS_MAX {
                return Err(CommandFailure::Busy);
            }
            replies.insert(id, reply);
        }
        // Entered before the check: whoever closes the link empties the map after it is marked as closed.
        if self.closed.is_cancelled() {
            lock(&self.replies).remove(&id);
            return Err(CommandFailure::Gone);
        }
        self.send(PlaneMessage::Command { id, session, command: Box::new(command) });
        match tokio::time::timeout(deadline, replied).await {
            Ok(Ok(Outcome::Done(result))) => Ok(result),
            Ok(Ok(Outcome::Error(error))) => Err(CommandFailure::Refused(error)),
            Ok(Err(_)) => Err(CommandFailure::Gone),
            Err(_) => {
                lock(&self.replies).remove(&id);
                Err(CommandFailure::Deadline)
            }
        }
    }

    pub(super) fn reply(&self, id: u64, outcome: Outcome) {
        if let Some(waiting) = lock(&self.replies).remove(&id) {
            // A caller that gave up no longer wants it.
            let _gave_up = waiting.send(outcome);
        }
    }

    /// A number for a new stream; the feed is entered before the host can answer.
    pub fn open_feed(&self, make: impl FnOnce(u32) -> Arc<Feed>) -> Arc<Feed> {
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let feed = make(stream);
        lock(&self.feeds).insert(stream, feed.clone());
        if self.closed.is_cancelled() {
            lock(&self.feeds).remove(&stream);
            feed.lost();
        }
        feed
    }

    /// Takes a stream out; frames that are still under way for it are dropped.
    pub fn close_feed(&self, stream: u32) {
        if lock(&self.feeds).remove(&stream).is_some() {
            self.send(PlaneMessage::Unwatch { stream });
        }
    }

    pub(crate) fn feed(&self, stream: u32) -> Option<Arc<Feed>> {
        lock(&self.feeds).get(&stream).cloned()
    }

    /// A stream that the host closed.
    pub(super) fn forget_feed(&self, stream: u32) -> Option<Arc<Feed>> {
        lock(&self.feeds).remove(&stream)
    }

    /// Types into the program of a stream. `port` hears of the outcome under `seq`.
    pub fn input(&self, stream: u32, port: &Arc<Port>, seq: u64, bytes: &[u8]) {
        let position = self.next_input.fetch_add(1, Ordering::Relaxed);
        lock(&self.inputs).insert(position, (port.clone(), seq));
        if self.closed.is_cancelled() {
            self.input_done(position, Some(CommandError::new("unreachable", "the host is not connected")));
            return;
        }
        let frame = Header::new(FrameType::Input, stream, position).with_payload(bytes);
        self.send_out(Outgoing::Frame(frame.into()));
    }

    pub(super) fn input_done(&self, position: u64, error: Option<CommandError>) {
        let found = lock(&self.inputs).remove(&position);
        if let Some((port, seq)) = found {
            port.input_done(seq, error);
        }
    }

    /// A message about streams or input. Others are given back.
    pub(crate) fn route(&self, message: HostMessage) -> Option<HostMessage> {
        match message {
            HostMessage::Reply { id, outcome } => self.reply(id, outcome),
            HostMessage::Watched(Watched { stream, size, offset, resumed, .. }) => {
                self.with_feed(stream, |feed| feed.opened(size, offset, resumed));
            }
            HostMessage::WatchFailed { stream, error } => {
                if let Some(feed) = self.forget_feed(stream) {
                    feed.failed(error);
                }
            }
            HostMessage::Resized { stream, offset, size } => self.with_feed(stream, |feed| feed.resized(offset, size)),
            HostMessage::StreamEnded { stream, offset } => {
                if let Some(feed) = self.forget_feed(stream) {
                    feed.ended(offset);
                }
            }
            HostMessage::InputDone { seq, error, .. } => self.input_done(seq, error),
            other => return Some(other),
        }
        None
    }

    fn with_feed(&self, stream: u32, act: impl FnOnce(&Feed)) {
        if let Some(feed) = self.feed(stream) {
            act(&feed);
        }
    }

    /// Tells everyone who waits for this host that it is gone.
    pub(crate) fn abandon(&self) {
        self.close();
        lock(&self.replies).clear();
        let feeds: Vec<_> = lock(&self.feeds).drain().collect();
        for (_, feed) in feeds {
            feed.lost();
        }
        let inputs: Vec<_> = lock(&self.inputs).drain().collect();
        for (_, (port, seq)) in inputs {
            port.input_done(seq, Some(CommandError::new("unreachable", "the host went away before it was written")));
        }
    }
}
