//! Reading in order from any offset that is kept, also while the writer appends.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;

use super::format::{
    JournalError, MAGIC, RECORD_HEADER_BYTES, RecordHeader, RecordKind, SEGMENT_HEADER_BYTES, Segment, open_at,
    segments,
};
use crate::size::WindowSize;

/// One thing read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Output that starts at the offset.
    Output {
        /// Offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// From the offset on the terminal has this size.
    Resize {
        /// Offset.
        offset: u64,
        /// Size.
        size: WindowSize,
    },
}

/// A position in a spawn's journal.
#[derive(Debug)]
pub struct JournalReader {
    dir: OwnedFd,
    open: Option<(Segment, File)>,
    next_offset: u64,
}

impl JournalReader {
    /// A reader at `offset`; an error if that is no longer kept. An offset beyond the end waits there.
    pub fn open(dir: OwnedFd, offset: u64) -> Result<Self, JournalError> {
        let mut reader = Self { dir, open: None, next_offset: offset };
        reader.seek_segment()?;
        Ok(reader)
    }

    /// A reader at the oldest byte that is kept.
    pub fn from_start(dir: OwnedFd) -> Result<Self, JournalError> {
        let first = segments(&dir)?.first().map_or(0, |segment| segment.first_offset);
        Self::open(dir, first)
    }

    /// Offset of the next byte.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// The next item; none at the end of what is written so far.
    pub fn next_item(&mut self) -> Result<Option<Item>, JournalError> {
        loop {
            let Some((segment, file)) = &mut self.open else {
                if !self.seek_segment()? {
                    return Ok(None);
                }
                continue;
            };
            let name = segment.name();
            let failed = |source| JournalError::Segment { action: "read", name, source };
            match read_record(file).map_err(failed)? {
                Some((header, payload)) => {
                    if let Some(item) = self.accept(header, payload) {
                        return Ok(Some(item));
                    }
                }
                // The end of this segment: the next one, if the writer has moved on.
                None => {
                    let next = Segment { first_offset: self.next_offset };
                    if next == *segment || !segments(&self.dir)?.contains(&next) {
                        return Ok(None);
                    }
                    self.open = None;
                }
            }
        }
    }

    /// Turns a record into an item, unless it lies before the wanted offset or its kind is unknown.
    fn accept(&mut self, header: RecordHeader, mut payload: Vec<u8>) -> Option<Item> {
        if header.kind == RecordKind::Output as u8 {
            let end = header.offset + payload.len() as u64;
            if end <= self.next_offset {
                return None;
            }
            let skip = usize::try_from(self.next_offset.saturating_sub(header.offset)).unwrap_or(0);
            let offset = self.next_offset;
            self.next_offset = end;
            payload.drain(..skip);
            return Some(Item::Output { offset, bytes: payload });
        }
        if header.kind == RecordKind::Resize as u8 && header.offset >= self.next_offset {
            let &[c0, c1, r0, r1] = payload.as_slice() else { return None };
            let size = WindowSize::clamped(u16::from_le_bytes([c0, c1]), u16::from_le_bytes([r0, r1]));
            return Some(Item::Resize { offset: header.offset, size });
        }
        None
    }

    /// Opens the segment that holds the next offset. False if there is none at all.
    fn seek_segment(&mut self) -> Result<bool, JournalError> {
        let all = segments(&self.dir)?;
        let Some(first) = all.first() else { return Ok(false) };
        let Some(segment) = all.iter().rev().find(|segment| segment.first_offset <= self.next_offset) else {
            return Err(JournalError::Gone { wanted: self.next_offset, first: first.first_offset });
        };
        // Whoever wrote the journal may put something else in its place: reading must not wait for a pipe.
        let mut file = open_at(&self.dir, *segment, OFlag::O_RDONLY | OFlag::O_NONBLOCK, "open")?;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let readable = file.read_exact(&mut header).is_ok() && header.starts_with(&MAGIC);
        if !readable {
            let source = io::Error::new(io::ErrorKind::InvalidData, "not a journal segment");
            return Err(JournalError::Segment { action: "read", name: segment.name(), source });
        }
        self.open = Some((*segment, file));
        Ok(true)
    }
}

/// Reads one whole record, or leaves the file where it was: what is cut short may be complete a moment later.
fn read_record(file: &mut File) -> io::Result<Option<(RecordHeader, Vec<u8>)>> {
    let start = file.stream_position()?;
    let record = try_read_record(file)?;
    if record.is_none() {
        file.seek(SeekFrom::Start(start))?;
    }
    Ok(record)
}

fn try_read_record(file: &mut File) -> io::Result<Option<(RecordHeader, Vec<u8>)>> {
    let mut bytes = [0; RECORD_HEADER_BYTES];
    if !read_full(file, &mut bytes)? {
        return Ok(None);
    }
    let Some(header) = RecordHeader::parse(&bytes) else { return Ok(None) };
    let mut payload = vec![0; header.length as usize];
    if !read_full(file, &mut payload)? {
        return Ok(None);
    }
    Ok((header.checksum(&payload) == header.crc).then_some((header, payload)))
}

/// Whether the buffer could be filled.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
