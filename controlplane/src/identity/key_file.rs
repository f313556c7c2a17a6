//! Files of keys that are our own: made at the first start, readable by their owner only, replaced as a whole.
//!
//! Replicas that share a directory share the keys: of two that make a file at once, one does, and both read it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::private_file;

/// More than any file of keys, and little enough for one named by mistake.
pub(super) const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error(
        "{path} is no file of {what}; put back the one that was there, since what its keys made is lost without them"
    )]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// It cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What changes when a file does, also one that is replaced through a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// None: there is no file, or it cannot be seen now.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(Self {
            device: facts.dev(),
            inode: facts.ino(),
            size: facts.size(),
            changed: (facts.ctime(), facts.ctime_nsec()),
        })
    }
}

/// The text of a file; none: longer than it may be.
pub(super) fn text(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    let length = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok((u64::try_from(length).is_ok_and(|length| length <= FILE_BYTES_MAX)).then_some(text))
}

/// Reads a file.
pub(super) fn read<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T, KeyFileError> {
    let malformed = || KeyFileError::Malformed { path: path.to_owned(), what };
    let text = text(path).map_err(|source| KeyFileError::Read { path: path.to_owned(), source })?;
    serde_json::from_str(&text.ok_or_else(malformed)?).map_err(|_| malformed())
}

/// Reads a file, or makes it.
pub(super) fn keep<T: Serialize + DeserializeOwned>(
    path: &Path,
    what: &'static str,
    make: impl FnOnce() -> T,
) -> Result<T, KeyFileError> {
    match read(path, what) {
        Err(KeyFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    json(&make())
        .and_then(|text| private_file::make(path, &text))
        .map_err(|source| KeyFileError::Write { path: path.to_owned(), source })?;
    read(path, what)
}

/// Replaces a file.
pub(super) fn replace<T: Serialize>(path: &Path, content: &T) -> Result<(), KeyFileError> {
    let written = json(content).and_then(|text| private_file::replace(path, &text));
    written.map_err(|source| KeyFileError::Write { path: path.to_owned(), source })
}

fn json<T: Serialize>(content: &T) -> io::Result<String> {
    Ok(serde_json::to_string(content)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use agentapi_shared::EventId;

    use super::*;

    #[test]
    fn a_file_is_made_once_for_all_who_want_it_and_for_its_owner_only() {
        let dir = std::env::temp_dir().join(format!("keys-{}", EventId::generate()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("some.keys");
        let kept: Vec<String> = std::thread::scope(|scope| {
            let make = || scope.spawn(|| keep(&path, "words", || EventId::generate().to_string()).unwrap());
            let threads: Vec<_> = (0..8).map(|_| make()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(kept.iter().all(|word| *word == kept[0]), "{kept:?}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let stamp = Stamp::of(&path);
        replace(&path, &"other").unwrap();
        assert_ne!(Stamp::of(&path), stamp);
        assert_eq!(read::<String>(&path, "words").unwrap(), "other");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
        // One that is spoilt is never made anew: what its keys made would be lost.
        fs::write(&path, "{").unwrap();
        let spoilt = keep(&path, "words", || "new".to_owned());
        assert!(matches!(spoilt, Err(KeyFileError::Malformed { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
        fs::remove_dir_all(dir).unwrap();
    }
}
