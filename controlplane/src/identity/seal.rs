//! Secrets that have to be kept and used again are encrypted (AES-256-GCM) with a key that the database does not have.
//!
//! What is sealed is bound to what it is of, so that it opens nowhere else. The first key of the file seals, all of them open. The keys are kept in
//! memory. Whether the file was replaced is looked at while they are used, once a second, and when something is brought that another key sealed; it is
//! read only if it was.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use agentapi_shared::EventId;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

pub use super::key_file::KeyFileError;
use super::key_file::{self, Stamp};
use crate::auth::Secret;
pub use crate::store::records::Sealed;

/// Keys that still open. What an older one sealed is lost, which ends logins that nobody used for that many changes.
const KEYS_MAX: usize = 4;
/// How old the keys may be after their file changed. Looking costs microseconds, so this bounds the looks, not the delay.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// For errors.
const WHAT: &str = "keys that seal secrets";

/// Why something is not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file of keys.
    #[error("cannot use the keys that secrets are sealed with")]
    File(#[from] KeyFileError),
    /// A key in it.
    #[error("{path} holds a key that cannot be used; put back the file that was there")]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The library.
    #[error("cannot seal a secret")]
    Seal,
    /// Changed, of something else, or of a key that is gone.
    #[error("what was sealed cannot be opened")]
    Open,
}

impl Sealed {
    /// As a word, for a cookie.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}.{}", self.key_id, URL_SAFE_NO_PAD.encode(&self.ciphertext))
    }

    /// Reads such a word.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let (key_id, ciphertext) = text.split_once('.')?;
        let ciphertext = URL_SAFE_NO_PAD.decode(ciphertext).ok()?;
        Some(Self { key_id: key_id.to_owned(), ciphertext })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    id: String,
    /// 32 bytes, in base64.
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKeys {
    keys: Vec<StoredKey>,
}

/// The keys. The first seals.
struct Ring {
    first: (String, RandomizedNonceKey),
    others: Vec<(String, RandomizedNonceKey)>,
}

struct State {
    ring: Arc<Ring>,
    stamp: Option<Stamp>,
    looked: Instant,
}

/// See the module.
pub struct Sealer {
    path: PathBuf,
    state: RwLock<State>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sealer {
    /// With the keys of a file, which is made if it is not there.
    pub fn open_file(path: &Path) -> Result<Self, SealError> {
        let stored = key_file::keep(path, WHAT, || StoredKeys { keys: vec![StoredKey::generate()] })?;
        let ring = Arc::new(Ring::of(&stored).ok_or_else(|| SealError::Key { path: path.to_owned() })?);
        // Without a stamp the first look reads the file again: it may have changed since it was read.
        let state = State { ring, stamp: None, looked: Instant::now() };
        Ok(Self { path: path.to_owned(), state: RwLock::new(state) })
    }

    /// Seals a secret. `of` says what it is of, and has to be said to open it.
    pub fn seal(&self, secret: &Secret, of: &str) -> Result<Sealed, SealError> {
        let ring = self.ring();
        let (id, key) = &ring.first;
        let mut text = secret.expose().as_bytes().to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(of.as_bytes()), &mut text).map_err(|_| SealError::Seal)?;
        let ciphertext = [nonce.as_ref().as_slice(), &text].concat();
        Ok(Sealed { key_id: id.clone(), ciphertext })
    }

    /// Opens what was sealed.
    pub fn open(&self, sealed: &Sealed, of: &str) -> Result<Secret, SealError> {
        let mut ring = self.ring();
        if ring.key(&sealed.key_id).is_none() {
            // Another replica may have sealed it with a key that came into the file just now.
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            self.look(&mut state);
            ring = state.ring.clone();
        }
        let key = ring.key(&sealed.key_id).ok_or(SealError::Open)?;
        let (nonce, text) = sealed.ciphertext.split_at_checked(NONCE_LEN).ok_or(SealError::Open)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Open)?;
        let mut text = text.to_vec();
        let text = key.open_in_place(nonce, Aad::from(of.as_bytes()), &mut text).map_err(|_| SealError::Open)?;
        String::from_utf8(text.to_vec()).map(Secret::from_text).map_err(|_| SealError::Open)
    }

    /// Brings a new key into the file, which seals from then on. Replicas that share the file follow within
    /// a second.
    pub fn rotate(path: &Path) -> Result<(), SealError> {
        let mut stored: StoredKeys = key_file::read(path, WHAT)?;
        stored.keys.insert(0, StoredKey::generate());
        stored.keys.truncate(KEYS_MAX);
        Ok(key_file::replace(path, &stored)?)
    }

    /// The keys, after a look at the file if the last is a while ago.
    fn ring(&self) -> Arc<Ring> {
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.looked.elapsed() < LOOK_INTERVAL {
                return state.ring.clone();
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK_INTERVAL {
            state.looked = Instant::now();
            self.look(&mut state);
        }
        state.ring.clone()
    }

    /// Reads the file again if it changed. One that cannot be used is logged, and the keys before it stay in use.
    fn look(&self, state: &mut State) {
        // Taken before the file is read: one that changes meanwhile is read again at the next look.
        let stamp = Stamp::of(&self.path);
        if stamp.is_none() || stamp == state.stamp {
            return;
        }
        state.stamp = stamp;
        let stored: Result<StoredKeys, _> = key_file::read(&self.path, WHAT);
        match stored.map(|stored| Ring::of(&stored)) {
            Ok(Some(ring)) => {
                info!("keys that seal secrets were read");
                state.ring = Arc::new(ring);
            }
            Ok(None) => {
                warn!(path = %self.path.display(), "the new keys that seal secrets are not used: one of them is none")
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "the new keys that seal secrets are not used")
            }
        }
    }
}

impl StoredKey {
    fn generate() -> Self {
        let key: [u8; 32] = rand::random();
        Self { id: EventId::generate().to_string(), key: STANDARD.encode(key) }
    }
}

impl Ring {
    fn of(stored: &StoredKeys) -> Option<Self> {
        let key = |stored: &StoredKey| {
            let bytes = STANDARD.decode(&stored.key).ok()?;
            Some((stored.id.clone(), RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok()?))
        };
        let (first, others) = stored.keys.split_first()?;
        Some(Self { first: key(first)?, others: others.iter().map(key).collect::<Option<_>>()? })
    }

    fn key(&self, id: &str) -> Option<&RandomizedNonceKey> {
        let mut keys = std::iter::once(&self.first).chain(&self.others);
        keys.find(|(known, _)| known == id).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// After this the file is looked at again.
    async fn later() {
        tokio::time::advance(LOOK_INTERVAL).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_opens_for_what_it_is_of_and_stays_open_to_newer_keys() {
        let dir = std::env::temp_dir().join(format!("seal-{}", EventId::generate()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("sealing.keys");
        let (sealer, secret) = (Sealer::open_file(&path).unwrap(), Secret::generate("refresh-"));
        let sealed = sealer.seal(&secret, "a login").unwrap();
        assert_eq!(sealer.open(&sealed, "a login").unwrap(), secret);
        assert_eq!(Sealed::from_text(&sealed.to_text()).unwrap(), sealed);
        // Sealed twice is never the same: nobody sees that two are one.
        assert_ne!(sealer.seal(&secret, "a login").unwrap(), sealed);
        let shown = format!("{sealer:?}{}", String::from_utf8_lossy(&sealed.ciphertext));
        assert!(!shown.contains(secret.expose()));

        let elsewhere = Sealer::open_file(&dir.join("other.keys")).unwrap();
        assert!(matches!(sealer.open(&sealed, "another login"), Err(SealError::Open)));
        assert!(matches!(elsewhere.open(&sealed, "a login"), Err(SealError::Open)));
        for at in 0..sealed.ciphertext.len() {
            let mut changed = sealed.clone();
            changed.ciphertext[at] ^= 1;
            assert!(matches!(sealer.open(&changed, "a login"), Err(SealError::Open)), "{at}");
            changed.ciphertext.truncate(at);
            assert!(matches!(sealer.open(&changed, "a login"), Err(SealError::Open)), "{at}");
        }

        // A new key seals, also for those who run; all open what is older.
        Sealer::rotate(&path).unwrap();
        let other = Sealer::open_file(&path).unwrap();
        let newer = other.seal(&secret, "a login").unwrap();
        assert_ne!(newer.key_id, sealed.key_id);
        assert_eq!(sealer.open(&newer, "a login").unwrap(), secret);
        Sealer::rotate(&path).unwrap();
        later().await;
        let newest = sealer.seal(&secret, "a login").unwrap();
        assert!(newest.key_id != newer.key_id && newest.key_id != sealed.key_id);
        assert_eq!(other.open(&sealed, "a login").unwrap(), secret);
        // One that is spoilt or gone changes nothing, and one that is put back is used.
        let kept = fs::read_to_string(&path).unwrap();
        for spoilt in [Some("{"), None] {
            fs::remove_file(&path).unwrap();
            if let Some(text) = spoilt {
                fs::write(&path, text).unwrap();
            }
            later().await;
            assert_eq!(sealer.open(&newer, "a login").unwrap(), secret);
            fs::write(&path, &kept).unwrap();
        }
        for _ in 0..KEYS_MAX {
            Sealer::rotate(&path).unwrap();
        }
        let last = Sealer::open_file(&path).unwrap();
        assert!(matches!(last.open(&sealed, "a login"), Err(SealError::Open)));
        fs::remove_dir_all(dir).unwrap();
    }
}
