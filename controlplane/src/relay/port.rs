//! What other tasks leave for one viewer: the outcome of its input. Bounded, because a viewer may have so much input under way only.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agentapi_shared::WindowSize;
use agentapi_shared::link::CommandError;
use tokio::sync::watch;

/// Input frames of one viewer that are not yet written. Overflow: further ones are refused as `input_full`.
pub(super) const INPUTS_MAX: usize = 256;
/// And their bytes together.
pub(super) const INPUT_BYTES_PENDING_MAX: usize = 1024 * 1024;

#[derive(Debug, Default)]
struct State {
    /// Numbers and sizes of frames under way.
    pending: VecDeque<(u64, usize)>,
    pending_bytes: usize,
    done: VecDeque<(u64, Option<CommandError>)>,
    wanted: Option<WindowSize>,
}

/// See the module.
#[derive(Debug)]
pub struct Port {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Default for Port {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Port {
    /// Whether a frame of so many bytes may be on its way; if so it is counted until its outcome is known.
    pub(super) fn begin_input(&self, seq: u64, bytes: usize) -> bool {
        let mut state = self.lock();
        if state.pending.len() >= INPUTS_MAX || state.pending_bytes + bytes > INPUT_BYTES_PENDING_MAX {
            return false;
        }
        state.pending.push_back((seq, bytes));
        state.pending_bytes += bytes;
        true
    }

    /// The outcome of a frame.
    pub fn input_done(&self, seq: u64, error: Option<CommandError>) {
        let mut state = self.lock();
        if let Some(index) = state.pending.iter().position(|(pending, _)| *pending == seq)
            && let Some((_, bytes)) = state.pending.remove(index)
        {
            state.pending_bytes -= bytes;
            state.done.push_back((seq, error));
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Whether there is an outcome to be told.
    pub(super) fn has_done(&self) -> bool {
        !self.lock().done.is_empty()
    }

    /// The next outcome to be told.
    pub(super) fn next_done(&self) -> Option<(u64, Option<CommandError>)> {
        self.lock().done.pop_front()
    }

    /// The size that the viewer would like.
    pub(super) fn want(&self, size: WindowSize) {
        self.lock().wanted = Some(size);
    }

    /// See [`Self::want`].
    pub(super) fn wanted(&self) -> Option<WindowSize> {
        self.lock().wanted
    }

    /// Changes whenever there is a new outcome.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves the queues whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
