//! Reading an exported trail once, from its first line to its last, and saying how far it is what it was.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::chain::{ChainHash, Seal};
use super::checkpoint::{Checkpoint, PublicKey};
use super::entry::time_text;
use super::export::{FORMAT, Manifest, RecordLine, Signed};
use crate::id::OrgId;

/// What the reader has from elsewhere.
#[derive(Debug, Default)]
pub struct Trust {
    /// Checkpoints that were kept outside the database.
    pub checkpoints: Vec<Checkpoint>,
    /// The key that signatures count of; none: the file's own word is taken for it.
    pub key: Option<PublicKey>,
}

/// Why a trail is not what it was. `number` is that of the first bad record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No export.
    #[error("line 1 is no manifest of an exported trail: {0}")]
    Manifest(String),
    /// The manifest contradicts itself.
    #[error("the manifest contradicts itself: {0}")]
    Contradiction(&'static str),
    /// Somebody took the signature away, or the file was never signed.
    #[error("the manifest bears no signature: it may have been cut at either end, or dated anew")]
    Unsigned,
    /// Somebody else's file, or one of an earlier key.
    #[error("the manifest is signed with the key {found}, not with {given}")]
    OtherKey {
        /// Its short name.
        found: String,
        /// That of the one which was brought.
        given: String,
    },
    /// The file says another range than was signed.
    #[error(
        "the manifest was changed: records {first} to {last} are not the range that was signed, so the trail was cut or added to"
    )]
    Cut {
        /// The first that it says.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The range is what was signed, and the time, or what else the manifest says, is not.
    #[error("the manifest was changed: it was dated anew, or says something else that was not signed; it says {says}")]
    Redated {
        /// When the file says that it was made.
        says: String,
    },
    /// A line that is no record.
    #[error("record {number} cannot be read: {reason}")]
    Malformed {
        /// Which.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Another record stands where one should.
    #[error("record {number} is not where it should be: {found} stands there")]
    Order {
        /// Which.
        number: u64,
        /// Which is there instead.
        found: u64,
    },
    /// Its text, id or value is not what was sealed.
    #[error("record {number} is not what was sealed")]
    Changed {
        /// Which.
        number: u64,
    },
    /// The file ends too early.
    #[error("record {number} is missing: the trail had {sealed} records")]
    Missing {
        /// The first that is not there.
        number: u64,
        /// How many there are, by manifest or checkpoint.
        sealed: u64,
    },
    /// More follows than the manifest says.
    #[error("record {number} was added: the trail ends before it")]
    Added {
        /// Which.
        number: u64,
    },
    /// A chain that fits itself and no checkpoint.
    #[error(
        "the chain was made anew: the first bad record is one of {number} to {checkpoint}, where a checkpoint has another value"
    )]
    Rewritten {
        /// The first that is not vouched for.
        number: u64,
        /// Where the checkpoint is.
        checkpoint: u64,
    },
    /// A checkpoint that the key did not sign.
    #[error("the checkpoint at record {number} does not bear the key's signature")]
    Signature {
        /// Where it is.
        number: u64,
    },
    /// Two checkpoints of one key that exclude each other.
    #[error("there are two checkpoints at record {number} with different values")]
    Contrary {
        /// Where they are.
        number: u64,
    },
}

impl Fault {
    /// The first bad record, if it is one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Manifest(_)
            | Self::Contradiction(_)
            | Self::Unsigned
            | Self::OtherKey { .. }
            | Self::Cut { .. }
            | Self::Redated { .. } => None,
            Self::Malformed { number, .. }
            | Self::Order { number, .. }
            | Self::Changed { number }
            | Self::Missing { number, .. }
            | Self::Added { number }
            | Self::Rewritten { number, .. }
            | Self::Signature { number }
            | Self::Contrary { number } => Some(*number),
        }
    }
}

/// What was found of a trail without a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whose it is.
    pub org: OrgId,
    /// When it says that it was handed out.
    pub exported_at: OffsetDateTime,
    /// Whether that, and where it begins and ends, is signed.
    pub signed: bool,
    /// The number before its first record.
    pub after: u64,
    /// Its end.
    pub end: Seal,
    /// The last checkpoint that it agrees with, and when that was signed.
    pub checkpoint: Option<(u64, OffsetDateTime)>,
    /// Whether the reader brought the key; otherwise the file vouches for itself.
    pub key_is_known: bool,
}

impl Report {
    /// Records that no checkpoint vouches for.
    #[must_use]
    pub fn unvouched(&self) -> u64 {
        self.end.number - self.checkpoint.map_or(self.after, |(number, _)| number.max(self.after))
    }
}

/// Where a checkpoint says what the chain's value is.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    hash: ChainHash,
    at: OffsetDateTime,
}

/// See the module.
#[derive(Debug)]
pub struct Verifier {
    manifest: Manifest,
    anchors: BTreeMap<u64, Anchor>,
    key_is_known: bool,
    signed: bool,
    at: Seal,
    vouched: Option<(u64, OffsetDateTime)>,
}

impl Verifier {
    /// Begins with the first line.
    pub fn begin(line: &[u8], trust: &Trust) -> Result<Self, Fault> {
        let (manifest, claim) = Manifest::parse(line).map_err(Fault::Manifest)?;
        if manifest.format != FORMAT {
            return Err(Fault::Manifest(format!("its format is {}, not {FORMAT}", manifest.format)));
        }
        if manifest.last.checked_sub(manifest.after) != Some(manifest.count) {
            return Err(Fault::Contradiction("the numbers of the first and the last record do not give the count"));
        }
        if manifest.after == 0 && manifest.previous != ChainHash::START {
            return Err(Fault::Contradiction("a chain begins with 32 zero bytes"));
        }
        let signed = match trust.key.or(manifest.public_key) {
            Some(key) => is_signed(&manifest, &key, manifest.signed_by(&key, claim.as_ref()), trust)?,
            None if claim.is_some() => return Err(Fault::Contradiction("it is signed and names no key")),
            None => false,
        };
        // What it brings along was there when it was made.
        if manifest.checkpoints.iter().any(|checkpoint| checkpoint.at > manifest.exported_at) {
            return Err(Fault::Redated { says: time_text(manifest.exported_at) });
        }
        let anchors = anchors(&manifest, trust)?;
        let at = Seal { number: manifest.after, hash: manifest.previous };
        let mut verifier = Self { anchors, key_is_known: trust.key.is_some(), signed, at, vouched: None, manifest };
        verifier.look_at_anchor()?;
        Ok(verifier)
    }

    /// Takes the next line.
    pub fn record(&mut self, line: &[u8]) -> Result<(), Fault> {
        let number = self.at.number + 1;
        if self.at.number >= self.manifest.last {
            return Err(Fault::Added { number });
        }
        let record: RecordLine<'_> =
            serde_json::from_slice(line).map_err(|error| Fault::Malformed { number, reason: error.to_string() })?;
        if record.number != number {
            return Err(Fault::Order { number, found: record.number });
        }
        let next = self.at.next(self.manifest.org_id, record.id, &record.entry);
        if next.hash != record.hash {
            return Err(Fault::Changed { number });
        }
        self.at = next;
        self.look_at_anchor()
    }

    /// Says what was found, after the last line.
    pub fn finish(self) -> Result<Report, Fault> {
        let missing = |sealed| Fault::Missing { number: self.at.number + 1, sealed };
        if self.at.number < self.manifest.last {
            return Err(missing(self.manifest.last));
        }
        if self.at.hash != self.manifest.head {
            return Err(Fault::Contradiction("its head is not the chain's value after the last record"));
        }
        // A checkpoint that is newer than the file may know of more.
        let mut beyond = self.anchors.range(self.at.number + 1..).rev();
        if let Some((sealed, _)) = beyond.find(|(_, anchor)| anchor.at <= self.manifest.exported_at) {
            return Err(missing(*sealed));
        }
        Ok(Report {
            org: self.manifest.org_id,
            exported_at: self.manifest.exported_at,
            signed: self.signed,
            after: self.manifest.after,
            end: self.at,
            checkpoint: self.vouched,
            key_is_known: self.key_is_known,
        })
    }

    fn look_at_anchor(&mut self) -> Result<(), Fault> {
        let Some(anchor) = self.anchors.get(&self.at.number) else { return Ok(()) };
        if anchor.hash != self.at.hash {
            let after = self.vouched.map_or(self.manifest.after, |(number, _)| number);
            // Where the file begins with something else than the checkpoint says, its first record is bad.
            let number = (after + 1).min(self.at.number.max(1));
            return Err(Fault::Rewritten { number, checkpoint: self.at.number });
        }
        self.vouched = Some((self.at.number, anchor.at));
        Ok(())
    }
}

/// Whether the key's owner handed the file out as it is. Without a key from elsewhere a file may be unsigned, and vouches for nothing.
fn is_signed(manifest: &Manifest, key: &PublicKey, signed: Signed, trust: &Trust) -> Result<bool, Fault> {
    let named = manifest.public_key.map(|key| key.id());
    match (signed, trust.key) {
        (Signed::Whole, _) => Ok(true),
        (Signed::Nothing, None) => Ok(false),
        (Signed::Nothing, Some(_)) => Err(Fault::Unsigned),
        (Signed::RangeOnly, _) => Err(Fault::Redated { says: time_text(manifest.exported_at) }),
        // Named, it is perhaps another server's, or of an earlier key; whether it is what it was, this key does not say.
        (Signed::No, Some(_)) if named.as_ref().is_some_and(|named| *named != key.id()) => {
            Err(Fault::OtherKey { found: named.unwrap_or_default(), given: key.id() })
        }
        (Signed::No, _) => Err(Fault::Cut { first: manifest.after + 1, last: manifest.last }),
    }
}

/// The checkpoints that count: of this trail, and signed by the key.
fn anchors(manifest: &Manifest, trust: &Trust) -> Result<BTreeMap<u64, Anchor>, Fault> {
    let mut anchors: BTreeMap<u64, Anchor> = BTreeMap::new();
    let Some(key) = trust.key.or(manifest.public_key) else { return Ok(anchors) };
    let id = key.id();
    let all = trust.checkpoints.iter().chain(&manifest.checkpoints);
    // Those of other keys, such as of an earlier one, say nothing to whoever has this one.
    for checkpoint in all.filter(|checkpoint| checkpoint.org_id == manifest.org_id && checkpoint.key_id == id) {
        if !key.signed(checkpoint) {
            return Err(Fault::Signature { number: checkpoint.number });
        }
        let anchor = Anchor { hash: checkpoint.hash, at: checkpoint.at };
        let known = anchors.entry(checkpoint.number).or_insert(anchor);
        if known.hash != anchor.hash {
            return Err(Fault::Contrary { number: checkpoint.number });
        }
        known.at = known.at.min(anchor.at);
    }
    Ok(anchors)
}
