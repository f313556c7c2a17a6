//! The file in which a trail is handed out: NDJSON, a manifest first, then one line for each record in the order of the chain.
//!
//! Only `entry`, `id` and `number` of a line are in the chain. `personal` is not, so that it can be erased; nothing else is allowed in a line,
//! or what nobody vouches for would stand beside what is vouched for.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::chain::ChainHash;
use super::checkpoint::{Checkpoint, PublicKey, micros};
use crate::id::{EventId, OrgId};

/// What the first line says that the file is.
pub const FORMAT: &str = "agentapi-audit-1";

/// A line is never longer: a text of 64 KiB and 16 KiB beside it, each byte written as six.
pub const LINE_BYTES_MAX: usize = 512 * 1024;
const _: () = assert!(LINE_BYTES_MAX > 6 * (super::entry::TEXT_BYTES_MAX + 16 * 1024));

/// The first line.
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
    /// What the checkpoints are said to be signed with. Whoever wants to be sure has it from elsewhere.
    pub public_key: Option<PublicKey>,
    /// The newest ones of this trail.
    pub checkpoints: Vec<Checkpoint>,
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
