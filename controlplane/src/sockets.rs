//! Live sockets by the credential that opened them, so that revoking a credential ends them at once, and one that expires ends them in time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock;

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
    expires: Option<Instant>,
}

/// Why a credential is no longer good for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
}

impl Sockets {
    /// Enters a socket. `expires_at`: when its credential is over, if it ever is.
    #[must_use]
    pub fn enter(&self, credential: &str, expires_at: Option<OffsetDateTime>) -> LiveSocket {
        // What is over already has no time left.
        let left = expires_at.map(|at| (at - clock::now()).try_into().unwrap_or_default());
        let mut live = lock(&self.live);
        let (revoked, count) = live.entry(credential.to_owned()).or_default();
        *count += 1;
        LiveSocket {
            live: self.live.clone(),
            credential: credential.to_owned(),
            revoked: revoked.clone(),
            expires: left.map(|left: std::time::Duration| Instant::now() + left),
        }
    }

    /// Ends every socket that this credential opened.
    pub fn revoke(&self, credential: &str) {
        if let Some((revoked, _)) = lock(&self.live).remove(credential) {
            revoked.cancel();
        }
    }
}

impl LiveSocket {
    /// Resolves when the socket has to end. Cancel safe; without an expiry there is no timer.
    pub async fn lapsed(&self) -> Lapse {
        let expired = async {
            match self.expires {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.revoked.cancelled() => Lapse::Revoked,
            () = expired => Lapse::Expired,
        }
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
    use futures_util::FutureExt as _;
    use time::Duration;

    use super::*;

    #[tokio::test]
    async fn revoking_ends_the_sockets_of_that_credential_only() {
        let sockets = Sockets::default();
        let (one, two, other) = (sockets.enter("a", None), sockets.enter("a", None), sockets.enter("b", None));
        sockets.revoke("a");
        let lapse = |socket: &LiveSocket| socket.lapsed().now_or_never();
        assert_eq!([lapse(&one), lapse(&two), lapse(&other)], [Some(Lapse::Revoked), Some(Lapse::Revoked), None]);
        drop((one, two));
        assert_eq!(lapse(&sockets.enter("a", None)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_ends_its_sockets_when_it_expires_and_not_before() {
        let sockets = Sockets::default();
        let socket = sockets.enter("a", Some(clock::now() + Duration::hours(1)));
        tokio::time::advance(std::time::Duration::from_secs(3_590)).await;
        assert_eq!(socket.lapsed().now_or_never(), None);
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        assert_eq!(socket.lapsed().await, Lapse::Expired);
        let over = sockets.enter("a", Some(clock::now() - Duration::hours(1)));
        assert_eq!(over.lapsed().await, Lapse::Expired);
    }
}
