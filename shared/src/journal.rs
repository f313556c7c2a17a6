//! The journal of a spawn: its output, byte for byte, in bounded segments on disk. It feeds viewers that are behind, the screen of a spawn
//! whose shim died, and it is the recording.
//!
//! A segment `{first_offset:020}.journal` is a header and records. Integers are little endian:
//! ```text
//! header  "AAJRNL01" | u32 version | u32 spawn | u128 session | u64 first offset | u64 key id (0: none)
//! record  u8 kind | u8 flags | u16 reserved | u32 length | u64 offset | u64 time (us since 1970) | u32 crc | payload
//! ```
//! The CRC-32 covers the record's header before it and the payload. A reader stops at the first record that is cut short or does not match: a
//! writer killed in the middle of one leaves exactly that. Kinds it does not know are skipped.

mod format;
mod reader;
mod writer;

pub use format::{JournalError, RecordKind, Segment, segments};
pub use reader::{Item, JournalReader};
pub use writer::{JournalWriter, SEGMENT_BYTES};

#[cfg(test)]
mod tests;
