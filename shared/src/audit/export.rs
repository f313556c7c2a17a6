//! The file in which a trail is handed out: NDJSON, a manifest first, then one line for each record in the order of the chain.
//!
//! The manifest is signed as the text that it is, so that nothing in it can be changed unseen: whoever cuts the file, or dates it anew, has to
//! change it. What was signed is the line up to its last member, which is the signature. A second signature, of the range alone, tells a file
//! that was cut from one that was only dated anew.
//!
//! Only `entry`, `id` and `number` of a line are in the chain. `personal` is not, so that it can be erased; nothing else is allowed in a line,
//! or what nobody vouches for would stand beside what is vouched for.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::chain::ChainHash;
use super::checkpoint::{Checkpoint, PublicKey, SigningKey, micros};
use crate::id::{EventId, OrgId};

/// What the first line says that the file is.
pub const FORMAT: &str = "agentapi-audit-1";

/// A line is never longer: a text of 64 KiB and 16 KiB beside it, each byte written as six.
pub const LINE_BYTES_MAX: usize = 512 * 1024;
const _: () = assert!(LINE_BYTES_MAX > 6 * (super::entry::TEXT_BYTES_MAX + 16 * 1024));

/// Before what is signed of a manifest.
const MANIFEST_TAG: &[u8] = b"agentapi.audit.export.1\0";
/// Before what is signed of its range.
const RANGE_TAG: &[u8] = b"agentapi.audit.range.1\0";
/// Between a manifest and its signature.
const SIGNATURE: &str = ",\"manifest_signature\":\"";

/// The first line, without its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// See [`FORMAT`].
    pub format: String,
    /// Whose trail.
    pub org_id: OrgId,
    /// When it was made.
    #[serde(with = "micros")]
    pub exported_at: OffsetDateTime,
    /// The number before the first record; 0 if the trail is here from its start.
    pub after: u64,
    /// The chain's value there.
    pub previous: ChainHash,
    /// The number of the last record.
    pub last: u64,
    /// The chain's value after it.
    pub head: ChainHash,
    /// How many records follow.
    pub count: u64,
    /// What this and the checkpoints are said to be signed with. Whoever wants to be sure has it from elsewhere.
    pub public_key: Option<PublicKey>,
    /// The newest ones of this trail.
    pub checkpoints: Vec<Checkpoint>,
    /// Base64 of the signature of the range; none: nobody signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_signature: Option<String>,
}

/// Whether somebody signed a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signed {
    /// As it stands.
    Whole,
    /// It, and something else: its range is as it was.
    RangeOnly,
    /// Something else.
    No,
    /// Nobody did.
    Nothing,
}

impl Manifest {
    /// The line of it, which ends with its signature if there is a key. `public_key` has to be that of the key.
    #[must_use]
    pub fn line(&self, key: Option<&SigningKey>) -> String {
        let Some(key) = key else { return text(self) };
        let signed = Self { range_signature: Some(key.sign_bytes(&self.range())), ..self.clone() };
        let text = text(&signed);
        let open = text.strip_suffix('}').unwrap_or(&text);
        format!("{open}{SIGNATURE}{}\"}}", key.sign_bytes(&tagged(open)))
    }

    /// Reads a line; what is read is what was signed, and what signed it is looked at with [`Self::signed_by`].
    pub(super) fn parse(line: &[u8]) -> Result<(Self, Option<Claim<'_>>), String> {
        let line = std::str::from_utf8(line).map_err(|error| error.to_string())?.trim_end();
        let read = |text: &str| serde_json::from_str(text).map_err(|error| error.to_string());
        // Nothing else has this name, and within a text quotes are escaped.
        let Some((open, rest)) = line.rsplit_once(SIGNATURE) else { return Ok((read(line)?, None)) };
        let signature = rest.strip_suffix("\"}").ok_or("its signature is not its last member")?;
        Ok((read(&format!("{open}}}"))?, Some(Claim { open, signature })))
    }

    pub(super) fn signed_by(&self, key: &PublicKey, claim: Option<&Claim<'_>>) -> Signed {
        if claim.is_none() && self.range_signature.is_none() {
            return Signed::Nothing;
        }
        if claim.is_some_and(|claim| key.signed_bytes(&tagged(claim.open), claim.signature)) {
            return Signed::Whole;
        }
        let range = self.range_signature.as_ref();
        if range.is_some_and(|signature| key.signed_bytes(&self.range(), signature)) {
            Signed::RangeOnly
        } else {
            Signed::No
        }
    }

    /// Organisation, numbers and chain values, in network order.
    fn range(&self) -> Vec<u8> {
        let org = self.org_id.as_u128().to_be_bytes();
        let (after, last) = (self.after.to_be_bytes(), self.last.to_be_bytes());
        [RANGE_TAG, &org, &after, self.previous.as_bytes(), &last, self.head.as_bytes()].concat()
    }
}

/// What a manifest says that it was signed as, and the signature.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    open: &'a str,
    signature: &'a str,
}

fn tagged(text: &str) -> Vec<u8> {
    [MANIFEST_TAG, text.as_bytes()].concat()
}

fn text(manifest: &Manifest) -> String {
    // Ids, numbers and texts have no form that could fail.
    serde_json::to_string(manifest).unwrap_or_default()
}

/// Each other line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordLine<'a> {
    /// Its number in the trail.
    pub number: u64,
    /// Its id.
    pub id: EventId,
    /// The chain's value after it.
    pub hash: ChainHash,
    /// The exact text.
    #[serde(borrow)]
    pub entry: Cow<'a, str>,
    /// What may be erased; null if there is nothing, or nothing any more.
    #[serde(borrow)]
    pub personal: Option<&'a RawValue>,
}
