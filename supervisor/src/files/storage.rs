//! Where the files of a session's agent are: on a disk of the session's own, or in directories of the host.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::{SessionFiles, private_dir};

/// What a session has for its HOME and an `empty` workspace. What it has it keeps: settings that change later are for other sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// Nothing yet.
    New,
    /// Directories of the host: of an earlier release, or of a host that could not do better.
    Directories,
    /// A disk of this size.
    Disk { bytes: u64 },
}

impl SessionFiles {
    /// What there is.
    pub(crate) fn storage(&self) -> io::Result<Storage> {
        match fs::symlink_metadata(self.disk()) {
            Ok(image) => return Ok(Storage::Disk { bytes: image.len() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(if self.home().try_exists()? { Storage::Directories } else { Storage::New })
    }

    /// The image of its disk.
    pub(crate) fn disk(&self) -> PathBuf {
        self.0.join("disk.img")
    }

    /// The same while it is made; one that is there was not made to its end.
    pub(crate) fn unfinished_disk(&self) -> PathBuf {
        self.0.join("disk.new")
    }

    /// Makes the directories of a session without a disk.
    pub(crate) fn create_dirs(&self) -> io::Result<()> {
        private_dir(&self.home())?;
        private_dir(&self.workspace())
    }

    /// An id of the block that the session has on the host, by who owns what is its own.
    pub(crate) fn owner(&self) -> io::Result<u32> {
        match fs::symlink_metadata(self.disk()) {
            // The image itself is root's.
            Ok(image) => Ok(image.gid()),
            Err(_) => Ok(fs::symlink_metadata(self.home())?.uid()),
        }
    }
}
