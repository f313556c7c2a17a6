//! Tokens of our own: for callers who bring none that the database takes (keys of programs, other issuers), so that row level security decides
//! for them as well.
//!
//! The project accepts us as an issuer and fetches our keys, which takes it a while. So a new key is announced long before it signs, and two
//! are published at once. The file of keys is looked at again while tokens are made: another replica may have changed it.

mod keys;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use agentapi_shared::UserId;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;
use tracing::warn;

pub use keys::{ANNOUNCED_FOR, Rotation};

use self::keys::KeyRing;
pub use super::key_file::KeyFileError;
use super::key_file::Stamp;
use crate::clock;
use crate::store::records::CallerToken;

/// A token is good for this long: what a user loses, they lose in the database at once, and everywhere after this.
const LIFETIME: Duration = Duration::minutes(5);
/// And not handed out any more this long before its end, so that none is over when it arrives.
const RENEWED_BEFORE: Duration = Duration::seconds(60);
/// Tokens that are kept. Overflow: those that are nearly over go, then all; each then costs one signature again.
const KEPT_MAX: usize = 10_000;
/// How old the keys may be after their file changed; far less than a key is announced for.
const LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

const _: () = assert!(ANNOUNCED_FOR.whole_seconds() > 2 * LIFETIME.whole_seconds());

/// Why no token is made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The file of keys.
    #[error("cannot use the keys that tokens are signed with")]
    File(#[from] KeyFileError),
    /// A key in it.
    #[error("{path} holds a key that cannot be used; put back the file that was there, or rotate at once")]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The library.
    #[error("cannot sign a token")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// One is announced already.
    #[error("a new key is announced already and signs from {from}; rotate again after that, or at once")]
    Announced {
        /// When it begins.
        from: OffsetDateTime,
    },
}

#[derive(Debug)]
struct State {
    ring: Arc<KeyRing>,
    stamp: Option<Stamp>,
    looked: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Minter {
    path: PathBuf,
    issuer: String,
    state: RwLock<State>,
    kept: Mutex<HashMap<UserId, (CallerToken, OffsetDateTime)>>,
}

impl Minter {
    /// With the keys of a file, which is made if it is not there. `issuer` is the URL at which the project finds us.
    pub fn open(path: &Path, issuer: &str) -> Result<Self, MintError> {
        let stamp = Stamp::of(path);
        let ring = Arc::new(KeyRing::keep(path, clock::now())?);
        let state = RwLock::new(State { ring, stamp, looked: Instant::now() });
        let issuer = issuer.trim_end_matches('/').to_owned();
        Ok(Self { path: path.to_owned(), issuer, state, kept: Mutex::default() })
    }

    /// What our tokens say in `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token in the name of a user, made or kept.
    pub fn token(&self, user: UserId) -> Result<CallerToken, MintError> {
        let now = clock::now();
        let is_good = |until: OffsetDateTime| now < until - RENEWED_BEFORE;
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((token, _)) = kept.get(&user).filter(|(_, until)| is_good(*until)) {
                return Ok(token.clone());
            }
        }
        // Signed outside of the lock: others do not wait. Two who come at once get one each.
        let until = now + LIFETIME;
        let claims = json!({
            "iss": self.issuer, "aud": "authenticated", "role": "authenticated", "sub": user.to_string(),
            "iat": now.unix_timestamp(), "exp": until.unix_timestamp(),
        });
        let token = CallerToken::new(&self.ring().signer(now).sign(&claims)?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (_, until)| is_good(*until));
        }
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(user, (token.clone(), until));
        Ok(token)
    }

    /// Our keys, as `/.well-known/jwks.json` publishes them.
    #[must_use]
    pub fn key_set(&self) -> Value {
        self.ring().published()
    }

    /// What `/.well-known/openid-configuration` says: as much as a project needs to find the keys.
    #[must_use]
    pub fn description(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/.well-known/jwks.json", self.issuer),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// Brings a new key into the file. Replicas that share it follow.
    pub fn rotate(path: &Path, rotation: Rotation) -> Result<(), MintError> {
        KeyRing::read(path)?.rotate(path, rotation, clock::now())
    }

    /// The keys, after a look at their file if the last is a while ago.
    fn ring(&self) -> Arc<KeyRing> {
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.looked.elapsed() < LOOK_INTERVAL {
                return state.ring.clone();
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(&self.path);
        if state.looked.elapsed() >= LOOK_INTERVAL && stamp != state.stamp {
            match KeyRing::read(&self.path) {
                Ok(ring) => state.ring = Arc::new(ring),
                Err(error) => {
                    warn!(error = agentapi_shared::runtime::chain(&error), "the keys of our tokens stay as they were");
                }
            }
            state.stamp = stamp;
        }
        state.looked = Instant::now();
        state.ring.clone()
    }
}

#[cfg(test)]
mod tests;
