//! Directories of a test's own, gone with it.

use std::path::{Path, PathBuf};

use uuid::Uuid;

/// A new directory below the system's temporary one; removed when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes it.
    ///
    /// # Panics
    /// If the temporary directory cannot be written.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        clippy::expect_used,
        reason = "it makes something in the world; a test without it is no test"
    )]
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("agentapi-test-{}", Uuid::now_v7()));
        std::fs::create_dir(&path).expect("a directory for the test");
        Self(path)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What is in it tells why.
            return;
        }
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}
