//! The audit trail's text, chain, checkpoints and export, the same for the control plane that writes them and the command that verifies them.
//!
//! Pure: nothing here reads a file, a clock or a database. [`entry`] decides the exact text of a record; [`chain`] ties the texts together;
//! [`checkpoint`] signs a chain's end so that it can be kept outside the database; [`export`] is the file in which a trail is handed out, and
//! [`verify`] reads such a file once and says how far it is what it was.

pub mod chain;
pub mod checkpoint;
pub mod entry;
pub mod export;
pub mod verify;

#[cfg(test)]
mod tests;

pub use chain::{ChainHash, Seal};
pub use checkpoint::{Checkpoint, PublicKey, SigningKey};
pub use entry::{Actor, ActorKind, Entry, Personal};
pub use export::{Manifest, RecordLine};
pub use verify::{Fault, Report, Trust, Verifier};

use crate::id::OrgId;

/// In whose chain records stand that belong to no organisation, such as a refused login.
pub const PLATFORM: OrgId = OrgId::from_u128(0);
