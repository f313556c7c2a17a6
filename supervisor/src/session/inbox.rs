//! The commands of a session in their order. While something goes on that they have to wait for, a stop alone passes the others.

use std::collections::VecDeque;

use agentapi_shared::link::{Command, CommandError};
use tokio::sync::{mpsc, oneshot};

use super::Answer;

/// Commands that wait for a session, and as many again behind a start. Overflow: the command is refused as `busy`.
pub(super) const COMMANDS_MAX: usize = 64;

/// A command, and who waits for its outcome.
pub(super) type Asked = (Command, oneshot::Sender<Answer>);

/// Whether there is something to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    Yes,
    No,
}

/// See the module.
pub(crate) struct Inbox {
    queue: mpsc::Receiver<Asked>,
    deferred: VecDeque<Asked>,
}

impl Inbox {
    pub(super) fn new(queue: mpsc::Receiver<Asked>) -> Self {
        Self { queue, deferred: VecDeque::new() }
    }

    /// The next command that can be done; none if no more will come. May be dropped at any await.
    pub(super) async fn next(&mut self, busy: Busy) -> Option<Asked> {
        if busy == Busy::No
            && let Some(first) = self.deferred.pop_front()
        {
            return Some(first);
        }
        loop {
            let asked = self.queue.recv().await?;
            if busy == Busy::No || matches!(asked.0, Command::Stop { .. }) {
                return Some(asked);
            }
            if self.deferred.len() < COMMANDS_MAX {
                self.deferred.push_back(asked);
            } else {
                // Whoever asked may have given up.
                let _told = asked.1.send(Err(full()));
            }
        }
    }
}

/// What whoever asks too much is told.
pub(super) fn full() -> CommandError {
    CommandError::new("busy", "too many requests wait for this session")
}
