//! Bytes of headers and records; the list of segments in a directory.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// First bytes of a segment.
pub(super) const MAGIC: [u8; 8] = *b"AAJRNL01";
/// Version of the format.
pub(super) const VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 48;
/// Bytes of a record's header.
pub(super) const RECORD_HEADER_BYTES: usize = 28;
/// A payload is never larger: a PTY read.
pub(super) const PAYLOAD_BYTES_MAX: u32 = 64 * 1024;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// Output of the program.
    Output = 1,
    /// The size changed: `u16 cols, u16 rows`.
    Resize = 2,
}

/// Why a journal could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory could not be listed.
    #[error("cannot list the journal")]
    List(#[source] io::Error),
    /// A segment could not be made, written or read.
    #[error("cannot {action} journal segment {name}")]
    Segment {
        /// Such as `create`.
        action: &'static str,
        /// File name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Bytes that were asked for are not kept any more.
    #[error("offset {wanted} is not kept any more; the oldest is {first}")]
    Gone {
        /// Asked for.
        wanted: u64,
        /// Oldest.
        first: u64,
    },
}

/// A segment on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Offset of its first byte of output.
    pub first_offset: u64,
}

impl Segment {
    /// Its file name.
    #[must_use]
    pub fn name(self) -> String {
        format!("{:020}.journal", self.first_offset)
    }

    fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(".journal")?;
        (digits.len() == 20).then(|| digits.parse().ok()).flatten().map(|first_offset| Self { first_offset })
    }
}

/// The segments in a directory, oldest first.
pub fn segments(dir: impl AsFd) -> Result<Vec<Segment>, JournalError> {
    let list = |errno: nix::errno::Errno| JournalError::List(errno.into());
    let mut found = Vec::new();
    let mut entries =
        Dir::openat(dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map_err(list)?;
    for entry in entries.iter() {
        let entry = entry.map_err(list)?;
        found.extend(entry.file_name().to_str().ok().and_then(Segment::parse));
    }
    found.sort_unstable();
    Ok(found)
}

/// Opens a segment by its directory's fd, never by a path that somebody could exchange.
pub(super) fn open_at(
    dir: impl AsFd,
    segment: Segment,
    flags: OFlag,
    action: &'static str,
) -> Result<File, JournalError> {
    let name = segment.name();
    let mode = Mode::from_bits_truncate(0o600);
    nix::fcntl::openat(dir, &PathBuf::from(&name), flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, mode)
        .map(File::from)
        .map_err(|errno| JournalError::Segment { action, name, source: errno.into() })
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: u8,
    pub(super) length: u32,
    pub(super) offset: u64,
    pub(super) time_us: u64,
    pub(super) crc: u32,
}

impl RecordHeader {
    /// The header with the checksum of itself and `payload`.
    pub(super) fn sealed(kind: RecordKind, offset: u64, time_us: u64, payload: &[u8]) -> Self {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut header = Self { kind: kind as u8, length, offset, time_us, crc: 0 };
        header.crc = header.checksum(payload);
        header
    }

    pub(super) fn checksum(&self, payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.to_bytes()[..RECORD_HEADER_BYTES - 4]);
        hasher.update(payload);
        hasher.finalize()
    }

    pub(super) fn to_bytes(self) -> [u8; RECORD_HEADER_BYTES] {
        let mut out = [0; RECORD_HEADER_BYTES];
        out[0] = self.kind;
        out[4..8].copy_from_slice(&self.length.to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..24].copy_from_slice(&self.time_us.to_le_bytes());
        out[24..28].copy_from_slice(&self.crc.to_le_bytes());
        out
    }

    /// Reads a header; none if it cannot be one.
    pub(super) fn parse(bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<Self> {
        let (_, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (time, crc) = rest.split_first_chunk::<8>()?;
        let header = Self {
            kind: bytes[0],
            length: u32::from_le_bytes(*length),
            offset: u64::from_le_bytes(*offset),
            time_us: u64::from_le_bytes(*time),
            crc: u32::from_le_bytes(crc.try_into().ok()?),
        };
        (header.length <= PAYLOAD_BYTES_MAX).then_some(header)
    }
}
