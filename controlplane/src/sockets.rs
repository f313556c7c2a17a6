//! Live sockets with whoever opened them, so that what takes a right away ends them at once, and what expires ends them in time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentapi_shared::{ApiKeyId, HostId, OrgId, UserId};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::capability::Role;
use crate::clock;

/// Who opened a socket, and how they proved it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// With what.
    pub proof: Proof,
    /// Who.
    pub who: Who,
}

/// What somebody proved themselves with: its hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A token or a key.
    Token(String),
    /// A token of an issuer.
    Issuer(String),
    /// A browser's login.
    Browser(String),
}

/// Whom it proved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// Somebody in an organisation.
    Member {
        /// Which organisation.
        org: OrgId,
        /// Who.
        user: UserId,
        /// As what.
        role: Role,
        /// With which key, if it was one.
        key: Option<ApiKeyId>,
    },
    /// A host.
    Host(HostId),
}

type Registry = Mutex<Live>;

#[derive(Debug, Default)]
struct Live {
    next: u64,
    sockets: HashMap<u64, (Owner, CancellationToken)>,
}

/// See the module.
#[derive(Debug, Default, Clone)]
pub struct Sockets {
    live: Arc<Registry>,
}

/// One live socket; leaves the registry when dropped.
#[derive(Debug)]
pub struct LiveSocket {
    live: Arc<Registry>,
    number: u64,
    revoked: CancellationToken,
    expires: Option<Instant>,
}

/// Why a socket has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// What opened it was taken back, or is good for something else now.
    Revoked,
    /// Its time is over.
    Expired,
}

impl Sockets {
    /// Enters a socket. `expires_at`: when its credential is over, if it ever is.
    #[must_use]
    pub fn enter(&self, owner: Owner, expires_at: Option<OffsetDateTime>) -> LiveSocket {
        // What is over already has no time left.
        let left = expires_at.map(|at| (at - clock::now()).try_into().unwrap_or_default());
        let revoked = CancellationToken::new();
        let mut live = lock(&self.live);
        live.next += 1;
        let number = live.next;
        live.sockets.insert(number, (owner, revoked.clone()));
        LiveSocket {
            live: self.live.clone(),
            number,
            revoked,
            expires: left.map(|left: std::time::Duration| Instant::now() + left),
        }
    }

    /// Ends every socket whose owner is meant. Looks at all of them: this is rare, and there are some thousands.
    pub fn revoke(&self, meant: impl Fn(&Owner) -> bool) {
        for (owner, revoked) in lock(&self.live).sockets.values() {
            if meant(owner) {
                revoked.cancel();
            }
        }
    }

    /// Whoever has a live socket, each once.
    #[must_use]
    pub fn owners(&self) -> Vec<Owner> {
        let live = lock(&self.live);
        let owners: std::collections::HashSet<&Owner> = live.sockets.values().map(|(owner, _)| owner).collect();
        owners.into_iter().cloned().collect()
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
        lock(&self.live).sockets.remove(&self.number);
    }
}

fn lock(live: &Registry) -> MutexGuard<'_, Live> {
    // A map and a number stay meaningful whatever a panicking holder did.
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use time::Duration;

    use super::*;

    fn owner(hash: &str) -> Owner {
        Owner { proof: Proof::Token(hash.to_owned()), who: Who::Host(HostId::from_u128(1)) }
    }

    #[tokio::test]
    async fn revoking_ends_the_sockets_of_that_credential_only() {
        let sockets = Sockets::default();
        let [one, two, other] = ["a", "a", "b"].map(|hash| sockets.enter(owner(hash), None));
        assert_eq!(sockets.owners().len(), 2);
        sockets.revoke(|found| *found == owner("a"));
        let lapse = |socket: &LiveSocket| socket.lapsed().now_or_never();
        assert_eq!([lapse(&one), lapse(&two), lapse(&other)], [Some(Lapse::Revoked), Some(Lapse::Revoked), None]);
        drop((one, two));
        assert_eq!(lapse(&sockets.enter(owner("a"), None)), None);
        assert_eq!(sockets.owners(), [owner("b")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_ends_its_sockets_when_it_expires_and_not_before() {
        let sockets = Sockets::default();
        let socket = sockets.enter(owner("a"), Some(clock::now() + Duration::hours(1)));
        tokio::time::advance(std::time::Duration::from_secs(3_590)).await;
        assert_eq!(socket.lapsed().now_or_never(), None);
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        assert_eq!(socket.lapsed().await, Lapse::Expired);
        let over = sockets.enter(owner("a"), Some(clock::now() - Duration::hours(1)));
        assert_eq!(over.lapsed().await, Lapse::Expired);
    }
}
