//! Appending: one `writev` per record, a new segment when one is full, the oldest removed when all are too much.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::format::{
    JournalError, MAGIC, PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader, RecordKind, SEGMENT_HEADER_BYTES,
    Segment, VERSION, open_at,
};
use crate::id::SessionId;
use crate::size::WindowSize;

/// A segment is closed beyond this: small enough that dropping the oldest loses little, large enough that 256 MiB are few files.
pub const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// The one writer of a spawn's journal.
#[derive(Debug)]
pub struct JournalWriter {
    dir: OwnedFd,
    session: SessionId,
    spawn: u32,
    bytes_max: u64,
    segments: Vec<(Segment, u64)>,
    file: Option<File>,
    next_offset: u64,
}

impl JournalWriter {
    /// A journal without output yet, in an empty directory.
    pub fn create(dir: OwnedFd, session: SessionId, spawn: u32, bytes_max: u64) -> Result<Self, JournalError> {
        // Two segments at least, or the one being written would be the one removed.
        let bytes_max = bytes_max.max(2 * SEGMENT_BYTES);
        let mut journal = Self { dir, session, spawn, bytes_max, segments: Vec::new(), file: None, next_offset: 0 };
        journal.roll()?;
        Ok(journal)
    }

    /// Oldest offset still kept.
    #[must_use]
    pub fn first_offset(&self) -> u64 {
        self.segments.first().map_or(self.next_offset, |(segment, _)| segment.first_offset)
    }

    /// Appends output; `time_us` since 1970.
    pub fn output(&mut self, bytes: &[u8], time_us: u64) -> Result<(), JournalError> {
        for part in bytes.chunks(PAYLOAD_BYTES_MAX as usize) {
            self.append(RecordKind::Output, part, time_us)?;
            self.next_offset += part.len() as u64;
        }
        Ok(())
    }

    /// Appends a change of size.
    pub fn resize(&mut self, size: WindowSize, time_us: u64) -> Result<(), JournalError> {
        let [c0, c1] = size.cols().to_le_bytes();
        let [r0, r1] = size.rows().to_le_bytes();
        self.append(RecordKind::Resize, &[c0, c1, r0, r1], time_us)
    }

    /// Makes everything appended so far survive a crash of the machine.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        let (segment, _) = self.current();
        match &self.file {
            Some(file) => file.sync_data().map_err(|source| JournalError::Segment {
                action: "sync",
                name: segment.name(),
                source,
            }),
            None => Ok(()),
        }
    }

    fn current(&self) -> (Segment, u64) {
        self.segments.last().copied().unwrap_or((Segment { first_offset: self.next_offset }, 0))
    }

    fn append(&mut self, kind: RecordKind, payload: &[u8], time_us: u64) -> Result<(), JournalError> {
        let (segment, written) = self.current();
        if written >= SEGMENT_BYTES && segment.first_offset < self.next_offset {
            self.roll()?;
        }
        let header = RecordHeader::sealed(kind, self.next_offset, time_us, payload).to_bytes();
        let Some((segment, written)) = self.segments.last_mut() else { return Ok(()) };
        let Some(file) = &mut self.file else { return Ok(()) };
        match write_both(file, &header, payload) {
            Ok(()) => {
                *written += (RECORD_HEADER_BYTES + payload.len()) as u64;
                Ok(())
            }
            Err(source) => {
                // Half a record would hide everything after it from readers: take it back.
                let _kept = file.set_len(*written);
                Err(JournalError::Segment { action: "write", name: segment.name(), source })
            }
        }
    }

    /// Closes the segment, starts the next, removes what is too much.
    fn roll(&mut self) -> Result<(), JournalError> {
        let segment = Segment { first_offset: self.next_offset };
        let mut file =
            open_at(&self.dir, segment, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_APPEND, "create")?;
        let mut header = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&self.spawn.to_le_bytes());
        header.extend_from_slice(&self.session.as_u128().to_le_bytes());
        header.extend_from_slice(&segment.first_offset.to_le_bytes());
        header.extend_from_slice(&0u64.to_le_bytes());
        file.write_all(&header).map_err(|source| JournalError::Segment {
            action: "create",
            name: segment.name(),
            source,
        })?;
        self.file = Some(file);
        self.segments.push((segment, header.len() as u64));
        while self.segments.len() > 1
            && self.segments.iter().map(|(_, bytes)| bytes + SEGMENT_BYTES / 64).sum::<u64>() > self.bytes_max
        {
            let (oldest, _) = self.segments.remove(0);
            unlinkat(&self.dir, oldest.name().as_str(), UnlinkatFlags::NoRemoveDir).map_err(|errno| {
                JournalError::Segment { action: "remove", name: oldest.name(), source: errno.into() }
            })?;
        }
        Ok(())
    }
}

fn write_both(file: &mut File, header: &[u8], payload: &[u8]) -> std::io::Result<()> {
    let written = file.write_vectored(&[IoSlice::new(header), IoSlice::new(payload)])?;
    if let Some(left) = header.get(written..) {
        file.write_all(left)?;
    }
    file.write_all(payload.get(written.saturating_sub(header.len())..).unwrap_or_default())
}
