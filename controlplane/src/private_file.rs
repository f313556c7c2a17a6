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

/// Makes a file, unless it is there: of two that make it at once one does, and both find the same. Whoever lost reads what is there.
pub(crate) fn make(path: &Path, text: &str) -> io::Result<()> {
    let beside = beside(path, text)?;
    // A link, unlike a renaming, does not replace what somebody else has just made.
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file beside another, on disk.
pub(crate) fn beside(path: &Path, text: &str) -> io::Result<PathBuf> {
    let beside = path.with_extension(format!("{}.new", EventId::generate()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(beside)
}
