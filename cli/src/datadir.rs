//! The data dir of one machine: its layout, and that nobody else can read it.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::CREDENTIALS_FILE;
use crate::failure::{ExitKind, Failure};

/// Only its owner may look into it: it holds credentials and everything agents printed.
const PRIVATE_MODE: u32 = 0o700;

/// The data dir.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// A data dir that may not exist yet.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Creates what is missing, and makes it private.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        for dir in [self.root.clone(), self.controlplane(), self.supervisor(), self.logs()] {
            private_dir(&dir).map_err(|error| {
                Failure::new(ExitKind::Failure, format!("cannot use the data dir {}: {error}", dir.display()))
            })?;
        }
        Ok(())
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Url and token for programs of this machine.
    pub(crate) fn credentials(&self) -> PathBuf {
        self.root.join(CREDENTIALS_FILE)
    }

    /// Url and token for the supervisor of this machine.
    pub(crate) fn host_credential(&self) -> PathBuf {
        self.root.join("host-credential.json")
    }

    /// What the control plane keeps.
    pub(crate) fn controlplane(&self) -> PathBuf {
        self.root.join("controlplane")
    }

    /// What the supervisor keeps.
    pub(crate) fn supervisor(&self) -> PathBuf {
        self.root.join("supervisor")
    }

    /// The log of a process.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// Held by the `up` that runs.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("up.lock")
    }

    fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
}

fn private_dir(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(PRIVATE_MODE).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::metadata(dir)?;
    if !found.is_dir() {
        return Err(io::Error::other("it is not a directory"));
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    if found.permissions().mode() & 0o777 != PRIVATE_MODE {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(PRIVATE_MODE))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_also_when_it_was_not() {
        let root = std::env::temp_dir().join(format!("agentapi-data-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&root).unwrap();
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
        let data = DataDir::new(root.clone());
        data.create().unwrap();
        data.create().unwrap();
        for dir in [root.clone(), data.supervisor(), data.logs()] {
            assert_eq!(std::fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
