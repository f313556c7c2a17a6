//! Watching a session only to know that there was output: what `session wait --text` waits for.

use agentapi_shared::SessionId;
use agentapi_shared::viewer::{ClientMessage, ServerMessage, ViewerMode};

use super::stream::{Closed, Incoming, Position, Stream};
use crate::client::Client;
use crate::failure::{ExitKind, Failure};

/// A read-only viewer that looks at positions only.
#[derive(Debug)]
pub(crate) struct Activity {
    stream: Stream,
    seen: Option<Position>,
    ended: bool,
}

impl Activity {
    /// Begins to watch.
    pub(crate) async fn open(client: &Client, id: SessionId) -> Result<Self, Failure> {
        Ok(Self { stream: Stream::open(client, id, ViewerMode::Ro, None, None).await?, seen: None, ended: false })
    }

    /// Waits for output, and returns the end of all that has come; none: the session ended, and all was seen before.
    pub(crate) async fn next(&mut self) -> Result<Option<Position>, Failure> {
        let before = self.seen;
        while self.seen == before && !self.ended {
            let incoming = self.stream.next().await;
            self.take(incoming)?;
            // All that is there is one look at the screen, not one each.
            while let Some(incoming) = self.stream.next_at_once() {
                self.take(incoming)?;
            }
        }
        if self.seen == before {
            return Ok(None);
        }
        if let Some(Position { spawn, offset }) = self.seen {
            self.stream.tell(&ClientMessage::Ack { spawn, offset }).await.map_err(failure)?;
        }
        Ok(self.seen)
    }

    fn take(&mut self, incoming: Result<Incoming, Closed>) -> Result<(), Failure> {
        match incoming.map_err(failure)? {
            Incoming::Output(at, bytes) => {
                self.seen = Some(Position { offset: at.offset + bytes.len() as u64, ..at });
            }
            Incoming::Keyframe(at, _, _) => self.seen = Some(at),
            Incoming::Message(ServerMessage::Ended { .. }) => self.ended = true,
            Incoming::Message(_) => {}
        }
        Ok(())
    }
}

fn failure(closed: Closed) -> Failure {
    match closed {
        Closed::Final(failure) => failure,
        Closed::Lost => Failure::new(ExitKind::Unreachable, "the connection to the session's terminal was lost"),
    }
}
