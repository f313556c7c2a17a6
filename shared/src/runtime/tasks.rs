//! Tasks with an owner, a name and a meaning of their end.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info_span};

/// What the end of a task means for its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// Nothing: it served one connection or one request.
    Continue,
    /// The group cannot go on without it: everything is asked to end.
    Shutdown,
}

/// The tasks of one component. A panic ends the task that panicked and is logged; whether it ends more is the task's [`OnEnd`].
#[derive(Debug, Clone)]
pub struct TaskGroup {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Default for TaskGroup {
    fn default() -> Self {
        Self::new()
    }
}

impl TaskGroup {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self { tracker: TaskTracker::new(), cancel: CancellationToken::new() }
    }

    /// A group that is cancelled with this one and can be cancelled alone. Waiting for the parent waits for it too.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { tracker: self.tracker.clone(), cancel: self.cancel.child_token() }
    }

    /// Resolves when the group is asked to end.
    #[must_use]
    pub fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Asks every task to end.
    pub fn shutdown(&self) {
        self.cancel.cancel();
    }

    /// Starts a task. It is expected to watch [`Self::cancelled`].
    pub fn spawn<F>(&self, name: &'static str, on_end: OnEnd, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancel = self.cancel.clone();
        // Our own JoinHandle is awaited inside a tracked task, so that a panic is seen and not swallowed.
        #[expect(clippy::disallowed_methods, reason = "the one place where tasks are made")]
        let handle = tokio::spawn(task.instrument(info_span!("task", name)));
        let watcher = async move {
            if handle.await.is_err_and(|failure| failure.is_panic()) {
                error!(task = name, "task panicked");
            }
            if on_end == OnEnd::Shutdown {
                cancel.cancel();
            }
        };
        self.tracker.spawn(watcher);
    }

    /// Waits until every task has ended, for at most `grace`. Tells whether all did.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}
