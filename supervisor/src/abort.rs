//! The end of a start from outside, at any time of it.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Given up by somebody who wanted it to end.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the start was given up")]
pub(crate) struct Aborted;

/// Shared by the one who starts something and the one who may not want it any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Abort(Arc<Mutex<Progress>>);

#[derive(Default)]
enum Progress {
    /// Nothing is waited for.
    #[default]
    Between,
    /// Something is, and this ends it.
    Waiting(Box<dyn FnOnce() + Send>),
    /// It is to end.
    Aborted,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Between => "Between",
            Self::Waiting(_) => "Waiting",
            Self::Aborted => "Aborted",
        })
    }
}

impl Abort {
    /// Ends what is waited for, and nothing is begun any more.
    pub(crate) fn abort(&self) {
        if let Progress::Waiting(end) = mem::replace(&mut *self.lock(), Progress::Aborted) {
            end();
        }
    }

    pub(crate) fn is_aborted(&self) -> bool {
        matches!(*self.lock(), Progress::Aborted)
    }

    /// Whether to go on.
    pub(crate) fn check(&self) -> Result<(), Aborted> {
        if self.is_aborted() { Err(Aborted) } else { Ok(()) }
    }

    /// From here on, and until the next of these, an abort does this; one that was before does it at once. It must not block. What it ends may be
    /// over by then.
    pub(crate) fn watch(&self, end: impl FnOnce() + Send + 'static) -> Result<(), Aborted> {
        let mut progress = self.lock();
        if matches!(*progress, Progress::Aborted) {
            drop(progress);
            end();
            return Err(Aborted);
        }
        *progress = Progress::Waiting(Box::new(end));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
