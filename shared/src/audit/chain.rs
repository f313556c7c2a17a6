//! The chain over the records of one organisation: each value names all records before it, in their order.
//!
//! The same as the Postgres schema's `job_seal_audit`; a test seals the same texts with both.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::id::{EventId, OrgId};

/// Value of a chain after some record.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash([u8; 32]);

/// A place in a chain: the number of a record in its organisation, from 1 without gaps, and the chain's value after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The record's number; 0 before the first.
    pub number: u64,
    /// The chain's value.
    pub hash: ChainHash,
}

impl Seal {
    /// Before the first record.
    pub const START: Self = Self { number: 0, hash: ChainHash::START };

    /// The place of the record that comes next.
    #[must_use]
    pub fn next(self, org: OrgId, record: EventId, text: &str) -> Self {
        let number = self.number + 1;
        Self { number, hash: self.hash.next(number, org, record, text) }
    }
}

impl ChainHash {
    /// Before the first record.
    pub const START: Self = Self([0; 32]);

    /// Reads back what [`Self::as_bytes`] gave.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The value after one more record: number, organisation and record in network order, then what the text is.
    #[must_use]
    pub fn next(self, number: u64, org: OrgId, record: EventId, text: &str) -> Self {
        let mut whole = Sha256::new();
        whole.update(self.0);
        whole.update(number.to_be_bytes());
        whole.update(org.as_u128().to_be_bytes());
        whole.update(record.as_u128().to_be_bytes());
        whole.update(Sha256::digest(text.as_bytes()));
        Self(whole.finalize().into())
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a chain value: expected 64 hexadecimal digits in lower case")]
pub struct InvalidHash;

impl FromStr for ChainHash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(InvalidHash);
        }
        let digit = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(InvalidHash),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for ChainHash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
