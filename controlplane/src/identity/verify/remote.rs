//! The keys that an issuer publishes: fetched at the start, again when they are old or when a token names one that is not among them, and kept
//! for a while when the issuer is not there.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::{Client, Url};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::TokenError;
use super::keys::{PublicKey, PublishedSet};
use super::token::Compact;
use crate::identity::fetch::{self, FetchError};

/// Keys older than this are fetched again at the next token. What is published may be cached for as long on its way.
const FRESH: Duration = Duration::from_secs(600);
/// Between two fetches: whoever makes up names of keys makes us ask no more often.
const PAUSE: Duration = Duration::from_secs(10);
/// Keys older than this are not used, so that one which was taken back does not stay good because its issuer is not reached.
const AGE_MAX: Duration = Duration::from_secs(3600);

const _: () = assert!(PAUSE.as_secs() < FRESH.as_secs() && FRESH.as_secs() < AGE_MAX.as_secs());

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// No answer that can be used.
    #[error("cannot fetch the keys of an issuer")]
    Fetch(#[from] FetchError),
    /// Its keys are too old, and it is not reached.
    #[error("the issuer was not reached for so long that its keys are not used any more")]
    Old,
}

#[derive(Debug)]
struct Fetched {
    keys: HashMap<String, PublicKey>,
    at: Instant,
}

/// See the module.
#[derive(Debug)]
pub(in crate::identity) struct RemoteKeys {
    client: Client,
    /// Where they are published.
    place: Url,
    current: RwLock<Option<Arc<Fetched>>>,
    /// When the last fetch ended. Whoever holds it fetches; there is one at a time.
    fetching: Mutex<Option<Instant>>,
}

impl RemoteKeys {
    pub(in crate::identity) fn new(client: Client, place: Url) -> Self {
        Self { client, place, current: RwLock::default(), fetching: Mutex::default() }
    }

    /// Gets the keys for the first time. Gives how many there are.
    pub(in crate::identity) async fn start(&self) -> Result<usize, KeysError> {
        let mut last = self.fetching.lock().await;
        let fetched = self.fetch().await;
        *last = Some(Instant::now());
        fetched.map(|fetched| self.put(fetched).keys.len())
    }

    /// Whether a key of this name is published, as far as is known.
    pub(super) fn knows(&self, kid: &str) -> bool {
        self.snapshot().is_some_and(|fetched| fetched.keys.contains_key(kid))
    }

    /// What a token says, once it is shown that the key which it names signed it.
    pub(in crate::identity) async fn payload(&self, compact: &Compact<'_>) -> Result<Vec<u8>, TokenError> {
        let kid = compact.kid.as_deref().ok_or(TokenError::Key)?;
        let key = self.key(kid).await?.ok_or(TokenError::Key)?;
        compact.payload(&key)
    }

    async fn key(&self, kid: &str) -> Result<Option<PublicKey>, TokenError> {
        let now = self.snapshot();
        let age = now.as_ref().map(|fetched| fetched.at.elapsed());
        let found = now.and_then(|fetched| fetched.keys.get(kid).cloned());
        match age {
            Some(age) if found.is_some() && age <= FRESH => return Ok(found),
            // One caller fetches; the others go on with what is there.
            Some(age) if found.is_some() && age <= AGE_MAX => match self.fetching.try_lock() {
                Ok(last) => self.refresh(last).await,
                Err(_busy) => return Ok(found),
            },
            _ => self.refresh(self.fetching.lock().await).await,
        }
        match self.snapshot() {
            Some(fetched) if fetched.at.elapsed() <= AGE_MAX => Ok(fetched.keys.get(kid).cloned()),
            _ => Err(TokenError::Unavailable(Arc::new(KeysError::Old))),
        }
    }

    /// Fetches, unless that was done a moment ago. A failure changes nothing.
    async fn refresh(&self, mut last: tokio::sync::MutexGuard<'_, Option<Instant>>) {
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        match self.fetch().await {
            Ok(fetched) => {
                let keys = self.put(fetched).keys.len();
                info!(keys, "the keys of an issuer were fetched");
            }
            Err(error) => {
                warn!(error = agentapi_shared::runtime::chain(&error), "an issuer's keys are kept as they were")
            }
        }
        *last = Some(Instant::now());
    }

    async fn fetch(&self) -> Result<Fetched, KeysError> {
        let set: PublishedSet = fetch::json(self.client.get(self.place.clone()), &self.place).await?;
        Ok(Fetched { keys: set.by_name(), at: Instant::now() })
    }

    fn snapshot(&self) -> Option<Arc<Fetched>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, fetched: Fetched) -> Arc<Fetched> {
        let fetched = Arc::new(fetched);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(fetched.clone());
        fetched
    }
}
