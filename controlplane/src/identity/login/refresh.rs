//! Keeping logins at Supabase Auth alive: the token of a login now, renewed before it is over.
//!
//! What renews it is good once, and lies encrypted in the store. One task at a time uses it: within this process by a lock, among replicas
//! by taking it from the store for a while. Once it was used the rest is done whatever becomes of the request that it was used for,
//! since what it was exchanged for must not be lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use agentapi_shared::runtime::{OnEnd, TaskGroup, chain};
use time::{Duration, OffsetDateTime};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::error;

use super::{LoginError, SupabaseAuth};
use crate::auth::Secret;
use crate::clock;
use crate::identity::seal::Sealer;
use crate::identity::verify::Caller;
use crate::store::records::{CallerToken, RefreshTaken, Sealed};
use crate::store::{LoginStore, StoreError};

/// A token is renewed this long before its end, so that none is over when it arrives.
const RENEWED_BEFORE: Duration = Duration::seconds(60);
/// A replica has it for this long: the issuer's answer and the store's, with room. One that dies meanwhile keeps others waiting for as long.
const TAKEN_FOR: Duration = Duration::seconds(30);
/// Somebody who waits for another replica waits for this long.
const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(10);
/// Between two questions whether another replica is done.
const ASK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);
/// A store that does not take what it has to keep is asked again, within the time for which it was taken.
const PUTS_MAX: u32 = 5;
/// Logins whose tokens are kept here. Overflow: those that nobody is asking for go; they are renewed when they come back.
const KNOWN_MAX: usize = 10_000;

/// Why a login has no token now.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RefreshError {
    /// It ended: here, or at the issuer.
    #[error("the login is over; log in again")]
    Over,
    /// Another replica is at it for longer than anybody waits.
    #[error("the login is being renewed; try again")]
    Busy,
    /// The issuer.
    #[error("the login cannot be renewed now")]
    Login(#[source] Arc<LoginError>),
    /// The store.
    #[error("the store cannot be asked for the login")]
    Store(#[source] Arc<StoreError>),
    /// We are ending.
    #[error("the control plane is ending")]
    Ending,
}

/// The token of one login. Whoever holds the lock renews it.
type Slot = Arc<tokio::sync::Mutex<Option<Known>>>;

/// What is known of a login.
#[derive(Debug, Clone)]
enum Known {
    /// No issuer is behind it.
    Own,
    /// Who it is of, with a token.
    Of(Caller),
}

impl Known {
    fn is_good(&self) -> bool {
        match self {
            Self::Own => true,
            Self::Of(caller) => clock::now() < caller.expires_at - RENEWED_BEFORE,
        }
    }

    fn caller(self) -> Option<Caller> {
        match self {
            Self::Own => None,
            Self::Of(caller) => Some(caller),
        }
    }
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Refresher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    auth: Arc<SupabaseAuth>,
    sealer: Arc<Sealer>,
    store: Arc<dyn LoginStore>,
    tasks: TaskGroup,
    known: Mutex<HashMap<String, Slot>>,
}

impl Refresher {
    /// With the tasks of whoever ends last: what was used is stored before they end.
    #[must_use]
    pub fn new(auth: Arc<SupabaseAuth>, sealer: Arc<Sealer>, store: Arc<dyn LoginStore>, tasks: TaskGroup) -> Self {
        Self(Arc::new(Inner { auth, sealer, store, tasks, known: Mutex::default() }))
    }

    /// Encrypts what keeps a login alive, for the store. `login` is the hash of its cookie.
    pub fn sealed(&self, login: &str, refresh: &Secret) -> Result<Sealed, LoginError> {
        Ok(self.0.sealer.seal(refresh, &sealed_of(login))?)
    }

    /// The token of a login, good for a while; none if no issuer is behind it.
    pub async fn token(&self, login: &str) -> Result<Option<CallerToken>, RefreshError> {
        Ok(self.caller(login).await?.map(|caller| caller.token))
    }

    /// Who a login is of, with such a token.
    pub async fn caller(&self, login: &str) -> Result<Option<Caller>, RefreshError> {
        let slot = self.0.slot(login);
        if let Ok(known) = slot.try_lock()
            && let Some(known) = known.as_ref().filter(|known| known.is_good())
        {
            return Ok(known.clone().caller());
        }
        let (answer, answered) = oneshot::channel();
        let (inner, login) = (self.0.clone(), login.to_owned());
        // In a task of its own: a browser that hangs up must not interrupt it.
        self.0.tasks.spawn("login refresh", OnEnd::Continue, async move {
            let mut known = slot.lock().await;
            let renewed = match known.as_ref().filter(|known| known.is_good()) {
                // Whoever had the lock before did it.
                Some(known) => Ok(known.clone()),
                None => inner.renew(&login).await,
            };
            *known = renewed.as_ref().ok().cloned();
            let _gone = answer.send(renewed.map(Known::caller));
        });
        answered.await.unwrap_or(Err(RefreshError::Ending))
    }

    /// Forgets a login that ended here.
    pub fn forget(&self, login: &str) {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).remove(login);
    }
}

impl Inner {
    fn slot(&self, login: &str) -> Slot {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX && !known.contains_key(login) {
            known.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        known.entry(login.to_owned()).or_default().clone()
    }

    async fn renew(&self, login: &str) -> Result<Known, RefreshError> {
        let Some((sealed, until)) = self.take(login).await? else { return Ok(Known::Own) };
        let renewed = self.exchanged(login, &sealed).await;
        let (next, caller) = match renewed {
            Ok((next, caller)) => (Some(next), Ok(Known::Of(caller))),
            Err(error) => (None, Err(error)),
        };
        self.put(login, until, next).await;
        caller
    }

    /// Uses what renews a login. Gives what renews it the next time, and the token.
    async fn exchanged(&self, login: &str, sealed: &Sealed) -> Result<(Sealed, Caller), RefreshError> {
        // Sealed with a key that is gone: nothing can be done with it.
        let refresh = self.sealer.open(sealed, &sealed_of(login)).map_err(|_| RefreshError::Over)?;
        let grant = self.auth.refresh(&refresh).await.map_err(|error| match error {
            LoginError::Over => RefreshError::Over,
            error => RefreshError::Login(Arc::new(error)),
        })?;
        let next = self.sealer.seal(&grant.refresh, &sealed_of(login));
        let next = next.map_err(|error| RefreshError::Login(Arc::new(error.into())))?;
        Ok((next, grant.caller))
    }

    /// Takes what renews a login, for this long; none if nothing does.
    async fn take(&self, login: &str) -> Result<Option<(Sealed, OffsetDateTime)>, RefreshError> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let now = clock::now();
            let until = now + TAKEN_FOR;
            let taken = self.store.take_refresh(login.to_owned(), now, until).await;
            match taken.map_err(|error| RefreshError::Store(Arc::new(error)))? {
                RefreshTaken::Taken(sealed) => return Ok(Some((sealed, until))),
                RefreshTaken::Gone => return Ok(None),
                RefreshTaken::Busy if Instant::now() >= deadline => return Err(RefreshError::Busy),
                // The other one is in another process: there is nothing to wait on.
                RefreshTaken::Busy => tokio::time::sleep(ASK_INTERVAL).await,
            }
        }
    }

    /// Stores what came of it. If it cannot be, this login goes on here until its token is over.
    async fn put(&self, login: &str, until: OffsetDateTime, next: Option<Sealed>) {
        for attempt in 1..=PUTS_MAX {
            match self.store.put_refresh(login.to_owned(), until, next.clone()).await {
                Err(StoreError::Unavailable(_)) if attempt < PUTS_MAX => {
                    tokio::time::sleep(ASK_INTERVAL * attempt).await
                }
                // A login that ended meanwhile.
                Ok(()) | Err(StoreError::Stale | StoreError::NotFound) => return,
                Err(failure) => error!(error = chain(&failure), "what keeps a login alive could not be stored"),
            }
        }
    }
}

/// What is sealed is of one login, and opens for no other.
fn sealed_of(login: &str) -> String {
    format!("refresh|{login}")
}

#[cfg(test)]
mod tests;
