//! Where the doctor tries things out: a directory that nobody else can have made, watched or laid links into, also below one that everybody writes to.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use agentapi_shared::SessionId;
use tracing::warn;

use crate::files::DOCTOR_PREFIX;
use crate::removal::remove_tree;

/// The directory, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// A supervisor that starts removes what nobody has locked.
    _lock: File,
}

impl Place {
    /// Makes one under a name that nobody can know before.
    pub(super) fn make(below: &Path) -> io::Result<Self> {
        Self::at(below.join(format!("{DOCTOR_PREFIX}{}", SessionId::generate())))
    }

    /// Fails if anything has this name already, a link too.
    fn at(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path)?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            warn!(path = %self.path.display(), %error, "what the doctor has made could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_was_laid_in_wait_is_not_used_and_not_removed() {
        let place = Place::make(&std::env::temp_dir()).unwrap();
        assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let (dir, link) = (place.path().join("dir"), place.path().join("link"));
        fs::create_dir(&dir).unwrap();
        symlink(&dir, &link).unwrap();
        for taken in [&dir, &link] {
            let refused = Place::at(taken.clone()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        }
        assert!(dir.is_dir() && link.is_symlink());
        let path = place.path().to_owned();
        drop(place);
        assert!(!path.exists());
    }
}
