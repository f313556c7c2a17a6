//! Reading an exported trail once, from its first line to its last, and saying how far it is what it was.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::chain::{ChainHash, Seal};
use super::checkpoint::{Checkpoint, PublicKey};
use super::export::{FORMAT, Manifest, RecordLine};
use crate::id::OrgId;

/// What the reader has from elsewhere.
#[derive(Debug, Default)]
pub struct Trust {
    /// Checkpoints that were kept outside the database.
    pub checkpoints: Vec<Checkpoint>,
    /// The key that checkpoints count of; none: the file's own word is taken for it.
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
            Self::Manifest(_) | Self::Contradiction(_) => None,
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
    /// When it says that it was made.
    pub exported_at: OffsetDateTime,
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
    at: Seal,
    vouched: Option<(u64, OffsetDateTime)>,
}

impl Verifier {
    /// Begins with the first line.
    pub fn begin(line: &[u8], trust: &Trust) -> Result<Self, Fault> {
        let manifest: Manifest = serde_json::from_slice(line).map_err(|error| Fault::Manifest(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(Fault::Manifest(format!("its format is {}, not {FORMAT}", manifest.format)));
        }
        if manifest.last.checked_sub(manifest.after) != Some(manifest.count) {
            return Err(Fault::Contradiction("the numbers of the first and the last record do not give the count"));
        }
        if manifest.after == 0 && manifest.previous != ChainHash::START {
            return Err(Fault::Contradiction("a chain begins with 32 zero bytes"));
        }
        let anchors = anchors(&manifest, trust)?;
        let at = Seal { number: manifest.after, hash: manifest.previous };
        let mut verifier = Self { anchors, key_is_known: trust.key.is_some(), at, vouched: None, manifest };
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
