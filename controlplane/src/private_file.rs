//! Files that hold a secret: readable by their owner only from their first moment on, and written as a whole, so that a kill leaves no half one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use agentapi_shared::EventId;

/// Replaces a file.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    fs::rename(beside(path, text)?, path)
}

/// Writes a file beside another, on disk.
pub(crate) fn beside(path: &Path, text: &str) -> io::Result<PathBuf> {
    let beside = path.with_extension(format!("{}.new", EventId::generate()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(beside)
}
