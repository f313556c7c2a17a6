//! The leases of the viewers that this process serves. In the store they are how viewers of all control planes are counted, and how any of them knows
//! which sessions are watched.
//!
//! A lease is taken with the record of an attachment and given up with that of its end. In between a job renews all of them; a store that is away
//! ends no terminal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agentapi_shared::ViewerId;
use tokio_util::sync::CancellationToken;

/// Without a renewal a viewer counts for so long: whoever finds no place because a control plane died finds it then.
pub const LEASE: Duration = Duration::from_secs(60);

type Held = Mutex<HashMap<ViewerId, CancellationToken>>;

/// See the module.
#[derive(Debug, Default, Clone)]
pub struct Leases {
    held: Arc<Held>,
}

/// One of them; no longer renewed when dropped.
#[derive(Debug)]
pub struct Lease {
    held: Arc<Held>,
    id: ViewerId,
    replaced: CancellationToken,
}

impl Leases {
    /// Keeps one that the store gave.
    #[must_use]
    pub fn keep(&self, id: ViewerId) -> Lease {
        let replaced = CancellationToken::new();
        lock(&self.held).insert(id, replaced.clone());
        Lease { held: self.held.clone(), id, replaced }
    }

    /// All that are to be renewed.
    #[must_use]
    pub fn held(&self) -> Vec<ViewerId> {
        lock(&self.held).keys().copied().collect()
    }

    /// Tells a viewer that another one took its place, if it is served here.
    pub fn replaced(&self, id: ViewerId) {
        if let Some(replaced) = lock(&self.held).get(&id) {
            replaced.cancel();
        }
    }
}

impl Lease {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> ViewerId {
        self.id
    }

    /// Resolves when another viewer took its place. Cancel safe.
    pub async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.held).remove(&self.id);
    }
}

fn lock(held: &Held) -> MutexGuard<'_, HashMap<ViewerId, CancellationToken>> {
    // A map stays meaningful whatever a panicking holder did.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
