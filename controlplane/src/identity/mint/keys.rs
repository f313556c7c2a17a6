//! The keys that sign our tokens: at most two, one that signs and one that is announced or was the last.

use std::fmt;
use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

use super::MintError;
use crate::identity::key_file;

/// A new key is published for this long before it signs: a project takes up to half an hour to see it, and answers are cached on their way.
pub const ANNOUNCED_FOR: Duration = Duration::hours(1);
/// A key that signed and one that will.
const KEYS_MAX: usize = 2;
/// For errors.
const WHAT: &str = "keys that sign tokens";

/// How a new key comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// It is published now and signs in an hour; nothing is interrupted.
    Announced,
    /// It signs now and the others are gone: the answer to a key that leaked. Until the project has fetched it, our tokens are refused.
    AtOnce,
}

/// What the file holds of a key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// PKCS #8, in base64.
    pkcs8: String,
    /// Seconds since 1970.
    signs_from: i64,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRing {
    keys: Vec<Stored>,
}

/// A key, ready to sign.
pub(super) struct SigningKey {
    kid: String,
    key: EncodingKey,
    jwk: Value,
    signs_from: OffsetDateTime,
    pkcs8: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// The keys of a file, in the order in which they sign. There is at least one.
#[derive(Debug)]
pub(super) struct KeyRing {
    first: SigningKey,
    second: Option<SigningKey>,
}

impl KeyRing {
    /// Reads the file, or makes it with one key.
    pub(super) fn keep(path: &Path, now: OffsetDateTime) -> Result<Self, MintError> {
        let unusable = || MintError::Key { path: path.to_owned() };
        let new = SigningKey::generate(now).ok_or_else(unusable)?;
        let stored = key_file::keep(path, WHAT, || StoredRing { keys: vec![new.stored()] })?;
        Self::of(stored).ok_or_else(unusable)
    }

    pub(super) fn read(path: &Path) -> Result<Self, MintError> {
        Self::of(key_file::read(path, WHAT)?).ok_or_else(|| MintError::Key { path: path.to_owned() })
    }

    fn of(stored: StoredRing) -> Option<Self> {
        if stored.keys.len() > KEYS_MAX {
            return None;
        }
        let mut keys = Vec::with_capacity(KEYS_MAX);
        for stored in stored.keys {
            let from = OffsetDateTime::from_unix_timestamp(stored.signs_from).ok()?;
            keys.push(SigningKey::of(&STANDARD.decode(&stored.pkcs8).ok()?, from)?);
        }
        keys.sort_by_key(|key| key.signs_from);
        let mut keys = keys.into_iter();
        Some(Self { first: keys.next()?, second: keys.next() })
    }

    /// The newest key whose time has come. If the clock went back, the oldest.
    pub(super) fn signer(&self, now: OffsetDateTime) -> &SigningKey {
        self.second.as_ref().filter(|key| key.signs_from <= now).unwrap_or(&self.first)
    }

    pub(super) fn published(&self) -> Value {
        let keys: Vec<&Value> =
            [Some(&self.first), self.second.as_ref()].into_iter().flatten().map(|key| &key.jwk).collect();
        json!({ "keys": keys })
    }

    pub(super) fn rotate(self, path: &Path, rotation: Rotation, now: OffsetDateTime) -> Result<(), MintError> {
        let announced = self.second.as_ref().filter(|key| key.signs_from > now);
        let from = match (rotation, announced) {
            (Rotation::Announced, Some(key)) => return Err(MintError::Announced { from: key.signs_from }),
            (Rotation::Announced, None) => now + ANNOUNCED_FOR,
            (Rotation::AtOnce, _) => now,
        };
        let new = SigningKey::generate(from).ok_or_else(|| MintError::Key { path: path.to_owned() })?;
        let kept = (rotation == Rotation::Announced).then(|| self.signer(now).stored());
        let keys = kept.into_iter().chain([new.stored()]).collect();
        Ok(key_file::replace(path, &StoredRing { keys })?)
    }
}

impl SigningKey {
    fn generate(signs_from: OffsetDateTime) -> Option<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
        Self::of(pair.to_pkcs8v1().ok()?.as_ref(), signs_from)
    }

    /// None: no key of this kind.
    fn of(pkcs8: &[u8], signs_from: OffsetDateTime) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?;
        // A point, uncompressed: 4, x, y.
        let [4, point @ ..] = pair.public_key().as_ref() else { return None };
        let (x, y) = point.split_at_checked(32)?;
        let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
        // The name of a key is its thumbprint (RFC 7638): the same for all who have it.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical));
        let jwk = json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": x, "y": y });
        Some(Self { kid, key: EncodingKey::from_ec_der(pkcs8), jwk, signs_from, pkcs8: STANDARD.encode(pkcs8) })
    }

    fn stored(&self) -> Stored {
        Stored { pkcs8: self.pkcs8.clone(), signs_from: self.signs_from.unix_timestamp() }
    }

    pub(super) fn sign(&self, claims: &Value) -> Result<String, MintError> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).map_err(MintError::Sign)
    }
}

#[cfg(test)]
impl SigningKey {
    /// As it is published.
    pub(super) fn published_alone(&self) -> &Value {
        &self.jwk
    }
}
