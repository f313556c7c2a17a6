//! Blocks of host user ids, one for each session.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agentapi_shared::jail::SLOTS_MAX;

/// The block that no session gets: agents are asked for their versions with it.
pub(crate) const PROBE_SLOT: u32 = SLOTS_MAX - 1;
/// Neither this one: the self-test has it.
pub(crate) const SELF_TEST_SLOT: u32 = SLOTS_MAX - 2;

/// The blocks that are taken.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<BTreeSet<u32>>);

impl Slots {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that a session on disk holds.
    pub(crate) fn hold(&self, slot: u32) {
        self.lock().insert(slot);
    }

    /// The lowest that no session holds.
    pub(crate) fn take(&self) -> Option<u32> {
        let mut taken = self.lock();
        let free = (0..SELF_TEST_SLOT).find(|slot| !taken.contains(slot))?;
        taken.insert(free);
        Some(free)
    }

    /// Of a session that is gone.
    pub(crate) fn release(&self, slot: u32) {
        self.lock().remove(&slot);
    }
}
