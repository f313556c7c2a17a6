//! Live sockets by the credential that opened them, so that revoking a credential ends them at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

type Registry = Mutex<HashMap<String, (CancellationToken, usize)>>;

/// See the module.
#[derive(Debug, Default, Clone)]
pub struct Sockets {
    live: Arc<Registry>,
}

/// One live socket; leaves the registry when dropped.
#[derive(Debug)]
pub struct LiveSocket {
    live: Arc<Registry>,
    credential: String,
    revoked: CancellationToken,
}

impl Sockets {
    /// Enters a socket.
    #[must_use]
    pub fn enter(&self, credential: &str) -> LiveSocket {
        let mut live = lock(&self.live);
        let (revoked, count) = live.entry(credential.to_owned()).or_default();
        *count += 1;
        LiveSocket { live: self.live.clone(), credential: credential.to_owned(), revoked: revoked.clone() }
    }

    /// Ends every socket that this credential opened.
    pub fn revoke(&self, credential: &str) {
        if let Some((revoked, _)) = lock(&self.live).remove(credential) {
            revoked.cancel();
        }
    }
}

impl LiveSocket {
    /// Resolves when its credential is revoked.
    #[must_use]
    pub fn revoked(&self) -> CancellationToken {
        self.revoked.clone()
    }
}

impl Drop for LiveSocket {
    fn drop(&mut self) {
        let mut live = lock(&self.live);
        if let Some((_, count)) = live.get_mut(&self.credential) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                live.remove(&self.credential);
            }
        }
    }
}

fn lock(live: &Registry) -> MutexGuard<'_, HashMap<String, (CancellationToken, usize)>> {
    // Counters stay meaningful whatever a panicking holder did.
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revoking_ends_the_sockets_of_that_credential_only() {
        let sockets = Sockets::default();
        let (one, two, other) = (sockets.enter("a"), sockets.enter("a"), sockets.enter("b"));
        sockets.revoke("a");
        assert!(one.revoked().is_cancelled() && two.revoked().is_cancelled() && !other.revoked().is_cancelled());
        drop((one, two));
        assert!(!sockets.enter("a").revoked().is_cancelled());
    }
}
