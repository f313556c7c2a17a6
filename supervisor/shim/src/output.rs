//! The output of the program, in every place where it is kept: ring, journal, marks.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use agentapi_shared::WindowSize;
use agentapi_shared::journal::{JournalError, JournalWriter};
use agentapi_shared::shim::ShimStart;

use crate::ring::{Marks, Ring};

/// Where output goes first.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) ring: Ring,
    pub(crate) marks: Marks,
    journal: JournalWriter,
    dir: OwnedFd,
    journal_bytes_max: u64,
    /// Since when the journal has holes, because the disk was full.
    broken: bool,
}

impl Output {
    /// Starts the journal in `dir`.
    pub(crate) fn create(start: &ShimStart, dir: OwnedFd) -> Result<Self, JournalError> {
        let writable = dir.try_clone().map_err(JournalError::List)?;
        let journal = JournalWriter::create(writable, start.session, start.spawn, start.journal_bytes_max)?;
        let mut output = Self {
            ring: Ring::default(),
            marks: Marks::new(start.size),
            journal,
            dir,
            journal_bytes_max: start.journal_bytes_max,
            broken: false,
        };
        output.journal.resize(start.size, now_us())?;
        Ok(output)
    }

    /// A descriptor for a reader of its own.
    pub(crate) fn journal_dir(&self) -> io::Result<OwnedFd> {
        self.dir.try_clone()
    }

    /// Oldest offset that can still be sent.
    pub(crate) fn first_offset(&self) -> u64 {
        if self.broken { self.ring.start() } else { self.journal.first_offset() }
    }

    /// How much the journal keeps; none if it has stopped.
    pub(crate) fn journal_bytes_max(&self) -> Option<u64> {
        (!self.broken).then_some(self.journal_bytes_max)
    }

    /// Journals what is in the ring already. A full disk ends the journal's growth, never the session.
    pub(crate) fn record(&mut self, bytes: &[u8]) {
        if self.broken {
            return;
        }
        if let Err(error) = self.journal.output(bytes, now_us()) {
            self.broken = true;
            crate::log(&format!("the journal stops here: {error}: {}", source_of(&error)));
        }
    }

    /// Notes a change of size at the present end.
    pub(crate) fn resize(&mut self, size: WindowSize) {
        self.marks.push(self.ring.end(), size);
        if !self.broken
            && let Err(error) = self.journal.resize(size, now_us())
        {
            self.broken = true;
            crate::log(&format!("the journal stops here: {error}: {}", source_of(&error)));
        }
    }

    /// Makes the journal survive a crash of the machine.
    pub(crate) fn sync(&mut self) {
        if let Err(error) = self.journal.sync() {
            crate::log(&format!("{error}: {}", source_of(&error)));
        }
    }

    /// Gives memory back while the program is quiet; without a journal the ring is all there is.
    pub(crate) fn release(&mut self) {
        if !self.broken {
            self.ring.release();
        }
    }
}

fn source_of(error: &JournalError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// Microseconds since 1970.
fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
