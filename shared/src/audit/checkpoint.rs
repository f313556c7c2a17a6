//! A chain's end, signed: kept outside the database it shows that whoever may rewrite the database rewrote the chain.
//!
//! Ed25519 (RFC 8032) over `agentapi.audit.checkpoint.1`, a zero byte, the organisation as 16 bytes, the number as 8, the chain's value as 32
//! and the time in microseconds since 1970 as 8, all in network order.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::chain::{ChainHash, Seal};
use super::entry::{in_microseconds, time_text};
use crate::id::OrgId;

const TAG: &[u8] = b"agentapi.audit.checkpoint.1\0";
const PUBLIC_PREFIX: &str = "ed25519:";

/// One line of the file that checkpoints are written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Whose chain.
    pub org_id: OrgId,
    /// How many records it has.
    pub number: u64,
    /// Its value after them.
    pub hash: ChainHash,
    /// When this was signed.
    #[serde(with = "micros")]
    pub at: OffsetDateTime,
    /// Which key signed.
    pub key_id: String,
    /// Base64.
    pub signature: String,
}

impl Checkpoint {
    /// Its place in the chain.
    #[must_use]
    pub fn seal(&self) -> Seal {
        Seal { number: self.number, hash: self.hash }
    }
}

fn message(org: OrgId, seal: Seal, at: OffsetDateTime) -> Vec<u8> {
    let micros = i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
    let org = org.as_u128().to_be_bytes();
    [TAG, &org, &seal.number.to_be_bytes(), seal.hash.as_bytes(), &micros.to_be_bytes()].concat()
}

/// What checkpoints are signed with.
#[derive(Debug)]
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not what was written.
    #[error("not a signing key: expected 44 characters of base64")]
    Secret,
    /// Not a public one.
    #[error("not a public key: expected `ed25519:` and 44 characters of base64")]
    Public,
    /// No randomness.
    #[error("no random bytes for a new key")]
    Random,
}

impl SigningKey {
    /// A new one, and the text to keep it by.
    pub fn generate() -> Result<(Self, String), KeyError> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| KeyError::Random)?;
        let text = STANDARD.encode(seed);
        Ok((Self::from_text(&text)?, text))
    }

    /// One that was kept.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let seed = STANDARD.decode(text.trim()).map_err(|_| KeyError::Secret)?;
        Ok(Self { pair: Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Secret)? })
    }

    /// What its signatures are checked with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        // An Ed25519 key has 32 bytes.
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs a chain's end.
    #[must_use]
    pub fn sign(&self, org: OrgId, seal: Seal, at: OffsetDateTime) -> Checkpoint {
        // What is not written is not signed.
        let at = in_microseconds(at);
        let signature = self.sign_bytes(&message(org, seal, at));
        Checkpoint { org_id: org, number: seal.number, hash: seal.hash, at, key_id: self.public().id(), signature }
    }

    /// A signature in base64. Each kind of message begins with a tag of its own.
    pub(super) fn sign_bytes(&self, message: &[u8]) -> String {
        STANDARD.encode(self.pair.sign(message))
    }
}

/// What a checkpoint is checked with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// A short name of it.
    #[must_use]
    pub fn id(&self) -> String {
        Sha256::digest(self.0).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether its owner signed this.
    #[must_use]
    pub fn signed(&self, checkpoint: &Checkpoint) -> bool {
        let message = message(checkpoint.org_id, checkpoint.seal(), checkpoint.at);
        self.signed_bytes(&message, &checkpoint.signature)
    }

    pub(super) fn signed_bytes(&self, message: &[u8], signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, &signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let encoded = text.trim().strip_prefix(PUBLIC_PREFIX).ok_or(KeyError::Public)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| KeyError::Public)?;
        bytes.try_into().map(Self).map_err(|_| KeyError::Public)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Times as records have them.
pub(super) mod micros {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    pub(in super::super) fn serialize<S: Serializer>(at: &OffsetDateTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::time_text(*at))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<OffsetDateTime, D::Error> {
        let text = String::deserialize(from)?;
        OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)
    }
}
